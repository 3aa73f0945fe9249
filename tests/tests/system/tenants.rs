//! The provider and its customers, through the real host, machines and command line: two tenants, with a machine in each.

use serde_json::Value;
use sluice_tests::{Fleet, Output, eventually};

use crate::schedules::seconds_from_now;

/// Machines without gates of their own: what is looked at here is who gets where.
const NO_GATES: &str = "[gates]\nstages = []\n";

/// A host with the customers `acme` and `globex`. Each has an owner and a machine `m1`; nobody of the provider has a grant.
struct Company {
    fleet: Fleet,
    acme: String,
    globex: String,
}

impl Company {
    fn start() -> Self {
        let fleet = Fleet::builder().agents(0).without_gates().start();
        let mut company = Self {
            acme: customer(&fleet, "acme"),
            globex: customer(&fleet, "globex"),
            fleet,
        };
        for token in [company.acme.clone(), company.globex.clone()] {
            let folder = if token == company.acme {
                "acme-m1"
            } else {
                "globex-m1"
            };
            company.fleet.add_machine_of(&token, folder, NO_GATES);
            done(&company.fleet, &token, &["machine", "rename", folder, "m1"]);
        }
        company
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.fleet.folder().join(name);
        std::fs::write(&path, text).expect("writes");
        path.to_str().expect("is text").to_owned()
    }

    /// A technician of the provider who may do nothing there, and a token of theirs.
    fn technician(&self, name: &str) -> String {
        let (fleet, admin) = (&self.fleet, &self.fleet.token);
        let nothing = self.file("nothing.cedar", NOTHING);
        done(fleet, admin, &["role", "set", "nothing", &nothing]);
        done(
            fleet,
            admin,
            &["operator", "create", name, "--role", "nothing"],
        );
        let own = format!("{name}-1");
        done(fleet, admin, &["token", "create", &own, "--operator", name])
    }
}

/// A role has to say something.
const NOTHING: &str = "forbid (principal, action == Action::\"Administer\", resource);\n";

/// Makes a tenant with an owner of its own, and takes back what that needed.
fn customer(fleet: &Fleet, name: &str) -> String {
    let admin = &fleet.token;
    done(fleet, admin, &["tenant", "create", name]);
    let grant = done(
        fleet,
        admin,
        &["grant", "add", "admin", "--tenant", name, "--role", "owner"],
    );
    done(
        fleet,
        admin,
        &[
            "operator", "create", "boss", "--role", "owner", "--tenant", name,
        ],
    );
    let token = [
        "token",
        "create",
        "boss-1",
        "--operator",
        "boss",
        "--tenant",
        name,
    ];
    let invitation = done(fleet, admin, &token);
    // What the grant made ends with it: the boss takes a token of their own.
    let own = ["token", "create", "boss-2", "--operator", "boss"];
    let token = done(fleet, &invitation, &own);
    done(fleet, admin, &["grant", "revoke", &grant]);
    token
}

fn sluice(fleet: &Fleet, token: &str, arguments: &[&str]) -> Output {
    let mut command = fleet.command();
    command.env("SLUICE_TOKEN", token).args(arguments);
    Output::of(&command.output().expect("sluice was built"))
}

/// What works.
#[track_caller]
fn done(fleet: &Fleet, token: &str, arguments: &[&str]) -> String {
    let output = sluice(fleet, token, arguments);
    assert_eq!(output.code, 0, "{arguments:?}: {output:?}");
    output.stdout.trim().to_owned()
}

#[track_caller]
fn refused(fleet: &Fleet, token: &str, arguments: &[&str]) -> String {
    let output = sluice(fleet, token, arguments);
    output.expect_refused();
    output.stderr
}

#[track_caller]
fn list(fleet: &Fleet, token: &str, arguments: &[&str]) -> Vec<Value> {
    let text = done(fleet, token, &[arguments, &["--json"]].concat());
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("is JSON"))
        .collect()
}

/// One of everything that a tenant can have, and what its things are called.
fn fill(company: &Company, token: &str, secret: &str) -> Vec<(&'static str, String)> {
    let fleet = &company.fleet;
    let script = company.file("a.sh", &format!("#!/bin/sh\necho {secret}\n"));
    let value = company.file("value", secret);
    let value = format!("@{value}");
    done(fleet, token, &["script", "add", &script, "--name", secret]);
    done(fleet, token, &["secret", "set", secret, &value]);
    done(
        fleet,
        token,
        &["operator", "create", secret, "--role", "viewer"],
    );
    let at = [
        "schedule", "add", secret, &script, "--every", "1d", "--on", "m1",
    ];
    done(fleet, token, &at);
    let ran = list(
        fleet,
        token,
        &["run", &script, "--on", "m1", "--attach", &script],
    );
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    assert_eq!(ran[0]["state"], "succeeded", "{ran:#?}");
    let machine = list(fleet, token, &["machine", "list"]);
    let tokens = list(fleet, token, &["token", "list"]);
    let enroll = done(fleet, token, &["machine", "enroll-token"]);
    assert!(enroll.starts_with("sluice1."));
    let enroll = list(fleet, token, &["machine", "enroll-tokens"]);
    vec![
        ("job", text(&ran[0]["job"])),
        ("operation", text(&ran[0]["operation"])),
        ("machine", text(&machine[0]["id"])),
        ("token", text(&tokens[0]["id"])),
        ("enroll-token", text(&enroll[0]["id"])),
        ("name", secret.to_owned()),
    ]
}

#[test]
fn nothing_of_one_tenant_is_seen_used_or_changed_by_another() {
    let company = Company::start();
    let (fleet, acme, globex) = (&company.fleet, &company.acme, &company.globex);
    let things = fill(&company, acme, "acme-only");
    let named = |kind: &str| {
        let found = things.iter().find(|(name, _)| *name == kind);
        found.expect("is there").1.clone()
    };
    let lists = [
        "job list",
        "machine list",
        "script list",
        "schedule list",
        "secret list",
        "token list",
        "operator list",
        "role list",
        "audit list",
        "plugin list",
        "machine enroll-tokens",
        "tenant list",
        "grant list",
    ];
    let seen = |token: &str| -> Vec<String> {
        let lists = lists.iter().map(|line| line.split(' ').collect::<Vec<_>>());
        lists
            .map(|line| done(fleet, token, &[line.as_slice(), &["--json"]].concat()))
            .collect()
    };
    let (before, theirs) = (seen(acme), seen(globex).concat());
    for (kind, name) in &things {
        assert!(!theirs.contains(name.as_str()), "{kind} {name}: {theirs}");
    }
    let (job, operation) = (named("job"), named("operation"));
    let (machine, name) = (named("machine"), named("name"));
    let text = company.file("b.sh", "#!/bin/sh\necho theirs\n");
    let version = format!("{name}@1");
    for arguments in [
        vec!["job", "show", &job],
        vec!["job", "show", &job, "--fold"],
        vec!["job", "show", &job, "--receipts"],
        vec!["job", "output", &job],
        vec!["job", "output", &operation],
        vec!["job", "cancel", &job],
        vec!["job", "pause", &job],
        vec!["job", "approve", &job],
        vec!["plugin", "replay", &operation],
        vec!["machine", "show", &machine],
        vec!["machine", "tag", &machine, "a=b"],
        vec!["machine", "revoke", &machine],
        vec!["machine", "release", &machine],
        vec!["script", "show", &name],
        vec!["script", "versions", &name],
        vec!["script", "archive", &name],
        vec!["script", "redact", &version],
        vec!["run", "--script", &name, "--on", "m1"],
        vec!["run", &text, "--on", "m1", "--secret", &name],
        vec!["schedule", "show", &name],
        vec!["schedule", "pause", &name],
        vec!["schedule", "remove", &name],
        vec!["secret", "rotate", &name, "-"],
        vec!["secret", "revoke", &name],
        vec!["operator", "remove", &name],
        vec!["token", "create", "x", "--operator", &name],
        vec!["tenant", "show", "acme"],
    ] {
        refused(fleet, globex, &arguments);
        // Neither by saying whose it is, and the answer is that for a tenant that is not there.
        let foreign = |tenant| {
            let said = refused(
                fleet,
                globex,
                &[&["--tenant", tenant], arguments.as_slice()].concat(),
            );
            said.replace(tenant, "T")
        };
        if arguments[0] != "tenant" {
            assert_eq!(foreign("acme"), foreign("nowhere"), "{arguments:?}");
            assert_eq!(foreign("acme"), foreign("default"), "{arguments:?}");
        }
    }
    for (verb, kind) in [("revoke", "token"), ("revoke-enroll-token", "enroll-token")] {
        let noun = if kind == "token" { "token" } else { "machine" };
        refused(fleet, globex, &[noun, verb, &named(kind)]);
    }
    let tagged = sluice(fleet, globex, &["run", &text, "--tag", "of=acme"]);
    assert_eq!(tagged.code, 123, "no machine has it: {tagged:?}");
    // Its id is no machine of theirs, and whoever means all means their own.
    let ran = list(fleet, globex, &["run", &text, "--all"]);
    assert_eq!((ran.len(), &ran[0]["tenant"]), (1, &"globex".into()));
    let missed = sluice(fleet, globex, &["run", &text, "--on", &machine, "--json"]);
    assert!(missed.stdout.contains("Machine not found"), "{missed:?}");
    for ((what, before), after) in lists.iter().zip(&before).zip(seen(acme)) {
        // A machine says now and then how it is.
        if *what != "machine list" {
            assert_eq!(
                *before, after,
                "{what}: nothing was changed, and nothing is on their record"
            );
        }
    }
}

#[test]
fn a_key_a_file_and_a_name_are_each_tenants_own() {
    let company = Company::start();
    let (fleet, acme, globex) = (&company.fleet, &company.acme, &company.globex);
    let script = company.file("same.sh", "#!/bin/sh\necho same\n");
    let jobs: Vec<_> = [acme, globex]
        .map(|token| {
            let run = [
                "run",
                &script,
                "--on",
                "m1",
                "--idempotency-key",
                "k",
                "--attach",
                &script,
            ];
            let ran = list(fleet, token, &run);
            assert_eq!(ran[0]["state"], "succeeded", "{ran:#?}");
            ran[0]["job"].clone()
        })
        .into();
    assert_ne!(jobs[0], jobs[1]);
    // The same bytes are kept once for each.
    let folders = std::fs::read_dir(fleet.host.data().join("blobs")).expect("reads");
    let mut tenants = 0;
    for folder in folders.flatten().filter(|entry| entry.path().is_dir()) {
        let files = std::fs::read_dir(folder.path()).expect("reads").flatten();
        tenants += usize::from(files.count() > 0);
    }
    assert_eq!(tenants, 2);
    for (token, name) in [(acme, "acme"), (globex, "globex")] {
        let machines = list(fleet, token, &["machine", "list"]);
        assert_eq!(
            (machines.len(), &machines[0]["name"], &machines[0]["tenant"]),
            (1, &"m1".into(), &name.into())
        );
        let verified = sluice(fleet, token, &["audit", "verify"]);
        assert_eq!(verified.code, 0, "{verified:?}");
        let entries = list(fleet, token, &["audit", "list"]);
        assert!(
            entries.iter().all(|entry| entry["tenant"] == name),
            "{entries:#?}"
        );
    }
}

#[test]
fn a_technician_works_where_they_were_granted_and_the_tenant_sees_by_which_grant() {
    let company = Company::start();
    let (fleet, admin) = (&company.fleet, company.fleet.token.clone());
    let tim = company.technician("tim");
    let script = company.file("a.sh", "#!/bin/sh\necho helped\n");
    let run = ["run", &script, "--on", "m1", "--tenant", "acme"];
    let nowhere = refused(fleet, &tim, &run);
    assert!(
        nowhere.contains("there is no tenant acme for this token"),
        "{nowhere}"
    );
    let add = [
        "grant", "add", "tim", "--tenant", "acme", "--role", "operator",
    ];
    let grant = done(fleet, &admin, &add);
    assert_eq!(done(fleet, &tim, &run), "helped");
    // By the environment too, and nowhere else.
    let mut command = fleet.command();
    command
        .env("SLUICE_TOKEN", &tim)
        .env("SLUICE_TENANT", "acme");
    let listed = Output::of(&command.args(["machine", "list"]).output().expect("runs"));
    assert!(
        listed.code == 0 && listed.stdout.contains("m1"),
        "{listed:?}"
    );
    refused(fleet, &tim, &["machine", "list", "--tenant", "globex"]);
    refused(fleet, &tim, &["machine", "list"]);
    refused(fleet, &tim, &["operator", "list", "--tenant", "acme"]);
    let names: Vec<_> = list(fleet, &tim, &["tenant", "list"])
        .into_iter()
        .map(|tenant| (tenant["name"].clone(), tenant["grant"]["roles"][0].clone()))
        .collect();
    assert_eq!(
        names,
        [
            ("acme".into(), "operator".into()),
            ("default".into(), Value::Null)
        ]
    );
    let entries = list(fleet, &company.acme, &["audit", "list"]);
    let attempts: Vec<_> = entries
        .iter()
        .filter(|entry| entry["event"] == "script_execution_attempt")
        .map(|entry| {
            (
                entry["operator"].clone(),
                entry["details"]["by_grant"].clone(),
            )
        })
        .collect();
    assert_eq!(attempts, [("provider/tim".into(), grant.as_str().into())]);
    let grants = list(fleet, &company.acme, &["grant", "list"]);
    let last = grants.last().expect("is listed");
    assert_eq!(
        (&last["operator"], &last["state"], &last["created_by"]),
        (
            &"provider/tim".into(),
            &"active".into(),
            &"provider/admin".into()
        )
    );
    // A schedule of theirs runs with what they may do then.
    let at = seconds_from_now(4);
    let schedule = [
        "schedule", "add", "late", &script, "--at", &at, "--on", "m1", "--tenant", "acme",
    ];
    done(fleet, &tim, &schedule);
    done(fleet, &admin, &["grant", "revoke", &grant]);
    refused(fleet, &tim, &run);
    let shown = eventually("the schedule has run, or not", || {
        let shown = list(fleet, &company.acme, &["schedule", "show", "late"]).swap_remove(0);
        Some(shown["last"].clone()).filter(|last| last["state"] != "waiting" && !last.is_null())
    });
    assert_eq!(shown["state"], "missed", "{shown:#}");
    let reason = shown["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("there is no tenant acme for this token"),
        "{reason}"
    );
}

#[test]
fn a_grant_for_some_seconds_ends_by_itself_and_ends_the_stream_of_a_job() {
    let company = Company::start();
    let (fleet, admin) = (&company.fleet, company.fleet.token.clone());
    let tim = company.technician("tim");
    let script = company.file(
        "long.sh",
        "#!/bin/sh\nwhile :; do echo on; sleep 0.2; done\n",
    );
    let add = [
        "grant", "add", "tim", "--tenant", "acme", "--role", "operator", "--for", "5s",
    ];
    done(fleet, &admin, &add);
    // Followed until the grant ends; the job goes on.
    let run = [
        "run",
        &script,
        "--on",
        "m1",
        "--tenant",
        "acme",
        "--time-limit",
        "1m",
    ];
    let followed = sluice(fleet, &tim, &run);
    assert!(followed.stdout.contains("on\n"), "{followed:?}");
    assert!(
        followed.stderr.contains("there is no tenant acme"),
        "{followed:?}"
    );
    let jobs = list(fleet, &company.acme, &["job", "list"]);
    let job = jobs[0]["job"].as_str().expect("text");
    let state = |job: &str| list(fleet, &company.acme, &["job", "show", job]).swap_remove(0);
    assert_eq!(state(job)["state"], "running");
    done(fleet, &company.acme, &["job", "cancel", job]);
    eventually("it is canceled", || {
        (state(job)["state"] == "canceled").then_some(())
    });
    let grants = list(fleet, &admin, &["grant", "list", "--tenant", "acme"]);
    assert_eq!(grants.last().expect("is listed")["state"], "expired");
}

#[test]
fn a_tenant_keeps_the_provider_out_at_once_and_that_is_on_both_records() {
    let company = Company::start();
    let (fleet, admin) = (&company.fleet, company.fleet.token.clone());
    let add = [
        "grant", "add", "admin", "--tenant", "acme", "--role", "owner",
    ];
    done(fleet, &admin, &add);
    let look = ["machine", "list", "--tenant", "acme"];
    done(fleet, &admin, &look);
    let by_grant = ["tenant", "provider-access", "deny"];
    // The provider's own cannot say so, nor anybody by a grant.
    refused(fleet, &admin, &by_grant);
    done(fleet, &company.acme, &by_grant);
    refused(fleet, &admin, &look);
    let shown = list(fleet, &admin, &["tenant", "show", "acme"]).swap_remove(0);
    assert_eq!(
        (&shown["provider_access"], &shown["grant"]["state"]),
        (&"denied".into(), &"denied".into())
    );
    for token in [&admin, &company.acme] {
        let entries = list(fleet, token, &["audit", "list"]);
        let denied = entries
            .iter()
            .filter(|entry| entry["event"] == "provider_access_denied");
        assert_eq!(denied.count(), 1);
    }
    // What the provider can still do.
    done(fleet, &admin, &["lockdown", "on"]);
    done(fleet, &admin, &["lockdown", "off"]);
    done(
        fleet,
        &company.acme,
        &["tenant", "provider-access", "allow"],
    );
    done(fleet, &admin, &look);
}

#[test]
fn an_archived_tenant_runs_nothing_and_can_be_looked_at() {
    let mut company = Company::start();
    let (acme, globex) = (company.acme.clone(), company.globex.clone());
    let admin = company.fleet.token.clone();
    let script = company.file("long.sh", "#!/bin/sh\nsleep 20\n");
    let (fleet, job) = (&company.fleet, {
        let detached = ["run", &script, "--on", "m1", "--detach"];
        done(&company.fleet, &acme, &detached)
    });
    let late = done(fleet, &acme, &["machine", "enroll-token"]);
    let state = |job: &str| list(fleet, &acme, &["job", "show", job]).swap_remove(0);
    eventually("it runs", || {
        (state(&job)["state"] == "running").then_some(())
    });
    refused(fleet, &acme, &["tenant", "archive", "acme"]);
    refused(fleet, &admin, &["tenant", "archive", "default"]);
    done(fleet, &admin, &["tenant", "archive", "acme"]);
    assert_eq!(state(&job)["state"], "interrupted");
    refused(fleet, &acme, &["run", &script, "--on", "m1"]);
    refused(fleet, &acme, &["operator", "list"]);
    assert_eq!(sluice(fleet, &acme, &["audit", "verify"]).code, 0);
    let enrolled = Output::of(&fleet.machine("late", NO_GATES).enroll(&late));
    assert!(enrolled.code != 0, "{enrolled:?}");
    let connected = |fleet: &Fleet, token: &str| {
        list(fleet, token, &["machine", "list"])[0]["connected"] == true
    };
    eventually("its machine is gone", || {
        (!connected(fleet, &acme)).then_some(())
    });
    // The others are as they were.
    let fine = company.file("fine.sh", "#!/bin/sh\necho fine\n");
    assert_eq!(done(fleet, &globex, &["run", &fine, "--on", "m1"]), "fine");
    // Also after a restart nobody of it is let in.
    company.fleet.host.kill_and_restart();
    company.fleet.agents[1].restart();
    eventually("the other machine is back", || {
        connected(&company.fleet, &globex).then_some(())
    });
    let agent = &mut company.fleet.agents[0];
    agent.restart();
    // Its agent is told that it is of no fleet any more, and ends.
    agent.ended();
    assert!(!connected(&company.fleet, &acme));
}

#[test]
fn a_tenant_with_another_name_is_the_same_and_whoever_takes_the_old_one_gets_nothing() {
    let company = Company::start();
    let (fleet, acme, admin) = (&company.fleet, &company.acme, &company.fleet.token);
    let script = company.file("a.sh", "#!/bin/sh\necho same\n");
    done(fleet, acme, &["script", "add", &script, "--name", "a"]);
    done(fleet, admin, &["tenant", "rename", "acme", "zenith"]);
    let ran = list(fleet, acme, &["run", "--script", "a", "--on", "m1"]);
    assert_eq!(
        (&ran[0]["tenant"], &ran[0]["state"]),
        (&"zenith".into(), &"succeeded".into())
    );
    assert_eq!(sluice(fleet, acme, &["audit", "verify"]).code, 0);
    let taken = refused(fleet, admin, &["tenant", "create", "zenith"]);
    assert!(
        taken.contains("there is a tenant zenith already"),
        "{taken}"
    );
    let next = customer(fleet, "acme");
    assert!(list(fleet, &next, &["script", "list"]).is_empty());
    assert!(list(fleet, &next, &["machine", "list"]).is_empty());
    refused(fleet, acme, &["script", "list", "--tenant", "acme"]);
}

#[test]
fn a_script_that_is_offered_runs_as_it_is_at_whom_it_was_offered_to_and_until_it_is_withdrawn() {
    let company = Company::start();
    let (fleet, acme, globex) = (&company.fleet, &company.acme, &company.globex);
    let admin = &fleet.token;
    for text in ["one", "two"] {
        let script = company.file("fix.sh", &format!("#!/bin/sh\necho {text}\n"));
        done(fleet, admin, &["script", "add", &script, "--name", "fix"]);
    }
    let offered = list(fleet, admin, &["offer", "add", "fix@1", "--to", "acme"]);
    let digest = offered[0]["script_sha256"].clone();
    let run = ["run", "--script", "provider/fix", "--on", "m1"];
    let ran = list(fleet, acme, &run);
    assert_eq!(
        (&ran[0]["state"], &ran[0]["script_sha256"]),
        (&"succeeded".into(), &digest),
        "{ran:#?}"
    );
    assert_eq!(done(fleet, acme, &run), "one");
    let newer = ["run", "--script", "provider/fix@2", "--on", "m1"];
    refused(fleet, acme, &newer);
    refused(fleet, globex, &run);
    let shown = list(fleet, acme, &["script", "list"]).swap_remove(0);
    assert_eq!(
        (&shown["name"], shown["offered"].to_string()),
        (&"provider/fix".into(), "[1]".to_owned())
    );
    for change in [
        ["script", "archive", "provider/fix"],
        ["script", "redact", "provider/fix@1"],
    ] {
        let said = refused(fleet, acme, &change);
        assert!(said.contains("which alone can change it"), "{said}");
    }
    refused(fleet, acme, &["offer", "list"]);
    let offer = offered[0]["offer"].as_str().expect("text");
    done(fleet, admin, &["offer", "withdraw", offer]);
    let said = refused(fleet, acme, &run);
    assert!(
        said.contains("does not offer provider/fix any more"),
        "{said}"
    );
    // What ran is there still.
    let job = ran[0]["job"].as_str().expect("text");
    assert_eq!(
        list(fleet, acme, &["job", "show", job])[0]["state"],
        "succeeded"
    );
}
