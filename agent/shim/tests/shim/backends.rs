//! What holds an operation together where the machine offers something else than usual, and where its shim is.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use sluice_shim::event::{ContainmentKind, End, LimitHit};
use sluice_shim::{Controller, Found, TRY_OUT, Whereabouts, order, spool};

use crate::confinement::{without, without_while};
use crate::containment::{TREE, left, marker};
use crate::harness::{
    CGROUP, Cgroups, Group, Machine, Report, collect, eventually, installed, nobody,
    processes_with, root, run, spawn, spawn_from, where_cgroups_are,
};

/// Prints where the shim is in the unified hierarchy, then where the script is.
const WHERE: &str = "sed -n 's/^0:://p' /proc/$PPID/cgroup /proc/self/cgroup\n";

/// The groups that [`WHERE`] printed.
fn whereabouts(report: &Report) -> [String; 2] {
    let lines: Vec<_> = report.stdout().lines().map(str::to_owned).collect();
    lines.try_into().unwrap_or_else(|_| panic!("{report:?}"))
}

fn try_out() -> Found {
    let output = Command::new(env!("CARGO_BIN_EXE_sluice-shim"))
        .arg(TRY_OUT)
        .output()
        .unwrap();
    Found::from_bytes(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// What no controller limits is noted, and nothing else is.
fn assert_notes_tell(report: &Report, found: &Found) {
    let notes = report.notes().join("\n");
    for (controller, begin) in [
        (Controller::Memory, "memory is limited for each process"),
        (Controller::Processes, "processes are limited for each user"),
        (
            Controller::Cpu,
            "processor time is limited for each process",
        ),
    ] {
        let limited = found.limits.contains(&controller);
        assert_eq!(notes.contains(begin), !limited, "{found:?}: {notes}");
    }
}

#[test]
fn what_is_tried_beforehand_is_what_an_operation_has() {
    let compare = || {
        let found = try_out();
        let machine = Machine::new();
        let mut spec = machine.script(":");
        (spec.limits.memory, spec.limits.processes) = (Some(256 << 20), Some(50));
        spec.limits.cpu_percent = Some(100);
        let report = run(&spec);
        assert_eq!(report.started().containment, found.kind, "{report:?}");
        assert_notes_tell(&report, &found);
        found
    };
    compare();
    where_cgroups_are(Cgroups::Missing, || {
        let found = compare();
        assert_eq!((found.kind, found.limits), (ContainmentKind::None, vec![]));
    });
    where_cgroups_are(Cgroups::Unified, || {
        assert_eq!(compare().kind, ContainmentKind::CgroupV2);
    });
}

#[test]
fn in_a_unified_hierarchy_the_script_is_in_its_group_which_is_gone_afterwards() {
    where_cgroups_are(Cgroups::Unified, || {
        let mark = marker(11);
        let machine = Machine::new();
        let report = run(&machine.script(&format!("{WHERE} setsid sleep {mark} & :")));
        assert_eq!(report.started().containment, ContainmentKind::CgroupV2);
        let [group] = report.cgroups() else {
            panic!("{report:?}")
        };
        assert_eq!(
            Path::new(CGROUP).join(&whereabouts(&report)[1][1..]),
            *group
        );
        assert_eq!(left(&mark), Vec::<i32>::new(), "{report:?}");
        assert_eq!(report.outcome().survivors_killed, 1);
        eventually("its group is gone", || !group.exists());
    });
}

#[test]
fn in_a_unified_hierarchy_what_a_killed_shim_left_is_found_by_its_group() {
    where_cgroups_are(Cgroups::Unified, || {
        let mark = marker(12);
        let machine = Machine::new();
        let mut spec = machine.script(&format!("(setsid sleep {mark} &); sleep {mark}"));
        spec.user = nobody();
        let mut shim = spawn(&spec);
        eventually("it is up", || processes_with(&mark).len() == 2);
        shim.kill().unwrap();
        shim.wait().unwrap();
        assert_ne!(processes_with(&mark), Vec::<i32>::new());
        let notes = spool::recover(&spec.spool, &spec.workspace_base, &spec.operation).unwrap();
        assert_eq!((left(&mark), notes), (vec![], vec![]));
    });
}

#[test]
fn groups_that_a_script_of_root_made_in_its_own_are_gone_with_it() {
    where_cgroups_are(Cgroups::Unified, || {
        let mark = marker(17);
        let machine = Machine::new();
        let report = run(&machine.script(&format!(
            "own={CGROUP}$(sed -n 's/^0:://p' /proc/self/cgroup)
            mkdir -p $own/inner/most
            setsid sh -c \"echo \\$\\$ > $own/inner/most/cgroup.procs; exec sleep {mark}\" &
            until grep -q . $own/inner/most/cgroup.procs; do :; done"
        )));
        assert_eq!(report.outcome().end, End::Code(0), "{report:?}");
        let [group] = report.cgroups() else {
            panic!("{report:?}")
        };
        assert_eq!(left(&mark), Vec::<i32>::new(), "{report:?}");
        assert_eq!(report.outcome().survivors_killed, 1);
        eventually("its group is gone", || !group.exists());
    });
}

#[test]
fn where_clone3_is_refused_the_script_enters_its_group_by_itself() {
    where_cgroups_are(Cgroups::Unified, || {
        let machine = Machine::new();
        let spec = machine.script(WHERE);
        let report = without(&[libc::SYS_clone3], libc::ENOSYS, &spec);
        assert_eq!(report.started().containment, ContainmentKind::CgroupV2);
        assert!(report.cgroups()[0].ends_with(&whereabouts(&report)[1][1..]));
    });
}

/// A shim that waits for an operation.
fn spare(machine: &Machine) -> std::process::Child {
    Command::new(env!("CARGO_BIN_EXE_sluice-shim"))
        .arg(machine.path())
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Whether a shim's group is there.
fn has_group(shim: &std::process::Child) -> bool {
    let name = format!("shim-{}-", shim.id());
    let ours = std::fs::read_dir(Path::new(CGROUP).join("sluice"));
    let mut names = ours
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name());
    names.any(|entry| entry.to_string_lossy().starts_with(&name))
}

/// Ends a process's child, and says whether it has come to that.
fn end_child_of(parent: u32) -> bool {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let Some(child) = children.ok().and_then(|text| text.trim().parse().ok()) else {
        return false;
    };
    let kill = nix::sys::signal::Signal::SIGKILL;
    let _ended = nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), kill);
    let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
    stat.contains(") Z ")
}

#[test]
fn a_script_that_its_group_does_not_take_is_said_to_be_in_none() {
    where_cgroups_are(Cgroups::Unified, || {
        let machine = Machine::new();
        let spec = machine.script(":");
        let mut shim = without_while(&[libc::SYS_clone3], libc::ENOSYS, || spare(&machine));
        eventually("it has made its group", || has_group(&shim));
        // The process that waits in the group is gone, and the one that is forked in its place comes too late.
        eventually("a process waits", || end_child_of(shim.id()));
        // Whoever opens a group's file for writing from here on is refused.
        let (none, read_only) = (None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_BIND);
        mount(none, CGROUP, none, read_only | MsFlags::MS_RDONLY, none).unwrap();
        let mut stdin = shim.stdin.take().unwrap();
        stdin.write_all(&order::describe(&spec)).unwrap();
        stdin.write_all(order::go()).unwrap();
        drop(stdin);
        let report = collect(shim);
        mount(none, CGROUP, none, read_only, none).unwrap();
        assert_eq!(report.started().containment, ContainmentKind::None);
        assert!(
            report
                .notes()
                .join("")
                .contains("did not let the script into its cgroup")
        );
    });
}

#[test]
fn a_group_that_takes_no_process_is_not_used() {
    where_cgroups_are(Cgroups::Unified, || {
        let group = Group::make("threads");
        let threads = group.0.join("threads");
        std::fs::create_dir(&threads).unwrap();
        std::fs::write(threads.join("cgroup.type"), "threaded").unwrap();
        let machine = Machine::new();
        let inside = format!("echo $$ > {}/cgroup.procs; exec \"$0\"", group.0.display());
        let report = collect(spawn_from(&inside, &machine.script(WHERE)));
        if whereabouts(&report)[0] != group.name() {
            return eprintln!("LEFT OUT: systemd gave the shim a scope: {report:?}");
        }
        assert_eq!(report.started().containment, ContainmentKind::None);
        assert_eq!(report.cgroups(), Vec::<std::path::PathBuf>::new());
        assert_eq!(whereabouts(&report)[1], group.name());
    });
}

#[test]
fn a_shim_leaves_the_agents_leaf_for_a_group_beside_it() {
    where_cgroups_are(Cgroups::Unified, || {
        let group = Group::make("leaf");
        let leaf = group.0.join("sluice/agent");
        std::fs::create_dir_all(&leaf).unwrap();
        let machine = Machine::new();
        let inside = format!("echo $$ > {}/cgroup.procs; exec \"$0\"", leaf.display());
        let report = collect(spawn_from(&inside, &machine.script(WHERE)));
        let [shim, script] = whereabouts(&report);
        if shim.ends_with(".scope/shim") {
            return eprintln!("LEFT OUT: systemd gave the shim a scope: {report:?}");
        }
        assert_eq!(shim, format!("{}/sluice/shims", group.name()));
        assert!(
            script.starts_with(&format!("{}/sluice/shim-", group.name())),
            "{script}"
        );
    });
}

/// What systemd does when it is asked for a scope over a bus: it makes a group and moves who asked into it.
fn play_systemd(bus: &Path) -> std::thread::JoinHandle<std::path::PathBuf> {
    let listener = UnixListener::bind(bus).unwrap();
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let asking = getsockopt(&client, PeerCredentials).unwrap().pid();
        let mut heard = Vec::new();
        // Until it has said this.
        let mut until = |client: &mut UnixStream, words: &[u8]| {
            while !heard.windows(words.len()).any(|part| part == words) {
                let mut buffer = [0; 4096];
                let length = client.read(&mut buffer).unwrap();
                assert_ne!(length, 0, "it has gone");
                heard.extend_from_slice(&buffer[..length]);
            }
            heard.clone()
        };
        let returned = |serial: u8| {
            let fields = [5, 1, b'u', 0, serial, 0, 0, 0];
            [
                &[b'l', 2, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0],
                &fields[..],
            ]
            .concat()
        };
        until(&mut client, b"\r\n");
        client.write_all(b"OK 0\r\n").unwrap();
        until(&mut client, b"Hello\0");
        client.write_all(&returned(1)).unwrap();
        let heard = until(&mut client, b"inactive-or-failed\0");
        let text = String::from_utf8_lossy(&heard).into_owned();
        let name = text
            .split('\0')
            .find(|part| part.ends_with(".scope"))
            .unwrap();
        let scope = Path::new(CGROUP).join("sluice.slice").join(name);
        std::fs::create_dir_all(&scope).unwrap();
        client.write_all(&returned(2)).unwrap();
        std::fs::write(scope.join("cgroup.procs"), asking.to_string()).unwrap();
        until(&mut client, b"Ping\0");
        client.write_all(&returned(3)).unwrap();
        scope
    })
}

/// Runs a test where systemd seems to run the machine, with a place for its bus.
fn under_systemd(test: impl FnOnce(&Path) + Send) {
    where_cgroups_are(Cgroups::Unified, || {
        let none = None::<&str>;
        mount(none, "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        std::fs::create_dir_all("/run/systemd/system").unwrap();
        std::fs::create_dir_all("/run/dbus").unwrap();
        test(Path::new("/run/dbus/system_bus_socket"));
    });
}

#[test]
fn under_systemd_a_shim_gets_a_scope_of_its_own_and_the_script_a_group_in_it() {
    under_systemd(|bus| {
        let systemd = play_systemd(bus);
        let mark = marker(16);
        let machine = Machine::new();
        let mut spec = machine.script(&format!("{WHERE} (setsid sleep {mark} &); sleep {mark}"));
        spec.user = nobody();
        let mut shim = spawn(&spec);
        eventually("it is up", || processes_with(&mark).len() == 2);
        let scope = systemd.join().unwrap();
        let kept = Report::so_far(&spec.spool);
        let inside = scope.strip_prefix(CGROUP).unwrap().display();
        assert_eq!(
            whereabouts(&kept),
            [format!("/{inside}/shim"), format!("/{inside}/job")]
        );
        assert_eq!(kept.started().containment, ContainmentKind::CgroupV2);
        assert_eq!(kept.notes(), Vec::<&str>::new());
        // What is left in it is found there.
        shim.kill().unwrap();
        shim.wait().unwrap();
        let notes = spool::recover(&spec.spool, &spec.workspace_base, &spec.operation).unwrap();
        assert_eq!((left(&mark), notes), (vec![], vec![]));
        assert!(!scope.join("job").exists());
        for group in [&scope.join("shim"), &scope] {
            std::fs::remove_dir(group).unwrap();
        }
        let _other_tests_may_have_theirs = std::fs::remove_dir(scope.parent().unwrap());
    });
}

#[test]
fn a_shim_that_gets_no_scope_runs_its_script_and_says_that_a_restart_may_end_it() {
    under_systemd(|_| {
        let report = Machine::new().run("echo ran");
        assert_eq!(report.stdout(), "ran\n");
        let notes = report.notes().join("\n");
        assert!(
            notes.contains("a restart of the agent's service may end the script")
                && notes.contains("the bus cannot be reached"),
            "{notes}"
        );
        assert_ne!(try_out().shims, Whereabouts::Scope);
    });
}

#[test]
fn without_cgroups_resource_limits_stand_in_and_the_notes_say_what_they_do_not_do() {
    where_cgroups_are(Cgroups::Missing, || {
        let machine = Machine::new();
        let mut spec = machine.ephemeral(
            "head -c 200000000 /dev/zero | tail > /dev/null 2>&1 || echo no memory
            sh -c 'for i in $(seq 40); do sleep 5 & done' || echo no process",
        );
        (spec.limits.memory, spec.limits.processes) = (Some(64 << 20), Some(20));
        spec.limits.cpu_percent = Some(100);
        let report = run(&spec);
        assert_eq!(report.started().containment, ContainmentKind::None);
        assert_eq!(report.cgroups(), Vec::<std::path::PathBuf>::new());
        assert_eq!(report.stdout(), "no memory\nno process\n", "{report:?}");
        assert_notes_tell(&report, &try_out());
        // No counter says so, so nothing does.
        assert_eq!(report.outcome().limit_hit, None);
    });
}

#[test]
fn without_cgroups_a_process_gets_no_more_time_than_its_share_in_all() {
    where_cgroups_are(Cgroups::Missing, || {
        let machine = Machine::new();
        let mut spec = machine.script("while :; do :; done");
        spec.limits.time = Duration::from_secs(10);
        spec.limits.cpu_percent = Some(10);
        let report = run(&spec);
        assert!(
            matches!(&report.outcome().end, End::Signal { name, .. } if name == "XCPU"),
            "{report:?}"
        );
        assert!(!report.outcome().timed_out, "{report:?}");
    });
}

#[test]
fn without_cgroups_every_process_ends_with_its_operation() {
    where_cgroups_are(Cgroups::Missing, || {
        let machine = Machine::new();
        let mut spec = machine.script(&format!("{TREE}\nexit 4"));
        spec.arguments = vec![marker(13)];
        let report = run(&spec);
        assert_eq!(left(&format!("{}.", marker(13))), Vec::<i32>::new());
        assert_eq!(report.outcome().end, End::Code(4));
        assert!(report.outcome().survivors_killed >= 5, "{report:?}");
    });
}

#[test]
fn a_process_whose_first_thread_has_ended_is_killed_with_or_without_cgroups() {
    let threads = |number: u32| {
        let mark = marker(number);
        let machine = Machine::new();
        let text = format!(
            "import ctypes, os, threading, time\n\
             if os.fork() == 0:\n    \
                 os.setsid()\n    \
                 threading.Thread(target=lambda: time.sleep(99)).start()\n    \
                 # SYS_exit ends one thread alone.\n    \
                 ctypes.CDLL(None).syscall({exit}, 0)\n\
             while open(f'/proc/{{os.getpid()}}/task/{{os.getpid()}}/children').read().split() == []: pass\n\
             child = open(f'/proc/{{os.getpid()}}/task/{{os.getpid()}}/children').read().split()[0]\n\
             while open(f'/proc/{{child}}/stat').read().split()[2] != 'Z': pass\n\
             # {mark}\n",
            exit = libc::SYS_exit,
        );
        let mut spec = machine.script(&text);
        spec.interpreter = "/usr/bin/python3".into();
        spec.flags = vec!["-X".into(), mark.clone()];
        let report = run(&spec);
        assert_eq!(left(&mark), Vec::<i32>::new(), "{report:?}");
        assert_eq!(report.outcome().survivors_killed, 1, "{report:?}");
        assert_eq!(report.notes(), Vec::<&str>::new());
    };
    if installed("/usr/bin/python3") {
        threads(14);
        where_cgroups_are(Cgroups::Missing, || threads(15));
    }
}

#[test]
fn a_share_of_the_processor_is_all_that_a_script_gets() {
    if !root("cgroups") {
        return;
    }
    if !try_out().limits.contains(&Controller::Cpu) {
        return eprintln!("LEFT OUT: no cpu controller can be used here");
    }
    let machine = Machine::new();
    let mut spec = machine.script("while :; do :; done");
    spec.limits.time = Duration::from_millis(1500);
    spec.limits.cpu_percent = Some(20);
    let outcome = run(&spec).outcome().clone();
    let used = outcome.usage.user + outcome.usage.system;
    // A fifth of the time, and at most a period or two more.
    assert!(used < Duration::from_millis(700), "{outcome:?}");
    assert_eq!(outcome.limit_hit, None::<LimitHit>);
}

#[test]
fn a_shim_that_is_killed_while_it_waits_leaves_nothing_that_the_next_one_does_not_remove() {
    where_cgroups_are(Cgroups::Unified, || {
        let machine = Machine::new();
        let mut waiting = spare(&machine);
        eventually("it has made its group", || has_group(&waiting));
        waiting.kill().unwrap();
        waiting.wait().unwrap();
        assert!(has_group(&waiting));
        assert_eq!(run(&machine.script(":")).outcome().end, End::Code(0));
        assert!(!has_group(&waiting));
    });
}
