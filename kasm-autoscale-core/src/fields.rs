//! Reads an object of settings field by field and collects every mistake with its place, not just the first.
//!
//! One reader for all that people write: autoscale configs in the config file and in API bodies, and the machine settings
//! of every provider. A field nobody asked for is a mistake too, since it is most often a misspelt one.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::ops::RangeInclusive;
use core::str::FromStr;
use core::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::InvalidId;
use crate::time::Span;

/// A free JSON object, its keys in order.
pub type JsonObject = serde_json::Map<String, Value>;

/// One mistake in what people wrote: where, what was given, what is allowed and how to mend it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Problem {
    /// The field, with dots and indexes from the object's root, as in `machine.security_group_ids[1]`.
    pub path: String,
    /// What was given, shortened; never the value of a secret.
    pub given: String,
    /// What is allowed, or what to do.
    pub allowed: String,
}

impl Problem {
    /// A problem at `path`.
    pub fn new(path: impl Into<String>, given: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self { path: path.into(), given: given.into(), allowed: allowed.into() }
    }

    /// The same problem of an object that stands at `prefix` in a larger one.
    pub fn below(mut self, prefix: &str) -> Self {
        self.path = if self.path.is_empty() { prefix.to_owned() } else { format!("{prefix}.{}", self.path) };
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: given {}; {}", self.path, self.given, self.allowed)
    }
}

/// How many fields that nobody knows are told one by one. Looking for what each of them may have meant takes time, and an
/// object may hold nothing else.
const UNKNOWN_MAX: usize = 50;

/// A reader over one object. Take every known field, then [`finish`](Self::finish).
///
/// ```
/// use kasm_autoscale_core::fields::Fields;
/// let object = serde_json::from_str(r#"{"port": 99999, "prot": 1}"#).unwrap();
/// let mut fields = Fields::new(&object);
/// let port = fields.integer("port", 1..=65535).unwrap_or(3389);
/// let problems = fields.finish();
/// assert_eq!(port, 3389);
/// assert_eq!(problems[0].to_string(), "port: given 99999; a whole number from 1 to 65535");
/// assert_eq!(problems[1].to_string(), "prot: given 1; no such field; did you mean \"port\"?");
/// ```
#[derive(Debug)]
pub struct Fields<'a> {
    object: &'a JsonObject,
    known: Vec<&'static str>,
    problems: Vec<Problem>,
}

impl<'a> Fields<'a> {
    /// A reader that has read nothing yet.
    pub fn new(object: &'a JsonObject) -> Self {
        Self { object, known: Vec::new(), problems: Vec::new() }
    }

    /// The value of a field as it stands. `null` counts as absent.
    pub fn value(&mut self, name: &'static str) -> Option<&'a Value> {
        self.known.push(name);
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// Notes that a field that must be there is not, unless it is there with a mistake that has been noted already.
    pub fn require<T>(&mut self, name: &'static str, value: Option<T>, allowed: &str) -> Option<T> {
        if value.is_none() && !self.problems.iter().any(|problem| is_at(&problem.path, name)) {
            self.problems.push(Problem::new(name, "nothing", format!("required: {allowed}")));
        }
        value
    }

    /// Notes a mistake in a field.
    pub fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// A text, which may be empty.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        self.typed(name, "a text in quotes", |value| value.as_str().map(ToOwned::to_owned))
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, name: &'static str) -> Option<bool> {
        self.typed(name, "true or false", Value::as_bool)
    }

    /// A whole number within bounds.
    pub fn integer<T: TryFrom<u64>>(&mut self, name: &'static str, bounds: RangeInclusive<u64>) -> Option<T> {
        let allowed = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        self.typed(name, &allowed, |value| {
            value.as_u64().filter(|n| bounds.contains(n)).and_then(|n| T::try_from(n).ok())
        })
    }

    /// A duration within bounds: `"90s"`, `"30m"`, `"1h30m"` or a whole number of seconds.
    pub fn span(&mut self, name: &'static str, bounds: RangeInclusive<Duration>) -> Option<Duration> {
        let (least, most) = (Span(*bounds.start()), Span(*bounds.end()));
        let allowed =
            format!("a duration from \"{least}\" to \"{most}\", as in \"90s\" or \"1h30m\", or whole seconds");
        self.typed(name, &allowed, |value| {
            let span = match value {
                Value::String(text) => Span::parse(text)?.0,
                other => Duration::from_secs(other.as_u64()?),
            };
            bounds.contains(&span).then_some(span)
        })
    }

    /// A name or identifier.
    pub fn name<T: FromStr<Err = InvalidId>>(&mut self, name: &'static str) -> Option<T> {
        let text = self.text(name)?;
        text.parse()
            .map_err(|error: InvalidId| self.problems.push(Problem::new(name, quoted(&text), error.allowed)))
            .ok()
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, name: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let words: Vec<String> = choices.iter().map(|(word, _)| quoted(word)).collect();
        let allowed = format!("one of {}", words.join(", "));
        self.typed(name, &allowed, |value| {
            let given = value.as_str()?;
            choices.iter().find(|(word, _)| *word == given).map(|(_, choice)| *choice)
        })
    }

    /// An object.
    pub fn object(&mut self, name: &'static str) -> Option<&'a JsonObject> {
        let value = self.value(name)?;
        if value.as_object().is_none() {
            self.problems.push(Problem::new(name, shown(value), "an object (a table in TOML)"));
        }
        value.as_object()
    }

    /// A list of texts, none of them empty.
    pub fn texts(&mut self, name: &'static str) -> Option<Vec<String>> {
        let value = self.value(name)?;
        let Some(items) = value.as_array() else {
            self.problems.push(Problem::new(name, shown(value), "a list of texts"));
            return None;
        };
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match item.as_str() {
                Some(text) if !text.is_empty() => texts.push(text.to_owned()),
                _ => self.problems.push(Problem::new(
                    format!("{name}[{index}]"),
                    shown(item),
                    "a text that is not empty",
                )),
            }
        }
        Some(texts)
    }

    /// Every mistake, those in fields first, fields that nobody knows last, many of these in one. Empty: there was none.
    pub fn finish(mut self) -> Vec<Problem> {
        let is_known = |key: &String| self.known.iter().any(|known| *known == key);
        let mut unknown = self.object.iter().filter(|(key, _)| !is_known(key));
        for (key, value) in unknown.by_ref().take(UNKNOWN_MAX) {
            let allowed = match nearest(key, &self.known) {
                Some(name) => format!("no such field; did you mean {}?", quoted(name)),
                None => {
                    // Some are asked for twice.
                    let mut known: Vec<&str> = Vec::new();
                    self.known.iter().for_each(|name| known.extend((!known.contains(name)).then_some(*name)));
                    format!("no such field; the fields are {}", known.join(", "))
                }
            };
            let path = if key.is_empty() { "\"\"" } else { key };
            self.problems.push(Problem::new(path, shown(value), allowed));
        }
        let more = unknown.count();
        if more > 0 {
            self.problems.push(Problem::new("", format!("{more} more fields"), "no such fields"));
        }
        self.problems
    }

    fn typed<T>(&mut self, name: &'static str, allowed: &str, read: impl Fn(&'a Value) -> Option<T>) -> Option<T> {
        let value = self.value(name)?;
        let result = read(value);
        if result.is_none() {
            self.problems.push(Problem::new(name, shown(value), allowed));
        }
        result
    }
}

/// Whether a path leads to this field, or into it.
fn is_at(path: &str, name: &str) -> bool {
    path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// A value as it is shown in a message: JSON, at most 60 characters.
pub fn shown(value: &Value) -> String {
    shortened(&value.to_string())
}

fn quoted(text: &str) -> String {
    shown(&Value::String(text.into()))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(57) {
        Some((end, _)) if text.chars().count() > 60 => format!("{}...", &text[..end]),
        _ => text.to_owned(),
    }
}

/// The candidate that differs from `word` by at most two single-character edits, the nearest one first.
pub fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let near = candidates.iter().map(|candidate| (edits(word, candidate), *candidate));
    near.filter(|(distance, candidate)| *distance <= 2 && *distance < candidate.len()).min().map(|(_, name)| name)
}

/// Levenshtein's distance, row by row.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, from_char) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (index, to_char) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(from_char != *to_char);
            diagonal = row[index + 1];
            row[index + 1] = replaced.min(diagonal + 1).min(row[index] + 1);
        }
    }
    row[to.len()]
}
