//! From the start of the script to the end of its last process.
//!
//! ```text
//!            time limit, cancel                     grace over
//! Running ----------------------> Terminating ------------------> Killing --\
//!    |                                 | all gone                    | all gone (or it cannot be killed: noted)
//!    | script ended, others live       v                             v
//!    +----------> Draining ---------> Closing <----------------------+       Closing: what is left in the pipes,
//!    |            at most 300 ms -----^ all gone        else Killing         at most 150 ms
//!    | all gone                       |
//!    +--------------------------------+--> done
//! ```
//! "All gone" is certain: the shim is a child subreaper, so whatever the script started becomes its child, and `waitpid`
//! says when there is none. [`Phase`] decides with the time as an argument; [`Supervisor`] does what it says.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::unistd::{Pid, read};

use crate::containment::Containment;
use crate::event::{End, Ends, LimitHit, Outcome, Stream, UnixMillis, Usage};
use crate::journal::Journal;
use crate::kept;
use crate::mask::{Mask, Patterns};
use crate::output::{Capture, index};
use crate::pace::Pace;
use crate::processes::{self, Reaped, Seen};
use crate::spec::{Limits, Secret};

/// For processes that the script leaves behind while they hold its output, such as `> >(tee log)` at its end.
const DRAIN: Duration = Duration::from_millis(300);
/// For those that do not: time to end by themselves, so that one about to exit is not called a survivor.
const STRAGGLE: Duration = Duration::from_millis(30);
/// For what is in the pipes when all are gone: somebody outside the tree holds them.
const CLOSE: Duration = Duration::from_millis(150);
/// Between two rounds of killing, and how long they go on for processes that the kernel does not let go.
const KILL_AGAIN: Duration = Duration::from_millis(10);
const KILL_FOR: Duration = Duration::from_secs(5);
const PIECE: usize = 64 * 1024;
/// Less where secrets are looked for in it, which may take long: the time limit and cancel are looked at in between.
const MASKED_PIECE: usize = 4 * 1024;

/// What was made for the operation before the script was let go.
pub(crate) struct Running<'a> {
    pub(crate) pid: Pid,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    pub(crate) signals: &'a SignalFd,
    pub(crate) containment: &'a Containment,
    pub(crate) ephemeral_uid: Option<u32>,
    pub(crate) limits: &'a Limits,
    pub(crate) secrets: &'a [Secret],
    pub(crate) spool: &'a Path,
}

/// Runs until every process is gone and all output that is kept has been emitted.
pub(crate) fn supervise(
    running: Running<'_>,
    journal: &mut Journal,
    notes: &mut Vec<String>,
) -> Outcome {
    let started = Instant::now();
    let patterns = Patterns::of(running.secrets);
    let mut supervisor = Supervisor {
        phase: Phase::Running {
            until: started + running.limits.time,
        },
        piece: if running.secrets.is_empty() {
            PIECE
        } else {
            MASKED_PIECE
        },
        masks: [Mask::new(&patterns), Mask::new(&patterns)],
        capture: Capture::new(running.limits.output),
        pace: Pace::new(started),
        pipes: [Some(running.stdout), Some(running.stderr)],
        pid: running.pid,
        status: None,
        childless: false,
        cancel_asked: false,
        timed_out: false,
        canceled: false,
        killed: BTreeSet::new(),
        signals: running.signals,
        containment: running.containment,
        ephemeral_uid: running.ephemeral_uid,
        grace: running.limits.grace,
    };
    supervisor.run(journal, notes);
    supervisor.finish(started, running.spool, journal, notes)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Running { until: Instant },
    Terminating { until: Instant },
    Draining { until: Instant },
    Killing { next: Instant, until: Instant },
    Closing { until: Instant },
    Done,
}

/// What a phase is decided by.
#[derive(Debug, Clone, Copy)]
struct Facts {
    now: Instant,
    script_ended: bool,
    childless: bool,
    streams_ended: bool,
    cancel_asked: bool,
    grace: Duration,
}

/// What to do on the way into the next phase.
#[derive(Debug, PartialEq)]
enum Act {
    Nothing,
    Terminate { timed_out: bool },
    Kill,
    GiveUp,
}

impl Phase {
    #[must_use]
    fn next(self, facts: Facts) -> (Self, Act) {
        let Facts {
            now,
            script_ended,
            childless,
            streams_ended,
            cancel_asked,
            grace,
        } = facts;
        let closing = Self::Closing { until: now + CLOSE };
        let killing = Self::Killing {
            next: now + KILL_AGAIN,
            until: now + KILL_FOR,
        };
        match self {
            Self::Running { .. }
            | Self::Terminating { .. }
            | Self::Draining { .. }
            | Self::Killing { .. }
                if childless =>
            {
                (closing, Act::Nothing)
            }
            Self::Running { .. } if script_ended => (
                Self::Draining {
                    until: now + if streams_ended { STRAGGLE } else { DRAIN },
                },
                Act::Nothing,
            ),
            Self::Running { .. } if cancel_asked => (
                Self::Terminating { until: now + grace },
                Act::Terminate { timed_out: false },
            ),
            Self::Running { until } if now >= until => (
                Self::Terminating { until: now + grace },
                Act::Terminate { timed_out: true },
            ),
            Self::Draining { until } if streams_ended && until > now + STRAGGLE => (
                Self::Draining {
                    until: now + STRAGGLE,
                },
                Act::Nothing,
            ),
            Self::Terminating { until } | Self::Draining { until } if now >= until => {
                (killing, Act::Kill)
            }
            Self::Killing { until, .. } if now >= until => (closing, Act::GiveUp),
            Self::Killing { next, until } if now >= next => (
                Self::Killing {
                    next: now + KILL_AGAIN,
                    until,
                },
                Act::Kill,
            ),
            Self::Closing { until } if streams_ended || now >= until => (Self::Done, Act::Nothing),
            same => (same, Act::Nothing),
        }
    }

    fn wakes_at(self) -> Option<Instant> {
        match self {
            Self::Running { until }
            | Self::Terminating { until }
            | Self::Draining { until }
            | Self::Closing { until } => Some(until),
            Self::Killing { next, .. } => Some(next),
            Self::Done => None,
        }
    }
}

struct Supervisor<'a> {
    phase: Phase,
    /// What the script was given in confidence, out of each stream before anything else sees it.
    /// How much output is read at once.
    piece: usize,
    masks: [Mask; 2],
    capture: Capture,
    pace: Pace,
    /// Standard output and error, until they end.
    pipes: [Option<OwnedFd>; 2],
    pid: Pid,
    status: Option<ExitStatus>,
    childless: bool,
    cancel_asked: bool,
    timed_out: bool,
    canceled: bool,
    killed: BTreeSet<Seen>,
    signals: &'a SignalFd,
    containment: &'a Containment,
    ephemeral_uid: Option<u32>,
    grace: Duration,
}

impl Supervisor<'_> {
    fn run(&mut self, journal: &mut Journal, notes: &mut Vec<String>) {
        let mut buffer = vec![0; self.piece];
        while self.phase != Phase::Done {
            let facts = Facts {
                now: Instant::now(),
                script_ended: self.status.is_some(),
                childless: self.childless,
                streams_ended: self.pipes.iter().all(Option::is_none),
                cancel_asked: self.cancel_asked,
                grace: self.grace,
            };
            let (next, act) = self.phase.next(facts);
            let moved = next != self.phase;
            self.phase = next;
            match act {
                Act::Nothing => {}
                Act::Terminate { timed_out } => {
                    (self.timed_out, self.canceled) = (timed_out, !timed_out);
                    let members = self.members();
                    processes::signal(&members, Signal::SIGTERM);
                    // A stopped process gets the signal only once it goes on.
                    processes::signal(&members, Signal::SIGCONT);
                }
                Act::Kill => self.kill(),
                Act::GiveUp => {
                    let left: Vec<i32> = self.members().iter().map(|seen| seen.pid).collect();
                    notes.push(processes::not_let_go(&left));
                }
            }
            if !moved {
                self.wait(journal, &mut buffer);
            }
        }
    }

    /// Sleeps until something happens, and takes it in.
    fn wait(&mut self, journal: &mut Journal, buffer: &mut [u8]) {
        let now = Instant::now();
        let rest = self.pace.rests_until(now);
        let wakes_at = [self.phase.wakes_at(), rest, journal.flushes_at()];
        let left = wakes_at
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(now)
            .saturating_duration_since(now);
        // Rounded up to the clock of poll, or the loop would spin through the last millisecond.
        let timeout =
            PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
        let mut fds = Vec::with_capacity(4);
        fds.push(PollFd::new(self.signals.as_fd(), PollFlags::POLLIN));
        let readable: Vec<(Stream, usize)> = [Stream::Stdout, Stream::Stderr]
            .into_iter()
            .zip(&self.pipes)
            .filter(|_| rest.is_none())
            .filter_map(|(stream, pipe)| {
                fds.push(PollFd::new(pipe.as_ref()?.as_fd(), PollFlags::POLLIN));
                Some((stream, fds.len() - 1))
            })
            .collect();
        let agent = journal.waiting().map(|fd| {
            fds.push(PollFd::new(fd, PollFlags::POLLOUT));
            fds.len() - 1
        });
        if poll(&mut fds, timeout).is_err() {
            return;
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        drop(fds);
        for (stream, at) in readable {
            if ready[at] {
                self.read(stream, journal, buffer);
            }
        }
        if agent.is_some_and(|at| ready[at]) {
            journal.send();
        }
        if ready[0] {
            self.take_signals();
        }
        journal.flush(now);
    }

    fn read(&mut self, stream: Stream, journal: &mut Journal, buffer: &mut [u8]) {
        let slot = &mut self.pipes[usize::from(stream == Stream::Stderr)];
        let Some(pipe) = slot else { return };
        match read(&*pipe, buffer) {
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Ok(0) | Err(_) => *slot = None,
            Ok(length) => {
                self.pace.read(length);
                let bytes = self.masks[index(stream)].push(&buffer[..length]);
                journal.output(self.capture.push(stream, &bytes));
            }
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            if info.ssi_signo == Signal::SIGTERM as u32 {
                self.cancel_asked = true;
            }
        }
        loop {
            match processes::reap() {
                Reaped::Running => return,
                Reaped::Ended(pid, status) if pid == self.pid.as_raw() => {
                    self.status = Some(status);
                }
                // An orphan of the script.
                Reaped::Ended(..) => {}
                Reaped::Childless => {
                    self.childless = true;
                    return;
                }
            }
        }
    }

    fn members(&self) -> BTreeSet<Seen> {
        let mut members = processes::descendants(std::process::id());
        members.extend(self.containment.members());
        if let Some(uid) = self.ephemeral_uid {
            members.extend(processes::of_uid(uid));
        }
        members
    }

    fn kill(&mut self) {
        let members = self.members();
        self.containment.kill();
        processes::signal(&members, Signal::SIGKILL);
        self.killed.extend(members);
    }

    fn finish(
        mut self,
        started: Instant,
        spool: &Path,
        journal: &mut Journal,
        notes: &mut Vec<String>,
    ) -> Outcome {
        let duration = started.elapsed();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let bytes = self.masks[index(stream)].finish();
            journal.output(self.capture.push(stream, &bytes));
        }
        journal.output(self.capture.finish());
        let (head, written) = (self.capture.head(), self.capture.written());
        let output = kept::ends_of(spool, head, written).unwrap_or_else(|error| {
            notes.push(format!(
                "how much of the output is kept is not known: {error}"
            ));
            Ends::whole(written)
        });
        self.killed.retain(|seen| seen.pid != self.pid.as_raw());
        let end = self.status.map_or(End::Unkillable, end);
        // A process that a write limit ends has no counter, but a signal of its own; a shell passes it on as 128 + n.
        let file_size = match &end {
            End::Signal { number, .. } => *number == libc::SIGXFSZ,
            End::Code(code) => *code == 128 + libc::SIGXFSZ,
            End::Unkillable => false,
        };
        let limit_hit = self
            .containment
            .limit_hit()
            .or(file_size.then_some(LimitHit::FileSize))
            .or((output.lost() > 0).then_some(LimitHit::Output));
        Outcome {
            at: UnixMillis::now(),
            duration,
            end,
            timed_out: self.timed_out,
            // Not set by a request that came when the script had ended, or was being ended for its time.
            canceled: self.canceled,
            limit_hit,
            survivors_killed: u32::try_from(self.killed.len()).unwrap_or(u32::MAX),
            output,
            spooled: journal.spooled(),
            usage: usage(),
        }
    }
}

fn end(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Code(code),
        (None, Some(number)) => End::Signal {
            number,
            name: processes::signal_name(number),
            core_dumped: status.core_dumped(),
        },
        // Stopped and continued children are not asked for.
        (None, None) => End::Unkillable,
    }
}

fn usage() -> Usage {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else {
        return Usage::default();
    };
    let time = |value: nix::sys::time::TimeVal| {
        Duration::from_secs(value.tv_sec().unsigned_abs())
            + Duration::from_micros(value.tv_usec().unsigned_abs())
    };
    Usage {
        user: time(usage.user_time()),
        system: time(usage.system_time()),
        largest_resident: usage.max_rss().unsigned_abs() * 1024,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(now: Instant) -> Facts {
        Facts {
            now,
            script_ended: false,
            childless: false,
            streams_ended: false,
            cancel_asked: false,
            grace: Duration::from_secs(5),
        }
    }

    #[test]
    fn the_time_limit_terminates_then_kills_until_all_are_gone() {
        let t = Instant::now();
        let running = Phase::Running { until: t };
        let (terminating, act) = running.next(facts(t));
        assert_eq!(act, Act::Terminate { timed_out: true });
        // The script alone ending does not end the grace of the others.
        let (same, act) = terminating.next(Facts {
            script_ended: true,
            ..facts(t)
        });
        assert_eq!((same, act), (terminating, Act::Nothing));
        let later = t + Duration::from_secs(5);
        let (killing, act) = terminating.next(facts(later));
        assert_eq!(act, Act::Kill);
        let (killing, act) = killing.next(facts(later + KILL_AGAIN));
        assert_eq!(act, Act::Kill);
        assert!(matches!(
            killing.next(Facts {
                childless: true,
                ..facts(later)
            }),
            (Phase::Closing { .. }, Act::Nothing)
        ));
        assert!(matches!(
            killing.next(facts(later + KILL_FOR)),
            (Phase::Closing { .. }, Act::GiveUp)
        ));
    }

    #[test]
    fn a_request_to_cancel_counts_only_while_the_script_runs() {
        let t = Instant::now();
        let running = Phase::Running {
            until: t + Duration::from_secs(60),
        };
        let asked = Facts {
            cancel_asked: true,
            ..facts(t)
        };
        assert_eq!(running.next(asked).1, Act::Terminate { timed_out: false });
        assert_eq!(
            running
                .next(Facts {
                    script_ended: true,
                    ..asked
                })
                .1,
            Act::Nothing
        );
        assert_eq!(
            running
                .next(Facts {
                    childless: true,
                    ..asked
                })
                .1,
            Act::Nothing
        );
    }

    #[test]
    fn what_the_script_leaves_behind_gets_a_short_drain_and_less_without_the_streams() {
        let t = Instant::now();
        let ended = Facts {
            script_ended: true,
            ..facts(t)
        };
        let (draining, _) = Phase::Running { until: t }.next(ended);
        assert_eq!(draining, Phase::Draining { until: t + DRAIN });
        let (draining, _) = draining.next(Facts {
            streams_ended: true,
            ..ended
        });
        assert_eq!(
            draining,
            Phase::Draining {
                until: t + STRAGGLE
            }
        );
        assert_eq!(
            draining
                .next(Facts {
                    now: t + STRAGGLE,
                    ..ended
                })
                .1,
            Act::Kill
        );
    }

    #[test]
    fn the_pipes_are_not_waited_for_longer_than_a_moment() {
        let t = Instant::now();
        let (closing, _) = Phase::Running { until: t }.next(Facts {
            childless: true,
            ..facts(t)
        });
        assert_eq!(closing.next(facts(t)).0, closing);
        assert_eq!(closing.next(facts(t + CLOSE)).0, Phase::Done);
        assert_eq!(
            closing
                .next(Facts {
                    streams_ended: true,
                    ..facts(t)
                })
                .0,
            Phase::Done
        );
    }
}
