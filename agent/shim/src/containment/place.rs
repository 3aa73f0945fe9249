//! Where in a hierarchy a shim stays, and where it makes the groups of its operations.
//!
//! ```text
//! under systemd      /sluice.slice/sluice-shim-<pid>-<time>.scope/shim   the shim     \ systemd's, given to the shim
//!                                                                /job    the script   /
//! else, in a group   <own>/sluice/agent                                  the agent, which has moved itself (`settle`),
//!                                                                        and the process that forks shims
//!                                /shims                                  the shims
//!                                /shim-<pid>-<time>                      a script
//! at the root, and   <own>                                               agent and shims
//! in version 1            /sluice/shim-<pid>-<time>                      a script
//! ```
//! A group of the unified hierarchy that has controllers for the groups in it cannot have processes of its own, but for
//! the root ("no internal processes", cgroups(7)). So whoever is in it moves to a leaf first; where somebody else is in it
//! there are no controllers, and the groups in it can do no more than kill.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::layout::{Controller, Layout};
use super::{set, write};

/// The group that everything of Sluice's is in, in whatever group the agent was started.
pub(super) const SLUICE: &str = "sluice";
const AGENT: &str = "agent";
const SHIMS: &str = "shims";
pub(super) const SLICE: &str = "sluice.slice";
const SCOPE: (&str, &str) = ("sluice-", ".scope");
/// A shim's leaf and its script's group in a scope.
const SHIM: &str = "shim";
const JOB: &str = "job";

/// What a scope is called for a shim with this name.
pub(super) fn scope_of(name: &str) -> String {
    format!("{}{name}{}", SCOPE.0, SCOPE.1)
}

/// True of a directory that a group of ours may be in.
pub(super) fn is_ours(parent: &Path) -> bool {
    parent.ends_with(SLUICE) || is_scope(parent)
}

fn is_scope(group: &Path) -> bool {
    let name = group.file_name().and_then(|name| name.to_str());
    let named = name.is_some_and(|name| name.starts_with(SCOPE.0) && name.ends_with(SCOPE.1));
    named && group.parent().is_some_and(|slice| slice.ends_with(SLICE))
}

fn is_leaf(group: &Path) -> bool {
    group.ends_with(Path::new(SLUICE).join(AGENT))
}

/// The places of one shim in one hierarchy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Where the shim has to go before there can be controllers.
    pub(super) leaf: Option<PathBuf>,
    /// The groups, from the outermost, which controllers have to pass.
    pub(super) way: Vec<PathBuf>,
    /// What the script's group is made in, and the group.
    pub(super) parent: PathBuf,
    pub(super) group: PathBuf,
}

impl Place {
    /// For a shim of this name that is in the group `own`.
    pub(super) fn of(own: &Path, name: &str) -> Self {
        if is_scope(own) {
            return Self {
                leaf: Some(own.join(SHIM)),
                way: vec![own.to_owned()],
                parent: own.to_owned(),
                group: own.join(JOB),
            };
        }
        let ours = own.parent().filter(|_| is_leaf(own));
        let parent = ours.map_or_else(|| own.join(SLUICE), Path::to_owned);
        let outer = parent.parent().map(Path::to_owned);
        Self {
            leaf: ours.map(|ours| ours.join(SHIMS)),
            way: outer.into_iter().chain([parent.clone()]).collect(),
            group: parent.join(name),
            parent,
        }
    }
}

/// Moves the agent out of the way: from the group that it was started in to a leaf of it, so that the groups of operations
/// beside that leaf can have controllers, and who ends everything in the agent's leaf ends no operation. Returns whether
/// it did; at the root of the hierarchy, and where the agent is in its leaf already, there is nothing to do. Nor is there
/// where its group cannot be seen: it must not leave that one for another.
///
/// # Errors
/// The kernel does not let it.
pub fn settle() -> std::io::Result<bool> {
    let Some(own) = Layout::of_this_process().unified else {
        return Ok(false);
    };
    if is_root(&own) || is_leaf(&own) || is_scope(&own) || !is_in(&own) {
        return Ok(false);
    }
    let (ours, leaf) = (own.join(SLUICE), own.join(SLUICE).join(AGENT));
    let moved = make(&ours)
        .and_then(|()| make(&leaf))
        .and_then(|()| write(&leaf.join("cgroup.procs"), "0"));
    if moved.is_err() {
        for group in [&leaf, &ours] {
            let _somebody_is_in_it_or_it_is_not_there = std::fs::remove_dir(group);
        }
        return moved.map(|()| false);
    }
    pass_controllers(&own);
    pass_controllers(&ours);
    Ok(true)
}

/// Whether this process is in the group itself, and not only somewhere that it stands for.
fn is_in(group: &Path) -> bool {
    let own = std::process::id().to_string();
    std::fs::read_to_string(group.join("cgroup.procs"))
        .is_ok_and(|text| text.lines().any(|pid| pid == own))
}

pub(super) fn make(group: &Path) -> std::io::Result<()> {
    match std::fs::create_dir(group) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Only the root of a hierarchy has no type, whatever it is called in a namespace.
fn is_root(group: &Path) -> bool {
    !group.join("cgroup.type").exists()
}

/// Gives the groups in a group the controllers that it has, as far as the kernel allows.
pub(super) fn pass_controllers(group: &Path) {
    let read = |file| std::fs::read_to_string(group.join(file)).unwrap_or_default();
    let switches = to_pass(
        &read("cgroup.controllers"),
        &read("cgroup.subtree_control"),
        !is_root(group) && !read("cgroup.procs").is_empty(),
    );
    let control = "cgroup.subtree_control";
    if switches.is_empty() || set(group, control, &switches.join(" ")) {
        return;
    }
    // One that is refused must not keep the others away (as `cpu` is where real-time processes run).
    for switch in switches {
        let _seen_by_the_files_below = set(group, control, switch);
    }
}

/// What to write to `cgroup.subtree_control`: those of the controllers there that are not passed on yet.
///
/// None in a group that has processes of its own. The kernel refuses `memory` there, and takes `pids` and `cpu`, as they
/// can count threads. But then it makes the group the root of a tree of threads, and no process can enter the groups in it
/// ("domain invalid"; kernel/cgroup/cgroup.c, `cgroup_vet_subtree_control_enable`).
fn to_pass(available: &str, passed: &str, has_processes: bool) -> Vec<&'static str> {
    const SWITCHES: [(Controller, &str); 3] = [
        (Controller::Memory, "+memory"),
        (Controller::Processes, "+pids"),
        (Controller::Cpu, "+cpu"),
    ];
    let has = |list: &str, controller: Controller| {
        list.split_whitespace()
            .any(|name| name == controller.name())
    };
    SWITCHES
        .into_iter()
        .filter(|(controller, _)| {
            !has_processes && has(available, *controller) && !has(passed, *controller)
        })
        .map(|(_, switch)| switch)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(place: &Place) -> [Vec<String>; 3] {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        [
            place.leaf.iter().map(|leaf| text(leaf)).collect(),
            place.way.iter().map(|group| text(group)).collect(),
            vec![text(&place.parent), text(&place.group)],
        ]
    }

    #[test]
    fn a_scope_has_a_leaf_for_the_shim_and_a_group_for_the_script() {
        let own = Path::new("/c/sluice.slice").join(scope_of("shim-7-1"));
        let scope = "/c/sluice.slice/sluice-shim-7-1.scope";
        assert_eq!(
            paths(&Place::of(&own, "shim-7-1")),
            [
                vec![format!("{scope}/shim")],
                vec![scope.to_owned()],
                vec![scope.to_owned(), format!("{scope}/job")]
            ]
        );
        // Somebody else's scope is a group like any other.
        let other = Place::of(Path::new("/c/user.slice/sluice-x.scope"), "shim-7-1");
        assert_eq!(other.leaf, None);
    }

    #[test]
    fn a_shim_goes_beside_the_agent_that_has_moved_to_its_leaf_and_stays_with_one_that_has_not() {
        let way = vec!["/c/own".to_owned(), "/c/own/sluice".to_owned()];
        let group = vec!["/c/own/sluice".to_owned(), "/c/own/sluice/n".to_owned()];
        assert_eq!(
            paths(&Place::of(Path::new("/c/own/sluice/agent"), "n")),
            [
                vec!["/c/own/sluice/shims".to_owned()],
                way.clone(),
                group.clone()
            ]
        );
        assert_eq!(
            paths(&Place::of(Path::new("/c/own"), "n")),
            [vec![], way, group]
        );
    }

    #[test]
    fn groups_of_ours_are_known_by_what_they_are_in() {
        for ours in [
            "/c/sluice",
            "/c/a/sluice",
            "/c/sluice.slice/sluice-shim-1-2.scope",
        ] {
            assert!(is_ours(Path::new(ours)), "{ours}");
        }
        for other in [
            "/",
            "/c",
            "/c/sluice/x",
            "/c/system.slice/sluice-1.scope",
            "/c/sluice.slice",
        ] {
            assert!(!is_ours(Path::new(other)), "{other}");
        }
    }

    #[test]
    fn no_controller_is_passed_on_from_a_group_with_processes() {
        let (all, none) = ("cpuset cpu io memory hugetlb pids\n", "\n");
        assert_eq!(to_pass(all, none, false), ["+memory", "+pids", "+cpu"]);
        assert_eq!(to_pass(all, "memory pids\n", false), ["+cpu"]);
        assert_eq!(to_pass("hugetlb\n", none, false), [""; 0]);
        assert_eq!(to_pass("pids\n", none, false), ["+pids"]);
        assert_eq!(to_pass(all, none, true), [""; 0]);
    }
}
