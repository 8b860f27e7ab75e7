//! What facts may and may not change: order, grouping, repetition, clocks that run backwards, and rows that are not a pool's.

mod common;

use std::collections::BTreeMap;

use common::{Host, T0, known, machine, pool_spec, request, secs, ses, set, srv};
use kasm_autoscale_core::command::Outcome;
use kasm_autoscale_core::id::{CommandId, DeploymentId, ServerId, UserName};
use kasm_autoscale_core::input::{Answer, Fact, Input, Refusal, Ticket};
use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::ports::{Listing, MachineRef, MachineState, Progress};
use kasm_autoscale_core::row::{ROW_FORMAT, RestoreError, Row, Write};
use kasm_autoscale_core::session::SessionRequest;
use proptest::prelude::*;
use serde_json::json;

fn pool_of(per: u32, min: u32) -> Host {
    let mut host = Host::new(pool_spec());
    host.step([known("aws"), set(json!({ "minimum_available_sessions": min, "max_sessions_per_server": per }))]);
    host
}

/// Where everybody is.
fn seats(host: &Host) -> BTreeMap<UserName, Option<ServerId>> {
    host.pool.sessions().map(|session| (session.user.clone(), session.server())).collect()
}

proptest! {
    /// What is decided depends on the picture, not on how many steps it took to paint it.
    #[test]
    fn requests_one_by_one_end_as_requests_at_once(users in proptest::collection::vec(0..30_u8, 1..40), per in 1..5_u32, min in 0..8_u32) {
        let (mut at_once, mut one_by_one) = (pool_of(per, min), pool_of(per, min));
        let facts: Vec<Fact> = users.iter().map(|user| request(&format!("u{user}"))).collect();
        at_once.step(facts.clone());
        facts.into_iter().for_each(|fact| drop(one_by_one.step([fact])));
        prop_assert_eq!(seats(&at_once), seats(&one_by_one));
        prop_assert_eq!(at_once.pool.servers().count(), one_by_one.pool.servers().count());
        let rows = |host: &Host| host.store.rows.iter().filter(|(key, _)| key.starts_with("ser")).map(|(_, row)| row.clone()).collect::<Vec<_>>();
        prop_assert_eq!(rows(&at_once), rows(&one_by_one));
    }

    /// I-34: a caller who asks again, however often, gets one session and the same answer.
    #[test]
    fn i_34_the_same_key_is_the_same_session(repeats in 1..20_usize) {
        let mut host = pool_of(1, 1);
        let wish = || Input {
            ticket: Some(Ticket(7)),
            fact: Fact::SessionRequested(SessionRequest { user: "ann".parse().unwrap(), zone: None, key: Some("k".into()) }),
        };
        for _ in 0..repeats {
            let outputs = host.step_inputs(vec![wish()]);
            prop_assert_eq!(outputs.answers, vec![(Ticket(7), Answer::Session(ses(1)))]);
        }
        prop_assert_eq!(host.pool.sessions().count(), 1);
    }
}

#[test]
fn an_outcome_that_comes_twice_or_from_nowhere_is_ignored() {
    let mut host = pool_of(1, 1);
    let command = host.command("create", Some(srv(1))).unwrap();
    let made = Outcome::Progress(Ok(Progress::Done { machine: Some(MachineRef("i-1".into())) }));
    host.step([Fact::Finished(command.id, made.clone())]);
    let before = host.store.clone();
    let other = Outcome::Progress(Ok(Progress::Done { machine: Some(MachineRef("i-2".into())) }));
    host.step([Fact::Finished(command.id, other), Fact::Finished(CommandId::new(9999), made)]);
    assert_eq!(host.store, before);
}

#[test]
fn i_28_a_clock_that_runs_backwards_changes_nothing() {
    let mut host = pool_of(1, 1);
    host.now = T0 + secs(600);
    host.step([request("ann")]);
    let before = host.store.clone();
    host.now = T0;
    let outputs = host.step([]);
    assert_eq!(host.store, before);
    assert!(outputs.wake_at.is_some_and(|wake_at| wake_at > T0 + secs(600)), "{:?}", outputs.wake_at);
    // Nor after a restart: the pool knows the latest instant it wrote.
    host.crash();
    host.step([Fact::SessionEnded(ses(1))]);
    assert!(host.pool.session(ses(1)).is_some(), "the session has not been over for ten minutes yet");
}

#[test]
fn tickets_are_answered_in_order_and_only_once() {
    let mut host = pool_of(1, 1);
    let facts = [request("ann"), Fact::SessionEnded(ses(1)), Fact::SessionEnded(ses(1)), Fact::DrainAsked(srv(9))];
    let inputs = facts.into_iter().zip(1..).map(|(fact, n)| Input { ticket: Some(Ticket(n)), fact }).collect();
    let outputs = host.step_inputs(inputs);
    let refused = |refusal| Answer::Refused(refusal);
    let expected = vec![
        (Ticket(1), Answer::Session(ses(1))),
        (Ticket(2), Answer::Session(ses(1))),
        (Ticket(3), refused(Refusal::SessionEnded { session: ses(1) })),
        (Ticket(4), refused(Refusal::UnknownServer { server: srv(9) })),
    ];
    assert_eq!(outputs.answers, expected);
    assert!(host.step([]).answers.is_empty());
}

#[test]
fn the_ids_of_a_pool_cannot_be_changed() {
    let mut host = pool_of(1, 1);
    let mut spec = pool_spec();
    spec.id = kasm_autoscale_core::id::PoolId::from_bytes([9; 16]);
    spec.queue_max = 3;
    host.step([Fact::PoolSet(Box::new(spec))]);
    assert_eq!((host.pool.spec().id, host.pool.spec().queue_max), (pool_spec().id, 3));
}

// --- rows ---

fn rows() -> Vec<Row> {
    let mut host = pool_of(2, 1);
    host.step([request("ann")]);
    host.store.load()
}

fn refused(rows: Vec<Row>) -> RestoreError {
    Pool::restore(rows, T0).map(|pool| panic!("restored: {pool:?}")).unwrap_err()
}

#[test]
fn i_30_restoring_twice_is_restoring_once() {
    let restored = |rows: Vec<Row>| Pool::restore(rows, T0).unwrap();
    let once = format!("{:?}", restored(rows()).report());
    let mut backwards = rows();
    backwards.reverse();
    assert_eq!(format!("{:?}", restored(backwards).report()), once, "rows come in any order");
    let mut pool = restored(rows());
    let mut store = common::Store::default();
    rows().iter().for_each(|row| store.save(&[Write::Put(row.clone())]));
    store.save(pool.step(T0, [Input::from(known("aws"))]).writes());
    store.expect_like(&pool);
    store.expect_like(&restored(store.load()));
}

#[test]
fn rows_that_were_never_written_out_are_as_good() {
    let mut kept = BTreeMap::new();
    let mut pool = Pool::new(pool_spec(), T0);
    let facts =
        [known("aws"), set(json!({ "minimum_available_sessions": 2, "max_sessions_per_server": 3 })), request("ann")];
    let mut step = |pool: &mut Pool, facts: Vec<Fact>| {
        let batch = pool.step(T0, facts.into_iter().map(Input::from));
        for write in batch.writes() {
            let Write::Put(row) = write else { continue };
            kept.insert(row.key(), row.clone());
        }
        let commands = batch.saved().commands;
        (commands, kept.clone())
    };
    let (commands, _) = step(&mut pool, facts.to_vec());
    let creates: Vec<_> = commands.iter().filter(|command| command.action.verb() == "create").collect();
    let made = creates.iter().map(|create| {
        Fact::Finished(create.id, Outcome::Progress(Ok(Progress::Done { machine: Some(MachineRef("i-1".into())) })))
    });
    step(&mut pool, made.collect());
    let seen = machine("i-1", srv(1), 1, MachineState::Running, Some("10.0.0.1"));
    let list = commands.iter().find(|command| command.action.verb() == "list").unwrap();
    let (commands, _) = step(
        &mut pool,
        vec![Fact::Finished(list.id, Outcome::Listed(Ok(Listing { machines: vec![seen], complete: true })))],
    );
    let (_, kept) = step(&mut pool, vec![Fact::Finished(commands[0].id, Outcome::Probed(Ok(())))]);
    assert_eq!(pool.server(srv(1)).unwrap().sessions, 1);
    let restored = Pool::restore(kept.into_values(), T0).unwrap();
    restored.check().unwrap();
    assert_eq!(restored.server(srv(1)).unwrap().sessions, 1);
}

#[test]
fn i_32_rows_that_are_not_a_pool_are_refused_with_the_reason() {
    assert_eq!(refused(vec![]), RestoreError::NoPool);
    assert_eq!(refused(rows().into_iter().filter(|row| !matches!(row, Row::Pool(_))).collect()), RestoreError::NoPool);
    let mut twice = rows();
    twice.push(twice[0].clone());
    assert_eq!(refused(twice), RestoreError::Twice("config/1/1".into()));
    let without = |unwanted: fn(&Row) -> bool| rows().into_iter().filter(|row| !unwanted(row)).collect::<Vec<_>>();
    let missing = refused(without(|row| matches!(row, Row::Config(_))));
    assert_eq!(missing.to_string(), "row memory/1 speaks of cfg-1, which is not there");
    let no_edition = rows().into_iter().map(|row| match row {
        Row::Config(mut config) => {
            config.generation = 7;
            Row::Config(config)
        }
        row => row,
    });
    assert_eq!(refused(no_edition.collect()).to_string(), "row server/1 speaks of config/1/1, which is not there");
    let slot_twice = rows().into_iter().flat_map(|row| match row {
        Row::Server(server) => {
            let mut other = server.clone();
            other.id = srv(77);
            vec![Row::Server(server), Row::Server(other)]
        }
        Row::Pool(mut pool) => {
            pool.next_server = 78;
            vec![Row::Pool(pool)]
        }
        row => vec![row],
    });
    assert!(matches!(refused(slot_twice.collect()), RestoreError::SlotTwice(..)));
    let later = rows().into_iter().map(|row| match row {
        Row::Pool(mut pool) => {
            pool.format = ROW_FORMAT + 1;
            Row::Pool(pool)
        }
        row => row,
    });
    assert_eq!(refused(later.collect()), RestoreError::LaterFormat { found: ROW_FORMAT + 1, known: ROW_FORMAT });
}

/// A host that reads its pool anew goes on with what the old one has asked for: those outcomes mean other commands.
#[test]
fn i_30_the_commands_of_another_life_have_other_numbers() {
    let mut host = pool_of(1, 2);
    let mut given: BTreeMap<CommandId, usize> = BTreeMap::new();
    for life in 0..4 {
        let introductions = host.introductions();
        host.step(introductions);
        assert!(!host.in_flight.is_empty(), "a pool that begins has something to do");
        for command in host.in_flight.keys() {
            let before = given.insert(*command, life);
            assert!(before.is_none_or(|before| before == life), "{command} of life {before:?} again in life {life}");
        }
        host.crash();
    }
}

/// I-13: a provider that answers with a machine of another installation is not believed.
#[test]
fn i_13_a_machine_with_somebody_elses_mark_is_not_adopted() {
    let mut host = pool_of(1, 1);
    host.finish("create", Some(srv(1)), Outcome::Lost);
    let mut foreign = machine("i-1", srv(1), 1, MachineState::Running, Some("10.0.0.1"));
    foreign.marker.as_mut().unwrap().deployment = DeploymentId::from_bytes([9; 16]);
    host.finish("find", Some(srv(1)), Outcome::Found(Ok(Some(foreign))));
    assert_eq!(host.pool.server(srv(1)).unwrap().machine, None);
    host.now = host.now + secs(30);
    host.step([]);
    let ours = machine("i-2", srv(1), 1, MachineState::Running, Some("10.0.0.2"));
    host.finish("find", Some(srv(1)), Outcome::Found(Ok(Some(ours))));
    assert_eq!(host.pool.server(srv(1)).unwrap().machine, Some(MachineRef("i-2".into())));
}
