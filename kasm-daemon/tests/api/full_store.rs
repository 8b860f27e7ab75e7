//! A store that cannot save any more, and what the daemon does meanwhile: little, and nothing in a hurry.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use kasm_autoscale_core::config::JsonObject;
use kasm_autoscale_core::id::{DeploymentId, PoolId, PoolName};
use kasm_autoscale_core::input::Fact;
use kasm_autoscale_core::report::Event;
use kasm_autoscale_core::row::{Row, Write};
use kasm_autoscale_core::session::SessionRequest;
use kasm_daemon::driver::AskError;
use kasm_daemon::store::{Declared, SqliteStore, Store, StoreError, StoredEvent, StoredPool, StoredToken};
use kasm_daemon::trail::{Head, Record, Sealed};
use kasm_daemon::workspaces::WorkspaceName;

use crate::failures::{cloud, stored, until};

/// A store that refuses what is to be saved while it is told to, as a full disk does; and how often it was tried and read.
struct Full {
    store: SqliteStore,
    refuses: AtomicBool,
    refused: AtomicU32,
    loaded: AtomicU32,
}

#[async_trait]
impl Store for Full {
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

    async fn save(&self, pool: PoolId, writes: Vec<Write>, events: Vec<Event>) -> Result<(), StoreError> {
        if self.refuses.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(StoreError::Closed);
        }
        self.store.save(pool, writes, events).await
    }

    async fn events(&self, pool: PoolId, before: Option<i64>, limit: u32) -> Result<Vec<StoredEvent>, StoreError> {
        self.store.events(pool, before, limit).await
    }

    async fn record(&self, record: Record) -> Result<(), StoreError> {
        self.store.record(record).await
    }

    fn record_soon(&self, record: Record) {
        self.store.record_soon(record);
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

    async fn tokens(&self) -> Result<Vec<StoredToken>, StoreError> {
        self.store.tokens().await
    }

    async fn put_tokens(&self, tokens: Vec<StoredToken>) -> Result<(), StoreError> {
        self.store.put_tokens(tokens).await
    }

    async fn forget_tokens(&self, tokens: Vec<[u8; 32]>) -> Result<(), StoreError> {
        self.store.forget_tokens(tokens).await
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

#[tokio::test]
async fn a_store_that_refuses_every_save_is_not_tried_without_a_pause() {
    let folder = tempfile::tempdir().unwrap();
    let full = Arc::new(Full {
        store: SqliteStore::open(&folder.path().join("pools.sqlite")).unwrap(),
        refuses: AtomicBool::new(false),
        refused: AtomicU32::new(0),
        loaded: AtomicU32::new(0),
    });
    let (host, pool) = stored(cloud(100), full.clone()).await;
    until(&pool, |first, second| first.supply.free >= 2 && second.supply.free >= 1).await;

    full.refuses.store(true, Ordering::SeqCst);
    let request = || Fact::SessionRequested(SessionRequest { user: "ann".parse().unwrap(), key: None, zone: None });
    // Users go on asking all the time.
    let mut asked = 0;
    let asking = async {
        loop {
            assert_eq!(pool.ask(request()).await, Err(AskError::NotSaved));
            asked += 1;
        }
    };
    let _: Result<(), _> = tokio::time::timeout(Duration::from_millis(1500), asking).await;
    // Each try but the first comes after a pause, of a second, two seconds and so on.
    let (refused, loaded) = (full.refused.load(Ordering::SeqCst), full.loaded.load(Ordering::SeqCst));
    assert!(refused >= asked && (2..=4).contains(&refused), "{asked} asked, {refused} saves refused");
    assert!(loaded <= refused + 2, "{refused} saves refused, {loaded} times read");

    full.refuses.store(false, Ordering::SeqCst);
    assert!(pool.ask(request()).await.is_ok(), "and all is as before when it can save again");
    host.stop().await;
}
