//! `/v1/bindings`: plugins put to use.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sluice_protocol::digest::Digest;
use sluice_protocol::gates::GateLimits;
use sluice_protocol::ids::BindingId;
use sluice_protocol::report::Mode;
use sluice_protocol::script::Language;

use crate::job::Tag;

/// Where a binding stands in its stage unless something else is said.
pub const POSITION: u32 = 100;

/// `POST /v1/bindings`: a new binding, or the next revision of one that is there, which then is as this says and has nothing
/// of what it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateBinding {
    /// The plugin's id (its newest installed version) or the digest of its component.
    pub plugin: String,
    /// The binding to change. Where absent that of this plugin with the same `tags` and `languages`; where there is none a
    /// new one is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub binding: Option<BindingId>,
    /// By the plugin's settings schema.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub settings: BTreeMap<String, serde_json::Value>,
    /// Whether it can block; it can where absent. From `enforce` to `monitor` needs `Administer`.
    #[serde(default = "enforce")]
    #[schema(value_type = String, example = "enforce")]
    pub mode: Mode,
    /// The tenant's name; that of the query where absent, and the operator's own where that has none.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Only on machines that have every one of these tags; on all where empty.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// Only for scripts in one of these languages, and those whose language nobody knows; for all where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub languages: Vec<Language>,
    /// What one call may use, where that is less than the plugin asks for: `fuel`, `memory` in bytes, `time_ms`.
    #[serde(default, skip_serializing_if = "GateLimits::is_empty")]
    #[schema(value_type = Object)]
    pub limits: GateLimits,
    /// Within a stage the lower one comes first: its reasons are told, and its answers listed, before others'.
    #[serde(default = "position")]
    pub position: u32,
}

const fn position() -> u32 {
    POSITION
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
    /// Only for scripts in one of these languages, and those whose language nobody knows; for all where empty.
    #[schema(value_type = Vec<String>)]
    pub languages: Vec<Language>,
    /// What one call may use, where that is less than the plugin asks for: `fuel`, `memory` in bytes, `time_ms`.
    #[schema(value_type = Object)]
    pub limits: GateLimits,
    /// Within a stage the lower one comes first.
    pub position: u32,
    /// Which change of the binding is in force, counted from 1.
    pub revision: u64,
    /// `active`, or `active; revision N failed` where the last attempt to change it did: why is in its revisions.
    pub state: String,
    /// RFC 3339.
    pub bound_at: String,
    /// When this revision was put in force. RFC 3339.
    pub revised_at: String,
}

/// What a binding was, is, or was meant to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BindingRevision {
    /// Counted from 1.
    pub revision: u64,
    /// `active`, `replaced`, `failed` (the one before stayed in force) or `ended`.
    pub state: String,
    /// The plugin's version.
    pub version: String,
    /// The digest of the component.
    #[schema(value_type = String)]
    pub sha256: Digest,
    /// Whether it could block.
    #[schema(value_type = String)]
    pub mode: Mode,
    /// Who asked for it.
    pub created_by: String,
    /// RFC 3339.
    pub created_at: String,
    /// Why it failed.
    pub reason: Option<String>,
}
