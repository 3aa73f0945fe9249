//! Ending what has not ended: by an operator's wish, or because the machine is revoked.

use sluice_protocol::ending::{Ending, State};
use sluice_protocol::ids::{JobId, MachineId, OperationId};
use sluice_protocol::report::Report;

use super::outcome::{Ended, events_of_end};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::fleet::Command;
use crate::host::SharedHost;
use crate::operators::Actor;
use crate::store::operations::{self, From, OperationRow};
use crate::store::{Connection, StoreError, jobs};

/// Cancels a job: what was not sent ends here and now, the rest is told to the machines, which may be too late. Says how
/// many operations that concerns.
///
/// # Errors
///
/// There is no such job of the operator's tenant, or the database cannot be written.
pub async fn cancel(
    host: &SharedHost,
    actor: &Actor,
    job: JobId,
    now: UnixMillis,
) -> Result<u64, CancelError> {
    let asked = actor.clone();
    let canceling = host
        .store
        .write(move |conn| {
            if jobs::not_after(conn, asked.tenant.id, job)?.is_none() {
                return Err(CancelError::NoJob(job));
            }
            Ok(Canceling::of(conn, &asked, job, now, |_| true)?)
        })
        .await?;
    Ok(tell_canceled(host, actor, job, &canceling))
}

/// A job's operations that were canceled in a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Canceling {
    /// How many ended there and then.
    ended: u64,
    /// Those that their machines are yet to be told of.
    told: Vec<(OperationId, MachineId)>,
}

impl Canceling {
    /// Cancels what has not started of a job, in the caller's transaction. [`tell_canceled`] follows its commit.
    ///
    /// # Errors
    ///
    /// Where the database cannot be written.
    pub fn of_unstarted(
        conn: &Connection,
        actor: &Actor,
        job: JobId,
        now: UnixMillis,
    ) -> Result<Self, StoreError> {
        Self::of(conn, actor, job, now, |state| state != State::Running)
    }

    fn of(
        conn: &Connection,
        actor: &Actor,
        job: JobId,
        now: UnixMillis,
        concerned: impl Fn(State) -> bool,
    ) -> Result<Self, StoreError> {
        let script_sha256 = jobs::script_sha256(conn, actor.tenant.id, job)?;
        let (mut canceling, mut events) = (Self::default(), Vec::new());
        for operation in operations::of_job(conn, actor.tenant.id, job)? {
            if operation.state.is_terminal() || !concerned(operation.state) {
                continue;
            }
            events.push(
                Event::by(EventKind::ScriptCancelRequested, actor)
                    .on(&operation.machine_name)
                    .of_job(job)
                    .of_operation(operation.id)
                    .with_script(script_sha256)
                    .with_bundle(operation.bundle_sha256),
            );
            let report =
                Report::without_process(Ending::Canceled(actor.name.clone()), now.to_wire());
            if operations::end(conn, operation.id, From::NotSent, &report)? {
                let over = Ended {
                    operation: &operation,
                    script_sha256,
                    report: &report,
                };
                events.extend(events_of_end(
                    &Event::by(EventKind::ScriptCanceled, actor),
                    &over,
                ));
                canceling.ended += 1;
            } else {
                operations::set_cancel(conn, operation.id, &actor.name)?;
                let machine = operation.machine.map(|machine| (operation.id, machine));
                canceling.told.extend(machine);
            }
        }
        audit::append(conn, &actor.tenant, now, events)?;
        Ok(canceling)
    }
}

/// Tells followers and machines, once it is on disk. Says how many operations it concerns.
pub fn tell_canceled(host: &SharedHost, actor: &Actor, job: JobId, canceling: &Canceling) -> u64 {
    for _ in 0..canceling.ended {
        host.metrics.operation_ended(State::Canceled);
    }
    host.events.notify(job);
    for (operation, machine) in &canceling.told {
        if let Some(session) = host.presence.get(*machine) {
            session.send(Command::Cancel {
                operation: *operation,
                by: actor.name.clone(),
            });
        }
    }
    canceling.ended + canceling.told.len() as u64
}

/// Ends every open operation of a machine that is being revoked, in the caller's transaction: what was not sent is
/// canceled, and of the rest nobody will ever know. Gives the jobs to notify.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn end_all_of_machine(
    conn: &Connection,
    actor: &Actor,
    machine: MachineId,
    now: UnixMillis,
) -> Result<Vec<(JobId, State)>, StoreError> {
    let (mut ended, mut events) = (Vec::new(), Vec::new());
    for operation in operations::open_of_machine(conn, actor.tenant.id, machine)? {
        let ending = match operation.state {
            State::Held | State::Queued => Ending::Canceled(actor.name.clone()),
            _ => Ending::Interrupted,
        };
        let report = Report::without_process(ending, now.to_wire());
        if operations::end(conn, operation.id, From::Open, &report)? {
            events.extend(end_events(conn, actor, &operation, &report)?);
            ended.push((operation.job, report.ending.state()));
        }
    }
    audit::append(conn, &actor.tenant, now, events)?;
    Ok(ended)
}

fn end_events(
    conn: &Connection,
    actor: &Actor,
    operation: &OperationRow,
    report: &Report,
) -> Result<Vec<Event>, StoreError> {
    let script_sha256 = jobs::script_sha256(conn, actor.tenant.id, operation.job)?;
    Ok(events_of_end(
        &Event::by(EventKind::ScriptCanceled, actor),
        &Ended {
            operation,
            script_sha256,
            report,
        },
    ))
}

/// Nothing was canceled.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// Unknown, or another tenant's: the answer is the same.
    #[error("there is no job {0}")]
    NoJob(JobId),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
