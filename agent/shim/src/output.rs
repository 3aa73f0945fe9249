//! Which bytes of the output are kept: the head at once, then a ring of the tail. No I/O.
//!
//! The limit counts both streams together. Its first half is passed on as it comes. What follows goes through a ring
//! of the rest, so that nothing is lost while the output fits the limit, and the last bytes are kept when it does not.
//! Memory is bounded by the limit: one byte of the ring, and at worst (the streams alternate byte by byte) four bytes
//! to remember which stream it is of.

use std::collections::VecDeque;

use crate::event::{LostBytes, Stream};

const STDERR_BIT: u32 = 1 << 31;

/// Decides what is kept of two streams.
#[derive(Debug)]
pub(crate) struct Capture {
    limit: usize,
    head: Head,
    /// Bytes of a UTF-8 character whose end has not come yet, for each stream.
    pending: [Vec<u8>; 2],
    ring: VecDeque<u8>,
    /// The streams of the ring's bytes, in order: a length, with the highest bit set for standard error.
    runs: VecDeque<u32>,
    lost: [u64; 2],
}

#[derive(Debug)]
enum Head {
    Open { used: usize },
    Closed { ring_limit: usize },
}

/// What is sent when the streams have ended.
#[derive(Debug, PartialEq)]
pub(crate) struct Tail {
    pub(crate) lost: LostBytes,
    /// Pieces in the order they were read.
    pub(crate) pieces: Vec<(Stream, Vec<u8>)>,
}

impl Capture {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            head: Head::Open { used: 0 },
            pending: [Vec::new(), Vec::new()],
            ring: VecDeque::new(),
            runs: VecDeque::new(),
            lost: [0; 2],
        }
    }

    /// Takes bytes of a stream; returns those to pass on at once.
    pub(crate) fn push(&mut self, stream: Stream, bytes: &[u8]) -> Vec<u8> {
        let mut chunk = std::mem::take(&mut self.pending[index(stream)]);
        if chunk.is_empty() && matches!(self.head, Head::Closed { .. }) {
            self.keep(stream, bytes);
            return Vec::new();
        }
        chunk.extend_from_slice(bytes);
        self.split(stream, chunk, true)
    }

    /// Both streams ended: what was held back of characters that never came to their end, and then the tail.
    pub(crate) fn finish(mut self) -> (Vec<(Stream, Vec<u8>)>, Tail) {
        let mut head = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let chunk = std::mem::take(&mut self.pending[index(stream)]);
            let now = self.split(stream, chunk, false);
            if !now.is_empty() {
                head.push((stream, now));
            }
        }
        self.trim_broken_characters();
        let mut pieces: Vec<(Stream, Vec<u8>)> = Vec::with_capacity(self.runs.len().min(1024));
        let mut bytes = self.ring.make_contiguous() as &[u8];
        for run in &self.runs {
            let (stream, length) = decode_run(*run);
            let (piece, rest) = bytes.split_at(length);
            pieces.push((stream, piece.to_vec()));
            bytes = rest;
        }
        (
            head,
            Tail {
                lost: LostBytes {
                    stdout: self.lost[0],
                    stderr: self.lost[1],
                },
                pieces,
            },
        )
    }

    fn split(&mut self, stream: Stream, mut chunk: Vec<u8>, more_may_come: bool) -> Vec<u8> {
        let Head::Open { used } = &mut self.head else {
            self.keep(stream, &chunk);
            return Vec::new();
        };
        let room = self.limit / 2 - *used;
        if chunk.len() <= room {
            let held = if more_may_come {
                incomplete_suffix(&chunk)
            } else {
                0
            };
            self.pending[index(stream)] = chunk.split_off(chunk.len() - held);
            *used += chunk.len();
            return chunk;
        }
        let cut = room - incomplete_suffix(&chunk[..room]);
        let rest = chunk.split_off(cut);
        let ring_limit = self.limit - (*used + cut);
        self.head = Head::Closed { ring_limit };
        self.keep(stream, &rest);
        chunk
    }

    fn keep(&mut self, stream: Stream, mut bytes: &[u8]) {
        let Head::Closed { ring_limit } = self.head else {
            return;
        };
        if bytes.len() > ring_limit {
            self.forget(self.ring.len());
            self.lost[index(stream)] += (bytes.len() - ring_limit) as u64;
            bytes = &bytes[bytes.len() - ring_limit..];
        }
        self.forget((self.ring.len() + bytes.len()).saturating_sub(ring_limit));
        if bytes.is_empty() {
            return;
        }
        self.ring.extend(bytes);
        // A limit beyond 2 GiB would not fit a run; the ceiling of a machine is far below.
        let length = u32::try_from(bytes.len()).unwrap_or(STDERR_BIT - 1) & !STDERR_BIT;
        match self.runs.back_mut() {
            Some(run)
                if decode_run(*run).0 == stream
                    && decode_run(*run).1 + bytes.len() < STDERR_BIT as usize =>
            {
                *run += length
            }
            _ => self.runs.push_back(
                length
                    | if stream == Stream::Stderr {
                        STDERR_BIT
                    } else {
                        0
                    },
            ),
        }
    }

    fn forget(&mut self, mut count: usize) {
        self.ring.drain(..count);
        while count > 0 {
            let Some(run) = self.runs.front_mut() else {
                return;
            };
            let (stream, length) = decode_run(*run);
            let gone = length.min(count);
            self.lost[index(stream)] += gone as u64;
            count -= gone;
            if gone == length {
                self.runs.pop_front();
            } else {
                *run -= u32::try_from(gone).unwrap_or(0);
            }
        }
    }

    /// Where bytes were lost, a stream's tail may begin inside a character: its remaining bytes are lost with it.
    fn trim_broken_characters(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if self.lost[index(stream)] == 0 {
                continue;
            }
            let mut at = 0;
            let mut trimmed = 0;
            let mut run = 0;
            while run < self.runs.len() && trimmed < 3 {
                let (of, length) = decode_run(self.runs[run]);
                if of != stream {
                    at += length;
                    run += 1;
                    continue;
                }
                let broken = (0..length.min(3 - trimmed))
                    .take_while(|i| self.ring[at + i] & 0xc0 == 0x80)
                    .count();
                self.ring.drain(at..at + broken);
                self.runs[run] -= u32::try_from(broken).unwrap_or(0);
                trimmed += broken;
                self.lost[index(stream)] += broken as u64;
                if broken < length {
                    break;
                }
                run += 1;
            }
            self.runs.retain(|run| decode_run(*run).1 > 0);
        }
    }
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

fn decode_run(run: u32) -> (Stream, usize) {
    let stream = if run & STDERR_BIT == 0 {
        Stream::Stdout
    } else {
        Stream::Stderr
    };
    (stream, (run & !STDERR_BIT) as usize)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs chunks through a capture and returns what a reader would have of each stream: head, lost, tail.
    fn run(limit: u64, chunks: &[(Stream, &[u8])]) -> [(Vec<u8>, u64, Vec<u8>); 2] {
        let mut capture = Capture::new(limit);
        let mut result = [(vec![], 0, vec![]), (vec![], 0, vec![])];
        for (stream, bytes) in chunks {
            let now = capture.push(*stream, bytes);
            result[index(*stream)].0.extend(now);
        }
        let (head, tail) = capture.finish();
        for (stream, bytes) in head {
            result[index(stream)].0.extend(bytes);
        }
        for (stream, bytes) in tail.pieces {
            result[index(stream)].2.extend(bytes);
        }
        result[0].1 = tail.lost.stdout;
        result[1].1 = tail.lost.stderr;
        result
    }

    #[test]
    fn nothing_is_lost_while_the_output_fits() {
        for (out, err) in [(0, 10), (5, 5), (10, 0), (3, 7), (1, 2)] {
            let (out, err) = (vec![b'o'; out], vec![b'e'; err]);
            for piece in 1..=10 {
                let mut chunks: Vec<(Stream, &[u8])> =
                    out.chunks(piece).map(|c| (Stream::Stdout, c)).collect();
                chunks.extend(err.chunks(piece).map(|c| (Stream::Stderr, c)));
                let [stdout, stderr] = run(10, &chunks);
                assert_eq!((stdout.1, stderr.1), (0, 0));
                assert_eq!([stdout.0, stdout.2].concat(), out);
                assert_eq!([stderr.0, stderr.2].concat(), err);
            }
        }
    }

    #[test]
    fn one_byte_too_many_loses_one_byte_of_the_middle() {
        let [stdout, _] = run(10, &[(Stream::Stdout, b"0123456789a")]);
        assert_eq!(stdout, (b"01234".to_vec(), 1, b"6789a".to_vec()));
    }

    #[test]
    fn head_and_tail_survive_and_every_byte_is_counted() {
        let all: Vec<u8> = (0..100_000_u32).map(|i| b'a' + (i % 26) as u8).collect();
        let chunks: Vec<(Stream, &[u8])> = all
            .chunks(777)
            .enumerate()
            .map(|(i, c)| {
                (
                    if i % 3 == 0 {
                        Stream::Stderr
                    } else {
                        Stream::Stdout
                    },
                    c,
                )
            })
            .collect();
        let [stdout, stderr] = run(1000, &chunks);
        assert_eq!(
            stdout.0.len() + stdout.2.len() + stderr.0.len() + stderr.2.len(),
            1000
        );
        for (stream, (head, lost, tail)) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
            let of: Vec<u8> = chunks
                .iter()
                .filter(|c| c.0 == stream)
                .flat_map(|c| c.1.to_vec())
                .collect();
            assert_eq!(
                head.len() as u64 + lost + tail.len() as u64,
                of.len() as u64
            );
            assert!(of.starts_with(&head) && of.ends_with(&tail));
        }
    }

    #[test]
    fn a_character_is_not_split_at_either_side_of_the_cut() {
        let text = "aé€😀".repeat(50);
        for limit in 1..80 {
            for piece in 1..9 {
                let chunks: Vec<(Stream, &[u8])> = text
                    .as_bytes()
                    .chunks(piece)
                    .map(|c| (Stream::Stdout, c))
                    .collect();
                let [(head, lost, tail), _] = run(limit, &chunks);
                assert!(
                    std::str::from_utf8(&head).is_ok(),
                    "head of {limit} in pieces of {piece}"
                );
                assert!(
                    std::str::from_utf8(&tail).is_ok(),
                    "tail of {limit} in pieces of {piece}"
                );
                assert_eq!(
                    head.len() as u64 + lost + tail.len() as u64,
                    text.len() as u64
                );
                assert!(head.len() + tail.len() <= usize::try_from(limit).unwrap_or(0));
            }
        }
    }

    #[test]
    fn binary_output_that_fits_is_exact() {
        let all: Vec<u8> = (0..=255).cycle().take(4096).collect();
        let chunks: Vec<(Stream, &[u8])> = all.chunks(13).map(|c| (Stream::Stderr, c)).collect();
        let [_, (head, lost, tail)] = run(4096, &chunks);
        assert_eq!(lost, 0);
        assert_eq!([head, tail].concat(), all);
    }

    #[test]
    fn memory_stays_within_the_limit() {
        let mut capture = Capture::new(64 * 1024);
        let chunk = vec![b'x'; 64 * 1024];
        for _ in 0..1000 {
            capture.push(Stream::Stdout, &chunk);
            capture.push(Stream::Stderr, &chunk[..1]);
        }
        assert!(
            capture.ring.capacity() <= 256 * 1024,
            "{}",
            capture.ring.capacity()
        );
        assert!(capture.runs.len() < 8);
    }
}
