//! Whether the host is locked down: one row, or none. It is about the host and every tenant on it.

use sluice_database::rusqlite::{Connection, params};

use super::StoreError;
use super::row::{change, first, time};
use crate::clock::UnixMillis;

/// A lockdown that has not been lifted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockdownRow {
    /// Since when.
    pub since: UnixMillis,
    /// Who started it.
    pub operator: String,
    /// Why, where they said so.
    pub reason: Option<String>,
}

/// The lockdown, where there is one.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn current(conn: &Connection) -> Result<Option<LockdownRow>, StoreError> {
    first(
        conn,
        "SELECT since, operator, reason FROM lockdown",
        [],
        |row| {
            Ok(LockdownRow {
                since: time(row, "since")?,
                operator: row.get("operator")?,
                reason: row.get("reason")?,
            })
        },
    )
}

/// Starts one; says no where there is one already, which stays as it is.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn start(conn: &Connection, lockdown: &LockdownRow) -> Result<bool, StoreError> {
    Ok(change(
        conn,
        "INSERT INTO lockdown (id, since, operator, reason) VALUES (1, ?, ?, ?) ON CONFLICT DO NOTHING",
        params![lockdown.since.0, &lockdown.operator, &lockdown.reason],
    )? == 1)
}

/// Ends it; says no where there is none.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn lift(conn: &Connection) -> Result<bool, StoreError> {
    Ok(change(conn, "DELETE FROM lockdown", [])? == 1)
}
