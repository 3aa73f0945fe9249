//! Reads what one operation wrote, piece by piece.

use sha2::{Digest as _, Sha256};
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::operation::OutputStream;

use super::normalize::{Rules, Stream};
use crate::store::{Connection, StoreError, output};

/// How much is read at once, in bytes.
const PIECE: u64 = 256 << 10;

/// The digest of a stream as it is compared.
pub(super) fn digest(
    conn: &Connection,
    operation: OperationId,
    stream: OutputStream,
    rules: &Rules,
) -> Result<[u8; 32], StoreError> {
    let mut digest = Sha256::new();
    let mut normalized = Stream::new(rules, |bytes: &[u8]| digest.update(bytes));
    each(conn, operation, stream, u64::MAX, |part| match part {
        Part::Bytes(bytes) => normalized.push(bytes),
        Part::Gap => normalized.gap(),
    })?;
    normalized.flush();
    Ok(digest.finalize().into())
}

/// The beginning of a stream: as it is, and as it is compared.
#[derive(Debug, Default)]
pub(super) struct Beginning {
    pub(super) plain: String,
    pub(super) normalized: String,
    pub(super) truncated: bool,
}

impl Beginning {
    /// At most `length` bytes of it.
    pub(super) fn read(
        conn: &Connection,
        operation: OperationId,
        stream: OutputStream,
        rules: &Rules,
        length: u64,
    ) -> Result<Self, StoreError> {
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        let mut normalized = Stream::new(rules, |bytes: &[u8]| out.extend_from_slice(bytes));
        let truncated = each(conn, operation, stream, length, |part| match part {
            Part::Bytes(bytes) => {
                plain.extend_from_slice(bytes);
                normalized.push(bytes);
            }
            Part::Gap => {
                plain.extend_from_slice(b"<lost>");
                normalized.gap();
            }
        })?;
        normalized.flush();
        Ok(Self {
            plain: String::from_utf8_lossy(&plain).into_owned(),
            normalized: String::from_utf8_lossy(&out).into_owned(),
            truncated,
        })
    }
}

enum Part<'b> {
    Bytes(&'b [u8]),
    Gap,
}

/// Gives the stored bytes of a stream, and where bytes are lost between them, up to `length` bytes. Says whether there is
/// more.
fn each(
    conn: &Connection,
    operation: OperationId,
    stream: OutputStream,
    length: u64,
    mut take: impl FnMut(Part<'_>),
) -> Result<bool, StoreError> {
    let mut read = 0;
    loop {
        let piece = PIECE.min(length - read);
        // One byte is asked for in the end, to know whether there is more.
        let found = output::range(conn, operation, stream, read, piece.max(1), None)?;
        if found.bytes.is_empty() || piece == 0 {
            return Ok(!found.bytes.is_empty());
        }
        let mut before = 0;
        for (at, _) in &found.lost {
            let at = usize::try_from(*at)
                .unwrap_or(usize::MAX)
                .min(found.bytes.len());
            take(Part::Bytes(&found.bytes[before..at]));
            take(Part::Gap);
            before = at;
        }
        take(Part::Bytes(&found.bytes[before..]));
        read += found.bytes.len() as u64;
    }
}
