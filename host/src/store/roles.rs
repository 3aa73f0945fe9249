//! A tenant's own roles.

use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::ids::TenantId;
use uuid::Uuid;

use super::StoreError;
use super::row::{all, change, first, parsed, time, unsigned};
use crate::clock::UnixMillis;

/// A role as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleRow {
    /// Its id. A role that was removed and made again has another.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its policies, in Cedar.
    pub policy: String,
    /// Grows with every change.
    pub revision: u64,
    /// When it was changed last.
    pub changed: UnixMillis,
    /// The operator who did.
    pub changed_by: String,
}

/// Makes a role, or gives one of this name other policies.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn put(
    conn: &Connection,
    tenant: TenantId,
    name: &str,
    policy: &str,
    by: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT INTO roles (id, tenant, name, policy, revision, changed, changed_by) VALUES (?, ?, ?, ?, 1, ?, ?)
         ON CONFLICT (tenant, name) DO UPDATE SET policy = excluded.policy, revision = revision + 1,
             changed = excluded.changed, changed_by = excluded.changed_by",
        params![
            Uuid::now_v7().to_string(),
            tenant.to_string(),
            name,
            policy,
            now.0,
            by
        ],
    )?;
    Ok(())
}

/// The tenant's role of this name.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find(
    conn: &Connection,
    tenant: TenantId,
    name: &str,
) -> Result<Option<RoleRow>, StoreError> {
    first(
        conn,
        "SELECT * FROM roles WHERE tenant = ? AND name = ?",
        params![tenant.to_string(), name],
        read,
    )
}

/// Which role that is, and in which revision, without its text.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn revision(
    conn: &Connection,
    tenant: TenantId,
    name: &str,
) -> Result<Option<(Uuid, u64)>, StoreError> {
    first(
        conn,
        "SELECT id, revision FROM roles WHERE tenant = ? AND name = ?",
        params![tenant.to_string(), name],
        |row| Ok((parsed(row, "id")?, unsigned(row, "revision")?)),
    )
}

/// The tenant's roles, by name.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn list(conn: &Connection, tenant: TenantId) -> Result<Vec<RoleRow>, StoreError> {
    all(
        conn,
        "SELECT * FROM roles WHERE tenant = ? ORDER BY name",
        params![tenant.to_string()],
        read,
    )
}

/// Removes a role.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn remove(conn: &Connection, tenant: TenantId, name: &str) -> Result<(), StoreError> {
    change(
        conn,
        "DELETE FROM roles WHERE tenant = ? AND name = ?",
        params![tenant.to_string(), name],
    )?;
    Ok(())
}

fn read(row: &Row<'_>) -> Result<RoleRow, StoreError> {
    Ok(RoleRow {
        id: parsed(row, "id")?,
        name: row.get("name")?,
        policy: row.get("policy")?,
        revision: unsigned(row, "revision")?,
        changed: time(row, "changed")?,
        changed_by: row.get("changed_by")?,
    })
}
