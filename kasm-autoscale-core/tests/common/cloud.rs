//! A cloud for the random walk: it keeps to the contract of `ports`, and uses all the freedom the contract leaves it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kasm_autoscale_core::command::{Action, CreateMachine, Outcome};
use kasm_autoscale_core::id::{ConfigId, ProviderName, ServerId, ServerKey};
use kasm_autoscale_core::ports::{
    Address, Capabilities, Certainty, ErrorKind, Listing, Machine, MachineRef, MachineState, OpRef, ProbeFailure,
    Progress, ProviderError,
};
use kasm_autoscale_core::time::Timestamp;

use super::{Dice, machine, secs};

/// How long a machine may be missing from what is shown.
pub const LAG: Duration = secs(60);

/// What the providers of the walk say of themselves: slow enough that a day is soon over.
pub fn unhurried() -> Capabilities {
    Capabilities {
        kind: "fake",
        visibility_lag: LAG,
        poll_busy: secs(10),
        poll_idle: secs(900),
        creates_in_flight_max: 4,
        call_timeout: secs(30),
        offering: &["size", "place"],
    }
}

#[derive(Debug)]
pub struct Vm {
    provider: ProviderName,
    config: ConfigId,
    server: ServerId,
    /// One machine too many, made of a request that was answered with another one.
    pub is_duplicate: bool,
    born_at: Timestamp,
    visible_at: Timestamp,
    running_at: Timestamp,
    /// When its connection port answers; never, if it is broken.
    answers_at: Option<Timestamp>,
    broken: Option<MachineState>,
    gone_at: Option<Timestamp>,
}

pub struct Cloud {
    pub machines: BTreeMap<MachineRef, Vm>,
    /// Operations, and the machines they are about to name.
    operations: BTreeMap<OpRef, (Timestamp, MachineRef)>,
    /// Servers of which there were two machines, so that nobody can say which of them is meant.
    doubled: BTreeSet<ServerId>,
    pub has_faults: bool,
    made: u64,
}

fn later(dice: &mut Dice, now: Timestamp, most_secs: u64) -> Timestamp {
    now + Duration::from_millis(dice.below(most_secs * 1000 + 1))
}

impl Cloud {
    pub const fn new() -> Self {
        Self {
            machines: BTreeMap::new(),
            operations: BTreeMap::new(),
            doubled: BTreeSet::new(),
            has_faults: true,
            made: 0,
        }
    }

    /// Lets machines go whose time has come.
    fn forget(&mut self, now: Timestamp) {
        self.machines.retain(|_, vm| vm.gone_at.is_none_or(|at| at > now));
    }

    /// Machines that are there, or may be any moment, without those that no request asked for.
    pub fn count(&mut self, config: ConfigId, now: Timestamp) -> usize {
        self.forget(now);
        self.machines.values().filter(|vm| vm.config == config && !vm.is_duplicate).count()
    }

    /// Whether the machine of this server is there, and not on its way out.
    pub fn is_there(&mut self, server: ServerId, now: Timestamp) -> bool {
        self.forget(now);
        !self.doubled.contains(&server) && self.machines.values().any(|vm| vm.server == server && vm.gone_at.is_none())
    }

    fn fault(&self, dice: &mut Dice, permille: u64) -> bool {
        self.has_faults && dice.chance(permille)
    }

    fn error(dice: &mut Dice, certainty: Certainty) -> ProviderError {
        let kinds =
            [ErrorKind::NoCapacity, ErrorKind::Quota, ErrorKind::Throttled, ErrorKind::Conflict, ErrorKind::Transient];
        let kind = *dice.pick(&kinds).unwrap();
        let mut error = ProviderError::new(kind, certainty, "Code", "words");
        error.retry_after = dice.chance(200).then(|| secs(dice.between(1, 90)));
        error
    }

    /// Does what a command says. `None`: the answer is lost on its way back.
    pub fn perform(&mut self, dice: &mut Dice, now: Timestamp, action: &Action) -> Option<Outcome> {
        self.forget(now);
        let lost = self.fault(dice, 40);
        let outcome = match action {
            Action::Create(create) => Outcome::Progress(self.create(dice, now, create)),
            Action::Poll { op, .. } => Outcome::Progress(self.poll(dice, now, op)),
            Action::Find { provider, server } => Outcome::Found(self.find(dice, now, provider, server)),
            Action::List { provider } => Outcome::Listed(self.list(dice, now, provider)),
            Action::Delete { machine, .. } => Outcome::Progress(self.delete(dice, now, machine)),
            Action::Probe { target } => {
                let answers = self.machines.values().any(|vm| {
                    host_of(vm.server) == target.host
                        && vm.broken.is_none()
                        && vm.gone_at.is_none()
                        && vm.answers_at.is_some_and(|at| at <= now)
                });
                Outcome::Probed(if answers { Ok(()) } else { Err(ProbeFailure { message: "no answer".into() }) })
            }
            other => unreachable!("{} is nothing for a cloud", other.verb()),
        };
        (!lost).then_some(outcome)
    }

    fn create(&mut self, dice: &mut Dice, now: Timestamp, create: &CreateMachine) -> Result<Progress, ProviderError> {
        if self.fault(dice, 80) {
            return Err(Self::error(dice, Certainty::NotApplied));
        }
        if self.fault(dice, 30) {
            return Err(Self::error(dice, Certainty::Unknown));
        }
        // An operation names its machine later, but not later than it must be seen.
        let by_operation = dice.chance(150);
        let born_at = if by_operation { later(dice, now, 30) } else { now };
        let reference = self.make(dice, now, born_at, create, false);
        if self.fault(dice, 20) {
            self.make(dice, now, now, create, true);
            self.doubled.insert(create.server.server);
        }
        if self.fault(dice, 30) {
            return Err(Self::error(dice, Certainty::Unknown));
        }
        if by_operation {
            let op = OpRef(format!("op-{}", create.server.server.serial()));
            self.operations.insert(op.clone(), (born_at, reference));
            return Ok(Progress::Pending { machine: None, op: Some(op) });
        }
        let machine = Some(reference);
        Ok(if dice.chance(500) { Progress::Pending { machine, op: None } } else { Progress::Done { machine } })
    }

    fn make(
        &mut self,
        dice: &mut Dice,
        now: Timestamp,
        born_at: Timestamp,
        create: &CreateMachine,
        is_duplicate: bool,
    ) -> MachineRef {
        self.made += 1;
        let reference = MachineRef(format!("i-{}", self.made));
        let running_at = later(dice, born_at, 60);
        let never_answers = self.fault(dice, 30);
        let vm = Vm {
            provider: create.spec.provider.clone(),
            config: create.config,
            server: create.server.server,
            is_duplicate,
            born_at,
            visible_at: later(dice, born_at, (LAG.as_secs() - born_at.since(now).as_secs()).saturating_sub(1)),
            running_at,
            answers_at: (!never_answers).then(|| later(dice, running_at, 60)),
            broken: self.fault(dice, 20).then_some(MachineState::Failed),
            gone_at: None,
        };
        self.machines.insert(reference.clone(), vm);
        reference
    }

    fn poll(&mut self, dice: &mut Dice, now: Timestamp, op: &OpRef) -> Result<Progress, ProviderError> {
        if self.fault(dice, 50) {
            return Err(ProviderError::new(ErrorKind::Throttled, Certainty::NotApplied, "Slow", "words"));
        }
        let (done_at, machine) = self.operations[op].clone();
        Ok(if done_at <= now {
            Progress::Done { machine: Some(machine) }
        } else {
            Progress::Pending { machine: None, op: Some(op.clone()) }
        })
    }

    fn shown(&self, now: Timestamp, reference: &MachineRef, vm: &Vm) -> Machine {
        let state = match &vm.broken {
            _ if vm.gone_at.is_some() => MachineState::Deleting,
            Some(state) => state.clone(),
            None if vm.running_at <= now => MachineState::Running,
            None => MachineState::Provisioning,
        };
        let host = (vm.running_at <= now).then(|| host_of(vm.server));
        let mut shown = machine(&reference.0, vm.server, vm.config.serial(), state, host.as_deref());
        shown.address = host.map(|host| Address { host, port: None });
        shown
    }

    fn find(
        &mut self,
        dice: &mut Dice,
        now: Timestamp,
        provider: &ProviderName,
        key: &ServerKey,
    ) -> Result<Option<Machine>, ProviderError> {
        if self.fault(dice, 80) {
            return Err(Self::error(dice, Certainty::Unknown));
        }
        let of_server =
            |vm: &Vm| vm.server == key.server && vm.provider == *provider && vm.visible_at <= now && vm.born_at <= now;
        Ok(self.machines.iter().find(|(_, vm)| of_server(vm)).map(|(reference, vm)| self.shown(now, reference, vm)))
    }

    fn list(&mut self, dice: &mut Dice, now: Timestamp, provider: &ProviderName) -> Result<Listing, ProviderError> {
        if self.fault(dice, 80) {
            return Err(Self::error(dice, Certainty::Unknown));
        }
        let complete = !self.fault(dice, 100);
        let visible = self
            .machines
            .iter()
            .filter(|(_, vm)| vm.provider == *provider && vm.visible_at <= now && vm.born_at <= now);
        let mut machines: Vec<Machine> = visible.map(|(reference, vm)| self.shown(now, reference, vm)).collect();
        if !complete {
            machines.retain(|_| dice.chance(500));
        }
        Ok(Listing { machines, complete })
    }

    fn delete(&mut self, dice: &mut Dice, now: Timestamp, machine: &MachineRef) -> Result<Progress, ProviderError> {
        if self.fault(dice, 100) {
            return Err(Self::error(dice, Certainty::NotApplied));
        }
        let gone_at = later(dice, now, 40);
        let Some(vm) = self.machines.get_mut(machine) else { return Ok(Progress::Done { machine: None }) };
        vm.gone_at = Some(vm.gone_at.map_or(gone_at, |known| known.min(gone_at)));
        Ok(Progress::Pending { machine: None, op: None })
    }

    /// All machines of the config that has the most of them are gone at once, if that is more than a few.
    pub fn catastrophe(&mut self) {
        let mut counts: BTreeMap<ConfigId, usize> = BTreeMap::new();
        for vm in self.machines.values() {
            *counts.entry(vm.config).or_default() += 1;
        }
        let struck = counts.into_iter().filter(|(_, count)| *count > 4).max_by_key(|(_, count)| *count);
        let struck = struck.map(|(config, _)| config);
        self.machines.retain(|_, vm| Some(vm.config) != struck);
    }

    /// Something happens to a machine that nobody asked for.
    pub fn mishap(&mut self, dice: &mut Dice) {
        let all: Vec<MachineRef> = self.machines.keys().cloned().collect();
        let Some(reference) = dice.pick(&all) else { return };
        match dice.below(3) {
            0 => drop(self.machines.remove(reference)),
            n => {
                let state = if n == 1 { MachineState::Stopped } else { MachineState::Failed };
                self.machines.get_mut(reference).unwrap().broken = Some(state);
            }
        }
    }
}

fn host_of(server: ServerId) -> String {
    format!("10.0.0.{}", server.serial())
}
