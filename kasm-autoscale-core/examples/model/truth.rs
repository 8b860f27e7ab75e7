//! What there really is outside the pool: machines, computer objects, and calls on their way.

use kasm_autoscale_core::command::{Action, Command, Outcome};
use kasm_autoscale_core::id::{CommandId, ConfigId, DeploymentId, PoolId, ServerId, ServerKey};
use kasm_autoscale_core::ports::{
    Address, Certainty, ComputerListing, ComputerRef, ErrorKind, JoinState, Listing, Machine, MachineRef, MachineState,
    Marker, OpRef, ProbeFailure, Progress, ProviderError, SeenComputer,
};
use kasm_autoscale_core::time::Timestamp;

use super::plans::{LAG, PROVIDERS};

pub(crate) const DEPLOYMENT: DeploymentId = DeploymentId::from_bytes([1; 16]);
pub(crate) const POOL: PoolId = PoolId::from_bytes([2; 16]);

/// A command, as far as the outside is concerned: which server, machine or object it is about.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Call {
    Create(u64),
    Poll(u64),
    Find(u64),
    List(usize),
    Delete(u64),
    Probe(u64),
    Enroll(u64),
    FindComputer(u64),
    CheckJoin(u64),
    Unenroll(u64),
    ListComputers,
}

fn serial(text: &str) -> u64 {
    let digits = text.rsplit(['-', '.']).next().and_then(|text| text.parse().ok());
    digits.unwrap_or_else(|| panic!("no serial in {text}"))
}

fn provider_index(name: &str) -> usize {
    PROVIDERS.iter().position(|known| *known == name).expect("a provider of the model")
}

impl Call {
    fn of(action: &Action) -> Self {
        match action {
            Action::Create(create) => Self::Create(create.server.server.serial()),
            Action::Poll { op, .. } => Self::Poll(serial(&op.0)),
            Action::Find { server, .. } => Self::Find(server.server.serial()),
            Action::List { provider } => Self::List(provider_index(provider.as_str())),
            Action::Delete { machine, .. } => Self::Delete(serial(&machine.0)),
            Action::Probe { target } => Self::Probe(serial(&target.host)),
            Action::Enroll(enroll) => Self::Enroll(enroll.server.server.serial()),
            Action::FindComputer { server, .. } => Self::FindComputer(server.server.serial()),
            Action::CheckJoin { computer, .. } => Self::CheckJoin(serial(&computer.0)),
            Action::Unenroll { computer, .. } => Self::Unenroll(serial(&computer.0)),
            Action::ListComputers { .. } => Self::ListComputers,
        }
    }

    /// Whether it changes anything outside.
    pub(crate) const fn changes(self) -> bool {
        matches!(self, Self::Create(_) | Self::Delete(_) | Self::Enroll(_) | Self::Unenroll(_))
    }

    /// Which kind, and about what: `place` says where that stands among the servers there are.
    pub(crate) fn numbers(self, place: impl Fn(u64) -> u64) -> [u64; 2] {
        match self {
            Self::Create(serial) => [1, place(serial)],
            Self::Poll(serial) => [2, place(serial)],
            Self::Find(serial) => [3, place(serial)],
            Self::List(provider) => [4, provider as u64],
            Self::Delete(serial) => [5, place(serial)],
            Self::Probe(serial) => [6, place(serial)],
            Self::Enroll(serial) => [7, place(serial)],
            Self::FindComputer(serial) => [8, place(serial)],
            Self::CheckJoin(serial) => [9, place(serial)],
            Self::Unenroll(serial) => [10, place(serial)],
            Self::ListComputers => [11, 0],
        }
    }

    pub(crate) const fn serial(self) -> Option<u64> {
        match self {
            Self::Create(serial)
            | Self::Poll(serial)
            | Self::Find(serial)
            | Self::Delete(serial)
            | Self::Probe(serial)
            | Self::Enroll(serial)
            | Self::FindComputer(serial)
            | Self::CheckJoin(serial)
            | Self::Unenroll(serial) => Some(serial),
            Self::List(_) | Self::ListComputers => None,
        }
    }
}

/// A command under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    pub(crate) id: CommandId,
    pub(crate) call: Call,
    /// The config a create or an enrolment is for.
    pub(crate) config: u32,
    pub(crate) sent_at: Timestamp,
    /// Whether time may pass before it is answered.
    pub(crate) slow: bool,
}

impl Flight {
    pub(crate) fn of(command: &Command, sent_at: Timestamp) -> Self {
        let config = match &command.action {
            Action::Create(create) => create.config.serial(),
            Action::Enroll(enroll) => enroll.config.serial(),
            _ => 0,
        };
        Self { id: command.id, call: Call::of(&command.action), config, sent_at, slow: false }
    }
}

/// A call that an earlier life of the host has sent, and that may still have its effect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ghost {
    pub(crate) call: Call,
    pub(crate) config: u32,
    pub(crate) until: Timestamp,
}

/// A machine that is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    pub(crate) serial: u64,
    pub(crate) config: u32,
    pub(crate) provider: usize,
    pub(crate) born: Timestamp,
    pub(crate) stopped: bool,
}

/// Everything outside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truth {
    pub(crate) machines: Vec<Made>,
    /// Computer objects: the server and its config, and since when.
    pub(crate) objects: Vec<(u64, u32, Timestamp)>,
    pub(crate) ghosts: Vec<Ghost>,
}

fn marker(serial: u64, config: u32) -> Marker {
    let server = ServerKey { pool: POOL, server: ServerId::new(serial) };
    Marker { deployment: DEPLOYMENT, pool: POOL, config: ConfigId::new(config), server: server.uuid() }
}

fn machine_ref(serial: u64) -> MachineRef {
    MachineRef(format!("m-{serial}"))
}

fn computer_ref(serial: u64) -> ComputerRef {
    ComputerRef(format!("c-{serial}"))
}

impl Made {
    fn shown(&self) -> Machine {
        Machine {
            reference: machine_ref(self.serial),
            marker: Some(marker(self.serial, self.config)),
            state: if self.stopped { MachineState::Stopped } else { MachineState::Running },
            address: Some(Address { host: format!("10.0.0.{}", self.serial), port: None }),
            fault: None,
        }
    }
}

impl Truth {
    pub(crate) fn machine(&self, serial: u64) -> Option<&Made> {
        self.machines.iter().find(|machine| machine.serial == serial)
    }

    pub(crate) fn has_object(&self, serial: u64) -> bool {
        self.objects.iter().any(|(known, ..)| *known == serial)
    }

    /// Whether something that is to be seen by this call, which began at `began`, may as well not be seen yet.
    pub(crate) fn may_be_blind(&self, call: Call, began: Timestamp) -> bool {
        let young = |born: Timestamp| born + LAG > began;
        match call {
            Call::Find(serial) => self.machine(serial).is_some_and(|machine| young(machine.born)),
            Call::List(at) => self.machines.iter().any(|machine| machine.provider == at && young(machine.born)),
            Call::FindComputer(serial) | Call::CheckJoin(serial) => {
                self.objects.iter().any(|(known, _, born)| *known == serial && young(*born))
            }
            Call::ListComputers => self.objects.iter().any(|(.., born)| young(*born)),
            _ => false,
        }
    }

    /// A call has its effect. What is asked for twice is made once.
    pub(crate) fn perform(&mut self, call: Call, config: u32, provider: usize, now: Timestamp) {
        match call {
            Call::Create(serial) if self.machine(serial).is_none() => {
                self.machines.push(Made { serial, config, provider, born: now, stopped: false });
            }
            Call::Delete(serial) => self.machines.retain(|machine| machine.serial != serial),
            Call::Enroll(serial) if !self.has_object(serial) => {
                self.objects.push((serial, config, now));
            }
            Call::Unenroll(serial) => self.objects.retain(|(known, ..)| *known != serial),
            _ => {}
        }
    }

    /// The answer to a call that has had its effect. With `blind` whatever is too young is not seen.
    pub(crate) fn answer(&self, flight: &Flight, by_operation: bool, blind: bool) -> Outcome {
        let seen = |born: Timestamp| !blind || born + LAG <= flight.sent_at;
        match flight.call {
            Call::Create(serial) if by_operation => {
                let op = Some(OpRef(format!("op-{serial}")));
                Outcome::Progress(Ok(Progress::Pending { machine: None, op }))
            }
            Call::Create(serial) | Call::Poll(serial) => {
                Outcome::Progress(Ok(Progress::Done { machine: Some(machine_ref(serial)) }))
            }
            Call::Find(serial) => {
                let machine = self.machine(serial).filter(|machine| seen(machine.born));
                Outcome::Found(Ok(machine.map(Made::shown)))
            }
            Call::List(provider) => {
                let shown = self.machines.iter().filter(|machine| machine.provider == provider && seen(machine.born));
                Outcome::Listed(Ok(Listing { machines: shown.map(Made::shown).collect(), complete: true }))
            }
            Call::Delete(_) if by_operation => Outcome::Progress(Ok(Progress::Pending { machine: None, op: None })),
            Call::Delete(_) => Outcome::Progress(Ok(Progress::Done { machine: None })),
            Call::Probe(serial) => {
                let answers = self.machine(serial).is_some_and(|machine| !machine.stopped);
                Outcome::Probed(if answers { Ok(()) } else { Err(ProbeFailure { message: String::new() }) })
            }
            Call::Enroll(serial) => Outcome::Enrolled(Ok(computer_ref(serial))),
            Call::FindComputer(serial) => {
                let there = self.objects.iter().any(|(known, _, born)| *known == serial && seen(*born));
                Outcome::ComputerFound(Ok(there.then(|| computer_ref(serial))))
            }
            Call::CheckJoin(serial) => Outcome::JoinChecked(Ok(match self.has_object(serial) {
                false => JoinState::Absent,
                true if blind => JoinState::Waiting,
                true => JoinState::Joined,
            })),
            Call::Unenroll(_) => Outcome::Unenrolled(Ok(())),
            Call::ListComputers => {
                let shown = self.objects.iter().filter(|(.., born)| seen(*born));
                let computers = shown.map(|(serial, config, _)| SeenComputer {
                    reference: computer_ref(*serial),
                    name: format!("desk-{serial}"),
                    marker: marker(*serial, *config),
                });
                Outcome::ComputersListed(Ok(ComputerListing { computers: computers.collect(), complete: true }))
            }
        }
    }
}

/// Nothing was made, for certain, for want of capacity.
pub(crate) fn refusal() -> Outcome {
    Outcome::Progress(Err(ProviderError::new(ErrorKind::NoCapacity, Certainty::NotApplied, "", "")))
}
