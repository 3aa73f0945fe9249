//! An operation on its way to a machine, and what comes back.

use serde::{Deserialize, Serialize};

use crate::bundle::Submission;
use crate::codec;
use crate::digest::Digest;
use crate::ids::{JobId, MachineId, OperationId};
use crate::message::control::LedgerMark;
use crate::receipt::Attested;
use crate::report::Report;
use crate::secret::Sealed;
use crate::shared::Shared;

/// What a host asks of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Starts at most once, whatever happens to this message.
    pub operation: OperationId,
    /// The job that it belongs to.
    pub job: JobId,
    /// What is to run. The agent makes the bundle from it.
    pub submission: Shared<Submission>,
    /// The digest of the bundle that the host made and recorded. The agent blocks where its own is another.
    pub bundle_sha256: Digest,
    /// Milliseconds since 1970 after which it must not start.
    pub not_after: u64,
    /// The revision of the gate set that the host's preflight used; the agent waits for it, or has a later one.
    pub gates_revision: u64,
    /// The submitter holds the permission to leave out the host's scanners. The owner's are never left out.
    pub skip_security_scan: bool,
    /// On how many machines the job runs.
    pub targets: u64,
    /// The operator's name, for gates and for the script's variables.
    pub operator: String,
    /// RFC 3339.
    pub submitted_at: String,
    /// Signed statements over bundle, targets, user and not-after. Empty in this version, and refused otherwise.
    pub authorizations: Vec<Authorization>,
    /// The values of the submission's secrets, sealed to the machine's key; one that was revoked meanwhile is missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Sealed>,
    /// That another operator lets it pass where a policy asks for that. The host's word, and no more: it is not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
}

impl Operation {
    /// About how many bytes it has.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let sealed = self.secrets.iter();
        let sealed: usize = sealed
            .map(|sealed| sealed.name.len() + sealed.bytes.len())
            .sum();
        self.submission.bytes() + sealed
    }

    /// The id of an operation that cannot be decoded: of a map whose `operation` is an id, whatever else is in it. For the
    /// answer that it gets, and for nothing else.
    #[must_use]
    pub fn id_of_unreadable(bytes: &[u8]) -> Option<OperationId> {
        #[derive(Deserialize)]
        struct Head {
            operation: OperationId,
        }
        codec::decode_leniently::<Head>(bytes).map(|head| head.operation)
    }
}

/// That an operator other than the one who submitted it approved exactly this, on this machine. It is good for the one
/// operation that it comes with, and until that one's `not_after`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Of the bundle that was blocked and approved. The agent blocks where its own is another.
    pub bundle_sha256: Digest,
    /// The machine. The agent blocks where it is another.
    pub machine: MachineId,
    /// The approving operator's name.
    pub by: String,
}

/// A signed statement. No version writes one yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authorization {
    /// Who signed, written `ed25519:<base64>`.
    pub signer: String,
    /// The statement's one encoding.
    #[serde(with = "serde_bytes")]
    pub statement: Vec<u8>,
    /// Over the statement.
    #[serde(with = "serde_bytes")]
    pub signature: Vec<u8>,
}

/// How an operation goes. The first one on a stream is `Of`, and no other is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Progress {
    /// Which operation this stream is about.
    Of(OperationId),
    /// It is in the ledger, on disk.
    Accepted,
    /// Gates are at work.
    Checking,
    /// A process was started.
    Running {
        /// Milliseconds since 1970 by the machine's clock.
        started_at: u64,
    },
    /// A piece of output.
    Output(Chunk),
    /// How far the machine's ledger is on disk: what was told before this, and that something was started, is in it. The
    /// host keeps it with what it stores.
    Ledger(LedgerMark),
    /// What the gates said of an operation that starts, once on a stream: the host looks at the signature while the script
    /// runs. The report at the end of the stream is then without them.
    Receipts(Box<Attested>),
    /// The end. The host answers with `Acknowledge` on the control stream once it is stored.
    Finished(Box<Report>),
}

/// A piece of one output stream. Pieces of a stream come in order; bytes between two of them are lost, as are those that the
/// report says so of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chunk {
    /// Which stream.
    pub stream: OutputStream,
    /// How many bytes of that stream the script wrote before this piece.
    pub offset: u64,
    /// At most [`MAX_CHUNK`].
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// The longest piece of output in one message, in bytes.
pub const MAX_CHUNK: usize = 256 << 10;

/// The two output streams of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the words say it")]
pub enum OutputStream {
    Stdout,
    Stderr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_that_cannot_be_read_has_an_id_where_there_is_one() {
        let id = OperationId::generate();
        let map = |entries: &[(&str, ciborium::Value)]| {
            let entries = entries
                .iter()
                .map(|(key, value)| ((*key).into(), value.clone()))
                .collect();
            codec::encode(&ciborium::Value::Map(entries)).expect("encodes")
        };
        let value = ciborium::Value::serialized(&id).expect("has a form");
        let later = ciborium::Value::Map(vec![("deep".into(), vec![1_u8, 2].into())]);
        for readable in [
            map(&[("operation", value.clone())]),
            map(&[("operation", value.clone()), ("later", later.clone())]),
            map(&[("later", later), ("operation", value.clone())]),
            [map(&[("operation", value.clone())]), vec![0]].concat(),
        ] {
            assert!(codec::decode::<Operation>(&readable).is_err());
            assert_eq!(Operation::id_of_unreadable(&readable), Some(id));
        }
        let twice = map(&[("operation", value.clone()), ("operation", value)]);
        let deep = vec![0x81; 1000];
        for unreadable in [
            &b""[..],
            b"hello",
            &map(&[]),
            &map(&[("operation", "x".into())]),
            &twice,
            &twice[..10],
            &deep,
        ] {
            assert_eq!(
                Operation::id_of_unreadable(unreadable),
                None,
                "{unreadable:?}"
            );
        }
    }
}
