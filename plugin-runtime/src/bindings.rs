//! Bindings of the four worlds. The types and the log are shared: they come from the environment world.

pub(crate) mod environment {
    wasmtime::component::bindgen!({ path: "../wit", world: "environment-plugin" });
}

pub(crate) mod preparer {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "preparer-plugin",
        with: {
            "sluice:gate/types": crate::bindings::environment::sluice::gate::types,
            "sluice:gate/log": crate::bindings::environment::sluice::gate::log,
        },
    });
}

pub(crate) mod scanner {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "scanner-plugin",
        with: {
            "sluice:gate/types": crate::bindings::environment::sluice::gate::types,
            "sluice:gate/log": crate::bindings::environment::sluice::gate::log,
        },
    });
}

pub(crate) mod policy {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "policy-plugin",
        with: {
            "sluice:gate/types": crate::bindings::environment::sluice::gate::types,
            "sluice:gate/log": crate::bindings::environment::sluice::gate::log,
        },
    });
}

pub(crate) use environment::sluice::gate::{log, types};
