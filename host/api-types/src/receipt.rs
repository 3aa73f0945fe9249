//! `/v1/operations/{operation}/receipts`: what gates said.

use serde::{Deserialize, Serialize};
use sluice_protocol::ids::OperationId;
use sluice_protocol::receipt::Receipt;

use crate::bytes::Base64;

/// The receipts of an operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OperationReceipts {
    /// The operation.
    #[schema(value_type = String)]
    pub operation: OperationId,
    /// The machine's name, or what was typed.
    pub machine: String,
    /// One for every gate call.
    #[schema(value_type = Vec<Object>)]
    pub receipts: Vec<Receipt>,
    /// What the machine signed; null where the host asked its own gates, and nothing was sent.
    pub proof: Option<ReceiptsProof>,
    /// Whether what the gates saw of the machine is kept, so that the receipts can be replayed.
    pub inputs_kept: bool,
}

/// What anyone needs to verify receipts who does not believe the host: the signature is over the statement, by the key of the
/// certificate, which names the machine and leads to the host's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReceiptsProof {
    /// A line of text, then CBOR: tenant, machine, operation, the digest of the inputs, the receipts.
    #[schema(value_type = String, format = Byte)]
    pub statement: Base64,
    /// ECDSA on P-256 with SHA-256, DER.
    #[schema(value_type = String, format = Byte)]
    pub signature: Base64,
    /// X.509, DER.
    #[schema(value_type = String, format = Byte)]
    pub certificate: Base64,
}
