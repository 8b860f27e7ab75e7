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
use crate::server::Server;
use crate::state::{KnownDirectory, Orphan, State, Subject};
use crate::time::Timestamp;

impl State {
    /// The directory a config joins and that nobody has introduced.
    pub(crate) fn directory_missing(&self, spec: &ConfigSpec) -> Option<DirectoryName> {
        let name = &spec.domain_join.as_ref()?.directory;
        let known = self.directories.get(name).is_some_and(|known| known.facts.is_some());
        (!known).then(|| name.clone())
    }

    /// Whether there are computer objects of this pool in a directory or are to be.
    fn is_directory_used(&self, name: &DirectoryName) -> bool {
        let mut editions = self.configs.values().flat_map(|config| config.editions.values());
        editions.any(|edition| {
            let joins = edition.spec.domain_join.as_ref().is_some_and(|join| join.directory == *name);
            joins && (edition.servers > 0 || edition.spec.enabled)
        })
    }

    /// The directories in which there are objects of this pool, or are to be, or may have been left.
    fn listed_directories(&self) -> impl Iterator<Item = (&DirectoryName, &KnownDirectory)> {
        let doubtful = |known: &KnownDirectory| !known.clear && !planted!("unused-directories-forgotten");
        let known = self.directories.iter().filter(|(_, known)| known.facts.is_some());
        known.filter(move |(name, known)| doubtful(known) || self.is_directory_used(name))
    }

    /// Lists the directories that are due: seldom, for servers look after their own objects.
    pub(crate) fn list_directories(&mut self) {
        if self.directories.is_empty() {
            return;
        }
        self.note_use_of_directories();
        let now = self.now;
        let due = |known: &KnownDirectory| known.listing.map_or(known.list_at, |listing| listing.until) <= now;
        let due = self.listed_directories().filter(|(_, known)| due(known)).map(|(name, _)| name.clone());
        for name in due.collect::<Vec<_>>() {
            if let Some(listing) = self.directories.get(&name).and_then(|known| known.listing) {
                // The host has forgotten it.
                self.finished(listing.command, Outcome::Lost);
            }
            if self.directories.get(&name).is_some_and(|known| known.list_at <= now) {
                let subject = Subject::ComputerListing(name.clone());
                let listing = self.send(subject, Action::ListComputers { directory: name.clone() });
                self.directories.entry(name).or_default().listing = Some(listing);
            }
        }
    }

    fn note_use_of_directories(&mut self) {
        let (now, mut directories) = (self.now, core::mem::take(&mut self.directories));
        for (name, known) in &mut directories {
            if self.is_directory_used(name) {
                (known.unused_since, known.clear, known.was_used) = (None, false, true);
            } else if known.unused_since.is_none() {
                known.unused_since = Some(now);
                known.list_at = known.list_at.min(now + known.visibility_lag());
            }
        }
        self.directories = directories;
    }

    pub(crate) fn next_computer_listing(&self) -> Option<Timestamp> {
        let next = self.listed_directories();
        next.map(|(_, known)| known.listing.map_or(known.list_at, |listing| listing.until)).min()
    }

    /// A listing of computer objects that began at `began` has come in, or has failed.
    pub(crate) fn computers_outcome(&mut self, name: &DirectoryName, began: Timestamp, outcome: Outcome) {
        let now = self.now;
        let Some(known) = self.directories.get_mut(name) else { return };
        known.listing = None;
        let idle = known.facts.as_ref().map_or(Duration::from_secs(300), |facts| facts.poll_idle);
        let Outcome::ComputersListed(Ok(mut listing)) = outcome else {
            let kind = outcome.directory_error().map_or(DirectoryErrorKind::Transient, |error| error.kind);
            known.failures = known.failures.saturating_add(1);
            known.list_at = now + directory_wait(kind, known.failures);
            return;
        };
        listing.complete |= planted!("partial-computer-list-is-complete");
        known.failures = 0;
        known.list_at = now + idle;
        self.computers_seen(name, began, &listing);
    }

    fn computers_seen(&mut self, name: &DirectoryName, began: Timestamp, listing: &ComputerListing) {
        let seen: BTreeSet<&ComputerRef> = listing.computers.iter().map(|computer| &computer.reference).collect();
        let mut shows_none = listing.complete;
        // In an order of our own, as machines are.
        let mut computers: Vec<&SeenComputer> = listing.computers.iter().collect();
        computers.sort_by_key(|computer| &computer.reference);
        for computer in computers {
            if !self.is_of_pool(computer) {
                continue;
            }
            shows_none = false;
            match self.server_of(name, computer).map(|server| (server.id, server.computer.as_ref())) {
                Some((_, Some(known))) if *known == computer.reference => {}
                // It will find its object by the mark; one that is to go may as well be shown it.
                Some((id, None)) => self.computer_shown(id, &computer.reference),
                // No row knows it, or the row knows another one.
                _ => self.orphan_computer_seen(name, computer, listing.complete),
            }
        }
        if listing.complete
            && let Some(known) = self.directories.get_mut(name)
        {
            known.orphans.retain(|computer, _| seen.contains(computer));
            let lag = known.visibility_lag();
            known.clear |= shows_none && known.unused_since.is_some_and(|since| since + lag <= began);
        }
    }

    fn is_of_pool(&self, computer: &SeenComputer) -> bool {
        let marker = &computer.marker;
        let is_ours = marker.deployment == self.row.spec.deployment || planted!("foreign-object-believed");
        is_ours && marker.pool == self.row.spec.id
    }

    /// The server whose mark a computer object of this directory bears, if it is one that has its object there.
    fn server_of(&self, name: &DirectoryName, computer: &SeenComputer) -> Option<&Server> {
        let key = ServerKey::from_uuid(computer.marker.pool, &computer.marker.server)?;
        let server = self.servers.get(&key.server)?;
        let there = self.born_with(server).domain_join.as_ref().is_some_and(|join| join.directory == *name);
        there.then_some(server)
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
