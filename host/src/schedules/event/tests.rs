//! What happens to machines, as far as a schedule runs for it.

use sluice_api_types::job::Tag;
use sluice_api_types::schedule::{AddSchedule, OnMissed, OnOverlap};
use sluice_protocol::ending::{Ending, State};
use sluice_protocol::report::Report;

use super::*;
use crate::jobs::Machine;
use crate::operators::Permission;
use crate::schedules::{add, look, pause, resume};
use crate::store::bindings::TagPair;
use crate::testing::{NOW, TestHost, request};

const MINUTE: i64 = 60_000;

fn minutes(count: i64) -> UnixMillis {
    UnixMillis(NOW.0 + count * MINUTE)
}

fn at(event: MachineEvent) -> AddSchedule {
    AddSchedule {
        name: "e".to_owned(),
        at: None,
        cron: None,
        zone: None,
        every: None,
        event: Some(event),
        at_most_every: Some(Span::seconds(600)),
        jitter: None,
        missed: OnMissed::default(),
        overlap: OnOverlap::default(),
        job: SubmitJob {
            machines: Vec::new(),
            tags: vec![Tag {
                key: "role".to_owned(),
                value: "web".to_owned(),
            }],
            ..request("")
        },
    }
}

/// A host with a schedule, and a machine that is one of its machines.
struct Case {
    test: TestHost,
    row: ScheduleRow,
    machine: Machine,
}

impl Case {
    async fn of(event: MachineEvent) -> Self {
        let test = TestHost::new().await;
        let machine = test.machine("web-1").await;
        let case = Self {
            row: add(&test.host, &test.admin, at(event), NOW)
                .await
                .expect("adds"),
            machine,
            test,
        };
        case.tag(&case.machine).await;
        case
    }

    async fn tag(&self, machine: &Machine) {
        let (tenant, id) = (self.test.tenant.id, machine.id);
        let tag = TagPair {
            key: "role".to_owned(),
            value: "web".to_owned(),
        };
        let tagged = move |conn: &Connection| machines::set_tag(conn, tenant, id, &tag);
        self.test.host.store.write(tagged).await.expect("tags");
    }

    async fn happens(&self, event: MachineEvent, machine: &Machine, now: UnixMillis) -> bool {
        let (tenant, id) = (self.test.tenant.id, machine.id);
        let noted = self
            .test
            .host
            .store
            .write(move |conn| note(conn, tenant, id, event, now))
            .await;
        noted.expect("notes")
    }

    async fn look(&self, now: UnixMillis) -> Option<UnixMillis> {
        look(&self.test.host, now).await.expect("looks").next
    }

    /// What became of the events, the first first.
    fn runs(&self) -> Vec<EventRow> {
        let read = |conn: &Connection| schedule_events::list(conn, self.row.id, None, 1000);
        let mut runs = self.test.host.store.read(read).expect("reads");
        runs.reverse();
        runs
    }

    fn states(&self) -> Vec<RunState> {
        self.runs().into_iter().map(|run| run.state).collect()
    }

    async fn end(&self, run: &EventRow, now: UnixMillis) {
        let operation = self.test.operation(run.job.expect("a job"));
        let report = Report::without_process(Ending::Expired, now.to_wire());
        let outcome =
            jobs::store_report(&self.test.host, &self.machine, operation.id, report, now).await;
        outcome.expect("stores");
    }
}

use MachineEvent::{Enrolled, FactsChanged, Online};
use RunState::{Fired, Missed, Waiting};

#[tokio::test]
async fn what_happens_to_one_of_its_machines_runs_there_once_and_as_its_owner() {
    let case = Case::of(Enrolled).await;
    let other = case.test.machine("db-1").await;
    assert!(case.happens(Enrolled, &case.machine, NOW).await);
    // Neither what is not its event nor what is none of its machines.
    assert!(!case.happens(Online, &case.machine, NOW).await);
    assert!(!case.happens(Enrolled, &other, NOW).await);
    assert_eq!(case.states(), [Waiting]);
    for _ in 0..2 {
        case.look(NOW).await;
    }
    let [run] = case.runs().try_into().expect("one run");
    let job = run.job.expect("a job");
    let operations = case.test.operations(job);
    assert_eq!((run.state, operations.len()), (Fired, 1));
    assert_eq!(operations[0].machine, Some(case.machine.id));
    let entries = case.test.audited().await;
    let attempt = entries
        .iter()
        .find(|entry| entry.event == "script_execution_attempt");
    let attempt = attempt.expect("is on the record");
    assert_eq!(
        (attempt.operator.as_deref(), attempt.source.as_str()),
        (Some("admin"), "schedule")
    );
    assert_eq!(case.test.count_audited("schedule_fired").await, 1);
}

#[tokio::test]
async fn a_host_that_stops_between_the_job_and_its_record_makes_no_second_job() {
    let case = Case::of(Enrolled).await;
    case.happens(Enrolled, &case.machine, NOW).await;
    case.look(NOW).await;
    let made = case.runs()[0].job;
    let forget = |conn: &Connection| {
        conn.execute(
            "UPDATE schedule_events SET state = 'waiting', job = NULL",
            [],
        )
        .map_err(StoreError::from)
    };
    case.test.host.store.write(forget).await.expect("forgets");
    case.look(minutes(1)).await;
    assert_eq!((case.runs()[0].job, case.states()), (made, vec![Fired]));
}

#[tokio::test]
async fn a_link_that_comes_and_goes_is_one_event_until_the_time_is_over() {
    let case = Case::of(Online).await;
    for second in 0..30 {
        case.happens(Online, &case.machine, UnixMillis(NOW.0 + second * 1000))
            .await;
        case.look(UnixMillis(NOW.0 + second * 1000)).await;
    }
    assert_eq!(case.states(), [Fired]);
    case.end(&case.runs()[0], minutes(1)).await;
    assert!(
        !case
            .happens(Online, &case.machine, UnixMillis(NOW.0 + 10 * MINUTE - 1))
            .await
    );
    assert!(case.happens(Online, &case.machine, minutes(10)).await);
    case.look(minutes(10)).await;
    assert_eq!(case.states(), [Fired, Fired]);
}

#[tokio::test]
async fn facts_that_change_again_are_looked_at_when_the_time_is_over_and_then_once() {
    let case = Case::of(FactsChanged).await;
    for minute in [0, 1, 2, 3] {
        case.happens(FactsChanged, &case.machine, minutes(minute))
            .await;
        case.look(minutes(minute)).await;
    }
    assert_eq!(case.states(), [Fired, Waiting]);
    assert_eq!(case.look(minutes(4)).await, Some(minutes(10)));
    case.end(&case.runs()[0], minutes(4)).await;
    case.look(minutes(10)).await;
    assert_eq!(case.states(), [Fired, Fired]);
}

#[tokio::test]
async fn a_clock_that_was_ahead_keeps_no_run_away() {
    let case = Case::of(Online).await;
    case.happens(Online, &case.machine, minutes(1_000_000))
        .await;
    case.look(minutes(1_000_000)).await;
    case.end(&case.runs()[0], NOW).await;
    assert!(case.happens(Online, &case.machine, NOW).await);
    case.look(NOW).await;
    assert_eq!(case.states(), [Fired, Fired]);
}

#[tokio::test]
async fn no_second_run_starts_on_a_machine_where_the_one_before_has_not_ended() {
    let case = Case::of(Online).await;
    for minute in [0, 10] {
        case.happens(Online, &case.machine, minutes(minute)).await;
        case.look(minutes(minute)).await;
    }
    assert_eq!(case.states(), [Fired, Missed]);
    let reason = case.runs()[1].reason.clone().expect("is said");
    assert!(reason.contains("the run before has not ended"), "{reason}");
    assert_eq!(case.test.count_audited("schedule_missed").await, 1);
}

#[tokio::test]
async fn what_the_owner_may_not_do_any_more_is_missed_and_on_the_record() {
    let case = Case::of(Online).await;
    let (owner, token) = case
        .test
        .operator(
            "owner",
            &[Permission::ScheduleScript, Permission::RemoteExecution],
        )
        .await;
    let mut asked = at(Online);
    asked.name = "other".to_owned();
    let other = add(&case.test.host, &owner, asked, NOW)
        .await
        .expect("adds");
    drop(token);
    let (tenant, id) = (case.test.tenant.id, owner.token);
    let revoked = move |conn: &Connection| crate::store::tokens::revoke(conn, tenant, id, NOW);
    case.test.host.store.write(revoked).await.expect("revokes");
    case.happens(Online, &case.machine, NOW).await;
    case.look(NOW).await;
    let read = |conn: &Connection| schedule_events::list(conn, other.id, None, 10);
    let runs = case.test.host.store.read(read).expect("reads");
    assert_eq!(runs[0].state, Missed);
    assert!(
        runs[0]
            .reason
            .as_deref()
            .unwrap_or_default()
            .contains("was revoked")
    );
    assert_eq!(case.states(), [Fired]);
}

#[tokio::test]
async fn a_paused_schedule_notes_nothing_and_goes_on_when_it_is_resumed() {
    let case = Case::of(Online).await;
    let (host, admin) = (&case.test.host, &case.test.admin);
    pause(host, admin, "e", NOW).await.expect("pauses");
    assert!(!case.happens(Online, &case.machine, NOW).await);
    let resumed = resume(host, admin, "e", NOW).await.expect("resumes");
    assert_eq!(resumed.paused, None);
    assert!(case.happens(Online, &case.machine, NOW).await);
    // What waits when it is paused again does not run.
    pause(host, admin, "e", NOW).await.expect("pauses");
    case.look(NOW).await;
    assert_eq!(case.states(), [Missed]);
}

#[tokio::test]
async fn a_machine_that_is_none_of_its_machines_any_more_gets_nothing() {
    let case = Case::of(Online).await;
    case.happens(Online, &case.machine, NOW).await;
    let id = case.machine.id;
    let untagged = move |conn: &Connection| machines::remove_tag(conn, id, "role");
    case.test.host.store.write(untagged).await.expect("untags");
    case.look(NOW).await;
    assert_eq!(case.states(), [Missed]);
}

#[tokio::test]
async fn options_about_planned_times_are_refused_for_an_event_and_the_other_way_round() {
    type Change = fn(&mut AddSchedule);
    let case = Case::of(Online).await;
    let changes: [(Change, &str); 5] = [
        (
            |r| r.cron = Some("@daily".to_owned()),
            "give one of at, cron, every and event",
        ),
        (|r| r.zone = Some("UTC".to_owned()), "are for planned times"),
        (
            |r| r.jitter = Some(Span::seconds(60)),
            "are for planned times",
        ),
        (|r| r.overlap = OnOverlap::Queue, "are for planned times"),
        (
            |r| r.at_most_every = Some(Span::seconds(1)),
            "the interval cannot be 1s",
        ),
    ];
    for (change, reason) in changes {
        let mut asked = at(Online);
        asked.name = "other".to_owned();
        change(&mut asked);
        let error = add(&case.test.host, &case.test.admin, asked, NOW).await;
        let error = error.expect_err(reason).to_string();
        assert!(error.contains(reason), "{error}");
    }
    let mut timed = at(Online);
    (timed.event, timed.cron) = (None, Some("@daily".to_owned()));
    let error = add(&case.test.host, &case.test.admin, timed, NOW).await;
    assert!(
        error
            .expect_err("refused")
            .to_string()
            .contains("at_most_every is for an event")
    );
    let operation = case.test.submit("web-1", |_| {}).await;
    assert_eq!(case.test.operation(operation).state, State::Queued);
}
