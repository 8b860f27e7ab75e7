//! What listings show and what they do not: machines seen, machines missed, and machines that no row knows.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use crate::backoff::retry_wait;
use crate::command::Outcome;
use crate::id::{ConfigId, ProviderName, ServerId, ServerKey};
use crate::ports::{Listing, Machine, MachineRef, MachineState, Progress};
use crate::report::{BackoffKind, What};
use crate::server::{DeleteCall, DeleteReason, Phase, PhaseKind, Server};
use crate::state::{Orphan, Provider, State};
use crate::time::Timestamp;

/// How many complete listings in a row must miss a machine before it counts as lost, and how many must show one that no row
/// knows before it is deleted: one listing alone proves nothing.
pub(crate) const SIGHTINGS: u32 = 2;

impl State {
    /// A listing has come in, or has failed.
    pub(crate) fn listing_outcome(&mut self, name: &ProviderName, began: Timestamp, outcome: Outcome) {
        let (poll_busy, lag) = match self.providers.get_mut(name) {
            Some(provider) => {
                provider.listing = None;
                (provider.poll_busy(), provider.visibility_lag())
            }
            None => return,
        };
        let Outcome::Listed(Ok(listing)) = outcome else {
            let error = if let Outcome::Listed(Err(error)) = &outcome { Some(error) } else { None };
            if let Some(provider) = self.providers.get_mut(name) {
                provider.failures += 1;
                let wait = retry_wait(
                    error.map(|error| error.kind),
                    provider.failures,
                    error.and_then(|error| error.retry_after),
                );
                provider.list_at = self.now + wait.max(poll_busy);
            }
            return;
        };
        let seen = self.observe_all(name, &listing);
        if listing.complete || planted!("partial-list-is-complete") {
            self.conclude_absence(name, began, lag, &seen);
        }
        let is_there = |machine: &Machine| seen.contains(&machine.reference) && machine.state != MachineState::Deleted;
        let shows_none = listing.complete && !listing.machines.iter().any(is_there);
        if let Some(provider) = self.providers.get_mut(name) {
            provider.clear |= shows_none && provider.unused_since.is_some_and(|since| since <= began);
            provider.failures = 0;
            provider.observed |= listing.complete;
            provider.list_at = self.now + poll_busy;
        }
    }

    /// Takes in every machine of ours in a listing; answers with those that were there.
    fn observe_all(&mut self, name: &ProviderName, listing: &Listing) -> BTreeSet<MachineRef> {
        let pool = (self.row.spec.deployment, self.row.spec.id);
        let mut seen = BTreeSet::new();
        // In an order of our own: which of two machines is shown first is chance, and decides nothing.
        let mut machines: Vec<&Machine> = listing.machines.iter().collect();
        machines.sort_by_key(|machine| &machine.reference);
        for machine in machines {
            let Some(marker) = machine.marker.as_ref().filter(|marker| (marker.deployment, marker.pool) == pool) else {
                continue;
            };
            if !seen.insert(machine.reference.clone()) {
                continue;
            }
            let server = ServerKey::from_uuid(pool.1, &marker.server).and_then(|key| self.servers.get(&key.server));
            let ours = server.filter(|server| match &server.machine {
                Some(known) => *known == machine.reference,
                // Whatever bears its mark before its machine is asked for, or after that is proved gone, is not its own.
                None => !matches!(server.phase.kind(), PhaseKind::Enrolling | PhaseKind::Unenrolling),
            });
            match ours.map(|server| server.id) {
                Some(id) => self.observe(id, machine),
                None if matches!(machine.state, MachineState::Deleting | MachineState::Deleted) => {}
                // No row knows it, or the row knows another machine: one too many either way.
                None => self.orphan_seen(name, &machine.reference, marker.config, listing.complete),
            }
        }
        seen
    }

    pub(crate) fn orphan_seen(&mut self, name: &ProviderName, machine: &MachineRef, config: ConfigId, complete: bool) {
        let Some(provider) = self.providers.get_mut(name) else { return };
        let first = !provider.orphans.contains_key(machine);
        let orphan = provider.orphans.entry(machine.clone()).or_insert(Orphan { config, sightings: 0, busy: None });
        orphan.sightings += u32::from(complete);
        if first {
            if let Some(config) = self.configs.get_mut(&config) {
                config.orphans += 1;
            }
            self.event(What::OrphanSeen { provider: name.clone(), machine: machine.clone() });
        }
    }

    /// What a complete listing that began at `began` did not show.
    fn conclude_absence(&mut self, name: &ProviderName, began: Timestamp, lag: Duration, seen: &BTreeSet<MachineRef>) {
        let of_provider = |state: &Self, server: &Server| state.born_with(server).provider == *name;
        let visible = |server: &Server| began >= server.named_at + lag;
        let missing = |server: &Server| server.machine.as_ref().is_some_and(|machine| !seen.contains(machine));
        let absent: Vec<ServerId> = self
            .servers
            .values()
            .filter(|server| missing(server) && visible(server) && of_provider(self, server))
            .map(|server| server.id)
            .collect();
        let doubted = self.judge_losses(name, visible, missing);
        for id in absent {
            let frozen = doubted.contains(&self.servers[&id].config);
            match self.servers[&id].phase {
                _ if frozen => self.note_absence(id),
                Phase::Deleting { call: DeleteCall::Confirm { accepted_at }, .. } if began >= accepted_at => {
                    self.machine_gone(id, None)
                }
                Phase::Starting { .. } | Phase::Ready { .. } | Phase::Draining { .. } => self.count_absence(id),
                _ => {}
            }
        }
        self.forget_orphans(name, |machine| !seen.contains(machine));
    }

    fn note_absence(&mut self, id: ServerId) {
        // Not an edit: it is neither stored nor counted.
        if let Some(server) = self.servers.get_mut(&id) {
            server.absent = server.absent.saturating_add(1);
        }
    }

    fn count_absence(&mut self, id: ServerId) {
        self.note_absence(id);
        if self.servers.get(&id).is_some_and(|server| u32::from(server.absent) >= SIGHTINGS) {
            self.count_as_lost(id);
        }
    }

    /// A server's machine is no longer there.
    pub(crate) fn count_as_lost(&mut self, id: ServerId) {
        let Some(server) = self.servers.get(&id) else { return };
        if server.phase.kind() == PhaseKind::Starting {
            let config = server.config;
            self.fail(config, BackoffKind::Boot, None, "the machine vanished while it started".into());
        }
        self.lose(id, DeleteReason::MachineLost);
    }

    pub(crate) fn forget_orphans(&mut self, name: &ProviderName, gone: impl Fn(&MachineRef) -> bool) {
        let Some(provider) = self.providers.get_mut(name) else { return };
        let configs = &mut self.configs;
        provider.orphans.retain(|machine, orphan| {
            let keep = !gone(machine);
            if let Some(config) = configs.get_mut(&orphan.config).filter(|_| !keep) {
                config.orphans -= 1;
            }
            keep
        });
    }

    /// The deletion of an orphan has been answered.
    pub(crate) fn orphan_outcome(&mut self, name: &ProviderName, machine: &MachineRef, outcome: Outcome) {
        if let Outcome::Progress(Ok(Progress::Done { .. })) = outcome {
            self.forget_orphans(name, |gone| gone == machine);
        } else if let Some(orphan) = self.providers.get_mut(name).and_then(|provider| provider.orphans.get_mut(machine))
        {
            // Seen twice more, it is deleted again.
            orphan.busy = None;
            orphan.sightings = 0;
        }
    }

    /// Orphans that were seen often enough.
    pub(crate) fn orphans_to_delete(&self) -> Vec<(ProviderName, MachineRef)> {
        let ripe = |orphan: &Orphan| {
            let free = orphan.busy.is_none_or(|busy| busy.until <= self.now);
            orphan.sightings >= SIGHTINGS && free && !self.is_frozen(orphan.config) && !self.is_halted(orphan.config)
        };
        let of = |(name, provider): (&ProviderName, &Provider)| -> Vec<_> {
            provider
                .orphans
                .iter()
                .filter(|(_, orphan)| ripe(orphan))
                .map(|(machine, _)| (name.clone(), machine.clone()))
                .collect()
        };
        self.providers.iter().flat_map(of).collect()
    }
}
