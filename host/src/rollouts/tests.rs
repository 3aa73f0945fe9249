//! Rollouts on a host, with machines that are played by the test.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sluice_api_types::job::SubmitJob;
use sluice_api_types::rollout::RolloutState;
use sluice_api_types::why::Reason;
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::{Ending, State};
use sluice_protocol::ids::JobId;
use sluice_protocol::report::{Exit, Report};
use sluice_protocol::units::Span;

use super::driver::{look, take_up};
use super::*;
use crate::clock::UnixMillis;
use crate::fleet::{Inbox, Session};
use crate::jobs::{self, Machine, Outcome};
use crate::store::{StoreError, operations};
use crate::testing::{NOW, TestHost};

const NAMES: [&str; 6] = ["m1", "m2", "m3", "m4", "m5", "m6"];

/// Machines that are connected, in the order of their names.
struct Fleet {
    test: TestHost,
    machines: Vec<Machine>,
    inboxes: Vec<(Session, Inbox)>,
    sent: AtomicUsize,
}

impl Fleet {
    async fn of(count: usize) -> Self {
        let test = TestHost::new().await;
        let (mut machines, mut inboxes) = (Vec::new(), Vec::new());
        for name in &NAMES[..count] {
            let machine = test.machine(name).await;
            inboxes.push(test.connect(&machine));
            machines.push(machine);
        }
        Self {
            test,
            machines,
            inboxes,
            sent: AtomicUsize::new(0),
        }
    }

    async fn submit(&self, change: impl FnOnce(&mut SubmitJob)) -> JobId {
        let names = self.machines.iter().map(|machine| machine.name.clone());
        let names = names.collect();
        self.test
            .submit("m1", |request| {
                request.machines = names;
                change(request);
            })
            .await
    }

    fn states(&self, job: JobId) -> Vec<State> {
        let operations = self.test.operations(job);
        operations.iter().map(|row| row.state).collect()
    }

    /// An operation ends, and the driver looks.
    async fn end(&self, job: JobId, position: usize, ending: Ending) {
        self.report(job, position, ending).await;
        assert!(look(&self.test.host, NOW).await);
    }

    async fn report(&self, job: JobId, position: usize, ending: Ending) {
        let operation = self.test.operations(job).swap_remove(position);
        let exit = match ending {
            Ending::Succeeded => Some(Exit::Code(0)),
            _ => None,
        };
        let report = Report {
            exit,
            ..Report::without_process(ending, NOW.to_wire())
        };
        let machine = &self.machines[position];
        let outcome = jobs::store_report(&self.test.host, machine, operation.id, report, NOW).await;
        assert!(matches!(outcome, Ok(Outcome::Acknowledge { .. })));
    }

    /// What was sent to each machine since the start.
    fn sent(&mut self) -> Vec<usize> {
        let each = self.inboxes.iter_mut();
        each.map(|(_, inbox)| {
            let count = std::iter::from_fn(|| inbox.deliveries.try_recv().ok()).count();
            self.sent.fetch_add(count, Ordering::Relaxed);
            count
        })
        .collect()
    }

    fn rollout(&self, job: JobId) -> crate::store::rollouts::RolloutRow {
        let found = self
            .test
            .host
            .store
            .read(|conn| crate::store::rollouts::find(conn, self.test.tenant.id, job));
        found.expect("reads").expect("is there")
    }

    async fn why(&self, job: JobId, position: usize) -> Vec<Reason> {
        let shown = jobs::job(&self.test.host, &self.test.tenant, job).await;
        shown.expect("reads").expect("is there").operations[position]
            .why
            .clone()
    }
}

fn batches(text: &str) -> impl FnOnce(&mut SubmitJob) {
    let text = text.to_owned();
    move |request| request.batches = Some(text)
}

use State::{Delivered, Held, Queued, Succeeded};

#[tokio::test]
async fn each_batch_is_sent_when_the_one_before_has_ended_well_and_nothing_twice() {
    let mut fleet = Fleet::of(4).await;
    let job = fleet.submit(batches("1, 50%, 100%")).await;
    assert_eq!(fleet.states(job), [Delivered, Held, Held, Held]);
    assert_eq!(fleet.sent(), [1, 0, 0, 0]);
    assert_eq!(
        fleet.why(job, 3).await,
        [Reason::Batch {
            batch: 3,
            of: 3,
            begun: 1
        }]
    );
    fleet.end(job, 0, Ending::Succeeded).await;
    assert_eq!(fleet.states(job), [Succeeded, Delivered, Held, Held]);
    assert_eq!(fleet.sent(), [0, 1, 0, 0]);
    fleet.end(job, 1, Ending::Succeeded).await;
    assert_eq!(
        fleet.states(job),
        [Succeeded, Succeeded, Delivered, Delivered]
    );
    assert_eq!(fleet.sent(), [0, 0, 1, 1]);
    fleet.end(job, 3, Ending::Succeeded).await;
    assert_eq!(fleet.rollout(job).state, RolloutState::Running);
    fleet.end(job, 2, Ending::Succeeded).await;
    assert_eq!(fleet.rollout(job).state, RolloutState::Done);
    assert_eq!(fleet.sent(), [0; 4]);
    assert_eq!(fleet.test.count_audited("job_released").await, 3);
    let released = fleet.test.audited().await;
    let last = released
        .iter()
        .rev()
        .find(|entry| entry.event == "job_released");
    let last = last.expect("is recorded");
    assert_eq!(
        (
            last.details["batch"].as_u64(),
            last.details["of"].as_u64(),
            last.details["operations"].as_u64()
        ),
        (Some(3), Some(3), Some(2))
    );
}

#[tokio::test]
async fn a_failure_pauses_the_job_and_resuming_forgives_it() {
    let mut fleet = Fleet::of(3).await;
    let job = fleet.submit(batches("1, 2, 100%")).await;
    fleet.end(job, 0, Ending::ExitCode(3)).await;
    assert_eq!(fleet.states(job), [State::Failed, Held, Held]);
    assert_eq!(fleet.rollout(job).state, RolloutState::Paused);
    assert_eq!(fleet.sent(), [1, 0, 0]);
    let why = serde_json::to_value(fleet.why(job, 1).await).expect("has a form");
    assert_eq!(
        (
            why[0]["reason"].as_str(),
            why[0]["rule"].as_str(),
            &why[0]["by"]
        ),
        (Some("paused"), Some("1"), &serde_json::Value::Null)
    );
    let shown = resume(&fleet.test.host, &fleet.test.admin, job, NOW).await;
    let shown = shown.expect("resumes");
    assert_eq!(
        (shown.state, shown.batch, shown.failures),
        (RolloutState::Running, 2, 1)
    );
    assert_eq!(fleet.states(job), [State::Failed, Delivered, Held]);
    fleet.end(job, 1, Ending::TimedOut(Span::seconds(1))).await;
    assert_eq!(
        fleet.states(job)[2],
        Held,
        "a second failure stops it again"
    );
    for (event, count) in [("job_stopped", 2), ("job_resumed", 1), ("job_paused", 0)] {
        assert_eq!(fleet.test.count_audited(event).await, count, "{event}");
    }
}

#[tokio::test]
async fn pausing_takes_back_what_was_not_sent_and_a_machine_that_comes_gets_nothing() {
    let mut fleet = Fleet::of(3).await;
    let (session, _) = fleet.inboxes.pop().expect("is there");
    fleet.test.host.presence.leave(&session);
    let job = fleet.submit(batches("100%")).await;
    assert_eq!(fleet.states(job), [Delivered, Delivered, Queued]);
    let shown = pause(&fleet.test.host, &fleet.test.admin, job, NOW).await;
    assert_eq!(shown.expect("pauses").held, 1);
    assert_eq!(fleet.states(job), [Delivered, Delivered, Held]);
    let machine = fleet.machines[2].clone();
    let (_session, mut inbox) = fleet.test.connect(&machine);
    let (host, tenant) = (fleet.test.host.clone(), fleet.test.tenant.clone());
    let owed = jobs::pending(&host, &tenant, machine.id, &[], NOW).await;
    assert_eq!(owed.expect("reads").deliver, []);
    assert!(inbox.deliveries.try_recv().is_err());
    // What was sent is with the machine, or it is not: then it waits as well.
    let id = fleet.test.operations(job)[0].id;
    for (has, state) in [(vec![id], Delivered), (Vec::new(), Held)] {
        let owed = jobs::pending(&host, &tenant, fleet.machines[0].id, &has, NOW).await;
        assert_eq!(owed.expect("reads").deliver, []);
        assert_eq!(fleet.states(job), [state, Delivered, Held]);
    }
    // Twice is once.
    pause(&fleet.test.host, &fleet.test.admin, job, NOW)
        .await
        .expect("stays paused");
    assert_eq!(fleet.test.count_audited("job_paused").await, 1);
    resume(&fleet.test.host, &fleet.test.admin, job, NOW)
        .await
        .expect("resumes");
    assert_eq!(fleet.states(job), [Delivered; 3]);
    assert!(inbox.deliveries.try_recv().is_ok());
}

#[tokio::test]
async fn no_more_than_may_be_are_open_at_once() {
    let fleet = Fleet::of(5).await;
    let job = fleet
        .submit(|request| request.max_concurrency = Some(2))
        .await;
    assert_eq!(fleet.states(job), [Delivered, Delivered, Held, Held, Held]);
    assert_eq!(fleet.why(job, 4).await, [Reason::Concurrency { max: 2 }]);
    // Both end before anybody looks: one step for both.
    fleet.report(job, 1, Ending::ExitCode(1)).await;
    fleet.end(job, 0, Ending::Succeeded).await;
    assert_eq!(fleet.states(job)[2..], [Delivered, Delivered, Held]);
    assert_eq!(fleet.test.count_audited("job_released").await, 2);
}

#[tokio::test]
async fn a_host_that_starts_again_goes_on_where_it_was() {
    let mut fleet = Fleet::of(4).await;
    let (job, paused) = (
        fleet.submit(batches("1, 100%")).await,
        fleet.submit(batches("1, 100%")).await,
    );
    pause(&fleet.test.host, &fleet.test.admin, paused, NOW)
        .await
        .expect("pauses");
    // It was stopped after the commit of an end, and before anything followed from that.
    fleet.report(job, 0, Ending::Succeeded).await;
    fleet.report(paused, 0, Ending::Succeeded).await;
    fleet.test.host.rollouts.forget(job);
    fleet.test.host.rollouts.forget(paused);
    assert!(look(&fleet.test.host, NOW).await);
    assert_eq!(fleet.states(job)[1..], [Held; 3], "nobody looks");
    fleet.sent();
    for _ in 0..2 {
        take_up(&fleet.test.host).await.expect("reads");
        assert!(look(&fleet.test.host, NOW).await);
    }
    assert_eq!(fleet.states(job)[1..], [Delivered; 3]);
    assert_eq!(fleet.states(paused)[1..], [Held; 3]);
    assert_eq!(fleet.sent(), [0, 1, 1, 1]);
}

#[tokio::test]
async fn canceling_and_halting_end_what_is_held_too() {
    let fleet = Fleet::of(3).await;
    let (first, second) = (
        fleet.submit(batches("1, 100%")).await,
        fleet.submit(batches("1, 100%")).await,
    );
    jobs::cancel(&fleet.test.host, &fleet.test.admin, first, NOW)
        .await
        .expect("cancels");
    assert_eq!(fleet.states(first)[1..], [State::Canceled; 2]);
    jobs::halt(&fleet.test.host, &fleet.test.admin, NOW)
        .await
        .expect("halts");
    assert_eq!(fleet.states(second)[1..], [State::Canceled; 2]);
    // The machine answers; the rollout stops at nothing and is over.
    fleet
        .end(first, 0, Ending::Canceled("admin".to_owned()))
        .await;
    assert_eq!(fleet.rollout(first).state, RolloutState::Done);
    let late = pause(&fleet.test.host, &fleet.test.admin, first, NOW).await;
    assert!(matches!(late, Err(ChangeError::Over(_))));
}

#[tokio::test]
async fn what_is_held_expires_and_nothing_overdue_is_released() {
    let fleet = Fleet::of(2).await;
    let job = fleet
        .submit(|request| {
            request.batches = Some("1, 100%".to_owned());
            request.expires = Some(Span::seconds(60));
        })
        .await;
    let later = NOW.plus(Span::seconds(61));
    fleet.report(job, 0, Ending::Succeeded).await;
    assert!(look(&fleet.test.host, later).await);
    assert_eq!(fleet.states(job)[1], Held);
    jobs::sweep(&fleet.test.host, later).await.expect("sweeps");
    assert_eq!(fleet.states(job)[1], State::Expired);
    assert!(look(&fleet.test.host, later).await);
    assert_eq!(fleet.rollout(job).state, RolloutState::Done);
}

#[tokio::test]
async fn a_lockdown_releases_nothing_until_it_is_lifted() {
    let fleet = Fleet::of(2).await;
    let job = fleet.submit(batches("1, 100%")).await;
    let (host, admin) = (&fleet.test.host, &fleet.test.admin);
    jobs::lock_down(host, admin, None, false, NOW)
        .await
        .expect("locks");
    fleet.end(job, 0, Ending::Succeeded).await;
    assert_eq!(fleet.states(job)[1], Held);
    assert!(matches!(
        fleet.why(job, 1).await[0],
        Reason::Lockdown { .. }
    ));
    jobs::lift_lockdown(host, admin, NOW).await.expect("lifts");
    assert!(look(host, NOW).await);
    assert_eq!(fleet.states(job)[1], Delivered);
}

#[tokio::test]
async fn with_no_queue_a_machine_that_is_away_fails_when_its_batch_begins() {
    let mut fleet = Fleet::of(3).await;
    let (session, _) = fleet.inboxes.remove(1);
    fleet.test.host.presence.leave(&session);
    let job = fleet
        .submit(|request| {
            request.batches = Some("1, 2, 100%".to_owned());
            request.no_queue = true;
        })
        .await;
    assert_eq!(fleet.states(job), [Delivered, Held, Held]);
    fleet.end(job, 0, Ending::Succeeded).await;
    assert_eq!(fleet.states(job), [Succeeded, State::Failed, Held]);
    let message = fleet.test.operations(job)[1].message.clone();
    assert_eq!(message.as_deref(), Some("Agent not connected"));
    assert_eq!(fleet.rollout(job).state, RolloutState::Paused);
}

#[tokio::test]
async fn a_plan_that_does_not_fit_the_machines_makes_nothing() {
    let fleet = Fleet::of(3).await;
    let names = ["m1", "m2", "m3"].map(str::to_owned).to_vec();
    for text in ["1, 2", "3, 10%, 100%", "1, 200%", ""] {
        let mut request = crate::testing::request("m1");
        request.machines.clone_from(&names);
        request.batches = Some(text.to_owned());
        let refused = jobs::submit(&fleet.test.host, &fleet.test.admin, request, None, NOW).await;
        assert!(
            matches!(
                &refused,
                Err(jobs::SubmitError::Request(jobs::RequestError::Rollout(_)))
            ),
            "{text}: {refused:?}"
        );
    }
    let open = fleet
        .test
        .host
        .store
        .read(|conn| crate::store::operations::open_jobs(conn, fleet.test.tenant.id, None, 10));
    assert_eq!(open.expect("reads"), []);
}

#[tokio::test]
async fn a_job_without_a_rollout_and_one_of_another_tenant_cannot_be_paused() {
    let fleet = Fleet::of(1).await;
    let plain = fleet.submit(|_| ()).await;
    let admin = &fleet.test.admin;
    let refused = pause(&fleet.test.host, admin, plain, NOW).await;
    assert!(matches!(refused, Err(ChangeError::NoRollout(_))));
    let job = fleet.submit(batches("100%")).await;
    let (stranger, _) = fleet.test.stranger().await;
    for refused in [
        pause(&fleet.test.host, &stranger, job, NOW).await,
        resume(&fleet.test.host, &stranger, job, NOW).await,
    ] {
        assert!(matches!(refused, Err(ChangeError::NoJob(_))));
    }
}

#[tokio::test]
async fn a_machine_gets_no_attachment_before_its_batch_begins() {
    let fleet = Fleet::of(2).await;
    let job = fleet.submit(batches("1, 100%")).await;
    let (tenant, sha256) = (fleet.test.tenant.id, Digest::of(b"data"));
    let attached = fleet.test.host.store.write(move |conn| {
        conn.execute(
            "INSERT INTO job_attachments (tenant, job, sha256) VALUES (?, ?, ?)",
            [tenant.to_string(), job.to_string(), sha256.to_string()],
        )
        .map_err(StoreError::from)
    });
    attached.await.expect("writes");
    let may_have = |position: usize| {
        let machine = fleet.machines[position].id;
        let found = fleet
            .test
            .host
            .store
            .read(|conn| operations::open_names_attachment(conn, tenant, machine, sha256));
        found.expect("reads")
    };
    assert_eq!((may_have(0), may_have(1)), (true, false));
    fleet.end(job, 0, Ending::Succeeded).await;
    assert_eq!((may_have(0), may_have(1)), (false, true));
}

/// What pauses where machines go dark; failures do not.
fn dark(request: &mut SubmitJob) {
    request.batches = Some("1, 100%".to_owned());
    request.stop_on_failures = Some("never".to_owned());
    request.stop_on_dark = Some("1".to_owned());
    request.dark_after = Some(Span::seconds(60));
}

/// The first machine starts its operation, ends it, and goes away.
async fn first_one_runs_and_goes(fleet: &Fleet, job: JobId) {
    runs_and_goes(fleet, job, 0).await;
}

async fn runs_and_goes(fleet: &Fleet, job: JobId, position: usize) {
    let (host, machine) = (&fleet.test.host, &fleet.machines[position]);
    let operation = fleet.test.operations(job).swap_remove(position).id;
    let started = Some(NOW);
    jobs::store_step(host, machine, operation, State::Running, started, NOW)
        .await
        .expect("stores");
    host.presence.leave(&fleet.inboxes[position].0);
    fleet.end(job, position, Ending::Succeeded).await;
}

/// What becomes of the rollout, when the clock on the wall shows so much.
async fn at(fleet: &Fleet, job: JobId, now: UnixMillis) -> RolloutState {
    advance(&fleet.test.host, &fleet.test.tenant, job, now)
        .await
        .expect("goes on");
    fleet.rollout(job).state
}

/// What becomes of the rollout when the first machine has been away for so many seconds.
async fn away_for(fleet: &Fleet, job: JobId, seconds: u64) -> RolloutState {
    let presence = &fleet.test.host.presence;
    presence.left_ago(fleet.machines[0].id, Duration::from_secs(seconds));
    at(fleet, job, NOW).await
}

#[tokio::test]
async fn a_machine_that_goes_dark_after_the_run_pauses_the_job_and_resuming_forgives_it() {
    let mut fleet = Fleet::of(2).await;
    let job = fleet.submit(dark).await;
    first_one_runs_and_goes(&fleet, job).await;
    // It may be on its way back, so that the next batch waits.
    assert_eq!(away_for(&fleet, job, 30).await, RolloutState::Running);
    assert_eq!(fleet.states(job), [Succeeded, Held]);
    assert_eq!(away_for(&fleet, job, 60).await, RolloutState::Paused);
    assert_eq!(fleet.states(job), [Succeeded, Held]);
    let paused = show_paused(&fleet, job);
    assert!(
        paused.contains("machines went dark (1, the rule is 1)"),
        "{paused}"
    );
    resume(&fleet.test.host, &fleet.test.admin, job, NOW)
        .await
        .expect("resumes");
    assert_eq!(fleet.states(job), [Succeeded, Delivered]);
    assert_eq!(fleet.sent(), [1, 1]);
}

#[tokio::test]
async fn a_clock_that_jumps_makes_no_machine_dark_and_no_dark_one_bright() {
    let fleet = Fleet::of(2).await;
    let job = fleet.submit(dark).await;
    first_one_runs_and_goes(&fleet, job).await;
    let year = 365 * 86_400_000;
    let ahead = UnixMillis(NOW.0 + year);
    assert_eq!(at(&fleet, job, ahead).await, RolloutState::Running);
    let presence = &fleet.test.host.presence;
    presence.left_ago(fleet.machines[0].id, Duration::from_secs(60));
    let behind = UnixMillis(NOW.0 - year);
    assert_eq!(at(&fleet, job, behind).await, RolloutState::Paused);
}

#[tokio::test]
async fn a_dark_machine_that_is_forgiven_and_comes_back_does_not_stand_for_another() {
    let fleet = Fleet::of(4).await;
    let rules = |request: &mut SubmitJob| {
        dark(request);
        request.batches = Some("1, 2, 100%".to_owned());
    };
    let job = fleet.submit(rules).await;
    first_one_runs_and_goes(&fleet, job).await;
    assert_eq!(away_for(&fleet, job, 60).await, RolloutState::Paused);
    resume(&fleet.test.host, &fleet.test.admin, job, NOW)
        .await
        .expect("resumes");
    let _back = fleet.test.connect(&fleet.machines[0]);
    assert_eq!(at(&fleet, job, NOW).await, RolloutState::Running);
    runs_and_goes(&fleet, job, 1).await;
    let presence = &fleet.test.host.presence;
    presence.left_ago(fleet.machines[1].id, Duration::from_secs(60));
    assert_eq!(at(&fleet, job, NOW).await, RolloutState::Paused);
    assert_eq!(fleet.states(job), [Succeeded, Succeeded, Held, Held]);
}

#[tokio::test]
async fn a_machine_whose_link_is_gone_before_it_says_that_the_script_runs_is_dark_too() {
    let fleet = Fleet::of(2).await;
    let job = fleet.submit(dark).await;
    let (host, machine) = (&fleet.test.host, &fleet.machines[0]);
    let operation = fleet.test.operations(job).swap_remove(0).id;
    jobs::store_step(host, machine, operation, State::Checking, None, NOW)
        .await
        .expect("stores");
    // What the machine says is stored with the next commit.
    let commit = host.store.write(|_| Ok::<_, StoreError>(()));
    commit.await.expect("commits");
    host.presence.leave(&fleet.inboxes[0].0);
    assert_eq!(away_for(&fleet, job, 59).await, RolloutState::Running);
    assert_eq!(away_for(&fleet, job, 60).await, RolloutState::Paused);
}

fn show_paused(fleet: &Fleet, job: JobId) -> String {
    paused(&fleet.rollout(job)).map_or_else(String::new, |paused| paused.to_string())
}

#[tokio::test]
async fn a_machine_that_comes_back_in_time_is_not_dark_and_the_next_batch_begins() {
    let fleet = Fleet::of(2).await;
    let job = fleet.submit(dark).await;
    first_one_runs_and_goes(&fleet, job).await;
    assert_eq!(away_for(&fleet, job, 30).await, RolloutState::Running);
    let _back = fleet.test.connect(&fleet.machines[0]);
    assert_eq!(away_for(&fleet, job, 90).await, RolloutState::Running);
    assert_eq!(fleet.states(job), [Succeeded, Delivered]);
}

#[tokio::test]
async fn a_time_out_pauses_a_job_whose_failures_pause_nothing() {
    let fleet = Fleet::of(3).await;
    let rules = |request: &mut SubmitJob| {
        request.batches = Some("1, 2, 100%".to_owned());
        request.stop_on_failures = Some("never".to_owned());
        request.stop_on_timeouts = Some("1".to_owned());
    };
    let job = fleet.submit(rules).await;
    fleet.end(job, 0, Ending::ExitCode(3)).await;
    assert_eq!(fleet.states(job), [State::Failed, Delivered, Held]);
    fleet.end(job, 1, Ending::TimedOut(Span::seconds(1))).await;
    assert_eq!(fleet.rollout(job).state, RolloutState::Paused);
    let paused = show_paused(&fleet, job);
    assert!(
        paused.contains("operations timed out (1, the rule is 1)"),
        "{paused}"
    );
    let stopped = fleet.test.audited().await;
    let stopped = stopped.iter().find(|entry| entry.event == "job_stopped");
    assert_eq!(stopped.expect("is recorded").details["timeouts"], 1);
}

#[tokio::test]
async fn a_result_that_the_first_batch_did_not_have_pauses_the_job_where_a_rule_says_so() {
    let mut fleet = Fleet::of(4).await;
    let rules = |request: &mut SubmitJob| {
        request.batches = Some("1, 2, 3, 100%".to_owned());
        request.stop_on_failures = Some("never".to_owned());
        request.stop_on_new_groups = Some("1".to_owned());
    };
    let job = fleet.submit(rules).await;
    fleet.end(job, 0, Ending::ExitCode(3)).await;
    fleet.end(job, 1, Ending::ExitCode(3)).await;
    // It is like that of the first batch, however that went.
    assert_eq!(
        fleet.states(job),
        [State::Failed, State::Failed, Delivered, Held]
    );
    fleet.end(job, 2, Ending::Succeeded).await;
    assert_eq!(fleet.rollout(job).state, RolloutState::Paused);
    let paused = show_paused(&fleet, job);
    assert!(
        paused.contains("not like those of the first batch (1, the rule is 1)"),
        "{paused}"
    );
    resume(&fleet.test.host, &fleet.test.admin, job, NOW)
        .await
        .expect("resumes");
    assert_eq!(fleet.states(job)[3], Delivered);
    assert_eq!(fleet.sent(), [1, 1, 1, 1]);
}
