//! The whole-system tests as another user: an agent that is not root, end to end.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::unistd::{Uid, User};
use serde_json::Value;

use crate::plugins;
use crate::steps::{BINARIES, cargo, headline, target};
use crate::test::{Tested, shown};

/// What needs cargo and the checkout, and no agent.
const NEED_THE_CHECKOUT: &[&str] = &["workspace::", "kit::"];

/// The host with a clock that tests move, which is built with them.
const TEST_HOST: &str = "sluice-test-host";

/// Runs the tests of the whole system as `user`, on copies of what was built: the checkout may be where only its owner gets.
pub(crate) fn run_tests(filter: Option<&str>, user: &str) -> Result<Tested> {
    ensure!(
        Uid::effective().is_root(),
        "only root runs tests as another user; without --as-user they run as yours"
    );
    let found = User::from_name(user)?.with_context(|| format!("there is no user {user}"))?;
    ensure!(!found.uid.is_root(), "{user} is root");
    let built = system_tests()?;

    // Laid out as a target folder, because that is where tests look for programs and gates.
    let stage = tempfile::Builder::new()
        .prefix("sluice-as-user-")
        .tempdir()?;
    fs::set_permissions(stage.path(), fs::Permissions::from_mode(0o755))?;
    let debug = stage.path().join("debug");
    fs::create_dir_all(debug.join("deps"))?;
    for name in BINARIES.iter().chain(&[TEST_HOST]) {
        fs::copy(target().join("debug").join(name), debug.join(name))?;
    }
    let tests = debug.join("deps/system");
    fs::copy(built, &tests)?;
    // Signed by a key of their own: the other one stays with its owner.
    plugins::make_in(&stage.path().join("plugins"))?;
    give(stage.path(), &found)?;

    headline(&format!("The whole system as {user}"));
    for module in NEED_THE_CHECKOUT {
        println!("   not run as another user: {module} (it needs cargo and the checkout)");
    }
    let mut command = Command::new(&tests);
    command
        .args(["--show-output", "--test-threads=3"])
        .args(
            NEED_THE_CHECKOUT
                .iter()
                .flat_map(|module| ["--skip", module]),
        )
        .args(filter)
        .current_dir(stage.path())
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .uid(found.uid.as_raw())
        .gid(found.gid.as_raw());
    shown(&mut command)
}

/// The program with these tests, built as all others are.
fn system_tests() -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["test", "--workspace", "--no-run", "--test", "system"]);
    let output = build
        .arg("--message-format=json-render-diagnostics")
        .stderr(std::process::Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the tests do not compile");
    let text = String::from_utf8(output.stdout)?;
    let program = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "system")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    program.context("cargo made no program of the whole-system tests")
}

/// Makes a user the owner of a folder and everything in it.
fn give(folder: &Path, user: &User) -> Result<()> {
    let owner = |path: &Path| {
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
            .with_context(|| path.display().to_string())
    };
    owner(folder)?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            give(&path, user)?;
        } else {
            owner(&path)?;
        }
    }
    Ok(())
}
