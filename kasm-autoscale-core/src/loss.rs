//! The guard against a loss that is too large to be believed: a listing that looks complete and misses many machines at once.
//!
//! A provider that answers for another account, region or cache is a likelier cause than that many machines dying between
//! two listings. So the config is frozen: what is missing does not count as lost, sessions stay, and nothing is deleted that
//! nobody asked for, neither servers nor orphans. It thaws when a complete listing shows no such loss any more, or when an
//! operator says that the machines are lost indeed; they then count as lost.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::capacity::is_implausible_loss;
use crate::id::{ConfigId, ConfigName, ProviderName, ServerId};
use crate::input::{Answer, Refusal};
use crate::report::What;
use crate::row::{MassLoss, RowKey};
use crate::server::{DeleteCall, DeleteReason, Phase, Server};
use crate::state::State;

/// Whether a server in this phase is one whose machine is counted on.
const fn is_counted(server: &Server) -> bool {
    matches!(server.phase, Phase::Starting { .. } | Phase::Ready { .. } | Phase::Draining { .. })
}

impl State {
    /// Judges what a complete listing of this provider misses of what it should have shown, and answers with the configs whose
    /// losses are not to be believed. A machine that is too young to be shown is no loss; but a loss that stands is over only
    /// when machines are seen again, and not because a restart has forgotten how old they are.
    pub(crate) fn judge_losses(
        &mut self,
        name: &ProviderName,
        is_visible: impl Fn(&Server) -> bool,
        is_missing: impl Fn(&Server) -> bool,
    ) -> BTreeSet<ConfigId> {
        let mut counts: BTreeMap<ConfigId, (u32, u32)> = BTreeMap::new();
        for server in self.servers.values().filter(|server| is_counted(server) && server.machine.is_some()) {
            let stands = self.configs[&server.config].memory.loss.is_some();
            if (stands || is_visible(server)) && self.born_with(server).provider == *name {
                let (missing, of) = counts.entry(server.config).or_default();
                *missing += u32::from(is_missing(server));
                *of += 1;
            }
        }
        let ids: Vec<ConfigId> = self.configs.keys().copied().collect();
        for id in ids {
            let (missing, of) = counts.get(&id).copied().unwrap_or_default();
            self.judge_loss(id, name, missing, of);
        }
        self.configs.keys().copied().filter(|id| self.is_frozen(*id)).collect()
    }

    fn judge_loss(&mut self, id: ConfigId, name: &ProviderName, missing: u32, of: u32) {
        let now = self.now;
        let Some(config) = self.configs.get_mut(&id) else { return };
        let known = config.memory.loss.as_ref();
        if known.is_some_and(|known| known.provider != *name) {
            return;
        }
        let loss = is_implausible_loss(missing, of).then(|| MassLoss {
            provider: name.clone(),
            since: known.map_or(now, |known| known.since),
            missing,
            of,
            acknowledged: known.is_some_and(|known| known.acknowledged),
        });
        if config.memory.loss == loss {
            return;
        }
        let was = core::mem::replace(&mut config.memory.loss, loss.clone());
        let name = config.spec().name.clone();
        self.journal.changed.insert(RowKey::Memory(id));
        match (was, loss) {
            (None, Some(loss)) => self.event(What::MassLoss { config: name, loss }),
            (Some(was), None) => self.loss_over(id, name, was.acknowledged),
            _ => {}
        }
    }

    /// What was missed and what was shown meanwhile was not believed, so it is not evidence now either.
    fn loss_over(&mut self, id: ConfigId, name: ConfigName, acknowledged: bool) {
        if !acknowledged {
            for server in self.servers.values_mut().filter(|server| server.config == id) {
                server.absent = 0;
            }
            let orphans = self.providers.values_mut().flat_map(|provider| provider.orphans.values_mut());
            for orphan in orphans.filter(|orphan| orphan.config == id) {
                orphan.sightings = orphan.sightings.min(1);
            }
        }
        self.event(What::MassLossOver { config: name });
    }

    /// Whether nothing of a config counts as lost now.
    pub(crate) fn is_frozen(&self, id: ConfigId) -> bool {
        let loss = self.configs.get(&id).and_then(|config| config.memory.loss.as_ref());
        loss.is_some_and(MassLoss::holds)
    }

    /// Whether a deletion for this reason is held back. Who disables or removes a config asks for all of its servers to go;
    /// but where an invariant does not hold, nobody knows what it is that would go.
    pub(crate) fn is_held(&self, id: ConfigId, why: &DeleteReason) -> bool {
        self.is_halted(id) || !why.is_asked() && self.is_frozen(id) && self.configs[&id].is_on()
    }

    /// Whether the deletion of a server is held back.
    pub(crate) fn is_held_back(&self, id: ServerId) -> bool {
        let Some(server) = self.servers.get(&id) else { return false };
        let Phase::Deleting { why, call, .. } = &server.phase else { return false };
        matches!(call, DeleteCall::Send | DeleteCall::Kept { .. }) && self.is_held(server.config, why)
    }

    /// An operator knows better.
    pub(crate) fn acknowledge_loss(&mut self, name: &ConfigName) -> Result<Answer, Refusal> {
        let mut named = self.configs.values_mut().filter(|config| config.spec().name == *name).peekable();
        if named.peek().is_none() {
            return Err(Refusal::UnknownConfig { name: name.clone() });
        }
        let frozen = named.find(|config| config.memory.loss.as_ref().is_some_and(MassLoss::holds));
        let Some(config) = frozen else { return Err(Refusal::NoMassLoss { name: name.clone() }) };
        let id = config.id;
        if let Some(loss) = &mut config.memory.loss {
            loss.acknowledged = true;
        }
        self.journal.changed.insert(RowKey::Memory(id));
        self.event(What::LossAcknowledged { config: name.clone() });
        // His word is the second witness. What no listing has missed since a start is still to be looked for.
        let missed = |server: &&Server| server.config == id && is_counted(server) && server.absent > 0;
        let lost: Vec<ServerId> = self.servers.values().filter(missed).map(|server| server.id).collect();
        for id in lost {
            self.count_as_lost(id);
        }
        Ok(Answer::Done)
    }

    /// Ends a loss at a provider with which the config has nothing to do any more.
    pub(crate) fn forget_losses(&mut self) {
        let mut over = Vec::new();
        for config in self.configs.values_mut() {
            let Some(loss) = &config.memory.loss else { continue };
            if !config.editions.values().any(|edition| edition.spec.provider == loss.provider) {
                config.memory.loss = None;
                over.push((config.id, config.spec().name.clone()));
            }
        }
        for (id, name) in over {
            self.journal.changed.insert(RowKey::Memory(id));
            self.loss_over(id, name, false);
        }
    }
}
