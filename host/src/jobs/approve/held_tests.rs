//! Jobs above a threshold, with a machine that is played by the test.

use sluice_api_types::approval::{
    AddStandingApproval, ApprovalRule, ApprovalState, SetApprovalPolicy,
};
use sluice_api_types::job::{Job, SubmitJob};
use sluice_protocol::digest::Digest;
use sluice_protocol::report::Severity;

use super::*;
use crate::approvals;
use crate::fleet::Inbox;
use crate::jobs::{self, Machine};
use crate::operators::{Grants, MadeBy, create};
use crate::store::{approval_policies, tenants};
use crate::testing::{NOW, TestHost, request};

/// So many, for whatever has findings of this severity; for everything where there is none.
fn rule(approvers: u64, findings: Option<Severity>) -> ApprovalRule {
    ApprovalRule {
        approvers,
        targets: None,
        run_as: Vec::new(),
        tags: Vec::new(),
        findings,
    }
}

/// Operators who do not know each other, and a machine that is connected.
struct Case {
    test: TestHost,
    bob: Actor,
    carol: Actor,
    dave: Actor,
    machine: Machine,
    inbox: Inbox,
    _session: crate::fleet::Session,
}

impl Case {
    /// Every job waits for so many.
    async fn new(approvers: u64) -> Self {
        let test = TestHost::new().await;
        let (bob, _) = test.operator("bob", Permission::ALL).await;
        let (carol, _) = test.operator("carol", &[Permission::ApproveJobs]).await;
        let (dave, _) = test.operator("dave", &[Permission::ApproveJobs]).await;
        let machine = test.machine("web-1").await;
        let (session, inbox) = test.connect(&machine);
        let case = Self {
            test,
            bob,
            carol,
            dave,
            machine,
            inbox,
            _session: session,
        };
        case.set(approvers).await;
        case
    }

    async fn set(&self, approvers: u64) {
        self.set_rules(vec![rule(approvers, None)]).await;
    }

    async fn set_rules(&self, rules: Vec<ApprovalRule>) {
        let policy = SetApprovalPolicy {
            rules,
            ..SetApprovalPolicy::default()
        };
        approvals::set_policy(&self.test.host, &self.test.admin, &policy, NOW)
            .await
            .expect("makes sense");
    }

    /// Bob submits, and nothing is sent.
    async fn held(&mut self) -> JobId {
        let job = jobs::submit(&self.test.host, &self.bob, request("web-1"), None, NOW)
            .await
            .expect("is accepted");
        assert_eq!(self.state(job), State::Held);
        self.nothing_sent();
        job
    }

    fn nothing_sent(&mut self) {
        assert!(self.inbox.deliveries.try_recv().is_err());
    }

    fn state(&self, job: JobId) -> State {
        self.test.operation(job).state
    }

    async fn shown(&self, job: JobId) -> Job {
        jobs::job(&self.test.host, &self.test.tenant, job)
            .await
            .expect("reads")
            .expect("is there")
    }

    async fn approve(&self, actor: &Actor, job: JobId) -> Result<JobId, ApproveError> {
        self.approve_at(actor, job, ApproveJob::default(), NOW)
            .await
    }

    async fn approve_at(
        &self,
        actor: &Actor,
        job: JobId,
        request: ApproveJob,
        now: UnixMillis,
    ) -> Result<JobId, ApproveError> {
        approve(&self.test.host, actor, &job.to_string(), request, now).await
    }

    /// A token of its own operator, made with that of `maker`.
    async fn made_by(&self, maker: &Actor, name: &'static str) -> Actor {
        let (tenant, token) = (self.test.tenant.id, maker.token);
        let host = &self.test.host;
        let made = host.store.write(move |conn| {
            let grants = Grants::of_permissions(&[Permission::ApproveJobs]);
            let made_by = MadeBy {
                token: Some(token),
                grant: None,
            };
            create(conn, tenant, name, grants, None, made_by, NOW)
        });
        let (row, _) = made.await.expect("makes a token");
        host.store
            .read(|conn| operators::on_behalf_of(conn, &host.roles, tenant, row.id, "test", NOW))
            .expect("is good")
    }

    async fn new_gates(&self) {
        let tenant = self.test.tenant.id;
        let store = &self.test.host.store;
        store
            .write(move |conn| tenants::next_gates_revision(conn, tenant))
            .await
            .expect("writes");
    }

    async fn revoke(&self, actor: &Actor) {
        let (tenant, token) = (self.test.tenant.id, actor.token);
        let revoke = move |conn: &Connection| tokens::revoke(conn, tenant, token, NOW);
        self.test.host.store.write(revoke).await.expect("revokes");
    }
}

#[tokio::test]
async fn a_job_above_a_threshold_is_delivered_once_as_many_others_as_are_needed_have_approved() {
    let mut case = Case::new(2).await;
    let job = case.held().await;
    assert_eq!(case.approve(&case.carol, job).await.ok(), Some(job));
    assert_eq!(case.state(job), State::Held);
    case.nothing_sent();
    assert_eq!(case.approve(&case.dave, job).await.ok(), Some(job));
    let sent = case.inbox.deliveries.try_recv().expect("was delivered");
    assert_eq!((sent.job, sent.operator.as_str()), (job, "bob"));
    let approval = case.shown(job).await.approval.expect("was needed");
    let by: Vec<_> = approval
        .approved
        .iter()
        .map(|one| one.by.as_str())
        .collect();
    assert_eq!(
        (approval.state, approval.needed, by),
        (ApprovalState::Approved, 2, vec!["carol", "dave"])
    );
    assert_eq!(case.test.count_audited("job_held").await, 1);
    let entries = case.test.audited().await;
    let approved: Vec<_> = entries
        .iter()
        .filter(|entry| entry.event == "job_approved")
        .map(|entry| (entry.operator.as_deref(), entry.details["let_go"].clone()))
        .collect();
    assert_eq!(
        approved,
        [(Some("carol"), false.into()), (Some("dave"), true.into())]
    );
    let again = case.approve(&case.carol, job).await;
    assert!(matches!(again, Err(ApproveError::NotOpen(_))), "{again:?}");
}

#[tokio::test]
async fn nobody_approves_their_own_and_those_who_may_be_one_person_count_once() {
    let mut case = Case::new(2).await;
    let job = case.held().await;
    let own = case.approve(&case.bob, job).await;
    assert!(matches!(own, Err(ApproveError::Own(_))), "{own:?}");
    let bobs = case.made_by(&case.bob, "ci").await;
    let made = case.approve(&bobs, job).await;
    assert!(matches!(made, Err(ApproveError::Made { .. })), "{made:?}");

    case.approve(&case.carol, job).await.expect("carol may");
    let twice = case.approve(&case.carol, job).await;
    assert!(matches!(twice, Err(ApproveError::Again(_))), "{twice:?}");
    let second = Actor {
        token: case.made_by(&case.test.admin, "second").await.token,
        ..case.carol.clone()
    };
    let twice = case.approve(&second, job).await;
    assert!(matches!(twice, Err(ApproveError::Again(_))), "{twice:?}");
    let child = case.made_by(&case.carol, "child").await;
    let one = case.approve(&child, job).await;
    assert!(matches!(one, Err(ApproveError::OneWith { .. })), "{one:?}");
    assert_eq!(case.state(job), State::Held);
    case.approve(&case.dave, job).await.expect("dave may");
    assert_eq!(case.state(job), State::Delivered);
    assert_eq!(case.test.count_audited("script_approval_refused").await, 5);
}

#[tokio::test]
async fn what_was_approved_is_void_once_the_gates_are_others_and_can_be_approved_anew() {
    let mut case = Case::new(2).await;
    let job = case.held().await;
    let seen = case.shown(job).await.approval.expect("waits").digest;
    case.approve(&case.carol, job).await.expect("carol may");
    case.new_gates().await;
    case.approve(&case.dave, job).await.expect("is the first");
    assert_eq!(case.state(job), State::Held);
    case.nothing_sent();
    let waits = case.shown(job).await;
    let why = serde_json::to_value(&waits.operations[0].why).expect("JSON");
    assert_eq!(why[0]["reason"], "approval");
    let void = why[0]["approved"][0]["void"].as_str().unwrap_or_default();
    assert!(void.contains("gates have changed"), "{why:#}");
    assert_ne!(waits.approval.expect("waits").digest, seen);

    // Whoever looked before the change approves nothing else.
    let request = ApproveJob {
        digest: Some(seen),
        ..ApproveJob::default()
    };
    let other = case.approve_at(&case.carol, job, request, NOW).await;
    assert!(matches!(other, Err(ApproveError::Digest(_))), "{other:?}");
    case.approve(&case.carol, job).await.expect("once more");
    let sent = case.inbox.deliveries.try_recv().expect("was delivered");
    let tenant = case.test.tenant.id;
    let store = &case.test.host.store;
    let gates = store.read(|conn| tenants::gates_revision(conn, tenant));
    assert_eq!(sent.gates_revision, gates.expect("reads"));
}

#[tokio::test]
async fn a_machine_that_is_taken_out_of_a_job_makes_what_was_approved_void() {
    let mut case = Case::new(2).await;
    case.test.machine("web-2").await;
    let mut both = request("web-1");
    both.machines.push("web-2".to_owned());
    let job = jobs::submit(&case.test.host, &case.bob, both, None, NOW)
        .await
        .expect("is accepted");
    case.approve(&case.carol, job).await.expect("carol may");
    crate::fleet::revoke(&case.test.host, &case.test.admin, "web-2", NOW)
        .await
        .expect("revokes");
    case.approve(&case.dave, job).await.expect("is the first");
    case.nothing_sent();
    let approval = case.shown(job).await.approval.expect("waits");
    let void = approval.approved[0].void.clone().unwrap_or_default();
    assert!(void.contains("taken out"), "{approval:?}");
    case.approve(&case.carol, job).await.expect("once more");
    assert!(case.inbox.deliveries.try_recv().is_ok());
}

#[tokio::test]
async fn batches_that_have_not_begun_wait_again_once_the_gates_are_others() {
    let mut case = Case::new(1).await;
    case.test.machine("web-2").await;
    let mut both = request("web-1");
    both.machines.push("web-2".to_owned());
    both.batches = Some("1,100%".to_owned());
    let (host, tenant) = (case.test.host.clone(), case.test.tenant.clone());
    let job = jobs::submit(&host, &case.bob, both, None, NOW)
        .await
        .expect("is accepted");
    case.approve(&case.carol, job).await.expect("carol may");
    let sent = case.inbox.deliveries.try_recv().expect("was delivered");
    case.new_gates().await;
    let report = sluice_protocol::report::Report {
        exit: Some(sluice_protocol::report::Exit::Code(0)),
        ..sluice_protocol::report::Report::without_process(Ending::Succeeded, NOW.to_wire())
    };
    jobs::store_report(&host, &case.machine, sent.operation, report, NOW)
        .await
        .expect("stores");
    let states = |case: &Case| {
        let operations = case.test.operations(job);
        [operations[0].state, operations[1].state]
    };
    crate::rollouts::advance(&host, &tenant, job, NOW)
        .await
        .expect("looks");
    assert_eq!(states(&case), [State::Succeeded, State::Held]);
    let approval = case.shown(job).await.approval.expect("waits");
    assert_eq!(approval.state, ApprovalState::Waiting);
    case.approve(&case.carol, job).await.expect("once more");
    assert_eq!(states(&case), [State::Succeeded, State::Queued]);
}

#[tokio::test]
async fn rights_are_looked_at_when_a_job_is_let_go_and_not_only_when_it_was_approved() {
    let mut case = Case::new(2).await;
    let job = case.held().await;
    case.approve(&case.carol, job).await.expect("carol may");
    case.revoke(&case.carol).await;
    case.approve(&case.dave, job).await.expect("is the first");
    assert_eq!(case.state(job), State::Held);
    case.nothing_sent();
    let (eve, _) = case.test.operator("eve", &[Permission::ApproveJobs]).await;
    // And those of whoever submitted it.
    case.revoke(&case.bob).await;
    let nobody = case.approve(&eve, job).await;
    assert!(
        matches!(nobody, Err(ApproveError::Submitter(_))),
        "{nobody:?}"
    );
    assert_eq!(case.state(job), State::Held);
}

#[tokio::test]
async fn an_approval_counts_as_long_as_it_says_and_a_job_waits_as_long_as_its_policy_says() {
    let mut case = Case::new(2).await;
    let job = case.held().await;
    let short = ApproveJob {
        expires: Some(Span::seconds(60)),
        ..ApproveJob::default()
    };
    let later = |seconds| NOW.plus(Span::seconds(seconds));
    case.approve_at(&case.carol, job, short, NOW)
        .await
        .expect("carol may");
    let request = ApproveJob::default;
    case.approve_at(&case.dave, job, request(), later(60))
        .await
        .expect("is the first");
    assert_eq!(case.state(job), State::Held);
    let day = 24 * 3600;
    jobs::sweep(&case.test.host, later(day))
        .await
        .expect("sweeps");
    assert_eq!(case.state(job), State::Held);
    let late = case
        .approve_at(&case.carol, job, request(), later(day + 1))
        .await;
    assert!(matches!(late, Err(ApproveError::WaitedLong(_))), "{late:?}");
    jobs::sweep(&case.test.host, later(day + 1))
        .await
        .expect("sweeps");
    assert_eq!(case.state(job), State::Expired);
    let long = ApproveJob {
        expires: Some(Span::seconds(7 * day + 1)),
        ..ApproveJob::default()
    };
    let job = case.held().await;
    let long = case.approve_at(&case.carol, job, long, NOW).await;
    assert!(matches!(long, Err(ApproveError::Submit(_))), "{long:?}");
}

#[tokio::test]
async fn a_job_that_waits_longer_than_its_policy_lets_it_expires_before_its_own_time() {
    let case = Case::new(1).await;
    let mut long = request("web-1");
    long.expires = Some(Span::seconds(30 * 24 * 3600));
    let job = jobs::submit(&case.test.host, &case.bob, long, None, NOW)
        .await
        .expect("is accepted");
    let after = NOW.plus(Span::seconds(24 * 3600 + 1));
    jobs::sweep(&case.test.host, after).await.expect("sweeps");
    assert_eq!(case.state(job), State::Expired);
}

#[tokio::test]
async fn approvals_at_the_same_time_all_count_and_let_a_job_go_once() {
    let mut case = Case::new(2).await;
    let job = case.held().await;
    let (carols, daves, again) = tokio::join!(
        case.approve(&case.carol, job),
        case.approve(&case.dave, job),
        case.approve(&case.carol, job)
    );
    let approved = [carols, daves, again];
    let count = approved.iter().filter(|one| one.is_ok()).count();
    assert_eq!(count, 2, "{approved:?}");
    case.inbox.deliveries.try_recv().expect("was delivered");
    case.nothing_sent();
    assert_eq!(case.test.count_audited("job_released").await, 1);
}

#[tokio::test]
async fn whoever_is_first_of_one_who_cancels_and_one_who_approves_has_it() {
    let mut case = Case::new(1).await;
    for _ in 0..20 {
        let job = case.held().await;
        let (canceled, approved) = tokio::join!(
            jobs::cancel(&case.test.host, &case.bob, job, NOW),
            case.approve(&case.carol, job)
        );
        canceled.expect("cancels");
        let sent = case.inbox.deliveries.try_recv().is_ok();
        let state = case.state(job);
        // What was let go before is on its way, and told to end; what was canceled before is never sent.
        assert!(
            state == State::Canceled && !sent || state == State::Delivered && approved.is_ok(),
            "{state:?}, {approved:?}"
        );
    }
    let job = case.held().await;
    jobs::cancel(&case.test.host, &case.bob, job, NOW)
        .await
        .expect("cancels");
    let late = case.approve(&case.carol, job).await;
    assert!(matches!(late, Err(ApproveError::NotOpen(_))), "{late:?}");
    case.nothing_sent();
}

#[tokio::test]
async fn who_denies_a_job_ends_it_and_needs_the_right_to_approve_it() {
    let mut case = Case::new(1).await;
    let job = case.held().await;
    let (eve, _) = case
        .test
        .operator("eve", &[Permission::RemoteExecution])
        .await;
    let (id, reason) = (job.to_string(), || DenyJob {
        reason: Some("not today".to_owned()),
    });
    let denied = deny(&case.test.host, &eve, &id, reason(), NOW).await;
    assert!(matches!(denied, Err(ApproveError::Denied(_))), "{denied:?}");
    deny(&case.test.host, &case.carol, &id, reason(), NOW)
        .await
        .expect("carol may");
    let operation = case.test.operation(job);
    assert_eq!(
        (operation.state, operation.message.as_deref()),
        (State::Canceled, Some("Canceled by carol"))
    );
    let approval = case.shown(job).await.approval.expect("was needed");
    assert_eq!(approval.state, ApprovalState::Denied);
    let late = case.approve(&case.dave, job).await;
    assert!(matches!(late, Err(ApproveError::NotOpen(_))), "{late:?}");
    case.nothing_sent();
    let again = deny(&case.test.host, &case.dave, &id, reason(), NOW).await;
    assert!(matches!(again, Err(ApproveError::NotWaiting)), "{again:?}");
}

#[tokio::test]
async fn a_job_of_another_tenant_is_approved_and_denied_as_one_that_is_not_there() {
    let mut case = Case::new(1).await;
    let job = case.held().await;
    let (stranger, _) = case.test.stranger().await;
    for id in [job, JobId::generate()] {
        let approved = case.approve(&stranger, id).await;
        assert!(matches!(approved, Err(ApproveError::NoJob)), "{approved:?}");
        let request = DenyJob::default();
        let denied = deny(&case.test.host, &stranger, &id.to_string(), request, NOW).await;
        assert!(matches!(denied, Err(ApproveError::NoJob)), "{denied:?}");
    }
    assert_eq!(case.state(job), State::Held);
}

/// What jobs of bob may do as the machine's own user.
fn hi(targets: u64) -> AddStandingApproval {
    AddStandingApproval {
        script_sha256: Some(Digest::of(b"#!/bin/sh\necho hi\n")),
        run_as: vec!["default".to_owned()],
        targets,
        ..AddStandingApproval::default()
    }
}

#[tokio::test]
async fn a_standing_approval_counts_for_as_many_as_approve_it_and_never_for_its_own() {
    let mut case = Case::new(2).await;
    let host = case.test.host.clone();
    // The submitter's own word counts for nothing.
    let own = approvals::add(&host, &case.bob, hi(1), NOW)
        .await
        .expect("is added");
    approvals::approve(&host, &case.carol, own.id, NOW)
        .await
        .expect("carol may");
    case.held().await;
    let twice = approvals::approve(&host, &case.carol, own.id, NOW).await;
    assert!(twice.is_err());
    let childs = case.made_by(&case.carol, "child").await;
    approvals::approve(&host, &childs, own.id, NOW)
        .await
        .expect("is recorded");
    case.held().await;

    approvals::approve(&host, &case.dave, own.id, NOW)
        .await
        .expect("dave may");
    let submit = || jobs::submit(&host, &case.bob, request("web-1"), None, NOW);
    let job = submit().await.expect("is accepted");
    let sent = case.inbox.deliveries.try_recv().expect("was delivered");
    assert_eq!(sent.job, job);
    let approval = case.shown(job).await.approval.expect("was needed");
    assert_eq!(
        (approval.state, approval.standing),
        (ApprovalState::Approved, Some(own.id.to_string()))
    );
    let entries = case.test.audited().await;
    let entry = entries
        .iter()
        .find(|entry| entry.event == "job_approved")
        .expect("is on the record");
    assert_eq!(entry.details["standing"], own.id.to_string());
    assert_eq!(entry.details["approvers"][1], "dave");

    // Whoever may not any more does not count.
    case.revoke(&case.dave).await;
    case.held().await;
}

#[tokio::test]
async fn a_preview_says_what_the_job_waits_for_then() {
    let mut case = Case::new(1).await;
    case.set_rules(vec![rule(1, None), rule(2, Some(Severity::Medium))])
        .await;
    let host = case.test.host.clone();
    let preview = async |change: fn(&mut SubmitJob)| {
        let mut request = request("web-1");
        change(&mut request);
        let preview = jobs::preview(&host, &case.bob, request, NOW).await;
        preview.expect("is shown").approval
    };
    let approval = preview(|_| ()).await;
    let skipped = preview(|request| request.no_security_scan = true).await;
    assert_eq!(skipped.map(|approval| approval.needed), Some(2));

    let row = approvals::add(&host, &case.carol, hi(1), NOW)
        .await
        .expect("is added");
    let standing = preview(|_| ()).await.expect("is needed").standing;
    assert_eq!(standing, Some(row.id.to_string()));

    case.revoke(&case.carol).await;
    let job = case.held().await;
    let waits = case.shown(job).await.approval.expect("waits");
    let approval = approval.expect("was said before");
    assert_eq!(
        (approval.needed, approval.because, approval.standing),
        (waits.needed, waits.because, None)
    );
    // Where no rule holds for what is clean, a clean job does not wait.
    case.set_rules(vec![rule(1, Some(Severity::Medium))]).await;
    let clean = jobs::preview(&host, &case.bob, request("web-1"), NOW).await;
    assert_eq!(clean.expect("is shown").approval, None);
}

#[tokio::test]
async fn a_standing_approval_that_was_revoked_or_is_over_counts_no_more() {
    let mut case = Case::new(1).await;
    let host = case.test.host.clone();
    let row = approvals::add(&host, &case.carol, hi(1), NOW)
        .await
        .expect("is added");
    let submit = |now| jobs::submit(&host, &case.bob, request("web-1"), None, now);
    submit(NOW).await.expect("is accepted");
    case.inbox.deliveries.try_recv().expect("was delivered");
    let after = NOW.plus(Span::seconds(30 * 24 * 3600));
    let job = submit(after).await.expect("is accepted");
    assert_eq!(case.state(job), State::Held);
    approvals::revoke(&host, &case.carol, row.id, NOW)
        .await
        .expect("revokes");
    case.held().await;
    let again = approvals::revoke(&host, &case.carol, row.id, NOW).await;
    assert!(again.is_err());
    let (stranger, _) = case.test.stranger().await;
    let row = approvals::add(&host, &case.carol, hi(1), NOW)
        .await
        .expect("is added");
    let theirs = approvals::approve(&host, &stranger, row.id, NOW).await;
    assert!(theirs.is_err());
}

#[tokio::test]
async fn a_policy_has_revisions_and_the_record_says_where_one_is_weaker() {
    let case = Case::new(2).await;
    case.set(1).await;
    case.set(3).await;
    let tenant = case.test.tenant.id;
    let store = &case.test.host.store;
    let rows = store
        .read(|conn| approval_policies::list(conn, tenant, None, 10))
        .expect("reads");
    let revisions: Vec<_> = rows
        .iter()
        .map(|row| (row.revision, row.policy.rules[0].approvers))
        .collect();
    assert_eq!(revisions, [(3, 3), (2, 1), (1, 2)]);
    let entries = case.test.audited().await;
    let weaker: Vec<_> = entries
        .iter()
        .filter(|entry| entry.event == "approval_policy_set")
        .map(|entry| entry.details["weaker"].clone())
        .collect();
    assert_eq!(weaker, [false, true, false]);
}

#[tokio::test]
async fn what_a_policy_blocked_and_one_approved_waits_for_the_others_that_its_job_needs() {
    let mut case = Case::new(1).await;
    let store = case.test.host.clone();
    let none = SetApprovalPolicy::default();
    approvals::set_policy(&store, &case.test.admin, &none, NOW)
        .await
        .expect("makes sense");
    let job = jobs::submit(&store, &case.bob, request("web-1"), None, NOW)
        .await
        .expect("is accepted");
    let sent = case.inbox.deliveries.try_recv().expect("was delivered");
    let block = sluice_protocol::ending::Block {
        by: "policy".to_owned(),
        reason: "it wants an approval".to_owned(),
        code: Some(APPROVAL_REQUIRED.to_owned()),
    };
    let report =
        sluice_protocol::report::Report::without_process(Ending::Blocked(block), NOW.to_wire());
    jobs::store_report(&store, &case.machine, sent.operation, report, NOW)
        .await
        .expect("stores");
    case.set(2).await;
    let made = case.approve(&case.carol, job).await.expect("carol may");
    assert_ne!(made, job);
    assert_eq!(case.state(made), State::Held);
    case.nothing_sent();
    let again = case.approve(&case.carol, made).await;
    assert!(matches!(again, Err(ApproveError::Again(_))), "{again:?}");
    case.approve(&case.dave, made).await.expect("dave may");
    assert_eq!(case.state(made), State::Delivered);
}
