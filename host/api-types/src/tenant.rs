//! `/v1/tenants` and `/v1/provider-access`: the provider and its customers.

use serde::{Deserialize, Serialize};

use crate::grant::Grant;

/// `POST /v1/tenants`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTenant {
    /// Small letters, digits and `-`.
    pub name: String,
}

/// `PATCH /v1/tenants/{tenant}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchTenant {
    /// The new name.
    pub name: String,
}

/// `PUT /v1/provider-access`, for the operator's own tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetProviderAccess {
    /// Whether operators of the provider get in by their grants.
    pub access: Access,
}

/// Whether operators of the provider get into a tenant by their grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// They do.
    Allowed,
    /// They do not, whatever grants there are.
    Denied,
}

/// Whose a tenant is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TenantKind {
    /// The provider's own.
    Provider,
    /// A customer of it.
    Customer,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Tenant {
    /// Its id, which never changes.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub kind: TenantKind,
    /// Whether it lets the provider's operators in.
    pub provider_access: Access,
    /// RFC 3339; null where it does.
    pub denied_since: Option<String>,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339; null where it is not archived.
    pub archived_at: Option<String>,
    /// By which the operator who asks may act there; null in their own, and where they have none.
    pub grant: Option<Grant>,
}
