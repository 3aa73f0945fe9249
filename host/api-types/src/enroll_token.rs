//! `POST /v1/enroll-tokens`.

use serde::{Deserialize, Serialize};
use sluice_protocol::units::Span;

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
    /// The tenant's name; the operator's own where absent.
    #[serde(default)]
    pub tenant: Option<String>,
}

/// The token. The host keeps its hash alone: this is the only time it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EnrollToken {
    /// `sluice1.` and base64url.
    pub token: String,
}
