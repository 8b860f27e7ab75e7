//! Runs of targets on the stable toolchain, and what was counted.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::generator::Generator;
use crate::{Target, Verdict};

/// How a run of one target went.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Inputs that were read and held against the target's promises.
    pub taken: u64,
    /// Inputs that were refused.
    pub refused: u64,
    /// How long it took.
    pub time: Duration,
}

impl Counts {
    /// How many inputs there were.
    pub const fn all(&self) -> u64 {
        self.taken + self.refused
    }

    /// Adds those of another part of the run.
    pub fn add(&mut self, other: &Self) {
        self.taken += other.taken;
        self.refused += other.refused;
        self.time += other.time;
    }
}

/// An input that broke a promise.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Broken {
    /// The target.
    pub target: &'static str,
    /// The seed of the run, and which of its inputs it was, from 0.
    pub at: (u64, u64),
    /// The input.
    pub input: Vec<u8>,
    /// What the panic said.
    pub said: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, at: (seed, index), input, said } = self;
        writeln!(f, "{target}, seed {seed}, input {index}: {said}")?;
        write!(f, "the input: \"{}\"", input.escape_ascii())
    }
}

/// Gives a target so many inputs of this seed, and no more after `until`.
///
/// # Errors
/// The first input that breaks a promise.
pub fn run(target: &Target, seed: u64, inputs: u64, until: Option<Instant>) -> Result<Counts, Box<Broken>> {
    let (mut generator, mut counts, begun) = (Generator::new(target, seed), Counts::default(), Instant::now());
    for index in 0..inputs {
        if until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
        let input = generator.next_input();
        match catch_unwind(AssertUnwindSafe(|| (target.check)(&input))) {
            Ok(Verdict::Taken) => counts.taken += 1,
            Ok(Verdict::Refused) => counts.refused += 1,
            Err(panic) => {
                let said = panic.downcast_ref::<String>().cloned();
                let said = said.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
                return Err(Box::new(Broken { target: target.name, at: (seed, index), input, said }));
            }
        }
    }
    counts.time = begun.elapsed();
    Ok(counts)
}
