//! Secrets, the keys that they are sealed to, and sealed values that are on their way.

use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::ids::{MachineId, OperationId, TenantId};
use sluice_protocol::secret::Sealed;

use super::StoreError;
use super::row::{
    all, bytes, bytes_or_null, change, exists, first, signed, time, time_or_null, unsigned,
};
use crate::clock::UnixMillis;

/// A secret. Its value is encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRow {
    /// Its name, unique in the tenant.
    pub name: String,
    /// Counted from 1: each value has its own.
    pub version: u64,
    /// The encrypted value; none once it was revoked.
    pub value: Option<Vec<u8>>,
    /// When the name was first used.
    pub created: UnixMillis,
    /// When this version was made.
    pub changed: UnixMillis,
    /// The operator who made it.
    pub changed_by: String,
    /// When it was revoked.
    pub revoked: Option<UnixMillis>,
}

/// The secret with this name, revoked or not.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find(
    conn: &Connection,
    tenant: TenantId,
    name: &str,
) -> Result<Option<SecretRow>, StoreError> {
    first(
        conn,
        "SELECT * FROM secrets WHERE tenant = ? AND name = ?",
        params![tenant.to_string(), name],
        read,
    )
}

/// All of them, by name.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn list(conn: &Connection, tenant: TenantId) -> Result<Vec<SecretRow>, StoreError> {
    all(
        conn,
        "SELECT * FROM secrets WHERE tenant = ? ORDER BY name",
        params![tenant.to_string()],
        read,
    )
}

/// Whether there is any value, of any tenant.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn any_value(conn: &Connection) -> Result<bool, StoreError> {
    exists(
        conn,
        "SELECT 1 FROM secrets WHERE value IS NOT NULL LIMIT 1",
        params![],
    )
}

/// Stores a secret, in place of the one with its name where there is one.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn put(conn: &Connection, tenant: TenantId, row: &SecretRow) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT OR REPLACE INTO secrets (tenant, name, version, value, created, changed, changed_by, revoked)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            tenant.to_string(),
            &row.name,
            signed(row.version),
            &row.value,
            row.created.0,
            row.changed.0,
            &row.changed_by,
            row.revoked.map(|at| at.0),
        ],
    )?;
    Ok(())
}

/// Erases what is on its way of a secret.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn erase_sealed(conn: &Connection, tenant: TenantId, name: &str) -> Result<(), StoreError> {
    change(
        conn,
        "DELETE FROM operation_secrets WHERE tenant = ? AND name = ?",
        params![tenant.to_string(), name],
    )?;
    Ok(())
}

/// Keeps a value for an operation until that ends.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn insert_sealed(
    conn: &Connection,
    tenant: TenantId,
    operation: OperationId,
    sealed: &Sealed,
) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT INTO operation_secrets (operation, name, tenant, sealed) VALUES (?, ?, ?, ?)",
        params![
            operation.to_string(),
            &sealed.name,
            tenant.to_string(),
            &sealed.bytes,
        ],
    )?;
    Ok(())
}

/// What is kept for an operation.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn sealed_of(
    conn: &Connection,
    tenant: TenantId,
    operation: OperationId,
) -> Result<Vec<Sealed>, StoreError> {
    all(
        conn,
        "SELECT name, sealed FROM operation_secrets WHERE tenant = ? AND operation = ? ORDER BY name",
        params![tenant.to_string(), operation.to_string()],
        |row| {
            Ok(Sealed {
                name: row.get("name")?,
                bytes: bytes(row, "sealed")?.to_vec(),
            })
        },
    )
}

/// The key that values for a machine are sealed to; none before it was connected.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn sealing_key(
    conn: &Connection,
    tenant: TenantId,
    machine: MachineId,
) -> Result<Option<Vec<u8>>, StoreError> {
    first(
        conn,
        "SELECT k.key FROM machine_sealing_keys k JOIN machines m ON m.id = k.machine
         WHERE m.tenant = ? AND m.id = ?",
        params![tenant.to_string(), machine.to_string()],
        |row| Ok(bytes(row, "key")?.to_vec()),
    )
}

/// Keeps the key of a machine.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn set_sealing_key(
    conn: &Connection,
    machine: MachineId,
    key: &[u8],
) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT OR REPLACE INTO machine_sealing_keys (machine, key) VALUES (?, ?)",
        params![machine.to_string(), key],
    )?;
    Ok(())
}

fn read(row: &Row<'_>) -> Result<SecretRow, StoreError> {
    Ok(SecretRow {
        name: row.get("name")?,
        version: unsigned(row, "version")?,
        value: bytes_or_null(row, "value")?.map(<[u8]>::to_vec),
        created: time(row, "created")?,
        changed: time(row, "changed")?,
        changed_by: row.get("changed_by")?,
        revoked: time_or_null(row, "revoked")?,
    })
}
