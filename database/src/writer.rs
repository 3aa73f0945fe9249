//! The one thread that writes: group commit.
//!
//! ```text
//! take a task -> BEGIN -> run it and whatever else is waiting, each in a savepoint -> COMMIT -> answer everybody
//! ```
//!
//! A durable task is committed as soon as nothing else is waiting. Lazy tasks leave the transaction open for a moment, so
//! that a durable one that comes in time takes them along.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, mpsc::Sender};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::WriteError;

/// How many changes may wait to be made; who comes then waits to hand over.
const QUEUE: usize = 256;
/// How many changes a transaction has at most.
const GROUP: usize = 256;
/// How long a lazy change may wait for company.
const LINGER: Duration = Duration::from_millis(15);

/// Called after the commit, with how that went.
type Answer = Box<dyn FnOnce(Result<(), WriteError>) + Send>;
/// Makes the change; says whether it stays.
type Change = Box<dyn FnOnce(&Connection) -> (bool, Answer) + Send>;

/// A change and what follows it.
pub(crate) struct Task {
    change: Change,
    lazy: bool,
}

impl Task {
    /// Somebody waits for it.
    pub(crate) fn durable<T, E, F>(
        change: F,
        answer: impl FnOnce(Result<T, E>) + Send + 'static,
    ) -> Self
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<WriteError> + Send + 'static,
    {
        let change: Change = Box::new(move |connection| {
            let result = change(connection);
            let stays = result.is_ok();
            let answer: Answer = Box::new(move |committed| {
                answer(match committed {
                    Ok(()) => result,
                    // A change that was refused is refused for its own reason.
                    Err(error) => result.and(Err(error.into())),
                });
            });
            (stays, answer)
        });
        Self {
            change,
            lazy: false,
        }
    }

    /// Nobody waits for it.
    pub(crate) fn lazy<T, E, F>(change: F, then: impl FnOnce(Result<T, E>) + Send + 'static) -> Self
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<WriteError> + Send + 'static,
    {
        Self {
            lazy: true,
            ..Self::durable(change, then)
        }
    }
}

enum Message {
    /// The permit is its place in the queue.
    Task(Task, OwnedSemaphorePermit),
    Stop(oneshot::Sender<()>),
}

/// A handle on the thread. It ends when the last one is gone.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    places: Arc<Semaphore>,
    messages: Sender<Message>,
}

impl Writer {
    /// Starts the thread, which owns `connection` from here on.
    pub(crate) fn start(connection: Connection) -> std::io::Result<Self> {
        let (messages, queue) = mpsc::channel();
        std::thread::Builder::new()
            .name("database".to_owned())
            .spawn(move || run(connection, &queue))?;
        Ok(Self {
            places: Arc::new(Semaphore::new(QUEUE)),
            messages,
        })
    }

    /// Hands a task over.
    pub(crate) async fn send(&self, task: Task) -> Result<(), WriteError> {
        let place = Arc::clone(&self.places)
            .acquire_owned()
            .await
            .map_err(|_| WriteError::Stopped)?;
        self.messages
            .send(Message::Task(task, place))
            .map_err(|_| WriteError::Stopped)
    }

    /// Waits until everything handed over before is committed, then ends the thread.
    pub(crate) async fn stop(&self) {
        let (done, wait) = oneshot::channel();
        if self.messages.send(Message::Stop(done)).is_ok() {
            // An error means that the thread is gone, which is what was asked for.
            drop(wait.await);
        }
        self.places.close();
    }
}

fn run(connection: Connection, queue: &Receiver<Message>) {
    let mut stopping: Option<oneshot::Sender<()>> = None;
    while stopping.is_none() {
        match queue.recv() {
            Ok(Message::Task(task, place)) => {
                drop(place);
                stopping = transaction(&connection, task, queue);
            }
            Ok(Message::Stop(done)) => stopping = Some(done),
            Err(_) => break,
        }
    }
    if let Err((_, error)) = connection.close() {
        tracing::warn!(%error, "the database did not close cleanly; it recovers when it is opened again");
    }
    if let Some(done) = stopping {
        // Whoever asked may have gone.
        let _ = done.send(());
    }
}

/// One transaction: `first` and what comes in time.
fn transaction(
    connection: &Connection,
    first: Task,
    queue: &Receiver<Message>,
) -> Option<oneshot::Sender<()>> {
    if let Err(error) = execute(connection, "BEGIN IMMEDIATE") {
        // The task is not run: outside of a transaction its changes would stay. Dropping it drops the answer's sender,
        // which says `Stopped` to who waits.
        tracing::error!(%error, "the database cannot begin a transaction; a change was refused");
        return None;
    }
    let mut answers = Vec::new();
    let mut stopping = None;
    let mut next = Some(first);
    let mut durable = false;
    let mut sound = Ok(());
    let deadline = Instant::now() + LINGER;
    while let Some(task) = next.take() {
        durable |= !task.lazy;
        let (answer, result) = in_savepoint(connection, task);
        answers.extend(answer);
        sound = result;
        if answers.len() >= GROUP || sound.is_err() {
            break;
        }
        let message = if durable {
            queue.try_recv().ok()
        } else {
            queue
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
                .ok()
        };
        match message {
            Some(Message::Task(task, place)) => {
                drop(place);
                next = Some(task);
            }
            Some(Message::Stop(done)) => stopping = Some(done),
            None => {}
        }
    }
    // Where a savepoint could not be handled, nobody knows what the transaction holds.
    let committed = sound
        .and_then(|()| execute(connection, "COMMIT"))
        .map_err(|error| WriteError::Commit(Arc::new(error)));
    if let Err(error) = &committed {
        tracing::error!(%error, "the database could not commit; nothing of this group happened");
        // Where COMMIT left the transaction open, it is undone; where it did not, there is nothing to undo.
        drop(execute(connection, "ROLLBACK"));
    }
    for answer in answers {
        // Who is told is not ours, and must not end the thread.
        let committed = committed.clone();
        if catch_unwind(AssertUnwindSafe(|| answer(committed))).is_err() {
            tracing::error!("whoever waited for a change failed when told of it");
        }
    }
    stopping
}

/// Runs a task. One that panics is undone as one that fails is; there is nobody to tell, so who waits is told `Stopped`.
fn in_savepoint(connection: &Connection, task: Task) -> (Option<Answer>, rusqlite::Result<()>) {
    if let Err(error) = execute(connection, "SAVEPOINT change") {
        return (None, Err(error));
    }
    let change = task.change;
    let (stays, answer) = match catch_unwind(AssertUnwindSafe(|| change(connection))) {
        Ok((stays, answer)) => (stays, Some(answer)),
        Err(_) => (false, None),
    };
    let ended = if stays {
        execute(connection, "RELEASE change")
    } else {
        execute(connection, "ROLLBACK TO change")
            .and_then(|()| execute(connection, "RELEASE change"))
    };
    (answer, ended)
}

fn execute(connection: &Connection, statement: &'static str) -> rusqlite::Result<()> {
    connection
        .prepare_cached(statement)?
        .execute([])
        .map(|_| ())
}
