//! Owns the operations of this machine: takes them in, starts the task that brings each to its report, tells the link,
//! and forgets what the host has acknowledged.
//!
//! Nothing here waits on behalf of the link: a link that breaks cuts nothing off half-way.

mod unread;

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use sluice_protocol::causes::Causes;
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::Ending;
use sluice_protocol::gates::GateSet;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::CloseCode;
use sluice_protocol::message::control::{LedgerMark, StoredOutput};
use sluice_protocol::message::operation::{Operation, Progress};
use sluice_protocol::report::Report;
use sluice_shim::spool;
use sluice_transport::agent::AgentConnection;
use tokio::sync::{oneshot, watch};

use self::unread::{Left, Unread};
use crate::at_work::MOST_CRASHES;
use crate::audit::{Event, quoted};
use crate::clock::now;
use crate::exec::niceness;
use crate::history::{self, Losses, Lost};
use crate::journal::Journal;
use crate::ledger::{Known, LedgerError, Open, Passed, Step};
use crate::operation::{self, Canceled};
use crate::policy::output_limit;
use crate::stored::Kept;
use crate::supervisor::Agent;
use crate::telling::{self, Told};

/// How many cancellations are remembered of operations that have not arrived: messages on different streams may overtake
/// each other.
const EARLY_CANCELS: usize = MOST_OPEN;

/// How many operations an agent takes in that the host has not acknowledged, and how many bytes of what was submitted with
/// them: it has them in memory and in the ledger. (A control message has room for the ids of more.)
const MOST_OPEN: usize = 10_000;
const MOST_BYTES: usize = 256 << 20;
/// Between two looks whether there is room again.
const ROOM: Duration = Duration::from_millis(100);

/// Between two tries to put a report on disk: at first, and at last.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// How long what is left of an operation stays at most when the host has it all. It goes when another one is acknowledged:
/// what the acknowledgement went to disk with is mostly the next operation, which is about to start.
const LEFTOVERS: Duration = Duration::from_millis(20);

/// What the dispatcher knows.
#[derive(Default)]
pub(crate) struct Operations {
    /// Under way, or ended and not acknowledged.
    open: HashMap<OperationId, Entry>,
    /// Who wanted an operation ended that has not arrived.
    early_cancels: HashMap<OperationId, String>,
    /// How many operations under way use an attachment.
    blobs: HashMap<Digest, usize>,
    /// Of what was submitted with those that are open.
    bytes: usize,
    /// The host has all of them, and their spools are there still.
    leftovers: Vec<OperationId>,
}

impl Operations {
    fn insert(&mut self, id: OperationId, entry: Entry) {
        self.bytes += entry.bytes;
        if let Some(before) = self.open.insert(id, entry) {
            self.bytes -= before.bytes;
        }
    }

    fn remove(&mut self, id: OperationId) {
        if let Some(entry) = self.open.remove(&id) {
            self.bytes -= entry.bytes;
        }
    }
}

struct Entry {
    /// In memory while it is under way.
    journal: Option<Journal>,
    canceled: watch::Sender<Option<String>>,
    /// What the host had of its output when the link of the moment came up.
    told: Told,
    /// The host has the report, which is being put on disk.
    acknowledged: bool,
    /// How much was submitted.
    bytes: usize,
}

impl Entry {
    fn new(
        operation: Option<&Operation>,
        journal: Option<Journal>,
        canceled: Option<String>,
    ) -> Self {
        Self {
            bytes: operation.map_or(0, Operation::bytes),
            journal,
            canceled: watch::Sender::new(canceled),
            told: Told::default(),
            acknowledged: false,
        }
    }
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
    /// Waits until there is room for another operation. Meanwhile the host's streams wait too.
    pub(crate) async fn room(&self) {
        let is_full = || {
            let operations = self.operations();
            operations.open.len() >= MOST_OPEN || operations.bytes >= MOST_BYTES
        };
        if is_full() {
            tracing::warn!("no more operations are taken in until the host has acknowledged some");
        }
        while is_full() {
            tokio::time::sleep(ROOM).await;
        }
    }

    /// An operation came in. One that has been here is answered with what is known.
    pub(crate) fn arrived(self: &Arc<Self>, operation: Operation) {
        let id = operation.operation;
        if !self.operations().open.contains_key(&id) {
            match self.ledger.knows(id) {
                Ok(Known::Never) => self.begin(operation, Origin::Arrived),
                Ok(Known::Here) => return self.ended_long_ago(id),
                Ok(Known::TooOld) => return self.too_old(id),
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
            Ok(Known::Never) => {}
            Ok(Known::Here | Known::TooOld) => return,
            Err(error) => {
                return tracing::error!(operation = %id, error = %Causes(&error), "nothing is said about the operation; the host will send it again");
            }
        }
        let ending = Ending::Error(format!(
            "this machine cannot read the operation, and has not started it: {reason}"
        ));
        let report = Report::without_process(ending, now());
        let event = Event::of_ending(id, &report);
        self.answer(id, report, Some(event));
    }

    /// The host sends what it has acknowledged: its database is an older copy. It waits for the end of an operation that it
    /// believes to be open, and is told one. How it ended is not kept here; nothing is started.
    fn ended_long_ago(self: &Arc<Self>, id: OperationId) {
        tracing::warn!(operation = %id, "the host sent what it has acknowledged; it does not run again");
        let note = "this operation ended on this machine before, and the host acknowledged that; the host's database is an older copy. It did not run again";
        self.answer(id, not_started(Ending::Interrupted, note), None);
    }

    /// The ledger does not go back as far as this operation: whether it ran is not known, so it does not run now.
    fn too_old(self: &Arc<Self>, id: OperationId) {
        let note = "this operation is older than what this machine's ledger goes back to: whether it ran here is not known, and it was not started now";
        tracing::warn!(operation = %id, note, "an operation is refused");
        let event = Event::new("operation_refused", Some(id)).with("reason", note);
        self.answer(id, not_started(Ending::Interrupted, note), Some(event));
    }

    /// Answers what is not taken in, over the link of the moment: once for each time that the host sends it.
    fn answer(self: &Arc<Self>, id: OperationId, report: Report, event: Option<Event>) {
        let agent = Arc::clone(self);
        tokio::spawn(async move {
            if let Some(event) = event
                && let Err(error) = agent.ledger.record(event, now()).await
            {
                return tracing::error!(operation = %id, error = %Causes(&error), "nothing is said about the operation; the host will send it again");
            }
            let Some(connection) = agent.link() else {
                return;
            };
            let journal = Journal::default();
            journal.ended(report);
            journal.accepted();
            let (nothing, spool) = (Told::default(), agent.spool(id));
            let marks = || agent.mark();
            let _place = agent.places.of_one_that_ended().await;
            if let Err(error) =
                telling::tell(&journal, id, &connection, nothing, &spool, &marks).await
            {
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
                // Most of these ended long ago.
                if self
                    .ledger
                    .knows(id)
                    .is_ok_and(|known| known != Known::Never)
                {
                    return;
                }
                if operations.early_cancels.len() >= EARLY_CANCELS {
                    return tracing::warn!(operation = %id, "too many operations are canceled before they have arrived");
                }
                operations.early_cancels.insert(id, quoted(&by));
            }
        }
    }

    /// The host has the report: what is left of the operation goes, in the background.
    pub(crate) fn acknowledged(self: &Arc<Self>, id: OperationId, audit_head: Digest) {
        if let Some(entry) = self.operations().open.get_mut(&id)
            && std::mem::replace(&mut entry.acknowledged, true)
        {
            // It is being put on disk.
            return;
        }
        self.tidy_up();
        let agent = Arc::clone(self);
        tokio::spawn(async move {
            let mut wait = FIRST_RETRY;
            let is_known = loop {
                match agent.ledger.acknowledge(id, audit_head, now()).await {
                    Ok(is_known) => break is_known,
                    Err(error) => {
                        tracing::error!(operation = %id, error = %Causes(&error), "the acknowledgement is not on disk; trying again");
                        if !agent.operations().open.contains_key(&id) {
                            return;
                        }
                        tokio::time::sleep(wait).await;
                        wait = (wait * 2).min(LAST_RETRY);
                    }
                }
            };
            if !is_known {
                tracing::warn!(operation = %id, "the host acknowledged what no report waits here for; nothing was changed");
                if let Some(entry) = agent.operations().open.get_mut(&id) {
                    entry.acknowledged = false;
                }
                return;
            }
            {
                let mut operations = agent.operations();
                operations.remove(id);
                operations.leftovers.push(id);
            }
            tokio::time::sleep(LEFTOVERS).await;
            agent.remove_leftovers();
        });
    }

    /// Makes ready for the next operation and removes what is left of others. Not earlier than an acknowledgement: it would
    /// take processor time from what is on the way to the host.
    fn tidy_up(self: &Arc<Self>) {
        self.prepare_spare();
        self.remove_leftovers();
    }

    fn remove_leftovers(self: &Arc<Self>) {
        let leftovers = std::mem::take(&mut self.operations().leftovers);
        if leftovers.is_empty() {
            return;
        }
        let agent = Arc::clone(self);
        // Where blocking is allowed: some file systems wait for the disk when they give space back.
        tokio::task::spawn_blocking(move || {
            niceness::aside(|| leftovers.into_iter().for_each(|id| agent.remove_spool(id)));
        });
    }

    /// Ids of operations that the host has not acknowledged, the oldest first.
    pub(crate) fn open_ids(&self) -> Vec<OperationId> {
        let mut ids: Vec<_> = self.operations().open.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// What the host has of the output of open operations, as it says. It is believed: what it says too much, it does not
    /// get.
    pub(crate) fn host_has(&self, stored: &[StoredOutput]) {
        let mut operations = self.operations();
        for entry in operations.open.values_mut() {
            entry.told = Told::default();
        }
        for output in stored {
            if let Some(entry) = operations.open.get_mut(&output.operation) {
                entry.told = Told {
                    stdout: output.stdout,
                    stderr: output.stderr,
                };
            }
        }
    }

    /// Takes up what an earlier agent left open, and sweeps what it left of others.
    ///
    /// # Errors
    ///
    /// Where the ledger or the state directory cannot be read.
    pub(crate) fn resume(self: &Arc<Self>) -> anyhow::Result<()> {
        let mut all = self.ledger.open_operations()?;
        // What runs has its place before what waits for one.
        all.sort_by_key(|open| !matches!(open.step, Step::Started(_)));
        for open in all {
            self.take_up(open);
        }
        let spools = self.state.path("spool");
        for note in spool::recover_spares(&spools, None)? {
            tracing::warn!(note, "not cleaned");
        }
        let is_open = |name: &str| {
            let id = name.parse();
            id.map_or(true, |id| self.operations().open.contains_key(&id))
        };
        let workspaces = self.workspace_base(&self.config());
        for note in sluice_shim::sweep(&workspaces, is_open) {
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

    /// Takes up an operation that is in the ledger. One of which something cannot be read is answered all the same: another
    /// version of the agent may have kept it.
    fn take_up(
        self: &Arc<Self>,
        Open {
            id,
            operation,
            step,
            crashes,
        }: Open,
    ) {
        match (step, operation) {
            (Step::Finished, operation) => {
                self.spools.ended(id, None);
                let entry = Entry::new(operation.as_ref().ok(), None, None);
                self.operations().insert(id, entry);
            }
            (Step::Accepted, Ok(operation)) if crashes >= MOST_CRASHES => self.refuse(operation),
            (Step::Accepted, Ok(operation)) => self.begin(operation, Origin::Accepted),
            (Step::Started(Ok(passed)), Ok(operation)) => {
                self.begin(operation, Origin::Started(passed));
            }
            (Step::Accepted, Err(problem)) => {
                self.begin_unread(
                    id,
                    None,
                    Unread::new(Kept::Operation, problem, Left::Nothing),
                );
            }
            (Step::Started(Ok(passed)), Err(problem)) => {
                self.begin_unread(
                    id,
                    None,
                    Unread::new(Kept::Operation, problem, Left::Passed(passed)),
                );
            }
            (Step::Started(Err(problem)), operation) => {
                let unread = Unread::new(Kept::Start, problem, Left::Spool);
                self.begin_unread(id, operation.ok(), unread);
            }
            (Step::Lost { started, problem }, operation) => {
                let left = if started { Left::Spool } else { Left::Nothing };
                self.begin_unread(id, operation.ok(), Unread::new(Kept::Report, problem, left));
            }
        }
    }

    /// Ends an operation without trying it once more: agents have ended over it.
    fn refuse(self: &Arc<Self>, operation: Operation) {
        let id = operation.operation;
        let Some((journal, _)) = self.enter(id, Some(&operation)) else {
            return;
        };
        journal.accepted();
        let ending = Ending::Error(format!(
            "the agent ended without warning {MOST_CRASHES} times while it was at work on this operation; it was not started, and is not tried again"
        ));
        let report = Report::without_process(ending, now());
        self.release(&operation);
        let agent = Arc::clone(self);
        tokio::spawn(async move { agent.ended(id, report, &journal).await });
    }

    /// Tells the link of the moment about an operation, in the background.
    pub(crate) fn tell(self: &Arc<Self>, id: OperationId) {
        let Some(connection) = self.link() else {
            return;
        };
        let agent = Arc::clone(self);
        tokio::spawn(async move {
            // With its link, for which it holds a place.
            tokio::select! {
                _ = connection.closed() => {}
                () = agent.tell_over(id, &connection) => {}
            }
        });
    }

    async fn tell_over(self: &Arc<Self>, id: OperationId, connection: &AgentConnection) {
        let Some((journal, told)) = self.under_way(id) else {
            return;
        };
        let _place = match &journal {
            Some(journal) => self.places.of_one_under_way(journal).await,
            None => self.places.of_one_that_ended().await,
        };
        // Not earlier: it may have a large report, and others wait for a place too.
        let journal = match journal
            .map_or_else(|| self.journal_of_ended(id), |journal| Ok(Some(journal)))
        {
            Ok(Some(journal)) => journal,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(operation = %id, error = %Causes(&error), "the operation's report cannot be told");
                return;
            }
        };
        let (spool, marks) = (self.spool(id), || self.mark());
        match telling::tell(&journal, id, connection, told, &spool, &marks).await {
            Ok(()) => {}
            Err(error) => {
                tracing::info!(operation = %id, error = %Causes(&error), "the progress will be told again")
            }
        }
    }

    /// Has an operation under way; none where it is already.
    fn enter(&self, id: OperationId, operation: Option<&Operation>) -> Option<(Journal, Canceled)> {
        let journal = Journal::default();
        journal.push(Progress::Accepted);
        let mut operations = self.operations();
        let early = operations.early_cancels.remove(&id);
        if operations.open.contains_key(&id) {
            return None;
        }
        let entry = Entry::new(operation, Some(journal.clone()), early);
        let canceled = entry.canceled.subscribe();
        operations.insert(id, entry);
        for attachment in operation.iter().flat_map(|it| &it.submission.attachments) {
            *operations.blobs.entry(attachment.sha256).or_default() += 1;
        }
        Some((journal, canceled))
    }

    /// Starts the task that takes an operation to its report.
    fn begin(self: &Arc<Self>, operation: Operation, origin: Origin) {
        let id = operation.operation;
        let Some((journal, canceled)) = self.enter(id, Some(&operation)) else {
            return;
        };
        let (agent, operation) = (Arc::clone(self), Arc::new(operation));
        let losses = self.history.losses();
        tokio::spawn(async move {
            let report = match origin {
                Origin::Arrived => {
                    // What the owner's policy asks the system for takes longest, so it is asked first.
                    let (handed_over, taken_in) = oneshot::channel();
                    let run =
                        operation::run(&agent, &operation, &journal, canceled, losses, taken_in);
                    let accept = async {
                        agent.accept(&operation, &journal).await;
                        // Nobody waits for it any more where it does not come to a start.
                        handed_over.send(()).ok();
                    };
                    let (report, ()) = tokio::join!(biased; run, accept);
                    report
                }
                Origin::Accepted => {
                    journal.accepted();
                    match agent.history.confirmed().await {
                        Ok(()) => {
                            let (handed_over, taken_in) = oneshot::channel();
                            handed_over.send(()).ok();
                            let losses = Losses::NONE;
                            operation::run(&agent, &operation, &journal, canceled, losses, taken_in)
                                .await
                        }
                        Err(Lost) => not_started(Ending::Interrupted, history::NOTE),
                    }
                }
                Origin::Started(passed) => {
                    journal.accepted();
                    let asked = &operation.submission.limits;
                    let output = output_limit(asked, &agent.config().limits);
                    agent.spools.adopt(id, output);
                    operation::adopt(&agent, id, *passed, &journal, canceled).await
                }
            };
            agent.release(&operation);
            agent.ended(id, report, &journal).await;
        });
    }

    /// An operation has its report.
    async fn ended(self: &Arc<Self>, id: OperationId, report: Report, journal: &Journal) {
        tracing::info!(operation = %id, state = report.ending.state().as_str(), "ended");
        self.conclude(id, report, journal).await;
        if self.link().is_none() {
            self.prepare_spare();
        }
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
        if told_early {
            self.spools.ended(id, journal.spool_size());
        } else {
            self.spools.removed(id);
        }
        let mut wait = FIRST_RETRY;
        let mut handed_over = self.ledger.finish(id, report.clone(), now()).await;
        if told_early {
            journal.ended(report.clone());
        }
        loop {
            let written = match handed_over {
                Ok(written) => written.await,
                Err(error) => Err(error),
            };
            match written {
                Ok(()) => break,
                Err(error @ LedgerError::NotAccepted(_)) => {
                    tracing::error!(operation = %id, error = %Causes(&error), "the operation was not taken in; the host will send it again");
                    journal.abandon();
                    self.operations().remove(id);
                    return self.ask_again().await;
                }
                Err(error) => {
                    tracing::error!(operation = %id, error = %Causes(&error), "the report is not on disk; trying again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(LAST_RETRY);
                    handed_over = self.ledger.finish(id, report.clone(), now()).await;
                }
            }
        }
        if !told_early {
            journal.ended(report);
        }
        // Who tells it now goes on with it; from here on the ledger and the spool have it all.
        if let Some(entry) = self.operations().open.get_mut(&id) {
            entry.journal = None;
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

    /// Removes what has come of blobs that neither an operation under way nor this gate set needs.
    pub(crate) fn sweep_blobs(&self, set: &GateSet) {
        let operations = self.operations();
        let is_component = |sha256| {
            set.bindings
                .iter()
                .any(|binding| binding.component == sha256)
        };
        // Under the lock, so that no operation begins to use one meanwhile.
        let swept = self
            .blobs
            .sweep(|sha256| operations.blobs.contains_key(&sha256) || is_component(sha256));
        if let Err(error) = swept {
            tracing::warn!(%error, "what has come of blobs that nobody needs could not be removed");
        }
    }

    /// An open operation: its journal, while it is under way, and what the host has of its output.
    fn under_way(&self, id: OperationId) -> Option<(Option<Journal>, Told)> {
        let operations = self.operations();
        let entry = operations.open.get(&id)?;
        Some((entry.journal.clone(), entry.told))
    }

    fn journal_of_ended(&self, id: OperationId) -> Result<Option<Journal>, LedgerError> {
        Ok(self.ledger.report(id)?.map(Journal::of_ended))
    }

    /// How far the ledger is on disk. Where that cannot be read the host does not learn it now, and asks for less at the
    /// next link.
    fn mark(&self) -> Option<LedgerMark> {
        let head = self.ledger.head();
        head.inspect_err(
            |error| tracing::error!(error = %Causes(error), "it is not told how far the ledger is"),
        )
        .ok()
    }

    fn remove_spool(&self, id: OperationId) {
        let spool = self.spool(id);
        if let Err(error) = std::fs::remove_dir_all(&spool)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %spool.display(), %error, "the spool could not be removed");
        }
        self.spools.removed(id);
    }

    fn operations(&self) -> MutexGuard<'_, Operations> {
        self.operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The report of what is not started, and why.
fn not_started(ending: Ending, note: &str) -> Report {
    let mut report = Report::without_process(ending, now());
    report.notes.push(note.to_owned());
    report
}

#[cfg(test)]
mod tests {
    use sluice_protocol::secret::Sealed;

    use super::*;
    use crate::testing;

    #[test]
    fn what_is_in_memory_for_an_operation_is_counted_until_it_is_not() {
        let mut operation = testing::operation();
        let bytes = operation.submission.script.len() + 5 + 1000;
        operation.secrets.push(Sealed {
            name: "token".to_owned(),
            bytes: vec![0; 1000],
        });
        let mut operations = Operations::default();
        // The same one twice is there once.
        for _ in 0..2 {
            let entry = Entry::new(Some(&operation), None, None);
            operations.insert(operation.operation, entry);
            assert_eq!(operations.bytes, bytes);
        }
        operations.remove(operation.operation);
        assert_eq!(operations.bytes, 0);
    }
}
