//! What is wrong is refused in one line that says what to do, is on the record, and leaves nothing behind.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use sluice_tests::{Fleet, Outcome, Output, binaries, eventually, is_root, script};

use crate::hostile::without_gates;

/// No operation came of it: exit code 125, one line, which names the fault.
fn expect_refused(outcome: &Outcome, named: &str) {
    assert_eq!(
        (outcome.code, outcome.json.is_null()),
        (125, true),
        "{outcome:#?}"
    );
    let error: serde_json::Value = serde_json::from_str(outcome.stderr.trim())
        .unwrap_or_else(|_| panic!("not one object: {outcome:#?}"));
    let message = error["error"]["message"].as_str().unwrap_or_default();
    assert!(
        message.contains(named) && !message.contains('\n'),
        "{named:?} is not in {message:?}"
    );
    assert!(
        error["error"]["code"]
            .as_str()
            .is_some_and(|code| !code.is_empty()),
        "{error}"
    );
}

/// No operation ever started on the machine, and nothing is left of one.
fn expect_untouched(fleet: &Fleet) {
    let machine = &fleet.agents[0].machine;
    assert!(
        machine.left_behind().is_empty() && !machine.has_started_something(),
        "{:#?}",
        machine.events()
    );
}

#[test]
fn an_unknown_machine_is_a_failed_operation_with_the_name_as_typed() {
    let fleet = Fleet::builder().agents(0).without_gates().start();
    let outcome = fleet.run(&script("#!/bin/sh\n:\n").on("no-such-machine"));
    outcome.expect("failed", "Machine not found");
    assert_eq!(
        (
            outcome.text("machine").as_str(),
            outcome.text("status").as_str(),
            outcome.code
        ),
        ("no-such-machine", "failed", 127)
    );
    assert!(
        fleet
            .events()
            .contains(&"script_execution_attempt".to_owned())
    );
}

#[test]
fn texts_that_are_no_scripts_are_refused_before_an_operation_exists() {
    let fleet = Fleet::builder().start();
    let utf16: Vec<u8> = "#!/bin/sh\n:\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let table: [(&[u8], &str); 6] = [
        (b"#!/bin/sh\necho \0\n", "NUL"),
        (&[b"\xff\xfe".as_slice(), &utf16].concat(), "UTF-16"),
        (b"", "empty"),
        (b"#!/bin/sh\n\xc3\x28\n", "UTF-8"),
        (b"echo hi\n", "interpreter"),
        (b"#!/bin/sh\n# /// sluice\n# [requires\n# ///\n", "header"),
    ];
    for (bytes, named) in table {
        expect_refused(&fleet.run(&script(bytes)), named);
    }
    let refusals = fleet
        .events()
        .iter()
        .filter(|event| *event == "request_refused")
        .count();
    assert_eq!(refusals, table.len(), "{:?}", fleet.events());
    assert_eq!(
        fleet.list(&["job", "list"]).len(),
        1,
        "the template's job alone"
    );
    expect_untouched(&fleet);
}

#[test]
fn names_that_can_be_none_are_refused_before_an_operation_exists() {
    let fleet = Fleet::builder().start();
    let text = || script("#!/bin/sh\n:\n");
    for (variable, named) in [
        ("SLUICE_JOB_ID=x", "SLUICE_JOB_ID"),
        ("1A=x", "1A"),
        ("A-B=x", "A-B"),
        ("A B=x", "A B"),
    ] {
        expect_refused(&fleet.run(&text().option("--env", variable)), named);
    }
    expect_refused(
        &fleet.run(&text().option("--env", "A=1").option("--env", "A=2")),
        "the environment variable A is given more than once",
    );
    let named = "9 is no name for a parameter";
    expect_refused(&fleet.run(&text().param("9", "x")), named);
    expect_refused(&fleet.run(&text().as_user("a/b")), "a/b");
    expect_refused(&fleet.run(&text().time_limit("30")), "duration");
    expect_refused(&fleet.run(&text().option("--tenant", "other")), "other");
    expect_untouched(&fleet);
}

#[test]
fn what_would_run_code_that_no_gate_saw_is_blocked_on_the_record() {
    let fleet = Fleet::builder().start();
    let text = || script("#!/bin/sh\n:\n");
    let table = [
        (text().option("--env", "LD_PRELOAD=/tmp/x.so"), "LD_PRELOAD"),
        (text().option("--env", "BASH_ENV=/tmp/x"), "BASH_ENV"),
        (text().option("--env", "PYTHONPATH=/tmp"), "PYTHONPATH"),
        (text().option("--env", "PATH=/usr/bin:bin"), "PATH"),
        (text().as_user("no-such-user"), "no-such-user"),
        (text().as_user("root"), "root"),
        (text().as_user("0"), "0"),
        (text().option("--interpreter", "lua"), "lua"),
        (text().option("--interpreter", "/tmp/sh"), "/tmp/sh"),
        (text().option("--interpreter", "bash -c"), "-c"),
        (text().time_limit("2h"), "limits.time"),
        (text().option("--memory-limit", "3GiB"), "limits.memory"),
    ];
    for (script, named) in &table {
        let outcome = fleet.run(script);
        let message = outcome.text("message");
        assert_eq!(
            (outcome.text("state").as_str(), outcome.code),
            ("blocked", 126),
            "{outcome:#?}"
        );
        assert!(
            message.starts_with("Blocked by ") && message.contains(named),
            "{named}: {message}"
        );
    }
    let blocked = fleet
        .events()
        .iter()
        .filter(|event| *event == "script_blocked")
        .count();
    assert_eq!(blocked, table.len(), "{:?}", fleet.events());
    expect_untouched(&fleet);
}

#[test]
fn a_wrong_operator_token_is_refused_and_recorded() {
    let fleet = Fleet::builder().agents(0).without_gates().start();
    let late = fleet
        .sluice(&[
            "token",
            "create",
            "late",
            "--permission",
            "RemoteExecution",
            "--expires",
            "1ms",
        ])
        .stdout;
    let recorded = |reason: &str| {
        let entries = fleet.list(&["audit", "list"]);
        let failed = entries.iter().filter(|entry| {
            let told = entry["details"]["reason"].as_str().unwrap_or_default();
            entry["event"] == "authentication_failed" && told.contains(reason)
        });
        failed.count()
    };
    for (token, reason) in [
        ("wrong", "not one of this host"),
        (&format!("{}x", fleet.token), "not one of this host"),
        (&fleet.token.to_uppercase(), "not one of this host"),
        (late.trim(), "late has expired"),
    ] {
        let before = recorded(reason);
        // A flood of them is one entry a second.
        eventually(&format!("{token:?} is on the record"), || {
            let mut command = fleet.command();
            command.env("SLUICE_TOKEN", token).args(["machine", "list"]);
            let output = Output::of(&command.output().expect("runs"));
            output.expect_refused();
            assert!(!output.stderr.contains(&fleet.token), "{output:?}");
            (recorded(reason) > before).then_some(())
        });
    }
}

#[test]
fn an_enrollment_token_that_is_used_expired_or_wrong_gives_one_line_and_no_identity() {
    let fleet = Fleet::builder().agents(0).without_gates().start();
    let once = fleet.sluice(&["machine", "enroll-token"]).stdout;
    assert!(
        fleet
            .machine("first", "")
            .enroll(once.trim())
            .status
            .success()
    );
    let short = fleet
        .sluice(&["machine", "enroll-token", "--expires", "1ms"])
        .stdout;
    let table = [
        ("used", once.trim(), "used already"),
        ("late", short.trim(), "expired"),
        ("wrong", "sluice1.AAAA", "token"),
    ];
    for (name, token, reason) in table {
        let machine = fleet.machine(name, "");
        let output = Output::of(&machine.enroll(token));
        assert_ne!(output.code, 0, "{name}: {output:?}");
        assert!(
            output.stderr.lines().count() == 1 && output.stderr.contains(reason),
            "{name}: {output:?}"
        );
        let started = Output::of(
            &Command::new(binaries().join("sluice-agent"))
                .arg("run")
                .arg("--state")
                .arg(&machine.state)
                .output()
                .expect("runs"),
        );
        assert!(
            started.code != 0 && started.stderr.contains("not enrolled"),
            "{name} has an identity: {started:?}"
        );
    }
    assert_eq!(fleet.list(&["machine", "list"]).len(), 1);
    assert_eq!(
        fleet
            .events()
            .iter()
            .filter(|event| *event == "machine_enrollment_refused")
            .count(),
        2,
        "{:?}",
        fleet.events()
    );
}

#[test]
fn a_machine_that_is_enrolled_is_not_enrolled_again() {
    let fleet = Fleet::builder().without_gates().start();
    let token = fleet.sluice(&["machine", "enroll-token"]).stdout;
    let output = Output::of(&fleet.agents[0].machine.enroll(token.trim()));
    assert!(
        output.code != 0 && output.stderr.lines().count() == 1,
        "{output:?}"
    );
    assert_eq!(fleet.list(&["machine", "list"]).len(), 1);
}

#[test]
fn a_wrong_agent_toml_names_file_line_and_key() {
    if !is_root() {
        return;
    }
    let mut fleet = Fleet::builder().without_gates().start();
    let agent = &mut fleet.agents[0];
    for (policy, named) in [
        ("[limits]\noutputs = \"1MiB\"\n", "outputs"),
        ("[limits]\ntime = \"1 hour\"\n", "time"),
        ("[gates]\nstages = [\"scans\"]\n", "scans"),
        ("[confinement]\ntcp_bind = [0]\n", "tcp_bind"),
        ("[confinement]\nwrite = [\"srv\"]\n", "write"),
    ] {
        agent.machine.configure(policy);
        agent.restart();
        assert!(agent.ended().is_some_and(|code| code != 0));
        let log = agent.machine.log();
        let line = log.lines().last().unwrap_or_default();
        // The first line of the file is script_tempdir.
        assert!(
            line.contains("agent.toml") && line.contains("line 3") && line.contains(named),
            "{named}: {line}"
        );
    }
}

#[test]
fn an_agent_toml_that_others_can_write_is_refused() {
    if !is_root() {
        return;
    }
    let mut fleet = Fleet::builder().without_gates().start();
    let agent = &mut fleet.agents[0];
    std::fs::set_permissions(
        &agent.machine.config,
        std::fs::Permissions::from_mode(0o666),
    )
    .expect("changes the mode");
    agent.restart();
    assert!(agent.ended().is_some_and(|code| code != 0));
    assert!(
        agent
            .machine
            .log()
            .lines()
            .last()
            .unwrap_or_default()
            .contains("agent.toml"),
        "{}",
        agent.machine.log()
    );
}

#[test]
fn a_wrong_host_configuration_names_file_line_and_key() {
    let fleet = Fleet::builder().agents(0).without_gates().start();
    let file = fleet.folder().join("host.toml");
    std::fs::write(&file, "agents = \"127.0.0.1:0\"\nlisten = \"x\"\n").expect("writes");
    let data = fleet.folder().join("other");
    let mut command = Command::new(binaries().join("sluice-host"));
    command
        .arg("serve")
        .arg("--data")
        .arg(&data)
        .arg("--config")
        .arg(&file);
    let output = Output::of(&command.output().expect("runs"));
    let line = output.stderr.lines().last().unwrap_or_default();
    assert!(
        output.code != 0
            && line.contains("host.toml")
            && line.contains(":2:")
            && line.contains("listen"),
        "{output:?}"
    );
    assert!(!data.exists());
}

#[test]
fn every_variable_that_brings_in_code_is_blocked_by_its_name() {
    let fleet = without_gates("");
    let text = || script("#!/bin/sh\n:\n");
    let loaders = "LD_PRELOAD LD_AUDIT LD_LIBRARY_PATH GCONV_PATH LOCPATH BASH_ENV ENV SHELLOPTS BASHOPTS PS4 IFS \
                   BASH_FUNC_id%% PYTHONPATH PYTHONHOME PYTHONSTARTUP PERL5OPT PERL5LIB RUBYOPT RUBYLIB NODE_OPTIONS \
                   NODE_PATH";
    let variables = loaders.split_whitespace().map(|name| (name, "x")).chain([
        ("PATH", ""),
        ("PATH", "."),
        ("PATH", "/bin:"),
    ]);
    for (name, value) in variables {
        let outcome = fleet.run(&text().option("--env", &format!("{name}={value}")));
        let message = outcome.text("message");
        assert_eq!(
            (outcome.text("state").as_str(), outcome.code),
            ("blocked", 126),
            "{name}={value}: {outcome:#?}"
        );
        assert!(
            message.starts_with("Blocked by machine policy: ") && message.contains(name),
            "{name}={value}: {message}"
        );
    }
    expect_untouched(&fleet);
}

#[test]
fn variables_that_are_too_many_too_large_or_no_text_are_refused() {
    let fleet = Fleet::builder().agents(0).without_gates().start();
    let text = || script("#!/bin/sh\n:\n");
    let many = (0..=1000).fold(text(), |text, number| {
        text.option("--env", &format!("A{number}="))
    });
    expect_refused(&fleet.run(&many), "more than 1000 variables");
    let large = (0..3).fold(text(), |text, number| {
        text.option("--env", &format!("A{number}={}", "x".repeat(100_000)))
    });
    expect_refused(&fleet.run(&large), "of all variables have more than");
    expect_refused(&fleet.run(&text().option("--env", "=x")), "KEY=VALUE");
    let mut command = fleet.command();
    command.args(["run", "/dev/null", "--on", "m1", "--env"]);
    command.arg(OsStr::from_bytes(b"A=\xff"));
    let output = Output::of(&command.output().expect("runs"));
    assert_eq!((output.code, output.stdout.as_str()), (125, ""));
    assert!(fleet.list(&["job", "list"]).is_empty());
}

#[test]
fn attachments_that_are_not_called_like_plain_files_are_refused() {
    let fleet = Fleet::builder().agents(0).without_gates().start();
    let attached = |names: &[&str]| {
        let text = script("#!/bin/sh\n:\n").on("m1");
        let job = names.iter().enumerate().fold(text, |text, (index, name)| {
            let folder = fleet.folder().join(format!("folder-{index}"));
            std::fs::create_dir_all(&folder).expect("makes a folder");
            let file = folder.join(name);
            std::fs::write(&file, "x").expect("writes");
            text.option("--attach", file.to_str().expect("is text"))
        });
        fleet.run(&job)
    };
    for name in [
        "-rf",
        "C:x",
        "a\\b",
        "a\nb",
        "a|b",
        "a*b",
        "x.",
        "x ",
        "\u{1b}[2J",
        "\u{9b}2J",
    ] {
        expect_refused(&attached(&[name]), "safe file name");
    }
    expect_refused(&attached(&["data", "data"]), "more than once");
    expect_refused(&attached(&["data", "DATA"]), "would be one file");
    expect_refused(&attached(&["\u{e9}", "e\u{301}"]), "would be one file");
    assert!(fleet.list(&["job", "list"]).is_empty());
}

#[test]
fn no_job_chooses_the_program_behind_an_interpreters_name() {
    let mut fleet = Fleet::builder().agents(0).without_gates().start();
    let other = fleet.folder().join("bash");
    std::fs::write(&other, "#!/bin/sh\necho another program\n").expect("writes");
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o777)).expect("changes");
    let allowed = format!("[interpreters]\nallowed = [\"bash\", {other:?}]\n");
    fleet.add_machine("m1", &format!("{allowed}[gates]\nstages = []\n"));
    let text = || script("#!/usr/bin/env bash\necho bash\n");
    let path = format!("PATH={}:/usr/bin:/bin", fleet.folder().display());
    let outcome = fleet.run(&text().option("--env", &path));
    assert_eq!(outcome.text("stdout"), "bash\n", "{outcome:#?}");
    let other = other.to_str().expect("is text");
    let outcome = fleet.run(&text().option("--interpreter", other));
    let message = outcome.text("message");
    assert_eq!(outcome.text("state"), "blocked", "{outcome:#?}");
    assert!(
        message.contains(other) && message.contains("writable"),
        "{message}"
    );
}

#[test]
fn plans_that_cannot_be_say_what_is_wrong_and_what_to_do_and_leave_the_refusal_alone() {
    let fleet = Fleet::builder().agents(0).without_gates().start();
    let file = fleet.folder().join("script.sh");
    std::fs::write(&file, "#!/bin/sh\n:\n").expect("writes");
    let file = file.to_str().expect("is text");
    let jobs = [
        (
            "1, 120%",
            "batches: 120% is over 100%; write them as 1, 10%, 50%, 100%; no job was made",
        ),
        (
            "50%, 10%, 100%",
            "batches: 10% is not above 50%, which stands before it; each counts what is in the ones before; no job was made",
        ),
        (
            "1, 50%",
            "batches end with 50%, so that the other machines would never run it; end with 100%; no job was made",
        ),
        (
            "2, 10%, 100%",
            "batches: of 3 machines 10% is 1, and 2 are in the batches before it; each counts what is in those; no job was made",
        ),
    ];
    for (batches, said) in jobs {
        let options = ["--on", "a", "--on", "b", "--on", "c", "--batches", batches];
        for more in [&[][..], &["--preview"]] {
            let refused = fleet.sluice(&[&["run", file], &options[..], more].concat());
            refused.expect_refused();
            assert!(refused.stderr.contains(said), "{said}: {refused:?}");
        }
    }
    for (cron, said) in [
        (
            "whenever",
            "whenever is no cron expression of five fields: ",
        ),
        (
            "0 0 31 2 *",
            "nothing ever matches the cron expression 0 0 31 2 *: it would never run, give a day that its months have; nothing was scheduled",
        ),
    ] {
        let add = [
            "schedule", "add", "nightly", file, "--cron", cron, "--on", "a",
        ];
        let refused = fleet.sluice(&add);
        refused.expect_refused();
        assert!(
            refused.stderr.contains(said) && refused.stderr.contains("; nothing was scheduled"),
            "{said}: {refused:?}"
        );
    }
    assert!(fleet.list(&["job", "list"]).is_empty());
    assert!(fleet.list(&["schedule", "list"]).is_empty());
    let events = fleet.events();
    let refusals = events.iter().filter(|event| *event == "request_refused");
    assert!(refusals.count() >= jobs.len(), "{events:?}");
    for event in [
        "job_previewed",
        "job_held",
        "script_queued",
        "script_executed",
        "script_scheduled",
    ] {
        assert!(!events.iter().any(|seen| seen == event), "{events:?}");
    }
}
