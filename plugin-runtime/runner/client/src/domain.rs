//! A trust domain: the plugins of one owner, in at most one runner process.

mod bound;

use std::collections::HashSet;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use lru::LruCache;
use sha2::{Digest as _, Sha256};
use sluice_gate_types::admission::{Admitted, Refused};
use sluice_gate_types::answer::{Answer, CallError, SettingsProblem};
use sluice_gate_types::input::Value;
use sluice_gate_types::limits::CallLimits;
use sluice_gate_types::manifest::LimitsAsked;
use sluice_protocol::report::Mode;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::cache::{Cache, Entry, Key};
use crate::check;
use crate::component::Component;
use crate::memory_file::{Content, MemoryFile, Space, SpaceError};
use crate::process::{Gone, Process, Start, compile, gate_user};
use crate::program;
use crate::wire::{
    CompileRequest, CompileResponse, Configure, Instrumented, Memory, Ready, Request, Response,
    Snapshot,
};

pub(crate) use bound::Answered;
use bound::Bound;
pub use bound::BoundGate;

/// What comes on top of a call's own time limit before the runner is killed: host calls are outside fuel and epochs.
const GRACE: Duration = Duration::from_secs(2);
/// A runner that nobody asked for this long is ended.
pub const IDLE: Duration = Duration::from_secs(300);

/// How many answers a domain keeps, and up to which size of each, in bytes.
const ANSWERS: NonZeroUsize = NonZeroUsize::new(512).expect("is not zero");
const LARGEST_ANSWER: usize = 16 << 10;

/// How a domain is set up.
#[derive(Debug, Clone)]
pub struct DomainOptions {
    /// For logs, for example `owner` or a tenant's id.
    pub name: String,
    /// Tells domains of one parent apart where they drop to unassigned users.
    pub slot: u32,
    /// A directory of this domain alone for compiled components.
    pub cache: PathBuf,
    /// The runner's binary; beside our own executable where none is given.
    pub runner: Option<PathBuf>,
    /// How long a runner stays that nobody asks: [`IDLE`], but in tests.
    pub idle: Duration,
}

/// One trust domain. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct GateDomain(Arc<Inner>);

struct Inner {
    name: String,
    idle: Duration,
    start: Start,
    cache: Cache,
    next: AtomicU64,
    running: Mutex<Running>,
    answers: std::sync::Mutex<Answers>,
}

/// Answers by the gate and its settings, its limits, and the digest of the question.
type Answers = LruCache<(Key, CallLimits, [u8; 32]), Arc<Answered>>;

/// The digest of an answer's one encoding, and how long that is.
pub(crate) fn digest_of_answer(answer: &Result<Answer, CallError>) -> ([u8; 32], usize) {
    let mut encoded = Vec::new();
    if let Err(error) = ciborium::into_writer(answer, &mut encoded) {
        tracing::error!(%error, "an answer has no CBOR form");
    }
    (Sha256::digest(&encoded).into(), encoded.len())
}

/// The digest of settings as they are given to a binding.
///
/// # Errors
///
/// They have no JSON form.
pub fn settings_sha256(settings: &[(String, Value)]) -> io::Result<[u8; 32]> {
    let settings = serde_json::to_vec(settings).map_err(io::Error::other)?;
    Ok(Sha256::digest(&settings).into())
}

#[derive(Default)]
struct Running {
    process: Option<Arc<Process>>,
    loaded: HashSet<u64>,
    last_used: Option<Instant>,
}

/// A plugin to put to use. Its signature has been checked against the component's digest.
#[derive(Debug, Clone)]
pub struct BindRequest {
    /// The component.
    pub component: Component,
    /// Settings as given.
    pub settings: Vec<(String, Value)>,
    /// Whether it can block.
    pub mode: Mode,
    /// Whether the machine's owner bound it, so that no permission of an operator leaves it out.
    pub owner: bool,
}

impl GateDomain {
    /// A domain. Its runner is started when it is first needed.
    ///
    /// # Errors
    ///
    /// Where the cache cannot be opened, or no user can be found to drop to.
    pub fn new(options: DomainOptions) -> io::Result<Self> {
        let program = match options.runner {
            Some(program) => program::checked(&program),
            None => program::beside_own_executable("sluice-gate-runner"),
        }
        .map_err(io::Error::other)?;
        Ok(Self(Arc::new(Inner {
            name: options.name,
            idle: options.idle,
            start: Start {
                program,
                user: gate_user(options.slot)?,
            },
            cache: Cache::open(&options.cache)?,
            next: AtomicU64::new(1),
            running: Mutex::default(),
            answers: std::sync::Mutex::new(LruCache::new(ANSWERS)),
        })))
    }

    /// What a component says and shows, read by a walled child.
    ///
    /// # Errors
    ///
    /// Every reason why it may not be a plugin.
    pub async fn inspect(&self, component: &Component) -> Result<Admitted, BindError> {
        let files = vec![component.file.descriptor()];
        match compile(&self.0.start, CompileRequest::Inspect, files)
            .await
            .map_err(BindError::Runner)?
        {
            CompileResponse::Inspected(result) => {
                check::admitted(*result).map_err(BindError::Refused)
            }
            _ => Err(BindError::other_question()),
        }
    }

    /// As [`Self::inspect`], and why the component could not be snapshotted where its shape shows that. Costs a quick
    /// compilation; no guest code runs.
    ///
    /// # Errors
    ///
    /// Every reason why it may not be a plugin.
    pub async fn examine(
        &self,
        component: &Component,
    ) -> Result<(Admitted, Option<String>), BindError> {
        let (instrumented, _space) = self
            .compile(CompileRequest::Instrument, &component.file)
            .await?;
        let CompileResponse::Instrumented(result) = instrumented else {
            return Err(BindError::other_question());
        };
        let (admitted, instrumented) = shown(*result)?;
        Ok((admitted, instrumented.err()))
    }

    /// Admits, configures, snapshots, compiles and loads a plugin, or finds all that in the cache.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from being called; nothing is bound then.
    pub async fn bind(&self, request: BindRequest) -> Result<BoundGate, BindError> {
        self.bind_within(request, &LimitsAsked::default()).await
    }

    /// As [`Self::bind`], with limits for each call that are lower than what the plugin asks for.
    ///
    /// # Errors
    ///
    /// As [`Self::bind`], and where a limit is higher.
    pub async fn bind_within(
        &self,
        request: BindRequest,
        lower: &LimitsAsked,
    ) -> Result<BoundGate, BindError> {
        let process = self.process().await.map_err(BindError::Runner)?;
        let key = Key {
            engine: process.ready.compatibility,
            component: request.component.sha256(),
            configuration: settings_sha256(&request.settings).map_err(BindError::Runner)?,
        };
        let entry = match self.0.cache.get(&key) {
            Some(entry) => entry,
            None => {
                let entry = self.build(&process, &request).await?;
                self.0.cache.put(&key, &entry).map_err(BindError::Cache)?;
                entry
            }
        };
        let manifest = entry.admitted.manifest.clone();
        let settings = manifest
            .settings(&request.settings)
            .map_err(BindError::Settings)?;
        let limits = CallLimits::granted(&manifest.limits)
            .map_err(|reasons| BindError::Refused(Refused(reasons)))?
            .within(lower)
            .map_err(BindError::Limits)?;
        let gate = BoundGate(Arc::new(Bound {
            domain: self.clone(),
            number: self.0.next.fetch_add(1, Ordering::Relaxed),
            key,
            manifest,
            contract: entry.admitted.contract,
            limits,
            configure: Configure {
                settings,
                data: Vec::new(),
            },
            not_snapshotted: entry.not_snapshotted.clone(),
            runtime: process.ready.runtime.clone(),
            mode: request.mode,
            owner: request.owner,
            given: request.settings,
            origin: request.component.origin().map(ToOwned::to_owned),
            building: AtomicBool::new(false),
        }));
        gate.load(entry).await.map_err(BindError::Call)?;
        Ok(gate)
    }

    /// Asks every gate's runner to be there, and says which walls it has.
    ///
    /// # Errors
    ///
    /// Where no runner can be started, or a mandatory wall cannot be put up.
    pub async fn ready(&self) -> io::Result<Ready> {
        self.process().await.map(|process| process.ready.clone())
    }

    async fn build(&self, process: &Process, request: &BindRequest) -> Result<Entry, BindError> {
        let component = &request.component.file;
        let (instrumented, space) = self.compile(CompileRequest::Instrument, component).await?;
        let CompileResponse::Instrumented(result) = instrumented else {
            return Err(BindError::other_question());
        };
        let (admitted, instrumented) = shown(*result)?;
        let settings = admitted
            .manifest
            .settings(&request.settings)
            .map_err(BindError::Settings)?;
        let (to_compile, not_snapshotted) = match instrumented {
            Ok(length) => {
                let artifact = space.seal(length, Content::Artifact)?;
                let snapshot = Snapshot {
                    contract: admitted.contract,
                    world: admitted.manifest.world,
                    configure: Configure {
                        settings,
                        data: Vec::new(),
                    },
                };
                let component = snapshotted(process, snapshot, component, &artifact).await?;
                (component, None)
            }
            Err(reason) => (component.clone(), Some(reason)),
        };
        match self.compile(CompileRequest::Compile, &to_compile).await? {
            (CompileResponse::Compiled(Ok(length)), space) => Ok(Entry {
                admitted,
                not_snapshotted,
                artifact: space.seal(length, Content::Artifact)?,
            }),
            (CompileResponse::Compiled(Err(error)), _) => {
                Err(BindError::Refused(check::refused(Refused(vec![error]))))
            }
            _ => Err(BindError::other_question()),
        }
    }

    /// Asks a one-shot child, and gives the space that it wrote into. The child is gone by then.
    async fn compile(
        &self,
        request: CompileRequest,
        component: &MemoryFile,
    ) -> Result<(CompileResponse, Space), BindError> {
        let space = Space::new().map_err(BindError::Runner)?;
        let files = vec![component.descriptor(), space.descriptor()];
        let response = compile(&self.0.start, request, files)
            .await
            .map_err(BindError::Runner)?;
        Ok((response, space))
    }

    async fn process(&self) -> io::Result<Arc<Process>> {
        let mut running = self.0.running.lock().await;
        running.last_used = Some(Instant::now());
        if let Some(process) = running
            .process
            .as_ref()
            .filter(|process| !process.is_dead())
        {
            return Ok(Arc::clone(process));
        }
        let process = Arc::new(Process::start(&self.0.start).await?);
        tracing::info!(
            domain = self.0.name,
            walls = process.ready.walls.join(","),
            "gate runner started"
        );
        if process.ready.memory == Memory::OnDemand {
            tracing::warn!(
                domain = self.0.name,
                "the gate runner has no address space for a pool: calls of gates are slower"
            );
        }
        running.loaded.clear();
        running.process = Some(Arc::clone(&process));
        tokio::spawn(end_when_idle(Arc::downgrade(&self.0), self.0.idle));
        Ok(process)
    }
}

/// What a compiling child says of a component, as it can be shown.
fn shown(said: Result<Instrumented, Refused>) -> Result<Instrumented, BindError> {
    let (admitted, instrumented) = match said {
        Ok((admitted, instrumented)) => (Ok(admitted), Some(instrumented)),
        Err(refused) => (Err(refused), None),
    };
    let admitted = check::admitted(admitted).map_err(BindError::Refused)?;
    let instrumented = instrumented.ok_or_else(BindError::other_question)?;
    Ok((
        admitted,
        instrumented.map_err(|reason| check::inert(&reason)),
    ))
}

/// Configures and snapshots a component in the runner, and takes what the runner wrote. One that goes on writing, or
/// answers with what cannot be, is not asked again.
async fn snapshotted(
    process: &Process,
    snapshot: Snapshot,
    component: &MemoryFile,
    artifact: &MemoryFile,
) -> Result<MemoryFile, BindError> {
    let space = Space::new().map_err(BindError::Runner)?;
    let files = vec![
        component.descriptor(),
        artifact.descriptor(),
        space.descriptor(),
    ];
    let limit = Duration::from_millis(CallLimits::CONFIGURE.time_ms) + GRACE;
    let request = Request::Snapshot(Box::new(snapshot));
    let taken = match process.ask(request, files, limit).await {
        Ok(Response::Snapshot(Ok(length))) => space
            .seal(length, Content::Component)
            .map_err(BindError::from),
        Ok(Response::Snapshot(Err(error))) => {
            return Err(BindError::Call(check::inert_error(error)));
        }
        Ok(_) => Err(BindError::other_question()),
        Err(gone) => {
            return Err(BindError::Call(
                gone.into_error(Duration::from_millis(CallLimits::CONFIGURE.time_ms)),
            ));
        }
    };
    if taken.is_err() {
        process.kill().await;
    }
    taken
}

/// Ends the runner once nobody has asked it for a while. It lasts as long as the runner: where there is none, nothing wakes
/// up to look.
async fn end_when_idle(domain: Weak<Inner>, idle: Duration) {
    let mut until = Instant::now() + idle;
    loop {
        sleep_until(until).await;
        let Some(domain) = domain.upgrade() else {
            return;
        };
        let mut running = domain.running.lock().await;
        match running.last_used {
            Some(used) if used + idle > Instant::now() => until = used + idle,
            _ => {
                *running = Running::default();
                return;
            }
        }
    }
}

impl Gone {
    fn into_error(self, limit: Duration) -> CallError {
        match self {
            Self::Died => CallError::Runner("its process ended unexpectedly".to_owned()),
            Self::TimedOut => {
                CallError::Deadline(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX))
            }
        }
    }
}

/// Why a plugin is not bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The bytes may not be a plugin.
    #[error("the plugin is refused: {0}")]
    Refused(Refused),
    /// Its settings are not valid.
    #[error("the settings are not valid: {}", .0.iter().map(|p| format!("{} {}", p.key, p.message)).collect::<Vec<_>>().join("; "))]
    Settings(Vec<SettingsProblem>),
    /// It is to have more than it asks for.
    #[error("the limits are not valid: {}", .0.join("; "))]
    Limits(Vec<String>),
    /// It does not come up.
    #[error("the plugin cannot be configured: {0}")]
    Call(CallError),
    /// No runner, or one that fails.
    #[error("the gate runner failed: {0}")]
    Runner(#[source] io::Error),
    /// What the runner wrote cannot be trusted, or is not what it was asked for.
    #[error("the gate runner is not believed: {0}")]
    Written(#[from] SpaceError),
    /// The compiled component cannot be kept.
    #[error("the compiled plugin cannot be kept: {0}")]
    Cache(#[source] io::Error),
}

impl BindError {
    fn other_question() -> Self {
        Self::Runner(io::Error::other("it answered another question"))
    }
}
