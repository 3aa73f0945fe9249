//! What was approved in advance.

use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::TenantId;
use uuid::Uuid;

use super::StoreError;
use super::row::{
    all, change, exists, first, from_json, parsed, signed, time, time_or_null, to_json, unsigned,
};
use super::scripts;
use crate::approvals::Standing;
use crate::clock::UnixMillis;

/// A standing approval as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingRow {
    /// Its id.
    pub id: Uuid,
    /// Which jobs fit it.
    pub standing: Standing,
    /// When it was added.
    pub created: UnixMillis,
    /// Until when it counts.
    pub until: UnixMillis,
    /// When it was revoked.
    pub revoked: Option<UnixMillis>,
}

/// Somebody who approves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingApproverRow {
    /// The token that they used.
    pub token: Uuid,
    /// The operator.
    pub operator: Uuid,
    /// Their name.
    pub name: String,
}

/// Stores one that nobody has approved.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn insert(conn: &Connection, tenant: TenantId, row: &StandingRow) -> Result<(), StoreError> {
    let standing = &row.standing;
    change(
        conn,
        "INSERT INTO standing_approvals (id, tenant, script_sha256, script_name, script_version, run_as, parameters, tags,
                                         targets, created, until)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            row.id.to_string(),
            tenant.to_string(),
            standing.script_sha256.to_string(),
            standing.script.as_ref().map(|id| id.name.as_str()),
            standing.script.as_ref().map(|id| signed(id.version)),
            to_json(&standing.run_as)?,
            standing.parameters.as_ref().map(to_json).transpose()?,
            to_json(&standing.tags)?,
            signed(standing.targets),
            row.created.0,
            row.until.0,
        ],
    )?;
    Ok(())
}

/// Those of the tenant that are not revoked and count at `now`, for scripts of this digest alone where one is given; the oldest
/// first.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn good(
    conn: &Connection,
    tenant: TenantId,
    script_sha256: Option<Digest>,
    now: UnixMillis,
) -> Result<Vec<StandingRow>, StoreError> {
    all(
        conn,
        "SELECT * FROM standing_approvals WHERE tenant = ?1 AND revoked IS NULL AND until > ?2
             AND (?3 IS NULL OR script_sha256 = ?3) ORDER BY id",
        params![
            tenant.to_string(),
            now.0,
            script_sha256.map(|digest| digest.to_string())
        ],
        read,
    )
}

/// The tenant's one with this id, whether it counts or not.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find(
    conn: &Connection,
    tenant: TenantId,
    id: Uuid,
) -> Result<Option<StandingRow>, StoreError> {
    first(
        conn,
        "SELECT * FROM standing_approvals WHERE tenant = ? AND id = ?",
        params![tenant.to_string(), id.to_string()],
        read,
    )
}

/// Whether it is not revoked, and counts at `now`.
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
        "SELECT 1 FROM standing_approvals WHERE tenant = ? AND id = ? AND revoked IS NULL AND until > ?",
        params![tenant.to_string(), id.to_string(), now.0],
    )
}

/// Revokes one.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn revoke(
    conn: &Connection,
    tenant: TenantId,
    id: Uuid,
    now: UnixMillis,
) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE standing_approvals SET revoked = ? WHERE tenant = ? AND id = ? AND revoked IS NULL",
        params![now.0, tenant.to_string(), id.to_string()],
    )?;
    Ok(())
}

/// Records that an operator approves one, in place of what they did with another token; says no where they had with this one.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn approve(
    conn: &Connection,
    tenant: TenantId,
    id: Uuid,
    approver: &StandingApproverRow,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    Ok(change(
        conn,
        "INSERT INTO standing_approvers (standing, tenant, token, operator, name, approved) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (standing, operator) DO UPDATE SET token = excluded.token, approved = excluded.approved
             WHERE token <> excluded.token",
        params![
            id.to_string(),
            tenant.to_string(),
            approver.token.to_string(),
            approver.operator.to_string(),
            &approver.name,
            now.0,
        ],
    )? == 1)
}

/// Who approves one, the first one first.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn approvers(
    conn: &Connection,
    tenant: TenantId,
    id: Uuid,
) -> Result<Vec<StandingApproverRow>, StoreError> {
    all(
        conn,
        "SELECT * FROM standing_approvers WHERE tenant = ? AND standing = ? ORDER BY approved, operator",
        params![tenant.to_string(), id.to_string()],
        |row| {
            Ok(StandingApproverRow {
                token: parsed(row, "token")?,
                operator: parsed(row, "operator")?,
                name: row.get("name")?,
            })
        },
    )
}

fn read(row: &Row<'_>) -> Result<StandingRow, StoreError> {
    let parameters = match row.get::<_, Option<String>>("parameters")? {
        Some(_) => Some(from_json(row, "parameters")?),
        None => None,
    };
    Ok(StandingRow {
        id: parsed(row, "id")?,
        standing: Standing {
            script_sha256: parsed(row, "script_sha256")?,
            script: scripts::of_job(row)?,
            run_as: from_json(row, "run_as")?,
            parameters,
            tags: from_json(row, "tags")?,
            targets: unsigned(row, "targets")?,
        },
        created: time(row, "created")?,
        until: time(row, "until")?,
        revoked: time_or_null(row, "revoked")?,
    })
}
