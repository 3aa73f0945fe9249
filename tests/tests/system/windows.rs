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
