//! The one thread that writes: group commit.
//!
//! ```text
//! wait for tasks -> BEGIN -> run what waits, each so that it can be undone alone -> COMMIT -> answer everybody
//! ```
//!
//! An urgent task is committed as soon as nothing else is waiting. Others are run at once and committed after a moment, so
//! that an urgent one that comes in time takes them along, and has but its own change to wait for.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use crate::WriteError;

/// How many changes may wait to be made; who comes then waits to hand over.
const QUEUE: usize = 256;
/// How many changes a transaction has at most.
const GROUP: usize = 256;
/// How long a change that is not urgent may wait to be committed with others.
const LINGER: Duration = Duration::from_millis(15);

/// Called after the commit, with how that went.
type Answer = Box<dyn FnOnce(Result<(), WriteError>) + Send>;
/// Makes the change; says whether it stays.
type Change = Box<dyn FnOnce(&Connection) -> (bool, Answer) + Send>;

/// When a change that was handed over is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// As soon as nothing else waits to be made.
    Now,
    /// With the next one that is; alone after a moment.
    Soon,
}

/// A change and what follows it.
pub(crate) struct Task {
    change: Change,
    urgency: Urgency,
    /// When it is to be committed.
    due: Instant,
}

impl Task {
    pub(crate) fn new<T, E, F>(
        urgency: Urgency,
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
        let now = Instant::now();
        let due = match urgency {
            Urgency::Now => now,
            Urgency::Soon => now + LINGER,
        };
        Self {
            change,
            urgency,
            due,
        }
    }
}

/// A handle on the thread. It ends when the last one is gone.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    places: Arc<Semaphore>,
    end: Arc<QueueEnd>,
}

impl Writer {
    /// Starts the task that writes in a simulation, and owns `connection` from here on. To be called within a run time.
    pub(crate) fn start_simulated(connection: Connection, commit: Duration) -> Self {
        let queue = Arc::new(Queue {
            is_simulated: true,
            ..Queue::default()
        });
        let end = Arc::new(QueueEnd(Arc::clone(&queue)));
        tokio::spawn(run_simulated(connection, queue, commit));
        Self {
            places: Arc::new(Semaphore::new(QUEUE)),
            end,
        }
    }

    /// Starts the thread, which owns `connection` from here on.
    pub(crate) fn start(connection: Connection) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let end = Arc::new(QueueEnd(Arc::clone(&queue)));
        std::thread::Builder::new()
            .name("database".to_owned())
            .spawn(move || run(connection, &queue))?;
        Ok(Self {
            places: Arc::new(Semaphore::new(QUEUE)),
            end,
        })
    }

    /// Hands a task over.
    pub(crate) async fn send(&self, task: Task) -> Result<(), WriteError> {
        let place = Arc::clone(&self.places)
            .acquire_owned()
            .await
            .map_err(|_| WriteError::Stopped)?;
        self.end.0.push(task, place)
    }

    /// Waits until everything handed over before is committed, then ends the thread.
    pub(crate) async fn stop(&self) {
        let (done, wait) = oneshot::channel();
        self.end.0.stop(done);
        // Nothing is sent: the thread drops the sender when it is gone.
        drop(wait.await);
        self.places.close();
    }
}

/// Where tasks wait for the thread.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Nothing may wait for real time to pass.
    is_simulated: bool,
    /// The same for the task of a simulation.
    told: Notify,
}

#[derive(Default)]
struct Waiting {
    /// Each with its place in the queue.
    tasks: VecDeque<(Task, OwnedSemaphorePermit)>,
    /// No more tasks come.
    closed: bool,
    /// Nobody takes tasks any more.
    ended: bool,
    /// Who waits for the end.
    stopping: Vec<oneshot::Sender<()>>,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting")
            .field("tasks", &self.tasks.len())
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

/// The handles' end of the queue: with it no more tasks come.
#[derive(Debug)]
struct QueueEnd(Arc<Queue>);

impl Drop for QueueEnd {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.tell();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, task: Task, place: OwnedSemaphorePermit) -> Result<(), WriteError> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(WriteError::Stopped);
        }
        waiting.tasks.push_back((task, place));
        // The thread takes all that it finds; of what was there before it was told.
        if waiting.tasks.len() == 1 {
            drop(waiting);
            self.tell();
        }
        Ok(())
    }

    fn stop(&self, done: oneshot::Sender<()>) {
        let mut waiting = self.lock();
        waiting.closed = true;
        // Where the thread is gone, dropping `done` says so.
        if !waiting.ended {
            waiting.stopping.push(done);
        }
        drop(waiting);
        self.tell();
    }

    /// Who writes is told that there is something to do.
    fn tell(&self) {
        self.changed.notify_one();
        if self.is_simulated {
            self.told.notify_one();
        }
    }

    /// Waits until there is something to do; none where there never will be.
    fn next(&self) -> Option<VecDeque<Task>> {
        let mut waiting = self
            .changed
            .wait_while(self.lock(), |waiting| waiting.is_quiet())
            .unwrap_or_else(PoisonError::into_inner);
        let tasks = waiting.take();
        (!tasks.is_empty()).then_some(tasks)
    }

    /// What else there is to do until `due`; nothing where nothing came by then.
    fn until(&self, due: Instant) -> VecDeque<Task> {
        if self.is_simulated {
            return self.lock().take();
        }
        let left = due.saturating_duration_since(Instant::now());
        let (mut waiting, _) = self
            .changed
            .wait_timeout_while(self.lock(), left, |waiting| waiting.is_quiet())
            .unwrap_or_else(PoisonError::into_inner);
        waiting.take()
    }
}

impl Waiting {
    /// What one transaction may have of what waits.
    fn take(&mut self) -> VecDeque<Task> {
        let count = self.tasks.len().min(GROUP);
        self.tasks.drain(..count).map(|(task, _)| task).collect()
    }

    fn is_quiet(&self) -> bool {
        self.tasks.is_empty() && !self.closed
    }
}

/// However the thread ends: whoever waits for it or for a task is told.
struct Ending<'a>(&'a Queue);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        (waiting.closed, waiting.ended) = (true, true);
        waiting.tasks.clear();
        waiting.stopping.clear();
    }
}

fn run(connection: Connection, queue: &Queue) {
    let _ending = Ending(queue);
    let mut left = VecDeque::new();
    loop {
        if left.is_empty() {
            match queue.next() {
                Some(tasks) => left = tasks,
                None => break,
            }
        }
        left = transaction(&connection, left, queue);
    }
    if let Err((_, error)) = connection.close() {
        tracing::warn!(%error, "the database did not close cleanly; it recovers when it is opened again");
    }
}

/// As [`run`], on a task. What is handed over waits for `commit`, and is lost where the run time ends before that: as on a
/// machine that loses power.
async fn run_simulated(connection: Connection, queue: Arc<Queue>, commit: Duration) {
    let _ending = Ending(&queue);
    loop {
        queue.told.notified().await;
        tokio::time::sleep(commit).await;
        let (mut left, closed) = {
            let mut waiting = queue.lock();
            (waiting.take(), waiting.closed)
        };
        while !left.is_empty() {
            left = transaction(&connection, left, &queue);
            left.extend(queue.lock().take());
        }
        if closed {
            return;
        }
    }
}

/// One transaction: these tasks, and what comes until the first of them is due and all are done. Gives back what it did not
/// come to.
fn transaction(
    connection: &Connection,
    mut tasks: VecDeque<Task>,
    queue: &Queue,
) -> VecDeque<Task> {
    if let Err(error) = execute(connection, "BEGIN IMMEDIATE") {
        // The tasks are not run: outside of a transaction their changes would stay. Dropping them drops the senders of
        // their answers, which says `Stopped` to who waits.
        tracing::error!(%error, "the database cannot begin a transaction; changes were refused");
        return VecDeque::new();
    }
    let mut answers = Answers::default();
    let mut sound = Ok(());
    let mut undone = false;
    let mut due: Option<Instant> = None;
    while let Some(task) = tasks.pop_front() {
        let first = due.is_none();
        due = Some(due.map_or(task.due, |due| due.min(task.due)));
        let urgency = task.urgency;
        let answer;
        if first {
            // It needs no savepoint: where it fails, the transaction is undone.
            let stays;
            (stays, answer) = make(connection, task);
            undone = !stays;
        } else {
            (answer, sound) = in_savepoint(connection, task);
        }
        answers.of(urgency).extend(answer);
        if undone || sound.is_err() || answers.len() >= GROUP {
            break;
        }
        if tasks.is_empty() {
            tasks = due.map_or_else(VecDeque::new, |due| queue.until(due));
        }
    }
    // Where a savepoint could not be handled, nobody knows what the transaction holds.
    let committed = sound
        .and_then(|()| match undone {
            // There was nothing but this task in it. Some errors end the transaction by themselves.
            true if connection.is_autocommit() => Ok(()),
            true => execute(connection, "ROLLBACK"),
            false => execute(connection, "COMMIT"),
        })
        .map_err(|error| WriteError::Commit(Arc::new(error)));
    if let Err(error) = &committed {
        tracing::error!(%error, "the database could not commit; nothing of this group happened");
        // Where COMMIT left the transaction open, it is undone; where it did not, there is nothing to undo.
        drop(execute(connection, "ROLLBACK"));
    }
    for answer in answers.in_order() {
        // Who is told is not ours, and must not end the thread.
        let committed = committed.clone();
        if catch_unwind(AssertUnwindSafe(|| answer(committed))).is_err() {
            tracing::error!("whoever waited for a change failed when told of it");
        }
    }
    tasks
}

/// Those of a transaction: who waits is told first. Whoever looks at the database then finds all of it, and is not woken
/// for each of its parts.
#[derive(Default)]
struct Answers {
    now: Vec<Answer>,
    soon: Vec<Answer>,
}

impl Answers {
    const fn of(&mut self, urgency: Urgency) -> &mut Vec<Answer> {
        match urgency {
            Urgency::Now => &mut self.now,
            Urgency::Soon => &mut self.soon,
        }
    }

    const fn len(&self) -> usize {
        self.now.len() + self.soon.len()
    }

    fn in_order(self) -> impl Iterator<Item = Answer> {
        self.now.into_iter().chain(self.soon)
    }
}

/// Runs a task among others.
fn in_savepoint(connection: &Connection, task: Task) -> (Option<Answer>, rusqlite::Result<()>) {
    if let Err(error) = execute(connection, "SAVEPOINT change") {
        return (None, Err(error));
    }
    let (stays, answer) = make(connection, task);
    let ended = if stays {
        execute(connection, "RELEASE change")
    } else {
        execute(connection, "ROLLBACK TO change")
            .and_then(|()| execute(connection, "RELEASE change"))
    };
    (answer, ended)
}

/// Makes a change, and says whether it stays. One that panics does not, as one that fails; there is nobody to tell, so who
/// waits is told `Stopped`.
fn make(connection: &Connection, task: Task) -> (bool, Option<Answer>) {
    match catch_unwind(AssertUnwindSafe(|| (task.change)(connection))) {
        Ok((stays, answer)) => (stays, Some(answer)),
        Err(_) => (false, None),
    }
}

/// Runs a statement that has no parameters and gives nothing.
pub(crate) fn execute(connection: &Connection, statement: &'static str) -> rusqlite::Result<()> {
    connection
        .prepare_cached(statement)?
        .execute([])
        .map(|_| ())
}
