//! The config file as JSON objects, with the place of every field.

use std::collections::BTreeMap;
use std::ops::Range;

use kasm_autoscale_core::fields::{JsonObject, Problem};
use serde_json::{Number, Value};
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::text::{Place, Text};

/// A parsed file.
pub(super) struct Document {
    pub(super) text: Text,
    pub(super) root: JsonObject,
    spans: BTreeMap<String, Spans>,
}

/// Where a field stands, in bytes.
struct Spans {
    key: Range<usize>,
    value: Range<usize>,
}

/// Which end of a field.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum End {
    Key,
    Value,
}

/// What reading a file as TOML gave.
pub(super) struct Parsed {
    pub(super) document: Document,
    /// Errors of syntax and values TOML allows but no field takes.
    pub(super) problems: Vec<(Place, Problem)>,
    /// Whether the fields are what was meant, errors apart, so that checking them makes sense.
    pub(super) sound: bool,
}

impl Document {
    pub(super) fn parse(text: Text) -> Parsed {
        let (table, errors) = DeTable::parse_recoverable(&text.content);
        let mut builder = Builder { spans: BTreeMap::new(), problems: Vec::new() };
        let root = builder.table("", table.get_ref());
        let Builder { spans, problems } = builder;
        let mut sound = true;
        let mut found: Vec<(Place, Problem)> = Vec::new();
        for error in &errors {
            let (text_of_error, is_harmless) = explained(error.message());
            sound &= is_harmless;
            let at = text.place(error.span().map_or(0, |range| range.start));
            found.push((at, Problem::new("", "", format!("TOML syntax: {text_of_error}"))));
        }
        for (range, problem) in problems {
            let place = text.place(range.start);
            // A value that could not be read is a guess.
            if !found.iter().any(|(other, _)| other.line == place.line) {
                found.push((place, problem));
            }
        }
        let problems = found;
        Parsed { document: Self { text, root, spans }, problems, sound }
    }

    /// The place of a field. Of one that is not there it is the place of the table where it should be.
    pub(super) fn place(&self, path: &str, end: End) -> Place {
        let mut path = path;
        loop {
            if let Some(spans) = self.spans.get(path) {
                let range = if end == End::Key { &spans.key } else { &spans.value };
                return self.text.place(range.start);
            }
            match path.rfind(['.', '[']) {
                Some(cut) => path = &path[..cut],
                None => return self.text.place_at(1, 1),
            }
        }
    }

    /// The place of a line and column of the text that stands at `path`.
    pub(super) fn place_within(&self, path: &str, line: usize, column: usize) -> Place {
        match self.spans.get(path) {
            Some(spans) => {
                let raw = &self.text.content[spans.value.clone()];
                self.text.place(spans.value.start + offset_within(raw, line, column))
            }
            None => self.place(path, End::Value),
        }
    }
}

/// An error of the parser in words that help, and whether the rest of the file is read as it was meant all the same.
fn explained(message: &str) -> (String, bool) {
    match message {
        "duplicate key" => ("this field or table is there twice; keep one of them".into(), true),
        unquoted if unquoted.starts_with("string values must be quoted") => ("a text stands in quotes".into(), true),
        number if number.starts_with("invalid float") || number.starts_with("invalid integer") => {
            ("this is no number; a text stands in quotes".into(), true)
        }
        other => (format!("{other}; fields are checked once this is mended"), false),
    }
}

struct Builder {
    spans: BTreeMap<String, Spans>,
    problems: Vec<(Range<usize>, Problem)>,
}

impl Builder {
    fn table(&mut self, path: &str, table: &DeTable<'_>) -> JsonObject {
        let mut object = JsonObject::new();
        for (key, value) in table {
            let path = if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
            object.insert(key.get_ref().to_string(), self.value(path, key.span(), value));
        }
        object
    }

    fn value(&mut self, path: String, key: Range<usize>, value: &Spanned<DeValue<'_>>) -> Value {
        let json = match value.get_ref() {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Boolean(boolean) => Value::Bool(*boolean),
            DeValue::Integer(integer) => number(integer).unwrap_or_else(|| {
                self.problem(value.span(), &path, &integer.to_string(), "a number that fits into 64 bits");
                Value::Null
            }),
            DeValue::Float(float) => float.as_str().parse().ok().and_then(Number::from_f64).map_or_else(
                || {
                    self.problem(value.span(), &path, float.as_str(), "a finite number");
                    Value::Null
                },
                Value::Number,
            ),
            DeValue::Datetime(time) => {
                self.problem(
                    value.span(),
                    &path,
                    &time.to_string(),
                    "no field takes a date or time; a text stands in quotes",
                );
                Value::Null
            }
            DeValue::Array(items) => {
                let item = |(index, item): (usize, &Spanned<DeValue<'_>>)| {
                    self.value(format!("{path}[{index}]"), item.span(), item)
                };
                Value::Array(items.iter().enumerate().map(item).collect())
            }
            DeValue::Table(table) => Value::Object(self.table(&path, table)),
        };
        self.spans.insert(path, Spans { key, value: value.span() });
        json
    }

    fn problem(&mut self, range: Range<usize>, path: &str, given: &str, allowed: &str) {
        self.problems.push((range, Problem::new(path, given, allowed)));
    }
}

fn number(integer: &DeInteger<'_>) -> Option<Value> {
    let (digits, radix) = (integer.as_str(), integer.radix());
    let unsigned = u64::from_str_radix(digits, radix).map(Value::from);
    unsigned.or_else(|_| i64::from_str_radix(digits, radix).map(Value::from)).ok()
}

/// How far into a TOML string, as it stands in the file with its quotes, a line and column of its value are found.
fn offset_within(raw: &str, line: usize, column: usize) -> usize {
    let basic = raw.starts_with('"');
    let long = raw.starts_with("\"\"\"") || raw.starts_with("'''");
    let mut at = if long { 3 } else { 1 };
    if long {
        // The line end right after the opening quotes is no part of the value.
        at += ["\r\n", "\n"].into_iter().find(|end| raw[at..].starts_with(end)).map_or(0, str::len);
    }
    let (mut here, mut last) = ((1, 1), at);
    while here <= (line, column) {
        last = at;
        let Some((bytes, decoded)) = raw.get(at..).and_then(|rest| step(rest, basic)) else { break };
        at += bytes;
        here = match decoded {
            Some('\n') => (here.0 + 1, 1),
            Some(_) => (here.0, here.1 + 1),
            None => here,
        };
    }
    last
}

/// The first character of a string's value as it stands in the file: its bytes there, and what it is. `None` for what
/// is no part of the value.
fn step(rest: &str, basic: bool) -> Option<(usize, Option<char>)> {
    let first = rest.chars().next()?;
    if !(basic && first == '\\') {
        return Some((first.len_utf8(), Some(first)));
    }
    let after = &rest[1..];
    match after.chars().next()? {
        'n' => Some((2, Some('\n'))),
        'x' => Some((4, Some('x'))),
        'u' => Some((6, Some('u'))),
        'U' => Some((10, Some('U'))),
        // A backslash at the end of a line swallows all white space up to the next character.
        white if white.is_ascii_whitespace() => Some((1 + after.len() - after.trim_start().len(), None)),
        other => Some((1 + other.len_utf8(), Some(other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(toml: &str, wanted: &[(usize, usize)]) -> Vec<(usize, usize)> {
        let parsed = Document::parse(Text::new("x".as_ref(), toml.into()));
        assert!(parsed.problems.is_empty());
        let place = |(line, column): &(usize, usize)| parsed.document.place_within("s", *line, *column);
        wanted.iter().map(place).map(|place| (place.line, place.column)).collect()
    }

    #[test]
    fn lines_of_a_string_are_found_in_the_file() {
        let wanted = [(1, 1), (1, 3), (2, 1), (2, 2)];
        assert_eq!(places("a = 1\ns = '''\nabc\ndef'''\n", &wanted), [(3, 1), (3, 3), (4, 1), (4, 2)]);
        assert_eq!(places("s = '''abc\r\ndef'''\n", &wanted), [(1, 8), (1, 10), (2, 1), (2, 2)]);
        assert_eq!(places("s = \"abc\\ndef\"\n", &wanted), [(1, 6), (1, 8), (1, 11), (1, 12)]);
        assert_eq!(places("s = 'abc'\n", &[(1, 2)]), [(1, 7)]);
        assert_eq!(places("s = \"\"\"\n\\u00e4b\\\n   c\nde\"\"\"", &wanted), [(2, 1), (3, 4), (4, 1), (4, 2)]);
    }

    #[test]
    fn a_place_that_is_not_there_is_the_nearest_one() {
        assert_eq!(places("s = '''\nab\n\ncd'''\n", &[(1, 9), (2, 5)]), [(2, 3), (3, 1)]);
        assert_eq!(places("s = 'ab'\n", &[(7, 9), (0, 0)]), [(1, 9), (1, 6)]);
    }
}
