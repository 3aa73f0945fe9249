//! The library, and what jobs make of it.

use sluice_api_types::job::{JobLimits, SubmitJob, Variable};
use sluice_api_types::script::{AddScript, Os, ScriptRef};
use sluice_protocol::bundle::Confinement;
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::State;
use sluice_protocol::ids::JobId;
use sluice_protocol::message::control::{Fact, FactValue};
use sluice_protocol::units::{ByteSize, Span};

use super::*;
use crate::clock::UnixMillis;
use crate::fleet::{Command, Inbox};
use crate::jobs::Machine;
use crate::jobs::{self, SubmitError};
use crate::operators::{Actor, Permission};
use crate::store::{operations, scripts};
use crate::testing::{NOW, TestHost};

const TEXT: &str = "#!/bin/sh\necho stored\n";

fn new(name: &str, text: &str) -> AddScript {
    AddScript {
        name: name.to_owned(),
        script: text.as_bytes().to_vec().into(),
        ..AddScript::default()
    }
}

async fn added(test: &TestHost, new: AddScript) -> Added {
    add(&test.host, &test.admin, new, NOW).await.expect("adds")
}

/// A request to run a script of the library.
fn by_name(name: &str, version: Option<u64>, machine: &str) -> SubmitJob {
    SubmitJob {
        script_ref: Some(ScriptRef {
            name: name.to_owned(),
            version,
        }),
        machines: vec![machine.to_owned()],
        ..SubmitJob::default()
    }
}

async fn submit(test: &TestHost, actor: &Actor, request: SubmitJob) -> Result<JobId, SubmitError> {
    jobs::submit(&test.host, actor, request, None, NOW).await
}

/// What the machine has said of itself.
async fn runs_linux(test: &TestHost, machine: &Machine) {
    let id = machine.id;
    let facts = [Fact {
        key: "os.family".to_owned(),
        value: FactValue::Text("linux".to_owned()),
    }];
    test.host
        .store
        .write(move |conn| crate::store::machines::set_facts(conn, id, &facts))
        .await
        .expect("stores");
}

fn delivered(inbox: &mut Inbox) -> String {
    match inbox.deliveries.try_recv() {
        Ok(operation) => String::from_utf8(operation.submission.script.clone()).expect("is text"),
        other => panic!("expected an operation, got {other:?}"),
    }
}

async fn names_of_events(test: &TestHost) -> Vec<String> {
    let entries = test.audited().await;
    entries.into_iter().map(|entry| entry.event).collect()
}

#[tokio::test]
async fn the_same_again_is_the_version_that_is_there_and_anything_else_is_the_next() {
    let test = TestHost::new().await;
    let first = added(&test, new("a", TEXT)).await;
    assert_eq!((first.row.id.version, first.is_new), (1, true));
    let again = added(&test, new("a", TEXT)).await;
    assert_eq!((again.row.clone(), again.is_new), (first.row, false));
    let changes: &[fn(&mut AddScript)] = &[
        |new| new.script = b"#!/bin/sh\necho other\n".to_vec().into(),
        |new| new.run_as = Some("nobody".to_owned()),
        |new| new.interpreter = Some("bash".to_owned()),
        |new| new.os = vec![Os::Linux],
        |new| new.limits.time = Some(Span::seconds(1)),
        |new| {
            new.environment = vec![Variable {
                name: "A".to_owned(),
                value: "1".to_owned(),
            }]
        },
        |new| new.description = Some("what it is for".to_owned()),
        |new| new.script = b"#!/bin/sh\necho more\n".to_vec().into(),
        // What was added last is what runs, so the first bytes again are a version of their own.
        |_| (),
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut next = new("a", TEXT);
        change(&mut next);
        let next = added(&test, next).await;
        assert_eq!((next.row.id.version, next.is_new), (index as u64 + 2, true));
    }
    let last = added(&test, new("a", TEXT)).await;
    assert_eq!(
        (last.is_new, last.row.settings.description.as_str()),
        (false, "what it is for"),
        "a description stays until there is another"
    );
    let events = names_of_events(&test).await;
    let count = |name: &str| events.iter().filter(|event| *event == name).count();
    assert_eq!(
        (count("script_added"), count("script_version_added")),
        (1, 10)
    );
}

#[tokio::test]
async fn what_no_job_could_run_is_not_added() {
    let test = TestHost::new().await;
    type Change = fn(&mut AddScript);
    let table: &[(Change, &str)] = &[
        (
            |new| new.name = "depl\u{43e}y".to_owned(),
            "no name for a script",
        ),
        (|new| new.name = "a@1".to_owned(), "no name for a script"),
        (
            |new| new.script = b"echo\n".to_vec().into(),
            "names no interpreter",
        ),
        (
            |new| new.script = b"#!/bin/sh\n\0".to_vec().into(),
            "NUL byte",
        ),
        (
            |new| new.script = b"#!/bin/sh\n# /// sluice\n# [x]\n# ///\n".to_vec().into(),
            "header, line 3",
        ),
        (
            |new| new.script = vec![b'a'; sluice_protocol::script::MAX_SCRIPT + 1].into(),
            "over the limit",
        ),
        (|new| new.run_as = Some("a/b".to_owned()), "no user's name"),
        (
            |new| new.limits.time = Some(Span(0)),
            "limits.time cannot be",
        ),
        (
            |new| new.limits.memory = Some(ByteSize(0)),
            "no bytes at all",
        ),
        (
            |new| {
                new.environment = vec![Variable {
                    name: "SLUICE_X".to_owned(),
                    value: String::new(),
                }]
            },
            "reserved",
        ),
        (|new| new.description = Some("a\nb".to_owned()), "one line"),
        (
            |new| {
                new.os = vec![Os::Windows];
                new.script = b"#!/bin/sh\n# /// sluice\n# [requires]\n# os = [\"linux\"]\n# ///\n"
                    .to_vec()
                    .into();
            },
            "it is for linux",
        ),
    ];
    for (change, expected) in table {
        let mut wrong = new("a", TEXT);
        change(&mut wrong);
        let error = add(&test.host, &test.admin, wrong, NOW)
            .await
            .expect_err(expected)
            .to_string();
        assert!(
            error.contains(expected) && error.contains("nothing was added"),
            "{error}"
        );
    }
    assert_eq!(names_of_events(&test).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_header_is_what_the_entry_shows() {
    let test = TestHost::new().await;
    let text = "#!/bin/sh\n# /// sluice\n# [parameters.count]\n# type = \"integer\"\n# default = 3\n# as = \"argument\"\n\
                # [requires]\n# os = [\"macOS\", \"linux\"]\n# commands = [\"git\"]\n# ///\n";
    let row = added(&test, new("a", text)).await.row;
    let declared = row.declared.expect("is there");
    let [count] = declared.parameters.as_slice() else {
        panic!("one parameter: {declared:?}");
    };
    assert_eq!(
        (
            count.name.as_str(),
            count.kind.as_str(),
            count.delivery.as_str(),
            &count.default
        ),
        ("count", "integer", "argument", &Some(3.into()))
    );
    assert_eq!(declared.requires.commands, ["git"]);
    assert_eq!(row.settings.os, ["linux", "macos"]);
}

#[tokio::test]
async fn an_entry_declares_the_parameters_of_a_script_without_a_header() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    runs_linux(&test, &machine).await;
    let tables = "[parameters.z]\ndefault = \"hunter2\"\nas = \"argument\"\n[parameters.a]\n[requires]\nos = [\"linux\"]\n";
    let with = |tables: &str| AddScript {
        parameters: Some(tables.to_owned()),
        ..new("a", TEXT)
    };
    let row = added(&test, with(tables)).await.row;
    let declared = row.declared.clone().expect("is there");
    let names: Vec<_> = declared
        .parameters
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(names, ["z", "a"], "in the order in which they are written");
    assert_eq!(row.settings.os, ["linux"]);
    assert!(!added(&test, with(tables)).await.is_new);

    let job = submit(&test, &test.admin, by_name("a", None, "web-1"))
        .await
        .expect("is accepted");
    assert_eq!(
        added(&test, with("[parameters.z]\n")).await.row.id.version,
        2
    );
    assert_eq!(added(&test, new("a", TEXT)).await.row.id.version, 3);

    let stored = |job: JobId| {
        let found = test
            .host
            .store
            .read(|conn| crate::store::jobs::find(conn, test.tenant.id, job));
        let found = found.expect("reads").expect("is there");
        found.submission.declared.clone()
    };
    assert_eq!(stored(job).as_deref(), Some(tables));
    redact(&test.host, &test.admin, "a", 1, NOW)
        .await
        .expect("erases");
    assert_eq!(stored(job), None, "no job has a copy");

    let header = "#!/bin/sh\n# /// sluice\n# ///\n";
    for (text, tables, expected) in [
        (header, "", "keep one of the two"),
        ("#!/bin/sh\n:\n", "[parameters.a]\ntipe = 1\n", "line 2"),
        ("#!/bin/sh\n:\n", &"#".repeat(1 << 20), "over the limit"),
    ] {
        let wrong = AddScript {
            parameters: Some(tables.to_owned()),
            ..new("b", text)
        };
        let error = add(&test.host, &test.admin, wrong, NOW)
            .await
            .expect_err(expected);
        let error = error.to_string();
        assert!(
            error.contains(expected) && error.contains("nothing was added"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_job_runs_the_version_it_names_or_else_the_newest() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (_session, mut inbox) = test.connect(&machine);
    added(&test, new("a", TEXT)).await;
    let second = added(&test, new("a", "#!/bin/sh\necho two\n")).await;
    for (version, used, text) in [(None, 2, "#!/bin/sh\necho two\n"), (Some(1), 1, TEXT)] {
        let job = submit(&test, &test.admin, by_name("a", version, "web-1"))
            .await
            .expect("is accepted");
        assert_eq!(delivered(&mut inbox), text);
        let result = test.result(test.operation(job).id);
        let script = result.script.expect("is told");
        assert_eq!((script.name.as_str(), script.version), ("a", used));
        assert_eq!(result.script_sha256, Some(Digest::of(text.as_bytes())));
    }
    let attempt = test
        .audited()
        .await
        .into_iter()
        .find(|entry| entry.event == "script_execution_attempt")
        .expect("is there");
    assert_eq!(attempt.details["script"], "a@2");
    assert_eq!(attempt.script_sha256, Some(second.row.script_sha256));
}

#[tokio::test]
async fn a_job_gets_the_stricter_confinement_of_its_own_and_the_versions() {
    use Confinement::{Standard, Strict};
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (_session, mut inbox) = test.connect(&machine);
    for (name, stored, asked, expected) in [
        ("a", Some(Standard), None, Some(Standard)),
        ("b", Some(Standard), Some(Strict), Some(Strict)),
        ("c", Some(Strict), Some(Standard), Some(Strict)),
        ("d", None, Some(Standard), Some(Standard)),
    ] {
        let script = AddScript {
            confinement: stored,
            ..new(name, TEXT)
        };
        let version = added(&test, script).await;
        assert_eq!(version.row.settings.confinement, stored);
        let request = SubmitJob {
            confinement: asked,
            ..by_name(name, None, "web-1")
        };
        let job = submit(&test, &test.admin, request).await;
        job.expect("is accepted");
        let sent = inbox.deliveries.try_recv().expect("is sent");
        assert_eq!(sent.submission.confinement, expected, "{name}");
        let attempt = test
            .audited()
            .await
            .into_iter()
            .rfind(|entry| entry.event == "script_execution_attempt")
            .expect("is there");
        let told = expected.map(Confinement::as_str);
        assert_eq!(attempt.details["confinement"].as_str(), told, "{name}");
    }
}

#[tokio::test]
async fn a_job_takes_what_it_leaves_out_from_the_version() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (_session, mut inbox) = test.connect(&machine);
    let variable = |name: &str, value: &str| Variable {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let stored = AddScript {
        interpreter: Some("bash -e".to_owned()),
        run_as: Some("nobody".to_owned()),
        limits: JobLimits {
            time: Some(Span::seconds(30)),
            output: Some(ByteSize::mib(2)),
            memory: None,
        },
        environment: vec![variable("A", "1"), variable("B", "1")],
        ..new("a", TEXT)
    };
    added(&test, stored).await;
    let request = SubmitJob {
        limits: JobLimits {
            time: Some(Span::seconds(5)),
            ..JobLimits::default()
        },
        environment: vec![variable("B", "2"), variable("C", "2")],
        ..by_name("a", None, "web-1")
    };
    submit(&test, &test.admin, request)
        .await
        .expect("is accepted");
    let Ok(sent) = inbox.deliveries.try_recv() else {
        panic!("nothing was sent");
    };
    let sent = sent.submission;
    assert_eq!(sent.confinement, None);
    assert_eq!(sent.interpreter.as_deref(), Some("bash -e"));
    assert_eq!(sent.run_as.as_deref(), Some("nobody"));
    assert_eq!(
        (sent.limits.time, sent.limits.output, sent.limits.memory),
        (Some(Span::seconds(5)), Some(ByteSize::mib(2)), None)
    );
    let environment: Vec<_> = sent
        .environment
        .iter()
        .map(|variable| format!("{}={}", variable.name, variable.value))
        .collect();
    assert_eq!(environment, ["A=1", "B=2", "C=2"]);
    let attempt = test.audited().await.into_iter();
    let mut attempt = attempt.filter(|entry| entry.event == "script_execution_attempt");
    assert_eq!(
        attempt.next().expect("is there").details["run_as"],
        "nobody",
        "the record has the user that was meant"
    );
}

#[tokio::test]
async fn a_machine_that_was_away_gets_the_stored_text() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    added(&test, new("a", TEXT)).await;
    submit(&test, &test.admin, by_name("a", None, "web-1"))
        .await
        .expect("is accepted");
    added(&test, new("a", "#!/bin/sh\necho later\n")).await;
    let (session, mut inbox) = test.connect(&machine);
    // The operation may wait no longer than the tests' time plus a day, which is long over by the clock.
    let pending = jobs::pending(&test.host, &test.tenant, machine.id, &[], NOW)
        .await
        .expect("is read");
    assert_eq!(pending.deliver.len(), 1);
    jobs::deliver_pending(&test.host, &session, &[])
        .await
        .expect("is sent");
    assert_eq!(delivered(&mut inbox), TEXT, "that of its own version");
}

#[tokio::test]
async fn what_is_not_there_archived_or_redacted_makes_no_job() {
    let test = TestHost::new().await;
    for name in ["kept", "archived", "redacted"] {
        added(&test, new(name, &format!("{TEXT}# {name}\n"))).await;
    }
    archive(&test.host, &test.admin, "archived", NOW)
        .await
        .expect("archives");
    redact(&test.host, &test.admin, "redacted", 1, NOW)
        .await
        .expect("redacts");
    let (stranger, _) = test.stranger().await;
    let table = [
        (&test.admin, "none", None, "there is no script none"),
        (&test.admin, "a b", None, "there is no script a b"),
        (&test.admin, "kept", Some(2), "there is no version 2"),
        (&test.admin, "kept", Some(0), "there is no version 0"),
        (&test.admin, "archived", None, "is archived"),
        (&test.admin, "archived", Some(1), "is archived"),
        (&test.admin, "redacted", None, "was redacted"),
        (&stranger, "kept", None, "there is no script kept"),
    ];
    for (actor, name, version, expected) in table {
        let error = submit(&test, actor, by_name(name, version, "web-1"))
            .await
            .expect_err(expected)
            .to_string();
        assert!(
            error.contains(expected) && error.contains("no job was made"),
            "{error}"
        );
    }
    let both = SubmitJob {
        script: Some(TEXT.as_bytes().to_vec().into()),
        ..by_name("kept", None, "web-1")
    };
    for request in [both, SubmitJob::default()] {
        let refused = submit(&test, &test.admin, request).await;
        assert!(matches!(refused, Err(SubmitError::Request(_))));
    }
    assert_eq!(test.count_audited("request_refused").await, 9);
    assert_eq!(test.count_audited("script_queued").await, 0);
}

#[tokio::test]
async fn what_changed_since_it_was_chosen_is_not_recorded() {
    let test = TestHost::new().await;
    let tenant = test.tenant.id;
    for (name, version) in [("archived", 1), ("redacted", 1)] {
        added(&test, new(name, &format!("{TEXT}# {name}\n"))).await;
        let id = VersionId {
            name: name.parse().expect("is a name"),
            version,
        };
        let runs = || test.host.store.read(|conn| still_runs(conn, tenant, &id));
        runs().expect("may run");
        if name == "archived" {
            archive(&test.host, &test.admin, name, NOW)
                .await
                .expect("archives");
            assert!(matches!(runs(), Err(ChooseError::Archived(_))));
        } else {
            redact(&test.host, &test.admin, name, version, NOW)
                .await
                .expect("redacts");
            assert!(matches!(runs(), Err(ChooseError::Redacted(_))));
        }
    }
}

#[tokio::test]
async fn an_archived_script_takes_no_versions_and_keeps_its_history() {
    let test = TestHost::new().await;
    let version = added(&test, new("a", TEXT)).await.row;
    for _ in 0..2 {
        archive(&test.host, &test.admin, "a", NOW)
            .await
            .expect("archives");
    }
    assert_eq!(test.count_audited("script_archived").await, 1);
    let refused = add(&test.host, &test.admin, new("a", TEXT), NOW).await;
    assert!(matches!(refused, Err(AddError::Archived(_))));
    let kept = test
        .host
        .store
        .read(|conn| scripts::version(conn, test.tenant.id, &version.id));
    assert_eq!(kept.expect("reads"), Some(version));
    let (stranger, _) = test.stranger().await;
    for (actor, name) in [(&test.admin, "b"), (&stranger, "a")] {
        let refused = archive(&test.host, actor, name, NOW).await;
        assert!(matches!(refused, Err(ArchiveError::NoScript(_))));
    }
}

#[tokio::test]
async fn a_redacted_text_is_gone_from_every_version_and_job_and_what_waited_is_canceled() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let secret = "#!/bin/sh\n# password hunter2-hunter2\n";
    added(&test, new("a", secret)).await;
    added(&test, new("a", TEXT)).await;
    added(&test, new("b", secret)).await;
    let queued = submit(&test, &test.admin, by_name("b", None, "web-1"))
        .await
        .expect("is accepted");
    let (_session, mut inbox) = test.connect(&machine);
    let sent = submit(&test, &test.admin, by_name("a", Some(1), "web-1"))
        .await
        .expect("is accepted");
    let running = submit(&test, &test.admin, by_name("a", Some(1), "web-1"))
        .await
        .expect("is accepted");
    let operation = test.operation(running).id;
    jobs::store_step(
        &test.host,
        &machine,
        operation,
        State::Running,
        Some(NOW),
        NOW,
    )
    .await
    .expect("stores");
    test.settle().await;

    let (stranger, _) = test.stranger().await;
    let refused = redact(&test.host, &stranger, "a", 1, NOW).await;
    assert!(matches!(refused, Err(RedactError::NoVersion { .. })));
    let redaction = redact(&test.host, &test.admin, "a", 1, NOW)
        .await
        .expect("redacts");
    let redacted: Vec<_> = redaction
        .redacted
        .iter()
        .map(VersionId::to_string)
        .collect();
    assert_eq!(
        (redacted, redaction.canceled),
        (vec!["a@1".to_owned(), "b@1".to_owned()], 2)
    );

    assert_eq!(test.operation(queued).state, State::Canceled);
    let asked = test.operation(sent);
    assert_eq!(
        (asked.state, asked.cancel_by.as_deref()),
        (State::Delivered, Some("admin"))
    );
    assert_eq!(test.operation(running).cancel_by, None, "what runs goes on");
    let told = std::iter::from_fn(|| inbox.commands.try_recv().ok())
        .filter(|command| matches!(command, Command::Cancel { .. }))
        .count();
    assert_eq!(told, 1);
    for job in [queued, sent, running] {
        let row = test
            .host
            .store
            .read(|conn| crate::store::jobs::find(conn, test.tenant.id, job))
            .expect("reads")
            .expect("is there");
        assert!(row.submission.script.is_empty(), "no job has a copy");
        let stored: Vec<u8> = test
            .host
            .store
            .read(|conn| {
                conn.query_row(
                    "SELECT submission FROM jobs WHERE id = ?",
                    [job.to_string()],
                    |row| row.get(0),
                )
                .map_err(crate::store::StoreError::from)
            })
            .expect("reads");
        assert!(
            !stored.windows(7).any(|window| window == b"hunter2"),
            "nor had it one before"
        );
        assert_eq!(row.script_sha256, Digest::of(secret.as_bytes()));
    }
    let kept = test.host.store.read(|conn| {
        let id = VersionId {
            name: "a".parse().expect("is a name"),
            version: 2,
        };
        scripts::text(conn, test.tenant.id, &id)
    });
    assert!(kept.expect("reads").is_some(), "other bytes stay");
    assert_eq!(test.count_audited("script_redacted").await, 2);

    let again = add(&test.host, &test.admin, new("c", secret), NOW).await;
    assert!(matches!(again, Err(AddError::Redacted(_))), "{again:?}");
    redact(&test.host, &test.admin, "a", 1, NOW)
        .await
        .expect("stays as it is");
    assert_eq!(test.count_audited("script_redacted").await, 2);
}

#[tokio::test]
async fn the_results_of_a_redacted_script_stay() {
    let test = TestHost::new().await;
    added(&test, new("a", TEXT)).await;
    let job = submit(&test, &test.admin, by_name("a", None, "no-such-machine"))
        .await
        .expect("is accepted");
    let before = test.result(test.operation(job).id);
    redact(&test.host, &test.admin, "a", 1, NOW)
        .await
        .expect("redacts");
    assert_eq!(test.result(test.operation(job).id), before);
    assert_eq!(before.script.map(|script| script.version), Some(1));
}

#[tokio::test]
async fn a_token_for_stored_scripts_runs_them_as_they_are_and_nothing_else() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    added(&test, new("a", TEXT)).await;
    let (limited, _) = test
        .operator("limited", &[Permission::RunStoredScripts])
        .await;
    let with_parameter = SubmitJob {
        parameters: vec![Variable {
            name: "x".to_owned(),
            value: "1".to_owned(),
        }],
        no_queue: true,
        expires: Some(Span::seconds(60)),
        ..by_name("a", Some(1), "web-1")
    };
    submit(&test, &limited, with_parameter)
        .await
        .expect("is accepted");
    type Change = fn(&mut SubmitJob);
    let changes: &[Change] = &[
        |r| {
            r.script_ref = None;
            r.script = Some(TEXT.as_bytes().to_vec().into());
        },
        |r| r.script = Some(TEXT.as_bytes().to_vec().into()),
        |r| r.interpreter = Some("bash".to_owned()),
        |r| r.run_as = Some("root".to_owned()),
        |r| r.limits.time = Some(Span::seconds(1)),
        |r| r.confinement = Some(Confinement::Strict),
        |r| r.compat = Some(sluice_api_types::job::Compat::Landscape),
        |r| {
            r.environment = vec![Variable {
                name: "PATH".to_owned(),
                value: "/tmp".to_owned(),
            }]
        },
        |r| {
            r.attachments = vec![sluice_api_types::job::AttachmentRef {
                name: "x".to_owned(),
                sha256: Digest::of(b""),
                size: 0,
            }]
        },
    ];
    for change in changes {
        let mut request = by_name("a", None, "web-1");
        change(&mut request);
        let Err(SubmitError::Denied(denied)) = submit(&test, &limited, request).await else {
            panic!("was not denied");
        };
        assert_eq!(denied.permission, Permission::RemoteExecution);
    }
    let (nobody, _) = test.operator("nobody", &[Permission::ReadAudit]).await;
    let Err(SubmitError::Denied(denied)) =
        submit(&test, &nobody, by_name("none", None, "web-1")).await
    else {
        panic!("was not denied, or was told what is there");
    };
    assert_eq!(denied.permission, Permission::RunStoredScripts);
    assert_eq!(
        test.count_audited("permission_denied").await,
        changes.len() + 1
    );
}

#[tokio::test]
async fn a_repeated_request_is_the_same_job_whatever_became_of_the_script() {
    let test = TestHost::new().await;
    added(&test, new("a", TEXT)).await;
    let key = || Some("deploy-7".to_owned());
    let request = || by_name("a", None, "web-1");
    let first = jobs::submit(&test.host, &test.admin, request(), key(), NOW)
        .await
        .expect("is accepted");
    added(&test, new("a", "#!/bin/sh\necho two\n")).await;
    archive(&test.host, &test.admin, "a", NOW)
        .await
        .expect("archives");
    let again = jobs::submit(&test.host, &test.admin, request(), key(), NOW)
        .await
        .expect("is the same");
    assert_eq!(again, first);
}

#[tokio::test]
async fn what_the_library_says_about_systems_is_decided_on_the_host() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (_session, mut inbox) = test.connect(&machine);
    let stored = AddScript {
        os: vec![Os::Windows],
        ..new("a", TEXT)
    };
    added(&test, stored).await;
    let message = async || {
        let job = submit(&test, &test.admin, by_name("a", None, "web-1"))
            .await
            .expect("is accepted");
        test.operation(job).message
    };
    assert_eq!(
        message().await.as_deref(),
        Some(
            "Script not supported on target environment: the machine has not said yet which system it runs"
        )
    );
    runs_linux(&test, &machine).await;
    assert_eq!(
        message().await.as_deref(),
        Some("Script not supported on target environment: Linux")
    );
    assert!(inbox.deliveries.try_recv().is_err(), "nothing was sent");
}

#[tokio::test]
async fn open_jobs_are_those_of_the_version() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    added(&test, new("a", TEXT)).await;
    let job = submit(&test, &test.admin, by_name("a", None, "web-1"))
        .await
        .expect("is accepted");
    submit(&test, &test.admin, by_name("a", None, "no-such-machine"))
        .await
        .expect("is accepted, and has ended");
    let id = VersionId {
        name: "a".parse().expect("is a name"),
        version: 1,
    };
    let open = |tenant| {
        let read = test
            .host
            .store
            .read(|conn| scripts::open_jobs(conn, tenant, &id));
        read.expect("reads")
    };
    assert_eq!(open(test.tenant.id), [job]);
    assert_eq!(open(sluice_protocol::ids::TenantId::generate()), []);
    let operation = test.operation(job).id;
    let report = sluice_protocol::report::Report::without_process(
        sluice_protocol::ending::Ending::Expired,
        UnixMillis(1).to_wire(),
    );
    test.host
        .store
        .write(move |conn| operations::end(conn, operation, operations::From::Open, &report))
        .await
        .expect("ends");
    assert_eq!(open(test.tenant.id), []);
}
