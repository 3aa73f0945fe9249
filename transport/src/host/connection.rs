//! A host's end of a link to a machine.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use sluice_protocol::message::control::{FromAgent, FromHost, Hello};
use sluice_protocol::message::operation::Operation;
use sluice_protocol::message::{CloseCode, StreamKind};
use tokio::sync::{mpsc, oneshot};

use super::streams::{self, Opening};
use crate::blob::BlobResponder;
use crate::control::ControlStream;
use crate::error::LinkError;
use crate::frame::{self, Sender};
use crate::identity::MachineIdentity;
use crate::limits::{self, priority};
use crate::link::{Link, LinkStats};
use crate::progress::ProgressReceiver;

/// A stream that a machine has opened.
#[derive(Debug)]
pub enum FromMachine {
    /// How one operation goes.
    Progress(ProgressReceiver),
    /// A request for a blob.
    Blob(BlobResponder),
}

/// A link to a machine. A cheap handle; when the last one is dropped, the connection is closed with
/// `CloseCode::Stopping`.
#[derive(Debug, Clone)]
pub struct HostConnection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    link: Link,
    machine: MachineIdentity,
    certificate: Vec<u8>,
    expires: SystemTime,
    control: Mutex<Option<oneshot::Receiver<Opening>>>,
    streams: tokio::sync::Mutex<mpsc::Receiver<FromMachine>>,
}

impl HostConnection {
    pub(super) fn start(
        link: Link,
        machine: MachineIdentity,
        certificate: Vec<u8>,
        expires: SystemTime,
    ) -> Self {
        let (opened, control) = oneshot::channel();
        let (found, streams) = mpsc::channel(limits::QUEUED_STREAMS);
        tokio::spawn(streams::accept_all(link.clone(), opened, found));
        Self(Arc::new(Inner {
            link,
            machine,
            certificate,
            expires,
            control: Mutex::new(Some(control)),
            streams: tokio::sync::Mutex::new(streams),
        }))
    }

    /// Who it is, from the certificate of this connection's handshake.
    #[must_use]
    pub fn machine(&self) -> MachineIdentity {
        self.0.machine
    }

    /// That certificate (DER).
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.0.certificate
    }

    /// When that certificate ends. The connection outlives it; whoever holds it closes it then.
    #[must_use]
    pub fn certificate_expires(&self) -> SystemTime {
        self.0.expires
    }

    /// Where the machine is at the moment.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.0.link.remote()
    }

    /// Waits for the control stream and its `Hello`; to be called once, first. Send `Welcome` on it next, with the
    /// version that [`negotiate`](crate::negotiate) picks: an agent without a common one was sent away already. An agent
    /// that does not say `Hello` in time is closed.
    ///
    /// # Errors
    ///
    /// Where the connection is no more, for one of the reasons above or any other.
    pub async fn accept_control(
        &self,
    ) -> Result<(Hello, ControlStream<FromAgent, FromHost>), LinkError> {
        let control = self
            .0
            .control
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let control =
            control.ok_or(LinkError::Misuse("a second accept_control on a connection"))?;
        match control.await {
            Ok(opening) => Ok(opening),
            Err(_) => Err(self.0.link.closed().await),
        }
    }

    /// The next stream that the machine opens, with its first message. May be dropped and called again.
    ///
    /// # Errors
    ///
    /// Where the connection is no more.
    pub async fn next(&self) -> Result<FromMachine, LinkError> {
        match self.0.streams.lock().await.recv().await {
            Some(stream) => Ok(stream),
            None => Err(self.0.link.closed().await),
        }
    }

    /// Sends an operation, and waits until the machine's carrier has all of it. That the machine has *accepted* it (it
    /// is in its ledger), only `Progress::Accepted` says. Dropped in the middle, it is not known whether the machine
    /// gets it.
    ///
    /// # Errors
    ///
    /// [`DeliverError::NotSent`] where not a byte was sent; [`DeliverError::Unknown`] where the machine may have it.
    pub async fn deliver(&self, operation: &Operation) -> Result<(), DeliverError> {
        let frame =
            frame::encode(StreamKind::Operation, operation).map_err(DeliverError::NotSent)?;
        let stream = self
            .0
            .link
            .open_uni()
            .await
            .map_err(DeliverError::NotSent)?;
        let mut sender = Sender::open(
            &self.0.link,
            stream,
            StreamKind::Operation,
            priority::OPERATION,
        );
        sender
            .send_frame(frame)
            .await
            .map_err(DeliverError::Unknown)?;
        sender.finish().map_err(DeliverError::Unknown)?;
        sender.delivered().await.map_err(DeliverError::Unknown)
    }

    /// Closes the connection because of what the machine said: something that only whoever knows its operations can find
    /// fault with. As where the transport does, it ends with [`LinkError::Violation`] here.
    pub fn violation(&self, what: &str) {
        self.0.link.violation(what);
    }

    /// What the machine did that the connection was closed for, whoever found it. May quote the machine.
    #[must_use]
    pub fn violated(&self) -> Option<&str> {
        self.0.link.violated()
    }

    /// Closes the connection. The reason is for people, one line.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.0.link.close(code, reason);
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
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.link.close(CloseCode::Stopping, "");
    }
}

/// An operation was not delivered, or perhaps not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliverError {
    /// Nothing of it was sent: the host alone may still end it.
    #[error("the operation was not sent")]
    NotSent(#[source] LinkError),
    /// Some of it was sent: the machine may have it, and what becomes of it the machine says.
    #[error("the operation may or may not have reached the machine")]
    Unknown(#[source] LinkError),
}
