//! Which bytes of the output are kept, and where: the head for good, then the last ones. No I/O.
//!
//! The limit counts both streams together. Its first half is the head. What follows is kept as long as it is among the
//! last bytes of the rest of the limit, so that nothing is lost while the output fits. It goes where the head is up to the
//! limit, and from there on into files that make room for each other (see `record`). Nothing is held back but the
//! beginning of a UTF-8 character, so memory does not depend on the limit.

use serde_bytes::ByteBuf;

use crate::event::{Event, HeadFull, Stream};

/// Where an event is put on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// For good.
    Events,
    /// Until others need the room.
    Tail,
}

/// Decides where the bytes of two streams are kept.
#[derive(Debug)]
pub(crate) struct Capture {
    limit: u64,
    /// Bytes of each stream that were given out.
    written: [u64; 2],
    /// Bytes of a UTF-8 character whose end has not come yet, for each stream.
    pending: [Vec<u8>; 2],
    /// Once there was more than the head.
    head: Option<HeadFull>,
    place: Place,
}

impl Capture {
    pub(crate) const fn new(limit: u64) -> Self {
        Self {
            limit,
            written: [0; 2],
            pending: [Vec::new(), Vec::new()],
            head: None,
            place: Place::Events,
        }
    }

    /// Takes bytes of a stream; gives what to put on record.
    pub(crate) fn push(&mut self, stream: Stream, bytes: &[u8]) -> Vec<(Place, Event)> {
        let mut chunk = std::mem::take(&mut self.pending[index(stream)]);
        chunk.extend_from_slice(bytes);
        let held = incomplete_suffix(&chunk);
        self.pending[index(stream)] = chunk.split_off(chunk.len() - held);
        self.split(stream, chunk)
    }

    /// Both streams ended: gives what was held back of characters that never came to their end.
    pub(crate) fn finish(&mut self) -> Vec<(Place, Event)> {
        let mut events = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let chunk = std::mem::take(&mut self.pending[index(stream)]);
            events.extend(self.split(stream, chunk));
        }
        events
    }

    /// The head, where there was more than that.
    pub(crate) const fn head(&self) -> Option<HeadFull> {
        self.head
    }

    /// How many bytes there were of each stream.
    pub(crate) const fn written(&self) -> [u64; 2] {
        self.written
    }

    fn split(&mut self, stream: Stream, mut chunk: Vec<u8>) -> Vec<(Place, Event)> {
        let mut events = Vec::new();
        if self.head.is_none() {
            let used = self.written.iter().sum::<u64>();
            let room = usize::try_from(self.limit / 2 - used).unwrap_or(usize::MAX);
            let rest = if chunk.len() > room {
                let cut = room - incomplete_suffix(&chunk[..room]);
                Some(chunk.split_off(cut))
            } else {
                None
            };
            events.extend(self.piece(stream, chunk));
            let Some(rest) = rest else {
                return events;
            };
            chunk = rest;
            let [stdout, stderr] = self.written;
            let head = HeadFull {
                stdout,
                stderr,
                rest: self.limit - stdout - stderr,
            };
            self.head = Some(head);
            events.push((Place::Events, Event::HeadFull(head)));
        }
        events.extend(self.piece(stream, chunk));
        events
    }

    fn piece(&mut self, stream: Stream, mut chunk: Vec<u8>) -> Option<(Place, Event)> {
        let mut at = self.written[index(stream)];
        self.written[index(stream)] += chunk.len() as u64;
        if self.written.iter().sum::<u64>() > self.limit {
            self.place = Place::Tail;
        }
        if let Some(HeadFull { rest, .. }) = self.head {
            // The beginning of a piece that alone is more than is kept.
            let gone = (chunk.len() as u64).saturating_sub(rest);
            at += gone;
            chunk.drain(..usize::try_from(gone).unwrap_or(usize::MAX));
        }
        let bytes = ByteBuf::from(chunk);
        (!bytes.is_empty()).then_some((self.place, Event::Output { stream, at, bytes }))
    }
}

/// The place of a stream in what is kept for both.
pub(crate) const fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

/// How many bytes at the end are the beginning of a UTF-8 character that is not complete (0 to 3).
fn incomplete_suffix(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let needed = match bytes[bytes.len() - back] {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => return 0,
        };
        return if needed > back { back } else { 0 };
    }
    0
}
