//! `/v1/enroll-tokens`

use axum::extract::State;
use axum::http::StatusCode;
use sluice_api_types::enroll_token::{CreateEnrollToken, EnrollToken};
use sluice_protocol::message::enroll::Token;

use super::Refusal;
use super::auth::{Operator, allow, own_tenant};
use super::extract::{Answer, Body, uninterrupted};
use crate::clock::UnixMillis;
use crate::fleet;
use crate::host::SharedHost;
use crate::operators::Permission;

/// Makes a token that lets machines join. Needs `ManageMachines`.
#[utoipa::path(post, path = "/v1/enroll-tokens", request_body = CreateEnrollToken, responses((status = 201, body = EnrollToken)))]
pub(super) async fn create_enroll_token(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Body(request): Body<CreateEnrollToken>,
) -> Result<(StatusCode, Answer<EnrollToken>), Refusal> {
    uninterrupted(async move {
        allow(
            &host,
            &actor,
            Permission::ManageMachines,
            "make an enrollment token",
        )
        .await?;
        own_tenant(&actor, request.tenant.as_deref())?;
        let new = fleet::create_token(
            &host.store,
            &actor,
            request.uses,
            request.expires,
            UnixMillis::now(),
        )
        .await?;
        let token = Token {
            addresses: host.addresses.agents.clone(),
            authority: host.addresses.authority,
            id: new.id,
            secret: new.secret.to_vec(),
        };
        Ok((
            StatusCode::CREATED,
            Answer(EnrollToken {
                token: token.to_string(),
            }),
        ))
    })
    .await
}
