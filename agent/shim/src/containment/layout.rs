//! Where the cgroups of a process are, from what the kernel tells of it: no list of places is built in, so that containers
//! and unusual mounts are understood as well.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What limits an operation as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Controller {
    /// Bytes of memory.
    Memory,
    /// Processes and threads at a time.
    Processes,
    /// The share of processor time.
    Cpu,
}

impl Controller {
    pub(crate) const ALL: [Self; 3] = [Self::Memory, Self::Processes, Self::Cpu];

    /// What the kernel calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Processes => "pids",
            Self::Cpu => "cpu",
        }
    }
}

impl fmt::Display for Controller {
    /// As the keys of the owner's limits are called.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Processes => "processes",
            Self::Cpu => "cpu",
        })
    }
}

/// The directories of a process's own groups.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// In the unified hierarchy (version 2).
    pub(crate) unified: Option<PathBuf>,
    /// In the hierarchies of version 1.
    pub(crate) version_1: BTreeMap<Controller, PathBuf>,
}

impl Layout {
    pub(crate) fn of_this_process() -> Self {
        // Any user may have mounted something at a path that is no text; that must not hide the rest.
        let read = |file| {
            let bytes = std::fs::read(file).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Self::read(
            &read("/proc/self/cgroup"),
            &read("/proc/self/mountinfo"),
            |group| group.join("cgroup.procs").exists(),
        )
    }

    /// From the texts of `/proc/<pid>/cgroup` and `/proc/<pid>/mountinfo` (cgroups(7), proc(5)). `is_group` tells whether
    /// a directory is a cgroup now: one mount may cover another.
    pub(crate) fn read(groups: &str, mounts: &str, is_group: impl Fn(&Path) -> bool) -> Self {
        let mounts: Vec<Mount<'_>> = mounts.lines().filter_map(Mount::parse).collect();
        let own = |hierarchy| {
            let path = path_in(groups, hierarchy)?;
            let candidates = || mounts.iter().filter(|mount| mount.is_of(hierarchy));
            candidates()
                .filter_map(|mount| mount.shows(path))
                .find(|group| is_group(group))
                // The process's own is outside of what is mounted here (containers): the outermost that can be seen stands in.
                .or_else(|| {
                    let mut roots = candidates().map(|mount| mount.point.clone());
                    roots.find(|group| is_group(group))
                })
        };
        Self {
            unified: own(None),
            version_1: Controller::ALL
                .into_iter()
                .filter_map(|controller| Some((controller, own(Some(controller))?)))
                .collect(),
        }
    }
}

/// The process's path in the hierarchy of a controller, or in the unified one: `id:controllers:path`.
fn path_in(groups: &str, controller: Option<Controller>) -> Option<&str> {
    groups.lines().find_map(|line| {
        let (id, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let found = match controller {
            Some(controller) => controllers.split(',').any(|name| name == controller.name()),
            None => id == "0" && controllers.is_empty(),
        };
        found.then_some(path)
    })
}

/// A line of mountinfo: `36 35 98:0 /root /point options [tags] - type source options`.
struct Mount<'a> {
    root: PathBuf,
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let mut fields = file_system.split(' ');
        let kind = fields.next()?;
        kind.starts_with("cgroup").then(|| Self {
            root: unescape(root).into(),
            point: unescape(point).into(),
            kind,
            options: fields.nth(1).unwrap_or_default(),
        })
    }

    /// Whether it shows the hierarchy of a controller, or the unified one.
    fn is_of(&self, controller: Option<Controller>) -> bool {
        match controller {
            Some(controller) => {
                let mut options = self.options.split(',');
                self.kind == "cgroup" && options.any(|option| option == controller.name())
            }
            None => self.kind == "cgroup2",
        }
    }

    /// Where a group of the hierarchy is found, if it lies in what is mounted.
    fn shows(&self, group: &str) -> Option<PathBuf> {
        let below = Path::new(group).strip_prefix(&self.root).ok()?;
        let inside = below
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        inside.then(|| self.point.join(below))
    }
}

/// Spaces, tabs, line ends and backslashes are written as a backslash and three octal digits.
fn unescape(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).map(|digits| u8::from_str_radix(digits, 8));
        match code {
            Some(Ok(byte)) if byte.is_ascii() => {
                text.push(byte.into());
                text.push_str(&part[3..]);
            }
            _ => {
                text.push('\\');
                text.push_str(part);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PURE: &str =
        "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "\
        30 25 0:27 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n\
        31 30 0:28 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n\
        32 30 0:29 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,name=systemd\n\
        33 30 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:12 - cgroup cgroup rw,cpu,cpuacct\n\
        34 30 0:31 / /sys/fs/cgroup/memory rw shared:13 - cgroup cgroup rw,memory\n\
        35 30 0:32 / /sys/fs/cgroup/pids rw shared:14 - cgroup cgroup rw,pids\n";

    fn read(groups: &str, mounts: &str) -> Layout {
        Layout::read(groups, mounts, |_| true)
    }

    #[test]
    fn a_unified_hierarchy_shows_the_services_group() {
        let found = read("0::/system.slice/sluice-agent.service\n", PURE);
        let own = "/sys/fs/cgroup/system.slice/sluice-agent.service";
        assert_eq!(found.unified.as_deref(), Some(Path::new(own)));
        assert!(found.version_1.is_empty());
    }

    #[test]
    fn controllers_of_version_1_are_found_where_they_are_mounted_together() {
        let groups =
            "7:cpu,cpuacct:/a\n5:memory:/a/b\n3:pids:/\n2:cpuset:/x\n1:name=systemd:/s\n0::/s\n";
        let found = read(groups, HYBRID);
        assert_eq!(found.unified, Some("/sys/fs/cgroup/unified/s".into()));
        assert_eq!(
            found.version_1,
            BTreeMap::from([
                (Controller::Memory, "/sys/fs/cgroup/memory/a/b".into()),
                (Controller::Processes, "/sys/fs/cgroup/pids/".into()),
                (Controller::Cpu, "/sys/fs/cgroup/cpu,cpuacct/a".into()),
            ])
        );
    }

    #[test]
    fn a_container_sees_its_part_of_a_hierarchy_as_its_root() {
        let mounts = "40 39 0:31 /docker/1f /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let found = |own: &str| {
            let groups = format!("5:memory:{own}\n");
            read(&groups, mounts).version_1.remove(&Controller::Memory)
        };
        let below = |path: &str| Some(Path::new("/sys/fs/cgroup/memory").join(path));
        assert_eq!(found("/docker/1f/x"), below("x"));
        assert_eq!(found("/docker/1f"), below(""));
        // Not in it, and not a path that leads out of it.
        assert_eq!(found("/docker/1f2"), below(""));
        assert_eq!(found("/docker/1f/../2"), below(""));
        assert_eq!(found("/../other"), below(""));
    }

    #[test]
    fn a_mount_that_another_one_covers_is_not_used() {
        let twice = format!("{HYBRID}90 30 0:28 / /run/cgroup\\0402 rw - cgroup2 cgroup2 rw\n");
        let covered = |group: &Path| !group.starts_with("/sys/fs/cgroup");
        let found = Layout::read("4:memory:/\n0::/s\n", &twice, covered);
        assert_eq!(found.unified, Some("/run/cgroup 2/s".into()));
        assert!(found.version_1.is_empty());
        let nothing = Layout::read("4:memory:/\n0::/s\n", &twice, |_| false);
        assert_eq!(nothing, Layout::default());
    }

    #[test]
    fn what_other_mounts_are_called_changes_nothing() {
        let mounts = format!(
            "50 1 0:50 / /mnt/\u{fffd}\\040-\\040cgroup2 rw - fuse.cgroup2 cgroup2 rw\n\
             51 1 0:51 / /mnt/a\\134b rw - ext4 /dev/sda rw,memory\nnonsense\n - cgroup2\n{PURE}"
        );
        assert_eq!(read("0::/a\n", &mounts), read("0::/a\n", PURE));
        assert_eq!(read("", PURE), Layout::default());
        assert_eq!(unescape(r"a\134b\011c\9\0401"), "a\\b\tc\\9 1");
    }
}
