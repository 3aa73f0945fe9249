//! What a gate answers. Whatever is in here came from a guest: it has been decoded and bounded, and is not believed.

use serde::{Deserialize, Serialize};

use crate::input::{Attribute, Value};

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "as in wit/types.wit")]
pub enum Severity {
    Info,
    Low,
    Medium,
    High,
    Critical,
}

/// How sure a scanner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "as in wit/types.wit")]
pub enum Confidence {
    Low,
    Medium,
    High,
}

/// A range of UTF-8 byte offsets; `end` is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "as in wit/types.wit")]
pub struct Span {
    pub start: u64,
    pub end: u64,
}

/// One reason of a scanner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "as in wit/types.wit")]
pub struct Finding {
    pub rule: String,
    pub severity: Severity,
    pub confidence: Confidence,
    pub message: String,
    pub primary: Option<Span>,
    pub related: Vec<Span>,
    pub subject: String,
    pub remediation: Option<String>,
    pub attributes: Vec<Attribute>,
}

/// Whether a requirement is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "as in wit/types.wit")]
pub enum CheckStatus {
    Met,
    Unmet,
    Unknown,
}

/// One requirement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "as in wit/types.wit")]
pub struct Check {
    pub id: String,
    pub status: CheckStatus,
    pub message: String,
}

/// How a value reaches the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "as in wit/types.wit")]
pub enum Destination {
    Environment,
    Argument,
    Placeholder,
}

/// One typed value and where it goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "as in wit/types.wit")]
pub struct Planned {
    pub name: String,
    pub value: Value,
    pub destination: Destination,
}

/// What is wrong with a parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "as in wit/types.wit")]
pub struct ParameterProblem {
    pub parameter: String,
    pub message: String,
}

/// What a preparer makes of the parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(missing_docs, reason = "as in wit/types.wit")]
pub enum Prepared {
    Planned(Vec<Planned>),
    Refused(Vec<ParameterProblem>),
}

/// From the least to the most restrictive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "as in wit/types.wit")]
pub enum Verdict {
    Allow,
    AllowWithWarnings,
    RequireApproval,
    Block,
}

/// One reason of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "as in wit/types.wit")]
pub struct Reason {
    pub code: String,
    pub message: String,
}

/// What a policy decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "as in wit/types.wit")]
pub struct Decision {
    pub verdict: Verdict,
    pub reasons: Vec<Reason>,
}

/// One gate's answer to one [`crate::input::Question`], of the same stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(missing_docs, reason = "as in wit/")]
pub enum Answer {
    Checks(Vec<Check>),
    Prepared(Prepared),
    Findings(Vec<Finding>),
    Decision(Decision),
}

/// What is wrong with a setting; an empty key where it is with several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "as in wit/types.wit")]
pub struct SettingsProblem {
    pub key: String,
    pub message: String,
}

/// Why a gate gave no answer. Whichever it is, the operation is blocked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum CallError {
    /// The guest does not take its settings.
    #[error("its settings are not valid: {}", .0.iter().map(|p| format!("{}: {}", p.key, p.message)).collect::<Vec<_>>().join("; "))]
    InvalidSettings(Vec<SettingsProblem>),
    /// The guest says that it does not do this.
    #[error("it does not support this: {0}")]
    Unsupported(String),
    /// The guest says that it failed.
    #[error("it failed: {0}")]
    Internal(String),
    /// The guest trapped.
    #[error("it crashed: {0}")]
    Trap(String),
    /// The time for the call was over.
    #[error("it took longer than {0} ms")]
    Deadline(u64),
    /// The fuel for the call was burned.
    #[error("it used up its fuel of {0}")]
    Fuel(u64),
    /// More memory or table space than allowed.
    #[error("it wanted more memory than its limit of {0} bytes")]
    Memory(u64),
    /// The answer is larger than allowed.
    #[error("its answer is too large: {0}")]
    TooLarge(String),
    /// The answer breaks a rule of the contract: a span past the end, an unknown rule id, an undeclared name.
    #[error("its answer breaks the contract: {0}")]
    Contract(String),
    /// The component cannot be instantiated or lacks the export.
    #[error("it cannot be started: {0}")]
    Instantiation(String),
    /// The process that runs gates is gone or unreachable; it is started anew for the next call.
    #[error("the gate runner failed: {0}")]
    Runner(String),
}
