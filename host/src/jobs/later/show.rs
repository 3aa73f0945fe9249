//! What an operator gets to see of machines that join a job later.

use sluice_api_types::later::{Later, LaterRefusal};
use sluice_protocol::ids::{JobId, TenantId};

use crate::store::{Connection, StoreError, later};

/// The most refusals that are shown.
const SHOWN: u32 = 100;

/// None where the job's machines were fixed when it was made.
pub(in crate::jobs) fn show(
    conn: &Connection,
    tenant: TenantId,
    job: JobId,
) -> Result<Option<Later>, StoreError> {
    let Some(row) = later::find(conn, tenant, job)? else {
        return Ok(None);
    };
    let (refused, first) = later::refused(conn, job, SHOWN)?;
    let (closed_at, closed_because) = row.closed.unzip();
    Ok(Some(Later {
        until: row.until.to_string(),
        joined: row.joined,
        refused,
        refusals: first
            .into_iter()
            .map(|row| LaterRefusal {
                machine: row.machine,
                since: row.since.to_string(),
                reason: row.reason,
            })
            .collect(),
        closed_at: closed_at.map(|at| at.to_string()),
        closed_because,
    }))
}
