//! From columns to typed values, and back.

use std::fmt::Display;
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::StoreError;

/// A part of a list, in ascending order of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// What the part before ended with; from the start where empty.
    pub after: String,
    /// How many rows at most.
    pub limit: u32,
}

/// The typed value of a text column.
pub(super) fn parsed<T>(row: &SqliteRow, column: &'static str) -> Result<T, StoreError>
where
    T: FromStr,
    T::Err: Display,
{
    let text: &str = row.try_get(column)?;
    text.parse()
        .map_err(|error| StoreError::Corrupt(format!("{column} {}: {error}", text.escape_debug())))
}

/// The typed value of a text column that may be null.
pub(super) fn parsed_or_null<T>(
    row: &SqliteRow,
    column: &'static str,
) -> Result<Option<T>, StoreError>
where
    T: FromStr,
    T::Err: Display,
{
    let text: Option<&str> = row.try_get(column)?;
    text.map(|text| {
        text.parse().map_err(|error| {
            StoreError::Corrupt(format!("{column} {}: {error}", text.escape_debug()))
        })
    })
    .transpose()
}

/// The value that a text column holds as JSON.
pub(super) fn from_json<T: DeserializeOwned>(
    row: &SqliteRow,
    column: &'static str,
) -> Result<T, StoreError> {
    let text: &str = row.try_get(column)?;
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt(format!("{column}: {error}")))
}

/// The JSON that a text column is to hold.
pub(super) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::Corrupt(format!("a value has no JSON form: {error}")))
}

/// A count or size, which SQLite holds as a signed integer.
pub(super) fn unsigned(row: &SqliteRow, column: &'static str) -> Result<u64, StoreError> {
    let value: i64 = row.try_get(column)?;
    u64::try_from(value).map_err(|_| StoreError::Corrupt(format!("{column}: {value} is negative")))
}

/// A count or size on its way into a column.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
