//! From when a job waits for others, and for how many: a tenant's approval policy. No clock, no I/O.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sluice_api_types::approval::{ApprovalRule, CountedFinding};
use sluice_protocol::report::Severity;
use sluice_protocol::units::Span;

use crate::fleet;
use crate::store::bindings::TagPair;

/// How long a job waits for approvals, where the policy does not say.
const DEFAULT_WAIT: Span = Span::seconds(24 * 3600);
/// The longest that it may.
const LONGEST_WAIT: Span = Span::seconds(7 * 24 * 3600);
/// The most rules of a policy.
const MOST_RULES: usize = 20;
/// The most approvers that a rule can ask for.
const MOST_APPROVERS: u64 = 10;
/// The most users, or tags, that a rule can name.
const MOST_NAMES: usize = 20;
/// The longest name of a user, in bytes.
const LONGEST_NAME: usize = 256;
/// The most findings that are told of a job.
const MOST_FINDINGS: usize = 20;
/// What stands for the machine's own user, where a job names none.
const DEFAULT_USER: &str = "default";

/// A tenant's approval policy. Without rules no job waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How long a job waits.
    pub expires: Span,
    /// In the order in which they were written.
    pub rules: Vec<Rule>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            expires: DEFAULT_WAIT,
            rules: Vec::new(),
        }
    }
}

/// A rule: it holds where enough of a job's machines count, and the job runs as one of its users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// How many operators have to approve, at least one.
    pub approvers: u64,
    /// From how many machines on, at least one.
    pub targets: u64,
    /// Any where empty.
    pub run_as: Vec<String>,
    /// All of which a machine must have to count.
    pub tags: Vec<TagPair>,
    /// What must have been found for a machine at least, for it to count.
    pub findings: Option<Severity>,
}

impl Policy {
    /// Reads what somebody wrote.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it.
    pub fn read(rules: &[ApprovalRule], expires: Option<Span>) -> Result<Self, PolicyError> {
        let expires = expires.unwrap_or(DEFAULT_WAIT);
        if expires.0 == 0 || expires > LONGEST_WAIT {
            return Err(PolicyError::Expires {
                span: expires,
                longest: LONGEST_WAIT,
            });
        }
        if rules.len() > MOST_RULES {
            return Err(PolicyError::TooManyRules);
        }
        Ok(Self {
            expires,
            rules: rules.iter().map(Rule::read).collect::<Result<_, _>>()?,
        })
    }

    /// Whether some job would wait shorter, for fewer or not at all under this one that waits under `before`. A rule that is
    /// there in another form is looked at by itself, so that what says the same in two rules counts as weaker.
    #[must_use]
    pub fn is_weaker_than(&self, before: &Self) -> bool {
        let covered = |rule: &Rule| self.rules.iter().any(|other| other.covers(rule));
        !before.rules.iter().all(covered)
    }
}

impl Rule {
    fn read(rule: &ApprovalRule) -> Result<Self, PolicyError> {
        if !(1..=MOST_APPROVERS).contains(&rule.approvers) {
            return Err(PolicyError::Approvers(rule.approvers));
        }
        if rule.targets == Some(0) {
            return Err(PolicyError::NoTargets);
        }
        if rule.run_as.len() > MOST_NAMES || rule.tags.len() > MOST_NAMES {
            return Err(PolicyError::TooManyNames);
        }
        Ok(Self {
            approvers: rule.approvers,
            targets: rule.targets.unwrap_or(1),
            run_as: users(&rule.run_as)?,
            tags: tags(&rule.tags)?,
            findings: rule.findings,
        })
    }

    /// As it is written.
    #[must_use]
    pub fn shown(&self) -> ApprovalRule {
        ApprovalRule {
            approvers: self.approvers,
            targets: Some(self.targets),
            run_as: self.run_as.clone(),
            tags: words(&self.tags),
            findings: self.findings,
        }
    }

    /// Whether it holds wherever `other` does, and asks for as many.
    fn covers(&self, other: &Self) -> bool {
        let as_grave = match (self.findings, other.findings) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(ours), Some(theirs)) => ours <= theirs,
        };
        let as_many_users = self.run_as.is_empty()
            || !other.run_as.is_empty() && other.run_as.iter().all(|it| self.run_as.contains(it));
        self.approvers >= other.approvers
            && self.targets <= other.targets
            && as_many_users
            && self.tags.iter().all(|tag| other.tags.contains(tag))
            && as_grave
    }

    /// Why it holds; none where it does not.
    fn holds(&self, facts: &Facts<'_>) -> Option<String> {
        if !self.run_as.is_empty() && !is_user_among(&self.run_as, facts.run_as) {
            return None;
        }
        let counts = |machine: &&MachineFacts| self.counts(machine, facts.skips_scan);
        let counted = facts.machines.iter().filter(counts).count() as u64;
        // Some of a job are not fewer than all of it were.
        let counted = match counted {
            0 => return None,
            some => some.max(facts.of),
        };
        (counted >= self.targets).then(|| self.sentence(facts, counted))
    }

    /// Whether a machine is one of those that it is about.
    fn counts(&self, machine: &MachineFacts, skips_scan: bool) -> bool {
        let is_grave = self
            .findings
            .is_none_or(|least| skips_scan || machine.worst.is_some_and(|worst| worst >= least));
        is_grave && self.tags.iter().all(|tag| machine.tags.contains(tag))
    }

    fn sentence(&self, facts: &Facts<'_>, counted: u64) -> String {
        let machines = if counted == 1 { "machine" } else { "machines" };
        let mut sentence = format!("it is for {counted} {machines}");
        if !self.tags.is_empty() {
            sentence += &format!(" with {}", words(&self.tags).join(" and "));
        }
        if !self.run_as.is_empty() {
            let user = facts.run_as.unwrap_or("the machine's default user");
            sentence += &format!(" and runs as {user}");
        }
        if let Some(least) = self.findings {
            sentence += &match facts.skips_scan {
                true => " and is not scanned".to_owned(),
                false => format!(" and has findings from {} on", least.as_str()),
            };
        }
        sentence
    }
}

/// What there is to know of a job when it is submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The user; none where it is the machine's own.
    pub run_as: Option<&'a str>,
    /// Whether the host's scanners are left out.
    pub skips_scan: bool,
    /// How many machines the job had that these are some of; 0 where they are all.
    pub of: u64,
    /// Those on which something may run.
    pub machines: Vec<MachineFacts>,
}

/// What there is to know of one of its machines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MachineFacts {
    /// Its tags.
    pub tags: Vec<TagPair>,
    /// The gravest finding of a scanner that may block.
    pub worst: Option<Severity>,
    /// What such scanners found, each thing once.
    pub found: Arc<Vec<Found>>,
}

/// One thing that a gate found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// How grave it is.
    pub severity: Severity,
    /// The id of the gate.
    pub gate: String,
    /// The id of its rule.
    pub rule: String,
}

/// What a job waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// How many operators have to approve.
    pub approvers: u64,
    /// A sentence for each rule that holds.
    pub because: Vec<String>,
    /// What was found that those of them are about, the gravest first.
    pub found: Vec<CountedFinding>,
}

/// What a job waits for under a policy; none where no rule holds.
#[must_use]
pub fn need(policy: &Policy, facts: &Facts<'_>) -> Option<Need> {
    let holding = policy
        .rules
        .iter()
        .filter_map(|rule| Some((rule, rule.holds(facts)?)));
    let (rules, because): (Vec<&Rule>, Vec<String>) = holding.unzip();
    Some(Need {
        approvers: rules.iter().map(|rule| rule.approvers).max()?,
        because,
        found: found(&rules, facts),
    })
}

/// What was found on the machines that rules are about, from the severity on that they ask for.
fn found(rules: &[&Rule], facts: &Facts<'_>) -> Vec<CountedFinding> {
    let mut counts: BTreeMap<&Found, u64> = BTreeMap::new();
    for machine in &facts.machines {
        let about = rules
            .iter()
            .filter(|rule| rule.counts(machine, facts.skips_scan));
        let Some(least) = about.filter_map(|rule| rule.findings).min() else {
            continue;
        };
        for found in machine.found.iter().filter(|it| it.severity >= least) {
            *counts.entry(found).or_default() += 1;
        }
    }
    // The order of what is found begins with how grave it is.
    let gravest = counts.into_iter().rev().take(MOST_FINDINGS);
    gravest
        .map(|(found, machines)| CountedFinding {
            gate: found.gate.clone(),
            rule: found.rule.clone(),
            severity: found.severity,
            machines,
        })
        .collect()
}

/// Whether a job's user is one of these. Which one a machine's default is nobody here knows, so it has a word of its own.
#[must_use]
pub fn is_user_among(users: &[String], run_as: Option<&str>) -> bool {
    users
        .iter()
        .any(|user| user == run_as.unwrap_or(DEFAULT_USER))
}

/// Names of users, as they can be asked for.
pub(super) fn users(names: &[String]) -> Result<Vec<String>, PolicyError> {
    let is_wrong = |name: &&String| {
        name.is_empty()
            || name.len() > LONGEST_NAME
            || name.chars().any(|c| c.is_control() || c == ':' || c == '/')
    };
    match names.iter().find(is_wrong) {
        Some(name) => Err(PolicyError::User(name.chars().take(40).collect())),
        None => Ok(names.to_vec()),
    }
}

/// Tags, as `env=production`.
pub(super) fn tags(words: &[String]) -> Result<Vec<TagPair>, PolicyError> {
    let tag = |word: &String| {
        let (key, value) = word
            .split_once('=')
            .ok_or_else(|| PolicyError::NoTag(word.chars().take(40).collect()))?;
        Ok(fleet::parse_tag(key, value)?)
    };
    words.iter().map(tag).collect()
}

/// Tags as they are written.
pub(super) fn words(tags: &[TagPair]) -> Vec<String> {
    tags.iter().map(ToString::to_string).collect()
}

/// What was written makes no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Nobody, or too many.
    #[error("a rule asks for {0} approvers; 1 to {MOST_APPROVERS} can be asked for")]
    Approvers(u64),
    /// It would hold for nothing.
    #[error(
        "a rule holds from 0 targets on; leave targets out for one that holds from the first on"
    )]
    NoTargets,
    /// A user that can be none.
    #[error("{} can be no user's name", .0.escape_debug())]
    User(String),
    /// No tag at all.
    #[error("{} is no tag; a tag is written as env=production", .0.escape_debug())]
    NoTag(String),
    /// A tag that can be none.
    #[error(transparent)]
    Tag(#[from] fleet::InvalidTag),
    /// Too short or too long.
    #[error(
        "jobs would wait {span} for approvals; more than nothing and at most {longest} is possible"
    )]
    Expires {
        /// As given.
        span: Span,
        /// The longest.
        longest: Span,
    },
    /// Too many.
    #[error("there are more than {MOST_RULES} rules")]
    TooManyRules,
    /// Too many in one rule.
    #[error("there are more than {MOST_NAMES} users or tags in one place")]
    TooManyNames,
}
