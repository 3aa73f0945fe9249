//! A loaded plugin, and a call of it: a fresh store and instance each time, never used again.

use std::time::Instant;

use sluice_gate_types::answer::{Answer, CallError};
use sluice_gate_types::contract::Contract;
use sluice_gate_types::input::{Attribute, DataPack, Question};
use sluice_gate_types::limits::CallLimits;
use sluice_gate_types::manifest::World;
use wasmtime::component::{HasSelf, Instance, InstancePre, Linker};
use wasmtime::{Store, Trap};

use crate::bindings::{environment, log, policy, preparer, scanner, types};
use crate::convert::{answer, ask};
use crate::engine::{GateEngine, TICK};
use crate::limits::Limiter;

/// The longest log line that is kept, in bytes.
const MAX_LOG_LINE: usize = 1 << 10;

/// A plugin that is ready to be called.
pub struct Gate {
    exports: Exports,
    limits: CallLimits,
    /// Settings for a component that could not be snapshotted and is configured on every call.
    configure: Option<(Vec<Attribute>, Vec<DataPack>)>,
}

/// What a call came to.
#[derive(Debug)]
pub struct Called {
    /// The answer, or why there is none.
    pub answer: Result<Answer, CallError>,
    /// Fuel that was burned.
    pub fuel: u64,
    /// The most bytes of memories and tables that there were at once.
    pub memory: u64,
    /// From instantiation to answer, in microseconds.
    pub duration_us: u64,
    /// What the guest logged, unescaped.
    pub log: Vec<String>,
}

impl Gate {
    /// Loads a compiled component of this world, which was built for this contract; see [`GateEngine::compile`] about whose
    /// bytes these must be.
    ///
    /// # Errors
    ///
    /// Where the artifact is of another build or lacks the world's exports.
    pub fn load(
        engine: &GateEngine,
        contract: Contract,
        world: World,
        artifact: &[u8],
        limits: CallLimits,
        configure: Option<(Vec<Attribute>, Vec<DataPack>)>,
    ) -> Result<Self, CallError> {
        Ok(Self {
            exports: Exports::link(engine, contract, world, artifact)?,
            limits,
            configure,
        })
    }

    /// Asks the gate on a fresh instance.
    #[must_use]
    pub fn call(&self, engine: &GateEngine, question: &Question) -> Called {
        let started = Instant::now();
        let mut store = match CallState::store(engine, &self.limits) {
            Ok(store) => store,
            Err(error) => {
                return Called {
                    answer: Err(error),
                    fuel: 0,
                    memory: 0,
                    duration_us: 0,
                    log: Vec::new(),
                };
            }
        };
        let answer = self
            .exports
            .instantiate(&mut store, &self.limits)
            .and_then(|instance| {
                if let Some((settings, data)) = &self.configure {
                    self.exports
                        .configure(&mut store, &instance, &self.limits, settings, data)?;
                }
                self.exports
                    .ask(&mut store, &instance, &self.limits, question)
            });
        let fuel = self
            .limits
            .fuel
            .saturating_sub(store.get_fuel().unwrap_or_default());
        let duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        Called {
            answer,
            fuel,
            memory: store.data().limiter.taken(),
            duration_us,
            log: store.into_data().log,
        }
    }
}

/// What belongs to one call.
pub(crate) struct CallState {
    limiter: Limiter,
    log: Vec<String>,
    log_lines: u32,
}

impl CallState {
    pub(crate) fn store(
        engine: &GateEngine,
        limits: &CallLimits,
    ) -> Result<Store<Self>, CallError> {
        let instantiation = |error: wasmtime::Error| CallError::Instantiation(format!("{error:#}"));
        let state = Self {
            limiter: Limiter::new(limits),
            log: Vec::new(),
            log_lines: limits.log_lines,
        };
        let mut store = Store::try_new(engine.raw(), state).map_err(instantiation)?;
        store.limiter(|state| &mut state.limiter);
        store.set_fuel(limits.fuel).map_err(instantiation)?;
        let tick = u64::try_from(TICK.as_millis()).unwrap_or(1);
        store.set_epoch_deadline(limits.time_ms.div_ceil(tick) + 1);
        store.set_hostcall_fuel(usize::try_from(limits.answer).unwrap_or(usize::MAX));
        store.set_max_component_handles(64);
        Ok(store)
    }
}

impl log::Host for CallState {
    fn emit(&mut self, level: log::Level, mut message: String) {
        if self.log.len() < self.log_lines as usize {
            let end = (0..=MAX_LOG_LINE.min(message.len()))
                .rev()
                .find(|end| message.is_char_boundary(*end))
                .unwrap_or(0);
            message.truncate(end);
            self.log.push(format!("{level:?}: {message}"));
        }
    }
}

impl types::Host for CallState {}

/// The exports of a component, of one of the four worlds.
pub(crate) enum Exports {
    Environment(environment::EnvironmentPluginPre<CallState>),
    Preparer(preparer::PreparerPluginPre<CallState>),
    Scanner(scanner::ScannerPluginPre<CallState>),
    Policy(policy::PolicyPluginPre<CallState>),
}

/// An instance with its exports looked up.
pub(crate) enum Bound {
    Environment(environment::EnvironmentPlugin),
    Preparer(preparer::PreparerPlugin),
    Scanner(scanner::ScannerPlugin),
    Policy(policy::PolicyPlugin),
}

impl Exports {
    /// Links a component with what its contract offers. A contract that comes has bindings and a linker of its own here.
    pub(crate) fn link(
        engine: &GateEngine,
        contract: Contract,
        world: World,
        artifact: &[u8],
    ) -> Result<Self, CallError> {
        match contract {
            Contract::V0_1 => Self::link_v0_1(engine, world, artifact),
        }
    }

    fn link_v0_1(engine: &GateEngine, world: World, artifact: &[u8]) -> Result<Self, CallError> {
        let instantiation = |error: wasmtime::Error| CallError::Instantiation(format!("{error:#}"));
        let component = engine.deserialize(artifact).map_err(instantiation)?;
        let mut linker = Linker::<CallState>::new(engine.raw());
        types::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state).map_err(instantiation)?;
        log::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state).map_err(instantiation)?;
        let pre = linker.instantiate_pre(&component).map_err(instantiation)?;
        match world {
            World::EnvironmentPlugin => {
                environment::EnvironmentPluginPre::new(pre).map(Self::Environment)
            }
            World::PreparerPlugin => preparer::PreparerPluginPre::new(pre).map(Self::Preparer),
            World::ScannerPlugin => scanner::ScannerPluginPre::new(pre).map(Self::Scanner),
            World::PolicyPlugin => policy::PolicyPluginPre::new(pre).map(Self::Policy),
        }
        .map_err(instantiation)
    }

    fn pre(&self) -> &InstancePre<CallState> {
        match self {
            Self::Environment(pre) => pre.instance_pre(),
            Self::Preparer(pre) => pre.instance_pre(),
            Self::Scanner(pre) => pre.instance_pre(),
            Self::Policy(pre) => pre.instance_pre(),
        }
    }

    pub(crate) fn instantiate(
        &self,
        store: &mut Store<CallState>,
        limits: &CallLimits,
    ) -> Result<Instance, CallError> {
        let instance = self.pre().instantiate(&mut *store);
        instance.map_err(|error| match explain(&error, store, limits) {
            // Not the guest's doing: there is no instance that could have crashed.
            CallError::Trap(text) if error.downcast_ref::<Trap>().is_none() => {
                CallError::Instantiation(text)
            }
            error => error,
        })
    }

    fn bind(&self, store: &mut Store<CallState>, instance: &Instance) -> wasmtime::Result<Bound> {
        Ok(match self {
            Self::Environment(_) => {
                Bound::Environment(environment::EnvironmentPlugin::new(&mut *store, instance)?)
            }
            Self::Preparer(_) => {
                Bound::Preparer(preparer::PreparerPlugin::new(&mut *store, instance)?)
            }
            Self::Scanner(_) => Bound::Scanner(scanner::ScannerPlugin::new(&mut *store, instance)?),
            Self::Policy(_) => Bound::Policy(policy::PolicyPlugin::new(&mut *store, instance)?),
        })
    }

    pub(crate) fn configure(
        &self,
        store: &mut Store<CallState>,
        instance: &Instance,
        limits: &CallLimits,
        settings: &[Attribute],
        data: &[DataPack],
    ) -> Result<(), CallError> {
        let settings: Vec<types::Attribute> = settings.iter().cloned().map(Into::into).collect();
        let data: Vec<types::DataPack> = data.iter().cloned().map(Into::into).collect();
        let result = self.bind(store, instance).and_then(|bound| match bound {
            Bound::Environment(plugin) => {
                plugin
                    .sluice_gate_environment()
                    .call_configure(&mut *store, &settings, &data)
            }
            Bound::Preparer(plugin) => {
                plugin
                    .sluice_gate_preparer()
                    .call_configure(&mut *store, &settings, &data)
            }
            Bound::Scanner(plugin) => {
                plugin
                    .sluice_gate_scanner()
                    .call_configure(&mut *store, &settings, &data)
            }
            Bound::Policy(plugin) => {
                plugin
                    .sluice_gate_policy()
                    .call_configure(&mut *store, &settings, &data)
            }
        });
        match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.into()),
            Err(error) => Err(explain(&error, store, limits)),
        }
    }

    fn ask(
        &self,
        store: &mut Store<CallState>,
        instance: &Instance,
        limits: &CallLimits,
        question: &Question,
    ) -> Result<Answer, CallError> {
        let result = self
            .bind(store, instance)
            .and_then(|bound| ask(&bound, store, question));
        match result {
            Ok(Some(Ok(raw))) => Ok(answer(raw)),
            Ok(Some(Err(error))) => Err(error.into()),
            Ok(None) => Err(CallError::Contract(
                "it was asked a question of another stage".to_owned(),
            )),
            Err(error) => Err(explain(&error, store, limits)),
        }
    }
}

/// What an error of wasmtime means for the caller. Limits are read from the store, not guessed from texts.
fn explain(error: &wasmtime::Error, store: &Store<CallState>, limits: &CallLimits) -> CallError {
    if store.data().limiter.hit {
        return CallError::Memory(limits.memory);
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => CallError::Fuel(limits.fuel),
        Some(Trap::Interrupt) => CallError::Deadline(limits.time_ms),
        // A guest of our kit logs the text of a panic just before it traps.
        Some(trap) => CallError::Trap(match store.data().log.last() {
            Some(line) => format!("{trap}, after it logged {line:?}"),
            None => trap.to_string(),
        }),
        None => {
            let text = format!("{error:#}");
            if text.contains("too much data")
                || text.contains("hostcall")
                || text.contains("fuel allocated for hostcalls")
            {
                CallError::TooLarge(format!("more than {} bytes", limits.answer))
            } else {
                CallError::Trap(text)
            }
        }
    }
}
