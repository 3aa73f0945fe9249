//! The receipt for a call of a gate.

use sluice_gate_types::answer::{self as a, Answer, CallError, Prepared, Verdict};
use sluice_gate_types::manifest::World;
use sluice_protocol::digest::Digest;
use sluice_protocol::receipt::{Receipt, Stage, Whose};

use crate::domain::{Answered, BoundGate};

pub(crate) fn of(
    gate: &BoundGate,
    question_sha256: [u8; 32],
    answered: &Answered,
    answer: &Result<Answer, CallError>,
    bundle_sha256: Option<Digest>,
) -> Receipt {
    Receipt {
        whose: if gate.is_owners() {
            Whose::Owner
        } else {
            Whose::Host
        },
        stage: stage(gate.world()),
        plugin: gate.manifest().id.clone(),
        version: gate.manifest().version.to_string(),
        component_sha256: Digest::from_bytes(gate.component_sha256()),
        settings_sha256: Digest::from_bytes(gate.settings_sha256()),
        data_sha256: Vec::new(),
        contract: gate.contract().version().to_owned(),
        runtime: gate.runtime().to_owned(),
        limits: gate.limits(),
        bundle_sha256,
        input_sha256: Digest::from_bytes(question_sha256),
        verdict_sha256: Digest::from_bytes(answered.verdict_sha256),
        verdict: verdict(answer).to_owned(),
        fuel: answered.called.fuel,
        duration_us: answered.called.duration_us,
        cached: answered.cached,
        mode: gate.mode(),
    }
}

/// The stage that gates of a world are asked in.
const fn stage(world: World) -> Stage {
    match world {
        World::EnvironmentPlugin => Stage::Environment,
        World::PreparerPlugin => Stage::Prepare,
        World::ScannerPlugin => Stage::Scan,
        World::PolicyPlugin => Stage::Policy,
    }
}

/// What an answer comes to, in a word.
pub(crate) fn verdict(answer: &Result<Answer, CallError>) -> &'static str {
    match answer {
        Err(_) => "error",
        Ok(Answer::Checks(checks))
            if checks
                .iter()
                .all(|check| check.status == a::CheckStatus::Met) =>
        {
            "pass"
        }
        Ok(Answer::Checks(_)) => "unmet",
        Ok(Answer::Prepared(Prepared::Planned(_))) => "pass",
        Ok(Answer::Prepared(Prepared::Refused(_))) => "refused",
        Ok(Answer::Findings(findings)) if findings.is_empty() => "pass",
        Ok(Answer::Findings(_)) => "findings",
        Ok(Answer::Decision(decision)) => match decision.verdict {
            Verdict::Allow => "pass",
            Verdict::AllowWithWarnings => "warnings",
            Verdict::RequireApproval => "require-approval",
            Verdict::Block => "block",
        },
    }
}
