//! Scripts that do their worst: the machine, its agent and what runs beside them do not suffer. The shipped scanner would
//! stop some of them, so most machines here ask no gates.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use sluice_tests::{
    Fleet, Machine, TRACE_WHAT_IS_MADE, binaries, eventually, installed, is_root, kib, rounds,
    script,
};

use crate::isolation::{is_running, process, processes};

/// One machine whose owner asks for no gates, with `more` in its `agent.toml`.
pub(crate) fn without_gates(more: &str) -> Fleet {
    Fleet::builder()
        .without_gates()
        .policy(&format!("{more}[gates]\nstages = []\n"))
        .start()
}

/// Another operation runs as if nothing were.
fn expect_harmless_runs(fleet: &Fleet) {
    let outcome = fleet.run(&script("#!/bin/sh\necho beside\n"));
    outcome.expect("succeeded", "Script executed successfully");
    assert_eq!(outcome.text("stdout"), "beside\n");
}

/// What `/proc/<pid>/status` says of a living process.
fn status(pid: u32, key: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mut lines = text.lines();
    lines
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .map(|value| value.trim().to_owned())
}

#[test]
fn a_flood_of_output_costs_the_agent_no_memory_and_stops_nobody_else() {
    if !is_root() {
        return;
    }
    let fleet = without_gates("");
    let (agent, go) = (fleet.agents[0].pid(), fleet.folder().join("go"));
    let peak = || kib(agent, "VmHWM:");
    (0..3).for_each(|_| expect_harmless_runs(&fleet));
    let before = peak();
    let flood = format!(
        "#!/bin/sh\nyes as fast as it goes &\nuntil [ -e {} ]; do sleep 0.05; done\n",
        go.display()
    );
    let job = fleet.detach(&script(flood).as_user("nobody"));
    fleet.until(&job, "running");
    (0..3).for_each(|_| expect_harmless_runs(&fleet));
    fs::write(go, "").expect("writes");
    let ended = fleet.until(&job, "succeeded");
    let lost = ended.json["output_lost_bytes"].as_u64();
    assert_eq!(ended.text("limit_hit"), "output");
    assert!(
        lost > Some(10 << 20) && ended.text("stdout").len() < (1 << 20) + 100,
        "{lost:?}"
    );
    let grown = peak() - before;
    assert!(grown < 8 << 10, "the agent grew by {grown} KiB");
}

#[test]
fn a_fork_bomb_ends_at_its_time_limit_and_others_run_beside_it() {
    if !is_root() || !installed("/usr/bin/python3") {
        return;
    }
    let fleet = without_gates("[limits]\nprocesses = 64\ngrace = \"100ms\"\n");
    let bomb = "#!/usr/bin/python3\nimport os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n";
    let job = fleet.detach(&script(bomb).time_limit("8s"));
    fleet.until(&job, "running");
    expect_harmless_runs(&fleet);
    assert_eq!(
        fleet.show(&job).text("state"),
        "running",
        "it was over before the other one came"
    );
    let ended = fleet.until(&job, "timed-out");
    let uid = ended.json["context"]["uid"].as_u64();
    let of_the_bomb = |pid: &u32| {
        let found = fs::metadata(format!("/proc/{pid}"));
        found.is_ok_and(|found| Some(u64::from(found.uid())) == uid)
    };
    assert_eq!(processes().into_iter().filter(of_the_bomb).count(), 0);
    assert!(fleet.agents[0].machine.left_behind().is_empty());
    let notes = ended.json["notes"].to_string();
    if ended.text("containment") == "none" || notes.contains("processes are limited for each user")
    {
        return eprintln!("LEFT OUT: the counter of processes needs cgroups: {notes}");
    }
    assert_eq!(ended.text("limit_hit"), "processes", "{ended:#?}");
}

#[test]
fn memory_over_the_limit_is_named_and_the_agent_lives_on() {
    if !is_root() || !installed("/usr/bin/python3") {
        return;
    }
    let fleet = without_gates("");
    let glutton = "#!/usr/bin/python3\nkept = [b'x' * (1 << 20) for _ in range(300)]\n";
    let outcome = fleet.run(&script(glutton).option("--memory-limit", "64MiB"));
    let notes = outcome.json["notes"].to_string();
    if outcome.text("containment") == "none" || notes.contains("memory is limited for each process")
    {
        return eprintln!("LEFT OUT: the memory counter needs cgroups: {notes}");
    }
    outcome.expect("failed", "Script ended by signal KILL");
    assert_eq!(outcome.text("limit_hit"), "memory", "{outcome:#?}");
    assert!(status(fleet.agents[0].pid(), "State").is_some());
    expect_harmless_runs(&fleet);
}

#[test]
fn a_script_that_kills_all_it_may_reaches_neither_the_agent_nor_another_operation() {
    if !is_root() {
        return;
    }
    let fleet = without_gates("");
    let mark = "sleep 94.1357";
    let job = fleet.detach(&script(format!("#!/bin/sh\nexec {mark}\n")));
    eventually("it runs", || is_running(mark).then_some(()));
    let killer = "#!/bin/bash\nkill -KILL -1\nkill -KILL $PPID\necho after\n";
    let outcome = fleet.run(&script(killer));
    outcome.expect("succeeded", "Script executed successfully");
    assert_eq!(outcome.text("stdout"), "after\n");
    assert!(is_running(mark), "the other operation was killed");
    assert_eq!(fleet.sluice(&["job", "cancel", &job]).code, 0);
    fleet.until(&job, "canceled");
}

#[test]
fn the_values_of_a_job_are_in_no_command_line_and_in_no_environment_but_the_scripts() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::builder().start();
    let (mark, value) = ("sleep 94.2468", format!("value-{}", std::process::id()));
    let text = script(format!("#!/bin/sh\nexec {mark}\n"));
    let job = fleet.detach(
        &text
            .param("given", &value)
            .option("--env", &format!("GIVEN={value}")),
    );
    let pid = eventually("the script runs", || process(mark));
    let holding = |file: &str| {
        let holds = |pid: &u32| {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).contains(&value)
        };
        processes().into_iter().filter(holds).collect::<Vec<_>>()
    };
    let held = (holding("cmdline"), holding("environ"));
    assert_eq!(fleet.sluice(&["job", "cancel", &job]).code, 0);
    fleet.until(&job, "canceled");
    assert_eq!(held, (vec![], vec![pid]));
}

#[test]
fn while_jobs_come_and_go_their_values_are_in_the_environment_of_their_script_alone() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::builder().start();
    let (value, over) = (
        format!("hidden-{}", std::process::id()),
        AtomicBool::new(false),
    );
    let file = fleet.folder().join("value");
    fs::write(&file, &value).expect("writes");
    let job = script("#!/bin/sh\nsleep 0.2\n")
        .option("--param-file", &format!("given={}", file.display()));
    let look = || {
        let mut seen = BTreeSet::new();
        while !over.load(Ordering::Relaxed) {
            for pid in processes() {
                for what in ["cmdline", "environ"] {
                    let bytes = fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
                    if bytes
                        .windows(value.len())
                        .any(|part| part == value.as_bytes())
                    {
                        let owner = fs::metadata(format!("/proc/{pid}"));
                        seen.extend(owner.map(|owner| (what, u64::from(owner.uid()))));
                    }
                }
            }
        }
        seen
    };
    let (seen, uids) = std::thread::scope(|scope| {
        let poller = scope.spawn(look);
        let run = |_| fleet.run(&job).json["context"]["uid"].as_u64();
        let uids: BTreeSet<_> = (0..8).filter_map(run).collect();
        over.store(true, Ordering::Relaxed);
        (poller.join().expect("no panic"), uids)
    });
    assert_eq!(uids.len(), 8);
    let scripts: BTreeSet<_> = uids.into_iter().map(|uid| ("environ", uid)).collect();
    assert!(!seen.is_empty() && seen.is_subset(&scripts), "{seen:?}");
}

#[test]
fn every_file_that_an_agent_keeps_is_for_its_user_alone() {
    let fleet = Fleet::builder().start();
    let (file, mark) = (fleet.folder().join("data"), "sleep 94.3579");
    fs::write(&file, "attached\n").expect("writes");
    let text = script(format!("#!/bin/sh\necho output\nexec {mark}\n"));
    let job = fleet.detach(&text.option("--attach", file.to_str().expect("is text")));
    eventually("the script runs", || is_running(mark).then_some(()));
    let state = &fleet.agents[0].machine.state;
    let mut found = Vec::new();
    modes(state, &mut found);
    assert_eq!(fleet.sluice(&["job", "cancel", &job]).code, 0);
    fleet.until(&job, "canceled");
    let open: Vec<_> = found.iter().filter(|(_, mode)| mode & 0o077 != 0).collect();
    assert!(open.is_empty(), "{open:#?}");
    let top = fs::metadata(state).expect("is there").permissions().mode();
    assert_eq!(top & 0o077, 0);
    for kept in ["ledger.db", "identity/key.der", "blobs/", "spool/"] {
        let is = |(path, _): &(PathBuf, u32)| path.to_string_lossy().contains(kept);
        assert!(found.iter().any(is), "{kept} is not there: {found:#?}");
    }
}

#[test]
fn no_file_of_an_agent_is_open_to_others_for_a_moment() {
    if !is_root() || !installed("/usr/bin/strace") {
        return;
    }
    let fleet = without_gates("");
    // A folder in which nothing is made yet.
    let machine = Machine::prepare(fleet.folder(), "m2", "[gates]\nstages = []\n");
    let token = fleet.sluice(&["machine", "enroll-token"]).stdout;
    let (enrolling, running) = (fleet.folder().join("enrolling"), fleet.folder().join("run"));
    let [strace, words @ ..] = TRACE_WHAT_IS_MADE;
    let enrolled = Command::new(strace)
        .args(words)
        .arg("-o")
        .arg(&enrolling)
        .arg(binaries().join("sluice-agent"))
        .args(["enroll", token.trim(), "--name", "m2", "--state"])
        .arg(&machine.state)
        .status();
    assert!(enrolled.expect("strace is there").success());
    let mut agent = machine.start_traced(&running);
    let file = fleet.folder().join("data");
    fs::write(&file, "attached\n").expect("writes");
    let attached = script("#!/bin/sh\n:\n")
        .on("m2")
        .option("--attach", file.to_str().expect("is text"));
    fleet
        .run(&attached)
        .expect("succeeded", "Script executed successfully");
    agent.stop();
    let traces = [enrolling, running].map(|trace| fs::read_to_string(trace).expect("was traced"));
    let state = machine.state.display().to_string();
    let makes =
        |call: &&str| (call.contains("O_CREAT") || call.contains(" mk")) && call.contains(&state);
    let made: Vec<_> = traces
        .iter()
        .flat_map(|trace| trace.lines())
        .filter(makes)
        .collect();
    let open: Vec<_> = made.iter().filter(|call| mode(call) & 0o077 != 0).collect();
    assert!(
        open.is_empty() && made.len() > 20,
        "{open:#?} of {}",
        made.len()
    );
}

/// The mode that a line of strace(1) has as the last argument, also where another thread's line came between.
fn mode(call: &str) -> u32 {
    let ends = [") = ", " <unfinished"].map(|end| call.find(end));
    let arguments = &call[..ends.into_iter().flatten().min().expect("has an end")];
    let last = arguments.rsplit(", ").next().expect("has arguments");
    u32::from_str_radix(last, 8).expect("is a mode")
}

/// The files below a folder and their modes.
fn modes(folder: &Path, found: &mut Vec<(PathBuf, u32)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        // What an agent removes meanwhile is no file that it keeps.
        match fs::symlink_metadata(entry.path()) {
            Ok(meta) if meta.is_dir() => modes(&entry.path(), found),
            Ok(meta) => found.push((entry.path(), meta.permissions().mode())),
            Err(_) => {}
        }
    }
}

/// What a process has that it would share with scripts, if they were threads of it.
fn condition(pid: u32) -> (PathBuf, PathBuf, Vec<u8>, Option<String>) {
    let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).expect("reads");
    let environment = fs::read(format!("/proc/{pid}/environ")).expect("reads");
    (link("cwd"), link("root"), environment, status(pid, "Umask"))
}

#[test]
fn an_agent_is_after_many_operations_what_it_was_before() {
    if !installed("/usr/bin/python3") {
        return;
    }
    let fleet = without_gates("");
    let file = fleet.folder().join("data");
    fs::write(&file, "attached\n").expect("writes");
    let mixed = [
        script("#!/bin/sh\numask 0; cd /tmp; export A=b; exit 3\n"),
        script("#!/bin/sh\nexec sleep 5\n").time_limit("100ms"),
        script("#!/bin/sh\nsetsid sleep 93.1234 &\n"),
        script("#!/bin/sh\ncat $SLUICE_ATTACHMENTS/*\n")
            .option("--attach", file.to_str().expect("is text")),
        script("#!/bin/sh\n:\n").as_user("no-such-user"),
        script("#!/bin/bash -c\n:\n"),
        script("#!/usr/bin/python3\nimport os\nos.write(1, bytes(range(256)) * 8000)\n"),
    ];
    let agent = fleet.agents[0].pid();
    let run_all = || {
        for script in &mixed {
            assert!(fleet.run(script).json.is_object(), "{script:?}");
        }
    };
    run_all();
    let descriptors = || {
        let entries = fs::read_dir(format!("/proc/{agent}/fd")).expect("reads");
        entries.count()
    };
    let before = (condition(agent), descriptors());
    (0..rounds(5)).for_each(|_| run_all());
    assert_eq!(condition(agent), before.0);
    eventually("its descriptors are closed", || {
        (descriptors() <= before.1 + 4).then_some(())
    });
    let dead = |pid: &u32| {
        status(*pid, "PPid").is_some_and(|parent| parent == agent.to_string())
            && status(*pid, "State").is_some_and(|state| state.starts_with('Z'))
    };
    eventually("its children are reaped", || {
        (!processes().iter().any(dead)).then_some(())
    });
}
