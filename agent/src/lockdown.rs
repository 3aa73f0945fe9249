//! What the host said last about a lockdown, and who waits for its end.
//!
//! It is kept in the ledger, so that it holds without a link and after a restart too: whoever loses the host must not start
//! what the host has stopped. That holds nothing for ever. Only operations wait that this machine had got before, and each
//! of them ends as `expired` at its `not_after` (what an earlier agent took in, once there is a link); new ones come over a link alone, and every link says anew what is so.

use sluice_protocol::causes::Causes;
use sluice_protocol::message::control::Lockdown;
use tokio::sync::watch;

use crate::audit::Event;
use crate::clock::now;
use crate::ledger::{Ledger, LedgerError};

/// Whether operations may start.
#[derive(Debug)]
pub struct Lock(watch::Sender<Lockdown>);

impl Lock {
    /// As it was kept.
    ///
    /// # Errors
    ///
    /// Where the ledger cannot be read: then nobody knows, and nothing may start.
    pub fn read(ledger: &Ledger) -> Result<Self, LedgerError> {
        Ok(Self(watch::Sender::new(ledger.lockdown()?)))
    }

    /// The host says what is so. It holds at once, and is kept.
    pub async fn told(&self, lockdown: Lockdown, ledger: &Ledger) {
        if self.0.send_replace(lockdown) == lockdown {
            return;
        }
        let event = match lockdown {
            Lockdown::On => Event::new("lockdown_started", None),
            Lockdown::Off => Event::new("lockdown_lifted", None),
        };
        tracing::info!(?lockdown, "the host says whether operations may start");
        if let Err(error) = ledger.keep_lockdown(lockdown, event, now()).await {
            tracing::error!(error = %Causes(&error), "what the host said about a lockdown is not on disk; it holds until the agent ends");
        }
    }

    /// Whether an operation may start at this moment.
    #[must_use]
    pub fn is_off(&self) -> bool {
        *self.0.borrow() == Lockdown::Off
    }

    /// Waits until operations may start.
    pub async fn off(&self) {
        let mut changes = self.0.subscribe();
        if changes
            .wait_for(|lockdown| *lockdown == Lockdown::Off)
            .await
            .is_err()
        {
            // The sender is ours.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_host_said_last_is_kept_and_recorded_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ledger.db");
        let ledger = Ledger::open(&path).expect("opens");
        let lock = Lock::read(&ledger).expect("reads");
        assert!(lock.is_off());
        for lockdown in [Lockdown::Off, Lockdown::On, Lockdown::On] {
            lock.told(lockdown, &ledger).await;
        }
        ledger.close().await;
        let ledger = Ledger::open(&path).expect("opens again");
        let lock = Lock::read(&ledger).expect("reads");
        assert!(!lock.is_off());
        lock.told(Lockdown::Off, &ledger).await;
        lock.off().await;
        let events: Vec<_> = ledger
            .audit()
            .await
            .expect("reads")
            .into_iter()
            .map(|entry| entry.event)
            .collect();
        assert_eq!(events, ["lockdown_started", "lockdown_lifted"]);
    }
}
