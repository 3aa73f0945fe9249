//! The socket of a host, and what happens to a connection until it is somebody's.
//!
//! ```text
//! incoming -> (retry: show your address) -> (refused: too many) -> handshake, within a time limit
//!    sluice/1         a valid machine certificate, or closed          -> Arrival::Machine
//!    sluice-enroll/1  one request, on the one stream, in time         -> Arrival::Enrollment
//! ```
//! Nothing of a stream is read before this.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use rustls::pki_types::CertificateDer;
use rustls::server::NoServerSessionStorage;
use sluice_protocol::ids::HostId;
use sluice_protocol::message::{ALPN, ALPN_ENROLL, CloseCode, Side};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::certificate::HostCertificates;
use super::connection::HostConnection;
use super::enrollment::{EnrollConnection, Enrollments};
use super::sources::{Place, Places, Source};
use crate::carrier::Carrier;
use crate::identity::verify::{CertificateFacts, MachineVerifier};
use crate::identity::{Authority, crypto_provider, machine_of};
use crate::limits;
use crate::link::Link;
use crate::surroundings::Clock;

/// Somebody has come.
#[derive(Debug)]
pub enum Arrival {
    /// An enrolled machine, with a certificate that was verified in this very handshake. Whether it is revoked, the
    /// caller looks up.
    Machine(HostConnection),
    /// Somebody with a token, perhaps.
    Enrollment(Box<EnrollConnection>),
}

/// A host cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address} (UDP)")]
    Socket {
        /// As it was given.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The authority's certificates do not work.
    #[error("cannot use the authority's certificates: {0}")]
    Certificates(String),
}

/// A host's socket.
#[derive(Debug)]
pub struct HostEndpoint {
    endpoint: quinn::Endpoint,
    address: SocketAddr,
    arrivals: Mutex<mpsc::Receiver<Arrival>>,
    acceptor: JoinHandle<()>,
}

impl HostEndpoint {
    /// Listens on `address` (UDP; port 0 takes a free one) with a certificate for `host`. To be called within a tokio
    /// run time.
    ///
    /// # Errors
    ///
    /// Where the address cannot be used.
    pub fn bind(
        address: SocketAddr,
        authority: &Authority,
        host: HostId,
    ) -> Result<Self, BindError> {
        Self::bind_on(&Carrier::System, address, authority, host)
    }

    /// As [`Self::bind`], with a socket of this carrier.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn bind_on(
        carrier: &Carrier,
        address: SocketAddr,
        authority: &Authority,
        host: HostId,
    ) -> Result<Self, BindError> {
        let config = server_config(authority, host).map_err(BindError::Certificates)?;
        let (endpoint, address) = carrier
            .endpoint(address, limits::host_endpoint(authority), Some(config))
            .map_err(|source| BindError::Socket { address, source })?;
        let (found, arrivals) = mpsc::channel(limits::QUEUED_STREAMS);
        let acceptor = tokio::spawn(accept_all(endpoint.clone(), found));
        Ok(Self {
            endpoint,
            address,
            arrivals: Mutex::new(arrivals),
            acceptor,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Who comes next; none once the endpoint is closed. May be dropped and called again.
    pub async fn accept(&self) -> Option<Arrival> {
        self.arrivals.lock().await.recv().await
    }

    /// Tells every peer that the host is stopping, and waits until that is on its way.
    pub async fn close(&self) {
        self.stop();
        self.endpoint.wait_idle().await;
    }

    fn stop(&self) {
        self.acceptor.abort();
        self.endpoint.close(
            quinn::VarInt::from_u32(CloseCode::Stopping as u32),
            b"the host is stopping",
        );
    }
}

impl Drop for HostEndpoint {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn server_config(
    authority: &Authority,
    host: HostId,
) -> Result<quinn::ServerConfig, String> {
    let verifier =
        MachineVerifier::new(authority.agents_certificate()).map_err(|error| error.to_string())?;
    let mut tls = rustls::ServerConfig::builder_with_details(crypto_provider(), Arc::new(Clock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(HostCertificates::new(authority.clone(), host)?));
    tls.alpn_protocols = vec![ALPN.to_vec(), ALPN_ENROLL.to_vec()];
    // Who a peer is always comes from a certificate of the handshake at hand: no resumption, and no data before it ends.
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    tls.max_early_data_size = 0;
    let crypto = QuicServerConfig::try_from(tls).map_err(|error| error.to_string())?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    limits::incoming(&mut config);
    Ok(config)
}

async fn accept_all(endpoint: quinn::Endpoint, found: mpsc::Sender<Arrival>) {
    let handshakes = Places::new(limits::MAX_HANDSHAKES, limits::MAX_HANDSHAKES_OF_SOURCE);
    let enrollments = Enrollments::new();
    while let Some(incoming) = endpoint.accept().await {
        let source = Source::of(incoming.remote_address());
        let (all, own) = handshakes.taken(source);
        let is_claimed = !incoming.remote_address_validated() && incoming.may_retry();
        if all < limits::MAX_HANDSHAKES
            && (all >= limits::RETRY_AT || own >= limits::RETRY_AT_OF_SOURCE)
            && is_claimed
        {
            if incoming.retry().is_err() {
                tracing::debug!("a connection could not be asked to retry");
            }
            continue;
        }
        let place = handshakes
            .take(source)
            .filter(|_| endpoint.open_connections() < limits::MAX_CONNECTIONS);
        let Some(place) = place else {
            incoming.refuse();
            continue;
        };
        tokio::spawn(handshake(
            incoming,
            place,
            enrollments.clone(),
            found.clone(),
        ));
    }
}

/// From the first packet to an arrival. The place is held until a machine was taken by the program: a host that does not
/// keep up takes in no more.
async fn handshake(
    incoming: quinn::Incoming,
    place: Place,
    enrollments: Enrollments,
    found: mpsc::Sender<Arrival>,
) {
    let remote = incoming.remote_address();
    let handshake = async { incoming.accept()?.await };
    let connection = match timeout(limits::HANDSHAKE_TIME_LIMIT, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::info!(%remote, %error, "a handshake failed"),
        Err(_) => return tracing::info!(%remote, "a handshake took too long"),
    };
    let arrival = if alpn(&connection).as_deref() == Some(ALPN) {
        machine(connection).map(Arrival::Machine)
    } else {
        // The one other ALPN: rustls has refused the rest.
        drop(place);
        enrollments
            .arrive(Link::new(connection, ALPN_ENROLL, Side::Agent))
            .await
            .map(|connection| Arrival::Enrollment(Box::new(connection)))
    };
    if let Some(arrival) = arrival {
        // Fails where the endpoint is being closed, which closes the connection as well.
        let _closing = found.send(arrival).await;
    }
}

fn alpn(connection: &quinn::Connection) -> Option<Vec<u8>> {
    connection
        .handshake_data()?
        .downcast::<HandshakeData>()
        .ok()?
        .protocol
}

/// A connection on `sluice/1`: the certificate, where there is one, was verified by the handshake.
fn machine(connection: quinn::Connection) -> Option<HostConnection> {
    let chain = connection
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let link = Link::new(connection, ALPN, Side::Agent);
    let leaf = chain.as_ref().and_then(|chain| chain.first());
    let identity =
        leaf.and_then(|leaf| Some((machine_of(leaf).ok()?, CertificateFacts::read(leaf)?, leaf)));
    let Some((identity, facts, leaf)) = identity else {
        link.violation("a machine's certificate is required");
        return None;
    };
    tracing::debug!(remote = %link.remote(), machine = %identity.machine, "a machine has connected");
    Some(HostConnection::start(
        link,
        identity,
        leaf.to_vec(),
        facts.expires,
    ))
}
