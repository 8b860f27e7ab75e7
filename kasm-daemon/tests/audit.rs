//! `kasm-daemon audit` over stores that are sound, spoilt in every way that it looks for, damaged, or no stores at all.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kasm_autoscale_core::config::PlacementPolicy;
use kasm_autoscale_core::report::{Event, What};
use kasm_autoscale_core::row::{Row, RowKey, Write};
use kasm_autoscale_core::testing::fleet::{Fleet, NOW};
use kasm_daemon::store::{SqliteStore, Store};
use rusqlite::Connection;
use serde_json::{Value, json};

fn audit(path: &Path) -> (i32, String) {
    let output: Output = Command::new(env!("CARGO_BIN_EXE_kasm-daemon"))
        .args(["audit", "--store", path.to_str().unwrap()])
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code().unwrap(), text)
}

/// A store with a pool of four servers and three sessions.
async fn stored(folder: &Path) -> PathBuf {
    let path = folder.join("pools.sqlite");
    let store = SqliteStore::open(&path).unwrap();
    let fleet =
        Fleet { servers: 4, per_server: 2, sessions: 3, minimum_available: 2, placement: PlacementPolicy::Spread };
    let id = store.add_pool("fleet".parse().unwrap()).await.unwrap();
    let put = |mut row: Row| {
        if let Row::Pool(pool) = &mut row {
            (pool.spec.deployment, pool.spec.id) = (store.deployment(), id);
        }
        Write::Put(row)
    };
    let gone = Event { at: NOW, what: What::ConfigGone { config: "old".parse().unwrap() } };
    store.save(id, fleet.rows().into_iter().map(put).collect(), vec![gone], vec![]).await.unwrap();
    drop(store);
    // The store's own thread closes it; a clean end leaves no log.
    for _ in 0..200 {
        if !folder.join("pools.sqlite-wal").exists() {
            return path;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the store is never closed");
}

fn change(path: &Path, sql: &str) {
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "foreign_keys", "OFF").unwrap();
    let changed = connection.execute(sql, []).unwrap();
    assert!(changed > 0, "{sql}");
}

/// Changes one row by its key.
fn edit(path: &Path, key: RowKey, edit: impl FnOnce(&mut Value)) {
    let connection = Connection::open(path).unwrap();
    let key = key.to_string();
    let text: String = connection.query_row("SELECT value FROM rows WHERE key = ?1", [&key], |row| row.get(0)).unwrap();
    let mut value: Value = serde_json::from_str(&text).unwrap();
    edit(&mut value);
    connection.execute("UPDATE rows SET value = ?1 WHERE key = ?2", [value.to_string(), key]).unwrap();
}

fn server(serial: u64) -> RowKey {
    RowKey::Server(kasm_autoscale_core::id::ServerId::new(serial))
}

fn session(serial: u64) -> RowKey {
    RowKey::Session(kasm_autoscale_core::id::SessionId::new(serial))
}

const CONFIG: kasm_autoscale_core::id::ConfigId = kasm_autoscale_core::id::ConfigId::new(1);

#[tokio::test]
async fn a_sound_store_is_found_sound_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = stored(folder.path()).await;
    let before = std::fs::read(&path).unwrap();
    let (code, text) = audit(&path);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("pool fleet: 1 configs, 4 servers, 3 sessions\n"), "{text}");
    assert!(text.contains("tokens: 0\n"), "{text}");
    assert!(
        text.contains("events: 1\n")
            && text.contains("audit log: no entries\n")
            && text.trim_end().ends_with("pools.sqlite: nothing found"),
        "{text}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let beside: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(beside, ["pools.sqlite"], "nothing is made beside it");
}

#[tokio::test]
async fn every_kind_of_spoilt_row_is_found_by_its_number() {
    let sit = |value: &mut Value, serial: u64| value["state"]["Active"]["server"] = json!(serial);
    let deleting =
        json!({ "Deleting": { "since": NOW, "why": "operator", "call": "Send", "tries": 0, "next_at": NOW } });
    let going = deleting.clone();
    type Spoil = Box<dyn Fn(&Path)>;
    let spoils: Vec<(&str, &str, Spoil)> = vec![
        (
            "I-01 sessions within max",
            "srv-1 has 3 of 2",
            Box::new(move |path| {
                edit(path, session(2), |value| sit(value, 1));
                edit(path, session(3), |value| sit(value, 1));
            }),
        ),
        (
            "I-02 a slot that is not reusable is taken once",
            "srv-4 was taken 9 times of 2",
            Box::new(|path| {
                edit(path, RowKey::Config(CONFIG, 1), |value| value["spec"]["reusable"] = json!(false));
                edit(path, server(4), |value| value["taken"] = json!(9));
            }),
        ),
        (
            "I-02 one open session a user",
            "user0",
            Box::new(|path| {
                edit(path, session(2), |value| value["user"] = json!("user0"));
            }),
        ),
        (
            "I-03 and I-14 sessions only where they can be",
            "srv-1 deleting has 1",
            Box::new(move |path| {
                edit(path, server(1), |value| value["phase"] = going.clone());
            }),
        ),
        (
            "I-21 one computer object for each server that joins",
            "srv-4",
            Box::new(|path| {
                edit(path, server(4), |value| value["computer"] = json!("stray"));
            }),
        ),
        (
            "I-30 rows make a pool",
            "row server/2 has a number that the pool has not given out: the next one is 2",
            Box::new(|path| {
                edit(path, RowKey::Pool, |value| value["next_server"] = json!(2));
            }),
        ),
        (
            "I-30 rows make a pool",
            "servers srv-1 and srv-2 have the same slot",
            Box::new(|path| {
                edit(path, server(2), |value| value["slot"] = json!(0));
            }),
        ),
        (
            "I-30 rows make a pool",
            "row session/1 speaks of srv-1, which is not there",
            Box::new(|path| {
                change(path, "DELETE FROM rows WHERE key = 'server/1'");
            }),
        ),
        (
            "I-30 rows make a pool",
            "there is no pool row",
            Box::new(|path| change(path, "DELETE FROM rows WHERE key = 'pool'")),
        ),
        (
            "I-32 what is stored can be read",
            "row server/3",
            Box::new(|path| {
                change(path, "UPDATE rows SET value = '{\"row\": \"server\"}' WHERE key = 'server/3'");
            }),
        ),
        (
            "I-32 what is stored can be read",
            "row server/9 holds server/4",
            Box::new(|path| {
                change(path, "UPDATE rows SET key = 'server/9' WHERE key = 'server/4'");
            }),
        ),
        ("I-32 what is stored can be read", "event 1", Box::new(|path| change(path, "UPDATE events SET value = '{}'"))),
        (
            "I-32 what is stored can be read",
            "entry workspace:x",
            Box::new(|path| {
                change(path, "INSERT INTO meta (key, value) VALUES ('workspace:x', '{}')");
            }),
        ),
        (
            "I-32 what is stored can be read",
            "row token ci of the store cannot be read: its role",
            Box::new(|path| {
                change(path, "INSERT INTO tokens (sha256, name, role) VALUES (zeroblob(32), 'ci', 'king')");
            }),
        ),
        (
            "I-32 every row has its pool",
            "row server/4 of pool elsewhere",
            Box::new(|path| {
                change(path, "UPDATE rows SET pool = 'elsewhere' WHERE key = 'server/4'");
            }),
        ),
        (
            "I-13 rows are of their own pool",
            "its row says other",
            Box::new(|path| {
                edit(path, RowKey::Pool, |value| value["spec"]["name"] = json!("other"));
            }),
        ),
        (
            "I-13 rows are of their own installation",
            "pool fleet is of",
            Box::new(|path| {
                change(path, "UPDATE meta SET value = '00000000-0000-4000-8000-000000000000' WHERE key = 'deployment'");
            }),
        ),
        (
            "I-99 for a test",
            "config fleet is frozen",
            Box::new(|path| {
                let freeze = json!({ "since": NOW, "invariant": "I-99 for a test", "found": "nothing" });
                edit(path, RowKey::Memory(CONFIG), |value| value["freeze"] = freeze.clone());
            }),
        ),
    ];
    for (invariant, found, spoil) in spoils {
        let folder = tempfile::tempdir().unwrap();
        let path = stored(folder.path()).await;
        spoil(&path);
        let (code, text) = audit(&path);
        assert_eq!(code, 1, "{invariant}: {text}");
        let line = text.lines().find(|line| line.starts_with(&format!("FOUND {invariant}")) && line.contains(found));
        assert!(line.is_some(), "no line tells of {invariant:?} and {found:?}: {text}");
    }
}

#[tokio::test]
async fn what_a_crash_has_left_beside_the_file_is_looked_at_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let path = stored(folder.path()).await;
    // A log that was never brought into the file: its connection is forgotten, as a killed process forgets it.
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.execute("UPDATE rows SET value = '?' WHERE key = 'server/3'", []).unwrap();
    let other = folder.path().join("copy.sqlite");
    std::fs::copy(&path, &other).unwrap();
    std::fs::copy(folder.path().join("pools.sqlite-wal"), folder.path().join("copy.sqlite-wal")).unwrap();
    drop(connection);
    let (code, text) = audit(&other);
    assert!(code == 1 && text.contains("row server/3"), "{code}: {text}");
}

#[tokio::test]
async fn what_is_no_store_or_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = stored(folder.path()).await;
    let refused = |path: &Path, why: &str| {
        let (code, text) = audit(path);
        assert_eq!(code, 2, "{text}");
        assert!(text.contains(why) && text.contains("cannot read the store"), "{why:?}: {text}");
    };
    refused(&folder.path().join("nowhere"), "No such file");
    let whole = std::fs::read(&path).unwrap();
    let damaged = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    refused(&damaged("empty", b""), "it is empty");
    refused(
        &damaged(
            "text",
            b"not a database, but long enough to be looked at as if it were one, were it not for its head",
        ),
        "not a database",
    );
    for length in [100, 4096, whole.len() / 2] {
        refused(&damaged("short", &whole[..length]), "restore it from a backup");
    }
    let other = folder.path().join("other");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    refused(&other, "another program");
    for (name, sql, why) in [
        ("schema", "PRAGMA user_version = 99", "it has schema 99, this version reads 1 to 2"),
        (
            "format",
            "UPDATE rows SET value = json_set(value, '$.format', 99) WHERE key = 'pool'",
            "the rows have format 99",
        ),
    ] {
        let path = damaged(name, &whole);
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        refused(&path, why);
    }
    let open = SqliteStore::open(&path).unwrap();
    refused(&path, "a process has it open");
    drop(open);
    let output = Command::new(env!("CARGO_BIN_EXE_kasm-daemon")).arg("audit").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "without a store there is nothing to do");
}

/// A page in the middle of the file is overwritten: whatever is said, it is not that all is well.
#[tokio::test]
async fn i_32_no_damaged_page_goes_unnoticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = stored(folder.path()).await;
    let whole = std::fs::read(&path).unwrap();
    for page in 0..whole.len() / 4096 {
        let mut bytes = whole.clone();
        bytes[page * 4096..(page + 1) * 4096].fill(0xa5);
        let damaged = folder.path().join("damaged");
        std::fs::write(&damaged, bytes).unwrap();
        let (code, text) = audit(&damaged);
        assert!([1, 2].contains(&code), "page {page}: {code}: {text}");
    }
}

/// A file that a version without an audit log has left is audited as it is.
#[tokio::test]
async fn a_store_of_edition_1_is_audited_without_being_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = stored(folder.path()).await;
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "DROP TABLE audit; DROP TABLE audit_anchor; PRAGMA user_version = 1; PRAGMA journal_mode = DELETE",
        )
        .unwrap();
    drop(connection);
    let before = std::fs::read(&path).unwrap();
    let (code, text) = audit(&path);
    assert!(code == 0 && text.contains("audit log: none; a version before it wrote this store"), "{code}: {text}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}
