//! Frames on a stream: a length of four bytes and a message, checked before and after.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_protocol::codec;
use sluice_protocol::message::{Direction, StreamKind};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::error::LinkError;
use crate::limits;
use crate::link::Link;

const LENGTH: usize = 4;

/// Any error code of a stream: why one was given up is not said.
const GIVEN_UP: quinn::VarInt = quinn::VarInt::from_u32(0);

/// The sending end of a stream. Dropped before [`Self::finish`], it resets the stream, so that the peer never takes half
/// of something for the whole.
#[derive(Debug)]
pub(crate) struct Sender {
    stream: quinn::SendStream,
    link: Link,
    kind: StreamKind,
    /// Queued, and not yet with quinn.
    pending: Vec<u8>,
    /// How much of it quinn has already.
    sent: usize,
    finished: bool,
}

impl Sender {
    /// Of a stream that this side opened: its first byte is queued.
    pub(crate) fn open(
        link: &Link,
        stream: quinn::SendStream,
        kind: StreamKind,
        priority: i32,
    ) -> Self {
        let mut sender = Self::answer(link, stream, kind, priority);
        sender.pending.push(kind as u8);
        sender
    }

    /// Of a stream that the peer opened.
    pub(crate) fn answer(
        link: &Link,
        stream: quinn::SendStream,
        kind: StreamKind,
        priority: i32,
    ) -> Self {
        // Fails on a closed stream alone, which the first write reports.
        let _closed = stream.set_priority(priority);
        Self {
            stream,
            link: link.clone(),
            kind,
            pending: Vec::new(),
            sent: 0,
            finished: false,
        }
    }

    /// Sends one message. When the future is dropped, the message counts as sent: what is left of it goes out before the
    /// next one.
    pub(crate) async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), LinkError> {
        let frame = encode(self.kind, message)?;
        self.send_frame(frame).await
    }

    /// The same with a frame of [`encode`].
    pub(crate) async fn send_frame(&mut self, frame: Vec<u8>) -> Result<(), LinkError> {
        if self.pending.is_empty() {
            self.pending = frame;
        } else {
            self.pending.extend_from_slice(&frame);
        }
        while self.sent < self.pending.len() {
            let written = self.stream.write(&self.pending[self.sent..]).await;
            self.sent += written.map_err(|error| self.link.write_error(&error))?;
        }
        self.pending = Vec::new();
        self.sent = 0;
        Ok(())
    }

    /// Sends exactly `size` bytes of `reader`, unframed.
    pub(crate) async fn copy(
        &mut self,
        size: u64,
        reader: impl AsyncRead + Unpin,
    ) -> Result<(), CopyError> {
        let mut reader = reader.take(size);
        let sent = tokio::io::copy(&mut reader, &mut self.stream).await;
        match sent {
            Ok(sent) if sent == size => Ok(()),
            Ok(sent) => Err(CopyError::Short { sent, size }),
            Err(error) => Err(CopyError::Io(error)),
        }
    }

    /// No more is sent.
    pub(crate) fn finish(&mut self) -> Result<(), LinkError> {
        self.finished = true;
        self.stream
            .finish()
            .map_err(|_| LinkError::Misuse("finish a stream that has ended"))
    }

    /// Waits until the peer's carrier has everything, finish included.
    pub(crate) async fn delivered(&self) -> Result<(), LinkError> {
        match self.stream.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(LinkError::Interrupted),
            Err(quinn::StoppedError::ConnectionLost(error)) => Err(self.link.lost(&error)),
            Err(_) => Err(LinkError::Misuse("0-RTT")),
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if !self.finished {
            // Fails where the stream or connection has ended, which is as good.
            let _ended = self.stream.reset(GIVEN_UP);
        }
    }
}

/// Bytes could not be copied to a stream.
#[derive(Debug)]
pub(crate) enum CopyError {
    Short { sent: u64, size: u64 },
    Io(std::io::Error),
}

/// The frame of `message`, if a stream of this kind may carry it.
pub(crate) fn encode<T: Serialize>(kind: StreamKind, message: &T) -> Result<Vec<u8>, LinkError> {
    let span = tracing::trace_span!("encode", ?kind, bytes = tracing::field::Empty).entered();
    let body =
        codec::encode(message).map_err(|_| LinkError::Misuse("a message that has no CBOR form"))?;
    let limit = kind.max_frame();
    let length = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= limit);
    let length = length.ok_or(LinkError::TooLarge {
        size: body.len(),
        limit,
    })?;
    let mut frame = Vec::with_capacity(LENGTH + body.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&body);
    span.record("bytes", body.len());
    Ok(frame)
}

/// The receiving end of a stream.
#[derive(Debug)]
pub(crate) struct Receiver {
    stream: quinn::RecvStream,
    link: Link,
    kind: StreamKind,
    /// What is here of the frame under way, its length included.
    frame: Vec<u8>,
}

impl Receiver {
    pub(crate) fn new(link: &Link, stream: quinn::RecvStream, kind: StreamKind) -> Self {
        Self {
            stream,
            link: link.clone(),
            kind,
            frame: Vec::new(),
        }
    }

    /// The next message, or none where the peer has finished the stream. May be dropped and called again without loss.
    pub(crate) async fn receive<T: Serialize + DeserializeOwned>(
        &mut self,
    ) -> Result<Option<T>, LinkError> {
        self.receive_within(self.kind.max_frame()).await
    }

    /// The same, with a tighter limit on the frame.
    pub(crate) async fn receive_within<T: Serialize + DeserializeOwned>(
        &mut self,
        limit: usize,
    ) -> Result<Option<T>, LinkError> {
        let Some(body) = self.body_within(limit).await? else {
            return Ok(None);
        };
        let decoded = decode(self.kind, &body);
        decoded
            .map(Some)
            .map_err(|error| self.link.violation(error))
    }

    /// The bytes of the next message, or none where the peer has finished the stream.
    async fn body_within(&mut self, limit: usize) -> Result<Option<Vec<u8>>, LinkError> {
        loop {
            let missing = self.missing(limit)?;
            if missing == 0 {
                let mut frame = std::mem::take(&mut self.frame);
                frame.drain(..LENGTH);
                return Ok(Some(frame));
            }
            // Never more than the frame: bytes that follow the last one are not ours.
            match self
                .stream
                .read_chunk(missing.min(limits::READ_PIECE), true)
                .await
            {
                Ok(Some(chunk)) => self.frame.extend_from_slice(&chunk.bytes),
                Ok(None) if self.frame.is_empty() => return Ok(None),
                Ok(None) => {
                    return Err(self.link.violation(format_args!(
                        "a {:?} stream ended within a frame",
                        self.kind
                    )));
                }
                Err(error) => return Err(self.link.read_error(&error)),
            }
        }
    }

    /// A message that must come.
    pub(crate) async fn expect<T: Serialize + DeserializeOwned>(
        &mut self,
        limit: usize,
    ) -> Result<T, LinkError> {
        self.receive_within(limit)
            .await?
            .ok_or_else(|| self.none_came())
    }

    /// The bytes of a message that must come.
    pub(crate) async fn expect_body(&mut self, limit: usize) -> Result<Vec<u8>, LinkError> {
        self.body_within(limit)
            .await?
            .ok_or_else(|| self.none_came())
    }

    fn none_came(&self) -> LinkError {
        self.link.violation(format_args!(
            "a {:?} stream ended before its message",
            self.kind
        ))
    }

    /// Nothing more may come.
    pub(crate) async fn expect_end(&mut self) -> Result<(), LinkError> {
        match self.stream.read_chunk(1, true).await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(self.link.violation(format_args!(
                "more than is allowed on a {:?} stream",
                self.kind
            ))),
            Err(error) => Err(self.link.read_error(&error)),
        }
    }

    fn missing(&self, limit: usize) -> Result<usize, LinkError> {
        let Some(length) = self.frame.first_chunk::<LENGTH>() else {
            return Ok(LENGTH - self.frame.len());
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > limit {
            let kind = self.kind;
            return Err(self.link.violation(format_args!(
                "a frame of {length} bytes on a {kind:?} stream, over {limit}"
            )));
        }
        Ok(LENGTH + length - self.frame.len())
    }

    pub(crate) const fn link(&self) -> &Link {
        &self.link
    }

    /// The stream's raw bytes after the frames.
    pub(crate) fn into_raw(self) -> (quinn::RecvStream, Link) {
        (self.stream, self.link)
    }
}

/// The message that these bytes are, on a stream of this kind.
pub(crate) fn decode<T: Serialize + DeserializeOwned>(
    kind: StreamKind,
    body: &[u8],
) -> Result<T, codec::DecodeError> {
    let _span = tracing::trace_span!("decode", ?kind, bytes = body.len()).entered();
    codec::decode(body)
}

/// Reads what a stream that the peer has opened is for, its first byte. What is not allowed here closes the connection,
/// and so does a stream that ends without one.
pub(crate) async fn stream_kind(
    link: &Link,
    stream: &mut quinn::RecvStream,
    direction: Direction,
) -> Result<StreamKind, LinkError> {
    match stream.read_chunk(1, true).await {
        Ok(Some(chunk)) => link.kind(chunk.bytes.first().copied().unwrap_or_default(), direction),
        Ok(None) => Err(link.violation("a stream without a first byte")),
        Err(error) => Err(link.read_error(&error)),
    }
}
