//! Plugins that were compiled for released versions of the contract are still taken, and answer as they did. The files in
//! `tests/fixtures/` are never built again: what they need, this runtime has to have.

use std::path::{Path, PathBuf};

use sluice_gate_client::trial::{self, Trial, TriedAnswer};
use sluice_gate_client::{BindRequest, BoundGate, Component, GateDomain};
use sluice_gate_types::answer::{
    Check, CheckStatus, Confidence, Destination, Finding, Planned, Prepared, Severity, Verdict,
};
use sluice_gate_types::contract::Contract;
use sluice_gate_types::input::{Attribute, Origin, Value};
use sluice_protocol::bundle::{Source, Submission, Variable};
use sluice_protocol::report::Mode;
use tempfile::TempDir;

use crate::domain::{ALONE, domain};

const SCRIPT: &str = "#!/bin/bash
# /// sluice
# [parameters.count]
# type = \"integer\"
# required = true
# [requires]
# os = [\"linux\"]
# commands = [\"git\"]
# ///
echo \"$SLUICE_PARAM_COUNT\"
";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/gate-0.1.0")
        .join(format!("{name}.wasm"))
}

async fn bound(name: &str) -> (TempDir, GateDomain, BoundGate) {
    let (folder, domain) = domain(0);
    let request = BindRequest {
        component: Component::open(&fixture(name)).expect("is there"),
        settings: vec![],
        mode: Mode::Enforce,
        owner: false,
    };
    let gate = domain.bind(request).await;
    let gate = gate.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(gate.contract(), Contract::V0_1);
    assert_eq!(gate.not_snapshotted(), None, "{name}");
    (folder, domain, gate)
}

fn trial() -> Trial {
    let submission = Submission {
        parameters: vec![Variable {
            name: "count".to_owned(),
            value: "007".to_owned(),
        }],
        ..Submission::of(SCRIPT)
    };
    let source = Source::read(&submission).expect("reads");
    let fact = |key: &str, value| Attribute::new(key, value, Origin::Machine);
    Trial {
        submission,
        source,
        arguments: vec![],
        attachments: vec![],
        facts: vec![fact("os.family", Value::Text("linux".to_owned()))],
        job: vec![],
        checks: vec![],
        findings: vec![],
    }
}

async fn answer(gate: &BoundGate, trial: &Trial) -> TriedAnswer {
    let tried = trial::ask(gate, trial).await;
    assert!(tried.fuel > 0);
    tried.answer.unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_gate_of_0_1_0_answers_as_it_did() {
    let _alone = ALONE.lock().await;
    let (_folder, _domain, gate) = bound("environment").await;
    let TriedAnswer::Checks(checks) = answer(&gate, &trial()).await else {
        panic!("it answers something else");
    };
    let seen: Vec<_> = checks
        .iter()
        .map(|Check { id, status, .. }| (id.as_str(), *status))
        .collect();
    let expected = [("os", CheckStatus::Met), ("commands", CheckStatus::Unknown)];
    assert_eq!(seen, expected, "{checks:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preparer_of_0_1_0_answers_as_it_did() {
    let _alone = ALONE.lock().await;
    let (_folder, _domain, gate) = bound("parameters").await;
    let planned = Planned {
        name: "count".to_owned(),
        value: Value::Integer(7),
        destination: Destination::Environment,
    };
    assert_eq!(
        answer(&gate, &trial()).await,
        TriedAnswer::Prepared(Prepared::Planned(vec![planned]))
    );
    let mut other = trial();
    other.submission.parameters[0].value = "seven".to_owned();
    let TriedAnswer::Prepared(Prepared::Refused(problems)) = answer(&gate, &other).await else {
        panic!("it takes another type");
    };
    assert_eq!(problems[0].parameter, "count");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scanner_of_0_1_0_answers_as_it_did() {
    let _alone = ALONE.lock().await;
    let (_folder, _domain, gate) = bound("scanner").await;
    let TriedAnswer::Findings(findings) = answer(&gate, &trial()).await else {
        panic!("it answers something else");
    };
    let found: Vec<_> = findings
        .iter()
        .map(|finding| {
            (
                finding.rule.as_str(),
                finding.message.as_str(),
                finding.line,
            )
        })
        .collect();
    assert_eq!(found, [("r1", "honest", Some(1))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_of_0_1_0_answers_as_it_did() {
    let _alone = ALONE.lock().await;
    let (_folder, _domain, gate) = bound("policy").await;
    for (severity, verdict) in [
        (None, Verdict::Allow),
        (Some(Severity::Critical), Verdict::Block),
    ] {
        let mut trial = trial();
        trial.findings = Vec::from_iter(severity.map(|severity| Finding {
            rule: "r1".to_owned(),
            severity,
            confidence: Confidence::High,
            message: "a finding".to_owned(),
            primary: None,
            related: vec![],
            subject: "script".to_owned(),
            remediation: None,
            attributes: vec![],
        }));
        let TriedAnswer::Decision(decision) = answer(&gate, &trial).await else {
            panic!("it answers something else");
        };
        assert_eq!(decision.verdict, verdict, "{decision:?}");
        assert_eq!(decision.reasons.is_empty(), severity.is_none());
    }
}
