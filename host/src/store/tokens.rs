//! Operators' tokens. The file holds hashes alone.

use std::str::FromStr as _;

use sluice_protocol::digest::Digest;
use sluice_protocol::ids::TenantId;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use uuid::Uuid;

use super::StoreError;
use super::row::{parsed, to_json};
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
}

/// Stores a token; says no where the tenant has one of that name.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn insert(
    conn: &mut SqliteConnection,
    token: &TokenRow,
    secret: Digest,
) -> Result<bool, StoreError> {
    let words: Vec<&str> = token
        .permissions
        .iter()
        .map(|permission| permission.as_str())
        .collect();
    let done = sqlx::query(
        "INSERT INTO tokens (id, tenant, name, secret_sha256, permissions, created, expires) VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (tenant, name) WHERE revoked IS NULL DO NOTHING",
    )
    .bind(token.id.to_string())
    .bind(token.tenant.to_string())
    .bind(&token.name)
    .bind(secret.as_bytes().as_slice())
    .bind(to_json(&words)?)
    .bind(token.created.0)
    .bind(token.expires.map(|at| at.0))
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The token with this secret, also one that is expired or revoked.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn find_by_secret(
    conn: &mut SqliteConnection,
    secret: Digest,
) -> Result<Option<TokenRow>, StoreError> {
    let row = sqlx::query("SELECT * FROM tokens WHERE secret_sha256 = ?")
        .bind(secret.as_bytes().as_slice())
        .fetch_optional(conn)
        .await?;
    row.map(|row| read(&row)).transpose()
}

/// Whether a token is good now.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn is_good(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    id: Uuid,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM tokens WHERE tenant = ? AND id = ? AND revoked IS NULL AND (expires IS NULL OR expires > ?)")
        .bind(tenant.to_string())
        .bind(id.to_string())
        .bind(now.0)
        .fetch_optional(conn)
        .await?;
    Ok(row.is_some())
}

/// All tokens of a tenant, the oldest first.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn list(
    conn: &mut SqliteConnection,
    tenant: TenantId,
) -> Result<Vec<TokenRow>, StoreError> {
    let rows = sqlx::query("SELECT * FROM tokens WHERE tenant = ? ORDER BY created, id")
        .bind(tenant.to_string())
        .fetch_all(conn)
        .await?;
    rows.iter().map(read).collect()
}

/// Revokes a token that is not revoked yet, and gives its operator's name.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn revoke(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    id: Uuid,
    now: UnixMillis,
) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("UPDATE tokens SET revoked = ? WHERE tenant = ? AND id = ? AND revoked IS NULL RETURNING name")
        .bind(now.0)
        .bind(tenant.to_string())
        .bind(id.to_string())
        .fetch_optional(conn)
        .await?;
    Ok(row.map(|row| row.try_get("name")).transpose()?)
}

fn read(row: &SqliteRow) -> Result<TokenRow, StoreError> {
    let words: Vec<String> = super::row::from_json(row, "permissions")?;
    let permissions = words
        .iter()
        .map(|word| {
            Permission::from_str(word).map_err(|error| StoreError::Corrupt(error.to_string()))
        })
        .collect::<Result<_, _>>()?;
    Ok(TokenRow {
        id: parsed(row, "id")?,
        tenant: parsed(row, "tenant")?,
        name: row.try_get("name")?,
        permissions,
        created: UnixMillis(row.try_get("created")?),
        expires: row.try_get::<Option<i64>, _>("expires")?.map(UnixMillis),
        revoked: row.try_get::<Option<i64>, _>("revoked")?.map(UnixMillis),
    })
}
