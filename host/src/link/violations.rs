//! Machines that break the protocol. Each time counts; the audit log has one entry for each machine and minute, so that
//! whoever does it again and again cannot fill it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sluice_protocol::ending::short_line;
use sluice_protocol::ids::MachineId;
use sluice_transport::identity::MachineIdentity;

use super::Link;
use crate::audit::{self, Event, EventKind};
use crate::store::{StoreError, machines, tenants};

/// The time between two entries about one machine.
const PAUSE: Duration = Duration::from_secs(60);
/// How much of a reason is kept, in characters: it may quote the machine.
const REASON: usize = 300;

/// The violations that have no entry yet.
#[derive(Debug, Default)]
pub(super) struct Violations(Mutex<HashMap<MachineId, Count>>);

#[derive(Debug)]
struct Count {
    entry_at: Instant,
    since: u64,
}

impl Violations {
    /// Counts one at `now`. Where it is time for an entry, says how many there were since the last one.
    fn count(&self, machine: MachineId, now: Instant) -> Option<u64> {
        let mut machines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = machines.get_mut(&machine)
            && now.saturating_duration_since(count.entry_at) < PAUSE
        {
            count.since += 1;
            return None;
        }
        let since = machines.remove(&machine).map_or(0, |count| count.since);
        // Those that have nothing left to say need not be remembered.
        machines.retain(|_, count| {
            count.since > 0 || now.saturating_duration_since(count.entry_at) < PAUSE
        });
        machines.insert(
            machine,
            Count {
                entry_at: now,
                since: 0,
            },
        );
        Some(since + 1)
    }
}

/// Counts what a machine did, and puts it on the record.
pub(super) async fn record(
    link: &Link,
    machine: MachineIdentity,
    remote: SocketAddr,
    reason: &str,
) {
    let reason = short_line(reason, REASON);
    tracing::warn!(%remote, machine = %machine.machine, reason, "a machine broke the protocol");
    link.host.metrics.violation();
    let Some(count) = link.violations.count(machine.machine, Instant::now()) else {
        return;
    };
    let now = link.host.clock.now();
    let recorded = link.host.store.write(move |conn| {
        let Some(tenant) = tenants::find(conn, machine.tenant)? else {
            return Ok(());
        };
        let Some(row) = machines::find(conn, tenant.id, machine.machine)? else {
            return Ok(());
        };
        let event = Event::by_agent(EventKind::MachineProtocolViolation, &row.name)
            .detail("reason", reason)
            .detail("address", remote.ip().to_string())
            .detail("count", count);
        audit::append(conn, &tenant, now, [event])?;
        Ok::<_, StoreError>(())
    });
    if let Err(error) = recorded.await {
        tracing::error!(%error, "a machine's violation of the protocol is not on the record");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_does_it_again_and_again_has_one_entry_a_minute_that_counts_them_all() {
        let (violations, start) = (Violations::default(), Instant::now());
        let (one, other) = (MachineId::generate(), MachineId::generate());
        assert_eq!(violations.count(one, start), Some(1));
        for _ in 0..500 {
            assert_eq!(violations.count(one, start + PAUSE / 2), None);
        }
        assert_eq!(violations.count(other, start + PAUSE / 2), Some(1));
        assert_eq!(violations.count(one, start + PAUSE), Some(501));
        assert_eq!(violations.count(one, start + PAUSE), None);
        assert_eq!(violations.count(one, start + 3 * PAUSE), Some(2));
        let kept = violations.0.lock().expect("is whole");
        assert_eq!(kept.len(), 1, "the other has nothing left to say");
    }
}
