//! Certificates that an authority issues.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use sluice_protocol::ids::{HostId, MachineId, TenantId};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;
use zeroize::Zeroizing;

use super::authority::{Authority, Intermediate};
use super::name::{HOST_SERVER_NAME, MachineIdentity, host_uri};
use super::pem;
use super::private_key::PrivateKey;

/// A machine that is away for longer must enroll again.
const MACHINE_LIFE: Duration = days(30);
/// A host renews its own certificate while it runs.
const HOST_LIFE: Duration = days(30);
/// Issued anew at each start of the REST listener. Browsers take no more than 398 days.
const API_LIFE: Duration = days(397);
/// Clocks of machines go wrong; a certificate is valid for a machine that is this late.
const BACKDATED: Duration = Duration::from_secs(60 * 60);

const fn days(n: u64) -> Duration {
    Duration::from_secs(n * 24 * 60 * 60)
}

/// A certificate for somebody else's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// DER of the certificate and its issuer, leaf first; the root is not in it.
    pub chain: Vec<Vec<u8>>,
    /// When it ends.
    pub expires: SystemTime,
}

/// A certificate for a server, and its key.
pub struct ServerCertificate {
    /// DER, leaf first; the root is not in it.
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8 DER.
    pub key: Zeroizing<Vec<u8>>,
    /// When it ends.
    pub expires: SystemTime,
}

impl ServerCertificate {
    /// The chain as text.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        self.chain
            .iter()
            .map(|der| pem::encode(pem::CERTIFICATE, der).to_string())
            .collect()
    }

    /// The key as text.
    #[must_use]
    pub fn key_pem(&self) -> Zeroizing<String> {
        pem::encode(pem::PRIVATE_KEY, &self.key)
    }
}

impl std::fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerCertificate")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// A certificate cannot be issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The request is no PKCS#10 request, or not signed by the key in it. The machine's fault.
    #[error("the certificate request is not valid: {0}")]
    Request(&'static str),
    /// A name cannot stand in a certificate. The operator's fault.
    #[error("{name:?} cannot stand in a certificate: {reason}")]
    Name {
        /// As it was given.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// No random numbers, or a bug.
    #[error("cannot sign a certificate: {0}")]
    Signing(String),
}

impl From<rcgen::Error> for IssueError {
    fn from(error: rcgen::Error) -> Self {
        Self::Signing(error.to_string())
    }
}

impl Authority {
    /// A certificate for a machine, for 30 days. Of the request (PKCS#10 DER) the public key alone is taken, after its
    /// signature has shown that the machine has the private one; whatever else it asks for is ignored.
    ///
    /// # Errors
    ///
    /// Where the request is malformed, not signed by its own key, or for a key other than ECDSA P-256.
    pub fn issue_machine(
        &self,
        tenant: TenantId,
        machine: MachineId,
        request: &[u8],
        now: SystemTime,
    ) -> Result<Issued, IssueError> {
        let key = public_key(request)?;
        let uri = MachineIdentity { tenant, machine }.to_string();
        let mut params = leaf(ExtendedKeyUsagePurpose::ClientAuth)?;
        params.subject_alt_names = vec![uri_name(uri)?];
        self.0.agents.issue(params, &key, now, MACHINE_LIFE)
    }

    /// A certificate for a host, for 30 days.
    ///
    /// # Errors
    ///
    /// Where there are no random numbers.
    pub fn issue_host(
        &self,
        host: HostId,
        now: SystemTime,
    ) -> Result<ServerCertificate, IssueError> {
        let mut params = leaf(ExtendedKeyUsagePurpose::ServerAuth)?;
        params.subject_alt_names = vec![
            uri_name(host_uri(host))?,
            SanType::DnsName(HOST_SERVER_NAME.try_into()?),
        ];
        self.0.hosts.issue_server(params, now, HOST_LIFE)
    }

    /// A certificate for the REST listener, for the names and addresses by which operators reach it. It has no URI, so
    /// no agent takes it for a host's.
    ///
    /// # Errors
    ///
    /// Where a name is not a DNS name or an address, or is the one that agents use.
    pub fn issue_api(
        &self,
        names: &[String],
        now: SystemTime,
    ) -> Result<ServerCertificate, IssueError> {
        let mut params = leaf(ExtendedKeyUsagePurpose::ServerAuth)?;
        params.subject_alt_names = names
            .iter()
            .map(|name| api_name(name))
            .collect::<Result<_, _>>()?;
        if names.is_empty() {
            return Err(IssueError::Name {
                name: String::new(),
                reason: "at least one name is needed",
            });
        }
        self.0.hosts.issue_server(params, now, API_LIFE)
    }
}

impl Intermediate {
    fn issue(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
        now: SystemTime,
        life: Duration,
    ) -> Result<Issued, IssueError> {
        let validity = Validity::new(now, life);
        validity.apply(&mut params);
        let certificate = params.signed_by(key, &self.issuer)?;
        Ok(Issued {
            chain: vec![certificate.der().to_vec(), self.certificate.to_vec()],
            expires: validity.not_after,
        })
    }

    fn issue_server(
        &self,
        params: CertificateParams,
        now: SystemTime,
        life: Duration,
    ) -> Result<ServerCertificate, IssueError> {
        let key = PrivateKey::generate()?;
        let Issued { chain, expires } = self.issue(params, &key, now, life)?;
        Ok(ServerCertificate {
            chain,
            key: Zeroizing::new(key.pkcs8().to_vec()),
            expires,
        })
    }
}

/// Which of the two intermediates signs, in tests that need certificates that no authority would issue.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub(crate) enum Signer {
    Hosts,
    Agents,
}

#[cfg(test)]
impl Authority {
    /// Signs anything.
    pub(crate) fn dangerous_sign(
        &self,
        signer: Signer,
        usage: ExtendedKeyUsagePurpose,
        names: Vec<SanType>,
        key: &impl PublicKeyData,
    ) -> Vec<Vec<u8>> {
        let mut params = leaf(usage).expect("random numbers");
        params.subject_alt_names = names;
        let intermediate = match signer {
            Signer::Hosts => &self.0.hosts,
            Signer::Agents => &self.0.agents,
        };
        intermediate
            .issue(params, key, SystemTime::now(), MACHINE_LIFE)
            .expect("signs")
            .chain
    }
}

/// From when to when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validity {
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Validity {
    pub(super) fn new(now: SystemTime, life: Duration) -> Self {
        Self {
            not_before: now - BACKDATED,
            not_after: now + life,
        }
    }

    pub(super) fn apply(self, params: &mut CertificateParams) {
        params.not_before = self.not_before.into();
        params.not_after = self.not_after.into();
    }
}

/// 127 random bits: positive, and not the 20 bytes that RFC 5280 ends at.
pub(super) fn random_serial() -> Result<SerialNumber, rcgen::Error> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// A certificate that issues nothing.
fn leaf(usage: ExtendedKeyUsagePurpose) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(random_serial()?);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn uri_name(uri: String) -> Result<SanType, rcgen::Error> {
    Ok(SanType::URI(uri.try_into()?))
}

fn api_name(name: &str) -> Result<SanType, IssueError> {
    let refuse = |reason| IssueError::Name {
        name: name.to_owned(),
        reason,
    };
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    if name.eq_ignore_ascii_case(HOST_SERVER_NAME) {
        return Err(refuse("it is the name that agents use"));
    }
    if rustls::pki_types::DnsName::try_from(name).is_err() {
        return Err(refuse("it is neither a DNS name nor an address"));
    }
    Ok(SanType::DnsName(name.try_into()?))
}

/// The public key of a PKCS#10 request whose signature holds: proof of possession.
fn public_key(request: &[u8]) -> Result<SubjectPublicKeyInfo, IssueError> {
    let (rest, request) = X509CertificationRequest::from_der(request)
        .map_err(|_| IssueError::Request("it cannot be read"))?;
    if !rest.is_empty() {
        return Err(IssueError::Request("it has trailing bytes"));
    }
    request
        .verify_signature()
        .map_err(|_| IssueError::Request("it is not signed by the key in it"))?;
    let key = SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw)
        .map_err(|_| IssueError::Request("its key is not of a known kind"))?;
    if key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
        return Err(IssueError::Request("its key is not ECDSA on P-256"));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use rcgen::{DnType, KeyPair};

    use super::*;
    use crate::identity::{InvalidName, MachineKey, host_of, machine_of};

    fn authority() -> (tempfile::TempDir, Authority) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let authority = Authority::create(&folder.path().join("authority")).expect("makes");
        (folder, authority)
    }

    #[test]
    fn of_a_request_the_public_key_alone_is_taken() {
        let (_folder, authority) = authority();
        let (tenant, machine) = (TenantId::generate(), MachineId::generate());
        let key = KeyPair::generate().expect("makes");
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "root of all");
        params.subject_alt_names = vec![
            uri_name("sluice://machine/a/b".to_owned()).expect("a name"),
            SanType::DnsName(HOST_SERVER_NAME.try_into().expect("a name")),
        ];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let request = params.serialize_request(&key).expect("signs");
        let issued = authority
            .issue_machine(tenant, machine, request.der(), SystemTime::now())
            .expect("issues");
        assert_eq!(
            machine_of(&issued.chain[0]),
            Ok(MachineIdentity { tenant, machine })
        );
        assert_eq!(issued.chain.len(), 2);
        let (_, certificate) =
            x509_parser::parse_x509_certificate(&issued.chain[0]).expect("parses");
        assert_eq!(certificate.public_key().raw, key.subject_public_key_info());
        assert_eq!(certificate.subject().iter_attributes().count(), 0);
        assert!(!certificate.is_ca());
        let names = certificate
            .subject_alternative_name()
            .expect("parses")
            .expect("has one");
        assert_eq!(names.value.general_names.len(), 1);
        let usage = certificate
            .extended_key_usage()
            .expect("parses")
            .expect("has one")
            .value;
        assert!(usage.client_auth && !usage.server_auth);
        assert!(certificate.raw_serial().len() == 16);
    }

    #[test]
    fn a_request_without_proof_of_possession_is_refused() {
        let (_folder, authority) = authority();
        let refused = |request: &[u8]| {
            let answer = authority.issue_machine(
                TenantId::generate(),
                MachineId::generate(),
                request,
                SystemTime::now(),
            );
            assert!(matches!(answer, Err(IssueError::Request(_))), "{answer:?}");
        };
        let good = MachineKey::generate()
            .and_then(|key| key.request())
            .expect("makes");
        refused(b"");
        refused(&good[..good.len() - 1]);
        refused(&[good.as_slice(), b"x"].concat());
        // Another key in an otherwise untouched request.
        let key = MachineKey::generate().expect("makes");
        let other = key.request().expect("makes");
        let point = |der: &[u8]| {
            let (_, request) = X509CertificationRequest::from_der(der).expect("parses");
            request
                .certification_request_info
                .subject_pki
                .subject_public_key
                .data
                .to_vec()
        };
        let (mine, theirs) = (point(&good), point(&other));
        let at = good
            .windows(mine.len())
            .position(|window| window == mine)
            .expect("is in it");
        let mut swapped = good.clone();
        swapped[at..at + theirs.len()].copy_from_slice(&theirs);
        refused(&swapped);
        // A key of another kind.
        let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("makes");
        refused(
            CertificateParams::default()
                .serialize_request(&ed25519)
                .expect("signs")
                .der(),
        );
    }

    #[test]
    fn a_certificate_for_the_api_is_no_certificate_for_a_host() {
        let (_folder, authority) = authority();
        let now = SystemTime::now();
        let names = [
            "sluice.example.com".to_owned(),
            "127.0.0.1".to_owned(),
            "::1".to_owned(),
        ];
        let api = authority.issue_api(&names, now).expect("issues");
        assert_eq!(host_of(&api.chain[0]), Err(InvalidName::NotOneUri));
        assert!(api.chain_pem().matches("BEGIN CERTIFICATE").count() == 2);
        assert!(api.key_pem().contains("BEGIN PRIVATE KEY"));
        let id = HostId::generate();
        let host = authority.issue_host(id, now).expect("issues");
        assert_eq!(host_of(&host.chain[0]), Ok(id));
        assert_eq!(machine_of(&host.chain[0]), Err(InvalidName::NotAMachine));
        for bad in [
            HOST_SERVER_NAME,
            "HOST.sluice.invalid",
            "a b",
            "",
            "sluice://host/x",
        ] {
            let answer = authority.issue_api(&[bad.to_owned()], now);
            assert!(
                matches!(answer, Err(IssueError::Name { .. })),
                "{bad}: {answer:?}"
            );
        }
        assert!(authority.issue_api(&[], now).is_err());
    }
}
