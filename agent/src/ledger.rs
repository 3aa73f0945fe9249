//! What must survive the agent: which operations it took, whether they may have started, and how they ended.
//!
//! ```text
//! (nothing) -> accepted -> started -> finished -> acknowledged
//!                  \____________________^
//! ```
//!
//! Every step is on disk (SQLite, WAL, synchronous=FULL) before what it permits happens: `accepted` before the host is
//! told, `started` before the interpreter is executed (a process that waits for that may be there already), `finished` before
//! the report of what was not started goes out (what was started is told by its spool too). An id that is in the ledger never starts again, whatever arrives. Steps are made in the order in
//! which they are handed over, so those that nobody waits for ride along with the next commit. What was acknowledged long ago
//! is pruned (`prune`), and from then on nothing as old is taken in.

mod prune;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sluice_database::rusqlite::{self, Connection, OptionalExtension as _, params};
use sluice_database::{Database, Migration, Migrations, OpenError, Urgency, WriteError};
use sluice_gate_types::manifest::Version;
use sluice_protocol::codec::{self, EncodeError};
use sluice_protocol::digest::Digest;
use sluice_protocol::gates::GateBinding;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::control::{History, LedgerMark, Lockdown};
use sluice_protocol::message::operation::Operation;
use sluice_protocol::receipt::Receipt;
use sluice_protocol::report::{Check, Finding, Report};
use sluice_protocol::units::Span;

use crate::audit;
use crate::receipts::{self, Listed, Signed};
use crate::stored::{self, Kept, Unreadable};

/// The agent's ledger. A cheap handle.
#[derive(Debug, Clone)]
pub struct Ledger(Database);

/// What is known about an operation when it starts: an agent that takes it up later reports it too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passed {
    /// The digest of what the gates saw.
    pub bundle_sha256: Digest,
    /// The user, `ephemeral` for a fresh one.
    pub run_as: String,
    /// The time limit in force.
    pub time_limit: Span,
    /// Where its private directory is made.
    pub workspaces: PathBuf,
    /// Of the kernel that it is started under: another one says that the machine was restarted.
    pub boot: String,
    /// From scanners.
    pub findings: Vec<Finding>,
    /// From environment gates.
    pub checks: Vec<Check>,
    /// One for each call of a gate.
    pub receipts: Vec<Receipt>,
    /// Remarks so far.
    pub notes: Vec<String>,
}

/// An operation that the host has not acknowledged.
#[derive(Debug, Clone)]
pub struct Open {
    /// Which one.
    pub id: OperationId,
    /// What was asked.
    pub operation: Result<Operation, Unreadable>,
    /// Where it is.
    pub step: Step,
    /// How often an agent ended without warning while it was at work on it.
    pub crashes: u32,
}

/// Where an open operation is.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing of it has been started.
    Accepted,
    /// A process may have been started.
    Started(Result<Box<Passed>, Unreadable>),
    /// It has ended, and the report waits to be acknowledged.
    Finished,
    /// It has ended, and its report cannot be read.
    Lost {
        /// A process may have been started.
        started: bool,
        /// Why not.
        problem: Unreadable,
    },
}

/// What the ledger knows of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It has never been here.
    Never,
    /// It has been here.
    Here,
    /// It is as old as what was forgotten: it may have been here.
    TooOld,
}

impl Ledger {
    /// Opens the file, making it where it does not exist.
    ///
    /// # Errors
    ///
    /// Where it cannot be opened, or is damaged.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let migrations = Migrations::new(vec![
            Migration::up(include_str!("../migrations/0001_first.sql")),
            Migration::up(include_str!("../migrations/0002_receipts.sql")),
            Migration::up(include_str!("../migrations/0003_history.sql")),
        ]);
        Database::open(path, &migrations).map(Self)
    }

    /// Whether an operation has been here. One that has, or may have been, does not start.
    ///
    /// # Errors
    ///
    /// Where that cannot be read.
    pub fn knows(&self, operation: OperationId) -> Result<Known, LedgerError> {
        let id = operation.to_string();
        self.0.read(|connection| {
            if connection
                .prepare_cached("SELECT 1 FROM operations WHERE id = ?")?
                .exists([&id])?
            {
                return Ok(Known::Here);
            }
            // Ids sort by the time they were made at, and so does their text.
            let pruned = recall(connection, PRUNED)?;
            Ok(match pruned {
                Some(pruned) if id <= pruned => Known::TooOld,
                _ => Known::Never,
            })
        })
    }

    /// Takes in an operation that the ledger does not know. It is on disk when the future that this gives is done: with the
    /// commit of its start or end, or alone after a moment, where the gates take longer.
    ///
    /// # Errors
    ///
    /// Where it cannot be written, or is there; then the operation must not be told to be accepted.
    #[tracing::instrument(level = "debug", skip_all)]
    pub async fn accept(
        &self,
        operation: &Operation,
        now: u64,
    ) -> Result<impl Future<Output = Result<(), LedgerError>> + Send + use<>, LedgerError> {
        let message = stored::encode(operation)?;
        let id = operation.operation;
        let event = audit::Event::new("script_execution_attempt", Some(id))
            .with("job", operation.job)
            .with("operator", &operation.operator)
            .with("bundle_sha256", operation.bundle_sha256);
        let event = match &operation.approval {
            Some(approval) => event.with("approved_by", audit::quoted(&approval.by)),
            None => event,
        };
        self.0
            .enqueue(Urgency::Soon, move |connection| {
                connection
                    .prepare_cached("INSERT INTO operations (id, state, message, accepted_at) VALUES (?, 'accepted', ?, ?)")?
                    .execute(params![id.to_string(), message, integer(now)])?;
                audit::append(connection, &event, now)
            })
            .await
    }

    /// An earlier agent ended without warning while it was at work on these. Those that it had not started are counted, and
    /// that is on the record. On disk when this returns.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub async fn count_crashes(
        &self,
        operations: Vec<OperationId>,
        now: u64,
    ) -> Result<(), LedgerError> {
        if operations.is_empty() {
            return Ok(());
        }
        self.0
            .write(move |connection| {
                for operation in operations {
                    let counted = connection
                        .prepare_cached("UPDATE operations SET crashes = crashes + 1 WHERE id = ? AND state = 'accepted'")?
                        .execute([operation.to_string()])?;
                    if counted == 1 {
                        let event = audit::Event::new("agent_crashed", Some(operation));
                        audit::append(connection, &event, now)?;
                    }
                }
                Ok(())
            })
            .await
    }

    /// Says that from here on a process may have been started. On disk when this returns.
    ///
    /// # Errors
    ///
    /// Where it cannot be written, or the operation is not in the state for it; then nothing may be started.
    #[tracing::instrument(level = "debug", skip_all)]
    pub async fn start(
        &self,
        operation: OperationId,
        passed: &Passed,
        now: u64,
    ) -> Result<(), LedgerError> {
        let encoded = stored::encode(passed)?;
        let event = audit::Event::new("script_started", Some(operation))
            .with("bundle_sha256", passed.bundle_sha256)
            .with("run_as", &passed.run_as);
        self.0
            .write(move |connection| {
                let updated = connection
                    .prepare_cached("UPDATE operations SET state = 'started', passed = ?, started_at = ? WHERE id = ? AND state = 'accepted'")?
                    .execute(params![encoded, integer(now), operation.to_string()])?;
                if updated != 1 {
                    return Err(LedgerError::NotAccepted(operation));
                }
                audit::append(connection, &event, now)
            })
            .await
    }

    /// Keeps how an operation ended, and its receipts. The first report stands that can be read. On disk when the future that this gives is
    /// done: of one that was started after a moment, mostly with what the host's acknowledgement changes; of one that was
    /// not, at once.
    ///
    /// # Errors
    ///
    /// Where it cannot be written, or the operation was never taken in; then a report of what was not started must not be
    /// sent.
    #[tracing::instrument(level = "debug", skip_all)]
    pub async fn finish(
        &self,
        operation: OperationId,
        report: Report,
        now: u64,
    ) -> Result<impl Future<Output = Result<(), LedgerError>> + Send + use<>, LedgerError> {
        let urgency = if report.started_at.is_some() {
            Urgency::Soon
        } else {
            Urgency::Now
        };
        self.0
            .enqueue(urgency, move |connection| {
                let encoded = stored::encode(&report)?;
                let updated = connection
                    .prepare_cached("UPDATE operations SET state = 'finished', passed = NULL, report = ?, finished_at = ? WHERE id = ? AND report IS NULL AND state IN ('accepted', 'started', 'finished')")?
                    .execute(params![encoded, integer(now), operation.to_string()])?;
                if updated == 1 {
                    if let Some(signed) = Signed::of(&report) {
                        let signed = stored::encode(&signed)?;
                        Signed::keep(&signed, connection, operation, integer(now))?;
                    }
                    let event = audit::Event::of_ending(operation, &report);
                    return audit::append(connection, &event, now);
                }
                let known = connection
                    .prepare_cached("SELECT 1 FROM operations WHERE id = ?")?
                    .exists([operation.to_string()])?;
                if known {
                    Ok(())
                } else {
                    Err(LedgerError::NotAccepted(operation))
                }
            })
            .await
    }

    /// The host has stored the report: what is left is the id, so that the operation never starts again. False where
    /// there is no report to acknowledge, and nothing was changed. Rides along with the next commit.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    #[tracing::instrument(level = "debug", skip_all)]
    pub async fn acknowledge(
        &self,
        operation: OperationId,
        audit_head: Digest,
        now: u64,
    ) -> Result<bool, LedgerError> {
        self.0
            .enqueue(Urgency::Soon, move |connection| {
                let updated = connection
                    .prepare_cached("UPDATE operations SET state = 'acknowledged', message = NULL, report = NULL WHERE id = ? AND state = 'finished'")?
                    .execute([operation.to_string()])?;
                if updated == 1 {
                    remember(connection, HOST_AUDIT_HEAD, &audit_head.to_string())?;
                    prune::now_and_then(connection, now)?;
                }
                Ok(updated == 1)
            })
            .await?
            .await
    }

    /// Says that something that was kept of an operation cannot be read; of one that has ended the report is forgotten, so
    /// that [`Self::finish`] takes another one.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub async fn forget_unreadable(
        &self,
        operation: OperationId,
        what: Kept,
        problem: &Unreadable,
        now: u64,
    ) -> Result<(), LedgerError> {
        let event = audit::Event::new("operation_unreadable", Some(operation))
            .with("what", what.as_str())
            .with("reason", audit::quoted(&problem.sentence()));
        self.0
            .write(move |connection| {
                connection
                    .prepare_cached(
                        "UPDATE operations SET report = NULL WHERE id = ? AND state = 'finished'",
                    )?
                    .execute([operation.to_string()])?;
                audit::append(connection, &event, now)
            })
            .await
    }

    /// Operations that the host has not acknowledged, the oldest first. Whatever cannot be read of one says so in its place.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read.
    pub fn open_operations(&self) -> Result<Vec<Open>, LedgerError> {
        self.0.read(|connection| {
            let mut statement = connection.prepare("SELECT id, state, message, passed, report, started_at, crashes FROM operations WHERE state <> 'acknowledged' ORDER BY accepted_at, id")?;
            let mut rows = statement.query([])?;
            let mut open = Vec::new();
            while let Some(row) = rows.next()? {
                let id: String = row.get("id")?;
                let Ok(id) = id.parse() else {
                    // There is nobody to answer.
                    tracing::error!(id, "something in the ledger is no operation, and is passed over");
                    continue;
                };
                let state: String = row.get("state")?;
                let kept = |column: &str| row.get::<_, Option<Vec<u8>>>(column);
                open.push(Open {
                    id,
                    crashes: row.get("crashes")?,
                    operation: stored::decode(kept("message")?.as_deref()),
                    step: match state.as_str() {
                        "accepted" => Step::Accepted,
                        "started" => Step::Started(stored::decode(kept("passed")?.as_deref()).map(Box::new)),
                        _ => match stored::decode::<Report>(kept("report")?.as_deref()) {
                            Ok(_) => Step::Finished,
                            Err(problem) => Step::Lost {
                                started: row.get::<_, Option<i64>>("started_at")?.is_some(),
                                problem,
                            },
                        },
                    },
                });
            }
            Ok(open)
        })
    }

    /// How an operation ended that the host has not acknowledged.
    ///
    /// # Errors
    ///
    /// Where that cannot be read.
    pub fn report(&self, operation: OperationId) -> Result<Option<Report>, LedgerError> {
        self.0.read(|connection| {
            let report: Option<Vec<u8>> = connection
                .prepare_cached(
                    "SELECT report FROM operations WHERE id = ? AND state = 'finished'",
                )?
                .query_row([operation.to_string()], |row| row.get(0))
                .optional()?;
            let report = report.map(|report| stored::decode(Some(&report)));
            Ok(report.transpose()?)
        })
    }

    /// The publishers that were pinned, or none where no list has been seen.
    ///
    /// # Errors
    ///
    /// Where they cannot be read.
    pub fn pinned_publishers(&self) -> Result<Option<Vec<String>>, LedgerError> {
        let value = self.0.read(|connection| recall(connection, PUBLISHERS))?;
        Ok(value.map(|value| value.lines().map(str::to_owned).collect()))
    }

    /// Pins the first list of publishers that the host shows.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub async fn pin_publishers(&self, publishers: &[String], now: u64) -> Result<(), LedgerError> {
        let list = publishers.join("\n");
        let event =
            audit::Event::new("publishers_pinned", None).with("publishers", publishers.join(", "));
        self.0
            .write(move |connection| {
                let pinned = connection.execute(
                    "INSERT INTO memory (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING",
                    [PUBLISHERS, &list],
                )?;
                if pinned == 1 {
                    audit::append(connection, &event, now)?;
                }
                Ok(())
            })
            .await
    }

    /// The lowest version of a publisher's plugin that this machine takes; none where it took no version yet.
    ///
    /// # Errors
    ///
    /// Where it cannot be read.
    pub fn minimum_version(&self, plugin: &str) -> Result<Option<Version>, LedgerError> {
        let known = self
            .0
            .read(|connection| recall(connection, &minimum_of(plugin)))?;
        Ok(known.and_then(|known| known.parse().ok()))
    }

    /// Remembers that no version of a publisher's plugin below this one is taken any more. It never sinks.
    ///
    /// # Errors
    ///
    /// Where it cannot be read or written.
    pub async fn raise_minimum_version(
        &self,
        plugin: &str,
        minimum: Version,
    ) -> Result<(), LedgerError> {
        let is_lower = move |known: Option<Version>| known.is_none_or(|known| known < minimum);
        if !is_lower(self.minimum_version(plugin)?) {
            return Ok(());
        }
        let key = minimum_of(plugin);
        self.0
            .write(move |connection| {
                let known: Option<Version> =
                    recall(connection, &key)?.and_then(|known| known.parse().ok());
                if is_lower(known) {
                    remember(connection, &key, &minimum.to_string())?;
                }
                Ok(())
            })
            .await
    }

    /// The bindings whose gates were in force last, as far as that can be read: what one of another version wrote is nothing.
    ///
    /// # Errors
    ///
    /// Where the ledger fails.
    pub fn gates_in_force(&self) -> Result<Vec<GateBinding>, LedgerError> {
        let kept = self.0.read(|connection| recall(connection, GATES))?;
        let kept = kept.and_then(|kept| hex::decode(kept).ok());
        Ok(kept
            .and_then(|kept| codec::decode(&kept).ok())
            .unwrap_or_default())
    }

    /// Remembers the bindings whose gates are in force.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub async fn remember_gates(&self, bindings: &[GateBinding]) -> Result<(), LedgerError> {
        let kept = hex::encode(codec::encode(bindings)?);
        if self
            .0
            .read(|connection| recall(connection, GATES))?
            .as_ref()
            == Some(&kept)
        {
            return Ok(());
        }
        self.0
            .write(move |connection| remember(connection, GATES, &kept))
            .await
    }

    /// What the host said last about a lockdown; none where it said nothing yet.
    ///
    /// # Errors
    ///
    /// Where that cannot be read.
    pub fn lockdown(&self) -> Result<Lockdown, LedgerError> {
        let kept = self.0.read(|connection| recall(connection, LOCKDOWN))?;
        Ok(match kept.as_deref() {
            None | Some(OFF) => Lockdown::Off,
            // Whatever else was written there, it did not say that operations may start.
            Some(_) => Lockdown::On,
        })
    }

    /// Keeps what the host says about a lockdown, and puts it on the machine's own record.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub async fn keep_lockdown(
        &self,
        lockdown: Lockdown,
        event: audit::Event,
        now: u64,
    ) -> Result<(), LedgerError> {
        self.0
            .write(move |connection| {
                let word = match lockdown {
                    Lockdown::On => "on",
                    Lockdown::Off => OFF,
                };
                remember(connection, LOCKDOWN, word)?;
                audit::append(connection, &event, now)
            })
            .await
    }

    /// Puts something on the machine's own record.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub async fn record(&self, event: audit::Event, now: u64) -> Result<(), LedgerError> {
        self.0
            .write(move |connection| audit::append(connection, &event, now))
            .await
    }

    /// The machine's own record, the oldest entry first.
    ///
    /// # Errors
    ///
    /// Where it cannot be read.
    pub async fn audit(&self) -> Result<Vec<audit::Entry>, LedgerError> {
        self.0.scan(audit::read).await
    }

    /// The receipts that are kept, the oldest first; of one operation where one is asked for.
    ///
    /// # Errors
    ///
    /// Where they cannot be read.
    pub async fn receipts(
        &self,
        operation: Option<OperationId>,
    ) -> Result<Vec<Listed>, LedgerError> {
        self.0
            .scan(move |connection| receipts::read(connection, operation))
            .await
    }

    /// How far the machine's own record is on disk: every step of an operation is in it.
    ///
    /// # Errors
    ///
    /// Where it cannot be read.
    pub fn head(&self) -> Result<LedgerMark, LedgerError> {
        // Whatever a reader sees is on disk: SQLite shows a commit to others after it has synced it (WAL, FULL).
        let (seq, hash) = self.0.read(audit::head)?;
        Ok(LedgerMark { seq, hash })
    }

    /// What there is of the entry that the host acknowledged last, and how far the ledger is on disk.
    ///
    /// # Errors
    ///
    /// Where it cannot be read.
    pub fn history(&self, acknowledged: Option<u64>) -> Result<History, LedgerError> {
        self.0.read(|connection| {
            let at_acknowledged = match acknowledged {
                Some(seq) => audit::hash_of(connection, seq)?,
                None => None,
            };
            let (seq, hash) = audit::head(connection)?;
            Ok(History {
                at_acknowledged,
                head: LedgerMark { seq, hash },
            })
        })
    }

    /// The host's database has this epoch. True where it had another one before: it was restored from a backup since. That
    /// is on the machine's own record.
    ///
    /// # Errors
    ///
    /// Where that cannot be read or written.
    pub async fn host_has_epoch(&self, epoch: u64, now: u64) -> Result<bool, LedgerError> {
        let epoch = epoch.to_string();
        let known = self.0.read(|connection| recall(connection, HOST_EPOCH))?;
        if known.as_ref() == Some(&epoch) {
            return Ok(false);
        }
        self.0
            .write(move |connection| {
                remember(connection, HOST_EPOCH, &epoch)?;
                if known.is_some() {
                    let event = audit::Event::new("host_restored", None).with("epoch", &epoch);
                    audit::append(connection, &event, now)?;
                }
                Ok(known.is_some())
            })
            .await
    }

    /// Commits what was handed over and closes the file.
    pub async fn close(&self) {
        self.0.close().await;
    }
}

const HOST_AUDIT_HEAD: &str = "host audit head";
const PRUNED: &str = "pruned up to";
const HOST_EPOCH: &str = "host epoch";
const PUBLISHERS: &str = "publishers";
const GATES: &str = "gates in force";
const LOCKDOWN: &str = "lockdown";
const OFF: &str = "off";

fn remember(connection: &Connection, key: &str, value: &str) -> Result<(), LedgerError> {
    connection
        .prepare_cached("INSERT INTO memory (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value")?
        .execute([key, value])?;
    Ok(())
}

/// The key by which a publisher's plugin's minimum version is remembered.
fn minimum_of(plugin: &str) -> String {
    format!("minimum version of {plugin}")
}

fn recall(connection: &Connection, key: &str) -> Result<Option<String>, LedgerError> {
    let value = connection
        .prepare_cached("SELECT value FROM memory WHERE key = ?")?
        .query_row([key], |row| row.get(0))
        .optional()?;
    Ok(value)
}

/// SQLite integers are signed; times until the year 292 million fit.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The ledger fails. Whatever it was for must not happen.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// SQLite says no.
    #[error("the ledger refused a statement")]
    Statement(#[from] rusqlite::Error),
    /// Nothing can be made durable.
    #[error("the ledger cannot be written")]
    Write(#[from] WriteError),
    /// Something in it is not what was written.
    #[error("something in the ledger cannot be read")]
    Unreadable(#[from] Unreadable),
    /// A value has no form on disk: a bug.
    #[error("the ledger cannot hold this")]
    Encode(#[from] EncodeError),
    /// An operation that is not waiting to be started.
    #[error("operation {0} is not in the ledger, or not waiting to be started; it is not started")]
    NotAccepted(OperationId),
    /// An audit entry that is no entry.
    #[error("the audit chain is damaged: {0}")]
    Audit(String),
}

#[cfg(test)]
mod tests {
    use sluice_protocol::ending::Ending;

    use super::*;
    use crate::testing::{operation, passed};

    fn ledger(directory: &tempfile::TempDir) -> Ledger {
        Ledger::open(&directory.path().join("ledger.db")).expect("opens")
    }

    async fn accept(ledger: &Ledger, operation: &Operation) -> Result<(), LedgerError> {
        ledger.accept(operation, 1).await?.await
    }

    #[tokio::test]
    async fn an_id_starts_once_whatever_arrives_and_whoever_asks() {
        let directory = tempfile::tempdir().expect("makes a directory");
        let first = operation();
        let report = Report::without_process(Ending::Interrupted, 3);
        {
            let ledger = ledger(&directory);
            assert_eq!(ledger.knows(first.operation).expect("reads"), Known::Never);
            accept(&ledger, &first).await.expect("writes");
            assert_eq!(ledger.knows(first.operation).expect("reads"), Known::Here);
            assert!(accept(&ledger, &first).await.is_err());
            ledger
                .start(first.operation, &passed(), 2)
                .await
                .expect("writes");
            assert!(matches!(
                ledger.start(first.operation, &passed(), 2).await,
                Err(LedgerError::NotAccepted(_))
            ));
            ledger.close().await;
        }
        let ledger = ledger(&directory);
        let open = ledger.open_operations().expect("reads");
        assert_eq!((open.len(), open[0].id), (1, first.operation));
        assert_eq!(open[0].operation.as_ref(), Ok(&first));
        assert_eq!(open[0].step, Step::Started(Ok(Box::new(passed()))));
        ledger
            .finish(first.operation, report.clone(), 3)
            .await
            .expect("writes")
            .await
            .expect("is on disk");
        let second = Report::without_process(Ending::Succeeded, 4);
        ledger
            .finish(first.operation, second.clone(), 4)
            .await
            .expect("writes")
            .await
            .expect("is on disk");
        let kept = ledger.report(first.operation).expect("reads");
        assert_eq!(kept.as_ref(), Some(&report));
        let acknowledged = ledger.acknowledge(first.operation, Digest::of(b"head"), 5);
        assert!(acknowledged.await.expect("writes"));
        assert!(ledger.open_operations().expect("reads").is_empty());
        assert!(accept(&ledger, &first).await.is_err());
        let stranger = operation().operation;
        for id in [first.operation, stranger] {
            assert!(ledger.start(id, &passed(), 5).await.is_err());
        }
        let unknown = ledger
            .finish(stranger, second.clone(), 5)
            .await
            .expect("is handed over");
        assert!(matches!(unknown.await, Err(LedgerError::NotAccepted(_))));
    }

    #[tokio::test]
    async fn a_start_takes_the_acceptance_before_it_along() {
        let directory = tempfile::tempdir().expect("makes a directory");
        let (ledger, first) = (ledger(&directory), operation());
        let accepted = ledger.accept(&first, 1).await.expect("is handed over");
        ledger
            .start(first.operation, &passed(), 2)
            .await
            .expect("finds it accepted");
        accepted.await.expect("writes");
        assert_eq!(ledger.audit().await.expect("reads").len(), 2);
    }

    #[tokio::test]
    async fn what_cannot_be_read_of_one_operation_says_so_and_the_others_are_read() {
        let directory = tempfile::tempdir().expect("makes a directory");
        let ledger = ledger(&directory);
        let report = Report::without_process(Ending::Succeeded, 3);
        let ids: Vec<_> = (0..4).map(|_| OperationId::generate()).collect();
        for (at, id) in ids.iter().enumerate() {
            let mut operation = operation();
            operation.operation = *id;
            accept(&ledger, &operation).await.expect("writes");
            if at > 0 {
                let started = ledger.start(*id, &passed(), 2).await;
                started.expect("writes");
            }
            if at > 1 {
                let finished = ledger.finish(*id, report.clone(), 3).await.expect("writes");
                finished.await.expect("is on disk");
            }
        }
        for (id, change) in [
            (
                ids[0],
                "message = CAST(x'fe' || substr(message, 2) AS BLOB)",
            ),
            (ids[1], "passed = substr(passed, 1, 20)"),
            (ids[2], "report = x'ff'"),
        ] {
            let change = format!("UPDATE operations SET {change} WHERE id = '{id}'");
            let changed = ledger
                .0
                .write(move |connection| Ok::<_, LedgerError>(connection.execute(&change, [])?));
            assert_eq!(changed.await.expect("writes"), 1);
        }
        let counted = ledger.count_crashes(ids.clone(), 4);
        counted.await.expect("writes");
        let open = ledger.open_operations().expect("reads");
        assert_eq!(open.len(), 4);
        for Open {
            id,
            operation,
            step,
            crashes,
        } in open
        {
            let at = ids
                .iter()
                .position(|one| *one == id)
                .expect("is one of ours");
            assert_eq!(
                operation.err(),
                (at == 0).then_some(Unreadable::Format(0xfe))
            );
            // Of those that were not started.
            assert_eq!(crashes, u32::from(at == 0));
            match (at, step) {
                (0, Step::Accepted)
                | (1, Step::Started(Err(Unreadable::Damaged(_))))
                | (
                    2,
                    Step::Lost {
                        started: true,
                        problem: Unreadable::Format(0xff),
                    },
                )
                | (3, Step::Finished) => {}
                (at, step) => panic!("{at} is {step:?}"),
            }
        }
        assert!(ledger.report(ids[2]).is_err());
        for id in &ids[2..] {
            let other = Report::without_process(Ending::Interrupted, 9);
            if *id == ids[2] {
                let problem = Unreadable::Format(0xff);
                let forgotten = ledger
                    .forget_unreadable(*id, Kept::Report, &problem, 8)
                    .await;
                forgotten.expect("writes");
            }
            let finished = ledger.finish(*id, other.clone(), 9).await.expect("writes");
            finished.await.expect("is on disk");
        }
        let ending = |id| {
            let report = ledger.report(id).expect("reads").expect("is there");
            report.ending
        };
        assert_eq!(ending(ids[2]), Ending::Interrupted);
        assert_eq!(ending(ids[3]), Ending::Succeeded, "the first one stands");
        let record = ledger.audit().await.expect("reads");
        let unreadable = record
            .iter()
            .find(|entry| entry.event == "operation_unreadable");
        let details = &unreadable.expect("is on the record").details;
        assert_eq!(details["what"], "report");
        assert!(
            details["reason"]
                .as_str()
                .expect("is text")
                .contains("another version")
        );
    }

    #[tokio::test]
    async fn receipts_stay_when_the_report_is_acknowledged_and_are_kept_once() {
        let directory = tempfile::tempdir().expect("makes a directory");
        let (ledger, first) = (ledger(&directory), operation());
        accept(&ledger, &first).await.expect("writes");
        let mut report = Report::without_process(Ending::Interrupted, 3);
        report.attestation = Some(sluice_protocol::receipt::Attestation {
            signature: vec![7; 70],
            inputs: Some(b"inputs".to_vec()),
        });
        for _ in 0..2 {
            let finished = ledger.finish(first.operation, report.clone(), 3).await;
            finished.expect("writes").await.expect("is on disk");
        }
        let acknowledged = ledger.acknowledge(first.operation, Digest::of(b"head"), 5);
        assert!(acknowledged.await.expect("writes"));
        let all = ledger.receipts(None).await.expect("reads");
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].operation, first.operation.to_string());
        assert_eq!(all[0].inputs_sha256, Some(Digest::of(b"inputs")));
        let own = ledger.receipts(Some(first.operation)).await;
        assert_eq!(own.expect("reads"), all);
        let other = ledger.receipts(Some(OperationId::generate())).await;
        assert_eq!(other.expect("reads"), []);
    }

    #[tokio::test]
    async fn the_record_is_a_chain_and_a_change_is_found() {
        let directory = tempfile::tempdir().expect("makes a directory");
        let ledger = ledger(&directory);
        for _ in 0..3 {
            accept(&ledger, &operation()).await.expect("writes");
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
            ledger.head().expect("reads").hash.to_string(),
            entries[2].hash
        );
    }
}
