//! Who follows which job. A notice says only that something has changed: what, is in the store. So a follower that was
//! slow, or came late, misses nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sluice_protocol::ids::JobId;
use tokio::sync::watch;

type Jobs = Arc<Mutex<HashMap<JobId, watch::Sender<u64>>>>;

/// The jobs that somebody follows.
#[derive(Debug, Clone, Default)]
pub struct Events {
    jobs: Jobs,
}

/// Somebody's interest in a job, until it is dropped.
#[derive(Debug)]
pub struct Subscription {
    job: JobId,
    changes: watch::Receiver<u64>,
    jobs: Jobs,
}

impl Events {
    /// Follows a job. What changes from now on is noticed.
    #[must_use]
    pub fn subscribe(&self, job: JobId) -> Subscription {
        let changes = lock(&self.jobs)
            .entry(job)
            .or_insert_with(|| watch::channel(0).0)
            .subscribe();
        Subscription {
            job,
            changes,
            jobs: Arc::clone(&self.jobs),
        }
    }

    /// Something about the job has changed and is committed.
    pub fn notify(&self, job: JobId) {
        if let Some(followers) = lock(&self.jobs).get(&job) {
            followers.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}

impl Subscription {
    /// Waits for a change since the last call, or since the subscription.
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // The sender lives as long as there are subscriptions.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut jobs = lock(&self.jobs);
        // This subscription's own receiver is still counted.
        if jobs
            .get(&self.job)
            .is_some_and(|sender| sender.receiver_count() <= 1)
        {
            jobs.remove(&self.job);
        }
    }
}

fn lock(jobs: &Jobs) -> std::sync::MutexGuard<'_, HashMap<JobId, watch::Sender<u64>>> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn followers_notice_changes_of_their_job_alone() {
        let events = Events::default();
        let (mine, other) = (JobId::generate(), JobId::generate());
        let mut follower = events.subscribe(mine);
        events.notify(other);
        assert!(follower.changed().now_or_never().is_none());
        events.notify(mine);
        events.notify(mine);
        follower.changed().await;
        assert!(
            follower.changed().now_or_never().is_none(),
            "changes are one notice until they are seen"
        );
    }

    #[tokio::test]
    async fn a_job_that_nobody_follows_costs_nothing() {
        let events = Events::default();
        let job = JobId::generate();
        let (first, second) = (events.subscribe(job), events.subscribe(job));
        drop(first);
        assert_eq!(lock(&events.jobs).len(), 1);
        drop(second);
        assert_eq!(lock(&events.jobs).len(), 0);
    }
}
