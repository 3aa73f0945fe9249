//! How machines join: with which token, from where, and with whose word.

use sluice_tests::{Fleet, Machine, Output, eventually, script};

/// `sluice machine enroll-token` with these options.
fn token(fleet: &Fleet, options: &[&str]) -> String {
    let made = fleet.sluice(&[&["machine", "enroll-token"], options].concat());
    assert_eq!(made.code, 0, "{made:?}");
    made.stdout.trim().to_owned()
}

#[track_caller]
fn expect_refused(machine: &Machine, token: &str, reason: &str) {
    let output = Output::of(&machine.enroll(token));
    assert!(
        output.code != 0 && output.stderr.lines().count() == 1 && output.stderr.contains(reason),
        "{output:?}"
    );
}

#[test]
fn a_token_puts_its_tags_on_machines_and_is_good_for_its_addresses_alone() {
    let fleet = Fleet::builder().agents(0).without_gates().start();
    let elsewhere = token(
        &fleet,
        &["--address", "198.51.100.0/24", "--address", "2001:db8::/32"],
    );
    expect_refused(
        &fleet.machine("far", ""),
        &elsewhere,
        "not for machines at 127.0.0.1",
    );
    let here = token(
        &fleet,
        &[
            "--address",
            "127.0.0.0/8",
            "--tag",
            "env=test",
            "--tag",
            "role=web",
        ],
    );
    assert!(fleet.machine("near", "").enroll(&here).status.success());
    let machines = fleet.list(&["machine", "list", "--tag", "env=test"]);
    assert_eq!((machines.len(), &machines[0]["name"]), (1, &"near".into()));
    assert_eq!(machines[0]["tags"][1]["value"], "web");
    for (option, wrong) in [
        ("--address", "10.0.0.1/8"),
        ("--tag", "a b=c"),
        ("--approval", "never"),
    ] {
        fleet
            .sluice(&["machine", "enroll-token", option, wrong])
            .expect_refused();
    }
    let listed = fleet.list(&["machine", "enroll-tokens"]);
    assert_eq!(listed.len(), 2);
    assert_eq!(
        (
            &listed[0]["uses_left"],
            &listed[0]["addresses"][0],
            &listed[1]["uses_left"]
        ),
        (&0.into(), &"127.0.0.0/8".into(), &1.into())
    );
}

#[test]
fn an_enrollment_token_that_was_revoked_lets_nobody_in_any_more() {
    let fleet = Fleet::builder().agents(0).without_gates().start();
    let twice = token(&fleet, &["--uses", "2"]);
    assert!(fleet.machine("first", "").enroll(&twice).status.success());
    let id = fleet.list(&["machine", "enroll-tokens"])[0]["id"]
        .as_str()
        .expect("text")
        .to_owned();
    assert_eq!(
        fleet.sluice(&["machine", "revoke-enroll-token", &id]).code,
        0
    );
    expect_refused(
        &fleet.machine("second", ""),
        &twice,
        "the token was revoked",
    );
    fleet
        .sluice(&["machine", "revoke-enroll-token", &id])
        .expect_refused();
    assert_eq!(
        fleet.list(&["machine", "list"]).len(),
        1,
        "the first one stays"
    );
    let events = fleet.events();
    for event in ["enroll_token_revoked", "machine_enrollment_refused"] {
        assert!(events.iter().any(|name| name == event), "{event}");
    }
}

#[test]
fn a_machine_that_waits_for_approval_gets_no_gates_and_no_operations_until_somebody_approves_it() {
    let fleet = Fleet::builder().agents(0).start();
    let manual = token(&fleet, &["--approval", "manual", "--uses", "2"]);
    let (good, bad) = (fleet.machine("m1", ""), fleet.machine("m2", ""));
    for machine in [&good, &bad] {
        assert!(machine.enroll(&manual).status.success());
    }
    let _agents = [good.start(), bad.start()];
    eventually("it was told that it waits", || {
        (good.log().contains("waits for approval") && bad.log().contains("waits for approval"))
            .then_some(())
    });
    let shown = |name: &str| fleet.list(&["machine", "show", name]).swap_remove(0);
    let waiting = shown("m1");
    assert_eq!(
        (
            &waiting["pending"],
            &waiting["connected"],
            &waiting["agent_version"]
        ),
        (&true.into(), &false.into(), &serde_json::Value::Null)
    );
    let early = fleet.run(&script("#!/bin/sh\necho early\n"));
    early.expect("failed", "Machine not found");
    let for_nobody = fleet.sluice(&[
        "run",
        good.config.to_str().expect("text"),
        "--interpreter",
        "sh",
        "--all",
    ]);
    assert_eq!(for_nobody.code, 123, "{for_nobody:?}");

    assert_eq!(fleet.sluice(&["machine", "approve", "m1"]).code, 0);
    fleet.sluice(&["machine", "approve", "m1"]).expect_refused();
    assert_eq!(fleet.sluice(&["machine", "deny", "m2"]).code, 0);
    let ran = fleet.run(&script("#!/bin/sh\necho ran\n"));
    ran.expect("succeeded", "Script executed successfully");
    assert_eq!(ran.text("stdout"), "ran\n");
    let machines = fleet.list(&["machine", "list"]);
    let denied = machines.iter().find(|machine| machine["name"] == "m2");
    assert_eq!(
        denied.map(|machine| &machine["revoked"]),
        Some(&true.into())
    );
    let events = fleet.events();
    for event in ["machine_approved", "machine_denied"] {
        assert!(events.iter().any(|name| name == event), "{event}");
    }
}

#[test]
fn an_operator_for_some_machines_enrolls_and_changes_no_others() {
    let fleet = Fleet::builder().agents(0).without_gates().start();
    let policy = r#"permit (principal, action == Action::"ManageMachines", resource)
                    when { context.tags.contains("env=test") };"#;
    let file = fleet.folder().join("test.cedar");
    std::fs::write(&file, policy).expect("writes");
    let role = ["role", "set", "test-machines", file.to_str().expect("text")];
    assert_eq!(fleet.sluice(&role).code, 0);
    let ann = fleet
        .sluice(&["token", "create", "ann", "--role", "test-machines"])
        .stdout;
    let as_ann = |arguments: &[&str]| {
        let mut command = fleet.command();
        command.env("SLUICE_TOKEN", ann.trim()).args(arguments);
        Output::of(&command.output().expect("sluice was built"))
    };
    let enroll = ["machine", "enroll-token"];
    let refused = as_ann(&enroll);
    refused.expect_refused();
    assert!(
        refused
            .stderr
            .contains("ManageMachines for machines that join"),
        "{refused:?}"
    );
    let made = as_ann(&[enroll.as_slice(), &["--tag", "env=test"]].concat());
    assert_eq!(made.code, 0, "{made:?}");
    assert!(
        fleet
            .machine("mine", "")
            .enroll(made.stdout.trim())
            .status
            .success()
    );
    assert!(
        fleet
            .machine("other", "")
            .enroll(&token(&fleet, &[]))
            .status
            .success()
    );
    assert_eq!(as_ann(&["machine", "rename", "mine", "yours"]).code, 0);
    for arguments in [
        ["machine", "tag", "other", "env=test"],
        ["machine", "rename", "other", "x"],
        // Neither can they give one of theirs to somebody else's.
        ["machine", "tag", "yours", "env=prod"],
    ] {
        let refused = as_ann(&arguments);
        refused.expect_refused();
        assert!(
            refused
                .stderr
                .contains("ann lacks the permission ManageMachines for"),
            "{refused:?}"
        );
    }
    as_ann(&["machine", "revoke", "other"]).expect_refused();
    assert_eq!(as_ann(&["machine", "revoke", "yours"]).code, 0);
}
