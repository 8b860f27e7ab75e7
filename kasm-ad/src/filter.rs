//! Search filters (RFC 4515): built from values, parsed from what people write, escaped when they are written out.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The longest filter that is read, in bytes.
const BYTES_MAX: usize = 8192;
/// How deep filters may lie in each other. Active Directory gives up earlier.
const DEPTH_MAX: usize = 20;

/// A search filter.
///
/// ```
/// use kasm_ad::Filter;
/// let users: Filter = "(&(objectClass=user)(sAMAccountName={username}))".parse().unwrap();
/// assert_eq!(users.filled("{username}", "ann*)").to_string(), r"(&(objectClass=user)(sAMAccountName=ann\2a\29))");
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Filter {
    /// All of them hold.
    And(Vec<Filter>),
    /// One of them holds.
    Or(Vec<Filter>),
    /// It does not hold.
    Not(Box<Filter>),
    /// The attribute has this value.
    Equals(String, Vec<u8>),
    /// The attribute has a value that is about this one.
    Approx(String, Vec<u8>),
    /// The attribute has a value of at least this.
    AtLeast(String, Vec<u8>),
    /// The attribute has a value of at most this.
    AtMost(String, Vec<u8>),
    /// The attribute is there.
    Present(String),
    /// The attribute has a value made of these parts, with anything between them. The first part is its beginning and the
    /// last one its end; both may be empty, those between are not.
    Parts(String, Vec<Vec<u8>>),
    /// A match by a rule, as in `member:1.2.840.113556.1.4.1941:=CN=a,DC=b`. The text before `:=` and the value.
    Rule(String, Vec<u8>),
}

impl Filter {
    /// The attribute has this value.
    pub fn equals(attribute: &str, value: impl AsRef<[u8]>) -> Self {
        Self::Equals(attribute.into(), value.as_ref().to_vec())
    }

    /// The attribute has a value that begins so.
    pub fn starts_with(attribute: &str, value: impl AsRef<[u8]>) -> Self {
        Self::Parts(attribute.into(), vec![value.as_ref().to_vec(), Vec::new()])
    }

    /// Whether this text stands in a value of it.
    pub fn mentions(&self, text: &str) -> bool {
        let finds = |value: &[u8]| value.windows(text.len()).any(|window| window == text.as_bytes());
        match self {
            Self::And(inner) | Self::Or(inner) => inner.iter().any(|one| one.mentions(text)),
            Self::Not(inner) => inner.mentions(text),
            Self::Equals(_, value)
            | Self::Approx(_, value)
            | Self::AtLeast(_, value)
            | Self::AtMost(_, value)
            | Self::Rule(_, value) => finds(value),
            Self::Present(_) => false,
            Self::Parts(_, parts) => parts.iter().any(|part| finds(part)),
        }
    }

    /// The same filter with a placeholder replaced by a value, wherever it stands in a value. It can mean nothing but
    /// itself there, whatever it is made of.
    #[must_use]
    pub fn filled(&self, placeholder: &str, value: &str) -> Self {
        let fill = |old: &[u8]| replaced(old, placeholder.as_bytes(), value.as_bytes());
        match self {
            Self::And(inner) => Self::And(inner.iter().map(|one| one.filled(placeholder, value)).collect()),
            Self::Or(inner) => Self::Or(inner.iter().map(|one| one.filled(placeholder, value)).collect()),
            Self::Not(inner) => Self::Not(Box::new(inner.filled(placeholder, value))),
            Self::Equals(name, old) => Self::Equals(name.clone(), fill(old)),
            Self::Approx(name, old) => Self::Approx(name.clone(), fill(old)),
            Self::AtLeast(name, old) => Self::AtLeast(name.clone(), fill(old)),
            Self::AtMost(name, old) => Self::AtMost(name.clone(), fill(old)),
            Self::Present(name) => Self::Present(name.clone()),
            Self::Parts(name, parts) => pieced(name, parts.iter().map(|part| fill(part)).collect()),
            Self::Rule(name, old) => Self::Rule(name.clone(), fill(old)),
        }
    }
}

/// The pieces of a value with asterisks between them. An empty one between two asterisks, which a placeholder leaves behind that
/// is filled with nothing, asks for nothing, and there is no way to write it.
fn pieced(name: &str, parts: Vec<Vec<u8>>) -> Filter {
    let last = parts.len().saturating_sub(1);
    let edge_or_text = |(index, part): &(usize, Vec<u8>)| *index == 0 || *index == last || !part.is_empty();
    let parts: Vec<Vec<u8>> = parts.into_iter().enumerate().filter(edge_or_text).map(|(_, part)| part).collect();
    if parts.iter().all(Vec::is_empty) {
        Filter::Present(name.to_owned())
    } else {
        Filter::Parts(name.to_owned(), parts)
    }
}

/// Every occurrence replaced, in one pass: what was put in is not looked at again.
fn replaced(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.first() {
        if let Some(after) = rest.strip_prefix(from).filter(|_| !from.is_empty()) {
            out.extend_from_slice(to);
            rest = after;
        } else {
            out.push(*first);
            rest = &rest[1..];
        }
    }
    out
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, sign: &str, inner: &[Self]| {
            write!(f, "({sign}")?;
            inner.iter().try_for_each(|one| write!(f, "{one}"))?;
            f.write_str(")")
        };
        match self {
            Self::And(inner) => list(f, "&", inner),
            Self::Or(inner) => list(f, "|", inner),
            Self::Not(inner) => write!(f, "(!{inner})"),
            Self::Equals(name, value) => write!(f, "({name}={})", Escaped(value)),
            Self::Approx(name, value) => write!(f, "({name}~={})", Escaped(value)),
            Self::AtLeast(name, value) => write!(f, "({name}>={})", Escaped(value)),
            Self::AtMost(name, value) => write!(f, "({name}<={})", Escaped(value)),
            Self::Present(name) => write!(f, "({name}=*)"),
            Self::Rule(name, value) => write!(f, "({name}:={})", Escaped(value)),
            Self::Parts(name, parts) => {
                write!(f, "({name}=")?;
                for (index, part) in parts.iter().enumerate() {
                    let star = if index == 0 { "" } else { "*" };
                    write!(f, "{star}{}", Escaped(part))?;
                }
                f.write_str(")")
            }
        }
    }
}

/// A value as it stands in a filter: ASCII letters, digits and harmless signs as they are, every other byte in hexadecimal
/// digits. RFC 4515 §3 asks for less; nobody can mistake this.
struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            let plain = byte.is_ascii_alphanumeric() || b" .,-_=@:/+#{}$".contains(byte);
            if plain { write!(f, "{}", char::from(*byte))? } else { write!(f, "\\{byte:02x}")? }
        }
        Ok(())
    }
}

/// Why a text is not a search filter.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum FilterError {
    /// It is too long.
    #[error("a filter may have {BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// Filters lie in each other too deep.
    #[error("filters may lie in each other {DEPTH_MAX} deep, not deeper")]
    TooDeep,
    /// A parenthesis is missing.
    #[error(
        "expected {expected} at character {at}; a filter looks like (&(objectClass=user)(sAMAccountName={{username}}))"
    )]
    Expected {
        /// What should stand there.
        expected: &'static str,
        /// Where, counted from 1.
        at: usize,
    },
    /// An attribute's name is not one.
    #[error("{0:?} is not an attribute's name; use one like sAMAccountName")]
    Attribute(String),
    /// A backslash is not followed by two hexadecimal digits.
    #[error("a backslash must be followed by two hexadecimal digits, as in \\2a")]
    Escape,
    /// Two asterisks stand beside each other.
    #[error("two asterisks beside each other in the value of {0}; write one")]
    Asterisks(String),
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        if text.len() > BYTES_MAX {
            return Err(FilterError::TooLong(text.len()));
        }
        let mut reader = Reader { text, at: 0 };
        let filter = reader.filter(DEPTH_MAX)?;
        if reader.at == text.len() { Ok(filter) } else { Err(reader.expected("the end")) }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn expected(&self, expected: &'static str) -> FilterError {
        FilterError::Expected { expected, at: self.text[..self.at].chars().count() + 1 }
    }

    fn take(&mut self, sign: &str, expected: &'static str) -> Result<(), FilterError> {
        if !self.rest().starts_with(sign) {
            return Err(self.expected(expected));
        }
        self.at += sign.len();
        Ok(())
    }

    fn filter(&mut self, depth: usize) -> Result<Filter, FilterError> {
        let depth = depth.checked_sub(1).ok_or(FilterError::TooDeep)?;
        self.take("(", "'('")?;
        let filter = match self.rest().chars().next() {
            Some('&') => Filter::And(self.list(depth)?),
            Some('|') => Filter::Or(self.list(depth)?),
            Some('!') => {
                self.at += 1;
                Filter::Not(Box::new(self.filter(depth)?))
            }
            _ => self.item()?,
        };
        self.take(")", "')'")?;
        Ok(filter)
    }

    /// At least one: an empty list is true or false (RFC 4526), which nobody means in a configuration.
    fn list(&mut self, depth: usize) -> Result<Vec<Filter>, FilterError> {
        self.at += 1;
        let mut filters = vec![self.filter(depth)?];
        while self.rest().starts_with('(') {
            filters.push(self.filter(depth)?);
        }
        Ok(filters)
    }

    fn item(&mut self) -> Result<Filter, FilterError> {
        let rest = self.rest();
        let end = rest.find(['(', ')']).unwrap_or(rest.len());
        let item = &rest[..end];
        let Some((name, value)) = item.split_once('=') else { return Err(self.expected("ATTRIBUTE=value")) };
        let filter = compared(name, value)?;
        self.at += end;
        Ok(filter)
    }
}

fn compared(name: &str, value: &str) -> Result<Filter, FilterError> {
    let attribute = |name: &str| {
        if is_attribute(name) { Ok(name.to_owned()) } else { Err(FilterError::Attribute(name.into())) }
    };
    if let Some(rule) = name.strip_suffix(':') {
        return if is_rule(rule) {
            Ok(Filter::Rule(rule.into(), unescaped(value)?))
        } else {
            Err(FilterError::Attribute(name.into()))
        };
    }
    let form: fn(String, Vec<u8>) -> Filter = match name.chars().last() {
        Some('~') => Filter::Approx,
        Some('>') => Filter::AtLeast,
        Some('<') => Filter::AtMost,
        _ => return equality(attribute(name)?, value),
    };
    Ok(form(attribute(&name[..name.len() - 1])?, unescaped(value)?))
}

fn equality(name: String, value: &str) -> Result<Filter, FilterError> {
    if value == "*" {
        return Ok(Filter::Present(name));
    }
    let parts: Vec<Vec<u8>> = value.split('*').map(unescaped_part).collect::<Result<_, _>>()?;
    match parts.as_slice() {
        [whole] => Ok(Filter::Equals(name, whole.clone())),
        [_, middle @ .., _] if middle.iter().any(Vec::is_empty) => Err(FilterError::Asterisks(name)),
        _ => Ok(Filter::Parts(name, parts)),
    }
}

/// A name or an object identifier, with options (RFC 4512 §2.5).
fn is_attribute(name: &str) -> bool {
    let mut parts = name.split(';');
    parts.next().is_some_and(is_oid) && parts.all(is_keystring)
}

/// A name, or numbers with dots between them (RFC 4512 §1.4).
fn is_oid(text: &str) -> bool {
    if text.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return is_keystring(text);
    }
    let is_number = |part: &str| {
        let is_zero_led = part.len() > 1 && part.starts_with('0');
        !part.is_empty() && !is_zero_led && part.bytes().all(|b| b.is_ascii_digit())
    };
    text.contains('.') && text.split('.').all(is_number)
}

fn is_keystring(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// `attribute`, `attribute:dn`, `attribute:rule`, `attribute:dn:rule`, `:rule` or `:dn:rule` (RFC 4515 §3).
fn is_rule(text: &str) -> bool {
    let Some((name, rest)) = text.split_once(':') else { return is_attribute(text) };
    let rule = rest.strip_prefix("dn:").unwrap_or(rest);
    // The library that sends filters takes whatever begins with `dn` for that word. No rule is called so.
    let is_known = is_oid(rule) && !rule.starts_with("dn");
    if name.is_empty() { is_known } else { is_attribute(name) && (is_known || rest == "dn") }
}

/// A value in which an asterisk has no meaning must have it escaped.
fn unescaped(text: &str) -> Result<Vec<u8>, FilterError> {
    if text.contains('*') { Err(FilterError::Escape) } else { unescaped_part(text) }
}

fn unescaped_part(text: &str) -> Result<Vec<u8>, FilterError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'\\' {
            let digits = after.get(..2).and_then(|pair| str::from_utf8(pair).ok()).ok_or(FilterError::Escape)?;
            let is_hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
            bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| is_hex).ok_or(FilterError::Escape)?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    Ok(bytes)
}
