//! `sluice run --preview`: what it says is what comes of the run, and nothing comes of it alone.

use std::fs;

use serde_json::Value;
use sluice_tests::{Fleet, Output, eventually};

use crate::shipped::rebind;

/// A script with a finding of medium severity that runs nothing of it.
const SCAN: &str = "#!/bin/sh\necho ran\nexit 0\nnmap 203.0.113.0/24\n";
/// A script for another system than these machines have.
const ELSEWHERE: &str =
    "#!/bin/sh\n# /// sluice\n# [requires]\n# os = [\"windows\"]\n# ///\necho ran\n";

fn run(fleet: &Fleet, text: &str, options: &[&str]) -> Output {
    let file = fleet.folder().join("script.sh");
    fs::write(&file, text).expect("writes");
    let file = file.to_str().expect("is text");
    fleet.sluice(&[&["run", file], options].concat())
}

fn preview(fleet: &Fleet, text: &str, options: &[&str]) -> Value {
    let output = run(fleet, text, &[options, &["--preview", "--json"]].concat());
    assert_eq!(output.code, 0, "{output:?}");
    serde_json::from_str(&output.stdout).expect("is JSON")
}

fn previewed(fleet: &Fleet) -> Vec<Value> {
    let mut entries = fleet.list(&["audit", "list"]);
    entries.retain(|entry| entry["event"] == "job_previewed");
    entries
}

#[test]
fn a_preview_says_what_would_become_of_each_machine_and_so_it_comes() {
    let fleet = Fleet::builder().agents(3).start();
    rebind(&fleet, "policy", "threshold = \"medium\"\n");
    let before = fleet.list(&["job", "list"]).len();
    for (text, options, count, batches) in [
        (
            SCAN,
            &["--all", "--batches", "1, 100%"][..],
            3,
            &[&["m1"][..], &["m2", "m3"]][..],
        ),
        (ELSEWHERE, &["--all"], 3, &[]),
        ("#!/bin/sh\n:\n", &["--on", "m1", "--on", "nowhere"], 1, &[]),
    ] {
        let seen = preview(&fleet, text, options);
        assert_eq!(fleet.list(&["job", "list"]).len(), before, "made a job");
        let ended = &seen["ended"][0];
        assert_eq!(
            (&ended["machines"], seen["ended"].as_array().map(Vec::len)),
            (&count.into(), Some(1)),
            "{seen:#}"
        );
        let sizes: Vec<_> = seen["batches"].as_array().into_iter().flatten().collect();
        assert_eq!(sizes.len(), batches.len(), "{seen:#}");
        for (batch, names) in sizes.iter().zip(batches) {
            assert_eq!(batch["first"], Value::from(names.to_vec()), "{seen:#}");
            assert_eq!(batch["machines"], names.len(), "{seen:#}");
        }
        let said = run(&fleet, text, &[options, &["--preview"]].concat()).stdout;
        let message = ended["message"].as_str().expect("is text");
        assert!(said.contains(message), "{message}: {said}");
        assert!(
            batches.is_empty() || said.contains("2 of 2: 2 machines (m2, m3)"),
            "{said}"
        );
    }
    assert!(
        fleet
            .agents
            .iter()
            .all(|agent| !agent.machine.has_started_something())
    );
    let entries = previewed(&fleet);
    assert_eq!(entries.len(), 6, "{entries:#?}");

    for (text, entry, ended) in [(SCAN, &entries[0], 3), (ELSEWHERE, &entries[2], 3)] {
        let seen = preview(&fleet, text, &["--all"]);
        let job = run(&fleet, text, &["--all", "--detach"]);
        let job = job.stdout.trim();
        let operations = eventually("all have ended", || {
            let operations = fleet.list(&["job", "show", job]);
            let mut all = operations.iter();
            all.all(|one| one["state"] == seen["ended"][0]["state"])
                .then_some(operations)
        });
        for operation in operations {
            assert_eq!(operation["message"], seen["ended"][0]["message"]);
        }
        let audit = fleet.list(&["audit", "list"]);
        let attempt = audit.iter().find(|entry| {
            entry["event"] == "script_execution_attempt" && entry["job"].as_str() == Some(job)
        });
        let attempt = attempt.expect("is on the record");
        assert_eq!(entry["script_sha256"], attempt["script_sha256"]);
        assert_eq!(entry["details"]["ended"], ended);
    }
}

#[test]
fn a_preview_tells_of_a_lockdown_and_of_machines_that_are_away() {
    let mut fleet = Fleet::builder().agents(2).without_gates().start();
    fleet.agents[1].stop();
    eventually("m2 is away", || {
        let machines = fleet.list(&["machine", "list"]);
        let m2 = machines.iter().find(|machine| machine["name"] == "m2")?;
        (m2["connected"] == false).then_some(())
    });
    let text = "#!/bin/sh\n:\n";
    let seen = preview(&fleet, text, &["--all"]);
    assert_eq!(seen["lockdown"], Value::Null);
    assert_eq!(
        (
            &seen["obstacles"][0]["obstacle"],
            &seen["obstacles"][0]["first"][0]
        ),
        (&"offline".into(), &"m2".into()),
        "{seen:#}"
    );
    let impatient = preview(&fleet, text, &["--all", "--no-queue"]);
    assert_eq!(
        impatient["obstacles"],
        Value::Array(Vec::new()),
        "{impatient:#}"
    );
    assert_eq!(impatient["ended"][0]["first"][0], "m2", "{impatient:#}");

    let on = fleet.sluice(&["lockdown", "on", "--reason", "a drill"]);
    assert_eq!(on.code, 0, "{on:?}");
    let said = run(&fleet, text, &["--all", "--preview"]);
    assert!(
        said.stdout.contains("(a drill): no job is made before"),
        "{said:?}"
    );
    assert_eq!(run(&fleet, text, &["--all", "--detach"]).code, 125);
    assert_eq!(fleet.sluice(&["lockdown", "off"]).code, 0);
    let seen = preview(&fleet, text, &["--all"]);
    assert_eq!(seen["lockdown"], Value::Null);
    assert_eq!(fleet.list(&["job", "list"]).len(), 0);
}
