//! Who is asking.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts, Query};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use utoipa::Modify;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};

use super::Refusal;
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::operators::{
    Actor, AuthenticationError, BearerToken, Denied, Permission, authenticate_in,
};
use crate::store::StoreError;
use crate::store::tenants::{self, Tenant};

/// What every route takes, also one without a query of its own: the tenant that is meant, where it is not the operator's own.
#[derive(serde::Deserialize)]
struct MeantFor {
    tenant: Option<String>,
}

/// The operator of a request, in the tenant that it is for: their own, or one in which they have a grant.
#[derive(Debug)]
pub(super) struct Operator(pub(super) Actor);

impl FromRequestParts<SharedHost> for Operator {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, host: &SharedHost) -> Result<Self, Refusal> {
        let source = parts
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map_or_else(|| "api".to_owned(), |from| from.ip().to_string());
        let now = host.clock.now();
        let meant = Query::<MeantFor>::try_from_uri(&parts.uri);
        let asked = meant
            .as_ref()
            .ok()
            .and_then(|Query(meant)| meant.tenant.as_deref());
        let authenticated = match bearer(parts) {
            Some(token) => host
                .store
                .read(|conn| authenticate_in(conn, &host.roles, &token, asked, &source, now)),
            None => {
                failed(host, &source, None, parts, "no token", now).await?;
                return Err(Refusal::unauthenticated(
                    "a bearer token is needed (SLUICE_TOKEN, or sluice login); nothing was done",
                ));
            }
        };
        match authenticated {
            Ok(actor) => {
                meant.map_err(|error| Refusal::invalid(error.body_text()))?;
                Ok(Self(actor))
            }
            Err(AuthenticationError::Store(error)) => Err(error.into()),
            Err(AuthenticationError::NoTenant(name)) => Err(Refusal::no_tenant(&name)),
            Err(error) => {
                let tenant = match &error {
                    AuthenticationError::Expired { tenant, .. }
                    | AuthenticationError::GrantOver { tenant, .. }
                    | AuthenticationError::Revoked { tenant, .. } => {
                        host.store.read(|conn| tenants::find(conn, *tenant))?
                    }
                    AuthenticationError::Unknown
                    | AuthenticationError::NoTenant(_)
                    | AuthenticationError::Store(_) => None,
                };
                failed(host, &source, tenant, parts, &error.to_string(), now).await?;
                Err(error.into())
            }
        }
    }
}

fn bearer(parts: &Parts) -> Option<BearerToken> {
    let value = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| BearerToken::presented(token.trim()))
}

/// Records a request that nobody could be held to account for. Of an unknown token the tenant is not known either: that
/// stands in the provider's log.
async fn failed(
    host: &SharedHost,
    source: &str,
    tenant: Option<Tenant>,
    parts: &Parts,
    reason: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    host.metrics.request_refused();
    let Some(count) = host.failures.count(now) else {
        return Ok(());
    };
    let tenant = match tenant {
        Some(tenant) => tenant,
        None => {
            let Some(provider) = host.store.read(tenants::provider)? else {
                return Ok(());
            };
            provider
        }
    };
    let path: String = parts.uri.path().chars().take(200).collect();
    let event = Event::from_source(EventKind::AuthenticationFailed, source)
        .detail("reason", reason)
        .detail("method", parts.method.as_str())
        .detail("path", path)
        .detail("requests", count);
    host.store
        .write(move |conn| audit::append(conn, &tenant, now, [event]).map(|_| ()))
        .await
}

/// Whether the operator may do something; where not, that is recorded.
///
/// # Errors
///
/// The permission is missing, by name.
pub(super) async fn allow(
    host: &SharedHost,
    actor: &Actor,
    permission: Permission,
    what: &str,
) -> Result<(), Refusal> {
    let Err(denied) = actor.require(permission) else {
        return Ok(());
    };
    record_denied(host, actor, &denied, what).await?;
    Err(denied.into())
}

/// What may come of a change: among other things, that a permission is missing.
pub(super) trait MayBeDenied {
    /// Which, where that is it.
    fn denied(&self) -> Option<&Denied>;
}

macro_rules! may_be_denied {
    ($($error:ty: $denied:pat => $found:ident),+ $(,)?) => {$(
        impl MayBeDenied for $error {
            fn denied(&self) -> Option<&Denied> {
                match self {
                    $denied => Some($found),
                    _ => None,
                }
            }
        }
    )+};
}

may_be_denied! {
    crate::fleet::ChangeError: Self::Denied(denied) => denied,
    crate::fleet::EnrollError: Self::Denied(denied) => denied,
    crate::operators::ChangeOperatorError: Self::Denied(denied) => denied,
    crate::operators::ChangeRoleError: Self::Denied(denied) => denied,
    crate::operators::CreateTokenError: Self::Denied(denied) => denied,
    crate::provider::AccessError: Self::Denied(denied) => denied,
    crate::provider::ProviderError: Self::Denied(denied) => denied,
    crate::windows::ChangeError: Self::Denied(denied) => denied,
    crate::plugins::BindError: Self::Weaker { denied, .. } => denied,
}

/// What came of a change; where a permission was missing, that is on the record too.
pub(super) async fn recorded<T, E>(
    host: &SharedHost,
    actor: &Actor,
    done: Result<T, E>,
    what: &str,
) -> Result<T, Refusal>
where
    E: MayBeDenied,
    Refusal: From<E>,
{
    if let Some(denied) = done.as_ref().err().and_then(MayBeDenied::denied) {
        record_denied(host, actor, denied, what).await?;
    }
    Ok(done?)
}

/// Records that a permission was missing.
pub(super) async fn record_denied(
    host: &SharedHost,
    actor: &Actor,
    denied: &Denied,
    what: &str,
) -> Result<(), StoreError> {
    host.metrics.request_refused();
    let now = host.clock.now();
    let (tenant, event) = (
        actor.tenant.clone(),
        Event::by(EventKind::PermissionDenied, actor)
            .detail("permission", denied.permission.as_str())
            .detail("attempt", what),
    );
    host.store
        .write(move |conn| audit::append(conn, &tenant, now, [event]).map(|_| ()))
        .await
}

/// Whether a request that names a tenant besides its query is for that in which the operator acts.
///
/// # Errors
///
/// It is for another; whether there is one of that name is not said.
pub(super) fn own_tenant(actor: &Actor, asked: Option<&str>) -> Result<(), Refusal> {
    if actor.is_of_tenant(asked) {
        Ok(())
    } else {
        Err(Refusal::no_tenant(asked.unwrap_or_default()))
    }
}

/// Adds the bearer scheme to the document.
#[derive(Debug)]
pub(super) struct BearerScheme;

impl Modify for BearerScheme {
    fn modify(&self, openapi: &mut OpenApi) {
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme(
            "bearer",
            SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)),
        );
    }
}
