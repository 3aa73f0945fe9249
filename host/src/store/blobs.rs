//! Which big bytes a tenant has. The bytes themselves are files, see [`crate::blobs`].

use sluice_database::rusqlite::{Connection, params};
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::TenantId;

use super::StoreError;
use super::row::{change, first, signed, unsigned};
use crate::clock::UnixMillis;

/// Records that the tenant has these bytes.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn insert(
    conn: &Connection,
    tenant: TenantId,
    sha256: Digest,
    size: u64,
    now: UnixMillis,
) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT INTO blobs (tenant, sha256, size, created) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        params![tenant.to_string(), sha256.to_string(), signed(size), now.0],
    )?;
    Ok(())
}

/// The size of the tenant's blob.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn size(
    conn: &Connection,
    tenant: TenantId,
    sha256: Digest,
) -> Result<Option<u64>, StoreError> {
    first(
        conn,
        "SELECT size FROM blobs WHERE tenant = ? AND sha256 = ?",
        params![tenant.to_string(), sha256.to_string()],
        |row| unsigned(row, "size"),
    )
}
