//! Receipts: signed with the key of this machine's certificate, told with the report, and kept in the machine's own ledger, so
//! that its owner can see what its gates said without asking the host.
//!
//! Nothing of it is between the acceptance of an operation and its start: they are signed while the script runs, or in the end
//! where none does, and kept in the transaction that keeps the report.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sluice_database::rusqlite::{Connection, params};
use sluice_gate_client::Circumstances;
use sluice_protocol::causes::Causes;
use sluice_protocol::codec::EncodeError;
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::OperationId;
use sluice_protocol::receipt::{Attestation, LARGEST_INPUTS, Receipt, Subject, statement};
use sluice_protocol::report::Report;
use sluice_transport::identity::{AgentIdentity, IdentityError, MachineIdentity, MachineKey};

use crate::audit::timestamp;
use crate::ledger::LedgerError;
use crate::stored;

/// Of how many operations that have ended the ledger keeps the receipts.
const KEPT: i64 = 1000;

/// Signs receipts for this machine.
#[derive(Debug)]
pub struct Receipts {
    machine: MachineIdentity,
    key: MachineKey,
}

impl Receipts {
    /// Signs with the key of this identity, which a renewed certificate has too.
    ///
    /// # Errors
    ///
    /// Where the key cannot be read.
    pub fn new(identity: &AgentIdentity) -> Result<Self, IdentityError> {
        let key = identity.key().pkcs8().to_vec();
        Ok(Self {
            machine: identity.machine(),
            key: MachineKey::from_pkcs8(key.into())?,
        })
    }

    /// Signs the receipts of an operation; none where it has none. `asked` is what the gates were asked beside the submission,
    /// where this agent asked them itself.
    pub(crate) fn sign(
        &self,
        operation: OperationId,
        receipts: &[Receipt],
        asked: Option<&Circumstances>,
    ) -> Result<Option<Attestation>, SignError> {
        if receipts.is_empty() {
            return Ok(None);
        }
        let MachineIdentity { tenant, machine } = self.machine;
        let subject = Subject {
            tenant,
            machine,
            operation,
        };
        let inputs = asked.and_then(|asked| asked.encode(LARGEST_INPUTS));
        let statement = statement(subject, receipts, inputs.as_deref().map(Digest::of))?;
        Ok(Some(Attestation {
            signature: self.key.sign(&statement)?,
            inputs,
        }))
    }
}

/// Puts what was signed into the report whose receipts it is over. A host takes none that are not signed, so where they could
/// not be they are left out.
pub(crate) fn attest(report: &mut Report, signed: Result<Option<Attestation>, SignError>) {
    match signed {
        // Those that had no room in the report have no signature there either.
        Ok(attestation) => report.attestation = attestation.filter(|_| !report.receipts.is_empty()),
        Err(error) => {
            let reason = Causes(&error).to_string();
            tracing::error!(reason, "receipts cannot be signed");
            let note = format!("the receipts could not be signed and are left out: {reason}");
            report.notes.push(note);
            report.receipts.clear();
        }
    }
}

/// Receipts are not signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    /// They have no encoding: a bug.
    #[error("they cannot be written")]
    Encode(#[from] EncodeError),
    /// No random numbers.
    #[error("the machine's key cannot be used")]
    Key(#[from] IdentityError),
}

/// What the ledger keeps: everything that the signature is over, but the inputs themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Signed {
    receipts: Vec<Receipt>,
    inputs_sha256: Option<Digest>,
    #[serde(with = "serde_bytes")]
    signature: Vec<u8>,
}

impl Signed {
    /// Those of a report; none where it has none.
    pub(crate) fn of(report: &Report) -> Option<Self> {
        let attestation = report.attestation.as_ref()?;
        Some(Self {
            receipts: report.receipts.clone(),
            inputs_sha256: attestation.inputs_sha256(),
            signature: attestation.signature.clone(),
        })
    }

    /// Keeps them, in the transaction that keeps the report, and forgets the oldest ones.
    pub(crate) fn keep(
        encoded: &[u8],
        connection: &Connection,
        operation: OperationId,
        finished_at: i64,
    ) -> Result<(), LedgerError> {
        connection
            .prepare_cached(
                "INSERT INTO receipts (operation, finished_at, signed) VALUES (?, ?, ?)",
            )?
            .execute(params![operation.to_string(), finished_at, encoded])?;
        connection
            .prepare_cached("DELETE FROM receipts WHERE seq <= ?")?
            .execute([connection.last_insert_rowid() - KEPT])?;
        Ok(())
    }
}

/// The receipts of one operation, for the machine's owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Of which operation.
    pub operation: String,
    /// RFC 3339.
    pub finished_at: String,
    /// One for each call of a gate.
    pub receipts: Vec<Receipt>,
    /// Of what the gates were asked beside the submission, where that was kept for the host.
    pub inputs_sha256: Option<Digest>,
    /// In base64: ECDSA on P-256 with SHA-256, DER, by the key of the machine's certificate.
    pub signature: String,
}

/// The receipts that are kept, the oldest first; of one operation where one is asked for.
pub(crate) fn read(
    connection: &Connection,
    operation: Option<OperationId>,
) -> Result<Vec<Listed>, LedgerError> {
    let operation = operation.map(|operation| operation.to_string());
    let mut statement = connection.prepare(
        "SELECT operation, finished_at, signed FROM receipts WHERE ?1 IS NULL OR operation = ?1 ORDER BY seq",
    )?;
    let mut rows = statement.query([operation])?;
    let mut listed = Vec::new();
    while let Some(row) = rows.next()? {
        let finished_at: i64 = row.get("finished_at")?;
        let signed: Vec<u8> = row.get("signed")?;
        // Those that another version kept are passed over: there is nothing else to say about them.
        let Ok(Signed {
            receipts,
            inputs_sha256,
            signature,
        }) = stored::decode(Some(&signed))
        else {
            tracing::warn!("receipts that another version kept are left out");
            continue;
        };
        listed.push(Listed {
            operation: row.get("operation")?,
            finished_at: timestamp(u64::try_from(finished_at).unwrap_or_default()),
            receipts,
            inputs_sha256,
            signature: STANDARD.encode(signature),
        });
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receipts_of_the_newest_operations_are_kept_and_no_others() {
        let connection = Connection::open_in_memory().expect("opens");
        let table = include_str!("../migrations/0002_receipts.sql");
        connection.execute_batch(table).expect("makes the table");
        let signed = stored::encode(&Signed {
            receipts: Vec::new(),
            inputs_sha256: None,
            signature: vec![1],
        });
        let (signed, last) = (signed.expect("encodes"), OperationId::generate());
        for _ in 0..KEPT + 2 {
            let other = OperationId::generate();
            Signed::keep(&signed, &connection, other, 1).expect("writes");
        }
        Signed::keep(&signed, &connection, last, 2).expect("writes");
        let kept = read(&connection, None).expect("reads");
        assert_eq!(i64::try_from(kept.len()), Ok(KEPT));
        let newest = kept.last().map(|newest| newest.operation.clone());
        assert_eq!(newest, Some(last.to_string()));
        // What another version kept is passed over, and the others are there.
        connection
            .execute(
                "UPDATE receipts SET signed = x'ff' WHERE finished_at = 2",
                [],
            )
            .expect("changes");
        let rest = read(&connection, None).expect("reads");
        assert_eq!(i64::try_from(rest.len()), Ok(KEPT - 1));
        assert_eq!(read(&connection, Some(last)).expect("reads"), []);
    }
}
