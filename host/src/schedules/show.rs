//! Schedules as operators see them.

use sluice_api_types::schedule::{NextRun, Schedule, ScheduleRun, ScheduleState};

use super::{Timing, upcoming};
use crate::clock::UnixMillis;
use crate::operators::Actor;
use crate::store::schedule_events::{self, EventRow};
use crate::store::schedules::{self, RunRow, ScheduleRow, StoredTiming};
use crate::store::{Connection, StoreError};

/// How many of the next runs are shown.
const NEXT: usize = 3;

/// A schedule with its next runs and its latest.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn show(
    conn: &Connection,
    actor: &Actor,
    row: ScheduleRow,
    now: UnixMillis,
) -> Result<Schedule, StoreError> {
    let settled = row.settled(conn, now)?;
    // One that cannot be read is shown all the same, so that it can be found and removed.
    let rules = row.rules().ok();
    let next = match &rules {
        Some(rules) if row.paused.is_none() && row.next_due.is_some() => {
            let zone = rules.timing.zone();
            upcoming(rules, &settled, now)
                .take(NEXT)
                .map(|next| NextRun {
                    planned_at: next.planned.to_string(),
                    due_at: next.due.to_string(),
                    local: zone.show(next.due),
                })
                .collect()
        }
        _ => Vec::new(),
    };
    let state = match (&row.paused, row.next_due) {
        (Some(_), _) => ScheduleState::Paused,
        (None, None) if matches!(row.timing, StoredTiming::Event { .. }) => ScheduleState::Active,
        (None, None) => ScheduleState::Ended,
        (None, Some(_)) => ScheduleState::Active,
    };
    let last = match row.timing {
        StoredTiming::Event { .. } => {
            let last = schedule_events::list(conn, row.id, None, 1)?.pop();
            last.map(show_event)
        }
        _ => schedules::runs(conn, row.id, None, 1)?.pop().map(show_run),
    };
    let timing = rules.as_ref().map(|rules| &rules.timing);
    let (paused_at, paused_by) = row.paused.unzip();
    Ok(Schedule {
        schedule: row.id,
        name: row.name,
        tenant: actor.tenant.name.clone(),
        operator: row.operator,
        state,
        at: match timing {
            Some(Timing::Once { at, .. }) => Some(at.to_string()),
            _ => None,
        },
        cron: match timing {
            Some(Timing::Calendar { expression, .. }) => Some(expression.to_string()),
            _ => None,
        },
        every: match timing {
            Some(Timing::Every { interval, .. }) => Some(*interval),
            _ => None,
        },
        event: match timing {
            Some(Timing::Event { event, .. }) => Some(*event),
            _ => None,
        },
        at_most_every: match timing {
            Some(Timing::Event { at_most_every, .. }) => Some(*at_most_every),
            _ => None,
        },
        zone: timing.map_or_else(
            || "unknown".to_owned(),
            |timing| timing.zone().name().to_owned(),
        ),
        jitter: Some(row.jitter).filter(|jitter| jitter.0 > 0),
        missed: row.missed,
        overlap: row.overlap,
        created_at: row.created.to_string(),
        paused_at: paused_at.map(|at| at.to_string()),
        paused_by,
        script: row.job.script_ref,
        script_sha256: row.script_sha256,
        machines: row.job.machines,
        tags: row.job.tags,
        all: row.job.all,
        condition: row.job.condition,
        run_as: row.job.run_as,
        confinement: row.job.confinement,
        next,
        last,
    })
}

/// What became of a run.
#[must_use]
pub fn show_run(run: RunRow) -> ScheduleRun {
    ScheduleRun {
        planned_at: run.planned.to_string(),
        machine: None,
        state: run.state,
        at: run.at.to_string(),
        job: run.job,
        reason: run.reason,
        runs: run.runs,
    }
}

/// What became of a run at an event.
#[must_use]
pub fn show_event(event: EventRow) -> ScheduleRun {
    ScheduleRun {
        planned_at: event.at.to_string(),
        machine: Some(event.machine_name),
        state: event.state,
        at: event.settled.to_string(),
        job: event.job,
        reason: event.reason,
        runs: 1,
    }
}
