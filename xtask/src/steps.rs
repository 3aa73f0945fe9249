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
    "sluice-cli",
];

/// Builds the product's binaries in the `dev` profile, whose dependencies are optimized.
pub(crate) fn build_binaries(profile: &str) -> Result<()> {
    let mut command = cargo();
    command.args(["build", "--profile", profile]);
    for package in BINARIES {
        command.args(["--package", package]);
    }
    run(&mut command)
}

/// A step's headline.
pub(crate) fn headline(text: &str) {
    println!("\n== {text}");
}
