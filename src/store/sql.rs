//! Small helpers between Rust's types and SQLite's.

use super::StoreError;
use rusqlite::{Connection, OptionalExtension, params};
use std::str::FromStr;

/// SQLite's numbers are signed; ours stay below half the scale.
pub(crate) fn to_i64(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Back from [`to_i64`].
pub(crate) fn to_u64(n: i64) -> u64 {
    u64::try_from(n).unwrap_or_default()
}

/// A value of `meta`.
pub(crate) fn meta(conn: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    conn.prepare_cached("SELECT value FROM meta WHERE key = ?1")?.query_row([key], |row| row.get(0)).optional()
}

/// Set a value of `meta`.
pub(crate) fn set_meta(conn: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2 WHERE value <> ?2",
    )?
    .execute(params![key, value])?;
    Ok(())
}

/// A number of `meta`; 0 when there is none.
pub(crate) fn number(conn: &Connection, key: &str) -> rusqlite::Result<u64> {
    Ok(meta(conn, key)?.and_then(|text| text.parse().ok()).unwrap_or_default())
}

/// Set a number of `meta`.
pub(crate) fn set_number(conn: &Connection, key: &str, n: u64) -> rusqlite::Result<()> {
    set_meta(conn, key, &n.to_string())
}

/// The next of a running number of `meta`, from 1.
pub(crate) fn next_number(conn: &Connection, key: &str) -> rusqlite::Result<u64> {
    let next = number(conn, key)? + 1;
    set_number(conn, key, next)?;
    Ok(next)
}

/// An id from a text column; `None` when it is empty or no id.
pub(crate) fn read_id<T: FromStr>(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Option<T>> {
    Ok(row.get_ref(at)?.as_str_or_null()?.and_then(|text| text.parse().ok()))
}

/// Says what was attempted.
pub(crate) trait Attempt<T> {
    /// Say it.
    fn attempt(self, attempt: &'static str) -> Result<T, StoreError>;
}

impl<T> Attempt<T> for rusqlite::Result<T> {
    fn attempt(self, attempt: &'static str) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::Sqlite { attempt, reason: error.to_string() })
    }
}
