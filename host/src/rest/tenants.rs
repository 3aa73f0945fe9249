//! `/v1/tenants` and `/v1/provider-access`

use axum::extract::State;
use axum::http::StatusCode;
use sluice_api_types::page::{Page, PageQuery};
use sluice_api_types::tenant::{
    Access, CreateTenant, PatchTenant, SetProviderAccess, Tenant, TenantKind,
};

use super::auth::{Operator, allow, recorded};
use super::extract::{Answer, Body, Path, Query, uninterrupted};
use super::{Refusal, grants};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::operators::{Actor, Permission};
use crate::provider;
use crate::store::grants as grant_store;
use crate::store::tenants::{self as store, ProviderAccess, TenantRow};
use crate::store::{Connection, StoreError};

/// Lists the tenants that the operator sees: their own and those in which they have a grant; all for the provider's
/// administrators.
#[utoipa::path(get, path = "/v1/tenants", params(PageQuery), responses((status = 200, body = Page<Tenant>)))]
pub(super) async fn list_tenants(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Query(_): Query<PageQuery>,
) -> Result<Answer<Page<Tenant>>, Refusal> {
    let now = host.clock.now();
    let items = host.store.scan(move |conn| seen(conn, &actor, now)).await?;
    Ok(Answer(Page { items, next: None }))
}

/// A tenant that the operator sees.
#[utoipa::path(get, path = "/v1/tenants/{tenant}", params(("tenant" = String, Path)), responses((status = 200, body = Tenant)))]
pub(super) async fn get_tenant(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(tenant): Path,
) -> Result<Answer<Tenant>, Refusal> {
    let now = host.clock.now();
    let seen = host.store.scan(move |conn| seen(conn, &actor, now)).await?;
    let found = seen.into_iter().find(|seen| seen.name == tenant);
    Ok(Answer(found.ok_or_else(|| Refusal::no_tenant(&tenant))?))
}

/// Makes a tenant, in which nobody may do anything until there is a grant. Needs `Administer`, of the provider.
#[utoipa::path(post, path = "/v1/tenants", request_body = CreateTenant, responses((status = 201, body = Tenant)))]
pub(super) async fn create_tenant(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Body(request): Body<CreateTenant>,
) -> Result<(StatusCode, Answer<Tenant>), Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::Administer, "make a tenant").await?;
        let row = provider::create(&host, &actor, &request.name, host.clock.now()).await?;
        Ok((StatusCode::CREATED, Answer(shown(&host, &actor, row)?)))
    })
    .await
}

/// Gives a tenant another name. Needs `Administer`, of the provider.
#[utoipa::path(
    patch, path = "/v1/tenants/{tenant}", params(("tenant" = String, Path)), request_body = PatchTenant,
    responses((status = 200, body = Tenant))
)]
pub(super) async fn patch_tenant(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(tenant): Path,
    Body(request): Body<PatchTenant>,
) -> Result<Answer<Tenant>, Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::Administer, "rename a tenant").await?;
        let now = host.clock.now();
        let row = provider::rename(&host, &actor, &tenant, &request.name, now).await?;
        Ok(Answer(shown(&host, &actor, row)?))
    })
    .await
}

/// Archives a tenant for good: its machines are turned away, nothing runs there any more, and what is there can be looked at and
/// nothing else. Needs `Administer`, of the provider.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/archive", params(("tenant" = String, Path)), responses((status = 200, body = Tenant))
)]
pub(super) async fn archive_tenant(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(tenant): Path,
) -> Result<Answer<Tenant>, Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::Administer, "archive a tenant").await?;
        let row = provider::archive(&host, &actor, &tenant, host.clock.now()).await?;
        Ok(Answer(shown(&host, &actor, row)?))
    })
    .await
}

/// Lets operators of the provider into the operator's own tenant by their grants, or keeps them out from the next request on.
/// Needs `Administer`, of the tenant's own and not by a grant.
#[utoipa::path(put, path = "/v1/provider-access", request_body = SetProviderAccess, responses((status = 200, body = Tenant)))]
pub(super) async fn set_provider_access(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Body(request): Body<SetProviderAccess>,
) -> Result<Answer<Tenant>, Refusal> {
    uninterrupted(async move {
        let now = host.clock.now();
        let access = match request.access {
            Access::Allowed => ProviderAccess::Allowed,
            Access::Denied => ProviderAccess::DeniedSince(now),
        };
        let set = provider::set_access(&host, &actor, access, now).await;
        recorded(&host, &actor, set, "say whether the provider is let in").await?;
        let id = actor.tenant.id;
        let row = host.store.read(|conn| store::row(conn, id))?;
        let row = row.ok_or_else(|| Refusal::no_tenant(&actor.tenant.name))?;
        Ok(Answer(shown(&host, &actor, row)?))
    })
    .await
}

fn seen(conn: &Connection, actor: &Actor, now: UnixMillis) -> Result<Vec<Tenant>, StoreError> {
    let rows = provider::visible(conn, actor, now)?.into_iter();
    rows.map(|row| described(conn, actor, row, now)).collect()
}

fn shown(host: &SharedHost, actor: &Actor, row: TenantRow) -> Result<Tenant, StoreError> {
    let now = host.clock.now();
    host.store.read(|conn| described(conn, actor, row, now))
}

fn described(
    conn: &Connection,
    actor: &Actor,
    row: TenantRow,
    now: UnixMillis,
) -> Result<Tenant, StoreError> {
    let grant = grant_store::good(conn, row.tenant.id, actor.operator, now)?;
    let grant = grant.map(|grant| grants::described(conn, actor, grant, now));
    let (provider_access, denied_since) = match row.access {
        ProviderAccess::Allowed => (Access::Allowed, None),
        ProviderAccess::DeniedSince(since) => (Access::Denied, Some(since.to_string())),
    };
    Ok(Tenant {
        id: row.tenant.id.to_string(),
        name: row.tenant.name,
        kind: match row.kind {
            store::TenantKind::Provider => TenantKind::Provider,
            store::TenantKind::Customer => TenantKind::Customer,
        },
        provider_access,
        denied_since,
        created_at: row.created.to_string(),
        archived_at: row.archived.map(|at| at.to_string()),
        grant: grant.transpose()?,
    })
}
