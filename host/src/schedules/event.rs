//! Schedules that run when something happens to a machine: from what happened to a run that waits, in one transaction with
//! it, and from there to a job on that machine.
//!
//! ```text
//! note     the machine is one of the schedule's? has it had a run a moment ago? -> waiting, with its time
//! fire     lockdown? paused? -> the owner's permissions now -> still one of its machines? -> the run before has ended there?
//!          -> submit, under a key that is this event's alone -> fired, or missed with the reason
//! ```

use futures_util::{StreamExt as _, stream};
use sluice_api_types::job::SubmitJob;
use sluice_api_types::schedule::{MachineEvent, RunState};
use sluice_protocol::ids::{JobId, MachineId, TenantId};
use sluice_protocol::units::Span;

use super::change::of;
use super::fire::{KEY, owner, request};
use super::plan::append;
use crate::audit::{Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::jobs::{self, Locked, SubmitError};
use crate::store::schedule_events::{self, EventRow};
use crate::store::schedules::{self, ScheduleRow, StoredTiming};
use crate::store::{Connection, StoreError, jobs as job_store, lockdown, machines};

/// How many runs are read at once, and fired side by side.
const STEP: u32 = 100;
const AT_ONCE: usize = 8;
/// How long it is kept what became of a machine's events.
const KEPT: i64 = 90 * 24 * 3600 * 1000;

/// Notes that something has happened to a machine; says whether a schedule runs for it. In the transaction in which it is
/// recorded that it has: what is on disk of the one is there of the other.
///
/// # Errors
///
/// Where the database cannot be used.
pub fn note(
    conn: &Connection,
    tenant: TenantId,
    machine: MachineId,
    event: MachineEvent,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let mut noted = false;
    for id in schedule_events::schedules_of(conn, tenant, event)? {
        let Some(row) = schedules::find(conn, tenant, &id.to_string())? else {
            continue;
        };
        let Some(found) = machines::find(conn, tenant, machine)? else {
            return Ok(noted);
        };
        if !jobs::is_target(conn, &row.job, &found)? {
            continue;
        }
        let StoredTiming::Event { at_most_every, .. } = row.timing else {
            continue;
        };
        let pause = Span(at_most_every);
        schedule_events::forget(conn, id, machine, UnixMillis(now.0 - KEPT))?;
        let due = match schedule_events::latest(conn, id, machine, pause, now)? {
            // One that waits is for this one too.
            Some((_, RunState::Waiting)) => continue,
            None => now,
            // A link that comes and goes is one; facts that change again are to be looked at again, later.
            Some(_) if event == MachineEvent::Online => continue,
            Some((last, _)) => last.plus(pause).max(now),
        };
        noted |= schedule_events::insert(conn, tenant, id, machine, now, due)?;
    }
    Ok(noted)
}

/// Fires the runs that are due.
///
/// # Errors
///
/// Where the database cannot be used; what was not settled waits.
pub(super) async fn fire_due(host: &SharedHost, now: UnixMillis) -> Result<(), StoreError> {
    loop {
        let rows = host
            .store
            .scan(move |conn| schedule_events::due(conn, now, STEP))
            .await?;
        let count = rows.len();
        // The futures are made before they are polled, as those of the preflight are.
        let firing: Vec<_> = rows
            .into_iter()
            .map(|row| async move { fire_one(host, row, now).await })
            .collect();
        let fired: Vec<_> = stream::iter(firing)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        fired.into_iter().collect::<Result<(), _>>()?;
        if count < STEP as usize {
            return Ok(());
        }
    }
}

async fn fire_one(host: &SharedHost, event: EventRow, now: UnixMillis) -> Result<(), StoreError> {
    let id = event.schedule.to_string();
    let found = host
        .store
        .read(|conn| schedules::find(conn, event.tenant, &id))?;
    let Some(row) = found else {
        let gone = missed(event, "the schedule was removed", now);
        return host
            .store
            .write(move |conn| schedule_events::settle(conn, &gone).map(|_| ()))
            .await;
    };
    let settled = match fire(host, &row, &event, now).await? {
        Ok(job) => EventRow {
            state: RunState::Fired,
            settled: now,
            job: Some(job),
            ..event
        },
        Err(reason) => missed(event, &reason, now),
    };
    host.store
        .write(move |conn| {
            if !schedule_events::settle(conn, &settled)? {
                return Ok(());
            }
            let kind = match settled.state {
                RunState::Fired => EventKind::ScheduleFired,
                RunState::Missed | RunState::Waiting => EventKind::ScheduleMissed,
            };
            let mut entry = of(&row, Event::by_host(kind))
                .on(&settled.machine_name)
                .with_script(row.script_sha256)
                .detail("happened", settled.at.to_string())
                .detail("reason", settled.reason.clone());
            if let Some(job) = settled.job {
                entry = entry.of_job(job);
            }
            append(conn, &row, now, entry)
        })
        .await
}

fn missed(event: EventRow, reason: &str, now: UnixMillis) -> EventRow {
    EventRow {
        state: RunState::Missed,
        settled: now,
        reason: Some(reason.chars().take(500).collect()),
        ..event
    }
}

/// The job of a run, or why there is none.
async fn fire(
    host: &SharedHost,
    row: &ScheduleRow,
    event: &EventRow,
    now: UnixMillis,
) -> Result<Result<JobId, String>, StoreError> {
    let key = format!("{KEY}{}:{}:{}", row.id, event.machine, event.at.0);
    let (made, locked, is_target, before) = host.store.read(|conn| {
        let machine = machines::find(conn, event.tenant, event.machine)?;
        let is_target = match &machine {
            Some(machine) => jobs::is_target(conn, &row.job, machine)?,
            None => false,
        };
        Ok::<_, StoreError>((
            job_store::find_by_key(conn, row.tenant, row.token, &key)?,
            lockdown::current(conn)?,
            is_target,
            schedule_events::running_job(conn, row.tenant, row.id, event.machine)?,
        ))
    })?;
    if let Some((job, _)) = made {
        return Ok(Ok(job));
    }
    if let Some(lockdown) = locked {
        return Ok(Err(Locked::by(&lockdown).to_string()));
    }
    if row.paused.is_some() {
        return Ok(Err("the schedule was paused".to_owned()));
    }
    let owner = match owner(host, row, now)? {
        Ok(owner) => owner,
        Err(reason) => return Ok(Err(reason)),
    };
    if !is_target {
        return Ok(Err(
            "the machine is none of the schedule's any more".to_owned()
        ));
    }
    if let Some(job) = before {
        return Ok(Err(format!("the run before has not ended (job {job})")));
    }
    let asked = SubmitJob {
        machines: vec![event.machine.to_string()],
        tags: Vec::new(),
        all: false,
        condition: None,
        include_later: false,
        ..request(host, row, now)?
    };
    match jobs::submit(host, &owner, asked, Some(key), now).await {
        Ok(job) => Ok(Ok(job)),
        Err(SubmitError::Store(error)) => Err(error),
        Err(error) => Ok(Err(error.to_string())),
    }
}

#[cfg(test)]
mod tests;
