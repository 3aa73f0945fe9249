//! Finding processes through `/proc`.

#![allow(
    unsafe_code,
    reason = "asking for the priority of a user's processes has no safe form"
)]

use std::collections::{BTreeSet, HashMap};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::pidfd;

/// A process that was looked at. Its number may be somebody else's as soon as it has ended; number and start together never
/// are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    pub(crate) pid: i32,
    /// In ticks since the machine was started.
    started: u64,
}

impl Seen {
    /// The process that has this number now. None for one that is not there or is a zombie.
    pub(crate) fn now(pid: i32) -> Option<Self> {
        let stat = Stat::read(pid).filter(Stat::is_alive)?;
        Some(Self {
            pid,
            started: stat.started,
        })
    }
}

/// Living descendants of a process. As it is a child subreaper, nothing that the script started can leave this tree.
pub(crate) fn descendants(of: u32) -> BTreeSet<Seen> {
    let mut children: HashMap<u32, Vec<Seen>> = HashMap::new();
    for pid in all() {
        // A zombie has no descendants: they went to the reaper.
        if let Some(stat) = Stat::read(pid).filter(Stat::is_alive) {
            let started = stat.started;
            let seen = Seen { pid, started };
            children.entry(stat.parent).or_default().push(seen);
        }
    }
    let mut found = BTreeSet::new();
    let mut open = vec![of];
    while let Some(parent) = open.pop() {
        for seen in children.remove(&parent).into_iter().flatten() {
            open.push(seen.pid.unsigned_abs());
            found.insert(seen);
        }
    }
    found
}

/// Living processes of a uid: as their real, effective, saved or file system's one. A program of that user that changes its
/// user when it is executed has two of them.
pub(crate) fn of_uid(uid: u32) -> BTreeSet<Seen> {
    let uid_text = uid.to_string();
    let is_of = |pid: i32| {
        std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| {
            let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
            uids.is_some_and(|uids| uids.split_whitespace().any(|one| one == uid_text))
        })
    };
    // Asked again when it is known which process it is.
    all()
        .filter(|pid| is_of(*pid))
        .filter_map(Seen::now)
        .filter(|seen| is_of(seen.pid))
        .collect()
}

/// Whether a process of this (real) uid lives. One system call, where [`of_uid`] reads all of `/proc`.
pub(crate) fn is_used(uid: u32) -> bool {
    Errno::clear();
    // SAFETY: getpriority(2) takes numbers, and changes nothing.
    let lowest = unsafe { libc::getpriority(libc::PRIO_USER, uid) };
    // -1 is a priority as well.
    lowest != -1 || Errno::last() != Errno::ESRCH
}

/// Kills every process of an ephemeral uid, again until none is left (for at most two seconds).
pub(crate) fn kill_all_of(uid: u32) {
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        let found = of_uid(uid);
        signal(&found, Signal::SIGKILL);
        if found.is_empty() || Instant::now() > until {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sends a signal to each; one that is gone meanwhile is what was wanted, and who has its number now gets nothing.
pub(crate) fn signal(processes: &BTreeSet<Seen>, signal: Signal) {
    for seen in processes {
        // Whoever has the number now is held on to before it is asked who that is.
        let held = pidfd::open(seen.pid);
        if Stat::read(seen.pid).is_none_or(|stat| stat.started != seen.started) {
            continue;
        }
        match held {
            Ok(held) => {
                let _gone = pidfd::signal(held.as_fd(), signal);
            }
            Err(Errno::ESRCH) => {}
            // Not in this container. That nothing is left behind comes first.
            Err(_) => {
                let _gone = kill(Pid::from_raw(seen.pid), signal);
            }
        }
    }
}

/// What waiting for any child came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reaped {
    /// None has ended.
    Running,
    /// There is none.
    Childless,
    /// This one has ended.
    Ended(i32, ExitStatus),
}

/// Takes the status of a child that has ended, without waiting. (nix has no name for real-time signals, and makes an error
/// of a child that was ended by one.)
#[expect(unsafe_code, reason = "nix cannot tell of real-time signals")]
pub(crate) fn reap() -> Reaped {
    let mut status = 0;
    loop {
        // SAFETY: the pointer is to a live integer.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        return match pid {
            0 => Reaped::Running,
            1.. => Reaped::Ended(pid, ExitStatus::from_raw(status)),
            _ if Errno::last() == Errno::EINTR => continue,
            _ => Reaped::Childless,
        };
    }
}

/// Takes the status of a child that was killed, unless the kernel does not let it go for this long.
pub(crate) fn reap_within(child: Pid, limit: Duration) {
    let until = Instant::now() + limit;
    while !matches!(reap(), Reaped::Childless) && is_alive(child.as_raw()) && Instant::now() < until
    {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What a result says of processes that were killed and are still there.
pub(crate) fn not_let_go(left: &[i32]) -> String {
    let left: Vec<String> = left.iter().map(ToString::to_string).collect();
    format!(
        "the kernel does not let go of process {}, which was killed",
        left.join(", ")
    )
}

/// A signal's name without `SIG`: `KILL`, `RTMIN+2`.
pub(crate) fn signal_name(number: i32) -> String {
    /// The first one that the C library gives to programs; it keeps two for itself.
    const RTMIN: i32 = 34;
    match Signal::try_from(number) {
        Ok(signal) => signal.as_str().trim_start_matches("SIG").to_owned(),
        Err(_) if number == RTMIN => "RTMIN".to_owned(),
        Err(_) if number > RTMIN => format!("RTMIN+{}", number - RTMIN),
        Err(_) => number.to_string(),
    }
}

/// False for one that is not there or is a zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    Stat::read(pid).is_some_and(|stat| stat.is_alive())
}

struct Stat {
    state: u8,
    parent: u32,
    threads: u32,
    /// In ticks since the machine was started.
    started: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        // `pid (name) state ppid ...`: the name may have anything in it, parentheses too.
        let after = text.iter().rposition(|b| *b == b')')? + 2;
        let mut fields = std::str::from_utf8(text.get(after..)?).ok()?.split(' ');
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        // The 20th and the 22nd of all, proc(5).
        let threads = fields.nth(15)?.parse().ok()?;
        let started = fields.nth(1)?.parse().ok()?;
        Some(Self {
            state,
            parent,
            threads,
            started,
        })
    }

    /// A process whose first thread has ended looks like a zombie, and lives on while it has others.
    fn is_alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X') || self.threads > 1
    }
}

fn all() -> impl Iterator<Item = i32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::ephemeral::LAST_UID;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "there must be somebody to kill")]
    fn who_got_the_number_of_a_process_that_has_ended_is_not_killed_in_its_place() {
        let mut child = std::process::Command::new("/bin/sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let seen = Seen::now(child.id().cast_signed()).unwrap();
        let ended_before = Seen {
            started: seen.started - 1,
            ..seen
        };
        signal(&[ended_before].into(), Signal::SIGKILL);
        // Signals come in the order in which they are sent.
        signal(&[seen].into(), Signal::SIGTERM);
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
        assert_eq!(Seen::now(seen.pid), None);
    }

    #[test]
    fn a_uid_is_used_while_a_process_of_it_lives() {
        assert!(is_used(nix::unistd::Uid::current().as_raw()));
        assert!(!is_used(LAST_UID));
    }
}
