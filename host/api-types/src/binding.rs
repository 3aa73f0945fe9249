//! `/v1/bindings`: plugins put to use.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::BindingId;
use sluice_protocol::report::Mode;

use crate::job::Tag;

/// `POST /v1/bindings`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateBinding {
    /// The plugin's id (its newest installed version) or the digest of its component.
    pub plugin: String,
    /// By the plugin's settings schema.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub settings: BTreeMap<String, serde_json::Value>,
    /// Whether it can block; it can where absent.
    #[serde(default = "enforce")]
    #[schema(value_type = String, example = "enforce")]
    pub mode: Mode,
    /// The tenant's name; the operator's own where absent.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Only on machines that have every one of these tags; on all where empty.
    #[serde(default)]
    pub tags: Vec<Tag>,
}

const fn enforce() -> Mode {
    Mode::Enforce
}

/// A plugin put to use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Binding {
    /// Its id.
    #[schema(value_type = String)]
    pub id: BindingId,
    /// The plugin's id.
    pub plugin: String,
    /// The plugin's version.
    pub version: String,
    /// The digest of the component.
    #[schema(value_type = String)]
    pub sha256: Digest,
    /// `environment`, `preparer`, `scanner` or `policy`.
    pub world: String,
    /// With defaults filled in.
    #[schema(value_type = Object)]
    pub settings: BTreeMap<String, serde_json::Value>,
    /// Whether it can block.
    #[schema(value_type = String)]
    pub mode: Mode,
    /// The tenant's name.
    pub tenant: String,
    /// Only on machines that have every one of these tags; on all where empty.
    pub tags: Vec<Tag>,
    /// RFC 3339.
    pub bound_at: String,
}
