//! `/v1/roles`: what operators may do.

use serde::{Deserialize, Serialize};

/// `PUT /v1/roles/{role}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetRole {
    /// Policies in Cedar, which hold to the schema of `docs/permissions.md`.
    pub policy: String,
    /// The tenant's name; that of the query where absent, and the operator's own where that has none.
    #[serde(default)]
    pub tenant: Option<String>,
}

/// A role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// The tenant's name.
    pub tenant: String,
    /// Whether every host has it, and nobody can change it.
    pub shipped: bool,
    /// The permissions that it gives, under conditions or without.
    pub gives: Vec<String>,
    /// The permissions that it forbids, under conditions or always.
    pub forbids: Vec<String>,
    /// Its policies, in Cedar.
    pub policy: String,
    /// RFC 3339; null where it was shipped.
    pub changed_at: Option<String>,
    /// The operator who did; null where it was shipped.
    pub changed_by: Option<String>,
}
