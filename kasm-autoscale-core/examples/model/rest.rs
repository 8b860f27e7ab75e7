//! What tells states apart, and what each comes to when nothing more goes wrong.

use kasm_autoscale_core::id::{ConfigName, ServerId};
use kasm_autoscale_core::report::Decision;
use kasm_autoscale_core::server::PhaseKind;
use kasm_autoscale_core::testing::view::{Lens, view};
use kasm_autoscale_core::time::Timestamp;

use super::node::{Act, Node};
use super::plans::{Budget, GRAIN_MILLIS, Plan};

impl Node {
    /// Puts what has no order into one, and takes the digest by which states are told apart.
    pub(crate) fn settle(&mut self) {
        // Servers stand in the order of their slots, by which they are picked; their serials only say who came first.
        let mut slots: Vec<(u32, u64)> = self.pool.servers().map(|server| (server.slot, server.id.serial())).collect();
        slots.sort_unstable();
        let mut others: Vec<u64> = Vec::new();
        others.extend(self.truth.machines.iter().map(|machine| machine.serial));
        others.extend(self.truth.objects.iter().map(|(serial, ..)| *serial));
        others.extend(self.truth.ghosts.iter().filter_map(|ghost| ghost.call.serial()));
        others.extend(self.flights.iter().filter_map(|flight| flight.call.serial()));
        others.sort_unstable();
        let mut places: Vec<u64> = slots.iter().map(|(_, serial)| *serial).collect();
        for serial in others {
            if !places.contains(&serial) {
                places.push(serial);
            }
        }
        let place = |serial: u64| places.iter().position(|known| *known == serial).map_or(99, |at| at as u64);
        // Calls under way stand in no order: answers come as they like.
        self.flights.sort_by_key(|flight| (flight.call.numbers(place), flight.slow, flight.sent_at));
        self.truth.ghosts.sort_by_key(|ghost| (ghost.call.numbers(place), ghost.until));
        self.truth.machines.sort_by_key(|machine| place(machine.serial));
        self.truth.objects.sort_by_key(|(serial, ..)| place(*serial));
        self.harmed.sort_by_key(|serial| place(*serial));
        self.digest = self.digested(&places);
    }

    fn digested(&self, places: &[u64]) -> u64 {
        let place = |serial: u64| places.iter().position(|known| *known == serial).map_or(99, |at| at as u64);
        let mut digest = 0x9e37_79b9_7f4a_7c15_u64;
        let mut put = |number: u64| {
            digest = (digest ^ number).wrapping_mul(0x2545_f491_4f6c_dd1d);
            digest ^= digest >> 29;
        };
        let command = |id| self.flights.iter().position(|flight| flight.id == id).map(|at| at as u64);
        let thing = |name: &str| name.rsplit('-').next().and_then(|text| text.parse().ok()).map_or(98, &place);
        let server = |id: ServerId| place(id.serial());
        let lens = Lens { grain: GRAIN_MILLIS, past: 3, future: 40, server: &server, thing: &thing, command: &command };
        view(&self.pool, &lens, &mut put);
        for flight in &self.flights {
            put(u64::from(flight.slow));
            flight.call.numbers(place).into_iter().for_each(&mut put);
        }
        // A hundred is now.
        let age = |at: Timestamp| 100 + self.now.as_millis() / GRAIN_MILLIS - at.as_millis() / GRAIN_MILLIS;
        for machine in &self.truth.machines {
            put(2_000 + place(machine.serial));
            put(u64::from(machine.stopped) << 8 | age(machine.born).min(102));
        }
        for (serial, _, born) in &self.truth.objects {
            put(3_000 + place(*serial));
            put(age(*born).min(102));
        }
        for ghost in &self.truth.ghosts {
            ghost.call.numbers(place).into_iter().for_each(&mut put);
            put(age(ghost.until));
        }
        for serial in &self.harmed {
            put(4_000 + place(*serial));
        }
        let Budget { crashes, lost, mishaps, wishes } = self.budget;
        put(u64::from(u32::from_be_bytes([crashes, lost, mishaps, wishes])));
        put(self.broken.map_or(0, |broken| 1 + broken as u64));
        digest
    }

    // --- what it comes to when nothing more goes wrong ---

    /// The next thing that happens when nothing goes wrong and nobody wants anything. `None`: nothing ever will.
    pub(crate) fn untroubled(&self) -> Option<Act> {
        match self.flights.first() {
            Some(_) => Some(Act::Answer(0)),
            None => self.wake_at.map(|_| Act::Wake),
        }
    }

    pub(crate) fn happens(&mut self, plan: &Plan, act: Act) {
        self.happen(plan, act);
        self.settle();
    }

    /// Whether every config has what it wants, and nothing is there that is not wanted.
    pub(crate) fn has_reached_its_goal(&self) -> bool {
        let quiet = self.flights.iter().all(|flight| !flight.call.changes());
        let at_rest = self.pool.servers().all(|server| server.phase.kind() == PhaseKind::Ready && server.sessions == 0);
        if !quiet || !at_rest || self.open().next().is_some() {
            return false;
        }
        let runs = |id: ServerId| self.truth.machine(id.serial()).is_some_and(|machine| !machine.stopped);
        if !self.pool.servers().all(|server| runs(server.id))
            || self.truth.machines.len() != self.pool.servers().count()
        {
            return false;
        }
        let joined = || self.pool.servers().filter(|server| server.computer.is_some());
        if !joined().all(|server| self.truth.has_object(server.id.serial()))
            || self.truth.objects.len() != joined().count()
        {
            return false;
        }
        let report = self.pool.report();
        report.orphans.is_empty()
            && report.orphan_computers.is_empty()
            && report.configs.iter().all(|known| {
                let minimum = self.minimum(&known.config);
                matches!(known.decision, Decision::Steady { .. } | Decision::Empty) && known.supply.free >= minimum
            })
    }

    fn minimum(&self, name: &ConfigName) -> u32 {
        self.pool.config(name).filter(|spec| spec.enabled).map_or(0, |spec| spec.minimum_available_sessions)
    }
}
