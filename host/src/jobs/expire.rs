//! What time ends: operations that could not start in time, and those whose machine fell silent.

use sluice_protocol::ending::{Ending, State};
use sluice_protocol::report::Report;

use super::later;
use super::outcome::{Ended, events_of_end};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::store::operations::{self, From};
use crate::store::{StoreError, jobs, tenants};

/// How many operations one transaction ends.
const STEP: u32 = 200;

/// Ends what is overdue at `now`, and says how many those were.
///
/// # Errors
///
/// Where the database cannot be used; the next sweep tries again.
pub async fn sweep(host: &SharedHost, now: UnixMillis) -> Result<usize, StoreError> {
    let mut count = 0;
    loop {
        let overdue = host
            .store
            .scan(move |conn| operations::overdue(conn, now, STEP))
            .await?;
        if overdue.is_empty() {
            later::close_overdue(host, now).await?;
            return Ok(count);
        }
        let ended = host
            .store
            .write(move |conn| {
                let mut ended = Vec::new();
                for operation in overdue {
                    let (ending, from) = match operation.state {
                        State::Held | State::Queued => (Ending::Expired, From::NotSent),
                        _ => (Ending::Interrupted, From::Open),
                    };
                    let report = Report::without_process(ending, now.to_wire());
                    if !operations::end(conn, operation.id, from, &report)? {
                        continue;
                    }
                    let Some(tenant) = tenants::find(conn, operation.tenant)? else {
                        continue;
                    };
                    let script_sha256 = jobs::script_sha256(conn, tenant.id, operation.job)?;
                    let over = Ended {
                        operation: &operation,
                        script_sha256,
                        report: &report,
                        verdict_is_recorded: false,
                    };
                    audit::append(
                        conn,
                        &tenant,
                        now,
                        events_of_end(&Event::by_host(EventKind::ScriptExpired), &over),
                    )?;
                    ended.push((operation.job, report.ending.state()));
                }
                Ok::<_, StoreError>(ended)
            })
            .await?;
        if ended.is_empty() {
            return Ok(count);
        }
        count += ended.len();
        for (job, state) in ended {
            host.metrics.operation_ended(state);
            host.events.notify(job);
            host.rollouts.wake(job);
        }
    }
}
