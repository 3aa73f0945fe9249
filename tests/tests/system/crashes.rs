//! At most one start, always an answer: agents, shims and hosts that are killed at each call by which something is put on disk.
//!
//! A process ends at its first call of a kind, the next time at its second, until it does not come so far any more: a call that
//! is new is tried by being there. Of calls that are many some are tried, and all of them with `SLUICE_ROUNDS=40`.

mod at_size;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use sluice_tests::{
    Fleet, LastCall, Machine, Outcome, Output, Script, eventually, installed, is_root, rounds,
    script,
};

use crate::delivery::traces;
use crate::hostile::without_gates;

/// A kind of call, and that every so-manieth of them is tried.
#[derive(Debug, Clone, Copy)]
struct Calls {
    name: &'static str,
    every: usize,
    /// Shims make some too: then one of those may be killed as well.
    by_shims: bool,
}

const fn calls(name: &'static str, every: usize) -> Calls {
    Calls {
        name,
        every,
        by_shims: false,
    }
}

const fn by_shims(name: &'static str, every: usize) -> Calls {
    Calls {
        by_shims: true,
        ..calls(name, every)
    }
}

/// What each machine is for, so that they take about as long as each other.
const ON_MACHINES: [&[Calls]; 4] = [
    &[calls("fdatasync", 1), by_shims("renameat2", 1)],
    &[calls("pwrite64", 6), by_shims("rename", 1)],
    &[
        by_shims("fsync", 1),
        by_shims("unlink", 1),
        by_shims("renameat", 1),
    ],
    &[
        by_shims("unlinkat", 2),
        by_shims("mkdir", 3),
        by_shims("ftruncate", 1),
    ],
];

const ON_THE_HOST: [Calls; 4] = [
    calls("fdatasync", 1),
    calls("fsync", 1),
    calls("unlink", 1),
    calls("pwrite64", 12),
];

/// After so many calls at which nothing ended there are no more.
const QUIET: u32 = 2;

impl Calls {
    /// The calls to try, as long as there are any.
    fn each(self) -> impl Iterator<Item = LastCall> {
        let every = self.every.div_ceil(rounds(1));
        (1..).step_by(every).map(move |number| LastCall {
            name: self.name,
            number,
        })
    }
}

/// Leaves a line each time it is started, in a file for it alone, and ends.
fn counted(file: &Path) -> Script {
    script(format!(
        "#!/bin/sh\necho started >> {}\necho done\n",
        file.display()
    ))
    .as_user("nobody")
}

fn lines(file: &Path) -> usize {
    fs::read_to_string(file).unwrap_or_default().lines().count()
}

fn has_ended(operation: &Outcome) -> bool {
    ["succeeded", "failed", "error", "interrupted", "blocked"]
        .contains(&operation.text("state").as_str())
}

fn ended(fleet: &Fleet, job: &str) -> Outcome {
    eventually("the operation ends", || {
        Some(fleet.show(job)).filter(has_ended)
    })
}

/// What must have come of an operation over which somebody was killed. Where the start is on disk and the shim has not got to
/// it, that is an error, or nobody knows better than `interrupted`; where a shim was killed over its script, likewise.
fn expect_once(ended: &Outcome, file: &Path, by_shims: bool, call: LastCall) {
    match (ended.text("state").as_str(), lines(file)) {
        ("succeeded", 1) => assert_eq!(ended.text("stdout"), "done\n", "{call:?}"),
        ("interrupted" | "error", 0) => {}
        ("interrupted", 1) if by_shims => {}
        other => panic!("{call:?}: {other:?}: {ended:#?}"),
    }
}

/// How many calls were tried, and how many ended a program.
#[derive(Debug, Default, Clone, Copy)]
struct Tried {
    calls: usize,
    kills: usize,
    succeeded: usize,
}

/// Kills the agent of a machine, which does not run, at each of these calls, with one operation each time.
fn try_machine(fleet: &Fleet, machine: &Machine, kinds: &[Calls], folder: &Path) -> Tried {
    let mut tried = Tried::default();
    for kind in kinds {
        let mut quiet = 0;
        for call in kind.each() {
            let file = folder.join(format!("{}-{}-{}", machine.name, call.name, call.number));
            // It waits for the machine: the start of the agent is tried too.
            let job = fleet.detach(&counted(&file).on(&machine.name));
            let mut agent = machine.start_until(call);
            eventually("it is killed, or all is done", || {
                let shown = fleet.show(&job);
                let spool = machine.state.join("spool").join(shown.text("operation"));
                let is_done = agent.has_ended() || has_ended(&shown) && !spool.exists();
                is_done.then_some(())
            });
            let was_killed = agent.has_ended();
            agent.kill();
            let mut agent = machine.start();
            let operation = ended(fleet, &job);
            expect_once(&operation, &file, kind.by_shims, call);
            eventually("nothing is left of it", || {
                machine.left_behind().is_empty().then_some(())
            });
            agent.stop();
            let has_succeeded = operation.text("state") == "succeeded";
            tried.calls += 1;
            tried.kills += usize::from(was_killed);
            tried.succeeded += usize::from(has_succeeded);
            // A spare shim may have been killed, which nobody notices.
            quiet = if was_killed || !has_succeeded {
                0
            } else {
                quiet + 1
            };
            if quiet == QUIET {
                break;
            }
        }
    }
    let verified = Output::of(&machine.audit("verify"));
    assert_eq!(verified.code, 0, "{verified:?}");
    tried
}

#[test]
fn an_agent_that_is_killed_at_any_call_that_puts_something_on_disk_starts_nothing_twice_and_answers()
 {
    if !is_root() || !installed("/usr/bin/strace") {
        return;
    }
    let mut fleet = without_gates("");
    for number in 2..=ON_MACHINES.len() {
        fleet.add_machine(&format!("m{number}"), "[gates]\nstages = []\n");
    }
    let folder = traces(&fleet);
    let mut machines = Vec::new();
    for mut agent in std::mem::take(&mut fleet.agents) {
        agent.stop();
        machines.push(agent.machine.clone());
    }
    let (fleet, folder) = (&fleet, &folder);
    let tried: Vec<Tried> = thread::scope(|scope| {
        let threads: Vec<_> = machines
            .iter()
            .zip(ON_MACHINES)
            .map(|(machine, kinds)| scope.spawn(move || try_machine(fleet, machine, kinds, folder)))
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.collect::<Result<_, _>>().expect("all hold")
    });
    let verified = fleet.sluice(&["audit", "verify"]);
    assert_eq!(verified.code, 0, "{verified:?}");
    println!("{tried:?}");
    let sum = |count: fn(&Tried) -> usize| tried.iter().map(count).sum::<usize>();
    // It would hold too if nothing had been killed, or nothing had run.
    assert!(sum(|it| it.kills) >= 8 && sum(|it| it.succeeded) >= 8);
}

/// Asks the host for a job under a key; none where it is gone before it has answered. Asked again, it is the same one.
fn ask(fleet: &Fleet, script: &Path, options: &[&str], key: &str) -> Option<String> {
    let asked = fleet
        .command()
        .arg("run")
        .arg(script)
        .args(options)
        .args(["--detach", "--idempotency-key", key])
        .output();
    let output = Output::of(&asked.expect("sluice was built"));
    (output.code == 0).then(|| output.stdout.trim().to_owned())
}

/// Asks for one operation that counts its starts in a file.
fn ask_for_one(fleet: &Fleet, file: &Path, call: LastCall) -> Option<String> {
    let path: PathBuf = file.with_extension("sh");
    fs::write(&path, counted(file).text()).expect("writes");
    let key = format!("{}-{}", call.name, call.number);
    ask(fleet, &path, &["--on", "m1", "--as", "nobody"], &key)
}

#[test]
fn a_host_that_is_killed_at_any_call_that_puts_something_on_disk_loses_nothing_it_has_answered() {
    if !is_root() || !installed("/usr/bin/strace") {
        return;
    }
    let mut fleet = without_gates("");
    let folder = traces(&fleet);
    let mut tried = Tried::default();
    for kind in ON_THE_HOST {
        for call in kind.each() {
            let file = folder.join(format!("{}-{}", call.name, call.number));
            // It would take half a minute to find out that the host is another.
            fleet.agents[0].kill();
            let is_up = fleet.host.kill_and_restart_until(call);
            let agent = fleet.agents[0].machine.start();
            fleet.agents[0] = agent;
            let answered = is_up.then(|| ask_for_one(&fleet, &file, call)).flatten();
            eventually("it is killed, or the operation ends", || {
                let shown = answered.as_ref().and_then(|job| fleet.try_show(job));
                let is_over = fleet.host.has_ended() || shown.as_ref().is_some_and(has_ended);
                is_over.then_some(())
            });
            let was_killed = fleet.host.has_ended();
            fleet.host.kill_and_restart();
            fleet.agents[0].restart();
            let job = ask_for_one(&fleet, &file, call).expect("is answered");
            assert!(answered.is_none_or(|answered| answered == job), "{call:?}");
            let operation = ended(&fleet, &job);
            expect_once(&operation, &file, kind.by_shims, call);
            tried.calls += 1;
            tried.kills += usize::from(was_killed);
            tried.succeeded += usize::from(operation.text("state") == "succeeded");
            if !was_killed {
                break;
            }
        }
    }
    let verified = fleet.sluice(&["audit", "verify"]);
    assert_eq!(verified.code, 0, "{verified:?}");
    println!("{tried:?}");
    assert!(tried.kills >= 6 && tried.succeeded >= 6);
}
