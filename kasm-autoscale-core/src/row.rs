//! What is stored: rows, and the one batch of writes and outputs that a step makes of them.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::backoff::{Backoff, Fates};
use crate::command::Command;
use crate::config::{ConfigSpec, PoolSpec};
use crate::id::{ConfigId, ProviderName, ServerId, SessionId};
use crate::input::{Answer, Ticket};
use crate::ports::{DirectoryErrorKind, ErrorKind};
use crate::report::Event;
use crate::server::Server;
use crate::session::Session;
use crate::time::Timestamp;

/// The edition of the row format this code writes. It reads this one and those before, and no later one.
///
/// 2: servers that join a domain. 3: configs that are frozen because an invariant did not hold.
pub const ROW_FORMAT: u32 = 3;

/// One row of a pool. All rows together are its state.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "row", rename_all = "snake_case")]
pub enum Row {
    /// The pool itself.
    Pool(PoolRow),
    /// One edition of a config.
    Config(ConfigRow),
    /// What a config remembers.
    Memory(MemoryRow),
    /// A server.
    Server(Server),
    /// A session.
    Session(Session),
}

impl Row {
    /// Its key.
    pub fn key(&self) -> RowKey {
        match self {
            Self::Pool(_) => RowKey::Pool,
            Self::Config(row) => RowKey::Config(row.id, row.generation),
            Self::Memory(row) => RowKey::Memory(row.config),
            Self::Server(server) => RowKey::Server(server.id),
            Self::Session(session) => RowKey::Session(session.id),
        }
    }
}

/// What a row is found by, unique in its pool.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum RowKey {
    /// The pool itself.
    Pool,
    /// One edition of a config.
    Config(ConfigId, u32),
    /// What a config remembers.
    Memory(ConfigId),
    /// A server.
    Server(ServerId),
    /// A session.
    Session(SessionId),
}

impl fmt::Display for RowKey {
    /// A text that is unique in the pool, for stores that have one key column.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool => f.write_str("pool"),
            Self::Config(id, generation) => write!(f, "config/{}/{generation}", id.serial()),
            Self::Memory(id) => write!(f, "memory/{}", id.serial()),
            Self::Server(id) => write!(f, "server/{}", id.serial()),
            Self::Session(id) => write!(f, "session/{}", id.serial()),
        }
    }
}

/// The pool itself: its settings and the numbers it has given out.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PoolRow {
    /// [`ROW_FORMAT`] of the code that wrote it.
    pub format: u32,
    /// The settings.
    pub spec: PoolSpec,
    /// The number the next server gets.
    pub next_server: u64,
    /// The number the next session gets.
    pub next_session: u64,
    /// The number the next config gets.
    pub next_config: u32,
    /// The latest instant the pool has seen when it last wrote this row.
    pub seen: Timestamp,
    /// How often the pool was restored. Commands are numbered anew in each of its lives, above those of all earlier ones.
    #[serde(default)]
    pub life: u32,
}

/// One edition of a config. Earlier ones are kept as long as a server born with them lives.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ConfigRow {
    /// The config.
    pub id: ConfigId,
    /// The edition; the highest is in force.
    pub generation: u32,
    /// Whether the config is on its way out.
    pub removed: bool,
    /// What it says.
    pub spec: ConfigSpec,
}

/// What a config remembers from step to step.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct MemoryRow {
    /// The config.
    pub config: ConfigId,
    /// Making machines fails, in this way.
    pub create: Option<(ErrorKind, Backoff)>,
    /// Making computer objects fails, in this way.
    #[serde(default)]
    pub directory: Option<(DirectoryErrorKind, Backoff)>,
    /// Servers do not become ready: the breaker is open.
    pub boot: Option<Backoff>,
    /// How the last servers fared, for the breaker.
    #[serde(default)]
    pub fates: Fates,
    /// A listing missed so many machines that nothing is deleted.
    #[serde(default)]
    pub loss: Option<MassLoss>,
    /// There are servers too many.
    pub surplus: Option<Surplus>,
    /// An invariant did not hold, so that nothing is made and nothing is deleted.
    #[serde(default)]
    pub freeze: Option<Freeze>,
}

impl fmt::Display for MassLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} does not show {} of {} machines", self.provider, self.missing, self.of)?;
        f.write_str(if self.acknowledged {
            "; an operator says that they are lost"
        } else {
            "; nothing is deleted until they are seen again or an operator says that they are lost"
        })
    }
}

impl MassLoss {
    /// Whether it holds deletions back.
    pub const fn holds(&self) -> bool {
        !self.acknowledged
    }
}

impl MemoryRow {
    /// Of a config that remembers nothing.
    pub fn new(config: ConfigId) -> Self {
        Self {
            config,
            create: None,
            directory: None,
            boot: None,
            fates: Fates::default(),
            loss: None,
            surplus: None,
            freeze: None,
        }
    }
}

/// A loss that is too large to be believed. As long as it stands, nothing of its config is counted as lost, and nothing is
/// deleted that nobody asked for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct MassLoss {
    /// Whose listings miss them.
    pub provider: ProviderName,
    /// Since when.
    pub since: Timestamp,
    /// How many machines the last complete listing missed.
    pub missing: u32,
    /// Of how many.
    pub of: u32,
    /// Whether an operator has said that they are lost indeed.
    pub acknowledged: bool,
}

/// An invariant that did not hold: a bug, or rows that somebody has changed. As long as it stands, nothing is made for its config
/// and nothing of it is deleted; sessions go on. Only an operator lifts it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Freeze {
    /// Since when.
    pub since: Timestamp,
    /// The invariant, by its number where it has one.
    pub invariant: String,
    /// What was found: rows and numbers, at most [`FOUND_CHARS_MAX`](Self::FOUND_CHARS_MAX) characters.
    pub found: String,
}

impl Freeze {
    /// How much of what was found is kept.
    pub const FOUND_CHARS_MAX: usize = 500;
}

impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { since, invariant, found } = self;
        write!(
            f,
            "frozen since {since}, because this does not hold: {invariant} ({found}); nothing is made or deleted until an operator lifts it"
        )
    }
}

/// A surplus, and how much of it has lasted.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Surplus {
    /// Since when there has been one without a break.
    pub since: Timestamp,
    /// The fewest servers too many in all that time: so many were never needed.
    pub least: u32,
}

/// A change to the stored rows.
#[expect(clippy::large_enum_variant, reason = "nearly all writes are puts, so a box would only cost an allocation")]
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Write {
    /// Put this row in the place of any with its key.
    Put(Row),
    /// Delete the row with this key, if there is one.
    Delete(RowKey),
}

impl Write {
    /// The key of the row it changes.
    pub fn key(&self) -> RowKey {
        match self {
            Self::Put(row) => row.key(),
            Self::Delete(key) => *key,
        }
    }
}

/// What a step decided: first to be saved, then to be done.
///
/// Save all [`writes`](Self::writes) in one transaction; then, and only then, take the outputs with [`saved`](Self::saved).
/// If saving fails, or it is not known whether it succeeded, drop the batch and the pool and restore the pool from the
/// store: nothing of the batch has been done, so nothing is lost.
#[derive(Debug)]
#[must_use = "a step that is not saved has not happened"]
pub struct Batch {
    pub(crate) writes: Vec<Write>,
    pub(crate) outputs: Outputs,
}

impl Batch {
    /// The rows to change, each key once. The events of the step, if the host keeps them, go into the same transaction.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// What happened, to be kept as an audit trail.
    pub fn events(&self) -> &[Event] {
        &self.outputs.events
    }

    /// The outputs. To be called when the writes are durable.
    pub fn saved(self) -> Outputs {
        self.outputs
    }
}

/// What is to be done and said after a step is saved.
#[derive(Debug, Default)]
pub struct Outputs {
    /// To be carried out, in any order.
    pub commands: Vec<Command>,
    /// To be given to the callers.
    pub answers: Vec<(Ticket, Answer)>,
    /// What happened.
    pub events: Vec<Event>,
    /// When to step again at the latest, even if no fact comes in. `None`: time alone will change nothing.
    pub wake_at: Option<Timestamp>,
}

/// Rows that are not the state of a pool. The host has lost or mixed up some, or a later version wrote them.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RestoreError {
    /// There is no pool row.
    #[error("there is no pool row")]
    NoPool,
    /// Two rows have one key.
    #[error("two rows have the key {0}")]
    Twice(String),
    /// A later version wrote the rows.
    #[error(
        "the rows have format {found}; this version reads format {known}; use the version that wrote them or a later one"
    )]
    LaterFormat {
        /// Theirs.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A row speaks of another one that is not there.
    #[error("row {row} speaks of {missing}, which is not there")]
    Missing {
        /// The row.
        row: String,
        /// What it speaks of.
        missing: String,
    },
    /// A row has a number that its pool has not given out yet.
    #[error("row {row} has a number that the pool has not given out: the next one is {next}")]
    NotGivenOut {
        /// The row.
        row: String,
        /// The next number of its kind.
        next: u64,
    },
    /// A server has a slot that is higher than there can be servers.
    #[error("server {0} has slot {1}, and no pool has so many servers")]
    SlotTooHigh(ServerId, u32),
    /// Two servers have one slot.
    #[error("servers {0} and {1} have the same slot")]
    SlotTwice(ServerId, ServerId),
}

impl RestoreError {
    pub(crate) fn missing(row: RowKey, missing: impl fmt::Display) -> Self {
        Self::Missing { row: row.to_string(), missing: missing.to_string() }
    }
}
