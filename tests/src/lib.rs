//! The harness of the whole-system tests: a fleet of real processes that speaks the domain.
//!
//! ```no_run
//! use sluice_tests::{Fleet, script};
//!
//! let fleet = Fleet::builder().start();
//! let outcome = fleet.run(&script("#!/bin/bash\necho hello\n").as_user("nobody"));
//! assert_eq!(outcome.text("stdout"), "hello\n");
//! ```
//!
//! Every fleet has its own folder, ports and processes, which end with it. Compiling the shipped gates takes seconds, so
//! the first fleet leaves a template (a set-up host and the compiled gates) that the next ones copy.

#![allow(
    clippy::disallowed_methods,
    reason = "the product is driven from outside, as processes"
)]

mod agent;
mod clock;
mod eventually;
pub mod fake;
mod fleet;
mod host;
mod last_call;
mod memory;
mod places;
mod random;
mod script;
mod silent;
mod template;

pub use agent::{Agent, Machine, TRACE_WHAT_IS_MADE};
pub use clock::Clock;
pub use eventually::eventually;
pub use fleet::{Builder, Fleet, Output};
pub use host::Host;
pub use last_call::LastCall;
pub use memory::{Running, kib, kib_while_it_runs, shims, wake_ups};
pub use places::{binaries, installed, is_root, plugins, rounds};
pub use random::Random;
pub use script::{Outcome, Script, script};
pub use silent::SilentFolder;
