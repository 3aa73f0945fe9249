//! Tokens that let machines join. The file holds hashes alone.

use sluice_protocol::digest::Digest;
use sluice_protocol::ids::{TenantId, TokenId};
use sqlx::{Row as _, SqliteConnection};

use super::StoreError;
use super::row::parsed;
use crate::clock::UnixMillis;

/// An enrollment token as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrollTokenRow {
    /// Its public part.
    pub id: TokenId,
    /// The tenant that machines join with it.
    pub tenant: TenantId,
    /// Of the secret part.
    pub secret: Digest,
    /// How many machines may still join.
    pub uses_left: u32,
    /// After which it is no good.
    pub expires: UnixMillis,
    /// The operator who made it.
    pub created_by: String,
}

/// Stores a token.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn insert(
    conn: &mut SqliteConnection,
    token: &EnrollTokenRow,
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO enroll_tokens (id, tenant, secret_sha256, uses_left, expires, created, created_by) VALUES (?, ?, ?, ?, ?, ?, ?)")
        .bind(token.id.to_string())
        .bind(token.tenant.to_string())
        .bind(token.secret.as_bytes().as_slice())
        .bind(token.uses_left)
        .bind(token.expires.0)
        .bind(now.0)
        .bind(&token.created_by)
        .execute(conn)
        .await?;
    Ok(())
}

/// The token with this public part.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn find(
    conn: &mut SqliteConnection,
    id: TokenId,
) -> Result<Option<EnrollTokenRow>, StoreError> {
    let row = sqlx::query("SELECT * FROM enroll_tokens WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(conn)
        .await?;
    row.map(|row| {
        let secret: Vec<u8> = row.try_get("secret_sha256")?;
        let secret = <[u8; 32]>::try_from(secret)
            .map_err(|_| StoreError::Corrupt("secret_sha256 is no digest".to_owned()))?;
        Ok(EnrollTokenRow {
            id,
            tenant: parsed(&row, "tenant")?,
            secret: Digest::from_bytes(secret),
            uses_left: row.try_get("uses_left")?,
            expires: UnixMillis(row.try_get("expires")?),
            created_by: row.try_get("created_by")?,
        })
    })
    .transpose()
}

/// Takes one use of the token; says no where none is left or its time is over. Two machines that come at once are told
/// apart here, because one writer makes all changes.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn take_use(
    conn: &mut SqliteConnection,
    id: TokenId,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE enroll_tokens SET uses_left = uses_left - 1 WHERE id = ? AND uses_left > 0 AND expires > ?")
        .bind(id.to_string())
        .bind(now.0)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}
