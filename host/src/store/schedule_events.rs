//! What happened to machines that schedules run for, and what became of it.

use sluice_api_types::schedule::{MachineEvent, RunState};
use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::ids::{JobId, MachineId, ScheduleId, TenantId};
use sluice_protocol::units::Span;

use super::StoreError;
use super::row::{
    all, change, first, only, parsed, parsed_or_null, signed, time, time_or_null, word,
};
use super::schedules::{run_state, state_word};
use crate::clock::UnixMillis;

/// Something that happened to a machine, for one schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// The tenant that both belong to.
    pub tenant: TenantId,
    /// The schedule.
    pub schedule: ScheduleId,
    /// The machine.
    pub machine: MachineId,
    /// Its name now.
    pub machine_name: String,
    /// When it happened.
    pub at: UnixMillis,
    /// When the run is due.
    pub due: UnixMillis,
    /// Where the run is.
    pub state: RunState,
    /// Since when it is that.
    pub settled: UnixMillis,
    /// The job.
    pub job: Option<JobId>,
    /// What there is to say.
    pub reason: Option<String>,
}

/// The tenant's schedules that run at such an event, and are not paused.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn schedules_of(
    conn: &Connection,
    tenant: TenantId,
    event: MachineEvent,
) -> Result<Vec<ScheduleId>, StoreError> {
    all(
        conn,
        "SELECT id FROM schedules
         WHERE tenant = ? AND event = ? AND event IS NOT NULL AND removed IS NULL AND paused IS NULL ORDER BY id",
        params![tenant.to_string(), event.as_str()],
        |row| parsed(row, "id"),
    )
}

/// When a schedule had an event of a machine last, within `span` before or after `now`, and whether a run of it waits.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn latest(
    conn: &Connection,
    schedule: ScheduleId,
    machine: MachineId,
    span: Span,
    now: UnixMillis,
) -> Result<Option<(UnixMillis, RunState)>, StoreError> {
    // What is far ahead was noted by a clock that was wrong, and must not keep runs away until then.
    first(
        conn,
        "SELECT due, state FROM schedule_events
         WHERE schedule = ?1 AND machine = ?2 AND (state = 'waiting' OR due BETWEEN ?3 - ?4 + 1 AND ?3 + ?4)
         ORDER BY state = 'waiting' DESC, due DESC LIMIT 1",
        params![schedule.to_string(), machine.to_string(), now.0, signed(span.0)],
        |row| Ok((time(row, "due")?, word(row, "state", run_state)?)),
    )
}

/// Notes that a run of a schedule waits for its time.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn insert(
    conn: &Connection,
    tenant: TenantId,
    schedule: ScheduleId,
    machine: MachineId,
    at: UnixMillis,
    due: UnixMillis,
) -> Result<bool, StoreError> {
    Ok(change(
        conn,
        "INSERT INTO schedule_events (tenant, schedule, machine, at, due, state, settled)
         VALUES (?1, ?2, ?3, ?4, ?5, 'waiting', ?4) ON CONFLICT DO NOTHING",
        params![
            tenant.to_string(),
            schedule.to_string(),
            machine.to_string(),
            at.0,
            due.0
        ],
    )? == 1)
}

/// Forgets what became of the events of a machine before `before`.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn forget(
    conn: &Connection,
    schedule: ScheduleId,
    machine: MachineId,
    before: UnixMillis,
) -> Result<(), StoreError> {
    change(
        conn,
        "DELETE FROM schedule_events WHERE schedule = ? AND machine = ? AND at < ? AND state <> 'waiting'",
        params![schedule.to_string(), machine.to_string(), before.0],
    )?;
    Ok(())
}

/// A query for [`EventRow`]s.
macro_rules! events {
    ($which:literal) => {
        concat!(
            "SELECT e.*, m.name AS machine_name FROM schedule_events e JOIN machines m ON m.id = e.machine ",
            $which
        )
    };
}

/// Runs, of all tenants, that are due, the oldest first.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn due(conn: &Connection, now: UnixMillis, limit: u32) -> Result<Vec<EventRow>, StoreError> {
    all(
        conn,
        events!("WHERE e.state = 'waiting' AND e.due <= ? ORDER BY e.due LIMIT ?"),
        params![now.0, limit],
        read,
    )
}

/// When the next run of any tenant is due.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn next_due(conn: &Connection) -> Result<Option<UnixMillis>, StoreError> {
    only(
        conn,
        "SELECT min(due) AS due FROM schedule_events WHERE state = 'waiting'",
        [],
        |row| time_or_null(row, "due"),
    )
}

/// Records what became of a run; says no where that was known.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn settle(conn: &Connection, row: &EventRow) -> Result<bool, StoreError> {
    Ok(change(
        conn,
        "UPDATE schedule_events SET state = ?, settled = ?, job = ?, reason = ?
         WHERE schedule = ? AND machine = ? AND at = ? AND state = 'waiting'",
        params![
            state_word(row.state),
            row.settled.0,
            row.job.map(|job| job.to_string()),
            &row.reason,
            row.schedule.to_string(),
            row.machine.to_string(),
            row.at.0,
        ],
    )? == 1)
}

/// A job that a schedule made for a machine and that has not ended there.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn running_job(
    conn: &Connection,
    tenant: TenantId,
    schedule: ScheduleId,
    machine: MachineId,
) -> Result<Option<JobId>, StoreError> {
    first(
        conn,
        "SELECT o.job FROM operations o CROSS JOIN schedule_events e
         WHERE o.machine = ?1 AND o.ended = 0 AND o.tenant = ?2
           AND e.schedule = ?3 AND e.machine = ?1 AND e.job = o.job LIMIT 1",
        params![
            machine.to_string(),
            tenant.to_string(),
            schedule.to_string()
        ],
        |row| parsed(row, "job"),
    )
}

/// What became of a schedule's events, the latest first, from before `before` where one is given.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn list(
    conn: &Connection,
    schedule: ScheduleId,
    before: Option<UnixMillis>,
    limit: u32,
) -> Result<Vec<EventRow>, StoreError> {
    all(
        conn,
        events!(
            "WHERE e.schedule = ?1 AND (?2 IS NULL OR e.at < ?2) ORDER BY e.at DESC, e.machine LIMIT ?3"
        ),
        params![schedule.to_string(), before.map(|at| at.0), limit],
        read,
    )
}

fn read(row: &Row<'_>) -> Result<EventRow, StoreError> {
    Ok(EventRow {
        tenant: parsed(row, "tenant")?,
        schedule: parsed(row, "schedule")?,
        machine: parsed(row, "machine")?,
        machine_name: row.get("machine_name")?,
        at: time(row, "at")?,
        due: time(row, "due")?,
        state: word(row, "state", run_state)?,
        settled: time(row, "settled")?,
        job: parsed_or_null(row, "job")?,
        reason: row.get("reason")?,
    })
}
