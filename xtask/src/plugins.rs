//! The shipped gates.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::steps::{BINARIES, GATES, build, root, run, target};

/// The shipped plugins: folder and name.
pub(crate) const NAMES: &[&str] = &["environment", "parameters", "scanner", "policy"];

/// Builds the product's binaries too. What makes the gates takes long to compile, and is compiled beside them.
pub(crate) fn make_with_binaries() -> Result<PathBuf> {
    build("dev", &[BINARIES, &[GATES]].concat())?;
    make()
}

/// Builds, componentizes and signs all of them, and returns the folder with the results.
pub(crate) fn make() -> Result<PathBuf> {
    build("dev", &[GATES])?;
    let out = target().join("plugins");
    make_in(&out)?;
    Ok(out)
}

/// The same in another folder, signed by the key there, or a new one.
pub(crate) fn make_in(out: &Path) -> Result<()> {
    let mut gates = Command::new(target().join("debug").join(GATES));
    run(gates.arg(out).args(NAMES).current_dir(root()))
}
