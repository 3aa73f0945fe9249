//! Replays and backtests cost what they ask gates: one of them at a time, on a whole host.

use tokio::sync::{Mutex, MutexGuard};

/// The place of the one that runs.
#[derive(Debug, Default)]
pub struct Trials(Mutex<()>);

/// It is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another replay or backtest runs on this host; try again in a moment")]
pub struct Busy;

impl Trials {
    /// Takes the place, until what this gives is dropped.
    ///
    /// # Errors
    ///
    /// It is taken.
    pub fn begin(&self) -> Result<MutexGuard<'_, ()>, Busy> {
        self.0.try_lock().map_err(|_| Busy)
    }
}
