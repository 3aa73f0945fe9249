//! The folder that a host keeps everything in, given by `--data`.
//!
//! ```text
//! <data>/            0700
//!   host.db          0600   tenants, machines, jobs, results, the audit log
//!   secrets.key      0600   what values of secrets in the database are encrypted with
//!   authority/       0700   certificates and keys; root.key can be taken offline
//!   blobs/<tenant>/  0700   attachments and plugins, by digest
//!   gates/<tenant>/  0700   compiled plugins
//!   lock             0600   held by the one host that uses the folder
//! ```

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A host's folder.
#[derive(Debug, Clone)]
pub struct DataDirectory(PathBuf);

/// The folder is this process's alone until this is dropped.
#[derive(Debug)]
pub struct Locked(#[expect(dead_code, reason = "dropping the file releases the lock")] File);

impl DataDirectory {
    /// Creates the folder for a new host.
    ///
    /// # Errors
    ///
    /// Where a host has been set up there, or it cannot be created.
    pub fn create(path: &Path) -> Result<Self, DirectoryError> {
        let io = |source| DirectoryError::Io {
            path: path.to_owned(),
            source,
        };
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = path.parent().unwrap_or(path);
                std::fs::create_dir_all(parent)
                    .and_then(|()| DirBuilder::new().mode(0o700).create(path))
                    .map_err(io)?;
            }
            Err(error) => return Err(io(error)),
        }
        check(path)?;
        let directory = Self(path.to_owned());
        if directory.database().exists() || directory.authority().exists() {
            return Err(DirectoryError::Initialized(path.to_owned()));
        }
        Ok(directory)
    }

    /// The folder of a host that was set up.
    ///
    /// # Errors
    ///
    /// Where there is none, or others can look into it.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let directory = Self(path.to_owned());
        if !directory.database().exists() {
            return Err(DirectoryError::NotInitialized(path.to_owned()));
        }
        check(path)?;
        Ok(directory)
    }

    /// Takes the folder for this process.
    ///
    /// # Errors
    ///
    /// Where another process has it.
    pub fn lock(&self) -> Result<Locked, DirectoryError> {
        let path = self.0.join("lock");
        let io = |source| DirectoryError::Io {
            path: path.clone(),
            source,
        };
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => Ok(Locked(file)),
            Err(TryLockError::WouldBlock) => Err(DirectoryError::InUse(self.0.clone())),
            Err(TryLockError::Error(source)) => Err(io(source)),
        }
    }

    /// The database file.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.0.join("host.db")
    }

    /// The folder of certificates and keys.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.0.join("authority")
    }

    /// The file of the key that values of secrets are encrypted with.
    #[must_use]
    pub fn secrets_key(&self) -> PathBuf {
        self.0.join("secrets.key")
    }

    /// The folder of big bytes.
    #[must_use]
    pub fn blobs(&self) -> PathBuf {
        self.0.join("blobs")
    }

    /// The folder of compiled plugins, which is created where it is missing.
    ///
    /// # Errors
    ///
    /// Where it cannot be created.
    pub fn gates(&self) -> Result<PathBuf, DirectoryError> {
        let path = self.0.join("gates");
        let created = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        created
            .map(|()| path.clone())
            .map_err(|source| DirectoryError::Io { path, source })
    }
}

/// Keys and results are for the host's own user alone.
fn check(path: &Path) -> Result<(), DirectoryError> {
    let metadata = std::fs::metadata(path).map_err(|source| DirectoryError::Io {
        path: path.to_owned(),
        source,
    })?;
    if metadata.mode() & 0o077 == 0 {
        Ok(())
    } else {
        Err(DirectoryError::Open {
            path: path.to_owned(),
            mode: metadata.mode() & 0o777,
        })
    }
}

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Set up before.
    #[error("{} holds a host already; nothing was changed", .0.display())]
    Initialized(PathBuf),
    /// Not set up yet.
    #[error("{} holds no host yet; set one up with: sluice-host init --data {}", .0.display(), .0.display())]
    NotInitialized(PathBuf),
    /// Another host is running.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// Others can look into it.
    #[error("{} can be entered by others (mode {mode:o}); run: chmod 700 {}", path.display(), path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file system.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
