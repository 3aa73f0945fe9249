//! `/v1/operators`: who acts.

use serde::{Deserialize, Serialize};

/// `POST /v1/operators`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateOperator {
    /// The operator's name, as it will stand in the audit log.
    pub name: String,
    /// Names of roles.
    pub roles: Vec<String>,
    /// The tenant's name; that of the query where absent, and the operator's own where that has none.
    #[serde(default)]
    pub tenant: Option<String>,
}

/// `PATCH /v1/operators/{operator}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchOperator {
    /// Names of roles, in place of those that the operator has.
    pub roles: Vec<String>,
}

/// An operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Operator {
    /// Its id.
    pub id: String,
    /// The operator's name.
    pub name: String,
    /// The tenant's name.
    pub tenant: String,
    /// Names of roles.
    pub roles: Vec<String>,
    /// Permissions besides the roles', of an operator who was made with a token.
    pub permissions: Vec<String>,
    /// RFC 3339.
    pub created_at: String,
}
