//! The plan: for every config, how many servers are to be made, taken back or given up, and why.
//!
//! It depends on the picture and on the time alone, never on which fact arrived.

use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::num::NonZeroU32;

use crate::capacity::{Limits, allowed, queue_share, servers_for, short, surplus_servers};
use crate::command::{Action, Outcome};
use crate::fallback::Shares;
use crate::id::{ConfigId, ProviderName, ServerId};
use crate::report::{BackoffKind, Decision, Supply, Waiting, What};
use crate::row::{MassLoss, RowKey, Surplus};
use crate::server::{CreateCall, DrainReason, Phase, Server};
use crate::state::{Config, Provider, State, Subject};
use crate::time::Timestamp;

/// Which growth counts for those who wait.
#[derive(Clone, Copy)]
enum Growth {
    /// None: what there is, what is coming, and what can be taken back.
    None,
    /// That of configs without servers in doubt: these count as coming, and so would be waited for instead.
    Sure,
    /// That of all.
    Any,
}

impl State {
    /// Plans every config, then gives out the listings that are due.
    pub(crate) fn plan(&mut self) {
        self.forget_refusals();
        self.forget_losses();
        let shares = self.shared_out(self.queue_shares());
        self.keep_covering(&shares);
        let ids: Vec<ConfigId> = self.configs.keys().copied().collect();
        for id in ids {
            let (decision, wake_at) = self.plan_config(id, &shares);
            let wake_at = wake_at.or_else(|| self.may_help_at(id, shares.uncovered));
            self.decided(id, decision, wake_at);
        }
        self.forget_empty_configs();
        self.delete_orphans();
        self.list_providers();
        self.remove_orphan_computers();
        self.list_directories();
    }

    /// When a config that backs off, and has nothing to do for itself, could take over some of those who wait for others, or
    /// of the sessions that others promise and cannot make.
    fn may_help_at(&self, id: ConfigId, uncovered: bool) -> Option<Timestamp> {
        let (_, until, _) = self.failing(&self.configs[&id])?;
        (until > self.now && (uncovered || !self.queue.is_empty())).then_some(until)
    }

    fn decided(&mut self, id: ConfigId, decision: Decision, wake_at: Option<Timestamp>) {
        let fallback = self.fallback_of(id);
        let Some(config) = self.configs.get_mut(&id) else { return };
        config.wake_at = wake_at;
        // The first plan of a config that does nothing is news to nobody.
        if config.decision == decision && config.fallback == fallback {
            return;
        }
        config.decision = decision.clone();
        config.fallback.clone_from(&fallback);
        config.decided_at = self.now;
        let name = config.spec().name.clone();
        self.event(What::Decided { config: name, decision, fallback });
    }

    fn plan_config(&mut self, id: ConfigId, shares: &Shares) -> (Decision, Option<Timestamp>) {
        let kept = self.kept_for_others(id).saturating_add(shares.queue.get(&id).copied().unwrap_or(0));
        let Some(config) = self.configs.get_mut(&id) else { return (Decision::Empty, None) };
        let tally = config.tally;
        let on = config.is_on();
        let minimum = config.spec().minimum_available_sessions;
        // What it keeps for others until they have their own is not given up, but it is not made anew either.
        let there = tally.free.saturating_add(tally.coming);
        let wanted = minimum.saturating_add(shares.of(id)).max(minimum.saturating_add(kept).min(there));
        let target = if on { wanted } else { 0 };
        config.target = target;
        if !on {
            self.set_surplus(id, None);
            let left = tally.live();
            return (if left == 0 { Decision::Empty } else { Decision::Emptying { servers: left } }, None);
        }
        let supply = Supply { free: tally.free, coming: tally.coming, target };
        if short(target, tally.free, tally.coming) > 0 {
            self.set_surplus(id, None);
            self.grow(id, supply)
        } else {
            self.shrink(id, supply)
        }
    }

    // --- growing ---

    fn grow(&mut self, id: ConfigId, supply: Supply) -> (Decision, Option<Timestamp>) {
        let taken_back = self.take_back(id, supply);
        let config = &self.configs[&id];
        let missing = short(supply.target, config.tally.free, config.tally.coming);
        let wanted = servers_for(missing, config.spec().max_sessions_per_server);
        let (now_made, held_back) = allowed(wanted.min(self.names_left(config).max(1)), &self.limits(config));
        for _ in 0..now_made {
            self.make_server(id);
        }
        let wake_at = match &held_back {
            Some(Waiting::BackingOff { until, .. } | Waiting::BreakerOpen { until, .. }) => Some(*until),
            _ => None,
        };
        let decision = match (now_made, held_back) {
            (0, _) if taken_back > 0 => Decision::Undrain { servers: taken_back, supply },
            (0, Some(because)) => Decision::Wait { servers: wanted, supply, because },
            (servers, held_back) => Decision::Create { servers, supply, held_back },
        };
        (decision, wake_at)
    }

    /// Takes draining servers back that are still there: quicker and cheaper than new ones.
    fn take_back(&mut self, id: ConfigId, supply: Supply) -> u32 {
        let since = self.now;
        let mut taken_back = 0;
        loop {
            let config = &self.configs[&id];
            if short(supply.target, config.tally.free, config.tally.coming) == 0 {
                return taken_back;
            }
            let Some(server) = config.undoable.first().copied() else { return taken_back };
            self.enter_phase(server, Phase::Ready { since }, Some("needed again".into()));
            taken_back += 1;
        }
    }

    pub(crate) fn limits(&self, config: &Config) -> Limits {
        let spec = config.spec();
        let phases = &config.tally.phases;
        let provider = self.providers.get(&spec.provider).and_then(|provider| provider.capabilities.as_ref());
        let failing = self.failing(config);
        let backing_off = failing.filter(|(_, until, _)| *until > self.now);
        let stop = match (provider, backing_off) {
            _ if let Some(freeze) = &config.memory.freeze => {
                Some(Waiting::Frozen { invariant: freeze.invariant.clone() })
            }
            (None, _) => Some(Waiting::ProviderMissing { provider: spec.provider.clone() }),
            (Some(_), Some((BackoffKind::Boot, until, failures))) => {
                let (failed, of) = match config.memory.fates.failed_of() {
                    // Rows of the time before breakers know only how many tries failed.
                    (0, _) => (failures, failures),
                    known => known,
                };
                Some(Waiting::BreakerOpen { failed, of, until })
            }
            (Some(_), Some((kind, until, failures))) => Some(Waiting::BackingOff { until, kind, failures }),
            _ if let Some(directory) = self.directory_missing(spec) => Some(Waiting::DirectoryMissing { directory }),
            _ if self.names_left(config) == 0 => {
                Some(Waiting::NamesUsedUp { pattern: spec.server_name_pattern.clone() })
            }
            _ => None,
        };
        let tried = |kind| match kind {
            BackoffKind::Directory(_) => phases.enrolling,
            BackoffKind::Provider(_) => phases.making(),
            BackoffKind::Boot => phases.making() + phases.starting,
        };
        Limits {
            live: match config.tally.live() + config.orphans {
                _ if planted!("only-ready-counts-against-the-cap") => phases.ready,
                live if planted!("orphans-not-counted") => live - config.orphans,
                live => live,
            },
            max_servers: spec.max_servers,
            creating: phases.making(),
            creating_max: provider.map_or(0, |provider| provider.creates_in_flight_max),
            trying: failing.map(|(kind, _, failures)| (tried(kind), Waiting::Trying { kind, failures })),
            stop,
        }
    }

    /// How many of the next servers would have a name of this config's pattern.
    fn names_left(&self, config: &Config) -> u32 {
        let next = self.row.next_server;
        let end = config.spec().server_name_pattern.last_serial().saturating_add(1);
        u32::try_from(end.saturating_sub(next)).unwrap_or(u32::MAX)
    }

    /// The failure a config backs off from the longest.
    pub(crate) fn failing(&self, config: &Config) -> Option<(BackoffKind, Timestamp, u32)> {
        let create = config.memory.create.as_ref().map(|(kind, backoff)| (BackoffKind::Provider(*kind), backoff));
        let boot = config.memory.boot.as_ref().map(|backoff| (BackoffKind::Boot, backoff));
        let directory =
            config.memory.directory.as_ref().map(|(kind, backoff)| (BackoffKind::Directory(*kind), backoff));
        let worst = create.into_iter().chain(directory).chain(boot).max_by_key(|(_, backoff)| backoff.until);
        worst.map(|(kind, backoff)| (kind, backoff.until, backoff.failures))
    }

    fn make_server(&mut self, id: ConfigId) {
        let config = &self.configs[&id];
        let deadline = self.now + config.spec().boot_deadline;
        let phase = match config.spec().domain_join {
            Some(_) => Phase::Enrolling { asked: None, tries: 0, ask_at: self.now, deadline },
            None => Phase::Creating { call: CreateCall::Intended, deadline },
        };
        let server = Server {
            id: ServerId::new(self.row.next_server),
            slot: if planted!("slots-taken-twice") { 0 } else { self.slots.first_missing() },
            config: id,
            generation: config.current,
            created_at: self.now,
            machine: None,
            computer: None,
            address: None,
            taken: 0,
            check_in: None,
            phase,
            sessions: 0,
            busy: None,
            absent: 0,
            named_at: Timestamp::default(),
            enrolled_at: Timestamp::default(),
        };
        let what = What::Server {
            server: server.id,
            config: config.spec().name.clone(),
            phase: server.phase.kind(),
            why: None,
        };
        self.row.next_server += 1;
        self.journal.changed.insert(RowKey::Pool);
        self.journal.changed.insert(RowKey::Server(server.id));
        self.insert_server(server);
        self.event(what);
    }

    // --- shrinking ---

    fn shrink(&mut self, id: ConfigId, supply: Supply) -> (Decision, Option<Timestamp>) {
        let config = &self.configs[&id];
        let spec = config.spec().clone();
        // Servers that were born before an edit may be of another size; one that fits is enough to act.
        let size = config.index.smallest_unused().and_then(NonZeroU32::new).unwrap_or(spec.max_sessions_per_server);
        let too_many = surplus_servers(supply.target, supply.free, size, config.tally.unused);
        if too_many == 0 {
            self.set_surplus(id, None);
            return (Decision::Steady { supply }, None);
        }
        let lasting = match config.memory.surplus {
            Some(known) if planted!("least-surplus-forgotten") => Surplus { since: known.since, least: too_many },
            Some(known) => Surplus { since: known.since, least: known.least.min(too_many) },
            None => Surplus { since: self.now, least: too_many },
        };
        let until = lasting.since + spec.downscale_backoff;
        if let Some(freeze) = &config.memory.freeze {
            let invariant = freeze.invariant.clone();
            self.set_surplus(id, Some(lasting));
            return (Decision::SurplusInDoubt { servers: too_many, supply, invariant }, None);
        }
        if let Some(loss) = config.memory.loss.clone().filter(MassLoss::holds) {
            self.set_surplus(id, Some(lasting));
            return (Decision::SurplusFrozen { servers: too_many, supply, loss }, None);
        }
        let observed = self.providers.get(&spec.provider).is_some_and(|provider| provider.observed);
        if self.now < until || !observed {
            self.set_surplus(id, Some(lasting));
            let wake_at = (self.now < until).then_some(until);
            return (Decision::SurplusHeld { servers: too_many, supply, until }, wake_at);
        }
        self.set_surplus(id, None);
        let servers = self.give_up_surplus(id, supply, lasting.least);
        (Decision::Drain { servers, supply }, Some(self.now))
    }

    /// Drains unused servers, at most `count`, and none whose sessions are needed for the target.
    fn give_up_surplus(&mut self, id: ConfigId, supply: Supply, count: u32) -> u32 {
        let (since, why) = (self.now, DrainReason::Surplus);
        let mut drained = 0;
        let more = if planted!("surplus-is-a-server-too-much") { 4 } else { 0 };
        let needless = supply.free.saturating_sub(supply.target) + more;
        for server in self.victims(id, count, needless) {
            self.enter_phase(server, Phase::Draining { since, why }, Some(why.to_string()));
            drained += 1;
        }
        drained
    }

    fn set_surplus(&mut self, id: ConfigId, surplus: Option<Surplus>) {
        let Some(config) = self.configs.get_mut(&id) else { return };
        if config.memory.surplus != surplus {
            config.memory.surplus = surplus;
            self.journal.changed.insert(RowKey::Memory(id));
        }
    }

    // --- the queue ---

    /// Which config makes sessions for those who wait. First those that are coming anyway, or can be taken back, are shared out,
    /// so that nothing is made twice for one who waits; then a config of their own zone grows if it can, else any that can, the lowest
    /// `priority` first; those that wait for servers in doubt, and grow only beyond these, come last. Zones take turns at each
    /// of these, or else one would be given what another is already counting on, and the next plan would be another one.
    /// Those whom nobody can serve now count for the first config, which then says why it does not.
    fn queue_shares(&self) -> BTreeMap<ConfigId, u32> {
        let mut shares = BTreeMap::new();
        let mut left = self.waiting_by_zone.clone();
        for growth in [Growth::None, Growth::Sure, Growth::Any] {
            for far in [false, true] {
                for (zone, rest) in &mut left {
                    for (_, id) in self.by_nearness(zone.as_ref()).into_iter().filter(|(is_far, _)| *is_far == far) {
                        let taken = shares.get(&id).copied().unwrap_or(0);
                        let share = self.room_for(id, taken, *rest, growth);
                        *shares.entry(id).or_default() += share;
                        *rest -= share;
                    }
                }
            }
        }
        for (zone, rest) in left {
            if let Some((_, first)) = self.by_nearness(zone.as_ref()).first() {
                *shares.entry(*first).or_default() += rest;
            }
        }
        shares
    }

    /// How many of `waiting` requests a config can serve, besides its minimum and the `taken` ones it has already: with what
    /// is coming, or with what it may make as well.
    fn room_for(&self, id: ConfigId, taken: u32, waiting: u32, growth: Growth) -> u32 {
        let config = &self.configs[&id];
        let spec = config.spec();
        let limits = self.limits(config);
        let may_grow = match growth {
            Growth::None => false,
            Growth::Sure => config.tally.doubtful == 0,
            Growth::Any => true,
        };
        let mut servers =
            if limits.stop.is_some() || !may_grow { 0 } else { limits.max_servers.saturating_sub(limits.live) };
        if let Some((tried, _)) = limits.trying {
            // Nobody is to wait for a config that keeps failing while another one could serve him.
            servers = servers.min(1_u32.saturating_sub(tried));
        }
        // What drains is taken back before anything is made. A provider that does not answer keeps nobody waiting whom another
        // one could serve.
        let firm = config.tally.firm();
        let draining = self.sessions_of(config, u32::MAX).saturating_sub(firm);
        let minimum = spec.minimum_available_sessions;
        queue_share(waiting, taken, minimum, draining, firm, servers, spec.max_sessions_per_server)
    }

    // --- the rest ---

    fn forget_empty_configs(&mut self) {
        // One whose machines are seen that no row knows still has something to delete.
        let empty = |config: &&Config| config.removed && config.tally.live() == 0 && config.orphans == 0;
        let gone: Vec<ConfigId> = self.configs.values().filter(empty).map(|config| config.id).collect();
        for id in gone {
            if let Some(config) = self.configs.remove(&id) {
                self.journal.changed.extend(config.editions.keys().map(|generation| RowKey::Config(id, *generation)));
                self.journal.changed.insert(RowKey::Memory(id));
                self.event(What::ConfigGone { config: config.spec().name.clone() });
            }
        }
    }

    fn delete_orphans(&mut self) {
        if planted!("orphans-not-deleted") {
            return;
        }
        for (name, machine) in self.orphans_to_delete() {
            let subject = Subject::Orphan(name.clone(), machine.clone());
            let busy = self.send(subject, Action::Delete { provider: name.clone(), machine: machine.clone() });
            if let Some(orphan) = self.providers.get_mut(&name).and_then(|provider| provider.orphans.get_mut(&machine))
            {
                orphan.busy = Some(busy);
            }
            self.event(What::OrphanDeleted { provider: name, machine });
        }
    }

    /// Lists the providers that make servers for this pool: often while something is expected to change there.
    fn list_providers(&mut self) {
        let (now, used) = (self.now, self.used_providers());
        for (name, provider) in &mut self.providers {
            if used.contains_key(name) {
                (provider.unused_since, provider.clear) = (None, false);
            } else {
                provider.unused_since.get_or_insert(now);
            }
        }
        for (name, busy) in self.listed_providers() {
            self.list_provider(name, busy);
        }
    }

    /// The providers where there are machines of this pool, or are to be, or may have been left, and whether any of them is
    /// about to change.
    fn listed_providers(&self) -> BTreeMap<ProviderName, bool> {
        let mut listed = self.used_providers();
        let doubtful = |provider: &Provider| {
            (!provider.orphans.is_empty() || !provider.clear) && !planted!("unused-providers-forgotten")
        };
        for (name, _) in self.providers.iter().filter(|(_, provider)| doubtful(provider)) {
            listed.entry(name.clone()).or_insert(true);
        }
        listed
    }

    /// The providers where there are machines of this pool or are to be, and whether any of them is about to change.
    pub(crate) fn used_providers(&self) -> BTreeMap<ProviderName, bool> {
        let mut used: BTreeMap<ProviderName, bool> = BTreeMap::new();
        for config in self.configs.values() {
            for edition in config.editions.values().filter(|edition| edition.servers > 0 || edition.spec.enabled) {
                *used.entry(edition.spec.provider.clone()).or_default() |= config.tally.watched > 0;
            }
        }
        used
    }

    fn list_provider(&mut self, name: ProviderName, busy: bool) {
        let now = self.now;
        if let Some(listing) = self.providers.get(&name).and_then(|provider| provider.listing) {
            if listing.until > now {
                return;
            }
            // The host has forgotten it.
            self.finished(listing.command, Outcome::Lost);
        }
        let Some(provider) = self.providers.get(&name) else { return };
        let Some(capabilities) = &provider.capabilities else { return };
        // `list_at` is set for the busy pace; an idle provider is left alone for longer.
        let idle_for = if busy || !provider.observed || provider.failures > 0 {
            core::time::Duration::ZERO
        } else {
            capabilities.poll_idle.saturating_sub(capabilities.poll_busy)
        };
        if provider.list_at + idle_for > now {
            return;
        }
        let listing = self.send(Subject::Listing(name.clone()), Action::List { provider: name.clone() });
        if let Some(provider) = self.providers.get_mut(&name) {
            provider.listing = Some(listing);
        }
    }

    /// When time alone will change something.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        let timers = self.timers.first().map(|(at, _)| *at);
        let configs = self.configs.values().filter_map(|config| config.wake_at);
        timers.into_iter().chain(configs).chain(self.next_listing()).chain(self.next_computer_listing()).min()
    }

    fn next_listing(&self) -> Option<Timestamp> {
        let mut next = Vec::new();
        for (name, busy) in self.listed_providers() {
            let Some(provider) = self.providers.get(&name) else { continue };
            let Some(capabilities) = &provider.capabilities else { continue };
            let hurry = busy || !provider.observed || provider.failures > 0;
            let idle_for = if hurry {
                core::time::Duration::ZERO
            } else {
                capabilities.poll_idle.saturating_sub(capabilities.poll_busy)
            };
            next.push(provider.listing.map_or(provider.list_at + idle_for, |listing| listing.until));
        }
        next.into_iter().min()
    }
}
