//! Whole simulated worlds, chosen by bytes.

use kasm_autoscale_core::testing::choices::{Bytes, Choices, Trace, common};
use kasm_autoscale_core::testing::entropy::{Entropy, Seeded};
use kasm_autoscale_core::testing::world::explore;

use crate::generator::Shape;
use crate::{Target, Verdict};

/// The simulation tape: clouds, faults, users and crashes of a whole installation, chosen by the input. No promise is broken in any
/// world. Worlds without a fault count as refused.
pub const WORLD: Target = Target {
    name: "world",
    shape: Shape::Noise { most: 3000 },
    examples: || vec![vec![], vec![200; 3000]],
    words: &[],
    check: |input| {
        let verdict = explore(Choices::shared(common(Tape::of(input))));
        if let Some(failure) = verdict.failure {
            panic!("{failure}");
        }
        assert!(verdict.figures.steps > 0, "a world in which nothing happens");
        if verdict.figures.faults_total() > 0 { Verdict::Taken } else { Verdict::Refused }
    },
    inputs: 100,
};

/// The input, and after its end what follows from it by chance: a world in which the least happens at once, for ever, has no end.
struct Tape {
    bytes: Bytes,
    rest: Seeded,
}

impl Tape {
    fn of(input: &[u8]) -> Self {
        let mut digest = Trace::default();
        input.iter().for_each(|byte| digest.add(u64::from(*byte)));
        Self { bytes: Bytes::new(input.to_vec()), rest: Seeded::new(digest.digest()) }
    }
}

impl Entropy for Tape {
    fn pick(&mut self, below: u64) -> u64 {
        if self.bytes.is_used_up() { self.rest.pick(below) } else { self.bytes.pick(below) }
    }

    fn chance(&mut self, per_million: u32) -> bool {
        if self.bytes.is_used_up() { self.rest.chance(per_million) } else { self.bytes.chance(per_million) }
    }
}
