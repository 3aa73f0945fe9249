//! `sluice-shim`: the small process that owns one operation on a machine.
//!
//! The agent has a shim forked, describes one operation ([`spec::Spec`]) on its standard input and says when it may start
//! ([`order`]), and reads [`event::Event`]s from its standard output. The shim makes the private directory with the script,
//! starts the interpreter under the requested user, limits it, keeps its output, ends every process of it and removes what
//! it made. Events and all output that is kept go to a spool of the agent's user alone, of the output only the beginning to
//! standard output too; so an agent that was killed or upgraded picks the operation up again.
//!
//! ```text
//! spool beside its place -> read spec -> take user -> make workspace -> limit cgroups -> [Prepared]
//!    -> clone the child (namespaces, limits, user, confinement) -> read go -> spool at its place
//!    -> exec -> [Started] -> [Output ...] -> kill all -> clean -> [Exited]
//!    \_ anything wrong before exec: clean -> [Failed], and no process of the operation ever ran the script
//! ```
//!
//! The shim has no runtime, and one thread until the script was let go: it forks, and what forks must be small (see
//! `child`). After that a second one flushes the spool to disk (see `flush`).
//!
//! Modules in reading order: what goes in, what comes out, the story, then its parts.

pub mod event;
pub mod event_file;
pub mod format;
pub mod frame;
pub mod kept;
pub mod order;
pub mod pidfd;
pub mod spec;
pub mod spool;

mod fork_server;
mod operation;

mod child;
mod confinement;
mod containment;
mod ephemeral;
mod flush;
mod journal;
mod mask;
mod output;
mod pace;
mod privileges;
mod processes;
mod record;
mod signals;
mod supervise;
mod tree;
mod workspace;

pub use containment::{Controller, Found, TRY_OUT, Whereabouts, settle};
pub use ephemeral::{FIRST_UID, LAST_UID};
pub use workspace::sweep;

use std::path::PathBuf;
use std::process::ExitCode;

/// The program: a server that forks a shim whenever the agent asks (`serve DIRECTORY`), a look at what cgroups there are for
/// operations ([`TRY_OUT`]), or one shim. The directory is that of all spools, in which a shim makes ready.
#[must_use]
pub fn run() -> ExitCode {
    // An agent executes this by a descriptor, whose number would be the name in lists of processes.
    let _best_effort = nix::sys::prctl::set_name(c"sluice-shim");
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next()) {
        (Some(word), Some(spools)) if word == SERVE => fork_server::serve(PathBuf::from(spools)),
        (Some(word), None) if word == TRY_OUT => containment::try_out(),
        (spools, _) => operation::run(spools.map(PathBuf::from)),
    }
}

/// The word that makes a server of the program.
pub const SERVE: &str = "serve";
