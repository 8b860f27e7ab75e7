//! Distinguished names (RFC 4514).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The longest name that is read, in bytes. Active Directory itself has far lower limits on each part.
const BYTES_MAX: usize = 4096;

/// One part of a distinguished name: an attribute type and its value, as in `OU=Desktops`.
///
/// Multi-valued parts (`CN=a+SN=b`) are not read: Active Directory has none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rdn {
    kind: String,
    value: String,
}

impl Rdn {
    /// A part of this type and value.
    ///
    /// # Errors
    /// [`DnError::Type`] when the type is not a letter followed by letters, digits and hyphens (RFC 4512 §1.4, `descr`);
    /// [`DnError::Empty`] and [`DnError::Nul`] for values that no directory stores.
    pub fn new(kind: &str, value: &str) -> Result<Self, DnError> {
        let mut letters = kind.bytes();
        let is_type = letters.next().is_some_and(|b| b.is_ascii_alphabetic())
            && letters.all(|b| b.is_ascii_alphanumeric() || b == b'-');
        match (is_type, value) {
            (false, _) => Err(DnError::Type(kind.into())),
            (true, "") => Err(DnError::Empty(kind.into())),
            (true, value) if value.contains('\0') => Err(DnError::Nul),
            (true, value) => Ok(Self { kind: kind.into(), value: value.into() }),
        }
    }

    /// The attribute type, as in `OU`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The value, without escapes.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether both name the same: types and values are compared without regard to case, as Active Directory does.
    pub fn same_as(&self, other: &Self) -> bool {
        self.kind.eq_ignore_ascii_case(&other.kind) && self.value.to_lowercase() == other.value.to_lowercase()
    }
}

impl fmt::Display for Rdn {
    /// With every character escaped that RFC 4514 §2.4 asks for, and `=` too, which readers take for a separator.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=", self.kind)?;
        let last = self.value.chars().count().saturating_sub(1);
        for (index, c) in self.value.chars().enumerate() {
            let edge_space = c == ' ' && (index == 0 || index == last);
            let first_hash = c == '#' && index == 0;
            match c {
                '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => write!(f, "\\{c}")?,
                _ if edge_space || first_hash => write!(f, "\\{c}")?,
                _ if c.is_control() => {
                    let mut bytes = [0; 4];
                    for byte in c.encode_utf8(&mut bytes).bytes() {
                        write!(f, "\\{byte:02X}")?;
                    }
                }
                _ => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

/// A distinguished name: its parts, the innermost first.
///
/// ```
/// use kasm_ad::Dn;
/// let ou: Dn = "OU=Desktops,DC=example,DC=local".parse().unwrap();
/// assert_eq!(ou.domain().as_deref(), Some("example.local"));
/// assert!(ou.child("CN", "a, b").unwrap().is_below(&ou));
/// assert_eq!(ou.child("CN", "a, b").unwrap().to_string(), r"CN=a\, b,OU=Desktops,DC=example,DC=local");
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dn(Vec<Rdn>);

impl Dn {
    /// The parts, the innermost first.
    pub fn parts(&self) -> &[Rdn] {
        &self.0
    }

    /// The name of a child of this object.
    ///
    /// # Errors
    /// As [`Rdn::new`].
    pub fn child(&self, kind: &str, value: &str) -> Result<Self, DnError> {
        let mut parts = vec![Rdn::new(kind, value)?];
        parts.extend_from_slice(&self.0);
        Ok(Self(parts))
    }

    /// Whether this object lies below `other`, at any depth. Nothing lies below itself.
    pub fn is_below(&self, other: &Self) -> bool {
        let Some(depth) = self.0.len().checked_sub(other.0.len()).filter(|depth| *depth > 0) else { return false };
        self.0[depth..].iter().zip(&other.0).all(|(mine, theirs)| mine.same_as(theirs))
    }

    /// Whether this is `other` or lies below it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.is_below(other) || self.same_as(other)
    }

    /// Whether both name the same object, without regard to case.
    pub fn same_as(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(mine, theirs)| mine.same_as(theirs))
    }

    /// The name of the domain: the `DC` parts at its end; `None` if there are none.
    pub fn domain_part(&self) -> Option<Self> {
        let labels = self.0.iter().rev().take_while(|part| part.kind.eq_ignore_ascii_case("DC")).count();
        (labels > 0).then(|| Self(self.0[self.0.len() - labels..].to_vec()))
    }

    /// The DNS name of the domain, from the `DC` parts at its end; `None` if there are none.
    pub fn domain(&self) -> Option<String> {
        let labels: Vec<&str> =
            self.0.iter().rev().take_while(|part| part.kind.eq_ignore_ascii_case("DC")).map(Rdn::value).collect();
        let name: Vec<&str> = labels.into_iter().rev().collect();
        if name.is_empty() { None } else { Some(name.join(".")) }
    }
}

impl fmt::Display for Dn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{part}")?;
        }
        Ok(())
    }
}

/// Why a text is not a distinguished name.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum DnError {
    /// There is nothing, or nothing between two commas.
    #[error("part {0} is empty; a distinguished name looks like OU=Desktops,DC=example,DC=local")]
    NoPart(usize),
    /// A part has no `=`.
    #[error("{0:?} has no '='; each part is TYPE=value, as in OU=Desktops")]
    NoEquals(String),
    /// An attribute type is not one.
    #[error("{0:?} is not an attribute type; use one like CN, OU or DC")]
    Type(String),
    /// A value is empty.
    #[error("{0} has an empty value")]
    Empty(String),
    /// A value contains NUL, which no directory stores.
    #[error("a value contains a NUL character")]
    Nul,
    /// A character must be escaped.
    #[error("{0:?} must be written with a backslash before it, as in \\{0}")]
    Unescaped(char),
    /// A backslash is not followed by a character to escape or two hexadecimal digits.
    #[error("a backslash must be followed by a special character or by two hexadecimal digits")]
    Escape,
    /// Escaped bytes are not UTF-8.
    #[error("escaped bytes are not UTF-8")]
    Utf8,
    /// A part with several values, or a value given as a `#` and hexadecimal digits.
    #[error("{0} is not supported; write each part as one TYPE=value")]
    Unsupported(&'static str),
    /// It is too long.
    #[error("a distinguished name may have {BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
}

impl FromStr for Dn {
    type Err = DnError;

    fn from_str(text: &str) -> Result<Self, DnError> {
        if text.len() > BYTES_MAX {
            return Err(DnError::TooLong(text.len()));
        }
        split(text)
            .into_iter()
            .enumerate()
            .map(|(index, part)| read_part(index + 1, part))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// The texts between commas that are not escaped.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (index, c) in text.char_indices() {
        if c == ',' && !escaped {
            parts.push(&text[start..index]);
            start = index + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    parts.push(&text[start..]);
    parts
}

fn read_part(number: usize, text: &str) -> Result<Rdn, DnError> {
    let text = text.trim_start_matches(' ');
    if text.trim_end_matches(' ').is_empty() {
        return Err(DnError::NoPart(number));
    }
    let (kind, value) = text.split_once('=').ok_or_else(|| DnError::NoEquals(text.into()))?;
    Rdn::new(kind.trim_matches(' '), &unescape(value.trim_start_matches(' '))?)
}

/// The value without its escapes (RFC 4514 §3). Spaces at the end count only when escaped.
fn unescape(text: &str) -> Result<String, DnError> {
    if text.starts_with('#') {
        return Err(DnError::Unsupported("a value in hexadecimal digits"));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut kept = 0;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => {
                let next = rest.next().ok_or(DnError::Escape)?;
                bytes.push(match next.to_digit(16) {
                    Some(high) => hex_pair(high, rest.next())?,
                    None if " \"#+,;<=>\\".contains(next) => u8::try_from(next).map_err(|_| DnError::Escape)?,
                    None => return Err(DnError::Escape),
                });
                kept = bytes.len();
            }
            '+' => return Err(DnError::Unsupported("a part with several values")),
            '"' | ';' | '<' | '>' => return Err(DnError::Unescaped(c)),
            _ => {
                let mut buffer = [0; 4];
                bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
                if c != ' ' {
                    kept = bytes.len();
                }
            }
        }
    }
    bytes.truncate(kept);
    String::from_utf8(bytes).map_err(|_| DnError::Utf8)
}

fn hex_pair(high: u32, low: Option<char>) -> Result<u8, DnError> {
    let low = low.and_then(|c| c.to_digit(16)).ok_or(DnError::Escape)?;
    u8::try_from(high * 16 + low).map_err(|_| DnError::Escape)
}
