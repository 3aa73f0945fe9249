//! One run: from its time to a job, or to the reason why there is none.
//!
//! ```text
//! a job of this run is there (the host was stopped right after making it) -> fired
//! lockdown                                                                -> missed
//! the owner's token: is it good, may it schedule?                         -> missed
//! the run before still runs                      -> missed, or waits, or the one before is canceled
//! submit, as the owner, under a key that is this run's alone              -> fired, or missed
//! ```

use sluice_api_types::job::SubmitJob;
use sluice_api_types::schedule::{OnOverlap, RunState};
use sluice_protocol::ids::JobId;
use sluice_protocol::units::Span;

use super::change::of;
use super::plan::{append, record_missed};
use crate::audit::{Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::jobs::{self, CancelError, Locked, SubmitError};
use crate::operators::{self, Actor, AuthenticationError, Permission};
use crate::store::schedules::{self, RunRow, ScheduleRow};
use crate::store::{Connection, StoreError, jobs as job_store, lockdown};

/// Where requests come from that a schedule makes, in the audit log.
const SOURCE: &str = "schedule";
/// How long before the next run is due one that has not started expires.
const MARGIN: Span = Span::seconds(5);
/// The least time that a run may wait, however near the next one is.
const SHORTEST_EXPIRY: Span = Span::seconds(30);

/// Fires the runs of a schedule that wait, the oldest first. Gives the job that the next of them waits for, where it does.
///
/// # Errors
///
/// Where the database cannot be used; what was not settled waits.
pub(super) async fn fire_waiting(
    host: &SharedHost,
    row: &ScheduleRow,
    now: UnixMillis,
) -> Result<Option<JobId>, StoreError> {
    loop {
        // Read anew each time: a schedule that is paused or removed in between has no run waiting any more.
        let Some(run) = host.store.read(|conn| schedules::waits(conn, row.id))? else {
            return Ok(None);
        };
        match fire(host, row, &run, now).await? {
            Fired::Job(job) => settle(host, row, run, job, now).await?,
            Fired::Missed(reason) => miss(host, row, run, reason, now).await?,
            Fired::Waits(job) => return Ok(Some(job)),
        }
    }
}

/// What became of a run.
enum Fired {
    Job(JobId),
    Missed(String),
    Waits(JobId),
}

async fn fire(
    host: &SharedHost,
    row: &ScheduleRow,
    run: &RunRow,
    now: UnixMillis,
) -> Result<Fired, StoreError> {
    let key = key(row, run);
    let (made, locked, before) = host.store.read(|conn| {
        let made = job_store::find_by_key(conn, row.tenant, row.token, &key)?;
        let before = schedules::running_job(conn, row.tenant, row.id)?;
        Ok::<_, StoreError>((made, lockdown::current(conn)?, before))
    })?;
    if let Some((job, _)) = made {
        return Ok(Fired::Job(job));
    }
    if let Some(lockdown) = locked {
        return Ok(Fired::Missed(Locked::by(&lockdown).to_string()));
    }
    let owner = match owner(host, row, now)? {
        Ok(owner) => owner,
        Err(reason) => return Ok(Fired::Missed(reason)),
    };
    match (before, row.overlap) {
        (None, _) => {}
        // One that is left out for another that is made up for, or ends it, would not make up for anything.
        (Some(job), _) if run.late => return Ok(Fired::Waits(job)),
        (Some(job), OnOverlap::Skip) => {
            return Ok(Fired::Missed(format!(
                "the run before has not ended (job {job})"
            )));
        }
        (Some(job), OnOverlap::Queue) => return Ok(Fired::Waits(job)),
        (Some(job), OnOverlap::Cancel) => {
            if let Err(denied) = owner.require(Permission::RemoteExecution) {
                return Ok(Fired::Missed(denied.to_string()));
            }
            // What cannot take its place does not end it.
            match jobs::could_run_now(host, &owner, request(host, row, now)?, now).await {
                Ok(()) => {}
                Err(SubmitError::Store(error)) => return Err(error),
                Err(error) => return Ok(Fired::Missed(error.to_string())),
            }
            match jobs::cancel(host, &owner, job, now).await {
                Ok(_) | Err(CancelError::NoJob(_)) => {}
                Err(CancelError::Store(error)) => return Err(error),
            }
        }
    }
    match jobs::submit(host, &owner, request(host, row, now)?, Some(key), now).await {
        Ok(job) => Ok(Fired::Job(job)),
        Err(SubmitError::Store(error)) => Err(error),
        Err(error) => Ok(Fired::Missed(error.to_string())),
    }
}

/// What a run submits now.
pub(super) fn request(
    host: &SharedHost,
    row: &ScheduleRow,
    now: UnixMillis,
) -> Result<SubmitJob, StoreError> {
    let script = match row.job.script_ref {
        // The library's, in the version that it was made with.
        Some(_) => None,
        None => {
            let text = |conn: &Connection| schedules::script(conn, row.tenant, row.id);
            Some(host.store.read(text)?.into())
        }
    };
    Ok(SubmitJob {
        script,
        expires: row.job.expires.or_else(|| expiry(row.next_due, now)),
        ..row.job.clone()
    })
}

/// How long a run may wait where the schedule does not say: until shortly before the next one. A machine that was away is
/// to run the script once when it is back, not as often as it was planned in the meantime. Where that leaves it as much time
/// as any job has, it has that: what waits for a window has more.
fn expiry(next: Option<UnixMillis>, now: UnixMillis) -> Option<Span> {
    let until = u64::try_from(next?.0.saturating_sub(now.0)).unwrap_or(0);
    let span = Span(until.saturating_sub(MARGIN.0).max(SHORTEST_EXPIRY.0));
    Some(span).filter(|span| *span < jobs::DEFAULT_EXPIRY)
}

/// How the idempotency keys of runs begin. Operators' requests cannot have such.
pub const KEY: &str = "schedule:";

/// What makes a run one job, however often it is submitted.
fn key(row: &ScheduleRow, run: &RunRow) -> String {
    format!("{KEY}{}:{}", row.id, run.planned.0)
}

/// The owner, with what they may do now; or why they may not.
pub(super) fn owner(
    host: &SharedHost,
    row: &ScheduleRow,
    now: UnixMillis,
) -> Result<Result<Actor, String>, StoreError> {
    let owner = host.store.read(|conn| {
        operators::on_behalf_of(conn, &host.roles, row.tenant, row.token, SOURCE, now)
    });
    match owner {
        Ok(owner) => match owner.require(Permission::ScheduleScript) {
            Ok(()) => Ok(Ok(owner)),
            Err(denied) => Ok(Err(denied.to_string())),
        },
        Err(AuthenticationError::Store(error)) => Err(error),
        Err(error) => Ok(Err(error.to_string())),
    }
}

async fn settle(
    host: &SharedHost,
    row: &ScheduleRow,
    run: RunRow,
    job: JobId,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let row = row.clone();
    host.store
        .write(move |conn| {
            let fired = RunRow {
                state: RunState::Fired,
                at: now,
                job: Some(job),
                ..run
            };
            schedules::put_run(conn, row.tenant, row.id, &fired)?;
            let event = of(&row, Event::by_host(EventKind::ScheduleFired))
                .of_job(job)
                .with_script(row.script_sha256)
                .detail("planned", fired.planned.to_string())
                .detail("late", fired.late);
            append(conn, &row, now, event)
        })
        .await
}

async fn miss(
    host: &SharedHost,
    row: &ScheduleRow,
    run: RunRow,
    reason: String,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let row = row.clone();
    host.store
        .write(move |conn| {
            let missed = RunRow {
                state: RunState::Missed,
                at: now,
                reason: Some(reason.chars().take(500).collect()),
                ..run
            };
            record_missed(conn, &row, &missed, now)
        })
        .await
}
