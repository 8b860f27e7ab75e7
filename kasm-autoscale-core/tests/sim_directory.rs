//! The simulated directory keeps its word: what it answers, what it holds, and when it lies.
#![cfg(feature = "testing")]

use std::time::Duration;

use kasm_autoscale_core::config::NamePattern;
use kasm_autoscale_core::id::{ConfigId, DeploymentId, PoolId, ServerId, ServerKey};
use kasm_autoscale_core::ports::{Computer, ComputerRef, DirectoryErrorKind, JoinState, Marker};
use kasm_autoscale_core::testing::cloud::Lost;
use kasm_autoscale_core::testing::directory::{DirectoryFault, DirectorySettings, JoinRefused, SimDirectory};
use kasm_autoscale_core::testing::entropy::{Entropy, MILLION, Seeded};
use kasm_autoscale_core::time::Timestamp;
use kasm_autoscale_core::token::{DeploymentKey, join_password};
use secrecy::ExposeSecret;

const POOL: PoolId = PoolId::from_bytes([7; 16]);

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(1_700_000_000 + secs)
}

fn key(serial: u64) -> ServerKey {
    ServerKey { pool: POOL, server: ServerId::new(serial) }
}

fn marker(serial: u64) -> Marker {
    let deployment = DeploymentId::from_bytes([1; 16]);
    Marker { deployment, pool: POOL, config: ConfigId::new(1), server: key(serial).uuid() }
}

fn computer(serial: u64) -> Computer {
    let pattern: NamePattern = "desk-{number}".parse().unwrap();
    let name = pattern.name_of(&key(serial)).unwrap();
    Computer { server: key(serial), marker: marker(serial), name, ou: "OU=Desks,DC=corp,DC=example".into() }
}

fn password(serial: u64) -> kasm_autoscale_core::ports::JoinPassword {
    join_password(&DeploymentKey::new([7; 32]), &key(serial), 0)
}

fn made(directory: &mut SimDirectory, now: Timestamp, serial: u64) -> ComputerRef {
    directory.ensure_computer(now, &computer(serial), &password(serial)).unwrap().unwrap()
}

fn plain() -> SimDirectory {
    SimDirectory::new(DirectorySettings::default(), 1)
}

fn with(fault: DirectoryFault) -> SimDirectory {
    SimDirectory::new(DirectorySettings::default().with(fault, MILLION), 1)
}

#[test]
fn one_request_one_object_and_its_password_is_good_once() {
    let mut directory = plain();
    let reference = made(&mut directory, at(0), 1);
    assert_eq!(made(&mut directory, at(1), 1), reference, "asked again, the same object");
    assert_eq!(directory.live().count(), 1);
    assert_eq!(directory.joined(at(1), &reference), Ok(JoinState::Waiting));
    let (right, wrong) = (password(1), password(2));
    assert_eq!(directory.join(at(2), "DESK-1", wrong.expose_secret()), Err(JoinRefused::WrongPassword));
    assert_eq!(directory.join(at(2), "DESK-1", right.expose_secret()), Ok(()));
    assert_eq!(directory.join(at(3), "desk-1", right.expose_secret()), Err(JoinRefused::Used));
    assert_eq!(directory.join(at(3), "desk-2", right.expose_secret()), Err(JoinRefused::NoComputer));
    assert_eq!(directory.joined(at(3), &reference), Ok(JoinState::Joined));
    assert_eq!((directory.joins_refused("DESK-1"), directory.joins_refused("desk-1")), (1, 1));
    assert_eq!(directory.delete_computer(at(4), &reference, false), Ok(Ok(())));
    assert_eq!(directory.delete_computer(at(5), &reference, false), Ok(Ok(())), "deleting nothing is success");
    assert_eq!(directory.joined(at(5), &reference), Ok(JoinState::Absent));
    assert!(directory.marked(&POOL).is_empty());
    assert_ne!(made(&mut directory, at(6), 1), reference, "what is gone is gone");
}

#[test]
fn a_foreign_name_is_taken_and_left_alone() {
    let mut directory = plain();
    let foreign = directory.add_foreign(at(0), None, "DESK-1");
    let refused = directory.ensure_computer(at(0), &computer(1), &password(1)).unwrap().unwrap_err();
    assert_eq!(refused.kind, DirectoryErrorKind::NameTaken);
    assert!(directory.computer(&foreign).unwrap().exists());
    assert!(directory.list_computers(at(0), &POOL).unwrap().computers.is_empty(), "it bears no mark");
    assert_eq!(directory.find_computer(at(0), &key(1)), Ok(None));
    // One with our mark is found by it, whatever its name.
    let marked = directory.add_foreign(at(0), Some(marker(2)), "another");
    assert_eq!(made(&mut directory, at(0), 2), marked);
    let twice = directory.add_foreign(at(0), Some(marker(2)), "yet-another");
    assert_eq!(directory.duplicates(), [key(2).uuid()]);
    assert!(directory.remove(at(1), &twice) && !directory.remove(at(1), &twice));
    assert!(directory.duplicates().is_empty());
}

#[test]
fn what_lies_below_is_removed_only_when_asked_for() {
    let mut directory = plain();
    let reference = made(&mut directory, at(0), 1);
    assert!(directory.add_child(&reference) && !directory.add_child(&ComputerRef("sim-computer-01".into())));
    let refused = directory.delete_computer(at(0), &reference, false).unwrap().unwrap_err();
    assert_eq!(refused.kind, DirectoryErrorKind::HasChildren);
    assert!(refused.message.contains("ad_recursive_cleanup"), "{refused}");
    assert_eq!(directory.delete_computer(at(0), &reference, true), Ok(Ok(())));
    assert!(directory.marked(&POOL).is_empty());
}

#[test]
fn what_was_made_is_seen_after_the_lag_and_what_was_removed_is_seen_for_as_long() {
    let lag = Duration::from_secs(30)..=Duration::from_secs(30);
    let mut directory = SimDirectory::new(DirectorySettings { visibility_lag: lag, ..DirectorySettings::default() }, 1);
    assert_eq!(directory.describe().visibility_lag, Duration::from_secs(30));
    let reference = made(&mut directory, at(0), 1);
    let listed =
        |directory: &mut SimDirectory, secs| directory.list_computers(at(secs), &POOL).unwrap().computers.len();
    assert_eq!(directory.find_computer(at(29), &key(1)), Ok(None));
    assert_eq!((listed(&mut directory, 29), directory.joined(at(29), &reference)), (0, Ok(JoinState::Absent)));
    assert_eq!(directory.find_computer(at(30), &key(1)), Ok(Some(reference.clone())));
    assert_eq!(listed(&mut directory, 30), 1);
    directory.delete_computer(at(40), &reference, false).unwrap().unwrap();
    assert_eq!((listed(&mut directory, 69), listed(&mut directory, 70)), (1, 0));
    assert_eq!(directory.list_computers(at(70), &PoolId::from_bytes([8; 16])).unwrap().computers, []);
}

#[test]
fn each_fault_does_what_it_says_and_is_counted() {
    use DirectoryFault::{
        Children, DeleteError, EnsureError, EnsureUnsure, ListPartial, LostAfterEffect, LostBeforeEffect, ReadError,
    };
    let ensure = |directory: &mut SimDirectory| directory.ensure_computer(at(0), &computer(1), &password(1));
    let mut directory = with(EnsureError);
    ensure(&mut directory).unwrap().unwrap_err();
    assert_eq!((directory.live().count(), directory.hits(EnsureError)), (0, 1));
    let mut directory = with(LostBeforeEffect);
    assert_eq!(ensure(&mut directory), Err(Lost));
    assert_eq!((directory.live().count(), directory.hits(LostBeforeEffect)), (0, 1));
    let mut directory = with(LostAfterEffect);
    assert_eq!(ensure(&mut directory), Err(Lost));
    assert_eq!((directory.live().count(), directory.hits(LostAfterEffect)), (1, 1));
    let mut directory = with(EnsureUnsure);
    let outcomes: Vec<usize> = (0..20)
        .map(|serial| {
            let before = directory.live().count();
            directory.ensure_computer(at(0), &computer(serial), &password(serial)).unwrap().unwrap_err();
            directory.live().count() - before
        })
        .collect();
    assert!(outcomes.contains(&0) && outcomes.contains(&1), "{outcomes:?}");
    let mut directory = plain();
    let reference = made(&mut directory, at(0), 1);
    *directory.settings_mut() = DirectorySettings::default().with(DeleteError, MILLION);
    directory.delete_computer(at(0), &reference, true).unwrap().unwrap_err();
    assert_eq!(directory.live().count(), 1);
    *directory.settings_mut() = DirectorySettings::default().with(ReadError, MILLION);
    directory.find_computer(at(0), &key(1)).unwrap_err();
    directory.joined(at(0), &reference).unwrap_err();
    directory.list_computers(at(0), &POOL).unwrap_err();
    assert_eq!(directory.hits(ReadError), 3);
    *directory.settings_mut() = DirectorySettings::default().with(ListPartial, MILLION);
    let listing = directory.list_computers(at(0), &POOL).unwrap();
    assert!(!listing.complete && listing.computers.is_empty(), "{listing:?}");
    *directory.settings_mut() = DirectorySettings::default().with(Children, MILLION);
    directory.join(at(0), "desk-1", password(1).expose_secret()).unwrap();
    assert_eq!(directory.computer(&reference).unwrap().children, 1);
}

#[test]
fn a_directory_that_is_down_or_full_says_so() {
    let mut directory = SimDirectory::new(DirectorySettings { quota: 1, ..DirectorySettings::default() }, 1);
    let reference = made(&mut directory, at(0), 1);
    let full = directory.ensure_computer(at(0), &computer(2), &password(2)).unwrap().unwrap_err();
    assert_eq!(full.kind, DirectoryErrorKind::Quota);
    directory.set_down(Some(DirectoryErrorKind::Denied));
    assert_eq!(directory.joined(at(0), &reference).unwrap_err().kind, DirectoryErrorKind::Denied);
    assert_eq!(
        directory.delete_computer(at(0), &reference, true).unwrap().unwrap_err().kind,
        DirectoryErrorKind::Denied
    );
    directory.set_down(None);
    assert_eq!(directory.joined(at(0), &reference), Ok(JoinState::Waiting));
    assert_eq!(directory.calls_total(), 5);
}

#[test]
fn same_seed_same_calls_same_answers() {
    let transcript = |seed| {
        let lag = Duration::ZERO..=Duration::from_secs(20);
        let mut settings = DirectorySettings { visibility_lag: lag, ..DirectorySettings::default() };
        for fault in DirectoryFault::ALL {
            settings = settings.with(fault, 150_000);
        }
        let mut directory = SimDirectory::new(settings, seed);
        let mut script = Seeded::new(99);
        let mut log = String::new();
        for step in 0..300 {
            let (now, serial) = (at(step), script.pick(10));
            let reference = ComputerRef(format!("sim-computer-{serial}"));
            log += &match script.pick(5) {
                0 | 1 => format!("{:?}\n", directory.ensure_computer(now, &computer(serial), &password(serial))),
                2 => format!("{:?}\n", directory.find_computer(now, &key(serial))),
                3 => format!("{:?}\n", directory.list_computers(now, &POOL)),
                _ => format!("{:?}\n", directory.delete_computer(now, &reference, false)),
            };
        }
        log
    };
    assert_eq!(transcript(5), transcript(5));
    assert_ne!(transcript(5), transcript(6));
}
