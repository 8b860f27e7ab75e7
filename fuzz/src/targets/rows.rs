//! Rows of a store, whatever has become of them.

use std::sync::LazyLock;

use kasm_autoscale_core::input::Input;
use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::row::{Row, Write};
use kasm_autoscale_core::testing::entropy::Seeded;
use kasm_autoscale_core::time::Timestamp;

use super::facts::Life;
use crate::generator::Shape;
use crate::{Target, Verdict, is_worded};

/// Rows: those of pools that have lived, changed anyhow. They are refused in words, or make a pool whose tallies and indexes add up,
/// that lives on, and that comes back from what it writes. Rows that nobody has changed make one that is sound in every way.
pub const RESTORE: Target = Target {
    name: "restore",
    shape: Shape::Json,
    examples: || genuine().to_vec(),
    words: &[
        "pool", "config", "memory", "server", "session", "Ready", "Deleting", "Creating", "Intended", "srv-1", "cfg-1",
        "ses-1", "slot", "active",
    ],
    check: |input| {
        let Ok(rows) = serde_json::from_slice::<Vec<Row>>(input) else { return Verdict::Refused };
        let now = Timestamp::from_secs(1_700_100_000);
        let mut pool = match Pool::restore(rows.iter().cloned(), now) {
            Ok(pool) => pool,
            Err(error) => {
                is_worded(&error.to_string(), 1000);
                return Verdict::Refused;
            }
        };
        // Rows may say what no pool would have done, as that a user has two sessions: then that is named by its number. What is
        // counted and indexed is made anew of the rows, so it adds up whatever they say.
        let expect_sound = |pool: &Pool, when: &str| {
            for violation in pool.check().err().unwrap_or_default() {
                assert!(violation.invariant.starts_with("I-"), "{when}: {violation}");
            }
        };
        expect_sound(&pool, "restored");
        assert!(pool.check().is_ok() || !is_genuine(input), "restored from what a pool wrote: {:?}", pool.check());
        let mut kept: std::collections::BTreeMap<_, _> = rows.into_iter().map(|row| (row.key(), row)).collect();
        for step in 0..3 {
            let batch = pool.step(Timestamp::from_secs(1_700_100_000 + 60 * step), Vec::<Input>::new());
            expect_sound(&pool, "after a step");
            for write in batch.writes() {
                match write {
                    Write::Put(row) => _ = kept.insert(row.key(), row.clone()),
                    Write::Delete(key) => _ = kept.remove(key),
                }
            }
        }
        let again = Pool::restore(kept.into_values(), now);
        expect_sound(&again.unwrap_or_else(|error| panic!("what it wrote is refused: {error}")), "restored again");
        Verdict::Taken
    },
    inputs: 60_000,
};

/// Rows as pools have written them.
fn genuine() -> &'static [Vec<u8>] {
    static ROWS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let rows = |seed: u64, steps: usize| {
            let mut life = Life::new(Seeded::new(seed));
            (0..steps).for_each(|_| life.go_on());
            serde_json::to_vec(&life.rows.values().collect::<Vec<_>>()).expect("rows have a JSON form")
        };
        let all = (1..=12).map(|seed| rows(seed, 4 * usize::try_from(seed).unwrap_or_default()));
        all.filter(|rows| rows.len() < 12_000).collect()
    });
    &ROWS
}

fn is_genuine(input: &[u8]) -> bool {
    genuine().iter().any(|rows| rows == input)
}
