//! A planner and a placer so plain that they need no proof: one session, one server, one request at a time, without an index, a
//! tally or a formula. Written from the text of the design and of the config's fields, for pools in which nothing fails.

use std::collections::BTreeMap;
use std::time::Duration;

use kasm_autoscale_core::config::{ConfigSpec, PlacementPolicy};
use kasm_autoscale_core::id::{ConfigId, ServerId, SessionId, UserName, ZoneName};
use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::server::{DRAIN_SETTLE, DrainReason, Phase};
use kasm_autoscale_core::session::{Session, SessionState};
use kasm_autoscale_core::time::Timestamp;

#[derive(Clone, Debug)]
pub struct Desk {
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
    undoable: bool,
    /// Whether its machine is being asked for.
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

/// A config, and what its surplus has been like.
#[derive(Clone, Debug)]
pub struct Plan {
    pub id: ConfigId,
    pub spec: ConfigSpec,
    /// Since when there are servers too many, and the fewest in all that time.
    pub surplus: Option<(Timestamp, u32)>,
}

/// The picture of a pool.
#[derive(Clone, Debug)]
pub struct Picture {
    pub policy: PlacementPolicy,
    pub desks: Vec<Desk>,
    /// Those who wait, the first to come first.
    pub waiting: Vec<(SessionId, UserName, Option<ZoneName>)>,
    pub plans: Vec<Plan>,
    /// Creates that may be under way at once, per config.
    pub creates_max: u32,
}

/// What is to be done.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Doing {
    pub placed: Vec<(UserName, ServerId)>,
    pub made: BTreeMap<ConfigId, u32>,
    pub taken_back: BTreeMap<ConfigId, u32>,
    pub drained: BTreeMap<ConfigId, u32>,
}

impl Picture {
    /// What can be seen of a pool. `surplus` is what was seen of it before.
    pub fn of(pool: &Pool, surplus: &BTreeMap<ConfigId, (Timestamp, u32)>, ids: &BTreeMap<String, ConfigId>) -> Self {
        let desk = |server: &kasm_autoscale_core::server::Server| {
            let born = pool.born_with(server);
            let coming =
                matches!(server.phase, Phase::Enrolling { .. } | Phase::Creating { .. } | Phase::Starting { .. });
            Desk {
                id: server.id,
                slot: server.slot,
                config: server.config,
                zone: pool.configs().find(|spec| spec.name == born.name).map_or(born, |spec| spec).zone.clone(),
                reusable: born.reusable,
                size: born.max_sessions_per_server.get(),
                sessions: server.sessions,
                taken: server.taken,
                ready: matches!(server.phase, Phase::Ready { .. }),
                coming,
                undoable: matches!(
                    server.phase,
                    Phase::Draining { why: DrainReason::Surplus | DrainReason::Disabled | DrainReason::Removed, .. }
                ),
                making: coming && !matches!(server.phase, Phase::Starting { .. }),
            }
        };
        let waits = |session: &&Session| matches!(session.state, SessionState::Waiting { .. });
        let plan = |spec: &ConfigSpec| {
            let id = ids[spec.name.as_str()];
            Plan { id, spec: spec.clone(), surplus: surplus.get(&id).copied() }
        };
        Self {
            policy: pool.spec().placement,
            desks: pool.servers().map(desk).collect(),
            waiting: pool.sessions().filter(waits).map(|one| (one.id, one.user.clone(), one.zone.clone())).collect(),
            plans: pool.configs().map(plan).collect(),
            creates_max: 4,
        }
    }

    /// A session is over.
    pub fn end(&mut self, id: SessionId, server: Option<ServerId>) {
        self.waiting.retain(|(waiting, ..)| *waiting != id);
        let Some(desk) = self.desks.iter_mut().find(|desk| Some(desk.id) == server) else { return };
        desk.sessions -= 1;
        // One that is not reusable takes each of its slots once and goes when its last session ends.
        desk.ready &= desk.reusable || desk.sessions > 0;
    }

    /// Places those who wait, as long as there is a free session: in the user's own zone, else anywhere.
    pub fn place(&mut self, doing: &mut Doing) {
        while let Some((_, user, zone)) = self.waiting.first().cloned() {
            let score = |desk: &Desk| match self.policy {
                PlacementPolicy::Spread => (desk.used(), desk.slot),
                PlacementPolicy::Pack => (desk.free(), desk.slot),
            };
            let best = |near: bool| {
                let fits = |desk: &&Desk| desk.free() > 0 && (!near || Some(&desk.zone) == zone.as_ref());
                self.desks.iter().filter(fits).min_by_key(|desk| score(desk)).map(|desk| desk.id)
            };
            let Some(id) = best(true).or_else(|| best(false)) else { return };
            self.waiting.remove(0);
            for desk in self.desks.iter_mut().filter(|desk| desk.id == id) {
                (desk.sessions, desk.taken) = (desk.sessions + 1, desk.taken + 1);
            }
            doing.placed.push((user, id));
        }
    }

    fn of_config(&self, id: ConfigId) -> impl Iterator<Item = &Desk> {
        self.desks.iter().filter(move |desk| desk.config == id)
    }

    fn free(&self, id: ConfigId) -> u32 {
        self.of_config(id).map(Desk::free).sum()
    }

    fn coming(&self, id: ConfigId) -> u32 {
        self.of_config(id).filter(|desk| desk.coming).map(|desk| desk.size).sum()
    }

    /// For how many of those who wait each config is to have sessions. What is coming anyway is shared out before anybody grows, one's
    /// own zone comes before others, the lowest priority before higher ones; zones take turns.
    fn shares(&self) -> BTreeMap<ConfigId, u32> {
        let mut shares: BTreeMap<ConfigId, u32> = BTreeMap::new();
        let mut order: Vec<&Plan> = self.plans.iter().filter(|plan| plan.spec.enabled).collect();
        order.sort_by_key(|plan| (plan.spec.priority, plan.id));
        let mut left: Vec<&Option<ZoneName>> = self.waiting.iter().map(|(.., zone)| zone).collect();
        left.sort();
        for (grows, near) in [(false, true), (false, false), (true, true), (true, false)] {
            left.retain(|zone| {
                let is_near = |plan: &&&Plan| zone.as_ref().is_none_or(|zone| plan.spec.zone == *zone);
                for plan in order.iter().filter(|plan| is_near(plan) == near) {
                    let servers = u32::try_from(self.of_config(plan.id).count()).unwrap();
                    let room = if grows { plan.spec.max_servers.saturating_sub(servers) } else { 0 };
                    let most =
                        self.free(plan.id) + self.coming(plan.id) + room * plan.spec.max_sessions_per_server.get();
                    let share = shares.entry(plan.id).or_default();
                    if plan.spec.minimum_available_sessions + *share < most {
                        *share += 1;
                        return false;
                    }
                }
                true
            });
        }
        for zone in left {
            let far = |plan: &&&Plan| zone.as_ref().is_some_and(|zone| plan.spec.zone != *zone);
            if let Some(first) = order.iter().min_by_key(|plan| (far(plan), plan.spec.priority, plan.id)) {
                *shares.entry(first.id).or_default() += 1;
            }
        }
        shares
    }

    /// What each config does, one server at a time.
    pub fn plan(&mut self, now: Timestamp, doing: &mut Doing) {
        let shares = self.shares();
        for plan in self.plans.clone().into_iter().filter(|plan| plan.spec.enabled) {
            let (id, spec) = (plan.id, &plan.spec);
            let target = spec.minimum_available_sessions + shares.get(&id).copied().unwrap_or(0);
            if self.free(id) + self.coming(id) >= target {
                self.shrink(&plan, target, now, doing);
                continue;
            }
            // Draining servers are taken back before new ones are made.
            while self.free(id) + self.coming(id) < target {
                let Some(desk) = self.desks.iter_mut().find(|desk| desk.config == id && desk.undoable) else { break };
                (desk.undoable, desk.ready) = (false, true);
                *doing.taken_back.entry(id).or_default() += 1;
            }
            let (mut supply, mut servers) = (self.free(id) + self.coming(id), self.of_config(id).count());
            let mut making = self.of_config(id).filter(|desk| desk.making).count();
            while supply < target && servers < spec.max_servers as usize && making < self.creates_max as usize {
                supply += spec.max_sessions_per_server.get();
                (servers, making) = (servers + 1, making + 1);
                *doing.made.entry(id).or_default() += 1;
            }
        }
    }

    /// Unused servers whose sessions all lie above the target are too many; as many as were too many all the time go, when that has
    /// lasted for the downscale backoff.
    fn shrink(&mut self, plan: &Plan, target: u32, now: Timestamp, doing: &mut Doing) {
        let too_many = self.too_many(plan, target);
        let Some((since, least)) = plan.surplus.filter(|_| too_many > 0) else { return };
        if now < since + plan.spec.downscale_backoff {
            return;
        }
        let mut needless = self.free(plan.id) - target;
        let mut unused: Vec<&mut Desk> =
            self.desks.iter_mut().filter(|desk| desk.config == plan.id && desk.ready && desk.used() == 0).collect();
        unused.sort_by_key(|desk| std::cmp::Reverse(desk.slot));
        for desk in unused {
            let drained = doing.drained.entry(plan.id).or_default();
            if *drained < least.min(too_many) && desk.size <= needless {
                (desk.ready, needless, *drained) = (false, needless - desk.size, *drained + 1);
            }
        }
    }

    /// How many whole servers too many there are: counted by the smallest of those that are unused.
    pub fn too_many(&self, plan: &Plan, target: u32) -> u32 {
        let unused = || self.of_config(plan.id).filter(|desk| desk.ready && desk.used() == 0);
        let size = unused().map(|desk| desk.size).min().unwrap_or(plan.spec.max_sessions_per_server.get());
        let mut count = 0;
        while count < u32::try_from(unused().count()).unwrap() && target + (count + 1) * size <= self.free(plan.id) {
            count += 1;
        }
        count
    }
}

/// Whether time alone would change something in this pool until then, beside what surplus does: deadlines, ends of sessions.
pub fn something_is_due(pool: &Pool, now: Timestamp) -> bool {
    let of_server = pool.servers().any(|server| match &server.phase {
        Phase::Enrolling { deadline, .. } | Phase::Creating { deadline, .. } | Phase::Starting { deadline, .. } => {
            *deadline <= now
        }
        Phase::Draining { since, why } => {
            let settled = if why.is_undoable() { DRAIN_SETTLE } else { Duration::from_millis(1) };
            server.sessions == 0 && *since + settled <= now
        }
        _ => false,
    });
    let of_session = pool.sessions().any(|session| match session.state {
        SessionState::Waiting { deadline } => deadline <= now,
        SessionState::Active { expires_at, .. } => expires_at <= now,
        SessionState::Ended { .. } => false,
    });
    of_server || of_session
}
