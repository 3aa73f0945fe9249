//! Operators' tokens. The file holds hashes alone.

use std::str::FromStr as _;

use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::TenantId;
use uuid::Uuid;

use super::StoreError;
use super::row::{
    all, change, first, from_json, parsed, parsed_or_null, time, time_or_null, to_json,
};
use crate::clock::UnixMillis;
use crate::operators::{Grants, Permission, Permissions};

/// A token as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Its id, for revoking it.
    pub id: Uuid,
    /// Whose it is.
    pub tenant: TenantId,
    /// Who acts by it.
    pub operator: Uuid,
    /// Its name, unique among the tenant's tokens that are not revoked.
    pub name: String,
    /// What it leaves of what its operator may do; everything where there is none.
    pub only: Option<Grants>,
    /// When it was made.
    pub created: UnixMillis,
    /// After which it is no good.
    pub expires: Option<UnixMillis>,
    /// When it was revoked.
    pub revoked: Option<UnixMillis>,
    /// The token that made it; none for a host's first.
    pub created_by: Option<Uuid>,
    /// The grant by which it was made, itself or the token that made it: it is good as long as that is. None for what the
    /// tenant's own operators made by tokens of their own.
    pub made_by_grant: Option<Uuid>,
}

/// Who made a token, or one that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maker {
    /// The token.
    pub token: Uuid,
    /// Whose it is.
    pub operator: Uuid,
    /// The operator's name.
    pub name: String,
}

/// Stores a token; says no where the tenant has one of that name.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn insert(conn: &Connection, token: &TokenRow, secret: Digest) -> Result<bool, StoreError> {
    let only = token.only.as_ref();
    Ok(change(
        conn,
        "INSERT INTO tokens (id, tenant, operator, name, secret_sha256, only_permissions, only_roles, created, expires,
                             created_by, made_by_grant)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (tenant, name) WHERE revoked IS NULL DO NOTHING",
        params![
            token.id.to_string(),
            token.tenant.to_string(),
            token.operator.to_string(),
            &token.name,
            secret.as_bytes().as_slice(),
            permissions_to_json(only.and_then(|only| only.permissions))?,
            only.map(|only| to_json(&only.roles)).transpose()?,
            token.created.0,
            token.expires.map(|at| at.0),
            token.created_by.map(|id| id.to_string()),
            token.made_by_grant.map(|id| id.to_string()),
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

/// The token with this id by which somebody acts in a tenant: the tenant's own, or the provider's.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find_here_or_provider(
    conn: &Connection,
    tenant: TenantId,
    id: Uuid,
) -> Result<Option<TokenRow>, StoreError> {
    first(
        conn,
        "SELECT t.* FROM tokens t JOIN tenants n ON n.id = t.tenant
         WHERE t.id = ?2 AND (t.tenant = ?1 OR n.provider = 1)",
        params![tenant.to_string(), id.to_string()],
        read,
    )
}

/// The operator of the provider who stands behind a token by which somebody acts in a tenant: whose it is, or by whose grant
/// it was made. None for a token of the tenant's own.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn provider_behind(
    conn: &Connection,
    tenant: TenantId,
    id: Uuid,
) -> Result<Option<Uuid>, StoreError> {
    let behind = first(
        conn,
        "SELECT CASE WHEN n.provider = 1 THEN t.operator ELSE g.operator END AS operator
         FROM tokens t JOIN tenants n ON n.id = t.tenant LEFT JOIN grants g ON g.id = t.made_by_grant
         WHERE t.id = ?2 AND (t.tenant = ?1 OR n.provider = 1)",
        params![tenant.to_string(), id.to_string()],
        |row| parsed_or_null(row, "operator"),
    )?;
    Ok(behind.flatten())
}

/// Who made a token by which somebody acts in a tenant, who made theirs, and so on, whether those are good or not. A token is
/// made by another of its tenant, or by one of the provider's, which is called there as on the tenant's record.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn makers(conn: &Connection, tenant: TenantId, id: Uuid) -> Result<Vec<Maker>, StoreError> {
    all(
        conn,
        "WITH RECURSIVE here (tenant) AS (
             SELECT id FROM tenants WHERE id = ?1 OR provider = 1
         ), maker (id) AS (
             SELECT created_by FROM tokens WHERE tenant IN here AND id = ?2
             UNION SELECT t.created_by FROM tokens t JOIN maker m ON t.id = m.id WHERE t.tenant IN here
         )
         SELECT t.id AS id, o.id AS operator,
             CASE WHEN t.tenant = ?1 THEN o.name ELSE 'provider/' || o.name END AS name
             FROM tokens t JOIN maker m ON t.id = m.id
             JOIN operators o ON o.id = t.operator
         WHERE t.tenant IN here",
        params![tenant.to_string(), id.to_string()],
        |row| {
            Ok(Maker {
                token: parsed(row, "id")?,
                operator: parsed(row, "operator")?,
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

/// Revokes a token that is not revoked yet, and gives its row as it was.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn revoke(
    conn: &Connection,
    tenant: TenantId,
    id: Uuid,
    now: UnixMillis,
) -> Result<Option<TokenRow>, StoreError> {
    let found = find(conn, tenant, id)?.filter(|row| row.revoked.is_none());
    if found.is_some() {
        change(
            conn,
            "UPDATE tokens SET revoked = ? WHERE tenant = ? AND id = ?",
            params![now.0, tenant.to_string(), id.to_string()],
        )?;
    }
    Ok(found)
}

/// Revokes all tokens of an operator that are not revoked yet.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn revoke_all_of(
    conn: &Connection,
    tenant: TenantId,
    operator: Uuid,
    now: UnixMillis,
) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE tokens SET revoked = ? WHERE tenant = ? AND operator = ? AND revoked IS NULL",
        params![now.0, tenant.to_string(), operator.to_string()],
    )?;
    Ok(())
}

fn read(row: &Row<'_>) -> Result<TokenRow, StoreError> {
    let permissions = permissions_from_json(row, "only_permissions")?;
    let roles = match row.get::<_, Option<String>>("only_roles")? {
        Some(_) => Some(from_json::<Vec<String>>(row, "only_roles")?),
        None => None,
    };
    let only = (permissions.is_some() || roles.is_some()).then(|| Grants {
        roles: roles.unwrap_or_default(),
        permissions,
    });
    Ok(TokenRow {
        id: parsed(row, "id")?,
        tenant: parsed(row, "tenant")?,
        operator: parsed(row, "operator")?,
        name: row.get("name")?,
        only,
        created: time(row, "created")?,
        expires: time_or_null(row, "expires")?,
        revoked: time_or_null(row, "revoked")?,
        created_by: parsed_or_null(row, "created_by")?,
        made_by_grant: parsed_or_null(row, "made_by_grant")?,
    })
}

/// The JSON of a list of permissions, where there is one.
pub(super) fn permissions_to_json(
    permissions: Option<Permissions>,
) -> Result<Option<String>, StoreError> {
    permissions.map(|set| to_json(&set.words())).transpose()
}

/// The list of permissions that a column holds, where it holds one.
pub(super) fn permissions_from_json(
    row: &Row<'_>,
    column: &'static str,
) -> Result<Option<Permissions>, StoreError> {
    if row.get::<_, Option<String>>(column)?.is_none() {
        return Ok(None);
    }
    let words: Vec<String> = from_json(row, column)?;
    let parsed = words.iter().map(|word| Permission::from_str(word));
    let set: Result<Permissions, _> = parsed.collect();
    set.map(Some)
        .map_err(|error| StoreError::Corrupt(error.to_string()))
}
