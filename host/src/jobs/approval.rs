//! An approval on its way into the record: which blocked operations it is for, and that it is used once.

use std::collections::HashMap;

use sluice_gate_client::Counts;
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::{JobId, MachineId, OperationId};

use super::SubmitError;
use super::preflight::Plan;
use super::targets::Target;
use crate::audit::{Event, EventKind};
use crate::clock::UnixMillis;
use crate::operators::Actor;
use crate::store::approvals::{self, ApprovalRow};
use crate::store::jobs::JobRow;
use crate::store::operations::OperationRow;
use crate::store::{Connection, StoreError};

/// What an operator approves: operations of one job that policies blocked, each on its machine and with its bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Who approves.
    pub approver: Actor,
    /// The job that they belong to.
    pub job: JobId,
    /// The blocked operations, each by its machine.
    pub blocked: HashMap<MachineId, Blocked>,
}

/// An operation that a policy blocked for want of an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocked {
    /// Which one.
    pub operation: OperationId,
    /// Of the bundle that the host made for it: a machine's word is not asked.
    pub bundle_sha256: Digest,
}

impl Approval {
    /// What it says about a machine, as the gates are told.
    pub(super) fn on(&self, machine: MachineId) -> Option<sluice_gate_client::Approval> {
        let blocked = self.blocked.get(&machine)?;
        Some(sluice_gate_client::Approval {
            bundle_sha256: blocked.bundle_sha256,
            by: self.approver.name.clone(),
            // On the host there are no gates of a machine's owner.
            counts: Counts::ForAllGates,
        })
    }

    /// The first machine on which something else than what was approved would run now, and what that is.
    pub(super) fn differs<'a>(
        &self,
        targets: &'a [Target],
        plans: &[Plan],
    ) -> Option<(&'a str, Digest)> {
        targets.iter().zip(plans).find_map(|(target, plan)| {
            let Target::Machine(machine) = target else {
                return None;
            };
            let (approved, now) = (self.blocked.get(&machine.id)?, plan.bundle_sha256?);
            (approved.bundle_sha256 != now).then_some((target.name(), now))
        })
    }

    /// Uses it up for an operation, in the transaction that stores that one. Gives what is to be recorded.
    pub(super) fn use_for(
        &self,
        conn: &Connection,
        job: &JobRow,
        operation: &OperationRow,
        now: UnixMillis,
    ) -> Result<Event, SubmitError> {
        let found = operation
            .machine
            .and_then(|machine| Some((machine, self.blocked.get(&machine)?)));
        let Some((machine, blocked)) = found else {
            return Err(SubmitError::Store(StoreError::Corrupt(format!(
                "{} is not approved",
                operation.id
            ))));
        };
        let row = ApprovalRow {
            operation: blocked.operation,
            tenant: operation.tenant,
            machine,
            bundle_sha256: blocked.bundle_sha256,
            token: self.approver.token,
            operator: self.approver.name.clone(),
            approved: now,
            used_by: operation.id,
        };
        if !approvals::insert(conn, &row)? {
            return Err(SubmitError::ApprovedBefore(operation.machine_name.clone()));
        }
        Ok(Event::by(EventKind::ScriptApproved, &self.approver)
            .on(&operation.machine_name)
            .of_job(self.job)
            .of_operation(blocked.operation)
            .with_script(job.script_sha256)
            .with_bundle(Some(blocked.bundle_sha256))
            .detail("submitted_by", job.operator.as_str())
            .detail("job", job.id.to_string())
            .detail("operation", operation.id.to_string())
            .detail("not_after", job.not_after.to_string()))
    }
}
