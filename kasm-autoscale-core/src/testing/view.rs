//! What matters of a pool for what it will do, without what does not: the picture a model checker tells pools apart by.
//!
//! Instants become distances from now, in whole grains of time; numbers that only grow become places in an order; what is
//! only shown is left out. Two pools of the same view need not be alike to the last bit, so a search that goes on from one
//! of them alone may miss what the other would have done; but whatever it meets is met by a real pool.

use core::mem::discriminant;
use core::time::Duration;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::vec::Vec;

use super::std;
use crate::backoff::Backoff;
use crate::config::ConfigSpec;
use crate::id::{CommandId, ServerId};
use crate::pool::Pool;
use crate::server::{Busy, CreateCall, DeleteCall, Phase, Server, UnenrollCall};
use crate::session::SessionState;
use crate::state::{Config, InFlight, Orphan, State, Subject};
use crate::time::Timestamp;

/// Tries and failures beyond so many are all the same.
const TRIES_MAX: u32 = 4;

/// How a view is taken.
pub struct Lens<'a> {
    /// The steps in which time passes, in milliseconds. If the pool is only ever stepped at multiples of it, nothing is lost by it.
    pub grain: u64,
    /// So many grains ago, or longer, is all the same.
    pub past: u64,
    /// So many grains ahead, or further, is all the same.
    pub future: u64,
    /// The place of a server among those there are.
    pub server: &'a dyn Fn(ServerId) -> u64,
    /// The place of what a provider or directory calls its thing.
    pub thing: &'a dyn Fn(&str) -> u64,
    /// The place of a command among those that may still be answered; `None` if this one never will be.
    pub command: &'a dyn Fn(CommandId) -> Option<u64>,
}

/// Hands everything that matters of a pool to `put`, as numbers.
pub fn view(pool: &Pool, lens: &Lens<'_>, put: &mut dyn FnMut(u64)) {
    let state = pool.state();
    View { state, lens, put }.all();
}

struct View<'a, 'b> {
    state: &'a State,
    lens: &'a Lens<'a>,
    put: &'b mut dyn FnMut(u64),
}

/// A number for something that is not one.
fn digest(thing: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    thing.hash(&mut hasher);
    hasher.finish()
}

impl View<'_, '_> {
    fn put(&mut self, number: u64) {
        (self.put)(number);
    }

    fn flag(&mut self, flag: bool) {
        self.put(u64::from(flag));
    }

    /// How far an instant is away: whole grains ahead, rounded up, for that is when the pool will see that it has come; or
    /// behind.
    fn at(&mut self, at: Timestamp) {
        let number = self.distance(at);
        self.put(number);
    }

    fn distance(&self, at: Timestamp) -> u64 {
        let (now, grain) = (self.state.now, self.lens.grain);
        if at > now {
            1000 + (at.as_millis() - now.as_millis()).div_ceil(grain).min(self.lens.future)
        } else {
            1000 - ((now.as_millis() - at.as_millis()) / grain).min(self.lens.past)
        }
    }

    fn at_if(&mut self, at: Option<Timestamp>) {
        match at {
            Some(at) => self.at(at),
            None => self.put(0),
        }
    }

    fn busy(&mut self, busy: Option<Busy>) {
        let Some(busy) = busy else { return self.put(0) };
        self.put(2 + (self.lens.command)(busy.command).unwrap_or(997));
        self.at(busy.until);
    }

    fn all(&mut self) {
        let state = self.state;
        for config in state.configs.values() {
            self.config(config);
        }
        self.put(1_000_001);
        let mut servers: Vec<&Server> = state.servers.values().collect();
        servers.sort_by_key(|server| (self.lens.server)(server.id));
        for server in servers {
            self.server(server);
        }
        self.put(1_000_002);
        self.sessions();
        self.put(1_000_003);
        self.outside();
        self.put(1_000_004);
        self.commands();
    }

    fn config(&mut self, config: &Config) {
        self.put(u64::from(config.id.serial()));
        self.flag(config.removed);
        for (generation, edition) in &config.editions {
            self.put(u64::from(config.current - generation));
            let ConfigSpec {
                enabled,
                minimum_available_sessions: minimum,
                max_sessions_per_server: size,
                max_servers,
                reusable,
                ..
            } = &*edition.spec;
            let bits = [minimum, &size.get(), max_servers].into_iter().fold(0, |bits, n| bits << 16 | u64::from(*n));
            self.put(bits << 2 | u64::from(*enabled) << 1 | u64::from(*reusable));
        }
        let memory = &config.memory;
        self.backoff(memory.create.as_ref().map(|(kind, backoff)| (digest(kind), backoff)));
        self.backoff(memory.directory.as_ref().map(|(kind, backoff)| (digest(kind), backoff)));
        self.backoff(memory.boot.as_ref().map(|backoff| (0, backoff)));
        let (failed, of) = memory.fates.failed_of();
        self.put(u64::from(failed) << 8 | u64::from(of));
        self.flag(memory.freeze.is_some());
        self.put(memory.loss.as_ref().map_or(0, |loss| 1 + u64::from(loss.acknowledged)));
        match memory.surplus {
            Some(surplus) => {
                self.at(surplus.since);
                self.put(u64::from(surplus.least));
            }
            None => self.put(0),
        }
        self.at_if(config.wake_at);
        for ((by, of), sessions) in self.state.covers.iter().filter(|((by, _), _)| *by == config.id) {
            self.put(u64::from(by.serial()) << 32 | u64::from(of.serial()) << 16 | u64::from(*sessions));
        }
    }

    fn backoff(&mut self, backoff: Option<(u64, &Backoff)>) {
        let Some((kind, backoff)) = backoff else { return self.put(0) };
        self.put(kind);
        self.put(u64::from(backoff.failures.min(TRIES_MAX)));
        self.at(backoff.until);
    }

    fn server(&mut self, server: &Server) {
        let place = (self.lens.server)(server.id);
        self.put(place);
        let config = &self.state.configs[&server.config];
        let reusable = self.state.born_with(server).reusable;
        self.put(u64::from(server.config.serial()) << 8 | u64::from(config.current - server.generation));
        self.put(u64::from(server.slot));
        let thing = |named: Option<&str>| named.map_or(0, |name| 1 + (self.lens.thing)(name));
        let machine = thing(server.machine.as_ref().map(|machine| machine.0.as_str()));
        let computer = thing(server.computer.as_ref().map(|computer| computer.0.as_str()));
        self.put(machine << 32 | computer);
        self.flag(server.address.is_some());
        self.flag(server.has_checked_in());
        // How often a server was used matters only where each slot is taken once.
        self.put(if reusable { 0 } else { u64::from(server.taken) });
        self.put(u64::from(server.absent.min(2)));
        self.busy(server.busy);
        // When it became known, as long as that may excuse its not being seen.
        self.at(server.named_at);
        self.at(server.enrolled_at);
        // Whether it was asked for after the last failure, which it would end.
        let since = [config.memory.create.as_ref().map(|(_, backoff)| backoff), config.memory.boot.as_ref()];
        for backoff in since.into_iter().flatten() {
            self.flag(server.created_at >= backoff.since);
        }
        self.put(digest(&server.phase.kind()));
        self.phase(&server.phase);
        self.flag(self.state.doubtful.contains(&server.id));
    }

    fn phase(&mut self, phase: &Phase) {
        match phase {
            Phase::Enrolling { asked, tries, ask_at, deadline } => {
                self.at_if(*asked);
                self.put(u64::from((*tries).min(TRIES_MAX)));
                self.at(*ask_at);
                self.at(*deadline);
            }
            Phase::Creating { call, deadline } => {
                self.at(*deadline);
                self.put(digest(&discriminant(call)));
                match call {
                    CreateCall::Intended => {}
                    CreateCall::Unsure { since, find_at, tries } => {
                        self.at(*since);
                        self.at(*find_at);
                        self.put(u64::from((*tries).min(TRIES_MAX)));
                    }
                    CreateCall::Accepted { poll_at, .. } => self.at(*poll_at),
                }
            }
            Phase::Starting { deadline, running, answered, probe_at, joined, join_at } => {
                self.at(*deadline);
                self.put(u64::from(*running) << 2 | u64::from(*answered) << 1 | u64::from(*joined));
                // When to ask matters only as long as it is asked.
                self.at_if((!*answered).then_some(*probe_at));
                self.at_if((!*joined).then_some(*join_at));
            }
            Phase::Ready { .. } => {}
            Phase::Draining { since, why } => {
                self.at(*since);
                self.put(digest(why));
            }
            Phase::Deleting { why, call, tries, next_at, .. } => {
                self.put(digest(&discriminant(why)));
                self.flag(why.is_asked());
                self.put(digest(&discriminant(call)));
                match call {
                    DeleteCall::Locate { absent_from } => self.at(*absent_from),
                    DeleteCall::Confirm { accepted_at } => self.at(*accepted_at),
                    DeleteCall::Kept { until } => self.at(*until),
                    DeleteCall::Send => {}
                }
                self.put(u64::from((*tries).min(TRIES_MAX)));
                self.at(*next_at);
            }
            Phase::Unenrolling { call, tries, next_at, failure, .. } => {
                if let UnenrollCall::Locate { absent_from } = call {
                    self.at(*absent_from);
                } else {
                    self.put(0);
                }
                self.put(u64::from((*tries).min(TRIES_MAX)));
                self.at(*next_at);
                self.flag(failure.is_some());
            }
        }
    }

    /// The open ones. Those that have ended are kept to be asked about, and change nothing, except that a pool that has nothing else
    /// to do is woken once more to forget them. Those that wait stand in their queue; among those that have a server it makes no
    /// difference who came first.
    fn sessions(&mut self) {
        let mut active = Vec::new();
        for session in self.state.sessions.values() {
            match session.state {
                SessionState::Waiting { deadline } => {
                    self.put(1);
                    self.at(deadline);
                    self.put(session.zone.as_ref().map_or(0, digest));
                }
                SessionState::Active { server, expires_at, .. } => {
                    active.push(((self.lens.server)(server), self.distance(expires_at)));
                }
                SessionState::Ended { .. } => {}
            }
        }
        active.sort_unstable();
        for (place, expires_at) in active {
            self.put(2 + place);
            self.put(expires_at);
        }
    }

    /// What is known of providers and directories.
    fn outside(&mut self) {
        let state = self.state;
        for (name, known) in &state.providers {
            self.put(digest(name));
            self.flag(known.capabilities.is_some());
            self.at(known.list_at);
            self.busy(known.listing);
            self.put(u64::from(known.failures.min(TRIES_MAX)));
            self.flag(known.observed);
            self.at_if(known.unused_since.filter(|_| !known.clear));
            self.flag(known.clear);
            for (machine, orphan) in &known.orphans {
                self.orphan(&machine.0, orphan);
            }
        }
        for (name, known) in &state.directories {
            self.put(digest(name));
            self.flag(known.facts.is_some());
            self.at(known.list_at);
            self.busy(known.listing);
            self.put(u64::from(known.failures.min(TRIES_MAX)));
            self.at_if(known.unused_since.filter(|_| !known.clear));
            self.flag(known.clear);
            for (computer, orphan) in &known.orphans {
                self.orphan(&computer.0, orphan);
            }
        }
    }

    fn orphan(&mut self, name: &str, orphan: &Orphan) {
        let place = (self.lens.thing)(name);
        self.put(2_000_000 + place);
        self.put(u64::from(orphan.sightings.min(2)));
        self.busy(orphan.busy);
    }

    /// Those that may still be answered, and what their answers would mean.
    fn commands(&mut self) {
        let (state, lens) = (self.state, self.lens);
        let known = state.in_flight.iter().filter_map(|(id, in_flight)| Some(((lens.command)(*id)?, in_flight)));
        let mut commands: Vec<(u64, &InFlight)> = known.collect();
        commands.sort_unstable_by_key(|(place, _)| *place);
        for (place, in_flight) in commands {
            self.put(place);
            self.put(digest(&in_flight.verb));
            self.at(in_flight.sent_at);
            match &in_flight.subject {
                Subject::Server(id) => {
                    let place = (self.lens.server)(*id);
                    self.put(place);
                }
                Subject::Listing(name) => self.put(digest(name)),
                Subject::ComputerListing(name) => self.put(digest(name)),
                Subject::Orphan(_, machine) => {
                    let place = (self.lens.thing)(&machine.0);
                    self.put(place);
                }
                Subject::OrphanComputer(_, computer) => {
                    let place = (self.lens.thing)(&computer.0);
                    self.put(place);
                }
            }
        }
    }
}

impl Lens<'_> {
    /// One grain.
    pub const fn grain(&self) -> Duration {
        Duration::from_millis(self.grain)
    }
}
