//! `/v1/plugins`

use axum::extract::State;
use axum::http::StatusCode;
use sluice_api_types::page::{Page, PageQuery};
use sluice_api_types::plugin::{InstallPlugin, Plugin};

use super::Refusal;
use super::auth::{Operator, allow, own_tenant};
use super::extract::{Answer, Body, Query, uninterrupted};
use crate::host::SharedHost;
use crate::operators::{Actor, Permission};
use crate::plugins;
use crate::store::plugins::{self as store, PluginRow};

/// The largest request: a component of 32 MiB in base64, and its signature.
pub(super) const BODY: usize = 44 << 20;

/// Installs a plugin that a trusted publisher signed. Needs `ManagePlugins`.
#[utoipa::path(post, path = "/v1/plugins", request_body = InstallPlugin, responses((status = 201, body = Plugin)))]
pub(super) async fn install_plugin(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Body(request): Body<InstallPlugin>,
) -> Result<(StatusCode, Answer<Plugin>), Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::ManagePlugins, "install a plugin").await?;
        own_tenant(&actor, request.tenant.as_deref())?;
        let installed = plugins::install(
            &host,
            &actor,
            request.component.0,
            request.signature.0,
            host.clock.now(),
        )
        .await?;
        Ok((StatusCode::CREATED, Answer(shown(&actor, installed.row))))
    })
    .await
}

/// Lists installed plugins. Needs `ReadPlugins`.
#[utoipa::path(get, path = "/v1/plugins", params(PageQuery), responses((status = 200, body = Page<Plugin>)))]
pub(super) async fn list_plugins(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Page<Plugin>>, Refusal> {
    allow(&host, &actor, Permission::ReadPlugins, "list plugins").await?;
    own_tenant(&actor, query.tenant.as_deref())?;
    let tenant = actor.tenant.id;
    let rows = host
        .store
        .scan(move |conn| store::list(conn, tenant))
        .await?;
    // All of them are one page: a tenant has a few.
    Ok(Answer(Page {
        items: rows.into_iter().map(|row| shown(&actor, row)).collect(),
        next: None,
    }))
}

fn shown(actor: &Actor, row: PluginRow) -> Plugin {
    Plugin {
        sha256: row.sha256,
        id: row.id,
        version: row.version,
        vendor: row.vendor,
        world: plugins::interface(&row.world),
        publisher: row.publisher,
        size: row.size,
        tenant: actor.tenant.name.clone(),
        installed_at: row.installed.to_string(),
    }
}
