//! What the tests of the core share: a pool with a store beside it, and short ways to say things.
// Each test file uses a part of this, and is compiled with all of it.
#![allow(dead_code, unreachable_pub)]

pub mod cloud;
pub mod directory;
pub mod history;
pub mod story;
pub mod sweep;
pub mod words;

use std::collections::BTreeMap;
use std::time::Duration;

use kasm_autoscale_core::command::{Action, Command, Outcome};
use kasm_autoscale_core::config::{ConfigSpec, PoolSpec};
use kasm_autoscale_core::id::{
    CommandId, DeploymentId, DirectoryName, PoolId, ProviderName, ServerId, ServerKey, SessionId,
};
use kasm_autoscale_core::input::{Fact, Input};
use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::ports::{Address, Capabilities, DirectoryFacts, Machine, MachineRef, MachineState, Marker};
use kasm_autoscale_core::report::Event;
use kasm_autoscale_core::row::{Batch, Outputs, Row, Write};
use kasm_autoscale_core::server::{Phase, PhaseKind, Server};
use kasm_autoscale_core::session::SessionRequest;
use kasm_autoscale_core::time::Timestamp;
use serde_json::{Value, json};

/// When every test begins.
pub const T0: Timestamp = Timestamp::from_secs(1_700_000_000);
pub const DEPLOYMENT: DeploymentId = DeploymentId::from_bytes([1; 16]);
pub const POOL: PoolId = PoolId::from_bytes([2; 16]);

pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub fn pool_spec() -> PoolSpec {
    PoolSpec::new(DEPLOYMENT, POOL, "desktops".parse().unwrap())
}

/// A config named `aws` at a provider named `aws`, with some fields set.
pub fn config(fields: Value) -> ConfigSpec {
    let mut object = json!({ "name": "aws", "provider": "aws", "reusable": true });
    let target = object.as_object_mut().unwrap();
    target.extend(fields.as_object().unwrap().clone());
    ConfigSpec::from_json(object.as_object().unwrap()).unwrap()
}

pub fn set(fields: Value) -> Fact {
    Fact::ConfigSet(Box::new(config(fields)))
}

pub fn capabilities() -> Capabilities {
    Capabilities {
        kind: "fake",
        visibility_lag: secs(60),
        poll_busy: secs(5),
        poll_idle: secs(300),
        creates_in_flight_max: 50,
        call_timeout: secs(30),
        offering: &["size", "place"],
    }
}

pub fn provider(name: &str) -> ProviderName {
    name.parse().unwrap()
}

pub fn known(name: &str) -> Fact {
    Fact::ProviderKnown(provider(name), capabilities())
}

/// What the directory `corp` of the tests says of itself.
pub fn directory_facts() -> DirectoryFacts {
    DirectoryFacts {
        domain: "corp.example".into(),
        visibility_lag: secs(30),
        poll_busy: secs(10),
        poll_idle: secs(600),
        call_timeout: secs(20),
    }
}

pub fn directory_known() -> Fact {
    Fact::DirectoryKnown("corp".parse().unwrap(), directory_facts())
}

pub fn request(user: &str) -> Fact {
    Fact::SessionRequested(SessionRequest { user: user.parse().unwrap(), zone: None, key: None })
}

pub const fn srv(serial: u64) -> ServerId {
    ServerId::new(serial)
}

pub const fn ses(serial: u64) -> SessionId {
    SessionId::new(serial)
}

pub fn key(server: ServerId) -> ServerKey {
    ServerKey { pool: POOL, server }
}

/// A machine of ours.
pub fn machine(reference: &str, server: ServerId, config: u32, state: MachineState, host: Option<&str>) -> Machine {
    let config = kasm_autoscale_core::id::ConfigId::new(config);
    Machine {
        reference: MachineRef(reference.into()),
        marker: Some(Marker { deployment: DEPLOYMENT, pool: POOL, config, server: key(server).uuid() }),
        state,
        address: host.map(|host| Address { host: host.into(), port: None }),
        fault: None,
    }
}

/// What a store holds: the rows as text, so that nothing survives in it that is not written.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Store {
    pub rows: BTreeMap<String, String>,
}

impl Store {
    pub fn save(&mut self, writes: &[Write]) {
        for write in writes {
            let key = write.key().to_string();
            match write {
                Write::Put(row) => self.rows.insert(key, serde_json::to_string(row).unwrap()),
                Write::Delete(_) => self.rows.remove(&key),
            };
        }
    }

    pub fn load(&self) -> Vec<Row> {
        self.rows.values().map(|text| serde_json::from_str(text).unwrap()).collect()
    }

    pub fn row(&self, key: &str) -> Option<Row> {
        self.rows.get(key).map(|text| serde_json::from_str(text).unwrap())
    }

    pub fn server(&self, id: ServerId) -> Option<Server> {
        match self.row(&format!("server/{}", id.serial()))? {
            Row::Server(server) => Some(server),
            other => panic!("{other:?}"),
        }
    }

    /// Whether the store holds exactly what the pool has in mind.
    pub fn expect_like(&self, pool: &Pool) {
        let mut live: BTreeMap<String, String> = BTreeMap::new();
        let servers = pool.servers().cloned().map(Row::Server);
        let sessions = pool.sessions().cloned().map(Row::Session);
        for row in servers.chain(sessions) {
            live.insert(row.key().to_string(), serde_json::to_string(&row).unwrap());
        }
        let of_kind = |key: &&String| key.starts_with("server/") || key.starts_with("session/");
        let stored: BTreeMap<_, _> =
            self.rows.iter().filter(|(key, _)| of_kind(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
        assert_eq!(stored, live, "the store and the pool differ");
    }
}

/// A host of one pool: it saves every batch before it looks at the outputs, and remembers the commands under way.
pub struct Host {
    pub pool: Pool,
    pub store: Store,
    pub now: Timestamp,
    pub providers: BTreeMap<ProviderName, Capabilities>,
    pub directories: BTreeMap<DirectoryName, DirectoryFacts>,
    pub in_flight: BTreeMap<CommandId, Command>,
    pub wake_at: Option<Timestamp>,
}

impl Host {
    pub fn new(spec: PoolSpec) -> Self {
        Self::beginning_at(T0, spec)
    }

    pub fn beginning_at(now: Timestamp, spec: PoolSpec) -> Self {
        let pool = Pool::new(spec, now);
        let (store, providers, in_flight) = (Store::default(), BTreeMap::new(), BTreeMap::new());
        Self { pool, store, now, providers, directories: BTreeMap::new(), in_flight, wake_at: None }
    }

    /// Steps, checks, saves, and only then takes the outputs.
    pub fn step(&mut self, facts: impl IntoIterator<Item = Fact>) -> Outputs {
        self.step_inputs(facts.into_iter().map(Input::from).collect())
    }

    pub fn step_inputs(&mut self, inputs: Vec<Input>) -> Outputs {
        let batch = self.decide(inputs);
        self.save(batch)
    }

    /// The step alone. If the batch is then dropped, the pool must be too.
    pub fn decide(&mut self, inputs: Vec<Input>) -> Batch {
        for input in &inputs {
            match &input.fact {
                Fact::ProviderKnown(name, capabilities) => {
                    self.providers.insert(name.clone(), capabilities.clone());
                }
                Fact::DirectoryKnown(name, facts) => {
                    self.directories.insert(name.clone(), facts.clone());
                }
                Fact::Finished(command, _) => {
                    self.in_flight.remove(command);
                }
                _ => {}
            }
        }
        let batch = self.pool.step(self.now, inputs);
        if let Err(violations) = self.pool.check() {
            let text: Vec<String> = violations.iter().map(ToString::to_string).collect();
            panic!("check() found:\n{}", text.join("\n"));
        }
        batch
    }

    pub fn save(&mut self, batch: Batch) -> Outputs {
        self.store.save(batch.writes());
        let outputs = batch.saved();
        for command in &outputs.commands {
            self.expect_written(command);
            let known = self.in_flight.insert(command.id, command.clone());
            assert!(known.is_none(), "{} was given out twice", command.id);
        }
        self.wake_at = outputs.wake_at;
        outputs
    }

    /// I-06 and I-14: the store knows of a call before it leaves, and no machine is deleted that has sessions.
    fn expect_written(&self, command: &Command) {
        match &command.action {
            Action::Create(create) => {
                let row = self.store.server(create.server.server).expect("I-06 a create has a row");
                assert_eq!(row.phase.kind(), PhaseKind::Creating, "I-06 {row:?}");
                let joins = create.spec.domain_join.is_some();
                assert_eq!(joins, row.computer.is_some(), "I-21 a machine before its computer object: {row:?}");
            }
            Action::Enroll(enroll) => {
                let row = self.store.server(enroll.server.server).expect("I-06 an enrolment has a row");
                assert_eq!(row.phase.kind(), PhaseKind::Enrolling, "I-06 {row:?}");
            }
            Action::Unenroll { computer, .. } => {
                let of_computer = |server: &&Server| server.computer.as_ref() == Some(computer);
                if let Some(server) = self.pool.servers().find(of_computer) {
                    let row = self.store.server(server.id).expect("I-06 a removal has a row");
                    assert_eq!(row.phase.kind(), PhaseKind::Unenrolling, "I-21 {row:?}");
                }
            }
            Action::Delete { machine, .. } => {
                let of_machine = |server: &&Server| server.machine.as_ref() == Some(machine);
                if let Some(server) = self.pool.servers().find(of_machine) {
                    let row = self.store.server(server.id).expect("I-06 a delete has a row");
                    assert!(matches!(row.phase, Phase::Deleting { .. }), "I-06 {row:?}");
                    let on_it = self.pool.sessions().filter(|session| session.server() == Some(server.id)).count();
                    assert_eq!(on_it, 0, "I-14 {} is deleted under its sessions", server.id);
                }
            }
            _ => {}
        }
    }

    /// Dies, and comes back with what was saved. Commands under way are forgotten with their outcomes.
    pub fn crash(&mut self) {
        self.in_flight.clear();
        self.pool = Pool::restore(self.store.load(), self.now).expect("what was saved can be restored");
        self.pool.check().expect("a restored pool adds up");
        self.wake_at = Some(self.now);
    }

    /// What a host says first after a start.
    pub fn introductions(&self) -> Vec<Fact> {
        let providers = self.providers.iter().map(|(name, known)| Fact::ProviderKnown(name.clone(), known.clone()));
        let directories = self.directories.iter();
        providers.chain(directories.map(|(name, known)| Fact::DirectoryKnown(name.clone(), known.clone()))).collect()
    }

    /// The newest command of this verb that is under way for a server.
    pub fn command(&self, verb: &str, server: Option<ServerId>) -> Option<Command> {
        let fits = |command: &&Command| {
            command.action.verb() == verb && (server.is_none() || self.server_of(&command.action) == server)
        };
        self.in_flight.values().rfind(fits).cloned()
    }

    /// The server that a command is for.
    pub fn server_of(&self, action: &Action) -> Option<ServerId> {
        let by =
            |fits: &dyn Fn(&Server) -> bool| self.pool.servers().find(|server| fits(server)).map(|server| server.id);
        match action {
            Action::Create(create) => Some(create.server.server),
            Action::Find { server, .. } => Some(server.server),
            Action::Delete { machine, .. } => by(&|server| server.machine.as_ref() == Some(machine)),
            Action::Probe { target } => {
                by(&|server| self.pool.address(server).is_some_and(|address| address.host == target.host))
            }
            Action::Poll { op, .. } => {
                op.0.strip_prefix("op-").and_then(|serial| serial.parse().ok()).map(ServerId::new)
            }
            Action::Enroll(enroll) => Some(enroll.server.server),
            Action::FindComputer { server, .. } => Some(server.server),
            Action::CheckJoin { computer, .. } | Action::Unenroll { computer, .. } => {
                by(&|server| server.computer.as_ref() == Some(computer))
            }
            Action::List { .. } | Action::ListComputers { .. } => None,
        }
    }

    /// The newest command of this verb comes to this end.
    pub fn finish(&mut self, verb: &str, server: Option<ServerId>, outcome: Outcome) -> Outputs {
        let command =
            self.command(verb, server).unwrap_or_else(|| panic!("no {verb} is under way: {:?}", self.in_flight));
        self.step([Fact::Finished(command.id, outcome)])
    }

    pub fn phase(&self, id: ServerId) -> PhaseKind {
        self.pool.server(id).map_or(PhaseKind::Gone, |server| server.phase.kind())
    }
}

pub fn described(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| event.what.to_string()).collect()
}

/// SplitMix64: the same numbers from the same seed, on every machine.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// True so many times in a thousand.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let count = u64::try_from(items.len()).ok().filter(|count| *count > 0)?;
        items.get(usize::try_from(self.below(count)).ok()?)
    }
}
