//! `/v1/tokens`: operators' tokens.

use serde::{Deserialize, Serialize};
use sluice_protocol::units::Span;

/// `POST /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// Its name, and without `operator` also that of its operator, as it will stand in the audit log.
    pub name: String,
    /// Whose it is; an operator of its own where absent.
    #[serde(default)]
    pub operator: Option<String>,
    /// Names of roles; none that gives more than the maker has. Of an operator's token: what it leaves of theirs.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Names such as `RemoteExecution`; none beyond the maker's own. Of an operator's token: what it leaves of theirs.
    #[serde(default)]
    pub permissions: Option<Vec<String>>,
    /// How long it is good; until revoked where absent.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "30d")]
    pub expires: Option<Span>,
    /// The tenant's name; that of the query where absent, and the operator's own where that has none.
    #[serde(default)]
    pub tenant: Option<String>,
}

/// The token. The host keeps its hash alone: this is the only time it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CreatedToken {
    /// For revoking it.
    pub id: String,
    /// The bearer token.
    pub token: String,
}

/// A token in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Token {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The operator's name.
    #[serde(default)]
    pub operator: String,
    /// The tenant's name.
    pub tenant: String,
    /// The roles that it is for: those of its operator, or what it leaves of them.
    #[serde(default)]
    pub roles: Vec<String>,
    /// The permissions that it is for, besides the roles'.
    pub permissions: Vec<String>,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339; null where it does not.
    pub expires_at: Option<String>,
    /// Whether it was revoked.
    pub revoked: bool,
}
