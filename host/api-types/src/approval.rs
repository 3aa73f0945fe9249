//! `/v1/approval-policy` and `/v1/standing-approvals`: which jobs wait for other operators, and what was approved in advance.

use std::fmt;

use serde::{Deserialize, Serialize};
use sluice_protocol::digest::Digest;
use sluice_protocol::report::Severity;
use sluice_protocol::units::Span;

use crate::job::Variable;
use crate::script::{ScriptRef, ScriptUsed};

/// When a job waits for others. It does where all that is said here holds at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalRule {
    /// How many other operators have to approve; one where absent.
    #[serde(default = "one")]
    pub approvers: u64,
    /// From how many of the job's machines on that have the `tags` and the `findings`; from the first on where absent.
    #[serde(default)]
    pub targets: Option<u64>,
    /// Users that it runs as, one of these; any where there are none. `default` is the machine's own.
    #[serde(default)]
    pub run_as: Vec<String>,
    /// Tags, as `env=production`, of which a machine must have all to count.
    #[serde(default)]
    pub tags: Vec<String>,
    /// What the host's scanners must find at least on a machine for it to count. It counts too where they are left out.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "high")]
    pub findings: Option<Severity>,
}

const fn one() -> u64 {
    1
}

/// `PUT /v1/approval-policy`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetApprovalPolicy {
    /// The tenant's name; the operator's own where absent.
    #[serde(default)]
    pub tenant: Option<String>,
    /// How long a job waits for approvals: a day where absent, seven at most.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "8h")]
    pub expires: Option<Span>,
    /// A job waits where one of them holds, for as many as the one says that asks for most. None: no job waits.
    #[serde(default)]
    pub rules: Vec<ApprovalRule>,
}

/// The approval policy of a tenant, in one of its revisions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ApprovalPolicy {
    /// The tenant's name.
    pub tenant: String,
    /// Counted from 1; 0 where none was ever set.
    pub revision: u64,
    /// How long a job waits for approvals.
    #[schema(value_type = String, example = "1d")]
    pub expires: Span,
    /// Its rules.
    pub rules: Vec<ApprovalRule>,
    /// RFC 3339; null where none was ever set.
    pub changed_at: Option<String>,
    /// The operator who did; null where none was ever set.
    pub changed_by: Option<String>,
}

/// What a job waits for, or waited for, that is above a threshold of its tenant's approval policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JobApproval {
    /// Where it is.
    pub state: ApprovalState,
    /// How many operators have to approve.
    pub needed: u64,
    /// Who has approved, and what their word is still good for.
    pub approved: Vec<Approved>,
    /// RFC 3339: what has not been approved by then expires.
    pub until: String,
    /// Why it is needed, one sentence for each rule that holds.
    pub because: Vec<String>,
    /// What the gates on the host found for which a rule holds, the gravest first; of many the first twenty.
    #[serde(default)]
    pub findings: Vec<CountedFinding>,
    /// What is approved: of script, parameters, machines and gates as they are now.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// The standing approval that counted; null where none did.
    pub standing: Option<String>,
}

/// What a gate found on some of a job's machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CountedFinding {
    /// The id of the gate.
    pub gate: String,
    /// The id of the rule, from the table of the gate's plugin.
    pub rule: String,
    /// How grave it is.
    #[schema(value_type = String, example = "high")]
    pub severity: Severity,
    /// On how many of the job's machines.
    pub machines: u64,
}

impl fmt::Display for CountedFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machines = if self.machines == 1 {
            "machine"
        } else {
            "machines"
        };
        write!(
            f,
            "{}/{} ({}, {} {machines})",
            self.gate,
            self.rule,
            self.severity.as_str(),
            self.machines
        )
    }
}

/// Where an approval is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ApprovalState {
    /// Nothing is delivered until as many have approved as are needed.
    Waiting,
    /// As many have.
    Approved,
    /// Somebody has said no.
    Denied,
}

impl ApprovalState {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Approved => "approved",
            Self::Denied => "denied",
        }
    }

    /// The state with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Waiting, Self::Approved, Self::Denied]
            .into_iter()
            .find(|state| state.as_str() == word)
    }
}

/// One operator's approval of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Approved {
    /// The operator.
    pub by: String,
    /// RFC 3339.
    pub at: String,
    /// RFC 3339: until when it counts.
    pub until: String,
    /// Why it does not count any more; null where it does.
    pub void: Option<String>,
}

impl fmt::Display for JobApproval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let good = self.approved.iter().filter(|one| one.void.is_none());
        let good: Vec<&str> = good.map(|one| one.by.as_str()).collect();
        write!(
            f,
            "approvals of other operators ({} of {}",
            good.len(),
            self.needed
        )?;
        if !good.is_empty() {
            write!(f, ": {}", good.join(", "))?;
        }
        write!(
            f,
            ") until {}, because {}",
            self.until,
            self.because.join(", and ")
        )?;
        let mut before = "; found: ";
        for finding in &self.findings {
            write!(f, "{before}{finding}")?;
            before = ", ";
        }
        for void in &self.approved {
            if let Some(why) = &void.void {
                write!(f, "; what {} approved is void: {why}", void.by)?;
            }
        }
        Ok(())
    }
}

/// `POST /v1/jobs/{job}/deny`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DenyJob {
    /// For the record.
    #[serde(default)]
    pub reason: Option<String>,
}

/// `POST /v1/standing-approvals`: approves in advance what jobs of others may do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddStandingApproval {
    /// The tenant's name; the operator's own where absent.
    #[serde(default)]
    pub tenant: Option<String>,
    /// A version of the library, run as it is there: the one that is named, or the newest of now. Or else `script_sha256`.
    #[serde(default)]
    pub script_ref: Option<ScriptRef>,
    /// Of the bytes of a script that comes with its job, without variables, attachments or another interpreter.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub script_sha256: Option<Digest>,
    /// The users that it may run as, at least one. `default` is the machine's own.
    #[serde(default)]
    pub run_as: Vec<String>,
    /// The parameters, exactly these; any where null.
    #[serde(default)]
    pub parameters: Option<Vec<Variable>>,
    /// Tags, as `env=test`, all of which every machine of a job must have; all machines where there are none.
    #[serde(default)]
    pub tags: Vec<String>,
    /// How many machines a job may have.
    pub targets: u64,
    /// How long it counts: thirty days where absent, ninety at most.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "30d")]
    pub expires: Option<Span>,
}

/// A standing approval. Jobs that fit it need no other, if it has as many approvers as their policy asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StandingApproval {
    /// Its id.
    pub id: String,
    /// The tenant's name.
    pub tenant: String,
    /// Of the bytes.
    #[schema(value_type = String)]
    pub script_sha256: Digest,
    /// The version of the library; null where the job brings the text.
    pub script: Option<ScriptUsed>,
    /// The users.
    pub run_as: Vec<String>,
    /// The parameters; any where null.
    pub parameters: Option<Vec<Variable>>,
    /// The tags.
    pub tags: Vec<String>,
    /// How many machines.
    pub targets: u64,
    /// Who approves it, the one who added it first.
    pub approvers: Vec<String>,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339: until when it counts.
    pub until: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_needs_nothing_and_refuses_what_it_does_not_know() {
        let rule: ApprovalRule = serde_json::from_str(r#"{"findings":"high"}"#).expect("reads");
        assert_eq!((rule.approvers, rule.findings), (1, Some(Severity::High)));
        for wrong in [
            r#"{"target":3}"#,
            r#"{"findings":"grave"}"#,
            r#"{"tags":"env=production"}"#,
            r#"{"targets":-1}"#,
        ] {
            assert!(
                serde_json::from_str::<ApprovalRule>(wrong).is_err(),
                "{wrong}"
            );
        }
    }
}
