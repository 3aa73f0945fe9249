//! Starts and stops the parts of an agent, and owns what they share.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use sluice_protocol::digest::Digest;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::control::Identity;
use sluice_protocol::message::operation::{Operation, Progress};
use sluice_transport::agent::AgentConnection;
use sluice_transport::identity::MachineIdentity;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};

use crate::attachments::Blobs;
use crate::audit::Event;
use crate::config::Config;
use crate::exec::spawn::Launcher;
use crate::gates::{Gates, now};
use crate::journal::Journal;
use crate::ledger::{Accepted, Ledger};
use crate::state::StateDirectory;
use crate::{link, operation};

/// How many cancellations are remembered of operations that have not arrived: messages on different streams may overtake
/// each other.
const EARLY_CANCELS: usize = 1000;

/// What the parts of an agent share.
pub struct Agent {
    /// Who this machine is.
    pub machine: MachineIdentity,
    /// Where things are kept.
    pub state: StateDirectory,
    /// What must survive.
    pub ledger: Ledger,
    /// The gates.
    pub gates: Gates,
    /// Blobs by digest.
    pub blobs: Blobs,
    /// Starts shims.
    pub launcher: Launcher,
    config: RwLock<Arc<Config>>,
    config_path: Option<PathBuf>,
    slots: Semaphore,
    link: watch::Sender<Option<AgentConnection>>,
    identity: RwLock<Identity>,
    operations: Mutex<Operations>,
}

#[derive(Default)]
struct Operations {
    /// Under way, or ended and not acknowledged.
    open: HashMap<OperationId, Entry>,
    early_cancels: HashSet<OperationId>,
    /// How many operations under way use an attachment.
    blobs: HashMap<Digest, usize>,
}

struct Entry {
    /// In memory while it is under way.
    journal: Option<Journal>,
    canceled: watch::Sender<Option<String>>,
}

/// Runs the agent until it is told to stop.
///
/// # Errors
///
/// Where it cannot start, or coming back to the host does not help.
pub async fn run(state: StateDirectory, config_path: Option<PathBuf>) -> anyhow::Result<()> {
    let config = Config::load(config_path.as_deref())?;
    let _lock = state.lock()?;
    let (identity, addresses) = state.identity()?;
    let launcher = Launcher::beside_this_program()?;
    let agent = Arc::new(Agent {
        machine: identity.machine(),
        ledger: Ledger::open(&state.path("ledger.db")).await?,
        gates: Gates::new(&state)?,
        blobs: Blobs::new(state.path("blobs")),
        launcher,
        slots: Semaphore::new(config.limits.parallel),
        config: RwLock::new(Arc::new(config)),
        config_path,
        link: watch::Sender::new(None),
        identity: RwLock::new(Identity {
            tenant: String::new(),
            name: String::new(),
            tags: Vec::new(),
            url: String::new(),
        }),
        operations: Mutex::default(),
        state,
    });
    agent.prepare_workspace()?;
    agent.resume().await?;
    agent.prepare_spare();
    let mut hangup = signal(SignalKind::hangup())?;
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let mut idle = tokio::time::interval(Duration::from_secs(60));
    // A task of its own: what a branch below waits for may be held by the link, which has to go on meanwhile.
    let mut link = tokio::spawn({
        let agent = Arc::clone(&agent);
        async move { link::keep(&agent, identity, &addresses).await }
    });
    loop {
        tokio::select! {
            result = &mut link => return Ok(result??),
            _ = hangup.recv() => agent.reload().await,
            _ = idle.tick() => agent.gates.end_idle().await,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    tracing::info!("stopping; running scripts go on, and the next agent takes them up");
    link.abort();
    let connection = agent.link.borrow().clone();
    if let Some(connection) = connection {
        connection
            .close(
                sluice_protocol::message::CloseCode::Stopping,
                "the agent is stopping",
            )
            .await;
    }
    Ok(())
}

impl Agent {
    /// The owner's policy as it is now.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the host calls this machine.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The spool of an operation.
    #[must_use]
    pub fn spool(&self, operation: OperationId) -> PathBuf {
        self.state.path("spool").join(operation.to_string())
    }

    /// Where private directories of scripts are made.
    #[must_use]
    pub fn workspace_base(&self, config: &Config) -> PathBuf {
        if nix::unistd::Uid::effective().is_root() {
            config.script_tempdir.clone()
        } else {
            self.state.path("run")
        }
    }

    /// A place among the operations that run at once (`limits.parallel`); waits until there is one.
    pub async fn slot(&self) -> tokio::sync::SemaphorePermit<'_> {
        match self.slots.acquire().await {
            Ok(slot) => slot,
            // the semaphore is never closed
            Err(_) => std::future::pending().await,
        }
    }

    /// The link to the host; waits until there is one.
    pub async fn connection(&self) -> AgentConnection {
        let mut link = self.link.subscribe();
        loop {
            if let Some(connection) = link.borrow_and_update().clone() {
                return connection;
            }
            if link.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Has a shim wait ready, in the background.
    pub fn prepare_spare(&self) {
        let launcher = self.launcher.clone();
        tokio::spawn(async move {
            if let Err(error) = launcher.prepare_spare().await {
                tracing::warn!(%error, "no shim waits ready; the next operation starts one");
            }
        });
    }

    /// A link is up: it is told about every open operation.
    pub(crate) fn connected(self: &Arc<Self>, connection: AgentConnection, identity: Identity) {
        self.renamed(identity);
        self.link.send_replace(Some(connection));
        for id in self.open_ids() {
            self.tell(id);
        }
    }

    pub(crate) fn disconnected(&self) {
        self.link.send_replace(None);
    }

    pub(crate) fn renamed(&self, identity: Identity) {
        *self
            .identity
            .write()
            .unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// Ids of operations that the host has not acknowledged.
    pub(crate) fn open_ids(&self) -> Vec<OperationId> {
        self.operations().open.keys().copied().collect()
    }

    /// An operation came in. It is accepted once it is on disk; one that has been here is answered with what is known.
    pub(crate) async fn arrived(self: &Arc<Self>, operation: Operation) {
        let id = operation.operation;
        match self.ledger.accept(&operation, now()).await {
            Ok(Accepted::New) => {
                self.begin(operation, false);
                self.tell(id);
            }
            Ok(Accepted::Known) => self.tell(id),
            Err(error) => {
                tracing::error!(operation = %id, %error, "the operation cannot be taken; the host will send it again")
            }
        }
    }

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
                operations.early_cancels.insert(id);
            }
        }
    }

    /// The host has the report: what is left of the operation goes.
    pub(crate) async fn acknowledged(&self, id: OperationId, audit_head: Digest) {
        match self.ledger.acknowledge(id, audit_head).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(operation = %id, "the host acknowledged what was not reported; nothing was changed");
                return;
            }
            Err(error) => {
                tracing::error!(operation = %id, %error, "the acknowledgement is not on disk; the report will go out again");
                return;
            }
        }
        self.operations().open.remove(&id);
        let spool = self.spool(id);
        if let Err(error) = std::fs::remove_dir_all(&spool)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %spool.display(), %error, "the spool could not be removed");
        }
    }

    /// Takes up what an earlier agent left open.
    async fn resume(self: &Arc<Self>) -> anyhow::Result<()> {
        for open in self.ledger.open_operations().await? {
            if open.report.is_some() {
                let entry = Entry {
                    journal: None,
                    canceled: watch::Sender::new(None),
                };
                self.operations()
                    .open
                    .insert(open.operation.operation, entry);
            } else {
                self.begin(open.operation, open.started);
            }
        }
        Ok(())
    }

    /// Starts the task that takes an operation to its report.
    fn begin(self: &Arc<Self>, operation: Operation, started: bool) {
        let (id, journal) = (operation.operation, Journal::default());
        let canceled = {
            let mut operations = self.operations();
            let early = operations
                .early_cancels
                .remove(&id)
                .then(|| "an operator".to_owned());
            let entry = Entry {
                journal: Some(journal.clone()),
                canceled: watch::Sender::new(early),
            };
            let canceled = entry.canceled.subscribe();
            operations.open.insert(id, entry);
            for attachment in &operation.submission.attachments {
                *operations.blobs.entry(attachment.sha256).or_default() += 1;
            }
            canceled
        };
        journal.push(Progress::Accepted);
        let agent = Arc::clone(self);
        tokio::spawn(async move {
            let report = if started {
                operation::adopt(&agent, &operation, &journal, canceled).await
            } else {
                operation::run(&agent, &operation, &journal, canceled).await
            };
            tracing::info!(operation = %id, state = report.ending.state().as_str(), "ended");
            agent.release(&operation);
            match agent.ledger.finish(id, &report, now()).await {
                Ok(()) => journal.push(Progress::Finished(Box::new(report))),
                Err(error) => {
                    tracing::error!(operation = %id, %error, "the report is not on disk and does not go out; restart the agent")
                }
            }
        });
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

    /// Tells the link of the moment about an operation, in the background.
    fn tell(self: &Arc<Self>, id: OperationId) {
        let Some(connection) = self.link.borrow().clone() else {
            return;
        };
        let agent = Arc::clone(self);
        tokio::spawn(async move {
            let journal = match agent.journal(id).await {
                Ok(Some(journal)) => journal,
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(operation = %id, %error, "the operation's progress cannot be told");
                    return;
                }
            };
            match journal.tell(id, &connection).await {
                // From here on the ledger and the spool tell it.
                Ok(()) => {
                    if let Some(entry) = agent.operations().open.get_mut(&id) {
                        entry.journal = None;
                    }
                }
                Err(error) => {
                    tracing::info!(operation = %id, %error, "the progress will be told again")
                }
            }
        });
    }

    async fn journal(&self, id: OperationId) -> anyhow::Result<Option<Journal>> {
        match self.operations().open.get(&id) {
            Some(Entry {
                journal: Some(journal),
                ..
            }) => return Ok(Some(journal.clone())),
            Some(_) => {}
            None => return Ok(None),
        }
        let open = self.ledger.open_operations().await?;
        let report = open
            .into_iter()
            .find(|open| open.operation.operation == id)
            .and_then(|open| open.report);
        report
            .map(|report| Journal::of_ended(report, &self.spool(id)))
            .transpose()
            .map_err(Into::into)
    }

    async fn reload(self: &Arc<Self>) {
        let event = match Config::load(self.config_path.as_deref()) {
            Ok(config) => {
                // What the owner has tightened holds from here on: nothing runs until the gates are set up again.
                self.gates.suspend();
                *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                tracing::info!(
                    "the configuration was read again; limits.parallel takes effect at the next start"
                );
                let agent = Arc::clone(self);
                tokio::spawn(async move {
                    let connection = agent.connection().await;
                    if let Err(error) = agent
                        .gates
                        .take_again(&agent.config(), &agent.ledger, &agent.blobs, &connection)
                        .await
                    {
                        tracing::error!(%error, "the gates cannot be set up again; operations stay blocked");
                    }
                });
                Event::new("config_reloaded", None)
            }
            Err(error) => {
                tracing::error!(%error, "the configuration was not taken; the old one stays");
                Event::new("config_refused", None).with("error", error)
            }
        };
        if let Err(error) = self.ledger.record(&event, now()).await {
            tracing::error!(%error, "the reload is not on the record");
        }
    }

    /// The base for private directories: its parents made with mode 0711, so that a user can reach its script.
    fn prepare_workspace(&self) -> anyhow::Result<()> {
        use anyhow::Context as _;
        use std::os::unix::fs::DirBuilderExt as _;
        let base = self.workspace_base(&self.config());
        let result = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&base);
        result.with_context(|| format!("script_tempdir {}", base.display()))
    }

    fn operations(&self) -> MutexGuard<'_, Operations> {
        self.operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
