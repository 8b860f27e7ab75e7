//! Recounts what is otherwise only kept in step: every tally, index and timer, and the invariants they stand for.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::ConfigId;
use crate::server::{Phase, Server, UnenrollCall};
use crate::session::SessionState;
use crate::state::{Config, Edition, State, Timer};

/// Something that does not add up. Always a bug in this crate.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Violation {
    /// The invariant, by its number where it has one: `I-01 sessions within max`.
    pub invariant: String,
    /// What was found.
    pub found: String,
    /// The config whose servers or numbers do not add up; `None`: it concerns the whole pool.
    #[serde(default)]
    pub config: Option<ConfigId>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.found)
    }
}

/// Violations, as they are found.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) all: Vec<Violation>,
    /// Whose they are.
    pub(crate) config: Option<ConfigId>,
}

impl Findings {
    pub(crate) fn expect(&mut self, holds: bool, invariant: &str, found: impl FnOnce() -> String) {
        if !holds {
            self.all.push(Violation { invariant: invariant.into(), found: found(), config: self.config });
        }
    }
}

impl State {
    pub(crate) fn violations(&self) -> Vec<Violation> {
        let mut findings = Findings::default();
        self.check_servers(&mut findings);
        self.check_sessions(&mut findings);
        self.check_configs(&mut findings);
        self.check_timers(&mut findings);
        findings.all
    }

    fn check_servers(&self, findings: &mut Findings) {
        for server in self.servers.values() {
            let id = server.id;
            findings.config = Some(server.config);
            let spec = self.born_with(server);
            let max = spec.max_sessions_per_server.get();
            findings.expect(server.sessions <= max, "I-01 sessions within max", || {
                format!("{id} has {} of {max}", server.sessions)
            });
            let over = !spec.reusable && server.taken > max;
            findings.expect(!over, "I-02 a slot that is not reusable is taken once", || {
                format!("{id} was taken {} times of {max}", server.taken)
            });
            let may_serve = matches!(server.phase, Phase::Ready { .. } | Phase::Draining { .. });
            findings.expect(may_serve || server.sessions == 0, "I-03 and I-14 sessions only where they can be", || {
                format!("{id} {} has {}", server.phase.kind(), server.sessions)
            });
            let counted = self.sessions_on(id).len();
            findings.expect(usize::try_from(server.sessions) == Ok(counted), "sessions counted", || {
                format!("{id} says {}, {counted} are there", server.sessions)
            });
            let in_slot = self.server_in_slot.get(server.slot as usize).copied().flatten();
            findings.expect(in_slot == Some(id) && self.slots.contains(server.slot), "slot known", || {
                format!("{id} in slot {}: {in_slot:?}", server.slot)
            });
            self.check_computer(server, findings);
            let serial_used = id.serial() < self.row.next_server;
            findings.expect(serial_used, "numbers are never used twice", || {
                format!("{id}, next is {}", self.row.next_server)
            });
        }
        findings.config = None;
        let occupied = self.server_in_slot.iter().flatten().count();
        findings.expect(occupied == self.servers.len(), "slots counted", || {
            format!("{occupied} for {} servers", self.servers.len())
        });
    }

    /// I-21: where a machine may be that joins a domain, there is its computer object; and no object without its server.
    fn check_computer(&self, server: &Server, findings: &mut Findings) {
        let joins = self.born_with(server).domain_join.is_some();
        let known = server.computer.is_some();
        let holds = match &server.phase {
            Phase::Enrolling { .. } => joins && !known && server.machine.is_none(),
            Phase::Unenrolling { call, .. } => joins && (known || matches!(call, UnenrollCall::Locate { .. })),
            _ => joins == known,
        };
        findings.expect(holds, "I-21 one computer object for each server that joins", || {
            format!("{} {}: joins {joins}, object {:?}", server.id, server.phase.kind(), server.computer)
        });
    }

    fn check_sessions(&self, findings: &mut Findings) {
        let mut queue = BTreeSet::new();
        let mut on_server = BTreeSet::new();
        let mut by_zone: BTreeMap<_, u32> = BTreeMap::new();
        let mut by_user = BTreeMap::new();
        for session in self.sessions.values() {
            match session.state {
                SessionState::Waiting { .. } => {
                    queue.insert(session.id);
                    *by_zone.entry(session.zone.clone()).or_default() += 1;
                }
                SessionState::Active { server, .. } => {
                    on_server.insert((server, session.id));
                }
                SessionState::Ended { .. } => continue,
            }
            let twice = by_user.insert(session.user.clone(), session.id);
            findings.expect(twice.is_none(), "I-02 one open session a user", || {
                format!("{} and {twice:?} of {}", session.id, session.user)
            });
        }
        findings.expect(queue == self.queue, "queue kept", || format!("{:?}, recounted {queue:?}", self.queue));
        findings.expect(by_zone == self.waiting_by_zone, "waiting by zone kept", || {
            format!("{:?}, recounted {by_zone:?}", self.waiting_by_zone)
        });
        findings.expect(on_server == self.on_server, "sessions by server kept", || {
            format!("{} kept, {} recounted", self.on_server.len(), on_server.len())
        });
        findings.expect(by_user == self.open_by_user, "sessions by user kept", || {
            format!("{} kept, {} recounted", self.open_by_user.len(), by_user.len())
        });
        findings.expect(usize::try_from(self.active) == Ok(on_server.len()), "active counted", || {
            format!("{} kept, {} recounted", self.active, on_server.len())
        });
        let stranded = self.queue.first().filter(|id| self.best_server(self.sessions[id].zone.as_ref()).is_some());
        findings.expect(stranded.is_none(), "I-04 nobody waits beside a free session", || format!("{stranded:?}"));
    }

    fn check_configs(&self, findings: &mut Findings) {
        for config in self.configs.values() {
            findings.config = Some(config.id);
            let mut fresh = self.recounted(config);
            let name = &config.spec().name;
            findings.expect(fresh.tally == config.tally, "tally kept", || {
                format!("{name}: {:?}, recounted {:?}", config.tally, fresh.tally)
            });
            findings.expect(fresh.index.same_as(&config.index), "placement index kept", || format!("{name}"));
            findings.expect(fresh.undoable == config.undoable, "undoable drains kept", || format!("{name}"));
            for (generation, edition) in &config.editions {
                let counted = fresh.editions.remove(generation).map_or(0, |edition| edition.servers);
                findings.expect(counted == edition.servers, "editions counted", || {
                    format!("{name} edition {generation}: {} kept, {counted} recounted", edition.servers)
                });
                findings.expect(
                    counted > 0 || *generation == config.current,
                    "editions without servers forgotten",
                    || format!("{name} edition {generation}"),
                );
            }
        }
        let of = |id: ConfigId| {
            self.providers
                .values()
                .flat_map(|provider| provider.orphans.values())
                .filter(|orphan| orphan.config == id)
                .count()
        };
        for config in self.configs.values() {
            findings.config = Some(config.id);
            let counted = of(config.id);
            findings.expect(usize::try_from(config.orphans) == Ok(counted), "orphans counted", || {
                format!("{}: {} kept, {counted} recounted", config.id, config.orphans)
            });
        }
        findings.config = None;
    }

    /// The config as it would be if its servers were added anew.
    fn recounted(&self, config: &Config) -> Config {
        let mut fresh = Config::new(config.id);
        fresh.current = config.current;
        fresh.editions = config
            .editions
            .iter()
            .map(|(generation, edition)| (*generation, Edition { spec: edition.spec.clone(), servers: 0 }))
            .collect();
        for server in self.servers.values().filter(|server| server.config == config.id) {
            fresh.recount(server);
            if let Some(edition) = fresh.editions.get_mut(&server.generation) {
                edition.servers += 1;
            }
        }
        fresh
    }

    fn check_timers(&self, findings: &mut Findings) {
        let servers = self.servers.values().filter_map(|server| server.due().map(|at| (at, Timer::Server(server.id))));
        let sessions = self.sessions.values().map(|session| (session.due(), Timer::Session(session.id)));
        let fresh: BTreeSet<_> = servers.chain(sessions).collect();
        findings.expect(fresh == self.timers, "timers kept", || {
            format!("{} kept, {} recounted", self.timers.len(), fresh.len())
        });
        for server in self.servers.values() {
            findings.config = Some(server.config);
            let waits_for_nothing =
                server.due().is_none() && !matches!(server.phase, Phase::Ready { .. } | Phase::Draining { .. });
            findings.expect(!waits_for_nothing, "I-25 a next step for every server", || {
                format!("{} {}", server.id, server.phase.kind())
            });
        }
    }
}
