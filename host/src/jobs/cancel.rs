//! Ending what has not ended: by an operator's wish, or because the machine is revoked.

use sluice_protocol::digest::Digest;
use sluice_protocol::ending::{Ending, State};
use sluice_protocol::ids::{JobId, MachineId, OperationId};
use sluice_protocol::report::Report;

use super::later;
use super::outcome::{Ended, events_of_end};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::fleet::Command;
use crate::host::SharedHost;
use crate::operators::Actor;
use crate::store::later::open as open_for_later;
use crate::store::operations::{self, From, OperationRow};
use crate::store::{Connection, StoreError, holds, jobs};

/// How many jobs one transaction cancels.
const STEP: u32 = 100;

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
            let mut canceling = Canceling::default();
            let events = canceling.add(conn, &asked, job, now, |_| true)?;
            audit::append(conn, &asked.tenant, now, events)?;
            Ok(canceling)
        })
        .await?;
    Ok(canceling.tell(host, actor))
}

/// Cancels every operation of the operator's tenant that has not ended, and says how many those are. What is submitted
/// in the meantime is canceled too, or not: a lockdown keeps it out.
///
/// # Errors
///
/// Where the database cannot be used; what was canceled until then stays so.
pub async fn halt(host: &SharedHost, actor: &Actor, now: UnixMillis) -> Result<u64, StoreError> {
    let (mut count, mut after) = (0, None);
    loop {
        let asked = actor.clone();
        let (canceling, last) = host
            .store
            .write(move |conn| {
                let mut canceling = Canceling::default();
                let mut events = Vec::new();
                // On the record whether or not there is anything to end.
                if after.is_none() {
                    events.push(Event::by(EventKind::JobHalted, &asked));
                    // Of some every operation may have ended so far.
                    for row in open_for_later(conn, asked.tenant.id)? {
                        events.extend(canceling.add(conn, &asked, row.job, now, |_| true)?);
                    }
                }
                let jobs = operations::open_jobs(conn, asked.tenant.id, after, STEP)?;
                for job in &jobs {
                    events.extend(canceling.add(conn, &asked, *job, now, |_| true)?);
                }
                audit::append(conn, &asked.tenant, now, events)?;
                Ok::<_, StoreError>((canceling, jobs.last().copied()))
            })
            .await?;
        count += canceling.tell(host, actor);
        match last {
            Some(last) => after = Some(last),
            None => return Ok(count),
        }
    }
}

/// What was canceled in a transaction and is not yet told to anybody.
#[derive(Debug, Default)]
pub struct Canceling {
    jobs: Vec<JobId>,
    ended: u64,
    told: Vec<(OperationId, MachineId)>,
}

impl Canceling {
    /// Cancels what has not started of a job, in the caller's transaction, and records it. [`Canceling::tell`] follows the
    /// commit.
    ///
    /// # Errors
    ///
    /// Where the database cannot be written.
    pub fn add_unstarted(
        &mut self,
        conn: &Connection,
        actor: &Actor,
        job: JobId,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let unstarted = |state| state != State::Running;
        let events = self.add(conn, actor, job, now, unstarted)?;
        audit::append(conn, &actor.tenant, now, events).map(|_| ())
    }

    /// Cancels a job's open operations of these states in the caller's transaction; gives what is to be recorded.
    pub(super) fn add(
        &mut self,
        conn: &Connection,
        actor: &Actor,
        job: JobId,
        now: UnixMillis,
        concerned: impl Fn(State) -> bool,
    ) -> Result<Vec<Event>, StoreError> {
        let script_sha256 = jobs::script_sha256(conn, actor.tenant.id, job)?;
        let mut events = Vec::new();
        let fixed = Event::by(EventKind::JobTargetsFixed, actor);
        let reason = format!("canceled by {}", actor.name);
        events.extend(later::close(
            conn,
            actor.tenant.id,
            job,
            fixed,
            &reason,
            now,
        )?);
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
            let source = Event::by(EventKind::ScriptCanceled, actor);
            let ended = self.end_unsent(conn, &source, &operation, script_sha256, &report)?;
            if ended.is_empty() {
                operations::set_cancel(conn, operation.id, &actor.name)?;
                self.told
                    .extend(operation.machine.map(|machine| (operation.id, machine)));
            }
            events.extend(ended);
        }
        self.concerns(job);
        Ok(events)
    }

    /// Ends an operation in the caller's transaction; gives what is to be recorded, which is nothing where the operation was
    /// sent or had ended, and stays as it is.
    pub(super) fn end_unsent(
        &mut self,
        conn: &Connection,
        source: &Event,
        operation: &OperationRow,
        script_sha256: Digest,
        report: &Report,
    ) -> Result<Vec<Event>, StoreError> {
        if !operations::end(conn, operation.id, From::NotSent, report)? {
            return Ok(Vec::new());
        }
        self.ended += 1;
        self.concerns(operation.job);
        let over = Ended {
            operation,
            script_sha256,
            report,
            verdict_is_recorded: false,
        };
        Ok(events_of_end(source, &over))
    }

    fn concerns(&mut self, job: JobId) {
        if !self.jobs.contains(&job) {
            self.jobs.push(job);
        }
    }

    /// Tells followers and machines, once that is committed; says how many operations it is about.
    pub fn tell(self, host: &SharedHost, actor: &Actor) -> u64 {
        for _ in 0..self.ended {
            host.metrics.operation_ended(State::Canceled);
        }
        for job in self.jobs {
            host.events.notify(job);
            host.rollouts.wake(job);
        }
        for (operation, machine) in &self.told {
            if let Some(session) = host.presence.get(*machine) {
                session.send(Command::Cancel {
                    operation: *operation,
                    by: actor.name.clone(),
                });
            }
        }
        self.ended + self.told.len() as u64
    }
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
    holds::lose_machine(conn, actor.tenant.id, machine)?;
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
            verdict_is_recorded: false,
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
