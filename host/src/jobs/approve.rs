//! The story of an approval: what a policy blocked for want of one is submitted once more, exactly as it was, as the
//! operator who asked for it, with the word of another.
//!
//! ```text
//! what is it about? -> permission -> not one's own -> blocked for want of an approval, lately, and not approved before
//!     -> the submitter's token is good -> preflight, with the approval -> the same bundle? -> record (used up) -> deliver
//! ```
//!
//! Where anything is in the way nothing is made, and the refusal is on the record with every machine and digest.
//!
//! A job that waits for approvals as a whole goes another way (`held.rs`), with the same rules for who may.

mod error;
mod held;
#[cfg(test)]
mod held_tests;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use sluice_api_types::approval::DenyJob;
use sluice_api_types::job::ApproveJob;
use sluice_gate_client::APPROVAL_REQUIRED;
use sluice_protocol::bundle::Source;
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::{Ending, State};
use sluice_protocol::ids::{JobId, MachineId, TenantId};
use sluice_protocol::units::Span;

pub use self::error::{ApproveError, NotOpen};
use super::approval::{Approval, Blocked};
use super::authorize::Needs;
use super::hold::Threshold;
use super::request::{MOST_NAMES, bounded};
use super::targets::Target;
use super::{Order, RequestError, Selection, SubmitError, deliver, preflight, record, submit};
use crate::approvals::Approver;
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::library;
use crate::operators::{self, Actor, AuthenticationError, Permission};
use crate::store::jobs::{self, JobRow};
use crate::store::operations::{self, OperationRow};
use crate::store::{Connection, StoreError, approvals, holds, rollouts, scripts, tokens};
use crate::windows;

/// How long after it was blocked an operation can be approved.
const OPEN: Span = Span::seconds(24 * 3600);
/// How long what was approved may wait for its machine, where the request does not say.
const DEFAULT_EXPIRY: Span = Span::seconds(24 * 3600);
/// The longest that it may.
const LONGEST_EXPIRY: Span = Span::seconds(7 * 24 * 3600);
/// The most operations that refusals are recorded for one by one.
const ENTRIES: usize = 50;

/// Approves operations of a job that policies blocked, and answers with the job that runs them; or a job that waits for
/// approvals, and answers with that one.
///
/// # Errors
///
/// Nothing was approved and no job was made; the refusal is on the record.
pub async fn approve(
    host: &SharedHost,
    actor: &Actor,
    job: &str,
    request: ApproveJob,
    now: UnixMillis,
) -> Result<JobId, ApproveError> {
    let asked = Asked::look_up(host, actor, job, &request).await?;
    let approved = match &asked.job {
        Some(row) if asked.waits => held::approve(host, actor, &asked, row, &request, now)
            .await
            .map(|()| row.id),
        _ => once_more(host, actor, &asked, &request, now).await,
    };
    if let Err(error) = &approved {
        refused(host, actor, job, &asked, error, now).await?;
    }
    approved
}

/// Denies a job that waits for approvals: what is held of it ends.
///
/// # Errors
///
/// It goes on waiting; the refusal is on the record.
pub async fn deny(
    host: &SharedHost,
    actor: &Actor,
    job: &str,
    request: DenyJob,
    now: UnixMillis,
) -> Result<JobId, ApproveError> {
    let asked = Asked::look_up(host, actor, job, &ApproveJob::default()).await?;
    let denied = match (actor.require(Permission::ApproveJobs), &asked.job) {
        (Err(denied), _) => Err(denied.into()),
        (_, None) => Err(ApproveError::NoJob),
        (_, Some(_)) if !asked.waits => Err(ApproveError::NotWaiting),
        (_, Some(row)) => held::deny(host, actor, &asked, row, request, now)
            .await
            .map(|()| row.id),
    };
    if let Err(error) = &denied {
        refused(host, actor, job, &asked, error, now).await?;
    }
    denied
}

/// The job that runs once more what was blocked, on its way.
async fn once_more(
    host: &SharedHost,
    actor: &Actor,
    asked: &Asked,
    request: &ApproveJob,
    now: UnixMillis,
) -> Result<JobId, ApproveError> {
    let made = accept(host, actor, asked, request, now).await?;
    deliver::deliver_to_all(host, &actor.tenant, made.job, &made.queued, now).await;
    Ok(made.job)
}

/// What a request is about, whoever makes it.
#[derive(Debug)]
struct Asked {
    /// None where the tenant has no such job.
    job: Option<JobRow>,
    /// Those of its operations that are meant.
    operations: Vec<Candidate>,
    /// Names in the request that are none of its machines'.
    unknown: Vec<String>,
    /// Who asks.
    approver: Approver,
    /// Who submitted the job; none where there is none.
    submitter: Option<Approver>,
    /// Whether the job as a whole waits for approvals.
    waits: bool,
}

/// A job that an approval made.
struct Made {
    job: JobId,
    queued: Vec<record::Queued>,
}

/// An operation that may be one to approve.
#[derive(Debug, Clone)]
struct Candidate {
    operation: OperationRow,
    /// When it was blocked for want of an approval; none where it was not.
    blocked: Option<UnixMillis>,
    /// The job that was made when it was approved before.
    approved: Option<JobId>,
}

impl Asked {
    async fn look_up(
        host: &SharedHost,
        actor: &Actor,
        job: &str,
        request: &ApproveJob,
    ) -> Result<Self, StoreError> {
        let (tenant, asking) = (actor.tenant.id, actor.clone());
        // What is no id is no job's.
        let id = job.parse::<JobId>().ok();
        let mut unknown: Vec<String> = request.machines.iter().take(MOST_NAMES).cloned().collect();
        let named = unknown.clone();
        host.store
            .scan(move |conn| {
                let job = match id {
                    Some(id) => jobs::find(conn, tenant, id)?,
                    None => None,
                };
                let mut candidates = Vec::new();
                if let Some(job) = &job {
                    for operation in operations::of_job(conn, tenant, job.id)? {
                        let id = operation.machine.map(|machine| machine.to_string());
                        let is_meant = |name: &String| {
                            *name == operation.machine_name || Some(name) == id.as_ref()
                        };
                        unknown.retain(|name| !is_meant(name));
                        if named.is_empty() || named.iter().any(is_meant) {
                            candidates.push(Candidate::read(conn, job, operation)?);
                        }
                    }
                }
                let submitter = match &job {
                    Some(job) => Some(submitter_of(conn, tenant, job)?),
                    None => None,
                };
                let waits = match &job {
                    Some(job) => {
                        !holds::is_let_go(conn, tenant, job.id)?
                            && holds::has_held(conn, tenant, job.id)?
                    }
                    None => false,
                };
                Ok(Self {
                    job,
                    waits,
                    approver: super::hold::as_approver(conn, &asking)?,
                    submitter,
                    operations: candidates,
                    unknown,
                })
            })
            .await
    }
}

impl Candidate {
    fn read(conn: &Connection, job: &JobRow, operation: OperationRow) -> Result<Self, StoreError> {
        let mut candidate = Self {
            blocked: None,
            approved: None,
            operation,
        };
        let operation = &candidate.operation;
        if operation.state != State::Blocked {
            return Ok(candidate);
        }
        let report = operations::reports(conn, operation.tenant, operation.id)?.report;
        let Some(report) = report else {
            return Ok(candidate);
        };
        if let Ending::Blocked(block) = &report.ending
            && block.code.as_deref() == Some(APPROVAL_REQUIRED)
        {
            // A machine says when it ended. However wrong its clock is, that was while the job was good.
            let at = UnixMillis::from_wire(report.finished_at);
            candidate.blocked = Some(at.min(job.not_after).max(job.submitted));
            candidate.approved = approvals::job_of(conn, operation.tenant, operation.id)?;
        }
        Ok(candidate)
    }

    /// Whether it can be approved now.
    fn judge(&self, now: UnixMillis) -> Result<Blocked, NotOpen> {
        let machine = self.operation.machine_name.clone();
        let (Some(at), Some(bundle_sha256)) = (self.blocked, self.operation.bundle_sha256) else {
            return Err(NotOpen::NotBlocked {
                machine,
                state: self.operation.state,
            });
        };
        if let Some(job) = self.approved {
            return Err(NotOpen::Before { machine, job });
        }
        let until = at.plus(OPEN);
        if now > until {
            return Err(NotOpen::Late { machine, until });
        }
        Ok(Blocked {
            operation: self.operation.id,
            bundle_sha256,
        })
    }
}

/// The new job and what there is to deliver.
async fn accept(
    host: &SharedHost,
    actor: &Actor,
    asked: &Asked,
    request: &ApproveJob,
    now: UnixMillis,
) -> Result<Made, ApproveError> {
    actor.require(Permission::ApproveJobs)?;
    let job = asked.job.as_ref().ok_or(ApproveError::NoJob)?;
    not_their_own(job, asked)?;
    let (tenant, id) = (actor.tenant.id, job.id);
    if host
        .store
        .read(|conn| rollouts::find(conn, tenant, id))?
        .is_some_and(|row| row.batches.is_a_plan())
    {
        return Err(ApproveError::Rollout);
    }
    if request.machines.len() > MOST_NAMES {
        return Err(too_many().into());
    }
    if let Some(name) = asked.unknown.first() {
        return Err(ApproveError::NoMachine(name.clone()));
    }
    bounded("expires", request.expires, LONGEST_EXPIRY).map_err(SubmitError::from)?;
    let approval = Approval {
        approver: actor.clone(),
        job: job.id,
        blocked: open(asked, request, now)?,
    };
    let submitter = submitter(host, actor, job, now)?;
    let needs = needs(host, actor.tenant.id, job)?;
    needs.in_general(&submitter).map_err(SubmitError::from)?;
    let mut machines: Vec<_> = approval.blocked.iter().collect();
    machines.sort_by_key(|(_, blocked)| blocked.operation);
    let machines = machines.iter().map(|(id, _)| id.to_string()).collect();
    let expires = request.expires.unwrap_or(DEFAULT_EXPIRY);
    let order = order(host, tenant, job, machines, Some(approval.clone()), expires)?;

    let (targets, gates) = submit::look_up(host, actor.tenant.id, &order).await?;
    // What runs is the submitter's, who must have the right to it now, and the word for it is the approver's.
    needs.on(host, &submitter, &order, &targets).await?;
    let needed = Needs::of_approval(&order);
    match needed.on(host, actor, &order, &targets).await {
        Err(SubmitError::Denied(denied)) => return Err(denied.into()),
        answer => answer?,
    }
    if let Some(Target::NotFound(id)) = targets
        .iter()
        .find(|target| matches!(target, Target::NotFound(_)))
    {
        return Err(ApproveError::Gone(name_of(asked, id)));
    }
    let plans = preflight::check(
        host,
        &submitter,
        &order,
        &targets,
        targets.len() as u64,
        &gates,
        now,
    )
    .await?;
    if let Some((machine, bundle_sha256)) = approval.differs(&targets, &plans) {
        return Err(ApproveError::Changed {
            machine: machine.to_owned(),
            bundle_sha256,
        });
    }
    // A part of a job is above the thresholds that all of it would be above.
    let of = job.targets;
    let threshold = Threshold::ask(host, &submitter, &order, &targets, &plans, of, now).await?;
    let id = JobId::generate();
    let recorded = record::job(
        host,
        &submitter,
        id,
        None,
        order,
        targets,
        plans,
        None,
        threshold,
        gates.revision,
        now,
    )
    .await?;
    Ok(match recorded {
        record::Recorded::Rollout => {
            host.rollouts.begin(id, actor.tenant.clone());
            // What may start now is released by the one who drives rollouts.
            host.rollouts.wake(id);
            Made {
                job: id,
                queued: Vec::new(),
            }
        }
        record::Recorded::New(queued) => Made { job: id, queued },
        // Only what comes with a key can be a repetition.
        record::Recorded::Repeated(earlier) => Made {
            job: earlier,
            queued: Vec::new(),
        },
    })
}

fn too_many() -> SubmitError {
    SubmitError::Request(RequestError::TooMany {
        what: "machines",
        limit: MOST_NAMES,
    })
}

/// Whoever may be the one who submitted the job approves nothing of it, by the rules by which approvers are counted.
fn not_their_own(job: &JobRow, asked: &Asked) -> Result<(), ApproveError> {
    let approver = &asked.approver;
    match &asked.submitter {
        Some(submitter) if approver.is_also(submitter) => {
            Err(ApproveError::Own(job.operator.clone()))
        }
        Some(submitter) if approver.comes_from(submitter) => Err(ApproveError::Made {
            approver: approver.who.name.clone(),
            submitter: job.operator.clone(),
        }),
        Some(_) => Ok(()),
        // Where nobody knows who submitted it, it may have been anybody.
        None => Err(ApproveError::Own(job.operator.clone())),
    }
}

/// Who submitted a job, by whatever token. Of a token that is not known its operator is nobody else.
fn submitter_of(conn: &Connection, tenant: TenantId, job: &JobRow) -> Result<Approver, StoreError> {
    let token = tokens::find_here_or_provider(conn, tenant, job.token)?;
    let operator = token.map_or(job.token, |token| token.operator);
    Approver::read(conn, tenant, job.token, operator, &job.operator)
}

/// The operations that are approved. One that is named and cannot be is an error; of those that nobody named, the ones that
/// can be are meant.
fn open(
    asked: &Asked,
    request: &ApproveJob,
    now: UnixMillis,
) -> Result<HashMap<MachineId, Blocked>, NotOpen> {
    let (mut blocked, mut first) = (HashMap::new(), None);
    for candidate in &asked.operations {
        match (candidate.judge(now), candidate.operation.machine) {
            (Ok(one), Some(machine)) => {
                blocked.insert(machine, one);
            }
            (Err(error), _) if !request.machines.is_empty() => return Err(error),
            // What is open but too late, or was approved before, says more than that something was never blocked.
            (Err(error), _) => {
                if first.is_none() || matches!(first, Some(NotOpen::NotBlocked { .. })) {
                    first = Some(error);
                }
            }
            (Ok(_), None) => {}
        }
    }
    match first {
        Some(error) if blocked.is_empty() => Err(error),
        _ => Ok(blocked),
    }
}

/// As whom it runs: the operator who submitted it, whose token must be good still.
fn submitter(
    host: &SharedHost,
    actor: &Actor,
    job: &JobRow,
    now: UnixMillis,
) -> Result<Actor, ApproveError> {
    host.store
        .read(|conn| submitter_in(conn, host, actor, job, now))
}

fn submitter_in(
    conn: &Connection,
    host: &SharedHost,
    actor: &Actor,
    job: &JobRow,
    now: UnixMillis,
) -> Result<Actor, ApproveError> {
    let (tenant, source) = (actor.tenant.id, &actor.source);
    operators::on_behalf_of(conn, &host.roles, tenant, job.token, source, now).map_err(|error| {
        match error {
            AuthenticationError::Store(error) => ApproveError::Store(error),
            error => ApproveError::Submitter(error),
        }
    })
}

/// What running the job needs now.
pub(super) fn needs(
    host: &SharedHost,
    tenant: TenantId,
    job: &JobRow,
) -> Result<Needs, StoreError> {
    let stored = match &job.script {
        None => None,
        Some(script) => host
            .store
            .read(|conn| scripts::version(conn, tenant, script))?,
    };
    Ok(Needs::of_job(
        job,
        stored.map(|version| version.created_by).as_deref(),
    ))
}

/// The job once more, for these machines.
pub(super) fn order(
    host: &SharedHost,
    tenant: TenantId,
    job: &JobRow,
    machines: Vec<String>,
    approval: Option<Approval>,
    expires: Span,
) -> Result<Order, SubmitError> {
    let os = match &job.script {
        None => Vec::new(),
        Some(script) => host.store.read(|conn| {
            library::still_runs(conn, tenant, script).map_err(SubmitError::from)?;
            let version = scripts::version(conn, tenant, script)?;
            Ok::<_, SubmitError>(
                version
                    .map(|version| version.settings.os)
                    .unwrap_or_default(),
            )
        })?,
    };
    let source = Source::read(&job.submission)
        .map_err(|error| SubmitError::Request(RequestError::Script(error)))?;
    Ok(Order {
        submission: job.submission.clone(),
        source,
        script: job.script.clone(),
        as_stored: job.as_stored,
        os,
        selection: Selection::Some {
            named: machines,
            tags: Vec::new(),
        },
        condition: None,
        later: None,
        rollout: None,
        expires: Some(expires),
        // Approving is no word on when it may run.
        windows: windows::Asked::AsIn(job.id),
        no_queue: false,
        skip_security_scan: job.skip_security_scan,
        // A newer job with the key takes its place; it takes nobody's, since others may have come in the meantime.
        supersede: job.supersede.clone(),
        // Its place went on to others when it was blocked: it gets a new one.
        in_order: job.in_order,
        digest: Digest::of(format!("approve {}", job.id).as_bytes()),
        approval,
    })
}

fn name_of(asked: &Asked, id: &str) -> String {
    let found = asked.operations.iter().find(|candidate| {
        let machine = candidate.operation.machine;
        machine.is_some_and(|machine| machine.to_string() == id)
    });
    found.map_or_else(
        || id.to_owned(),
        |candidate| candidate.operation.machine_name.clone(),
    )
}

/// Records that nothing was approved: who asked, for what digests and on which machines, and why not.
async fn refused(
    host: &SharedHost,
    actor: &Actor,
    typed: &str,
    asked: &Asked,
    error: &ApproveError,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let base = match error {
        ApproveError::Denied(denied) => {
            host.metrics.request_refused();
            Event::by(EventKind::PermissionDenied, actor)
                .detail("permission", denied.permission.as_str())
                .detail("attempt", "approve a job")
        }
        _ => Event::by(EventKind::ScriptApprovalRefused, actor),
    };
    let mut base = base.detail("reason", record::cut(&error.to_string()));
    match &asked.job {
        Some(job) => base = base.of_job(job.id).with_script(job.script_sha256),
        None => base = base.detail("asked", record::cut(typed)),
    }
    let concerned = asked
        .operations
        .iter()
        .filter(|candidate| candidate.blocked.is_some());
    let mut events: Vec<Event> = concerned
        .map(|Candidate { operation, .. }| {
            base.clone()
                .on(&operation.machine_name)
                .of_operation(operation.id)
                .with_bundle(operation.bundle_sha256)
        })
        .collect();
    if !(1..=ENTRIES).contains(&events.len()) {
        events = vec![base.detail("operations", events.len())];
    }
    let tenant = actor.tenant.clone();
    host.store
        .write(move |conn| audit::append(conn, &tenant, now, events).map(|_| ()))
        .await
}
