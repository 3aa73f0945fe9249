//! Setting, rotating and revoking.

use std::sync::Arc;

use sluice_protocol::secret::{self, SecretNameError, SecretValueError};
use zeroize::Zeroizing;

use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::operators::Actor;
use crate::random::NoRandomness;
use crate::store::secrets::{self, SecretRow};
use crate::store::{Connection, StoreError};

/// The most secrets of a tenant, revoked ones counted.
const MOST: usize = 1000;

/// What is meant by a new value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Whether there is a secret of this name or not.
    Set,
    /// In place of the one that there is.
    Rotate,
}

/// Gives a secret a new value, which jobs get that are submitted from now on.
///
/// # Errors
///
/// The name or the value cannot be a secret's, or there is nothing to rotate.
pub async fn set(
    host: &SharedHost,
    actor: &Actor,
    name: &str,
    value: Zeroizing<Vec<u8>>,
    change: Change,
    now: UnixMillis,
) -> Result<SecretRow, ChangeSecretError> {
    secret::check_name(name)?;
    secret::check_value(&value)?;
    let (key, actor, name) = (Arc::clone(&host.secrets), actor.clone(), name.to_owned());
    host.store
        .write(move |conn| {
            let tenant = actor.tenant.id;
            let there = secrets::find(conn, tenant, &name)?;
            let live = there.as_ref().filter(|row| row.revoked.is_none());
            let kind = match (live, change) {
                (None, Change::Rotate) => return Err(ChangeSecretError::NoSecret(name)),
                (None, Change::Set) => EventKind::SecretSet,
                (Some(_), _) => EventKind::SecretRotated,
            };
            if there.is_none() && secrets::list(conn, tenant)?.len() >= MOST {
                return Err(ChangeSecretError::TooMany);
            }
            // Counted on for a name that was used before, so that nothing that was encrypted for it can come back.
            let version = there.as_ref().map_or(0, |row| row.version) + 1;
            let row = SecretRow {
                value: Some(key.encrypt(tenant, &name, version, &value)?),
                version,
                created: there.map_or(now, |row| row.created),
                changed: now,
                changed_by: actor.name.clone(),
                revoked: None,
                name,
            };
            record(conn, &actor, kind, &row, now)?;
            Ok(row)
        })
        .await
}

/// Erases the value of a secret, also where it is on its way to a machine. What a machine has, it has.
///
/// # Errors
///
/// There is none.
pub async fn revoke(
    host: &SharedHost,
    actor: &Actor,
    name: &str,
    now: UnixMillis,
) -> Result<(), ChangeSecretError> {
    let (actor, name) = (actor.clone(), name.to_owned());
    host.store
        .write(move |conn| {
            let tenant = actor.tenant.id;
            let there = secrets::find(conn, tenant, &name)?;
            let Some(mut row) = there.filter(|row| row.revoked.is_none()) else {
                return Err(ChangeSecretError::NoSecret(name));
            };
            (row.value, row.revoked) = (None, Some(now));
            secrets::erase_sealed(conn, tenant, &name)?;
            record(conn, &actor, EventKind::SecretRevoked, &row, now)
        })
        .await
}

fn record(
    conn: &Connection,
    actor: &Actor,
    kind: EventKind,
    row: &SecretRow,
    now: UnixMillis,
) -> Result<(), ChangeSecretError> {
    secrets::put(conn, actor.tenant.id, row)?;
    let event = Event::by(kind, actor)
        .detail("secret", row.name.as_str())
        .detail("version", row.version);
    audit::append(conn, &actor.tenant, now, [event])?;
    Ok(())
}

/// A secret was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeSecretError {
    /// No name.
    #[error("{0}; nothing was changed")]
    Name(#[from] SecretNameError),
    /// No value.
    #[error("{0}; nothing was changed")]
    Value(#[from] SecretValueError),
    /// None there.
    #[error("there is no secret {}; nothing was changed", .0.escape_debug())]
    NoSecret(String),
    /// More than [`MOST`].
    #[error("a tenant has {MOST} secrets at most, revoked ones counted; nothing was changed")]
    TooMany,
    /// Nothing to encrypt with.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
