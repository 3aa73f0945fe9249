//! At most one start, always an answer, whoever is killed when.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use sluice_tests::{Fleet, Output, Script, eventually, is_root, script};

use crate::hostile::without_gates;
use crate::isolation::is_running;

/// Where a script that runs as `nobody` can leave a trace.
pub(crate) fn traces(fleet: &Fleet) -> PathBuf {
    traces_in(fleet.folder())
}

/// The same, in a folder that users may pass through.
pub(crate) fn traces_in(folder: &Path) -> PathBuf {
    let folder = folder.join("traces");
    fs::create_dir(&folder).expect("makes a folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("changes the mode");
    folder
}

/// Says `before`, waits for a file, says `after`; leaves a line in `starts` each time it is started.
pub(crate) fn patient(folder: &Path) -> Script {
    let folder = folder.display();
    script(format!(
        "#!/bin/bash\necho started >> {folder}/starts\necho before\necho trouble >&2\nuntil [ -e {folder}/go ]; do sleep 0.05; done\necho after\nexit 3\n"
    ))
    .as_user("nobody")
}

/// Waits until the host knows that the machine is not there.
pub(crate) fn until_away(fleet: &Fleet) {
    eventually("the host notices", || {
        fleet
            .list(&["machine", "show", "m1"])
            .iter()
            .any(|machine| machine["connected"] == false)
            .then_some(())
    });
}

/// How often a script was started that leaves a line in `starts`.
pub(crate) fn starts(folder: &Path) -> usize {
    fs::read_to_string(folder.join("starts"))
        .unwrap_or_default()
        .lines()
        .count()
}

#[test]
fn a_host_that_is_killed_before_the_machine_connects_still_runs_it_once() {
    if !is_root() {
        return;
    }
    let mut fleet = Fleet::builder().start();
    let folder = traces(&fleet);
    fs::write(folder.join("go"), "").expect("writes");
    fleet.agents[0].stop();
    until_away(&fleet);
    let job = fleet.detach(&patient(&folder));
    assert_eq!(fleet.show(&job).text("state"), "queued");
    fleet.host.kill_and_restart();
    assert_eq!(fleet.show(&job).text("state"), "queued");
    fleet.agents[0].restart();
    let ended = fleet.until(&job, "failed");
    assert_eq!(
        (
            ended.text("stdout").as_str(),
            ended.json["exit_code"].as_i64(),
            starts(&folder)
        ),
        ("before\nafter\n", Some(3), 1)
    );
    fleet.agents[0].restart();
    fleet
        .run(&script("#!/bin/sh\n:\n"))
        .expect("succeeded", "Script executed successfully");
    assert_eq!(starts(&folder), 1, "a later connection started it again");
}

#[test]
fn an_agent_that_is_killed_while_a_script_runs_brings_its_result_later() {
    if !is_root() {
        return;
    }
    let mut fleet = Fleet::builder().start();
    let folder = traces(&fleet);
    let job = fleet.detach(&patient(&folder));
    eventually("it started", || (starts(&folder) == 1).then_some(()));
    fleet.agents[0].restart();
    fs::write(folder.join("go"), "").expect("writes");
    let ended = fleet.until(&job, "failed");
    ended.expect("failed", "Script failed with exit code 3");
    assert_eq!(
        (
            ended.text("stdout").as_str(),
            ended.text("stderr").as_str(),
            starts(&folder)
        ),
        ("before\nafter\n", "trouble\n", 1)
    );
    assert!(fleet.agents[0].machine.left_behind().is_empty());
}

#[test]
fn a_script_that_an_earlier_agent_started_counts_among_those_that_run_at_once() {
    if !is_root() {
        return;
    }
    let mut fleet = without_gates("[limits]\nparallel = 1\n");
    let folder = traces(&fleet);
    let first = fleet.detach(&patient(&folder));
    eventually("it started", || (starts(&folder) == 1).then_some(()));
    fleet.agents[0].restart();
    let second = fleet.detach(&script("#!/bin/sh\necho second\n"));
    fleet.until(&second, "accepted");
    fs::write(folder.join("go"), "").expect("writes");
    let first = fleet.until(&first, "failed");
    let second = fleet.until(&second, "succeeded");
    assert!(
        second.text("started_at") >= first.text("finished_at"),
        "{second:#?}"
    );
}

#[test]
fn a_script_that_ends_while_no_agent_is_there_is_reported_by_the_next() {
    if !is_root() {
        return;
    }
    let mut fleet = Fleet::builder().start();
    let folder = traces(&fleet);
    let job = fleet.detach(&patient(&folder));
    eventually("it started", || (starts(&folder) == 1).then_some(()));
    fleet.agents[0].kill();
    fs::write(folder.join("go"), "").expect("writes");
    let machine = fleet.agents[0].machine.clone();
    eventually("the shim cleaned up", || {
        machine.left_behind().is_empty().then_some(())
    });
    fleet.agents[0].restart();
    let ended = fleet.until(&job, "failed");
    ended.expect("failed", "Script failed with exit code 3");
    assert_eq!(
        (
            ended.text("stdout").as_str(),
            ended.text("stderr").as_str(),
            starts(&folder)
        ),
        ("before\nafter\n", "trouble\n", 1)
    );
}

#[test]
fn a_host_that_is_killed_while_a_script_runs_gets_the_whole_output_and_so_does_the_operator() {
    if !is_root() {
        return;
    }
    let mut fleet = Fleet::builder().start();
    let folder = traces(&fleet);
    let file = fleet.folder().join("script");
    fs::write(&file, format!("#!/bin/sh\necho started >> {0}/starts\necho before\nuntil [ -e {0}/go ]; do sleep 0.05; done\necho after\nexit 3\n", folder.display())).expect("writes");
    let mut command = fleet.command();
    command
        .arg("run")
        .arg(&file)
        .args(["--on", "m1", "--as", "nobody"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let follower = command.spawn().expect("starts");
    eventually("it started", || (starts(&folder) == 1).then_some(()));
    fleet.host.kill_and_restart();
    fs::write(folder.join("go"), "").expect("writes");
    let output = Output::of(&follower.wait_with_output().expect("ends"));
    assert_eq!(
        (output.code, output.stdout.as_str(), starts(&folder)),
        (3, "before\nafter\n", 1),
        "{output:?}\n{}",
        fleet.host.log()
    );
}

#[test]
fn a_machine_that_is_away_is_waited_for_unless_the_job_says_otherwise() {
    let mut fleet = Fleet::builder().start();
    fleet.agents[0].stop();
    until_away(&fleet);
    let outcome = fleet.run(&script("#!/bin/sh\n:\n").flag("--no-queue"));
    outcome.expect("failed", "Agent not connected");
    assert_eq!(
        (outcome.code, outcome.json["exit_code"].as_i64()),
        (127, Some(-1))
    );
    let job = fleet.detach(&script("#!/bin/sh\necho at last\n"));
    assert_eq!(fleet.show(&job).text("state"), "queued");
    fleet.agents[0].restart();
    assert_eq!(fleet.until(&job, "succeeded").text("stdout"), "at last\n");
}

#[test]
fn a_job_that_waits_too_long_expires_and_never_runs() {
    let mut fleet = Fleet::builder().start();
    fleet.agents[0].stop();
    until_away(&fleet);
    let job = fleet.detach(&script("#!/bin/sh\n:\n").option("--expires", "1s"));
    fleet
        .until(&job, "expired")
        .expect("expired", "Expired before it could start");
    fleet.agents[0].restart();
    fleet
        .run(&script("#!/bin/sh\n:\n"))
        .expect("succeeded", "Script executed successfully");
    assert_eq!(fleet.show(&job).text("state"), "expired");
    let started = fleet.agents[0]
        .machine
        .events()
        .iter()
        .filter(|entry| entry["event"] == "script_started")
        .count();
    assert_eq!(started, 1);
}

#[test]
fn a_revoked_machine_is_disconnected_within_five_seconds_and_stays_out() {
    let mut fleet = Fleet::builder().start();
    let agents = fleet.agents.len();
    let revoked_at = Instant::now();
    assert_eq!(fleet.sluice(&["machine", "revoke", "m1"]).code, 0);
    let connected = |fleet: &Fleet| {
        fleet
            .list(&["machine", "list"])
            .iter()
            .any(|machine| machine["name"] == "m1" && machine["connected"] == true)
    };
    eventually("it is disconnected", || (!connected(&fleet)).then_some(()));
    assert!(revoked_at.elapsed() < Duration::from_secs(5));
    fleet
        .run(&script("#!/bin/sh\n:\n"))
        .expect("failed", "Machine not found");
    fleet.agents[0].restart();
    // Another machine that joins and runs something shows that the host had time to let this one in.
    fleet.add_machine("m2", "");
    fleet
        .run(&script("#!/bin/sh\n:\n").on("m2"))
        .expect("succeeded", "Script executed successfully");
    assert!(!connected(&fleet) && !fleet.agents[0].machine.has_started_something());
    assert_eq!(fleet.agents.len(), agents + 1);
}

#[test]
fn a_job_that_is_canceled_while_it_runs_ends_with_all_its_processes() {
    let fleet = Fleet::builder().start();
    let marks = ["sleep 95.1111", "sleep 95.2222"];
    let job = fleet.detach(&script(format!(
        "#!/bin/bash\ntrap '' TERM\necho started\nsetsid {} &\n{}\n",
        marks[0], marks[1]
    )));
    eventually("it started", || {
        marks.iter().all(|mark| is_running(mark)).then_some(())
    });
    assert_eq!(fleet.sluice(&["job", "cancel", &job]).code, 0);
    let ended = fleet.until(&job, "canceled");
    let operator = fleet
        .list(&["job", "list"])
        .into_iter()
        .find(|listed| listed["job"] == job.as_str())
        .expect("is listed")["operator"]
        .clone();
    ended.expect(
        "canceled",
        &format!("Canceled by {}", operator.as_str().expect("is text")),
    );
    assert_eq!(
        (
            ended.json["canceled"].as_bool(),
            ended.text("stdout").as_str(),
            ended.text("status").as_str()
        ),
        (Some(true), "started\n", "failed")
    );
    assert!(!marks.iter().any(|mark| is_running(mark)));
    assert!(fleet.agents[0].machine.left_behind().is_empty());
}

#[test]
fn a_job_that_is_canceled_while_it_waits_never_runs() {
    let mut fleet = Fleet::builder().start();
    fleet.agents[0].stop();
    until_away(&fleet);
    let job = fleet.detach(&script("#!/bin/sh\n:\n"));
    assert_eq!(fleet.sluice(&["job", "cancel", &job]).code, 0);
    assert!(
        fleet
            .until(&job, "canceled")
            .text("message")
            .starts_with("Canceled by ")
    );
    fleet.agents[0].restart();
    fleet
        .run(&script("#!/bin/sh\necho next\n"))
        .expect("succeeded", "Script executed successfully");
    assert_eq!(
        fleet.agents[0]
            .machine
            .events()
            .iter()
            .filter(|entry| entry["event"] == "script_started")
            .count(),
        1
    );
}

#[test]
fn the_same_key_is_the_same_job_and_another_request_with_it_is_refused() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::builder().start();
    let folder = traces(&fleet);
    fs::write(folder.join("go"), "").expect("writes");
    let first = fleet.detach(&patient(&folder).option("--idempotency-key", "k1"));
    fleet.until(&first, "failed");
    assert_eq!(
        fleet.detach(&patient(&folder).option("--idempotency-key", "k1")),
        first
    );
    let refused = fleet.run(&script("#!/bin/sh\n:\n").option("--idempotency-key", "k1"));
    assert!(
        refused.code == 125 && refused.stderr.contains(&first),
        "{refused:#?}"
    );
    assert_ne!(
        fleet.detach(&patient(&folder).option("--idempotency-key", "k2")),
        first
    );
    eventually("the second key ran", || {
        (starts(&folder) == 2).then_some(())
    });
    assert_eq!(fleet.list(&["job", "show", &first]).len(), 1);
}
