//! What can be wrong with a script, and with a value for it. No error holds a value.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::Variable;
use super::context::{Context, Language};

/// A name that is not a [`Variable`]'s.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("there is no variable {{{name}}}{}; there are {}", Suggestion(*nearest), Known)]
pub struct UnknownVariable {
    /// What was given.
    pub name: String,
    /// The variable that was probably meant.
    pub nearest: Option<Variable>,
}

impl UnknownVariable {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), nearest: nearest(name) }
    }
}

struct Suggestion(Option<Variable>);

impl fmt::Display for Suggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |variable| write!(f, " (did you mean {{{variable}}}?)"))
    }
}

struct Known;

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, variable) in Variable::ALL.into_iter().enumerate() {
            write!(f, "{}{{{variable}}}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// The variable whose name needs the fewest edits to become `name`, if those are few for its length.
fn nearest(name: &str) -> Option<Variable> {
    let name = name.to_lowercase();
    if name == "registration_token" {
        // What older Kasm manuals call it.
        return Some(Variable::CheckinJwt);
    }
    let distance = |variable: &Variable| edits(&name, variable.name());
    let variable = Variable::ALL.into_iter().min_by_key(distance)?;
    (distance(&variable) <= variable.name().len() / 3).then_some(variable)
}

/// Levenshtein's distance: insertions, deletions and replacements of single characters.
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (above, from) in from.chars().enumerate() {
        let mut diagonal = above;
        row[0] = above + 1;
        for (index, to) in to.chars().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[index + 1];
            row[index + 1] = replaced.min(diagonal + 1).min(row[index] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

/// A mistake in a script and its place.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}, column {column}: {kind}")]
pub struct ScriptError {
    /// The line, from 1. Lines end with a line feed.
    pub line: usize,
    /// The column, from 1, counted in characters.
    pub column: usize,
    /// What is wrong there. Its text says how to mend it.
    pub kind: ScriptErrorKind,
}

/// What can be wrong with a script.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScriptErrorKind {
    /// Braces around what is not a variable.
    #[error("{0}. If the braces belong to the script itself, double both: {{{{ and }}}}")]
    UnknownVariable(UnknownVariable),
    /// A known variable with one of the extras of Python's `str.format`.
    #[error("{{{given}}} is more than a variable's name; write {{{variable}}}")]
    NotPlain {
        /// The variable.
        variable: Variable,
        /// All that stands between the braces.
        given: String,
    },
    /// A single brace that begins or ends no variable.
    #[error("a single {brace} that {} no variable; a brace of the script itself has to be doubled: {brace}{brace}. There are {}", if *brace == '{' { "begins" } else { "ends" }, Known)]
    StrayBrace {
        /// `{` or `}`.
        brace: char,
    },
    /// A placeholder right after PowerShell's backtick, or a backslash in bash's `$'…'`, which would be taken together with the
    /// value's first letter: `` `n `` is a line break.
    #[error(
        "{{{variable}}} stands right after {escape}, which would change the value's first character; remove the {escape}"
    )]
    AfterEscape {
        /// The variable.
        variable: Variable,
        /// What stands before it.
        escape: char,
    },
    /// A placeholder right after `$` or `$name`: the value would become part of the name of a variable of the script's.
    #[error(
        "the value of {{{variable}}} would become part of the name after the $ before it; if a variable of the script itself is meant, double the braces, as in ${{{{name}}}}"
    )]
    InName {
        /// The variable.
        variable: Variable,
    },
}

/// How many mistakes of one script are told. Looking for what each of them may have meant takes time, and a script may be
/// nothing but mistakes.
pub(super) const ERRORS_MAX: usize = 100;

/// The mistakes of a script, the first hundred, in the order of their places; at least one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ScriptErrors(Vec<ScriptError>);

impl ScriptErrors {
    pub(super) fn new(mut errors: Vec<ScriptError>) -> Self {
        errors.sort_by_key(|error| (error.line, error.column));
        errors.truncate(ERRORS_MAX);
        Self(errors)
    }

    /// The mistakes.
    pub fn iter(&self) -> core::slice::Iter<'_, ScriptError> {
        self.0.iter()
    }
}

impl fmt::Display for ScriptErrors {
    /// One line for each mistake.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.iter().enumerate() {
            write!(f, "{}{error}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl core::error::Error for ScriptErrors {}

impl IntoIterator for ScriptErrors {
    type Item = ScriptError;
    type IntoIter = alloc::vec::IntoIter<ScriptError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a ScriptErrors {
    type Item = &'a ScriptError;
    type IntoIter = core::slice::Iter<'a, ScriptError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Why a script could not be filled in: which value, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RenderError {
    /// Whose value it is.
    pub variable: Variable,
    /// The line of the placeholder, from 1.
    pub line: usize,
    /// The column of the placeholder's `{`, from 1, counted in characters.
    pub column: usize,
    /// The script's language.
    pub language: Language,
    /// What the placeholder is part of.
    pub context: Context,
    /// What is wrong with the value.
    pub kind: RenderErrorKind,
}

impl core::error::Error for RenderError {}

/// What can be wrong with a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RenderErrorKind {
    /// There is none.
    Missing,
    /// It is empty, where that would let the text before and after it run together.
    Empty,
    /// It holds a character that cannot stand there, and cannot be escaped there.
    Character {
        /// The first such character.
        character: char,
    },
    /// It starts with `-`, where a word would start with it and be read as an option.
    LeadingDash,
    /// A redirection follows it, and would take it for the number or name of a stream.
    Stream,
    /// It holds, or makes together with the text around it, one of the tags by which EC2 divides user data.
    Tag,
    /// It makes the line the one that ends the here-document it stands in.
    Delimiter,
}

impl fmt::Display for RenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { variable, line, column, context, .. } = self;
        write!(f, "line {line}, column {column}: ")?;
        match self.kind {
            RenderErrorKind::Missing => return write!(f, "{{{variable}}} has no value: {}", why_missing(*variable)),
            RenderErrorKind::Empty => write!(f, "the value of {{{variable}}} is empty, which cannot stand {context}")?,
            RenderErrorKind::Character { character } => {
                let code = u32::from(character);
                if variable.is_secret() && !character.is_control() {
                    // Where messages go, no part of a secret may go.
                    write!(f, "the value of {{{variable}}} holds a character that cannot stand {context}")?;
                } else {
                    write!(f, "the value of {{{variable}}} holds U+{code:04X}, which cannot stand {context}")?;
                }
                if character.is_control() {
                    return f.write_str(" nor anywhere else, being a control character; change the value");
                }
                if let Some(allowed) = context.allowed(self.language) {
                    write!(f, ", where a value may hold only {allowed}")?;
                }
            }
            RenderErrorKind::LeadingDash => {
                write!(f, "the value of {{{variable}}} starts with U+002D and would be read as an option {context}")?
            }
            RenderErrorKind::Stream => {
                write!(f, "the value of {{{variable}}} would be read as a stream of the redirection right after it")?
            }
            RenderErrorKind::Tag => {
                return write!(
                    f,
                    "the value of {{{variable}}} makes a tag, such as </powershell>, that divides user data; change the value"
                );
            }
            RenderErrorKind::Delimiter => {
                return write!(
                    f,
                    "the value of {{{variable}}} would end the here-document it stands in; change the document's last word or the value"
                );
            }
        }
        f.write_str("; ")?;
        self.remedy(f)
    }
}

impl RenderError {
    fn remedy(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variable = self.variable;
        match self.context {
            Context::Unclear { line } => {
                write!(f, "from line {line} on it is not certain where strings begin and end: ")?;
                write!(
                    f,
                    "set '{{{variable}}}' to a variable of the script before that line and use that, or change the value"
                )
            }
            Context::Outside => {
                write!(f, "put '{{{variable}}}' in the first <powershell> section, or change the value")
            }
            Context::Data => f.write_str("change the value"),
            _ => write!(
                f,
                "put the placeholder in a single-quoted string, '{{{variable}}}', outside of any other string, or change the value"
            ),
        }
    }
}

fn why_missing(variable: Variable) -> &'static str {
    match variable {
        Variable::ConnectionUsername => "the autoscale config needs a static connection_username",
        Variable::ConnectionPassword => "the autoscale config needs a static connection_password",
        Variable::AdJoinCredential | Variable::Domain => {
            "only a config that joins Active Directory has one; set it to join a domain, or remove the variable from the script"
        }
        Variable::UpstreamAuthAddress => "set upstream_auth_address",
        Variable::ServerId | Variable::ServerHostname | Variable::CheckinJwt | Variable::ProviderName => {
            "every server has one, so the host that renders the script left it out"
        }
    }
}
