//! A host of its own, in forty lines: the loop that steps a pool, saves it, and carries out what it wants done.
//!
//! `cargo run --example embed` fills a pool, places users, kills the process in the middle, and goes on from the rows.
//! Nothing here waits: the clock is a number, so five minutes of a pool's life are over at once.
#![allow(clippy::print_stdout, reason = "the example shows what happens")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use kasm_autoscale_core::config::{ConfigSpec, JsonObject, PoolSpec, Problem};
use kasm_autoscale_core::execute::{Ports, execute};
use kasm_autoscale_core::id::{DeploymentId, PoolId, ProviderName, SecretName, ServerKey};
use kasm_autoscale_core::input::{Fact, Input};
use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::ports::{
    Address, Capabilities, Finding, Listing, Machine, MachineRef, MachineState, NoDirectories, OpRef, ProbeFailure,
    ProbeTarget, Prober, Progress, ProviderError, Providers, Secrets, ServerSpec, VmProvider,
};
use kasm_autoscale_core::row::{Row, RowKey, Write};
use kasm_autoscale_core::session::SessionRequest;
use kasm_autoscale_core::time::{Span, Timestamp};
use kasm_autoscale_core::token::DeploymentKey;
use secrecy::SecretString;

const POOL: PoolId = PoolId::from_bytes([7; 16]);
const START: Timestamp = Timestamp::from_secs(1_800_000_000);

// --- The host. This is all that an embedder has to write around a pool. ---

struct Host {
    pool: Pool,
    /// The store. In earnest it is a database, and `save` is one transaction.
    rows: BTreeMap<RowKey, Row>,
    /// What has happened since the last step.
    facts: Vec<Input>,
    world: World,
}

impl Host {
    /// Steps until nothing more happens before `end`.
    async fn run_until(&mut self, end: Timestamp) {
        loop {
            let batch = self.pool.step(self.world.now(), std::mem::take(&mut self.facts));
            self.save(batch.writes());
            // The outputs can be had only now, when what they rest on can no longer be lost.
            let outputs = batch.saved();
            for event in &outputs.events {
                println!("{:>8}  {}", Span(event.at.since(START)).to_string(), event.what);
            }
            for command in &outputs.commands {
                let outcome = execute(POOL, command, self.world.ports()).await;
                self.facts.push(Fact::Finished(command.id, outcome).into());
            }
            if self.facts.is_empty() {
                // In earnest: wait for facts from outside, or until then.
                let Some(wake_at) = outputs.wake_at.filter(|at| *at <= end) else { break };
                self.world.set_clock(wake_at);
            }
        }
        self.world.set_clock(end);
    }

    fn save(&mut self, writes: &[Write]) {
        for write in writes {
            match write {
                Write::Put(row) => drop(self.rows.insert(row.key(), row.clone())),
                Write::Delete(key) => drop(self.rows.remove(key)),
            }
        }
    }
}

// --- What happens in this example. ---

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::new(PoolSpec::new(DeploymentId::from_bytes([1; 16]), POOL, "desktops".parse()?), START);
    let mut host = Host { pool, rows: BTreeMap::new(), facts: Vec::new(), world: World::new() };

    // Ten sessions are to be free at all times, and a server takes four: the pool makes three servers.
    let config: ConfigSpec = serde_json::from_value(serde_json::json!({
        "name": "office",
        "provider": "garage",
        "minimum_available_sessions": 10,
        "max_sessions_per_server": 4,
        "reusable": true,
        "downscale_backoff": "10m",
    }))?;
    host.facts.push(host.world.introduction());
    host.facts.push(Fact::ConfigSet(Box::new(config)).into());
    host.run_until(START + Duration::from_secs(300)).await;

    println!("\nThree users come. The pool replaces what they take, before anybody has to wait.\n");
    for user in ["ann", "bea", "cem"] {
        let wish = SessionRequest { user: user.parse()?, zone: None, key: None };
        host.facts.push(Fact::SessionRequested(wish).into());
    }
    host.run_until(START + Duration::from_secs(310)).await;

    println!("\nThe process dies while a server is being made. Another one goes on from the rows.\n");
    host.pool = Pool::restore(host.rows.values().cloned(), host.world.now())?;
    host.facts.push(host.world.introduction());
    host.run_until(START + Duration::from_secs(600)).await;

    println!("\nWhere users are, and what there is:\n");
    for session in host.pool.sessions() {
        println!(
            "  {} is on {}",
            session.user,
            session.server().map_or("no server".into(), |server| server.to_string())
        );
    }
    for config in host.pool.report().configs {
        println!("  {}: {} servers ready, {}", config.config, config.servers.ready, config.decision);
    }
    let problems = host.pool.check().err().unwrap_or_default();
    println!("  {} rows saved, {} invariants violated", host.rows.len(), problems.len());
    assert!(problems.is_empty(), "{problems:?}");
    Ok(())
}

// --- A cloud in a box: machines run 40 seconds after they were asked for. Real ones are in the crate `kasm-providers`. ---

const BOOT_TIME: Duration = Duration::from_secs(40);

/// A provider of machines that are nothing but entries in a map.
struct Garage {
    clock: Mutex<Timestamp>,
    machines: Mutex<BTreeMap<MachineRef, (Timestamp, Machine)>>,
}

impl Garage {
    fn now(&self) -> Timestamp {
        *self.clock.lock().unwrap()
    }

    fn all(&self) -> Vec<Machine> {
        let now = self.now();
        let shown = |(made_at, machine): &(Timestamp, Machine)| {
            let state = if now >= *made_at + BOOT_TIME { MachineState::Running } else { MachineState::Provisioning };
            Machine { state, ..machine.clone() }
        };
        self.machines.lock().unwrap().values().map(shown).collect()
    }
}

#[async_trait]
impl VmProvider for Garage {
    fn describe(&self) -> Capabilities {
        Capabilities {
            kind: "garage",
            visibility_lag: Duration::ZERO,
            poll_busy: Duration::from_secs(5),
            poll_idle: Duration::from_secs(300),
            creates_in_flight_max: 10,
            call_timeout: Duration::from_secs(30),
            offering: &[],
        }
    }

    fn check(&self, _machine: &JsonObject, _user_data_bytes: usize) -> Vec<Problem> {
        Vec::new()
    }

    async fn preflight(&self, _machine: &JsonObject) -> Result<Vec<Finding>, ProviderError> {
        Ok(Vec::new())
    }

    async fn create(&self, spec: &ServerSpec) -> Result<Progress, ProviderError> {
        // Named by its token, a machine that is asked for twice is made once.
        let reference = MachineRef(spec.token.clone());
        let mut machines = self.machines.lock().unwrap();
        let host = format!("10.0.0.{}", machines.len() + 1);
        let address = Some(Address { host, port: None });
        let marker = Some(spec.marker.clone());
        let made =
            Machine { reference: reference.clone(), marker, state: MachineState::Provisioning, address, fault: None };
        machines.entry(reference.clone()).or_insert((self.now(), made));
        Ok(Progress::Pending { machine: Some(reference), op: None })
    }

    async fn poll(&self, _op: &OpRef) -> Result<Progress, ProviderError> {
        unreachable!("create names the machine at once, so there is no operation to poll")
    }

    async fn find(&self, server: &ServerKey) -> Result<Option<Machine>, ProviderError> {
        let marked = |machine: &Machine| machine.marker.as_ref().is_some_and(|marker| marker.server == server.uuid());
        Ok(self.all().into_iter().find(marked))
    }

    async fn list(&self, _pool: &PoolId) -> Result<Listing, ProviderError> {
        Ok(Listing { machines: self.all(), complete: true })
    }

    async fn delete(&self, machine: &MachineRef) -> Result<Progress, ProviderError> {
        self.machines.lock().unwrap().remove(machine);
        Ok(Progress::Done { machine: None })
    }
}

/// Everything outside the pool.
struct World {
    garage: Arc<Garage>,
    key: DeploymentKey,
}

impl World {
    fn new() -> Self {
        let garage = Garage { clock: Mutex::new(START), machines: Mutex::default() };
        // In earnest: 32 bytes from the system's random source, drawn once and kept.
        Self { garage: Arc::new(garage), key: DeploymentKey::new([3; 32]) }
    }

    fn now(&self) -> Timestamp {
        self.garage.now()
    }

    fn set_clock(&self, now: Timestamp) {
        *self.garage.clock.lock().unwrap() = now;
    }

    fn ports(&self) -> Ports<'_> {
        Ports { providers: self, directories: &NoDirectories, prober: self, secrets: self, key: &self.key }
    }

    /// What a pool is told first after every start.
    fn introduction(&self) -> Input {
        let name = "garage".parse().expect("a valid name");
        Fact::ProviderKnown(name, self.garage.describe()).into()
    }
}

impl Providers for World {
    fn provider(&self, name: &ProviderName) -> Option<Arc<dyn VmProvider>> {
        (name.as_str() == "garage").then(|| self.garage.clone() as Arc<dyn VmProvider>)
    }
}

#[async_trait]
impl Prober for World {
    async fn probe(&self, _target: &ProbeTarget) -> Result<(), ProbeFailure> {
        Ok(())
    }
}

impl Secrets for World {
    fn secret(&self, _name: &SecretName) -> Option<SecretString> {
        None
    }
}
