//! `/v1/schedules`

use axum::extract::State;
use axum::http::StatusCode;
use sluice_api_types::page::{Page, PageQuery};
use sluice_api_types::schedule::{AddSchedule, Schedule, ScheduleRun};

use super::Refusal;
use super::auth::{Operator, allow, own_tenant};
use super::extract::{Answer, Body, Path, Query, limit, next, uninterrupted};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::operators::{Actor, Permission};
use crate::schedules;
use crate::store::schedules::{self as store, ScheduleRow, StoredTiming};
use crate::store::{StoreError, schedule_events};

/// Makes a schedule. Needs `ScheduleScript`, and what its job needs; each run needs them again.
#[utoipa::path(post, path = "/v1/schedules", request_body = AddSchedule, responses((status = 201, body = Schedule)))]
pub(super) async fn add_schedule(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Body(request): Body<AddSchedule>,
) -> Result<(StatusCode, Answer<Schedule>), Refusal> {
    uninterrupted(async move {
        let row = schedules::add(&host, &actor, request, host.clock.now()).await?;
        Ok((StatusCode::CREATED, shown(&host, &actor, row)?))
    })
    .await
}

/// Lists schedules in the order of their names. Needs `ReadJobs`.
#[utoipa::path(get, path = "/v1/schedules", params(PageQuery), responses((status = 200, body = Page<Schedule>)))]
pub(super) async fn list_schedules(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Page<Schedule>>, Refusal> {
    allow(&host, &actor, Permission::ReadJobs, "list schedules").await?;
    own_tenant(&actor, query.tenant.as_deref())?;
    let (after, limit) = (query.after.unwrap_or_default(), limit(query.limit)?);
    let now = host.clock.now();
    let items = host
        .store
        .scan(move |conn| {
            store::list(conn, actor.tenant.id, &after, limit)?
                .into_iter()
                .map(|row| schedules::show(conn, &actor, row, now))
                .collect::<Result<Vec<_>, _>>()
        })
        .await?;
    let next = next(&items, limit, |last| last.name.clone());
    Ok(Answer(Page { items, next }))
}

/// A schedule, by its name or id. Needs `ReadJobs`.
#[utoipa::path(get, path = "/v1/schedules/{schedule}", params(("schedule" = String, Path)), responses((status = 200, body = Schedule)))]
pub(super) async fn get_schedule(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(schedule): Path,
) -> Result<Answer<Schedule>, Refusal> {
    allow(&host, &actor, Permission::ReadJobs, "read a schedule").await?;
    let row = found(&host, &actor, schedule)?;
    shown(&host, &actor, row)
}

/// What became of a schedule's runs, the latest planned first. Needs `ReadJobs`.
#[utoipa::path(
    get, path = "/v1/schedules/{schedule}/runs", params(("schedule" = String, Path), PageQuery),
    responses((status = 200, body = Page<ScheduleRun>))
)]
pub(super) async fn list_runs(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(schedule): Path,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Page<ScheduleRun>>, Refusal> {
    allow(
        &host,
        &actor,
        Permission::ReadJobs,
        "list runs of a schedule",
    )
    .await?;
    own_tenant(&actor, query.tenant.as_deref())?;
    let row = found(&host, &actor, schedule)?;
    let before = query
        .after
        .map(|text| text.parse().map(UnixMillis))
        .transpose()
        .map_err(|error| Refusal::invalid(format!("after: {error}")))?;
    let limit = limit(query.limit)?;
    let (items, last) = host
        .store
        .scan(move |conn| match row.timing {
            StoredTiming::Event { .. } => {
                let rows = schedule_events::list(conn, row.id, before, limit)?;
                let last = rows.last().map(|last| last.at);
                let items: Vec<_> = rows.into_iter().map(schedules::show_event).collect();
                Ok::<_, StoreError>((items, last))
            }
            _ => {
                let rows = store::runs(conn, row.id, before, limit)?;
                let last = rows.last().map(|last| last.planned);
                Ok((rows.into_iter().map(schedules::show_run).collect(), last))
            }
        })
        .await?;
    let next = (items.len() == limit as usize)
        .then(|| last.map(|last| last.0.to_string()))
        .flatten();
    Ok(Answer(Page { items, next }))
}

/// Pauses a schedule: it does not run until it is resumed. Needs `ScheduleScript`.
#[utoipa::path(post, path = "/v1/schedules/{schedule}/pause", params(("schedule" = String, Path)), responses((status = 200, body = Schedule)))]
pub(super) async fn pause_schedule(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(schedule): Path,
) -> Result<Answer<Schedule>, Refusal> {
    uninterrupted(async move {
        allow(
            &host,
            &actor,
            Permission::ScheduleScript,
            "pause a schedule",
        )
        .await?;
        let row = schedules::pause(&host, &actor, &schedule, host.clock.now()).await?;
        shown(&host, &actor, row)
    })
    .await
}

/// Goes on with a schedule that was paused; what was planned in between is not made up for. Needs `ScheduleScript`.
#[utoipa::path(post, path = "/v1/schedules/{schedule}/resume", params(("schedule" = String, Path)), responses((status = 200, body = Schedule)))]
pub(super) async fn resume_schedule(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(schedule): Path,
) -> Result<Answer<Schedule>, Refusal> {
    uninterrupted(async move {
        allow(
            &host,
            &actor,
            Permission::ScheduleScript,
            "resume a schedule",
        )
        .await?;
        let row = schedules::resume(&host, &actor, &schedule, host.clock.now()).await?;
        shown(&host, &actor, row)
    })
    .await
}

/// Removes a schedule; jobs that it made go on. Needs `ScheduleScript`.
#[utoipa::path(delete, path = "/v1/schedules/{schedule}", params(("schedule" = String, Path)), responses((status = 204)))]
pub(super) async fn remove_schedule(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(schedule): Path,
) -> Result<StatusCode, Refusal> {
    uninterrupted(async move {
        allow(
            &host,
            &actor,
            Permission::ScheduleScript,
            "remove a schedule",
        )
        .await?;
        schedules::remove(&host, &actor, &schedule, host.clock.now()).await?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

fn found(host: &SharedHost, actor: &Actor, typed: String) -> Result<ScheduleRow, Refusal> {
    let row = host
        .store
        .read(|conn| store::find(conn, actor.tenant.id, &typed))?;
    Ok(row.ok_or(schedules::ChangeError::NoSchedule(typed))?)
}

fn shown(host: &SharedHost, actor: &Actor, row: ScheduleRow) -> Result<Answer<Schedule>, Refusal> {
    let shown = host
        .store
        .read(|conn| schedules::show(conn, actor, row, host.clock.now()))?;
    Ok(Answer(shown))
}
