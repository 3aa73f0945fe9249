//! The engine. It does not exist without the thread that advances its epoch: an engine without a ticker never times out.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use wasmtime::component::Component;
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
    RegallocAlgorithm, Strategy, WasmBacktraceDetails, WasmFeatures,
};

use crate::limits::{ELEMENTS, INSTANCES, MEMORIES, TABLES};

/// How often the epoch advances: the granularity of time limits.
pub const TICK: Duration = Duration::from_millis(10);

/// Calls that may be under way at once; more wait.
pub const MAX_CALLS: u32 = 16;

/// Where instances get their memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocation {
    /// From a pool with hard maxima: quick, for processes that run guests and never fork.
    Pool,
    /// When needed, for processes that compile only or are short of address space.
    OnDemand,
}

/// How much work goes into compiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Quick code: for components that are called often.
    Full,
    /// A quick compilation: for a component that is configured once and then snapshotted.
    Little,
}

/// An engine and its ticker.
#[derive(Debug)]
pub struct GateEngine {
    engine: Engine,
}

impl GateEngine {
    /// An engine with the settings below, each with its reason, and a thread that ends with the engine.
    ///
    /// # Errors
    ///
    /// Where the machine lacks what the settings need, for example address space for the pool.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place: the ticker is made with it"
    )]
    pub fn new(allocation: Allocation, effort: Effort) -> wasmtime::Result<Self> {
        let engine = Engine::new(&config(allocation, effort))?;
        let weak = engine.weak();
        std::thread::Builder::new()
            .name("epoch".to_owned())
            .spawn(move || {
                loop {
                    std::thread::sleep(TICK);
                    match weak.upgrade() {
                        Some(engine) => engine.increment_epoch(),
                        None => return,
                    }
                }
            })?;
        Ok(Self { engine })
    }

    /// Compiles a component for this machine. Runs no guest code. May take seconds and much memory: never on the way of
    /// an operation, and only in a process with limits.
    ///
    /// # Errors
    ///
    /// Where the bytes are no component that this engine takes.
    pub fn compile(&self, component: &[u8]) -> wasmtime::Result<Vec<u8>> {
        self.engine.precompile_component(component)
    }

    /// What a compiled component must have been made with to be loaded here: version, target, settings.
    #[must_use]
    pub fn compatibility(&self) -> [u8; 32] {
        let mut hasher = Sha256Hasher(Sha256::new());
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        self.engine
            .precompile_compatibility_hash()
            .hash(&mut hasher);
        hasher.0.finalize().into()
    }

    pub(crate) const fn raw(&self) -> &Engine {
        &self.engine
    }

    /// Loads what [`Self::compile`] made.
    ///
    /// Loading is running: a compiled component is native code. The caller vouches that `artifact` was made by
    /// [`Self::compile`] of the same build and not touched since: the parent process keeps it under a keyed MAC, checks
    /// that over the very bytes that it seals and then hands over, and the runner takes artifacts from its parent alone.
    #[allow(
        unsafe_code,
        reason = "the one place where native code is loaded, see SAFETY"
    )]
    pub(crate) fn deserialize(&self, artifact: &[u8]) -> wasmtime::Result<Component> {
        // SAFETY: `Component::deserialize` needs bytes that `precompile_component` made. They come from the parent
        // process, which made them through a compiling child, read them once into a sealed file and checked their MAC over
        // what is in it. This buffer is a copy of that. wasmtime checks version, target and settings by itself.
        unsafe { Component::deserialize(&self.engine, artifact) }
    }
}

/// `Hash` wants a `Hasher`; 64 bits would be too few for a name.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

fn config(allocation: Allocation, effort: Effort) -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_regalloc_algorithm(RegallocAlgorithm::Backtracking)
        .epoch_interruption(true)
        .consume_fuel(true)
        .max_wasm_stack(512 << 10)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .memory_init_cow(true)
        .guard_before_linear_memory(true)
        .concurrency_support(false)
        .cranelift_opt_level(match effort {
            Effort::Full => OptLevel::Speed,
            Effort::Little => OptLevel::None,
        });
    config.wasm_features(
        WasmFeatures::MEMORY64
            | WasmFeatures::MULTI_MEMORY
            | WasmFeatures::TAIL_CALL
            | WasmFeatures::THREADS
            | WasmFeatures::FUNCTION_REFERENCES
            | WasmFeatures::GC
            | WasmFeatures::EXCEPTIONS,
        false,
    );
    if allocation == Allocation::Pool {
        let mut pool = PoolingAllocationConfig::new();
        // A component has several core instances: the module and what its adapters need.
        pool.total_component_instances(MAX_CALLS)
            .total_core_instances(4 * MAX_CALLS)
            .total_memories(MAX_CALLS)
            .total_tables(4 * MAX_CALLS)
            // Guests are called synchronously; stacks for the other way would count as data of the process.
            .total_stacks(0)
            .max_core_instances_per_component(INSTANCES)
            .max_memories_per_component(MEMORIES)
            .max_tables_per_component(TABLES)
            .max_memory_size(64 << 20)
            .table_elements(ELEMENTS)
            .linear_memory_keep_resident(256 << 10)
            .table_keep_resident(16 << 10)
            .max_unused_warm_slots(8);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}
