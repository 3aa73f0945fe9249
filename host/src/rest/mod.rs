//! The API for operators: one file for each resource. `/v1/openapi.json` is made from the routes below, and committed as
//! `host/openapi.json`.

mod approvals;
mod audit;
mod auth;
mod bindings;
mod blobs;
mod enroll_tokens;
mod events;
mod extract;
mod grants;
mod health;
mod job_filter;
mod jobs;
mod lockdown;
mod machines;
mod offers;
mod operations;
mod operators;
mod plugins;
mod problem;
mod publishers;
mod receipts;
mod roles;
mod schedules;
mod scripts;
mod secrets;
mod tenants;
mod tokens;
mod whoami;
mod windows;

use auth::BearerScheme;
use axum::Router;
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use problem::Refusal;

use crate::host::SharedHost;

/// The largest body of a request that carries no files, in bytes.
const BODY: usize = 64 << 10;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Sluice", description = "Runs scripts on a fleet, behind gates. Bearer tokens; refusals are RFC 9457 problems. Every route takes `?tenant=NAME`: the tenant that is meant, where it is not the operator's own."),
    modifiers(&BearerScheme),
    security(("bearer" = []))
)]
struct Document;

/// Every route.
pub fn router(host: SharedHost) -> Router {
    let (router, document) = routes().split_for_parts();
    let document = serde_json::to_string(&document).unwrap_or_default();
    router
        .route(
            "/v1/openapi.json",
            get(move || async move {
                (
                    [(axum::http::header::CONTENT_TYPE, "application/json")],
                    document,
                )
            }),
        )
        .fallback(|| async { Refusal::no_route() })
        .method_not_allowed_fallback(|| async { Refusal::no_method() })
        .layer(CatchPanicLayer::custom(problem::after_panic))
        .with_state(host)
}

/// The description of every route.
#[must_use]
pub fn openapi() -> OpenApi {
    routes().into_openapi()
}

/// The text of `host/openapi.json`.
///
/// # Errors
///
/// Never for this document.
pub fn openapi_text() -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&openapi()).map(|text| text + "\n")
}

fn routes() -> OpenApiRouter<SharedHost> {
    let small = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(whoami::get_whoami))
        .routes(routes!(jobs::list_jobs))
        .routes(routes!(jobs::get_job))
        .routes(routes!(jobs::get_groups))
        .routes(routes!(jobs::cancel_job))
        .routes(routes!(jobs::pause_job))
        .routes(routes!(jobs::resume_job))
        .routes(routes!(jobs::approve_job))
        .routes(routes!(jobs::deny_job))
        .routes(routes!(
            approvals::get_approval_policy,
            approvals::set_approval_policy
        ))
        .routes(routes!(approvals::list_policy_revisions))
        .routes(routes!(
            approvals::list_standing_approvals,
            approvals::add_standing_approval
        ))
        .routes(routes!(approvals::revoke_standing_approval))
        .routes(routes!(approvals::approve_standing_approval))
        .routes(routes!(jobs::halt_jobs))
        .routes(routes!(
            lockdown::get_lockdown,
            lockdown::start_lockdown,
            lockdown::lift_lockdown
        ))
        .routes(routes!(windows::list_windows, windows::add_window))
        .routes(routes!(windows::get_window, windows::remove_window))
        .routes(routes!(schedules::get_schedule, schedules::remove_schedule))
        .routes(routes!(schedules::pause_schedule))
        .routes(routes!(schedules::resume_schedule))
        .routes(routes!(schedules::list_runs))
        .routes(routes!(events::follow_job))
        .routes(routes!(operations::get_operation))
        .routes(routes!(operations::get_output))
        .routes(routes!(receipts::get_receipts))
        .routes(routes!(receipts::replay_receipts))
        .routes(routes!(scripts::list_scripts))
        .routes(routes!(scripts::get_script))
        .routes(routes!(scripts::archive_script))
        .routes(routes!(scripts::list_versions))
        .routes(routes!(scripts::get_version))
        .routes(routes!(scripts::redact_version))
        .routes(routes!(
            enroll_tokens::list_enroll_tokens,
            enroll_tokens::create_enroll_token
        ))
        .routes(routes!(enroll_tokens::revoke_enroll_token))
        .routes(routes!(machines::list_machines))
        .routes(routes!(
            machines::get_machine,
            machines::patch_machine,
            machines::revoke_machine
        ))
        .routes(routes!(machines::approve_machine))
        .routes(routes!(machines::deny_machine))
        .routes(routes!(machines::release_machine))
        .routes(routes!(
            publishers::list_publishers,
            publishers::trust_publisher
        ))
        .routes(routes!(publishers::untrust_publisher))
        .routes(routes!(plugins::list_plugins))
        .routes(routes!(receipts::backtest_plugin))
        .routes(routes!(bindings::list_bindings, bindings::create_binding))
        .routes(routes!(bindings::remove_binding))
        .routes(routes!(bindings::list_revisions))
        .routes(routes!(secrets::list_secrets))
        .routes(routes!(secrets::set_secret, secrets::revoke_secret))
        .routes(routes!(secrets::rotate_secret))
        .routes(routes!(tokens::list_tokens, tokens::create_token))
        .routes(routes!(tokens::revoke_token))
        .routes(routes!(
            operators::list_operators,
            operators::create_operator
        ))
        .routes(routes!(
            operators::patch_operator,
            operators::remove_operator
        ))
        .routes(routes!(roles::list_roles))
        .routes(routes!(
            roles::get_role,
            roles::set_role,
            roles::remove_role
        ))
        .routes(routes!(tenants::list_tenants, tenants::create_tenant))
        .routes(routes!(tenants::get_tenant, tenants::patch_tenant))
        .routes(routes!(tenants::archive_tenant))
        .routes(routes!(tenants::set_provider_access))
        .routes(routes!(grants::list_grants, grants::add_grant))
        .routes(routes!(grants::revoke_grant))
        .routes(routes!(offers::list_offers, offers::add_offer))
        .routes(routes!(offers::withdraw_offer))
        .routes(routes!(audit::list_audit))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .layer(axum::extract::DefaultBodyLimit::max(BODY));
    small
        .merge(
            OpenApiRouter::new()
                .routes(routes!(jobs::submit_job))
                .routes(routes!(jobs::preview_job))
                .routes(routes!(schedules::list_schedules, schedules::add_schedule))
                .layer(axum::extract::DefaultBodyLimit::max(jobs::BODY)),
        )
        .merge(
            OpenApiRouter::new()
                .routes(routes!(scripts::add_script))
                .layer(axum::extract::DefaultBodyLimit::max(jobs::BODY)),
        )
        .merge(
            OpenApiRouter::new()
                .routes(routes!(plugins::install_plugin))
                .layer(axum::extract::DefaultBodyLimit::max(plugins::BODY)),
        )
        // The bytes are counted as they come.
        .merge(
            OpenApiRouter::new()
                .routes(routes!(blobs::put_blob))
                .layer(axum::extract::DefaultBodyLimit::disable()),
        )
}

#[cfg(test)]
mod tests;
