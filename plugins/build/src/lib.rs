//! From a crate to a component: what `sluice plugin build` and `cargo xtask plugins` have in common.
//!
//! - [`toolchain`]: a Rust that compiles for WebAssembly, and how to get one.
//! - [`module`]: cargo compiles crates to core modules.
//! - [`component`]: a core module becomes a component with its manifest inside.
//! - [`plugin`]: all of that for one folder.
//! - [`sdk`]: the source of the SDK of this very version, for a plugin that is started where there is no checkout.
//!
//! Nothing in here installs or signs anything, and no guest code runs; but cargo fetches crates and runs their build
//! scripts and macros.

pub mod component;
pub mod module;
pub mod plugin;
pub mod sdk;
pub mod toolchain;
