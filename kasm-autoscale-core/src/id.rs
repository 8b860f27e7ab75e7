//! Identifiers and names. Each kind is a type of its own, so that none can be taken for another.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// A text that is not the identifier or name it should be.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{given:?} is not a {what}: {allowed}")]
pub struct InvalidId {
    /// What the text should have been, as in "pool id".
    pub what: &'static str,
    /// The text.
    pub given: String,
    /// What would have been accepted.
    pub allowed: &'static str,
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The identifier with these 16 bytes. The host draws them from its system's random source, once.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_uuid(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_uuid(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse_uuid(text).map(Self).ok_or_else(|| InvalidId {
                    what: $what,
                    given: text.into(),
                    allowed: "32 hexadecimal digits in the form 8-4-4-4-12",
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

uuid_id!(
    /// One installation. It stands on every machine we make, so that two installations that share a cloud account
    /// never touch each other's machines.
    DeploymentId,
    "deployment id"
);
uuid_id!(
    /// A pool, for ever: a pool that is deleted and made again under its old name gets another id, so that its
    /// servers can never be taken for those of the old one.
    PoolId,
    "pool id"
);

impl PoolId {
    /// SHA-256 of this pool, a purpose and a subject.
    pub(crate) fn digest(&self, purpose: &str, subject: &[u8]) -> [u8; 32] {
        let hash = Sha256::new_with_prefix(b"kasm-autoscale\0");
        hash.chain_update(purpose.as_bytes())
            .chain_update([0])
            .chain_update(self.0)
            .chain_update(subject)
            .finalize()
            .into()
    }
}

macro_rules! serial_id {
    ($(#[$doc:meta])* $name:ident, $int:ty, $prefix:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(transparent)]
        pub struct $name($int);

        impl $name {
            /// The identifier with this serial number.
            pub const fn new(serial: $int) -> Self {
                Self(serial)
            }

            /// The serial number.
            pub const fn serial(self) -> $int {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let serial = text.strip_prefix($prefix).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
                serial.and_then(|digits| digits.parse().ok()).map(Self).ok_or_else(|| InvalidId {
                    what: $what,
                    given: text.into(),
                    allowed: concat!($prefix, " and a number, as in ", $prefix, "12"),
                })
            }
        }
    };
}

serial_id!(
    /// A server of one pool: `srv-` and a number that the pool never uses twice.
    ServerId,
    u64,
    "srv-",
    "server id"
);
serial_id!(
    /// A session of one pool: `ses-` and a number that the pool never uses twice. Lower means asked for earlier.
    SessionId,
    u64,
    "ses-",
    "session id"
);
serial_id!(
    /// An autoscale config of one pool. People use its name; rows use this number, which is never used twice.
    ConfigId,
    u32,
    "cfg-",
    "config id"
);
serial_id!(
    /// A command that a pool gave out, unique in that pool for ever.
    CommandId,
    u64,
    "cmd-",
    "command id"
);

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        ///
        /// 1 to 63 characters: ASCII letters, digits, `.`, `_` and `-`, the first one a letter or digit.
        #[derive(Clone, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                if is_name(text) { Ok(Self(text.into())) } else {
                    Err(InvalidId { what: $what, given: text.into(), allowed: NAME_RULE })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                (*name.0).into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// What a name may be, for messages.
pub(crate) const NAME_RULE: &str = "1 to 63 letters, digits, '.', '_' or '-', the first one a letter or digit";

name_id!(
    /// The name of a pool, unique in an installation.
    PoolName,
    "pool name"
);
name_id!(
    /// The name of an autoscale config, unique in its pool.
    ConfigName,
    "config name"
);
name_id!(
    /// The name of a provider that the host has set up, as in `aws-west`.
    ProviderName,
    "provider name"
);
name_id!(
    /// The name of a directory that the host has set up: one of its LDAP configs.
    DirectoryName,
    "directory name"
);
name_id!(
    /// A deployment zone: where users and servers are near each other.
    ZoneName,
    "zone name"
);
name_id!(
    /// The name by which the host finds a secret. Secrets themselves never enter the state.
    SecretName,
    "secret name"
);

/// The user of a session: 1 to 256 characters, no control characters.
///
/// The core compares it byte for byte; a host whose users may log in as `Ann` and `ann` brings one form of it.
#[derive(Clone, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(Arc<str>);

impl UserName {
    /// The user as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let fits = !text.trim().is_empty() && text.chars().count() <= 256 && !text.chars().any(char::is_control);
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(InvalidId {
                what: "user name",
                given: text.escape_default().to_string(),
                allowed: "1 to 256 characters, no control characters",
            })
        }
    }
}

impl TryFrom<String> for UserName {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<UserName> for String {
    fn from(name: UserName) -> Self {
        (*name.0).into()
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What makes a server unique in the world: its pool and its number there.
///
/// Its [`uuid`](Self::uuid) is the machine's ownership mark and the token that makes its creation idempotent, so both
/// are the same after any number of crashes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ServerKey {
    /// The pool.
    pub pool: PoolId,
    /// The server's number there.
    pub server: ServerId,
}

impl ServerKey {
    /// A UUID of version 8 (RFC 9562 §5.8), 36 ASCII characters: half of it is made of the pool, the other half is the
    /// server's number, so that [`from_uuid`](Self::from_uuid) can read it back without a table.
    pub fn uuid(&self) -> String {
        DeploymentId(self.bytes()).to_string()
    }

    fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.pool_half());
        bytes[8..].copy_from_slice(&(self.server.serial() | (0b10 << 62)).to_be_bytes());
        bytes
    }

    /// The server of `pool` whose [`uuid`](Self::uuid) this is; `None` if it is not one of that pool's.
    pub fn from_uuid(pool: PoolId, uuid: &str) -> Option<Self> {
        let bytes = parse_uuid(uuid)?;
        let mut serial = [0; 8];
        serial.copy_from_slice(&bytes[8..]);
        let key = Self { pool, server: ServerId(u64::from_be_bytes(serial) & !(0b11 << 62)) };
        let is_written_so = !uuid.bytes().any(|byte| byte.is_ascii_uppercase());
        (is_written_so && key.bytes() == bytes).then_some(key)
    }

    /// Eight bytes that stand for the pool, with the version's four bits in their place.
    fn pool_half(&self) -> [u8; 8] {
        let mut half = [0; 8];
        half.copy_from_slice(&self.pool.digest("server", &[])[..8]);
        half[6] = (half[6] & 0x0f) | 0x80;
        half
    }

    /// The machine's name where its config says nothing else: `kasm-` and ten characters of `a-z2-7`, 15 in all, so that it
    /// is a valid NetBIOS name (MS-NBTE 2.2.1) and a valid host name (RFC 1123) on every system. See
    /// [`NamePattern`](crate::config::NamePattern).
    pub fn machine_name(&self) -> MachineName {
        MachineName(format!("kasm-{}", self.random_text(10)))
    }

    /// Up to 32 characters of `a-z2-7`, derived from the pool and the number: five bits each.
    pub(crate) fn random_text(&self, chars: usize) -> String {
        const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let digest = self.pool.digest("name", &self.server.serial().to_be_bytes());
        digest.iter().take(chars).map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect()
    }
}

impl fmt::Display for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uuid())
    }
}

/// The computer name of a machine, at most 15 characters; made by
/// [`NamePattern::name_of`](crate::config::NamePattern::name_of).
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct MachineName(String);

impl MachineName {
    pub(crate) const fn new(text: String) -> Self {
        Self(text)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MachineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    text.len() <= 63 && text.bytes().all(allowed) && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
}

fn write_uuid(bytes: &[u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // One piece: these are the marks of machines, which are written and compared for every machine of every listing.
    let mut text = [b'-'; 36];
    let places = (0..36).filter(|place| !matches!(place, 8 | 13 | 18 | 23));
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    for (place, digit) in places.zip(digits) {
        text[place] = DIGITS[usize::from(digit)];
    }
    f.write_str(core::str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    let mut digits = text.bytes();
    for (index, byte) in bytes.iter_mut().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) && digits.next()? != b'-' {
            return None;
        }
        for _ in 0..2 {
            let digit = char::from(digits.next()?).to_digit(16)?;
            *byte = (*byte << 4) | u8::try_from(digit).ok()?;
        }
    }
    digits.next().is_none().then_some(bytes)
}
