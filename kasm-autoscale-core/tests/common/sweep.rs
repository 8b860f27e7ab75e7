//! Stories in which the host dies where their texts do not say so, and what must come of them all the same.
//!
//! What a story says after that is done as far as it still fits: the answer to a command is given only if such a command is
//! under way, and so on. At the end all trouble stops, and the pool must come to rest where its configs want it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kasm_autoscale_core::command::{Action, Command};
use kasm_autoscale_core::id::{ServerId, SessionId};
use kasm_autoscale_core::input::{Answer, Fact, Input};
use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::ports::MachineState;
use kasm_autoscale_core::report::{Decision, Waiting, What};
use kasm_autoscale_core::row::{Batch, Outputs};
use kasm_autoscale_core::server::{Phase, PhaseKind};

use super::story::{Story, blocks};
use super::{directory_facts, known, secs};

/// How a host loses what it was about to do.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Way {
    /// It dies before the save: nothing of the step has happened.
    BeforeSave,
    /// It dies after the save, and no command has left.
    AfterSave,
    /// It dies when the commands have been carried out, and nobody has heard of it.
    AfterCalls,
    /// The save fails and has not taken place. The host lives on and reads the pool anew; calls under way go on.
    SaveFailed,
    /// The same, but the save has taken place: a transaction is torn only as a whole.
    SaveInDoubt,
}

impl Way {
    pub const ALL: [Self; 5] =
        [Self::BeforeSave, Self::AfterSave, Self::AfterCalls, Self::SaveFailed, Self::SaveInDoubt];

    const fn lives_on(self) -> bool {
        matches!(self, Self::SaveFailed | Self::SaveInDoubt)
    }

    const fn is_saved(self) -> bool {
        !matches!(self, Self::BeforeSave | Self::SaveFailed)
    }
}

/// What is known of a story in which the host dies.
#[derive(Debug, Default)]
pub struct Sweep {
    /// At which saves, each counted from the death before.
    deaths: VecDeque<(usize, Way)>,
    saves: usize,
    died: usize,
    /// Whether all trouble has stopped.
    healing: bool,
    /// Sessions that somebody was told of, and not of their end.
    promised: BTreeSet<SessionId>,
    /// Servers whose creates have left.
    created: BTreeSet<ServerId>,
    /// Commands given out that make or delete something.
    changes: usize,
    steps: usize,
}

/// How a story went.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Went {
    /// Saves while it was told, since the last death.
    pub saves: usize,
    /// How often the host died.
    pub died: usize,
    /// Steps in all.
    pub steps: usize,
}

/// Tells a story with these deaths, and goes on to its end.
pub fn swept(text: &str, deaths: &[(usize, Way)]) -> Went {
    let mut story: Option<Story> = None;
    for commands in blocks(text) {
        let lines: Vec<&str> = commands.into_iter().filter(|line| !line.starts_with('#')).collect();
        let Some(first) = lines.first() else { continue };
        let story = story.get_or_insert_with(|| {
            let mut story = Story::new(first);
            story.sweep = Some(Sweep { deaths: deaths.iter().copied().collect(), ..Sweep::default() });
            story
        });
        story.all.push_str(&(lines.join("\n") + "\n"));
        story.block(&lines);
    }
    let mut story = story.expect("a story");
    let saves = story.swept().saves;
    story.end();
    let Sweep { died, steps, .. } = *story.swept();
    Went { saves, died, steps }
}

impl Story {
    fn swept(&mut self) -> &mut Sweep {
        self.sweep.as_mut().expect("a story that is swept")
    }

    pub(super) fn is_healing(&self) -> bool {
        self.sweep.as_ref().is_some_and(|sweep| sweep.healing)
    }

    /// Whether a line of the story can be followed. Before the first death every one must be.
    pub(super) fn still_fits(&self, words: &[&str]) -> bool {
        if self.sweep.as_ref().is_none_or(|sweep| sweep.died == 0) {
            return true;
        }
        let server = || words.get(1).and_then(|text| text.parse::<ServerId>().ok());
        let under_way = |verb| self.host.command(verb, server()).is_some();
        match words[0] {
            "created" | "accepted" => under_way("create"),
            "polled" => under_way("poll"),
            "deleted" | "deleting" => under_way("delete"),
            "found" => under_way("find"),
            "answered" | "silent" => under_way("probe"),
            "list" => self.host.command("list", None).is_some(),
            "failed" | "lost" => {
                ["create", "poll", "find", "delete", "enroll", "find_computer", "check_join", "unenroll"]
                    .into_iter()
                    .any(under_way)
            }
            "disable" | "enable" => self.host.pool.config(&words[1].parse().unwrap()).is_some(),
            "machine" => {
                let there = self.cloud.keys().any(|(_, reference)| reference == words[1]);
                // What the story makes for a server is there only if its create has left.
                let asked = || words.get(3).and_then(|text| text.parse().ok());
                there || (words[2] != "gone" && asked().is_some_and(|id| self.may_have_machine(id)))
            }
            "corp" if matches!(words[1], "joined" | "children" | "gone") => {
                let id = words[2].parse().unwrap();
                self.corp.of(id).is_some()
            }
            _ => true,
        }
    }

    fn may_have_machine(&self, id: ServerId) -> bool {
        let created = self.sweep.as_ref().is_some_and(|sweep| sweep.created.contains(&id));
        // Stories call machines that no row has ever known by high numbers.
        created || id.serial() > 50
    }

    /// One step of a story that is swept: saved and let go, unless the host dies over it.
    pub(super) fn step_on(&mut self, batch: Batch, said: Vec<Input>) {
        let wrote = !batch.writes().is_empty();
        let sweep = self.swept();
        sweep.steps += 1;
        assert!(sweep.steps < 20_000, "no end of it");
        sweep.saves += usize::from(wrote);
        if let Some((at, way)) = sweep.deaths.front().copied().filter(|_| wrote)
            && at == sweep.saves
        {
            sweep.deaths.pop_front();
            sweep.saves = 0;
            return self.die(way, batch, said);
        }
        let outputs = self.host.save(batch);
        self.let_go(&outputs);
    }

    /// What the outside learns of a step.
    fn let_go(&mut self, outputs: &Outputs) {
        let sweep = self.sweep.as_mut().expect("a story that is swept");
        for (_, answer) in &outputs.answers {
            if let Answer::Session(id) = answer
                && self.host.pool.session(*id).is_some_and(|session| session.is_open())
            {
                sweep.promised.insert(*id);
            }
        }
        for event in &outputs.events {
            match &event.what {
                What::SessionOver { session, .. } => {
                    sweep.promised.remove(session);
                }
                What::Frozen { .. } => panic!("{}", event.what),
                _ => {}
            }
        }
        for command in &outputs.commands {
            let changes = matches!(command.action.verb(), "create" | "delete" | "enroll" | "unenroll");
            sweep.changes += usize::from(changes);
            if let Action::Create(create) = &command.action {
                let id = create.server.server;
                assert!(sweep.created.insert(id), "I-07 {id} is created twice");
                let of_config = self.host.pool.servers().filter(|server| server.config == create.config).count();
                assert!(
                    of_config <= create.spec.max_servers as usize,
                    "I-09 {of_config} of {}",
                    create.spec.max_servers
                );
            }
        }
    }

    fn die(&mut self, way: Way, batch: Batch, said: Vec<Input>) {
        match way {
            Way::BeforeSave | Way::SaveFailed => drop(batch),
            Way::AfterSave | Way::SaveInDoubt => self.host.store.save(batch.writes()),
            Way::AfterCalls => {
                let outputs = self.host.save(batch);
                self.let_go(&Outputs { commands: outputs.commands.clone(), ..Outputs::default() });
                let carried_out: Vec<Command> =
                    outputs.commands.into_iter().filter(|command| self.is_automatic(command)).collect();
                for command in &carried_out {
                    self.obey(command);
                }
            }
        }
        self.swept().died += 1;
        let under_way = std::mem::take(&mut self.host.in_flight);
        if !way.lives_on() {
            self.host.now = self.host.now + secs(3);
        }
        if self.host.store.rows.is_empty() {
            // Nothing was ever saved, so it begins anew.
            let spec = self.host.pool.spec().clone();
            self.host.pool = Pool::new(spec, self.host.now);
            self.host.wake_at = Some(self.host.now);
        } else {
            self.host.crash();
        }
        if way.lives_on() {
            self.host.in_flight = under_way;
        }
        self.expect_promises(way);
        // Who was not answered says it again.
        let again = said.into_iter().filter(|input| !matches!(input.fact, Fact::Finished(..)));
        let introductions = self.host.introductions().into_iter().map(Input::from);
        let inputs = introductions.chain(again).collect();
        self.step(inputs, &[]);
    }

    /// I-31: a session that somebody was told of is there after a death, unless the step that was saved has ended it.
    fn expect_promises(&mut self, way: Way) {
        let pool = &self.host.pool;
        let is_open = |id: &SessionId| pool.session(*id).is_some_and(|session| session.is_open());
        let promised = &mut self.sweep.as_mut().expect("a story that is swept").promised;
        if way.is_saved() {
            promised.retain(is_open);
        }
        let lost: Vec<_> = promised.iter().filter(|id| !is_open(id)).collect();
        assert!(lost.is_empty(), "I-31 {lost:?} were promised");
    }

    /// When all trouble has stopped: machines join and check in by themselves.
    pub(super) fn machines_speak(&mut self) -> Vec<Input> {
        if !self.is_healing() {
            return vec![];
        }
        self.corp.objects.values_mut().for_each(|object| object.joined = true);
        let silent = self.host.pool.servers().filter(|server| {
            let waits = self.host.pool.born_with(server).require_checkin && !server.has_checked_in();
            waits && matches!(server.phase, Phase::Starting { running: true, .. })
        });
        let speaks = |server: ServerId| Fact::CheckedIn {
            server,
            status: "running".into(),
            message: String::new(),
            progress: 100,
        };
        silent.map(|server| Input::from(speaks(server.id))).collect()
    }

    // --- the end ---

    fn end(&mut self) {
        assert!(self.swept().deaths.is_empty(), "it never came to {:?}", self.swept().deaths);
        self.heal();
        for _ in 0..8 {
            self.acknowledge();
            self.pass(secs(3600));
        }
        self.expect_at_rest();
        let changes = self.swept().changes;
        self.pass(secs(6 * 3600));
        assert_eq!(self.swept().changes, changes, "I-17 something was made or deleted without need");
        self.expect_at_rest();
        let names: Vec<_> = self.host.pool.configs().map(|spec| spec.name.clone()).collect();
        self.go(names.into_iter().map(|name| Input::from(Fact::ConfigRemoved(name))).collect());
        self.pass(secs(2 * 3600));
        assert!(self.host.pool.is_empty(), "I-20 {:#?}", self.host.pool.report());
        assert!(self.cloud.is_empty(), "I-20 {:?}", self.cloud);
        assert!(self.corp.objects.is_empty(), "I-21 {:?}", self.corp.objects);
        let left: Vec<&String> = self.host.store.rows.keys().filter(|key| *key != "pool").collect();
        assert!(left.is_empty(), "rows of nothing: {left:?}");
    }

    fn heal(&mut self) {
        self.manual.clear();
        self.mute.clear();
        (self.corp.down, self.corp.foreign) = (None, BTreeSet::new());
        self.corp.objects.values_mut().for_each(|object| object.has_children = false);
        self.cloud.retain(|_, machine| machine.state != MachineState::Deleting);
        for machine in self.cloud.values_mut() {
            if matches!(machine.state, MachineState::Provisioning | MachineState::Unknown(_)) {
                machine.state = MachineState::Running;
            }
        }
        self.swept().healing = true;
        if !self.host.pool.configs().any(|spec| spec.domain_join.is_some()) {
            // Nobody looks where no config joins: what a story has put there is not the pool's to find.
            self.corp.objects.retain(|_, object| object.server.serial() < 50);
        }
        // Whoever was missing is there.
        let named = self.host.pool.configs().map(|spec| &spec.provider);
        let missing = named.filter(|name| !self.host.providers.contains_key(*name));
        let mut facts: Vec<Fact> = missing.map(|name| known(name.as_str())).collect();
        if self.host.pool.configs().any(|spec| spec.domain_join.is_some()) {
            facts.push(Fact::DirectoryKnown("corp".parse().unwrap(), directory_facts()));
        }
        self.go(facts.into_iter().map(Input::from).collect());
        self.settle();
    }

    /// An operator knows that what listings miss is lost.
    fn acknowledge(&mut self) {
        let report = self.host.pool.report();
        let alarmed =
            report.configs.into_iter().filter(|known| known.loss.as_ref().is_some_and(|loss| !loss.acknowledged));
        let facts = alarmed.map(|known| Input::from(Fact::LossAcknowledged(known.config))).collect();
        self.go(facts);
    }

    /// I-16, I-20 and I-21: what is wanted is there, and nothing else.
    fn expect_at_rest(&self) {
        let pool = &self.host.pool;
        let report = pool.report();
        assert_eq!((report.waiting, report.sessions), (0, 0), "I-16 {report:#?}");
        assert!(report.orphans.is_empty() && report.orphan_computers.is_empty(), "I-20 {report:#?}");
        for known in &report.configs {
            let full = matches!(
                known.decision,
                Decision::Wait { because: Waiting::CapReached { .. } | Waiting::NamesUsedUp { .. }, .. }
            );
            let minimum = pool.config(&known.config).filter(|spec| spec.enabled);
            let minimum = minimum.map_or(0, |spec| spec.minimum_available_sessions);
            assert!(known.supply.free >= minimum || full, "I-16 {}: {known:#?}", known.config);
            let steady = matches!(known.decision, Decision::Steady { .. } | Decision::Empty);
            assert!(steady || full, "I-16 {}: {}", known.config, known.decision);
        }
        let mut machines: BTreeMap<String, usize> = BTreeMap::new();
        for machine in self.cloud.values() {
            *machines.entry(machine.marker.as_ref().expect("a mark").server.clone()).or_default() += 1;
        }
        let servers: BTreeMap<String, usize> = pool.servers().map(|server| (super::key(server.id).uuid(), 1)).collect();
        assert_eq!(machines, servers, "I-20 each server has one machine, and each machine a server");
        for server in pool.servers() {
            assert_eq!(server.phase.kind(), PhaseKind::Ready, "I-16 {server:#?}");
        }
        let joined: Vec<ServerId> =
            pool.servers().filter(|server| server.computer.is_some()).map(|server| server.id).collect();
        let mut objects: Vec<ServerId> = self.corp.objects.values().map(|object| object.server).collect();
        objects.sort_unstable();
        assert_eq!(objects, joined, "I-21 each server that joins has one object, and each object a server");
    }
}
