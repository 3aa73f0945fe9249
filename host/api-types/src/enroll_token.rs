//! `/v1/enroll-tokens`: what machines join with.

use serde::{Deserialize, Serialize};
use sluice_protocol::units::Span;

use crate::job::Tag;

/// Whether a machine that joins is one of the fleet at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Approval {
    /// It is.
    #[default]
    Automatic,
    /// Somebody approves it first. Until then it gets no gates and no operations.
    Manual,
}

/// Asks for a token that lets machines join.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateEnrollToken {
    /// How many machines may join with it; 1 where absent.
    #[serde(default)]
    pub uses: Option<u32>,
    /// How long it is good; the host's default where absent.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "1h")]
    pub expires: Option<Span>,
    /// What machines are tagged with that join.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// Ranges of addresses that they may come from, such as `10.1.0.0/16`; anywhere where empty.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Whether they wait for somebody.
    #[serde(default)]
    pub approval: Approval,
    /// The tenant's name; that of the query where absent, and the operator's own where that has none.
    #[serde(default)]
    pub tenant: Option<String>,
}

/// The token. The host keeps its hash alone: this is the only time it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EnrollToken {
    /// For revoking it.
    #[serde(default)]
    pub id: String,
    /// `sluice1.` and base64url.
    pub token: String,
}

/// A token in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ListedEnrollToken {
    /// Its id.
    pub id: String,
    /// The tenant's name.
    pub tenant: String,
    /// How many machines may join with it.
    pub uses: u32,
    /// How many still may.
    pub uses_left: u32,
    /// What they are tagged with.
    pub tags: Vec<Tag>,
    /// Where they may come from; anywhere where empty.
    pub addresses: Vec<String>,
    /// Whether they wait for somebody.
    pub approval: Approval,
    /// RFC 3339.
    pub created_at: String,
    /// The operator who made it.
    pub operator: String,
    /// RFC 3339.
    pub expires_at: String,
    /// Whether it was revoked.
    pub revoked: bool,
}
