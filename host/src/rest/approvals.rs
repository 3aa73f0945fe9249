//! `/v1/approval-policy` and `/v1/standing-approvals`

use axum::extract::State;
use axum::http::StatusCode;
use sluice_api_types::approval::{
    AddStandingApproval, ApprovalPolicy, SetApprovalPolicy, StandingApproval,
};
use sluice_api_types::page::{Page, PageQuery};
use uuid::Uuid;

use super::Refusal;
use super::auth::{Operator, allow, own_tenant};
use super::extract::{Answer, Body, Path, Query, limit, next, uninterrupted};
use crate::approvals::{self, Policy, Rule, StandingError};
use crate::host::SharedHost;
use crate::operators::{Actor, Permission};
use crate::store::approval_policies::{self, PolicyRow};
use crate::store::standing_approvals::{self as store, StandingRow};
use crate::store::{Connection, StoreError};

/// From when jobs wait for other operators. Needs `ReadJobs`.
#[utoipa::path(get, path = "/v1/approval-policy", responses((status = 200, body = ApprovalPolicy)))]
pub(super) async fn get_approval_policy(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
) -> Result<Answer<ApprovalPolicy>, Refusal> {
    allow(
        &host,
        &actor,
        Permission::ReadJobs,
        "read the approval policy",
    )
    .await?;
    let row = host
        .store
        .read(|conn| approval_policies::current(conn, actor.tenant.id))?;
    Ok(Answer(policy(&actor, row)))
}

/// Sets it, for what is submitted from then on. Needs `Administer`.
#[utoipa::path(put, path = "/v1/approval-policy", request_body = SetApprovalPolicy, responses((status = 200, body = ApprovalPolicy)))]
pub(super) async fn set_approval_policy(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Body(request): Body<SetApprovalPolicy>,
) -> Result<Answer<ApprovalPolicy>, Refusal> {
    uninterrupted(async move {
        allow(
            &host,
            &actor,
            Permission::Administer,
            "set the approval policy",
        )
        .await?;
        own_tenant(&actor, request.tenant.as_deref())?;
        let row = approvals::set_policy(&host, &actor, &request, host.clock.now()).await?;
        Ok(Answer(policy(&actor, Some(row))))
    })
    .await
}

/// What it was, the last revision first. Needs `ReadJobs`.
#[utoipa::path(get, path = "/v1/approval-policy/revisions", params(PageQuery), responses((status = 200, body = Page<ApprovalPolicy>)))]
pub(super) async fn list_policy_revisions(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Page<ApprovalPolicy>>, Refusal> {
    allow(
        &host,
        &actor,
        Permission::ReadJobs,
        "read the approval policy",
    )
    .await?;
    own_tenant(&actor, query.tenant.as_deref())?;
    let before = query
        .after
        .map(|text| text.parse())
        .transpose()
        .map_err(|error| Refusal::invalid(format!("after: {error}")))?;
    let (tenant, limit) = (actor.tenant.id, limit(query.limit)?);
    let rows = host
        .store
        .scan(move |conn| approval_policies::list(conn, tenant, before, limit))
        .await?;
    let next = next(&rows, limit, |row| row.revision.to_string());
    let items = rows.into_iter().map(|row| policy(&actor, Some(row)));
    Ok(Answer(Page {
        items: items.collect(),
        next,
    }))
}

fn policy(actor: &Actor, row: Option<PolicyRow>) -> ApprovalPolicy {
    let (revision, changed) = match &row {
        Some(row) => (
            row.revision,
            Some((row.changed.to_string(), row.changed_by.clone())),
        ),
        None => (0, None),
    };
    let policy = row.map_or_else(Policy::default, |row| row.policy);
    let (changed_at, changed_by) = changed.unzip();
    ApprovalPolicy {
        tenant: actor.tenant.name.clone(),
        revision,
        expires: policy.expires,
        rules: policy.rules.iter().map(Rule::shown).collect(),
        changed_at,
        changed_by,
    }
}

/// What is approved in advance and counts, the oldest first. Needs `ReadJobs`.
#[utoipa::path(get, path = "/v1/standing-approvals", params(PageQuery), responses((status = 200, body = Page<StandingApproval>)))]
pub(super) async fn list_standing_approvals(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Page<StandingApproval>>, Refusal> {
    allow(
        &host,
        &actor,
        Permission::ReadJobs,
        "list standing approvals",
    )
    .await?;
    own_tenant(&actor, query.tenant.as_deref())?;
    // There are few, so they are one page.
    let (tenant, asked) = (actor.tenant.id, actor.clone());
    let now = host.clock.now();
    let items = host
        .store
        .scan(move |conn| {
            let rows = store::good(conn, tenant, None, now)?;
            let shown = rows.into_iter().map(|row| standing(conn, &asked, row));
            shown.collect::<Result<Vec<_>, StoreError>>()
        })
        .await?;
    Ok(Answer(Page { items, next: None }))
}

/// Approves in advance what jobs of others may do. It counts where it has as many approvers, other than the job's submitter,
/// as the approval policy asks for. Needs `ApproveJobs`, and on the machines of a job when it counts.
#[utoipa::path(post, path = "/v1/standing-approvals", request_body = AddStandingApproval, responses((status = 201, body = StandingApproval)))]
pub(super) async fn add_standing_approval(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Body(request): Body<AddStandingApproval>,
) -> Result<(StatusCode, Answer<StandingApproval>), Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::ApproveJobs, "approve in advance").await?;
        own_tenant(&actor, request.tenant.as_deref())?;
        let row = approvals::add(&host, &actor, request, host.clock.now()).await?;
        let shown = host.store.read(|conn| standing(conn, &actor, row))?;
        Ok((StatusCode::CREATED, Answer(shown)))
    })
    .await
}

/// Approves what somebody else has approved in advance, too. Needs `ApproveJobs`.
#[utoipa::path(
    post, path = "/v1/standing-approvals/{standing}/approve", params(("standing" = String, Path)),
    responses((status = 200, body = StandingApproval))
)]
pub(super) async fn approve_standing_approval(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(id): Path,
) -> Result<Answer<StandingApproval>, Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::ApproveJobs, "approve in advance").await?;
        let now = host.clock.now();
        let row = approvals::approve(&host, &actor, standing_id(&id)?, now).await?;
        Ok(Answer(host.store.read(|conn| standing(conn, &actor, row))?))
    })
    .await
}

/// Revokes one: no job that is submitted from then on fits it. Needs `ApproveJobs`.
#[utoipa::path(delete, path = "/v1/standing-approvals/{standing}", params(("standing" = String, Path)), responses((status = 204)))]
pub(super) async fn revoke_standing_approval(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(id): Path,
) -> Result<StatusCode, Refusal> {
    uninterrupted(async move {
        allow(
            &host,
            &actor,
            Permission::ApproveJobs,
            "revoke a standing approval",
        )
        .await?;
        approvals::revoke(&host, &actor, standing_id(&id)?, host.clock.now()).await?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

/// What is no id is no standing approval's.
fn standing_id(text: &str) -> Result<Uuid, StandingError> {
    Uuid::try_parse(text).map_err(|_| StandingError::NoStanding(text.to_owned()))
}

fn standing(
    conn: &Connection,
    actor: &Actor,
    row: StandingRow,
) -> Result<StandingApproval, StoreError> {
    let approvers = store::approvers(conn, actor.tenant.id, row.id)?;
    let what = row.standing;
    Ok(StandingApproval {
        id: row.id.to_string(),
        tenant: actor.tenant.name.clone(),
        script_sha256: what.script_sha256,
        script: what.script.map(Into::into),
        run_as: what.run_as,
        parameters: what.parameters,
        tags: what.tags.iter().map(ToString::to_string).collect(),
        targets: what.targets,
        approvers: approvers.into_iter().map(|one| one.name).collect(),
        created_at: row.created.to_string(),
        until: row.until.to_string(),
    })
}
