//! Who runs a script: the user that was asked for, or nobody at all.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use sluice_tests::fake::{BlobFault, FakeHost, sealed};
use sluice_tests::{eventually, is_root, script};

use crate::broken_links::{data, with_attachment};
use crate::delivery::until_away;
use crate::hostile::without_gates;

/// A user of this machine, for as long as this lives.
pub(crate) struct NewUser {
    pub(crate) name: String,
}

impl NewUser {
    /// Without a login, without a home, and in the group `daemon`. None where no user can be added.
    pub(crate) fn add(test: &str) -> Option<Self> {
        let name = format!("sluice-{test}{}", std::process::id());
        let home = format!("/nonexistent/{name}");
        let mut useradd = Command::new("/usr/sbin/useradd");
        useradd.args(["--system", "--no-create-home", "--home-dir", &home]);
        useradd.args(["--shell", "/usr/sbin/nologin", "--groups", "daemon", &name]);
        match useradd.output() {
            Ok(output) if output.status.success() => Some(Self { name }),
            other => {
                eprintln!("LEFT OUT: no user can be added here: {other:?}");
                None
            }
        }
    }

    pub(crate) fn uid(&self) -> u32 {
        let found = nix::unistd::User::from_name(&self.name).expect("asks");
        found.expect("is there").uid.as_raw()
    }

    /// Gives it another home, which is not looked at.
    pub(crate) fn moves_to(&self, home: &Path) {
        self.modify("--home", home.as_os_str());
    }

    /// Gives it another uid.
    fn becomes(&self, uid: u32) {
        self.modify("--uid", uid.to_string().as_ref());
    }

    fn modify(&self, what: &str, value: &OsStr) {
        let mut usermod = Command::new("/usr/sbin/usermod");
        usermod.arg(what).arg(value).arg(&self.name);
        assert!(usermod.status().expect("is there").success());
    }
}

impl Drop for NewUser {
    fn drop(&mut self) {
        let _left_to_the_machine = Command::new("/usr/sbin/userdel").arg(&self.name).output();
    }
}

#[test]
fn no_spelling_of_a_user_becomes_another_user() {
    if !is_root() {
        return;
    }
    let fleet = without_gates("[run-as]\nusers = \"ALL\"\n");
    let id = |name: &str| fleet.run(&script("#!/bin/sh\nid -u\n").flag(&format!("--as={name}")));
    let numbers = ["0", "00", "+0", "-1", "#0", "65534", "4294967295"];
    let like_root = ["Root", "ROOT", "root ", " root", "r\u{f3}ot", "r\u{43e}ot"];
    let tricks = ["root\u{200b}", "root;id", "$(id -un)", "nobody,root"];
    for name in [&numbers[..], &like_root, &tricks].concat() {
        let outcome = id(name);
        assert_eq!(
            (outcome.text("state").as_str(), outcome.code),
            ("blocked", 126),
            "{name:?}: {outcome:#?}"
        );
        assert!(
            outcome
                .text("message")
                .starts_with("Blocked by machine policy: "),
            "{name:?}: {outcome:#?}"
        );
    }
    for name in ["", "root\n", "root:", "../root", "root\u{7}"] {
        let outcome = id(name);
        assert!(
            outcome.code == 125 && outcome.json.is_null(),
            "{name:?}: {outcome:#?}"
        );
    }
    assert!(!fleet.agents[0].machine.has_started_something());
    assert_eq!(id("root").text("stdout"), "0\n", "the owner allows all");
}

#[test]
fn a_user_without_login_and_home_runs_with_all_its_groups() {
    if !is_root() {
        return;
    }
    let Some(user) = NewUser::add("a") else {
        return;
    };
    let name = &user.name;
    let fleet = without_gates(&format!("[run-as]\nusers = [\"{name}\"]\n"));
    let text = "#!/bin/sh\nid -un\npwd\necho $USER $HOME $SHELL\ngrep Groups: /proc/self/status\n";
    let outcome = fleet.run(&script(text).as_user(name));
    outcome.expect("succeeded", "Script executed successfully");
    let stdout = outcome.text("stdout");
    let lines: Vec<_> = stdout.lines().collect();
    let variables = format!("{name} /nonexistent/{name} /usr/sbin/nologin");
    assert_eq!(lines[..3], [name.as_str(), "/", variables.as_str()]);
    let groups: BTreeSet<u64> = lines[3]
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let reported = outcome.json["context"]["gids"].as_array();
    let reported: BTreeSet<u64> = reported
        .expect("is a list")
        .iter()
        .filter_map(serde_json::Value::as_u64)
        .collect();
    let daemon = nix::unistd::Group::from_name("daemon").expect("asks");
    let daemon = u64::from(daemon.expect("is there").gid.as_raw());
    assert_eq!((groups.len(), groups.contains(&daemon)), (2, true));
    assert_eq!(reported, groups);
    let notes = outcome.json["notes"].to_string();
    assert!(notes.contains(&format!("/nonexistent/{name}")), "{notes}");
}

#[test]
fn a_user_that_is_removed_while_the_job_waits_is_refused_by_name() {
    if !is_root() {
        return;
    }
    let Some(user) = NewUser::add("b") else {
        return;
    };
    let name = user.name.clone();
    let policy = format!("[run-as]\nusers = [\"{name}\", \"nobody\", \"root\"]\n");
    let mut fleet = without_gates(&policy);
    fleet.agents[0].stop();
    until_away(&fleet);
    let job = fleet.detach(&script("#!/bin/sh\nid -u\n").as_user(&name));
    drop(user);
    fleet.agents[0].restart();
    let ended = fleet.until(&job, "blocked");
    let message = ended.text("message");
    assert!(
        message.starts_with("Blocked by machine policy: ") && message.contains(&name),
        "{message}"
    );
    assert!(!fleet.agents[0].machine.has_started_something());
}

#[test]
fn a_user_that_becomes_another_while_an_attachment_is_waited_for_runs_nothing() {
    if !is_root() {
        return;
    }
    let Some(user) = NewUser::add("d") else {
        return;
    };
    let host = FakeHost::start();
    let machine = host.machine("m1", &format!("[run-as]\nusers = [\"{}\"]\n", user.name));
    let _agent = machine.start();
    let link = host.serve();
    assert_eq!(link.gates_ready(1), [""; 0]);
    let bytes = data(9);
    host.hold(bytes.clone());
    host.let_blob_fail(BlobFault::LinkBreaksAfter(1 << 20));
    let mut operation = with_attachment(&bytes);
    operation.submission.run_as = Some(user.name.clone());
    let operation = sealed(operation);
    link.deliver(&operation);
    eventually("the link breaks", || (!link.is_up()).then_some(()));
    // A user is looked up again where the last look is older than a second.
    let since = Instant::now();
    user.becomes(user.uid() + 10_000);
    eventually("a second has passed", || {
        (since.elapsed() > Duration::from_millis(1100)).then_some(())
    });
    let (state, message) = host.serve().answered(operation.operation, 1).ending();
    assert!(
        state == "blocked" && message.contains(&user.name) && message.contains("was changed"),
        "{state} {message}"
    );
    assert!(!machine.has_started_something());
}
