//! Making findings, checks, decisions and refusals.

use std::ops::Range;

use crate::bundle::TextPart;
use crate::types::{
    Check, CheckStatus, Confidence, Decision, Finding, ParameterProblem, Reason, Severity, Span,
    Verdict,
};

impl Finding {
    /// A finding about the script as a whole, with medium confidence. `rule` is an id from the manifest's rule table.
    pub fn new(rule: impl Into<String>, severity: Severity, message: impl Into<String>) -> Self {
        Self {
            rule: rule.into(),
            severity,
            confidence: Confidence::Medium,
            message: message.into(),
            primary: None,
            related: Vec::new(),
            subject: "script".to_owned(),
            remediation: None,
            attributes: Vec::new(),
        }
    }

    /// The same finding at a place of a text: byte offsets, `end` exclusive.
    #[must_use]
    pub fn at(mut self, part: &TextPart<'_>, range: Range<usize>) -> Self {
        self.subject.clone_from(&part.subject);
        self.primary = Some(Span {
            start: range.start as u64,
            end: range.end as u64,
        });
        self
    }

    /// The same finding with another confidence.
    #[must_use]
    pub const fn confidence(mut self, confidence: Confidence) -> Self {
        self.confidence = confidence;
        self
    }

    /// The same finding with advice.
    #[must_use]
    pub fn remediation(mut self, text: impl Into<String>) -> Self {
        self.remediation = Some(text.into());
        self
    }
}

impl Check {
    /// A requirement that the machine meets.
    pub fn met(id: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            status: CheckStatus::Met,
            message: message.into(),
        }
    }

    /// A requirement that the machine does not meet.
    pub fn unmet(id: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            status: CheckStatus::Unmet,
            message: message.into(),
        }
    }

    /// A requirement that could not be checked.
    pub fn unknown(id: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            status: CheckStatus::Unknown,
            message: message.into(),
        }
    }
}

impl Decision {
    /// Nothing speaks against it.
    #[must_use]
    pub const fn allow() -> Self {
        Self {
            verdict: Verdict::Allow,
            reasons: Vec::new(),
        }
    }

    /// Adds a reason; the verdict is the most restrictive of all reasons.
    pub fn add(&mut self, verdict: Verdict, code: impl Into<String>, message: impl Into<String>) {
        self.verdict = self.verdict.max(verdict);
        self.reasons.push(Reason {
            code: code.into(),
            message: message.into(),
        });
    }
}

impl ParameterProblem {
    /// A problem with one parameter. Never put the value of a secret into the message.
    pub fn new(parameter: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            parameter: parameter.into(),
            message: message.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_as_restrictive_as_its_strictest_reason() {
        let mut decision = Decision::allow();
        decision.add(Verdict::Block, "a", "first");
        decision.add(Verdict::AllowWithWarnings, "b", "second");
        assert_eq!(decision.verdict, Verdict::Block);
        assert_eq!(decision.reasons.len(), 2);
    }
}
