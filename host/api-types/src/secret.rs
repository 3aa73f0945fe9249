//! `/v1/secrets`: values that scripts get and that no request gets back.

use serde::{Deserialize, Serialize};

use crate::bytes::Base64;

/// `PUT /v1/secrets/{name}` and `POST /v1/secrets/{name}/rotate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSecret {
    /// The value: 4 bytes to 32 KiB.
    pub value: Base64,
    /// The tenant's name; that of the query where absent, and the operator's own where that has none.
    #[serde(default)]
    pub tenant: Option<String>,
}

/// A secret, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Secret {
    /// Its name.
    pub name: String,
    /// The tenant's name.
    pub tenant: String,
    /// Counted from 1: every value has its own.
    pub version: u64,
    /// Who set this version.
    pub operator: String,
    /// When the name was first used, in RFC 3339.
    pub created_at: String,
    /// When this version was set, in RFC 3339.
    pub changed_at: String,
    /// Whether it was revoked: it has no value, and no job can name it.
    pub revoked: bool,
}
