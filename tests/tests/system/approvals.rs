//! What a policy blocks until another operator approves it, through the real host, machine and command line.

use serde_json::Value;
use sluice_tests::{Fleet, Outcome, Output};

use crate::shipped::rebind;
use crate::trust::publisher;

/// A script with a finding of medium severity that runs nothing of it.
const SCAN: &str = "#!/bin/sh\necho ran\nexit 0\nnmap 203.0.113.0/24\n";

/// Operators whose tokens do not come from each other, and gates that want findings of medium severity approved.
struct Case {
    fleet: Fleet,
    bob: String,
    carol: String,
}

impl Case {
    fn new(policy: &str) -> Self {
        let fleet = Fleet::builder().policy(policy).start();
        rebind(&fleet, "policy", "approve-from = \"medium\"\n");
        let bob = fleet.token_with("bob", &["RemoteExecution", "ApproveJobs"]);
        let carol = fleet.token_with("carol", &["ApproveJobs"]);
        Self { fleet, bob, carol }
    }

    fn sluice(&self, token: &str, arguments: &[&str]) -> Output {
        let mut command = self.fleet.command();
        command.env("SLUICE_TOKEN", token).args(arguments);
        Output::of(&command.output().expect("sluice was built"))
    }

    /// Bob runs a script of this text, which is blocked; gives the job.
    fn blocked(&self, text: &str) -> String {
        let file = self.fleet.folder().join("script.sh");
        std::fs::write(&file, text).expect("writes");
        let file = file.to_str().expect("is text");
        let output = self.sluice(&self.bob, &["run", file, "--on", "m1", "--json"]);
        let json: Value = serde_json::from_str(output.stdout.trim()).expect("is JSON");
        assert_eq!(
            (output.code, &json["state"], &json["code"]),
            (126, &"blocked".into(), &"approval-required".into()),
            "{json:#}"
        );
        let notes = json["notes"].to_string();
        assert!(notes.contains("sluice job approve"), "{notes}");
        json["job"].as_str().expect("is text").to_owned()
    }

    /// `sluice job approve JOB`, and the job that it makes.
    fn approve(&self, job: &str) -> String {
        let output = self.sluice(&self.carol, &["job", "approve", job, "--json"]);
        assert_eq!(output.code, 0, "{output:?}");
        let made: Value = serde_json::from_str(output.stdout.trim()).expect("is JSON");
        assert_eq!(
            (&made["approves"], &made["approved_by"], &made["operator"]),
            (&job.into(), &"carol".into(), &"bob".into())
        );
        made["job"].as_str().expect("is text").to_owned()
    }

    /// The entries of the audit log with this event.
    fn entries(&self, event: &str) -> Vec<Value> {
        let mut entries = self.fleet.list(&["audit", "list"]);
        entries.retain(|entry| entry["event"] == event);
        entries
    }
}

fn expect_code(outcome: &Outcome, code: &str) {
    assert_eq!(outcome.text("code"), code, "{outcome:#?}");
    assert!(outcome.json["started_at"].is_null(), "{outcome:#?}");
}

#[test]
fn what_a_policy_wants_approved_runs_once_another_operator_approves_it_and_once_only() {
    let case = Case::new("");
    let job = case.blocked(SCAN);
    let own = case.sluice(&case.bob, &["job", "approve", &job]);
    own.expect_refused();
    assert!(own.stderr.contains("nobody approves their own"), "{own:?}");

    let ran = case.fleet.until(&case.approve(&job), "succeeded");
    assert_eq!(ran.text("stdout"), "ran\n");
    let notes = ran.json["notes"].to_string();
    assert!(notes.contains("carol approved it"), "{notes}");
    let blocked = case.fleet.show(&job);
    assert_eq!(
        (
            blocked.text("state").as_str(),
            &blocked.json["bundle_sha256"]
        ),
        ("blocked", &ran.json["bundle_sha256"])
    );

    let twice = case.sluice(&case.carol, &["job", "approve", &job]);
    twice.expect_refused();
    assert!(
        twice.stderr.contains("an approval is used once"),
        "{twice:?}"
    );
    // The same submitted again is another operation, which nobody has approved.
    case.blocked(SCAN);

    let (approved, refused) = (
        case.entries("script_approved"),
        case.entries("script_approval_refused"),
    );
    assert_eq!((approved.len(), refused.len()), (1, 2), "{refused:#?}");
    for (entry, operator) in [
        (&approved[0], "carol"),
        (&refused[0], "bob"),
        (&refused[1], "carol"),
    ] {
        assert_eq!(
            (
                &entry["operator"],
                &entry["machine"],
                &entry["bundle_sha256"]
            ),
            (&operator.into(), &"m1".into(), &ran.json["bundle_sha256"])
        );
    }
    let own = case.fleet.agents[0].machine.events();
    assert!(
        own.iter()
            .any(|entry| entry["details"]["approved_by"] == "carol"),
        "{own:#?}"
    );
    let shown = case.fleet.sluice(&["job", "show", &ran.text("job")]);
    assert!(
        shown.stdout.contains("approved by") && shown.stdout.contains("carol"),
        "{shown:?}"
    );
}

#[test]
fn an_approval_needs_its_permission_and_something_that_waits_for_it() {
    let case = Case::new("");
    let job = case.blocked(SCAN);
    let dora = case
        .fleet
        .token_with("dora", &["RemoteExecution", "Administer"]);
    let denied = case.sluice(&dora, &["job", "approve", &job]);
    denied.expect_refused();
    assert!(denied.stderr.contains("ApproveJobs"), "{denied:?}");
    for (arguments, why) in [
        (vec!["job", "approve", "no-such-job"], "no such job"),
        (
            vec!["job", "approve", job.as_str(), "--machine", "m2"],
            "m2 is no machine of this job",
        ),
        (
            vec!["job", "approve", job.as_str(), "--expires", "8d"],
            "at most 7d",
        ),
    ] {
        let refused = case.sluice(&case.carol, &arguments);
        refused.expect_refused();
        assert!(refused.stderr.contains(why), "{refused:?}");
    }
    let file = case.fleet.folder().join("fine.sh");
    std::fs::write(&file, "#!/bin/sh\n:\n").expect("writes");
    let file = file.to_str().expect("is text");
    let fine = case.sluice(&case.bob, &["run", file, "--on", "m1", "--detach"]);
    let fine = fine.stdout.trim();
    case.fleet.until(fine, "succeeded");
    // The first operator made the tokens of both, and so submits nothing that they could approve.
    let admins = case.fleet.detach(&sluice_tests::script("#!/bin/sh\n:\n"));
    let own = case.sluice(&case.carol, &["job", "approve", &admins]);
    own.expect_refused();
    assert!(own.stderr.contains("comes from admin"), "{own:?}");
    let nothing = case.sluice(&case.carol, &["job", "approve", fine]);
    nothing.expect_refused();
    assert!(
        nothing.stderr.contains("waits for an approval"),
        "{nothing:?}"
    );
}

#[test]
fn what_has_become_forbidden_since_stays_blocked_whoever_approves_it() {
    let case = Case::new("");
    let job = case.blocked(SCAN);
    rebind(&case.fleet, "policy", "threshold = \"medium\"\n");
    let made = case.approve(&job);
    let ended = case.fleet.until(&made, "blocked");
    assert!(ended.text("message").contains("network-scan"), "{ended:#?}");
    assert!(!case.fleet.agents[0].machine.has_started_something());
}

#[test]
fn a_gate_that_the_owner_requires_takes_the_hosts_word_only_where_the_owner_says_so() {
    let requires = |approvals: &str| {
        format!(
            "[[gates.required]]\nid = \"policy\"\npublisher = \"{}\"\nsettings = {{ approve-from = \"medium\" }}\n{approvals}",
            publisher()
        )
    };
    let case = Case::new(&requires(""));
    let job = case.blocked(SCAN);
    let made = case.approve(&job);
    expect_code(&case.fleet.until(&made, "blocked"), "approval-not-accepted");
    let again = case.sluice(&case.carol, &["job", "approve", &made]);
    again.expect_refused();
    assert!(!case.fleet.agents[0].machine.has_started_something());

    let case = Case::new(&requires("[trust]\nhost_approvals = true\n"));
    let made = case.approve(&case.blocked(SCAN));
    assert_eq!(case.fleet.until(&made, "succeeded").text("stdout"), "ran\n");
}
