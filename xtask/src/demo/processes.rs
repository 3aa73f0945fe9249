//! What runs on this machine, from proc(5).

use std::fs;

use anyhow::{Context as _, Result};
use nix::sys::wait::{WaitPidFlag, waitpid};

/// A process that has not ended.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    parent: u32,
    /// Its command line, in words.
    pub(super) command: String,
}

/// All that run now.
pub(super) fn processes() -> Result<Vec<Process>> {
    let pids = fs::read_dir("/proc")
        .context("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids.filter_map(process).collect())
}

/// None where it has ended.
fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may have any in it.
    let mut words = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(words.next()?, "Z" | "X") {
        return None;
    }
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(Process {
        pid,
        parent: words.next()?.parse().ok()?,
        command: String::from_utf8_lossy(&command)
            .replace('\0', " ")
            .trim()
            .to_owned(),
    })
}

/// Those that run now and that we started, or that what we started started, and so on. After `set_child_subreaper` none is
/// lost when the one between ends: it becomes our child.
pub(super) fn descendants() -> Result<Vec<Process>> {
    // Our children that nobody else waits for are done with once they ended.
    while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status.pid().is_some()) {}
    let mut open = processes()?;
    let mut family = vec![std::process::id()];
    let mut found = Vec::new();
    while let Some(parent) = family.pop() {
        let (children, others): (Vec<_>, Vec<_>) = open
            .into_iter()
            .partition(|process| process.parent == parent);
        family.extend(children.iter().map(|child| child.pid));
        found.extend(children);
        open = others;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_a_child_started_is_found_after_the_child_ended() {
        nix::sys::prctl::set_child_subreaper(true).expect("sets");
        let mut child = Command::new("/bin/sh")
            .args(["-c", "sleep 1000.25 & read line; kill $!"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("starts");
        let found = || {
            let found = descendants().expect("reads");
            found
                .into_iter()
                .find(|process| process.command == "sleep 1000.25")
        };
        while found().is_none() {
            std::thread::yield_now();
        }
        child.kill().expect("kills");
        child.wait().expect("waits");
        let left = found().expect("is still there");
        let pid = nix::unistd::Pid::from_raw(left.pid.cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kills");
        while found().is_some() {
            std::thread::yield_now();
        }
    }
}
