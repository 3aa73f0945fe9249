//! A job that waits for other operators: one of them approves it, or denies it.
//!
//! What is approved is looked at in the transaction that records the approval, and so is who approved before. The last approval
//! that is needed lets the job go; its rollout releases it.

use std::collections::{HashMap, HashSet};

use sluice_api_types::approval::{ApprovalState, DenyJob};
use sluice_api_types::job::ApproveJob;
use sluice_protocol::ending::State;
use sluice_protocol::ids::JobId;
use uuid::Uuid;

use super::{
    ApproveError, Asked, DEFAULT_EXPIRY, LONGEST_EXPIRY, needs, not_their_own, order, submitter,
};
use crate::approvals::{self, Approver};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::jobs::authorize::Needs;
use crate::jobs::cancel::Canceling;
use crate::jobs::record::cut;
use crate::jobs::request::bounded;
use crate::jobs::targets::Target;
use crate::jobs::{Locked, SubmitError, hold, submit};
use crate::operators::{self, Actor, AuthenticationError, Permission};
use crate::rollouts;
use crate::store::holds::{self, HoldRow, What};
use crate::store::jobs::{self, JobRow};
use crate::store::{Connection, operations};

/// Records an operator's approval of a job that waits for it, and lets the job go where it was the last.
pub(super) async fn approve(
    host: &SharedHost,
    actor: &Actor,
    asked: &Asked,
    job: &JobRow,
    request: &ApproveJob,
    now: UnixMillis,
) -> Result<(), ApproveError> {
    actor.require(Permission::ApproveJobs)?;
    not_their_own(job, asked)?;
    if !request.machines.is_empty() {
        return Err(ApproveError::Part);
    }
    bounded("expires", request.expires, LONGEST_EXPIRY).map_err(SubmitError::from)?;
    // Whoever approves while the rights of those before are looked at was not looked at.
    let is_let_go = loop {
        let before = rights(host, actor, asked, job, Rights::OfBoth, now).await?;
        if let Some(is_let_go) = record(host, actor, job, request, before, now).await? {
            break is_let_go;
        }
    };
    let id = job.id;
    if is_let_go {
        // Should this look fail, the driver's does not.
        host.rollouts.wake(id);
        if let Err(error) = rollouts::advance(host, &actor.tenant, id, now).await {
            tracing::error!(job = %id, %error, "an approved job cannot begin now; trying again");
        }
    }
    host.events.notify(id);
    Ok(())
}

/// Whether an approval that is recorded lets the job go; none where somebody has approved meanwhile whose rights nobody has
/// looked at, so that nothing was recorded.
async fn record(
    host: &SharedHost,
    actor: &Actor,
    job: &JobRow,
    request: &ApproveJob,
    before: Looked,
    now: UnixMillis,
) -> Result<Option<bool>, ApproveError> {
    let until = now.plus(request.expires.unwrap_or(DEFAULT_EXPIRY));
    let (own, writer, id, digest) = (host.clone(), actor.clone(), job.id, request.digest);
    host.store
        .write(move |conn| {
            let (hold, what) = waiting(conn, &writer, id, now)?;
            if digest.is_some_and(|seen| what.digest().ok() != Some(seen)) {
                return Err(ApproveError::Digest(what.digest()?));
            }
            let job = jobs::find(conn, writer.tenant.id, id)?.ok_or(ApproveError::NoJob)?;
            let submitter = super::submitter_in(conn, &own, &writer, &job, now)?;
            let submitter = hold::as_approver(conn, &submitter)?;
            // Whose token is good, and whose word counts still, at this moment.
            let Some(mut approvers) = good(conn, &own, &writer, &hold, &what, &before, now)? else {
                return Ok(None);
            };
            let approver = hold::as_approver(conn, &writer)?;
            let one = approvers
                .iter()
                .find(|one| approvals::are_one(one, &approver));
            let is_again = one.is_some_and(|one| one.who.operator == writer.operator);
            if let Some(other) = one.filter(|_| !is_again) {
                return Err(ApproveError::OneWith {
                    approver: writer.name,
                    other: other.who.name.clone(),
                });
            }
            if !is_again {
                holds::approve(conn, &hold::approval(&hold, &writer, what, until, now))?;
                approvers.push(approver);
            }
            let count = approvals::others(&approvers, &submitter);
            let is_let_go = count.len() as u64 >= hold.need.approvers;
            // Once counts once; but others may count by now who did not then.
            if is_again && !is_let_go {
                return Err(ApproveError::Again(writer.name));
            }
            if is_let_go {
                let gates = Some(what.gates_revision);
                holds::set_state(conn, &hold, ApprovalState::Approved, gates)?;
                // Machines run it with what was approved, or with what came after.
                jobs::raise_gates_revision(conn, hold.tenant, id, what.gates_revision)?;
            }
            let names: Vec<&str> = count.iter().map(|one| one.who.name.as_str()).collect();
            let event = Event::by(EventKind::JobApproved, &writer)
                .of_job(id)
                .with_script(job.script_sha256)
                .detail("submitted_by", job.operator.as_str())
                .detail("approvers", names)
                .detail("needed", hold.need.approvers)
                .detail("let_go", is_let_go)
                .detail("digest", what.digest()?.to_string())
                .detail("gates_revision", what.gates_revision)
                .detail("until", until.to_string());
            audit::append(conn, &writer.tenant, now, [event])?;
            Ok(Some(is_let_go))
        })
        .await
}

/// Ends what is held of a job that waits for approvals, for good.
pub(super) async fn deny(
    host: &SharedHost,
    actor: &Actor,
    asked: &Asked,
    job: &JobRow,
    request: DenyJob,
    now: UnixMillis,
) -> Result<(), ApproveError> {
    actor.require(Permission::ApproveJobs)?;
    rights(host, actor, asked, job, Rights::OfApprover, now).await?;
    let (writer, id, script_sha256) = (actor.clone(), job.id, job.script_sha256);
    let reason = request.reason.as_deref().map(cut);
    let canceling = host
        .store
        .write(move |conn| {
            let (hold, what) = waiting(conn, &writer, id, now)?;
            holds::set_state(conn, &hold, ApprovalState::Denied, None)?;
            let event = Event::by(EventKind::JobDenied, &writer)
                .of_job(id)
                .with_script(script_sha256)
                .detail("reason", reason)
                .detail("digest", what.digest()?.to_string());
            audit::append(conn, &writer.tenant, now, [event])?;
            let mut canceling = Canceling::default();
            let is_held = |state| state == State::Held;
            let events = canceling.add(conn, &writer, id, now, is_held)?;
            audit::append(conn, &writer.tenant, now, events)?;
            Ok::<_, ApproveError>(canceling)
        })
        .await?;
    canceling.tell(host, actor);
    Ok(())
}

/// A job that waits, and what there is to approve of it now.
fn waiting(
    conn: &Connection,
    actor: &Actor,
    job: JobId,
    now: UnixMillis,
) -> Result<(HoldRow, What), ApproveError> {
    if let Some(locked) = Locked::check(conn)? {
        return Err(SubmitError::Locked(locked).into());
    }
    let tenant = actor.tenant.id;
    let hold = holds::find(conn, tenant, job)?.ok_or(ApproveError::NotWaiting)?;
    let what = What::now(conn, &hold)?;
    let is_over = hold.state == ApprovalState::Denied || !holds::has_held(conn, tenant, job)?;
    if is_over || hold.is_let_go(what.gates_revision) {
        return Err(ApproveError::NotWaiting);
    }
    if hold.state == ApprovalState::Waiting && now > hold.until {
        return Err(ApproveError::WaitedLong(hold.until));
    }
    // What runs must be what was submitted: a script whose text was erased since is not.
    let row = jobs::find(conn, tenant, job)?.ok_or(ApproveError::NoJob)?;
    let operations = operations::of_job(conn, tenant, job)?;
    if hold::fixed(tenant, &row, operations.iter())? != hold.fixed_sha256 {
        return Err(ApproveError::NotWaiting);
    }
    Ok((hold, what))
}

/// Those whose approval of what there is to approve now counts, the new one apart; none where the rights of one of them were
/// not looked at.
fn good(
    conn: &Connection,
    host: &SharedHost,
    asking: &Actor,
    hold: &HoldRow,
    what: &What,
    looked: &Looked,
    now: UnixMillis,
) -> Result<Option<Vec<Approver>>, ApproveError> {
    let mut good = Vec::new();
    for row in holds::approvals(conn, hold.tenant, hold.job)? {
        if hold::void(&row, what, now).is_some() {
            continue;
        }
        if !looked.at.contains(&row.token) {
            return Ok(None);
        }
        let Some(approver) = looked.may.get(&row.token) else {
            continue;
        };
        let source = &asking.source;
        match operators::on_behalf_of(conn, &host.roles, hold.tenant, row.token, source, now) {
            Ok(_) => good.push(approver.clone()),
            Err(AuthenticationError::Store(error)) => return Err(error.into()),
            Err(_) => {}
        }
    }
    Ok(Some(good))
}

/// Those who approved before.
#[derive(Debug, Default)]
struct Looked {
    /// The tokens whose rights were looked at.
    at: HashSet<Uuid>,
    /// Those of them that may approve it.
    may: HashMap<Uuid, Approver>,
}

/// Whose rights are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rights {
    /// Those of the submitter, who runs it, too.
    OfBoth,
    /// Those of whoever says yes or no.
    OfApprover,
}

/// Whether those concerned may do now what they do with the job, on each of its machines; gives those who approved before
/// and still may.
async fn rights(
    host: &SharedHost,
    actor: &Actor,
    asked: &Asked,
    job: &JobRow,
    whose: Rights,
    now: UnixMillis,
) -> Result<Looked, ApproveError> {
    let tenant = actor.tenant.id;
    let machines = asked
        .operations
        .iter()
        .filter(|candidate| candidate.operation.state == State::Held)
        .filter_map(|candidate| candidate.operation.machine);
    let machines: Vec<String> = machines.map(|id| id.to_string()).collect();
    if machines.is_empty() {
        return Err(ApproveError::NotWaiting);
    }
    let order = order(host, tenant, job, machines, None, DEFAULT_EXPIRY)?;
    let (targets, _) = submit::look_up(host, tenant, &order).await?;
    if let Some(Target::NotFound(id)) = targets
        .iter()
        .find(|target| matches!(target, Target::NotFound(_)))
    {
        return Err(ApproveError::Gone(super::name_of(asked, id)));
    }
    match Needs::of_approval(&order)
        .on(host, actor, &order, &targets)
        .await
    {
        Err(SubmitError::Denied(denied)) => return Err(denied.into()),
        answer => answer?,
    }
    if whose == Rights::OfApprover {
        return Ok(Looked::default());
    }
    let submitter = submitter(host, actor, job, now)?;
    let needs = needs(host, tenant, job)?;
    needs.in_general(&submitter).map_err(SubmitError::from)?;
    needs.on(host, &submitter, &order, &targets).await?;
    let before = host
        .store
        .read(|conn| holds::approvals(conn, tenant, job.id))?;
    let at: HashSet<Uuid> = before.into_iter().map(|row| row.token).collect();
    let tokens = at.iter().copied().collect();
    let may = hold::may_approve(host, actor, &order, &targets, tokens, now).await?;
    Ok(Looked { at, may })
}
