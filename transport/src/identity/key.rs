//! A machine's own key, made on the machine, and the certificate that goes with it.

use std::fmt;
use std::time::SystemTime;

use rcgen::{CertificateParams, DistinguishedName, PublicKeyData as _, SigningKey as _};
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::name::{InvalidName, MachineIdentity, machine_of};
use super::private_key::PrivateKey;
use super::verify;

/// The private key of a machine.
pub struct MachineKey(PrivateKey);

impl MachineKey {
    /// A new key (ECDSA P-256).
    ///
    /// # Errors
    ///
    /// Where the system has no random numbers.
    pub fn generate() -> Result<Self, IdentityError> {
        PrivateKey::generate()
            .map(Self)
            .map_err(|error| IdentityError::Key(error.to_string()))
    }

    /// The key that [`Self::pkcs8`] gave.
    ///
    /// # Errors
    ///
    /// Where the bytes are no such key.
    pub fn from_pkcs8(der: Zeroizing<Vec<u8>>) -> Result<Self, IdentityError> {
        PrivateKey::from_pkcs8(der)
            .map(Self)
            .map_err(|error| IdentityError::Key(error.to_string()))
    }

    /// PKCS#8 DER, to be stored where nobody else can read it.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        self.0.pkcs8()
    }

    /// A PKCS#10 request (DER) for a certificate for this key. It names nobody: who the machine is, the host decides.
    ///
    /// # Errors
    ///
    /// Where it cannot be signed: a bug, or no random numbers.
    pub fn request(&self) -> Result<Vec<u8>, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params
            .serialize_request(&self.0)
            .map_err(|error| IdentityError::Key(error.to_string()))?;
        Ok(request.der().to_vec())
    }

    /// Signs what begins with a label of its own (see [`is_signed`](super::is_signed)). DER.
    ///
    /// # Errors
    ///
    /// Where the system has no random numbers.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, IdentityError> {
        self.0
            .sign(message)
            .map_err(|error| IdentityError::Key(error.to_string()))
    }
}

impl fmt::Debug for MachineKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineKey").finish_non_exhaustive()
    }
}

/// All that an agent needs to show who it is, and to know its host: checked as a whole.
#[derive(Debug)]
pub struct AgentIdentity {
    key: MachineKey,
    chain: Vec<CertificateDer<'static>>,
    root: CertificateDer<'static>,
    machine: MachineIdentity,
    expires: SystemTime,
}

impl AgentIdentity {
    /// Puts a key, its certificate with the issuers (leaf first) and the pinned root together. To be used when they are
    /// new (an enrollment, a renewal) and when they are read again.
    ///
    /// # Errors
    ///
    /// Where they do not belong together, or the certificate is not valid at `now`.
    pub fn new(
        key: MachineKey,
        chain: &[Vec<u8>],
        root: &[u8],
        now: SystemTime,
    ) -> Result<Self, IdentityError> {
        let chain: Vec<CertificateDer<'static>> = chain
            .iter()
            .map(|der| CertificateDer::from(der.clone()))
            .collect();
        let root = CertificateDer::from(root.to_vec());
        let (leaf, issuers) = chain.split_first().ok_or(IdentityError::Empty)?;
        let machine = machine_of(leaf)?;
        let facts = verify::CertificateFacts::read(leaf).ok_or(InvalidName::Malformed)?;
        if facts.public_key != key.0.subject_public_key_info() {
            return Err(IdentityError::OtherKey);
        }
        if now >= facts.expires {
            return Err(IdentityError::Expired);
        }
        verify::machine_chain(leaf, issuers, &root, now)
            .map_err(|error| IdentityError::Chain(error.to_string()))?;
        Ok(Self {
            machine,
            expires: facts.expires,
            key,
            chain,
            root,
        })
    }

    /// Who this machine is.
    #[must_use]
    pub const fn machine(&self) -> MachineIdentity {
        self.machine
    }

    /// When the certificate ends. It is renewed when half of its life is over.
    #[must_use]
    pub const fn expires(&self) -> SystemTime {
        self.expires
    }

    /// The machine's key.
    #[must_use]
    pub const fn key(&self) -> &MachineKey {
        &self.key
    }

    /// DER of the certificate and its issuers, leaf first.
    pub fn chain(&self) -> impl Iterator<Item = &[u8]> {
        self.chain.iter().map(AsRef::as_ref)
    }

    /// DER of the pinned root.
    #[must_use]
    pub fn root(&self) -> &[u8] {
        &self.root
    }

    pub(crate) fn certificates(&self) -> Vec<CertificateDer<'static>> {
        self.chain.clone()
    }

    pub(crate) fn pinned_root(&self) -> CertificateDer<'static> {
        self.root.clone()
    }
}

/// A key and certificates do not make an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The key cannot be made or read.
    #[error("the machine's key cannot be used: {0}")]
    Key(String),
    /// There is no certificate.
    #[error("there is no certificate")]
    Empty,
    /// The certificate does not name a machine.
    #[error("the certificate does not name a machine")]
    Name(#[from] InvalidName),
    /// The certificate is for another key.
    #[error("the certificate is for another key than this machine's")]
    OtherKey,
    /// The certificate has expired.
    #[error("the machine's certificate has expired; enroll it again")]
    Expired,
    /// The certificate does not lead to the pinned root.
    #[error("the certificate does not lead to the pinned root: {0}")]
    Chain(String),
}
