//! Cgroups of an operation: limits, counters, and killing all at once. Best effort; what is not there is noted, and
//! resource limits and the process tree stand in for it.
//!
//! ```text
//! unified hierarchy   <own>/sluice/shim-<pid>-<time>   cgroup.kill; memory.max, pids.max, cpu.max where it has controllers
//! version 1           <own>/sluice/shim-<pid>-<time>   in each of memory, pids, cpu, where the unified one has none
//! ```
//! Making and removing groups is dear: a shim makes its own while it waits for an operation, and removes them after the
//! last event. What a shim that was killed in between left empty is removed by the next one.
//!
//! `<own>` is the cgroup the shim was started in, or the hierarchy's root where that is not visible (containers).
//! Entering is cheap only in two ways: cloned into the group (version 2), or a single thread writing 0 to `tasks`
//! (version 1). Moving a process by `cgroup.procs` takes a lock over all forks of the machine.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::event::{ContainmentKind, LimitHit, UnixMillis};
use crate::processes;
use crate::spec::Limits;

const ROOT: &str = "/sys/fs/cgroup";
/// How the names of groups begin.
const PREFIX: &str = "shim-";

/// The groups of one shim, made before it has an operation.
pub(crate) struct Groups {
    unified: Option<PathBuf>,
    /// Directories of version 1 by controller, and their open `tasks` files for the child.
    version_1: Vec<(&'static str, PathBuf, File)>,
}

/// The groups of one operation, with its limits.
pub(crate) struct Containment {
    unified: Option<PathBuf>,
    /// The directory that limits and counts it. With version 2 all directories are `unified`.
    memory: Option<PathBuf>,
    processes: Option<PathBuf>,
    /// Directories of version 1, and their open `tasks` files for the child.
    version_1: Vec<(PathBuf, File)>,
}

/// How operations are held together on this machine: what a shim that is started from here can make.
#[must_use]
pub fn available() -> ContainmentKind {
    let groups = Groups::make();
    let kind = kind(groups.unified.is_some(), !groups.version_1.is_empty());
    groups.remove();
    kind
}

const fn kind(unified: bool, version_1: bool) -> ContainmentKind {
    match (unified, version_1) {
        (true, false) => ContainmentKind::CgroupV2,
        (true, true) => ContainmentKind::Hybrid,
        (false, _) => ContainmentKind::None,
    }
}

impl Groups {
    /// Makes them, as far as the machine allows.
    pub(crate) fn make() -> Self {
        let mut made = Self {
            unified: None,
            version_1: Vec::new(),
        };
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let name = format!("{PREFIX}{}-{}", std::process::id(), UnixMillis::now().0);
        made.make_unified(&own, &name);
        for (controller, file) in [
            ("memory", "memory.max"),
            ("pids", "pids.max"),
            ("cpu", "cpu.max"),
        ] {
            let unified = made.unified.as_ref();
            if !unified.is_some_and(|group| group.join(file).exists()) {
                made.make_version_1(&own, controller, &name);
            }
        }
        made
    }

    /// Sets the limits of an operation. A group of version 1 that limits nothing is given back.
    pub(crate) fn limit(mut self, limits: &Limits, notes: &mut Vec<String>) -> Containment {
        let mut made = Containment {
            unified: self.unified.take(),
            memory: None,
            processes: None,
            version_1: Vec::new(),
        };
        if let Some(group) = &made.unified {
            if let Some(bytes) = limits.memory
                && write(&group.join("memory.max"), &bytes.to_string())
            {
                let _no_swap_accounting = write(&group.join("memory.swap.max"), "0");
                made.memory = Some(group.clone());
            }
            if limit_processes(group, limits) {
                made.processes = Some(group.clone());
            }
            if let Some(percent) = limits.cpu_percent {
                let _no_controller = write(
                    &group.join("cpu.max"),
                    &format!("{} 100000", u64::from(percent) * 1000),
                );
            }
        }
        for (controller, group, tasks) in self.version_1.drain(..) {
            let limited = match controller {
                "memory" => limit_memory_1(&group, limits),
                "pids" => limit_processes(&group, limits),
                _ => limit_cpu_1(&group, limits),
            };
            if !limited {
                drop(tasks);
                remove(&[group], notes);
                continue;
            }
            match controller {
                "memory" => made.memory = Some(group.clone()),
                "pids" => made.processes = Some(group.clone()),
                _ => {}
            }
            made.version_1.push((group, tasks));
        }
        if limits.memory.is_some() && made.memory.is_none() {
            notes.push("memory is limited for each process, not in all: no memory controller can be used here".into());
        }
        made
    }

    /// Gives them back: there is no operation.
    pub(crate) fn remove(self) {
        let version_1 = self.version_1.into_iter().map(|(_, path, _)| path);
        let groups: Vec<_> = self.unified.into_iter().chain(version_1).collect();
        // Nobody is there to be told; the next shim removes what is left.
        remove(&groups, &mut Vec::new());
    }
}

impl Containment {
    pub(crate) fn kind(&self) -> ContainmentKind {
        kind(self.unified.is_some(), !self.version_1.is_empty())
    }

    /// The group to clone the child into.
    pub(crate) fn unified(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    /// Files to which the child writes `0` to enter the version 1 groups.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = &File> {
        self.version_1.iter().map(|(_, tasks)| tasks)
    }

    pub(crate) fn limits_memory(&self) -> bool {
        self.memory.is_some()
    }

    pub(crate) fn limits_processes(&self) -> bool {
        self.processes.is_some()
    }

    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.unified
            .iter()
            .chain(self.version_1.iter().map(|(path, _)| path))
            .cloned()
            .collect()
    }

    pub(crate) fn members(&self) -> BTreeSet<i32> {
        self.paths().iter().flat_map(|path| members(path)).collect()
    }

    /// Kills what is in the unified group, new processes included. The caller kills the rest of the tree.
    pub(crate) fn kill(&self) {
        if let Some(group) = &self.unified {
            let _older_kernels_have_no_such_file = std::fs::write(group.join("cgroup.kill"), "1");
        }
    }

    /// What the kernel counted.
    pub(crate) fn limit_hit(&self) -> Option<LimitHit> {
        let counter = |group: &Option<PathBuf>, files: &[&str], key: &str| {
            let group = group.as_ref()?;
            files
                .iter()
                .find_map(|file| value_of(&std::fs::read_to_string(group.join(file)).ok()?, key))
        };
        if counter(
            &self.memory,
            &["memory.events", "memory.oom_control"],
            "oom_kill",
        )
        .is_some_and(|n| n > 0)
        {
            return Some(LimitHit::Memory);
        }
        (counter(&self.processes, &["pids.events"], "max").is_some_and(|n| n > 0))
            .then_some(LimitHit::Processes)
    }

    pub(crate) fn remove(self, notes: &mut Vec<String>) {
        let paths = self.paths();
        drop(self);
        remove(&paths, notes);
    }
}

impl Groups {
    fn make_unified(&mut self, own: &str, name: &str) {
        let pure = Path::new(ROOT).join("cgroup.controllers").exists();
        let mount = if pure {
            PathBuf::from(ROOT)
        } else {
            Path::new(ROOT).join("unified")
        };
        if !mount.join("cgroup.procs").exists() {
            return;
        }
        let base = own_group(&mount, own, |controllers| controllers.is_empty());
        let parent = base.join("sluice");
        if !make_directory(&parent) {
            return;
        }
        for directory in [&base, &parent] {
            for controller in ["+memory", "+pids", "+cpu"] {
                // Refused where the hierarchy does not have the controller, or the group has processes of its own.
                let _seen_by_the_files_below =
                    write(&directory.join("cgroup.subtree_control"), controller);
            }
        }
        remove_abandoned(&parent);
        let group = parent.join(name);
        if std::fs::create_dir(&group).is_ok() {
            self.unified = Some(group);
        }
    }

    fn make_version_1(&mut self, own: &str, controller: &'static str, name: &str) {
        let mount = Path::new(ROOT).join(controller);
        if !mount.join("tasks").exists() {
            return;
        }
        let parent = own_group(&mount, own, |controllers| {
            controllers.split(',').any(|c| c == controller)
        })
        .join("sluice");
        if !make_directory(&parent) {
            return;
        }
        remove_abandoned(&parent);
        let group = parent.join(name);
        if std::fs::create_dir(&group).is_err() {
            return;
        }
        let tasks = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_CLOEXEC)
            .open(group.join("tasks"));
        match tasks {
            Ok(tasks) => self.version_1.push((controller, group, tasks)),
            Err(_) => {
                let _nothing_is_in_it = std::fs::remove_dir(&group);
            }
        }
    }
}

/// Removes groups of shims that are no more. One with processes in it stays: the kernel does not remove it, and
/// [`end`] will.
fn remove_abandoned(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let shim = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if let Some(pid) = shim.filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()))
            && !Path::new("/proc").join(pid).exists()
        {
            let _not_empty_or_gone = std::fs::remove_dir(entry.path());
        }
    }
}

/// Ends and removes groups that a killed shim left behind.
pub(crate) fn end(groups: &[PathBuf], notes: &mut Vec<String>) {
    // Only ever a directory of ours, whatever a spool says.
    let ours: Vec<PathBuf> = groups
        .iter()
        .filter(|path| {
            path.starts_with(ROOT)
                && path
                    .parent()
                    .is_some_and(|parent| parent.ends_with("sluice"))
        })
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

fn remove(groups: &[PathBuf], notes: &mut Vec<String>) {
    for group in groups {
        let until = Instant::now() + Duration::from_millis(200);
        loop {
            match std::fs::remove_dir(group) {
                Ok(()) => break,
                Err(e) if e.kind() == ErrorKind::NotFound => break,
                // The last process is reaped but not yet out of its group.
                Err(e) if e.kind() == ErrorKind::ResourceBusy && Instant::now() < until => {
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

fn members(group: &Path) -> BTreeSet<i32> {
    let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// The shim's own group in a hierarchy: `id:controllers:path` lines of /proc/self/cgroup.
fn own_group(mount: &Path, own: &str, is_it: impl Fn(&str) -> bool) -> PathBuf {
    own.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .find(|(controllers, _)| is_it(controllers))
        .map(|(_, path)| mount.join(path.trim_start_matches('/')))
        .filter(|path| path.is_dir() && !path.components().any(|c| c.as_os_str() == ".."))
        .unwrap_or_else(|| mount.to_owned())
}

fn limit_memory_1(group: &Path, limits: &Limits) -> bool {
    let Some(bytes) = limits.memory else {
        return false;
    };
    let bytes = bytes.to_string();
    if !write(&group.join("memory.limit_in_bytes"), &bytes) {
        return false;
    }
    let _no_swap_accounting = write(&group.join("memory.memsw.limit_in_bytes"), &bytes);
    true
}

fn limit_processes(group: &Path, limits: &Limits) -> bool {
    limits
        .processes
        .is_some_and(|count| write(&group.join("pids.max"), &count.to_string()))
}

fn limit_cpu_1(group: &Path, limits: &Limits) -> bool {
    let Some(percent) = limits.cpu_percent else {
        return false;
    };
    write(&group.join("cpu.cfs_period_us"), "100000")
        && write(
            &group.join("cpu.cfs_quota_us"),
            &(u64::from(percent) * 1000).to_string(),
        )
}

fn make_directory(path: &Path) -> bool {
    match std::fs::create_dir(path) {
        Ok(()) => true,
        Err(e) => e.kind() == ErrorKind::AlreadyExists,
    }
}

/// Writes to a control file that exists; one that does not is never made.
fn write(path: &Path, text: &str) -> bool {
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .is_ok()
}

fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_their_whole_name() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(value_of(text, "oom_kill"), Some(3));
        assert_eq!(value_of("max 7\n", "max"), Some(7));
        assert_eq!(value_of("low 0\n", "max"), None);
    }

    #[test]
    fn the_own_group_is_found_or_the_root_of_the_hierarchy_stands_in() {
        let own = "4:cpu,memory:/no/such/group\n0::/\n";
        assert_eq!(
            own_group(Path::new("/proc"), own, |c| c == "cpu,memory"),
            Path::new("/proc")
        );
        assert_eq!(
            own_group(Path::new("/proc"), "1:memory:/self\n", |c| c == "memory"),
            Path::new("/proc/self")
        );
        assert_eq!(
            own_group(Path::new("/proc"), "1:memory:/../etc\n", |c| c == "memory"),
            Path::new("/proc")
        );
    }
}
