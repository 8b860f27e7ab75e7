//! A pool that is told anything, in any order, at any time: what a host, its clouds and its users might say, true or not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kasm_autoscale_core::command::{Action, Command, Outcome};
use kasm_autoscale_core::config::{ConfigSpec, PoolSpec};
use kasm_autoscale_core::id::{CommandId, ConfigId, DeploymentId, PoolId, ServerId, ServerKey, SessionId};
use kasm_autoscale_core::input::{Answer, Fact, Input, Ticket};
use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::ports::{
    Address, Capabilities, Certainty, ComputerListing, ComputerRef, DirectoryError, DirectoryErrorKind, DirectoryFacts,
    ErrorKind, JoinState, Listing, Machine, MachineRef, MachineState, Marker, OpRef, ProbeFailure, Progress,
    ProviderError, Scope, SeenComputer,
};
use kasm_autoscale_core::row::{Row, RowKey, Write};
use kasm_autoscale_core::server::Phase;
use kasm_autoscale_core::session::SessionRequest;
use kasm_autoscale_core::testing::choices::Bytes;
use kasm_autoscale_core::testing::entropy::Entropy;
use kasm_autoscale_core::time::Timestamp;
use serde_json::json;

use crate::generator::Shape;
use crate::{Target, Verdict};

/// Facts in any order, true or not: outcomes of the wrong kind, of commands that were never given, machines that nobody made, clocks
/// that jump. After each step everything adds up; no command has a number twice or leaves before its row; no machine is deleted
/// under its sessions; and the rows alone make the same pool again.
pub const FACTS: Target = Target {
    name: "facts",
    shape: Shape::Noise { most: 600 },
    examples: || {
        let bytes: [&[u8]; 2] = [
            include_bytes!("../../corpus/facts/stray-of-an-enrolling-server"),
            include_bytes!("../../corpus/facts/stray-of-a-config-to-come"),
        ];
        bytes.map(<[u8]>::to_vec).into()
    },
    words: &[],
    check: |input| {
        let mut life = Life::new(Bytes::new(input.to_vec()));
        while !life.entropy.is_used_up() {
            life.go_on();
        }
        if life.made == 0 { Verdict::Refused } else { Verdict::Taken }
    },
    inputs: 40_000,
};

const DEPLOYMENT: DeploymentId = DeploymentId::from_bytes([1; 16]);
const POOL: PoolId = PoolId::from_bytes([2; 16]);

/// A pool, its store, and what it has asked for.
pub(crate) struct Life<E> {
    pub(crate) entropy: E,
    pool: Pool,
    pub(crate) rows: BTreeMap<RowKey, Row>,
    now: Timestamp,
    commands: BTreeMap<CommandId, Command>,
    known: BTreeSet<CommandId>,
    /// How many servers were ever made.
    pub(crate) made: u32,
}

impl<E: Entropy> Life<E> {
    /// A pool with a provider, a directory and a config.
    pub(crate) fn new(entropy: E) -> Self {
        let now = Timestamp::from_secs(1_700_000_000);
        let pool = Pool::new(PoolSpec::new(DEPLOYMENT, POOL, "desktops".parse().expect("a name")), now);
        let (rows, commands, known) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let mut life = Self { entropy, pool, rows, now, commands, known, made: 0 };
        let facts = vec![life.provider(0), life.directory(), life.config()];
        life.step(facts);
        life
    }

    /// Time goes by, and something is said.
    pub(crate) fn go_on(&mut self) {
        let wait = match self.entropy.pick(16) {
            0..6 => 0,
            6..11 => self.entropy.pick(60_000),
            11..14 => self.entropy.pick(3_600_000),
            14 => self.entropy.pick(1 << 40),
            _ if self.entropy.chance(20_000) => self.entropy.pick(u64::MAX),
            _ => 5_000,
        };
        self.now = self.now + Duration::from_millis(wait);
        let facts = (0..self.entropy.pick(4)).map(|_| self.fact()).collect();
        self.step(facts);
        if self.entropy.chance(20_000) {
            self.crash();
        }
    }

    fn step(&mut self, facts: Vec<Fact>) {
        let inputs =
            facts.into_iter().enumerate().map(|(index, fact)| Input { ticket: Some(Ticket(index as u64)), fact });
        let inputs: Vec<Input> = inputs.collect();
        let asked = inputs.len();
        // Now and then a clock runs backwards.
        let now = if self.entropy.chance(10_000) { Timestamp::from_secs(5) } else { self.now };
        let batch = self.pool.step(now, inputs);
        self.expect_sound();
        let mut keys = BTreeSet::new();
        for write in batch.writes() {
            assert!(keys.insert(write.key()), "{} is written twice in a step", write.key());
            match write {
                // As a store does: through text, so that nothing is kept that is not written.
                Write::Put(row) => {
                    let text = serde_json::to_string(row).expect("rows have a JSON form");
                    let again: Row = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
                    self.rows.insert(row.key(), again);
                }
                Write::Delete(key) => _ = self.rows.remove(key),
            }
        }
        let outputs = batch.saved();
        let answered: BTreeSet<u64> = outputs.answers.iter().map(|(ticket, _)| ticket.0).collect();
        assert!(answered.len() == outputs.answers.len() && answered.len() <= asked, "{:?}", outputs.answers);
        for (_, answer) in &outputs.answers {
            if let Answer::Refused(refusal) = answer {
                crate::is_worded(&refusal.to_string(), 2000);
            }
        }
        for command in outputs.commands {
            self.expect_written(&command);
            assert!(self.known.insert(command.id), "{} is given out twice", command.id);
            self.commands.insert(command.id, command);
        }
    }

    fn expect_sound(&self) {
        if let Err(violations) = self.pool.check() {
            panic!("{}", violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
        }
        let report = self.pool.report();
        assert!(report.configs.iter().all(|config| !config.decision.to_string().is_empty()));
    }

    /// I-06 and I-14, as the store knows it.
    fn expect_written(&mut self, command: &Command) {
        match &command.action {
            Action::Create(create) => {
                self.made += 1;
                let row = self.rows.get(&RowKey::Server(create.server.server));
                let is_creating =
                    matches!(row, Some(Row::Server(server)) if matches!(server.phase, Phase::Creating { .. }));
                assert!(is_creating, "I-06 {row:?}");
            }
            Action::Delete { machine, .. } => {
                for server in self.pool.servers().filter(|server| server.machine.as_ref() == Some(machine)) {
                    let on_it = self.pool.sessions().filter(|session| session.server() == Some(server.id)).count();
                    assert!(on_it == 0 || !matches!(server.phase, Phase::Deleting { .. }), "I-14 {server:?}");
                }
            }
            _ => {}
        }
    }

    /// Dies, and comes back from its rows alone.
    fn crash(&mut self) {
        let rows: Vec<Row> = self.rows.values().cloned().collect();
        self.pool = Pool::restore(rows, self.now).unwrap_or_else(|error| panic!("what was saved is refused: {error}"));
        self.commands.clear();
        self.expect_sound();
        let facts = vec![self.provider(0), self.directory()];
        self.step(facts);
    }

    // --- what is said ---

    fn fact(&mut self) -> Fact {
        match self.entropy.pick(20) {
            0 => self.config(),
            1 => {
                let index = self.entropy.pick(3);
                self.provider(index)
            }
            2 => self.directory(),
            3..6 => Fact::SessionRequested(SessionRequest {
                user: format!("user-{}", self.entropy.pick(20)).parse().expect("a name"),
                zone: (self.entropy.pick(3) == 0).then(|| "west".parse().expect("a zone")),
                key: (self.entropy.pick(4) == 0).then(|| format!("key-{}", self.entropy.pick(5))),
            }),
            6 => Fact::SessionEnded(self.session()),
            7 => Fact::KeptAlive(self.session()),
            8 | 9 => Fact::CheckedIn {
                server: self.server(),
                status: if self.entropy.pick(4) == 0 { "odd\u{0}".repeat(300) } else { "running".into() },
                message: "x".repeat(usize::try_from(self.entropy.pick(700)).unwrap_or_default()),
                progress: u8::try_from(self.entropy.pick(256)).unwrap_or_default(),
            },
            10 => match self.entropy.pick(4) {
                0 => Fact::DrainAsked(self.server()),
                1 => Fact::UndrainAsked(self.server()),
                _ => Fact::DeleteAsked { server: self.server(), force: self.entropy.pick(2) == 0 },
            },
            11 => match self.entropy.pick(4) {
                0 => Fact::ConfigRemoved("first".parse().expect("a name")),
                1 => Fact::LossAcknowledged("first".parse().expect("a name")),
                _ => {
                    let mut spec = self.pool.spec().clone();
                    spec.queue_max = u32::try_from(self.entropy.pick(8)).unwrap_or_default();
                    spec.queue_deadline = Duration::from_secs(self.entropy.pick(900));
                    Fact::PoolSet(Box::new(spec))
                }
            },
            _ => self.finished(),
        }
    }

    fn server(&mut self) -> ServerId {
        ServerId::new(self.entropy.pick(12))
    }

    fn session(&mut self) -> SessionId {
        SessionId::new(self.entropy.pick(12))
    }

    fn span(&mut self) -> Duration {
        match self.entropy.pick(8) {
            0 => Duration::ZERO,
            1 => Duration::MAX,
            _ => Duration::from_secs(self.entropy.pick(120)),
        }
    }

    fn provider(&mut self, index: u64) -> Fact {
        let capabilities = Capabilities {
            kind: "fuzzed",
            visibility_lag: self.span(),
            poll_busy: self.span(),
            poll_idle: self.span(),
            creates_in_flight_max: u32::try_from(self.entropy.pick(9)).unwrap_or_default(),
            call_timeout: self.span(),
            offering: &[],
        };
        Fact::ProviderKnown(format!("cloud-{index}").parse().expect("a name"), capabilities)
    }

    fn directory(&mut self) -> Fact {
        let facts = DirectoryFacts {
            domain: "corp.example".into(),
            visibility_lag: self.span(),
            poll_busy: self.span(),
            poll_idle: self.span(),
            call_timeout: self.span(),
        };
        Fact::DirectoryKnown("corp".parse().expect("a name"), facts)
    }

    fn config(&mut self) -> Fact {
        let name = ["first", "second", "third"][usize::try_from(self.entropy.pick(3)).unwrap_or_default()];
        let joins = self.entropy.pick(3) == 0;
        let window = 1 + self.entropy.pick(5);
        let object = json!({
            "name": name, "provider": format!("cloud-{}", self.entropy.pick(3)),
            "zone": if self.entropy.pick(2) == 0 { "west" } else { "east" },
            "enabled": self.entropy.pick(8) != 0, "reusable": self.entropy.pick(2) == 0,
            "minimum_available_sessions": self.entropy.pick(7), "max_sessions_per_server": 1 + self.entropy.pick(3),
            "max_servers": self.entropy.pick(7), "downscale_backoff": self.entropy.pick(300),
            "require_checkin": self.entropy.pick(3) == 0, "boot_deadline": 1 + self.entropy.pick(600),
            "priority": self.entropy.pick(3), "breaker_window": window, "breaker_failures": 1 + self.entropy.pick(window),
            "keep_failed_for": self.entropy.pick(600), "keep_failed_max": self.entropy.pick(3),
            "server_name_pattern": if self.entropy.pick(4) == 0 { "desk-{number}" } else { "kasm-{random}" },
            "ad_directory": joins.then_some("corp"), "ad_computer_ou_dn": joins.then_some("OU=Desks,DC=corp,DC=example"),
            "machine": { "size": self.entropy.pick(2) },
        });
        let spec = ConfigSpec::from_json(object.as_object().expect("an object"));
        Fact::ConfigSet(Box::new(spec.unwrap_or_else(|error| panic!("{error}"))))
    }

    /// A command comes to an end: mostly one that was given, and mostly one that fits.
    fn finished(&mut self) -> Fact {
        let count = self.commands.len() as u64;
        let index = usize::try_from(self.entropy.pick(count + 1)).unwrap_or_default();
        let Some(id) = self.commands.keys().nth(index).copied() else {
            let id = CommandId::new(self.entropy.pick(1 << 33));
            let outcome = self.any_outcome();
            return Fact::Finished(id, outcome);
        };
        let command = self.commands[&id].clone();
        // Some outcomes come twice.
        if self.entropy.pick(8) != 0 {
            self.commands.remove(&id);
        }
        let outcome = if self.entropy.pick(24) == 0 { self.any_outcome() } else { self.outcome(&command.action) };
        Fact::Finished(id, outcome)
    }

    fn any_outcome(&mut self) -> Outcome {
        match self.entropy.pick(10) {
            0 => Outcome::Progress(self.progress(None)),
            1 => Outcome::Found(Ok(Some(self.machine(None)))),
            2 => Outcome::Listed(Ok(self.listing())),
            3 => Outcome::Probed(Ok(())),
            4 => Outcome::Enrolled(Ok(self.computer(None))),
            5 => Outcome::ComputerFound(Ok(Some(self.computer(None)))),
            6 => Outcome::JoinChecked(Ok(JoinState::Absent)),
            7 => Outcome::Unenrolled(Ok(())),
            8 => Outcome::ComputersListed(Ok(self.computers())),
            _ => Outcome::Lost,
        }
    }

    fn outcome(&mut self, action: &Action) -> Outcome {
        if self.entropy.pick(16) == 0 {
            return Outcome::Lost;
        }
        let fails = self.entropy.pick(6) == 0;
        match action {
            Action::Create(create) => Outcome::Progress(self.progress(Some(create.server.server))),
            Action::Poll { .. } | Action::Delete { .. } => Outcome::Progress(self.progress(None)),
            Action::Find { .. } if fails => Outcome::Found(Err(self.error())),
            Action::Find { server, .. } => {
                let machine = (self.entropy.pick(3) > 0).then(|| self.machine(Some(server.server)));
                Outcome::Found(Ok(machine))
            }
            Action::List { .. } if fails => Outcome::Listed(Err(self.error())),
            Action::List { .. } => Outcome::Listed(Ok(self.listing())),
            Action::Probe { .. } if fails => Outcome::Probed(Err(ProbeFailure { message: "no answer".into() })),
            Action::Probe { .. } => Outcome::Probed(Ok(())),
            Action::Enroll(_) if fails => Outcome::Enrolled(Err(self.directory_error())),
            Action::Enroll(enroll) => Outcome::Enrolled(Ok(self.computer(Some(enroll.server.server)))),
            Action::FindComputer { .. } if fails => Outcome::ComputerFound(Err(self.directory_error())),
            Action::FindComputer { server, .. } => {
                let computer = (self.entropy.pick(3) > 0).then(|| self.computer(Some(server.server)));
                Outcome::ComputerFound(Ok(computer))
            }
            Action::CheckJoin { .. } if fails => Outcome::JoinChecked(Err(self.directory_error())),
            Action::CheckJoin { .. } => {
                let states = [JoinState::Joined, JoinState::Waiting, JoinState::Absent];
                Outcome::JoinChecked(Ok(states[usize::try_from(self.entropy.pick(3)).unwrap_or_default()].clone()))
            }
            Action::Unenroll { .. } if fails => Outcome::Unenrolled(Err(self.directory_error())),
            Action::Unenroll { .. } => Outcome::Unenrolled(Ok(())),
            Action::ListComputers { .. } if fails => Outcome::ComputersListed(Err(self.directory_error())),
            Action::ListComputers { .. } => Outcome::ComputersListed(Ok(self.computers())),
        }
    }

    fn progress(&mut self, server: Option<ServerId>) -> Result<Progress, ProviderError> {
        let machine = (self.entropy.pick(3) > 0).then(|| self.machine(server).reference);
        match self.entropy.pick(6) {
            0 => Err(self.error()),
            1 => Ok(Progress::Pending { machine, op: Some(OpRef(format!("op-{}", self.entropy.pick(4)))) }),
            2 => Ok(Progress::Pending { machine, op: None }),
            _ => Ok(Progress::Done { machine }),
        }
    }

    fn error(&mut self) -> ProviderError {
        let kinds = [
            ErrorKind::NoCapacity,
            ErrorKind::Quota,
            ErrorKind::Throttled,
            ErrorKind::Denied,
            ErrorKind::Invalid,
            ErrorKind::Conflict,
            ErrorKind::Protected,
            ErrorKind::Transient,
        ];
        let kind = kinds[usize::try_from(self.entropy.pick(8)).unwrap_or_default()];
        let certainty = if self.entropy.pick(2) == 0 { Certainty::Unknown } else { Certainty::NotApplied };
        let scope = [Scope::Server, Scope::Offering, Scope::Provider]
            [usize::try_from(self.entropy.pick(3)).unwrap_or_default()];
        let retry_after = (self.entropy.pick(3) == 0).then(|| self.span());
        ProviderError { scope, retry_after, ..ProviderError::new(kind, certainty, "code", "words") }
    }

    fn directory_error(&mut self) -> DirectoryError {
        let kinds = [DirectoryErrorKind::Transient, DirectoryErrorKind::Throttled, DirectoryErrorKind::Denied];
        let certainty = if self.entropy.pick(2) == 0 { Certainty::Unknown } else { Certainty::NotApplied };
        DirectoryError::new(
            kinds[usize::try_from(self.entropy.pick(3)).unwrap_or_default()],
            certainty,
            "code",
            "words",
        )
    }

    fn machine(&mut self, server: Option<ServerId>) -> Machine {
        let server =
            server.filter(|_| self.entropy.pick(16) > 0).unwrap_or_else(|| ServerId::new(self.entropy.pick(10)));
        let states = [
            MachineState::Running,
            MachineState::Running,
            MachineState::Running,
            MachineState::Provisioning,
            MachineState::Stopped,
            MachineState::Deleting,
            MachineState::Deleted,
            MachineState::Failed,
            MachineState::Unknown("odd".into()),
        ];
        let state = states[usize::try_from(self.entropy.pick(9)).unwrap_or_default()].clone();
        let marker = self.marker(server);
        Machine {
            reference: MachineRef(format!("i-{server}-{}", u64::from(self.entropy.pick(16) == 0))),
            marker: (self.entropy.pick(16) > 0).then_some(marker),
            state,
            address: (self.entropy.pick(4) > 0)
                .then(|| Address { host: format!("10.0.0.{}", self.entropy.pick(4)), port: None }),
            fault: (self.entropy.pick(8) == 0).then(|| self.error()),
        }
    }

    fn marker(&mut self, server: ServerId) -> Marker {
        Marker {
            deployment: if self.entropy.pick(16) == 0 { DeploymentId::from_bytes([9; 16]) } else { DEPLOYMENT },
            pool: POOL,
            config: ConfigId::new(u32::try_from(self.entropy.pick(4)).unwrap_or_default()),
            server: ServerKey { pool: POOL, server }.uuid(),
        }
    }

    fn listing(&mut self) -> Listing {
        let count = self.entropy.pick(8);
        let mut machines: Vec<Machine> = vec![];
        if self.entropy.pick(3) > 0 {
            // Mostly what is there.
            let servers: Vec<ServerId> = self.pool.servers().map(|server| server.id).collect();
            machines.extend(servers.into_iter().map(|server| self.machine(Some(server))));
        }
        machines.extend((0..count / 3).map(|_| self.machine(None)));
        Listing { machines, complete: self.entropy.pick(5) > 0 }
    }

    fn computer(&mut self, server: Option<ServerId>) -> ComputerRef {
        let server = server.unwrap_or_else(|| ServerId::new(self.entropy.pick(10)));
        ComputerRef(format!("guid-{server}"))
    }

    fn computers(&mut self) -> ComputerListing {
        let count = self.entropy.pick(4);
        let computers = (0..count).map(|_| {
            let server = ServerId::new(self.entropy.pick(10));
            let marker = self.marker(server);
            SeenComputer { reference: self.computer(Some(server)), marker, name: "desk".into() }
        });
        ComputerListing { computers: computers.collect(), complete: self.entropy.pick(4) > 0 }
    }
}
