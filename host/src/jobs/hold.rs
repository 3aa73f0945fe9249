//! Whether a job waits for other operators before anything of it is delivered: looked at when it is submitted, once the host's
//! gates have been asked.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;
use sluice_api_types::approval::{ApprovalState, Approved, JobApproval};
use sluice_api_types::preview::PreviewedApproval;
use sluice_protocol::bundle::Submission;
use sluice_protocol::codec;
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::{JobId, MachineId, TenantId};
use sluice_protocol::report::{Report, Severity};
use sluice_protocol::units::Span;
use uuid::Uuid;

use super::authorize::Needs;
use super::preflight::Plan;
use super::targets::Target;
use super::{Order, SubmitError};
use crate::approvals::{self, Approver, Asked, Facts, Found, MachineFacts, Need, Policy};
use crate::audit::{Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::operators::{self, Actor, AuthenticationError};
use crate::store::holds::{self, HoldApprovalRow, HoldRow, What};
use crate::store::jobs::JobRow;
use crate::store::operations::OperationRow;
use crate::store::{
    Connection, Extent, StoreError, approval_policies, machines, standing_approvals,
};

/// What a tenant's approval policy says about a job; nothing, where there is none.
#[derive(Debug, Default)]
pub(super) struct Threshold {
    /// The revision that was asked; 0 where there is none.
    revision: u64,
    /// Where it is above one.
    hold: Option<Hold>,
}

/// A job that needs approvals.
#[derive(Debug)]
struct Hold {
    need: Need,
    /// How long it waits for them.
    wait: Span,
    /// Whose it has.
    word: Word,
}

/// Who has approved a job before it is there.
#[derive(Debug)]
enum Word {
    /// Nobody, or not enough.
    Nobody,
    /// Enough, in advance.
    Standing { id: Uuid, approvers: Vec<String> },
    /// The operator who approved what a policy blocked.
    Approver(Box<Actor>),
}

impl Threshold {
    /// Asks the policy of the submitter's tenant. `of` is how many machines the job had that these are some of; 0 where they
    /// are all.
    pub(super) async fn ask(
        host: &SharedHost,
        submitter: &Actor,
        order: &Order,
        targets: &[Target],
        plans: &[Plan],
        of: u64,
        now: UnixMillis,
    ) -> Result<Self, SubmitError> {
        let tenant = submitter.tenant.id;
        let (revision, policy) = current(host, tenant)?;
        let mut threshold = Self {
            revision,
            hold: None,
        };
        if policy.rules.is_empty() {
            return Ok(threshold);
        }
        let planned = targets.iter().zip(plans);
        let there = planned.filter_map(|(target, plan)| match target {
            Target::Machine(machine) if plan.ended.is_none() => {
                Some((machine.id, plan.worst, Arc::clone(&plan.found)))
            }
            _ => None,
        });
        let machines = machines(host, there.collect()).await?;
        let facts = facts(order, of, machines);
        threshold.hold = Hold::of(host, submitter, order, targets, &policy, &facts, now).await?;
        Ok(threshold)
    }

    /// Why the job needs approvals, given or not; none where it needs none.
    pub(super) fn because(&self) -> Option<String> {
        let hold = self.hold.as_ref()?;
        Some(hold.need.because.join(", and "))
    }

    /// Whether what was asked is what counts at this moment.
    pub(super) fn is_current(
        &self,
        conn: &Connection,
        tenant: TenantId,
    ) -> Result<(), SubmitError> {
        let current = approval_policies::current(conn, tenant)?.map_or(0, |row| row.revision);
        if current == self.revision {
            Ok(())
        } else {
            Err(SubmitError::ApprovalChanged)
        }
    }

    /// Whether nothing of the job may be delivered yet.
    pub(super) fn waits(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| !hold.is_approved())
    }

    /// What a job that is not there yet would wait for; none where that is nothing.
    pub(super) fn previewed(&self) -> Option<PreviewedApproval> {
        let hold = self.hold.as_ref()?;
        Some(PreviewedApproval {
            needed: hold.need.approvers,
            because: hold.need.because.clone(),
            standing: match hold.word {
                Word::Standing { id, .. } => Some(id.to_string()),
                Word::Nobody | Word::Approver(_) => None,
            },
        })
    }

    /// Stores what the job waits for beside it, in the transaction that stores that. Gives what is to be recorded.
    pub(super) fn store(
        &self,
        conn: &Connection,
        submitter: &Actor,
        job: &JobRow,
        operations: &[(OperationRow, Option<Report>)],
        now: UnixMillis,
    ) -> Result<Option<Event>, SubmitError> {
        let tenant = submitter.tenant.id;
        self.is_current(conn, tenant)?;
        let Some(hold) = &self.hold else {
            return Ok(None);
        };
        let is_approved = hold.is_approved();
        let until = now.plus(hold.wait).min(job.not_after);
        let mut row = HoldRow {
            job: job.id,
            tenant,
            state: ApprovalState::Waiting,
            need: hold.need.clone(),
            until,
            fixed_sha256: fixed(tenant, job, operations.iter().map(|(row, _)| row))?,
            machines_lost: 0,
            approved_gates: None,
            standing: None,
        };
        let what = What::now(conn, &row)?;
        if is_approved {
            row.state = ApprovalState::Approved;
            row.approved_gates = Some(what.gates_revision);
        }
        if let Word::Standing { id, .. } = hold.word {
            if !standing_approvals::is_good(conn, tenant, id, now)? {
                return Err(SubmitError::ApprovalChanged);
            }
            row.standing = Some(id);
        }
        holds::insert(conn, &row)?;
        if let Word::Approver(approver) = &hold.word {
            holds::approve(conn, &approval(&row, approver, what, until, now))?;
        }
        let kind = match is_approved {
            true => EventKind::JobApproved,
            false => EventKind::JobHeld,
        };
        let event = match &hold.word {
            Word::Nobody => Event::by(kind, submitter),
            Word::Standing { id, approvers } => Event::by(kind, submitter)
                .detail("standing", id.to_string())
                .detail("approvers", approvers.clone()),
            Word::Approver(approver) => Event::by(kind, approver)
                .detail("approvers", vec![approver.name.clone()])
                .detail("submitted_by", submitter.name.as_str()),
        };
        Ok(Some(
            event
                .of_job(job.id)
                .with_script(job.script_sha256)
                .detail("needed", row.need.approvers)
                .detail("because", row.need.because.clone())
                .detail("policy_revision", self.revision)
                .detail("digest", what.digest()?.to_string())
                .detail("until", until.to_string()),
        ))
    }
}

impl Hold {
    /// What a job waits for under a policy; none where no rule holds.
    async fn of(
        host: &SharedHost,
        submitter: &Actor,
        order: &Order,
        targets: &[Target],
        policy: &Policy,
        facts: &Facts<'_>,
        now: UnixMillis,
    ) -> Result<Option<Self>, SubmitError> {
        let Some(need) = approvals::need(policy, facts) else {
            return Ok(None);
        };
        let word = match &order.approval {
            Some(approval) => Word::Approver(Box::new(approval.approver.clone())),
            None => standing(host, submitter, order, targets, &facts.machines, &need, now).await?,
        };
        Ok(Some(Self {
            need,
            wait: policy.expires,
            word,
        }))
    }

    fn is_approved(&self) -> bool {
        match self.word {
            Word::Nobody => false,
            Word::Standing { .. } => true,
            Word::Approver(_) => self.need.approvers <= 1,
        }
    }
}

/// An approval of what there is to approve now.
pub(super) fn approval(
    hold: &HoldRow,
    approver: &Actor,
    what: What,
    until: UnixMillis,
    now: UnixMillis,
) -> HoldApprovalRow {
    HoldApprovalRow {
        job: hold.job,
        tenant: hold.tenant,
        token: approver.token,
        operator: approver.operator,
        name: approver.name.clone(),
        approved: now,
        until,
        what,
    }
}

/// A tenant's approval policy, and its revision; 0 where none was ever set.
fn current(host: &SharedHost, tenant: TenantId) -> Result<(u64, Policy), StoreError> {
    let row = host
        .store
        .read(|conn| approval_policies::current(conn, tenant))?;
    Ok(row.map_or_else(|| (0, Policy::default()), |row| (row.revision, row.policy)))
}

/// What there is to know of a job on these machines.
fn facts(order: &Order, of: u64, machines: Vec<MachineFacts>) -> Facts<'_> {
    Facts {
        run_as: order.submission.run_as.as_deref(),
        skips_scan: order.skip_security_scan,
        of,
        machines,
    }
}

/// What there is to know of the machines on which something may run, with what was found for each.
async fn machines(
    host: &SharedHost,
    there: Vec<(MachineId, Option<Severity>, Arc<Vec<Found>>)>,
) -> Result<Vec<MachineFacts>, StoreError> {
    host.store
        .look(Extent::of_rows(there.len()), move |conn| {
            let facts = |(id, worst, found)| {
                Ok(MachineFacts {
                    tags: machines::tags(conn, id)?,
                    worst,
                    found,
                })
            };
            there.into_iter().map(facts).collect()
        })
        .await
}

/// The first standing approval that the job fits, whose approvers are as many as it needs: others than its submitter and than
/// each other, with the right to approve it now.
async fn standing(
    host: &SharedHost,
    submitter: &Actor,
    order: &Order,
    targets: &[Target],
    machines: &[MachineFacts],
    need: &Need,
    now: UnixMillis,
) -> Result<Word, SubmitError> {
    let tenant = submitter.tenant.id;
    let script_sha256 = Digest::of(&order.submission.script);
    let asked = Asked {
        submission: &order.submission,
        as_stored: order.script.as_ref().filter(|_| order.as_stored),
        skips_scan: order.skip_security_scan,
        machines,
    };
    let mut rows = host
        .store
        .read(|conn| standing_approvals::good(conn, tenant, Some(script_sha256), now))?;
    rows.retain(|row| approvals::fits(&row.standing, &asked));
    let is = host.store.read(|conn| as_approver(conn, submitter))?;
    for row in rows {
        let approvers = host
            .store
            .read(|conn| standing_approvals::approvers(conn, tenant, row.id))?;
        let tokens = approvers.iter().map(|approver| approver.token).collect();
        let good = may_approve(host, submitter, order, targets, tokens, now).await?;
        // In the order in which they approved: of those who may be one person the first counts.
        let in_order = approvers.iter().filter_map(|one| good.get(&one.token));
        let count = approvals::others(in_order, &is);
        if count.len() as u64 >= need.approvers {
            let approvers = count.iter().map(|one| one.who.name.clone()).collect();
            return Ok(Word::Standing {
                id: row.id,
                approvers,
            });
        }
    }
    Ok(Word::Nobody)
}

/// Somebody who acts, as one who approves or submits.
pub(super) fn as_approver(conn: &Connection, actor: &Actor) -> Result<Approver, StoreError> {
    Approver::read(
        conn,
        actor.tenant.id,
        actor.token,
        actor.operator,
        &actor.name,
    )
}

/// Those of these tokens that are good and have the right to approve the order on all of its machines now.
pub(super) async fn may_approve(
    host: &SharedHost,
    asking: &Actor,
    order: &Order,
    targets: &[Target],
    tokens: Vec<Uuid>,
    now: UnixMillis,
) -> Result<HashMap<Uuid, Approver>, SubmitError> {
    let needs = Needs::of_approval(order);
    let mut good = HashMap::new();
    for token in tokens {
        let found = host.store.read(|conn| {
            let tenant = asking.tenant.id;
            let actor =
                operators::on_behalf_of(conn, &host.roles, tenant, token, &asking.source, now)?;
            let approver = as_approver(conn, &actor)?;
            Ok::<_, AuthenticationError>((actor, approver))
        });
        let (actor, approver) = match found {
            Ok(found) => found,
            Err(AuthenticationError::Store(error)) => return Err(error.into()),
            // Who has no good token any more approves nothing.
            Err(_) => continue,
        };
        match needs.on(host, &actor, order, targets).await {
            Ok(()) => drop(good.insert(token, approver)),
            Err(SubmitError::Denied(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(good)
}

/// The digest of everything about a job that cannot change: what runs, on which machines, with which bundle.
pub(super) fn fixed<'a>(
    tenant: TenantId,
    job: &JobRow,
    operations: impl Iterator<Item = &'a OperationRow>,
) -> Result<Digest, StoreError> {
    #[derive(Serialize)]
    struct Fixed<'a> {
        tenant: TenantId,
        job: JobId,
        submission: &'a Submission,
        skip_security_scan: bool,
        targets: Vec<(Option<MachineId>, Option<Digest>)>,
    }
    let mut targets: Vec<_> = operations
        .map(|operation| (operation.machine, operation.bundle_sha256))
        .collect();
    targets.sort_unstable();
    let fixed = Fixed {
        tenant,
        job: job.id,
        submission: &job.submission,
        skip_security_scan: job.skip_security_scan,
        targets,
    };
    let bytes = codec::encode(&fixed).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    Ok(Digest::of(&bytes))
}

/// What an operator gets to see of it.
pub(super) fn show(
    conn: &Connection,
    hold: &HoldRow,
    now: UnixMillis,
) -> Result<JobApproval, StoreError> {
    let what = What::now(conn, hold)?;
    let is_held = holds::has_held(conn, hold.tenant, hold.job)?;
    let waits = is_held && !hold.is_let_go(what.gates_revision);
    let state = match hold.state {
        ApprovalState::Approved if waits => ApprovalState::Waiting,
        state => state,
    };
    let approved = holds::approvals(conn, hold.tenant, hold.job)?
        .into_iter()
        .map(|row| Approved {
            void: void(&row, &what, now).filter(|_| waits),
            by: row.name,
            at: row.approved.to_string(),
            until: row.until.to_string(),
        })
        .collect();
    Ok(JobApproval {
        state,
        needed: hold.need.approvers,
        approved,
        until: hold.until.to_string(),
        because: hold.need.because.clone(),
        findings: hold.need.found.clone(),
        digest: what.digest()?,
        standing: hold.standing.map(|id| id.to_string()),
    })
}

/// Why an approval does not count any more; none where it does, as far as its operator still may.
pub(super) fn void(row: &HoldApprovalRow, what: &What, now: UnixMillis) -> Option<String> {
    if row.what.gates_revision != what.gates_revision {
        return Some("the gates have changed since".to_owned());
    }
    if row.what != *what {
        return Some("a machine was taken out of the job since".to_owned());
    }
    (row.until <= now).then(|| format!("it was good until {}", row.until))
}
