//! Rollouts: how far jobs are that start in batches, or a few at a time.

use sluice_api_types::rollout::{RolloutState, Rule};
use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::ids::{JobId, TenantId};
use sluice_protocol::units::Span;

use super::StoreError;
use super::row::{
    all, change, first, from_json, parsed, parsed_or_null, signed, time_or_null, to_json, unsigned,
    unsigned_or_null, word,
};
use crate::clock::UnixMillis;
use crate::rollouts::{Batches, Share, Stops, Tally};

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
    /// What was there when it was resumed.
    pub forgiven: Tally,
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
    /// The rule, where one did it.
    pub rule: Option<Rule>,
    /// What it counted.
    pub count: Option<u64>,
}

impl RolloutRow {
    /// One that has not begun.
    #[must_use]
    pub fn new(job: JobId, tenant: TenantId, batches: Batches, no_queue: bool) -> Self {
        Self {
            job,
            tenant,
            batches,
            no_queue,
            state: RolloutState::Running,
            batch: 1,
            forgiven: Tally::default(),
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
        "INSERT INTO rollouts (job, tenant, ends, max_concurrency, stop_on_failures, no_queue, state, batch, forgiven,
                               stop_on_timeouts, stop_on_dark, dark_after, stop_on_new_groups)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            row.job.to_string(),
            row.tenant.to_string(),
            to_json(&row.batches.ends)?,
            row.batches.max_concurrency.map(signed),
            row.batches.stops.failures.map(|share| share.to_string()),
            row.no_queue,
            row.state.as_str(),
            signed(row.batch),
            signed(row.forgiven.failures),
            row.batches.stops.timeouts.map(|share| share.to_string()),
            row.batches.stops.dark.map(|share| share.to_string()),
            signed(row.batches.dark_after.0),
            row.batches.stops.groups.map(|share| share.to_string()),
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

/// Stores how many operations belong to the batches, where some have joined.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn set_ends(conn: &Connection, row: &RolloutRow) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE rollouts SET ends = ? WHERE tenant = ? AND job = ?",
        params![
            to_json(&row.batches.ends)?,
            row.tenant.to_string(),
            row.job.to_string(),
        ],
    )?;
    Ok(())
}

/// Stores how far a rollout is; the plan stays.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn update(conn: &Connection, row: &RolloutRow) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE rollouts SET state = ?, batch = ?, forgiven = ?, paused = ?, paused_by = ?, paused_failures = ?,
             forgiven_timeouts = ?, forgiven_dark = ?, paused_rule = ?, forgiven_groups = ?
         WHERE tenant = ? AND job = ?",
        params![
            row.state.as_str(),
            signed(row.batch),
            signed(row.forgiven.failures),
            row.paused.as_ref().map(|paused| paused.since.0),
            row.paused.as_ref().and_then(|paused| paused.by.as_deref()),
            row.paused
                .as_ref()
                .and_then(|paused| paused.count)
                .map(signed),
            signed(row.forgiven.timeouts),
            signed(row.forgiven.dark),
            row.paused
                .as_ref()
                .and_then(|paused| paused.rule)
                .map(Rule::as_str),
            signed(row.forgiven.groups),
            row.tenant.to_string(),
            row.job.to_string(),
        ],
    )?;
    Ok(())
}

fn read(row: &Row<'_>) -> Result<RolloutRow, StoreError> {
    let share = |column| parsed_or_null::<Share>(row, column);
    let stops = Stops {
        failures: share("stop_on_failures")?,
        timeouts: share("stop_on_timeouts")?,
        dark: share("stop_on_dark")?,
        groups: share("stop_on_new_groups")?,
    };
    let dark_after = unsigned_or_null(row, "dark_after")?;
    let since = time_or_null(row, "paused")?;
    let (by, count): (Option<String>, _) = (
        row.get("paused_by")?,
        unsigned_or_null(row, "paused_failures")?,
    );
    let rule: Option<String> = row.get("paused_rule")?;
    let rule = rule.as_deref().and_then(Rule::from_word);
    Ok(RolloutRow {
        job: parsed(row, "job")?,
        tenant: parsed(row, "tenant")?,
        batches: Batches {
            ends: from_json(row, "ends")?,
            max_concurrency: unsigned_or_null(row, "max_concurrency")?,
            stops,
            dark_after: dark_after.map_or_else(Span::default, Span),
        },
        no_queue: row.get("no_queue")?,
        state: word(row, "state", RolloutState::from_word)?,
        batch: unsigned(row, "batch")?,
        forgiven: Tally {
            failures: unsigned(row, "forgiven")?,
            timeouts: unsigned(row, "forgiven_timeouts")?,
            dark: unsigned(row, "forgiven_dark")?,
            groups: unsigned(row, "forgiven_groups")?,
        },
        paused: since.map(|since| PausedRow {
            since,
            by,
            rule,
            count,
        }),
    })
}
