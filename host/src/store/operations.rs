//! Operations: a job's run on one machine. Every change of state is one statement that says from which states it may
//! come, so that of two who want to end an operation exactly one does.

use std::collections::HashSet;

use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::codec;
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::State;
use sluice_protocol::ids::{JobId, MachineId, OperationId, TenantId};
use sluice_protocol::report::Report;

use super::StoreError;
use super::row::{
    all, bytes_or_null, change, exists, first, only, parsed, parsed_or_null, signed, time,
    time_or_null, unsigned, unsigned_or_null, word,
};
use crate::clock::UnixMillis;
use crate::jobs::SupersedeKey;
use crate::rollouts::Counts;

/// An operation, without its reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationRow {
    /// Its id.
    pub id: OperationId,
    /// The tenant that it belongs to.
    pub tenant: TenantId,
    /// The job that it belongs to.
    pub job: JobId,
    /// The machine, where there is one.
    pub machine: Option<MachineId>,
    /// The machine's name when the job was submitted, or what was typed.
    pub machine_name: String,
    /// Counted from 0, in the order of the request.
    pub position: u64,
    /// Where it is.
    pub state: State,
    /// Of the bundle that the host made.
    pub bundle_sha256: Option<Digest>,
    /// After this, silence means that the outcome is unknown.
    pub silence_after: UnixMillis,
    /// The most bytes of output that are kept.
    pub output_limit: u64,
    /// The machine's clock, once a process was started.
    pub started: Option<UnixMillis>,
    /// The sentence of its end.
    pub message: Option<String>,
    /// The script's exit code, -1 where no process ended.
    pub exit_code: Option<i32>,
    /// Who asked the machine to cancel it.
    pub cancel_by: Option<String>,
    /// Its batch, counted from 1, where its job has a rollout.
    pub batch: Option<u64>,
    /// Whether it starts one after the other with all that are in order on its machine.
    pub in_order: bool,
}

/// A query for [`OperationRow`]s. It names their columns, because a report that nobody asked for may be large.
macro_rules! operations {
    ($which:literal) => {
        concat!(
            "SELECT id, tenant, job, machine, machine_name, position, state, bundle_sha256,
                    silence_after, output_limit, started, message, exit_code, cancel_by, batch, in_order
             FROM operations ",
            $which
        )
    };
}

pub mod in_order;

/// Where an operation is: what a follower looks at again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The operation.
    pub id: OperationId,
    /// The machine's name when the job was submitted, or what was typed.
    pub machine_name: String,
    /// Where it is.
    pub state: State,
    /// Whether a process was started, so that there may be output.
    pub started: bool,
}

/// The reports about an operation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reports {
    /// The one that counts.
    pub report: Option<Report>,
    /// What the machine said after the host had given it up.
    pub late: Option<Report>,
}

/// Stores an operation that has not ended, and that must not start after `start_by`: the `not_after` of its job.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn insert(
    conn: &Connection,
    operation: &OperationRow,
    start_by: UnixMillis,
) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT INTO operations (id, tenant, job, machine, machine_name, position, state, ended,
                                 bundle_sha256, silence_after, output_limit, batch, in_order, start_by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8, ?9, ?10, ?11, ?12, ?13)",
        params![
            operation.id.to_string(),
            operation.tenant.to_string(),
            operation.job.to_string(),
            operation.machine.map(|id| id.to_string()),
            &operation.machine_name,
            signed(operation.position),
            operation.state.as_str(),
            operation.bundle_sha256.map(|digest| digest.to_string()),
            operation.silence_after.0,
            signed(operation.output_limit),
            operation.batch.map(signed),
            operation.in_order,
            start_by.0,
        ],
    )?;
    Ok(())
}

/// The tenant's operation with this id.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find(
    conn: &Connection,
    tenant: TenantId,
    id: OperationId,
) -> Result<Option<OperationRow>, StoreError> {
    first(
        conn,
        operations!("WHERE tenant = ? AND id = ?"),
        params![tenant.to_string(), id.to_string()],
        read,
    )
}

/// The tenant's operation with this id, and the reports about it.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find_reported(
    conn: &Connection,
    tenant: TenantId,
    id: OperationId,
) -> Result<Option<(OperationRow, Reports)>, StoreError> {
    first(
        conn,
        "SELECT * FROM operations WHERE tenant = ? AND id = ?",
        params![tenant.to_string(), id.to_string()],
        |row| Ok((read(row)?, read_reports(row)?)),
    )
}

/// The reports about the tenant's operation.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn reports(
    conn: &Connection,
    tenant: TenantId,
    id: OperationId,
) -> Result<Reports, StoreError> {
    let found = first(
        conn,
        "SELECT report, late_report FROM operations WHERE tenant = ? AND id = ?",
        params![tenant.to_string(), id.to_string()],
        read_reports,
    )?;
    Ok(found.unwrap_or_default())
}

fn read_reports(row: &Row<'_>) -> Result<Reports, StoreError> {
    Ok(Reports {
        report: decoded(row, "report")?,
        late: decoded(row, "late_report")?,
    })
}

fn decoded(row: &Row<'_>, column: &'static str) -> Result<Option<Report>, StoreError> {
    bytes_or_null(row, column)?
        .map(|bytes| {
            codec::decode(bytes).map_err(|error| StoreError::Corrupt(format!("{column}: {error}")))
        })
        .transpose()
}

/// All operations of a job, in the order of the request.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn of_job(
    conn: &Connection,
    tenant: TenantId,
    job: JobId,
) -> Result<Vec<OperationRow>, StoreError> {
    all(
        conn,
        operations!("WHERE tenant = ? AND job = ? ORDER BY position"),
        params![tenant.to_string(), job.to_string()],
        read,
    )
}

/// Where all operations of a job are, in the order of the request.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn steps_of_job(
    conn: &Connection,
    tenant: TenantId,
    job: JobId,
) -> Result<Vec<Step>, StoreError> {
    all(
        conn,
        "SELECT id, machine_name, state, started IS NOT NULL AS started FROM operations
         WHERE tenant = ? AND job = ? ORDER BY position",
        params![tenant.to_string(), job.to_string()],
        |row| {
            Ok(Step {
                id: parsed(row, "id")?,
                machine_name: row.get("machine_name")?,
                state: word(row, "state", State::from_word)?,
                started: row.get("started")?,
            })
        },
    )
}

/// All operations of a machine that have not ended, the oldest first.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn open_of_machine(
    conn: &Connection,
    tenant: TenantId,
    machine: MachineId,
) -> Result<Vec<OperationRow>, StoreError> {
    all(
        conn,
        operations!("WHERE machine = ? AND ended = 0 AND tenant = ? ORDER BY id"),
        params![machine.to_string(), tenant.to_string()],
        read,
    )
}

/// The operations of a machine of which nothing was sent and whose job has this key, the oldest first.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn unsent_with_key(
    conn: &Connection,
    tenant: TenantId,
    machine: MachineId,
    key: &SupersedeKey,
) -> Result<Vec<OperationRow>, StoreError> {
    all(
        conn,
        operations!(
            "WHERE machine = ? AND ended = 0 AND state IN ('held', 'queued') AND tenant = ?
                 AND (SELECT supersede FROM jobs INDEXED BY jobs_heads WHERE jobs.id = operations.job) = ? ORDER BY id"
        ),
        params![machine.to_string(), tenant.to_string(), key.as_str()],
        read,
    )
}

/// Whether the job has an operation on a machine.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn is_of_job(
    conn: &Connection,
    tenant: TenantId,
    job: JobId,
    machine: MachineId,
) -> Result<bool, StoreError> {
    exists(
        conn,
        "SELECT 1 FROM operations WHERE tenant = ? AND machine = ? AND job = ?",
        params![tenant.to_string(), machine.to_string(), job.to_string()],
    )
}

/// The machines of a job.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn machines_of_job(
    conn: &Connection,
    tenant: TenantId,
    job: JobId,
) -> Result<HashSet<MachineId>, StoreError> {
    let machines = all(
        conn,
        "SELECT machine FROM operations WHERE tenant = ? AND job = ? AND machine IS NOT NULL",
        params![tenant.to_string(), job.to_string()],
        |row| parsed(row, "machine"),
    )?;
    Ok(machines.into_iter().collect())
}

/// A newer job than this one with this key that has an operation on a machine.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn newer_with_key(
    conn: &Connection,
    tenant: TenantId,
    machine: MachineId,
    key: &SupersedeKey,
    job: JobId,
) -> Result<Option<JobId>, StoreError> {
    first(
        conn,
        "SELECT job FROM operations WHERE tenant = ? AND machine = ? AND job > ?
             AND (SELECT supersede FROM jobs WHERE jobs.id = operations.job) = ? LIMIT 1",
        params![
            tenant.to_string(),
            machine.to_string(),
            job.to_string(),
            key.as_str()
        ],
        |row| parsed(row, "job"),
    )
}

/// What waits for a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// How many operations are queued.
    pub operations: u64,
    /// When the first of them was submitted.
    pub since: Option<UnixMillis>,
}

/// The operations of a machine that are queued.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn waiting_of_machine(
    conn: &Connection,
    tenant: TenantId,
    machine: MachineId,
) -> Result<Waiting, StoreError> {
    only(
        conn,
        "SELECT count(*) AS n, min(jobs.submitted) AS since FROM operations JOIN jobs ON jobs.id = operations.job
         WHERE operations.machine = ? AND operations.ended = 0 AND operations.state = 'queued' AND operations.tenant = ?",
        params![machine.to_string(), tenant.to_string()],
        |row| {
            Ok(Waiting {
                operations: unsigned(row, "n")?,
                since: time_or_null(row, "since")?,
            })
        },
    )
}

/// Jobs of the tenant, after `after` where one is given, of which an operation has not ended; the oldest first.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn open_jobs(
    conn: &Connection,
    tenant: TenantId,
    after: Option<JobId>,
    limit: u32,
) -> Result<Vec<JobId>, StoreError> {
    all(
        conn,
        "SELECT DISTINCT job FROM operations WHERE ended = 0 AND tenant = ?1 AND (?2 IS NULL OR job > ?2)
         ORDER BY job LIMIT ?3",
        params![tenant.to_string(), after.map(|id| id.to_string()), limit],
        |row| parsed(row, "job"),
    )
}

/// Operations, of all tenants, that have not ended and whose time is over: those still queued whose job's `not_after`
/// has passed, and the others after their silence.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn overdue(
    conn: &Connection,
    now: UnixMillis,
    limit: u32,
) -> Result<Vec<OperationRow>, StoreError> {
    // This is asked every second, while hundreds of thousands may be open: each of these goes by an index of its own.
    let mut overdue = Vec::new();
    for what in [UNSENT_TOO_LONG, UNAPPROVED_TOO_LONG, SILENT_TOO_LONG] {
        if overdue.is_empty() {
            overdue = all(conn, what, params![now.0, limit], read)?;
        }
    }
    Ok(overdue)
}

const UNSENT_TOO_LONG: &str =
    operations!("WHERE state IN ('held', 'queued') AND start_by < ?1 ORDER BY start_by LIMIT ?2");
const UNAPPROVED_TOO_LONG: &str = operations!(
    "WHERE state = 'held' AND job IN (SELECT job FROM holds WHERE state = 'waiting' AND until < ?1) LIMIT ?2"
);
const SILENT_TOO_LONG: &str = operations!(
    "WHERE ended = 0 AND state NOT IN ('held', 'queued') AND silence_after < ?1 ORDER BY silence_after LIMIT ?2"
);

/// Takes the step from `queued` to `delivered`: from here on the machine alone ends it. Says no where it had been taken,
/// the operation had ended, or it is in order and its turn has not come.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn set_delivered(conn: &Connection, id: OperationId) -> Result<bool, StoreError> {
    Ok(change(conn, in_order::DELIVER, params![id.to_string()])? == 1)
}

/// Where the operations of a job with a rollout are, for each of its batches.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn count_by_batch(
    conn: &Connection,
    tenant: TenantId,
    job: JobId,
    batches: usize,
) -> Result<Vec<Counts>, StoreError> {
    // All of it is in the index, except for the tenant, which the job has.
    let rows = all(
        conn,
        "SELECT batch, state, count(*) AS n FROM operations
         WHERE job = ?1 AND batch IS NOT NULL AND EXISTS (SELECT 1 FROM jobs WHERE id = ?1 AND tenant = ?2)
         GROUP BY batch, state",
        params![job.to_string(), tenant.to_string()],
        |row| {
            let state = word(row, "state", State::from_word)?;
            Ok((unsigned(row, "batch")?, state, unsigned(row, "n")?))
        },
    )?;
    let mut counts = vec![Counts::default(); batches];
    for (batch, state, n) in rows {
        let of_batch = usize::try_from(batch.saturating_sub(1))
            .ok()
            .and_then(|index| counts.get_mut(index))
            .ok_or_else(|| StoreError::Corrupt(format!("batch {batch} of {batches}")))?;
        match state {
            State::Held => of_batch.held += n,
            State::Queued => of_batch.queued += n,
            State::Succeeded => of_batch.succeeded += n,
            State::TimedOut => {
                of_batch.failed += n;
                of_batch.timed_out += n;
            }
            state if state.is_terminal() => of_batch.failed += n,
            _ => of_batch.sent += n,
        }
    }
    Ok(counts)
}

// What rules of rollouts count, again and again: by the indexes alone.
const ON_MACHINES: &str = "SELECT batch, machine FROM operations INDEXED BY operations_on_machines
     WHERE tenant = ? AND job = ? AND batch <= ? AND machine IS NOT NULL
         AND (started IS NOT NULL OR (ended = 0 AND state IN ('accepted', 'checking')))";
const WITHOUT_GROUP: &str = "SELECT count(*) AS n FROM operations INDEXED BY operations_ungrouped
     WHERE tenant = ? AND job = ? AND batch <= ? AND ended = 1 AND result_group IS NULL";
const NEW_GROUPS: &str = "SELECT first, count(*) AS n FROM
         (SELECT min(batch) AS first FROM operations INDEXED BY operations_groups
          WHERE tenant = ? AND job = ? AND result_group IS NOT NULL GROUP BY result_group)
     WHERE first > 1 GROUP BY first";

/// A machine on which something of a rollout is or was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnMachine {
    /// The batch.
    pub batch: u64,
    /// The machine.
    pub machine: MachineId,
}

/// The machines that have said that they have an operation of a job's batches up to this one: it waits there, is looked at
/// by gates or runs, or was started and has ended. What a script does to its machine's link may be faster than the word that
/// it runs.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn on_machines(
    conn: &Connection,
    tenant: TenantId,
    job: JobId,
    batch: u64,
) -> Result<Vec<OnMachine>, StoreError> {
    all(
        conn,
        ON_MACHINES,
        params![tenant.to_string(), job.to_string(), signed(batch)],
        |row| {
            Ok(OnMachine {
                batch: unsigned(row, "batch")?,
                machine: parsed(row, "machine")?,
            })
        },
    )
}

/// Operations of a job's batches up to this one that have ended, and of which it is not known to which group of results they
/// belong; so many at most.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn without_group(
    conn: &Connection,
    tenant: TenantId,
    job: JobId,
    batch: u64,
    most: u32,
) -> Result<Vec<OperationRow>, StoreError> {
    all(
        conn,
        operations!(
            "INDEXED BY operations_ungrouped
             WHERE tenant = ? AND job = ? AND batch <= ? AND ended = 1 AND result_group IS NULL LIMIT ?"
        ),
        params![tenant.to_string(), job.to_string(), signed(batch), most],
        read,
    )
}

/// How many those are.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn count_without_group(
    conn: &Connection,
    tenant: TenantId,
    job: JobId,
    batch: u64,
) -> Result<u64, StoreError> {
    only(
        conn,
        WITHOUT_GROUP,
        params![tenant.to_string(), job.to_string(), signed(batch)],
        |row| unsigned(row, "n"),
    )
}

/// Says to which group of results an operation belongs.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn set_group(
    conn: &Connection,
    operation: OperationId,
    group: &[u8; 32],
) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE operations SET result_group = ? WHERE id = ?",
        params![group, operation.to_string()],
    )?;
    Ok(())
}

/// How many groups of results each of a job's batches has that none before it had; nothing of the first batch, which has what
/// others are compared with.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn new_groups(
    conn: &Connection,
    tenant: TenantId,
    job: JobId,
) -> Result<Vec<(u64, u64)>, StoreError> {
    all(
        conn,
        NEW_GROUPS,
        params![tenant.to_string(), job.to_string()],
        |row| Ok((unsigned(row, "first")?, unsigned(row, "n")?)),
    )
}

/// The first operations of a batch that are held, in their order.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn held(
    conn: &Connection,
    tenant: TenantId,
    job: JobId,
    batch: u64,
    limit: u64,
) -> Result<Vec<OperationRow>, StoreError> {
    all(
        conn,
        operations!(
            "WHERE tenant = ? AND job = ? AND batch = ? AND state = 'held' ORDER BY position LIMIT ?"
        ),
        params![
            tenant.to_string(),
            job.to_string(),
            signed(batch),
            signed(limit)
        ],
        read,
    )
}

/// Takes the step from `held` to `queued` or `delivered`. Says no where it had been taken, or the operation had ended.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn release(conn: &Connection, id: OperationId, to: State) -> Result<bool, StoreError> {
    Ok(change(
        conn,
        "UPDATE operations SET state = ? WHERE id = ? AND state = 'held'",
        params![to.as_str(), id.to_string()],
    )? == 1)
}

/// Holds again what was released of a job with a rollout and not sent; says how many operations those are.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn hold_queued(conn: &Connection, tenant: TenantId, job: JobId) -> Result<usize, StoreError> {
    in_order::all_give_way(conn, tenant, job)?;
    change(
        conn,
        "UPDATE operations SET state = 'held'
         WHERE tenant = ? AND job = ? AND batch IS NOT NULL AND state = 'queued'",
        params![tenant.to_string(), job.to_string()],
    )
}

/// Holds an operation again that was released and not sent. Says no where it is not that any more.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn hold_again(conn: &Connection, id: OperationId) -> Result<bool, StoreError> {
    in_order::give_way(conn, id)?;
    Ok(change(
        conn,
        "UPDATE operations SET state = 'held' WHERE id = ? AND batch IS NOT NULL AND state = 'queued'",
        params![id.to_string()],
    )? == 1)
}

/// The operations of a job with a rollout that were released and not sent, in their order.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn released(
    conn: &Connection,
    tenant: TenantId,
    job: JobId,
) -> Result<Vec<OperationRow>, StoreError> {
    all(
        conn,
        operations!(
            "WHERE tenant = ? AND job = ? AND batch IS NOT NULL AND state = 'queued' ORDER BY position"
        ),
        params![tenant.to_string(), job.to_string()],
        read,
    )
}

/// Has what was sent and never arrived wait again: held where its job has a rollout, queued where not. Says no where it is
/// not that any more.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn hold_delivered(conn: &Connection, id: OperationId) -> Result<bool, StoreError> {
    in_order::give_way(conn, id)?;
    Ok(change(
        conn,
        "UPDATE operations SET state = CASE WHEN batch IS NULL THEN 'queued' ELSE 'held' END
         WHERE id = ? AND state = 'delivered' AND cancel_by IS NULL",
        params![id.to_string()],
    )? == 1)
}

/// Takes a step of a machine's progress, which only goes forward. Says no where it changed nothing.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn set_progress(
    conn: &Connection,
    machine: MachineId,
    id: OperationId,
    state: State,
    started: Option<UnixMillis>,
) -> Result<bool, StoreError> {
    Ok(change(
        conn,
        "UPDATE operations SET state = ?1, started = coalesce(?2, started)
         WHERE id = ?3 AND machine = ?4 AND ended = 0
             AND CASE state WHEN 'delivered' THEN 1 WHEN 'accepted' THEN 2 WHEN 'checking' THEN 3
                            WHEN 'running' THEN 4 ELSE 9 END
               < CASE ?1 WHEN 'accepted' THEN 2 WHEN 'checking' THEN 3 WHEN 'running' THEN 4 ELSE 0 END",
        params![
            state.as_str(),
            started.map(|at| at.0),
            id.to_string(),
            machine.to_string(),
        ],
    )? == 1)
}

/// Ends an operation that is in one of the states of `from`; says no where it was not.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn end(
    conn: &Connection,
    id: OperationId,
    from: From,
    report: &Report,
) -> Result<bool, StoreError> {
    let bytes = codec::encode(report).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    in_order::give_way(conn, id)?;
    let statement = match from {
        From::NotSent => {
            "UPDATE operations SET state = ?1, ended = 1, finished = ?2, message = ?3, exit_code = ?4, report = ?5
         WHERE id = ?6 AND state IN ('held', 'queued')"
        }
        From::Open => {
            "UPDATE operations SET state = ?1, ended = 1, finished = ?2, message = ?3, exit_code = ?4, report = ?5
         WHERE id = ?6 AND ended = 0"
        }
    };
    Ok(change(
        conn,
        statement,
        params![
            report.ending.state().as_str(),
            UnixMillis::from_wire(report.finished_at).0,
            report.ending.message(),
            report.exit_code(),
            bytes,
            id.to_string()
        ],
    )? == 1)
}

/// Which operations may be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// Those of which no byte was sent: the host's to end.
    NotSent,
    /// All that have not ended.
    Open,
}

/// Keeps what a machine said after its operation had ended; the first such report is kept.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn keep_late_report(
    conn: &Connection,
    id: OperationId,
    report: &Report,
) -> Result<bool, StoreError> {
    let bytes = codec::encode(report).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    Ok(change(
        conn,
        "UPDATE operations SET late_report = ?1
         WHERE id = ?2 AND late_report IS NULL AND report IS NOT ?1",
        params![bytes, id.to_string()],
    )? == 1)
}

/// Records who wants an operation ended that the machine has, or may have. The first one stays.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn set_cancel(conn: &Connection, id: OperationId, by: &str) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE operations SET cancel_by = coalesce(cancel_by, ?) WHERE id = ? AND ended = 0",
        params![by, id.to_string()],
    )?;
    Ok(())
}

/// Whether an operation of this machine that was released and has not ended comes with these bytes as an attachment.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn open_names_attachment(
    conn: &Connection,
    tenant: TenantId,
    machine: MachineId,
    sha256: Digest,
) -> Result<bool, StoreError> {
    exists(
        conn,
        "SELECT 1 FROM operations o JOIN job_attachments a ON a.job = o.job AND a.tenant = o.tenant
         WHERE o.machine = ? AND o.ended = 0 AND o.state <> 'held' AND o.tenant = ? AND a.sha256 = ? LIMIT 1",
        params![machine.to_string(), tenant.to_string(), sha256.to_string()],
    )
}

/// How many operations are in each state, of all tenants.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn count_open(conn: &Connection) -> Result<Vec<(String, u64)>, StoreError> {
    all(
        conn,
        "SELECT state, count(*) AS n FROM operations WHERE ended = 0 GROUP BY state ORDER BY state",
        [],
        |row| Ok((row.get("state")?, unsigned(row, "n")?)),
    )
}

fn read(row: &Row<'_>) -> Result<OperationRow, StoreError> {
    Ok(OperationRow {
        id: parsed(row, "id")?,
        tenant: parsed(row, "tenant")?,
        job: parsed(row, "job")?,
        machine: parsed_or_null(row, "machine")?,
        machine_name: row.get("machine_name")?,
        position: unsigned(row, "position")?,
        state: word(row, "state", State::from_word)?,
        bundle_sha256: parsed_or_null(row, "bundle_sha256")?,
        silence_after: time(row, "silence_after")?,
        output_limit: unsigned(row, "output_limit")?,
        started: time_or_null(row, "started")?,
        message: row.get("message")?,
        exit_code: row.get("exit_code")?,
        cancel_by: row.get("cancel_by")?,
        batch: unsigned_or_null(row, "batch")?,
        in_order: row.get("in_order")?,
    })
}

#[cfg(test)]
mod tests {
    use sluice_database::rusqlite::Params;

    use super::*;

    /// The steps in which the database answers a query.
    fn plan(query: &str, params: impl Params) -> Vec<String> {
        let (_dir, store) = crate::store::tests_support::temporary();
        let explained = format!("EXPLAIN QUERY PLAN {query}");
        let plan = store.read(|conn| {
            all(conn, &explained, params, |row| {
                Ok(row.get::<_, String>("detail")?)
            })
        });
        plan.expect("reads")
    }

    #[tokio::test]
    async fn what_is_overdue_is_found_without_a_walk_through_what_is_open() {
        for (what, index) in [
            (UNSENT_TOO_LONG, "operations_unsent (start_by<?)"),
            (UNAPPROVED_TOO_LONG, "operations_held (job=?)"),
            (SILENT_TOO_LONG, "operations_sent (silence_after<?)"),
        ] {
            let plan = plan(what, params![0, 1]);
            let walks = plan.iter().any(|step| step.starts_with("SCAN"));
            let by_index = plan.iter().any(|step| step.ends_with(index));
            assert!(!walks && by_index, "{what}: {plan:#?}");
        }
    }

    #[tokio::test]
    async fn what_rules_of_rollouts_count_is_read_from_indexes_alone() {
        for (what, index) in [
            (ON_MACHINES, "COVERING INDEX operations_on_machines"),
            (WITHOUT_GROUP, "COVERING INDEX operations_ungrouped"),
        ] {
            let plan = plan(what, params!["t", "j", 1]);
            assert!(
                plan.len() == 1 && plan[0].contains(index),
                "{what}: {plan:#?}"
            );
        }
        let plan = plan(NEW_GROUPS, params!["t", "j"]);
        let covered = |step: &String| step.contains("COVERING INDEX operations_groups");
        assert!(plan.iter().any(covered), "{plan:#?}");
    }
}
