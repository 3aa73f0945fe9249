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
        ..Follower::after(spool, workspaces, operation, 0)
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
    /// Leaves out the events that were seen already.
    pub(crate) fn after(spool: &Path, workspaces: &Path, operation: &str, skip: usize) -> Self {
        Self {
            spool: spool.to_owned(),
            workspaces: workspaces.to_owned(),
            operation: operation.to_owned(),
            restarted: false,
            offset: 0,
            decoder: Decoder::default(),
            skip,
            ended: false,
            damaged: false,
        }
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
            if !running && !self.ended && !more {
                return self.without_shim().await.map(Some);
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

    async fn without_shim(&mut self) -> Result<Event, FollowError> {
        self.ended = true;
        let state = self.blocking(spool::state).await?;
        if state == State::NotStarted && !self.restarted {
            let reason = "the agent ended before the script was started";
            self.blocking(move |path| spool::abandon(path, reason).or_else(given_up_before))
                .await?;
            return Ok(Event::Failed {
                stage: Stage::Shim,
                reason: reason.into(),
            });
        }
        let (workspaces, operation) = (self.workspaces.clone(), self.operation.clone());
        let notes = self
            .blocking(move |path| spool::recover(path, &workspaces, &operation))
            .await?;
        Err(FollowError::Interrupted { notes })
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

/// An events file without a beginning, left by a power cut: there is nothing to give up.
fn given_up_before(error: SpoolError) -> Result<(), SpoolError> {
    match error {
        SpoolError::Taken(_) => Ok(()),
        other => Err(other),
    }
}
