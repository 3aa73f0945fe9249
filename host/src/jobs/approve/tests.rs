//! Approvals, with machines that are played by the test: what blocks them is their report.

use sluice_api_types::audit::AuditEntry;
use sluice_protocol::ending::Block;
use sluice_protocol::message::operation::Operation;
use sluice_protocol::report::Report;
use uuid::Uuid;

use super::*;
use crate::fleet::Inbox;
use crate::jobs::{self, Machine, store_report};
use crate::operators::{Grants, create};
use crate::store::job_list::{self, JobFilter, JobLine};
use crate::testing::{NOW, TestHost, request};

/// Two operators who do not know each other, and a machine that is connected.
struct Case {
    test: TestHost,
    bob: Actor,
    carol: Actor,
    machine: Machine,
    inbox: Inbox,
    _session: crate::fleet::Session,
}

impl Case {
    async fn new() -> Self {
        let test = TestHost::new().await;
        let (bob, _) = test.operator("bob", Permission::ALL).await;
        let (carol, _) = test.operator("carol", &[Permission::ApproveJobs]).await;
        let machine = test.machine("web-1").await;
        let (session, inbox) = test.connect(&machine);
        Self {
            test,
            bob,
            carol,
            machine,
            inbox,
            _session: session,
        }
    }

    fn sent(&mut self) -> Box<Operation> {
        self.inbox.deliveries.try_recv().expect("was delivered")
    }

    /// Bob submits, and the machine blocks it with this code.
    async fn blocked(&mut self, code: Option<&str>) -> (JobId, Box<Operation>) {
        let job = jobs::submit(&self.test.host, &self.bob, request("web-1"), None, NOW)
            .await
            .expect("is accepted");
        let sent = self.sent();
        let block = Block {
            by: "policy".to_owned(),
            reason: "it wants an approval".to_owned(),
            code: code.map(str::to_owned),
        };
        let report = Report::without_process(Ending::Blocked(block), NOW.to_wire());
        store_report(&self.test.host, &self.machine, sent.operation, report, NOW)
            .await
            .expect("stores");
        (job, sent)
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

    async fn last(&self, event: &str) -> AuditEntry {
        let entries = self.test.audited().await;
        let found = entries.into_iter().rev().find(|entry| entry.event == event);
        found.unwrap_or_else(|| panic!("no {event}"))
    }

    fn jobs(&self) -> usize {
        let tenant = self.test.tenant.id;
        let store = &self.test.host.store;
        let listed = store.read(|conn| jobs_of(conn, tenant));
        listed.expect("reads").len()
    }
}

fn jobs_of(
    conn: &Connection,
    tenant: sluice_protocol::ids::TenantId,
) -> Result<Vec<JobLine>, StoreError> {
    let all = JobFilter::default();
    Ok(job_list::list(conn, tenant, &all, None, 100)?.lines)
}

#[tokio::test]
async fn what_was_blocked_runs_once_as_its_submitter_with_the_word_of_another_operator() {
    let mut case = Case::new().await;
    let (job, first) = case.blocked(Some(APPROVAL_REQUIRED)).await;
    assert_eq!(first.approval, None);
    let made = case
        .approve(&case.carol, job)
        .await
        .expect("carol may approve");
    let again = case.sent();
    assert_eq!(
        (again.job, &again.submission, again.bundle_sha256),
        (made, &first.submission, first.bundle_sha256)
    );
    assert_ne!(again.operation, first.operation);
    assert_eq!(again.operator, "bob");
    let approval = again.approval.clone().expect("comes with it");
    assert_eq!(
        (
            approval.bundle_sha256,
            approval.machine,
            approval.by.as_str()
        ),
        (first.bundle_sha256, case.machine.id, "carol")
    );
    let shown = jobs::job(&case.test.host, &case.test.tenant, made)
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!(
        (
            shown.operator.as_str(),
            shown.approves,
            shown.approved_by.as_deref()
        ),
        ("bob", Some(job), Some("carol"))
    );
    let entry = case.last("script_approved").await;
    assert_eq!(
        (
            entry.operator.as_deref(),
            entry.machine.as_deref(),
            entry.job,
            entry.operation,
            entry.bundle_sha256
        ),
        (
            Some("carol"),
            Some("web-1"),
            Some(job.to_string()),
            Some(first.operation.to_string()),
            Some(first.bundle_sha256)
        )
    );
    assert_eq!(entry.details["submitted_by"], "bob");
    assert_eq!(entry.details["operation"], again.operation.to_string());

    let twice = case.approve(&case.carol, job).await;
    assert!(
        matches!(&twice, Err(ApproveError::NotOpen(NotOpen::Before { job, .. })) if *job == made),
        "{twice:?}"
    );
    assert!(case.inbox.deliveries.try_recv().is_err());
}

#[tokio::test]
async fn nobody_approves_their_own_by_token_name_or_a_token_that_theirs_made() {
    let mut case = Case::new().await;
    let (job, first) = case.blocked(Some(APPROVAL_REQUIRED)).await;
    let own = case.approve(&case.bob, job).await;
    assert!(matches!(own, Err(ApproveError::Own(_))), "{own:?}");

    let (tenant, maker) = (case.test.tenant.id, case.bob.token);
    let tokens = case
        .test
        .host
        .store
        .write(move |conn| {
            let all = || Grants::of_role(operators::OWNER);
            let by = |token| operators::MadeBy {
                token: Some(token),
                grant: None,
            };
            let (child, _) = create(conn, tenant, "child", all(), None, by(maker), NOW)?;
            let (grandchild, _) =
                create(conn, tenant, "grandchild", all(), None, by(child.id), NOW)?;
            tokens::revoke(conn, tenant, child.id, NOW)?;
            Ok::<_, operators::CreateTokenError>([child.id, grandchild.id])
        })
        .await
        .expect("makes tokens");
    for token in tokens {
        let actor = Actor {
            token,
            operator: Uuid::now_v7(),
            name: "somebody".to_owned(),
            ..case.bob.clone()
        };
        let made = case.approve(&actor, job).await;
        assert!(matches!(made, Err(ApproveError::Made { .. })), "{made:?}");
    }
    let other_token = Actor {
        token: Uuid::now_v7(),
        name: "bob-at-home".to_owned(),
        ..case.bob.clone()
    };
    let same = case.approve(&other_token, job).await;
    assert!(matches!(same, Err(ApproveError::Own(_))), "{same:?}");
    let namesake = Actor {
        token: Uuid::now_v7(),
        operator: Uuid::now_v7(),
        ..case.bob.clone()
    };
    let same = case.approve(&namesake, job).await;
    assert!(matches!(same, Err(ApproveError::Own(_))), "{same:?}");

    let entry = case.last("script_approval_refused").await;
    assert_eq!(
        (
            entry.operator.as_deref(),
            entry.machine.as_deref(),
            entry.operation,
            entry.bundle_sha256
        ),
        (
            Some("bob"),
            Some("web-1"),
            Some(first.operation.to_string()),
            Some(first.bundle_sha256)
        )
    );
    assert_eq!(case.test.count_audited("script_approval_refused").await, 5);
    assert_eq!(
        (
            case.jobs(),
            case.test.count_audited("script_approved").await
        ),
        (1, 0)
    );
    assert!(case.inbox.deliveries.try_recv().is_err());
}

#[tokio::test]
async fn what_ran_in_batches_is_not_let_loose_on_all_machines() {
    let mut case = Case::new().await;
    let (job, _) = case.blocked(Some(APPROVAL_REQUIRED)).await;
    let batches = crate::rollouts::Batches {
        ends: vec![1],
        max_concurrency: Some(1),
        stops: crate::rollouts::Stops::default(),
        dark_after: sluice_protocol::units::Span::default(),
    };
    let row = rollouts::RolloutRow::new(job, case.test.tenant.id, batches, false);
    let write = move |conn: &Connection| rollouts::insert(conn, &row);
    case.test.host.store.write(write).await.expect("stores");
    let refused = case.approve(&case.carol, job).await;
    assert!(matches!(refused, Err(ApproveError::Rollout)), "{refused:?}");
}

#[tokio::test]
async fn only_what_a_policy_wants_approved_can_be() {
    let mut case = Case::new().await;
    for code in [None, Some("gate-error"), Some("approval-not-accepted")] {
        let (job, _) = case.blocked(code).await;
        let refused = case.approve(&case.carol, job).await;
        assert!(
            matches!(
                refused,
                Err(ApproveError::NotOpen(NotOpen::NotBlocked { .. }))
            ),
            "{code:?}: {refused:?}"
        );
    }
    let running = case.test.submit("web-1", |_| ()).await;
    let refused = case.approve(&case.carol, running).await;
    assert!(
        matches!(refused, Err(ApproveError::NotOpen(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn an_approval_is_refused_without_the_permission_a_day_later_or_for_a_job_of_another_tenant()
{
    let mut case = Case::new().await;
    let (job, first) = case.blocked(Some(APPROVAL_REQUIRED)).await;
    let (powerless, _) = case
        .test
        .operator(
            "dora",
            &[Permission::RemoteExecution, Permission::Administer],
        )
        .await;
    let denied = case.approve(&powerless, job).await;
    assert!(matches!(denied, Err(ApproveError::Denied(_))), "{denied:?}");
    let entry = case.last("permission_denied").await;
    assert_eq!(
        (entry.machine.as_deref(), entry.bundle_sha256),
        (Some("web-1"), Some(first.bundle_sha256))
    );

    let (stranger, _) = case.test.stranger().await;
    let unknown = case.approve(&stranger, job).await;
    assert!(matches!(unknown, Err(ApproveError::NoJob)), "{unknown:?}");

    let none = ApproveJob::default;
    let over = NOW.plus(OPEN).plus(Span(1));
    let late = case.approve_at(&case.carol, job, none(), over).await;
    assert!(
        matches!(late, Err(ApproveError::NotOpen(NotOpen::Late { .. }))),
        "{late:?}"
    );
    let elsewhere = ApproveJob {
        machines: vec!["web-2".to_owned()],
        ..none()
    };
    let wrong = case.approve_at(&case.carol, job, elsewhere, NOW).await;
    assert!(
        matches!(wrong, Err(ApproveError::NoMachine(_))),
        "{wrong:?}"
    );
    for expires in [Span(0), Span::seconds(8 * 24 * 3600)] {
        let request = ApproveJob {
            expires: Some(expires),
            ..none()
        };
        let wrong = case.approve_at(&case.carol, job, request, NOW).await;
        assert!(matches!(wrong, Err(ApproveError::Submit(_))), "{wrong:?}");
    }
    assert_eq!(case.jobs(), 1);
    let request = ApproveJob {
        machines: vec![case.machine.id.to_string()],
        expires: Some(Span::seconds(60)),
        digest: None,
    };
    case.approve_at(&case.carol, job, request, NOW.plus(OPEN))
        .await
        .expect("is in time");
    let sent = case.sent();
    assert_eq!(
        sent.not_after,
        NOW.plus(OPEN).plus(Span::seconds(60)).to_wire()
    );
}

#[tokio::test]
async fn what_would_run_for_a_submitter_who_is_gone_or_on_a_revoked_machine_is_not_approved() {
    let mut case = Case::new().await;
    let (job, _) = case.blocked(Some(APPROVAL_REQUIRED)).await;
    let (tenant, machine, token) = (case.test.tenant.id, case.machine.id, case.bob.token);
    let store = case.test.host.store.clone();
    store
        .write(move |conn| tokens::revoke(conn, tenant, token, NOW))
        .await
        .expect("revokes");
    let gone = case.approve(&case.carol, job).await;
    assert!(matches!(gone, Err(ApproveError::Submitter(_))), "{gone:?}");

    let (erin, _) = case.test.operator("erin", Permission::ALL).await;
    case.bob = erin;
    let (job, _) = case.blocked(Some(APPROVAL_REQUIRED)).await;
    store
        .write(move |conn| crate::store::machines::revoke(conn, tenant, machine, NOW))
        .await
        .expect("revokes");
    let gone = case.approve(&case.carol, job).await;
    assert!(
        matches!(&gone, Err(ApproveError::Gone(name)) if name == "web-1"),
        "{gone:?}"
    );
}

#[tokio::test]
async fn of_two_who_approve_at_once_one_does() {
    let mut case = Case::new().await;
    let (job, _) = case.blocked(Some(APPROVAL_REQUIRED)).await;
    let (dora, _) = case.test.operator("dora", &[Permission::ApproveJobs]).await;
    let (one, other) = tokio::join!(case.approve(&case.carol, job), case.approve(&dora, job));
    assert_eq!(
        [&one, &other].iter().filter(|made| made.is_ok()).count(),
        1,
        "{one:?} {other:?}"
    );
    assert_eq!(case.jobs(), 2);
    case.sent();
    assert!(case.inbox.deliveries.try_recv().is_err());
}

#[test]
fn a_change_of_what_would_run_is_noticed() {
    use std::collections::HashMap;

    use sluice_protocol::ids::OperationId;

    use crate::store::machines::MachineRow;
    let id = MachineId::generate();
    let row = MachineRow {
        id,
        name: "web-1".to_owned(),
        enrolled: NOW,
        last_seen: None,
        revoked: None,
        pending: None,
        software: None,
        facts: Vec::new(),
        gates_problems: Vec::new(),
    };
    let approval = Approval {
        approver: Actor {
            tenant: crate::store::tenants::Tenant {
                id: sluice_protocol::ids::TenantId::generate(),
                name: "default".to_owned(),
            },
            standing: operators::Standing::Own(crate::store::tenants::TenantKind::Provider),
            token: Uuid::now_v7(),
            operator: Uuid::now_v7(),
            name: "carol".to_owned(),
            rights: operators::Rights::default(),
            source: "test".to_owned(),
        },
        job: JobId::generate(),
        blocked: HashMap::from([(
            id,
            Blocked {
                operation: OperationId::generate(),
                bundle_sha256: Digest::of(b"b"),
            },
        )]),
    };
    let targets = [Target::Machine(Box::new(row))];
    let plan = |bytes: &[u8]| {
        [preflight::Plan {
            bundle_sha256: Some(Digest::of(bytes)),
            ended: None,
            worst: None,
            found: std::sync::Arc::default(),
        }]
    };
    assert_eq!(approval.differs(&targets, &plan(b"b")), None);
    assert_eq!(
        approval.differs(&targets, &plan(b"c")),
        Some(("web-1", Digest::of(b"c")))
    );
}
