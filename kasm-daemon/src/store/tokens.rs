//! What is kept of API tokens: their SHA-256 and what is known about them, never a token.

use kasm_autoscale_core::time::Timestamp;
use rusqlite::{Connection, Row, Transaction, params};

use super::StoreError;
use crate::auth::Role;

/// Since edition 2 of the schema. Instants are milliseconds since 1970.
pub(super) const TABLE: &str = "
    CREATE TABLE tokens (
        sha256 BLOB PRIMARY KEY,
        name TEXT NOT NULL,
        role TEXT NOT NULL,
        created_at INTEGER,
        expires_at INTEGER,
        last_used_at INTEGER,
        revoked_at INTEGER
    ) STRICT, WITHOUT ROWID;
";

/// An API token in the store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredToken {
    /// SHA-256 of the whole token.
    pub sha256: [u8; 32],
    /// Who holds it, for the log.
    pub name: String,
    /// What the holder may do.
    pub role: Role,
    /// When it was made through the API. `None`: a config file declared it.
    pub created_at: Option<Timestamp>,
    /// From when on it is not accepted any more.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to a minute or two.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked. Once that is kept it stays.
    pub revoked_at: Option<Timestamp>,
}

pub(super) fn read(connection: &Connection) -> Result<Vec<StoredToken>, StoreError> {
    let sql = "SELECT sha256, name, role, created_at, expires_at, last_used_at, revoked_at FROM tokens";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut tokens = vec![];
    while let Some(row) = rows.next()? {
        tokens.push(read_row(row)?);
    }
    Ok(tokens)
}

fn read_row(row: &Row<'_>) -> Result<StoredToken, StoreError> {
    let name: String = row.get("name")?;
    let unreadable = |what: &str| StoreError::Row { key: format!("token {name}"), reason: format!("its {what}") };
    let role: String = row.get("role")?;
    let role = Role::OF_TOKENS.into_iter().find(|known| known.as_str() == role).ok_or_else(|| unreadable("role"))?;
    let sha256: Vec<u8> = row.get("sha256")?;
    let sha256 = sha256.try_into().map_err(|_| unreadable("SHA-256"))?;
    let at = |column: &str| -> Result<Option<Timestamp>, StoreError> {
        let millis: Option<i64> = row.get(column)?;
        millis
            .map(|millis| u64::try_from(millis).map(Timestamp::from_millis).map_err(|_| unreadable(column)))
            .transpose()
    };
    Ok(StoredToken {
        sha256,
        role,
        created_at: at("created_at")?,
        expires_at: at("expires_at")?,
        last_used_at: at("last_used_at")?,
        revoked_at: at("revoked_at")?,
        name,
    })
}

/// All of them or none. A token that is revoked stays so, whatever a caller knew of it.
pub(super) fn put(transaction: &Transaction<'_>, tokens: &[StoredToken]) -> Result<(), StoreError> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO tokens (sha256, name, role, created_at, expires_at, last_used_at, revoked_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT DO UPDATE SET name = excluded.name, role = excluded.role, created_at = excluded.created_at,
             expires_at = excluded.expires_at, last_used_at = excluded.last_used_at,
             revoked_at = coalesce(tokens.revoked_at, excluded.revoked_at)",
    )?;
    let millis = |at: Option<Timestamp>| at.map(|at| i64::try_from(at.as_millis()).unwrap_or(i64::MAX));
    for token in tokens {
        statement.execute(params![
            token.sha256,
            token.name,
            token.role.as_str(),
            millis(token.created_at),
            millis(token.expires_at),
            millis(token.last_used_at),
            millis(token.revoked_at),
        ])?;
    }
    Ok(())
}

pub(super) fn forget(transaction: &Transaction<'_>, tokens: &[[u8; 32]]) -> Result<(), StoreError> {
    let mut statement = transaction.prepare_cached("DELETE FROM tokens WHERE sha256 = ?1")?;
    for sha256 in tokens {
        statement.execute([sha256])?;
    }
    Ok(())
}
