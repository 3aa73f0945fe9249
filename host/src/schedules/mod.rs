//! Schedules: scripts that run by themselves.
//!
//! ```text
//! add      read the request -> check the job as if it were submitted -> record
//! plan     due -> runs that wait (durable before anything is submitted), runs that are missed
//! fire     lockdown? -> the owner's permissions now -> the run before? -> submit -> fired, or missed with the reason
//! ```
//!
//! What is due is decided by [`due()`], which knows no clock: so it can be asked about a year in a moment. [`drive`] sleeps
//! until something is due. A run is known by its schedule and the time that it was planned for, and its job's
//! idempotency key is made of both: whatever is stopped or set back in between, there is one.

mod change;
mod driver;
mod due;
mod event;
mod fire;
mod plan;
mod request;
mod show;
mod stored;
mod timing;

#[cfg(test)]
mod tests;

pub use change::{AddError, ChangeError, add, pause, remove, resume};
pub use driver::{Looked, Schedules, drive, look};
pub use due::{
    Due, Jitter, MOST_AT_ONCE, Missed, Next, ON_TIME, Rules, Run, Settled, due, upcoming,
};
pub use event::note;
pub use fire::KEY;
pub use request::{PlanError, Planned};
pub use show::{show, show_event, show_run};
pub use timing::{Expression, Timing, TimingError, Zone};
