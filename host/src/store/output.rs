//! What scripts wrote: pieces in the order in which they were read on the machine.

use sluice_database::rusqlite::{Connection, params};
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::operation::{Chunk, OutputStream};

use super::StoreError;
use super::row::{all, bytes, change, only, signed, unsigned};

/// What became of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Bytes of it that are new are stored.
    Stored,
    /// All of it was there already: the machine sent it again.
    Known,
    /// There is a gap before it, or the operation has more output than it may: it is dropped.
    Dropped,
}

/// Stores a piece of an operation that has not ended. `limit` is for both streams together.
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
    let stored = lengths(conn, operation)?;
    let have = stored.of(chunk.stream);
    let Some(skip) = have.checked_sub(chunk.offset) else {
        return Ok(Kept::Dropped);
    };
    let Some(new) = usize::try_from(skip)
        .ok()
        .and_then(|skip| chunk.bytes.get(skip..))
        .filter(|new| !new.is_empty())
    else {
        return Ok(Kept::Known);
    };
    if stored.stdout + stored.stderr + new.len() as u64 > limit {
        return Ok(Kept::Dropped);
    }
    change(
        conn,
        "INSERT INTO output (operation, stream, start, bytes) VALUES (?, ?, ?, ?)",
        params![
            operation.to_string(),
            number(chunk.stream),
            signed(have),
            new
        ],
    )?;
    Ok(Kept::Stored)
}

/// How many bytes of each stream are stored.
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
}

/// How many bytes of each stream are stored.
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
        |row| {
            Ok(Lengths {
                stdout: unsigned(row, "stdout")?,
                stderr: unsigned(row, "stderr")?,
            })
        },
    )
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
            let stream = match row.get::<_, i64>("stream")? {
                1 => OutputStream::Stdout,
                2 => OutputStream::Stderr,
                other => return Err(StoreError::Corrupt(format!("stream {other}"))),
            };
            Ok(Piece {
                id: row.get("id")?,
                chunk: Chunk {
                    stream,
                    offset: unsigned(row, "start")?,
                    bytes: row.get("bytes")?,
                },
            })
        },
    )
}

/// Bytes of one stream, from `offset`, at most `length` of them.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn range(
    conn: &Connection,
    operation: OperationId,
    stream: OutputStream,
    offset: u64,
    length: u64,
) -> Result<Vec<u8>, StoreError> {
    let mut found = Vec::new();
    all(
        conn,
        "SELECT start, bytes FROM output WHERE operation = ?1 AND stream = ?2
             AND start < ?4 AND start + length(bytes) > ?3 ORDER BY start",
        params![
            operation.to_string(),
            number(stream),
            signed(offset),
            signed(offset.saturating_add(length)),
        ],
        |row| {
            let skip = offset.saturating_sub(unsigned(row, "start")?);
            let skip = usize::try_from(skip).unwrap_or(usize::MAX);
            found.extend_from_slice(bytes(row, "bytes")?.get(skip..).unwrap_or_default());
            Ok(())
        },
    )?;
    found.truncate(usize::try_from(length).unwrap_or(usize::MAX));
    Ok(found)
}

const fn number(stream: OutputStream) -> i64 {
    match stream {
        OutputStream::Stdout => 1,
        OutputStream::Stderr => 2,
    }
}
