//! The `sluice` command as a process, against a host that says what each test wants it to say.

#![allow(
    clippy::disallowed_methods,
    reason = "these tests start the command that they are about"
)]
#![cfg(unix)]

mod findings;
mod host;
mod run;
mod schedule;
mod schema;
mod script;
mod usage;
