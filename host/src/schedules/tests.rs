//! Schedules on a host: what is due is fired, whatever happens in between.

use sluice_api_types::job::{SubmitJob, Tag};
use sluice_api_types::schedule::{AddSchedule, OnMissed, OnOverlap, RunState};
use sluice_api_types::script::{AddScript, ScriptRef};
use sluice_protocol::ending::{Ending, State};
use sluice_protocol::ids::JobId;
use sluice_protocol::report::Report;
use sluice_protocol::units::Span;

use super::*;
use crate::clock::UnixMillis;
use crate::jobs;
use crate::library;
use crate::operators::{Actor, Permission};
use crate::store::bindings::TagPair;
use crate::store::schedules::{self as store, RunRow, ScheduleRow};
use crate::store::{StoreError, machines, operations, tokens};
use crate::testing::{NOW, TestHost, request};

const HOUR: i64 = 3_600_000;

/// So many hours after tests begin, and a second, so that what is planned then is due.
fn hours(count: i64) -> UnixMillis {
    UnixMillis(NOW.0 + count * HOUR + 1000)
}

fn hourly(name: &str) -> AddSchedule {
    AddSchedule {
        name: name.to_owned(),
        at: None,
        cron: None,
        zone: None,
        every: Some(Span::seconds(3600)),
        event: None,
        at_most_every: None,
        jitter: None,
        missed: OnMissed::Once,
        overlap: OnOverlap::Skip,
        job: request("web-1"),
    }
}

async fn added(test: &TestHost, request: AddSchedule) -> ScheduleRow {
    add(&test.host, &test.admin, request, NOW)
        .await
        .expect("is added")
}

async fn look_at(test: &TestHost, now: UnixMillis) -> Looked {
    look(&test.host, now).await.expect("looks")
}

fn runs(test: &TestHost, row: &ScheduleRow) -> Vec<RunRow> {
    let mut runs = test
        .host
        .store
        .read(|conn| store::runs(conn, row.id, None, 1000))
        .expect("reads");
    runs.reverse();
    runs
}

fn jobs_of(test: &TestHost, row: &ScheduleRow) -> Vec<JobId> {
    runs(test, row).iter().filter_map(|run| run.job).collect()
}

fn reason(run: &RunRow) -> &str {
    run.reason.as_deref().unwrap_or_default()
}

#[tokio::test]
async fn a_schedule_fires_when_it_is_due_as_its_owner_and_says_when_it_is_due_next() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    let row = added(&test, hourly("h")).await;
    assert_eq!(row.next_due, Some(UnixMillis(NOW.0 + HOUR)));
    let early = look_at(&test, UnixMillis(NOW.0 + HOUR - 1)).await;
    assert_eq!((early.next, runs(&test, &row)), (row.next_due, vec![]));
    let looked = look_at(&test, hours(1)).await;
    assert_eq!(looked.next, Some(UnixMillis(NOW.0 + 2 * HOUR)));
    look_at(&test, hours(1)).await;
    let [run] = runs(&test, &row).try_into().expect("one run");
    let job = run.job.expect("a job");
    assert_eq!(
        (run.planned, run.state, run.late),
        (UnixMillis(NOW.0 + HOUR), RunState::Fired, false)
    );
    assert_eq!(test.operation(job).state, State::Queued);
    let audited = test.audited().await;
    let fired: Vec<_> = audited
        .iter()
        .filter(|entry| entry.event == "schedule_fired")
        .collect();
    assert_eq!(fired.len(), 1);
    assert_eq!(fired[0].job, Some(job.to_string()));
    let attempt = audited
        .iter()
        .find(|entry| entry.event == "script_execution_attempt")
        .expect("is on the record");
    assert_eq!(
        (attempt.operator.as_deref(), attempt.source.as_str()),
        (Some("admin"), "schedule")
    );
    assert_eq!(test.count_audited("script_scheduled").await, 1);
}

#[tokio::test]
async fn a_host_that_stops_between_the_job_and_its_record_makes_no_second_one() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    let row = added(&test, hourly("h")).await;
    look_at(&test, hours(1)).await;
    let [job] = jobs_of(&test, &row).try_into().expect("one job");
    // As the file is where the host stopped right after the job was on disk; the owner is gone by the time it is back.
    let [run] = runs(&test, &row).try_into().expect("one run");
    let (id, tenant, token) = (row.id, row.tenant, row.token);
    test.host
        .store
        .write(move |conn| {
            let waiting = RunRow {
                state: RunState::Waiting,
                job: None,
                ..run
            };
            store::put_run(conn, tenant, id, &waiting)?;
            tokens::revoke(conn, tenant, token, NOW).map(|_| ())
        })
        .await
        .expect("writes");
    look_at(&test, hours(1)).await;
    assert_eq!(jobs_of(&test, &row), [job]);
    let all = test
        .host
        .store
        .read(|conn| crate::store::jobs::ids_before(conn, tenant, None, 10))
        .expect("reads");
    assert_eq!(all.len(), 1);
}

#[tokio::test]
async fn an_owner_who_was_revoked_or_lacks_a_permission_runs_nothing_and_that_is_said() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    let (owner, _) = test
        .operator(
            "ann",
            &[Permission::ScheduleScript, Permission::RemoteExecution],
        )
        .await;
    let row = add(&test.host, &owner, hourly("h"), NOW)
        .await
        .expect("is added");
    let (id, tenant) = (owner.token, owner.tenant.id);
    test.host
        .store
        .write(move |conn| tokens::revoke(conn, tenant, id, NOW).map(|_| ()))
        .await
        .expect("revokes");
    look_at(&test, hours(1)).await;
    let [run] = runs(&test, &row).try_into().expect("one run");
    assert_eq!((run.state, run.job), (RunState::Missed, None));
    assert!(reason(&run).contains("token of ann was revoked"), "{run:?}");
    assert_eq!(test.count_audited("schedule_missed").await, 1);

    let lacking: [(&'static [Permission], &str); 2] = [
        (
            &[Permission::RemoteExecution],
            "lacks the permission ScheduleScript",
        ),
        (
            &[Permission::ScheduleScript],
            "lacks the permission RemoteExecution",
        ),
    ];
    for (number, (permissions, expected)) in lacking.into_iter().enumerate() {
        let name = ["bob", "eve"][number];
        let (weak, _) = test.operator(name, permissions).await;
        let refused = add(&test.host, &weak, hourly(name), NOW).await;
        assert!(refused.expect_err(name).to_string().contains(expected));
        // A token that could when the schedule was made, and cannot any more.
        let strong = Actor {
            rights: test.admin.rights.clone(),
            ..weak
        };
        let row = add(&test.host, &strong, hourly(name), NOW)
            .await
            .expect("is added");
        look_at(&test, hours(1)).await;
        let [run] = runs(&test, &row).try_into().expect("one run");
        assert!(reason(&run).contains(expected), "{run:?}");
    }
    assert_eq!(test.count_audited("script_queued").await, 0);
}

#[tokio::test]
async fn machines_that_get_the_tag_later_are_included() {
    let test = TestHost::new().await;
    let mut tagged = hourly("h");
    tagged.job.machines.clear();
    tagged.job.tags = vec![Tag {
        key: "role".to_owned(),
        value: "web".to_owned(),
    }];
    let row = added(&test, tagged).await;
    look_at(&test, hours(1)).await;
    let [run] = runs(&test, &row).try_into().expect("one run");
    assert!(reason(&run).contains("no machine is meant"), "{run:?}");
    for name in ["web-1", "web-2"] {
        let (machine, tenant) = (test.machine(name).await.id, test.tenant.id);
        let tag = TagPair {
            key: "role".to_owned(),
            value: "web".to_owned(),
        };
        test.host
            .store
            .write(move |conn| machines::set_tag(conn, tenant, machine, &tag).map(|_| ()))
            .await
            .expect("tags");
    }
    look_at(&test, hours(2)).await;
    let [job] = jobs_of(&test, &row).try_into().expect("one job");
    assert_eq!(test.operations(job).len(), 2);
}

/// A machine says that an operation has ended.
async fn ended(test: &TestHost, job: JobId) {
    let id = test.operation(job).id;
    let report = Report::without_process(Ending::Succeeded, 1);
    test.host
        .store
        .write(move |conn| operations::end(conn, id, operations::From::Open, &report).map(|_| ()))
        .await
        .expect("ends");
}

#[tokio::test]
async fn a_run_while_the_one_before_runs_is_left_out_waits_or_ends_it() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (_session, _inbox) = test.connect(&machine);
    let with = |name: &str, overlap| AddSchedule {
        overlap,
        ..hourly(name)
    };
    let skip = added(&test, with("skip", OnOverlap::Skip)).await;
    let queue = added(&test, with("queue", OnOverlap::Queue)).await;
    let cancel = added(&test, with("cancel", OnOverlap::Cancel)).await;
    look_at(&test, hours(1)).await;
    let first = jobs_of(&test, &queue)[0];
    let looked = look_at(&test, hours(2)).await;

    let left_out = runs(&test, &skip).pop().expect("a run");
    assert!(reason(&left_out).contains("has not ended"), "{left_out:?}");
    assert_eq!(jobs_of(&test, &skip).len(), 1);

    assert_eq!(looked.waits_for, [first]);
    assert_eq!(jobs_of(&test, &queue).len(), 1);
    ended(&test, first).await;
    assert!(look_at(&test, hours(2)).await.waits_for.is_empty());
    assert_eq!(jobs_of(&test, &queue).len(), 2);

    let made: [JobId; 2] = jobs_of(&test, &cancel).try_into().expect("two jobs");
    let canceled = made.map(|job| test.operation(job).cancel_by);
    assert_eq!(canceled, [Some("admin".to_owned()), None]);
}

#[tokio::test]
async fn a_machine_that_is_away_holds_nothing_up_and_runs_the_latest_alone_when_it_is_back() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    let row = added(&test, hourly("h")).await;
    for hour in 1..=3 {
        look_at(&test, hours(hour)).await;
        jobs::sweep(&test.host, UnixMillis(hours(hour).0 + HOUR - 2000))
            .await
            .expect("sweeps");
    }
    look_at(&test, hours(4)).await;
    let states: Vec<_> = jobs_of(&test, &row)
        .into_iter()
        .map(|job| test.operation(job).state)
        .collect();
    let gone = State::Expired;
    assert_eq!(states, [gone, gone, gone, State::Queued]);
}

#[tokio::test]
async fn a_rollout_that_has_not_come_to_its_end_counts_as_running() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    let mut careful = hourly("careful");
    careful.job.batches = Some("100%".to_owned());
    careful.job.expires = Some(Span::seconds(86_400));
    let row = added(&test, careful).await;
    look_at(&test, hours(1)).await;
    let first = jobs_of(&test, &row)[0];
    crate::rollouts::pause(&test.host, &test.admin, first, hours(1))
        .await
        .expect("pauses");
    assert_eq!(test.operation(first).state, State::Held);
    look_at(&test, hours(2)).await;
    assert_eq!(jobs_of(&test, &row), [first]);
}

#[tokio::test]
async fn runs_that_are_made_up_for_follow_each_other() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (_session, _inbox) = test.connect(&machine);
    let mut all = hourly("all");
    all.missed = OnMissed::All;
    let row = added(&test, all).await;
    let late = UnixMillis(hours(3).0 + 15 * 60_000);
    for count in 1..=3 {
        look_at(&test, late).await;
        let made = jobs_of(&test, &row);
        assert_eq!(made.len(), count);
        ended(&test, made[count - 1]).await;
    }
}

#[tokio::test]
async fn what_was_missed_while_the_host_was_off_is_made_up_for_as_the_schedule_says() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    let with = |name: &str, missed| AddSchedule {
        missed,
        overlap: OnOverlap::Cancel,
        ..hourly(name)
    };
    let skip = added(&test, with("skip", OnMissed::Skip)).await;
    let once = added(&test, with("once", OnMissed::Once)).await;
    let all = added(&test, with("all", OnMissed::All)).await;
    // Ten minutes later than what is still on time.
    look_at(&test, UnixMillis(hours(3).0 + 15 * 60_000)).await;
    let [missed] = runs(&test, &skip).try_into().expect("one entry");
    assert_eq!((missed.state, missed.runs), (RunState::Missed, 3));
    let [missed, late] = runs(&test, &once).try_into().expect("two entries");
    assert_eq!(
        (missed.runs, late.late, late.job.is_some()),
        (2, true, true)
    );
    assert_eq!(jobs_of(&test, &all).len(), 3);
    look_at(&test, hours(4)).await;
    assert_eq!(
        [&skip, &once, &all].map(|row| jobs_of(&test, row).len()),
        [1, 2, 4]
    );
}

#[tokio::test]
async fn a_run_that_cannot_be_made_for_the_machines_of_now_does_not_end_the_one_before() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    test.machine("web-2").await;
    let mut schedule = hourly("h");
    schedule.overlap = OnOverlap::Cancel;
    schedule.job.machines.clear();
    schedule.job.all = true;
    schedule.job.batches = Some("1, 2".to_owned());
    let row = added(&test, schedule).await;
    look_at(&test, hours(1)).await;
    let [job] = jobs_of(&test, &row)[..] else {
        panic!("one job");
    };
    // The plan is for two.
    test.machine("web-3").await;
    look_at(&test, hours(2)).await;
    let missed = runs(&test, &row).pop().expect("a run");
    assert_eq!(missed.state, RunState::Missed, "{missed:?}");
    let states: Vec<_> = test.operations(job).iter().map(|row| row.state).collect();
    assert!(!states.contains(&State::Canceled), "{states:?}");
}

#[tokio::test]
async fn a_clock_that_is_set_back_repeats_nothing_and_costs_nothing() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    let mut schedule = hourly("h");
    schedule.overlap = OnOverlap::Cancel;
    let row = added(&test, schedule).await;
    // A day ahead by mistake: one run makes up for it.
    look_at(&test, hours(24)).await;
    assert_eq!(jobs_of(&test, &row).len(), 1);
    let looked = look_at(&test, hours(2)).await;
    assert_eq!(looked.next, Some(UnixMillis(NOW.0 + 3 * HOUR)));
    for hour in 3..=25 {
        look_at(&test, hours(hour)).await;
    }
    let planned: Vec<_> = runs(&test, &row)
        .iter()
        .filter(|run| run.state == RunState::Fired)
        .map(|run| (run.planned.0 - NOW.0) / HOUR)
        .collect();
    assert_eq!(
        planned,
        (3..=25).collect::<Vec<_>>(),
        "each once, and the 24th before"
    );
}

/// A script of the library with this text; each call makes the next version.
async fn stored(test: &TestHost, text: &str) {
    let new = AddScript {
        name: "tidy".to_owned(),
        script: text.as_bytes().to_vec().into(),
        ..AddScript::default()
    };
    library::add(&test.host, &test.admin, new, NOW)
        .await
        .expect("is added");
}

fn of_library(overlap: OnOverlap) -> AddSchedule {
    let mut schedule = hourly("h");
    schedule.overlap = overlap;
    schedule.job.script = None;
    schedule.job.script_ref = Some(ScriptRef {
        name: "tidy".to_owned(),
        version: None,
    });
    schedule
}

#[tokio::test]
async fn nobody_changes_what_runs_by_adding_a_version() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    stored(&test, "#!/bin/sh\necho one\n").await;
    let row = added(&test, of_library(OnOverlap::Skip)).await;
    stored(&test, "#!/bin/sh\necho two\n").await;
    look_at(&test, hours(1)).await;
    let [job] = jobs_of(&test, &row).try_into().expect("one job");
    let script = jobs::job(&test.host, &test.tenant, job)
        .await
        .expect("reads")
        .and_then(|job| job.script)
        .expect("is of the library");
    assert_eq!((script.name.as_str(), script.version), ("tidy", 1));
    let audited = test.audited().await;
    let scheduled = audited
        .iter()
        .find(|entry| entry.event == "script_scheduled")
        .expect("is on the record");
    assert_eq!(scheduled.details["version"], 1);
}

#[tokio::test]
async fn a_run_that_cannot_take_the_place_of_the_one_before_does_not_end_it() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (_session, _inbox) = test.connect(&machine);
    stored(&test, "#!/bin/sh\n").await;
    let row = added(&test, of_library(OnOverlap::Cancel)).await;
    look_at(&test, hours(1)).await;
    let [job] = jobs_of(&test, &row).try_into().expect("one job");
    library::archive(&test.host, &test.admin, "tidy", hours(1))
        .await
        .expect("archives");
    look_at(&test, hours(2)).await;
    let runs = runs(&test, &row);
    assert_eq!(runs[1].state, RunState::Missed);
    assert!(reason(&runs[1]).contains("is archived"), "{runs:?}");
    assert_eq!(test.operation(job).cancel_by, None);
    assert!(!test.operation(job).state.is_terminal());
}

#[tokio::test]
async fn who_may_not_cancel_makes_no_schedule_that_does() {
    let test = TestHost::new().await;
    stored(&test, "#!/bin/sh\n").await;
    let permissions = &[Permission::ScheduleScript, Permission::RunStoredScripts];
    let (weak, _) = test.operator("weak", permissions).await;
    let refused = add(&test.host, &weak, of_library(OnOverlap::Cancel), NOW).await;
    let message = refused.expect_err("may not").to_string();
    assert!(message.contains("RemoteExecution"), "{message}");
    add(&test.host, &weak, of_library(OnOverlap::Skip), NOW)
        .await
        .expect("may");
}

#[tokio::test]
async fn a_paused_schedule_does_not_run_and_one_that_is_resumed_makes_up_for_nothing() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    let row = added(&test, hourly("h")).await;
    let paused = pause(&test.host, &test.admin, "h", hours(0))
        .await
        .expect("pauses");
    assert_eq!(paused.paused.map(|(_, by)| by).as_deref(), Some("admin"));
    assert_eq!(look_at(&test, hours(5)).await.next, None);
    let resumed = resume(&test.host, &test.admin, &row.id.to_string(), hours(5))
        .await
        .expect("resumes");
    assert_eq!(resumed.next_due, Some(UnixMillis(NOW.0 + 6 * HOUR)));
    look_at(&test, hours(5)).await;
    assert!(runs(&test, &row).is_empty());
    look_at(&test, hours(6)).await;
    assert_eq!(jobs_of(&test, &row).len(), 1);
    remove(&test.host, &test.admin, "h", hours(6))
        .await
        .expect("removes");
    assert_eq!(look_at(&test, hours(9)).await.next, None);
    assert_eq!(jobs_of(&test, &row).len(), 1);
    let gone = pause(&test.host, &test.admin, "h", hours(9)).await;
    assert!(matches!(gone, Err(ChangeError::NoSchedule(_))));
    for event in ["schedule_paused", "schedule_resumed", "schedule_removed"] {
        assert_eq!(test.count_audited(event).await, 1, "{event}");
    }
    added(&test, hourly("h")).await;
}

#[tokio::test]
async fn a_run_that_waits_is_left_out_when_its_schedule_is_paused() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (_session, _inbox) = test.connect(&machine);
    let mut schedule = hourly("h");
    schedule.overlap = OnOverlap::Queue;
    let row = added(&test, schedule).await;
    look_at(&test, hours(1)).await;
    assert_eq!(look_at(&test, hours(2)).await.waits_for.len(), 1);
    pause(&test.host, &test.admin, "h", hours(2))
        .await
        .expect("pauses");
    let [job] = jobs_of(&test, &row).try_into().expect("one job");
    ended(&test, job).await;
    assert!(look_at(&test, hours(2)).await.waits_for.is_empty());
    assert_eq!(jobs_of(&test, &row), [job]);
    let last = runs(&test, &row).pop().expect("a run");
    assert_eq!(reason(&last), "the schedule was paused");
}

#[tokio::test]
async fn a_request_that_is_refused_leaves_nothing_but_its_refusal() {
    let test = TestHost::new().await;
    added(&test, hourly("taken")).await;
    type Change = fn(&mut AddSchedule);
    let table: [(Change, &str); 6] = [
        (|r| r.name = "taken".to_owned(), "a schedule taken already"),
        (|r| r.every = Some(Span::seconds(59)), "at least 1m"),
        (|r| r.jitter = Some(Span::seconds(7200)), "1h apart"),
        (|r| r.job.script = Some(Vec::new().into()), "empty"),
        (|r| r.job.machines.clear(), "no machine is named"),
        (
            |r| r.job.tenant = Some("other".to_owned()),
            "no tenant other",
        ),
    ];
    for (change, expected) in &table {
        let mut wrong = hourly("new");
        change(&mut wrong);
        let error = add(&test.host, &test.admin, wrong, NOW)
            .await
            .expect_err(expected)
            .to_string();
        assert!(
            error.contains(expected) && !error.contains('\n'),
            "expected {expected:?} in {error:?}"
        );
    }
    assert_eq!(test.count_audited("request_refused").await, table.len());
    assert_eq!(test.count_audited("script_scheduled").await, 1);
    let kept = test
        .host
        .store
        .read(|conn| store::count(conn, test.tenant.id))
        .expect("reads");
    assert_eq!(kept, 1);
}

#[tokio::test]
async fn a_schedule_that_cannot_be_read_is_paused_and_the_others_run() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    let broken = added(&test, hourly("broken")).await;
    let sound = added(&test, hourly("sound")).await;
    let id = broken.id.to_string();
    test.host
        .store
        .write(move |conn| {
            let timing = r#"{"calendar":{"expression":"0 3 * * *","zone":"Mars/Olympus"}}"#;
            conn.execute(
                "UPDATE schedules SET timing = ?1 WHERE id = ?2",
                [timing, &id],
            )?;
            Ok::<_, StoreError>(())
        })
        .await
        .expect("writes");
    look_at(&test, hours(1)).await;
    assert!(jobs_of(&test, &broken).is_empty());
    assert_eq!(jobs_of(&test, &sound).len(), 1);
    assert_eq!(test.count_audited("schedule_paused").await, 1);
    let resumed = resume(&test.host, &test.admin, "broken", hours(1)).await;
    let error = resumed.expect_err("cannot be").to_string();
    assert!(error.contains("Mars/Olympus"), "{error}");
}

#[tokio::test]
async fn a_schedule_whose_run_cannot_be_fired_does_not_hold_up_the_others() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    let broken = added(&test, hourly("broken")).await;
    let sound = added(&test, hourly("sound")).await;
    let id = broken.id.to_string();
    test.host
        .store
        .write(move |conn| {
            // No number of runs that this version writes.
            conn.execute(
                "INSERT INTO schedule_runs (tenant, schedule, planned, state, late, at, runs)
                 SELECT tenant, id, 1, 'waiting', 0, 1, -1 FROM schedules WHERE id = ?",
                [&id],
            )?;
            Ok::<_, StoreError>(())
        })
        .await
        .expect("writes");
    let looked = look_at(&test, hours(1)).await;
    assert_eq!(looked.next, Some(UnixMillis(NOW.0 + 2 * HOUR)));
    assert_eq!(jobs_of(&test, &sound).len(), 1);
}

#[tokio::test]
async fn under_lockdown_nothing_is_made_or_delivered_and_schedules_miss_their_runs() {
    let test = TestHost::new().await;
    let (web, away) = (test.machine("web-1").await, test.machine("web-2").await);
    let (_session, mut inbox) = test.connect(&web);
    let running = test.submit("web-1", |_| ()).await;
    let queued = test.submit("web-2", |_| ()).await;
    let keyed = |now| {
        let key = Some("k".to_owned());
        jobs::submit(&test.host, &test.admin, request("web-2"), key, now)
    };
    let again = keyed(NOW).await.expect("is accepted");
    inbox.deliveries.try_recv().expect("was delivered");
    let mut ending = hourly("h");
    ending.overlap = OnOverlap::Cancel;
    let row = added(&test, ending).await;
    look_at(&test, hours(1)).await;
    inbox.deliveries.try_recv().expect("was delivered");
    jobs::lock_down(
        &test.host,
        &test.admin,
        Some("drill".to_owned()),
        false,
        hours(1),
    )
    .await
    .expect("locks down");

    let refused = jobs::submit(&test.host, &test.admin, request("web-1"), None, hours(1)).await;
    let text = refused.expect_err("is refused").to_string();
    assert!(
        text.contains("locked down") && text.contains("drill"),
        "{text}"
    );
    look_at(&test, hours(2)).await;
    let missed = runs(&test, &row).pop().expect("a run");
    assert!(reason(&missed).contains("locked down"), "{missed:?}");
    let (_other_session, mut other) = test.connect(&away);
    let owed = jobs::pending(&test.host, &test.tenant, away.id, &[], hours(2))
        .await
        .expect("looks");
    assert!(owed.deliver.is_empty(), "{owed:?}");
    assert_eq!(keyed(hours(2)).await.expect("is the same"), again);
    assert!(other.deliveries.try_recv().is_err() && inbox.deliveries.try_recv().is_err());
    assert_eq!(test.operation(queued).state, State::Queued);
    assert_eq!(test.operation(running).cancel_by, None, "it goes on");

    jobs::lift_lockdown(&test.host, &test.admin, hours(2))
        .await
        .expect("lifts");
    other.deliveries.try_recv().expect("is delivered now");
    for job in [queued, again] {
        assert_eq!(test.operation(job).state, State::Delivered);
    }
    look_at(&test, hours(3)).await;
    assert_eq!(
        jobs_of(&test, &row).len(),
        2,
        "the second is the one of the third hour"
    );
    for event in ["lockdown_started", "lockdown_lifted"] {
        assert_eq!(test.count_audited(event).await, 1, "{event}");
    }
}

#[tokio::test]
async fn halt_ends_everything_of_one_tenant_and_lockdown_with_cancel_that_of_all() {
    let test = TestHost::new().await;
    let web = test.machine("web-1").await;
    test.machine("web-2").await;
    let (stranger, _) = test.stranger().await;
    let theirs = stranger.tenant.id;
    let machine = sluice_protocol::ids::MachineId::generate();
    test.host
        .store
        .write(move |conn| machines::insert(conn, theirs, machine, "web-1", &[], NOW))
        .await
        .expect("enrolls");
    let submit_theirs = async || {
        jobs::submit(&test.host, &stranger, request("web-1"), None, NOW)
            .await
            .expect("is accepted")
    };
    let their_job = submit_theirs().await;
    let open = |job| {
        let look = |conn: &crate::store::Connection| operations::open_jobs(conn, theirs, None, 10);
        test.host.store.read(look).expect("reads").contains(&job)
    };
    let (_session, mut inbox) = test.connect(&web);
    let delivered = test.submit("web-1", |_| ()).await;
    let mut queued = Vec::new();
    for _ in 0..150 {
        queued.push(test.submit("web-2", |_| ()).await);
    }
    inbox.deliveries.try_recv().expect("was delivered");
    let halted = jobs::halt(&test.host, &test.admin, NOW).await;
    assert_eq!(halted.expect("halts"), 151);
    for job in queued {
        assert_eq!(test.operation(job).state, State::Canceled);
    }
    assert_eq!(
        test.operation(delivered).cancel_by.as_deref(),
        Some("admin")
    );
    let told = inbox.commands.try_recv().expect("is told");
    assert!(matches!(told, crate::fleet::Command::Cancel { .. }));
    assert!(open(their_job), "another tenant's goes on");

    jobs::lock_down(&test.host, &test.admin, None, true, NOW)
        .await
        .expect("locks down");
    assert!(!open(their_job));
    assert_eq!(test.count_audited("job_halted").await, 2);
}

#[tokio::test]
async fn what_is_shown_has_the_next_three_runs_with_their_zone() {
    let test = TestHost::new().await;
    let mut nightly = hourly("nightly");
    (nightly.every, nightly.cron) = (None, Some("30 2 * * *".to_owned()));
    nightly.zone = Some("Europe/Berlin".to_owned());
    nightly.job = SubmitJob {
        run_as: Some("nobody".to_owned()),
        ..nightly.job
    };
    let row = added(&test, nightly).await;
    let shown = test
        .host
        .store
        .read(|conn| show(conn, &test.admin, row, NOW))
        .expect("reads");
    let local: Vec<_> = shown.next.iter().map(|next| next.local.as_str()).collect();
    assert_eq!(
        local,
        [
            "2026-11-19T02:30:00+01:00[Europe/Berlin]",
            "2026-11-20T02:30:00+01:00[Europe/Berlin]",
            "2026-11-21T02:30:00+01:00[Europe/Berlin]"
        ]
    );
    assert_eq!(
        (shown.cron.as_deref(), shown.zone.as_str(), shown.last),
        (Some("30 2 * * *"), "Europe/Berlin", None)
    );
}
