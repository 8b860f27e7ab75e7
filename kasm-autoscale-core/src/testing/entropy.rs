//! The one source of choices for everything that is simulated.
//!
//! Whatever a simulation leaves open (does this call fail, how long does that boot take, which user comes next) it asks
//! of an [`Entropy`], and of nothing else. So the same simulation runs under three drivers:
//!
//! - **a seeded generator**, [`Seeded`]: long random runs, each repeated by its seed;
//! - **a fuzzer's bytes**: coverage then leads the fuzzer to rare orders of faults;
//! - **an exhaustive enumerator**: every run of a small world. It overrides [`chance`](Entropy::chance) to try both ways
//!   and [`range`](Entropy::range) to try both ends, where the provided methods would ask it for a million branches.
//!
//! Give each part of a world a stream of its own ([`Seeded::stream`]): a draw more in one part then leaves the others as
//! they were, and two runs stay comparable.

use alloc::boxed::Box;
use core::ops::RangeInclusive;
use core::time::Duration;

/// How many chances in a million are certainty: [`Entropy::chance`] of this is always true.
pub const MILLION: u32 = 1_000_000;

/// Makes choices. The module's documentation says who does.
pub trait Entropy {
    /// A number less than `below`; 0 if `below` is 0 or 1.
    fn pick(&mut self, below: u64) -> u64;

    /// True `per_million` times in a million. What is certain (0, or a million and more) is not drawn, so a fault that is
    /// switched off costs a fuzzer no bytes and an enumerator no branch.
    fn chance(&mut self, per_million: u32) -> bool {
        match per_million {
            0 => false,
            1..MILLION => self.pick(MILLION.into()) < per_million.into(),
            _ => true,
        }
    }

    /// A number within bounds, both included; the lower one if there is no other. A range of one number is not drawn.
    fn range(&mut self, bounds: RangeInclusive<u64>) -> u64 {
        let (least, most) = (*bounds.start(), *bounds.end());
        match most.saturating_sub(least) {
            0 => least,
            // Over all of u64 the greatest number is never drawn: there is no `below` for it.
            width => least.saturating_add(self.pick(width.saturating_add(1))),
        }
    }

    /// A duration within bounds, both included, in whole milliseconds.
    fn duration(&mut self, bounds: &RangeInclusive<Duration>) -> Duration {
        let millis = |span: &Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.range(millis(bounds.start())..=millis(bounds.end())))
    }
}

impl<E: Entropy + ?Sized> Entropy for &mut E {
    fn pick(&mut self, below: u64) -> u64 {
        (**self).pick(below)
    }

    fn chance(&mut self, per_million: u32) -> bool {
        (**self).chance(per_million)
    }

    fn range(&mut self, bounds: RangeInclusive<u64>) -> u64 {
        (**self).range(bounds)
    }

    fn duration(&mut self, bounds: &RangeInclusive<Duration>) -> Duration {
        (**self).duration(bounds)
    }
}

impl<E: Entropy + ?Sized> Entropy for Box<E> {
    fn pick(&mut self, below: u64) -> u64 {
        (**self).pick(below)
    }

    fn chance(&mut self, per_million: u32) -> bool {
        (**self).chance(per_million)
    }

    fn range(&mut self, bounds: RangeInclusive<u64>) -> u64 {
        (**self).range(bounds)
    }

    fn duration(&mut self, bounds: &RangeInclusive<Duration>) -> Duration {
        (**self).duration(bounds)
    }
}

/// A generator of pseudo-random numbers: SplitMix64 (Steele, Lea, Flood 2014). For simulations, never for secrets.
///
/// ```
/// use kasm_autoscale_core::testing::entropy::{Entropy, Seeded};
/// let (mut one, mut two) = (Seeded::new(7), Seeded::new(7));
/// assert_eq!(one.pick(1000), two.pick(1000));
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seeded {
    state: u64,
}

impl Seeded {
    /// The generator that starts at this seed.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A generator for one part of a world: it depends on the seed and on the part's name, and draws in other parts do not
    /// shift it.
    pub fn stream(seed: u64, name: &str) -> Self {
        // The name is hashed by FNV-1a. The seed goes through the generator first, since near seeds have near states.
        let start = Self::new(seed).draw();
        let state = name.bytes().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        Self::new(Self::new(state).draw())
    }

    /// The next 64 bits.
    pub const fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Entropy for Seeded {
    fn pick(&mut self, below: u64) -> u64 {
        // Multiply and keep the upper half: one step, no loop, and a bias of at most below / 2^64.
        let wide = u128::from(self.draw()) * u128::from(below);
        u64::try_from(wide >> 64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn splitmix64_gives_the_published_numbers() {
        let mut zero = Seeded::new(0);
        assert_eq!(zero.draw(), 0xe220_a839_7b1d_cdaf);
        let mut other = Seeded::new(1_234_567);
        assert_eq!([other.draw(), other.draw()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn choices_keep_to_their_bounds_and_reach_both_ends() {
        let mut entropy = Seeded::new(3);
        assert_eq!((entropy.pick(0), entropy.pick(1)), (0, 0));
        let drawn: Vec<u64> = (0..200).map(|_| entropy.range(5..=8)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&5), Some(&8)));
        let spans: Vec<_> =
            (0..200).map(|_| entropy.duration(&(Duration::from_millis(2)..=Duration::from_millis(3)))).collect();
        assert!(spans.contains(&Duration::from_millis(2)) && spans.contains(&Duration::from_millis(3)));
        #[expect(clippy::reversed_empty_ranges, reason = "an empty range is what is tested")]
        let empty = entropy.range(9..=4);
        assert_eq!(empty, 9);
        assert!(entropy.range(0..=u64::MAX) > 0);
    }

    /// Certainties are not drawn, so that switching a fault off does not shift anything else.
    #[test]
    fn what_is_certain_is_not_drawn() {
        let (mut one, mut two) = (Seeded::new(1), Seeded::new(1));
        assert!(!one.chance(0) && one.chance(MILLION) && one.chance(u32::MAX) && one.range(4..=4) == 4);
        assert_eq!(one, two);
        two.chance(1);
        assert_ne!(one, two);
    }

    #[test]
    fn streams_of_one_seed_differ_by_name_and_by_seed() {
        let first = |seed, name| Seeded::stream(seed, name).draw();
        assert_eq!(first(1, "cloud"), first(1, "cloud"));
        assert_ne!(first(1, "cloud"), first(1, "users"));
        assert_ne!(first(1, "cloud"), first(2, "cloud"));
    }
}
