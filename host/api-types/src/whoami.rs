//! `GET /v1/whoami`.

use serde::{Deserialize, Serialize};

/// Who the token belongs to, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WhoAmI {
    /// The operator's name.
    pub operator: String,
    /// The name of the tenant that the request is for: the operator's own where it names none.
    pub tenant: String,
    /// The grant by which the operator acts there; null where it is their own.
    #[serde(default)]
    pub grant: Option<String>,
    /// The operator's roles.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Names such as `RemoteExecution`: what may be done, on some machines at least.
    pub permissions: Vec<String>,
    /// The version of the host's software.
    pub host_version: String,
}
