//! Follows PowerShell through its strings and comments, as far as needed to know what a placeholder is part of.
//!
//! The rules are those of the Windows PowerShell Language Specification, chapter 2 (§2.2.3 comments, §2.3.2 variables, §2.3.5.2
//! strings and here-strings), and where it is silent those of PowerShell's tokenizer. The characters are those of its
//! `CharTraits`: five of them are single quotes, four are double quotes, and each ends a string that another one began.
//!
//! PowerShell reads words differently in commands and in expressions, which only its full parser can tell apart. Where that
//! could move the border of a string, the walk gives up ([`Lost`]).

use alloc::vec::Vec;

use super::context::Context;
use super::cursor::{Cursor, Fault, Found, Lost, Symbol};

pub(super) fn is_single_quote(c: char) -> bool {
    matches!(c, '\'' | '\u{2018}' | '\u{2019}' | '\u{201a}' | '\u{201b}')
}

pub(super) fn is_double_quote(c: char) -> bool {
    matches!(c, '"' | '\u{201c}' | '\u{201d}' | '\u{201e}')
}

fn is_dash(c: char) -> bool {
    matches!(c, '-' | '\u{2013}' | '\u{2014}' | '\u{2015}')
}

fn is_quote(c: char) -> bool {
    is_single_quote(c) || is_double_quote(c)
}

/// Characters no word goes on after, in commands as in expressions.
fn ends_word(c: char) -> bool {
    c.is_whitespace() || matches!(c, '(' | ')' | '{' | '}' | ',' | ';' | '|' | '&')
}

/// What was found of the placeholders of a whole text.
pub(super) fn scan(symbols: &[Symbol], holes: usize) -> Vec<Found> {
    let Some((start, end)) = section(symbols) else {
        return scan_section(symbols, holes, Context::Bare, 0);
    };
    let lines_before = symbols[..start].iter().filter(|symbol| **symbol == Symbol::Char('\n')).count();
    scan_section(&symbols[start..end], holes, Context::Outside, lines_before)
}

/// What lies between the first `<powershell>` and the tag that closes it, if there is one. EC2 looks for the tags in the
/// text, whatever PowerShell would make of them. A second section is left out: which one runs depends on the agent.
fn section(symbols: &[Symbol]) -> Option<(usize, usize)> {
    let starts_with = |at: &usize, tag: &str| Cursor::new(&symbols[*at..], 0, Context::Outside).goes_on_with(tag);
    let open = (0..symbols.len()).find(|at| starts_with(at, "<powershell>"))?;
    let start = open + "<powershell>".len();
    let end = (start..symbols.len()).find(|at| starts_with(at, "</powershell>")).unwrap_or(symbols.len());
    Some((start, end))
}

fn scan_section(symbols: &[Symbol], holes: usize, initial: Context, lines_before: usize) -> Vec<Found> {
    let mut walk =
        Walk { cursor: Cursor::new(symbols, holes, initial), word_start: true, inner_parens: 0, agrees: true };
    let byte_order_mark = walk.cursor.next_is(|c| c == '\u{feff}');
    walk.cursor.skip(usize::from(byte_order_mark));
    if let Err(lost) = walk.code() {
        walk.cursor.give_up(lost, '`');
    }
    for found in &mut walk.cursor.found {
        if let Context::Unclear { line } = &mut found.context {
            *line += lines_before;
        }
    }
    walk.cursor.found
}

struct Walk<'a> {
    cursor: Cursor<'a>,
    /// Whether a new word begins here for certain.
    word_start: bool,
    /// How many parentheses are open since a `$(` inside a word. If the word is a command's, PowerShell first looks for
    /// the end of it by counting parentheses alone, those in strings too; if not, it reads it as code like any other.
    inner_parens: usize,
    /// Whether both ways to read such a `$(` have agreed so far.
    agrees: bool,
}

impl Walk<'_> {
    fn lost(&self) -> Lost {
        Lost::From { line: self.cursor.line() }
    }

    fn mark(&mut self, hole: usize, context: Context) {
        // A value may hold parentheses, which would count.
        self.cursor.mark(hole, if self.inner_parens > 0 { Context::Expansion } else { context });
    }

    fn code(&mut self) -> Result<(), Lost> {
        while let Some(symbol) = self.cursor.next() {
            let was_start = core::mem::replace(&mut self.word_start, false);
            match symbol {
                Symbol::Hole(hole) => self.mark(hole, Context::Bare),
                Symbol::Char(c) if is_single_quote(c) => self.single_quoted()?,
                Symbol::Char(c) if is_double_quote(c) => self.double_quoted()?,
                Symbol::Char('`') => self.backtick(was_start),
                Symbol::Char('$') => self.dollar(was_start)?,
                Symbol::Char('#') if was_start => self.line_comment(),
                Symbol::Char('#') => self.unclear_line()?,
                Symbol::Char('<') if self.cursor.next_is(|c| c == '#') => self.block_comment(was_start)?,
                Symbol::Char('@') if self.cursor.next_is(is_quote) => self.here_string(was_start)?,
                Symbol::Char(c)
                    if is_dash(c)
                        && was_start
                        && self.cursor.next_is(is_dash)
                        && self.cursor.char_at(1) == Some('%') =>
                {
                    self.unclear_line()?
                }
                Symbol::Char(c) => {
                    self.word_start = ends_word(c);
                    self.count_parens(c);
                }
            }
            if !self.agrees {
                return Err(self.lost());
            }
        }
        Ok(())
    }

    fn count_parens(&mut self, c: char) {
        match c {
            '(' if self.inner_parens > 0 => self.inner_parens += 1,
            ')' if self.inner_parens > 0 => {
                self.inner_parens -= 1;
                // The word that `$(` was in the middle of may go on.
                self.word_start &= self.inner_parens > 0;
            }
            _ => {}
        }
    }

    /// A character inside a string or comment. Parentheses there, and pairs of quotes, are what the two ways to read a `$(` inside
    /// a word differ about.
    fn inside(&mut self, c: char) {
        if self.inner_parens > 0 && matches!(c, '(' | ')' | '`') {
            self.agrees = false;
        }
    }

    fn single_quoted(&mut self) -> Result<(), Lost> {
        let line = self.cursor.line();
        while let Some(symbol) = self.cursor.next() {
            match symbol {
                Symbol::Hole(hole) => self.mark(hole, Context::SingleQuoted),
                Symbol::Char(c) if is_single_quote(c) => {
                    if !self.cursor.next_is(is_single_quote) {
                        return Ok(());
                    }
                    self.cursor.skip(1);
                }
                Symbol::Char(c) => self.inside(c),
            }
        }
        Err(Lost::Unclosed { line })
    }

    fn double_quoted(&mut self) -> Result<(), Lost> {
        let line = self.cursor.line();
        if self.inner_parens > 0 && self.cursor.next_is(is_double_quote) {
            self.agrees = false;
        }
        while let Some(symbol) = self.cursor.next() {
            match symbol {
                Symbol::Hole(hole) => self.mark(hole, Context::DoubleQuoted),
                Symbol::Char(c) if is_double_quote(c) => {
                    if !self.cursor.next_is(is_double_quote) {
                        return Ok(());
                    }
                    self.agrees &= self.inner_parens == 0;
                    self.cursor.skip(1);
                }
                Symbol::Char(c) => {
                    self.inside(c);
                    self.expandable(c)?;
                }
            }
        }
        Err(Lost::Unclosed { line })
    }

    /// A character of a string in which variables are expanded.
    fn expandable(&mut self, c: char) -> Result<(), Lost> {
        match c {
            '`' if !self.cursor.fault_if_hole(Fault::AfterEscape('`')) => self.cursor.skip(1),
            '$' if self.cursor.next_is(|c| c == '(') => self.counted_parens()?,
            '$' => self.variable()?,
            _ => {}
        }
        Ok(())
    }

    /// Code in a string. Its end is found by counting parentheses alone, so not even a string in it could hold a value safely.
    fn counted_parens(&mut self) -> Result<(), Lost> {
        let line = self.cursor.line();
        self.agrees &= self.inner_parens == 0;
        let mut open = 0;
        while let Some(symbol) = self.cursor.next() {
            match symbol {
                Symbol::Hole(hole) => self.mark(hole, Context::Expansion),
                Symbol::Char('(') => open += 1,
                Symbol::Char(')') if open == 1 => return Ok(()),
                Symbol::Char(')') => open -= 1,
                Symbol::Char(_) => {}
            }
        }
        Err(Lost::Unclosed { line })
    }

    /// After a `$` in code.
    fn dollar(&mut self, was_start: bool) -> Result<(), Lost> {
        if !self.cursor.next_is(|c| c == '(') {
            return self.variable();
        }
        if !was_start && self.inner_parens == 0 {
            self.cursor.skip(1);
            (self.inner_parens, self.word_start) = (1, true);
        }
        Ok(())
    }

    /// After a `$` that does not begin `$(`.
    fn variable(&mut self) -> Result<(), Lost> {
        if self.cursor.fault_if_hole(Fault::InName) {
            return Ok(());
        }
        match self.cursor.char_at(0) {
            Some('{') => return self.braced_variable(),
            Some('$' | '?' | '^') => {
                self.cursor.skip(1);
                return Ok(());
            }
            _ => {}
        }
        let mut length = 0;
        while let Some(c) = self.cursor.char_at(length) {
            // `$a::b` is a static member of `$a`; a single colon belongs to the name, as in `$env:PATH`.
            let in_name = c.is_alphanumeric()
                || matches!(c, '_' | '?')
                || (c == ':' && self.cursor.char_at(length + 1) != Some(':'));
            if !in_name {
                break;
            }
            length += 1;
        }
        self.cursor.skip(length);
        if length > 0 {
            self.cursor.fault_if_hole(Fault::InName);
        }
        Ok(())
    }

    fn braced_variable(&mut self) -> Result<(), Lost> {
        let line = self.cursor.line();
        while let Some(symbol) = self.cursor.next() {
            match symbol {
                Symbol::Hole(hole) => self.mark(hole, Context::Expansion),
                Symbol::Char('}') => return Ok(()),
                Symbol::Char('`') if !self.cursor.fault_if_hole(Fault::AfterEscape('`')) => self.cursor.skip(1),
                Symbol::Char(c) => self.agrees &= self.inner_parens == 0 || !(is_quote(c) || matches!(c, '(' | ')')),
            }
        }
        Err(Lost::Unclosed { line })
    }

    /// A backtick in code: the next character loses its meaning. Before a blank at the beginning of a word, that is all.
    fn backtick(&mut self, was_start: bool) {
        self.inside('`');
        if self.cursor.fault_if_hole(Fault::AfterEscape('`')) {
            return;
        }
        self.word_start = was_start && self.cursor.next_is(char::is_whitespace);
        self.cursor.skip(1);
    }

    fn line_comment(&mut self) {
        for symbol in self.cursor.rest_of_line() {
            self.cursor.next();
            match *symbol {
                Symbol::Hole(hole) => self.mark(hole, Context::LineComment),
                Symbol::Char(c) => self.agrees &= self.inner_parens == 0 || !(is_quote(c) || matches!(c, '(' | ')')),
            }
        }
    }

    fn block_comment(&mut self, was_start: bool) -> Result<(), Lost> {
        if !was_start {
            return Err(self.lost());
        }
        let line = self.cursor.line();
        self.cursor.skip(1);
        while let Some(symbol) = self.cursor.next() {
            match symbol {
                Symbol::Hole(hole) => self.mark(hole, Context::BlockComment),
                Symbol::Char('#') if self.cursor.next_is(|c| c == '>') => {
                    self.cursor.skip(1);
                    self.word_start = true;
                    return Ok(());
                }
                Symbol::Char(c) => self.agrees &= self.inner_parens == 0 || !(is_quote(c) || matches!(c, '(' | ')')),
            }
        }
        Err(Lost::Unclosed { line })
    }

    /// The rest of a line that is a comment or not, or is passed on as it is (`--%`). That does not matter as long as it has
    /// nothing in it that would begin, end or lengthen something.
    fn unclear_line(&mut self) -> Result<(), Lost> {
        let rest = self.cursor.rest_of_line();
        let is_tame = |symbol: &Symbol| match symbol {
            Symbol::Hole(_) => true,
            Symbol::Char(c) => !is_quote(*c) && !matches!(c, '`' | '<' | '$'),
        };
        if self.inner_parens > 0 || !rest.iter().all(is_tame) {
            return Err(self.lost());
        }
        for symbol in rest {
            self.cursor.next();
            if let Symbol::Hole(hole) = *symbol {
                self.mark(hole, Context::Bare);
            }
        }
        Ok(())
    }

    /// After the `@` of `@'` or `@"`.
    fn here_string(&mut self, was_start: bool) -> Result<(), Lost> {
        let is_blank = |symbol: &Symbol| matches!(symbol, Symbol::Char(c) if c.is_whitespace());
        let header_is_alone = self.cursor.rest_of_line()[1..].iter().all(is_blank);
        if !header_is_alone || self.inner_parens > 0 || !(was_start || self.after_assignment()) {
            return Err(self.lost());
        }
        let line = self.cursor.line();
        let expands = self.cursor.next_is(is_double_quote);
        let (is_own_quote, context): (fn(char) -> bool, _) = if expands {
            (is_double_quote, Context::DoubleHereString)
        } else {
            (is_single_quote, Context::SingleHereString)
        };
        self.cursor.skip(self.cursor.rest_of_line().len());
        while let Some(symbol) = self.cursor.next() {
            match symbol {
                Symbol::Hole(hole) => self.mark(hole, context),
                Symbol::Char(c @ ('\r' | '\n')) => {
                    let both = c == '\r' && self.cursor.next_is(|c| c == '\n');
                    self.cursor.skip(usize::from(both));
                    // Only at the very beginning of a line.
                    if self.cursor.next_is(is_own_quote) && self.cursor.char_at(1) == Some('@') {
                        self.cursor.skip(2);
                        return Ok(());
                    }
                }
                Symbol::Char(c) if expands => self.expandable(c)?,
                Symbol::Char(_) => {}
            }
        }
        Err(Lost::Unclosed { line })
    }

    /// Whether a statement begins with `$name=` before the character just read: what follows is an expression then. A command
    /// would take the same characters for a part of one of its words.
    fn after_assignment(&self) -> bool {
        let is_in_name =
            |symbol: &Symbol| matches!(symbol, Symbol::Char(c) if c.is_alphanumeric() || matches!(c, '_' | ':' | '+'));
        let is_blank = |symbol: &Symbol| matches!(symbol, Symbol::Char(' ' | '\t' | '\r'));
        let mut before = self.cursor.before();
        if before.next() != Some(Symbol::Char('='))
            || before.find(|symbol| !is_in_name(symbol)) != Some(Symbol::Char('$'))
        {
            return false;
        }
        match before.find(|symbol| !is_blank(symbol)) {
            None | Some(Symbol::Char(';' | '{')) => true,
            // A line that ends with a comma or a backtick goes on.
            Some(Symbol::Char('\n')) => {
                !matches!(before.find(|symbol| !is_blank(symbol)), Some(Symbol::Char(',' | '`')))
            }
            Some(_) => false,
        }
    }
}
