//! Users, who come, stay and go; operators, who change their minds; and fate.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use serde_json::json;

use super::super::entropy::{Entropy, MILLION};
use super::super::lock::locked;
use super::host::{DEPLOYMENT, Purpose};
use super::weather::Trouble;
use super::{Due, World};
use crate::config::{ConfigSpec, PlacementPolicy, PoolSpec};
use crate::id::{ConfigName, ServerId, SessionId, UserName};
use crate::input::Fact;
use crate::ports::Marker;
use crate::session::SessionRequest;

const ZONES: [&str; 3] = ["west", "east", "north"];

/// A user as he sees himself.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) name: UserName,
    pub(super) zone: Option<usize>,
    pub(super) stage: Stage,
    /// Counts what he did, so that an event that was meant for something else is passed over.
    pub(super) turn: u64,
    pub(super) requests: u64,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Stage {
    Away,
    /// He has asked, with this key, and has no answer yet.
    Asking {
        key: Option<String>,
        tries: u32,
    },
    /// He was told this session; he leaves at this time.
    Holding {
        session: SessionId,
        leaves_at: crate::time::Timestamp,
    },
}

const MINUTE: Duration = Duration::from_secs(60);

impl World {
    // --- settings ---

    pub(super) fn pool_spec(&mut self, index: usize) -> PoolSpec {
        let entropy = &mut self.operators;
        let name = format!("pool-{index}").parse().unwrap_or_else(|_| unreachable!("a valid name"));
        let mut spec = PoolSpec::new(DEPLOYMENT, super::pool_id(index), name);
        spec.placement = if entropy.chance(MILLION / 2) { PlacementPolicy::Spread } else { PlacementPolicy::Pack };
        spec.queue_deadline = MINUTE * u32::try_from(entropy.range(1..=30)).unwrap_or(1);
        spec.queue_max = u32::try_from(entropy.range(0..=12)).unwrap_or(0);
        spec.keepalive_expiry = 10 * MINUTE * u32::try_from(entropy.range(1..=24)).unwrap_or(1);
        spec
    }

    /// A config as an operator might write it.
    pub(super) fn config(&mut self, pool: usize, config: usize, enabled: bool, sane: bool) -> Fact {
        let names: Vec<String> = self.sky.clouds.iter().map(|cloud| locked(cloud).name.as_str().into()).collect();
        let entropy = &mut self.operators;
        let index = usize::try_from(entropy.pick(names.len() as u64)).unwrap_or(0);
        let provider = if !sane && entropy.chance(50_000) { "nowhere" } else { names[index].as_str() };
        let max_servers = entropy.range(1..=8);
        let minimum = entropy.range(0..=max_servers.min(6));
        // Not drawn, so that tapes of the time before go on meaning what they meant.
        let priority = (max_servers + minimum) % 3;
        let mut object = json!({
            "name": self.hosts[pool].configs[config].as_str(),
            "provider": provider,
            "zone": ZONES[usize::try_from(entropy.pick(2)).unwrap_or(0)],
            "enabled": enabled,
            "reusable": entropy.chance(600_000),
            "minimum_available_sessions": minimum,
            "max_sessions_per_server": entropy.range(1..=4),
            "max_servers": max_servers,
            "priority": priority,
            "downscale_backoff": entropy.range(0..=1800),
            "boot_deadline": entropy.range(600..=1200),
            "require_checkin": entropy.chance(300_000),
        });
        self.may_join(&mut object, sane);
        let spec = object.as_object().map(ConfigSpec::from_json);
        match spec {
            Some(Ok(spec)) => Fact::ConfigSet(Box::new(spec)),
            other => unreachable!("a valid config: {other:?}"),
        }
    }

    // --- users ---

    /// How long until the next user of a pool comes: many in the morning, few at night.
    pub(super) fn next_arrival(&mut self) -> Duration {
        let hour = self.now.as_secs() / 3600 % 24;
        let mean = match hour {
            8..11 => 4,
            11..18 => 15,
            18..22 => 40,
            _ => 120,
        };
        MINUTE * u32::try_from(self.users.range(1..=mean * 2)).unwrap_or(1)
    }

    pub(super) fn user_comes(&mut self, pool: usize) {
        let count = self.hosts[pool].users.len() as u64;
        let user = usize::try_from(self.users.pick(count)).unwrap_or(0);
        if self.hosts[pool].users[user].stage == Stage::Away {
            let requests = self.hosts[pool].users[user].requests;
            let key = self.users.chance(400_000).then(|| {
                // Now and then a key is used that belongs to somebody else.
                if self.users.chance(50_000) { format!("key-0-{requests}") } else { format!("key-{user}-{requests}") }
            });
            let known = &mut self.hosts[pool].users[user];
            known.requests += 1;
            known.stage = Stage::Asking { key, tries: 0 };
            self.user_asks(pool, user);
        }
    }

    fn user_asks(&mut self, pool: usize, user: usize) {
        let known = &mut self.hosts[pool].users[user];
        let Stage::Asking { key, tries } = &mut known.stage else { return };
        *tries += 1;
        if *tries > 5 {
            known.stage = Stage::Away;
            return;
        }
        let request = SessionRequest {
            user: known.name.clone(),
            zone: known.zone.and_then(|zone| ZONES[zone].parse().ok()),
            key: key.clone(),
        };
        known.turn += 1;
        let turn = known.turn;
        let times = if self.strikes(Trouble::UserHasty) { 2 } else { 1 };
        for _ in 0..times {
            self.hosts[pool].ask(Fact::SessionRequested(request.clone()), Purpose::Request { user });
        }
        let patience = Duration::from_secs(self.users.range(10..=120));
        self.at(self.now + patience, Due::User { pool, user, turn });
    }

    /// A user was told that he has this session.
    pub(super) fn user_holds(&mut self, pool: usize, user: usize, session: SessionId) {
        let stay = MINUTE * u32::try_from(self.users.range(2..=300)).unwrap_or(2);
        let leaves_at = self.now + stay;
        let known = &mut self.hosts[pool].users[user];
        match &known.stage {
            Stage::Asking { .. } => {
                known.stage = Stage::Holding { session, leaves_at };
                known.turn += 1;
                let turn = known.turn;
                self.at(self.now + MINUTE, Due::User { pool, user, turn });
            }
            // He had gone before the answer came; what he has not taken expires by itself.
            Stage::Away | Stage::Holding { .. } => {}
        }
    }

    pub(super) fn user_acts(&mut self, pool: usize, user: usize, turn: u64) {
        let known = &mut self.hosts[pool].users[user];
        if known.turn != turn {
            return;
        }
        match known.stage.clone() {
            Stage::Away => {}
            Stage::Asking { .. } => self.user_asks(pool, user),
            Stage::Holding { session, leaves_at } => {
                let leaves = self.now >= leaves_at;
                if leaves && self.strikes(Trouble::UserVanishes) {
                    self.hosts[pool].users[user].stage = Stage::Away;
                    return;
                }
                let host = &mut self.hosts[pool];
                if leaves {
                    host.ledger.ends_asked.insert(session);
                    host.ask(Fact::SessionEnded(session), Purpose::End { user, session });
                } else {
                    host.ask(Fact::KeptAlive(session), Purpose::KeepAlive { user, session });
                }
                let expiry = host.pool.as_ref().map_or(MINUTE, |pool| pool.spec().keepalive_expiry / 3);
                let next = if host.pool.is_none() || leaves { MINUTE } else { expiry };
                let next_at =
                    if leaves { self.now + next } else { (self.now + next).min(leaves_at.max(self.now + MINUTE)) };
                host.users[user].turn += 1;
                let turn = host.users[user].turn;
                self.at(next_at, Due::User { pool, user, turn });
            }
        }
    }

    /// Everybody leaves within the hour, and nobody comes any more.
    pub(super) fn users_go_home(&mut self) {
        let now = self.now;
        for pool in 0..self.hosts.len() {
            for user in 0..self.hosts[pool].users.len() {
                let leave_at = now + MINUTE * u32::try_from(self.users.range(0..=60)).unwrap_or(0);
                if let Stage::Holding { leaves_at, .. } = &mut self.hosts[pool].users[user].stage {
                    *leaves_at = leave_at.min(*leaves_at);
                    self.hosts[pool].users[user].turn += 1;
                    let turn = self.hosts[pool].users[user].turn;
                    self.at(leave_at, Due::User { pool, user, turn });
                }
            }
        }
    }

    // --- operators ---

    pub(super) fn operator_acts(&mut self, pool: usize) {
        let trouble = self.one_of(&[
            Trouble::Edit,
            Trouble::Switch,
            Trouble::Remove,
            Trouble::Drain,
            Trouble::Delete,
            Trouble::PoolEdit,
        ]);
        if !trouble.is_some_and(|trouble| self.strikes(trouble)) {
            return;
        }
        let configs = self.hosts[pool].configs.len() as u64;
        let config = usize::try_from(self.operators.pick(configs)).unwrap_or(0);
        let fact = match trouble {
            Some(Trouble::Edit) => self.config(pool, config, true, false),
            Some(Trouble::Switch) => {
                let enabled = self.operators.chance(MILLION / 2);
                self.switched(pool, config, enabled)
            }
            Some(Trouble::Remove) => Fact::ConfigRemoved(self.hosts[pool].configs[config].clone()),
            Some(Trouble::Drain) => {
                let Some(server) = self.some_server(pool) else { return };
                if self.operators.chance(700_000) {
                    Fact::DrainAsked(server)
                } else {
                    self.hosts[pool].ledger.undrains_asked.insert(server);
                    Fact::UndrainAsked(server)
                }
            }
            Some(Trouble::Delete) => {
                let Some(server) = self.some_server(pool) else { return };
                let force = self.operators.chance(400_000);
                if force {
                    self.hosts[pool].ledger.forced.insert(server);
                }
                Fact::DeleteAsked { server, force }
            }
            _ => Fact::PoolSet(Box::new(self.pool_spec(pool))),
        };
        self.hosts[pool].ask(fact, Purpose::Other);
    }

    /// An alarm was raised: sooner or later somebody looks into it.
    pub(super) fn alarm(&mut self, pool: usize, config: ConfigName) {
        let later = Duration::from_secs(self.operators.range(60..=3600));
        self.at(self.now + later, Due::Acknowledges { pool, config });
    }

    pub(super) fn loss_is_acknowledged(&mut self, pool: usize, config: ConfigName) {
        match &self.hosts[pool].pool {
            // He comes again when the host is back.
            None => self.at(self.now + Duration::from_secs(600), Due::Acknowledges { pool, config }),
            Some(known)
                if known.report().configs.iter().any(|known| known.config == config && known.loss.is_some()) =>
            {
                self.hosts[pool].ask(Fact::LossAcknowledged(config), Purpose::Other);
            }
            Some(_) => {}
        }
    }

    /// The config as it is, switched on or off.
    fn switched(&mut self, pool: usize, config: usize, enabled: bool) -> Fact {
        let host = &self.hosts[pool];
        let known = host.pool.as_ref().and_then(|pool| pool.config(&host.configs[config])).cloned();
        match known {
            Some(spec) => Fact::ConfigSet(Box::new(ConfigSpec { enabled, ..spec })),
            None => self.config(pool, config, enabled, false),
        }
    }

    /// A server that is or once was.
    fn some_server(&mut self, pool: usize) -> Option<ServerId> {
        let servers: Vec<ServerId> =
            self.hosts[pool].pool.iter().flat_map(|pool| pool.servers()).map(|server| server.id).collect();
        if servers.is_empty() || self.operators.chance(30_000) {
            return Some(ServerId::new(self.operators.range(1..=50)));
        }
        let index = usize::try_from(self.operators.pick(servers.len() as u64)).ok()?;
        servers.get(index).copied()
    }

    /// One of these, whether it occurs in this world or not.
    fn one_of(&mut self, troubles: &[Trouble]) -> Option<Trouble> {
        let index = usize::try_from(self.operators.pick(troubles.len() as u64)).ok()?;
        troubles.get(index).copied()
    }

    // --- fate ---

    pub(super) fn fate_strikes(&mut self) {
        let trouble = self.one_of(&[
            Trouble::Outage,
            Trouble::Hang,
            Trouble::MachineDies,
            Trouble::MachineStops,
            Trouble::MarkStripped,
            Trouble::ForeignMachine,
            Trouble::UserStorm,
            Trouble::ClockBack,
        ]);
        let Some(trouble) = trouble.filter(|trouble| self.fate.chance(self.rate(*trouble))) else { return };
        let cloud = usize::try_from(self.fate.pick(self.sky.clouds.len() as u64)).unwrap_or(0);
        let until = self.now + MINUTE * u32::try_from(self.fate.range(1..=240)).unwrap_or(1);
        match trouble {
            Trouble::Outage => locked(&self.sky.clouds[cloud]).outage_until = until,
            Trouble::Hang => locked(&self.sky.clouds[cloud]).hang_until = until,
            Trouble::ForeignMachine => self.foreign_machine(cloud),
            Trouble::UserStorm => {
                self.figures.struck(trouble.as_str());
                let pool = usize::try_from(self.fate.pick(self.hosts.len() as u64)).unwrap_or(0);
                for _ in 0..self.fate.range(5..=30) {
                    self.user_comes(pool);
                }
            }
            Trouble::ClockBack => {
                self.figures.struck(trouble.as_str());
                let pool = usize::try_from(self.fate.pick(self.hosts.len() as u64)).unwrap_or(0);
                let behind = Duration::from_secs(self.fate.range(1..=600));
                // Never forward: a process does not see its clock jump.
                self.hosts[pool].behind = self.hosts[pool].behind.max(behind);
            }
            _ => self.machine_suffers(cloud, trouble),
        }
    }

    fn machine_suffers(&mut self, cloud: usize, trouble: Trouble) {
        let now = self.now;
        let mut sky = locked(&self.sky.clouds[cloud]);
        let ours: Vec<_> =
            sky.sim.live(now).filter(|machine| machine.is_ours()).map(|machine| machine.reference.clone()).collect();
        let index = usize::try_from(self.fate.pick(ours.len() as u64)).unwrap_or(0);
        let Some(machine) = ours.get(index) else { return };
        self.figures.struck(trouble.as_str());
        match trouble {
            Trouble::MachineDies => sky.sim.kill(now, machine),
            Trouble::MachineStops => sky.sim.stop(now, machine),
            _ => sky.sim.strip_marker(now, machine),
        };
        drop(sky);
        if trouble == Trouble::MarkStripped {
            for host in &mut self.hosts {
                host.ledger.put_beyond(cloud, machine);
            }
        }
    }

    /// A machine of another installation, or of ours without a mark.
    fn foreign_machine(&mut self, cloud: usize) {
        self.figures.struck(Trouble::ForeignMachine.as_str());
        let key = crate::id::ServerKey { pool: super::pool_id(0), server: ServerId::new(self.fate.range(1..=50)) };
        let marker = self.fate.chance(700_000).then(|| Marker {
            deployment: crate::id::DeploymentId::from_bytes([2; 16]),
            pool: key.pool,
            config: crate::id::ConfigId::new(1),
            server: key.uuid(),
        });
        locked(&self.sky.clouds[cloud]).sim.add_foreign(self.now, marker, "somebody-elses");
    }
}
