//! Rows that earlier versions wrote, and rows of servers that join a domain: each is read, and the pool goes on from there.

mod common;

use common::{Host, Store, T0, directory_facts, directory_known, key, known, pool_spec, secs, set, srv};
use kasm_autoscale_core::command::Outcome;
use kasm_autoscale_core::config::NamePattern;
use kasm_autoscale_core::input::Fact;
use kasm_autoscale_core::ports::{Certainty, ComputerRef, DirectoryError, DirectoryErrorKind, MachineRef, Progress};
use kasm_autoscale_core::report::{BackoffKind, Decision, Waiting};
use kasm_autoscale_core::row::{ROW_FORMAT, Row, RowKey, Write};
use kasm_autoscale_core::server::PhaseKind;
use serde_json::{Value, json};

/// Rows as format 1 had them, before servers could join a domain.
const FORMAT_1: [(&str, &str); 6] = [
    (
        "config/1/1",
        r#"{"row":"config","id":1,"generation":1,"removed":false,"spec":{"boot_deadline":"15m","connection_address":null,"connection_info":{},"connection_password":null,"connection_port":3389,"connection_type":"rdp","connection_username":null,"downscale_backoff":"30m","enabled":true,"machine":{},"max_servers":3,"max_sessions_per_server":1,"minimum_available_sessions":2,"name":"aws","provider":"aws","require_checkin":false,"reusable":true,"startup_script":null,"upstream_auth_address":null,"zone":"default"}}"#,
    ),
    ("memory/1", r#"{"row":"memory","config":1,"create":null,"boot":null,"surplus":null}"#),
    (
        "pool",
        r#"{"row":"pool","format":1,"spec":{"deployment":"01010101-0101-0101-0101-010101010101","id":"02020202-0202-0202-0202-020202020202","name":"desktops","placement":"spread","queue_deadline":{"secs":600,"nanos":0},"queue_max":10000,"keepalive_expiry":{"secs":3600,"nanos":0}},"next_server":4,"next_session":2,"next_config":2,"seen":1700000000000}"#,
    ),
    (
        "server/1",
        r#"{"row":"server","id":1,"slot":0,"config":1,"generation":1,"created_at":1700000000000,"machine":"i-1","address":{"host":"10.0.0.1","port":null},"taken":1,"check_in":null,"phase":{"Ready":{"since":1700000000000}}}"#,
    ),
    (
        "server/2",
        r#"{"row":"server","id":2,"slot":1,"config":1,"generation":1,"created_at":1700000000000,"machine":"i-2","address":{"host":"10.0.0.2","port":null},"taken":0,"check_in":null,"phase":{"Starting":{"deadline":1700000900000,"running":true,"answered":false,"probe_at":1700000000000}}}"#,
    ),
    (
        "server/3",
        r#"{"row":"server","id":3,"slot":2,"config":1,"generation":1,"created_at":1700000000000,"machine":null,"address":null,"taken":0,"check_in":null,"phase":{"Creating":{"call":"Intended","deadline":1700000900000}}}"#,
    ),
];

/// A host whose store holds these rows.
fn restored(store: Store) -> Host {
    let mut host = Host::new(pool_spec());
    host.store = store;
    host.crash();
    host
}

fn format_of(host: &Host) -> u32 {
    match host.store.row("pool") {
        Some(Row::Pool(pool)) => pool.format,
        other => panic!("{other:?}"),
    }
}

#[test]
fn rows_of_format_1_are_read_and_an_older_version_is_kept_from_what_it_would_not_know() {
    let rows = FORMAT_1.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
    let mut host = restored(Store { rows });
    assert_eq!(format_of(&host), 1);
    let spec = host.pool.configs().next().unwrap();
    assert_eq!((&spec.server_name_pattern, &spec.domain_join), (&NamePattern::default(), &None));
    assert_eq!(host.pool.name_of(host.pool.server(srv(1)).unwrap()), key(srv(1)).machine_name());
    host.step([known("aws")]);
    assert_eq!(format_of(&host), ROW_FORMAT, "from the first save on");
    assert_eq!(host.phase(srv(1)), PhaseKind::Ready);
    // A machine that was starting when the version changed becomes ready without any domain.
    host.finish("probe", Some(srv(2)), Outcome::Probed(Ok(())));
    assert_eq!(host.phase(srv(2)), PhaseKind::Ready);
    assert!(host.command("find", Some(srv(3))).is_some(), "what was under way is looked up");
}

#[test]
fn a_restart_of_the_same_version_writes_only_that_there_was_one() {
    let mut host = Host::new(pool_spec());
    host.step([known("aws")]);
    host.crash();
    let batch = host.decide(vec![]);
    let written: Vec<_> = batch.writes().iter().map(Write::key).collect();
    assert_eq!(written, [RowKey::Pool], "commands are numbered by it");
}

fn joining(more: Value) -> Fact {
    let mut all = json!({ "minimum_available_sessions": 1, "max_servers": 1, "ad_directory": "corp",
        "ad_computer_ou_dn": "OU=Desks,DC=corp,DC=example" });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    set(all)
}

#[test]
fn what_a_directory_failed_at_survives_a_restart() {
    let mut host = Host::new(pool_spec());
    host.step([known("aws"), directory_known(), joining(json!({}))]);
    let error = |kind| DirectoryError::new(kind, Certainty::NotApplied, "code", "words");
    host.finish("enroll", Some(srv(1)), Outcome::Enrolled(Err(error(DirectoryErrorKind::Denied))));
    let backoffs = |host: &Host| host.pool.report().configs[0].backoffs.clone();
    let before = backoffs(&host);
    assert_eq!(before[0].kind, BackoffKind::Directory(DirectoryErrorKind::Denied));
    host.crash();
    assert_eq!(backoffs(&host), before);
    let facts = host.introductions();
    host.step(facts);
    assert!(host.in_flight.values().all(|command| command.action.verb() != "enroll"), "it waits on");

    // And so does a removal that failed, with its reason.
    host.now = host.now + secs(120);
    host.step([]);
    host.finish("enroll", Some(srv(2)), Outcome::Enrolled(Ok(ComputerRef("obj-2".into()))));
    let made = Progress::Done { machine: Some(MachineRef("i-2".into())) };
    host.finish("create", Some(srv(2)), Outcome::Progress(Ok(made)));
    host.step([Fact::DeleteAsked { server: srv(2), force: false }]);
    host.finish("delete", Some(srv(2)), Outcome::Progress(Ok(Progress::Done { machine: None })));
    host.finish("unenroll", Some(srv(2)), Outcome::Unenrolled(Err(error(DirectoryErrorKind::Protected))));
    let cleanups = |host: &Host| host.pool.report().configs[0].cleanups.clone();
    let before = cleanups(&host);
    assert_eq!((before[0].tries, before[0].kind), (1, DirectoryErrorKind::Protected));
    let told = before[0].to_string();
    assert!(
        told.ends_with("protected (code): words; take the protection off in the directory, or remove the object there"),
        "{told}"
    );
    host.crash();
    assert_eq!(cleanups(&host), before);
}

#[test]
fn i_21_a_request_that_a_restart_left_in_doubt_is_looked_for_as_long_as_it_may_take_effect() {
    let mut host = Host::new(pool_spec());
    host.step([known("aws"), directory_known(), joining(json!({}))]);
    assert!(host.command("enroll", Some(srv(1))).is_some());
    host.crash();
    let facts = host.introductions();
    host.step(facts);
    // Asked again, the directory refuses for certain. What was asked before may still be under way.
    let refused = DirectoryError::new(DirectoryErrorKind::Denied, Certainty::NotApplied, "code", "words");
    host.finish("enroll", Some(srv(1)), Outcome::Enrolled(Err(refused)));
    assert_eq!(host.phase(srv(1)), PhaseKind::Unenrolling);
    let facts = directory_facts();
    let proof = T0 + facts.call_timeout + facts.visibility_lag;
    let looked = |host: &mut Host| {
        host.step([]);
        host.finish("find_computer", Some(srv(1)), Outcome::ComputerFound(Ok(None)));
    };
    while host.now < proof {
        looked(&mut host);
        assert_eq!(host.phase(srv(1)), PhaseKind::Unenrolling, "nothing is proved at {}", host.now);
        host.now = host.wake_at.unwrap().min(proof);
    }
    looked(&mut host);
    assert_eq!(host.phase(srv(1)), PhaseKind::Gone);
}

#[test]
fn i_22_a_pattern_without_names_left_stops_and_says_so() {
    let mut host = Host::new(pool_spec());
    host.step([known("aws")]);
    let mut row: Value = serde_json::from_str(&host.store.rows["pool"]).unwrap();
    row["next_server"] = json!(99_999);
    host.store.rows.insert("pool".into(), row.to_string());
    host.crash();
    let pattern = "abcdefghij{number}";
    let wide = |pattern: &str| {
        set(json!({ "minimum_available_sessions": 3, "max_servers": 9, "server_name_pattern": pattern }))
    };
    host.step([known("aws"), wide(pattern)]);
    let servers: Vec<_> = host.pool.servers().map(|server| host.pool.name_of(server).to_string()).collect();
    assert_eq!(servers, ["abcdefghij99999"], "the last one that fits");
    host.now = T0 + secs(1);
    host.step([]);
    let Decision::Wait { because: Waiting::NamesUsedUp { pattern: named }, .. } =
        &host.pool.report().configs[0].decision
    else {
        panic!("{:?}", host.pool.report())
    };
    assert_eq!(named.to_string(), pattern);
    host.step([wide("abcdefghi{number}")]);
    let last = host.pool.servers().last().map(|server| host.pool.name_of(server).to_string());
    assert_eq!((host.pool.servers().count(), last.as_deref()), (3, Some("abcdefghi100001")));
}
