//! Following a job to its end: events in, output and outcomes out.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use sluice_api_types::event;
use sluice_api_types::event::OutputEvent;
use sluice_api_types::job::{Canceled, Job};
use sluice_api_types::operation::OperationResult;
use sluice_api_types::rollout::Rollout;
use sluice_protocol::ids::OperationId;
use tokio::sync::mpsc;

use super::console::Console;
use super::interrupt::{Action, Interrupt};
use crate::commands::job::told;
use crate::error::Error;
use crate::host::{Client, Event, EventStream};
use crate::{exit, output};

/// How long a lost connection is tried again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two connections, at first and at most.
const SHORT_PAUSE: Duration = Duration::from_millis(100);
const LONG_PAUSE: Duration = Duration::from_secs(5);
/// A host that says nothing for this long, not even a comment, is asked again.
const SILENCE: Duration = Duration::from_secs(60);

/// Follows one job.
pub(super) struct Follower<'a> {
    client: &'a Client,
    job: Job,
    json: bool,
    console: Console<std::io::Stdout, std::io::Stderr>,
    results: HashMap<OperationId, Ended>,
    interrupt: Interrupt,
}

/// An operation that has ended: what the exit code is made of, and the object as the host wrote it.
struct Ended {
    result: OperationResult,
    text: String,
}

/// Why a connection is over.
enum Over {
    /// Every operation has ended.
    End,
    /// The connection was lost; something was heard on it, or not.
    Lost { heard: bool },
    /// The operator left.
    Detached,
}

impl<'a> Follower<'a> {
    /// A follower of `job`, which was just submitted.
    pub(super) fn new(client: &'a Client, job: Job, json: bool) -> Self {
        let console = Console::of_process(job.operations.len() > 1 || job.later.is_some());
        Self {
            client,
            job,
            json,
            console,
            results: HashMap::new(),
            interrupt: Interrupt::default(),
        }
    }

    /// Follows the job to its end, or until the operator leaves, at first by the events that came with the answer to its
    /// submission. `pressed` says how often Ctrl-C was pressed before.
    pub(super) async fn follow(
        mut self,
        mut events: Option<EventStream<'a>>,
        pressed: u32,
        mut presses: mpsc::UnboundedReceiver<()>,
    ) -> Result<u8, Error> {
        for _ in 0..pressed {
            self.press().await?;
        }
        if let Some(line) = told::waits(&self.job).filter(|_| !self.json) {
            output::complain(&line);
        }
        if let Some(line) = told::joins(&self.job).filter(|_| !self.json) {
            output::complain(&line);
        }
        let mut last_heard = Instant::now();
        let mut pause = SHORT_PAUSE;
        loop {
            let connected_at = Instant::now();
            match self.connection(events.take(), &mut presses).await? {
                Over::End => break,
                Over::Detached => return Ok(exit::CANCELED),
                Over::Lost { heard: true } => {
                    last_heard = Instant::now();
                    // A host that hangs up again and again is not asked ten times a second.
                    if connected_at.elapsed() > LONG_PAUSE {
                        pause = SHORT_PAUSE;
                    }
                }
                Over::Lost { heard: false } if last_heard.elapsed() > PATIENCE => {
                    return Err(Error::Lost {
                        job: self.job.job.to_string(),
                    });
                }
                Over::Lost { heard: false } => {}
            }
            let until = Instant::now() + pause;
            pause = (pause * 2).min(LONG_PAUSE);
            while Instant::now() < until {
                let wake = self
                    .interrupt
                    .leaves_at()
                    .map_or(until, |leaves| leaves.min(until));
                tokio::select! {
                    Some(()) = presses.recv() => self.press().await?,
                    () = tokio::time::sleep_until(wake.into()) => {}
                }
                if self
                    .interrupt
                    .leaves_at()
                    .is_some_and(|leaves| leaves <= Instant::now())
                {
                    return Ok(exit::CANCELED);
                }
            }
        }
        self.finish().await
    }

    /// One connection, from its beginning to its end; `events` where it is there already.
    async fn connection(
        &mut self,
        mut events: Option<EventStream<'a>>,
        presses: &mut mpsc::UnboundedReceiver<()>,
    ) -> Result<Over, Error> {
        let job = self.job.job.to_string();
        let sending = self.client.get(&["jobs", &job, "events"])?.events();
        tokio::pin!(sending);
        let mut heard = events.is_some();
        let mut silent_at = Instant::now() + SILENCE;
        loop {
            let far = Instant::now() + SILENCE;
            let leaves = self.interrupt.leaves_at();
            let news = tokio::select! {
                Some(()) = presses.recv() => {
                    self.press().await?;
                    continue;
                }
                () = tokio::time::sleep_until(leaves.unwrap_or(far).into()), if leaves.is_some() => {
                    return Ok(Over::Detached);
                }
                () = tokio::time::sleep_until(silent_at.into()) => return Ok(Over::Lost { heard }),
                answer = &mut sending, if events.is_none() => match answer {
                    Ok(answer) => {
                        events = Some(answer);
                        continue;
                    }
                    Err(Error::Unreachable { .. }) => return Ok(Over::Lost { heard }),
                    // The host is starting or stopping: it will be there again.
                    Err(Error::Refused(problem)) if problem.status >= 500 => return Ok(Over::Lost { heard }),
                    Err(error) => return Err(error),
                },
                news = next(&mut events), if events.is_some() => match news {
                    Ok(Some(news)) => news,
                    Ok(None) | Err(_) => return Ok(Over::Lost { heard }),
                },
            };
            heard = true;
            silent_at = Instant::now() + SILENCE;
            for event in news {
                if self.event(&event)? {
                    return Ok(Over::End);
                }
            }
        }
    }

    /// Handles one event; true for the last one. Events of later versions are passed over.
    fn event(&mut self, event: &Event) -> Result<bool, Error> {
        match event.name.as_str() {
            event::OUTPUT if !self.json => {
                let output: OutputEvent = read(&event.data)?;
                // What an operation wrote is not told again once it has ended, whatever the host repeats.
                if !self.results.contains_key(&output.operation) {
                    self.console.output(
                        output.operation,
                        &output.machine,
                        output.stream,
                        output.offset,
                        &output.data.0,
                    );
                }
            }
            event::ROLLOUT if !self.json => {
                let rollout: Rollout = read(&event.data)?;
                if let Some(line) = told::goes(self.job.job, &rollout) {
                    output::complain(&line);
                }
            }
            event::RESULT => {
                let result: OperationResult = read(&event.data)?;
                self.ended(result, event.data.clone());
            }
            event::END => return Ok(true),
            _ => {}
        }
        Ok(false)
    }

    fn ended(&mut self, result: OperationResult, text: String) {
        if self.results.contains_key(&result.operation) || !result.state.is_terminal() {
            return;
        }
        if !self.json {
            let message = result
                .message
                .as_deref()
                .unwrap_or_else(|| result.state.as_str());
            self.console
                .outcome(result.operation, &result.machine, message);
        }
        self.results
            .insert(result.operation, Ended { result, text });
    }

    async fn press(&mut self) -> Result<(), Error> {
        let job = self.job.job;
        match self.interrupt.press(Instant::now()) {
            Some(Action::NameTheJob) => {
                output::complain(&format!(
                    "sluice: leaving job {job} to go on; Ctrl-C again within 2 s cancels it"
                ));
            }
            Some(Action::Cancel) => {
                output::complain(&format!("sluice: canceling job {job}"));
                let _: Canceled = self
                    .client
                    .post(&["jobs", &job.to_string(), "cancel"])?
                    .json()
                    .await?;
            }
            None => {}
        }
        Ok(())
    }

    /// Prints what is left, and makes the exit code.
    async fn finish(mut self) -> Result<u8, Error> {
        if self.job.later.is_some() {
            // Others have joined, perhaps.
            let job = self.job.job.to_string();
            self.job = self.client.get(&["jobs", &job])?.json().await?;
        }
        let operations: Vec<OperationId> = self
            .job
            .operations
            .iter()
            .map(|operation| operation.operation)
            .collect();
        let mut endings = Vec::with_capacity(operations.len());
        for operation in operations {
            if !self.results.contains_key(&operation) {
                let value: serde_json::Value = self
                    .client
                    .get(&["operations", &operation.to_string()])?
                    .json()
                    .await?;
                let text = value.to_string();
                self.ended(read(&text)?, text);
            }
            let Some(ended) = self.results.get(&operation) else {
                return Err(Error::Answer(format!(
                    "operation {operation} has not ended, though its job has"
                )));
            };
            if self.json {
                output::print(&format!("{}\n", one_object(&ended.text)?))?;
            }
            endings.push((ended.result.state, ended.result.exit_code));
        }
        let canceled = self.interrupt == Interrupt::Canceling;
        Ok(if canceled {
            exit::CANCELED
        } else {
            exit::of_operations(&endings)
        })
    }
}

async fn next(events: &mut Option<EventStream<'_>>) -> Result<Option<VecDeque<Event>>, Error> {
    match events {
        Some(events) => events.next().await,
        None => Ok(None),
    }
}

fn read<T: DeserializeOwned>(data: &str) -> Result<T, Error> {
    serde_json::from_str(data).map_err(|error| Error::Answer(error.to_string()))
}

/// The object on one line, as the host wrote it where it is on one.
fn one_object(text: &str) -> Result<String, Error> {
    if text.contains(['\n', '\r']) {
        return read::<serde_json::Value>(text).map(|value| value.to_string());
    }
    Ok(text.trim().to_owned())
}
