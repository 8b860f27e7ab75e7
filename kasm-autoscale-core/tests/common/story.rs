//! Runs a scenario: a text of commands goes in, the same text with what happened after each comes out.
//!
//! A block is one or more lines of commands, a line `----`, what happened, and an empty line. The commands of one block are
//! facts of one step. What the pool then wants done is done at once by a small obedient cloud, and its outcomes make further
//! steps, except for the verbs that a story has put under `manual`. README.md beside the stories lists the commands.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use kasm_autoscale_core::command::{Action, Command, Outcome};
use kasm_autoscale_core::config::ConfigSpec;
use kasm_autoscale_core::id::{ConfigId, ServerId};
use kasm_autoscale_core::input::{Answer, Fact, Input, Ticket};
use kasm_autoscale_core::ports::{
    Address, ComputerRef, JoinState, Listing, Machine, MachineRef, MachineState, OpRef, ProbeFailure, Progress,
    ProviderError,
};
use kasm_autoscale_core::row::{Outputs, Write};
use kasm_autoscale_core::session::{SessionRequest, SessionState};
use kasm_autoscale_core::time::{Span, Timestamp};

use super::directory::{Corp, Object};
use super::sweep::Sweep;
use super::words::{config, directory_error, directory_known, error, option, pool_settings, provider_known, span};
use super::{Host, T0, machine, pool_spec, srv};

/// More steps than this without time passing are a pool that chases its own tail.
const STEPS_AT_ONCE_MAX: u32 = 40;

/// What goes on all the time.
const DULL: [&str; 5] = ["  -> list", "  -> probe", "  -> check_join", "  -> list_computers", "  saved server/"];

pub struct Story {
    pub(super) host: Host,
    /// The cloud: by provider and reference.
    pub(super) cloud: BTreeMap<(String, String), Machine>,
    /// The directory `corp`.
    pub(super) corp: Corp,
    pub(super) manual: BTreeSet<String>,
    /// Machines whose connection port does not answer.
    pub(super) mute: BTreeSet<String>,
    /// Deaths that the text does not tell of, if there are to be any.
    pub(super) sweep: Option<Sweep>,
    pub(super) out: String,
    /// The blocks that are over.
    pub(super) all: String,
}

/// The blocks of a story: the lines of commands of each, comments left out.
pub fn blocks(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let blocks = text.split("\n\n").map(|block| block.trim_matches('\n')).filter(|block| !block.is_empty());
    blocks.map(|block| block.lines().take_while(|line| *line != "----").collect())
}

/// The story with what really happens in the place of what was expected.
pub fn told(text: &str) -> String {
    let mut story: Option<Story> = None;
    let mut result = String::new();
    for commands in blocks(text) {
        let is_comment = commands.iter().all(|line| line.starts_with('#'));
        let _ = writeln!(result, "{}", commands.join("\n"));
        if !is_comment {
            let lines: Vec<&str> = commands.into_iter().filter(|line| !line.starts_with('#')).collect();
            let story = story.get_or_insert_with(|| Story::new(lines[0]));
            let _ = writeln!(story.all, "{}", lines.join("\n"));
            story.block(&lines);
            story.all.push_str(&story.out.clone());
            let happened = std::mem::take(&mut story.out);
            let _ = write!(result, "----\n{}", if happened.is_empty() { "ok\n" } else { &happened });
        }
        result.push('\n');
    }
    result.trim_end().to_owned() + "\n"
}

impl Drop for Story {
    #[allow(clippy::print_stderr, reason = "a story that stops half-way is told as far as it went")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the story stopped after\n{}", self.all);
        }
    }
}

impl Story {
    pub(super) fn new(first: &str) -> Self {
        let words: Vec<&str> = first.split_whitespace().collect();
        let spec = if words[0] == "pool" { pool_settings(&words) } else { pool_spec() };
        Self {
            host: Host::new(spec),
            cloud: BTreeMap::new(),
            corp: Corp::default(),
            manual: BTreeSet::new(),
            mute: BTreeSet::new(),
            sweep: None,
            out: String::new(),
            all: String::new(),
        }
    }

    pub(super) fn block(&mut self, lines: &[&str]) {
        let mut inputs = Vec::new();
        for line in lines {
            let words: Vec<&str> = line.split_whitespace().collect();
            if !self.still_fits(&words) {
                continue;
            }
            if matches!(words[0], "time" | "crash") {
                self.go(std::mem::take(&mut inputs));
            }
            if matches!(words[0], "created" | "polled") {
                self.change_machine(&[words[2], "running", words[1], &format!("10.0.0.{}", &words[1][4..])]);
            }
            if words[0] == "accepted" && words[2].starts_with("i-") {
                self.change_machine(&[words[2], "provisioning", words[1]]);
            }
            if !self.arrange(&words) {
                let ticket = Some(Ticket(0));
                inputs.extend(self.facts(words[0], &words[1..]).into_iter().map(|fact| Input { ticket, fact }));
            }
        }
        self.go(inputs);
    }

    /// One step with these facts, and all that follows from it at once.
    pub(super) fn go(&mut self, inputs: Vec<Input>) {
        if !inputs.is_empty() {
            self.step(inputs, &[]);
            self.settle();
            self.tell_wake();
        }
    }

    /// Commands that are no facts.
    fn arrange(&mut self, words: &[&str]) -> bool {
        let rest = &words[1..];
        match words[0] {
            "manual" => self.manual.extend(rest.iter().map(ToString::to_string)),
            "auto" => self.manual.retain(|verb| !rest.contains(&verb.as_str())),
            "mute" => self.mute.extend(rest.iter().map(ToString::to_string)),
            "unmute" => self.mute.clear(),
            "machine" => self.change_machine(rest),
            "corp" => self.change_corp(rest),
            "computers" => self.tell_computers(),
            "time" => self.pass(span(rest[0])),
            "crash" => {
                self.host.now = self.host.now + rest.first().map_or(Duration::ZERO, |text| span(text));
                self.host.crash();
                self.go(self.host.introductions().into_iter().map(Input::from).collect());
            }
            "servers" => self.tell_servers(),
            "sessions" => self.tell_sessions(),
            "report" => self.tell_report(),
            "rows" => {
                let keys: Vec<&str> = self.host.store.rows.keys().map(String::as_str).collect();
                let _ = writeln!(self.out, "{}", keys.join(" "));
            }
            _ => return false,
        }
        true
    }

    fn facts(&mut self, verb: &str, words: &[&str]) -> Vec<Fact> {
        let server = || -> ServerId { words[0].parse().unwrap() };
        let finished = |verb: &str, server, outcome| vec![Fact::Finished(self.under_way(verb, server).id, outcome)];
        let of = |verb: &str, outcome| finished(verb, Some(words[0].parse().unwrap()), outcome);
        let made = |text: &str| Some(MachineRef(text.into()));
        match verb {
            "pool" => vec![Fact::PoolSet(Box::new(pool_settings(words)))],
            "provider" => vec![provider_known(words)],
            "directory" => vec![directory_known(words)],
            "config" => vec![Fact::ConfigSet(Box::new(config(words)))],
            "disable" => {
                let name = words[0].parse().unwrap();
                let known = self.host.pool.config(&name).expect("a config of this name");
                vec![Fact::ConfigSet(Box::new(ConfigSpec { enabled: false, ..known.clone() }))]
            }
            "enable" => {
                let name = words[0].parse().unwrap();
                let known = self.host.pool.config(&name).expect("a config of this name");
                vec![Fact::ConfigSet(Box::new(ConfigSpec { enabled: true, ..known.clone() }))]
            }
            "remove" => vec![Fact::ConfigRemoved(words[0].parse().unwrap())],
            "request" => vec![Fact::SessionRequested(SessionRequest {
                user: words[0].parse().unwrap(),
                zone: option(words, "zone").map(|text| text.parse().unwrap()),
                key: option(words, "key").map(Into::into),
            })],
            "end" => vec![Fact::SessionEnded(words[0].parse().unwrap())],
            "keepalive" => vec![Fact::KeptAlive(words[0].parse().unwrap())],
            "checkin" => vec![Fact::CheckedIn {
                server: server(),
                status: words.get(1).copied().unwrap_or("running").into(),
                message: words[1.min(words.len())..].join(" "),
                progress: 50,
            }],
            "drain" => vec![Fact::DrainAsked(server())],
            "undrain" => vec![Fact::UndrainAsked(server())],
            "acknowledge" => vec![Fact::LossAcknowledged(words[0].parse().unwrap())],
            "delete" => vec![Fact::DeleteAsked { server: server(), force: words.contains(&"force") }],
            "created" => of("create", Outcome::Progress(Ok(Progress::Done { machine: made(words[1]) }))),
            "accepted" if words[1].starts_with("op-") => of(
                "create",
                Outcome::Progress(Ok(Progress::Pending { machine: None, op: Some(OpRef(words[1].into())) })),
            ),
            "accepted" => of("create", Outcome::Progress(Ok(Progress::Pending { machine: made(words[1]), op: None }))),
            "polled" => of("poll", Outcome::Progress(Ok(Progress::Done { machine: made(words[1]) }))),
            "deleted" => of("delete", Outcome::Progress(Ok(Progress::Done { machine: None }))),
            "deleting" => of("delete", Outcome::Progress(Ok(Progress::Pending { machine: None, op: None }))),
            "found" => of("find", Outcome::Found(Ok(self.machine_named(words[1])))),
            "answered" => of("probe", Outcome::Probed(Ok(()))),
            "silent" => of("probe", Outcome::Probed(Err(ProbeFailure { message: "connection refused".into() }))),
            "list" => finished("list", None, Outcome::Listed(self.listing(words))),
            "failed" | "lost" => {
                let verbs = ["create", "poll", "find", "delete", "enroll", "find_computer", "check_join", "unenroll"];
                let newest = verbs
                    .iter()
                    .filter_map(|verb| self.host.command(verb, Some(server())))
                    .max_by_key(|command| command.id);
                let command = newest.unwrap_or_else(|| panic!("nothing is under way for {}", words[0]));
                let outcome = match (verb, &command.action) {
                    ("lost", action) => {
                        // The directory has done it, and its answer was lost.
                        if words.get(1) == Some(&"done") {
                            self.corp.perform(self.host.now, self.host.now, action);
                        }
                        Outcome::Lost
                    }
                    (_, Action::Enroll(_)) => Outcome::Enrolled(Err(directory_error(&words[1..]))),
                    (_, Action::FindComputer { .. }) => Outcome::ComputerFound(Err(directory_error(&words[1..]))),
                    (_, Action::CheckJoin { .. }) => Outcome::JoinChecked(Err(directory_error(&words[1..]))),
                    (_, Action::Unenroll { .. }) => Outcome::Unenrolled(Err(directory_error(&words[1..]))),
                    (_, Action::Find { .. }) => Outcome::Found(Err(error(&words[1..]))),
                    _ => Outcome::Progress(Err(error(&words[1..]))),
                };
                vec![Fact::Finished(command.id, outcome)]
            }
            other => panic!("no such command: {other}"),
        }
    }

    fn under_way(&self, verb: &str, server: Option<ServerId>) -> Command {
        self.host.command(verb, server).unwrap_or_else(|| panic!("no {verb} is under way for {server:?}"))
    }

    // --- the cloud ---

    fn machine_named(&self, name: &str) -> Option<Machine> {
        self.cloud.iter().find(|((_, reference), _)| reference == name).map(|(_, machine)| machine.clone())
    }

    /// `machine i-1 stopped`, `machine i-1 gone`, `machine i-9 running srv-1 10.0.0.9`
    pub(super) fn change_machine(&mut self, words: &[&str]) {
        let known = self.cloud.keys().find(|(_, reference)| reference == words[0]).cloned();
        let state = match words[1] {
            "gone" => {
                self.cloud.remove(&known.expect("a machine of this name"));
                return;
            }
            "provisioning" => MachineState::Provisioning,
            "running" => MachineState::Running,
            "stopped" => MachineState::Stopped,
            "deleting" => MachineState::Deleting,
            "failed" => MachineState::Failed,
            other => MachineState::Unknown(other.into()),
        };
        let at = known.unwrap_or_else(|| {
            // A new machine is where its server would have it made; one of a server that nobody knows is at `aws`.
            let id: ServerId = words[2].parse().unwrap();
            let server = self.host.pool.server(id);
            let owner = server.map_or("aws", |server| self.host.pool.born_with(server).provider.as_str());
            let made = machine(words[0], id, server.map_or(1, |server| server.config.serial()), state.clone(), None);
            let at = (owner.to_owned(), words[0].to_owned());
            self.cloud.insert(at.clone(), made);
            at
        });
        let machine = self.cloud.get_mut(&at).unwrap();
        machine.state = state;
        if let Some(host) = words.iter().find(|word| word.starts_with("10.")) {
            machine.address = Some(Address { host: (*host).into(), port: None });
        }
    }

    /// `list aws`, `list aws partial`, `list aws i-1 i-2`, `list aws failed throttled`
    pub(super) fn listing(&self, words: &[&str]) -> Result<Listing, ProviderError> {
        if words.get(1) == Some(&"failed") {
            return Err(error(&words[2..]));
        }
        let named: Vec<&str> = words[1..].iter().copied().filter(|word| *word != "partial").collect();
        let shown = |reference: &str| named.is_empty() || named.contains(&reference);
        let machines = self.cloud.iter().filter(|((owner, reference), _)| owner == words[0] && shown(reference));
        Ok(Listing {
            machines: machines.map(|(_, machine)| machine.clone()).collect(),
            complete: !words.contains(&"partial"),
        })
    }

    /// What the obedient cloud answers, and how that is told.
    pub(super) fn obey(&mut self, command: &Command) -> (String, Outcome) {
        let provider = command.action.provider().map(ToString::to_string).unwrap_or_default();
        let id = self.host.server_of(&command.action);
        let who = id.map(|id| id.to_string()).unwrap_or_default();
        match &command.action {
            Action::Create(create) => {
                let serial = create.server.server.serial();
                let (reference, host) = (format!("i-{serial}"), format!("10.0.0.{serial}"));
                let made = machine(&reference, srv(serial), create.config.serial(), MachineState::Running, Some(&host));
                self.cloud.insert((provider, reference.clone()), made);
                let outcome = Progress::Done { machine: Some(MachineRef(reference.clone())) };
                (format!("created {who} {reference}"), Outcome::Progress(Ok(outcome)))
            }
            Action::List { .. } => (String::new(), Outcome::Listed(self.listing(&[provider.as_str()]))),
            Action::Find { server, .. } => {
                let marked =
                    |machine: &&Machine| machine.marker.as_ref().is_some_and(|marker| marker.server == server.uuid());
                let found = self
                    .cloud
                    .iter()
                    .filter(|((owner, _), _)| *owner == provider)
                    .map(|(_, machine)| machine)
                    .find(marked);
                let name = found.map_or("none", |machine| machine.reference.0.as_str());
                (format!("found {who} {name}"), Outcome::Found(Ok(found.cloned())))
            }
            Action::Delete { machine, .. } => {
                self.cloud.remove(&(provider, machine.0.clone()));
                (format!("deleted {machine}"), Outcome::Progress(Ok(Progress::Done { machine: None })))
            }
            Action::Probe { .. } => {
                let machine = id.and_then(|id| self.host.pool.server(id)?.machine.clone());
                if machine.is_some_and(|machine| self.mute.contains(&machine.0)) {
                    let message = "connection refused".into();
                    return (format!("silent {who}"), Outcome::Probed(Err(ProbeFailure { message })));
                }
                (format!("answered {who}"), Outcome::Probed(Ok(())))
            }
            Action::Poll { .. } => {
                let id = id.expect("an operation of the story");
                let reference = format!("i-{}", id.serial());
                self.change_machine(&[&reference, "running", &id.to_string(), &format!("10.0.0.{}", id.serial())]);
                let outcome = Progress::Done { machine: Some(MachineRef(reference.clone())) };
                (format!("polled {who} {reference}"), Outcome::Progress(Ok(outcome)))
            }
            action => {
                let outcome = self.corp.perform(self.host.now, self.host.now, action);
                (self.answer_told(&who, &outcome), outcome)
            }
        }
    }

    /// What the directory answered.
    fn answer_told(&self, who: &str, outcome: &Outcome) -> String {
        let name = |reference: &ComputerRef| self.corp.objects.get(reference).map(|object| object.name.clone());
        match outcome {
            Outcome::Enrolled(Ok(reference)) => format!("enrolled {who} {}", name(reference).unwrap_or_default()),
            Outcome::ComputerFound(Ok(found)) => {
                format!("found computer {who} {}", found.as_ref().and_then(name).unwrap_or("none".into()))
            }
            Outcome::JoinChecked(Ok(JoinState::Waiting)) => String::new(),
            Outcome::JoinChecked(Ok(JoinState::Joined)) => format!("joined {who}"),
            Outcome::JoinChecked(Ok(JoinState::Absent)) => format!("no computer {who}"),
            Outcome::Unenrolled(Ok(())) => format!("unenrolled {who}"),
            Outcome::ComputersListed(_) => String::new(),
            failed => format!("{who} {}", failed.word()).trim().to_owned(),
        }
    }

    /// `corp down transient`, `corp up`, `corp joined srv-1`, `corp taken desk-1`, `corp children srv-1`, `corp object srv-77`,
    /// `corp gone srv-1`
    fn change_corp(&mut self, words: &[&str]) {
        let server = || -> ServerId { words[1].parse().unwrap() };
        match words[0] {
            "down" => self.corp.down = Some(directory_error(&words[1..])),
            "up" => self.corp.down = None,
            "joined" => self.corp.object_of(server()).joined = true,
            "children" => self.corp.object_of(server()).has_children = true,
            "taken" => drop(self.corp.foreign.insert(words[1].into())),
            "free" => drop(self.corp.foreign.remove(words[1])),
            "object" => drop(self.corp.make(server(), ConfigId::new(1), words[2], self.host.now)),
            "gone" => {
                let reference = self.corp.of(server()).expect("an object of this server").clone();
                self.corp.objects.remove(&reference);
            }
            other => panic!("corp {other}?"),
        }
    }

    fn tell_computers(&mut self) {
        let told = |object: &Object| format!("{} of {}", object.name, object.server);
        self.tell_all(self.corp.objects.values().map(told).collect());
    }

    // --- time ---

    pub(super) fn settle(&mut self) {
        for _ in 0..STEPS_AT_ONCE_MAX {
            let ready: Vec<Command> =
                self.host.in_flight.values().filter(|command| self.is_automatic(command)).cloned().collect();
            let spoken = self.machines_speak();
            if ready.is_empty() && spoken.is_empty() {
                return;
            }
            let (told, mut inputs): (Vec<String>, Vec<Input>) = ready
                .iter()
                .map(|command| {
                    let (told, outcome) = self.obey(command);
                    (told, Input::from(Fact::Finished(command.id, outcome)))
                })
                .unzip();
            inputs.extend(spoken);
            self.step(inputs, &told);
        }
        panic!("the pool never settles:\n{}", self.out);
    }

    /// Whether the obedient cloud carries it out at once.
    pub(super) fn is_automatic(&self, command: &Command) -> bool {
        let verb = command.action.verb();
        self.is_healing() || (verb != "poll" && !self.manual.contains(verb))
    }

    pub(super) fn pass(&mut self, span: Duration) {
        let end = self.host.now + span;
        let mut at_once = 0;
        while let Some(wake_at) = self.host.wake_at.filter(|wake_at| *wake_at <= end) {
            at_once = if wake_at <= self.host.now { at_once + 1 } else { 0 };
            assert!(at_once < STEPS_AT_ONCE_MAX, "wake_at stays at {wake_at}:\n{}", self.out);
            self.host.now = wake_at.max(self.host.now);
            self.step(vec![], &[]);
            self.settle();
        }
        self.host.now = end;
        self.tell_wake();
    }

    // --- telling ---

    pub(super) fn step(&mut self, inputs: Vec<Input>, told: &[String]) {
        let inputs_were = if told.is_empty() { inputs.len() } else { 0 };
        let said = if self.sweep.is_some() { inputs.clone() } else { vec![] };
        let batch = self.host.decide(inputs);
        if self.sweep.is_some() {
            return self.step_on(batch, said);
        }
        let writes: Vec<String> = batch.writes().iter().map(write_told).collect();
        for event in batch.events() {
            let text = serde_json::to_string(event).unwrap();
            assert_eq!(serde_json::from_str::<kasm_autoscale_core::report::Event>(&text).unwrap(), *event, "{text}");
        }
        let outputs = self.host.save(batch);
        self.host.store.expect_like(&self.host.pool);
        let restored = kasm_autoscale_core::pool::Pool::restore(self.host.store.load(), self.host.now);
        restored.expect("the store can be restored").check().expect("a restored pool adds up");
        let lines = self.happened(&outputs, &writes);
        let told: Vec<&str> = told.iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
        // Looking and finding nothing new goes on all the time.
        let dull = |line: &String| DULL.iter().any(|start| line.starts_with(start));
        let looked = told.iter().all(|text| text.starts_with("silent")) && lines.iter().all(dull);
        let manual = self.manual.contains("list") && lines.iter().any(|line| line.starts_with("  -> list"));
        let new = lines.iter().any(|line| line.starts_with("  -> probe")) && told.is_empty() && self.mute.is_empty();
        if looked && !manual && !new && inputs_were == 0 {
            return;
        }
        let arrived = if told.is_empty() { String::new() } else { format!(" <- {}", told.join(", ")) };
        let _ = writeln!(self.out, "{}{arrived}", self.clock(self.host.now));
        for line in lines {
            let _ = writeln!(self.out, "{line}");
        }
    }

    fn happened(&self, outputs: &Outputs, writes: &[String]) -> Vec<String> {
        let mut lines = Vec::new();
        for (_, answer) in &outputs.answers {
            match answer {
                Answer::Done => {}
                Answer::Session(id) => lines.push(format!("  = {id}")),
                Answer::Refused(refusal) => lines.push(format!("  = refused: {refusal}")),
            }
        }
        lines.extend(outputs.events.iter().map(|event| format!("  {}", without_epoch(&event.what.to_string()))));
        lines.extend(outputs.commands.iter().map(|command| format!("  -> {}", self.command_told(command))));
        if !writes.is_empty() {
            lines.push(format!("  saved {}", writes.join(" ")));
        }
        lines
    }

    fn command_told(&self, command: &Command) -> String {
        let verb = command.action.verb();
        match &command.action {
            Action::List { provider } => format!("{verb} {provider}"),
            Action::ListComputers { directory } => format!("{verb} {directory}"),
            Action::Unenroll { computer, recursive: true, .. } => format!("{verb} {computer} recursively"),
            Action::Unenroll { computer, .. } => format!("{verb} {computer}"),
            Action::Delete { machine, .. } => format!("{verb} {machine}"),
            Action::Poll { op, .. } => format!("{verb} {op}"),
            action => format!("{verb} {}", self.host.server_of(action).map(|id| id.to_string()).unwrap_or_default()),
        }
    }

    fn clock(&self, at: Timestamp) -> String {
        Span(at.since(T0)).to_string()
    }

    fn tell_wake(&mut self) {
        if let Some(wake_at) = self.host.wake_at {
            let _ = writeln!(self.out, "wakes in {}", Span(wake_at.since(self.host.now)));
        }
    }

    fn tell_servers(&mut self) {
        let mut lines = Vec::new();
        for server in self.host.pool.servers() {
            let born = self.host.pool.born_with(server);
            let machine = server.machine.as_ref().map_or("no machine".into(), ToString::to_string);
            let (kind, per) = (server.phase.kind(), born.max_sessions_per_server);
            lines.push(format!(
                "{} {kind}, {} edition {}, {machine}, {} of {per}",
                server.id, born.name, server.generation, server.sessions
            ));
        }
        self.tell_all(lines);
    }

    fn tell_sessions(&mut self) {
        let mut lines = Vec::new();
        for session in self.host.pool.sessions() {
            let place = match session.state {
                SessionState::Waiting { deadline } => format!("waits until {}", self.clock(deadline)),
                SessionState::Active { server, expires_at, .. } => {
                    format!("on {server} until {}", self.clock(expires_at))
                }
                SessionState::Ended { why, .. } => format!("ended: {why}"),
            };
            lines.push(format!("{} of {} {place}", session.id, session.user));
        }
        self.tell_all(lines);
    }

    fn tell_report(&mut self) {
        let report = self.host.pool.report();
        let mut lines =
            vec![format!("{} waiting, {} active, {} orphans", report.waiting, report.sessions, report.orphans.len())];
        lines.extend(report.orphan_computers.iter().map(|computer| format!("unknown computer object {computer}")));
        for config in report.configs {
            lines.push(without_epoch(&format!("{}: {}", config.config, config.decision)));
            lines.extend(config.fallback.iter().map(|fallback| format!("  {fallback}")));
            lines.extend(config.loss.iter().map(|loss| format!("  {loss}")));
            if config.kept > 0 {
                lines.push(format!("  {} kept for diagnosis", config.kept));
            }
            for known in config.backoffs {
                let until = self.clock(known.backoff.until);
                lines.push(format!("  {} failures, next try at {until}: {}", known.backoff.failures, known.kind));
            }
            lines.extend(config.cleanups.iter().map(|known| format!("  {}", without_epoch(&known.to_string()))));
            if !config.out_of_date.is_empty() {
                lines.push(format!("  out of date: {:?}", config.out_of_date));
            }
        }
        self.tell_all(lines);
    }

    fn tell_all(&mut self, lines: Vec<String>) {
        let lines = if lines.is_empty() { vec!["none".to_owned()] } else { lines };
        self.out.push_str(&(lines.join("\n") + "\n"));
    }
}

fn write_told(write: &Write) -> String {
    match write {
        Write::Put(_) => write.key().to_string(),
        Write::Delete(key) => format!("-{key}"),
    }
}

/// Instants in messages are seconds since 1970; stories count from their own beginning.
fn without_epoch(text: &str) -> String {
    let mut words = Vec::new();
    for word in text.split(' ') {
        let bare = word.trim_end_matches([':', ',', ';']);
        let millis = bare
            .strip_suffix('s')
            .and_then(|text| text.replace('.', "").parse::<u64>().ok())
            .filter(|n| *n > T0.as_millis());
        words.push(millis.map_or(word.to_owned(), |millis| {
            let span = Span(Timestamp::from_millis(millis).since(T0)).to_string();
            format!("{span}{}", &word[bare.len()..])
        }));
    }
    words.join(" ")
}
