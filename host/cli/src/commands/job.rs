//! `sluice job`: look at jobs, and end them.

mod fold;
mod follow;
mod list;
mod receipts;
pub(crate) mod told;

use clap::Subcommand;
use sluice_api_types::approval::{ApprovalState, DenyJob, JobApproval};
use sluice_api_types::job::{ApproveJob, Canceled, HaltJobs, Job};
use sluice_api_types::operation::{Gaps, InvalidGaps, LOST, OperationResult};
use sluice_api_types::rollout::Rollout;
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::operation::OutputStream;
use sluice_protocol::report::CheckStatus;
use sluice_protocol::units::Span;

use super::run::Console;
use crate::command_line::Global;
use crate::error::Error;
use crate::exit;
use crate::findings;
use crate::host::Client;
use crate::output;

/// Commands about jobs.
#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// List jobs, the newest first: those for which everything holds that is asked for
    List(list::ListArgs),
    /// Show a job and how each of its operations went; with --json one object per operation
    Show {
        /// The job's id
        job: String,
        /// text; json, which is --json; sarif: findings as one SARIF 2.1.0 log; ocsf: findings as OCSF events, one a line
        #[arg(long, value_name = "FORMAT", value_parser = format)]
        format: Option<Format>,
        /// Put machines with the same result together, and show how the others differ
        #[arg(long, conflicts_with = "format")]
        fold: bool,
        /// Show what the gates of each machine were asked and said, and what the machine signed of it
        #[arg(long, conflicts_with_all = ["format", "fold"])]
        receipts: bool,
        /// Show how far it is until it has ended: a bar with counts on a terminal, else one line in the end; with --json its events, one a line
        #[arg(long, conflicts_with_all = ["format", "fold", "receipts"])]
        follow: bool,
    },
    /// Print the stored output of a job
    Output {
        /// The job's id
        job: String,
        /// Only of this machine
        #[arg(long, value_name = "MACHINE")]
        on: Option<String>,
        /// Only this stream: stdout or stderr
        #[arg(long, value_name = "STREAM", value_parser = stream)]
        stream: Option<OutputStream>,
    },
    /// End the operations of a job that have not ended
    Cancel {
        /// The job's id
        job: String,
    },
    /// Release no more operations of a job that runs in batches or a few at a time, until it is resumed
    Pause {
        /// The job's id
        job: String,
    },
    /// Go on with a job that was paused; the failures until now do not count any more
    Resume {
        /// The job's id
        job: String,
    },
    /// End every operation of the tenant that has not ended
    Halt {
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// Approve a job that waits for other operators; or what a policy blocked until one does, which makes the job that runs it
    Approve {
        /// The job's id
        job: String,
        /// Only on this machine (again for more); all on which it was blocked where absent
        #[arg(long = "machine", value_name = "MACHINE")]
        machines: Vec<String>,
        /// How long it may wait for its machines, or the approval counts while others are missing (1d where absent, 7d at most)
        #[arg(long, value_name = "DURATION")]
        expires: Option<Span>,
        /// Only if this is what there is to approve still (approves sha256 of sluice job show)
        #[arg(long, value_name = "SHA256")]
        digest: Option<Digest>,
    },
    /// End a job that waits for other operators
    Deny {
        /// The job's id
        job: String,
        /// Why, for the record
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

/// How a job is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
    Sarif,
    Ocsf,
}

fn format(word: &str) -> Result<Format, String> {
    match word {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        "sarif" => Ok(Format::Sarif),
        "ocsf" => Ok(Format::Ocsf),
        _ => Err("text, json, sarif or ocsf".to_owned()),
    }
}

fn stream(word: &str) -> Result<OutputStream, String> {
    match word {
        "stdout" => Ok(OutputStream::Stdout),
        "stderr" => Ok(OutputStream::Stderr),
        _ => Err("stdout or stderr".to_owned()),
    }
}

/// Runs the command.
pub(crate) async fn run(global: &Global, command: JobCommand) -> Result<u8, Error> {
    match command {
        JobCommand::List(args) => list::run(global, &args).await,
        JobCommand::Show {
            job, follow: true, ..
        } => follow::show(global, &job).await,
        JobCommand::Show {
            job, fold: true, ..
        } => fold::show(global, &job).await,
        JobCommand::Show {
            job,
            receipts: true,
            ..
        } => receipts::show(global, &job).await,
        JobCommand::Show { job, format, .. } => show(global, &job, format).await,
        JobCommand::Output { job, on, stream } => {
            print_output(global, &job, on.as_deref(), stream).await
        }
        JobCommand::Cancel { job } => cancel(global, &job).await,
        JobCommand::Pause { job } => change(global, &job, "pause").await,
        JobCommand::Resume { job } => change(global, &job, "resume").await,
        JobCommand::Halt { tenant } => halt(global, tenant).await,
        JobCommand::Approve {
            job,
            machines,
            expires,
            digest,
        } => {
            let request = ApproveJob {
                machines,
                expires,
                digest,
            };
            approve(global, &job, &request).await
        }
        JobCommand::Deny { job, reason } => deny(global, &job, &DenyJob { reason }).await,
    }
}

async fn show(global: &Global, job: &str, format: Option<Format>) -> Result<u8, Error> {
    let format = match (format, global.json) {
        (None, false) => Format::Text,
        (None | Some(Format::Json), true) => Format::Json,
        (Some(format), false) => format,
        (Some(_), true) => {
            let text =
                "--json and --format ask for two formats; nothing was asked for, leave one out";
            return Err(Error::Usage(text.to_owned()));
        }
    };
    let client = Client::new(global)?;
    let job: Job = client.get(&["jobs", job])?.json().await?;
    if format == Format::Text {
        let mut fields = vec![
            ("job", Some(job.job.to_string())),
            ("tenant", Some(job.tenant.clone())),
            ("operator", Some(job.operator.clone())),
            ("submitted", Some(job.submitted_at.clone())),
            (
                "script",
                job.script
                    .as_ref()
                    .map(|script| format!("{}@{}", script.name, script.version)),
            ),
            ("script sha256", Some(job.script_sha256.to_string())),
            ("approves", job.approves.map(|job| job.to_string())),
            ("approved by", job.approved_by.clone()),
            ("supersede key", job.supersede.clone()),
            ("in order", job.in_order.then(|| "yes".to_owned())),
        ];
        fields.extend(job.approval.iter().flat_map(approval_fields));
        if let Some(later) = &job.later {
            fields.push(("later", Some(later.to_string())));
            fields.extend(later.refusals.iter().map(|refusal| {
                let text = format!("{}: {}", refusal.machine, refusal.reason);
                ("refused", Some(text))
            }));
        }
        fields.extend(job.rollout.iter().flat_map(rollout_fields));
        output::print(&output::record(&fields))?;
    }
    let mut results: Vec<OperationResult> = Vec::new();
    for operation in &job.operations {
        let value: serde_json::Value = client
            .get(&["operations", &operation.operation.to_string()])?
            .json()
            .await?;
        if format == Format::Json {
            output::json_line(&value)?;
            continue;
        }
        let result =
            serde_json::from_value(value).map_err(|error| Error::Answer(error.to_string()))?;
        match format {
            Format::Text | Format::Json => output::print(&describe(&result))?,
            // A log is one document: it is written when everything is there, or not at all.
            Format::Sarif => results.push(result),
            Format::Ocsf => findings::ocsf(&result, &job.submitted_at)
                .map_err(|error| Error::Answer(error.to_string()))?
                .iter()
                .try_for_each(output::json_line)?,
        }
    }
    if format == Format::Sarif {
        output::json_line(&findings::sarif(&results))?;
    }
    Ok(exit::SUCCESS)
}

/// What an operator wants to know about an operation, without its output.
fn describe(result: &OperationResult) -> String {
    let duration = result
        .duration_ms
        .map(|ms| format!("{}.{:03} s", ms / 1000, ms % 1000));
    let mut fields = vec![
        ("machine", Some(result.machine.clone())),
        ("operation", Some(result.operation.to_string())),
        ("state", Some(result.state.as_str().to_owned())),
        ("message", result.message.clone()),
        ("exit code", result.exit_code.map(|code| code.to_string())),
        ("code", result.code.clone()),
        ("ran as", result.run_as.clone()),
        ("confinement", result.confinement.clone()),
        ("started", result.started_at.clone()),
        ("finished", result.finished_at.clone()),
        ("took", duration),
        (
            "bundle sha256",
            result.bundle_sha256.map(|digest| digest.to_string()),
        ),
    ];
    for finding in &result.findings {
        let place = match (finding.line, finding.column) {
            (Some(line), Some(column)) => {
                format!("{} line {line}, column {column}", finding.subject)
            }
            _ => finding.subject.clone(),
        };
        let severity = format!("{:?}", finding.severity).to_lowercase();
        fields.push((
            "finding",
            Some(format!(
                "{severity} {} ({place}): {}",
                finding.rule, finding.message
            )),
        ));
    }
    for check in result
        .checks
        .iter()
        .filter(|check| check.status != CheckStatus::Met)
    {
        fields.push(("unmet", Some(format!("{}: {}", check.id, check.message))));
    }
    let notes = result
        .why
        .iter()
        .map(|why| ("waits for", why.to_string()))
        .chain(result.notes.iter().map(|note| ("note", note.clone())));
    fields.extend(notes.map(|(name, text)| (name, Some(text))));
    format!("\n{}", output::record(&fields))
}

/// How much output is asked for at once.
const PIECE: u64 = 1 << 20;

async fn print_output(
    global: &Global,
    job: &str,
    on: Option<&str>,
    only: Option<OutputStream>,
) -> Result<u8, Error> {
    let client = Client::new(global)?;
    let job: Job = client.get(&["jobs", job])?.json().await?;
    let operations: Vec<_> = job
        .operations
        .iter()
        .filter(|operation| on.is_none_or(|machine| machine == operation.machine))
        .collect();
    if operations.is_empty() {
        return Err(Error::Usage(format!(
            "job {} did not run on {}; see sluice job show",
            job.job,
            on.unwrap_or("any machine")
        )));
    }
    let mut console = Console::of_process(operations.len() > 1);
    for operation in operations {
        if global.json {
            let value: serde_json::Value = client
                .get(&["operations", &operation.operation.to_string()])?
                .json()
                .await?;
            output::json_line(&value)?;
            continue;
        }
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            if only.is_none_or(|only| only == stream) {
                copy(
                    &client,
                    &mut console,
                    operation.operation,
                    &operation.machine,
                    stream,
                )
                .await?;
            }
        }
        console.finish(operation.operation);
    }
    Ok(exit::SUCCESS)
}

async fn copy(
    client: &Client,
    console: &mut Console<std::io::Stdout, std::io::Stderr>,
    operation: OperationId,
    machine: &str,
    stream: OutputStream,
) -> Result<(), Error> {
    let name = match stream {
        OutputStream::Stdout => "stdout",
        OutputStream::Stderr => "stderr",
    };
    let (id, length) = (operation.to_string(), PIECE.to_string());
    // How many stored bytes were written, and where in the stream that is.
    let (mut stored, mut offset) = (0, 0);
    loop {
        let at = u64::to_string(&stored);
        let query = [
            ("stream", Some(name)),
            ("offset", Some(at.as_str())),
            ("length", Some(length.as_str())),
        ];
        let response = client
            .get(&["operations", &id, "output"])?
            .query(&query)
            .send()
            .await?;
        let gaps = gaps(&response)?;
        let bytes = response
            .bytes()
            .await
            .map_err(|error| Error::Answer(error.to_string()))?;
        let mut before = 0;
        for (at, lost) in gaps.0 {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            let piece = bytes.get(before..at).unwrap_or_default();
            console.output(operation, machine, stream, offset, piece);
            before += piece.len();
            offset = offset
                .saturating_add(piece.len() as u64)
                .saturating_add(lost);
        }
        let piece = &bytes[before..];
        console.output(operation, machine, stream, offset, piece);
        offset += piece.len() as u64;
        if bytes.is_empty() {
            return Ok(());
        }
        stored += bytes.len() as u64;
    }
}

/// Where an answer with output says that bytes are lost.
fn gaps(response: &reqwest::Response) -> Result<Gaps, Error> {
    let Some(lost) = response.headers().get(LOST) else {
        return Ok(Gaps::default());
    };
    let gaps = lost.to_str().ok().and_then(|lost| lost.parse().ok());
    gaps.ok_or_else(|| Error::Answer(InvalidGaps.to_string()))
}

async fn cancel(global: &Global, job: &str) -> Result<u8, Error> {
    let canceled: Canceled = Client::new(global)?
        .post(&["jobs", job, "cancel"])?
        .json()
        .await?;
    tell(global, &canceled)
}

/// Pauses or resumes a job, and says how far it is.
async fn change(global: &Global, job: &str, verb: &str) -> Result<u8, Error> {
    let rollout: Rollout = Client::new(global)?
        .post(&["jobs", job, verb])?
        .json()
        .await?;
    if global.json {
        output::json_line(&rollout)?;
    } else {
        output::print(&output::record(&rollout_fields(&rollout)))?;
    }
    Ok(exit::SUCCESS)
}

/// What a job waits or waited for, for people.
fn approval_fields(approval: &JobApproval) -> Vec<(&'static str, Option<String>)> {
    let mut fields = vec![(
        "approval",
        Some(match approval.state {
            ApprovalState::Waiting => format!("waits for {approval}"),
            state => format!(
                "{} ({} were needed, because {})",
                state.as_str(),
                approval.needed,
                approval.because.join(", and ")
            ),
        }),
    )];
    let by = approval.approved.iter().map(|one| {
        let word = format!("{} at {}", one.by, one.at);
        ("approved by", Some(word))
    });
    fields.extend(by);
    fields.push(("standing approval", approval.standing.clone()));
    fields.push(("approves sha256", Some(approval.digest.to_string())));
    fields
}

/// How far a rollout is, for people.
fn rollout_fields(rollout: &Rollout) -> Vec<(&'static str, Option<String>)> {
    let up_to: Vec<String> = rollout.batches.iter().map(u64::to_string).collect();
    vec![
        ("rollout", Some(rollout.state.as_str().to_owned())),
        (
            "batch",
            Some(format!(
                "{} of {} (up to {} operations)",
                rollout.batch,
                rollout.of,
                up_to.join(", ")
            )),
        ),
        (
            "at once",
            rollout.max_concurrency.map(|most| most.to_string()),
        ),
        (
            "held",
            Some(rollout.held.to_string()).filter(|_| rollout.held > 0),
        ),
        (
            "failures",
            rollout
                .stop_on_failures
                .as_ref()
                .map(|rule| format!("{} (pauses at {rule})", rollout.failures)),
        ),
        (
            "time-outs",
            rollout
                .stop_on_timeouts
                .as_ref()
                .map(|rule| format!("pauses at {rule}")),
        ),
        (
            "dark",
            rollout
                .stop_on_dark
                .as_ref()
                .map(|rule| format!("pauses at {rule}")),
        ),
        (
            "new groups",
            rollout
                .stop_on_new_groups
                .as_ref()
                .map(|rule| format!("pauses at {rule}")),
        ),
        ("paused", rollout.paused.as_ref().map(ToString::to_string)),
    ]
}

async fn approve(global: &Global, job: &str, request: &ApproveJob) -> Result<u8, Error> {
    let client = Client::new(global)?;
    let made: Job = client
        .post(&["jobs", job, "approve"])?
        .body(request)
        .json()
        .await?;
    tell_of(global, &made)
}

async fn deny(global: &Global, job: &str, request: &DenyJob) -> Result<u8, Error> {
    let client = Client::new(global)?;
    let denied: Job = client
        .post(&["jobs", job, "deny"])?
        .body(request)
        .json()
        .await?;
    tell_of(global, &denied)
}

/// Where a job and its operations are.
fn tell_of(global: &Global, made: &Job) -> Result<u8, Error> {
    if global.json {
        output::json_line(made)?;
        return Ok(exit::SUCCESS);
    }
    let job = made.job.to_string();
    let mut fields = vec![("job", Some(job))];
    for field in made.approval.iter().flat_map(approval_fields) {
        fields.push(field);
    }
    fields.extend(made.operations.iter().map(|operation| {
        let state = operation.state.as_str().to_owned();
        let message = operation.message.clone();
        (operation.machine.as_str(), Some(message.unwrap_or(state)))
    }));
    output::print(&output::record(&fields))?;
    Ok(exit::SUCCESS)
}

async fn halt(global: &Global, tenant: Option<String>) -> Result<u8, Error> {
    let canceled: Canceled = Client::new(global)?
        .post(&["jobs", "halt"])?
        .body(&HaltJobs { tenant })
        .json()
        .await?;
    tell(global, &canceled)
}

fn tell(global: &Global, canceled: &Canceled) -> Result<u8, Error> {
    if global.json {
        output::json_line(canceled)?;
    } else {
        output::print(&format!(
            "canceled {} operations that had not ended\n",
            canceled.canceled
        ))?;
    }
    Ok(exit::SUCCESS)
}
