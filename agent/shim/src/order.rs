//! What an agent says to a shim, on the shim's standard input.
//!
//! ```text
//! spec  0x01, the number of the format, eight bytes of length (big-endian), then the description as CBOR
//! go    0x02
//! end of input before `go`: there is no operation; what was made ready is removed, in silence
//! ```
//! A description alone starts nothing: the shim makes everything ready for it and waits. So an agent may hand it over
//! while it is still putting on disk that the operation starts, and say `go` once that is there.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;

use crate::format::{self, FORMAT, OtherFormat};
use crate::spec::{Spec, SpecError};

/// The largest description that is read: a script with its attachments given in line.
const MAX_SPEC: u64 = 256 * 1024 * 1024;

const SPEC: u8 = 1;
const GO: u8 = 2;

/// A description as it goes over the pipe.
#[must_use]
pub fn describe(spec: &Spec) -> Vec<u8> {
    let bytes = spec.to_bytes();
    let mut order = Vec::with_capacity(bytes.len() + 10);
    order.extend_from_slice(&[SPEC, FORMAT]);
    order.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    order.extend_from_slice(&bytes);
    order
}

/// The word to start what was described.
#[must_use]
pub const fn go() -> &'static [u8] {
    &[GO]
}

/// Why an order cannot be followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    #[error("the order cannot be read")]
    Read(#[source] std::io::Error),
    #[error("the order is none that a shim knows")]
    Unknown,
    #[error("the agent's description cannot be followed")]
    Format(#[from] OtherFormat),
    #[error("the operation's description ends early, or is longer than a shim reads")]
    Length,
    #[error(transparent)]
    Spec(#[from] SpecError),
}

/// What became of a description that everything is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// Start it.
    Go,
    /// The agent does not want it, or is no more.
    Gone,
    /// Somebody asked for its end before it began.
    Canceled,
}

/// The end of the pipe that orders come from.
pub(crate) struct Orders(File);

impl Orders {
    /// From standard input, which is read without a buffer: what follows a description stays in the pipe.
    pub(crate) fn from_stdin() -> Result<Self, OrderError> {
        let stdin = std::io::stdin().as_fd().try_clone_to_owned();
        stdin
            .map(|stdin| Self(stdin.into()))
            .map_err(OrderError::Read)
    }

    /// Waits for a description; none where the agent ends without one.
    pub(crate) fn description(&mut self) -> Result<Option<Spec>, OrderError> {
        let mut head = [0; 10];
        if self.0.read(&mut head[..1]).map_err(OrderError::Read)? == 0 {
            return Ok(None);
        }
        if head[0] != SPEC {
            return Err(OrderError::Unknown);
        }
        self.0
            .read_exact(&mut head[1..2])
            .map_err(OrderError::Read)?;
        // Before anything else: another version may put something else there.
        format::check(head[1])?;
        self.0
            .read_exact(&mut head[2..])
            .map_err(OrderError::Read)?;
        let [_, _, length @ ..] = head;
        let length = u64::from_be_bytes(length);
        if length > MAX_SPEC {
            return Err(OrderError::Length);
        }
        // Memory follows what comes, not what is announced.
        let mut bytes = Vec::new();
        let read = (&self.0).take(length).read_to_end(&mut bytes);
        if read.map_err(OrderError::Read)? as u64 != length {
            return Err(OrderError::Length);
        }
        Ok(Some(Spec::from_bytes(&bytes)?))
    }

    /// Waits for the word to start.
    pub(crate) fn word(&mut self, signals: &SignalFd) -> Word {
        loop {
            // Also where both came: an end that was asked for before the start counts.
            if canceled(signals) {
                return Word::Canceled;
            }
            let mut fds = [
                PollFd::new(self.0.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(_) => return Word::Gone,
            }
            if fds[1].any().unwrap_or(true) {
                continue;
            }
            let mut word = [0];
            return match self.0.read(&mut word) {
                Ok(1) if word[0] == GO => Word::Go,
                _ => Word::Gone,
            };
        }
    }
}

/// True when SIGTERM came. Children are not looked at here: whether the one that there is still lives shows when it is let
/// go.
pub(crate) fn canceled(signals: &SignalFd) -> bool {
    std::iter::from_fn(|| signals.read_signal().ok().flatten())
        .any(|info| info.ssi_signo == Signal::SIGTERM as u32)
}
