//! Jobs whose machines follow their selector: what matches it only later joins, until the job expires.
//!
//! ```text
//! selector  what a request says of machines that match only later
//! driver    something of a machine has changed (noted with the change) -> which open jobs does it match? the newest first
//! join      the submitter's rights now -> gates -> thresholds -> in one transaction: open? not paused? matches still?
//!           -> one more operation, held in the last batch; the rollout releases it
//! close     canceled, expired, or nobody may run it any more: its machines are fixed from then on
//! ```
//!
//! Such a job always has a rollout, so that a pause, a window, a lockdown and a host that is killed are what they are to others.

mod close;
mod driver;
mod join;
mod selector;
mod show;
#[cfg(test)]
mod tests;

pub(super) use close::{close, close_overdue};
pub use driver::{Later, drive, look};
pub use selector::Selector;
pub(super) use show::show;
