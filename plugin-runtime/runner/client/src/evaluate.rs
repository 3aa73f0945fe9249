//! The pipeline: environment and prepare, then scan, then policy. The most restrictive answer wins, and whatever fails
//! blocks.

use std::sync::Arc;

use futures_util::future::{join, join_all};
use sluice_gate_types::answer::{self as a, Answer, CallError, Prepared as Plan, Verdict};
use sluice_gate_types::input::{Attribute, Bundle as SeenBundle, Job, Parameter, Question, Review};
use sluice_gate_types::manifest::World;
use sluice_protocol::bundle::{Bundle, Prepared, Source, Submission, assemble};
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::{Block, Ending};
use sluice_protocol::receipt::Receipt;
use sluice_protocol::report::{Check, Finding, Mode};

use crate::approval::{Approval, Decided, Whose, decide};
use crate::circumstances::Circumstances;
use crate::domain::{self, BoundGate};
use crate::render::render;
use crate::wire::Encoded;
use crate::{check, receipt, translate};

/// What the gates are asked about.
#[derive(Debug, Clone)]
pub struct Input<'a> {
    /// As submitted.
    pub submission: &'a Submission,
    /// As read from it.
    pub source: &'a Source,
    /// What is known about the machine.
    pub facts: Vec<Attribute>,
    /// The circumstances of the job: `operator`, `tenant`, `targets`.
    pub job: Vec<Attribute>,
    /// Contents of attachments by name, where they are UTF-8 and at most 1 MiB.
    pub attachments: Vec<(String, String)>,
    /// Leave out scanners that are not the owner's.
    pub skip_security_scan: bool,
    /// That an operator lets it pass where a policy asks for an approval.
    pub approval: Option<Approval>,
    /// The facts are those of the machine now. Where they are an inventory's, what is unknown is left for the machine.
    pub live_facts: bool,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Evaluation {
    /// Everything that will run, where it came to that.
    pub bundle: Option<(Bundle, Digest)>,
    /// From environment gates.
    pub checks: Vec<Check>,
    /// From scanners.
    pub findings: Vec<Finding>,
    /// One for each call.
    pub receipts: Vec<Receipt>,
    /// What the gates were asked beside the submission, as far as it came.
    pub circumstances: Circumstances,
    /// Remarks for the operator: warnings of a policy, failures of gates in monitor mode.
    pub notes: Vec<String>,
    /// How the operation ends because of a gate; none where every gate let it pass.
    pub ended: Option<Ending>,
}

/// Asks all gates, stage by stage.
#[tracing::instrument(level = "debug", skip_all)]
pub async fn evaluate(gates: &[BoundGate], input: &Input<'_>) -> Evaluation {
    let mut evaluation = Evaluation::default();
    if let Err(ending) = run(gates, input, &mut evaluation).await {
        evaluation.ended = Some(ending);
    }
    evaluation
}

async fn run(
    gates: &[BoundGate],
    input: &Input<'_>,
    evaluation: &mut Evaluation,
) -> Result<(), Ending> {
    let script = translate::source_script(input.source);
    let requires = translate::requirements_of(input.source);
    let parameters = translate::parameters(input.submission, input.source);
    let job = Job {
        attributes: translate::job(input.source, &input.job),
    };

    evaluation.circumstances.facts.clone_from(&input.facts);
    evaluation.circumstances.job.clone_from(&input.job);
    let check = Question::Check {
        script: script.clone(),
        requirements: requires,
        facts: input.facts.clone(),
        job: job.clone(),
    };
    let prepare = Question::Prepare {
        script,
        parameters: parameters.clone(),
        job: job.clone(),
    };
    let (checks, plans) = join(
        stage(gates, World::EnvironmentPlugin, input, &check, None),
        stage(gates, World::PreparerPlugin, input, &prepare, None),
    )
    .await;
    let checks = environment(checks, input.live_facts, evaluation)?;
    evaluation.circumstances.checks.clone_from(&checks);
    let prepared = plan(plans, input, &parameters, evaluation)?;

    let bundle = assemble(input.submission, input.source, prepared);
    let digest = bundle
        .digest()
        .map_err(|error| Ending::Error(error.to_string()))?;
    let seen = translate::bundle(&bundle, &input.attachments);
    evaluation.bundle = Some((bundle, digest));

    let scan = Question::Scan {
        bundle: seen.clone(),
        job: job.clone(),
    };
    let scans = stage(
        gates,
        World::ScannerPlugin,
        input,
        &scan,
        Some((&seen, digest)),
    )
    .await;
    let enforced = findings(scans, &seen, evaluation)?;
    evaluation.circumstances.findings.clone_from(&enforced);

    let review = Review {
        bundle: seen.clone(),
        parameters,
        facts: input.facts.clone(),
        checks,
        findings: enforced,
        job,
    };
    let decide = Question::Decide(Box::new(review));
    let decisions = stage(
        gates,
        World::PolicyPlugin,
        input,
        &decide,
        Some((&seen, digest)),
    )
    .await;
    policy(decisions, input.approval.as_ref(), digest, evaluation)
}

/// One gate's answer, checked, and the receipt for the call.
struct Answered<'a> {
    gate: &'a BoundGate,
    answer: Result<Answer, CallError>,
    receipt: Receipt,
}

/// Asks all gates of one stage at once.
#[tracing::instrument(level = "debug", skip_all)]
async fn stage<'a>(
    gates: &'a [BoundGate],
    world: World,
    input: &Input<'_>,
    question: &Question,
    bundle: Option<(&SeenBundle, Digest)>,
) -> Vec<Answered<'a>> {
    let skipped = |gate: &BoundGate| {
        world == World::ScannerPlugin && input.skip_security_scan && !gate.is_owners()
    };
    let encoded = Encoded::new(question).map_err(|error| CallError::Runner(error.to_string()));
    let encoded = &encoded;
    join_all(
        gates
            .iter()
            .filter(|gate| gate.world() == world && !skipped(gate))
            .map(|gate| async move {
                let answered = match encoded {
                    Ok(question) => gate.ask(question).await,
                    Err(error) => Arc::new(domain::Answered::failed(error.clone())),
                };
                let called = &answered.called;
                for line in &called.log {
                    tracing::debug!(
                        gate = gate.manifest().id,
                        line = sluice_protocol::ending::one_line(line),
                        "gate log"
                    );
                }
                let bundle_seen = bundle.map(|(seen, _)| seen);
                let answer = check::check(called.answer.clone(), gate.manifest(), bundle_seen);
                let question_sha256 = encoded.as_ref().map_or([0; 32], |question| question.sha256);
                let digest = bundle.map(|(_, digest)| digest);
                let receipt = receipt::of(gate, question_sha256, &answered, &answer, digest);
                Answered {
                    gate,
                    answer,
                    receipt,
                }
            }),
    )
    .await
}

/// The answers of a stage; one that is missing blocks where its gate enforces, and is noted where it monitors.
fn answers<'a>(
    answered: Vec<Answered<'a>>,
    evaluation: &mut Evaluation,
) -> Result<Vec<(&'a BoundGate, Answer)>, Ending> {
    let mut failed = None;
    let mut answers = Vec::new();
    for Answered {
        gate,
        answer,
        receipt,
    } in answered
    {
        evaluation.receipts.push(receipt);
        let id = gate.manifest().id.clone();
        match answer {
            Ok(answer) => answers.push((gate, answer)),
            Err(error) if gate.mode() == Mode::Monitor => {
                evaluation.notes.push(format!(
                    "the gate {id}, which only monitors, gave no answer: {error}"
                ));
            }
            Err(error) => {
                failed.get_or_insert(Ending::Blocked(Block {
                    by: id,
                    reason: format!("the gate gave no answer, so nothing was started: {error}"),
                    code: Some("gate-error".to_owned()),
                }));
            }
        }
    }
    failed.map_or(Ok(answers), Err)
}

/// Records all checks; returns those of enforcing gates, which a policy sees.
fn environment(
    answered: Vec<Answered<'_>>,
    live_facts: bool,
    evaluation: &mut Evaluation,
) -> Result<Vec<a::Check>, Ending> {
    let answers = answers(answered, evaluation)?;
    let (mut enforced, mut unmet) = (Vec::new(), Vec::new());
    for (gate, answer) in answers {
        let Answer::Checks(checks) = answer else {
            continue;
        };
        for check in checks {
            if check.status == a::CheckStatus::Unknown && !live_facts {
                continue;
            }
            if gate.mode() == Mode::Enforce {
                enforced.push(check.clone());
                if check.status != a::CheckStatus::Met {
                    unmet.push(check.message.clone());
                }
            }
            evaluation
                .checks
                .push(translate::check(check, &gate.manifest().id));
        }
    }
    if unmet.is_empty() {
        Ok(enforced)
    } else {
        Err(Ending::Unsupported(check::told(&unmet)))
    }
}

fn plan(
    answered: Vec<Answered<'_>>,
    input: &Input<'_>,
    parameters: &[Parameter],
    evaluation: &mut Evaluation,
) -> Result<Prepared, Ending> {
    let refuse = |reason: String| {
        Err(Ending::Blocked(Block {
            by: "parameters".to_owned(),
            reason,
            code: None,
        }))
    };
    let mut plan: Vec<a::Planned> = Vec::new();
    let mut prepared = false;
    for (gate, answer) in answers(answered, evaluation)? {
        if gate.mode() == Mode::Monitor {
            continue;
        }
        prepared = true;
        match answer {
            Answer::Prepared(Plan::Refused(problems)) => {
                let reasons: Vec<_> = problems
                    .iter()
                    .map(|problem| format!("{}: {}", problem.parameter, problem.message))
                    .collect();
                return refuse(check::told(&reasons));
            }
            Answer::Prepared(Plan::Planned(values)) => {
                for planned in values {
                    match plan.iter().find(|other| other.name == planned.name) {
                        None => plan.push(planned),
                        Some(other) if *other == planned => {}
                        Some(_) => {
                            return refuse(format!(
                                "two preparers disagree about {}",
                                planned.name
                            ));
                        }
                    }
                }
            }
            _ => {}
        }
    }
    if !prepared && !parameters.is_empty() {
        return refuse("no gate for the stage prepare is bound, and parameters reach a script only through one".to_owned());
    }
    let rendered = render(input.source, &input.submission.parameters, &plan);
    evaluation.circumstances.plan = plan;
    rendered.or_else(refuse)
}

/// Records all findings; returns those of enforcing scanners, which a policy sees.
fn findings(
    answered: Vec<Answered<'_>>,
    seen: &SeenBundle,
    evaluation: &mut Evaluation,
) -> Result<Vec<a::Finding>, Ending> {
    let mut enforced = Vec::new();
    for (gate, answer) in answers(answered, evaluation)? {
        let Answer::Findings(findings) = answer else {
            continue;
        };
        for finding in findings {
            if gate.mode() == Mode::Enforce {
                enforced.push(finding.clone());
            }
            let place = check::place_of(seen, &finding);
            evaluation.findings.push(translate::finding(
                finding,
                &gate.manifest().id,
                gate.mode(),
                place,
            ));
        }
    }
    Ok(enforced)
}

fn policy(
    answered: Vec<Answered<'_>>,
    approval: Option<&Approval>,
    bundle_sha256: Digest,
    evaluation: &mut Evaluation,
) -> Result<(), Ending> {
    let mut enforced = Vec::new();
    for (gate, answer) in answers(answered, evaluation)? {
        let Answer::Decision(decision) = answer else {
            continue;
        };
        let id = &gate.manifest().id;
        if gate.mode() == Mode::Monitor {
            if decision.verdict > Verdict::AllowWithWarnings {
                evaluation.notes.push(format!(
                    "the gate {id}, which only monitors, would have said: {}",
                    reasons(&decision)
                ));
            }
            continue;
        }
        enforced.push(Decided {
            gate: id.clone(),
            whose: if gate.is_owners() {
                Whose::Owner
            } else {
                Whose::Host
            },
            decision,
        });
    }
    decide(enforced, approval, bundle_sha256, &mut evaluation.notes)
}

pub(crate) fn reasons(decision: &a::Decision) -> String {
    match decision.reasons.as_slice() {
        [] => "no reason given".to_owned(),
        reasons => {
            let messages: Vec<_> = reasons
                .iter()
                .map(|reason| reason.message.clone())
                .collect();
            check::told(&messages)
        }
    }
}
