//! Ctrl-C while a job is followed: the first one says which job it is, a second one within 2 s cancels it, none leaves
//! it alone.
//!
//! ```text
//! following --press--> asked --press--> canceling
//!                        \--2 s--> detached
//! ```

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

/// How long a second Ctrl-C is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the operator and this command stand with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Interrupt {
    /// No Ctrl-C so far.
    #[default]
    Following,
    /// One Ctrl-C.
    Asked {
        /// When it counts as leaving.
        until: Instant,
    },
    /// Two of them in time. Further ones change nothing.
    Canceling,
}

/// What Ctrl-C makes this command do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Print the job's id on stderr.
    NameTheJob,
    /// Ask the host to end the job, and wait.
    Cancel,
}

impl Interrupt {
    /// Ctrl-C was pressed.
    pub(super) fn press(&mut self, now: Instant) -> Option<Action> {
        match *self {
            Self::Following => {
                *self = Self::Asked {
                    until: now + PATIENCE,
                };
                Some(Action::NameTheJob)
            }
            Self::Asked { .. } => {
                *self = Self::Canceling;
                Some(Action::Cancel)
            }
            Self::Canceling => None,
        }
    }

    /// When this command leaves, where nothing else happens.
    pub(super) const fn leaves_at(&self) -> Option<Instant> {
        match self {
            Self::Asked { until } => Some(*until),
            Self::Following | Self::Canceling => None,
        }
    }
}

/// Every press of Ctrl-C from now on; none is lost, and none ends the process by itself any more.
pub(super) fn presses() -> mpsc::UnboundedReceiver<()> {
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() && sender.send(()).is_ok() {}
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_press_cancels() {
        let now = Instant::now();
        let mut interrupt = Interrupt::default();
        assert_eq!(interrupt.leaves_at(), None);
        assert_eq!(interrupt.press(now), Some(Action::NameTheJob));
        assert_eq!(interrupt.leaves_at(), Some(now + Duration::from_secs(2)));
        assert_eq!(
            interrupt.press(now + Duration::from_secs(1)),
            Some(Action::Cancel)
        );
        assert_eq!(interrupt.leaves_at(), None);
        assert_eq!(interrupt.press(now + Duration::from_secs(1)), None);
    }
}
