//! From what the shim tells to the report of an operation.

use std::path::{Path, PathBuf};

use sluice_protocol::causes::Causes;
use sluice_protocol::ending::{Block, Ending, Signal};
use sluice_protocol::message::operation::{Chunk, OutputStream, Progress};
use sluice_protocol::report::{Context, Exit, LimitHit, Report, StreamEnd};
use sluice_protocol::units::Span;
use sluice_shim::event::{self, End, Ends, Event, Stage, Stream};
use sluice_shim::kept;

use crate::clock::now;
use crate::exec::spawn::Operation as Running;
use crate::exec::spool::{self, FollowError, Follower};
use crate::journal::Journal;
use crate::ledger::Passed;
use crate::operation::{Canceled, somebody};

/// Where events come from: a shim that we started, or the spool of one that an earlier agent did.
pub(crate) enum Events {
    Live(Box<Running>),
    Adopted(Box<Follower>, PathBuf),
}

impl Events {
    async fn next(&mut self) -> Result<Option<Event>, FollowError> {
        match self {
            Self::Live(running) => running.next().await,
            Self::Adopted(follower, _) => follower.next().await,
        }
    }

    fn spool(&self) -> &Path {
        match self {
            Self::Live(running) => running.spool(),
            Self::Adopted(_, spool) => spool,
        }
    }

    fn cancel(&self) {
        match self {
            Self::Live(running) => running.cancel(),
            Self::Adopted(_, spool) => {
                if let Err(error) = spool::cancel(spool) {
                    tracing::warn!(error = %Causes(&error), "an operation could not be canceled");
                }
            }
        }
    }
}

/// Follows the shim's events to the last and makes the report of them.
#[tracing::instrument(level = "debug", skip_all)]
pub(crate) async fn follow(
    mut source: Events,
    journal: &Journal,
    mut canceled: Canceled,
    passed: &Passed,
) -> Report {
    let mut report = Report::without_process(Ending::Interrupted, now());
    let mut ends = None;
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
                if let Event::Exited(outcome) = &event {
                    ends = Some(outcome.output);
                }
                take_event(&mut report, event, journal, asked.as_deref(), passed);
            }
            Ok(None) => break,
            Err(FollowError::Interrupted { notes }) => {
                report.notes.extend(notes);
                break;
            }
            Err(error) => {
                report.notes.push(Causes(&error).to_string());
                break;
            }
        }
    }
    if report.started_at.is_some() {
        let ends = match ends {
            Some(ends) => ends,
            None => ends_in(source.spool(), &mut report.notes).await,
        };
        (report.stdout, report.stderr) = (end(ends.stdout), end(ends.stderr));
    }
    report.finished_at = report.finished_at.max(now());
    report
}

/// What became of the output where the shim did not come to say it.
async fn ends_in(spool: &Path, notes: &mut Vec<String>) -> Ends {
    let spool = spool.to_owned();
    // Where blocking is allowed: all of it is read.
    let found = tokio::task::spawn_blocking(move || kept::ends(&spool)).await;
    let problem = match found {
        Ok(Ok(ends)) => return ends,
        Ok(Err(error)) => Causes(&error).to_string(),
        Err(error) => error.to_string(),
    };
    notes.push(format!("how much the script wrote is not known: {problem}"));
    Ends::default()
}

const fn end(of: event::StreamEnd) -> StreamEnd {
    StreamEnd {
        kept: of.written.saturating_sub(of.lost),
        lost: of.lost,
        head: of.head,
    }
}

/// What the host calls a stream of the shim's.
pub(crate) const fn told_as(stream: Stream) -> OutputStream {
    match stream {
        Stream::Stdout => OutputStream::Stdout,
        Stream::Stderr => OutputStream::Stderr,
    }
}

fn take_event(
    report: &mut Report,
    event: Event,
    journal: &Journal,
    canceled_by: Option<&str>,
    passed: &Passed,
) {
    match event {
        Event::Started(started) => {
            report.started_at = Some(started.at.0);
            report.run_as = Some(passed.run_as.clone());
            report.context = Some(Context {
                uid: started.uid,
                gids: started.gids,
                cwd: started.cwd.to_string_lossy().into_owned(),
                interpreter: started.interpreter.to_string_lossy().into_owned(),
            });
            report.containment = Some(started.containment.to_string());
            report.confinement = Some(started.confinement.to_string());
            journal.push(Progress::Running {
                started_at: started.at.0,
            });
        }
        Event::Output { stream, at, bytes } => journal.output(Chunk {
            stream: told_as(stream),
            offset: at,
            bytes: bytes.into_vec(),
        }),
        Event::Spooled => journal.spooled(),
        Event::Note { text } => report.notes.push(text),
        Event::Exited(outcome) => {
            journal.spool_takes(outcome.spooled);
            take_outcome(report, outcome, canceled_by, passed.time_limit);
        }
        Event::Failed { stage, reason } => {
            // Whatever was said before: nothing was started.
            report.started_at = None;
            (report.run_as, report.context) = (None, None);
            (report.containment, report.confinement) = (None, None);
            report.ending = match (stage, canceled_by) {
                (Stage::Canceled, by) => Ending::Canceled(by.unwrap_or("the agent").to_owned()),
                (Stage::User | Stage::Confinement, _) => {
                    Ending::Blocked(Block::machine_policy(reason))
                }
                (_, _) => Ending::Error(reason),
            };
        }
        Event::Prepared(_) | Event::HeadFull(_) | Event::TailAt { .. } => {}
    }
}

fn take_outcome(
    report: &mut Report,
    outcome: event::Outcome,
    canceled_by: Option<&str>,
    limit: Span,
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
        Ending::TimedOut(limit)
    } else {
        natural
    };
}

#[cfg(test)]
mod tests {
    use sluice_shim::event::{Confinement, ContainmentKind, Started, UnixMillis};

    use super::*;

    #[test]
    fn an_operation_that_did_not_come_to_its_script_has_no_context_whatever_was_said_before() {
        let passed = crate::testing::passed();
        let started = Event::Started(Started {
            at: UnixMillis(1),
            pid: 2,
            uid: 3,
            gids: vec![4],
            cwd: "/".into(),
            interpreter: "/bin/sh".into(),
            containment: ContainmentKind::Hybrid,
            confinement: Confinement::default(),
        });
        let failed = Event::Failed {
            stage: Stage::Interpreter,
            reason: "no".to_owned(),
        };
        let mut report = Report::without_process(Ending::Interrupted, 5);
        for event in [started, failed] {
            take_event(&mut report, event, &Journal::default(), None, &passed);
        }
        let expected = Report::without_process(Ending::Error("no".to_owned()), 5);
        assert_eq!(report, expected);
    }
}
