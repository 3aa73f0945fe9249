//! The rows of the audit log. What is in them, and their order, is [`crate::audit`]'s to say.

use sluice_api_types::audit::{AuditEntry, GENESIS};
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::TenantId;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::StoreError;
use super::row::{from_json, parsed, parsed_or_null, signed, to_json, unsigned};

/// The last entry's number and hash; 0 and zeros where there is none.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn head(
    conn: &mut SqliteConnection,
    tenant: TenantId,
) -> Result<(u64, Digest), StoreError> {
    let row = sqlx::query("SELECT seq, hash FROM audit WHERE tenant = ? ORDER BY seq DESC LIMIT 1")
        .bind(tenant.to_string())
        .fetch_optional(conn)
        .await?;
    row.map_or(Ok((0, GENESIS)), |row| {
        Ok((unsigned(&row, "seq")?, parsed(&row, "hash")?))
    })
}

/// Adds an entry.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn insert(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit (tenant, seq, time, event, machine, job, operation, operator, source, script_sha256, bundle_sha256,
                            details, prev, hash)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(tenant.to_string())
    .bind(signed(entry.seq))
    .bind(&entry.time)
    .bind(&entry.event)
    .bind(&entry.machine)
    .bind(&entry.job)
    .bind(&entry.operation)
    .bind(&entry.operator)
    .bind(&entry.source)
    .bind(entry.script_sha256.map(|digest| digest.to_string()))
    .bind(entry.bundle_sha256.map(|digest| digest.to_string()))
    .bind(to_json(&entry.details)?)
    .bind(entry.prev.to_string())
    .bind(entry.hash.to_string())
    .execute(conn)
    .await?;
    Ok(())
}

/// The entries after `after`, in order.
///
/// # Errors
///
/// Where the database cannot be read.
pub async fn list(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    tenant_name: &str,
    after: u64,
    limit: u32,
) -> Result<Vec<AuditEntry>, StoreError> {
    let rows = sqlx::query("SELECT * FROM audit WHERE tenant = ? AND seq > ? ORDER BY seq LIMIT ?")
        .bind(tenant.to_string())
        .bind(signed(after))
        .bind(limit)
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| read(row, tenant_name)).collect()
}

fn read(row: &SqliteRow, tenant_name: &str) -> Result<AuditEntry, StoreError> {
    Ok(AuditEntry {
        seq: unsigned(row, "seq")?,
        time: row.try_get("time")?,
        event: row.try_get("event")?,
        tenant: tenant_name.to_owned(),
        machine: row.try_get("machine")?,
        job: row.try_get("job")?,
        operation: row.try_get("operation")?,
        operator: row.try_get("operator")?,
        source: row.try_get("source")?,
        script_sha256: parsed_or_null(row, "script_sha256")?,
        bundle_sha256: parsed_or_null(row, "bundle_sha256")?,
        details: from_json(row, "details")?,
        prev: parsed(row, "prev")?,
        hash: parsed(row, "hash")?,
    })
}
