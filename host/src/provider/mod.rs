//! The provider and its tenants: customers are made, renamed and archived, and operators of the provider work for them by
//! grants, unless the customer lets nobody of the provider in. Scripts of the provider's are offered to customers, who run them as they are.

mod access;
mod error;
mod grant;
mod name;
mod offer;
mod tenant;

pub use access::{AccessError, set_access};
pub use error::ProviderError;
pub use grant::{End, NewGrant, add as add_grant, revoke as revoke_grant, revoke_all_of};
pub use name::{InvalidTenantName, TenantName};
pub use offer::{add as add_offer, redact_copies, withdraw as withdraw_offer, withdraw_all_of};
pub use tenant::{archive, create, rename, visible};

use crate::audit::{self, Event};
use crate::clock::UnixMillis;
use crate::operators::{Actor, Permission, Standing};
use crate::store::tenants::{Tenant, TenantKind};
use crate::store::{Connection, StoreError};

/// Whether the actor does something as the provider: one of its administrators, at home.
///
/// # Errors
///
/// They are not.
pub fn administers(actor: &Actor) -> Result<(), ProviderError> {
    match actor.standing {
        Standing::Own(TenantKind::Provider) => Ok(actor.require(Permission::Administer)?),
        Standing::Own(TenantKind::Customer) | Standing::Granted { .. } => {
            Err(ProviderError::NotTheProviders(actor.tenant.name.clone()))
        }
    }
}

/// What the provider does with a tenant is on the record of both.
fn on_both_records(
    conn: &Connection,
    actor: &Actor,
    tenant: &Tenant,
    now: UnixMillis,
    event: impl Fn(&Actor) -> Event,
) -> Result<(), StoreError> {
    audit::append(conn, &actor.tenant, now, [event(actor)])?;
    if *tenant != actor.tenant {
        let there = actor.reaching(tenant.clone());
        audit::append(conn, tenant, now, [event(&there)])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
