//! Fallback and failure: the arithmetic against plain definitions, and what no story can show.

mod common;

use std::num::NonZeroU32;

use common::{Host, T0, capabilities, config, key, known, machine, pool_spec, provider, request, secs, set, srv};
use kasm_autoscale_core::backoff::{Backoff, Fates};
use kasm_autoscale_core::capacity::{is_implausible_loss, left_to_others, spare};
use kasm_autoscale_core::command::{Action, Outcome};
use kasm_autoscale_core::input::Fact;
use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::ports::{Certainty, ErrorKind, Listing, MachineRef, MachineState, Progress, ProviderError};
use kasm_autoscale_core::report::{Decision, Event, Fallback, Waiting, What};
use kasm_autoscale_core::row::Row;
use kasm_autoscale_core::server::PhaseKind;
use proptest::prelude::*;
use serde_json::{Value, json};

fn per_server() -> impl Strategy<Value = NonZeroU32> {
    (1..=20_u32).prop_map(|n| NonZeroU32::new(n).unwrap())
}

proptest! {
    #[test]
    fn what_is_left_to_others_is_what_failing_alone_costs(
        minimum in 0..300_u32, sessions in 0..300_u32, room in 0..20_u32, tries in 0..25_u32, per in per_server(),
    ) {
        // Count the sessions of the minimum one by one: those there would be without the failure, and are not with it.
        let made = tries.min(room);
        let is_left = |nth: &u32| *nth >= sessions + made * per.get() && *nth < sessions + room * per.get();
        let left = (0..minimum).filter(is_left).count();
        prop_assert_eq!(usize::try_from(left_to_others(minimum, sessions, room, tries, per)).unwrap(), left);
    }

    #[test]
    fn what_can_be_spared_is_what_nobody_of_its_own_wants(
        wanted in 0..300_u32, sessions in 0..300_u32, room in 0..20_u32, may_grow: bool, per in per_server(),
    ) {
        let mut servers = 0;
        while servers < room && (may_grow || sessions + servers * per.get() < wanted) {
            servers += 1;
        }
        let there = sessions + servers * per.get();
        prop_assert_eq!(spare(wanted, sessions, room, may_grow, per), there - there.min(wanted));
        // What is spare without growing is less than one server, or was there before.
        prop_assert!(may_grow || there - there.min(wanted) < per.get().max(sessions + 1));
    }

    #[test]
    fn i_15_a_loss_is_doubted_if_it_is_large_both_in_number_and_in_share(missing in 0..400_u32, of in 0..400_u32) {
        let missing = missing.min(of);
        let share = f64::from(missing) / f64::from(of.max(1));
        prop_assert_eq!(is_implausible_loss(missing, of), missing >= 4 && share > 0.3);
    }

    #[test]
    fn fates_are_the_last_of_a_list(fates in proptest::collection::vec(any::<bool>(), 0..200), window in 1..=64_u32) {
        let known = fates.iter().fold(Fates::default(), |known, failed| known.and(*failed, window));
        let last = &fates[fates.len().saturating_sub(usize::try_from(window).unwrap())..];
        let since_first: Vec<&bool> = last.iter().skip_while(|failed| !**failed).collect();
        let failed = since_first.iter().filter(|failed| ***failed).count();
        let counted = known.failed_of();
        prop_assert_eq!((usize::try_from(counted.0).unwrap(), usize::try_from(counted.1).unwrap()), (failed, since_first.len()));
    }
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let (max, most) = (u32::MAX, NonZeroU32::MAX);
    assert_eq!(left_to_others(max, 0, max, 0, most), max);
    assert_eq!(left_to_others(max, max, max, max, most), 0);
    assert_eq!(spare(0, max, max, true, most), max);
    assert_eq!(spare(max, 0, max, true, most), 0);
    assert!(is_implausible_loss(max, max) && !is_implausible_loss(max / 4, max));
}

#[test]
fn an_offering_is_what_its_provider_says() {
    let object = |value: Value| value.as_object().unwrap().clone();
    let mut cloud = capabilities();
    let large = object(json!({ "size": "large", "place": "a", "image": "x" }));
    let other_image = object(json!({ "image": "y", "place": "a", "size": "large" }));
    let nowhere = object(json!({ "size": "large", "image": "x" }));
    assert_eq!(cloud.offering(&large), cloud.offering(&other_image));
    assert_ne!(cloud.offering(&large), cloud.offering(&nowhere));
    // A provider that names none: everything counts.
    cloud.offering = &[];
    assert_ne!(cloud.offering(&large), cloud.offering(&other_image));
    assert_eq!(cloud.offering(&large), cloud.offering(&large.clone()));
    // Texts cannot be mistaken for the end of one another.
    cloud.offering = &["size", "place"];
    let tricky = object(json!({ "size": "a\" place=\"b" }));
    assert_ne!(cloud.offering(&tricky), cloud.offering(&object(json!({ "size": "a", "place": "b" }))));
}

// --- pools ---

fn other(fields: Value) -> Fact {
    let mut all = json!({ "name": "azure", "provider": "azure" });
    all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    set(all)
}

fn refused(kind: ErrorKind) -> Outcome {
    Outcome::Progress(Err(ProviderError::new(kind, Certainty::NotApplied, "Code", "words")))
}

/// Answers everything that is asked of `aws` at once, and nothing else; what happened to its config.
fn served(host: &mut Host) -> Vec<Event> {
    let mut events = Vec::new();
    for _ in 0..20 {
        let mut facts = Vec::new();
        for command in host.in_flight.values() {
            let of_aws = command.action.provider().is_none_or(|name| name.as_str() == "aws");
            let outcome = match &command.action {
                _ if !of_aws => continue,
                Action::Create(create) => {
                    let reference = MachineRef(format!("i-{}", create.server.server.serial()));
                    Outcome::Progress(Ok(Progress::Done { machine: Some(reference) }))
                }
                Action::List { .. } => {
                    let there = host.pool.servers().filter(|server| server.machine.is_some());
                    let shown = there.map(|server| {
                        let reference = &server.machine.as_ref().unwrap().0;
                        let address = format!("10.0.0.{}", server.id.serial());
                        machine(reference, server.id, server.config.serial(), MachineState::Running, Some(&address))
                    });
                    Outcome::Listed(Ok(Listing { machines: shown.collect(), complete: true }))
                }
                Action::Probe { .. } => Outcome::Probed(Ok(())),
                Action::Find { .. } => Outcome::Found(Ok(None)),
                Action::Delete { .. } | Action::Poll { .. } => Outcome::Progress(Ok(Progress::Done { machine: None })),
                other => panic!("nobody joins a domain here: {other:?}"),
            };
            facts.push(Fact::Finished(command.id, outcome));
        }
        if facts.is_empty() {
            return events;
        }
        events.extend(host.step(facts).events);
    }
    panic!("it never settles: {:?}", host.pool.report());
}

/// What became of the config at the provider that answers, while another one hangs or is not there at all.
fn beside(hanging: bool) -> Vec<String> {
    let mut host = Host::new(pool_spec());
    let mut told = Vec::new();
    // The one that hangs comes first in every order there is.
    let dead = other(json!({ "name": "dead", "provider": "dead", "minimum_available_sessions": 3, "priority": 200 }));
    let live = set(json!({ "minimum_available_sessions": 2, "downscale_backoff": 60, "max_servers": 9 }));
    let mut facts = vec![known("aws"), known("dead")];
    facts.extend(hanging.then_some(dead));
    facts.push(live);
    let mut take = |host: &mut Host, events: Vec<Event>| {
        let since = host.now.since(T0);
        for event in events {
            let mine = match &event.what {
                What::Server { config, phase, .. } if config.as_str() == "aws" => Some(format!("server {phase}")),
                What::Decided { config, decision, .. } if config.as_str() == "aws" => Some(decision.to_string()),
                What::SessionPlaced { user, waited, .. } => Some(format!("{user} placed after {waited:?}")),
                _ => None,
            };
            told.extend(mine.map(|text| format!("{since:?} {text}")));
        }
    };
    let outputs = host.step(facts);
    take(&mut host, outputs.events);
    for second in 0..600_u64 {
        host.now = T0 + secs(second);
        let users: Vec<Fact> = match second {
            20 => vec![request("ann"), request("bea"), request("cem")],
            40 => vec![request("dan")],
            100 => vec![Fact::SessionEnded(common::ses(1)), Fact::SessionEnded(common::ses(2))],
            _ => vec![],
        };
        let outputs = host.step(users);
        take(&mut host, outputs.events);
        let events = served(&mut host);
        take(&mut host, events);
    }
    told
}

#[test]
fn i_12_a_provider_that_hangs_delays_nobody_else() {
    let alone = beside(false);
    let placed = alone.iter().filter(|line| line.contains("placed after")).count();
    assert!(placed == 4 && alone.iter().any(|line| line.contains("draining")), "{alone:#?}");
    // Those of the other provider's sessions that nobody can vouch for are covered, so numbers may differ from then on; what
    // users meet may not.
    let met = |told: &[String]| -> Vec<String> {
        told.iter().filter(|line| line.contains("placed after")).cloned().collect()
    };
    let hanging = beside(true);
    assert_eq!(met(&hanging), met(&alone));
    let before = |told: &[String]| -> Vec<String> {
        told.iter().filter(|line| line.starts_with('0') || line.starts_with("20s")).cloned().collect()
    };
    assert_eq!(before(&hanging), before(&alone));
}

#[test]
fn creates_that_nobody_can_vouch_for_are_covered() {
    let mut host = Host::new(pool_spec());
    host.step([
        known("aws"),
        known("dead"),
        other(json!({ "name": "dead", "provider": "dead", "minimum_available_sessions": 2, "priority": 1 })),
        set(json!({ "priority": 2 })),
    ]);
    served(&mut host);
    host.finish("create", Some(srv(1)), Outcome::Lost);
    host.finish("create", Some(srv(2)), Outcome::Lost);
    assert_eq!(host.pool.servers().count(), 2, "it may be made yet");
    host.finish("find", Some(srv(1)), Outcome::Lost);
    host.finish("find", Some(srv(2)), Outcome::Lost);
    for second in 0..10 {
        host.now = T0 + secs(second);
        host.step([]);
        served(&mut host);
    }
    let report = host.pool.report();
    let name = |text: &str| text.parse().unwrap();
    assert_eq!(report.configs[1].fallback, [Fallback::CoveringFor { config: name("dead"), sessions: 2 }]);
    assert_eq!(report.configs[0].fallback, [Fallback::CoveredBy { config: name("aws"), sessions: 2 }]);
    assert_eq!(report.configs[1].supply.free, 2);
    assert_eq!(report.configs[0].servers.creating, 2, "I-09 what may be there counts against the cap all the same");
}

#[test]
fn rows_of_an_earlier_version_are_read() {
    let mut host = Host::new(pool_spec());
    host.step([known("aws"), set(json!({ "minimum_available_sessions": 1, "breaker_failures": 1 }))]);
    let open = Backoff { failures: 2, since: T0, until: T0 + secs(100), error: "words".into() };
    let mut rows: Vec<Row> = host.store.load();
    for row in &mut rows {
        let mut value = serde_json::to_value(&*row).unwrap();
        if let Row::Memory(_) = row {
            let object = value.as_object_mut().unwrap();
            assert!(object.remove("fates").is_some() && object.remove("loss").is_some());
            object.insert("boot".into(), serde_json::to_value(&open).unwrap());
        }
        if let Row::Config(_) = row {
            let spec = value["spec"].as_object_mut().unwrap();
            for field in ["priority", "breaker_failures", "breaker_window", "keep_failed_for", "keep_failed_max"] {
                assert!(spec.remove(field).is_some(), "{field}");
            }
        }
        *row = serde_json::from_value(value).unwrap();
    }
    let mut pool = Pool::restore(rows, T0 + secs(1)).unwrap();
    pool.check().unwrap();
    let spec = pool.configs().next().unwrap();
    assert_eq!((spec.priority, spec.breaker_failures, spec.breaker_window), (100, 5, 10));
    // A back-off of the time before breakers is one that is open.
    assert_eq!(pool.report().configs[0].backoffs[0].backoff, open);
    let batch = pool.step(T0 + secs(2), [known("aws").into(), request("ann").into(), request("bea").into()]);
    let until = open.until;
    let stopped = |event: &&Event| matches!(&event.what, What::Decided { decision: Decision::Wait { because, .. }, .. } if *because == Waiting::BreakerOpen { failed: 2, of: 2, until });
    assert_eq!(batch.events().iter().filter(stopped).count(), 1, "{:?}", batch.events());
}

#[test]
fn i_11_a_broken_image_makes_a_bounded_number_of_machines() {
    let mut host = Host::new(pool_spec());
    host.step([known("aws"), set(json!({ "minimum_available_sessions": 10, "boot_deadline": 60, "max_servers": 30 }))]);
    let mut creates = 0;
    let mut opened = 0;
    for second in 0..86_400_u64 / 6 {
        host.now = T0 + secs(second * 6);
        let broken: Vec<Fact> = host
            .in_flight
            .values()
            .filter_map(|command| match &command.action {
                Action::Create(create) => {
                    creates += 1;
                    let reference = MachineRef(format!("i-{}", create.server.server.serial()));
                    Some(Fact::Finished(command.id, Outcome::Progress(Ok(Progress::Done { machine: Some(reference) }))))
                }
                Action::Delete { .. } => {
                    Some(Fact::Finished(command.id, Outcome::Progress(Ok(Progress::Done { machine: None }))))
                }
                _ => None,
            })
            .collect();
        let outputs = host.step(broken);
        opened += outputs.events.iter().filter(|event| is_open(&event.what)).count();
    }
    assert!(opened > 10, "{opened}");
    // Ten at first, then one after each wait: 30 s doubling to 30 minutes, and a minute's deadline each.
    assert!((20..=70).contains(&creates), "{creates} machines in a day");
}

fn is_open(what: &What) -> bool {
    matches!(
        what,
        What::Decided { decision: Decision::Wait { because: Waiting::BreakerOpen { failed, of, .. }, .. }, .. }
            if *failed >= 5 && of >= failed
    )
}

#[test]
fn a_machine_that_was_asked_for_before_a_shortage_does_not_end_it() {
    let mut host = Host::new(pool_spec());
    host.step([known("aws"), set(json!({ "minimum_available_sessions": 2 }))]);
    let op = Some(kasm_autoscale_core::ports::OpRef("op-1".into()));
    host.finish("create", Some(srv(1)), Outcome::Progress(Ok(Progress::Pending { machine: None, op })));
    host.now = T0 + secs(3);
    host.finish("create", Some(srv(2)), refused(ErrorKind::NoCapacity));
    let backoffs = |host: &Host| host.pool.report().configs[0].backoffs.len();
    assert_eq!(backoffs(&host), 1);
    // The last machine that there was runs now. There is no other one for that.
    host.now = T0 + secs(6);
    host.step([]);
    host.finish(
        "poll",
        Some(srv(1)),
        Outcome::Progress(Ok(Progress::Done { machine: Some(MachineRef("i-1".into())) })),
    );
    assert_eq!((host.phase(srv(1)), backoffs(&host)), (PhaseKind::Starting, 1));
    // One that was asked for after it is.
    host.now = T0 + secs(80);
    host.step([]);
    host.finish(
        "create",
        Some(srv(3)),
        Outcome::Progress(Ok(Progress::Done { machine: Some(MachineRef("i-3".into())) })),
    );
    assert_eq!(backoffs(&host), 0);
    assert_eq!(key(srv(3)).server, srv(3));
}

#[test]
fn what_is_known_of_one_size_says_nothing_of_another() {
    let mut host = Host::new(pool_spec());
    host.step([known("aws"), set(json!({ "minimum_available_sessions": 1, "machine": { "size": "large" } }))]);
    host.finish("create", Some(srv(1)), refused(ErrorKind::Quota));
    assert!(host.step([]).commands.is_empty());
    // Another size is tried at once; back at the old one, which nobody else asks for, it is tried afresh.
    let outputs = host.step([set(json!({ "minimum_available_sessions": 1, "machine": { "size": "small" } }))]);
    assert!(outputs.commands.iter().any(|command| matches!(command.action, Action::Create(_))));
    // An answer that was still on its way for the old size is no failure of the new one.
    host.step([set(json!({ "minimum_available_sessions": 1, "machine": { "size": "tiny" } }))]);
    host.finish("create", Some(srv(2)), refused(ErrorKind::Quota));
    assert!(host.pool.report().configs[0].backoffs.is_empty());
    assert!(host.command("create", Some(srv(3))).is_some());
    assert_eq!(
        host.pool.config(&"aws".parse().unwrap()).unwrap(),
        &config(json!({ "minimum_available_sessions": 1, "machine": { "size": "tiny" } }))
    );
    assert!(host.providers.contains_key(&provider("aws")));
}

// --- who covers what, against a model ---

#[derive(Clone, Copy, Debug)]
struct Helper {
    minimum: u32,
    per: u32,
    max: u32,
    priority: u32,
    is_near: bool,
}

fn helper() -> impl Strategy<Value = Helper> {
    (0..8_u32, 1..5_u32, 0..6_u32, 0..3_u32, any::<bool>()).prop_map(|(minimum, per, max, priority, is_near)| Helper {
        minimum,
        per,
        max,
        priority,
        is_near,
    })
}

/// How many sessions each helper keeps for one who is `missing` so many: first what they have over, then what they can make,
/// each time those nearby first, and the lowest priority first among them.
fn covered_by_model(helpers: &[Helper], mut missing: u32) -> Vec<u32> {
    let mut covers = vec![0; helpers.len()];
    let mut order: Vec<usize> = (0..helpers.len()).collect();
    order.sort_by_key(|index| (!helpers[*index].is_near, helpers[*index].priority, *index));
    for may_grow in [false, true] {
        for index in &order {
            let Helper { minimum, per, max, .. } = helpers[*index];
            let mut servers = 0;
            while servers < max && (may_grow || servers * per < minimum) {
                servers += 1;
            }
            while missing > 0 && servers * per > minimum + covers[*index] {
                covers[*index] += 1;
                missing -= 1;
            }
        }
    }
    covers
}

fn config_of(name: &str, helper: Helper) -> Fact {
    let zone = if helper.is_near { "here" } else { "there" };
    set(json!({
        "name": name, "provider": name, "zone": zone, "priority": helper.priority, "max_servers": helper.max,
        "minimum_available_sessions": helper.minimum, "max_sessions_per_server": helper.per,
    }))
}

proptest! {
    #[test]
    fn the_next_ones_cover_what_one_cannot_make(
        failing in helper(), helpers in proptest::collection::vec(helper(), 1..5), kind in 0..4_usize,
    ) {
        let failing = Helper { is_near: true, max: failing.max.max(1), ..failing };
        let names: Vec<String> = (0..helpers.len()).map(|index| format!("helper-{index}")).collect();
        let mut host = Host::new(pool_spec());
        let mut facts = vec![known("failing"), config_of("failing", failing)];
        for (name, helper) in names.iter().zip(&helpers) {
            facts.extend([known(name), config_of(name, *helper)]);
        }
        host.step(facts);
        // The one is refused; the others get what they ask for, as often as they ask.
        let kind = [ErrorKind::NoCapacity, ErrorKind::Quota, ErrorKind::Denied, ErrorKind::Invalid][kind];
        for _ in 0..4 {
            let answered: Vec<Fact> = host.in_flight.values().filter_map(|command| match &command.action {
                Action::Create(create) if create.spec.provider.as_str() == "failing" => Some(Fact::Finished(command.id, refused(kind))),
                Action::Create(create) => {
                    let reference = MachineRef(format!("i-{}", create.server.server.serial()));
                    Some(Fact::Finished(command.id, Outcome::Progress(Ok(Progress::Done { machine: Some(reference) }))))
                }
                _ => None,
            }).collect();
            host.step(answered);
        }
        // What it could not make with all the servers it may have is nobody's to cover.
        let missing = failing.minimum.min(failing.max * failing.per);
        let model = covered_by_model(&helpers, missing);
        let report = host.pool.report();
        for ((helper, expected), found) in helpers.iter().zip(&model).zip(&report.configs[1..]) {
            let covering: u32 = found.fallback.iter().map(|fallback| match fallback {
                Fallback::CoveringFor { sessions, .. } => *sessions,
                Fallback::CoveredBy { .. } => 0,
            }).sum();
            prop_assert_eq!(covering, *expected, "{:?}", report);
            // Not beyond the cap, and never a whole server too many.
            let servers = found.servers.starting;
            prop_assert!(servers <= helper.max);
            let wanted = helper.minimum + covering;
            prop_assert_eq!(servers, wanted.div_ceil(helper.per).min(helper.max), "{:?}", found);
        }
        let told: u32 = report.configs[0].fallback.iter().map(|fallback| match fallback {
            Fallback::CoveredBy { sessions, .. } => *sessions,
            Fallback::CoveringFor { .. } => 0,
        }).sum();
        prop_assert_eq!(told, model.iter().sum::<u32>());
        // It is settled: to decide again decides nothing.
        let again = host.decide(vec![]);
        prop_assert!(again.writes().is_empty() && again.events().is_empty(), "{:?}", again);
        prop_assert!(host.save(again).commands.is_empty());
    }
}
