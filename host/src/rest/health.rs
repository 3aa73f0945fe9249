//! `/healthz`, `/readyz`, `/metrics`: for those who watch the host. They name nobody and need no token.

use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::Refusal;
use crate::host::SharedHost;
use crate::store::{StoreError, operations};

/// Whether the program runs.
#[utoipa::path(get, path = "/healthz", security(()), responses((status = 200, content_type = "text/plain", body = String)))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// How long the database may take to take a change.
const WRITE: Duration = Duration::from_secs(5);

/// Whether it can do its work: the database answers.
#[utoipa::path(get, path = "/readyz", security(()), responses((status = 200, content_type = "text/plain", body = String)))]
pub(super) async fn readyz(State(host): State<SharedHost>) -> Result<&'static str, Refusal> {
    host.store.scan(operations::count_open).await?;
    // A change of nothing goes through the thread that writes and through a transaction, and costs no disk a sync.
    let nothing = host.store.write(|_| Ok::<_, StoreError>(()));
    tokio::time::timeout(WRITE, nothing)
        .await
        .unwrap_or(Err(StoreError::Stopped))?;
    Ok("ready\n")
}

/// Counters and gauges, for Prometheus.
#[utoipa::path(get, path = "/metrics", security(()), responses((status = 200, content_type = "text/plain", body = String)))]
pub(super) async fn metrics(State(host): State<SharedHost>) -> Result<Response, Refusal> {
    let open = host.store.scan(operations::count_open).await?;
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
