//! Streams as bytes, and handshakes without questions.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_protocol::codec;
use sluice_protocol::ids::HostId;
use sluice_protocol::message::{ALPN, ALPN_ENROLL, Direction, StreamKind};
use sluice_transport::identity::{AgentIdentity, Authority, HOST_SERVER_NAME, crypto_provider};
use sluice_transport::limits::KEEP_ALIVE;

/// A frame as it stands on the wire.
///
/// # Panics
///
/// Where the message has no encoding.
#[must_use]
pub fn frame<T: Serialize>(message: &T) -> Vec<u8> {
    raw_frame(&codec::encode(message).expect("encodes"))
}

/// Any bytes with the length of a frame before them.
///
/// # Panics
///
/// Where they are longer than a length can say.
#[must_use]
pub fn raw_frame(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("is short");
    [&length.to_be_bytes(), body].concat()
}

/// A stream as its opener writes it: its first byte, and these frames.
#[must_use]
pub fn stream(kind: StreamKind, frames: &[Vec<u8>]) -> Vec<u8> {
    [&[kind as u8], frames.concat().as_slice()].concat()
}

/// The next message; none where the stream has ended, was cut off, or carries something else.
pub(super) async fn read_frame<T: Serialize + DeserializeOwned>(
    stream: &mut RecvStream,
) -> Option<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.ok()?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body).await.ok()?;
    codec::decode(&body).ok()
}

/// Opens a stream, writes these bytes, ends it, and waits until the peer has them or has closed the connection.
pub(super) async fn open_stream(connection: &Connection, direction: Direction, bytes: &[u8]) {
    let opened = match direction {
        Direction::Unidirectional => connection.open_uni().await.map(|send| (send, None)),
        Direction::Bidirectional => {
            let opened = connection.open_bi().await;
            opened.map(|(send, receive)| (send, Some(receive)))
        }
    };
    let Ok((mut send, _receive)) = opened else {
        return;
    };
    let _closed = send.write_all(bytes).await;
    let _closed = send.finish();
    let _closed = send.stopped().await;
}

/// Why the peer closed the connection: the code and the reason. None where something else ended it.
pub(super) fn closed_with(error: &ConnectionError) -> Option<(u64, String)> {
    match error {
        ConnectionError::ApplicationClosed(close) => Some((
            close.error_code.into_inner(),
            String::from_utf8_lossy(&close.reason).into_owned(),
        )),
        _ => None,
    }
}

/// Listens with a good certificate of `authority`, on both ALPNs, for whoever comes with whatever certificate.
pub(super) fn listen(authority: &Authority, address: SocketAddr) -> Endpoint {
    let issued = authority
        .issue_host(HostId::generate(), std::time::SystemTime::now())
        .expect("issues");
    let mut chain: Vec<CertificateDer<'static>> =
        issued.chain.into_iter().map(CertificateDer::from).collect();
    // Those who enroll know the fingerprint of the root alone.
    chain.push(CertificateDer::from(authority.root_der().to_vec()));
    let key = PrivatePkcs8KeyDer::from(issued.key.as_slice()).clone_key();
    let mut tls = rustls::ServerConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_client_cert_verifier(Arc::new(Anybody))
        .with_single_cert(chain, key.into())
        .expect("fits together");
    tls.alpn_protocols = vec![ALPN.to_vec(), ALPN_ENROLL.to_vec()];
    let crypto = QuicServerConfig::try_from(tls).expect("a configuration");
    Endpoint::server(quinn::ServerConfig::with_crypto(Arc::new(crypto)), address).expect("binds")
}

/// Connects from `local` to whatever host is at `address`, as the machine of `identity` where there is one. The endpoint
/// must live as long as the connection.
pub(super) async fn connect(
    local: SocketAddr,
    address: SocketAddr,
    alpn: &[u8],
    identity: Option<&AgentIdentity>,
) -> Result<(Endpoint, Connection), ConnectionError> {
    let endpoint = Endpoint::client(local).expect("binds");
    let connection = connect_over(&endpoint, address, alpn, identity).await?;
    Ok((endpoint, connection))
}

/// The same over an endpoint that others may use too.
pub(super) async fn connect_over(
    endpoint: &Endpoint,
    address: SocketAddr,
    alpn: &[u8],
    identity: Option<&AgentIdentity>,
) -> Result<Connection, ConnectionError> {
    let builder = rustls::ClientConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut tls = match identity {
        Some(identity) => {
            let chain = identity
                .chain()
                .map(|der| CertificateDer::from(der.to_vec()))
                .collect();
            let key = PrivatePkcs8KeyDer::from(identity.key().pkcs8()).clone_key();
            builder
                .with_client_auth_cert(chain, key.into())
                .expect("fits together")
        }
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![alpn.to_vec()];
    let crypto = QuicClientConfig::try_from(tls).expect("a configuration");
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(KEEP_ALIVE));
    config.transport_config(Arc::new(transport));
    endpoint
        .connect_with(config, address, HOST_SERVER_NAME)
        .expect("starts")
        .await
}

/// Takes whoever comes.
#[derive(Debug)]
struct Anybody;

fn signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = crypto_provider().signature_verification_algorithms;
    verify_tls13_signature(message, certificate, signed, &algorithms)
}

fn schemes() -> Vec<SignatureScheme> {
    crypto_provider()
        .signature_verification_algorithms
        .supported_schemes()
}

impl ClientCertVerifier for Anybody {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}
