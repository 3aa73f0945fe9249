//! What each side demands of the other's certificate. rustls does the chains (RFC 5280); on top of it stands the role.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, RootCertStore, SignatureScheme,
};
use sluice_protocol::digest::Digest;

use super::crypto_provider;
use super::name::{InvalidName, host_of, machine_of};

/// What is read from a certificate besides its name.
pub(crate) struct CertificateFacts {
    pub(crate) public_key: Vec<u8>,
    pub(crate) expires: SystemTime,
}

impl CertificateFacts {
    pub(crate) fn read(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let expires = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
        Some(Self {
            public_key: certificate.public_key().raw.to_vec(),
            expires: SystemTime::UNIX_EPOCH + Duration::from_secs(expires),
        })
    }
}

/// Verifies that `leaf` is a certificate for clients that leads to `root`.
pub(crate) fn machine_chain(
    leaf: &CertificateDer<'_>,
    issuers: &[CertificateDer<'_>],
    root: &CertificateDer<'static>,
    now: SystemTime,
) -> Result<(), Error> {
    let now = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(|_| Error::FailedToGetCurrentTime)?;
    client_verifier(root)?
        .verify_client_cert(leaf, issuers, UnixTime::since_unix_epoch(now))
        .map(|_| ())
}

fn client_verifier(anchor: &CertificateDer<'static>) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let mut anchors = RootCertStore::empty();
    anchors.add(anchor.clone())?;
    WebPkiClientVerifier::builder_with_provider(Arc::new(anchors), crypto_provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| Error::General(error.to_string()))
}

fn wrong_role(error: InvalidName) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// The host's side: a certificate, where one is shown, was issued by the agents' intermediate itself, for clients, and
/// names a machine. Whether one must be shown depends on the ALPN and is decided right after the handshake.
#[derive(Debug)]
pub(crate) struct MachineVerifier(Arc<dyn ClientCertVerifier>);

impl MachineVerifier {
    /// `agents` is the one trust anchor: not the root, so that nothing that other intermediates issue is taken.
    pub(crate) fn new(agents: &CertificateDer<'static>) -> Result<Self, Error> {
        client_verifier(agents).map(Self)
    }
}

impl ClientCertVerifier for MachineVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(leaf, issuers, now)?;
        machine_of(leaf).map_err(wrong_role)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// What an agent knows of its authority.
#[derive(Debug, Clone)]
pub(crate) enum Trust {
    /// The whole root, since enrollment.
    Root(CertificateDer<'static>),
    /// The root's SHA-256, from a token. The host shows the root itself.
    Fingerprint(Digest),
}

impl Trust {
    /// The trusted root, where it is known or among what the host has shown.
    pub(crate) fn root(&self, shown: &[CertificateDer<'_>]) -> Option<CertificateDer<'static>> {
        match self {
            Self::Root(root) => Some(root.clone()),
            Self::Fingerprint(fingerprint) => shown
                .iter()
                .find(|certificate| Digest::of(certificate) == *fingerprint)
                .map(|certificate| certificate.clone().into_owned()),
        }
    }
}

/// The agent's side: the certificate leads to the trusted root, is for servers, has the one server name, and names a
/// host.
#[derive(Debug)]
pub(crate) struct HostVerifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl HostVerifier {
    pub(crate) fn new(trust: Trust) -> Self {
        Self {
            trust,
            provider: crypto_provider(),
        }
    }
}

impl ServerCertVerifier for HostVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let root = self
            .trust
            .root(issuers)
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut anchors = RootCertStore::empty();
        anchors.add(root)?;
        let certificate = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &anchors,
            issuers,
            now,
            algorithms,
        )?;
        verify_server_name(&certificate, server_name)?;
        host_of(leaf).map_err(wrong_role)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
