//! Owns the operations of this machine: takes them in, starts the task that brings each to its report, tells the link,
//! and forgets what the host has acknowledged.
//!
//! Nothing here waits on behalf of the link: a link that breaks cuts nothing off half-way.

use std::collections::hash_map::{self, HashMap};
use std::path::Path;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use sluice_protocol::causes::Causes;
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::Ending;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::CloseCode;
use sluice_protocol::message::operation::{Operation, Progress};
use sluice_protocol::report::Report;
use sluice_shim::spool;
use tokio::sync::watch;

use crate::audit::{Event, quoted};
use crate::clock::now;
use crate::journal::Journal;
use crate::ledger::{LedgerError, Passed, Step};
use crate::operation;
use crate::supervisor::Agent;

/// How many cancellations are remembered of operations that have not arrived: messages on different streams may overtake
/// each other.
const EARLY_CANCELS: usize = 1000;

/// Between two tries to put a report on disk: at first, and at last.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// What the dispatcher knows.
#[derive(Default)]
pub(crate) struct Operations {
    /// Under way, or ended and not acknowledged.
    open: HashMap<OperationId, Entry>,
    /// Who wanted an operation ended that has not arrived.
    early_cancels: HashMap<OperationId, String>,
    /// How many operations under way use an attachment.
    blobs: HashMap<Digest, usize>,
}

struct Entry {
    /// In memory while it is under way.
    journal: Option<Journal>,
    canceled: watch::Sender<Option<String>>,
}

/// How an operation came to be under way.
enum Origin {
    /// The host sent it; it is not on disk yet.
    Arrived,
    /// An earlier agent took it in, and started nothing.
    Accepted,
    /// An earlier agent may have started it.
    Started(Box<Passed>),
}

impl Agent {
    /// An operation came in. One that has been here is answered with what is known.
    pub(crate) fn arrived(self: &Arc<Self>, operation: Operation) {
        let id = operation.operation;
        if !self.operations().open.contains_key(&id) {
            match self.ledger.knows(id) {
                Ok(false) => self.begin(operation, Origin::Arrived),
                Ok(true) => {
                    tracing::warn!(operation = %id, "the host sent what it has acknowledged; it does not run again")
                }
                Err(error) => {
                    tracing::error!(operation = %id, error = %Causes(&error), "the operation cannot be taken; the host will send it again");
                    return;
                }
            }
        }
        self.tell(id);
    }

    /// Something came in that has an operation's id and cannot be read. The host learns so as the end of that operation,
    /// again each time that it sends it. One that has been here is answered with what is known.
    pub(crate) fn unreadable(self: &Arc<Self>, id: OperationId, reason: &str) {
        let reason = quoted(reason);
        tracing::warn!(operation = %id, reason, "an operation cannot be read");
        if self.operations().open.contains_key(&id) {
            return self.tell(id);
        }
        match self.ledger.knows(id) {
            Ok(false) => {}
            Ok(true) => return,
            Err(error) => {
                return tracing::error!(operation = %id, error = %Causes(&error), "nothing is said about the operation; the host will send it again");
            }
        }
        let ending = Ending::Error(format!(
            "this machine cannot read the operation, and has not started it: {reason}"
        ));
        let report = Report::without_process(ending, now());
        let agent = Arc::clone(self);
        tokio::spawn(async move {
            let event = Event::of_ending(id, &report);
            if let Err(error) = agent.ledger.record(event, now()).await {
                return tracing::error!(operation = %id, error = %Causes(&error), "nothing is said about the operation; the host will send it again");
            }
            let Some(connection) = agent.link() else {
                return;
            };
            let journal = Journal::default();
            journal.push(Progress::Finished(Box::new(report)));
            journal.accepted();
            if let Err(error) = journal.tell(id, &connection).await {
                tracing::info!(operation = %id, error = %Causes(&error), "the host will send the operation again");
            }
        });
    }

    /// Somebody wants it ended.
    pub(crate) fn cancel(&self, id: OperationId, by: String) {
        let mut operations = self.operations();
        match operations.open.get(&id) {
            Some(entry) => {
                entry.canceled.send_replace(Some(by));
            }
            None => {
                // Most of these ended long ago. A full list is started anew rather than closed to new ones.
                if operations.early_cancels.len() >= EARLY_CANCELS {
                    operations.early_cancels.clear();
                }
                operations.early_cancels.insert(id, quoted(&by));
            }
        }
    }

    /// The host has the report: what is left of the operation goes, in the background.
    pub(crate) fn acknowledged(self: &Arc<Self>, id: OperationId, audit_head: Digest) {
        let agent = Arc::clone(self);
        tokio::spawn(async move {
            match agent.ledger.acknowledge(id, audit_head).await {
                Ok(true) => {}
                Ok(false) => {
                    tracing::warn!(operation = %id, "the host acknowledged what no report waits here for; nothing was changed");
                    return;
                }
                Err(error) => {
                    tracing::error!(operation = %id, error = %Causes(&error), "the acknowledgement is not on disk; the report will go out again");
                    return;
                }
            }
            agent.operations().open.remove(&id);
            // Where blocking is allowed: some file systems wait for the disk when they give space back.
            let removed = tokio::task::spawn_blocking(move || agent.remove_spool(id)).await;
            if let Err(error) = removed {
                tracing::warn!(operation = %id, %error, "the spool could not be removed");
            }
        });
    }

    /// Ids of operations that the host has not acknowledged.
    pub(crate) fn open_ids(&self) -> Vec<OperationId> {
        self.operations().open.keys().copied().collect()
    }

    /// Takes up what an earlier agent left open, and sweeps what it left of others.
    ///
    /// # Errors
    ///
    /// Where the ledger or the state directory cannot be read.
    pub(crate) fn resume(self: &Arc<Self>) -> anyhow::Result<()> {
        for open in self.ledger.open_operations()? {
            match open.step {
                Step::Accepted => self.begin(open.operation, Origin::Accepted),
                Step::Started(passed) => self.begin(open.operation, Origin::Started(passed)),
                Step::Finished => {
                    let entry = Entry {
                        journal: None,
                        canceled: watch::Sender::new(None),
                    };
                    let id = open.operation.operation;
                    self.operations().open.insert(id, entry);
                }
            }
        }
        self.blobs.sweep()?;
        let spools = self.state.path("spool");
        for note in spool::recover_spares(&spools, None)? {
            tracing::warn!(note, "not cleaned");
        }
        for entry in std::fs::read_dir(&spools)? {
            let name = entry?.file_name();
            // Only what has the form of ours: nothing else in there was made by an agent.
            if let Some(id) = name.to_str().and_then(|name| name.parse().ok())
                && !self.operations().open.contains_key(&id)
            {
                self.remove_spool(id);
            }
        }
        Ok(())
    }

    /// Tells the link of the moment about an operation, in the background.
    pub(crate) fn tell(self: &Arc<Self>, id: OperationId) {
        let Some(connection) = self.link() else {
            return;
        };
        let agent = Arc::clone(self);
        tokio::spawn(async move {
            let journal = match agent.journal(id) {
                Ok(Some(journal)) => journal,
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(operation = %id, error = %format!("{error:#}"), "the operation's progress cannot be told");
                    return;
                }
            };
            match journal.tell(id, &connection).await {
                // From here on the ledger and the spool tell it.
                Ok(()) => {
                    if let Some(entry) = agent.operations().open.get_mut(&id) {
                        entry.journal = None;
                    }
                    // Not earlier: it would take processor time from what is on the way to the host.
                    agent.prepare_spare();
                }
                Err(error) => {
                    tracing::info!(operation = %id, error = %Causes(&error), "the progress will be told again")
                }
            }
        });
    }

    /// Starts the task that takes an operation to its report.
    fn begin(self: &Arc<Self>, operation: Operation, origin: Origin) {
        let (id, journal) = (operation.operation, Journal::default());
        let canceled = {
            let mut operations = self.operations();
            let early = operations.early_cancels.remove(&id);
            let hash_map::Entry::Vacant(place) = operations.open.entry(id) else {
                return;
            };
            let entry = place.insert(Entry {
                journal: Some(journal.clone()),
                canceled: watch::Sender::new(early),
            });
            let canceled = entry.canceled.subscribe();
            for attachment in &operation.submission.attachments {
                *operations.blobs.entry(attachment.sha256).or_default() += 1;
            }
            canceled
        };
        journal.push(Progress::Accepted);
        let (agent, operation) = (Arc::clone(self), Arc::new(operation));
        tokio::spawn(async move {
            let report = match origin {
                Origin::Arrived => {
                    agent.accept(&operation, &journal).await;
                    operation::run(&agent, &operation, &journal, canceled).await
                }
                Origin::Accepted => {
                    journal.accepted();
                    operation::run(&agent, &operation, &journal, canceled).await
                }
                Origin::Started(passed) => {
                    journal.accepted();
                    operation::adopt(&agent, &operation, *passed, &journal, canceled).await
                }
            };
            tracing::info!(operation = %id, state = report.ending.state().as_str(), "ended");
            agent.release(&operation);
            agent.conclude(id, report, &journal).await;
            if agent.link().is_none() {
                agent.prepare_spare();
            }
        });
    }

    /// Hands the operation to the ledger, ahead of its start or end. The host is told once it is on disk. Where it does not
    /// come there, its start is refused, because the ledger does not have it, and its end is that of one not taken in.
    async fn accept(&self, operation: &Operation, journal: &Journal) {
        let id = operation.operation;
        let failed = move |error: LedgerError| {
            tracing::error!(operation = %id, error = %Causes(&error), "the operation is not on disk and will not start; the host will send it again");
        };
        match self.ledger.accept(operation, now()).await {
            Ok(accepted) => {
                let journal = journal.clone();
                tokio::spawn(async move {
                    match accepted.await {
                        Ok(()) => journal.accepted(),
                        Err(error) => failed(error),
                    }
                });
            }
            Err(error) => failed(error),
        }
    }

    /// Puts the report on disk, however long that takes, and tells it. What was started is told at once: if the agent ends
    /// meanwhile, the next one finds it started and has it from its spool. What was not started is on disk before it is
    /// told: the next agent would have it judged anew, and might start what is known as ended.
    async fn conclude(self: &Arc<Self>, id: OperationId, report: Report, journal: &Journal) {
        let told_early = report.started_at.is_some();
        let finished = || Progress::Finished(Box::new(report.clone()));
        let mut wait = FIRST_RETRY;
        let mut handed_over = self.ledger.finish(id, &report, now()).await;
        if told_early {
            journal.push(finished());
        }
        loop {
            let written = match handed_over {
                Ok(written) => written.await,
                Err(error) => Err(error),
            };
            match written {
                Ok(()) if told_early => return,
                Ok(()) => return journal.push(finished()),
                Err(error @ LedgerError::NotAccepted(_)) => {
                    tracing::error!(operation = %id, error = %Causes(&error), "the operation was not taken in; the host will send it again");
                    journal.abandon();
                    self.operations().open.remove(&id);
                    return self.ask_again().await;
                }
                Err(error) => {
                    tracing::error!(operation = %id, error = %Causes(&error), "the report is not on disk; trying again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(LAST_RETRY);
                    handed_over = self.ledger.finish(id, &report, now()).await;
                }
            }
        }
    }

    /// Sets the link up anew after a moment: the host then sends again what this machine does not have.
    async fn ask_again(&self) {
        tokio::time::sleep(FIRST_RETRY).await;
        if let Some(connection) = self.link() {
            let reason = "an operation could not be taken in";
            connection.close(CloseCode::Stopping, reason).await;
        }
    }

    /// Removes the attachments that no other operation under way uses.
    fn release(&self, operation: &Operation) {
        let mut operations = self.operations();
        for attachment in &operation.submission.attachments {
            let users = operations.blobs.entry(attachment.sha256).or_default();
            *users = users.saturating_sub(1);
            if *users > 0 {
                continue;
            }
            operations.blobs.remove(&attachment.sha256);
            // Under the lock, so that no operation begins to use it meanwhile.
            if let Err(error) = self.blobs.remove(attachment.sha256) {
                tracing::warn!(%error, "an attachment could not be removed");
            }
        }
    }

    fn journal(&self, id: OperationId) -> anyhow::Result<Option<Journal>> {
        match self.operations().open.get(&id) {
            Some(Entry {
                journal: Some(journal),
                ..
            }) => return Ok(Some(journal.clone())),
            Some(_) => {}
            None => return Ok(None),
        }
        let report = self.ledger.report(id)?;
        report
            .map(|report| Journal::of_ended(report, &self.spool(id)))
            .transpose()
            .map_err(Into::into)
    }

    fn remove_spool(&self, id: OperationId) {
        self.remove_spool_at(&self.spool(id));
    }

    fn remove_spool_at(&self, spool: &Path) {
        if let Err(error) = std::fs::remove_dir_all(spool)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %spool.display(), %error, "the spool could not be removed");
        }
    }

    fn operations(&self) -> MutexGuard<'_, Operations> {
        self.operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
