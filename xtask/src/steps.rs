//! Steps that several commands take: cargo, and where things are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("{} cannot be started", command.get_program().display()))?;
    if status.success() {
        Ok(())
    } else {
        let words: Vec<_> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_string_lossy())
            .collect();
        bail!("`{}` failed ({status})", words.join(" "))
    }
}

/// The binaries of the product.
pub(crate) const BINARIES: &[&str] = &[
    "sluice-host",
    "sluice-agent",
    "sluice-shim",
    "sluice-gate-runner",
    "sluice",
];

/// What makes the shipped gates.
pub(crate) const GATES: &str = "xtask-gates";

/// Builds binaries in this profile; the dependencies of `dev` are optimized too.
pub(crate) fn build(profile: &str, binaries: &[&str]) -> Result<()> {
    run(&mut building(profile, binaries))
}

/// `cargo build` of these binaries. It names no package: cargo would leave out the features that the other packages of the
/// workspace switch on, and compile wasmtime and most of the rest once more for what comes next. For the same reason the
/// alias `cargo xtask` names the binary and not the package, and works in the workspace's root alone.
fn building(profile: &str, binaries: &[&str]) -> Command {
    let mut command = cargo();
    command.args(["build", "--profile", profile]);
    for binary in binaries {
        command.args(["--bin", binary]);
    }
    command
}

/// A step's headline.
pub(crate) fn headline(text: &str) {
    println!("\n== {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_first_is_built_with_the_features_of_all_packages() {
        let build = building("dev", BINARIES);
        let build: Vec<_> = build
            .get_args()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let config = std::fs::read_to_string(root().join(".cargo/config.toml")).expect("reads");
        let alias = config.lines().find(|line| line.starts_with("xtask = "));
        for command in [build.join(" "), alias.expect("is there").to_owned()] {
            assert!(command.contains("--bin"), "{command}");
            assert!(!command.contains("--package"), "{command}");
            assert!(!command.contains(" -p "), "{command}");
        }
    }
}
