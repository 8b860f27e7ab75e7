//! Fallback: which config makes what another one promises and cannot make.
//!
//! A config that fails (no capacity, quota, denied, breaker open, provider or directory missing) leaves to others what it is
//! short of its minimum. The next ones take it over in the same plan: those of its own zone first, and among them the lowest
//! `priority`; what they have over goes before what they would have to make. When it makes servers again it has its promise back, and the
//! others let go of what they covered as its sessions become ready, which makes them a surplus like any other.
//!
//! A cap is no failure: a config that has all the servers it may have leaves nothing to others. Nor is a call that was refused
//! in passing: throttling and faults in between count once they have lasted for [`PASSING`] tries, and creates without an
//! answer once their look-ups fail as well.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::capacity::{left_to_others, short, spare};
use crate::id::{ConfigId, ZoneName};
use crate::ports::{DirectoryErrorKind, ErrorKind};
use crate::report::{BackoffKind, Fallback, Waiting};
use crate::state::{Config, State};

/// So many tries in a row must be throttled or fail in between before others step in.
const PASSING: u32 = 3;

/// What each config is to keep besides its minimum, for the queue and for others.
pub(crate) struct Shares {
    /// For those who wait.
    pub(crate) queue: BTreeMap<ConfigId, u32>,
    /// For other configs: who keeps, for whom, how many are to be there or made.
    pub(crate) covers: BTreeMap<(ConfigId, ConfigId), u32>,
    /// Whether there are sessions missing that nobody can make now.
    pub(crate) uncovered: bool,
}

impl Shares {
    /// What a config keeps besides its minimum.
    pub(crate) fn of(&self, id: ConfigId) -> u32 {
        let covered = self.covers.iter().filter(|((by, _), _)| *by == id).map(|(_, sessions)| *sessions);
        covered.fold(self.queue.get(&id).copied().unwrap_or(0), u32::saturating_add)
    }
}

/// Whether it is a fault in between that has not lasted yet.
fn is_passing(kind: BackoffKind, failures: u32) -> bool {
    let in_between = match kind {
        BackoffKind::Provider(kind) => {
            matches!(kind, ErrorKind::Throttled | ErrorKind::Conflict | ErrorKind::Transient)
        }
        BackoffKind::Directory(kind) => matches!(
            kind,
            DirectoryErrorKind::NameTaken | DirectoryErrorKind::Throttled | DirectoryErrorKind::Transient
        ),
        BackoffKind::Boot => false,
    };
    in_between && failures < PASSING
}

impl State {
    /// The configs that are on, those of this zone first, then by priority; each with whether it is of another zone.
    pub(crate) fn by_nearness(&self, zone: Option<&ZoneName>) -> Vec<(bool, ConfigId)> {
        let far = |config: &Config| zone.is_some_and(|zone| config.spec().zone != *zone);
        let on = self.configs.values().filter(|config| config.is_on());
        let priority = |config: &Config| if planted!("priority-ignored") { 0 } else { config.spec().priority };
        let mut order: Vec<_> = on.map(|config| (far(config), priority(config), config.id)).collect();
        order.sort_unstable();
        order.into_iter().map(|(far, _, id)| (far, id)).collect()
    }

    /// Who covers what for whom, once those who wait have their shares.
    pub(crate) fn shared_out(&self, queue: BTreeMap<ConfigId, u32>) -> Shares {
        let mut shares = Shares { queue, covers: BTreeMap::new(), uncovered: false };
        let order = self.by_nearness(None).into_iter();
        let mut left: Vec<(ConfigId, u32)> =
            order.map(|(_, id)| (id, self.left_to_others(id))).filter(|(_, rest)| *rest > 0).collect();
        // Who covers already goes on, or else a session would be somebody else's to keep with every plan.
        for (failing, rest) in &mut left {
            for ((by, _), sessions) in self.covers.iter().filter(|((by, of), _)| of == failing && self.is_on(*by)) {
                let sessions = self.spare_of(*by, &shares, false).min(*sessions).min(*rest);
                if sessions > 0 {
                    shares.covers.insert((*by, *failing), sessions);
                    *rest -= sessions;
                }
            }
        }
        for (may_grow, far) in [(false, false), (false, true), (true, false), (true, true)] {
            for (failing, rest) in &mut left {
                let zone = self.configs[failing].spec().zone.clone();
                for (_, id) in self.by_nearness(Some(&zone)).into_iter().filter(|(is_far, _)| *is_far == far) {
                    let sessions = if id == *failing { 0 } else { self.spare_of(id, &shares, may_grow).min(*rest) };
                    if sessions > 0 {
                        *shares.covers.entry((id, *failing)).or_default() += sessions;
                        *rest -= sessions;
                    }
                }
            }
        }
        shares.uncovered = left.iter().any(|(_, rest)| *rest > 0);
        shares
    }

    /// How many sessions of its minimum a config leaves to others, because it fails.
    fn left_to_others(&self, id: ConfigId) -> u32 {
        let config = &self.configs[&id];
        if !self.fails_for_others(config) {
            return 0;
        }
        let spec = config.spec();
        let (room, tries) = self.growth(config);
        let sessions = self.sessions_of(config, spec.minimum_available_sessions);
        left_to_others(spec.minimum_available_sessions, sessions, room, tries, spec.max_sessions_per_server)
    }

    /// Whether others are to step in for a config.
    fn fails_for_others(&self, config: &Config) -> bool {
        let limits = self.limits(config);
        let stopped = match &limits.stop {
            Some(Waiting::BackingOff { kind, failures, .. }) => !is_passing(*kind, *failures),
            Some(_) => true,
            None => self.failing(config).is_some_and(|(kind, _, failures)| !is_passing(kind, failures)),
        };
        stopped || config.tally.doubtful > 0
    }

    /// How many servers a config could make by its cap, and how many it makes while it fails.
    fn growth(&self, config: &Config) -> (u32, u32) {
        let limits = self.limits(config);
        let room = limits.max_servers.saturating_sub(limits.live);
        let tries = match (&limits.stop, &limits.trying) {
            (Some(_), _) => 0,
            (None, Some((tried, _))) => 1_u32.saturating_sub(*tried),
            (None, None) => room,
        };
        (room, tries.min(room))
    }

    /// The sessions that a config has free, coming, or draining so that it can take them back, as far as they are `wanted`.
    pub(crate) fn sessions_of(&self, config: &Config, wanted: u32) -> u32 {
        let mut sessions = config.tally.firm();
        for server in config.undoable.iter().filter_map(|id| self.servers.get(id)) {
            if sessions >= wanted {
                break;
            }
            let spec = self.born_with(server);
            let used = server.used(spec.reusable);
            sessions = sessions.saturating_add(spec.max_sessions_per_server.get().saturating_sub(used));
        }
        sessions
    }

    fn is_on(&self, id: ConfigId) -> bool {
        self.configs.get(&id).is_some_and(Config::is_on)
    }

    /// What a config can spare beyond its minimum and its shares so far. Where it may grow it takes back first what drains, as it
    /// will when it has to make these sessions.
    fn spare_of(&self, id: ConfigId, shares: &Shares, may_grow: bool) -> u32 {
        let config = &self.configs[&id];
        let spec = config.spec();
        let wanted = spec.minimum_available_sessions.saturating_add(shares.of(id));
        let (_, growth) = self.growth(config);
        let sessions = if may_grow { self.sessions_of(config, u32::MAX) } else { config.tally.firm() };
        spare(wanted, sessions, growth, may_grow, spec.max_sessions_per_server)
    }

    /// What is covered goes on being kept until the sessions that take its place are ready, and not only coming: who keeps,
    /// for whom, how many are not to be given up. Nobody keeps what he has not got, and nothing is made for it.
    pub(crate) fn keep_covering(&mut self, shares: &Shares) {
        let mut covers = shares.covers.clone();
        let mut kept_by: BTreeMap<ConfigId, u32> = BTreeMap::new();
        let mut kept_for: BTreeMap<ConfigId, u32> = BTreeMap::new();
        for ((_, of), sessions) in &shares.covers {
            *kept_for.entry(*of).or_default() += *sessions;
        }
        for ((by, of), sessions) in core::mem::take(&mut self.covers) {
            let (true, true) = (self.is_on(by), self.is_on(of)) else { continue };
            let (keeper, config) = (&self.configs[&by], &self.configs[&of]);
            let wanted = keeper.spec().minimum_available_sessions.saturating_add(shares.of(by));
            let kept = kept_by.entry(by).or_default();
            let over =
                keeper.tally.free.saturating_add(keeper.tally.coming).saturating_sub(wanted.saturating_add(*kept));
            let kept_for = kept_for.entry(of).or_default();
            let still = self.awaited(config).saturating_sub(*kept_for);
            let now = covers.get(&(by, of)).copied().unwrap_or(0);
            let more = sessions.saturating_sub(now).min(over).min(still);
            *kept += more;
            *kept_for += more;
            if more > 0 {
                covers.insert((by, of), now + more);
            }
        }
        self.covers = covers;
    }

    /// How many sessions of its minimum a config has yet to get ready.
    fn awaited(&self, config: &Config) -> u32 {
        let spec = config.spec();
        let missing = short(spec.minimum_available_sessions, config.tally.free, 0);
        if self.fails_for_others(config) {
            // One that only tries may fail again.
            return missing;
        }
        let (_, growth) = self.growth(config);
        let made = growth.saturating_mul(spec.max_sessions_per_server.get());
        missing.min(config.tally.firm().saturating_sub(config.tally.free).saturating_add(made))
    }

    /// How many sessions a config does not give up because of others.
    pub(crate) fn kept_for_others(&self, id: ConfigId) -> u32 {
        self.covers.iter().filter(|((by, _), _)| *by == id).map(|(_, sessions)| *sessions).fold(0, u32::saturating_add)
    }

    /// For whom a config keeps sessions, and who keeps some for it.
    pub(crate) fn fallback_of(&self, id: ConfigId) -> Vec<Fallback> {
        let name = |id: &ConfigId| self.configs[id].spec().name.clone();
        let told = |((by, of), sessions): (&(ConfigId, ConfigId), &u32)| match (*by == id, *of == id) {
            (true, _) => Some(Fallback::CoveringFor { config: name(of), sessions: *sessions }),
            (_, true) => Some(Fallback::CoveredBy { config: name(by), sessions: *sessions }),
            _ => None,
        };
        self.covers.iter().filter_map(told).collect()
    }
}
