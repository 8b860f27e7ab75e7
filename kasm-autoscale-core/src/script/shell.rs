//! Follows a POSIX shell script through its strings, comments and here-documents, as far as needed to know what a
//! placeholder is part of.
//!
//! The rules are those of POSIX.1-2017, Shell Command Language: §2.2 quoting, §2.3 token recognition, §2.6 expansions,
//! §2.7.4 here-documents; beside them what bash adds (`$'…'`, `<<<`, `((…))`). Where shells differ, or where only a full
//! parser could find the end of something, the walk gives up ([`Lost`]).

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use super::context::{Context, Contexts};
use super::cursor::{Cursor, Fault, Lost, Symbol};

/// What the walk is inside of, beside code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Frame {
    /// `"…"`
    Quotes { line: usize },
    /// `${…}`
    Braces { line: usize },
    /// `$(…)` in one of the others, with its open parentheses.
    Command { line: usize, open: usize },
}

/// A here-document that has been announced and starts at the next line.
struct HereDocument {
    number: usize,
    strips_tabs: bool,
    expands: bool,
}

struct Walk<'a> {
    cursor: Cursor<'a>,
    /// Outermost first. Empty in plain code.
    frames: Vec<Frame>,
    /// Whether a new word begins here.
    word_start: bool,
    pending: VecDeque<HereDocument>,
    delimiters: Vec<String>,
}

/// What was found of the placeholders of a whole text.
pub(super) fn scan(symbols: &[Symbol], holes: usize) -> Contexts {
    let cursor = Cursor::new(symbols, holes, Context::Bare);
    let mut walk =
        Walk { cursor, frames: Vec::new(), word_start: true, pending: VecDeque::new(), delimiters: Vec::new() };
    if let Err(lost) = walk.text() {
        walk.cursor.give_up(lost, '\\');
    }
    Contexts { found: walk.cursor.found, delimiters: walk.delimiters }
}

impl Walk<'_> {
    fn lost(&self) -> Lost {
        Lost::From { line: self.cursor.line() }
    }

    fn text(&mut self) -> Result<(), Lost> {
        while let Some(symbol) = self.cursor.next() {
            match self.frames.last().copied() {
                Some(Frame::Quotes { .. }) => self.in_quotes(symbol)?,
                Some(Frame::Braces { .. }) => self.in_braces(symbol)?,
                Some(Frame::Command { .. }) | None => self.in_code(symbol)?,
            }
        }
        match self.frames.first() {
            Some(Frame::Quotes { line } | Frame::Braces { line } | Frame::Command { line, .. }) => {
                Err(Lost::Unclosed { line: *line })
            }
            None if self.pending.is_empty() => Ok(()),
            None => Err(Lost::Unclosed { line: self.cursor.line() }),
        }
    }

    fn in_code(&mut self, symbol: Symbol) -> Result<(), Lost> {
        let was_start = core::mem::replace(&mut self.word_start, false);
        let c = match symbol {
            Symbol::Hole(hole) => {
                self.mark(hole, Context::Bare);
                return Ok(());
            }
            Symbol::Char(c) => c,
        };
        match c {
            '\'' => self.single_quoted()?,
            '"' => self.frames.push(Frame::Quotes { line: self.cursor.line() }),
            '\\' => self.backslash(was_start),
            '`' => self.backticks()?,
            '$' => self.dollar(false)?,
            '#' if was_start => self.comment()?,
            '<' if self.cursor.goes_on_with("<<") => self.cursor.skip(2),
            '<' if self.cursor.next_is(|c| c == '<') => self.announce_here_document()?,
            '(' if was_start && self.cursor.next_is(|c| c == '(') => self.arithmetic(false)?,
            // Its patterns hold closing parentheses without opening ones.
            'c' if was_start && !self.frames.is_empty() && self.cursor.goes_on_with("ase") => return Err(self.lost()),
            '\n' => self.line_break()?,
            _ => {
                self.word_start = matches!(c, ' ' | '\t' | ';' | '&' | '|' | '(' | ')' | '<' | '>');
                self.count_parens(c);
            }
        }
        Ok(())
    }

    fn count_parens(&mut self, c: char) {
        let Some(Frame::Command { open, .. }) = self.frames.last_mut() else { return };
        match c {
            '(' => *open += 1,
            ')' => *open -= 1,
            _ => {}
        }
        if *open == 0 {
            self.frames.pop();
        }
    }

    fn line_break(&mut self) -> Result<(), Lost> {
        self.word_start = true;
        if self.pending.is_empty() {
            return Ok(());
        }
        if !self.frames.is_empty() {
            return Err(self.lost());
        }
        while let Some(document) = self.pending.pop_front() {
            self.here_document(&document)?;
        }
        Ok(())
    }

    fn in_quotes(&mut self, symbol: Symbol) -> Result<(), Lost> {
        match symbol {
            Symbol::Hole(hole) => self.mark(hole, Context::DoubleQuoted),
            Symbol::Char('"') => {
                self.frames.pop();
            }
            Symbol::Char('\\') => self.backslash(false),
            Symbol::Char('`') => self.backticks()?,
            Symbol::Char('$') => self.dollar(true)?,
            // Shells differ about where the here-document would start.
            Symbol::Char('\n') if !self.pending.is_empty() => return Err(self.lost()),
            Symbol::Char(_) => {}
        }
        Ok(())
    }

    fn in_braces(&mut self, symbol: Symbol) -> Result<(), Lost> {
        let is_quoted = self.frames.iter().any(|frame| matches!(frame, Frame::Quotes { .. }));
        match symbol {
            Symbol::Hole(hole) => self.mark(hole, Context::Expansion),
            Symbol::Char('}') => {
                self.frames.pop();
            }
            // In `"${a:-'}"` a quote is a letter, in `"${a#'}'}"` it is a quote.
            Symbol::Char('\'' | '"') if is_quoted => return Err(self.lost()),
            Symbol::Char('\'') => self.single_quoted()?,
            Symbol::Char('"') => self.frames.push(Frame::Quotes { line: self.cursor.line() }),
            Symbol::Char('\\') => self.backslash(false),
            Symbol::Char('`') => self.backticks()?,
            Symbol::Char('$') => self.dollar(is_quoted)?,
            Symbol::Char('\n') if !self.pending.is_empty() => return Err(self.lost()),
            Symbol::Char(_) => {}
        }
        Ok(())
    }

    fn mark(&mut self, hole: usize, context: Context) {
        // Code in a string is followed only to find its end, so that a mistake in that does no harm.
        let is_nested = self.frames.iter().any(|frame| !matches!(frame, Frame::Quotes { .. }));
        self.cursor.mark(hole, if is_nested { Context::Expansion } else { context });
    }

    fn single_quoted(&mut self) -> Result<(), Lost> {
        let line = self.cursor.line();
        while let Some(symbol) = self.cursor.next() {
            match symbol {
                Symbol::Hole(hole) => self.mark(hole, Context::SingleQuoted),
                Symbol::Char('\'') => return Ok(()),
                Symbol::Char('\n') if !self.pending.is_empty() => return Err(self.lost()),
                Symbol::Char(_) => {}
            }
        }
        Err(Lost::Unclosed { line })
    }

    /// After a backslash. In a string it stays before a plain character, in code it goes: either way the value is read as it is.
    fn backslash(&mut self, was_start: bool) {
        self.word_start = was_start && self.cursor.next_is(|c| c == '\n');
        if let Some(Symbol::Hole(hole)) = self.cursor.peek() {
            self.cursor.mark(hole, Context::AfterBackslash);
        }
        self.cursor.skip(1);
    }

    /// Code in backticks loses a layer of backslashes before it is read, so no quoting of ours would hold in it.
    fn backticks(&mut self) -> Result<(), Lost> {
        let line = self.cursor.line();
        while let Some(symbol) = self.cursor.next() {
            match symbol {
                Symbol::Hole(hole) => self.cursor.mark(hole, Context::Expansion),
                Symbol::Char('`') => return Ok(()),
                Symbol::Char('\\') if self.cursor.char_at(0).is_some() => self.cursor.skip(1),
                Symbol::Char('\n') if !self.pending.is_empty() => return Err(self.lost()),
                Symbol::Char(_) => {}
            }
        }
        Err(Lost::Unclosed { line })
    }

    fn dollar(&mut self, is_quoted: bool) -> Result<(), Lost> {
        if self.cursor.fault_if_hole(Fault::InName) {
            return Ok(());
        }
        let line = self.cursor.line();
        match self.cursor.char_at(0) {
            Some('{') => {
                self.cursor.skip(1);
                self.frames.push(Frame::Braces { line });
            }
            Some('(') if self.cursor.char_at(1) == Some('(') => {
                self.cursor.skip(1);
                self.arithmetic(true)?;
            }
            // In plain code, code in parentheses is code like any other.
            Some('(') if !self.frames.is_empty() => {
                self.cursor.skip(1);
                self.frames.push(Frame::Command { line, open: 1 });
                self.word_start = true;
            }
            Some('\'') if !is_quoted => {
                self.cursor.skip(1);
                self.ansi_quoted()?;
            }
            Some(c) if c.is_ascii_digit() || matches!(c, '?' | '@' | '*' | '#' | '-' | '$' | '!') => {
                self.cursor.skip(1)
            }
            _ => self.name(),
        }
        Ok(())
    }

    /// The name of a shell variable, if there is one.
    fn name(&mut self) {
        let mut length = 0;
        while self.cursor.char_at(length).is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
            length += 1;
        }
        self.cursor.skip(length);
        if length > 0 {
            self.cursor.fault_if_hole(Fault::InName);
        }
    }

    /// `$'…'`: bash knows escapes in it, others take it for a `$` and a single-quoted string.
    fn ansi_quoted(&mut self) -> Result<(), Lost> {
        let line = self.cursor.line();
        while let Some(symbol) = self.cursor.next() {
            match symbol {
                Symbol::Hole(hole) => self.cursor.mark(hole, Context::Expansion),
                Symbol::Char('\'') => return Ok(()),
                Symbol::Char('\\') if self.cursor.next_is(|c| c == '\'') => return Err(self.lost()),
                Symbol::Char('\\') if self.cursor.fault_if_hole(Fault::AfterEscape('\\')) => {}
                Symbol::Char('\\') => self.cursor.skip(1),
                Symbol::Char('\n') if !self.pending.is_empty() => return Err(self.lost()),
                Symbol::Char(_) => {}
            }
        }
        Err(Lost::Unclosed { line })
    }

    /// After the first of two parentheses: arithmetic, if it ends with two at once and has nothing in it that is quoted.
    fn arithmetic(&mut self, is_value: bool) -> Result<(), Lost> {
        let mut open = 1;
        while let Some(symbol) = self.cursor.next() {
            match symbol {
                Symbol::Hole(hole) => self.cursor.mark(hole, Context::Expansion),
                Symbol::Char('(') => open += 1,
                Symbol::Char(')') if open == 2 => {
                    if !self.cursor.next_is(|c| c == ')') {
                        return Err(self.lost());
                    }
                    self.cursor.skip(1);
                    return Ok(());
                }
                Symbol::Char(')') => open -= 1,
                Symbol::Char('$') if self.cursor.fault_if_hole(Fault::InName) => {}
                Symbol::Char('\'' | '"' | '`' | '\\' | '\n') => return Err(self.lost()),
                // A shell without `((` would read two subshells and a here-document.
                Symbol::Char('<') if !is_value && self.cursor.next_is(|c| c == '<') => return Err(self.lost()),
                Symbol::Char(_) => {}
            }
        }
        Err(self.lost())
    }

    fn comment(&mut self) -> Result<(), Lost> {
        // A parenthesis or quote in it may count or not.
        if !self.frames.is_empty() {
            return Err(self.lost());
        }
        while self.cursor.peek() != Some(Symbol::Char('\n')) {
            match self.cursor.next() {
                Some(Symbol::Hole(hole)) => self.mark(hole, Context::LineComment),
                Some(Symbol::Char(_)) => {}
                None => break,
            }
        }
        Ok(())
    }

    /// After the first of the two signs of `<<word`.
    fn announce_here_document(&mut self) -> Result<(), Lost> {
        if !self.frames.is_empty() {
            return Err(self.lost());
        }
        self.cursor.skip(1);
        let strips_tabs = self.cursor.next_is(|c| c == '-');
        self.cursor.skip(usize::from(strips_tabs));
        while self.cursor.next_is(|c| matches!(c, ' ' | '\t')) {
            self.cursor.skip(1);
        }
        let (mut delimiter, mut quote, mut expands) = (String::new(), None, true);
        while let Some(symbol) = self.cursor.peek() {
            let Symbol::Char(c) = symbol else { return Err(self.lost()) };
            match (c, quote) {
                ('\n', Some(_)) | ('$' | '`' | '\\', _) => return Err(self.lost()),
                ('\'' | '"', None) => (quote, expands) = (Some(c), false),
                (_, Some(open)) if c == open => quote = None,
                (' ' | '\t' | '\n' | ';' | '&' | '|' | '(' | ')' | '<' | '>', None) => break,
                _ => delimiter.push(c),
            }
            self.cursor.skip(1);
        }
        if delimiter.is_empty() || quote.is_some() {
            return Err(self.lost());
        }
        self.pending.push_back(HereDocument { number: self.delimiters.len(), strips_tabs, expands });
        self.delimiters.push(delimiter);
        Ok(())
    }

    /// The lines of a here-document and the one that ends it.
    fn here_document(&mut self, document: &HereDocument) -> Result<(), Lost> {
        let line = self.cursor.line();
        while self.cursor.peek().is_some() {
            while document.strips_tabs && self.cursor.next_is(|c| c == '\t') {
                self.cursor.skip(1);
            }
            if self.line_is(&self.delimiters[document.number]) {
                self.cursor.skip(self.delimiters[document.number].chars().count());
                // The line break before the next here-document, or the next command, is part of this one.
                self.cursor.skip(1);
                return Ok(());
            }
            self.here_document_line(document)?;
        }
        Err(Lost::Unclosed { line })
    }

    fn line_is(&self, word: &str) -> bool {
        let length = word.chars().count();
        let is_exact = word.chars().enumerate().all(|(ahead, c)| self.cursor.char_at(ahead) == Some(c));
        is_exact && self.cursor.is_line_end(length)
    }

    fn here_document_line(&mut self, document: &HereDocument) -> Result<(), Lost> {
        while let Some(symbol) = self.cursor.next() {
            match symbol {
                Symbol::Hole(hole) => self.cursor.mark(hole, Context::HereDocument { number: document.number }),
                Symbol::Char('\n') => break,
                Symbol::Char('\\') if document.expands => {
                    if self.cursor.next_is(|c| c == '\n') {
                        // The next line goes on with this one and so may not be the last.
                        return Err(self.lost());
                    }
                    if self.cursor.char_at(0).is_some() {
                        self.cursor.skip(1);
                    }
                }
                Symbol::Char('$') if document.expands && !self.cursor.fault_if_hole(Fault::InName) => self.name(),
                Symbol::Char(_) => {}
            }
        }
        Ok(())
    }
}
