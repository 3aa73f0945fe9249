//! `sluice-host restored`: says that a host's folder came from a backup.
//!
//! The database then lacks what happened since. What machines have ended in that time they know, and start nothing of it
//! again: they do that whether this is said or not. What is said here is on every tenant's record and, by another epoch, on
//! every machine's; from there on it is known that both may speak of what the database does not have.

use std::path::Path;

use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::directory::{DataDirectory, DirectoryError};
use crate::random::{self, NoRandomness};
use crate::store::{OpenError, Store, StoreError, history, tenants};

/// Begins another epoch in the folder `data`, and gives its number.
///
/// # Errors
///
/// Where there is no host, one runs there, or its database cannot be used. Nothing was changed then.
pub async fn restored(data: &Path, now: UnixMillis) -> Result<u64, RestoredError> {
    let directory = DataDirectory::open(data)?;
    let _locked = directory.lock()?;
    // SQLite's integers are signed.
    let epoch = u64::from_le_bytes(random::bytes()?) >> 1;
    let store = Store::open(&directory.database())?;
    store
        .write(move |conn| {
            history::begin_epoch(conn, epoch, now)?;
            // Machines believe the newest set of gates.
            tenants::skip_gates_revisions(conn)?;
            for tenant in tenants::list(conn)? {
                let event = Event::by_host(EventKind::HostRestored).detail("epoch", epoch);
                audit::append(conn, &tenant, now, [event])?;
            }
            Ok::<_, StoreError>(())
        })
        .await?;
    store.close().await;
    Ok(epoch)
}

/// Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RestoredError {
    /// There is no host, or it runs.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The system has no randomness.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}
