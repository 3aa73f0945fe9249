//! Benches: ratios between things that are measured in turns in one run.

use anyhow::Result;

use crate::plugins;
use crate::steps::{BINARIES, build, cargo, headline, run as run_command, target};

/// Builds everything with full optimization and runs the benches.
pub(crate) fn run(filter: Option<&str>) -> Result<()> {
    headline("Building (release)");
    plugins::make()?;
    build("release", BINARIES)?;
    let mut command = cargo();
    command.args([
        "run",
        "--release",
        "--quiet",
        "--bin",
        "sluice-benches",
        "--",
    ]);
    command.env("SLUICE_BINARIES", target().join("release"));
    run_command(command.args(filter))
}
