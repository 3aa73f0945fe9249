//! Receipts: what is left of each call of a gate, and the machine's word for those of one operation.
//!
//! A receipt says which gate was asked, about what, and what came of it, all by digest. Together with what the host has (the
//! submission, the plugin, its settings) and the [`Attestation`]'s inputs the question can be made again, and asked again.

use serde::{Deserialize, Serialize};

use crate::codec::{self, EncodeError};
use crate::digest::Digest;
use crate::ids::{MachineId, OperationId, TenantId};
use crate::report::Mode;

/// What a signature is over begins with this, so that it is good for nothing else that a machine signs.
const LABEL: &[u8] = b"sluice receipts 1\n";

/// The most bytes that are kept of what a machine's gates were asked beside the submission.
pub const LARGEST_INPUTS: usize = 64 << 10;

/// What is left of a gate call: enough to make it again and compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Whose gate it is.
    pub whose: Whose,
    /// What it was asked for.
    pub stage: Stage,
    /// The plugin's id.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// The digest of the component.
    pub component_sha256: Digest,
    /// The digest of the settings' one encoding.
    pub settings_sha256: Digest,
    /// The digests of data packs. There are none in this version.
    pub data_sha256: Vec<Digest>,
    /// The version of the contract.
    pub contract: String,
    /// The version of the runtime: the same one burns the same fuel.
    pub runtime: String,
    /// What the call might use.
    pub limits: GateLimits,
    /// The digest of the bundle, for stages that come after it is made.
    pub bundle_sha256: Option<Digest>,
    /// The digest of the question's one encoding. Zeros where it had none.
    pub input_sha256: Digest,
    /// The digest of the answer's one encoding. Zeros where there was no question to answer.
    pub verdict_sha256: Digest,
    /// What the answer comes to: `pass`, `findings`, `refused`, `block` ...
    pub verdict: String,
    /// Fuel that the call burned; of a cached answer, the call that gave it.
    pub fuel: u64,
    /// Wall-clock time of the call in microseconds; 0 for a cached answer.
    pub duration_us: u64,
    /// The answer is one that the gate gave to the same question before.
    pub cached: bool,
    /// Whether the gate could block.
    pub mode: Mode,
}

/// Whose gate it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Whose {
    /// One that the machine's owner requires.
    Owner,
    /// One that the host alone binds.
    Host,
}

/// What a gate is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the words say it")]
pub enum Stage {
    Environment,
    Prepare,
    Scan,
    Policy,
}

impl Whose {
    /// The word in receipts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Host => "host",
        }
    }
}

impl Stage {
    /// The word in receipts and in `agent.toml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::Prepare => "prepare",
            Self::Scan => "scan",
            Self::Policy => "policy",
        }
    }
}

/// What one call of a gate may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateLimits {
    /// Units of fuel.
    pub fuel: u64,
    /// Bytes over all memories and tables.
    pub memory: u64,
    /// Milliseconds.
    pub time_ms: u64,
    /// Bytes of an answer.
    pub answer: u64,
}

/// The machine's word for the receipts of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attestation {
    /// By the key of the machine's certificate (ECDSA on P-256 with SHA-256, DER), over [`statement`].
    #[serde(with = "serde_bytes")]
    pub signature: Vec<u8>,
    /// What the gates were asked beside the submission, as the gates' client writes it; at most [`LARGEST_INPUTS`]. None
    /// where it would be more, or was lost in a restart.
    #[serde(with = "serde_bytes")]
    pub inputs: Option<Vec<u8>>,
}

impl Attestation {
    /// Of the inputs, where there are any.
    #[must_use]
    pub fn inputs_sha256(&self) -> Option<Digest> {
        self.inputs.as_deref().map(Digest::of)
    }
}

/// The receipts of an operation, and the machine's word for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attested {
    /// One for each call of a gate, and at least one.
    pub receipts: Vec<Receipt>,
    /// Over all of them.
    pub attestation: Attestation,
}

/// Whose receipts they are, and of which operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words say it")]
pub struct Subject {
    pub tenant: TenantId,
    pub machine: MachineId,
    pub operation: OperationId,
}

/// The bytes that a machine signs: a label, and the one encoding of whose receipts they are, the receipts, and the digest of
/// the inputs that go with them.
///
/// # Errors
///
/// As [`codec::encode`].
pub fn statement(
    subject: Subject,
    receipts: &[Receipt],
    inputs_sha256: Option<Digest>,
) -> Result<Vec<u8>, EncodeError> {
    #[derive(Serialize)]
    struct Statement<'a> {
        tenant: TenantId,
        machine: MachineId,
        operation: OperationId,
        inputs_sha256: Option<Digest>,
        receipts: &'a [Receipt],
    }
    let Subject {
        tenant,
        machine,
        operation,
    } = subject;
    let mut bytes = LABEL.to_vec();
    bytes.append(&mut codec::encode(&Statement {
        tenant,
        machine,
        operation,
        inputs_sha256,
        receipts,
    })?);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt() -> Receipt {
        Receipt {
            whose: Whose::Host,
            stage: Stage::Scan,
            plugin: "scanner".to_owned(),
            version: "1.0.0".to_owned(),
            component_sha256: Digest::of(b"c"),
            settings_sha256: Digest::of(b"s"),
            data_sha256: Vec::new(),
            contract: "0.1.0".to_owned(),
            runtime: "r".to_owned(),
            limits: GateLimits {
                fuel: 1,
                memory: 2,
                time_ms: 3,
                answer: 4,
            },
            bundle_sha256: Some(Digest::of(b"b")),
            input_sha256: Digest::of(b"q"),
            verdict_sha256: Digest::of(b"v"),
            verdict: "pass".to_owned(),
            fuel: 5,
            duration_us: 6,
            cached: false,
            mode: Mode::Enforce,
        }
    }

    #[test]
    fn what_is_signed_is_another_for_whatever_differs() {
        let subject = Subject {
            tenant: TenantId::generate(),
            machine: MachineId::generate(),
            operation: OperationId::generate(),
        };
        let inputs = Some(Digest::of(b"i"));
        let said = |subject, receipts: &[Receipt], inputs| {
            statement(subject, receipts, inputs).expect("encodes")
        };
        let one = said(subject, &[receipt()], inputs);
        assert!(one.starts_with(LABEL));
        assert_eq!(one, said(subject, &[receipt()], inputs));
        let other_verdict = Receipt {
            verdict_sha256: Digest::of(b"w"),
            ..receipt()
        };
        for other in [
            said(
                Subject {
                    operation: OperationId::generate(),
                    ..subject
                },
                &[receipt()],
                inputs,
            ),
            said(
                Subject {
                    machine: MachineId::generate(),
                    ..subject
                },
                &[receipt()],
                inputs,
            ),
            said(
                Subject {
                    tenant: TenantId::generate(),
                    ..subject
                },
                &[receipt()],
                inputs,
            ),
            said(subject, &[other_verdict], inputs),
            said(subject, &[], inputs),
            said(subject, &[receipt(), receipt()], inputs),
            said(subject, &[receipt()], None),
            said(subject, &[receipt()], Some(Digest::of(b"j"))),
        ] {
            assert_ne!(one, other);
        }
    }
}
