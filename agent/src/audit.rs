//! The machine's own record: a hash chain in the ledger, written in the same transaction as what it records.
//!
//! The hash of an entry is the SHA-256 of its JSON without `hash`, keys sorted, no white space; `prev` is the hash of the
//! entry before it, 64 zeros for the first.

use serde::{Deserialize, Serialize};
use sluice_database::rusqlite::{Connection, OptionalExtension as _, params};
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::short_line;
use sluice_protocol::ids::OperationId;
use sluice_protocol::report::Report;

use crate::ledger::LedgerError;

/// Something to put on the record.
#[derive(Debug, Clone)]
pub struct Event {
    name: &'static str,
    operation: Option<OperationId>,
    details: serde_json::Map<String, serde_json::Value>,
}

/// How much is kept of what a peer said, in characters.
const LONGEST_QUOTE: usize = 300;

/// What a peer said, as it may stand on the record and in a report: one line, and not too long.
#[must_use]
pub fn quoted(text: &str) -> String {
    short_line(text, LONGEST_QUOTE)
}

/// One entry of the chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Counted from 1.
    pub seq: u64,
    /// RFC 3339.
    pub time: String,
    /// What happened.
    pub event: String,
    /// To which operation.
    pub operation: Option<String>,
    /// More about it.
    pub details: serde_json::Value,
    /// The hash of the entry before this one.
    pub prev: String,
    /// The hash of this one.
    pub hash: String,
}

/// Where a chain breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the audit chain is broken at entry {seq}: {reason}")]
pub struct Broken {
    /// The first entry that does not fit.
    pub seq: u64,
    /// How.
    pub reason: String,
}

impl Event {
    /// An event.
    #[must_use]
    pub fn new(name: &'static str, operation: Option<OperationId>) -> Self {
        Self {
            name,
            operation,
            details: serde_json::Map::new(),
        }
    }

    /// Adds a detail.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.details
            .insert(key.to_owned(), value.to_string().into());
        self
    }

    /// How an operation ended.
    #[must_use]
    pub fn of_ending(operation: OperationId, report: &Report) -> Self {
        Self::new(report.ending.audit_event(), Some(operation))
            .with("state", report.ending.state().as_str())
            .with("message", report.ending.message())
            .with("exit_code", report.exit_code())
    }
}

/// Appends to the chain.
pub(crate) fn append(connection: &Connection, event: &Event, now: u64) -> Result<(), LedgerError> {
    let (seq, prev) = head(connection)?;
    let mut entry = Entry {
        seq: seq + 1,
        time: timestamp(now),
        event: event.name.to_owned(),
        operation: event.operation.map(|operation| operation.to_string()),
        details: event.details.clone().into(),
        prev: prev.to_string(),
        hash: String::new(),
    };
    entry.hash = entry.compute().to_string();
    connection
        .prepare_cached("INSERT INTO audit (seq, time, event, operation, details, prev, hash) VALUES (?, ?, ?, ?, ?, ?, ?)")?
        .execute(params![
            i64::try_from(entry.seq).unwrap_or(i64::MAX),
            entry.time,
            entry.event,
            entry.operation,
            entry.details.to_string(),
            entry.prev,
            entry.hash,
        ])?;
    Ok(())
}

/// The last entry's number and hash.
pub(crate) fn head(connection: &Connection) -> Result<(u64, Digest), LedgerError> {
    let last: Option<(i64, String)> = connection
        .prepare_cached("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((seq, hash)) = last else {
        return Ok((0, Digest::from_bytes([0; 32])));
    };
    let hash = hash
        .parse()
        .map_err(|_| LedgerError::Audit(format!("entry {seq} has no hash")))?;
    Ok((u64::try_from(seq).unwrap_or_default(), hash))
}

/// The hash of the entry with this number, where there is one. Entry 0 is the one before the first.
pub(crate) fn hash_of(connection: &Connection, seq: u64) -> Result<Option<Digest>, LedgerError> {
    if seq == 0 {
        return Ok(Some(Digest::from_bytes([0; 32])));
    }
    let hash: Option<String> = connection
        .prepare_cached("SELECT hash FROM audit WHERE seq = ?")?
        .query_row([i64::try_from(seq).unwrap_or(i64::MAX)], |row| row.get(0))
        .optional()?;
    // One that cannot be read is not what the host acknowledged.
    Ok(hash.and_then(|hash| hash.parse().ok()))
}

pub(crate) fn read(connection: &Connection) -> Result<Vec<Entry>, LedgerError> {
    let mut statement = connection.prepare(
        "SELECT seq, time, event, operation, details, prev, hash FROM audit ORDER BY seq",
    )?;
    let mut rows = statement.query([])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let seq: i64 = row.get("seq")?;
        let details: String = row.get("details")?;
        entries.push(Entry {
            seq: u64::try_from(seq).unwrap_or_default(),
            time: row.get("time")?,
            event: row.get("event")?,
            operation: row.get("operation")?,
            details: serde_json::from_str(&details)
                .map_err(|_| LedgerError::Audit(format!("entry {seq} has no details")))?,
            prev: row.get("prev")?,
            hash: row.get("hash")?,
        });
    }
    Ok(entries)
}

/// Checks a chain from its first entry on and returns its head.
///
/// # Errors
///
/// The first entry that does not fit.
pub fn verify(entries: &[Entry]) -> Result<Digest, Broken> {
    let mut prev = Digest::from_bytes([0; 32]);
    for (expected, entry) in (1..).zip(entries) {
        let broken = |reason: &str| {
            Err(Broken {
                seq: entry.seq,
                reason: reason.to_owned(),
            })
        };
        if entry.seq != expected || entry.prev != prev.to_string() {
            return broken("an entry before it was removed, added or changed");
        }
        let hash = entry.compute();
        if entry.hash != hash.to_string() {
            return broken("it was changed");
        }
        prev = hash;
    }
    Ok(prev)
}

impl Entry {
    fn compute(&self) -> Digest {
        let mut value = serde_json::json!({
            "seq": self.seq, "time": self.time, "event": self.event, "operation": self.operation,
            "details": self.details, "prev": self.prev,
        });
        value.sort_all_objects();
        Digest::of(value.to_string().as_bytes())
    }
}

pub(crate) fn timestamp(millis: u64) -> String {
    let millis = i64::try_from(millis).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(millis)
        .map_or_else(|_| millis.to_string(), |time| time.to_string())
}
