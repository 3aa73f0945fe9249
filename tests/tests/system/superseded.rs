//! Jobs with a key of which only the newest runs when a machine comes back.

use std::fs;
use std::path::Path;

use sluice_tests::{Fleet, Output, Script, is_root, script};

use crate::delivery::{traces, until_away};

/// Leaves a line with its name.
fn tracing(folder: &Path, name: &str) -> Script {
    let folder = folder.display();
    script(format!("#!/bin/sh\necho {name} >> {folder}/ran\n")).as_user("nobody")
}

fn ran(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("ran")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn of_jobs_with_one_key_only_the_newest_runs_when_a_machine_comes_back() {
    if !is_root() {
        return;
    }
    let mut fleet = Fleet::builder().start();
    let folder = traces(&fleet);
    fleet.agents[0].stop();
    until_away(&fleet);
    let submit =
        |name: &str, key: &str| fleet.detach(&tracing(&folder, name).option("--supersede", key));
    let other = submit("other", "report");
    let jobs = ["one", "two", "three"].map(|name| submit(name, "patch"));
    for (older, newer) in [(&jobs[0], &jobs[1]), (&jobs[1], &jobs[2])] {
        let message = format!("Canceled by admin: superseded by job {newer}");
        fleet.show(older).expect("canceled", &message);
    }
    fleet.host.kill_and_restart();
    fleet.agents[0].restart();
    fleet.until(&jobs[2], "succeeded");
    fleet.until(&other, "succeeded");
    let mut ran = ran(&folder);
    ran.sort_unstable();
    assert_eq!(ran, ["other", "three"]);
    let entries = fleet.list(&["audit", "list"]);
    let superseded: Vec<&str> = entries
        .iter()
        .filter(|entry| entry["event"] == "script_canceled")
        .filter_map(|entry| entry["details"]["superseded_by"].as_str())
        .collect();
    assert_eq!(superseded, [jobs[1].as_str(), jobs[2].as_str()]);
}

#[test]
fn who_may_run_stored_scripts_alone_does_not_end_anothers_job_by_its_key() {
    let mut fleet = Fleet::builder().start();
    fleet.agents[0].stop();
    until_away(&fleet);
    let path = fleet.folder().join("patch.sh");
    fs::write(&path, "#!/bin/sh\n:\n").expect("writes");
    let path = path.to_str().expect("is text");
    let added = fleet.sluice(&["script", "add", path, "--name", "patch"]);
    assert_eq!(added.code, 0, "{added:?}");
    let token = fleet.token_with("ci", &["RunStoredScripts"]);
    let run = [
        "run",
        "--script",
        "patch",
        "--on",
        "m1",
        "--detach",
        "--supersede",
        "patch",
    ];
    let waiting = fleet.sluice(&run).stdout.trim().to_owned();
    let as_ci = || {
        let mut command = fleet.command();
        command.env("SLUICE_TOKEN", &token).args(run);
        Output::of(&command.output().expect("sluice was built"))
    };
    let refused = as_ci();
    refused.expect_refused();
    assert!(
        refused
            .stderr
            .contains("lacks the permission RemoteExecution for m1"),
        "{refused:?}"
    );
    assert_eq!(fleet.show(&waiting).text("state"), "queued");
}
