//! What can go wrong between a program and its file.

use std::path::PathBuf;
use std::sync::Arc;

/// A change did not happen, for a reason that is not its own.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// The transaction could not be made durable, so nothing in it happened.
    #[error("the database could not commit: is its disk full or gone?")]
    Commit(#[source] Arc<rusqlite::Error>),
    /// The writer has stopped, or cannot begin a transaction.
    #[error("the database takes no changes now: the program is stopping, or its disk is at fault")]
    Stopped,
}

/// A file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file could not be made for its owner alone before anything is written into it.
    #[error("cannot create the database {} for its owner alone", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no database, or it cannot be opened.
    #[error("cannot open the database {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// Its tables could not be brought to this version; it may be of a later one.
    #[error("cannot bring the database {} to this version", path.display())]
    Migrate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite_migration::Error,
    },
    /// The thread that writes could not be started.
    #[error("cannot start the thread that writes the database {}", path.display())]
    Thread {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}
