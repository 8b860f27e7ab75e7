//! Machines and rows that nobody expects: as when an older store has been put back, and the world is ahead of it.

mod common;

use common::{Host, capabilities, config, directory_known, known, machine, pool_spec, set, srv};
use kasm_autoscale_core::command::Outcome;
use kasm_autoscale_core::id::{ProviderName, ServerId};
use kasm_autoscale_core::input::Fact;
use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::ports::{Listing, MachineRef, MachineState};
use kasm_autoscale_core::row::{RestoreError, Row};
use kasm_autoscale_core::server::PhaseKind;
use serde_json::json;

fn listed(machines: Vec<kasm_autoscale_core::ports::Machine>) -> Outcome {
    Outcome::Listed(Ok(Listing { machines, complete: true }))
}

#[test]
fn i_21_a_machine_with_the_mark_of_a_server_that_has_asked_for_none_is_not_its_own() {
    let mut host = Host::new(pool_spec());
    let joins = json!({ "minimum_available_sessions": 1, "ad_directory": "corp", "ad_computer_ou_dn": "OU=Desks,DC=corp,DC=example" });
    host.step([known("aws"), directory_known(), set(joins)]);
    assert_eq!(host.phase(srv(1)), PhaseKind::Enrolling);
    let stray = machine("i-9", srv(1), 1, MachineState::Running, Some("10.0.0.9"));
    host.finish("list", None, listed(vec![stray]));
    assert_eq!(host.phase(srv(1)), PhaseKind::Enrolling);
    assert_eq!(host.pool.server(srv(1)).unwrap().machine, None);
    assert_eq!(host.pool.report().orphans, [MachineRef("i-9".into())]);
}

#[test]
fn i_09_a_machine_with_the_number_of_a_config_to_come_counts_when_it_comes() {
    let mut host = Host::new(pool_spec());
    host.step([known("aws"), set(json!({}))]);
    let stray = machine("i-9", srv(99), 2, MachineState::Running, None);
    host.finish("list", None, listed(vec![stray]));
    let mut second = config(json!({ "minimum_available_sessions": 1, "max_servers": 1 }));
    second.name = "second".parse().unwrap();
    // `Host` recounts after every step.
    host.step([Fact::ConfigSet(Box::new(second))]);
    assert_eq!(host.pool.servers().count(), 0, "I-09 the stray machine is the one server that there may be");
}

#[test]
fn i_36_what_a_listing_shows_first_decides_nothing() {
    let told = |turned: bool| {
        let mut host = Host::new(pool_spec());
        host.step([Fact::ProviderKnown("aws".parse::<ProviderName>().unwrap(), capabilities()), set(json!({}))]);
        let mut machines: Vec<_> =
            (0..4).map(|n| machine(&format!("i-{n}"), srv(90 + n), 1, MachineState::Running, None)).collect();
        if turned {
            machines.reverse();
        }
        format!("{:?}", host.finish("list", None, listed(machines)))
    };
    assert_eq!(told(false), told(true));
}

#[test]
fn rows_with_numbers_that_were_never_given_out_are_refused() {
    let mut host = Host::new(pool_spec());
    host.step([known("aws"), set(json!({ "minimum_available_sessions": 1 }))]);
    let rows = |change: &dyn Fn(&mut Row)| {
        let mut rows = host.store.load();
        rows.iter_mut().for_each(change);
        Pool::restore(rows, host.now).map(|pool| pool.check())
    };
    assert_eq!(rows(&|_| {}), Ok(Ok(())));
    let later = |row: &mut Row| {
        if let Row::Server(server) = row {
            server.id = ServerId::new(7);
        }
    };
    assert_eq!(rows(&later), Err(RestoreError::NotGivenOut { row: "server/7".into(), next: 2 }));
    let far = |row: &mut Row| {
        if let Row::Server(server) = row {
            server.slot = u32::MAX;
        }
    };
    assert_eq!(rows(&far), Err(RestoreError::SlotTooHigh(srv(1), u32::MAX)));
    let forgotten = |row: &mut Row| {
        if let Row::Pool(pool) = row {
            pool.next_config = 1;
        }
    };
    assert_eq!(rows(&forgotten), Err(RestoreError::NotGivenOut { row: "config/1/1".into(), next: 1 }));
}

/// A damaged row, or a host's broken clock: there is always a later instant for what is to be done later.
#[test]
fn i_25_at_the_end_of_all_time_a_step_ends() {
    let end = kasm_autoscale_core::time::Timestamp::from_millis(u64::MAX);
    let mut host = Host::new(pool_spec());
    host.step([known("aws"), set(json!({ "minimum_available_sessions": 1 }))]);
    let mut rows = host.store.load();
    rows.iter_mut().for_each(|row| {
        if let Row::Pool(pool) = row {
            pool.seen = end;
        }
    });
    let mut pool = Pool::restore(rows, end).unwrap();
    for facts in [vec![known("aws").into()], vec![], vec![]] {
        let batch = pool.step(end, facts);
        assert_eq!(pool.check(), Ok(()));
        assert!(batch.saved().wake_at.is_none_or(|at| at < end));
    }
}

#[test]
fn editions_that_no_server_has_are_forgotten_with_their_rows() {
    let mut host = Host::new(pool_spec());
    host.step([known("aws"), set(json!({ "minimum_available_sessions": 1 }))]);
    let mut rows = host.store.load();
    let old = rows.iter().find_map(|row| if let Row::Config(row) = row { Some(row.clone()) } else { None }).unwrap();
    let mut next = old.clone();
    next.generation = 2;
    rows.push(Row::Config(next));
    let server =
        rows.iter_mut().find_map(|row| if let Row::Server(server) = row { Some(server) } else { None }).unwrap();
    server.generation = 2;
    let mut pool = Pool::restore(rows, host.now).unwrap();
    assert_eq!(pool.check(), Ok(()));
    let batch = pool.step(host.now, []);
    let deleted = kasm_autoscale_core::row::Write::Delete(Row::Config(old).key());
    assert!(batch.writes().contains(&deleted), "{:?}", batch.writes());
}
