//! `/v1/publishers`

use axum::extract::State;
use axum::http::StatusCode;
use sluice_api_types::page::{Page, PageQuery};
use sluice_api_types::publisher::{Publisher, TrustPublisher};

use super::Refusal;
use super::auth::{Operator, allow, own_tenant};
use super::extract::{Answer, Body, Path, Query, uninterrupted};
use crate::host::SharedHost;
use crate::operators::{Actor, Permission};
use crate::plugins;
use crate::store::publishers::{self, PublisherRow};

/// Trusts a publisher: plugins that it signed may be installed. Needs `ManagePlugins`.
#[utoipa::path(post, path = "/v1/publishers", request_body = TrustPublisher, responses((status = 201, body = Publisher)))]
pub(super) async fn trust_publisher(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Body(request): Body<TrustPublisher>,
) -> Result<(StatusCode, Answer<Publisher>), Refusal> {
    uninterrupted(async move {
        allow(
            &host,
            &actor,
            Permission::ManagePlugins,
            "trust a publisher",
        )
        .await?;
        own_tenant(&actor, request.tenant.as_deref())?;
        let row = plugins::trust(&host, &actor, &request.key, host.clock.now()).await?;
        Ok((StatusCode::CREATED, Answer(shown(&actor, row))))
    })
    .await
}

/// Trusts a publisher no more. What it signed stays installed and bound. Needs `ManagePlugins`.
#[utoipa::path(delete, path = "/v1/publishers/{key}", params(("key" = String, Path)), responses((status = 204)))]
pub(super) async fn untrust_publisher(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(key): Path,
) -> Result<StatusCode, Refusal> {
    uninterrupted(async move {
        allow(
            &host,
            &actor,
            Permission::ManagePlugins,
            "stop trusting a publisher",
        )
        .await?;
        plugins::untrust(&host, &actor, &key, host.clock.now()).await?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

/// Lists trusted publishers. Needs `ReadPlugins`.
#[utoipa::path(get, path = "/v1/publishers", params(PageQuery), responses((status = 200, body = Page<Publisher>)))]
pub(super) async fn list_publishers(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Page<Publisher>>, Refusal> {
    allow(&host, &actor, Permission::ReadPlugins, "list publishers").await?;
    own_tenant(&actor, query.tenant.as_deref())?;
    let rows = host
        .store
        .read(|conn| publishers::list(conn, actor.tenant.id))?;
    // All of them are one page: a tenant trusts a few.
    let items = rows.into_iter().map(|row| shown(&actor, row)).collect();
    Ok(Answer(Page { items, next: None }))
}

fn shown(actor: &Actor, row: PublisherRow) -> Publisher {
    Publisher {
        key: row.key,
        tenant: actor.tenant.name.clone(),
        operator: row.created_by,
        trusted_at: row.created.to_string(),
    }
}
