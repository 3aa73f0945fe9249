//! `sluice job show --follow`: how far a job is, until it has ended.

use std::collections::{HashMap, HashSet};
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use sluice_api_types::event::{self, OutputEvent, StateEvent};
use sluice_api_types::job::Job;
use sluice_api_types::operation::OperationResult;
use sluice_api_types::rollout::Rollout;
use sluice_protocol::ending::State;
use sluice_protocol::ids::{JobId, OperationId};
use sluice_protocol::message::operation::OutputStream;
use terminal_size::{Width, terminal_size_of};

use super::told;
use crate::command_line::Global;
use crate::error::Error;
use crate::host::{Client, Event, EventStream};
use crate::{exit, output};

/// How long a lost connection is tried again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two connections.
const PAUSE: Duration = Duration::from_secs(1);
/// A host that says nothing for this long, not even a comment, is asked again.
const SILENCE: Duration = Duration::from_secs(60);
/// Between two pictures on a terminal.
const PICTURE: Duration = Duration::from_millis(100);
/// How many marks the bar has.
const BAR: usize = 24;

/// Follows a job to its end. Ctrl-C leaves; the job goes on.
pub(super) async fn show(global: &Global, job: &str) -> Result<u8, Error> {
    let client = Client::new(global)?;
    let shown: Job = client.get(&["jobs", job])?.json().await?;
    let mut follower = Follower {
        job: shown.job,
        progress: Progress::of(&shown),
        heard: Heard::default(),
        told: None,
        view: if global.json {
            View::Events
        } else if std::io::stderr().is_terminal() {
            View::Terminal { drawn: None }
        } else {
            View::Summary
        },
    };
    follower.view.say(told::waits(&shown));
    follower.view.say(told::joins(&shown));
    let id = shown.job.to_string();
    let mut last_heard = Instant::now();
    loop {
        match follower.connection(&client, &id, &mut last_heard).await? {
            Over::End => break,
            Over::Lost if last_heard.elapsed() > PATIENCE => {
                follower.view.wipe();
                return Err(Error::Lost { job: id });
            }
            Over::Lost => tokio::time::sleep(PAUSE).await,
        }
    }
    follower.view.wipe();
    if !global.json {
        output::print(&format!("{}\n", follower.progress.summary()))?;
    }
    Ok(exit::of_operations(&follower.progress.ends()))
}

/// Why a connection is over.
enum Over {
    End,
    Lost,
}

struct Follower {
    job: JobId,
    progress: Progress,
    heard: Heard,
    /// The last that was said of its rollout.
    told: Option<String>,
    view: View,
}

impl Follower {
    async fn connection(
        &mut self,
        client: &Client,
        job: &str,
        last_heard: &mut Instant,
    ) -> Result<Over, Error> {
        let asked = client.get(&["jobs", job, "events"])?.events();
        let mut events: EventStream<'_> = match tokio::time::timeout(SILENCE, asked).await {
            Ok(Ok(events)) => events,
            Err(_) | Ok(Err(Error::Unreachable { .. })) => return Ok(Over::Lost),
            // The host is starting or stopping: it will be there again.
            Ok(Err(Error::Refused(problem))) if problem.status >= 500 => return Ok(Over::Lost),
            Ok(Err(error)) => return Err(error),
        };
        loop {
            let Ok(Ok(Some(news))) = tokio::time::timeout(SILENCE, events.next()).await else {
                return Ok(Over::Lost);
            };
            *last_heard = Instant::now();
            for event in news {
                if self.event(&event)? {
                    return Ok(Over::End);
                }
            }
            self.view.draw(&self.progress);
        }
    }

    /// Handles one event; true for the last one.
    fn event(&mut self, event: &Event) -> Result<bool, Error> {
        match event.name.as_str() {
            event::STATE => {
                let state: StateEvent = read(&event.data)?;
                self.progress.set(state.operation, state.state, None);
            }
            event::RESULT => {
                let result: OperationResult = read(&event.data)?;
                self.progress
                    .set(result.operation, result.state, result.exit_code);
            }
            event::ROLLOUT => {
                let rollout: Rollout = read(&event.data)?;
                if self.told.as_ref() != Some(&event.data) {
                    self.view.say(told::goes(self.job, &rollout));
                    self.told = Some(event.data.clone());
                }
            }
            _ => {}
        }
        // A connection that was lost and made again tells everything once more.
        if matches!(self.view, View::Events) && self.heard.is_new(event)? {
            let data: serde_json::Value = read(&event.data)?;
            output::json_line(&serde_json::json!({"event": event.name, "data": data}))?;
        }
        Ok(event.name == event::END)
    }
}

fn read<T: DeserializeOwned>(data: &str) -> Result<T, Error> {
    serde_json::from_str(data).map_err(|error| Error::Answer(error.to_string()))
}

/// What was heard before.
#[derive(Debug, Default)]
struct Heard {
    /// All that is no output, as it came.
    events: HashSet<(String, String)>,
    /// Up to where in each stream.
    output: HashMap<(OperationId, OutputStream), u64>,
}

impl Heard {
    fn is_new(&mut self, event: &Event) -> Result<bool, Error> {
        if event.name != event::OUTPUT {
            // A rollout may be paused, resumed and paused again; each says since when.
            return Ok(self.events.insert((event.name.clone(), event.data.clone())));
        }
        let piece: OutputEvent = read(&event.data)?;
        let end = piece.offset.saturating_add(piece.data.0.len() as u64);
        let known = self
            .output
            .entry((piece.operation, piece.stream))
            .or_default();
        let is_new = end > *known || (piece.data.0.is_empty() && piece.offset > *known);
        *known = end.max(*known);
        Ok(is_new)
    }
}

/// Where the operations of a job are.
#[derive(Debug, Default)]
struct Progress {
    operations: HashMap<OperationId, (State, Option<i32>)>,
    counts: HashMap<State, usize>,
}

impl Progress {
    fn of(job: &Job) -> Self {
        let mut progress = Self::default();
        for operation in &job.operations {
            progress.set(operation.operation, operation.state, operation.exit_code);
        }
        progress
    }

    /// What has ended stays so, whatever is told once more.
    fn set(&mut self, operation: OperationId, state: State, exit_code: Option<i32>) {
        let before = self.operations.get(&operation).copied();
        if let Some((before, _)) = before {
            if before.is_terminal() && !state.is_terminal() {
                return;
            }
            if let Some(count) = self.counts.get_mut(&before) {
                *count -= 1;
            }
        }
        let exit_code = exit_code.or(before.and_then(|(_, exit_code)| exit_code));
        self.operations.insert(operation, (state, exit_code));
        *self.counts.entry(state).or_default() += 1;
    }

    fn ended(&self) -> usize {
        let ended = self.counts.iter().filter(|(state, _)| state.is_terminal());
        ended.map(|(_, count)| count).sum()
    }

    fn ends(&self) -> Vec<(State, Option<i32>)> {
        self.operations.values().copied().collect()
    }

    /// `succeeded 4, failed 1`: what there is, in the order in which operations go.
    fn by_state(&self) -> String {
        let count = |state: &State| self.counts.get(state).copied().unwrap_or_default();
        let there = State::ALL.iter().filter(|state| count(state) > 0);
        let words = there.map(|state| format!("{} {}", state.as_str(), count(state)));
        words.collect::<Vec<_>>().join(", ")
    }

    fn summary(&self) -> String {
        let all = self.operations.len();
        let noun = if all == 1 { "operation" } else { "operations" };
        format!("{all} {noun}: {}", self.by_state())
    }

    /// One line of at most `width` characters.
    fn picture(&self, width: usize) -> String {
        let (all, ended) = (self.operations.len(), self.ended());
        let done = (BAR * ended).checked_div(all).unwrap_or(BAR);
        let (done, left) = ("#".repeat(done), ".".repeat(BAR - done));
        let line = format!("[{done}{left}] {ended}/{all} {}", self.by_state());
        line.chars().take(width).collect()
    }
}

/// How it is shown.
#[derive(Debug)]
enum View {
    /// Every event, as a line of JSON.
    Events,
    /// A line on stderr that is drawn again and again.
    Terminal { drawn: Option<Instant> },
    /// Nothing before the end.
    Summary,
}

impl View {
    fn draw(&mut self, progress: &Progress) {
        let Self::Terminal { drawn } = self else {
            return;
        };
        let is_over = progress.ended() == progress.operations.len();
        if drawn.is_some_and(|drawn| drawn.elapsed() < PICTURE) && !is_over {
            return;
        }
        *drawn = Some(Instant::now());
        let stderr = std::io::stderr();
        let columns = terminal_size_of(&stderr).map_or(80, |(Width(columns), _)| columns);
        let line = progress.picture(usize::from(columns).saturating_sub(1));
        // Where there is no terminal any more there is nobody to show it to.
        let mut stderr = stderr.lock();
        let _ = write!(stderr, "\r\x1b[2K{line}").and_then(|()| stderr.flush());
    }

    /// Why it does not go on, on a line of its own above the one that is drawn.
    fn say(&self, line: Option<String>) {
        let (Some(line), Self::Terminal { .. }) = (line, self) else {
            return;
        };
        self.wipe();
        output::complain(&line);
    }

    fn wipe(&self) {
        if matches!(self, Self::Terminal { drawn: Some(_) }) {
            let mut stderr = std::io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[2K").and_then(|()| stderr.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(states: &[State]) -> Progress {
        let mut progress = Progress::default();
        for state in states {
            progress.set(OperationId::generate(), *state, None);
        }
        progress
    }

    #[test]
    fn a_picture_has_a_bar_and_counts_by_state_and_fits_its_line() {
        let states = [State::Held, State::Running, State::Succeeded, State::Failed];
        let progress = progress(&states);
        assert_eq!(
            progress.picture(200),
            "[############............] 2/4 held 1, running 1, succeeded 1, failed 1"
        );
        assert_eq!(progress.picture(10), "[#########");
        assert_eq!(
            progress.summary(),
            "4 operations: held 1, running 1, succeeded 1, failed 1"
        );
    }

    #[test]
    fn what_has_ended_stays_so_whatever_is_told_once_more() {
        let mut progress = Progress::default();
        let operation = OperationId::generate();
        progress.set(operation, State::Running, None);
        progress.set(operation, State::Failed, Some(3));
        progress.set(operation, State::Running, None);
        progress.set(operation, State::Failed, None);
        assert_eq!(progress.summary(), "1 operation: failed 1");
        assert_eq!(progress.ends(), [(State::Failed, Some(3))]);
    }

    #[test]
    fn events_that_come_again_are_heard_once() {
        let mut heard = Heard::default();
        let operation = OperationId::generate();
        let output = |offset: u64, data: &str| {
            Event {
            name: event::OUTPUT.to_owned(),
            data: serde_json::json!({
                "operation": operation, "machine": "m", "stream": "stdout", "offset": offset, "data": data,
            })
            .to_string(),
        }
        };
        let state = Event {
            name: event::STATE.to_owned(),
            data: "{}".to_owned(),
        };
        for (event, expected) in [
            (state.clone(), true),
            (state, false),
            (output(0, "aGk="), true),
            (output(0, "aGk="), false),
            (output(2, "aGk="), true),
            (output(9, ""), true),
            (output(9, ""), false),
        ] {
            assert_eq!(heard.is_new(&event).expect("reads"), expected, "{event:?}");
        }
    }
}
