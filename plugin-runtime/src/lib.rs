//! The only crate that names wasmtime: plugins are admitted, compiled, configured, snapshotted and called here.
//!
//! Nothing in here trusts a guest, and nothing runs one without limits:
//!
//! - [`admission`]: whether bytes may be a plugin at all, decided without running them.
//! - [`engine`]: the engine and its epoch ticker, one type.
//! - [`snapshot`]: `configure` runs once, and its memory becomes the component.
//! - [`gate`]: a loaded plugin, and a call of it on a fresh instance.
//!
//! The crate is used inside `sluice-gate-runner`, an unprivileged process behind walls, and nowhere else in production.

pub mod admission;
pub mod engine;
pub mod gate;
pub mod snapshot;

mod bindings;
mod convert;
mod limits;

/// The version of the runtime, for receipts: the same version gives the same verdict with the same fuel.
pub const RUNTIME: &str = concat!(env!("CARGO_PKG_VERSION"), "+wasmtime-48.0.8");

#[cfg(test)]
mod tests {
    #[test]
    fn the_runtime_is_named_after_the_wasmtime_that_is_built_in() {
        let lock = include_str!("../../Cargo.lock");
        let (_, version) = super::RUNTIME.split_once("+wasmtime-").expect("names it");
        let entry = format!("name = \"wasmtime\"\nversion = \"{version}\"\n");
        assert!(
            lock.contains(&entry),
            "{version} is not the one in Cargo.lock"
        );
    }
}
