//! Whether the host has confirmed this machine's history.
//!
//! A machine that was rolled back or copied has a ledger that lacks what its host acknowledged: an operation that waits in it
//! may have been started in what was lost. So whatever an earlier agent took in and did not start waits until the host has
//! said that the ledger has it all ([`Verdict::Held`]), once for each run of the agent. Where it lacks something, or the host
//! suspects that this machine is there twice, everything that is not started ends as `interrupted`, also what this agent took
//! in. What was started goes on: ending it would not undo that.

use sluice_protocol::message::control::Verdict;
use tokio::sync::watch;

/// What the host has said of the history since this agent runs.
#[derive(Debug, Default)]
pub struct History(watch::Sender<Said>);

#[derive(Debug, Clone, Copy, Default)]
struct Said {
    /// It has held at least once.
    held: bool,
    losses: u64,
}

/// How often the history was lost when an operation was taken up: the ones after that count for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses(u64);

impl Losses {
    /// None: for what an earlier agent took in.
    pub const NONE: Self = Self(0);
}

/// The history was lost: what was not started ends as `interrupted`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

/// For the report of what ends so.
pub const NOTE: &str = "this machine's history is not the one that the host knows: it was rolled back or copied; whether this was started in what was lost is not known, and it was not started now";

impl History {
    /// The host has said it.
    pub fn told(&self, verdict: Verdict) {
        self.0.send_modify(|said| match verdict {
            Verdict::Held => said.held = true,
            Verdict::Lost => said.losses += 1,
        });
    }

    /// As of now.
    #[must_use]
    pub fn losses(&self) -> Losses {
        Losses(self.0.borrow().losses)
    }

    /// Waits until what an earlier agent took in may begin.
    ///
    /// # Errors
    ///
    /// Where it must not.
    pub async fn confirmed(&self) -> Result<(), Lost> {
        let mut said = self.0.subscribe();
        let said = said
            .wait_for(|said| said.held || said.losses > 0)
            .await
            .map(|said| *said);
        match said {
            Ok(Said { losses: 0, .. }) => Ok(()),
            // The sender is ours.
            Ok(_) | Err(_) => Err(Lost),
        }
    }

    /// Waits until the history is lost, once more than `before`.
    pub async fn lost_after(&self, before: Losses) {
        let mut said = self.0.subscribe();
        if said.wait_for(|said| said.losses > before.0).await.is_err() {
            // The sender is ours.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it waits, as far as things are now.
    async fn waits<T>(what: impl Future<Output = T>) -> bool {
        tokio::select! {
            biased;
            _ = what => false,
            () = std::future::ready(()) => true,
        }
    }

    #[tokio::test]
    async fn what_an_earlier_agent_took_in_waits_for_the_host_and_never_begins_after_a_loss() {
        let history = History::default();
        assert!(
            waits(history.confirmed()).await,
            "without a word of the host"
        );
        history.told(Verdict::Held);
        assert_eq!(history.confirmed().await, Ok(()));
        let before = history.losses();
        history.told(Verdict::Lost);
        history.lost_after(before).await;
        assert_eq!(history.confirmed().await, Err(Lost));
        let later = history.losses();
        let goes_on = waits(history.lost_after(later)).await;
        assert!(goes_on, "what came after the loss");
    }
}
