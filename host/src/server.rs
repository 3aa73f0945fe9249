//! `sluice-host serve`: everything is made here, by hand, once.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum_server::Handle;
use axum_server::accept::NoDelayAcceptor;
use futures_util::future::select_all;
use sluice_gate_types::signature::Remembered;
use sluice_transport::carrier::Carrier;
use sluice_transport::host::HostEndpoint;
use sluice_transport::identity::{self, Authority, IssueError};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::AbortOnDropHandle;

use crate::blobs::{BlobError, BlobStore};
use crate::clock::{Clock, SystemClock};
use crate::config::Tls;
use crate::directory::{DataDirectory, DirectoryError};
use crate::fleet::Presence;
use crate::host::{Addresses, Host, SharedHost};
use crate::jobs::{self, Events, Later, Turns};
use crate::link::Link;
use crate::metrics::Metrics;
use crate::operators::{Failures, Roles};
use crate::plugins::{self, Gates};
use crate::receipts::Trials;
use crate::rest;
use crate::rollouts::{self, Rollouts};
use crate::schedules::{self, Schedules};
use crate::secrets::{KeyError, SecretsKey};
use crate::store::{OpenError, Store, StoreError, tenants};
use crate::tls::{self, ApiTls};
use crate::windows::{self, Windows};

/// How often it is looked for what time has ended.
const SWEEP: Duration = Duration::from_secs(1);
/// How long requests that are under way may go on when the host is stopped. Followers of jobs would go on for ever.
const DRAIN: Duration = Duration::from_millis(500);
/// How long machines' connections may take to end.
const GOODBYE: Duration = Duration::from_secs(2);

/// How a host is to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its folder.
    pub data: PathBuf,
    /// Where machines connect (UDP).
    pub agents: SocketAddr,
    /// Where operators connect (TCP).
    pub api: SocketAddr,
    /// `address:port` for machines, as enrollment tokens carry it; found out where empty.
    pub advertise: Vec<String>,
    /// The certificate of the API.
    pub tls: Tls,
    /// The runner of gates; beside the host's own executable where absent.
    pub gate_runner: Option<PathBuf>,
}

/// A host that runs.
#[derive(Debug)]
pub struct Server {
    host: SharedHost,
    link: Link,
    endpoint: Arc<HostEndpoint>,
    api: Handle<SocketAddr>,
    api_address: SocketAddr,
    /// The API comes first: it is the one that is waited for when the host stops.
    parts: Vec<Part>,
}

/// A task that runs as long as the host does.
#[derive(Debug)]
struct Part {
    name: &'static str,
    task: AbortOnDropHandle<std::io::Result<()>>,
}

/// Runs a host by this clock until it is told to stop by SIGTERM or SIGINT. Prints where it is reached once it is.
///
/// # Errors
///
/// Where it cannot start.
pub async fn serve(options: Options, clock: Arc<dyn Clock>) -> Result<(), ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let directory = DataDirectory::open(&options.data)?;
    let locked = directory.lock()?;
    let mut server = Server::start_on(&Carrier::System, clock, &directory, options).await?;
    let ready = format!(
        "ready agents={} api={}\n",
        server.agents_address(),
        server.host.addresses.api
    );
    let mut stdout = std::io::stdout();
    stdout
        .write_all(ready.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(ServeError::Stdout)?;
    let result = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        // Whoever supervises the host starts it again; a host that lives on without one of its parts helps nobody.
        error = server.failed() => Err(error),
    };
    tracing::info!("stopping");
    server.stop().await;
    drop(locked);
    result
}

impl Server {
    /// Starts a host in a folder that was set up, by the system's clock.
    ///
    /// # Errors
    ///
    /// Where an address is taken, or a file cannot be used.
    pub async fn start(directory: &DataDirectory, options: Options) -> Result<Self, ServeError> {
        Self::start_on(&Carrier::System, Arc::new(SystemClock), directory, options).await
    }

    /// As [`Self::start`], with machines on this carrier, and by this clock.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn start_on(
        carrier: &Carrier,
        clock: Arc<dyn Clock>,
        directory: &DataDirectory,
        options: Options,
    ) -> Result<Self, ServeError> {
        let authority = Authority::load(&directory.authority()).map_err(ServeError::Authority)?;
        let store = Store::open(&directory.database())?;
        let host_id = store.read(tenants::host_id)?.ok_or(ServeError::NoHostId)?;
        let listener = TcpListener::bind(options.api).map_err(|source| ServeError::Listen {
            address: options.api,
            source,
        })?;
        listener
            .set_nonblocking(true)
            .map_err(|source| ServeError::Listen {
                address: options.api,
                source,
            })?;
        let api_address = listener.local_addr().map_err(|source| ServeError::Listen {
            address: options.api,
            source,
        })?;
        let endpoint = HostEndpoint::bind_on(carrier, options.agents, &authority, host_id)?;
        let endpoint = Arc::new(endpoint);
        let agents_address = endpoint.local_addr();
        let tls = ApiTls::find(&options.tls, &authority, || {
            (!api_address.ip().is_loopback()).then(|| own_names(api_address.ip()))
        })?;
        let secrets = Arc::new(SecretsKey::open(&directory.secrets_key(), &store)?);
        let host = Arc::new(Host {
            clock,
            store,
            secrets,
            blobs: BlobStore::open(&directory.blobs())?,
            presence: Presence::default(),
            events: Events::default(),
            turns: Turns::default(),
            rollouts: Rollouts::default(),
            later: Later::default(),
            schedules: Schedules::default(),
            windows: Windows::default(),
            gates: Gates::new(directory.gates()?, options.gate_runner),
            trials: Trials::default(),
            signatures: Remembered::default(),
            metrics: Metrics::default(),
            roles: Roles::default(),
            failures: Failures::default(),
            addresses: Addresses {
                agents: if options.advertise.is_empty() {
                    reachable(agents_address)
                } else {
                    options.advertise
                },
                api: url(api_address, tls.is_some(), &options.tls.names),
                authority: authority.root_fingerprint(),
            },
        });
        if let Err(error) = plugins::prepare(&host).await {
            tracing::error!(%error, "the gates are made ready with the first job");
        }
        let api = Handle::new();
        let renewal = tls
            .clone()
            .map(|tls| tls.renew(authority.clone(), tls::RENEWAL));
        let link = Link::new(Arc::clone(&host), authority);
        let mut parts = vec![
            Part::start(
                "the API",
                serve_api(listener, tls, api.clone(), Arc::clone(&host)),
            ),
            Part::start(
                "the listener for machines",
                accept_machines(link.clone(), Arc::clone(&endpoint)),
            ),
            Part::start("the sweeper", sweep(Arc::clone(&host))),
            Part::start("what is in order", jobs::drive_turns(Arc::clone(&host))),
            Part::start("the rollouts", rollouts::drive(Arc::clone(&host))),
            Part::start("the selectors", jobs::drive_later(Arc::clone(&host))),
            Part::start("the schedules", schedules::drive(Arc::clone(&host))),
            Part::start("the windows", windows::drive(Arc::clone(&host))),
        ];
        parts.extend(renewal.map(|renewal| Part::start("the API's certificate", renewal)));
        Ok(Self {
            host,
            link,
            endpoint,
            api,
            api_address,
            parts,
        })
    }

    /// What its parts share.
    #[must_use]
    pub const fn host(&self) -> &SharedHost {
        &self.host
    }

    /// Where machines connect.
    #[must_use]
    pub fn agents_address(&self) -> SocketAddr {
        self.endpoint.local_addr()
    }

    /// Where operators connect.
    #[must_use]
    pub const fn api_address(&self) -> SocketAddr {
        self.api_address
    }

    /// Waits for a part to end, which none does by itself as long as the host is sound.
    async fn failed(&mut self) -> ServeError {
        let parts = self
            .parts
            .iter_mut()
            .map(|part| Box::pin(async { (part.name, (&mut part.task).await) }));
        let ((part, ended), ..) = select_all(parts).await;
        let source = match ended {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(panic) => Some(std::io::Error::other(panic)),
        };
        ServeError::Ended { part, source }
    }

    /// Ends connections, commits what was handed over, and closes the database.
    pub async fn stop(self) {
        self.api.graceful_shutdown(Some(DRAIN));
        self.endpoint.close().await;
        if tokio::time::timeout(GOODBYE, self.link.finished())
            .await
            .is_err()
        {
            tracing::warn!(
                "connections took too long to end; what they had not stored, the machines say again"
            );
        }
        let mut parts = self.parts.into_iter();
        if let Some(api) = parts.next()
            && !api.task.is_finished()
            && tokio::time::timeout(GOODBYE, api.task).await.is_err()
        {
            tracing::warn!("requests took too long to end");
        }
        drop(parts);
        self.host.store.close().await;
    }
}

impl Part {
    fn start(
        name: &'static str,
        task: impl Future<Output = std::io::Result<()>> + Send + 'static,
    ) -> Self {
        Self {
            name,
            task: AbortOnDropHandle::new(tokio::spawn(task)),
        }
    }
}

async fn accept_machines(link: Link, endpoint: Arc<HostEndpoint>) -> std::io::Result<()> {
    link.accept_all(endpoint).await;
    Ok(())
}

async fn sweep(host: SharedHost) -> std::io::Result<()> {
    loop {
        let now = host.clock.now();
        if let Err(error) = jobs::sweep(&host, now).await {
            tracing::error!(%error, "what time has ended could not be recorded; trying again");
        }
        host.clock.wait(now, None, SWEEP).await;
    }
}

async fn serve_api(
    listener: TcpListener,
    tls: Option<ApiTls>,
    handle: Handle<SocketAddr>,
    host: SharedHost,
) -> std::io::Result<()> {
    let service = rest::router(host).into_make_service_with_connect_info::<SocketAddr>();
    // Events are small and must not wait for the acknowledgement of the ones before.
    match tls {
        Some(tls) => {
            axum_server::from_tcp_rustls(listener, tls.config)?
                .map(|tls| tls.acceptor(NoDelayAcceptor::new()))
                .handle(handle)
                .serve(service)
                .await
        }
        None => {
            axum_server::from_tcp(listener)?
                .acceptor(NoDelayAcceptor::new())
                .handle(handle)
                .serve(service)
                .await
        }
    }
}

/// Addresses at which machines probably reach a socket. Whoever knows better says `--advertise`.
fn reachable(address: SocketAddr) -> Vec<String> {
    if !address.ip().is_unspecified() {
        return vec![address.to_string()];
    }
    own_addresses()
        .into_iter()
        .map(|ip| SocketAddr::new(ip, address.port()).to_string())
        .collect()
}

/// The address that packets to elsewhere leave from, and loopback.
fn own_addresses() -> Vec<IpAddr> {
    // Connecting a UDP socket sends nothing: it asks the kernel for a route. 192.0.2.1 is for documentation (RFC 5737).
    let outward = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| {
            socket
                .connect((Ipv4Addr::new(192, 0, 2, 1), 9))
                .and_then(|()| socket.local_addr())
        })
        .map(|address| address.ip());
    outward
        .into_iter()
        .filter(|ip| !ip.is_unspecified())
        .chain([IpAddr::V4(Ipv4Addr::LOCALHOST)])
        .collect()
}

fn own_names(ip: IpAddr) -> Vec<String> {
    if !ip.is_unspecified() {
        return vec![ip.to_string()];
    }
    let mut names = vec!["localhost".to_owned()];
    names.extend(own_addresses().iter().map(IpAddr::to_string));
    names
}

fn url(address: SocketAddr, tls: bool, names: &[String]) -> String {
    let scheme = if tls { "https" } else { "http" };
    match names.first() {
        Some(name) if tls => format!("{scheme}://{name}:{}", address.port()),
        _ if address.ip().is_unspecified() => {
            let ip = own_addresses()
                .first()
                .copied()
                .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
            format!("{scheme}://{}", SocketAddr::new(ip, address.port()))
        }
        _ => format!("{scheme}://{address}"),
    }
}

/// A host cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The folder.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The keys.
    #[error("the host's certificates and keys cannot be used")]
    Authority(#[source] identity::StoreError),
    /// The database.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key of its secrets.
    #[error(transparent)]
    SecretsKey(#[from] KeyError),
    /// The files.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// Set up by another program, or not to the end.
    #[error("the database holds no host; set one up in an empty folder with: sluice-host init")]
    NoHostId,
    /// The API's address.
    #[error("cannot listen on {address} (TCP) for the API")]
    Listen {
        /// As asked.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The machines' address.
    #[error(transparent)]
    Bind(#[from] sluice_transport::host::BindError),
    /// The API's certificate.
    #[error("cannot use the certificate or key {}: {reason}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// No certificate for these names.
    #[error("no certificate can be issued for the API (tls.names in the configuration)")]
    Issue(#[from] IssueError),
    /// The certificate and key do not work.
    #[error("cannot use the certificate of the API")]
    Tls(#[source] rustls::Error),
    /// No signals.
    #[error("cannot watch for signals")]
    Signals(#[source] std::io::Error),
    /// A part of the host is gone. Its own panic, if it was one, is in the log.
    #[error("{part} has ended by itself, so the host cannot go on")]
    Ended {
        /// Which.
        part: &'static str,
        /// Why, where that is known.
        source: Option<std::io::Error>,
    },
    /// Nobody to tell.
    #[error("cannot print that the host is ready")]
    Stdout(#[source] std::io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;
    use crate::init;

    #[tokio::test]
    async fn a_host_whose_api_has_ended_does_not_live_on_without_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("data");
        init::init(&data, UnixMillis::now()).await.expect("sets up");
        let directory = DataDirectory::open(&data).expect("opens");
        let options = Options {
            data,
            agents: SocketAddr::from(([127, 0, 0, 1], 0)),
            api: SocketAddr::from(([127, 0, 0, 1], 0)),
            advertise: Vec::new(),
            tls: Tls::default(),
            gate_runner: Some("/nonexistent/sluice-gate-runner".into()),
        };
        let mut server = Server::start(&directory, options).await.expect("starts");
        let early = tokio::time::timeout(Duration::from_millis(50), server.failed()).await;
        assert!(early.is_err(), "a host that is sound goes on: {early:?}");
        server.api.shutdown();
        let failed = tokio::time::timeout(GOODBYE, server.failed()).await;
        assert!(
            matches!(
                failed,
                Ok(ServeError::Ended {
                    part: "the API",
                    ..
                })
            ),
            "{failed:?}"
        );
        server.stop().await;
    }
}
