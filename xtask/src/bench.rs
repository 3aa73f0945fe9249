//! Benches: ratios between things that are measured in turns in one run.

use anyhow::Result;

use crate::plugins;
use crate::steps::{build_binaries, cargo, headline, run as run_command, target};

/// Builds everything with full optimization and runs the benches.
pub(crate) fn run(filter: Option<&str>) -> Result<()> {
    headline("Building (release)");
    plugins::build()?;
    build_binaries("release")?;
    let mut command = cargo();
    command.args([
        "run",
        "--release",
        "--quiet",
        "--package",
        "sluice-benches",
        "--",
    ]);
    command.env("SLUICE_BINARIES", target().join("release"));
    run_command(command.args(filter))
}
