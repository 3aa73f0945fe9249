//! The agent's end of the process that forks shims (`sluice_shim::fork_server`).

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::pipe2;
use sluice_shim::{SERVE, pidfd};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

/// The server. It ends when this is dropped; the shims that it made do not.
#[derive(Debug)]
pub(super) struct ForkServer {
    socket: UnixStream,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the runtime takes the status of what is dropped")
    )]
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

impl ForkServer {
    /// Starts the server.
    #[allow(
        clippy::disallowed_methods,
        reason = "exec is one of the places that start processes (ARCHITECTURE.md)"
    )]
    pub(super) fn start(program: &Path, spools: &Path) -> io::Result<Self> {
        let (own, its) = std::os::unix::net::UnixStream::pair()?;
        own.set_nonblocking(true)?;
        // Nothing here may need code between fork and exec: then the standard library uses posix_spawn.
        let process = Command::new(program)
            .arg(SERVE)
            .arg(spools)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(its)))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self {
            socket: UnixStream::from_std(own)?,
            process,
        })
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
