//! `/v1/lockdown`

use axum::extract::State;
use sluice_api_types::lockdown::{Lockdown, StartLockdown};

use super::Refusal;
use super::auth::{Operator, allow};
use super::extract::{Answer, Body, uninterrupted};
use crate::host::SharedHost;
use crate::jobs;
use crate::operators::Permission;
use crate::store::lockdown as store;

/// Whether the host is locked down: no job is made, nothing is delivered, no schedule fires.
#[utoipa::path(get, path = "/v1/lockdown", responses((status = 200, body = Lockdown)))]
pub(super) async fn get_lockdown(
    State(host): State<SharedHost>,
    Operator(_actor): Operator,
) -> Result<Answer<Lockdown>, Refusal> {
    shown(&host, 0)
}

/// Locks the host down, for all of its tenants, until that is lifted. Needs `Administer`.
#[utoipa::path(put, path = "/v1/lockdown", request_body = StartLockdown, responses((status = 200, body = Lockdown)))]
pub(super) async fn start_lockdown(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Body(request): Body<StartLockdown>,
) -> Result<Answer<Lockdown>, Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::Administer, "lock the host down").await?;
        let StartLockdown { reason, cancel } = request;
        let canceled = jobs::lock_down(&host, &actor, reason, cancel, host.clock.now()).await?;
        shown(&host, canceled)
    })
    .await
}

/// Lifts a lockdown, and delivers what waited. Needs `Administer`.
#[utoipa::path(delete, path = "/v1/lockdown", responses((status = 200, body = Lockdown)))]
pub(super) async fn lift_lockdown(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
) -> Result<Answer<Lockdown>, Refusal> {
    uninterrupted(async move {
        allow(&host, &actor, Permission::Administer, "lift a lockdown").await?;
        jobs::lift_lockdown(&host, &actor, host.clock.now()).await?;
        shown(&host, 0)
    })
    .await
}

fn shown(host: &SharedHost, canceled: u64) -> Result<Answer<Lockdown>, Refusal> {
    let row = host.store.read(store::current)?;
    Ok(Answer(match row {
        None => Lockdown::default(),
        Some(row) => Lockdown {
            on: true,
            since: Some(row.since.to_string()),
            operator: Some(row.operator),
            reason: row.reason,
            canceled,
        },
    }))
}
