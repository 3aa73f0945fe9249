//! Customers of the provider: made, renamed, archived, and seen.

use sluice_protocol::ids::TenantId;
use sluice_protocol::message::CloseCode;

use super::{ProviderError, TenantName, administers, offer, on_both_records};
use crate::audit::{Event, EventKind};
use crate::clock::UnixMillis;
use crate::fleet::{self, Command};
use crate::host::SharedHost;
use crate::jobs;
use crate::operators::{Actor, Role};
use crate::store::tenants::{self, ProviderAccess, Tenant, TenantKind, TenantRow};
use crate::store::{Connection, Page, StoreError, grants, machines, roles, schedules};

/// How many machines' operations are ended in one transaction.
const STEP: u32 = 50;

/// Makes a tenant, which has what is offered to all. Nobody may do anything in it until the provider grants that.
///
/// # Errors
///
/// The actor is not the provider's, or the name is none or is taken.
pub async fn create(
    host: &SharedHost,
    actor: &Actor,
    name: &str,
    now: UnixMillis,
) -> Result<TenantRow, ProviderError> {
    administers(actor)?;
    let name: TenantName = name.parse()?;
    let asked = actor.clone();
    host.store
        .write(move |conn| {
            free(conn, &name)?;
            let tenant = tenants::create(conn, name.as_str(), now)?;
            on_both_records(conn, &asked, &tenant, now, |who| {
                about(&tenant, Event::by(EventKind::TenantCreated, who))
            })?;
            offer::give_all(conn, &asked.tenant, &tenant, now)?;
            known(conn, tenant.id)
        })
        .await
}

/// Gives a tenant another name. Whatever belongs to it stays as it is, and whoever takes the old name gets nothing of it.
///
/// # Errors
///
/// The actor is not the provider's, there is no such tenant, the name is none or taken, or a role's policies name the tenant.
pub async fn rename(
    host: &SharedHost,
    actor: &Actor,
    tenant: &str,
    name: &str,
    now: UnixMillis,
) -> Result<TenantRow, ProviderError> {
    administers(actor)?;
    let name: TenantName = name.parse()?;
    let (asked, typed) = (actor.clone(), tenant.to_owned());
    let row = host
        .store
        .write(move |conn| {
            let before = find(conn, &typed)?.tenant;
            if before.name == name.as_str() {
                return known(conn, before.id);
            }
            free(conn, &name)?;
            unnamed_by_roles(conn, &asked.tenant, &before)?;
            tenants::rename(conn, before.id, name.as_str())?;
            let after = known(conn, before.id)?;
            let by = match before.id == asked.tenant.id {
                true => Actor {
                    tenant: after.tenant.clone(),
                    ..asked
                },
                false => asked,
            };
            on_both_records(conn, &by, &after.tenant, now, |who| {
                about(&after.tenant, Event::by(EventKind::TenantRenamed, who))
                    .detail("before", before.name.as_str())
            })?;
            Ok(after)
        })
        .await?;
    tell_machines(host, &row.tenant)?;
    Ok(row)
}

/// Machines know what their tenant is called, and tell their scripts.
fn tell_machines(host: &SharedHost, tenant: &Tenant) -> Result<(), StoreError> {
    for session in host.presence.of_tenant(tenant.id) {
        let identity = host.store.read(|conn| {
            let row = machines::find(conn, tenant.id, session.machine)?;
            let api = &host.addresses.api;
            row.map(|row| fleet::identity(conn, tenant, row.id, &row.name, api))
                .transpose()
        })?;
        if let Some(identity) = identity {
            session.send(Command::Identity(identity));
        }
    }
    Ok(())
}

/// Archives a tenant for good: what has not ended there is canceled, or where a machine has it, interrupted; its machines are
/// turned away, its schedules paused, and its operators can look at things and nothing else. Nothing of it is removed.
///
/// # Errors
///
/// The actor is not the provider's, there is no such tenant, or it is the provider's own.
pub async fn archive(
    host: &SharedHost,
    actor: &Actor,
    tenant: &str,
    now: UnixMillis,
) -> Result<TenantRow, ProviderError> {
    administers(actor)?;
    let (asked, typed) = (actor.clone(), tenant.to_owned());
    let row = host
        .store
        .write(move |conn| {
            let row = customer(conn, &typed)?;
            let tenant = &row.tenant;
            if tenants::archive(conn, tenant.id, now)? {
                let there = asked.reaching(tenant.clone());
                schedules::pause_all_of(conn, tenant.id, &there.name, now)?;
                on_both_records(conn, &asked, tenant, now, |who| {
                    about(tenant, Event::by(EventKind::TenantArchived, who))
                })?;
            }
            known(conn, tenant.id)
        })
        .await?;
    // From here on none connects, and none that was about to submit finds a machine that is there.
    for session in host.presence.of_tenant(row.tenant.id) {
        session.close(CloseCode::Revoked, "the machine's tenant was archived");
    }
    end_everything(host, &actor.reaching(row.tenant.clone()), now).await?;
    Ok(row)
}

/// Ends what has not ended, machine by machine. What is done stays done where this is broken off, and asking again goes on.
async fn end_everything(
    host: &SharedHost,
    actor: &Actor,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let mut after = String::new();
    loop {
        let asked = actor.clone();
        let page = Page { after, limit: STEP };
        let (last, ended) = host
            .store
            .write(move |conn| {
                let rows = machines::list(conn, asked.tenant.id, None, &page)?;
                let mut ended = Vec::new();
                for row in &rows {
                    ended.extend(jobs::end_all_of_machine(conn, &asked, row.id, now)?);
                }
                let last = rows.last().map(|row| format!("{}/{}", row.name, row.id));
                Ok::<_, StoreError>((last, ended))
            })
            .await?;
        for (job, state) in ended {
            host.metrics.operation_ended(state);
            host.events.notify(job);
            host.rollouts.wake(job);
        }
        match last {
            Some(last) => after = last,
            None => return Ok(()),
        }
    }
}

/// The tenants that somebody sees: all where they administer the provider, else their own and those in which they have a grant
/// that is in force.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn visible(
    conn: &Connection,
    actor: &Actor,
    now: UnixMillis,
) -> Result<Vec<TenantRow>, StoreError> {
    let mut rows = tenants::rows(conn)?;
    if administers(actor).is_ok() {
        return Ok(rows);
    }
    let home = actor.home();
    let mut seen = Vec::new();
    for row in rows.drain(..) {
        let is_granted = || {
            Ok::<_, StoreError>(
                row.access == ProviderAccess::Allowed
                    && grants::good(conn, row.tenant.id, actor.operator, now)?.is_some(),
            )
        };
        if row.tenant.id == home || is_granted()? {
            seen.push(row);
        }
    }
    Ok(seen)
}

/// The tenant of this name.
pub(super) fn find(conn: &Connection, name: &str) -> Result<TenantRow, ProviderError> {
    tenants::row_by_name(conn, name)?
        .ok_or_else(|| ProviderError::NoTenant(name.chars().take(100).collect()))
}

/// The same, where it is a customer.
pub(super) fn customer(conn: &Connection, name: &str) -> Result<TenantRow, ProviderError> {
    let row = find(conn, name)?;
    match row.kind {
        TenantKind::Customer => Ok(row),
        TenantKind::Provider => Err(ProviderError::Own(row.tenant.name)),
    }
}

fn known(conn: &Connection, id: TenantId) -> Result<TenantRow, ProviderError> {
    let row = tenants::row(conn, id)?;
    Ok(row.ok_or_else(|| StoreError::Corrupt("a tenant is gone".to_owned()))?)
}

fn free(conn: &Connection, name: &TenantName) -> Result<(), ProviderError> {
    match tenants::find_by_name(conn, name.as_str())? {
        None => Ok(()),
        Some(_) => Err(ProviderError::Taken(name.to_string())),
    }
}

/// Policies know a tenant by its name: one that forbids something there must not come to forbid nothing. Those of other customers
/// are never asked about it.
fn unnamed_by_roles(
    conn: &Connection,
    provider: &Tenant,
    tenant: &Tenant,
) -> Result<(), ProviderError> {
    for of in [provider, tenant] {
        for row in roles::list(conn, of.id)? {
            if Role::read(row.name.parse()?, &row.policy)?.names_tenant(&tenant.name) {
                return Err(ProviderError::NamedByRole {
                    role: row.name,
                    of: of.name.clone(),
                    name: tenant.name.clone(),
                });
            }
        }
    }
    Ok(())
}

fn about(tenant: &Tenant, event: Event) -> Event {
    event
        .detail("tenant_id", tenant.id.to_string())
        .detail("name", tenant.name.as_str())
}
