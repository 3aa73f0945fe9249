//! The authority's folder: made whole or not at all, and private from the first moment.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The authority's folder cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is one already.
    #[error("{} exists already; an authority is made once", .path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A file or folder could be read by others.
    #[error("{} can be read by others (mode {mode:o}); expected {expected:o} or less", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// What it may be.
        expected: u32,
    },
    /// A file is not what it should be.
    #[error("{} is not what it should be: {reason}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The operating system says no.
    #[error("cannot read or write {}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Keys or certificates could not be made: a bug, or no random numbers.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

impl StoreError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// Whether others may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrecy {
    Secret,
    Public,
}

/// Makes the folder `path` with these files in it. It appears with all of them or not at all: they are written into a
/// folder beside it, synced, and renamed.
pub(super) fn create(path: &Path, files: &[(&str, Secrecy, &str)]) -> Result<(), StoreError> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    let name = path
        .file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy();
    let staging = parent.join(format!(".{name}.{}", std::process::id()));
    let made = private_folder(&staging)
        .map_err(StoreError::io(&staging))
        .and_then(|()| {
            for (name, secrecy, text) in files {
                let file = staging.join(name);
                write(&file, *secrecy, text).map_err(StoreError::io(&file))?;
            }
            sync(&staging)?;
            match fs::rename(&staging, path) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                    ) =>
                {
                    Err(StoreError::Exists {
                        path: path.to_owned(),
                    })
                }
                renamed => renamed.map_err(StoreError::io(path)),
            }
        });
    if let Err(error) = made {
        if let Err(left) = fs::remove_dir_all(&staging) {
            tracing::warn!(path = %staging.display(), error = %left, "keys were left behind; remove them by hand");
        }
        return Err(error);
    }
    sync(parent)
}

fn sync(folder: &Path) -> Result<(), StoreError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(StoreError::io(folder))
}

fn write(path: &Path, secrecy: Secrecy, text: &str) -> io::Result<()> {
    let mut file = create_file(path, secrecy)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The text of a file that others may read.
pub(super) fn read(path: &Path) -> Result<String, StoreError> {
    fs::read_to_string(path).map_err(StoreError::io(path))
}

#[cfg(unix)]
mod system {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};

    use super::*;

    pub(super) fn private_folder(path: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(path)
    }

    pub(super) fn create_file(path: &Path, secrecy: Secrecy) -> io::Result<File> {
        let mode = if secrecy == Secrecy::Secret {
            0o600
        } else {
            0o644
        };
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)
    }

    /// Refuses what group or others can read or write.
    pub(in super::super) fn check_private(path: &Path, expected: u32) -> Result<(), StoreError> {
        let mode = fs::symlink_metadata(path)
            .map_err(StoreError::io(path))?
            .mode()
            & 0o7777;
        if mode & 0o077 == 0 {
            Ok(())
        } else {
            Err(StoreError::Exposed {
                path: path.to_owned(),
                mode,
                expected,
            })
        }
    }
}

#[cfg(not(unix))]
mod system {
    use super::*;

    const LATER: &str = "not implemented in this version: private files on this operating system";

    pub(super) fn private_folder(_: &Path) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, LATER))
    }

    pub(super) fn create_file(_: &Path, _: Secrecy) -> io::Result<File> {
        Err(io::Error::new(io::ErrorKind::Unsupported, LATER))
    }

    pub(in super::super) fn check_private(path: &Path, _: u32) -> Result<(), StoreError> {
        Err(StoreError::Io {
            path: path.to_owned(),
            source: io::Error::new(io::ErrorKind::Unsupported, LATER),
        })
    }
}

pub(super) use system::check_private;
use system::{create_file, private_folder};
