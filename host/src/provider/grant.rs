//! Operators of the provider work in other tenants by grants.

use std::sync::Arc;

use sluice_protocol::units::Span;
use uuid::Uuid;

use super::tenant::customer;
use super::{ProviderError, administers, on_both_records};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::operators::{Actor, Grants, in_others};
use crate::store::grants::{self, GrantRow};
use crate::store::operators::OperatorRow;
use crate::store::tenants::{self, Tenant};
use crate::store::{Connection, StoreError, enroll_tokens, operators};

/// A grant that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGrant {
    /// The operator of the provider.
    pub operator: String,
    /// The tenant.
    pub tenant: String,
    /// Roles: shipped ones, and the provider's own.
    pub roles: Vec<String>,
    /// When it is over.
    pub end: End,
}

/// When a grant is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// When it is revoked.
    Never,
    /// After this long.
    After(Span),
    /// At this time.
    At(UnixMillis),
}

impl End {
    fn at(self, now: UnixMillis) -> Result<Option<UnixMillis>, ProviderError> {
        let end = match self {
            Self::Never => return Ok(None),
            Self::After(span) => now.plus(span),
            Self::At(time) => time,
        };
        if end > now {
            Ok(Some(end))
        } else {
            Err(ProviderError::End)
        }
    }
}

/// Lets an operator of the provider act in a tenant. What the roles give, whoever grants them must have without conditions.
///
/// # Errors
///
/// The actor is not the provider's or may not give that, there is no such operator, tenant or role, or the operator has a grant
/// there.
pub async fn add(
    host: &SharedHost,
    actor: &Actor,
    new: NewGrant,
    now: UnixMillis,
) -> Result<GrantRow, ProviderError> {
    administers(actor)?;
    let expires = new.end.at(now)?;
    if new.roles.is_empty() {
        return Err(ProviderError::NoRoles);
    }
    let (asked, host_roles) = (actor.clone(), Arc::clone(host));
    host.store
        .write(move |conn| {
            let home = asked.tenant.id;
            let tenant = customer(conn, &new.tenant)?;
            if tenant.archived.is_some() {
                return Err(ProviderError::Archived(tenant.tenant.name));
            }
            let operator = operators::find_by_name(conn, home, &new.operator)?;
            let operator = operator.ok_or(ProviderError::NoOperator(new.operator))?;
            let mut roles = new.roles;
            roles.sort();
            roles.dedup();
            let meant = Grants {
                roles,
                permissions: None,
            };
            asked.may_give(&host_roles.roles.mean(conn, home, &meant)?)?;
            if let Some(grant) = grants::good(conn, tenant.tenant.id, operator.id, now)? {
                return Err(ProviderError::Granted {
                    operator: operator.name,
                    tenant: tenant.tenant.name,
                    grant: grant.id,
                });
            }
            let row = GrantRow {
                id: Uuid::now_v7(),
                tenant: tenant.tenant.id,
                operator: operator.id,
                roles: meant.roles,
                created: now,
                created_by: asked.name.clone(),
                expires,
                revoked: None,
            };
            grants::insert(conn, &row)?;
            on_both_records(conn, &asked, &tenant.tenant, now, |who| {
                let event = Event::by(EventKind::GrantAdded, who);
                of(&row, &operator, &tenant.tenant, event)
                    .detail("expires", row.expires.map(|at| at.to_string()))
            })?;
            Ok(row)
        })
        .await
}

/// Takes a grant back, and the tokens that were made by it: operators' are good as long as it, enrollment tokens are revoked.
/// What the operator submitted goes on; what their schedules would do does not.
///
/// # Errors
///
/// The actor is not the provider's, or there is no such grant.
pub async fn revoke(
    host: &SharedHost,
    actor: &Actor,
    typed: &str,
    now: UnixMillis,
) -> Result<(), ProviderError> {
    administers(actor)?;
    let none = || ProviderError::NoGrant(typed.chars().take(100).collect());
    let id = Uuid::try_parse(typed).map_err(|_| none())?;
    let (asked, none) = (actor.clone(), none());
    host.store
        .write(move |conn| {
            let Some(row) = grants::find(conn, id)? else {
                return Err(none);
            };
            let Some((tenant, operator)) = end(conn, &row, asked.tenant.id, now)? else {
                return Err(none);
            };
            on_both_records(conn, &asked, &tenant, now, |who| {
                let event = Event::by(EventKind::GrantRevoked, who);
                of(&row, &operator, &tenant, event)
            })?;
            Ok(())
        })
        .await
}

/// Ends all grants of an operator of the provider who is removed, in the caller's transaction; on both records.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn revoke_all_of(
    conn: &Connection,
    operator: &OperatorRow,
    now: UnixMillis,
) -> Result<(), StoreError> {
    for row in grants::of_operator(conn, operator.id)? {
        if let Some((tenant, operator)) = end(conn, &row, operator.tenant, now)? {
            let event = Event::by_host(EventKind::GrantRevoked)
                .detail("reason", "the operator was removed");
            let event = of(&row, &operator, &tenant, event);
            audit::append(conn, &tenant, now, [event.clone()])?;
            if let Some(home) = tenants::find(conn, operator.tenant)? {
                audit::append(conn, &home, now, [event])?;
            }
        }
    }
    Ok(())
}

/// Ends a grant, and says where and whose it was; nothing where it was over.
fn end(
    conn: &Connection,
    row: &GrantRow,
    home: sluice_protocol::ids::TenantId,
    now: UnixMillis,
) -> Result<Option<(Tenant, OperatorRow)>, StoreError> {
    if !grants::revoke(conn, row.id, now)? {
        return Ok(None);
    }
    let gone = || StoreError::Corrupt("a grant of nobody, or nowhere".to_owned());
    let tenant = tenants::find(conn, row.tenant)?.ok_or_else(gone)?;
    let operator = operators::find(conn, home, row.operator)?.ok_or_else(gone)?;
    enroll_tokens::revoke_all_by_grant(conn, tenant.id, Some(row.id), now)?;
    Ok(Some((tenant, operator)))
}

/// What an entry about a grant says of it.
fn of(row: &GrantRow, operator: &OperatorRow, tenant: &Tenant, event: Event) -> Event {
    event
        .detail("grant", row.id.to_string())
        .detail("to", in_others(&operator.name))
        .detail("in", tenant.name.as_str())
        .detail("roles", row.roles.clone())
}
