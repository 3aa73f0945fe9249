//! `/v1/lockdown`: nothing starts, on no machine of the host, until it is lifted.

use serde::{Deserialize, Serialize};

/// `PUT /v1/lockdown`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartLockdown {
    /// For the record, and for whoever is refused.
    #[serde(default)]
    pub reason: Option<String>,
    /// Cancel what has not ended, too.
    #[serde(default)]
    pub cancel: bool,
}

/// Whether the host is locked down. The answer to `GET`, `PUT` and `DELETE /v1/lockdown`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Lockdown {
    /// Whether it is.
    pub on: bool,
    /// RFC 3339; null where it is not.
    pub since: Option<String>,
    /// The operator; null where it is not.
    pub operator: Option<String>,
    /// As given; null where none was.
    pub reason: Option<String>,
    /// How many operations had not ended and were told to by this request.
    pub canceled: u64,
}
