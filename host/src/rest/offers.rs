//! `/v1/offers`

use axum::extract::State;
use axum::http::StatusCode;
use sluice_api_types::offer::{AddOffer, Offer};
use sluice_api_types::page::{Page, PageQuery};

use super::Refusal;
use super::auth::{Operator, allow};
use super::extract::{Answer, Body, Path, Query, uninterrupted};
use crate::host::SharedHost;
use crate::library::VersionId;
use crate::operators::Permission;
use crate::provider::{self, ProviderError};
use crate::store::offers::{self as store, OfferRow};
use crate::store::{Connection, StoreError, scripts, tenants};

/// Offers a version of the provider's script to customers, who may run it as it is. Needs `Administer`, of the provider.
#[utoipa::path(post, path = "/v1/offers", request_body = AddOffer, responses((status = 201, body = Page<Offer>)))]
pub(super) async fn add_offer(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Body(request): Body<AddOffer>,
) -> Result<(StatusCode, Answer<Page<Offer>>), Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::Administer, "offer a script").await?;
        provider::administers(&actor)?;
        let name = request.script.parse();
        let name = name.map_err(|_| ProviderError::NoScript(request.script.clone()))?;
        let version = VersionId {
            name,
            version: request.version,
        };
        if let Some(meant) = request.script_sha256 {
            let read = |conn: &Connection| scripts::version(conn, actor.tenant.id, &version);
            let found = host.store.read(read)?;
            if found.is_none_or(|found| found.script_sha256 != meant) {
                return Err(ProviderError::NoVersion(version).into());
            }
        }
        let now = host.clock.now();
        let made = provider::add_offer(&host, &actor, version, request.to, now).await?;
        let rows = made.into_iter();
        let items = host
            .store
            .read(|conn| rows.map(|row| shown(conn, row)).collect::<Result<_, _>>())?;
        Ok((StatusCode::CREATED, Answer(Page { items, next: None })))
    })
    .await
}

/// Lists offers, the oldest first, with those that were withdrawn. Needs `Administer`, of the provider; customers see what is
/// offered to them in their library.
#[utoipa::path(get, path = "/v1/offers", params(PageQuery), responses((status = 200, body = Page<Offer>)))]
pub(super) async fn list_offers(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Query(_): Query<PageQuery>,
) -> Result<Answer<Page<Offer>>, Refusal> {
    allow(&host, &actor, Permission::Administer, "list offers").await?;
    provider::administers(&actor)?;
    let items = host
        .store
        .scan(|conn| {
            let rows = store::list(conn)?.into_iter();
            rows.map(|row| shown(conn, row))
                .collect::<Result<_, StoreError>>()
        })
        .await?;
    Ok(Answer(Page { items, next: None }))
}

/// Withdraws an offer: no job is made of the version any more by those that it was for. Needs `Administer`, of the provider.
#[utoipa::path(delete, path = "/v1/offers/{offer}", params(("offer" = String, Path)), responses((status = 204)))]
pub(super) async fn withdraw_offer(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(offer): Path,
) -> Result<StatusCode, Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::Administer, "withdraw an offer").await?;
        provider::withdraw_offer(&host, &actor, &offer, host.clock.now()).await?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

fn shown(conn: &Connection, row: OfferRow) -> Result<Offer, StoreError> {
    let to = match row.tenant {
        None => None,
        Some(id) => tenants::find(conn, id)?.map(|tenant| tenant.name),
    };
    Ok(Offer {
        offer: row.id.to_string(),
        script: row.version.name.to_string(),
        version: row.version.version,
        script_sha256: row.script_sha256,
        to,
        created_at: row.created.to_string(),
        created_by: row.created_by,
        withdrawn_at: row.withdrawn.map(|at| at.to_string()),
    })
}
