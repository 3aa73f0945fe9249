//! `/v1/grants`: operators of the provider who work for its customers.

use serde::{Deserialize, Serialize};
use sluice_protocol::units::Span;

/// `POST /v1/grants`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddGrant {
    /// The name of the provider's operator.
    pub operator: String,
    /// The name of the tenant that they are to work for.
    pub granted_in: String,
    /// Names of roles: shipped ones, and the provider's own.
    pub roles: Vec<String>,
    /// How long it holds; until it is revoked where this and `until` are absent.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "8h")]
    pub expires: Option<Span>,
    /// RFC 3339: when it is over; not together with `expires`.
    #[serde(default)]
    pub until: Option<String>,
}

/// Which grants are asked for.
#[derive(
    Debug,
    Clone,
    PartialEq,
    Eq,
    Default,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
    utoipa::IntoParams,
)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct GrantQuery {
    /// `next` of the part before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How many at most; the host has a ceiling of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only those in the tenant of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted_in: Option<String>,
    /// The tenant that the request is for, where it is not the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// Whether a grant holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GrantState {
    /// It does.
    Active,
    /// The tenant lets nobody of the provider in.
    Denied,
    /// It has ended by itself.
    Expired,
    /// It was taken back.
    Revoked,
}

/// A grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Grant {
    /// Its id.
    pub grant: String,
    /// The provider's operator, as the record of the tenant that is asked has them: a customer's says `provider/NAME`.
    pub operator: String,
    /// In which tenant.
    pub granted_in: String,
    /// Names of roles, as the provider has them.
    pub roles: Vec<String>,
    /// Whether it holds.
    pub state: GrantState,
    /// RFC 3339.
    pub created_at: String,
    /// Who gave it, named as the operator is.
    pub created_by: String,
    /// RFC 3339; null where it does not end by itself.
    pub expires_at: Option<String>,
}
