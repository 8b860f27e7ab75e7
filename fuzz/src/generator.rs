//! Inputs for the stable toolchain: examples that are changed a little, by bytes, by words or by their JSON.

use kasm_autoscale_core::testing::entropy::{Entropy, Seeded};
use serde_json::{Value, json};

use crate::{SEPARATOR, Target};

/// What inputs look like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// Texts, or bytes of any kind.
    Bytes,
    /// JSON: mostly changed as such, so that it stays JSON.
    Json,
    /// Choices: nothing in them means anything by itself.
    Noise {
        /// The most bytes there are.
        most: u64,
    },
}

/// The longest input.
const BYTES_MAX: usize = 16 * 1024;

/// Characters that some language gives a meaning to.
const SPECIAL: &[u8] = b"{}[]()<>\"'`$\\/;:,.=+-*&|!?#%@~^ \n\r\t\0_0a";

/// Numbers at the edges of what can be held.
const NUMBERS: [&str; 14] = [
    "0",
    "-1",
    "1",
    "127",
    "255",
    "65535",
    "65536",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "1e400",
];

/// Draws inputs for one target.
#[derive(Debug)]
pub struct Generator {
    target: Target,
    entropy: Seeded,
    examples: Vec<Vec<u8>>,
    /// The same, of those that are JSON.
    values: Vec<Value>,
}

impl Generator {
    /// The generator of a target that begins at this seed.
    pub fn new(target: &Target, seed: u64) -> Self {
        let examples = (target.examples)();
        let values = examples.iter().filter_map(|example| serde_json::from_slice(example).ok()).collect();
        Self { target: *target, entropy: Seeded::stream(seed, target.name), examples, values }
    }

    /// The next input.
    pub fn next_input(&mut self) -> Vec<u8> {
        if let Shape::Noise { most } = self.target.shape {
            let length = self.entropy.range(0..=most);
            // Calm stretches among the noise: where all is noise, everything fails at once and nothing is ever far on.
            let calm = self.below(4);
            let mut bytes = Vec::new();
            while (bytes.len() as u64) < length {
                let byte =
                    if self.entropy.pick(4) < calm as u64 { self.entropy.pick(8) } else { self.entropy.pick(256) };
                bytes.push(u8::try_from(byte).unwrap_or_default());
            }
            return bytes;
        }
        if self.entropy.chance(20_000) {
            return self.noise();
        }
        let mut input = if self.target.shape == Shape::Json && !self.values.is_empty() && self.entropy.chance(850_000) {
            let index = self.below(self.values.len());
            let mut value = self.values[index].clone();
            for _ in 0..self.below(4) {
                self.change_value(&mut value);
            }
            let bytes = serde_json::to_vec(&value).unwrap_or_default();
            if !self.entropy.chance(50_000) {
                return bytes;
            }
            bytes
        } else {
            let index = self.below(self.examples.len());
            self.examples.get(index).cloned().unwrap_or_default()
        };
        for _ in 0..self.below(6) {
            self.change(&mut input);
        }
        input.truncate(BYTES_MAX);
        input
    }

    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.entropy.pick(count as u64)).unwrap_or_default()
    }

    fn noise(&mut self) -> Vec<u8> {
        let length = self.below(64);
        (0..length).map(|_| u8::try_from(self.entropy.pick(256)).unwrap_or_default()).collect()
    }

    fn word(&mut self) -> Vec<u8> {
        if self.target.words.is_empty() || self.entropy.chance(100_000) {
            return self.number().as_bytes().to_vec();
        }
        let index = self.below(self.target.words.len());
        self.target.words[index].as_bytes().to_vec()
    }

    fn number(&mut self) -> &'static str {
        NUMBERS[self.below(NUMBERS.len())]
    }

    /// A piece of an input: mostly a short one.
    fn piece(&mut self, length: usize) -> std::ops::Range<usize> {
        let from = self.below(length + 1);
        let most = if self.entropy.chance(800_000) { 8 } else { length };
        let to = (from + self.below(most + 1)).min(length);
        from..to
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        match self.entropy.pick(11) {
            0 if at < input.len() => input[at] ^= 1 << self.entropy.pick(8),
            1 if at < input.len() => input[at] = SPECIAL[self.below(SPECIAL.len())],
            2 => {
                let piece = self.piece(input.len());
                input.drain(piece);
            }
            3 => {
                let piece = self.piece(input.len());
                let copied = input[piece].to_vec();
                let most = if self.entropy.chance(950_000) { 2 } else { 300 };
                for _ in 0..=self.below(most) {
                    if input.len() < BYTES_MAX {
                        input.splice(at..at, copied.iter().copied());
                    }
                }
            }
            4 => {
                let word = self.word();
                input.splice(at..at, word);
            }
            5 => {
                let (piece, word) = (self.piece(input.len()), self.word());
                input.splice(piece, word);
            }
            6 => {
                let index = self.below(self.examples.len());
                let Some(other) = self.examples.get(index).cloned() else { return };
                let piece = self.piece(other.len());
                input.splice(at..at, other[piece].iter().copied());
            }
            7 => input.truncate(at),
            8 => {
                let character = ['é', '‘', '“', '\u{2028}', '\u{1f600}', 'ſ', '\u{feff}', 'K'][self.below(8)];
                input.splice(at..at, character.to_string().into_bytes());
            }
            9 => {
                // The number that stands there, or the next one.
                let Some(from) = input.iter().skip(at).position(u8::is_ascii_digit).map(|from| at + from) else {
                    return;
                };
                let digits = input[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                let number = self.number();
                input.splice(from..from + digits, number.bytes());
            }
            _ => {
                let special = if self.entropy.chance(50_000) { SEPARATOR } else { SPECIAL[self.below(SPECIAL.len())] };
                input.insert(at, special);
            }
        }
    }

    /// Changes something somewhere in a JSON value.
    fn change_value(&mut self, value: &mut Value) {
        // Where to: down, until a coin says that it is here.
        let mut here = value;
        loop {
            let stays = self.entropy.chance(150_000);
            let count = match &*here {
                Value::Array(items) if !stays => items.len(),
                Value::Object(fields) if !stays => fields.len(),
                _ => 0,
            };
            if count == 0 {
                break;
            }
            let index = self.below(count);
            let next = match here {
                Value::Array(items) => items.get_mut(index),
                Value::Object(fields) => fields.values_mut().nth(index),
                _ => None,
            };
            match next {
                Some(next) => here = next,
                None => return,
            }
        }
        match (self.entropy.pick(6), &mut *here) {
            (0 | 1, Value::Object(fields)) if !fields.is_empty() => {
                let name = fields.keys().nth(self.below(fields.len())).cloned().unwrap_or_default();
                let value = fields.remove(&name);
                if self.entropy.chance(300_000) {
                    let name = String::from_utf8_lossy(&self.word()).into_owned();
                    fields.extend(value.map(|value| (name, value)));
                }
            }
            (0 | 1, Value::Array(items)) if !items.is_empty() => {
                let index = self.below(items.len());
                let item = items[index].clone();
                if self.entropy.chance(500_000) {
                    items.remove(index);
                } else {
                    items.push(item);
                }
            }
            (0..=2, Value::String(text)) => {
                let mut bytes = text.clone().into_bytes();
                self.change(&mut bytes);
                *text = String::from_utf8_lossy(&bytes).into_owned();
            }
            (0..=3, Value::Number(_)) => {
                let drawn = self.entropy.pick(10);
                *here = serde_json::from_str(self.number()).unwrap_or_else(|_| json!(drawn));
            }
            _ => *here = self.value(),
        }
    }

    fn value(&mut self) -> Value {
        match self.entropy.pick(9) {
            0 => Value::Null,
            1 => json!(self.entropy.chance(500_000)),
            2 => serde_json::from_str(self.number()).unwrap_or_default(),
            3 | 4 => json!(String::from_utf8_lossy(&self.word())),
            5 => json!([]),
            6 => json!({}),
            7 => json!(self.entropy.pick(20)),
            _ => {
                // Some other part of some other example.
                let index = self.below(self.values.len());
                let path: Vec<usize> = (0..self.below(6)).map(|_| self.below(64)).collect();
                let Some(mut part) = self.values.get(index) else { return Value::Null };
                for step in path {
                    let next = match part {
                        Value::Array(items) => items.get(step % items.len().max(1)),
                        Value::Object(fields) => fields.values().nth(step % fields.len().max(1)),
                        _ => None,
                    };
                    part = next.unwrap_or(part);
                }
                part.clone()
            }
        }
    }
}
