//! `/v1/operations/{operation}/receipts` and `/replay`, `/v1/plugins/backtest`: what gates said, and what they would say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::State;
use sluice_protocol::ids::{JobId, OperationId};
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

/// `POST /v1/operations/{operation}/replay`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayReceipts {
    /// Only receipts of the plugin with this id.
    #[serde(default)]
    pub plugin: Option<String>,
    /// Settings to try where the host does not know those of a receipt: those of a gate of the machine's owner.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub settings: BTreeMap<String, serde_json::Value>,
}

/// What came of a replay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Replay {
    /// The operation.
    #[schema(value_type = String)]
    pub operation: OperationId,
    /// One for every receipt.
    pub receipts: Vec<ReplayedReceipt>,
}

/// What came of one receipt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReplayedReceipt {
    /// The receipt.
    #[schema(value_type = Object)]
    pub receipt: Receipt,
    /// What came of it.
    pub outcome: ReplayOutcome,
    /// What differs, or what is missing, for people.
    pub reasons: Vec<String>,
    /// What else there is to know, for people.
    pub notes: Vec<String>,
}

/// A receipt, and the same question asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReplayOutcome {
    /// The same verdict, and the same fuel where the runtime is the same.
    Same,
    /// Something else.
    Different,
    /// It cannot be asked again.
    Missing,
}

/// `POST /v1/plugins/backtest`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BacktestPlugin {
    /// The plugin's id (its newest installed version) or the digest of its component.
    pub plugin: String,
    /// Its settings; absent: those of the bindings whose place it takes, or its defaults where there is none.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub settings: Option<BTreeMap<String, serde_json::Value>>,
    /// How many jobs to look at, the last ones first; 25 where absent and at most.
    #[serde(default)]
    pub jobs: Option<u32>,
    /// `next` of the answer before: only jobs before this one.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub before: Option<JobId>,
    /// The tenant's name; that of the query where absent, and the operator's own where that has none.
    #[serde(default)]
    pub tenant: Option<String>,
}

/// What would be decided otherwise, of some jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Backtest {
    /// The plugin's id.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// The digest of its component.
    #[schema(value_type = String)]
    pub sha256: Digest,
    /// How many jobs were looked at.
    pub jobs: u64,
    /// How many operations were asked about.
    pub asked: u64,
    /// Of those, how many with what the inventory says of the machine today.
    pub by_inventory: u64,
    /// Operations that could not be asked about: the script's text was erased, or there is no such machine.
    pub unknown: u64,
    /// Operations that were not asked about, because their job has too many, or the time was over.
    pub left_out: u64,
    /// Operations that would be decided the same, with other findings.
    pub other_findings: u64,
    /// Operations that would be decided otherwise.
    pub changed: Vec<ChangedOperation>,
    /// What to pass as `before` for the jobs before; null where there are none.
    #[schema(value_type = Option<String>)]
    pub next: Option<JobId>,
    /// What else there is to know, for people.
    pub notes: Vec<String>,
}

/// An operation that would be decided otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ChangedOperation {
    /// Its job.
    #[schema(value_type = String)]
    pub job: JobId,
    /// Which one.
    #[schema(value_type = String)]
    pub operation: OperationId,
    /// Its machine's name.
    pub machine: String,
    /// How it went then.
    #[schema(value_type = String)]
    pub recorded: State,
    /// What the gates that are bound now say.
    pub now: GateDecision,
    /// What they say with what is tried.
    pub tried: GateDecision,
}

/// What gates say about an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct GateDecision {
    /// `passes`, or the state that the operation ends in.
    pub decision: String,
    /// For people; null where it passes.
    pub message: Option<String>,
    /// How many findings there are.
    pub findings: u64,
}
