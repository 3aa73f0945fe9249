//! Big bytes by digest: one stream for each request.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use sluice_protocol::message::blob::{Answer, Request};
use tokio::io::{AsyncRead, ReadBuf};

use crate::error::LinkError;
use crate::frame::{CopyError, Sender};
use crate::link::Link;

/// The host's end. Whether the machine may have the blob, the caller decides; dropped without an answer, it gives the
/// stream up.
#[derive(Debug)]
pub struct BlobResponder {
    sender: Sender,
    request: Request,
}

impl BlobResponder {
    pub(crate) const fn new(sender: Sender, request: Request) -> Self {
        Self { sender, request }
    }

    /// What is asked for.
    #[must_use]
    pub const fn request(&self) -> &Request {
        &self.request
    }

    /// Sends the blob: `size` is of the whole, `reader` stands at the offset that was asked for. An offset behind the end
    /// is answered as not found.
    ///
    /// # Errors
    ///
    /// Where the connection is no more, the agent gave the stream up, or `reader` fails or ends early; the agent then
    /// sees a stream that was given up, never a short blob.
    pub async fn found(
        mut self,
        size: u64,
        reader: impl AsyncRead + Unpin,
    ) -> Result<(), BlobError> {
        let Some(rest) = size.checked_sub(self.request.offset) else {
            return Ok(self.not_found().await?);
        };
        self.sender.send(&Answer::Found { size }).await?;
        self.sender.copy(rest, reader).await?;
        self.sender.finish()?;
        Ok(())
    }

    /// There is none, or not for this machine.
    ///
    /// # Errors
    ///
    /// Where the connection is no more, or the agent gave the stream up.
    pub async fn not_found(mut self) -> Result<(), LinkError> {
        self.sender.send(&Answer::NotFound).await?;
        self.sender.finish()
    }
}

/// A blob could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The connection or the stream is no more.
    #[error("cannot send a blob")]
    Link(#[from] LinkError),
    /// The blob's source, or the stream, failed.
    #[error("cannot copy a blob")]
    Copy(#[source] io::Error),
    /// The blob is shorter than it should be.
    #[error("a blob has {0} bytes less than its size says")]
    Short(u64),
}

impl From<CopyError> for BlobError {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Io(source) => Self::Copy(source),
            CopyError::Short { sent, size } => Self::Short(size - sent),
        }
    }
}

/// The agent's end: the bytes from the offset to the end of the blob. They are the host's claim until their digest was
/// checked. Ends early with an error, never as if it were the end.
#[derive(Debug)]
pub struct BlobReader {
    stream: quinn::RecvStream,
    link: Link,
    remaining: u64,
}

impl BlobReader {
    pub(crate) const fn new(stream: quinn::RecvStream, link: Link, remaining: u64) -> Self {
        Self {
            stream,
            link,
            remaining,
        }
    }

    /// How many bytes are still to come.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        self.remaining
    }
}

impl AsyncRead for BlobReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(AsyncRead::poll_read(Pin::new(&mut self.stream), cx, buf))?;
        let read = (buf.filled().len() - before) as u64;
        if read == 0 && self.remaining > 0 {
            // A host whose blob ends early resets the stream.
            let violation = self.link.violation("a blob is shorter than the host said");
            return Poll::Ready(Err(io::Error::other(violation)));
        }
        match self.remaining.checked_sub(read) {
            Some(remaining) => {
                self.remaining = remaining;
                Poll::Ready(Ok(()))
            }
            None => {
                buf.set_filled(before);
                Poll::Ready(Err(io::Error::other(
                    self.link.violation("a blob is longer than the host said"),
                )))
            }
        }
    }
}
