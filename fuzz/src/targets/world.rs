//! Whole simulated worlds, chosen by bytes.

use kasm_autoscale_core::testing::choices::{Bytes, Choices, common};
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
        let verdict = explore(Choices::shared(common(Bytes::new(input.to_vec()))));
        if let Some(failure) = verdict.failure {
            panic!("{failure}");
        }
        assert!(verdict.figures.steps > 0, "a world in which nothing happens");
        if verdict.figures.faults_total() > 0 { Verdict::Taken } else { Verdict::Refused }
    },
    inputs: 200,
};
