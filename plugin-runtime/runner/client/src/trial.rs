//! One question to one gate, with what the answer cost: for those who write gates and want to see them work.
//!
//! The question is made as [`evaluate`](crate::evaluate()) makes it, the answer is held to the same contract, and the limits
//! are those of production. What differs: stages before this gate's are not asked but given, and nothing is taken from
//! memory, so that each call is a call.

use sluice_gate_types::answer::{self as a, Answer, CallError, Verdict};
use sluice_gate_types::input::{Attribute, Job, Question, Review};
use sluice_gate_types::manifest::World;
use sluice_protocol::bundle::{Prepared, Source, Submission, assemble};
use sluice_protocol::report::Finding;

use crate::domain::BoundGate;
use crate::wire::Encoded;
use crate::{check, translate};

/// What a gate is tried on.
#[derive(Debug, Clone)]
pub struct Trial {
    /// As submitted.
    pub submission: Submission,
    /// As read from it.
    pub source: Source,
    /// What preparers would have planned as arguments.
    pub arguments: Vec<String>,
    /// Contents of attachments by name.
    pub attachments: Vec<(String, String)>,
    /// What is known about the machine.
    pub facts: Vec<Attribute>,
    /// The circumstances of the job.
    pub job: Vec<Attribute>,
    /// What environment gates would have said, for a policy.
    pub checks: Vec<a::Check>,
    /// What scanners would have found, for a policy.
    pub findings: Vec<a::Finding>,
}

/// What a gate made of it.
#[derive(Debug)]
pub struct Tried {
    /// The answer where it keeps the contract, or what would block the operation.
    pub answer: Result<TriedAnswer, CallError>,
    /// Fuel that was burned.
    pub fuel: u64,
    /// The most bytes of memories and tables that there were at once.
    pub memory: u64,
    /// Microseconds inside the runner.
    pub duration_us: u64,
    /// What the guest logged, unescaped.
    pub log: Vec<String>,
}

/// An answer, by stage.
#[derive(Debug, Clone, PartialEq)]
pub enum TriedAnswer {
    /// Of an environment gate.
    Checks(Vec<a::Check>),
    /// Of a preparer.
    Prepared(a::Prepared),
    /// Of a scanner, with line and column.
    Findings(Vec<Finding>),
    /// Of a policy.
    Decision(a::Decision),
}

impl TriedAnswer {
    /// In a word, as receipts have it.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match self {
            Self::Checks(checks)
                if checks
                    .iter()
                    .all(|check| check.status == a::CheckStatus::Met) =>
            {
                "pass"
            }
            Self::Checks(_) => "unmet",
            Self::Prepared(a::Prepared::Planned(_)) => "pass",
            Self::Prepared(a::Prepared::Refused(_)) => "refused",
            Self::Findings(findings) if findings.is_empty() => "pass",
            Self::Findings(_) => "findings",
            Self::Decision(decision) => match decision.verdict {
                Verdict::Allow => "allow",
                Verdict::AllowWithWarnings => "allow-with-warnings",
                Verdict::RequireApproval => "require-approval",
                Verdict::Block => "block",
            },
        }
    }
}

/// Asks `gate` about `trial`.
pub async fn ask(gate: &BoundGate, trial: &Trial) -> Tried {
    let prepared = Prepared {
        arguments: trial.arguments.clone(),
        ..Prepared::default()
    };
    let bundle = translate::bundle(
        &assemble(&trial.submission, &trial.source, prepared),
        &trial.attachments,
    );
    let question = question(gate.world(), trial, &bundle);
    let encoded = match Encoded::new(&question) {
        Ok(encoded) => encoded,
        Err(error) => {
            return Tried {
                answer: Err(CallError::Runner(error.to_string())),
                fuel: 0,
                memory: 0,
                duration_us: 0,
                log: Vec::new(),
            };
        }
    };
    let called = gate.call(&encoded).await;
    let answer =
        check::check(called.answer, gate.manifest(), Some(&bundle)).map(|answer| match answer {
            Answer::Checks(checks) => TriedAnswer::Checks(checks),
            Answer::Prepared(prepared) => TriedAnswer::Prepared(prepared),
            Answer::Decision(decision) => TriedAnswer::Decision(decision),
            Answer::Findings(findings) => TriedAnswer::Findings(
                findings
                    .into_iter()
                    .map(|finding| {
                        let place = check::place_of(&bundle, &finding);
                        translate::finding(finding, &gate.manifest().id, gate.mode(), place)
                    })
                    .collect(),
            ),
        });
    Tried {
        answer,
        fuel: called.fuel,
        memory: called.memory,
        duration_us: called.duration_us,
        log: called.log,
    }
}

/// The question to a gate of this world.
pub(crate) fn question(
    world: World,
    trial: &Trial,
    bundle: &sluice_gate_types::input::Bundle,
) -> Question {
    let job = Job {
        attributes: translate::job(&trial.source, &trial.job),
    };
    match world {
        World::EnvironmentPlugin => Question::Check {
            script: translate::source_script(&trial.source),
            requirements: translate::requirements_of(&trial.source),
            facts: trial.facts.clone(),
            job,
        },
        World::PreparerPlugin => Question::Prepare {
            script: translate::source_script(&trial.source),
            parameters: translate::parameters(&trial.submission, &trial.source),
            job,
        },
        World::ScannerPlugin => Question::Scan {
            bundle: bundle.clone(),
            job,
        },
        World::PolicyPlugin => Question::Decide(Box::new(Review {
            bundle: bundle.clone(),
            parameters: translate::parameters(&trial.submission, &trial.source),
            facts: trial.facts.clone(),
            checks: trial.checks.clone(),
            findings: trial.findings.clone(),
            job,
        })),
    }
}
