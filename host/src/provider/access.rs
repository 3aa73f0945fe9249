//! A tenant lets the provider's operators in, or not. That is for its own administrators to say, and for nobody by a grant.

use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::operators::{Actor, Denied, Permission, Standing};
use crate::store::tenants::{self, ProviderAccess, TenantKind};
use crate::store::{StoreError, enroll_tokens};

/// Lets the provider's operators in by their grants (which are there all the time), or keeps them out from the next request on;
/// on the record of both; tokens for machines that were made by grants are revoked then. Where it is so already, nothing is
/// changed.
///
/// # Errors
///
/// The actor is not one of the tenant's own administrators, or is by a token that a grant made.
pub async fn set_access(
    host: &SharedHost,
    actor: &Actor,
    access: ProviderAccess,
    now: UnixMillis,
) -> Result<(), AccessError> {
    actor.require(Permission::Administer)?;
    match actor.standing {
        Standing::Own(TenantKind::Customer) => {}
        Standing::Own(TenantKind::Provider) => {
            return Err(AccessError::Provider(actor.tenant.name.clone()));
        }
        Standing::Granted { .. } => return Err(AccessError::ByGrant(actor.tenant.name.clone())),
    }
    let asked = actor.clone();
    host.store
        .write(move |conn| {
            let tenant = &asked.tenant;
            // They would keep themselves out, and perhaps everybody who could allow it again.
            if asked.grant_behind(conn)?.is_some() {
                return Err(AccessError::ByInvitation(tenant.name.clone()));
            }
            let row = tenants::row(conn, tenant.id)?
                .ok_or_else(|| StoreError::Corrupt("a tenant is gone".to_owned()))?;
            let kind = match (row.access, access) {
                (ProviderAccess::Allowed, ProviderAccess::DeniedSince(_)) => {
                    EventKind::ProviderAccessDenied
                }
                (ProviderAccess::DeniedSince(_), ProviderAccess::Allowed) => {
                    EventKind::ProviderAccessAllowed
                }
                _ => return Ok(()),
            };
            tenants::set_access(conn, tenant.id, access)?;
            let event = Event::by(kind, &asked);
            let event = match access {
                ProviderAccess::Allowed => event,
                ProviderAccess::DeniedSince(_) => event.detail(
                    "enroll_tokens_revoked",
                    enroll_tokens::revoke_all_by_grant(conn, tenant.id, None, now)?,
                ),
            };
            audit::append(conn, tenant, now, [event])?;
            if let Some(provider) = tenants::provider(conn)? {
                // The provider's record says whose operator it was, where another of that name may be its own.
                let event = Event {
                    operator: Some(format!("{}/{}", tenant.name, asked.name)),
                    ..Event::by(kind, &asked)
                };
                let event = event.detail("tenant_id", tenant.id.to_string());
                audit::append(
                    conn,
                    &provider,
                    now,
                    [event.detail("tenant", tenant.name.as_str())],
                )?;
            }
            Ok::<_, AccessError>(())
        })
        .await
}

/// Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A permission is missing.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// It cannot keep itself out.
    #[error("{0} is the provider's own tenant; nothing was changed")]
    Provider(String),
    /// Whoever is kept out must not be the one who says so.
    #[error(
        "whether the provider is let in is for the own administrators of {0} to say; nothing was changed"
    )]
    ByGrant(String),
    /// Nor the one whose token ends with the grant.
    #[error(
        "that token was made by a grant of the provider's and is kept out with it; make one of your own first, as an administrator of {0} (sluice token create NAME --operator YOU); nothing was changed"
    )]
    ByInvitation(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
