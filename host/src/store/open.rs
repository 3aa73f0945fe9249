//! The handle on the file: a [`Database`] with the host's tables, and with [`StoreError`] for what goes wrong around a
//! change or a look.

use std::path::Path;

use sluice_database::rusqlite::{self, Connection};
use sluice_database::{Database, Migration, Migrations, OpenError, Urgency, WriteError};

use super::StoreError;

/// The host's database. A cheap handle.
#[derive(Debug, Clone)]
pub struct Store(Database);

impl Store {
    /// Opens the database at `path`, creates it where it is missing (mode 0600), and brings its tables to this version.
    ///
    /// # Errors
    ///
    /// Where the file cannot be opened or is of a later version.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Database::open(path, &migrations()).map(Self)
    }

    /// Runs `change` in the next transaction and answers once that is durable. Where `change` fails, what it did is
    /// rolled back and nothing else is.
    ///
    /// # Errors
    ///
    /// The error of `change`, or [`StoreError`] where the transaction could not be committed.
    pub async fn write<T, E, F>(&self, change: F) -> Result<T, E>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.enqueue(Urgency::Now, change).await?.await
    }

    /// Hands `change` to the writer, and gives a future that answers as [`Store::write`] does. Changes are made in the
    /// order in which they were handed over, so the caller may go on in the meantime.
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
        E: From<StoreError> + Send + 'static,
    {
        let answer = self.0.enqueue(urgency, |conn| within(conn, change)).await;
        let answer = answer.map_err(Failure::settle)?;
        Ok(async move { answer.await.map_err(Failure::settle) })
    }

    /// Hands over a change that nobody waits for: it rides along with the next commit, or has one of its own after a
    /// moment. `then` runs after that commit, on the thread that writes.
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
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        Ok(self.0.write_lazily(change, then).await?)
    }

    /// Looks something up in what is committed, on the thread of the caller: for point lookups and short pages.
    ///
    /// # Errors
    ///
    /// The error of `look`, or [`StoreError`] where there is no connection to be had.
    pub fn read<T, E>(&self, look: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E>
    where
        E: From<StoreError>,
    {
        self.0
            .read(|conn| within(conn, look))
            .map_err(Failure::settle)
    }

    /// As [`Store::read`], on a thread where it may take its time: for what has no small bound.
    ///
    /// # Errors
    ///
    /// As [`Store::read`], and where the program is stopping.
    pub async fn scan<T, E>(
        &self,
        look: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.0
            .scan(|conn| within(conn, look))
            .await
            .map_err(Failure::settle)
    }

    /// [`Store::read`] or [`Store::scan`], by how much there is to read.
    ///
    /// # Errors
    ///
    /// As [`Store::scan`].
    pub async fn look<T, E>(
        &self,
        extent: Extent,
        look: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        match extent {
            Extent::Short => self.read(look),
            Extent::Long => self.scan(look).await,
        }
    }

    /// Takes what was overwritten or erased out of the log beside the file, which else keeps it until that is written to
    /// again.
    ///
    /// # Errors
    ///
    /// Somebody reads without end, or the disk is at fault.
    pub async fn shorten_log(&self) -> Result<(), StoreError> {
        self.0
            .shorten_log()
            .await
            .map_err(Failure::<StoreError>::settle)
    }

    /// Commits what has been handed over and closes the file.
    pub async fn close(&self) {
        self.0.close().await;
    }
}

/// How much a look reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// A few rows: reading them takes no longer than finding a thread to do it.
    Short,
    /// More than that, or nobody knows.
    Long,
}

impl Extent {
    /// Of this many rows.
    #[must_use]
    pub const fn of_rows(rows: usize) -> Self {
        if rows <= 32 { Self::Short } else { Self::Long }
    }

    /// Of this many bytes.
    #[must_use]
    pub const fn of_bytes(bytes: u64) -> Self {
        if bytes <= 256 << 10 {
            Self::Short
        } else {
            Self::Long
        }
    }
}

/// The tables, from the first version on.
fn migrations() -> Migrations<'static> {
    Migrations::new(vec![
        Migration::up(include_str!("../../migrations/0001_first.sql")),
        Migration::up(include_str!("../../migrations/0002_scripts.sql")),
        Migration::up(include_str!("../../migrations/0003_schedules.sql")),
        Migration::up(include_str!("../../migrations/0004_declarations.sql")),
        Migration::up(include_str!("../../migrations/0005_output.sql")),
        Migration::up(include_str!("../../migrations/0006_confinement.sql")),
        Migration::up(include_str!("../../migrations/0007_approvals.sql")),
        Migration::up(include_str!("../../migrations/0008_rollouts.sql")),
        Migration::up(include_str!("../../migrations/0009_secrets.sql")),
        Migration::up(include_str!("../../migrations/0010_binding_revisions.sql")),
        Migration::up(include_str!("../../migrations/0011_receipts.sql")),
        Migration::up(include_str!("../../migrations/0012_operators.sql")),
        Migration::up(include_str!("../../migrations/0013_history.sql")),
        Migration::up(include_str!("../../migrations/0014_as_stored.sql")),
        Migration::up(include_str!("../../migrations/0015_holds.sql")),
        Migration::up(include_str!("../../migrations/0016_windows.sql")),
        Migration::up(include_str!("../../migrations/0017_schedule_events.sql")),
        Migration::up(include_str!("../../migrations/0018_tenants.sql")),
        Migration::up(include_str!("../../migrations/0019_offers.sql")),
        Migration::up(include_str!("../../migrations/0020_made_by_grants.sql")),
        Migration::up(include_str!("../../migrations/0021_start_by.sql")),
        Migration::up(include_str!("../../migrations/0022_supersede.sql")),
        Migration::up(include_str!("../../migrations/0023_stop_rules.sql")),
        Migration::up(include_str!("../../migrations/0024_job_list.sql")),
        Migration::up(include_str!("../../migrations/0025_in_order.sql")),
        Migration::up(include_str!("../../migrations/0026_lean_looks.sql")),
        Migration::up(include_str!(
            "../../migrations/0027_findings_behind_holds.sql"
        )),
        Migration::up(include_str!("../../migrations/0028_later.sql")),
    ])
}

/// Why something failed that was done with a connection: for its own reason, or for one of the database's.
enum Failure<E> {
    Own(E),
    Database(StoreError),
}

impl<E: From<StoreError>> Failure<E> {
    fn settle(self) -> E {
        match self {
            Self::Own(error) => error,
            Self::Database(error) => error.into(),
        }
    }
}

impl<E> From<WriteError> for Failure<E> {
    fn from(error: WriteError) -> Self {
        Self::Database(error.into())
    }
}

impl<E> From<rusqlite::Error> for Failure<E> {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.into())
    }
}

fn within<T, E>(
    conn: &Connection,
    what: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, Failure<E>> {
    what(conn).map_err(Failure::Own)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::clock::UnixMillis;
    use crate::store::tenants;

    /// A store in a directory that goes with it.
    pub(crate) fn temporary() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&dir.path().join("host.db")).expect("opens");
        (dir, store)
    }

    #[test]
    fn the_migrations_are_whole() {
        migrations().validate().expect("every step works");
    }

    #[tokio::test]
    async fn what_is_written_is_there_when_the_file_is_opened_again() {
        let (dir, store) = temporary();
        let made = store
            .write(|conn| tenants::create(conn, "default", UnixMillis(1)))
            .await
            .expect("writes");
        store.close().await;
        let store = Store::open(&dir.path().join("host.db")).expect("opens again");
        let found = store.read(|conn| tenants::find(conn, made.id));
        assert_eq!(found.expect("reads"), Some(made));
    }

    #[tokio::test]
    async fn a_change_has_its_own_error_and_one_after_the_end_is_told_so() {
        let (_dir, store) = temporary();
        let own = store
            .write(|_| Err::<(), _>(StoreError::Corrupt("on purpose".to_owned())))
            .await;
        assert!(matches!(own, Err(StoreError::Corrupt(_))));
        let reader = store.read(|conn| tenants::create(conn, "x", UnixMillis(1)));
        assert!(matches!(reader, Err(StoreError::Statement(_))));
        store.close().await;
        let late = store
            .write(|conn| tenants::create(conn, "late", UnixMillis(1)))
            .await;
        assert!(matches!(late, Err(StoreError::Stopped)));
    }
}
