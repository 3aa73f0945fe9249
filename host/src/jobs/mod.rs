//! Jobs and operations: from a request to a result.
//!
//! ```text
//! submit   audit the attempt -> authorize -> look the machines up -> script fits? -> preflight -> record -> deliver
//! deliver  queued -> delivered (durable before the first byte is sent) -> the machine
//! progress accepted, checking, running, output     (rides along with other commits)
//! outcome  report -> stored result -> audit -> acknowledge after the commit
//! expire   what could not start in time, and what fell silent
//! hold     above a threshold of the tenant: nothing is delivered before others approve
//! in order one after the other on a machine: what ends there lets the next one go
//! supersede a newer job with the same key ends what was never sent of older ones
//! approve  what a policy blocked until somebody approves -> the same once more, with that word
//! later    what matches a selector only later joins a job, where that is asked for
//! lockdown nothing is made or delivered until it is lifted
//! ```

mod approval;
mod approve;
mod authorize;
mod cancel;
mod deliver;
mod events;
mod expire;
mod fit;
mod follow;
mod hold;
mod in_order;
mod interrupt;
mod later;
mod lockdown;
mod outcome;
mod preflight;
mod preview;
mod progress;
mod record;
mod request;
mod result;
mod submit;
mod supersede;
mod targets;
#[cfg(test)]
mod tests;
mod why;

pub use approve::{ApproveError, NotOpen, approve, deny};
pub use cancel::{CancelError, Canceling, cancel, end_all_of_machine, halt};
pub use deliver::{deliver_pending, pending};
pub(crate) use deliver::{deliver_released, end_unsent};
pub use events::{Events, Subscription};
pub use expire::sweep;
pub use follow::{Followed, Follower};
pub use in_order::{Turns, drive as drive_turns, look as look_at_turns};
pub use interrupt::{are_open, interrupt_all_of_machine, interrupt_forgotten, tell_ended};
pub use later::{Later, Selector, drive as drive_later, look as look_later};
pub(crate) use lockdown::deliver_all;
pub use lockdown::{LockdownError, Locked, lift_lockdown, lock_down};
pub use outcome::{Machine, Outcome, store_report};
pub(crate) use preflight::attachment_texts;
pub use preview::preview;
pub use progress::{store_output, store_receipts, store_step};
pub(crate) use request::{DEFAULT_EXPIRY, LONGEST_EXPIRY};
pub use request::{Order, RequestError, Selection};
pub use result::{ends_that_are_lost, job, operation_result, operation_with_why};
pub use submit::{Checked, SubmitError, check, could_run_now, submit};
pub use supersede::{InvalidSupersedeKey, SupersedeKey};
pub use targets::{holds, is_target};
