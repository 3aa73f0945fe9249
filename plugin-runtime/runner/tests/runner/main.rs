//! The real `sluice-gate-runner` and its parent's side, without host and agent.

#![allow(
    clippy::disallowed_methods,
    reason = "the runner is started from outside, as a process"
)]

mod corpus;
mod death;
mod domain;
#[cfg(target_arch = "x86_64")]
mod escape;
mod fixtures;
mod gone;
mod guests;
mod walls;
