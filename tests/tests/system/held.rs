//! Jobs above a threshold of their tenant's approval policy: nothing of them is delivered before others approve.

use std::fs;
use std::process::Stdio;

use serde_json::Value;
use sluice_tests::{Fleet, Output, eventually};

use crate::schedules::{last, seconds_from_now};
use crate::shipped::rebind;

/// Operators whose tokens do not come from each other.
struct Case {
    fleet: Fleet,
    bob: String,
    carol: String,
    dave: String,
}

impl Case {
    /// Machines, under this policy.
    fn new(machines: usize, policy: &str) -> Self {
        let fleet = Fleet::builder().agents(machines).start();
        let bob = fleet.token_with(
            "bob",
            &[
                "RemoteExecution",
                "ApproveJobs",
                "ScheduleScript",
                "ManageScripts",
            ],
        );
        let carol = fleet.token_with("carol", &["ApproveJobs"]);
        let dave = fleet.token_with("dave", &["ApproveJobs"]);
        let case = Self {
            fleet,
            bob,
            carol,
            dave,
        };
        case.set(policy);
        case
    }

    /// Two tokens of one operator with these roles.
    fn two_tokens_of(&self, operator: &str, roles: &[&str]) -> [String; 2] {
        let roles = roles.iter().flat_map(|role| ["--role", role]);
        let create = ["operator", "create", operator].into_iter();
        let created = self.fleet.sluice(&create.chain(roles).collect::<Vec<_>>());
        assert_eq!(created.code, 0, "{created:?}");
        ["laptop", "phone"].map(|name| {
            let create = ["token", "create", name, "--operator", operator];
            let made = self.fleet.sluice(&create);
            assert_eq!(made.code, 0, "{made:?}");
            made.stdout.trim().to_owned()
        })
    }

    fn set(&self, policy: &str) {
        let file = self.write("policy.toml", policy);
        let set = self.fleet.sluice(&["approval", "policy", "set", &file]);
        assert_eq!(set.code, 0, "{set:?}");
    }

    fn write(&self, name: &str, text: &str) -> String {
        let file = self.fleet.folder().join(name);
        fs::write(&file, text).expect("writes");
        file.to_str().expect("is text").to_owned()
    }

    fn sluice(&self, token: &str, arguments: &[&str]) -> Output {
        let mut command = self.fleet.command();
        command.env("SLUICE_TOKEN", token).args(arguments);
        Output::of(&command.output().expect("sluice was built"))
    }

    /// Bob submits a script of this text with these options; gives the job.
    fn submit(&self, text: &str, options: &[&str]) -> String {
        let file = self.write("script.sh", text);
        let arguments = [&["run", &file, "--detach"], options].concat();
        let output = self.sluice(&self.bob, &arguments);
        assert_eq!(output.code, 0, "{output:?}");
        output.stdout.trim().to_owned()
    }

    fn approve(&self, token: &str, job: &str) -> Output {
        self.sluice(token, &["job", "approve", job])
    }

    fn approves(&self, token: &str, job: &str) {
        let output = self.approve(token, job);
        assert_eq!(output.code, 0, "{output:?}");
    }

    /// The reason of the first operation that is about approvals.
    fn why(&self, job: &str) -> Value {
        let shown = self.fleet.show(job);
        assert_eq!(shown.text("state"), "held", "{shown:#?}");
        shown.json["why"][0].clone()
    }

    fn entries(&self, event: &str) -> Vec<Value> {
        let mut entries = self.fleet.list(&["audit", "list"]);
        entries.retain(|entry| entry["event"] == event);
        entries
    }

    fn nothing_started(&self) -> bool {
        let mut agents = self.fleet.agents.iter();
        agents.all(|agent| !agent.machine.has_started_something())
    }
}

const HI: &str = "#!/bin/sh\necho hi\n";

#[test]
fn a_job_for_many_machines_runs_once_two_others_have_approved_it_also_over_a_restart_of_the_host() {
    let mut case = Case::new(2, "[[rules]]\napprovers = 2\ntargets = 2\n");
    let below = case.submit(HI, &["--on", "m1"]);
    case.fleet.until(&below, "succeeded");
    let job = case.submit(HI, &["--all"]);
    let why = case.why(&job);
    assert_eq!(
        (
            &why["reason"],
            &why["needed"],
            &why["because"][0],
            &why["approved"]
        ),
        (
            &"approval".into(),
            &2.into(),
            &"it is for 2 machines".into(),
            &Value::Array(Vec::new())
        ),
        "{why:#}"
    );
    let own = case.approve(&case.bob, &job);
    own.expect_refused();
    assert!(own.stderr.contains("nobody approves their own"), "{own:?}");
    case.approves(&case.carol, &job);
    let twice = case.approve(&case.carol, &job);
    twice.expect_refused();
    assert!(twice.stderr.contains("counts once"), "{twice:?}");
    assert_eq!(case.why(&job)["approved"][0]["by"], "carol");

    case.fleet.host.kill_and_restart();
    case.fleet
        .agents
        .iter_mut()
        .for_each(|agent| agent.restart());
    assert_eq!(case.why(&job)["approved"][0]["by"], "carol");
    case.approves(&case.dave, &job);
    eventually("it ran on both", || {
        let operations = case.fleet.list(&["job", "show", &job]);
        let mut states = operations.iter().map(|operation| &operation["state"]);
        states.all(|state| state == "succeeded").then_some(())
    });
    let shown = case.fleet.sluice(&["job", "show", &job]);
    for text in ["approved (2 were needed", "carol at", "dave at"] {
        assert!(shown.stdout.contains(text), "{text}: {shown:?}");
    }
    let events = case.fleet.events();
    let count = |event: &str| events.iter().filter(|seen| *seen == event).count();
    assert_eq!(
        ["job_held", "job_approved", "job_released"].map(count),
        [1, 2, 1]
    );
    let approved = case.entries("job_approved");
    let names: Vec<_> = approved.iter().map(|entry| &entry["operator"]).collect();
    assert_eq!(names, ["carol", "dave"]);
}

#[test]
fn two_tokens_of_one_operator_are_one_approver() {
    let case = Case::new(1, "[[rules]]\napprovers = 2\n");
    let [laptop, phone] = case.two_tokens_of("erin", &["approver"]);
    let job = case.submit(HI, &["--on", "m1"]);
    case.approves(&laptop, &job);
    case.approve(&phone, &job).expect_refused();
    assert!(case.nothing_started());
    case.approves(&case.carol, &job);
    case.fleet.until(&job, "succeeded");
}

#[test]
fn other_gates_make_an_approval_void_and_the_reason_says_so() {
    let case = Case::new(1, "[[rules]]\napprovers = 2\n");
    let job = case.submit(HI, &["--on", "m1"]);
    let seen = case.why(&job)["digest"].as_str().expect("text").to_owned();
    case.approves(&case.carol, &job);
    rebind(&case.fleet, "policy", "threshold = \"critical\"\n");
    let why = case.why(&job);
    let void = why["approved"][0]["void"].as_str().unwrap_or_default();
    assert!(void.contains("gates have changed"), "{why:#}");
    let changed = case.sluice(&case.dave, &["job", "approve", &job, "--digest", &seen]);
    changed.expect_refused();
    assert!(changed.stderr.contains("not what was seen"), "{changed:?}");
    case.approves(&case.dave, &job);
    assert!(case.nothing_started());
    assert_eq!(case.why(&job)["reason"], "approval");
    case.approves(&case.carol, &job);
    case.fleet.until(&job, "succeeded");
}

#[test]
fn the_user_a_tag_and_what_was_found_are_thresholds_too() {
    let policy = "[[rules]]\nrun_as = [\"nobody\"]\n\n[[rules]]\ntags = [\"env=production\"]\n\n[[rules]]\nfindings = \"medium\"\n";
    let case = Case::new(2, policy);
    let tagged = case
        .fleet
        .sluice(&["machine", "tag", "m2", "env=production"]);
    assert_eq!(tagged.code, 0, "{tagged:?}");
    let fine = case.submit(HI, &["--on", "m1"]);
    case.fleet.until(&fine, "succeeded");
    let scan = "#!/bin/sh\necho ran\nexit 0\nnmap 203.0.113.0/24\n";
    for (text, options, because) in [
        (HI, ["--on", "m1", "--as", "nobody"], "runs as nobody"),
        (HI, ["--on", "m2", "--on", "m1"], "with env=production"),
        (
            scan,
            ["--on", "m1", "--on", "m1"],
            "findings from medium on",
        ),
    ] {
        let job = case.submit(text, &options);
        let why = case.why(&job);
        assert!(why.to_string().contains(because), "{why}");
        // What was found is told where that is why it waits, and to people too.
        let shown = case.fleet.sluice(&["job", "show", &job]).stdout;
        let is_found = text == scan;
        let found = "scanner/network-scan (medium, 1 machine)";
        assert_eq!(shown.contains(found), is_found, "{shown}");
        let expected = serde_json::json!([
            {"gate": "scanner", "rule": "network-scan", "severity": "medium", "machines": 1}
        ]);
        assert_eq!(why["findings"] == expected, is_found, "{why:#}");
        let denied = case.sluice(&case.carol, &["job", "deny", &job, "--reason", "no"]);
        assert_eq!(denied.code, 0, "{denied:?}");
        let ended = case.fleet.show(&job);
        assert_eq!(ended.text("message"), "Canceled by carol");
        case.approve(&case.carol, &job).expect_refused();
    }
    assert_eq!(case.entries("job_denied")[0]["details"]["reason"], "no");
}

#[test]
fn whoever_follows_a_job_is_told_that_it_waits_and_its_batches_begin_once_it_is_approved() {
    let case = Case::new(2, "[[rules]]\n");
    let file = case.write("script.sh", HI);
    let mut command = case.fleet.command();
    command
        .env("SLUICE_TOKEN", &case.bob)
        .args(["run", &file, "--all", "--batches", "1,100%"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let following = command.spawn().expect("sluice was built");
    let job = eventually("the job is there", || {
        let jobs = case.fleet.list(&["job", "list"]);
        let bobs = jobs.iter().find(|job| job["operator"] == "bob")?;
        bobs["job"].as_str().map(str::to_owned)
    });
    assert_eq!(case.why(&job)["reason"], "approval");
    // Nobody gets past it by pausing and resuming.
    for verb in ["pause", "resume"] {
        let changed = case.sluice(&case.bob, &["job", verb, &job]);
        assert_eq!(changed.code, 0, "{changed:?}");
    }
    assert_eq!(case.why(&job)["reason"], "approval");
    assert!(case.nothing_started());
    case.approves(&case.carol, &job);
    let output = Output::of(&following.wait_with_output().expect("ends"));
    assert_eq!(output.code, 0, "{output:?}");
    assert!(
        output
            .stderr
            .contains("waits for approvals of other operators (0 of 1)"),
        "{output:?}"
    );
    assert_eq!(case.entries("job_released").len(), 2);
}

#[test]
fn a_job_that_nobody_approves_in_time_expires_and_one_that_is_canceled_is_never_approved() {
    let case = Case::new(1, "[[rules]]\n");
    let canceled = case.submit(HI, &["--on", "m1"]);
    let cancel = case.sluice(&case.bob, &["job", "cancel", &canceled]);
    assert_eq!(cancel.code, 0, "{cancel:?}");
    case.approve(&case.carol, &canceled).expect_refused();
    case.set("expires = \"1s\"\n\n[[rules]]\n");
    let late = case.submit(HI, &["--on", "m1"]);
    let ended = case.fleet.until(&late, "expired");
    assert_eq!(ended.text("message"), "Expired before it could start");
    case.approve(&case.carol, &late).expect_refused();
    assert!(case.nothing_started());
}

#[test]
fn a_version_that_is_approved_in_advance_runs_by_schedule_and_the_next_version_waits() {
    let case = Case::new(1, "[[rules]]\n");
    let file = case.write("greet.sh", HI);
    let add_script = || {
        let added = case.sluice(&case.bob, &["script", "add", &file, "--name", "greet"]);
        assert_eq!(added.code, 0, "{added:?}");
    };
    add_script();
    let schedule = |name: &str| {
        let at = seconds_from_now(2);
        let options = ["--script", "greet", "--at", &at, "--on", "m1"];
        let added = case.sluice(
            &case.bob,
            &[&["schedule", "add", name], &options[..]].concat(),
        );
        assert_eq!(added.code, 0, "{added:?}");
        let last = last(&case.fleet, name);
        last["job"].as_str().expect("made a job").to_owned()
    };
    let job = schedule("first");
    assert_eq!(case.why(&job)["reason"], "approval");
    case.approves(&case.carol, &job);
    case.fleet.until(&job, "succeeded");

    let standing = [
        "approval", "standing", "add", "--script", "greet@1", "--as", "default",
    ];
    let own = case.sluice(&case.bob, &[&standing[..], &["--targets", "1"]].concat());
    assert_eq!(own.code, 0, "{own:?}");
    assert_eq!(case.why(&schedule("own"))["reason"], "approval");
    let added = case.sluice(&case.carol, &[&standing[..], &["--targets", "1"]].concat());
    assert_eq!(added.code, 0, "{added:?}");
    let id = added.stdout.trim();
    let job = schedule("covered");
    case.fleet.until(&job, "succeeded");
    let entries = case.entries("job_approved");
    let entry = entries.last().expect("is on the record");
    assert_eq!(
        (
            &entry["details"]["standing"],
            &entry["details"]["approvers"][0]
        ),
        (&id.into(), &"carol".into())
    );
    let listed = case.fleet.list(&["approval", "standing", "list"]);
    assert_eq!(listed.len(), 2, "{listed:?}");

    fs::write(&file, "#!/bin/sh\necho other\n").expect("writes");
    add_script();
    assert_eq!(case.why(&schedule("next"))["reason"], "approval");
    let revoked = case.sluice(&case.dave, &["approval", "standing", "revoke", id]);
    assert_eq!(revoked.code, 0, "{revoked:?}");
    let options = ["run", "--script", "greet@1", "--on", "m1", "--detach"];
    let output = case.sluice(&case.bob, &options);
    assert_eq!(case.why(output.stdout.trim())["reason"], "approval");
}

#[test]
fn a_policy_is_an_administrators_to_set_and_the_record_says_where_it_is_weaker() {
    let case = Case::new(1, "[[rules]]\napprovers = 2\n");
    let file = case.write("weaker.toml", "[[rules]]\n");
    let set = ["approval", "policy", "set", &file];
    let denied = case.sluice(&case.bob, &set);
    denied.expect_refused();
    assert!(denied.stderr.contains("Administer"), "{denied:?}");
    assert_eq!(case.fleet.sluice(&set).code, 0);
    for (text, why) in [
        ("[[rules]]\napprovers = 0\n", "0 approvers"),
        ("[[rules]]\ntarget = 3\n", "target"),
        ("expires = \"8d\"\n", "at most 7d"),
    ] {
        let file = case.write("wrong.toml", text);
        let refused = case.fleet.sluice(&["approval", "policy", "set", &file]);
        refused.expect_refused();
        assert!(refused.stderr.contains(why), "{refused:?}");
    }
    let shown = case.fleet.sluice(&["approval", "policy", "show"]);
    let file = case.write("shown.toml", &shown.stdout);
    assert_eq!(
        case.fleet
            .sluice(&["approval", "policy", "set", &file])
            .code,
        0
    );
    let entries = case.entries("approval_policy_set");
    let weaker: Vec<_> = entries
        .iter()
        .map(|entry| entry["details"]["weaker"].clone())
        .collect();
    assert_eq!(weaker, [false, true, false]);
    let revisions = case.fleet.list(&["approval", "policy", "revisions"]);
    assert_eq!((revisions.len(), &revisions[0]["revision"]), (3, &3.into()));
}

#[test]
fn of_the_rules_that_hold_the_one_counts_that_asks_for_most() {
    let case = Case::new(
        2,
        "[[rules]]\ntargets = 2\n\n[[rules]]\napprovers = 2\nrun_as = [\"root\"]\ntags = [\"env=production\"]\n",
    );
    let tagged = case
        .fleet
        .sluice(&["machine", "tag", "m2", "env=production"]);
    assert_eq!(tagged.code, 0, "{tagged:?}");
    let job = case.submit(HI, &["--all", "--as", "root"]);
    let why = case.why(&job);
    assert_eq!(
        (&why["needed"], &why["because"]),
        (
            &2.into(),
            &Value::from(vec![
                "it is for 2 machines",
                "it is for 1 machine with env=production and runs as root"
            ])
        ),
        "{why:#}"
    );
    // Root elsewhere, and another user there, are below it; that it is root is for the machine to judge.
    for (options, state) in [
        (&["--on", "m1", "--as", "root"][..], "blocked"),
        (&["--on", "m2"], "succeeded"),
    ] {
        let job = case.submit(HI, options);
        case.fleet.until(&job, state);
    }
}

#[test]
fn nobody_approves_their_own_job_by_another_of_their_tokens() {
    let case = Case::new(1, "[[rules]]\n");
    let [laptop, phone] = case.two_tokens_of("erin", &["operator", "approver"]);
    let file = case.write("script.sh", HI);
    let submitted = case.sluice(&laptop, &["run", &file, "--on", "m1", "--detach"]);
    assert_eq!(submitted.code, 0, "{submitted:?}");
    let job = submitted.stdout.trim();
    for token in [&laptop, &phone] {
        let own = case.approve(token, job);
        own.expect_refused();
        assert!(
            own.stderr.contains(
                "erin submitted this job, and nobody approves their own; nothing was approved, another operator with ApproveJobs has to"
            ),
            "{own:?}"
        );
    }
    assert_eq!(case.entries("script_approval_refused").len(), 2);
    assert_eq!(case.why(job)["approved"], Value::Array(Vec::new()));
    case.approves(&case.carol, job);
    case.fleet.until(job, "succeeded");
}

#[test]
fn who_lacks_the_permission_to_approve_is_told_which_and_that_is_on_the_record() {
    let case = Case::new(1, "[[rules]]\n");
    let fay = case
        .fleet
        .token_with("fay", &["RemoteExecution", "ReadJobs"]);
    let job = case.submit(HI, &["--on", "m1"]);
    for verb in ["approve", "deny"] {
        let denied = case.sluice(&fay, &["job", verb, &job]);
        denied.expect_refused();
        assert!(denied.stderr.contains("ApproveJobs"), "{denied:?}");
    }
    let entries = case.entries("permission_denied");
    assert_eq!(entries.len(), 2, "{entries:#?}");
    for entry in entries {
        assert_eq!(
            (
                &entry["operator"],
                &entry["job"],
                &entry["details"]["permission"]
            ),
            (&"fay".into(), &job.as_str().into(), &"ApproveJobs".into()),
            "{entry:#}"
        );
    }
    assert_eq!(case.why(&job)["approved"], Value::Array(Vec::new()));
}

#[test]
fn an_approval_that_is_given_for_a_time_counts_no_more_after_it() {
    let case = Case::new(1, "[[rules]]\napprovers = 2\n");
    let job = case.submit(HI, &["--on", "m1"]);
    let short = case.sluice(&case.carol, &["job", "approve", &job, "--expires", "1s"]);
    assert_eq!(short.code, 0, "{short:?}");
    let void = eventually("carol's is over", || {
        let why = case.why(&job);
        why["approved"][0]["void"].as_str().map(str::to_owned)
    });
    assert!(void.starts_with("it was good until "), "{void}");
    case.approves(&case.dave, &job);
    assert_eq!(case.why(&job)["reason"], "approval");
    assert!(case.nothing_started());
    case.approves(&case.carol, &job);
    case.fleet.until(&job, "succeeded");
}

#[test]
fn a_machine_that_is_revoked_makes_an_approval_void_and_one_that_gets_the_tag_does_not_come_in() {
    let case = Case::new(3, "[[rules]]\napprovers = 2\n");
    let tag = |machine: &str| {
        let tagged = case.fleet.sluice(&["machine", "tag", machine, "role=web"]);
        assert_eq!(tagged.code, 0, "{tagged:?}");
    };
    tag("m1");
    tag("m2");
    let job = case.submit(HI, &["--tag", "role=web"]);
    let seen = case.why(&job)["digest"].as_str().expect("text").to_owned();
    case.approves(&case.carol, &job);
    tag("m3");
    let why = case.why(&job);
    assert_eq!(
        (&why["digest"], &why["approved"][0]["void"]),
        (&seen.as_str().into(), &Value::Null),
        "the set was fixed when the job was made"
    );
    let revoked = case.fleet.sluice(&["machine", "revoke", "m2"]);
    assert_eq!(revoked.code, 0, "{revoked:?}");
    let why = case.why(&job);
    assert_eq!(
        why["approved"][0]["void"], "a machine was taken out of the job since",
        "{why:#}"
    );
    let changed = case.sluice(&case.dave, &["job", "approve", &job, "--digest", &seen]);
    changed.expect_refused();
    assert!(changed.stderr.contains("not what was seen"), "{changed:?}");
    case.approves(&case.dave, &job);
    assert_eq!(case.why(&job)["reason"], "approval");
    assert!(case.nothing_started());
    case.approves(&case.carol, &job);
    let names = eventually("it ran on m1", || {
        let operations = case.fleet.list(&["job", "show", &job]);
        let state = &operations[0]["state"];
        let machines = operations.iter().map(|one| one["machine"].clone());
        (state == "succeeded").then(|| machines.collect::<Vec<_>>())
    });
    assert_eq!(names, ["m1", "m2"]);
    assert!(!case.fleet.agents[2].machine.has_started_something());
}

#[test]
fn what_is_approved_in_advance_by_digest_covers_that_script_with_those_parameters_for_its_time() {
    const GREET: &str =
        "#!/bin/sh\n# /// sluice\n# [parameters.mode]\n# as = \"argument\"\n# ///\necho \"$1\"\n";
    let case = Case::new(1, "[[rules]]\n");
    let with = |mode: &str| {
        let mode = format!("mode={mode}");
        case.submit(GREET, &["--on", "m1", "--param", &mode])
    };
    let held = with("quick");
    let entries = case.entries("job_held");
    let sha256 = entries[0]["script_sha256"].as_str().expect("is text");
    let add = |expires: &str| {
        let options = [
            "approval",
            "standing",
            "add",
            "--sha256",
            sha256,
            "--as",
            "default",
            "--param",
            "mode=quick",
            "--targets",
            "1",
            "--expires",
            expires,
        ];
        let added = case.sluice(&case.carol, &options);
        assert_eq!(added.code, 0, "{added:?}");
        added.stdout.trim().to_owned()
    };
    let standing = add("1h");
    let covered = with("quick");
    case.fleet.until(&covered, "succeeded");
    assert_eq!(
        case.why(&held)["reason"],
        "approval",
        "it was submitted before"
    );
    let other = GREET.replace("echo", "echo now");
    for (text, mode) in [(GREET, "mode=full"), (other.as_str(), "mode=quick")] {
        let job = case.submit(text, &["--on", "m1", "--param", mode]);
        assert_eq!(case.why(&job)["reason"], "approval", "{text}");
    }
    let revoked = case.sluice(&case.dave, &["approval", "standing", "revoke", &standing]);
    assert_eq!(revoked.code, 0, "{revoked:?}");
    let short = add("1s");
    eventually("it is over", || {
        let list = case.fleet.list(&["approval", "standing", "list"]);
        (!list.iter().any(|one| one["id"] == short.as_str())).then_some(())
    });
    let late = with("quick");
    assert_eq!(case.why(&late)["reason"], "approval");
    for (expires, said) in [("0s", "0ms"), ("91d", "91d")] {
        let wrong = case.sluice(
            &case.carol,
            &[
                "approval",
                "standing",
                "add",
                "--sha256",
                sha256,
                "--as",
                "default",
                "--no-param",
                "--targets",
                "1",
                "--expires",
                expires,
            ],
        );
        wrong.expect_refused();
        assert!(wrong.stderr.contains(said), "{wrong:?}");
    }
}

#[test]
fn of_an_approval_and_a_cancel_at_the_same_moment_each_job_has_one_end() {
    let case = Case::new(1, "[[rules]]\n");
    for _ in 0..6 {
        let job = case.submit(HI, &["--on", "m1"]);
        let (approved, canceled) = std::thread::scope(|scope| {
            let approved = scope.spawn(|| case.approve(&case.carol, &job));
            let canceled = scope.spawn(|| case.sluice(&case.bob, &["job", "cancel", &job]));
            (
                approved.join().expect("ends"),
                canceled.join().expect("ends"),
            )
        });
        let ended = eventually("it has ended", || {
            let shown = case.fleet.show(&job);
            let state = shown.text("state");
            ["succeeded", "canceled"]
                .contains(&state.as_str())
                .then_some(shown)
        });
        if approved.code != 0 {
            approved.expect_refused();
            assert!(approved.stderr.contains("nothing was "), "{approved:?}");
            assert_eq!(canceled.code, 0, "{canceled:?}");
            assert_eq!(ended.text("state"), "canceled", "{ended:#?}");
            assert!(ended.json["started_at"].is_null(), "{ended:#?}");
        }
        if ended.text("state") == "succeeded" {
            assert_eq!(approved.code, 0, "{approved:?}");
        }
        case.approve(&case.carol, &job).expect_refused();
    }
}
