//! The one way in which Sluice keeps things in SQLite: a file that one thread writes, with group commit.
//!
//! - Writes go to the writer thread ([`Database::write`]), which runs what has piled up in one transaction, each in a
//!   savepoint of its own, and answers after the commit. So a commit's `fsync` is shared by everybody who waits.
//! - Reads ([`Database::read`]) see the last commit. They run where they are called, because a point lookup takes
//!   microseconds and a thread to run it on takes tens of them; [`Database::scan`] is for those that take longer.
//!
//! What is in the file is its owner's to say: the host's store, the agent's ledger.

mod error;
mod file;
pub mod simulation;
mod writer;

pub use error::{OpenError, WriteError};
pub use file::Database;
pub use rusqlite;
pub use rusqlite_migration::{M as Migration, Migrations};
pub use writer::Urgency;
