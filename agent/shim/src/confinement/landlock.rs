//! Landlock: a script reaches the system's programs and its own directories, and no other files; no TCP; no signal and no
//! abstract socket of a process outside.
//!
//! Files are mandatory, with the third version of the interface (Linux 6.2): before that, whatever a user may write can be
//! cut to nothing by its path. TCP (6.7), control of devices (6.10) and scopes (6.12) come where the kernel has them; what
//! it has not is noted. TCP is refused by the seccomp filter too, everywhere.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, LandlockStatus, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
    path_beneath_rules,
};
use nix::unistd::Uid;

/// What a script needs to start programs. Reading and executing.
const PROGRAMS: [&str; 10] = [
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/snap",
];
/// What the system tells about itself, and where names are looked up. Reading.
const TOLD: [&str; 5] = [
    "/proc",
    "/sys",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
];
/// Reading and writing.
const DEVICES: [&str; 5] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
];
/// What strict insists on, and the newest that it was tried with.
const NEEDED: ABI = ABI::V3;
const TRIED: ABI = ABI::V6;

#[derive(Debug, thiserror::Error)]
pub(super) enum LandlockError {
    #[error("it needs Landlock as Linux 6.2 and later have it ({0})")]
    Missing(#[from] RulesetError),
    #[error("it needs Landlock, which is switched off here")]
    NotEnforced,
}

/// Restricts this process. Returns the version of the interface that applies.
pub(super) fn restrict(
    interpreter: &Path,
    own: &[PathBuf],
    notes: &mut Vec<String>,
) -> Result<u32, LandlockError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let programs = PROGRAMS.iter().map(Path::new).chain([interpreter]);
    // A path that does not exist, or that this user cannot reach, is left out: that takes away, and gives nothing.
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(NEEDED))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(TRIED))?
        .handle_access(AccessNet::from_all(TRIED))?
        .scope(Scope::from_all(TRIED))?
        .create()?
        .add_rules(path_beneath_rules(programs, read | AccessFs::Execute))?
        .add_rules(path_beneath_rules(TOLD, read))?
        .add_rules(path_beneath_rules(
            DEVICES,
            AccessFs::from_file(TRIED) & !AccessFs::Execute,
        ))?
        // A device that root makes there would be another way to everything on the disk.
        .add_rules(path_beneath_rules(
            own,
            AccessFs::from_all(TRIED) & !(AccessFs::MakeBlock | AccessFs::MakeChar),
        ))?
        .restrict_self()?;
    match status.ruleset {
        RulesetStatus::NotEnforced => return Err(LandlockError::NotEnforced),
        RulesetStatus::PartiallyEnforced => notes.push(
            "this kernel's Landlock does not keep all of TCP, devices, signals and abstract sockets from the script".into(),
        ),
        RulesetStatus::FullyEnforced => {}
    }
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => {
            Ok((effective_abi as u32).min(TRIED as u32))
        }
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => {
            Err(LandlockError::NotEnforced)
        }
    }
}

/// Whether a path that exists lies in what every script may read. (`/etc/sluice` is root's, and has no keys in it.)
pub(super) fn shows(path: &Path) -> bool {
    path != Path::new("/etc/sluice")
        && path.exists()
        && PROGRAMS.iter().any(|place| path.starts_with(place))
}

/// Whether a directory is this user's home, and not one of the system's that a password file names (`/`, `/bin`,
/// `/usr/sbin` ...).
pub(super) fn is_home(path: &Path) -> bool {
    let mut systems = PROGRAMS.iter().chain(&TOLD).map(Path::new);
    !systems.any(|place| place.starts_with(path))
        && std::fs::metadata(path)
            .is_ok_and(|meta| meta.is_dir() && meta.uid() == Uid::effective().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_the_users_own_and_holds_nothing_of_the_system() {
        let mine = tempfile::tempdir().expect("makes a directory");
        assert!(is_home(mine.path()));
        for path in ["/", "/usr", "/etc", "/run", "/nonexistent", "/dev/null"] {
            assert!(!is_home(Path::new(path)), "{path}");
        }
    }
}
