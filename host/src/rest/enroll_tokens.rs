//! `/v1/enroll-tokens`

use axum::extract::State;
use axum::http::StatusCode;
use sluice_api_types::enroll_token::{Approval, CreateEnrollToken, EnrollToken, ListedEnrollToken};
use sluice_api_types::job::Tag;
use sluice_api_types::page::{Page, PageQuery};
use sluice_protocol::message::enroll::Token;

use super::Refusal;
use super::auth::{Operator, allow, own_tenant, recorded};
use super::extract::{Answer, Body, Path, Query, limit, uninterrupted};
use crate::fleet::{self, Terms};
use crate::host::SharedHost;
use crate::operators::{Actor, Permission};
use crate::store::enroll_tokens::{self as store, EnrollTokenRow};

/// Makes a token that lets machines join. Needs `ManageMachines` for machines with its tags.
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
        let made = fleet::create_token(&host.store, &actor, terms(&request)?, host.clock.now());
        let new = recorded(&host, &actor, made.await, "make an enrollment token").await?;
        let token = Token {
            addresses: host.addresses.agents.clone(),
            authority: host.addresses.authority,
            id: new.id,
            secret: new.secret.to_vec(),
        };
        Ok((
            StatusCode::CREATED,
            Answer(EnrollToken {
                id: new.id.to_string(),
                token: token.to_string(),
            }),
        ))
    })
    .await
}

fn terms(request: &CreateEnrollToken) -> Result<Terms, Refusal> {
    let tags = request.tags.iter();
    let tags = tags.map(|tag| fleet::parse_tag(&tag.key, &tag.value));
    let ranges = request
        .addresses
        .iter()
        .map(|text| text.parse::<fleet::AddressRange>());
    Ok(Terms {
        uses: request.uses,
        expires: request.expires,
        tags: tags
            .collect::<Result<_, _>>()
            .map_err(|error| Refusal::invalid(format!("{error}; no token was made")))?,
        addresses: ranges
            .collect::<Result<_, fleet::InvalidRange>>()
            .map_err(|error| Refusal::invalid(format!("{error}; no token was made")))?,
        approval: match request.approval {
            Approval::Automatic => fleet::Approval::Automatic,
            Approval::Manual => fleet::Approval::Manual,
        },
    })
}

/// Lists enrollment tokens, the newest first. Needs `ManageMachines`.
#[utoipa::path(get, path = "/v1/enroll-tokens", params(PageQuery), responses((status = 200, body = Page<ListedEnrollToken>)))]
pub(super) async fn list_enroll_tokens(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Page<ListedEnrollToken>>, Refusal> {
    allow(
        &host,
        &actor,
        Permission::ManageMachines,
        "list enrollment tokens",
    )
    .await?;
    own_tenant(&actor, query.tenant.as_deref())?;
    let (tenant, limit) = (actor.tenant.id, limit(query.limit)?);
    let rows = host
        .store
        .scan(move |conn| store::list(conn, tenant, limit))
        .await?;
    let items = rows.into_iter().map(|row| shown(&actor, row)).collect();
    Ok(Answer(Page { items, next: None }))
}

/// Revokes an enrollment token: no machine joins with it any more. Needs `ManageMachines` for machines with its tags.
#[utoipa::path(delete, path = "/v1/enroll-tokens/{enroll_token}", params(("enroll_token" = String, Path)), responses((status = 204)))]
pub(super) async fn revoke_enroll_token(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(token): Path,
) -> Result<StatusCode, Refusal> {
    uninterrupted(async move {
        allow(
            &host,
            &actor,
            Permission::ManageMachines,
            "revoke an enrollment token",
        )
        .await?;
        let revoked = fleet::revoke_token(&host.store, &actor, &token, host.clock.now()).await;
        recorded(&host, &actor, revoked, "revoke an enrollment token").await?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

fn shown(actor: &Actor, row: EnrollTokenRow) -> ListedEnrollToken {
    let tag = |tag: crate::store::bindings::TagPair| Tag {
        key: tag.key,
        value: tag.value,
    };
    ListedEnrollToken {
        id: row.id.to_string(),
        tenant: actor.tenant.name.clone(),
        uses: row.uses,
        uses_left: row.uses_left,
        tags: row.tags.into_iter().map(tag).collect(),
        addresses: row.addresses.iter().map(ToString::to_string).collect(),
        approval: match row.approval {
            fleet::Approval::Automatic => Approval::Automatic,
            fleet::Approval::Manual => Approval::Manual,
        },
        created_at: row.created.to_string(),
        operator: row.created_by,
        expires_at: row.expires.to_string(),
        revoked: row.revoked.is_some(),
    }
}
