//! Jobs above a threshold, which wait for other operators before anything of them is delivered.
//!
//! ```text
//! rule      from when a job waits, and for how many: a tenant's policy, read into types; without a clock or I/O
//! change    another policy becomes the next revision
//! standing  what was approved in advance, and which jobs fit it
//! count     who of those who approved are others, and others than each other
//! ```
//!
//! What becomes of a job is in `jobs/hold.rs` (when it is submitted) and `jobs/approve/held.rs` (when somebody approves it).

mod change;
mod count;
mod rule;
mod standing;
#[cfg(test)]
mod tests;

pub use change::{ChangePolicyError, set_policy};
pub use count::{Approver, are_one, others};
pub use rule::{Facts, Found, MachineFacts, Need, Policy, PolicyError, Rule, is_user_among, need};
pub use standing::{Asked, Standing, StandingError, add, approve, fits, revoke};
