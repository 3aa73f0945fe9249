//! `/v1/operations/{operation}/receipts` and `/replay`, `/v1/plugins/backtest`

use axum::extract::State;
use sluice_api_types::receipt::{
    Backtest, BacktestPlugin, ChangedOperation, GateDecision, OperationReceipts, ReceiptsProof,
    Replay, ReplayOutcome, ReplayReceipts, ReplayedReceipt,
};

use super::Refusal;
use super::auth::{Operator, allow, own_tenant};
use super::extract::{Answer, Body, Path};
use super::operations::{id, none};
use crate::host::SharedHost;
use crate::operators::Permission;
use crate::receipts::{self, Compared, Decision, MOST_JOBS, Tried};

/// What the gates of a machine were asked and said about an operation, signed by the machine. Needs `ReadJobs`.
#[utoipa::path(get, path = "/v1/operations/{operation}/receipts", params(("operation" = String, Path)), responses((status = 200, body = OperationReceipts)))]
pub(super) async fn get_receipts(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(operation): Path,
) -> Result<Answer<OperationReceipts>, Refusal> {
    allow(&host, &actor, Permission::ReadJobs, "read receipts").await?;
    let (tenant, id) = (actor.tenant, id(&operation)?);
    let shown = host
        .store
        .scan(move |conn| receipts::show(conn, &tenant, id))
        .await?
        .ok_or_else(|| none(&operation))?;
    let inputs_kept = shown
        .signed
        .as_ref()
        .is_some_and(|(_, verified)| verified.inputs.is_some());
    Ok(Answer(OperationReceipts {
        operation: id,
        machine: shown.operation.machine_name,
        receipts: shown.receipts,
        proof: shown.signed.map(|(statement, verified)| ReceiptsProof {
            statement: statement.into(),
            signature: verified.signature.into(),
            certificate: verified.certificate.into(),
        }),
        inputs_kept,
    }))
}

/// Asks the gates of an operation again what they were asked, and compares. Needs `ManagePlugins`.
#[utoipa::path(post, path = "/v1/operations/{operation}/replay", params(("operation" = String, Path)), request_body = ReplayReceipts, responses((status = 200, body = Replay)))]
pub(super) async fn replay_receipts(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(operation): Path,
    Body(request): Body<ReplayReceipts>,
) -> Result<Answer<Replay>, Refusal> {
    allow(&host, &actor, Permission::ManagePlugins, "replay receipts").await?;
    let id = id(&operation)?;
    let plugin = request.plugin.as_deref();
    let replayed = receipts::replay(&host, &actor, id, plugin, &request.settings).await?;
    let receipts = replayed.into_iter().map(|one| {
        let (outcome, reasons) = match one.compared {
            Compared::Same => (ReplayOutcome::Same, Vec::new()),
            Compared::Different(reasons) => (ReplayOutcome::Different, reasons),
            Compared::Missing(reason) => (ReplayOutcome::Missing, vec![reason]),
        };
        ReplayedReceipt {
            receipt: one.receipt,
            outcome,
            reasons,
            notes: one.notes,
        }
    });
    Ok(Answer(Replay {
        operation: id,
        receipts: receipts.collect(),
    }))
}

/// Shows which of the last operations would be decided otherwise with a plugin or settings. Changes nothing. Needs
/// `ManagePlugins`.
#[utoipa::path(post, path = "/v1/plugins/backtest", request_body = BacktestPlugin, responses((status = 200, body = Backtest)))]
pub(super) async fn backtest_plugin(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Body(request): Body<BacktestPlugin>,
) -> Result<Answer<Backtest>, Refusal> {
    allow(
        &host,
        &actor,
        Permission::ManagePlugins,
        "backtest a plugin",
    )
    .await?;
    own_tenant(&actor, request.tenant.as_deref())?;
    let tried = Tried {
        plugin: request.plugin,
        settings: request.settings,
        jobs: request.jobs.unwrap_or(MOST_JOBS),
        before: request.before,
    };
    let found = receipts::backtest(&host, &actor, &tried).await?;
    let changed = found.changed.into_iter().map(|one| ChangedOperation {
        job: one.job,
        operation: one.operation,
        machine: one.machine,
        recorded: one.recorded,
        now: decision(&one.now),
        tried: decision(&one.then),
    });
    Ok(Answer(Backtest {
        plugin: found.plugin,
        version: found.version,
        sha256: found.component,
        jobs: found.jobs,
        asked: found.asked,
        by_inventory: found.by_inventory,
        unknown: found.unknown,
        left_out: found.left_out,
        other_findings: found.other_findings,
        changed: changed.collect(),
        next: found.next,
        notes: found.notes,
    }))
}

fn decision(decision: &Decision) -> GateDecision {
    let ending = decision.ending.as_ref();
    GateDecision {
        decision: ending
            .map_or("passes", |ending| ending.state().as_str())
            .to_owned(),
        message: ending.map(|ending| ending.message()),
        findings: decision.findings,
    }
}
