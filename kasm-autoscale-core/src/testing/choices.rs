//! Where the choices of a whole world come from, and how they are written down, so that one run can be had again, made
//! shorter, or led by a fuzzer.
//!
//! A world draws from [`Choices`] alone, one named [`Stream`] for each of its parts. Behind them stands one of
//!
//! - a seed ([`Choices::seeded`]): every stream a generator of its own;
//! - a [`Tape`] ([`Choices::replayed`]): what an earlier run has chosen, stream by stream. Where it ends, the least is chosen,
//!   so a tape may be cut anywhere;
//! - any one [`Entropy`] ([`Choices::shared`]): a fuzzer's [`Bytes`], or [`Branches`], which goes through every run of a small
//!   world.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::RangeInclusive;
use core::str::FromStr;

use super::entropy::{Entropy, MILLION, Seeded};
use super::lock::{Shared, locked, shared};

/// Gives out streams of choices. The module's documentation says of which kinds.
#[derive(Debug)]
pub struct Choices {
    driver: Driver,
    recorded: Option<BTreeMap<String, Shared<Vec<u64>>>>,
}

enum Driver {
    Seed(u64),
    Tape(Tape),
    Shared(Shared<dyn Entropy + Send>),
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seed(seed) => write!(f, "seed {seed}"),
            Self::Tape(tape) => write!(f, "a tape of {} choices", tape.len()),
            Self::Shared(_) => f.write_str("shared"),
        }
    }
}

impl Choices {
    /// Choices by a seed.
    pub const fn seeded(seed: u64) -> Self {
        Self { driver: Driver::Seed(seed), recorded: None }
    }

    /// The choices of an earlier run.
    pub const fn replayed(tape: Tape) -> Self {
        Self { driver: Driver::Tape(tape), recorded: None }
    }

    /// Choices that all streams draw from one source, in the order in which they come to it.
    pub fn shared(entropy: Shared<dyn Entropy + Send>) -> Self {
        Self { driver: Driver::Shared(entropy), recorded: None }
    }

    /// The same, and everything that is chosen is written down.
    #[must_use]
    pub fn recorded(mut self) -> Self {
        self.recorded = Some(BTreeMap::new());
        self
    }

    /// The choices of one part of a world. A part asks for its stream once.
    pub fn stream(&mut self, name: &str) -> Stream {
        let source = match &self.driver {
            Driver::Seed(seed) => Source::Seeded(Seeded::stream(*seed, name)),
            Driver::Tape(tape) => Source::Tape(tape.streams.get(name).cloned().unwrap_or_default(), 0),
            Driver::Shared(entropy) => Source::Shared(entropy.clone()),
        };
        let log = self.recorded.as_mut().map(|all| all.entry(name.to_owned()).or_insert_with(|| shared(Vec::new())));
        Stream { source, log: log.cloned() }
    }

    /// What has been chosen so far; empty unless it is [recorded](Self::recorded).
    pub fn tape(&self) -> Tape {
        let all = self.recorded.iter().flatten();
        Tape { streams: all.map(|(name, chosen)| (name.clone(), locked(chosen).clone())).collect() }
    }
}

/// The choices of one part of a world.
pub struct Stream {
    source: Source,
    log: Option<Shared<Vec<u64>>>,
}

enum Source {
    Seeded(Seeded),
    Tape(Vec<u64>, usize),
    Shared(Shared<dyn Entropy + Send>),
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}

impl Stream {
    fn chosen(&mut self, below: u64) -> u64 {
        match &mut self.source {
            Source::Seeded(seeded) => seeded.pick(below),
            Source::Tape(chosen, next) => {
                *next += 1;
                // A tape that was cut may hold a choice that another question was meant for.
                chosen.get(*next - 1).map_or(0, |chosen| (*chosen).min(below - 1))
            }
            Source::Shared(entropy) => locked(entropy).pick(below),
        }
    }

    fn noted(&self, chosen: u64) -> u64 {
        if let Some(log) = &self.log {
            locked(log).push(chosen);
        }
        chosen
    }
}

impl Entropy for Stream {
    fn pick(&mut self, below: u64) -> u64 {
        if below <= 1 {
            return 0;
        }
        let chosen = self.chosen(below);
        self.noted(chosen)
    }

    fn chance(&mut self, per_million: u32) -> bool {
        match (&self.source, per_million) {
            (_, 0) => false,
            (_, MILLION..) => true,
            (Source::Shared(entropy), _) => {
                let struck = locked(entropy).chance(per_million);
                self.noted(struck.into()) == 1
            }
            // The least choice is that nothing happens, so that a shorter tape is a calmer world.
            _ => {
                let struck = self.chosen(MILLION.into()) >= u64::from(MILLION - per_million);
                // By the least choice that says so and the greatest: they say it whatever the chance is, and tapes stay short.
                self.noted(if struck { u64::from(MILLION) - 1 } else { 0 });
                struck
            }
        }
    }

    fn range(&mut self, bounds: RangeInclusive<u64>) -> u64 {
        let (least, most) = (*bounds.start(), *bounds.end());
        match (&self.source, most.saturating_sub(least)) {
            (_, 0) => least,
            (Source::Shared(entropy), _) => {
                let chosen = locked(entropy).range(bounds);
                self.noted(chosen)
            }
            (_, width) => least.saturating_add(self.pick(width.saturating_add(1))),
        }
    }
}

/// What a run has chosen, stream by stream.
///
/// As text, one line a stream: its name, a colon, and its choices; `7*30` stands for thirty sevens.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tape {
    /// By the name of the stream.
    pub streams: BTreeMap<String, Vec<u64>>,
}

impl Tape {
    /// How many choices there are.
    pub fn len(&self) -> usize {
        self.streams.values().map(Vec::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A calmer and shorter tape for which `fails` is still true: chunks of choices are set to the least one, or cut out, first
    /// large ones in all streams, then ever smaller ones. `tries` bounds how often `fails` is asked.
    #[must_use]
    pub fn shrunk(&self, tries: usize, mut fails: impl FnMut(&Self) -> bool) -> Self {
        let mut best = self.clone();
        let mut left = tries;
        let mut parts = 1;
        loop {
            let mut smallest = true;
            for name in self.streams.keys() {
                let length = best.streams.get(name).map_or(0, Vec::len);
                let chunk = length.div_ceil(parts);
                smallest &= chunk <= 1;
                for from in (0..length).step_by(chunk.max(1)).rev() {
                    for candidate in [best.lowered(name, from, chunk), best.cut(name, from, chunk)] {
                        if left > 0 && candidate != best {
                            left -= 1;
                            if fails(&candidate) {
                                best = candidate;
                                break;
                            }
                        }
                    }
                }
            }
            if left == 0 || smallest {
                return best.trimmed();
            }
            parts *= 4;
        }
    }

    fn lowered(&self, name: &str, from: usize, chunk: usize) -> Self {
        let mut tape = self.clone();
        if let Some(chosen) = tape.streams.get_mut(name) {
            let to = (from + chunk).min(chosen.len());
            chosen[from.min(to)..to].fill(0);
        }
        tape
    }

    fn cut(&self, name: &str, from: usize, chunk: usize) -> Self {
        let mut tape = self.clone();
        if let Some(chosen) = tape.streams.get_mut(name) {
            let to = (from + chunk).min(chosen.len());
            chosen.drain(from.min(to)..to);
        }
        tape
    }

    /// Without what is chosen anyway where a tape ends.
    fn trimmed(mut self) -> Self {
        for chosen in self.streams.values_mut() {
            chosen.truncate(chosen.iter().rposition(|choice| *choice != 0).map_or(0, |last| last + 1));
        }
        self.streams.retain(|_, chosen| !chosen.is_empty());
        self
    }
}

impl fmt::Display for Tape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, chosen) in &self.streams {
            write!(f, "{name}:")?;
            for run in chosen.chunk_by(|one, other| one == other) {
                match (run.first(), run.len()) {
                    (Some(choice), 1) => write!(f, " {choice}")?,
                    (Some(choice), count) => write!(f, " {choice}*{count}")?,
                    (None, _) => {}
                }
            }
            f.write_str("\n")?;
        }
        Ok(())
    }
}

/// The most choices of one stream that are read from a text: runs of them are short to write, and long to keep.
const LENGTH_MAX: usize = 10_000_000;

/// Why a text is not a tape.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line} of the tape, {given:?}: expected a stream's name, a colon, and numbers like 7 or 7*30")]
pub struct InvalidTape {
    line: usize,
    given: String,
}

impl FromStr for Tape {
    type Err = InvalidTape;

    /// Reads what [`Display`](fmt::Display) writes. Empty lines and lines that begin with `#` are passed over.
    fn from_str(text: &str) -> Result<Self, InvalidTape> {
        let mut streams = BTreeMap::new();
        for (line, given) in (1..).zip(text.lines()) {
            if given.trim().is_empty() || given.starts_with('#') {
                continue;
            }
            let read = || -> Option<(String, Vec<u64>)> {
                let (name, rest) = given.rsplit_once(':')?;
                let mut chosen = Vec::new();
                for word in rest.split_whitespace() {
                    let (choice, count) = word.split_once('*').unwrap_or((word, "1"));
                    let count: usize = count.parse().ok()?;
                    if count > LENGTH_MAX - chosen.len() {
                        return None;
                    }
                    chosen.resize(chosen.len() + count, choice.parse().ok()?);
                }
                Some((name.to_owned(), chosen))
            };
            let invalid = || InvalidTape { line, given: given.chars().take(60).collect() };
            streams.extend([read().ok_or_else(invalid)?]);
        }
        Ok(Self { streams })
    }
}

/// Choices out of a fuzzer's bytes. When they are used up, the least is chosen.
#[derive(Clone, Debug)]
pub struct Bytes {
    bytes: Vec<u8>,
    next: usize,
}

impl Bytes {
    /// Choices out of these bytes.
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, next: 0 }
    }

    /// Whether all bytes are used up.
    pub fn is_used_up(&self) -> bool {
        self.next >= self.bytes.len()
    }
}

impl Entropy for Bytes {
    fn pick(&mut self, below: u64) -> u64 {
        if below <= 1 {
            return 0;
        }
        // As many bytes as the choice needs, so that a byte more or less of the input changes one choice and not all.
        let count = usize::try_from((64 - (below - 1).leading_zeros()).div_ceil(8)).unwrap_or(8);
        let taken = self.bytes.iter().skip(self.next).take(count);
        let value = taken.fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
        self.next += count;
        value % below
    }

    /// Two bytes decide, so that a fuzzer hits what is rare; a greater first byte is a rarer case.
    fn chance(&mut self, per_million: u32) -> bool {
        match per_million {
            0 => false,
            1..MILLION => self.pick(65_536) * u64::from(MILLION) / 65_536 >= u64::from(MILLION - per_million),
            _ => true,
        }
    }
}

/// Goes through every run of a small world: each run chooses what the last one has not.
///
/// ```
/// use kasm_autoscale_core::testing::choices::Branches;
/// use kasm_autoscale_core::testing::entropy::Entropy;
/// let mut branches = Branches::new();
/// let mut seen = Vec::new();
/// while branches.begin() {
///     seen.push((branches.chance(500), branches.pick(3)));
/// }
/// assert_eq!(seen, [(false, 0), (false, 1), (false, 2), (true, 0), (true, 1), (true, 2)]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Branches {
    /// What was chosen, and below what.
    path: Vec<(u64, u64)>,
    next: usize,
    begun: bool,
}

impl Branches {
    /// Before the first run.
    pub const fn new() -> Self {
        Self { path: Vec::new(), next: 0, begun: false }
    }

    /// Begins the next run; false when there is none left.
    pub fn begin(&mut self) -> bool {
        if self.begun {
            while self.path.pop_if(|(chosen, below)| *chosen + 1 >= *below).is_some() {}
            match self.path.last_mut() {
                Some((chosen, _)) => *chosen += 1,
                None => return false,
            }
        }
        (self.begun, self.next) = (true, 0);
        true
    }
}

impl Entropy for Branches {
    fn pick(&mut self, below: u64) -> u64 {
        if below <= 1 {
            return 0;
        }
        self.next += 1;
        match self.path.get(self.next - 1) {
            Some((chosen, _)) => *chosen,
            None => {
                self.path.push((0, below));
                0
            }
        }
    }

    /// Both ways.
    fn chance(&mut self, per_million: u32) -> bool {
        match per_million {
            0 => false,
            1..MILLION => self.pick(2) == 1,
            _ => true,
        }
    }

    /// Both ends.
    fn range(&mut self, bounds: RangeInclusive<u64>) -> u64 {
        if bounds.start() >= bounds.end() || self.pick(2) == 0 { *bounds.start() } else { *bounds.end() }
    }
}

/// A digest of everything that is added to it: FNV-1a, the same on every machine. For comparing runs, not for secrets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Trace(u64);

impl Default for Trace {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Trace {
    /// Adds a number.
    pub fn add(&mut self, number: u64) {
        for byte in number.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// The digest of all so far.
    pub const fn digest(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A source that several streams draw from.
pub fn common(entropy: impl Entropy + Send + 'static) -> Shared<dyn Entropy + Send> {
    shared(entropy)
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn a_recorded_run_is_had_again_from_its_tape_and_the_tape_from_its_text() {
        let draw = |mut choices: Choices| {
            let (mut one, mut two) = (choices.stream("one"), choices.stream("two"));
            let drawn: Vec<u64> = (0..40).flat_map(|_| [one.pick(9), two.range(3..=7)]).collect();
            let struck: Vec<bool> = (0..40).map(|_| one.chance(300_000)).collect();
            (drawn, struck, choices.tape())
        };
        let (drawn, struck, tape) = draw(Choices::seeded(5).recorded());
        assert_eq!(tape.len(), 120);
        let read: Tape = tape.to_string().parse().unwrap();
        assert_eq!(read, tape);
        let again = draw(Choices::replayed(read).recorded());
        assert_eq!(again, (drawn, struck, tape));
        assert_eq!("a: 1 x".parse::<Tape>().unwrap_err().line, 1);
        assert_eq!("# note\n\na: 2*3".parse::<Tape>().unwrap().streams["a"], [2, 2, 2]);
    }

    #[test]
    fn where_a_tape_ends_the_least_is_chosen_and_nothing_strikes() {
        let mut stream = Choices::replayed(Tape::default()).stream("any");
        assert_eq!((stream.pick(5), stream.range(3..=9), stream.chance(999_999)), (0, 3, false));
        assert!(stream.chance(MILLION));
    }

    #[test]
    fn shrinking_keeps_what_makes_it_fail_and_little_else() {
        let mut tape = Tape::default();
        tape.streams.insert("a".into(), (0..200).collect());
        tape.streams.insert("b".into(), alloc::vec![9; 50]);
        let fails = |tape: &Tape| tape.streams.get("a").is_some_and(|chosen| chosen.contains(&77));
        let least = tape.shrunk(2000, fails);
        let chosen = &least.streams["a"];
        assert!(
            least.streams.len() == 1 && chosen.len() <= 78 && chosen.iter().filter(|choice| **choice > 0).count() == 1
        );
    }

    #[test]
    fn bytes_and_branches_drive_the_same_streams() {
        let mut bytes = Choices::shared(common(Bytes::new(alloc::vec![255, 255, 7]))).stream("any");
        assert!(bytes.chance(1000));
        assert_eq!((bytes.pick(10), bytes.pick(10), bytes.chance(999_000)), (7, 0, false));

        let branches = shared(Branches::new());
        let mut runs = Vec::new();
        while locked(&branches).begin() {
            let mut choices = Choices::shared(branches.clone());
            let (mut one, mut two) = (choices.stream("one"), choices.stream("two"));
            runs.push(format!("{} {} {}", one.chance(1), two.range(10..=90), one.pick(2)));
        }
        assert_eq!(runs.len(), 8);
        assert_eq!((runs[0].as_str(), runs[7].as_str()), ("false 10 0", "true 90 1"));
    }
}
