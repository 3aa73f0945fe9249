//! Tokens that let machines join. The file holds hashes alone.

use sluice_database::rusqlite::{Connection, params};
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::{TenantId, TokenId};

use super::StoreError;
use super::row::{bytes, change, first, parsed, time};
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
pub fn insert(
    conn: &Connection,
    token: &EnrollTokenRow,
    now: UnixMillis,
) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT INTO enroll_tokens (id, tenant, secret_sha256, uses_left, expires, created, created_by)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
        params![
            token.id.to_string(),
            token.tenant.to_string(),
            token.secret.as_bytes().as_slice(),
            token.uses_left,
            token.expires.0,
            now.0,
            &token.created_by,
        ],
    )?;
    Ok(())
}

/// The token with this public part.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find(conn: &Connection, id: TokenId) -> Result<Option<EnrollTokenRow>, StoreError> {
    first(
        conn,
        "SELECT * FROM enroll_tokens WHERE id = ?",
        params![id.to_string()],
        |row| {
            let secret = <[u8; 32]>::try_from(bytes(row, "secret_sha256")?)
                .map_err(|_| StoreError::Corrupt("secret_sha256 is no digest".to_owned()))?;
            Ok(EnrollTokenRow {
                id,
                tenant: parsed(row, "tenant")?,
                secret: Digest::from_bytes(secret),
                uses_left: row.get("uses_left")?,
                expires: time(row, "expires")?,
                created_by: row.get("created_by")?,
            })
        },
    )
}

/// Takes one use of the token; says no where none is left or its time is over. Two machines that come at once are told
/// apart here, because one writer makes all changes.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn take_use(conn: &Connection, id: TokenId, now: UnixMillis) -> Result<bool, StoreError> {
    Ok(change(
        conn,
        "UPDATE enroll_tokens SET uses_left = uses_left - 1
         WHERE id = ? AND uses_left > 0 AND expires > ?",
        params![id.to_string(), now.0],
    )? == 1)
}
