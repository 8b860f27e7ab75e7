//! Mistakes and warnings, each with its place.

use std::fmt;

use kasm_autoscale_core::fields::Problem;

use super::document::{Document, End};
use super::text::Place;

/// A mistake in the config file: nothing is started with it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mistake {
    /// Where it is.
    pub place: Place,
    /// What it is. The path starts at the root of the file.
    pub problem: Problem,
}

/// Something in the config file that is allowed but unwise.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Warning {
    /// Where it is.
    pub place: Place,
    /// What it is. The path starts at the root of the file.
    pub problem: Problem,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_line(f, "error", &self.place, &self.problem)
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_line(f, "warning", &self.place, &self.problem)
    }
}

/// One line, whatever the texts contain.
fn write_line(f: &mut fmt::Formatter<'_>, severity: &str, place: &Place, problem: &Problem) -> fmt::Result {
    let mut line = format!("{place}: {severity}: ");
    if !problem.path.is_empty() {
        line += &format!("{}: ", problem.path);
    }
    if !problem.given.is_empty() {
        line += &format!("given {}; ", problem.given);
    }
    line += &problem.allowed;
    line.chars().try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_default()) } else { write!(f, "{c}") })
}

/// Collects mistakes and warnings.
pub(super) struct Report<'a> {
    document: &'a Document,
    mistakes: Vec<Mistake>,
    warnings: Vec<Warning>,
}

impl<'a> Report<'a> {
    pub(super) fn new(document: &'a Document) -> Self {
        Self { document, mistakes: Vec::new(), warnings: Vec::new() }
    }

    /// Notes a mistake where its path says.
    pub(super) fn mistake(&mut self, problem: Problem) {
        // Of a field nobody knows, it is the name that is wrong.
        let end = if is_unknown_field(&problem) { End::Key } else { End::Value };
        self.mistake_at(self.document.place(&problem.path, end), problem);
    }

    pub(super) fn mistake_at(&mut self, place: Place, problem: Problem) {
        self.mistakes.push(Mistake { place, problem: discreet(problem) });
    }

    pub(super) fn warn(&mut self, problem: Problem) {
        self.warn_at(self.document.place(&problem.path, End::Value), problem);
    }

    pub(super) fn warn_at(&mut self, place: Place, problem: Problem) {
        self.warnings.push(Warning { place, problem: discreet(problem) });
    }

    /// How many mistakes there are so far.
    pub(super) fn count(&self) -> usize {
        self.mistakes.len()
    }

    /// All of them in the order of the file, and of other files after it. Two of the same text at the same place are one.
    pub(super) fn finish(self) -> (Vec<Mistake>, Vec<Warning>) {
        let main = &self.document.text.file;
        let order = |place: &Place, problem: &Problem| (place.file != *main, place.clone(), problem.path.clone());
        let (mut mistakes, mut warnings) = (self.mistakes, self.warnings);
        mistakes.sort_by_cached_key(|mistake| order(&mistake.place, &mistake.problem));
        warnings.sort_by_cached_key(|warning| order(&warning.place, &warning.problem));
        mistakes.dedup();
        warnings.dedup();
        (mistakes, warnings)
    }
}

fn is_unknown_field(problem: &Problem) -> bool {
    problem.allowed.starts_with("no such field")
}

/// The same problem without a text that may be a secret: whatever stands in a field that nobody knows, which may be a
/// secret's own misspelt, or in one whose name speaks of secrets, and everything that is more than one value.
fn discreet(mut problem: Problem) -> Problem {
    const WORDS: [&str; 7] = ["password", "passphrase", "secret", "token", "credential", "key", "info"];
    let field = problem.path.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let hides_text = is_unknown_field(&problem) || WORDS.iter().any(|word| field.contains(word));
    let kind = match problem.given.chars().next() {
        Some('{') if problem.given.starts_with("{\"") || problem.given == "{}" => "a table",
        Some('[') => "a list",
        Some('"') if hides_text => "a text (not shown)",
        _ => return problem,
    };
    problem.given = kind.into();
    problem
}
