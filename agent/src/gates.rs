//! The gates of this machine: the owner's, and those that the host binds. Each kind has a runner of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sluice_gate_client::{BindRequest, BoundGate, Component, DomainOptions, GateDomain, settings};
use sluice_gate_types::manifest::{World, toml_value};
use sluice_gate_types::signature::{self, PublicKey, SignatureError};
use sluice_protocol::causes::Causes;
use sluice_protocol::ending::{Block, Ending};
use sluice_protocol::gates::{GateBinding, GateSet};
use sluice_protocol::report::Mode;
use sluice_transport::agent::AgentConnection;
use tokio::sync::{Mutex, watch};

use crate::attachments::{BlobError, Blobs};
use crate::clock::now;
use crate::config::{Config, RequiredGate};
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

/// The gates that apply at one moment, and the owner's policy that they were set up under.
pub struct Bound {
    /// The owner's policy.
    pub config: Arc<Config>,
    /// The gates.
    pub gates: Vec<BoundGate>,
    /// Of the host's set.
    revision: u64,
    /// Ids of gates that the owner requires the host to bind.
    required: Vec<String>,
    /// Why nothing may run: a gate of the owner's, or an enforcing one of the host's, cannot be asked.
    broken: Option<Ending>,
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
        let trusted = trusted(set, &config, ledger).await?;
        let mut bound = Bound {
            config: Arc::clone(&config),
            gates: Vec::new(),
            revision: set.revision,
            required: Vec::new(),
            broken: None,
        };
        let mut problems = Vec::new();
        for required in config.gates.required.iter() {
            match self.bind_required(required, set).await {
                Ok(gate) => {
                    if required.file.is_none() {
                        bound.required.push(required.id.clone());
                    }
                    bound.gates.extend(gate);
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
            match self
                .bind(binding, required, &trusted, ledger, blobs, connection)
                .await
            {
                Ok(gate) => bound.gates.push(gate),
                Err(Unbound::BrokenOff(source)) => {
                    return Err(TakeError::BrokenOff {
                        plugin: binding.plugin.clone(),
                        source,
                    });
                }
                Err(Unbound::Refused(reason)) => {
                    problems.push(format!("{}: {reason}", binding.plugin));
                    if binding.mode == Mode::Enforce {
                        let block = Block {
                            by: binding.plugin.clone(),
                            reason,
                            code: Some("gate-error".to_owned()),
                        };
                        bound.broken.get_or_insert(Ending::Blocked(block));
                    }
                }
            }
        }
        self.bound.send_replace(Some(Arc::new(bound)));
        Ok(problems)
    }

    /// The gates for an operation that the host checked with this revision. Waits for them where they are on their way, are
    /// being set up under a policy that was just read, or cannot come because there is no link.
    ///
    /// # Errors
    ///
    /// How the operation ends where they do not come, one of them cannot be asked, or a stage has none that enforces.
    #[tracing::instrument(level = "debug", skip_all)]
    pub async fn for_operation(
        &self,
        revision: u64,
        skip_scan: bool,
        links: watch::Receiver<Option<AgentConnection>>,
    ) -> Result<Arc<Bound>, Ending> {
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
        if let Some(ending) = &bound.broken {
            return Err(ending.clone());
        }
        for stage in &bound.config.gates.stages {
            let counts = |gate: &&BoundGate| {
                let skipped = *stage == World::ScannerPlugin && skip_scan && !gate.is_owners();
                gate.world() == *stage && gate.mode() == Mode::Enforce && !skipped
            };
            if bound.gates.iter().find(counts).is_none() {
                let reason = format!("no {} for stage {}", kind(*stage), stage.stage());
                return Err(Ending::Blocked(Block::machine_policy(reason)));
            }
        }
        Ok(bound)
    }

    /// The walls that the host's runner has, for the inventory.
    ///
    /// # Errors
    ///
    /// Where a mandatory wall cannot be put up.
    pub async fn walls(&self) -> std::io::Result<Vec<String>> {
        self.host.ready().await.map(|ready| ready.walls)
    }

    async fn bind(
        &self,
        binding: &GateBinding,
        required: bool,
        trusted: &[PublicKey],
        ledger: &Ledger,
        blobs: &Blobs,
        connection: &AgentConnection,
    ) -> Result<BoundGate, Unbound> {
        let digest = *binding.component.as_bytes();
        // Whoever may publish here is decided before a byte is fetched.
        let signed = signature::verify(&binding.signature, digest, trusted, now()).map_err(
            |error| match error {
                SignatureError::Untrusted(_) => format!(
                    "{error} on this machine: it is not in its owner's [trust] publishers or, where that is empty, in the list that the host showed first"
                ),
                error => error.to_string(),
            },
        )?;
        refuse_downgrade(&signed, ledger).await?;
        let path = match blobs
            .ensure(connection, binding.component, binding.size)
            .await
        {
            Ok(path) => path,
            Err(error) if error.is_broken_off() => return Err(Unbound::BrokenOff(error)),
            Err(error) => return Err(error.to_string().into()),
        };
        let component = read_verified(&path, digest)?;
        let request = BindRequest {
            component,
            settings: settings(&binding.settings),
            mode: binding.mode,
            owner: required,
        };
        let gate = self
            .host
            .bind(request)
            .await
            .map_err(|error| error.to_string())?;
        check_statement(&gate, &signed.statement)?;
        if gate.manifest().id != binding.plugin {
            return Err(Unbound::Refused(format!(
                "the host says it is {}, its manifest {}",
                binding.plugin,
                gate.manifest().id
            )));
        }
        Ok(gate)
    }

    /// A gate that the owner requires: from the owner's file, or one that the host has to have bound.
    async fn bind_required(
        &self,
        required: &RequiredGate,
        set: &GateSet,
    ) -> Result<Option<BoundGate>, String> {
        let mut given = Vec::new();
        for (key, value) in &required.settings {
            given.push((
                key.clone(),
                toml_value(value).ok_or_else(|| {
                    format!("the setting {key} has a type that settings cannot have")
                })?,
            ));
        }
        let Some(file) = &required.file else {
            return required_of_host(required, &given, set).map(|()| None);
        };
        let component = read(file)?;
        let mut signature_file = file.clone().into_os_string();
        signature_file.push(".sig");
        let signature_file = Path::new(&signature_file);
        let signature = std::fs::read(signature_file)
            .map_err(|error| format!("{}: {error}", signature_file.display()))?;
        let signed =
            signature::verify(&signature, component.sha256(), &[required.publisher], now())
                .map_err(|error| error.to_string())?;
        check_version(required, &signed.statement)?;
        let request = BindRequest {
            component,
            settings: given,
            mode: Mode::Enforce,
            owner: true,
        };
        let gate = self
            .owner
            .bind(request)
            .await
            .map_err(|error| error.to_string())?;
        check_statement(&gate, &signed.statement)?;
        if gate.manifest().id != required.id {
            return Err(format!(
                "{} holds the gate {}",
                file.display(),
                gate.manifest().id
            ));
        }
        Ok(Some(gate))
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

/// Why one gate is not bound.
enum Unbound {
    /// Its component has not arrived, for a reason that has nothing to do with it.
    BrokenOff(BlobError),
    /// It may not, or cannot, be asked: what is wrong, in one line.
    Refused(String),
}

impl From<String> for Unbound {
    fn from(reason: String) -> Self {
        Self::Refused(reason)
    }
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

/// Whether the host binds the gate as the owner requires it: this publisher, not older, these settings, enforcing.
fn required_of_host(
    required: &RequiredGate,
    given: &[(String, sluice_gate_types::input::Value)],
    set: &GateSet,
) -> Result<(), String> {
    let binding = set
        .bindings
        .iter()
        .find(|binding| binding.plugin == required.id)
        .ok_or("the host does not bind it")?;
    if binding.mode != Mode::Enforce {
        return Err("the host binds it in mode monitor".to_owned());
    }
    let signed = signature::verify(
        &binding.signature,
        *binding.component.as_bytes(),
        &[required.publisher],
        now(),
    )
    .map_err(|error| error.to_string())?;
    check_version(required, &signed.statement)?;
    let bound = settings(&binding.settings);
    match given.iter().find(|(key, value)| {
        !bound
            .iter()
            .any(|(name, there)| name == key && there == value)
    }) {
        Some((key, _)) => Err(format!(
            "the host binds it with another value of {key} than this machine's owner requires"
        )),
        None => Ok(()),
    }
}

/// A publisher's statement says below which version nobody goes back; the machine remembers the highest it has seen.
async fn refuse_downgrade(signed: &signature::Signed, ledger: &Ledger) -> Result<(), String> {
    let (id, statement) = (
        format!("{} {}", signed.publisher, signed.statement.id),
        &signed.statement,
    );
    let minimum = ledger
        .minimum_version(&id, statement.minimum_version)
        .await
        .map_err(|error| Causes(&error).to_string())?;
    if statement.version < minimum {
        return Err(format!(
            "version {} is older than {minimum}, below which its publisher lets nobody go back",
            statement.version
        ));
    }
    Ok(())
}

fn check_version(required: &RequiredGate, statement: &signature::Statement) -> Result<(), String> {
    match required.min_version {
        Some(minimum) if statement.version < minimum => Err(format!(
            "it has version {}, below {minimum}",
            statement.version
        )),
        _ => Ok(()),
    }
}

/// The publisher's statement and the component's own manifest must tell the same.
fn check_statement(gate: &BoundGate, statement: &signature::Statement) -> Result<(), String> {
    let manifest = gate.manifest();
    if (&manifest.id, manifest.version, manifest.world)
        == (&statement.id, statement.version, statement.world)
    {
        Ok(())
    } else {
        Err("its manifest and its publisher's statement differ".to_owned())
    }
}

/// Whose plugins may run here: the owner's list, or the first list that the host showed.
async fn trusted(
    set: &GateSet,
    config: &Config,
    ledger: &Ledger,
) -> Result<Vec<PublicKey>, LedgerError> {
    if !config.trust.publishers.is_empty() {
        return Ok(config.trust.publishers.clone());
    }
    let pinned = match ledger.pinned_publishers()? {
        Some(pinned) => pinned,
        None if set.publishers.is_empty() => Vec::new(),
        None => {
            ledger.pin_publishers(&set.publishers, now()).await?;
            set.publishers.clone()
        }
    };
    // The host may withdraw a publisher, and never add one.
    Ok(pinned
        .iter()
        .filter(|key| set.publishers.contains(key))
        .filter_map(|key| key.parse().ok())
        .collect())
}

fn read(path: &Path) -> Result<Component, String> {
    Component::open(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn read_verified(path: &Path, digest: [u8; 32]) -> Result<Component, String> {
    let component = read(path)?;
    if component.sha256() == digest {
        Ok(component)
    } else {
        Err("the component was changed on its way".to_owned())
    }
}

const fn kind(stage: World) -> &'static str {
    match stage {
        World::EnvironmentPlugin => "environment gate",
        World::PreparerPlugin => "preparer",
        World::ScannerPlugin => "scanner",
        World::PolicyPlugin => "policy",
    }
}
