//! What scripts wrote: pieces in the order in which they were read on the machine.
//!
//! A piece says where it belongs in its stream, counted from the beginning of what the script wrote. What is between two
//! pieces is lost. Of an operation that writes more than its limit the head stays, and the rest makes room for what is
//! newer, whatever a machine sends: what is kept of one operation is bounded by its limit and some pieces.

use std::ops::Range;

use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::ids::{MachineId, OperationId, TenantId};
use sluice_protocol::message::control::StoredOutput;
use sluice_protocol::message::operation::{Chunk, OutputStream};

use super::StoreError;
use super::row::{all, bytes, change, first, only, parsed, signed, unsigned};

/// A machine cuts its head before a UTF-8 character that would be split, and keeps as many bytes more of the tail.
const LONGEST_CHARACTER: u64 = 4;

/// What became of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Bytes of it that are new are stored.
    Stored,
    /// The same; the operation is over its limit, and older pieces make room.
    MadeRoom,
    /// All of it was there already: the machine sent it again.
    Known,
    /// It is for a place that no stream has.
    Dropped,
}

/// Stores a piece of an operation that has not ended. `limit` is for both streams together: where there is more, older
/// pieces behind the head are removed.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn append(
    conn: &Connection,
    operation: OperationId,
    chunk: &Chunk,
    limit: u64,
) -> Result<Kept, StoreError> {
    let ends = lengths(conn, operation)?;
    let have = ends.of(chunk.stream);
    let end = chunk.offset.checked_add(chunk.bytes.len() as u64);
    if end.is_none_or(|end| end > i64::MAX.unsigned_abs()) {
        return Ok(Kept::Dropped);
    }
    let known = usize::try_from(have.saturating_sub(chunk.offset)).unwrap_or(usize::MAX);
    let Some(new) = chunk.bytes.get(known..).filter(|new| !new.is_empty()) else {
        return Ok(Kept::Known);
    };
    // No less than what is stored: lost bytes count too.
    let is_within = (ends.stdout + ends.stderr).saturating_add(new.len() as u64) <= limit;
    let mut tail = if is_within {
        None
    } else {
        Some(Tail::of(conn, operation, limit)?)
    };
    change(
        conn,
        "INSERT INTO output (operation, stream, start, bytes) VALUES (?, ?, ?, ?)",
        params![
            operation.to_string(),
            number(chunk.stream),
            signed(chunk.offset.max(have)),
            new
        ],
    )?;
    let Some(tail) = &mut tail else {
        return Ok(Kept::Stored);
    };
    tail.bytes += new.len() as u64;
    tail.make_room(conn, operation, limit)?;
    Ok(Kept::MadeRoom)
}

/// The pieces behind the head of an operation that wrote more than its limit.
#[derive(Debug, Clone, Copy)]
struct Tail {
    /// Where those of each stream begin.
    starts: Lengths,
    /// How many bytes all of them have.
    bytes: u64,
}

impl Tail {
    /// As it is stored; or, for an operation that has just come to its limit, what is behind the first half of that.
    fn of(conn: &Connection, operation: OperationId, limit: u64) -> Result<Self, StoreError> {
        let known = first(
            conn,
            "SELECT stdout, stderr, bytes FROM output_tails WHERE operation = ?",
            params![operation.to_string()],
            |row| {
                Ok(Self {
                    starts: read_lengths(row)?,
                    bytes: unsigned(row, "bytes")?,
                })
            },
        )?;
        if let Some(known) = known {
            return Ok(known);
        }
        let mut tail = Self {
            starts: Lengths::default(),
            bytes: 0,
        };
        let mut head = 0;
        // Once for each such operation. Its pieces are walked through in their order, without their bytes.
        all(
            conn,
            "SELECT stream, start, length(bytes) AS length FROM output WHERE operation = ? ORDER BY id",
            params![operation.to_string()],
            |row| {
                let length = unsigned(row, "length")?;
                if head < limit / 2 {
                    head += length;
                    *tail.starts.of_mut(stream(row)?) = unsigned(row, "start")? + length;
                } else {
                    tail.bytes += length;
                }
                Ok(())
            },
        )?;
        Ok(tail)
    }

    /// Removes the oldest pieces as long as those that are left have all that a machine with this limit keeps.
    fn make_room(
        &mut self,
        conn: &Connection,
        operation: OperationId,
        limit: u64,
    ) -> Result<(), StoreError> {
        let enough = limit - limit / 2 + LONGEST_CHARACTER;
        while let Some(oldest) = self.oldest(conn, operation)? {
            if self.bytes < enough + oldest.length {
                break;
            }
            change(conn, "DELETE FROM output WHERE id = ?", params![oldest.id])?;
            *self.starts.of_mut(oldest.stream) = oldest.start + oldest.length;
            self.bytes -= oldest.length;
        }
        change(
            conn,
            "INSERT OR REPLACE INTO output_tails (operation, stdout, stderr, bytes) VALUES (?, ?, ?, ?)",
            params![
                operation.to_string(),
                signed(self.starts.stdout),
                signed(self.starts.stderr),
                signed(self.bytes)
            ],
        )?;
        Ok(())
    }

    /// The piece of it that was read first.
    fn oldest(
        &self,
        conn: &Connection,
        operation: OperationId,
    ) -> Result<Option<Extent>, StoreError> {
        let mut oldest = None;
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let first = first(
                conn,
                "SELECT id, stream, start, length(bytes) AS length FROM output
                 WHERE operation = ? AND stream = ? AND start >= ? ORDER BY start LIMIT 1",
                params![
                    operation.to_string(),
                    number(stream),
                    signed(self.starts.of(stream))
                ],
                Extent::read,
            )?;
            oldest = oldest.into_iter().chain(first).min_by_key(|piece| piece.id);
        }
        Ok(oldest)
    }
}

/// Where a stored piece is, without its bytes.
#[derive(Debug, Clone, Copy)]
struct Extent {
    id: i64,
    stream: OutputStream,
    start: u64,
    length: u64,
}

impl Extent {
    fn read(row: &Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.get("id")?,
            stream: stream(row)?,
            start: unsigned(row, "start")?,
            length: unsigned(row, "length")?,
        })
    }
}

/// Removes what is stored of a part of a stream: the machine did not keep it.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn cut(
    conn: &Connection,
    operation: OperationId,
    stream: OutputStream,
    gap: Range<u64>,
) -> Result<(), StoreError> {
    let touched = all(
        conn,
        "SELECT id, stream, start, length(bytes) AS length FROM output
         WHERE operation = ? AND stream = ? AND start < ? AND start + length(bytes) > ?",
        params![
            operation.to_string(),
            number(stream),
            signed(gap.end),
            signed(gap.start)
        ],
        Extent::read,
    )?;
    for piece in touched {
        let head = gap.start.saturating_sub(piece.start);
        let tail = (piece.start + piece.length).saturating_sub(gap.end);
        // A piece that is cut on both sides keeps what is before the gap: machines send none that reaches over it.
        let (skip, length) = if head > 0 {
            (0, head)
        } else {
            (piece.length - tail, tail)
        };
        if length == 0 {
            change(conn, "DELETE FROM output WHERE id = ?", params![piece.id])?;
        } else {
            change(
                conn,
                "UPDATE output SET start = start + ?2, bytes = substr(bytes, ?2 + 1, ?3) WHERE id = ?1",
                params![piece.id, signed(skip), signed(length)],
            )?;
        }
    }
    Ok(())
}

/// How far the output of a machine's operations is stored that have not ended, at most of `limit` operations.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn stored_of_machine(
    conn: &Connection,
    tenant: TenantId,
    machine: MachineId,
    limit: usize,
) -> Result<Vec<StoredOutput>, StoreError> {
    let running: Vec<OperationId> = all(
        conn,
        "SELECT id FROM operations
         WHERE machine = ? AND ended = 0 AND tenant = ? AND started IS NOT NULL ORDER BY id LIMIT ?",
        params![
            machine.to_string(),
            tenant.to_string(),
            u32::try_from(limit).unwrap_or(u32::MAX)
        ],
        |row| parsed(row, "id"),
    )?;
    let mut stored = Vec::new();
    for operation in running {
        let Lengths { stdout, stderr } = lengths(conn, operation)?;
        if stdout + stderr > 0 {
            stored.push(StoredOutput {
                operation,
                stdout,
                stderr,
            });
        }
    }
    Ok(stored)
}

/// How far each stream is stored, counted from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the words say it")]
pub struct Lengths {
    pub stdout: u64,
    pub stderr: u64,
}

impl Lengths {
    /// Of one stream.
    #[must_use]
    pub const fn of(self, stream: OutputStream) -> u64 {
        match stream {
            OutputStream::Stdout => self.stdout,
            OutputStream::Stderr => self.stderr,
        }
    }

    const fn of_mut(&mut self, stream: OutputStream) -> &mut u64 {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }
}

/// How far each stream is stored, counted from its beginning.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn lengths(conn: &Connection, operation: OperationId) -> Result<Lengths, StoreError> {
    only(
        conn,
        "SELECT coalesce((SELECT start + length(bytes) FROM output
             WHERE operation = ?1 AND stream = 1 ORDER BY start DESC LIMIT 1), 0) AS stdout,
         coalesce((SELECT start + length(bytes) FROM output
             WHERE operation = ?1 AND stream = 2 ORDER BY start DESC LIMIT 1), 0) AS stderr",
        params![operation.to_string()],
        read_lengths,
    )
}

fn read_lengths(row: &Row<'_>) -> Result<Lengths, StoreError> {
    Ok(Lengths {
        stdout: unsigned(row, "stdout")?,
        stderr: unsigned(row, "stderr")?,
    })
}

/// A stored piece, and its place in the order of all pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Grows from piece to piece.
    pub id: i64,
    /// The piece.
    pub chunk: Chunk,
}

/// The pieces after the one with the id `after`, in order, at most `limit` of them.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn pieces(
    conn: &Connection,
    operation: OperationId,
    after: i64,
    limit: u32,
) -> Result<Vec<Piece>, StoreError> {
    all(
        conn,
        "SELECT id, stream, start, bytes FROM output WHERE operation = ? AND id > ? ORDER BY id LIMIT ?",
        params![operation.to_string(), after, limit],
        |row| {
            Ok(Piece {
                id: row.get("id")?,
                chunk: Chunk {
                    stream: stream(row)?,
                    offset: unsigned(row, "start")?,
                    bytes: row.get("bytes")?,
                },
            })
        },
    )
}

/// Stored bytes of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stored {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What is missing: how many of these bytes stand before it, and how many are lost there.
    pub lost: Vec<(u64, u64)>,
}

/// The most gaps that one look at a stream tells of; it ends before the next. A machine leaves one.
const MOST_GAPS: usize = 64;

/// Stored bytes of one stream, without the first `skip`, at most `length` of them. `written` is how many bytes the script
/// wrote, where that is known.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn range(
    conn: &Connection,
    operation: OperationId,
    stream: OutputStream,
    skip: u64,
    length: u64,
    written: Option<u64>,
) -> Result<Stored, StoreError> {
    let mut found = Stored::default();
    // How many stored bytes came before, and where in the stream the last one was.
    let (mut before, mut position) = (0_u64, 0);
    let mut end = skip.saturating_add(length);
    all(
        conn,
        "SELECT start, length(bytes) AS length, bytes FROM output WHERE operation = ? AND stream = ? ORDER BY start",
        params![operation.to_string(), number(stream)],
        |row| {
            let (start, size) = (unsigned(row, "start")?, unsigned(row, "length")?);
            // A gap belongs to the bytes behind it.
            if start > position && (skip..end).contains(&before) {
                if found.lost.len() < MOST_GAPS {
                    found.lost.push((before - skip, start - position));
                } else {
                    end = before;
                }
            }
            if before < end && before + size > skip {
                let piece = bytes(row, "bytes")?;
                let from = skip.saturating_sub(before);
                let until = (end - before).min(size);
                let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
                let piece = piece.get(within(from)..within(until));
                found.bytes.extend_from_slice(piece.unwrap_or_default());
            }
            before += size;
            position = start + size;
            Ok(())
        },
    )?;
    let missing = written.unwrap_or(0).saturating_sub(position);
    if missing > 0 && found.bytes.is_empty() {
        found.lost.push((0, missing));
    }
    Ok(found)
}

fn stream(row: &Row<'_>) -> Result<OutputStream, StoreError> {
    match row.get::<_, i64>("stream")? {
        1 => Ok(OutputStream::Stdout),
        2 => Ok(OutputStream::Stderr),
        other => Err(StoreError::Corrupt(format!("stream {other}"))),
    }
}

const fn number(stream: OutputStream) -> i64 {
    match stream {
        OutputStream::Stdout => 1,
        OutputStream::Stderr => 2,
    }
}

#[cfg(test)]
mod tests {
    use OutputStream::{Stderr, Stdout};

    use super::*;
    use crate::testing::TestHost;

    /// A host with an operation that may have `limit` bytes of output.
    struct Fixture {
        test: TestHost,
        operation: OperationId,
        limit: u64,
    }

    impl Fixture {
        async fn new(limit: u64) -> Self {
            let test = TestHost::new().await;
            test.machine("web-1").await;
            let operation = test.operation(test.submit("web-1", |_| ()).await).id;
            Self {
                test,
                operation,
                limit,
            }
        }

        async fn append(&self, stream: OutputStream, offset: u64, bytes: impl AsRef<[u8]>) -> Kept {
            let (operation, limit) = (self.operation, self.limit);
            let bytes = bytes.as_ref().to_vec();
            let chunk = Chunk {
                stream,
                offset,
                bytes,
            };
            let store = &self.test.host.store;
            store
                .write(move |conn| append(conn, operation, &chunk, limit))
                .await
                .expect("writes")
        }

        async fn cut(&self, stream: OutputStream, gap: Range<u64>) {
            let operation = self.operation;
            let store = &self.test.host.store;
            store
                .write(move |conn| cut(conn, operation, stream, gap))
                .await
                .expect("writes");
        }

        /// The pieces of a stream: where they begin, and their bytes as text.
        fn pieces(&self, of: OutputStream) -> Vec<(u64, String)> {
            let pieces = self
                .test
                .host
                .store
                .read(|conn| pieces(conn, self.operation, 0, u32::MAX))
                .expect("reads");
            assert!(pieces.is_sorted_by_key(|piece| piece.id));
            pieces
                .into_iter()
                .filter(|piece| piece.chunk.stream == of)
                .map(|Piece { chunk, .. }| {
                    let text = String::from_utf8(chunk.bytes).expect("is text");
                    (chunk.offset, text)
                })
                .collect()
        }

        fn range(&self, skip: u64, length: u64, written: Option<u64>) -> (String, Vec<(u64, u64)>) {
            let found = self
                .test
                .host
                .store
                .read(|conn| range(conn, self.operation, Stdout, skip, length, written))
                .expect("reads");
            let text = String::from_utf8(found.bytes).expect("is text");
            (text, found.lost)
        }
    }

    fn piece(at: u64, text: &str) -> (u64, String) {
        (at, text.to_owned())
    }

    #[tokio::test]
    async fn a_piece_behind_a_gap_keeps_its_place_and_what_came_before_comes_no_more() {
        let fixture = Fixture::new(100).await;
        assert_eq!(fixture.append(Stdout, 0, "abc").await, Kept::Stored);
        assert_eq!(fixture.append(Stdout, 9, "jkl").await, Kept::Stored);
        assert_eq!(fixture.append(Stdout, 3, "def").await, Kept::Known);
        assert_eq!(fixture.append(Stdout, 10, "klm").await, Kept::Stored);
        assert_eq!(
            fixture.append(Stdout, u64::MAX - 1, "zz").await,
            Kept::Dropped
        );
        assert_eq!(
            fixture.append(Stdout, u64::MAX / 2, "zz").await,
            Kept::Dropped
        );
        let expected = [piece(0, "abc"), piece(9, "jkl"), piece(12, "m")];
        assert_eq!(fixture.pieces(Stdout), expected);
    }

    #[tokio::test]
    async fn over_its_limit_the_head_stays_and_the_oldest_of_the_rest_makes_room() {
        let fixture = Fixture::new(100).await;
        let digits = "0123456789";
        for number in 0..30 {
            let kept = fixture.append(Stdout, number * 10, digits).await;
            let expected = if number < 10 {
                Kept::Stored
            } else {
                Kept::MadeRoom
            };
            assert_eq!(kept, expected, "{number}");
            let stored = fixture.pieces(Stdout);
            // The head, and of the rest as much as a machine keeps, and at most a piece more.
            assert!(stored.len() <= 5 + 6, "{stored:?}");
            assert!(
                stored
                    .iter()
                    .take(5)
                    .map(|piece| piece.0)
                    .eq((0..5.min(number + 1)).map(|n| n * 10))
            );
            assert_eq!(stored.last(), Some(&piece(number * 10, digits)));
        }
        let starts: Vec<u64> = fixture.pieces(Stdout).iter().map(|piece| piece.0).collect();
        assert_eq!(starts, [0, 10, 20, 30, 40, 240, 250, 260, 270, 280, 290]);
    }

    #[tokio::test]
    async fn the_streams_make_room_for_each_other_in_the_order_in_which_they_came() {
        let fixture = Fixture::new(40).await;
        fixture.append(Stdout, 0, "0123456789").await;
        fixture.append(Stderr, 0, "0123456789").await;
        for number in 0..6 {
            fixture.append(Stderr, 10 + number * 10, "0123456789").await;
            fixture.append(Stdout, 10 + number * 10, "0123456789").await;
        }
        let starts = |stream| -> Vec<u64> {
            let pieces = fixture.pieces(stream);
            pieces.iter().map(|piece| piece.0).collect()
        };
        assert_eq!(starts(Stdout), [0, 50, 60]);
        assert_eq!(starts(Stderr), [0, 60]);
    }

    #[tokio::test]
    async fn a_machine_that_leaves_gaps_without_end_stores_no_more_than_others() {
        let fixture = Fixture::new(1000).await;
        for number in 0..300_u64 {
            fixture
                .append(Stdout, number * (1 << 40), "x".repeat(100))
                .await;
        }
        assert!(fixture.pieces(Stdout).len() <= 12);
    }

    #[tokio::test]
    async fn what_a_machine_did_not_keep_is_cut_out_to_the_byte() {
        let fixture = Fixture::new(100).await;
        fixture.append(Stdout, 0, "0123456789").await;
        fixture.append(Stderr, 0, "error").await;
        fixture.append(Stdout, 10, "abcdefghij").await;
        fixture.append(Stdout, 20, "ABCDEFGHIJ").await;
        fixture.cut(Stdout, 7..22).await;
        assert_eq!(
            fixture.pieces(Stdout),
            [piece(0, "0123456"), piece(22, "CDEFGHIJ")]
        );
        fixture.cut(Stdout, 3..5).await;
        fixture.cut(Stdout, 22..u64::MAX).await;
        assert_eq!(fixture.pieces(Stdout), [piece(0, "012")]);
        assert_eq!(fixture.pieces(Stderr), [piece(0, "error")]);
    }

    #[tokio::test]
    async fn a_part_of_a_stream_says_where_bytes_are_lost_each_gap_once() {
        let fixture = Fixture::new(100).await;
        assert_eq!(fixture.range(0, 9, None), (String::new(), vec![]));
        fixture.append(Stdout, 2, "abcd").await;
        fixture.append(Stdout, 10, "efgh").await;
        assert_eq!(
            fixture.range(0, 100, None),
            ("abcdefgh".to_owned(), vec![(0, 2), (4, 4)])
        );
        let mut pages = Vec::new();
        for skip in [0, 2, 4, 6, 8] {
            pages.push(fixture.range(skip, 2, Some(20)));
        }
        let page = |text: &str, lost: &[(u64, u64)]| (text.to_owned(), lost.to_vec());
        assert_eq!(
            pages,
            [
                page("ab", &[(0, 2)]),
                page("cd", &[]),
                page("ef", &[(0, 4)]),
                page("gh", &[]),
                page("", &[(0, 6)])
            ]
        );
    }
}
