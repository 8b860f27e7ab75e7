//! Placement, step, plan and restore at 1,000, 100,000 and 1,000,000 servers.
//!
//! `cargo bench -p kasm-benches`; what the figures are held against is said in `benches/README.md`.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kasm_autoscale_core::config::PlacementPolicy;
use kasm_autoscale_core::input::Fact;
use kasm_autoscale_core::placement::PlacementIndex;
use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::testing::fleet::{Fleet, NOW};
use kasm_benches::{SIZES, end, fleet, pool, request};

/// A session ends on some server and the next one is placed: the index alone.
fn placement(c: &mut Criterion) {
    let mut group = c.benchmark_group("placement_pair");
    for servers in SIZES {
        for policy in [PlacementPolicy::Spread, PlacementPolicy::Pack] {
            let mut used: Vec<u32> = (0..servers).map(|slot| 2 + slot % 3).collect();
            let mut index = PlacementIndex::new();
            for (slot, used) in (0..).zip(&used) {
                index.insert(slot, *used, 4);
            }
            // A walk that reaches every slot and looks random to the caches.
            let mut next = 0_u32;
            group.throughput(Throughput::Elements(1));
            group.bench_function(BenchmarkId::new(format!("{policy:?}"), servers), |b| {
                b.iter(|| {
                    next = (next + 7_919) % servers;
                    let from = next as usize;
                    if used[from] > 0 {
                        index.remove(next, used[from], 4);
                        used[from] -= 1;
                        index.insert(next, used[from], 4);
                    }
                    let choice = black_box(index.best(policy));
                    if let Some(choice) = choice {
                        let to = choice.slot as usize;
                        index.remove(choice.slot, used[to], 4);
                        used[to] += 1;
                        index.insert(choice.slot, used[to], 4);
                    }
                });
            });
        }
    }
    group.finish();
}

/// A user comes and goes: two whole steps with events, reasons and writes.
fn step(c: &mut Criterion) {
    let mut group = c.benchmark_group("step_request_and_end");
    for servers in SIZES {
        let mut pool = pool(fleet(servers).rows());
        let mut now = NOW;
        let mut user = 0;
        group.throughput(Throughput::Elements(2));
        group.bench_function(BenchmarkId::from_parameter(servers), |b| {
            b.iter(|| {
                now = now + Duration::from_millis(5_000);
                user += 1;
                let session = request(&mut pool, now, user);
                end(&mut pool, now, session);
            });
        });
    }
    group.finish();
}

/// Nothing has happened: what a look at the clock costs.
fn plan_idle(c: &mut Criterion) {
    let mut group = c.benchmark_group("plan_idle");
    for servers in SIZES {
        let mut pool = pool(fleet(servers).rows());
        group
            .bench_function(BenchmarkId::from_parameter(servers), |b| b.iter(|| black_box(pool.step(NOW, []).saved())));
    }
    group.finish();
}

/// 4,000 sessions are missing: 1,000 servers are decided on, with their rows, events and commands.
fn plan_thousand(c: &mut Criterion) {
    let mut group = c.benchmark_group("plan_create_1000");
    group.sample_size(10);
    for servers in [1_000, 5_000, 100_000] {
        let full = Fleet { sessions: u64::from(servers) * 4, minimum_available: 0, ..fleet(servers) };
        let more = Fleet { minimum_available: 4_000, ..full }.config();
        let rows = full.rows();
        group.bench_function(BenchmarkId::from_parameter(servers), |b| {
            b.iter_batched_ref(
                || pool(rows.clone()),
                |pool| {
                    let outputs = pool.step(NOW, [Fact::ConfigSet(Box::new(more.clone())).into()]).saved();
                    assert_eq!(outputs.commands.len(), 1_000);
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// A crash: the pool is made of its rows.
fn restore(c: &mut Criterion) {
    let mut group = c.benchmark_group("restore");
    group.sample_size(10);
    for servers in SIZES {
        let rows = fleet(servers).rows();
        group.throughput(Throughput::Elements(u64::try_from(rows.len()).unwrap_or(0)));
        group.bench_function(BenchmarkId::from_parameter(servers), |b| {
            b.iter_batched(
                || rows.clone(),
                |rows| black_box(Pool::restore(rows, NOW).is_ok()),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, placement, step, plan_idle, plan_thousand, restore);
criterion_main!(benches);
