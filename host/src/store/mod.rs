//! The truth: one SQLite file, which one thread writes (see [`sluice_database`]).
//!
//! - Writes ([`Store::write`]) share a commit with what else is waiting, and are answered after it; [`Store::write_lazily`] is
//!   for what nobody waits for.
//! - Reads see the last commit: lookups and short pages where they are called ([`Store::read`]), the rest on a thread of
//!   its own ([`Store::scan`]). [`Store::look`] chooses by how much there is.
//! - One file for each aggregate: functions over a connection, with the tenant as an argument. They do not commit, so
//!   callers put the change and its audit entry into one transaction.

mod error;
mod open;
mod row;

pub mod approval_policies;
pub mod approvals;
pub mod audit;
pub mod bindings;
pub mod blobs;
pub mod enroll_tokens;
pub mod grants;
pub mod history;
pub mod holds;
pub mod job_list;
pub mod jobs;
pub mod later;
pub mod lockdown;
pub mod machines;
pub mod offers;
pub mod operations;
pub mod operators;
pub mod output;
pub mod plugins;
pub mod publishers;
pub mod receipts;
pub mod roles;
pub mod rollouts;
pub mod schedule_events;
pub mod schedules;
pub mod scripts;
pub mod secrets;
pub mod standing_approvals;
pub mod tenants;
pub mod tokens;
pub mod windows;

pub use error::StoreError;
pub use open::{Extent, Store};
pub use row::Page;
pub use sluice_database::rusqlite::Connection;
pub use sluice_database::{OpenError, Urgency};

#[cfg(test)]
pub(crate) use open::tests as tests_support;
