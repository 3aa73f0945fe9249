//! Operators' tokens. The file holds hashes alone.

use std::str::FromStr as _;

use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::TenantId;
use uuid::Uuid;

use super::StoreError;
use super::row::{
    all, change, exists, first, from_json, parsed, parsed_or_null, time, time_or_null, to_json,
};
use crate::clock::UnixMillis;
use crate::operators::Permission;

/// A token as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Its id, for revoking it.
    pub id: Uuid,
    /// Whose it is.
    pub tenant: TenantId,
    /// The operator's name.
    pub name: String,
    /// What it may do.
    pub permissions: Vec<Permission>,
    /// When it was made.
    pub created: UnixMillis,
    /// After which it is no good.
    pub expires: Option<UnixMillis>,
    /// When it was revoked.
    pub revoked: Option<UnixMillis>,
    /// The token that made it; none for a host's first.
    pub created_by: Option<Uuid>,
}

/// Who made a token, or one that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maker {
    /// The token.
    pub token: Uuid,
    /// The operator's name.
    pub name: String,
}

/// Stores a token; says no where the tenant has one of that name.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn insert(conn: &Connection, token: &TokenRow, secret: Digest) -> Result<bool, StoreError> {
    let words: Vec<&str> = token
        .permissions
        .iter()
        .map(|permission| permission.as_str())
        .collect();
    Ok(change(
        conn,
        "INSERT INTO tokens (id, tenant, name, secret_sha256, permissions, created, expires, created_by)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (tenant, name) WHERE revoked IS NULL DO NOTHING",
        params![
            token.id.to_string(),
            token.tenant.to_string(),
            &token.name,
            secret.as_bytes().as_slice(),
            to_json(&words)?,
            token.created.0,
            token.expires.map(|at| at.0),
            token.created_by.map(|id| id.to_string()),
        ],
    )? == 1)
}

/// The token with this secret, also one that is expired or revoked.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find_by_secret(conn: &Connection, secret: Digest) -> Result<Option<TokenRow>, StoreError> {
    first(
        conn,
        "SELECT * FROM tokens WHERE secret_sha256 = ?",
        params![secret.as_bytes().as_slice()],
        read,
    )
}

/// The tenant's token with this id, also one that is expired or revoked.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find(conn: &Connection, tenant: TenantId, id: Uuid) -> Result<Option<TokenRow>, StoreError> {
    first(
        conn,
        "SELECT * FROM tokens WHERE tenant = ? AND id = ?",
        params![tenant.to_string(), id.to_string()],
        read,
    )
}

/// Whether a token is good now.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn is_good(
    conn: &Connection,
    tenant: TenantId,
    id: Uuid,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    exists(
        conn,
        "SELECT 1 FROM tokens WHERE tenant = ? AND id = ? AND revoked IS NULL
             AND (expires IS NULL OR expires > ?)",
        params![tenant.to_string(), id.to_string(), now.0],
    )
}

/// Who made a token, who made theirs, and so on, whether those are good or not.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn makers(conn: &Connection, tenant: TenantId, id: Uuid) -> Result<Vec<Maker>, StoreError> {
    all(
        conn,
        "WITH RECURSIVE maker (id) AS (
             SELECT created_by FROM tokens WHERE tenant = ?1 AND id = ?2
             UNION SELECT t.created_by FROM tokens t JOIN maker m ON t.id = m.id WHERE t.tenant = ?1
         )
         SELECT t.id AS id, t.name AS name FROM tokens t JOIN maker m ON t.id = m.id WHERE t.tenant = ?1",
        params![tenant.to_string(), id.to_string()],
        |row| {
            Ok(Maker {
                token: parsed(row, "id")?,
                name: row.get("name")?,
            })
        },
    )
}

/// All tokens of a tenant, the oldest first.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn list(conn: &Connection, tenant: TenantId) -> Result<Vec<TokenRow>, StoreError> {
    all(
        conn,
        "SELECT * FROM tokens WHERE tenant = ? ORDER BY created, id",
        params![tenant.to_string()],
        read,
    )
}

/// Revokes a token that is not revoked yet, and gives its operator's name.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn revoke(
    conn: &Connection,
    tenant: TenantId,
    id: Uuid,
    now: UnixMillis,
) -> Result<Option<String>, StoreError> {
    first(
        conn,
        "UPDATE tokens SET revoked = ? WHERE tenant = ? AND id = ? AND revoked IS NULL RETURNING name",
        params![now.0, tenant.to_string(), id.to_string()],
        |row| Ok(row.get("name")?),
    )
}

fn read(row: &Row<'_>) -> Result<TokenRow, StoreError> {
    let words: Vec<String> = from_json(row, "permissions")?;
    let permissions = words
        .iter()
        .map(|word| {
            Permission::from_str(word).map_err(|error| StoreError::Corrupt(error.to_string()))
        })
        .collect::<Result<_, _>>()?;
    Ok(TokenRow {
        id: parsed(row, "id")?,
        tenant: parsed(row, "tenant")?,
        name: row.get("name")?,
        permissions,
        created: time(row, "created")?,
        expires: time_or_null(row, "expires")?,
        revoked: time_or_null(row, "revoked")?,
        created_by: parsed_or_null(row, "created_by")?,
    })
}
