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

/// How many of `waiting` requests a config can serve beyond its own minimum, once it has grown by `growth` servers.
pub fn queue_share(waiting: u32, minimum: u32, free: u32, coming: u32, growth: u32, per_server: NonZeroU32) -> u32 {
    let grown = free.saturating_add(coming).saturating_add(growth.saturating_mul(per_server.get()));
    grown.saturating_sub(minimum).min(waiting)
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
