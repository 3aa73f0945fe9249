//! Which big bytes a tenant has. The bytes themselves are files, see [`crate::blobs`].

use sluice_protocol::digest::Digest;
use sluice_protocol::ids::TenantId;
use sqlx::SqliteConnection;

use super::StoreError;
use super::row::{signed, unsigned};
use crate::clock::UnixMillis;

/// Records that the tenant has these bytes.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn insert(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    sha256: Digest,
    size: u64,
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO blobs (tenant, sha256, size, created) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING")
        .bind(tenant.to_string())
        .bind(sha256.to_string())
        .bind(signed(size))
        .bind(now.0)
        .execute(conn)
        .await?;
    Ok(())
}

/// The size of the tenant's blob.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn size(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    sha256: Digest,
) -> Result<Option<u64>, StoreError> {
    let row = sqlx::query("SELECT size FROM blobs WHERE tenant = ? AND sha256 = ?")
        .bind(tenant.to_string())
        .bind(sha256.to_string())
        .fetch_optional(conn)
        .await?;
    row.map(|row| unsigned(&row, "size")).transpose()
}
