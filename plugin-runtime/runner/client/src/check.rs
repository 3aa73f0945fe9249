//! Whether an answer keeps the contract. A guest may say anything; what breaks a rule is an error, and an error blocks.

use std::collections::HashSet;

use sluice_gate_types::admission::{Admitted, Refused};
use sluice_gate_types::answer::{
    Answer, CallError, Check, Decision, Finding, Prepared, SettingsProblem, Span,
};
use sluice_gate_types::input::{Attribute, Bundle, Origin};
use sluice_gate_types::manifest::{Manifest, ManifestError};
use sluice_protocol::ending::one_line;

const MAX_FINDINGS: usize = 500;
const MAX_CHECKS: usize = 200;
const MAX_VALUES: usize = 500;
const MAX_REASONS: usize = 200;
const MAX_ATTRIBUTES: usize = 20;
/// Settings that a guest may call wrong.
const MAX_PROBLEMS: usize = 20;
/// Imports, and exports, that are shown of a component.
const MAX_NAMES: usize = 100;
/// Characters of a text that people read; more are cut.
const MAX_TEXT: usize = 500;
/// Messages that are told in one sentence; of more only the number is.
const MAX_TOLD: usize = 20;

/// Checks what a gate answered and makes its texts inert, those of an error too: one line, no control characters, bounded.
pub(crate) fn check(
    answered: Result<Answer, CallError>,
    manifest: &Manifest,
    bundle: Option<&Bundle>,
) -> Result<Answer, CallError> {
    match answered.map_err(inert_error)? {
        Answer::Checks(checks) => checks_of(checks).map(Answer::Checks),
        Answer::Prepared(prepared) => prepared_of(prepared).map(Answer::Prepared),
        Answer::Findings(findings) => findings_of(findings, manifest, bundle).map(Answer::Findings),
        Answer::Decision(decision) => decision_of(decision).map(Answer::Decision),
    }
}

/// The text that a finding's `subject` names, or none where it names nothing.
fn subject<'a>(bundle: &'a Bundle, subject: &str) -> Option<&'a str> {
    match subject.split_once(':') {
        None if subject == "script" => Some(&bundle.script.text),
        Some(("argument", index)) => bundle
            .arguments
            .get(index.parse::<usize>().ok()?)
            .map(String::as_str),
        Some(("environment", name)) => bundle
            .environment
            .iter()
            .find(|binding| binding.name == name)
            .map(|binding| binding.value.as_str()),
        Some(("attachment", name)) => bundle
            .attachments
            .iter()
            .find(|attachment| attachment.name == name)?
            .text
            .as_deref()
            .or(Some("")),
        _ => None,
    }
}

/// Line and column of a finding that was checked, where it has a place.
pub(crate) fn place_of(bundle: &Bundle, finding: &Finding) -> Option<(u32, u32)> {
    let span = finding.primary?;
    place(subject(bundle, &finding.subject)?, span.start)
}

/// Line and column of a byte offset, both counted from 1; the column in characters.
fn place(text: &str, offset: u64) -> Option<(u32, u32)> {
    let before = text.get(..usize::try_from(offset).ok()?)?;
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    Some((u32::try_from(line).ok()?, u32::try_from(column).ok()?))
}

fn broken<T>(what: impl Into<String>) -> Result<T, CallError> {
    Err(CallError::Contract(what.into()))
}

fn at_most(what: &str, count: usize, max: usize) -> Result<(), CallError> {
    if count > max {
        Err(CallError::TooLarge(format!(
            "{count} {what}, over the limit of {max}"
        )))
    } else {
        Ok(())
    }
}

pub(crate) fn inert(text: &str) -> String {
    let mut text: String = one_line(text);
    if let Some((end, _)) = text.char_indices().nth(MAX_TEXT) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// What is said of a gate that failed may quote it.
pub(crate) fn inert_error(error: CallError) -> CallError {
    match error {
        CallError::InvalidSettings(problems) => CallError::InvalidSettings(
            problems
                .iter()
                .take(MAX_PROBLEMS)
                .map(|problem| SettingsProblem {
                    key: inert(&problem.key),
                    message: inert(&problem.message),
                })
                .collect(),
        ),
        CallError::Unsupported(text) => CallError::Unsupported(inert(&text)),
        CallError::Internal(text) => CallError::Internal(inert(&text)),
        CallError::Trap(text) => CallError::Trap(inert(&text)),
        CallError::TooLarge(text) => CallError::TooLarge(inert(&text)),
        CallError::Contract(text) => CallError::Contract(inert(&text)),
        CallError::Instantiation(text) => CallError::Instantiation(inert(&text)),
        CallError::Runner(text) => CallError::Runner(inert(&text)),
        error @ (CallError::Deadline(_) | CallError::Fuel(_) | CallError::Memory(_)) => error,
    }
}

/// What a child that read a component says of it: the bytes are hostile, and so may the child be by then.
pub(crate) fn admitted(said: Result<Admitted, Refused>) -> Result<Admitted, Refused> {
    let mut admitted = said.map_err(refused)?;
    admitted
        .manifest
        .check()
        .map_err(|ManifestError(problems)| refused(Refused(problems)))?;
    for names in [&mut admitted.imports, &mut admitted.exports] {
        names.truncate(MAX_NAMES);
        names.iter_mut().for_each(|name| *name = inert(name));
    }
    Ok(admitted)
}

/// Reasons against a component may quote it, and be many.
pub(crate) fn refused(Refused(reasons): Refused) -> Refused {
    let mut told: Vec<String> = reasons
        .iter()
        .take(MAX_TOLD)
        .map(|text| inert(text))
        .collect();
    if reasons.len() > MAX_TOLD {
        told.push(format!("and {} more", reasons.len() - MAX_TOLD));
    }
    Refused(told)
}

/// Messages of gates as one sentence. Each is bounded, and so is their number: they go into a report, and gates may be many.
pub(crate) fn told(messages: &[String]) -> String {
    let shown = &messages[..messages.len().min(MAX_TOLD)];
    let left = messages.len() - shown.len();
    let mut told = shown.join("; ");
    if left > 0 {
        told.push_str(&format!("; and {left} more"));
    }
    told
}

fn checks_of(checks: Vec<Check>) -> Result<Vec<Check>, CallError> {
    at_most("checks", checks.len(), MAX_CHECKS)?;
    Ok(checks
        .into_iter()
        .map(|check| Check {
            id: inert(&check.id),
            message: inert(&check.message),
            ..check
        })
        .collect())
}

fn prepared_of(prepared: Prepared) -> Result<Prepared, CallError> {
    match prepared {
        Prepared::Planned(values) => {
            at_most("values", values.len(), MAX_VALUES)?;
            let mut seen = HashSet::new();
            match values
                .iter()
                .find(|planned| !seen.insert(planned.name.as_str()))
            {
                Some(planned) => broken(format!(
                    "the parameter {} is planned twice",
                    inert(&planned.name)
                )),
                None => Ok(Prepared::Planned(values)),
            }
        }
        Prepared::Refused(problems) if problems.is_empty() => {
            broken("it refuses and names no reason")
        }
        Prepared::Refused(mut problems) => {
            at_most("problems", problems.len(), MAX_REASONS)?;
            for problem in &mut problems {
                problem.parameter = inert(&problem.parameter);
                problem.message = inert(&problem.message);
            }
            Ok(Prepared::Refused(problems))
        }
    }
}

fn findings_of(
    findings: Vec<Finding>,
    manifest: &Manifest,
    bundle: Option<&Bundle>,
) -> Result<Vec<Finding>, CallError> {
    at_most("findings", findings.len(), MAX_FINDINGS)?;
    let rules: HashSet<&str> = manifest.rules.iter().map(|rule| rule.id.as_str()).collect();
    let mut checked = Vec::with_capacity(findings.len());
    for finding in findings {
        if !rules.contains(finding.rule.as_str()) {
            return broken(format!(
                "the rule {} is not in its table",
                inert(&finding.rule)
            ));
        }
        let Some(text) = bundle.and_then(|bundle| subject(bundle, &finding.subject)) else {
            return broken(format!(
                "the subject {} does not exist",
                inert(&finding.subject)
            ));
        };
        at_most("places of one finding", finding.related.len(), 100)?;
        at_most(
            "attributes of one finding",
            finding.attributes.len(),
            MAX_ATTRIBUTES,
        )?;
        if let Some(span) = finding
            .primary
            .iter()
            .chain(&finding.related)
            .find(|span| !inside(text, **span))
        {
            return broken(format!(
                "the span {}..{} is not inside {}",
                span.start,
                span.end,
                inert(&finding.subject)
            ));
        }
        // Whatever a gate says of where it knows something from: to a policy it is a claim.
        let attributes = finding.attributes.into_iter().map(|attribute| Attribute {
            key: inert(&attribute.key),
            origin: Origin::HostClaim,
            ..attribute
        });
        checked.push(Finding {
            attributes: attributes.take(MAX_ATTRIBUTES).collect(),
            message: inert(&finding.message),
            remediation: finding.remediation.as_deref().map(inert),
            ..finding
        });
    }
    Ok(checked)
}

fn inside(text: &str, span: Span) -> bool {
    match (usize::try_from(span.start), usize::try_from(span.end)) {
        (Ok(start), Ok(end)) => text.get(start..end).is_some(),
        _ => false,
    }
}

fn decision_of(decision: Decision) -> Result<Decision, CallError> {
    at_most("reasons", decision.reasons.len(), MAX_REASONS)?;
    let reasons = decision.reasons.into_iter().map(|mut reason| {
        reason.code = inert(&reason.code);
        reason.message = inert(&reason.message);
        reason
    });
    Ok(Decision {
        verdict: decision.verdict,
        reasons: reasons.collect(),
    })
}

#[cfg(test)]
mod tests {
    use sluice_gate_types::answer::{Confidence, Severity};
    use sluice_gate_types::input::{Script, Value};

    use super::*;

    const LONG: usize = 1 << 20;

    fn manifest() -> Manifest {
        let text = include_str!("../../../../plugins/scanner/plugin.toml");
        Manifest::parse(text).expect("parses")
    }

    fn bundle() -> Bundle {
        Bundle {
            script: Script {
                interpreter: "sh".to_owned(),
                flags: Vec::new(),
                language: "shell".to_owned(),
                text: ":\n".to_owned(),
                sha256: vec![0; 32],
            },
            arguments: Vec::new(),
            environment: Vec::new(),
            attachments: Vec::new(),
            secrets: Vec::new(),
            run_as: "ephemeral".to_owned(),
            limits: Vec::new(),
        }
    }

    #[test]
    fn what_a_gate_adds_to_a_finding_is_a_claim_whatever_it_says() {
        let manifest = manifest();
        for origin in [
            Origin::Machine,
            Origin::Owner,
            Origin::Signed,
            Origin::HostClaim,
        ] {
            let finding = Finding {
                rule: manifest.rules[0].id.clone(),
                severity: Severity::Low,
                confidence: Confidence::Low,
                message: "m".to_owned(),
                primary: None,
                related: Vec::new(),
                subject: "script".to_owned(),
                remediation: None,
                attributes: vec![Attribute::new(
                    "user",
                    Value::Text("root".to_owned()),
                    origin,
                )],
            };
            let answer = Ok(Answer::Findings(vec![finding]));
            let checked = check(answer, &manifest, Some(&bundle()));
            let Ok(Answer::Findings(findings)) = checked else {
                panic!("{checked:?}");
            };
            assert_eq!(findings[0].attributes[0].origin, Origin::HostClaim);
        }
    }

    #[test]
    fn the_words_of_a_gate_that_fails_are_one_short_line() {
        let words = || format!("a\x1b[2Jb\n{}", "x".repeat(LONG));
        let problem = || SettingsProblem {
            key: words(),
            message: words(),
        };
        for error in [
            CallError::Unsupported(words()),
            CallError::Internal(words()),
            CallError::Trap(words()),
            CallError::Instantiation(words()),
            CallError::InvalidSettings((0..1000).map(|_| problem()).collect()),
        ] {
            let text = check(Err(error), &manifest(), None)
                .expect_err("is an error")
                .to_string();
            assert!(text.len() < 32 << 10, "{}", text.len());
            assert!(!text.contains(char::is_control), "{text}");
        }
    }

    #[test]
    fn many_messages_are_told_in_one_sentence_that_says_how_many_more_there_are() {
        let messages: Vec<_> = (0..MAX_TOLD + 2).map(|n| n.to_string()).collect();
        assert_eq!(told(&messages[..2]), "0; 1");
        assert!(told(&messages).ends_with("; 19; and 2 more"));
    }
}
