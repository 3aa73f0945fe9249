//! The paths that the machine's owner lets a strict script reach besides.
//!
//! A rule of Landlock is for what a path leads to at this moment. Somewhere on the way a script, an earlier one perhaps,
//! may have been allowed to write, so no path is followed over a link: it would lead to wherever that script likes.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};

use super::Confined;
use crate::event::Confinement;

/// What was found at the owner's paths.
pub(super) struct Paths {
    /// For reading and executing.
    pub(super) read: Vec<OwnedFd>,
    /// For everything.
    pub(super) write: Vec<OwnedFd>,
}

/// Opens them as the script's user. One that cannot be opened, or in which Sluice's own files would be seen, is left out
/// and noted: that gives nothing.
pub(super) fn find(wanted: &Confined, applied: &Confinement, notes: &mut Vec<String>) -> Paths {
    let shown: &[PathBuf] = if applied.hidden_files {
        &[]
    } else {
        &wanted.hidden
    };
    let mut all = |key: &str, paths: &[PathBuf]| -> Vec<OwnedFd> {
        let found = paths.iter().filter_map(|path| {
            let found = open(path, shown);
            found
                .map_err(|reason| {
                    notes.push(format!(
                        "confinement.{key}: {} is left out: {reason}",
                        path.display()
                    ));
                })
                .ok()
        });
        found.collect()
    };
    Paths {
        read: all("read", &wanted.opened.read),
        write: all("write", &wanted.opened.write),
    }
}

fn open(path: &Path, shown: &[PathBuf]) -> Result<OwnedFd, String> {
    let own = |own: &PathBuf| own.starts_with(path) || path.starts_with(own);
    if shown
        .iter()
        .any(|hidden| own(hidden) || hidden.canonicalize().is_ok_and(|real| own(&real)))
    {
        return Err("Sluice's own files are there and cannot be hidden".to_owned());
    }
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(AT_FDCWD, path, how).map_err(|errno| match errno {
        Errno::ELOOP => "it is a link or goes over one; name where that leads".to_owned(),
        errno => errno.to_string(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn no_path_is_followed_over_a_link_nor_to_sluices_files_that_are_not_hidden() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("data/state")).unwrap();
        std::os::unix::fs::symlink(base.join("data"), base.join("link")).unwrap();
        assert!(open(&base.join("data"), &[]).is_ok());
        for path in ["link", "link/state"] {
            let refused = open(&base.join(path), &[]).unwrap_err();
            assert!(refused.contains("link"), "{refused}");
        }
        assert!(open(&base.join("nothing"), &[]).is_err());
        let state = base.join("data/state");
        for hidden in [&state, &base.join("link/state")] {
            for path in [&base, &base.join("data"), &state, &state.join("spool")] {
                let refused = open(path, std::slice::from_ref(hidden)).unwrap_err();
                assert!(refused.contains("Sluice's own files"), "{refused}");
            }
        }
        std::fs::create_dir(base.join("beside")).unwrap();
        assert!(open(&base.join("beside"), &[state]).is_ok());
    }
}
