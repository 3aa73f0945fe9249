//! The handle on the file.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::migrate::Migrator;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Sqlite, SqliteConnection};
use tokio::sync::oneshot;

use super::writer::{Task, Writer};
use super::{OpenError, StoreError};

/// The migrations, compiled in.
static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// How many reads run at once. SQLite readers do not wait for the writer or for each other.
const READERS: u32 = 4;

/// The host's database. A cheap handle.
#[derive(Debug, Clone)]
pub struct Store {
    writer: Writer,
    readers: SqlitePool,
}

impl Store {
    /// Opens the database at `path`, creates it where it is missing (mode 0600), and brings its tables to this version.
    ///
    /// # Errors
    ///
    /// Where the file cannot be opened or is of a later version.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        let create = |source| OpenError::Create {
            path: path.to_owned(),
            source,
        };
        let open = |source| OpenError::Open {
            path: path.to_owned(),
            source,
        };
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(create)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10))
            // The writer's transactions are cut small; a checkpoint every 4 MiB keeps the log short.
            .pragma("wal_autocheckpoint", "1000")
            .pragma("trusted_schema", "OFF")
            .disable_statement_logging();
        let mut connection = options.connect().await.map_err(open)?;
        MIGRATIONS
            .run(&mut connection)
            .await
            .map_err(|source| OpenError::Migrate {
                path: path.to_owned(),
                source,
            })?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .min_connections(1)
            .test_before_acquire(false)
            .connect_with(options.read_only(true))
            .await
            .map_err(open)?;
        Ok(Self {
            writer: Writer::start(connection),
            readers,
        })
    }

    /// Runs `change` in the next transaction and answers once that is durable. Where `change` fails, what it did is
    /// rolled back and nothing else is.
    ///
    /// # Errors
    ///
    /// The error of `change`, or [`StoreError`] where the transaction could not be committed.
    pub async fn write<T, E, F>(&self, change: F) -> Result<T, E>
    where
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.enqueue(change).await?.await
    }

    /// Hands `change` to the writer, and gives a future that answers as [`Store::write`] does. Changes are made in the
    /// order in which they were handed over, so the caller may go on in the meantime.
    ///
    /// # Errors
    ///
    /// The writer has stopped.
    pub async fn enqueue<T, E, F>(
        &self,
        change: F,
    ) -> Result<impl Future<Output = Result<T, E>> + Send + use<T, E, F>, E>
    where
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (answer, wait) = oneshot::channel();
        self.writer
            .send(Task::durable(change, move |result| {
                // The caller may have gone; the change stands either way.
                drop(answer.send(result));
            }))
            .await?;
        Ok(async move {
            wait.await
                .unwrap_or_else(|_| Err(E::from(StoreError::Stopped)))
        })
    }

    /// As [`Store::enqueue`], for a change that may wait a moment for company: it is durable with the next commit.
    ///
    /// # Errors
    ///
    /// The writer has stopped.
    pub async fn enqueue_lazily<T, F>(
        &self,
        change: F,
    ) -> Result<impl Future<Output = Result<T, StoreError>> + Send + use<T, F>, StoreError>
    where
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, StoreError>>
            + Send
            + 'static,
        T: Send + 'static,
    {
        let (answer, wait) = oneshot::channel();
        // The caller may have gone; the change stands either way.
        self.write_lazily(change, move |result| drop(answer.send(result)))
            .await?;
        Ok(async move { wait.await.unwrap_or(Err(StoreError::Stopped)) })
    }

    /// Hands over a change that nobody waits for: it rides along with the next commit, or has one of its own after a
    /// moment. `then` runs after that commit.
    ///
    /// # Errors
    ///
    /// The writer has stopped.
    pub async fn write_lazily<T, F>(
        &self,
        change: F,
        then: impl FnOnce(Result<T, StoreError>) + Send + 'static,
    ) -> Result<(), StoreError>
    where
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, StoreError>>
            + Send
            + 'static,
        T: Send + 'static,
    {
        self.writer.send(Task::lazy(change, then)).await
    }

    /// A connection that sees the last commit and cannot write.
    ///
    /// # Errors
    ///
    /// Where none can be had.
    pub async fn read(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        Ok(self.readers.acquire().await?)
    }

    /// Commits what has been handed over and closes the file.
    pub async fn close(&self) {
        // The writer's connection is the last one, so that it leaves one whole file and no log behind.
        self.readers.close().await;
        self.writer.stop().await;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use sqlx::Row as _;

    use super::*;
    use crate::clock::UnixMillis;
    use crate::store::tenants;

    /// A store in a directory that goes with it.
    pub(crate) async fn temporary() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&dir.path().join("host.db"))
            .await
            .expect("opens");
        (dir, store)
    }

    async fn count(store: &Store) -> i64 {
        let mut conn = store.read().await.expect("a connection");
        sqlx::query("SELECT count(*) FROM tenants")
            .fetch_one(&mut *conn)
            .await
            .expect("counts")
            .get(0)
    }

    #[tokio::test]
    async fn a_write_is_seen_by_the_next_read_and_survives() {
        let (dir, store) = temporary().await;
        store
            .write(|conn| {
                Box::pin(async move { tenants::create(conn, "default", UnixMillis(1)).await })
            })
            .await
            .expect("writes");
        assert_eq!(count(&store).await, 1);
        store.close().await;
        let store = Store::open(&dir.path().join("host.db"))
            .await
            .expect("opens again");
        assert_eq!(count(&store).await, 1);
    }

    #[tokio::test]
    async fn a_change_that_fails_takes_nothing_else_with_it() {
        let (_dir, store) = temporary().await;
        let fails = store
            .enqueue(|conn| {
                Box::pin(async move {
                    tenants::create(conn, "half", UnixMillis(1)).await?;
                    Err::<(), _>(StoreError::Corrupt("on purpose".to_owned()))
                })
            })
            .await
            .expect("is handed over");
        let works = store
            .enqueue(|conn| {
                Box::pin(async move { tenants::create(conn, "whole", UnixMillis(1)).await })
            })
            .await
            .expect("is handed over");
        assert!(fails.await.is_err());
        works.await.expect("writes");
        assert_eq!(count(&store).await, 1);
    }

    #[tokio::test]
    async fn many_writers_share_a_commit_and_all_get_their_answer() {
        let (_dir, store) = temporary().await;
        let writes = (0..300).map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                store
                    .write(move |conn| {
                        Box::pin(async move {
                            tenants::create(conn, &format!("t{n}"), UnixMillis(1)).await
                        })
                    })
                    .await
            })
        });
        for write in futures_util::future::join_all(writes).await {
            write.expect("runs").expect("writes");
        }
        assert_eq!(count(&store).await, 300);
    }

    #[tokio::test]
    async fn a_lazy_change_is_committed_by_itself_and_on_close() {
        let (dir, store) = temporary().await;
        let (done, wait) = oneshot::channel();
        store
            .write_lazily(
                |conn| {
                    Box::pin(async move {
                        tenants::create(conn, "lazy", UnixMillis(1))
                            .await
                            .map(|_| ())
                    })
                },
                move |result| done.send(result.is_ok()).expect("the test waits"),
            )
            .await
            .expect("is handed over");
        assert_eq!(wait.await, Ok(true));
        assert_eq!(count(&store).await, 1);
        store
            .write_lazily(
                |conn| {
                    Box::pin(async move {
                        tenants::create(conn, "last", UnixMillis(1))
                            .await
                            .map(|_| ())
                    })
                },
                |_| (),
            )
            .await
            .expect("is handed over");
        store.close().await;
        let store = Store::open(&dir.path().join("host.db"))
            .await
            .expect("opens again");
        assert_eq!(count(&store).await, 2);
    }

    #[tokio::test]
    async fn readers_cannot_write() {
        let (_dir, store) = temporary().await;
        let mut conn = store.read().await.expect("a connection");
        assert!(
            tenants::create(&mut conn, "x", UnixMillis(1))
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn the_file_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let (dir, _store) = temporary().await;
        for entry in std::fs::read_dir(dir.path()).expect("lists") {
            let entry = entry.expect("an entry");
            let mode = entry.metadata().expect("metadata").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", entry.path().display());
        }
    }
}
