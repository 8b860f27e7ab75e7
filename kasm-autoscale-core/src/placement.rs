//! Which server takes a session: an index that makes the choice cost the same for a hundred servers and for a million.
//!
//! Servers are known here by their slot. For each number of slots in use there is a set of the servers that use so many,
//! so the best server is the first of the first set that is not empty, or of the last one. Lowest slot wins a tie: the
//! choice depends on the state alone, not on how it came about, so a restored pool goes on choosing as the old one would.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use crate::config::PlacementPolicy;

/// A set of small numbers with a summary above every 64 of them, so that the first one is found in a few steps.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SlotSet {
    /// `tiers[0]` holds the members, one bit each; a bit of `tiers[n + 1]` says that a word of `tiers[n]` is not zero.
    tiers: Vec<Vec<u64>>,
}

const fn word_of(bit: u32) -> usize {
    // A word number is below 2^26, which every supported target can index.
    (bit / 64) as usize
}

impl SlotSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self { tiers: Vec::new() }
    }

    /// Adds a number; nothing happens if it is there.
    pub fn insert(&mut self, slot: u32) {
        self.reserve(slot);
        let mut bit = slot;
        for tier in &mut self.tiers {
            tier[word_of(bit)] |= 1 << (bit % 64);
            bit /= 64;
        }
    }

    /// Takes a number out; nothing happens if it is not there.
    pub fn remove(&mut self, slot: u32) {
        let mut bit = slot;
        for tier in &mut self.tiers {
            let Some(word) = tier.get_mut(word_of(bit)) else { return };
            *word &= !(1 << (bit % 64));
            if *word != 0 {
                return;
            }
            bit /= 64;
        }
    }

    /// Whether it is there.
    pub fn contains(&self, slot: u32) -> bool {
        let word = self.tiers.first().and_then(|tier| tier.get(word_of(slot)));
        word.is_some_and(|word| word & (1 << (slot % 64)) != 0)
    }

    /// The lowest one.
    pub fn first(&self) -> Option<u32> {
        self.descend(u64::trailing_zeros)
    }

    /// The highest one.
    pub fn last(&self) -> Option<u32> {
        self.descend(|word| 63 - word.leading_zeros())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tiers.last().is_none_or(|top| top.iter().all(|word| *word == 0))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        let members = self.tiers.first().into_iter().flatten();
        members.map(|word| word.count_ones() as usize).sum()
    }

    /// The lowest number that is not there.
    pub fn first_missing(&self) -> u32 {
        let Some(members) = self.tiers.first() else { return 0 };
        let full = members.iter().take_while(|word| **word == u64::MAX).count();
        let ones = members.get(full).map_or(0, |word| word.trailing_ones());
        u32::try_from(full).unwrap_or(u32::MAX).saturating_mul(64).saturating_add(ones)
    }

    fn descend(&self, pick: impl Fn(u64) -> u32) -> Option<u32> {
        let mut bit = 0;
        for tier in self.tiers.iter().rev() {
            let word = *tier.get(word_of(bit * 64))?;
            if word == 0 {
                return None;
            }
            bit = bit * 64 + pick(word);
        }
        (!self.tiers.is_empty()).then_some(bit)
    }

    /// Makes room, and adds tiers until the topmost is a single word.
    fn reserve(&mut self, slot: u32) {
        let mut words = word_of(slot) + 1;
        for index in 0.. {
            if self.tiers.len() == index {
                let below = index.checked_sub(1).map(|under| self.tiers[under].as_slice());
                self.tiers.push(below.map_or_else(|| vec![0; words], |below| summary(below, words)));
            }
            let tier = &mut self.tiers[index];
            if tier.len() < words {
                tier.resize(words, 0);
            }
            if tier.len() == 1 && self.tiers.len() == index + 1 {
                return;
            }
            words = self.tiers[index].len().div_ceil(64);
        }
    }
}

/// The summary tier above `below`.
fn summary(below: &[u64], words: usize) -> Vec<u64> {
    let mut tier = vec![0; words];
    for (index, _) in below.iter().enumerate().filter(|(_, word)| **word != 0) {
        tier[index / 64] |= 1 << (index % 64);
    }
    tier
}

/// A server that could take a session. Less is better: the order is the policy.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Choice {
    /// Sessions on it when spreading, free slots when packing.
    pub score: u32,
    /// The lowest wins a tie.
    pub slot: u32,
}

/// The servers with a free slot of one config, by how many slots they use.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PlacementIndex {
    /// By slots in all: after an edit a config has servers of several sizes.
    sizes: BTreeMap<u32, Levels>,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Levels {
    /// `by_used[n]`: the servers that use `n` slots.
    by_used: Vec<SlotSet>,
    /// Which of those sets are not empty.
    occupied: SlotSet,
}

impl PlacementIndex {
    /// An index without servers.
    pub const fn new() -> Self {
        Self { sizes: BTreeMap::new() }
    }

    /// Adds a server that uses `used` of `size` slots. One without a free slot is left out.
    pub fn insert(&mut self, slot: u32, used: u32, size: u32) {
        if used >= size {
            return;
        }
        let levels = self.sizes.entry(size).or_default();
        let level = used as usize;
        if levels.by_used.len() <= level {
            levels.by_used.resize(level + 1, SlotSet::new());
        }
        levels.by_used[level].insert(slot);
        levels.occupied.insert(used);
    }

    /// Takes a server out that was put in with these numbers.
    pub fn remove(&mut self, slot: u32, used: u32, size: u32) {
        let Some(levels) = self.sizes.get_mut(&size) else { return };
        let Some(set) = levels.by_used.get_mut(used as usize) else { return };
        set.remove(slot);
        if set.is_empty() {
            levels.occupied.remove(used);
        }
        if levels.occupied.is_empty() {
            self.sizes.remove(&size);
        }
    }

    /// The best server for a session.
    pub fn best(&self, policy: PlacementPolicy) -> Option<Choice> {
        self.sizes.iter().filter_map(|(size, levels)| levels.best(policy, *size)).min()
    }

    /// The unused server to give up first: the one with the highest slot, so that low slots stay in use.
    pub fn last_unused(&self) -> Option<u32> {
        self.sizes.values().filter_map(|levels| levels.by_used.first()?.last()).max()
    }

    /// The slots in all of the smallest unused server.
    pub fn smallest_unused(&self) -> Option<u32> {
        let unused = |levels: &Levels| levels.by_used.first().is_some_and(|set| !set.is_empty());
        self.sizes.iter().find(|(_, levels)| unused(levels)).map(|(size, _)| *size)
    }

    /// Whether a server is in it with these numbers.
    pub fn contains(&self, slot: u32, used: u32, size: u32) -> bool {
        let levels = self.sizes.get(&size);
        levels.and_then(|levels| levels.by_used.get(used as usize)).is_some_and(|set| set.contains(slot))
    }

    /// How many servers are in it.
    pub fn len(&self) -> usize {
        self.sizes.values().flat_map(|levels| &levels.by_used).map(SlotSet::len).sum()
    }

    /// Whether no server has a free slot.
    pub fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }
}

impl Levels {
    fn best(&self, policy: PlacementPolicy, size: u32) -> Option<Choice> {
        let used = match policy {
            PlacementPolicy::Spread => self.occupied.first()?,
            PlacementPolicy::Pack => self.occupied.last()?,
        };
        let slot = self.by_used.get(used as usize)?.first()?;
        let score = match policy {
            PlacementPolicy::Spread => used,
            PlacementPolicy::Pack => size - used,
        };
        Some(Choice { score, slot })
    }
}
