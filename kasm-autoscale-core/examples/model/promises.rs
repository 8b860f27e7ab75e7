//! A step of the pool, and what must be true of it.

use std::sync::Arc;

use kasm_autoscale_core::id::ServerId;
use kasm_autoscale_core::input::{Answer, Fact, Input};
use kasm_autoscale_core::report::What;
use kasm_autoscale_core::row::Write;
use kasm_autoscale_core::server::PhaseKind;
use kasm_autoscale_core::session::{EndReason, SessionState};

use super::node::{Node, config_at};
use super::plans::Plan;
use super::truth::{Call, Flight};

/// A promise that was broken on the way to a state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Broken {
    /// I-07 a create is sent once.
    CreatedTwice,
    /// I-09 the cap holds.
    Cap,
    /// I-10 nothing is made without need.
    Needless,
    /// I-14 no machine is deleted under a session.
    UnderSession,
    /// I-20, I-21 and I-23 a server is forgotten only when nothing is left of it.
    Forgotten,
    /// I-24 what is ready is there.
    NotThere,
    /// I-31 a session that was promised is kept.
    Promise,
    /// The pool itself has found that something does not hold, and has frozen a config.
    Frozen,
}

impl Node {
    pub(crate) fn step(&mut self, facts: impl IntoIterator<Item = Fact>) {
        self.step_inputs(facts.into_iter().map(Input::from).collect());
    }

    pub(crate) fn step_inputs(&mut self, inputs: Vec<Input>) {
        let before: Vec<u64> = self.pool.servers().map(|server| server.id.serial()).collect();
        let batch = self.pool.step(self.now, inputs);
        for write in batch.writes() {
            match write {
                Write::Put(row) => drop(self.store.insert(row.key(), Arc::new(row.clone()))),
                Write::Delete(key) => drop(self.store.remove(key)),
            }
        }
        let outputs = batch.saved();
        self.wake_at = outputs.wake_at;
        self.changes = 0;
        for command in &outputs.commands {
            let flight = Flight::of(command, self.now);
            self.expect_allowed(&flight);
            self.changes += usize::from(flight.call.changes());
            self.flights.push(flight);
        }
        for (_, answer) in &outputs.answers {
            if let Answer::Session(id) = answer {
                self.promised.push(*id);
            }
        }
        if outputs.events.iter().any(|event| matches!(event.what, What::Frozen { .. })) {
            self.broken = Some(Broken::Frozen);
        }
        self.expect_forgotten_rightly(&before);
        self.expect_there();
        self.expect_promises();
    }

    fn expect_allowed(&mut self, flight: &Flight) {
        match flight.call {
            Call::Create(serial) => {
                if self.asked.contains(&serial) {
                    self.broken = Some(Broken::CreatedTwice);
                }
                self.asked.push(serial);
                let report = self.pool.report();
                let server = self.pool.server(ServerId::new(serial)).expect("a create has a row");
                let born = self.pool.born_with(server);
                let known = report.configs.iter().find(|known| known.config == born.name).expect("its config");
                let supply = known.supply;
                let size = born.max_sessions_per_server.get();
                if born.domain_join.is_none() && supply.free + supply.coming >= supply.target + size {
                    self.broken = Some(Broken::Needless);
                }
                // One that was removed and set again is another one, with a cap of its own.
                let rows = self.pool.servers().filter(|other| other.config == server.config).count();
                if u32::try_from(rows).unwrap_or(u32::MAX) > born.max_servers {
                    self.broken = Some(Broken::Cap);
                }
                if born.domain_join.is_some() && !self.truth.has_object(serial) {
                    self.broken = Some(Broken::NotThere);
                }
            }
            Call::Delete(serial) => {
                let id = ServerId::new(serial);
                if self.pool.sessions().any(|session| session.server() == Some(id)) {
                    self.broken = Some(Broken::UnderSession);
                }
            }
            _ => {}
        }
    }

    /// I-09, as it really is: machines that are there, and those that may yet come.
    pub(crate) fn expect_cap(&mut self, plan: &Plan, config: u32) {
        let max = config_at(plan, config).max_servers;
        let there = self.truth.machines.iter().filter(|machine| machine.config == config).count();
        if u32::try_from(there).unwrap_or(u32::MAX) > max {
            self.broken = Some(Broken::Cap);
        }
    }

    fn expect_forgotten_rightly(&mut self, before: &[u64]) {
        let gone = before.iter().filter(|serial| self.pool.server(ServerId::new(**serial)).is_none());
        for serial in gone {
            // A create is sent once, so nothing may come of it any more. An enrolment may be asked for twice: what the
            // second one makes after all is over is found by listings.
            let creates = |call: Call| call == Call::Create(*serial);
            let may_come = self.truth.ghosts.iter().any(|ghost| creates(ghost.call))
                || self.flights.iter().any(|flight| creates(flight.call));
            if may_come || self.truth.machine(*serial).is_some() || self.truth.has_object(*serial) {
                self.broken = Some(Broken::Forgotten);
            }
        }
        let (pool, truth) = (&self.pool, &self.truth);
        let alive = |serial: &u64| pool.server(ServerId::new(*serial)).is_some() || truth.machine(*serial).is_some();
        self.asked.retain(alive);
        self.harmed.retain(alive);
    }

    fn expect_there(&mut self) {
        for server in self.pool.servers().filter(|server| server.phase.kind() == PhaseKind::Ready) {
            let serial = server.id.serial();
            if self.truth.machine(serial).is_none() && !self.harmed.contains(&serial) {
                self.broken = Some(Broken::NotThere);
            }
        }
    }

    fn expect_promises(&mut self) {
        let (pool, harmed) = (&self.pool, !self.harmed.is_empty());
        let mut broken = false;
        self.promised.retain(|id| match pool.session(*id).map(|session| &session.state) {
            Some(SessionState::Ended { why, .. }) => {
                let by_time = matches!(why, EndReason::KeepaliveExpired | EndReason::QueueExpired);
                broken |= !(by_time || harmed && *why == EndReason::ServerLost);
                false
            }
            Some(_) => true,
            None => {
                broken = true;
                false
            }
        });
        if broken {
            self.broken = Some(Broken::Promise);
        }
    }
}
