//! Startup scripts: a text with `{variable}` in it, checked when it is written and filled in when a machine is made.
//!
//! ```
//! use kasm_autoscale_core::script::{Script, Values, Variable};
//! use secrecy::ExposeSecret;
//!
//! let script = Script::parse("if ($true) {{ Add-Computer -Domain '{domain}' }}").unwrap();
//! let values = Values::from([(Variable::Domain, "corp.example".into())]);
//! assert_eq!(script.render(&values).unwrap().expose_secret(), "if ($true) { Add-Computer -Domain 'corp.example' }");
//! ```
//!
//! # Braces
//!
//! `{name}` is replaced by the variable's value, `{{` stands for `{` and `}}` for `}`, read from left to right in one pass, as
//! Python's `str.format` reads a plain replacement field. Values are never read again, so braces in a value stay what they
//! are. Whatever else is done with a single brace is a mistake, and [`Script::parse`] tells all of them at once: a script
//! never fails at boot for what could be seen when it was written.
//!
//! # Values cannot break out
//!
//! A password is free text, and a startup script runs with all rights. So `parse` also finds out where each placeholder
//! stands ([`Context`]) by following the script's [`Language`] through its strings and comments, and
//! [`Script::render`] escapes the value for just that place or refuses it:
//!
//! | context | what is done with a value |
//! | --- | --- |
//! | single-quoted string | its quotes are escaped: doubled in PowerShell, `'\''` in a shell |
//! | double-quoted string | what would expand or end the string is escaped: by a backtick in PowerShell, by a backslash in a shell |
//! | all others | nothing; it may hold only ASCII letters, digits and `.` `_` `-` |
//!
//! In bare code, here-strings, here-documents and comments a value may also hold `:` `/` `@`, and in PowerShell `\`, but not
//! as its first or last character: host names with a port, URLs, `DOMAIN\user` and `user@domain` pass. A value in bare code
//! that starts with `-` is refused at the beginning of a word, since it would be read as an option, and a number right before
//! `<` or `>`, since it would be the number of a stream. An empty value can stand only in a quoted string. No value can hold a control character, nor anything that begins like one of the tags by which EC2
//! divides user data, as `</powershell>` does.
//!
//! Where the language leaves open what a piece of text is (a `#` in the middle of a PowerShell word begins a comment or not
//! depending on the command before it), every placeholder after it is in [`Context::Unclear`], which takes only the plainest
//! values. In doubt a value is refused; none is
//! let through on a guess.
//!
//! What this does not promise: a command that reads its argument as code once more (`Invoke-Expression`, `cmd /c`, `sh -c`)
//! needs a quoting of its own; bare text means what the language makes of it (`1kb` is a number to PowerShell); and the bytes
//! have to reach the interpreter as UTF-8. Windows PowerShell 5.1 reads a script *file* without a byte order mark in the
//! machine's legacy code page, in which some letters outside ASCII end in a byte that is a quote there.

mod context;
mod cursor;
mod error;
mod escape;
mod powershell;
mod shell;
mod template;

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

pub use context::{Context, Language};
pub use error::{RenderError, RenderErrorKind, ScriptError, ScriptErrorKind, ScriptErrors, UnknownVariable};

/// The values a script is rendered with. Variables that the script does not use may be there or not.
pub type Values = BTreeMap<Variable, SecretString>;

/// What a startup script can ask for.
///
/// ```
/// use kasm_autoscale_core::script::Variable;
/// assert_eq!("checkin_jwt".parse(), Ok(Variable::CheckinJwt));
/// assert_eq!(Variable::Domain.to_string(), "domain");
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Variable {
    /// `connection_username`: the static user name sessions connect with.
    ConnectionUsername,
    /// `connection_password`: the static password sessions connect with. A secret.
    ConnectionPassword,
    /// `ad_join_credential`: the single-use password with which the machine joins Active Directory. A secret.
    AdJoinCredential,
    /// `domain`: the DNS name of the Active Directory domain to join.
    Domain,
    /// `server_id`: the server's identifier.
    ServerId,
    /// `server_hostname`: the machine's name, which is also that of its computer object.
    ServerHostname,
    /// `checkin_jwt`: the token with which the machine reports that it is up. A secret.
    CheckinJwt,
    /// `upstream_auth_address`: where the machine reaches this installation.
    UpstreamAuthAddress,
    /// `provider_name`: the provider that made the machine, for example `aws`.
    ProviderName,
}

impl Variable {
    /// All variables.
    pub const ALL: [Self; 9] = [
        Self::ConnectionUsername,
        Self::ConnectionPassword,
        Self::AdJoinCredential,
        Self::Domain,
        Self::ServerId,
        Self::ServerHostname,
        Self::CheckinJwt,
        Self::UpstreamAuthAddress,
        Self::ProviderName,
    ];

    /// The name as it stands between the braces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConnectionUsername => "connection_username",
            Self::ConnectionPassword => "connection_password",
            Self::AdJoinCredential => "ad_join_credential",
            Self::Domain => "domain",
            Self::ServerId => "server_id",
            Self::ServerHostname => "server_hostname",
            Self::CheckinJwt => "checkin_jwt",
            Self::UpstreamAuthAddress => "upstream_auth_address",
            Self::ProviderName => "provider_name",
        }
    }

    /// The variable of exactly this name; names are lower case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|variable| variable.name() == name)
    }

    /// Whether the value lets its holder in somewhere, so that it must never be logged or shown.
    pub const fn is_secret(self) -> bool {
        matches!(self, Self::ConnectionPassword | Self::AdJoinCredential | Self::CheckinJwt)
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Variable {
    type Err = UnknownVariable;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::from_name(name).ok_or_else(|| UnknownVariable::new(name))
    }
}

/// A place in a script where a value goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Placeholder {
    /// What goes there.
    pub variable: Variable,
    /// The line of its `{`, from 1.
    pub line: usize,
    /// The column of its `{`, from 1, counted in characters.
    pub column: usize,
    /// What it is part of; decides which values can stand there, and how.
    pub context: Context,
}

/// A checked startup script. Holds no value, so it can be stored and shown; serialises as its source text.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Script {
    source: String,
    language: Language,
    /// The source with its braces undone and its placeholders taken out.
    text: String,
    /// In order of their place, each with the byte of `text` it goes before.
    placeholders: Vec<(usize, Placeholder)>,
    /// The words that end the here-documents placeholders stand in, by [`Context::HereDocument`]'s number.
    delimiters: Vec<String>,
    variables: BTreeSet<Variable>,
}

impl Script {
    /// Checks a script. Its size is for the caller to bound; time and memory are proportional to it.
    ///
    /// ```
    /// use kasm_autoscale_core::script::Script;
    /// let errors = Script::parse("echo {domian}\nexit }").unwrap_err();
    /// let places: Vec<_> = errors.iter().map(|error| (error.line, error.column)).collect();
    /// assert_eq!(places, [(1, 6), (2, 6)]);
    /// assert!(errors.to_string().contains("did you mean {domain}?"));
    /// ```
    ///
    /// # Errors
    ///
    /// Every mistake there is, in order, the first hundred of them: see [`ScriptErrorKind`].
    pub fn parse(source: &str) -> Result<Self, ScriptErrors> {
        let language = Language::of(source);
        let template::Template { symbols, holes, mut errors } = template::read(source);
        let context::Contexts { found, delimiters } = context::of_holes(language, &symbols, holes.len());

        let mut text = String::with_capacity(source.len());
        let mut placeholders = Vec::with_capacity(holes.len());
        for symbol in symbols {
            let hole = match symbol {
                cursor::Symbol::Char(c) => {
                    text.push(c);
                    continue;
                }
                cursor::Symbol::Hole(number) => number,
            };
            let template::Hole { variable: Some(variable), line, column } = holes[hole] else { continue };
            let cursor::Found { context, fault } = found[hole];
            errors.extend(fault.map(|fault| ScriptError { line, column, kind: fault.of(variable) }));
            placeholders.push((text.len(), Placeholder { variable, line, column, context }));
        }
        if !errors.is_empty() {
            return Err(ScriptErrors::new(errors));
        }
        let variables = placeholders.iter().map(|(_, placeholder)| placeholder.variable).collect();
        Ok(Self { source: source.to_owned(), language, text, placeholders, delimiters, variables })
    }

    /// The text the script was made from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The language it is taken to be written in.
    pub fn language(&self) -> Language {
        self.language
    }

    /// The variables it uses.
    pub fn variables(&self) -> &BTreeSet<Variable> {
        &self.variables
    }

    /// Its placeholders in order.
    pub fn placeholders(&self) -> impl ExactSizeIterator<Item = &Placeholder> {
        self.placeholders.iter().map(|(_, placeholder)| placeholder)
    }

    /// Fills the values in. The result is a secret if any of them is. The same values always give the same bytes.
    ///
    /// ```
    /// use kasm_autoscale_core::script::{Script, Values, Variable};
    /// use secrecy::ExposeSecret;
    ///
    /// let script = Script::parse("net user kasm '{connection_password}'").unwrap();
    /// let values = Values::from([(Variable::ConnectionPassword, "it's {domain}".into())]);
    /// assert_eq!(script.render(&values).unwrap().expose_secret(), "net user kasm 'it''s {domain}'");
    ///
    /// let error = script.render(&Values::new()).unwrap_err();
    /// assert_eq!((error.variable, error.line, error.column), (Variable::ConnectionPassword, 1, 16));
    /// ```
    ///
    /// # Errors
    ///
    /// The first value that is missing or cannot stand where it should; see [`RenderErrorKind`]. No error holds a value.
    pub fn render(&self, values: &Values) -> Result<SecretString, RenderError> {
        // Wiped when dropped, and never grown, so that no piece of a secret is left behind in freed memory.
        let mut out = Zeroizing::new(String::with_capacity(self.bytes_max(values)));
        let mut spans = Vec::with_capacity(self.placeholders.len());
        let mut done = 0;
        for (at, placeholder) in &self.placeholders {
            out.push_str(&self.text[done..*at]);
            done = *at;
            let fail = |kind| self.refusal(placeholder, kind);
            let value = values.get(&placeholder.variable).ok_or_else(|| fail(RenderErrorKind::Missing))?;
            let start = out.len();
            let starts_word = !out.chars().next_back().is_some_and(escape::is_in_word);
            escape::push(&mut out, self.language, placeholder.context, value.expose_secret(), starts_word)
                .map_err(fail)?;
            spans.push((start, out.len(), placeholder));
        }
        out.push_str(&self.text[done..]);
        for (start, end, placeholder) in spans {
            // Only the whole text shows what a value makes together with what stands around it.
            escape::check_surroundings(&out, start..end, placeholder.context, self.delimiter(placeholder.context))
                .map_err(|kind| self.refusal(placeholder, kind))?;
        }
        Ok(SecretString::from(out.as_str()))
    }

    /// No character grows by more than the four bytes a shell needs for a quote in a single-quoted string.
    fn bytes_max(&self, values: &Values) -> usize {
        let value_bytes = |variable| values.get(variable).map_or(0, |value| value.expose_secret().len());
        let values: usize = self.placeholders().map(|placeholder| 4 * value_bytes(&placeholder.variable)).sum();
        self.text.len() + values
    }

    fn delimiter(&self, context: Context) -> Option<&str> {
        match context {
            Context::HereDocument { number } => self.delimiters.get(number).map(String::as_str),
            _ => None,
        }
    }

    fn refusal(&self, placeholder: &Placeholder, kind: RenderErrorKind) -> RenderError {
        let Placeholder { variable, line, column, context } = *placeholder;
        RenderError { variable, line, column, language: self.language, context, kind }
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Script").field(&self.source).finish()
    }
}

impl FromStr for Script {
    type Err = ScriptErrors;

    fn from_str(source: &str) -> Result<Self, Self::Err> {
        Self::parse(source)
    }
}

impl TryFrom<String> for Script {
    type Error = ScriptErrors;

    fn try_from(source: String) -> Result<Self, Self::Error> {
        Self::parse(&source)
    }
}

impl From<Script> for String {
    fn from(script: Script) -> Self {
        script.source
    }
}
