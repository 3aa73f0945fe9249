//! The messages, by the stream that carries them.
//!
//! Every stream starts with one byte, its [`StreamKind`]; frames follow: a length of four bytes (big endian) and a
//! message in its one CBOR encoding. Which kind may be opened by whom on which ALPN is a table, [`StreamKind::allowed`],
//! and whatever is not in it closes the connection.
//!
//! | kind | direction | ALPN | carries |
//! |---|---|---|---|
//! | control | bidirectional, opened by the agent, once, first | `sluice/1` | [`control::FromAgent`], [`control::FromHost`] |
//! | operation | unidirectional, opened by the host | `sluice/1` | one [`operation::Operation`] |
//! | progress | unidirectional, opened by the agent | `sluice/1` | [`operation::Progress`] of one operation |
//! | blob | bidirectional, opened by the agent | `sluice/1` | one [`blob::Request`], one [`blob::Answer`], then the bytes |
//! | enroll | bidirectional, opened by the agent | `sluice-enroll/1` | one [`enroll::Request`], one [`enroll::Answer`] |

pub mod blob;
pub mod control;
pub mod enroll;
pub mod operation;

/// The ALPN of enrolled machines.
pub const ALPN: &[u8] = b"sluice/1";
/// The ALPN that carries enrollment alone.
pub const ALPN_ENROLL: &[u8] = b"sluice-enroll/1";

/// What a stream is for: its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the table above")]
pub enum StreamKind {
    Control = 1,
    Operation = 2,
    Progress = 3,
    Blob = 4,
    Enroll = 5,
}

/// Who opens a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words say it")]
pub enum Side {
    Host,
    Agent,
}

/// Whether bytes flow one way or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words say it")]
pub enum Direction {
    Unidirectional,
    Bidirectional,
}

impl StreamKind {
    /// Every kind.
    pub const ALL: &[Self] = &[
        Self::Control,
        Self::Operation,
        Self::Progress,
        Self::Blob,
        Self::Enroll,
    ];

    /// The kind with this first byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| *kind as u8 == byte)
    }

    /// Whether `opener` may open a stream of this kind and direction on a connection with this ALPN.
    #[must_use]
    pub fn allowed(self, alpn: &[u8], opener: Side, direction: Direction) -> bool {
        let (on, by, flow) = match self {
            Self::Control | Self::Blob => (ALPN, Side::Agent, Direction::Bidirectional),
            Self::Operation => (ALPN, Side::Host, Direction::Unidirectional),
            Self::Progress => (ALPN, Side::Agent, Direction::Unidirectional),
            Self::Enroll => (ALPN_ENROLL, Side::Agent, Direction::Bidirectional),
        };
        (on, by, flow) == (alpn, opener, direction)
    }

    /// The longest frame on a stream of this kind, in bytes. The length is checked before anything is read.
    #[must_use]
    pub const fn max_frame(self) -> usize {
        match self {
            Self::Control => 1 << 20,
            Self::Operation => 8 << 20,
            Self::Progress => 2 << 20,
            Self::Blob => 4 << 10,
            Self::Enroll => 64 << 10,
        }
    }
}

/// Why a side closed a connection: QUIC application error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseCode {
    /// The program is stopping; come back.
    Stopping = 0,
    /// A message or stream that is not allowed here.
    Protocol = 1,
    /// No common protocol version.
    Version = 2,
    /// The machine is revoked; do not come back.
    Revoked = 3,
    /// A newer connection of the same machine took over.
    Replaced = 4,
    /// Enrollment is done.
    Done = 5,
    /// Too many connections or requests; come back later.
    Busy = 6,
    /// The machine has joined, and nobody has approved it yet; come back later.
    Waiting = 7,
    /// The machine is suspected to be there twice: nothing is done for it until an operator says so.
    Quarantined = 8,
}
