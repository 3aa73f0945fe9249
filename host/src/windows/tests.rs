//! Windows on a host, with machines that are played by the test and a clock that the test sets.

use sluice_api_types::job::{SubmitJob, Tag};
use sluice_api_types::rollout::RolloutState;
use sluice_api_types::window::AddWindow;
use sluice_protocol::ending::State;
use sluice_protocol::ids::JobId;
use sluice_protocol::units::Span;

use super::driver::Seen;
use super::*;
use crate::clock::UnixMillis;
use crate::fleet::{self, Inbox, Session};
use crate::jobs::{self, Machine, SubmitError};
use crate::operators::Permission;
use crate::rollouts;
use crate::testing::{NOW, TestHost, request};

const HOUR: u64 = 3600;
/// The next time that it is 02:00 in UTC.
const OPENS: UnixMillis = UnixMillis(1_795_053_600_000);
/// An hour later.
const CLOSES: UnixMillis = UnixMillis(1_795_057_200_000);
const DAY: Span = Span::seconds(24 * HOUR);

fn nights(change: impl FnOnce(&mut AddWindow)) -> AddWindow {
    let mut window = AddWindow {
        tenant: None,
        name: "nights".to_owned(),
        cron: "0 2 * * *".to_owned(),
        lasts: Span::seconds(HOUR),
        zone: None,
        tags: Vec::new(),
        all: false,
    };
    change(&mut window);
    window
}

fn production(window: &mut AddWindow) {
    window.tags = vec![Tag {
        key: "env".to_owned(),
        value: "prod".to_owned(),
    }];
}

/// A production machine `p1`, and one for development, `d1`.
struct Case {
    test: TestHost,
    production: Machine,
}

impl Case {
    async fn new() -> Self {
        let test = TestHost::new().await;
        let production = test.machine("p1").await;
        test.machine("d1").await;
        let case = Self { test, production };
        case.tag("p1", "env", "prod").await.expect("tags");
        case
    }

    /// The same, with a window outside of which nothing starts in production.
    async fn with_window() -> Self {
        let case = Self::new().await;
        case.add(nights(production)).await.expect("adds");
        case
    }

    async fn add(&self, window: AddWindow) -> Result<(), ChangeError> {
        let added = add(&self.test.host, &self.test.admin, window, NOW).await;
        added.map(|_| ())
    }

    async fn tag(&self, machine: &str, key: &str, value: &str) -> Result<(), fleet::ChangeError> {
        let tag = fleet::parse_tag(key, value).expect("a tag");
        let (host, admin) = (&self.test.host, &self.test.admin);
        let patched = fleet::patch(host, admin, machine, None, vec![tag], Vec::new(), NOW).await;
        patched.map(|_| ())
    }

    fn connect(&self) -> (Session, Inbox) {
        self.test.connect(&self.production)
    }

    async fn try_submit(&self, change: impl FnOnce(&mut SubmitJob)) -> Result<JobId, SubmitError> {
        let mut request = request("p1");
        change(&mut request);
        jobs::submit(&self.test.host, &self.test.admin, request, None, NOW).await
    }

    /// Rollouts look at a job at this time.
    async fn advance(&self, job: JobId, at: UnixMillis) {
        rollouts::advance(&self.test.host, &self.test.tenant, job, at)
            .await
            .expect("goes on");
    }

    fn state(&self, job: JobId) -> State {
        self.test.operations(job)[0].state
    }
}

/// The moments until which the operations that were sent since the last look may start.
fn sent(inbox: &mut Inbox) -> Vec<UnixMillis> {
    std::iter::from_fn(|| inbox.deliveries.try_recv().ok())
        .map(|command| UnixMillis::from_wire(command.not_after))
        .collect()
}

#[tokio::test]
async fn outside_of_its_window_nothing_is_sent_to_a_machine_and_inside_it_is_told_until_when() {
    let case = Case::with_window().await;
    let (_session, mut inbox) = case.connect();
    let job = case
        .test
        .submit("p1", |r| r.machines.push("d1".to_owned()))
        .await;
    let states: Vec<_> = case
        .test
        .operations(job)
        .iter()
        .map(|row| row.state)
        .collect();
    // No window is about the other one, which is away.
    assert_eq!(states, [State::Held, State::Queued]);
    for early in [NOW, UnixMillis(OPENS.0 - 1)] {
        case.advance(job, early).await;
        assert_eq!(case.state(job), State::Held);
    }
    assert_eq!(sent(&mut inbox), []);
    case.advance(job, OPENS).await;
    assert_eq!(case.state(job), State::Delivered);
    assert_eq!(sent(&mut inbox), [UnixMillis(CLOSES.0 - 1)]);
    // Neither again now nor in the next window.
    for later in [OPENS, CLOSES, OPENS.plus(DAY)] {
        case.advance(job, later).await;
        assert_eq!(sent(&mut inbox), []);
    }
}

#[tokio::test]
async fn a_job_expires_no_sooner_than_its_windows_have_been_open_once() {
    let case = Case::new().await;
    let sundays = |window: &mut AddWindow| window.cron = "0 2 * * 0".to_owned();
    case.add(nights(sundays)).await.expect("adds");
    let not_after = |job| {
        let read = case
            .test
            .host
            .store
            .read(|conn| crate::store::jobs::not_after(conn, case.test.tenant.id, job));
        read.expect("reads").expect("is there")
    };
    let asked = |request: &mut SubmitJob| request.windows = vec!["nights".to_owned()];
    // It is a Wednesday.
    let job = case.try_submit(asked).await.expect("is accepted");
    assert_eq!(not_after(job).to_string(), "2026-11-22T03:00:00.000Z");
    let other = case.try_submit(|_| {}).await.expect("is accepted");
    assert_eq!(not_after(other), NOW.plus(DAY));
    let short = case.try_submit(|request| {
        asked(request);
        request.expires = Some(DAY);
    });
    let error = short.await.expect_err("expires first").to_string();
    assert!(
        error.contains(
            "nights opens at 2026-11-22T02:00:00.000Z, and the job expires at 2026-11-19T"
        ),
        "{error}"
    );
    assert_eq!(case.test.count_audited("request_refused").await, 1);
}

#[tokio::test]
async fn what_was_released_and_not_sent_is_held_again_when_the_window_closes() {
    let case = Case::with_window().await;
    let job = case.test.submit("p1", |_| {}).await;
    case.advance(job, OPENS).await;
    assert_eq!(case.state(job), State::Queued);
    case.advance(job, CLOSES).await;
    assert_eq!(case.state(job), State::Held);
    assert_eq!(case.test.count_audited("job_held").await, 1);
    case.advance(job, CLOSES).await;
    assert_eq!(case.test.count_audited("job_held").await, 1);
}

#[tokio::test]
async fn a_machine_that_comes_back_outside_of_the_window_gets_nothing() {
    let case = Case::with_window().await;
    let job = case
        .test
        .submit("p1", |r| r.expires = Some(Span::seconds(72 * HOUR)))
        .await;
    case.advance(job, OPENS).await;
    // Nobody has looked since it closed.
    let owed = |at| {
        let (host, tenant) = (&case.test.host, &case.test.tenant);
        async move {
            let pending = jobs::pending(host, tenant, case.production.id, &[], at).await;
            pending.expect("reads").deliver.len()
        }
    };
    assert_eq!(owed(CLOSES).await, 0);
    assert_eq!(owed(UnixMillis(CLOSES.0 - 1)).await, 1);
    assert_eq!(case.state(job), State::Delivered);
    // It never arrived, and the window has closed meanwhile.
    assert_eq!(owed(CLOSES).await, 0);
    assert_eq!(case.state(job), State::Held);
    case.advance(job, OPENS.plus(DAY)).await;
    assert_eq!(owed(OPENS.plus(DAY)).await, 1);
}

#[tokio::test]
async fn what_waited_for_a_machine_that_is_in_production_now_waits_for_the_window() {
    let case = Case::new().await;
    let job = case.test.submit("d1", |_| {}).await;
    case.add(nights(production)).await.expect("adds");
    case.tag("d1", "env", "prod").await.expect("tags");
    let row = case.test.operation(job);
    let machine = Machine {
        tenant: case.test.tenant.clone(),
        id: row.machine.expect("a machine"),
        name: "d1".to_owned(),
    };
    let (host, tenant) = (&case.test.host, &case.test.tenant);
    let pending = jobs::pending(host, tenant, machine.id, &[], NOW)
        .await
        .expect("reads");
    assert!(pending.deliver.is_empty());
    let (_session, mut inbox) = case.test.connect(&machine);
    let seen = look(host, &Seen::default(), true, NOW)
        .await
        .expect("looks");
    assert_eq!(sent(&mut inbox), []);
    assert_eq!(case.state(job), State::Queued);
    let seen = look(host, &seen, false, OPENS).await.expect("looks");
    assert_eq!(sent(&mut inbox), [UnixMillis(CLOSES.0 - 1)]);
    look(host, &seen, false, CLOSES).await.expect("looks");
    assert_eq!(sent(&mut inbox), []);
}

#[tokio::test]
async fn whoever_ignores_windows_needs_the_permission_and_is_on_the_record() {
    let case = Case::with_window().await;
    let (_session, mut inbox) = case.connect();
    let ignoring = |request: &mut SubmitJob| request.ignore_windows = true;
    let (helper, _) = case
        .test
        .operator("helper", &[Permission::RemoteExecution])
        .await;
    let mut asked = request("p1");
    ignoring(&mut asked);
    let denied = jobs::submit(&case.test.host, &helper, asked, None, NOW).await;
    let denied = denied.expect_err("is denied").to_string();
    assert!(denied.contains("IgnoreWindows"), "{denied}");
    assert_eq!(sent(&mut inbox), []);
    let job = case.try_submit(ignoring).await.expect("is accepted");
    assert_eq!(case.state(job), State::Delivered);
    assert_eq!(sent(&mut inbox), [NOW.plus(DAY)]);
    let entries = case.test.audited().await;
    let attempts = entries.iter().filter(|entry| {
        entry.event == "script_execution_attempt" && entry.details["ignore_windows"] == true
    });
    assert_eq!(attempts.count(), 2);
    // A machine that was away when it was sent gets it when it is back, all the same.
    let (host, tenant) = (&case.test.host, &case.test.tenant);
    let pending = jobs::pending(host, tenant, case.production.id, &[], NOW).await;
    assert_eq!(pending.expect("reads").deliver.len(), 1);
}

#[tokio::test]
async fn a_preview_says_which_windows_are_waited_for_and_is_refused_where_the_job_would_be() {
    let case = Case::with_window().await;
    let preview = async |at, change: fn(&mut SubmitJob)| {
        let mut asked = request("p1");
        asked.machines.push("d1".to_owned());
        change(&mut asked);
        let preview = jobs::preview(&case.test.host, &case.test.admin, asked, at).await;
        preview.map(|preview| {
            let windows = preview.windows.into_iter();
            let words = windows.map(|one| (one.name, one.opens_at, one.machines));
            words.collect::<Vec<_>>()
        })
    };
    let closed = |machines| vec![("nights".to_owned(), Some(OPENS.to_string()), machines)];
    let outside = preview(NOW, |_| ()).await.expect("is shown");
    assert_eq!(outside, closed(1), "the other one is not in production");
    let inside = preview(OPENS, |_| ()).await.expect("is shown");
    assert_eq!(inside, []);
    let ignoring = preview(NOW, |asked| asked.ignore_windows = true).await;
    assert_eq!(ignoring.expect("is shown"), []);
    case.add(nights(|window| window.name = "asked".to_owned()))
        .await
        .expect("adds");
    let by_both = preview(NOW, |asked| asked.windows = vec!["asked".to_owned()]).await;
    let waiting: u64 = by_both.expect("is shown").iter().map(|one| one.2).sum();
    assert_eq!(waiting, 2);
    let soon = |request: &mut SubmitJob| {
        request.windows = vec!["asked".to_owned()];
        request.expires = Some(Span::seconds(60));
    };
    let refused = preview(NOW, soon).await.expect_err("expires before");
    let job = case.try_submit(soon).await.expect_err("expires before");
    assert_eq!(refused.to_string(), job.to_string());
}

#[tokio::test]
async fn of_windows_asked_for_one_must_be_open_and_one_of_the_machine_too() {
    let case = Case::with_window().await;
    for (name, cron) in [("late", "30 2 * * *"), ("noon", "0 12 * * *")] {
        let window =
            nights(|window| (window.name, window.cron) = (name.to_owned(), cron.to_owned()));
        case.add(window).await.expect("adds");
    }
    let (_session, mut inbox) = case.connect();
    let asked = |names: &'static [&str]| {
        move |request: &mut SubmitJob| {
            request.windows = names.iter().map(|&name| name.to_owned()).collect();
        }
    };
    let never = case.try_submit(asked(&["noon"])).await.expect_err("never");
    assert!(
        never.to_string().contains("noon is never open together"),
        "{never}"
    );
    let unknown = case.try_submit(asked(&["late", "evenings"])).await;
    let unknown = unknown.expect_err("is unknown").to_string();
    assert!(unknown.contains("no window evenings"), "{unknown}");
    let job = case
        .try_submit(asked(&["noon", "late"]))
        .await
        .expect("is accepted");
    let half = OPENS.plus(Span::seconds(HOUR / 2));
    for shut in [NOW.plus(Span::seconds(HOUR)), OPENS, CLOSES] {
        case.advance(job, shut).await;
        assert_eq!((sent(&mut inbox), case.state(job)), (vec![], State::Held));
    }
    case.advance(job, half).await;
    assert_eq!(sent(&mut inbox), [UnixMillis(CLOSES.0 - 1)]);
}

#[tokio::test]
async fn removing_a_window_of_machines_lets_go_and_one_that_was_asked_for_is_waited_for() {
    let case = Case::with_window().await;
    let asked = |window: &mut AddWindow| window.name = "asked".to_owned();
    case.add(nights(asked)).await.expect("adds");
    let (_session, mut inbox) = case.connect();
    let held = case.test.submit("p1", |_| {}).await;
    let waits = case
        .test
        .submit("p1", |r| r.windows = vec!["asked".to_owned()])
        .await;
    for name in ["nights", "asked"] {
        remove(&case.test.host, &case.test.admin, name, NOW)
            .await
            .expect("removes");
        let again = remove(&case.test.host, &case.test.admin, name, NOW).await;
        assert!(matches!(again, Err(ChangeError::NoWindow(_))));
    }
    for job in [held, waits] {
        case.advance(job, NOW).await;
    }
    assert_eq!(case.state(held), State::Delivered);
    assert_eq!(case.state(waits), State::Held);
    assert_eq!(sent(&mut inbox).len(), 1);
    case.advance(waits, OPENS).await;
    assert_eq!(sent(&mut inbox), [UnixMillis(CLOSES.0 - 1)]);
}

#[tokio::test]
async fn a_tag_that_takes_a_machine_out_of_its_window_needs_what_removing_it_needs() {
    let case = Case::with_window().await;
    let policy = "permit (principal, action == Action::\"ManageMachines\", resource) when { context.tags.contains(\"team=a\") };";
    let (host, admin) = (&case.test.host, &case.test.admin);
    crate::operators::put_role(host, admin, "team-a", policy.to_owned(), NOW)
        .await
        .expect("sets");
    case.tag("p1", "team", "a").await.expect("tags");
    let (member, _) = case.test.with_roles("member", &["team-a"]).await;
    let key = |key: &str| vec![key.to_owned()];
    let denied = fleet::patch(host, &member, "p1", None, Vec::new(), key("env"), NOW).await;
    let denied = denied.expect_err("is denied").to_string();
    assert!(
        denied.contains("ManageMachines for every machine"),
        "{denied}"
    );
    let denied = remove(host, &member, "nights", NOW)
        .await
        .expect_err("is denied");
    assert!(denied.to_string().contains("for every machine"), "{denied}");
    let denied = add(host, &member, nights(|w| w.all = true), NOW).await;
    assert!(matches!(denied, Err(ChangeError::Denied(_))));
    // A window that is only there to be asked for touches no machine.
    let own = nights(|window| window.name = "own".to_owned());
    add(host, &member, own, NOW).await.expect("adds");
    fleet::patch(host, admin, "p1", None, Vec::new(), key("env"), NOW)
        .await
        .expect("may");
}

#[tokio::test]
async fn what_makes_no_window_is_refused_with_the_reason_and_makes_none() {
    let case = Case::with_window().await;
    let tag = |value: &str| Tag {
        key: "env".to_owned(),
        value: value.to_owned(),
    };
    let wrong: Vec<(AddWindow, &str)> = vec![
        (nights(|_| {}), "there is a window nights already"),
        (
            nights(|w| w.name = "a b".to_owned()),
            "is no name for a window",
        ),
        (
            nights(|w| w.cron = "0 0 31 2 *".to_owned()),
            "would never open",
        ),
        (
            nights(|w| w.lasts = Span::seconds(25 * HOUR)),
            "the openings overlap",
        ),
        (nights(|w| w.lasts = Span::seconds(90)), "whole minutes"),
        (
            nights(|w| w.zone = Some("Mars".to_owned())),
            "no time zone Mars",
        ),
        (
            nights(|w| w.tags = vec![tag("a"), tag("b")]),
            "each with another key",
        ),
        (
            nights(|w| {
                w.tags = vec![tag("a")];
                w.all = true;
            }),
            "not both",
        ),
    ];
    for (window, reason) in wrong {
        let error = case.add(window).await.expect_err(reason).to_string();
        assert!(error.contains(reason), "{error}");
    }
    assert_eq!(case.test.count_audited("window_added").await, 1);
}

#[tokio::test]
async fn wherever_the_clock_jumps_and_the_host_restarts_it_is_sent_once_and_inside() {
    for seed in 0..20_u64 {
        let case = Case::with_window().await;
        let (_session, mut inbox) = case.connect();
        let job = case
            .test
            .submit("p1", |r| r.expires = Some(Span::seconds(80 * DAY.0 / 1000)))
            .await;
        let (mut random, mut seen) = (seed, Seen::default());
        let mut times = Vec::new();
        for _ in 0..40 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let minutes = i64::try_from(random >> 33).unwrap_or(0) % (10 * 24 * 60);
            let at = UnixMillis(NOW.0 + minutes * 60_000);
            // A host that has started knows of nothing that it saw before.
            if random % 5 == 0 {
                seen = Seen::default();
            }
            seen = look(&case.test.host, &seen, false, at)
                .await
                .expect("looks");
            case.advance(job, at).await;
            let count = sent(&mut inbox).len();
            times.extend(std::iter::repeat_n(at, count));
        }
        let hours: Vec<_> = times
            .iter()
            .map(|at| at.to_string()[11..13].to_owned())
            .collect();
        assert!(
            hours.len() <= 1 && hours.iter().all(|hour| hour == "02"),
            "seed {seed}: {times:?}"
        );
    }
}

#[tokio::test]
async fn a_rollout_goes_on_in_its_windows_and_an_approval_is_no_way_around_a_plan() {
    let case = Case::with_window().await;
    case.tag("d1", "env", "prod").await.expect("tags");
    let job = case
        .test
        .submit("p1", |request| {
            request.machines.push("d1".to_owned());
            request.batches = Some("1, 100%".to_owned());
        })
        .await;
    let rollout = || {
        let found = case
            .test
            .host
            .store
            .read(|conn| crate::store::rollouts::find(conn, case.test.tenant.id, job));
        found.expect("reads").expect("is there")
    };
    assert_eq!(
        (rollout().state, rollout().batch),
        (RolloutState::Running, 1)
    );
    case.advance(job, OPENS).await;
    let states: Vec<_> = case
        .test
        .operations(job)
        .iter()
        .map(|row| row.state)
        .collect();
    assert_eq!(states, [State::Queued, State::Held]);
    assert!(rollout().batches.is_a_plan());
    let plain = case.test.submit("p1", |_| {}).await;
    let found = case
        .test
        .host
        .store
        .read(|conn| crate::store::rollouts::find(conn, case.test.tenant.id, plain));
    assert!(!found.expect("reads").expect("is held").batches.is_a_plan());
}
