//! Machines that match a job only later, on a host whose machines are played by the test.

use sluice_api_types::job::{SubmitJob, Tag};
use sluice_protocol::ending::{Ending, State};
use sluice_protocol::ids::JobId;
use sluice_protocol::report::{Exit, Report};
use sluice_protocol::units::Span;

use crate::clock::UnixMillis;
use crate::fleet;
use crate::jobs::{self, Machine, look_later};
use crate::rollouts;
use crate::store::bindings::TagPair;
use crate::store::{later, tokens};
use crate::testing::{NOW, TestHost};

struct Case {
    test: TestHost,
}

impl Case {
    /// A host with a machine that is tagged, and one that is not.
    async fn new() -> (Self, Machine, Machine) {
        let test = TestHost::new().await;
        let (first, second) = (test.machine("m1").await, test.machine("m2").await);
        let case = Self { test };
        case.tag("m1", true).await;
        (case, first, second)
    }

    async fn tag(&self, machine: &str, on: bool) {
        let pair = TagPair {
            key: "role".to_owned(),
            value: "web".to_owned(),
        };
        let (set, remove) = match on {
            true => (vec![pair], Vec::new()),
            false => (Vec::new(), vec!["role".to_owned()]),
        };
        let (host, admin) = (&self.test.host, &self.test.admin);
        let patched = fleet::patch(host, admin, machine, None, set, remove, NOW).await;
        patched.expect("tags");
    }

    async fn submit(&self, change: impl FnOnce(&mut SubmitJob)) -> JobId {
        self.test
            .submit("m1", |request| {
                request.machines.clear();
                request.tags = vec![Tag {
                    key: "role".to_owned(),
                    value: "web".to_owned(),
                }];
                request.include_later = true;
                change(request);
            })
            .await
    }

    async fn look(&self) {
        assert!(look_later(&self.test.host, NOW).await.expect("looks"));
        let advanced = |job| rollouts::advance(&self.test.host, &self.test.tenant, job, NOW);
        for row in self
            .test
            .host
            .store
            .read(|conn| later::open(conn, self.test.tenant.id))
            .expect("reads")
        {
            advanced(row.job).await.expect("goes on");
        }
    }

    fn names(&self, job: JobId) -> Vec<String> {
        let operations = self.test.operations(job);
        operations.into_iter().map(|row| row.machine_name).collect()
    }

    async fn shown(&self, job: JobId) -> sluice_api_types::job::Job {
        let shown = jobs::job(&self.test.host, &self.test.tenant, job).await;
        shown.expect("reads").expect("is there")
    }

    async fn end(&self, job: JobId, machine: &Machine, ending: Ending) {
        let operations = self.test.operations(job);
        let row = operations
            .iter()
            .find(|row| row.machine == Some(machine.id));
        let report = Report {
            exit: (ending == Ending::Succeeded).then_some(Exit::Code(0)),
            ..Report::without_process(ending, NOW.to_wire())
        };
        let id = row.expect("is there").id;
        let stored = jobs::store_report(&self.test.host, machine, id, report, NOW).await;
        stored.expect("stores");
        let advanced = rollouts::advance(&self.test.host, &self.test.tenant, job, NOW).await;
        advanced.expect("goes on");
    }
}

#[tokio::test]
async fn a_machine_that_is_tagged_later_joins_once_and_one_that_lost_the_tag_does_not() {
    let (case, _, second) = Case::new().await;
    let _link = case.test.connect(&second);
    case.test.machine("m3").await;
    let job = case.submit(|_| ()).await;
    let fixed = case.submit(|request| request.include_later = false).await;
    case.tag("m2", true).await;
    case.tag("m3", true).await;
    case.tag("m3", false).await;
    case.look().await;
    assert_eq!(case.names(job), ["m1", "m2"]);
    assert_eq!(case.test.operations(job)[1].state, State::Delivered);
    case.tag("m2", false).await;
    case.tag("m2", true).await;
    case.look().await;
    case.look().await;
    assert_eq!(case.names(job), ["m1", "m2"]);
    assert_eq!(case.names(fixed), ["m1"]);
    let shown = case.shown(job).await;
    let later = shown.later.expect("is open");
    assert_eq!((later.joined, later.refused, later.closed_at), (1, 0, None));
    assert_eq!(shown.rollout.expect("has one").batches, [2]);
}

#[tokio::test]
async fn a_job_stays_open_when_all_has_ended_until_it_is_canceled_or_expires() {
    let (case, first, second) = Case::new().await;
    let _links = (case.test.connect(&first), case.test.connect(&second));
    let canceled = case.submit(|_| ()).await;
    let expires = case
        .submit(|request| request.expires = Some(Span::seconds(60)))
        .await;
    case.end(canceled, &first, Ending::Succeeded).await;
    let state = |shown: sluice_api_types::job::Job| shown.rollout.expect("has one").state.as_str();
    assert_eq!(state(case.shown(canceled).await), "running");
    let (host, admin) = (&case.test.host, &case.test.admin);
    jobs::cancel(host, admin, canceled, NOW)
        .await
        .expect("cancels");
    jobs::sweep(host, UnixMillis(NOW.0 + 60_001))
        .await
        .expect("sweeps");
    let advanced = rollouts::advance(host, &case.test.tenant, canceled, NOW).await;
    advanced.expect("ends");
    assert_eq!(state(case.shown(canceled).await), "done");
    case.tag("m2", true).await;
    case.look().await;
    for (job, why) in [
        (canceled, "canceled by admin"),
        (expires, "the job has expired"),
    ] {
        assert_eq!(case.names(job), ["m1"]);
        let later = case.shown(job).await.later.expect("was open");
        assert_eq!(later.closed_because.as_deref(), Some(why));
    }
    assert_eq!(case.test.count_audited("job_targets_fixed").await, 2);
}

#[tokio::test]
async fn a_paused_job_takes_none_and_when_it_goes_on_those_that_match_then() {
    let (case, first, _) = Case::new().await;
    let _link = case.test.connect(&first);
    case.test.machine("m3").await;
    let job = case.submit(|_| ()).await;
    let (host, admin) = (&case.test.host, &case.test.admin);
    rollouts::pause(host, admin, job, NOW)
        .await
        .expect("pauses");
    case.tag("m2", true).await;
    case.tag("m3", true).await;
    case.look().await;
    assert_eq!(case.names(job), ["m1"]);
    case.tag("m3", false).await;
    rollouts::resume(host, admin, job, NOW)
        .await
        .expect("resumes");
    case.look().await;
    assert_eq!(case.names(job), ["m1", "m2"]);
}

#[tokio::test]
async fn who_joins_is_of_the_last_batch_and_the_rules_count_what_was_before() {
    let (case, first, _) = Case::new().await;
    let _link = case.test.connect(&first);
    let job = case
        .submit(|request| request.batches = Some("100%".to_owned()))
        .await;
    case.end(job, &first, Ending::ExitCode(3)).await;
    case.tag("m2", true).await;
    case.look().await;
    assert_eq!(case.names(job), ["m1", "m2"]);
    let row = &case.test.operations(job)[1];
    assert_eq!((row.batch, row.state), (Some(1), State::Held));
    assert_eq!(case.test.count_audited("job_stopped").await, 1);
}

#[tokio::test]
async fn nobody_joins_once_the_token_that_submitted_is_no_good() {
    let (case, ..) = Case::new().await;
    let job = case.submit(|_| ()).await;
    let (tenant, token) = (case.test.tenant.id, case.test.admin.token);
    case.tag("m2", true).await;
    let revoked = case
        .test
        .host
        .store
        .write(move |conn| tokens::revoke(conn, tenant, token, NOW));
    revoked.await.expect("revokes");
    case.look().await;
    assert_eq!(case.names(job), ["m1"]);
    let later = case.shown(job).await.later.expect("was open");
    let why = later.closed_because.expect("is closed");
    assert!(why.contains("was revoked"), "{why}");
}
