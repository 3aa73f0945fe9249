//! Whether receipts are those that the machine signed, for the operation that it reports.

use sluice_protocol::ids::OperationId;
use sluice_protocol::receipt::{LARGEST_INPUTS, Subject, statement};
use sluice_protocol::report::Report;
use sluice_transport::identity::is_signed;

use crate::jobs::Machine;

/// What a machine signed of its receipts. There is none that was not verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Verified {
    pub(crate) signature: Vec<u8>,
    /// That of the connection it came over (DER).
    pub(crate) certificate: Vec<u8>,
    pub(crate) inputs: Option<Vec<u8>>,
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verified").finish_non_exhaustive()
    }
}

/// A report, and what was verified of its receipts.
#[derive(Debug, Clone, PartialEq)]
pub struct Reported {
    pub(crate) report: Report,
    pub(crate) receipts: Option<Verified>,
}

impl From<Report> for Reported {
    /// Nothing was verified, so nothing counts as signed.
    fn from(report: Report) -> Self {
        Self {
            report: Report {
                attestation: None,
                ..report
            },
            receipts: None,
        }
    }
}

/// Verifies the receipts of a report that came over a connection with this certificate.
///
/// # Errors
///
/// They are not what this machine signed for this operation: it broke the protocol.
pub fn verify(
    machine: &Machine,
    certificate: &[u8],
    operation: OperationId,
    mut report: Report,
) -> Result<Reported, &'static str> {
    let attestation = match (report.attestation.take(), report.receipts.is_empty()) {
        (None, true) => {
            return Ok(Reported {
                report,
                receipts: None,
            });
        }
        (None, false) => return Err("a machine did not sign its receipts"),
        (Some(_), true) => return Err("a machine signed receipts, and brought none"),
        (Some(attestation), false) => attestation,
    };
    if attestation
        .inputs
        .as_ref()
        .is_some_and(|inputs| inputs.len() > LARGEST_INPUTS)
    {
        return Err("a machine brought more with its receipts than is kept");
    }
    let subject = Subject {
        tenant: machine.tenant.id,
        machine: machine.id,
        operation,
    };
    let is_its_own = statement(subject, &report.receipts, attestation.inputs_sha256())
        .is_ok_and(|statement| is_signed(certificate, &statement, &attestation.signature));
    if !is_its_own {
        return Err("a machine's receipts are not what it signed, or are not of this operation");
    }
    Ok(Reported {
        report,
        receipts: Some(Verified {
            signature: attestation.signature,
            certificate: certificate.to_vec(),
            inputs: attestation.inputs,
        }),
    })
}
