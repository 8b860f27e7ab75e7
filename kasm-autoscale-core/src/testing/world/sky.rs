//! The simulated clouds of a world, behind the core's own ports, so that commands are carried out by the real `execute`.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::{Future, pending};
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use super::super::choices::Stream;
use super::super::cloud::{Answer, Fault, SimCloud, SimMachine};
use super::super::entropy::{Entropy, MILLION};
use super::super::lock::{Shared, locked};
use super::domain::{Domain, gate};
use super::weather::{Personality, Trouble};
use crate::command::{Command, Outcome};
use crate::config::{JsonObject, Problem};
use crate::execute::{Ports, execute};
use crate::id::{DirectoryName, PoolId, ProviderName, SecretName, ServerKey};
use crate::ports::{
    Address, Capabilities, Certainty, Directories, Directory, ErrorKind, Finding, Listing, Machine, MachineRef, OpRef,
    ProbeFailure, ProbeTarget, Prober, Progress, ProviderError, Providers, Scope, Secrets, ServerSpec, VmProvider,
};
use crate::time::Timestamp;
use crate::token::DeploymentKey;

/// One cloud with all that is wrong with it.
pub(super) struct Cloud {
    pub(super) name: ProviderName,
    pub(super) personality: Personality,
    pub(super) capabilities: Capabilities,
    pub(super) sim: SimCloud<Stream>,
    pub(super) entropy: Stream,
    pub(super) now: Timestamp,
    /// Until when every call fails, or hangs.
    pub(super) outage_until: Timestamp,
    pub(super) hang_until: Timestamp,
    pub(super) rates: BTreeMap<Trouble, u32>,
    /// What struck since it was last asked.
    pub(super) struck: Vec<&'static str>,
    /// Machines this cloud has lied about.
    pub(super) lied_about: Vec<MachineRef>,
    /// Machines whose deletion was asked for since it was last asked.
    pub(super) deletions: Vec<MachineRef>,
    /// The start-up data that came with the last request for a machine.
    pub(super) given: Option<String>,
}

/// What a call is to do instead of answering.
pub(super) enum Bad<E = ProviderError> {
    Error(E),
    Hang,
}

impl Cloud {
    fn strikes(&mut self, trouble: Trouble) -> bool {
        let rate = self.rates.get(&trouble).copied().unwrap_or(0);
        let struck = self.entropy.chance(rate);
        if struck {
            self.struck.push(trouble.as_str());
        }
        struck
    }

    /// Whether a call gets through to the cloud at all.
    fn reached(&mut self) -> Result<(), Bad> {
        if self.now < self.hang_until {
            self.struck.push(Trouble::Hang.as_str());
            return Err(Bad::Hang);
        }
        if self.now < self.outage_until {
            self.struck.push(Trouble::Outage.as_str());
            return Err(Bad::Error(ProviderError::new(
                ErrorKind::Transient,
                Certainty::NotApplied,
                "503",
                "unavailable",
            )));
        }
        Ok(())
    }

    fn create(&mut self, spec: &ServerSpec) -> Result<Progress, Bad> {
        self.reached()?;
        self.given = spec.user_data.as_ref().map(|data| data.expose_secret().into());
        let unclear = self.strikes(Trouble::Unclear);
        if unclear && self.entropy.chance(MILLION / 2) {
            return Err(Bad::Error(unclear_error()));
        }
        let progress = answered(self.sim.create(self.now, spec)).map_err(|bad| without_secrets(bad, spec))?;
        if self.strikes(Trouble::CreateTwice) {
            let faults = self.sim.settings().faults.clone();
            self.sim.settings_mut().faults =
                super::super::cloud::FaultRates::default().with(Fault::TokenIgnored, MILLION);
            drop(self.sim.create(self.now, spec));
            self.sim.settings_mut().faults = faults;
        }
        if unclear {
            return Err(Bad::Error(unclear_error()));
        }
        Ok(match progress {
            Progress::Pending { machine: Some(_), op: Some(op) } if self.personality.names_late() => {
                Progress::Pending { machine: None, op: Some(op) }
            }
            other => other,
        })
    }

    fn poll(&mut self, op: &OpRef) -> Result<Progress, Bad> {
        self.reached()?;
        let progress = self.sim.poll(self.now, op).map_err(|error| {
            // Such an operation says for certain that it has failed, and leaves a machine behind that is of no use.
            let failed = self.personality.names_late() && error.scope == Scope::Server;
            let certain =
                || ProviderError::new(ErrorKind::NoCapacity, Certainty::NotApplied, "AllocationFailed", "no room");
            Bad::Error(if failed { certain() } else { error })
        })?;
        Ok(match progress {
            Progress::Pending { machine: Some(_), op: Some(op) } if self.personality.names_late() => {
                Progress::Pending { machine: None, op: Some(op) }
            }
            other => other,
        })
    }

    fn delete(&mut self, machine: &MachineRef) -> Result<Progress, Bad> {
        self.reached()?;
        self.deletions.push(machine.clone());
        let unclear = self.strikes(Trouble::Unclear);
        if unclear && self.entropy.chance(MILLION / 2) {
            return Err(Bad::Error(unclear_error()));
        }
        if self.strikes(Trouble::DeleteLies) {
            self.lied_about.push(machine.clone());
            return Ok(Progress::Done { machine: Some(machine.clone()) });
        }
        let progress = answered(self.sim.delete(self.now, machine))?;
        if unclear { Err(Bad::Error(unclear_error())) } else { Ok(progress) }
    }

    fn find(&mut self, server: &ServerKey) -> Result<Option<Machine>, Bad> {
        self.reached()?;
        let mut found = self.sim.find(self.now, server).map_err(Bad::Error)?;
        // A machine with a mark like ours does not hide ours; where there is none of ours, it is what is found.
        if found
            .as_ref()
            .and_then(|machine| self.sim.machine(&machine.reference))
            .is_some_and(|machine| !machine.is_ours())
        {
            let uuid = server.uuid();
            let ours = self.sim.machines_of(&uuid).find(|machine| machine.is_ours() && machine.is_visible(self.now));
            found = ours.map(|machine| machine.shown(self.now)).or(found);
        }
        Ok(found.map(|machine| self.shown(machine)))
    }

    fn list(&mut self, pool: &PoolId) -> Result<Listing, Bad> {
        self.reached()?;
        let mut listing = self.sim.list(self.now, pool).map_err(Bad::Error)?;
        if !listing.machines.is_empty() && self.strikes(Trouble::ListLies) {
            self.lied_about.extend(self.sim.live(self.now).map(|machine| machine.reference.clone()));
            listing = Listing { machines: Vec::new(), complete: true };
        }
        listing.machines = listing.machines.into_iter().map(|machine| self.shown(machine)).collect();
        Ok(listing)
    }

    /// Addresses of different clouds differ.
    fn shown(&self, mut machine: Machine) -> Machine {
        machine.address =
            machine.address.map(|address| Address { host: format!("{}/{}", self.name, address.host), ..address });
        machine
    }

    /// The machine at this address, if it is one of this cloud's.
    pub(super) fn at(&self, host: &str) -> Option<&SimMachine> {
        let (cloud, rest) = host.split_once('/')?;
        let mut number = 0_u64;
        for part in rest.split('.').skip(1) {
            number = number * 256 + part.parse::<u64>().ok()?;
        }
        let of_this = cloud == self.name.as_str();
        of_this.then(|| self.sim.machine(&MachineRef(format!("sim-{number:08x}")))).flatten()
    }
}

fn answered(answer: Answer<Progress>) -> Result<Progress, Bad> {
    match answer {
        Ok(Ok(progress)) => Ok(progress),
        Ok(Err(error)) => Err(Bad::Error(error)),
        Err(_) => Err(Bad::Hang),
    }
}

/// A provider lets none of the start-up data into its errors.
fn without_secrets(bad: Bad, spec: &ServerSpec) -> Bad {
    match bad {
        Bad::Error(error) if spec.user_data.is_some() => {
            Bad::Error(ProviderError { message: "as the cloud says".into(), ..error })
        }
        other => other,
    }
}

fn unclear_error() -> ProviderError {
    ProviderError::new(ErrorKind::Transient, Certainty::Unknown, "500", "nobody knows what became of it")
}

struct Sight(Shared<Cloud>);

/// An answer, or no answer ever.
pub(super) async fn heard<T: Send, E: Send>(result: Result<T, Bad<E>>) -> Result<T, E> {
    match result {
        Ok(answer) => Ok(answer),
        Err(Bad::Error(error)) => Err(error),
        Err(Bad::Hang) => pending().await,
    }
}

#[async_trait]
impl VmProvider for Sight {
    fn describe(&self) -> Capabilities {
        locked(&self.0).capabilities.clone()
    }

    fn check(&self, _: &JsonObject, _: usize) -> Vec<Problem> {
        Vec::new()
    }

    async fn preflight(&self, _: &JsonObject) -> Result<Vec<Finding>, ProviderError> {
        Ok(Vec::new())
    }

    async fn create(&self, spec: &ServerSpec) -> Result<Progress, ProviderError> {
        let result = locked(&self.0).create(spec);
        heard(result).await
    }

    async fn poll(&self, op: &OpRef) -> Result<Progress, ProviderError> {
        let result = locked(&self.0).poll(op);
        heard(result).await
    }

    async fn find(&self, server: &ServerKey) -> Result<Option<Machine>, ProviderError> {
        let result = locked(&self.0).find(server);
        heard(result).await
    }

    async fn list(&self, pool: &PoolId) -> Result<Listing, ProviderError> {
        let result = locked(&self.0).list(pool);
        heard(result).await
    }

    async fn delete(&self, machine: &MachineRef) -> Result<Progress, ProviderError> {
        let result = locked(&self.0).delete(machine);
        heard(result).await
    }
}

/// All clouds and domains of a world.
pub(super) struct Sky {
    pub(super) clouds: Vec<Shared<Cloud>>,
    pub(super) domains: Vec<Shared<Domain>>,
    key: DeploymentKey,
}

impl Sky {
    pub(super) fn new(clouds: Vec<Shared<Cloud>>, domains: Vec<Shared<Domain>>) -> Self {
        Self { clouds, domains, key: DeploymentKey::new([7; 32]) }
    }

    pub(super) fn index(&self, name: &ProviderName) -> Option<usize> {
        self.clouds.iter().position(|cloud| locked(cloud).name == *name)
    }

    /// Carries a command out, now. `None`: no answer will ever come.
    pub(super) fn perform(&self, now: Timestamp, pool: PoolId, command: &Command) -> Option<Outcome> {
        for cloud in &self.clouds {
            locked(cloud).now = now;
        }
        if command.action.directory().is_some() {
            self.domains.iter().for_each(|domain| locked(domain).reach(now));
        }
        let ports = Ports { providers: self, directories: self, prober: self, secrets: self, key: &self.key };
        let mut work = pin!(execute(pool, command, ports));
        // Simulated ports answer at once or never.
        match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        }
    }
}

impl Providers for Sky {
    fn provider(&self, name: &ProviderName) -> Option<Arc<dyn VmProvider>> {
        let cloud = self.clouds.get(self.index(name)?)?;
        Some(Arc::new(Sight(cloud.clone())))
    }
}

impl Directories for Sky {
    fn directory(&self, name: &DirectoryName) -> Option<Arc<dyn Directory>> {
        gate(&self.domains, name)
    }
}

#[async_trait]
impl Prober for Sky {
    async fn probe(&self, target: &ProbeTarget) -> Result<(), ProbeFailure> {
        let answers = self.clouds.iter().any(|cloud| {
            let cloud = locked(cloud);
            cloud.at(&target.host).is_some_and(|machine| machine.answers(cloud.now))
        });
        if answers { Ok(()) } else { Err(ProbeFailure { message: String::from("no answer") }) }
    }
}

impl Secrets for Sky {
    fn secret(&self, _: &SecretName) -> Option<SecretString> {
        None
    }
}
