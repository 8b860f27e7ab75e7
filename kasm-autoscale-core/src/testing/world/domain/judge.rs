//! What must hold of computer objects. Each check holds what a pool did against the truth of its domains.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::super::super::lock::locked;
use super::super::host::{DEPLOYMENT, Host};
use super::super::ledger::Enrolment;
use super::super::{Sound, World, expect};
use super::{Domain, Object};
use crate::command::{Command, EnrollComputer};
use crate::id::{PoolId, ServerId, ServerKey};
use crate::ports::ComputerRef;
use crate::row::{Row, RowKey};
use crate::server::PhaseKind;

impl World {
    // --- commands, when they are let go ---

    /// I-06 and I-07: an enrolment is written before it leaves. Answers whether it is a server's first one.
    pub(in super::super) fn judge_enrolment(
        &mut self,
        index: usize,
        command: &Command,
        enroll: &EnrollComputer,
    ) -> Result<bool, super::super::Broken> {
        let id = enroll.server.server;
        let host = &mut self.hosts[index];
        let row = host.store.get(&RowKey::Server(id)).map(|stored| &stored.row);
        let is_written = matches!(row, Some(Row::Server(row)) if row.phase.kind() == PhaseKind::Enrolling);
        expect(is_written, "I-06 an enrolment is written before it leaves", || format!("{id}: {row:?}"))?;
        let Some(domain) = self.sky.domains.iter().position(|domain| locked(domain).name == enroll.directory) else {
            return Ok(false);
        };
        host.ledger.enrol_until.insert(command.id, self.now + command.timeout);
        let is_first = !host.ledger.enrolments.contains_key(&id);
        host.ledger.enrolments.entry(id).or_insert(Enrolment { domain, password: None, made: false });
        Ok(is_first)
    }

    /// I-21: no machine is asked for before its object is there.
    pub(in super::super) fn judge_create_joins(&self, index: usize, id: ServerId) -> Sound {
        let made = self.hosts[index].ledger.enrolments.get(&id).is_some_and(|enrolment| enrolment.made);
        expect(made, "I-21 no machine before its computer object", || format!("{id}"))
    }

    // --- calls, when they have reached their domain ---

    /// Tells domains how long a command that reaches them now is waited for.
    pub(in super::super) fn domains_will_act(&mut self, index: usize, command: &Command) {
        if let Some(given_up_at) = self.hosts[index].ledger.enrol_until.remove(&command.id) {
            self.sky.domains.iter().for_each(|domain| {
                let mut domain = locked(domain);
                domain.reach(self.now);
                domain.given_up_at = given_up_at;
            });
        }
    }

    pub(in super::super) fn domains_have_acted(&mut self, index: usize) -> Sound {
        self.strikes_of_domains();
        for number in 0..self.sky.domains.len() {
            let noted = core::mem::take(&mut locked(&self.sky.domains[number]).noted);
            for (server, password) in noted.asked {
                self.judge_password(index, server, password)?;
            }
            for object in noted.made {
                self.judge_made(number, &object)?;
            }
            for object in noted.removals {
                self.judge_removal(index, number, &object)?;
            }
            for object in noted.stuck {
                self.is_stuck(number, object);
            }
        }
        Ok(())
    }

    /// What was on its way to domains gets there, also where nobody calls them any more.
    pub(in super::super) fn domains_catch_up(&mut self) -> Sound {
        for number in 0..self.sky.domains.len() {
            let made = {
                let mut domain = locked(&self.sky.domains[number]);
                domain.reach(self.now);
                core::mem::take(&mut domain.noted.made)
            };
            for object in made {
                self.judge_made(number, &object)?;
            }
        }
        Ok(())
    }

    /// I-07 and I-26: a request is the same every time, and no two servers have one password.
    fn judge_password(&mut self, index: usize, server: ServerKey, password: String) -> Sound {
        let of_others = self.hosts.iter().flat_map(|host| {
            let all = host.ledger.enrolments.iter();
            all.filter(move |(id, _)| (host.id, **id) != (server.pool, server.server))
        });
        let mut same = of_others.filter(|(_, enrolment)| enrolment.password.as_ref() == Some(&password));
        let other = same.next().map(|(id, _)| *id);
        expect(other.is_none(), "I-26 a password is one server's alone", || format!("{server} and {other:?}"))?;
        let Some(known) = self.hosts[index].ledger.enrolments.get_mut(&server.server) else { return Ok(()) };
        let before = known.password.get_or_insert_with(|| password.clone());
        expect(*before == password, "I-07 an enrolment is the same every time", || format!("{server}"))
    }

    fn judge_made(&mut self, number: usize, reference: &ComputerRef) -> Sound {
        let domain = locked(&self.sky.domains[number]);
        let Some(object) = domain.forest.get(reference) else { return Ok(()) };
        let Some((pool, id)) = server_of(object) else { return Ok(()) };
        let Some(host) = self.hosts.iter_mut().find(|host| host.id == pool) else { return Ok(()) };
        let Some(enrolment) = host.ledger.enrolments.get_mut(&id) else { return Ok(()) };
        enrolment.made = true;
        // Its row was given up as absent while the request could still have its effect.
        let early = !object.beyond && !host.ledger.phases.contains_key(&id);
        expect(!early, "I-23 absence is not concluded while an enrolment is under way", || {
            format!("{id} was gone before {object:?} was made")
        })
    }

    /// I-13 and I-21: what a removal that has reached its domain may be for.
    fn judge_removal(&mut self, index: usize, number: usize, reference: &ComputerRef) -> Sound {
        let domain = locked(&self.sky.domains[number]);
        let Some(object) = domain.forest.get(reference) else { return Ok(()) };
        let host = &self.hosts[index];
        let owner = server_of(object);
        let is_ours = object.is_ours() && owner.is_some_and(|(pool, _)| pool == host.id);
        expect(is_ours, "I-13 nobody else's computer object is touched", || format!("{object:?}"))?;
        let Some((_, id)) = owner else { return Ok(()) };
        let row = host.pool.as_ref().and_then(|pool| pool.server(id));
        let is_known = row.is_some_and(|row| row.computer.as_ref() == Some(reference));
        let phase = row.map(|row| row.phase.kind());
        // What an earlier process has asked for may get there late, but its row was on its way out by then.
        let goes = phase.is_none_or(|phase| phase == PhaseKind::Unenrolling);
        expect(!is_known || goes, "I-21 no object is removed before its machine", || format!("{id} {phase:?}"))?;
        let serves = matches!(phase, Some(PhaseKind::Ready | PhaseKind::Draining));
        // A machine may have joined with a second object of its mark as well; it lives by the one that its row knows,
        // if no other hand has removed that.
        let own = row.and_then(|row| domain.forest.get(row.computer.as_ref()?));
        let lives_by_it = object.joined_at.is_some() && own.is_some_and(|own| own.joined_at.is_none());
        expect(!serves || !lives_by_it, "I-21 no object is removed under a machine in use", || {
            format!("{id} {phase:?}: {object:?}, and its own is {own:?}")
        })?;
        if is_known && goes {
            let left = self.machine_left(index, id);
            expect(left.is_none(), "I-21 no object is removed before its machine", || {
                format!("{id}, whose machine is there: {}", left.unwrap_or_default())
            })?;
        }
        Ok(())
    }

    // --- events ---

    /// I-20 and I-21: a server that is gone has left no object that nobody knows of.
    pub(in super::super) fn judge_objects_gone(&mut self, index: usize, id: ServerId, why: Option<&str>) -> Sound {
        let host = &mut self.hosts[index];
        let Some(number) = host.ledger.enrolments.get(&id).map(|enrolment| enrolment.domain) else { return Ok(()) };
        host.ledger.left_domain_at.insert(number, self.now);
        let domain = locked(&self.sky.domains[number]);
        let key = ServerKey { pool: host.id, server: id };
        let is_known = |object: &Object| {
            let mut orphans = host.pool.iter().flat_map(|pool| pool.orphan_computers());
            orphans.any(|(_, computer)| *computer == object.reference)
        };
        let left = domain.forest.live_of(&key).find(|object| !object.beyond && !is_known(object));
        expect(left.is_none(), "I-21 a server that is gone has left no computer object", || {
            format!("{id} gone ({why:?}), and there is {left:?}")
        })
    }

    /// I-24: what is ready has joined.
    pub(in super::super) fn judge_joined(&self, index: usize, id: ServerId) -> Sound {
        let host = &self.hosts[index];
        let Some(number) = host.ledger.enrolments.get(&id).map(|enrolment| enrolment.domain) else { return Ok(()) };
        let reference = host.pool.as_ref().and_then(|pool| pool.server(id)?.computer.clone());
        let domain = locked(&self.sky.domains[number]);
        let object = reference.as_ref().and_then(|reference| domain.forest.get(reference));
        expect(object.is_none_or(|object| object.joined_at.is_some()), "I-24 ready means joined", || {
            format!("{id}: {object:?}")
        })
    }

    // --- the end of trouble ---

    /// I-21: each object is a server's, and each server that has joined has its own.
    pub(in super::super) fn expect_objects_at_rest(&self, host: &Host) -> Sound {
        let Some(pool) = &host.pool else { return Ok(()) };
        let rows: BTreeMap<_, _> =
            pool.servers().filter_map(|server| Some((server.computer.clone()?, server.id))).collect();
        for (number, domain) in self.sky.domains.iter().enumerate() {
            let domain = locked(domain);
            let unknown = domain.left_of(host, number, |object| rows.contains_key(&object.reference));
            expect(unknown.is_empty(), "I-21 as many computer objects as servers", || format!("{unknown:#?}"))?;
            let of_domain =
                |id: &ServerId| host.ledger.enrolments.get(id).is_some_and(|enrolment| enrolment.domain == number);
            for (reference, id) in rows.iter().filter(|(_, id)| of_domain(id)) {
                let is_there = domain.forest.get(reference).is_some_and(Object::exists);
                expect(
                    is_there || domain.meddled.contains(reference),
                    "I-21 each server has its computer object",
                    || format!("{id}: {reference}"),
                )?;
            }
        }
        self.expect_no_secrets(host)
    }

    /// I-20: no object of ours is left anywhere.
    pub(in super::super) fn expect_no_objects_left(&self, host: &Host) -> Sound {
        for (number, domain) in self.sky.domains.iter().enumerate() {
            let domain = locked(domain);
            let left = domain.left_of(host, number, |_| false);
            expect(left.is_empty(), "I-20 no computer object is left", || format!("{left:#?}"))?;
        }
        self.expect_no_secrets(host)
    }

    /// I-26: no row holds a password.
    fn expect_no_secrets(&self, host: &Host) -> Sound {
        let passwords = || host.ledger.enrolments.values().filter_map(|enrolment| enrolment.password.as_ref());
        if passwords().next().is_none() {
            return Ok(());
        }
        for row in host.store.values().map(|stored| &stored.row) {
            let text = serde_json::to_string(row).unwrap_or_default();
            let held = passwords().find(|password| text.contains(password.as_str()));
            expect(held.is_none(), "I-26 no row holds a password", || format!("{}: {text}", row.key()))?;
        }
        Ok(())
    }
}

impl Domain {
    /// The objects of a pool that are there and should not be.
    fn left_of(&self, host: &Host, number: usize, is_known: impl Fn(&Object) -> bool) -> Vec<&Object> {
        let of_pool = |object: &&Object| server_of(object).is_some_and(|(pool, _)| pool == host.id);
        let left = self.forest.live().filter(of_pool).filter(|object| !is_known(object));
        left.filter(|object| !self.came_after_all(host, number, object)).collect()
    }

    /// Whether an object for which nobody answers came into sight when nothing of the pool had been shown any more after its
    /// last server had left this domain: it is found when the pool is restored or uses the domain again, and not before.
    fn came_after_all(&self, host: &Host, number: usize, object: &Object) -> bool {
        let is_used = host
            .pool
            .iter()
            .flat_map(|pool| pool.configs())
            .any(|spec| spec.domain_join.as_ref().is_some_and(|join| join.directory == self.name));
        let left_at = host.ledger.left_domain_at.get(&number).copied().unwrap_or_default();
        let cleared_at = self.cleared_at.get(&host.id).copied().unwrap_or_default();
        let seen_by_all_at = object.made.iter().max().copied().unwrap_or_default();
        object.late && !is_used && cleared_at > left_at && seen_by_all_at > cleared_at
    }
}

/// Whose object it is, if it bears our mark.
fn server_of(object: &Object) -> Option<(PoolId, ServerId)> {
    let marker = object.marker.as_ref().filter(|marker| marker.deployment == DEPLOYMENT)?;
    let key = ServerKey::from_uuid(marker.pool, &marker.server)?;
    Some((key.pool, key.server))
}
