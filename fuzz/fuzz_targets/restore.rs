//! Rows of any kind make a pool that adds up, or are refused; they never make the core panic.
#![no_main]

use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::row::Row;
use kasm_autoscale_core::time::Timestamp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(rows) = serde_json::from_slice::<Vec<Row>>(bytes) else { return };
    // Whether rows that were never written by a pool add up is not asked here, only that reading them is safe.
    drop(Pool::restore(rows, Timestamp::from_secs(1)));
});
