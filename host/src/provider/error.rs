//! What the provider did not do.

use uuid::Uuid;

use super::InvalidTenantName;
use crate::library::VersionId;
use crate::operators::{Denied, GrantError, InvalidRole};
use crate::store::StoreError;

/// Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// A permission is missing.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// It is the provider's to do.
    #[error(
        "that is for the provider's administrators, and the token acts for the tenant {0}; nothing was done"
    )]
    NotTheProviders(String),
    /// No name.
    #[error("{0}; nothing was changed")]
    Name(#[from] InvalidTenantName),
    /// Another tenant has it.
    #[error("there is a tenant {0} already; nothing was changed")]
    Taken(String),
    /// Unknown.
    #[error("there is no tenant {} (sluice tenant list); nothing was changed", .0.escape_debug())]
    NoTenant(String),
    /// What is the provider's own is no customer.
    #[error("{0} is the provider's own tenant; nothing was changed")]
    Own(String),
    /// Nothing is done there any more.
    #[error("the tenant {0} is archived; nothing was changed")]
    Archived(String),
    /// A policy would come to mean another tenant, or none.
    #[error(
        "the role {role} of {of} names the tenant {name} in its policies; change that first (sluice role set); nothing was changed"
    )]
    NamedByRole {
        /// The role.
        role: String,
        /// Whose it is.
        of: String,
        /// The tenant's name now.
        name: String,
    },
    /// No operator of the provider.
    #[error("the provider has no operator {} (sluice operator list); nothing was granted", .0.escape_debug())]
    NoOperator(String),
    /// Two grants would be two answers to what somebody may do there.
    #[error(
        "{operator} has a grant in {tenant} already ({grant}); revoke it first (sluice grant revoke {grant}); nothing was granted"
    )]
    Granted {
        /// To whom.
        operator: String,
        /// In which tenant.
        tenant: String,
        /// The one that there is.
        grant: Uuid,
    },
    /// A grant of nothing.
    #[error("a grant needs a role (--role); nothing was granted")]
    NoRoles,
    /// The end is no time, or has been.
    #[error(
        "a grant has to end at a time that is to come (--for 8h, --until 2030-01-01T18:00:00Z); nothing was granted"
    )]
    End,
    /// No grant in force.
    #[error("there is no grant {} to revoke (sluice grant list)", .0.escape_debug())]
    NoGrant(String),
    /// No script of the provider's.
    #[error("there is no script {} in the provider's library; nothing was offered", .0.escape_debug())]
    NoScript(String),
    /// No version that may run, or nobody to offer it to.
    #[error(
        "{0} is no version that may run in the provider's library (sluice script versions), or it is offered to nobody; nothing was offered"
    )]
    NoVersion(VersionId),
    /// No offer that holds.
    #[error("there is no offer {} to withdraw (sluice offer list)", .0.escape_debug())]
    NoOffer(String),
    /// A role that is none.
    #[error("{0}; nothing was granted")]
    Role(#[source] GrantError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<GrantError> for ProviderError {
    fn from(error: GrantError) -> Self {
        match error {
            GrantError::Store(error) => Self::Store(error),
            error => Self::Role(error),
        }
    }
}

/// What is stored was checked, so another version of the program wrote it.
impl From<InvalidRole> for ProviderError {
    fn from(error: InvalidRole) -> Self {
        Self::Store(StoreError::Corrupt(error.to_string()))
    }
}
