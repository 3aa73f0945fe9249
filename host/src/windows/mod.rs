//! Maintenance windows: times in which operations may start, and outside of which they are held.
//!
//! ```text
//! calendar  when one window is open, by the clocks of its zone; without a clock or I/O
//! bounds    when an operation may start that is held to several; without a clock or I/O
//! hold      which windows an operation is held to: those that its job asked for, and those of its machine
//! change    adding and removing windows
//! driver    has what is held looked at when a window opens or closes
//! ```
//!
//! A job that a window is about has a rollout, of one batch where it asked for none, so that all of it is held at first. Whoever
//! sends an operation to its machine asks [`Look::standing`] in the same transaction that records it as delivered, and tells
//! the machine until when it may start.

mod bounds;
mod calendar;
mod change;
mod driver;
mod hold;
mod show;
#[cfg(test)]
mod tests;

pub use bounds::{Bounds, Closed, Standing, Window};
pub use calendar::{Calendar, CalendarError};
pub use change::{ChangeError, add, remove};
pub use driver::{Windows, drive, look};
pub use hold::{Asked, Hold, HoldError, Look, are_there, required_of, standing};
pub use show::show;
