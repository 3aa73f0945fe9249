//! What gates see and say, in Rust: the types of `wit/types.wit`, without a WebAssembly engine.
//!
//! - [`input`]: what a gate is asked.
//! - [`answer`]: what it answers.
//! - [`limits`]: what one call may use.
//! - [`contract`]: versions of the contract, and which of them a component was built for.
//! - [`admission`]: what the bytes of a plugin show.
//! - [`manifest`]: what a plugin says about itself.
//! - [`signature`]: what a publisher says about a plugin.

pub mod admission;
pub mod answer;
pub mod contract;
pub mod input;
pub mod limits;
pub mod manifest;
pub mod signature;

/// The version of the contract in `wit/`.
pub const CONTRACT: &str = "0.1.0";

/// The custom section of a component that holds its `plugin.toml`.
pub const MANIFEST_SECTION: &str = "sluice:plugin";
