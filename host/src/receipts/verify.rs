//! Whether receipts are those that the machine signed, for the operation that it reports.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sluice_protocol::ids::OperationId;
use sluice_protocol::receipt::{
    Attestation, Attested, LARGEST_INPUTS, Receipt, Subject, statement,
};
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
#[derive(Debug, Clone)]
pub struct Reported {
    pub(crate) report: Report,
    pub(crate) receipts: Option<Verified>,
    /// They are in the store.
    pub(crate) recorded: Recorded,
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
            recorded: Recorded::default(),
        }
    }
}

/// Whose receipts are looked at, and over which connection they came.
#[derive(Debug, Clone, Copy)]
pub struct Signer<'a> {
    /// By its certificate.
    pub(crate) machine: &'a Machine,
    /// That of the connection (DER).
    pub(crate) certificate: &'a [u8],
}

/// Receipts that came ahead of their report, as the machine signed them.
#[derive(Debug, Clone)]
pub struct Ahead {
    pub(crate) receipts: Vec<Receipt>,
    pub(crate) verified: Verified,
    pub(crate) recorded: Recorded,
}

/// Whether the store has what came ahead, with its entry in the audit log. The thread that writes says so, in the order of
/// its changes.
#[derive(Debug, Clone, Default)]
pub struct Recorded(Arc<AtomicBool>);

impl Recorded {
    pub(crate) fn set(&self, recorded: bool) {
        self.0.store(recorded, Ordering::Relaxed);
    }

    pub(crate) fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Ahead {
    /// Verifies receipts that came ahead of their report.
    ///
    /// # Errors
    ///
    /// They are not what this machine signed for this operation: it broke the protocol.
    pub fn verify(
        signer: Signer<'_>,
        operation: OperationId,
        attested: Attested,
    ) -> Result<Self, &'static str> {
        let Attested {
            receipts,
            attestation,
        } = attested;
        let verified = check(signer, operation, &receipts, Some(attestation))?;
        let verified = verified.ok_or("a machine signed receipts, and brought none")?;
        Ok(Self {
            receipts,
            verified,
            recorded: Recorded::default(),
        })
    }
}

/// Verifies the receipts of a report; those that came `ahead` of it were.
///
/// # Errors
///
/// They are not what this machine signed for this operation, or came twice: it broke the protocol.
pub fn verify(
    signer: Signer<'_>,
    operation: OperationId,
    mut report: Report,
    ahead: Option<Ahead>,
) -> Result<Reported, &'static str> {
    let attestation = report.attestation.take();
    let Some(ahead) = ahead else {
        let receipts = check(signer, operation, &report.receipts, attestation)?;
        return Ok(Reported {
            report,
            receipts,
            recorded: Recorded::default(),
        });
    };
    if attestation.is_some() || !report.receipts.is_empty() {
        return Err("a machine brought its receipts twice");
    }
    report.receipts = ahead.receipts;
    Ok(Reported {
        report,
        receipts: Some(ahead.verified),
        recorded: ahead.recorded,
    })
}

/// What was verified of these receipts; none where there are none.
fn check(
    signer: Signer<'_>,
    operation: OperationId,
    receipts: &[Receipt],
    attestation: Option<Attestation>,
) -> Result<Option<Verified>, &'static str> {
    let attestation = match (attestation, receipts.is_empty()) {
        (None, true) => return Ok(None),
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
    let Signer {
        machine,
        certificate,
    } = signer;
    let subject = Subject {
        tenant: machine.tenant.id,
        machine: machine.id,
        operation,
    };
    let is_its_own = statement(subject, receipts, attestation.inputs_sha256())
        .is_ok_and(|statement| is_signed(certificate, &statement, &attestation.signature));
    if !is_its_own {
        return Err("a machine's receipts are not what it signed, or are not of this operation");
    }
    Ok(Some(Verified {
        signature: attestation.signature,
        certificate: certificate.to_vec(),
        inputs: attestation.inputs,
    }))
}
