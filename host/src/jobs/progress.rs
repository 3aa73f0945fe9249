//! What a machine says while it works. Nobody waits for these writes: they ride along with the next commit, which for a
//! short script is the one of its report.

use sluice_protocol::ending::State;
use sluice_protocol::ids::{JobId, OperationId};
use sluice_protocol::message::operation::Chunk;

use super::outcome::{Machine, started_event, verdict_event};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::receipts::Ahead;
use crate::store::operations::{self, OperationRow};
use crate::store::output::{self, Kept};
use crate::store::receipts::In;
use crate::store::{self, Connection, StoreError, jobs};

/// Stores a step: accepted, checking, or running since `started` by the machine's clock.
///
/// # Errors
///
/// Where the writer has stopped.
pub async fn store_step(
    host: &SharedHost,
    machine: &Machine,
    operation: OperationId,
    state: State,
    started: Option<UnixMillis>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let (machine, host_after) = (machine.clone(), host.clone());
    host.store
        .write_lazily(
            move |conn| step(conn, &machine, operation, state, started, now),
            move |stored| match stored {
                Ok(Some(job)) => host_after.events.notify(job),
                Ok(None) => {}
                Err(error) => tracing::error!(%operation, %error, "a machine's progress could not be stored; its report will tell the end"),
            },
        )
        .await
}

/// Takes the step, and gives the job where that changed something.
fn step(
    conn: &Connection,
    machine: &Machine,
    id: OperationId,
    state: State,
    started: Option<UnixMillis>,
    now: UnixMillis,
) -> Result<Option<JobId>, StoreError> {
    if !operations::set_progress(conn, machine.id, id, state, started)? {
        return Ok(None);
    }
    let Some(row) = operations::find(conn, machine.tenant.id, id)? else {
        return Ok(None);
    };
    if let Some(started) = started {
        let script_sha256 = jobs::script_sha256(conn, machine.tenant.id, row.job)?;
        let source = Event::by_agent(EventKind::ScriptStarted, &machine.name);
        let event = started_event(&source, &row, script_sha256, started);
        audit::append(conn, &machine.tenant, now, [event])?;
    }
    Ok(Some(row.job))
}

/// Stores what a machine signed of the receipts of an operation that has not ended, and records what its gates said.
///
/// # Errors
///
/// Where the writer has stopped.
pub async fn store_receipts(
    host: &SharedHost,
    machine: &Machine,
    operation: OperationId,
    ahead: Ahead,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let (machine, recorded) = (machine.clone(), ahead.recorded.clone());
    host.store
        .write_lazily(
            move |conn| {
                let is_recorded = receipts(conn, &machine, operation, &ahead, now)?;
                ahead.recorded.set(is_recorded);
                Ok::<_, StoreError>(())
            },
            move |stored| {
                if let Err(error) = stored {
                    recorded.set(false);
                    tracing::error!(%operation, %error, "what a machine's gates said could not be stored; it is with the report");
                }
            },
        )
        .await
}

/// Keeps them and records what they say, and says whether that is so: of an operation of this machine that has not ended.
fn receipts(
    conn: &Connection,
    machine: &Machine,
    id: OperationId,
    ahead: &Ahead,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let row = open(conn, machine, id)?;
    // What was not sent has started nowhere.
    let Some(row) = row.filter(|row| !matches!(row.state, State::Held | State::Queued)) else {
        return Ok(false);
    };
    if store::receipts::is_there(conn, id)? {
        // Over another link. What was signed anew since comes with the report.
        return Ok(false);
    }
    let (tenant, verified) = (&machine.tenant, &ahead.verified);
    store::receipts::insert(conn, tenant.id, machine.id, id, In::Ahead, verified)?;
    let script_sha256 = jobs::script_sha256(conn, tenant.id, row.job)?;
    let source = Event::by_agent(EventKind::ScriptGateVerdict, &machine.name);
    let event = verdict_event(&source, &row, script_sha256, &ahead.receipts);
    audit::append(conn, tenant, now, [event])?;
    Ok(true)
}

/// The operation, where it is this machine's and has not ended.
fn open(
    conn: &Connection,
    machine: &Machine,
    id: OperationId,
) -> Result<Option<OperationRow>, StoreError> {
    let row = operations::find(conn, machine.tenant.id, id)?;
    Ok(row.filter(|row| row.machine == Some(machine.id) && !row.state.is_terminal()))
}

/// Stores a piece of output of an operation that has not ended.
///
/// # Errors
///
/// Where the writer has stopped.
pub async fn store_output(
    host: &SharedHost,
    machine: &Machine,
    operation: OperationId,
    chunk: Chunk,
) -> Result<(), StoreError> {
    let (machine, host_after) = (machine.clone(), host.clone());
    host.store
        .write_lazily(
            move |conn| piece(conn, &machine, operation, &chunk),
            move |stored| match stored {
                Ok(Some((job, Kept::Stored))) => host_after.events.notify(job),
                Ok(Some((job, Kept::MadeRoom))) => {
                    host_after.metrics.output_dropped();
                    host_after.events.notify(job);
                }
                Ok(Some((_, Kept::Dropped))) => {
                    host_after.metrics.output_dropped();
                    tracing::debug!(%operation, "a piece of output was dropped: no stream has a place for it");
                }
                Ok(Some((_, Kept::Known)) | None) => {}
                Err(error) => tracing::error!(%operation, %error, "a piece of output could not be stored; the result will say that it is lost"),
            },
        )
        .await
}

/// Keeps the piece, and gives the job and what became of it, where it is one of an open operation of this machine.
fn piece(
    conn: &Connection,
    machine: &Machine,
    id: OperationId,
    chunk: &Chunk,
) -> Result<Option<(JobId, Kept)>, StoreError> {
    let Some(row) = open(conn, machine, id)? else {
        return Ok(None);
    };
    let kept = output::append(conn, id, chunk, row.output_limit)?;
    Ok(Some((row.job, kept)))
}
