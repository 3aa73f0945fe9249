//! What can go wrong between the program and its file.

use std::path::PathBuf;
use std::sync::Arc;

/// The store could not do what it was asked. The operator of the host must act; a request that meets it changed nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// SQLite said no.
    #[error("the database refused a statement")]
    Statement(#[source] Arc<sqlx::Error>),
    /// The transaction could not be made durable, so nothing in it happened.
    #[error("the database could not commit: is its disk full or gone?")]
    Commit(#[source] Arc<sqlx::Error>),
    /// A value in the file is not one that this program writes.
    #[error("the database holds a value that cannot be read: {0}")]
    Corrupt(String),
    /// The writer has stopped, or cannot begin a transaction.
    #[error("the database takes no changes now: the host is stopping, or its disk is at fault")]
    Stopped,
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Statement(Arc::new(error))
    }
}

/// The file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no database, or it cannot be opened.
    #[error("cannot open the database {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: sqlx::Error,
    },
    /// Its tables could not be brought to this version.
    #[error("cannot bring the database {} to this version", path.display())]
    Migrate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: sqlx::migrate::MigrateError,
    },
    /// The file's mode could not be set before anything was written into it.
    #[error("cannot create the database {} for its owner alone", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}
