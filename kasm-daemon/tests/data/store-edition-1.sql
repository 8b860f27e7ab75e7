-- The tables of edition 1 of the store, as its last version made them. They never change, spaces
-- included, which SQLite keeps: such files are out there.
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE pools (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT, WITHOUT ROWID;
    CREATE TABLE rows (
        pool TEXT NOT NULL REFERENCES pools(id) ON DELETE CASCADE,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (pool, key)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE events (number INTEGER PRIMARY KEY AUTOINCREMENT, pool TEXT NOT NULL, value TEXT NOT NULL) STRICT;
    CREATE INDEX events_of_pool ON events (pool, number);
PRAGMA application_id = 0x6b61736d;
PRAGMA user_version = 1;
