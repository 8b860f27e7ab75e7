//! Where pools are kept: rows and their events, one transaction a step; and the audit log.

mod audit_log;
mod sqlite;
#[cfg(test)]
mod tests;
mod tokens;

use async_trait::async_trait;
use kasm_autoscale_core::config::JsonObject;
use kasm_autoscale_core::id::{ConfigName, DeploymentId, PoolId, PoolName};
use kasm_autoscale_core::report::Event;
use kasm_autoscale_core::row::{Row, Write};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::trail::{Head, Record, Sealed};
use crate::workspaces::WorkspaceName;

pub(crate) use audit_log::anchor as anchor_of;
pub use sqlite::SqliteStore;
pub use tokens::StoredToken;

/// A store of pools.
///
/// [`save`](Self::save) is the promise everything rests on: when it answers `Ok`, the writes survive a crash of process and
/// machine; when it answers an error, they may or may not, and the caller reads the pool anew.
#[async_trait]
pub trait Store: Send + Sync {
    /// The installation this store belongs to; drawn when the store is made.
    fn deployment(&self) -> DeploymentId;

    /// All pools, by name.
    async fn pools(&self) -> Result<Vec<StoredPool>, StoreError>;

    /// Adds a pool, or finds the one of this name; answers with its id.
    async fn add_pool(&self, name: PoolName) -> Result<PoolId, StoreError>;

    /// Forgets a pool with its rows. Its events stay until they are trimmed.
    async fn forget_pool(&self, pool: PoolId) -> Result<(), StoreError>;

    /// All rows of a pool, in any order; none for a pool that was never saved.
    async fn load(&self, pool: PoolId) -> Result<Vec<Row>, StoreError>;

    /// Writes a step, and before it these entries of the audit log, which say who asked for it: all of it in one commit, or
    /// nothing.
    async fn save(
        &self,
        pool: PoolId,
        writes: Vec<Write>,
        events: Vec<Event>,
        records: Vec<Record>,
    ) -> Result<(), StoreError>;

    /// The latest events of a pool, the latest first, at most `limit`, older than number `before` where that is given.
    async fn events(&self, pool: PoolId, before: Option<i64>, limit: u32) -> Result<Vec<StoredEvent>, StoreError>;

    /// Adds an entry to the audit log, linked to the one before it, and trims the oldest ones. It is durable when this answers
    /// `Ok`, and so are all that were added before it; when it answers an error, it may be there or not.
    async fn record(&self, record: Record) -> Result<(), StoreError>;

    /// Adds an entry with the next commit, or in a moment if there is none. If it cannot be written the log says so.
    fn record_soon(&self, record: Record);

    /// The end of the audit log, with all that was added before; `None` if it has no entries.
    async fn audit_head(&self) -> Result<Option<Head>, StoreError>;

    /// The latest entries of the audit log, the latest first, at most `limit`, older than number `before` where that is given.
    async fn audit_entries(&self, before: Option<i64>, limit: u32) -> Result<Vec<Sealed>, StoreError>;

    /// What the config file declared when it was last loaded.
    async fn declared(&self) -> Result<Declared, StoreError>;

    /// Remembers what the config file declares now.
    async fn set_declared(&self, declared: Declared) -> Result<(), StoreError>;

    /// The API tokens that were made through the API, and what is known of those of config files, in any order.
    async fn tokens(&self) -> Result<Vec<StoredToken>, StoreError>;

    /// Keeps tokens, in place of those of the same SHA-256: all of them or none. One that is revoked stays so.
    async fn put_tokens(&self, tokens: Vec<StoredToken>) -> Result<(), StoreError>;

    /// Forgets the tokens of these SHA-256. One that is not there is forgotten already.
    async fn forget_tokens(&self, tokens: Vec<[u8; 32]>) -> Result<(), StoreError>;

    /// The workspaces that were made through the API, in any order.
    async fn workspaces(&self) -> Result<Vec<JsonObject>, StoreError>;

    /// Keeps a workspace, in place of the one of this name if there is one.
    async fn put_workspace(&self, name: WorkspaceName, workspace: JsonObject) -> Result<(), StoreError>;

    /// Forgets a workspace. One that is not there is forgotten already.
    async fn forget_workspace(&self, name: WorkspaceName) -> Result<(), StoreError>;
}

/// A pool in the store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredPool {
    /// Its id.
    pub id: PoolId,
    /// Its name.
    pub name: PoolName,
}

/// An event in the store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredEvent {
    /// Its number, rising with time.
    pub number: i64,
    /// The event.
    pub event: Event,
}

/// What a config file declares. Kept so that what is later taken out of the file is taken out of the pools as well.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Declared {
    /// Each declared pool with its declared configs.
    pub pools: std::collections::BTreeMap<PoolName, std::collections::BTreeSet<ConfigName>>,
}

/// Why the store failed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file cannot be opened or is not ours.
    #[error("cannot open the store {path}: {reason}")]
    Open {
        /// The file.
        path: String,
        /// Why, and what to do.
        reason: String,
    },
    /// A call to the database failed.
    #[error("the store failed: {0}")]
    Database(#[from] rusqlite::Error),
    /// A row cannot be read.
    #[error("row {key} of the store cannot be read: {reason}")]
    Row {
        /// Its key.
        key: String,
        /// Why.
        reason: String,
    },
    /// The system gives no random bytes for a new id.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}
