//! The host of one pool, as a daemon is one: it collects facts, steps, saves, and lets commands and answers go after that.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::OnceCell;
use core::time::Duration;

use super::ledger::Ledger;
use super::people::User;
use crate::id::{ConfigId, ConfigName, DeploymentId, PoolId, SessionId};
use crate::input::{Fact, Input, Ticket};
use crate::pool::Pool;
use crate::row::{Row, RowKey, Write};
use crate::server::{CreateCall, Phase};
use crate::time::Timestamp;

pub(super) const DEPLOYMENT: DeploymentId = DeploymentId::from_bytes([1; 16]);

/// What a fact was told for, so that its answer can be understood.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    Request { user: usize },
    KeepAlive { user: usize, session: SessionId },
    End { user: usize, session: SessionId },
    Other,
}

/// A row as it was given to the store.
pub(super) struct Stored {
    pub(super) row: Row,
    /// What is read when its text is read, once somebody has.
    read: OnceCell<Row>,
}

impl Stored {
    /// By way of text, so that nothing survives that is not written.
    fn read(&self) -> Result<Row, String> {
        if let Some(row) = self.read.get() {
            return Ok(row.clone());
        }
        let row = serde_json::to_string(&self.row).and_then(|text| serde_json::from_str::<Row>(&text));
        let row = row.map_err(|error| alloc::format!("rows are not read as written: {error}"))?;
        Ok(self.read.get_or_init(|| row).clone())
    }
}

pub(super) struct Host {
    pub(super) id: PoolId,
    /// `None` while the host is away.
    pub(super) pool: Option<Pool>,
    pub(super) store: BTreeMap<RowKey, Stored>,
    pub(super) mailbox: Vec<Input>,
    pub(super) wake_at: Option<Timestamp>,
    /// Counts the processes: outcomes of one that has died are never heard.
    pub(super) process: u64,
    /// How far its clock is behind.
    pub(super) behind: Duration,
    pub(super) tickets: BTreeMap<Ticket, Purpose>,
    pub(super) next_ticket: u64,
    pub(super) configs: Vec<ConfigName>,
    pub(super) users: Vec<User>,
    pub(super) ledger: Ledger,
    /// Steps that were taken at one instant, and which.
    pub(super) hurried: (Timestamp, u32),
    pub(super) saves: u64,
    /// Until when its store fails often: where one save failed, the next one may well too.
    pub(super) shaky_until: Timestamp,
    /// Saves that have failed without a calm minute between them, and when it goes on after the last of them.
    pub(super) failed_saves: u32,
    pub(super) goes_on_at: Timestamp,
    /// How long a keep-alive was good for before the last step.
    pub(super) expiry_before: Duration,
}

impl Host {
    /// When it steps next, if nothing happens before.
    pub(super) fn steps_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.pool.as_ref()?;
        let urgent = (!self.mailbox.is_empty()).then_some(now);
        Some(urgent.or(self.wake_at.map(|at| at + self.behind))?.max(self.goes_on_at))
    }

    /// A save has failed: it waits, a second at first and then twice as long with each further one, as the daemon does.
    /// Without that, answers to the calls of pools that were read anew would call for more calls than they are.
    pub(super) fn waits_for_its_store(&mut self, now: Timestamp) {
        if now.since(self.goes_on_at) > Duration::from_secs(60) {
            self.failed_saves = 0;
        }
        self.goes_on_at = now + Duration::from_secs(1 << self.failed_saves.min(3));
        self.failed_saves += 1;
    }

    pub(super) fn clock(&self, now: Timestamp) -> Timestamp {
        now - self.behind
    }

    /// How long whoever is placed or kept alive in this step is there: the step may have changed it, after that or before.
    pub(super) fn keepalive_expiry(&self) -> Duration {
        self.pool.as_ref().map(|pool| pool.spec().keepalive_expiry).unwrap_or_default().min(self.expiry_before)
    }

    pub(super) fn ask(&mut self, fact: Fact, purpose: Purpose) {
        if self.pool.is_none() {
            // Nobody listens: the caller gets no answer, and asks again.
            return;
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.tickets.insert(ticket, purpose);
        self.mailbox.push(Input { ticket: Some(ticket), fact });
    }

    pub(super) fn save(&mut self, writes: &[Write]) {
        self.saves += 1;
        for write in writes {
            match write {
                Write::Put(row) => {
                    self.store.insert(row.key(), Stored { row: row.clone(), read: OnceCell::new() });
                }
                Write::Delete(key) => {
                    self.store.remove(key);
                }
            }
        }
    }

    fn load(&self) -> Result<Vec<Row>, String> {
        self.store.values().map(Stored::read).collect()
    }

    /// I-30: a pool out of what is stored; and out of its rows once more, which must make no difference.
    pub(super) fn restored(&self, now: Timestamp) -> Result<Pool, String> {
        let restore = |rows: Vec<Row>| Pool::restore(rows, self.clock(now)).map_err(|error| alloc::format!("{error}"));
        let pool = restore(self.load()?)?;
        if let Some(difference) = self.difference(&pool, true) {
            return Err(alloc::format!("what was restored is not what was stored: {difference}"));
        }
        let again = restore(pool.rows().collect())?;
        let same = pool.rows().map(bare).eq(again.rows().map(bare));
        if same { Ok(pool) } else { Err("a pool restored twice is another one".into()) }
    }

    /// I-31: a row in which the store and the pool differ. After a restart creates and enrolments
    /// may be in doubt.
    pub(super) fn difference(&self, pool: &Pool, restored: bool) -> Option<String> {
        let mut count = 0;
        for row in pool.rows() {
            count += 1;
            let (key, row) = (row.key(), bare(row));
            let mut stored = self.store.get(&key).map(|stored| bare(stored.row.clone()));
            if let (Row::Server(mine), Some(Row::Server(theirs))) = (&row, &mut stored)
                && restored
                && matches!(theirs.phase, Phase::Creating { call: CreateCall::Intended, .. })
            {
                theirs.phase = mine.phase.clone();
            }
            if let (Row::Server(mine), Some(Row::Server(theirs))) = (&row, &mut stored)
                && let (Phase::Enrolling { asked, ask_at, .. }, true) = (&mine.phase, restored)
                && let Phase::Enrolling { asked: stored_asked, ask_at: stored_ask_at, .. } = &mut theirs.phase
            {
                (*stored_asked, *stored_ask_at) = (*asked, *ask_at);
            }
            if stored.as_ref() != Some(&row) {
                return Some(alloc::format!("{key}: stored {stored:?}, in mind {row:?}"));
            }
        }
        if count != self.store.len() {
            return Some(alloc::format!("{} rows stored, {count} in mind", self.store.len()));
        }
        let (stored, in_mind) =
            (removed(self.store.values().map(|stored| &stored.row)), removed(pool.rows().collect::<Vec<_>>().iter()));
        (stored != in_mind).then(|| alloc::format!("configs on their way out: stored {stored:?}, in mind {in_mind:?}"))
    }
}

/// The configs on their way out. One row that says so is enough, since all editions go together.
fn removed<'a>(rows: impl Iterator<Item = &'a Row>) -> BTreeSet<ConfigId> {
    let removed = rows.filter_map(|row| if let Row::Config(row) = row { row.removed.then_some(row.id) } else { None });
    removed.collect()
}

/// A row without what is not stored of it, without what only some writes bring, and without what is compared apart.
fn bare(mut row: Row) -> Row {
    match &mut row {
        Row::Server(server) => server.forget_unstored(),
        Row::Pool(pool) => (pool.seen, pool.life) = (Timestamp::default(), 0),
        Row::Config(config) => config.removed = false,
        _ => {}
    }
    row
}
