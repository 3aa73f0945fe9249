//! Lists of jobs. Whatever a list is narrowed to, one part of it looks at a bounded number of jobs, each found by an index:
//! the narrowest filter says which jobs come into question, the newest first, and the others are asked of each of these.
//! Every statement has the tenant in it, and names the columns of an index alone, but for the states on one machine.

use sluice_database::rusqlite::{Connection, Params, params};
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::State;
use sluice_protocol::ids::{JobId, MachineId, TenantId};

use super::StoreError;
use super::row::{exists, first, only, parsed, time, unsigned};
use super::scripts;
use crate::clock::UnixMillis;
use crate::library::{ScriptName, VersionId};

/// How many jobs one part of a list looks at. What is looked up for one of them takes tens of microseconds.
const LOOKED_AT: usize = 1000;

/// How far the order of ids may be from that of the times of jobs, in milliseconds: what is older than `since`, or newer than
/// `until`, by more than that is not looked at. A clock that was set back by more than a day is another matter.
const DISORDER: i64 = 24 * 60 * 60 * 1000;

/// After every id.
const NEWEST: &str = "~";

/// What a list is narrowed to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobFilter {
    /// With an operation on this machine.
    pub machine: Option<MachineId>,
    /// With an operation (on the machine, where one is given) in one of these states. They have either all ended, or there
    /// is one; any state where empty.
    pub states: Vec<State>,
    /// That ran a version of this script.
    pub script: Option<ScriptName>,
    /// That this operator submitted.
    pub operator: Option<String>,
    /// Submitted then or later.
    pub since: Option<UnixMillis>,
    /// Submitted before.
    pub until: Option<UnixMillis>,
}

/// A job in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobLine {
    /// Its id.
    pub id: JobId,
    /// The operator's name.
    pub operator: String,
    /// When it was accepted.
    pub submitted: UnixMillis,
    /// Of the bytes submitted.
    pub script_sha256: Digest,
    /// Where the script is one of the library.
    pub script: Option<VersionId>,
    /// How many operations it has.
    pub operations: u64,
    /// How many of them have ended.
    pub ended: u64,
    /// How many of them succeeded.
    pub succeeded: u64,
    /// Until when machines may join it that match later; none where none may.
    pub open_until: Option<UnixMillis>,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The newest first.
    pub lines: Vec<JobLine>,
    /// From before which job the list goes on; none where it ends here. It may go on where this part is not full.
    pub next: Option<JobId>,
}

/// Jobs, the newest first, from before `before` where one is given, `limit` at most.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn list(
    conn: &Connection,
    tenant: TenantId,
    filter: &JobFilter,
    before: Option<JobId>,
    limit: u32,
) -> Result<Part, StoreError> {
    list_among(conn, tenant, filter, before, limit, LOOKED_AT)
}

fn list_among(
    conn: &Connection,
    tenant: TenantId,
    filter: &JobFilter,
    before: Option<JobId>,
    limit: u32,
    most: usize,
) -> Result<Part, StoreError> {
    let tenant = tenant.to_string();
    let mut lines = Vec::new();
    let Some(oldest) = oldest(conn, &tenant, filter)? else {
        return Ok(Part { lines, next: None });
    };
    let mut place = newest(conn, &tenant, filter, before)?;
    let mut next = None;
    for _ in 0..most {
        let id = older(conn, &tenant, filter, &place)?;
        let Some(id) = id.filter(|id| id.to_string() >= oldest) else {
            return Ok(Part { lines, next: None });
        };
        place = id.to_string();
        next = Some(id);
        lines.extend(line(conn, &tenant, filter, &place)?);
        if lines.len() == limit as usize {
            break;
        }
    }
    Ok(Part { lines, next })
}

/// Before which id the list begins.
fn newest(
    conn: &Connection,
    tenant: &str,
    filter: &JobFilter,
    before: Option<JobId>,
) -> Result<String, StoreError> {
    let before = before.map_or_else(|| NEWEST.to_owned(), |id| id.to_string());
    let Some(until) = filter.until else {
        return Ok(before);
    };
    let from = until.0.saturating_add(DISORDER);
    let newer = id(conn, FIRST_FROM, params![tenant, from])?;
    Ok(match newer {
        Some(newer) => before.min(newer.to_string()),
        None => before,
    })
}

/// With which id the list ends; none where nothing is as new as `since` asks.
fn oldest(
    conn: &Connection,
    tenant: &str,
    filter: &JobFilter,
) -> Result<Option<String>, StoreError> {
    let Some(since) = filter.since else {
        return Ok(Some(String::new()));
    };
    let first = id(
        conn,
        FIRST_FROM,
        params![tenant, since.0.saturating_sub(DISORDER)],
    )?;
    Ok(first.map(|id| id.to_string()))
}

const FIRST_FROM: &str =
    "SELECT id FROM jobs WHERE tenant = ?1 AND submitted >= ?2 ORDER BY submitted, id LIMIT 1";

const ON_MACHINE: &str = "SELECT job AS id FROM operations WHERE tenant = ?1 AND machine = ?2 AND job < ?3 ORDER BY job DESC LIMIT 1";

const OF_SCRIPT: &str = "SELECT id FROM jobs WHERE tenant = ?1 AND script_name = ?2 AND id < ?3 ORDER BY id DESC LIMIT 1";

const WITH_OUTCOME: &str = "SELECT job AS id FROM operations WHERE tenant = ?1 AND state = ?2 AND ended = 1 AND job < ?3 ORDER BY job DESC LIMIT 1";

const UNENDED: &str = "SELECT job AS id FROM operations WHERE tenant = ?1 AND ended = 0 AND job < ?2 ORDER BY job DESC LIMIT 1";

const OF_OPERATOR: &str =
    "SELECT id FROM jobs WHERE tenant = ?1 AND operator = ?2 AND id < ?3 ORDER BY id DESC LIMIT 1";

const ANY: &str = "SELECT id FROM jobs WHERE tenant = ?1 AND id < ?2 ORDER BY id DESC LIMIT 1";

/// The newest job before the id `place` that the narrowest filter leaves.
fn older(
    conn: &Connection,
    tenant: &str,
    filter: &JobFilter,
    place: &str,
) -> Result<Option<JobId>, StoreError> {
    if let Some(machine) = filter.machine {
        return id(
            conn,
            ON_MACHINE,
            params![tenant, machine.to_string(), place],
        );
    }
    if let Some(script) = &filter.script {
        return id(conn, OF_SCRIPT, params![tenant, script.as_str(), place]);
    }
    if let [state] = filter.states[..]
        && !state.is_terminal()
    {
        return id(conn, UNENDED, params![tenant, place]);
    }
    if !filter.states.is_empty() {
        let mut newest = None;
        for state in &filter.states {
            let found = id(conn, WITH_OUTCOME, params![tenant, state.as_str(), place])?;
            newest = newest.max(found);
        }
        return Ok(newest);
    }
    if let Some(operator) = &filter.operator {
        return id(conn, OF_OPERATOR, params![tenant, operator, place]);
    }
    id(conn, ANY, params![tenant, place])
}

fn id(conn: &Connection, query: &str, params: impl Params) -> Result<Option<JobId>, StoreError> {
    first(conn, query, params, |row| parsed(row, "id"))
}

/// The index is named because SQLite else finds the row by its id alone, and with it the script.
const HEAD: &str = "SELECT id, operator, submitted, script_sha256, script_name, script_version
     FROM jobs INDEXED BY jobs_tenant WHERE tenant = ?1 AND id = ?2";

const COUNTS: &str = "SELECT
     (SELECT count(*) FROM operations WHERE tenant = ?1 AND job = ?2) AS operations,
     (SELECT count(*) FROM operations WHERE tenant = ?1 AND job = ?2 AND ended = 0) AS unended,
     (SELECT count(*) FROM operations WHERE tenant = ?1 AND state = 'succeeded' AND ended = 1 AND job = ?2) AS succeeded";

/// The line of the job with this id, where it is what the filter asks for.
fn line(
    conn: &Connection,
    tenant: &str,
    filter: &JobFilter,
    id: &str,
) -> Result<Option<JobLine>, StoreError> {
    let head = first(conn, HEAD, params![tenant, id], |row| {
        Ok(JobLine {
            id: parsed(row, "id")?,
            operator: row.get("operator")?,
            submitted: time(row, "submitted")?,
            script_sha256: parsed(row, "script_sha256")?,
            script: scripts::of_job(row)?,
            operations: 0,
            ended: 0,
            succeeded: 0,
            open_until: None,
        })
    })?;
    let Some(head) = head else { return Ok(None) };
    if !is_asked_for(filter, &head) || !has_operation(conn, tenant, filter, id)? {
        return Ok(None);
    }
    let (operations, unended, succeeded) = only(conn, COUNTS, params![tenant, id], |row| {
        Ok((
            unsigned(row, "operations")?,
            unsigned(row, "unended")?,
            unsigned(row, "succeeded")?,
        ))
    })?;
    Ok(Some(JobLine {
        operations,
        ended: operations.saturating_sub(unended),
        succeeded,
        open_until: time_of_joining(conn, tenant, id)?,
        ..head
    }))
}

const OPEN_UNTIL: &str =
    "SELECT until FROM later WHERE tenant = ?1 AND job = ?2 AND closed IS NULL";

fn time_of_joining(
    conn: &Connection,
    tenant: &str,
    id: &str,
) -> Result<Option<UnixMillis>, StoreError> {
    first(conn, OPEN_UNTIL, params![tenant, id], |row| {
        time(row, "until")
    })
}

fn is_asked_for(filter: &JobFilter, job: &JobLine) -> bool {
    let of_script = job.script.as_ref().map(|version| &version.name);
    filter
        .script
        .as_ref()
        .is_none_or(|name| of_script == Some(name))
        && filter
            .operator
            .as_ref()
            .is_none_or(|name| *name == job.operator)
        && filter.since.is_none_or(|since| job.submitted >= since)
        && filter.until.is_none_or(|until| job.submitted < until)
}

const ON_MACHINE_IN: &str = "SELECT 1 FROM operations INDEXED BY operations_machine
     WHERE tenant = ?1 AND machine = ?2 AND job = ?3 AND state = ?4";

const OUTCOME_IN: &str =
    "SELECT 1 FROM operations WHERE tenant = ?1 AND state = ?2 AND ended = 1 AND job = ?3";

const UNENDED_IN: &str = "SELECT 1 FROM operations INDEXED BY operations_unended
     WHERE tenant = ?1 AND state = ?2 AND ended = 0 AND job = ?3";

/// Whether an operation of the job is in one of the states that are asked for, on the machine that is. That the job has one
/// on the machine at all is how it came into question.
fn has_operation(
    conn: &Connection,
    tenant: &str,
    filter: &JobFilter,
    id: &str,
) -> Result<bool, StoreError> {
    for state in &filter.states {
        let word = state.as_str();
        let found = match filter.machine {
            Some(machine) => exists(
                conn,
                ON_MACHINE_IN,
                params![tenant, machine.to_string(), id, word],
            ),
            None if state.is_terminal() => exists(conn, OUTCOME_IN, params![tenant, word, id]),
            None => exists(conn, UNENDED_IN, params![tenant, word, id]),
        }?;
        if found {
            return Ok(true);
        }
    }
    Ok(filter.states.is_empty())
}

#[cfg(test)]
mod tests;
