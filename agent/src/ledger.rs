//! What must survive the agent: which operations it took, whether they may have started, and how they ended.
//!
//! ```text
//! (nothing) -> accepted -> started -> finished -> acknowledged
//!                  \____________________^
//! ```
//!
//! Every step is on disk (SQLite, WAL, synchronous=FULL) before what it permits happens: `accepted` before the host is
//! told, `started` before a process is, `finished` before the report goes out. An id that is in the ledger never starts
//! again, whatever arrives.

use std::path::Path;

use sluice_gate_types::manifest::Version;
use sluice_protocol::codec;
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::operation::Operation;
use sluice_protocol::report::Report;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Row as _, Sqlite, Transaction};

use crate::audit;

/// The agent's ledger.
#[derive(Debug, Clone)]
pub struct Ledger(SqlitePool);

/// What the ledger says about an operation that arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is new, and now in the ledger.
    New,
    /// It has been here; it does not start again.
    Known,
}

/// An operation that the host has not acknowledged.
#[derive(Debug, Clone)]
pub struct Open {
    /// What was asked.
    pub operation: Operation,
    /// Whether a process may have been started.
    pub started: bool,
    /// How it ended, if it has.
    pub report: Option<Report>,
}

impl Ledger {
    /// Opens the file, making it where it does not exist.
    ///
    /// # Errors
    ///
    /// Where it cannot be opened, or is damaged.
    pub async fn open(path: &Path) -> Result<Self, LedgerError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true);
        // One connection: the ledger has one writer, and readers wait their turn.
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await?;
        sqlx::raw_sql(SCHEMA).execute(&pool).await?;
        Ok(Self(pool))
    }

    /// Takes an operation in. On disk when this returns.
    ///
    /// # Errors
    ///
    /// Where it cannot be written; then the operation must not be told to be accepted.
    #[tracing::instrument(level = "debug", skip_all)]
    pub async fn accept(&self, operation: &Operation, now: u64) -> Result<Accepted, LedgerError> {
        let message = codec::encode(operation)?;
        let mut transaction = self.begin().await?;
        let inserted = sqlx::query("INSERT INTO operations (id, state, message, accepted_at) VALUES (?, 'accepted', ?, ?) ON CONFLICT (id) DO NOTHING")
            .bind(operation.operation.to_string())
            .bind(message)
            .bind(integer(now))
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        if inserted == 0 {
            return Ok(Accepted::Known);
        }
        let event = audit::Event::new("script_execution_attempt", Some(operation.operation))
            .with("job", operation.job)
            .with("operator", &operation.operator)
            .with("bundle_sha256", operation.bundle_sha256);
        audit::append(&mut transaction, &event, now).await?;
        transaction.commit().await?;
        Ok(Accepted::New)
    }

    /// Says that from here on a process may have been started.
    ///
    /// # Errors
    ///
    /// Where it cannot be written, or the operation is not in the state for it; then nothing may be started.
    #[tracing::instrument(level = "debug", skip_all)]
    pub async fn start(
        &self,
        operation: OperationId,
        bundle_sha256: Digest,
        run_as: &str,
        now: u64,
    ) -> Result<(), LedgerError> {
        let mut transaction = self.begin().await?;
        let updated = sqlx::query("UPDATE operations SET state = 'started', started_at = ? WHERE id = ? AND state = 'accepted'")
            .bind(integer(now))
            .bind(operation.to_string())
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        if updated != 1 {
            return Err(LedgerError::NotAccepted(operation));
        }
        let event = audit::Event::new("script_started", Some(operation))
            .with("bundle_sha256", bundle_sha256)
            .with("run_as", run_as);
        audit::append(&mut transaction, &event, now).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Keeps how an operation ended. The first report stands.
    ///
    /// # Errors
    ///
    /// Where it cannot be written; then the report must not be sent.
    #[tracing::instrument(level = "debug", skip_all)]
    pub async fn finish(
        &self,
        operation: OperationId,
        report: &Report,
        now: u64,
    ) -> Result<(), LedgerError> {
        let encoded = codec::encode(report)?;
        let mut transaction = self.begin().await?;
        let updated = sqlx::query("UPDATE operations SET state = 'finished', report = ?, finished_at = ? WHERE id = ? AND state IN ('accepted', 'started')")
            .bind(encoded)
            .bind(integer(now))
            .bind(operation.to_string())
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        if updated == 1 {
            let event = audit::Event::of_ending(operation, report);
            audit::append(&mut transaction, &event, now).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// The host has stored the report: what is left is the id, so that the operation never starts again. False where
    /// there is no report to acknowledge, and nothing was changed.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    #[tracing::instrument(level = "debug", skip_all)]
    pub async fn acknowledge(
        &self,
        operation: OperationId,
        audit_head: Digest,
    ) -> Result<bool, LedgerError> {
        let mut transaction = self.begin().await?;
        let updated = sqlx::query("UPDATE operations SET state = 'acknowledged', message = NULL, report = NULL WHERE id = ? AND state = 'finished'")
            .bind(operation.to_string())
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        if updated == 0 {
            return Ok(false);
        }
        remember(&mut transaction, HOST_AUDIT_HEAD, &audit_head.to_string()).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Operations that the host has not acknowledged, the oldest first.
    ///
    /// # Errors
    ///
    /// Where they cannot be read.
    pub async fn open_operations(&self) -> Result<Vec<Open>, LedgerError> {
        let rows = sqlx::query("SELECT state, message, report FROM operations WHERE state <> 'acknowledged' ORDER BY accepted_at, id")
            .fetch_all(&self.0)
            .await?;
        rows.iter()
            .map(|row| {
                let state: String = row.try_get("state")?;
                let message: Vec<u8> = row.try_get("message")?;
                let report: Option<Vec<u8>> = row.try_get("report")?;
                Ok(Open {
                    operation: codec::decode(&message)?,
                    started: state == "started",
                    report: report.map(|report| codec::decode(&report)).transpose()?,
                })
            })
            .collect()
    }

    /// The publishers that were pinned, or none where no list has been seen.
    ///
    /// # Errors
    ///
    /// Where they cannot be read.
    pub async fn pinned_publishers(&self) -> Result<Option<Vec<String>>, LedgerError> {
        let row = sqlx::query("SELECT value FROM memory WHERE key = ?")
            .bind(PUBLISHERS)
            .fetch_optional(&self.0)
            .await?;
        let value: Option<String> = row.map(|row| row.try_get("value")).transpose()?;
        Ok(value.map(|value| value.lines().map(str::to_owned).collect()))
    }

    /// Pins the first list of publishers that the host shows.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub async fn pin_publishers(&self, publishers: &[String], now: u64) -> Result<(), LedgerError> {
        let mut transaction = self.begin().await?;
        let pinned = sqlx::query(
            "INSERT INTO memory (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING",
        )
        .bind(PUBLISHERS)
        .bind(publishers.join("\n"))
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        if pinned == 0 {
            return Ok(());
        }
        let event =
            audit::Event::new("publishers_pinned", None).with("publishers", publishers.join(", "));
        audit::append(&mut transaction, &event, now).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// The lowest version of a publisher's plugin that this machine takes: the highest that was ever `seen`.
    ///
    /// # Errors
    ///
    /// Where it cannot be read or written.
    pub async fn minimum_version(
        &self,
        plugin: &str,
        seen: Version,
    ) -> Result<Version, LedgerError> {
        let key = format!("minimum version of {plugin}");
        let mut transaction = self.begin().await?;
        let row = sqlx::query("SELECT value FROM memory WHERE key = ?")
            .bind(&key)
            .fetch_optional(&mut *transaction)
            .await?;
        let known: Option<String> = row.map(|row| row.try_get("value")).transpose()?;
        let known: Option<Version> = known.and_then(|known| known.parse().ok());
        if known.is_none_or(|known| known < seen) {
            remember(&mut transaction, &key, &seen.to_string()).await?;
            transaction.commit().await?;
            return Ok(seen);
        }
        Ok(known.unwrap_or(seen))
    }

    /// Puts something on the machine's own record.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub async fn record(&self, event: &audit::Event, now: u64) -> Result<(), LedgerError> {
        let mut transaction = self.begin().await?;
        audit::append(&mut transaction, event, now).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// The machine's own record, the oldest entry first.
    ///
    /// # Errors
    ///
    /// Where it cannot be read.
    pub async fn audit(&self) -> Result<Vec<audit::Entry>, LedgerError> {
        audit::read(&self.0).await
    }

    /// The head of the machine's own record.
    ///
    /// # Errors
    ///
    /// Where it cannot be read.
    pub async fn audit_head(&self) -> Result<Digest, LedgerError> {
        let mut connection = self.0.acquire().await?;
        Ok(audit::head(&mut connection).await?.1)
    }

    /// A transaction that takes the write lock at once: all of ours write.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, LedgerError> {
        Ok(self.0.begin_with("BEGIN IMMEDIATE").await?)
    }
}

const HOST_AUDIT_HEAD: &str = "host audit head";
const PUBLISHERS: &str = "publishers";

async fn remember(
    transaction: &mut Transaction<'static, Sqlite>,
    key: &str,
    value: &str,
) -> Result<(), LedgerError> {
    sqlx::query("INSERT INTO memory (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value")
        .bind(key)
        .bind(value)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// SQLite integers are signed; times until the year 292 million fit.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS operations (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('accepted', 'started', 'finished', 'acknowledged')),
    message BLOB,
    report BLOB,
    accepted_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER
) STRICT;
CREATE INDEX IF NOT EXISTS open_operations ON operations (accepted_at) WHERE state <> 'acknowledged';
CREATE TABLE IF NOT EXISTS audit (
    seq INTEGER PRIMARY KEY,
    time TEXT NOT NULL,
    event TEXT NOT NULL,
    operation TEXT,
    details TEXT NOT NULL,
    prev TEXT NOT NULL,
    hash TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS memory (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
";

/// The ledger fails. Whatever it was for must not happen.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// SQLite says no.
    #[error("the ledger fails: {0}")]
    Database(#[from] sqlx::Error),
    /// Something in it is not what was written.
    #[error("the ledger is damaged: {0}")]
    Damaged(#[from] codec::DecodeError),
    /// A value has no form on disk: a bug.
    #[error("the ledger cannot hold this: {0}")]
    Encode(#[from] codec::EncodeError),
    /// An operation that is not waiting to be started.
    #[error("operation {0} is not waiting to be started; it is not started")]
    NotAccepted(OperationId),
    /// An audit entry that is no entry.
    #[error("the audit chain is damaged: {0}")]
    Audit(String),
}

#[cfg(test)]
mod tests {
    use sluice_protocol::bundle::{Compatibility, Limits, Submission};
    use sluice_protocol::ending::Ending;
    use sluice_protocol::ids::JobId;

    use super::*;

    fn operation() -> Operation {
        Operation {
            operation: OperationId::generate(),
            job: JobId::generate(),
            submission: Submission {
                script: b"#!/bin/sh\n:\n".to_vec(),
                interpreter: None,
                parameters: vec![],
                environment: vec![],
                attachments: vec![],
                secrets: vec![],
                run_as: None,
                limits: Limits::default(),
                compatibility: Compatibility::None,
            },
            bundle_sha256: Digest::of(b""),
            not_after: 0,
            gates_revision: 0,
            skip_security_scan: false,
            targets: 1,
            operator: "op".to_owned(),
            submitted_at: String::new(),
            authorizations: vec![],
        }
    }

    async fn ledger(directory: &tempfile::TempDir) -> Ledger {
        Ledger::open(&directory.path().join("ledger.db"))
            .await
            .expect("opens")
    }

    #[tokio::test]
    async fn an_id_starts_once_whatever_arrives_and_whoever_asks() {
        let directory = tempfile::tempdir().expect("makes a directory");
        let (first, digest) = (operation(), Digest::of(b"x"));
        let report = Report::without_process(Ending::Interrupted, 3);
        {
            let ledger = ledger(&directory).await;
            assert_eq!(
                ledger.accept(&first, 1).await.expect("writes"),
                Accepted::New
            );
            assert_eq!(
                ledger.accept(&first, 1).await.expect("writes"),
                Accepted::Known
            );
            ledger
                .start(first.operation, digest, "nobody", 2)
                .await
                .expect("writes");
            assert!(matches!(
                ledger.start(first.operation, digest, "nobody", 2).await,
                Err(LedgerError::NotAccepted(_))
            ));
        }
        let ledger = ledger(&directory).await;
        let open = ledger.open_operations().await.expect("reads");
        assert!(open.len() == 1 && open[0].started && open[0].operation == first);
        ledger
            .finish(first.operation, &report, 3)
            .await
            .expect("writes");
        let second = Report::without_process(Ending::Succeeded, 4);
        ledger
            .finish(first.operation, &second, 4)
            .await
            .expect("writes");
        assert_eq!(
            ledger.open_operations().await.expect("reads")[0]
                .report
                .as_ref(),
            Some(&report)
        );
        ledger
            .acknowledge(first.operation, digest)
            .await
            .expect("writes");
        assert!(ledger.open_operations().await.expect("reads").is_empty());
        assert_eq!(
            ledger.accept(&first, 5).await.expect("writes"),
            Accepted::Known
        );
        assert!(
            ledger
                .start(first.operation, digest, "nobody", 5)
                .await
                .is_err()
        );
        assert!(
            ledger
                .start(operation().operation, digest, "nobody", 5)
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn the_record_is_a_chain_and_a_change_is_found() {
        let directory = tempfile::tempdir().expect("makes a directory");
        let ledger = ledger(&directory).await;
        for _ in 0..3 {
            ledger.accept(&operation(), 1).await.expect("writes");
        }
        let entries = ledger.audit().await.expect("reads");
        assert_eq!(
            audit::verify(&entries),
            Ok(entries[2].hash.parse().expect("is a digest"))
        );
        let mut changed = entries.clone();
        changed[1].details["operator"] = "other".into();
        assert_eq!(audit::verify(&changed).expect_err("is broken").seq, 2);
        let mut shorter = entries.clone();
        shorter.remove(1);
        assert_eq!(audit::verify(&shorter).expect_err("is broken").seq, 3);
        assert_eq!(
            ledger.audit_head().await.expect("reads").to_string(),
            entries[2].hash
        );
    }
}
