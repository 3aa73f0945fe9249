//! `/v1/tokens`

use axum::extract::State;
use axum::http::StatusCode;
use sluice_api_types::page::{Page, PageQuery};
use sluice_api_types::token::{CreateToken, CreatedToken, Token};
use uuid::Uuid;

use super::Refusal;
use super::auth::{Operator, allow, own_tenant, recorded};
use super::extract::{Answer, Body, Path, Query, uninterrupted};
use crate::audit::{self, Event, EventKind};
use crate::host::SharedHost;
use crate::operators::{self, Actor, Grants, InvalidPermission, NewToken, Permission, Permissions};
use crate::store::StoreError;
use crate::store::operators::{self as store, OperatorRow};
use crate::store::tokens::{self, TokenRow};

/// Makes a token: of an operator, narrowed to roles or permissions where some are given, or of a new operator of the token's
/// name who has these. It gives at most what its maker has without conditions. Needs `Administer`.
#[utoipa::path(post, path = "/v1/tokens", request_body = CreateToken, responses((status = 201, body = CreatedToken)))]
pub(super) async fn create_token(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Body(request): Body<CreateToken>,
) -> Result<(StatusCode, Answer<CreatedToken>), Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::Administer, "make a token").await?;
        own_tenant(&actor, request.tenant.as_deref())?;
        let words = request.permissions.as_deref();
        let permissions = words.map(|words| words.iter().map(|word| word.parse()).collect());
        let permissions: Option<Result<_, InvalidPermission>> = permissions;
        let permissions = permissions
            .transpose()
            .map_err(|error| Refusal::invalid(format!("{error}; no token was made")))?;
        let new = NewToken {
            name: request.name,
            operator: request.operator,
            grants: Grants {
                roles: request.roles,
                permissions,
            },
            expires: request.expires,
        };
        let made = operators::token(&host, &actor, new, host.clock.now()).await;
        let (row, token) = recorded(&host, &actor, made, "make a token with it").await?;
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
    let items = host
        .store
        .scan(move |conn| {
            let mut items = Vec::new();
            for row in tokens::list(conn, tenant)? {
                let operator = store::find(conn, tenant, row.operator)?
                    .ok_or_else(|| StoreError::Corrupt("a token without an operator".to_owned()))?;
                items.push(shown(&actor, row, operator));
            }
            Ok::<_, StoreError>(items)
        })
        .await?;
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
        let (now, asked) = (host.clock.now(), actor);
        let revoked = host
            .store
            .write(move |conn| {
                let Some(row) = operators::revoke(conn, asked.tenant.id, id, now)? else {
                    return Ok(false);
                };
                let event = Event::by(EventKind::TokenRevoked, &asked)
                    .detail("token", id.to_string())
                    .detail("name", row.name);
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

/// A token with what is given by it: what it leaves of its operator's, or all of that.
fn shown(actor: &Actor, row: TokenRow, operator: OperatorRow) -> Token {
    let Grants { roles, permissions } = row.only.unwrap_or(operator.grants);
    Token {
        id: row.id.to_string(),
        name: row.name,
        operator: operator.name,
        tenant: actor.tenant.name.clone(),
        roles,
        permissions: permissions.map_or_else(Vec::new, Permissions::words),
        created_at: row.created.to_string(),
        expires_at: row.expires.map(|at| at.to_string()),
        revoked: row.revoked.is_some(),
    }
}
