//! Pausing a rollout, and going on with it.

use sluice_api_types::rollout::{Rollout, RolloutState};
use sluice_protocol::ids::JobId;

use super::advance::{about, advance, see};
use super::{show, tally};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::operators::Actor;
use crate::store::rollouts::{PausedRow, RolloutRow};
use crate::store::{Connection, StoreError, jobs, operations, rollouts};

/// Pauses a job's rollout: nothing more of it is released, and what was released and not sent is held again. What a machine
/// has got goes on. One that is paused stays as it is.
///
/// # Errors
///
/// The operator's tenant has no such job, or it has no rollout that could be paused.
pub async fn pause(
    host: &SharedHost,
    actor: &Actor,
    job: JobId,
    now: UnixMillis,
) -> Result<Rollout, ChangeError> {
    let asked = actor.clone();
    let shown = host
        .store
        .write(move |conn| {
            let mut row = find(conn, &asked, job)?;
            if row.state == RolloutState::Running {
                row.state = RolloutState::Paused;
                row.paused = Some(PausedRow {
                    since: now,
                    by: Some(asked.name.clone()),
                    rule: None,
                    count: None,
                });
                rollouts::update(conn, &row)?;
                let taken_back = operations::hold_queued(conn, asked.tenant.id, job)?;
                let event = about(&row, Event::by(EventKind::JobPaused, &asked))
                    .detail("taken_back", taken_back);
                audit::append(conn, &asked.tenant, now, [event])?;
            }
            Ok::<_, ChangeError>(show(conn, &row)?)
        })
        .await?;
    host.events.notify(job);
    Ok(shown)
}

/// Goes on with a job's rollout. The failures until now are forgiven: its rule counts those that come on top. One that is not
/// paused goes on anyway.
///
/// # Errors
///
/// The operator's tenant has no such job, or it has no rollout that could go on.
pub async fn resume(
    host: &SharedHost,
    actor: &Actor,
    job: JobId,
    now: UnixMillis,
) -> Result<Rollout, ChangeError> {
    let (asked, presence) = (actor.clone(), host.clone());
    host.store
        .write(move |conn| {
            let mut row = find(conn, &asked, job)?;
            if row.state == RolloutState::Paused {
                let seen = see(conn, &presence, &row)?;
                row.state = RolloutState::Running;
                row.paused = None;
                row.forgiven = tally(&seen.counts, row.batch);
                rollouts::update(conn, &row)?;
                let event = about(&row, Event::by(EventKind::JobResumed, &asked))
                    .detail("forgiven", row.forgiven.failures);
                audit::append(conn, &asked.tenant, now, [event])?;
            }
            Ok::<_, ChangeError>(())
        })
        .await?;
    // Should this look fail, the driver's does not.
    host.rollouts.wake(job);
    host.later.wake();
    advance(host, &actor.tenant, job, now).await?;
    host.events.notify(job);
    host.store.read(|conn| {
        let row = rollouts::find(conn, actor.tenant.id, job)?.ok_or(ChangeError::NoJob(job))?;
        Ok(show(conn, &row)?)
    })
}

/// The rollout of the operator's job, which has not ended.
fn find(conn: &Connection, actor: &Actor, job: JobId) -> Result<RolloutRow, ChangeError> {
    let tenant = actor.tenant.id;
    match rollouts::find(conn, tenant, job)? {
        Some(row) if row.state == RolloutState::Done => Err(ChangeError::Over(job)),
        Some(row) => Ok(row),
        None if jobs::not_after(conn, tenant, job)?.is_none() => Err(ChangeError::NoJob(job)),
        None => Err(ChangeError::NoRollout(job)),
    }
}

/// A rollout was neither paused nor resumed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Unknown, or another tenant's: the answer is the same.
    #[error("there is no job {0}")]
    NoJob(JobId),
    /// All of it was released when it was made.
    #[error(
        "the job {0} has no batches and no bound on how many run at once, so that nothing of it is held; nothing was done, sluice job cancel ends it"
    )]
    NoRollout(JobId),
    /// Nothing is left.
    #[error("every operation of the job {0} has ended; nothing was done")]
    Over(JobId),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
