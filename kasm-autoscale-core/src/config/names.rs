//! Computer names: made of a pattern and a server's number, so that no pool uses one twice.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::{MachineName, ServerKey};

/// The placeholder for characters that are derived from the pool and the server's number.
pub const RANDOM: &str = "{random}";
/// The placeholder for the server's number in its pool.
pub const NUMBER: &str = "{number}";

/// The pattern of the computer names of a config: text of letters, digits and hyphens with one placeholder in it.
///
/// `{random}` is filled with `a-z2-7` until the name has 15 characters, `{number}` with the server's number. Either way a
/// name is valid as a NetBIOS name (MS-NBTE 2.2.1) and as a host name (RFC 1123): at most 15 characters, no hyphen at either
/// end, never digits alone. A pool uses no number twice, so it uses no name twice: one that is given up is held for ever.
/// Numbers are the pool's own, so two pools with `{number}` and the same text around it would want the same names.
///
/// ```
/// use kasm_autoscale_core::config::NamePattern;
/// use kasm_autoscale_core::id::{PoolId, ServerId, ServerKey};
/// let server = |number| ServerKey { pool: PoolId::from_bytes([2; 16]), server: ServerId::new(number) };
/// let pattern: NamePattern = "desk-{number}".parse().unwrap();
/// assert_eq!(pattern.name_of(&server(12)).unwrap().as_str(), "desk-12");
/// assert!("no-placeholder".parse::<NamePattern>().is_err());
/// ```
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamePattern {
    before: String,
    fill: Fill,
    after: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fill {
    Random,
    Number,
}

impl Fill {
    const ALL: [Self; 2] = [Self::Random, Self::Number];

    const fn placeholder(self) -> &'static str {
        match self {
            Self::Random => RANDOM,
            Self::Number => NUMBER,
        }
    }

    /// The fewest characters that must be left for it: 30 bits of chance, or 99,999 servers.
    const fn least(self) -> usize {
        match self {
            Self::Random => 6,
            Self::Number => 5,
        }
    }
}

/// A text that is no [`NamePattern`], and why.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum InvalidPattern {
    /// There is none of the placeholders in it, or more than one.
    #[error("exactly one of {{random}} and {{number}}, as in \"kasm-{{random}}\"")]
    Placeholder,
    /// Something else than letters, digits and hyphens stands around the placeholder.
    #[error("letters a-z and A-Z, digits and hyphens around {{random}} or {{number}}, nothing else")]
    Character,
    /// It would begin or end with a hyphen.
    #[error("a name begins and ends with a letter or digit, not with a hyphen")]
    Hyphen,
    /// Names could be digits alone, which neither Windows nor DNS takes for a computer's name.
    #[error("at least one letter around {{random}} or {{number}}, since a name of digits alone is no computer name")]
    Digits,
    /// Not enough is left for the random characters.
    #[error("at most 9 characters around {{random}}, so that at least 6 of 15 are left for it")]
    RandomTooShort,
    /// Not enough is left for the number.
    #[error("at most 10 characters around {{number}}, so that at least 5 of 15 are left for it")]
    NumberTooShort,
}

impl NamePattern {
    /// The longest a NetBIOS name may be, and so every name that is made.
    pub const NAME_CHARS_MAX: usize = 15;

    /// The computer name of a server. `None`: its number has more digits than fit into `{number}`.
    pub fn name_of(&self, server: &ServerKey) -> Option<MachineName> {
        if server.server.serial() > self.last_serial() {
            return None;
        }
        let filled = match self.fill {
            Fill::Random => server.random_text(self.room()),
            Fill::Number => server.server.serial().to_string(),
        };
        Some(MachineName::new(format!("{}{filled}{}", self.before, self.after)))
    }

    /// The highest server number that has a name.
    pub fn last_serial(&self) -> u64 {
        // Two bits of a number are used by the form of the server's UUID.
        let most = u64::MAX >> 2;
        match self.fill {
            Fill::Random => most,
            Fill::Number => {
                let digits = u32::try_from(self.room()).unwrap_or(u32::MAX);
                10_u64.checked_pow(digits).map_or(most, |end| end - 1).min(most)
            }
        }
    }

    /// How many characters the placeholder may become.
    fn room(&self) -> usize {
        Self::NAME_CHARS_MAX.saturating_sub(self.before.len() + self.after.len())
    }
}

impl Default for NamePattern {
    /// `kasm-{random}`
    fn default() -> Self {
        Self { before: "kasm-".into(), fill: Fill::Random, after: String::new() }
    }
}

impl FromStr for NamePattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let found = Fill::ALL.into_iter().find_map(|fill| Some((text.split_once(fill.placeholder())?, fill)));
        let ((before, after), fill) = found.ok_or(InvalidPattern::Placeholder)?;
        let around = || before.bytes().chain(after.bytes());
        if Fill::ALL.into_iter().any(|fill| before.contains(fill.placeholder()) || after.contains(fill.placeholder())) {
            return Err(InvalidPattern::Placeholder);
        }
        if !around().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(InvalidPattern::Character);
        }
        if before.starts_with('-') || after.ends_with('-') {
            return Err(InvalidPattern::Hyphen);
        }
        if !around().any(|byte| byte.is_ascii_alphabetic()) {
            return Err(InvalidPattern::Digits);
        }
        if before.len() + after.len() + fill.least() > Self::NAME_CHARS_MAX {
            return Err(match fill {
                Fill::Random => InvalidPattern::RandomTooShort,
                Fill::Number => InvalidPattern::NumberTooShort,
            });
        }
        Ok(Self { before: before.into(), fill, after: after.into() })
    }
}

impl TryFrom<String> for NamePattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        text.parse()
    }
}

impl From<NamePattern> for String {
    fn from(pattern: NamePattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.before, self.fill.placeholder(), self.after)
    }
}
