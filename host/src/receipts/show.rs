//! The receipts of an operation, with what anyone needs who does not believe this host.

use sluice_protocol::ids::OperationId;
use sluice_protocol::receipt::Receipt;

use super::Verified;
use crate::store::operations::{self, OperationRow};
use crate::store::receipts::{self, In};
use crate::store::tenants::Tenant;
use crate::store::{Connection, StoreError};

/// The receipts of an operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// The operation.
    pub operation: OperationRow,
    /// In the order of the calls.
    pub receipts: Vec<Receipt>,
    /// What the machine signed: the statement, and how that is verified. None where the host asked its own gates, and nothing
    /// was sent.
    pub signed: Option<(Vec<u8>, Verified)>,
}

/// The receipts of the tenant's operation; none where it has no such operation.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn show(
    conn: &Connection,
    tenant: &Tenant,
    id: OperationId,
) -> Result<Option<Shown>, StoreError> {
    let Some((operation, reports)) = operations::find_reported(conn, tenant.id, id)? else {
        return Ok(None);
    };
    // What came ahead of its report cannot be shown before that is here.
    let row = receipts::find(conn, tenant.id, id)?.filter(|row| row.place != In::Ahead);
    let report = match row.as_ref().map(|row| row.place) {
        Some(In::LateReport) => reports.late,
        Some(In::Report | In::Ahead) | None => reports.report,
    };
    let receipts = report.map_or_else(Vec::new, |report| report.receipts);
    let signed = row.map(|row| {
        let statement = row
            .statement(tenant.id, id, &receipts)
            .map_err(|error| StoreError::Corrupt(error.to_string()))?;
        Ok::<_, StoreError>((statement, row.verified))
    });
    Ok(Some(Shown {
        operation,
        signed: signed.transpose()?,
        receipts,
    }))
}
