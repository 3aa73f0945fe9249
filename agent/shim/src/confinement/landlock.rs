//! Landlock: a script reaches the system's programs and its own directories, and no other files; no TCP; no signal and no
//! abstract socket of a process outside.
//!
//! Files are mandatory, with the third version of the interface (Linux 6.2): before that, whatever a user may write can be
//! cut to nothing by its path. TCP (6.7), control of devices (6.10) and scopes (6.12) come where the kernel has them; what
//! it has not is noted. TCP is refused by the seccomp filter too, everywhere; unless the owner lets scripts use some ports:
//! then Landlock alone holds the others, and is mandatory for them.

use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus,
    NetPort, PathBeneath, Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::Uid;

use super::opened::Paths;
use crate::spec::Opened;

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
    #[error(
        "confinement.tcp_connect and tcp_bind need Landlock as Linux 6.7 and later have it ({0})"
    )]
    NoPorts(#[source] RulesetError),
    #[error("it needs Landlock, which is switched off here")]
    NotEnforced,
}

/// What is left to a script besides what every script needs.
pub(super) struct Reach<'a> {
    pub(super) interpreter: &'a Path,
    /// Its own directories.
    pub(super) own: &'a [PathBuf],
    /// Of the owner's paths, those that are there.
    pub(super) paths: &'a Paths,
    /// The owner's ports.
    pub(super) opened: &'a Opened,
}

/// Restricts this process. Returns the version of the interface that applies.
pub(super) fn restrict(reach: &Reach<'_>, notes: &mut Vec<String>) -> Result<u32, LandlockError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let execute = read | AccessFs::Execute;
    // A device that root makes there would be another way to everything on the disk.
    let write = AccessFs::from_all(TRIED) & !(AccessFs::MakeBlock | AccessFs::MakeChar);
    let programs = PROGRAMS.iter().map(Path::new).chain([reach.interpreter]);
    let ports = !(reach.opened.tcp_connect.is_empty() && reach.opened.tcp_bind.is_empty());
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(NEEDED))?;
    let ruleset = if ports {
        // Nothing else keeps the other ports from the script then.
        ruleset
            .handle_access(AccessNet::from_all(TRIED))
            .map_err(LandlockError::NoPorts)?
    } else {
        ruleset
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessNet::from_all(TRIED))?
    };
    // A path that does not exist, or that this user cannot reach, is left out: that takes away, and gives nothing.
    let ruleset = ruleset
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(TRIED))?
        .scope(Scope::from_all(TRIED))?
        .create()?
        .add_rules(path_beneath_rules(programs, execute))?
        .add_rules(path_beneath_rules(TOLD, read))?
        .add_rules(path_beneath_rules(
            DEVICES,
            AccessFs::from_file(TRIED) & !AccessFs::Execute,
        ))?
        .add_rules(path_beneath_rules(reach.own, write))?
        .add_rules(beneath(&reach.paths.read, execute))?
        .add_rules(beneath(&reach.paths.write, write))?;
    let ruleset = let_through(ruleset, &reach.opened.tcp_connect, AccessNet::ConnectTcp)?;
    let ruleset = let_through(ruleset, &reach.opened.tcp_bind, AccessNet::BindTcp)?;
    let status = ruleset.restrict_self()?;
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

/// As `path_beneath_rules`, for what is open.
fn beneath(
    found: &[OwnedFd],
    access: BitFlags<AccessFs>,
) -> impl Iterator<Item = Result<PathBeneath<&OwnedFd>, RulesetError>> {
    let is_directory = |found| {
        fstat(found).is_ok_and(|stat| stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits())
    };
    found.iter().map(move |found| {
        let access = if is_directory(found) {
            access
        } else {
            access & AccessFs::from_file(TRIED)
        };
        Ok(PathBeneath::new(found, access))
    })
}

fn let_through(
    ruleset: RulesetCreated,
    ports: &[NonZeroU16],
    access: AccessNet,
) -> Result<RulesetCreated, LandlockError> {
    let rules = ports
        .iter()
        .map(|port| Ok(NetPort::new(port.get(), access)));
    ruleset.add_rules(rules).map_err(LandlockError::NoPorts)
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
