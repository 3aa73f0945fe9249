//! `sluice-shim`: the small process that owns one operation on a machine.
//!
//! The agent starts a shim, writes one [`spec::Spec`] to its standard input and reads [`event::Event`]s from its
//! standard output. The shim makes the private directory with the script, starts the interpreter under the requested
//! user, limits it, captures its output, ends every process of it and removes what it made. It writes the same events
//! to a spool that only root can touch, so that an agent that was killed or upgraded picks the operation up again.
//!
//! ```text
//! read spec -> lock spool -> take user -> make workspace -> limit cgroups -> [Prepared]
//!    -> clone the child (namespaces, limits, user, confinement) -> [Started] -> exec -> [Output ...] -> kill all -> clean -> [Exited]
//!    \_ anything wrong before exec: clean -> [Failed], and no process of the operation ever ran the script
//! ```
//!
//! The shim has one thread and no runtime: it forks, and what forks must be small (see `child`).
//!
//! Modules in reading order: what goes in, what comes out, the story, then its parts.

pub mod event;
pub mod frame;
pub mod spec;
pub mod spool;

mod operation;

mod child;
mod confinement;
mod containment;
mod ephemeral;
mod journal;
mod output;
mod pace;
mod privileges;
mod processes;
mod supervise;
mod tree;
mod workspace;

pub use containment::available as containment;
pub use ephemeral::{FIRST_UID, LAST_UID};
pub use operation::run;
