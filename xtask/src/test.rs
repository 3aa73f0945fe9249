//! All tests that can run on this machine, after all set-up.

use std::process::{Command, Stdio};

use anyhow::Result;

use crate::plugins;
use crate::steps::{cargo, headline, run};

/// Builds gates and binaries, then runs the tests: with cargo-nextest where it is installed, with `cargo test` otherwise.
pub(crate) fn run_tests(filter: Option<&str>) -> Result<()> {
    headline("Building gates and binaries");
    plugins::make_with_binaries()?;

    headline("Left out on this machine");
    for (tool, what) in LEFT_OUT {
        if !installed(tool) {
            println!("   {what} ({tool} is not installed)");
        }
    }
    if !is_root() {
        println!("   everything that needs users, ownership or namespaces (not root)");
    }

    headline("Tests");
    let nextest = Command::new("cargo-nextest")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let mut command = cargo();
    if nextest.is_ok_and(|status| status.success()) {
        command.args(["nextest", "run", "--workspace", "--no-fail-fast"]);
        command.args(filter);
        run(&mut command)?;
        // nextest does not run documentation tests
        let mut doctests = cargo();
        doctests.args(["test", "--workspace", "--doc", "--quiet"]);
        run(doctests.args(filter))
    } else {
        println!("   cargo-nextest is not installed: with cargo test");
        command.args(["test", "--workspace", "--no-fail-fast"]);
        run(command.args(filter))
    }
}

/// Interpreters, and what is not tested without them.
const LEFT_OUT: &[(&str, &str)] = &[
    ("ruby", "Ruby scripts"),
    ("perl", "Perl scripts"),
    ("node", "JavaScript scripts"),
    ("zsh", "zsh scripts"),
    ("pwsh", "PowerShell scripts"),
    ("python3", "Python scripts"),
];

fn installed(tool: &str) -> bool {
    ["/usr/local/bin", "/usr/bin", "/bin"]
        .iter()
        .any(|folder| std::path::Path::new(folder).join(tool).exists())
}

fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout == b"0\n")
}
