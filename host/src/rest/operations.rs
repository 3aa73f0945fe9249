//! `/v1/operations`

use axum::extract::State;
use axum::http::header;
use axum::response::{AppendHeaders, IntoResponse, Response};
use sluice_api_types::operation::{Gaps, LOST, OperationResult, OutputQuery};
use sluice_protocol::ids::OperationId;

use super::Refusal;
use super::auth::{Operator, allow};
use super::extract::{Answer, Path, Query};
use crate::host::SharedHost;
use crate::jobs;
use crate::operators::Permission;
use crate::store::{operations, output};

/// The most bytes that one request for output gets. Who wants more asks again with a later offset.
const MOST: u64 = 32 << 20;

/// Everything about an operation: the object that `sluice run --json` prints. Needs `ReadJobs`.
#[utoipa::path(get, path = "/v1/operations/{operation}", params(("operation" = String, Path)), responses((status = 200, body = OperationResult)))]
pub(super) async fn get_operation(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(operation): Path,
) -> Result<Answer<OperationResult>, Refusal> {
    allow(&host, &actor, Permission::ReadJobs, "read a result").await?;
    let (tenant, id) = (actor.tenant, id(&operation)?);
    let result = host
        .store
        .scan({
            let host = host.clone();
            move |conn| jobs::operation_with_why(conn, &host, &tenant, id)
        })
        .await?;
    Ok(Answer(result.ok_or_else(|| none(&operation))?))
}

/// Bytes of one of an operation's output streams, as they are stored. Needs `ReadJobs`.
#[utoipa::path(
    get, path = "/v1/operations/{operation}/output", params(("operation" = String, Path), OutputQuery),
    responses((
        status = 200, content_type = "application/octet-stream", body = Vec<u8>,
        headers(("sluice-lost" = String, description = "Where bytes are lost, if some are: `<stored bytes before>=<lost bytes>`, separated by commas. What is lost behind the last stored byte is in the answer without bytes."))
    ))
)]
pub(super) async fn get_output(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(operation): Path,
    Query(query): Query<OutputQuery>,
) -> Result<Response, Refusal> {
    allow(&host, &actor, Permission::ReadJobs, "read output").await?;
    let (tenant, id) = (actor.tenant, id(&operation)?);
    let length = query.length.unwrap_or(MOST).min(MOST);
    let stored = host
        .store
        .scan(move |conn| {
            let Some(_) = operations::find(conn, tenant.id, id)? else {
                return Ok(None);
            };
            let ends = jobs::ends_that_are_lost(conn, &tenant, id)?;
            let written = ends.into_iter().find(|(stream, _)| *stream == query.stream);
            let skip = query.offset.unwrap_or(0);
            let written = written.map(|(_, written)| written);
            output::range(conn, id, query.stream, skip, length, written).map(Some)
        })
        .await?
        .ok_or_else(|| none(&operation))?;
    // Whatever a script wrote, a browser is not to run it.
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let gaps = Gaps(stored.lost);
    let lost = (!gaps.0.is_empty()).then(|| [(LOST, gaps.to_string())]);
    Ok((headers, lost.map(AppendHeaders), stored.bytes).into_response())
}

pub(super) fn id(text: &str) -> Result<OperationId, Refusal> {
    text.parse().map_err(|_| none(text))
}

pub(super) fn none(text: &str) -> Refusal {
    Refusal::not_found(
        "operation-not-found",
        format!("there is no operation {}", text.escape_debug()),
    )
}
