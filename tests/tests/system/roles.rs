//! Operators, their tokens and their roles, through the real host, machines and command line.

use serde_json::Value;
use sluice_tests::{Fleet, Output};

use crate::schedules::{last, seconds_from_now};
use crate::shipped::rebind;

/// Anything on test machines but as root, and no secrets.
const NIGHT: &str = r#"
permit (principal, action == Action::"RemoteExecution", resource)
when { context.tags.contains("env=test") };
permit (principal, action in [Action::"ReadJobs", Action::"ReadMachines", Action::"ScheduleScript"], resource);
@id("no-root")
forbid (principal, action == Action::"RemoteExecution", resource)
when { context has run_as && context.run_as == "root" };
"#;

fn sluice(fleet: &Fleet, token: &str, arguments: &[&str]) -> Output {
    let mut command = fleet.command();
    command.env("SLUICE_TOKEN", token).args(arguments);
    Output::of(&command.output().expect("sluice was built"))
}

/// What the first operator does, which works.
fn done(fleet: &Fleet, arguments: &[&str]) -> String {
    let output = fleet.sluice(arguments);
    assert_eq!(output.code, 0, "{arguments:?}: {output:?}");
    output.stdout.trim().to_owned()
}

/// A file of the fleet's folder.
fn file(fleet: &Fleet, name: &str, text: &str) -> String {
    let path = fleet.folder().join(name);
    std::fs::write(&path, text).expect("writes");
    path.to_str().expect("is text").to_owned()
}

/// An operator with these roles, and a token of theirs.
fn operator(fleet: &Fleet, name: &str, roles: &str) -> String {
    done(fleet, &["operator", "create", name, "--role", roles]);
    token(fleet, &format!("{name}-1"), name)
}

fn token(fleet: &Fleet, name: &str, operator: &str) -> String {
    done(fleet, &["token", "create", name, "--operator", operator])
}

#[track_caller]
fn expect_denied(output: &Output, what: &str) {
    output.expect_refused();
    assert!(output.stderr.contains(what), "{output:?}");
}

/// Who was refused which permission, oldest first.
fn denied(fleet: &Fleet) -> Vec<(Value, Value)> {
    let entries = fleet.list(&["audit", "list"]);
    entries
        .into_iter()
        .filter(|entry| entry["event"] == "permission_denied")
        .map(|entry| {
            (
                entry["operator"].clone(),
                entry["details"]["permission"].clone(),
            )
        })
        .collect()
}

#[test]
fn a_role_of_ones_own_holds_for_every_machine_and_a_forbid_is_named() {
    let fleet = Fleet::builder().agents(2).start();
    done(&fleet, &["machine", "tag", "m1", "env=test"]);
    done(&fleet, &["machine", "tag", "m2", "env=prod"]);
    let night = file(&fleet, "night.cedar", NIGHT);
    done(&fleet, &["role", "set", "night", &night]);
    let ann = operator(&fleet, "ann", "night");
    let script = file(&fleet, "hello.sh", "#!/bin/sh\necho hello\n");
    let run = |on: &[&str]| sluice(&fleet, &ann, &[&["run", &script], on].concat());
    let before = fleet.list(&["job", "list"]).len();

    let ran = run(&["--on", "m1"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "hello\n"), "{ran:?}");
    expect_denied(
        &run(&["--on", "m2"]),
        "ann lacks the permission RemoteExecution for m2;",
    );
    expect_denied(
        &run(&["--on", "m1", "--on", "m2"]),
        "RemoteExecution for m2 (of 2 machines)",
    );
    expect_denied(&run(&["--all"]), "RemoteExecution for m2 (of 2 machines)");
    expect_denied(
        &run(&["--on", "m1", "--as", "root"]),
        "RemoteExecution for m1 as root: the role night forbids it (no-root)",
    );
    expect_denied(&run(&["--on", "m2", "--preview"]), "RemoteExecution for m2");
    let made = fleet.list(&["job", "list"]).len() - before;
    assert_eq!(made, 1, "one of them was made");
    assert_eq!(
        denied(&fleet),
        vec![("ann".into(), "RemoteExecution".into()); 5]
    );

    // What holds is what the machine and the operator are now.
    done(&fleet, &["machine", "tag", "m2", "env=test"]);
    assert_eq!(run(&["--on", "m2"]).code, 0);
    done(&fleet, &["operator", "roles", "ann", "--role", "viewer"]);
    expect_denied(
        &run(&["--on", "m1"]),
        "ann lacks the permission RemoteExecution;",
    );
    assert_eq!(sluice(&fleet, &ann, &["machine", "list"]).code, 0);
    done(&fleet, &["operator", "remove", "ann"]);
    expect_denied(
        &sluice(&fleet, &ann, &["machine", "list"]),
        "the token of ann was revoked",
    );
    // Whoever has the name from then on is somebody else.
    let other = operator(&fleet, "ann", "viewer");
    assert_eq!(sluice(&fleet, &other, &["machine", "list"]).code, 0);
    expect_denied(&sluice(&fleet, &ann, &["machine", "list"]), "revoked");
}

#[test]
fn a_role_that_does_not_hold_to_the_schema_is_refused_with_the_reason_and_nothing_is_kept() {
    let fleet = Fleet::builder().agents(0).without_gates().start();
    for (text, reason) in [
        (
            "permit (principal, action, resource",
            "not a set of Cedar policies",
        ),
        (
            r#"permit (principal, action == Action::"Fly", resource);"#,
            "Fly",
        ),
        (
            r#"permit (principal, action == Action::"ReadAudit", resource) when { context.tags.contains("a=b") };"#,
            "tags",
        ),
    ] {
        let path = file(&fleet, "wrong.cedar", text);
        expect_denied(&fleet.sluice(&["role", "set", "wrong", &path]), reason);
    }
    let fine = file(&fleet, "fine.cedar", NIGHT);
    expect_denied(
        &fleet.sluice(&["role", "set", "viewer", &fine]),
        "comes with the host",
    );
    expect_denied(
        &fleet.sluice(&["role", "show", "wrong"]),
        "there is no role wrong",
    );
    done(&fleet, &["role", "set", "fine", &fine]);
    assert_eq!(fleet.sluice(&["role", "show", "fine"]).stdout, NIGHT);
    operator(&fleet, "ann", "fine");
    expect_denied(
        &fleet.sluice(&["role", "remove", "fine"]),
        "has the role fine",
    );
    done(&fleet, &["operator", "remove", "ann"]);
    done(&fleet, &["role", "remove", "fine"]);
    let roles = fleet.list(&["role", "list"]);
    assert!(
        roles.len() == 9 && roles.iter().all(|role| role["shipped"] == true),
        "{roles:#?}"
    );
    let events = fleet.events();
    for event in [
        "role_set",
        "role_removed",
        "operator_created",
        "operator_removed",
    ] {
        assert!(events.iter().any(|name| name == event), "{event}");
    }
}

#[test]
fn whoever_stores_a_script_needs_the_right_to_run_it_as_free_text() {
    let fleet = Fleet::builder().start();
    let writer = fleet.token_with("writer", &["ManageScripts", "RunStoredScripts"]);
    let helpdesk = operator(&fleet, "hal", "helpdesk");
    let text = file(&fleet, "a.sh", "#!/bin/sh\necho stored\n");
    for (name, options) in [("plain", [].as_slice()), ("rooted", &["--as", "root"])] {
        let add = [&["script", "add", &text, "--name", name], options].concat();
        assert_eq!(sluice(&fleet, &writer, &add).code, 0, "{name}");
    }
    let run = |token: &str, script: &str| {
        sluice(&fleet, token, &["run", "--script", script, "--on", "m1"])
    };
    for script in ["plain", "rooted"] {
        expect_denied(
            &run(&writer, script),
            "writer lacks the permission RemoteExecution;",
        );
    }
    let ran = run(&helpdesk, "plain");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "stored\n"), "{ran:?}");
    expect_denied(
        &run(&helpdesk, "rooted"),
        "hal lacks the permission RunStoredScripts for m1 as root;",
    );
    expect_denied(
        &sluice(&fleet, &helpdesk, &["run", &text, "--on", "m1"]),
        "hal lacks the permission RemoteExecution;",
    );
}

#[test]
fn nobody_gives_more_than_they_have_or_lifts_what_binds_them() {
    let fleet = Fleet::builder().agents(0).without_gates().start();
    let policies = r#"
        permit (principal, action in [Action::"Administer", Action::"ReadJobs"], resource);
        permit (principal, action == Action::"RemoteExecution", resource) when { context.targets < 5 };
        forbid (principal, action == Action::"ReadJobs", resource);
    "#;
    let boss = file(&fleet, "boss.cedar", policies);
    done(&fleet, &["role", "set", "boss", &boss]);
    let bea = operator(&fleet, "bea", "boss");
    let as_bea = |arguments: &[&str]| sluice(&fleet, &bea, arguments);
    let conditional = "bea lacks the permission RemoteExecution without conditions";
    expect_denied(
        &as_bea(&["token", "create", "x", "--permission", "RemoteExecution"]),
        conditional,
    );
    expect_denied(
        &as_bea(&["operator", "create", "x", "--role", "owner"]),
        conditional,
    );
    expect_denied(
        &as_bea(&["token", "create", "x", "--operator", "admin"]),
        "bea lacks the permission",
    );
    let all = file(&fleet, "all.cedar", "permit (principal, action, resource);");
    expect_denied(&as_bea(&["role", "set", "boss", &all]), conditional);
    let freed = r#"permit (principal, action == Action::"Administer", resource);"#;
    let freed = file(&fleet, "freed.cedar", freed);
    let bound = "bea lacks the permission ReadJobs without conditions";
    expect_denied(&as_bea(&["role", "set", "boss", &freed]), bound);
    done(&fleet, &["role", "set", "plain", &freed]);
    expect_denied(
        &as_bea(&["operator", "roles", "bea", "--role", "plain"]),
        bound,
    );
    // What is theirs they can give as it is, and nothing of all this was done.
    assert_eq!(
        as_bea(&["operator", "create", "cyd", "--role", "boss"]).code,
        0
    );
    assert_eq!(fleet.sluice(&["role", "show", "boss"]).stdout, policies);
    let names: Vec<Value> = fleet
        .list(&["operator", "list"])
        .into_iter()
        .map(|operator| operator["name"].clone())
        .collect();
    assert_eq!(names, ["admin", "bea", "cyd"]);
    assert_eq!(denied(&fleet).len(), 6, "every refusal is on the record");
}

#[test]
fn a_token_that_an_administrator_made_does_not_grow_with_its_operator() {
    let fleet = Fleet::builder().agents(0).without_gates().start();
    let bea = operator(&fleet, "bea", "administrator");
    done(&fleet, &["operator", "create", "ann", "--role", "viewer"]);
    let made = sluice(
        &fleet,
        &bea,
        &["token", "create", "kept", "--operator", "ann"],
    );
    let (kept, own) = (made.stdout.trim().to_owned(), token(&fleet, "own", "ann"));
    done(&fleet, &["operator", "roles", "ann", "--role", "owner"]);
    assert_eq!(sluice(&fleet, &own, &["audit", "list"]).code, 0);
    expect_denied(
        &sluice(&fleet, &kept, &["audit", "list"]),
        "ann lacks the permission ReadAudit",
    );
    assert_eq!(sluice(&fleet, &kept, &["job", "list"]).code, 0);
}

#[test]
fn a_token_is_narrowed_to_a_role_of_its_operators() {
    let fleet = Fleet::builder().agents(0).without_gates().start();
    operator(&fleet, "ann", "operator");
    let narrow = done(
        &fleet,
        &[
            "token",
            "create",
            "look",
            "--operator",
            "ann",
            "--role",
            "auditor",
        ],
    );
    assert_eq!(sluice(&fleet, &narrow, &["job", "list"]).code, 0);
    // The role gives it, and the operator does not have it.
    expect_denied(
        &sluice(&fleet, &narrow, &["audit", "list"]),
        "ann lacks the permission ReadAudit",
    );
    // The operator has it, and the role does not give it.
    let script = file(&fleet, "a.sh", "#!/bin/sh\n");
    expect_denied(
        &sluice(&fleet, &narrow, &["run", &script, "--on", "m1"]),
        "ann lacks the permission RemoteExecution",
    );
    let tokens = fleet.list(&["token", "list"]);
    let shown = |name: &str| {
        let token = tokens
            .iter()
            .find(|token| token["name"] == name)
            .expect("is listed");
        (token["operator"].clone(), token["roles"].to_string())
    };
    assert_eq!(shown("look"), ("ann".into(), r#"["auditor"]"#.to_owned()));
    assert_eq!(shown("ann-1"), ("ann".into(), r#"["operator"]"#.to_owned()));
}

#[test]
fn a_schedule_runs_with_the_roles_that_its_owner_has_then() {
    let fleet = Fleet::builder().start();
    let night = file(&fleet, "night.cedar", NIGHT);
    done(&fleet, &["role", "set", "night", &night]);
    let ann = operator(&fleet, "ann", "night");
    let script = file(&fleet, "a.sh", "#!/bin/sh\necho scheduled\n");
    // The machine has the tag when the schedule is made, and not when it runs.
    done(&fleet, &["machine", "tag", "m1", "env=test"]);
    let before = fleet.list(&["job", "list"]).len();
    let at = seconds_from_now(4);
    let add = [
        "schedule", "add", "once", &script, "--at", &at, "--on", "m1",
    ];
    let added = sluice(&fleet, &ann, &add);
    assert_eq!(added.code, 0, "{added:?}");
    done(&fleet, &["machine", "tag", "m1", "env=prod"]);
    let last = last(&fleet, "once");
    assert_eq!(last["state"], "missed", "{last:#}");
    let reason = last["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("ann lacks the permission RemoteExecution for m1"),
        "{reason}"
    );
    assert_eq!(fleet.list(&["job", "list"]).len(), before);
}

#[test]
fn nobody_approves_with_one_token_what_they_submitted_with_another() {
    let fleet = Fleet::builder().start();
    rebind(&fleet, "policy", "approve-from = \"medium\"\n");
    let first = operator(&fleet, "eve", "operator,approver");
    let second = token(&fleet, "eve-2", "eve");
    let other = operator(&fleet, "zoe", "approver");
    let script = file(
        &fleet,
        "scan.sh",
        "#!/bin/sh\necho ran\nexit 0\nnmap 203.0.113.0/24\n",
    );
    let blocked = sluice(&fleet, &first, &["run", &script, "--on", "m1", "--json"]);
    let json: Value = serde_json::from_str(blocked.stdout.trim()).expect("is JSON");
    assert_eq!(json["code"], "approval-required", "{json:#}");
    let job = json["job"].as_str().expect("text");
    expect_denied(
        &sluice(&fleet, &second, &["job", "approve", job]),
        "nobody approves their own",
    );
    // What the submitter may not do any more is not done on their behalf.
    done(&fleet, &["operator", "roles", "eve", "--role", "viewer"]);
    expect_denied(
        &sluice(&fleet, &other, &["job", "approve", job]),
        "eve lacks the permission RemoteExecution",
    );
    done(&fleet, &["operator", "roles", "eve", "--role", "operator"]);
    assert_eq!(sluice(&fleet, &other, &["job", "approve", job]).code, 0);
}
