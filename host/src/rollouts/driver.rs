//! What makes rollouts go on: it sleeps until an operation of one has ended.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use sluice_protocol::causes::Causes;
use sluice_protocol::ids::JobId;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::advance;
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::store::tenants::{self, Tenant};
use crate::store::{StoreError, rollouts};

/// How many rollouts are looked at side by side.
const AT_ONCE: usize = 8;
/// How long it waits after the store has failed.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest sleep: a clock that was set says so to nobody.
const LOOK: Duration = Duration::from_secs(15);

/// Which rollouts there may be something to do for. The truth is in the store; this says only where to look.
#[derive(Debug, Default)]
pub struct Rollouts {
    known: Mutex<Known>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Known {
    /// Those that have not ended.
    open: HashMap<JobId, Tenant>,
    /// Those of them where something has changed.
    changed: BTreeSet<JobId>,
}

impl Rollouts {
    /// A rollout is stored from now on.
    pub fn begin(&self, job: JobId, tenant: Tenant) {
        self.lock().open.insert(job, tenant);
    }

    /// An operation of this job has ended, and that is committed. Costs next to nothing where the job has no rollout.
    pub fn wake(&self, job: JobId) {
        let mut known = self.lock();
        if known.open.contains_key(&job) {
            known.changed.insert(job);
            self.changed.notify_one();
        }
    }

    /// Something about all of them may have changed.
    pub fn wake_all(&self) {
        let mut known = self.lock();
        known.changed = known.open.keys().copied().collect();
        self.changed.notify_one();
    }

    /// A rollout is over.
    pub(super) fn forget(&self, job: JobId) {
        self.lock().open.remove(&job);
    }

    /// What is to be looked at. Ends that come in the meantime are for the next look, all of a job's together.
    fn take(&self) -> Vec<(JobId, Tenant)> {
        let mut known = self.lock();
        let changed = std::mem::take(&mut known.changed);
        changed
            .into_iter()
            .filter_map(|job| known.open.get(&job).map(|tenant| (job, tenant.clone())))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Goes on with every rollout that has not ended: what a host does when it starts.
///
/// # Errors
///
/// Where the database cannot be read.
pub(super) async fn take_up(host: &SharedHost) -> Result<(), StoreError> {
    let open = host
        .store
        .scan(|conn| {
            let mut open = Vec::new();
            for tenant in tenants::list(conn)? {
                let jobs = rollouts::open(conn, tenant.id)?;
                open.extend(jobs.into_iter().map(|job| (job, tenant.clone())));
            }
            Ok::<_, StoreError>(open)
        })
        .await?;
    for (job, tenant) in open {
        host.rollouts.begin(job, tenant);
    }
    host.rollouts.wake_all();
    Ok(())
}

/// Goes on with those of which something has changed; says no where one of them could not be.
pub(super) async fn look(host: &SharedHost, now: UnixMillis) -> bool {
    // The futures are made before they are polled, as those of the preflight are.
    let looks: Vec<_> = host
        .rollouts
        .take()
        .into_iter()
        .map(|(job, tenant)| async move {
            match advance(host, &tenant, job, now).await {
                Ok(()) => true,
                Err(error) => {
                    tracing::error!(%job, error = %Causes(&error), "a rollout cannot go on now; trying again");
                    host.rollouts.wake(job);
                    false
                }
            }
        })
        .collect();
    let well: Vec<bool> = stream::iter(looks)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    well.into_iter().all(|well| well)
}

/// Drives rollouts as long as the host runs.
pub async fn drive(host: SharedHost) -> std::io::Result<()> {
    while let Err(error) = take_up(&host).await {
        tracing::error!(error = %Causes(&error), "rollouts cannot be taken up now; trying again");
        tokio::time::sleep(PAUSE).await;
    }
    let mut next = Instant::now() + LOOK;
    loop {
        let now = host.clock.now();
        if !look(&host, now).await {
            tokio::time::sleep(PAUSE).await;
        }
        let left = next.saturating_duration_since(Instant::now());
        tokio::select! {
            // First: however busy others are, each is looked at so often.
            biased;
            () = host.clock.wait(now, None, left) => {
                host.rollouts.wake_all();
                next = Instant::now() + LOOK;
            }
            () = host.rollouts.changed.notified() => {}
        }
    }
}
