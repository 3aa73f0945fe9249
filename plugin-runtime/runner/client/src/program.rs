//! The programs that belong beside our own: the gate runner, the shim.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

/// A program that is not started. Whoever installed Sluice must act.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// Our own program cannot be found.
    #[error("this program's own file cannot be found")]
    Own(#[source] io::Error),
    /// Not there.
    #[error("{} is missing: it belongs beside this program", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// Others could replace it, and this program is root.
    #[error("{} is not used: it or a directory on the way to it is not root's alone", .0.display())]
    Unsafe(PathBuf),
}

/// The program of this name beside our own.
///
/// # Errors
///
/// As [`checked`].
pub fn beside_own_executable(name: &str) -> Result<PathBuf, ProgramError> {
    let own = std::env::current_exe().map_err(ProgramError::Own)?;
    checked(&own.with_file_name(name))
}

/// The real path of a program that may be started.
///
/// # Errors
///
/// There is none; or we are root, and somebody else could replace it or a directory on the way to it.
pub fn checked(path: &Path) -> Result<PathBuf, ProgramError> {
    let missing = |source| ProgramError::Missing {
        path: path.to_owned(),
        source,
    };
    let path = path.canonicalize().map_err(missing)?;
    if Uid::effective().is_root() {
        for part in path.ancestors() {
            let meta = std::fs::metadata(part).map_err(missing)?;
            // A sticky directory such as /tmp lets nobody replace what is root's in it.
            let others_write =
                meta.mode() & 0o022 != 0 && !(meta.is_dir() && meta.mode() & 0o1000 != 0);
            if meta.uid() != 0 || others_write {
                return Err(ProgramError::Unsafe(part.to_owned()));
            }
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn root_starts_no_program_that_others_could_replace() {
        let directory = tempfile::tempdir().expect("makes a directory");
        let program = directory.path().join("program");
        assert!(matches!(
            checked(&program),
            Err(ProgramError::Missing { .. })
        ));
        std::fs::write(&program, "").expect("writes");
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("sets");
        };
        set(&program, 0o755);
        assert!(checked(&program).is_ok());
        if !Uid::effective().is_root() {
            eprintln!("LEFT OUT: what root refuses needs root");
            return;
        }
        set(directory.path(), 0o777);
        assert!(matches!(checked(&program), Err(ProgramError::Unsafe(_))));
        set(directory.path(), 0o700);
        set(&program, 0o775);
        assert!(matches!(checked(&program), Err(ProgramError::Unsafe(_))));
    }
}
