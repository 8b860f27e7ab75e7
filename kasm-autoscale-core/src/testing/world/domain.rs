//! The simulated domains of a world: each with controllers that learn of each other's changes late, behind the core's own port.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use async_trait::async_trait;
use secrecy::ExposeSecret;

use super::super::choices::Stream;
use super::super::entropy::{Entropy, MILLION};
use super::super::lock::{Shared, locked};
use super::host::DEPLOYMENT;
use super::sky::{Bad, heard};
use crate::config::Problem;
use crate::id::{DirectoryName, PoolId, ServerKey};
use crate::ports::{
    Certainty, Computer, ComputerListing, ComputerRef, Directory, DirectoryError, DirectoryErrorKind, DirectoryFacts,
    Finding, JoinPassword, JoinState, Marker, SeenComputer,
};
use crate::time::Timestamp;

mod forest;
mod judge;
mod life;
mod weather;

pub(super) use forest::{CONTROLLERS_MAX, Forest, Object, Spread};
pub(super) use weather::{Climate, words};
pub use weather::{DomainKind, DomainTrouble};

use forest::NEVER;
use weather::{SECOND_OBJECT, STALE_LOOK};

/// What is noted for the judge, since it was last asked.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// What struck.
    pub(super) struck: Vec<&'static str>,
    /// Enrolments that got there, with their passwords.
    pub(super) asked: Vec<(ServerKey, String)>,
    /// Objects that came to be.
    pub(super) made: Vec<ComputerRef>,
    /// Objects whose removal was asked for.
    pub(super) removals: Vec<ComputerRef>,
    /// Objects that an operator must look after before they can be removed.
    pub(super) stuck: Vec<ComputerRef>,
}

/// One domain with all that is wrong with it.
#[derive(Debug)]
pub(super) struct Domain {
    pub(super) name: DirectoryName,
    pub(super) climate: Climate,
    pub(super) forest: Forest,
    entropy: Stream,
    pub(super) now: Timestamp,
    pub(super) down_until: Spread,
    pub(super) outage_until: Timestamp,
    pub(super) hang_until: Timestamp,
    pub(super) denied_until: Timestamp,
    pub(super) quota_until: Timestamp,
    /// Empty while there is no trouble.
    pub(super) rates: BTreeMap<DomainTrouble, u32>,
    pub(super) noted: Noted,
    /// When the host stops waiting for the enrolment that it carries out now.
    pub(super) given_up_at: Timestamp,
    /// When each pool was last shown that nothing of it is there.
    pub(super) cleared_at: BTreeMap<PoolId, Timestamp>,
    /// Objects that an admin has deleted.
    pub(super) meddled: BTreeSet<ComputerRef>,
    /// Enrolments that will have their effect without anybody waiting for it.
    pending: BTreeMap<(Timestamp, u64), Pending>,
}

/// An enrolment that will have its effect when nobody waits for it any more, or just before.
#[derive(Debug)]
struct Pending {
    computer: Computer,
    password: String,
    given_up_at: Timestamp,
}

/// Whether a call changes something.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Call {
    /// It enrols, or looks for what an enrolment has made.
    Enrol,
    Remove,
    Look,
}

impl Domain {
    pub(super) fn new(number: usize, climate: Climate, entropy: Stream, now: Timestamp) -> Self {
        Self {
            name: alloc::format!("domain-{number}").parse().unwrap_or_else(|_| unreachable!("a valid name")),
            climate,
            forest: Forest::new(number),
            entropy,
            now,
            down_until: [Timestamp::default(); CONTROLLERS_MAX],
            outage_until: Timestamp::default(),
            hang_until: Timestamp::default(),
            denied_until: Timestamp::default(),
            quota_until: Timestamp::default(),
            rates: BTreeMap::new(),
            noted: Noted::default(),
            given_up_at: Timestamp::default(),
            cleared_at: BTreeMap::new(),
            meddled: BTreeSet::new(),
            pending: BTreeMap::new(),
        }
    }

    pub(super) fn facts(&self) -> DirectoryFacts {
        let Climate { lag, poll_busy, poll_idle, call_timeout, .. } = self.climate;
        let domain = alloc::format!("{}.example", self.name);
        DirectoryFacts { domain, visibility_lag: lag, poll_busy, poll_idle, call_timeout }
    }

    /// Lets time come to `now`: what was on its way gets there.
    pub(super) fn reach(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        while let Some(entry) = self.pending.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let ((at, _), pending) = entry.remove_entry();
            let controller = self.any_controller();
            self.given_up_at = pending.given_up_at;
            // Nobody hears what came of it.
            drop(self.make(controller, at, &pending.computer, &pending.password));
        }
    }

    /// All trouble ends, and every controller learns within the usual time what it should have known long since.
    pub(super) fn heal(&mut self) {
        let none = Timestamp::default();
        self.rates.clear();
        self.down_until = [none; CONTROLLERS_MAX];
        (self.outage_until, self.hang_until, self.denied_until, self.quota_until) = (none, none, none, none);
        let latest = self.now + self.climate.lag;
        for object in self.forest.objects_mut() {
            let spreads = [
                (true, &mut object.made),
                (object.joined_at.is_some(), &mut object.joined),
                (object.gone_at.is_some(), &mut object.gone),
            ];
            for (has_begun, spread) in spreads {
                if has_begun {
                    spread.iter_mut().for_each(|at| *at = (*at).min(latest));
                }
            }
            object.helped(self.now);
        }
    }

    fn strikes(&mut self, trouble: DomainTrouble) -> bool {
        let rate = self.rates.get(&trouble).copied().unwrap_or(0);
        let struck = self.entropy.chance(rate);
        if struck {
            self.noted.struck.push(trouble.as_str());
        }
        struck
    }

    fn any_controller(&mut self) -> usize {
        usize::try_from(self.entropy.pick(self.climate.controllers as u64)).unwrap_or(0)
    }

    /// The controller that answers a call, if one does.
    fn reached(&mut self, call: Call) -> Result<usize, Bad<DirectoryError>> {
        if self.now < self.hang_until {
            self.noted.struck.push(DomainTrouble::Hang.as_str());
            return Err(Bad::Hang);
        }
        if self.now < self.outage_until {
            self.noted.struck.push(DomainTrouble::Outage.as_str());
            return Err(transient(Certainty::NotApplied));
        }
        let is_pinned = self.climate.kind == DomainKind::Pinned && call != Call::Look;
        let first = if is_pinned { 0 } else { self.any_controller() };
        let mut controller = first;
        while self.now < self.down_until[controller] {
            self.noted.struck.push(DomainTrouble::ControllerDown.as_str());
            controller = (controller + 1) % self.climate.controllers;
            // As often as not nobody asks another one.
            if controller == first || self.entropy.chance(MILLION / 2) {
                return Err(transient(Certainty::NotApplied));
            }
        }
        if call == Call::Look && self.strikes(DomainTrouble::ReadError) {
            return Err(transient(Certainty::NotApplied));
        }
        Ok(controller)
    }

    /// Whether the account may change something now.
    fn may_change(&mut self) -> Result<(), Bad<DirectoryError>> {
        let (trouble, kind, code) = if self.now < self.denied_until {
            (DomainTrouble::Denied, DirectoryErrorKind::Denied, "insufficientAccessRights")
        } else if self.now < self.quota_until {
            (DomainTrouble::Quota, DirectoryErrorKind::Quota, "adminLimitExceeded")
        } else {
            return Ok(());
        };
        self.noted.struck.push(trouble.as_str());
        Err(error(kind, Certainty::NotApplied, code))
    }

    /// When each controller learns of what this one does now.
    fn spread(&mut self, controller: usize, at: Timestamp) -> Spread {
        let long = self.climate.controllers > 1 && self.strikes(DomainTrouble::LagLong);
        let most = if long { Duration::from_secs(3600) } else { self.climate.lag };
        let mut spread = [at; CONTROLLERS_MAX];
        for (other, known_at) in spread.iter_mut().enumerate().take(self.climate.controllers) {
            if other != controller {
                *known_at = at + self.entropy.duration(&(Duration::ZERO..=most));
            }
        }
        spread
    }

    fn enrol(&mut self, computer: &Computer, password: &JoinPassword) -> Result<ComputerRef, Bad<DirectoryError>> {
        let password = password.expose_secret();
        self.noted.asked.push((computer.server, password.to_string()));
        let controller = self.reached(Call::Enrol)?;
        self.may_change()?;
        if self.strikes(DomainTrouble::LostBefore) {
            return Err(Bad::Hang);
        }
        if self.strikes(DomainTrouble::EnrollRefused) {
            let kinds = [DirectoryErrorKind::Transient, DirectoryErrorKind::Throttled, DirectoryErrorKind::Denied];
            let kind = kinds[usize::try_from(self.entropy.pick(3)).unwrap_or(0)];
            return Err(error(kind, Certainty::NotApplied, "unwillingToPerform"));
        }
        if self.strikes(DomainTrouble::LateEffect) {
            let at = self.now + Duration::from_secs(self.entropy.range(1..=7200));
            let number = self.pending.len() as u64;
            let (computer, password) = (computer.clone(), password.to_string());
            self.pending.insert((at, number), Pending { computer, password, given_up_at: self.given_up_at });
            return Err(Bad::Hang);
        }
        let unclear = self.strikes(DomainTrouble::Unclear);
        if unclear && self.entropy.chance(MILLION / 2) {
            return Err(transient(Certainty::Unknown));
        }
        let made = self.make(controller, self.now, computer, password)?;
        if unclear {
            return Err(transient(Certainty::Unknown));
        }
        if self.strikes(DomainTrouble::LostAfter) { Err(Bad::Hang) } else { Ok(made) }
    }

    /// The object of this server as this controller knows it, or a new one.
    fn make(
        &mut self,
        controller: usize,
        at: Timestamp,
        computer: &Computer,
        password: &str,
    ) -> Result<ComputerRef, Bad<DirectoryError>> {
        if let Some(known) = self.marked(controller, &computer.server)? {
            return Ok(known);
        }
        let name = computer.name.as_str();
        let now = self.now;
        let is_taken = |object: &Object| object.is_at(controller, now) && object.name.eq_ignore_ascii_case(name);
        if self.forest.objects().any(is_taken) {
            return Err(error(DirectoryErrorKind::NameTaken, Certainty::NotApplied, "entryAlreadyExists"));
        }
        let is_second = self.forest.live_of(&computer.server).next().is_some();
        if is_second {
            self.noted.struck.push(SECOND_OBJECT);
        }
        let is_replaced = self.is_removed_but_shown(&computer.server);
        let reference = self.insert(controller, at, computer, password);
        if is_replaced && let Some(object) = self.forest.get_mut(&reference) {
            object.beyond = true;
        }
        let is_twice = self.strikes(DomainTrouble::EnrollTwice);
        if is_twice {
            self.insert(controller, at, computer, password);
        }
        if is_second || is_twice {
            // Which of them its row will come to know is anybody's guess.
            let uuid = computer.server.uuid();
            let all = self.forest.objects_mut().filter(|object| object.is_of(&computer.server, &uuid));
            all.for_each(|object| (object.beyond, object.late) = (true, true));
        }
        Ok(reference)
    }

    /// Whether an object of this server was removed, by another hand, and some controller still shows it: then its row may come to
    /// know that one, and nobody tells it of one that is made now. A listing will.
    fn is_removed_but_shown(&self, server: &ServerKey) -> bool {
        let (uuid, controllers) = (server.uuid(), self.climate.controllers);
        let is_shown = |object: &Object| object.gone[..controllers].iter().any(|known_at| *known_at > self.now);
        self.forest.objects().any(|object| object.is_of(server, &uuid) && !object.exists() && is_shown(object))
    }

    fn insert(&mut self, controller: usize, at: Timestamp, computer: &Computer, password: &str) -> ComputerRef {
        let made = self.spread(controller, at);
        let is_late = at > self.given_up_at || made.iter().any(|known_at| *known_at > at + self.climate.lag);
        let reference = self.forest.insert(Object {
            made,
            beyond: is_late,
            late: is_late,
            password: Some(password.to_string()),
            ..self.object(Some(computer.marker.clone()), computer.name.as_str())
        });
        self.noted.made.push(reference.clone());
        reference
    }

    /// An object of somebody else's, there since now and known to all.
    fn object(&self, marker: Option<Marker>, name: &str) -> Object {
        Object {
            reference: ComputerRef(String::new()),
            marker,
            name: name.to_string(),
            password: None,
            made: [self.now; CONTROLLERS_MAX],
            joined_at: None,
            joined: NEVER,
            gone_at: None,
            gone: NEVER,
            has_children: false,
            is_protected: false,
            is_elsewhere: false,
            beyond: false,
            late: false,
        }
    }

    /// The object with a server's mark that this controller shows.
    fn marked(&self, controller: usize, server: &ServerKey) -> Result<Option<ComputerRef>, Bad<DirectoryError>> {
        let uuid = server.uuid();
        let all = self.forest.objects();
        let mut marked = all.filter(|object| object.is_seen(controller, self.now) && object.is_of(server, &uuid));
        let found = marked.next().map(|object| object.reference.clone());
        if marked.next().is_some() {
            // Which one the machine uses is not known.
            return Err(error(DirectoryErrorKind::Invalid, Certainty::NotApplied, "ambiguous"));
        }
        Ok(found)
    }

    fn find(&mut self, server: &ServerKey) -> Result<Option<ComputerRef>, Bad<DirectoryError>> {
        let controller = self.reached(Call::Look)?;
        let found = self.marked(controller, server)?;
        let truth = self.forest.live_of(server).find(|object| !object.is_elsewhere);
        if found.as_ref() != truth.map(|object| &object.reference) {
            self.noted.struck.push(STALE_LOOK);
        }
        Ok(found)
    }

    fn joined(&mut self, reference: &ComputerRef) -> Result<JoinState, Bad<DirectoryError>> {
        let controller = self.reached(Call::Look)?;
        let state = |exists: bool, joined: bool| match (exists, joined) {
            (false, _) => JoinState::Absent,
            (true, false) => JoinState::Waiting,
            (true, true) => JoinState::Joined,
        };
        let now = self.now;
        let object = self.forest.get(reference);
        let (said, truth) = object.map_or((JoinState::Absent, JoinState::Absent), |object| {
            let said = state(object.is_at(controller, now), object.joined[controller] <= now);
            (said, state(object.exists(), object.joined_at.is_some()))
        });
        if said != truth {
            self.noted.struck.push(STALE_LOOK);
        }
        Ok(said)
    }

    fn remove(&mut self, reference: &ComputerRef, recursive: bool) -> Result<(), Bad<DirectoryError>> {
        self.noted.removals.push(reference.clone());
        let controller = self.reached(Call::Remove)?;
        self.may_change()?;
        if self.strikes(DomainTrouble::LostBefore) {
            return Err(Bad::Hang);
        }
        if self.strikes(DomainTrouble::RemoveRefused) {
            return Err(error(DirectoryErrorKind::Throttled, Certainty::NotApplied, "busy"));
        }
        let unclear = self.strikes(DomainTrouble::Unclear);
        if unclear && self.entropy.chance(MILLION / 2) {
            return Err(transient(Certainty::Unknown));
        }
        let now = self.now;
        let Some(object) = self.forest.get(reference).filter(|object| object.is_at(controller, now)) else {
            // What this controller does not know is removed, as far as it can say.
            if self.forest.get(reference).is_some_and(Object::exists) {
                self.noted.struck.push(STALE_LOOK);
            }
            return Ok(());
        };
        let refused = match object {
            object if object.is_elsewhere => Some((DirectoryErrorKind::Invalid, "outside")),
            object if object.is_protected => Some((DirectoryErrorKind::Protected, "insufficientAccessRights")),
            object if object.has_children && !recursive => {
                Some((DirectoryErrorKind::HasChildren, "notAllowedOnNonLeaf"))
            }
            _ => None,
        };
        if let Some((kind, code)) = refused {
            self.noted.stuck.push(reference.clone());
            return Err(error(kind, Certainty::NotApplied, code));
        }
        if object.exists() {
            if self.strikes(DomainTrouble::RemoveLies) {
                if let Some(object) = self.forest.get_mut(reference) {
                    (object.beyond, object.late) = (true, true);
                }
                return Ok(());
            }
            self.take_away(controller, reference);
        }
        if unclear {
            return Err(transient(Certainty::Unknown));
        }
        if self.strikes(DomainTrouble::LostAfter) { Err(Bad::Hang) } else { Ok(()) }
    }

    fn take_away(&mut self, controller: usize, reference: &ComputerRef) {
        let (now, gone) = (self.now, self.spread(controller, self.now));
        if let Some(object) = self.forest.get_mut(reference) {
            object.gone_at = Some(now);
            object.gone = gone;
        }
    }

    fn list(&mut self, pool: &PoolId) -> Result<ComputerListing, Bad<DirectoryError>> {
        let controller = self.reached(Call::Look)?;
        let now = self.now;
        self.forest.forget_gone(now);
        let mut computers = Vec::new();
        let mut is_stale = false;
        for object in self.forest.objects() {
            let Some(marker) = object.marker.as_ref().filter(|marker| marker.pool == *pool) else { continue };
            let is_seen = object.is_seen(controller, now);
            is_stale |= is_seen != (object.exists() && !object.is_elsewhere);
            if is_seen {
                let (reference, name) = (object.reference.clone(), object.name.clone());
                computers.push(SeenComputer { reference, marker: marker.clone(), name });
            }
        }
        if is_stale {
            self.noted.struck.push(STALE_LOOK);
        }
        if !computers.iter().any(|computer| computer.marker.deployment == DEPLOYMENT) {
            self.cleared_at.insert(*pool, now);
        }
        let complete = computers.is_empty() || !self.strikes(DomainTrouble::ListPartial);
        if !complete {
            let kept = self.entropy.pick(computers.len() as u64);
            computers.truncate(usize::try_from(kept).unwrap_or(0));
        }
        Ok(ComputerListing { computers, complete })
    }
}

fn error(kind: DirectoryErrorKind, certainty: Certainty, code: &str) -> Bad<DirectoryError> {
    Bad::Error(DirectoryError::new(kind, certainty, code, "as the domain says"))
}

fn transient(certainty: Certainty) -> Bad<DirectoryError> {
    error(DirectoryErrorKind::Transient, certainty, "unavailable")
}

/// A domain as the core's commands come to it.
pub(super) struct Gate(pub(super) Shared<Domain>);

#[async_trait]
impl Directory for Gate {
    fn describe(&self) -> DirectoryFacts {
        locked(&self.0).facts()
    }

    fn check(&self, _: &str) -> Vec<Problem> {
        Vec::new()
    }

    async fn preflight(&self, _: &str) -> Result<Vec<Finding>, DirectoryError> {
        Ok(Vec::new())
    }

    async fn ensure_computer(
        &self,
        computer: &Computer,
        password: &JoinPassword,
    ) -> Result<ComputerRef, DirectoryError> {
        let result = locked(&self.0).enrol(computer, password);
        heard(result).await
    }

    async fn find_computer(&self, server: &ServerKey) -> Result<Option<ComputerRef>, DirectoryError> {
        let result = locked(&self.0).find(server);
        heard(result).await
    }

    async fn joined(&self, computer: &ComputerRef) -> Result<JoinState, DirectoryError> {
        let result = locked(&self.0).joined(computer);
        heard(result).await
    }

    async fn delete_computer(&self, computer: &ComputerRef, recursive: bool) -> Result<(), DirectoryError> {
        let result = locked(&self.0).remove(computer, recursive);
        heard(result).await
    }

    async fn list_computers(&self, pool: &PoolId) -> Result<ComputerListing, DirectoryError> {
        let result = locked(&self.0).list(pool);
        heard(result).await
    }
}

/// The domain of this name.
pub(super) fn gate(domains: &[Shared<Domain>], name: &DirectoryName) -> Option<Arc<dyn Directory>> {
    let domain = domains.iter().find(|domain| locked(domain).name == *name)?;
    Some(Arc::new(Gate(domain.clone())))
}
