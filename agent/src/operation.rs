//! The story of one operation on a machine.
//!
//! ```text
//! accept (ledger, fsync) -> owner's policy -> fetch blobs -> environment -> prepare -> scan -> policy gates
//!     -> start (ledger, fsync; beside it the shim makes ready) -> go -> stream -> finish (ledger)
//!     -> report until acknowledged
//! ```
//!
//! Until every gate has let it pass nothing is written for the script and no process of it exists. The shim then makes
//! everything ready while the start is put on disk, and executes nothing before it is told to; from `start` on the answer is
//! `interrupted` unless the shim knows better.

use std::sync::Arc;
use std::time::Duration;

use sluice_gate_client::{Evaluation, Input, evaluate, fact};
use sluice_gate_types::input::{Attribute, Origin, Value};
use sluice_protocol::bundle::{Bundle, Compatibility, Limits, Source};
use sluice_protocol::causes::Causes;
use sluice_protocol::codec;
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::{Block, Ending};
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::StreamKind;
use sluice_protocol::message::control::{Fact, Identity};
use sluice_protocol::message::operation::{Operation, Progress};
use sluice_protocol::receipt::{Attestation, Attested};
use sluice_protocol::report::Report;
use sluice_protocol::units::Span;
use sluice_shim::spec::{self, Spec};
use tokio::sync::{oneshot, watch};

use crate::approval;
use crate::at_work::Standing;
use crate::clock::now;
use crate::config::Config;
use crate::described::is_what_was_seen;
use crate::exec::environment::{self, Locale, Names};
use crate::exec::users::RunAs;
use crate::exec::{containment, spool};
use crate::facts;
use crate::history::{self, Losses};
use crate::journal::Journal;
use crate::ledger::Passed;
use crate::outcome::{Events, follow};
use crate::policy::{Permitted, permit, time_limit, user};
use crate::receipts::{SignError, attest};
use crate::supervisor::Agent;

/// Who canceled an operation, once somebody has.
pub type Canceled = watch::Receiver<Option<String>>;

/// How many receipts are told ahead of the report, at most: where there are more, they may have no room in one message.
const AHEAD: usize = 64;

/// The machine's word for what the gates said.
type Signed = Result<Option<Attestation>, SignError>;

/// What the gates said of an operation, as far as they were asked.
#[derive(Default)]
struct Said {
    evaluation: Evaluation,
    /// Where it was signed already.
    signed: Option<Signed>,
}

/// Takes an operation to its report. Whatever happens there is one. Where the machine's history is lost once more than
/// `losses`, it does not start any more; nor does it before it was handed to the ledger, which is when `taken_in` is sent.
pub async fn run(
    agent: &Arc<Agent>,
    operation: &Arc<Operation>,
    journal: &Journal,
    canceled: Canceled,
    losses: Losses,
    taken_in: oneshot::Receiver<()>,
) -> Report {
    let mut said = Said::default();
    let ended = check_and_run(
        agent, operation, journal, canceled, losses, taken_in, &mut said,
    );
    let mut report = ended.await.unwrap_or_else(|ending| {
        let mut report = Report::without_process(ending, now());
        if report.ending == Ending::Interrupted {
            report.notes.push(history::NOTE.to_owned());
        }
        report
    });
    let Said { evaluation, signed } = said;
    let signed = signed.unwrap_or_else(|| sign(agent, operation, &evaluation));
    report.bundle_sha256 = evaluation.bundle.as_ref().map(|(_, digest)| *digest);
    report.findings = evaluation.findings;
    report.checks = evaluation.checks;
    report.receipts = evaluation.receipts;
    report.notes.splice(..0, evaluation.notes);
    fit(&mut report);
    attest(&mut report, signed);
    report
}

/// Signs what the gates said.
fn sign(agent: &Agent, operation: &Operation, evaluation: &Evaluation) -> Signed {
    let asked = Some(&evaluation.circumstances);
    agent
        .receipts
        .sign(operation.operation, &evaluation.receipts, asked)
}

/// Takes up an operation that an earlier agent started: its shim may still be running, or its spool tells the end.
pub async fn adopt(
    agent: &Arc<Agent>,
    id: OperationId,
    passed: Passed,
    journal: &Journal,
    canceled: Canceled,
) -> Report {
    let restarted = passed.boot != facts::boot();
    let mut report = pick_up(agent, id, &passed, restarted, journal, canceled).await;
    report.bundle_sha256 = Some(passed.bundle_sha256);
    report.findings = passed.findings;
    report.checks = passed.checks;
    report.receipts = passed.receipts;
    report.notes.splice(..0, passed.notes);
    let what = if restarted { "machine" } else { "agent" };
    report
        .notes
        .push(format!("the {what} was restarted while this ran"));
    // What they were asked is not on the way of a start, and so not on disk.
    let signed = agent.receipts.sign(id, &report.receipts, None);
    fit(&mut report);
    attest(&mut report, signed);
    report
}

/// The same for an operation of which only the spool can be read. That tells how it went; what it ran as and what the gates
/// said is lost.
pub async fn adopt_unread(
    agent: &Arc<Agent>,
    id: OperationId,
    asked: &Limits,
    note: String,
    journal: &Journal,
    canceled: Canceled,
) -> Report {
    let config = agent.config();
    let passed = Passed {
        bundle_sha256: Digest::of(&[]),
        run_as: String::new(),
        time_limit: time_limit(asked, &config.limits),
        workspaces: agent.workspace_base(&config),
        boot: String::new(),
        findings: Vec::new(),
        checks: Vec::new(),
        receipts: Vec::new(),
        notes: Vec::new(),
    };
    // The machine may have been restarted: what the spool does not tell is not known.
    let mut report = pick_up(agent, id, &passed, true, journal, canceled).await;
    report.run_as = None;
    report.notes.insert(0, note);
    fit(&mut report);
    report
}

async fn pick_up(
    agent: &Arc<Agent>,
    id: OperationId,
    passed: &Passed,
    restarted: bool,
    journal: &Journal,
    canceled: Canceled,
) -> Report {
    let spool = agent.spool(id);
    let follower = spool::adopt(&spool, &passed.workspaces, &id.to_string(), restarted);
    let source = Events::Adopted(Box::new(follower), spool);
    // It counts among those that run at once. Where the owner lets fewer of them run by now, the next place is its.
    let holds_a_place = async {
        let _slot = agent.slot().await;
        std::future::pending().await
    };
    tokio::select! {
        biased;
        never = holds_a_place => never,
        report = follow(source, journal, canceled, passed) => report,
    }
}

/// Shortens what was said about an operation until the report fits into a message. What was left out is noted.
fn fit(report: &mut Report) {
    const LARGEST: usize = StreamKind::Progress.max_frame() / 2;
    let too_large =
        |report: &Report| codec::encode(report).is_ok_and(|bytes| bytes.len() > LARGEST);
    if !too_large(report) {
        return;
    }
    let lengths = |report: &Report| {
        [
            report.findings.len(),
            report.checks.len(),
            report.receipts.len(),
            report.notes.len(),
        ]
    };
    let before = lengths(report);
    while too_large(report) {
        if report.findings.len() > 1 {
            report.findings.truncate(report.findings.len() / 2);
        } else if report.checks.len() > 1 {
            report.checks.truncate(report.checks.len() / 2);
        } else if report.notes.len() > 1 {
            report.notes.truncate(report.notes.len() / 2);
        } else {
            report.findings.clear();
            report.checks.clear();
            report.receipts.clear();
            report.notes.clear();
            break;
        }
    }
    let after = lengths(report);
    for (what, (before, after)) in ["findings", "checks", "receipts", "notes"]
        .into_iter()
        .zip(before.into_iter().zip(after))
        .filter(|(_, (before, after))| before > after)
    {
        report.notes.push(format!(
            "{} of {before} {what} are left out, because the report would be too large",
            before - after
        ));
    }
}

async fn check_and_run(
    agent: &Arc<Agent>,
    operation: &Arc<Operation>,
    journal: &Journal,
    mut canceled: Canceled,
    losses: Losses,
    taken_in: oneshot::Receiver<()>,
    said: &mut Said,
) -> Result<Report, Ending> {
    let Said { evaluation, signed } = said;
    let ready = async {
        let slot = agent.slot().await;
        agent.lockdown.off().await;
        journal.push(Progress::Checking);
        loop {
            let ready = check(agent, operation, evaluation).await?;
            still_permitted(agent, operation, &ready.permitted).await?;
            // What the owner has tightened since holds for this operation too: attachments and gates may be waited for.
            if !agent.lockdown.is_off() {
                // That may take days: what was looked at is looked at again, and no secret is in memory meanwhile.
                drop(ready);
                agent.lockdown.off().await;
                continue;
            }
            // From here to the start nothing is waited for but the disk.
            if Arc::ptr_eq(&ready.config, &agent.config()) {
                return Ok::<_, Ending>((slot, ready));
            }
            tracing::info!(operation = %operation.operation, "the owner's policy has changed; everything is checked again");
        }
    };
    let (_slot, ready) = tokio::select! {
        ready = ready => ready?,
        by = somebody(&mut canceled) => return Err(Ending::Canceled(by)),
        () = past(operation.not_after) => return Err(Ending::Expired),
        () = agent.history.lost_after(losses) => return Err(Ending::Interrupted),
    };
    let Ready {
        spec,
        passed,
        standing,
        ..
    } = ready;
    if is_past(operation.not_after) {
        return Err(Ending::Expired);
    }
    if agent.history.losses() != losses {
        return Err(Ending::Interrupted);
    }
    // Where that failed, the ledger refuses the start.
    taken_in.await.ok();
    // The shim makes everything ready while the start is put on disk, and starts nothing before it is told to. It has more to
    // do than the disk, so it learns first.
    let (waiting, recorded) = tokio::join!(
        agent.executor.describe(&spec),
        agent.ledger.start(operation.operation, &passed, now()),
    );
    recorded.map_err(|error| Ending::Error(Causes(&error).to_string()))?;
    let waiting = waiting.map_err(|error| Ending::Error(Causes(&error).to_string()))?;
    let running = waiting
        .go()
        .await
        .map_err(|error| Ending::Error(Causes(&error).to_string()))?;
    drop(standing);
    // Now that it runs: there is nothing else to do but to wait for it.
    let attested = sign(agent, operation, evaluation);
    if let Ok(Some(attestation)) = &attested
        && evaluation.receipts.len() <= AHEAD
    {
        journal.push(Progress::Receipts(Box::new(Attested {
            receipts: evaluation.receipts.clone(),
            attestation: attestation.clone(),
        })));
    }
    *signed = Some(attested);
    Ok(follow(running, journal, canceled, &passed).await)
}

/// What every gate let pass, ready to be started.
struct Ready<'a> {
    spec: Spec,
    passed: Passed,
    permitted: Permitted,
    /// What the owner said.
    config: Arc<Config>,
    /// Until it is started.
    standing: Standing<'a>,
}

/// How old the look at the machine's users may be when a script starts. Gates may take long, and be waited for.
const USER_IS_KNOWN: Duration = Duration::from_secs(1);

/// Whether the user is still the one that the owner's policy was asked about. One that was deleted meanwhile, or is another
/// now, does not run the script; what its id means may be somebody else.
async fn still_permitted(
    agent: &Agent,
    operation: &Arc<Operation>,
    permitted: &Permitted,
) -> Result<(), Ending> {
    if permitted.at.elapsed() < USER_IS_KNOWN || permitted.user == RunAs::Ephemeral {
        return Ok(());
    }
    let (operation, config) = (Arc::clone(operation), agent.config());
    let name = permitted.user.name().to_owned();
    let again = tokio::task::spawn_blocking(move || user(&operation.submission, &config)).await;
    match again {
        Ok(Ok(user)) if user == permitted.user => Ok(()),
        Ok(Err(ending)) => Err(ending),
        Ok(Ok(_)) => Err(Ending::Blocked(Block::machine_policy(format!(
            "user `{name}` was changed on this machine while the gates were asked"
        )))),
        Err(error) => Err(Ending::Error(format!(
            "the user could not be looked up: {error}"
        ))),
    }
}

/// Everything that comes before the start. Nothing is written for the script here, and no process of it exists.
#[tracing::instrument(level = "debug", skip_all)]
async fn check<'a>(
    agent: &'a Arc<Agent>,
    operation: &Arc<Operation>,
    evaluation: &mut Evaluation,
) -> Result<Ready<'a>, Ending> {
    let source =
        Source::read(&operation.submission).map_err(|error| Ending::Error(error.to_string()))?;
    let asked = agent
        .gates
        .for_operation(
            operation.gates_revision,
            source.interpreter.language(),
            operation.skip_security_scan,
            agent.links(),
        )
        .await?;
    let config = &asked.config;
    let source = Arc::new(source);
    let (permitted, facts) = owners_policy(agent, operation, &source, config).await?;
    let approval = approval::of(operation, agent.machine.machine, config)?;
    agent
        .spools
        .reserve(operation.operation, permitted.limits.output, &config.limits)?;
    let texts = fetch_attachments(agent, operation).await?;
    let standing = agent.at_work.begin(operation.operation);
    let input = Input {
        submission: &operation.submission,
        source: &source,
        facts: with_version(agent, facts, &source, &permitted).await,
        job: job_attributes(operation, &agent.identity()),
        attachments: texts,
        skip_security_scan: operation.skip_security_scan,
        approval,
        live_facts: true,
    };
    *evaluation = evaluate(&asked.gates, &input).await;
    let told_before = source.text.notes().map(str::to_owned);
    evaluation.notes.splice(..0, told_before.chain(asked.notes));
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
    let secrets = agent.secrets.open(operation, &bundle.secrets)?;
    let spec = spec(agent, operation, bundle, &permitted, secrets, config);
    // Once more, over what is handed to the shim.
    if !is_what_was_seen(
        &spec,
        bundle,
        &permitted.interpreter,
        names(operation),
        *digest,
    ) {
        return Err(Ending::Error(
            "what would run differs from what the gates saw; nothing was started".to_owned(),
        ));
    }
    let passed = Passed {
        bundle_sha256: *digest,
        run_as: permitted.user.name().to_owned(),
        workspaces: spec.workspace_base.clone(),
        boot: facts::boot(),
        time_limit: Span(u64::try_from(permitted.limits.time.as_millis()).unwrap_or(u64::MAX)),
        findings: evaluation.findings.clone(),
        checks: evaluation.checks.clone(),
        receipts: evaluation.receipts.clone(),
        notes: evaluation.notes.clone(),
    };
    Ok(Ready {
        spec,
        passed,
        permitted,
        config: Arc::clone(config),
        standing,
    })
}

fn is_past(time: u64) -> bool {
    now() > time
}

/// Waits until a time by the wall clock, in milliseconds since 1970.
async fn past(time: u64) {
    while !is_past(time) {
        let left = Duration::from_millis((time - now().min(time)).clamp(1, 60_000));
        tokio::time::sleep(left).await;
    }
}

/// What the owner says, and what is known about the machine now. Both may ask the system, so they are asked where blocking
/// is allowed.
#[tracing::instrument(level = "debug", skip_all)]
async fn owners_policy(
    agent: &Agent,
    operation: &Arc<Operation>,
    source: &Arc<Source>,
    config: &Arc<Config>,
) -> Result<(Permitted, Vec<Fact>), Ending> {
    let (operation, source, config) = (
        Arc::clone(operation),
        Arc::clone(source),
        Arc::clone(config),
    );
    let workspace = agent.workspace_base(&config);
    let held = containment::facts(&agent.containment);
    tokio::task::spawn_blocking(move || {
        let permitted = permit(&operation, &source, &config)?;
        let requires = source.header.as_ref().map(|header| &header.requires);
        let mut facts = facts::live(requires, &workspace);
        facts.extend(held);
        facts.push(facts::text("interpreter.name", source.interpreter.name()));
        facts.push(facts::text("run-as", permitted.user.name()));
        Ok((permitted, facts))
    })
    .await
    .map_err(|error| Ending::Error(format!("the owner's policy could not be asked: {error}")))?
}

/// Facts as gates see them; with the interpreter's version where a script asks for one.
async fn with_version(
    agent: &Agent,
    mut facts: Vec<Fact>,
    source: &Source,
    permitted: &Permitted,
) -> Vec<Attribute> {
    let asked = source
        .header
        .as_ref()
        .is_some_and(|header| header.requires.interpreter.is_some());
    if asked && let Some(version) = agent.versions.of(&permitted.interpreter).await {
        facts.push(facts::text("interpreter.version", version));
    }
    facts
        .into_iter()
        .map(|found| fact(found, Origin::Machine))
        .collect()
}

async fn fetch_attachments(
    agent: &Agent,
    operation: &Operation,
) -> Result<Vec<(String, String)>, Ending> {
    let attachments = &operation.submission.attachments;
    for attachment in attachments {
        let fetched = agent.fetch(attachment.sha256, attachment.size).await;
        fetched.map_err(|error| {
            Ending::Error(format!(
                "the attachment {} could not be fetched: {error}",
                attachment.name
            ))
        })?;
    }
    let texts = agent.blobs.texts(attachments).await;
    texts.map_err(|error| Ending::Error(format!("the gates cannot see the attachments: {error}")))
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

/// By which names the script learns its identity.
fn names(operation: &Operation) -> Names {
    match operation.submission.compatibility {
        Compatibility::None => Names::Sluice,
        Compatibility::Landscape => Names::SluiceAndLandscape,
    }
}

fn spec(
    agent: &Agent,
    operation: &Operation,
    bundle: &Bundle,
    permitted: &Permitted,
    secrets: Vec<spec::Secret>,
    config: &Config,
) -> Spec {
    let identity = agent.identity();
    let names = names(operation);
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
            content: spec::Content::File {
                path: agent.blobs.path(attachment.sha256),
                size: attachment.size,
                sha256: *attachment.sha256.as_bytes(),
            },
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
        secrets,
        limits: permitted.limits.clone(),
        no_new_privs: config.run_as.no_new_privs,
        profile: permitted.profile,
        opened: config.confinement.opened(),
        hidden: agent.own_files(),
    }
}

/// Waits until somebody cancels, and says who.
pub(crate) async fn somebody(canceled: &mut Canceled) -> String {
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
