//! Whose plugins a tenant takes.

use sluice_protocol::ids::TenantId;
use sqlx::{Row as _, SqliteConnection};

use super::StoreError;
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
pub async fn insert(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    publisher: &PublisherRow,
) -> Result<bool, StoreError> {
    let done = sqlx::query("INSERT INTO publishers (tenant, key, created, created_by) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING")
        .bind(tenant.to_string())
        .bind(&publisher.key)
        .bind(publisher.created.0)
        .bind(&publisher.created_by)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Trusts a publisher no more; says no where it was not trusted.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn remove(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    key: &str,
) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM publishers WHERE tenant = ? AND key = ?")
        .bind(tenant.to_string())
        .bind(key)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// All publishers that a tenant trusts, sorted by key.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn list(
    conn: &mut SqliteConnection,
    tenant: TenantId,
) -> Result<Vec<PublisherRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT key, created, created_by FROM publishers WHERE tenant = ? ORDER BY key",
    )
    .bind(tenant.to_string())
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(PublisherRow {
                key: row.try_get("key")?,
                created: UnixMillis(row.try_get("created")?),
                created_by: row.try_get("created_by")?,
            })
        })
        .collect()
}
