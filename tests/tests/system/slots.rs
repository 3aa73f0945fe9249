//! Whatever keeps a script from starting or ending, its place among those that run at once is free for the next one.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use sluice_tests::{Fleet, SilentFolder, eventually, installed, is_root, script};

use crate::hostile::without_gates;
use crate::isolation::processes;
use crate::users::NewUser;

/// How a note begins that names a process which the kernel keeps.
const NOT_LET_GO: &str = "the kernel does not let go of process ";

/// A script that waits for its turn runs, and within a time.
fn next_one_runs(fleet: &Fleet) {
    let job = fleet.detach(&script("#!/bin/sh\n:\n"));
    fleet.until(&job, "succeeded");
}

#[test]
fn the_place_of_a_script_that_does_not_want_to_end_is_free_for_the_next_one() {
    if !is_root() || !installed("/bin/bash") {
        return;
    }
    let fleet = without_gates("[limits]\nparallel = 1\ngrace = \"100ms\"\n");
    let unwilling = [
        (
            "deaf",
            "trap '' TERM INT HUP\nwhile :; do sleep 0.1; done\n",
        ),
        ("stopped", "kill -STOP $$\n"),
        (
            "stopped children",
            "for i in 1 2 3; do setsid bash -c 'kill -STOP $$' & done\nwait\n",
        ),
    ];
    for (name, text) in unwilling {
        let job = fleet.detach(&script(format!("#!/bin/bash\n{text}")).time_limit("500ms"));
        // It waits for its turn, so it runs when the other one has ended.
        next_one_runs(&fleet);
        let ended = fleet.until(&job, "timed-out");
        assert!(!ended.json["signal"].is_null(), "{name}: {ended:#?}");
    }
}

#[test]
fn a_script_that_the_kernel_does_not_let_go_is_given_up_and_said_to_be_still_there() {
    if !is_root() {
        return;
    }
    let fleet = without_gates("[limits]\nparallel = 1\ngrace = \"100ms\"\n");
    let Some(silent) = SilentFolder::make(&fleet.folder().join("silent")) else {
        return;
    };
    let text = format!(
        "#!/bin/sh\nexec cat {}/file\n",
        fleet.folder().join("silent").display()
    );
    let job = fleet.detach(&script(text).as_user("nobody").time_limit("500ms"));
    next_one_runs(&fleet);
    let ended = fleet.until(&job, "timed-out");
    drop(silent);
    let notes = ended.json["notes"].to_string();
    assert!(notes.contains(NOT_LET_GO), "{notes}");
}

#[test]
fn a_home_that_does_not_answer_stops_nobody_else_and_who_waits_for_it_can_be_canceled() {
    if !is_root() {
        return;
    }
    let Some(user) = NewUser::add("c") else {
        return;
    };
    let name = &user.name;
    let fleet = without_gates(&format!(
        "[limits]\nparallel = 2\n[run-as]\nusers = [\"ephemeral\", \"{name}\"]\n"
    ));
    let Some(silent) = SilentFolder::make(&fleet.folder().join("silent")) else {
        return;
    };
    user.moves_to(&fleet.folder().join("silent"));
    let job = fleet.detach(&script("#!/bin/sh\n:\n").as_user(name));
    let uid = user.uid();
    let waits = || {
        processes().into_iter().any(|pid| {
            fs::metadata(format!("/proc/{pid}")).is_ok_and(|process| process.uid() == uid)
        })
    };
    eventually("its process waits for its home", || waits().then_some(()));
    next_one_runs(&fleet);
    assert_eq!(fleet.sluice(&["job", "cancel", &job]).code, 0);
    let ended = eventually("it has ended", || {
        Some(fleet.show(&job)).filter(|shown| !shown.json["finished_at"].is_null())
    });
    drop(silent);
    assert_eq!(ended.text("state"), "canceled", "{ended:#?}");
    let notes = ended.json["notes"].to_string();
    assert!(notes.contains(NOT_LET_GO), "{notes}");
    eventually("no process of it is left", || (!waits()).then_some(()));
    assert!(fleet.agents[0].machine.left_behind().is_empty());
    next_one_runs(&fleet);
}
