//! Tenants, and the revision of their gates.

use sluice_database::rusqlite::{Connection, params};
use sluice_protocol::ids::{HostId, TenantId};

use super::StoreError;
use super::row::{all, change, first, only, parsed, unsigned};
use crate::clock::UnixMillis;

/// The name of the tenant that every host has from the start.
pub const DEFAULT: &str = "default";

/// A customer of the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name.
    pub name: String,
}

/// Creates a tenant.
///
/// # Errors
///
/// Where the name is taken.
pub fn create(conn: &Connection, name: &str, now: UnixMillis) -> Result<Tenant, StoreError> {
    let tenant = Tenant {
        id: TenantId::generate(),
        name: name.to_owned(),
    };
    change(
        conn,
        "INSERT INTO tenants (id, name, created) VALUES (?, ?, ?)",
        params![tenant.id.to_string(), name, now.0],
    )?;
    Ok(tenant)
}

/// The tenant with this id.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find(conn: &Connection, id: TenantId) -> Result<Option<Tenant>, StoreError> {
    first(
        conn,
        "SELECT name FROM tenants WHERE id = ?",
        params![id.to_string()],
        |row| {
            Ok(Tenant {
                id,
                name: row.get("name")?,
            })
        },
    )
}

/// The tenant with this name.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find_by_name(conn: &Connection, name: &str) -> Result<Option<Tenant>, StoreError> {
    first(
        conn,
        "SELECT id, name FROM tenants WHERE name = ?",
        params![name],
        |row| {
            Ok(Tenant {
                id: parsed(row, "id")?,
                name: row.get("name")?,
            })
        },
    )
}

/// All tenants.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn list(conn: &Connection) -> Result<Vec<Tenant>, StoreError> {
    all(
        conn,
        "SELECT id, name FROM tenants ORDER BY name",
        [],
        |row| {
            Ok(Tenant {
                id: parsed(row, "id")?,
                name: row.get("name")?,
            })
        },
    )
}

/// The revision of the tenant's gates.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn gates_revision(conn: &Connection, tenant: TenantId) -> Result<u64, StoreError> {
    only(
        conn,
        "SELECT gates_revision FROM tenants WHERE id = ?",
        params![tenant.to_string()],
        |row| unsigned(row, "gates_revision"),
    )
}

/// Makes the next revision of the tenant's gates, and says which that is.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn next_gates_revision(conn: &Connection, tenant: TenantId) -> Result<u64, StoreError> {
    only(
        conn,
        "UPDATE tenants SET gates_revision = gates_revision + 1 WHERE id = ? RETURNING gates_revision",
        params![tenant.to_string()],
        |row| unsigned(row, "gates_revision"),
    )
}

/// Goes on with numbers for gates that no machine has seen yet, for all tenants: this database is older than what it has given
/// out.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn skip_gates_revisions(conn: &Connection) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE tenants SET gates_revision = gates_revision + 1000000",
        [],
    )?;
    Ok(())
}

/// The host's own id, made by `sluice-host init`.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn host_id(conn: &Connection) -> Result<Option<HostId>, StoreError> {
    first(conn, "SELECT id FROM host", [], |row| parsed(row, "id"))
}

/// Records the host's own id.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn set_host_id(conn: &Connection, id: HostId, now: UnixMillis) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT INTO host (id, created) VALUES (?, ?)",
        params![id.to_string(), now.0],
    )?;
    Ok(())
}
