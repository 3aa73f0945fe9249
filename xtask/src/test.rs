//! All tests that can run on this machine, after all set-up.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::left_out::{LeftOut, of_output, of_report, show};
use crate::steps::{cargo, headline, run, target};
use crate::{as_user, plugins, times};

/// Which tests, and how.
pub(crate) enum Run<'a> {
    /// All, once.
    Once,
    /// Those of the whole system, as this user.
    AsUser(&'a str),
    /// All, so many times, until one fails.
    Times(u32),
}

/// Builds gates and binaries, then runs the tests: with cargo-nextest where it is installed, with `cargo test` otherwise.
pub(crate) fn run_tests(filter: Option<&str>, run: &Run<'_>) -> Result<()> {
    headline("Building gates and binaries");
    plugins::make_with_binaries()?;

    headline("Tests");
    let (tested, left_out) = match run {
        Run::AsUser(user) => as_user::run_tests(filter, user)?,
        Run::Times(times) if has_nextest() => {
            let tested = times::run(*times, || {
                let mut tests = nextest(filter);
                tests.arg("--fail-fast");
                tests
            });
            let report = std::fs::read_to_string(report()).unwrap_or_default();
            (tested, of_report(&report))
        }
        Run::Times(times) => (
            times::run(*times, || cargo_test(filter)),
            // Their logs have it.
            BTreeSet::new(),
        ),
        Run::Once if has_nextest() => with_nextest(filter)?,
        Run::Once => {
            println!("   cargo-nextest is not installed: with cargo test");
            shown(&mut cargo_test(filter))?
        }
    };
    show(&left_out);
    tested
}

fn cargo_test(filter: Option<&str>) -> Command {
    let mut tests = cargo();
    tests.args(["test", "--workspace", "--no-fail-fast"]);
    tests.args(filter).args(["--", "--show-output"]);
    tests
}

fn nextest(filter: Option<&str>) -> Command {
    let mut tests = cargo();
    tests.args(["nextest", "run", "--workspace"]).args(filter);
    tests
}

/// Where `.config/nextest.toml` has it written.
fn report() -> PathBuf {
    target().join("nextest/default/junit.xml")
}

fn has_nextest() -> bool {
    let mut nextest = Command::new("cargo-nextest");
    nextest.arg("--version");
    let status = nextest.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Whether all passed, and what was left out.
pub(crate) type Tested = (Result<()>, BTreeSet<LeftOut>);

fn with_nextest(filter: Option<&str>) -> Result<Tested> {
    let report = report();
    // That of an earlier run says nothing about this one.
    let _there_was_none = std::fs::remove_file(&report);
    let tested = run(nextest(filter).arg("--no-fail-fast"));
    let report = match std::fs::read_to_string(&report) {
        Ok(report) => report,
        // It did not come to that.
        Err(_) if tested.is_err() => return tested.map(|()| (Ok(()), BTreeSet::new())),
        Err(error) => return Err(error).context("nextest wrote no report"),
    };
    let left_out = of_report(&report);
    // nextest does not run documentation tests
    let mut documentation = cargo();
    documentation.args(["test", "--workspace", "--doc", "--quiet"]);
    let documented = run(documentation.args(filter));
    Ok((tested.and(documented), left_out))
}

/// Runs tests that show what they print, and shows it too.
pub(crate) fn shown(tests: &mut Command) -> Result<Tested> {
    let mut child = tests.stdout(Stdio::piped()).spawn()?;
    let mut output = String::new();
    let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    for line in lines {
        let line = line?;
        println!("{line}");
        output.push_str(&line);
        output.push('\n');
    }
    let status = child.wait()?;
    let tested = if status.success() {
        Ok(())
    } else {
        Err(anyhow::anyhow!("the tests failed ({status})"))
    };
    Ok((tested, of_output(&output)))
}
