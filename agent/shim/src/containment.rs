//! Cgroups of an operation: limits, counters, and killing all at once. Best effort; what is not there is noted, and
//! resource limits and the process tree stand in for it.
//!
//! ```text
//! unified hierarchy   cgroup.kill; memory.max, pids.max, cpu.max where it has controllers
//! version 1           one group in each of memory, pids, cpu, where the unified hierarchy does not have it
//! ```
//! `layout` finds the groups of a process, `place` says where those of an operation are made and what has to move for it,
//! `scope` has systemd give the shim a unit of its own, `removal` takes all of it away again, and `trial` finds out
//! beforehand what there will be.
//!
//! Making and removing groups is dear: a shim makes its own while it waits for an operation, and removes them after the
//! last event. What a shim that was killed in between left empty is removed by the next one.
//!
//! Entering is cheap only in two ways: cloned into the group (version 2), or a single thread writing 0 to `tasks`
//! (version 1). Moving a process by `cgroup.procs` takes a lock over all forks of the machine, for some milliseconds.

mod layout;
mod place;
mod removal;
mod scope;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::layout::Controller;
use self::layout::Layout;
use self::place::Place;
pub use self::place::settle;
pub(crate) use self::removal::end;
use self::removal::{members, remove, remove_abandoned};
pub(crate) use self::trial::try_out;
pub use self::trial::{Found, TRY_OUT, Whereabouts};
use crate::event::{ContainmentKind, LimitHit, UnixMillis};
use crate::processes::Seen;
use crate::spec::Limits;

/// How the names of groups begin.
const PREFIX: &str = "shim-";

/// The groups of one shim, made before it has an operation.
pub(crate) struct Groups {
    unified: Option<PathBuf>,
    /// Directories of version 1, and their open `tasks` files for the child.
    version_1: Vec<(Controller, PathBuf, File)>,
    /// Where the shim itself is now.
    whereabouts: Whereabouts,
    /// Why that is not where it should be.
    notes: Vec<String>,
}

/// Which group limits something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum By {
    /// The unified one, for a process that has entered it.
    Unified,
    /// One of version 1.
    Version1,
}

impl By {
    /// Whether this is limited for the operation as a whole, when its process `entered` the unified group or did not.
    pub(crate) fn limits(
        limiting: &[(Controller, Self)],
        controller: Controller,
        entered: bool,
    ) -> bool {
        limiting
            .iter()
            .any(|(found, by)| *found == controller && (entered || *by == Self::Version1))
    }
}

/// The groups of one operation, with its limits.
pub(crate) struct Containment {
    unified: Option<PathBuf>,
    /// Directories of version 1.
    version_1: Vec<PathBuf>,
    /// The directory that limits and counts. With version 2 all are `unified`.
    limiting: BTreeMap<Controller, PathBuf>,
    /// How often the kernel had killed in it before the operation.
    killed_before: u64,
}

impl Groups {
    /// Makes them, as far as the machine allows.
    pub(crate) fn make() -> Self {
        let name = format!("{PREFIX}{}-{}", std::process::id(), UnixMillis::now().0);
        let mut made = Self {
            unified: None,
            version_1: Vec::new(),
            whereabouts: Whereabouts::WithAgent,
            notes: Vec::new(),
        };
        if scope::is_offered() {
            let scope = place::scope_of(&name);
            match scope::enter(Path::new(scope::BUS), &scope, scope::LIMIT) {
                Ok(()) => made.whereabouts = Whereabouts::Scope,
                Err(error) => made.notes.push(format!(
                    "a restart of the agent's service may end the script, as systemd gave it no scope of its own: {error}"
                )),
            }
        }
        let own = Layout::of_this_process();
        if let Some(own) = &own.unified {
            made.make_unified(own, &name);
        }
        for (controller, own) in &own.version_1 {
            if !made.passes(*controller) {
                made.make_version_1(*controller, own, &name);
            }
        }
        made
    }

    /// The group to clone the child into.
    pub(crate) fn unified(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    /// Files to which the child writes `0` to enter the groups of version 1 that limit it.
    pub(crate) fn tasks(&self, limiting: &[(Controller, By)]) -> impl Iterator<Item = &File> {
        self.version_1
            .iter()
            .filter(|(controller, ..)| limiting.contains(&(*controller, By::Version1)))
            .map(|(_, _, tasks)| tasks)
    }

    /// Sets the limits of an operation. A group of version 1 that limits nothing is given back.
    pub(crate) fn limit(mut self, limits: &Limits, notes: &mut Vec<String>) -> Containment {
        notes.append(&mut self.notes);
        let mut made = Containment {
            unified: self.unified.take(),
            version_1: Vec::new(),
            limiting: BTreeMap::new(),
            killed_before: 0,
        };
        if let Some(group) = &made.unified {
            for controller in Controller::ALL {
                if limit_2(controller, group, limits) {
                    made.limiting.insert(controller, group.clone());
                }
            }
        }
        for (controller, group, tasks) in self.version_1.drain(..) {
            drop(tasks);
            if limit_1(controller, &group, limits) {
                made.limiting.insert(controller, group.clone());
                made.version_1.push(group);
            } else {
                remove(&[group], notes);
            }
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

    fn make_unified(&mut self, own: &Path, name: &str) {
        let place = Place::of(own, name);
        if place::make(&place.parent).is_err() {
            return;
        }
        if let Some(leaf) = &place.leaf {
            let moved = place::make(leaf).and_then(|()| write(&leaf.join("cgroup.procs"), "0"));
            if moved.is_ok() && self.whereabouts == Whereabouts::WithAgent {
                self.whereabouts = Whereabouts::Beside;
            }
        }
        place
            .way
            .iter()
            .for_each(|group| place::pass_controllers(group));
        remove_abandoned(&place.parent);
        if std::fs::create_dir(&place.group).is_err() {
            return;
        }
        if may_be_entered(&place.group) {
            self.unified = Some(place.group);
        } else {
            let _nothing_is_in_it = std::fs::remove_dir(&place.group);
        }
    }

    /// Whether the unified group limits this.
    fn passes(&self, controller: Controller) -> bool {
        let group = self.unified.as_ref();
        group.is_some_and(|group| group.join(limit_file(controller)).exists())
    }

    fn make_version_1(&mut self, controller: Controller, own: &Path, name: &str) {
        let place = Place::of(own, name);
        if place::make(&place.parent).is_err() {
            return;
        }
        remove_abandoned(&place.parent);
        let group = place.group;
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

/// In a tree of threads that somebody else has made, a group takes no process.
fn may_be_entered(group: &Path) -> bool {
    std::fs::read_to_string(group.join("cgroup.type")).is_ok_and(|kind| kind.trim() == "domain")
}

impl Containment {
    /// What holds the script's processes, when they `entered` the unified group or did not.
    pub(crate) fn kind(&self, entered: bool) -> ContainmentKind {
        kind(
            self.unified.is_some() && entered,
            !self.version_1.is_empty(),
        )
    }

    /// What limits the operation as a whole.
    pub(crate) fn limiting(&self) -> Vec<(Controller, By)> {
        let by = |group| match Some(group) == self.unified.as_ref() {
            true => By::Unified,
            false => By::Version1,
        };
        self.limiting
            .iter()
            .map(|(controller, group)| (*controller, by(group)))
            .collect()
    }

    /// What was asked for and is not as it should be, a sentence for each.
    pub(crate) fn shortcomings(&self, limits: &Limits, entered: bool) -> Vec<String> {
        let mut notes = Vec::new();
        let limiting = self.limiting();
        if self.unified.is_some() && !entered {
            notes.push("the kernel did not let the script into its cgroup".to_owned());
        }
        for (controller, asked, instead) in [
            (
                Controller::Memory,
                limits.memory.is_some(),
                "memory is limited for each process, not in all",
            ),
            (
                Controller::Processes,
                limits.processes.is_some(),
                "processes are limited for each user, and not at all for root",
            ),
            (
                Controller::Cpu,
                limits.cpu_percent.is_some(),
                "processor time is limited for each process in all, not as a share",
            ),
        ] {
            if asked && !By::limits(&limiting, controller, entered) {
                notes.push(format!(
                    "{instead}: no {} controller can be used here",
                    controller.name()
                ));
            }
        }
        notes
    }

    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.unified
            .iter()
            .chain(&self.version_1)
            .cloned()
            .collect()
    }

    pub(crate) fn members(&self) -> BTreeSet<Seen> {
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
        if self.killed() > self.killed_before {
            return Some(LimitHit::Memory);
        }
        let processes = self.counted(Controller::Processes, &["pids.events"], "max");
        (processes > 0).then_some(LimitHit::Processes)
    }

    /// What was counted by now is nothing of the operation's.
    pub(crate) fn count_from_now(&mut self) {
        self.killed_before = self.killed();
    }

    /// How often the kernel killed for want of memory.
    fn killed(&self) -> u64 {
        let files = ["memory.events", "memory.oom_control"];
        self.counted(Controller::Memory, &files, "oom_kill")
    }

    fn counted(&self, controller: Controller, files: &[&str], key: &str) -> u64 {
        let Some(group) = self.limiting.get(&controller) else {
            return 0;
        };
        let read = |file| value_of(&std::fs::read_to_string(group.join(file)).ok()?, key);
        files.iter().find_map(read).unwrap_or_default()
    }

    pub(crate) fn remove(self, notes: &mut Vec<String>) {
        let paths = self.paths();
        drop(self);
        remove(&paths, notes);
    }
}

const fn kind(unified: bool, version_1: bool) -> ContainmentKind {
    match (unified, version_1) {
        (true, false) => ContainmentKind::CgroupV2,
        (true, true) => ContainmentKind::Hybrid,
        (false, _) => ContainmentKind::None,
    }
}

/// The file of version 2.
const fn limit_file(controller: Controller) -> &'static str {
    match controller {
        Controller::Memory => "memory.max",
        Controller::Processes => "pids.max",
        Controller::Cpu => "cpu.max",
    }
}

/// What is written for a limit, the same in both versions. A share of processor time is that of a period of 100 ms, which
/// `cpu.max` has from the start.
fn limit_text(controller: Controller, limits: &Limits) -> Option<String> {
    match controller {
        Controller::Memory => limits.memory.map(|bytes| bytes.to_string()),
        Controller::Processes => limits.processes.map(|count| count.to_string()),
        Controller::Cpu => limits
            .cpu_percent
            .map(|percent| (u64::from(percent) * 1000).to_string()),
    }
}

fn limit_2(controller: Controller, group: &Path, limits: &Limits) -> bool {
    let Some(text) = limit_text(controller, limits) else {
        return false;
    };
    let limited = set(group, limit_file(controller), &text);
    if limited && controller == Controller::Memory {
        let _no_swap_accounting = set(group, "memory.swap.max", "0");
    }
    limited
}

fn limit_1(controller: Controller, group: &Path, limits: &Limits) -> bool {
    let Some(text) = limit_text(controller, limits) else {
        return false;
    };
    match controller {
        Controller::Memory => {
            let limited = set(group, "memory.limit_in_bytes", &text);
            let _no_swap_accounting = limited && set(group, "memory.memsw.limit_in_bytes", &text);
            limited
        }
        Controller::Processes => set(group, "pids.max", &text),
        Controller::Cpu => {
            set(group, "cpu.cfs_period_us", "100000") && set(group, "cpu.cfs_quota_us", &text)
        }
    }
}

/// Writes to a control file that exists; one that does not is never made.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(text.as_bytes())
}

/// Whether the kernel takes a setting.
fn set(group: &Path, file: &str, text: &str) -> bool {
    write(&group.join(file), text).is_ok()
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
}
