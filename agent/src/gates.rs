//! The gates of this machine: the owner's, and those that the host binds. Each kind has a runner of its own.
//!
//! A set replaces the one before whole, and what is the same in both is not bound again. A new revision of a binding that
//! cannot be used here leaves the one in force that this machine had, as long as that may still be asked.

mod bind;
mod in_force;
mod required;

use std::sync::Arc;
use std::time::Duration;

use sluice_gate_client::{DomainOptions, GateDomain};
use sluice_protocol::ending::{Block, Ending};
use sluice_protocol::gates::GateSet;
use sluice_protocol::report::Mode;
use sluice_protocol::script::Language;
use sluice_transport::agent::AgentConnection;
use tokio::sync::{Mutex, watch};

use self::bind::{Binder, Unbound};
pub use self::in_force::Asked;
use self::in_force::Bound;
use crate::attachments::{BlobError, Blobs};
use crate::clock::now;
use crate::config::Config;
use crate::ledger::{Ledger, LedgerError};
use crate::state::StateDirectory;

/// How long an operation waits for gates that are being compiled.
const READY: Duration = Duration::from_secs(300);

/// All gates of a machine.
pub struct Gates {
    owner: GateDomain,
    host: GateDomain,
    /// The owner's policy as it is now.
    config: watch::Receiver<Arc<Config>>,
    /// None before the first set came.
    bound: watch::Sender<Option<Arc<Bound>>>,
    /// Held while a set is taken in. The last one that was, for when the owner's policy changes.
    taken: Mutex<Option<GateSet>>,
}

impl Gates {
    /// Sets both domains up. Runners start when they are first needed.
    ///
    /// # Errors
    ///
    /// Where a cache cannot be opened, or no user can be found to drop to.
    pub fn new(
        state: &StateDirectory,
        config: watch::Receiver<Arc<Config>>,
    ) -> std::io::Result<Self> {
        let domain = |name: &str, slot| {
            GateDomain::new(DomainOptions {
                name: name.to_owned(),
                slot,
                cache: state.path("gates").join(name),
                runner: None,
                idle: sluice_gate_client::IDLE,
            })
        };
        Ok(Self {
            owner: domain("owner", 0)?,
            host: domain("host", 1)?,
            config,
            bound: watch::Sender::default(),
            taken: Mutex::default(),
        })
    }

    /// Takes in the host's gate set: verifies, fetches, configures. Returns what is wrong, one line each.
    ///
    /// # Errors
    ///
    /// Where the ledger fails, or a component breaks off; then nothing has changed, and operations wait for the set.
    pub async fn take(
        &self,
        set: &GateSet,
        ledger: &Ledger,
        blobs: &Blobs,
        connection: &AgentConnection,
    ) -> Result<Vec<String>, TakeError> {
        // One at a time, and a set that was superseded while it waited changes nothing.
        let mut taken = self.taken.lock().await;
        if taken
            .as_ref()
            .is_some_and(|there| there.revision > set.revision)
        {
            return Ok(Vec::new());
        }
        let problems = self.set_up(set, ledger, blobs, connection).await?;
        *taken = Some(set.clone());
        Ok(problems)
    }

    /// Takes the last set in again, because the owner's policy has changed. Until that is done operations wait.
    ///
    /// # Errors
    ///
    /// As [`Self::take`].
    pub async fn take_again(
        &self,
        ledger: &Ledger,
        blobs: &Blobs,
        connection: &AgentConnection,
    ) -> Result<(), TakeError> {
        // A set that is being taken in under the old policy is there when the lock is had.
        let taken = self.taken.lock().await;
        if let Some(set) = taken.as_ref() {
            for problem in self.set_up(set, ledger, blobs, connection).await? {
                tracing::error!(problem, "a gate cannot be used under the new policy");
            }
        }
        Ok(())
    }

    /// Sets the gates of a set and those of the owner up under the policy of this moment.
    async fn set_up(
        &self,
        set: &GateSet,
        ledger: &Ledger,
        blobs: &Blobs,
        connection: &AgentConnection,
    ) -> Result<Vec<String>, TakeError> {
        let config = Arc::clone(&self.config.borrow());
        let before = self.bound.borrow().clone();
        let before = before.as_deref();
        let binder = Binder {
            owner: &self.owner,
            host: &self.host,
            trusted: bind::trusted(set, &config, ledger).await?,
            ledger,
            blobs,
            connection,
        };
        let mut bound = Bound::new(Arc::clone(&config), set.revision);
        let mut problems = Vec::new();
        for required in config.gates.required.iter() {
            let known = before.and_then(|before| before.owners_gate(required));
            match binder.bind_required(required, set, known).await {
                Ok(gate) => {
                    if required.file.is_none() {
                        bound.required.push(required.id.clone());
                    }
                    bound.owners.extend(gate);
                }
                Err(reason) => {
                    let reason = format!(
                        "the required gate {} cannot be asked: {reason}",
                        required.id
                    );
                    problems.push(reason.clone());
                    bound
                        .broken
                        .get_or_insert(Ending::Blocked(Block::machine_policy(reason)));
                }
            }
        }
        for binding in &set.bindings {
            // What the owner requires cannot be left out by a permission of the host's operators.
            let required = bound.required.contains(&binding.plugin);
            let known = before.and_then(|before| before.of_binding(binding.binding));
            let reason = match binder.bind(binding, required, known).await {
                Ok(gate) => {
                    bound.host.push(gate);
                    continue;
                }
                Err(Unbound::BrokenOff(source)) => {
                    return Err(TakeError::BrokenOff {
                        plugin: binding.plugin.clone(),
                        source,
                    });
                }
                Err(Unbound::Refused(reason)) => reason,
            };
            let mut problem = format!(
                "{}: revision {} cannot be used: {reason}",
                binding.plugin, binding.revision
            );
            match binder.last_good(binding, &config, required, known).await {
                Some(gate) => {
                    problem = format!("{problem}; revision {} stays in force", gate.revision());
                    bound.host.push(gate.instead_of(binding.revision, reason));
                }
                None if binding.mode == Mode::Enforce => {
                    let block = Block {
                        by: binding.plugin.clone(),
                        reason,
                        code: Some("gate-error".to_owned()),
                    };
                    bound.broken.get_or_insert(Ending::Blocked(block));
                }
                None => {}
            }
            problems.push(problem);
        }
        // For the next start of the agent, at which a revision that cannot be used needs the one before, too.
        let in_force: Vec<_> = bound.host.iter().map(|gate| gate.binding.clone()).collect();
        ledger.remember_gates(&in_force).await?;
        self.bound.send_replace(Some(Arc::new(bound)));
        Ok(problems)
    }

    /// The gates for an operation with a script in this language that the host checked with this revision. Waits for them
    /// where they are on their way, are being set up under a policy that was just read, or cannot come because there is no
    /// link.
    ///
    /// # Errors
    ///
    /// How the operation ends where they do not come, one of them cannot be asked, or a stage has none that enforces.
    #[tracing::instrument(level = "debug", skip_all)]
    pub async fn for_operation(
        &self,
        revision: u64,
        language: Language,
        skip_scan: bool,
        links: watch::Receiver<Option<AgentConnection>>,
    ) -> Result<Asked, Ending> {
        let mut watched = self.bound.subscribe();
        let ready = watched.wait_for(|bound| {
            bound.as_ref().is_some_and(|bound| {
                bound.revision >= revision && Arc::ptr_eq(&bound.config, &self.config.borrow())
            })
        });
        let bound = tokio::select! {
            bound = ready => bound.ok().and_then(|bound| bound.clone()),
            () = linked_for(READY, links) => None,
        };
        let bound = bound.ok_or_else(|| {
            Ending::Blocked(Block::machine_policy(format!(
                "the gates of this operation (revision {revision}) were not ready within {} minutes of a link to the host; the agent's log says what they wait for",
                READY.as_secs() / 60
            )))
        })?;
        bound.asked(language, skip_scan, now())
    }

    /// The walls that the host's runner has, for the inventory.
    ///
    /// # Errors
    ///
    /// Where a mandatory wall cannot be put up.
    pub async fn walls(&self) -> std::io::Result<Vec<String>> {
        self.host.ready().await.map(|ready| ready.walls)
    }
}

/// A gate set was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// A component did not arrive whole. Asking again helps.
    #[error("the component of {plugin} did not arrive")]
    BrokenOff {
        /// Of which plugin.
        plugin: String,
        /// How.
        #[source]
        source: BlobError,
    },
    /// What must be remembered is not.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Waits until there has been one and the same link for so long: a host that is there and does not bring the gates. While
/// it is away they cannot come, and operations have a time limit of their own.
async fn linked_for(time: Duration, mut links: watch::Receiver<Option<AgentConnection>>) {
    loop {
        let is_linked = links.borrow_and_update().is_some();
        tokio::select! {
            () = tokio::time::sleep(time), if is_linked => return,
            changed = links.changed() => if changed.is_err() {
                return;
            },
        }
    }
}
