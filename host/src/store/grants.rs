//! What operators of the provider may do in other tenants.

use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::ids::TenantId;
use uuid::Uuid;

use super::StoreError;
use super::row::{all, change, exists, first, from_json, parsed, time, time_or_null, to_json};
use crate::clock::UnixMillis;

/// A grant as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantRow {
    /// Its id.
    pub id: Uuid,
    /// In which tenant.
    pub tenant: TenantId,
    /// To which operator of the provider.
    pub operator: Uuid,
    /// Names of roles: shipped ones, and the provider's own.
    pub roles: Vec<String>,
    /// When it was given.
    pub created: UnixMillis,
    /// Which operator gave it.
    pub created_by: String,
    /// When it ends by itself.
    pub expires: Option<UnixMillis>,
    /// When it was revoked.
    pub revoked: Option<UnixMillis>,
}

impl GrantRow {
    /// Whether it is in force.
    #[must_use]
    pub fn is_good(&self, now: UnixMillis) -> bool {
        self.revoked.is_none() && self.expires.is_none_or(|end| end > now)
    }
}

/// Stores a grant.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn insert(conn: &Connection, grant: &GrantRow) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT INTO grants (id, tenant, operator, roles, created, created_by, expires) VALUES (?, ?, ?, ?, ?, ?, ?)",
        params![
            grant.id.to_string(),
            grant.tenant.to_string(),
            grant.operator.to_string(),
            to_json(&grant.roles)?,
            grant.created.0,
            &grant.created_by,
            grant.expires.map(|at| at.0),
        ],
    )?;
    Ok(())
}

/// The grant with this id, also one that is over.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find(conn: &Connection, id: Uuid) -> Result<Option<GrantRow>, StoreError> {
    first(
        conn,
        "SELECT * FROM grants WHERE id = ?",
        params![id.to_string()],
        read,
    )
}

/// The one grant of an operator in a tenant that is in force now.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn good(
    conn: &Connection,
    tenant: TenantId,
    operator: Uuid,
    now: UnixMillis,
) -> Result<Option<GrantRow>, StoreError> {
    first(
        conn,
        "SELECT * FROM grants WHERE tenant = ? AND operator = ? AND revoked IS NULL AND (expires IS NULL OR expires > ?)
         ORDER BY created DESC LIMIT 1",
        params![tenant.to_string(), operator.to_string(), now.0],
        read,
    )
}

/// Whether a grant gets anybody in now: it is in force, and the tenant lets the provider in.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn lets_in(conn: &Connection, id: Uuid, now: UnixMillis) -> Result<bool, StoreError> {
    exists(
        conn,
        "SELECT 1 FROM grants g JOIN tenants t ON t.id = g.tenant
         WHERE g.id = ? AND g.revoked IS NULL AND (g.expires IS NULL OR g.expires > ?) AND t.provider_denied IS NULL",
        params![id.to_string(), now.0],
    )
}

/// The grants in a tenant, or in all, the oldest first.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn list(conn: &Connection, tenant: Option<TenantId>) -> Result<Vec<GrantRow>, StoreError> {
    match tenant {
        Some(tenant) => all(
            conn,
            "SELECT * FROM grants WHERE tenant = ? ORDER BY created, id",
            params![tenant.to_string()],
            read,
        ),
        None => all(
            conn,
            "SELECT * FROM grants ORDER BY created, id",
            params![],
            read,
        ),
    }
}

/// The grants of an operator that were not revoked.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn of_operator(conn: &Connection, operator: Uuid) -> Result<Vec<GrantRow>, StoreError> {
    all(
        conn,
        "SELECT * FROM grants WHERE operator = ? AND revoked IS NULL ORDER BY created, id",
        params![operator.to_string()],
        read,
    )
}

/// Whether a role of the provider's own stands in a grant that was not revoked.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn is_role_in_use(conn: &Connection, role: &str) -> Result<bool, StoreError> {
    exists(
        conn,
        "SELECT 1 FROM grants g, json_each(g.roles) r WHERE g.revoked IS NULL AND r.value = ?",
        params![role],
    )
}

/// Revokes a grant; says no where that is done.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn revoke(conn: &Connection, id: Uuid, now: UnixMillis) -> Result<bool, StoreError> {
    Ok(change(
        conn,
        "UPDATE grants SET revoked = ? WHERE id = ? AND revoked IS NULL",
        params![now.0, id.to_string()],
    )? == 1)
}

fn read(row: &Row<'_>) -> Result<GrantRow, StoreError> {
    Ok(GrantRow {
        id: parsed(row, "id")?,
        tenant: parsed(row, "tenant")?,
        operator: parsed(row, "operator")?,
        roles: from_json(row, "roles")?,
        created: time(row, "created")?,
        created_by: row.get("created_by")?,
        expires: time_or_null(row, "expires")?,
        revoked: time_or_null(row, "revoked")?,
    })
}
