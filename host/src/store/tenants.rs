//! Tenants, and the revision of their gates.

use sluice_protocol::ids::{HostId, TenantId};
use sqlx::{Row as _, SqliteConnection};

use super::StoreError;
use super::row::{parsed, unsigned};
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
pub async fn create(
    conn: &mut SqliteConnection,
    name: &str,
    now: UnixMillis,
) -> Result<Tenant, StoreError> {
    let tenant = Tenant {
        id: TenantId::generate(),
        name: name.to_owned(),
    };
    sqlx::query("INSERT INTO tenants (id, name, created) VALUES (?, ?, ?)")
        .bind(tenant.id.to_string())
        .bind(name)
        .bind(now.0)
        .execute(conn)
        .await?;
    Ok(tenant)
}

/// The tenant with this id.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn find(conn: &mut SqliteConnection, id: TenantId) -> Result<Option<Tenant>, StoreError> {
    let row = sqlx::query("SELECT name FROM tenants WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(conn)
        .await?;
    Ok(match row {
        Some(row) => Some(Tenant {
            id,
            name: row.try_get("name")?,
        }),
        None => None,
    })
}

/// The tenant with this name.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn find_by_name(
    conn: &mut SqliteConnection,
    name: &str,
) -> Result<Option<Tenant>, StoreError> {
    let row = sqlx::query("SELECT id, name FROM tenants WHERE name = ?")
        .bind(name)
        .fetch_optional(conn)
        .await?;
    row.map(|row| {
        Ok(Tenant {
            id: parsed(&row, "id")?,
            name: row.try_get("name")?,
        })
    })
    .transpose()
}

/// The revision of the tenant's gates.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn gates_revision(
    conn: &mut SqliteConnection,
    tenant: TenantId,
) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT gates_revision FROM tenants WHERE id = ?")
        .bind(tenant.to_string())
        .fetch_one(conn)
        .await?;
    unsigned(&row, "gates_revision")
}

/// Makes the next revision of the tenant's gates, and says which that is.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn next_gates_revision(
    conn: &mut SqliteConnection,
    tenant: TenantId,
) -> Result<u64, StoreError> {
    let row = sqlx::query("UPDATE tenants SET gates_revision = gates_revision + 1 WHERE id = ? RETURNING gates_revision")
        .bind(tenant.to_string())
        .fetch_one(conn)
        .await?;
    unsigned(&row, "gates_revision")
}

/// The host's own id, made by `sluice-host init`.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn host_id(conn: &mut SqliteConnection) -> Result<Option<HostId>, StoreError> {
    let row = sqlx::query("SELECT id FROM host")
        .fetch_optional(conn)
        .await?;
    row.map(|row| parsed(&row, "id")).transpose()
}

/// Records the host's own id.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn set_host_id(
    conn: &mut SqliteConnection,
    id: HostId,
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO host (id, created) VALUES (?, ?)")
        .bind(id.to_string())
        .bind(now.0)
        .execute(conn)
        .await?;
    Ok(())
}
