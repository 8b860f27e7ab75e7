//! The simulated cloud keeps its word: what it answers, what it holds, and when it lies.
#![cfg(feature = "testing")]

use std::collections::BTreeMap;
use std::time::Duration;

use kasm_autoscale_core::id::{ConfigId, DeploymentId, PoolId, ServerId, ServerKey};
use kasm_autoscale_core::ports::{
    Certainty, ErrorKind, MachineRef, MachineState, Marker, OpRef, Progress, ProviderError, ServerSpec,
};
use kasm_autoscale_core::testing::cloud::{Answer, CloudSettings, Fault, FaultRates, Lost, SimCloud};
use kasm_autoscale_core::testing::entropy::{Entropy, MILLION, Seeded};
use kasm_autoscale_core::time::Timestamp;

const POOL: PoolId = PoolId::from_bytes([7; 16]);

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + millis)
}

fn key(serial: u64) -> ServerKey {
    ServerKey { pool: POOL, server: ServerId::new(serial) }
}

fn marker(serial: u64) -> Marker {
    Marker {
        deployment: DeploymentId::from_bytes([1; 16]),
        pool: POOL,
        config: ConfigId::new(1),
        server: key(serial).uuid(),
    }
}

fn spec(serial: u64) -> ServerSpec {
    let server = key(serial);
    ServerSpec {
        server,
        marker: marker(serial),
        name: server.machine_name(),
        token: server.uuid(),
        machine: serde_json::Map::new(),
        user_data: Some(format!("start {serial}").into()),
    }
}

fn exactly(millis: u64) -> std::ops::RangeInclusive<Duration> {
    Duration::from_millis(millis)..=Duration::from_millis(millis)
}

/// Powered on after 100 ms, booted 1000 ms later, deleted in 50 ms, nothing left to chance.
fn plain() -> CloudSettings {
    CloudSettings {
        provision_time: exactly(100),
        boot_time: exactly(1000),
        delete_time: exactly(50),
        ..CloudSettings::default()
    }
}

fn with(fault: Fault, per_million: u32) -> CloudSettings {
    CloudSettings { faults: FaultRates::default().with(fault, per_million), ..plain() }
}

fn made(answer: Answer<Progress>) -> MachineRef {
    match answer {
        Ok(Ok(Progress::Pending { machine: Some(machine), .. } | Progress::Done { machine: Some(machine) })) => machine,
        other => panic!("no machine: {other:?}"),
    }
}

fn refused(answer: Answer<Progress>) -> ProviderError {
    answer.expect("an answer").expect_err("an error")
}

fn found_state(cloud: &mut SimCloud, now: Timestamp, serial: u64) -> Option<MachineState> {
    cloud.find(now, &key(serial)).unwrap().map(|machine| machine.state)
}

/// Five hundred calls in a cloud where everything goes wrong now and then.
fn transcript(seed: u64) -> String {
    let mut settings = CloudSettings {
        visibility_lag: Duration::ZERO..=Duration::from_secs(5),
        calls_per_second: 20,
        calls_burst: 5,
        ..CloudSettings::default()
    };
    Fault::ALL.into_iter().for_each(|fault| settings.faults.set(fault, 100_000));
    let mut cloud = SimCloud::new(settings, seed);
    let mut script = Seeded::new(99);
    let mut log = String::new();
    for step in 0..500 {
        let (now, serial) = (at(step * 700), script.pick(20));
        log += &match script.pick(4) {
            0 => format!("{:?}\n", cloud.create(now, &spec(serial))),
            1 => format!("{:?}\n", cloud.find(now, &key(serial))),
            2 => format!("{:?}\n", cloud.list(now, &POOL)),
            _ => format!("{:?}\n", cloud.delete(now, &MachineRef(format!("sim-{serial:08x}")))),
        };
        log += &format!("{} {:?}\n", cloud.live_count(now), cloud.next_change(now));
    }
    log
}

#[test]
fn same_seed_same_calls_same_answers() {
    assert_eq!(transcript(5), transcript(5));
    assert_ne!(transcript(5), transcript(6));
}

#[test]
fn a_machine_is_provisioned_powered_on_and_boots_in_its_times() {
    let mut cloud = SimCloud::new(plain(), 1);
    let machine = made(cloud.create(at(0), &spec(1)));
    assert_eq!(cloud.next_change(at(0)), Some(at(100)));
    assert_eq!(found_state(&mut cloud, at(99), 1), Some(MachineState::Provisioning));
    assert_eq!(cloud.find(at(99), &key(1)).unwrap().unwrap().address, None);

    let running = cloud.find(at(100), &key(1)).unwrap().unwrap();
    assert_eq!(
        (&running.reference, &running.state, &running.marker),
        (&machine, &MachineState::Running, &Some(marker(1)))
    );
    assert_eq!(running.address.unwrap().host, "10.0.0.1");
    assert_eq!(cloud.next_change(at(100)), Some(at(1100)));

    assert!(!cloud.machine(&machine).unwrap().answers(at(1099)));
    assert!(cloud.machine(&machine).unwrap().answers(at(1100)));
    assert_eq!(cloud.next_change(at(1100)), None);
    let other_pool = PoolId::from_bytes([8; 16]);
    assert_eq!(cloud.list(at(1100), &other_pool).unwrap().machines, []);
}

#[test]
fn the_same_token_is_the_same_machine_and_another_request_a_conflict() {
    let mut cloud = SimCloud::new(plain(), 1);
    let machine = made(cloud.create(at(0), &spec(1)));
    assert_eq!(made(cloud.create(at(10), &spec(1))), machine);
    assert_eq!(cloud.create(at(200), &spec(1)), Ok(Ok(Progress::Done { machine: Some(machine.clone()) })));

    let changes: [fn(&mut ServerSpec); 5] = [
        |spec| spec.user_data = Some("other".to_owned().into()),
        |spec| spec.user_data = None,
        |spec| spec.marker.config = ConfigId::new(2),
        |spec| spec.name = key(2).machine_name(),
        |spec| spec.machine = serde_json::from_str(r#"{"size": "large"}"#).unwrap(),
    ];
    for change in changes {
        let mut changed = spec(1);
        change(&mut changed);
        let error = refused(cloud.create(at(200), &changed));
        assert_eq!((error.kind, error.certainty), (ErrorKind::Conflict, Certainty::NotApplied));
    }
    // Deleted, it is still the same machine: the token never makes a second one.
    made(cloud.delete(at(300), &machine));
    assert_eq!(made(cloud.create(at(400), &spec(1))), machine);
    assert_eq!((cloud.created_total(), cloud.live_count(at(400)), cloud.duplicates(at(400))), (1, 0, vec![]));
}

#[test]
fn a_delete_takes_its_time_and_may_be_repeated() {
    let mut cloud = SimCloud::new(plain(), 1);
    let machine = made(cloud.create(at(0), &spec(1)));
    assert_eq!(cloud.dependents_count(at(0)), 2);
    let pending = Progress::Pending { machine: Some(machine.clone()), op: None };
    assert_eq!(cloud.delete(at(2000), &machine), Ok(Ok(pending.clone())));
    assert_eq!(cloud.delete(at(2049), &machine), Ok(Ok(pending)));
    let deleting = cloud.find(at(2049), &key(1)).unwrap().unwrap();
    assert_eq!((deleting.state, deleting.address), (MachineState::Deleting, None));
    assert_eq!((cloud.live_count(at(2049)), cloud.live_count(at(2050))), (1, 0));
    assert_eq!(cloud.dependents_count(at(2050)), 0);
    assert_eq!(cloud.delete(at(2050), &machine), Ok(Ok(Progress::Done { machine: Some(machine) })));
    assert_eq!(found_state(&mut cloud, at(2050), 1), None);
    assert_eq!(cloud.list(at(2050), &POOL).unwrap().machines, []);
}

#[test]
fn deleting_what_never_was_is_success() {
    let mut cloud = SimCloud::new(plain(), 1);
    for unknown in ["sim-00000001", "sim-1", "sim-+0000001", "i-1", "", "sim-ffffffffffffffff"] {
        let reference = MachineRef(unknown.into());
        assert_eq!(cloud.delete(at(0), &reference), Ok(Ok(Progress::Done { machine: Some(reference) })), "{unknown}");
    }
}

#[test]
fn operations_are_polled_until_they_are_done_or_forgotten() {
    let mut cloud = SimCloud::new(CloudSettings { operations: true, ..plain() }, 1);
    let Ok(Ok(Progress::Pending { machine: Some(machine), op: Some(op) })) = cloud.create(at(0), &spec(1)) else {
        panic!()
    };
    assert!(matches!(cloud.poll(at(99), &op), Ok(Progress::Pending { op: Some(again), .. }) if again == op));
    assert_eq!(cloud.poll(at(100), &op), Ok(Progress::Done { machine: Some(machine.clone()) }));
    let Ok(Ok(Progress::Pending { op: Some(op), .. })) = cloud.delete(at(200), &machine) else { panic!() };
    assert!(matches!(cloud.poll(at(249), &op), Ok(Progress::Pending { .. })));
    assert_eq!(cloud.poll(at(250), &op), Ok(Progress::Done { machine: Some(machine) }));
    assert_eq!(cloud.poll(at(250), &OpRef("create:x".into())), Ok(Progress::Pending { machine: None, op: None }));

    cloud.settings_mut().faults.set(Fault::FailsForGood, MILLION);
    let Ok(Ok(Progress::Pending { op: Some(op), .. })) = cloud.create(at(300), &spec(2)) else { panic!() };
    assert_eq!(cloud.poll(at(400), &op).unwrap_err().code, "MachineFailed");
}

/// A new machine is missing for the lag, a deleted one lingers for the lag; deletes by reference work meanwhile.
#[test]
fn visibility_lags_behind_the_truth() {
    let mut cloud = SimCloud::new(CloudSettings { visibility_lag: exactly(3000), ..plain() }, 1);
    let machine = made(cloud.create(at(0), &spec(1)));
    assert_eq!(cloud.live_count(at(0)), 1);
    assert_eq!(found_state(&mut cloud, at(2999), 1), None);
    assert_eq!(cloud.list(at(2999), &POOL).unwrap().machines.len(), 0);
    assert_eq!(cloud.next_change(at(2999)), Some(at(3000)));
    assert_eq!(found_state(&mut cloud, at(3000), 1), Some(MachineState::Running));

    made(cloud.delete(at(4000), &machine));
    assert_eq!(cloud.live_count(at(4050)), 0);
    assert_eq!(found_state(&mut cloud, at(7049), 1), Some(MachineState::Deleted));
    assert_eq!(cloud.list(at(7049), &POOL).unwrap().machines.len(), 1);
    assert_eq!(cloud.next_change(at(4050)), Some(at(7050)));
    assert_eq!(found_state(&mut cloud, at(7050), 1), None);
    assert_eq!(cloud.list(at(7050), &POOL).unwrap().machines.len(), 0);
}

#[test]
fn capacity_and_quota_end_and_come_back_with_a_deletion() {
    let mut cloud = SimCloud::new(CloudSettings { capacity: 3, quota: 2, ..plain() }, 1);
    let first = made(cloud.create(at(0), &spec(1)));
    made(cloud.create(at(0), &spec(2)));
    assert_eq!(refused(cloud.create(at(0), &spec(3))).kind, ErrorKind::Quota);
    assert_eq!(made(cloud.create(at(0), &spec(1))), first, "a repeated create needs no room");
    made(cloud.delete(at(0), &first));
    assert_eq!(refused(cloud.create(at(49), &spec(3))).kind, ErrorKind::Quota, "still being deleted");
    made(cloud.create(at(50), &spec(3)));

    cloud.settings_mut().quota = 100;
    cloud.add_foreign(at(50), None, "theirs");
    let error = refused(cloud.create(at(50), &spec(4)));
    assert_eq!((error.kind, error.certainty), (ErrorKind::NoCapacity, Certainty::NotApplied));
    assert_eq!((cloud.live_count(at(50)), cloud.live(at(50)).count()), (2, 3));
}

#[test]
fn the_bucket_refills_at_its_rate_and_says_when() {
    let mut cloud = SimCloud::new(CloudSettings { calls_per_second: 4, calls_burst: 3, ..plain() }, 1);
    let mut call = |millis| {
        cloud.list(at(millis), &POOL).map(|_| ()).map_err(|error| {
            assert_eq!((error.kind, error.certainty), (ErrorKind::Throttled, Certainty::NotApplied));
            error.retry_after.unwrap().as_millis()
        })
    };
    assert_eq!([call(0), call(0), call(0), call(0)], [Ok(()), Ok(()), Ok(()), Err(250)]);
    assert_eq!([call(100), call(249)], [Err(150), Err(1)], "a refused call costs nothing");
    assert_eq!([call(250), call(250)], [Ok(()), Err(250)]);
    // After however long a pause there are three, not more.
    assert_eq!([call(60_000), call(60_000), call(60_000), call(60_000)], [Ok(()), Ok(()), Ok(()), Err(250)]);
    assert_eq!(call(59_000), Err(250), "time that runs backwards gives nothing");

    // A rate that does not divide a second: the wait is rounded up, so that keeping to it is enough.
    let mut cloud = SimCloud::new(CloudSettings { calls_per_second: 3, calls_burst: 1, ..plain() }, 1);
    cloud.list(at(0), &POOL).unwrap();
    assert_eq!(cloud.list(at(0), &POOL).unwrap_err().retry_after, Some(Duration::from_millis(334)));
    assert!(cloud.list(at(334), &POOL).is_ok());
}

#[test]
fn a_create_lost_before_its_effect_leaves_nothing() {
    let mut cloud = SimCloud::new(with(Fault::LostBeforeEffect, MILLION), 1);
    assert_eq!(cloud.create(at(0), &spec(1)), Err(Lost));
    assert_eq!((cloud.created_total(), cloud.live_count(at(0))), (0, 0));
    assert_eq!(cloud.hits(Fault::LostBeforeEffect), 1);
    cloud.settings_mut().faults = FaultRates::default();
    let machine = made(cloud.create(at(0), &spec(1)));
    cloud.settings_mut().faults.set(Fault::LostBeforeEffect, MILLION);
    assert_eq!(cloud.delete(at(0), &machine), Err(Lost));
    assert_eq!(cloud.live_count(at(1000)), 1);
}

#[test]
fn a_create_lost_after_its_effect_leaves_a_machine_that_the_next_try_names() {
    let mut cloud = SimCloud::new(with(Fault::LostAfterEffect, MILLION), 1);
    assert_eq!(cloud.create(at(0), &spec(1)), Err(Lost));
    assert_eq!(cloud.create(at(1), &spec(1)), Err(Lost));
    assert_eq!((cloud.created_total(), cloud.live_count(at(1))), (1, 1));
    cloud.settings_mut().faults = FaultRates::default();
    let machine = made(cloud.create(at(2), &spec(1)));
    assert_eq!(cloud.find(at(2), &key(1)).unwrap().unwrap().reference, machine);
    cloud.settings_mut().faults.set(Fault::LostAfterEffect, MILLION);
    assert_eq!(cloud.delete(at(100), &machine), Err(Lost));
    assert_eq!(cloud.live_count(at(150)), 0);
}

#[test]
fn a_late_create_takes_effect_long_after_its_caller_gave_up() {
    let mut cloud =
        SimCloud::new(CloudSettings { late_effect: exactly(60_000), ..with(Fault::LateEffect, MILLION) }, 1);
    assert_eq!(cloud.create(at(0), &spec(1)), Err(Lost));
    assert_eq!(cloud.create(at(30_000), &spec(1)), Err(Lost), "the same request waits in the same queue");
    assert_eq!((found_state(&mut cloud, at(59_999), 1), cloud.live_count(at(59_999))), (None, 0));
    assert_eq!(cloud.next_change(at(30_000)), Some(at(60_000)));
    assert_eq!(found_state(&mut cloud, at(60_000), 1), Some(MachineState::Provisioning));
    assert_eq!(cloud.hits(Fault::LateEffect), 1);
    made(cloud.create(at(60_000), &spec(1)));
    assert_eq!((cloud.created_total(), cloud.live_count(at(60_000))), (1, 1));
}

#[test]
fn a_cloud_that_ignores_tokens_makes_duplicates_and_the_truth_tells() {
    let mut cloud = SimCloud::new(with(Fault::TokenIgnored, MILLION), 1);
    let first = made(cloud.create(at(0), &spec(1)));
    let second = made(cloud.create(at(0), &spec(1)));
    made(cloud.create(at(0), &spec(2)));
    assert_ne!(first, second);
    assert_eq!(cloud.duplicates(at(0)), [key(1).uuid()]);
    assert_eq!(cloud.machines_of(&key(1).uuid()).count(), 2);
    assert_eq!(cloud.list(at(0), &POOL).unwrap().machines.len(), 3);
    // The one that exists is found before the one that is gone and still shown.
    cloud.settings_mut().visibility_lag = exactly(1000);
    cloud.kill(at(10), &first);
    assert_eq!(cloud.find(at(10), &key(1)).unwrap().unwrap().reference, second);
    assert_eq!(cloud.duplicates(at(10)), Vec::<String>::new());
}

#[test]
fn machines_fail_die_or_hang_when_told_to() {
    let mut cloud = SimCloud::new(with(Fault::FailsForGood, MILLION), 1);
    made(cloud.create(at(0), &spec(1)));
    assert_eq!(found_state(&mut cloud, at(99), 1), Some(MachineState::Provisioning));
    let failed = cloud.find(at(100), &key(1)).unwrap().unwrap();
    assert_eq!(
        (failed.state, failed.address, failed.fault.unwrap().code.as_str()),
        (MachineState::Failed, None, "MachineFailed")
    );
    assert_eq!(cloud.live_count(at(1_000_000)), 1, "it costs money until it is deleted");

    let mut cloud = SimCloud::new(with(Fault::DiesBooting, MILLION), 1);
    let machine = made(cloud.create(at(0), &spec(1)));
    let died = cloud.machine(&machine).unwrap().stopped_at.unwrap();
    assert!((at(100)..=at(1100)).contains(&died));
    assert_eq!(found_state(&mut cloud, died, 1), Some(MachineState::Stopped));
    assert!((0..3000).all(|millis| !cloud.machine(&machine).unwrap().answers(at(millis))));

    let mut cloud = SimCloud::new(with(Fault::BootStuck, MILLION), 1);
    let machine = made(cloud.create(at(0), &spec(1)));
    assert_eq!(found_state(&mut cloud, at(1_000_000), 1), Some(MachineState::Running));
    assert!(!cloud.machine(&machine).unwrap().answers(at(1_000_000)));
}

#[test]
fn deletes_and_reads_fail_when_told_to() {
    let mut cloud = SimCloud::new(with(Fault::DeleteError, MILLION), 1);
    let machine = made(cloud.create(at(0), &spec(1)));
    let error = refused(cloud.delete(at(0), &machine));
    assert_eq!((error.kind, error.certainty), (ErrorKind::Transient, Certainty::Unknown));
    assert_eq!(cloud.live_count(at(1000)), 1);

    let mut cloud = SimCloud::new(with(Fault::ReadError, MILLION), 1);
    made(cloud.create(at(0), &spec(1)));
    assert_eq!(cloud.find(at(0), &key(1)).unwrap_err().kind, ErrorKind::Transient);
    assert_eq!(cloud.list(at(0), &POOL).unwrap_err().kind, ErrorKind::Transient);
}

#[test]
fn partial_lists_miss_something_and_say_so_untidy_ones_miss_nothing() {
    let mut cloud = SimCloud::new(with(Fault::ListPartial, MILLION), 1);
    (1..=5).for_each(|serial| drop(made(cloud.create(at(0), &spec(serial)))));
    let sizes: Vec<usize> = (0..100)
        .map(|_| cloud.list(at(0), &POOL).unwrap())
        .map(|listing| {
            assert!(!listing.complete);
            listing.machines.len()
        })
        .collect();
    assert_eq!((sizes.iter().min(), sizes.iter().max()), (Some(&0), Some(&4)));

    cloud.settings_mut().faults = FaultRates::default().with(Fault::ListUntidy, MILLION);
    for _ in 0..20 {
        let listing = cloud.list(at(0), &POOL).unwrap();
        let references: std::collections::BTreeSet<_> =
            listing.machines.iter().map(|machine| &machine.reference).collect();
        assert_eq!((listing.complete, listing.machines.len(), references.len()), (true, 6, 5));
    }
}

#[test]
fn creates_fail_by_the_weights_of_their_kinds() {
    let weights = BTreeMap::from([(ErrorKind::NoCapacity, 1), (ErrorKind::Denied, 0), (ErrorKind::Throttled, 3)]);
    let mut cloud = SimCloud::new(CloudSettings { create_errors: weights, ..with(Fault::CreateError, MILLION) }, 1);
    let mut seen: BTreeMap<ErrorKind, u32> = BTreeMap::new();
    for serial in 0..4000 {
        let error = refused(cloud.create(at(0), &spec(serial)));
        assert_eq!(error.certainty, Certainty::NotApplied);
        assert_eq!(error.retry_after.is_some(), error.kind == ErrorKind::Throttled);
        *seen.entry(error.kind).or_default() += 1;
    }
    assert_eq!(cloud.created_total(), 0);
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [ErrorKind::NoCapacity, ErrorKind::Throttled]);
    assert!((900..1100).contains(&seen[&ErrorKind::NoCapacity]), "{seen:?}");
}

/// A tenth of 10,000 occasions is 1,000; the standard deviation is 30, so what is not within 850 to 1,150 is no accident.
#[test]
fn every_fault_strikes_at_about_its_rate() {
    for fault in Fault::ALL {
        let mut cloud = SimCloud::new(with(fault, 100_000), 17);
        let mut observed = 0;
        let machine = made_in_spite_of(&mut cloud, fault);
        for serial in 1000..11_000 {
            observed += u64::from(strikes_once(&mut cloud, fault, serial, &machine));
        }
        assert!((850..1150).contains(&observed), "{}: {observed}", fault.as_str());
        assert_eq!(cloud.hits(fault), observed, "{}", fault.as_str());
        let others = Fault::ALL.into_iter().filter(|other| *other != fault);
        assert!(others.into_iter().all(|other| cloud.hits(other) == 0), "{}", fault.as_str());
    }
}

/// One machine that is there whatever is to be tested later.
fn made_in_spite_of(cloud: &mut SimCloud, fault: Fault) -> MachineRef {
    let rate = cloud.settings().faults.rate(fault);
    cloud.settings_mut().faults.set(fault, 0);
    let machine = made(cloud.create(at(0), &spec(1)));
    cloud.settings_mut().faults.set(fault, rate);
    machine
}

/// Gives a fault one occasion, and says by what can be seen whether it struck.
fn strikes_once(cloud: &mut SimCloud, fault: Fault, serial: u64, there: &MachineRef) -> bool {
    // Each at its own time, so that what the one before left behind is over and the cloud stays small.
    let (now, later) = (at(serial * 1000), at(serial * 1000 + 2000));
    let state_of_new = |cloud: &mut SimCloud| {
        let machine = made(cloud.create(now, &spec(serial)));
        let truth = cloud.machine(&machine).unwrap();
        let seen = (truth.state(later), truth.answers(later));
        cloud.kill(now, &machine);
        seen
    };
    match fault {
        Fault::CreateError => match cloud.create(now, &spec(serial)) {
            Ok(Ok(Progress::Pending { machine, .. })) => !cloud.kill(now, &machine.unwrap()),
            other => other.unwrap().is_err(),
        },
        Fault::Echo => match cloud.create(now, &spec(serial)).unwrap() {
            Ok(progress) => !cloud.kill(now, &made(Ok(Ok(progress)))),
            Err(error) => error.message.contains(&format!("start {serial}")),
        },
        Fault::LostBeforeEffect | Fault::LostAfterEffect | Fault::LateEffect => {
            let lost = cloud.create(now, &spec(serial)) == Err(Lost);
            let machine = cloud.machines_of(&key(serial).uuid()).next();
            let (applied, exists) = (machine.is_some(), machine.is_some_and(|machine| machine.exists(now)));
            assert_eq!(applied, !lost || fault != Fault::LostBeforeEffect);
            assert_eq!(exists, applied && !(lost && fault == Fault::LateEffect));
            let machine = machine.map(|machine| machine.reference.clone());
            // A late one does not exist yet, so it is deleted rather than killed.
            cloud.settings_mut().faults.set(fault, 0);
            machine.map(|machine| cloud.delete(now, &machine));
            cloud.settings_mut().faults.set(fault, 100_000);
            lost
        }
        Fault::TokenIgnored => {
            let machine = made(cloud.create(now, &spec(1)));
            machine != *there && cloud.kill(now, &machine)
        }
        Fault::DiesBooting => state_of_new(cloud).0 == MachineState::Stopped,
        Fault::FailsForGood => state_of_new(cloud).0 == MachineState::Failed,
        Fault::BootStuck => state_of_new(cloud) == (MachineState::Running, false),
        Fault::DeleteError => cloud.delete(now, &MachineRef("sim-99999999".into())).unwrap().is_err(),
        Fault::ListPartial => !cloud.list(now, &POOL).unwrap().complete,
        Fault::ListUntidy => cloud.list(now, &POOL).unwrap().machines.len() == 2,
        Fault::ReadError => cloud.find(now, &key(1)).is_err(),
    }
}

#[test]
fn hand_actions_show_in_what_is_found() {
    let mut cloud = SimCloud::new(plain(), 1);
    let machines: Vec<_> = (1..=3).map(|serial| made(cloud.create(at(0), &spec(serial)))).collect();
    assert!(
        cloud.kill(at(500), &machines[0])
            && cloud.stop(at(500), &machines[1])
            && cloud.strip_marker(at(500), &machines[2])
    );
    assert!(!cloud.kill(at(500), &machines[0]) && !cloud.stop(at(500), &MachineRef("sim-00000009".into())));
    assert_eq!(found_state(&mut cloud, at(500), 1), None);
    assert_eq!(found_state(&mut cloud, at(500), 2), Some(MachineState::Stopped));
    assert_eq!(cloud.machine(&machines[1]).unwrap().state(at(5000)), MachineState::Stopped);
    assert_eq!(found_state(&mut cloud, at(500), 3), None);
    assert_eq!(cloud.list(at(500), &POOL).unwrap().machines.len(), 1);
    assert!(cloud.confuse(at(500), &machines[1], "migrating") && !cloud.confuse(at(500), &machines[0], "migrating"));
    assert_eq!(found_state(&mut cloud, at(500), 2), Some(MachineState::Unknown("migrating".into())));
    // The stripped one still costs money, and can still be deleted by its reference.
    assert_eq!(cloud.live_count(at(500)), 2);
    made(cloud.delete(at(500), &machines[2]));
    assert_eq!(cloud.live_count(at(550)), 1);
}

/// A machine of another installation that carries our pool's id is shown: telling them apart is the caller's work.
#[test]
fn foreign_machines_are_there_and_not_ours() {
    let mut cloud = SimCloud::new(plain(), 1);
    let theirs = Marker { deployment: DeploymentId::from_bytes([2; 16]), ..marker(1) };
    let foreign = cloud.add_foreign(at(0), Some(theirs.clone()), "kasm-foreign");
    cloud.add_foreign(at(0), None, "somebody");
    let listing = cloud.list(at(0), &POOL).unwrap();
    assert_eq!(listing.machines.len(), 1);
    assert_eq!((&listing.machines[0].reference, &listing.machines[0].marker), (&foreign, &Some(theirs)));
    assert_eq!((cloud.live_count(at(0)), cloud.live(at(0)).count(), cloud.created_total()), (0, 2, 0));
}

#[test]
fn what_is_forgotten_is_gone_with_its_token_and_the_rest_stays() {
    let mut cloud = SimCloud::new(plain(), 1);
    let old = made(cloud.create(at(0), &spec(1)));
    let kept = made(cloud.create(at(0), &spec(2)));
    made(cloud.delete(at(0), &old));
    cloud.forget(at(50));
    assert!(cloud.machine(&old).is_some(), "hidden at 50, not before");
    cloud.forget(at(51));
    assert!(cloud.machine(&old).is_none() && cloud.machine(&kept).is_some());
    assert_ne!(made(cloud.create(at(100), &spec(1))), old);
    assert_eq!((cloud.machines().count(), cloud.live_count(at(100)), cloud.created_total()), (2, 2, 3));
}

#[test]
fn time_that_runs_backwards_changes_nothing() {
    let mut cloud = SimCloud::new(plain(), 1);
    made(cloud.create(at(0), &spec(1)));
    assert_eq!(found_state(&mut cloud, at(100), 1), Some(MachineState::Running));
    assert_eq!(found_state(&mut cloud, at(50), 1), Some(MachineState::Running));
}

#[test]
fn a_preflight_finds_what_would_stop_a_create_and_makes_nothing() {
    let now = Timestamp::from_secs(1);
    let settings = CloudSettings { quota: 1, capacity: 5, ..CloudSettings::default() };
    let mut cloud = SimCloud::new(settings, 1);
    assert_eq!(cloud.preflight(now), Ok(Vec::new()));
    assert_eq!(cloud.created_total(), 0);
    cloud.create(now, &spec(1)).unwrap().unwrap();
    let subjects = |cloud: &mut SimCloud| -> Vec<String> {
        cloud.preflight(now).unwrap().into_iter().map(|finding| finding.subject).collect()
    };
    assert_eq!(subjects(&mut cloud), ["quota"]);
    cloud.settings_mut().quota = 5;
    cloud.settings_mut().capacity = 1;
    assert_eq!(subjects(&mut cloud), ["capacity"]);
    cloud.settings_mut().capacity = 5;
    cloud.settings_mut().faults.set(Fault::CreateError, 1_000_000);
    cloud.settings_mut().create_errors = [(ErrorKind::Denied, 1)].into();
    let found = cloud.preflight(now).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].problem, "every create is refused (denied)");
    cloud.settings_mut().faults.set(Fault::ReadError, 1_000_000);
    assert!(cloud.preflight(now).is_err());
}
