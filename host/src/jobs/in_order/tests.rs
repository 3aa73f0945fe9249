//! What starts only after what, on machines that are played by the test.

use sluice_api_types::job::{Job, SubmitJob};
use sluice_api_types::why::Reason;
use sluice_protocol::ending::Ending;
use sluice_protocol::ids::JobId;
use sluice_protocol::report::{Exit, Report};

use super::*;
use crate::fleet::Inbox;
use crate::jobs::deliver::Pending;
use crate::jobs::{self, Machine, pending, store_report, store_step};
use crate::store::operations::From;
use crate::testing::{NOW, TestHost};

async fn in_order(test: &TestHost) -> JobId {
    test.submit("web-1", |request| request.in_order = true)
        .await
}

/// One that is held until its second batch begins, which the test releases.
async fn in_batches(test: &TestHost) -> JobId {
    let change = |request: &mut SubmitJob| {
        request.machines.insert(0, "web-2".to_owned());
        request.batches = Some("1, 100%".to_owned());
        request.in_order = true;
    };
    test.submit("web-1", change).await
}

fn state(test: &TestHost, job: JobId) -> State {
    test.operation(job).state
}

async fn end(test: &TestHost, machine: &Machine, job: JobId) {
    let report = Report {
        exit: Some(Exit::Code(0)),
        ..Report::without_process(Ending::Succeeded, NOW.to_wire())
    };
    let operations = test.operations(job).into_iter();
    let operation = operations
        .filter(|row| row.machine == Some(machine.id))
        .map(|row| row.id)
        .next()
        .expect("is on the machine");
    store_report(&test.host, machine, operation, report, NOW)
        .await
        .expect("stores");
}

async fn looked(test: &TestHost) {
    look(&test.host, NOW).await.expect("looks");
}

/// What has been sent since the last look at it.
fn sent(inbox: &mut Inbox) -> Vec<JobId> {
    std::iter::from_fn(|| inbox.deliveries.try_recv().ok())
        .map(|operation| operation.job)
        .collect()
}

async fn shown(test: &TestHost, job: JobId) -> Job {
    let shown = jobs::job(&test.host, &test.tenant, job).await;
    shown.expect("reads").expect("is there")
}

async fn marked(test: &TestHost) -> usize {
    let marked = test
        .host
        .store
        .read(|conn| operations::in_order::machines_to_look_at(conn, 10));
    marked.expect("reads").len()
}

#[tokio::test]
async fn what_is_in_order_is_sent_when_what_was_accepted_before_has_ended_and_everything_else_at_once()
 {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (_session, mut inbox) = test.connect(&machine);
    let jobs = [
        in_order(&test).await,
        in_order(&test).await,
        in_order(&test).await,
    ];
    let other = test.submit("web-1", |_| ()).await;
    assert_eq!(sent(&mut inbox), [jobs[0], other]);
    looked(&test).await;
    // Running is not ended.
    let operation = test.operation(jobs[0]).id;
    store_step(&test.host, &machine, operation, State::Running, None, NOW)
        .await
        .expect("stores");
    test.settle().await;
    looked(&test).await;
    assert_eq!(sent(&mut inbox), []);
    end(&test, &machine, other).await;
    looked(&test).await;
    assert_eq!(sent(&mut inbox), []);
    for pair in jobs.windows(2) {
        end(&test, &machine, pair[0]).await;
        looked(&test).await;
        assert_eq!(sent(&mut inbox), [pair[1]]);
    }
    assert_eq!(state(&test, jobs[2]), State::Delivered);
    assert_eq!(marked(&test).await, 0);
}

#[tokio::test]
async fn machines_and_tenants_do_not_wait_for_each_other() {
    let test = TestHost::new().await;
    let (first, second) = (test.machine("web-1").await, test.machine("web-2").await);
    let (_session, mut inbox) = test.connect(&first);
    let (_other_session, mut other_inbox) = test.connect(&second);
    let both = test
        .submit("web-1", |request| {
            request.machines.push("web-2".to_owned());
            request.in_order = true;
        })
        .await;
    let next = in_order(&test).await;
    assert_eq!(
        (sent(&mut inbox), sent(&mut other_inbox)),
        (vec![both], vec![both])
    );
    end(&test, &first, both).await;
    looked(&test).await;
    assert_eq!(
        (sent(&mut inbox), sent(&mut other_inbox)),
        (vec![next], vec![])
    );
}

#[tokio::test]
async fn a_machine_that_comes_back_gets_one_of_what_is_in_order_and_the_one_accepted_first() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let jobs = [in_order(&test).await, in_order(&test).await];
    let other = test.submit("web-1", |_| ()).await;
    let (_session, _inbox) = test.connect(&machine);
    let owed = |has| pending(&test.host, &test.tenant, machine.id, has, NOW);
    let jobs_of = |pending: Pending| -> Vec<JobId> {
        let owed = pending.deliver.into_iter();
        owed.map(|(operation, _)| operation.job).collect()
    };
    assert_eq!(jobs_of(owed(&[]).await.expect("reads")), [jobs[0], other]);
    let has = [test.operation(jobs[0]).id, test.operation(other).id];
    assert_eq!(jobs_of(owed(&has).await.expect("reads")), []);
    assert_eq!(state(&test, jobs[1]), State::Queued);
}

#[tokio::test]
async fn the_order_is_that_of_acceptance_and_not_of_the_ids() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (first, second) = (in_order(&test).await, in_order(&test).await);
    // As if the gates had taken longer for the second one, which got its id first.
    let (one, other) = (test.operation(first).id, test.operation(second).id);
    let (low, high) = (
        one.to_string().min(other.to_string()),
        one.to_string().max(other.to_string()),
    );
    let (tenant, id) = (test.tenant.id, machine.id);
    let next = test
        .host
        .store
        .write(move |conn| {
            let rename = "UPDATE operations SET id = ?1 WHERE id = ?2";
            for (to, from) in [
                ("x", &low),
                (low.as_str(), &high),
                (high.as_str(), &"x".to_owned()),
            ] {
                conn.execute(rename, [to, from.as_str()])?;
            }
            operations::in_order::next(conn, tenant, id)
        })
        .await
        .expect("reads");
    assert_eq!(next.map(|row| row.job), Some(first));
}

#[tokio::test]
async fn whatever_ends_what_is_first_the_next_one_goes() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (_session, mut inbox) = test.connect(&machine);
    let first = in_order(&test).await;
    let canceled = in_order(&test).await;
    let silent = in_order(&test).await;
    let last = in_order(&test).await;
    assert_eq!(sent(&mut inbox), [first]);
    jobs::cancel(&test.host, &test.admin, canceled, NOW)
        .await
        .expect("cancels");
    looked(&test).await;
    assert_eq!(sent(&mut inbox), []);
    end(&test, &machine, first).await;
    looked(&test).await;
    assert_eq!(sent(&mut inbox), [silent]);
    let row = test.operation(silent);
    let report = Report::without_process(Ending::Interrupted, NOW.to_wire());
    test.host
        .store
        .write(move |conn| operations::end(conn, row.id, From::Open, &report))
        .await
        .expect("ends");
    looked(&test).await;
    assert_eq!(sent(&mut inbox), [last]);
}

#[tokio::test]
async fn what_never_ends_by_itself_ends_by_silence_and_the_next_one_goes() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (_session, mut inbox) = test.connect(&machine);
    let first = in_order(&test).await;
    let next = test
        .submit("web-1", |request| {
            request.in_order = true;
            request.expires = Some(sluice_protocol::units::Span::seconds(7 * 24 * 3600));
        })
        .await;
    assert_eq!(sent(&mut inbox), [first]);
    let later = test
        .operation(first)
        .silence_after
        .plus(sluice_protocol::units::Span::seconds(1));
    jobs::sweep(&test.host, later).await.expect("sweeps");
    assert_eq!(state(&test, first), State::Interrupted);
    look(&test.host, later).await.expect("looks");
    assert_eq!(sent(&mut inbox), [next]);
}

#[tokio::test]
async fn what_a_rollout_holds_keeps_nobody_waiting_and_never_runs_beside_what_came_before_its_release()
 {
    let test = TestHost::new().await;
    let (machine, other) = (test.machine("web-1").await, test.machine("web-2").await);
    let (_session, mut inbox) = test.connect(&machine);
    let (_other_session, _other_inbox) = test.connect(&other);
    let rollout = in_batches(&test).await;
    assert_eq!(test.operations(rollout)[1].state, State::Held);
    let (first, second) = (in_order(&test).await, in_order(&test).await);
    assert_eq!(sent(&mut inbox), [first]);
    end(&test, &other, rollout).await;
    crate::rollouts::advance(&test.host, &test.tenant, rollout, NOW)
        .await
        .expect("goes on");
    assert_eq!(test.operations(rollout)[1].state, State::Queued);
    looked(&test).await;
    assert_eq!(sent(&mut inbox), []);
    // It was accepted before the second one.
    end(&test, &machine, first).await;
    looked(&test).await;
    assert_eq!(sent(&mut inbox), [rollout]);
    end(&test, &machine, rollout).await;
    looked(&test).await;
    assert_eq!(sent(&mut inbox), [second]);
}

#[tokio::test]
async fn a_rollout_that_is_paused_lets_those_behind_it_go() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (_session, mut inbox) = test.connect(&machine);
    let first = in_order(&test).await;
    let rollout = test
        .submit("web-1", |request| {
            request.batches = Some("100%".to_owned());
            request.in_order = true;
        })
        .await;
    let last = in_order(&test).await;
    assert_eq!(state(&test, rollout), State::Queued);
    end(&test, &machine, first).await;
    // Before anybody has looked.
    crate::rollouts::pause(&test.host, &test.admin, rollout, NOW)
        .await
        .expect("pauses");
    looked(&test).await;
    assert_eq!(state(&test, rollout), State::Held);
    assert_eq!(sent(&mut inbox), [first, last]);
}

#[tokio::test]
async fn what_is_held_while_it_is_first_in_the_queue_has_the_machine_looked_at() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    let rollout = test
        .submit("web-1", |request| {
            request.batches = Some("100%".to_owned());
            request.in_order = true;
        })
        .await;
    in_order(&test).await;
    assert_eq!(marked(&test).await, 0);
    crate::rollouts::pause(&test.host, &test.admin, rollout, NOW)
        .await
        .expect("pauses");
    assert_eq!(marked(&test).await, 1);
}

#[tokio::test]
async fn a_lockdown_keeps_the_next_one_back_and_its_lifting_sends_it() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (_session, mut inbox) = test.connect(&machine);
    let (first, next) = (in_order(&test).await, in_order(&test).await);
    assert_eq!(sent(&mut inbox), [first]);
    jobs::lock_down(&test.host, &test.admin, None, false, NOW)
        .await
        .expect("locks");
    end(&test, &machine, first).await;
    looked(&test).await;
    assert_eq!(
        (sent(&mut inbox), state(&test, next)),
        (vec![], State::Queued)
    );
    jobs::lift_lockdown(&test.host, &test.admin, NOW)
        .await
        .expect("lifts");
    assert_eq!(sent(&mut inbox), [next]);
}

#[tokio::test]
async fn why_names_what_it_waits_for_on_its_machine() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (session, mut inbox) = test.connect(&machine);
    let (first, second, third) = (
        in_order(&test).await,
        in_order(&test).await,
        in_order(&test).await,
    );
    assert_eq!(sent(&mut inbox), [first]);
    assert!(shown(&test, first).await.in_order);
    let earlier = |job, state| Reason::Earlier {
        job,
        operation: test.operation(job).id,
        state,
    };
    for job in [second, third] {
        let why = shown(&test, job).await.operations.remove(0).why;
        assert_eq!(why, [earlier(first, State::Delivered)]);
        assert_eq!(
            why[0].to_string(),
            format!("job {first}, which is delivered on this machine, to end")
        );
    }
    end(&test, &machine, first).await;
    looked(&test).await;
    drop((session, inbox));
    let why = shown(&test, third).await.operations.remove(0).why;
    assert_eq!(why[0], earlier(second, State::Delivered));
    let why = shown(&test, second).await.operations.remove(0).why;
    assert!(
        !why.iter()
            .any(|reason| matches!(reason, Reason::Earlier { .. })),
        "{why:?}"
    );
}

#[tokio::test]
async fn it_is_on_the_record_that_a_job_is_in_order() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    in_order(&test).await;
    test.submit("web-1", |_| ()).await;
    let entries = test.audited().await;
    let attempts: Vec<_> = entries
        .iter()
        .filter(|entry| entry.event == "script_execution_attempt")
        .map(|entry| entry.details.get("in_order").cloned())
        .collect();
    assert_eq!(attempts, [Some(true.into()), None]);
}
