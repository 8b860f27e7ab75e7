//! What happens around domains: configs that join one, machines that join, operators who help, and admins who do not.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use serde_json::{Value, json};

use super::super::super::entropy::Entropy;
use super::super::super::lock::locked;
use super::super::host::DEPLOYMENT;
use super::super::{Due, Note, Sound, World, expect};
use super::weather::JOIN_TOO_EARLY;
use super::{CONTROLLERS_MAX, Domain, DomainTrouble, Object};
use crate::config::NamePattern;
use crate::id::{ConfigId, DeploymentId, ServerId, ServerKey};
use crate::ports::{ComputerRef, MachineRef, Marker};

/// What a machine finds in its start-up data. The password is told by where it stands.
const SCRIPT: &str = "Join-World '{domain}' '{ad_join_credential}'";

/// How long a machine waits before it tries to join again, and how often it does.
const TRY_AGAIN: Duration = Duration::from_secs(20);
const TRIES_MAX: u32 = 60;

/// A machine needs this much more time until it is ready: it may have to wait until every controller knows its object, and the
/// controller that is asked learns late that it has joined.
const JOIN_SECS: u64 = 900;

impl World {
    /// Makes some configs join a domain.
    pub(in super::super) fn may_join(&mut self, config: &mut Value, sane: bool) {
        if !self.joining.chance(self.joins) {
            return;
        }
        let index = usize::try_from(self.joining.pick(self.sky.domains.len() as u64)).unwrap_or(0);
        let Some(domain) = self.sky.domains.get(index) else { return };
        let unknown = !sane && self.joining.chance(30_000);
        config["ad_directory"] = if unknown { json!("nowhere") } else { json!(locked(domain).name.as_str()) };
        config["ad_computer_ou_dn"] = json!("OU=Desks,DC=example");
        config["ad_recursive_cleanup"] = json!(self.joining.chance(700_000));
        config["startup_script"] = json!(SCRIPT);
        config["boot_deadline"] = json!(config["boot_deadline"].as_u64().unwrap_or(0) + JOIN_SECS);
    }

    pub(in super::super) fn trouble_in_domains(&mut self) {
        for domain in &self.sky.domains {
            let mut domain = locked(domain);
            domain.rates = domain.climate.rates.clone();
        }
        if !self.sky.domains.is_empty() {
            self.at(self.now, Due::Admin);
        }
    }

    fn strikes_in(&mut self, domain: usize, trouble: DomainTrouble) -> bool {
        let rate = locked(&self.sky.domains[domain]).rates.get(&trouble).copied().unwrap_or(0);
        self.guests.chance(rate)
    }

    // --- machines ---

    /// A machine was made that is to join a domain: it does when it has booted, with what it was given.
    pub(in super::super) fn guest_will_join(&mut self, index: usize, key: ServerKey) -> Sound {
        let ledger = &self.hosts[index].ledger;
        let Some(cloud) = ledger.asked.get(&key.server).map(|asked| asked.cloud) else { return Ok(()) };
        let Some(enrolment) = ledger.enrolments.get(&key.server) else { return Ok(()) };
        let (domain, password) = (enrolment.domain, enrolment.password.clone());
        let new: Vec<_> = {
            let mut cloud = locked(&self.sky.clouds[cloud]);
            // It came with the very call that has made the machine.
            let given = cloud.given.take().and_then(|data| Some(String::from(data.split('\'').nth(3)?)));
            expect(given == password, "I-26 a machine is given the password of its object", || {
                alloc::format!("{}: {given:?}, made with {password:?}", key.server)
            })?;
            let uuid = key.uuid();
            let all = cloud.sim.machines_of(&uuid).filter(|machine| machine.is_ours());
            all.filter_map(|machine| Some((machine.reference.clone(), machine.booted_at?))).collect()
        };
        if !new.is_empty() && self.strikes_in(domain, DomainTrouble::ObjectRenamed) {
            self.renames(domain, &key);
        }
        for (machine, booted_at) in new {
            if !self.hosts[index].ledger.joining.insert((cloud, machine.clone())) {
                continue;
            }
            if self.strikes_in(domain, DomainTrouble::GuestNeverJoins) {
                self.figures.struck(DomainTrouble::GuestNeverJoins.as_str());
                continue;
            }
            let script = Duration::from_secs(self.guests.range(1..=60));
            let due = Due::GuestJoins { pool: index, server: key.server, cloud, machine, tries: 0 };
            self.at(booted_at + script, due);
        }
        Ok(())
    }

    /// An admin gives the object of a server another name, so that its machine does not find it.
    fn renames(&mut self, domain: usize, key: &ServerKey) {
        let (mut domain, uuid) = (locked(&self.sky.domains[domain]), key.uuid());
        for object in domain.forest.objects_mut().filter(|object| object.exists() && object.is_of(key, &uuid)) {
            self.figures.struck(DomainTrouble::ObjectRenamed.as_str());
            object.name.push_str("-was");
        }
    }

    pub(in super::super) fn guest_joins(
        &mut self,
        pool: usize,
        server: ServerId,
        cloud: usize,
        machine: MachineRef,
        tries: u32,
    ) {
        let now = self.now;
        let Some(enrolment) = self.hosts[pool].ledger.enrolments.get(&server) else { return };
        let (domain, password) = (enrolment.domain, enrolment.password.clone().unwrap_or_default());
        let name = {
            let cloud = locked(&self.sky.clouds[cloud]);
            let there = cloud.sim.machine(&machine).filter(|machine| machine.answers(now));
            there.map(|machine| machine.name.clone())
        };
        // A machine that is gone or off joins nothing.
        let Some(name) = name else { return };
        let controller = usize::try_from(self.guests.pick(CONTROLLERS_MAX as u64)).unwrap_or(0);
        let joined = {
            let mut domain = locked(&self.sky.domains[domain]);
            domain.reach(now);
            domain.join(controller, &name, &password)
        };
        let again = Due::GuestJoins { pool, server, cloud, machine, tries: tries + 1 };
        match joined {
            Joined::Done => {
                if self.strikes_in(domain, DomainTrouble::GuestJoinsTwice) {
                    self.at(now + TRY_AGAIN * 10, again);
                }
            }
            Joined::Used => self.figures.struck(DomainTrouble::GuestJoinsTwice.as_str()),
            Joined::NotYet { is_early } => {
                if is_early {
                    self.figures.struck(JOIN_TOO_EARLY);
                }
                if tries < TRIES_MAX {
                    self.at(now + TRY_AGAIN, again);
                }
            }
        }
        self.strikes_of_domains();
    }

    /// Counts what has struck in domains since this was last done.
    pub(in super::super) fn strikes_of_domains(&mut self) {
        for domain in &self.sky.domains {
            for what in locked(domain).noted.struck.drain(..) {
                *self.figures.faults.entry(what).or_default() += 1;
            }
        }
    }

    // --- operators ---

    /// An object could not be removed: sooner or later an operator looks into it.
    pub(in super::super) fn is_stuck(&mut self, domain: usize, object: ComputerRef) {
        let later = Duration::from_secs(self.admins.range(60..=3600));
        self.at(self.now + later, Due::Helped { domain, object });
    }

    pub(in super::super) fn helped(&mut self, domain: usize, object: &ComputerRef) {
        self.note(0, Note::Word("an operator makes a computer object fit to be removed"));
        if let Some(object) = locked(&self.sky.domains[domain]).forest.get_mut(object) {
            object.helped(self.now);
        }
    }

    // --- admins ---

    pub(in super::super) fn admin_acts(&mut self) {
        const ACTS: [DomainTrouble; 9] = [
            DomainTrouble::ControllerDown,
            DomainTrouble::Outage,
            DomainTrouble::Hang,
            DomainTrouble::Denied,
            DomainTrouble::Quota,
            DomainTrouble::NameTaken,
            DomainTrouble::ForeignObject,
            DomainTrouble::ObjectRemoved,
            DomainTrouble::ObjectMoved,
        ];
        let next = Duration::from_secs(self.admins.range(60..=600));
        self.at(self.now + next, Due::Admin);
        let trouble = ACTS[usize::try_from(self.admins.pick(ACTS.len() as u64)).unwrap_or(0)];
        let index = usize::try_from(self.admins.pick(self.sky.domains.len() as u64)).unwrap_or(0);
        let domain = self.sky.domains[index].clone();
        let mut domain = locked(&domain);
        domain.reach(self.now);
        let rate = domain.rates.get(&trouble).copied().unwrap_or(0);
        if !self.admins.chance(rate) {
            return;
        }
        let until = self.now + Duration::from_secs(self.admins.range(60..=2400));
        match trouble {
            DomainTrouble::ControllerDown => {
                let controller = self.admins.pick(domain.climate.controllers as u64);
                domain.down_until[usize::try_from(controller).unwrap_or(0)] = until;
            }
            DomainTrouble::Outage => domain.outage_until = until,
            DomainTrouble::Hang => domain.hang_until = until,
            DomainTrouble::Denied => domain.denied_until = until,
            DomainTrouble::Quota => domain.quota_until = until,
            DomainTrouble::NameTaken => self.takes_a_name(&mut domain),
            DomainTrouble::ForeignObject => self.brings_an_object(&mut domain),
            _ => self.meddles(&mut domain, trouble),
        }
    }

    fn next_server(&mut self) -> Option<ServerKey> {
        let pool = usize::try_from(self.admins.pick(self.hosts.len() as u64)).unwrap_or(0);
        let host = &self.hosts[pool];
        let last = host.pool.as_ref()?.servers().last()?.id.serial();
        Some(ServerKey { pool: host.id, server: ServerId::new(last + 1) })
    }

    fn takes_a_name(&mut self, domain: &mut Domain) {
        let Some(name) = self.next_server().and_then(|key| NamePattern::default().name_of(&key)) else { return };
        self.figures.struck(DomainTrouble::NameTaken.as_str());
        let object = domain.object(None, name.as_str());
        domain.forest.insert(object);
    }

    fn brings_an_object(&mut self, domain: &mut Domain) {
        self.figures.struck(DomainTrouble::ForeignObject.as_str());
        let pool = usize::try_from(self.admins.pick(self.hosts.len() as u64)).unwrap_or(0);
        let key = ServerKey { pool: self.hosts[pool].id, server: ServerId::new(self.admins.range(1..=60)) };
        let marker = self.admins.chance(700_000).then(|| Marker {
            deployment: DeploymentId::from_bytes([2; 16]),
            pool: key.pool,
            config: ConfigId::new(1),
            server: key.uuid(),
        });
        debug_assert!(marker.as_ref().is_none_or(|marker| marker.deployment != DEPLOYMENT));
        let object = domain.object(marker, "somebody-elses");
        domain.forest.insert(object);
    }

    /// Does something to one of our objects.
    fn meddles(&mut self, domain: &mut Domain, trouble: DomainTrouble) {
        let ours = domain.forest.live().filter(|object| object.is_ours()).map(|object| object.reference.clone());
        let ours: Vec<_> = ours.collect();
        let index = usize::try_from(self.admins.pick(ours.len() as u64)).unwrap_or(0);
        let Some(reference) = ours.get(index) else { return };
        self.figures.struck(trouble.as_str());
        if trouble == DomainTrouble::ObjectRemoved {
            let controller = domain.any_controller();
            domain.take_away(controller, reference);
            domain.meddled.insert(reference.clone());
        }
        let Some(object) = domain.forest.get_mut(reference) else { return };
        // Nobody answers for what an admin has had in his hands.
        object.beyond = true;
        if trouble == DomainTrouble::ObjectMoved {
            (object.is_elsewhere, object.late) = (true, true);
        }
    }
}

/// What became of a try to join.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in super::super) enum Joined {
    /// The machine has set a password of its own.
    Done,
    /// The password was used before, and is worth nothing any more.
    Used,
    /// There is no such object, or its password is another one, as far as this controller knows.
    NotYet {
        /// Whether it is there, and only this controller does not know it.
        is_early: bool,
    },
}

impl Domain {
    /// A machine of this name wants to join with this password.
    pub(in super::super) fn join(&mut self, controller: usize, name: &str, password: &str) -> Joined {
        let (now, controller) = (self.now, controller % self.climate.controllers);
        let fits = |object: &&Object| {
            object.exists() && object.name.eq_ignore_ascii_case(name) && object.password.as_deref() == Some(password)
        };
        // A machine that has joined is joined, whatever else bears its name.
        if self.forest.objects().filter(fits).any(|object| object.joined_at.is_some()) {
            return Joined::Used;
        }
        let known = self.forest.objects().filter(fits).filter(|object| object.is_at(controller, now)).last();
        let Some(object) = known else {
            return Joined::NotYet { is_early: self.forest.objects().any(|object| fits(&object)) };
        };
        let reference = object.reference.clone();
        let joined = self.spread(controller, now);
        let (has_children, is_protected) =
            (self.strikes(DomainTrouble::Children), self.strikes(DomainTrouble::Protected));
        let is_renamed = self.strikes(DomainTrouble::ReferenceChanges);
        if let Some(object) = self.forest.get_mut(&reference) {
            (object.joined_at, object.joined) = (Some(now), joined);
            object.has_children |= has_children;
            object.is_protected |= is_protected;
            if is_renamed {
                object.reference.0.push_str("-joined");
                object.beyond = true;
            }
        }
        Joined::Done
    }
}
