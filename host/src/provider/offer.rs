//! Versions of the provider's scripts are offered to customers, who run them as they are.
//!
//! A customer has a copy of its own of what is offered to it, under a name that begins with `provider/`: nothing that it runs is
//! read from another tenant. What may run is said by the offers alone, so that withdrawing one ends it at once.

use sluice_protocol::digest::Digest;
use uuid::Uuid;

use super::tenant::customer;
use super::{ProviderError, administers, on_both_records};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::jobs::Canceling;
use crate::library::{ScriptName, VersionId};
use crate::operators::{Actor, Standing, in_others};
use crate::store::offers::{self, OfferRow};
use crate::store::scripts::{self, ScriptRow, VersionRow};
use crate::store::tenants::{self, Tenant, TenantKind};
use crate::store::{Connection, StoreError};

/// Offers a version to these customers, or to all, one offer for each of them or one for all. What is offered already is not
/// offered twice.
///
/// # Errors
///
/// The actor is not the provider's, there is no such version or customer, or the version may not run.
pub async fn add(
    host: &SharedHost,
    actor: &Actor,
    version: VersionId,
    to: Option<Vec<String>>,
    now: UnixMillis,
) -> Result<Vec<OfferRow>, ProviderError> {
    administers(actor)?;
    if version.name.is_the_providers() || to.as_ref().is_some_and(Vec::is_empty) {
        return Err(ProviderError::NoVersion(version));
    }
    let asked = actor.clone();
    host.store
        .write(move |conn| {
            let home = asked.tenant.id;
            let row = scripts::version(conn, home, &version)?;
            let row = row.ok_or_else(|| ProviderError::NoVersion(version.clone()))?;
            if !scripts::may_run(conn, home, &version)? {
                return Err(ProviderError::NoVersion(version));
            }
            let named = match to {
                None => vec![None],
                Some(names) => names
                    .iter()
                    .map(|name| Ok(Some(customer(conn, name)?.tenant)))
                    .collect::<Result<_, ProviderError>>()?,
            };
            let mut made = Vec::new();
            for tenant in named {
                let offer = OfferRow {
                    id: Uuid::now_v7(),
                    version: version.clone(),
                    script_sha256: row.script_sha256,
                    tenant: tenant.as_ref().map(|tenant| tenant.id),
                    created: now,
                    created_by: asked.name.clone(),
                    withdrawn: None,
                };
                if offers::list(conn)?
                    .iter()
                    .any(|other| is_same(other, &offer))
                {
                    continue;
                }
                offers::insert(conn, &offer)?;
                record(conn, &asked, &offer, EventKind::ScriptOffered, now)?;
                for tenant in concerned(conn, &offer)? {
                    give(conn, &asked.tenant, &tenant, &row, now)?;
                }
                made.push(offer);
            }
            Ok(made)
        })
        .await
}

fn is_same(one: &OfferRow, other: &OfferRow) -> bool {
    one.withdrawn.is_none() && one.version == other.version && one.tenant == other.tenant
}

/// Withdraws an offer: nothing more is submitted of the version by whom it was for, unless it is offered to them otherwise. What
/// was submitted goes on.
///
/// # Errors
///
/// The actor is not the provider's, or there is no such offer.
pub async fn withdraw(
    host: &SharedHost,
    actor: &Actor,
    typed: &str,
    now: UnixMillis,
) -> Result<(), ProviderError> {
    administers(actor)?;
    let none = || ProviderError::NoOffer(typed.chars().take(100).collect());
    let id = Uuid::try_parse(typed).map_err(|_| none())?;
    let (asked, none) = (actor.clone(), none());
    host.store
        .write(move |conn| {
            let Some(offer) = offers::find(conn, id)? else {
                return Err(none);
            };
            if !offers::withdraw(conn, id, now)? {
                return Err(none);
            }
            record(conn, &asked, &offer, EventKind::ScriptOfferWithdrawn, now)?;
            Ok(())
        })
        .await
}

/// Gives a customer who is new what is offered to all, in the caller's transaction.
pub(super) fn give_all(
    conn: &Connection,
    home: &Tenant,
    tenant: &Tenant,
    now: UnixMillis,
) -> Result<(), StoreError> {
    for offer in offers::open_for(conn, tenant.id)? {
        if let Some(row) = scripts::version(conn, home.id, &offer.version)? {
            give(conn, home, tenant, &row, now)?;
        }
    }
    Ok(())
}

/// Copies a version into a customer's library, where it is not there. One that was redacted is not copied.
fn give(
    conn: &Connection,
    home: &Tenant,
    tenant: &Tenant,
    row: &VersionRow,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let name = row.id.name.in_others();
    let id = VersionId {
        name: name.clone(),
        version: row.id.version,
    };
    if scripts::version(conn, tenant.id, &id)?.is_some() {
        return Ok(());
    }
    let Some(text) = scripts::text(conn, home.id, &row.id)? else {
        return Ok(());
    };
    let created_by = in_others(&row.created_by);
    if scripts::find(conn, tenant.id, &name)?.is_none() {
        let script = ScriptRow {
            name,
            created: now,
            created_by: created_by.clone(),
            archived: None,
            archived_by: None,
        };
        scripts::insert(conn, tenant.id, &script)?;
    }
    let copy = VersionRow {
        id,
        created_by,
        ..row.clone()
    };
    scripts::insert_version(conn, tenant.id, &copy, &text)
}

/// Erases what customers have of the provider's with these bytes, in the caller's transaction, and cancels there what has not
/// started of it. What is to be told of that follows the commit.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn redact_copies(
    conn: &Connection,
    actor: &Actor,
    script_sha256: Digest,
    now: UnixMillis,
) -> Result<Vec<(Actor, Canceling)>, StoreError> {
    let mut told = Vec::new();
    if !is_at_home(actor) {
        return Ok(told);
    }
    for tenant in tenants::list(conn)? {
        let there = actor.reaching(tenant.clone());
        let mut canceling = Canceling::default();
        let mut events = Vec::new();
        for row in scripts::with_text(conn, tenant.id, script_sha256)? {
            if !row.id.name.is_the_providers() || row.redacted.is_some() {
                continue;
            }
            scripts::erase(conn, tenant.id, &row.id, &there.name, now)?;
            let event = Event::by(EventKind::ScriptRedacted, &there).with_script(script_sha256);
            let event = event.detail("script", row.id.name.as_str());
            events.push(event.detail("version", row.id.version));
            for job in scripts::open_jobs(conn, tenant.id, &row.id)? {
                canceling.add_unstarted(conn, &there, job, now)?;
            }
        }
        if !events.is_empty() {
            audit::append(conn, &tenant, now, events)?;
            told.push((there, canceling));
        }
    }
    Ok(told)
}

/// Withdraws what is offered of a script that is archived, in the caller's transaction.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn withdraw_all_of(
    conn: &Connection,
    actor: &Actor,
    script: &ScriptName,
    now: UnixMillis,
) -> Result<(), StoreError> {
    if !is_at_home(actor) {
        return Ok(());
    }
    for offer in offers::list(conn)? {
        if offer.version.name == *script && offers::withdraw(conn, offer.id, now)? {
            record(conn, actor, &offer, EventKind::ScriptOfferWithdrawn, now)?;
        }
    }
    Ok(())
}

/// Whether somebody changes the provider's own library.
fn is_at_home(actor: &Actor) -> bool {
    actor.standing == Standing::Own(TenantKind::Provider)
}

/// The customers that an offer is for.
fn concerned(conn: &Connection, offer: &OfferRow) -> Result<Vec<Tenant>, StoreError> {
    let rows = tenants::rows(conn)?.into_iter();
    let is_concerned = |tenant: &Tenant| offer.tenant.is_none_or(|id| id == tenant.id);
    let customers = rows.filter(|row| row.kind == TenantKind::Customer);
    let found = customers.map(|row| row.tenant).filter(is_concerned);
    Ok(found.collect())
}

/// On the record of the provider, and of each customer that it is for.
fn record(
    conn: &Connection,
    actor: &Actor,
    offer: &OfferRow,
    kind: EventKind,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let event = |who: &Actor| {
        Event::by(kind, who)
            .with_script(offer.script_sha256)
            .detail("offer", offer.id.to_string())
            .detail("script", offer.version.name.as_str())
            .detail("version", offer.version.version)
            .detail("to_all", offer.tenant.is_none())
    };
    let customers = concerned(conn, offer)?;
    match (&offer.tenant, customers.first()) {
        (Some(_), Some(tenant)) => on_both_records(conn, actor, tenant, now, event),
        _ => {
            audit::append(conn, &actor.tenant, now, [event(actor)])?;
            for tenant in customers {
                let there = actor.reaching(tenant.clone());
                audit::append(conn, &tenant, now, [event(&there)])?;
            }
            Ok(())
        }
    }
}
