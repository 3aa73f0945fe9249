//! `/v1/blobs`

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use sluice_api_types::blob::Blob;
use sluice_protocol::attachment::LARGEST;

use super::Refusal;
use super::auth::{Operator, allow};
use super::extract::{Answer, uninterrupted};
use crate::host::SharedHost;
use crate::operators::Permission;
use crate::store::blobs;

/// Stores a file, before the job that comes with it. The same bytes again change nothing. Needs `RemoteExecution`.
#[utoipa::path(
    put, path = "/v1/blobs", request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, body = Blob))
)]
pub(super) async fn put_blob(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    body: Body,
) -> Result<(StatusCode, Answer<Blob>), Refusal> {
    allow(&host, &actor, Permission::RemoteExecution, "upload a file").await?;
    let tenant = actor.tenant.id;
    let (sha256, size) = host
        .blobs
        .put_stream(tenant, body.into_data_stream(), LARGEST)
        .await?;
    let now = host.clock.now();
    // The upload itself ends with its connection; from here on the file is whole.
    uninterrupted(async move {
        host.store
            .write(move |conn| blobs::insert(conn, tenant, sha256, size, now))
            .await?;
        Ok((StatusCode::CREATED, Answer(Blob { sha256, size })))
    })
    .await
}
