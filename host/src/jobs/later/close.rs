//! From when on no machine joins a job any more.

use sluice_protocol::ids::{JobId, TenantId};

use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::store::{Connection, StoreError, later, tenants};

/// How many jobs one transaction closes.
const STEP: u32 = 100;

/// Fixes the machines of a job in the caller's transaction; gives what is to be recorded, which is nothing where they were.
pub(in crate::jobs) fn close(
    conn: &Connection,
    tenant: TenantId,
    job: JobId,
    event: Event,
    reason: &str,
    now: UnixMillis,
) -> Result<Option<Event>, StoreError> {
    let closed = later::close(conn, tenant, job, reason, now)?;
    Ok(closed.then(|| event.of_job(job).detail("reason", reason)))
}

/// Fixes the machines of jobs that have expired.
pub(in crate::jobs) async fn close_overdue(
    host: &SharedHost,
    now: UnixMillis,
) -> Result<(), StoreError> {
    loop {
        let overdue = host.store.read(|conn| later::overdue(conn, now, STEP))?;
        if overdue.is_empty() {
            return Ok(());
        }
        let jobs: Vec<JobId> = overdue.iter().map(|(_, job)| *job).collect();
        host.store
            .write(move |conn| {
                for (tenant, job) in overdue {
                    let event = Event::by_host(EventKind::JobTargetsFixed);
                    let event = close(conn, tenant, job, event, "the job has expired", now)?;
                    if let (Some(tenant), Some(event)) = (tenants::find(conn, tenant)?, event) {
                        audit::append(conn, &tenant, now, [event])?;
                    }
                }
                Ok::<_, StoreError>(())
            })
            .await?;
        for job in jobs {
            host.events.notify(job);
            host.rollouts.wake(job);
        }
    }
}
