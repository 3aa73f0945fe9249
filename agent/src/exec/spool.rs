//! Picking up an operation whose shim outlived an agent, or whose pipe ended early.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sluice_protocol::causes::Causes;
use sluice_shim::event::{Event, Stage};
use sluice_shim::event_file::EventFile;
use sluice_shim::spool::{self, SpoolError, State};
use tokio::task::JoinHandle;

/// How often the events of a running shim are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How often in a row a look may fail (for want of descriptors, for example), and what is waited after one that did.
const MOST_FAILURES: u32 = 600;
const AFTER_FAILURE: Duration = Duration::from_secs(1);

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
    /// No thread could be had to read the spool, or it panicked.
    #[error("the events of {} cannot be read", path.display())]
    Read {
        /// The spool.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
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
    /// None while they are read, and after they could not be.
    events: Option<Events>,
    /// A look at them that was begun. Who stopped waiting for it has it go on, and what it finds is found by the next.
    looking: Option<JoinHandle<Looked>>,
    /// How many looks in a row could not be made.
    failures: u32,
    ended: bool,
}

/// What a look at the events found.
#[derive(Debug)]
struct Looked {
    events: Events,
    /// The next event, where there is one, and whether the shim was alive before.
    found: Result<(Option<Event>, bool), SpoolError>,
}

/// The events, without those that were seen and without the output.
#[derive(Debug)]
struct Events {
    file: EventFile,
    skip: usize,
    /// It was said that there is output.
    spooled: bool,
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

/// Ends and removes what a shim that is gone had made ready, on a thread of its own. What cannot be done is logged.
pub(super) fn sweep(spools: PathBuf, shim: u32) -> JoinHandle<()> {
    tokio::task::spawn_blocking(move || match spool::recover_spares(&spools, Some(shim)) {
        Ok(notes) => notes
            .iter()
            .for_each(|note| tracing::warn!(note, "not cleaned")),
        Err(error) => {
            tracing::warn!(error = %Causes(&error), "what a killed shim left cannot be removed")
        }
    })
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
            events: Some(Events {
                file: spool::events(spool),
                skip: 0,
                spooled: false,
            }),
            looking: None,
            failures: 0,
            ended: false,
        }
    }

    /// Of a shim that this agent started: what it made before the operation started is in the directory of all spools.
    pub(crate) fn of_shim(&mut self, spools: PathBuf, shim: u32) {
        self.shim = Some((spools, shim));
    }

    /// Leaves out the events that were seen already, output not counted.
    pub(crate) fn skip(&mut self, seen: usize) {
        if let Some(events) = &mut self.events {
            events.skip = seen;
        }
    }

    /// Where the events are.
    pub(crate) fn spool(&self) -> &Path {
        &self.spool
    }

    /// The next event; `None` after the last. Of the output it says only that there is some: [`Event::Spooled`], once.
    ///
    /// # Errors
    /// [`FollowError::Interrupted`] when there will be no last event.
    pub async fn next(&mut self) -> Result<Option<Event>, FollowError> {
        while !self.ended {
            let looking = match (&mut self.looking, self.events.take()) {
                (Some(looking), _) => looking,
                (none, Some(events)) => none.insert(look(&self.spool, events)),
                (None, None) => break,
            };
            let looked = looking.await;
            self.looking = None;
            let Looked { events, found } = self.done(looked.map(Ok))?;
            self.events = Some(events);
            let event = match found {
                Ok((Some(event), _)) => Ok(Some(event)),
                Ok((None, true)) => Ok(None),
                Ok((None, false)) => self.without_shim().await,
                Err(error) => Err(error.into()),
            };
            match event {
                Ok(Some(event)) => {
                    self.failures = 0;
                    self.ended = event.is_last();
                    return Ok(Some(event));
                }
                Ok(None) => {
                    self.failures = 0;
                    tokio::time::sleep(LOOK).await;
                }
                // The script goes on meanwhile, or has to be ended, and nobody else would see to it.
                Err(error @ FollowError::Spool(_)) if self.failures < MOST_FAILURES => {
                    tracing::warn!(spool = %self.spool.display(), error = %Causes(&error), "an operation cannot be followed at the moment");
                    self.failures += 1;
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// There is no shim and no last event. None where a shim came after all, as one may that was told to start and has not
    /// got to it.
    async fn without_shim(&mut self) -> Result<Option<Event>, FollowError> {
        let state = self.blocking(spool::state).await?;
        if state == State::Running || (state == State::Ended && !self.is_damaged()) {
            return Ok(None);
        }
        if state == State::NotStarted {
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
            if !self.restarted {
                self.recover_spare().await;
                return Ok(Some(Event::Failed {
                    stage: Stage::Shim,
                    reason: reason.into(),
                }));
            }
        }
        let (workspaces, operation) = (self.workspaces.clone(), self.operation.clone());
        let notes = self
            .blocking(move |path| spool::recover(path, &workspaces, &operation))
            .await?;
        self.ended = true;
        Err(FollowError::Interrupted { notes })
    }

    /// Whether there is something among the events that is none.
    fn is_damaged(&self) -> bool {
        self.events
            .as_ref()
            .is_none_or(|events| events.file.damage().is_some())
    }

    /// Ends and removes what a shim of ours that was killed had made ready.
    async fn recover_spare(&self) {
        let Some((spools, shim)) = self.shim.clone() else {
            return;
        };
        // Where it fails, that is told.
        let _told = sweep(spools, shim).await;
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, FollowError> {
        let path = self.spool.clone();
        self.done(tokio::task::spawn_blocking(move || work(&path)).await)
    }

    fn done<T>(
        &self,
        done: Result<Result<T, SpoolError>, tokio::task::JoinError>,
    ) -> Result<T, FollowError> {
        done.map_err(|source| FollowError::Read {
            path: self.spool.clone(),
            source: source.into(),
        })?
        .map_err(FollowError::Spool)
    }
}

/// Looks for the next event, where blocking is allowed.
fn look(spool: &Path, mut events: Events) -> JoinHandle<Looked> {
    let spool = spool.to_owned();
    tokio::task::spawn_blocking(move || {
        // The order matters: what was written before the shim ended is read after it was seen to have ended.
        let running = spool::is_running(&spool);
        let found = running.and_then(|running| Ok((events.next()?, running)));
        Looked { events, found }
    })
}

impl Events {
    /// The next one that is there.
    fn next(&mut self) -> Result<Option<Event>, SpoolError> {
        while let Some(event) = self.file.next_event()? {
            match event {
                Event::Output { .. } | Event::HeadFull(_) => {
                    if !std::mem::replace(&mut self.spooled, true) {
                        return Ok(Some(Event::Spooled));
                    }
                }
                // Who has seen the last one does not come here.
                event if self.skip == 0 || event.is_last() => return Ok(Some(event)),
                _ => self.skip -= 1,
            }
        }
        Ok(None)
    }
}
