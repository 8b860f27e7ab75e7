//! The braces: from a script's source to its text and placeholders.

use alloc::borrow::ToOwned;
use alloc::vec::Vec;

use super::Variable;
use super::cursor::Symbol;
use super::error::{ERRORS_MAX, ScriptError, ScriptErrorKind, UnknownVariable};

/// What lies between two braces is taken for a misspelt variable up to this many characters, else for code.
const NAME_CHARS_MAX: usize = 64;

/// A script with its braces read.
pub(super) struct Template {
    pub(super) symbols: Vec<Symbol>,
    /// By the numbers of the symbols.
    pub(super) holes: Vec<Hole>,
    pub(super) errors: Vec<ScriptError>,
}

/// A placeholder and where its `{` is.
#[derive(Clone, Copy)]
pub(super) struct Hole {
    /// None of an unknown variable: it is kept so that the text around it is understood as if it were known.
    pub(super) variable: Option<Variable>,
    pub(super) line: usize,
    pub(super) column: usize,
}

/// Reads a source. Follows Python's rule for literal text: of `{{` and `}}` the leftmost pair counts first.
pub(super) fn read(source: &str) -> Template {
    let mut template = Template { symbols: Vec::with_capacity(source.len()), holes: Vec::new(), errors: Vec::new() };
    let mut rest = source;
    let (mut line, mut column) = (1, 1);
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '{' | '}' => template.brace(rest, c, line, column),
            _ => {
                template.symbols.push(Symbol::Char(c));
                c.len_utf8()
            }
        };
        if c == '\n' {
            (line, column) = (line + 1, 1);
        } else {
            column += rest[..taken].chars().count();
        }
        rest = &rest[taken..];
    }
    template
}

impl Template {
    /// Reads what begins with the brace `rest` starts with; gives back how many bytes it is. Never goes past a line break.
    fn brace(&mut self, rest: &str, brace: char, line: usize, column: usize) -> usize {
        if rest[1..].starts_with(brace) {
            self.symbols.push(Symbol::Char(brace));
            return 2;
        }
        let field = if brace == '{' { field(rest) } else { None };
        let Some(field) = field else {
            self.symbols.push(Symbol::Char(brace));
            if self.errors.len() < ERRORS_MAX {
                self.errors.push(ScriptError { line, column, kind: ScriptErrorKind::StrayBrace { brace } });
            }
            return 1;
        };
        let variable = Variable::from_name(field);
        if variable.is_none() && self.errors.len() < ERRORS_MAX {
            self.errors.push(ScriptError { line, column, kind: mistake(field) });
        }
        self.symbols.push(Symbol::Hole(self.holes.len()));
        self.holes.push(Hole { variable, line, column });
        field.len() + 2
    }
}

/// What stands between the `{` that `rest` begins with and its `}`, if it looks like a variable and not like code.
fn field(rest: &str) -> Option<&str> {
    let inner = &rest[1..];
    let end = inner.char_indices().take(NAME_CHARS_MAX + 1).find(|(_, c)| matches!(c, '{' | '}' | '\r' | '\n'))?;
    let (field, '}') = (&inner[..end.0], end.1) else { return None };
    let name = plain(field);
    let looks_like_name = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
    looks_like_name.then_some(field)
}

/// The known name in a field, without what `str.format` would allow after it (an attribute, an index, a conversion, a
/// format), or the whole field.
fn plain(field: &str) -> &str {
    let end = field.find(['.', '[', '!', ':']).unwrap_or(field.len());
    let name = field[..end].trim();
    if Variable::from_name(name).is_some() { name } else { field.trim() }
}

fn mistake(field: &str) -> ScriptErrorKind {
    let name = plain(field);
    match Variable::from_name(name) {
        Some(variable) => ScriptErrorKind::NotPlain { variable, given: field.to_owned() },
        None => ScriptErrorKind::UnknownVariable(UnknownVariable::new(name)),
    }
}
