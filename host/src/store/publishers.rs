//! Whose plugins a tenant takes.

use sluice_database::rusqlite::{Connection, params};
use sluice_protocol::ids::TenantId;

use super::StoreError;
use super::row::{all, change, time};
use crate::clock::UnixMillis;

/// A trusted publisher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublisherRow {
    /// Written `ed25519:<base64>`.
    pub key: String,
    /// Since when.
    pub created: UnixMillis,
    /// The operator who trusted it.
    pub created_by: String,
}

/// Trusts a publisher; says no where it was trusted already.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn insert(
    conn: &Connection,
    tenant: TenantId,
    publisher: &PublisherRow,
) -> Result<bool, StoreError> {
    Ok(change(
        conn,
        "INSERT INTO publishers (tenant, key, created, created_by) VALUES (?, ?, ?, ?)
         ON CONFLICT DO NOTHING",
        params![
            tenant.to_string(),
            &publisher.key,
            publisher.created.0,
            &publisher.created_by,
        ],
    )? == 1)
}

/// Trusts a publisher no more; says no where it was not trusted.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn remove(conn: &Connection, tenant: TenantId, key: &str) -> Result<bool, StoreError> {
    Ok(change(
        conn,
        "DELETE FROM publishers WHERE tenant = ? AND key = ?",
        params![tenant.to_string(), key],
    )? == 1)
}

/// All publishers that a tenant trusts, sorted by key.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn list(conn: &Connection, tenant: TenantId) -> Result<Vec<PublisherRow>, StoreError> {
    all(
        conn,
        "SELECT key, created, created_by FROM publishers WHERE tenant = ? ORDER BY key",
        params![tenant.to_string()],
        |row| {
            Ok(PublisherRow {
                key: row.get("key")?,
                created: time(row, "created")?,
                created_by: row.get("created_by")?,
            })
        },
    )
}
