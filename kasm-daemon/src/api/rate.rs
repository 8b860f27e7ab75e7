//! How often somebody may call: token buckets, one for each caller, bounded in number.

use std::collections::BTreeMap;
use std::time::Duration;

use kasm_autoscale_core::time::Timestamp;

/// How many callers are kept in mind at once. Beyond that, those who have called least of late are forgotten: they may call as
/// often as one who has not called yet.
const KEPT_MAX: usize = 100_000;

/// How often somebody may call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// One request in so long a time, for as long as one likes. Zero counts as a nanosecond.
    pub every: Duration,
    /// So many at once after a pause. 0 counts as 1.
    pub burst: u32,
}

impl Rate {
    /// So many requests a second, and so many at once. 0 counts as 1.
    pub const fn per_second(count: u32, burst: u32) -> Self {
        let every = Duration::from_nanos(1_000_000_000 / if count == 0 { 1 } else { count as u64 });
        Self { every, burst }
    }

    const fn interval(self) -> u128 {
        if self.every.is_zero() { 1 } else { self.every.as_nanos() }
    }

    const fn full(self) -> u128 {
        self.interval() * if self.burst == 0 { 1 } else { self.burst as u128 }
    }
}

/// The buckets of all callers of one kind.
///
/// Of each bucket only the instant is kept at which it will be full again; one that is full need not be kept.
pub(super) struct Buckets<K> {
    rate: Rate,
    most: usize,
    /// Nanoseconds since 1970.
    full_at: BTreeMap<K, u128>,
}

impl<K: Ord> Buckets<K> {
    pub(super) const fn new(rate: Rate) -> Self {
        Self { rate, most: KEPT_MAX, full_at: BTreeMap::new() }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// How long to wait until there is room for it; it is not counted then.
    pub(super) fn take(&mut self, now: Timestamp, key: K) -> Result<(), Duration> {
        let now = u128::from(now.as_millis()) * 1_000_000;
        let known = self.full_at.get(&key).copied();
        let full_at = known.unwrap_or_default().max(now) + self.rate.interval();
        if let Some(wait) = full_at.checked_sub(now + self.rate.full()).filter(|wait| *wait > 0) {
            return Err(Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX)));
        }
        if known.is_none() && self.full_at.len() >= self.most {
            self.make_room(now);
        }
        self.full_at.insert(key, full_at);
        Ok(())
    }

    /// A tenth of the room at least, so that this is rare.
    fn make_room(&mut self, now: u128) {
        self.full_at.retain(|_, full_at| *full_at > now);
        let keep = self.most - self.most / 10 - 1;
        if self.full_at.len() > keep {
            let mut instants: Vec<u128> = self.full_at.values().copied().collect();
            let excess = instants.len() - keep;
            let (_, limit, _) = instants.select_nth_unstable(excess - 1);
            let limit = *limit;
            self.full_at.retain(|_, full_at| *full_at > limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_790_000_000_000 + millis)
    }

    fn buckets(per_second: u32, burst: u32) -> Buckets<u32> {
        Buckets::new(Rate::per_second(per_second, burst))
    }

    #[test]
    fn s_16_a_burst_goes_through_and_then_so_many_a_second() {
        let mut buckets = buckets(4, 10);
        for _ in 0..10 {
            assert_eq!(buckets.take(at(0), 1), Ok(()));
        }
        assert_eq!(buckets.take(at(0), 1), Err(Duration::from_millis(250)));
        assert_eq!(buckets.take(at(100), 1), Err(Duration::from_millis(150)), "what is refused does not count");
        // Whoever waits as long as he is told is let in, once.
        assert_eq!(buckets.take(at(250), 1), Ok(()));
        assert_eq!(buckets.take(at(250), 1), Err(Duration::from_millis(250)));
        // Another one has a bucket of his own.
        assert_eq!(buckets.take(at(250), 2), Ok(()));
        // After a pause there is room for a burst again, and for no more than one.
        let later = (0..100).filter(|_| buckets.take(at(60_000), 1).is_ok());
        assert_eq!(later.count(), 10);
    }

    #[test]
    fn s_16_over_any_time_no_more_than_the_burst_and_the_rate_go_through() {
        for (per_second, burst) in [(1, 1), (3, 7), (200, 400), (1000, 2000), (1_000_000, 1)] {
            let mut buckets = buckets(per_second, burst);
            let let_in =
                (0..10_000).flat_map(|millis| [millis; 3]).filter(|millis| buckets.take(at(*millis), 1).is_ok());
            let let_in = u32::try_from(let_in.count()).unwrap();
            let most = (10 * per_second + burst + 1).min(30_000);
            assert!(let_in <= most && let_in >= (10 * per_second).min(10_000), "{per_second} {burst}: {let_in}");
        }
    }

    #[test]
    fn s_16_a_clock_that_stands_or_goes_back_refills_nothing() {
        let mut buckets = buckets(10, 2);
        assert_eq!((buckets.take(at(5000), 1), buckets.take(at(5000), 1)), (Ok(()), Ok(())));
        assert!(buckets.take(at(0), 1).is_err());
        assert!(buckets.take(at(5099), 1).is_err());
        assert_eq!(buckets.take(at(5100), 1), Ok(()));
    }

    #[test]
    fn s_16_what_is_kept_in_mind_is_bounded() {
        let mut buckets = Buckets { most: 100, ..buckets(1, 5) };
        let mut most = 0;
        // One who calls too often among many who call once: he is not forgotten for their sake.
        for millis in 0..5000_u32 {
            let _ = buckets.take(at(millis.into()), 1_000_000);
            buckets.take(at(millis.into()), millis).unwrap();
            most = most.max(buckets.full_at.len());
        }
        assert!((50..=100).contains(&most), "{most}");
        assert!(buckets.take(at(5000), 1_000_000).is_err() || buckets.take(at(5000), 1_000_000).is_err());
        // Those whose buckets are full again go first, and nobody else has to.
        buckets.make_room(u128::from(at(3_600_000).as_millis()) * 1_000_000);
        assert!(buckets.full_at.is_empty());
    }

    #[test]
    fn nothing_stands_for_one() {
        let mut buckets = buckets(0, 0);
        assert_eq!(buckets.take(at(0), 1), Ok(()));
        assert_eq!(buckets.take(at(0), 1), Err(Duration::from_secs(1)));
    }
}
