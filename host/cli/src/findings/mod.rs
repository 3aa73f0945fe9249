//! Findings in the formats that other tools read.
//!
//! Both are made here, from what the host answers to anybody who may read the job: nothing in them is news.

mod ocsf;
mod sarif;

pub(crate) use ocsf::events as ocsf;
pub(crate) use sarif::log as sarif;

/// The digest, in hexadecimal, that a finding has again when the same script is submitted again.
fn fingerprint(
    result: &sluice_api_types::operation::OperationResult,
    finding: &sluice_protocol::report::Finding,
) -> String {
    let place = finding
        .primary
        .map(|range| format!("{}..{}", range.start, range.end));
    let script = result.script_sha256.map(|digest| digest.to_string());
    // No part has a line feed: gates' texts are one line, names of rules and gates are words.
    let parts = [
        finding.gate.as_str(),
        &finding.rule,
        &finding.subject,
        place.as_deref().unwrap_or_default(),
        script.as_deref().unwrap_or_default(),
    ];
    sluice_protocol::digest::Digest::of(parts.join("\n").as_bytes()).to_string()
}

#[cfg(test)]
pub(crate) mod tests {
    use sluice_api_types::operation::OperationResult;
    use sluice_protocol::digest::Digest;
    use sluice_protocol::ending::State;
    use sluice_protocol::ids::{JobId, OperationId};
    use sluice_protocol::receipt::{GateLimits, Receipt, Stage, Whose};
    use sluice_protocol::report::{Confidence, Finding, Mode, Range, Severity};

    use super::fingerprint;

    /// A blocked operation with two findings of two gates.
    pub(crate) fn blocked() -> OperationResult {
        let mut result = OperationResult::pending(
            JobId::generate(),
            OperationId::generate(),
            "default".to_owned(),
            "web-1".to_owned(),
            State::Blocked,
        );
        result.message = Some("Security scan detected potential threat: no".to_owned());
        result.finished_at = Some("2026-11-21T06:00:00.5Z".to_owned());
        result.script_sha256 = Some(Digest::of(b"script"));
        result.bundle_sha256 = Some(Digest::of(b"bundle"));
        result.findings = vec![
            finding("scanner", "download-and-run", Severity::High, Mode::Enforce),
            Finding {
                subject: "environment:A B".to_owned(),
                primary: None,
                line: None,
                column: None,
                remediation: None,
                ..finding("words", "word", Severity::Info, Mode::Monitor)
            },
        ];
        result.receipts = ["scanner", "words"].map(receipt).to_vec();
        result
    }

    fn finding(gate: &str, rule: &str, severity: Severity, mode: Mode) -> Finding {
        Finding {
            rule: rule.to_owned(),
            severity,
            confidence: Confidence::Medium,
            message: "runs what it downloads".to_owned(),
            primary: Some(Range { start: 12, end: 20 }),
            related: vec![Range { start: 30, end: 31 }],
            subject: "script".to_owned(),
            remediation: Some("attach the file".to_owned()),
            attributes: Vec::new(),
            line: Some(2),
            column: Some(1),
            gate: gate.to_owned(),
            mode,
        }
    }

    fn receipt(gate: &str) -> Receipt {
        Receipt {
            whose: Whose::Host,
            stage: Stage::Scan,
            plugin: gate.to_owned(),
            version: "0.2.0".to_owned(),
            component_sha256: Digest::of(gate.as_bytes()),
            settings_sha256: Digest::of(b""),
            data_sha256: Vec::new(),
            contract: "0.1.0".to_owned(),
            runtime: "0.1.0".to_owned(),
            limits: GateLimits {
                fuel: 1,
                memory: 1,
                time_ms: 1,
                answer: 1,
            },
            input_sha256: Digest::of(b""),
            bundle_sha256: Some(Digest::of(b"bundle")),
            verdict_sha256: Digest::of(b""),
            verdict: "findings".to_owned(),
            fuel: 1,
            duration_us: 1,
            cached: false,
            mode: Mode::Enforce,
        }
    }

    #[test]
    fn a_finding_has_its_fingerprint_again_when_the_same_script_is_submitted_again() {
        let (first, mut again) = (blocked(), blocked());
        assert_ne!(first.operation, again.operation);
        let of =
            |result: &OperationResult, index: usize| fingerprint(result, &result.findings[index]);
        assert_eq!(of(&first, 0), of(&again, 0));
        assert_ne!(of(&first, 0), of(&first, 1));
        again.findings[0].primary = Some(Range { start: 13, end: 20 });
        assert_ne!(of(&first, 0), of(&again, 0));
    }
}
