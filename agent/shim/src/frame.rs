//! Events as bytes.
//!
//! ```text
//! the number of the format, three bytes of length (big-endian), then the event as CBOR
//! ```

use crate::event::Event;
use crate::format::{self, FORMAT, OtherFormat};

/// The largest frame. Output is passed on in pieces of 64 KiB.
pub const MAX_FRAME: usize = 1024 * 1024;

/// Why bytes are not a sequence of events.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Another version wrote it. It may be an event there.
    #[error(transparent)]
    Format(#[from] OtherFormat),
    /// Longer than [`MAX_FRAME`].
    #[error("a frame of {0} bytes is longer than any event")]
    TooLong(usize),
    /// Not an event.
    #[error("a frame is not an event")]
    Decode(#[source] ciborium::de::Error<std::io::Error>),
    /// More in a frame than an event.
    #[error("a frame has {0} bytes after its event")]
    TrailingBytes(usize),
}

/// One event as a frame.
#[must_use]
pub fn encode(event: &Event) -> Vec<u8> {
    let mut frame = vec![0; 4];
    // Writing to a Vec cannot fail; what CBOR cannot hold (a path that is not UTF-8) becomes a note that says so.
    if ciborium::into_writer(event, &mut frame).is_err() {
        frame.truncate(4);
        let note = Event::Note {
            text: "an event could not be written: it has a path that is not UTF-8".into(),
        };
        let _infallible = ciborium::into_writer(&note, &mut frame);
    }
    let length = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&length.to_be_bytes());
    // No event is so long that its length needs this byte.
    frame[0] = FORMAT;
    frame
}

/// Takes bytes as they come and gives events.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete event, `None` when more bytes are needed.
    ///
    /// # Errors
    /// The bytes are not frames of events; nothing after this is meaningful.
    pub fn next_event(&mut self) -> Result<Option<Event>, FrameError> {
        let rest = &self.buffer[self.start..];
        let Some((head, rest)) = rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let [number, length @ ..] = *head;
        format::check(number)?;
        let [first, second, third] = length;
        let length = u32::from_be_bytes([0, first, second, third]) as usize;
        if length > MAX_FRAME {
            return Err(FrameError::TooLong(length));
        }
        let Some(mut body) = rest.get(..length) else {
            return Ok(None);
        };
        let event = ciborium::from_reader(&mut body).map_err(FrameError::Decode)?;
        if !body.is_empty() {
            return Err(FrameError::TrailingBytes(body.len()));
        }
        self.start += 4 + length;
        Ok(Some(event))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_bytes::ByteBuf;

    use super::*;
    use crate::event::{Stage, Stream};

    #[test]
    fn events_come_back_whatever_the_pieces_they_arrive_in() {
        let events = [
            Event::Output {
                stream: Stream::Stderr,
                at: 7,
                bytes: ByteBuf::from(vec![0, 255, 10]),
            },
            Event::Note { text: "é".into() },
            Event::Failed {
                stage: Stage::User,
                reason: "no".into(),
            },
        ];
        let bytes: Vec<u8> = events.iter().flat_map(encode).collect();
        for piece in 1..bytes.len() {
            let mut decoder = Decoder::default();
            let mut got = Vec::new();
            for chunk in bytes.chunks(piece) {
                decoder.push(chunk);
                while let Some(event) = decoder.next_event().unwrap() {
                    got.push(event);
                }
            }
            assert_eq!(got, events, "pieces of {piece}");
        }
    }

    #[test]
    fn a_torn_frame_is_not_an_event_and_a_huge_one_is_an_error() {
        let mut decoder = Decoder::default();
        let frame = encode(&Event::Note {
            text: "whole".into(),
        });
        decoder.push(&frame[..frame.len() - 1]);
        assert!(decoder.next_event().unwrap().is_none());
        let mut decoder = Decoder::default();
        decoder.push(&[FORMAT, 0xff, 0xff, 0xff]);
        assert!(matches!(decoder.next_event(), Err(FrameError::TooLong(_))));
    }

    #[test]
    fn a_frame_of_another_version_is_known_by_its_number_and_not_read() {
        let mut frame = encode(&Event::Spooled);
        frame[0] = FORMAT + 1;
        let mut decoder = Decoder::default();
        decoder.push(&frame);
        let error = decoder.next_event().unwrap_err();
        assert!(matches!(error, FrameError::Format(OtherFormat(found)) if found == FORMAT + 1));
        assert!(error.to_string().contains("another version of Sluice"));
    }
}
