//! How a link ends or fails, sorted by who must act.

use sluice_protocol::message::CloseCode;

/// A link could not be made, or is no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Nobody answers: the network, or the host is down. Trying again helps.
    #[error(
        "no answer from {tried}: check the address, that the host runs, and that UDP is not blocked"
    )]
    Unreachable {
        /// The addresses.
        tried: String,
    },
    /// Whoever answers is not the host that this machine trusts. For a person to look into; no job runs.
    #[error("{address} is not a host of the pinned authority: {reason}; nothing was sent to it")]
    UntrustedHost {
        /// The address that was tried.
        address: String,
        /// What is wrong with its certificate.
        reason: String,
    },
    /// The peer does not take this side's certificate: expired, or of another authority. A machine must enroll again.
    #[error("the peer refused this side's certificate: {reason}; a machine must be enrolled again")]
    IdentityRefused {
        /// As the peer said it.
        reason: String,
    },
    /// The two programs speak no common protocol version. One of them must be updated.
    #[error("no common protocol version: {reason}; update the older side")]
    Version {
        /// Which versions.
        reason: String,
    },
    /// The machine was revoked. Coming back does not help.
    #[error("the host has revoked this machine; it will not be served again")]
    Revoked,
    /// A newer connection of the same machine took over.
    #[error("a newer connection of the same machine took over; is its state in use twice?")]
    Replaced,
    /// The host suspects that the machine is there twice. Until an operator releases it nothing is done for it.
    #[error(
        "the host has quarantined this machine: it seems to be there twice, or to be another computer; an operator releases it"
    )]
    Quarantined,
    /// Too many connections or requests. Later.
    #[error("the peer is busy; it asks to come back later")]
    Busy,
    /// The machine has joined, and nobody has approved it yet. Later.
    #[error("this machine waits for approval (on the host: sluice machine approve)")]
    Waiting,
    /// The peer's program is stopping. Later.
    #[error("the peer is stopping")]
    Stopping,
    /// The peer is done with an enrollment.
    #[error("the peer ended the enrollment")]
    Done,
    /// Silence, or the peer has started anew. Trying again helps.
    #[error("the connection was lost: {reason}")]
    Lost {
        /// As the carrier has it.
        reason: String,
    },
    /// This side closed the link.
    #[error("the connection was closed by this side")]
    Closed,
    /// The peer did what the protocol does not allow, and the connection was closed for it.
    #[error("the peer broke the protocol: {reason}; the connection was closed")]
    Violation {
        /// What it did.
        reason: String,
    },
    /// The peer says that this side did what the protocol does not allow: a bug, here or there.
    #[error("the peer says that this side broke the protocol: {reason}")]
    Accused {
        /// As the peer has it.
        reason: String,
    },
    /// The peer gave up one stream; the connection goes on.
    #[error("the peer gave up the stream")]
    Interrupted,
    /// A message is longer than its stream may carry. It was not sent.
    #[error("the message has {size} bytes, and its stream carries at most {limit}")]
    TooLarge {
        /// In bytes.
        size: usize,
        /// In bytes.
        limit: usize,
    },
    /// This program asked for something that makes no sense here: a bug.
    #[error("wrong use of a link: {0}")]
    Misuse(&'static str),
    /// The operating system, or the TLS library.
    #[error("cannot use the network: {0}")]
    Local(String),
}

impl LinkError {
    /// The error that a peer's close stands for.
    pub(crate) fn closed_by_peer(code: u64, reason: String) -> Self {
        match CLOSE_CODES.iter().find(|known| **known as u64 == code) {
            Some(CloseCode::Stopping) => Self::Stopping,
            Some(CloseCode::Protocol) => Self::Accused { reason },
            Some(CloseCode::Version) => Self::Version { reason },
            Some(CloseCode::Revoked) => Self::Revoked,
            Some(CloseCode::Replaced) => Self::Replaced,
            Some(CloseCode::Done) => Self::Done,
            Some(CloseCode::Busy) => Self::Busy,
            Some(CloseCode::Waiting) => Self::Waiting,
            Some(CloseCode::Quarantined) => Self::Quarantined,
            None => Self::Lost {
                reason: format!("closed with the unknown code {code}"),
            },
        }
    }
}

/// Every close code.
pub(crate) const CLOSE_CODES: &[CloseCode] = &[
    CloseCode::Stopping,
    CloseCode::Protocol,
    CloseCode::Version,
    CloseCode::Revoked,
    CloseCode::Replaced,
    CloseCode::Done,
    CloseCode::Busy,
    CloseCode::Waiting,
    CloseCode::Quarantined,
];
