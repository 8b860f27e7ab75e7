//! A pool of any size, ready made: for benchmarks and tests that start in the middle.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::config::{ConfigSpec, JsonObject, PlacementPolicy, PoolSpec};
use crate::id::{ConfigId, DeploymentId, PoolId, PoolName, ServerId, SessionId, UserName};
use crate::ports::{Address, MachineRef};
use crate::row::{ConfigRow, MemoryRow, PoolRow, ROW_FORMAT, Row};
use crate::server::{Phase, Server};
use crate::session::{Session, SessionState};
use crate::time::Timestamp;

/// The shape of a ready-made pool.
#[derive(Clone, Copy, Debug)]
pub struct Fleet {
    /// Servers, all of them ready.
    pub servers: u32,
    /// Sessions a server takes.
    pub per_server: u32,
    /// Sessions, dealt out one to each server in turn; at most all slots are taken.
    pub sessions: u64,
    /// How many sessions are to be free.
    pub minimum_available: u32,
    /// How a server is chosen.
    pub placement: PlacementPolicy,
}

/// The instant at which a ready-made pool stands.
pub const NOW: Timestamp = Timestamp::from_secs(1_000_000);

impl Fleet {
    /// The rows of this pool, as a store would give them to [`Pool::restore`](crate::pool::Pool::restore).
    ///
    /// # Panics
    /// If the numbers do not make a valid config: see [`ConfigSpec::from_json`].
    pub fn rows(&self) -> Vec<Row> {
        let id = PoolId::from_bytes([7; 16]);
        let config = ConfigId::new(1);
        let name: PoolName = "fleet".parse().unwrap_or_else(|_| unreachable!("a valid name"));
        let spec = PoolSpec { placement: self.placement, ..PoolSpec::new(DeploymentId::from_bytes([9; 16]), id, name) };
        let next_session = self.sessions + 1;
        let pool = PoolRow {
            format: ROW_FORMAT,
            spec,
            next_server: u64::from(self.servers) + 1,
            next_session,
            next_config: 2,
            seen: NOW,
            life: 0,
        };
        let mut rows = Vec::new();
        rows.push(Row::Pool(pool));
        rows.push(Row::Config(ConfigRow { id: config, generation: 1, removed: false, spec: self.config() }));
        rows.push(Row::Memory(MemoryRow::new(config)));
        rows.extend((0..self.servers).map(|slot| Row::Server(self.server(slot, config))));
        let sessions = self.sessions.min(u64::from(self.servers) * u64::from(self.per_server));
        rows.extend((0..sessions).map(|index| Row::Session(self.session(index))));
        rows
    }

    /// The config of the pool.
    ///
    /// # Panics
    /// If the numbers do not make a valid one.
    pub fn config(&self) -> ConfigSpec {
        let text = format!(
            r#"{{"name": "fleet", "provider": "simulated", "reusable": true, "connection_username": "{{sso_username}}",
                "connection_password": "{{sso_cred}}", "minimum_available_sessions": {}, "max_sessions_per_server": {},
                "max_servers": 1000000}}"#,
            self.minimum_available, self.per_server
        );
        let object: JsonObject = serde_json::from_str(&text).unwrap_or_default();
        ConfigSpec::from_json(&object).unwrap_or_else(|error| panic!("{error}"))
    }

    fn server(&self, slot: u32, config: ConfigId) -> Server {
        let serial = u64::from(slot) + 1;
        let sessions = self.sessions.saturating_sub(u64::from(slot)).div_ceil(u64::from(self.servers.max(1)));
        Server {
            id: ServerId::new(serial),
            slot,
            config,
            generation: 1,
            created_at: NOW,
            machine: Some(MachineRef(format!("m-{serial}"))),
            computer: None,
            address: Some(Address { host: String::from("127.0.0.1"), port: None }),
            taken: u32::try_from(sessions).unwrap_or(u32::MAX),
            check_in: None,
            phase: Phase::Ready { since: NOW },
            sessions: 0,
            busy: None,
            absent: 0,
            enrolled_at: NOW,
            named_at: NOW,
        }
    }

    fn session(&self, index: u64) -> Session {
        let user: UserName = format!("user{index}").parse().unwrap_or_else(|_| unreachable!("a valid name"));
        let server = ServerId::new(index % u64::from(self.servers.max(1)) + 1);
        let expires_at = NOW + core::time::Duration::from_secs(86_400);
        let state = SessionState::Active { server, since: NOW, expires_at };
        Session { id: SessionId::new(index + 1), user, zone: None, key: None, requested_at: NOW, state }
    }
}
