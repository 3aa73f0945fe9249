//! What the owner's profile keeps from scripts, and what nobody's script sees.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use sluice_tests::{Agent, Fleet, Outcome, Script, eventually, is_root, script};

use crate::hostile::without_gates;

/// A machine whose owner lets everybody run, with this profile.
fn fleet(profile: &str) -> Fleet {
    without_gates(&format!(
        "[run-as]\nusers = \"ALL\"\n[confinement]\nprofile = \"{profile}\"\n"
    ))
}

/// What was applied, without the name of the profile.
fn applied(outcome: &Outcome) -> Vec<String> {
    let text = outcome.text("confinement");
    let parts = text
        .split_once(": ")
        .map_or(text.as_str(), |(_, parts)| parts);
    parts.split(", ").map(str::to_owned).collect()
}

/// Says that a test is left out where the machine has no mounts of its own for scripts.
fn mounts(outcome: &Outcome) -> bool {
    let there = applied(outcome).contains(&"hidden-files".to_owned());
    if !there {
        let notes = &outcome.json["notes"];
        assert!(notes.to_string().contains("hidden"), "{outcome:#?}");
        eprintln!("LEFT OUT: mounts are not allowed here: {notes}");
    }
    there
}

#[test]
fn a_script_of_root_finds_no_key_no_ledger_and_no_policy() {
    if !is_root() {
        return;
    }
    let fleet = fleet("none");
    let machine = &fleet.agents[0].machine;
    let (state, config) = (machine.state.display(), machine.config.display());
    let text = format!(
        "#!/bin/sh\nls -A {state}\ncat {state}/identity/key.der {state}/ledger.db {config}\n\
         rm -r {state}/spool 2>/dev/null; touch {state}/new 2>/dev/null; ls ${{0%/*}}\n"
    );
    let outcome = fleet.run(&script(text).as_user("root"));
    if !mounts(&outcome) {
        return;
    }
    outcome.expect("succeeded", "Script executed successfully");
    assert_eq!(outcome.text("stdout"), "script\n", "{outcome:#?}");
    assert_eq!(outcome.text("confinement"), "hidden-files");
    // The machine's own are where they were, and others see no difference.
    assert!(machine.state.join("identity/key.der").exists());
    eventually("it is on the machine's record", || {
        let events = machine.events();
        let last = events.last().expect("has one");
        (last["event"] == "script_executed").then_some(())
    });
    let other = fleet.run(&script("#!/bin/sh\n:\n").as_user("nobody"));
    assert_eq!(other.text("confinement"), "none");
}

#[test]
fn a_strict_owner_keeps_every_user_from_files_and_tcp() {
    if !is_root() {
        return;
    }
    let fleet = fleet("strict");
    // Where every user could go, and no temporary directory covers it.
    let open = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("makes a folder");
    fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755)).expect("changes the mode");
    let secret = open.path().join("secret");
    fs::write(&secret, "hunter2").expect("writes");
    let port = fleet.host.api.rsplit(':').next().expect("has a port");
    let text = format!(
        "#!/bin/bash\ncat {}\necho x > /etc/sluice-test-mark\n\
         exec 3<>/dev/tcp/127.0.0.1/{port}\nmount -t tmpfs none /opt\nunshare -U true\nkill -0 $PPID\n\
         for d in /tmp ${{0%/*}}; do echo own > $d/own && cat $d/own; done\n",
        secret.display()
    );
    for user in ["ephemeral", "nobody", "root"] {
        let outcome = fleet.run(&script(&text).as_user(user));
        if !mounts(&outcome) {
            return;
        }
        assert_eq!(outcome.text("stdout"), "own\nown\n", "{outcome:#?}");
        assert!(outcome.text("confinement").starts_with("strict: "));
        let parts = applied(&outcome);
        for part in ["private-tmp", "private-ipc", "no-new-privs", "seccomp"] {
            assert!(
                parts.contains(&part.to_owned()),
                "{user}: {part}: {parts:?}"
            );
        }
        assert!(parts.iter().any(|part| part.starts_with("landlock-")));
        assert!(!std::path::Path::new("/etc/sluice-test-mark").exists());
    }
}

#[test]
fn a_profile_leaves_limits_ends_and_cleaning_as_they_are() {
    if !is_root() {
        return;
    }
    let fleet = fleet("strict");
    let endless = script("#!/bin/sh\ntrap '' TERM\nsleep 97.1234 & setsid sleep 97.1234 & wait\n");
    let outcome = fleet.run(&endless.time_limit("1s"));
    outcome.expect("timed-out", "Time limit of 1s reached");
    assert!(!crate::isolation::is_running("sleep 97.1234"));
    let failing = fleet.run(&script("#!/bin/bash\necho out; echo err >&2; exit 7\n"));
    failing.expect("failed", "Script failed with exit code 7");
    assert_eq!(
        (failing.text("stdout"), failing.text("stderr")),
        ("out\n".to_owned(), "err\n".to_owned())
    );
    assert!(fleet.agents[0].machine.left_behind().is_empty());
}

/// Starts the agent where the kernel has no Landlock, nor has anything that it starts.
fn start_without_landlock(fleet: &Fleet) -> Agent {
    let machine = fleet.agents[0].machine.clone();
    let start = move || {
        let filter = SeccompFilter::new(
            [(libc::SYS_landlock_create_ruleset, vec![])].into(),
            SeccompAction::Allow,
            SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
            std::env::consts::ARCH.try_into().expect("is known"),
        );
        let program: BpfProgram = filter.expect("is one").try_into().expect("compiles");
        seccompiler::apply_filter(&program).expect("is taken");
        machine.start()
    };
    std::thread::spawn(start).join().expect("starts")
}

#[test]
fn a_strict_owner_without_landlock_blocks_everything_and_says_why() {
    if !is_root() {
        return;
    }
    let mut fleet = fleet("strict");
    fleet.agents[0].stop();
    fleet.agents[0] = start_without_landlock(&fleet);
    let mark = fleet.folder().join("started");
    let outcome = fleet.run(&script(format!("#!/bin/sh\ntouch {}\n", mark.display())));
    assert_eq!(
        (outcome.text("state").as_str(), outcome.code),
        ("blocked", 126)
    );
    let message = outcome.text("message");
    assert!(
        message.starts_with("Blocked by machine policy: confinement.profile: strict")
            && message.contains("Linux 6.2"),
        "{message}"
    );
    assert!(outcome.json["confinement"].is_null() && !mark.exists());
}

/// What a job without more than this asks for.
fn asking(text: &str, confinement: &str) -> Script {
    script(text).option("--confinement", confinement)
}

#[test]
fn a_job_has_more_kept_from_it_than_the_owner_insists_on_and_never_less() {
    if !is_root() {
        return;
    }
    let text = "#!/bin/sh\n:\n";
    let profile = |outcome: &Outcome| {
        outcome.expect("succeeded", "Script executed successfully");
        let text = outcome.text("confinement");
        text.split_once(": ").map(|(profile, _)| profile.to_owned())
    };
    for (owner, asked) in [
        ("none", ["standard", "strict"]),
        ("strict", ["strict", "strict"]),
    ] {
        let fleet = fleet(owner);
        let plain = fleet.run(&script(text).as_user("nobody"));
        assert_eq!(
            profile(&plain).as_deref(),
            (owner != "none").then_some(owner)
        );
        let mut digests = vec![plain.text("bundle_sha256")];
        for (asked, expected) in ["standard", "strict"].into_iter().zip(asked) {
            let outcome = fleet.run(&asking(text, asked).as_user("nobody"));
            assert_eq!(profile(&outcome).as_deref(), Some(expected));
            digests.push(outcome.text("bundle_sha256"));
        }
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), 3, "what is asked for is in the bundle");
    }
}

#[test]
fn a_stored_script_and_a_schedule_carry_the_confinement_that_they_ask_for() {
    if !is_root() {
        return;
    }
    let fleet = fleet("none");
    let file = fleet.folder().join("stored.sh");
    fs::write(&file, "#!/bin/sh\n:\n").expect("writes");
    let file = file.to_str().expect("is text");
    let expect = |arguments: &[&str]| {
        let output = fleet.sluice(arguments);
        assert!(output.code == 0, "{arguments:?}: {output:?}");
        output.stdout
    };
    expect(&["script", "add", file, "--confinement", "strict"]);
    let shown = expect(&["script", "show", "stored"]);
    assert!(
        shown.contains("confinement") && shown.contains("strict"),
        "{shown}"
    );
    let job = [
        "run",
        "--script",
        "stored",
        "--on",
        "m1",
        "--confinement",
        "standard",
        "--json",
    ];
    let result: serde_json::Value = serde_json::from_str(&expect(&job)).expect("is JSON");
    let applied = result["confinement"].as_str().expect("is told");
    assert!(applied.starts_with("strict: "), "{applied}");
    let job = result["job"].as_str().expect("has a job");
    let shown = expect(&["job", "show", job]);
    assert!(
        shown.contains("confinement") && shown.contains("strict: "),
        "{shown}"
    );
    expect(&[
        "schedule",
        "add",
        "nightly",
        file,
        "--every",
        "1d",
        "--on",
        "m1",
        "--confinement",
        "standard",
    ]);
    let shown = expect(&["schedule", "show", "nightly"]);
    assert!(
        shown.contains("confinement") && shown.contains("standard"),
        "{shown}"
    );
}

/// A machine whose owner opens this to strict scripts, and lets everybody run.
fn opened(lists: &str) -> Fleet {
    without_gates(&format!(
        "[run-as]\nusers = \"ALL\"\n[confinement]\n{lists}\n"
    ))
}

#[test]
fn the_owner_opens_paths_and_ports_to_strict_scripts_and_to_them_no_others() {
    if !is_root() {
        return;
    }
    let open = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("makes a folder");
    let base = open.path().canonicalize().expect("is there");
    for part in ["", "read", "write", "neither"] {
        let directory = base.join(part);
        fs::create_dir_all(&directory).expect("makes it");
        let mode = if part == "write" { 0o777 } else { 0o755 };
        fs::set_permissions(&directory, fs::Permissions::from_mode(mode))
            .expect("changes the mode");
        fs::write(directory.join("file"), format!("{part}\n")).expect("writes");
    }
    let listeners = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("listens"));
    let [let_through, kept] = [0, 1].map(|number: usize| {
        let address = listeners[number].local_addr();
        address.expect("has an address").port()
    });
    let base = base.display();
    let fleet = opened(&format!(
        "read = [\"{base}/read\"]\nwrite = [\"{base}/write\"]\ntcp_connect = [{let_through}]"
    ));
    let text = format!(
        "#!/bin/bash\ncd {base}\ncat read/file write/file neither/file\necho new > write/$USER\ncat write/$USER\n\
         echo new > read/$USER\n\
         for p in {let_through} {kept}; do (exec 3<>/dev/tcp/127.0.0.1/$p) && echo connected $p; done; :\n"
    );
    for user in ["ephemeral", "nobody", "root"] {
        let outcome = fleet.run(&asking(&text, "strict").as_user(user));
        outcome.expect("succeeded", "Script executed successfully");
        assert_eq!(
            outcome.text("stdout"),
            format!("read\nwrite\nnew\nconnected {let_through}\n"),
            "{outcome:#?}"
        );
        let parts = applied(&outcome);
        for part in ["owner-paths", "owner-ports"] {
            assert!(parts.contains(&part.to_owned()), "{user}: {parts:?}");
        }
    }
}

#[test]
fn a_job_that_asks_for_a_profile_is_blocked_where_the_machine_cannot_put_it_up() {
    if !is_root() {
        return;
    }
    let mut fleet = fleet("none");
    fleet.agents[0].stop();
    fleet.agents[0] = start_without_landlock(&fleet);
    let outcome = fleet.run(&asking("#!/bin/sh\n:\n", "strict"));
    assert_eq!(outcome.text("state"), "blocked", "{outcome:#?}");
    let message = outcome.text("message");
    assert!(
        message.contains("strict cannot be put up on this machine"),
        "{message}"
    );
    let plain = fleet.run(&script("#!/bin/sh\n:\n"));
    plain.expect("succeeded", "Script executed successfully");
    let wrong = fleet.watch(&asking("#!/bin/sh\n:\n", "none"), &["m1"]);
    wrong.expect_refused();
}

#[test]
fn what_will_hold_processes_together_is_known_before_anything_runs() {
    let fleet = Fleet::builder().start();
    let shown = fleet.list(&["machine", "show", "m1"]).swap_remove(0);
    let known = shown["facts"]["containment"].as_str().expect("is a text");
    assert!(
        ["cgroup-v2", "hybrid", "none"].contains(&known),
        "{shown:#?}"
    );
    let outcome = fleet.run(&script("#!/bin/sh\n:\n"));
    outcome.expect("succeeded", "Script executed successfully");
    assert_eq!(outcome.text("containment"), known);
    let limits = shown["facts"]["containment.limits"].as_str();
    let noted = outcome.json["notes"]
        .to_string()
        .matches("controller can be used here")
        .count();
    let held = limits
        .expect("is a text")
        .split(',')
        .filter(|limit| *limit != "none")
        .count();
    assert_eq!(held + noted, 3, "{limits:?}: {outcome:#?}");
    // Those of its gate runner it tells when they stand.
    let walls = eventually("the walls are known", || {
        let shown = fleet.list(&["machine", "show", "m1"]).swap_remove(0);
        Some(shown["facts"]["gates.walls"].as_str()?.to_owned())
    });
    assert!(walls.contains("seccomp"), "{walls}");
    let text = fleet.sluice(&["machine", "show", "m1"]).stdout;
    let mut lines = text.lines();
    let line = lines.find(|line| line.starts_with("containment"));
    assert!(line.is_some_and(|line| line.ends_with(known)), "{text}");
}
