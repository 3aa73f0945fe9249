//! What a simulated machine keeps whatever becomes of its links: as much as an agent has on disk.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use sluice_protocol::digest::Digest;
use sluice_protocol::ids::{JobId, OperationId};
use sluice_protocol::message::control::LedgerMark;
use sluice_protocol::report::Report;
use tokio::sync::watch;

use super::behavior::Behavior;

/// How far the ledger is, what is open, and what is over.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: u64,
    open: BTreeMap<OperationId, Open>,
    over: HashSet<OperationId>,
}

/// An operation that was taken in, and of which the host has not acknowledged the end.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) job: JobId,
    pub(super) behavior: Arc<Behavior>,
    pub(super) phase: watch::Sender<Phase>,
    /// Who wants it to end.
    pub(super) canceled: watch::Sender<Option<String>>,
}

/// Where an operation is on the machine.
#[derive(Debug, Clone, Default)]
pub(super) enum Phase {
    #[default]
    Accepted,
    Running {
        started_at: u64,
    },
    Ended(Box<Answer>),
}

/// What a machine tells in the end.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) report: Report,
    pub(super) stdout: Vec<u8>,
}

/// What a machine has of an operation that comes.
#[derive(Debug)]
pub(super) enum Known {
    /// Nothing: it was taken in.
    New(Open),
    /// It is at work on it, or has not heard that its end was acknowledged.
    Open(Open),
    /// The host has acknowledged its end.
    Over,
}

impl Ledger {
    /// Takes an operation in where it was never here.
    pub(super) fn take_in(
        &mut self,
        operation: OperationId,
        job: JobId,
        behavior: &Arc<Behavior>,
    ) -> Known {
        if self.over.contains(&operation) {
            return Known::Over;
        }
        if let Some(open) = self.open.get(&operation) {
            return Known::Open(open.clone());
        }
        let open = Open {
            job,
            behavior: Arc::clone(behavior),
            phase: watch::Sender::default(),
            canceled: watch::Sender::default(),
        };
        self.entries += 1;
        self.open.insert(operation, open.clone());
        Known::New(open)
    }

    pub(super) fn open(&self, operation: OperationId) -> Option<Open> {
        self.open.get(&operation).cloned()
    }

    /// What the host has not acknowledged.
    pub(super) fn open_ids(&self) -> Vec<OperationId> {
        self.open.keys().copied().collect()
    }

    /// Another step of an operation is on disk, before anybody hears of it.
    pub(super) fn step(&mut self) {
        self.entries += 1;
    }

    /// The end of an operation was acknowledged. Says no where it is not known, or had not ended.
    pub(super) fn forget(&mut self, operation: OperationId) -> Option<Open> {
        let has_ended = |open: &Open| matches!(*open.phase.borrow(), Phase::Ended(_));
        self.open.get(&operation).filter(|open| has_ended(open))?;
        self.over.insert(operation);
        self.open.remove(&operation)
    }

    pub(super) fn head(&self) -> LedgerMark {
        LedgerMark {
            seq: self.entries,
            hash: hash_at(self.entries),
        }
    }

    /// What the entry with this number has as its hash; none where the ledger does not go as far.
    pub(super) fn at(&self, seq: u64) -> Option<Digest> {
        (seq <= self.entries).then(|| hash_at(seq))
    }
}

/// Nobody but the machine itself computes hashes of its ledger, so that any will do which are always the same.
fn hash_at(seq: u64) -> Digest {
    match seq {
        0 => Digest::from_bytes([0; 32]),
        seq => Digest::of(&seq.to_be_bytes()),
    }
}
