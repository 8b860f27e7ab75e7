//! What a pool remembers of failures: refusals, shortages, and servers that did not become ready. `backoff.rs` says what each
//! of them leads to.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::backoff::{Backoff, Fates};
use crate::config::ConfigSpec;
use crate::id::{ConfigId, ServerId};
use crate::ports::ErrorKind;
use crate::report::{BackoffKind, What};
use crate::row::RowKey;
use crate::server::{DeleteCall, DeleteReason, Phase};
use crate::state::{Config, State};

/// Whether it is the offering that is short, and not a config that is wrong.
pub(crate) const fn is_shortage(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NoCapacity | ErrorKind::Quota)
}

/// The failure that has lasted the longest counts.
fn worst<'a>(backoffs: impl Iterator<Item = &'a Backoff>) -> Option<Backoff> {
    backoffs.max_by_key(|backoff| (backoff.failures, backoff.until)).cloned()
}

impl State {
    /// Making a server's machine was refused, or failed after it had been accepted.
    pub(crate) fn create_refused(
        &mut self,
        id: ServerId,
        kind: ErrorKind,
        retry_after: Option<Duration>,
        error: String,
    ) {
        let server = &self.servers[&id];
        let config = server.config;
        if !is_shortage(kind) {
            self.fail(config, BackoffKind::Provider(kind), retry_after, error);
            return;
        }
        let born = self.born_with(server).clone();
        let sharing = self.sharing(config, &born);
        // One that asks for another offering by now does not suffer from this one's shortage.
        let Some(first) = sharing.first() else { return };
        let salt = (self.row.spec.id, *first);
        let known = sharing.iter().filter_map(|id| self.configs[id].memory.create.as_ref());
        let last = worst(known.filter(|(kind, _)| is_shortage(*kind)).map(|(_, backoff)| backoff));
        let backoff = Backoff::after(last.as_ref(), BackoffKind::Provider(kind), self.now, retry_after, error, salt);
        for id in sharing {
            let Some(known) = self.configs.get_mut(&id) else { continue };
            // What else keeps a config from making servers, and for longer, is not forgotten over this.
            let other = known.memory.create.as_ref().filter(|(kind, _)| !is_shortage(*kind));
            if other.is_none_or(|(_, other)| other.until <= backoff.until) {
                known.memory.create = Some((kind, backoff.clone()));
                self.journal.changed.insert(RowKey::Memory(id));
            }
        }
    }

    /// The configs that ask for the same offering as `spec` does, which is an edition of `config`.
    fn sharing(&self, config: ConfigId, spec: &ConfigSpec) -> Vec<ConfigId> {
        let offering = self.offering(spec);
        let same = |other: &&Config| match &offering {
            Some(_) => other.spec().provider == spec.provider && self.offering(other.spec()) == offering,
            // Nobody knows what the provider's settings mean, so nobody else is drawn into it.
            None => other.id == config,
        };
        self.configs.values().filter(same).map(|config| config.id).collect()
    }

    /// What a config asks its provider for; `None` while the provider has not introduced itself.
    pub(crate) fn offering(&self, spec: &ConfigSpec) -> Option<String> {
        let provider = self.providers.get(&spec.provider)?;
        provider.capabilities.as_ref().map(|known| known.offering(&spec.machine))
    }

    /// A config that has just been set knows what those that share its offering know.
    pub(crate) fn inherit_shortage(&mut self, id: ConfigId) {
        let spec = self.configs[&id].spec().clone();
        let others = self.sharing(id, &spec).into_iter().filter(|other| *other != id);
        let known = others.filter_map(|other| self.configs[&other].memory.create.clone());
        let shortage = known.filter(|(kind, _)| is_shortage(*kind)).max_by_key(|(_, backoff)| backoff.until);
        if let Some(config) = self.configs.get_mut(&id).filter(|_| shortage.is_some()) {
            config.memory.create = shortage;
            self.journal.changed.insert(RowKey::Memory(id));
        }
    }

    /// A config has failed at something; it backs off, or its breaker counts it.
    pub(crate) fn fail(&mut self, config: ConfigId, kind: BackoffKind, retry_after: Option<Duration>, error: String) {
        let (now, pool) = (self.now, self.row.spec.id);
        let Some(known) = self.configs.get_mut(&config) else { return };
        let spec = known.spec().clone();
        let memory = &mut known.memory;
        match kind {
            BackoffKind::Provider(error_kind) => {
                let last = memory.create.as_ref().map(|(_, backoff)| backoff);
                memory.create = Some((error_kind, Backoff::after(last, kind, now, retry_after, error, (pool, config))));
            }
            BackoffKind::Directory(error_kind) => {
                let last = memory.directory.as_ref().map(|(_, backoff)| backoff);
                let backoff = Backoff::after(last, kind, now, retry_after, error, (pool, config));
                memory.directory = Some((error_kind, backoff));
            }
            BackoffKind::Boot => {
                memory.fates = memory.fates.and(true, spec.breaker_window);
                let (failed, _) = memory.fates.failed_of();
                if memory.boot.is_some() || failed >= spec.breaker_failures {
                    let last = memory.boot.as_ref();
                    memory.boot = Some(Backoff::after(last, kind, now, retry_after, error, (pool, config)));
                }
            }
        }
        self.journal.changed.insert(RowKey::Memory(config));
    }

    /// A machine was made: the provider does not refuse this server's config any more.
    pub(crate) fn forgive_create(&mut self, id: ServerId) {
        let own = self.servers[&id].config;
        let refused = |config: &&mut Config| config.memory.create.as_ref().is_some_and(|(kind, _)| !is_shortage(*kind));
        if let Some(config) = self.configs.get_mut(&own).filter(refused) {
            config.memory.create = None;
            self.journal.changed.insert(RowKey::Memory(own));
        }
        self.forgive_shortage(id);
    }

    /// A machine was made that was asked for after the shortage began: it is over for all that share the offering. One that
    /// was asked for before may just have been the last that there was.
    pub(crate) fn forgive_shortage(&mut self, id: ServerId) {
        let server = &self.servers[&id];
        let (own, created_at) = (server.config, server.created_at);
        let over = |config: &Config| {
            let known = config.memory.create.as_ref();
            known.is_some_and(|(kind, backoff)| is_shortage(*kind) && created_at >= backoff.since)
        };
        if !self.configs.values().any(over) {
            return;
        }
        let born = self.born_with(server).clone();
        let mut sharing = self.sharing(own, &born);
        sharing.retain(|id| over(&self.configs[id]));
        for id in sharing {
            if let Some(config) = self.configs.get_mut(&id) {
                config.memory.create = None;
                self.journal.changed.insert(RowKey::Memory(id));
            }
        }
    }

    /// The directory makes computer objects again.
    pub(crate) fn forgive_directory(&mut self, config: ConfigId) {
        if let Some(known) = self.configs.get_mut(&config).filter(|known| known.memory.directory.is_some()) {
            known.memory.directory = None;
            self.journal.changed.insert(RowKey::Memory(config));
        }
    }

    /// A server became ready. One that was tried since the breaker opened closes it, and the count begins anew.
    pub(crate) fn forgive_boot(&mut self, id: ServerId) {
        let server = &self.servers[&id];
        let (config, created_at) = (server.config, server.created_at);
        let Some(known) = self.configs.get_mut(&config) else { return };
        let window = known.spec().breaker_window;
        let memory = &mut known.memory;
        let closes = memory.boot.as_ref().is_some_and(|open| created_at >= open.since);
        let fates = if closes { Fates::default() } else { memory.fates.and(false, window) };
        if closes || fates != memory.fates {
            memory.fates = fates;
            memory.boot = memory.boot.take().filter(|_| !closes);
            self.journal.changed.insert(RowKey::Memory(config));
        }
    }

    /// Lets go of refusals that are so long ago that they say nothing any more.
    pub(crate) fn forget_refusals(&mut self) {
        for config in self.configs.values_mut() {
            if config.memory.create.as_ref().is_some_and(|(_, backoff)| backoff.is_forgotten(self.now)) {
                config.memory.create = None;
                self.journal.changed.insert(RowKey::Memory(config.id));
            }
        }
    }

    // --- machines kept for diagnosis ---

    /// Gives up a server that did not become ready. Its machine may be kept for a while, for somebody to look at.
    pub(crate) fn give_up_failed(&mut self, id: ServerId, why: DeleteReason) {
        let server = &self.servers[&id];
        let spec = self.born_with(server).clone();
        let config = &self.configs[&server.config];
        let room = config.tally.kept < spec.keep_failed_max && !spec.keep_failed_for.is_zero();
        let keep = room && server.machine.is_some() && config.is_on();
        let (name, until) = (config.spec().name.clone(), self.now + spec.keep_failed_for);
        self.delete_server(id, why);
        if keep {
            self.edit_deletion(id, |call, _, next_at| {
                *call = DeleteCall::Kept { until };
                *next_at = until;
            });
            self.event(What::Kept { server: id, config: name, until });
        }
    }

    /// Whether a machine is kept for diagnosis.
    pub(crate) fn is_kept(&self, id: ServerId) -> bool {
        let phase = self.servers.get(&id).map(|server| &server.phase);
        matches!(phase, Some(Phase::Deleting { call: DeleteCall::Kept { .. }, .. }))
    }

    /// The time of a kept machine is over: it is deleted like any other.
    pub(crate) fn let_go(&mut self, id: ServerId) {
        let now = self.now;
        self.edit_deletion(id, |call, _, next_at| {
            if let DeleteCall::Kept { .. } = call {
                *call = DeleteCall::Send;
                *next_at = now;
            }
        });
    }

    /// An operator wants a machine gone that is kept for diagnosis, or whose deletion a mass loss holds back.
    pub(crate) fn delete_now(&mut self, id: ServerId) {
        let (now, held) = (self.now, self.is_held_back(id));
        self.let_go(id);
        self.edit_server(id, |server| {
            if let Phase::Deleting { why, next_at, .. } = &mut server.phase
                && held
            {
                (*why, *next_at) = (DeleteReason::Operator, now);
            }
        });
    }
}
