//! The embedded store: one SQLite file in WAL mode, one thread that writes.
//!
//! `synchronous=FULL`: a commit is on the disk when it returns. What has queued up meanwhile goes into the next commit
//! together, so a burst of steps costs one sync. What nobody waits for waits for the next commit itself.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use async_trait::async_trait;
use kasm_autoscale_core::config::JsonObject;
use kasm_autoscale_core::id::{DeploymentId, PoolId, PoolName};
use kasm_autoscale_core::report::Event;
use kasm_autoscale_core::row::{Row, Write};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::sync::oneshot;

use super::{Declared, Store, StoreError, StoredEvent, StoredPool, StoredToken, audit_log, tokens};
use crate::trail::{Head, Record, Sealed};
use crate::workspaces::WorkspaceName;

/// The edition of the tables. A file of an earlier one is brought to it when it is opened; a file of a later one is refused.
const SCHEMA: i64 = 2;
/// The first edition, which had [`TABLES`] alone.
const SCHEMA_FIRST: i64 = 1;
/// "kasm" in ASCII: tells our files from other programs' (SQLite file format §1.3.14).
const APPLICATION_ID: i64 = 0x6b61_736d;
/// How many events of a pool are kept.
const EVENTS_MAX: i64 = 100_000;
/// How many requests may go into one commit.
const GROUP_MAX: usize = 256;
/// How long what nobody waits for may wait for others to share a commit with.
const LINGER: Duration = Duration::from_millis(200);

const TABLES: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE pools (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT, WITHOUT ROWID;
    CREATE TABLE rows (
        pool TEXT NOT NULL REFERENCES pools(id) ON DELETE CASCADE,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (pool, key)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE events (number INTEGER PRIMARY KEY AUTOINCREMENT, pool TEXT NOT NULL, value TEXT NOT NULL) STRICT;
    CREATE INDEX events_of_pool ON events (pool, number);
";

/// A store in one SQLite file. Closed when it is dropped; what was acknowledged is on the disk.
#[derive(Debug)]
pub struct SqliteStore {
    deployment: DeploymentId,
    jobs: mpsc::Sender<Job>,
}

/// Something for the writer's thread to do.
struct Job {
    work: Work,
    /// Whether somebody waits for it. If not, it goes with the next one for which somebody does.
    awaited: bool,
}

/// What is to be done in a transaction that may be shared with others.
type Work = Box<dyn FnOnce(&Transaction<'_>) -> Tell + Send>;
/// Says how that transaction has ended.
type Tell = Box<dyn FnOnce(Result<(), String>) + Send>;

impl SqliteStore {
    /// Opens the file, or makes it, readable by its owner alone.
    ///
    /// # Errors
    /// [`StoreError::Open`] when it cannot be opened, is in use by another daemon, or was not made by this program.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let refused = |reason: String| StoreError::Open { path: path.display().to_string(), reason };
        create_private(path).map_err(|error| refused(error.to_string()))?;
        let connection = Connection::open(path)?;
        let deployment = prepare(&connection).map_err(|error| match error {
            StoreError::Database(error) if is_busy(&error) => {
                refused("another process has it open; one daemon at a time may use it".into())
            }
            StoreError::Database(error) => refused(error.to_string()),
            StoreError::Open { reason, .. } => refused(reason),
            other => other,
        })?;
        let (jobs, queue) = mpsc::channel();
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || write_all(connection, &queue))
            .map_err(|error| refused(error.to_string()))?;
        Ok(Self { deployment, jobs })
    }

    /// The deployment id in a store's file, read without making or changing anything. `None`: there is no such file, a
    /// daemon has it open, or it is not a store.
    pub fn deployment_of(path: &Path) -> Option<DeploymentId> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
        let text: String =
            connection.query_row("SELECT value FROM meta WHERE key = 'deployment'", [], |row| row.get(0)).ok()?;
        text.parse().ok()
    }

    /// The deployment id of a store that is open in this version's schema, read without changing anything.
    pub(crate) fn recognized(connection: &Connection) -> Result<DeploymentId, StoreError> {
        read_deployment(connection)
    }

    /// The tokens of a store that is open, read without changing anything; none in a file of the first edition.
    pub(crate) fn tokens_in(connection: &Connection) -> Result<Vec<StoredToken>, StoreError> {
        let edition: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if edition == SCHEMA_FIRST { Ok(vec![]) } else { tokens::read(connection) }
    }

    /// Whether a call failed because another process has the file open.
    pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
        is_busy(error)
    }

    /// Runs a job on the writer's thread, and waits until the transaction it was part of is committed.
    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |transaction| {
            let result = job(transaction);
            Box::new(move |committed| {
                let result = match committed {
                    Ok(()) => result,
                    Err(reason) => Err(StoreError::Open { path: "(commit)".into(), reason }),
                };
                // A caller that has gone away does not want the answer.
                drop(answer.send(result));
            })
        });
        self.jobs.send(Job { work, awaited: true }).map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

fn create_private(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked))
}

fn prepare(connection: &Connection) -> Result<DeploymentId, StoreError> {
    connection.busy_timeout(Duration::from_millis(500))?;
    // Held from the first access until the process ends: a second daemon on the same file is refused.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let result = prepare_tables(connection);
    connection.execute_batch(if result.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
    result
}

fn prepare_tables(connection: &Connection) -> Result<DeploymentId, StoreError> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let is_new = pragma("schema_version")? == 0;
    let is_first = pragma("application_id")? == APPLICATION_ID && pragma("user_version")? == SCHEMA_FIRST;
    if is_new {
        connection.execute_batch(TABLES)?;
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    if is_new || is_first {
        connection.execute_batch(audit_log::TABLES)?;
        connection.execute_batch(tokens::TABLE)?;
        connection.pragma_update(None, "user_version", SCHEMA)?;
    }
    if is_new {
        let deployment = DeploymentId::from_bytes(random_bytes()?);
        connection.execute("INSERT INTO meta (key, value) VALUES ('deployment', ?1)", [deployment.to_string()])?;
    }
    read_deployment(connection)
}

/// Reads from a file of this edition or an earlier one.
fn read_deployment(connection: &Connection) -> Result<DeploymentId, StoreError> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let refused = |reason: String| StoreError::Open { path: String::new(), reason };
    if pragma("application_id")? != APPLICATION_ID {
        return Err(refused("it is a database of another program".into()));
    }
    let schema = pragma("user_version")?;
    if !(SCHEMA_FIRST..=SCHEMA).contains(&schema) {
        return Err(refused(format!(
            "it has schema {schema}, this version reads {SCHEMA_FIRST} to {SCHEMA}; use the version that wrote it or a later one"
        )));
    }
    let text: String = connection.query_row("SELECT value FROM meta WHERE key = 'deployment'", [], |row| row.get(0))?;
    text.parse().map_err(|error: kasm_autoscale_core::id::InvalidId| StoreError::Row {
        key: "deployment".into(),
        reason: error.to_string(),
    })
}

fn random_bytes() -> Result<[u8; 16], StoreError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| StoreError::Random(error.to_string()))?;
    Ok(bytes)
}

/// The writer's thread: takes what is queued, does it in one transaction, tells everybody how it ended.
fn write_all(mut connection: Connection, queue: &mpsc::Receiver<Job>) {
    while let Some(group) = next_group(queue) {
        let mut told = Vec::with_capacity(group.len());
        let committed = connection.transaction_with_behavior(TransactionBehavior::Immediate).and_then(|transaction| {
            for job in group {
                told.push((job.work)(&transaction));
            }
            transaction.commit()
        });
        let committed = committed.map_err(|error| error.to_string());
        for tell in told {
            tell(committed.clone());
        }
    }
}

/// What goes into the next commit, in the order in which it was queued; `None` when the store is closed and all is done.
fn next_group(queue: &mpsc::Receiver<Job>) -> Option<Vec<Job>> {
    let first = queue.recv().ok()?;
    let mut is_awaited = first.awaited;
    let mut group = vec![first];
    while group.len() < GROUP_MAX {
        let next = if is_awaited { queue.try_recv().ok() } else { queue.recv_timeout(LINGER).ok() };
        // Nothing more has come in time, or nothing more will come.
        let Some(next) = next else { break };
        is_awaited |= next.awaited;
        group.push(next);
    }
    Some(group)
}

#[async_trait]
impl Store for SqliteStore {
    fn deployment(&self) -> DeploymentId {
        self.deployment
    }

    async fn pools(&self) -> Result<Vec<StoredPool>, StoreError> {
        self.run(|transaction| {
            let mut statement = transaction.prepare_cached("SELECT id, name FROM pools ORDER BY name")?;
            let pairs = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
            pairs
                .map(|pair| {
                    let (id, name) = pair?;
                    let unreadable = |reason: kasm_autoscale_core::id::InvalidId| StoreError::Row {
                        key: name.clone(),
                        reason: reason.to_string(),
                    };
                    Ok(StoredPool { id: id.parse().map_err(unreadable)?, name: name.parse().map_err(unreadable)? })
                })
                .collect()
        })
        .await
    }

    async fn add_pool(&self, name: PoolName) -> Result<PoolId, StoreError> {
        let fresh = PoolId::from_bytes(random_bytes()?);
        self.run(move |transaction| {
            transaction.execute(
                "INSERT OR IGNORE INTO pools (id, name) VALUES (?1, ?2)",
                params![fresh.to_string(), name.as_str()],
            )?;
            let id: String =
                transaction.query_row("SELECT id FROM pools WHERE name = ?1", [name.as_str()], |row| row.get(0))?;
            id.parse().map_err(|error: kasm_autoscale_core::id::InvalidId| StoreError::Row {
                key: name.to_string(),
                reason: error.to_string(),
            })
        })
        .await
    }

    async fn forget_pool(&self, pool: PoolId) -> Result<(), StoreError> {
        self.run(move |transaction| {
            transaction.execute("DELETE FROM pools WHERE id = ?1", [pool.to_string()])?;
            Ok(())
        })
        .await
    }

    async fn load(&self, pool: PoolId) -> Result<Vec<Row>, StoreError> {
        self.run(move |transaction| {
            let mut statement = transaction.prepare_cached("SELECT key, value FROM rows WHERE pool = ?1")?;
            let rows = statement
                .query_map([pool.to_string()], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
            rows.map(|row| {
                let (key, value) = row?;
                serde_json::from_str(&value).map_err(|error| StoreError::Row { key, reason: error.to_string() })
            })
            .collect()
        })
        .await
    }

    async fn save(
        &self,
        pool: PoolId,
        writes: Vec<Write>,
        events: Vec<Event>,
        records: Vec<Record>,
    ) -> Result<(), StoreError> {
        self.run(move |transaction| {
            in_savepoint(transaction, || {
                records.iter().try_for_each(|record| audit_log::add(transaction, record))?;
                write_step(transaction, pool, &writes, &events)
            })
        })
        .await
    }

    async fn record(&self, record: Record) -> Result<(), StoreError> {
        self.run(move |transaction| in_savepoint(transaction, || audit_log::add(transaction, &record))).await
    }

    fn record_soon(&self, record: Record) {
        let unwritten = audit_log::Unwritten::new();
        let work: Work = Box::new(move |transaction| {
            let result = in_savepoint(transaction, || audit_log::add(transaction, &record));
            Box::new(move |committed| unwritten.settle(result.map_err(|error| error.to_string()).and(committed)))
        });
        // A store that is closed drops it, which is told in the log.
        drop(self.jobs.send(Job { work, awaited: false }));
    }

    async fn audit_head(&self) -> Result<Option<Head>, StoreError> {
        self.run(audit_log::last).await
    }

    async fn audit_entries(&self, before: Option<i64>, limit: u32) -> Result<Vec<Sealed>, StoreError> {
        self.run(move |transaction| audit_log::entries(transaction, before, limit)).await
    }

    async fn events(&self, pool: PoolId, before: Option<i64>, limit: u32) -> Result<Vec<StoredEvent>, StoreError> {
        self.run(move |transaction| {
            let sql = "SELECT number, value FROM events WHERE pool = ?1 AND number < ?2 ORDER BY number DESC LIMIT ?3";
            let mut statement = transaction.prepare_cached(sql)?;
            let rows = statement.query_map(params![pool.to_string(), before.unwrap_or(i64::MAX), limit], |row| {
                Ok((row.get(0)?, row.get::<_, String>(1)?))
            })?;
            rows.map(|row| {
                let (number, value): (i64, String) = row?;
                let event = serde_json::from_str(&value)
                    .map_err(|error| StoreError::Row { key: format!("event {number}"), reason: error.to_string() })?;
                Ok(StoredEvent { number, event })
            })
            .collect()
        })
        .await
    }

    async fn declared(&self) -> Result<Declared, StoreError> {
        self.run(|transaction| {
            let text: Option<String> = transaction
                .query_row("SELECT value FROM meta WHERE key = 'declared'", [], |row| row.get(0))
                .optional()?;
            let unreadable =
                |error: serde_json::Error| StoreError::Row { key: "declared".into(), reason: error.to_string() };
            text.map_or_else(|| Ok(Declared::default()), |text| serde_json::from_str(&text).map_err(unreadable))
        })
        .await
    }

    async fn set_declared(&self, declared: Declared) -> Result<(), StoreError> {
        self.run(move |transaction| {
            let text = json(&declared, "declared")?;
            transaction.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('declared', ?1)", [text])?;
            Ok(())
        })
        .await
    }

    async fn tokens(&self) -> Result<Vec<StoredToken>, StoreError> {
        self.run(|transaction| tokens::read(transaction)).await
    }

    async fn put_tokens(&self, list: Vec<StoredToken>) -> Result<(), StoreError> {
        self.run(move |transaction| in_savepoint(transaction, || tokens::put(transaction, &list))).await
    }

    async fn forget_tokens(&self, list: Vec<[u8; 32]>) -> Result<(), StoreError> {
        self.run(move |transaction| in_savepoint(transaction, || tokens::forget(transaction, &list))).await
    }

    async fn workspaces(&self) -> Result<Vec<JsonObject>, StoreError> {
        self.run(|transaction| {
            let mut statement =
                transaction.prepare_cached("SELECT key, value FROM meta WHERE key GLOB 'workspace:*'")?;
            let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
            rows.map(|row| {
                let (key, value) = row?;
                serde_json::from_str(&value).map_err(|error| StoreError::Row { key, reason: error.to_string() })
            })
            .collect()
        })
        .await
    }

    async fn put_workspace(&self, name: WorkspaceName, workspace: JsonObject) -> Result<(), StoreError> {
        self.run(move |transaction| {
            let key = workspace_key(&name);
            let text = json(&workspace, &key)?;
            transaction.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", params![key, text])?;
            Ok(())
        })
        .await
    }

    async fn forget_workspace(&self, name: WorkspaceName) -> Result<(), StoreError> {
        self.run(move |transaction| {
            transaction.execute("DELETE FROM meta WHERE key = ?1", [workspace_key(&name)])?;
            Ok(())
        })
        .await
    }
}

/// Where a workspace stands in the table `meta`.
fn workspace_key(name: &WorkspaceName) -> String {
    format!("workspace:{name}")
}

/// Does a job in a savepoint of its own, so that one that fails leaves nothing of itself, and the others of its group alone.
fn in_savepoint(transaction: &Transaction<'_>, job: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
    transaction.execute_batch("SAVEPOINT step")?;
    let result = job();
    transaction.execute_batch(if result.is_ok() { "RELEASE step" } else { "ROLLBACK TO step; RELEASE step" })?;
    result
}

fn write_step(
    transaction: &Transaction<'_>,
    pool: PoolId,
    writes: &[Write],
    events: &[Event],
) -> Result<(), StoreError> {
    let pool = pool.to_string();
    write_rows(transaction, &pool, writes)?;
    write_events(transaction, &pool, events)
}

fn write_rows(transaction: &Transaction<'_>, pool: &str, writes: &[Write]) -> Result<(), StoreError> {
    let mut put = transaction.prepare_cached(
        "INSERT INTO rows (pool, key, value) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET value = excluded.value",
    )?;
    let mut delete = transaction.prepare_cached("DELETE FROM rows WHERE pool = ?1 AND key = ?2")?;
    for write in writes {
        let key = write.key().to_string();
        match write {
            Write::Put(row) => put.execute(params![pool, key, json(row, &key)?])?,
            Write::Delete(_) => delete.execute(params![pool, key])?,
        };
    }
    Ok(())
}

fn write_events(transaction: &Transaction<'_>, pool: &str, events: &[Event]) -> Result<(), StoreError> {
    let mut insert = transaction.prepare_cached("INSERT INTO events (pool, value) VALUES (?1, ?2)")?;
    for event in events {
        insert.execute(params![pool, json(event, "event")?])?;
        let number = transaction.last_insert_rowid();
        // Now and then, so that trimming costs next to nothing a step.
        if number % 1000 == 0 {
            transaction
                .execute("DELETE FROM events WHERE pool = ?1 AND number <= ?2", params![pool, number - EVENTS_MAX])?;
        }
    }
    Ok(())
}

fn json(value: &impl serde::Serialize, key: &str) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Row { key: key.into(), reason: error.to_string() })
}
