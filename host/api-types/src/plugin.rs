//! `/v1/plugins`: components that passed admission.

use serde::{Deserialize, Serialize};
use sluice_protocol::digest::Digest;

use crate::bytes::Base64;

/// `POST /v1/plugins`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InstallPlugin {
    /// The component's bytes.
    pub component: Base64,
    /// The bytes of the publisher's `.sig` file.
    pub signature: Base64,
    /// The tenant's name; that of the query where absent, and the operator's own where that has none.
    #[serde(default)]
    pub tenant: Option<String>,
}

/// A plugin that is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Plugin {
    /// The digest of the component.
    #[schema(value_type = String)]
    pub sha256: Digest,
    /// The id in its manifest.
    pub id: String,
    /// The version in its manifest.
    pub version: String,
    /// The vendor in its manifest.
    pub vendor: String,
    /// `environment`, `preparer`, `scanner` or `policy`.
    pub world: String,
    /// Who signed it, written `ed25519:<base64>`.
    pub publisher: String,
    /// In bytes.
    pub size: u64,
    /// The tenant's name.
    pub tenant: String,
    /// RFC 3339.
    pub installed_at: String,
}
