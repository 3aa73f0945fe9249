//! Operations of a machine of which nobody will ever know: the machine that had them is not there any more.

use sluice_protocol::ending::{Ending, State};
use sluice_protocol::ids::{JobId, MachineId, OperationId, TenantId};
use sluice_protocol::report::Report;

use super::outcome::{Ended, Machine, events_of_end};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::store::operations::{self, From, OperationRow};
use crate::store::tenants::Tenant;
use crate::store::{Connection, StoreError, jobs};

/// Ends as `interrupted` what was sent to a machine and has not ended, in the caller's transaction. What still waits here goes
/// on waiting. Gives the jobs to tell of it.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn interrupt_all_of_machine(
    conn: &Connection,
    tenant: &Tenant,
    machine: MachineId,
    now: UnixMillis,
) -> Result<Vec<JobId>, StoreError> {
    let mut ended = Vec::new();
    for operation in operations::open_of_machine(conn, tenant.id, machine)? {
        if !matches!(operation.state, State::Held | State::Queued)
            && interrupt(conn, tenant, &operation, now)?
        {
            ended.push(operation.job);
        }
    }
    Ok(ended)
}

/// Whether all of these are operations that have not ended here.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn are_open(
    conn: &Connection,
    tenant: TenantId,
    ids: &[OperationId],
) -> Result<bool, StoreError> {
    for id in ids {
        let found = operations::find(conn, tenant, *id)?;
        if found.is_none_or(|operation| operation.state.is_terminal()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Ends what a machine had taken in, and does not have (`has`) when it connects: it has lost that, or has told the end to another
/// copy of this database. To be called before anything goes out over that connection.
///
/// # Errors
///
/// Where the database cannot be used.
pub async fn interrupt_forgotten(
    host: &SharedHost,
    machine: &Machine,
    has: &[OperationId],
    now: UnixMillis,
) -> Result<(), StoreError> {
    let open = host
        .store
        .read(|conn| operations::open_of_machine(conn, machine.tenant.id, machine.id))?;
    // Taken in is on the machine's disk before it says so.
    let is_forgotten = |operation: &OperationRow| {
        let taken_in = matches!(
            operation.state,
            State::Accepted | State::Checking | State::Running
        );
        taken_in && !has.contains(&operation.id)
    };
    let forgotten: Vec<_> = open.into_iter().filter(is_forgotten).collect();
    if forgotten.is_empty() {
        return Ok(());
    }
    let tenant = machine.tenant.clone();
    let ended = host
        .store
        .write(move |conn| {
            let mut ended = Vec::new();
            for operation in forgotten {
                if interrupt(conn, &tenant, &operation, now)? {
                    ended.push(operation.job);
                }
            }
            Ok::<_, StoreError>(ended)
        })
        .await?;
    tell_ended(host, ended);
    Ok(())
}

/// Ends one operation so. Says no where it had ended.
fn interrupt(
    conn: &Connection,
    tenant: &Tenant,
    operation: &OperationRow,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let report = Report::without_process(Ending::Interrupted, now.to_wire());
    if !operations::end(conn, operation.id, From::Open, &report)? {
        return Ok(false);
    }
    let ended = Ended {
        operation,
        script_sha256: jobs::script_sha256(conn, tenant.id, operation.job)?,
        report: &report,
        verdict_is_recorded: false,
    };
    let events = events_of_end(&Event::by_host(EventKind::ScriptExecutionError), &ended);
    audit::append(conn, tenant, now, events)?;
    Ok(true)
}

/// Tells who follows them that operations of these jobs were interrupted, once that is committed.
pub fn tell_ended(host: &SharedHost, jobs: Vec<JobId>) {
    for job in jobs {
        host.metrics.operation_ended(State::Interrupted);
        host.events.notify(job);
        host.rollouts.wake(job);
    }
}
