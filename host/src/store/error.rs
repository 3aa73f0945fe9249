//! What can go wrong between the program and its file.

use std::sync::Arc;

use sluice_database::{WriteError, rusqlite};

/// The store could not do what it was asked. The operator of the host must act; a request that meets it changed nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// SQLite said no.
    #[error("the database refused a statement")]
    Statement(#[source] Arc<rusqlite::Error>),
    /// The transaction could not be made durable, so nothing in it happened.
    #[error("the database could not commit: is its disk full or gone?")]
    Commit(#[source] Arc<rusqlite::Error>),
    /// A value in the file is not one that this program writes.
    #[error("the database holds a value that cannot be read: {0}")]
    Corrupt(String),
    /// The writer has stopped, or cannot begin a transaction.
    #[error("the database takes no changes now: the host is stopping, or its disk is at fault")]
    Stopped,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Statement(Arc::new(error))
    }
}

impl From<WriteError> for StoreError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Commit(error) => Self::Commit(error),
            WriteError::Stopped => Self::Stopped,
        }
    }
}
