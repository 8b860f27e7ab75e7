//! The truth about a simulated cloud, for checkers: never delayed, never wrong.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::{CloudSettings, Fault, SimCloud, SimMachine, number_of};
use crate::id::ServerKey;
use crate::ports::MachineRef;
use crate::time::Timestamp;

/// The truth, for checkers.
impl<E> SimCloud<E> {
    /// How the cloud behaves.
    pub fn settings(&self) -> &CloudSettings {
        &self.settings
    }

    /// How the cloud behaves from now on. Machines that are there keep the times they were given.
    pub fn settings_mut(&mut self) -> &mut CloudSettings {
        &mut self.settings
    }

    /// Every machine that ever was and has not been [forgotten](Self::forget), the eldest first; foreign ones included.
    pub fn machines(&self) -> impl Iterator<Item = &SimMachine> {
        self.machines.values()
    }

    /// The machines that exist now, foreign ones included, the eldest first.
    pub fn live(&self, now: Timestamp) -> impl Iterator<Item = &SimMachine> {
        let current = self.current.iter().map(|number| &self.machines[number]);
        current.filter(move |machine| machine.exists(now))
    }

    /// How many machines of ours exist now, in whatever state.
    pub fn live_count(&self, now: Timestamp) -> usize {
        self.live(now).filter(|machine| machine.is_ours()).count()
    }

    /// How many dependents of machines of ours exist now.
    pub fn dependents_count(&self, now: Timestamp) -> u64 {
        self.live(now).filter(|machine| machine.is_ours()).map(|machine| u64::from(machine.dependents)).sum()
    }

    /// How many machines creates have made or will have made, ever.
    pub fn created_total(&self) -> u64 {
        self.created
    }

    /// How many calls have been made, refused ones included.
    pub fn calls_total(&self) -> u64 {
        self.calls
    }

    /// How often a fault has struck.
    pub fn hits(&self, fault: Fault) -> u64 {
        self.hits.get(&fault).copied().unwrap_or(0)
    }

    /// The servers, by [`ServerKey::uuid`], that have more than one machine now, whatever their marks say.
    pub fn duplicates(&self, now: Timestamp) -> Vec<String> {
        let mut counts: BTreeMap<ServerKey, u32> = BTreeMap::new();
        for server in self.live(now).filter_map(|machine| machine.server) {
            *counts.entry(server).or_default() += 1;
        }
        counts.iter().filter(|(_, count)| **count > 1).map(|(server, _)| server.uuid()).collect()
    }

    /// The machine of this reference, whatever has become of it.
    pub fn machine(&self, reference: &MachineRef) -> Option<&SimMachine> {
        self.machines.get(&number_of(reference)?)
    }

    /// The machines that carry the mark of this server, whatever has become of them, the eldest first.
    pub fn machines_of(&self, server_uuid: &str) -> impl Iterator<Item = &SimMachine> {
        self.by_server.get(server_uuid).into_iter().flatten().map(|number| &self.machines[number])
    }

    /// The next instant after `now` at which something may look different, if nobody does anything. It may be one at which
    /// something would have changed that has been overtaken.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let after = now.max(self.latest) + Duration::from_millis(1);
        self.agenda.range((after, 0)..).next().map(|(at, _)| *at)
    }

    /// Drops what is remembered of machines that were hidden before this instant, their tokens too: from then on a create
    /// with such a token makes a new machine. For hosts that run for long; a checker wants it all.
    pub fn forget(&mut self, before: Timestamp) {
        let gone = self.machines.iter().filter(|(_, machine)| machine.hidden_at.is_some_and(|at| at < before));
        for number in gone.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.unmark(number);
            self.current.remove(&number);
            let token = self.machines.remove(&number).and_then(|machine| machine.token);
            if let Some(token) = token.filter(|token| self.by_token.get(token) == Some(&number)) {
                self.by_token.remove(&token);
            }
        }
    }

    pub(super) fn unmark(&mut self, number: u64) {
        let Some(marker) = self.machines.get_mut(&number).and_then(|machine| machine.marker.take()) else { return };
        if let Some(numbers) = self.by_server.get_mut(&marker.server) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_server.remove(&marker.server);
            }
        }
    }
}
