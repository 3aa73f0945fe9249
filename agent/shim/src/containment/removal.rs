//! Ending and removing groups: those of an operation that is over, and those that a killed shim left behind.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};

use super::{PREFIX, place};
use crate::processes::{self, Seen};

/// Removes groups of shims that are no more. One with processes in it stays: the kernel does not remove it, and
/// [`end`] will.
pub(super) fn remove_abandoned(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let shim = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if let Some(pid) = shim.filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()))
            && !Path::new("/proc").join(pid).exists()
        {
            let group = entry.path();
            remove_nested(&group);
            let _not_empty_or_gone = std::fs::remove_dir(&group);
        }
    }
}

/// Ends and removes groups that a killed shim left behind.
pub(crate) fn end(groups: &[PathBuf], notes: &mut Vec<String>) {
    // Only ever a cgroup of ours, whatever a spool says.
    let ours: Vec<PathBuf> = groups
        .iter()
        .filter(|path| path.parent().is_some_and(place::is_ours) && is_group(path))
        .cloned()
        .collect();
    let until = Instant::now() + Duration::from_secs(2);
    for group in &ours {
        let _version_1_has_no_such_file = std::fs::write(group.join("cgroup.kill"), "1");
        loop {
            let left = members(group);
            if left.is_empty() || Instant::now() > until {
                break;
            }
            processes::signal(&left, Signal::SIGKILL);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    remove(&ours, notes);
}

fn is_group(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| {
        [CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC].contains(&found.filesystem_type())
    })
}

pub(super) fn remove(groups: &[PathBuf], notes: &mut Vec<String>) {
    for group in groups {
        let until = Instant::now() + Duration::from_millis(200);
        loop {
            match std::fs::remove_dir(group) {
                Ok(()) => break,
                Err(e) if e.kind() == ErrorKind::NotFound => break,
                // The last process is reaped but not yet out of its group; or there are groups in it.
                Err(e) if e.kind() == ErrorKind::ResourceBusy && Instant::now() < until => {
                    remove_nested(group);
                    std::thread::sleep(Duration::from_micros(200))
                }
                Err(e) => {
                    notes.push(format!(
                        "the cgroup {} could not be removed: {e}",
                        group.display()
                    ));
                    break;
                }
            }
        }
    }
}

/// Groups in a group, which a script of root may have made in its own.
fn nested(group: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(group).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}

fn remove_nested(group: &Path) {
    for inner in nested(group) {
        remove_nested(&inner);
        let _not_empty_yet = std::fs::remove_dir(&inner);
    }
}

/// The processes in a group and in those in it. One that ends meanwhile is not taken for another that gets its number.
pub(super) fn members(group: &Path) -> BTreeSet<Seen> {
    let list = || {
        let mut found = BTreeSet::new();
        list(group, &mut found);
        found
    };
    let seen: BTreeSet<Seen> = list().into_iter().filter_map(Seen::now).collect();
    if seen.is_empty() {
        return seen;
    }
    let still = list();
    seen.into_iter()
        .filter(|process| still.contains(&process.pid))
        .collect()
}

fn list(group: &Path, found: &mut BTreeSet<i32>) {
    let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    for inner in nested(group) {
        list(&inner, found);
    }
}
