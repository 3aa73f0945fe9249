//! `/v1/machines`

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use sluice_api_types::job::Tag;
use sluice_api_types::machine::{
    Machine, MachineLink, MachineQuarantine, MachineQuery, MachineWaiting, PatchMachine,
};
use sluice_api_types::page::Page;
use sluice_protocol::ids::TenantId;
use sluice_protocol::message::control::{Fact, FactValue};

use super::Refusal;
use super::auth::{Operator, allow, own_tenant, recorded};
use super::extract::{Answer, Body, Path, Query, limit, uninterrupted};
use crate::fleet::{self, ChangeError, LinkQuality, Presence};
use crate::host::SharedHost;
use crate::jobs;
use crate::operators::{Actor, Permission};
use crate::store::machines::{self, MachineRow};
use crate::store::{Connection, Page as StorePage, StoreError, history, operations};
use crate::targets::Expression;

/// Lists machines by name. Needs `ReadMachines`.
#[utoipa::path(get, path = "/v1/machines", params(MachineQuery), responses((status = 200, body = Page<Machine>)))]
pub(super) async fn list_machines(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Query(query): Query<MachineQuery>,
) -> Result<Answer<Page<Machine>>, Refusal> {
    allow(&host, &actor, Permission::ReadMachines, "list machines").await?;
    own_tenant(&actor, query.tenant.as_deref())?;
    let tag = match &query.tag {
        Some(text) => {
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| Refusal::invalid("tag: expected key=value"))?;
            Some(
                fleet::parse_tag(key, value)
                    .map_err(|error| Refusal::invalid(error.to_string()))?,
            )
        }
        None => None,
    };
    let condition = query.condition.as_deref().map(Expression::read);
    let condition = condition
        .transpose()
        .map_err(|error| Refusal::invalid(error.to_string()))?;
    let page = StorePage {
        after: query.after.unwrap_or_default(),
        limit: limit(query.limit)?,
    };
    let page = host
        .store
        .clone()
        .scan(move |conn| {
            let rows = machines::list(conn, actor.tenant.id, tag.as_ref(), &page)?;
            let full = rows.len() == page.limit as usize;
            let next = full
                .then(|| rows.last().map(|row| format!("{}/{}", row.name, row.id)))
                .flatten();
            let mut items = Vec::new();
            for row in rows {
                let is_meant = match &condition {
                    Some(condition) => row.revoked.is_none() && jobs::holds(conn, condition, &row)?,
                    None => true,
                };
                if is_meant {
                    items.push(shown(conn, &host.presence, &actor, row)?);
                }
            }
            Ok::<_, StoreError>(Page { items, next })
        })
        .await?;
    Ok(Answer(page))
}

/// A machine, by name or id. A revoked one is found by id alone. Needs `ReadMachines`.
#[utoipa::path(get, path = "/v1/machines/{machine}", params(("machine" = String, Path)), responses((status = 200, body = Machine)))]
pub(super) async fn get_machine(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(machine): Path,
) -> Result<Answer<Machine>, Refusal> {
    allow(&host, &actor, Permission::ReadMachines, "read a machine").await?;
    host.store.read(|conn| {
        let row = find_any(conn, actor.tenant.id, &machine)?;
        Ok(Answer(shown(conn, &host.presence, &actor, row)?))
    })
}

/// Renames or retags a machine. Needs `ManageMachines`.
#[utoipa::path(
    patch, path = "/v1/machines/{machine}", params(("machine" = String, Path)), request_body = PatchMachine,
    responses((status = 200, body = Machine))
)]
pub(super) async fn patch_machine(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(machine): Path,
    Body(patch): Body<PatchMachine>,
) -> Result<Answer<Machine>, Refusal> {
    uninterrupted(async move {
        allow(
            &host,
            &actor,
            Permission::ManageMachines,
            "change a machine",
        )
        .await?;
        let name = patch
            .name
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(ChangeError::from)?;
        let tags = patch.tags.unwrap_or_default();
        let set = tags
            .set
            .iter()
            .map(|tag| fleet::parse_tag(&tag.key, &tag.value))
            .collect::<Result<_, _>>()
            .map_err(ChangeError::from)?;
        let patched = fleet::patch(
            &host,
            &actor,
            &machine,
            name,
            set,
            tags.remove,
            host.clock.now(),
        )
        .await;
        let id = recorded(&host, &actor, patched, "change a machine").await?;
        host.store.read(|conn| {
            let row =
                machines::find(conn, actor.tenant.id, id)?.ok_or_else(|| no_machine(&machine))?;
            Ok(Answer(shown(conn, &host.presence, &actor, row)?))
        })
    })
    .await
}

/// Takes a machine out of the fleet for good. Needs `ManageMachines`.
#[utoipa::path(delete, path = "/v1/machines/{machine}", params(("machine" = String, Path)), responses((status = 204)))]
pub(super) async fn revoke_machine(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(machine): Path,
) -> Result<StatusCode, Refusal> {
    uninterrupted(async move {
        allow(
            &host,
            &actor,
            Permission::ManageMachines,
            "revoke a machine",
        )
        .await?;
        let revoked = fleet::revoke(&host, &actor, &machine, host.clock.now()).await;
        recorded(&host, &actor, revoked, "revoke a machine").await?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

/// Makes a machine that waits for approval one of the fleet. Needs `ManageMachines`.
#[utoipa::path(
    post, path = "/v1/machines/{machine}/approve", params(("machine" = String, Path)),
    responses((status = 200, body = Machine))
)]
pub(super) async fn approve_machine(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(machine): Path,
) -> Result<Answer<Machine>, Refusal> {
    uninterrupted(async move {
        let what = "approve a machine";
        allow(&host, &actor, Permission::ManageMachines, what).await?;
        let approved = fleet::approve(&host, &actor, &machine, host.clock.now()).await;
        let id = recorded(&host, &actor, approved, what).await?;
        host.store.read(|conn| {
            let row =
                machines::find(conn, actor.tenant.id, id)?.ok_or_else(|| no_machine(&machine))?;
            Ok(Answer(shown(conn, &host.presence, &actor, row)?))
        })
    })
    .await
}

/// Turns a machine that waits for approval away for good. Needs `ManageMachines`.
#[utoipa::path(post, path = "/v1/machines/{machine}/deny", params(("machine" = String, Path)), responses((status = 204)))]
pub(super) async fn deny_machine(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(machine): Path,
) -> Result<StatusCode, Refusal> {
    uninterrupted(async move {
        let what = "turn a machine away";
        allow(&host, &actor, Permission::ManageMachines, what).await?;
        let denied = fleet::deny(&host, &actor, &machine, host.clock.now()).await;
        recorded(&host, &actor, denied, what).await?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

/// Has a machine served again that is quarantined. Needs `ManageMachines`.
#[utoipa::path(post, path = "/v1/machines/{machine}/release", params(("machine" = String, Path)), responses((status = 204)))]
pub(super) async fn release_machine(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(machine): Path,
) -> Result<StatusCode, Refusal> {
    uninterrupted(async move {
        let what = "release a machine from quarantine";
        allow(&host, &actor, Permission::ManageMachines, what).await?;
        let released = fleet::release(&host, &actor, &machine, host.clock.now()).await;
        recorded(&host, &actor, released, what).await?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

fn shown(
    conn: &Connection,
    presence: &Presence,
    actor: &Actor,
    row: MachineRow,
) -> Result<Machine, StoreError> {
    let tags = machines::tags(conn, row.id)?;
    let known = history::find(conn, actor.tenant.id, row.id)?.unwrap_or_default();
    let session = presence.get(row.id);
    let waiting = operations::waiting_of_machine(conn, actor.tenant.id, row.id)?;
    Ok(Machine {
        id: row.id,
        name: row.name,
        tenant: actor.tenant.name.clone(),
        connected: session.is_some(),
        revoked: row.revoked.is_some(),
        pending: row.pending.is_some(),
        enrolled_at: row.enrolled.to_string(),
        last_seen: row.last_seen.map(|at| at.to_string()),
        agent_version: row.software,
        tags: tags
            .into_iter()
            .map(|tag| Tag {
                key: tag.key,
                value: tag.value,
            })
            .collect(),
        facts: facts(row.facts),
        gate_problems: row.gates_problems,
        quarantine: known.quarantine.map(|quarantine| MachineQuarantine {
            since: quarantine.since.to_string(),
            reason: quarantine.reason,
        }),
        history_lost_at: known.lost.map(|at| at.to_string()),
        link: session.and_then(|session| session.quality()).map(link),
        waiting: MachineWaiting {
            operations: waiting.operations,
            since: waiting.since.map(|at| at.to_string()),
        },
    })
}

fn link(quality: LinkQuality) -> MachineLink {
    MachineLink {
        since: quality.since.to_string(),
        address: quality.address.to_string(),
        rtt_us: u64::try_from(quality.rtt.as_micros()).unwrap_or(u64::MAX),
        sent_packets: quality.sent_packets,
        lost_packets: quality.lost_packets,
        sent_bytes: quality.sent_bytes,
        received_bytes: quality.received_bytes,
    }
}

fn facts(facts: Vec<Fact>) -> BTreeMap<String, serde_json::Value> {
    facts
        .into_iter()
        .map(|fact| {
            let value = match fact.value {
                FactValue::Boolean(value) => value.into(),
                FactValue::Integer(value) => value.into(),
                FactValue::Decimal(value) => value.into(),
                FactValue::Text(value) => value.into(),
                FactValue::Texts(value) => value.into(),
            };
            (fact.key, value)
        })
        .collect()
}

/// The tenant's machine of this name or id; a revoked one by its id alone.
pub(super) fn find_any(
    conn: &Connection,
    tenant: TenantId,
    text: &str,
) -> Result<MachineRow, Refusal> {
    let mut found = machines::find_live(conn, tenant, text)?;
    if let (None, Ok(id)) = (&found, text.parse()) {
        found = machines::find(conn, tenant, id)?;
    }
    found.ok_or_else(|| no_machine(text))
}

fn no_machine(text: &str) -> Refusal {
    Refusal::not_found(
        "machine-not-found",
        format!("there is no machine {}", text.escape_debug()),
    )
}
