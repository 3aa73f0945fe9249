//! What is fed with arbitrary bytes, as plain functions that panic where a promise is broken. The targets in
//! `fuzz_targets/` are for libFuzzer; a test of the gate runner feeds the same functions with `corpus/` and with mutations of
//! what is known to be right.

use sluice_gate_client::hostile;
use sluice_gate_types::admission::Refused;
use sluice_gate_types::answer::{Answer, CallError};
use sluice_gate_types::input::{Bundle, Job, Question, Script};
use sluice_gate_types::limits::CallLimits;
use sluice_gate_types::manifest::Manifest;
use sluice_plugin_runtime::admission::{MAX_COMPONENT, admit};
use sluice_plugin_runtime::engine::{Allocation, Effort, GateEngine};
use sluice_plugin_runtime::gate::Gate;
use sluice_protocol::ending::one_line;

/// What may be said of a failure, in bytes, whoever causes it.
const MOST_SAID: usize = 64 << 10;

/// Limits of a call that ends soon.
const LITTLE: CallLimits = CallLimits {
    fuel: 2_000_000,
    memory: 8 << 20,
    time_ms: 1_000,
    answer: 1 << 16,
    log_lines: 10,
};

/// Any bytes as a plugin: they are admitted, or refused with a reason.
pub fn admission(bytes: &[u8]) {
    match admit(bytes) {
        Ok(admitted) => {
            assert!(bytes.len() <= MAX_COMPONENT);
            let shown = hostile::said(Ok(admitted.clone())).expect("what is admitted can be shown");
            assert_eq!(shown.manifest, admitted.manifest);
            for name in shown.imports.iter().chain(&shown.exports) {
                is_inert(name);
            }
        }
        Err(Refused(reasons)) => {
            assert!(!reasons.is_empty());
            let told = hostile::said(Err(Refused(reasons)))
                .expect_err("is refused")
                .to_string();
            assert!(!told.is_empty());
            is_inert(&told);
        }
    }
}

/// Any bytes as what a runner sends: an answer that keeps the contract, or an error that can be shown.
pub fn answer(bytes: &[u8]) {
    let (manifest, bundle) = (manifest(), bundle());
    match hostile::answer(bytes, &manifest, &bundle) {
        None => {}
        Some(Err(error)) => is_inert(&error.to_string()),
        Some(Ok(Answer::Findings(findings))) => {
            assert!(findings.len() <= 500);
            for finding in &findings {
                assert!(manifest.rules.iter().any(|rule| rule.id == finding.rule));
                is_inert(&finding.message);
                finding.remediation.iter().for_each(|text| is_inert(text));
                let spans = finding.primary.iter().chain(&finding.related);
                for span in spans {
                    assert!(span.start <= span.end && span.end <= hostile::LONGEST_TEXT);
                }
            }
        }
        Some(Ok(Answer::Checks(checks))) => {
            assert!(checks.len() <= 200);
            for check in &checks {
                is_inert(&check.id);
                is_inert(&check.message);
            }
        }
        Some(Ok(Answer::Decision(decision))) => {
            assert!(decision.reasons.len() <= 200);
            decision
                .reasons
                .iter()
                .for_each(|reason| is_inert(&reason.message));
        }
        Some(Ok(Answer::Prepared(_))) => {}
    }
    match hostile::inspected(bytes) {
        None => {}
        Some(Err(refused)) => is_inert(&refused.to_string()),
        Some(Ok(admitted)) => {
            assert_eq!(admitted.manifest.check(), Ok(()));
            let names = admitted.imports.iter().chain(&admitted.exports);
            names.for_each(|name| is_inert(name));
        }
    }
}

/// Any bytes as a plugin that is called, where admission takes them: it ends, with an answer or an error.
pub fn component(bytes: &[u8]) {
    let Ok(admitted) = admit(bytes) else {
        return;
    };
    let engine = engine();
    let Ok(artifact) = engine.compile(bytes) else {
        return;
    };
    let configure = Some((Vec::new(), Vec::new()));
    let world = admitted.manifest.world;
    let Ok(gate) = Gate::load(
        engine,
        admitted.contract,
        world,
        &artifact,
        LITTLE,
        configure,
    ) else {
        return;
    };
    let called = gate.call(
        engine,
        &Question::Scan {
            bundle: bundle(),
            job: Job::default(),
        },
    );
    assert!(called.fuel <= LITTLE.fuel && called.memory <= LITTLE.memory);
    assert!(called.log.len() <= LITTLE.log_lines as usize);
    if let Err(CallError::Runner(text)) = called.answer {
        panic!("{text}");
    }
}

fn engine() -> &'static GateEngine {
    static ENGINE: std::sync::OnceLock<GateEngine> = std::sync::OnceLock::new();
    ENGINE.get_or_init(|| GateEngine::new(Allocation::OnDemand, Effort::Little).expect("starts"))
}

/// What answers are checked against: a plugin with one rule.
///
/// # Panics
///
/// Never: the text is a manifest.
pub fn manifest() -> Manifest {
    Manifest::parse(
        "id = \"fuzz\"\nversion = \"0.1.0\"\nvendor = \"Sluice\"\nworld = \"scanner-plugin\"\n\
         minimum_runtime = \"0.1.0\"\n[[rules]]\nid = \"r1\"\nname = \"A rule\"\nseverity = \"low\"\n",
    )
    .expect("is a manifest")
}

/// What answers are checked against: a script, and an argument.
pub fn bundle() -> Bundle {
    Bundle {
        script: Script {
            interpreter: "sh".to_owned(),
            flags: Vec::new(),
            language: "shell".to_owned(),
            text: "#!/bin/sh\necho \u{e9}\n".to_owned(),
            sha256: vec![0; 32],
        },
        arguments: vec!["argument".to_owned()],
        environment: Vec::new(),
        attachments: Vec::new(),
        secrets: Vec::new(),
        run_as: "ephemeral".to_owned(),
        limits: Vec::new(),
    }
}

fn is_inert(text: &str) {
    assert_eq!(text, one_line(text));
    assert!(text.len() <= MOST_SAID, "{} bytes", text.len());
}
