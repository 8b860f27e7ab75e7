//! A state of the model: a real pool, its store, what there really is outside, and how much may still go wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use kasm_autoscale_core::command::Outcome;
use kasm_autoscale_core::config::ConfigSpec;
use kasm_autoscale_core::id::{ServerId, SessionId};
use kasm_autoscale_core::input::{Fact, Input, Ticket};
use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::row::{Row, RowKey};
use kasm_autoscale_core::server::PhaseKind;
use kasm_autoscale_core::session::{SessionRequest, SessionState};
use kasm_autoscale_core::time::Timestamp;

use super::plans::{Budget, GRAIN, GRAIN_MILLIS, PROVIDERS, Plan, TIMEOUT, introductions, pool_spec};
use super::promises::Broken;
use super::truth::{Call, Flight, Ghost, Truth, refusal};

const START: Timestamp = Timestamp::from_secs(1_700_000_040);

/// Something that may happen next. Numbers are places in the lists of the state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Act {
    /// A command has its effect and is answered.
    Answer(usize),
    /// It is answered without what is too young to be seen.
    Blind(usize),
    /// It never got there, and the host says that no answer came.
    LostBefore(usize),
    /// It had its effect, and the host says that no answer came.
    LostAfter(usize),
    /// It takes its time; if it takes too much, it never got there and nobody says so.
    Slow(usize),
    /// The provider has no capacity.
    Refused(usize),
    /// A call that an earlier life has sent has its effect now.
    Ghost(usize),
    /// Time passes until the pool wants to be woken.
    Wake,
    /// Another user wants a session.
    Request,
    /// An open session ends.
    End(usize),
    /// A machine is deleted by somebody else.
    Vanish(usize),
    /// A machine is stopped by somebody else.
    Stop(usize),
    /// An operator's wish about a server.
    Drain(usize),
    Undrain(usize),
    Delete(usize),
    /// A config is disabled or enabled again, or removed or set again.
    Switch(usize),
    Remove(usize),
    /// The host dies and comes back.
    Crash,
}

/// A state.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) pool: Pool,
    pub(crate) store: BTreeMap<RowKey, Arc<Row>>,
    pub(crate) now: Timestamp,
    pub(crate) wake_at: Option<Timestamp>,
    pub(crate) flights: Vec<Flight>,
    pub(crate) truth: Truth,
    pub(crate) budget: Budget,
    /// Servers whose machine was asked for, as long as there is anything of them.
    pub(crate) asked: Vec<u64>,
    /// Servers whose machine somebody else has deleted or stopped.
    pub(crate) harmed: Vec<u64>,
    pub(crate) promised: Vec<SessionId>,
    next_user: u32,
    /// Creates, deletes, enrolments and their removals given out in the last step.
    pub(crate) changes: usize,
    pub(crate) broken: Option<Broken>,
    pub(crate) digest: u64,
}

impl Hash for Node {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.digest);
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ago = |at: Timestamp| at.since(START).as_secs();
        write!(f, "at {} s", ago(self.now))?;
        for server in self.pool.servers() {
            write!(f, ", {} {} with {}", server.id, server.phase.kind(), server.sessions)?;
        }
        let waiting = self.pool.sessions().filter(|session| matches!(session.state, SessionState::Waiting { .. }));
        write!(f, ", {} wait; under way", waiting.count())?;
        for flight in &self.flights {
            write!(f, " {:?}{}", flight.call, if flight.slow { " slowly" } else { "" })?;
        }
        write!(f, "; there {:?}", self.truth.machines.iter().map(|machine| machine.serial).collect::<Vec<_>>())?;
        write!(f, "; ghosts {:?}", self.truth.ghosts.iter().map(|ghost| ghost.call).collect::<Vec<_>>())?;
        if let Some(broken) = self.broken {
            write!(f, "; BROKEN {broken:?}")?;
        }
        Ok(())
    }
}

impl Node {
    pub(crate) fn first(plan: &Plan) -> Self {
        let mut node = Self {
            pool: Pool::new(pool_spec(plan), START),
            store: BTreeMap::new(),
            now: START,
            wake_at: None,
            flights: Vec::new(),
            truth: Truth::default(),
            budget: plan.budget,
            asked: Vec::new(),
            harmed: Vec::new(),
            promised: Vec::new(),
            next_user: 0,
            changes: 0,
            broken: None,
            digest: 0,
        };
        let configs = plan.configs.iter().map(|config| Fact::ConfigSet(Box::new(config.clone())));
        node.step(introductions(plan).into_iter().chain(configs));
        node.settle();
        node
    }

    // --- what may happen ---

    pub(crate) fn acts(&self, plan: &Plan, acts: &mut Vec<Act>) {
        if self.broken.is_some() {
            return;
        }
        let Budget { crashes, lost, mishaps, wishes } = self.budget;
        let read = |flight: &Flight| plan.prompt_reads && !flight.call.changes() && !flight.slow;
        let prompt = self.flights.iter().position(read);
        for (at, flight) in self.flights.iter().enumerate() {
            if prompt.is_some_and(|first| first != at) {
                continue;
            }
            acts.push(Act::Answer(at));
            if lost == 0 {
                continue;
            }
            acts.push(Act::LostBefore(at));
            if flight.call.changes() {
                acts.push(Act::LostAfter(at));
            }
            if !flight.slow {
                acts.push(Act::Slow(at));
            }
            if self.truth.may_be_blind(flight.call, flight.sent_at) {
                acts.push(Act::Blind(at));
            }
            if plan.refusals && matches!(flight.call, Call::Create(_)) {
                acts.push(Act::Refused(at));
            }
        }
        if prompt.is_some() {
            return;
        }
        acts.extend((0..self.truth.ghosts.len()).map(Act::Ghost));
        if self.may_wake() {
            acts.push(Act::Wake);
        }
        let open = self.open().count();
        if open < plan.users {
            acts.push(Act::Request);
        }
        acts.extend((0..open).map(Act::End));
        if mishaps > 0 {
            let machines = 0..self.truth.machines.len();
            acts.extend(machines.clone().map(Act::Vanish));
            acts.extend(machines.filter(|at| !self.truth.machines[*at].stopped).map(Act::Stop));
        }
        if wishes > 0 {
            for (at, server) in self.pool.servers().enumerate() {
                match server.phase.kind() {
                    PhaseKind::Draining => acts.extend([Act::Undrain(at), Act::Delete(at)]),
                    kind if kind.is_going() => {}
                    _ => acts.extend([Act::Drain(at), Act::Delete(at)]),
                }
            }
            for at in 0..plan.configs.len() {
                acts.extend([Act::Switch(at), Act::Remove(at)]);
            }
        }
        if crashes > 0 {
            acts.push(Act::Crash);
        }
    }

    fn may_wake(&self) -> bool {
        self.wake_at.is_some_and(|at| at <= self.now || self.flights.iter().all(|flight| flight.slow))
    }

    pub(crate) fn open(&self) -> impl Iterator<Item = SessionId> {
        self.pool.sessions().filter(|session| session.is_open()).map(|session| session.id)
    }

    /// The state after this has happened.
    pub(crate) fn after(&self, plan: &Plan, act: Act) -> Self {
        let mut next = self.clone();
        match act {
            Act::Answer(_) | Act::Ghost(_) | Act::Wake | Act::Request | Act::End(_) => {}
            Act::Blind(_) | Act::LostBefore(_) | Act::LostAfter(_) | Act::Slow(_) | Act::Refused(_) => {
                next.budget.lost -= 1;
            }
            Act::Vanish(_) | Act::Stop(_) => next.budget.mishaps -= 1,
            Act::Drain(_) | Act::Undrain(_) | Act::Delete(_) | Act::Switch(_) | Act::Remove(_) => {
                next.budget.wishes -= 1;
            }
            Act::Crash => next.budget.crashes -= 1,
        }
        next.happen(plan, act);
        next.settle();
        next
    }

    pub(crate) fn happen(&mut self, plan: &Plan, act: Act) {
        match act {
            Act::Answer(at) => {
                self.answered(plan, at, true, |truth, flight| truth.answer(flight, plan.by_operation, false))
            }
            Act::Blind(at) => {
                self.answered(plan, at, true, |truth, flight| truth.answer(flight, plan.by_operation, true))
            }
            Act::LostBefore(at) => self.answered(plan, at, false, |_, _| Outcome::Lost),
            Act::LostAfter(at) => self.answered(plan, at, true, |_, _| Outcome::Lost),
            Act::Refused(at) => self.answered(plan, at, false, |_, _| refusal()),
            Act::Slow(at) => self.flights[at].slow = true,
            Act::Ghost(at) => {
                let ghost = self.truth.ghosts.remove(at);
                self.perform(plan, ghost.call, ghost.config);
            }
            Act::Wake => self.wake(),
            Act::Request => self.request(),
            Act::End(at) => {
                let id = self.open().nth(at).expect("an open session");
                self.promised.retain(|promised| *promised != id);
                self.step([Fact::SessionEnded(id)]);
            }
            Act::Vanish(at) => {
                let machine = self.truth.machines.remove(at);
                self.harmed.push(machine.serial);
            }
            Act::Stop(at) => {
                self.truth.machines[at].stopped = true;
                self.harmed.push(self.truth.machines[at].serial);
            }
            Act::Drain(at) => self.step([Fact::DrainAsked(self.nth_server(at))]),
            Act::Undrain(at) => self.step([Fact::UndrainAsked(self.nth_server(at))]),
            Act::Delete(at) => self.step([Fact::DeleteAsked { server: self.nth_server(at), force: false }]),
            Act::Switch(at) => self.switch(&plan.configs[at]),
            Act::Remove(at) => self.step([Fact::ConfigRemoved(plan.configs[at].name.clone())]),
            Act::Crash => self.crash(plan),
        }
    }

    fn nth_server(&self, at: usize) -> ServerId {
        self.pool.servers().nth(at).expect("a server").id
    }

    fn answered(&mut self, plan: &Plan, at: usize, effect: bool, outcome: impl FnOnce(&Truth, &Flight) -> Outcome) {
        let flight = self.flights.remove(at);
        if effect {
            self.perform(plan, flight.call, flight.config);
        }
        let outcome = outcome(&self.truth, &flight);
        self.step([Fact::Finished(flight.id, outcome)]);
    }

    /// A call has its effect.
    fn perform(&mut self, plan: &Plan, call: Call, config: u32) {
        if let Call::Delete(serial) = call
            && self.pool.server(ServerId::new(serial)).is_some_and(|server| server.sessions > 0)
        {
            self.broken = Some(Broken::UnderSession);
        }
        let provider = if config == 0 { 0 } else { provider_of(plan, config) };
        self.truth.perform(call, config, provider, self.now);
        if let Call::Create(_) = call {
            self.expect_cap(plan, config);
        }
    }

    fn wake(&mut self) {
        let wake_at = self.wake_at.expect("only a pool that wants to be woken is");
        let millis = wake_at.max(self.now).as_millis().div_ceil(GRAIN_MILLIS) * GRAIN_MILLIS;
        self.now = Timestamp::from_millis(millis);
        let now = self.now;
        // The pool has given up waiting for these by itself, and the host says nothing.
        self.flights.retain(|flight| flight.sent_at + 2 * GRAIN > now);
        self.truth.ghosts.retain(|ghost| ghost.until >= now);
        self.step([]);
    }

    fn request(&mut self) {
        let user = format!("user-{}", self.next_user).parse().expect("a name");
        self.next_user += 1;
        let fact = Fact::SessionRequested(SessionRequest { user, zone: None, key: None });
        self.step_inputs(vec![Input { ticket: Some(Ticket(1)), fact }]);
    }

    fn switch(&mut self, config: &ConfigSpec) {
        let known = self.pool.config(&config.name).unwrap_or(config).clone();
        let enabled = !known.enabled || self.pool.config(&config.name).is_none();
        self.step([Fact::ConfigSet(Box::new(ConfigSpec { enabled, ..known }))]);
    }

    fn crash(&mut self, plan: &Plan) {
        for flight in std::mem::take(&mut self.flights) {
            if flight.call.changes() {
                let until = flight.sent_at + TIMEOUT;
                self.truth.ghosts.push(Ghost { call: flight.call, config: flight.config, until });
            }
        }
        let rows = self.store.values().map(|row| Row::clone(row));
        self.pool = Pool::restore(rows, self.now).expect("what was saved can be restored");
        self.step(introductions(plan));
    }
}

/// The config of this number. One that was removed and set again has a new number, and the same settings.
pub(crate) fn config_at(plan: &Plan, config: u32) -> &ConfigSpec {
    let at = usize::try_from(config).unwrap_or(usize::MAX) - 1;
    plan.configs.get(at).unwrap_or(&plan.configs[0])
}

fn provider_of(plan: &Plan, config: u32) -> usize {
    let name = &config_at(plan, config).provider;
    PROVIDERS.iter().position(|known| *known == name.as_str()).expect("a provider of the model")
}
