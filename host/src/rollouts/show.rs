//! From what is stored of a rollout to what an operator gets.

use sluice_api_types::rollout::{Paused, Rollout};

use super::tally;
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
    let stops = &row.batches.stops;
    Ok(Rollout {
        state: row.state,
        batch: row.batch,
        of: batches as u64,
        batches: row.batches.ends.clone(),
        max_concurrency: row.batches.max_concurrency,
        stop_on_failures: stops.failures.map(|rule| rule.to_string()),
        stop_on_timeouts: stops.timeouts.map(|rule| rule.to_string()),
        stop_on_dark: stops.dark.map(|rule| rule.to_string()),
        stop_on_new_groups: stops.groups.map(|rule| rule.to_string()),
        held: counts.iter().map(|counts| counts.held).sum(),
        failures: tally(&counts, row.batch).failures,
        paused: paused(row),
    })
}

/// Why a rollout is paused; none where it is not.
#[must_use]
pub fn paused(row: &RolloutRow) -> Option<Paused> {
    let paused = row.paused.as_ref()?;
    let rule = paused.rule.and_then(|rule| row.batches.stops.of(rule));
    let rule = rule.map(|rule| rule.to_string());
    Some(Paused {
        since: paused.since.to_string(),
        by: paused.by.clone(),
        counts: paused.rule,
        rule,
        failures: paused.count,
    })
}
