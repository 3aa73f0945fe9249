//! What machines run: scripts that take their time, write something and end, as far as a spool can tell.
//!
//! They stand in for shims: a script goes on while its agent is gone, and is known by its spool alone.

use std::collections::{HashMap, VecDeque};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use sluice_agent::exec::executor::StandIn;
use sluice_protocol::ids::OperationId;
use sluice_shim::event::{
    Confinement, ContainmentKind, End, Ends, Event, Outcome, Started, Stream, UnixMillis, Usage,
};
use sluice_shim::frame;
use sluice_transport::surroundings;

use crate::random::Random;
use crate::world::Clock;

/// Scripts of all machines. A cheap handle.
#[derive(Debug, Clone)]
pub struct Scripts(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    random: Random,
    runs: HashMap<OperationId, Run>,
    running: Vec<Running>,
}

/// What became of one operation's script.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// When it was started, in milliseconds since 1970: once, one would hope.
    pub starts: Vec<u64>,
    /// What it writes to standard output.
    pub stdout: Vec<u8>,
    /// What it ends with.
    pub code: i32,
    /// It has come to its end.
    pub has_ended: bool,
    /// What owned it was killed before.
    pub was_killed: bool,
}

#[derive(Debug)]
struct Running {
    operation: OperationId,
    /// Held as a shim does.
    _lock: File,
    events: File,
    /// What is still to come, and when.
    plan: VecDeque<(Duration, Event)>,
}

impl Scripts {
    /// None has run yet.
    #[must_use]
    pub fn new(random: Random, clock: Clock) -> Self {
        Self(Arc::new(Shared {
            clock,
            state: Mutex::new(State {
                random,
                runs: HashMap::new(),
                running: Vec::new(),
            }),
        }))
    }

    /// What became of every script so far.
    #[must_use]
    pub fn runs(&self) -> HashMap<OperationId, Run> {
        self.lock().runs.clone()
    }

    /// Whether scripts are running.
    #[must_use]
    pub fn are_running(&self) -> bool {
        !self.lock().running.is_empty()
    }

    /// Has scripts do what they do until `now`.
    pub fn go_on(&self, now: Duration) {
        let mut state = self.lock();
        let State { runs, running, .. } = &mut *state;
        running.retain_mut(|script| {
            while let Some((at, _)) = script.plan.front()
                && *at <= now
            {
                if let Some((_, event)) = script.plan.pop_front() {
                    write(&mut script.events, &event);
                }
            }
            let goes_on = !script.plan.is_empty();
            if !goes_on && let Some(run) = runs.get_mut(&script.operation) {
                run.has_ended = true;
            }
            goes_on
        });
    }

    /// Kills what owns one of the scripts: nobody will say how it ended.
    pub fn kill_one(&self) {
        let mut state = self.lock();
        if state.running.is_empty() {
            return;
        }
        let count = state.running.len() as u64;
        let at = usize::try_from(state.random.within(0..count)).unwrap_or_default();
        let killed = state.running.swap_remove(at);
        if let Some(run) = state.runs.get_mut(&killed.operation) {
            run.was_killed = true;
        }
    }

    /// Kills all of them.
    pub fn kill_all(&self) {
        while self.are_running() {
            self.kill_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StandIn for Scripts {
    fn start(&self, operation: &str, spool: PathBuf) {
        let operation: OperationId = operation.parse().expect("is an id");
        let (now, millis) = (self.0.clock.now(), millis());
        let mut state = self.lock();
        let run = state.runs.entry(operation).or_default();
        run.starts.push(millis);
        if run.starts.len() > 1 {
            // As a shim: what is there is not touched.
            return;
        }
        let (run, plan) = draw(&mut state.random, now, millis);
        state.runs.insert(operation, run);
        let (lock, mut events) = make(&spool);
        write(&mut events, &started(millis));
        state.running.push(Running {
            operation,
            _lock: lock,
            events,
            plan,
        });
    }
}

/// What a script will do: most are short, some write much.
fn draw(random: &mut Random, now: Duration, millis: u64) -> (Run, VecDeque<(Duration, Event)>) {
    let longest = random.one_of(&[20, 500, 5_000, 30_000]);
    let lasts = Duration::from_millis(random.within(1..longest));
    let most = random.one_of(&[1, 100, 5_000, 60_000, 250_000]);
    let size = random.within(0..most);
    let stdout: Vec<u8> = (0..size)
        .map(|at| b'a' + u8::try_from((at / 7 + at) % 26).unwrap_or_default())
        .collect();
    let code = random.one_of(&[0, 0, 3]);
    let mut plan = VecDeque::new();
    let pieces = random.within(1..12);
    let piece = usize::try_from(size / pieces + 1).unwrap_or(usize::MAX);
    let count = stdout.chunks(piece).count();
    for (number, bytes) in stdout.chunks(piece).enumerate() {
        let share = u32::try_from(number + 1).unwrap_or(u32::MAX);
        let of = u32::try_from(count + 1).unwrap_or(u32::MAX);
        let event = Event::Output {
            stream: Stream::Stdout,
            at: (number * piece) as u64,
            bytes: bytes.to_vec().into(),
        };
        plan.push_back((now + lasts * share / of, event));
    }
    let lasting = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
    let outcome = Outcome {
        at: UnixMillis(millis + lasting),
        duration: lasts,
        end: End::Code(code),
        timed_out: false,
        canceled: false,
        limit_hit: None,
        survivors_killed: 0,
        output: Ends::whole([size, 0]),
        spooled: size,
        usage: Usage::default(),
    };
    plan.push_back((now + lasts, Event::Exited(outcome)));
    let run = Run {
        starts: vec![millis],
        stdout,
        code,
        ..Run::default()
    };
    (run, plan)
}

/// A spool as a shim makes it: see `sluice_shim::spool`.
fn make(spool: &Path) -> (File, File) {
    DirBuilder::new()
        .mode(0o700)
        .create(spool)
        .expect("makes a spool");
    let file = |name: &str| {
        OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(spool.join(name))
            .expect("makes a file")
    };
    let (mut lock, events) = (file("lock"), file("events"));
    lock.lock().expect("is nobody's");
    lock.write_all(std::process::id().to_string().as_bytes())
        .expect("writes");
    (lock, events)
}

fn write(events: &mut File, event: &Event) {
    events.write_all(&frame::encode(event)).expect("writes");
}

fn started(millis: u64) -> Event {
    Event::Started(Started {
        at: UnixMillis(millis),
        pid: 2,
        uid: 65_534,
        gids: vec![65_534],
        cwd: "/".into(),
        interpreter: "/bin/sh".into(),
        containment: ContainmentKind::None,
        confinement: Confinement::default(),
    })
}

fn millis() -> u64 {
    let since = surroundings::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
