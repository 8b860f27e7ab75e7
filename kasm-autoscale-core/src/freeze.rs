//! What follows when an invariant does not hold: its config is frozen. Nothing is made for it and nothing of it is deleted, from
//! the very step on in which it was found; sessions are placed, kept and ended as before. Only an operator lifts it.

use alloc::vec::Vec;

use crate::check::Violation;
use crate::command::{Action, Command};
use crate::id::{ConfigId, ConfigName};
use crate::input::{Answer, Refusal};
use crate::report::What;
use crate::row::{Freeze, RowKey};
use crate::state::{State, Subject};

/// Whether this makes or deletes something.
pub(crate) const fn changes_the_world(action: &Action) -> bool {
    matches!(action, Action::Create(_) | Action::Delete { .. } | Action::Enroll(_) | Action::Unenroll { .. })
}

impl State {
    /// Freezes the configs of what was found in this step, recounts everything if that is due, and keeps back what the step
    /// would have made and deleted for configs that are frozen. A host never hears of such a command, so to the pool it is one
    /// that got lost on its way.
    pub(crate) fn freeze_what_is_broken(&mut self, mut found: Vec<Violation>) {
        if core::mem::take(&mut self.journal.recount) {
            found.extend(self.violations());
        }
        for violation in &found {
            self.freeze(violation);
        }
        let frozen: Vec<ConfigId> = self.configs.keys().copied().filter(|id| self.is_halted(*id)).collect();
        if !frozen.is_empty() {
            let commands = core::mem::take(&mut self.journal.commands);
            let is_held = |command: &Command| {
                let config = self.config_of(command).filter(|id| self.configs.contains_key(id));
                // What belongs to no config that there is cannot be told from what belongs to a frozen one.
                changes_the_world(&command.action) && config.is_none_or(|id| frozen.contains(&id))
            };
            self.journal.commands = commands.into_iter().filter(|command| !is_held(command)).collect();
        }
    }

    /// What is found first stands until it is lifted.
    fn freeze(&mut self, violation: &Violation) {
        let now = self.now;
        let concerned = |id: &ConfigId| violation.config.is_none_or(|config| config == *id);
        let found: alloc::string::String = violation.found.chars().take(Freeze::FOUND_CHARS_MAX).collect();
        let freeze = Freeze { since: now, invariant: violation.invariant.clone(), found };
        let mut frozen = Vec::new();
        for config in self.configs.values_mut().filter(|config| concerned(&config.id)) {
            if config.memory.freeze.is_none() {
                config.memory.freeze = Some(freeze.clone());
                // Its plan was made before this was known.
                config.wake_at = Some(now);
                frozen.push((config.id, config.spec().name.clone()));
            }
        }
        for (id, name) in frozen {
            self.journal.changed.insert(RowKey::Memory(id));
            self.event(What::Frozen { config: name, freeze: freeze.clone() });
        }
    }

    /// Whether nothing is made for a config and nothing of it deleted, because an invariant does not hold.
    pub(crate) fn is_halted(&self, id: ConfigId) -> bool {
        self.configs.get(&id).is_some_and(|config| config.memory.freeze.is_some())
    }

    /// For which config a command is carried out, if for one.
    pub(crate) fn config_of(&self, command: &Command) -> Option<ConfigId> {
        let orphan = match &self.in_flight.get(&command.id)?.subject {
            Subject::Server(id) => return self.servers.get(id).map(|server| server.config),
            Subject::Orphan(name, machine) => self.providers.get(name)?.orphans.get(machine),
            Subject::OrphanComputer(name, computer) => self.directories.get(name)?.orphans.get(computer),
            Subject::Listing(_) | Subject::ComputerListing(_) => return None,
        };
        orphan.map(|orphan| orphan.config)
    }

    /// An operator has looked into it. Everything is recounted first: what does not hold keeps the config frozen.
    pub(crate) fn lift_freeze(&mut self, name: &ConfigName) -> Result<Answer, Refusal> {
        let named = self.configs.values().filter(|config| config.spec().name == *name);
        let named: Vec<(ConfigId, bool)> = named.map(|config| (config.id, config.memory.freeze.is_some())).collect();
        if named.is_empty() {
            return Err(Refusal::UnknownConfig { name: name.clone() });
        }
        let Some((id, _)) = named.into_iter().find(|(_, frozen)| *frozen) else {
            return Err(Refusal::NotFrozen { name: name.clone() });
        };
        let concerns = |violation: &Violation| violation.config.is_none_or(|config| config == id);
        if let Some(Violation { invariant, found, .. }) = self.violations().into_iter().find(concerns) {
            return Err(Refusal::StillBroken { name: name.clone(), invariant, found });
        }
        if let Some(config) = self.configs.get_mut(&id) {
            config.memory.freeze = None;
        }
        self.journal.changed.insert(RowKey::Memory(id));
        self.event(What::FreezeLifted { config: name.clone() });
        Ok(Answer::Done)
    }
}
