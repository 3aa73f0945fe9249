//! An operation's life on the host, with machines that are played by the test.

use sluice_protocol::ending::{Ending, Signal, State};
use sluice_protocol::message::CloseCode;
use sluice_protocol::message::operation::{Chunk, Operation, OutputStream};
use sluice_protocol::report::{Exit, Report, StreamEnd};
use sluice_protocol::units::{ByteSize, Span};

use super::*;
use crate::clock::UnixMillis;
use crate::fleet::{self, Command, Inbox};
use crate::operators::Permission;
use crate::testing::{NOW, TestHost, request};

fn succeeded(stdout: u64) -> Report {
    Report {
        exit: Some(Exit::Code(0)),
        started_at: Some(NOW.to_wire()),
        stdout: StreamEnd {
            kept: stdout,
            lost: 0,
            head: stdout,
        },
        ..Report::without_process(Ending::Succeeded, NOW.to_wire())
    }
}

fn delivered(inbox: &mut Inbox) -> Box<Operation> {
    match inbox.deliveries.try_recv() {
        Ok(operation) => operation,
        other => panic!("expected an operation, got {other:?}"),
    }
}

fn chunk(stream: OutputStream, offset: u64, bytes: &[u8]) -> Chunk {
    Chunk {
        stream,
        offset,
        bytes: bytes.to_vec(),
    }
}

#[tokio::test]
async fn a_connected_machine_gets_its_operation_and_its_report_becomes_the_result() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (_session, mut inbox) = test.connect(&machine);
    let job = test.submit("web-1", |_| ()).await;
    let sent = delivered(&mut inbox);
    let row = test.operation(job);
    assert_eq!((row.id, row.state), (sent.operation, State::Delivered));
    assert_eq!(Some(sent.bundle_sha256), row.bundle_sha256);
    assert_eq!(sent.not_after, NOW.plus(request::DEFAULT_EXPIRY).to_wire());

    store_step(&test.host, &machine, row.id, State::Accepted, None, NOW)
        .await
        .expect("stores");
    store_step(&test.host, &machine, row.id, State::Running, Some(NOW), NOW)
        .await
        .expect("stores");
    store_output(
        &test.host,
        &machine,
        row.id,
        chunk(OutputStream::Stdout, 0, b"hi\n"),
    )
    .await
    .expect("stores");
    let outcome = store_report(&test.host, &machine, row.id, succeeded(3), NOW)
        .await
        .expect("stores");
    assert!(matches!(outcome, Outcome::Acknowledge { .. }));

    let result = test.result(row.id);
    assert_eq!(
        (result.state, result.message.as_deref()),
        (State::Succeeded, Some("Script executed successfully"))
    );
    assert_eq!(
        (
            result.exit_code,
            result.stdout.as_deref(),
            result.stderr.as_deref()
        ),
        (Some(0), Some("hi\n"), Some(""))
    );
    let events: Vec<_> = test
        .audited()
        .await
        .into_iter()
        .map(|entry| entry.event)
        .collect();
    assert_eq!(
        events,
        [
            "script_execution_attempt",
            "script_queued",
            "script_started",
            "script_executed"
        ]
    );
}

#[tokio::test]
async fn the_acknowledged_head_is_that_of_the_chain_with_the_outcome() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (_session, _inbox) = test.connect(&machine);
    let operation = test.operation(test.submit("web-1", |_| ()).await);
    let outcome = store_report(&test.host, &machine, operation.id, succeeded(0), NOW)
        .await
        .expect("stores");
    let last = test.audited().await.pop().expect("entries");
    assert_eq!(
        outcome,
        Outcome::Acknowledge {
            audit_head: last.hash
        }
    );
}

#[tokio::test]
async fn an_unknown_machine_is_an_operation_that_failed() {
    let test = TestHost::new().await;
    let job = test.submit("no-such-machine", |_| ()).await;
    let operation = test.operation(job);
    assert_eq!((operation.state, operation.machine), (State::Failed, None));
    let result = test.result(operation.id);
    assert_eq!(
        (result.machine.as_str(), result.message.as_deref()),
        ("no-such-machine", Some("Machine not found"))
    );
    assert_eq!((result.exit_code, result.output), (Some(-1), None));
    assert_eq!(test.count_audited("script_execution_error").await, 1);
}

#[tokio::test]
async fn a_machine_of_another_tenant_is_not_found() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (stranger, _) = test.stranger().await;
    for typed in ["web-1".to_owned(), machine.id.to_string()] {
        let job = submit(&test.host, &stranger, request(&typed), None, NOW)
            .await
            .expect("is accepted");
        let found = super::job(&test.host, &stranger.tenant, job)
            .await
            .expect("reads")
            .expect("is there");
        assert_eq!(
            found.operations[0].message.as_deref(),
            Some("Machine not found")
        );
        assert!(
            super::job(&test.host, &test.tenant, job)
                .await
                .expect("reads")
                .is_none(),
            "nor is the job the other's"
        );
    }
}

#[tokio::test]
async fn without_a_queue_a_machine_that_is_away_fails_at_once() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    let job = test
        .submit("web-1", |request| request.no_queue = true)
        .await;
    assert_eq!(
        test.operation(job).message.as_deref(),
        Some("Agent not connected")
    );
}

#[tokio::test]
async fn one_machine_that_is_meant_twice_gets_one_operation() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let job = test
        .submit("web-1", |request| {
            request.machines = vec![
                "web-1".to_owned(),
                machine.id.to_string(),
                "x".to_owned(),
                "x".to_owned(),
            ]
        })
        .await;
    let names: Vec<_> = test
        .operations(job)
        .into_iter()
        .map(|operation| operation.machine_name)
        .collect();
    assert_eq!(names, ["web-1", "x"]);
}

#[tokio::test]
async fn a_machine_that_was_away_gets_what_is_queued_once() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let job = test.submit("web-1", |_| ()).await;
    assert_eq!(test.operation(job).state, State::Queued);
    let (session, mut inbox) = test.connect(&machine);
    // The test's clock is not that of the program.
    let owed = pending(&test.host, &test.tenant, machine.id, &[], NOW)
        .await
        .expect("reads");
    assert_eq!(owed.deliver.len(), 1);
    assert_eq!(test.operation(job).state, State::Delivered);
    deliver_pending(&test.host, &session, &[])
        .await
        .expect("delivers");
    let sent = delivered(&mut inbox);
    assert_eq!(sent.job, job);
    let owed = pending(&test.host, &test.tenant, machine.id, &[sent.operation], NOW)
        .await
        .expect("reads");
    assert!(
        owed.deliver.is_empty(),
        "a machine that has an operation does not get it again"
    );
}

#[tokio::test]
async fn what_is_accepted_around_the_moment_in_which_a_machine_connects_is_sent_once() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (session, mut inbox) = test.host.presence.join(test.tenant.clone(), machine.id);
    session.confirm();
    // It is there, and will be told of this with all that it is owed.
    let before = test.submit("web-1", |_| ()).await;
    assert_eq!(test.operation(before).state, State::Queued);
    assert!(inbox.deliveries.try_recv().is_err());
    // The test's clock is not that of the program.
    let owed = pending(&test.host, &test.tenant, machine.id, &[], NOW).await;
    assert_eq!(owed.expect("reads").deliver.len(), 1);
    assert!(test.host.presence.get(machine.id).is_none());
    deliver_pending(&test.host, &session, &[])
        .await
        .expect("delivers");
    let after = test.submit("web-1", |_| ()).await;
    assert_eq!(test.operation(after).state, State::Delivered);
    let sent = [delivered(&mut inbox).job, delivered(&mut inbox).job];
    assert_eq!(sent, [before, after]);
    assert!(inbox.deliveries.try_recv().is_err());
}

#[tokio::test]
async fn the_first_report_wins_and_a_later_one_changes_nothing() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (_session, _inbox) = test.connect(&machine);
    let operation = test.operation(test.submit("web-1", |_| ()).await).id;
    store_report(&test.host, &machine, operation, succeeded(0), NOW)
        .await
        .expect("stores");
    let again = store_report(&test.host, &machine, operation, succeeded(0), NOW)
        .await
        .expect("stores");
    assert!(matches!(again, Outcome::Acknowledge { .. }));
    assert_eq!(
        test.result(operation).late_report,
        None,
        "the same report again is no other report"
    );
    let signal = Signal {
        number: 9,
        name: "KILL".to_owned(),
        core_dumped: false,
    };
    let other = Report {
        exit: Some(Exit::Signal(signal.clone())),
        ..Report::without_process(Ending::Signal(signal), NOW.to_wire())
    };
    store_report(&test.host, &machine, operation, other, NOW)
        .await
        .expect("stores");
    let result = test.result(operation);
    assert_eq!(result.state, State::Succeeded);
    assert_eq!(result.late_report.expect("is kept")["exit_code"], 137);
    assert_eq!(test.count_audited("script_late_report").await, 1);
    assert_eq!(test.count_audited("script_executed").await, 1);
}

#[tokio::test]
async fn a_report_by_another_machine_breaks_the_protocol_and_changes_nothing() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let other = test.machine("web-2").await;
    let (_session, _inbox) = test.connect(&machine);
    let operation = test.operation(test.submit("web-1", |_| ()).await).id;
    for step in [State::Accepted, State::Running] {
        store_step(&test.host, &other, operation, step, Some(NOW), NOW)
            .await
            .expect("is handed over");
    }
    store_output(
        &test.host,
        &other,
        operation,
        chunk(OutputStream::Stdout, 0, b"lies"),
    )
    .await
    .expect("is handed over");
    let outcome = store_report(&test.host, &other, operation, succeeded(0), NOW)
        .await
        .expect("answers");
    assert_eq!(
        outcome,
        Outcome::Violation("a machine reported an operation of another")
    );
    let result = test.result(operation);
    assert_eq!((result.state, result.output), (State::Delivered, None));
    for ending in [Ending::MachineNotFound, Ending::AgentNotConnected] {
        let report = Report::without_process(ending, NOW.to_wire());
        let outcome = store_report(&test.host, &machine, operation, report, NOW)
            .await
            .expect("answers");
        assert!(
            matches!(outcome, Outcome::Violation(_)),
            "a machine says what only a host knows"
        );
    }
}

#[tokio::test]
async fn output_that_comes_again_is_stored_once_and_the_report_says_what_of_it_counts() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (_session, _inbox) = test.connect(&machine);
    let operation = test.operation(
        test.submit("web-1", |request| {
            request.limits.output = Some(ByteSize(20))
        })
        .await,
    );
    store_step(
        &test.host,
        &machine,
        operation.id,
        State::Running,
        Some(NOW),
        NOW,
    )
    .await
    .expect("stores");
    let pieces = [
        chunk(OutputStream::Stdout, 0, b"abc"),
        chunk(OutputStream::Stderr, 0, b"E"),
        chunk(OutputStream::Stdout, 0, b"abcd"),
        chunk(OutputStream::Stdout, 1, b"bc"),
        chunk(OutputStream::Stdout, 4, b"efghijklmnop"),
        chunk(OutputStream::Stdout, 20, b"uvwxyz"),
    ];
    for piece in pieces {
        store_output(&test.host, &machine, operation.id, piece)
            .await
            .expect("is handed over");
    }
    test.settle().await;
    let result = test.result(operation.id);
    assert_eq!(
        (result.stdout.as_deref(), result.stderr.as_deref()),
        (
            Some("abcdefghijklmnop\n[... 4 bytes lost ...]\nuvwxyz"),
            Some("E")
        )
    );
    let page = test.host.metrics.render(0, &[]);
    assert!(page.contains("sluice_output_dropped_total 1"), "{page}");
    let report = Report {
        stdout: StreamEnd {
            kept: 18,
            lost: 9,
            head: 9,
        },
        stderr: StreamEnd {
            kept: 1,
            lost: 0,
            head: 1,
        },
        ..succeeded(0)
    };
    store_report(&test.host, &machine, operation.id, report, NOW)
        .await
        .expect("stores");
    let result = test.result(operation.id);
    // Two bytes were dropped on the way, and the last one did not come.
    assert_eq!(
        result.output.as_deref(),
        Some("abcEdefghi\n[... 11 bytes lost ...]\nuvwxyz\n[... 1 bytes lost ...]\n")
    );
    assert_eq!(result.output_lost_bytes, 12);
    assert_eq!(result.notes, ["3 bytes of stdout did not reach the host"]);
}

#[tokio::test]
async fn canceling_ends_what_is_queued_and_tells_the_machine_about_the_rest() {
    let test = TestHost::new().await;
    let away = test.machine("away").await;
    let here = test.machine("here").await;
    let (_session, mut inbox) = test.connect(&here);
    let job = test
        .submit("away", |request| request.machines.push("here".to_owned()))
        .await;
    let sent = delivered(&mut inbox);
    assert_eq!(
        cancel(&test.host, &test.admin, job, NOW)
            .await
            .expect("cancels"),
        2
    );
    assert!(
        matches!(inbox.commands.try_recv(), Ok(Command::Cancel { operation, .. }) if operation == sent.operation)
    );
    let states: Vec<_> = test
        .operations(job)
        .into_iter()
        .map(|operation| operation.state)
        .collect();
    assert_eq!(states, [State::Canceled, State::Delivered]);
    assert_eq!(
        test.result(test.operations(job)[0].id).message.as_deref(),
        Some("Canceled by admin")
    );
    let owed = pending(&test.host, &test.tenant, away.id, &[], NOW)
        .await
        .expect("reads");
    assert!(owed.deliver.is_empty(), "what was canceled is never sent");
    let owed = pending(&test.host, &test.tenant, here.id, &[sent.operation], NOW)
        .await
        .expect("reads");
    assert_eq!(
        owed.cancel,
        [(sent.operation, "admin".to_owned())],
        "a machine that was away is told again"
    );
    let owed = pending(&test.host, &test.tenant, here.id, &[], NOW)
        .await
        .expect("reads");
    assert!(owed.deliver.is_empty() && owed.cancel.is_empty());
    assert_eq!(
        test.operations(job)[1].state,
        State::Canceled,
        "what never arrived is not sent after all"
    );
}

#[tokio::test]
async fn time_ends_what_could_not_start_and_what_fell_silent() {
    let test = TestHost::new().await;
    let machine = test.machine("here").await;
    test.machine("away").await;
    let (_session, _inbox) = test.connect(&machine);
    let job = test
        .submit("away", |request| {
            request.machines.push("here".to_owned());
            request.expires = Some(Span::seconds(60));
            request.limits.time = Some(Span::seconds(10));
        })
        .await;
    let after = |seconds| NOW.plus(Span::seconds(seconds));
    assert_eq!(sweep(&test.host, after(60)).await.expect("sweeps"), 0);
    assert_eq!(sweep(&test.host, after(61)).await.expect("sweeps"), 1);
    let states = |rows: Vec<crate::store::operations::OperationRow>| {
        rows.into_iter().map(|row| row.state).collect::<Vec<_>>()
    };
    assert_eq!(
        states(test.operations(job)),
        [State::Expired, State::Delivered]
    );
    assert_eq!(
        sweep(&test.host, after(60 + 10 + 24 * 3600))
            .await
            .expect("sweeps"),
        0
    );
    assert_eq!(
        sweep(&test.host, after(61 + 10 + 24 * 3600))
            .await
            .expect("sweeps"),
        1
    );
    assert_eq!(
        states(test.operations(job)),
        [State::Expired, State::Interrupted]
    );
    let late = test.operations(job)[1].id;
    store_report(&test.host, &machine, late, succeeded(0), NOW)
        .await
        .expect("stores");
    let result = test.result(late);
    assert_eq!(
        result.message.as_deref(),
        Some("Execution error: interrupted, outcome unknown")
    );
    assert_eq!(result.late_report.expect("is kept")["state"], "succeeded");
}

#[tokio::test]
async fn a_revoked_machine_is_closed_and_what_it_had_is_ended() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let queued = test.submit("web-1", |_| ()).await;
    let (session, mut inbox) = test.connect(&machine);
    let sent = test.submit("web-1", |_| ()).await;
    fleet::revoke(&test.host, &test.admin, "web-1", NOW)
        .await
        .expect("revokes");
    let closing = Inbox::closing(&mut inbox.closing).await;
    assert_eq!(closing.0, CloseCode::Revoked);
    assert_eq!(test.operation(queued).state, State::Canceled);
    assert_eq!(test.operation(sent).state, State::Interrupted);
    test.host.presence.leave(&session);
    let job = test.submit("web-1", |_| ()).await;
    assert_eq!(
        test.operation(job).message.as_deref(),
        Some("Machine not found")
    );
}

#[tokio::test]
async fn the_same_key_is_the_same_job_and_another_request_with_it_is_refused() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    let submit_with = |request| {
        submit(
            &test.host,
            &test.admin,
            request,
            Some("key-1".to_owned()),
            NOW,
        )
    };
    let first = submit_with(request("web-1")).await.expect("is accepted");
    assert_eq!(
        submit_with(request("web-1")).await.expect("is repeated"),
        first
    );
    let other = submit_with(sluice_api_types::job::SubmitJob {
        no_queue: true,
        ..request("web-1")
    })
    .await;
    assert!(
        matches!(other, Err(SubmitError::KeyReused(job)) if job == first),
        "{other:?}"
    );
    let (second, _) = test.operator("bob", Permission::ALL).await;
    let theirs = submit(
        &test.host,
        &second,
        request("web-1"),
        Some("key-1".to_owned()),
        NOW,
    )
    .await
    .expect("is accepted");
    assert_ne!(theirs, first, "keys are the operator's own");
    for key in ["", "a b", "ä", &"x".repeat(201)] {
        let refused = submit(
            &test.host,
            &test.admin,
            request("web-1"),
            Some(key.to_owned()),
            NOW,
        )
        .await;
        assert!(matches!(refused, Err(SubmitError::InvalidKey)), "{key:?}");
    }
    assert_eq!(test.count_audited("script_queued").await, 2);
    assert_eq!(test.count_audited("request_repeated").await, 1);
}

/// Submits to the machines "one" and "two", always with the same key.
async fn submit_again(test: &TestHost) -> sluice_protocol::ids::JobId {
    let mut request = request("one");
    request.machines.push("two".to_owned());
    submit(
        &test.host,
        &test.admin,
        request,
        Some("key".to_owned()),
        NOW,
    )
    .await
    .expect("is accepted")
}

#[tokio::test]
async fn a_repeated_request_sends_what_was_not_delivered() {
    let test = TestHost::new().await;
    let (one, two) = (test.machine("one").await, test.machine("two").await);
    let (_session, mut inbox) = test.connect(&one);
    let job = submit_again(&test).await;
    let lost = delivered(&mut inbox);
    assert_eq!(submit_again(&test).await, job);
    let again = inbox.deliveries.try_recv();
    assert!(again.is_err(), "this connection was given it");
    let (_session, mut inbox) = test.connect(&one);
    let (_session, mut other) = test.connect(&two);
    assert_eq!(submit_again(&test).await, job);
    assert_eq!(
        delivered(&mut inbox).operation,
        lost.operation,
        "nobody knows whether it arrived"
    );
    assert_eq!(delivered(&mut other).job, job);
    assert_eq!(test.operations(job)[1].state, State::Delivered);

    cancel(&test.host, &test.admin, job, NOW)
        .await
        .expect("cancels");
    for inbox in [&mut inbox, &mut other] {
        assert!(matches!(
            inbox.commands.try_recv(),
            Ok(Command::Cancel { .. })
        ));
    }
    submit_again(&test).await;
    for inbox in [&mut inbox, &mut other] {
        assert!(
            inbox.deliveries.try_recv().is_err(),
            "what is to be canceled is not sent again"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_delivered_to_one_machine_is_delivered_to_the_others() {
    let test = TestHost::new().await;
    let (one, two) = (test.machine("one").await, test.machine("two").await);
    let job = submit_again(&test).await;
    let first = test.operations(job)[0].id;
    let fault = format!(
        "CREATE TRIGGER fault BEFORE UPDATE ON operations WHEN new.id = '{first}'
         BEGIN SELECT RAISE(ABORT, 'on purpose'); END"
    );
    test.host
        .store
        .write(move |conn| Ok::<_, crate::store::StoreError>(conn.execute_batch(&fault)?))
        .await
        .expect("makes the fault");
    let ((_session, mut inbox), (_other_session, mut other)) =
        (test.connect(&one), test.connect(&two));
    assert_eq!(submit_again(&test).await, job);
    assert_eq!(delivered(&mut other).job, job);
    assert!(inbox.deliveries.try_recv().is_err());
    assert_eq!(test.operations(job)[0].state, State::Queued);
}

#[tokio::test]
async fn requests_that_race_with_one_key_make_one_job() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    let tries = (0..8).map(|_| {
        submit(
            &test.host,
            &test.admin,
            request("web-1"),
            Some("key".to_owned()),
            NOW,
        )
    });
    let jobs: Vec<_> = futures_util::future::join_all(tries)
        .await
        .into_iter()
        .map(|job| job.expect("is accepted"))
        .collect();
    assert!(jobs.iter().all(|job| *job == jobs[0]), "{jobs:?}");
    assert_eq!(test.count_audited("script_queued").await, 1);
}

#[tokio::test]
async fn every_refused_request_is_on_the_record_and_makes_no_job() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    let (nobody, _) = test.operator("nobody", &[Permission::ReadAudit]).await;
    let (runner, _) = test
        .operator("runner", &[Permission::RemoteExecution])
        .await;
    let api = |change: fn(&mut sluice_api_types::job::SubmitJob)| {
        let mut request = request("web-1");
        change(&mut request);
        request
    };
    let denied = submit(&test.host, &nobody, request("web-1"), None, NOW)
        .await
        .expect_err("is refused")
        .to_string();
    assert!(denied.contains("RemoteExecution"), "{denied}");
    let denied = submit(
        &test.host,
        &runner,
        api(|r| r.no_security_scan = true),
        None,
        NOW,
    )
    .await
    .expect_err("is refused")
    .to_string();
    assert!(denied.contains("SkipSecurityScan"), "{denied}");
    let refused: Vec<fn(&mut sluice_api_types::job::SubmitJob)> = vec![
        |r| r.script = Some(b"#!/bin/sh\n\0".to_vec().into()),
        |r| r.tenant = Some("other".to_owned()),
        |r| {
            r.machines.clear();
            r.tags = vec![sluice_api_types::job::Tag {
                key: "role".to_owned(),
                value: "none".to_owned(),
            }];
        },
        |r| {
            r.attachments = vec![sluice_api_types::job::AttachmentRef {
                name: "a".to_owned(),
                sha256: sluice_protocol::digest::Digest::of(b"a"),
                size: 1,
            }];
        },
    ];
    let count = refused.len();
    for change in refused {
        submit(&test.host, &runner, api(change), None, NOW)
            .await
            .expect_err("is refused");
    }
    let events = test.audited().await;
    let of = |event: &str| events.iter().filter(|entry| entry.event == event).count();
    assert_eq!(
        (
            of("script_execution_attempt"),
            of("permission_denied"),
            of("request_refused")
        ),
        (count + 2, 2, count)
    );
    assert_eq!(of("script_queued"), 0);
    let attempt = &events[0];
    assert_eq!(
        (attempt.operator.as_deref(), attempt.machine.as_deref()),
        (Some("nobody"), Some("web-1"))
    );
    assert_eq!(events[1].details["permission"], "RemoteExecution");
}

#[tokio::test]
async fn tags_and_all_mean_the_machines_that_have_them() {
    let test = TestHost::new().await;
    for name in ["web-1", "web-2", "db-1"] {
        test.machine(name).await;
    }
    let tag = |key: &str, value: &str| fleet::parse_tag(key, value).expect("a tag");
    for name in ["web-1", "web-2"] {
        fleet::patch(
            &test.host,
            &test.admin,
            name,
            None,
            vec![tag("role", "web")],
            Vec::new(),
            NOW,
        )
        .await
        .expect("tags");
    }
    fleet::patch(
        &test.host,
        &test.admin,
        "web-2",
        None,
        vec![tag("ring", "1")],
        Vec::new(),
        NOW,
    )
    .await
    .expect("tags");
    let api = |key: &str, value: &str| sluice_api_types::job::Tag {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    let names = async |change: &dyn Fn(&mut sluice_api_types::job::SubmitJob)| {
        let job = test.submit("x", |request| {
            request.machines.clear();
            change(request);
        });
        let rows = test.operations(job.await);
        rows.into_iter()
            .map(|row| row.machine_name)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&|r| r.tags = vec![api("role", "web")]).await,
        ["web-1", "web-2"]
    );
    assert_eq!(
        names(&|r| r.tags = vec![api("role", "web"), api("ring", "1")]).await,
        ["web-2"]
    );
    assert_eq!(names(&|r| r.all = true).await, ["db-1", "web-1", "web-2"]);
    let both = |request: &mut sluice_api_types::job::SubmitJob| {
        request.machines = vec!["db-1".to_owned()];
        request.tags = vec![api("ring", "1")];
    };
    assert_eq!(names(&both).await, ["db-1", "web-2"]);
}

/// Machines with facts: `web-1` and `web-2` on Debian 12 and 13, `db-1` that has said nothing. The second has the tag `ring=1`.
async fn machines_with_facts(test: &TestHost) {
    use sluice_protocol::message::control::{Fact, FactValue};
    test.machine("db-1").await;
    for (name, version) in [("web-1", "12.1"), ("web-2", "13")] {
        let id = test.machine(name).await.id;
        let text = |key: &str, value: &str| Fact {
            key: key.to_owned(),
            value: FactValue::Text(value.to_owned()),
        };
        let facts = [text("os.family", "linux"), text("os.version", version)];
        let set = test
            .host
            .store
            .write(move |conn| crate::store::machines::set_facts(conn, id, &facts));
        set.await.expect("writes");
    }
    let ring = fleet::parse_tag("ring", "1").expect("a tag");
    fleet::patch(
        &test.host,
        &test.admin,
        "web-2",
        None,
        vec![ring],
        Vec::new(),
        NOW,
    )
    .await
    .expect("tags");
}

#[tokio::test]
async fn an_expression_chooses_among_the_machines_that_are_meant_otherwise() {
    let test = TestHost::new().await;
    machines_with_facts(&test).await;
    let names = async |machines: &[&str], tags: &[(&str, &str)], condition: &str| {
        let mut wanted = request("x");
        wanted.machines = machines.iter().map(|name| (*name).to_owned()).collect();
        wanted.tags = tags
            .iter()
            .map(|(key, value)| sluice_api_types::job::Tag {
                key: (*key).to_owned(),
                value: (*value).to_owned(),
            })
            .collect();
        wanted.condition = Some(condition.to_owned());
        let previewed = preview(&test.host, &test.admin, wanted.clone(), NOW).await;
        let job = submit(&test.host, &test.admin, wanted, None, NOW).await;
        match (previewed, job) {
            (Ok(previewed), Ok(job)) => {
                let rows = test.operations(job);
                let found = previewed.machines.into_iter().map(|machine| machine.name);
                let shown: Vec<_> = found.chain(previewed.not_found).collect();
                let names: Vec<_> = rows.into_iter().map(|row| row.machine_name).collect();
                assert_eq!(shown, names, "a preview says what will be");
                Ok(names)
            }
            (Err(previewed), Err(job)) => {
                assert_eq!(previewed.to_string(), job.to_string());
                Err(job.to_string())
            }
            other => panic!("{other:?}"),
        }
    };
    let linux = r#"os == "linux""#;
    let ok = |names: &[&str]| {
        Ok(names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>())
    };
    assert_eq!(names(&[], &[], linux).await, ok(&["web-1", "web-2"]));
    assert_eq!(
        names(&[], &[], r#"os.version > "12.9""#).await,
        ok(&["web-2"])
    );
    assert_eq!(
        names(&[], &[], r#"tag.ring != "1" and not fact("os.version")"#).await,
        ok(&["db-1"])
    );
    assert_eq!(
        names(&["web-1", "db-1"], &[("ring", "1")], linux).await,
        ok(&["web-1", "web-2"])
    );
    assert_eq!(
        names(&["web-1"], &[("ring", "1")], r#"name == "web-1""#).await,
        ok(&["web-1"])
    );
    assert_eq!(
        names(&["wbe-1"], &[], linux).await,
        ok(&["wbe-1"]),
        "whoever mistyped a name is told so"
    );
    let none = names(&["db-1"], &[], linux)
        .await
        .expect_err("means nothing");
    assert!(none.contains("no machine is meant"), "{none}");
    let wrong = names(&[], &[], "os ==").await.expect_err("is wrong");
    assert!(wrong.contains("column 6"), "{wrong}");
}

#[tokio::test]
async fn a_preview_needs_what_the_run_needs_and_makes_no_job() {
    let test = TestHost::new().await;
    machines_with_facts(&test).await;
    let before = test.audited().await.len();
    let shown = preview(&test.host, &test.admin, request("web-1"), NOW)
        .await
        .expect("is shown");
    assert_eq!((shown.count, shown.connected), (1, 0));
    let (nobody, _) = test.operator("nobody", &[Permission::ReadAudit]).await;
    for machine in ["web-1", "no-such-machine"] {
        let denied = preview(&test.host, &nobody, request(machine), NOW)
            .await
            .expect_err("is refused");
        assert!(denied.to_string().contains("RemoteExecution"), "{denied}");
    }
    let entries = test.audited().await;
    let new: Vec<_> = entries[before..].iter().map(|entry| &entry.event).collect();
    assert_eq!(new, ["job_previewed"], "gates were asked: that is recorded");
    let jobs = test
        .host
        .store
        .read(|conn| crate::store::jobs::ids_before(conn, test.tenant.id, None, 10));
    assert!(jobs.expect("reads").is_empty());
}

#[tokio::test]
async fn a_follower_sees_everything_once_whenever_it_comes() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (_session, _inbox) = test.connect(&machine);
    let job = test.submit("web-1", |_| ()).await;
    let operation = test.operation(job).id;
    let mut early = Follower::new(test.host.clone(), test.tenant.clone(), job)
        .expect("reads")
        .expect("is there");
    let first = early.next().await.expect("reads");
    assert!(matches!(first, Some(Followed::State(event)) if event.state == State::Delivered));
    let watching = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(followed) = early.next().await.expect("reads") {
            seen.push(followed);
        }
        seen
    });
    store_step(
        &test.host,
        &machine,
        operation,
        State::Running,
        Some(UnixMillis(5)),
        NOW,
    )
    .await
    .expect("stores");
    for (offset, bytes) in [(0, b"a\n"), (2, b"b\n")] {
        store_output(
            &test.host,
            &machine,
            operation,
            chunk(OutputStream::Stdout, offset, bytes),
        )
        .await
        .expect("stores");
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    }
    store_report(&test.host, &machine, operation, succeeded(4), NOW)
        .await
        .expect("stores");
    let seen = tokio::time::timeout(std::time::Duration::from_secs(5), watching)
        .await
        .expect("ends")
        .expect("runs");
    let mut late = Follower::new(test.host.clone(), test.tenant.clone(), job)
        .expect("reads")
        .expect("is there");
    let mut again = Vec::new();
    while let Some(followed) = late.next().await.expect("reads") {
        again.push(followed);
    }
    for seen in [seen, again] {
        let output: Vec<u8> = seen
            .iter()
            .filter_map(|followed| match followed {
                Followed::Output(event) => Some(event.data.0.clone()),
                _ => None,
            })
            .flatten()
            .collect();
        assert_eq!(output, b"a\nb\n");
        assert_eq!(
            seen.iter()
                .filter(|followed| matches!(followed, Followed::Result(_)))
                .count(),
            1
        );
        assert_eq!(seen.last(), Some(&Followed::End));
    }
    let (stranger, _) = test.stranger().await;
    assert!(
        Follower::new(test.host.clone(), stranger.tenant, job)
            .expect("reads")
            .is_none()
    );
}

#[tokio::test]
async fn a_follower_learns_of_a_gap_at_the_end_of_a_stream() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (_session, _inbox) = test.connect(&machine);
    let job = test.submit("web-1", |_| ()).await;
    let operation = test.operation(job).id;
    let running = store_step(
        &test.host,
        &machine,
        operation,
        State::Running,
        Some(NOW),
        NOW,
    );
    running.await.expect("stores");
    let piece = chunk(OutputStream::Stdout, 0, b"a\n");
    store_output(&test.host, &machine, operation, piece)
        .await
        .expect("stores");
    store_report(&test.host, &machine, operation, succeeded(7), NOW)
        .await
        .expect("stores");
    let mut follower = Follower::new(test.host.clone(), test.tenant.clone(), job)
        .expect("reads")
        .expect("is there");
    let mut seen = Vec::new();
    while let Some(followed) = follower.next().await.expect("reads") {
        if let Followed::Output(event) = followed {
            seen.push((event.offset, event.data.0));
        }
    }
    assert_eq!(seen, [(0, b"a\n".to_vec()), (7, Vec::new())]);
}

#[tokio::test]
async fn a_script_for_another_system_is_not_sent() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (_session, mut inbox) = test.connect(&machine);
    let (id, facts) = (
        machine.id,
        [sluice_protocol::message::control::Fact {
            key: "os.family".to_owned(),
            value: sluice_protocol::message::control::FactValue::Text("linux".to_owned()),
        }],
    );
    test.host
        .store
        .write(move |conn| crate::store::machines::set_facts(conn, id, &facts))
        .await
        .expect("stores");
    let job = test
        .submit("web-1", |request| {
            let script = b"#!/bin/sh\n# /// sluice\n# [requires]\n# os = [\"windows\"]\n# ///\n";
            request.script = Some(script.to_vec().into());
        })
        .await;
    let operation = test.operation(job);
    assert_eq!(
        operation.message.as_deref(),
        Some("Script not supported on target environment: Linux")
    );
    assert!(inbox.deliveries.try_recv().is_err());
}

#[tokio::test]
async fn a_script_that_is_archived_while_its_job_is_judged_makes_no_job() {
    use crate::library::{self, ChooseError};
    use sluice_api_types::script::{AddScript, ScriptRef};

    let test = TestHost::new().await;
    let new = AddScript {
        name: "a".to_owned(),
        script: b"#!/bin/sh\n".to_vec().into(),
        ..AddScript::default()
    };
    library::add(&test.host, &test.admin, new, NOW)
        .await
        .expect("adds");
    let script = ScriptRef {
        name: "a".to_owned(),
        version: None,
    };
    let mut asked = request("web-1");
    asked.script = None;
    asked.script_ref = Some(script.clone());
    let chosen = test
        .host
        .store
        .read(|conn| library::choose(conn, test.tenant.id, &script))
        .expect("may run");
    let digest = Order::digest_of(&asked).expect("has one");
    let order = Order::read(asked, digest, Some(chosen)).expect("reads");
    library::archive(&test.host, &test.admin, "a", NOW)
        .await
        .expect("archives");
    let id = sluice_protocol::ids::JobId::generate();
    let recorded = record::job(
        &test.host,
        &test.admin,
        id,
        None,
        order,
        Vec::new(),
        Vec::new(),
        None,
        hold::Threshold::default(),
        1,
        NOW,
    )
    .await;
    assert!(matches!(
        recorded.err(),
        Some(SubmitError::Script(ChooseError::Archived(_)))
    ));
    let found = test
        .host
        .store
        .read(|conn| crate::store::jobs::head(conn, test.tenant.id, id));
    assert_eq!(found.expect("reads"), None);
}
