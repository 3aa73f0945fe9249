//! What a case expects, and how an answer differs from it.

use serde::Deserialize;
use sluice_gate_client::trial::TriedAnswer;
use sluice_gate_types::answer::{
    Check, CheckStatus, Decision, Destination, Planned, Prepared, Verdict,
};
use sluice_gate_types::input::Value;
use sluice_gate_types::manifest::toml_value;
use sluice_protocol::report::{Finding, Severity};

/// The table `[expect]` of a case.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectationFile {
    findings: Option<Vec<ExpectedFinding>>,
    checks: Option<Vec<ExpectedCheck>>,
    plan: Option<Vec<ExpectedValue>>,
    refused: Option<Vec<String>>,
    verdict: Option<Verdict>,
    reasons: Option<Vec<String>>,
    error: Option<String>,
}

/// What must come out.
#[derive(Debug)]
pub(super) enum Expectation {
    /// These findings and no others.
    Findings(Vec<ExpectedFinding>),
    /// These checks and no others.
    Checks(Vec<ExpectedCheck>),
    /// These values and no others.
    Plan(Vec<(String, Destination, Value)>),
    /// These parameters and no others are refused.
    Refused(Vec<String>),
    /// This verdict; with reasons of these codes and no others, where they are said.
    Decision(Verdict, Option<Vec<String>>),
    /// No answer, because of something whose text has this part.
    Error(String),
}

/// One finding that is expected.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectedFinding {
    rule: String,
    severity: Option<Severity>,
    at_least: Option<Severity>,
    line: Option<u32>,
    subject: Option<String>,
}

/// One check that is expected.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectedCheck {
    id: String,
    status: CheckStatus,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedValue {
    name: String,
    destination: Destination,
    value: toml::Value,
}

impl Expectation {
    /// The one thing that a case expects.
    ///
    /// # Errors
    ///
    /// Nothing is expected, which any answer would meet, or more than one thing.
    pub(super) fn read(file: ExpectationFile) -> Result<Self, String> {
        let mut found = Vec::new();
        if let Some(findings) = file.findings {
            if findings
                .iter()
                .any(|one| one.severity.is_some() && one.at_least.is_some())
            {
                return Err("a finding has either severity or at_least".to_owned());
            }
            found.push(Self::Findings(findings));
        }
        found.extend(file.checks.map(Self::Checks));
        if let Some(plan) = file.plan {
            let value = |one: ExpectedValue| {
                let value = toml_value(&one.value);
                let wrong = || format!("the value of {} is none that a gate can give", one.name);
                Ok((one.name.clone(), one.destination, value.ok_or_else(wrong)?))
            };
            let plan: Result<_, String> = plan.into_iter().map(value).collect();
            found.push(Self::Plan(plan?));
        }
        found.extend(file.refused.map(Self::Refused));
        match (file.verdict, file.reasons) {
            (Some(verdict), reasons) => found.push(Self::Decision(verdict, reasons)),
            (None, Some(_)) => return Err("reasons come with a verdict".to_owned()),
            (None, None) => {}
        }
        if let Some(part) = file.error {
            if part.is_empty() {
                return Err("every error has the empty text".to_owned());
            }
            found.push(Self::Error(part));
        }
        match (found.pop(), found.is_empty()) {
            (None, _) => Err("expect expects nothing, which any answer meets".to_owned()),
            (Some(only), true) => Ok(only),
            (Some(_), false) => {
                Err("expect expects more than one thing; make several cases".to_owned())
            }
        }
    }

    /// How the answer differs, a line for each difference; none where it is as expected.
    pub(super) fn differences(&self, answer: &Result<TriedAnswer, String>) -> Vec<String> {
        match (self, answer) {
            (Self::Error(part), Err(error)) if error.contains(part) => Vec::new(),
            (Self::Error(part), Err(error)) => {
                vec![
                    format!("expected an error with: {part}"),
                    format!("found the error: {error}"),
                ]
            }
            (Self::Error(part), Ok(answer)) => {
                vec![
                    format!("expected an error with: {part}"),
                    format!("found an answer: {}", answer.verdict()),
                ]
            }
            (_, Err(error)) => vec![format!("the gate gave no answer: {error}")],
            (Self::Findings(expected), Ok(TriedAnswer::Findings(found))) => unmatched(
                expected,
                found,
                ExpectedFinding::fits,
                ExpectedFinding::text,
                text_of_finding,
            ),
            (Self::Checks(expected), Ok(TriedAnswer::Checks(found))) => unmatched(
                expected,
                found,
                |expected, found| expected.id == found.id && expected.status == found.status,
                |expected| format!("{} {}", word(&expected.status), expected.id),
                |found: &Check| format!("{} {}: {}", word(&found.status), found.id, found.message),
            ),
            (Self::Plan(expected), Ok(TriedAnswer::Prepared(Prepared::Planned(found)))) => {
                unmatched(
                    expected,
                    found,
                    |(name, destination, value), found: &Planned| {
                        *name == found.name
                            && *destination == found.destination
                            && *value == found.value
                    },
                    |(name, destination, value)| text_of_value(name, *destination, value),
                    |found| text_of_value(&found.name, found.destination, &found.value),
                )
            }
            (Self::Refused(expected), Ok(TriedAnswer::Prepared(Prepared::Refused(found)))) => {
                unmatched(
                    expected,
                    found,
                    |expected, found| *expected == found.parameter,
                    Clone::clone,
                    |found| format!("{}: {}", found.parameter, found.message),
                )
            }
            (Self::Decision(verdict, reasons), Ok(TriedAnswer::Decision(found))) => {
                decision(*verdict, reasons.as_deref(), found)
            }
            (Self::Plan(_), Ok(TriedAnswer::Prepared(Prepared::Refused(found)))) => found
                .iter()
                .map(|problem| format!("refused: {}: {}", problem.parameter, problem.message))
                .collect(),
            (expected, Ok(answer)) => vec![format!(
                "the case expects {}, and the gate answers with {}",
                expected.kind(),
                kind(answer)
            )],
        }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Findings(_) => "findings",
            Self::Checks(_) => "checks",
            Self::Plan(_) => "a plan",
            Self::Refused(_) => "a refusal",
            Self::Decision(..) => "a verdict",
            Self::Error(_) => "an error",
        }
    }
}

const fn kind(answer: &TriedAnswer) -> &'static str {
    match answer {
        TriedAnswer::Findings(_) => "findings",
        TriedAnswer::Checks(_) => "checks",
        TriedAnswer::Prepared(Prepared::Planned(_)) => "a plan",
        TriedAnswer::Prepared(Prepared::Refused(_)) => "a refusal",
        TriedAnswer::Decision(_) => "a verdict",
    }
}

fn decision(verdict: Verdict, reasons: Option<&[String]>, found: &Decision) -> Vec<String> {
    let mut differences = Vec::new();
    if found.verdict != verdict {
        differences.push(format!(
            "expected the verdict {}, found {}",
            word(&verdict),
            word(&found.verdict)
        ));
        let reasons = found.reasons.iter();
        differences.extend(
            reasons.map(|reason| format!("its reason: {}: {}", reason.code, reason.message)),
        );
    } else if let Some(reasons) = reasons {
        differences = unmatched(
            reasons,
            &found.reasons,
            |expected, found| *expected == found.code,
            |expected| format!("the reason {expected}"),
            |found| format!("the reason {}: {}", found.code, found.message),
        );
    }
    differences
}

impl ExpectedFinding {
    fn fits(&self, found: &Finding) -> bool {
        self.rule == found.rule
            && self
                .severity
                .is_none_or(|severity| severity == found.severity)
            && self
                .at_least
                .is_none_or(|severity| found.severity >= severity)
            && self.line.is_none_or(|line| found.line == Some(line))
            && self
                .subject
                .as_ref()
                .is_none_or(|subject| *subject == found.subject)
    }

    fn text(&self) -> String {
        let parts = [
            Some(self.rule.clone()),
            self.severity.map(|severity| word(&severity)),
            self.at_least
                .map(|severity| format!("{} or graver", word(&severity))),
            self.subject.as_ref().map(|subject| format!("in {subject}")),
            self.line.map(|line| format!("line {line}")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

fn text_of_finding(found: &Finding) -> String {
    let line = found
        .line
        .map(|line| format!(", line {line}"))
        .unwrap_or_default();
    let severity = word(&found.severity);
    format!(
        "{}, {severity}, in {}{line}: {}",
        found.rule, found.subject, found.message
    )
}

fn text_of_value(name: &str, destination: Destination, value: &Value) -> String {
    format!("{name}, {}, {value:?}", word(&destination))
}

/// The word that the contract has for it.
pub(super) fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "?".to_owned(),
    }
}

/// Pairs as many as can be paired, each with one of the other side, and says which are left over on both.
///
/// An expectation may fit several findings, so that taking the first that fits could leave another one without: each that
/// finds its place taken asks whoever has it to move (Kuhn's algorithm).
fn unmatched<E, F>(
    expected: &[E],
    found: &[F],
    fits: impl Fn(&E, &F) -> bool,
    text_of_expected: impl Fn(&E) -> String,
    text_of_found: impl Fn(&F) -> String,
) -> Vec<String> {
    let mut owner: Vec<Option<usize>> = vec![None; found.len()];
    let candidates: Vec<Vec<usize>> = expected
        .iter()
        .map(|one| {
            (0..found.len())
                .filter(|index| fits(one, &found[*index]))
                .collect()
        })
        .collect();
    let mut missing = Vec::new();
    for (index, one) in expected.iter().enumerate() {
        if !place(
            index,
            &candidates,
            &mut owner,
            &mut vec![false; found.len()],
        ) {
            missing.push(format!("expected and not found: {}", text_of_expected(one)));
        }
    }
    let surplus = found
        .iter()
        .zip(&owner)
        .filter(|(_, owner)| owner.is_none());
    missing
        .extend(surplus.map(|(one, _)| format!("found and not expected: {}", text_of_found(one))));
    missing
}

fn place(
    one: usize,
    candidates: &[Vec<usize>],
    owner: &mut [Option<usize>],
    asked: &mut [bool],
) -> bool {
    for &index in &candidates[one] {
        if std::mem::replace(&mut asked[index], true) {
            continue;
        }
        let free = match owner[index] {
            None => true,
            Some(other) => place(other, candidates, owner, asked),
        };
        if free {
            owner[index] = Some(one);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use sluice_gate_types::answer::{ParameterProblem, Reason};
    use sluice_protocol::report::{Confidence, Mode};

    use super::*;

    fn expectation(text: &str) -> Expectation {
        Expectation::read(toml::from_str(text).expect("is TOML")).expect("is an expectation")
    }

    fn found(rule: &str, severity: Severity, line: u32) -> Finding {
        Finding {
            rule: rule.to_owned(),
            severity,
            confidence: Confidence::Low,
            message: "m".to_owned(),
            primary: None,
            related: Vec::new(),
            subject: "script".to_owned(),
            remediation: None,
            attributes: Vec::new(),
            line: Some(line),
            column: Some(1),
            gate: "g".to_owned(),
            mode: Mode::Enforce,
        }
    }

    #[test]
    fn each_finding_is_expected_once_and_no_other_comes() {
        let expected = expectation(
            "findings = [{ rule = \"a\" }, { rule = \"a\", at_least = \"high\", line = 2 }]",
        );
        let differences = |findings: &[Finding]| {
            expected.differences(&Ok(TriedAnswer::Findings(findings.to_vec())))
        };
        let (low, high) = (
            found("a", Severity::Low, 1),
            found("a", Severity::Critical, 2),
        );
        // The first expectation fits both, and must leave the second its only one.
        assert!(differences(&[high.clone(), low.clone()]).is_empty());
        assert!(differences(&[low.clone(), high.clone()]).is_empty());
        assert_eq!(
            differences(&[low.clone(), low.clone()]),
            [
                "expected and not found: a, high or graver, line 2",
                "found and not expected: a, low, in script, line 1: m",
            ]
        );
        assert_eq!(
            differences(&[low, high, found("b", Severity::Info, 3)]),
            ["found and not expected: b, info, in script, line 3: m"]
        );
        assert_eq!(differences(&[]).len(), 2);
        let none = expectation("findings = []");
        let one = Ok(TriedAnswer::Findings(vec![found("b", Severity::Info, 3)]));
        assert_eq!(none.differences(&one).len(), 1);
    }

    #[test]
    fn a_severity_is_exact_and_a_subject_too() {
        let fits = |text: &str| {
            let answer = Ok(TriedAnswer::Findings(vec![found("a", Severity::High, 1)]));
            expectation(text).differences(&answer).is_empty()
        };
        assert!(fits(
            "findings = [{ rule = \"a\", severity = \"high\", subject = \"script\" }]"
        ));
        for text in [
            "findings = [{ rule = \"a\", severity = \"medium\" }]",
            "findings = [{ rule = \"a\", at_least = \"critical\" }]",
            "findings = [{ rule = \"a\", subject = \"argument:0\" }]",
            "findings = [{ rule = \"a\", line = 2 }]",
        ] {
            assert!(!fits(text), "{text}");
        }
    }

    #[test]
    fn an_answer_of_another_kind_and_an_error_are_differences() {
        let allow = Decision {
            verdict: Verdict::Allow,
            reasons: Vec::new(),
        };
        let block = Decision {
            verdict: Verdict::Block,
            reasons: vec![Reason {
                code: "user".to_owned(),
                message: "m".to_owned(),
            }],
        };
        let refused = Prepared::Refused(vec![ParameterProblem {
            parameter: "p".to_owned(),
            message: "m".to_owned(),
        }]);
        let ok =
            |text: &str, answer: TriedAnswer| expectation(text).differences(&Ok(answer)).is_empty();
        assert!(ok(
            "verdict = \"allow\"",
            TriedAnswer::Decision(allow.clone())
        ));
        assert!(!ok(
            "verdict = \"block\"",
            TriedAnswer::Decision(allow.clone())
        ));
        assert!(ok(
            "verdict = \"block\"\nreasons = [\"user\"]",
            TriedAnswer::Decision(block.clone())
        ));
        assert!(!ok(
            "verdict = \"block\"\nreasons = []",
            TriedAnswer::Decision(block)
        ));
        assert!(ok(
            "refused = [\"p\"]",
            TriedAnswer::Prepared(refused.clone())
        ));
        assert!(!ok("refused = []", TriedAnswer::Prepared(refused.clone())));
        assert!(!ok("plan = []", TriedAnswer::Prepared(refused)));
        assert!(!ok("findings = []", TriedAnswer::Decision(allow.clone())));
        assert!(!ok("error = \"fuel\"", TriedAnswer::Decision(allow)));
        let error = |text: &str| {
            expectation(text)
                .differences(&Err("it used up its fuel".to_owned()))
                .is_empty()
        };
        assert!(error("error = \"fuel\""));
        assert!(!error("error = \"memory\""));
        assert!(!error("findings = []"), "no answer is no clean answer");
    }
}
