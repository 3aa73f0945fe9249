//! Whose plugins a tenant takes.

use sluice_gate_types::signature::{InvalidKey, PublicKey};

use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::operators::Actor;
use crate::store::publishers::{self, PublisherRow};
use crate::store::{StoreError, tenants};

/// Trusts a publisher. Machines that have pinned an earlier list keep that.
///
/// # Errors
///
/// The text is no key.
pub async fn trust(
    host: &SharedHost,
    actor: &Actor,
    key: &str,
    now: UnixMillis,
) -> Result<PublisherRow, TrustError> {
    let key: PublicKey = key.parse()?;
    let publisher = PublisherRow {
        key: key.to_string(),
        created: now,
        created_by: actor.name.clone(),
    };
    let (row, asked) = (publisher.clone(), actor.clone());
    let new = host
        .store
        .write(move |conn| {
            let new = publishers::insert(conn, asked.tenant.id, &row)?;
            if new {
                tenants::next_gates_revision(conn, asked.tenant.id)?;
                let event =
                    Event::by(EventKind::PublisherTrusted, &asked).detail("publisher", row.key);
                audit::append(conn, &asked.tenant, now, [event])?;
            }
            Ok::<_, StoreError>(new)
        })
        .await?;
    if new {
        super::announce(host, &actor.tenant)?;
    }
    Ok(publisher)
}

/// Trusts a publisher no more. What it has signed stays installed and bound, nothing new of it is taken, and neither host nor
/// machines ask its gates: operations that an enforcing one of them would have checked are blocked until it is unbound.
///
/// # Errors
///
/// It was not trusted.
pub async fn untrust(
    host: &SharedHost,
    actor: &Actor,
    key: &str,
    now: UnixMillis,
) -> Result<(), TrustError> {
    let key: PublicKey = key.parse()?;
    let asked = actor.clone();
    host.store
        .write(move |conn| {
            if !publishers::remove(conn, asked.tenant.id, &key.to_string())? {
                return Err(TrustError::NotTrusted(key));
            }
            tenants::next_gates_revision(conn, asked.tenant.id)?;
            let event = Event::by(EventKind::PublisherUntrusted, &asked)
                .detail("publisher", key.to_string());
            audit::append(conn, &asked.tenant, now, [event])?;
            Ok(())
        })
        .await?;
    super::announce(host, &actor.tenant)?;
    Ok(())
}

/// Trust was not changed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// No key.
    #[error(transparent)]
    Key(#[from] InvalidKey),
    /// Not on the list.
    #[error("the publisher {0} is not trusted, so there is nothing to take back")]
    NotTrusted(PublicKey),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
