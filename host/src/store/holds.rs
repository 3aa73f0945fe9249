//! Jobs above a threshold, and who approved them.

use serde::Serialize;
use sluice_api_types::approval::ApprovalState;
use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::codec;
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::{JobId, MachineId, TenantId};
use uuid::Uuid;

use super::StoreError;
use super::row::{
    all, change, first, from_json, only, parsed, parsed_or_null, signed, time, to_json, unsigned,
    unsigned_or_null, word,
};
use super::tenants;
use crate::approvals::Need;
use crate::clock::UnixMillis;

/// A job that waits for approvals, or waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRow {
    /// The job.
    pub job: JobId,
    /// The tenant that it belongs to.
    pub tenant: TenantId,
    /// Where it is.
    pub state: ApprovalState,
    /// What it waits for.
    pub need: Need,
    /// What is not approved by then expires.
    pub until: UnixMillis,
    /// Of everything about it that cannot change.
    pub fixed_sha256: Digest,
    /// How often machines were taken from it while it waited.
    pub machines_lost: u64,
    /// The revision of the gates that was approved with it.
    pub approved_gates: Option<u64>,
    /// The standing approval that counted.
    pub standing: Option<Uuid>,
}

/// One operator's approval of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldApprovalRow {
    /// The job.
    pub job: JobId,
    /// The tenant that it belongs to.
    pub tenant: TenantId,
    /// The approving operator's token.
    pub token: Uuid,
    /// The approving operator.
    pub operator: Uuid,
    /// Their name.
    pub name: String,
    /// When.
    pub approved: UnixMillis,
    /// Until when it counts.
    pub until: UnixMillis,
    /// What was approved.
    pub what: What,
}

/// What an approval is bound to: all of it makes its digest, and where a part has changed since, it is void.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct What {
    /// Of everything about the job that cannot change: what runs, and on which machines.
    pub fixed_sha256: Digest,
    /// How often machines were taken from it.
    pub machines_lost: u64,
    /// The revision of the tenant's gates.
    pub gates_revision: u64,
}

impl What {
    /// What there is to approve of a job now.
    ///
    /// # Errors
    ///
    /// Where the database cannot be read.
    pub fn now(conn: &Connection, hold: &HoldRow) -> Result<Self, StoreError> {
        Ok(Self {
            fixed_sha256: hold.fixed_sha256,
            machines_lost: hold.machines_lost,
            gates_revision: tenants::gates_revision(conn, hold.tenant)?,
        })
    }

    /// Its digest.
    ///
    /// # Errors
    ///
    /// It has no encoding: a bug.
    pub fn digest(&self) -> Result<Digest, StoreError> {
        let bytes = codec::encode(self).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        Ok(Digest::of(&bytes))
    }
}

/// Whether a job may go on, as far as its approvals are concerned: it is below every threshold, or approved with the gates of
/// now.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn is_let_go(conn: &Connection, tenant: TenantId, job: JobId) -> Result<bool, StoreError> {
    match find(conn, tenant, job)? {
        None => Ok(true),
        Some(hold) => Ok(hold.is_let_go(tenants::gates_revision(conn, tenant)?)),
    }
}

/// Whether a job waits for approvals that it never had: nothing of it has begun.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn waits_for_its_first(
    conn: &Connection,
    tenant: TenantId,
    job: JobId,
) -> Result<bool, StoreError> {
    let hold = find(conn, tenant, job)?;
    Ok(hold.is_some_and(|hold| hold.approved_gates.is_none()))
}

impl HoldRow {
    /// Whether it is approved with gates of this revision.
    #[must_use]
    pub fn is_let_go(&self, gates_revision: u64) -> bool {
        self.state == ApprovalState::Approved && self.approved_gates == Some(gates_revision)
    }
}

/// Stores a job that is above a threshold.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn insert(conn: &Connection, row: &HoldRow) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT INTO holds (job, tenant, state, needed, because, until, fixed_sha256, machines_lost, approved_gates, standing, found)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            row.job.to_string(),
            row.tenant.to_string(),
            row.state.as_str(),
            signed(row.need.approvers),
            to_json(&row.need.because)?,
            row.until.0,
            row.fixed_sha256.to_string(),
            signed(row.machines_lost),
            row.approved_gates.map(signed),
            row.standing.map(|id| id.to_string()),
            to_json(&row.need.found)?,
        ],
    )?;
    Ok(())
}

/// What the tenant's job waits or waited for; none where it is below every threshold.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find(
    conn: &Connection,
    tenant: TenantId,
    job: JobId,
) -> Result<Option<HoldRow>, StoreError> {
    first(
        conn,
        "SELECT * FROM holds WHERE tenant = ? AND job = ?",
        params![tenant.to_string(), job.to_string()],
        read,
    )
}

/// Stores where it is now.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn set_state(
    conn: &Connection,
    row: &HoldRow,
    state: ApprovalState,
    approved_gates: Option<u64>,
) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE holds SET state = ?, approved_gates = ? WHERE tenant = ? AND job = ?",
        params![
            state.as_str(),
            approved_gates.map(signed),
            row.tenant.to_string(),
            row.job.to_string(),
        ],
    )?;
    Ok(())
}

/// Counts a machine that is taken out of every job of the tenant of which something is held for it, so that what was approved
/// of these is void.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn lose_machine(
    conn: &Connection,
    tenant: TenantId,
    machine: MachineId,
) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE holds SET machines_lost = machines_lost + 1 WHERE tenant = ?1
             AND job IN (SELECT job FROM operations WHERE machine = ?2 AND ended = 0 AND tenant = ?1 AND state = 'held')",
        params![tenant.to_string(), machine.to_string()],
    )?;
    Ok(())
}

/// Whether something of the job is held.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn has_held(conn: &Connection, tenant: TenantId, job: JobId) -> Result<bool, StoreError> {
    only(
        conn,
        "SELECT EXISTS (SELECT 1 FROM operations WHERE tenant = ? AND job = ? AND batch IS NOT NULL AND state = 'held') AS held",
        params![tenant.to_string(), job.to_string()],
        |row| Ok(row.get("held")?),
    )
}

/// Records an approval.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn approve(conn: &Connection, row: &HoldApprovalRow) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT INTO hold_approvals (tenant, job, token, operator, name, approved, until, machines_lost, gates_revision, sha256)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            row.tenant.to_string(),
            row.job.to_string(),
            row.token.to_string(),
            row.operator.to_string(),
            &row.name,
            row.approved.0,
            row.until.0,
            signed(row.what.machines_lost),
            signed(row.what.gates_revision),
            row.what.fixed_sha256.to_string(),
        ],
    )?;
    Ok(())
}

/// Who approved the tenant's job, the first one first.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn approvals(
    conn: &Connection,
    tenant: TenantId,
    job: JobId,
) -> Result<Vec<HoldApprovalRow>, StoreError> {
    all(
        conn,
        "SELECT * FROM hold_approvals WHERE tenant = ? AND job = ? ORDER BY rowid",
        params![tenant.to_string(), job.to_string()],
        |row| {
            Ok(HoldApprovalRow {
                job: parsed(row, "job")?,
                tenant: parsed(row, "tenant")?,
                token: parsed(row, "token")?,
                operator: parsed(row, "operator")?,
                name: row.get("name")?,
                approved: time(row, "approved")?,
                until: time(row, "until")?,
                what: What {
                    fixed_sha256: parsed(row, "sha256")?,
                    machines_lost: unsigned(row, "machines_lost")?,
                    gates_revision: unsigned(row, "gates_revision")?,
                },
            })
        },
    )
}

fn read(row: &Row<'_>) -> Result<HoldRow, StoreError> {
    Ok(HoldRow {
        job: parsed(row, "job")?,
        tenant: parsed(row, "tenant")?,
        state: word(row, "state", ApprovalState::from_word)?,
        need: Need {
            approvers: unsigned(row, "needed")?,
            because: from_json(row, "because")?,
            found: from_json(row, "found")?,
        },
        until: time(row, "until")?,
        fixed_sha256: parsed(row, "fixed_sha256")?,
        machines_lost: unsigned(row, "machines_lost")?,
        approved_gates: unsigned_or_null(row, "approved_gates")?,
        standing: parsed_or_null(row, "standing")?,
    })
}
