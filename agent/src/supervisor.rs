//! Starts and stops the parts of an agent, and owns what they share.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use anyhow::Context as _;
use sluice_protocol::causes::Causes;
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::control::{Identity, Welcome};
use sluice_shim::Found;
use sluice_transport::agent::AgentConnection;
use sluice_transport::backoff::Backoff;
use sluice_transport::carrier::Carrier;
use sluice_transport::identity::{AgentIdentity, MachineIdentity};
use sluice_transport::surroundings::jitter;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};

use crate::at_work::AtWork;
use crate::attachments::{BlobError, Blobs};
use crate::audit::Event;
use crate::clock::now;
use crate::config::{self, Config};
use crate::dispatcher::Operations;
use crate::exec::executor::Executor;
use crate::exec::spawn::Launcher;
use crate::exec::versions::Versions;
use crate::facts;
use crate::gates::{Gates, TakeError};
use crate::history::History;
use crate::ledger::Ledger;
use crate::link;
use crate::lockdown::Lock;
use crate::receipts::Receipts;
use crate::secrets::Secrets;
use crate::spools::Spools;
use crate::state::StateDirectory;
use crate::telling::Places;

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
    /// Opens the secrets of operations.
    pub secrets: Secrets,
    /// Signs receipts.
    pub receipts: Receipts,
    /// Runs scripts.
    pub executor: Executor,
    /// How they are held together.
    pub containment: Found,
    /// Of interpreters.
    pub versions: Versions,
    /// How much disk output takes.
    pub spools: Spools,
    config: watch::Sender<Arc<Config>>,
    config_path: Option<PathBuf>,
    pub(crate) carrier: Carrier,
    slots: Semaphore,
    /// Whether the host lets operations start.
    pub lockdown: Lock,
    /// What is at the gates, or about to be started.
    pub at_work: AtWork,
    /// Whether the host has confirmed what the ledger says.
    pub history: History,
    link: watch::Sender<Option<AgentConnection>>,
    identity: RwLock<Identity>,
    pub(crate) operations: Mutex<Operations>,
    pub(crate) places: Places,
}

/// Runs the agent until it is told to stop.
///
/// # Errors
///
/// Where it cannot start, or coming back to the host does not help.
pub async fn run(state: StateDirectory, config_path: Option<PathBuf>) -> anyhow::Result<()> {
    let config = Config::load(config_path.as_deref())?;
    let _lock = state.lock()?;
    let launcher = Launcher::beside_this_program(state.path("spool"))?;
    let Started {
        agent,
        identity,
        addresses,
    } = Agent::start(
        state,
        config,
        config_path,
        Executor::Shims(launcher),
        Carrier::System,
    )
    .await?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    // A task of its own: what a branch below waits for may be held by the link, which has to go on meanwhile.
    let mut link = tokio::spawn({
        let agent = Arc::clone(&agent);
        async move { link::keep(&agent, identity, &addresses).await }
    });
    loop {
        tokio::select! {
            result = &mut link => return Ok(result??),
            _ = hangup.recv() => agent.reload().await,
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
    agent.ledger.close().await;
    Ok(())
}

/// An agent that has taken up what an earlier one left, and has no link yet: [`link::keep`] is next.
pub struct Started {
    /// The agent.
    pub agent: Arc<Agent>,
    /// Who it is.
    pub identity: AgentIdentity,
    /// Where its host is.
    pub addresses: Vec<String>,
}

impl Agent {
    /// Makes all parts, and takes up what an earlier agent left.
    ///
    /// # Errors
    ///
    /// Where something of the state cannot be used.
    pub async fn start(
        state: StateDirectory,
        config: Config,
        config_path: Option<PathBuf>,
        executor: Executor,
        carrier: Carrier,
    ) -> anyhow::Result<Started> {
        let (identity, addresses) = state.identity()?;
        let containment = executor.containment().await;
        let slots = Semaphore::new(config.limits.parallel);
        let versions = Versions::start(config.interpreters.allowed.clone());
        let config = watch::Sender::new(Arc::new(config));
        let ledger = Ledger::open(&state.path("ledger.db"))?;
        let (at_work, crashed) = AtWork::open(&state.path("at-work"), &facts::boot())
            .context("what an earlier agent was at work on cannot be found out")?;
        ledger.count_crashes(crashed, now()).await?;
        let agent = Arc::new(Self {
            machine: identity.machine(),
            lockdown: Lock::read(&ledger)?,
            at_work,
            history: History::default(),
            ledger,
            gates: Gates::new(&state, config.subscribe())?,
            blobs: Blobs::new(state.path("blobs")),
            secrets: Secrets::new(identity.machine(), state.sealing_key()?)?,
            receipts: Receipts::new(&identity)?,
            executor,
            containment,
            versions,
            spools: Spools::new(state.path("spool")),
            slots,
            config,
            config_path,
            carrier,
            link: watch::Sender::new(None),
            identity: RwLock::new(Identity {
                tenant: String::new(),
                name: String::new(),
                tags: Vec::new(),
                url: String::new(),
            }),
            operations: Mutex::default(),
            places: Places::default(),
            state,
        });
        agent.prepare_workspace()?;
        agent.resume()?;
        agent.prepare_spare();
        Ok(Started {
            agent,
            identity,
            addresses,
        })
    }

    /// The owner's policy as it is now.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
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

    /// What a script of root, or under a profile, does not see: the state with its keys, ledger and spools, and the
    /// configuration, with what lies beside it at its usual place.
    #[must_use]
    pub fn own_files(&self) -> Vec<PathBuf> {
        let usual = Path::new(config::DEFAULT_PATH).parent();
        // Elsewhere the directory may be anybody's, such as /root. One that is not there needs not be hidden.
        let given = self
            .config_path
            .as_ref()
            .and_then(|path| path.canonicalize().ok());
        std::iter::once(self.state.root().to_owned())
            .chain(usual.map(Path::to_owned))
            .chain(given)
            .collect()
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
        next_of(&mut self.links()).await
    }

    /// Has a blob here, verified. Where it breaks off the rest is asked for over the next link, or after a moment over the
    /// same one, for as long as the caller waits.
    ///
    /// # Errors
    ///
    /// Where the host does not have it, or has something else, or it cannot be kept.
    pub(crate) async fn fetch(&self, sha256: Digest, size: u64) -> Result<PathBuf, BlobError> {
        let (mut links, mut backoff) = (self.links(), Backoff::new());
        loop {
            let connection = next_of(&mut links).await;
            match self.blobs.ensure(&connection, sha256, size).await {
                Err(error) if error.is_broken_off() => {
                    tracing::info!(blob = %sha256, %error, "the rest of a blob is asked for");
                    tokio::select! {
                        // Links have pauses of their own.
                        _ = links.changed() => backoff.reset(),
                        () = tokio::time::sleep(backoff.next(jitter())) => {}
                    }
                }
                done => return done,
            }
        }
    }

    /// Has a shim wait ready, in the background.
    pub fn prepare_spare(&self) {
        let executor = self.executor.clone();
        tokio::spawn(async move {
            if let Err(error) = executor.prepare_spare().await {
                tracing::warn!(error = %Causes(&error), "no shim waits ready; the next operation starts one");
            }
        });
    }

    /// Which link there is, as it changes.
    pub(crate) fn links(&self) -> watch::Receiver<Option<AgentConnection>> {
        self.link.subscribe()
    }

    /// Whether there is a link at the moment.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        self.link.borrow().is_some()
    }

    /// The link of the moment, if there is one.
    pub(crate) fn link(&self) -> Option<AgentConnection> {
        self.link.borrow().clone()
    }

    /// A link is up: it is told about every open operation.
    pub(crate) fn connected(self: &Arc<Self>, connection: AgentConnection, welcome: Welcome) {
        self.renamed(welcome.identity);
        self.host_has(&welcome.stored);
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

    async fn reload(self: &Arc<Self>) {
        let event = match Config::load(self.config_path.as_deref()) {
            Ok(config) => {
                // What the owner has tightened holds from here on: operations wait until the gates are set up under it.
                self.versions.renew(config.interpreters.allowed.clone());
                self.config.send_replace(Arc::new(config));
                if let Err(error) = self.prepare_workspace() {
                    tracing::error!(error = %format!("{error:#}"), "scripts cannot be put there; every operation will end with an error");
                }
                tracing::info!(
                    "the configuration was read again; limits.parallel takes effect at the next start"
                );
                let agent = Arc::clone(self);
                tokio::spawn(async move { agent.take_gates_again().await });
                Event::new("config_reloaded", None)
            }
            Err(error) => {
                tracing::error!(%error, "the configuration was not taken; the old one stays");
                Event::new("config_refused", None).with("error", error)
            }
        };
        if let Err(error) = self.ledger.record(event, now()).await {
            tracing::error!(error = %Causes(&error), "the reload is not on the record");
        }
    }

    /// Sets the gates up under the policy of the moment, over whatever link there is.
    async fn take_gates_again(&self) {
        let mut backoff = Backoff::new();
        loop {
            let connection = self.connection().await;
            let taken = self
                .gates
                .take_again(&self.ledger, &self.blobs, &connection);
            let Err(error) = taken.await else { return };
            tracing::error!(error = %Causes(&error), "the gates cannot be set up again; operations wait");
            if !matches!(error, TakeError::BrokenOff { .. }) {
                return;
            }
            tokio::time::sleep(backoff.next(jitter())).await;
        }
    }

    /// The base for private directories. What is missing of it is made with mode 0711, whatever the umask, so that a user
    /// can reach its script.
    fn prepare_workspace(&self) -> anyhow::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let base = self.workspace_base(&self.config());
        let missing: Vec<_> = base.ancestors().take_while(|path| !path.exists()).collect();
        for path in missing.into_iter().rev() {
            std::fs::create_dir(path)
                .and_then(|()| {
                    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o711))
                })
                .with_context(|| format!("script_tempdir {}", path.display()))?;
        }
        Ok(())
    }
}

/// The link of the moment, or else the next.
async fn next_of(links: &mut watch::Receiver<Option<AgentConnection>>) -> AgentConnection {
    loop {
        if let Some(connection) = links.borrow_and_update().clone() {
            return connection;
        }
        if links.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
