//! Receipts: what machines say of each call of their gates, signed.
//!
//! ```text
//! receipts come ahead of a report, or in it -> verify (the machine's certificate, this operation) -> stored
//! replay    the question made again from what is stored -> asked in the tenant's runner -> the same verdict, the same fuel?
//! backtest  the last jobs -> the gates of now, and the same with another version or settings -> what would be decided otherwise
//! ```

mod backtest;
mod material;
mod replay;
mod show;
mod trials;
mod verify;

pub use backtest::{Backtest, BacktestError, Changed, Decision, MOST_JOBS, Tried, backtest};
pub use replay::{Compared, ReplayError, Replayed, replay};
pub use show::{Shown, show};
pub use trials::{Busy, Trials};
pub use verify::{Ahead, Recorded, Reported, Signer, Verified, verify};

use sluice_protocol::digest::Digest;
use sluice_protocol::gates::Setting;

use crate::store::StoreError;

/// The digest of settings, as receipts have it.
///
/// # Errors
///
/// They have no JSON form: a bug.
pub fn settings_digest(settings: &[Setting]) -> Result<Digest, StoreError> {
    let given = sluice_gate_client::settings(settings);
    sluice_gate_client::settings_sha256(&given)
        .map(Digest::from_bytes)
        .map_err(|error| StoreError::Corrupt(format!("settings have no JSON form: {error}")))
}
