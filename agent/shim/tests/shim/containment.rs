//! Nothing outlives its operation.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sluice_shim::event::{ContainmentKind, End, LimitHit, Stream};

use crate::harness::{
    Cgroups, Machine, collect, eventually, nobody, processes_with, root, run, spawn, spawn_from,
    spooled, where_cgroups_are,
};

/// A child in the background, one in its own session, a double fork and one under nohup; all ignore what they can. Each
/// is a `sleep` of a number that no other test uses. A stopped one is among them.
pub(crate) const TREE: &str = r#"
trap '' TERM HUP INT
sleep $1.1 &
setsid bash -c "trap '' TERM HUP; sleep $1.2; sleep $1.2" &
( ( setsid bash -c "trap '' TERM; sleep $1.3; sleep $1.3" & ) & )
nohup setsid bash -c "trap '' TERM HUP; sleep $1.4" >/dev/null 2>&1 &
bash -c 'kill -STOP $$; sleep '$1.5 &
while [ $(pgrep -f "sleep $1\.[1-4]" | wc -l) -lt 4 ]; do sleep 0.02; done
echo ready
"#;

/// A number of seconds that no other test, and no earlier run, sleeps for.
pub(crate) fn marker(test: u32) -> String {
    format!("7{}{test}", std::process::id())
}

/// Processes that an operation left behind. They are ended here, so that a test that fails leaves none.
pub(crate) fn left(mark: &str) -> Vec<i32> {
    let left = processes_with(mark);
    for pid in &left {
        let _gone = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    left
}

#[test]
fn the_time_limit_kills_a_tree_that_ignores_sigterm_and_left_its_session() {
    let machine = Machine::new();
    let mut spec = machine.script(&format!("{TREE}\nsleep $1.6; sleep $1.6"));
    spec.arguments = vec![marker(1)];
    spec.limits.time = Duration::from_millis(1500);
    let began = Instant::now();
    let report = run(&spec);
    assert_eq!(report.stdout(), "ready\n");
    assert_eq!(
        processes_with(&format!("{}.", marker(1))),
        Vec::<i32>::new()
    );
    assert!(report.outcome().timed_out);
    assert!(report.outcome().survivors_killed >= 5, "{report:?}");
    assert!(
        matches!(&report.outcome().end, End::Signal { name, .. } if name == "KILL"),
        "{report:?}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn what_a_script_leaves_behind_is_killed_and_counted() {
    let machine = Machine::new();
    let mut spec = machine.script(&format!("{TREE}\nexit 4"));
    spec.arguments = vec![marker(2)];
    let report = run(&spec);
    assert_eq!(
        processes_with(&format!("{}.", marker(2))),
        Vec::<i32>::new()
    );
    assert_eq!(report.outcome().end, End::Code(4));
    assert!(report.outcome().survivors_killed >= 5, "{report:?}");
    assert!(!report.outcome().timed_out);
}

#[test]
fn a_grandchild_that_holds_stdout_does_not_delay_the_result() {
    let began = Instant::now();
    let report = Machine::new().run(&format!("(setsid sleep {} &) ; echo done", marker(3)));
    assert!(
        began.elapsed() < Duration::from_millis(1500),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(report.stdout(), "done\n");
    assert_eq!(report.outcome().survivors_killed, 1);
}

#[test]
fn the_last_words_of_a_background_writer_are_kept() {
    let report = Machine::new().run("exec > >(sleep 0.1; cat); echo 'through a filter'");
    assert_eq!(report.stdout(), "through a filter\n");
    assert_eq!(report.outcome().survivors_killed, 0);
}

#[test]
fn a_script_that_obeys_sigterm_ends_by_itself_within_the_grace() {
    let machine = Machine::new();
    let mut spec =
        machine.script("trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.05; done");
    spec.limits.grace = Duration::from_secs(10);
    let child = spawn(&spec);
    eventually("the script runs", || {
        let events = spooled(&spec.spool);
        events
            .iter()
            .any(|e| matches!(e, sluice_shim::event::Event::Output { .. }))
    });
    let began = Instant::now();
    assert!(sluice_shim::spool::cancel(&spec.spool).unwrap());
    let report = collect(child);
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(
        (report.stdout().as_str(), &report.outcome().end),
        ("up\nbye\n", &End::Code(9))
    );
    assert!(report.outcome().canceled && !report.outcome().timed_out);
    assert_eq!(report.outcome().survivors_killed, 0);
}

#[test]
fn a_memory_limit_is_reported_from_the_kernels_counter() {
    if !root("the memory limit") {
        return;
    }
    let machine = Machine::new();
    let mut spec = machine.ephemeral("head -c 200000000 /dev/zero | tail > /dev/null; exit 5");
    spec.limits.memory = Some(32 * 1024 * 1024);
    let report = run(&spec);
    if report.started().containment == ContainmentKind::None {
        return eprintln!("LEFT OUT: the memory counter needs cgroups");
    }
    assert_eq!(
        report.outcome().limit_hit,
        Some(LimitHit::Memory),
        "{report:?}"
    );
    // A script that is killed without reaching its limit is not said to have reached it.
    let machine = Machine::new();
    let mut spec = machine.ephemeral("kill -KILL $$");
    spec.limits.memory = Some(32 * 1024 * 1024);
    assert_eq!(run(&spec).outcome().limit_hit, None);
}

#[test]
fn a_fork_bomb_is_held_by_the_process_limit_and_dies_at_the_time_limit() {
    if !root("the process limit") {
        return;
    }
    let machine = Machine::new();
    let mut spec = machine.ephemeral("b() { b | b & }; b; sleep 20");
    spec.limits.processes = Some(40);
    spec.limits.time = Duration::from_millis(500);
    let began = Instant::now();
    let report = run(&spec);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let uid = report.started().uid;
    let status =
        |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let left = processes_with("")
        .into_iter()
        .filter(|pid| status(*pid).contains(&format!("Uid:\t{uid}\t")))
        .count();
    assert_eq!(left, 0);
    if report.started().containment != ContainmentKind::None {
        assert_eq!(
            report.outcome().limit_hit,
            Some(LimitHit::Processes),
            "{:?}",
            report.outcome()
        );
    }
}

#[test]
fn a_script_that_kills_all_it_may_does_not_reach_the_shim() {
    if !root("kill -1 as another user") {
        return;
    }
    let machine = Machine::new();
    let report =
        run(&machine.ephemeral("echo before; kill -KILL -1; kill -KILL $PPID; echo after"));
    assert_eq!(report.stdout(), "before\nafter\n");
    assert_eq!(report.outcome().end, End::Code(0));
    assert!(
        report
            .bytes(Stream::Stderr)
            .windows(9)
            .any(|w| w == b"permitted"),
        "{}",
        report.stderr()
    );
}

#[test]
fn the_cgroups_are_gone_afterwards() {
    let machine = Machine::new();
    let mut spec = machine.script("cat /proc/self/cgroup");
    spec.limits.memory = Some(256 * 1024 * 1024);
    spec.limits.processes = Some(50);
    if root("cgroups as root") {
        spec.user = nobody();
    }
    let report = run(&spec);
    for event in &report.events {
        if let sluice_shim::event::Event::Prepared(prepared) = event {
            for group in &prepared.cgroups {
                // They are removed after the last event.
                eventually(&format!("{} is gone", group.display()), || !group.exists());
            }
            let inside = report
                .stdout()
                .lines()
                .filter(|line| {
                    prepared.cgroups.iter().any(|group| {
                        line.rsplit('/').next() == group.file_name().and_then(|n| n.to_str())
                    })
                })
                .count();
            assert_eq!(inside, prepared.cgroups.len(), "{}", report.stdout());
        }
    }
    assert_eq!(
        report
            .notes()
            .iter()
            .filter(|n| n.contains("cgroup"))
            .count(),
        0,
        "{:?}",
        report.notes()
    );
}

#[test]
fn a_real_time_signal_ends_a_script_like_any_other_and_the_rest_is_killed() {
    let mark = marker(5);
    let report = Machine::new().run(&format!(
        "setsid sleep {mark} & until grep -q sleep /proc/$!/comm; do :; done; kill -34 $$; sleep 5"
    ));
    assert_eq!(left(&mark), Vec::<i32>::new(), "{report:?}");
    assert!(
        matches!(&report.outcome().end, End::Signal { number: 34, name, .. } if name == "RTMIN"),
        "{report:?}"
    );
    assert_eq!(report.outcome().survivors_killed, 1);
}

#[test]
fn an_orphan_that_a_real_time_signal_ends_does_not_end_the_operation() {
    let report =
        Machine::new().run("(setsid bash -c 'kill -34 $$' &); sleep 0.4; echo done; exit 3");
    assert_eq!(
        (report.stdout().as_str(), &report.outcome().end),
        ("done\n", &End::Code(3)),
        "{report:?}"
    );
}

#[test]
fn a_process_in_namespaces_of_its_own_is_killed_too() {
    if !root("ephemeral users") {
        return;
    }
    let mark = marker(6);
    let machine = Machine::new();
    let report = run(&machine.ephemeral(&format!(
        "own='unshare --user --map-root-user --pid --fork'; $own true || {{ echo none; exit; }}
        setsid $own sleep {mark} &
        until pgrep -f '^sleep {mark}' >/dev/null; do sleep 0.02; done; echo up"
    )));
    if report.stdout() == "none\n" {
        return eprintln!("LEFT OUT: users may not make namespaces here");
    }
    assert_eq!(report.stdout(), "up\n");
    assert_eq!(left(&mark), Vec::<i32>::new(), "{report:?}");
    assert!(report.outcome().survivors_killed >= 1, "{report:?}");
}

/// A file system that takes no change: whoever makes one waits where no signal reaches it.
struct Frozen(PathBuf);

impl Frozen {
    fn make(machine: &Machine) -> Option<Self> {
        let frozen = Self(machine.path().join("frozen"));
        let image = machine.path().join("image");
        let made = system(&format!(
            "mkdir {at} && truncate -s 8M {image} && mkfs.ext4 -q -F {image} && mount -o loop {image} {at} && fsfreeze -f {at}",
            at = frozen.0.display(),
            image = image.display(),
        ));
        if !made {
            eprintln!("LEFT OUT: no file system can be mounted and frozen here");
        }
        made.then_some(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // Whoever waited goes on to its end, and then the place is free.
        let _left_to_the_machine = system(&format!(
            "fsfreeze -u {at}; for i in $(seq 100); do mountpoint -q {at} || exit 0; umount {at} && exit 0; sleep 0.05; done; umount -l {at}",
            at = self.0.display(),
        ));
    }
}

fn system(command: &str) -> bool {
    let status = Command::new("/bin/sh")
        .args(["-c", command])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stderr(std::process::Stdio::null())
        .status();
    status.unwrap().success()
}

#[test]
fn a_process_that_the_kernel_does_not_let_go_is_named_and_the_operation_ends_without_it() {
    if !root("freezing a file system") {
        return;
    }
    let machine = Machine::new();
    let Some(frozen) = Frozen::make(&machine) else {
        return;
    };
    let mut spec = machine.script(&format!("echo up; echo > {}/file", frozen.0.display()));
    spec.limits.time = Duration::from_millis(300);
    let began = Instant::now();
    let report = run(&spec);
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(
        (report.stdout().as_str(), &report.outcome().end),
        ("up\n", &End::Unkillable)
    );
    assert!(report.outcome().timed_out);
    let pid = report.started().pid.to_string();
    assert!(
        report.notes().iter().any(|note| note.contains(&pid)),
        "{:?}",
        report.notes()
    );
}

#[test]
fn a_script_opens_no_more_files_than_its_limit_and_cannot_raise_it() {
    let machine = Machine::new();
    let mut spec = machine.script(
        "ulimit -Sn; ulimit -Hn; exec 40</dev/null && echo open; exec 64</dev/null || echo refused; ulimit -n 65 || echo kept",
    );
    spec.limits.open_files = Some(64);
    if root("limits that may not be raised") {
        spec.user = nobody();
    }
    assert_eq!(run(&spec).stdout(), "64\n64\nopen\nrefused\nkept\n");
}

#[test]
fn a_script_that_fills_its_temporary_directory_runs_into_its_own_limit() {
    if !root("ephemeral users") {
        return;
    }
    let fill = |megabytes: u32| {
        let machine = Machine::new();
        let mut spec = machine.ephemeral(&format!(
            "head -c {megabytes}M /dev/zero > /tmp/fill && echo all"
        ));
        spec.limits.memory = Some(64 * 1024 * 1024);
        run(&spec)
    };
    let full = fill(300);
    if !full.started().confinement.private_tmp {
        return eprintln!("LEFT OUT: mounts are not allowed here: {:?}", full.notes());
    }
    assert_eq!(full.stdout(), "", "{full:?}");
    assert_eq!(fill(8).stdout(), "all\n", "the next one has its own");
}

#[test]
fn all_temporary_directories_together_hold_no_more_than_the_memory_limit_and_files_without_end_neither()
 {
    // Where nothing but the file system limits them.
    where_cgroups_are(Cgroups::Missing, || {
        let machine = Machine::new();
        let mut spec = machine.ephemeral(
            "for d in /tmp /var/tmp /dev/shm; do head -c 24M /dev/zero > $d/fill && echo all; done
            rm /*/fill /*/*/fill; i=0
            while : > /dev/shm/$i; do i=$((i + 1)); [ $i -lt 20000 ] || echo without end; done
            stat -c '%n %a' /tmp /var/tmp /dev/shm; ls -A /var/tmp",
        );
        spec.limits.memory = Some(64 * 1024 * 1024);
        let report = run(&spec);
        if !report.started().confinement.private_tmp {
            return eprintln!(
                "LEFT OUT: mounts are not allowed here: {:?}",
                report.notes()
            );
        }
        let modes = "/tmp 1777\n/var/tmp 1777\n/dev/shm 1777\n";
        assert_eq!(report.stdout(), format!("all\nall\n{modes}"), "{report:?}");
    });
}

#[test]
fn a_script_that_crashes_leaves_its_memory_to_nobody() {
    let machine = Machine::new();
    let report = machine.run("grep core /proc/self/limits; kill -SEGV $$");
    // One byte, and not none: a kernel that pipes cores to a program asks for nothing else.
    let words: Vec<_> = report
        .stdout()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    assert_eq!(words, ["Max", "core", "file", "size", "1", "1", "bytes"]);
    assert!(
        matches!(&report.outcome().end, End::Signal { name, core_dumped: false, .. } if name == "SEGV"),
        "{report:?}"
    );
}

#[test]
fn a_limit_above_one_that_may_not_be_raised_is_that_one() {
    let machine = Machine::new();
    let mut spec = machine.script("ulimit -Hn; ulimit -Sn");
    spec.limits.open_files = Some(4096);
    let unable = if root("giving a capability up") {
        "exec setpriv --bounding-set=-sys_resource --inh-caps=-all \"$0\""
    } else {
        "exec \"$0\""
    };
    let report = collect(spawn_from(&format!("ulimit -n 512; {unable}"), &spec));
    assert_eq!(report.stdout(), "512\n512\n", "{report:?}");
}
