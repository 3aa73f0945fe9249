//! `configure` runs once; its memory becomes the component.
//!
//! A scanner that compiles its rules on every call takes a hundred times as long as one that finds them compiled. So the
//! component is instrumented, `configure` is called on it, and what its memories and globals then hold is written into a
//! new component, which later instances start from.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use sluice_gate_types::answer::CallError;
use sluice_gate_types::contract::Contract;
use sluice_gate_types::input::{Attribute, DataPack};
use sluice_gate_types::limits::CallLimits;
use sluice_gate_types::manifest::World;
use wasmtime::Store;
use wasmtime::component::{ComponentType, Instance, Lift, WasmList};
use wasmtime_wizer::{ComponentInstanceState, Wizer};

use crate::engine::GateEngine;
use crate::gate::{CallState, Exports};

/// The component with access functions for its memories and globals. Runs no guest code.
///
/// # Errors
///
/// Where the component has a shape that cannot be snapshotted (nested modules, start functions, a module instantiated
/// twice): such a plugin is configured on every call.
pub fn instrument(component: &[u8]) -> Result<Vec<u8>, String> {
    Wizer::new()
        .instrument_component(component)
        .map(|(_, instrumented)| instrumented)
        .map_err(|error| format!("{error:#}"))
}

/// Configures an instance of the instrumented component and writes its state into a new component.
///
/// `component` are the original bytes, `artifact` is the compiled form of [`instrument`]'s result.
///
/// # Errors
///
/// Whatever `configure` answers or runs into.
pub fn take(
    engine: &GateEngine,
    contract: Contract,
    world: World,
    component: &[u8],
    artifact: &[u8],
    settings: &[Attribute],
    data: &[DataPack],
) -> Result<Vec<u8>, CallError> {
    let wizer = Wizer::new();
    let (context, _) = wizer
        .instrument_component(component)
        .map_err(|error| CallError::Instantiation(format!("{error:#}")))?;
    let limits = CallLimits::CONFIGURE;
    let exports = Exports::link(engine, contract, world, artifact)?;
    let mut store = CallState::store(engine, &limits)?;
    let instance = exports.instantiate(&mut store, &limits)?;
    exports.configure(&mut store, &instance, &limits, settings, data)?;
    // Reading the memories out is a host call of that size.
    store.set_hostcall_fuel(
        usize::try_from(limits.memory)
            .unwrap_or(usize::MAX)
            .saturating_mul(2),
    );
    let mut reader = Reader {
        store: &mut store,
        instance,
        failed: None,
    };
    let snapshot = ready(wizer.snapshot_component(&context, &mut reader));
    if let Some(error) = reader.failed {
        return Err(CallError::Instantiation(error));
    }
    match snapshot {
        Some(Ok(bytes)) => Ok(bytes),
        Some(Err(error)) => Err(CallError::Instantiation(format!("{error:#}"))),
        None => Err(CallError::Instantiation(
            "reading its memory did not end".to_owned(),
        )),
    }
}

/// Reads the state of an instance through the access functions that instrumentation added.
struct Reader<'a> {
    store: &'a mut Store<CallState>,
    instance: Instance,
    failed: Option<String>,
}

impl Reader<'_> {
    fn call<R: Lift + ComponentType + Send + Sync + 'static>(
        &mut self,
        instance: &str,
        function: &str,
    ) -> Option<R> {
        let result = (|| {
            let (_, interface) = self.instance.get_export(&mut *self.store, None, instance)?;
            let (_, export) =
                self.instance
                    .get_export(&mut *self.store, Some(&interface), function)?;
            let function = self
                .instance
                .get_typed_func::<(), (R,)>(&mut *self.store, export)
                .ok()?;
            function
                .call(&mut *self.store, ())
                .ok()
                .map(|(value,)| value)
        })();
        if result.is_none() {
            self.failed
                .get_or_insert_with(|| format!("its state cannot be read ({function})"));
        }
        result
    }
}

impl ComponentInstanceState for Reader<'_> {
    async fn call_func_ret_list_u8(
        &mut self,
        instance: &str,
        function: &str,
        contents: impl FnOnce(&[u8]) + Send,
    ) {
        if let Some(list) = self.call::<WasmList<u8>>(instance, function) {
            contents(list.as_le_slice(&*self.store));
        }
    }

    async fn call_func_ret_s32(&mut self, instance: &str, function: &str) -> i32 {
        self.call(instance, function).unwrap_or_default()
    }

    async fn call_func_ret_s64(&mut self, instance: &str, function: &str) -> i64 {
        self.call(instance, function).unwrap_or_default()
    }

    async fn call_func_ret_f32(&mut self, instance: &str, function: &str) -> u32 {
        self.call::<f32>(instance, function)
            .unwrap_or_default()
            .to_bits()
    }

    async fn call_func_ret_f64(&mut self, instance: &str, function: &str) -> u64 {
        self.call::<f64>(instance, function)
            .unwrap_or_default()
            .to_bits()
    }
}

/// The value of a future that never waits: [`Reader`] calls its guest synchronously.
fn ready<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
