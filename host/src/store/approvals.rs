//! Which blocked operations were approved, and what became of that.

use sluice_database::rusqlite::{Connection, params};
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::{JobId, MachineId, OperationId, TenantId};
use uuid::Uuid;

use super::StoreError;
use super::row::{change, first, parsed};
use crate::clock::UnixMillis;

/// An approval, which is good for one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalRow {
    /// The operation that was blocked.
    pub operation: OperationId,
    /// The tenant that it belongs to.
    pub tenant: TenantId,
    /// Its machine.
    pub machine: MachineId,
    /// What was approved.
    pub bundle_sha256: Digest,
    /// The approving operator's token.
    pub token: Uuid,
    /// The approving operator's name.
    pub operator: String,
    /// When.
    pub approved: UnixMillis,
    /// The operation that was made of it.
    pub used_by: OperationId,
}

/// Stores an approval; says no where the operation was approved before.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn insert(conn: &Connection, approval: &ApprovalRow) -> Result<bool, StoreError> {
    Ok(change(
        conn,
        "INSERT INTO approvals (operation, tenant, machine, bundle_sha256, token, operator, approved, used_by)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (operation) DO NOTHING",
        params![
            approval.operation.to_string(),
            approval.tenant.to_string(),
            approval.machine.to_string(),
            approval.bundle_sha256.to_string(),
            approval.token.to_string(),
            &approval.operator,
            approval.approved.0,
            approval.used_by.to_string(),
        ],
    )? == 1)
}

/// The job that was made when this operation was approved, where it was.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn job_of(
    conn: &Connection,
    tenant: TenantId,
    operation: OperationId,
) -> Result<Option<JobId>, StoreError> {
    first(
        conn,
        "SELECT o.job AS job FROM approvals a JOIN operations o ON o.id = a.used_by
         WHERE a.tenant = ? AND a.operation = ?",
        params![tenant.to_string(), operation.to_string()],
        |row| parsed(row, "job"),
    )
}
