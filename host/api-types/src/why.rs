//! Why an operation does not go on: what it waits for, for programs and for people.

use std::fmt;

use serde::{Deserialize, Serialize};
use sluice_protocol::ending::State;
use sluice_protocol::ids::{JobId, OperationId};

use crate::approval::JobApproval;
use crate::rollout::Paused;

/// One thing that an operation waits for. Of several the first is what holds it where it is, and each of the others would hold it
/// once those before it are gone. Words are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Reason {
    /// Nothing starts on any machine of the host.
    Lockdown {
        /// RFC 3339.
        since: String,
        /// Who started it.
        by: String,
    },
    /// The job is above a threshold of its tenant's approval policy.
    Approval(JobApproval),
    /// The job's rollout is paused.
    Paused(Paused),
    /// Its batch has not begun.
    Batch {
        /// Its batch, counted from 1.
        batch: u64,
        /// How many batches there are.
        of: u64,
        /// The batch that has begun last.
        begun: u64,
    },
    /// As many operations of the job are open as may be.
    Concurrency {
        /// How many may be.
        max: u64,
    },
    /// Nothing may start on the machine now: a maintenance window is to open.
    Window {
        /// The window's name.
        name: String,
        /// When it may start, RFC 3339; null where that is never.
        opens_at: Option<String>,
    },
    /// Another operation is to end on the machine first: both are in order.
    Earlier {
        /// The job of the other one.
        #[schema(value_type = String)]
        job: JobId,
        /// The other one.
        #[schema(value_type = String)]
        operation: OperationId,
        /// Where the other one is.
        #[schema(value_type = String)]
        state: State,
    },
    /// Nothing is done for the machine until an operator releases it from quarantine.
    Quarantined {
        /// RFC 3339.
        since: String,
        /// What was seen of it.
        because: String,
    },
    /// The machine is not connected.
    Offline {
        /// When it was connected last, RFC 3339; null where it never was.
        since: Option<String>,
    },
    /// The machine's connection was lost after the script was started: it may be running, or over.
    Dark {
        /// When the machine was connected last, RFC 3339; null where the host has no word of that.
        since: Option<String>,
    },
    /// The machine has said of no set of gates yet that is as new as the one the job was checked with on the host, and starts
    /// nothing of it before.
    GatesOutdated {
        /// The revision of the gates that it is to have.
        needs: u64,
        /// The one that it spoke of last; null where it never did.
        has: Option<u64>,
    },
    /// The machine cannot use all of its gates as they are bound: an operation that needs one of those is blocked, unless an
    /// earlier revision of it is in force there.
    GatesProblems {
        /// The revision of the gates that it speaks of.
        revision: u64,
        /// How many problems it has.
        count: u64,
        /// The first five of them, in its words.
        problems: Vec<String>,
    },
    /// It is on its way, or the machine has it: in state `accepted` it waits there for its turn, in state `checking` gates
    /// are asked.
    Machine {
        /// Where the operation is.
        #[schema(value_type = String)]
        state: State,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lockdown { since, by } => write!(f, "the lockdown of {by} since {since}"),
            Self::Approval(approval) => approval.fmt(f),
            Self::Paused(paused) => write!(f, "the job to be resumed: {paused}"),
            Self::Batch { batch, of, begun } => {
                write!(
                    f,
                    "batch {batch} of {of} to begin; batch {begun} is under way"
                )
            }
            Self::Concurrency { max } => {
                write!(
                    f,
                    "its turn: {max} operations of the job are open, the most at once"
                )
            }
            Self::Window {
                name,
                opens_at: Some(opens_at),
            } => write!(f, "the window {name}, which opens at {opens_at}"),
            Self::Window {
                name,
                opens_at: None,
            } => {
                write!(
                    f,
                    "the window {name}, which is never open together with the others"
                )
            }
            Self::Earlier { job, state, .. } => {
                let state = state.as_str();
                write!(f, "job {job}, which is {state} on this machine, to end")
            }
            Self::Offline { since: Some(since) } => {
                write!(f, "the machine, which is away since {since}")
            }
            Self::Offline { since: None } => f.write_str("the machine, which was never connected"),
            Self::Quarantined { since, because } => write!(
                f,
                "an operator to release the machine, which is quarantined since {since}: {because}"
            ),
            Self::Dark { since: Some(since) } => write!(
                f,
                "word of the machine, which is away since {since}, after the start"
            ),
            Self::Dark { since: None } => {
                f.write_str("word of the machine, which is away, after the start")
            }
            Self::GatesOutdated {
                needs,
                has: Some(has),
            } => write!(
                f,
                "the machine to take in revision {needs} of the gates; it has revision {has}"
            ),
            Self::GatesOutdated { needs, has: None } => {
                write!(f, "the machine to take in revision {needs} of the gates")
            }
            Self::GatesProblems {
                revision,
                count,
                problems,
            } => {
                write!(
                    f,
                    "gates that the machine cannot use (revision {revision}): {}",
                    problems.join("; ")
                )?;
                match count.saturating_sub(problems.len() as u64) {
                    0 => Ok(()),
                    more => write!(f, "; and {more} more"),
                }
            }
            Self::Machine { state } => {
                let what = match state {
                    State::Accepted => "its turn on the machine",
                    State::Checking => "the gates on the machine",
                    _ => "the machine to take it",
                };
                f.write_str(what)
            }
        }
    }
}
