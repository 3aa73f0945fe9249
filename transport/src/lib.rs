//! How hosts and agents reach each other: QUIC connections between verified peers, and the certificates that verify
//! them.
//!
//! This is the only crate that names quinn. No type of it is in the public interface, so that a second carrier (TLS over
//! TCP, where UDP is blocked) can stand behind the same one later. In reading order:
//!
//! - [`identity`]: the authority of a host, the key of a machine, and what a certificate must say.
//! - [`sealing`]: values that one machine alone can open.
//! - [`limits`]: every number, each with its reason.
//! - [`carrier`], [`surroundings`]: sockets, the clock and what is random; the system's, but in a simulation.
//! - [`error`]: how a link ends, sorted by who must act.
//! - [`host`]: accept machines, and machines that want to become one.
//! - [`agent`]: connect, or enroll.
//! - [`control`], [`progress`], [`blob`]: the streams, as both sides hold them.
//! - [`backoff`]: when to try again.
//!
//! ```text
//!            agent                                   host
//!   connect --- TLS 1.3, both certificates verified ---> HostEndpoint::accept -> Arrival::Machine
//!   open_control --- Hello ----------------------------> accept_control
//!                <-- Welcome --------------------------- ControlStream::send
//!   next_operation <--- one stream each ---------------- deliver
//!   open_progress ---- one stream each ----------------> next -> FromMachine::Progress
//!   fetch <----------- one stream each ----------------> next -> FromMachine::Blob
//! ```
//!
//! What a peer sends that is not allowed where it stands closes the connection with `CloseCode::Protocol`; nothing is
//! skipped, nothing is repaired.

pub mod identity;
pub mod limits;
pub mod sealing;

pub mod carrier;
pub mod surroundings;

pub mod error;
mod link;

mod frame;

pub mod blob;
pub mod control;
pub mod progress;

pub mod agent;
pub mod host;

pub mod backoff;

/// The protocol versions that this program speaks. There is only one so far.
pub const SUPPORTED_VERSIONS: &[u16] = &[sluice_protocol::VERSION];

/// The version to speak with a peer that speaks these: the highest that both know.
#[must_use]
pub fn negotiate(offered: &[u16]) -> Option<u16> {
    SUPPORTED_VERSIONS
        .iter()
        .copied()
        .filter(|version| offered.contains(version))
        .max()
}

#[cfg(test)]
mod tests;
