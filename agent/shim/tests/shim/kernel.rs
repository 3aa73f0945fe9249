//! An older kernel than this one, as far as programs can tell.
#![expect(
    unsafe_code,
    reason = "calls of seccomp's notifications, for which there is no library here"
)]

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;

/// `_IOWR('!', 0, struct seccomp_notif)` and `_IOWR('!', 1, struct seccomp_notif_resp)` of `linux/seccomp.h`.
const RECEIVE: libc::Ioctl = 0xC050_2100_u32 as libc::Ioctl;
const SEND: libc::Ioctl = 0xC018_2101_u32 as libc::Ioctl;

/// Does something where the kernel says that it has this version of Landlock's interface, which is older than what it has.
/// None, visibly, where it has not even that.
pub(crate) fn with_landlock<T: Send>(version: i64, work: impl FnOnce() -> T + Send) -> Option<T> {
    // SAFETY: Asks for the version, with no memory to read.
    let real = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) };
    if real < version {
        eprintln!("LEFT OUT: this kernel has version {real} of Landlock's interface");
        return None;
    }
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        let working = scope.spawn(move || {
            sender.send(ask_about_versions()).unwrap();
            drop(sender);
            work()
        });
        let questions = receiver.recv().unwrap();
        while !working.is_finished() {
            answer(&questions, version);
        }
        Some(working.join().unwrap())
    })
}

/// From here on every question of this thread, and of what it starts, for the version is somebody else's to answer.
fn ask_about_versions() -> OwnedFd {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let create = u32::try_from(libc::SYS_landlock_create_ruleset).unwrap();
    let mut steps = [
        step(LOAD, 0, 0, 0),
        step(EQUAL, create, 0, 3),
        // The lower half of the third argument: the flag that asks for the version.
        step(LOAD, 16 + 2 * 8, 0, 0),
        step(EQUAL, 1, 0, 1),
        step(RETURN, libc::SECCOMP_RET_USER_NOTIF, 0, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: 6,
        filter: steps.as_mut_ptr(),
    };
    prctl::set_no_new_privs().unwrap();
    // SAFETY: The program and its steps live until the call is over, and the number of steps is right. What it returns is
    // a new descriptor of nobody else.
    unsafe {
        let questions = libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        );
        assert!(questions >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(i32::try_from(questions).unwrap())
    }
}

/// Answers one question, or finds after a moment that there is none.
fn answer(questions: &OwnedFd, version: i64) {
    let mut waiting = [PollFd::new(questions.as_fd(), PollFlags::POLLIN)];
    if poll(&mut waiting, PollTimeout::from(10_u8)) != Ok(1)
        || waiting[0].revents() != Some(PollFlags::POLLIN)
    {
        return;
    }
    // SAFETY: Both are structures of integers, for which zeros are values, and the kernel reads and writes no more of them
    // than the numbers of the calls say.
    unsafe {
        let mut question: libc::seccomp_notif = std::mem::zeroed();
        if libc::ioctl(questions.as_raw_fd(), RECEIVE, &raw mut question) != 0 {
            return;
        }
        let mut given: libc::seccomp_notif_resp = std::mem::zeroed();
        (given.id, given.val) = (question.id, version);
        libc::ioctl(questions.as_raw_fd(), SEND, &raw mut given);
    }
}
