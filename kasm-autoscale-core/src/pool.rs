//! A pool: one deterministic state machine.

use alloc::vec::Vec;

use crate::config::{ConfigSpec, PoolSpec};
use crate::guard::Guard;
use crate::id::{ConfigName, MachineName, ServerId, SessionId, UserName};
use crate::input::Input;
use crate::ports::Address;
use crate::report::{BackoffKind, BackoffReport, ConfigReport, Report, Supply};
use crate::row::{Batch, ConfigRow, Outputs, PoolRow, ROW_FORMAT, RestoreError, Row, RowKey, Write};
use crate::server::{CreateCall, Phase, Server};
use crate::session::{Session, SessionState};
use crate::state::{Config, Edition, State};
use crate::time::Timestamp;

/// No server has a slot as high as this, or there would have to be as many servers: a row that says so is damaged, and the list of
/// slots would be as long as it says.
const SLOTS_MAX: u32 = 1 << 22;

/// A pool of servers, its autoscale configs, its users' sessions and those who wait for one.
///
/// It has four kinds of methods:
/// - [`new`](Self::new) and [`restore`](Self::restore) make one, from settings or from stored rows.
/// - [`step`](Self::step) is the only method that changes it. It takes facts in and gives out a [`Batch`].
/// - Everything else reads: [`report`](Self::report), [`server`](Self::server), [`session`](Self::session) and their plurals.
/// - [`check`](Self::check) recounts everything and names what does not add up.
///
/// The host's loop:
///
/// ```text
/// loop {
///     let batch = pool.step(now, facts);        // takes every fact, then decides once; never fails, never blocks
///     store.save(batch.writes())?;              // one transaction
///     let outputs = batch.saved();              // the only way to the commands
///     carry out outputs.commands; each outcome is a fact
///     hand outputs.answers to the callers
///     wait for facts, or until outputs.wake_at
/// }
/// ```
///
/// The same inputs at the same times give the same outputs, on every machine.
#[cfg_attr(feature = "testing", derive(Clone))]
pub struct Pool {
    state: State,
    guard: Guard,
}

impl core::fmt::Debug for Pool {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (servers, sessions) = (self.state.servers.len(), self.state.sessions.len());
        f.debug_struct("Pool")
            .field("name", &self.state.row.spec.name)
            .field("servers", &servers)
            .field("sessions", &sessions)
            .finish()
    }
}

impl Pool {
    /// A new pool without configs. Its first step writes its row.
    pub fn new(spec: PoolSpec, now: Timestamp) -> Self {
        let row =
            PoolRow { format: ROW_FORMAT, spec, next_server: 1, next_session: 1, next_config: 1, seen: now, life: 0 };
        let mut state = State::new(row, now);
        state.journal.changed.insert(RowKey::Pool);
        Self { state, guard: Guard::default() }
    }

    /// A pool as its rows describe it, in any order. It goes on where a crash left off: what may have been under way is
    /// looked up, and nothing is given up before its providers have been listed once.
    ///
    /// # Errors
    /// [`RestoreError`] when the rows are not the whole state of one pool, or a later version wrote them.
    pub fn restore(rows: impl IntoIterator<Item = Row>, now: Timestamp) -> Result<Self, RestoreError> {
        let mut sorted: Vec<Row> = rows.into_iter().collect();
        sorted.sort_by_key(Row::key);
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0].key() == pair[1].key()) {
            return Err(RestoreError::Twice(alloc::format!("{}", pair[0].key())));
        }
        let renewed = |row: &Row| {
            let Row::Server(server) = row else { return false };
            matches!(server.phase, Phase::Creating { call: CreateCall::Intended, .. } | Phase::Enrolling { .. })
        };
        let doubtful: Vec<RowKey> = sorted.iter().filter(|row| renewed(row)).map(Row::key).collect();
        let mut rows = sorted.into_iter();
        let Some(Row::Pool(pool)) = rows.next() else { return Err(RestoreError::NoPool) };
        if pool.format > ROW_FORMAT {
            return Err(RestoreError::LaterFormat { found: pool.format, known: ROW_FORMAT });
        }
        // From now on there may be rows that only this format knows.
        let life = pool.life.saturating_add(1);
        let mut state = State::new(PoolRow { format: ROW_FORMAT, life, ..pool }, now);
        for row in rows {
            state.restore_row(row)?;
        }
        state.forget_old_editions();
        // All is as it was stored, but for the calls that are in doubt from now on, and for the life that begins: a command
        // leaves only after its number can never be given again.
        state.journal.changed.extend(doubtful.into_iter().chain([RowKey::Pool]));
        // Rows come from outside: the first step recounts them.
        state.journal.recount = true;
        let guard = Guard::of(&state);
        Ok(Self { state, guard })
    }

    /// Takes every fact in, then decides once. It never fails and never blocks.
    ///
    /// Before the step is given out it is held against the invariants. Where one does not hold, what the step would make or
    /// delete for its config stays here, and the config is frozen: see [`What::Frozen`](crate::report::What::Frozen).
    ///
    /// `now` is to come from a clock that runs on evenly as long as this pool lives, such as wall-clock time at its start and
    /// monotonic time from there on: that nothing has been seen for so long is a proof only if so much time has passed. If it
    /// lies before an instant the pool has seen, it counts as that instant. The batch must be saved before the next step.
    pub fn step(&mut self, now: Timestamp, inputs: impl IntoIterator<Item = Input>) -> Batch {
        let state = &mut self.state;
        state.now = state.now.max(now.min(Timestamp::LATEST));
        for input in inputs {
            state.take(input);
        }
        state.expire();
        state.advance();
        state.place_queue();
        state.plan();
        state.advance();
        state.place_queue();
        let found = self.guard.inspect(state);
        state.freeze_what_is_broken(found);
        state.batch()
    }

    /// The pool's settings.
    pub fn spec(&self) -> &PoolSpec {
        &self.state.row.spec
    }

    /// The configs in force, those on their way out left out, in the order they were first set.
    pub fn configs(&self) -> impl Iterator<Item = &ConfigSpec> {
        self.state.configs.values().filter(|config| !config.removed).map(|config| &**config.spec())
    }

    /// The config of this name.
    pub fn config(&self, name: &ConfigName) -> Option<&ConfigSpec> {
        self.configs().find(|spec| spec.name == *name)
    }

    /// A server.
    pub fn server(&self, id: ServerId) -> Option<&Server> {
        self.state.servers.get(&id)
    }

    /// All servers, the oldest first.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.state.servers.values()
    }

    /// The config as a server was born with it, and keeps.
    pub fn born_with(&self, server: &Server) -> &ConfigSpec {
        self.state.born_with(server)
    }

    /// The computer name of a server's machine.
    pub fn name_of(&self, server: &Server) -> MachineName {
        let key = self.state.key(server.id);
        // No server is made whose number has no name.
        self.born_with(server).server_name_pattern.name_of(&key).unwrap_or_else(|| key.machine_name())
    }

    /// Where users reach a server: its config's fixed address if it has one, else the machine's. `None` before it has one.
    pub fn address(&self, server: &Server) -> Option<Address> {
        let target = crate::advance::probe_target(server, self.born_with(server))?;
        Some(Address { host: target.host, port: Some(target.port) })
    }

    /// A session, up to [`ENDED_RETENTION`](crate::session::ENDED_RETENTION) after its end.
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.state.sessions.get(&id)
    }

    /// The session of this user that is active or waited for. He has one at most.
    pub fn open_session(&self, user: &UserName) -> Option<&Session> {
        self.state.open_by_user.get(user).and_then(|id| self.state.sessions.get(id))
    }

    /// All sessions, the oldest first.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.state.sessions.values()
    }

    /// Whether there is neither a config nor a server, nor a provider or directory where machines or computer objects may have
    /// been left, so that the pool may be forgotten. A directory that it has not used since the start is not waited for: its
    /// account may be good for logins alone.
    pub fn is_empty(&self) -> bool {
        let directories = self.state.directories.values();
        let is_clear = self.state.providers.values().all(|provider| provider.clear)
            && directories.filter(|directory| directory.was_used).all(|directory| directory.clear);
        self.state.configs.is_empty() && self.state.servers.is_empty() && is_clear
    }

    /// How the pool stands, and why it last did or did not act. It costs time in proportion to the number of servers.
    pub fn report(&self) -> Report {
        let state = &self.state;
        let orphans = state.providers.values().flat_map(|provider| provider.orphans.keys().cloned());
        let orphan_computers = state.directories.values().flat_map(|directory| directory.orphans.keys().cloned());
        Report {
            pool: state.row.spec.name.clone(),
            waiting: u32::try_from(state.queue.len()).unwrap_or(u32::MAX),
            sessions: state.active,
            configs: state.configs.values().map(|config| state.report_config(config)).collect(),
            orphans: orphans.collect(),
            orphan_computers: orphan_computers.collect(),
        }
    }

    /// All of it, for what looks at pools from inside.
    #[cfg(feature = "testing")]
    pub(crate) const fn state(&self) -> &State {
        &self.state
    }

    /// Every row, as it would be written now.
    #[cfg(feature = "testing")]
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row> {
        let state = &self.state;
        let configs = state.configs.values().flat_map(|config| {
            let editions = config.editions.keys().map(|generation| RowKey::Config(config.id, *generation));
            editions.chain([RowKey::Memory(config.id)])
        });
        let servers = state.servers.keys().map(|id| RowKey::Server(*id));
        let sessions = state.sessions.keys().map(|id| RowKey::Session(*id));
        let keys = [RowKey::Pool].into_iter().chain(configs).chain(servers).chain(sessions);
        keys.filter_map(|key| state.row_at(key))
    }

    /// Machines that no row knows, each with who has it.
    #[cfg(feature = "testing")]
    pub(crate) fn orphans(&self) -> impl Iterator<Item = (&crate::id::ProviderName, &crate::ports::MachineRef)> {
        let all = self.state.providers.iter();
        all.flat_map(|(name, provider)| provider.orphans.keys().map(move |machine| (name, machine)))
    }

    /// Computer objects that no row knows, each with where it is.
    #[cfg(feature = "testing")]
    pub(crate) fn orphan_computers(
        &self,
    ) -> impl Iterator<Item = (&crate::id::DirectoryName, &crate::ports::ComputerRef)> {
        let all = self.state.directories.iter();
        all.flat_map(|(name, directory)| directory.orphans.keys().map(move |computer| (name, computer)))
    }

    /// What tests of the guard change by hand, as only a mistake in this crate could.
    #[cfg(test)]
    pub(crate) fn parts(&mut self) -> (&mut State, &mut Guard) {
        (&mut self.state, &mut self.guard)
    }

    /// Recounts every tally, index and timer, and checks the invariants.
    ///
    /// # Errors
    /// Everything that does not add up. An error is a bug in this crate.
    pub fn check(&self) -> Result<(), Vec<crate::check::Violation>> {
        let violations = self.state.violations();
        if violations.is_empty() { Ok(()) } else { Err(violations) }
    }
}

impl State {
    fn batch(&mut self) -> Batch {
        let journal = core::mem::take(&mut self.journal);
        if !journal.changed.is_empty() {
            self.row.seen = self.now;
        }
        let writes =
            journal.changed.iter().map(|key| self.row_at(*key).map_or(Write::Delete(*key), Write::Put)).collect();
        let outputs = Outputs {
            commands: journal.commands,
            answers: journal.answers,
            events: journal.events,
            wake_at: self.wake_at(),
        };
        Batch { writes, outputs }
    }

    /// The row with this key, as it is now.
    fn row_at(&self, key: RowKey) -> Option<Row> {
        Some(match key {
            RowKey::Pool => Row::Pool(self.row.clone()),
            RowKey::Config(id, generation) => {
                let config = self.configs.get(&id)?;
                let spec = (*config.editions.get(&generation)?.spec).clone();
                Row::Config(ConfigRow { id, generation, removed: config.removed, spec })
            }
            RowKey::Memory(id) => Row::Memory(self.configs.get(&id)?.memory.clone()),
            RowKey::Server(id) => Row::Server(self.servers.get(&id)?.clone()),
            RowKey::Session(id) => Row::Session(self.sessions.get(&id)?.clone()),
        })
    }

    /// Editions that no server was born with, but for the one in force.
    fn forget_old_editions(&mut self) {
        for config in self.configs.values_mut() {
            let (id, current) = (config.id, config.current);
            let old =
                config.editions.iter().filter(|(generation, edition)| **generation != current && edition.servers == 0);
            let old: Vec<u32> = old.map(|(generation, _)| *generation).collect();
            for generation in old {
                config.editions.remove(&generation);
                self.journal.changed.insert(RowKey::Config(id, generation));
            }
        }
    }

    /// Whether a number was given out by this pool: whatever has a later one would have to share it with the next one made.
    fn expect_given_out(&self, key: RowKey) -> Result<(), RestoreError> {
        let PoolRow { next_server, next_session, next_config, .. } = self.row;
        let (number, next) = match key {
            RowKey::Pool => return Ok(()),
            RowKey::Config(id, _) | RowKey::Memory(id) => (id.serial().into(), next_config.into()),
            RowKey::Server(id) => (id.serial(), next_server),
            RowKey::Session(id) => (id.serial(), next_session),
        };
        if number < next { Ok(()) } else { Err(RestoreError::NotGivenOut { row: alloc::format!("{key}"), next }) }
    }

    fn restore_row(&mut self, row: Row) -> Result<(), RestoreError> {
        let key = row.key();
        self.expect_given_out(key)?;
        match row {
            Row::Pool(_) => return Err(RestoreError::Twice("pool".into())),
            Row::Config(row) => {
                let config = self.configs.entry(row.id).or_insert_with(|| Config::new(row.id));
                config.current = config.current.max(row.generation);
                config.removed |= row.removed;
                config.editions.insert(row.generation, Edition { spec: row.spec.into(), servers: 0 });
            }
            Row::Memory(row) => {
                let config = self.configs.get_mut(&row.config).ok_or_else(|| RestoreError::missing(key, row.config))?;
                config.memory = row;
            }
            Row::Server(server) => self.restore_server(key, server)?,
            Row::Session(session) => {
                if let SessionState::Active { server, .. } = session.state {
                    self.servers.get(&server).ok_or_else(|| RestoreError::missing(key, server))?;
                }
                self.insert_session(session);
            }
        }
        Ok(())
    }

    fn restore_server(&mut self, key: RowKey, mut server: Server) -> Result<(), RestoreError> {
        let config = self.configs.get(&server.config).ok_or_else(|| RestoreError::missing(key, server.config))?;
        if !config.editions.contains_key(&server.generation) {
            return Err(RestoreError::missing(key, RowKey::Config(server.config, server.generation)));
        }
        if server.slot >= SLOTS_MAX {
            return Err(RestoreError::SlotTooHigh(server.id, server.slot));
        }
        if let Some(Some(other)) = self.server_in_slot.get(server.slot as usize) {
            return Err(RestoreError::SlotTwice(*other, server.id));
        }
        let now = self.now;
        // What is not stored begins anew, also where the rows never left the memory of this process.
        (server.sessions, server.busy, server.absent) = (0, None, 0);
        if !planted!("lags-outlive-a-restart") {
            (server.named_at, server.enrolled_at) = (now, now);
        }
        if let Phase::Enrolling { asked, ask_at, .. } = &mut server.phase {
            // The same of the request for its computer object, which is made again. The one before may still take effect, so its
            // time counts from now, and is extended when its directory is known.
            (*asked, *ask_at) = (Some(now), now);
            self.doubtful.insert(server.id);
        }
        if let Phase::Creating { call, .. } = &mut server.phase
            && *call == CreateCall::Intended
        {
            // The call may have left just before the crash. It may still take effect, so its time counts from now, and is
            // extended when its provider is known.
            *call = CreateCall::Unsure { since: now, find_at: now, tries: 0 };
            self.doubtful.insert(server.id);
        }
        self.insert_server(server);
        Ok(())
    }

    fn report_config(&self, config: &Config) -> ConfigReport {
        let spec = config.spec();
        let create = config.memory.create.as_ref().map(|(kind, backoff)| (BackoffKind::Provider(*kind), backoff));
        let boot = config.memory.boot.as_ref().map(|backoff| (BackoffKind::Boot, backoff));
        let directory =
            config.memory.directory.as_ref().map(|(kind, backoff)| (BackoffKind::Directory(*kind), backoff));
        let old = |server: &&Server| server.config == config.id && server.generation != config.current;
        ConfigReport {
            config: spec.name.clone(),
            enabled: spec.enabled,
            removed: config.removed,
            zone: spec.zone.clone(),
            provider: spec.provider.clone(),
            generation: config.current,
            servers: config.tally.phases,
            sessions: config.tally.sessions,
            supply: Supply { free: config.tally.free, coming: config.tally.coming, target: config.target },
            decision: config.decision.clone(),
            decided_at: config.decided_at,
            fallback: config.fallback.clone(),
            loss: config.memory.loss.clone(),
            freeze: config.memory.freeze.clone(),
            kept: config.tally.kept,
            backoffs: create
                .into_iter()
                .chain(directory)
                .chain(boot)
                .map(|(kind, backoff)| BackoffReport { kind, backoff: backoff.clone() })
                .collect(),
            out_of_date: self.servers.values().filter(old).map(|server| server.id).collect(),
            cleanups: self.cleanups(config.id),
        }
    }
}
