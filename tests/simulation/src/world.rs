//! Programs in simulated time.
//!
//! Each has a run time of its own, of one thread and with a paused clock, so that it can be killed as a process can: what it
//! had in memory is gone, and what it was about to do does not happen. They are run in turns, each up to the same moment;
//! then the network delivers what is due. A turn is as long as it takes to the next datagram, and short while there are any,
//! so that nothing arrives much later than it should.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use sluice_transport::surroundings::{self, Simulated};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::network::Network;
use crate::random::{Random, SharedRandom};

/// How long a commit of a database takes, in milliseconds, on good disks and on bad ones.
const COMMIT: &[u64] = &[1, 5, 50, 500];
/// The shortest turn, and the longest one while datagrams are under way and while there are none.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(10);
const LONGEST_IDLE: Duration = Duration::from_secs(1);

/// The clock of a world: how long it has existed.
#[derive(Debug, Clone, Default)]
pub struct Clock(Arc<Mutex<Reading>>);

#[derive(Debug, Default)]
struct Reading {
    /// At the beginning of the turn.
    at: Duration,
    /// What the clock of the program shows that has its turn, and what it was at the beginning.
    turn: Option<Instant>,
}

impl Clock {
    /// How long the world has existed.
    #[must_use]
    pub fn now(&self) -> Duration {
        let reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match reading.turn {
            Some(beginning) => reading.at + Instant::now().saturating_duration_since(beginning),
            None => reading.at,
        }
    }

    fn set(&self, at: Duration, turn: Option<Instant>) {
        let mut reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *reading = Reading { at, turn };
    }
}

/// A program that runs.
#[derive(Debug)]
pub struct Program {
    runtime: Runtime,
    /// The beginning of its own clock, and of what age the world was.
    beginning: (Instant, Duration),
}

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(usize);

/// Programs and a network.
pub struct World {
    /// Its age.
    pub clock: Clock,
    /// Its network.
    pub network: Network,
    /// How long a commit of a database takes.
    pub commit: Duration,
    now: Duration,
    programs: Vec<Option<Program>>,
    /// Since when nothing was under way.
    idle_since: Duration,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl World {
    /// A world without programs. One thread has one at a time.
    #[must_use]
    pub fn new(random: &mut Random) -> Self {
        let clock = Clock::default();
        let (birth, shown) = (SystemTime::now(), clock.clone());
        let bits = SharedRandom::new(random.part());
        surroundings::simulate(Some(Simulated {
            now: Box::new(move || birth + shown.now()),
            random: Box::new(move || bits.lock().bits()),
        }));
        let commit = Duration::from_millis(random.one_of(COMMIT));
        sluice_database::simulation::simulate(Some(commit));
        Self {
            network: Network::new(random.part(), clock.clone()),
            clock,
            commit,
            now: Duration::ZERO,
            programs: Vec::new(),
            idle_since: Duration::ZERO,
        }
    }

    /// A place for a program, which does not run yet.
    pub fn place(&mut self) -> Id {
        self.programs.push(None);
        Id(self.programs.len() - 1)
    }

    /// Starts a program and has it run `main` to its end, before others go on.
    pub fn start<T>(&mut self, id: Id, main: impl Future<Output = T>) -> T {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("makes a run time");
        let beginning = {
            let _within = runtime.enter();
            Instant::now()
        };
        self.programs[id.0] = Some(Program {
            runtime,
            beginning: (beginning, self.now),
        });
        self.run(id, main)
    }

    /// Has a program run `what` to its end, before others go on. For what waits for nobody else.
    pub fn run<T>(&self, id: Id, what: impl Future<Output = T>) -> T {
        let program = self.programs[id.0].as_ref().expect("runs");
        let (beginning, at) = program.beginning;
        self.clock.set(at, Some(beginning));
        let done = program.runtime.block_on(what);
        self.clock.set(self.now, None);
        done
    }

    /// Has a program begin something.
    pub fn spawn<T: Send + 'static>(
        &self,
        id: Id,
        what: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let program = self.programs[id.0].as_ref().expect("runs");
        program.runtime.spawn(what)
    }

    /// How many tasks a program has.
    #[must_use]
    pub fn tasks(&self, id: Id) -> usize {
        let program = self.programs[id.0].as_ref().expect("runs");
        program.runtime.metrics().num_alive_tasks()
    }

    /// Whether a program runs.
    #[must_use]
    pub fn is_up(&self, id: Id) -> bool {
        self.programs[id.0].is_some()
    }

    /// Kills a program, wherever it is.
    pub fn kill(&mut self, id: Id) {
        // Whatever its parts do when they are dropped belongs to nobody's turn.
        self.clock.set(self.now, None);
        drop(self.programs[id.0].take());
    }

    /// How long the world has existed.
    #[must_use]
    pub const fn now(&self) -> Duration {
        self.now
    }

    /// One turn of each program, not beyond `until`.
    pub fn turn(&mut self, until: Duration) {
        let due = self.network.due();
        if due.is_some() {
            self.idle_since = self.now;
        }
        let quiet = self.now - self.idle_since;
        let longest = (quiet / 4).clamp(LONGEST, LONGEST_IDLE);
        let next = due.unwrap_or(Duration::MAX).min(self.now + longest);
        let end = next.max(self.now + SHORTEST).min(until);
        for id in 0..self.programs.len() {
            if let Some(program) = &self.programs[id] {
                let (beginning, at) = program.beginning;
                let moment = beginning + end.saturating_sub(at);
                self.run(Id(id), take_turn(moment));
            }
        }
        self.now = end;
        self.clock.set(end, None);
        let before = self.network.counts().arrived;
        self.network.deliver(end);
        // What was sent and is due within one turn was never seen to be under way.
        if self.network.counts().arrived != before {
            self.idle_since = end;
        }
    }

    /// Goes on for so long.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.turn(until);
        }
    }
}

/// Has the tasks of a program go on until its clock shows this, and at least once: its clock may be ahead a little.
async fn take_turn(moment: Instant) {
    tokio::task::yield_now().await;
    tokio::time::sleep_until(moment).await;
    tokio::task::yield_now().await;
}

impl Drop for World {
    fn drop(&mut self) {
        for program in &mut self.programs {
            drop(program.take());
        }
        sluice_database::simulation::simulate(None);
        surroundings::simulate(None);
    }
}
