//! Maintenance windows: what is held, when it starts, and that nothing starts outside.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use sluice_tests::{Fleet, eventually, is_root, script};

use crate::delivery::traces;

fn seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("is after 1970").as_secs()
}

/// A cron expression for the minute of the day in which `at` lies, in UTC.
fn minute(at: u64) -> String {
    format!("{} {} * * *", at / 60 % 60, at / 3600 % 24)
}

fn add(fleet: &Fleet, name: &str, cron: &str, lasts: &str, more: &[&str]) {
    let mut arguments = vec!["window", "add", name, "--cron", cron, "--for", lasts];
    arguments.extend(more);
    let output = fleet.sluice(&arguments);
    assert_eq!(output.code, 0, "{output:?}");
}

fn operation(fleet: &Fleet, job: &str) -> Value {
    fleet.list(&["job", "show", job]).swap_remove(0)
}

fn until_state(fleet: &Fleet, job: &str, state: &str) -> Value {
    eventually(&format!("{job} is {state}"), || {
        Some(operation(fleet, job)).filter(|operation| operation["state"] == state)
    })
}

#[test]
fn what_waits_for_a_window_starts_when_it_opens_and_what_waits_on_a_machine_not_after_it_has_closed()
 {
    if !is_root() {
        return;
    }
    let mut fleet = Fleet::builder()
        .agents(2)
        .policy("[limits]\nparallel = 1\n")
        .start();
    let folder = traces(&fleet);
    let (go, late) = (folder.join("go"), folder.join("late"));
    // Windows open and close with minutes: there must be time left for what comes before that, and not more than needed.
    while !(30..42).contains(&(seconds() % 60)) {
        std::thread::sleep(Duration::from_millis(100));
    }
    let now = seconds();
    add(&fleet, "closing", &minute(now), "1m", &[]);
    add(&fleet, "opening", &minute(now + 60), "1h", &[]);
    let blocker = format!(
        "#!/bin/sh\nuntil [ -e {} ]; do sleep 0.05; done\n",
        go.display()
    );
    let blocker = fleet.detach(&script(blocker).as_user("nobody").on("m1"));
    until_state(&fleet, &blocker, "running");
    let touch = format!("#!/bin/sh\ntouch {}\n", late.display());
    let closing = fleet.detach(
        &script(touch)
            .as_user("nobody")
            .on("m1")
            .option("--window", "closing"),
    );
    until_state(&fleet, &closing, "accepted");
    let opening = fleet.detach(
        &script("#!/bin/sh\n:\n")
            .on("m2")
            .option("--window", "opening"),
    );
    let held = operation(&fleet, &opening);
    assert_eq!(held["state"], "held", "{held}");
    let why = &held["why"][0];
    assert_eq!(
        (&why["reason"], &why["name"]),
        (&"window".into(), &"opening".into())
    );
    let opens_at = why["opens_at"].as_str().expect("opens").to_owned();
    fleet.host.kill_and_restart();
    fleet.agents.iter_mut().for_each(|agent| agent.restart());
    let ran = until_state(&fleet, &opening, "succeeded");
    let started = ran["started_at"].as_str().expect("has started");
    assert!(
        started >= opens_at.as_str(),
        "{started} is before {opens_at}"
    );
    fs::write(&go, "").expect("writes");
    let expired = until_state(&fleet, &closing, "expired");
    assert_eq!(expired["message"], "Expired before it could start");
    assert!(!late.exists(), "it started after its window had closed");
}

#[test]
fn nothing_starts_on_a_machine_outside_of_its_window_unless_somebody_may_ignore_it_or_removes_it() {
    let mut fleet = Fleet::builder().agents(1).start();
    let noon = minute(seconds() + 12 * 3600);
    let wrong = [
        (
            vec!["--cron", "0 0 30 2 *", "--for", "1h"],
            "would never open",
        ),
        (
            vec!["--cron", "0 * * * *", "--for", "2h"],
            "the openings overlap",
        ),
        (
            vec!["--cron", &noon, "--for", "1h", "--zone", "Mars"],
            "no time zone Mars",
        ),
    ];
    for (options, reason) in wrong {
        let mut arguments = vec!["window", "add", "prod"];
        arguments.extend(options);
        let refused = fleet.sluice(&arguments);
        refused.expect_refused();
        assert!(refused.stderr.contains(reason), "{refused:?}");
    }
    add(
        &fleet,
        "prod",
        &noon,
        "1h",
        &["--tag", "env=prod", "--zone", "UTC"],
    );
    let tagged = fleet.sluice(&["machine", "tag", "m1", "env=prod"]);
    assert_eq!(tagged.code, 0, "{tagged:?}");
    let text = script("#!/bin/sh\necho ran\n");
    let job = fleet.detach(&text.clone().option("--expires", "2d"));
    assert_eq!(operation(&fleet, &job)["state"], "held");
    let shown = fleet.sluice(&["job", "show", &job]);
    assert!(
        shown.stdout.contains("the window prod, which opens at"),
        "{shown:?}"
    );
    // It stays so when the host comes back.
    fleet.host.kill_and_restart();
    fleet.agents.iter_mut().for_each(|agent| agent.restart());
    let window = &fleet.list(&["window", "show", "prod"])[0];
    assert_eq!(
        (
            &window["open"],
            &window["machines"],
            window["next"].as_array().map(Vec::len)
        ),
        (&false.into(), &1.into(), Some(3)),
        "{window}"
    );
    assert_eq!(fleet.list(&["window", "list"]).len(), 1);
    let token = fleet.token_with("helper", &["RemoteExecution"]);
    let file = fleet.folder().join("script.sh");
    fs::write(&file, "#!/bin/sh\n:\n").expect("writes");
    let file = file.display().to_string();
    let refused = fleet.sluice(&[
        "--token",
        &token,
        "run",
        &file,
        "--on",
        "m1",
        "--ignore-window",
    ]);
    refused.expect_refused();
    assert!(refused.stderr.contains("IgnoreWindows"), "{refused:?}");
    let ignoring = fleet.detach(&text.flag("--ignore-window"));
    until_state(&fleet, &ignoring, "succeeded");
    assert_eq!(operation(&fleet, &job)["state"], "held");
    let removed = fleet.sluice(&["window", "remove", "prod"]);
    assert_eq!(removed.stdout, "removed window prod\n");
    until_state(&fleet, &job, "succeeded");
    let events = fleet.events();
    for event in ["window_added", "window_removed"] {
        assert!(events.iter().any(|seen| seen == event), "{event}");
    }
}

#[test]
fn a_preview_says_what_the_job_would_wait_for_and_makes_none() {
    let fleet = Fleet::builder().agents(2).without_gates().start();
    add(
        &fleet,
        "later",
        &minute(seconds() + 6 * 3600),
        "1m",
        &["--all"],
    );
    let policy = fleet.folder().join("policy.toml");
    fs::write(&policy, "[[rules]]\napprovers = 2\ntargets = 2\n").expect("writes");
    let policy = policy.to_str().expect("is text");
    let set = fleet.sluice(&["approval", "policy", "set", policy]);
    assert_eq!(set.code, 0, "{set:?}");
    let file = fleet.folder().join("script.sh");
    fs::write(&file, "#!/bin/sh\n:\n").expect("writes");
    let file = file.to_str().expect("is text");
    let run = |options: &[&str]| {
        let output = fleet.sluice(&[&["run", file], options].concat());
        assert_eq!(output.code, 0, "{output:?}");
        output.stdout
    };
    let text = run(&["--all", "--preview"]);
    for said in [
        "waits for 2 other operators, because it is for 2 machines",
        "2 machines wait for later, which opens at ",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    let one = run(&["--on", "m1", "--preview", "--ignore-window"]);
    assert!(!one.contains("wait"), "{one}");
    let preview = run(&["--all", "--preview", "--json"]);
    let preview: Value = serde_json::from_str(&preview).expect("is JSON");
    assert_eq!(fleet.list(&["job", "list"]).len(), 0);

    let job = run(&["--all", "--detach"]);
    let held = operation(&fleet, job.trim());
    let why = |reason: &str| {
        let reasons = held["why"].as_array().expect("is a list");
        let found = reasons.iter().find(|one| one["reason"] == reason);
        found.unwrap_or_else(|| panic!("no {reason}: {held}"))
    };
    assert_eq!(why("approval")["because"], preview["approval"]["because"]);
    assert_eq!(why("window")["opens_at"], preview["windows"][0]["opens_at"]);
}

#[test]
fn windows_of_one_job_are_a_union_and_previews_and_reasons_say_the_same() {
    const HOUR: u64 = 3600;
    let fleet = Fleet::builder().agents(1).start();
    let now = seconds();
    add(&fleet, "now", &minute(now - 60), "2h", &[]);
    add(&fleet, "overlaps", &minute(now + HOUR), "4h", &[]);
    add(&fleet, "evening", &minute(now + 8 * HOUR), "2h", &[]);
    add(&fleet, "night", &minute(now + 9 * HOUR), "3h", &[]);
    let file = fleet.folder().join("script.sh");
    fs::write(&file, "#!/bin/sh\n:\n").expect("writes");
    let file = file.to_str().expect("is text");
    let run = |options: &[&str]| fleet.sluice(&[&["run", file, "--on", "m1"], options].concat());
    let preview = |options: &[&str]| -> Value {
        let output = run(&[options, &["--preview", "--json"]].concat());
        assert_eq!(output.code, 0, "{output:?}");
        serde_json::from_str(&output.stdout).expect("is JSON")
    };

    // One that is open is enough, whichever stands first.
    for options in [
        ["--window", "now", "--window", "overlaps"],
        ["--window", "overlaps", "--window", "now"],
    ] {
        let seen = preview(&options);
        assert_eq!(seen["windows"], Value::Array(Vec::new()), "{seen:#}");
        let ran = run(&options);
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    // Of two that are closed the first to open is waited for.
    let options = ["--window", "night", "--window", "evening"];
    let seen = preview(&options);
    let job = run(&[&options[..], &["--detach"]].concat());
    let job = job.stdout.trim();
    let held = operation(&fleet, job);
    let why = &held["why"][0];
    assert_eq!(
        (&held["state"], &why["name"]),
        (&"held".into(), &"evening".into()),
        "{held:#}"
    );
    assert_eq!(
        (&why["name"], &why["opens_at"]),
        (&seen["windows"][0]["name"], &seen["windows"][0]["opens_at"]),
        "{seen:#}"
    );
    let window = &fleet.list(&["window", "show", "evening"])[0];
    assert_eq!(window["next"][0]["opens_at"], why["opens_at"], "{window:#}");
}

#[test]
fn windows_that_contradict_each_other_or_make_no_sense_are_refused_and_leave_nothing() {
    let fleet = Fleet::builder().agents(1).without_gates().start();
    let (asked, own) = (minute(seconds() + 6 * 3600), minute(seconds() + 12 * 3600));
    add(&fleet, "asked", &asked, "1h", &[]);
    add(&fleet, "own", &own, "1h", &["--all"]);
    for (options, said) in [
        (
            &["asked", "--cron", &own, "--for", "1h"][..],
            "there is a window asked already; nothing was done, remove it first or choose another name",
        ),
        (
            &["none", "--cron", &own, "--for", "0s"],
            "a window cannot be open for 0ms (whole minutes, at least 1m, at most 7d); nothing was done",
        ),
        (
            &["long", "--cron", &own, "--for", "8d"],
            "a window cannot be open for 8d (whole minutes, at least 1m, at most 7d); nothing was done",
        ),
        (
            &["never", "--cron", "0 0 31 2 *", "--for", "1h"],
            "nothing ever matches the cron expression 0 0 31 2 *: the window would never open; nothing was done",
        ),
    ] {
        let refused = fleet.sluice(&[&["window", "add"], options].concat());
        refused.expect_refused();
        assert!(refused.stderr.contains(said), "{said}: {refused:?}");
    }
    assert_eq!(fleet.list(&["window", "list"]).len(), 2);
    let count = |event: &str| {
        let events = fleet.events();
        events.iter().filter(|seen| *seen == event).count()
    };
    let before = count("request_refused");

    let file = fleet.folder().join("script.sh");
    fs::write(&file, "#!/bin/sh\n:\n").expect("writes");
    let file = file.to_str().expect("is text");
    for (options, said) in [
        (
            &["--window", "asked"][..],
            "is never open together with those of the machines (sluice window list); no job was made",
        ),
        (
            &["--window", "nights"],
            "there is no window nights (sluice window list); no job was made",
        ),
        (&["--window", "asked", "--expires", "1h"], "no job was made"),
    ] {
        for more in [&[][..], &["--preview"]] {
            let refused = fleet.sluice(&[&["run", file, "--on", "m1"], options, more].concat());
            refused.expect_refused();
            assert!(refused.stderr.contains(said), "{said}: {refused:?}");
        }
    }
    assert_eq!(fleet.list(&["job", "list"]).len(), 0);
    assert_eq!(count("request_refused"), before + 3);
    assert_eq!(
        ["window_added", "job_previewed", "script_queued"].map(count),
        [2, 0, 0]
    );
}
