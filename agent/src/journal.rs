//! What happens to one operation while it is under way, for whoever tells the host.
//!
//! Steps and the report are in here, and of the output only the beginning: the rest is read in the spool when it is told
//! (see `telling`). When the end of the operation is on disk and nobody is telling it, the journal goes; it is made again
//! from the ledger.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sluice_protocol::message::operation::{Chunk, Progress};
use sluice_protocol::report::Report;
use sluice_shim::event::INLINE;
use tokio::sync::{Notify, watch};

/// The journal of one operation. A cheap handle.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    entries: Mutex<Entries>,
    fate: watch::Sender<Fate>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Entries {
    /// Everything but the report, in order.
    list: Vec<Arc<Progress>>,
    /// Bytes of output among them.
    output: usize,
    /// What follows of the output is in the spool.
    spooled: bool,
    /// The report, once it has ended. Nothing follows.
    finished: Option<Arc<Progress>>,
    /// How much the spool takes on disk, as far as the shim told it.
    spool_size: Option<u64>,
}

/// Whether the operation is on disk. Nothing is told before it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Fate {
    #[default]
    Pending,
    Accepted,
    /// It never came there, and nothing will be told.
    Abandoned,
}

/// What a journal has that was not told yet.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// In order.
    pub(crate) entries: Vec<Arc<Progress>>,
    /// More output is, or may come to be, in the spool.
    pub(crate) spooled: bool,
    /// The report, once the operation has ended.
    pub(crate) finished: Option<Arc<Progress>>,
}

impl News {
    /// The report, once the operation has ended.
    pub(crate) fn report(&self) -> Option<&Report> {
        match self.finished.as_deref() {
            Some(Progress::Finished(report)) => Some(report),
            _ => None,
        }
    }
}

impl Journal {
    /// The journal of an operation that has ended.
    #[must_use]
    pub fn of_ended(report: Report) -> Self {
        let journal = Self::default();
        journal.push(Progress::Accepted);
        if let Some(started_at) = report.started_at {
            journal.push(Progress::Running { started_at });
            journal.spooled();
        }
        journal.ended(report);
        journal.accepted();
        journal
    }

    /// Adds a step.
    pub fn push(&self, step: Progress) {
        self.entries().list.push(Arc::new(step));
        self.0.more.notify_waiters();
    }

    /// Adds output, or leaves it to the spool where there was enough of it.
    pub fn output(&self, chunk: Chunk) {
        {
            let mut entries = self.entries();
            entries.output = entries.output.saturating_add(chunk.bytes.len());
            if entries.spooled || entries.output > INLINE {
                entries.spooled = true;
            } else {
                entries.list.push(Arc::new(Progress::Output(chunk)));
            }
        }
        self.0.more.notify_waiters();
    }

    /// What follows of the output is in the spool alone.
    pub fn spooled(&self) {
        self.entries().spooled = true;
        self.0.more.notify_waiters();
    }

    /// How much the spool takes on disk, in bytes.
    pub fn spool_takes(&self, size: u64) {
        self.entries().spool_size = Some(size);
    }

    /// What [`Self::spool_takes`] said.
    #[must_use]
    pub fn spool_size(&self) -> Option<u64> {
        self.entries().spool_size
    }

    /// The operation has ended. Nothing follows its report.
    pub fn ended(&self, report: Report) {
        let finished = Progress::Finished(Box::new(report));
        self.entries().finished = Some(Arc::new(finished));
        self.0.more.notify_waiters();
    }

    /// The operation is on disk: from here on the journal is told.
    pub fn accepted(&self) {
        self.0.fate.send_replace(Fate::Accepted);
    }

    /// The operation could not be taken in: nobody is told of it, and who waits to tell ends.
    pub fn abandon(&self) {
        self.0.fate.send_replace(Fate::Abandoned);
    }

    /// Waits until the operation is on disk. False where it never will be.
    pub(crate) async fn is_accepted(&self) -> bool {
        let mut fate = self.0.fate.subscribe();
        let known = fate.wait_for(|fate| *fate != Fate::Pending).await;
        known.is_ok_and(|fate| *fate == Fate::Accepted)
    }

    /// What there is after the first `told` entries; waits until there is something.
    pub(crate) async fn news(&self, told: usize) -> News {
        self.once(|| {
            let news = self.after(told);
            let any = !news.entries.is_empty() || news.spooled || news.finished.is_some();
            any.then_some(news)
        })
        .await
    }

    /// Waits until the operation has ended.
    pub(crate) async fn has_ended(&self) {
        self.once(|| self.entries().finished.as_ref().map(drop))
            .await;
    }

    /// Waits until its script has started, or it has ended without.
    pub(crate) async fn has_begun(&self) {
        self.once(|| {
            let entries = self.entries();
            let has_started = entries.spooled
                || entries
                    .list
                    .iter()
                    .any(|step| matches!(**step, Progress::Running { .. } | Progress::Output(_)));
            (has_started || entries.finished.is_some()).then_some(())
        })
        .await;
    }

    /// What there is after the first `told` entries now.
    pub(crate) fn after(&self, told: usize) -> News {
        let entries = self.entries();
        News {
            entries: entries.list.get(told..).unwrap_or_default().to_vec(),
            spooled: entries.spooled,
            finished: entries.finished.clone(),
        }
    }

    /// Waits until `look` finds something.
    async fn once<T>(&self, look: impl Fn() -> Option<T>) -> T {
        loop {
            let more = self.0.more.notified();
            tokio::pin!(more);
            more.as_mut().enable();
            if let Some(found) = look() {
                return found;
            }
            more.await;
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
