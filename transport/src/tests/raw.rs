//! Peers that keep to no rule: bare quinn, any certificate, any bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::Serialize;
use sluice_protocol::codec;
use sluice_protocol::message::CloseCode;

use super::fixture::{LOOPBACK, soon};
use crate::identity::verify::{HostVerifier, Trust};
use crate::identity::{AgentIdentity, Authority, HOST_SERVER_NAME, crypto_provider};

/// Shows one certificate to whoever asks.
#[derive(Debug, Clone)]
pub(super) struct Shown(Arc<CertifiedKey>);

impl Shown {
    pub(super) fn new(chain: &[Vec<u8>], pkcs8: &[u8]) -> Self {
        let key = PrivatePkcs8KeyDer::from(pkcs8).clone_key();
        let key = crypto_provider()
            .key_provider
            .load_private_key(key.into())
            .expect("a key");
        Self(Arc::new(CertifiedKey::new(
            chain.iter().cloned().map(CertificateDer::from).collect(),
            key,
        )))
    }

    pub(super) fn of(identity: &AgentIdentity) -> Self {
        let chain: Vec<Vec<u8>> = identity.chain().map(<[u8]>::to_vec).collect();
        Self::new(&chain, identity.key().pkcs8())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// An address of this machine that no other test has: what one source may ask of a host is limited.
pub(super) fn own_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let [_, a, b, c] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    // 127.0.0.0/8 is this machine (RFC 6890). The tests of a process are few enough for one of 127.128.0.0/9 each.
    SocketAddr::from(([127, 128 | a, b, c], 0))
}

/// Connects as a client, from an address of its own. The endpoint must live as long as the connection.
pub(super) async fn client(
    authority: &Authority,
    address: SocketAddr,
    alpn: &[u8],
    shown: Option<Shown>,
) -> Result<(Endpoint, Connection), ConnectionError> {
    let config = client_config(authority, alpn, shown);
    connect(own_address(), config, address).await
}

/// What a client says in its handshake.
pub(super) fn client_config(
    authority: &Authority,
    alpn: &[u8],
    shown: Option<Shown>,
) -> quinn::ClientConfig {
    let root = CertificateDer::from(authority.root_der().to_vec());
    let builder = rustls::ClientConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(HostVerifier::new(Trust::Root(root))));
    let mut tls = match shown {
        Some(shown) => builder.with_client_cert_resolver(Arc::new(shown)),
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![alpn.to_vec()];
    let crypto = QuicClientConfig::try_from(tls).expect("a configuration");
    quinn::ClientConfig::new(Arc::new(crypto))
}

/// Connects from `local`. The endpoint must live as long as the connection.
pub(super) async fn connect(
    local: SocketAddr,
    config: quinn::ClientConfig,
    address: SocketAddr,
) -> Result<(Endpoint, Connection), ConnectionError> {
    let endpoint = Endpoint::client(local).expect("binds");
    let connecting = endpoint
        .connect_with(config, address, HOST_SERVER_NAME)
        .expect("starts");
    let connection = soon("a handshake", connecting).await?;
    Ok((endpoint, connection))
}

/// Listens as a server with this certificate, for agents of any kind.
pub(super) fn server(shown: Shown, alpns: &[&[u8]]) -> (Endpoint, SocketAddr) {
    let mut tls = rustls::ServerConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown));
    tls.alpn_protocols = alpns.iter().map(|alpn| alpn.to_vec()).collect();
    let crypto = QuicServerConfig::try_from(tls).expect("a configuration");
    let endpoint = Endpoint::server(quinn::ServerConfig::with_crypto(Arc::new(crypto)), LOOPBACK)
        .expect("binds");
    let address = endpoint.local_addr().expect("is bound");
    (endpoint, address)
}

/// The next connection of a bare server.
pub(super) async fn accept(endpoint: &Endpoint) -> Connection {
    let incoming = soon("a connection", endpoint.accept())
        .await
        .expect("is open");
    soon("a handshake", incoming.into_future())
        .await
        .expect("shakes hands")
}

/// A frame as it stands on the wire.
pub(super) fn frame<T: Serialize>(message: &T) -> Vec<u8> {
    raw_frame(&codec::encode(message).expect("encodes"))
}

pub(super) fn raw_frame(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("is short");
    [&length.to_be_bytes(), body].concat()
}

/// Opens a stream in both directions with these first bytes.
pub(super) async fn open_bi(connection: &Connection, bytes: &[u8]) -> (SendStream, RecvStream) {
    let (mut send, receive) = soon("a stream", connection.open_bi()).await.expect("opens");
    // Where the peer has closed for an earlier byte, that is the answer.
    let _closed = soon("sending", send.write_all(bytes)).await;
    (send, receive)
}

/// Opens a stream in one direction with these first bytes.
pub(super) async fn open_uni(connection: &Connection, bytes: &[u8]) -> SendStream {
    let mut send = soon("a stream", connection.open_uni())
        .await
        .expect("opens");
    let _closed = soon("sending", send.write_all(bytes)).await;
    send
}

/// Whether the peer closed with this code.
pub(super) fn closed_with(error: &ConnectionError, code: CloseCode) -> bool {
    matches!(error, ConnectionError::ApplicationClosed(close) if close.error_code.into_inner() == code as u64)
}
