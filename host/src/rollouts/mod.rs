//! Rollouts: jobs whose operations start in batches, or a few at a time.
//!
//! ```text
//! submit   every operation is held; the plan is stored in the same transaction
//! plan     what is asked, read into types: batches, how many at once, what stops it
//! decide   what comes next, from where the operations are; without a clock or I/O
//! advance  the decision becomes one transaction: operations released, the record, where the rollout is; then delivery
//! change   pause and resume
//! driver   asks again when an operation has ended, and about all that are open when the host starts
//! ```

mod advance;
mod change;
mod decide;
mod driver;
mod plan;
mod show;
#[cfg(test)]
mod tests;

pub use advance::advance;
pub use change::{ChangeError, pause, resume};
pub use decide::{Counts, Facts, Step, Stops, Tally, decide, tally};
pub use driver::{Rollouts, drive};
pub use plan::{Batches, InvalidShare, Plan, PlanError, Share};
pub use show::{paused, show};
