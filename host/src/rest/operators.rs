//! `/v1/operators`

use axum::extract::State;
use axum::http::StatusCode;
use sluice_api_types::operator::{CreateOperator, Operator as Shown, PatchOperator};
use sluice_api_types::page::{Page, PageQuery};

use super::Refusal;
use super::auth::{Operator, allow, own_tenant, recorded};
use super::extract::{Answer, Body, Path, Query, uninterrupted};
use crate::host::SharedHost;
use crate::operators::{self, Actor, Permission, Permissions};
use crate::store::operators::{self as store, OperatorRow};

/// Makes an operator, who has no token yet. What their roles give, their maker must have without conditions. Needs
/// `Administer`.
#[utoipa::path(post, path = "/v1/operators", request_body = CreateOperator, responses((status = 201, body = Shown)))]
pub(super) async fn create_operator(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Body(request): Body<CreateOperator>,
) -> Result<(StatusCode, Answer<Shown>), Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::Administer, "make an operator").await?;
        own_tenant(&actor, request.tenant.as_deref())?;
        let now = host.clock.now();
        let made = operators::add(&host, &actor, request.name, request.roles, now).await;
        let row = recorded(&host, &actor, made, "make an operator with it").await?;
        Ok((StatusCode::CREATED, Answer(shown(&actor, row))))
    })
    .await
}

/// Lists operators by name. Needs `Administer`.
#[utoipa::path(get, path = "/v1/operators", params(PageQuery), responses((status = 200, body = Page<Shown>)))]
pub(super) async fn list_operators(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Page<Shown>>, Refusal> {
    allow(&host, &actor, Permission::Administer, "list operators").await?;
    own_tenant(&actor, query.tenant.as_deref())?;
    let tenant = actor.tenant.id;
    let rows = host
        .store
        .scan(move |conn| store::list(conn, tenant))
        .await?;
    let items = rows.into_iter().map(|row| shown(&actor, row)).collect();
    Ok(Answer(Page { items, next: None }))
}

/// Gives an operator other roles in place of those that they have. Needs `Administer`.
#[utoipa::path(
    patch, path = "/v1/operators/{operator}", params(("operator" = String, Path)), request_body = PatchOperator,
    responses((status = 200, body = Shown))
)]
pub(super) async fn patch_operator(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(operator): Path,
    Body(request): Body<PatchOperator>,
) -> Result<Answer<Shown>, Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::Administer, "change an operator").await?;
        let now = host.clock.now();
        let changed = operators::set_roles(&host, &actor, operator, request.roles, now).await;
        let row = recorded(&host, &actor, changed, "change an operator's roles").await?;
        Ok(Answer(shown(&actor, row)))
    })
    .await
}

/// Removes an operator with all of their tokens. Needs `Administer`.
#[utoipa::path(delete, path = "/v1/operators/{operator}", params(("operator" = String, Path)), responses((status = 204)))]
pub(super) async fn remove_operator(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(operator): Path,
) -> Result<StatusCode, Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::Administer, "remove an operator").await?;
        operators::remove(&host, &actor, operator, host.clock.now()).await?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

fn shown(actor: &Actor, row: OperatorRow) -> Shown {
    let permissions = row.grants.permissions;
    Shown {
        id: row.id.to_string(),
        name: row.name,
        tenant: actor.tenant.name.clone(),
        roles: row.grants.roles,
        permissions: permissions.map_or_else(Vec::new, Permissions::words),
        created_at: row.created.to_string(),
    }
}
