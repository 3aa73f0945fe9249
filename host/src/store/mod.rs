//! The truth: one SQLite file, written by one task.
//!
//! - Writes go to the writer task ([`Store::write`]), which runs what has piled up in one transaction, each in a
//!   savepoint of its own, and answers after the commit. So a commit's `fsync` is shared by everybody who waits.
//! - Reads take a connection of a small pool ([`Store::read`]) and see the last commit.
//! - One file for each aggregate: functions over a connection, with the tenant as an argument. They do not commit, so
//!   callers put the change and its audit entry into one transaction.

mod error;
mod open;
mod row;
mod writer;

pub mod audit;
pub mod bindings;
pub mod blobs;
pub mod enroll_tokens;
pub mod jobs;
pub mod machines;
pub mod operations;
pub mod output;
pub mod plugins;
pub mod publishers;
pub mod tenants;
pub mod tokens;

pub use error::{OpenError, StoreError};
pub use open::Store;
pub use row::Page;

#[cfg(test)]
pub(crate) use open::tests as tests_support;
