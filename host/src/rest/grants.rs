//! `/v1/grants`

use axum::extract::State;
use axum::http::StatusCode;
use sluice_api_types::grant::{AddGrant, Grant, GrantQuery, GrantState};
use sluice_api_types::page::Page;

use super::Refusal;
use super::auth::{Operator, allow, recorded};
use super::extract::{Answer, Body, Path, Query, uninterrupted};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::operators::{Actor, Permission, Standing, in_others};
use crate::provider::{self, End, NewGrant};
use crate::store::grants::{self as store, GrantRow};
use crate::store::tenants::{self, ProviderAccess, TenantKind};
use crate::store::{Connection, StoreError, operators};

/// Lets an operator of the provider act in a tenant, with roles that the provider has, until it is revoked or ends by itself.
/// What the roles give, whoever grants them must have without conditions. Needs `Administer`, of the provider.
#[utoipa::path(post, path = "/v1/grants", request_body = AddGrant, responses((status = 201, body = Grant)))]
pub(super) async fn add_grant(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Body(request): Body<AddGrant>,
) -> Result<(StatusCode, Answer<Grant>), Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::Administer, "grant access").await?;
        let now = host.clock.now();
        let new = NewGrant {
            end: end(&request)?,
            operator: request.operator,
            tenant: request.granted_in,
            roles: request.roles,
        };
        let added = provider::add_grant(&host, &actor, new, now).await;
        let row = recorded(&host, &actor, added, "grant access with it").await?;
        let grant = host.store.read(|conn| described(conn, &actor, row, now))?;
        Ok((StatusCode::CREATED, Answer(grant)))
    })
    .await
}

fn end(request: &AddGrant) -> Result<End, Refusal> {
    match (&request.expires, &request.until) {
        (None, None) => Ok(End::Never),
        (Some(span), None) => Ok(End::After(*span)),
        (None, Some(text)) => {
            let time: jiff::Timestamp = text.parse().map_err(|_| {
                Refusal::invalid(
                    "until: expected a time like 2030-01-01T18:00:00Z; nothing was granted",
                )
            })?;
            Ok(End::At(UnixMillis(time.as_millisecond())))
        }
        (Some(_), Some(_)) => Err(Refusal::invalid(
            "a grant ends after a time or at one, not both; nothing was granted",
        )),
    }
}

/// Lists grants, the oldest first, with those that are over: the provider's administrators see those in all tenants, a
/// tenant's those in theirs. Needs `Administer`.
#[utoipa::path(get, path = "/v1/grants", params(GrantQuery), responses((status = 200, body = Page<Grant>)))]
pub(super) async fn list_grants(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Query(query): Query<GrantQuery>,
) -> Result<Answer<Page<Grant>>, Refusal> {
    allow(&host, &actor, Permission::Administer, "list grants").await?;
    let of = match (actor.standing, query.granted_in) {
        (Standing::Own(TenantKind::Provider), None) => None,
        (Standing::Own(TenantKind::Provider), Some(name)) => {
            let found = host
                .store
                .read(|conn| tenants::find_by_name(conn, &name))?
                .ok_or_else(|| Refusal::no_tenant(&name))?;
            Some(found.id)
        }
        (_, Some(name)) if name != actor.tenant.name => return Err(Refusal::no_tenant(&name)),
        (_, _) => Some(actor.tenant.id),
    };
    let now = host.clock.now();
    let items = host
        .store
        .scan(move |conn| {
            let rows = store::list(conn, of)?.into_iter();
            rows.map(|row| described(conn, &actor, row, now))
                .collect::<Result<_, StoreError>>()
        })
        .await?;
    Ok(Answer(Page { items, next: None }))
}

/// Takes a grant back: the operator gets into the tenant by it no more, from the next request on. Needs `Administer`, of the
/// provider.
#[utoipa::path(delete, path = "/v1/grants/{grant}", params(("grant" = String, Path)), responses((status = 204)))]
pub(super) async fn revoke_grant(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(grant): Path,
) -> Result<StatusCode, Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::Administer, "revoke a grant").await?;
        provider::revoke_grant(&host, &actor, &grant, host.clock.now()).await?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

/// A grant as somebody sees it.
pub(super) fn described(
    conn: &Connection,
    actor: &Actor,
    row: GrantRow,
    now: UnixMillis,
) -> Result<Grant, StoreError> {
    let gone = || StoreError::Corrupt("a grant of nobody, or nowhere".to_owned());
    let home = tenants::provider(conn)?.ok_or_else(gone)?;
    let operator = operators::find(conn, home.id, row.operator)?.ok_or_else(gone)?;
    let there = tenants::row(conn, row.tenant)?.ok_or_else(gone)?;
    let state = if row.revoked.is_some() {
        GrantState::Revoked
    } else if !row.is_good(now) {
        GrantState::Expired
    } else if there.access != ProviderAccess::Allowed {
        GrantState::Denied
    } else {
        GrantState::Active
    };
    let named = |name: &str| match actor.tenant.id == home.id {
        true => name.to_owned(),
        false => in_others(name),
    };
    Ok(Grant {
        grant: row.id.to_string(),
        operator: named(&operator.name),
        granted_in: there.tenant.name,
        roles: row.roles,
        state,
        created_at: row.created.to_string(),
        created_by: named(&row.created_by),
        expires_at: row.expires.map(|at| at.to_string()),
    })
}
