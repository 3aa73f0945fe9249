//! How an operation goes: one stream each, from the agent to the host.

use sluice_protocol::ids::OperationId;
use sluice_protocol::message::operation::{MAX_CHUNK, Progress};

use crate::error::LinkError;
use crate::frame::{Receiver, Sender};

/// The longest first frame, `Of`, in bytes. The length of an encoded id, generously, so that a peer that opens many
/// streams cannot make this side keep many long ones.
pub(crate) const FIRST_FRAME: usize = 64;

/// The agent's end. Dropped without [`Self::finish`], it gives the stream up, and the host forgets no progress for it.
#[derive(Debug)]
pub struct ProgressSender {
    sender: Sender,
    operation: OperationId,
}

impl ProgressSender {
    pub(crate) const fn new(sender: Sender, operation: OperationId) -> Self {
        Self { sender, operation }
    }

    /// Which operation this is about.
    #[must_use]
    pub const fn operation(&self) -> OperationId {
        self.operation
    }

    /// Sends a message. If the future is dropped the message still counts as sent: its rest goes out before the next one.
    ///
    /// # Errors
    ///
    /// Where the connection is no more, the host gave the stream up, or the message is too long (a report may be).
    pub async fn send(&mut self, progress: &Progress) -> Result<(), LinkError> {
        match progress {
            Progress::Of(_) => Err(LinkError::Misuse("a second `Of` on a progress stream")),
            Progress::Output(chunk) if chunk.bytes.len() > MAX_CHUNK => Err(LinkError::TooLarge {
                size: chunk.bytes.len(),
                limit: MAX_CHUNK,
            }),
            _ => self.sender.send(progress).await,
        }
    }

    /// Ends the stream and waits until the host's carrier has everything. That the host has *stored* a report, only
    /// `Acknowledge` says.
    ///
    /// # Errors
    ///
    /// Where the connection is no more, or the host gave the stream up.
    pub async fn finish(mut self) -> Result<(), LinkError> {
        self.sender.finish()?;
        self.sender.delivered().await
    }
}

/// The host's end.
#[derive(Debug)]
pub struct ProgressReceiver {
    receiver: Receiver,
    operation: OperationId,
    finished: bool,
}

impl ProgressReceiver {
    pub(crate) const fn new(receiver: Receiver, operation: OperationId) -> Self {
        Self {
            receiver,
            operation,
            finished: false,
        }
    }

    /// Which operation this is about, as the machine says. Whether it is one of the machine's own, the caller looks up.
    #[must_use]
    pub const fn operation(&self) -> OperationId {
        self.operation
    }

    /// The next message, or none at the end. May be dropped and called again without loss. [`LinkError::Interrupted`]
    /// means that the agent gave this stream up; it opens another one.
    ///
    /// # Errors
    ///
    /// Where the connection is no more, the stream was given up, or the agent broke the protocol (which closes the
    /// connection).
    pub async fn recv(&mut self) -> Result<Option<Progress>, LinkError> {
        let Some(progress) = self.receiver.receive().await? else {
            return Ok(None);
        };
        let wrong = match &progress {
            _ if self.finished => Some("progress after the end of an operation"),
            Progress::Of(_) => Some("a second `Of` on a progress stream"),
            Progress::Output(chunk) if chunk.bytes.len() > MAX_CHUNK => {
                Some("a piece of output that is too long")
            }
            _ => None,
        };
        match wrong {
            Some(what) => Err(self.receiver.link().violation(what)),
            None => {
                self.finished = matches!(progress, Progress::Finished(_));
                Ok(Some(progress))
            }
        }
    }
}
