//! Schedules, and what became of their runs.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sluice_api_types::job::SubmitJob;
use sluice_api_types::schedule::{MachineEvent, OnMissed, OnOverlap, RunState};
use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::{JobId, ScheduleId, TenantId};
use sluice_protocol::units::Span;
use uuid::Uuid;

use super::StoreError;
use super::row::{
    all, bytes, change, first, from_json, only, parsed, parsed_or_null, signed, time, time_or_null,
    to_json, unsigned, word,
};
use crate::clock::UnixMillis;

/// A schedule as it is stored, without its script.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleRow {
    /// Its id.
    pub id: ScheduleId,
    /// The tenant that it belongs to.
    pub tenant: TenantId,
    /// Its name.
    pub name: String,
    /// The owner's token.
    pub token: Uuid,
    /// The owner's name.
    pub operator: String,
    /// When it runs.
    pub timing: StoredTiming,
    /// How much later than planned a run may start.
    pub jitter: Span,
    /// What becomes of missed runs.
    pub missed: OnMissed,
    /// What becomes of a run while the one before has not ended.
    pub overlap: OnOverlap,
    /// What is submitted, without the script.
    pub job: SubmitJob,
    /// Of the script.
    pub script_sha256: Digest,
    /// When it was made.
    pub created: UnixMillis,
    /// When it was paused, and by whom.
    pub paused: Option<(UnixMillis, String)>,
    /// Everything planned up to here is settled.
    pub settled: UnixMillis,
    /// When there is something to do.
    pub next_due: Option<UnixMillis>,
}

/// When a schedule runs, as it is written down. Zones and expressions are text here: what one version of the program
/// can read, another may not, and one schedule's trouble is not another's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum StoredTiming {
    /// Once.
    Once {
        /// Milliseconds since 1970.
        at: i64,
        /// Its name.
        zone: String,
    },
    /// At an interval.
    Every {
        /// In milliseconds.
        interval: u64,
        /// Milliseconds since 1970.
        from: i64,
    },
    /// By a calendar.
    Calendar {
        /// Five fields.
        expression: String,
        /// Its name.
        zone: String,
    },
    /// When something happens to a machine.
    Event {
        /// What.
        event: MachineEvent,
        /// In milliseconds.
        at_most_every: u64,
    },
}

/// What became of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRow {
    /// When it was planned. Of several that were missed, the last.
    pub planned: UnixMillis,
    /// Where it is.
    pub state: RunState,
    /// Whether it makes up for one that was missed.
    pub late: bool,
    /// When that was.
    pub at: UnixMillis,
    /// The job.
    pub job: Option<JobId>,
    /// What there is to say.
    pub reason: Option<String>,
    /// How many planned runs this is about.
    pub runs: u64,
}

/// Stores a schedule; says no where the tenant has one of that name.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn insert(conn: &Connection, row: &ScheduleRow, script: &[u8]) -> Result<bool, StoreError> {
    Ok(change(
        conn,
        "INSERT INTO schedules (id, tenant, name, token, operator, timing, jitter, missed, overlap, job, script,
                                script_sha256, created, settled, next_due, event)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (tenant, name) WHERE removed IS NULL DO NOTHING",
        params![
            row.id.to_string(),
            row.tenant.to_string(),
            &row.name,
            row.token.to_string(),
            &row.operator,
            to_json(&row.timing)?,
            signed(row.jitter.0),
            missed_word(row.missed),
            overlap_word(row.overlap),
            to_json(&row.job)?,
            script,
            row.script_sha256.to_string(),
            row.created.0,
            row.settled.0,
            row.next_due.map(|at| at.0),
            match row.timing {
                StoredTiming::Event { event, .. } => Some(event.as_str()),
                _ => None,
            },
        ],
    )? == 1)
}

/// A query for [`ScheduleRow`]s: it leaves the script out, which may be large.
macro_rules! schedules {
    ($which:literal) => {
        concat!(
            "SELECT id, tenant, name, token, operator, timing, jitter, missed, overlap, job, script_sha256,
                    created, paused, paused_by, settled, next_due
             FROM schedules WHERE removed IS NULL ",
            $which
        )
    };
}

/// How many schedules a tenant has.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn count(conn: &Connection, tenant: TenantId) -> Result<u64, StoreError> {
    only(
        conn,
        "SELECT count(*) AS n FROM schedules WHERE tenant = ? AND removed IS NULL",
        params![tenant.to_string()],
        |row| unsigned(row, "n"),
    )
}

/// The tenant's schedule with this name or id.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find(
    conn: &Connection,
    tenant: TenantId,
    typed: &str,
) -> Result<Option<ScheduleRow>, StoreError> {
    first(
        conn,
        schedules!("AND tenant = ?1 AND (name = ?2 OR id = ?2)"),
        params![tenant.to_string(), typed],
        read,
    )
}

/// The tenant's schedules in the order of their names, from behind `after` on.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn list(
    conn: &Connection,
    tenant: TenantId,
    after: &str,
    limit: u32,
) -> Result<Vec<ScheduleRow>, StoreError> {
    all(
        conn,
        schedules!("AND tenant = ? AND name > ? ORDER BY name LIMIT ?"),
        params![tenant.to_string(), after, limit],
        read,
    )
}

/// The script of a schedule.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn script(conn: &Connection, tenant: TenantId, id: ScheduleId) -> Result<Vec<u8>, StoreError> {
    only(
        conn,
        "SELECT script FROM schedules WHERE tenant = ? AND id = ?",
        params![tenant.to_string(), id.to_string()],
        |row| Ok(bytes(row, "script")?.to_vec()),
    )
}

/// Schedules, of all tenants, for which there is something to do: those that are due, and those that are ahead of a clock
/// that was set back.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn due(conn: &Connection, now: UnixMillis, limit: u32) -> Result<Vec<ScheduleRow>, StoreError> {
    let mut rows = all(
        conn,
        schedules!("AND next_due <= ? ORDER BY next_due LIMIT ?"),
        params![now.0, limit],
        read,
    )?;
    rows.extend(all(
        conn,
        schedules!(
            "AND paused IS NULL AND settled > ?1 AND (next_due IS NULL OR next_due > ?1) LIMIT ?2"
        ),
        params![now.0, limit],
        read,
    )?);
    Ok(rows)
}

/// When a schedule of any tenant is due next.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn next_due(conn: &Connection) -> Result<Option<UnixMillis>, StoreError> {
    only(
        conn,
        "SELECT min(next_due) AS next_due FROM schedules WHERE next_due IS NOT NULL",
        [],
        |row| time_or_null(row, "next_due"),
    )
}

/// Records up to where a schedule is settled, and when it is due next.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn set_next(
    conn: &Connection,
    id: ScheduleId,
    settled: UnixMillis,
    next_due: Option<UnixMillis>,
) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE schedules SET settled = ?, next_due = ? WHERE id = ?",
        params![settled.0, next_due.map(|at| at.0), id.to_string()],
    )?;
    Ok(())
}

/// Pauses a schedule, or goes on with it.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn set_paused(
    conn: &Connection,
    id: ScheduleId,
    paused: Option<(UnixMillis, &str)>,
) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE schedules SET paused = ?, paused_by = ?, next_due = NULL WHERE id = ?",
        params![
            paused.map(|(at, _)| at.0),
            paused.map(|(_, by)| by),
            id.to_string()
        ],
    )?;
    Ok(())
}

/// Pauses all schedules of a tenant that are not paused.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn pause_all_of(
    conn: &Connection,
    tenant: TenantId,
    by: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE schedules SET paused = ?, paused_by = ?, next_due = NULL
         WHERE tenant = ? AND paused IS NULL AND removed IS NULL",
        params![now.0, by, tenant.to_string()],
    )?;
    Ok(())
}

/// Removes a schedule. What it ran stays on record.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn remove(conn: &Connection, id: ScheduleId, now: UnixMillis) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE schedules SET removed = ?, next_due = NULL WHERE id = ?",
        params![now.0, id.to_string()],
    )?;
    Ok(())
}

/// Records what becomes of a run, instead of what was recorded of it before.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn put_run(
    conn: &Connection,
    tenant: TenantId,
    schedule: ScheduleId,
    run: &RunRow,
) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT INTO schedule_runs (tenant, schedule, planned, state, late, at, job, reason, runs)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (schedule, planned) DO UPDATE SET state = excluded.state, late = excluded.late,
             at = excluded.at, job = excluded.job, reason = excluded.reason, runs = excluded.runs",
        params![
            tenant.to_string(),
            schedule.to_string(),
            run.planned.0,
            state_word(run.state),
            run.late,
            run.at.0,
            run.job.map(|job| job.to_string()),
            &run.reason,
            signed(run.runs),
        ],
    )?;
    Ok(())
}

/// What is planned after `after` and has run, or waits to.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn ran_after(
    conn: &Connection,
    schedule: ScheduleId,
    after: UnixMillis,
) -> Result<BTreeSet<UnixMillis>, StoreError> {
    let runs = all(
        conn,
        "SELECT planned FROM schedule_runs WHERE schedule = ? AND planned > ? AND state <> 'missed'",
        params![schedule.to_string(), after.0],
        |row| time(row, "planned"),
    )?;
    Ok(runs.into_iter().collect())
}

/// Schedules, of all tenants, that have a run waiting.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn with_waiting(conn: &Connection) -> Result<Vec<ScheduleRow>, StoreError> {
    all(
        conn,
        schedules!(
            "AND id IN (SELECT schedule FROM schedule_runs WHERE state = 'waiting') ORDER BY id"
        ),
        [],
        read,
    )
}

/// The runs of a schedule that wait, the oldest first.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn waiting(conn: &Connection, schedule: ScheduleId) -> Result<Vec<RunRow>, StoreError> {
    all(
        conn,
        "SELECT * FROM schedule_runs WHERE schedule = ? AND state = 'waiting' ORDER BY planned",
        params![schedule.to_string()],
        read_run,
    )
}

/// The run of a schedule that waits the longest.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn waits(conn: &Connection, schedule: ScheduleId) -> Result<Option<RunRow>, StoreError> {
    first(
        conn,
        "SELECT * FROM schedule_runs WHERE schedule = ? AND state = 'waiting' ORDER BY planned LIMIT 1",
        params![schedule.to_string()],
        read_run,
    )
}

/// A job of a schedule of which an operation runs, as far as the host can know: what was sent and has not ended. One with a
/// rollout goes on by itself, so that it runs for as long as some of it is held.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn running_job(
    conn: &Connection,
    tenant: TenantId,
    schedule: ScheduleId,
) -> Result<Option<JobId>, StoreError> {
    // Any of them: which one is the latest neither ids nor planned times tell, when a clock may have been ahead.
    let job = first(
        conn,
        // From what is open to what the schedule made: its history grows for ever.
        "SELECT r.job FROM operations o CROSS JOIN schedule_runs r
         WHERE o.ended = 0 AND o.tenant = ?1 AND o.state <> 'queued'
           AND (o.state <> 'held' OR o.batch IS NOT NULL) AND r.schedule = ?2 AND r.job = o.job LIMIT 1",
        params![tenant.to_string(), schedule.to_string()],
        |row| parsed_or_null(row, "job"),
    )?;
    Ok(job.flatten())
}

/// What became of a schedule's runs, the latest planned first, from before `before` where one is given.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn runs(
    conn: &Connection,
    schedule: ScheduleId,
    before: Option<UnixMillis>,
    limit: u32,
) -> Result<Vec<RunRow>, StoreError> {
    all(
        conn,
        "SELECT * FROM schedule_runs WHERE schedule = ?1 AND (?2 IS NULL OR planned < ?2)
         ORDER BY planned DESC LIMIT ?3",
        params![schedule.to_string(), before.map(|at| at.0), limit],
        read_run,
    )
}

fn read(row: &Row<'_>) -> Result<ScheduleRow, StoreError> {
    let by: Option<String> = row.get("paused_by")?;
    Ok(ScheduleRow {
        id: parsed(row, "id")?,
        tenant: parsed(row, "tenant")?,
        name: row.get("name")?,
        token: parsed(row, "token")?,
        operator: row.get("operator")?,
        timing: from_json(row, "timing")?,
        jitter: Span(unsigned(row, "jitter")?),
        missed: word(row, "missed", |word| {
            [OnMissed::Skip, OnMissed::Once, OnMissed::All]
                .into_iter()
                .find(|missed| missed_word(*missed) == word)
        })?,
        overlap: word(row, "overlap", |word| {
            [OnOverlap::Skip, OnOverlap::Queue, OnOverlap::Cancel]
                .into_iter()
                .find(|overlap| overlap_word(*overlap) == word)
        })?,
        job: from_json(row, "job")?,
        script_sha256: parsed(row, "script_sha256")?,
        created: time(row, "created")?,
        paused: time_or_null(row, "paused")?.zip(by),
        settled: time(row, "settled")?,
        next_due: time_or_null(row, "next_due")?,
    })
}

fn read_run(row: &Row<'_>) -> Result<RunRow, StoreError> {
    Ok(RunRow {
        planned: time(row, "planned")?,
        state: word(row, "state", run_state)?,
        late: row.get("late")?,
        at: time(row, "at")?,
        job: parsed_or_null(row, "job")?,
        reason: row.get("reason")?,
        runs: unsigned(row, "runs")?,
    })
}

const fn missed_word(missed: OnMissed) -> &'static str {
    match missed {
        OnMissed::Skip => "skip",
        OnMissed::Once => "once",
        OnMissed::All => "all",
    }
}

const fn overlap_word(overlap: OnOverlap) -> &'static str {
    match overlap {
        OnOverlap::Skip => "skip",
        OnOverlap::Queue => "queue",
        OnOverlap::Cancel => "cancel",
    }
}

pub(super) fn run_state(word: &str) -> Option<RunState> {
    [RunState::Waiting, RunState::Fired, RunState::Missed]
        .into_iter()
        .find(|state| state_word(*state) == word)
}

pub(super) const fn state_word(state: RunState) -> &'static str {
    match state {
        RunState::Waiting => "waiting",
        RunState::Fired => "fired",
        RunState::Missed => "missed",
    }
}
