//! `/v1/secrets`: no route gives a value back.

use axum::extract::State;
use axum::http::StatusCode;
use sluice_api_types::page::{Page, PageQuery};
use sluice_api_types::secret::{Secret, SetSecret};
use zeroize::Zeroizing;

use super::Refusal;
use super::auth::{Operator, allow, own_tenant};
use super::extract::{Answer, Body, Path, Query, uninterrupted};
use crate::host::SharedHost;
use crate::operators::{Actor, Permission};
use crate::secrets::{self, Change};
use crate::store::secrets::{SecretRow, list};

/// Gives a secret a value, whether there is one of this name or not. Needs `ManageSecrets`.
#[utoipa::path(put, path = "/v1/secrets/{name}", params(("name" = String, Path)), request_body = SetSecret, responses((status = 200, body = Secret)))]
pub(super) async fn set_secret(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(name): Path,
    Body(request): Body<SetSecret>,
) -> Result<Answer<Secret>, Refusal> {
    change(host, actor, name, request, Change::Set).await
}

/// Gives a secret another value. Needs `ManageSecrets`.
#[utoipa::path(post, path = "/v1/secrets/{name}/rotate", params(("name" = String, Path)), request_body = SetSecret, responses((status = 200, body = Secret)))]
pub(super) async fn rotate_secret(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(name): Path,
    Body(request): Body<SetSecret>,
) -> Result<Answer<Secret>, Refusal> {
    change(host, actor, name, request, Change::Rotate).await
}

async fn change(
    host: SharedHost,
    actor: Actor,
    name: String,
    request: SetSecret,
    change: Change,
) -> Result<Answer<Secret>, Refusal> {
    let value = Zeroizing::new(request.value.0);
    uninterrupted(async move {
        allow(&host, &actor, Permission::ManageSecrets, "set a secret").await?;
        own_tenant(&actor, request.tenant.as_deref())?;
        let row = secrets::set(&host, &actor, &name, value, change, host.clock.now()).await?;
        Ok(Answer(shown(&actor, row)))
    })
    .await
}

/// Erases the value of a secret, also where it waits for a machine. Needs `ManageSecrets`.
#[utoipa::path(delete, path = "/v1/secrets/{name}", params(("name" = String, Path)), responses((status = 204)))]
pub(super) async fn revoke_secret(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(name): Path,
) -> Result<StatusCode, Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::ManageSecrets, "revoke a secret").await?;
        secrets::revoke(&host, &actor, &name, host.clock.now()).await?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

/// Lists secrets by name, without their values. Needs `UseSecret` or `ManageSecrets`.
#[utoipa::path(get, path = "/v1/secrets", params(PageQuery), responses((status = 200, body = Page<Secret>)))]
pub(super) async fn list_secrets(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Page<Secret>>, Refusal> {
    if actor.require(Permission::ManageSecrets).is_err() {
        allow(&host, &actor, Permission::UseSecret, "list secrets").await?;
    }
    own_tenant(&actor, query.tenant.as_deref())?;
    let tenant = actor.tenant.id;
    let rows = host.store.scan(move |conn| list(conn, tenant)).await?;
    // All of them are one page: there is a limit to their number.
    let items = rows.into_iter().map(|row| shown(&actor, row)).collect();
    Ok(Answer(Page { items, next: None }))
}

fn shown(actor: &Actor, row: SecretRow) -> Secret {
    Secret {
        name: row.name,
        tenant: actor.tenant.name.clone(),
        version: row.version,
        operator: row.changed_by,
        created_at: row.created.to_string(),
        changed_at: row.changed.to_string(),
        revoked: row.revoked.is_some(),
    }
}
