//! `/v1/bindings`

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use sluice_api_types::binding::{Binding, CreateBinding};
use sluice_api_types::job::Tag;
use sluice_api_types::page::{Page, PageQuery};
use sluice_protocol::gates::{Setting, SettingValue};

use super::Refusal;
use super::auth::{Operator, allow, own_tenant};
use super::extract::{Answer, Body, Path, Query, uninterrupted};
use crate::clock::UnixMillis;
use crate::fleet;
use crate::host::SharedHost;
use crate::operators::{Actor, Permission};
use crate::plugins::{self, NewBinding};
use crate::store::bindings::{self, BindingRow};

/// Puts a plugin to use on machines. Needs `ManagePlugins`.
#[utoipa::path(post, path = "/v1/bindings", request_body = CreateBinding, responses((status = 201, body = Binding)))]
pub(super) async fn create_binding(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Body(request): Body<CreateBinding>,
) -> Result<(StatusCode, Answer<Binding>), Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::ManagePlugins, "bind a plugin").await?;
        own_tenant(&actor, request.tenant.as_deref())?;
        if request.tags.len() > fleet::MAX_TAGS {
            return Err(Refusal::invalid(format!(
                "a binding names at most {} tags",
                fleet::MAX_TAGS
            )));
        }
        let tags = request
            .tags
            .iter()
            .map(|tag| fleet::parse_tag(&tag.key, &tag.value))
            .collect::<Result<_, _>>();
        let new = NewBinding {
            plugin: request.plugin,
            settings: request.settings,
            mode: request.mode,
            tags: tags.map_err(|error| Refusal::invalid(error.to_string()))?,
        };
        let row = plugins::bind(&host, &actor, new, UnixMillis::now()).await?;
        Ok((StatusCode::CREATED, Answer(shown(&actor, row))))
    })
    .await
}

/// Lists bindings, the oldest first.
#[utoipa::path(get, path = "/v1/bindings", params(PageQuery), responses((status = 200, body = Page<Binding>)))]
pub(super) async fn list_bindings(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Page<Binding>>, Refusal> {
    own_tenant(&actor, query.tenant.as_deref())?;
    let rows = host
        .store
        .read(|conn| bindings::list(conn, actor.tenant.id))?;
    // All of them are one page: their number has a limit.
    Ok(Answer(Page {
        items: rows.into_iter().map(|row| shown(&actor, row)).collect(),
        next: None,
    }))
}

/// Takes a plugin out of use. Needs `ManagePlugins`.
#[utoipa::path(delete, path = "/v1/bindings/{binding}", params(("binding" = String, Path)), responses((status = 204)))]
pub(super) async fn remove_binding(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(binding): Path,
) -> Result<StatusCode, Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::ManagePlugins, "unbind a plugin").await?;
        let id = binding.parse().map_err(|_| {
            Refusal::not_found(
                "binding-not-found",
                format!("there is no binding {}", binding.escape_debug()),
            )
        })?;
        plugins::unbind(&host, &actor, id, UnixMillis::now()).await?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

fn shown(actor: &Actor, row: BindingRow) -> Binding {
    Binding {
        id: row.id,
        plugin: row.plugin,
        version: row.version,
        sha256: row.component,
        world: plugins::interface(&row.world),
        settings: settings(row.settings),
        mode: row.mode,
        tenant: actor.tenant.name.clone(),
        tags: row
            .tags
            .into_iter()
            .map(|tag| Tag {
                key: tag.key,
                value: tag.value,
            })
            .collect(),
        bound_at: row.created.to_string(),
    }
}

fn settings(settings: Vec<Setting>) -> BTreeMap<String, serde_json::Value> {
    settings
        .into_iter()
        .map(|setting| {
            let value = match setting.value {
                SettingValue::Boolean(value) => value.into(),
                SettingValue::Integer(value) => value.into(),
                SettingValue::Decimal(value) => value.into(),
                SettingValue::Text(value) => value.into(),
                SettingValue::Texts(value) => value.into(),
            };
            (setting.key, value)
        })
        .collect()
}
