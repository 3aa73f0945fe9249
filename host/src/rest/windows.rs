//! `/v1/windows`

use axum::extract::State;
use axum::http::StatusCode;
use sluice_api_types::page::{Page, PageQuery};
use sluice_api_types::window::{AddWindow, Window};

use super::Refusal;
use super::auth::{Operator, allow, own_tenant, recorded};
use super::extract::{Answer, Body, Path, Query, uninterrupted};
use crate::host::SharedHost;
use crate::operators::Permission;
use crate::store::windows as store;
use crate::windows;

/// Lists maintenance windows, by name. Needs `ReadJobs`.
#[utoipa::path(get, path = "/v1/windows", params(PageQuery), responses((status = 200, body = Page<Window>)))]
pub(super) async fn list_windows(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Page<Window>>, Refusal> {
    allow(&host, &actor, Permission::ReadJobs, "list windows").await?;
    own_tenant(&actor, query.tenant.as_deref())?;
    let now = host.clock.now();
    let items = host
        .store
        .scan(move |conn| {
            store::list(conn, actor.tenant.id)?
                .into_iter()
                .map(|row| windows::show(conn, &actor, row, now))
                .collect::<Result<Vec<_>, _>>()
        })
        .await?;
    // There are few, so that they are one page.
    Ok(Answer(Page { items, next: None }))
}

/// Adds a maintenance window: a time in which operations may start. Needs `ManageMachines`; for machines with tags or for all,
/// without conditions.
#[utoipa::path(post, path = "/v1/windows", request_body = AddWindow, responses((status = 201, body = Window)))]
pub(super) async fn add_window(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Body(request): Body<AddWindow>,
) -> Result<(StatusCode, Answer<Window>), Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::ManageMachines, "add a window").await?;
        own_tenant(&actor, request.tenant.as_deref())?;
        let now = host.clock.now();
        let added = windows::add(&host, &actor, request, now).await;
        let row = recorded(&host, &actor, added, "add a window").await?;
        let shown = host
            .store
            .read(|conn| windows::show(conn, &actor, row, now))?;
        Ok((StatusCode::CREATED, Answer(shown)))
    })
    .await
}

/// A maintenance window, by its name. Needs `ReadJobs`.
#[utoipa::path(get, path = "/v1/windows/{window}", params(("window" = String, Path)), responses((status = 200, body = Window)))]
pub(super) async fn get_window(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(window): Path,
) -> Result<Answer<Window>, Refusal> {
    allow(&host, &actor, Permission::ReadJobs, "read a window").await?;
    let shown = host.store.read(|conn| {
        let row = store::find(conn, actor.tenant.id, &window)?;
        row.map(|row| windows::show(conn, &actor, row, host.clock.now()))
            .transpose()
    })?;
    Ok(Answer(shown.ok_or(windows::ChangeError::NoWindow(window))?))
}

/// Removes a maintenance window: what it held on its machines starts. Jobs that asked for it wait for it all the same. Needs
/// `ManageMachines`; for machines with tags or for all, without conditions.
#[utoipa::path(delete, path = "/v1/windows/{window}", params(("window" = String, Path)), responses((status = 204)))]
pub(super) async fn remove_window(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(window): Path,
) -> Result<StatusCode, Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::ManageMachines, "remove a window").await?;
        let removed = windows::remove(&host, &actor, &window, host.clock.now()).await;
        recorded(&host, &actor, removed, "remove a window").await?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}
