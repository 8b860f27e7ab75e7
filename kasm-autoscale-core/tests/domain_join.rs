//! Servers that join a domain, in a simulated world and through the real `execute`: a crash at every save, and everything that
//! can go wrong at random. Afterwards the set of marked objects equals the set of servers, and each password was good once.
#![cfg(feature = "testing")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use common::{DEPLOYMENT, Host, POOL, T0, pool_spec, secs};
use kasm_autoscale_core::command::{Command, Outcome};
use kasm_autoscale_core::config::{ConfigSpec, JsonObject, Problem};
use kasm_autoscale_core::execute::{Ports, check_config, execute};
use kasm_autoscale_core::id::{ConfigId, DirectoryName, PoolId, ProviderName, SecretName, ServerId, ServerKey};
use kasm_autoscale_core::input::{Fact, Input};
use kasm_autoscale_core::ports::{
    Capabilities, Computer, ComputerListing, ComputerRef, Directories, Directory, DirectoryError, DirectoryErrorKind,
    DirectoryFacts, Finding, JoinPassword, JoinState, Listing, Machine, MachineRef, Marker, NoDirectories, OpRef,
    ProbeFailure, ProbeTarget, Prober, Progress, ProviderError, Providers, Secrets, ServerSpec, VmProvider,
};
use kasm_autoscale_core::server::PhaseKind;
use kasm_autoscale_core::session::SessionRequest;
use kasm_autoscale_core::testing::cloud::{CloudSettings, Fault, SimCloud};
use kasm_autoscale_core::testing::directory::{DirectoryFault, DirectorySettings, JoinRefused, SimDirectory};
use kasm_autoscale_core::time::Timestamp;
use kasm_autoscale_core::token::{DeploymentKey, join_password};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

/// All that is outside of the pool.
struct Outside {
    cloud: SimCloud,
    corp: SimDirectory,
    now: Timestamp,
    /// The rendered start-up data of each machine, by server.
    user_data: BTreeMap<String, String>,
}

#[derive(Clone)]
struct World(Arc<Mutex<Outside>>);

/// No answer came: the future never ends, and the host gives up on it.
async fn lost<T>() -> T {
    std::future::pending().await
}

impl World {
    fn new(cloud: CloudSettings, corp: DirectorySettings, seed: u64) -> Self {
        let (cloud, corp) = (SimCloud::new(cloud, seed), SimDirectory::new(corp, seed));
        Self(Arc::new(Mutex::new(Outside { cloud, corp, now: T0, user_data: BTreeMap::new() })))
    }

    fn get(&self) -> MutexGuard<'_, Outside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Providers for World {
    fn provider(&self, name: &ProviderName) -> Option<Arc<dyn VmProvider>> {
        (name.as_str() == "aws").then(|| Arc::new(self.clone()) as _)
    }
}

impl Directories for World {
    fn directory(&self, name: &DirectoryName) -> Option<Arc<dyn Directory>> {
        (name.as_str() == "corp").then(|| Arc::new(self.clone()) as _)
    }
}

impl Secrets for World {
    fn secret(&self, _: &SecretName) -> Option<SecretString> {
        None
    }
}

#[async_trait]
impl Prober for World {
    async fn probe(&self, target: &ProbeTarget) -> Result<(), ProbeFailure> {
        let outside = self.get();
        let mut live = outside.cloud.live(outside.now);
        let answers = live.any(|machine| machine.address.host == target.host && machine.answers(outside.now));
        if answers { Ok(()) } else { Err(ProbeFailure { message: "no answer".into() }) }
    }
}

#[async_trait]
impl VmProvider for World {
    fn describe(&self) -> Capabilities {
        Capabilities { visibility_lag: secs(20), ..common::capabilities() }
    }

    fn check(&self, _: &JsonObject, _: usize) -> Vec<Problem> {
        vec![]
    }

    async fn preflight(&self, _: &JsonObject) -> Result<Vec<Finding>, ProviderError> {
        Ok(vec![])
    }

    async fn create(&self, spec: &ServerSpec) -> Result<Progress, ProviderError> {
        let answer = {
            let mut outside = self.get();
            let text = spec.user_data.as_ref().map(|text| text.expose_secret().to_owned()).unwrap_or_default();
            outside.user_data.insert(spec.token.clone(), text);
            let now = outside.now;
            outside.cloud.create(now, spec)
        };
        match answer {
            Ok(answer) => answer,
            Err(_) => lost().await,
        }
    }

    async fn poll(&self, op: &OpRef) -> Result<Progress, ProviderError> {
        let mut outside = self.get();
        let now = outside.now;
        outside.cloud.poll(now, op)
    }

    async fn find(&self, server: &ServerKey) -> Result<Option<Machine>, ProviderError> {
        let mut outside = self.get();
        let now = outside.now;
        outside.cloud.find(now, server)
    }

    async fn list(&self, pool: &PoolId) -> Result<Listing, ProviderError> {
        let mut outside = self.get();
        let now = outside.now;
        outside.cloud.list(now, pool)
    }

    async fn delete(&self, machine: &MachineRef) -> Result<Progress, ProviderError> {
        let answer = {
            let mut outside = self.get();
            let now = outside.now;
            outside.cloud.delete(now, machine)
        };
        match answer {
            Ok(answer) => answer,
            Err(_) => lost().await,
        }
    }
}

#[async_trait]
impl Directory for World {
    fn describe(&self) -> DirectoryFacts {
        self.get().corp.describe()
    }

    fn check(&self, ou: &str) -> Vec<Problem> {
        let is_known = ou.ends_with("DC=corp,DC=example");
        if is_known { vec![] } else { vec![Problem::new("", ou, "a name below DC=corp,DC=example")] }
    }

    async fn preflight(&self, _: &str) -> Result<Vec<Finding>, DirectoryError> {
        Ok(vec![])
    }

    async fn ensure_computer(
        &self,
        computer: &Computer,
        password: &JoinPassword,
    ) -> Result<ComputerRef, DirectoryError> {
        let answer = {
            let mut outside = self.get();
            let now = outside.now;
            outside.corp.ensure_computer(now, computer, password)
        };
        match answer {
            Ok(answer) => answer,
            Err(_) => lost().await,
        }
    }

    async fn find_computer(&self, server: &ServerKey) -> Result<Option<ComputerRef>, DirectoryError> {
        let mut outside = self.get();
        let now = outside.now;
        outside.corp.find_computer(now, server)
    }

    async fn joined(&self, computer: &ComputerRef) -> Result<JoinState, DirectoryError> {
        let mut outside = self.get();
        let now = outside.now;
        outside.corp.joined(now, computer)
    }

    async fn delete_computer(&self, computer: &ComputerRef, recursive: bool) -> Result<(), DirectoryError> {
        let answer = {
            let mut outside = self.get();
            let now = outside.now;
            outside.corp.delete_computer(now, computer, recursive)
        };
        match answer {
            Ok(answer) => answer,
            Err(_) => lost().await,
        }
    }

    async fn list_computers(&self, pool: &PoolId) -> Result<ComputerListing, DirectoryError> {
        let mut outside = self.get();
        let now = outside.now;
        outside.corp.list_computers(now, pool)
    }
}

/// Before what the process dies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Death {
    /// The save failed: nothing of the step has happened.
    Save,
    /// It is saved, and no command has left.
    Calls,
    /// The commands were carried out, and nobody has heard of it.
    Answers,
}

struct Life {
    host: Host,
    world: World,
    key: DeploymentKey,
    runtime: tokio::runtime::Runtime,
    /// Saves so far, and at which of them to die, and how.
    saves: usize,
    death: Option<(usize, Death)>,
    /// Machines that have joined, by server.
    joined: BTreeSet<String>,
    deadlines: BTreeMap<Timestamp, Vec<Command>>,
}

const SCRIPT: &str = "join {domain} {server_hostname} {ad_join_credential}";

fn config(fields: Value) -> ConfigSpec {
    let mut object = json!({
        "name": "desks", "provider": "aws", "minimum_available_sessions": 2, "max_servers": 4, "boot_deadline": "8m",
        "downscale_backoff": "3m",
        "ad_directory": "corp", "ad_computer_ou_dn": "OU=Desks,DC=corp,DC=example", "startup_script": SCRIPT,
    });
    object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    ConfigSpec::from_json(object.as_object().unwrap()).unwrap()
}

impl Life {
    fn new(world: World, death: Option<(usize, Death)>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut life = Self {
            host: Host::new(pool_spec()),
            world,
            key: DeploymentKey::new([7; 32]),
            runtime,
            saves: 0,
            death: None,
            joined: BTreeSet::new(),
            deadlines: BTreeMap::new(),
        };
        // Before anything was saved there is nothing to come back to.
        let facts = life.introductions();
        life.step(facts);
        life.death = death;
        life
    }

    fn introductions(&self) -> Vec<Fact> {
        vec![
            Fact::ProviderKnown("aws".parse().unwrap(), VmProvider::describe(&self.world)),
            Fact::DirectoryKnown("corp".parse().unwrap(), Directory::describe(&self.world)),
        ]
    }

    /// One step, and all that follows from it at once.
    fn step(&mut self, facts: Vec<Fact>) {
        let mut facts = facts;
        for _ in 0..60 {
            let batch = self.host.decide(facts.drain(..).map(Input::from).collect());
            let wrote = !batch.writes().is_empty();
            self.saves += usize::from(wrote);
            let death = self.death.filter(|(at, _)| wrote && *at == self.saves).map(|(_, death)| death);
            if death == Some(Death::Save) {
                drop(batch);
                facts = self.crash();
                continue;
            }
            let commands = self.host.save(batch).commands;
            if death == Some(Death::Calls) {
                facts = self.crash();
                continue;
            }
            let answered: Vec<Fact> = commands.into_iter().filter_map(|command| self.carry_out(command)).collect();
            self.expect_sound();
            if death == Some(Death::Answers) {
                facts = self.crash();
                continue;
            }
            if answered.is_empty() {
                return;
            }
            facts = answered;
        }
        panic!("the pool never settles: {:#?}", self.host.pool.report());
    }

    /// Carries a command out. `None`: no answer comes, until its time is over.
    fn carry_out(&mut self, command: Command) -> Option<Fact> {
        let world = &self.world;
        let ports = Ports { providers: world, directories: world, prober: world, secrets: world, key: &self.key };
        let call = async {
            tokio::select! {
                biased;
                outcome = execute(POOL, &command, ports) => Some(outcome),
                () = std::future::ready(()) => None,
            }
        };
        match self.runtime.block_on(call) {
            Some(outcome) => Some(Fact::Finished(command.id, outcome)),
            None => {
                self.deadlines.entry(self.host.now + command.timeout).or_default().push(command);
                None
            }
        }
    }

    fn crash(&mut self) -> Vec<Fact> {
        self.death = None;
        self.deadlines.clear();
        self.host.now = self.host.now + secs(7);
        self.world.get().now = self.host.now;
        self.host.crash();
        self.introductions()
    }

    fn run(&mut self, span: Duration) {
        let end = self.host.now + span;
        loop {
            let wake_at = self.host.wake_at.unwrap_or(end);
            let given_up = self.deadlines.first_key_value().map_or(end, |(at, _)| *at);
            // Machines are looked after now and then.
            let next = (self.host.now + secs(15)).min(wake_at).min(given_up).max(self.host.now).min(end);
            self.host.now = next;
            self.world.get().now = next;
            self.machines_join();
            let mut facts = Vec::new();
            while let Some(entry) = self.deadlines.first_entry().filter(|entry| *entry.key() <= next) {
                facts.extend(entry.remove().iter().map(|command| Fact::Finished(command.id, Outcome::Lost)));
            }
            if !facts.is_empty() || self.host.wake_at.is_some_and(|wake_at| wake_at <= next) {
                self.step(facts);
            }
            if self.host.now >= end {
                return;
            }
        }
    }

    /// Machines that have booted run their script, once.
    fn machines_join(&mut self) {
        let mut outside = self.world.get();
        let now = outside.now;
        let live = outside.cloud.live(now).filter(|machine| machine.answers(now));
        let booted: Vec<String> = live.filter_map(|machine| machine.token.clone()).collect();
        for uuid in booted {
            let Some(text) = outside.user_data.get(&uuid).filter(|_| !self.joined.contains(&uuid)).cloned() else {
                continue;
            };
            let [verb, domain, name, password] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
            assert_eq!((verb, domain), ("join", "corp.example"));
            assert_eq!(outside.corp.join(now, name, "guessed"), Err(JoinRefused::WrongPassword));
            assert_eq!(outside.corp.join(now, name, password), Ok(()), "the password of {name} is good");
            assert_eq!(outside.corp.join(now, name, password), Err(JoinRefused::Used), "and only once");
            self.joined.insert(uuid);
        }
    }

    /// What must hold at every moment.
    fn expect_sound(&self) {
        let outside = self.world.get();
        let marked = outside.corp.marked(&POOL);
        assert!(outside.corp.duplicates().is_empty(), "I-21 {:?}", outside.corp.duplicates());
        for machine in outside.cloud.live(outside.now) {
            let server = machine.server.unwrap().uuid();
            assert!(marked.contains(&server), "I-21 a machine without its computer object: {machine:?}");
        }
        for server in self.host.pool.servers() {
            let uuid = common::key(server.id).uuid();
            let ready = server.phase.kind() == PhaseKind::Ready;
            assert!(!ready || self.joined.contains(&uuid), "I-24 {} is ready and has not joined", server.id);
        }
    }

    /// At rest, the objects are those of the servers.
    fn expect_at_rest(&self) {
        let servers: BTreeSet<String> = self.host.pool.servers().map(|server| common::key(server.id).uuid()).collect();
        let outside = self.world.get();
        assert_eq!(outside.corp.marked(&POOL), servers, "I-21 {:#?}", self.host.pool.report());
        assert_eq!(outside.cloud.live_count(outside.now), servers.len(), "I-20");
    }

    /// A whole life: servers are made, used and given up, and nothing is left.
    fn live(&mut self) {
        self.step(vec![Fact::ConfigSet(Box::new(config(json!({}))))]);
        self.run(secs(600));
        let request = SessionRequest { user: "ann".parse().unwrap(), zone: None, key: Some("k".into()) };
        self.step(vec![Fact::SessionRequested(request)]);
        self.run(secs(5));
        self.end_sessions();
        self.run(secs(600));
    }

    fn end_sessions(&mut self) {
        let open = self.host.pool.sessions().filter(|session| session.is_open());
        let facts = open.map(|session| Fact::SessionEnded(session.id)).collect();
        self.step(facts);
    }

    /// Faults have stopped; so long after that all must be well, and once more so long after the config has been removed.
    fn end(&mut self, span: Duration) {
        // What was said in a step that was lost with its process is said again.
        self.end_sessions();
        self.step(vec![Fact::ConfigSet(Box::new(config(json!({ "ad_recursive_cleanup": true }))))]);
        self.run(span);
        let ready = self.host.pool.servers().filter(|server| server.phase.kind() == PhaseKind::Ready).count();
        assert_eq!(ready, 2, "I-16 {:#?}", self.host.pool.report());
        self.expect_at_rest();
        self.step(vec![Fact::ConfigRemoved("desks".parse().unwrap())]);
        self.run(span);
        assert!(self.host.pool.is_empty(), "I-20 {:#?}", self.host.pool.report());
        self.expect_at_rest();
    }
}

#[test]
fn i_21_a_crash_at_every_save_leaves_neither_an_object_nor_a_server_alone() {
    let world = || World::new(CloudSettings::default(), DirectorySettings::default(), 1);
    let mut undisturbed = Life::new(world(), None);
    undisturbed.live();
    let saves = undisturbed.saves;
    undisturbed.end(secs(1200));
    assert!(saves > 20, "{saves} saves are no life");
    for at in 2..=saves {
        for death in [Death::Save, Death::Calls, Death::Answers] {
            let mut life = Life::new(world(), Some((at, death)));
            life.live();
            assert_eq!(life.death, None, "it died at save {at}");
            life.end(secs(1200));
        }
    }
}

/// A cloud and a directory in which everything goes wrong now and then.
fn troubled(seed: u64) -> World {
    let mut cloud = CloudSettings { visibility_lag: Duration::ZERO..=secs(20), ..CloudSettings::default() };
    for fault in
        [Fault::CreateError, Fault::LostBeforeEffect, Fault::LostAfterEffect, Fault::BootStuck, Fault::ReadError]
    {
        cloud.faults.set(fault, 80_000);
    }
    let lag = Duration::ZERO..=secs(30);
    let mut corp = DirectorySettings { visibility_lag: lag, poll_idle: secs(120), ..DirectorySettings::default() };
    for fault in DirectoryFault::ALL {
        corp = corp.with(fault, 150_000);
    }
    World::new(cloud, corp, seed)
}

#[test]
fn i_21_whatever_goes_wrong_objects_and_servers_agree_in_the_end() {
    let mut hits: BTreeMap<DirectoryFault, u64> = BTreeMap::new();
    for seed in 0..12 {
        let world = troubled(seed);
        let taken = ServerKey { pool: POOL, server: ServerId::new(seed % 5 + 1) };
        world.get().corp.add_foreign(T0, None, taken.machine_name().as_str());
        let marker = Marker {
            deployment: DEPLOYMENT,
            pool: POOL,
            config: ConfigId::new(1),
            server: common::key(ServerId::new(9999)).uuid(),
        };
        world.get().corp.add_foreign(T0, Some(marker), "left-over");
        let mut life = Life::new(world.clone(), Some((usize::try_from(seed).unwrap() * 3 + 2, Death::Answers)));
        life.live();
        life.live();
        {
            let mut outside = world.get();
            for fault in DirectoryFault::ALL {
                *hits.entry(fault).or_default() += outside.corp.hits(fault);
            }
            outside.corp.settings_mut().faults.clear();
            outside.cloud.settings_mut().faults = Default::default();
        }
        life.end(secs(2 * 3600));
        // What bears no mark of ours was left alone.
        let names: Vec<String> = world.get().corp.live().map(|computer| computer.name.clone()).collect();
        assert_eq!(names, [taken.machine_name().to_string()], "seed {seed}");
    }
    assert!(DirectoryFault::ALL.iter().all(|fault| hits[fault] > 0), "a fault never came: {hits:?}");
}

#[test]
fn a_directory_that_is_down_stops_nothing_but_joins() {
    let world = World::new(CloudSettings::default(), DirectorySettings::default(), 1);
    let mut life = Life::new(world.clone(), None);
    world.get().corp.set_down(Some(DirectoryErrorKind::Denied));
    life.step(vec![Fact::ConfigSet(Box::new(config(json!({}))))]);
    life.run(secs(3600));
    assert_eq!(life.host.pool.servers().count(), 0, "each try is over when it has failed");
    assert_eq!(world.get().cloud.created_total(), 0, "no machine is made before its object");
    let calls = world.get().corp.calls_total();
    assert!(calls < 40, "{calls} calls in an hour to a directory that refuses are too many");
    world.get().corp.set_down(None);
    life.run(secs(3600));
    life.expect_at_rest();
}

#[test]
fn check_config_tells_what_only_the_directory_knows() {
    let world = World::new(CloudSettings::default(), DirectorySettings::default(), 1);
    let key = DeploymentKey::new([7; 32]);
    let said = |spec: &ConfigSpec, directories: &dyn Directories| -> Vec<String> {
        check_config(spec, &key, &world, directories, &world).iter().map(ToString::to_string).collect()
    };
    let none: [&str; 0] = [];
    assert_eq!(said(&config(json!({})), &world), none);
    assert_eq!(
        said(&config(json!({ "ad_computer_ou_dn": "OU=x,DC=other" })), &world),
        ["ad_computer_ou_dn: given OU=x,DC=other; a name below DC=corp,DC=example"]
    );
    assert_eq!(
        said(&config(json!({})), &NoDirectories),
        ["ad_directory: given \"corp\"; the host has no directory of this name; it is the name of an LDAP config"]
    );
}

#[test]
fn i_27_the_join_password_is_in_the_start_up_data_and_nowhere_else() {
    let world = World::new(CloudSettings::default(), DirectorySettings::default(), 1);
    let mut life = Life::new(world.clone(), None);
    life.live();
    let canary = join_password(&life.key, &common::key(ServerId::new(1)), 0);
    let canary = canary.expose_secret();
    assert!(world.get().user_data.values().any(|text| text.contains(canary)));
    let stored = format!("{:?}", life.host.store);
    let shown = format!(
        "{:?} {:?} {:?}",
        life.host.pool.report(),
        life.host.in_flight,
        world.get().corp.computers().collect::<Vec<_>>()
    );
    assert!(!stored.contains(canary) && !shown.contains(canary), "I-27");
}
