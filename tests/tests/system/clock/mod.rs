//! What goes by the host's clock, while a test moves that: a year passes in seconds, and clocks are set.

mod jobs;
mod schedules;

use std::fs;
use std::time::Duration;

use serde_json::Value;
use sluice_tests::fake::{Behavior, Crowd, FakeMachine, Manner};
use sluice_tests::{Fleet, Output, eventually};

/// A host at this time, without machines.
fn host_at(time: &str) -> Fleet {
    let builder = Fleet::builder().agents(0).without_gates();
    builder.clock(time).start()
}

/// The same, with a machine `away` that has joined and is not connected.
fn host_alone_at(time: &str) -> Fleet {
    let fleet = host_at(time);
    let token = fleet.sluice(&["machine", "enroll-token"]);
    let _gone = FakeMachine::enroll(&token.stdout, "away");
    fleet
}

/// The same, with so many machines `c00001`, `c00002` ... that take so long for each operation; without end where nothing is said.
fn host_and_crowd_at(time: &str, count: usize, takes: Option<Duration>) -> (Fleet, Crowd) {
    let fleet = host_at(time);
    let token = fleet.sluice(&["machine", "enroll-token", "--uses", &count.to_string()]);
    let behavior = match takes {
        Some(takes) => Behavior::default().takes(takes),
        None => Behavior::default().tells(Manner::Silent),
    };
    let crowd = Crowd::enroll(&token.stdout, count, &behavior);
    (fleet, crowd)
}

/// `sluice COMMAND... SCRIPT OPTIONS`, which must go well.
fn with_script(fleet: &Fleet, command: &[&str], options: &[&str]) -> Output {
    let file = fleet.folder().join("script.sh");
    fs::write(&file, "#!/bin/sh\n:\n").expect("writes");
    let file = file.to_str().expect("is text");
    let output = fleet.sluice(&[command, &[file], options].concat());
    assert_eq!(output.code, 0, "{output:?}");
    output
}

/// Submits a job and gives its id.
fn submit(fleet: &Fleet, options: &[&str]) -> String {
    let output = with_script(fleet, &["run", "--detach"], options);
    output.stdout.trim().to_owned()
}

/// Adds a schedule.
fn add(fleet: &Fleet, name: &str, options: &[&str]) {
    with_script(fleet, &["schedule", "add", name], options);
}

/// A schedule as `sluice schedule show --json` has it.
fn shown(fleet: &Fleet, name: &str) -> Value {
    fleet.list(&["schedule", "show", name]).swap_remove(0)
}

fn job_list(fleet: &Fleet) -> Vec<Value> {
    fleet.list(&["job", "list"])
}

/// The times for which a schedule's runs with a job were planned, as the audit log has it, sorted.
fn fired(fleet: &Fleet, name: &str) -> Vec<String> {
    recorded(fleet, "schedule_fired", name)
}

/// The same of the runs that were missed; of several, the last.
fn missed(fleet: &Fleet, name: &str) -> Vec<String> {
    recorded(fleet, "schedule_missed", name)
}

fn recorded(fleet: &Fleet, event: &str, name: &str) -> Vec<String> {
    let entries = fleet.list(&["audit", "list"]);
    let of_schedule = entries
        .iter()
        .filter(|entry| entry["event"] == event)
        .filter(|entry| entry["details"]["name"] == name);
    let mut planned: Vec<_> = of_schedule
        .map(|entry| {
            let planned = entry["details"]["planned"].as_str();
            planned.expect("is in the entry").to_owned()
        })
        .collect();
    planned.sort();
    planned
}

/// The state of a job's operations, by their machines.
fn states(fleet: &Fleet, job: &str) -> Vec<String> {
    let operations = fleet.list(&["job", "show", job]);
    let states = operations.iter().map(|operation| &operation["state"]);
    states
        .map(|state| state.as_str().unwrap_or_default().to_owned())
        .collect()
}

fn until_states(fleet: &Fleet, job: &str, expected: &[&str]) {
    eventually(&format!("{job} is {expected:?}"), || {
        (states(fleet, job) == expected).then_some(())
    });
}
