//! The story of `sluice run`, from files to an exit code.

use sluice_api_types::event;
use sluice_api_types::job::{IDEMPOTENCY_KEY, Job, SubmitJob};
use sluice_protocol::ids::JobId;

use super::arguments::{Prepared, RunArgs};
use super::follow::Follower;
use super::{interrupt, preview};
use crate::command_line::Global;
use crate::error::Error;
use crate::host::{Answered, Client, EventStream, Request};
use crate::{exit, output};

/// How often a submission is sent whose answer got lost.
const ATTEMPTS: u32 = 3;

/// Runs the command.
pub(crate) async fn run(global: &Global, arguments: RunArgs) -> Result<u8, Error> {
    let RunArgs {
        job,
        preview,
        detach,
        idempotency_key,
    } = arguments;
    let prepared = Prepared::read(job)?;
    let client = Client::new(global)?;
    if preview {
        return preview::show(global, &client, &prepared.request).await;
    }
    let request = prepared.upload(&client).await?;
    // From here on Ctrl-C is about the job: a press while it is submitted counts once its id is known.
    let mut presses = interrupt::presses();
    let mut pressed = 0;
    let wanted = if detach { Wanted::Job } else { Wanted::Events };
    let submission = submit(&client, &request, idempotency_key, wanted);
    tokio::pin!(submission);
    let (job, events) = loop {
        tokio::select! {
            submitted = &mut submission => break submitted?,
            Some(()) = presses.recv() => pressed += 1,
        }
        match pressed {
            1 => output::complain(
                "sluice: the job is being submitted; Ctrl-C again leaves without waiting for its id",
            ),
            _ => {
                output::complain(
                    "sluice: the job may have been submitted or not; see sluice job list",
                );
                return Ok(exit::CANCELED);
            }
        }
    };
    if detach {
        return if global.json {
            output::json_line(&job)
        } else {
            output::print(&format!("{}\n", job.job))
        }
        .map(|()| exit::SUCCESS);
    }
    if job.operations.is_empty() {
        return Err(Error::Answer(format!("job {} has no operations", job.job)));
    }
    Follower::new(&client, job, global.json)
        .follow(events, pressed, presses)
        .await
}

/// What a submission is to be answered with.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Job,
    /// And then what becomes of it.
    Events,
}

/// Submits the job. An answer that got lost is asked for again under the same key, so that there is one job.
async fn submit<'a>(
    client: &'a Client,
    request: &SubmitJob,
    key: Option<String>,
    wanted: Wanted,
) -> Result<(Job, Option<EventStream<'a>>), Error> {
    let key = key.unwrap_or_else(|| JobId::generate().to_string());
    let mut attempt = 1;
    loop {
        let sent = client
            .post(&["jobs"])?
            .header(IDEMPOTENCY_KEY, &key)
            .body(request);
        let answered = match wanted {
            Wanted::Job => sent.json().await.map(|job| (job, None)),
            Wanted::Events => followed(sent).await,
        };
        match answered {
            Err(Error::Unreachable { source, .. })
                if attempt < ATTEMPTS && !source.is_connect() =>
            {
                attempt += 1
            }
            other => return other,
        }
    }
}

/// The job, and the events that follow it in the same answer where the host tells them there.
async fn followed(request: Request<'_>) -> Result<(Job, Option<EventStream<'_>>), Error> {
    let mut events = match request.events_or_json().await? {
        Answered::Json(job) => return Ok((job, None)),
        Answered::Events(events) => *events,
    };
    match events.first().await? {
        Some(first) if first.name == event::JOB => {
            let job = serde_json::from_str(&first.data);
            let job = job.map_err(|error| Error::Answer(error.to_string()))?;
            Ok((job, Some(events)))
        }
        _ => Err(Error::Answer(
            "the host did not name the job that it made".to_owned(),
        )),
    }
}
