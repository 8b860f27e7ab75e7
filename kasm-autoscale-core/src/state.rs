//! The picture a pool has of itself: its rows, and the tallies and indexes beside them.
//!
//! Every change to a server or session goes through [`State::edit_server`] and [`State::edit_session`], which keep tallies,
//! indexes and timers in step; `check.rs` recounts all of them.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use crate::command::{Action, Command};
use crate::config::ConfigSpec;
use crate::id::{CommandId, ConfigId, DirectoryName, ProviderName, ServerId, ServerKey, SessionId, UserName, ZoneName};
use crate::input::{Answer, Ticket};
use crate::placement::{PlacementIndex, SlotSet};
use crate::ports::{Capabilities, ComputerRef, DirectoryFacts, MachineRef};
use crate::report::{Decision, Event, Fallback, PhaseCounts, What};
use crate::row::{MemoryRow, PoolRow, RowKey};
use crate::server::{Busy, CreateCall, DeleteCall, Phase, PhaseKind, Server};
use crate::session::{Session, SessionState};
use crate::time::Timestamp;

/// How much longer than its own time limit a command is waited for, before the pool takes it as lost by itself.
const OUTCOME_GRACE: Duration = Duration::from_secs(30);

/// How many numbers there are for the commands of one life. A host may go on carrying out what an earlier life has asked for;
/// its outcomes must not be taken for those of other commands.
const COMMANDS_OF_A_LIFE: u64 = 1_000_000_000;

#[derive(Clone)]
pub(crate) struct State {
    pub(crate) row: PoolRow,
    pub(crate) now: Timestamp,
    pub(crate) configs: BTreeMap<ConfigId, Config>,
    pub(crate) servers: BTreeMap<ServerId, Server>,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) providers: BTreeMap<ProviderName, Provider>,
    pub(crate) directories: BTreeMap<DirectoryName, KnownDirectory>,
    /// Sessions that wait, the first to come first.
    pub(crate) queue: BTreeSet<SessionId>,
    pub(crate) waiting_by_zone: BTreeMap<Option<ZoneName>, u32>,
    /// The one open session of each user.
    pub(crate) open_by_user: BTreeMap<UserName, SessionId>,
    pub(crate) by_key: BTreeMap<String, SessionId>,
    pub(crate) on_server: BTreeSet<(ServerId, SessionId)>,
    pub(crate) active: u32,
    pub(crate) slots: SlotSet,
    pub(crate) server_in_slot: Vec<Option<ServerId>>,
    pub(crate) timers: BTreeSet<(Timestamp, Timer)>,
    pub(crate) in_flight: BTreeMap<CommandId, InFlight>,
    /// Servers whose creates were in doubt when the rows were restored, until it is known how long a call may be under way.
    pub(crate) doubtful: BTreeSet<ServerId>,
    pub(crate) next_command: u64,
    /// How many sessions each config keeps for each other one, as the last plan left it: who keeps them, and for whom.
    pub(crate) covers: BTreeMap<(ConfigId, ConfigId), u32>,
    pub(crate) journal: Journal,
}

/// What this step has changed and decided so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal {
    pub(crate) changed: BTreeSet<RowKey>,
    /// Servers that need a look.
    pub(crate) touched: BTreeSet<ServerId>,
    pub(crate) commands: Vec<Command>,
    pub(crate) answers: Vec<(Ticket, Answer)>,
    pub(crate) events: Vec<Event>,
    /// Whether everything is to be recounted at the end of the step.
    pub(crate) recount: bool,
}

/// Whose turn it is when its time has come.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Timer {
    Server(ServerId),
    Session(SessionId),
}

/// A command whose outcome has not come in.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    pub(crate) subject: Subject,
    pub(crate) verb: &'static str,
    pub(crate) provider: Option<ProviderName>,
    pub(crate) directory: Option<DirectoryName>,
    pub(crate) sent_at: Timestamp,
}

/// What a command is for.
#[derive(Clone, Debug)]
pub(crate) enum Subject {
    Server(ServerId),
    Listing(ProviderName),
    Orphan(ProviderName, MachineRef),
    ComputerListing(DirectoryName),
    OrphanComputer(DirectoryName, ComputerRef),
}

/// A provider as this pool knows it. Not stored: every start looks anew.
#[derive(Clone, Debug, Default)]
pub(crate) struct Provider {
    pub(crate) capabilities: Option<Capabilities>,
    pub(crate) list_at: Timestamp,
    pub(crate) listing: Option<Busy>,
    pub(crate) failures: u32,
    /// Whether a complete listing has come in since the start. Nothing is given up before.
    pub(crate) observed: bool,
    /// Since when nothing of this pool has been there or was to be, as far as the rows know.
    pub(crate) unused_since: Option<Timestamp>,
    /// Whether a complete listing that began after that has shown nothing. Until then there may be machines that no row
    /// knows: made by a request that was answered twice, or before a crash.
    pub(crate) clear: bool,
    pub(crate) orphans: BTreeMap<MachineRef, Orphan>,
}

/// A machine or computer object with our mark that no row knows.
#[derive(Clone, Debug)]
pub(crate) struct Orphan {
    pub(crate) config: ConfigId,
    pub(crate) sightings: u32,
    pub(crate) busy: Option<Busy>,
}

/// A directory as this pool knows it. Not stored either.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownDirectory {
    pub(crate) facts: Option<DirectoryFacts>,
    pub(crate) list_at: Timestamp,
    pub(crate) listing: Option<Busy>,
    pub(crate) failures: u32,
    /// Since when no config and no server of this pool has to do with it, as far as the rows know.
    pub(crate) unused_since: Option<Timestamp>,
    /// Whether a complete listing that began long enough after that has shown nothing. Until then there may be objects that no
    /// row knows: made twice, too late, or not removed although it was said that they were.
    pub(crate) clear: bool,
    /// Whether a config or server of this pool has had to do with it since the start.
    pub(crate) was_used: bool,
    pub(crate) orphans: BTreeMap<ComputerRef, Orphan>,
}

impl KnownDirectory {
    pub(crate) fn visibility_lag(&self) -> Duration {
        self.facts.as_ref().map_or(VISIBILITY_LAG_UNKNOWN, |known| known.visibility_lag)
    }

    pub(crate) fn poll_busy(&self) -> Duration {
        self.facts.as_ref().map_or(Duration::from_secs(5), |known| known.poll_busy)
    }
}

/// How long a machine may stay unseen where the provider is not known.
const VISIBILITY_LAG_UNKNOWN: Duration = Duration::from_secs(600);

impl Provider {
    pub(crate) fn visibility_lag(&self) -> Duration {
        self.capabilities.as_ref().map_or(VISIBILITY_LAG_UNKNOWN, |known| known.visibility_lag)
    }

    pub(crate) fn poll_busy(&self) -> Duration {
        self.capabilities.as_ref().map_or(Duration::from_secs(5), |known| known.poll_busy)
    }
}

/// A config with its editions, its tallies and its placement index.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) id: ConfigId,
    pub(crate) current: u32,
    pub(crate) removed: bool,
    pub(crate) editions: BTreeMap<u32, Edition>,
    pub(crate) memory: MemoryRow,
    pub(crate) tally: Tally,
    pub(crate) index: PlacementIndex,
    /// Draining servers that may be taken back.
    pub(crate) undoable: BTreeSet<ServerId>,
    pub(crate) orphans: u32,
    pub(crate) decision: Decision,
    /// For whom it keeps sessions besides its own, and who keeps some for it.
    pub(crate) fallback: Vec<Fallback>,
    pub(crate) decided_at: Timestamp,
    /// How many sessions the last plan wanted free: the minimum, the share of those who wait, and what it covers for others.
    pub(crate) target: u32,
    /// When time alone will change its plan.
    pub(crate) wake_at: Option<Timestamp>,
}

#[derive(Clone)]
pub(crate) struct Edition {
    pub(crate) spec: Arc<ConfigSpec>,
    pub(crate) servers: u32,
}

/// What the servers of a config add up to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Tally {
    pub(crate) phases: PhaseCounts,
    pub(crate) sessions: u32,
    pub(crate) free: u32,
    pub(crate) coming: u32,
    /// Ready and never used since it was last empty, so that it can be given up.
    pub(crate) unused: u32,
    /// Servers whose machines are expected to change soon.
    pub(crate) watched: u32,
    /// Failed servers whose machines are kept for diagnosis.
    pub(crate) kept: u32,
    /// How much of what is coming nobody can vouch for: creates without an answer whose look-ups fail as well, and requests to
    /// a directory that fail again and again.
    pub(crate) doubtful: u32,
}

impl Tally {
    pub(crate) const fn live(&self) -> u32 {
        self.phases.live()
    }

    /// The sessions that others may count on: those that are free, and those that are coming without a doubt.
    pub(crate) const fn firm(&self) -> u32 {
        self.free.saturating_add(self.coming.saturating_sub(self.doubtful))
    }

    /// What one server adds.
    pub(crate) fn of(server: &Server, spec: &ConfigSpec) -> Self {
        let size = spec.max_sessions_per_server.get();
        let used = server.used(spec.reusable);
        let mut tally = Self { sessions: server.sessions, ..Self::default() };
        match &server.phase {
            Phase::Enrolling { tries, .. } => {
                tally.phases.enrolling = 1;
                tally.coming = size;
                tally.doubtful = if *tries > 1 { size } else { 0 };
            }
            Phase::Creating { call, .. } => {
                tally.phases.creating = 1;
                tally.coming = size;
                tally.watched = u32::from(!matches!(call, CreateCall::Intended));
                tally.doubtful = if matches!(call, CreateCall::Unsure { tries: 1.., .. }) { size } else { 0 };
            }
            Phase::Starting { .. } => {
                tally.phases.starting = 1;
                tally.coming = size;
                tally.watched = 1;
            }
            Phase::Ready { .. } => {
                tally.phases.ready = 1;
                // A server that has done its work and is about to go has nothing free.
                let spent = !spec.reusable && server.taken > 0 && server.sessions == 0;
                tally.free = if spent { 0 } else { size.saturating_sub(used) };
                tally.unused = u32::from(used == 0);
            }
            Phase::Draining { .. } => tally.phases.draining = 1,
            Phase::Deleting { call, .. } => {
                tally.phases.deleting = 1;
                tally.watched = u32::from(matches!(call, DeleteCall::Confirm { .. }));
                tally.kept = u32::from(matches!(call, DeleteCall::Kept { .. }));
            }
            Phase::Unenrolling { .. } => tally.phases.unenrolling = 1,
        }
        tally
    }

    fn each(&mut self, other: &Self, apply: fn(u32, u32) -> u32) {
        for (mine, theirs) in [
            (&mut self.phases.enrolling, other.phases.enrolling),
            (&mut self.phases.creating, other.phases.creating),
            (&mut self.phases.starting, other.phases.starting),
            (&mut self.phases.ready, other.phases.ready),
            (&mut self.phases.draining, other.phases.draining),
            (&mut self.phases.deleting, other.phases.deleting),
            (&mut self.phases.unenrolling, other.phases.unenrolling),
            (&mut self.sessions, other.sessions),
            (&mut self.free, other.free),
            (&mut self.coming, other.coming),
            (&mut self.unused, other.unused),
            (&mut self.watched, other.watched),
            (&mut self.kept, other.kept),
            (&mut self.doubtful, other.doubtful),
        ] {
            *mine = apply(*mine, theirs);
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.each(other, |mine, theirs| mine + theirs);
    }

    fn subtract(&mut self, other: &Self) {
        self.each(other, |mine, theirs| mine - theirs);
    }
}

/// What the servers of a config add up to when they are counted anew.
#[derive(Debug, Default)]
pub(crate) struct Recount {
    pub(crate) tally: Tally,
    /// Servers that belong into the placement index, and drains that may be taken back.
    pub(crate) placeable: usize,
    pub(crate) undoable: usize,
    /// Whether one of these is not there.
    pub(crate) amiss: bool,
    pub(crate) editions: BTreeMap<u32, u32>,
}

/// Where a config keeps a server so that it is found when a session or a server is needed.
enum Kept {
    Index { used: u32, size: u32 },
    Undoable,
    Nowhere,
}

impl Kept {
    fn of(server: &Server, spec: &ConfigSpec, tally: &Tally) -> Self {
        match &server.phase {
            Phase::Ready { .. } if tally.free > 0 => {
                Self::Index { used: server.used(spec.reusable), size: spec.max_sessions_per_server.get() }
            }
            Phase::Draining { why, .. } if why.is_undoable() || planted!("undrained-without-a-look") => Self::Undoable,
            _ => Self::Nowhere,
        }
    }
}

impl Config {
    pub(crate) fn new(id: ConfigId) -> Self {
        Self {
            id,
            current: 0,
            removed: false,
            editions: BTreeMap::new(),
            memory: MemoryRow::new(id),
            tally: Tally::default(),
            index: PlacementIndex::new(),
            undoable: BTreeSet::new(),
            orphans: 0,
            decision: Decision::Empty,
            fallback: Vec::new(),
            decided_at: Timestamp::default(),
            target: 0,
            wake_at: None,
        }
    }

    /// The edition in force.
    pub(crate) fn spec(&self) -> &Arc<ConfigSpec> {
        &self.editions[&self.current].spec
    }

    pub(crate) fn edition(&self, generation: u32) -> &Arc<ConfigSpec> {
        &self.editions[&generation].spec
    }

    /// Whether it is to have servers.
    pub(crate) fn is_on(&self) -> bool {
        !self.removed && self.spec().enabled
    }

    /// Counts a server once more, and looks whether it is where its config keeps it.
    pub(crate) fn recount(&self, server: &Server, recount: &mut Recount) {
        let spec = self.edition(server.generation);
        let tally = Tally::of(server, spec);
        recount.tally.add(&tally);
        match Kept::of(server, spec, &tally) {
            Kept::Index { used, size } => {
                recount.placeable += 1;
                recount.amiss |= !self.index.contains(server.slot, used, size);
            }
            Kept::Undoable => {
                recount.undoable += 1;
                recount.amiss |= !self.undoable.contains(&server.id);
            }
            Kept::Nowhere => {}
        }
    }

    fn enter(&mut self, server: &Server) {
        let spec = self.edition(server.generation).clone();
        let tally = Tally::of(server, &spec);
        self.tally.add(&tally);
        match Kept::of(server, &spec, &tally) {
            Kept::Index { used, size } => self.index.insert(server.slot, used, size),
            Kept::Undoable => {
                self.undoable.insert(server.id);
            }
            Kept::Nowhere => {}
        }
    }

    fn leave(&mut self, server: &Server) {
        let spec = self.edition(server.generation).clone();
        self.tally.subtract(&Tally::of(server, &spec));
        self.index.remove(server.slot, server.used(spec.reusable), spec.max_sessions_per_server.get());
        self.undoable.remove(&server.id);
    }
}

impl State {
    pub(crate) fn new(row: PoolRow, now: Timestamp) -> Self {
        Self {
            now: now.max(row.seen).min(Timestamp::LATEST),
            next_command: if planted!("answers-of-earlier-lives-believed") {
                1
            } else {
                u64::from(row.life) * COMMANDS_OF_A_LIFE + 1
            },
            row,
            configs: BTreeMap::new(),
            servers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            providers: BTreeMap::new(),
            directories: BTreeMap::new(),
            queue: BTreeSet::new(),
            waiting_by_zone: BTreeMap::new(),
            open_by_user: BTreeMap::new(),
            by_key: BTreeMap::new(),
            on_server: BTreeSet::new(),
            active: 0,
            slots: SlotSet::new(),
            server_in_slot: Vec::new(),
            timers: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            covers: BTreeMap::new(),
            journal: Journal::default(),
        }
    }

    pub(crate) fn key(&self, server: ServerId) -> ServerKey {
        ServerKey { pool: self.row.spec.id, server }
    }

    /// The config as this server was born with it.
    pub(crate) fn born_with(&self, server: &Server) -> &Arc<ConfigSpec> {
        self.configs[&server.config].edition(server.generation)
    }

    pub(crate) fn event(&mut self, what: What) {
        self.journal.events.push(Event { at: self.now, what });
    }

    /// Adds a server that is not there yet.
    pub(crate) fn insert_server(&mut self, server: Server) {
        let slot = server.slot as usize;
        if self.server_in_slot.len() <= slot {
            self.server_in_slot.resize(slot + 1, None);
        }
        self.server_in_slot[slot] = Some(server.id);
        self.slots.insert(server.slot);
        if let Some(config) = self.configs.get_mut(&server.config) {
            if let Some(edition) = config.editions.get_mut(&server.generation) {
                edition.servers += 1;
            }
            config.enter(&server);
        }
        self.timers.extend(server.due().map(|at| (at, Timer::Server(server.id))));
        self.journal.touched.insert(server.id);
        self.servers.insert(server.id, server);
    }

    /// Changes a server, and everything that is counted or indexed of it. Nothing happens if it is not there.
    pub(crate) fn edit_server(&mut self, id: ServerId, edit: impl FnOnce(&mut Server)) {
        if self.servers.contains_key(&id) {
            self.edit_unstored(id, edit);
            self.journal.changed.insert(RowKey::Server(id));
        }
    }

    /// The same for those parts of a server that are not in its row, so that the row need not be written.
    pub(crate) fn edit_unstored(&mut self, id: ServerId, edit: impl FnOnce(&mut Server)) {
        let Some(server) = self.servers.get_mut(&id) else { return };
        let Some(config) = self.configs.get_mut(&server.config) else { return };
        config.leave(server);
        let due = server.due();
        edit(server);
        config.enter(server);
        if server.due() != due {
            if let Some(at) = due {
                self.timers.remove(&(at, Timer::Server(id)));
            }
            self.timers.extend(server.due().map(|at| (at, Timer::Server(id))));
        }
        self.journal.touched.insert(id);
    }

    /// Moves a server on in its life.
    pub(crate) fn enter_phase(&mut self, id: ServerId, phase: Phase, why: Option<String>) {
        let kind = phase.kind();
        let Some(server) = self.servers.get(&id) else { return };
        debug_assert!(server.phase.kind().may_become(kind), "{id} {} to {kind}", server.phase.kind());
        let config = self.configs[&server.config].spec().name.clone();
        self.edit_server(id, |server| {
            server.phase = phase;
            // What was under way belonged to the phase that is over; its outcome is still heard.
            server.busy = None;
            server.absent = 0;
        });
        self.event(What::Server { server: id, config, phase: kind, why });
    }

    /// Takes a server out of which nothing is left: its machine and its computer object are proved gone, or were certainly
    /// never made. Whoever knows only of the machine calls [`machine_gone`](State::machine_gone).
    pub(crate) fn remove_server(&mut self, id: ServerId, why: Option<String>) {
        let Some(server) = self.servers.remove(&id) else { return };
        debug_assert!(server.phase.kind().may_become(PhaseKind::Gone), "{id} {} to gone", server.phase.kind());
        if let Some(at) = server.due() {
            self.timers.remove(&(at, Timer::Server(id)));
        }
        self.slots.remove(server.slot);
        self.server_in_slot[server.slot as usize] = None;
        self.journal.changed.insert(RowKey::Server(id));
        self.journal.touched.remove(&id);
        let Some(config) = self.configs.get_mut(&server.config) else { return };
        config.leave(&server);
        let name = config.spec().name.clone();
        if let Some(edition) = config.editions.get_mut(&server.generation) {
            edition.servers -= 1;
            if edition.servers == 0 && server.generation != config.current {
                config.editions.remove(&server.generation);
                self.journal.changed.insert(RowKey::Config(server.config, server.generation));
            }
        }
        self.event(What::Server { server: id, config: name, phase: PhaseKind::Gone, why });
    }

    /// Adds a session that is not there yet.
    pub(crate) fn insert_session(&mut self, session: Session) {
        let id = session.id;
        self.session_enters(&session);
        self.sessions.insert(id, session);
    }

    /// Changes a session, and everything that is counted or indexed of it.
    pub(crate) fn edit_session(&mut self, id: SessionId, edit: impl FnOnce(&mut Session)) {
        let Some(mut session) = self.take_session(id) else { return };
        edit(&mut session);
        self.insert_session(session);
        self.journal.changed.insert(RowKey::Session(id));
    }

    /// Takes a session out.
    pub(crate) fn take_session(&mut self, id: SessionId) -> Option<Session> {
        let session = self.sessions.remove(&id)?;
        self.timers.remove(&(session.due(), Timer::Session(id)));
        if let Some(key) = &session.key {
            self.by_key.remove(key);
        }
        if session.is_open() {
            self.open_by_user.remove(&session.user);
        }
        match session.state {
            SessionState::Waiting { .. } => {
                self.queue.remove(&id);
                if let Some(count) = self.waiting_by_zone.get_mut(&session.zone) {
                    *count -= 1;
                    if *count == 0 {
                        self.waiting_by_zone.remove(&session.zone);
                    }
                }
            }
            SessionState::Active { server, .. } => {
                self.on_server.remove(&(server, id));
                self.active -= 1;
                self.edit_unstored(server, |server| server.sessions -= 1);
            }
            SessionState::Ended { .. } => {}
        }
        self.journal.changed.insert(RowKey::Session(id));
        Some(session)
    }

    fn session_enters(&mut self, session: &Session) {
        let id = session.id;
        self.timers.insert((session.due(), Timer::Session(id)));
        if let Some(key) = &session.key {
            self.by_key.insert(key.clone(), id);
        }
        if session.is_open() {
            self.open_by_user.insert(session.user.clone(), id);
        }
        match session.state {
            SessionState::Waiting { .. } => {
                self.queue.insert(id);
                *self.waiting_by_zone.entry(session.zone.clone()).or_default() += 1;
            }
            SessionState::Active { server, .. } => {
                self.on_server.insert((server, id));
                self.active += 1;
                self.edit_unstored(server, |server| server.sessions += 1);
            }
            SessionState::Ended { .. } => {}
        }
    }

    /// The sessions on a server.
    pub(crate) fn sessions_on(&self, server: ServerId) -> Vec<SessionId> {
        let all = (server, SessionId::new(0))..=(server, SessionId::new(u64::MAX));
        self.on_server.range(all).map(|(_, session)| *session).collect()
    }

    /// Gives a command out, and says until when its outcome is waited for.
    pub(crate) fn send(&mut self, subject: Subject, action: Action) -> Busy {
        let provider = action.provider().and_then(|name| self.providers.get(name)?.capabilities.as_ref());
        let directory = action.directory().and_then(|name| self.directories.get(name)?.facts.as_ref());
        let timeout = provider.map(|known| known.call_timeout).or(directory.map(|known| known.call_timeout));
        let timeout = timeout.unwrap_or(Duration::from_secs(10));
        let id = CommandId::new(self.next_command);
        self.next_command += 1;
        let (provider, directory) = (action.provider().cloned(), action.directory().cloned());
        let in_flight = InFlight { subject, verb: action.verb(), provider, directory, sent_at: self.now };
        self.in_flight.insert(id, in_flight);
        self.journal.commands.push(Command { id, timeout, action });
        Busy { command: id, until: self.now + timeout + OUTCOME_GRACE }
    }

    pub(crate) fn send_for_server(&mut self, id: ServerId, action: Action) {
        let busy = self.send(Subject::Server(id), action);
        self.edit_unstored(id, |server| server.busy = Some(busy));
    }

    pub(crate) fn config_named(&self, name: &crate::id::ConfigName) -> Option<ConfigId> {
        let mut all = self.configs.values();
        all.find(|config| !config.removed && config.spec().name == *name).map(|config| config.id)
    }
}
