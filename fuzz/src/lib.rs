//! Fuzz targets for everything that reads what comes from outside, and for the core as a whole.
//!
//! A [`Target`] is one function from bytes to a [`Verdict`] that panics when a promise is broken. Two drivers feed it:
//!
//! - `fuzz_targets/*.rs`: libFuzzer on a nightly toolchain, led by coverage (`make fuzz-coverage`).
//! - [`seeded`]: the stable toolchain; examples are changed by a generator with a fixed seed, so that a run can be repeated.
//!   `src/bin/seeded.rs` counts millions of them (`make fuzz`), `tests/seeded.rs` runs a slice.
//!
//! A run proves that it was not in vain: it counts what was taken and what was refused, and neither may be none.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod generator;
pub mod seeded;
pub mod targets;

use generator::Shape;

/// What became of an input that broke no promise.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It was read, and what came of it was held against the target's promises.
    Taken,
    /// It was refused, and the refusal was looked at.
    Refused,
}

/// Something to be fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of its file in `fuzz_targets`, and of its folder in `corpus`.
    pub name: &'static str,
    /// What inputs look like, for the generator.
    pub shape: Shape,
    /// Good inputs to begin with.
    pub examples: fn() -> Vec<Vec<u8>>,
    /// Words that mean something to it.
    pub words: &'static [&'static str],
    /// Reads one input. Panics where a promise is broken.
    pub check: fn(&[u8]) -> Verdict,
    /// How many inputs a whole run of `make fuzz` gives it: dear ones get fewer.
    pub inputs: u64,
}

/// Between the texts of an input that has several: a byte that UTF-8 has not.
pub const SEPARATOR: u8 = 0xff;

/// The texts of an input. Bytes that are no UTF-8 are replaced; there are as many as asked for, the last ones empty if need be.
pub(crate) fn texts<const COUNT: usize>(input: &[u8]) -> [String; COUNT] {
    let mut parts = input.splitn(COUNT, |byte| *byte == SEPARATOR);
    std::array::from_fn(|_| String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned())
}

/// An input of these texts.
pub(crate) fn joined(texts: &[&str]) -> Vec<u8> {
    texts.iter().map(|text| text.as_bytes()).collect::<Vec<_>>().join(&SEPARATOR)
}

/// Looks at what a refusal says: something, and not endlessly much.
pub(crate) fn is_worded(message: &str, most: usize) {
    assert!(!message.trim().is_empty(), "a refusal without a word");
    assert!(message.len() <= most, "a refusal of {} bytes, {most} at most: {message:.200}", message.len());
}
