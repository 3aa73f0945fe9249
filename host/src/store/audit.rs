//! The rows of the audit log. What is in them, and their order, is [`crate::audit`]'s to say.

use sluice_api_types::audit::{AuditEntry, GENESIS};
use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::TenantId;

use super::StoreError;
use super::row::{
    all, change, first, from_json, parsed, parsed_or_null, signed, to_json, unsigned,
};

/// The end of a chain, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Last {
    /// The last entry's number; 0 where there is none.
    pub seq: u64,
    /// Its hash; zeros where there is none.
    pub hash: Digest,
    /// What the tenant is called now; none where there is no entry.
    pub tenant: Option<String>,
}

/// The last entry of a tenant.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn head(conn: &Connection, tenant: TenantId) -> Result<Last, StoreError> {
    let last = first(
        conn,
        "SELECT seq, hash, (SELECT name FROM tenants WHERE id = ?1) AS name FROM audit WHERE tenant = ?1
         ORDER BY seq DESC LIMIT 1",
        params![tenant.to_string()],
        |row| {
            Ok(Last {
                seq: unsigned(row, "seq")?,
                hash: parsed(row, "hash")?,
                tenant: row.get("name")?,
            })
        },
    )?;
    Ok(last.unwrap_or(Last {
        seq: 0,
        hash: GENESIS,
        tenant: None,
    }))
}

/// Adds an entry.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn insert(conn: &Connection, tenant: TenantId, entry: &AuditEntry) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT INTO audit (tenant, seq, time, event, tenant_name, machine, job, operation, operator, source,
                            script_sha256, bundle_sha256, details, prev, hash)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            tenant.to_string(),
            signed(entry.seq),
            &entry.time,
            &entry.event,
            &entry.tenant,
            &entry.machine,
            &entry.job,
            &entry.operation,
            &entry.operator,
            &entry.source,
            entry.script_sha256.map(|digest| digest.to_string()),
            entry.bundle_sha256.map(|digest| digest.to_string()),
            to_json(&entry.details)?,
            entry.prev.to_string(),
            entry.hash.to_string(),
        ],
    )?;
    Ok(())
}

/// The entries after `after`, in order.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn list(
    conn: &Connection,
    tenant: TenantId,
    after: u64,
    limit: u32,
) -> Result<Vec<AuditEntry>, StoreError> {
    all(
        conn,
        "SELECT * FROM audit WHERE tenant = ? AND seq > ? ORDER BY seq LIMIT ?",
        params![tenant.to_string(), signed(after), limit],
        read,
    )
}

fn read(row: &Row<'_>) -> Result<AuditEntry, StoreError> {
    Ok(AuditEntry {
        seq: unsigned(row, "seq")?,
        time: row.get("time")?,
        event: row.get("event")?,
        tenant: row.get("tenant_name")?,
        machine: row.get("machine")?,
        job: row.get("job")?,
        operation: row.get("operation")?,
        operator: row.get("operator")?,
        source: row.get("source")?,
        script_sha256: parsed_or_null(row, "script_sha256")?,
        bundle_sha256: parsed_or_null(row, "bundle_sha256")?,
        details: from_json(row, "details")?,
        prev: parsed(row, "prev")?,
        hash: parsed(row, "hash")?,
    })
}
