//! Random walks: a real pool, a cloud that makes all the trouble its contract allows, users and operators without a plan,
//! and crashes at every point. After each step everything is recounted; at the end all trouble stops, and the pool must come
//! to rest where its configs want it, stay there, and leave nothing behind when they are removed.
//!
//! `KASM_SEEDS=1000 cargo test --test random_walk` walks further; a failure prints its seed, `KASM_SEED=17` walks that one.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::cloud::{Cloud, unhurried};
use common::directory::Corp;
use common::{Dice, Host, T0, directory_facts, directory_known, pool_spec, provider, secs};
use kasm_autoscale_core::command::{Action, Command, Outcome};
use kasm_autoscale_core::config::ConfigSpec;
use kasm_autoscale_core::id::{CommandId, ConfigId, ConfigName, ServerId, ServerKey};
use kasm_autoscale_core::input::{Fact, Input};
use kasm_autoscale_core::ports::{Certainty, DirectoryError, DirectoryErrorKind};
use kasm_autoscale_core::report::{ConfigReport, Decision, Fallback, Waiting, What};
use kasm_autoscale_core::row::Outputs;
use kasm_autoscale_core::server::{CreateCall, Phase, PhaseKind, Server};
use kasm_autoscale_core::session::{SessionRequest, SessionState};
use kasm_autoscale_core::time::Timestamp;
use serde_json::json;

const CONFIGS: [(&str, &str, &str); 3] =
    [("first", "aws", "west"), ("second", "azure", "east"), ("third", "aws", "east")];

#[derive(Debug)]
enum Due {
    /// The command reaches the cloud.
    Arrives(Command),
    /// Its answer reaches us.
    Answered(CommandId, Outcome),
    /// A machine speaks up.
    ChecksIn(ServerId),
    /// A machine joins its domain.
    Joins(ServerId),
}

/// What the walks met, so that a walk that meets none of it is noticed.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    covering: u32,
    breaker: u32,
    kept: u32,
    losses: u32,
}

struct Walk {
    host: Host,
    cloud: Cloud,
    corp: Corp,
    dice: Dice,
    due: BTreeMap<(Timestamp, u64), Due>,
    next_due: u64,
    /// Every server for which a create was ever given out.
    created: BTreeSet<ServerKey>,
    /// The same of enrolments, which may be given out again.
    enrolled: BTreeSet<ServerKey>,
    left_over: u64,
    /// Sessions ever placed, by server.
    placed: BTreeMap<ServerId, u32>,
    creates: u32,
    deletes: u32,
    steps: u32,
    steps_at_once: u32,
    seen: Seen,
    /// A digest of all that was put out, without the instants.
    trace: u64,
}

impl Walk {
    fn new(seed: u64, start: Timestamp) -> Self {
        let mut spec = pool_spec();
        spec.queue_deadline = secs(300);
        spec.queue_max = 10;
        let mut walk = Self {
            host: Host::beginning_at(start, spec),
            cloud: Cloud::new(),
            corp: Corp::default(),
            dice: Dice(seed),
            due: BTreeMap::new(),
            next_due: 0,
            created: BTreeSet::new(),
            enrolled: BTreeSet::new(),
            left_over: 100_000,
            placed: BTreeMap::new(),
            creates: 0,
            deletes: 0,
            steps: 0,
            steps_at_once: 0,
            seen: Seen::default(),
            trace: 0,
        };
        let mut facts: Vec<Fact> =
            CONFIGS.iter().map(|(_, name, _)| Fact::ProviderKnown(provider(name), unhurried())).collect();
        facts.push(directory_known());
        facts.extend((0..CONFIGS.len()).map(|index| walk.config_fact(index, true)));
        // Before anything was ever saved there is nothing to come back to.
        walk.cloud.has_faults = false;
        walk.step(facts);
        walk.cloud.has_faults = true;
        walk
    }

    fn config_fact(&mut self, index: usize, enabled: bool) -> Fact {
        let (name, provider, zone) = CONFIGS[index];
        let dice = &mut self.dice;
        // When all trouble has stopped the second one joins a domain, so that somebody looks after its directory.
        let joins = dice.chance(400) || (index == 1 && !self.cloud.has_faults);
        let object = json!({
            "ad_directory": joins.then_some("corp"),
            "ad_computer_ou_dn": joins.then_some("OU=Desks,DC=corp,DC=example"),
            "server_name_pattern": if dice.chance(500) { "desk-{number}" } else { "kasm-{random}" },
            "name": name,
            "provider": provider,
            "zone": zone,
            "enabled": enabled,
            "reusable": dice.chance(600),
            "minimum_available_sessions": dice.below(7),
            "max_sessions_per_server": dice.between(1, 4),
            "max_servers": 8,
            "downscale_backoff": dice.below(900),
            "boot_deadline": dice.between(300, 500),
            "require_checkin": dice.chance(300),
            "priority": dice.below(3),
            "breaker_failures": dice.between(1, 3),
            "breaker_window": dice.between(3, 6),
            "keep_failed_for": if dice.chance(500) { dice.below(3000) } else { 0 },
            "keep_failed_max": dice.below(3),
            // The first and the third now and then ask for the same.
            "machine": { "size": dice.below(2) },
        });
        Fact::ConfigSet(Box::new(ConfigSpec::from_json(object.as_object().unwrap()).unwrap()))
    }

    // --- one step ---

    fn step(&mut self, facts: Vec<Fact>) {
        self.steps += 1;
        let was = self.host.now;
        let before = self.cloud.has_faults && self.dice.chance(4);
        let after = self.cloud.has_faults && self.dice.chance(4);
        let batch = self.host.decide(facts.into_iter().map(Input::from).collect());
        if before {
            // The save failed: the batch and the pool are dropped, and nothing of them has happened.
            drop(batch);
            return self.crash();
        }
        let outputs = self.host.save(batch);
        self.expect_sound(&outputs);
        self.record(&outputs);
        self.expect_settled();
        if after {
            return self.crash();
        }
        let commands = outputs.commands;
        for command in commands {
            let arrives_at = self.host.now + Duration::from_millis(self.dice.below(15_000));
            self.at(arrives_at, Due::Arrives(command));
        }
        let stands_still = self.host.wake_at.is_some_and(|wake_at| wake_at <= was);
        self.steps_at_once = if stands_still { self.steps_at_once + 1 } else { 0 };
        let chases = self.steps_at_once >= 20;
        assert!(!chases, "woken at {} again and again: {:#?}", self.host.now, self.host.pool.report());
    }

    fn record(&mut self, outputs: &Outputs) {
        let commands: Vec<_> = outputs
            .commands
            .iter()
            .map(|command| (command.id, command.action.verb(), self.host.server_of(&command.action)))
            .collect();
        let phases: Vec<_> =
            self.host.pool.servers().map(|server| (server.id, server.phase.kind(), server.sessions)).collect();
        let wake_in = outputs.wake_at.map(|wake_at| wake_at.since(self.host.now));
        let text = format!("{commands:?} {phases:?} {wake_in:?} {}", outputs.events.len());
        // FNV-1a.
        self.trace = text.bytes().fold(self.trace, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    }

    /// I-17: deciding again on the same picture at the same instant decides nothing.
    fn expect_settled(&mut self) {
        // A config that may not ask for more machines at once leaves its part of the queue to another one as soon as that one's
        // machines are coming: nothing too much is made then, but it is made in two steps.
        let is_full = |known: &ConfigReport| match &known.decision {
            Decision::Wait { because: why, .. } | Decision::Create { held_back: Some(why), .. } => {
                matches!(why, Waiting::InFlightFull { .. })
            }
            _ => false,
        };
        let full = self.host.pool.report().configs.iter().any(is_full);
        let asleep = self.host.wake_at.is_none_or(|wake_at| wake_at > self.host.now);
        if asleep && !full && self.steps.is_multiple_of(8) {
            let again = self.host.decide(vec![]);
            assert!(again.writes().is_empty(), "I-17 {:?}", again.writes());
            let outputs = self.host.save(again);
            assert!(outputs.commands.is_empty(), "I-17 {outputs:?}");
        }
    }

    fn at(&mut self, at: Timestamp, due: Due) {
        self.due.insert((at, self.next_due), due);
        self.next_due += 1;
    }

    /// Commands on their way get there or not; their answers are never heard.
    fn crash(&mut self) {
        let mut underway = std::mem::take(&mut self.due);
        underway.retain(|_, due| match due {
            Due::Arrives(command) => {
                if self.dice.chance(500) {
                    perform(&mut self.cloud, &mut self.corp, &mut self.dice, self.host.now, &command.action);
                }
                false
            }
            Due::Answered(..) => false,
            Due::ChecksIn(_) | Due::Joins(_) => true,
        });
        self.due = underway;
        self.host.now = self.host.now + Duration::from_millis(self.dice.below(60_000));
        self.host.crash();
        let introductions = self.host.introductions();
        let outputs = self.host.step(introductions);
        self.expect_sound(&outputs);
        for command in outputs.commands {
            self.at(self.host.now, Due::Arrives(command));
        }
    }

    // --- time ---

    /// Goes on to the next thing that happens, not beyond `end`.
    fn go_on(&mut self, end: Timestamp) -> bool {
        let wake_at = self.host.wake_at;
        let due_at = self.due.keys().next().map(|(at, _)| *at);
        let Some(next) = wake_at.into_iter().chain(due_at).min().filter(|next| *next <= end) else { return false };
        self.host.now = self.host.now.max(next);
        let mut facts = Vec::new();
        while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= self.host.now) {
            match entry.remove() {
                Due::Arrives(command) => self.arrive(command),
                Due::Answered(id, outcome) => facts.push(Fact::Finished(id, outcome)),
                Due::Joins(server) => {
                    // It joins only if it is there, with its object.
                    if self.corp.of(server).is_some() && self.cloud.is_there(server, self.host.now) {
                        self.corp.object_of(server).joined = true;
                    }
                }
                Due::ChecksIn(server) => {
                    facts.push(Fact::CheckedIn {
                        server,
                        status: "running".into(),
                        message: String::new(),
                        progress: 100,
                    });
                }
            }
        }
        self.step(facts);
        true
    }

    fn arrive(&mut self, command: Command) {
        let (now, mut timeout) = (self.host.now, command.timeout.saturating_sub(secs(15)));
        let outcome = perform(&mut self.cloud, &mut self.corp, &mut self.dice, now, &command.action);
        let answered_at = now + Duration::from_millis(self.dice.below(15_000));
        if let Action::Create(create) = &command.action {
            let speaks_at = now + secs(self.dice.between(60, 200));
            self.at(speaks_at, Due::ChecksIn(create.server.server));
            if !self.cloud.has_faults || self.dice.chance(980) {
                let joins_at = now + secs(self.dice.between(20, 120));
                self.at(joins_at, Due::Joins(create.server.server));
            }
        }
        match outcome {
            Some(outcome) => self.at(answered_at, Due::Answered(command.id, outcome)),
            // One time in two the host itself forgets it, and the pool must help itself.
            None if self.dice.chance(500) => {}
            None => {
                timeout += secs(15);
                self.at(now + timeout, Due::Answered(command.id, Outcome::Lost));
            }
        }
    }

    fn run(&mut self, span: Duration) {
        let end = self.host.now + span;
        while self.go_on(end) {}
        self.host.now = self.host.now.max(end);
    }

    // --- people ---

    fn somebody_does_something(&mut self) {
        let servers: Vec<ServerId> = self.host.pool.servers().map(|server| server.id).collect();
        let open: Vec<_> =
            self.host.pool.sessions().filter(|session| session.is_open()).map(|session| session.id).collect();
        let dice = &mut self.dice;
        let fact = match dice.below(100) {
            0..40 => Some(Fact::SessionRequested(SessionRequest {
                user: format!("user-{}", dice.below(30)).parse().unwrap(),
                zone: dice.pick(&["west", "east", "north"]).map(|zone| zone.parse().unwrap()),
                key: dice.chance(300).then(|| format!("key-{}", dice.below(20))),
            })),
            40..70 => dice.pick(&open).map(|id| Fact::SessionEnded(*id)),
            70..80 => dice.pick(&open).map(|id| Fact::KeptAlive(*id)),
            80..84 => dice.pick(&servers).map(|id| Fact::DrainAsked(*id)),
            84..88 => dice.pick(&servers).map(|id| Fact::UndrainAsked(*id)),
            88..91 => {
                dice.pick(&servers).map(|id| Fact::DeleteAsked { server: *id, force: self.steps.is_multiple_of(2) })
            }
            91..94 => {
                self.cloud.mishap(dice);
                None
            }
            94..98 => {
                let (index, enabled) = (usize::try_from(dice.below(3)).unwrap(), dice.chance(750));
                Some(self.config_fact(index, enabled))
            }
            98 if dice.chance(300) => {
                // An object that some earlier life of this pool has left behind.
                self.left_over += 1;
                let server = ServerId::new(self.left_over);
                self.corp.make(server, ConfigId::new(1), &format!("old-{server}"), self.host.now);
                None
            }
            98 => Some(Fact::ConfigRemoved(CONFIGS[usize::try_from(dice.below(3)).unwrap()].0.parse().unwrap())),
            _ => {
                self.crash();
                None
            }
        };
        if let Some(fact) = fact {
            self.step(vec![fact]);
        }
        if self.dice.chance(60) {
            self.cloud.catastrophe();
        }
        if self.dice.chance(20) {
            self.acknowledge_losses();
        }
    }

    /// An operator looks at the alarms, and knows that the machines are lost indeed.
    fn acknowledge_losses(&mut self) {
        let alarmed = |known: &ConfigReport| known.loss.as_ref().is_some_and(|loss| !loss.acknowledged);
        let names: Vec<ConfigName> =
            self.host.pool.report().configs.into_iter().filter(alarmed).map(|known| known.config).collect();
        for name in names {
            self.seen.losses += 1;
            self.step(vec![Fact::LossAcknowledged(name)]);
        }
    }

    // --- what must hold ---

    fn expect_sound(&mut self, outputs: &Outputs) {
        let report = self.host.pool.report();
        let mut grown = BTreeSet::new();
        for command in &outputs.commands {
            match &command.action {
                Action::Create(create) => {
                    assert!(self.created.insert(create.server), "I-07 a second create for {}", create.server.server);
                    self.creates += 1;
                    let joins = create.spec.domain_join.is_some();
                    assert_eq!(joins, self.corp.of(create.server.server).is_some(), "I-21 {}", create.server.server);
                    // A server that joins was decided on when it was enrolled.
                    if !joins {
                        grown.insert(create.config);
                    }
                    let of_config = self.host.pool.servers().filter(|server| server.config == create.config).count();
                    assert!(of_config <= 8, "I-09 {of_config} servers of {}", create.config);
                }
                Action::Enroll(enroll) => {
                    if self.enrolled.insert(enroll.server) {
                        grown.insert(enroll.config);
                    }
                    assert!(!self.created.contains(&enroll.server), "enrolled after its machine was made");
                }
                Action::Unenroll { .. } | Action::Delete { .. } => self.deletes += 1,
                _ => {}
            }
        }
        self.expect_needed(&report, &grown);
        self.expect_guarded(&report, outputs);
        for known in &report.configs {
            let stopped = matches!(&known.decision, Decision::Wait { because: Waiting::BreakerOpen { .. }, .. });
            self.seen.covering += u32::from(covered_by(known) > 0);
            self.seen.breaker += u32::from(stopped);
            self.seen.kept += u32::from(known.kept > 0);
        }
        for id in grown {
            let there = self.cloud.count(id, self.host.now);
            assert!(there <= 8, "I-09 {there} machines of {id}");
        }
        for event in &outputs.events {
            if let What::SessionPlaced { server, session, .. } = &event.what {
                *self.placed.entry(*server).or_default() += 1;
                let still_there =
                    self.host.pool.session(*session).is_some_and(|session| session.server() == Some(*server));
                assert!(
                    !still_there || self.host.phase(*server) == PhaseKind::Ready,
                    "I-03 {session} placed on {server}"
                );
            }
        }
        self.expect_true_to_the_cloud(outputs);
        self.expect_frugal(outputs);
        let mut on_server: BTreeMap<ServerId, u32> = BTreeMap::new();
        for session in self.host.pool.sessions() {
            if let SessionState::Active { server, .. } = session.state {
                *on_server.entry(server).or_default() += 1;
            }
        }
        for server in self.host.pool.servers() {
            let born = self.host.pool.born_with(server);
            let (max, on_it) = (born.max_sessions_per_server.get(), on_server.get(&server.id).copied().unwrap_or(0));
            assert!(on_it <= max, "I-01 {} has {on_it} of {max}", server.id);
            let ever = self.placed.get(&server.id).copied().unwrap_or(0);
            assert!(born.reusable || ever <= max, "I-02 {} took {ever} of {max} once", server.id);
        }
        if self.steps.is_multiple_of(64) {
            self.host.store.expect_like(&self.host.pool);
        }
    }

    /// I-23: what is taken for gone is gone.
    fn expect_true_to_the_cloud(&mut self, outputs: &Outputs) {
        for event in &outputs.events {
            let What::Server { server, phase, why, .. } = &event.what else { continue };
            let lost = why.as_deref() == Some("machine is no longer there");
            if *phase == PhaseKind::Gone {
                let object = self.corp.of(*server);
                assert!(object.is_none(), "I-21 {server} is gone, and its object is there: {object:?}");
            }
            let is_gone = matches!(phase, PhaseKind::Gone | PhaseKind::Unenrolling);
            if is_gone || (*phase == PhaseKind::Deleting && lost) {
                let there = self.cloud.is_there(*server, self.host.now);
                assert!(!there, "I-23 {server} {phase}, and its machine is there: {why:?}");
            }
        }
    }

    /// I-15: while a loss is too large to be believed, nothing counts as lost, and nothing is deleted that nobody asked for.
    fn expect_guarded(&self, report: &kasm_autoscale_core::report::Report, outputs: &Outputs) {
        let frozen = |name: &ConfigName| {
            let holds = |known: &ConfigReport| known.loss.as_ref().is_some_and(|loss| !loss.acknowledged);
            let on = |known: &ConfigReport| known.config == *name && known.enabled && !known.removed;
            report.configs.iter().any(|known| on(known) && holds(known))
        };
        for command in &outputs.commands {
            let Action::Delete { machine, .. } = &command.action else { continue };
            let Some(server) = self.host.pool.servers().find(|server| server.machine.as_ref() == Some(machine)) else {
                continue;
            };
            let Phase::Deleting { why, .. } = &server.phase else { panic!("{server:?}") };
            let held = frozen(&self.host.pool.born_with(server).name) && !why.is_asked();
            assert!(!held, "I-15 {} is deleted: {why}", server.id);
        }
        for event in &outputs.events {
            if let What::Server { server, config, phase: PhaseKind::Deleting, why: Some(why) } = &event.what {
                assert!(!frozen(config) || why != "machine is no longer there", "I-15 {server} counts as lost");
            }
        }
    }

    /// I-19: no session is given up that the minimum needs, whatever else is coming.
    fn expect_frugal(&self, outputs: &Outputs) {
        let report = self.host.pool.report();
        for event in &outputs.events {
            let What::Server { server, config, phase: PhaseKind::Draining, why: Some(why) } = &event.what else {
                continue;
            };
            let known = report.configs.iter().find(|known| known.config == *config && !known.removed);
            if let Some(known) = known.filter(|_| why == "surplus") {
                let min = self.host.pool.config(config).unwrap().minimum_available_sessions;
                assert!(known.supply.free >= min, "I-19 {server} is given up, {} are left of {min}", known.supply.free);
            }
        }
    }

    /// I-10: nothing is made beyond need, and nothing twice for one who waits.
    fn expect_needed(&self, report: &kasm_autoscale_core::report::Report, grown: &BTreeSet<ConfigId>) {
        let serials: Vec<_> = self
            .host
            .pool
            .servers()
            .map(|server| (server.config, self.host.pool.born_with(server).name.clone()))
            .collect();
        for id in grown {
            let name: &ConfigName = &serials.iter().find(|(config, _)| config == id).unwrap().1;
            let known = report.configs.iter().find(|known| known.config == *name && !known.removed).unwrap();
            let spec = self.host.pool.config(name).unwrap();
            let (min, per) = (spec.minimum_available_sessions, spec.max_sessions_per_server.get());
            let supply = known.supply.free + known.supply.coming;
            let asked = report.waiting + covered_by(known);
            assert!(supply < min + asked + per, "I-10 {name}: {supply} for {min} and {asked} who wait or are covered");
            let others = report.configs.iter().filter(|other| other.config != *name && !other.removed && other.enabled);
            let firm = |other: &ConfigReport| other.supply.free + other.supply.coming - self.doubtful(&other.config);
            let spare: u32 = others.map(|other| firm(other).saturating_sub(other.supply.target)).sum();
            if grown.len() == 1 && supply >= min + per {
                assert!(spare < asked, "I-10 {name} grows for {asked}, and {spare} are coming for them");
            }
        }
    }

    /// Sessions that are coming, if at all: creates without an answer whose look-ups fail.
    fn doubtful(&self, config: &ConfigName) -> u32 {
        let unsure = |server: &&Server| {
            matches!(
                server.phase,
                Phase::Creating { call: CreateCall::Unsure { tries: 1.., .. }, .. }
                    | Phase::Enrolling { tries: 2.., .. }
            )
        };
        let born = self.host.pool.servers().filter(unsure).map(|server| self.host.pool.born_with(server));
        born.filter(|born| born.name == *config).map(|born| born.max_sessions_per_server.get()).sum()
    }

    fn expect_converged(&self) {
        let report = self.host.pool.report();
        assert_eq!((report.waiting, report.sessions, report.orphans.len()), (0, 0, 0), "I-16 {report:?}");
        for known in &report.configs {
            let spec = self.host.pool.config(&known.config).unwrap();
            let (min, per) = (spec.minimum_available_sessions, spec.max_sessions_per_server.get());
            let most = 8 * per;
            let free = known.supply.free;
            assert!(free >= min.min(most), "I-16 {}: {free} free of {min}: {}", known.config, known.decision);
            // Servers that were born before an edit may be larger or smaller than the next one.
            let sizes = self
                .host
                .pool
                .servers()
                .map(|server| self.host.pool.born_with(server))
                .filter(|born| born.name == known.config);
            let least = sizes.map(|born| born.max_sessions_per_server.get()).min().unwrap_or(per);
            assert!(
                free < min + least,
                "I-16 {}: {free} free of {min}, {least} per server: {}",
                known.config,
                known.decision
            );
        }
        for server in self.host.pool.servers() {
            assert!(matches!(server.phase, Phase::Ready { .. }), "I-16 {} {:?}", server.id, server.phase);
        }
        assert_eq!(self.cloud.machines.len(), self.host.pool.servers().count(), "I-20 machines and servers differ");
        let joined = self.host.pool.servers().filter(|server| server.computer.is_some());
        let joined: BTreeSet<ServerId> = joined.map(|server| server.id).collect();
        let objects: BTreeSet<ServerId> = self.corp.objects.values().map(|object| object.server).collect();
        assert_eq!(objects, joined, "I-21 computer objects and servers that need one differ");
        assert_eq!(self.corp.objects.len(), joined.len(), "I-21 one object a server");
    }
}

/// Does what a command says, in the cloud or in the directory. `None`: the answer is lost on its way back.
fn perform(cloud: &mut Cloud, corp: &mut Corp, dice: &mut Dice, now: Timestamp, action: &Action) -> Option<Outcome> {
    if action.directory().is_none() {
        return cloud.perform(dice, now, action);
    }
    let has_faults = cloud.has_faults;
    let mut fault = |permille| has_faults && dice.chance(permille);
    let (refused, unsure, lost) = (fault(60), fault(500), fault(50));
    let kinds = [DirectoryErrorKind::Transient, DirectoryErrorKind::Throttled, DirectoryErrorKind::Denied];
    let kind = *dice.pick(&kinds).unwrap();
    let visible_at = now + Duration::from_millis(dice.below(directory_facts().visibility_lag.as_secs() * 1000));
    let certainty = if unsure { Certainty::Unknown } else { Certainty::NotApplied };
    if refused {
        // What is unsure may have had its effect.
        if unsure && dice.chance(500) {
            corp.perform(now, visible_at, action);
        }
        corp.down = Some(DirectoryError::new(kind, certainty, "code", "words"));
    }
    let outcome = corp.perform(now, visible_at, action);
    corp.down = None;
    (!lost).then_some(outcome)
}

/// How many sessions a config keeps for others.
fn covered_by(known: &ConfigReport) -> u32 {
    let sessions = known.fallback.iter().map(|fallback| match fallback {
        Fallback::CoveringFor { sessions, .. } => *sessions,
        Fallback::CoveredBy { .. } => 0,
    });
    sessions.sum()
}

/// The noisy part of a walk.
fn wander(seed: u64, start: Timestamp) -> Walk {
    let mut walk = Walk::new(seed, start);
    while walk.steps < 900 {
        walk.somebody_does_something();
        let pause = match walk.dice.below(20) {
            0 => secs(walk.dice.between(300, 4000)),
            _ => Duration::from_millis(walk.dice.below(30_000)),
        };
        walk.run(pause);
    }
    walk
}

fn walk(seed: u64) -> Seen {
    let mut walk = wander(seed, T0);
    // All trouble stops, and nobody comes any more.
    walk.cloud.has_faults = false;
    let facts = (0..CONFIGS.len()).map(|index| walk.config_fact(index, true)).collect();
    walk.step(facts);
    for _ in 0..8 {
        walk.run(secs(3600));
        walk.acknowledge_losses();
    }
    walk.expect_converged();
    // A day of silence.
    let (creates, deletes) = (walk.creates, walk.deletes);
    walk.run(secs(24 * 3600));
    assert_eq!((walk.creates, walk.deletes), (creates, deletes), "I-17 something was made or deleted without need");
    walk.expect_converged();
    // And nothing is left behind.
    walk.step(CONFIGS.iter().map(|(name, ..)| Fact::ConfigRemoved(name.parse().unwrap())).collect());
    walk.run(secs(3600));
    assert!(walk.host.pool.is_empty(), "I-20 {:?}", walk.host.pool.report());
    assert!(walk.cloud.machines.is_empty(), "I-20 {:?}", walk.cloud.machines);
    assert!(walk.corp.objects.is_empty(), "I-21 {:?}", walk.corp.objects);
    assert_eq!(
        walk.host.store.rows.keys().filter(|key| !key.starts_with("session/")).count(),
        1,
        "{:?}",
        walk.host.store.rows.keys()
    );
    walk.seen
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn i_01_to_i_20_hold_on_random_walks_and_after_them() {
    let seeds = match number("KASM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("KASM_SEEDS").unwrap_or(40),
    };
    let (mut failed, mut all, mut walks) = (Vec::new(), Seen::default(), 0);
    for seed in seeds {
        match std::panic::catch_unwind(|| walk(seed)) {
            Ok(seen) => {
                all.covering += seen.covering;
                all.breaker += seen.breaker;
                all.kept += seen.kept;
                all.losses += seen.losses;
                walks += 1;
            }
            Err(_) => failed.push(seed),
        }
        if failed.len() == 3 {
            break;
        }
    }
    assert!(failed.is_empty(), "walks of these seeds failed: {failed:?}");
    let met_all = all.covering > 100 && all.breaker > 100 && all.kept > 100 && all.losses > 3;
    assert!(met_all || walks < 40, "the walks met too little: {all:?}");
}

#[test]
fn i_36_the_same_walk_twice_and_in_another_year_is_the_same() {
    for seed in 0..4 {
        let trace = wander(seed, T0).trace;
        assert_eq!(trace, wander(seed, T0).trace, "seed {seed}");
        assert_eq!(trace, wander(seed, T0 + secs(400 * 86_400)).trace, "seed {seed}, shifted in time");
        assert_ne!(trace, wander(seed + 1000, T0).trace, "another seed is another walk");
    }
}
