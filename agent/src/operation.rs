//! The story of one operation on a machine.
//!
//! ```text
//! accept (ledger, fsync) -> owner's policy -> fetch blobs -> environment -> prepare -> scan -> policy gates
//!     -> start (ledger, fsync, then exec) -> stream -> finish (ledger) -> report until acknowledged
//! ```
//!
//! Until `start` nothing is written for the script and no process exists; after it the answer is `interrupted` unless the
//! shim knows better.

use std::sync::Arc;

use sluice_gate_client::{Evaluation, Input, evaluate, fact};
use sluice_gate_types::input::{Attribute, Origin, Value};
use sluice_protocol::bundle::{Bundle, Compatibility, Source};
use sluice_protocol::codec;
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::{Block, Ending, Signal};
use sluice_protocol::message::StreamKind;
use sluice_protocol::message::control::Identity;
use sluice_protocol::message::operation::{Operation, Progress};
use sluice_protocol::report::{Context, Exit, LimitHit, Report};
use sluice_protocol::script::Requirements;
use sluice_protocol::units::Span;
use sluice_shim::event::{self, End, Event, Stage};
use sluice_shim::spec::{self, Spec};
use tokio::sync::watch;

use crate::config::Config;
use crate::exec::environment::{self, Locale, Names};
use crate::exec::spawn::Operation as Running;
use crate::exec::spool::FollowError;
use crate::facts;
use crate::gates::now;
use crate::journal::{Journal, Offsets};
use crate::policy::{Permitted, permit};
use crate::supervisor::Agent;

/// Who canceled an operation, once somebody has.
pub type Canceled = watch::Receiver<Option<String>>;

/// Takes an accepted operation to its report. Whatever happens there is one.
pub async fn run(
    agent: &Arc<Agent>,
    operation: &Operation,
    journal: &Journal,
    canceled: Canceled,
) -> Report {
    let mut evaluation = Evaluation::default();
    let mut notes = Vec::new();
    let result = check_and_run(
        agent,
        operation,
        journal,
        canceled,
        &mut evaluation,
        &mut notes,
    )
    .await;
    let mut report = result.unwrap_or_else(|ending| Report::without_process(ending, now()));
    report.bundle_sha256 = evaluation.bundle.as_ref().map(|(_, digest)| *digest);
    report.findings = evaluation.findings;
    report.checks = evaluation.checks;
    report.receipts = evaluation.receipts;
    notes.append(&mut evaluation.notes);
    notes.append(&mut report.notes);
    report.notes = notes;
    fit(&mut report);
    report
}

/// Shortens what gates said until the report fits into a message. What was left out is noted.
fn fit(report: &mut Report) {
    const LARGEST: usize = StreamKind::Progress.max_frame() / 2;
    let found = report.findings.len();
    while codec::encode(report).is_ok_and(|bytes| bytes.len() > LARGEST)
        && !report.findings.is_empty()
    {
        report.findings.truncate(report.findings.len() / 2);
    }
    if report.findings.len() < found {
        report.notes.push(format!(
            "{} of {found} findings are left out, because the report would be too large",
            found - report.findings.len()
        ));
    }
}

async fn check_and_run(
    agent: &Arc<Agent>,
    operation: &Operation,
    journal: &Journal,
    mut canceled: Canceled,
    evaluation: &mut Evaluation,
    notes: &mut Vec<String>,
) -> Result<Report, Ending> {
    let ready = async {
        let slot = agent.slot().await;
        journal.push(Progress::Checking);
        check(agent, operation, evaluation, notes)
            .await
            .map(|ready| (slot, ready))
    };
    let (_slot, ready) = tokio::select! {
        ready = ready => ready?,
        by = somebody(&mut canceled) => return Err(Ending::Canceled(by)),
        () = past(operation.not_after) => return Err(Ending::Expired),
    };
    let Ready {
        spec,
        digest,
        run_as,
    } = ready;
    if now() > operation.not_after {
        return Err(Ending::Expired);
    }
    agent
        .ledger
        .start(operation.operation, digest, &run_as, now())
        .await
        .map_err(|error| Ending::Error(error.to_string()))?;
    let running = agent
        .launcher
        .start(&spec)
        .await
        .map_err(|error| Ending::Error(error.to_string()))?;
    agent.prepare_spare();
    Ok(follow(
        Events::Live(Box::new(running)),
        journal,
        canceled,
        spec.limits.time,
        &run_as,
    )
    .await)
}

/// What every gate let pass, ready to be started.
struct Ready {
    spec: Spec,
    digest: Digest,
    run_as: String,
}

/// Everything that comes before the start. Nothing is written for the script here, and no process of it exists.
#[tracing::instrument(level = "debug", skip_all)]
async fn check(
    agent: &Arc<Agent>,
    operation: &Operation,
    evaluation: &mut Evaluation,
    notes: &mut Vec<String>,
) -> Result<Ready, Ending> {
    let config = agent.config();
    let source =
        Source::read(&operation.submission).map_err(|error| Ending::Error(error.to_string()))?;
    notes.extend(source.text.notes().map(str::to_owned));

    let permitted = owners_policy(operation, &source, &config).await?;
    let texts = fetch_attachments(agent, operation).await?;
    let gates = agent
        .gates
        .for_operation(
            operation.gates_revision,
            &config,
            operation.skip_security_scan,
        )
        .await?;
    let facts = gather_facts(&source, &permitted, &config).await;
    let input = Input {
        submission: &operation.submission,
        source: &source,
        facts,
        job: job_attributes(operation, &agent.identity()),
        attachments: texts,
        skip_security_scan: operation.skip_security_scan,
        live_facts: true,
    };
    *evaluation = evaluate(&gates, &input).await;
    if let Some(ending) = evaluation.ended.take() {
        return Err(ending);
    }
    let Some((bundle, digest)) = &evaluation.bundle else {
        return Err(Ending::Error("the gates gave no bundle".to_owned()));
    };
    if *digest != operation.bundle_sha256 {
        return Err(Ending::Blocked(Block::machine_policy(
            "what would run here is not what the host checked (another bundle_sha256); are other preparers bound there?",
        )));
    }
    let spec = spec(agent, operation, bundle, &permitted, &config);
    // The same bytes that the gates saw: checked once more, over what is handed to the shim.
    verify(bundle, *digest, &spec)?;
    Ok(Ready {
        spec,
        digest: *digest,
        run_as: permitted.user.name().to_owned(),
    })
}

/// Waits until a time by the wall clock, in milliseconds since 1970.
async fn past(time: u64) {
    while now() <= time {
        let left = std::time::Duration::from_millis((time - now().min(time)).clamp(1, 60_000));
        tokio::time::sleep(left).await;
    }
}

/// Takes up an operation that an earlier agent started: its shim may still be running, or its spool tells the end.
pub async fn adopt(
    agent: &Arc<Agent>,
    operation: &Operation,
    journal: &Journal,
    canceled: Canceled,
) -> Report {
    let follower = crate::exec::spool::adopt(&agent.spool(operation.operation));
    let time = operation.submission.limits.time.map_or_else(
        || agent.config().limits.time.as_duration(),
        Span::as_duration,
    );
    let run_as = operation
        .submission
        .run_as
        .clone()
        .unwrap_or_else(|| agent.config().run_as.default.clone());
    let source = Events::Adopted(Box::new(follower), agent.spool(operation.operation));
    let mut report = follow(source, journal, canceled, time, &run_as).await;
    report.bundle_sha256 = Some(operation.bundle_sha256);
    report
        .notes
        .push("the agent was restarted while this ran".to_owned());
    report
}

#[tracing::instrument(level = "debug", skip_all)]
async fn owners_policy(
    operation: &Operation,
    source: &Source,
    config: &Arc<Config>,
) -> Result<Permitted, Ending> {
    let (operation, source, config) = (operation.clone(), source.clone(), Arc::clone(config));
    tokio::task::spawn_blocking(move || permit(&operation, &source, &config))
        .await
        .map_err(|error| Ending::Error(format!("the owner's policy could not be asked: {error}")))?
}

async fn fetch_attachments(
    agent: &Agent,
    operation: &Operation,
) -> Result<Vec<(String, String)>, Ending> {
    let failed = |name: &str, error: &dyn std::fmt::Display| {
        Ending::Error(format!(
            "the attachment {name} could not be fetched: {error}"
        ))
    };
    for attachment in &operation.submission.attachments {
        let connection = agent.connection().await;
        let fetched = agent
            .blobs
            .ensure(&connection, attachment.sha256, attachment.size)
            .await;
        fetched.map_err(|error| failed(&attachment.name, &error))?;
    }
    agent
        .blobs
        .texts(&operation.submission.attachments)
        .await
        .map_err(|error| failed("(all)", &error))
}

#[tracing::instrument(level = "debug", skip_all)]
async fn gather_facts(source: &Source, permitted: &Permitted, config: &Config) -> Vec<Attribute> {
    let requires = source
        .header
        .as_ref()
        .map(|header| header.requires.clone())
        .unwrap_or_default();
    let wants_version = requires.interpreter.is_some();
    let mut facts = facts_of(requires, config.script_tempdir.clone()).await;
    facts.push(facts::text("interpreter.name", source.interpreter.name()));
    facts.push(facts::text("run-as", permitted.user.name()));
    if wants_version
        && let Some(version) = crate::exec::interpreter::version(&permitted.interpreter).await
    {
        facts.push(facts::text("interpreter.version", version));
    }
    facts
        .into_iter()
        .map(|found| fact(found, Origin::Machine))
        .collect()
}

async fn facts_of(
    requires: Requirements,
    workspace: std::path::PathBuf,
) -> Vec<sluice_protocol::message::control::Fact> {
    tokio::task::spawn_blocking(move || facts::live(&requires, &workspace))
        .await
        .unwrap_or_default()
}

/// What gates learn of the job. The host says all of it.
fn job_attributes(operation: &Operation, identity: &Identity) -> Vec<Attribute> {
    let claim = |key: &str, value| Attribute::new(key, value, Origin::HostClaim);
    vec![
        claim("tenant", Value::Text(identity.tenant.clone())),
        claim("operator", Value::Text(operation.operator.clone())),
        claim(
            "targets",
            Value::Integer(i64::try_from(operation.targets).unwrap_or(i64::MAX)),
        ),
    ]
}

fn spec(
    agent: &Agent,
    operation: &Operation,
    bundle: &Bundle,
    permitted: &Permitted,
    config: &Config,
) -> Spec {
    let identity = agent.identity();
    let names = match operation.submission.compatibility {
        Compatibility::None => Names::Sluice,
        Compatibility::Landscape => Names::SluiceAndLandscape,
    };
    let given = environment::Identity {
        tenant: identity.tenant,
        machine_id: agent.machine.machine.to_string(),
        machine_name: identity.name,
        machine_tags: identity.tags,
        url: identity.url,
        job_id: operation.job.to_string(),
        operation_id: operation.operation.to_string(),
        operator: operation.operator.clone(),
        submitted_at: operation.submitted_at.clone(),
    };
    let job: Vec<_> = bundle
        .environment
        .iter()
        .map(|variable| spec::Variable {
            name: variable.name.clone(),
            value: variable.value.clone(),
        })
        .collect();
    let files = bundle
        .attachments
        .iter()
        .map(|attachment| spec::Attachment {
            name: attachment.name.clone(),
            content: spec::Content::File(agent.blobs.path(attachment.sha256)),
        });
    Spec {
        operation: operation.operation.to_string(),
        spool: agent.spool(operation.operation),
        workspace_base: agent.workspace_base(config),
        interpreter: permitted.interpreter.path.clone(),
        flags: permitted.interpreter.flags.clone(),
        script: spec::Script {
            name: permitted.interpreter.script_name.to_owned(),
            bytes: bundle.script.clone().into_bytes().into(),
        },
        arguments: bundle.arguments.clone(),
        environment: environment::compose(
            &permitted.user,
            &Locale::of_this_process(),
            &job,
            &given,
            names,
        ),
        user: permitted.user.to_spec(),
        attachments: spec::Attachments {
            variables: environment::attachment_names(names),
            files: files.collect(),
        },
        secrets: Vec::new(),
        limits: permitted.limits.clone(),
        no_new_privs: config.run_as.no_new_privs,
    }
}

/// The digest once more, over the bundle with the script that the shim gets.
fn verify(bundle: &Bundle, digest: Digest, spec: &Spec) -> Result<(), Ending> {
    let changed = || {
        Ending::Error(
            "what would run differs from what the gates saw; nothing was started".to_owned(),
        )
    };
    let script = String::from_utf8(spec.script.bytes.to_vec()).map_err(|_| changed())?;
    let handed = Bundle {
        script,
        arguments: spec.arguments.clone(),
        ..bundle.clone()
    };
    match handed.digest() {
        Ok(again) if again == digest => Ok(()),
        _ => Err(changed()),
    }
}

/// Where events come from: a shim that we started, or the spool of one that an earlier agent did.
enum Events {
    Live(Box<Running>),
    Adopted(Box<crate::exec::spool::Follower>, std::path::PathBuf),
}

impl Events {
    async fn next(&mut self) -> Result<Option<Event>, FollowError> {
        match self {
            Self::Live(running) => running.next().await,
            Self::Adopted(follower, _) => follower.next().await,
        }
    }

    fn cancel(&self) {
        match self {
            Self::Live(running) => running.cancel(),
            Self::Adopted(_, spool) => {
                if let Err(error) = crate::exec::spool::cancel(spool) {
                    tracing::warn!(%error, "an operation could not be canceled");
                }
            }
        }
    }
}

/// Follows the shim's events to the last and makes the report of them.
#[tracing::instrument(level = "debug", skip_all)]
async fn follow(
    mut source: Events,
    journal: &Journal,
    mut canceled: Canceled,
    limit: std::time::Duration,
    run_as: &str,
) -> Report {
    let mut report = Report::without_process(Ending::Interrupted, now());
    let mut offsets = Offsets::default();
    let mut asked: Option<String> = None;
    loop {
        let event = tokio::select! {
            event = source.next() => event,
            by = somebody(&mut canceled), if asked.is_none() => {
                source.cancel();
                asked = Some(by);
                continue;
            }
        };
        match event {
            Ok(Some(event)) => {
                for chunk in offsets.take(&event) {
                    journal.push(Progress::Output(chunk));
                }
                take_event(&mut report, event, journal, asked.as_deref(), limit, run_as);
            }
            Ok(None) => break,
            Err(FollowError::Interrupted { notes }) => {
                report.notes.extend(notes);
                break;
            }
            Err(error) => {
                report.notes.push(error.to_string());
                break;
            }
        }
    }
    (report.stdout, report.stderr) = offsets.ends();
    report.finished_at = report.finished_at.max(now());
    report
}

fn take_event(
    report: &mut Report,
    event: Event,
    journal: &Journal,
    canceled_by: Option<&str>,
    limit: std::time::Duration,
    run_as: &str,
) {
    match event {
        Event::Started(started) => {
            report.started_at = Some(started.at.0);
            report.run_as = Some(run_as.to_owned());
            report.context = Some(Context {
                uid: started.uid,
                gids: started.gids,
                cwd: started.cwd.to_string_lossy().into_owned(),
                interpreter: started.interpreter.to_string_lossy().into_owned(),
            });
            report.containment = Some(started.containment.to_string());
            report.confinement = Some(confinement(started.confinement));
            journal.push(Progress::Running {
                started_at: started.at.0,
            });
        }
        Event::Note { text } => report.notes.push(text),
        Event::Exited(outcome) => take_outcome(report, outcome, canceled_by, limit),
        Event::Failed { stage, reason } => {
            report.started_at = None;
            report.ending = match (stage, canceled_by) {
                (Stage::Canceled, by) => Ending::Canceled(by.unwrap_or("the agent").to_owned()),
                (Stage::User, _) => Ending::Blocked(Block::machine_policy(reason)),
                (_, _) => Ending::Error(reason),
            };
        }
        Event::Prepared(_) | Event::Output { .. } | Event::Lost { .. } => {}
    }
}

fn take_outcome(
    report: &mut Report,
    outcome: event::Outcome,
    canceled_by: Option<&str>,
    limit: std::time::Duration,
) {
    report.finished_at = outcome.at.0;
    report.duration_ms = Some(u64::try_from(outcome.duration.as_millis()).unwrap_or(u64::MAX));
    report.survivors_killed = outcome.survivors_killed;
    report.limit_hit = outcome.limit_hit.map(|hit| match hit {
        event::LimitHit::Memory => LimitHit::Memory,
        event::LimitHit::Processes => LimitHit::Processes,
        event::LimitHit::FileSize => LimitHit::FileSize,
        event::LimitHit::Output => LimitHit::Output,
    });
    let natural = match outcome.end {
        End::Code(code) => {
            report.exit = Some(Exit::Code(code));
            if code == 0 {
                Ending::Succeeded
            } else {
                Ending::ExitCode(code)
            }
        }
        End::Signal {
            number,
            name,
            core_dumped,
        } => {
            let signal = Signal {
                number,
                name,
                core_dumped,
            };
            report.exit = Some(Exit::Signal(signal.clone()));
            Ending::Signal(signal)
        }
        End::Unkillable => Ending::Error("a process of the script could not be killed".to_owned()),
    };
    report.ending = if outcome.canceled {
        Ending::Canceled(canceled_by.unwrap_or("an operator").to_owned())
    } else if outcome.timed_out {
        Ending::TimedOut(Span(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)))
    } else {
        natural
    };
}

fn confinement(applied: event::Confinement) -> String {
    match (applied.private_tmp, applied.private_ipc) {
        (true, true) => "private-tmp, private-ipc",
        (true, false) => "private-tmp",
        (false, true) => "private-ipc",
        (false, false) => "none",
    }
    .to_owned()
}

/// Waits until somebody cancels, and says who.
async fn somebody(canceled: &mut Canceled) -> String {
    let by = canceled
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|by| by.clone());
    match by {
        Some(by) => by,
        None => std::future::pending().await,
    }
}
