//! `kasm-daemon audit`: runs every check over a store's file without changing it.
//!
//! The file is copied, with what a crash has left beside it, and the copy is looked at: SQLite would otherwise write into the
//! folder of a file that it only reads. A store that a daemon has open is refused, since a copy of it could be torn.
//!
//! The checks are those of the pools' invariants, and of the audit log's chain ([`crate::trail::verify`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use kasm_autoscale_core::config::{JsonObject, Problem};
use kasm_autoscale_core::id::{ConfigId, DeploymentId, PoolId};
use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::report::Event;
use kasm_autoscale_core::row::{RestoreError, Row};
use kasm_autoscale_core::time::Timestamp;
use kasm_autoscale_core::token::DeploymentKey;
use rusqlite::{Connection, OpenFlags};
use thiserror::Error;

use crate::store::{Declared, SqliteStore, StoreError, anchor_of};
use crate::trail::Chain;
use crate::trail::chain::Shown;
use crate::trail::verify::{Anchor, Verifier};
use crate::workspaces::Workspace;

/// How many findings of one kind are told one by one.
const ALIKE_MAX: usize = 50;

/// Why a store cannot be audited.
#[derive(Debug, Error)]
pub enum AuditError {
    /// The file cannot be read, or is no store of this version's.
    #[error("cannot read the store {path}: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why, and what to do.
        reason: String,
    },
}

/// What an audit has found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Audited {
    /// What was looked at, every finding on a line of its own, and a last line that sums up.
    pub text: String,
    /// How many findings there are.
    pub findings: usize,
}

/// What the audit log is held against.
#[derive(Debug, Default)]
pub struct Proof {
    /// The installation's key. Without it nothing can be said of the chain.
    pub key: Option<DeploymentKey>,
    /// An entry that must be there, as the daemon's log has told it.
    pub head: Option<Shown>,
}

/// Runs every check over the store in this file.
///
/// # Errors
/// [`AuditError`] when it cannot be looked at: no such file, in use, another program's, another version's, or too damaged.
pub fn audit(path: &Path, proof: &Proof) -> Result<Audited, AuditError> {
    let unreadable = |reason: String| AuditError::Unreadable { path: path.display().to_string(), reason };
    let copy = Copy::of(path).map_err(unreadable)?;
    let damaged =
        |error: rusqlite::Error| unreadable(format!("{error}; the file is damaged, restore it from a backup"));
    let connection = Connection::open(&copy.file).map_err(damaged)?;
    let deployment = SqliteStore::recognized(&connection).map_err(|error| match error {
        StoreError::Open { reason, .. } => unreadable(reason),
        StoreError::Database(error) => damaged(error),
        other => unreadable(other.to_string()),
    })?;
    let mut auditor = Auditor { connection, deployment, lines: vec![], findings: 0 };
    auditor.look_at_file().map_err(damaged)?;
    auditor.look_at_meta().map_err(damaged)?;
    auditor.look_at_tokens().map_err(damaged)?;
    for (id, name) in auditor.pairs("SELECT id, name FROM pools ORDER BY name").map_err(damaged)? {
        if let Some(later) = auditor.look_at_pool(&id, &name).map_err(damaged)? {
            return Err(unreadable(format!("pool {name}: {later}")));
        }
    }
    auditor.look_at_events().map_err(damaged)?;
    auditor.look_at_log(proof).map_err(damaged)?;
    let Auditor { mut lines, findings, .. } = auditor;
    let count = match findings {
        0 => "nothing found".to_owned(),
        1 => "1 finding".to_owned(),
        many => format!("{many} findings"),
    };
    lines.push(format!("{}: {count}", path.display()));
    Ok(Audited { text: lines.join("\n"), findings })
}

/// A copy of a store that nobody has open, in a folder that goes with it.
struct Copy {
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Copy {
    fn of(path: &Path) -> Result<Self, String> {
        let is_empty = std::fs::metadata(path).map_err(|error| error.to_string())?.len() == 0;
        if is_empty {
            return Err("it is empty, so it is not a store".into());
        }
        refuse_if_open(path)?;
        let folder = tempfile::tempdir().map_err(|error| format!("no folder for a copy: {error}"))?;
        let file = folder.path().join("store.sqlite");
        std::fs::copy(path, &file).map_err(|error| error.to_string())?;
        let log = beside(path, "-wal");
        if log.exists() {
            std::fs::copy(&log, beside(&file, "-wal")).map_err(|error| format!("{}: {error}", log.display()))?;
        }
        // One that was started meanwhile may have written between the two copies.
        refuse_if_open(path)?;
        Ok(Self { file, _folder: folder })
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn refuse_if_open(path: &Path) -> Result<(), String> {
    // Whoever has a store open has a log beside it. Where there is none, SQLite need not be asked, which would make one.
    if !beside(path, "-wal").exists() {
        return Ok(());
    }
    let looked = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .and_then(|connection| connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())));
    if looked.is_err_and(|error| SqliteStore::is_busy(&error)) {
        return Err("a process has it open; stop the daemon, or audit a backup of its file".into());
    }
    Ok(())
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

struct Auditor {
    connection: Connection,
    deployment: DeploymentId,
    lines: Vec<String>,
    findings: usize,
}

impl Auditor {
    fn found(&mut self, text: impl std::fmt::Display) {
        self.findings += 1;
        self.lines.push(format!("FOUND {text}"));
    }

    fn pairs(&self, sql: &str) -> rusqlite::Result<Vec<(String, String)>> {
        self.pairs_of(sql, [])
    }

    fn pairs_of(&self, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<Vec<(String, String)>> {
        let mut statement = self.connection.prepare(sql)?;
        let pairs = statement.query_map(params, |row| Ok((row.get(0)?, row.get(1)?)))?;
        pairs.collect()
    }

    /// The file itself: pages, indexes, and rows that belong to no pool.
    fn look_at_file(&mut self) -> rusqlite::Result<()> {
        let mut problems = vec![];
        self.connection.pragma_query(None, "integrity_check", |row| {
            problems.push(row.get::<_, String>(0)?);
            Ok(())
        })?;
        for problem in problems.iter().filter(|problem| *problem != "ok") {
            self.found(format_args!("I-32 the file is whole: {problem}"));
        }
        let strays = self.pairs("SELECT pool, key FROM rows WHERE pool NOT IN (SELECT id FROM pools)")?;
        for (pool, key) in strays {
            self.found(format_args!("I-32 every row has its pool: row {key} of pool {pool}, which is not there"));
        }
        Ok(())
    }

    fn look_at_meta(&mut self) -> rusqlite::Result<()> {
        for (key, value) in self.pairs("SELECT key, value FROM meta ORDER BY key")? {
            let problem = match key.as_str() {
                "deployment" => None,
                "declared" => serde_json::from_str::<Declared>(&value).err().map(|error| error.to_string()),
                key if key.starts_with("workspace:") => serde_json::from_str::<JsonObject>(&value)
                    .map_err(|error| error.to_string())
                    .map_or_else(Some, |object| Workspace::from_json(&object).err().map(|problems| listed(&problems))),
                _ => Some("this version knows no such entry".into()),
            };
            if let Some(problem) = problem {
                self.found(format_args!("I-32 what is stored can be read: entry {key}: {problem}"));
            }
        }
        Ok(())
    }

    fn look_at_tokens(&mut self) -> rusqlite::Result<()> {
        match SqliteStore::tokens_in(&self.connection) {
            Ok(tokens) => self.lines.push(format!("tokens: {}", tokens.len())),
            Err(StoreError::Database(error)) => return Err(error),
            Err(error) => self.found(format_args!("I-32 what is stored can be read: {error}")),
        }
        Ok(())
    }

    /// One pool; answers with why it cannot be looked at, if a later version wrote it.
    fn look_at_pool(&mut self, id: &str, name: &str) -> rusqlite::Result<Option<RestoreError>> {
        let stored = self.pairs_of("SELECT key, value FROM rows WHERE pool = ?1 ORDER BY key", [id])?;
        let mut rows = vec![];
        let before = self.findings;
        for (key, value) in &stored {
            match serde_json::from_str::<Row>(value) {
                Ok(row) if row.key().to_string() == *key => rows.push(row),
                Ok(row) => self
                    .found(format_args!("I-32 what is stored can be read: pool {name}: row {key} holds {}", row.key())),
                Err(error) => {
                    self.found(format_args!("I-32 what is stored can be read: pool {name}: row {key}: {error}"));
                }
            }
        }
        if stored.is_empty() {
            // It was added, and the daemon ended before its first step.
            self.lines.push(format!("pool {name}: no rows yet"));
            return Ok(None);
        }
        self.compare_names(id, name, &rows);
        let latest =
            rows.iter().map(|row| if let Row::Pool(pool) = row { pool.seen } else { Timestamp::default() }).max();
        let configs: BTreeSet<ConfigId> =
            rows.iter().filter_map(|row| if let Row::Config(row) = row { Some(row.id) } else { None }).collect();
        let pool = match Pool::restore(rows, latest.unwrap_or_default()) {
            Ok(pool) => pool,
            Err(later @ RestoreError::LaterFormat { .. }) => return Ok(Some(later)),
            Err(error) => {
                self.found(format_args!("I-30 rows make a pool: pool {name}: {error}"));
                return Ok(None);
            }
        };
        let (servers, sessions) = (pool.servers().count(), pool.sessions().count());
        self.lines.push(format!("pool {name}: {} configs, {servers} servers, {sessions} sessions", configs.len()));
        // The pool's own place, below its findings on rows.
        let line = self.lines.pop().unwrap_or_default();
        self.lines.insert(self.lines.len() - (self.findings - before), line);
        self.look_at_promises(name, &pool);
        Ok(None)
    }

    fn compare_names(&mut self, id: &str, name: &str, rows: &[Row]) {
        let Some(spec) = rows.iter().find_map(|row| if let Row::Pool(row) = row { Some(&row.spec) } else { None })
        else {
            return;
        };
        let (own, listed) = (spec.id, id.parse::<PoolId>());
        if listed != Ok(own) {
            self.found(format_args!(
                "I-13 rows are of their own pool: pool {name} has the id {id}, its row says {own}"
            ));
        }
        if spec.name.as_str() != name {
            self.found(format_args!("I-13 rows are of their own pool: pool {name}, its row says {}", spec.name));
        }
        let (theirs, ours) = (spec.deployment, self.deployment);
        if theirs != ours {
            self.found(format_args!(
                "I-13 rows are of their own installation: pool {name} is of {theirs}, the store of {ours}"
            ));
        }
    }

    fn look_at_promises(&mut self, name: &str, pool: &Pool) {
        let mut alike: BTreeMap<String, usize> = BTreeMap::new();
        for violation in pool.check().err().unwrap_or_default() {
            let count = alike.entry(violation.invariant.clone()).or_default();
            *count += 1;
            self.findings += 1;
            if *count <= ALIKE_MAX {
                self.lines.push(format!("FOUND {}: pool {name}: {}", violation.invariant, violation.found));
            }
        }
        for (invariant, count) in alike.into_iter().filter(|(_, count)| *count > ALIKE_MAX) {
            self.lines.push(format!("      {invariant}: {} more like these", count - ALIKE_MAX));
        }
        for config in pool.report().configs {
            if let Some(freeze) = config.freeze {
                let mut text = String::new();
                // Writing to a string does not fail.
                let _ = write!(
                    text,
                    "{}: pool {name}: config {} is frozen since {}: {}",
                    freeze.invariant, config.config, freeze.since, freeze.found
                );
                self.found(text);
            }
        }
    }

    fn look_at_events(&mut self) -> rusqlite::Result<()> {
        let mut unreadable = vec![];
        let mut count = 0_u64;
        {
            let mut statement = self.connection.prepare("SELECT number, value FROM events ORDER BY number")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                count += 1;
                let (number, value): (i64, String) = (row.get(0)?, row.get(1)?);
                if let Err(error) = serde_json::from_str::<Event>(&value) {
                    unreadable.push((number, error.to_string()));
                }
            }
        }
        self.lines.push(format!("events: {count}"));
        for (number, error) in unreadable {
            self.found(format_args!("I-32 what is stored can be read: event {number}: {error}"));
        }
        Ok(())
    }

    /// The audit log: its chain where there is a key, and what it says of itself.
    fn look_at_log(&mut self, proof: &Proof) -> rusqlite::Result<()> {
        let is_there = "SELECT count(*) FROM sqlite_schema WHERE name IN ('audit', 'audit_anchor')";
        if self.connection.query_row(is_there, [], |row| row.get::<_, i64>(0))? < 2 {
            self.lines.push("audit log: none; a version before it wrote this store".into());
            if let Some(head) = &proof.head {
                self.found(format_args!("S-22 the audit log is whole: the head {head} is not there"));
            }
            return Ok(());
        }
        let chain = proof.key.as_ref().map(|key| Chain::new(key, self.deployment));
        let anchor: Option<Anchor> = match anchor_of(&self.connection) {
            Ok(anchor) => anchor,
            Err(error) => {
                self.found(format_args!("S-22 the audit log is whole: its anchor cannot be read: {error}"));
                None
            }
        };
        let mut verifier = Verifier::new(chain.as_ref(), anchor, proof.head.as_ref());
        {
            let mut statement = self.connection.prepare("SELECT number, mac, entry FROM audit ORDER BY number")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                verifier.take(row.get(0)?, row.get_ref(1)?.as_bytes().unwrap_or_default(), row.get_ref(2)?.as_str()?);
            }
        }
        let verdict = verifier.finish();
        let count = verdict.entries;
        self.lines.push(match (verdict.numbers, chain.is_some()) {
            (None, _) => "audit log: no entries".to_owned(),
            (Some((first, last)), true) => format!("audit log: {count} entries, {first} to {last}, held against the key"),
            (Some((first, last)), false) => format!(
                "audit log: {count} entries, {first} to {last}, NOT VERIFIED: that takes the deployment key, which --config names"
            ),
        });
        for finding in verdict.findings {
            self.found(format_args!("S-22 the audit log is whole: {finding}"));
        }
        self.lines.extend(verdict.notes.into_iter().map(|note| format!("note: audit log: {note}")));
        Ok(())
    }
}
