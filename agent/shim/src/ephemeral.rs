//! Ephemeral users: a uid that nobody else on the machine has while an operation runs.
//!
//! One lock file for each uid in use, in a directory that all agents of the machine share. The lock is held by the
//! shim, so it lasts exactly as long as the operation, whatever happens to the agent.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::processes;

/// The first uid of the range, which no distribution, systemd (`systemd.io/UIDS-GIDS`) or container tool hands out.
pub const FIRST_UID: u32 = 1_879_048_192;
/// The last uid of the range.
pub const LAST_UID: u32 = 1_879_113_727;

/// How long the child of a shim that was killed may hold its lock: the kernel is ending it.
const DYING: Duration = Duration::from_secs(2);

/// A uid, for as long as this lives.
pub(crate) struct Lease {
    pub(crate) uid: u32,
    path: PathBuf,
    _lock: Flock<File>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum LeaseError {
    #[error("cannot use {}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{} is not a directory that only root can write to", .0.display())]
    Unsafe(PathBuf),
    #[error("all {} ephemeral users of this machine are in use", LAST_UID - FIRST_UID + 1)]
    Exhausted,
}

impl Lease {
    pub(crate) fn take(locks: &Path) -> Result<Self, LeaseError> {
        make_or_check(locks)?;
        // A random start makes it unlikely that a uid comes back soon.
        let size = LAST_UID - FIRST_UID + 1;
        let start = random().map_err(|e| io(Path::new("/dev/urandom"), e))? % size;
        for offset in 0..size {
            let uid = FIRST_UID + (start + offset) % size;
            let path = locks.join(uid.to_string());
            if let Some(lock) = lock_if_free(&path).map_err(|e| io(&path, e))? {
                // Nobody is meant to hand these uids out. Somebody who does would be killed at the operation's end.
                if processes::is_used(uid) {
                    std::fs::remove_file(&path).map_err(|e| io(&path, e))?;
                    continue;
                }
                return Ok(Self {
                    uid,
                    path,
                    _lock: lock,
                });
            }
        }
        Err(LeaseError::Exhausted)
    }

    /// Takes a uid that an operation had whose shim is gone, to end what is left of it. None where another operation has it.
    pub(crate) fn take_again(locks: &Path, uid: u32) -> Result<Option<Self>, LeaseError> {
        // After a restart of the machine the directory may be gone.
        make_or_check(locks)?;
        let path = locks.join(uid.to_string());
        let until = Instant::now() + DYING;
        loop {
            if let Some(lock) = lock_if_free(&path).map_err(|e| io(&path, e))? {
                return Ok(Some(Self {
                    uid,
                    path,
                    _lock: lock,
                }));
            }
            if Instant::now() > until {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The directory with its lock.
    pub(crate) fn locks(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// Gives the uid back.
    pub(crate) fn release(self, notes: &mut Vec<String>) {
        // The lock is still held: whoever opened this file before it was removed notices that it is not there any more.
        if let Err(error) = std::fs::remove_file(&self.path) {
            notes.push(format!(
                "{} could not be removed: {error}",
                self.path.display()
            ));
        }
    }
}

fn io(path: &Path, source: std::io::Error) -> LeaseError {
    LeaseError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Makes the directory of locks, and refuses one that others could change.
fn make_or_check(locks: &Path) -> Result<(), LeaseError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(locks)
        .map_err(|e| io(locks, e))?;
    let meta = std::fs::symlink_metadata(locks).map_err(|e| io(locks, e))?;
    if meta.is_dir() && meta.uid() == 0 && meta.mode() & 0o022 == 0 {
        Ok(())
    } else {
        Err(LeaseError::Unsafe(locks.to_owned()))
    }
}

fn lock_if_free(path: &Path) -> std::io::Result<Option<Flock<File>>> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
        Err((_, errno)) => return Err(errno.into()),
    };
    let held = lock.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(there) if (there.dev(), there.ino()) == (held.dev(), held.ino()) => Ok(Some(lock)),
        Ok(_) => Ok(None),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn random() -> std::io::Result<u32> {
    let mut bytes = [0; 4];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u32::from_ne_bytes(bytes))
}
