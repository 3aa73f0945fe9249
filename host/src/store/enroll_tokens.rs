//! Tokens that let machines join. The file holds hashes alone.

use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::{TenantId, TokenId};
use uuid::Uuid;

use super::StoreError;
use super::bindings::TagPair;
use super::row::{
    all, bytes, change, first, from_json, parsed, parsed_or_null, time, time_or_null, to_json, word,
};
use crate::clock::UnixMillis;
use crate::fleet::{AddressRange, Approval, InvalidRange};

/// An enrollment token as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrollTokenRow {
    /// Its public part.
    pub id: TokenId,
    /// The tenant that machines join with it.
    pub tenant: TenantId,
    /// Of the secret part.
    pub secret: Digest,
    /// How many machines may join with it.
    pub uses: u32,
    /// How many machines may still join.
    pub uses_left: u32,
    /// What machines are tagged with that join.
    pub tags: Vec<TagPair>,
    /// Where they may come from; anywhere where empty.
    pub addresses: Vec<AddressRange>,
    /// Whether they wait for somebody.
    pub approval: Approval,
    /// When it was made.
    pub created: UnixMillis,
    /// When it was revoked.
    pub revoked: Option<UnixMillis>,
    /// After which it is no good.
    pub expires: UnixMillis,
    /// The operator who made it.
    pub created_by: String,
    /// The grant by which it was made, itself or the operator's token: it is good as long as that is.
    pub made_by_grant: Option<Uuid>,
}

/// Stores a token.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn insert(conn: &Connection, token: &EnrollTokenRow) -> Result<(), StoreError> {
    let addresses: Vec<String> = token.addresses.iter().map(ToString::to_string).collect();
    change(
        conn,
        "INSERT INTO enroll_tokens (id, tenant, secret_sha256, uses, uses_left, expires, tags, addresses, approval, created,
                                    created_by, made_by_grant)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            token.id.to_string(),
            token.tenant.to_string(),
            token.secret.as_bytes().as_slice(),
            token.uses,
            token.uses_left,
            token.expires.0,
            to_json(&token.tags)?,
            to_json(&addresses)?,
            token.approval.as_str(),
            token.created.0,
            &token.created_by,
            token.made_by_grant.map(|id| id.to_string()),
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
        read,
    )
}

/// The tenant's tokens, the newest first.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn list(
    conn: &Connection,
    tenant: TenantId,
    limit: u32,
) -> Result<Vec<EnrollTokenRow>, StoreError> {
    all(
        conn,
        "SELECT * FROM enroll_tokens WHERE tenant = ? ORDER BY created DESC, id DESC LIMIT ?",
        params![tenant.to_string(), limit],
        read,
    )
}

/// Revokes a token of the tenant that is not revoked yet; says no where there is none.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn revoke(
    conn: &Connection,
    tenant: TenantId,
    id: TokenId,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    Ok(change(
        conn,
        "UPDATE enroll_tokens SET revoked = ? WHERE tenant = ? AND id = ? AND revoked IS NULL",
        params![now.0, tenant.to_string(), id.to_string()],
    )? == 1)
}

/// Revokes all tokens that an operator has made and that are not revoked yet, and says how many.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn revoke_all_of(
    conn: &Connection,
    tenant: TenantId,
    operator: &str,
    now: UnixMillis,
) -> Result<usize, StoreError> {
    change(
        conn,
        "UPDATE enroll_tokens SET revoked = ? WHERE tenant = ? AND created_by = ? AND revoked IS NULL",
        params![now.0, tenant.to_string(), operator],
    )
}

/// Revokes all tokens of a tenant that were made by a grant, this one or any, and that are not revoked yet.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn revoke_all_by_grant(
    conn: &Connection,
    tenant: TenantId,
    grant: Option<Uuid>,
    now: UnixMillis,
) -> Result<usize, StoreError> {
    change(
        conn,
        "UPDATE enroll_tokens SET revoked = ?1 WHERE tenant = ?2 AND revoked IS NULL AND made_by_grant IS NOT NULL
             AND (?3 IS NULL OR made_by_grant = ?3)",
        params![now.0, tenant.to_string(), grant.map(|id| id.to_string())],
    )
}

fn read(row: &Row<'_>) -> Result<EnrollTokenRow, StoreError> {
    let secret = <[u8; 32]>::try_from(bytes(row, "secret_sha256")?)
        .map_err(|_| StoreError::Corrupt("secret_sha256 is no digest".to_owned()))?;
    let addresses: Vec<String> = from_json(row, "addresses")?;
    let addresses = addresses.iter().map(|text| text.parse::<AddressRange>());
    let addresses: Result<_, InvalidRange> = addresses.collect();
    Ok(EnrollTokenRow {
        id: parsed(row, "id")?,
        tenant: parsed(row, "tenant")?,
        secret: Digest::from_bytes(secret),
        uses: row.get("uses")?,
        uses_left: row.get("uses_left")?,
        expires: time(row, "expires")?,
        tags: from_json(row, "tags")?,
        addresses: addresses.map_err(|error| StoreError::Corrupt(error.to_string()))?,
        approval: word(row, "approval", Approval::from_word)?,
        created: time(row, "created")?,
        created_by: row.get("created_by")?,
        made_by_grant: parsed_or_null(row, "made_by_grant")?,
        revoked: time_or_null(row, "revoked")?,
    })
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
         WHERE id = ? AND uses_left > 0 AND expires > ? AND revoked IS NULL",
        params![id.to_string(), now.0],
    )? == 1)
}
