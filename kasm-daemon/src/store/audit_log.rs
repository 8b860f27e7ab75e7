//! The tables of the audit log: entries by number, and the anchor that stands for those that were trimmed.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::StoreError;
use crate::trail::verify::Anchor;
use crate::trail::{Head, Record, Sealed};

/// The tables, which edition 1 of the file has not got.
pub(super) const TABLES: &str = "
    CREATE TABLE audit (number INTEGER PRIMARY KEY, entry TEXT NOT NULL, mac BLOB NOT NULL) STRICT;
    CREATE TABLE audit_anchor (number INTEGER PRIMARY KEY, mac BLOB NOT NULL, seal BLOB NOT NULL) STRICT;
";

/// After how many entries the oldest ones are looked at.
const TRIM_EVERY: i64 = 100;
/// How many go at once at most, so that a log that may suddenly be much shorter does not hold everybody up.
const TRIM_MAX: i64 = 2000;

/// Adds an entry behind the last one.
pub(super) fn add(transaction: &Transaction<'_>, record: &Record) -> Result<(), StoreError> {
    let before = match last(transaction)? {
        Some(head) => head,
        None => anchor(transaction)?.map_or_else(|| record.chain.genesis(), |anchor| anchor.head),
    };
    let head = record.chain.link(&before, &record.text).ok_or_else(|| StoreError::Row {
        key: format!("audit {}", before.number),
        reason: "it has the last number there is".into(),
    })?;
    transaction.prepare_cached("INSERT INTO audit (number, entry, mac) VALUES (?1, ?2, ?3)")?.execute(params![
        head.number,
        record.text,
        head.mac
    ])?;
    if head.number % TRIM_EVERY == 0 { trim(transaction, record, head.number) } else { Ok(()) }
}

/// The last entry's number and MAC.
pub(super) fn last(transaction: &Transaction<'_>) -> Result<Option<Head>, StoreError> {
    let sql = "SELECT number, mac FROM audit ORDER BY number DESC LIMIT 1";
    let last = transaction.prepare_cached(sql)?.query_row([], |row| head(row, 1)).optional()?;
    Ok(last)
}

/// What stands for the entries that were trimmed, if any were.
pub(crate) fn anchor(connection: &Connection) -> rusqlite::Result<Option<Anchor>> {
    let sql = "SELECT number, mac, seal FROM audit_anchor ORDER BY number DESC LIMIT 1";
    connection.query_row(sql, [], |row| Ok(Anchor { head: head(row, 1)?, seal: row.get(2)? })).optional()
}

fn head(row: &Row<'_>, mac: usize) -> rusqlite::Result<Head> {
    Ok(Head { number: row.get(0)?, mac: row.get(mac)? })
}

fn trim(transaction: &Transaction<'_>, record: &Record, number: i64) -> Result<(), StoreError> {
    let first: i64 = transaction.query_row("SELECT min(number) FROM audit", [], |row| row.get(0))?;
    let upto = number.saturating_sub(i64::from(record.keep)).min(first.saturating_add(TRIM_MAX - 1));
    let sql = "SELECT number, mac FROM audit WHERE number <= ?1 ORDER BY number DESC LIMIT 1";
    let Some(gone) = transaction.query_row(sql, [upto], |row| head(row, 1)).optional()? else { return Ok(()) };
    transaction.execute("DELETE FROM audit_anchor", [])?;
    transaction.execute(
        "INSERT INTO audit_anchor (number, mac, seal) VALUES (?1, ?2, ?3)",
        params![gone.number, gone.mac, record.chain.seal(&gone)],
    )?;
    transaction.execute("DELETE FROM audit WHERE number <= ?1", [gone.number])?;
    Ok(())
}

/// The latest entries below a number, the latest first.
pub(super) fn entries(
    transaction: &Transaction<'_>,
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<Sealed>, StoreError> {
    let sql = "SELECT number, entry, mac FROM audit WHERE number < ?1 ORDER BY number DESC LIMIT ?2";
    let mut statement = transaction.prepare_cached(sql)?;
    let rows = statement.query_map(params![before.unwrap_or(i64::MAX), limit], |row| {
        Ok(Sealed { head: head(row, 2)?, text: row.get(1)? })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// An entry that nobody waits for, so that the log must say if it was not written: also where its transaction never began.
pub(super) struct Unwritten(bool);

impl Unwritten {
    pub(super) const fn new() -> Self {
        Self(true)
    }

    pub(super) fn settle(mut self, written: Result<(), String>) {
        match written {
            Ok(()) => self.0 = false,
            Err(error) => tracing::error!(%error, "the audit log cannot be written"),
        }
    }
}

impl Drop for Unwritten {
    fn drop(&mut self) {
        if self.0 {
            tracing::error!("an entry of the audit log is lost: a call is left without its answer there");
        }
    }
}
