//! From what is due to runs that wait to be fired: on disk, before anything is submitted. A host that is stopped after
//! that fires them when it is back.

use sluice_api_types::schedule::RunState;

use super::change::of;
use super::{Missed, due};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::store::schedules::{self, RunRow, ScheduleRow};
use crate::store::{Connection, StoreError, tenants};

/// How many schedules one transaction plans.
const STEP: u32 = 50;
/// Who pauses a schedule that cannot be read.
const HOST: &str = "host";

/// Plans what is due at `now`, and says whether that was all.
///
/// # Errors
///
/// Where the database cannot be used.
pub(super) fn plan_due(conn: &Connection, now: UnixMillis) -> Result<bool, StoreError> {
    let rows = schedules::due(conn, now, STEP)?;
    for row in &rows {
        plan(conn, row, now)?;
    }
    Ok(rows.len() < STEP as usize)
}

fn plan(conn: &Connection, row: &ScheduleRow, now: UnixMillis) -> Result<(), StoreError> {
    let rules = match row.rules() {
        Ok(rules) => rules,
        Err(error) => return set_aside(conn, row, &error.to_string(), now),
    };
    let due = due(&rules, &row.settled(conn, now)?, now);
    if let Some(missed) = due.missed {
        miss(conn, row, &missed, due.runs.len(), now)?;
    }
    for run in due.runs {
        let waiting = RunRow {
            planned: run.planned,
            state: RunState::Waiting,
            late: run.late,
            at: now,
            job: None,
            reason: run
                .late
                .then(|| "makes up for a run that was missed".to_owned()),
            runs: 1,
        };
        schedules::put_run(conn, row.tenant, row.id, &waiting)?;
    }
    schedules::set_next(conn, row.id, due.settled, due.next.map(|next| next.due))
}

/// Records runs that are passed over.
fn miss(
    conn: &Connection,
    row: &ScheduleRow,
    missed: &Missed,
    made_up: usize,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let count = if missed.more {
        format!("more than {} runs", missed.count)
    } else if missed.count == 1 {
        "1 run".to_owned()
    } else {
        format!("{} runs", missed.count)
    };
    let then = match made_up {
        0 => "",
        1 => "; one run makes up for them",
        _ => "; the latest are made up for",
    };
    let reason =
        format!("{count} passed while the host did not run, or its clock was changed{then}");
    let run = RunRow {
        planned: missed.last,
        state: RunState::Missed,
        late: false,
        at: now,
        job: None,
        reason: Some(reason),
        runs: missed.count,
    };
    record_missed(conn, row, &run, now)
}

/// Records a run of which no job was made.
pub(super) fn record_missed(
    conn: &Connection,
    row: &ScheduleRow,
    run: &RunRow,
    now: UnixMillis,
) -> Result<(), StoreError> {
    schedules::put_run(conn, row.tenant, row.id, run)?;
    let event = of(row, Event::by_host(EventKind::ScheduleMissed))
        .with_script(row.script_sha256)
        .detail("planned", run.planned.to_string())
        .detail("runs", run.runs)
        .detail("reason", run.reason.clone());
    append(conn, row, now, event)
}

pub(super) fn append(
    conn: &Connection,
    row: &ScheduleRow,
    now: UnixMillis,
    event: Event,
) -> Result<(), StoreError> {
    match tenants::find(conn, row.tenant)? {
        Some(tenant) => audit::append(conn, &tenant, now, [event]).map(|_| ()),
        None => Err(StoreError::Corrupt(format!(
            "schedule {} has no tenant",
            row.id
        ))),
    }
}

/// Pauses a schedule that nobody can say the times of: it must neither run at a wrong one nor be asked about for ever.
fn set_aside(
    conn: &Connection,
    row: &ScheduleRow,
    reason: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    tracing::error!(schedule = %row.id, reason, "a schedule cannot be read, and is paused");
    schedules::set_paused(conn, row.id, Some((now, HOST)))?;
    let event =
        of(row, Event::by_host(EventKind::SchedulePaused)).detail("reason", reason.to_owned());
    append(conn, row, now, event)
}
