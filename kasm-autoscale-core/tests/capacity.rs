//! The arithmetic of capacity against definitions so plain that they need no proof.

use std::num::NonZeroU32;

use kasm_autoscale_core::capacity::{Limits, allowed, queue_share, servers_for, short, surplus_servers};
use kasm_autoscale_core::report::{BackoffKind, Waiting};
use proptest::prelude::*;

fn per_server() -> impl Strategy<Value = NonZeroU32> {
    (1..=40_u32).prop_map(|n| NonZeroU32::new(n).unwrap())
}

proptest! {
    #[test]
    fn short_is_what_one_would_count_on_fingers(target in 0..500_u32, free in 0..500_u32, coming in 0..500_u32) {
        let mut sessions = free + coming;
        let mut missing = 0;
        while sessions < target {
            sessions += 1;
            missing += 1;
        }
        prop_assert_eq!(short(target, free, coming), missing);
    }

    #[test]
    fn i_10_overshoot_is_less_than_one_server(sessions in 0..5000_u32, per in per_server()) {
        let mut servers = 0;
        while servers * per.get() < sessions {
            servers += 1;
        }
        prop_assert_eq!(servers_for(sessions, per), servers);
        prop_assert!(servers * per.get() - sessions < per.get());
    }

    #[test]
    fn i_19_a_surplus_given_up_leaves_the_target(
        target in 0..300_u32, free in 0..600_u32, per in per_server(), unused in 0..50_u32,
    ) {
        let mut given_up = 0;
        while given_up < unused && free >= target + (given_up + 1) * per.get() {
            given_up += 1;
        }
        prop_assert_eq!(surplus_servers(target, free, per, unused), given_up);
        prop_assert!(given_up == 0 || free - given_up * per.get() >= target);
    }

    #[test]
    fn a_share_of_the_queue_is_what_can_be_taken_back_and_what_room_there_is_beyond_the_minimum(
        waiting in 0..200_u32, taken in 0..50_u32, minimum in 0..200_u32, draining in 0..50_u32, sessions in 0..400_u32,
        growth in 0..20_u32, per in per_server(),
    ) {
        let capacity = sessions + growth * per.get();
        // One after the other: what drains is anybody's who waits, then what the minimum leaves.
        let mut share = 0;
        while share < waiting && (taken + share < draining || minimum + taken + share < capacity + draining.min(taken + share)) {
            share += 1;
        }
        prop_assert_eq!(queue_share(waiting, taken, minimum, draining, sessions, growth, per), share);
    }

    #[test]
    fn i_09_no_more_is_allowed_than_every_limit_leaves(
        wanted in 0..60_u32, live in 0..60_u32, max_servers in 0..60_u32, creating in 0..60_u32, creating_max in 0..60_u32,
        tried in proptest::option::of(0..3_u32),
    ) {
        let kind = BackoffKind::Boot;
        let trying = tried.map(|tried| (tried, Waiting::Trying { kind, failures: 1 }));
        let limits = Limits { live, max_servers, creating, creating_max, trying, stop: None };
        let holds = |made: u32| {
            let fits = live + made <= max_servers && creating + made <= creating_max;
            made == 0 || (fits && tried.is_none_or(|tried| tried + made <= 1))
        };
        let most = (0..=wanted).rev().find(|made| holds(*made)).unwrap();
        let (made, held_back) = allowed(wanted, &limits);
        prop_assert_eq!(made, most);
        // A reason is given exactly when something is held back, and it is one that holds it back.
        prop_assert_eq!(held_back.is_some(), made < wanted);
        match held_back {
            Some(Waiting::CapReached { live: l, max }) => prop_assert!(l + made >= max && (l, max) == (live, max_servers)),
            Some(Waiting::InFlightFull { creating: c, max }) => prop_assert!(c + made >= max && (c, max) == (creating, creating_max)),
            Some(Waiting::Trying { .. }) => prop_assert!(tried.unwrap() + made >= 1),
            Some(other) => prop_assert!(false, "{other:?}"),
            None => {}
        }
    }

    #[test]
    fn a_reason_to_stop_stops_everything(wanted in 0..60_u32, max_servers in 0..60_u32) {
        let stop = Waiting::ProviderMissing { provider: "aws".parse().unwrap() };
        let limits = Limits { live: 0, max_servers, creating: 0, creating_max: 50, trying: None, stop: Some(stop.clone()) };
        prop_assert_eq!(allowed(wanted, &limits), (0, Some(stop)));
    }
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let (max, one) = (u32::MAX, NonZeroU32::MIN);
    let most = NonZeroU32::MAX;
    assert_eq!(short(max, max, max), 0);
    assert_eq!(short(max, 0, 0), max);
    assert_eq!(servers_for(max, one), max);
    assert_eq!(surplus_servers(0, max, one, max), max);
    assert_eq!(queue_share(max, 0, 0, max, max, max, most), max);
    let limits = Limits {
        live: max,
        max_servers: 0,
        creating: max,
        creating_max: 0,
        trying: Some((max, Waiting::CapReached { live: 0, max: 0 })),
        stop: None,
    };
    assert_eq!(allowed(max, &limits).0, 0);
}
