//! Removing directories that somebody else has filled: as deep as they like, with links on the way, and perhaps with
//! somebody at work in them.
//!
//! Everything goes through descriptors of directories and follows no link (the fault behind CVE-2022-21658). A tree is not
//! walked down but flattened: directories in a directory are moved up before that is removed, so that two descriptors
//! are enough for any depth.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstat, fstatat};
use nix::unistd::{Uid, UnlinkatFlags, Whence, dup, lseek, unlinkat};

/// A directory, and nothing that only leads to one.
pub(crate) const DIRECTORY: OFlag = OFlag::O_DIRECTORY
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC)
    .union(OFlag::O_RDONLY);

/// How often a directory is looked at again in which nothing can be removed, as somebody is at work in it.
const ROUNDS: u32 = 100;

/// So many names are read at once: there may be millions.
const NAMES: usize = 1024;

/// How long a directory is emptied that somebody keeps filling.
const LONGEST: Duration = Duration::from_secs(10);

/// Removes everything in a directory.
pub(crate) fn empty(directory: &OwnedFd) -> nix::Result<()> {
    let until = Instant::now() + LONGEST;
    let mut done = Done::default();
    let mut rounds = 0;
    loop {
        let names = names(directory)?;
        if names.is_empty() {
            return Ok(());
        }
        let (before, mut left) = (done, Ok(()));
        for name in &names {
            if Instant::now() > until {
                return Err(Errno::ENOTEMPTY);
            }
            if let Err(errno) = remove_entry(directory, name, &mut done) {
                left = Err(errno);
            }
        }
        // Whatever was removed or moved up is progress. Else somebody is at work here, or it cannot be done.
        if done == before {
            rounds += 1;
            if rounds > ROUNDS {
                return left.and(Err(Errno::ENOTEMPTY));
            }
            left.or_else(|errno| match errno {
                Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOENT => Ok(()),
                errno => Err(errno),
            })?;
        }
    }
}

/// What became of the entries of a directory that is emptied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Done {
    removed: u64,
    moved: u64,
}

/// Removes a directory with everything in it, or whatever else has this name.
pub(crate) fn remove(directory: &OwnedFd, name: &CString) -> nix::Result<()> {
    match unlinkat(directory, name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
        Ok(()) => return Ok(()),
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(errno) => return Err(errno),
    }
    empty(&enter(directory, name)?)?;
    unlinkat(directory, name.as_c_str(), UnlinkatFlags::RemoveDir)
}

/// Opens the directory at `path`, which is not followed where it is a link.
pub(crate) fn open(path: &Path) -> nix::Result<OwnedFd> {
    nix::fcntl::open(path, DIRECTORY, Mode::empty())
}

/// What tells one directory from another: its device and inode.
pub(crate) fn identity(directory: &OwnedFd) -> nix::Result<(u64, u64)> {
    fstat(directory).map(|stat| (stat.st_dev, stat.st_ino))
}

/// The names in a directory, or the first of very many.
pub(crate) fn names(directory: &OwnedFd) -> nix::Result<Vec<CString>> {
    // The position belongs to the open file, which the copy shares.
    let copy = openat(directory, c".", DIRECTORY, Mode::empty()).or_else(|_| dup(directory))?;
    lseek(&copy, 0, Whence::SeekSet)?;
    let mut names = Vec::new();
    for entry in Dir::from_fd(copy)?.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
        if names.len() >= NAMES {
            break;
        }
    }
    Ok(names)
}

/// Whether the entry of this name is that very directory.
pub(crate) fn is(directory: &OwnedFd, name: &CString, that: &OwnedFd) -> bool {
    let there = fstatat(directory, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
    there.is_ok_and(|stat| identity(that) == Ok((stat.st_dev, stat.st_ino)))
}

/// Removes an entry of `top`. Directories in it are moved up into `top`, and counted.
fn remove_entry(top: &OwnedFd, name: &CString, done: &mut Done) -> nix::Result<()> {
    match unlinkat(top, name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
        Ok(()) => {
            done.removed += 1;
            return Ok(());
        }
        Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(errno) => return Err(errno),
    }
    let directory = enter(top, name)?;
    for inner in names(&directory)? {
        match unlinkat(&directory, inner.as_c_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) => done.removed += 1,
            Err(Errno::ENOENT) => {}
            Err(Errno::EISDIR | Errno::EPERM) => {
                open_up(&directory, &inner);
                let free = format!(".sluice-{}-{}", std::process::id(), done.moved);
                renameat(&directory, inner.as_c_str(), top, free.as_str())?;
                done.moved += 1;
            }
            Err(errno) => return Err(errno),
        }
    }
    drop(directory);
    match unlinkat(top, name.as_c_str(), UnlinkatFlags::RemoveDir) {
        Ok(()) => {
            done.removed += 1;
            Ok(())
        }
        // More than were read at once: the next round goes on with it.
        Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn enter(top: &OwnedFd, name: &CString) -> nix::Result<OwnedFd> {
    match openat(top, name.as_c_str(), DIRECTORY, Mode::empty()) {
        Err(Errno::EACCES) => {
            open_up(top, name);
            openat(top, name.as_c_str(), DIRECTORY, Mode::empty())
        }
        result => {
            open_up(top, name);
            result
        }
    }
}

/// Lets the shim's own user into a directory again: a script can take that away. Root needs no permission.
fn open_up(top: &OwnedFd, name: &CString) {
    if Uid::effective().is_root() {
        return;
    }
    if fstatat(top, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR)
    {
        // Follows a link that was put there meanwhile: only to what is the same user's own.
        let _reported_by_the_removal = fchmodat(
            top,
            name.as_c_str(),
            Mode::S_IRWXU,
            FchmodatFlags::FollowSymlink,
        );
    }
}
