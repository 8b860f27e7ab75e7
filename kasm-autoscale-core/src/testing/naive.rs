//! A planner and a placer so plain that they need no proof: one session, one server, one request at a time, without an index, a
//! tally or a formula. Written from the text of the design, of the config's fields and of the module `fallback`; they agree with
//! the fast ones, or one of the two is wrong.
//!
//! [`judge`] asks of any pool, whatever has gone wrong in it, what it would do next if some people came and went now.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::time::Duration;

use crate::config::{ConfigSpec, PlacementPolicy};
use crate::id::{ConfigId, ServerId, SessionId, UserName, ZoneName};
use crate::input::{Fact, Input};
use crate::pool::Pool;
use crate::ports::{DirectoryErrorKind, ErrorKind};
use crate::report::{BackoffKind, What};
use crate::row::{MassLoss, Outputs};
use crate::server::{CreateCall, DRAIN_SETTLE, Phase, PhaseKind, Server};
use crate::session::{Session, SessionRequest, SessionState};
use crate::state::{Config, State};
use crate::time::Timestamp;

/// A server, as far as sessions and caps are concerned.
#[derive(Clone, Debug)]
pub struct Desk {
    /// Its number.
    pub id: ServerId,
    slot: u32,
    config: ConfigId,
    zone: ZoneName,
    reusable: bool,
    size: u32,
    sessions: u32,
    taken: u32,
    ready: bool,
    coming: bool,
    /// Whether nobody can vouch for its coming.
    doubtful: bool,
    undoable: bool,
    /// Whether its computer object is being asked for.
    enrolling: bool,
    /// Whether its machine is being asked for, or its object before that.
    making: bool,
}

impl Desk {
    fn used(&self) -> u32 {
        if self.reusable { self.sessions } else { self.taken }
    }

    fn free(&self) -> u32 {
        if self.ready { self.size - self.used() } else { 0 }
    }
}

/// A config, what its surplus has been like, and what it fails at.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its number.
    pub id: ConfigId,
    /// Its edition in force.
    pub spec: ConfigSpec,
    /// Whether it is to have servers.
    pub on: bool,
    /// Since when there are servers too many, and the fewest in all that time.
    pub surplus: Option<(Timestamp, u32)>,
    /// The failure it backs off from the longest: what, until when, and how many in a row.
    failing: Option<(BackoffKind, Timestamp, u32)>,
    /// Whether it cannot make anything at all, for another reason than that.
    blocked: bool,
    /// Whether nothing of it is given up, whatever there is too much.
    held: bool,
    /// Machines with its mark that no row knows, which count against its cap.
    strays: u32,
    /// Creates that may be under way at once.
    creates_max: u32,
    /// Numbers that still give a name of its pattern.
    names: u64,
}

/// The picture of a pool at one moment.
#[derive(Clone, Debug)]
pub struct Picture {
    now: Timestamp,
    policy: PlacementPolicy,
    queue_max: u32,
    desks: Vec<Desk>,
    /// Those who wait, the first to come first.
    pub waiting: Vec<(SessionId, UserName, Option<ZoneName>)>,
    /// Who sits where.
    seats: BTreeMap<SessionId, ServerId>,
    /// All configs.
    pub plans: Vec<Plan>,
    /// How many sessions each config keeps for each other one so far: who keeps them, and for whom.
    covers: Kept,
}

/// Who keeps how many sessions for whom.
type Kept = BTreeMap<(ConfigId, ConfigId), u32>;

/// What is to be done.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Doing {
    /// Who is placed where, in this order.
    pub placed: Vec<(UserName, ServerId)>,
    /// Servers that are made, per config.
    pub made: BTreeMap<ConfigId, u32>,
    /// Drains that are taken back.
    pub taken_back: BTreeMap<ConfigId, u32>,
    /// Servers that are drained because they are too many.
    pub drained: BTreeMap<ConfigId, u32>,
    /// How many sessions each config that is on wants free.
    pub targets: BTreeMap<ConfigId, u32>,
    /// Who keeps sessions for whom: by, for, and how many.
    pub covers: BTreeMap<(ConfigId, ConfigId), u32>,
    /// Configs that back off, and what they would make otherwise.
    pub backing_off: BTreeMap<ConfigId, u32>,
}

/// So many tries in a row must be throttled or fail in between before others step in.
const PASSING: u32 = 3;

impl Plan {
    fn of(state: &State, config: &Config, now: Timestamp) -> Self {
        let spec = (**config.spec()).clone();
        let memory = &config.memory;
        let provider = state.providers.get(&spec.provider);
        let capabilities = provider.and_then(|known| known.capabilities.as_ref());
        let join = spec.domain_join.as_ref();
        let directory = join.and_then(|join| state.directories.get(&join.directory)).and_then(|it| it.facts.as_ref());
        // What was refused long ago and never tried again says nothing any more.
        let create = memory.create.as_ref().filter(|(_, backoff)| now < backoff.until + Duration::from_secs(3600));
        let failures = [
            create.map(|(kind, backoff)| (BackoffKind::Provider(*kind), backoff)),
            memory
                .directory
                .as_ref()
                .filter(|_| join.is_some())
                .map(|(kind, backoff)| (BackoffKind::Directory(*kind), backoff)),
            memory.boot.as_ref().map(|backoff| (BackoffKind::Boot, backoff)),
        ];
        let failures = failures.into_iter().flatten().map(|(kind, known)| (kind, known.until, known.failures));
        let names = spec.server_name_pattern.last_serial().saturating_add(1).saturating_sub(state.row.next_server);
        let strays = state.providers.values().flat_map(|known| known.orphans.values());
        let strays = strays.filter(|stray| stray.config == config.id).count();
        Self {
            id: config.id,
            on: spec.enabled && !config.removed,
            surplus: memory.surplus.map(|known| (known.since, known.least)),
            failing: failures.max_by_key(|(_, until, _)| *until),
            blocked: memory.freeze.is_some()
                || capabilities.is_none()
                || join.is_some() && directory.is_none()
                || names == 0,
            held: memory.freeze.is_some()
                || memory.loss.as_ref().is_some_and(MassLoss::holds)
                || !provider.is_some_and(|known| known.observed),
            strays: u32::try_from(strays).unwrap_or(u32::MAX),
            creates_max: capabilities.map_or(0, |known| known.creates_in_flight_max),
            names,
            spec,
        }
    }

    fn size(&self) -> u32 {
        self.spec.max_sessions_per_server.get()
    }

    fn backs_off(&self, now: Timestamp) -> bool {
        self.failing.is_some_and(|(_, until, _)| now < until)
    }

    /// Whether what it fails at has lasted, or is of a kind that does not pass by itself.
    fn fails_in_earnest(&self) -> bool {
        let Some((kind, _, failures)) = self.failing else { return false };
        let passes = match kind {
            BackoffKind::Provider(kind) => {
                [ErrorKind::Throttled, ErrorKind::Conflict, ErrorKind::Transient].contains(&kind)
            }
            BackoffKind::Directory(kind) => {
                [DirectoryErrorKind::NameTaken, DirectoryErrorKind::Throttled, DirectoryErrorKind::Transient]
                    .contains(&kind)
            }
            BackoffKind::Boot => false,
        };
        !passes || failures >= PASSING
    }
}

fn desk(state: &State, server: &Server) -> Desk {
    let born = state.born_with(server);
    let coming = matches!(server.phase, Phase::Enrolling { .. } | Phase::Creating { .. } | Phase::Starting { .. });
    Desk {
        id: server.id,
        slot: server.slot,
        config: server.config,
        zone: state.configs[&server.config].spec().zone.clone(),
        reusable: born.reusable,
        size: born.max_sessions_per_server.get(),
        sessions: server.sessions,
        taken: server.taken,
        ready: matches!(server.phase, Phase::Ready { .. }),
        coming,
        doubtful: match &server.phase {
            Phase::Enrolling { tries, .. } => *tries > 1,
            Phase::Creating { call: CreateCall::Unsure { tries, .. }, .. } => *tries > 0,
            _ => false,
        },
        undoable: matches!(server.phase, Phase::Draining { why, .. } if why.is_undoable()),
        enrolling: matches!(server.phase, Phase::Enrolling { .. }),
        making: coming && !matches!(server.phase, Phase::Starting { .. }),
    }
}

impl Picture {
    /// What can be seen of a pool, at an instant until which nothing else happens: its rows, and what its providers and
    /// directories have said of themselves.
    pub fn of(pool: &Pool, now: Timestamp) -> Self {
        let state = pool.state();
        let waits = |session: &&Session| matches!(session.state, SessionState::Waiting { .. });
        let waiting = state.sessions.values().filter(waits);
        Self {
            now,
            policy: state.row.spec.placement,
            queue_max: state.row.spec.queue_max,
            desks: state.servers.values().map(|server| desk(state, server)).collect(),
            waiting: waiting.map(|one| (one.id, one.user.clone(), one.zone.clone())).collect(),
            seats: state.sessions.values().filter_map(|one| Some((one.id, one.server()?))).collect(),
            plans: state.configs.values().map(|config| Plan::of(state, config, now)).collect(),
            covers: state.covers.clone(),
        }
    }

    /// A session is over.
    fn end(&mut self, id: SessionId) {
        self.waiting.retain(|(waiting, ..)| *waiting != id);
        let server = self.seats.remove(&id);
        let Some(desk) = self.desks.iter_mut().find(|desk| Some(desk.id) == server) else { return };
        desk.sessions -= 1;
        // One that is not reusable takes each of its slots once and goes when its last session ends.
        desk.ready &= desk.reusable || desk.sessions > 0;
    }

    /// Where one who comes from this zone is placed: in his own zone, else anywhere.
    fn best(&self, zone: Option<&ZoneName>) -> Option<ServerId> {
        let score = |desk: &&Desk| match self.policy {
            PlacementPolicy::Spread => (desk.used(), desk.slot),
            PlacementPolicy::Pack => (desk.free(), desk.slot),
        };
        let best = |near: bool| {
            let fits = |desk: &&Desk| desk.free() > 0 && (!near || Some(&desk.zone) == zone);
            self.desks.iter().filter(fits).min_by_key(score).map(|desk| desk.id)
        };
        best(true).or_else(|| best(false))
    }

    /// Places those who wait, as long as there is a free session.
    fn place(&mut self, doing: &mut Doing) {
        while let Some((session, user, zone)) = self.waiting.first().cloned() {
            let Some(id) = self.best(zone.as_ref()) else { return };
            self.waiting.remove(0);
            self.seats.insert(session, id);
            for desk in self.desks.iter_mut().filter(|desk| desk.id == id) {
                (desk.sessions, desk.taken) = (desk.sessions + 1, desk.taken + 1);
            }
            doing.placed.push((user, id));
        }
    }

    fn of_config(&self, id: ConfigId) -> impl Iterator<Item = &Desk> {
        self.desks.iter().filter(move |desk| desk.config == id)
    }

    fn count(&self, id: ConfigId, which: impl Fn(&Desk) -> bool) -> u32 {
        u32::try_from(self.of_config(id).filter(|desk| which(desk)).count()).unwrap_or(u32::MAX)
    }

    fn free(&self, id: ConfigId) -> u32 {
        self.of_config(id).map(Desk::free).sum()
    }

    fn coming(&self, id: ConfigId) -> u32 {
        self.of_config(id).filter(|desk| desk.coming).map(|desk| desk.size).sum()
    }

    /// What others may count on.
    fn firm(&self, id: ConfigId) -> u32 {
        self.free(id)
            + self.of_config(id).filter(|desk| desk.coming && !desk.doubtful).map(|desk| desk.size).sum::<u32>()
    }

    /// How many servers the cap leaves room for. It counts whatever is not proved gone.
    fn room(&self, plan: &Plan) -> u32 {
        plan.spec.max_servers.saturating_sub(self.count(plan.id, |_| true) + plan.strays)
    }

    /// How many sessions a config could take back.
    fn undoable(&self, id: ConfigId) -> u32 {
        let draining = self.of_config(id).filter(|desk| desk.undoable);
        draining.map(|desk| desk.size.saturating_sub(desk.used())).sum()
    }

    /// How many servers a config makes now if it wants them: none while it cannot, one at a time as long as it fails.
    fn tries(&self, plan: &Plan) -> u32 {
        let Some((kind, ..)) = plan.failing.filter(|_| !plan.blocked) else {
            return if plan.blocked { 0 } else { self.room(plan) };
        };
        let tried = self.count(plan.id, |desk| match kind {
            BackoffKind::Directory(_) => desk.enrolling,
            BackoffKind::Provider(_) => desk.making,
            BackoffKind::Boot => desk.coming,
        });
        let one = u32::from(tried == 0 && !plan.backs_off(self.now));
        one.min(self.room(plan))
    }

    /// Whether others are to step in for a config.
    fn is_for_others(&self, plan: &Plan) -> bool {
        let fails = plan.blocked || plan.fails_in_earnest();
        fails || self.count(plan.id, |desk| desk.coming && desk.doubtful) > 0
    }

    fn on(&self) -> impl Iterator<Item = &Plan> {
        self.plans.iter().filter(|plan| plan.on)
    }

    /// The configs that are on: those of this zone first, then by priority, the oldest first.
    fn nearest(&self, zone: Option<&ZoneName>) -> Vec<(bool, &Plan)> {
        let far = |plan: &Plan| zone.is_some_and(|zone| plan.spec.zone != *zone);
        let mut order: Vec<(bool, &Plan)> = self.on().map(|plan| (far(plan), plan)).collect();
        order.sort_by_key(|(far, plan)| (*far, plan.spec.priority, plan.id));
        order
    }

    /// For how many of those who wait each config is to have sessions. What is coming anyway or can be taken back is shared out
    /// before anybody grows, one's own zone comes before others, the lowest priority before higher ones; zones take turns. Whoever
    /// has servers in doubt grows last: it would wait for these instead.
    fn shares(&self) -> BTreeMap<ConfigId, u32> {
        let mut shares: BTreeMap<ConfigId, u32> = BTreeMap::new();
        let mut left: Vec<Option<&ZoneName>> = self.waiting.iter().map(|(.., zone)| zone.as_ref()).collect();
        left.sort();
        let growths = [0, 0, 1, 1, 2, 2];
        for (growth, is_far) in growths.into_iter().zip([false, true].into_iter().cycle()) {
            left.retain(|zone| {
                for (_, plan) in self.nearest(*zone).into_iter().filter(|(far, _)| *far == is_far) {
                    let in_doubt = self.of_config(plan.id).any(|desk| desk.coming && desk.doubtful);
                    let made = if growth > i32::from(in_doubt) { self.tries(plan) } else { 0 };
                    let share = shares.entry(plan.id).or_default();
                    let has = self.firm(plan.id) + made * plan.size();
                    let beyond = has.saturating_sub(plan.spec.minimum_available_sessions);
                    if *share < self.undoable(plan.id) + beyond {
                        *share += 1;
                        return false;
                    }
                }
                true
            });
        }
        // Those whom nobody can serve now count for the first config.
        for zone in left {
            if let Some((_, first)) = self.nearest(zone).first() {
                *shares.entry(first.id).or_default() += 1;
            }
        }
        shares
    }

    /// How many sessions of its minimum a config leaves to others: those it would have if it did not fail, and has not.
    fn left_to_others(&self, plan: &Plan) -> u32 {
        if !self.is_for_others(plan) {
            return 0;
        }
        let minimum = plan.spec.minimum_available_sessions;
        let mut has = self.firm(plan.id);
        for desk in self.of_config(plan.id).filter(|desk| desk.undoable) {
            if has < minimum {
                has += desk.size.saturating_sub(desk.used());
            }
        }
        let with = |servers: u32| (0..servers).fold(has, |has, _| has.saturating_add(plan.size()).min(1 << 30));
        let (would, will) = (with(self.room(plan)).min(minimum), with(self.tries(plan)));
        would.saturating_sub(will)
    }

    /// Whether a config can spare one more session, besides its minimum and `kept` others: of what it has, of what is over of the
    /// servers it makes for itself, and, if it grows for that, of what it can take back and of all that it may make.
    fn has_to_spare(&self, plan: &Plan, kept: u32, grows: bool) -> bool {
        let wanted = plan.spec.minimum_available_sessions + kept;
        let mut has = self.firm(plan.id) + if grows { self.undoable(plan.id) } else { 0 };
        for _ in 0..self.tries(plan) {
            if grows || has < wanted {
                has += plan.size();
            }
        }
        has > wanted
    }

    /// Who covers what for whom, one session at a time: first who covers already, then those of the same zone, then all others;
    /// what is over before what has to be made.
    fn covered(&self, shares: &BTreeMap<ConfigId, u32>) -> Kept {
        let mut covers = Kept::new();
        let kept = |covers: &Kept, by: ConfigId| {
            let for_others: u32 = covers.iter().filter(|((keeps, _), _)| *keeps == by).map(|(_, count)| *count).sum();
            shares.get(&by).copied().unwrap_or(0) + for_others
        };
        let mut left: Vec<(&Plan, u32)> =
            self.nearest(None).into_iter().map(|(_, plan)| (plan, self.left_to_others(plan))).collect();
        for (failing, rest) in &mut left {
            for plan in self.on() {
                let before = self.covers.get(&(plan.id, failing.id)).copied().unwrap_or(0);
                for _ in 0..before {
                    if *rest > 0 && self.has_to_spare(plan, kept(&covers, plan.id), false) {
                        *covers.entry((plan.id, failing.id)).or_default() += 1;
                        *rest -= 1;
                    }
                }
            }
        }
        for (grows, is_far) in [(false, false), (false, true), (true, false), (true, true)] {
            for (failing, rest) in &mut left {
                let others = self.nearest(Some(&failing.spec.zone)).into_iter();
                for (_, plan) in others.filter(|(far, plan)| *far == is_far && plan.id != failing.id) {
                    while *rest > 0 && self.has_to_spare(plan, kept(&covers, plan.id), grows) {
                        *covers.entry((plan.id, failing.id)).or_default() += 1;
                        *rest -= 1;
                    }
                }
            }
        }
        covers
    }

    /// What was covered goes on being kept, as far as it is there, until the sessions that take its place are ready.
    fn still_kept(&self, shares: &BTreeMap<ConfigId, u32>, covers: &Kept) -> Kept {
        let mut kept = covers.clone();
        for ((by, of), before) in &self.covers {
            let find = |id: &ConfigId| self.on().find(|plan| plan.id == *id);
            let (Some(keeper), Some(failing)) = (find(by), find(of)) else { continue };
            let sum = |kept: &Kept, which: &dyn Fn(&(ConfigId, ConfigId)) -> bool| -> u32 {
                kept.iter().filter(|(key, _)| which(key)).map(|(_, count)| *count).sum()
            };
            let (minimum, free) = (failing.spec.minimum_available_sessions, self.free(*of));
            let mut awaited = minimum.saturating_sub(free);
            if !self.is_for_others(failing) {
                // It waits for no more than will come.
                awaited = awaited.min(self.firm(*of) - free + self.tries(failing).saturating_mul(failing.size()));
            }
            let there = self.free(*by) + self.coming(*by);
            let own = keeper.spec.minimum_available_sessions + shares.get(by).copied().unwrap_or(0);
            while kept.get(&(*by, *of)).copied().unwrap_or(0) < *before
                && own + sum(&kept, &|(keeps, _)| keeps == by) < there
                && sum(&kept, &|(_, kept_for)| kept_for == of) < awaited
            {
                *kept.entry((*by, *of)).or_default() += 1;
            }
        }
        kept
    }

    /// What each config does, one server at a time.
    fn plan(&mut self, doing: &mut Doing) {
        let shares = self.shares();
        let covers = self.covered(&shares);
        let kept = self.still_kept(&shares, &covers);
        for plan in self.plans.clone().into_iter().filter(|plan| plan.on) {
            let id = plan.id;
            let own = plan.spec.minimum_available_sessions + shares.get(&id).copied().unwrap_or(0);
            let for_others =
                |kept: &Kept| -> u32 { kept.iter().filter(|((by, _), _)| *by == id).map(|(_, count)| *count).sum() };
            // Nothing is made for what is only still kept.
            let there = self.free(id) + self.coming(id);
            let target = (own + for_others(&covers)).max(there.min(own + for_others(&kept)));
            doing.targets.insert(id, target);
            if there >= target {
                self.shrink(&plan, target, doing);
            } else {
                self.grow(&plan, target, doing);
            }
        }
        doing.covers = kept.clone();
        self.covers = kept;
    }

    /// Draining servers are taken back before new ones are made.
    fn grow(&mut self, plan: &Plan, target: u32, doing: &mut Doing) {
        let id = plan.id;
        while self.free(id) + self.coming(id) < target {
            let Some(desk) = self.desks.iter_mut().find(|desk| desk.config == id && desk.undoable) else { break };
            (desk.undoable, desk.ready) = (false, true);
            *doing.taken_back.entry(id).or_default() += 1;
        }
        let mut supply = self.free(id) + self.coming(id);
        let (mut may, mut making, mut names) = (self.tries(plan), self.count(id, |desk| desk.making), plan.names);
        if supply < target && plan.backs_off(self.now) {
            doing.backing_off.insert(id, target - supply);
        }
        while supply < target && may > 0 && making < plan.creates_max && names > 0 {
            supply += plan.size();
            (may, making, names) = (may - 1, making + 1, names - 1);
            *doing.made.entry(id).or_default() += 1;
        }
    }

    /// Unused servers whose sessions all lie above the target are too many; as many as were too many all the time go, when that has
    /// lasted for the downscale backoff.
    fn shrink(&mut self, plan: &Plan, target: u32, doing: &mut Doing) {
        let too_many = self.too_many(plan, target);
        let (since, least) = plan.surplus.unwrap_or((self.now, too_many));
        if too_many == 0 || plan.held || self.now < since + plan.spec.downscale_backoff {
            return;
        }
        let mut needless = self.free(plan.id) - target;
        let mut unused: Vec<&mut Desk> =
            self.desks.iter_mut().filter(|desk| desk.config == plan.id && desk.ready && desk.used() == 0).collect();
        unused.sort_by_key(|desk| Reverse(desk.slot));
        let mut drained = 0;
        for desk in unused {
            if drained < least.min(too_many) && desk.size <= needless {
                (desk.ready, needless, drained) = (false, needless - desk.size, drained + 1);
            }
        }
        if drained > 0 {
            doing.drained.insert(plan.id, drained);
        }
    }

    /// How many whole servers too many there are: counted by the smallest of those that are unused.
    pub fn too_many(&self, plan: &Plan, target: u32) -> u32 {
        let unused = || self.of_config(plan.id).filter(|desk| desk.ready && desk.used() == 0);
        let size = unused().map(|desk| desk.size).min().unwrap_or(plan.size());
        let mut count = 0;
        while count < self.count(plan.id, |desk| desk.ready && desk.used() == 0)
            && target + (count + 1) * size <= self.free(plan.id)
        {
            count += 1;
        }
        count
    }
}

/// Whether a step at `now` is one that can be foretold from the picture: nothing is due until then but what surplus, back-offs
/// and listings do. Deadlines, ends of sessions and calls that are given up are.
pub fn something_is_due(pool: &Pool, now: Timestamp) -> bool {
    let of_server = pool.servers().any(|server| {
        let gives_up = server.busy.is_some_and(|busy| busy.until <= now);
        let in_time = match &server.phase {
            Phase::Enrolling { deadline, .. } | Phase::Creating { deadline, .. } | Phase::Starting { deadline, .. } => {
                *deadline <= now
            }
            Phase::Draining { since, why } => {
                let settled = if why.is_undoable() { DRAIN_SETTLE } else { Duration::from_millis(1) };
                server.sessions == 0 && *since + settled <= now
            }
            _ => false,
        };
        gives_up || in_time
    });
    let of_session = pool.sessions().any(|session| match session.state {
        SessionState::Waiting { deadline } => deadline <= now,
        SessionState::Active { expires_at, .. } => expires_at <= now,
        SessionState::Ended { .. } => false,
    });
    of_server || of_session
}

/// What is to be done in a step that is told of nothing but people who come and go. Requests have no keys.
pub fn foretold(pool: &Pool, mut picture: Picture, facts: &[Fact]) -> Doing {
    let mut doing = Doing::default();
    let mut open: BTreeMap<UserName, SessionId> =
        pool.sessions().filter(|session| session.is_open()).map(|session| (session.user.clone(), session.id)).collect();
    let mut next = pool.sessions().map(|session| session.id.serial()).max().unwrap_or(0) + 1;
    for fact in facts {
        match fact {
            Fact::SessionRequested(request) if !open.contains_key(&request.user) && picture.on().next().is_some() => {
                picture.place(&mut doing);
                let is_full = u32::try_from(picture.waiting.len()).is_ok_and(|waiting| waiting >= picture.queue_max);
                if is_full && picture.best(request.zone.as_ref()).is_none() {
                    continue;
                }
                // Numbers go up with those who come, so that they sort as they came.
                let id = SessionId::new(next);
                next += 1;
                open.insert(request.user.clone(), id);
                picture.waiting.push((id, request.user.clone(), request.zone.clone()));
                picture.place(&mut doing);
            }
            Fact::SessionEnded(id) if open.values().any(|known| known == id) => {
                picture.end(*id);
                open.retain(|_, known| known != id);
            }
            _ => {}
        }
    }
    picture.place(&mut doing);
    picture.plan(&mut doing);
    picture.place(&mut doing);
    doing
}

/// What a pool did in the step these outputs are of, put in the same words. What it would have made if it did not back off is
/// taken over from what was `foretold`, for a pool does not say.
pub fn done(pool: &Pool, outputs: &Outputs, foretold: &Doing) -> Doing {
    let state = pool.state();
    let on = state.configs.values().filter(|config| config.is_on());
    let mut doing = Doing {
        targets: on.map(|config| (config.id, config.target)).collect(),
        covers: state.covers.clone(),
        backing_off: foretold.backing_off.clone(),
        ..Doing::default()
    };
    for event in &outputs.events {
        match &event.what {
            What::SessionPlaced { user, server, .. } => doing.placed.push((user.clone(), *server)),
            What::Server { config, phase, why, .. } => {
                let counts = match (phase, why.as_deref()) {
                    (PhaseKind::Enrolling | PhaseKind::Creating, None) => &mut doing.made,
                    (PhaseKind::Ready, Some("needed again")) => &mut doing.taken_back,
                    (PhaseKind::Draining, Some("surplus")) => &mut doing.drained,
                    _ => continue,
                };
                if let Some(id) = state.config_named(config) {
                    *counts.entry(id).or_default() += 1;
                }
            }
            _ => {}
        }
    }
    doing
}

/// What would be done, by both, if some people came and went at the pool's own present or some time after it: drawn from `seed`.
/// `None` if nothing can be foretold, because something is due.
///
/// # Errors
/// If the two disagree: both, and what they were told.
pub fn judge(pool: &Pool, seed: u64) -> Result<Option<Doing>, String> {
    let mut digits = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut below = |bound: u64| {
        digits = (digits ^ (digits >> 29)).wrapping_mul(0x2545_f491_4f6c_dd1d);
        (digits >> 32) % bound.max(1)
    };
    let state = pool.state();
    let later = [0, 0, 40, 400, 2500][usize::try_from(below(5)).unwrap_or(0)];
    let now = [state.now + Duration::from_secs(later), state.now].into_iter().find(|now| !something_is_due(pool, *now));
    let Some(now) = now else { return Ok(None) };
    let zones: Vec<Option<ZoneName>> =
        state.configs.values().map(|config| Some(config.spec().zone.clone())).chain([None]).collect();
    let mut open: Vec<SessionId> =
        pool.sessions().filter(|session| session.is_open()).map(|session| session.id).collect();
    let mut facts = Vec::new();
    for guest in 0..below(6) {
        let at = usize::try_from(below(open.len() as u64)).unwrap_or(0);
        if at < open.len() && below(2) == 0 {
            facts.push(Fact::SessionEnded(open.swap_remove(at)));
            continue;
        }
        let zone = usize::try_from(below(zones.len() as u64)).ok().and_then(|at| zones[at].clone());
        let Ok(user) = format!("guest-{guest}").parse() else { continue };
        facts.push(Fact::SessionRequested(SessionRequest { user, zone, key: None }));
    }
    let picture = Picture::of(pool, now);
    let foretold = foretold(pool, picture.clone(), &facts);
    let mut twin = pool.clone();
    let outputs = twin.step(now, facts.iter().cloned().map(Input::from)).saved();
    let done = done(&twin, &outputs, &foretold);
    if done == foretold {
        return Ok(Some(done));
    }
    let told: Vec<String> = outputs.events.iter().map(|event| event.what.to_string()).collect();
    Err(format!(
        "told {facts:?} at {now}, the text wants\n{foretold:?}, and the pool does\n{done:?}: {told:#?}\n{picture:#?}"
    ))
}
