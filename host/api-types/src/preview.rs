//! `/v1/jobs/preview`: what would become of a request if it were submitted now, before anything is made of it.

use std::fmt;

use serde::{Deserialize, Serialize};
use sluice_protocol::ending::State;

use crate::lockdown::Lockdown;

/// `POST /v1/jobs/preview`: what a request means now, and what would come of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JobPreview {
    /// How many machines are meant.
    pub count: u64,
    /// How many of them are connected.
    pub connected: u64,
    /// The first of them.
    pub machines: Vec<PreviewedMachine>,
    /// The first of the names for which there is no machine; each would get an operation that fails.
    pub not_found: Vec<String>,
    /// The lockdown for whose end the job could not even be made; null where there is none.
    #[serde(default)]
    pub lockdown: Option<Lockdown>,
    /// The batches that would be, one after the other; a single one where the job is held for something else; none where it
    /// would begin on all machines at once.
    #[serde(default)]
    pub batches: Vec<PreviewedBatch>,
    /// What the host would end at once, so that nothing is sent to the machine: by how it ends, the most machines first.
    #[serde(default)]
    pub ended: Vec<PreviewedEnd>,
    /// Why machines to which it would be sent do not get it now, or may refuse it.
    #[serde(default)]
    pub obstacles: Vec<PreviewedObstacle>,
    /// The attachments that this host does not have yet. The gates have seen their names and digests alone, and may say
    /// otherwise about what is in them.
    #[serde(default)]
    pub unseen: Vec<String>,
    /// The approvals that the job would need; null where it would need none.
    #[serde(default)]
    pub approval: Option<PreviewedApproval>,
    /// Whether machines that match only later would join the job until it expires.
    #[serde(default)]
    pub include_later: bool,
    /// The windows that are closed now, the first to open first: nothing would start before.
    #[serde(default)]
    pub windows: Vec<PreviewedWindow>,
}

/// A machine that is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PreviewedMachine {
    /// Its name.
    pub name: String,
    /// Whether its agent is connected.
    pub connected: bool,
}

/// Some of the machines: how many there are, and the first of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PreviewedMachines {
    /// How many.
    pub machines: u64,
    /// The names of the first.
    pub first: Vec<String>,
}

impl PreviewedMachines {
    /// The most names that are shown.
    const SHOWN: usize = 5;

    /// Counts one more.
    pub fn add(&mut self, name: &str) {
        self.machines += 1;
        if self.first.len() < Self::SHOWN {
            self.first.push(name.to_owned());
        }
    }
}

impl fmt::Display for PreviewedMachines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.machines == 1 {
            "machine"
        } else {
            "machines"
        };
        write!(f, "{} {word} ({}", self.machines, self.first.join(", "))?;
        let more = self.machines > self.first.len() as u64;
        f.write_str(if more { ", ...)" } else { ")" })
    }
}

/// A batch of the rollout that a job would have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PreviewedBatch {
    /// Which one, counted from 1.
    pub batch: u64,
    /// Its machines, also those for which the host would end it at once, in their order.
    #[serde(flatten)]
    pub of: PreviewedMachines,
}

/// How the operations of some machines would end before anything is sent to these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PreviewedEnd {
    /// In which state.
    #[schema(value_type = String)]
    pub state: State,
    /// The operation's message, which says why.
    pub message: String,
    /// On which machines.
    #[serde(flatten)]
    pub on: PreviewedMachines,
}

impl fmt::Display for PreviewedEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.on, self.state.as_str(), self.message)
    }
}

/// Why machines do not get a job now, or may refuse it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Obstacle {
    /// They are quarantined: they get nothing before somebody releases them.
    Quarantined,
    /// They could not take in all gates that are bound, and block what those would be asked about.
    GateProblems,
    /// They are not connected, and get it when they come, if that is in time.
    Offline,
}

/// An obstacle, and the machines that have it. A machine is counted for each that it has; one that is quarantined is offline
/// by that, and not counted for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PreviewedObstacle {
    /// Which.
    pub obstacle: Obstacle,
    /// On which machines.
    #[serde(flatten)]
    pub on: PreviewedMachines,
}

impl fmt::Display for PreviewedObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.obstacle {
            Obstacle::Quarantined => "quarantined: nothing is sent before sluice machine release",
            Obstacle::GateProblems => {
                "with gates that failed there, and may block it (sluice machine show)"
            }
            Obstacle::Offline => "away now",
        };
        write!(f, "{} {what}", self.on)
    }
}

/// The approvals that a job would need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PreviewedApproval {
    /// How many other operators have to approve.
    pub needed: u64,
    /// Why, one sentence for each rule that holds.
    pub because: Vec<String>,
    /// The standing approval that counts, so that the job would not wait; null where none does.
    pub standing: Option<String>,
}

impl fmt::Display for PreviewedApproval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.standing {
            Some(standing) => write!(f, "approved in advance by {standing}")?,
            None => {
                let who = if self.needed == 1 {
                    "operator"
                } else {
                    "operators"
                };
                write!(f, "waits for {} other {who}", self.needed)?;
            }
        }
        write!(f, ", because {}", self.because.join(", and "))
    }
}

/// A window for which machines of a job would wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PreviewedWindow {
    /// Its name.
    pub name: String,
    /// When the job may start there, RFC 3339; null where that is never.
    pub opens_at: Option<String>,
    /// How many of the machines wait for it.
    pub machines: u64,
}

impl fmt::Display for PreviewedWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machines = if self.machines == 1 {
            "machine waits"
        } else {
            "machines wait"
        };
        write!(f, "{} {machines} for {}", self.machines, self.name)?;
        match &self.opens_at {
            Some(at) => write!(f, ", which opens at {at}"),
            None => f.write_str(", which is never open together with the others"),
        }
    }
}
