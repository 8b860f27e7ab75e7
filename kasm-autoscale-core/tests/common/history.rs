//! Histories: what a pool was told, step by step, while a cloud, a directory, users and operators did what came to their minds.
//! They are told in terms that can be changed without changing what happens: names, ids, when it begins, in which order lists
//! show what they show.

use std::collections::BTreeMap;
use std::time::Duration;

use kasm_autoscale_core::command::{Command, Outcome};
use kasm_autoscale_core::config::{ConfigSpec, PoolSpec};
use kasm_autoscale_core::id::{CommandId, ServerId};
use kasm_autoscale_core::input::{Fact, Input};
use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::row::{Outputs, Write};
use kasm_autoscale_core::session::SessionRequest;
use kasm_autoscale_core::time::Timestamp;
use serde_json::json;

use super::cloud::{Cloud, unhurried};
use super::directory::Corp;
use super::{Dice, T0, directory_facts, pool_spec, secs};

/// In which terms a history is told.
#[derive(Clone, Debug)]
pub struct Terms {
    pub start: Timestamp,
    pub configs: [&'static str; 3],
    pub providers: [&'static str; 2],
    pub directory: &'static str,
    pub zones: [&'static str; 3],
    /// The name of a user by his number.
    pub user: fn(u64) -> String,
    /// Whether lists show what they show in another order.
    pub shuffled: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            start: T0,
            configs: ["first", "second", "third"],
            providers: ["aws", "azure"],
            directory: "corp",
            zones: ["east", "north", "west"],
            user: |number| format!("user-{number:02}"),
            shuffled: false,
        }
    }
}

/// One step of a history.
#[derive(Clone, Debug)]
pub struct Told {
    pub now: Timestamp,
    pub facts: Vec<Fact>,
}

enum Due {
    Arrives(Command),
    Answered(CommandId, Outcome),
    ChecksIn(ServerId),
    Joins(ServerId),
}

/// A history as it goes on.
pub struct History {
    pub terms: Terms,
    pub pool: Pool,
    cloud: Cloud,
    corp: Corp,
    dice: Dice,
    /// Draws the order of lists, and nothing else.
    order: Dice,
    now: Timestamp,
    wake_at: Option<Timestamp>,
    due: BTreeMap<(Timestamp, u64), Due>,
    next_due: u64,
    told: u32,
}

impl History {
    /// A pool without anything.
    pub fn new(seed: u64, terms: Terms) -> Self {
        let mut cloud = Cloud::new();
        cloud.has_faults = seed.is_multiple_of(2);
        Self {
            pool: Pool::new(Self::spec(), terms.start),
            cloud,
            corp: Corp::default(),
            dice: Dice(seed),
            order: Dice(seed),
            now: terms.start,
            wake_at: None,
            due: BTreeMap::new(),
            next_due: 0,
            told: 0,
            terms,
        }
    }

    /// The settings of its pool.
    pub fn spec() -> PoolSpec {
        let mut spec = pool_spec();
        (spec.queue_deadline, spec.queue_max) = (secs(300), 12);
        spec
    }

    /// What is said next, and when. [`heard`](Self::heard) is to follow.
    pub fn next_step(&mut self, first: bool) -> Told {
        if first {
            let known = |name: &&str| Fact::ProviderKnown(name.parse().unwrap(), unhurried());
            let mut facts: Vec<Fact> = self.terms.providers.iter().map(known).collect();
            facts.push(Fact::DirectoryKnown(self.terms.directory.parse().unwrap(), directory_facts()));
            facts.extend((0..3).map(|index| self.config(index, true)));
            return Told { now: self.now, facts };
        }
        let pause = match self.dice.below(30) {
            0 => secs(self.dice.between(300, 2500)),
            _ => Duration::from_millis(self.dice.below(20_000)),
        };
        let end = self.now + pause;
        let due_at = self.due.keys().next().map(|(at, _)| *at);
        let next = self.wake_at.into_iter().chain(due_at).min().map_or(end, |at| at.min(end)).max(self.now);
        // What comes within some seconds comes in one batch.
        self.now = next + Duration::from_millis(self.dice.below(8000));
        let mut facts = Vec::new();
        while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= self.now) {
            match entry.remove() {
                Due::Arrives(command) => self.arrive(command),
                Due::Answered(id, outcome) => facts.push(Fact::Finished(id, outcome)),
                Due::Joins(server) if self.corp.of(server).is_some() => self.corp.object_of(server).joined = true,
                Due::Joins(_) => {}
                Due::ChecksIn(server) => facts.push(Fact::CheckedIn {
                    server,
                    status: "running".into(),
                    message: String::new(),
                    progress: 100,
                }),
            }
        }
        // Now and then nobody comes for a while.
        self.told += 1;
        let most = if self.told % 90 < 60 { 4 } else { 1 };
        for _ in 0..self.dice.below(most) {
            let fact = self.wish();
            facts.extend(fact);
        }
        Told { now: self.now, facts: facts.into_iter().map(|fact| self.in_terms(fact)).collect() }
    }

    /// What the pool has said.
    pub fn heard(&mut self, outputs: &Outputs) {
        self.wake_at = outputs.wake_at;
        for command in &outputs.commands {
            let arrives_at = self.now + Duration::from_millis(self.dice.below(15_000));
            self.at(arrives_at, Due::Arrives(command.clone()));
        }
    }

    fn at(&mut self, at: Timestamp, due: Due) {
        self.due.insert((at, self.next_due), due);
        self.next_due += 1;
    }

    fn arrive(&mut self, command: Command) {
        let now = self.now;
        let outcome = if command.action.directory().is_some() {
            Some(self.corp.perform(now, now + Duration::from_millis(self.dice.below(20_000)), &command.action))
        } else {
            self.cloud.perform(&mut self.dice, now, &command.action)
        };
        if let kasm_autoscale_core::command::Action::Create(create) = &command.action {
            let (speaks_at, joins_at) =
                (now + secs(self.dice.between(60, 200)), now + secs(self.dice.between(20, 120)));
            self.at(speaks_at, Due::ChecksIn(create.server.server));
            self.at(joins_at, Due::Joins(create.server.server));
        }
        let (answered_at, outcome) = match outcome {
            Some(outcome) => (now + Duration::from_millis(self.dice.below(15_000)), outcome),
            None => (now + command.timeout, Outcome::Lost),
        };
        self.at(answered_at, Due::Answered(command.id, outcome));
    }

    fn config(&mut self, index: usize, enabled: bool) -> Fact {
        let (dice, terms) = (&mut self.dice, &self.terms);
        let joins = index == 1 && dice.chance(700);
        let object = json!({
            "name": terms.configs[index], "provider": terms.providers[index % 2], "zone": terms.zones[index],
            "enabled": enabled, "reusable": dice.chance(600), "minimum_available_sessions": dice.below(7),
            "max_sessions_per_server": dice.between(1, 4), "max_servers": 8, "downscale_backoff": dice.below(600),
            "boot_deadline": dice.between(300, 500), "require_checkin": dice.chance(300), "priority": dice.below(3),
            "server_name_pattern": "desk-{number}", "machine": { "size": dice.below(2) },
            "ad_directory": joins.then_some(terms.directory),
            "ad_computer_ou_dn": joins.then_some("OU=Desks,DC=corp,DC=example"),
        });
        Fact::ConfigSet(Box::new(ConfigSpec::from_json(object.as_object().unwrap()).unwrap()))
    }

    /// Somebody wants something.
    fn wish(&mut self) -> Option<Fact> {
        let servers: Vec<ServerId> = self.pool.servers().map(|server| server.id).collect();
        let open: Vec<_> = self.pool.sessions().filter(|session| session.is_open()).map(|session| session.id).collect();
        let dice = &mut self.dice;
        match dice.below(100) {
            0..45 => {
                let (user, zone) = ((self.terms.user)(dice.below(30)), dice.below(4));
                let zone = usize::try_from(zone).ok().and_then(|zone| self.terms.zones.get(zone));
                Some(Fact::SessionRequested(SessionRequest {
                    user: user.parse().unwrap(),
                    zone: zone.map(|zone| zone.parse().unwrap()),
                    key: dice.chance(300).then(|| format!("key-{}", dice.below(20))),
                }))
            }
            45..75 => dice.pick(&open).map(|id| Fact::SessionEnded(*id)),
            75..82 => dice.pick(&open).map(|id| Fact::KeptAlive(*id)),
            82..86 => dice.pick(&servers).map(|id| Fact::DrainAsked(*id)),
            86..89 => dice.pick(&servers).map(|id| Fact::UndrainAsked(*id)),
            89..91 => dice.pick(&servers).map(|id| Fact::DeleteAsked { server: *id, force: id.serial() % 2 == 0 }),
            91..93 if self.cloud.has_faults => {
                self.cloud.mishap(dice);
                None
            }
            93..96 => {
                let (index, enabled) = (usize::try_from(dice.below(3)).unwrap(), dice.chance(800));
                Some(self.config(index, enabled))
            }
            96 => {
                let index = usize::try_from(dice.below(3)).unwrap();
                Some(Fact::ConfigRemoved(self.terms.configs[index].parse().unwrap()))
            }
            _ => None,
        }
    }

    fn in_terms(&mut self, mut fact: Fact) -> Fact {
        match &mut fact {
            Fact::Finished(_, Outcome::Listed(Ok(listing))) => self.shuffle(&mut listing.machines),
            Fact::Finished(_, Outcome::ComputersListed(Ok(listing))) => self.shuffle(&mut listing.computers),
            _ => {}
        }
        fact
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev().filter(|_| self.terms.shuffled) {
            items.swap(last, usize::try_from(self.order.below(last as u64 + 1)).unwrap());
        }
    }
}

/// The steps of a history, each with what the pool made of it, as text.
pub fn lived(seed: u64, terms: &Terms, steps: usize, mut see: impl FnMut(&Pool, &Told, &[Write], &Outputs)) {
    let mut history = History::new(seed, terms.clone());
    for step in 0..steps {
        let told = history.next_step(step == 0);
        let batch = history.pool.step(told.now, told.facts.iter().cloned().map(Input::from));
        let writes = batch.writes().to_vec();
        let outputs = batch.saved();
        see(&history.pool, &told, &writes, &outputs);
        history.heard(&outputs);
    }
}
