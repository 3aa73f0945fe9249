//! Rollouts: how far jobs are that start in batches, or a few at a time.

use sluice_api_types::rollout::RolloutState;
use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::ids::{JobId, TenantId};

use super::StoreError;
use super::row::{
    all, change, first, from_json, parsed, parsed_or_null, signed, time_or_null, to_json, unsigned,
    unsigned_or_null, word,
};
use crate::clock::UnixMillis;
use crate::rollouts::{Batches, Share};

/// The rollout of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutRow {
    /// The job.
    pub job: JobId,
    /// The tenant that it belongs to.
    pub tenant: TenantId,
    /// The plan.
    pub batches: Batches,
    /// Whether an operation fails at once whose machine is not connected when it is released.
    pub no_queue: bool,
    /// Where it is.
    pub state: RolloutState,
    /// The batch that has begun last, counted from 1.
    pub batch: u64,
    /// Failures that were there when it was resumed.
    pub forgiven: u64,
    /// Why it is paused, where it is.
    pub paused: Option<PausedRow>,
}

/// Why a rollout is paused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PausedRow {
    /// Since when.
    pub since: UnixMillis,
    /// The operator; none where the rule did it.
    pub by: Option<String>,
    /// What the rule counted.
    pub failures: Option<u64>,
}

impl RolloutRow {
    /// One that has not begun.
    #[must_use]
    pub const fn new(job: JobId, tenant: TenantId, batches: Batches, no_queue: bool) -> Self {
        Self {
            job,
            tenant,
            batches,
            no_queue,
            state: RolloutState::Running,
            batch: 1,
            forgiven: 0,
            paused: None,
        }
    }
}

/// Stores a rollout that has not begun.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn insert(conn: &Connection, row: &RolloutRow) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT INTO rollouts (job, tenant, ends, max_concurrency, stop_on_failures, no_queue, state, batch, forgiven)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            row.job.to_string(),
            row.tenant.to_string(),
            to_json(&row.batches.ends)?,
            row.batches.max_concurrency.map(signed),
            row.batches.stop.map(|share| share.to_string()),
            row.no_queue,
            row.state.as_str(),
            signed(row.batch),
            signed(row.forgiven),
        ],
    )?;
    Ok(())
}

/// The rollout of the tenant's job.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find(
    conn: &Connection,
    tenant: TenantId,
    job: JobId,
) -> Result<Option<RolloutRow>, StoreError> {
    first(
        conn,
        "SELECT * FROM rollouts WHERE tenant = ? AND job = ?",
        params![tenant.to_string(), job.to_string()],
        read,
    )
}

/// The jobs of the tenant whose rollouts have not ended, paused ones too.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn open(conn: &Connection, tenant: TenantId) -> Result<Vec<JobId>, StoreError> {
    all(
        conn,
        "SELECT job FROM rollouts WHERE tenant = ? AND state <> 'done' ORDER BY job",
        params![tenant.to_string()],
        |row| parsed(row, "job"),
    )
}

/// Stores how far a rollout is; the plan stays.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn update(conn: &Connection, row: &RolloutRow) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE rollouts SET state = ?, batch = ?, forgiven = ?, paused = ?, paused_by = ?, paused_failures = ?
         WHERE tenant = ? AND job = ?",
        params![
            row.state.as_str(),
            signed(row.batch),
            signed(row.forgiven),
            row.paused.as_ref().map(|paused| paused.since.0),
            row.paused.as_ref().and_then(|paused| paused.by.as_deref()),
            row.paused
                .as_ref()
                .and_then(|paused| paused.failures)
                .map(signed),
            row.tenant.to_string(),
            row.job.to_string(),
        ],
    )?;
    Ok(())
}

fn read(row: &Row<'_>) -> Result<RolloutRow, StoreError> {
    let stop: Option<Share> = parsed_or_null(row, "stop_on_failures")?;
    let since = time_or_null(row, "paused")?;
    let (by, failures) = (
        row.get("paused_by")?,
        unsigned_or_null(row, "paused_failures")?,
    );
    Ok(RolloutRow {
        job: parsed(row, "job")?,
        tenant: parsed(row, "tenant")?,
        batches: Batches {
            ends: from_json(row, "ends")?,
            max_concurrency: unsigned_or_null(row, "max_concurrency")?,
            stop,
        },
        no_queue: row.get("no_queue")?,
        state: word(row, "state", RolloutState::from_word)?,
        batch: unsigned(row, "batch")?,
        forgiven: unsigned(row, "forgiven")?,
        paused: since.map(|since| PausedRow {
            since,
            by,
            failures,
        }),
    })
}
