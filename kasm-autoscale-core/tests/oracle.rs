//! The differential oracle: a planner and a placer that were written from the text alone ([`naive`]) agree with the fast ones: who
//! is placed where, how many servers are made, taken back and drained for whom, how many sessions each config wants free, and
//! who covers what for a config that fails. Step by step through histories in which nothing fails; and in those in which
//! everything does, by asking at every step what the pool would do next. Worlds ask the same, see `testing::world`.
#![cfg(feature = "testing")]

mod common;

use std::collections::BTreeMap;

use common::history::{History, Told};
use kasm_autoscale_core::backoff::Backoff;
use kasm_autoscale_core::config::PlacementPolicy;
use kasm_autoscale_core::id::ConfigId;
use kasm_autoscale_core::input::{Fact, Input};
use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::ports::ErrorKind;
use kasm_autoscale_core::report::Decision;
use kasm_autoscale_core::row::{MemoryRow, Row, Write};
use kasm_autoscale_core::testing::naive::{self, Picture, something_is_due};
use kasm_autoscale_core::time::Timestamp;

const SEEDS: u64 = 50;
const STEPS: usize = 400;

/// Whether a step is one that the oracle foretells: people come and go, time goes by, and nothing else.
fn is_foretold(told: &Told) -> bool {
    told.facts.iter().all(|fact| match fact {
        Fact::SessionRequested(request) => request.key.is_none(),
        Fact::SessionEnded(_) | Fact::KeptAlive(_) => true,
        _ => false,
    })
}

/// What has been foretold and came true.
#[derive(Debug, Default)]
struct True {
    steps: u32,
    placed: usize,
    packed: usize,
    made: u32,
    taken_back: u32,
    drained: u32,
    held: u32,
    waited: u32,
}

fn follow(seed: u64, policy: PlacementPolicy, come_true: &mut True) {
    // Odd seeds are histories without faults.
    let mut history = History::new(2 * seed + 1, Default::default());
    let mut ids: BTreeMap<String, ConfigId> = BTreeMap::new();
    let mut surplus: BTreeMap<ConfigId, (Timestamp, u32)> = BTreeMap::new();
    let mut refused = 0;
    for step in 0..STEPS {
        let mut told = history.next_step(step == 0);
        if step == 0 {
            let mut spec = History::spec();
            spec.placement = policy;
            told.facts.push(Fact::PoolSet(Box::new(spec)));
        }
        let mut picture = Picture::of(&history.pool, told.now);
        for plan in &mut picture.plans {
            plan.surplus = surplus.get(&plan.id).copied();
        }
        let is_full = picture.waiting.len() + told.facts.len() > 12;
        let on = history.pool.configs().any(|spec| spec.enabled);
        let removed = history.pool.report().configs.iter().any(|known| known.removed);
        let foretells = step > 20 && on && !removed && !is_full && is_foretold(&told);
        let foretold = (foretells && !something_is_due(&history.pool, told.now))
            .then(|| naive::foretold(&history.pool, picture.clone(), &told.facts));
        let batch = history.pool.step(told.now, told.facts.iter().cloned().map(Input::from));
        for write in batch.writes() {
            if let Write::Put(Row::Config(row)) = write {
                ids.insert(row.spec.name.to_string(), row.id);
            }
        }
        let outputs = batch.saved();
        if let Some(foretold) = foretold {
            let done = naive::done(&history.pool, &outputs, &foretold);
            assert_eq!(
                foretold, done,
                "seed {seed} {policy:?}, step {step} at {}: {:#?}\n{picture:#?}",
                told.now, told.facts
            );
            come_true.steps += 1;
            come_true.placed += done.placed.len();
            come_true.packed += if policy == PlacementPolicy::Pack { done.placed.len() } else { 0 };
            come_true.made += done.made.values().sum::<u32>();
            come_true.taken_back += done.taken_back.values().sum::<u32>();
            come_true.drained += done.drained.values().sum::<u32>();
        } else {
            refused += 1;
        }
        remember(&history.pool, &ids, told.now, &mut surplus, come_true);
        history.heard(&outputs);
    }
    assert!(refused < STEPS, "seed {seed}: nothing was foretold");
}

/// Since when there are servers too many, and the fewest in that time: as the pool tells it, and the oracle counts it.
fn remember(
    pool: &Pool,
    ids: &BTreeMap<String, ConfigId>,
    now: Timestamp,
    surplus: &mut BTreeMap<ConfigId, (Timestamp, u32)>,
    come_true: &mut True,
) {
    for known in pool.report().configs.iter().filter(|known| !known.removed) {
        let id = ids[known.config.as_str()];
        come_true.waited += u32::from(matches!(known.decision, Decision::Wait { .. }));
        let Decision::SurplusHeld { servers, supply, .. } = &known.decision else {
            surplus.remove(&id);
            continue;
        };
        let (since, least) = surplus.get(&id).copied().unwrap_or((now, *servers));
        surplus.insert(id, (since, least.min(*servers)));
        let picture = Picture::of(pool, now);
        let plan = picture.plans.iter().find(|plan| plan.id == id).expect("a config with a plan");
        assert_eq!(picture.too_many(plan, supply.target), *servers, "{}: {}", known.config, known.decision);
        come_true.held += 1;
    }
}

#[test]
fn i_10_a_naive_planner_and_placer_agree_with_the_fast_ones() {
    let mut come_true = True::default();
    for seed in 0..SEEDS {
        let policy = if seed % 2 == 0 { PlacementPolicy::Spread } else { PlacementPolicy::Pack };
        follow(seed, policy, &mut come_true);
    }
    let True { steps, placed, packed, made, drained, held, waited, .. } = come_true;
    assert!(steps > 1000 && placed > 300 && packed > 100 && made > 100, "{come_true:?}");
    assert!(drained > 10 && held > 300 && waited > 20, "{come_true:?}");
}

/// What was asked of pools in trouble, and came true.
#[derive(Debug, Default)]
struct Asked {
    times: u32,
    placed: usize,
    made: u32,
    taken_back: u32,
    drained: u32,
    covered: u32,
    backed_off: u32,
}

/// The waits after refusals, as the text has them: the first one and the longest, in seconds.
fn waits(kind: ErrorKind) -> (u64, u64) {
    match kind {
        ErrorKind::NoCapacity | ErrorKind::Denied | ErrorKind::Invalid | ErrorKind::Protected => (60, 1800),
        ErrorKind::Quota => (120, 1800),
        ErrorKind::Throttled | ErrorKind::Conflict | ErrorKind::Transient => (5, 300),
    }
}

/// Whether it is the offering that is short.
fn is_shortage(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NoCapacity | ErrorKind::Quota)
}

/// A back-off that follows another one is that of the same try, or of the next: twice as long, varied by a tenth.
fn follows(before: Option<&Backoff>, kind: ErrorKind, now: &Backoff, at: Timestamp) -> bool {
    let same_try = before.is_some_and(|before| at < before.until);
    if same_try {
        return before.is_some_and(|before| now.failures == before.failures && now.until >= before.until);
    }
    let (mut wait, longest) = waits(kind);
    for _ in 1..now.failures {
        wait = (2 * wait).min(longest);
    }
    let millis = now.until.since(at).as_millis();
    let wait = u128::from(wait) * 1000;
    // Who says when to come again is never disturbed before that.
    now.failures == before.map_or(0, |before| before.failures) + 1 && now.since == at && millis * 10 >= wait * 9
}

#[test]
fn i_10_a_naive_planner_and_placer_agree_with_the_fast_ones_when_everything_fails() {
    let (mut asked, mut backoffs, mut went_on) = (Asked::default(), 0, 0);
    for seed in 0..SEEDS {
        // Even seeds are histories with faults.
        let mut history = History::new(2 * seed, Default::default());
        let mut memories: BTreeMap<ConfigId, MemoryRow> = BTreeMap::new();
        for step in 0..STEPS {
            let told = history.next_step(step == 0);
            let edited = told.facts.iter().any(|fact| matches!(fact, Fact::ConfigSet(_)));
            let batch = history.pool.step(told.now, told.facts.iter().cloned().map(Input::from));
            let mut next = memories.clone();
            for write in batch.writes() {
                let Write::Put(Row::Memory(row)) = write else { continue };
                let own = memories.get(&row.config).and_then(|row| row.create.clone());
                let Some((kind, backoff)) = row.create.clone().filter(|known| !edited && own.as_ref() != Some(known))
                else {
                    next.insert(row.config, row.clone());
                    continue;
                };
                // A shortage is one of the offering: it goes on from those that other configs know of, and from no other failure.
                let known =
                    memories.values().filter_map(|row| row.create.clone()).filter(|(kind, _)| is_shortage(*kind));
                let before: Vec<_> = if is_shortage(kind) { known.collect() } else { own.into_iter().collect() };
                let fits = before.iter().any(|(_, before)| follows(Some(before), kind, &backoff, told.now));
                let begins = follows(None, kind, &backoff, told.now);
                assert!(fits || begins && backoff.failures == 1, "{before:#?} {kind:?} {backoff:?} at {}", told.now);
                next.insert(row.config, row.clone());
                went_on += u32::from(fits && backoff.failures > 1);
                backoffs += 1;
            }
            memories = next;
            let outputs = batch.saved();
            match naive::judge(&history.pool, seed * 1000 + step as u64) {
                Ok(Some(doing)) => {
                    asked.times += 1;
                    asked.placed += doing.placed.len();
                    asked.made += doing.made.values().sum::<u32>();
                    asked.taken_back += doing.taken_back.values().sum::<u32>();
                    asked.drained += doing.drained.values().sum::<u32>();
                    asked.covered += doing.covers.values().sum::<u32>();
                    asked.backed_off += doing.backing_off.values().sum::<u32>();
                }
                Ok(None) => {}
                Err(found) => panic!("seed {seed}, step {step}: {found}"),
            }
            history.heard(&outputs);
        }
    }
    let Asked { times, placed, made, taken_back, drained, covered, backed_off } = asked;
    assert!(times > 5000 && placed > 5000 && made > 500 && taken_back > 10, "{asked:?}");
    assert!(drained > 100 && covered > 500 && backed_off > 200, "{asked:?}");
    assert!(backoffs > 100 && went_on > 20, "{backoffs} back-offs, {went_on} that went on");
}
