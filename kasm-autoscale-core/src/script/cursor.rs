//! A walk over a script's text in which placeholders are symbols of their own.
//!
//! Both languages are followed in this form: a placeholder is never mistaken for a quote, a newline or whatever its name
//! or value may hold, which is just what rendering guarantees later.

use alloc::vec;
use alloc::vec::Vec;

use super::Variable;
use super::context::Context;
use super::error::ScriptErrorKind;

/// A character of the text after its braces are undone, or a placeholder by its number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Symbol {
    Char(char),
    Hole(usize),
}

/// Why no value at all could stand at a placeholder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// After this escape character.
    AfterEscape(char),
    /// In the name of a variable of the script's own.
    InName,
}

impl Fault {
    pub(super) fn of(self, variable: Variable) -> ScriptErrorKind {
        match self {
            Self::AfterEscape(escape) => ScriptErrorKind::AfterEscape { variable, escape },
            Self::InName => ScriptErrorKind::InName { variable },
        }
    }
}

/// What is known of a placeholder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) context: Context,
    pub(super) fault: Option<Fault>,
}

/// The rest of the text cannot be followed any more: it is not certain what it is, or it ends inside a string.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Lost {
    /// From this line on. What came before was understood.
    From { line: usize },
    /// What begins on this line is never closed. Most likely the strings were followed wrongly from some earlier place on.
    Unclosed { line: usize },
}

/// A place in the text, and what was found on the way there.
pub(super) struct Cursor<'a> {
    symbols: &'a [Symbol],
    at: usize,
    line: usize,
    pub(super) found: Vec<Found>,
}

impl<'a> Cursor<'a> {
    /// At the start of `symbols`, which has placeholders below `holes`. All of them have the context `initial` as long as
    /// nothing else is found.
    pub(super) fn new(symbols: &'a [Symbol], holes: usize, initial: Context) -> Self {
        Self { symbols, at: 0, line: 1, found: vec![Found { context: initial, fault: None }; holes] }
    }

    pub(super) fn line(&self) -> usize {
        self.line
    }

    pub(super) fn next(&mut self) -> Option<Symbol> {
        let symbol = self.peek()?;
        self.at += 1;
        self.line += usize::from(symbol == Symbol::Char('\n'));
        Some(symbol)
    }

    /// The next `count` symbols are of no interest.
    pub(super) fn skip(&mut self, count: usize) {
        for _ in 0..count {
            self.next();
        }
    }

    pub(super) fn peek(&self) -> Option<Symbol> {
        self.symbols.get(self.at).copied()
    }

    /// The character `ahead` places after the next one, if it is one.
    pub(super) fn char_at(&self, ahead: usize) -> Option<char> {
        match self.symbols.get(self.at + ahead) {
            Some(Symbol::Char(c)) => Some(*c),
            Some(Symbol::Hole(_)) | None => None,
        }
    }

    /// The next character, if it is one that `wanted` accepts.
    pub(super) fn next_is(&self, wanted: impl Fn(char) -> bool) -> bool {
        self.char_at(0).is_some_and(wanted)
    }

    /// Whether the text goes on with `word`; ASCII letters match in both cases.
    pub(super) fn goes_on_with(&self, word: &str) -> bool {
        word.chars()
            .enumerate()
            .all(|(ahead, c)| self.char_at(ahead).is_some_and(|given| given.eq_ignore_ascii_case(&c)))
    }

    /// Whether the line ends `ahead` symbols from here.
    pub(super) fn is_line_end(&self, ahead: usize) -> bool {
        matches!(self.symbols.get(self.at + ahead), None | Some(Symbol::Char('\n')))
    }

    /// The symbols from here to the end of the line, without its line break.
    pub(super) fn rest_of_line(&self) -> &'a [Symbol] {
        let rest = &self.symbols[self.at..];
        let end = rest.iter().position(|symbol| matches!(symbol, Symbol::Char('\r' | '\n'))).unwrap_or(rest.len());
        &rest[..end]
    }

    /// What stands before the symbol that was just read, nearest first.
    pub(super) fn before(&self) -> impl Iterator<Item = Symbol> {
        self.symbols[..self.at.saturating_sub(1)].iter().rev().copied()
    }

    pub(super) fn end(&mut self) {
        self.at = self.symbols.len();
    }

    pub(super) fn mark(&mut self, hole: usize, context: Context) {
        self.found[hole].context = context;
    }

    /// If a placeholder comes next, it has this fault. It stays the next symbol.
    pub(super) fn fault_if_hole(&mut self, fault: Fault) -> bool {
        let Some(Symbol::Hole(hole)) = self.peek() else { return false };
        self.found[hole].fault = Some(fault);
        true
    }

    /// Turns what was not understood into the context that expects the worst. `escape` is the language's escape character.
    pub(super) fn give_up(&mut self, lost: Lost, escape: char) {
        let (from, line) = match lost {
            Lost::From { line } => (self.at, line),
            Lost::Unclosed { line } => (0, line),
        };
        for at in from..self.symbols.len() {
            if let Symbol::Hole(hole) = self.symbols[at] {
                let found = &mut self.found[hole];
                found.context = Context::Unclear { line };
                found.fault = found.fault.or(suspected_fault(&self.symbols[..at], escape));
            }
        }
        self.end();
    }
}

/// The fault a placeholder after these symbols would have if they were code, which they may be.
fn suspected_fault(before: &[Symbol], escape: char) -> Option<Fault> {
    let run = |end: usize, wanted: char| {
        before[..end].iter().rev().take_while(|symbol| **symbol == Symbol::Char(wanted)).count()
    };
    if escape == '`' && run(before.len(), escape) % 2 == 1 {
        return Some(Fault::AfterEscape(escape));
    }
    let is_in_name =
        |symbol: &&Symbol| matches!(symbol, Symbol::Char(c) if c.is_alphanumeric() || matches!(c, '_' | ':' | '?'));
    let name_start = before.len() - before.iter().rev().take_while(is_in_name).count();
    let dollars = run(name_start, '$');
    let escaped = run(name_start - dollars, escape) % 2;
    // Two of them are a variable of their own.
    (dollars > escaped && (dollars - escaped) % 2 == 1).then_some(Fault::InName)
}
