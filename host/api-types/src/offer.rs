//! `/v1/offers`: versions of the provider's scripts that its customers may run.

use serde::{Deserialize, Serialize};
use sluice_protocol::digest::Digest;

/// `POST /v1/offers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddOffer {
    /// The script's name in the provider's library.
    pub script: String,
    /// Counted from 1.
    pub version: u64,
    /// The digest of its bytes, so that what is offered is what was meant; not looked at where absent.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub script_sha256: Option<Digest>,
    /// Names of customers; all of them, also those that are made later, where absent.
    #[serde(default)]
    pub to: Option<Vec<String>>,
}

/// An offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Offer {
    /// Its id.
    pub offer: String,
    /// The script's name in the provider's library; customers have it as `provider/NAME`.
    pub script: String,
    /// Counted from 1.
    pub version: u64,
    /// Of its bytes.
    #[schema(value_type = String)]
    pub script_sha256: Digest,
    /// The customer's name; null where it is for all.
    pub to: Option<String>,
    /// RFC 3339.
    pub created_at: String,
    /// The operator of the provider who made it.
    pub created_by: String,
    /// RFC 3339; null where it holds.
    pub withdrawn_at: Option<String>,
}
