//! What makes schedules run: it sleeps until the next one is due, or something changes.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::select_all;
use futures_util::{StreamExt as _, stream};
use sluice_protocol::ids::JobId;
use tokio::sync::Notify;

use super::{event, fire, plan};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::jobs::Subscription;
use crate::store::{StoreError, schedule_events, schedules};

/// The longest sleep: a clock that was set says so to nobody.
const LOOK: Duration = Duration::from_secs(15);
/// How many schedules are fired at once.
const AT_ONCE: usize = 8;

/// Wakes the driver.
#[derive(Debug, Default)]
pub struct Schedules {
    changed: Notify,
}

impl Schedules {
    /// Something has changed and is committed: there may be more to do, or earlier.
    pub fn wake(&self) {
        self.changed.notify_one();
    }
}

/// What one look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// When a run is due next.
    pub next: Option<UnixMillis>,
    /// Jobs whose end a run waits for.
    pub waits_for: Vec<JobId>,
}

/// Does what is due at `now`.
///
/// # Errors
///
/// Where the database cannot be used; what was planned stays, and is fired by a later look.
pub async fn look(host: &SharedHost, now: UnixMillis) -> Result<Looked, StoreError> {
    // A look that finds nothing is a read.
    while host
        .store
        .read(|conn| Ok::<_, StoreError>(!schedules::due(conn, now, 1)?.is_empty()))?
    {
        let whole = host
            .store
            .write(move |conn| plan::plan_due(conn, now))
            .await?;
        if whole {
            break;
        }
    }
    let rows = host.store.read(schedules::with_waiting)?;
    // The futures are made before they are polled, as those of the preflight are.
    let firing: Vec<_> = rows
        .iter()
        .map(|row| async move { (row, fire::fire_waiting(host, row, now).await) })
        .collect();
    let fired: Vec<_> = stream::iter(firing)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let mut waits_for = Vec::new();
    for (row, one) in fired {
        match one {
            Ok(job) => waits_for.extend(job),
            // One schedule's trouble is not the others'. What waits is on disk.
            Err(error) => {
                tracing::error!(schedule = %row.id, name = row.name, %error, "a schedule cannot be run now; a later look tries again");
            }
        }
    }
    event::fire_due(host, now).await?;
    let (next, next_event) = host.store.read(|conn| {
        Ok::<_, StoreError>((schedules::next_due(conn)?, schedule_events::next_due(conn)?))
    })?;
    let next = next.into_iter().chain(next_event).min();
    Ok(Looked { next, waits_for })
}

/// Runs schedules as long as the host runs.
pub async fn drive(host: SharedHost) -> std::io::Result<()> {
    let mut followed: HashMap<JobId, Subscription> = HashMap::new();
    loop {
        let now = host.clock.now();
        let looked = match look(&host, now).await {
            Ok(looked) => looked,
            Err(error) => {
                tracing::error!(%error, "what is scheduled cannot be run now; trying again");
                tokio::time::sleep(LOOK).await;
                continue;
            }
        };
        followed.retain(|job, _| looked.waits_for.contains(job));
        let before = followed.len();
        for job in &looked.waits_for {
            followed
                .entry(*job)
                .or_insert_with(|| host.events.subscribe(*job));
        }
        if followed.len() > before {
            // What ended before it was followed is noticed by another look.
            continue;
        }
        tokio::select! {
            () = host.clock.wait(now, looked.next, LOOK) => {}
            () = host.schedules.changed.notified() => {}
            () = any(&mut followed), if !followed.is_empty() => {}
        }
    }
}

/// Waits until something about one of the jobs has changed.
async fn any(followed: &mut HashMap<JobId, Subscription>) {
    let changes = followed
        .values_mut()
        .map(|subscription| Box::pin(subscription.changed()));
    select_all(changes).await;
}
