//! How many servers: integer arithmetic without state. Each function is one line of the policy; the plan puts them together.

use core::num::NonZeroU32;

use crate::report::Waiting;

/// How many sessions are missing to reach the target.
pub fn short(target: u32, free: u32, coming: u32) -> u32 {
    target.saturating_sub(free.saturating_add(coming))
}

/// How many servers it takes to bring so many sessions. Never more than one server's sessions too many.
pub fn servers_for(sessions: u32, per_server: NonZeroU32) -> u32 {
    sessions.div_ceil(per_server.get())
}

/// How many whole servers there are too many: unused ones whose sessions all lie above the target. What is only coming does
/// not count: it may yet fail, and nobody gives up a session that is there for one that is promised.
pub fn surplus_servers(target: u32, free: u32, per_server: NonZeroU32, unused: u32) -> u32 {
    (free.saturating_sub(target) / per_server).min(unused)
}

/// How many of `waiting` requests a config can serve beside the `taken` ones it has already: with the sessions it can take back,
/// which are theirs at once, and with what it has beyond its own minimum, once it has grown by `growth` servers. `draining` is
/// how many sessions it can take back, `sessions` how many are free or surely coming; only `growth` counts servers.
pub fn queue_share(
    waiting: u32,
    taken: u32,
    minimum: u32,
    draining: u32,
    sessions: u32,
    growth: u32,
    per_server: NonZeroU32,
) -> u32 {
    let grown = sessions.saturating_add(growth.saturating_mul(per_server.get()));
    draining.saturating_add(grown.saturating_sub(minimum)).saturating_sub(taken).min(waiting)
}

/// How many sessions of its minimum a config that fails leaves to others. `room` is how many servers it could make if it did
/// not fail, `tries` how many it makes all the same. What it could not keep anyway, because of its cap, is nobody's to cover.
pub fn left_to_others(minimum: u32, sessions: u32, room: u32, tries: u32, per_server: NonZeroU32) -> u32 {
    let grown = |servers: u32| sessions.saturating_add(servers.saturating_mul(per_server.get()));
    minimum.min(grown(room)).saturating_sub(grown(tries.min(room)))
}

/// How many sessions a config can spare beyond the `wanted` ones of its own. The servers it makes for itself bring whole
/// servers' worth of sessions, and what is over of them is spare; with `may_grow` so is all that its `room` allows.
pub fn spare(wanted: u32, sessions: u32, room: u32, may_grow: bool, per_server: NonZeroU32) -> u32 {
    let own = servers_for(short(wanted, sessions, 0), per_server).min(room);
    let servers = if may_grow { room } else { own };
    sessions.saturating_add(servers.saturating_mul(per_server.get())).saturating_sub(wanted)
}

/// How many machines may be missing from one listing before nobody believes it, where this is more than [`LOSS_PERCENT`].
pub const LOSS_SERVERS: u32 = 3;
/// How many of a hundred machines may be missing from one listing before nobody believes it.
pub const LOSS_PERCENT: u32 = 30;

/// Whether a listing that misses so many `of` the machines it should show is to be doubted: more than [`LOSS_SERVERS`] and
/// more than [`LOSS_PERCENT`] at once. Machines die one by one; a listing that shows a different account, region or cache
/// misses them together.
pub fn is_implausible_loss(missing: u32, of: u32) -> bool {
    missing > LOSS_SERVERS && u64::from(missing) * 100 > u64::from(of) * u64::from(LOSS_PERCENT)
}

/// What limits the making of servers, at one moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Servers that are not proved gone.
    pub live: u32,
    /// How many there may be.
    pub max_servers: u32,
    /// Creates under way.
    pub creating: u32,
    /// How many may be.
    pub creating_max: u32,
    /// After failures: how many servers are being tried, and what to say when that is the limit.
    pub trying: Option<(u32, Waiting)>,
    /// A reason to make none at all.
    pub stop: Option<Waiting>,
}

/// How many of the `wanted` servers may be made now, and what stands in the way of the others: the tightest limit.
pub fn allowed(wanted: u32, limits: &Limits) -> (u32, Option<Waiting>) {
    if let Some(stop) = &limits.stop {
        return (0, Some(stop.clone()));
    }
    let cap = Waiting::CapReached { live: limits.live, max: limits.max_servers };
    let in_flight = Waiting::InFlightFull { creating: limits.creating, max: limits.creating_max };
    let mut bounds = alloc::vec![
        (limits.max_servers.saturating_sub(limits.live), cap),
        (limits.creating_max.saturating_sub(limits.creating), in_flight),
    ];
    if let Some((tried, why)) = &limits.trying {
        bounds.push((1_u32.saturating_sub(*tried), why.clone()));
    }
    let tightest = bounds.into_iter().min_by_key(|(room, _)| *room);
    match tightest {
        Some((room, why)) if room < wanted => (room, Some(why)),
        _ => (wanted, None),
    }
}
