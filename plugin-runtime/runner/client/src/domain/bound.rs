//! A plugin that is bound: asked, and loaded into whichever runner its domain has.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use sluice_gate_types::answer::CallError;
use sluice_gate_types::contract::Contract;
use sluice_gate_types::input::Value;
use sluice_gate_types::limits::CallLimits;
use sluice_gate_types::manifest::{Manifest, World};
use sluice_protocol::receipt::GateLimits;
use sluice_protocol::report::Mode;

use super::{Answers, BindError, BindRequest, GRACE, GateDomain, LARGEST_ANSWER, digest_of_answer};
use crate::cache::{Entry, Key};
use crate::component::Component;
use crate::process::{Gone, Process};
use crate::wire::{Called, Configure, Encoded, Load, Request, Response};

/// How long loading a compiled gate may take.
const LOAD: Duration = Duration::from_secs(20);

/// What a gate answered to a question: a pure function's, so it is kept. Errors are not.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) called: Called,
    /// Of the answer's one encoding.
    pub(crate) verdict_sha256: [u8; 32],
    /// It was there already.
    pub(crate) cached: bool,
}

/// A plugin that is admitted, configured and ready. Cloning gives another handle.
#[derive(Clone)]
pub struct BoundGate(pub(super) Arc<Bound>);

pub(super) struct Bound {
    pub(super) domain: GateDomain,
    pub(super) number: u64,
    pub(super) key: Key,
    pub(super) manifest: Manifest,
    pub(super) contract: Contract,
    pub(super) limits: CallLimits,
    pub(super) configure: Configure,
    pub(super) not_snapshotted: Option<String>,
    pub(super) runtime: String,
    pub(super) mode: Mode,
    pub(super) owner: bool,
    /// Settings as given, and where the component can be read again.
    pub(super) given: Vec<(String, Value)>,
    pub(super) origin: Option<PathBuf>,
    /// Whether it is being compiled again.
    pub(super) building: AtomicBool,
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
            cached: false,
        }
    }
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

    /// The version of the contract that it is called by.
    #[must_use]
    pub fn contract(&self) -> Contract {
        self.0.contract
    }

    /// The runtime that it was compiled for.
    #[must_use]
    pub fn runtime(&self) -> &str {
        &self.0.runtime
    }

    /// What one call of it may use.
    #[must_use]
    pub fn limits(&self) -> GateLimits {
        let CallLimits {
            fuel,
            memory,
            time_ms,
            answer,
            log_lines: _,
        } = self.0.limits;
        GateLimits {
            fuel,
            memory,
            time_ms,
            answer,
        }
    }

    /// Why it is configured on every call, where it could not be snapshotted.
    #[must_use]
    pub fn not_snapshotted(&self) -> Option<&str> {
        self.0.not_snapshotted.as_deref()
    }

    /// Asks the gate, unless it has answered this very question before.
    #[tracing::instrument(level = "debug", skip_all)]
    pub(crate) async fn ask(&self, question: &Encoded) -> Arc<Answered> {
        let key = (self.0.key, self.0.limits, question.sha256);
        if let Some(answered) = self.answers().get(&key) {
            return Arc::clone(answered);
        }
        let called = self.call(question).await;
        let (verdict_sha256, length) = digest_of_answer(&called.answer);
        let answered = Arc::new(Answered {
            called,
            verdict_sha256,
            cached: false,
        });
        if answered.called.answer.is_ok() && length <= LARGEST_ANSWER {
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
                cached: true,
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
            let process = match self.load_once(None).await {
                Ok(process) => process,
                Err(NotLoaded::Gone(Gone::Died)) if again => continue,
                Err(error) => return failed(error.into()),
            };
            let limit = Duration::from_millis(self.0.limits.time_ms);
            let call = Request::Call {
                gate: self.0.number,
                question: question.bytes.clone(),
            };
            match process.ask(call, Vec::new(), limit + GRACE).await {
                Ok(Response::Called(mut called)) => {
                    called.log.truncate(self.0.limits.log_lines as usize);
                    return *called;
                }
                Ok(_) => {
                    process.kill().await;
                    return failed(CallError::Runner("it answered another question".to_owned()));
                }
                Err(Gone::Died) if again => tracing::warn!(
                    gate = self.0.manifest.id,
                    "the gate runner died; asking again"
                ),
                Err(gone) => return failed(gone.into_error(limit)),
            }
        }
        failed(Gone::Died.into_error(Duration::ZERO))
    }

    /// The runner, with this gate loaded. One that dies meanwhile is started again, once.
    pub(super) async fn load(&self, entry: Entry) -> Result<(), CallError> {
        let loaded = match self.load_once(Some(entry)).await {
            Err(NotLoaded::Gone(Gone::Died)) => self.load_once(None).await,
            loaded => loaded,
        };
        loaded.map(drop).map_err(Into::into)
    }

    async fn load_once(&self, entry: Option<Entry>) -> Result<Arc<Process>, NotLoaded> {
        let bound = &self.0;
        let process = bound.domain.process().await;
        let process = process.map_err(|error| CallError::Runner(error.to_string()))?;
        let mut running = bound.domain.0.running.lock().await;
        if running.loaded.contains(&bound.number) {
            return Ok(process);
        }
        let Some(entry) = entry.or_else(|| bound.domain.0.cache.get(&bound.key)) else {
            return Err(self.build_again().into());
        };
        let load = Load {
            gate: bound.number,
            contract: bound.contract,
            world: bound.manifest.world,
            limits: bound.limits,
            configure: bound
                .not_snapshotted
                .as_ref()
                .map(|_| bound.configure.clone()),
        };
        let files = vec![entry.artifact.descriptor()];
        let request = Request::Load(Box::new(load));
        match process.ask(request, files, LOAD).await {
            Ok(Response::Loaded(Ok(()))) => {
                running.loaded.insert(bound.number);
                Ok(process)
            }
            Ok(Response::Loaded(Err(error))) => Err(error.into()),
            Ok(_) => {
                process.kill().await;
                Err(CallError::Runner("it answered another question".to_owned()).into())
            }
            Err(gone) => Err(NotLoaded::Gone(gone)),
        }
    }

    /// Compiles the gate again whose compiled form is gone, beside whatever asks: never on the way of an operation. Says why
    /// there is no answer until that is done.
    fn build_again(&self) -> CallError {
        let Some(origin) = self.0.origin.clone() else {
            return CallError::Runner(
                "its compiled form is gone from the cache; bind it again".to_owned(),
            );
        };
        if !self.0.building.swap(true, Ordering::AcqRel) {
            let gate = self.clone();
            tokio::spawn(async move {
                let id = &gate.0.manifest.id;
                match gate.built_from(origin).await {
                    Ok(()) => tracing::info!(gate = id, "compiled again"),
                    Err(error) => tracing::error!(gate = id, %error, "not compiled again"),
                }
                gate.0.building.store(false, Ordering::Release);
            });
        }
        CallError::Runner(
            "its compiled form is gone from the cache; it is being compiled again".to_owned(),
        )
    }

    async fn built_from(&self, origin: PathBuf) -> Result<(), BindError> {
        let read = tokio::task::spawn_blocking(move || Component::open(&origin)).await;
        let component = read.map_err(io::Error::other).flatten();
        let component = component.map_err(BindError::Runner)?;
        let domain = &self.0.domain;
        let process = domain.process().await.map_err(BindError::Runner)?;
        let same = (component.sha256(), process.ready.compatibility)
            == (self.0.key.component, self.0.key.engine);
        if !same {
            let changed = "the component or the runtime is another one by now; bind it again";
            return Err(BindError::Runner(io::Error::other(changed)));
        }
        let request = BindRequest {
            component,
            settings: self.0.given.clone(),
            mode: self.0.mode,
            owner: self.0.owner,
        };
        let entry = domain.build(&process, &request).await?;
        domain
            .0
            .cache
            .put(&self.0.key, &entry)
            .map_err(BindError::Cache)
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
                        .ask(Request::Unload { gate }, Vec::new(), LOAD)
                        .await;
                }
            });
        }
    }
}

/// Why a gate is not loaded.
enum NotLoaded {
    Gone(Gone),
    Failed(CallError),
}

impl From<CallError> for NotLoaded {
    fn from(error: CallError) -> Self {
        Self::Failed(error)
    }
}

impl From<NotLoaded> for CallError {
    fn from(not: NotLoaded) -> Self {
        match not {
            NotLoaded::Gone(gone) => gone.into_error(LOAD),
            NotLoaded::Failed(error) => error,
        }
    }
}
