//! A set-up host with the shipped gates bound, and the gates compiled on both sides: made once, copied by every fleet.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;

use crate::agent::Machine;
use crate::fake::Roster;
use crate::fleet::{connect, enroll_token, sluice};
use crate::host::{Host, init};
use crate::places::{binaries, plugins};
use crate::script::script;

/// The file with the simulated machines that have joined a host.
pub(crate) const ROSTER: &str = "roster";

/// The template for the binaries and gates as they are, made where there is none.
pub(crate) fn template() -> PathBuf {
    made(&key(), make)
}

/// The same of a host without gates that so many simulated machines have joined.
pub(crate) fn crowd_template(count: usize) -> PathBuf {
    made(&format!("{}-crowd-{count}", key()), |folder| {
        make_crowd(folder, count);
    })
}

fn made(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let folder = binaries()
        .parent()
        .expect("target/<profile>")
        .join("fleet-template");
    fs::create_dir_all(&folder).expect("makes a folder");
    let lock = File::create(folder.join("lock")).expect("makes a lock");
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).expect("locks");
    let path = folder.join(name);
    if !path.exists() {
        // Templates of earlier binaries are of no use to anybody.
        let key = key();
        let is_of_use = |name: &str| name == "lock" || name.starts_with(&key);
        for entry in fs::read_dir(&folder)
            .expect("reads")
            .flatten()
            .filter(|entry| !is_of_use(&entry.file_name().to_string_lossy()))
        {
            let _ = fs::remove_dir_all(entry.path());
        }
        let work = tempfile::Builder::new()
            .prefix("making-")
            .tempdir_in(&folder)
            .expect("makes a folder");
        make(work.path());
        fs::rename(work.path(), &path).expect("moves");
    }
    path
}

/// A machine's folder, with the gates compiled, and nothing enrolled. `policy` is `agent.toml` without `script_tempdir`.
pub(crate) fn prepare(root: &Path, name: &str, policy: &str) -> Machine {
    let machine = Machine::prepare(root, name, policy);
    fs::create_dir_all(machine.state.join("gates")).expect("makes a folder");
    fs::set_permissions(&machine.state, fs::Permissions::from_mode(0o700))
        .expect("changes the mode");
    let compiled = template().join("gates");
    copy(&compiled, &machine.state.join("gates/host"));
    copy(&compiled, &machine.state.join("gates/owner"));
    machine
}

/// Copies a folder with modes and owners.
pub(crate) fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .expect("cp is there");
    assert!(
        status.success(),
        "cp -a {} {}",
        from.display(),
        to.display()
    );
}

fn key() -> String {
    let mut digest = Sha256::new();
    for name in ["environment", "parameters", "scanner", "policy"] {
        digest.update(
            fs::read(plugins().join(format!("{name}.wasm")))
                .expect("run cargo xtask plugins first"),
        );
    }
    for name in ["sluice-host", "sluice-agent", "sluice-gate-runner"] {
        let metadata = fs::metadata(binaries().join(name))
            .expect("run cargo xtask test, which builds the binaries");
        digest.update(format!(
            "{name} {} {:?}",
            metadata.len(),
            metadata.modified().expect("has a time")
        ));
    }
    hex::encode(&digest.finalize()[..8])
}

fn make_crowd(folder: &Path, count: usize) {
    let data = folder.join("host");
    let token = init(&data);
    fs::write(folder.join("token"), &token).expect("writes");
    let host = Host::start(&data);
    let joining = enroll_token(&host.api, &token, count);
    let joining = joining.parse().expect("is a token");
    let runtime = Runtime::new().expect("a run time");
    Roster::enroll(&runtime, &joining, count).save(&folder.join(ROSTER));
}

fn make(folder: &Path) {
    let data = folder.join("host");
    let token = init(&data);
    fs::write(folder.join("token"), &token).expect("writes");
    let host = Host::start(&data);
    let run = |arguments: &[&str]| {
        let output = sluice(&host.api, &token)
            .args(arguments)
            .output()
            .expect("sluice was built");
        assert!(
            output.status.success(),
            "sluice {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout)
            .expect("is text")
            .trim()
            .to_owned()
    };
    let publisher = fs::read_to_string(plugins().join("publisher.pub"))
        .expect("was made by cargo xtask plugins");
    run(&["plugin", "trust", publisher.trim()]);
    for name in ["environment", "parameters", "scanner", "policy"] {
        let file = plugins().join(format!("{name}.wasm"));
        let digest = run(&["plugin", "install", file.to_str().expect("is text")]);
        run(&["plugin", "bind", &digest]);
    }
    // One machine compiles for all that come after it.
    let machine = Machine::prepare(folder, "template", "");
    let _agent = connect(&host.api, &token, &machine);
    let outcome = crate::fleet::run_on(
        &host.api,
        &token,
        "template",
        &script("#!/bin/sh\n:\n"),
        folder,
    );
    assert_eq!(
        outcome.text("state"),
        "succeeded",
        "{outcome:#?}\n{}\n{}",
        host.log(),
        machine.log()
    );
    run(&["machine", "revoke", "template"]);
    copy(&machine.state.join("gates/host"), &folder.join("gates"));
    drop(_agent);
    fs::remove_dir_all(folder.join("template")).expect("removes");
}
