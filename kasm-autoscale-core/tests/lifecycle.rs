//! The life of a server: `lifecycle.txt` against `PhaseKind::may_become`, and both against what real pools do.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{Host, directory_known, known, machine, pool_spec, request, secs, ses, set, srv};
use kasm_autoscale_core::command::Outcome;
use kasm_autoscale_core::config::ConfigSpec;
use kasm_autoscale_core::input::Fact;
use kasm_autoscale_core::ports::{
    Certainty, ComputerRef, DirectoryError, DirectoryErrorKind, ErrorKind, JoinState, Listing, Machine, MachineRef,
    MachineState, OpRef, ProbeFailure, Progress, ProviderError,
};
use kasm_autoscale_core::report::What;
use kasm_autoscale_core::row::Outputs;
use kasm_autoscale_core::server::PhaseKind::{
    self, Creating, Deleting, Draining, Enrolling, Gone, Ready, Starting, Unenrolling,
};
use serde_json::{Value, json};

/// A pool that wants one session free, and the moves its first server has made.
struct Lab {
    host: Host,
    at: Option<PhaseKind>,
    moves: BTreeSet<(PhaseKind, PhaseKind)>,
}

impl Lab {
    fn new() -> Self {
        let mut lab = Self { host: Host::new(pool_spec()), at: None, moves: BTreeSet::new() };
        lab.tell([known("aws"), directory_known()]);
        lab
    }

    fn config(&mut self, fields: Value) {
        let mut all = json!({ "minimum_available_sessions": 1, "max_sessions_per_server": 2, "max_servers": 1, "boot_deadline": "5m" });
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.tell([set(all)]);
    }

    fn edit(&mut self, edit: impl FnOnce(&mut ConfigSpec)) {
        let mut spec = self.host.pool.configs().next().unwrap().clone();
        edit(&mut spec);
        self.tell([Fact::ConfigSet(Box::new(spec))]);
    }

    /// Notes every move of the first server, and that each of them is allowed.
    fn note(&mut self, outputs: &Outputs) {
        for event in &outputs.events {
            let What::Server { server, phase, .. } = &event.what else { continue };
            if *server != srv(1) {
                continue;
            }
            if let Some(from) = self.at.replace(*phase) {
                assert!(from.may_become(*phase), "{from} became {phase}");
                self.moves.insert((from, *phase));
            }
        }
        // Events are told of every move, and of nothing else.
        assert_eq!(self.at.unwrap_or(Gone), self.host.phase(srv(1)));
    }

    fn tell<const N: usize>(&mut self, facts: [Fact; N]) {
        let outputs = self.host.step(facts);
        self.note(&outputs);
    }

    fn wait(&mut self, span: Duration) {
        self.host.now = self.host.now + span;
        self.tell([]);
    }

    fn finish(&mut self, verb: &str, outcome: Outcome) {
        let server = (!verb.starts_with("list")).then_some(srv(1));
        let outputs = self.host.finish(verb, server, outcome);
        self.note(&outputs);
    }

    /// The listing that is due within ten minutes shows this.
    fn list(&mut self, machines: Vec<Machine>) {
        for _ in 0..10 {
            if self.host.command("list", None).is_some() {
                return self.finish("list", Outcome::Listed(Ok(Listing { machines, complete: true })));
            }
            self.wait(secs(60));
        }
        panic!("nothing is listed");
    }

    /// Brings the first server to where a story begins, in the way the story needs.
    fn reach(&mut self, phase: PhaseKind) {
        if self.at == Some(phase) {
            return;
        }
        if self.at.is_none() {
            self.config(if matches!(phase, Enrolling | Unenrolling) { joining() } else { json!({}) });
        }
        if phase == Enrolling {
            return;
        }
        if self.at == Some(Enrolling) {
            self.finish("enroll", enrolled());
        }
        if phase == Creating {
            return;
        }
        self.finish("create", made("i-1"));
        if phase == Starting {
            return;
        }
        if phase == Unenrolling {
            self.tell([Fact::DeleteAsked { server: srv(1), force: false }]);
            return self.finish("delete", Outcome::Progress(Ok(Progress::Done { machine: None })));
        }
        self.list(vec![seen(MachineState::Running)]);
        self.finish("probe", Outcome::Probed(Ok(())));
        assert_eq!(self.at, Some(Ready));
        match phase {
            Draining => {
                self.tell([request("ann")]);
                self.tell([Fact::DrainAsked(srv(1))]);
            }
            Deleting => self.tell([Fact::DeleteAsked { server: srv(1), force: false }]),
            _ => {}
        }
    }
}

/// The fields of a config whose machines join a domain.
fn joining() -> Value {
    json!({ "ad_directory": "corp", "ad_computer_ou_dn": "OU=Desks,DC=corp,DC=example" })
}

fn enrolled() -> Outcome {
    Outcome::Enrolled(Ok(ComputerRef("obj-1".into())))
}

fn refused(kind: DirectoryErrorKind) -> DirectoryError {
    DirectoryError::new(kind, Certainty::NotApplied, "code", "words")
}

fn made(reference: &str) -> Outcome {
    Outcome::Progress(Ok(Progress::Done { machine: Some(MachineRef(reference.into())) }))
}

fn failed(certainty: Certainty) -> Outcome {
    Outcome::Progress(Err(ProviderError::new(ErrorKind::Quota, certainty, "Code", "words")))
}

fn seen(state: MachineState) -> Machine {
    machine("i-1", srv(1), 1, state, Some("10.0.0.1"))
}

fn accepted() -> Outcome {
    Outcome::Progress(Ok(Progress::Pending { machine: None, op: None }))
}

/// The same for lines about computer objects.
fn joins_a_domain(lab: &mut Lab, from: Option<PhaseKind>, event: &str) -> Option<()> {
    let with_object = |lab: &mut Lab, phase: PhaseKind| {
        lab.config(joining());
        lab.reach(phase);
    };
    let not_found = || Outcome::ComputerFound(Ok(None));
    if let Some(from) = from.filter(|from| matches!(from, Enrolling | Unenrolling)) {
        lab.reach(from);
    }
    match event {
        "sessions are short and servers join a domain" => lab.config(joining()),
        "the directory has made the computer object" => lab.finish("enroll", enrolled()),
        "the enrolment's answer is lost" => lab.finish("enroll", Outcome::Lost),
        "a lost enrolment is asked for again" => {
            lab.finish("enroll", Outcome::Lost);
            lab.wait(secs(5));
            lab.finish("enroll", enrolled());
        }
        "the name is taken" => lab.finish("enroll", Outcome::Enrolled(Err(refused(DirectoryErrorKind::NameTaken)))),
        "the directory refuses" => lab.finish("enroll", Outcome::Enrolled(Err(refused(DirectoryErrorKind::Denied)))),
        "the directory refuses after a lost enrolment" => {
            lab.finish("enroll", Outcome::Lost);
            lab.wait(secs(5));
            lab.finish("enroll", Outcome::Enrolled(Err(refused(DirectoryErrorKind::Transient))));
        }
        "the create certainly failed and there is a computer object" => {
            with_object(lab, Creating);
            lab.finish("create", failed(Certainty::NotApplied));
        }
        "a look-up finds nothing and there is a computer object" => {
            with_object(lab, Creating);
            lab.finish("create", Outcome::Lost);
            lab.finish("find", Outcome::Found(Ok(None)));
            lab.wait(secs(60));
            lab.finish("find", Outcome::Found(Ok(None)));
        }
        "the connection port answers but the machine has not joined" | "the machine has joined" => {
            with_object(lab, Starting);
            lab.list(vec![seen(MachineState::Running)]);
            lab.finish("probe", Outcome::Probed(Ok(())));
            lab.finish("check_join", Outcome::JoinChecked(Ok(JoinState::Waiting)));
            lab.wait(secs(10));
            if event == "the machine has joined" {
                lab.finish("check_join", Outcome::JoinChecked(Ok(JoinState::Joined)));
            }
        }
        "the computer object vanishes" | "the computer object is not seen within the visibility lag" => {
            with_object(lab, Starting);
            if event == "the computer object vanishes" {
                lab.wait(secs(30));
            }
            lab.list(vec![seen(MachineState::Running)]);
            lab.finish("probe", Outcome::Probed(Ok(())));
            lab.finish("check_join", Outcome::JoinChecked(Ok(JoinState::Absent)));
        }
        "the machine is gone and there is a computer object" => {
            with_object(lab, Starting);
            lab.tell([Fact::DeleteAsked { server: srv(1), force: false }]);
            lab.finish("delete", Outcome::Progress(Ok(Progress::Done { machine: None })));
        }
        "the removal fails" => {
            lab.finish("unenroll", Outcome::Unenrolled(Err(refused(DirectoryErrorKind::HasChildren))));
        }
        "the removal's answer is lost" => lab.finish("unenroll", Outcome::Lost),
        "the object is said to be gone before everybody knows it" => {
            lab.finish("unenroll", Outcome::Unenrolled(Ok(())));
        }
        "the object is removed" => {
            lab.finish("unenroll", Outcome::Unenrolled(Ok(())));
            lab.wait(secs(30));
            lab.finish("unenroll", Outcome::Unenrolled(Ok(())));
        }
        "the object is looked for and not found too early" | "the object is looked for and not found" => {
            // It went that way because nobody knew whether there was an object.
            *lab = Lab::new();
            lab.reach(Enrolling);
            lab.finish("enroll", Outcome::Lost);
            lab.tell([Fact::DeleteAsked { server: srv(1), force: false }]);
            lab.finish("find_computer", not_found());
            if !event.ends_with("early") {
                lab.wait(secs(10));
                lab.finish("find_computer", not_found());
                lab.wait(secs(20));
                lab.finish("find_computer", not_found());
            }
        }
        _ => return None,
    }
    Some(())
}

/// Lets one line of the table happen. `None`: nobody has said how.
fn happen(lab: &mut Lab, from: Option<PhaseKind>, event: &str) -> Option<()> {
    let ready = |lab: &mut Lab, fields: Value| {
        lab.config(fields);
        lab.reach(Ready);
    };
    let checks_in =
        || Fact::CheckedIn { server: srv(1), status: "running".into(), message: String::new(), progress: 0 };
    let stories_of_their_own = ["the surplus has lasted", "its last session ends and it is not reusable"];
    if joins_a_domain(lab, from, event).is_some() {
        return Some(());
    }
    let taken_back = ["sessions are short again", "the config is enabled again", "it is empty"];
    if let Some(from) = from.filter(|_| !stories_of_their_own.contains(&event) && !taken_back.contains(&event)) {
        lab.reach(from);
        assert_eq!(lab.at, Some(from));
    }
    match event {
        "sessions are short" => lab.config(json!({})),
        "the create names a machine" => lab.finish("create", made("i-1")),
        "a look-up finds the machine of a lost create" => {
            lab.finish("create", Outcome::Lost);
            lab.finish("find", Outcome::Found(Ok(Some(seen(MachineState::Provisioning)))));
        }
        "an operation names the machine" => {
            lab.finish(
                "create",
                Outcome::Progress(Ok(Progress::Pending { machine: None, op: Some(OpRef("op-1".into())) })),
            );
            lab.wait(secs(5));
            lab.finish("poll", made("i-1"));
        }
        "the operation failed" => {
            lab.finish(
                "create",
                Outcome::Progress(Ok(Progress::Pending { machine: None, op: Some(OpRef("op-1".into())) })),
            );
            lab.wait(secs(5));
            lab.finish("poll", failed(Certainty::NotApplied));
        }
        "a listing shows the machine before the create has answered" => lab.list(vec![seen(MachineState::Running)]),
        "the create's answer is lost" => lab.finish("create", Outcome::Lost),
        "a look-up finds nothing before the visibility lag is over" => {
            lab.finish("create", Outcome::Lost);
            lab.wait(secs(59));
            lab.finish("find", Outcome::Found(Ok(None)));
        }
        "a look-up finds nothing after the visibility lag" => {
            lab.finish("create", failed(Certainty::Unknown));
            lab.finish("find", Outcome::Found(Ok(None)));
            lab.wait(secs(60));
            lab.finish("find", Outcome::Found(Ok(None)));
        }
        "the create certainly failed" => lab.finish("create", failed(Certainty::NotApplied)),
        "the boot deadline passes" => lab.wait(secs(300)),
        "the config is disabled" => lab.edit(|spec| spec.enabled = false),
        "the config is removed" => lab.tell([Fact::ConfigRemoved("aws".parse().unwrap())]),
        "an operator deletes it" => lab.tell([Fact::DeleteAsked { server: srv(1), force: true }]),
        "an operator drains it" => lab.tell([Fact::DrainAsked(srv(1))]),
        "the machine runs" => lab.list(vec![seen(MachineState::Running)]),
        "the connection port answers" | "the connection port does not answer" => {
            lab.list(vec![seen(MachineState::Running)]);
            let refused = Err(ProbeFailure { message: "refused".into() });
            lab.finish("probe", Outcome::Probed(if event.ends_with("answers") { Ok(()) } else { refused }));
        }
        "the machine fails" => lab.list(vec![seen(MachineState::Failed)]),
        "the machine stops" => lab.list(vec![seen(MachineState::Stopped)]),
        "one complete listing does not show the machine" => lab.list(vec![]),
        "two complete listings do not show the machine" => {
            // A listing that began within the visibility lag proves nothing, so the first one counts for nothing.
            (0..3).for_each(|_| lab.list(vec![]));
        }
        "a session is placed on it" => lab.tell([request("ann")]),
        "the machine checks in" => lab.tell([checks_in()]),
        "the surplus has lasted" => {
            ready(lab, json!({ "downscale_backoff": "1m" }));
            lab.edit(|spec| spec.minimum_available_sessions = 0);
            lab.wait(secs(60));
        }
        "its last session ends and it is not reusable" => {
            ready(lab, json!({ "reusable": false }));
            lab.tell([request("ann")]);
            lab.tell([Fact::SessionEnded(ses(1))]);
        }
        "sessions are short again" => {
            ready(lab, json!({ "downscale_backoff": "0s" }));
            lab.edit(|spec| spec.minimum_available_sessions = 0);
            assert_eq!(lab.at, from);
            lab.tell([request("ann")]);
        }
        "the config is enabled again" => {
            ready(lab, json!({}));
            lab.edit(|spec| spec.enabled = false);
            assert_eq!(lab.at, from);
            lab.edit(|spec| spec.enabled = true);
        }
        "the operator takes it back" => lab.tell([Fact::UndrainAsked(srv(1))]),
        "it still has a session" => lab.wait(secs(60)),
        "it is empty" => {
            lab.reach(Draining);
            lab.wait(secs(1));
            lab.tell([Fact::SessionEnded(ses(1))]);
        }
        "the delete fails" => lab.finish("delete", failed(Certainty::NotApplied)),
        "the delete is accepted" => lab.finish("delete", accepted()),
        "the delete's answer is lost" => lab.finish("delete", Outcome::Lost),
        "the delete is done" => lab.finish("delete", Outcome::Progress(Ok(Progress::Done { machine: None }))),
        "a look-up finds nothing" | "a look-up finds the machine deleted" => {
            lab.finish("delete", accepted());
            lab.wait(secs(60));
            let found = event.ends_with("deleted").then(|| seen(MachineState::Deleted));
            lab.finish("find", Outcome::Found(Ok(found)));
        }
        "a complete listing does not show the machine" => {
            lab.finish("delete", accepted());
            lab.wait(secs(60));
            // The one under way began before the delete was accepted.
            lab.list(vec![]);
            lab.wait(secs(5));
            lab.list(vec![]);
        }
        _ => return None,
    }
    Some(())
}

fn phase(word: &str) -> Option<PhaseKind> {
    (word != "none")
        .then(|| PhaseKind::ALL.into_iter().find(|kind| kind.as_str() == word).unwrap_or_else(|| panic!("{word}?")))
}

#[test]
fn i_25_every_move_is_in_the_table_and_every_line_of_it_happens() {
    let table = include_str!("lifecycle.txt");
    let mut told: BTreeSet<(PhaseKind, PhaseKind)> = BTreeSet::new();
    let mut made: BTreeSet<(PhaseKind, PhaseKind)> = BTreeSet::new();
    for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (from, rest) = line.split_once("->").unwrap();
        let (to, event) = rest.trim().split_once(' ').unwrap();
        let (from, to) = (phase(from.trim()), phase(to).unwrap());
        let mut lab = Lab::new();
        happen(&mut lab, from, event.trim()).unwrap_or_else(|| panic!("nobody has said how this happens: {line}"));
        assert_eq!(lab.at, Some(to), "{line}");
        if let Some(from) = from.filter(|from| *from != to) {
            assert!(lab.moves.contains(&(from, to)), "{line}: it did not go straight there: {:?}", lab.moves);
            told.insert((from, to));
        }
        made.extend(lab.moves);
    }
    let pairs = PhaseKind::ALL.into_iter().flat_map(|from| PhaseKind::ALL.into_iter().map(move |to| (from, to)));
    let allowed: BTreeSet<_> = pairs.filter(|(from, to)| from.may_become(*to)).collect();
    assert_eq!(told, allowed, "lifecycle.txt and PhaseKind::may_become differ");
    assert_eq!(made, allowed, "what pools do and PhaseKind::may_become differ");
}

#[test]
fn a_server_is_gone_for_good() {
    assert!(PhaseKind::ALL.into_iter().all(|next| !Gone.may_become(next)));
    let mut lab = Lab::new();
    lab.reach(Deleting);
    lab.finish("delete", Outcome::Progress(Ok(Progress::Done { machine: None })));
    assert_eq!(lab.at, Some(Gone));
    let created = lab.host.command("create", None).expect("another one is made in its place");
    assert_eq!(lab.host.server_of(&created.action), Some(srv(2)), "its number is not used again");
}

/// A copy of an installation, made for tests from its database, has the same pools and servers, and another deployment id.
#[test]
fn another_installations_machine_is_never_taken_for_ours() {
    let mut theirs = seen(MachineState::Running);
    theirs.marker.as_mut().expect("a mark").deployment = kasm_autoscale_core::id::DeploymentId::from_bytes([0xEE; 16]);
    let mut lab = Lab::new();
    lab.reach(Creating);
    lab.finish("create", failed(Certainty::Unknown));
    lab.finish("find", Outcome::Found(Ok(Some(theirs.clone()))));
    assert_eq!(lab.at, Some(Creating), "not adopted");
    lab.wait(secs(60));
    lab.finish("find", Outcome::Found(Ok(Some(theirs))));
    assert_eq!(lab.at, Some(Gone), "no machine of ours was made");
}
