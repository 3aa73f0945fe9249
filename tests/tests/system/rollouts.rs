//! Many machines one after the other: batches, bounds, rules, and what an operation waits for.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use sluice_tests::{Fleet, Script, eventually, is_root, script};

use crate::delivery::traces;

/// Leaves its machine's name in `starts`, waits for a file with that name, and fails where there is one that says so.
fn step(folder: &Path) -> Script {
    let folder = folder.display();
    script(format!(
        "#!/bin/sh\nme=$SLUICE_MACHINE_NAME\necho $me >> {folder}/starts\nuntil [ -e {folder}/go-$me ]; do sleep 0.05; done\n[ ! -e {folder}/fail-$me ]\n"
    ))
    .as_user("nobody")
}

fn allow(folder: &Path, machine: &str) {
    fs::write(folder.join(format!("go-{machine}")), "").expect("writes");
}

/// The machines on which the script was started, in that order.
fn started(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("starts")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn until_started(folder: &Path, machines: &[&str]) {
    eventually(&format!("it started on {machines:?}"), || {
        let mut names = started(folder);
        names.sort();
        (names == machines).then_some(())
    });
}

/// Submits a script to these machines with these options, and returns the job's id.
fn roll_out(fleet: &Fleet, script: &Script, machines: &[&str], options: &[&str]) -> String {
    let mut script = script.clone().flag("--detach");
    for pair in options.chunks(2) {
        script = script.option(pair[0], pair[1]);
    }
    let output = fleet.watch(&script, machines);
    assert_eq!(output.code, 0, "{output:?}");
    output.stdout.trim().to_owned()
}

fn states(fleet: &Fleet, job: &str) -> Vec<String> {
    let operations = fleet.list(&["job", "show", job]);
    operations
        .iter()
        .map(|operation| operation["state"].as_str().unwrap_or_default().to_owned())
        .collect()
}

fn until_states(fleet: &Fleet, job: &str, expected: &[&str]) {
    eventually(&format!("{job} is {expected:?}"), || {
        (states(fleet, job) == expected).then_some(())
    });
}

/// The first thing that the operation at this position waits for.
fn why(fleet: &Fleet, job: &str, position: usize) -> Value {
    fleet.list(&["job", "show", job])[position]["why"][0].clone()
}

fn count(fleet: &Fleet, event: &str) -> usize {
    fleet.events().iter().filter(|seen| *seen == event).count()
}

#[test]
fn a_host_that_is_killed_in_the_middle_goes_on_with_its_rollouts_and_runs_nothing_twice() {
    if !is_root() {
        return;
    }
    let mut fleet = Fleet::builder().agents(4).start();
    let folder = traces(&fleet);
    let machines = ["m1", "m2", "m3", "m4"];
    let options = ["--batches", "1, 50%, 100%"];
    let job = roll_out(&fleet, &step(&folder), &machines, &options);
    until_started(&folder, &["m1"]);
    let waits = why(&fleet, &job, 3);
    assert_eq!(
        (&waits["reason"], &waits["batch"], &waits["of"]),
        (&"batch".into(), &3.into(), &3.into()),
        "{waits}"
    );
    // The first batch ends while there is no host.
    fleet.host.kill();
    allow(&folder, "m1");
    fleet.host.kill_and_restart();
    // So that they need not find out by themselves that the old connection is no more.
    fleet.agents.iter_mut().for_each(|agent| agent.restart());
    until_started(&folder, &["m1", "m2"]);
    until_states(&fleet, &job, &["succeeded", "running", "held", "held"]);
    // And now right after it was told of an end, as far as a test can say that.
    allow(&folder, "m2");
    eventually("the second batch has ended", || {
        (states(&fleet, &job)[1] == "succeeded").then_some(())
    });
    fleet.host.kill_and_restart();
    fleet.agents.iter_mut().for_each(|agent| agent.restart());
    until_started(&folder, &machines);
    allow(&folder, "m3");
    allow(&folder, "m4");
    until_states(&fleet, &job, &["succeeded"; 4]);
    assert_eq!(started(&folder).len(), 4, "something was started twice");
    assert_eq!(count(&fleet, "job_released"), 3);
    let shown = fleet.sluice(&["job", "show", &job]);
    assert!(shown.stdout.contains("done"), "{shown:?}");
}

#[test]
fn a_failure_in_the_first_batch_keeps_the_others_from_it_until_somebody_resumes() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::builder().agents(3).start();
    let folder = traces(&fleet);
    let machines = ["m1", "m2", "m3"];
    machines.iter().for_each(|machine| allow(&folder, machine));
    fs::write(folder.join("fail-m1"), "").expect("writes");
    let options = ["--batches", "1, 100%", "--stop-on-failures", "50%"];
    let job = roll_out(&fleet, &step(&folder), &machines, &options);
    eventually("the rule fires", || {
        (why(&fleet, &job, 1)["reason"] == "paused").then_some(())
    });
    let waits = why(&fleet, &job, 1);
    assert_eq!(
        (&waits["rule"], &waits["by"], &waits["failures"]),
        (&"50%".into(), &Value::Null, &1.into())
    );
    assert_eq!(states(&fleet, &job), ["failed", "held", "held"]);
    assert_eq!(started(&folder), ["m1"]);
    let shown = fleet.sluice(&["job", "show", &job]);
    assert!(
        shown
            .stdout
            .contains("paused because operations failed (1, the rule is 50%)"),
        "{shown:?}"
    );
    let resumed = fleet.list(&["job", "resume", &job]);
    assert_eq!(
        (&resumed[0]["state"], &resumed[0]["batch"]),
        (&"running".into(), &2.into())
    );
    until_states(&fleet, &job, &["failed", "succeeded", "succeeded"]);
    assert_eq!(
        (count(&fleet, "job_stopped"), count(&fleet, "job_resumed")),
        (1, 1)
    );
}

#[test]
fn a_time_out_pauses_a_job_whose_failures_pause_nothing() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::builder().agents(3).start();
    let folder = traces(&fleet);
    // The first fails, and the second waits for what nobody allows.
    allow(&folder, "m1");
    fs::write(folder.join("fail-m1"), "").expect("writes");
    let options = [
        ["--batches", "1, 2, 100%"],
        ["--stop-on-failures", "never"],
        ["--stop-on-timeouts", "1"],
        ["--time-limit", "2s"],
    ]
    .concat();
    let job = roll_out(&fleet, &step(&folder), &["m1", "m2", "m3"], &options);
    until_states(&fleet, &job, &["failed", "timed-out", "held"]);
    eventually("the rule fires", || {
        (why(&fleet, &job, 2)["reason"] == "paused").then_some(())
    });
    let waits = why(&fleet, &job, 2);
    assert_eq!(
        (&waits["counts"], &waits["rule"], &waits["failures"]),
        (&"timeouts".into(), &"1".into(), &1.into())
    );
    let mut names = started(&folder);
    names.sort();
    assert_eq!(names, ["m1", "m2"]);
}

#[test]
fn a_machine_that_answers_otherwise_than_the_first_batch_pauses_the_job() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::builder().agents(4).start();
    let folder = traces(&fleet);
    fs::write(folder.join("odd"), "m3\n").expect("writes");
    let odd = folder.display();
    let script = script(format!(
        "#!/bin/sh\nversion=1\n[ $SLUICE_MACHINE_NAME != \"$(cat {odd}/odd)\" ] || version=2\necho version $version\n"
    ))
    .as_user("nobody");
    let options = [
        ["--batches", "1, 2, 3, 100%"],
        ["--stop-on-new-groups", "1"],
    ]
    .concat();
    let job = roll_out(&fleet, &script, &["m1", "m2", "m3", "m4"], &options);
    until_states(
        &fleet,
        &job,
        &["succeeded", "succeeded", "succeeded", "held"],
    );
    eventually("the rule fires", || {
        (why(&fleet, &job, 3)["reason"] == "paused").then_some(())
    });
    let waits = why(&fleet, &job, 3);
    assert_eq!(
        (&waits["counts"], &waits["rule"], &waits["failures"]),
        (&"groups".into(), &"1".into(), &1.into())
    );
    let shown = fleet.sluice(&["job", "show", &job]);
    assert!(
        shown.stdout.contains(
            "paused because results are not like those of the first batch (1, the rule is 1)"
        ),
        "{shown:?}"
    );
}

#[test]
fn a_machine_that_goes_dark_after_the_start_keeps_the_others_from_it_until_somebody_resumes() {
    if !is_root() {
        return;
    }
    let mut fleet = Fleet::builder().agents(3).start();
    let folder = traces(&fleet);
    let machines = ["m1", "m2", "m3"];
    machines.iter().for_each(|machine| allow(&folder, machine));
    fs::remove_file(folder.join("go-m1")).expect("is there");
    let options = [
        ["--batches", "1, 100%"],
        ["--stop-on-dark", "1"],
        ["--dark-after", "1s"],
    ]
    .concat();
    let job = roll_out(&fleet, &step(&folder), &machines, &options);
    until_states(&fleet, &job, &["running", "held", "held"]);
    fleet.agents[0].kill();
    // What a host that was away knows of who is dark, it knows again.
    fleet.host.kill_and_restart();
    fleet.agents[1..]
        .iter_mut()
        .for_each(|agent| agent.restart());
    eventually("the rule fires", || {
        (why(&fleet, &job, 1)["reason"] == "paused").then_some(())
    });
    let waits = why(&fleet, &job, 1);
    assert_eq!(
        (&waits["counts"], &waits["rule"], &waits["failures"]),
        (&"dark".into(), &"1".into(), &1.into())
    );
    allow(&folder, "m1");
    fleet.agents[0].restart();
    until_states(&fleet, &job, &["succeeded", "held", "held"]);
    assert_eq!(started(&folder), ["m1"]);
    let resumed = fleet.sluice(&["job", "resume", &job]);
    assert_eq!(resumed.code, 0, "{resumed:?}");
    until_states(&fleet, &job, &["succeeded"; 3]);
}

/// What a person sees who follows a job at a terminal of 60 columns, and what is left on stdout.
fn seen_at_a_terminal(
    fleet: &Fleet,
    job: &str,
    meanwhile: impl FnOnce(&dyn Fn() -> String),
) -> (String, Output) {
    let size = nix::pty::Winsize {
        ws_row: 20,
        ws_col: 60,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let terminal = nix::pty::openpty(Some(&size), None).expect("there is a terminal");
    let mut command = fleet.command();
    command
        .args(["job", "show", job, "--follow"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(terminal.slave);
    let child = command.spawn().expect("sluice was built");
    // Else the terminal would never end.
    drop(command);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (shared, mut screen) = (Arc::clone(&seen), fs::File::from(terminal.master));
    let reader = std::thread::spawn(move || {
        let mut piece = [0; 1024];
        while let Ok(read @ 1..) = screen.read(&mut piece) {
            shared.lock().expect("is whole").extend(&piece[..read]);
        }
    });
    let text = || String::from_utf8_lossy(&seen.lock().expect("is whole")).into_owned();
    meanwhile(&text);
    let output = child.wait_with_output().expect("waits");
    reader.join().expect("reads");
    (text(), output)
}

#[test]
fn on_a_terminal_a_bar_with_counts_is_drawn_over_and_over_and_one_line_is_left() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::builder().agents(2).start();
    let folder = traces(&fleet);
    let options = ["--batches", "1, 100%"];
    let job = roll_out(&fleet, &step(&folder), &["m1", "m2"], &options);
    until_started(&folder, &["m1"]);
    let (seen, output) = seen_at_a_terminal(&fleet, &job, |seen| {
        let shows = |what: &str| {
            eventually(&format!("the terminal shows {what}"), || {
                seen().contains(what).then_some(())
            });
        };
        shows("[........................] 0/2 held 1, running 1");
        let paused = fleet.sluice(&["job", "pause", &job]);
        assert_eq!(paused.code, 0, "{paused:?}");
        shows("paused by admin");
        allow(&folder, "m1");
        shows("[############............] 1/2 held 1, succeeded 1");
        let resumed = fleet.sluice(&["job", "resume", &job]);
        assert_eq!(resumed.code, 0, "{resumed:?}");
        shows("batch 2 of 2 has begun");
        allow(&folder, "m2");
    });
    assert_eq!(output.status.code(), Some(0), "{seen:?}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "2 operations: succeeded 2\n"
    );
    // Each picture takes the place of the one before, on one line, and the last is wiped.
    let pictures: Vec<_> = seen.split("\r\x1b[2K").collect();
    assert_eq!(pictures.last(), Some(&""), "{seen:?}");
    for picture in pictures.iter().filter(|picture| picture.starts_with('[')) {
        assert!(picture.len() < 60 && !picture.contains('\n'), "{picture:?}");
    }
}

#[test]
fn a_paused_job_starts_nothing_more_and_canceling_ends_what_is_held() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::builder().agents(3).start();
    let folder = traces(&fleet);
    let machines = ["m1", "m2", "m3"];
    let job = roll_out(
        &fleet,
        &step(&folder),
        &machines,
        &["--max-concurrency", "1"],
    );
    until_started(&folder, &["m1"]);
    assert_eq!(why(&fleet, &job, 1)["reason"], "concurrency");
    let paused = fleet.list(&["job", "pause", &job]);
    assert_eq!(
        (&paused[0]["state"], &paused[0]["held"]),
        (&"paused".into(), &2.into())
    );
    allow(&folder, "m1");
    until_states(&fleet, &job, &["succeeded", "held", "held"]);
    let waits = why(&fleet, &job, 1);
    assert_eq!(waits["reason"], "paused");
    assert!(
        waits["by"].is_string() && waits["rule"].is_null(),
        "{waits}"
    );
    assert_eq!(fleet.sluice(&["job", "resume", &job]).code, 0);
    until_started(&folder, &["m1", "m2"]);
    let canceled = fleet.sluice(&["job", "cancel", &job]);
    assert_eq!(
        canceled.stdout,
        "canceled 2 operations that had not ended\n"
    );
    until_states(&fleet, &job, &["succeeded", "canceled", "canceled"]);
    assert_eq!(started(&folder).len(), 2);
    let late = fleet.sluice(&["job", "resume", &job]);
    late.expect_refused();
    assert!(late.stderr.contains("has ended"), "{late:?}");
}

#[test]
fn who_follows_a_rollout_is_told_of_each_batch() {
    let fleet = Fleet::builder().agents(2).start();
    let told = script("#!/bin/sh\necho hi\n").option("--batches", "1, 100%");
    let output = fleet.watch(&told, &["m1", "m2"]);
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (0, "m1: hi\nm2: hi\n"),
        "{output:?}"
    );
    for batch in ["batch 1 of 2 has begun", "batch 2 of 2 has begun"] {
        assert_eq!(output.stderr.matches(batch).count(), 1, "{output:?}");
    }
}

#[test]
fn rollouts_that_make_no_sense_are_refused_in_one_line_and_leave_nothing() {
    let fleet = Fleet::builder().agents(0).without_gates().start();
    for (options, expected) in [
        (&["--batches", ""][..], "batches are empty"),
        (&["--batches", "1, 120%"], "120% is over 100%"),
        (&["--batches", "50%, 10%, 100%"], "10% is not above 50%"),
        (&["--batches", "some"], "\"some\" is neither"),
        (&["--batches", "1, 50%"], "end with 100%"),
        (&["--batches", "1, 2"], "2 of 3 machines"),
        (&["--max-concurrency", "0"], "nothing would start"),
        (
            &["--stop-on-failures", "1"],
            "needs batches or max_concurrency",
        ),
        (
            &["--batches", "1, 100%", "--stop-on-failures", "101%"],
            "101% is over 100%",
        ),
    ] {
        let mut bad = script("#!/bin/sh\n:\n");
        for pair in options.chunks(2) {
            bad = bad.option(pair[0], pair[1]);
        }
        let output = fleet.watch(&bad, &["a", "b", "c"]);
        output.expect_refused();
        assert!(output.stderr.contains(expected), "{options:?}: {output:?}");
    }
    assert_eq!(fleet.list(&["job", "list"]).len(), 0);
    for verb in ["pause", "resume"] {
        let none = fleet.sluice(&["job", verb, "none"]);
        none.expect_refused();
        assert!(none.stderr.contains("no job none"), "{none:?}");
    }
}

#[test]
fn following_a_job_says_how_it_ended_in_one_line_and_with_json_every_event() {
    let fleet = Fleet::builder().agents(2).start();
    let text = "#!/bin/sh\necho hi\nsleep 1\n[ $SLUICE_MACHINE_NAME = m1 ]\n";
    let job = roll_out(&fleet, &script(text), &["m1", "m2"], &[]);
    let followed = fleet.sluice(&["job", "show", &job, "--follow"]);
    assert_eq!(followed.code, 1, "{followed:?}");
    assert_eq!(followed.stdout, "2 operations: succeeded 1, failed 1\n");
    assert_eq!(followed.stderr, "");
    let followed = fleet.sluice(&["job", "show", &job, "--follow", "--json"]);
    let events: Vec<Value> = followed
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("is JSON"))
        .collect();
    let count = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    assert_eq!((count("result"), count("end")), (2, 1), "{events:?}");
    assert!(count("output") >= 2 && count("state") >= 2, "{events:?}");
    assert_eq!(
        events.last().map(|last| &last["event"]),
        Some(&"end".into())
    );
    assert_eq!(followed.code, 1);
    let unknown = fleet.sluice(&["job", "show", "x", "--follow"]);
    assert_eq!(unknown.code, 125, "{unknown:?}");
}
