//! An agent's end of a link to its host.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sluice_protocol::codec::DecodeError;
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::blob::{Answer, Request};
use sluice_protocol::message::control::{FromAgent, FromHost, Hello, Welcome};
use sluice_protocol::message::operation::{Operation, Progress};
use sluice_protocol::message::{ALPN, CloseCode, Direction, Side, StreamKind};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::blob::BlobReader;
use crate::control::ControlStream;
use crate::error::LinkError;
use crate::frame::{self, Receiver, Sender, stream_kind};
use crate::limits::{self, HOST_UNIDIRECTIONAL, priority};
use crate::link::{Link, LinkStats, Opened};
use crate::progress::ProgressSender;

/// What a host has sent to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivered {
    /// An operation.
    Operation(Box<Operation>),
    /// An operation that this version cannot read, or that has no place in the protocol. It is the host's to end; nothing
    /// else on the link has to suffer for it.
    Unreadable {
        /// Which.
        operation: OperationId,
        /// What is wrong with it. May quote it.
        reason: String,
    },
}

/// A link to the host. A cheap handle; when the last one is dropped, the connection is closed with
/// `CloseCode::Stopping`.
#[derive(Debug, Clone)]
pub struct AgentConnection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    link: Link,
    endpoint: quinn::Endpoint,
    operations: Mutex<mpsc::Receiver<Delivered>>,
    /// `Hello` was sent.
    greeted: AtomicBool,
    /// `Welcome` was received: other streams may be opened.
    welcome: AtomicBool,
}

impl AgentConnection {
    pub(super) fn start(endpoint: quinn::Endpoint, connection: quinn::Connection) -> Self {
        let link = Link::new(connection, ALPN, Side::Host);
        let (found, operations) = mpsc::channel(HOST_UNIDIRECTIONAL as usize);
        tokio::spawn(accept_all(link.clone(), found));
        Self(Arc::new(Inner {
            link,
            endpoint,
            operations: Mutex::new(operations),
            greeted: AtomicBool::new(false),
            welcome: AtomicBool::new(false),
        }))
    }

    /// Opens the control stream and waits for the host's `Welcome`; to be called once, first. Only now it shows whether
    /// the host takes this machine's certificate.
    ///
    /// # Errors
    ///
    /// Where the host does not take the certificate, speaks no common version, or does not answer in time.
    pub async fn open_control(
        &self,
        hello: Hello,
    ) -> Result<(Welcome, ControlStream<FromHost, FromAgent>), LinkError> {
        let link = &self.0.link;
        if self.0.greeted.swap(true, Ordering::AcqRel) {
            return Err(LinkError::Misuse("a second open_control on a connection"));
        }
        let versions = hello.versions.clone();
        let opening = async {
            let (send, receive) = link.open_bi().await?;
            let sender = Sender::open(link, send, StreamKind::Control, priority::CONTROL);
            let mut control =
                ControlStream::new(sender, Receiver::new(link, receive, StreamKind::Control));
            control.send(&FromAgent::Hello(Box::new(hello))).await?;
            match control.receive().await? {
                FromHost::Welcome(welcome) => Ok((*welcome, control)),
                _ => Err(link.violation("a control stream that does not begin with `Welcome`")),
            }
        };
        let Ok(opened) = timeout(limits::CONTROL_TIME_LIMIT, opening).await else {
            return Err(link.too_slow("no `Welcome` in time"));
        };
        let (welcome, control) = opened?;
        if !versions.contains(&welcome.version) {
            let reason = format!(
                "the host picked {}, this agent speaks {versions:?}",
                welcome.version
            );
            link.close(CloseCode::Version, &reason);
            return Err(LinkError::Version { reason });
        }
        self.0.welcome.store(true, Ordering::Release);
        Ok((welcome, control))
    }

    /// The next operation that the host delivers. May be dropped and called again.
    ///
    /// # Errors
    ///
    /// Where the connection is no more.
    pub async fn next_operation(&self) -> Result<Delivered, LinkError> {
        match self.0.operations.lock().await.recv().await {
            Some(delivered) => Ok(delivered),
            None => Err(self.0.link.closed().await),
        }
    }

    /// Opens the stream on which this operation's progress is told.
    ///
    /// # Errors
    ///
    /// Where the connection is no more, or there was no `Welcome` yet (a bug).
    pub async fn open_progress(&self, operation: OperationId) -> Result<ProgressSender, LinkError> {
        let link = self.welcomed()?;
        let stream = link.open_uni().await?;
        let mut sender = Sender::open(link, stream, StreamKind::Progress, priority::OPERATION);
        sender.send(&Progress::Of(operation)).await?;
        Ok(ProgressSender::new(sender, operation))
    }

    /// Asks for a blob from `offset` on: the size of the whole and the bytes, or none where the host has none for this
    /// machine. The caller checks the digest of what it gets.
    ///
    /// # Errors
    ///
    /// Where the connection is no more, the host gave the stream up, or there was no `Welcome` yet (a bug).
    pub async fn fetch(
        &self,
        sha256: Digest,
        offset: u64,
    ) -> Result<Option<(u64, BlobReader)>, LinkError> {
        let link = self.welcomed()?;
        let (send, receive) = link.open_bi().await?;
        let mut sender = Sender::open(link, send, StreamKind::Blob, priority::BLOB);
        sender.send(&Request { sha256, offset }).await?;
        sender.finish()?;
        let mut receiver = Receiver::new(link, receive, StreamKind::Blob);
        match receiver.expect(StreamKind::Blob.max_frame()).await? {
            Answer::NotFound => {
                receiver.expect_end().await?;
                Ok(None)
            }
            Answer::Found { size } => {
                let remaining = size
                    .checked_sub(offset)
                    .ok_or_else(|| link.violation("a blob that ends before its offset"))?;
                let (stream, link) = receiver.into_raw();
                Ok(Some((size, BlobReader::new(stream, link, remaining))))
            }
        }
    }

    /// Where the host is.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.0.link.remote()
    }

    /// Closes the connection and waits until that is on its way. The reason is for people, one line.
    pub async fn close(&self, code: CloseCode, reason: &str) {
        self.0.link.close(code, reason);
        flush(&self.0.endpoint).await;
    }

    /// Waits until the connection is no more, and says why.
    pub async fn closed(&self) -> LinkError {
        self.0.link.closed().await
    }

    /// How the link fares.
    #[must_use]
    pub fn stats(&self) -> LinkStats {
        self.0.link.stats()
    }

    fn welcomed(&self) -> Result<&Link, LinkError> {
        if self.0.welcome.load(Ordering::Acquire) {
            Ok(&self.0.link)
        } else {
            Err(LinkError::Misuse("a stream before `Welcome`"))
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.link.close(CloseCode::Stopping, "");
    }
}

/// Waits until what an endpoint had to say is sent.
pub(super) async fn flush(endpoint: &quinn::Endpoint) {
    // Where the peer is away there is nothing to wait for: it finds out by its idle limit.
    let _away = timeout(limits::CONNECT_TIME_LIMIT, endpoint.wait_idle()).await;
}

/// Takes in everything that the host opens, until the connection is no more. Operations may come before `Welcome`, which
/// travels on a stream of its own; they wait.
async fn accept_all(link: Link, found: mpsc::Sender<Delivered>) {
    let mut reading = JoinSet::new();
    loop {
        tokio::select! {
            stream = link.accept(), if reading.len() < HOST_UNIDIRECTIONAL as usize => match stream {
                Ok(stream) => {
                    let link = link.clone();
                    reading.spawn(async move { operation(&link, stream).await });
                }
                Err(_) => return,
            },
            Some(done) = reading.join_next() => match done {
                Ok(Ok(delivered)) => {
                    if found.send(delivered).await.is_err() {
                        return;
                    }
                }
                Ok(Err(error)) => tracing::info!(%error, "an operation did not arrive"),
                Err(error) => tracing::error!(%error, "reading a stream failed"),
            },
        }
    }
}

/// The one message of an operation's stream. No time limit: it may be long, and the host may be far.
async fn operation(link: &Link, stream: Opened) -> Result<Delivered, LinkError> {
    match stream {
        Opened::Bidirectional(_, mut receive) => {
            stream_kind(link, &mut receive, Direction::Bidirectional).await?;
            Err(link.violation("a stream in both directions"))
        }
        Opened::Unidirectional(mut receive) => {
            // Of this direction `Operation` alone is allowed.
            let kind = stream_kind(link, &mut receive, Direction::Unidirectional).await?;
            let mut receiver = Receiver::new(link, receive, kind);
            let body = receiver.expect_body(kind.max_frame()).await?;
            receiver.expect_end().await?;
            delivered(&body).map_err(|error| link.violation(error))
        }
    }
}

/// What the frame of an operation's stream is. One of a version to come has an id as well; what has none is no operation.
fn delivered(body: &[u8]) -> Result<Delivered, DecodeError> {
    match frame::decode(StreamKind::Operation, body) {
        Ok(operation) => Ok(Delivered::Operation(Box::new(operation))),
        Err(error) => match Operation::id_of_unreadable(body) {
            Some(operation) => Ok(Delivered::Unreadable {
                operation,
                reason: error.to_string(),
            }),
            None => Err(error),
        },
    }
}
