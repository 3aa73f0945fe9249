//! The output that a spool has, read piece by piece while it is written, or when it is complete.
//!
//! What is over the limit may be removed while it is read. Who reads too slowly finds that out by
//! [`Reader::skip_what_is_gone`], or by the place that a piece says it has in its stream.

use std::path::{Path, PathBuf};

use crate::event::{Ends, Event, HeadFull, Stream, StreamEnd};
use crate::event_file::EventFile;
use crate::output::index;
use crate::spool::{self, SpoolError};

/// Bytes of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Which stream.
    pub stream: Stream,
    /// How many bytes of that stream the script wrote before these.
    pub at: u64,
    /// The bytes, never none.
    pub bytes: Vec<u8>,
}

/// What a [`Reader`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// What comes next.
    Piece(Piece),
    /// What came next is not kept any more. It goes on with the oldest that is.
    Gone,
    /// Nothing comes next, or not yet.
    Nothing,
}

/// Reads the output of one spool, both streams in the order in which they were read.
#[derive(Debug)]
pub struct Reader {
    spool: PathBuf,
    file: EventFile,
    /// 0 for the events, else the number of a file of the tail.
    part: u64,
    head: Option<HeadFull>,
    /// How far each stream is.
    positions: [u64; 2],
}

impl Reader {
    /// From the beginning.
    #[must_use]
    pub fn new(spool: &Path) -> Self {
        Self {
            spool: spool.to_owned(),
            file: spool::events(spool),
            part: 0,
            head: None,
            positions: [0; 2],
        }
    }

    /// Whether the head was read: what comes now may be removed again.
    #[must_use]
    pub const fn is_beyond_head(&self) -> bool {
        self.head.is_some()
    }

    /// Whether the output is over its limit, as far as it was read.
    #[must_use]
    pub const fn is_beyond_limit(&self) -> bool {
        self.part > 0
    }

    /// What comes next.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn next_piece(&mut self) -> Result<Found, SpoolError> {
        loop {
            match self.next_of_part()? {
                Found::Nothing => {}
                found => return Ok(found),
            }
            // Only behind a full head there are other files.
            let Some(next) = self.head.map_or(Ok(None), |_| self.part_after(self.part))? else {
                return Ok(Found::Nothing);
            };
            // Nothing is added to a file once the one after it is there; before that, something may have been.
            match self.next_of_part()? {
                Found::Nothing => self.enter(next),
                found => return Ok(found),
            }
        }
    }

    /// Goes on with the oldest output that is kept, where what would come next is not. True where that was so.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn skip_what_is_gone(&mut self) -> Result<bool, SpoolError> {
        if self.head.is_none() {
            return Ok(false);
        }
        match self.part_after(0)? {
            // As long as the first file of the tail is there, what is before it is kept.
            Some(oldest) if oldest > self.part.max(1) => {
                self.enter(oldest);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn next_of_part(&mut self) -> Result<Found, SpoolError> {
        while let Some(event) = self.file.next_event()? {
            match event {
                Event::Output { stream, at, bytes } if !bytes.is_empty() => {
                    self.positions[index(stream)] = at + bytes.len() as u64;
                    let bytes = bytes.into_vec();
                    return Ok(Found::Piece(Piece { stream, at, bytes }));
                }
                Event::HeadFull(head) => {
                    self.head = Some(head);
                    if self.skip_what_is_gone()? {
                        return Ok(Found::Gone);
                    }
                }
                Event::TailAt { stdout, stderr } => self.positions = [stdout, stderr],
                _ => {}
            }
        }
        Ok(Found::Nothing)
    }

    fn part_after(&self, part: u64) -> Result<Option<u64>, SpoolError> {
        let numbers = spool::tail_numbers(&self.spool).map_err(|source| SpoolError::Io {
            what: "read",
            path: self.spool.clone(),
            source,
        })?;
        Ok(numbers.into_iter().filter(|number| *number > part).min())
    }

    fn enter(&mut self, part: u64) {
        self.part = part;
        self.file = EventFile::new(spool::tail(&self.spool, part));
    }
}

/// The most that a spool takes on disk of an operation that keeps at most `limit` bytes of output, apart from what it costs
/// to tell small pieces apart.
#[must_use]
pub const fn most_on_disk(limit: u64) -> u64 {
    limit.saturating_mul(2).saturating_add(1 << 20)
}

/// What became of the output of an operation whose shim did not come to say so.
///
/// # Errors
/// The spool cannot be read.
pub fn ends(spool: &Path) -> Result<Ends, SpoolError> {
    let mut reader = Reader::new(spool);
    while reader.next_piece()? != Found::Nothing {}
    ends_of(spool, reader.head, reader.positions)
}

/// What is kept of two streams of which this much was written, and whose head was full, or was not.
///
/// # Errors
/// The spool cannot be read.
pub(crate) fn ends_of(
    spool: &Path,
    head: Option<HeadFull>,
    written: [u64; 2],
) -> Result<Ends, SpoolError> {
    let Some(head) = head else {
        return Ok(Ends::whole(written));
    };
    let starts = tail_starts(spool, head, written)?;
    let end = |written: u64, head: u64, start: u64| match start.saturating_sub(head) {
        0 => StreamEnd::whole(written),
        lost => StreamEnd {
            written,
            head,
            lost,
        },
    };
    Ok(Ends {
        stdout: end(written[0], head.stdout, starts[0]),
        stderr: end(written[1], head.stderr, starts[1]),
    })
}

/// Where the tail of a stream begins, as far as that is known.
#[derive(Clone, Copy)]
struct Start {
    at: u64,
    /// How many bytes may still turn out to be the rest of a UTF-8 character whose beginning is lost.
    broken: usize,
}

/// Where the kept tail of each stream begins: where its head ends, if nothing is lost.
fn tail_starts(spool: &Path, head: HeadFull, written: [u64; 2]) -> Result<[u64; 2], SpoolError> {
    let heads = [head.stdout, head.stderr];
    // How many bytes come after the head and before a place of each stream.
    let behind = |at: [u64; 2]| at[0].saturating_sub(heads[0]) + at[1].saturating_sub(heads[1]);
    let lost = behind(written).saturating_sub(head.rest);
    if lost == 0 {
        return Ok(heads);
    }
    let mut reader = Reader::new(spool);
    (reader.head, reader.positions) = (Some(head), heads);
    reader.skip_what_is_gone()?;
    let mut starts: Option<[Start; 2]> = None;
    loop {
        let piece = match reader.next_piece()? {
            Found::Piece(piece) => piece,
            Found::Gone => continue,
            Found::Nothing => break,
        };
        let (stream, length) = (index(piece.stream), piece.bytes.len() as u64);
        if piece.at + length <= heads[stream] {
            continue;
        }
        let mut begins = reader.positions;
        begins[stream] = piece.at;
        let gone = lost.saturating_sub(behind(begins));
        if starts.is_none() && gone >= length {
            continue;
        }
        let starts = starts.get_or_insert_with(|| {
            begins[stream] += gone;
            [0, 1].map(|of| Start {
                at: begins[of],
                broken: if begins[of] > heads[of] { 3 } else { 0 },
            })
        });
        starts[stream].look_at(&piece);
        if starts.iter().all(|start| start.broken == 0) {
            break;
        }
    }
    Ok(starts.map_or(written, |starts| starts.map(|start| start.at)))
}

impl Start {
    /// Moves on past what is left of a broken character.
    fn look_at(&mut self, piece: &Piece) {
        if self.broken == 0 {
            return;
        }
        self.at = self.at.max(piece.at);
        let from = usize::try_from(self.at - piece.at).unwrap_or(usize::MAX);
        let rest = piece.bytes.get(from..).unwrap_or_default();
        let broken = rest
            .iter()
            .take(self.broken)
            .take_while(|byte| **byte & 0xc0 == 0x80)
            .count();
        self.at += broken as u64;
        self.broken = if broken < rest.len() {
            0
        } else {
            self.broken - broken
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs::File;

    use super::*;
    use crate::frame;
    use crate::output::Capture;
    use crate::record::Record;
    use crate::spool::make_events;

    /// A spool that output is written to.
    struct Writer {
        directory: tempfile::TempDir,
        capture: Capture,
        record: Record,
    }

    impl Writer {
        fn new(limit: u64) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let events: File = make_events(directory.path()).unwrap();
            Self {
                capture: Capture::new(limit),
                record: Record::new(directory.path(), events),
                directory,
            }
        }

        fn push(&mut self, stream: Stream, bytes: &[u8]) {
            self.append(|capture| capture.push(stream, bytes));
        }

        fn append(
            &mut self,
            output: impl FnOnce(&mut Capture) -> Vec<(crate::output::Place, Event)>,
        ) {
            for (place, event) in output(&mut self.capture) {
                self.record
                    .append(place, &event, &frame::encode(&event))
                    .unwrap();
            }
        }

        fn reader(&self) -> Reader {
            Reader::new(self.directory.path())
        }

        fn finish(&mut self) -> Ends {
            self.append(Capture::finish);
            let (head, written) = (self.capture.head(), self.capture.written());
            let ends = ends_of(self.directory.path(), head, written).unwrap();
            // A shim that is killed in the end has not told them.
            assert_eq!(super::ends(self.directory.path()).unwrap(), ends);
            ends
        }

        fn on_disk(&self) -> u64 {
            let entries = std::fs::read_dir(self.directory.path()).unwrap();
            entries
                .map(|entry| entry.unwrap().metadata().unwrap().len())
                .sum()
        }
    }

    fn all(reader: &mut Reader) -> Vec<Piece> {
        let mut pieces = Vec::new();
        loop {
            match reader.next_piece().unwrap() {
                Found::Piece(piece) => pieces.push(piece),
                Found::Gone => {}
                Found::Nothing => return pieces,
            }
        }
    }

    /// Runs chunks through a spool and returns what a reader has of each stream in the end: head, lost, tail.
    fn run(limit: u64, chunks: &[(Stream, &[u8])]) -> [(Vec<u8>, u64, Vec<u8>); 2] {
        let mut writer = Writer::new(limit);
        for (stream, bytes) in chunks {
            writer.push(*stream, bytes);
        }
        let ends = writer.finish();
        let pieces = all(&mut writer.reader());
        [(Stream::Stdout, ends.stdout), (Stream::Stderr, ends.stderr)].map(|(stream, end)| {
            let (mut head, mut tail) = (Vec::new(), Vec::new());
            for piece in pieces.iter().filter(|piece| piece.stream == stream) {
                for (at, byte) in (piece.at..).zip(&piece.bytes) {
                    if at < end.head {
                        assert_eq!(at, head.len() as u64, "nothing is missing in the head");
                        head.push(*byte);
                    } else if at >= end.head + end.lost {
                        let expected = end.head + end.lost + tail.len() as u64;
                        assert_eq!(at, expected, "nothing is missing in the tail");
                        tail.push(*byte);
                    }
                }
            }
            assert_eq!(
                head.len() as u64 + end.lost + tail.len() as u64,
                end.written
            );
            (head, end.lost, tail)
        })
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
                assert_eq!((stdout.0, stderr.0), (out.clone(), err.clone()));
            }
        }
    }

    #[test]
    fn one_byte_too_many_loses_one_byte_of_the_middle() {
        let [stdout, _] = run(10, &[(Stream::Stdout, b"0123456789a")]);
        assert_eq!(stdout, (b"01234".to_vec(), 1, b"6789a".to_vec()));
    }

    /// Output of some length whose bytes say where they are, and which of the two streams each chunk is of.
    fn mixed(all: &[u8], chunk: usize) -> Vec<(Stream, &[u8])> {
        let of = |number: usize| match number % 3 {
            0 => Stream::Stderr,
            _ => Stream::Stdout,
        };
        let chunks = all.chunks(chunk).enumerate();
        chunks.map(|(number, bytes)| (of(number), bytes)).collect()
    }

    fn letters(length: u32) -> Vec<u8> {
        (0..length).map(|i| b'a' + (i % 26) as u8).collect()
    }

    #[test]
    fn head_and_tail_survive_and_every_byte_is_counted() {
        let all = letters(4_000_000);
        for (limit, length, chunk) in [
            (1000, 100_000, 777),
            (1000, 100_000, 60_000),
            (300_000, 310_000, 777),
            (300_000, 480_000, 20_000),
            (300_000, 4_000_000, 65_536),
            (1_000_000, 4_000_000, 10_000),
        ] {
            let chunks = mixed(&all[..length], chunk);
            let [stdout, stderr] = run(limit, &chunks);
            assert_eq!(
                stdout.0.len() + stdout.2.len() + stderr.0.len() + stderr.2.len(),
                usize::try_from(limit).unwrap(),
                "{limit} of {length} in {chunk}"
            );
            for (stream, (head, lost, tail)) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)]
            {
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
    }

    #[test]
    fn a_character_is_not_split_at_either_side_of_the_cut_nor_between_pieces() {
        let text = "aé€😀".repeat(50);
        for limit in 1..80 {
            for piece in 1..9 {
                let chunks: Vec<(Stream, &[u8])> = text
                    .as_bytes()
                    .chunks(piece)
                    .map(|c| (Stream::Stdout, c))
                    .collect();
                let [(head, lost, tail), _] = run(limit, &chunks);
                for part in [&head, &tail] {
                    assert!(
                        std::str::from_utf8(part).is_ok(),
                        "{part:?} of {limit} in pieces of {piece}"
                    );
                }
                assert_eq!(
                    head.len() as u64 + lost + tail.len() as u64,
                    text.len() as u64
                );
                assert!(head.len() + tail.len() <= usize::try_from(limit).unwrap_or(0));
            }
        }
        let mut writer = Writer::new(1000);
        text.as_bytes()
            .chunks(7)
            .for_each(|c| writer.push(Stream::Stdout, c));
        for piece in all(&mut writer.reader()) {
            assert!(String::from_utf8(piece.bytes).is_ok());
        }
    }

    #[test]
    fn binary_output_that_fits_is_exact() {
        let all: Vec<u8> = (0..=255).cycle().take(4096).collect();
        let chunks: Vec<(Stream, &[u8])> = all.chunks(13).map(|c| (Stream::Stderr, c)).collect();
        let [_, (head, lost, _)] = run(4096, &chunks);
        assert_eq!((head, lost), (all, 0));
    }

    #[test]
    fn what_is_read_while_it_is_written_is_all_of_it_as_long_as_it_fits_and_in_order() {
        let all_of_it = letters(900_000);
        let mut writer = Writer::new(1_000_000);
        let (mut reader, mut read) = (writer.reader(), [Vec::new(), Vec::new()]);
        let chunks = mixed(&all_of_it, 3_333);
        for (stream, bytes) in &chunks {
            writer.push(*stream, bytes);
            assert!(!reader.skip_what_is_gone().unwrap());
            for piece in all(&mut reader) {
                assert_eq!(piece.at, read[index(piece.stream)].len() as u64);
                read[index(piece.stream)].extend(piece.bytes);
            }
        }
        let written = |of: Stream| -> Vec<u8> {
            let of = chunks.iter().filter(|(stream, _)| *stream == of);
            of.flat_map(|(_, bytes)| bytes.to_vec()).collect()
        };
        assert_eq!(read, [written(Stream::Stdout), written(Stream::Stderr)]);
    }

    #[test]
    fn who_reads_too_slowly_goes_on_with_what_is_kept_and_knows_what_is_missing() {
        let all_of_it = letters(3_000_000);
        let mut writer = Writer::new(200_000);
        let mut reader = writer.reader();
        let (mut at, mut gaps) = (0, 0);
        for (number, bytes) in all_of_it.chunks(10_000).enumerate() {
            writer.push(Stream::Stdout, bytes);
            // The file that was read last is gone by then.
            if number % 90 > 0 {
                continue;
            }
            reader.skip_what_is_gone().unwrap();
            for piece in all(&mut reader) {
                assert!(piece.at >= at, "never back");
                gaps += u32::from(piece.at > at);
                let from = usize::try_from(piece.at).unwrap();
                assert_eq!(piece.bytes, all_of_it[from..from + piece.bytes.len()]);
                at = piece.at + piece.bytes.len() as u64;
            }
            assert_eq!(at, (number as u64 + 1) * 10_000, "to the newest byte");
        }
        assert_eq!(gaps, 3);
        assert!(reader.is_beyond_limit());
    }

    #[test]
    fn a_spool_takes_a_bounded_amount_of_disk_whatever_is_written() {
        for (limit, chunk) in [
            (0, 65_536),
            (1000, 65_536),
            (65_536, 100),
            (4 << 20, 65_536),
        ] {
            let mut writer = Writer::new(limit);
            let (bytes, mut most) = (vec![b'x'; chunk], 0);
            for number in 0..1000 {
                writer.push(Stream::Stdout, &bytes);
                writer.push(Stream::Stderr, b"y");
                if number % 10 == 0 {
                    most = most.max(writer.on_disk());
                    assert_eq!(writer.on_disk(), writer.record.size());
                }
            }
            assert!(most <= most_on_disk(limit), "{most} for {limit}");
        }
    }
}
