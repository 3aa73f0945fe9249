//! Secrets reach the script that they are for, and nothing and nobody else.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sluice_tests::{Fleet, Output, script};

/// With bytes that are no text, and what shells and encoders treat in a special way.
const VALUE: &[u8] = b"hunter22 & $(id) '\"\\ \xff\xfe=~/?hunter23\n";

/// `sluice secret <verb> <name> -` with the value on standard input.
fn put(fleet: &Fleet, verb: &str, name: &str, value: &[u8]) -> Output {
    let mut command = fleet.command();
    command.args(["secret", verb, name, "-"]);
    let command = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("sluice was built");
    let mut stdin = child.stdin.take().expect("is there");
    // Where it is refused nobody reads.
    let _ = stdin.write_all(value);
    drop(stdin);
    Output::of(&child.wait_with_output().expect("ends"))
}

fn set(fleet: &Fleet, name: &str, value: &[u8]) {
    let output = put(fleet, "set", name, value);
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (0, format!("set secret {name} (version 1)\n").as_str()),
        "{output:?}"
    );
}

/// The files below a folder that one of these texts stands in.
fn with_any(folder: &Path, texts: &[&[u8]]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(with_any(&path, texts));
            continue;
        }
        let bytes = fs::read(&path).unwrap_or_default();
        let has = |text: &&[u8]| bytes.windows(text.len()).any(|part| part == *text);
        if texts.iter().any(has) {
            found.push(path);
        }
    }
    found
}

/// The value in nothing that host or agents keep or log.
fn expect_nowhere(fleet: &Fleet) {
    let encoded = STANDARD.encode(VALUE);
    let texts = [&b"hunter22"[..], b"hunter23", &encoded.as_bytes()[..16]];
    // Host and machines have their folders in that of the fleet.
    assert!(fleet.host.data().starts_with(fleet.folder()));
    assert_eq!(with_any(fleet.folder(), &texts), Vec::<PathBuf>::new());
}

#[test]
fn a_secret_arrives_byte_for_byte_and_is_in_no_file_output_or_log_afterwards() {
    let fleet = Fleet::builder().start();
    set(&fleet, "db-password", VALUE);
    let text = "#!/bin/sh\nf=$SLUICE_SECRET_DB_PASSWORD\nstat -c %a \"$f\"\nod -An -v -tx1 \"$f\" | tr -d ' \\n'\necho\n\
                cat \"$f\"\nbase64 \"$f\"\necho \"-$(cat \"$f\")-\" >&2\ntr '\\0' '\\n' < /proc/$$/environ | grep -c hunter\n:\n";
    let outcome = fleet.run(&script(text).option("--secret", "db-password"));
    outcome.expect("succeeded", "Script executed successfully");
    let arrived: String = VALUE.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        String::from_utf8_lossy(&outcome.bytes("stdout")),
        format!("400\n{arrived}\n***\n***\n0\n")
    );
    assert_eq!(String::from_utf8_lossy(&outcome.bytes("stderr")), "-***-\n");
    assert_eq!(fleet.agents[0].machine.left_behind(), Vec::<PathBuf>::new());
    expect_nowhere(&fleet);
    for arguments in [
        &["secret", "list"][..],
        &["audit", "list"],
        &["job", "show", &outcome.text("job")],
    ] {
        let text = format!("{:?}", fleet.list(arguments));
        assert!(!text.contains("hunter2"), "{arguments:?}: {text}");
    }
    let listed = fleet.list(&["secret", "list"]);
    assert_eq!(
        (
            &listed[0]["name"],
            &listed[0]["version"],
            &listed[0]["revoked"]
        ),
        (&"db-password".into(), &1.into(), &false.into())
    );
    assert!(listed[0].get("value").is_none());
}

#[test]
fn a_secret_waits_sealed_for_a_machine_that_is_away() {
    let mut fleet = Fleet::builder().start();
    set(&fleet, "token", VALUE);
    fleet.agents[0].stop();
    let counts =
        script("#!/bin/sh\nwc -c < \"$SLUICE_SECRET_TOKEN\"\n").option("--secret", "token");
    let job = fleet.detach(&counts);
    expect_nowhere(&fleet);
    // What waits keeps the value that it was submitted with.
    assert_eq!(put(&fleet, "rotate", "token", b"another one").code, 0);
    fleet.agents[0].restart();
    let outcome = fleet.until(&job, "succeeded");
    assert_eq!(outcome.text("stdout"), format!("{}\n", VALUE.len()));
    assert_eq!(fleet.run(&counts).text("stdout"), "11\n");
    expect_nowhere(&fleet);
}

#[test]
fn a_revoked_secret_is_refused_by_name_and_taken_from_what_waits() {
    let mut fleet = Fleet::builder().start();
    set(&fleet, "token", VALUE);
    fleet.agents[0].stop();
    let uses = script("#!/bin/sh\necho started\n").option("--secret", "token");
    let job = fleet.detach(&uses);
    assert_eq!(fleet.sluice(&["secret", "revoke", "token"]).code, 0);
    let refused = fleet.watch(&uses, &["m1"]);
    refused.expect_refused();
    assert!(
        refused.stderr.contains("the secret token was revoked"),
        "{refused:?}"
    );
    fleet.agents[0].restart();
    let outcome = fleet.until(&job, "error");
    assert!(
        outcome
            .text("message")
            .contains("the secret token did not come with the operation"),
        "{outcome:#?}"
    );
    assert!(!fleet.agents[0].machine.has_started_something());
    let events = fleet.events();
    for event in ["secret_set", "secret_revoked"] {
        assert!(events.iter().any(|there| there == event), "{event}");
    }
}

#[test]
fn who_may_run_scripts_may_not_use_or_change_secrets_without_the_permission() {
    let fleet = Fleet::builder().start();
    set(&fleet, "token", VALUE);
    let plain = fleet.token_with("plain", &["RemoteExecution"]);
    let user = fleet.token_with("user", &["RemoteExecution", "UseSecret"]);
    let file = fleet.folder().join("script");
    fs::write(&file, "#!/bin/sh\necho ran\n").expect("writes");
    let file = file.to_str().expect("is text");
    let as_operator = |token: &str, arguments: &[&str]| {
        let mut command = fleet.command();
        command.env("SLUICE_TOKEN", token).args(arguments);
        Output::of(&command.output().expect("sluice was built"))
    };
    let run = ["run", file, "--on", "m1", "--secret", "token"];
    assert_eq!(as_operator(&user, &run).code, 0);
    assert_eq!(as_operator(&user, &["secret", "list"]).code, 0);
    for (token, arguments, permission) in [
        (&plain, &run[..], "UseSecret"),
        (&plain, &["secret", "list"], "UseSecret"),
        (&user, &["secret", "revoke", "token"], "ManageSecrets"),
        (
            &user,
            &["secret", "set", "other", "@/etc/hostname"],
            "ManageSecrets",
        ),
    ] {
        let refused = as_operator(token, arguments);
        refused.expect_refused();
        assert!(refused.stderr.contains(permission), "{refused:?}");
    }
    let given = as_operator(&fleet.token, &["secret", "set", "other", "hunter22"]);
    given.expect_refused();
    assert!(!given.stderr.contains("hunter22"), "{given:?}");
    put(&fleet, "set", "short", b"abc").expect_refused();
}
