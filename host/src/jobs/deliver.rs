//! From the store to the machine.
//!
//! An operation is recorded as delivered before its first byte is sent, never after: as long as it says `queued`, the host
//! alone may end it. A machine that gets an operation twice starts it once.

use sluice_api_types::rollout::RolloutState;
use sluice_protocol::ending::{Ending, State};
use sluice_protocol::ids::{JobId, MachineId, OperationId};
use sluice_protocol::message::CloseCode;
use sluice_protocol::message::operation::{Approval, Operation};
use sluice_protocol::report::Report;
use sluice_protocol::secret::Sealed;

use super::Locked;
use super::outcome::{Ended, events_of_end};
use super::record::Queued;
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::fleet::{Command, Session};
use crate::host::SharedHost;
use crate::store::jobs::{self, JobRow};
use crate::store::operations::{self, From, OperationRow};
use crate::store::tenants::Tenant;
use crate::store::{Connection, StoreError, rollouts, secrets};
use crate::windows::{self, Standing};

/// How many operations one transaction records as delivered.
const AT_ONCE: usize = 256;

/// The message for an operation, with what was sealed for it; none where the host made no bundle for it, and so never meant
/// to deliver it. Where it stands in a window that closes, the machine is told to start it no later.
pub(super) fn message(
    job: &JobRow,
    operation: &OperationRow,
    sealed: Vec<Sealed>,
    standing: &Standing,
) -> Option<Operation> {
    let not_after = match standing {
        Standing::Free => job.not_after,
        // The moment in which it closes is outside.
        Standing::Open { closes } => job.not_after.min(UnixMillis(closes.0 - 1)),
        Standing::Closed(_) => return None,
    };
    Some(Operation {
        operation: operation.id,
        job: job.id,
        submission: job.submission.clone(),
        bundle_sha256: operation.bundle_sha256?,
        not_after: not_after.to_wire(),
        gates_revision: job.gates_revision,
        skip_security_scan: job.skip_security_scan,
        targets: job.targets,
        operator: job.operator.clone(),
        submitted_at: job.submitted.to_string(),
        authorizations: Vec::new(),
        secrets: sealed,
        approval: match &job.approved {
            None => None,
            Some(approved) => Some(Approval {
                bundle_sha256: operation.bundle_sha256?,
                machine: operation.machine?,
                by: approved.by.clone(),
            }),
        },
    })
}

/// What was sealed for an operation whose job names these secrets, and not revoked since.
fn sealed(
    conn: &Connection,
    names: &[String],
    operation: &OperationRow,
) -> Result<Vec<Sealed>, StoreError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    secrets::sealed_of(conn, operation.tenant, operation.id)
}

/// Sends what was just recorded to the machines that are connected. One that connected in the meantime gets what is
/// queued for it.
pub(super) async fn deliver_to_all(
    host: &SharedHost,
    tenant: &Tenant,
    job: JobId,
    queued: &[Queued],
    now: UnixMillis,
) {
    let mut came = false;
    for one in queued {
        came |= send(host, one);
    }
    if came {
        deliver_unsent(host, tenant, job, &[State::Queued], now).await;
    }
}

/// Sends an operation to its machine, if that is connected. Says whether it connected only after the operation was recorded:
/// then it is to be looked for among what is queued.
fn send(host: &SharedHost, queued: &Queued) -> bool {
    let Some(session) = host.presence.get(queued.machine) else {
        return false;
    };
    match &queued.message {
        Some(message) => session.deliver(Box::new(message.clone())),
        None => return true,
    }
    false
}

/// Sends what was just released of a job to the machines that are connected, as far as it is recorded as delivered.
pub(crate) async fn deliver_released(
    host: &SharedHost,
    tenant: &Tenant,
    id: JobId,
    released: &[(OperationRow, Standing)],
    now: UnixMillis,
) {
    if released.is_empty() {
        return;
    }
    let job = match host.store.read(|conn| jobs::find(conn, tenant.id, id)) {
        Ok(Some(job)) => job,
        Ok(None) => return,
        Err(error) => {
            tracing::error!(job = %id, %error, "what was released cannot be delivered now; its machines get it when they connect again");
            return;
        }
    };
    // One look at the job for all that wait for their turn, or came meanwhile, and not one for each.
    let (in_order, others): (Vec<_>, Vec<_>) = released
        .iter()
        .partition(|(operation, _)| operation.in_order);
    let mut is_left = !in_order.is_empty();
    for (operation, standing) in others {
        let message = Some(operation)
            .filter(|operation| operation.state == State::Delivered)
            .and_then(|operation| {
                // It may have been canceled since, and a machine that came back was told so.
                let found = host.store.read(|conn| {
                    let sealed = sealed(conn, &job.submission.secrets, operation)?;
                    Ok::<_, StoreError>(is_still_delivered(conn, operation)?.then_some(sealed))
                });
                match found {
                    Ok(sealed) => message(&job, operation, sealed?, standing),
                    Err(error) => {
                        tracing::error!(operation = %operation.id, %error, "what was released cannot be delivered now; its machine gets it when it connects again");
                        None
                    }
                }
            });
        let queued = operation.machine.map(|machine| Queued { machine, message });
        is_left |= queued.is_some_and(|queued| send(host, &queued));
    }
    if is_left {
        deliver_unsent(host, tenant, id, &[State::Queued], now).await;
    }
}

/// Sends those of a job's operations that are in one of `states` to the machines that are connected now. A machine that
/// has got one already does not start it again. What cannot be sent is logged, and sent when its machine connects again:
/// the job stands, and one machine's trouble is not another's.
pub(super) async fn deliver_unsent(
    host: &SharedHost,
    tenant: &Tenant,
    id: JobId,
    states: &[State],
    now: UnixMillis,
) {
    let job = match job_with_operations(host, tenant, id, states).await {
        Ok(job) => job,
        Err(error) => {
            tracing::error!(job = %id, %error, "a job cannot be delivered now; its machines get it when they connect again");
            return;
        }
    };
    let Some((job, operations)) = job else { return };
    // What is overdue, the sweeper ends; of what has no bundle there is nothing to send.
    let mut connected: Vec<_> = operations
        .into_iter()
        .filter(|operation| now <= job.not_after && operation.bundle_sha256.is_some())
        .filter_map(|operation| Some((host.presence.get(operation.machine?)?, operation)))
        .collect();
    while !connected.is_empty() {
        let step: Vec<_> = connected.drain(..connected.len().min(AT_ONCE)).collect();
        if deliver_step(host, tenant, &job, step.clone(), now)
            .await
            .is_ok()
        {
            continue;
        }
        // One of them is in the way of all.
        for one in step {
            let (operation, machine) = (one.1.id, one.1.machine_name.clone());
            if let Err(error) = deliver_step(host, tenant, &job, vec![one], now).await {
                tracing::error!(%operation, machine, %error, "an operation cannot be delivered now; its machine gets it when it connects again");
            }
        }
    }
    host.events.notify(id);
}

/// A job, and those of its operations that are in one of `states` and that nobody wants to be canceled: such a one may be
/// on the machine or not, and must not start after the machine was told to end it.
async fn job_with_operations(
    host: &SharedHost,
    tenant: &Tenant,
    id: JobId,
    states: &[State],
) -> Result<Option<(JobRow, Vec<OperationRow>)>, StoreError> {
    let (tenant, states) = (tenant.id, states.to_vec());
    host.store
        .scan(move |conn| {
            if Locked::check(conn)?.is_some() {
                return Ok(None);
            }
            let mut operations = operations::of_job(conn, tenant, id)?;
            operations.retain(|row| states.contains(&row.state) && row.cancel_by.is_none());
            if operations.is_empty() {
                return Ok(None);
            }
            Ok(jobs::find(conn, tenant, id)?.map(|job| (job, operations)))
        })
        .await
}

/// Records operations as delivered, in one transaction, and sends those that still are to be.
async fn deliver_step(
    host: &SharedHost,
    tenant: &Tenant,
    job: &JobRow,
    step: Vec<(Session, OperationRow)>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let names = job.submission.secrets.clone();
    let (tenant, id) = (tenant.id, job.id);
    let step = host
        .store
        .write(move |conn| {
            let mut ours = Vec::new();
            // Nothing is delivered from the moment on in which a lockdown is on disk.
            if Locked::check(conn)?.is_some() {
                return Ok::<_, StoreError>(ours);
            }
            let mut windows = windows::Look::at(conn, tenant, id, now)?;
            for (session, operation) in step {
                let standing = windows.standing(conn, operation.machine)?;
                if matches!(standing, Standing::Closed(_)) {
                    continue;
                }
                let sealed = sealed(conn, &names, &operation)?;
                if is_to_be_sent(conn, &operation)? {
                    ours.push((session, operation, sealed, standing));
                }
            }
            Ok(ours)
        })
        .await?;
    for (session, operation, sealed, standing) in step {
        if let Some(message) = message(job, &operation, sealed, &standing) {
            session.deliver(Box::new(message));
        }
    }
    Ok(())
}

/// Whether an operation is delivered now. It may have been canceled, and ended, since it was read.
fn is_to_be_sent(conn: &Connection, operation: &OperationRow) -> Result<bool, StoreError> {
    if operation.state != State::Delivered {
        return operations::set_delivered(conn, operation.id);
    }
    // Of a rollout that is paused nothing goes out again: when the machine is back it is known whether it has it.
    Ok(is_still_delivered(conn, operation)? && !is_paused(conn, operation)?)
}

fn is_still_delivered(conn: &Connection, operation: &OperationRow) -> Result<bool, StoreError> {
    let row = operations::find(conn, operation.tenant, operation.id)?;
    Ok(row.is_some_and(|row| row.state == State::Delivered && row.cancel_by.is_none()))
}

fn is_paused(conn: &Connection, operation: &OperationRow) -> Result<bool, StoreError> {
    if operation.batch.is_none() {
        return Ok(false);
    }
    let rollout = rollouts::find(conn, operation.tenant, operation.job)?;
    Ok(rollout.is_some_and(|row| row.state == RolloutState::Paused))
}

/// The message for an operation that is recorded as delivered; none where the host is locked down.
pub(super) fn stored_message(
    conn: &Connection,
    operation: &OperationRow,
    standing: &Standing,
) -> Result<Option<Operation>, StoreError> {
    if Locked::check(conn)?.is_some() {
        return Ok(None);
    }
    let Some(job) = jobs::find(conn, operation.tenant, operation.job)? else {
        return Ok(None);
    };
    let sealed = sealed(conn, &job.submission.secrets, operation)?;
    Ok(message(&job, operation, sealed, standing))
}

/// What a machine that has connected is owed.
#[derive(Debug, Default)]
pub struct Pending {
    /// To be sent, the oldest first: recorded as delivered by now.
    pub deliver: Vec<(OperationRow, Standing)>,
    /// To be ended, and who wants that.
    pub cancel: Vec<(OperationId, String)>,
    /// Jobs of which an operation was canceled that had never arrived.
    pub canceled: Vec<JobId>,
}

/// Finds what a machine is owed, apart from the operations that it says it has. What was queued counts as delivered from
/// here on.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn pending(
    host: &SharedHost,
    tenant: &Tenant,
    machine: MachineId,
    has: &[OperationId],
    now: UnixMillis,
) -> Result<Pending, StoreError> {
    pending_and(host, tenant, machine, has, now, || ()).await
}

/// The same, and does something in that transaction.
async fn pending_and(
    host: &SharedHost,
    tenant: &Tenant,
    machine: MachineId,
    has: &[OperationId],
    now: UnixMillis,
    also: impl FnOnce() + Send + 'static,
) -> Result<Pending, StoreError> {
    let (tenant, has) = (tenant.clone(), has.to_vec());
    let pending = host
        .store
        .write(move |conn| {
            also();
            let mut pending = Pending::default();
            let locked = Locked::check(conn)?.is_some();
            for mut operation in operations::open_of_machine(conn, tenant.id, machine)? {
                if has.contains(&operation.id) {
                    if let Some(by) = operation.cancel_by.clone() {
                        pending.cancel.push((operation.id, by));
                    }
                    continue;
                }
                if let (State::Delivered, Some(by)) = (operation.state, &operation.cancel_by) {
                    // The machine has only this connection and has not got the operation, so it never will.
                    let ending = Ending::Canceled(by.to_owned());
                    let report = Report::without_process(ending, now.to_wire());
                    pending
                        .canceled
                        .push(end_unsent(conn, &tenant, &operation, &report, now)?);
                    continue;
                }
                let standing = windows::standing(conn, &operation, now)?;
                // What it is owed it gets when the lockdown is lifted, or the window opens.
                let waits = locked || matches!(standing, Standing::Closed(_));
                if operation.state == State::Delivered && (waits || is_paused(conn, &operation)?) {
                    // It never arrived, so it waits like the others.
                    operations::hold_delivered(conn, operation.id)?;
                    continue;
                }
                if waits {
                    continue;
                }
                let overdue = jobs::not_after(conn, tenant.id, operation.job)?
                    .is_none_or(|not_after| not_after < now);
                // What is queued and overdue, the sweeper ends.
                if operation.state == State::Queued
                    && !overdue
                    && operations::set_delivered(conn, operation.id)?
                {
                    operation.state = State::Delivered;
                }
                if operation.state == State::Delivered {
                    pending.deliver.push((operation, standing));
                }
            }
            Ok::<_, StoreError>(pending)
        })
        .await?;
    for job in pending
        .deliver
        .iter()
        .map(|(operation, _)| operation.job)
        .chain(pending.canceled.iter().copied())
    {
        host.events.notify(job);
    }
    for job in &pending.canceled {
        host.metrics.operation_ended(State::Canceled);
        host.rollouts.wake(*job);
    }
    Ok(pending)
}

/// Ends an operation that never arrived: it was canceled, or its machine is not connected and it was not to wait.
pub(crate) fn end_unsent(
    conn: &Connection,
    tenant: &Tenant,
    operation: &OperationRow,
    report: &Report,
    now: UnixMillis,
) -> Result<JobId, StoreError> {
    if operations::end(conn, operation.id, From::Open, report)? {
        let script_sha256 = jobs::script_sha256(conn, tenant.id, operation.job)?;
        let ended = Ended {
            operation,
            script_sha256,
            report,
            verdict_is_recorded: false,
        };
        audit::append(
            conn,
            tenant,
            now,
            events_of_end(&Event::by_host(EventKind::ScriptCanceled), &ended),
        )?;
    }
    Ok(operation.job)
}

/// Sends a connected machine what it is owed. From here on its connection is one that may be given operations.
///
/// # Errors
///
/// Where the database cannot be used.
pub async fn deliver_pending(
    host: &SharedHost,
    session: &Session,
    has: &[OperationId],
) -> Result<(), StoreError> {
    let (tenant, machine, proven) = (&session.tenant, session.machine, session.clone());
    let prove = move || proven.prove();
    let pending = pending_and(host, tenant, machine, has, host.clock.now(), prove).await?;
    for (operation, standing) in pending.deliver {
        // One at a time: a machine may be owed more than should be in memory at once.
        let message = host
            .store
            .read(|conn| stored_message(conn, &operation, &standing))?;
        match message {
            Some(message) => session.deliver_wait(Box::new(message)).await,
            // A lockdown began in between. What counts as delivered and is not, is settled when the machine comes back.
            None => {
                session.close(CloseCode::Busy, "a lockdown has begun; come back");
                return Ok(());
            }
        }
    }
    for (operation, by) in pending.cancel {
        session.send_wait(Command::Cancel { operation, by }).await;
    }
    Ok(())
}
