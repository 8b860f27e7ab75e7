//! The audit log as a store keeps it: chained, trimmed, migrated, and spoilt in every way that it can be.

use std::path::{Path, PathBuf};

use kasm_autoscale_core::id::{DeploymentId, PoolId};
use kasm_autoscale_core::testing::fleet::Fleet;
use kasm_autoscale_core::token::DeploymentKey;
use kasm_daemon::store::{SqliteStore, Store};
use kasm_daemon::trail::chain::Shown;
use kasm_daemon::trail::verify::{Anchor, Verdict, Verifier};
use kasm_daemon::trail::{Chain, Entry, Head, Kind, Record};
use rusqlite::Connection;

const KEEP: u32 = 1_000_000;

fn key(byte: u8) -> DeploymentKey {
    DeploymentKey::new([byte; 32])
}

fn record(store: &SqliteStore, kind: Kind, request: &str, keep: u32) -> Record {
    let entry = Entry { request: request.into(), at: "2027-01-31T08:00:00.000Z".into(), ..Entry::new(kind) };
    Record { chain: Chain::new(&key(1), store.deployment()), text: entry.text(), keep }
}

/// Until the store's own thread has closed it; a clean end leaves no log.
async fn closed(path: &Path) {
    let log = path.with_extension("sqlite-wal");
    for _ in 0..500 {
        if !log.exists() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the store is never closed");
}

/// A log of so many entries, closed.
async fn logged(folder: &Path, count: u32, keep: u32) -> PathBuf {
    let path = folder.join("pools.sqlite");
    let store = SqliteStore::open(&path).unwrap();
    for number in 0..count {
        store.record_soon(record(&store, Kind::Told, &format!("req-{number}"), keep));
    }
    assert!(store.audit_head().await.unwrap().is_some());
    drop(store);
    closed(&path).await;
    path
}

fn verified(path: &Path, key: &DeploymentKey, head: Option<&Shown>) -> Verdict {
    let connection = Connection::open(path).unwrap();
    let deployment: DeploymentId = connection
        .query_row("SELECT value FROM meta WHERE key = 'deployment'", [], |row| row.get::<_, String>(0))
        .unwrap()
        .parse()
        .unwrap();
    let anchor = connection
        .query_row("SELECT number, mac, seal FROM audit_anchor", [], |row| {
            Ok(Anchor { head: Head { number: row.get(0)?, mac: row.get(1)? }, seal: row.get(2)? })
        })
        .ok();
    let chain = Chain::new(key, deployment);
    let mut verifier = Verifier::new(Some(&chain), anchor, head);
    let mut statement = connection.prepare("SELECT number, mac, entry FROM audit ORDER BY number").unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let (mac, text): (Vec<u8>, String) = (row.get(1).unwrap(), row.get(2).unwrap());
        verifier.take(row.get(0).unwrap(), &mac, &text);
    }
    verifier.finish()
}

fn sound(path: &Path) -> Verdict {
    let verdict = verified(path, &key(1), None);
    assert_eq!(verdict.findings, Vec::<String>::new());
    verdict
}

/// Spoils a copy of a log, and answers with what is found then.
fn spoilt(path: &Path, spoil: impl FnOnce(&Connection)) -> Vec<String> {
    let copy = path.with_file_name("copy.sqlite");
    std::fs::copy(path, &copy).unwrap();
    spoil(&Connection::open(&copy).unwrap());
    verified(&copy, &key(1), None).findings
}

fn change(sql: &str) -> impl FnOnce(&Connection) {
    move |connection| assert!(connection.execute(sql, []).unwrap() > 0, "{sql}")
}

#[tokio::test]
async fn s_22_the_chain_goes_on_over_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pools.sqlite");
    for round in 0..3 {
        let store = SqliteStore::open(&path).unwrap();
        store.record(record(&store, Kind::Started, &format!("req-{round}"), KEEP)).await.unwrap();
        // Nobody waits for this one, and the store is closed at once.
        store.record_soon(record(&store, Kind::Stopped, &format!("req-{round}"), KEEP));
        drop(store);
        closed(&path).await;
    }
    let verdict = sound(&path);
    assert_eq!((verdict.entries, verdict.numbers), (6, Some((1, 6))));
}

#[tokio::test]
async fn s_22_entries_that_are_written_at_once_make_one_chain() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pools.sqlite");
    let store = std::sync::Arc::new(SqliteStore::open(&path).unwrap());
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..300 {
        let store = store.clone();
        writers.spawn(async move {
            let request = format!("req-{number}");
            store.record(record(&store, Kind::Asked, &request, KEEP)).await.unwrap();
            store.record_soon(record(&store, Kind::Answered, &request, KEEP));
        });
    }
    writers.join_all().await;
    let last = store.audit_head().await.unwrap().unwrap();
    assert_eq!(last.number, 600, "also those that nobody waits for");
    drop(store);
    closed(&path).await;
    let verdict = verified(&path, &key(1), Some(&last.to_string().parse().unwrap()));
    assert_eq!((verdict.findings, verdict.notes, verdict.entries), (vec![], vec![], 600));
}

#[tokio::test]
async fn s_22_every_byte_that_is_changed_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = logged(folder.path(), 6, KEEP).await;
    sound(&path);
    let copy = folder.path().join("copy.sqlite");
    std::fs::copy(&path, &copy).unwrap();
    let connection = Connection::open(&copy).unwrap();
    let mut flips = 0;
    for number in [1, 3, 6] {
        for column in ["entry", "mac"] {
            let read = format!("SELECT CAST({column} AS BLOB) FROM audit WHERE number = ?1");
            let whole: Vec<u8> = connection.query_row(&read, [number], |row| row.get(0)).unwrap();
            let kind = if column == "entry" { "TEXT" } else { "BLOB" };
            let write = format!("UPDATE audit SET {column} = CAST(?1 AS {kind}) WHERE number = ?2");
            for place in 0..whole.len() {
                let mut bytes = whole.clone();
                // The lowest bit, so that text stays text.
                bytes[place] ^= 1;
                connection.execute(&write, rusqlite::params![bytes, number]).unwrap();
                let findings = verified(&copy, &key(1), None).findings;
                let says = findings.iter().any(|finding| finding.contains(&format!("entry {number} is the first")));
                assert!(says, "{column} {number} byte {place}: {findings:?}");
                flips += 1;
            }
            connection.execute(&write, rusqlite::params![whole, number]).unwrap();
        }
    }
    sound(&copy);
    assert!(flips > 250, "{flips}");
}

#[tokio::test]
async fn s_22_entries_that_are_removed_swapped_or_inserted_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = logged(folder.path(), 8, KEEP).await;
    for number in 1..8 {
        let findings = spoilt(&path, change(&format!("DELETE FROM audit WHERE number = {number}")));
        assert_eq!(findings, [format!("entry {number} is missing")]);
        // With the numbers mended.
        let findings = spoilt(&path, |connection| {
            connection.execute("DELETE FROM audit WHERE number = ?1", [number]).unwrap();
            for later in number + 1..=8 {
                connection.execute("UPDATE audit SET number = ?1 - 1 WHERE number = ?1", [later]).unwrap();
            }
        });
        assert!(findings[0].starts_with(&format!("entry {number} is the first that does not fit")), "{findings:?}");
    }
    let findings = spoilt(&path, change("DELETE FROM audit WHERE number BETWEEN 3 AND 5"));
    assert_eq!(findings, ["entries 3 to 5 are missing"]);
    for (one, other) in [(1, 2), (4, 5), (1, 8), (7, 8)] {
        let findings = spoilt(&path, |connection| {
            connection
                .execute_batch(&format!(
                    "UPDATE audit SET number = 99 WHERE number = {one}; UPDATE audit SET number = {one} WHERE number = {other};
                     UPDATE audit SET number = {other} WHERE number = 99"
                ))
                .unwrap();
        });
        assert!(findings[0].starts_with(&format!("entry {one} is the first that does not fit")), "{findings:?}");
    }
    for sql in [
        "INSERT INTO audit SELECT 9, entry, mac FROM audit WHERE number = 8",
        "INSERT INTO audit SELECT 9, entry, mac FROM audit WHERE number = 1",
        "INSERT INTO audit VALUES (9, '{}', x'00')",
        "UPDATE audit SET number = 11 WHERE number = 8",
        "UPDATE audit SET number = 0 WHERE number = 1",
        "UPDATE audit SET mac = x''",
    ] {
        assert_ne!(spoilt(&path, change(sql)), Vec::<String>::new(), "{sql}");
    }
    // All of it with another log of the same installation's key: the deployment is part of the chain.
    let findings = spoilt(&path, |connection| {
        let other = DeploymentId::from_bytes([9; 16]).to_string();
        connection.execute("UPDATE meta SET value = ?1 WHERE key = 'deployment'", [other]).unwrap();
    });
    assert!(findings[0].starts_with("entry 1 is the first that does not fit"), "{findings:?}");
}

#[tokio::test]
async fn s_22_another_key_fits_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = logged(folder.path(), 5, KEEP).await;
    let findings = verified(&path, &key(2), None).findings;
    assert!(findings[0].contains("entry 1 is the first that does not fit"), "{findings:?}");
    // Each is held against the one before as it stands, but made with the other key.
    assert_eq!(findings[1], "4 more entries do not fit");
}

#[tokio::test]
async fn s_22_a_cut_off_end_is_found_by_its_head_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = logged(folder.path(), 8, KEEP).await;
    let connection = Connection::open(&path).unwrap();
    let mac: [u8; 32] = connection.query_row("SELECT mac FROM audit WHERE number = 8", [], |row| row.get(0)).unwrap();
    let head: Shown = Head { number: 8, mac }.to_string().parse().unwrap();
    assert_eq!(verified(&path, &key(1), Some(&head)).findings, Vec::<String>::new());
    connection.execute("DELETE FROM audit WHERE number > 6", []).unwrap();
    sound(&path);
    let findings = verified(&path, &key(1), Some(&head)).findings;
    assert_eq!(findings, [format!("the head {head} is not there: the log ends with entry 6, its end was cut off")]);
    drop(connection);
    // The daemon goes on from there, and gives the numbers again.
    let store = SqliteStore::open(&path).unwrap();
    for _ in 0..3 {
        store.record(record(&store, Kind::Told, "other", KEEP)).await.unwrap();
    }
    drop(store);
    closed(&path).await;
    sound(&path);
    let findings = verified(&path, &key(1), Some(&head)).findings;
    assert_eq!(findings, [format!("the head {head} is not there: entry 8 is another one")]);
}

#[tokio::test]
async fn s_22_a_trimmed_log_is_still_verified_from_its_anchor() {
    let folder = tempfile::tempdir().unwrap();
    let path = logged(folder.path(), 1050, 120).await;
    let verdict = sound(&path);
    assert_eq!(verdict.numbers, Some((881, 1050)));
    assert!((120..=220).contains(&verdict.entries), "{}", verdict.entries);
    let gone: Shown = "5:0000000000000000".parse().unwrap();
    let verdict = verified(&path, &key(1), Some(&gone));
    assert_eq!(verdict.findings, Vec::<String>::new());
    assert!(verdict.notes[0].contains("was trimmed"), "{:?}", verdict.notes);

    // Whoever takes away the oldest entries cannot seal an anchor.
    let forged = |seal: &'static str| {
        move |connection: &Connection| {
            connection
                .execute(
                    &format!("UPDATE audit_anchor SET (number, mac, seal) = (SELECT number, mac, {seal} FROM audit WHERE number = 900)"),
                    [],
                )
                .unwrap();
            connection.execute("DELETE FROM audit WHERE number <= 900", []).unwrap();
        }
    };
    for seal in ["mac", "audit_anchor.seal", "zeroblob(32)"] {
        let findings = spoilt(&path, forged(seal));
        assert!(findings[0].starts_with("the anchor, entry 900, was not sealed"), "{seal}: {findings:?}");
    }
    assert_eq!(spoilt(&path, change("DELETE FROM audit WHERE number <= 900")), ["entries 881 to 900 are missing"]);
    let findings = spoilt(&path, change("DELETE FROM audit_anchor"));
    assert_eq!(findings, ["entries 1 to 880 are missing"]);
    // And it goes on after that.
    let store = SqliteStore::open(&path).unwrap();
    store.record(record(&store, Kind::Told, "more", 120)).await.unwrap();
    drop(store);
    closed(&path).await;
    assert_eq!(sound(&path).numbers, Some((881, 1051)));
}

#[tokio::test]
async fn a_log_that_may_suddenly_be_much_shorter_gets_so_little_by_little() {
    let folder = tempfile::tempdir().unwrap();
    let path = logged(folder.path(), 5050, KEEP).await;
    assert_eq!(sound(&path).entries, 5050);
    let store = SqliteStore::open(&path).unwrap();
    for number in 0..350 {
        store.record_soon(record(&store, Kind::Told, &format!("req-{number}"), 100));
        if number == 60 {
            let left = store.audit_entries(Some(3000), 10_000).await.unwrap();
            assert_eq!(left.last().map(|sealed| sealed.head.number), Some(2001), "2,000 at once");
        }
    }
    store.audit_head().await.unwrap();
    drop(store);
    closed(&path).await;
    let verdict = sound(&path);
    assert_eq!(verdict.numbers, Some((5301, 5400)));
}

#[tokio::test]
async fn s_22_calls_without_an_answer_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pools.sqlite");
    let store = SqliteStore::open(&path).unwrap();
    // The answer of the third comes before its question, as where a step is saved late.
    for (kind, request) in [
        (Kind::Asked, "req-1"),
        (Kind::Asked, "req-2"),
        (Kind::Answered, "req-1"),
        (Kind::Answered, "req-3"),
        (Kind::Asked, "req-3"),
    ] {
        store.record(record(&store, kind, request, KEEP)).await.unwrap();
    }
    drop(store);
    closed(&path).await;
    let verdict = sound(&path);
    assert_eq!(verdict.notes.len(), 1, "{:?}", verdict.notes);
    assert!(verdict.notes[0].starts_with("entry 2: no answer to \"req-2\""), "{:?}", verdict.notes);
}

/// A step that cannot be saved takes its entries with it, and an entry that cannot be written its step.
#[tokio::test]
async fn s_22_a_step_and_its_entries_are_saved_both_or_neither() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pools.sqlite");
    let store = SqliteStore::open(&path).unwrap();
    let put =
        || Fleet { servers: 1, sessions: 1, ..fleet() }.rows().into_iter().map(kasm_autoscale_core::row::Write::Put);
    let nobody = PoolId::from_bytes([3; 16]);
    let asked = || vec![record(&store, Kind::Asked, "req-1", KEEP)];
    store.save(nobody, put().collect(), vec![], asked()).await.unwrap_err();
    assert_eq!(store.audit_head().await.unwrap(), None, "the pool is not there, so nothing is");

    let pool = store.add_pool("office".parse().unwrap()).await.unwrap();
    store.save(pool, put().collect(), vec![], asked()).await.unwrap();
    assert_eq!(store.audit_head().await.unwrap().map(|head| head.number), Some(1));
    let rows = store.load(pool).await.unwrap().len();
    assert!(rows > 0);
    drop(store);
    closed(&path).await;

    let spoil = Connection::open(&path).unwrap();
    spoil.execute("UPDATE audit SET mac = x'00'", []).unwrap();
    drop(spoil);
    let store = SqliteStore::open(&path).unwrap();
    let delete = put().map(|write| kasm_autoscale_core::row::Write::Delete(write.key()));
    let asked = vec![record(&store, Kind::Asked, "req-2", KEEP)];
    store.save(pool, delete.collect(), vec![], asked).await.unwrap_err();
    assert_eq!(store.load(pool).await.unwrap().len(), rows, "without its entry nothing is deleted");
}

fn fleet() -> Fleet {
    Fleet {
        servers: 1,
        per_server: 1,
        sessions: 1,
        minimum_available: 0,
        placement: kasm_autoscale_core::config::PlacementPolicy::Spread,
    }
}

/// A file of edition 1, empty.
const EDITION_1: &str = include_str!("data/store-edition-1.sql");
/// What stands in it.
const CONTENT: &str = "
    INSERT INTO meta (key, value) VALUES ('deployment', '00000000-0000-4000-8000-000000000007');
    INSERT INTO pools (id, name) VALUES ('00000000-0000-4000-8000-000000000008', 'office');
";

#[tokio::test]
async fn a_store_of_edition_1_is_brought_to_this_one_when_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pools.sqlite");
    Connection::open(&path).unwrap().execute_batch(&format!("{EDITION_1}{CONTENT}")).unwrap();
    for round in 1..3 {
        let store = SqliteStore::open(&path).unwrap();
        assert_eq!(store.deployment().to_string(), "00000000-0000-4000-8000-000000000007");
        assert_eq!(store.pools().await.unwrap()[0].name.as_str(), "office");
        store.record(record(&store, Kind::Started, "", KEEP)).await.unwrap();
        assert_eq!(store.audit_head().await.unwrap().unwrap().number, round);
        drop(store);
        closed(&path).await;
    }
    sound(&path);
    let connection = Connection::open(&path).unwrap();
    let edition: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(edition, 2);
    // One of a later edition is left alone.
    connection.execute_batch("PRAGMA user_version = 3").unwrap();
    drop(connection);
    let before = std::fs::read(&path).unwrap();
    let refused = SqliteStore::open(&path).unwrap_err().to_string();
    assert!(refused.contains("it has schema 3, this version reads 1 to 2"), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}
