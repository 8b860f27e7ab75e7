//! A store that refuses what it is told to refuse.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_trait::async_trait;
use kasm_autoscale_core::config::JsonObject;
use kasm_autoscale_core::id::{DeploymentId, PoolId, PoolName};
use kasm_autoscale_core::report::Event;
use kasm_autoscale_core::row::{Row, Write};
use kasm_daemon::store::{Declared, SqliteStore, Store, StoreError, StoredEvent, StoredPool, StoredToken};
use kasm_daemon::trail::{Head, Record, Sealed};
use kasm_daemon::workspaces::WorkspaceName;

/// A real store, but for what it refuses; and how often its pools were tried to be saved, and read.
pub(crate) struct Refusing {
    store: SqliteStore,
    /// Whether it refuses steps, as a full disk does.
    pub(crate) steps: AtomicBool,
    /// Whether it refuses entries of the audit log, and steps that have some.
    pub(crate) entries: AtomicBool,
    pub(crate) steps_refused: AtomicU32,
    pub(crate) loaded: AtomicU32,
}

impl Refusing {
    /// It refuses nothing yet.
    pub(crate) fn new(store: SqliteStore) -> Self {
        let (steps, entries) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { store, steps, entries, steps_refused: AtomicU32::new(0), loaded: AtomicU32::new(0) }
    }

    fn takes_entries(&self) -> Result<(), StoreError> {
        if self.entries.load(Ordering::SeqCst) { Err(StoreError::Closed) } else { Ok(()) }
    }
}

#[async_trait]
impl Store for Refusing {
    fn deployment(&self) -> DeploymentId {
        self.store.deployment()
    }

    async fn pools(&self) -> Result<Vec<StoredPool>, StoreError> {
        self.store.pools().await
    }

    async fn add_pool(&self, name: PoolName) -> Result<PoolId, StoreError> {
        self.store.add_pool(name).await
    }

    async fn forget_pool(&self, pool: PoolId) -> Result<(), StoreError> {
        self.store.forget_pool(pool).await
    }

    async fn load(&self, pool: PoolId) -> Result<Vec<Row>, StoreError> {
        self.loaded.fetch_add(1, Ordering::SeqCst);
        self.store.load(pool).await
    }

    async fn tokens(&self) -> Result<Vec<StoredToken>, StoreError> {
        self.store.tokens().await
    }

    async fn put_tokens(&self, tokens: Vec<StoredToken>) -> Result<(), StoreError> {
        self.store.put_tokens(tokens).await
    }

    async fn forget_tokens(&self, tokens: Vec<[u8; 32]>) -> Result<(), StoreError> {
        self.store.forget_tokens(tokens).await
    }

    async fn save(
        &self,
        pool: PoolId,
        writes: Vec<Write>,
        events: Vec<Event>,
        records: Vec<Record>,
    ) -> Result<(), StoreError> {
        if self.steps.load(Ordering::SeqCst) {
            self.steps_refused.fetch_add(1, Ordering::SeqCst);
            return Err(StoreError::Closed);
        }
        if !records.is_empty() {
            self.takes_entries()?;
        }
        self.store.save(pool, writes, events, records).await
    }

    async fn events(&self, pool: PoolId, before: Option<i64>, limit: u32) -> Result<Vec<StoredEvent>, StoreError> {
        self.store.events(pool, before, limit).await
    }

    async fn record(&self, record: Record) -> Result<(), StoreError> {
        self.takes_entries()?;
        self.store.record(record).await
    }

    fn record_soon(&self, record: Record) {
        if self.takes_entries().is_ok() {
            self.store.record_soon(record);
        }
    }

    async fn audit_head(&self) -> Result<Option<Head>, StoreError> {
        self.store.audit_head().await
    }

    async fn audit_entries(&self, before: Option<i64>, limit: u32) -> Result<Vec<Sealed>, StoreError> {
        self.store.audit_entries(before, limit).await
    }

    async fn declared(&self) -> Result<Declared, StoreError> {
        self.store.declared().await
    }

    async fn set_declared(&self, declared: Declared) -> Result<(), StoreError> {
        self.store.set_declared(declared).await
    }

    async fn workspaces(&self) -> Result<Vec<JsonObject>, StoreError> {
        self.store.workspaces().await
    }

    async fn put_workspace(&self, name: WorkspaceName, workspace: JsonObject) -> Result<(), StoreError> {
        self.store.put_workspace(name, workspace).await
    }

    async fn forget_workspace(&self, name: WorkspaceName) -> Result<(), StoreError> {
        self.store.forget_workspace(name).await
    }
}
