//! A trust domain with the real runner, and gates in it.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sluice_gate_client::trial::{self, Trial, Tried, TriedAnswer};
use sluice_gate_client::{BindError, BindRequest, BoundGate, Component, DomainOptions, GateDomain};
use sluice_guests::Guest;
use sluice_protocol::bundle::{Source, Submission};
use sluice_protocol::report::Mode;
use tempfile::TempDir;
use tokio::sync::Mutex;

pub(crate) const RUNNER: &str = env!("CARGO_BIN_EXE_sluice-gate-runner");

/// Ends with a character of two bytes and a line feed.
pub(crate) const SCRIPT: &str = "#!/bin/sh\necho \u{e9}\n";

/// Held by every test that has runners: some count the runners of this process, which may run all tests.
pub(crate) static ALONE: Mutex<()> = Mutex::const_new(());

/// A domain of its own, and the folder that its cache is in.
pub(crate) fn domain(slot: u32) -> (TempDir, GateDomain) {
    let folder = tempfile::tempdir().expect("makes a directory");
    let options = DomainOptions {
        name: "test".to_owned(),
        slot,
        cache: folder.path().join("cache"),
        runner: Some(PathBuf::from(RUNNER)),
        idle: sluice_gate_client::IDLE,
    };
    (folder, GateDomain::new(options).expect("is set up"))
}

pub(crate) async fn try_to_bind(
    domain: &GateDomain,
    guest: &Guest,
) -> Result<BoundGate, BindError> {
    let request = BindRequest {
        component: Component::read(guest.build().as_slice()).expect("is read"),
        settings: vec![],
        mode: Mode::Enforce,
        owner: false,
    };
    domain.bind(request).await
}

pub(crate) async fn bind(domain: &GateDomain, guest: &Guest) -> BoundGate {
    let bound = try_to_bind(domain, guest).await;
    bound.unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) async fn ask(gate: &BoundGate) -> Tried {
    let submission = Submission::of(SCRIPT);
    let source = Source::read(&submission).expect("reads");
    let trial = Trial {
        submission,
        source,
        arguments: vec![],
        attachments: vec![],
        facts: vec![],
        job: vec![],
        checks: vec![],
        findings: vec![],
    };
    trial::ask(gate, &trial).await
}

/// Whether this is what the honest gate says.
pub(crate) fn is_right(tried: &Tried) -> bool {
    let Ok(TriedAnswer::Findings(findings)) = &tried.answer else {
        return false;
    };
    let [finding] = findings.as_slice() else {
        return false;
    };
    (finding.rule.as_str(), finding.message.as_str()) == ("r1", "honest")
}

/// Serving runners that this process started.
pub(crate) fn runners() -> Vec<i32> {
    let threads = fs::read_dir("/proc/self/task").expect("reads").flatten();
    let mut children: Vec<i32> = threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|text| {
            let children = text.split_whitespace().map(str::parse);
            children.collect::<Vec<_>>()
        })
        .flatten()
        .collect();
    children.retain(|pid| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == b"serve"))
    });
    children.sort_unstable();
    children
}

/// Waits until this holds, and gives what it gives.
pub(crate) async fn eventually<T>(what: &str, holds: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = holds() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
