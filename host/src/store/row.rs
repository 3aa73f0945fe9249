//! From rows to typed values, and back. Every statement of the store goes through here: it is prepared once for each
//! connection, and values are bound, never written into it.

use std::fmt::Display;
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_database::rusqlite::{Connection, Params, Row};

use super::StoreError;
use crate::clock::UnixMillis;

/// A part of a list, in ascending order of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// What the part before ended with; from the start where empty.
    pub after: String,
    /// How many rows at most.
    pub limit: u32,
}

/// Every row of a query.
pub(super) fn all<T>(
    conn: &Connection,
    query: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    conn.prepare_cached(query)?
        .query_and_then(params, read)?
        .collect()
}

/// Every row of a query, one after the other: for many that are not all kept.
pub(super) fn each<T, E: From<StoreError>>(
    conn: &Connection,
    query: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
    mut found: impl FnMut(T) -> Result<(), E>,
) -> Result<(), E> {
    let mut statement = conn.prepare_cached(query).map_err(StoreError::from)?;
    let rows = statement
        .query_and_then(params, read)
        .map_err(StoreError::from)?;
    for row in rows {
        found(row?)?;
    }
    Ok(())
}

/// The first row of a query, where there is one.
pub(super) fn first<T>(
    conn: &Connection,
    query: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    conn.prepare_cached(query)?
        .query_and_then(params, read)?
        .next()
        .transpose()
}

/// The row of a query that has one.
pub(super) fn only<T>(
    conn: &Connection,
    query: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    first(conn, query, params, read)?.ok_or(StoreError::Statement(
        sluice_database::rusqlite::Error::QueryReturnedNoRows.into(),
    ))
}

/// Whether a query has a row.
pub(super) fn exists(
    conn: &Connection,
    query: &str,
    params: impl Params,
) -> Result<bool, StoreError> {
    Ok(conn.prepare_cached(query)?.exists(params)?)
}

/// Changes something, and says how many rows that were.
pub(super) fn change(
    conn: &Connection,
    statement: &str,
    params: impl Params,
) -> Result<usize, StoreError> {
    Ok(conn.prepare_cached(statement)?.execute(params)?)
}

/// The text of a column.
fn text<'row>(row: &'row Row<'_>, column: &'static str) -> Result<&'row str, StoreError> {
    row.get_ref(column)?
        .as_str()
        .map_err(|error| StoreError::Corrupt(format!("{column}: {error}")))
}

/// The text of a column that may be null.
fn text_or_null<'row>(
    row: &'row Row<'_>,
    column: &'static str,
) -> Result<Option<&'row str>, StoreError> {
    row.get_ref(column)?
        .as_str_or_null()
        .map_err(|error| StoreError::Corrupt(format!("{column}: {error}")))
}

/// The bytes of a column, as long as its row is there.
pub(super) fn bytes<'row>(
    row: &'row Row<'_>,
    column: &'static str,
) -> Result<&'row [u8], StoreError> {
    row.get_ref(column)?
        .as_blob()
        .map_err(|error| StoreError::Corrupt(format!("{column}: {error}")))
}

/// The bytes of a column that may be null, as long as its row is there.
pub(super) fn bytes_or_null<'row>(
    row: &'row Row<'_>,
    column: &'static str,
) -> Result<Option<&'row [u8]>, StoreError> {
    row.get_ref(column)?
        .as_blob_or_null()
        .map_err(|error| StoreError::Corrupt(format!("{column}: {error}")))
}

/// The typed value of a text column.
pub(super) fn parsed<T>(row: &Row<'_>, column: &'static str) -> Result<T, StoreError>
where
    T: FromStr,
    T::Err: Display,
{
    parse(column, text(row, column)?)
}

/// The typed value of a text column that may be null.
pub(super) fn parsed_or_null<T>(
    row: &Row<'_>,
    column: &'static str,
) -> Result<Option<T>, StoreError>
where
    T: FromStr,
    T::Err: Display,
{
    text_or_null(row, column)?
        .map(|text| parse(column, text))
        .transpose()
}

fn parse<T>(column: &'static str, text: &str) -> Result<T, StoreError>
where
    T: FromStr,
    T::Err: Display,
{
    text.parse()
        .map_err(|error| StoreError::Corrupt(format!("{column} {}: {error}", text.escape_debug())))
}

/// The word of a text column as one of a few values; `known` gives none for what is no such word.
pub(super) fn word<T>(
    row: &Row<'_>,
    column: &'static str,
    known: impl FnOnce(&str) -> Option<T>,
) -> Result<T, StoreError> {
    let word = text(row, column)?;
    known(word).ok_or_else(|| StoreError::Corrupt(format!("{column} {}", word.escape_debug())))
}

/// The value that a text column holds as JSON.
pub(super) fn from_json<T: DeserializeOwned>(
    row: &Row<'_>,
    column: &'static str,
) -> Result<T, StoreError> {
    serde_json::from_str(text(row, column)?)
        .map_err(|error| StoreError::Corrupt(format!("{column}: {error}")))
}

/// The JSON that a text column is to hold.
pub(super) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::Corrupt(format!("a value has no JSON form: {error}")))
}

/// A count or size, which SQLite holds as a signed integer.
pub(super) fn unsigned(row: &Row<'_>, column: &'static str) -> Result<u64, StoreError> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| StoreError::Corrupt(format!("{column}: {value} is negative")))
}

/// A count or size that may be null.
pub(super) fn unsigned_or_null(
    row: &Row<'_>,
    column: &'static str,
) -> Result<Option<u64>, StoreError> {
    match row.get_ref(column)? {
        sluice_database::rusqlite::types::ValueRef::Null => Ok(None),
        _ => unsigned(row, column).map(Some),
    }
}

/// A count or size on its way into a column.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A point in time.
pub(super) fn time(row: &Row<'_>, column: &'static str) -> Result<UnixMillis, StoreError> {
    Ok(UnixMillis(row.get(column)?))
}

/// A point in time that may be null.
pub(super) fn time_or_null(
    row: &Row<'_>,
    column: &'static str,
) -> Result<Option<UnixMillis>, StoreError> {
    Ok(row.get::<_, Option<i64>>(column)?.map(UnixMillis))
}
