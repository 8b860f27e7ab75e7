//! The differential oracle: a planner and a placer that were written from the text alone agree with the fast ones, step by step,
//! through histories in which nothing fails: who is placed where, and how many servers are made, taken back and drained for whom.

mod common;

use std::collections::BTreeMap;

use common::history::{History, Told};
use common::naive::{Doing, Picture, something_is_due};
use kasm_autoscale_core::config::PlacementPolicy;
use kasm_autoscale_core::id::{ConfigId, ServerId, SessionId};
use kasm_autoscale_core::input::{Fact, Input};
use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::report::{Decision, What};
use kasm_autoscale_core::row::{Outputs, Row, Write};
use kasm_autoscale_core::server::PhaseKind;
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

/// What the oracle says of a step.
fn foretold(pool: &Pool, mut picture: Picture, told: &Told) -> Doing {
    let mut doing = Doing::default();
    let mut open: BTreeMap<String, SessionId> = pool
        .sessions()
        .filter(|session| session.is_open())
        .map(|session| (session.user.to_string(), session.id))
        .collect();
    let mut on: BTreeMap<SessionId, ServerId> =
        pool.sessions().filter_map(|session| Some((session.id, session.server()?))).collect();
    let mut next = pool.sessions().map(|session| session.id.serial()).max().unwrap_or(0) + 1;
    for fact in &told.facts {
        match fact {
            Fact::SessionRequested(request) if !open.contains_key(request.user.as_str()) => {
                picture.place(&mut doing);
                // Numbers go up with those who come, so that they sort as they came.
                let id = SessionId::new(next);
                next += 1;
                open.insert(request.user.to_string(), id);
                picture.waiting.push((id, request.user.clone(), request.zone.clone()));
                picture.place(&mut doing);
            }
            Fact::SessionEnded(id) if open.values().any(|known| known == id) => {
                picture.end(*id, on.remove(id));
                open.retain(|_, known| known != id);
            }
            _ => {}
        }
    }
    picture.place(&mut doing);
    picture.plan(told.now, &mut doing);
    picture.place(&mut doing);
    doing
}

/// What the pool did.
fn done(ids: &BTreeMap<String, ConfigId>, outputs: &Outputs) -> Doing {
    let mut doing = Doing::default();
    for event in &outputs.events {
        match &event.what {
            What::SessionPlaced { user, server, .. } => doing.placed.push((user.clone(), *server)),
            What::Server { config, phase, why, .. } => {
                let counts = match (phase, why.as_deref()) {
                    (PhaseKind::Enrolling | PhaseKind::Creating, None) => &mut doing.made,
                    (PhaseKind::Ready, Some("needed again")) => &mut doing.taken_back,
                    (PhaseKind::Draining, Some("surplus")) => &mut doing.drained,
                    _ => continue,
                };
                *counts.entry(ids[config.as_str()]).or_default() += 1;
            }
            _ => {}
        }
    }
    doing
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
        let picture = Picture::of(&history.pool, &surplus, &ids);
        let is_full = picture.waiting.len() + told.facts.len() > 12;
        let on = history.pool.configs().any(|spec| spec.enabled);
        let removed = history.pool.report().configs.iter().any(|known| known.removed);
        let foretells = step > 20 && on && !removed && !is_full && is_foretold(&told);
        let foretold = (foretells && !something_is_due(&history.pool, told.now))
            .then(|| foretold(&history.pool, picture.clone(), &told));
        let batch = history.pool.step(told.now, told.facts.iter().cloned().map(Input::from));
        for write in batch.writes() {
            if let Write::Put(Row::Config(row)) = write {
                ids.insert(row.spec.name.to_string(), row.id);
            }
        }
        let outputs = batch.saved();
        if let Some(mut foretold) = foretold {
            foretold.drained.retain(|_, count| *count > 0);
            let done = done(&ids, &outputs);
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
        let picture = Picture::of(pool, surplus, ids);
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
