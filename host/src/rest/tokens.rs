//! `/v1/tokens`

use axum::extract::State;
use axum::http::StatusCode;
use sluice_api_types::page::{Page, PageQuery};
use sluice_api_types::token::{CreateToken, CreatedToken, Token};
use uuid::Uuid;

use super::Refusal;
use super::auth::{Operator, allow, own_tenant};
use super::extract::{Answer, Body, Path, Query, uninterrupted};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::operators::{self, CreateTokenError, Permission};
use crate::store::{StoreError, tokens};

/// Makes a token. Its permissions are at most the maker's own. Needs `Administer`.
#[utoipa::path(post, path = "/v1/tokens", request_body = CreateToken, responses((status = 201, body = CreatedToken)))]
pub(super) async fn create_token(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Body(request): Body<CreateToken>,
) -> Result<(StatusCode, Answer<CreatedToken>), Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::Administer, "make a token").await?;
        own_tenant(&actor, request.tenant.as_deref())?;
        let permissions = request
            .permissions
            .iter()
            .map(|word| word.parse::<Permission>())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Refusal::invalid(format!("{error}; no token was made")))?;
        for permission in &permissions {
            allow(
                &host,
                &actor,
                *permission,
                "make a token with a permission of its own",
            )
            .await?;
        }
        if request.expires.is_some_and(|span| span.0 == 0) {
            return Err(Refusal::invalid(
                "a token cannot be good for no time at all; no token was made",
            ));
        }
        let now = UnixMillis::now();
        let expires = request.expires.map(|span| now.plus(span));
        let (asked, name) = (actor.clone(), request.name);
        let (row, token) = host
            .store
            .write(move |conn| {
                let maker = tokens::find(conn, asked.tenant.id, asked.token)?;
                let end = maker.and_then(|maker| maker.expires);
                if let Some(end) = end.filter(|end| expires.is_none_or(|asked| asked > *end)) {
                    return Err(CreateTokenError::Outlives(end));
                }
                let (row, token) = operators::create(
                    conn,
                    asked.tenant.id,
                    &name,
                    &permissions,
                    expires,
                    Some(asked.token),
                    now,
                )?;
                let words: Vec<&str> = row
                    .permissions
                    .iter()
                    .map(|permission| permission.as_str())
                    .collect();
                let event = Event::by(EventKind::TokenCreated, &asked)
                    .detail("token", row.id.to_string())
                    .detail("name", row.name.as_str())
                    .detail("permissions", words)
                    .detail("expires", row.expires.map(|at| at.to_string()));
                audit::append(conn, &asked.tenant, now, [event])?;
                Ok::<_, CreateTokenError>((row, token))
            })
            .await?;
        Ok((
            StatusCode::CREATED,
            Answer(CreatedToken {
                id: row.id.to_string(),
                token: token.reveal().to_owned(),
            }),
        ))
    })
    .await
}

/// Lists tokens, the oldest first. Needs `Administer`.
#[utoipa::path(get, path = "/v1/tokens", params(PageQuery), responses((status = 200, body = Page<Token>)))]
pub(super) async fn list_tokens(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Page<Token>>, Refusal> {
    allow(&host, &actor, Permission::Administer, "list tokens").await?;
    own_tenant(&actor, query.tenant.as_deref())?;
    let tenant = actor.tenant.id;
    let rows = host
        .store
        .scan(move |conn| tokens::list(conn, tenant))
        .await?;
    let items = rows
        .into_iter()
        .map(|row| Token {
            id: row.id.to_string(),
            name: row.name,
            tenant: actor.tenant.name.clone(),
            permissions: row
                .permissions
                .iter()
                .map(|permission| permission.as_str().to_owned())
                .collect(),
            created_at: row.created.to_string(),
            expires_at: row.expires.map(|at| at.to_string()),
            revoked: row.revoked.is_some(),
        })
        .collect();
    Ok(Answer(Page { items, next: None }))
}

/// Revokes a token: it is good for nothing from the next request on. Needs `Administer`.
#[utoipa::path(delete, path = "/v1/tokens/{token}", params(("token" = String, Path)), responses((status = 204)))]
pub(super) async fn revoke_token(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(token): Path,
) -> Result<StatusCode, Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::Administer, "revoke a token").await?;
        let none = || {
            Refusal::not_found(
                "token-not-found",
                format!("there is no token {} to revoke", token.escape_debug()),
            )
        };
        let id = Uuid::try_parse(&token).map_err(|_| none())?;
        let (now, asked) = (UnixMillis::now(), actor);
        let revoked = host
            .store
            .write(move |conn| {
                let Some(name) = tokens::revoke(conn, asked.tenant.id, id, now)? else {
                    return Ok(false);
                };
                let event = Event::by(EventKind::TokenRevoked, &asked)
                    .detail("token", id.to_string())
                    .detail("name", name);
                audit::append(conn, &asked.tenant, now, [event])?;
                Ok::<_, StoreError>(true)
            })
            .await?;
        if revoked {
            Ok(StatusCode::NO_CONTENT)
        } else {
            Err(none())
        }
    })
    .await
}
