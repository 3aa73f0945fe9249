//! Shims without an exec: a process that was executed once forks itself for each, which takes a fifth of the time that a
//! program takes to be loaded.
//!
//! ```text
//! server -> agent   the number of the format (`format`), once, before anything else
//! agent -> server   one byte, with the new shim's standard input and output (SCM_RIGHTS, unix(7))
//! server -> agent   its process id, four bytes, big-endian; zero where it could not be made
//! ```
//! The server ends with the socket that is its standard input, and knows nothing of any operation. A process id that it has
//! told stays that process's until the server is asked for the next one: it takes no status before.

#![allow(
    unsafe_code,
    reason = "fork, and descriptors that come over a socket, have no safe form"
)]

use std::io::{IoSliceMut, Write as _};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stdin, dup2_stdout, fork};

use crate::format::FORMAT;
use crate::{operation, signals};

/// Serves until the agent is gone. Returns in each shim too, once its operation has ended.
pub(crate) fn serve(spools: PathBuf) -> ExitCode {
    if operation::close_inherited().is_err() {
        return ExitCode::FAILURE;
    }
    // What a terminal sends to all of its processes is for the agent, whose end ends this.
    for signal in [Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE] {
        let _best_effort = signals::ignore(signal);
    }
    let Ok(socket) = std::io::stdin().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    let mut agent = UnixStream::from(socket);
    if agent.write_all(&[FORMAT]).is_err() {
        return ExitCode::SUCCESS;
    }
    let mut made = Vec::new();
    loop {
        let [input, output] = match ask(&agent) {
            Ok(Some(ends)) => ends,
            Ok(None) => return ExitCode::SUCCESS,
            Err(_) => return ExitCode::FAILURE,
        };
        made.retain(|pid| is_running(*pid));
        // SAFETY: this process has one thread, so the child may do whatever a process may.
        let pid = match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                drop(agent);
                return become_shim(input, output, spools);
            }
            Ok(ForkResult::Parent { child }) => {
                made.push(child);
                child.as_raw()
            }
            Err(_) => 0,
        };
        drop((input, output));
        if agent.write_all(&pid.to_be_bytes()).is_err() {
            return ExitCode::SUCCESS;
        }
    }
}

/// The descriptors of the next shim; none at the end.
fn ask(agent: &UnixStream) -> nix::Result<Option<[OwnedFd; 2]>> {
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let mut room = nix::cmsg_space!([std::os::fd::RawFd; 2]);
    let message = loop {
        match recvmsg::<()>(
            agent.as_raw_fd(),
            &mut bytes,
            Some(&mut room),
            MsgFlags::MSG_CMSG_CLOEXEC,
        ) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    if message.bytes == 0 {
        return Ok(None);
    }
    let mut ends = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            // SAFETY: the kernel has just made these for this process, and nothing else knows them.
            ends.extend(
                descriptors
                    .into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    <[OwnedFd; 2]>::try_from(ends)
        .map(Some)
        .map_err(|_| Errno::EBADMSG)
}

fn is_running(shim: Pid) -> bool {
    matches!(
        waitpid(shim, Some(WaitPidFlag::WNOHANG)),
        Ok(WaitStatus::StillAlive)
    )
}

/// In the new process.
fn become_shim(input: OwnedFd, output: OwnedFd, spools: PathBuf) -> ExitCode {
    if dup2_stdin(&input)
        .and_then(|()| dup2_stdout(&output))
        .is_err()
    {
        return ExitCode::FAILURE;
    }
    // A shim begins by closing whatever it has inherited.
    drop((input, output));
    operation::run(Some(spools))
}
