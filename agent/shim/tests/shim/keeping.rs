//! What is kept of the output, where, and at what cost, while a script writes and whoever is killed.

use std::io::Read;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sluice_shim::event::{End, Event, INLINE, LimitHit, Stream};
use sluice_shim::kept;

use crate::harness::{
    Machine, Report, collect, eventually, installed, root, run, spawn, spawn_from, spooled,
};

/// Writes so many lines of seven bytes, and one more when it may.
fn writes_and_waits(machine: &Machine, lines: u32) -> String {
    let go = machine.path().join("go");
    format!(
        "for ((i = 0; i < {lines}; i++)); do printf '%06d\\n' $i; done; until [ -e {} ]; do sleep 0.01; done; echo last",
        go.display()
    )
}

/// How far standard output is in the spool.
fn written(machine: &Machine) -> u64 {
    let ends = kept::ends(&machine.path().join("spool")).unwrap();
    ends.stdout.written
}

#[test]
fn output_is_in_the_spool_at_once_also_after_half_of_its_limit_and_beyond_it() {
    for lines in [80, 140, 500] {
        let machine = Machine::new();
        let mut spec = machine.script(&writes_and_waits(&machine, lines));
        spec.limits.output = 1000;
        let child = spawn(&spec);
        eventually("all of it is there", || {
            written(&machine) == u64::from(lines) * 7
        });
        std::fs::write(machine.path().join("go"), "").unwrap();
        assert_eq!(collect(child).outcome().end, End::Code(0));
    }
}

#[test]
fn a_shim_that_is_killed_leaves_what_the_script_wrote_up_to_then() {
    for lines in [80, 140, 500] {
        let machine = Machine::new();
        let mut spec = machine.script(&writes_and_waits(&machine, lines));
        spec.limits.output = 1000;
        let mut child = spawn(&spec);
        eventually("all of it is there", || {
            written(&machine) == u64::from(lines) * 7
        });
        let pid = i32::try_from(child.id()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        let ends = kept::ends(&spec.spool).unwrap();
        let (end, all) = (ends.stdout, u64::from(lines) * 7);
        assert_eq!(end.lost, all.saturating_sub(1000), "of {lines} lines");
        assert_eq!(end.written, all);
        let kept = Report::of_spool(&spec.spool, ends).stdout();
        assert!(kept.starts_with("000000\n"), "{kept}");
        assert!(kept.ends_with(&format!("{:06}\n", lines - 1)), "{kept}");
        assert_eq!(kept.len() as u64, all - end.lost);
    }
}

#[test]
fn little_of_the_output_goes_with_the_events_and_they_say_that_the_rest_is_in_the_spool() {
    let machine = Machine::new();
    let report = machine.run("head -c 300000 /dev/zero | tr '\\0' x; echo err >&2");
    let told: usize = report
        .events
        .iter()
        .map(|event| match event {
            Event::Output { bytes, .. } => bytes.len(),
            _ => 0,
        })
        .sum();
    assert!((1..=INLINE).contains(&told), "{told}");
    let after = report
        .events
        .iter()
        .skip_while(|event| **event != Event::Spooled)
        .skip(1);
    assert!(after.clone().count() > 0, "it is said");
    assert!(after.clone().all(|event| *event != Event::Spooled), "once");
    assert!(
        !after
            .clone()
            .any(|event| matches!(event, Event::Output { .. })),
        "and then nothing of it comes"
    );
    assert_eq!(report.stdout(), "x".repeat(300_000));
    assert_eq!(report.stderr(), "err\n");
    assert!(!spooled(&machine.path().join("spool")).contains(&Event::Spooled));
}

#[test]
fn a_shim_keeps_no_output_in_memory_whether_or_not_its_agent_reads() {
    let machine = Machine::new();
    let go = machine.path().join("go");
    let mut spec = machine.script(&format!(
        "head -c 100000000 /dev/zero; until [ -e {} ]; do sleep 0.01; done",
        go.display()
    ));
    spec.limits.output = 32 << 20;
    // Nobody reads what it says.
    let mut child = spawn(&spec);
    eventually("all of it was read", || written(&machine) == 100_000_000);
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let own = |key: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        let number = line.split_whitespace().nth(1).unwrap();
        number.parse().unwrap()
    };
    let peak = own("VmHWM:") - own("RssFile:");
    assert!(peak < 3 << 10, "the shim had {peak} KiB of its own");
    std::fs::write(go, "").unwrap();
    let mut bytes = Vec::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    child.wait().unwrap();
    let outcome = Report::read(&bytes).outcome().clone();
    assert_eq!(outcome.limit_hit, Some(LimitHit::Output));
    assert_eq!(outcome.output.stdout.lost, 100_000_000 - (32 << 20));
}

#[test]
fn a_spool_without_room_costs_output_and_not_the_outcome() {
    if !root("a file system of its own") {
        return;
    }
    let machine = Machine::new();
    let small = machine.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let mut spec = machine.script("head -c 3000000 /dev/zero | tr '\\0' x; echo late >&2; exit 4");
    spec.spool = small.join("spool");
    spec.limits.output = 16 << 20;
    let shell = format!(
        "exec unshare -m sh -c 'mount -t tmpfs -o size=1m none {} && exec \"$0\"' \"$0\"",
        small.display()
    );
    let report = collect(spawn_from(&shell, &spec));
    let outcome = report.outcome();
    assert_eq!((&outcome.end, outcome.limit_hit), (&End::Code(4), None));
    assert_eq!(outcome.output.stdout.written, 3_000_000);
    let [note] = report.notes()[..] else {
        panic!("{:?}", report.notes())
    };
    assert!(
        note.contains("the spool could not be written") && note.contains("No space left"),
        "{note}"
    );
    // The beginning came with the events.
    assert!(report.bytes(Stream::Stdout).len() <= INLINE);
}

#[test]
fn the_spool_of_a_script_that_runs_on_is_flushed_and_that_holds_up_nothing() {
    if !installed("/usr/bin/strace") {
        return;
    }
    let machine = Machine::new();
    let mut spec = machine.script(&writes_and_waits(&machine, 140));
    spec.limits.output = 1000;
    spec.limits.time = Duration::from_secs(60);
    let trace = machine.path().join("trace");
    // A disk that needs some seconds for each flush.
    let strace = format!(
        "exec /usr/bin/strace -f -y -qq -o {} -e trace=fsync -e inject=fsync:delay_enter=4s \"$0\"",
        trace.display()
    );
    let child = spawn_from(&strace, &spec);
    eventually("it is being flushed", || {
        let text = std::fs::read_to_string(&trace).unwrap_or_default();
        text.contains("/spool/events>")
    });
    let began = Instant::now();
    assert!(sluice_shim::spool::cancel(&spec.spool).unwrap());
    eventually("it ended", || {
        spooled(&spec.spool).last().is_some_and(Event::is_last)
    });
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(collect(child).outcome().canceled);
}

#[test]
fn output_at_its_limit_costs_no_more_than_its_two_files() {
    let machine = Machine::new();
    let mut spec = machine.script("head -c 100000 /dev/zero");
    spec.limits.output = 100_000;
    let report = run(&spec);
    assert_eq!(report.bytes(Stream::Stdout).len(), 100_000);
    let mut names: Vec<_> = std::fs::read_dir(&spec.spool)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["events", "lock"]);
}
