//! Many enrolled machines in one process, each with a connection and nothing behind it: for what depends on their number.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt as _, stream as streams};
use quinn::{Connection, Endpoint};
use sluice_protocol::ending::Ending;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::control::{FromHost, Lockdown};
use sluice_protocol::message::enroll::Token;
use sluice_protocol::message::operation::{Operation, Progress};
use sluice_protocol::message::{ALPN, Direction, StreamKind};
use sluice_protocol::report::Report;
use sluice_transport::identity::AgentIdentity;
use sluice_transport::limits::MAX_ENROLLMENTS_OF_SOURCE;
use tokio::runtime::Runtime;

use super::machine::{enrolled, greeting};
use super::wire::{connect_over, frame, open_stream, read_frame, stream};

/// Handshakes at a time: a host refuses a source that has more under way than twice as many.
const HANDSHAKES: usize = 16;

/// Machines that answer every operation with success, a while after it came, or that it was canceled, and count what they
/// hear.
#[derive(Debug)]
pub struct Crowd {
    connections: Vec<Connection>,
    heard: Arc<Heard>,
    runtime: Runtime,
    _endpoint: Endpoint,
}

#[derive(Debug, Default)]
struct Heard {
    operations: AtomicUsize,
    cancels: AtomicUsize,
    lockdowns: AtomicUsize,
}

impl Crowd {
    /// Enrolls so many machines, named `c1`, `c2` and so on, with a token that is good for all of them, and connects them.
    /// An operation takes each of them that long; none where it ends only when it is canceled.
    ///
    /// # Panics
    ///
    /// Where the host does not let one of them in.
    #[must_use]
    pub fn enroll(token: &str, count: usize, takes: Option<Duration>) -> Self {
        let token: Token = token.trim().parse().expect("is a token");
        let host: SocketAddr = token.addresses[0].parse().expect("is an address");
        let runtime = Runtime::new().expect("a run time");
        let heard = Arc::<Heard>::default();
        let (endpoint, connections) = runtime.block_on(async {
            let names: Vec<_> = (1..=count).map(|number| format!("c{number}")).collect();
            let identities: Vec<_> = streams::iter(&names)
                .map(|name| enrolled(&token, name))
                .buffer_unordered(MAX_ENROLLMENTS_OF_SOURCE)
                .collect()
                .await;
            let local = SocketAddr::from(([127, 0, 0, 1], 0));
            let endpoint = Endpoint::client(local).expect("binds");
            let connections: Vec<_> = streams::iter(&identities)
                .map(|identity| connect(&endpoint, host, identity, &heard, takes))
                .buffer_unordered(HANDSHAKES)
                .collect()
                .await;
            (endpoint, connections)
        });
        Self {
            connections,
            heard,
            runtime,
            _endpoint: endpoint,
        }
    }

    /// How many operations have come.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.heard.operations.load(Ordering::Relaxed)
    }

    /// How many operations they were told to cancel.
    #[must_use]
    pub fn cancels(&self) -> usize {
        self.heard.cancels.load(Ordering::Relaxed)
    }

    /// How often one of them was told that a lockdown has begun.
    #[must_use]
    pub fn lockdowns(&self) -> usize {
        self.heard.lockdowns.load(Ordering::Relaxed)
    }

    /// How many are connected.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.connections
            .iter()
            .filter(|connection| connection.close_reason().is_none())
            .count()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _entered = self.runtime.enter();
        for connection in &self.connections {
            connection.close(0_u32.into(), b"");
        }
    }
}

/// Connects a machine, waits until it is welcome, and lets it answer from then on.
async fn connect(
    endpoint: &Endpoint,
    host: SocketAddr,
    identity: &AgentIdentity,
    heard: &Arc<Heard>,
    takes: Option<Duration>,
) -> Connection {
    let connection = connect_over(endpoint, host, ALPN, Some(identity))
        .await
        .expect("the host shakes hands");
    let (mut send, mut receive) = connection.open_bi().await.expect("the host takes a stream");
    send.write_all(&greeting(&[])).await.expect("writes");
    let Some(FromHost::Welcome(_)) = read_frame(&mut receive).await else {
        panic!("a machine of the crowd is not welcome");
    };
    let (control, own) = (Arc::clone(heard), connection.clone());
    tokio::spawn(async move {
        // Its own direction stays open as long as the host's.
        let _open = send;
        while let Some(message) = read_frame(&mut receive).await {
            match message {
                FromHost::Cancel { operation, by } => {
                    control.cancels.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(end(own.clone(), operation, Ending::Canceled(by)));
                }
                FromHost::Lockdown(Lockdown::On) => {
                    control.lockdowns.fetch_add(1, Ordering::Relaxed);
                }
                _ => {}
            }
        }
    });
    tokio::spawn(work(connection.clone(), Arc::clone(heard), takes));
    connection
}

/// Answers operations as they come.
async fn work(connection: Connection, heard: Arc<Heard>, takes: Option<Duration>) {
    while let Ok(mut receive) = connection.accept_uni().await {
        let (connection, heard) = (connection.clone(), Arc::clone(&heard));
        tokio::spawn(async move {
            receive.read_exact(&mut [0]).await.ok()?;
            let operation: Operation = read_frame(&mut receive).await?;
            heard.operations.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(takes?).await;
            end(connection, operation.operation, Ending::Succeeded).await;
            Some(())
        });
    }
}

/// Tells that an operation has ended.
async fn end(connection: Connection, operation: OperationId, ending: Ending) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
    let report = Report::without_process(ending, now);
    let frames = [
        frame(&Progress::Of(operation)),
        frame(&Progress::Finished(Box::new(report))),
    ];
    let bytes = stream(StreamKind::Progress, &frames);
    open_stream(&connection, Direction::Unidirectional, &bytes).await;
}
