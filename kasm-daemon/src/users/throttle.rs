//! How often somebody may try to log in: failures are counted for each address and for each user.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use kasm_autoscale_core::time::Timestamp;

use crate::auth::sha256;

/// How many addresses and users are kept in mind at once. Beyond that, those whose time is over first are forgotten.
const KEPT_MAX: usize = 100_000;

/// How many failures within what time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ThrottleRules {
    /// Failures of one user name, wherever they come from. Fewer than the domain's own lockout threshold.
    pub per_user: u32,
    /// Failures from one address.
    pub per_address: u32,
    /// How long failures count, from the first one on.
    pub window: Duration,
}

impl Default for ThrottleRules {
    fn default() -> Self {
        Self { per_user: 5, per_address: 50, window: Duration::from_secs(900) }
    }
}

#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum Key {
    Address(IpAddr),
    /// Only the hash, so that a long name takes no more room, and what was typed as a name is not kept.
    User([u8; 32]),
}

/// One try to log in, counted as a failure until it is [forgiven](Throttle::forgive).
pub(super) struct Try([Option<Key>; 2]);

struct Window {
    failures: u32,
    until: Timestamp,
}

/// The failures of late.
pub(super) struct Throttle {
    rules: ThrottleRules,
    kept: BTreeMap<Key, Window>,
}

impl Throttle {
    pub(super) fn new(rules: ThrottleRules) -> Self {
        Self { rules, kept: BTreeMap::new() }
    }

    /// Counts a try before it is made, so that many at once are no more than one after the other.
    ///
    /// # Errors
    /// How long to wait, when there were too many.
    pub(super) fn attempt(&mut self, now: Timestamp, address: Option<IpAddr>, user: &str) -> Result<Try, Duration> {
        let keys =
            [address.map(|address| Key::Address(network(address))), Some(Key::User(sha256(&user.to_lowercase())))];
        let wait = keys.iter().flatten().filter_map(|key| self.wait(now, *key)).max();
        if let Some(wait) = wait {
            return Err(wait);
        }
        self.make_room(now);
        for key in keys.iter().flatten() {
            let fresh = Window { failures: 0, until: now + self.rules.window };
            let window = self.kept.entry(*key).or_insert(fresh);
            if window.until <= now {
                *window = Window { failures: 0, until: now + self.rules.window };
            }
            window.failures += 1;
        }
        Ok(Try(keys))
    }

    /// The try was a login, or it was not the user's fault that it was none.
    pub(super) fn forgive(&mut self, tried: Try) {
        for key in tried.0.into_iter().flatten() {
            if let Some(window) = self.kept.get_mut(&key) {
                window.failures = window.failures.saturating_sub(1);
            }
        }
    }

    fn wait(&self, now: Timestamp, key: Key) -> Option<Duration> {
        let most = match key {
            Key::Address(_) => self.rules.per_address,
            Key::User(_) => self.rules.per_user,
        };
        let window = self.kept.get(&key).filter(|window| window.until > now && window.failures >= most)?;
        Some(window.until.since(now))
    }

    fn make_room(&mut self, now: Timestamp) {
        if self.kept.len() + 2 <= KEPT_MAX {
            return;
        }
        self.kept.retain(|_, window| window.until > now);
        if self.kept.len() + 2 > KEPT_MAX {
            let mut ends: Vec<Timestamp> = self.kept.values().map(|window| window.until).collect();
            // A tenth of them, so that this is rare.
            let (_, limit, _) = ends.select_nth_unstable(KEPT_MAX / 10);
            let limit = *limit;
            self.kept.retain(|_, window| window.until > limit);
        }
    }
}

/// A host of IPv6 has 2^64 addresses, so its network is what counts.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    fn rules() -> ThrottleRules {
        ThrottleRules { per_user: 2, per_address: 3, window: Duration::from_secs(100) }
    }

    fn from(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([127, 0, 0, last]))
    }

    #[test]
    fn a_user_and_an_address_have_so_many_failures_and_no_more() {
        let mut throttle = Throttle::new(rules());
        assert!(throttle.attempt(at(0), from(1), "ann").is_ok());
        assert!(throttle.attempt(at(10), from(2), "ANN").is_ok(), "the same user");
        assert_eq!(throttle.attempt(at(20), from(3), "Ann").err(), Some(Duration::from_secs(80)));
        // Other users from one of the addresses.
        assert!(throttle.attempt(at(30), from(1), "bob").is_ok());
        assert!(throttle.attempt(at(30), from(1), "cid").is_ok());
        assert_eq!(throttle.attempt(at(40), from(1), "dan").err(), Some(Duration::from_secs(60)));
        assert!(throttle.attempt(at(40), from(9), "dan").is_ok());
        // When the time is over, all of it is over.
        assert!(throttle.attempt(at(100), from(1), "ann").is_ok());
    }

    #[test]
    fn what_is_forgiven_does_not_count() {
        let mut throttle = Throttle::new(rules());
        for second in 0..10 {
            let tried = throttle.attempt(at(second), from(1), "ann").unwrap_or_else(|_| panic!("{second}"));
            throttle.forgive(tried);
        }
        // Many at once are counted while they last.
        let (one, _two) = (throttle.attempt(at(20), from(1), "ann"), throttle.attempt(at(20), from(1), "ann"));
        assert!(throttle.attempt(at(20), from(1), "ann").is_err());
        throttle.forgive(one.unwrap_or_else(|_| panic!("the first one")));
        assert!(throttle.attempt(at(20), from(1), "ann").is_ok());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        let six = |text: &str| network(text.parse().unwrap());
        assert_eq!(six("2001:db8::1"), six("2001:db8::ffff:1"));
        assert_ne!(six("2001:db8::1"), six("2001:db8:0:1::1"));
        assert_eq!(six("::ffff:127.0.0.1"), IpAddr::from([127, 0, 0, 1]));
    }

    #[test]
    fn what_is_kept_in_mind_is_bounded() {
        let mut throttle = Throttle::new(rules());
        for user in 0..KEPT_MAX + 10 {
            let seconds = u64::try_from(user / 2000).unwrap_or_default();
            drop(throttle.attempt(at(seconds), None, &user.to_string()));
        }
        assert!(throttle.kept.len() <= KEPT_MAX);
        assert!(throttle.kept.len() > KEPT_MAX / 2);
    }
}
