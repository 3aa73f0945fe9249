//! The tests again and again: what fails now and then is found before somebody else meets it.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::steps::{run as run_command, target};

/// Runs what `tests` makes so many times. What each run prints goes into `target/test-runs/<number>.log`; that of a run that
/// fails is shown, and is the last.
pub(crate) fn run(times: u32, tests: impl Fn() -> Command) -> Result<()> {
    run_in(&target().join("test-runs"), times, tests)
}

fn run_in(folder: &Path, times: u32, tests: impl Fn() -> Command) -> Result<()> {
    // Logs of earlier runs say nothing about these.
    let _there_were_none = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    for number in 1..=times {
        let path = folder.join(format!("{number}.log"));
        let log = File::create(&path).with_context(|| path.display().to_string())?;
        let started = Instant::now();
        let tested = run_command(tests().stdout(log.try_clone()?).stderr(log));
        let took = started.elapsed().as_secs();
        if let Err(error) = tested {
            println!("{}", String::from_utf8_lossy(&fs::read(&path)?));
            bail!(
                "run {number} of {times} failed after {took} s: {error:#}; see {}",
                path.display()
            );
        }
        println!("   run {number} of {times} passed in {took} s");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_run_that_fails_is_the_last_and_its_log_is_kept() {
        let folder = target().join(format!("times-{}", std::process::id()));
        // Fails where its second log is there, which is when it runs for the second time.
        let tests = || {
            let mut tests = Command::new("/bin/sh");
            tests.current_dir(&folder);
            tests.args(["-c", "echo said; echo warned >&2; ! [ -e 2.log ]"]);
            tests
        };
        let failed = run_in(&folder, 5, tests).expect_err("the second fails");
        let log = fs::read_to_string(folder.join("2.log")).expect("is there");
        let third = folder.join("3.log").exists();
        let passed = run_in(&folder, 1, tests);
        fs::remove_dir_all(&folder).expect("removes");
        let failed = failed.to_string();
        assert!(
            failed.starts_with("run 2 of 5 failed") && failed.contains("2.log"),
            "{failed}"
        );
        assert_eq!((log.as_str(), third), ("said\nwarned\n", false));
        passed.expect("the first passes");
    }
}
