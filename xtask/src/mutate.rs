//! Mutations: the code is broken on purpose, one place at a time, and the test that guards it has to fail.
//!
//! `xtask/mutations.toml` says what is broken and which test must notice. Everything happens in a copy of the checkout with
//! a target folder of its own, so that the checkout stays as it is and a mutation costs what its crate costs to build:
//!
//! ```text
//! target/mutants/tree      the sources, one of them broken
//! target/mutants/target    what cargo makes of them
//! target/mutants/results   what came of each row, by its digest
//! ```

mod copy;
mod results;
mod row;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::steps::{BINARIES, cargo, headline, run as run_command};
use copy::Copy;
use results::{Results, Verdict};
use row::Row;

/// So many tests run untouched, several at once, before each of their rows is tried.
const BATCH: usize = 8;

/// Applies the rows whose file, test or reason contains `filter`, and fails where a test did not notice. Rows that were
/// caught before are left out unless `again`; after `limit` no other batch is begun.
pub(crate) fn run(filter: Option<&str>, again: bool, limit: Option<Duration>) -> Result<()> {
    let started = Instant::now();
    let rows = row::all()?;
    let mut results = Results::load()?;
    let chosen: Vec<_> = rows
        .iter()
        .filter(|row| filter.is_none_or(|filter| row.contains(filter)))
        .filter(|row| again || results.of(row) != Some(Verdict::Caught))
        .collect();
    ensure!(!chosen.is_empty(), "no row is left to try");
    for row in &chosen {
        row.check()?;
    }

    headline("A copy of the checkout");
    let copy = Copy::make()?;
    let mut left = chosen.len();
    for rows in chosen.chunks(BATCH) {
        headline("These tests pass while nothing is broken");
        // Also after a batch, whose last row has left its programs.
        copy.build_everything()?;
        let untouched = copy.test(rows)?;
        ensure!(
            untouched == Tested::Passed,
            "{untouched:?}: nothing can be said about what is broken"
        );
        for row in rows {
            headline(&format!("{}: {}", row.file, row.breaks));
            let verdict = attempt(&copy, row)?;
            println!("   {verdict}: {}", row.test);
            results.add(row, verdict)?;
            left -= 1;
        }
        if limit.is_some_and(|limit| started.elapsed() > limit) {
            break;
        }
    }
    headline("What came of it");
    let mut missed = 0;
    for row in &rows {
        let verdict = results.of(row);
        if verdict.is_some_and(|verdict| verdict != Verdict::Caught) {
            missed += 1;
            let verdict = verdict
                .map(|verdict| verdict.to_string())
                .unwrap_or_default();
            println!("   {verdict}: {}: {} ({})", row.file, row.breaks, row.test);
        }
    }
    let caught = rows
        .iter()
        .filter(|row| results.of(row) == Some(Verdict::Caught));
    println!(
        "   {} rows: {} caught, {missed} not, {left} of those chosen not tried yet",
        rows.len(),
        caught.count()
    );
    if missed > 0 {
        bail!("{missed} mutations were not caught");
    }
    Ok(())
}

/// Breaks one place, builds what is concerned, asks the test, and mends the place.
fn attempt(copy: &Copy, row: &Row) -> Result<Verdict> {
    let broken = copy.break_at(row)?;
    let verdict = if copy.build(row).is_err() {
        Verdict::DoesNotCompile
    } else {
        match copy.test(&[row])? {
            Tested::Failed => Verdict::Caught,
            Tested::Passed => Verdict::Survived,
            Tested::DoesNotCompile => Verdict::DoesNotCompile,
            Tested::NotThere => bail!("there is no test {} in {}", row.test, row.program),
        }
    };
    broken.mend()?;
    Ok(verdict)
}

/// What nextest says by its exit code: <https://docs.rs/nextest-metadata/latest/nextest_metadata/enum.NextestExitCode.html>
#[derive(Debug, PartialEq, Eq)]
enum Tested {
    Passed,
    Failed,
    DoesNotCompile,
    NotThere,
}

impl Copy {
    /// A cargo that works in the copy.
    fn cargo(&self) -> Command {
        let mut command = cargo();
        command
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.target);
        command
    }

    /// All that tests start, and the tests, so that a row has little left to build.
    fn build_everything(&self) -> Result<()> {
        self.build_gates()?;
        self.build_binaries()?;
        let mut tests = self.cargo();
        run_command(tests.args(["nextest", "run", "--workspace", "--no-run"]))
    }

    /// What the test of a row starts. Cargo knows what of it the broken file concerns.
    fn build(&self, row: &Row) -> Result<()> {
        if row.starts_programs() {
            self.build_binaries()?;
        }
        if row.starts_programs() && row.is_of_a_gate() {
            self.build_gates()?;
        }
        Ok(())
    }

    fn build_binaries(&self) -> Result<()> {
        let mut build = self.cargo();
        build.args(["build", "--quiet"]);
        for binary in BINARIES {
            build.args(["--bin", binary]);
        }
        run_command(&mut build)
    }

    fn build_gates(&self) -> Result<()> {
        let mut build = self.cargo();
        run_command(build.args(["run", "--quiet", "--bin", "xtask", "--", "plugins"]))
    }

    /// Runs the tests of these rows.
    fn test(&self, rows: &[&Row]) -> Result<Tested> {
        let expressions: BTreeSet<_> = rows.iter().map(|row| row.expression()).collect();
        let expression = expressions.into_iter().collect::<Vec<_>>().join(" | ");
        let selected: BTreeSet<_> = rows.iter().map(|row| row.selection()).collect();
        let mut tests = self.cargo();
        tests
            .args(["nextest", "run", "--workspace", "--cargo-quiet"])
            .args(["--no-fail-fast", "--failure-output", "never"])
            .args(["--status-level", "fail", "--final-status-level", "fail"])
            .args(selected.into_iter().flatten())
            .args(["-E", &expression]);
        let status = tests.status().context("cargo-nextest is needed for this")?;
        match status.code() {
            Some(0) => Ok(Tested::Passed),
            Some(4) => Ok(Tested::NotThere),
            Some(100) => Ok(Tested::Failed),
            Some(101) => Ok(Tested::DoesNotCompile),
            _ => bail!("nextest ended with {status}"),
        }
    }
}
