//! A program that stays the one that was found, whatever is put at its path meanwhile.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use tokio::process::Command;

/// A program, opened once. Who installs another version at its path replaces the file and not what is open here, so it is
/// started again as it was, until the agent is.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    file: File,
}

impl Program {
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::open(&path)?;
        Ok(Self { path, file })
    }

    /// Where it was found.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A command that executes it, under its own name and with an empty environment.
    #[allow(
        clippy::disallowed_methods,
        reason = "exec is one of the places that start processes (ARCHITECTURE.md)"
    )]
    pub(super) fn command(&self) -> Command {
        // The descriptor is closed by the exec, which has found the program by then.
        let mut command = Command::new(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        command.arg0(&self.path).env_clear();
        command
    }
}
