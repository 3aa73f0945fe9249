//! What signals do to a shim, and to the script that it starts.

#![allow(unsafe_code, reason = "signal dispositions have no safe form")]

use nix::sys::signal::{SigHandler, Signal, signal};

/// Those that a shim does not obey: they come from terminals, and a pipe that breaks is an error like others.
pub(crate) const IGNORED: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGPIPE,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// Takes back whatever was inherited: a signal that is ignored stays so in what is forked and executed.
pub(crate) fn reset_all() {
    // The kernel's own call, as glibc's refuses 32 and 33, which it keeps for threads and which may be inherited as
    // ignored all the same. A kernel sigaction of zeros is SIG_DFL without flags and mask (at most 32 bytes long).
    let default = [0_u64; 4];
    for number in 1..=64 {
        // SAFETY: the pointer is to a live, large enough and only read structure, and SIG_DFL installs no code.
        // SIGKILL and SIGSTOP are refused, which changes nothing.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                number,
                default.as_ptr(),
                std::ptr::null::<u8>(),
                8,
            )
        };
    }
}

/// Lets a signal do nothing.
pub(crate) fn ignore(which: Signal) -> nix::Result<()> {
    // SAFETY: SIG_IGN installs no code.
    unsafe { signal(which, SigHandler::SigIgn) }.map(drop)
}

/// Lets a signal do what it does by default.
pub(crate) fn reset(which: Signal) -> nix::Result<()> {
    // SAFETY: SIG_DFL installs no code.
    unsafe { signal(which, SigHandler::SigDfl) }.map(drop)
}
