//! Making, pausing, resuming and removing schedules.

use sluice_api_types::job::SubmitJob;
use sluice_api_types::schedule::{AddSchedule, OnOverlap, RunState};
use sluice_api_types::script::ScriptRef;
use sluice_protocol::bundle::Confinement;
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::ScheduleId;

use super::{Jitter, PlanError, Planned, Rules, TimingError, upcoming};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::jobs::{self, Checked, SubmitError};
use crate::operators::{Actor, Denied, Permission};
use crate::store::schedules::{self, RunRow, ScheduleRow, StoredTiming};
use crate::store::{Connection, StoreError};

/// The most schedules of a tenant.
const MOST: u64 = 1000;

/// Makes a schedule. What it will submit is checked as if it were submitted now, and again each time.
///
/// # Errors
///
/// The request is refused; that is on the record, and there is no schedule.
pub async fn add(
    host: &SharedHost,
    actor: &Actor,
    request: AddSchedule,
    now: UnixMillis,
) -> Result<ScheduleRow, AddError> {
    let name = request.name.clone();
    let script = request.job.script.as_ref().map(|text| Digest::of(&text.0));
    let added = check_and_store(host, actor, request, now).await;
    match &added {
        Ok(_) => host.schedules.wake(),
        Err(AddError::Store(_)) => {}
        Err(error) => refused(host, actor, &name, script, error, now).await?,
    }
    added
}

async fn check_and_store(
    host: &SharedHost,
    actor: &Actor,
    request: AddSchedule,
    now: UnixMillis,
) -> Result<ScheduleRow, AddError> {
    actor.require(Permission::ScheduleScript)?;
    let planned = Planned::read(request, now)?;
    if planned.overlap == OnOverlap::Cancel {
        // What ends the job before.
        actor.require(Permission::RemoteExecution)?;
    }
    let checked = jobs::check(host, actor, planned.job.clone()).await?;
    let (run_as, confinement) = (checked.run_as.clone(), checked.confinement);
    let (row, bytes) = row(actor, planned, checked, now);
    let asked = actor.clone();
    host.store
        .write(move |conn| {
            if schedules::count(conn, asked.tenant.id)? >= MOST {
                return Err(AddError::TooMany);
            }
            if !schedules::insert(conn, &row, &bytes)? {
                return Err(AddError::Taken(row.name));
            }
            let event = of(&row, Event::by(EventKind::ScriptScheduled, &asked))
                .with_script(row.script_sha256)
                .detail(
                    "timing",
                    serde_json::to_value(&row.timing).unwrap_or_default(),
                )
                .detail("run_as", run_as)
                .detail("confinement", confinement.map(Confinement::as_str))
                .detail(
                    "script",
                    row.job.script_ref.as_ref().map(|of| of.name.clone()),
                )
                .detail(
                    "version",
                    row.job.script_ref.as_ref().and_then(|of| of.version),
                )
                .detail("no_security_scan", row.job.no_security_scan)
                .detail("all", row.job.all)
                .detail("machines", row.job.machines.len())
                .detail("tags", row.job.tags.len());
            audit::append(conn, &asked.tenant, now, [event])?;
            Ok(row)
        })
        .await
}

/// The row of a new schedule, and the text of its script, which is empty where that is the library's: then the schedule
/// runs the version of this moment, and nobody else's later one.
fn row(
    actor: &Actor,
    planned: Planned,
    checked: Checked,
    now: UnixMillis,
) -> (ScheduleRow, Vec<u8>) {
    let id = ScheduleId::generate();
    let timing = StoredTiming::of(&planned.timing);
    let rules = Rules {
        timing: planned.timing,
        jitter: Jitter {
            schedule: id,
            at_most: planned.jitter,
        },
        missed: planned.missed,
    };
    let settled = super::Settled {
        until: now,
        beyond: std::collections::BTreeSet::new(),
    };
    let next = upcoming(&rules, &settled, now).next();
    let bytes = planned.job.script.map_or_else(Vec::new, |text| text.0);
    let row = ScheduleRow {
        id,
        tenant: actor.tenant.id,
        name: planned.name,
        token: actor.token,
        operator: actor.name.clone(),
        timing,
        jitter: planned.jitter,
        missed: planned.missed,
        overlap: planned.overlap,
        job: SubmitJob {
            script: None,
            script_ref: checked.script.map(|id| ScriptRef {
                name: id.name.to_string(),
                version: Some(id.version),
            }),
            // It is of this tenant, whatever that is called when the schedule fires.
            tenant: None,
            ..planned.job
        },
        script_sha256: checked.script_sha256,
        created: now,
        paused: None,
        settled: now,
        next_due: next.map(|next| next.due),
    };
    (row, bytes)
}

async fn refused(
    host: &SharedHost,
    actor: &Actor,
    name: &str,
    script: Option<Digest>,
    error: &AddError,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let event = match error {
        AddError::Denied(denied) | AddError::Job(SubmitError::Denied(denied)) => {
            host.metrics.request_refused();
            Event::by(EventKind::PermissionDenied, actor)
                .detail("permission", denied.permission.as_str())
        }
        _ => Event::by(EventKind::RequestRefused, actor),
    };
    let short = |text: &str| text.chars().take(500).collect::<String>();
    let event = match script {
        Some(script) => event.with_script(script),
        None => event,
    };
    let event = event
        .detail("attempt", "schedule a script")
        .detail("name", short(name))
        .detail("reason", short(&error.to_string()));
    let tenant = actor.tenant.clone();
    host.store
        .write(move |conn| audit::append(conn, &tenant, now, [event]).map(|_| ()))
        .await
}

/// Pauses a schedule: it does not run until it is resumed. A run that waits for the one before is left out. One that is
/// paused stays as it is.
///
/// # Errors
///
/// There is no such schedule of the operator's tenant.
pub async fn pause(
    host: &SharedHost,
    actor: &Actor,
    typed: &str,
    now: UnixMillis,
) -> Result<ScheduleRow, ChangeError> {
    let (asked, typed) = (actor.clone(), typed.to_owned());
    host.store
        .write(move |conn| {
            let mut row = find(conn, &asked, &typed)?;
            if row.paused.is_none() {
                let event = of(&row, Event::by(EventKind::SchedulePaused, &asked));
                audit::append(conn, &asked.tenant, now, [event])?;
                schedules::set_paused(conn, row.id, Some((now, &asked.name)))?;
                leave_out(conn, &row, "the schedule was paused", now)?;
                row.paused = Some((now, asked.name));
            }
            Ok(row)
        })
        .await
}

/// Goes on with a schedule. What was planned in the meantime is not made up for: that is what it was paused for.
///
/// # Errors
///
/// There is no such schedule of the operator's tenant, or it has no runs left.
pub async fn resume(
    host: &SharedHost,
    actor: &Actor,
    typed: &str,
    now: UnixMillis,
) -> Result<ScheduleRow, ChangeError> {
    let (asked, typed) = (actor.clone(), typed.to_owned());
    let row = host
        .store
        .write(move |conn| {
            let mut row = find(conn, &asked, &typed)?;
            if row.paused.is_none() {
                return Ok(row);
            }
            row.settled = now;
            let settled = row.settled(conn, now)?;
            let next = upcoming(&row.rules()?, &settled, now).next();
            let next = next.map(|next| next.due);
            // What happens to machines has no times.
            if next.is_none() && !matches!(row.timing, StoredTiming::Event { .. }) {
                return Err(ChangeError::Over(row.name));
            }
            schedules::set_paused(conn, row.id, None)?;
            schedules::set_next(conn, row.id, now, next)?;
            let event = of(&row, Event::by(EventKind::ScheduleResumed, &asked));
            audit::append(conn, &asked.tenant, now, [event])?;
            (row.paused, row.next_due) = (None, next);
            Ok::<_, ChangeError>(row)
        })
        .await?;
    host.schedules.wake();
    Ok(row)
}

/// Removes a schedule. Jobs that it made go on.
///
/// # Errors
///
/// There is no such schedule of the operator's tenant.
pub async fn remove(
    host: &SharedHost,
    actor: &Actor,
    typed: &str,
    now: UnixMillis,
) -> Result<(), ChangeError> {
    let (asked, typed) = (actor.clone(), typed.to_owned());
    host.store
        .write(move |conn| {
            let row = find(conn, &asked, &typed)?;
            let event = of(&row, Event::by(EventKind::ScheduleRemoved, &asked));
            audit::append(conn, &asked.tenant, now, [event])?;
            schedules::remove(conn, row.id, now)?;
            leave_out(conn, &row, "the schedule was removed", now)?;
            Ok(())
        })
        .await
}

/// The schedule with this name or id.
pub(super) fn find(
    conn: &Connection,
    actor: &Actor,
    typed: &str,
) -> Result<ScheduleRow, ChangeError> {
    schedules::find(conn, actor.tenant.id, typed)?
        .ok_or_else(|| ChangeError::NoSchedule(typed.to_owned()))
}

/// What an entry about a schedule says of it.
pub(super) fn of(row: &ScheduleRow, event: Event) -> Event {
    event
        .detail("schedule", row.id.to_string())
        .detail("name", row.name.as_str())
        .detail("owner", row.operator.as_str())
}

fn leave_out(
    conn: &Connection,
    row: &ScheduleRow,
    reason: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    for run in schedules::waiting(conn, row.id)? {
        let left_out = RunRow {
            state: RunState::Missed,
            at: now,
            reason: Some(reason.to_owned()),
            ..run
        };
        schedules::put_run(conn, row.tenant, row.id, &left_out)?;
    }
    Ok(())
}

/// A request for a schedule is refused: there is none.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// A permission is missing.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// It makes no sense.
    #[error("{0}; nothing was scheduled")]
    Plan(#[from] PlanError),
    /// What it would submit is refused.
    #[error("{0}; nothing was scheduled")]
    Job(#[source] SubmitError),
    /// Two of one name could not be told apart.
    #[error(
        "there is a schedule {0} already; nothing was scheduled, remove it first or choose another name"
    )]
    Taken(String),
    /// Too many.
    #[error(
        "the tenant has {MOST} schedules, which is the most; nothing was scheduled, remove one first"
    )]
    TooMany,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<SubmitError> for AddError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Store(error) => Self::Store(error),
            error => Self::Job(error),
        }
    }
}

/// A schedule was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Unknown, or another tenant's: the answer is the same.
    #[error("there is no schedule {}", .0.escape_debug())]
    NoSchedule(String),
    /// Nothing would follow.
    #[error("the schedule {0} has no runs left; it stays paused, remove it")]
    Over(String),
    /// Another version of the program wrote it.
    #[error(
        "it cannot be said when the schedule runs ({0}); it stays paused, remove it and make it again"
    )]
    Timing(#[from] TimingError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
