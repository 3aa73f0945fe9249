//! Jobs that start one after the other on a machine.

use std::fs;
use std::path::Path;

use sluice_tests::{Fleet, Script, eventually, is_root, script};

use crate::delivery::{traces, until_away};

/// Says when it begins and when it ends.
fn tracing(folder: &Path, name: &str, wait: &str) -> Script {
    let folder = folder.display();
    script(format!(
        "#!/bin/sh\necho {name} begins >> {folder}/ran\n{wait}\necho {name} ends >> {folder}/ran\n"
    ))
    .as_user("nobody")
}

fn ran(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("ran")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn until_said(folder: &Path, line: &str) {
    eventually(line, || {
        ran(folder).iter().any(|said| said == line).then_some(())
    });
}

#[test]
fn jobs_in_order_run_one_after_the_other_when_a_machine_comes_back_also_where_the_host_is_killed() {
    if !is_root() {
        return;
    }
    let mut fleet = Fleet::builder().policy("[limits]\nparallel = 4\n").start();
    let folder = traces(&fleet);
    fleet.agents[0].stop();
    until_away(&fleet);
    let until_go = format!("until [ -e {}/go ]; do sleep 0.05; done", folder.display());
    let submit = |name: &str, wait: &str| {
        let script = tracing(&folder, name, wait);
        fleet.detach(&script.flag("--in-order"))
    };
    // The first is the longest: beside each other, the others would end before it.
    let one = submit("one", "sleep 1");
    let two = submit("two", "sleep 0.2");
    let three = submit("three", &until_go);
    let four = submit("four", ":");
    let other = fleet.detach(&tracing(&folder, "other", ":"));
    let why = fleet.show(&four).json["why"].to_string();
    assert!(why.contains(&one) && why.contains("earlier"), "{why}");
    fleet.host.kill_and_restart();
    fleet.agents[0].restart();
    until_said(&folder, "three begins");
    fleet.until(&other, "succeeded");
    fleet.until(&two, "succeeded");
    let shown = fleet.sluice(&["job", "show", &four]);
    let waits = format!("job {three}, which is ");
    assert!(shown.stdout.contains(&waits), "{shown:?}");
    fleet.host.kill();
    fs::write(folder.join("go"), "").expect("writes");
    until_said(&folder, "three ends");
    fleet.host.kill_and_restart();
    fleet.until(&four, "succeeded");
    let mut ran = ran(&folder);
    ran.retain(|line| !line.starts_with("other"));
    let expected = ["one", "two", "three", "four"]
        .map(|name| [format!("{name} begins"), format!("{name} ends")]);
    assert_eq!(ran, expected.concat());
}
