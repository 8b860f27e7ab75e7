//! What a placeholder is part of.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::cursor::{Cursor, Found, Symbol};
use super::{powershell, shell};

/// What a script is written in, as far as it matters for quoting.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Language {
    /// PowerShell, bare or between EC2's `<powershell>` tags.
    PowerShell,
    /// A POSIX shell or one of its kin.
    Shell,
    /// Anything else: cloud-config, MIME, batch files, Python. No quoting is known, so only the plainest values are taken.
    Other,
}

impl Language {
    /// Beginnings, in lower case, of the first line of formats that cloud-init, Cloudbase-Init or EC2 know and whose
    /// quoting we do not.
    const OTHER: [&'static str; 11] = [
        "#cloud-",
        "#include",
        "#part-handler",
        "#upstart-job",
        "## template:",
        "content-type:",
        "mime-version:",
        "rem cmd",
        "@echo off",
        "<script>",
        "-----begin ",
    ];
    const SHELLS: [&'static str; 8] = ["sh", "bash", "dash", "ash", "ksh", "mksh", "busybox", "zsh"];

    /// The language of a script, by its first line that is not blank: `#!` with a shell's name is [`Shell`](Self::Shell), with
    /// PowerShell's own [`PowerShell`](Self::PowerShell); other `#!` lines and the headers of cloud-init's formats are
    /// [`Other`](Self::Other), and everything else, `#ps1` and `<powershell>` among it, is PowerShell.
    ///
    /// ```
    /// use kasm_autoscale_core::script::Language;
    /// assert_eq!(Language::of("#!/bin/sh -e\n"), Language::Shell);
    /// assert_eq!(Language::of("#!/usr/bin/env bash\n"), Language::Shell);
    /// assert_eq!(Language::of("#!/usr/bin/python3\n"), Language::Other);
    /// assert_eq!(Language::of("#cloud-config\n"), Language::Other);
    /// assert_eq!(Language::of("#ps1_sysnative\n"), Language::PowerShell);
    /// ```
    pub fn of(source: &str) -> Self {
        let start = source.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
        let line = start.lines().next().unwrap_or_default().to_ascii_lowercase();
        if let Some(command) = line.strip_prefix("#!") {
            return match interpreter(command) {
                "pwsh" | "powershell" => Self::PowerShell,
                name if Self::SHELLS.contains(&name) => Self::Shell,
                _ => Self::Other,
            };
        }
        if Self::OTHER.iter().any(|header| line.starts_with(header)) { Self::Other } else { Self::PowerShell }
    }
}

/// The program that a `#!` line names, without its directory; what `env` starts, if it is that.
fn interpreter(command: &str) -> &str {
    let mut names = command.split_whitespace().map(|word| word.rsplit(['/', '\\']).next().unwrap_or(word));
    let first = names.next().unwrap_or_default();
    let name = if first == "env" {
        names.find(|name| !name.starts_with('-') && !name.contains('=')).unwrap_or_default()
    } else {
        first
    };
    name.strip_suffix(".exe").unwrap_or(name)
}

/// What a placeholder is part of. Decides which values can stand there: see the [module](super).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Context {
    /// Code outside of any string.
    Bare,
    /// A single-quoted string: nothing in it has a meaning but the quote.
    SingleQuoted,
    /// A double-quoted string: `$` and the escape character keep their meaning.
    DoubleQuoted,
    /// PowerShell's `@'` … `'@`.
    SingleHereString,
    /// PowerShell's `@"` … `"@`.
    DoubleHereString,
    /// A comment to the end of the line.
    LineComment,
    /// PowerShell's `<#` … `#>`.
    BlockComment,
    /// A shell's `<<word` … `word`.
    HereDocument {
        /// Which of the script's here-documents.
        number: usize,
    },
    /// Inside `${…}`, or in code that is itself part of a string, of backticks or of arithmetic.
    Expansion,
    /// Right after a shell's backslash.
    AfterBackslash,
    /// In a script with `<powershell>` tags, not between the first two.
    Outside,
    /// Any place of a script in a language whose quoting is not known.
    Data,
    /// It is not certain what it is.
    Unclear {
        /// The line that begins something which cannot be followed.
        line: usize,
    },
}

impl Context {
    /// Whether values are escaped here, so that all but control characters can stand.
    pub(super) fn escapes(self) -> bool {
        matches!(self, Self::SingleQuoted | Self::DoubleQuoted)
    }

    /// Whether a word that begins here could be an option of a command.
    pub(super) fn has_words(self) -> bool {
        matches!(self, Self::Bare | Self::Expansion | Self::Outside | Self::Data | Self::Unclear { .. })
    }

    /// Whether `c` can stand here inside a value, between two of the characters that can stand everywhere.
    pub(super) fn joins(self, language: Language, c: char) -> bool {
        let takes_some = matches!(
            self,
            Self::Bare
                | Self::SingleHereString
                | Self::DoubleHereString
                | Self::LineComment
                | Self::BlockComment
                | Self::HereDocument { .. }
        );
        // A backslash is an escape to a shell, and an ordinary letter to PowerShell.
        takes_some && (matches!(c, ':' | '/' | '@') || (c == '\\' && language == Language::PowerShell))
    }

    /// The characters a value may hold here, in words. None if there are too many to list.
    pub(super) fn allowed(self, language: Language) -> Option<&'static str> {
        match (self.escapes(), self.joins(language, ':'), self.joins(language, '\\')) {
            (true, ..) => None,
            (false, true, true) => Some("ASCII letters, digits, . _ - and, between those, : / \\ @"),
            (false, true, false) => Some("ASCII letters, digits, . _ - and, between those, : / @"),
            (false, false, _) => Some("ASCII letters, digits, . _ -"),
        }
    }
}

impl fmt::Display for Context {
    /// Where it is: "in bare code".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bare => "in bare code",
            Self::SingleQuoted => "in a single-quoted string",
            Self::DoubleQuoted => "in a double-quoted string",
            Self::SingleHereString | Self::DoubleHereString => "in a here-string",
            Self::LineComment | Self::BlockComment => "in a comment",
            Self::HereDocument { .. } => "in a here-document",
            Self::Expansion => "in an expansion",
            Self::AfterBackslash => "after a backslash",
            Self::Outside => "outside of the first <powershell> section",
            Self::Data => "in a script that is neither PowerShell nor a shell's",
            Self::Unclear { .. } => "in this part of the script",
        })
    }
}

/// What was found of all placeholders of a script.
pub(super) struct Contexts {
    /// By the placeholders' numbers.
    pub(super) found: Vec<Found>,
    /// By the numbers of [`Context::HereDocument`].
    pub(super) delimiters: Vec<String>,
}

/// Follows a text through its strings and comments.
pub(super) fn of_holes(language: Language, symbols: &[Symbol], holes: usize) -> Contexts {
    match language {
        Language::PowerShell => Contexts { found: powershell::scan(symbols, holes), delimiters: Vec::new() },
        Language::Shell => shell::scan(symbols, holes),
        Language::Other => Contexts { found: Cursor::new(symbols, holes, Context::Data).found, delimiters: Vec::new() },
    }
}
