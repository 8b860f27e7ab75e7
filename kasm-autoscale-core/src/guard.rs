//! Holds every step against the invariants before it is given out: what it has changed, and what it is about to do.
//!
//! Written from the invariants and not from the plan. It keeps a ledger of its own, made of nothing but the rows that steps have
//! changed, and compares it with the tallies that the plan goes by; so a mistake in either shows. It costs time in proportion
//! to what has changed. What follows is decided in `freeze.rs`; `check.rs` recounts everything, now and then.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::check::{Findings, Violation};
use crate::command::{Action, Command, CreateMachine};
use crate::config::ConfigSpec;
use crate::id::{ConfigId, ProviderName, ServerId, SessionId};
use crate::listings::SIGHTINGS;
use crate::ports::MachineRef;
use crate::row::{MassLoss, RowKey};
use crate::server::{CreateCall, Phase, PhaseKind, Server};
use crate::session::SessionState;
use crate::state::{State, Subject};

#[cfg(all(test, feature = "testing"))]
mod tests;

/// What the rows have said so far.
#[derive(Debug, Default)]
#[cfg_attr(feature = "testing", derive(Clone))]
pub(crate) struct Guard {
    servers: BTreeMap<ServerId, Known>,
    /// Where each active session is.
    seats: BTreeMap<SessionId, ServerId>,
    sums: BTreeMap<ConfigId, Sum>,
    /// Whose machine it is, by a digest of its provider and name.
    machines: BTreeMap<u64, ServerId>,
    newest: Option<ServerId>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    config: ConfigId,
    kind: PhaseKind,
    seats: u32,
    sum: Sum,
    machine: Option<u64>,
    /// Whether the request for its machine has left.
    asked: bool,
}

/// What servers add up to, as far as the invariants need it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Sum {
    servers: u32,
    sessions: u32,
    free: u32,
    coming: u32,
}

impl Sum {
    fn of(server: &Server, spec: &ConfigSpec, seats: u32) -> Self {
        let size = spec.max_sessions_per_server.get();
        let (free, coming) = match server.phase.kind() {
            PhaseKind::Enrolling | PhaseKind::Creating | PhaseKind::Starting => (0, size),
            PhaseKind::Ready if spec.reusable => (size.saturating_sub(seats), 0),
            // Each slot is taken once, and when the last session has ended the server goes.
            PhaseKind::Ready if server.taken > 0 && seats == 0 => (0, 0),
            PhaseKind::Ready => (size.saturating_sub(server.taken), 0),
            _ => (0, 0),
        };
        Self { servers: 1, sessions: seats, free, coming }
    }

    fn add(&mut self, other: Self) {
        self.servers += other.servers;
        self.sessions += other.sessions;
        self.free += other.free;
        self.coming += other.coming;
    }

    fn subtract(&mut self, other: Self) {
        // A sum that would fall below nothing is wrong, and shows as such.
        self.servers = self.servers.wrapping_sub(other.servers);
        self.sessions = self.sessions.wrapping_sub(other.sessions);
        self.free = self.free.wrapping_sub(other.free);
        self.coming = self.coming.wrapping_sub(other.coming);
    }
}

/// FNV-1a. Two machines with one digest are told apart by their rows.
fn digest(provider: &ProviderName, machine: &MachineRef) -> u64 {
    let bytes = provider.as_str().bytes().chain([0xff]).chain(machine.0.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The edition a server was born with, asked for with care: this runs where something may be wrong.
fn born_with<'a>(state: &'a State, server: &Server) -> Option<&'a Arc<ConfigSpec>> {
    Some(&state.configs.get(&server.config)?.editions.get(&server.generation)?.spec)
}

fn seat_of(state: &State, id: SessionId) -> Option<ServerId> {
    match state.sessions.get(&id)?.state {
        SessionState::Active { server, .. } => Some(server),
        SessionState::Waiting { .. } | SessionState::Ended { .. } => None,
    }
}

/// What one look at a step has touched.
#[derive(Default)]
struct Touched {
    servers: BTreeSet<ServerId>,
    configs: BTreeSet<ConfigId>,
    born: BTreeSet<ConfigId>,
}

impl Guard {
    /// The ledger of a pool that was just restored. What is wrong with its rows is for the recount to find.
    pub(crate) fn of(state: &State) -> Self {
        let mut guard = Self::default();
        let mut seats: BTreeMap<ServerId, u32> = BTreeMap::new();
        for id in state.sessions.keys() {
            if let Some(server) = seat_of(state, *id) {
                guard.seats.insert(*id, server);
                *seats.entry(server).or_default() += 1;
            }
        }
        for server in state.servers.values() {
            let seats = seats.get(&server.id).copied().unwrap_or(0);
            guard.put(state, server, seats);
        }
        guard
    }

    /// Everything that does not hold in what this step has changed and is about to do.
    pub(crate) fn inspect(&mut self, state: &State) -> Vec<Violation> {
        let mut findings = Findings::default();
        let mut touched = Touched::default();
        for key in state.journal.changed.range(RowKey::Session(SessionId::new(0))..) {
            if let RowKey::Session(id) = key {
                self.session_changed(state, *id, &mut touched, &mut findings);
            }
        }
        let servers = RowKey::Server(ServerId::new(0))..RowKey::Session(SessionId::new(0));
        touched.servers.extend(state.journal.changed.range(servers).filter_map(|key| match key {
            RowKey::Server(id) => Some(*id),
            _ => None,
        }));
        for id in core::mem::take(&mut touched.servers) {
            self.server_changed(state, id, &mut touched, &mut findings);
        }
        for id in &touched.configs {
            self.compare(state, *id, &mut findings);
        }
        for id in &touched.born {
            self.judge_growth(state, *id, &mut findings);
        }
        for command in &state.journal.commands {
            self.judge_command(state, command, &mut findings);
        }
        findings.all
    }

    // --- what has changed ---

    fn session_changed(&mut self, state: &State, id: SessionId, touched: &mut Touched, findings: &mut Findings) {
        let (before, now) = (self.seats.get(&id).copied(), seat_of(state, id));
        findings.config = now.and_then(|server| state.servers.get(&server)).map(|server| server.config);
        if let Some(session) = state.sessions.get(&id).filter(|session| session.is_open()) {
            let open = state.open_by_user.get(&session.user);
            findings.expect(open == Some(&id), "I-02 one open session a user", || {
                format!("{id} of {}: {open:?}", session.user)
            });
        }
        if before == now {
            return;
        }
        if let Some(server) = before {
            self.seats.remove(&id);
            if let Some(known) = self.servers.get_mut(&server) {
                known.seats = known.seats.saturating_sub(1);
            }
            touched.servers.insert(server);
        }
        if let Some(server) = now {
            findings.expect(before.is_none(), "I-02 a session stays where it was placed", || {
                format!("{id} was on {before:?} and is on {server}")
            });
            self.seats.insert(id, server);
            match self.servers.get_mut(&server) {
                Some(known) => known.seats += 1,
                None => findings
                    .expect(false, "I-03 a session is on a server that is there", || format!("{id} on {server}")),
            }
            touched.servers.insert(server);
        }
    }

    fn server_changed(&mut self, state: &State, id: ServerId, touched: &mut Touched, findings: &mut Findings) {
        let before = self.servers.get(&id).copied();
        let Some(server) = state.servers.get(&id) else {
            if let Some(known) = before {
                touched.configs.insert(known.config);
                findings.config = Some(known.config);
                findings.expect(known.seats == 0, "I-14 a server that is gone has no session", || {
                    format!("{id} had {}", known.seats)
                });
                self.take(id);
            }
            return;
        };
        touched.configs.insert(server.config);
        findings.config = Some(server.config);
        let Some(spec) = born_with(state, server) else {
            return findings.expect(false, "I-35 a server has the edition it was born with", || {
                format!("{id} edition {}", server.generation)
            });
        };
        let kind = server.phase.kind();
        match before {
            Some(known) => {
                findings.expect(!known.kind.is_going() || kind.is_going(), "I-14 no way back from deleting", || {
                    format!("{id} was {} and is {kind}", known.kind)
                })
            }
            None => {
                touched.born.insert(server.config);
                let fresh = self.newest.is_none_or(|newest| id > newest);
                findings.expect(fresh, "I-22 numbers are never used twice", || format!("{id} after {:?}", self.newest));
            }
        }
        let seats = before.map_or(0, |known| known.seats);
        let max = spec.max_sessions_per_server.get();
        findings.expect(seats <= max, "I-01 sessions within max", || format!("{id} has {seats} of {max}"));
        findings.expect(spec.reusable || server.taken <= max, "I-02 a slot that is not reusable is taken once", || {
            format!("{id} was taken {} times of {max}", server.taken)
        });
        let may_serve = matches!(kind, PhaseKind::Ready | PhaseKind::Draining);
        findings.expect(may_serve || seats == 0, "I-03 and I-14 sessions only where they can be", || {
            format!("{id} {kind} has {seats}")
        });
        findings.expect(server.sessions == seats, "sessions counted", || {
            format!("{id} says {}, the rows say {seats}", server.sessions)
        });
        self.put(state, server, seats);
    }

    /// Puts a server in the place of what was known of it.
    fn put(&mut self, state: &State, server: &Server, seats: u32) {
        let Some(spec) = born_with(state, server) else { return };
        let before = self.take(server.id);
        let known = before.and_then(|known| known.machine);
        let machine = known.or_else(|| server.machine.as_ref().map(|machine| digest(&spec.provider, machine)));
        if let Some(digest) = machine {
            self.machines.insert(digest, server.id);
        }
        let sum = Sum::of(server, spec, seats);
        self.sums.entry(server.config).or_default().add(sum);
        self.newest = self.newest.max(Some(server.id));
        let (config, kind, asked) = (server.config, server.phase.kind(), before.is_some_and(|known| known.asked));
        self.servers.insert(server.id, Known { config, kind, seats, sum, machine, asked });
    }

    fn take(&mut self, id: ServerId) -> Option<Known> {
        let known = self.servers.remove(&id)?;
        if let Some(sum) = self.sums.get_mut(&known.config) {
            sum.subtract(known.sum);
            if *sum == Sum::default() {
                self.sums.remove(&known.config);
            }
        }
        if let Some(digest) = known.machine.filter(|digest| self.machines.get(digest) == Some(&id)) {
            self.machines.remove(&digest);
        }
        Some(known)
    }

    /// Whether the tallies that the plan goes by are those of the rows.
    fn compare(&self, state: &State, id: ConfigId, findings: &mut Findings) {
        let mine = self.sums.get(&id).copied().unwrap_or_default();
        let theirs = state.configs.get(&id).map_or(Sum::default(), |config| {
            let tally = &config.tally;
            Sum { servers: tally.live(), sessions: tally.sessions, free: tally.free, coming: tally.coming }
        });
        findings.config = Some(id);
        findings.expect(mine == theirs, "tally kept", || format!("{id}: {theirs:?}, the rows say {mine:?}"));
    }

    // --- what is about to be done ---

    /// A config has new servers.
    fn judge_growth(&self, state: &State, id: ConfigId, findings: &mut Findings) {
        findings.config = Some(id);
        let Some(config) = state.configs.get(&id) else {
            return findings.expect(false, "I-35 a config that is gone makes nothing", || format!("{id}"));
        };
        let spec = config.spec();
        findings.expect(spec.enabled && !config.removed, "I-35 a config that is off makes nothing", || {
            format!("{}", spec.name)
        });
        let sum = self.sums.get(&id).copied().unwrap_or_default();
        let orphans = state.providers.values().flat_map(|provider| provider.orphans.values());
        let orphans = orphans.filter(|orphan| orphan.config == id).count();
        let counted = u32::try_from(orphans).unwrap_or(u32::MAX).saturating_add(sum.servers);
        findings.expect(counted <= spec.max_servers, "I-09 the cap counts what is not proved gone", || {
            format!(
                "{}: {} servers and {orphans} unknown machines, {} may be",
                spec.name, sum.servers, spec.max_servers
            )
        });
        let supply = u64::from(sum.free) + u64::from(sum.coming);
        let enough = u64::from(config.target) + u64::from(spec.max_sessions_per_server.get());
        findings.expect(supply < enough, "I-10 nothing is made beyond need", || {
            format!("{}: {} free and {} coming for {}", spec.name, sum.free, sum.coming, config.target)
        });
    }

    fn judge_command(&mut self, state: &State, command: &Command, findings: &mut Findings) {
        if !crate::freeze::changes_the_world(&command.action) {
            return;
        }
        findings.config = state.config_of(command);
        let halted = findings.config.is_some_and(|id| state.is_halted(id));
        findings
            .expect(!halted, "a frozen config neither makes nor deletes", || format!("{:?}", command.action.verb()));
        match &command.action {
            Action::Create(create) => self.judge_create(state, create, findings),
            Action::Delete { provider, machine } => self.judge_delete(state, command, provider, machine, findings),
            Action::Enroll(enroll) => {
                let id = enroll.server.server;
                let row = state.servers.get(&id);
                let is_enrolling = row.is_some_and(|server| server.phase.kind() == PhaseKind::Enrolling);
                findings.expect(is_enrolling, "I-21 a computer object is made first", || format!("{id}"));
                self.expect_on(state, enroll.config, findings);
            }
            _ => self.judge_unenroll(state, command, findings),
        }
    }

    fn expect_on(&self, state: &State, id: ConfigId, findings: &mut Findings) {
        let on = state.configs.get(&id).is_some_and(|config| config.spec().enabled && !config.removed);
        findings.expect(on, "I-35 a config that is off makes nothing", || format!("{id}"));
    }

    fn judge_create(&mut self, state: &State, create: &CreateMachine, findings: &mut Findings) {
        let id = create.server.server;
        let (row, known) = (state.servers.get(&id), self.servers.get_mut(&id));
        let (Some(server), Some(known)) = (row, known) else {
            return findings.expect(false, "I-06 a create is written before it leaves", || format!("{id}"));
        };
        let again = core::mem::replace(&mut known.asked, true);
        findings.expect(!again, "I-07 a create leaves once", || format!("{id}"));
        let is_intended = matches!(server.phase, Phase::Creating { call: CreateCall::Intended, .. });
        findings
            .expect(is_intended, "I-07 only what is intended is asked for", || format!("{id} {}", server.phase.kind()));
        let same = born_with(state, server).is_some_and(|born| Arc::ptr_eq(born, &create.spec) || *born == create.spec);
        findings.expect(same, "I-35 a server keeps the edition it was born with", || format!("{id}"));
        let enrolled = create.spec.domain_join.is_none() || server.computer.is_some();
        findings.expect(enrolled, "I-21 no machine before its computer object", || format!("{id}"));
        self.expect_on(state, create.config, findings);
    }

    fn judge_delete(
        &self,
        state: &State,
        command: &Command,
        provider: &ProviderName,
        machine: &MachineRef,
        findings: &mut Findings,
    ) {
        let is_its_own = |server: &&Server| {
            server.machine.as_ref() == Some(machine)
                && born_with(state, server).is_some_and(|spec| spec.provider == *provider)
        };
        let owner =
            self.machines.get(&digest(provider, machine)).and_then(|id| state.servers.get(id)).filter(is_its_own);
        let subject = state.in_flight.get(&command.id).map(|in_flight| &in_flight.subject);
        if let Some(server) = owner {
            let seats = self.servers.get(&server.id).map_or(0, |known| known.seats);
            findings.expect(seats == 0, "I-14 no machine is deleted under a session", || {
                format!("{machine} of {}, which has {seats}", server.id)
            });
            let is_deleting = server.phase.kind() == PhaseKind::Deleting;
            findings.expect(is_deleting, "I-14 a machine is deleted after its server has begun to go", || {
                format!("{machine} of {}, which is {}", server.id, server.phase.kind())
            });
        }
        let holds = |id: &ConfigId| {
            let loss = state.configs.get(id).and_then(|config| config.memory.loss.as_ref());
            loss.is_some_and(MassLoss::holds)
        };
        match subject {
            Some(Subject::Server(id)) => {
                let row = state.servers.get(id).filter(is_its_own);
                findings
                    .expect(row.is_some(), "I-13 a server's own machine is deleted", || format!("{machine} for {id}"));
                let Some(Server { phase: Phase::Deleting { why, .. }, config, .. }) = row else { return };
                let on = state.configs.get(config).is_some_and(|config| config.spec().enabled && !config.removed);
                let held = on && holds(config) && !why.is_asked();
                findings.expect(!held, "I-15 a loss too large to be believed deletes nothing", || {
                    format!("{machine} of {id}")
                });
            }
            Some(Subject::Orphan(name, _)) => {
                let orphan = state.providers.get(name).and_then(|provider| provider.orphans.get(machine));
                let seen = orphan.map_or(0, |orphan| orphan.sightings);
                findings.expect(
                    seen >= SIGHTINGS,
                    "I-13 an unknown machine is seen twice before it is deleted",
                    || format!("{machine} was seen {seen} times"),
                );
                findings.expect(owner.is_none(), "I-13 a machine that a row knows is not an unknown one", || {
                    format!("{machine} of {:?}", owner.map(|server| server.id))
                });
                let held = orphan.is_some_and(|orphan| holds(&orphan.config));
                findings.expect(!held, "I-15 a loss too large to be believed deletes nothing", || format!("{machine}"));
            }
            _ => findings.expect(false, "I-13 a delete is for a server or an unknown machine", || format!("{machine}")),
        }
    }

    fn judge_unenroll(&self, state: &State, command: &Command, findings: &mut Findings) {
        let Some(Subject::Server(id)) = state.in_flight.get(&command.id).map(|in_flight| &in_flight.subject) else {
            return;
        };
        let kind = state.servers.get(id).map(|server| server.phase.kind());
        findings.expect(
            kind == Some(PhaseKind::Unenrolling),
            "I-21 no computer object goes before its machine",
            || format!("{id} {kind:?}"),
        );
    }
}
