//! `/v1/roles`

use axum::extract::State;
use axum::http::StatusCode;
use sluice_api_types::page::{Page, PageQuery};
use sluice_api_types::role::{Role as Shown, SetRole};

use super::Refusal;
use super::auth::{Operator, allow, own_tenant, recorded};
use super::extract::{Answer, Body, Path, Query, uninterrupted};
use crate::host::SharedHost;
use crate::operators::{self, Actor, Permission, Role, SHIPPED};
use crate::store::StoreError;
use crate::store::roles::{self as store, RoleRow};

/// Lists roles: those that every host has, and the tenant's own by name. Needs `Administer`.
#[utoipa::path(get, path = "/v1/roles", params(PageQuery), responses((status = 200, body = Page<Shown>)))]
pub(super) async fn list_roles(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Page<Shown>>, Refusal> {
    allow(&host, &actor, Permission::Administer, "list roles").await?;
    own_tenant(&actor, query.tenant.as_deref())?;
    let tenant = actor.tenant.id;
    let rows = host
        .store
        .scan(move |conn| store::list(conn, tenant))
        .await?;
    let mut items = SHIPPED
        .iter()
        .map(|(name, policy)| shipped(&actor, name, policy))
        .collect::<Result<Vec<_>, _>>()?;
    for row in rows {
        items.push(shown(&actor, row)?);
    }
    Ok(Answer(Page { items, next: None }))
}

/// A role with its policies. Needs `Administer`.
#[utoipa::path(get, path = "/v1/roles/{role}", params(("role" = String, Path)), responses((status = 200, body = Shown)))]
pub(super) async fn get_role(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(role): Path,
) -> Result<Answer<Shown>, Refusal> {
    allow(&host, &actor, Permission::Administer, "read a role").await?;
    if let Some((name, policy)) = SHIPPED.iter().find(|(name, _)| *name == role) {
        return Ok(Answer(shipped(&actor, name, policy)?));
    }
    let row = host
        .store
        .read(|conn| store::find(conn, actor.tenant.id, &role))?;
    match row {
        Some(row) => Ok(Answer(shown(&actor, row)?)),
        None => Err(Refusal::not_found(
            "role-not-found",
            format!(
                "there is no role {} (sluice role list)",
                role.escape_debug()
            ),
        )),
    }
}

/// Makes a role of the tenant's own, or gives one of this name other policies. They are checked against the schema. What
/// they give, whoever sets them must have without conditions, and what they forbade before as well. Needs `Administer`.
#[utoipa::path(
    put, path = "/v1/roles/{role}", params(("role" = String, Path)), request_body = SetRole,
    responses((status = 200, body = Shown))
)]
pub(super) async fn set_role(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(role): Path,
    Body(request): Body<SetRole>,
) -> Result<Answer<Shown>, Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::Administer, "set a role").await?;
        own_tenant(&actor, request.tenant.as_deref())?;
        let now = host.clock.now();
        let set = operators::put_role(&host, &actor, &role, request.policy, now).await;
        let row = recorded(&host, &actor, set, "set a role with it").await?;
        Ok(Answer(shown(&actor, row)?))
    })
    .await
}

/// Removes a role of the tenant's own that nobody has. Needs `Administer`.
#[utoipa::path(delete, path = "/v1/roles/{role}", params(("role" = String, Path)), responses((status = 204)))]
pub(super) async fn remove_role(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(role): Path,
) -> Result<StatusCode, Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::Administer, "remove a role").await?;
        operators::remove_role(&host, &actor, role, host.clock.now()).await?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

fn shown(actor: &Actor, row: RoleRow) -> Result<Shown, StoreError> {
    let changed = (row.changed.to_string(), row.changed_by);
    described(actor, &row.name, row.policy, Some(changed))
}

fn shipped(actor: &Actor, name: &str, policy: &str) -> Result<Shown, StoreError> {
    described(actor, name, policy.to_owned(), None)
}

fn described(
    actor: &Actor,
    name: &str,
    policy: String,
    changed: Option<(String, String)>,
) -> Result<Shown, StoreError> {
    let role = name.parse().and_then(|name| Role::read(name, &policy));
    let role = role.map_err(|error| StoreError::Corrupt(format!("role {name}: {error}")))?;
    let (changed_at, changed_by) = changed.unzip();
    Ok(Shown {
        name: name.to_owned(),
        tenant: actor.tenant.name.clone(),
        shipped: changed_at.is_none(),
        gives: role.gives().words(),
        forbids: role.forbids().words(),
        policy,
        changed_at,
        changed_by,
    })
}
