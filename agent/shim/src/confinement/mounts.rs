//! Directories for temporary files, and IPC, of its own, and empty places where Sluice keeps its files.
//!
//! The script's mounts become slaves of the machine's: what the machine mounts or unmounts arrives here, and what is
//! mounted here, by the shim or by a script of root, stays here and ends with the operation.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;

use super::Confined;
use crate::child::ChildError;
use crate::event::Confinement;
use crate::workspace::SHARED_DIRECTORIES;

/// Nothing is in a cover, and nothing can be made or executed in it.
const COVER: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);
const NONE: Option<&str> = None;

/// As far as the machine allows; what it does not is noted.
pub(super) fn set_apart(
    wanted: &Confined,
    applied: &mut Confinement,
    notes: &mut Vec<String>,
) -> Result<(), ChildError> {
    if wanted.private {
        match unshare(CloneFlags::CLONE_NEWIPC) {
            Ok(()) => applied.private_ipc = true,
            Err(errno) => notes.push(format!(
                "IPC is shared with other users of this machine: {errno}"
            )),
        }
    }
    if !wanted.private && wanted.hidden.is_empty() {
        return Ok(());
    }
    let own_mounts = unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE));
    if let Err(errno) = own_mounts {
        if wanted.private {
            notes.push(format!(
                "/tmp, /var/tmp and /dev/shm are shared with other users of this machine: {errno}"
            ));
        }
        if !wanted.hidden.is_empty() {
            notes.push(format!(
                "Sluice's own files are not hidden from the script: {errno}"
            ));
        }
        return Ok(());
    }
    // Opened in the new namespace: a mount of another one cannot be bound here.
    let workspace = open(
        &wanted.workspace,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(|e| ChildError::setup("open the private directory", e))?;
    let mut covered = Vec::new();
    if wanted.private {
        // From here on it is all or nothing: with a part of the mounts the script might not find its own file.
        cover_shared(wanted, &mut covered)?;
        applied.private_tmp = true;
    }
    let shared = covered.len();
    if !wanted.hidden.is_empty() {
        applied.hidden_files = hide(&wanted.hidden, &mut covered, notes);
    }
    // A private directory that was just covered is shown again at its place.
    if covered
        .iter()
        .any(|place| wanted.workspace.starts_with(place))
    {
        show(&workspace, &wanted.workspace)
            .map_err(|e| ChildError::setup("show the private directory", e))?;
    }
    for place in &covered[shared..] {
        let only_read = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | COVER;
        mount(NONE, place, NONE, only_read, NONE)
            .map_err(|e| ChildError::setup("close what covers Sluice's files", e))?;
    }
    Ok(())
}

/// One file system for all of them, so that together they hold no more than the operation may have in memory: where no
/// controller counts what is in them, nothing else limits it.
fn cover_shared(wanted: &Confined, covered: &mut Vec<PathBuf>) -> Result<(), ChildError> {
    for directory in SHARED_DIRECTORIES {
        // One that is a link to another, or into it (as /var/tmp to /tmp), is covered with it.
        if let Ok(real) = Path::new(directory).canonicalize()
            && !covered.iter().any(|place| real.starts_with(place))
        {
            covered.push(real);
        }
    }
    let Some(first) = covered.first() else {
        return Ok(());
    };
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = shared_options(wanted.temporary);
    mount(Some("tmpfs"), first, Some("tmpfs"), flags, Some(&*options))
        .map_err(|e| ChildError::setup(&format!("mount on {}", first.display()), e))?;
    // The place that all of it is in meanwhile comes last.
    for (number, place) in covered.iter().enumerate().rev() {
        let part = first.join(number.to_string());
        std::fs::create_dir(&part)
            .and_then(|()| std::fs::set_permissions(&part, PermissionsExt::from_mode(0o1777)))
            .map_err(|e| ChildError::setup(&format!("make {}", part.display()), e))?;
        mount(Some(&part), place, NONE, MsFlags::MS_BIND, NONE)
            .map_err(|e| ChildError::setup(&format!("mount on {}", place.display()), e))?;
    }
    Ok(())
}

/// Files take memory of the kernel besides what is in them: there may be one for each page.
fn shared_options(bytes: Option<u64>) -> String {
    const PAGE: u64 = 4096;
    // For the directories themselves, also under the smallest limit. (No size at all would be no limit.)
    const FEWEST: u64 = 64;
    match bytes {
        Some(bytes) => {
            let files = (bytes / PAGE).max(FEWEST);
            format!("mode=755,size={},nr_inodes={files}", bytes.max(PAGE))
        }
        None => "mode=755,size=50%".to_owned(),
    }
}

/// Covers directories with empty ones and files with nothing; whether all are. What does not exist needs no cover. Only
/// directories are added to what is covered.
fn hide(hidden: &[PathBuf], covered: &mut Vec<PathBuf>, notes: &mut Vec<String>) -> bool {
    let mut all = true;
    // The outermost first: what lies in another is covered with it, and not found any more.
    let mut hidden: Vec<&PathBuf> = hidden.iter().collect();
    hidden.sort_by_cached_key(|path| {
        let real = path.canonicalize();
        real.map_or(0, |real| real.components().count())
    });
    for path in hidden {
        match cover(path) {
            Ok(Some(directory)) => covered.push(directory),
            Ok(None) => {}
            Err(error) => {
                all = false;
                notes.push(format!(
                    "{} is not hidden from the script: {error}",
                    path.display()
                ));
            }
        }
    }
    all
}

/// Returns the directory, where it is one.
fn cover(path: &Path) -> std::io::Result<Option<PathBuf>> {
    let real = match path.canonicalize() {
        Ok(real) => real,
        // Not there, or below what was covered just now.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if real.is_dir() {
        let options = Some("mode=755,size=64k");
        mount(Some("tmpfs"), &real, Some("tmpfs"), COVER, options)?;
        return Ok(Some(real));
    }
    mount(Some("/dev/null"), &real, NONE, MsFlags::MS_BIND, NONE)?;
    Ok(None)
}

#[expect(
    clippy::disallowed_methods,
    reason = "umask in the child of a process with one thread"
)]
fn show(workspace: &OwnedFd, place: &Path) -> Result<(), Errno> {
    let before = nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    let made = std::fs::create_dir_all(place);
    nix::sys::stat::umask(before);
    made.map_err(|e| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    let source = format!("/proc/self/fd/{}", workspace.as_raw_fd());
    mount(Some(source.as_str()), place, NONE, MsFlags::MS_BIND, NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_files_have_a_limit_whatever_the_limit_of_memory_is() {
        for (bytes, options) in [
            (Some(0), "mode=755,size=4096,nr_inodes=64"),
            (Some(64 << 20), "mode=755,size=67108864,nr_inodes=16384"),
            (None, "mode=755,size=50%"),
        ] {
            assert_eq!(shared_options(bytes), options);
        }
    }
}
