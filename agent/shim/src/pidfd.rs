//! Processes by descriptor: unlike a number, it never comes to mean another (`pidfd_open(2)`, Linux 5.3).

#![allow(unsafe_code, reason = "these system calls have no safe form")]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::signal::Signal;

/// The process that has this number now.
///
/// # Errors
/// There is none, or the kernel hands out no descriptors of processes.
pub fn open(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: plain integers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made it for this process, close-on-exec, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal to this very process.
///
/// # Errors
/// It is gone, or may not be signaled.
pub fn signal(process: BorrowedFd<'_>, signal: Signal) -> nix::Result<()> {
    // SAFETY: plain integers, and a null pointer for the information that kill(2) would send.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal as libc::c_int,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    Errno::result(sent).map(drop)
}
