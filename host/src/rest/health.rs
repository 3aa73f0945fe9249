//! `/healthz`, `/readyz`, `/metrics`: for those who watch the host. They name nobody and need no token.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::Refusal;
use crate::host::SharedHost;
use crate::store::operations;

/// Whether the program runs.
#[utoipa::path(get, path = "/healthz", security(()), responses((status = 200, content_type = "text/plain", body = String)))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether it can do its work: the database answers.
#[utoipa::path(get, path = "/readyz", security(()), responses((status = 200, content_type = "text/plain", body = String)))]
pub(super) async fn readyz(State(host): State<SharedHost>) -> Result<&'static str, Refusal> {
    let mut conn = host.store.read().await?;
    operations::count_open(&mut conn).await?;
    Ok("ready\n")
}

/// Counters and gauges, for Prometheus.
#[utoipa::path(get, path = "/metrics", security(()), responses((status = 200, content_type = "text/plain", body = String)))]
pub(super) async fn metrics(State(host): State<SharedHost>) -> Result<Response, Refusal> {
    let mut conn = host.store.read().await?;
    let open = operations::count_open(&mut conn).await?;
    let page = host.metrics.render(host.presence.count(), &open);
    Ok((
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        page,
    )
        .into_response())
}
