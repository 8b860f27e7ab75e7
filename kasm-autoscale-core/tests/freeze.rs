//! A config that is frozen: it makes nothing and deletes nothing, costs no steps, and goes on when it is lifted.

mod common;

use std::time::Duration;

use common::{capabilities, config, provider};
use kasm_autoscale_core::command::{Action, Command, Outcome};
use kasm_autoscale_core::config::{ConfigSpec, PoolSpec};
use kasm_autoscale_core::id::{ConfigId, ConfigName, DeploymentId, PoolId, ServerId, SessionId};
use kasm_autoscale_core::input::{Answer, Fact, Input, Refusal, Ticket};
use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::ports::{DirectoryFacts, Listing};
use kasm_autoscale_core::report::{Decision, Event, Waiting, What};
use kasm_autoscale_core::row::{ConfigRow, Freeze, MemoryRow, PoolRow, ROW_FORMAT, Row, Write};
use kasm_autoscale_core::time::Timestamp;
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp::from_secs(1_000_000);
const A: ConfigId = ConfigId::new(1);
const B: ConfigId = ConfigId::new(2);

fn name(text: &str) -> ConfigName {
    text.parse().unwrap()
}

fn spec(name: &str, changes: Value) -> ConfigSpec {
    let mut object = json!({ "name": name, "provider": "cloud", "reusable": true, "max_servers": 20 });
    object.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    config(object)
}

fn server(serial: u32, config: ConfigId, phase: Value) -> Row {
    let joined = if serial < 20 { json!(format!("computer-{serial}")) } else { Value::Null };
    let going = ["Enrolling", "Creating"].iter().any(|early| phase.get(early).is_some());
    let row = json!({
        "row": "server", "id": ServerId::new(serial.into()), "slot": serial, "config": config, "generation": 1, "created_at": NOW,
        "machine": if going || phase.get("Unenrolling").is_some() { Value::Null } else { json!(format!("vm-{serial}")) },
        "computer": if phase.get("Enrolling").is_some() { Value::Null } else { joined },
        "address": { "host": "127.0.0.1", "port": null }, "taken": 0, "check_in": null, "phase": phase,
    });
    serde_json::from_value(row).unwrap()
}

/// A pool with a config `a` whose servers join a domain and stand in every phase, and a plain config `b`.
fn rows(freeze: Option<Freeze>) -> Vec<Row> {
    let spec_of_pool =
        PoolSpec::new(DeploymentId::from_bytes([9; 16]), PoolId::from_bytes([7; 16]), "office".parse().unwrap());
    let pool = PoolRow {
        format: ROW_FORMAT,
        spec: spec_of_pool,
        next_server: 30,
        next_session: 2,
        next_config: 3,
        seen: NOW,
        life: 0,
    };
    let joins = json!({ "ad_directory": "corp", "ad_computer_ou_dn": "OU=x,DC=corp,DC=example", "minimum_available_sessions": 9, "keep_failed_for": "1h" });
    let a = ConfigRow { id: A, generation: 1, removed: false, spec: spec("a", joins) };
    let b =
        ConfigRow { id: B, generation: 1, removed: false, spec: spec("b", json!({ "minimum_available_sessions": 1 })) };
    let deadline = NOW + Duration::from_secs(900);
    let deleting = |call: Value, next_at: Timestamp| json!({ "Deleting": { "since": NOW, "why": "machine_failed", "call": call, "tries": 0, "next_at": next_at } });
    let later = NOW + Duration::from_secs(3600);
    vec![
        Row::Pool(pool),
        Row::Config(a),
        Row::Config(b),
        Row::Memory(MemoryRow { freeze, ..MemoryRow::new(A) }),
        Row::Memory(MemoryRow::new(B)),
        server(1, A, json!({ "Enrolling": { "asked": null, "tries": 0, "ask_at": NOW, "deadline": deadline } })),
        server(
            2,
            A,
            json!({ "Creating": { "call": { "Unsure": { "since": NOW, "find_at": NOW, "tries": 0 } }, "deadline": deadline } }),
        ),
        server(
            3,
            A,
            json!({ "Starting": { "deadline": deadline, "running": true, "answered": false, "probe_at": NOW } }),
        ),
        server(4, A, json!({ "Ready": { "since": NOW } })),
        server(5, A, json!({ "Draining": { "since": NOW, "why": "used" } })),
        server(6, A, deleting(json!("Send"), NOW)),
        server(7, A, deleting(json!({ "Kept": { "until": later } }), later)),
        server(8, A, deleting(json!({ "Confirm": { "accepted_at": NOW } }), NOW)),
        server(
            9,
            A,
            json!({ "Unenrolling": { "since": NOW, "why": "not_wanted", "call": "Send", "tries": 0, "next_at": NOW, "failure": null } }),
        ),
        server(20, B, json!({ "Ready": { "since": NOW } })),
        server(21, B, deleting(json!("Send"), NOW)),
    ]
}

fn frozen() -> Freeze {
    Freeze { since: NOW, invariant: "I-00 for a test".into(), found: "nothing".into() }
}

struct Host {
    pool: Pool,
    now: Timestamp,
    wake_at: Option<Timestamp>,
    steps: u32,
    events: Vec<Event>,
    stored: Vec<Row>,
}

impl Host {
    fn new(rows: Vec<Row>) -> Self {
        let pool = Pool::restore(rows.clone(), NOW).unwrap();
        Self { pool, now: NOW, wake_at: Some(NOW), steps: 0, events: vec![], stored: rows }
    }

    fn introduced(mut self) -> (Self, Vec<Command>) {
        let facts = DirectoryFacts {
            domain: "corp.example".into(),
            visibility_lag: Duration::from_secs(60),
            poll_busy: Duration::from_secs(5),
            poll_idle: Duration::from_secs(300),
            call_timeout: Duration::from_secs(30),
        };
        let commands = self.step(vec![
            Fact::ProviderKnown(provider("cloud"), capabilities()).into(),
            Fact::DirectoryKnown("corp".parse().unwrap(), facts).into(),
        ]);
        (self, commands)
    }

    fn step(&mut self, inputs: Vec<Input>) -> Vec<Command> {
        let batch = self.pool.step(self.now, inputs);
        for write in batch.writes() {
            self.stored.retain(|row| row.key() != write.key());
            if let Write::Put(row) = write {
                self.stored.push(row.clone());
            }
        }
        let outputs = batch.saved();
        self.steps += 1;
        self.wake_at = outputs.wake_at;
        self.events.extend(outputs.events);
        self.pool.check().unwrap();
        outputs.commands
    }

    fn asked(&mut self, fact: Fact) -> Answer {
        let batch = self.pool.step(self.now, [Input { ticket: Some(Ticket(1)), fact }]);
        for write in batch.writes() {
            self.stored.retain(|row| row.key() != write.key());
            if let Write::Put(row) = write {
                self.stored.push(row.clone());
            }
        }
        batch.saved().answers.remove(0).1
    }

    /// Lives on, every call unanswered but listings, which show nothing and from which nothing can be concluded.
    fn live(&mut self, span: Duration) -> Vec<Command> {
        let end = self.now + span;
        let mut all = vec![];
        let mut facts = vec![];
        while let Some(at) = self.wake_at.filter(|at| *at <= end || !facts.is_empty()) {
            // Two for each listing, which is due every five seconds; one that hurries would never get through a second.
            assert!(self.steps < 10_000, "it hurries at {}", self.now);
            if facts.is_empty() {
                self.now = self.now.max(at);
            }
            for command in self.step(std::mem::take(&mut facts)) {
                let empty = Outcome::Listed(Ok(Listing { machines: vec![], complete: false }));
                match command.action {
                    Action::List { .. } => facts.push(Fact::Finished(command.id, empty).into()),
                    _ => facts.push(Fact::Finished(command.id, Outcome::Lost).into()),
                }
                all.push(command);
            }
        }
        self.now = end;
        all
    }
}

/// What makes or deletes something, as `verb what`.
fn changes(commands: &[Command]) -> Vec<String> {
    let told = |command: &Command| match &command.action {
        Action::Create(create) => Some(format!("create {}", create.spec.name)),
        Action::Enroll(enroll) => Some(format!("enroll {}", enroll.server.server)),
        Action::Delete { machine, .. } => Some(format!("delete {machine}")),
        Action::Unenroll { computer, .. } => Some(format!("unenroll {computer}")),
        _ => None,
    };
    commands.iter().filter_map(told).collect()
}

/// Those of the config `a`. The other one has a machine to delete, and makes what `a` cannot.
fn of_a(commands: &[Command]) -> Vec<String> {
    changes(commands).into_iter().filter(|change| change != "delete vm-21" && change != "create b").collect()
}

#[test]
fn a_frozen_config_does_nothing_and_does_not_hurry() {
    let (mut host, first) = Host::new(rows(Some(frozen()))).introduced();
    assert_eq!(of_a(&first), [""; 0]);
    assert!(changes(&first).contains(&"delete vm-21".into()), "the other config goes on");
    let commands = host.live(Duration::from_secs(3 * 3600));
    assert_eq!(of_a(&commands), [""; 0]);
    let report = host.pool.report();
    let a = &report.configs[0];
    assert_eq!(a.freeze, Some(frozen()));
    let because = Waiting::Frozen { invariant: "I-00 for a test".into() };
    assert!(matches!(&a.decision, Decision::Wait { because: why, .. } if *why == because), "{}", a.decision);
    // Whatever may be there still has its row.
    let left: Vec<u64> =
        host.pool.servers().filter(|server| server.config == A).map(|server| server.id.serial()).collect();
    assert_eq!(left, (1..=9).collect::<Vec<u64>>());
}

#[test]
fn a_freeze_outlives_a_restart_and_ends_with_an_operators_word() {
    let (host, _) = Host::new(rows(Some(frozen()))).introduced();
    let (mut host, commands) = Host::new(host.stored).introduced();
    assert_eq!(of_a(&commands), [""; 0]);
    assert_eq!(host.pool.report().configs[0].freeze, Some(frozen()));
    let lift = |name_of: &str| Fact::FreezeLifted(name(name_of));
    assert_eq!(host.asked(lift("b")), Answer::Refused(Refusal::NotFrozen { name: name("b") }));
    assert_eq!(host.asked(lift("c")), Answer::Refused(Refusal::UnknownConfig { name: name("c") }));
    assert_eq!(host.asked(lift("a")), Answer::Done);
    let after = changes(&host.live(Duration::from_secs(180)));
    for wanted in ["delete vm-6", "unenroll computer-9"] {
        assert!(after.iter().any(|change| change == wanted), "{wanted} is not among {after:?}");
    }
    assert!(after.iter().any(|change| change.starts_with("enroll")), "{after:?}");
    let (host, _) = Host::new(host.stored).introduced();
    assert_eq!(host.pool.report().configs[0].freeze, None, "for good");
}

/// A session on a server that is being deleted: only a mistake can bring that about, or a hand in the store.
#[test]
fn i_14_rows_that_do_not_add_up_freeze_their_config_before_anything_leaves() {
    let mut spoilt = rows(None);
    let session = json!({
        "row": "session", "id": SessionId::new(1), "user": "ann", "zone": null, "key": null, "requested_at": NOW,
        "state": { "Active": { "server": ServerId::new(6), "since": NOW, "expires_at": NOW + Duration::from_secs(86_400) } },
    });
    spoilt.push(serde_json::from_value(session).unwrap());
    let mut host = Host::new(spoilt);
    let Err(found) = host.pool.check() else { panic!("it adds up") };
    assert_eq!(found[0].config, Some(A));
    let batch = host.pool.step(NOW, [Fact::ProviderKnown(provider("cloud"), capabilities()).into()]);
    let stored =
        batch.writes().iter().any(|write| matches!(write, Write::Put(Row::Memory(row)) if row.freeze.is_some()));
    assert!(stored, "it is written with the very step");
    let outputs = batch.saved();
    assert_eq!(of_a(&outputs.commands), [""; 0]);
    assert!(changes(&outputs.commands).contains(&"delete vm-21".into()));
    let alarms = outputs
        .events
        .iter()
        .filter(|event| matches!(&event.what, What::Frozen { config, .. } if config.as_str() == "a"));
    assert_eq!(alarms.count(), 1);
    assert_eq!(host.pool.report().configs[1].freeze, None);
    let answer = host.asked(Fact::FreezeLifted(name("a")));
    assert!(
        matches!(&answer, Answer::Refused(Refusal::StillBroken { invariant, .. }) if invariant.contains("I-14")),
        "{answer:?}"
    );
    assert!(host.pool.report().configs[0].freeze.is_some());
    // The session can end all the same, and then the freeze can.
    assert!(matches!(host.asked(Fact::SessionEnded(SessionId::new(1))), Answer::Session(_)));
    assert_eq!(host.asked(Fact::FreezeLifted(name("a"))), Answer::Done);
}
