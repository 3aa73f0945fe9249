//! What an operation waits for that has not started: from what is known of it to a list of reasons.

use sluice_api_types::approval::{ApprovalState, JobApproval};
use sluice_api_types::why::Reason;
use sluice_protocol::ending::State;

use super::hold;
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::rollouts;
use crate::store::lockdown::{self, LockdownRow};
use crate::store::operations::{self, OperationRow};
use crate::store::rollouts::RolloutRow;
use crate::store::{Connection, StoreError, holds, machines};
use crate::windows::{self, Closed, Standing};

/// What is known of a job: the same for all of its operations.
#[derive(Debug)]
pub(super) struct OfJob {
    rollout: Option<RolloutRow>,
    lockdown: Option<LockdownRow>,
    /// Where it waits for that.
    approval: Option<JobApproval>,
    windows: windows::Look,
}

impl OfJob {
    pub(super) fn read(
        conn: &Connection,
        host: &SharedHost,
        operation: &OperationRow,
    ) -> Result<Self, StoreError> {
        // As what is connected, what is open is that of the moment in which somebody asks.
        let now = host.clock.now();
        let approval = holds::find(conn, operation.tenant, operation.job)?
            .map(|row| hold::show(conn, &row, now))
            .transpose()?;
        Ok(Self {
            approval: approval.filter(|approval| approval.state == ApprovalState::Waiting),
            windows: windows::Look::at(conn, operation.tenant, operation.job, now)?,
            rollout: crate::store::rollouts::find(conn, operation.tenant, operation.job)?,
            lockdown: lockdown::current(conn)?,
        })
    }

    /// What the operation waits for; nothing where it has started or ended.
    pub(super) fn why(
        &mut self,
        conn: &Connection,
        host: &SharedHost,
        operation: &OperationRow,
    ) -> Result<Vec<Reason>, StoreError> {
        let Some(machine) = operation
            .machine
            .filter(|_| has_not_started(operation.state))
        else {
            return Ok(Vec::new());
        };
        let away = if host.presence.get(machine).is_some() {
            None
        } else {
            Some(machines::last_seen(conn, operation.tenant, machine)?)
        };
        let closed = match operation.state {
            State::Held | State::Queued => self.windows.standing(conn, Some(machine))?,
            _ => Standing::Free,
        };
        let earlier = match operation.state {
            // What is held has no place.
            State::Queued => operations::in_order::before(conn, operation)?,
            _ => None,
        };
        Ok(why(&Facts {
            closed: match &closed {
                Standing::Closed(closed) => Some(closed),
                Standing::Free | Standing::Open { .. } => None,
            },
            state: operation.state,
            batch: operation.batch,
            rollout: self.rollout.as_ref(),
            lockdown: self.lockdown.as_ref(),
            approval: self.approval.as_ref(),
            earlier: earlier.as_ref(),
            away,
        }))
    }
}

/// Whether there may be something that an operation in this state waits for.
pub(super) const fn has_not_started(state: State) -> bool {
    !state.is_terminal() && !matches!(state, State::Running)
}

struct Facts<'a> {
    state: State,
    batch: Option<u64>,
    rollout: Option<&'a RolloutRow>,
    lockdown: Option<&'a LockdownRow>,
    /// Where the job waits for that.
    approval: Option<&'a JobApproval>,
    /// The window that it waits for.
    closed: Option<&'a Closed>,
    /// What is to end on the machine before its turn comes.
    earlier: Option<&'a OperationRow>,
    /// Where the machine is not connected: when it was last.
    away: Option<Option<UnixMillis>>,
}

fn why(facts: &Facts<'_>) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let state = facts.state;
    if let Some(row) = facts.lockdown
        && matches!(state, State::Held | State::Queued | State::Delivered)
    {
        reasons.push(Reason::Lockdown {
            since: row.since.to_string(),
            by: row.operator.clone(),
        });
    }
    if let (State::Held, Some(approval)) = (state, facts.approval) {
        reasons.push(Reason::Approval(approval.clone()));
    }
    if let (State::Held, Some(row)) = (state, facts.rollout) {
        reasons.extend(rollouts::paused(row).map(Reason::Paused));
        let batch = facts.batch.unwrap_or_default();
        if batch > row.batch {
            reasons.push(Reason::Batch {
                batch,
                of: row.batches.ends.len() as u64,
                begun: row.batch,
            });
        } else if let (Some(max), None, None) =
            (row.batches.max_concurrency, &row.paused, facts.closed)
        {
            reasons.push(Reason::Concurrency { max });
        }
    }
    if let Some(closed) = facts.closed {
        reasons.push(Reason::Window {
            name: closed.window.clone(),
            opens_at: closed.opens.map(|at| at.to_string()),
        });
    }
    if let Some(earlier) = facts.earlier {
        reasons.push(Reason::Earlier {
            job: earlier.job,
            operation: earlier.id,
            state: earlier.state,
        });
    }
    match facts.away {
        Some(since) => reasons.push(Reason::Offline {
            since: since.map(|at| at.to_string()),
        }),
        // Where something else is first, the machine is not to take it.
        None if state != State::Held && facts.earlier.is_none() => {
            reasons.push(Reason::Machine { state })
        }
        None => {}
    }
    reasons
}

#[cfg(test)]
mod tests {
    use sluice_api_types::rollout::Rule;
    use sluice_protocol::ids::{JobId, TenantId};
    use sluice_protocol::units::Span;

    use super::*;
    use crate::rollouts::{Batches, Share, Stops};
    use crate::store::rollouts::PausedRow;
    use crate::testing::NOW;

    fn words(facts: &Facts<'_>) -> Vec<serde_json::Value> {
        why(facts)
            .iter()
            .map(|reason| serde_json::to_value(reason).expect("has a form"))
            .collect()
    }

    #[test]
    fn every_reason_is_an_object_with_its_word() {
        let batches = Batches {
            ends: vec![1, 2, 4],
            max_concurrency: Some(1),
            stops: Stops {
                failures: Some(Share::Percent(10)),
                ..Stops::default()
            },
            dark_after: Span::default(),
        };
        let mut row = RolloutRow::new(JobId::generate(), TenantId::generate(), batches, false);
        row.batch = 2;
        let locked = LockdownRow {
            since: NOW,
            operator: "eve".to_owned(),
            reason: None,
        };
        let now = NOW.to_string();
        let facts = |state, batch, away| Facts {
            state,
            batch: Some(batch),
            rollout: None,
            lockdown: None,
            approval: None,
            closed: None,
            earlier: None,
            away,
        };
        let offline = serde_json::json!({"reason": "offline", "since": now});
        let held = Facts {
            rollout: Some(&row),
            ..facts(State::Held, 3, Some(Some(NOW)))
        };
        assert_eq!(
            words(&held),
            [
                serde_json::json!({"reason": "batch", "batch": 3, "of": 3, "begun": 2}),
                offline.clone()
            ]
        );
        let turn = Facts {
            batch: Some(2),
            away: None,
            ..held
        };
        assert_eq!(
            words(&turn),
            [serde_json::json!({"reason": "concurrency", "max": 1})]
        );
        let mut stopped = row.clone();
        stopped.paused = Some(PausedRow {
            since: NOW,
            by: None,
            rule: Some(Rule::Failures),
            count: Some(3),
        });
        let paused = Facts {
            rollout: Some(&stopped),
            ..turn
        };
        assert_eq!(
            words(&paused),
            [
                serde_json::json!({"reason": "paused", "since": now, "by": null, "counts": "failures", "rule": "10%", "failures": 3})
            ]
        );
        let opens = Closed {
            window: "nights".to_owned(),
            opens: Some(NOW),
        };
        let waits = Facts {
            closed: Some(&opens),
            ..turn
        };
        assert_eq!(
            words(&waits),
            [serde_json::json!({"reason": "window", "name": "nights", "opens_at": now})]
        );
        let queued = Facts {
            lockdown: Some(&locked),
            ..facts(State::Queued, 0, Some(None))
        };
        assert_eq!(
            words(&queued),
            [
                serde_json::json!({"reason": "lockdown", "since": now, "by": "eve"}),
                serde_json::json!({"reason": "offline", "since": null})
            ]
        );
        assert_eq!(
            words(&facts(State::Checking, 0, None)),
            [serde_json::json!({"reason": "machine", "state": "checking"})]
        );
    }
}
