use rusqlite::Connection;

use super::*;

/// A file of edition 1, empty.
const FIRST: &str = include_str!("../../tests/data/store-edition-1.sql");

fn tables(connection: &Connection) -> Vec<(String, String)> {
    let sql = "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name";
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

async fn closed(path: &std::path::Path) -> Connection {
    for _ in 0..200 {
        let connection = Connection::open(path).unwrap();
        if connection.query_row("SELECT count(*) FROM meta", [], |_| Ok(())).is_ok() {
            return connection;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the store is never closed");
}

#[tokio::test]
async fn a_file_of_an_earlier_edition_is_brought_to_this_one() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old.sqlite"), folder.path().join("new.sqlite"));
    let connection = Connection::open(&old).unwrap();
    connection.execute_batch(FIRST).unwrap();
    let (deployment, pool) = (DeploymentId::from_bytes([1; 16]), PoolId::from_bytes([2; 16]));
    let sql = "INSERT INTO meta (key, value) VALUES ('deployment', ?1)";
    connection.execute(sql, [deployment.to_string()]).unwrap();
    connection.execute("INSERT INTO pools (id, name) VALUES (?1, 'kept')", [pool.to_string()]).unwrap();
    assert_eq!(SqliteStore::recognized(&connection).unwrap(), deployment, "what only reads it changes nothing");
    drop(connection);

    // Opened twice: the second time there is nothing to bring.
    for _ in 0..2 {
        let store = SqliteStore::open(&old).unwrap();
        assert_eq!(store.deployment(), deployment);
        assert_eq!(store.pools().await.unwrap()[0].name.as_str(), "kept");
        assert_eq!(store.tokens().await.unwrap(), []);
        drop(store);
        closed(&old).await;
    }
    drop(SqliteStore::open(&new).unwrap());
    let (old, new) = (closed(&old).await, closed(&new).await);
    assert_eq!(tables(&old), tables(&new), "as one that was made by this version");
    let edition =
        |connection: &Connection| connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    assert_eq!(edition(&old), edition(&new));
}

#[tokio::test]
async fn a_file_of_another_program_or_a_later_edition_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    for (pragmas, told) in [("PRAGMA application_id = 0", "another program"), ("PRAGMA user_version = 99", "schema 99")]
    {
        let path = folder.path().join(told);
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(FIRST).unwrap();
        connection.execute_batch(pragmas).unwrap();
        let before = tables(&connection);
        drop(connection);
        let error = SqliteStore::open(&path).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
        assert_eq!(tables(&closed(&path).await), before);
    }
}
