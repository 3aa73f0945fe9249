//! Receipts: what machines say of each call of their gates, signed.
//!
//! ```text
//! a report comes -> verify (the machine's certificate, this operation) -> stored with it
//! ```

mod show;
mod verify;

pub use show::{Shown, show};
pub use verify::{Reported, Verified, verify};

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
