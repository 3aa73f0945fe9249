//! Where things are.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the product's binaries are: `SLUICE_BINARIES`, or the folder of the test's own profile. `cargo xtask test` builds
/// them.
///
/// # Panics
///
/// Where the executable has no folder.
#[must_use]
pub fn binaries() -> PathBuf {
    if let Some(folder) = std::env::var_os("SLUICE_BINARIES") {
        return folder.into();
    }
    let own = std::env::current_exe().expect("the test has an executable");
    own.parent()
        .and_then(Path::parent)
        .expect("target/<profile>/deps/<test>")
        .to_owned()
}

/// One of the product's programs, started as some supervisors and flock(1) do: with a descriptor 3 that nobody asked for,
/// and after these commands, which may start it themselves.
#[must_use]
pub(crate) fn supervised(program: &Path, commands: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .arg("-c")
        .arg(format!("exec 3</dev/null; {commands}\nexec \"$0\" \"$@\""))
        .arg(program);
    command
}

/// Where `cargo xtask plugins` puts the shipped gates.
///
/// # Panics
///
/// Where the binaries are not in a target folder.
#[must_use]
pub fn plugins() -> PathBuf {
    binaries()
        .parent()
        .expect("target/<profile>")
        .join("plugins")
}

/// Whether this interpreter of scripts is there; says that the test is left out where it is not.
#[must_use]
pub fn installed(program: &str) -> bool {
    let there = Path::new(program).exists();
    if !there {
        eprintln!("LEFT OUT: {program} is not installed");
    }
    there
}

/// Whether tests that need users and root's rights can run; says so where they cannot.
#[must_use]
pub fn is_root() -> bool {
    let root = nix::unistd::Uid::effective().is_root();
    if !root {
        eprintln!("LEFT OUT: this test needs root (users, ownership)");
    }
    root
}

/// How often something is repeated: so many times, and `SLUICE_ROUNDS` times as often where that is set.
///
/// # Panics
///
/// Where it is set to something that is no number.
#[must_use]
pub fn rounds(usual: usize) -> usize {
    let times = std::env::var("SLUICE_ROUNDS");
    usual * times.map_or(1, |times| times.parse::<usize>().expect("is a number"))
}
