//! Starting scripts: who runs them, with what, and the shim that owns them.
//!
//! The modules in the order an operation meets them:
//! [`containment`] finds out at the start how they will be held together,
//! [`users`] resolves the requested user against the machine owner's list, [`interpreter`] finds the program and checks
//! its flags, [`versions`] knows how new it is, [`environment`] composes the variables, [`spawn`] gives all of it to a shim
//! and streams what it reports ([`executor`] is what stands between that and the story of an operation), and [`spool`]
//! picks up an operation whose shim outlived an agent.
//!
//! No operation forks the agent, whose memory would make that dear: shims are forked by a small process of their own.
//! (Asking interpreters for their version may; that is apart from operations.)

pub mod containment;
pub mod environment;
pub mod executor;
pub mod interpreter;
pub mod spawn;
pub mod spool;
pub mod users;
pub mod versions;

mod fork_server;
pub(crate) mod niceness;
mod program;
