//! Tenants' approval policies, in revisions.

use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::ids::TenantId;
use sluice_protocol::units::Span;

use super::StoreError;
use super::row::{all, change, first, from_json, signed, time, to_json, unsigned};
use crate::approvals::Policy;
use crate::clock::UnixMillis;

/// A policy as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRow {
    /// Counted from 1.
    pub revision: u64,
    /// What it says.
    pub policy: Policy,
    /// Since when.
    pub changed: UnixMillis,
    /// The operator who did.
    pub changed_by: String,
}

/// Stores a revision, which is the one that counts from then on.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn insert(conn: &Connection, tenant: TenantId, row: &PolicyRow) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT INTO approval_policies (tenant, revision, expires, rules, changed, changed_by) VALUES (?, ?, ?, ?, ?, ?)",
        params![
            tenant.to_string(),
            signed(row.revision),
            signed(row.policy.expires.0),
            to_json(&row.policy.rules)?,
            row.changed.0,
            &row.changed_by,
        ],
    )?;
    Ok(())
}

/// The revision that counts; none where none was ever set.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn current(conn: &Connection, tenant: TenantId) -> Result<Option<PolicyRow>, StoreError> {
    first(
        conn,
        "SELECT * FROM approval_policies WHERE tenant = ? ORDER BY revision DESC LIMIT 1",
        params![tenant.to_string()],
        read,
    )
}

/// Revisions, the last one first, from before `before` where one is given.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn list(
    conn: &Connection,
    tenant: TenantId,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<PolicyRow>, StoreError> {
    all(
        conn,
        "SELECT * FROM approval_policies WHERE tenant = ?1 AND (?2 IS NULL OR revision < ?2)
         ORDER BY revision DESC LIMIT ?3",
        params![tenant.to_string(), before.map(signed), limit],
        read,
    )
}

fn read(row: &Row<'_>) -> Result<PolicyRow, StoreError> {
    Ok(PolicyRow {
        revision: unsigned(row, "revision")?,
        policy: Policy {
            expires: Span(unsigned(row, "expires")?),
            rules: from_json(row, "rules")?,
        },
        changed: time(row, "changed")?,
        changed_by: row.get("changed_by")?,
    })
}
