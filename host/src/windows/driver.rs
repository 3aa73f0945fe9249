//! What has windows noticed when they open and close: it sleeps until one does, or something changes.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_protocol::causes::Causes;
use sluice_protocol::ending::State;
use tokio::sync::Notify;
use uuid::Uuid;

use super::hold::calendar;
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::jobs;
use crate::store::{StoreError, tenants, windows};

/// The longest sleep: a clock that was set says so to nobody.
const LOOK: Duration = Duration::from_secs(15);
/// How long it waits after the store has failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Wakes the driver.
#[derive(Debug, Default)]
pub struct Windows {
    changed: Notify,
}

impl Windows {
    /// Something has changed and is committed: a window, or which machines one is about.
    pub fn wake(&self) {
        self.changed.notify_one();
    }
}

/// Which windows are open, and when one of them opens or closes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    open: BTreeMap<Uuid, bool>,
    next: Option<UnixMillis>,
}

async fn see(host: &SharedHost, now: UnixMillis) -> Result<Seen, StoreError> {
    let rows = host.store.scan(windows::in_use).await?;
    let mut seen = Seen::default();
    // One that cannot be read opens nothing.
    for (row, calendar) in rows
        .iter()
        .filter_map(|row| Some((row, calendar(row).ok()?)))
    {
        let is_open = calendar.is_open(now);
        seen.open.insert(row.id, is_open);
        let next = if is_open {
            Some(calendar.closes(now))
        } else {
            calendar.opens(now)
        };
        seen.next = next.into_iter().chain(seen.next).min();
    }
    Ok(seen)
}

/// Looks at the windows at `now`, and has what is held looked at where another is open than in `before`, or was changed.
///
/// # Errors
///
/// Where the database cannot be used; a later look tries again.
pub async fn look(
    host: &SharedHost,
    before: &Seen,
    was_changed: bool,
    now: UnixMillis,
) -> Result<Seen, StoreError> {
    let seen = see(host, now).await?;
    if seen.open == before.open && !was_changed {
        return Ok(seen);
    }
    host.rollouts.wake_all();
    // What had waited for its machine when a window became about it has no rollout, and is not sent by one.
    for tenant in host.store.scan(tenants::list).await? {
        if let Err(error) = jobs::deliver_all(host, &tenant, &[State::Queued], now).await {
            tracing::error!(tenant = tenant.name, error = %Causes(&error), "what waited for a window was not delivered");
        }
    }
    Ok(seen)
}

/// Watches windows as long as the host runs.
pub async fn drive(host: SharedHost) -> std::io::Result<()> {
    let (mut seen, mut was_changed) = (Seen::default(), false);
    loop {
        let now = host.clock.now();
        match look(&host, &seen, was_changed, now).await {
            Ok(found) => seen = found,
            Err(error) => {
                tracing::error!(error = %Causes(&error), "windows cannot be looked at now; trying again");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        }
        was_changed = tokio::select! {
            () = host.windows.changed.notified() => true,
            () = host.clock.wait(now, seen.next, LOOK) => false,
        };
    }
}
