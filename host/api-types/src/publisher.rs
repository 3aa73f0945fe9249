//! `/v1/publishers`: whose plugins may be installed.

use serde::{Deserialize, Serialize};

/// `POST /v1/publishers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustPublisher {
    /// Written `ed25519:<base64>`.
    pub key: String,
    /// The tenant's name; that of the query where absent, and the operator's own where that has none.
    #[serde(default)]
    pub tenant: Option<String>,
}

/// A publisher that is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Publisher {
    /// Written `ed25519:<base64>`.
    pub key: String,
    /// The tenant's name.
    pub tenant: String,
    /// Who trusted it.
    pub operator: String,
    /// RFC 3339.
    pub trusted_at: String,
}
