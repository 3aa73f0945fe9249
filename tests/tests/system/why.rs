//! What an operation waits for on its way to the machine and there: each reason, in its place.

use std::fs;

use serde_json::Value;
use sluice_protocol::message::control::FromAgent;
use sluice_tests::fake::{FakeMachine, frame};
use sluice_tests::{Fleet, eventually, is_root, script};

use crate::bindings::{bind, install};
use crate::delivery::until_away;
use crate::shipped::rebind;

/// The words of what the first operation of a job waits for, in their order.
fn chain(fleet: &Fleet, job: &str) -> Vec<String> {
    reasons(fleet, job)
        .iter()
        .map(|reason| reason["reason"].as_str().expect("is text").to_owned())
        .collect()
}

fn reasons(fleet: &Fleet, job: &str) -> Vec<Value> {
    let shown = fleet.show(job);
    shown.json["why"].as_array().cloned().unwrap_or_default()
}

fn until_chain(fleet: &Fleet, job: &str, expected: &[&str]) {
    eventually(&format!("{job} waits for {expected:?}"), || {
        (chain(fleet, job) == expected).then_some(())
    });
}

/// What a person reads of a job.
fn told(fleet: &Fleet, job: &str, text: &str) {
    let shown = fleet.sluice(&["job", "show", job]);
    assert!(shown.stdout.contains(text), "{text}: {}", shown.stdout);
}

/// A script that runs in the one place of the machine, and another one that waits there for that.
fn one_runs_and_one_waits(fleet: &Fleet, mark: &str) -> (String, String) {
    let running = fleet.detach(&script(format!("#!/bin/sh\nsleep {mark}\n")));
    fleet.until(&running, "running");
    let waiting = fleet.detach(&script("#!/bin/sh\n:\n"));
    fleet.until(&waiting, "accepted");
    (running, waiting)
}

#[test]
fn a_machine_that_is_busy_a_lockdown_and_a_machine_that_went_away_are_reasons_one_behind_the_other()
{
    let mut fleet = Fleet::builder()
        .agents(1)
        .policy("[limits]\nparallel = 1\n")
        .start();
    let (running, waiting) = one_runs_and_one_waits(&fleet, "95.7171");
    until_chain(&fleet, &waiting, &["machine"]);
    told(&fleet, &waiting, "its turn on the machine");
    assert_eq!(chain(&fleet, &running), [""; 0]);
    let locked = fleet.sluice(&["lockdown", "on"]);
    assert_eq!(locked.code, 0, "{locked:?}");
    until_chain(&fleet, &waiting, &["lockdown", "machine"]);
    told(&fleet, &waiting, "the lockdown of admin since ");

    fleet.agents[0].stop();
    until_away(&fleet);
    until_chain(&fleet, &waiting, &["lockdown", "offline", "machine"]);
    until_chain(&fleet, &running, &["dark"]);
    let since = reasons(&fleet, &running)[0]["since"].clone();
    assert!(since.is_string(), "{since}");
    told(
        &fleet,
        &running,
        "word of the machine, which is away since ",
    );

    assert_eq!(fleet.sluice(&["lockdown", "off"]).code, 0);
    until_chain(&fleet, &waiting, &["offline", "machine"]);
    let queued = fleet.detach(&script("#!/bin/sh\n:\n"));
    until_chain(&fleet, &queued, &["offline"]);
    told(&fleet, &queued, "the machine, which is away since ");

    fleet.agents[0].restart();
    until_chain(&fleet, &running, &[]);
    assert_eq!(fleet.sluice(&["job", "cancel", &running]).code, 0);
    for job in [&waiting, &queued] {
        fleet.until(job, "succeeded");
        assert_eq!(chain(&fleet, job), [""; 0]);
    }
}

#[test]
fn gates_that_a_machine_cannot_use_are_a_reason_of_what_waits_there_until_it_can() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::builder()
        .agents(1)
        .policy("[limits]\nparallel = 1\n")
        .start();
    let (running, waiting) = one_runs_and_one_waits(&fleet, "95.7272");
    let newer = install(&fleet, "scanner", "0.1.1", "0.1.0", &[]);
    // Nothing that comes from the host can be put there.
    let in_the_way = fleet.agents[0].machine.state.join("blobs").join(&newer);
    fs::create_dir_all(in_the_way.join("x")).expect("makes a folder");
    bind(&fleet, &[&newer]);
    until_chain(&fleet, &waiting, &["gates-problems", "machine"]);
    let problems = &reasons(&fleet, &waiting)[0];
    let first = problems["problems"][0].as_str().expect("is text");
    assert!(
        first.starts_with("scanner: revision 2 cannot be used: ") && problems["count"] == 1,
        "{problems}"
    );
    told(&fleet, &waiting, "gates that the machine cannot use");
    fs::remove_dir_all(in_the_way).expect("removes");
    bind(&fleet, &[&newer]);
    until_chain(&fleet, &waiting, &["machine"]);
    assert_eq!(fleet.sluice(&["job", "cancel", &running]).code, 0);
    fleet.until(&waiting, "succeeded");
}

#[test]
fn a_machine_that_has_not_taken_in_the_gates_of_a_job_is_the_reason_that_it_waits() {
    let fleet = Fleet::builder().agents(0).start();
    let token = fleet.sluice(&["machine", "enroll-token"]);
    let machine = FakeMachine::enroll(&token.stdout, "m1");
    let connection = machine.connect();
    // It takes in the first set of gates, and no other.
    let ready = FromAgent::GatesReady {
        revision: 1,
        problems: Vec::new(),
    };
    connection.greet(&[], &frame(&ready));
    eventually("it is connected", || {
        let shown = fleet.list(&["machine", "show", "m1"]);
        (shown[0]["connected"] == true).then_some(())
    });
    rebind(&fleet, "policy", "threshold = \"critical\"\n");
    let job = fleet.detach(&script("#!/bin/sh\n:\n"));
    until_chain(&fleet, &job, &["gates-outdated", "machine"]);
    let outdated = &reasons(&fleet, &job)[0];
    assert_eq!(outdated["has"], 1, "{outdated}");
    assert!(outdated["needs"].as_u64() > Some(1), "{outdated}");
    told(&fleet, &job, "of the gates; it has revision 1");
}
