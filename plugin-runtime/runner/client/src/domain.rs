//! A trust domain: the plugins of one owner, in at most one runner process.

use std::collections::HashSet;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use lru::LruCache;
use sha2::{Digest as _, Sha256};
use sluice_gate_types::admission::{Admitted, Refused};
use sluice_gate_types::answer::{CallError, SettingsProblem};
use sluice_gate_types::input::Value;
use sluice_gate_types::limits::CallLimits;
use sluice_gate_types::manifest::{Manifest, World};
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
    Called, CompileRequest, CompileResponse, Configure, Encoded, Load, Ready, Request, Response,
    Snapshot,
};

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

/// Answers by the gate and its settings, and the digest of the question.
type Answers = LruCache<(Key, [u8; 32]), Arc<Answered>>;

/// What a gate answered to a question: a pure function's, so it is kept. Errors are not.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) called: Called,
    /// Of the answer's one encoding.
    pub(crate) verdict_sha256: [u8; 32],
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

/// A plugin that is admitted, configured and ready. Cloning gives another handle.
#[derive(Clone)]
pub struct BoundGate(Arc<Bound>);

struct Bound {
    domain: GateDomain,
    number: u64,
    key: Key,
    manifest: Manifest,
    limits: CallLimits,
    configure: Configure,
    not_snapshotted: Option<String>,
    runtime: String,
    mode: Mode,
    owner: bool,
}

impl Answered {
    /// No answer.
    pub(crate) fn failed(error: CallError) -> Self {
        let called = Called {
            answer: Err(error),
            fuel: 0,
            memory: 0,
            duration_us: 0,
            log: Vec::new(),
        };
        Self {
            called,
            verdict_sha256: [0; 32],
        }
    }
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
            CompileResponse::Inspected(result) => (*result).map_err(BindError::Refused),
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
        let (admitted, instrumented) = (*result).map_err(BindError::Refused)?;
        Ok((admitted, instrumented.err()))
    }

    /// Admits, configures, snapshots, compiles and loads a plugin, or finds all that in the cache.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from being called; nothing is bound then.
    pub async fn bind(&self, request: BindRequest) -> Result<BoundGate, BindError> {
        let process = self.process().await.map_err(BindError::Runner)?;
        let settings = serde_json::to_vec(&request.settings)
            .map_err(|error| BindError::Runner(io::Error::other(error)))?;
        let key = Key {
            engine: process.ready.compatibility,
            component: request.component.sha256(),
            configuration: Sha256::digest(&settings).into(),
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
            .map_err(|reasons| BindError::Refused(Refused(reasons)))?;
        let gate = BoundGate(Arc::new(Bound {
            domain: self.clone(),
            number: self.0.next.fetch_add(1, Ordering::Relaxed),
            key,
            manifest,
            limits,
            configure: Configure {
                settings,
                data: Vec::new(),
            },
            not_snapshotted: entry.not_snapshotted.clone(),
            runtime: process.ready.runtime.clone(),
            mode: request.mode,
            owner: request.owner,
        }));
        gate.load(Some(entry)).await.map_err(BindError::Call)?;
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
        let (admitted, instrumented) = (*result).map_err(BindError::Refused)?;
        let settings = admitted
            .manifest
            .settings(&request.settings)
            .map_err(BindError::Settings)?;
        let (to_compile, not_snapshotted) = match instrumented {
            Ok(length) => {
                let artifact = space.seal(length, Content::Artifact)?;
                let snapshot = Snapshot {
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
                Err(BindError::Refused(Refused(vec![error])))
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
        running.loaded.clear();
        running.process = Some(Arc::clone(&process));
        tokio::spawn(end_when_idle(Arc::downgrade(&self.0), self.0.idle));
        Ok(process)
    }
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
                gone.into_error(CallLimits::CONFIGURE.time_ms),
            ));
        }
    };
    if taken.is_err() {
        process.kill().await;
    }
    taken
}

impl BoundGate {
    /// What the plugin says about itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// Which gate it is.
    #[must_use]
    pub fn world(&self) -> World {
        self.0.manifest.world
    }

    /// Whether it can block.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.0.mode
    }

    /// Whether the machine's owner bound it.
    #[must_use]
    pub fn is_owners(&self) -> bool {
        self.0.owner
    }

    /// The digest of the component.
    #[must_use]
    pub fn component_sha256(&self) -> [u8; 32] {
        self.0.key.component
    }

    /// The digest of the settings as given.
    #[must_use]
    pub fn settings_sha256(&self) -> [u8; 32] {
        self.0.key.configuration
    }

    /// The runtime that it was compiled for.
    #[must_use]
    pub fn runtime(&self) -> &str {
        &self.0.runtime
    }

    /// Why it is configured on every call, where it could not be snapshotted.
    #[must_use]
    pub fn not_snapshotted(&self) -> Option<&str> {
        self.0.not_snapshotted.as_deref()
    }

    /// Asks the gate, unless it has answered this very question before.
    #[tracing::instrument(level = "debug", skip_all)]
    pub(crate) async fn ask(&self, question: &Encoded) -> Arc<Answered> {
        let key = (self.0.key, question.sha256);
        if let Some(answered) = self.answers().get(&key) {
            return Arc::clone(answered);
        }
        let called = self.call(question).await;
        let mut encoded = Vec::new();
        if let Err(error) = ciborium::into_writer(&called.answer, &mut encoded) {
            tracing::error!(%error, "an answer has no CBOR form");
        }
        let answered = Arc::new(Answered {
            called,
            verdict_sha256: Sha256::digest(&encoded).into(),
        });
        if answered.called.answer.is_ok() && encoded.len() <= LARGEST_ANSWER {
            // What it costs and logs is the first call's alone.
            let kept = Answered {
                called: Called {
                    answer: answered.called.answer.clone(),
                    fuel: answered.called.fuel,
                    memory: answered.called.memory,
                    duration_us: 0,
                    log: Vec::new(),
                },
                verdict_sha256: answered.verdict_sha256,
            };
            self.answers().put(key, Arc::new(kept));
        }
        answered
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, Answers> {
        let answers = &self.0.domain.0.answers;
        answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the gate. A runner that dies in the middle is started again, and the question is asked once more; it is a
    /// pure function, so that changes nothing. Then there is no answer, which blocks.
    pub(crate) async fn call(&self, question: &Encoded) -> Called {
        let failed = |error| Called {
            answer: Err(error),
            fuel: 0,
            memory: 0,
            duration_us: 0,
            log: Vec::new(),
        };
        for again in [true, false] {
            let process = match self.load(None).await {
                Ok(process) => process,
                Err(error) => return failed(error),
            };
            let limit = Duration::from_millis(self.0.limits.time_ms) + GRACE;
            let call = Request::Call {
                gate: self.0.number,
                question: question.bytes.clone(),
            };
            match process.ask(call, Vec::new(), limit).await {
                Ok(Response::Called(called)) => return *called,
                Ok(_) => {
                    process.kill().await;
                    return failed(CallError::Runner("it answered another question".to_owned()));
                }
                Err(Gone::Died) if again => tracing::warn!(
                    gate = self.0.manifest.id,
                    "the gate runner died; asking again"
                ),
                Err(gone) => return failed(gone.into_error(self.0.limits.time_ms)),
            }
        }
        failed(Gone::Died.into_error(0))
    }

    /// The runner, with this gate loaded.
    async fn load(&self, entry: Option<Entry>) -> Result<Arc<Process>, CallError> {
        let bound = &self.0;
        let process = bound
            .domain
            .process()
            .await
            .map_err(|error| CallError::Runner(error.to_string()))?;
        let mut running = bound.domain.0.running.lock().await;
        if running.loaded.contains(&bound.number) {
            return Ok(process);
        }
        let entry = entry
            .or_else(|| bound.domain.0.cache.get(&bound.key))
            .ok_or_else(|| {
                CallError::Runner(
                    "its compiled form is gone from the cache; restart to compile it again"
                        .to_owned(),
                )
            })?;
        let load = Load {
            gate: bound.number,
            world: bound.manifest.world,
            limits: bound.limits,
            configure: bound
                .not_snapshotted
                .as_ref()
                .map(|_| bound.configure.clone()),
        };
        let files = vec![entry.artifact.descriptor()];
        match process
            .ask(
                Request::Load(Box::new(load)),
                files,
                Duration::from_secs(20),
            )
            .await
        {
            Ok(Response::Loaded(Ok(()))) => {
                running.loaded.insert(bound.number);
                Ok(Arc::clone(&process))
            }
            Ok(Response::Loaded(Err(error))) => Err(error),
            Ok(_) => Err(CallError::Runner("it answered another question".to_owned())),
            Err(gone) => Err(gone.into_error(20_000)),
        }
    }
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

impl Drop for Bound {
    /// The runner keeps a gate that is bound no longer until it ends; it is told, and not waited for.
    fn drop(&mut self) {
        let (domain, gate) = (self.domain.clone(), self.number);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let mut running = domain.0.running.lock().await;
                let process = running
                    .process
                    .clone()
                    .filter(|_| running.loaded.remove(&gate));
                drop(running);
                if let Some(process) = process {
                    let _ = process
                        .ask(
                            Request::Unload { gate },
                            Vec::new(),
                            Duration::from_secs(20),
                        )
                        .await;
                }
            });
        }
    }
}

impl Gone {
    fn into_error(self, limit_ms: u64) -> CallError {
        match self {
            Self::Died => CallError::Runner("its process ended unexpectedly".to_owned()),
            Self::TimedOut => CallError::Deadline(limit_ms),
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
