//! What simulated machines saw and did, in the order in which it happened.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sluice_protocol::ending::State;
use sluice_protocol::ids::{JobId, OperationId};

/// Something that a machine saw or did.
#[derive(Debug, Clone)]
pub struct Sight {
    /// The machine's name.
    pub machine: Arc<str>,
    /// The job.
    pub job: JobId,
    /// The operation.
    pub operation: OperationId,
    /// What it was.
    pub what: What,
}

/// What a machine saw or did of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It came from the host, for the first time or again.
    Delivered,
    /// The machine has started it.
    Started,
    /// The machine was told to end it.
    Canceled,
    /// It has ended there, and nobody was told yet.
    Ended(State),
    /// The host has acknowledged that.
    Acknowledged,
}

/// What all machines of a crowd saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    sights: Mutex<Vec<Sight>>,
    faults: Mutex<Vec<String>>,
    pub(super) operations: AtomicUsize,
    pub(super) cancels: AtomicUsize,
    pub(super) lockdowns: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    pub(super) fn note(&self, sight: Sight) {
        if sight.what == What::Canceled {
            self.cancels.fetch_add(1, Ordering::Relaxed);
        }
        lock(&self.sights).push(sight);
    }

    /// The host did something that it never may.
    pub(super) fn fault(&self, what: String) {
        lock(&self.faults).push(what);
    }

    pub(super) fn faults(&self) -> Vec<String> {
        lock(&self.faults).clone()
    }

    pub(super) fn of(&self, job: &str) -> Sights {
        let job: JobId = job.parse().expect("is a job's id");
        let sights = lock(&self.sights);
        let of_job = sights.iter().filter(|sight| sight.job == job);
        Sights(of_job.cloned().collect())
    }
}

/// What machines saw of one job, in the order in which it happened.
#[derive(Debug, Clone)]
pub struct Sights(Vec<Sight>);

impl Sights {
    /// All of it.
    pub fn iter(&self) -> impl Iterator<Item = &Sight> {
        self.0.iter()
    }

    /// How often something of it was started on each machine that has started any.
    #[must_use]
    pub fn starts(&self) -> BTreeMap<&str, usize> {
        let mut starts = BTreeMap::new();
        for sight in self.of(What::Started) {
            *starts.entry(&*sight.machine).or_default() += 1;
        }
        starts
    }

    /// On how many machines it has started.
    #[must_use]
    pub fn started(&self) -> usize {
        self.starts().len()
    }

    /// The machines that were told to end it.
    #[must_use]
    pub fn canceled(&self) -> HashSet<&str> {
        let canceled = self.of(What::Canceled);
        canceled.map(|sight| &*sight.machine).collect()
    }

    /// How many of its operations have ended on the machines in each state.
    #[must_use]
    pub fn ended(&self) -> BTreeMap<&'static str, usize> {
        let mut ended = BTreeMap::new();
        for sight in &self.0 {
            if let What::Ended(state) = sight.what {
                *ended.entry(state.as_str()).or_default() += 1;
            }
        }
        ended
    }

    /// How many of its operations were on machines at once, from the first delivery to the end.
    #[must_use]
    pub fn most_at_once(&self) -> usize {
        let (mut there, mut most) = (HashSet::new(), 0);
        let mut ended = HashSet::new();
        for sight in &self.0 {
            match sight.what {
                What::Delivered if !ended.contains(&sight.operation) => {
                    there.insert(sight.operation);
                }
                What::Ended(_) => {
                    there.remove(&sight.operation);
                    ended.insert(sight.operation);
                }
                _ => {}
            }
            most = most.max(there.len());
        }
        most
    }

    /// The machines to which an operation came before all of the batches before their own had ended it. `ends` says how many
    /// machines, in the order of their names, are in all batches up to each.
    ///
    /// # Panics
    ///
    /// Where a machine is none of a crowd.
    #[must_use]
    pub fn too_early(&self, ends: &[usize]) -> Vec<&str> {
        let batch = |name: &str| {
            let number: usize = name.trim_start_matches('c').parse().expect("is a number");
            ends.partition_point(|end| *end < number)
        };
        // Those of each batch that have not ended.
        let mut left: BTreeMap<usize, HashSet<&str>> = BTreeMap::new();
        for sight in &self.0 {
            let of_batch = left.entry(batch(&sight.machine)).or_default();
            of_batch.insert(&sight.machine);
        }
        let mut early = Vec::new();
        for sight in &self.0 {
            let own = batch(&sight.machine);
            match sight.what {
                What::Delivered if left.range(..own).any(|(_, left)| !left.is_empty()) => {
                    early.push(&*sight.machine);
                }
                What::Ended(_) => {
                    left.entry(own).or_default().remove(&*sight.machine);
                }
                _ => {}
            }
        }
        early
    }

    fn of(&self, what: What) -> impl Iterator<Item = &Sight> {
        self.0.iter().filter(move |sight| sight.what == what)
    }
}
