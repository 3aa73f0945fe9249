//! Hosts and machines in simulated time, over a network in memory, made by a seed.
//!
//! What is simulated: the clock (tokio's, paused), the network, how long a commit takes, what is lost when a program is
//! killed, and scripts. What is real: everything else of host and agent, with their databases in files. In reading order:
//!
//! - [`seeds`]: which seeds a test runs, and what is said of one that fails.
//! - [`random`]: everything that a seed decides.
//! - [`world`]: programs with a clock each, kept in step, that can be killed at any moment.
//! - [`network`]: datagrams that are lost, late, doubled or out of order.
//! - [`scripts`]: what machines run.
//! - [`fleet`]: a host and its machines in such a world, and what must hold of them.
//! - [`samples`]: messages, for what needs no fleet.

#![allow(
    clippy::missing_panics_doc,
    reason = "whatever goes wrong in a simulation ends it, with its seed"
)]

pub mod fleet;
pub mod network;
pub mod random;
pub mod samples;
pub mod scripts;
pub mod seeds;
pub mod world;
