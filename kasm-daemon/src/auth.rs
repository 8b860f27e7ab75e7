//! Who may call the API: bearer tokens, each with a name and a role.
//!
//! A token is `kasm_<name>_` and 32 random bytes in base64url. The config file holds its SHA-256, or the name of a secret that
//! holds the token; in memory and in the store there is only the SHA-256. With 256 random bits a fast hash is enough: there is nothing to guess.

use std::fmt;
use std::hint::black_box;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kasm_autoscale_core::time::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// The longest name of a token.
const NAME_CHARS_MAX: usize = 63;

/// What the holder of a token may do. [`api::access`](crate::api::access) has the table.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Somebody who has logged in with his own password: sees the workspaces that are open to him and his own sessions, no
    /// more. No API token has this role.
    User,
    /// Reads everything but the passwords of connections.
    Viewer,
    /// Asks for sessions, keeps them alive and ends them, and sees how to connect to them. Reads pools; no configs or servers.
    Broker,
    /// Reads what a viewer reads, changes pools, configs and servers, ends sessions.
    Operator,
    /// Everything.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::User, Self::Viewer, Self::Broker, Self::Operator, Self::Admin];
    /// Those that API tokens have.
    pub const OF_TOKENS: [Self; 4] = [Self::Viewer, Self::Broker, Self::Operator, Self::Admin];

    /// The word of configs, messages and the OpenAPI document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Viewer => "viewer",
            Self::Broker => "broker",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// Whether it is shown how to connect to a session, passwords included. A user is shown that of his own.
    pub const fn sees_connections(self) -> bool {
        matches!(self, Self::User | Self::Broker | Self::Admin)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A token that is accepted. Several may have one name, as while one is being replaced by the next.
#[derive(Clone)]
pub struct TokenEntry {
    /// Who holds it, for the log.
    pub name: String,
    /// What the holder may do.
    pub role: Role,
    /// SHA-256 of the whole token.
    pub sha256: [u8; 32],
    /// From when on it is not accepted any more.
    pub expires_at: Option<Timestamp>,
}

/// Why a token's SHA-256 or name was refused.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum InvalidToken {
    /// Not the hash of anything.
    #[error("not a SHA-256: 64 hexadecimal digits; `kasm-daemon token NAME` prints a token and its SHA-256")]
    Sha256,
    /// Not a name that can stand in a token and a log line.
    #[error(
        "not a name for a token: 1 to {NAME_CHARS_MAX} letters, digits, '.', '_' or '-', the first one a letter or digit"
    )]
    Name,
}

impl TokenEntry {
    /// The token whose SHA-256 is written like this.
    ///
    /// # Errors
    /// [`InvalidToken`].
    pub fn from_sha256(name: &str, role: Role, hex: &str) -> Result<Self, InvalidToken> {
        let sha256 = from_hex(hex.trim()).ok_or(InvalidToken::Sha256)?;
        Ok(Self { name: checked_name(name)?.into(), role, sha256, expires_at: None })
    }

    /// The token itself, as a secret store keeps it. White space around it is not part of it.
    ///
    /// # Errors
    /// [`InvalidToken::Name`].
    pub fn from_token(name: &str, role: Role, token: &SecretString) -> Result<Self, InvalidToken> {
        Ok(Self {
            name: checked_name(name)?.into(),
            role,
            sha256: sha256(token.expose_secret().trim()),
            expires_at: None,
        })
    }
}

impl fmt::Debug for TokenEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenEntry").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

/// The tokens that the config file declares, or that none is asked for. [`ApiTokens`](crate::tokens::ApiTokens) has what
/// becomes of them.
#[derive(Clone, Debug)]
pub struct Tokens(Option<Vec<TokenEntry>>);

impl Tokens {
    /// Exactly these tokens, and those made through the API; with none of them nobody gets in.
    pub fn new(entries: Vec<TokenEntry>) -> Self {
        Self(Some(entries))
    }

    /// Everybody is an admin. The server refuses this on any address that is reachable from another machine.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Whether no token is asked for.
    pub const fn is_open(&self) -> bool {
        self.0.is_none()
    }

    /// The tokens, as they were given.
    pub(crate) fn into_entries(self) -> Vec<TokenEntry> {
        self.0.unwrap_or_default()
    }
}

/// Who is calling.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caller {
    /// The token's name; empty where no token is asked for.
    pub name: String,
    /// What the caller may do.
    pub role: Role,
}

impl Caller {
    /// Whoever calls where no token is asked for.
    pub(crate) const fn anybody() -> Self {
        Self { name: String::new(), role: Role::Admin }
    }
}

/// A token that has just been drawn. It is shown once and kept nowhere.
pub struct NewToken {
    /// The token, to be given to its holder.
    pub token: SecretString,
    /// Its SHA-256 in hexadecimal, to be written in the config file.
    pub sha256: String,
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewToken")
    }
}

/// Why no token could be drawn.
#[derive(Debug, Error)]
pub enum NewTokenError {
    /// Its name is no good.
    #[error(transparent)]
    Name(#[from] InvalidToken),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
}

/// Draws a token for a holder of this name.
///
/// # Errors
/// [`NewTokenError`].
pub fn generate_token(name: &str) -> Result<NewToken, NewTokenError> {
    let name = checked_name(name)?;
    let mut random = [0; 32];
    getrandom::fill(&mut random)?;
    let token = format!("kasm_{name}_{}", URL_SAFE_NO_PAD.encode(random));
    let sha256 = to_hex(&sha256(&token));
    Ok(NewToken { token: token.into(), sha256 })
}

fn checked_name(name: &str) -> Result<&str, InvalidToken> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let fits = name.len() <= NAME_CHARS_MAX
        && name.bytes().all(allowed)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if fits { Ok(name) } else { Err(InvalidToken::Name) }
}

pub(crate) fn sha256(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Whether two hashes are equal, in a time that does not depend on where they differ.
pub(crate) fn same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    let difference = one.iter().zip(other).fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
    black_box(difference) == 0
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_a_secret_holds_is_the_same_token() {
        let new = generate_token("a").unwrap();
        let kept = SecretString::from(format!("{}\n", new.token.expose_secret()));
        let entry = TokenEntry::from_token("a", Role::Admin, &kept).unwrap();
        assert_eq!(to_hex(&entry.sha256), new.sha256);
    }

    #[test]
    fn hashes_differ_at_every_single_bit() {
        for bit in 0..256 {
            let mut other = [0; 32];
            other[bit / 8] = 1 << (bit % 8);
            assert!(!same(&[0; 32], &other), "bit {bit}");
        }
        assert!(same(&[9; 32], &[9; 32]));
    }

    #[test]
    fn names_and_hashes_are_checked() {
        for name in ["", "-a", "a b", "a/b", "a\n", "ä", &"a".repeat(64)] {
            assert_eq!(
                generate_token(name).map_err(|error| error.to_string()).unwrap_err(),
                InvalidToken::Name.to_string()
            );
        }
        for hex in ["", "ab", &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(TokenEntry::from_sha256("a", Role::Admin, hex).unwrap_err(), InvalidToken::Sha256);
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let new = generate_token("a").unwrap();
        let entry = TokenEntry::from_sha256("a", Role::Viewer, &new.sha256).unwrap();
        let printed = format!("{new:?} {entry:?} {:?}", Tokens::new(vec![entry.clone()]));
        assert!(!printed.contains(new.token.expose_secret()) && !printed.contains(&new.sha256));
        assert!(!printed.contains(&format!("{:?}", entry.sha256)));
    }
}
