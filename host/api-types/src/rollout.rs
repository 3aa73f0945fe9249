//! The rollout of a job: its operations start in batches, or a few at a time.

use serde::{Deserialize, Serialize};

/// How far a job's rollout is. The answer to `POST /v1/jobs/{job}/pause` and `POST /v1/jobs/{job}/resume`, and the event
/// `rollout`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Rollout {
    /// Where it is.
    pub state: RolloutState,
    /// The batch that has begun last, counted from 1.
    pub batch: u64,
    /// How many batches there are.
    pub of: u64,
    /// How many operations belong to all batches up to each.
    pub batches: Vec<u64>,
    /// How many of its operations may be open at once; null where that is not limited.
    pub max_concurrency: Option<u64>,
    /// How many failures pause it: a number, or a percentage of the operations in the batches that have begun. Null where
    /// none does.
    pub stop_on_failures: Option<String>,
    /// How many time-outs pause it, in the same way.
    #[serde(default)]
    pub stop_on_timeouts: Option<String>,
    /// How many machines that went dark after they had started it pause it, in the same way.
    #[serde(default)]
    pub stop_on_dark: Option<String>,
    /// How many new groups of results pause it, in the same way.
    #[serde(default)]
    pub stop_on_new_groups: Option<String>,
    /// How many operations are held.
    pub held: u64,
    /// How many operations of the batches that have begun have failed: all that have ended otherwise than as succeeded.
    pub failures: u64,
    /// Why it is paused; null where it is not.
    pub paused: Option<Paused>,
}

/// Where a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RolloutState {
    /// It goes on by itself.
    Running,
    /// Nothing of it is released until it is resumed.
    Paused,
    /// Every operation of it has ended.
    Done,
}

impl RolloutState {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
        }
    }

    /// The state with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Running, Self::Paused, Self::Done]
            .into_iter()
            .find(|state| state.as_str() == word)
    }
}

/// What a rule counts that pauses a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// Operations that have ended otherwise than as succeeded.
    Failures,
    /// Operations that have ended as timed out.
    Timeouts,
    /// Machines that went away after they had started an operation, and did not come back.
    Dark,
    /// Groups of results that the first batch did not have.
    Groups,
}

impl Rule {
    /// Every rule, in the order in which they are looked at.
    pub const ALL: &[Self] = &[Self::Failures, Self::Timeouts, Self::Dark, Self::Groups];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::Timeouts => "timeouts",
            Self::Dark => "dark",
            Self::Groups => "groups",
        }
    }

    /// The rule with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|rule| rule.as_str() == word)
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a rollout is paused: an operator wanted it, or its rule did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Paused {
    /// RFC 3339.
    pub since: String,
    /// The operator; null where the rule did it.
    pub by: Option<String>,
    /// What the rule counts; null where an operator did it.
    #[serde(default)]
    pub counts: Option<Rule>,
    /// The rule, as `stop_on_failures` or the other has it; null where an operator did it.
    pub rule: Option<String>,
    /// How many the rule counted; null where an operator did it.
    pub failures: Option<u64>,
}

impl std::fmt::Display for Paused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.by, &self.rule) {
            (Some(by), _) => write!(f, "paused by {by}")?,
            (None, rule) => write!(
                f,
                "paused because {} ({}, the rule is {})",
                match self.counts {
                    None | Some(Rule::Failures) => "operations failed",
                    Some(Rule::Timeouts) => "operations timed out",
                    Some(Rule::Dark) => "machines went dark",
                    Some(Rule::Groups) => "results are not like those of the first batch",
                },
                self.failures.unwrap_or(0),
                rule.as_deref().unwrap_or("none")
            )?,
        }
        write!(f, " since {}", self.since)
    }
}
