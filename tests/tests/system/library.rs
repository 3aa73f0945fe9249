//! Stored scripts: added once, run by name, put away, erased.

use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sluice_database::rusqlite::Connection;
use sluice_tests::{Fleet, Outcome, Output};

/// Adds a script under a name, and returns what `sluice` printed.
fn add(fleet: &Fleet, name: &str, text: &str, options: &[&str]) -> Output {
    let file = fleet.folder().join(format!("{name}.script"));
    std::fs::write(&file, text).expect("writes");
    let file = file.to_str().expect("is text");
    fleet.sluice(&[&["script", "add", file, "--name", name], options].concat())
}

/// `sluice run --script` on the first machine.
fn run(fleet: &Fleet, script: &str, options: &[&str]) -> Outcome {
    run_as(fleet, &fleet.token, script, options)
}

fn run_as(fleet: &Fleet, token: &str, script: &str, options: &[&str]) -> Outcome {
    let output = fleet
        .command()
        .env("SLUICE_TOKEN", token)
        .args(["run", "--script", script, "--on", "m1", "--json"])
        .args(options)
        .output()
        .expect("sluice was built");
    let output = Output::of(&output);
    Outcome {
        code: output.code,
        json: serde_json::from_str(output.stdout.trim()).unwrap_or(Value::Null),
        stderr: output.stderr,
    }
}

fn expect_refused(outcome: &Outcome, code: &str) {
    let error: Value = serde_json::from_str(&outcome.stderr).expect("is JSON");
    assert_eq!(
        (outcome.code, &outcome.json, error["error"]["code"].as_str()),
        (125, &Value::Null, Some(code)),
        "{outcome:#?}"
    );
}

#[test]
fn a_script_is_added_once_and_run_by_its_name_and_version() {
    let fleet = Fleet::builder().start();
    let (one, two) = ("#!/bin/sh\necho one\n", "#!/bin/sh\necho two\n");
    for (text, printed) in [(one, "a@1\n"), (one, "a@1\n"), (two, "a@2\n")] {
        assert_eq!(add(&fleet, "a", text, &[]).stdout, printed);
    }
    for (script, stdout, version) in [("a", "two\n", 2), ("a@1", "one\n", 1), ("a@2", "two\n", 2)] {
        let outcome = run(&fleet, script, &[]);
        outcome.expect("succeeded", "Script executed successfully");
        assert_eq!(outcome.text("stdout"), stdout);
        assert_eq!(
            outcome.json["script"],
            serde_json::json!({"name": "a", "version": version})
        );
    }
    expect_refused(&run(&fleet, "a@3", &[]), "script-version-not-found");
    expect_refused(&run(&fleet, "b", &[]), "script-not-found");
    let job = &fleet.list(&["job", "list"])[0];
    assert_eq!(job["script"]["name"], "a");
}

#[test]
fn what_a_version_fixes_holds_unless_the_job_asks_for_something_else() {
    let fleet = Fleet::builder().start();
    let text = "#!/bin/sh\necho \"$GREETING $NAME\"\nsleep 60\n";
    let options = ["--env", "GREETING=hello", "--env", "NAME=one"];
    let limit = ["--time-limit", "1s"];
    let added = add(&fleet, "a", text, &[options.as_slice(), &limit].concat());
    assert_eq!(added.code, 0, "{added:?}");
    let outcome = run(&fleet, "a", &["--env", "NAME=two"]);
    outcome.expect("timed-out", "Time limit of 1s reached");
    assert_eq!(outcome.text("stdout"), "hello two\n");
    add(&fleet, "b", "#!/bin/sh\n", &["--as", "root"]);
    let outcome = run(&fleet, "b", &[]);
    assert_eq!(outcome.text("state"), "blocked", "{outcome:#?}");
    assert!(
        outcome.text("message").contains("`root`"),
        "the owner judges the version's user: {outcome:#?}"
    );
}

#[test]
fn the_parameters_of_the_header_are_shown_and_work() {
    let fleet = Fleet::builder().start();
    let text = "#!/bin/sh\n# /// sluice\n# [parameters.count]\n# type = \"integer\"\n# required = true\n# max = 3\n# ///\n\
                echo \"$SLUICE_PARAM_COUNT\"\n";
    add(&fleet, "a", text, &[]);
    let shown = &fleet.list(&["script", "show", "a"])[0]["latest"]["parameters"][0];
    assert_eq!(
        (&shown["name"], &shown["type"], &shown["required"]),
        (&"count".into(), &"integer".into(), &true.into())
    );
    assert_eq!(
        run(&fleet, "a", &["--param", "count=2"]).text("stdout"),
        "2\n"
    );
    for (options, reason) in [
        (vec![], "required"),
        (vec!["--param", "count=9"], "at most 3"),
        (vec!["--param", "count=1", "--param", "x=1"], "not declared"),
    ] {
        let outcome = run(&fleet, "a", &options);
        let message = outcome.text("message");
        assert!(
            message.starts_with("Blocked by parameters: ") && message.contains(reason),
            "{message}"
        );
    }
}

#[test]
fn a_script_for_another_system_is_not_sent() {
    let fleet = Fleet::builder().start();
    let header = "#!/bin/sh\n# /// sluice\n# [requires]\n# os = [\"windows\"]\n# ///\n";
    add(&fleet, "header", header, &[]);
    add(
        &fleet,
        "flag",
        "#!/bin/sh\n",
        &["--os", "macos", "--os", "windows"],
    );
    for script in ["header", "flag"] {
        let outcome = run(&fleet, script, &[]);
        outcome.expect(
            "unsupported",
            "Script not supported on target environment: Linux",
        );
        assert_eq!(outcome.code, 127);
    }
    let events = fleet.agents[0].machine.events();
    assert!(
        events.iter().all(|entry| entry["operation"].is_null()),
        "nothing was sent: {events:?}"
    );
    let contradiction = add(&fleet, "both", header, &["--os", "linux"]);
    contradiction.expect_refused();
}

#[test]
fn an_archived_script_runs_no_more_and_its_history_stays() {
    let fleet = Fleet::builder().start();
    add(&fleet, "a", "#!/bin/sh\necho ran\n", &[]);
    let before = run(&fleet, "a", &[]);
    assert_eq!(fleet.sluice(&["script", "archive", "a"]).code, 0);
    for script in ["a", "a@1"] {
        expect_refused(&run(&fleet, script, &[]), "script-archived");
    }
    add(&fleet, "a", "#!/bin/sh\necho more\n", &[]).expect_refused();
    let job = before.text("job");
    assert_eq!(fleet.show(&job).text("stdout"), "ran\n");
    assert_eq!(fleet.list(&["script", "versions", "a"]).len(), 1);
    assert!(!fleet.list(&["script", "list"])[0]["archived_at"].is_null());
    let events = fleet.events();
    for event in ["script_added", "script_version_added", "script_archived"] {
        assert!(events.iter().any(|found| found == event), "{event}");
    }
}

#[test]
fn a_redacted_text_is_gone_and_what_it_did_stays() {
    let mut fleet = Fleet::builder().start();
    let text = "#!/bin/sh\n# hunter2-hunter2\necho ran\n";
    add(&fleet, "a", text, &[]);
    let ran = run(&fleet, "a", &[]).text("job");
    fleet.agents[0].stop();
    let waiting = fleet.sluice(&["run", "--script", "a", "--on", "m1", "--detach"]);
    let waiting = waiting.stdout.trim().to_owned();
    let redacted = fleet.sluice(&["script", "redact", "a@1"]);
    assert_eq!(
        redacted.stdout,
        "redacted a@1\ncanceled 1 operations that had not started\n"
    );
    fleet.show(&waiting).expect("canceled", "Canceled by admin");
    expect_refused(&run(&fleet, "a", &[]), "script-redacted");
    add(&fleet, "b", text, &[]).expect_refused();
    fleet
        .show(&ran)
        .expect("succeeded", "Script executed successfully");
    let version = &fleet.list(&["script", "show", "a@1"])[0];
    assert!(
        version["script"].is_null() && version["redacted_by"] == "admin",
        "{version}"
    );
    assert_eq!(
        version["script_sha256"],
        fleet.show(&ran).json["script_sha256"]
    );
    for entry in std::fs::read_dir(fleet.folder().join("host")).expect("lists") {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        assert!(
            !bytes.windows(15).any(|window| window == b"hunter2-hunter2"),
            "{} has the text",
            path.display()
        );
    }
    assert!(
        fleet
            .events()
            .iter()
            .any(|event| event == "script_redacted")
    );
}

#[test]
fn a_token_for_stored_scripts_is_refused_free_text_and_that_is_on_the_record() {
    let fleet = Fleet::builder().start();
    add(&fleet, "a", "#!/bin/sh\necho stored\n", &[]);
    let token = fleet.token_with("junior", &["RunStoredScripts"]);
    let outcome = run_as(&fleet, &token, "a", &[]);
    outcome.expect("succeeded", "Script executed successfully");
    let file = fleet.folder().join("free.sh");
    std::fs::write(&file, "#!/bin/sh\necho free\n").expect("writes");
    let mut free = fleet.command();
    free.env("SLUICE_TOKEN", &token).arg("run").arg(&file);
    let output = free
        .args(["--on", "m1"])
        .output()
        .expect("sluice was built");
    let refused = Output::of(&output);
    refused.expect_refused();
    assert!(refused.stderr.contains("RemoteExecution"), "{refused:?}");
    for options in [
        ["--as", "nobody"],
        ["--interpreter", "bash"],
        ["--env", "A=b"],
    ] {
        expect_refused(&run_as(&fleet, &token, "a", &options), "permission-denied");
    }
    let denied: Vec<_> = fleet
        .list(&["audit", "list"])
        .into_iter()
        .filter(|entry| entry["event"] == "permission_denied" && entry["operator"] == "junior")
        .collect();
    assert_eq!(denied.len(), 4);
    assert!(
        denied
            .iter()
            .all(|entry| entry["details"]["permission"] == "RemoteExecution")
    );
    assert_eq!(fleet.sluice(&["audit", "verify"]).code, 0);
}

#[test]
fn another_tenant_finds_nothing_and_may_use_the_name_itself() {
    let fleet = Fleet::builder().start();
    add(&fleet, "a", "#!/bin/sh\necho ours\n", &[]);
    // This version has no command that makes a tenant.
    let database = Connection::open(fleet.host.data().join("host.db")).expect("opens");
    database
        .busy_timeout(Duration::from_secs(10))
        .expect("sets");
    let insert = "INSERT INTO tenants (id, name, created) VALUES ('019a0000-0000-7000-8000-000000000001', 'other', 0);
        INSERT INTO operators (id, tenant, name, roles, created)
        VALUES ('019a0000-0000-7000-8000-000000000003', '019a0000-0000-7000-8000-000000000001', 'stranger', '[\"owner\"]', 0);
        INSERT INTO tokens (id, tenant, operator, name, secret_sha256, created)
        VALUES ('019a0000-0000-7000-8000-000000000002', '019a0000-0000-7000-8000-000000000001',
                '019a0000-0000-7000-8000-000000000003', 'stranger', x'SECRET', 0)";
    let secret = hex::encode(Sha256::digest("sluiceop_stranger"));
    database
        .execute_batch(&insert.replace("SECRET", &secret))
        .expect("inserts");
    drop(database);
    let stranger = |arguments: &[&str]| {
        let mut command = fleet.command();
        command.env("SLUICE_TOKEN", "sluiceop_stranger");
        Output::of(&command.args(arguments).output().expect("sluice was built"))
    };
    assert_eq!(stranger(&["script", "list"]).code, 0);
    assert_eq!(stranger(&["script", "list"]).stdout, "");
    for arguments in [
        ["script", "show", "a"].as_slice(),
        &["script", "show", "a@1", "--text"],
        &["script", "versions", "a"],
        &["script", "archive", "a"],
        &["script", "redact", "a@1"],
        &["run", "--script", "a", "--on", "m1"],
    ] {
        let refused = stranger(arguments);
        refused.expect_refused();
        assert!(refused.stderr.contains("there is no"), "{refused:?}");
    }
    let file = fleet.folder().join("a.script");
    let added = stranger(&[
        "script",
        "add",
        file.to_str().expect("is text"),
        "--name",
        "a",
    ]);
    assert_eq!(added.stdout, "a@1\n", "{added:?}");
    assert_eq!(run(&fleet, "a", &[]).text("stdout"), "ours\n");
}

#[test]
fn a_folder_becomes_a_library() {
    let fleet = Fleet::builder().start();
    let folder = fleet.folder().join("scripts");
    std::fs::create_dir(&folder).expect("makes a folder");
    for (name, text) in [
        ("hello.sh", "#!/bin/sh\necho hello\n"),
        ("broken.sh", "#!/bin/sh\n# /// sluice\n# [x]\n# ///\n"),
        ("notes.txt", "no script\n"),
    ] {
        std::fs::write(folder.join(name), text).expect("writes");
    }
    let elsewhere = fleet.folder().join("elsewhere.sh");
    std::fs::write(&elsewhere, "#!/bin/sh\necho elsewhere\n").expect("writes");
    std::os::unix::fs::symlink(elsewhere, folder.join("link")).expect("makes a link");
    let folder_name = folder.to_str().expect("is text");
    let imported = fleet.sluice(&["script", "import", folder_name]);
    assert_eq!(imported.code, 1, "{imported:?}");
    for part in [
        "failed\tbroken.sh",
        "header, line 3",
        "added\thello.sh\thello@1",
        "skipped\tlink",
    ] {
        assert!(imported.stdout.contains(part), "{part}: {imported:?}");
    }
    assert_eq!(
        imported.stderr,
        "sluice: 1 added, 0 unchanged, 2 skipped, 1 failed\n"
    );
    assert_eq!(run(&fleet, "hello", &[]).text("stdout"), "hello\n");
    std::fs::remove_file(folder.join("broken.sh")).expect("removes");
    let again = fleet.sluice(&["script", "import", folder_name]);
    assert!(
        again.code == 0 && again.stdout.contains("unchanged\thello.sh"),
        "{again:?}"
    );
}
