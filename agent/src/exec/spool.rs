//! Picking up an operation whose shim outlived an agent, or whose pipe ended early.

use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sluice_protocol::causes::Causes;
use sluice_shim::event::{Event, Stage};
use sluice_shim::frame::{Decoder, FrameError};
use sluice_shim::spool::{self, SpoolError, State};

/// How often the events of a running shim are looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Why the rest of an operation cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The shim was killed or the machine restarted: the script may have run, and its outcome is unknown. What it left was
    /// ended and removed, except for what the notes say.
    #[error("the process that owned the operation is gone, and its outcome is unknown")]
    Interrupted {
        /// What could not be cleaned.
        notes: Vec<String>,
    },
    /// The spool cannot be read.
    #[error("the operation's spool cannot be used")]
    Spool(#[from] SpoolError),
    /// The spool cannot be read.
    #[error("the events of {} cannot be read", path.display())]
    Read {
        /// The spool.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The spool has something else in it.
    #[error("the events of {} are damaged", path.display())]
    Damaged {
        /// The spool.
        path: PathBuf,
        /// How.
        #[source]
        source: FrameError,
    },
}

/// The events of one operation, read from its spool while its shim writes them.
#[derive(Debug)]
pub struct Follower {
    spool: PathBuf,
    /// Where its private directory was made, and for which operation.
    workspaces: PathBuf,
    operation: String,
    /// The directory of all spools, and the shim that made its own there, where this agent started it.
    shim: Option<(PathBuf, u32)>,
    /// The machine was restarted since: what the spool does not tell is not known.
    restarted: bool,
    offset: u64,
    decoder: Decoder,
    skip: usize,
    ended: bool,
    damaged: bool,
}

/// Follows an operation from its first event. For an agent that starts again, for each operation that its ledger has as
/// started and not ended.
#[must_use]
pub fn adopt(spool: &Path, workspaces: &Path, operation: &str, restarted: bool) -> Follower {
    Follower {
        restarted,
        ..Follower::after(spool, workspaces, operation)
    }
}

/// Asks the shim of an adopted operation to cancel it. False when none runs.
///
/// # Errors
/// The spool cannot be read, or the shim not be signaled.
pub fn cancel(spool: &Path) -> Result<bool, SpoolError> {
    spool::cancel(spool)
}

impl Follower {
    /// From the first event on, while the machine runs.
    pub(crate) fn after(spool: &Path, workspaces: &Path, operation: &str) -> Self {
        Self {
            spool: spool.to_owned(),
            workspaces: workspaces.to_owned(),
            operation: operation.to_owned(),
            shim: None,
            restarted: false,
            offset: 0,
            decoder: Decoder::default(),
            skip: 0,
            ended: false,
            damaged: false,
        }
    }

    /// Of a shim that this agent started: what it made before the operation started is in the directory of all spools.
    pub(crate) fn of_shim(&mut self, spools: PathBuf, shim: u32) {
        self.shim = Some((spools, shim));
    }

    /// Leaves out events that were seen already.
    pub(crate) fn skip(&mut self, seen: usize) {
        self.skip = seen;
    }

    /// Where the events are.
    pub(crate) fn spool(&self) -> &Path {
        &self.spool
    }

    /// The next event; `None` after the last.
    ///
    /// # Errors
    /// [`FollowError::Interrupted`] when there will be no last event.
    pub async fn next(&mut self) -> Result<Option<Event>, FollowError> {
        while !self.ended {
            // The order matters: what was written before the shim ended is read after it was seen to have ended.
            let running = self.blocking(spool::is_running).await?;
            let more = self.read_more()?;
            while let Some(event) = self.next_event() {
                self.ended = event.is_last();
                if self.skip == 0 {
                    return Ok(Some(event));
                }
                self.skip -= 1;
            }
            // What a shim wrote before it ended may be more than one look reads.
            if !running
                && !self.ended
                && !more
                && let Some(event) = self.without_shim().await?
            {
                return Ok(Some(event));
            }
            if !more {
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(None)
    }

    /// The next event that was read. After a torn one, which only a crash leaves, there is no other.
    fn next_event(&mut self) -> Option<Event> {
        if self.damaged {
            return None;
        }
        match self.decoder.next_event() {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(spool = %self.spool.display(), error = %Causes(&error), "the events are damaged; what follows is not read");
                self.damaged = true;
                None
            }
        }
    }

    /// There is no shim and no last event. None where a shim came after all, as one may that was told to start and has not
    /// got to it.
    async fn without_shim(&mut self) -> Result<Option<Event>, FollowError> {
        let state = self.blocking(spool::state).await?;
        if state == State::Running || (state == State::Ended && !self.damaged) {
            return Ok(None);
        }
        if state == State::NotStarted && !self.restarted {
            let reason = "the shim ended before the script was started";
            let given_up = self
                .blocking(move |path| match spool::abandon(path, reason) {
                    Ok(()) => Ok(true),
                    // It has taken its place meanwhile.
                    Err(SpoolError::Busy(_) | SpoolError::Taken(_)) => Ok(false),
                    Err(error) => Err(error),
                })
                .await?;
            if !given_up && self.blocking(spool::state).await? != State::NotStarted {
                return Ok(None);
            }
            self.ended = true;
            self.recover_spare().await;
            return Ok(Some(Event::Failed {
                stage: Stage::Shim,
                reason: reason.into(),
            }));
        }
        self.ended = true;
        let (workspaces, operation) = (self.workspaces.clone(), self.operation.clone());
        let notes = self
            .blocking(move |path| spool::recover(path, &workspaces, &operation))
            .await?;
        Err(FollowError::Interrupted { notes })
    }

    /// Ends and removes what a shim of ours that was killed had made ready.
    async fn recover_spare(&self) {
        let Some((spools, shim)) = self.shim.clone() else {
            return;
        };
        let recovered = self
            .blocking(move |_| spool::recover_spares(&spools, Some(shim)))
            .await;
        match recovered {
            Ok(notes) => notes
                .iter()
                .for_each(|note| tracing::warn!(note, "not cleaned")),
            Err(error) => {
                tracing::warn!(error = %Causes(&error), "what a killed shim left cannot be removed")
            }
        }
    }

    /// Reads on. True where there was something.
    fn read_more(&mut self) -> Result<bool, FollowError> {
        let failed = |source| FollowError::Read {
            path: self.spool.clone(),
            source,
        };
        let mut file = match std::fs::File::open(self.spool.join("events")) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(self.offset))
            .and_then(|_| file.take(1024 * 1024).read_to_end(&mut bytes))
            .map_err(failed)?;
        self.offset += bytes.len() as u64;
        self.decoder.push(&bytes);
        Ok(!bytes.is_empty())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, FollowError> {
        let path = self.spool.clone();
        let done = tokio::task::spawn_blocking(move || work(&path)).await;
        done.map_err(|source| FollowError::Read {
            path: self.spool.clone(),
            source: source.into(),
        })?
        .map_err(FollowError::Spool)
    }
}
