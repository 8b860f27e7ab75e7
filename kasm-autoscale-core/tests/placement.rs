//! The placement index against a list that is searched from end to end, and its set of slots against `BTreeSet`.

use std::collections::{BTreeMap, BTreeSet};

use kasm_autoscale_core::config::PlacementPolicy;
use kasm_autoscale_core::placement::{Choice, PlacementIndex, SlotSet};
use proptest::collection::vec;
use proptest::prelude::*;

/// Numbers that crowd together, and some that lie where another tier begins.
fn slot() -> impl Strategy<Value = u32> {
    let edge = prop_oneof![Just(64_u32), Just(4096), Just(262_144)];
    prop_oneof![4 => 0..200_u32, 2 => 0..70_000_u32, 1 => (edge, 0..4_u32).prop_map(|(edge, by)| edge - 2 + by), 1 => 1_000_000..1_000_003_u32]
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u32),
    Remove(u32),
    RemoveFirst,
    RemoveLast,
    /// So that runs without a gap come up, and `first_missing` has something to find.
    InsertMissing(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => slot().prop_map(Op::Insert),
        2 => slot().prop_map(Op::Remove),
        2 => Just(Op::RemoveFirst),
        2 => Just(Op::RemoveLast),
        1 => (0..70_u8).prop_map(Op::InsertMissing),
    ]
}

fn first_missing(model: &BTreeSet<u32>) -> u32 {
    (0..).find(|slot| !model.contains(slot)).unwrap()
}

proptest! {
    #[test]
    fn a_slot_set_is_a_set(ops in vec(op(), 1..120), asked in vec(slot(), 8)) {
        let (mut set, mut model) = (SlotSet::new(), BTreeSet::new());
        for op in ops {
            match op {
                Op::Insert(slot) => {
                    set.insert(slot);
                    model.insert(slot);
                }
                Op::Remove(slot) => {
                    set.remove(slot);
                    model.remove(&slot);
                }
                Op::RemoveFirst | Op::RemoveLast => {
                    let end = if matches!(op, Op::RemoveFirst) { set.first() } else { set.last() };
                    prop_assert_eq!(end, if matches!(op, Op::RemoveFirst) { model.first().copied() } else { model.last().copied() });
                    end.into_iter().for_each(|slot| set.remove(slot));
                    model.retain(|slot| Some(*slot) != end);
                }
                Op::InsertMissing(count) => {
                    let missing: Vec<u32> = (0..).filter(|slot| !model.contains(slot)).take(count.into()).collect();
                    for slot in missing {
                        prop_assert_eq!(set.first_missing(), slot);
                        set.insert(slot);
                        model.insert(slot);
                    }
                }
            }
            prop_assert_eq!(set.first(), model.first().copied());
            prop_assert_eq!(set.last(), model.last().copied());
            prop_assert_eq!(set.is_empty(), model.is_empty());
            prop_assert_eq!(set.len(), model.len());
            prop_assert_eq!(set.first_missing(), first_missing(&model));
        }
        for slot in asked.into_iter().chain(model.iter().copied()) {
            prop_assert_eq!(set.contains(slot), model.contains(&slot));
        }
    }

    #[test]
    fn the_index_chooses_as_a_search_from_end_to_end(
        ops in vec((0..60_u32, 0..6_u32, 1..5_u32, any::<bool>()), 1..150),
    ) {
        let mut index = PlacementIndex::new();
        let mut model: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
        for (slot, used, size, put) in ops {
            if let Some((used, size)) = model.remove(&slot) {
                index.remove(slot, used, size);
            }
            if put {
                index.insert(slot, used, size);
                if used < size {
                    model.insert(slot, (used, size));
                }
            }
            let spread = model.iter().map(|(slot, (used, _))| Choice { score: *used, slot: *slot }).min();
            let pack = model.iter().map(|(slot, (used, size))| Choice { score: size - used, slot: *slot }).min();
            prop_assert_eq!(index.best(PlacementPolicy::Spread), spread);
            prop_assert_eq!(index.best(PlacementPolicy::Pack), pack);
            let unused = || model.iter().filter(|(_, (used, _))| *used == 0);
            prop_assert_eq!(index.last_unused(), unused().map(|(slot, _)| *slot).max());
            prop_assert_eq!(index.smallest_unused(), unused().map(|(_, (_, size))| *size).min());
        }
        prop_assert_eq!(index.len(), model.len());
        prop_assert_eq!(index.is_empty(), model.is_empty());
        for (slot, (used, size)) in &model {
            prop_assert!(index.contains(*slot, *used, *size));
            prop_assert!(!index.contains(*slot, used + 1, *size), "found where it is not");
        }
    }
}

#[test]
fn a_million_slots_are_found_in_order() {
    let mut set = SlotSet::new();
    let slots: Vec<u32> = (0..1_000_000).step_by(997).collect();
    slots.iter().rev().for_each(|slot| set.insert(*slot));
    let mut found = Vec::new();
    while let Some(slot) = set.first() {
        set.remove(slot);
        found.push(slot);
    }
    assert_eq!(found, slots);
}

#[test]
fn taking_out_what_is_not_there_changes_nothing() {
    let mut set = SlotSet::new();
    set.remove(7);
    set.insert(3);
    set.remove(1_000_000);
    assert_eq!((set.first(), set.last(), set.first_missing()), (Some(3), Some(3), 0));
    let mut index = PlacementIndex::new();
    index.insert(3, 1, 2);
    index.remove(3, 0, 2);
    index.remove(3, 1, 4);
    assert_eq!(index.best(PlacementPolicy::Spread), Some(Choice { score: 1, slot: 3 }));
}
