//! `/v1/operations/{operation}/receipts`

use axum::extract::State;
use sluice_api_types::receipt::{OperationReceipts, ReceiptsProof};

use super::Refusal;
use super::auth::Operator;
use super::extract::{Answer, Path};
use super::operations::{id, none};
use crate::host::SharedHost;
use crate::receipts;

/// What the gates of a machine were asked and said about an operation, signed by the machine.
#[utoipa::path(get, path = "/v1/operations/{operation}/receipts", params(("operation" = String, Path)), responses((status = 200, body = OperationReceipts)))]
pub(super) async fn get_receipts(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(operation): Path,
) -> Result<Answer<OperationReceipts>, Refusal> {
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
