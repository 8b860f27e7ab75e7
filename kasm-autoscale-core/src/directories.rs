//! Listings of computer objects: those that bear the pool's mark and that no row knows are removed after a second look.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use crate::backoff::directory_wait;
use crate::command::{Action, Outcome};
use crate::config::ConfigSpec;
use crate::id::{ConfigId, DirectoryName, ServerKey};
use crate::listings::SIGHTINGS;
use crate::ports::{ComputerListing, ComputerRef, DirectoryErrorKind, SeenComputer};
use crate::report::What;
use crate::state::{Orphan, State, Subject};
use crate::time::Timestamp;

impl State {
    /// The directory a config joins and that nobody has introduced.
    pub(crate) fn directory_missing(&self, spec: &ConfigSpec) -> Option<DirectoryName> {
        let name = &spec.domain_join.as_ref()?.directory;
        let known = self.directories.get(name).is_some_and(|known| known.facts.is_some());
        (!known).then(|| name.clone())
    }

    /// The directories in which there are computer objects of this pool or are to be.
    fn listed_directories(&self) -> BTreeSet<DirectoryName> {
        let editions = self.configs.values().flat_map(|config| config.editions.values());
        let used = editions.filter(|edition| edition.servers > 0 || edition.spec.enabled);
        used.filter_map(|edition| Some(edition.spec.domain_join.as_ref()?.directory.clone())).collect()
    }

    /// Lists the directories that are due: seldom, for servers look after their own objects.
    pub(crate) fn list_directories(&mut self) {
        for name in self.listed_directories() {
            let Some(known) = self.directories.get(&name).filter(|known| known.facts.is_some()) else { continue };
            match known.listing {
                Some(listing) if listing.until > self.now => continue,
                // The host has forgotten it.
                Some(listing) => self.finished(listing.command, Outcome::Lost),
                None => {}
            }
            if self.directories.get(&name).is_some_and(|known| known.list_at <= self.now) {
                let subject = Subject::ComputerListing(name.clone());
                let listing = self.send(subject, Action::ListComputers { directory: name.clone() });
                self.directories.entry(name).or_default().listing = Some(listing);
            }
        }
    }

    pub(crate) fn next_computer_listing(&self) -> Option<Timestamp> {
        let listed = self.listed_directories();
        let known = listed.iter().filter_map(|name| self.directories.get(name));
        let next = known.filter(|known| known.facts.is_some());
        next.map(|known| known.listing.map_or(known.list_at, |listing| listing.until)).min()
    }

    /// A listing of computer objects has come in, or has failed.
    pub(crate) fn computers_outcome(&mut self, name: &DirectoryName, outcome: Outcome) {
        let now = self.now;
        let Some(known) = self.directories.get_mut(name) else { return };
        known.listing = None;
        let idle = known.facts.as_ref().map_or(Duration::from_secs(300), |facts| facts.poll_idle);
        let Outcome::ComputersListed(Ok(listing)) = outcome else {
            let kind = outcome.directory_error().map_or(DirectoryErrorKind::Transient, |error| error.kind);
            known.failures = known.failures.saturating_add(1);
            known.list_at = now + directory_wait(kind, known.failures);
            return;
        };
        known.failures = 0;
        known.list_at = now + idle;
        self.computers_seen(name, &listing);
    }

    fn computers_seen(&mut self, name: &DirectoryName, listing: &ComputerListing) {
        let seen: BTreeSet<&ComputerRef> = listing.computers.iter().map(|computer| &computer.reference).collect();
        for computer in &listing.computers {
            if self.is_orphan(name, computer) {
                self.orphan_computer_seen(name, computer, listing.complete);
            }
        }
        if listing.complete
            && let Some(known) = self.directories.get_mut(name)
        {
            known.orphans.retain(|computer, _| seen.contains(computer));
        }
    }

    /// Whether a computer object is of this pool and no row knows it, or its row knows another one.
    fn is_orphan(&self, name: &DirectoryName, computer: &SeenComputer) -> bool {
        let marker = &computer.marker;
        if (marker.deployment, marker.pool) != (self.row.spec.deployment, self.row.spec.id) {
            return false;
        }
        let key = ServerKey::from_uuid(marker.pool, &marker.server);
        let Some(server) = key.and_then(|key| self.servers.get(&key.server)) else { return true };
        let there = self.born_with(server).domain_join.as_ref().is_some_and(|join| join.directory == *name);
        // A server that does not know its object yet will find it by its mark.
        !there || server.computer.as_ref().is_some_and(|known| *known != computer.reference)
    }

    fn orphan_computer_seen(&mut self, name: &DirectoryName, computer: &SeenComputer, complete: bool) {
        let Some(known) = self.directories.get_mut(name) else { return };
        let first = !known.orphans.contains_key(&computer.reference);
        let fresh = Orphan { config: computer.marker.config, sightings: 0, busy: None };
        let orphan = known.orphans.entry(computer.reference.clone()).or_insert(fresh);
        orphan.sightings += u32::from(complete);
        if first {
            let (directory, reference) = (name.clone(), computer.reference.clone());
            self.event(What::OrphanComputerSeen { directory, computer: reference, name: computer.name.clone() });
        }
    }

    /// Removes those that were seen often enough.
    pub(crate) fn remove_orphan_computers(&mut self) {
        let now = self.now;
        let ripe = |orphan: &Orphan| {
            let free = orphan.busy.is_none_or(|busy| busy.until <= now);
            orphan.sightings >= SIGHTINGS && free && !self.is_halted(orphan.config)
        };
        let of_directories = self.directories.iter().flat_map(|(name, known)| {
            let of_one = known.orphans.iter().filter(|(_, orphan)| ripe(orphan));
            of_one.map(|(computer, orphan)| (name.clone(), computer.clone(), orphan.config))
        });
        let all: Vec<(DirectoryName, ComputerRef, ConfigId)> = of_directories.collect();
        for (directory, computer, config) in all {
            let recursive = self.removes_orphans_recursively(config, &directory);
            let subject = Subject::OrphanComputer(directory.clone(), computer.clone());
            let action = Action::Unenroll { directory: directory.clone(), computer: computer.clone(), recursive };
            let busy = self.send(subject, action);
            if let Some(orphan) =
                self.directories.get_mut(&directory).and_then(|known| known.orphans.get_mut(&computer))
            {
                orphan.busy = Some(busy);
            }
            self.event(What::OrphanComputerRemoved { directory, computer });
        }
    }

    fn removes_orphans_recursively(&self, config: ConfigId, directory: &DirectoryName) -> bool {
        let join = self.configs.get(&config).and_then(|config| config.spec().domain_join.as_ref());
        join.is_some_and(|join| join.directory == *directory && join.recursive_cleanup)
    }

    /// The removal of an orphan has been answered.
    pub(crate) fn orphan_computer_outcome(&mut self, name: &DirectoryName, computer: &ComputerRef, outcome: &Outcome) {
        let Some(known) = self.directories.get_mut(name) else { return };
        if let Outcome::Unenrolled(Ok(())) = outcome {
            known.orphans.remove(computer);
        } else if let Some(orphan) = known.orphans.get_mut(computer) {
            // Seen twice more, it is removed again.
            orphan.busy = None;
            orphan.sightings = 0;
        }
    }
}
