//! From what is stored of a rollout to what an operator gets.

use sluice_api_types::rollout::{Paused, Rollout};

use super::failures;
use crate::store::rollouts::RolloutRow;
use crate::store::{Connection, StoreError, operations};

/// How far a rollout is.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn show(conn: &Connection, row: &RolloutRow) -> Result<Rollout, StoreError> {
    let batches = row.batches.ends.len();
    let counts = operations::count_by_batch(conn, row.tenant, row.job, batches)?;
    Ok(Rollout {
        state: row.state,
        batch: row.batch,
        of: batches as u64,
        batches: row.batches.ends.clone(),
        max_concurrency: row.batches.max_concurrency,
        stop_on_failures: row.batches.stop.map(|rule| rule.to_string()),
        held: counts.iter().map(|counts| counts.held).sum(),
        failures: failures(&counts, row.batch),
        paused: paused(row),
    })
}

/// Why a rollout is paused; none where it is not.
#[must_use]
pub fn paused(row: &RolloutRow) -> Option<Paused> {
    let paused = row.paused.as_ref()?;
    let rule = row.batches.stop.map(|rule| rule.to_string());
    Some(Paused {
        since: paused.since.to_string(),
        by: paused.by.clone(),
        rule: rule.filter(|_| paused.by.is_none()),
        failures: paused.failures,
    })
}
