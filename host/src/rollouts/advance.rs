//! From a decision to operations on their way: each step is one transaction, with its record.

use std::collections::BTreeSet;

use sluice_api_types::rollout::RolloutState;
use sluice_protocol::ending::{Ending, State};
use sluice_protocol::ids::JobId;
use sluice_protocol::report::Report;

use super::{Counts, Facts, Step, Tally, decide, tally};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::folding;
use crate::host::SharedHost;
use crate::jobs;
use crate::store::operations::OperationRow;
use crate::store::rollouts::{PausedRow, RolloutRow};
use crate::store::tenants::Tenant;
use crate::store::{
    Connection, StoreError, holds, later, lockdown, machines, operations, rollouts,
};
use crate::windows::{self, Standing};

/// How many operations one transaction releases: others wait meanwhile.
const STEP: u64 = 1000;

/// Takes a job's rollout as far as it goes now: releases what may start, holds again what may not any more, stops where the
/// rule fires, and ends it where everything has ended. Whoever asks at the same time, each operation is released once.
///
/// # Errors
///
/// Where the database cannot be used; what was released until then stays so, and is delivered.
pub async fn advance(
    host: &SharedHost,
    tenant: &Tenant,
    job: JobId,
    now: UnixMillis,
) -> Result<(), StoreError> {
    hold_what_is_shut(host, tenant, job, now).await?;
    loop {
        group_results(host, tenant, job).await?;
        // Most ends change nothing, and a look is no commit.
        let (id, own) = (tenant.id, host.clone());
        let next = host
            .store
            .scan(move |conn| match rollouts::find(conn, id, job)? {
                Some(row) if row.state != RolloutState::Done => {
                    let next = next(conn, &own, &row, now)?;
                    let changes = next.step != Step::Wait || next.forgiven != row.forgiven;
                    Ok::<_, StoreError>(Some(changes))
                }
                _ => Ok(None),
            })
            .await?;
        match next {
            Some(false) => return Ok(()),
            Some(true) => {}
            // Somebody else has ended it.
            None => {
                host.rollouts.forget(job);
                return Ok(());
            }
        }
        let (own, asked) = (host.clone(), tenant.clone());
        let taken = host
            .store
            .write(move |conn| take(conn, &own, &asked, job, now))
            .await?;
        for state in taken.ended {
            host.metrics.operation_ended(state);
        }
        jobs::deliver_released(host, tenant, job, &taken.released, now).await;
        host.events.notify(job);
        match taken.step {
            // Not all of it, perhaps, or it ended on the way.
            Step::Begin { .. } | Step::Release { .. } => {}
            Step::Done => {
                host.rollouts.forget(job);
                return Ok(());
            }
            Step::Stop { .. } | Step::Wait => return Ok(()),
        }
    }
}

/// What a look comes to.
struct Next {
    step: Step,
    /// What is still forgiven: a machine that was dark and has come back is not, so that it does not stand for another.
    forgiven: Tally,
}

/// What is to be done now: nothing for a rollout that is done, and no release where nothing may start.
fn next(
    conn: &Connection,
    host: &SharedHost,
    row: &RolloutRow,
    now: UnixMillis,
) -> Result<Next, StoreError> {
    let seen = see(conn, host, row)?;
    let dark = tally(&seen.counts, row.batch).dark + seen.away;
    let forgiven = Tally {
        dark: row.forgiven.dark.min(dark),
        ..row.forgiven
    };
    let step = step(conn, row, &seen, forgiven, now)?;
    Ok(Next { step, forgiven })
}

fn step(
    conn: &Connection,
    row: &RolloutRow,
    seen: &Seen,
    forgiven: Tally,
    now: UnixMillis,
) -> Result<Step, StoreError> {
    if row.state == RolloutState::Done {
        return Ok(Step::Wait);
    }
    let step = decide(&Facts {
        ends: &row.batches.ends,
        max_concurrency: row.batches.max_concurrency,
        stops: row.batches.stops,
        batch: row.batch,
        forgiven,
        unclear: seen.unclear + seen.away,
        is_open: later::open_until(conn, row.tenant, row.job)?.is_some(),
        paused: row.state == RolloutState::Paused,
        counts: &seen.counts,
    });
    let may = match step {
        Step::Begin { .. } | Step::Release { .. } => holds::is_let_go(conn, row.tenant, row.job)?,
        // What has begun is not left to itself where its approval is void meanwhile.
        Step::Stop { .. } => !holds::waits_for_its_first(conn, row.tenant, row.job)?,
        Step::Done | Step::Wait => true,
    };
    if !may {
        return Ok(Step::Wait);
    }
    if let Step::Release { batch, .. } = step {
        let not_after = crate::store::jobs::not_after(conn, row.tenant, row.job)?;
        // What is overdue the sweeper ends; what is locked down stays as it is.
        let may_start = not_after.is_some_and(|not_after| now <= not_after)
            && lockdown::current(conn)?.is_none();
        if !may_start || startable(conn, row, batch, 1, now)?.is_empty() {
            return Ok(Step::Wait);
        }
    }
    Ok(step)
}

/// Where a rollout's operations are.
pub(super) struct Seen {
    /// Of each batch.
    pub(super) counts: Vec<Counts>,
    /// Of how many results it is not known to which group they belong.
    unclear: u64,
    /// How many machines are away that are not dark yet.
    away: u64,
}

/// Looks where a rollout's operations are, and what its rules make of them.
pub(super) fn see(
    conn: &Connection,
    host: &SharedHost,
    row: &RolloutRow,
) -> Result<Seen, StoreError> {
    let batches = row.batches.ends.len();
    let mut seen = Seen {
        counts: operations::count_by_batch(conn, row.tenant, row.job, batches)?,
        unclear: 0,
        away: 0,
    };
    if row.batches.stops.groups.is_some() {
        seen.unclear = operations::count_without_group(conn, row.tenant, row.job, row.batch)?;
        for (batch, new) in operations::new_groups(conn, row.tenant, row.job)? {
            if let Some(of_batch) = of_batch(&mut seen.counts, batch) {
                of_batch.new_groups = new;
            }
        }
    }
    if row.batches.stops.dark.is_none() {
        return Ok(seen);
    }
    for one in operations::on_machines(conn, row.tenant, row.job, row.batch)? {
        let Some(away) = host.presence.away_for(one.machine) else {
            continue;
        };
        // Nobody waits for what was taken out of the fleet.
        if machines::is_revoked(conn, row.tenant, one.machine)? {
            continue;
        }
        let is_dark = away >= row.batches.dark_after.as_duration();
        match of_batch(&mut seen.counts, one.batch) {
            Some(of_batch) if is_dark => of_batch.dark += 1,
            _ => seen.away += 1,
        }
    }
    Ok(seen)
}

fn of_batch(counts: &mut [Counts], batch: u64) -> Option<&mut Counts> {
    let index = usize::try_from(batch.checked_sub(1)?).ok()?;
    counts.get_mut(index)
}

/// Finds out to which groups the results belong that have come, where a rule asks for that.
async fn group_results(host: &SharedHost, tenant: &Tenant, job: JobId) -> Result<(), StoreError> {
    let id = tenant.id;
    loop {
        let keyed = host
            .store
            .scan(move |conn| {
                let row = rollouts::find(conn, id, job)?;
                let Some(row) = row.filter(|row| row.batches.stops.groups.is_some()) else {
                    return Ok(Vec::new());
                };
                let rows = operations::without_group(conn, id, job, row.batch, folding::STEP)?;
                rows.iter()
                    .map(|row| Ok((row.id, folding::group_of(conn, row)?)))
                    .collect::<Result<Vec<_>, StoreError>>()
            })
            .await?;
        if keyed.is_empty() {
            return Ok(());
        }
        host.store
            .write(move |conn| {
                keyed.iter().try_for_each(|(operation, group)| {
                    operations::set_group(conn, *operation, group)
                })
            })
            .await?;
    }
}

/// The first operations of a batch, at most so many, that are held and may start now, as far as windows go.
fn startable(
    conn: &Connection,
    row: &RolloutRow,
    batch: u64,
    most: u64,
    now: UnixMillis,
) -> Result<Vec<(OperationRow, Standing)>, StoreError> {
    let mut windows = windows::Look::at(conn, row.tenant, row.job, now)?;
    let looked_at = if windows.is_free() { most } else { u64::MAX };
    let mut found = Vec::new();
    for operation in operations::held(conn, row.tenant, row.job, batch, looked_at)? {
        match windows.standing(conn, operation.machine)? {
            Standing::Closed(_) => continue,
            standing => found.push((operation, standing)),
        }
        if found.len() as u64 >= most {
            break;
        }
    }
    Ok(found)
}

/// Holds again what was released and not sent, where the window that it was released in has closed.
async fn hold_what_is_shut(
    host: &SharedHost,
    tenant: &Tenant,
    job: JobId,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let id = tenant.id;
    let shut = move |conn: &Connection| {
        let mut windows = windows::Look::at(conn, id, job, now)?;
        let mut shut = Vec::new();
        if windows.is_free() {
            return Ok::<_, StoreError>(shut);
        }
        for operation in operations::released(conn, id, job)? {
            if let Standing::Closed(closed) = windows.standing(conn, operation.machine)? {
                shut.push((operation.id, closed.window));
            }
        }
        Ok(shut)
    };
    if host.store.scan(shut).await?.is_empty() {
        return Ok(());
    }
    let tenant = tenant.clone();
    host.store
        .write(move |conn| {
            let (mut held, mut windows) = (0_u64, BTreeSet::new());
            for (operation, window) in shut(conn)? {
                if operations::hold_again(conn, operation)? {
                    held += 1;
                    windows.insert(window);
                }
            }
            let event = Event::by_host(EventKind::JobHeld)
                .of_job(job)
                .detail("windows", windows.into_iter().collect::<Vec<_>>())
                .detail("operations", held);
            if held > 0 {
                audit::append(conn, &tenant, now, [event])?;
            }
            Ok::<_, StoreError>(())
        })
        .await?;
    host.events.notify(job);
    Ok(())
}

/// A step that was taken.
struct Taken {
    step: Step,
    /// As they are stored now.
    released: Vec<(OperationRow, Standing)>,
    /// What ended instead of being released.
    ended: Vec<State>,
}

fn take(
    conn: &Connection,
    host: &SharedHost,
    tenant: &Tenant,
    job: JobId,
    now: UnixMillis,
) -> Result<Taken, StoreError> {
    let mut taken = Taken {
        step: Step::Wait,
        released: Vec::new(),
        ended: Vec::new(),
    };
    // Looked at again, where nothing can change in between.
    let Some(mut row) = rollouts::find(conn, tenant.id, job)? else {
        return Ok(taken);
    };
    let Next { step, forgiven } = next(conn, host, &row, now)?;
    taken.step = step;
    row.forgiven = forgiven;
    match step {
        Step::Wait => {}
        Step::Begin { batch } => row.batch = batch,
        Step::Done => (row.state, row.paused) = (RolloutState::Done, None),
        Step::Stop { batch, rule, count } => {
            (row.batch, row.state) = (batch, RolloutState::Paused);
            row.paused = Some(PausedRow {
                since: now,
                by: None,
                rule: Some(rule),
                count: Some(count),
            });
            let taken_back = operations::hold_queued(conn, tenant.id, job)?;
            let share = row.batches.stops.of(rule).map(|share| share.to_string());
            let event = about(&row, Event::by_host(EventKind::JobStopped))
                .detail("rule", share)
                .detail(rule.as_str(), count)
                .detail("taken_back", taken_back);
            audit::append(conn, tenant, now, [event])?;
        }
        Step::Release { batch, operations } => {
            row.batch = batch;
            let held = startable(conn, &row, batch, operations.min(STEP), now)?;
            let event = about(&row, Event::by_host(EventKind::JobReleased))
                .detail("operations", held.len());
            audit::append(conn, tenant, now, [event])?;
            for held in held {
                release(conn, host, tenant, &row, held, &mut taken, now)?;
            }
        }
    }
    rollouts::update(conn, &row)?;
    Ok(taken)
}

fn release(
    conn: &Connection,
    host: &SharedHost,
    tenant: &Tenant,
    row: &RolloutRow,
    (mut operation, standing): (OperationRow, Standing),
    taken: &mut Taken,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let machine = operation.machine;
    let is_connected = machine.is_some_and(|machine| host.presence.get(machine).is_some());
    if row.no_queue && !is_connected {
        let report = Report::without_process(Ending::AgentNotConnected, now.to_wire());
        jobs::end_unsent(conn, tenant, &operation, &report, now)?;
        taken.ended.push(report.ending.state());
        return Ok(());
    }
    // It counts as delivered from the commit on, as what is submitted does; where it is in order, from its turn on.
    operation.state = if is_connected && !operation.in_order {
        State::Delivered
    } else {
        State::Queued
    };
    if operations::release(conn, operation.id, operation.state)? {
        taken.released.push((operation, standing));
    }
    Ok(())
}

/// What an entry about a rollout says of it.
pub(super) fn about(row: &RolloutRow, event: Event) -> Event {
    event
        .of_job(row.job)
        .detail("batch", row.batch)
        .detail("of", row.batches.ends.len())
}
