//! What a script is and sees, and what runs beside it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sluice_tests::{Fleet, Outcome, binaries, eventually, installed, is_root, script};

/// The process with this text as its whole command line, and whether there is one.
pub(crate) fn process(mark: &str) -> Option<u32> {
    processes().into_iter().find(|pid| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).replace('\0', " ").trim() == mark
    })
}

/// Whether a process has this text as its whole command line.
pub(crate) fn is_running(mark: &str) -> bool {
    process(mark).is_some()
}

/// The number of every process.
pub(crate) fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("reads /proc").flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// `/proc/<pid>/status`, words by key.
fn status(text: &str) -> BTreeMap<String, Vec<String>> {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs
        .map(|(key, value)| {
            (
                key.to_owned(),
                value.split_whitespace().map(str::to_owned).collect(),
            )
        })
        .collect()
}

fn status_of(pid: u32) -> BTreeMap<String, Vec<String>> {
    status(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default())
}

/// The agent's own children that run this binary.
fn children(parent: u32, binary: &str) -> Vec<u32> {
    let path = binaries().join(binary).canonicalize().expect("was built");
    let is_child = |pid: &u32| {
        status_of(*pid)
            .get("PPid")
            .is_some_and(|words| words[0] == parent.to_string())
            && fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == path)
    };
    processes().into_iter().filter(is_child).collect()
}

#[test]
fn a_script_whose_process_waited_for_it_is_no_nicer_than_the_agent() {
    let fleet = Fleet::builder().start();
    let niceness = "#!/bin/sh\nawk '{ print $19 }' /proc/self/stat\n";
    // What waits is nicer, and the second one finds it waiting.
    for _ in 0..3 {
        let agent = fleet.agents[0].pid();
        let agent = fs::read_to_string(format!("/proc/{agent}/stat")).expect("reads");
        let own = agent.split_whitespace().nth(18).expect("has a niceness");
        let outcome = fleet.run(&script(niceness));
        assert_eq!(outcome.text("stdout").trim(), own, "{outcome:#?}");
    }
}

fn context(outcome: &Outcome, key: &str) -> serde_json::Value {
    outcome.json["context"][key].clone()
}

#[test]
fn a_script_has_the_ids_of_its_user_and_no_rights() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::builder().start();
    for user in ["nobody", "ephemeral"] {
        let outcome = fleet.run(&script("#!/bin/sh\ncat /proc/self/status\n").as_user(user));
        outcome.expect("succeeded", "Script executed successfully");
        let status = status(&outcome.text("stdout"));
        let (uid, gid) = (&status["Uid"][0], &status["Gid"][0]);
        assert!(
            status["Uid"].iter().all(|word| word == uid)
                && status["Gid"].iter().all(|word| word == gid),
            "{status:#?}"
        );
        assert_eq!(context(&outcome, "uid").as_u64(), uid.parse().ok());
        match user {
            "nobody" => assert_eq!((uid.as_str(), gid.as_str()), ("65534", "65534")),
            _ => assert!(
                uid.parse::<u32>()
                    .is_ok_and(|uid| uid > 1000 && !(61184..=65534).contains(&uid)),
                "{uid}"
            ),
        }
        assert!(
            status["Groups"].iter().all(|group| group == gid),
            "{status:#?}"
        );
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status[set], ["0000000000000000"], "{user}: {set}");
        }
        assert_eq!(status["NoNewPrivs"], ["1"]);
        assert_eq!(outcome.text("run_as"), user);
    }
}

#[test]
fn a_script_starts_in_a_clean_place() {
    if !is_root() || !installed("/usr/bin/python3") {
        return;
    }
    let fleet = Fleet::builder().start();
    let text = "#!/usr/bin/python3\nimport os, sys, stat\nprint(os.getcwd())\nprint(oct(os.umask(0)))\n\
                print(os.getsid(0) == os.getpgid(0))\nprint(os.readlink('/proc/self/fd/0'))\n\
                print([int(fd) for fd in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + fd)])\n\
                for path in (sys.argv[0], os.path.dirname(sys.argv[0])):\n    found = os.stat(path)\n    print(oct(stat.S_IMODE(found.st_mode)), found.st_uid == os.getuid())\n";
    let outcome = fleet.run(&script(text));
    let expected = "/\n0o22\nTrue\n/dev/null\n[0, 1, 2]\n0o700 True\n0o700 True\n";
    assert_eq!(outcome.text("stdout"), expected, "{outcome:#?}");
    assert_eq!(context(&outcome, "cwd"), "/");
}

#[test]
fn a_script_sees_the_documented_environment_and_nothing_of_the_agent() {
    if !is_root() || !installed("/usr/bin/python3") {
        return;
    }
    let fleet = Fleet::builder().start();
    let text = "#!/usr/bin/python3\nimport sys\nsys.stdout.buffer.write(open('/proc/self/environ', 'rb').read())\n";
    let outcome = fleet.run(
        &script(text)
            .option("--env", "GIVEN=by the job")
            .param("who", "me"),
    );
    let stdout = outcome.text("stdout");
    let seen: BTreeMap<_, _> = stdout
        .split_terminator('\0')
        .filter_map(|pair| pair.split_once('='))
        .collect();
    let uid = context(&outcome, "uid").to_string();
    let user = format!("sluice-{uid}");
    let known = BTreeMap::from([
        (
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin",
        ),
        ("USER", &user),
        ("LOGNAME", &user),
        ("HOME", "/"),
        ("SHELL", "/bin/sh"),
        ("GIVEN", "by the job"),
        ("SLUICE_PARAM_WHO", "me"),
        ("SLUICE_TENANT", "default"),
        ("SLUICE_MACHINE_NAME", "m1"),
        ("SLUICE_MACHINE_TAGS", ""),
        (
            "SLUICE_JOB_ID",
            outcome.json["job"].as_str().unwrap_or_default(),
        ),
        (
            "SLUICE_OPERATION_ID",
            outcome.json["operation"].as_str().unwrap_or_default(),
        ),
    ]);
    for (name, value) in &known {
        assert_eq!(seen.get(name), Some(value), "{name} in {seen:#?}");
    }
    let open = [
        "SLUICE_MACHINE_ID",
        "SLUICE_URL",
        "SLUICE_OPERATOR",
        "SLUICE_SUBMITTED_AT",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
    ];
    for name in seen.keys() {
        assert!(
            known.contains_key(name) || open.contains(name),
            "{name} is not documented: {seen:#?}"
        );
    }
    for name in &open[..4] {
        assert!(seen.contains_key(name), "{name} is missing: {seen:#?}");
    }
}

#[test]
fn an_ephemeral_user_has_temporary_folders_of_its_own_and_leaves_nothing() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::builder().start();
    let name = fleet
        .folder()
        .file_name()
        .expect("has a name")
        .to_string_lossy()
        .into_owned();
    let paths = ["/tmp", "/var/tmp", "/dev/shm"]
        .map(|folder| PathBuf::from(folder).join(format!("mark-{name}")));
    let touch = format!(
        "#!/bin/sh\nfor f in /tmp /var/tmp /dev/shm; do echo secret > $f/mark-{name} && cat $f/mark-{name} || exit 1; done\nls -A /tmp | sort\n"
    );
    let outcome = fleet.run(&script(touch));
    outcome.expect("succeeded", "Script executed successfully");
    if outcome.json["notes"].as_array().is_some_and(|notes| {
        notes
            .iter()
            .any(|note| note.as_str().is_some_and(|note| note.contains("/tmp")))
    }) {
        eprintln!(
            "LEFT OUT: mounts are not allowed here: {}",
            outcome.json["notes"]
        );
        return;
    }
    // The fleet's own folder is below /tmp, and the script is in it.
    assert_eq!(
        outcome.text("stdout"),
        format!("secret\nsecret\nsecret\n{name}\nmark-{name}\n")
    );
    assert!(paths.iter().all(|path| !path.exists()));
    assert!(fleet.agents[0].machine.left_behind().is_empty());
    let again = fleet.run(&script(format!(
        "#!/bin/sh\nls -A /tmp /var/tmp /dev/shm | grep -c mark-{name}\n"
    )));
    assert_eq!(again.text("stdout"), "0\n");
}

#[test]
fn two_operations_at_once_have_different_uids() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::builder().start();
    let jobs = [(); 3].map(|()| fleet.detach(&script("#!/bin/sh\nsleep 2\n")));
    let mut uids: Vec<_> = jobs
        .iter()
        .map(|job| context(&fleet.until(job, "succeeded"), "uid").as_u64())
        .collect();
    uids.sort_unstable();
    uids.dedup();
    assert!(
        uids.len() == 3 && uids.iter().all(Option::is_some),
        "{uids:?}"
    );
}

#[test]
fn the_agent_has_no_wasm_and_the_runner_has_no_rights() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::builder().start();
    fleet
        .run(&script("#!/bin/sh\n:\n"))
        .expect("succeeded", "Script executed successfully");
    let holds = |binary: &str, needle: &[u8]| {
        let bytes = fs::read(binaries().join(binary)).expect("was built");
        bytes.windows(needle.len()).any(|window| window == needle)
    };
    assert!(
        holds("sluice-gate-runner", b"wasmtime-48"),
        "the needle finds wasmtime where it is"
    );
    assert!(
        !holds("sluice-agent", b"wasmtime-48")
            && !holds("sluice-shim", b"wasmtime-48")
            && !holds("sluice-host", b"wasmtime-48")
    );
    let agent = fleet.agents[0].pid();
    let maps = fs::read_to_string(format!("/proc/{agent}/maps")).expect("reads");
    assert!(
        maps.contains("sluice-agent") && !maps.contains("sluice-gate-runner"),
        "{maps}"
    );
    let runners = children(agent, "sluice-gate-runner");
    assert!(!runners.is_empty(), "no runner is up after an operation");
    for runner in runners {
        let status = status_of(runner);
        assert!(
            status["Uid"].iter().all(|uid| uid
                .parse::<u32>()
                .is_ok_and(|uid| (61184..=65519).contains(&uid))),
            "{status:#?}"
        );
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status[set], ["0000000000000000"], "{set}");
        }
        assert_eq!(
            (&status["Seccomp"], &status["NoNewPrivs"]),
            (&vec!["2".to_owned()], &vec!["1".to_owned()])
        );
        assert!(
            status["Groups"]
                .iter()
                .all(|group| *group == status["Gid"][0]),
            "{status:#?}"
        );
    }
}

#[test]
fn the_hosts_own_runner_is_walled_too() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::builder().start();
    fleet
        .run(&script("#!/bin/sh\n:\n"))
        .expect("succeeded", "Script executed successfully");
    let runners = children(fleet.host.pid(), "sluice-gate-runner");
    assert!(!runners.is_empty(), "no runner is up after a preflight");
    for runner in runners {
        let status = status_of(runner);
        assert_eq!(
            (
                &status["Seccomp"][0],
                &status["NoNewPrivs"][0],
                &status["CapEff"][0]
            ),
            (
                &"2".to_owned(),
                &"1".to_owned(),
                &"0000000000000000".to_owned()
            )
        );
        assert_ne!(status["Uid"][0], "0");
    }
}

#[test]
fn a_descriptor_that_the_agent_was_started_with_goes_no_further() {
    if !is_root() {
        return eprintln!("LEFT OUT: only root looks into a gate runner");
    }
    let fleet = Fleet::builder().start();
    let outcome = fleet.run(&script("#!/bin/sh\nls /proc/self/fd\n"));
    // The last is the directory that `ls` reads.
    assert_eq!(outcome.text("stdout"), "0\n1\n2\n3\n");
    let agent = fleet.agents[0].pid();
    let inherited = |pid: u32| {
        fs::read_link(format!("/proc/{pid}/fd/3")).is_ok_and(|to| to == Path::new("/dev/null"))
    };
    assert!(inherited(agent), "the harness gave it none");
    for program in ["sluice-gate-runner", "sluice-shim"] {
        let processes = eventually(program, || {
            Some(children(agent, program)).filter(|found| !found.is_empty())
        });
        assert!(!processes.into_iter().any(inherited), "{program}");
    }
}

#[test]
fn while_a_script_runs_its_shim_keeps_only_the_rights_that_ending_and_cleaning_need() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::builder().start();
    let job = fleet.detach(&script("#!/bin/sh\nsleep 96.5432\n"));
    let mut pid = eventually("the script runs", || process("sleep 96.5432"));
    let shim = binaries()
        .join("sluice-shim")
        .canonicalize()
        .expect("was built");
    while fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe != shim) {
        pid = status_of(pid)["PPid"][0].parse().expect("is a number");
        assert!(pid > 1, "the script has no shim above it");
    }
    let shim = status_of(pid);
    assert_eq!(fleet.sluice(&["job", "cancel", &job]).code, 0);
    fleet.until(&job, "canceled");
    for set in ["CapEff", "CapPrm"] {
        // CAP_KILL, and CAP_DAC_OVERRIDE and CAP_FOWNER to remove the script's own 0700 directory.
        assert_eq!(shim[set], ["000000000000002a"], "{set}");
    }
}
