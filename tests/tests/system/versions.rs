//! An agent that another version follows, or whose programs are replaced, while operations are open.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sluice_database::rusqlite::{Connection, OptionalExtension as _};
use sluice_tests::{Fleet, Machine, Outcome, binaries, eventually, is_root, script};

use crate::delivery::{patient, starts, traces};
use crate::hostile::without_gates;

/// The number of a format that no version has.
const OTHER: u8 = 0x7f;

fn ledger(machine: &Machine) -> Connection {
    let ledger = Connection::open(machine.state.join("ledger.db")).expect("opens");
    ledger
        .busy_timeout(Duration::from_secs(10))
        .expect("sets the time");
    ledger
}

/// The operation of a job.
fn operation_of(fleet: &Fleet, job: &str) -> String {
    fleet.show(job).text("operation")
}

/// Makes something that the ledger keeps of an operation look as if another version had written it.
fn rewrite(machine: &Machine, operation: &str, column: &str) {
    let change = format!(
        "UPDATE operations SET {column} = CAST(x'{OTHER:02x}' || substr({column}, 2) AS BLOB) WHERE id = ? AND {column} IS NOT NULL"
    );
    let changed = ledger(machine).execute(&change, [operation]);
    assert_eq!(changed.expect("changes"), 1, "{column}");
}

/// What the machine has on its record of what it could not read.
fn unreadable(machine: &Machine) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().expect("is text").to_owned();
    let events = machine.events().into_iter();
    events
        .filter(|entry| entry["event"] == "operation_unreadable")
        .map(|entry| (text(&entry["operation"]), text(&entry["details"]["what"])))
        .collect()
}

fn expect_whole(ended: &Outcome) {
    ended.expect("failed", "Script failed with exit code 3");
    assert_eq!(ended.text("stdout"), "before\nafter\n");
    assert_eq!(ended.text("stderr"), "trouble\n");
}

#[test]
fn what_another_version_kept_of_one_operation_is_answered_and_the_others_go_on() {
    if !is_root() {
        return;
    }
    let mut fleet = without_gates("[limits]\nparallel = 2\n");
    let folder = traces(&fleet);
    let [unread, other] = [(); 2].map(|()| fleet.detach(&patient(&folder)));
    eventually("both started", || (starts(&folder) == 2).then_some(()));
    let waiting = fleet.detach(&patient(&folder));
    fleet.until(&waiting, "accepted");
    fleet.agents[0].kill();
    let machine = fleet.agents[0].machine.clone();
    let [first, third] = [&unread, &waiting].map(|job| operation_of(&fleet, job));
    rewrite(&machine, &first, "passed");
    rewrite(&machine, &third, "message");
    fleet.agents[0].restart();
    // One that waited was not started, and is not.
    let ended = fleet.until(&waiting, "error");
    let message = ended.text("message");
    assert!(
        message.contains("another version of Sluice wrote it (format 127")
            && message.contains("nothing was started"),
        "{message}"
    );
    assert!(ended.json["started_at"].is_null() && ended.json["stdout"].is_null());
    fs::write(folder.join("go"), "").expect("writes");
    let ended = fleet.until(&unread, "failed");
    expect_whole(&ended);
    let notes = ended.json["notes"].to_string();
    assert!(notes.contains("what the gates said is lost"), "{notes}");
    let ended = fleet.until(&other, "failed");
    expect_whole(&ended);
    assert!(!ended.json["notes"].to_string().contains("cannot be read"));
    fleet
        .run(&script("#!/bin/sh\n:\n"))
        .expect("succeeded", "Script executed successfully");
    assert_eq!(starts(&folder), 2);
    let mut recorded = unreadable(&machine);
    recorded.sort();
    let mut expected = [(first, "start".to_owned()), (third, "operation".to_owned())];
    expected.sort();
    assert_eq!(recorded, expected);
}

#[test]
fn a_report_that_another_version_kept_is_made_again_from_the_spool() {
    if !is_root() {
        return;
    }
    let mut fleet = without_gates("");
    let folder = traces(&fleet);
    let job = fleet.detach(&patient(&folder));
    eventually("it started", || (starts(&folder) == 1).then_some(()));
    let operation = operation_of(&fleet, &job);
    let machine = fleet.agents[0].machine.clone();
    fleet.host.kill();
    fs::write(folder.join("go"), "").expect("writes");
    let connection = ledger(&machine);
    let query = "SELECT 1 FROM operations WHERE id = ? AND state = 'finished'";
    eventually("the report is on disk", || {
        let found = connection.query_row(query, [&operation], |_| Ok(()));
        found.optional().expect("reads")
    });
    fleet.agents[0].kill();
    rewrite(&machine, &operation, "report");
    fleet.host.kill_and_restart();
    fleet.agents[0].restart();
    let ended = fleet.until(&job, "failed");
    expect_whole(&ended);
    let notes = ended.json["notes"].to_string();
    assert!(
        notes.contains("the report that this machine kept"),
        "{notes}"
    );
    assert_eq!(unreadable(&machine), [(operation, "report".to_owned())]);
    assert_eq!(starts(&folder), 1);
}

#[test]
fn a_script_whose_shim_is_of_another_version_goes_on_and_its_end_is_unknown() {
    if !is_root() {
        return;
    }
    let mut fleet = without_gates("");
    let folder = traces(&fleet);
    let [old, own] = [(); 2].map(|()| fleet.detach(&patient(&folder)));
    eventually("both started", || (starts(&folder) == 2).then_some(()));
    fleet.agents[0].kill();
    let machine = fleet.agents[0].machine.clone();
    let spool = machine.state.join("spool").join(operation_of(&fleet, &old));
    // As if an older or newer shim had written it.
    let events = fs::File::options().write(true).open(spool.join("events"));
    let events = events.expect("opens");
    events.write_all_at(&[OTHER], 0).expect("writes");
    fleet.agents[0].restart();
    fleet
        .run(&script("#!/bin/sh\n:\n"))
        .expect("succeeded", "Script executed successfully");
    assert_eq!(
        fleet.show(&old).json["finished_at"],
        serde_json::Value::Null
    );
    fs::write(folder.join("go"), "").expect("writes");
    expect_whole(&fleet.until(&own, "failed"));
    let ended = fleet.until(&old, "interrupted");
    let unknown = "Execution error: interrupted, outcome unknown";
    ended.expect("interrupted", unknown);
    let notes = ended.json["notes"].to_string();
    assert!(
        notes.contains("it is of another version of Sluice (format 127"),
        "{notes}"
    );
    assert!(machine.left_behind().is_empty());
}

/// Processes that were started with this program.
fn processes_of(program: &Path) -> Vec<Pid> {
    let program = program.to_str().expect("is text");
    let entries = fs::read_dir("/proc").expect("reads");
    entries
        .flatten()
        .filter(|entry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).next() == Some(program.as_bytes())
        })
        .filter_map(|entry| Some(Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)))
        .collect()
}

#[test]
fn a_shim_program_that_is_replaced_while_the_agent_runs_breaks_nothing() {
    if !is_root() {
        return;
    }
    let mut fleet = without_gates("");
    let programs = fleet.folder().join("programs");
    fs::create_dir(&programs).expect("makes a folder");
    for program in ["sluice-agent", "sluice-shim", "sluice-gate-runner"] {
        fs::copy(binaries().join(program), programs.join(program)).expect("copies");
    }
    fleet.agents[0].stop();
    fleet.agents[0] = fleet.agents[0].machine.start_from(&programs);
    let harmless = script("#!/bin/sh\necho ran\n");
    assert_eq!(fleet.run(&harmless).text("stdout"), "ran\n");
    // As a package manager does it.
    let shim = programs.join("sluice-shim");
    let new = programs.join("sluice-shim.new");
    fs::write(&new, "another version").expect("writes");
    fs::rename(&new, &shim).expect("replaces");
    assert_eq!(fleet.run(&harmless).text("stdout"), "ran\n");
    let killed = processes_of(&shim);
    assert!(!killed.is_empty(), "nothing forks shims");
    for process in &killed {
        let _gone_by_itself = kill(*process, Signal::SIGKILL);
    }
    let outcome = fleet.run(&harmless);
    outcome.expect("succeeded", "Script executed successfully");
    assert_eq!(outcome.text("stdout"), "ran\n");
    assert!(!processes_of(&shim).iter().any(|one| killed.contains(one)));
}

#[test]
fn a_machine_that_was_restarted_says_interrupted_and_has_the_output() {
    if !is_root() {
        return;
    }
    let mut fleet = without_gates("");
    let folder = traces(&fleet);
    let text = format!(
        "#!/bin/sh\necho started >> {0}/starts\necho $PPID > {0}/shim\necho before\nexec sleep 60\n",
        folder.display()
    );
    let job = fleet.detach(&script(text).as_user("nobody"));
    eventually("its output is there", || {
        (fleet.show(&job).text("stdout") == "before\n").then_some(())
    });
    let operation = operation_of(&fleet, &job);
    fleet.agents[0].kill();
    let shim = fs::read_to_string(folder.join("shim")).expect("reads");
    let shim = Pid::from_raw(shim.trim().parse().expect("is a number"));
    kill(shim, Signal::SIGKILL).expect("sends a signal");
    // What the ledger has says that another kernel ran.
    let machine = &fleet.agents[0].machine;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("reads");
    let (boot, other) = (boot.trim(), "00000000-0000-0000-0000-000000000000");
    let changed = ledger(machine).execute(
        "UPDATE operations SET passed = CAST(replace(passed, CAST(?1 AS BLOB), CAST(?2 AS BLOB)) AS BLOB) WHERE id = ?3 AND instr(passed, CAST(?1 AS BLOB))",
        [boot, other, &operation],
    );
    assert_eq!(changed.expect("changes"), 1);
    fleet.agents[0].restart();
    let ended = fleet.until(&job, "interrupted");
    assert_eq!(ended.text("stdout"), "before\n");
    let notes = ended.json["notes"].to_string();
    assert!(
        notes.contains("the machine was restarted while this ran"),
        "{notes}"
    );
    assert_eq!(starts(&folder), 1);
}
