//! Scripts that run by themselves, and stopping everything at once.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use sluice_tests::{Fleet, Output, eventually, installed, is_root, script};

use crate::delivery::until_away;
use crate::hostile::without_gates;
use crate::isolation::is_running;

/// A time so many seconds from now; `date`'s own words for it.
pub(crate) fn seconds_from_now(seconds: u32) -> String {
    let output = Command::new("date")
        .args(["-u", "-d", &format!("{seconds} seconds")])
        .arg("+%Y-%m-%dT%H:%M:%S.%3NZ")
        .output()
        .expect("date runs");
    String::from_utf8(output.stdout)
        .expect("is text")
        .trim()
        .to_owned()
}

/// What the system says of itself, as agents read it.
const RELEASE: &str = "/etc/os-release";

/// `sluice schedule add NAME` with a script of this text.
fn add(fleet: &Fleet, name: &str, text: &str, options: &[&str]) -> Output {
    let file = fleet.folder().join(format!("{name}.sh"));
    fs::write(&file, format!("#!/bin/sh\n{text}\n")).expect("writes");
    let file = file.to_str().expect("is text");
    fleet.sluice(&[&["schedule", "add", name, file], options].concat())
}

/// Adds a schedule that runs once, so many seconds from now, and says when.
fn add_once(fleet: &Fleet, name: &str, text: &str, seconds: u32, options: &[&str]) -> String {
    let at = seconds_from_now(seconds);
    let added = add(fleet, name, text, &[&["--at", &at], options].concat());
    assert_eq!(added.code, 0, "{added:?}");
    at
}

fn shown(fleet: &Fleet, name: &str) -> Value {
    fleet.list(&["schedule", "show", name]).swap_remove(0)
}

/// Waits until something has become of a schedule's run, and says what.
pub(crate) fn last(fleet: &Fleet, name: &str) -> Value {
    eventually(&format!("{name} has run, or not"), || {
        Some(shown(fleet, name)["last"].clone())
            .filter(|last| last["state"] == "fired" || last["state"] == "missed")
    })
}

/// The job that a schedule made.
fn job(fleet: &Fleet, name: &str) -> String {
    let last = last(fleet, name);
    last["job"]
        .as_str()
        .unwrap_or_else(|| panic!("no job: {last}"))
        .to_owned()
}

fn jobs(fleet: &Fleet) -> usize {
    fleet.list(&["job", "list"]).len()
}

#[test]
fn a_schedule_runs_its_script_when_it_is_time_and_shows_the_job() {
    let fleet = Fleet::builder().start();
    let options = ["--on", "m1", "--param", "word=tick"];
    add_once(&fleet, "once", "echo $SLUICE_PARAM_WORD", 2, &options);
    let before = shown(&fleet, "once");
    assert_eq!(before["state"], "active");
    assert_eq!(before["next"].as_array().map(Vec::len), Some(1));
    let ended = fleet.until(&job(&fleet, "once"), "succeeded");
    assert_eq!(ended.text("stdout"), "tick\n");
    assert_eq!(shown(&fleet, "once")["state"], "ended");
    let events = fleet.events();
    for event in ["script_scheduled", "schedule_fired", "script_executed"] {
        assert!(events.iter().any(|seen| seen == event), "{event}");
    }
    let table = fleet.sluice(&["schedule", "show", "once"]);
    assert!(table.stdout.contains(&job(&fleet, "once")), "{table:?}");
}

#[test]
fn what_changes_on_a_machine_while_it_is_connected_is_known_soon_and_runs_a_schedule() {
    if !is_root() || !installed("/usr/bin/unshare") || !Path::new(RELEASE).exists() {
        eprintln!("LEFT OUT: needs root, unshare(1) and {RELEASE}");
        return;
    }
    let mut fleet = Fleet::builder().policy("[facts]\nevery = \"1s\"\n").start();
    let release = fleet.folder().join("os-release");
    fs::write(&release, "ID=test\nVERSION_ID=1\n").expect("writes");
    fleet.agents[0].stop();
    let other = format!("mount --bind {} {RELEASE}", release.display());
    fleet.agents[0] = fleet.agents[0].machine.start_apart(&other);
    let until_known = |fleet: &Fleet, version: &str| {
        eventually(&format!("the host knows version {version}"), || {
            let shown = fleet.list(&["machine", "show", "m1"]);
            (shown[0]["facts"]["os.version"] == version).then_some(())
        });
    };
    until_known(&fleet, "1");
    let options = ["--event", "facts-changed", "--on", "m1"];
    let added = add(&fleet, "changed", "echo changed", &options);
    assert_eq!(added.code, 0, "{added:?}");
    let before = jobs(&fleet);
    // In place: what is mounted is this file.
    fs::write(&release, "ID=test\nVERSION_ID=2\n").expect("writes");
    until_known(&fleet, "2");
    let ended = fleet.until(&job(&fleet, "changed"), "succeeded");
    assert_eq!(ended.text("stdout"), "changed\n");
    assert_eq!(jobs(&fleet) - before, 1);
    let chosen = fleet.list(&["machine", "list", "--where", r#"os.version == "2""#]);
    assert_eq!(chosen.len(), 1);
    assert!(!fleet.agents[0].has_ended());
}

#[test]
fn a_host_that_is_down_when_it_is_time_runs_it_later_and_only_once() {
    let mut fleet = Fleet::builder().start();
    let before = jobs(&fleet);
    let at = add_once(&fleet, "once", "echo late", 2, &["--on", "m1"]);
    fleet.host.kill();
    eventually("its time is over", || {
        (seconds_from_now(0) > at).then_some(())
    });
    fleet.host.kill_and_restart();
    // So that it need not find out by itself that the old connection is no more.
    fleet.agents[0].restart();
    let job = job(&fleet, "once");
    assert_eq!(fleet.until(&job, "succeeded").text("stdout"), "late\n");
    fleet.host.kill_and_restart();
    // A schedule that comes later has run: the host has looked again.
    add_once(&fleet, "later", ":", 1, &["--on", "m1"]);
    last(&fleet, "later");
    assert_eq!(jobs(&fleet) - before, 2);
    assert_eq!(
        shown(&fleet, "once")["runs"].as_array().map(Vec::len),
        Some(1)
    );
}

#[test]
fn a_paused_schedule_waits_and_one_that_is_resumed_goes_on() {
    let fleet = Fleet::builder().start();
    add_once(&fleet, "paused", ":", 2, &["--on", "m1"]);
    assert_eq!(fleet.sluice(&["schedule", "pause", "paused"]).code, 0);
    add_once(&fleet, "mark", ":", 3, &["--on", "m1"]);
    last(&fleet, "mark");
    let paused = shown(&fleet, "paused");
    assert_eq!(
        (&paused["state"], &paused["last"]),
        (&"paused".into(), &Value::Null)
    );
    let over = fleet.sluice(&["schedule", "resume", "paused"]);
    over.expect_refused();
    assert!(over.stderr.contains("no runs left"), "{over:?}");

    let added = add(&fleet, "hourly", ":", &["--every", "1h", "--on", "m1"]);
    assert_eq!(added.code, 0, "{added:?}");
    let next = |state: &str| {
        let hourly = shown(&fleet, "hourly");
        assert_eq!(hourly["state"], state);
        hourly["next"].as_array().map(Vec::len)
    };
    assert_eq!(next("active"), Some(3));
    assert_eq!(fleet.sluice(&["schedule", "pause", "hourly"]).code, 0);
    assert_eq!(next("paused"), Some(0));
    assert_eq!(fleet.sluice(&["schedule", "resume", "hourly"]).code, 0);
    assert_eq!(next("active"), Some(3));
    assert_eq!(fleet.sluice(&["schedule", "remove", "hourly"]).code, 0);
    assert_eq!(fleet.list(&["schedule", "list"]).len(), 2);
}

#[test]
fn a_schedule_of_an_operator_who_was_revoked_runs_nothing() {
    let fleet = Fleet::builder().agents(0).without_gates().start();
    let token = fleet.token_with("ann", &["ScheduleScript", "RemoteExecution"]);
    let options = ["--on", "m1", "--token", &token];
    add_once(&fleet, "anns", "echo no", 2, &options);
    let tokens = fleet.list(&["token", "list"]);
    let ann = tokens
        .iter()
        .find(|token| token["name"] == "ann")
        .and_then(|token| token["id"].as_str())
        .expect("is listed");
    assert_eq!(fleet.sluice(&["token", "revoke", ann]).code, 0);
    let last = last(&fleet, "anns");
    assert_eq!(
        (&last["state"], &last["job"]),
        (&"missed".into(), &Value::Null)
    );
    let reason = last["reason"].as_str().expect("a reason");
    assert!(reason.contains("ann was revoked"), "{reason}");
    assert_eq!(jobs(&fleet), 0);
    assert!(
        fleet
            .events()
            .iter()
            .any(|event| event == "schedule_missed")
    );
}

#[test]
fn a_machine_that_gets_the_tag_after_the_schedule_was_made_is_included() {
    let fleet = Fleet::builder().start();
    add_once(&fleet, "tagged", "echo tagged", 3, &["--tag", "role=web"]);
    assert_eq!(fleet.sluice(&["machine", "tag", "m1", "role=web"]).code, 0);
    let ended = fleet.until(&job(&fleet, "tagged"), "succeeded");
    assert_eq!(
        (
            ended.text("machine").as_str(),
            ended.text("stdout").as_str()
        ),
        ("m1", "tagged\n")
    );
}

#[test]
fn halt_ends_what_runs_and_what_waits() {
    let mut fleet = Fleet::builder().start();
    fleet.add_machine("m2", "");
    fleet.agents[1].stop();
    eventually("the host notices", || {
        let away = fleet.list(&["machine", "show", "m2"]);
        (away[0]["connected"] == false).then_some(())
    });
    let running = fleet.detach(&script("#!/bin/bash\ntrap '' TERM\nsleep 95.3333\n"));
    let waiting = fleet.detach(&script("#!/bin/sh\n:\n").on("m2"));
    eventually("it started", || is_running("sleep 95.3333").then_some(()));
    let halted = fleet.sluice(&["job", "halt"]);
    assert_eq!(
        (halted.code, halted.stdout.as_str()),
        (0, "canceled 2 operations that had not ended\n")
    );
    for job in [&running, &waiting] {
        let ended = fleet.until(job, "canceled");
        assert!(ended.text("message").starts_with("Canceled by "));
    }
    assert!(!is_running("sleep 95.3333"));
    fleet
        .run(&script("#!/bin/sh\n:\n"))
        .expect("succeeded", "Script executed successfully");
    assert!(fleet.events().iter().any(|event| event == "job_halted"));
}

#[test]
fn a_lockdown_refuses_and_holds_back_until_it_is_lifted_also_over_a_restart() {
    let mut fleet = Fleet::builder().start();
    fleet.agents[0].stop();
    until_away(&fleet);
    let before = jobs(&fleet);
    let waiting = fleet.detach(&script("#!/bin/sh\necho at last\n"));
    let on = fleet.sluice(&["lockdown", "on", "--reason", "a drill"]);
    assert_eq!(on.code, 0, "{on:?}");
    let refused = |fleet: &Fleet| {
        let outcome = fleet.run(&script("#!/bin/sh\n:\n"));
        let text = &outcome.stderr;
        assert!(
            outcome.code == 125 && text.contains("locked down") && text.contains("a drill"),
            "{outcome:#?}"
        );
    };
    refused(&fleet);
    fleet.host.kill_and_restart();
    assert_eq!(fleet.list(&["lockdown", "show"])[0]["on"], true);
    refused(&fleet);
    fleet.agents[0].restart();
    eventually("the machine is there", || {
        let back = fleet.list(&["machine", "show", "m1"]);
        (back[0]["connected"] == true).then_some(())
    });
    add_once(&fleet, "missed", ":", 1, &["--on", "m1"]);
    let last = last(&fleet, "missed");
    assert!(
        last["reason"]
            .as_str()
            .expect("a reason")
            .contains("locked down")
    );
    assert_eq!(fleet.show(&waiting).text("state"), "queued");
    assert!(!fleet.agents[0].machine.has_started_something());

    assert_eq!(fleet.sluice(&["lockdown", "off"]).code, 0);
    assert_eq!(
        fleet.until(&waiting, "succeeded").text("stdout"),
        "at last\n"
    );
    fleet
        .run(&script("#!/bin/sh\n:\n"))
        .expect("succeeded", "Script executed successfully");
    assert_eq!(
        jobs(&fleet) - before,
        2,
        "what was missed is not made up for"
    );
}

/// A machine that runs one script at a time, with one that runs, and two that wait on it.
fn one_runs_and_two_wait(fleet: &Fleet, mark: &str) -> (String, [String; 2]) {
    let running = fleet.detach(&script(format!("#!/bin/sh\n{mark}\n")));
    eventually("it started", || is_running(mark).then_some(()));
    let waiting = ["a", "b"].map(|name| fleet.detach(&script(format!("#!/bin/sh\necho {name}\n"))));
    for job in &waiting {
        fleet.until(job, "accepted");
    }
    (running, waiting)
}

/// How often the machine's own record has this event.
fn recorded(fleet: &Fleet, event: &str) -> usize {
    let events = fleet.agents[0].machine.events();
    events
        .iter()
        .filter(|entry| entry["event"] == event)
        .count()
}

#[test]
fn what_waits_on_a_machine_does_not_start_under_a_lockdown_and_goes_on_when_it_is_lifted() {
    let mut fleet = without_gates("[limits]\nparallel = 1\n");
    let (running, waiting) = one_runs_and_two_wait(&fleet, "sleep 95.5555");
    assert_eq!(fleet.sluice(&["lockdown", "on"]).code, 0);
    let asked = Instant::now();
    eventually("the machine has heard of it", || {
        (recorded(&fleet, "lockdown_started") == 1).then_some(())
    });
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(fleet.sluice(&["job", "cancel", &running]).code, 0);
    fleet.until(&running, "canceled");
    // Whatever the machine is put through, it is told again, or remembers.
    fleet.agents[0].kill();
    fleet.host.kill();
    fleet.agents[0].restart();
    eventually("it has taken up what waited", || {
        let log = fleet.agents[0].machine.log();
        log.contains("no link to the host").then_some(())
    });
    assert_eq!(recorded(&fleet, "script_started"), 1);
    fleet.host.kill_and_restart();
    eventually("the machine is there", || {
        let back = fleet.list(&["machine", "show", "m1"]);
        (back[0]["connected"] == true).then_some(())
    });
    for job in &waiting {
        assert_eq!(fleet.show(job).text("state"), "accepted");
    }
    assert_eq!(recorded(&fleet, "script_started"), 1);
    assert_eq!(fleet.sluice(&["lockdown", "off"]).code, 0);
    for (job, output) in waiting.iter().zip(["a\n", "b\n"]) {
        assert_eq!(fleet.until(job, "succeeded").text("stdout"), output);
    }
    assert_eq!(recorded(&fleet, "lockdown_lifted"), 1);
    assert_eq!(recorded(&fleet, "script_started"), 3);
}

#[test]
fn what_runs_goes_on_under_a_lockdown_unless_it_is_to_be_canceled() {
    let fleet = Fleet::builder().start();
    let job = fleet.detach(&script("#!/bin/sh\nsleep 95.4444\n"));
    eventually("it started", || is_running("sleep 95.4444").then_some(()));
    assert_eq!(fleet.sluice(&["lockdown", "on"]).code, 0);
    assert_eq!(fleet.show(&job).text("state"), "running");
    let on = fleet.sluice(&["lockdown", "on", "--cancel", "--json"]);
    assert_eq!(on.code, 0, "{on:?}");
    fleet.until(&job, "canceled");
    assert!(!is_running("sleep 95.4444"));
    let weak = fleet.token_with("bob", &["RemoteExecution"]);
    let off = fleet.sluice(&["lockdown", "off", "--token", &weak]);
    off.expect_refused();
    assert!(off.stderr.contains("Administer"), "{off:?}");
    let events = fleet.events();
    let count = |name: &str| events.iter().filter(|event| *event == name).count();
    assert_eq!(
        (count("lockdown_started"), count("lockdown_lifted")),
        (2, 0)
    );
}

#[test]
fn schedules_that_make_no_sense_are_refused_in_one_line_and_leave_nothing() {
    let fleet = Fleet::builder().agents(0).without_gates().start();
    for (options, expected) in [
        (&["--cron", "whenever"][..], "no cron expression"),
        (&["--cron", "* * * * * *"], "no cron expression"),
        (&["--cron", "0 0 30 2 *"], "would never run"),
        (
            &["--cron", "@daily", "--zone", "Mars/Olympus"],
            "no time zone Mars/Olympus",
        ),
        (&["--at", "2001-01-01T00:00:00Z"], "in the past"),
        (&["--at", "2026-13-01T00:00:00Z"], "is no time"),
        (&["--at", "2099-01-01T03:00"], "says no offset"),
        (&["--every", "0s"], "cannot be 0ms"),
        (&["--every", "59s"], "at least 1m"),
        (&["--every", "1h", "--jitter", "2h"], "jitter cannot be 2h"),
        (&["--every", "1h", "--env", "SLUICE_X=1"], "reserved"),
        (&["--every", "1h", "--interpreter", ""], "interpreter"),
    ] {
        let output = add(&fleet, "bad", ":", &[options, &["--on", "m1"]].concat());
        output.expect_refused();
        assert!(output.stderr.contains(expected), "{options:?}: {output:?}");
    }
    let added = add(&fleet, "good", ":", &["--every", "1h", "--on", "m1"]);
    assert_eq!(added.code, 0, "{added:?}");
    let twice = add(&fleet, "good", ":", &["--every", "1h", "--on", "m1"]);
    twice.expect_refused();
    assert!(
        twice.stderr.contains("a schedule good already"),
        "{twice:?}"
    );
    for command in ["show", "pause", "resume", "remove"] {
        let none = fleet.sluice(&["schedule", command, "none"]);
        none.expect_refused();
        assert!(none.stderr.contains("no schedule none"), "{none:?}");
    }
    assert_eq!(fleet.list(&["schedule", "list"]).len(), 1);
}

#[test]
fn a_script_runs_on_a_machine_that_joins_and_once_on_one_whose_link_comes_and_goes() {
    let mut fleet = Fleet::builder().agents(1).start();
    for event in ["enrolled", "online"] {
        let added = add(&fleet, event, "echo hello", &["--event", event, "--all"]);
        assert_eq!(added.code, 0, "{added:?}");
        assert!(added.stdout.contains("at most every 1h"), "{added:?}");
    }
    fleet.add_machine("m2", "");
    for event in ["enrolled", "online"] {
        let last = last(&fleet, event);
        assert_eq!(
            (&last["state"], &last["machine"]),
            (&"fired".into(), &"m2".into())
        );
        let job = job(&fleet, event);
        let ended = fleet.until(&job, "succeeded");
        assert_eq!(ended.text("machine"), "m2");
    }
    let runs = |fleet: &Fleet| {
        let runs = shown(fleet, "online")["runs"].clone();
        let runs = runs.as_array().expect("a list").iter();
        let mut machines: Vec<_> = runs.map(|run| run["machine"].to_string()).collect();
        machines.sort();
        machines
    };
    for _ in 0..2 {
        fleet.agents[1].restart();
    }
    // The other one comes back, which has had no run of it yet, and it has one; this one has none.
    fleet.host.kill_and_restart();
    fleet.agents.iter_mut().for_each(|agent| agent.restart());
    eventually("it has run on the other one too", || {
        (runs(&fleet) == ["\"m1\"", "\"m2\""]).then_some(())
    });
    let shown = fleet.sluice(&["schedule", "show", "online"]);
    assert!(shown.stdout.contains("a machine is online"), "{shown:?}");
    let wrong = add(
        &fleet,
        "x",
        "",
        &["--event", "online", "--all", "--jitter", "5m"],
    );
    wrong.expect_refused();
    assert!(wrong.stderr.contains("are for planned times"), "{wrong:?}");
}
