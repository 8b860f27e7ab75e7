//! How much memory a pool takes: `cargo run --release -p kasm-benches --example memory`. Linux only.
#![allow(clippy::print_stdout, reason = "the example shows a figure")]

use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::testing::fleet::{Fleet, NOW};
use kasm_benches::{SIZES, fleet};

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|rest| rest.trim().split(' ').next()).and_then(|number| number.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

fn main() {
    // The largest first, so that no memory that an earlier one has given back is counted as free.
    let servers = SIZES[SIZES.len() - 1];
    let empty = Fleet { sessions: 0, ..fleet(servers) };
    let before = resident();
    let pool = Pool::restore(empty.rows(), NOW).ok();
    let with_servers = resident().saturating_sub(before);
    println!("{servers} servers: {} bytes each", with_servers / u64::from(servers));
    drop(pool);
    let full = fleet(servers);
    let pool = Pool::restore(full.rows(), NOW).ok();
    let all = resident().saturating_sub(before);
    println!("{servers} servers and {} sessions: {} MB", full.sessions, all / 1_000_000);
    drop(pool);
}
