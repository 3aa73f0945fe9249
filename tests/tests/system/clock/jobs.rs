//! Jobs by a clock that is moved: what waits for a time, and what ends at one.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use sluice_tests::fake::FakeMachine;
use sluice_tests::{Fleet, Output, eventually, is_root, script};

use super::{host_alone_at, host_and_crowd_at, host_at, states, submit, until_states};
use crate::delivery::traces;

/// The first thing that a job's first operation waits for.
fn why(fleet: &Fleet, job: &str) -> Value {
    fleet.list(&["job", "show", job])[0]["why"][0].clone()
}

fn window(fleet: &Fleet, name: &str, cron: &str, lasts: &str) {
    let options = ["--cron", cron, "--for", lasts, "--zone", "Europe/Berlin"];
    let added = fleet.sluice(&[&["window", "add", name, "--all"], &options[..]].concat());
    assert_eq!(added.code, 0, "{added:?}");
}

#[test]
fn a_job_waits_for_the_first_of_two_windows_and_starts_until_the_second_one_closes() {
    let (mut fleet, crowd) =
        host_and_crowd_at("2035-06-01T10:00:00Z", 1, Some(Duration::from_millis(1)));
    // 20:00 to 22:00 and 21:00 to 23:00 in UTC.
    window(&fleet, "evening", "0 22 * * *", "2h");
    window(&fleet, "night", "0 23 * * *", "2h");
    let waits = submit(&fleet, &["--on", "c00001"]);
    let reason = why(&fleet, &waits);
    assert_eq!(
        (&reason["reason"], &reason["name"], &reason["opens_at"]),
        (
            &"window".into(),
            &"evening".into(),
            &"2035-06-01T20:00:00.000Z".into()
        ),
        "{reason}"
    );
    fleet.host.clock().pass("2035-06-01T19:59:59.999Z");
    assert_eq!(states(&fleet, &waits), ["held"]);
    fleet.host.clock().pass("2035-06-01T20:00:00Z");
    until_states(&fleet, &waits, &["succeeded"]);
    let mut ran = 1;
    for (time, is_open) in [
        ("2035-06-01T21:59:59Z", true),
        ("2035-06-01T22:00:00Z", true),
        ("2035-06-01T22:59:59Z", true),
        ("2035-06-01T23:00:00Z", false),
    ] {
        fleet.host.clock().pass(time);
        let job = submit(&fleet, &["--on", "c00001"]);
        let state = if is_open { "succeeded" } else { "held" };
        until_states(&fleet, &job, &[state]);
        ran += usize::from(is_open);
        assert_eq!(crowd.operations(), ran, "{time}");
    }
    let shown = fleet.list(&["window", "show", "evening"]).swap_remove(0);
    assert_eq!(
        (&shown["open"], &shown["next"][0]["opens_at"]),
        (&false.into(), &"2035-06-02T20:00:00.000Z".into()),
        "{shown}"
    );
    let over_night = submit(&fleet, &["--on", "c00001"]);
    fleet.host.clock().pass("2035-06-03T12:00:00Z");
    until_states(&fleet, &over_night, &["succeeded"]);
    // The host is down while the window opens.
    let late = submit(&fleet, &["--on", "c00001"]);
    assert_eq!(states(&fleet, &late), ["held"]);
    fleet.host.kill();
    fleet.host.clock().set("2035-06-03T20:30:00Z");
    fleet.host.kill_and_restart();
    until_states(&fleet, &late, &["queued"]);
}

#[test]
fn what_was_let_go_in_a_window_while_its_machine_was_away_is_held_again_when_it_closes() {
    let mut fleet = host_alone_at("2035-06-01T10:00:00Z");
    window(&fleet, "evening", "0 22 * * *", "2h");
    let job = submit(&fleet, &["--on", "away", "--expires", "3d"]);
    for (time, state) in [
        ("2035-06-01T19:59:59Z", "held"),
        ("2035-06-01T20:00:00Z", "queued"),
        ("2035-06-01T21:59:59Z", "queued"),
        ("2035-06-01T22:00:00Z", "held"),
        ("2035-06-02T20:00:00Z", "queued"),
        // A clock that is set back to when the window was shut.
        ("2035-06-02T19:00:00Z", "held"),
        // And by months: the job's time is over.
        ("2035-09-01T20:00:00Z", "expired"),
        ("2035-06-02T20:00:00Z", "expired"),
    ] {
        fleet.host.clock().set(time);
        until_states(&fleet, &job, &[state]);
    }
}

#[test]
fn what_could_not_start_in_time_has_expired_then_and_stays_so_when_the_clock_is_set_back() {
    let mut fleet = host_alone_at("2035-06-01T10:00:00Z");
    let job = submit(&fleet, &["--on", "away", "--expires", "30m"]);
    fleet.host.clock().pass("2035-06-01T10:30:00Z");
    assert_eq!(states(&fleet, &job), ["queued"]);
    fleet.host.clock().pass("2035-06-01T10:30:00.001Z");
    until_states(&fleet, &job, &["expired"]);
    let ended = fleet.list(&["job", "show", &job]).swap_remove(0);
    assert_eq!(ended["finished_at"], "2035-06-01T10:30:00.001Z");
    fleet.host.clock().set("2035-06-01T10:00:00Z");
    assert_eq!(states(&fleet, &job), ["expired"]);
    // One that nothing was said of has a day.
    let usual = submit(&fleet, &["--on", "away"]);
    fleet.host.clock().pass("2035-06-02T10:00:00Z");
    assert_eq!(states(&fleet, &usual), ["queued"]);
    fleet.host.clock().pass("2035-06-02T10:00:01Z");
    until_states(&fleet, &usual, &["expired"]);
}

/// A policy by which two others approve each job, and operators whose tokens do not come from each other: one who submits, and
/// two who approve.
fn two_approve(fleet: &Fleet, expires: &str) -> [String; 3] {
    let policy = fleet.folder().join("policy.toml");
    let text = format!("expires = \"{expires}\"\n\n[[rules]]\napprovers = 2\n");
    fs::write(&policy, text).expect("writes");
    let policy = policy.to_str().expect("is text");
    let set = fleet.sluice(&["approval", "policy", "set", policy]);
    assert_eq!(set.code, 0, "{set:?}");
    let token = |name: &str, may: &str| fleet.token_with(name, &[may]);
    [
        token("bob", "RemoteExecution"),
        token("carol", "ApproveJobs"),
        token("dave", "ApproveJobs"),
    ]
}

fn approve(fleet: &Fleet, token: &str, job: &str, options: &[&str]) -> Output {
    let output = fleet.sluice(&[&["job", "approve", job, "--token", token], options].concat());
    assert_eq!(output.code, 0, "{output:?}");
    output
}

#[test]
fn an_approval_counts_as_long_as_it_says_and_a_job_waits_as_long_as_the_policy_says() {
    let (mut fleet, crowd) =
        host_and_crowd_at("2035-06-01T10:00:00Z", 1, Some(Duration::from_millis(1)));
    let [bob, carol, dave] = two_approve(&fleet, "8h");
    let job = submit(&fleet, &["--on", "c00001", "--token", &bob]);
    assert_eq!(why(&fleet, &job)["until"], "2035-06-01T18:00:00.000Z");
    approve(&fleet, &carol, &job, &["--expires", "1h"]);
    fleet.host.clock().pass("2035-06-01T11:00:01Z");
    approve(&fleet, &dave, &job, &[]);
    assert_eq!(states(&fleet, &job), ["held"], "carol's is over");
    approve(&fleet, &carol, &job, &[]);
    until_states(&fleet, &job, &["succeeded"]);

    let late = submit(&fleet, &["--on", "c00001", "--token", &bob]);
    approve(&fleet, &carol, &late, &[]);
    fleet.host.clock().pass("2035-06-01T19:00:01Z");
    assert_eq!(states(&fleet, &late), ["held"]);
    fleet.host.kill_and_restart();
    fleet.host.clock().pass("2035-06-01T19:00:02Z");
    until_states(&fleet, &late, &["expired"]);
    // Nobody approves it any more, whatever the clock shows.
    fleet.host.clock().set("2035-06-01T12:00:00Z");
    let refused = fleet.sluice(&["job", "approve", &late, "--token", &dave]);
    refused.expect_refused();
    assert_eq!(crowd.operations(), 1);
}

#[test]
fn tokens_of_operators_and_machines_are_good_until_the_clock_says_otherwise() {
    let mut fleet = host_at("2035-06-01T10:00:00Z");
    let options = ["--permission", "ReadJobs", "--expires", "30d"];
    let made = fleet.sluice(&[&["token", "create", "short"], &options[..]].concat());
    let short = made.stdout.trim();
    let enroll = fleet.sluice(&["machine", "enroll-token", "--expires", "1h", "--uses", "2"]);
    fleet.host.clock().pass("2035-06-01T10:59:59Z");
    let _in_time = FakeMachine::enroll(&enroll.stdout, "m1");
    let listed = |fleet: &Fleet| fleet.sluice(&["job", "list", "--token", short]);
    fleet.host.clock().pass("2035-07-01T09:59:59Z");
    assert_eq!(listed(&fleet).code, 0);
    fleet.host.clock().pass("2035-07-01T10:00:01Z");
    listed(&fleet).expect_refused();
}

#[test]
fn a_rollout_whose_host_is_killed_and_whose_clock_jumps_starts_each_batch_once_and_in_order() {
    if !is_root() {
        return;
    }
    let mut fleet = Fleet::builder()
        .agents(3)
        .without_gates()
        .policy("[gates]\nstages = []\n")
        .clock("2035-06-01T10:00:00Z")
        .start();
    let folder = traces(&fleet);
    let at = folder.display();
    let step = script(format!(
        "#!/bin/sh\nme=$SLUICE_MACHINE_NAME\necho $me >> {at}/starts\nuntil [ -e {at}/go-$me ]; do sleep 0.05; done\n"
    ));
    let options = step.as_user("nobody").flag("--detach");
    let options = options.option("--batches", "1, 2, 100%");
    let submitted = fleet.watch(&options.option("--expires", "2d"), &["m1", "m2", "m3"]);
    let job = submitted.stdout.trim().to_owned();
    let started = || fs::read_to_string(folder.join("starts")).unwrap_or_default();
    let until_started = |expected: &str| {
        eventually(&format!("it started on {expected:?}"), || {
            (started() == expected).then_some(())
        });
    };
    let finish =
        |machine: &str| fs::write(folder.join(format!("go-{machine}")), "").expect("writes");
    until_started("m1\n");
    until_states(&fleet, &job, &["running", "held", "held"]);
    for jump in ["2035-06-02T09:00:00Z", "2035-06-01T08:00:00Z"] {
        fleet.host.clock().set(jump);
        assert_eq!(states(&fleet, &job), ["running", "held", "held"], "{jump}");
    }
    // The first batch ends while there is no host, and the clock is ahead when that is back.
    fleet.host.kill();
    finish("m1");
    fleet.host.clock().set("2035-06-02T01:00:00Z");
    fleet.host.kill_and_restart();
    fleet.agents.iter_mut().for_each(|agent| agent.restart());
    until_started("m1\nm2\n");
    until_states(&fleet, &job, &["succeeded", "running", "held"]);
    fleet.host.clock().set("2035-06-01T10:00:00Z");
    assert_eq!(states(&fleet, &job), ["succeeded", "running", "held"]);
    finish("m2");
    until_started("m1\nm2\nm3\n");
    fleet.host.clock().set("2035-06-01T11:00:00Z");
    finish("m3");
    until_states(&fleet, &job, &["succeeded"; 3]);
    assert_eq!(started(), "m1\nm2\nm3\n");
    let events = fleet.events();
    let released = events.iter().filter(|event| *event == "job_released");
    assert_eq!(released.count(), 3);
}

#[test]
fn a_clock_that_jumps_a_year_ahead_ends_what_has_not_started_and_starts_nothing_twice() {
    let (mut fleet, crowd) = host_and_crowd_at("2035-06-01T10:00:00Z", 3, None);
    let on = ["--on", "c00001", "--on", "c00002", "--on", "c00003"];
    let job = submit(&fleet, &[&on[..], &["--batches", "1, 2, 100%"]].concat());
    eventually("the first batch is sent", || {
        (crowd.operations() == 1).then_some(())
    });
    fleet.host.clock().set("2036-06-01T10:00:00Z");
    // By its clock nothing was heard of the first one for a year.
    let ended = ["interrupted", "expired", "expired"];
    until_states(&fleet, &job, &ended);
    fleet.host.clock().set("2035-06-01T10:01:00Z");
    fleet.host.clock().pass("2035-06-03T10:00:00Z");
    assert_eq!(states(&fleet, &job), ended);
    assert_eq!(crowd.operations(), 1);
}
