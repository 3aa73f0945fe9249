//! What an operation waits for that has not started, or of which there is no word: from what is known of it to a list of reasons.
//!
//! The list is a chain, in the order in which they hold it: what holds it on the host, what keeps it from the machine, and what
//! holds it there. The first is the nearest; each of the others would hold it once those before it are gone.

use sluice_api_types::approval::{ApprovalState, JobApproval};
use sluice_api_types::why::Reason;
use sluice_protocol::ending::State;

use super::hold;
use crate::host::SharedHost;
use crate::rollouts;
use crate::store::lockdown::{self, LockdownRow};
use crate::store::machines::{self, Readiness};
use crate::store::operations::{self, OperationRow};
use crate::store::rollouts::RolloutRow;
use crate::store::{Connection, StoreError, holds, jobs};
use crate::windows::{self, Closed, Standing};

/// How many of a machine's problems with its gates are told: it may have many, and a job many machines.
const PROBLEMS: usize = 5;

/// What is known of a job: the same for all of its operations.
#[derive(Debug)]
pub(super) struct OfJob {
    rollout: Option<RolloutRow>,
    lockdown: Option<LockdownRow>,
    /// Where it waits for that.
    approval: Option<JobApproval>,
    windows: windows::Look,
    gates_revision: u64,
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
            gates_revision: jobs::gates_revision(conn, operation.tenant, operation.job)?,
        })
    }

    /// What the operation waits for; nothing where it runs on a machine that is there, or has ended.
    pub(super) fn why(
        &mut self,
        conn: &Connection,
        host: &SharedHost,
        operation: &OperationRow,
    ) -> Result<Vec<Reason>, StoreError> {
        let Some(machine) = operation.machine.filter(|_| !operation.state.is_terminal()) else {
            return Ok(Vec::new());
        };
        let link = match host.presence.get(machine) {
            Some(_) => Link::Up,
            None => Link::Down,
        };
        // Most of many are held, or run where all is well: of their machines there is nothing more to know.
        let readiness = match (link, operation.state) {
            (Link::Down, _) | (Link::Up, State::Delivered | State::Accepted | State::Checking) => {
                machines::readiness(conn, operation.tenant, machine)?
            }
            (Link::Up, _) => None,
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
            gates_revision: self.gates_revision,
            link,
            machine: readiness.unwrap_or_default(),
        }))
    }
}

/// Whether an operation's machine is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Up,
    Down,
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
    /// Which gates the job was checked with.
    gates_revision: u64,
    link: Link,
    machine: Readiness,
}

fn why(facts: &Facts<'_>) -> Vec<Reason> {
    let last_seen = facts.machine.last_seen.map(|at| at.to_string());
    match (facts.state, facts.link) {
        (State::Running, Link::Up) => return Vec::new(),
        // Nothing but the machine knows how far it is.
        (State::Running, Link::Down) => return vec![Reason::Dark { since: last_seen }],
        _ => {}
    }
    let mut reasons = Vec::new();
    // Machines are told, so it holds what waits there too.
    if let Some(row) = facts.lockdown {
        reasons.push(Reason::Lockdown {
            since: row.since.to_string(),
            by: row.operator.clone(),
        });
    }
    if facts.state == State::Held {
        reasons.extend(held(facts));
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
    if let Some(quarantine) = &facts.machine.quarantine {
        reasons.push(Reason::Quarantined {
            since: quarantine.since.to_string(),
            because: quarantine.reason.clone(),
        });
    }
    if facts.link == Link::Down {
        reasons.push(Reason::Offline { since: last_seen });
    }
    if matches!(
        facts.state,
        State::Delivered | State::Accepted | State::Checking
    ) {
        reasons.extend(gates(facts.gates_revision, &facts.machine));
    }
    match (facts.state, facts.link) {
        (State::Held, _) | (State::Queued | State::Delivered, Link::Down) => {}
        // Where something else is first, the machine is not to take it.
        _ if facts.earlier.is_some() => {}
        (state, _) => reasons.push(Reason::Machine { state }),
    }
    reasons
}

/// What of its job holds an operation that is held.
fn held(facts: &Facts<'_>) -> Vec<Reason> {
    let mut reasons = Vec::new();
    reasons.extend(facts.approval.cloned().map(Reason::Approval));
    let Some(row) = facts.rollout else {
        return reasons;
    };
    reasons.extend(rollouts::paused(row).map(Reason::Paused));
    let batch = facts.batch.unwrap_or_default();
    if batch > row.batch {
        reasons.push(Reason::Batch {
            batch,
            of: row.batches.ends.len() as u64,
            begun: row.batch,
        });
    } else if let (Some(max), None, None) = (row.batches.max_concurrency, &row.paused, facts.closed)
    {
        reasons.push(Reason::Concurrency { max });
    }
    reasons
}

/// What the gates on a machine say that it has told of.
fn gates(needs: u64, machine: &Readiness) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let has = machine.gates_revision;
    if has.is_none_or(|has| has < needs) {
        reasons.push(Reason::GatesOutdated { needs, has });
    }
    if !machine.gates_problems.is_empty() {
        reasons.push(Reason::GatesProblems {
            revision: has.unwrap_or_default(),
            count: machine.gates_problems.len() as u64,
            problems: machine
                .gates_problems
                .iter()
                .take(PROBLEMS)
                .cloned()
                .collect(),
        });
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
    use crate::store::history::Quarantine;
    use crate::store::rollouts::PausedRow;
    use crate::testing::NOW;

    /// Of an operation of which nothing is known, on a machine that is there.
    fn plain(state: State) -> Facts<'static> {
        Facts {
            state,
            batch: None,
            rollout: None,
            lockdown: None,
            approval: None,
            closed: None,
            earlier: None,
            gates_revision: 3,
            link: Link::Up,
            machine: Readiness {
                last_seen: Some(NOW),
                gates_revision: Some(3),
                ..Readiness::default()
            },
        }
    }

    fn locked() -> LockdownRow {
        LockdownRow {
            since: NOW,
            operator: "eve".to_owned(),
            reason: None,
        }
    }

    /// The words of the reasons, in their order.
    fn chain(facts: &Facts<'_>) -> Vec<String> {
        words(facts)
            .iter()
            .map(|reason| reason["reason"].as_str().expect("is a text").to_owned())
            .collect()
    }

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
        let locked = locked();
        let now = NOW.to_string();
        let offline = serde_json::json!({"reason": "offline", "since": now});
        let held = Facts {
            rollout: Some(&row),
            batch: Some(3),
            link: Link::Down,
            ..plain(State::Held)
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
            link: Link::Up,
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
            batch: Some(2),
            ..plain(State::Held)
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
            link: Link::Down,
            machine: Readiness::default(),
            ..plain(State::Queued)
        };
        assert_eq!(
            words(&queued),
            [
                serde_json::json!({"reason": "lockdown", "since": now, "by": "eve"}),
                serde_json::json!({"reason": "offline", "since": null})
            ]
        );
        assert_eq!(
            words(&plain(State::Checking)),
            [serde_json::json!({"reason": "machine", "state": "checking"})]
        );
    }

    #[test]
    fn what_the_machine_says_of_its_gates_and_a_quarantine_are_reasons_with_their_data() {
        let now = NOW.to_string();
        let mut facts = plain(State::Accepted);
        facts.machine.gates_revision = Some(2);
        facts.machine.gates_problems = (1..=7).map(|number| format!("no {number}")).collect();
        let problems = ["no 1", "no 2", "no 3", "no 4", "no 5"];
        let machine = serde_json::json!({"reason": "machine", "state": "accepted"});
        assert_eq!(
            words(&facts),
            [
                serde_json::json!({"reason": "gates-outdated", "needs": 3, "has": 2}),
                serde_json::json!({"reason": "gates-problems", "revision": 2, "count": 7, "problems": problems}),
                machine.clone(),
            ]
        );
        let told = why(&facts)[1].to_string();
        assert!(
            told.ends_with("no 4; no 5; and 2 more") && told.contains("revision 2"),
            "{told}"
        );
        let mut silent = plain(State::Delivered);
        silent.machine.gates_revision = None;
        assert_eq!(
            words(&silent)[0],
            serde_json::json!({"reason": "gates-outdated", "needs": 3, "has": null})
        );
        for state in [State::Held, State::Queued] {
            facts.state = state;
            assert!(
                chain(&facts).iter().all(|word| !word.starts_with("gates")),
                "nothing of it is on the machine"
            );
        }
        let mut queued = plain(State::Queued);
        queued.link = Link::Down;
        queued.machine.quarantine = Some(Quarantine {
            since: NOW,
            reason: "it is there twice".to_owned(),
        });
        assert_eq!(
            words(&queued),
            [
                serde_json::json!({"reason": "quarantined", "since": now, "because": "it is there twice"}),
                serde_json::json!({"reason": "offline", "since": now}),
            ]
        );
    }

    #[test]
    fn what_has_started_waits_for_nothing_unless_its_machine_is_gone() {
        let locked = locked();
        let mut facts = plain(State::Running);
        facts.lockdown = Some(&locked);
        facts.machine.gates_revision = None;
        assert_eq!(chain(&facts), Vec::<String>::new());
        facts.link = Link::Down;
        assert_eq!(
            words(&facts),
            [serde_json::json!({"reason": "dark", "since": NOW.to_string()})]
        );
    }

    #[test]
    fn the_reasons_are_in_the_order_in_which_they_hold_an_operation() {
        let locked = locked();
        let batches = Batches {
            ends: vec![1, 2],
            max_concurrency: Some(1),
            stops: Stops::default(),
            dark_after: Span::default(),
        };
        let mut row = RolloutRow::new(JobId::generate(), TenantId::generate(), batches, false);
        row.paused = Some(PausedRow {
            since: NOW,
            by: Some("ida".to_owned()),
            rule: None,
            count: None,
        });
        let opens = Closed {
            window: "nights".to_owned(),
            opens: None,
        };
        let quarantined = |state| {
            let mut facts = plain(state);
            facts.lockdown = Some(&locked);
            facts.link = Link::Down;
            facts.machine.quarantine = Some(Quarantine {
                since: NOW,
                reason: "it is there twice".to_owned(),
            });
            facts.machine.gates_revision = Some(1);
            facts.machine.gates_problems = vec!["no".to_owned()];
            facts
        };
        let held = Facts {
            rollout: Some(&row),
            batch: Some(2),
            closed: Some(&opens),
            ..quarantined(State::Held)
        };
        assert_eq!(
            chain(&held),
            [
                "lockdown",
                "paused",
                "batch",
                "window",
                "quarantined",
                "offline"
            ]
        );
        for state in [State::Accepted, State::Checking] {
            assert_eq!(
                chain(&quarantined(state)),
                [
                    "lockdown",
                    "quarantined",
                    "offline",
                    "gates-outdated",
                    "gates-problems",
                    "machine"
                ]
            );
        }
    }
}
