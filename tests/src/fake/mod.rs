//! Peers that keep to no rule: a host for a real agent, and a machine for a real host. Bare quinn, any bytes.
//!
//! They know the protocol's messages and the certificates, and nothing of the transport, which would not let them
//! misbehave.

mod answer;
mod crowd;
mod host;
mod link;
mod machine;
mod operation;
mod wire;

pub use answer::Answer;
pub(crate) use crowd::Roster;
pub use crowd::{Behavior, Crowd, Manner, Sight, Sights, What};
pub use host::{BlobFault, FakeHost};
pub use link::FakeLink;
pub use machine::{FakeConnection, FakeMachine};
pub use operation::{operation, sealed, shipped_gate, shipped_gates};
pub use wire::{frame, raw_frame, stream};
