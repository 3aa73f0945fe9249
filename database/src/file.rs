//! The handle on the file.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::Migrations;
use tokio::sync::oneshot;

use crate::writer::{Task, Urgency, Writer, execute};
use crate::{OpenError, WriteError, simulation};

/// How long a connection waits for another one's lock: a writer of another process, such as a command that looks at it.
const BUSY: Duration = Duration::from_secs(10);
/// How long emptying the log may wait for readers: writers wait meanwhile, for [`BUSY`] at most.
const HOLD_UP: Duration = Duration::from_secs(2);
/// How many connections for reading are kept when nobody reads.
const SPARE_READERS: usize = 8;
/// How many statements a connection keeps prepared.
const PREPARED: usize = 128;

/// An open database. A cheap handle.
#[derive(Debug, Clone)]
pub struct Database {
    writer: Writer,
    readers: Arc<Readers>,
}

#[derive(Debug)]
struct Readers {
    path: PathBuf,
    spare: Mutex<Vec<Connection>>,
}

impl Database {
    /// Opens the file (WAL, synchronous=FULL), creates it where it is missing (mode 0600), brings its tables to this
    /// version, and starts the thread that writes.
    ///
    /// # Errors
    ///
    /// Where the file cannot be opened, or is of a later version.
    pub fn open(path: &Path, migrations: &Migrations<'_>) -> Result<Self, OpenError> {
        let path = path.to_owned();
        // Closed before SQLite opens the file: whenever a process closes a file it loses all of its locks on that (fcntl(2)),
        // and whoever opens and closes the file then takes himself for the last, and removes the log that is written to.
        match OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
        {
            Ok(created) => drop(created),
            Err(source) => return Err(OpenError::Create { path, source }),
        }
        let mut connection = match open_to_write(&path) {
            Ok(connection) => connection,
            Err(source) => return Err(OpenError::Open { path, source }),
        };
        if let Err(source) = migrations.to_latest(&mut connection) {
            return Err(OpenError::Migrate { path, source });
        }
        let writer = match simulation::commit_time() {
            Some(commit) => Writer::start_simulated(connection, commit),
            None => match Writer::start(connection) {
                Ok(writer) => writer,
                Err(source) => return Err(OpenError::Thread { path, source }),
            },
        };
        Ok(Self {
            writer,
            readers: Arc::new(Readers {
                path,
                spare: Mutex::default(),
            }),
        })
    }

    /// Runs `change` in the next transaction and answers once that is durable. Where `change` fails, what it did is
    /// rolled back and nothing else is.
    ///
    /// # Errors
    ///
    /// The error of `change`, or [`WriteError`] where the transaction could not be committed.
    pub async fn write<T, E, F>(&self, change: F) -> Result<T, E>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<WriteError> + Send + 'static,
    {
        self.enqueue(Urgency::Now, change).await?.await
    }

    /// Hands `change` to the writer, and gives a future that answers as [`Database::write`] does. Changes are made in
    /// the order in which they were handed over, so the caller may go on in the meantime.
    ///
    /// # Errors
    ///
    /// The writer has stopped.
    pub async fn enqueue<T, E, F>(
        &self,
        urgency: Urgency,
        change: F,
    ) -> Result<impl Future<Output = Result<T, E>> + Send + use<T, E, F>, E>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<WriteError> + Send + 'static,
    {
        let (answer, wait) = answer();
        self.writer.send(Task::new(urgency, change, answer)).await?;
        Ok(wait)
    }

    /// Hands over a change that nobody waits for: it is made soon, and committed with the next one that is, or alone after a
    /// moment. `then` runs after that commit, on the thread that writes.
    ///
    /// # Errors
    ///
    /// The writer has stopped.
    pub async fn write_lazily<T, E, F>(
        &self,
        change: F,
        then: impl FnOnce(Result<T, E>) + Send + 'static,
    ) -> Result<(), WriteError>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<WriteError> + Send + 'static,
    {
        self.writer
            .send(Task::new(Urgency::Soon, change, then))
            .await
    }

    /// Looks something up in what is committed, all of it at one moment, on the thread of the caller: for point lookups and
    /// short pages.
    ///
    /// # Errors
    ///
    /// The error of `look`, or that of opening another connection.
    pub fn read<T, E>(&self, look: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E>
    where
        E: From<rusqlite::Error>,
    {
        let spare = self.readers.lock().pop();
        let connection = match spare {
            Some(connection) => connection,
            None => open_to_read(&self.readers.path)?,
        };
        // All of it sees one moment. There is nothing to commit.
        execute(&connection, "BEGIN")?;
        let found = look(&connection);
        // One that cannot leave that moment is closed.
        if execute(&connection, "ROLLBACK").is_ok() {
            let mut spare = self.readers.lock();
            if spare.len() < SPARE_READERS {
                spare.push(connection);
            }
        }
        found
    }

    /// As [`Database::read`], on a thread where it may take its time.
    ///
    /// # Errors
    ///
    /// As [`Database::read`]; [`WriteError::Stopped`] where the program is stopping.
    pub async fn scan<T, E>(
        &self,
        look: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<rusqlite::Error> + From<WriteError> + Send + 'static,
    {
        let database = self.clone();
        tokio::task::spawn_blocking(move || database.read(look))
            .await
            .unwrap_or_else(|_| Err(WriteError::Stopped.into()))
    }

    /// Writes what is in the log into the file and empties the log, so that what was erased is in neither.
    ///
    /// # Errors
    ///
    /// As [`Database::scan`]; SQLite says that it is busy where somebody reads or writes without end.
    pub async fn shorten_log<E>(&self) -> Result<(), E>
    where
        E: From<rusqlite::Error> + From<WriteError> + Send + 'static,
    {
        let path = self.readers.path.clone();
        tokio::task::spawn_blocking(move || {
            // A connection of its own: within a transaction, as the writer's is most of the time, this cannot be done.
            let connection = open_to_write(&path)?;
            connection.busy_timeout(HOLD_UP)?;
            let busy: bool =
                connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
            if busy {
                return Err(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
                    None,
                )
                .into());
            }
            Ok(())
        })
        .await
        .unwrap_or_else(|_| Err(WriteError::Stopped.into()))
    }

    /// Commits what has been handed over and closes the file.
    pub async fn close(&self) {
        // The writer's connection is the last one, so that it leaves one whole file and no log behind.
        self.readers.lock().clear();
        self.writer.stop().await;
    }
}

impl Readers {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the writer calls with what became of a change, and a future that waits for that.
fn answer<T, E>() -> (
    impl FnOnce(Result<T, E>) + Send + 'static,
    impl Future<Output = Result<T, E>> + Send,
)
where
    T: Send + 'static,
    E: From<WriteError> + Send + 'static,
{
    let (answer, wait) = oneshot::channel();
    (
        // The caller may have gone; the change stands either way.
        move |result| drop(answer.send(result)),
        async move {
            wait.await
                .unwrap_or_else(|_| Err(WriteError::Stopped.into()))
        },
    )
}

fn open_to_write(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // The writer's transactions are cut small; a checkpoint every 4 MiB keeps the log short.
    connection.pragma_update(None, "wal_autocheckpoint", 1000)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    // What is deleted is overwritten: it may be a script that was redacted, or a secret.
    connection.pragma_update(None, "secure_delete", true)?;
    keep_plans(&connection)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    Ok(connection)
}

fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    keep_plans(&connection)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    Ok(connection)
}

/// Without this a statement whose plan could be better for some values than for others is prepared again each time that
/// values are bound to it (`sqlite.org/qpsg.html`).
fn keep_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use rusqlite_migration::M as Migration;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Error {
        #[error(transparent)]
        Write(#[from] WriteError),
        #[error(transparent)]
        Sql(#[from] rusqlite::Error),
        #[error("on purpose")]
        OnPurpose,
    }

    fn open(dir: &tempfile::TempDir) -> Database {
        let migrations = Migrations::new(vec![Migration::up(
            "CREATE TABLE names (name TEXT PRIMARY KEY) STRICT;",
        )]);
        Database::open(&dir.path().join("file.db"), &migrations).expect("opens")
    }

    fn temporary() -> (tempfile::TempDir, Database) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let database = open(&dir);
        (dir, database)
    }

    fn insert(connection: &Connection, name: &str) -> Result<(), Error> {
        connection.execute("INSERT INTO names (name) VALUES (?)", [name])?;
        Ok(())
    }

    fn count(database: &Database) -> i64 {
        database
            .read(|connection| {
                connection.query_row("SELECT count(*) FROM names", [], |row| row.get(0))
            })
            .expect("counts")
    }

    #[tokio::test]
    async fn a_write_is_seen_by_the_next_read_and_survives() {
        let (dir, database) = temporary();
        database.write(|c| insert(c, "one")).await.expect("writes");
        assert_eq!(count(&database), 1);
        database.close().await;
        assert_eq!(count(&open(&dir)), 1);
    }

    #[tokio::test]
    async fn a_commit_is_on_disk_when_it_is_done() {
        let (_dir, database) = temporary();
        let settings = database.write(|c| {
            let synchronous: i64 = c.pragma_query_value(None, "synchronous", |row| row.get(0))?;
            let journal: String = c.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
            Ok::<_, Error>((synchronous, journal))
        });
        let settings = settings.await.expect("asks");
        // 2 is FULL: the log is flushed after each transaction (<https://sqlite.org/pragma.html#pragma_synchronous>).
        assert_eq!(settings, (2, "wal".to_owned()));
    }

    #[tokio::test]
    async fn a_change_that_fails_takes_nothing_else_with_it() {
        let (_dir, database) = temporary();
        let fails = database
            .enqueue(Urgency::Now, |c| {
                insert(c, "half")?;
                Err::<(), _>(Error::OnPurpose)
            })
            .await
            .expect("is handed over");
        let works = database
            .enqueue(Urgency::Now, |c| insert(c, "whole"))
            .await
            .expect("is handed over");
        assert!(matches!(fails.await, Err(Error::OnPurpose)));
        works.await.expect("writes");
        assert_eq!(count(&database), 1);
    }

    #[tokio::test]
    async fn a_change_that_fails_alone_leaves_nothing_behind() {
        let (_dir, database) = temporary();
        let half = |c: &Connection| {
            insert(c, "half")?;
            Err::<(), _>(Error::OnPurpose)
        };
        assert!(matches!(database.write(half).await, Err(Error::OnPurpose)));
        assert_eq!(count(&database), 0);
        database
            .write(|c| insert(c, "whole"))
            .await
            .expect("writes");
        assert_eq!(count(&database), 1);
    }

    #[tokio::test]
    async fn a_change_that_ends_its_own_transaction_is_not_taken_for_committed() {
        let (_dir, database) = temporary();
        // What SQLite does by itself where a disk is full.
        let undone = |c: &Connection| {
            insert(c, "lost")?;
            c.execute_batch("ROLLBACK")?;
            Ok::<_, Error>(())
        };
        assert!(matches!(
            database.write(undone).await,
            Err(Error::Write(WriteError::Commit(_)))
        ));
        database
            .write(|c| insert(c, "whole"))
            .await
            .expect("writes");
        assert_eq!(count(&database), 1);
    }

    #[tokio::test]
    async fn an_urgent_change_takes_those_before_it_along_in_their_order() {
        let (_dir, database) = temporary();
        let mut lazy = Vec::new();
        for name in ["a", "b"] {
            let change = move |c: &Connection| insert(c, name);
            let waiting = database.enqueue(Urgency::Soon, change).await;
            lazy.push(waiting.expect("is handed over"));
        }
        let last = |c: &Connection| {
            let names = c.query_row("SELECT group_concat(name, '') FROM names", [], |row| {
                row.get::<_, String>(0)
            })?;
            Ok::<_, Error>((names, c.is_autocommit()))
        };
        let seen = database.write(last).await.expect("writes");
        assert_eq!(seen, ("ab".to_owned(), false), "in one transaction");
        for waiting in lazy {
            waiting.await.expect("writes");
        }
    }

    #[tokio::test]
    async fn who_waits_for_a_change_is_told_before_those_of_the_same_commit_who_do_not() {
        let (_dir, database) = temporary();
        let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
        for (name, urgency) in [
            ("a", Urgency::Soon),
            ("b", Urgency::Soon),
            ("c", Urgency::Now),
        ] {
            let told = told.clone();
            let task = Task::new(
                urgency,
                move |c: &Connection| insert(c, name),
                move |written: Result<(), Error>| {
                    written.expect("writes");
                    told.send(name).expect("is told");
                },
            );
            database.writer.send(task).await.expect("is handed over");
        }
        for expected in ["c", "a", "b"] {
            assert_eq!(order.recv().await, Some(expected));
        }
    }

    #[tokio::test]
    async fn a_change_that_panics_takes_nothing_else_with_it() {
        let (_dir, database) = temporary();
        let panics = database
            .enqueue(Urgency::Now, |c| {
                insert(c, "half")?;
                if c.is_busy() || !c.is_autocommit() {
                    panic!("on purpose");
                }
                Ok::<_, Error>(())
            })
            .await
            .expect("is handed over");
        let works = database
            .enqueue(Urgency::Now, |c| insert(c, "whole"))
            .await
            .expect("is handed over");
        assert!(panics.await.is_err());
        works.await.expect("writes");
        assert_eq!(count(&database), 1);
    }

    #[tokio::test]
    async fn many_writers_share_a_commit_and_all_get_their_answer() {
        let (_dir, database) = temporary();
        let writes: Vec<_> = (0..2000)
            .map(|n| {
                let database = database.clone();
                tokio::spawn(
                    async move { database.write(move |c| insert(c, &format!("n{n}"))).await },
                )
            })
            .collect();
        for write in writes {
            write.await.expect("runs").expect("writes");
        }
        assert_eq!(count(&database), 2000);
    }

    #[tokio::test]
    async fn a_lazy_change_is_committed_by_itself_and_on_close() {
        let (dir, database) = temporary();
        let (done, wait) = oneshot::channel();
        database
            .write_lazily(
                |c| insert(c, "lazy"),
                move |result| done.send(result.is_ok()).expect("the test waits"),
            )
            .await
            .expect("is handed over");
        assert_eq!(wait.await, Ok(true));
        assert_eq!(count(&database), 1);
        database
            .write_lazily(|c| insert(c, "last"), |_| ())
            .await
            .expect("is handed over");
        database.close().await;
        assert_eq!(count(&open(&dir)), 2);
    }

    #[tokio::test]
    async fn readers_cannot_write_and_long_ones_have_a_thread() {
        let (_dir, database) = temporary();
        assert!(database.read(|c| insert(c, "x")).is_err());
        assert!(database.scan(|c| insert(c, "x")).await.is_err());
    }

    #[tokio::test]
    async fn who_writes_after_the_end_is_told() {
        let (_dir, database) = temporary();
        database.close().await;
        let late = database.write(|c| insert(c, "late")).await;
        assert!(matches!(late, Err(Error::Write(WriteError::Stopped))));
    }

    #[tokio::test]
    async fn the_file_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let (dir, database) = temporary();
        database.write(|c| insert(c, "one")).await.expect("writes");
        for entry in std::fs::read_dir(dir.path()).expect("lists") {
            let entry = entry.expect("an entry");
            let mode = entry.metadata().expect("metadata").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", entry.path().display());
        }
    }

    #[test]
    fn nobody_else_takes_an_open_file_for_one_that_is_not() {
        use std::os::unix::fs::MetadataExt as _;
        let (dir, _database) = temporary();
        let file = std::fs::metadata(dir.path().join("file.db")).expect("metadata");
        // SQLite holds a lock on the file for as long as it is open; who finds none removes the log when he is done.
        let (own, inode) = (std::process::id().to_string(), format!(":{}", file.ino()));
        let locks = std::fs::read_to_string("/proc/locks").expect("reads");
        let held = locks.lines().any(|line| {
            let mut words = line.split_whitespace().skip(4);
            words.next() == Some(&own) && words.next().is_some_and(|file| file.ends_with(&inode))
        });
        assert!(held, "{locks}");
    }

    #[test]
    fn a_file_of_a_later_version_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        drop(open(&dir));
        let later = Connection::open(dir.path().join("file.db")).expect("opens");
        later.pragma_update(None, "user_version", 9).expect("sets");
        let migrations = Migrations::new(vec![Migration::up("CREATE TABLE other (x)")]);
        assert!(matches!(
            Database::open(&dir.path().join("file.db"), &migrations),
            Err(OpenError::Migrate { .. })
        ));
    }
}
