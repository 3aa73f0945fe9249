//! Jobs whose machines follow their selector, and the machines that are to be looked at for them.

use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::ids::{JobId, MachineId, TenantId};

use super::StoreError;
use super::row::{
    all, change, exists, first, from_json, only, parsed, signed, time, time_or_null, to_json,
    unsigned,
};
use crate::clock::UnixMillis;
use crate::jobs::Selector;

/// A job whose machines follow its selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaterRow {
    /// The job.
    pub job: JobId,
    /// The tenant that it belongs to.
    pub tenant: TenantId,
    /// What machines match that join.
    pub selector: Selector,
    /// Until when they do: when the job expires.
    pub until: UnixMillis,
    /// How many have joined.
    pub joined: u64,
    /// When its machines were fixed, and why; none while others may join.
    pub closed: Option<(UnixMillis, String)>,
}

/// A machine that is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotedRow {
    /// The machine.
    pub machine: MachineId,
    /// The tenant that it belongs to.
    pub tenant: TenantId,
    /// How often something of it has changed since somebody looked.
    times: u64,
}

/// A machine that matches and may not join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRow {
    /// Its name now.
    pub machine: String,
    /// Since when.
    pub since: UnixMillis,
    /// Why not.
    pub reason: String,
}

/// Stores that a job's machines follow its selector. Whoever came to match it while it was made is found when all machines
/// are looked at, which is due from here on.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn insert(
    conn: &Connection,
    tenant: TenantId,
    job: JobId,
    selector: &Selector,
    until: UnixMillis,
) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT INTO later (job, tenant, selector, until, behind) VALUES (?, ?, ?, ?, 1)",
        params![
            job.to_string(),
            tenant.to_string(),
            to_json(selector)?,
            until.0
        ],
    )?;
    Ok(())
}

/// What is stored of the tenant's job; none where its machines were fixed when it was made.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find(
    conn: &Connection,
    tenant: TenantId,
    job: JobId,
) -> Result<Option<LaterRow>, StoreError> {
    first(
        conn,
        "SELECT * FROM later WHERE tenant = ? AND job = ?",
        params![tenant.to_string(), job.to_string()],
        read,
    )
}

/// Until when machines may join a job of the tenant; none where none may.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn open_until(
    conn: &Connection,
    tenant: TenantId,
    job: JobId,
) -> Result<Option<UnixMillis>, StoreError> {
    first(
        conn,
        "SELECT until FROM later WHERE tenant = ? AND job = ? AND closed IS NULL",
        params![tenant.to_string(), job.to_string()],
        |row| time(row, "until"),
    )
}

/// The tenant's jobs that machines may join, the newest first.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn open(conn: &Connection, tenant: TenantId) -> Result<Vec<LaterRow>, StoreError> {
    all(
        conn,
        "SELECT * FROM later WHERE tenant = ? AND closed IS NULL ORDER BY job DESC",
        params![tenant.to_string()],
        read,
    )
}

/// How many jobs of the tenant machines may join.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn count_open(conn: &Connection, tenant: TenantId) -> Result<u64, StoreError> {
    only(
        conn,
        "SELECT count(*) AS n FROM later WHERE tenant = ? AND closed IS NULL",
        params![tenant.to_string()],
        |row| unsigned(row, "n"),
    )
}

/// Jobs, of all tenants, for which all machines are to be looked at and that may take some now: those whose rollout is not
/// paused. The newest first.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn behind(conn: &Connection) -> Result<Vec<LaterRow>, StoreError> {
    all(conn, BEHIND, [], read)
}

const BEHIND: &str = "SELECT * FROM later
     WHERE closed IS NULL AND behind = 1
         AND NOT EXISTS (SELECT 1 FROM rollouts r WHERE r.job = later.job AND r.state = 'paused')
     ORDER BY job DESC";

/// Says whether all machines are to be looked at for a job.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn set_behind(conn: &Connection, job: JobId, behind: bool) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE later SET behind = ? WHERE job = ?",
        params![behind, job.to_string()],
    )?;
    Ok(())
}

/// Counts machines that have joined.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn add_joined(conn: &Connection, job: JobId, joined: u64) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE later SET joined = joined + ? WHERE job = ?",
        params![signed(joined), job.to_string()],
    )?;
    Ok(())
}

/// Fixes the machines of the tenant's job. Says no where they were.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn close(
    conn: &Connection,
    tenant: TenantId,
    job: JobId,
    reason: &str,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    Ok(change(
        conn,
        "UPDATE later SET closed = ?, reason = ? WHERE tenant = ? AND job = ? AND closed IS NULL",
        params![now.0, reason, tenant.to_string(), job.to_string()],
    )? == 1)
}

/// Jobs, of all tenants, that machines may join and that have expired; so many at most.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn overdue(
    conn: &Connection,
    now: UnixMillis,
    limit: u32,
) -> Result<Vec<(TenantId, JobId)>, StoreError> {
    all(conn, OVERDUE, params![now.0, limit], |row| {
        Ok((parsed(row, "tenant")?, parsed(row, "job")?))
    })
}

const OVERDUE: &str =
    "SELECT tenant, job FROM later WHERE closed IS NULL AND until < ?1 ORDER BY until LIMIT ?2";

/// Notes that something of a machine has changed, where a job of its tenant may be joined; says whether one may.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn note(conn: &Connection, tenant: TenantId, machine: MachineId) -> Result<bool, StoreError> {
    if !exists(conn, ANY_OPEN, params![tenant.to_string()])? {
        return Ok(false);
    }
    change(
        conn,
        "INSERT INTO later_noted (machine, tenant, times) VALUES (?, ?, 1)
         ON CONFLICT (machine) DO UPDATE SET times = times + 1",
        params![machine.to_string(), tenant.to_string()],
    )?;
    Ok(true)
}

const ANY_OPEN: &str = "SELECT 1 FROM later WHERE tenant = ?1 AND closed IS NULL LIMIT 1";

/// Machines that are to be looked at, of one tenant; so many at most.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn noted(conn: &Connection, limit: u32) -> Result<Vec<NotedRow>, StoreError> {
    let mut noted = all(
        conn,
        "SELECT * FROM later_noted ORDER BY machine LIMIT ?",
        params![limit],
        |row| {
            Ok(NotedRow {
                machine: parsed(row, "machine")?,
                tenant: parsed(row, "tenant")?,
                times: unsigned(row, "times")?,
            })
        },
    )?;
    if let Some(tenant) = noted.first().map(|row| row.tenant) {
        noted.retain(|row| row.tenant == tenant);
    }
    Ok(noted)
}

/// Forgets what was looked at. What has changed since stays.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn forget(conn: &Connection, seen: &[NotedRow]) -> Result<(), StoreError> {
    for row in seen {
        change(
            conn,
            "DELETE FROM later_noted WHERE machine = ? AND times = ?",
            params![row.machine.to_string(), signed(row.times)],
        )?;
    }
    Ok(())
}

/// Keeps why a machine may not join. Says whether it was not refused before.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn refuse(
    conn: &Connection,
    job: JobId,
    machine: MachineId,
    reason: &str,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let key = [job.to_string(), machine.to_string()];
    let before = exists(
        conn,
        "SELECT 1 FROM later_refused WHERE job = ? AND machine = ?",
        params![key[0], key[1]],
    )?;
    change(
        conn,
        "INSERT INTO later_refused (job, machine, since, reason) VALUES (?, ?, ?, ?)
         ON CONFLICT (job, machine) DO UPDATE SET reason = excluded.reason",
        params![key[0], key[1], now.0, reason],
    )?;
    Ok(!before)
}

/// Forgets that a machine was refused: it has joined.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn admit(conn: &Connection, job: JobId, machine: MachineId) -> Result<(), StoreError> {
    change(
        conn,
        "DELETE FROM later_refused WHERE job = ? AND machine = ?",
        params![job.to_string(), machine.to_string()],
    )?;
    Ok(())
}

/// How many machines may not join a job, and the first of them.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn refused(
    conn: &Connection,
    job: JobId,
    limit: u32,
) -> Result<(u64, Vec<RefusedRow>), StoreError> {
    let count = only(
        conn,
        "SELECT count(*) AS n FROM later_refused WHERE job = ?",
        params![job.to_string()],
        |row| unsigned(row, "n"),
    )?;
    let rows = all(
        conn,
        "SELECT m.name, r.since, r.reason FROM later_refused r JOIN machines m ON m.id = r.machine
         WHERE r.job = ? ORDER BY r.since, r.machine LIMIT ?",
        params![job.to_string(), limit],
        |row| {
            Ok(RefusedRow {
                machine: row.get("name")?,
                since: time(row, "since")?,
                reason: row.get("reason")?,
            })
        },
    )?;
    Ok((count, rows))
}

fn read(row: &Row<'_>) -> Result<LaterRow, StoreError> {
    let reason: Option<String> = row.get("reason")?;
    Ok(LaterRow {
        job: parsed(row, "job")?,
        tenant: parsed(row, "tenant")?,
        selector: from_json(row, "selector")?,
        until: time(row, "until")?,
        joined: unsigned(row, "joined")?,
        closed: time_or_null(row, "closed")?.map(|at| (at, reason.unwrap_or_default())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_asked_again_and_again_walks_through_no_job_that_is_closed() {
        let (_dir, store) = crate::store::tests_support::temporary();
        for (what, index) in [
            (BEHIND, "later_behind"),
            (OVERDUE, "later_until (until<?)"),
            (ANY_OPEN, "later_open (tenant=?)"),
        ] {
            let plan = store
                .read(|conn| {
                    let plan = format!("EXPLAIN QUERY PLAN {what}");
                    let mut plan = conn.prepare(&plan)?;
                    let count = plan.parameter_count();
                    let none = vec![0_i64; count];
                    let rows = sluice_database::rusqlite::params_from_iter(none);
                    let steps = plan.query_map(rows, |row| row.get::<_, String>("detail"))?;
                    Ok::<_, StoreError>(steps.collect::<Result<Vec<_>, _>>()?)
                })
                .expect("reads");
            assert!(
                plan.iter().any(|step| step.contains(index)),
                "{what}: {plan:#?}"
            );
        }
    }
}
