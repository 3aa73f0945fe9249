//! The one task that writes: group commit.
//!
//! ```text
//! take a task -> BEGIN -> run it and whatever else is waiting, each in a savepoint -> COMMIT -> answer everybody
//! ```
//!
//! A durable task is committed as soon as nothing else is waiting. Lazy tasks leave the transaction open for a moment, so
//! that a durable one that comes in time takes them along.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::StoreError;

/// How many changes may wait to be made; who comes then waits to hand over.
const QUEUE: usize = 256;
/// How many changes a transaction has at most.
const GROUP: usize = 256;
/// How long a lazy change may wait for company.
const LINGER: Duration = Duration::from_millis(15);

/// Called after the commit, with how that went.
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// Makes the change; says whether it stays.
type Change =
    Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, (bool, Answer)> + Send>;

/// A change and what follows it.
pub(super) struct Task {
    change: Change,
    lazy: bool,
}

impl Task {
    /// Somebody waits for it.
    pub(super) fn durable<T, E, F>(
        change: F,
        answer: impl FnOnce(Result<T, E>) + Send + 'static,
    ) -> Self
    where
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let change: Change = Box::new(move |conn| {
            Box::pin(async move {
                let result = change(conn).await;
                let stays = result.is_ok();
                let answer: Answer = Box::new(move |committed| {
                    answer(match committed {
                        Ok(()) => result,
                        // A change that was refused is refused for its own reason.
                        Err(error) => result.and(Err(error.into())),
                    });
                });
                (stays, answer)
            })
        });
        Self {
            change,
            lazy: false,
        }
    }

    /// Nobody waits for it.
    pub(super) fn lazy<T, F>(
        change: F,
        then: impl FnOnce(Result<T, StoreError>) + Send + 'static,
    ) -> Self
    where
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, StoreError>>
            + Send
            + 'static,
        T: Send + 'static,
    {
        Self {
            lazy: true,
            ..Self::durable(change, then)
        }
    }
}

enum Message {
    Task(Task),
    Stop(oneshot::Sender<()>),
}

/// A handle on the writer task.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    tasks: mpsc::Sender<Message>,
}

impl Writer {
    /// Starts the task, which owns `connection` from here on.
    pub(super) fn start(connection: SqliteConnection) -> Self {
        let (tasks, queue) = mpsc::channel(QUEUE);
        tokio::spawn(run(connection, queue));
        Self { tasks }
    }

    /// Hands a task over.
    pub(super) async fn send(&self, task: Task) -> Result<(), StoreError> {
        self.tasks
            .send(Message::Task(task))
            .await
            .map_err(|_| StoreError::Stopped)
    }

    /// Waits until everything handed over before is committed, then stops the task.
    pub(super) async fn stop(&self) {
        let (done, wait) = oneshot::channel();
        if self.tasks.send(Message::Stop(done)).await.is_ok() {
            // An error means that the task is gone, which is what was asked for.
            drop(wait.await);
        }
    }
}

async fn run(mut connection: SqliteConnection, mut queue: mpsc::Receiver<Message>) {
    let mut stopping: Option<oneshot::Sender<()>> = None;
    while stopping.is_none() {
        let Some(message) = queue.recv().await else {
            break;
        };
        let first = match message {
            Message::Task(task) => task,
            Message::Stop(done) => {
                stopping = Some(done);
                break;
            }
        };
        stopping = transaction(&mut connection, first, &mut queue).await;
    }
    queue.close();
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "the database did not close cleanly; it recovers when it is opened again");
    }
    if let Some(done) = stopping {
        // Whoever asked may have gone.
        let _ = done.send(());
    }
}

/// One transaction: `first` and what comes in time.
async fn transaction(
    connection: &mut SqliteConnection,
    first: Task,
    queue: &mut mpsc::Receiver<Message>,
) -> Option<oneshot::Sender<()>> {
    if let Err(error) = execute(connection, "BEGIN IMMEDIATE").await {
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
        let (answer, result) = in_savepoint(connection, task).await;
        answers.push(answer);
        sound = result;
        if answers.len() >= GROUP || sound.is_err() {
            break;
        }
        let message = if durable {
            queue.try_recv().ok()
        } else {
            timeout_at(deadline, queue.recv()).await.ok().flatten()
        };
        match message {
            Some(Message::Task(task)) => next = Some(task),
            Some(Message::Stop(done)) => stopping = Some(done),
            None => {}
        }
    }
    // Where a savepoint could not be handled, nobody knows what the transaction holds.
    let committed = match sound {
        Ok(()) => execute(connection, "COMMIT").await,
        Err(error) => Err(error),
    };
    let committed = committed.map_err(|error| StoreError::Commit(Arc::new(error)));
    if let Err(error) = &committed {
        tracing::error!(%error, "the database could not commit; nothing of this group happened");
        // Where COMMIT left the transaction open, it is undone; where it did not, there is nothing to undo.
        drop(execute(connection, "ROLLBACK").await);
    }
    for answer in answers {
        answer(committed.clone());
    }
    stopping
}

async fn in_savepoint(
    connection: &mut SqliteConnection,
    task: Task,
) -> (Answer, Result<(), sqlx::Error>) {
    let begun = execute(connection, "SAVEPOINT change").await;
    let (stays, answer) = (task.change)(connection).await;
    let ended = match begun {
        Ok(()) if stays => execute(connection, "RELEASE change").await,
        Ok(()) => match execute(connection, "ROLLBACK TO change").await {
            Ok(()) => execute(connection, "RELEASE change").await,
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    (answer, ended)
}

async fn execute(
    connection: &mut SqliteConnection,
    statement: &'static str,
) -> Result<(), sqlx::Error> {
    sqlx::query(statement).execute(connection).await.map(|_| ())
}
