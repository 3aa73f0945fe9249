//! Why an operation has not started: what it waits for, for programs and for people.

use std::fmt;

use serde::{Deserialize, Serialize};
use sluice_protocol::ending::State;
use sluice_protocol::ids::{JobId, OperationId};

use crate::approval::JobApproval;
use crate::rollout::Paused;

/// One thing that an operation waits for. Words are only ever added.
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
    /// The machine is not connected.
    Offline {
        /// When it was connected last, RFC 3339; null where it never was.
        since: Option<String>,
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
