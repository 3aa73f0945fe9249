//! Operations: a job's run on one machine. Every change of state is one statement that says from which states it may
//! come, so that of two who want to end an operation exactly one does.

use sluice_protocol::codec;
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::State;
use sluice_protocol::ids::{JobId, MachineId, OperationId, TenantId};
use sluice_protocol::report::Report;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::StoreError;
use super::row::{parsed, parsed_or_null, signed, unsigned};
use crate::clock::UnixMillis;

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
}

/// The reports about an operation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reports {
    /// The one that counts.
    pub report: Option<Report>,
    /// What the machine said after the host had given it up.
    pub late: Option<Report>,
}

/// Stores an operation that has not ended.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn insert(
    conn: &mut SqliteConnection,
    operation: &OperationRow,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO operations (id, tenant, job, machine, machine_name, position, state, ended, bundle_sha256, silence_after, output_limit)
         VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?)",
    )
    .bind(operation.id.to_string())
    .bind(operation.tenant.to_string())
    .bind(operation.job.to_string())
    .bind(operation.machine.map(|id| id.to_string()))
    .bind(&operation.machine_name)
    .bind(signed(operation.position))
    .bind(operation.state.as_str())
    .bind(operation.bundle_sha256.map(|digest| digest.to_string()))
    .bind(operation.silence_after.0)
    .bind(signed(operation.output_limit))
    .execute(conn)
    .await?;
    Ok(())
}

/// The tenant's operation with this id.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn find(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    id: OperationId,
) -> Result<Option<OperationRow>, StoreError> {
    let row = sqlx::query("SELECT * FROM operations WHERE tenant = ? AND id = ?")
        .bind(tenant.to_string())
        .bind(id.to_string())
        .fetch_optional(conn)
        .await?;
    row.map(|row| read(&row)).transpose()
}

/// The reports about the tenant's operation.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn reports(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    id: OperationId,
) -> Result<Reports, StoreError> {
    let row = sqlx::query("SELECT report, late_report FROM operations WHERE tenant = ? AND id = ?")
        .bind(tenant.to_string())
        .bind(id.to_string())
        .fetch_optional(conn)
        .await?;
    let Some(row) = row else {
        return Ok(Reports::default());
    };
    let decode = |column| -> Result<Option<Report>, StoreError> {
        let bytes: Option<&[u8]> = row.try_get(column)?;
        bytes
            .map(|bytes| {
                codec::decode(bytes)
                    .map_err(|error| StoreError::Corrupt(format!("{column}: {error}")))
            })
            .transpose()
    };
    Ok(Reports {
        report: decode("report")?,
        late: decode("late_report")?,
    })
}

/// All operations of a job, in the order of the request.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn of_job(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    job: JobId,
) -> Result<Vec<OperationRow>, StoreError> {
    let rows =
        sqlx::query("SELECT * FROM operations WHERE tenant = ? AND job = ? ORDER BY position")
            .bind(tenant.to_string())
            .bind(job.to_string())
            .fetch_all(conn)
            .await?;
    rows.iter().map(read).collect()
}

/// All operations of a machine that have not ended, the oldest first.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn open_of_machine(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    machine: MachineId,
) -> Result<Vec<OperationRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM operations WHERE machine = ? AND ended = 0 AND tenant = ? ORDER BY id",
    )
    .bind(machine.to_string())
    .bind(tenant.to_string())
    .fetch_all(conn)
    .await?;
    rows.iter().map(read).collect()
}

/// Operations, of all tenants, that have not ended and whose time is over: those still queued whose job's `not_after`
/// has passed, and the others after their silence.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn overdue(
    conn: &mut SqliteConnection,
    now: UnixMillis,
    limit: u32,
) -> Result<Vec<OperationRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT o.* FROM operations o JOIN jobs j ON j.id = o.job WHERE o.ended = 0
             AND CASE WHEN o.state IN ('held', 'queued') THEN j.not_after < ?1 ELSE o.silence_after < ?1 END
         ORDER BY o.id LIMIT ?2",
    )
    .bind(now.0)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    rows.iter().map(read).collect()
}

/// Takes the step from `queued` to `delivered`: from here on the machine alone ends it. Says no where it had been taken,
/// or the operation had ended.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn set_delivered(
    conn: &mut SqliteConnection,
    id: OperationId,
) -> Result<bool, StoreError> {
    let done =
        sqlx::query("UPDATE operations SET state = 'delivered' WHERE id = ? AND state = 'queued'")
            .bind(id.to_string())
            .execute(conn)
            .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes a step of a machine's progress, which only goes forward. Says no where it changed nothing.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn set_progress(
    conn: &mut SqliteConnection,
    machine: MachineId,
    id: OperationId,
    state: State,
    started: Option<UnixMillis>,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE operations SET state = ?1, started = coalesce(?2, started) WHERE id = ?3 AND machine = ?4 AND ended = 0
             AND CASE state WHEN 'delivered' THEN 1 WHEN 'accepted' THEN 2 WHEN 'checking' THEN 3 WHEN 'running' THEN 4 ELSE 9 END
               < CASE ?1 WHEN 'accepted' THEN 2 WHEN 'checking' THEN 3 WHEN 'running' THEN 4 ELSE 0 END",
    )
    .bind(state.as_str())
    .bind(started.map(|at| at.0))
    .bind(id.to_string())
    .bind(machine.to_string())
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends an operation that is in one of the states of `from`; says no where it was not.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn end(
    conn: &mut SqliteConnection,
    id: OperationId,
    from: From,
    report: &Report,
) -> Result<bool, StoreError> {
    let bytes = codec::encode(report).map_err(|error| StoreError::Corrupt(error.to_string()))?;
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
    let done = sqlx::query(statement)
        .bind(report.ending.state().as_str())
        .bind(UnixMillis::from_wire(report.finished_at).0)
        .bind(report.ending.message())
        .bind(report.exit_code())
        .bind(bytes)
        .bind(id.to_string())
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
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
pub async fn keep_late_report(
    conn: &mut SqliteConnection,
    id: OperationId,
    report: &Report,
) -> Result<bool, StoreError> {
    let bytes = codec::encode(report).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    let done = sqlx::query("UPDATE operations SET late_report = ?1 WHERE id = ?2 AND late_report IS NULL AND report IS NOT ?1")
        .bind(bytes)
        .bind(id.to_string())
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Records who wants an operation ended that the machine has, or may have. The first one stays.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn set_cancel(
    conn: &mut SqliteConnection,
    id: OperationId,
    by: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE operations SET cancel_by = coalesce(cancel_by, ?) WHERE id = ? AND ended = 0",
    )
    .bind(by)
    .bind(id.to_string())
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether an operation of this machine that has not ended comes with these bytes as an attachment.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn open_names_attachment(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    machine: MachineId,
    sha256: Digest,
) -> Result<bool, StoreError> {
    let row = sqlx::query(
        "SELECT 1 FROM operations o JOIN job_attachments a ON a.job = o.job AND a.tenant = o.tenant
         WHERE o.machine = ? AND o.ended = 0 AND o.tenant = ? AND a.sha256 = ? LIMIT 1",
    )
    .bind(machine.to_string())
    .bind(tenant.to_string())
    .bind(sha256.to_string())
    .fetch_optional(conn)
    .await?;
    Ok(row.is_some())
}

/// How many operations are in each state, of all tenants.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn count_open(conn: &mut SqliteConnection) -> Result<Vec<(String, u64)>, StoreError> {
    let rows = sqlx::query(
        "SELECT state, count(*) AS n FROM operations WHERE ended = 0 GROUP BY state ORDER BY state",
    )
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| Ok((row.try_get("state")?, unsigned(row, "n")?)))
        .collect()
}

fn read(row: &SqliteRow) -> Result<OperationRow, StoreError> {
    let state: &str = row.try_get("state")?;
    Ok(OperationRow {
        id: parsed(row, "id")?,
        tenant: parsed(row, "tenant")?,
        job: parsed(row, "job")?,
        machine: parsed_or_null(row, "machine")?,
        machine_name: row.try_get("machine_name")?,
        position: unsigned(row, "position")?,
        state: State::from_word(state)
            .ok_or_else(|| StoreError::Corrupt(format!("state {state}")))?,
        bundle_sha256: parsed_or_null(row, "bundle_sha256")?,
        silence_after: UnixMillis(row.try_get("silence_after")?),
        output_limit: unsigned(row, "output_limit")?,
        started: row.try_get::<Option<i64>, _>("started")?.map(UnixMillis),
        message: row.try_get("message")?,
        exit_code: row.try_get("exit_code")?,
        cancel_by: row.try_get("cancel_by")?,
    })
}
