//! What admission says about a file.

use serde::{Deserialize, Serialize};

use crate::contract::Contract;
use crate::manifest::Manifest;

/// A component that may be a plugin: what it says about itself, and what its bytes show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admitted {
    /// From its custom section.
    pub manifest: Manifest,
    /// The version of the contract that it is called by.
    pub contract: Contract,
    /// Names of its imports.
    pub imports: Vec<String>,
    /// Names of its exports.
    pub exports: Vec<String>,
    /// In bytes.
    pub size: u64,
}

/// Why a file may not be a plugin: every reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Refused(pub Vec<String>);
