//! At most one start, over machines that are rolled back, copied or another computer, and hosts that are restored.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sluice_tests::{Fleet, Machine, Script, binaries, eventually, installed, is_root, script};

use crate::delivery::{patient, starts, traces, until_away};
use crate::hostile::without_gates;

/// Copies a folder as a backup does.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.expect("cp is there").success(), "{}", from.display());
}

/// Puts a copy in place of a folder.
fn put_back(copied: &Path, folder: &Path) {
    fs::remove_dir_all(folder).expect("removes");
    copy(copied, folder);
}

/// Leaves a line in `ran` when it starts.
fn counted(folder: &Path) -> Script {
    let folder = folder.display();
    script(format!("#!/bin/sh\necho started >> {folder}/ran\n")).as_user("nobody")
}

fn ran(folder: &Path) -> usize {
    let lines = fs::read_to_string(folder.join("ran")).unwrap_or_default();
    lines.lines().count()
}

fn shown(fleet: &Fleet) -> Value {
    fleet.list(&["machine", "show", "m1"]).remove(0)
}

fn until_shown(fleet: &Fleet, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || Some(shown(fleet)).filter(&is_so))
}

fn until_connected(fleet: &Fleet) {
    until_shown(fleet, "it is connected", |machine| {
        machine["connected"] == true
    });
}

fn on_record(fleet: &Fleet, event: &str) -> usize {
    let entries = fleet.list(&["audit", "list"]);
    entries
        .iter()
        .filter(|entry| entry["event"] == event)
        .count()
}

fn has_event(machine: &Machine, event: &str) -> bool {
    machine.events().iter().any(|entry| entry["event"] == event)
}

/// A machine on which one script runs, in the one place that there is, and another one waits for that. The agent has stopped.
struct Waiting {
    fleet: Fleet,
    folder: PathBuf,
    blocker: String,
    waiting: String,
}

impl Waiting {
    fn new() -> Self {
        let mut fleet = without_gates("[limits]\nparallel = 1\n");
        let folder = traces(&fleet);
        let blocker = fleet.detach(&patient(&folder));
        eventually("it started", || (starts(&folder) == 1).then_some(()));
        let waiting = fleet.detach(&counted(&folder));
        fleet.until(&waiting, "accepted");
        fleet.agents[0].stop();
        until_away(&fleet);
        Self {
            fleet,
            folder,
            blocker,
            waiting,
        }
    }

    fn unblock(&self) {
        fs::write(self.folder.join("go"), "").expect("writes");
    }

    fn machine(&self) -> Machine {
        self.fleet.agents[0].machine.clone()
    }
}

/// Waits until the agent has been told what the host makes of its history, and shows by another script that everything goes on.
fn run_another(fleet: &Fleet) {
    until_connected(fleet);
    fleet
        .run(&script("#!/bin/sh\n:\n"))
        .expect("succeeded", "Script executed successfully");
}

#[test]
fn what_waited_when_an_image_of_the_machine_was_taken_does_not_run_again_when_that_is_put_back() {
    if !is_root() {
        return;
    }
    let mut waiting = Waiting::new();
    let machine = waiting.machine();
    let image = waiting.fleet.folder().join("image");
    copy(&machine.state, &image);

    waiting.fleet.agents[0].restart();
    waiting.unblock();
    waiting.fleet.until(&waiting.waiting, "succeeded");
    assert_eq!(ran(&waiting.folder), 1);
    assert_eq!(shown(&waiting.fleet)["history_lost_at"], Value::Null);
    waiting.fleet.agents[0].stop();
    until_away(&waiting.fleet);

    put_back(&image, &machine.state);
    waiting.fleet.agents[0] = machine.start();
    let fleet = &waiting.fleet;
    until_shown(fleet, "its history is lost", |machine| {
        machine["history_lost_at"].is_string()
    });
    run_another(fleet);
    assert_eq!(ran(&waiting.folder), 1, "{}", machine.log());
    assert!(has_event(&machine, "machine_history_lost"));
    assert_eq!(on_record(fleet, "machine_history_lost"), 1);
    let stays = fleet.show(&waiting.waiting);
    assert_eq!(stays.text("state"), "succeeded");

    // It has begun anew: the next connection is as any other.
    waiting.fleet.agents[0].stop();
    until_away(&waiting.fleet);
    waiting.fleet.agents[0] = machine.start();
    run_another(&waiting.fleet);
    assert_eq!(on_record(&waiting.fleet, "machine_history_lost"), 1);
    assert_eq!(ran(&waiting.folder), 1);
}

#[test]
fn what_runs_on_when_an_image_is_put_back_ends_as_interrupted_on_both_sides_and_never_starts_again()
{
    if !is_root() {
        return;
    }
    let mut waiting = Waiting::new();
    let machine = waiting.machine();
    let image = waiting.fleet.folder().join("image");
    copy(&machine.state, &image);
    waiting.fleet.agents[0] = machine.start();
    waiting.unblock();
    waiting.fleet.until(&waiting.waiting, "succeeded");
    fs::remove_file(waiting.folder.join("go")).expect("removes");
    let running = waiting.fleet.detach(&patient(&waiting.folder));
    eventually("it started", || {
        (starts(&waiting.folder) == 2).then_some(())
    });
    waiting.fleet.until(&running, "running");
    waiting.fleet.agents[0].stop();
    until_away(&waiting.fleet);

    put_back(&image, &machine.state);
    waiting.fleet.agents[0] = machine.start();
    let ended = waiting.fleet.until(&running, "interrupted");
    ended.expect(
        "interrupted",
        "Execution error: interrupted, outcome unknown",
    );
    waiting.unblock();
    run_another(&waiting.fleet);
    assert_eq!((starts(&waiting.folder), ran(&waiting.folder)), (2, 1));
}

#[test]
fn two_copies_of_a_machine_are_both_quarantined_and_nothing_starts_until_one_is_released() {
    if !is_root() {
        return;
    }
    let mut waiting = Waiting::new();
    let machine = waiting.machine();
    let clone = waiting.fleet.machine("clone", "");
    fs::remove_dir_all(&clone.state).expect("removes");
    copy(&machine.state, &clone.state);
    // On one computer it would end what the other one's shim runs, as what a shim has left.
    fs::remove_dir_all(clone.state.join("spool")).expect("removes");
    fs::create_dir(clone.state.join("spool")).expect("makes a folder");
    clone.configure("[limits]\nparallel = 1\n[gates]\nstages = []\n");

    waiting.fleet.agents[0].restart();
    until_connected(&waiting.fleet);
    let mut other = clone.start();
    let fleet = &waiting.fleet;
    let quarantined = until_shown(fleet, "it is quarantined", |machine| {
        machine["quarantine"].is_object()
    });
    let reason = quarantined["quarantine"]["reason"].as_str();
    assert!(
        reason.is_some_and(|reason| reason.contains("twice")),
        "{quarantined:#}"
    );
    assert_eq!(quarantined["connected"], false);
    fleet.until(&waiting.waiting, "interrupted");
    let queued = fleet.detach(&counted(&waiting.folder));
    for machine in [&machine, &clone] {
        eventually("both know", || {
            has_event(machine, "machine_quarantined").then_some(())
        });
    }
    // Not earlier: the host has given it up by now, and the machine may learn so a moment later.
    waiting.unblock();
    let waits = fleet.show(&queued);
    assert_eq!(waits.text("state"), "queued");
    let why = &waits.json["why"];
    assert_eq!(
        (&why[0]["reason"], &why[1]["reason"]),
        (&"quarantined".into(), &"offline".into()),
        "{why:#}"
    );
    assert_eq!(why[0]["because"].as_str(), reason);
    assert_eq!(on_record(fleet, "machine_quarantined"), 1);
    let said = fleet.sluice(&["machine", "show", "m1"]).stdout;
    assert!(said.contains("quarantined"), "{said}");

    other.stop();
    let released = fleet.sluice(&["machine", "release", "m1"]);
    assert_eq!(released.code, 0, "{released:?}");
    assert_eq!(on_record(fleet, "machine_released"), 1);
    waiting.fleet.agents[0].stop();
    waiting.fleet.agents[0] = machine.start();
    waiting.fleet.until(&queued, "succeeded");
    assert_eq!(ran(&waiting.folder), 1, "the one that was queued, once");
    let again = waiting.fleet.sluice(&["machine", "release", "m1"]);
    assert_eq!(again.code, 125, "{again:?}");

    // The copy comes back when the other one is away, with less in its ledger, and the other one after it.
    waiting.fleet.agents[0].stop();
    until_away(&waiting.fleet);
    let lost = || shown(&waiting.fleet)["history_lost_at"].clone();
    let before = lost();
    let mut other = clone.start();
    eventually("its history is lost", || (lost() != before).then_some(()));
    until_connected(&waiting.fleet);
    other.stop();
    until_away(&waiting.fleet);
    let _first = machine.start();
    let quarantined = until_shown(&waiting.fleet, "it is quarantined again", |machine| {
        machine["quarantine"].is_object()
    });
    let reason = quarantined["quarantine"]["reason"].as_str();
    assert!(
        reason.is_some_and(|reason| reason.contains("ledger")),
        "{quarantined:#}"
    );
    assert_eq!((starts(&waiting.folder), ran(&waiting.folder)), (1, 1));
}

#[test]
fn a_machine_on_another_computer_is_quarantined_until_it_is_released() {
    const ID: &str = "/etc/machine-id";
    if !is_root() || !installed("/usr/bin/unshare") || !Path::new(ID).exists() {
        eprintln!("LEFT OUT: needs root, unshare(1) and {ID}");
        return;
    }
    let mut fleet = without_gates("");
    let machine = fleet.agents[0].machine.clone();
    run_another(&fleet);
    fleet.agents[0].stop();
    until_away(&fleet);
    let other = fleet.folder().join("machine-id");
    fs::write(&other, "8f3b2c1d9e7a46508b1c2d3e4f506172\n").expect("writes");
    let moved = format!("mount --bind {} {ID}", other.display());
    fleet.agents[0] = machine.start_apart(&moved);
    let quarantined = until_shown(&fleet, "it is quarantined", |machine| {
        machine["quarantine"].is_object()
    });
    let reason = quarantined["quarantine"]["reason"].as_str();
    assert!(
        reason.is_some_and(|reason| reason.contains("computer")),
        "{quarantined:#}"
    );
    let released = fleet.sluice(&["machine", "release", "m1"]);
    assert_eq!(released.code, 0, "{released:?}");
    fleet.agents[0].stop();
    fleet.agents[0] = machine.start_apart(&moved);
    run_another(&fleet);
}

/// `sluice-host restored`
fn restored(data: &Path) {
    let output = Command::new(binaries().join("sluice-host"))
        .args(["restored", "--data"])
        .arg(data)
        .output()
        .expect("sluice-host was built");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_host_that_is_restored_from_a_backup_starts_nothing_again_that_its_machines_have_ended() {
    if !is_root() {
        return;
    }
    let mut fleet = without_gates("");
    let folder = traces(&fleet);
    let machine = fleet.agents[0].machine.clone();
    let running = fleet.detach(&patient(&folder));
    eventually("it started", || (starts(&folder) == 1).then_some(()));
    fleet.until(&running, "running");
    fleet.agents[0].stop();
    until_away(&fleet);
    let queued = fleet.detach(&counted(&folder));
    let (data, backup) = (fleet.host.data().to_owned(), fleet.folder().join("backup"));
    fleet.host.kill();
    copy(&data, &backup);
    fleet.host.kill_and_restart();
    fs::write(folder.join("go"), "").expect("writes");
    fleet.agents[0] = machine.start();
    fleet.until(&queued, "succeeded");
    fleet.until(&running, "failed");
    until_forgotten(&machine);

    fleet.host.kill();
    put_back(&backup, &data);
    restored(&data);
    fleet.host.kill_and_restart();
    assert_eq!(fleet.show(&queued).text("state"), "queued");
    fleet.agents[0].stop();
    fleet.agents[0] = machine.start();
    let ended = fleet.until(&queued, "interrupted");
    let notes = ended.json["notes"].to_string();
    assert!(notes.contains("ended on this machine before"), "{notes}");
    fleet.until(&running, "interrupted");
    run_another(&fleet);
    assert_eq!((starts(&folder), ran(&folder)), (1, 1));
    assert!(has_event(&machine, "host_restored"));
    assert_eq!(on_record(&fleet, "host_restored"), 1);
    assert_eq!(shown(&fleet)["history_lost_at"], Value::Null);
}

/// Waits until the machine keeps nothing of what it ran but the ids.
fn until_forgotten(machine: &Machine) {
    let spools = machine.state.join("spool");
    eventually("its operations are forgotten", || {
        let mut spools = fs::read_dir(&spools).expect("reads").flatten();
        // A spare has a name of its own.
        spools
            .all(|entry| entry.file_name().len() != 36)
            .then_some(())
    });
}

#[test]
fn an_operation_over_which_the_agent_ended_twice_is_not_tried_again() {
    if !is_root() {
        return;
    }
    let mut waiting = Waiting::new();
    let machine = waiting.machine();
    let shown = waiting.fleet.show(&waiting.waiting);
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("reads");
    let at_work = format!("{}\n{}\n", boot.trim(), shown.text("operation"));
    for crash in 1..=2 {
        // As an agent leaves it that ends at the gates.
        fs::write(machine.state.join("at-work"), &at_work).expect("writes");
        waiting.fleet.agents[0] = machine.start();
        until_connected(&waiting.fleet);
        if crash == 1 {
            assert_eq!(
                waiting.fleet.show(&waiting.waiting).text("state"),
                "accepted"
            );
            waiting.fleet.agents[0].kill();
        }
    }
    let ended = waiting.fleet.until(&waiting.waiting, "error");
    assert!(
        ended
            .text("message")
            .contains("the agent ended without warning 2 times"),
        "{ended:#?}"
    );
    waiting.unblock();
    waiting.fleet.until(&waiting.blocker, "failed");
    run_another(&waiting.fleet);
    assert_eq!(ran(&waiting.folder), 0);
    let crashes = machine.events();
    let crashes = crashes
        .iter()
        .filter(|entry| entry["event"] == "agent_crashed");
    assert_eq!(crashes.count(), 2);
}

#[test]
fn how_a_connection_fares_and_what_waits_for_a_machine_is_shown() {
    let mut fleet = without_gates("");
    let up = shown(&fleet);
    let link = &up["link"];
    assert!(link["rtt_us"].as_u64().is_some_and(|rtt| rtt > 0), "{up:#}");
    for bytes in ["sent_bytes", "received_bytes", "sent_packets"] {
        assert!(
            link[bytes].as_u64().is_some_and(|bytes| bytes > 0),
            "{up:#}"
        );
    }
    assert!(
        link["address"]
            .as_str()
            .is_some_and(|at| at.starts_with("127.0.0.1:"))
    );
    assert_eq!(up["waiting"]["operations"], 0);
    fleet.agents[0].stop();
    until_away(&fleet);
    let _job = fleet.detach(&script("#!/bin/sh\n:\n"));
    let away = until_shown(&fleet, "when it was last there is noted", |machine| {
        machine["last_seen"].as_str() > up["link"]["since"].as_str()
    });
    assert_eq!(away["link"], Value::Null);
    assert_eq!(away["waiting"]["operations"], 1);
    let text = fleet.sluice(&["machine", "show", "m1"]).stdout;
    assert!(
        text.contains("offline since") && text.contains("1 queued, the first since"),
        "{text}"
    );
}
