//! From a list of addresses to a verified host.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sluice_protocol::message::ALPN;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::connection::AgentConnection;
use crate::carrier::Carrier;
use crate::error::LinkError;
use crate::identity::verify::{HostVerifier, Trust};
use crate::identity::{AgentIdentity, HOST_SERVER_NAME, crypto_provider};
use crate::limits;
use crate::link::connection_error;
use crate::surroundings::Clock;

/// Connects to the first of `addresses` (`host:port`) where a host of the pinned authority answers. `bind` is the local
/// address to use, or none for any.
///
/// # Errors
///
/// Where there is none. A host that is not trusted, or that does not want this machine, is named before addresses that
/// did not answer.
pub async fn connect(
    addresses: &[String],
    identity: &AgentIdentity,
    bind: Option<SocketAddr>,
) -> Result<AgentConnection, LinkError> {
    connect_on(&Carrier::System, addresses, identity, bind).await
}

/// As [`connect`], with a socket of this carrier.
///
/// # Errors
///
/// As there.
pub async fn connect_on(
    carrier: &Carrier,
    addresses: &[String],
    identity: &AgentIdentity,
    bind: Option<SocketAddr>,
) -> Result<AgentConnection, LinkError> {
    let key = PrivatePkcs8KeyDer::from(identity.key().pkcs8()).clone_key();
    let config = client_config(
        Trust::Root(identity.pinned_root()),
        ALPN,
        Some((identity.certificates(), key.into())),
    )?;
    let (endpoint, connection) = dial(carrier, addresses, &config, bind).await?;
    Ok(AgentConnection::start(endpoint, connection))
}

/// What an agent says about itself.
pub(super) type Credentials = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// TLS 1.3, one ALPN, nothing remembered from earlier connections.
pub(super) fn client_config(
    trust: Trust,
    alpn: &'static [u8],
    credentials: Option<Credentials>,
) -> Result<quinn::ClientConfig, LinkError> {
    let local = |error: rustls::Error| LinkError::Local(error.to_string());
    let builder = rustls::ClientConfig::builder_with_details(crypto_provider(), Arc::new(Clock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(local)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(HostVerifier::new(trust)));
    let mut tls = match credentials {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(local)?,
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![alpn.to_vec()];
    tls.resumption = Resumption::disabled();
    tls.enable_early_data = false;
    let crypto =
        QuicClientConfig::try_from(tls).map_err(|error| LinkError::Local(error.to_string()))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(limits::agent_transport()));
    Ok(config)
}

/// Tries one address after the other.
pub(super) async fn dial(
    carrier: &Carrier,
    addresses: &[String],
    config: &quinn::ClientConfig,
    bind: Option<SocketAddr>,
) -> Result<(quinn::Endpoint, quinn::Connection), LinkError> {
    let mut failure = None;
    for address in addresses {
        let resolved = match timeout(limits::CONNECT_TIME_LIMIT, lookup_host(address)).await {
            Ok(Ok(resolved)) => resolved.collect(),
            Ok(Err(error)) => {
                tracing::info!(%address, %error, "cannot resolve an address");
                Vec::new()
            }
            Err(_) => Vec::new(),
        };
        for resolved in resolved {
            match attempt(carrier, resolved, config, bind).await {
                Ok(connected) => return Ok(connected),
                Err(error) => {
                    tracing::info!(%address, %error, "cannot connect");
                    if !matches!(
                        error,
                        LinkError::Lost { .. } | LinkError::Unreachable { .. }
                    ) {
                        failure.get_or_insert(error);
                    }
                }
            }
        }
    }
    Err(failure.unwrap_or_else(|| LinkError::Unreachable {
        tried: addresses.join(", "),
    }))
}

async fn attempt(
    carrier: &Carrier,
    address: SocketAddr,
    config: &quinn::ClientConfig,
    bind: Option<SocketAddr>,
) -> Result<(quinn::Endpoint, quinn::Connection), LinkError> {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let local = bind
        .filter(|bind| bind.is_ipv4() == address.is_ipv4())
        .unwrap_or(any);
    let (endpoint, _) = carrier
        .endpoint(local, limits::endpoint(), None)
        .map_err(|error| LinkError::Local(format!("{local}: {error}")))?;
    let connecting = endpoint
        .connect_with(config.clone(), address, HOST_SERVER_NAME)
        .map_err(|error| LinkError::Local(error.to_string()))?;
    match timeout(limits::CONNECT_TIME_LIMIT, connecting).await {
        Ok(Ok(connection)) => Ok((endpoint, connection)),
        Ok(Err(error)) => Err(connection_error(&error, &address.to_string())),
        Err(_) => Err(LinkError::Unreachable {
            tried: address.to_string(),
        }),
    }
}
