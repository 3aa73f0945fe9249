//! One more machine of a job: judged as its first ones were, with what counts now, and stored once.

use sluice_api_types::rollout::RolloutState;
use sluice_protocol::ending::{Ending, State};
use sluice_protocol::ids::{MachineId, OperationId, TenantId};
use sluice_protocol::report::Report;
use uuid::Uuid;

use super::close::close;
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::jobs::cancel::Canceling;
use crate::jobs::hold::Threshold;
use crate::jobs::supersede::supersede;
use crate::jobs::targets::{MOST_TARGETS, Target};
use crate::jobs::{
    DEFAULT_EXPIRY, Locked, SubmitError, approve, authorize::Needs, preflight, record, submit,
};
use crate::library;
use crate::operators::{self, Actor, AuthenticationError, Permission};
use crate::secrets::{Confided, UseError};
use crate::store::jobs::{self, JobRow};
use crate::store::later::{self, LaterRow};
use crate::store::machines::{self, MachineRow};
use crate::store::operations::{self, OperationRow};
use crate::store::{Connection, Extent, StoreError, rollouts, secrets, tenants, windows};
use crate::windows::HoldError;

/// Where machines join that nobody named, in the audit log.
const SOURCE: &str = "selector";
/// How many machines one transaction takes.
const STEP: usize = 256;
/// How far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joined {
    /// Every machine was judged.
    Whole,
    /// The job is paused or the host locked down: it takes none now.
    Held,
    /// Something changed in between: it is to be tried again.
    Again,
}

/// Has those of the machines join that may, and keeps of the others why not.
pub(super) async fn join(
    host: &SharedHost,
    row: &LaterRow,
    machines: Vec<MachineRow>,
    now: UnixMillis,
) -> Result<Joined, StoreError> {
    let (tenant, id) = (row.tenant, row.job);
    let job = host.store.read(|conn| jobs::find(conn, tenant, id))?;
    let Some(job) = job else {
        return Ok(Joined::Whole);
    };
    let submitter = match submitter(host, &job, tenant, now)? {
        Ok(submitter) => submitter,
        Err(reason) => {
            give_up(host, tenant, &job, reason, now).await?;
            return Ok(Joined::Whole);
        }
    };
    let mut join = Join {
        host,
        submitter,
        row,
        job,
        now,
    };
    let mut steps: Vec<Vec<MachineRow>> = machines.chunks(STEP).map(<[_]>::to_vec).collect();
    steps.reverse();
    while let Some(step) = steps.pop() {
        match join.add(&step).await {
            Ok(Joined::Whole) => {}
            Ok(other) => return Ok(other),
            Err(error) => match Refusal::of(error)? {
                Refusal::Again => return Ok(Joined::Again),
                Refusal::Held => return Ok(Joined::Held),
                Refusal::Job(reason) => {
                    give_up(host, tenant, &join.job, reason, now).await?;
                    return Ok(Joined::Whole);
                }
                Refusal::Machine(..) if step.len() > 1 => {
                    // One of them is in the way of all.
                    steps.extend(step.into_iter().rev().map(|one| vec![one]));
                }
                Refusal::Machine(reason, permission) => {
                    for machine in step {
                        join.refuse(machine, reason.clone(), permission).await?;
                    }
                }
            },
        }
    }
    Ok(Joined::Whole)
}

/// Whether who submitted the job may run it still, with what they may do now.
fn submitter(
    host: &SharedHost,
    job: &JobRow,
    tenant: TenantId,
    now: UnixMillis,
) -> Result<Result<Actor, String>, StoreError> {
    let token: Uuid = job.token;
    let found = host
        .store
        .read(|conn| operators::on_behalf_of(conn, &host.roles, tenant, token, SOURCE, now));
    let actor = match found {
        Ok(actor) => actor,
        Err(AuthenticationError::Store(error)) => return Err(error),
        Err(error) => return Ok(Err(error.to_string())),
    };
    let needs = needs(host, tenant, job)?;
    Ok(match needs.in_general(&actor) {
        Ok(()) => Ok(actor),
        Err(denied) => Err(said(&denied)),
    })
}

fn needs(host: &SharedHost, tenant: TenantId, job: &JobRow) -> Result<Needs, StoreError> {
    let ignores = host
        .store
        .read(|conn| windows::are_ignored(conn, tenant, job.id))?;
    let needs = approve::needs(host, tenant, job)?;
    Ok(needs.and(ignores.then_some(Permission::IgnoreWindows)))
}

/// No machine joins any more.
async fn give_up(
    host: &SharedHost,
    tenant: TenantId,
    job: &JobRow,
    reason: String,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let id = job.id;
    host.store
        .write(move |conn| {
            let event = Event::by_host(EventKind::JobTargetsFixed);
            let event = close(conn, tenant, id, event, &record::cut(&reason), now)?;
            if let (Some(tenant), Some(event)) = (tenants::find(conn, tenant)?, event) {
                audit::append(conn, &tenant, now, [event])?;
            }
            Ok::<_, StoreError>(())
        })
        .await?;
    host.events.notify(id);
    host.rollouts.wake(id);
    Ok(())
}

/// What a refusal is about.
enum Refusal {
    Machine(String, Option<Permission>),
    Job(String),
    Held,
    Again,
}

impl Refusal {
    fn of(error: SubmitError) -> Result<Self, StoreError> {
        let reason = said(&error);
        Ok(match error {
            SubmitError::Store(error)
            | SubmitError::Secret(UseError::Store(error))
            | SubmitError::Windows(HoldError::Store(error)) => return Err(error),
            SubmitError::Locked(_) => Self::Held,
            SubmitError::ApprovalChanged | SubmitError::Secret(UseError::Rotated(_)) => Self::Again,
            SubmitError::Denied(denied) => Self::Machine(reason, Some(denied.permission)),
            SubmitError::LaterNeedsApproval(_)
            | SubmitError::LaterSuperseded(_)
            | SubmitError::LaterFull(_)
            | SubmitError::NoMachines
            | SubmitError::Secret(UseError::TooMuch { .. }) => Self::Machine(reason, None),
            _ => Self::Job(reason),
        })
    }
}

/// What an error says, without what it says of a job that is not made: this one is.
fn said(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let text = text.split("; no job was made").next().unwrap_or_default();
    text.trim_end_matches("; nothing was done").to_owned()
}

struct Join<'a> {
    host: &'a SharedHost,
    submitter: Actor,
    row: &'a LaterRow,
    job: JobRow,
    now: UnixMillis,
}

/// A machine that was judged.
struct Judged {
    operation: OperationRow,
    ended: Option<Report>,
    machine: MachineId,
    /// What rights and gates were asked with.
    tags: Vec<String>,
}

impl Join<'_> {
    async fn add(&mut self, machines: &[MachineRow]) -> Result<Joined, SubmitError> {
        let (host, actor, now) = (self.host, &self.submitter, self.now);
        let tenant = self.row.tenant;
        let ids = machines.iter().map(|machine| machine.id.to_string());
        let order = approve::order(host, tenant, &self.job, ids.collect(), None, DEFAULT_EXPIRY)?;
        let (found, gates) = submit::look_up(host, tenant, &order).await?;
        let has_secrets = !order.submission.secrets.is_empty();
        let looked = host
            .store
            .look(Extent::of_rows(found.len()), move |conn| {
                let mut looked = Vec::new();
                for target in found {
                    let Target::Machine(machine) = &target else {
                        continue;
                    };
                    let id = machine.id;
                    // One that was never connected is looked at again when it is: nothing can be sealed to it.
                    if has_secrets && secrets::sealing_key(conn, tenant, id)?.is_none() {
                        continue;
                    }
                    looked.push((target, id, machines::words_of_tags(conn, id)?));
                }
                Ok::<_, SubmitError>(looked)
            })
            .await?;
        if looked.is_empty() {
            return Ok(Joined::Whole);
        }
        let targets: Vec<Target> = looked.iter().map(|(target, ..)| target.clone()).collect();
        let of = self.job.targets + targets.len() as u64;
        if of > MOST_TARGETS as u64 {
            return Err(SubmitError::LaterFull(MOST_TARGETS as u64));
        }
        let needs = needs(host, tenant, &self.job)?;
        needs.on_some(host, actor, &order, &targets, of).await?;
        let plans = preflight::check(host, actor, &order, &targets, of, &gates, now).await?;
        let threshold = Threshold::ask(host, actor, &order, &targets, &plans, of, now).await?;
        if let Some(because) = threshold.because() {
            return Err(SubmitError::LaterNeedsApproval(because));
        }
        let ids: Vec<OperationId> = targets.iter().map(|_| OperationId::generate()).collect();
        let confided = record::confided(host, actor, &order, &targets, &ids).await?;
        let judged = looked.into_iter().zip(plans).zip(ids);
        let judged = judged.map(|(((target, machine, tags), plan), id)| {
            let no_secrets = |end: Ending| Report::without_process(end, now.to_wire());
            let ended = plan.ended.or_else(|| confided.of(id).err().map(no_secrets));
            let operation = record::operation(&self.job, tenant, id, &target, plan.bundle_sha256);
            Judged {
                operation,
                ended,
                machine,
                tags,
            }
        });
        let judged: Vec<Judged> = judged.collect();
        let writing = Writing {
            host: host.clone(),
            submitter: actor.clone(),
            row: self.row.clone(),
            job: self.job.clone(),
            threshold,
            confided,
            gates_revision: gates.revision,
            now,
        };
        let written = host
            .store
            .write(move |conn| writing.write(conn, judged))
            .await?;
        let Some(written) = written else {
            return Ok(Joined::Held);
        };
        self.job.targets += written.joined;
        let _ = written.superseded.tell(host, actor);
        host.metrics.operations_submitted(written.joined);
        for state in written.ended {
            host.metrics.operation_ended(state);
        }
        // What may start now is released by the one who drives rollouts.
        host.rollouts.begin(self.job.id, actor.tenant.clone());
        host.rollouts.wake(self.job.id);
        host.events.notify(self.job.id);
        Ok(Joined::Whole)
    }

    async fn refuse(
        &self,
        machine: MachineRow,
        reason: String,
        permission: Option<Permission>,
    ) -> Result<(), StoreError> {
        if permission.is_some() {
            self.host.metrics.request_refused();
        }
        let (actor, job, now) = (self.submitter.clone(), self.job.id, self.now);
        let reason = record::cut(&reason);
        self.host
            .store
            .write(move |conn| {
                if !later::refuse(conn, job, machine.id, &reason, now)? {
                    return Ok(());
                }
                let kind = match permission {
                    Some(_) => EventKind::PermissionDenied,
                    None => EventKind::RequestRefused,
                };
                let event = Event::by(kind, &actor)
                    .on(&machine.name)
                    .of_job(job)
                    .detail("include_later", true)
                    .detail("permission", permission.map(Permission::as_str))
                    .detail("reason", reason);
                audit::append(conn, &actor.tenant, now, [event])?;
                Ok::<_, StoreError>(())
            })
            .await?;
        self.host.events.notify(job);
        Ok(())
    }
}

/// Everything that the transaction needs.
struct Writing {
    host: SharedHost,
    submitter: Actor,
    row: LaterRow,
    job: JobRow,
    threshold: Threshold,
    confided: Confided,
    gates_revision: u64,
    now: UnixMillis,
}

struct Written {
    joined: u64,
    ended: Vec<State>,
    superseded: Canceling,
}

impl Writing {
    /// Stores the machines that still match, as they were when they were judged; nothing where the job takes none now.
    fn write(self, conn: &Connection, judged: Vec<Judged>) -> Result<Option<Written>, SubmitError> {
        let (tenant, id, now) = (self.row.tenant, self.job.id, self.now);
        let mut written = Written {
            joined: 0,
            ended: Vec::new(),
            superseded: Canceling::default(),
        };
        if let Some(locked) = Locked::check(conn)? {
            return Err(SubmitError::Locked(locked));
        }
        let is_open = later::open_until(conn, tenant, id)?.is_some_and(|until| now <= until);
        let rollout = rollouts::find(conn, tenant, id)?;
        let Some(mut rollout) = rollout.filter(|_| is_open) else {
            return Ok(Some(written));
        };
        if rollout.state == RolloutState::Paused {
            return Ok(None);
        }
        // Whose token is good at this moment.
        let token = self.job.token;
        match operators::on_behalf_of(conn, &self.host.roles, tenant, token, SOURCE, now) {
            Ok(_) => {}
            Err(AuthenticationError::Store(error)) => return Err(error.into()),
            Err(_) => return Err(SubmitError::ApprovalChanged),
        }
        if let Some(script) = &self.job.script {
            library::still_runs(conn, tenant, script)?;
        }
        self.threshold.is_current(conn, tenant)?;
        let batch = rollout.batches.ends.len() as u64;
        let (mut events, mut open) = (Vec::new(), Vec::new());
        for Judged {
            operation,
            ended,
            machine,
            tags,
        } in judged
        {
            let row = machines::find(conn, tenant, machine)?;
            let matches = match &row {
                Some(row) => self.row.selector.matches(conn, row)?,
                None => false,
            };
            // What has changed of it since was noted, and is looked at again.
            if !matches
                || machines::words_of_tags(conn, machine)? != tags
                || operations::is_of_job(conn, tenant, id, machine)?
            {
                continue;
            }
            if let Some(key) = &self.job.supersede {
                if let Some(newer) = operations::newer_with_key(conn, tenant, machine, key, id)? {
                    return Err(SubmitError::LaterSuperseded(newer));
                }
                if ended.is_none() {
                    let on = std::iter::once(machine);
                    let superseded = &mut written.superseded;
                    let more = supersede(conn, &self.submitter, &self.job, on, superseded, now)?;
                    events.extend(more);
                }
            }
            let operation = OperationRow {
                position: self.job.targets + written.joined,
                state: State::Held,
                batch: Some(batch),
                ..operation
            };
            operations::insert(conn, &operation, self.job.not_after)?;
            later::admit(conn, id, machine)?;
            written.joined += 1;
            match &ended {
                Some(report) => written.ended.push(report.ending.state()),
                None => open.push(operation.id),
            }
            let more = record::events_of(conn, &self.submitter, &self.job, &operation, ended)?;
            let more = more.into_iter();
            events.extend(more.map(|event| event.detail("include_later", true)));
        }
        if written.joined > 0 {
            self.confided.store(conn, tenant, &open)?;
            jobs::set_targets(conn, tenant, id, self.job.targets + written.joined)?;
            jobs::raise_gates_revision(conn, tenant, id, self.gates_revision)?;
            if let Some(last) = rollout.batches.ends.last_mut() {
                *last += written.joined;
            }
            rollouts::set_ends(conn, &rollout)?;
            later::add_joined(conn, id, written.joined)?;
        }
        audit::append(conn, &self.submitter.tenant, now, events)?;
        Ok(Some(written))
    }
}
