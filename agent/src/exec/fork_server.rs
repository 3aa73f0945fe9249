//! The agent's end of the process that forks shims (`sluice_shim::fork_server`).

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::pipe2;
use sluice_shim::format::{self, OtherFormat};
use sluice_shim::{SERVE, pidfd};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::Child;

use super::program::Program;

/// How long a server may take to say which format it has.
const GREETING: Duration = Duration::from_secs(10);

/// The server. It ends when this is dropped; the shims that it made do not.
#[derive(Debug)]
pub(super) struct ForkServer {
    socket: UnixStream,
    process: Child,
}

/// A shim, with the pipes to it.
#[derive(Debug)]
pub(super) struct Shim {
    pub(super) stdin: pipe::Sender,
    pub(super) stdout: pipe::Receiver,
    process: OwnedFd,
    id: u32,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Format(#[from] OtherFormat),
}

impl ForkServer {
    /// Starts the server, and hears that it has the same format.
    pub(super) async fn start(program: &Program, spools: &Path) -> Result<Self, StartError> {
        let (own, its) = std::os::unix::net::UnixStream::pair()?;
        own.set_nonblocking(true)?;
        // Nothing here may need code between fork and exec: then the standard library uses posix_spawn.
        let process = program
            .command()
            .arg(SERVE)
            .arg(spools)
            .stdin(Stdio::from(OwnedFd::from(its)))
            .stdout(Stdio::null())
            .spawn()?;
        let mut socket = UnixStream::from_std(own)?;
        greeted(&mut socket).await?;
        Ok(Self { socket, process })
    }

    /// Its process, while it is there.
    pub(super) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Asks for a shim. After an error the server is of no use any more.
    pub(super) async fn fork(&mut self) -> io::Result<Shim> {
        let (its_input, stdin) = pipe2(OFlag::O_CLOEXEC)?;
        let (stdout, its_output) = pipe2(OFlag::O_CLOEXEC)?;
        let ends = [its_input.as_raw_fd(), its_output.as_raw_fd()];
        self.socket.writable().await?;
        sendmsg::<()>(
            self.socket.as_raw_fd(),
            &[IoSlice::new(&[0])],
            &[ControlMessage::ScmRights(&ends)],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        drop((its_input, its_output));
        let mut id = [0; 4];
        self.socket.read_exact(&mut id).await?;
        let id = u32::from_be_bytes(id);
        if id == 0 {
            return Err(io::Error::other("no process could be made"));
        }
        Ok(Shim {
            stdin: pipe::Sender::from_owned_fd(stdin)?,
            stdout: pipe::Receiver::from_owned_fd(stdout)?,
            process: pidfd::open(id.cast_signed())?,
            id,
        })
    }
}

/// Hears which format a server has: before it is asked for anything, and before it is believed anything.
async fn greeted(socket: &mut UnixStream) -> Result<(), StartError> {
    let mut number = [0];
    tokio::time::timeout(GREETING, socket.read_exact(&mut number))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
        .map_err(|source| io::Error::new(source.kind(), "it ended without a word"))?;
    Ok(format::check(number[0])?)
}

#[cfg(test)]
impl ForkServer {
    /// Kills the process.
    #[allow(clippy::unwrap_used, reason = "tests")]
    pub(super) fn kill(&self) {
        let id = i32::try_from(self.process.id().unwrap()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), Signal::SIGKILL).unwrap();
    }
}

impl Shim {
    /// Its process id.
    pub(super) const fn id(&self) -> u32 {
        self.id
    }

    /// Whether it is there and has not said anything.
    pub(super) fn waits(&self) -> bool {
        let read = self.stdout.try_read(&mut [0]);
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends a signal to this very process.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd::signal(self.process.as_fd(), signal)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use sluice_shim::format::FORMAT;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn a_server_of_another_version_is_known_by_its_first_word() {
        for (said, expected) in [
            (&[FORMAT][..], "fine"),
            (&[FORMAT + 1], "another version of Sluice"),
            (&[], "without a word"),
        ] {
            let (mut ours, mut its) = UnixStream::pair().unwrap();
            its.write_all(said).await.unwrap();
            drop(its);
            let heard = greeted(&mut ours).await;
            let heard = heard.map_or_else(|error| error.to_string(), |()| "fine".to_owned());
            assert!(heard.contains(expected), "{heard}");
        }
    }
}
