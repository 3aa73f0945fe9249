//! Output, exit codes, signals, failures.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use sluice_shim::event::{End, Event, LimitHit, Stage, Stream};
use sluice_shim::spec::Variable;

use crate::harness::{Machine, collect, eventually, rounds, run, spawn, spooled};

#[test]
fn the_shim_does_not_wait_for_output_that_somebody_else_may_have_read() {
    let machine = Machine::new();
    let report = machine.run(
        "for stream in 1 2; do own=$(readlink /proc/$$/fd/$stream)
           for fd in /proc/$PPID/fd/*; do
             [ \"$(readlink $fd)\" = \"$own\" ] && grep flags /proc/$PPID/fdinfo/${fd##*/}
           done
         done",
    );
    let flags: Vec<i32> = report
        .stdout()
        .lines()
        .filter_map(|line| i32::from_str_radix(line.split_whitespace().nth(1)?, 8).ok())
        .collect();
    assert_eq!(flags.len(), 2, "{report:?}");
    assert!(
        flags.iter().all(|flags| flags & libc::O_NONBLOCK != 0),
        "{flags:?}"
    );
}

#[test]
fn a_script_that_takes_its_own_output_away_runs_into_its_time_limit_all_the_same() {
    for _ in 0..3 {
        let machine = Machine::new();
        let mut spec = machine.script(
            "exec 9</proc/self/fd/1; cat <&9 >/dev/null & for i in {1..300}; do echo x; done; exec sleep 30",
        );
        spec.limits.time = Duration::from_millis(700);
        let started = Instant::now();
        let report = run(&spec);
        assert!(report.outcome().timed_out, "{report:?}");
        assert!(started.elapsed() < Duration::from_secs(10), "{report:?}");
    }
}

#[test]
fn both_streams_are_exact_and_apart() {
    let machine = Machine::new();
    let report = machine.run("printf 'out 1\\n'; printf 'err \\xff\\x00' >&2; printf 'out 2'");
    assert_eq!(report.stdout(), "out 1\nout 2");
    assert_eq!(report.bytes(Stream::Stderr), b"err \xff\0");
    let outcome = report.outcome();
    assert_eq!(outcome.end, End::Code(0));
    assert_eq!(
        (
            outcome.timed_out,
            outcome.canceled,
            outcome.limit_hit,
            outcome.survivors_killed
        ),
        (false, false, None, 0)
    );
    assert_eq!(report.notes(), Vec::<&str>::new());
}

#[test]
fn the_exit_code_is_the_scripts() {
    for code in [0, 1, 3, 126, 127, 255] {
        assert_eq!(
            Machine::new().run(&format!("exit {code}")).outcome().end,
            End::Code(code)
        );
    }
}

#[test]
fn a_signal_is_not_an_exit_code() {
    let report = Machine::new().run("kill -USR1 $$; sleep 5");
    let End::Signal {
        number,
        name,
        core_dumped,
    } = &report.outcome().end
    else {
        panic!("{report:?}")
    };
    assert_eq!((*number, name.as_str(), *core_dumped), (10, "USR1", false));
}

#[test]
fn output_is_passed_on_while_the_script_runs() {
    let machine = Machine::new();
    let child = spawn(&machine.script("echo first; while [ ! -e \"$GO\" ]; do sleep 0.01; done"));
    let spool = machine.path().join("spool");
    eventually("the first line is in the spool", || {
        let events = spooled(&spool);
        events
            .iter()
            .any(|e| matches!(e, Event::Output { bytes, .. } if bytes.as_slice() == b"first\n"))
    });
    assert!(sluice_shim::spool::cancel(&spool).unwrap());
    assert!(collect(child).outcome().canceled);
}

#[test]
fn an_interpreter_that_is_not_there_is_a_failure_and_no_exit_code() {
    let machine = Machine::new();
    let mut spec = machine.script("echo");
    spec.interpreter = "/usr/bin/no-such-interpreter".into();
    let report = run(&spec);
    let (stage, reason) = report.failure();
    assert_eq!(stage, Stage::Interpreter);
    assert!(
        reason.contains("/usr/bin/no-such-interpreter") && reason.contains("ENOENT"),
        "{reason}"
    );
    assert_eq!(std::fs::read_dir(machine.workspaces()).unwrap().count(), 0);
}

#[test]
fn output_over_the_limit_keeps_head_and_tail_and_counts_the_rest() {
    let machine = Machine::new();
    let mut spec = machine.script("for i in {100000..199999}; do echo $i; done; echo oops >&2");
    spec.limits.output = 1000;
    let report = run(&spec);
    let outcome = report.outcome();
    assert_eq!(outcome.limit_hit, Some(LimitHit::Output));
    let kept = report.stdout();
    assert!(
        kept.starts_with("100000\n") && kept.ends_with("199999\n"),
        "{kept}"
    );
    assert_eq!(report.stderr(), "oops\n");
    assert_eq!(kept.len() as u64 + outcome.output.stdout.lost, 700_000);
    assert_eq!(outcome.output.stderr.lost, 0);
}

#[test]
fn output_that_just_fits_is_complete() {
    let machine = Machine::new();
    let mut spec = machine.script("head -c 1000 /dev/zero | tr '\\0' x");
    spec.limits.output = 1000;
    let report = run(&spec);
    assert_eq!(report.stdout(), "x".repeat(1000));
    assert_eq!(report.outcome().limit_hit, None);
}

#[test]
fn a_flood_costs_a_bounded_amount() {
    let machine = Machine::new();
    let mut spec = machine.script("head -c 300000000 /dev/zero");
    spec.limits.output = 65536;
    let report = run(&spec);
    assert_eq!(report.bytes(Stream::Stdout).len(), 65536);
    assert_eq!(report.outcome().output.stdout.lost, 300_000_000 - 65536);
    let on_disk = machine.spooled_bytes();
    let counted = report.outcome().spooled;
    // All but the last event.
    assert!(counted <= on_disk && on_disk < counted + 1000);
    assert!(on_disk < 2 * 65536 + (1 << 20), "{on_disk}");
}

#[test]
fn a_script_that_closes_its_streams_still_has_a_time_limit_and_an_exit_code() {
    let machine = Machine::new();
    let mut spec = machine.script("exec >&- 2>&-; sleep 30");
    spec.limits.time = Duration::from_millis(200);
    assert!(run(&spec).outcome().timed_out);
    assert_eq!(
        Machine::new()
            .run("exec >&- 2>&-; sleep 0.2; exit 7")
            .outcome()
            .end,
        End::Code(7)
    );
}

#[test]
fn a_write_beyond_the_file_size_limit_is_named() {
    let machine = Machine::new();
    let mut spec = machine.script(&format!(
        "exec head -c 100000 /dev/zero > {}/big",
        machine.path().display()
    ));
    spec.limits.file_size = Some(4096);
    let report = run(&spec);
    assert_eq!(
        report.outcome().limit_hit,
        Some(LimitHit::FileSize),
        "{report:?}"
    );
}

#[test]
fn every_signal_that_ends_a_script_has_its_number_and_name() {
    // Bash ignores SIGQUIT whatever one does; the others that are left out end nobody.
    let left_out = [3, 17, 18, 19, 20, 21, 22, 23, 28];
    for number in (1..=31).filter(|number| !left_out.contains(number)) {
        let report = Machine::new().run(&format!(
            "kill -l {number}; kill -{number} $$; exec sleep 5"
        ));
        let End::Signal {
            number: reported,
            name,
            ..
        } = &report.outcome().end
        else {
            panic!("signal {number}: {report:?}")
        };
        assert_eq!(
            (*reported, format!("{name}\n")),
            (number, report.stdout()),
            "{report:?}"
        );
    }
}

#[test]
fn two_floods_without_a_line_end_stay_apart_and_cost_a_bounded_amount() {
    const EACH: u64 = 100_000_000;
    let machine = Machine::new();
    let flood = format!("head -c {EACH} /dev/zero | tr '\\0'");
    let mut spec = machine.script(&format!("{flood} o & {flood} e >&2; wait"));
    spec.limits.output = 65536;
    let report = run(&spec);
    let (out, err) = (report.bytes(Stream::Stdout), report.bytes(Stream::Stderr));
    assert!(out.iter().all(|byte| *byte == b'o') && err.iter().all(|byte| *byte == b'e'));
    assert_eq!(out.len() + err.len(), 65536);
    let ends = report.outcome().output;
    assert_eq!(
        (
            out.len() as u64 + ends.stdout.lost,
            err.len() as u64 + ends.stderr.lost
        ),
        (EACH, EACH)
    );
    let on_disk = machine.spooled_bytes();
    let counted = report.outcome().spooled;
    // All but the last event.
    assert!(counted <= on_disk && on_disk < counted + 1000);
    assert!(on_disk < 2 * 65536 + (1 << 20), "{on_disk}");
}

#[test]
fn a_variable_that_the_kernel_does_not_take_is_a_failure_and_never_cut() {
    let with = |size: usize| {
        let machine = Machine::new();
        let mut spec = machine.script("echo ${#BIG}");
        spec.environment.push(Variable {
            name: "BIG".into(),
            value: "x".repeat(size),
        });
        run(&spec)
    };
    assert_eq!(with(100_000).stdout(), "100000\n");
    // Of one text it takes 32 pages (MAX_ARG_STRLEN, execve(2)), of all a quarter of the stack's limit.
    let report = with(8 << 20);
    let (stage, reason) = report.failure();
    assert_eq!(stage, Stage::Interpreter);
    assert!(reason.contains("too large for the kernel"), "{reason}");
    let started = |event: &Event| matches!(event, Event::Started(_));
    assert!(!report.events.iter().any(started), "{report:?}");
}

#[test]
fn operations_that_start_at_the_same_time_all_run() {
    let machine = Machine::new();
    std::fs::create_dir(machine.workspaces()).unwrap();
    std::fs::set_permissions(machine.workspaces(), PermissionsExt::from_mode(0o711)).unwrap();
    let run_some = &|thread: usize| {
        let says_its_name = |round: &usize| {
            let mut spec = machine.script("echo $0");
            spec.operation = format!("many-{thread}-{round}");
            spec.spool = machine.path().join(format!("spool-{thread}-{round}"));
            run(&spec).stdout().contains(&spec.operation)
        };
        (0..rounds(25)).filter(says_its_name).count()
    };
    let ran: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| scope.spawn(move || run_some(thread)))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(ran, 8 * rounds(25));
    assert_eq!(std::fs::read_dir(machine.workspaces()).unwrap().count(), 0);
}
