//! `/v1/bindings`

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use sluice_api_types::binding::{Binding, BindingRevision, CreateBinding};
use sluice_api_types::job::Tag;
use sluice_api_types::page::{Page, PageQuery};
use sluice_protocol::gates::{Setting, SettingValue};
use sluice_protocol::ids::BindingId;
use sluice_protocol::script::Language;

use super::Refusal;
use super::auth::{Operator, allow, own_tenant, recorded};
use super::extract::{Answer, Body, Path, Query, uninterrupted};
use crate::fleet;
use crate::host::SharedHost;
use crate::operators::{Actor, Permission};
use crate::plugins::{self, NewBinding};
use crate::store::bindings::{self, BindingRow, RevisionRow, RevisionState};
use crate::store::{Extent, StoreError};

/// Puts a plugin to use on machines, or changes how it is: one that is there is replaced at once, and stays where the new
/// revision cannot be put to use. Needs `ManagePlugins`; where a gate that blocks would keep less, `Administer` too.
#[utoipa::path(post, path = "/v1/bindings", request_body = CreateBinding, responses(
    (status = 201, description = "A new binding", body = Binding),
    (status = 200, description = "The next revision of a binding", body = Binding),
))]
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
        if request.languages.contains(&Language::Unknown) {
            return Err(Refusal::invalid(
                "a binding names languages that are known; scripts in others are always among those that it is about",
            ));
        }
        let new = NewBinding {
            plugin: request.plugin,
            binding: request.binding,
            settings: request.settings,
            mode: request.mode,
            limits: request.limits,
            tags: tags.map_err(|error| Refusal::invalid(error.to_string()))?,
            languages: distinct(request.languages),
            position: request.position,
        };
        let bound = plugins::bind(&host, &actor, new, host.clock.now()).await;
        let row = recorded(&host, &actor, bound, "weaken a gate").await?;
        let status = if row.revision == 1 {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        Ok((status, Answer(shown(&actor, row, None))))
    })
    .await
}

/// Lists bindings, in the order of their positions, then the oldest first. Needs `ReadPlugins`.
#[utoipa::path(get, path = "/v1/bindings", params(PageQuery), responses((status = 200, body = Page<Binding>)))]
pub(super) async fn list_bindings(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Page<Binding>>, Refusal> {
    allow(&host, &actor, Permission::ReadPlugins, "list bindings").await?;
    own_tenant(&actor, query.tenant.as_deref())?;
    // All of them are one page: their number has a limit.
    let items = host.store.read(|conn| {
        let rows = bindings::list(conn, actor.tenant.id)?;
        let items = rows.into_iter().map(|row| {
            let last = bindings::revisions(conn, actor.tenant.id, row.id, 1)?.pop();
            Ok(shown(&actor, row, last))
        });
        items.collect::<Result<_, StoreError>>()
    })?;
    Ok(Answer(Page { items, next: None }))
}

/// Lists the revisions of a binding, also of one that was ended, the newest first. Needs `ReadPlugins`.
#[utoipa::path(get, path = "/v1/bindings/{binding}/revisions", params(("binding" = String, Path), PageQuery), responses((status = 200, body = Page<BindingRevision>)))]
pub(super) async fn list_revisions(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(binding): Path,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Page<BindingRevision>>, Refusal> {
    allow(&host, &actor, Permission::ReadPlugins, "list revisions").await?;
    own_tenant(&actor, query.tenant.as_deref())?;
    let id = parse(&binding)?;
    let rows = host
        .store
        .look(Extent::of_rows(REVISIONS as usize), move |conn| {
            bindings::revisions(conn, actor.tenant.id, id, REVISIONS)
        })
        .await?;
    if rows.is_empty() {
        return Err(no_binding(&binding));
    }
    Ok(Answer(Page {
        items: rows.into_iter().map(revision).collect(),
        next: None,
    }))
}

/// Takes a plugin out of use. Needs `ManagePlugins`; where it blocks, `Administer` too.
#[utoipa::path(delete, path = "/v1/bindings/{binding}", params(("binding" = String, Path)), responses((status = 204)))]
pub(super) async fn remove_binding(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(binding): Path,
) -> Result<StatusCode, Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::ManagePlugins, "unbind a plugin").await?;
        let id = parse(&binding)?;
        let unbound = plugins::unbind(&host, &actor, id, host.clock.now()).await;
        recorded(&host, &actor, unbound, "end a gate that blocks").await?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

/// The most revisions that are listed.
const REVISIONS: u32 = 200;

fn parse(binding: &str) -> Result<BindingId, Refusal> {
    binding.parse().map_err(|_| no_binding(binding))
}

fn no_binding(binding: &str) -> Refusal {
    Refusal::not_found(
        "binding-not-found",
        format!("there is no binding {}", binding.escape_debug()),
    )
}

fn distinct(languages: Vec<Language>) -> Vec<Language> {
    let known = Language::KNOWN.iter().copied();
    known.filter(|one| languages.contains(one)).collect()
}

fn revision(row: RevisionRow) -> BindingRevision {
    BindingRevision {
        revision: row.revision,
        state: row.state.as_str().to_owned(),
        version: row.version,
        sha256: row.component,
        mode: row.mode,
        created_by: row.created_by,
        created_at: row.created.to_string(),
        reason: row.state.reason().map(str::to_owned),
    }
}

/// A binding, and the last of its revisions where that is not the one in force.
fn shown(actor: &Actor, row: BindingRow, last: Option<RevisionRow>) -> Binding {
    let failed = last.filter(|last| matches!(last.state, RevisionState::Failed(_)));
    let state = match failed {
        Some(last) => format!("active; revision {} failed", last.revision),
        None => "active".to_owned(),
    };
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
        languages: row.languages,
        limits: row.limits,
        position: row.position,
        revision: row.revision,
        state,
        bound_at: row.created.to_string(),
        revised_at: row.revised.to_string(),
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
