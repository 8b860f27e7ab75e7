//! Recounts what is otherwise only kept in step: every tally, index and timer, and the invariants they stand for.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::ConfigId;
use crate::server::{Phase, Server, UnenrollCall};
use crate::session::SessionState;
use crate::state::{Recount, State, Timer};

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
        let (mut queued, mut active, mut open) = (0, 0, 0);
        let mut by_zone: BTreeMap<_, u32> = BTreeMap::new();
        for session in self.sessions.values() {
            let kept = match session.state {
                SessionState::Waiting { .. } => {
                    queued += 1;
                    *by_zone.entry(&session.zone).or_default() += 1;
                    self.queue.contains(&session.id)
                }
                SessionState::Active { server, .. } => {
                    active += 1;
                    self.on_server.contains(&(server, session.id))
                }
                SessionState::Ended { .. } => continue,
            };
            findings.expect(kept, "sessions by state kept", || format!("{} {:?}", session.id, session.state));
            open += 1;
            // Each has its own entry, and there are as many: so no user has two.
            let of_user = self.open_by_user.get(&session.user);
            findings.expect(of_user == Some(&session.id), "I-02 one open session a user", || {
                format!("{} and {of_user:?} of {}", session.id, session.user)
            });
        }
        findings.expect(queued == self.queue.len(), "queue kept", || format!("{:?}, recounted {queued}", self.queue));
        findings.expect(
            by_zone.iter().map(|(zone, count)| (*zone, count)).eq(&self.waiting_by_zone),
            "waiting by zone kept",
            || format!("{:?}, recounted {by_zone:?}", self.waiting_by_zone),
        );
        findings.expect(active == self.on_server.len(), "sessions by server kept", || {
            format!("{} kept, {active} recounted", self.on_server.len())
        });
        findings.expect(open == self.open_by_user.len(), "sessions by user kept", || {
            format!("{} kept, {open} recounted", self.open_by_user.len())
        });
        findings.expect(usize::try_from(self.active) == Ok(active), "active counted", || {
            format!("{} kept, {active} recounted", self.active)
        });
        let stranded = self.queue.first().filter(|id| self.best_server(self.sessions[id].zone.as_ref()).is_some());
        findings.expect(stranded.is_none(), "I-04 nobody waits beside a free session", || format!("{stranded:?}"));
    }

    fn check_configs(&self, findings: &mut Findings) {
        let mut recounts: BTreeMap<ConfigId, Recount> = BTreeMap::new();
        for server in self.servers.values() {
            let recount = recounts.entry(server.config).or_default();
            self.configs[&server.config].recount(server, recount);
            *recount.editions.entry(server.generation).or_default() += 1;
        }
        for config in self.configs.values() {
            findings.config = Some(config.id);
            let fresh = recounts.remove(&config.id).unwrap_or_default();
            let name = &config.spec().name;
            findings.expect(fresh.tally == config.tally, "tally kept", || {
                format!("{name}: {:?}, recounted {:?}", config.tally, fresh.tally)
            });
            findings.expect(!fresh.amiss && fresh.placeable == config.index.len(), "placement index kept", || {
                format!("{name}: {} kept, {} recounted", config.index.len(), fresh.placeable)
            });
            findings.expect(!fresh.amiss && fresh.undoable == config.undoable.len(), "undoable drains kept", || {
                format!("{name}: {:?}, {} recounted", config.undoable, fresh.undoable)
            });
            for (generation, edition) in &config.editions {
                let counted = fresh.editions.get(generation).copied().unwrap_or(0);
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

    fn check_timers(&self, findings: &mut Findings) {
        let servers = self.servers.values().filter_map(|server| server.due().map(|at| (at, Timer::Server(server.id))));
        let sessions = self.sessions.values().map(|session| (session.due(), Timer::Session(session.id)));
        let mut timers = 0;
        for timer in servers.chain(sessions) {
            timers += 1;
            findings.expect(self.timers.contains(&timer), "timers kept", || format!("{timer:?} is missing"));
        }
        findings.expect(timers == self.timers.len(), "timers kept", || {
            format!("{} kept, {timers} recounted", self.timers.len())
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
