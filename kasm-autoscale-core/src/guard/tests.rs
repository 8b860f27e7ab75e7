//! Every check, against the one mistake it is there for. The mistakes are made by hand in a pool that is sound otherwise.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use crate::command::{Action, CreateMachine, EnrollComputer};
use crate::config::{DomainJoin, PlacementPolicy};
use crate::id::{ConfigId, DirectoryName, ProviderName, ServerId, SessionId};
use crate::input::Fact;
use crate::pool::Pool;
use crate::ports::{ComputerRef, MachineRef};
use crate::report::What;
use crate::row::{MassLoss, RowKey};
use crate::server::{CreateCall, DeleteCall, DeleteReason, Phase, Server, UnenrollCall};
use crate::session::SessionState;
use crate::state::{Orphan, State, Subject};
use crate::testing::fleet::{Fleet, NOW};

const CONFIG: ConfigId = ConfigId::new(1);
const FIRST: ServerId = ServerId::new(1);
/// Has no session.
const FREE: ServerId = ServerId::new(4);

/// Four servers of two sessions each, all there may be; three sessions, on the first three.
fn sound() -> Pool {
    let fleet =
        Fleet { servers: 4, per_server: 2, sessions: 3, minimum_available: 4, placement: PlacementPolicy::Spread };
    let mut pool = Pool::restore(fleet.rows(), NOW).unwrap();
    let spec = crate::config::ConfigSpec { max_servers: 4, ..fleet.config() };
    let outputs = pool.step(NOW, [Fact::ConfigSet(Box::new(spec)).into()]).saved();
    assert!(!outputs.events.iter().any(|event| matches!(event.what, What::Frozen { .. })));
    assert!(found_in(&mut pool, |_| ()).is_empty());
    pool
}

fn found_in(pool: &mut Pool, mistake: impl FnOnce(&mut State)) -> Vec<String> {
    let (state, guard) = pool.parts();
    mistake(state);
    guard.inspect(state).into_iter().map(|violation| violation.invariant).collect()
}

#[track_caller]
fn finds(invariant: &str, mistake: impl FnOnce(&mut State)) {
    let found = found_in(&mut sound(), mistake);
    assert!(found.iter().any(|found| found == invariant), "{invariant:?} is not among {found:?}");
}

fn machine_of(state: &State, id: ServerId) -> MachineRef {
    state.servers[&id].machine.clone().unwrap()
}

fn provider() -> ProviderName {
    "simulated".parse().unwrap()
}

fn deleting(why: DeleteReason) -> Phase {
    Phase::Deleting { since: NOW, why, call: DeleteCall::Send, tries: 0, next_at: NOW }
}

/// One more server, as a plan makes it.
fn grow(state: &mut State, id: u64) {
    let mut server = state.servers[&FREE].clone();
    server.id = ServerId::new(id);
    server.slot = state.slots.first_missing();
    server.machine = None;
    server.generation = state.configs[&CONFIG].current;
    server.phase = Phase::Creating { call: CreateCall::Intended, deadline: NOW + Duration::from_secs(60) };
    state.journal.changed.insert(RowKey::Server(server.id));
    state.row.next_server = state.row.next_server.max(id + 1);
    state.insert_server(server);
}

fn create(state: &State, id: ServerId) -> Action {
    let server = &state.servers[&id];
    Action::Create(CreateMachine {
        deployment: state.row.spec.deployment,
        server: state.key(id),
        config: server.config,
        spec: state.born_with(server).clone(),
        checkin_expires_at: NOW,
    })
}

fn delete(state: &mut State, id: ServerId) {
    let machine = machine_of(state, id);
    state.send_for_server(id, Action::Delete { provider: provider(), machine });
}

/// A config that needs and may have any number of servers more.
fn roomy(state: &mut State) {
    let config = state.configs.get_mut(&CONFIG).unwrap();
    config.target = 1_000;
    let edition = config.editions.get_mut(&config.current).unwrap();
    alloc::sync::Arc::make_mut(&mut edition.spec).max_servers = 1_000;
}

fn edit(state: &mut State, id: ServerId, edit: impl FnOnce(&mut Server)) {
    state.edit_server(id, edit);
}

fn sit(state: &mut State, number: u64, server: ServerId) {
    let mut session = state.sessions[&SessionId::new(1)].clone();
    session.id = SessionId::new(number);
    session.user = alloc::format!("one-more-{number}").parse().unwrap();
    session.state = SessionState::Active { server, since: NOW, expires_at: NOW + Duration::from_secs(60) };
    state.journal.changed.insert(RowKey::Session(session.id));
    state.insert_session(session);
}

#[test]
fn i_14_no_delete_under_a_session() {
    finds("I-14 no machine is deleted under a session", |state| delete(state, FIRST));
    finds("I-14 a machine is deleted after its server has begun to go", |state| delete(state, FREE));
    finds("I-03 and I-14 sessions only where they can be", |state| {
        edit(state, FIRST, |server| server.phase = deleting(DeleteReason::Operator));
    });
    finds("I-14 a server that is gone has no session", |state| {
        state.servers.remove(&FIRST);
        state.journal.changed.insert(RowKey::Server(FIRST));
    });
    let mut pool = sound();
    assert!(
        found_in(&mut pool, |state| edit(state, FREE, |server| server.phase = deleting(DeleteReason::Operator)))
            .is_empty()
    );
    let back = found_in(&mut pool, |state| edit(state, FREE, |server| server.phase = Phase::Ready { since: NOW }));
    assert_eq!(back, ["I-14 no way back from deleting"]);
    // And the proper way.
    let mut pool = sound();
    let proper = found_in(&mut pool, |state| {
        edit(state, FREE, |server| server.phase = deleting(DeleteReason::Operator));
        delete(state, FREE);
    });
    assert_eq!(proper, [""; 0]);
}

#[test]
fn i_13_only_what_is_ours_to_delete() {
    finds("I-13 a server's own machine is deleted", |state| {
        edit(state, FREE, |server| server.phase = deleting(DeleteReason::Operator));
        state.send_for_server(FREE, Action::Delete { provider: provider(), machine: MachineRef("another".into()) });
    });
    let orphan = |state: &mut State, name: &str, sightings| {
        let machine = MachineRef(name.into());
        let known = state.providers.entry(provider()).or_default();
        known.orphans.insert(machine.clone(), Orphan { config: CONFIG, sightings, busy: None });
        state.configs.get_mut(&CONFIG).unwrap().orphans += 1;
        let subject = Subject::Orphan(provider(), machine.clone());
        state.send(subject, Action::Delete { provider: provider(), machine });
    };
    finds("I-13 an unknown machine is seen twice before it is deleted", |state| orphan(state, "stray", 1));
    finds("I-13 a machine that a row knows is not an unknown one", |state| orphan(state, "m-4", 2));
    assert!(found_in(&mut sound(), |state| orphan(state, "stray", 2)).is_empty());
}

#[test]
fn i_15_a_loss_that_nobody_believes_deletes_nothing() {
    let loss = MassLoss { provider: provider(), since: NOW, missing: 4, of: 4, acknowledged: false };
    let lost = |state: &mut State, why| {
        state.configs.get_mut(&CONFIG).unwrap().memory.loss = Some(loss.clone());
        edit(state, FREE, |server| server.phase = deleting(why));
        delete(state, FREE);
    };
    finds("I-15 a loss too large to be believed deletes nothing", |state| lost(state, DeleteReason::MachineLost));
    assert!(found_in(&mut sound(), |state| lost(state, DeleteReason::Operator)).is_empty(), "somebody asked for it");
}

#[test]
fn i_09_and_i_10_the_cap_and_the_need() {
    finds("I-09 the cap counts what is not proved gone", |state| grow(state, 5));
    finds("I-10 nothing is made beyond need", |state| {
        roomy(state);
        state.configs.get_mut(&CONFIG).unwrap().target = 4;
        grow(state, 5);
    });
    let mut pool = sound();
    let proper = found_in(&mut pool, |state| {
        roomy(state);
        grow(state, 5);
    });
    assert_eq!(proper, [""; 0]);
    // Machines that no row knows count as well.
    finds("I-09 the cap counts what is not proved gone", |state| {
        roomy(state);
        let known = state.providers.entry(provider()).or_default();
        for number in 0..996 {
            let orphan = Orphan { config: CONFIG, sightings: 1, busy: None };
            known.orphans.insert(MachineRef(alloc::format!("stray-{number}")), orphan);
        }
        grow(state, 5);
    });
}

#[test]
fn i_35_a_config_that_is_off_makes_nothing() {
    finds("I-35 a config that is off makes nothing", |state| {
        roomy(state);
        state.configs.get_mut(&CONFIG).unwrap().removed = true;
        grow(state, 5);
    });
    let mut pool = sound();
    let late = found_in(&mut pool, |state| {
        roomy(state);
        grow(state, 5);
    });
    assert_eq!(late, [""; 0]);
    let late = found_in(&mut pool, |state| {
        state.configs.get_mut(&CONFIG).unwrap().removed = true;
        let action = create(state, ServerId::new(5));
        state.send_for_server(ServerId::new(5), action);
    });
    assert_eq!(late, ["I-35 a config that is off makes nothing"]);
    finds("I-35 a server keeps the edition it was born with", |state| {
        roomy(state);
        grow(state, 5);
        let Action::Create(mut other) = create(state, ServerId::new(5)) else { return };
        alloc::sync::Arc::make_mut(&mut other.spec).max_servers += 1;
        state.send_for_server(ServerId::new(5), Action::Create(other));
    });
    finds("I-35 a server has the edition it was born with", |state| {
        state.servers.get_mut(&FREE).unwrap().generation = 77;
        state.journal.changed.insert(RowKey::Server(FREE));
    });
}

#[test]
fn i_06_and_i_07_a_create_is_written_first_and_leaves_once() {
    let mut pool = sound();
    let send = |state: &mut State| {
        let action = create(state, ServerId::new(5));
        state.send_for_server(ServerId::new(5), action);
    };
    let first = found_in(&mut pool, |state| {
        roomy(state);
        grow(state, 5);
        send(state);
    });
    assert_eq!(first, [""; 0]);
    let again = found_in(&mut pool, |state| {
        state.journal.commands.clear();
        send(state);
    });
    assert_eq!(again, ["I-07 a create leaves once"]);
    finds("I-07 only what is intended is asked for", |state| {
        let action = create(state, FREE);
        state.send_for_server(FREE, action);
    });
    finds("I-06 a create is written before it leaves", |state| {
        // Its row is there, but nobody is told to write it.
        grow(state, 5);
        state.journal.changed.remove(&RowKey::Server(ServerId::new(5)));
        send(state);
    });
    let mut pool = sound();
    let first = found_in(&mut pool, |state| {
        roomy(state);
        grow(state, 9);
    });
    assert_eq!(first, [""; 0]);
    let lower = found_in(&mut pool, |state| grow(state, 7));
    assert_eq!(lower, ["I-22 numbers are never used twice"]);
}

fn directory() -> DirectoryName {
    "corp".parse().unwrap()
}

/// The config's servers join a domain from now on.
fn joining(state: &mut State) {
    let config = state.configs.get_mut(&CONFIG).unwrap();
    let edition = config.editions.get_mut(&config.current).unwrap();
    let join = DomainJoin { directory: directory(), ou: "OU=Computers".into(), recursive_cleanup: false };
    alloc::sync::Arc::make_mut(&mut edition.spec).domain_join = Some(join);
}

#[test]
fn i_21_a_computer_object_before_its_machine_and_gone_after_it() {
    const NEW: ServerId = ServerId::new(5);
    let enroll = |state: &mut State| {
        let enroll = EnrollComputer {
            directory: directory(),
            deployment: state.row.spec.deployment,
            server: state.key(NEW),
            config: CONFIG,
            name: state.configs[&CONFIG].spec().server_name_pattern.name_of(&state.key(NEW)).unwrap(),
            ou: "OU=Computers".into(),
        };
        state.send_for_server(NEW, Action::Enroll(enroll));
    };
    let create = |state: &mut State| {
        let action = create(state, NEW);
        state.send_for_server(NEW, action);
    };
    let made = |state: &mut State| {
        roomy(state);
        joining(state);
        grow(state, 5);
    };
    finds("I-21 no machine before its computer object", |state| {
        made(state);
        create(state);
    });
    finds("I-21 a computer object is made first", |state| {
        made(state);
        enroll(state);
    });
    let unenroll = |state: &mut State| {
        let computer = ComputerRef("object".into());
        state.send_for_server(NEW, Action::Unenroll { directory: directory(), computer, recursive: false });
    };
    finds("I-21 no computer object goes before its machine", |state| {
        made(state);
        unenroll(state);
    });
    // And the proper way.
    let mut pool = sound();
    for step in [
        |state: &mut State| {
            edit(state, NEW, |server| {
                server.phase = Phase::Enrolling { asked: None, tries: 0, ask_at: NOW, deadline: NOW };
            });
        },
        |state: &mut State| {
            edit(state, NEW, |server| {
                server.computer = Some(ComputerRef("object".into()));
                server.phase = Phase::Creating { call: CreateCall::Intended, deadline: NOW };
            });
        },
        |state: &mut State| {
            edit(state, NEW, |server| {
                let (why, call) = (DeleteReason::NotMade, UnenrollCall::Send);
                server.phase = Phase::Unenrolling { since: NOW, why, call, tries: 0, next_at: NOW, failure: None };
            });
        },
    ]
    .into_iter()
    .zip([&enroll as &dyn Fn(&mut State), &create, &unenroll])
    {
        let found = found_in(&mut pool, |state| {
            if !state.servers.contains_key(&NEW) {
                made(state);
            }
            state.journal.commands.clear();
            step.0(state);
            step.1(state);
        });
        assert_eq!(found, [""; 0]);
    }
}

#[test]
fn i_01_to_i_03_sessions_where_they_can_be() {
    finds("I-01 sessions within max", |state| {
        sit(state, 11, FIRST);
        sit(state, 12, FIRST);
    });
    finds("I-03 a session is on a server that is there", |state| sit(state, 11, ServerId::new(99)));
    finds("I-02 a session stays where it was placed", |state| {
        state.edit_session(SessionId::new(1), |session| {
            session.state = SessionState::Active { server: FREE, since: NOW, expires_at: NOW + Duration::from_secs(9) };
        });
    });
    finds("I-02 a slot that is not reusable is taken once", |state| {
        let config = state.configs.get_mut(&CONFIG).unwrap();
        for edition in config.editions.values_mut() {
            alloc::sync::Arc::make_mut(&mut edition.spec).reusable = false;
        }
        edit(state, FREE, |server| server.taken = 3);
    });
    finds("I-02 one open session a user", |state| {
        sit(state, 11, FREE);
        let user = state.sessions[&SessionId::new(11)].user.clone();
        state.open_by_user.insert(user, SessionId::new(1));
    });
    let mut pool = sound();
    assert!(found_in(&mut pool, |state| sit(state, 11, FREE)).is_empty());
}

#[test]
fn tallies_are_those_of_the_rows() {
    for spoil in [
        |state: &mut State| state.configs.get_mut(&CONFIG).unwrap().tally.free += 1,
        |state: &mut State| state.configs.get_mut(&CONFIG).unwrap().tally.coming += 1,
        |state: &mut State| state.configs.get_mut(&CONFIG).unwrap().tally.sessions -= 1,
        |state: &mut State| state.configs.get_mut(&CONFIG).unwrap().tally.phases.deleting += 1,
    ] {
        finds("tally kept", |state| {
            spoil(state);
            edit(state, FREE, |server| server.taken += 1);
        });
    }
    finds("sessions counted", |state| {
        state.servers.get_mut(&FIRST).unwrap().sessions = 2;
        state.journal.changed.insert(RowKey::Server(FIRST));
    });
}

#[test]
fn what_is_found_in_a_step_keeps_its_commands_back() {
    let mut pool = sound();
    let (state, _) = pool.parts();
    delete(state, FIRST);
    state.send(Subject::Listing(provider()), Action::List { provider: provider() });
    let outputs = pool.step(NOW, []).saved();
    let verbs: Vec<&str> = outputs.commands.iter().map(|command| command.action.verb()).collect();
    assert_eq!(verbs, ["list"], "the delete stays here, the look goes out");
    let what: Vec<&What> = outputs.events.iter().map(|event| &event.what).collect();
    let [What::Frozen { config, freeze }] = what[..] else { panic!("{what:?}") };
    assert_eq!((config.as_str(), freeze.invariant.as_str()), ("fleet", "I-14 no machine is deleted under a session"));
    assert!(freeze.found.contains("m-1 of srv-1"), "{freeze}");
    assert!(outputs.wake_at.is_some_and(|at| at <= NOW), "its plan was made before");
    // The rows add up, so an operator may lift it.
    let lifted = pool.step(NOW, [Fact::FreezeLifted("fleet".parse().unwrap()).into()]).saved();
    assert!(lifted.events.iter().any(|event| matches!(event.what, What::FreezeLifted { .. })), "{:?}", lifted.events);
    assert!(pool.report().configs[0].freeze.is_none());
}

#[test]
fn a_recount_that_finds_something_freezes_what_it_concerns() {
    let mut pool = sound();
    let (state, _) = pool.parts();
    // Nothing that a step looks at by itself.
    state.configs.get_mut(&CONFIG).unwrap().undoable.insert(FREE);
    assert!(pool.step(NOW, []).saved().events.is_empty());
    let outputs = pool.step(NOW, [Fact::RecountAsked.into()]).saved();
    let frozen =
        |what: &What| matches!(what, What::Frozen { freeze, .. } if freeze.invariant == "undoable drains kept");
    assert!(outputs.events.iter().any(|event| frozen(&event.what)), "{:?}", outputs.events);
    // What concerns the pool as a whole freezes every config of it.
    let mut pool = sound();
    let (state, _) = pool.parts();
    state.active += 1;
    let outputs = pool.step(NOW, [Fact::RecountAsked.into()]).saved();
    let words: Vec<String> = outputs.events.iter().map(|event| alloc::format!("{}", event.what)).collect();
    assert!(words.iter().any(|words| words.contains("active counted")), "{words:?}");
    assert_eq!(vec![true], pool.report().configs.iter().map(|config| config.freeze.is_some()).collect::<Vec<_>>());
}
