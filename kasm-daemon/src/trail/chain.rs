//! The chain: each entry's MAC covers the entry, its number, and the MAC before it.
//!
//! `mac(n) = HMAC-SHA256(key, 1 ‖ mac(n-1) ‖ n ‖ entry)`, with the number in 8 bytes, the most significant first. The MAC
//! before the first entry is made of the deployment id, so that a log is of its own installation alone. Where the oldest
//! entries were trimmed, the last one of them is remembered as the anchor, and sealed: `HMAC-SHA256(key, 2 ‖ n ‖ mac(n))`.
//! Without the seal, whoever takes away the oldest entries could write an anchor himself: the MAC stands beside every entry.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use kasm_autoscale_core::id::DeploymentId;
use kasm_autoscale_core::token::DeploymentKey;
use secrecy::{ExposeSecret, SecretBox};
use sha2::Sha256;
use thiserror::Error;

use crate::auth::to_hex;

/// How many bytes of a MAC are shown.
const SHOWN_BYTES: usize = 8;
const GENESIS: &[u8] = &[0];
const LINK: &[u8] = &[1];
const ANCHOR: &[u8] = &[2];

/// A MAC.
pub type Tag = [u8; 32];

/// The end of a chain, or any entry of it: its number and its MAC. Shown as `NUMBER:MAC`, with 16 digits of the MAC.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// The number, 1 for the first entry.
    pub number: i64,
    /// The MAC.
    pub mac: Tag,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, to_hex(&self.mac[..SHOWN_BYTES]))
    }
}

/// A head as it was shown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shown {
    number: i64,
    digits: String,
}

/// Why a text is no head.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("NUMBER:MAC, as the daemon's log shows it: a number, a colon and {} hexadecimal digits", 2 * SHOWN_BYTES)]
pub struct NotAHead;

impl Shown {
    /// The number.
    pub fn number(&self) -> i64 {
        self.number
    }

    /// Whether this is how that head is shown.
    pub fn is(&self, head: &Head) -> bool {
        head.number == self.number && to_hex(&head.mac[..SHOWN_BYTES]) == self.digits
    }
}

impl FromStr for Shown {
    type Err = NotAHead;

    fn from_str(text: &str) -> Result<Self, NotAHead> {
        let (number, digits) = text.trim().split_once(':').ok_or(NotAHead)?;
        let number = number.parse().ok().filter(|number| *number > 0).ok_or(NotAHead)?;
        let fits = digits.len() == 2 * SHOWN_BYTES && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        if fits { Ok(Self { number, digits: digits.to_ascii_lowercase() }) } else { Err(NotAHead) }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, self.digits)
    }
}

struct Keys {
    links: SecretBox<[u8; 32]>,
    digests: SecretBox<[u8; 32]>,
    deployment: DeploymentId,
}

/// Makes the links of one installation's chain. Cheap to clone.
#[derive(Clone)]
pub struct Chain(Arc<Keys>);

impl Chain {
    /// The chain of this installation.
    pub fn new(key: &DeploymentKey, deployment: DeploymentId) -> Self {
        let (links, digests) = (key.derived("audit chain v1"), key.derived("audit digests v1"));
        Self(Arc::new(Keys { links, digests, deployment }))
    }

    /// What comes before the first entry.
    pub fn genesis(&self) -> Head {
        let mac = tag(&self.0.links, &[GENESIS, self.0.deployment.to_string().as_bytes()]);
        Head { number: 0, mac }
    }

    /// The entry after `before`; `None` when there are no more numbers.
    pub fn link(&self, before: &Head, text: &str) -> Option<Head> {
        let number = before.number.checked_add(1)?;
        let mac = tag(&self.0.links, &[LINK, &before.mac, &number.to_be_bytes(), text.as_bytes()]);
        Some(Head { number, mac })
    }

    /// The seal of an anchor.
    pub fn seal(&self, anchor: &Head) -> Tag {
        tag(&self.0.links, &[ANCHOR, &anchor.number.to_be_bytes(), &anchor.mac])
    }

    /// The HMAC that may stand in an entry in place of these parts: 32 hexadecimal digits.
    pub fn digest(&self, parts: &[&[u8]]) -> String {
        let mut whole = Vec::with_capacity(2 * parts.len());
        let lengths: Vec<[u8; 8]> = parts.iter().map(|part| (part.len() as u64).to_be_bytes()).collect();
        for (part, length) in parts.iter().zip(&lengths) {
            // The length first, so that no two lists of parts are alike.
            whole.extend([length.as_slice(), part]);
        }
        to_hex(&tag(&self.0.digests, &whole)[..16])
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chain")
    }
}

fn tag(key: &SecretBox<[u8; 32]>, parts: &[&[u8]]) -> Tag {
    // HMAC takes keys of every length (RFC 2104 §3), so this cannot fail; a zero key is never used.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.expose_secret()) else {
        unreachable!("HMAC takes keys of every length")
    };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(key: u8, deployment: u8) -> Chain {
        Chain::new(&DeploymentKey::new([key; 32]), DeploymentId::from_bytes([deployment; 16]))
    }

    #[test]
    fn a_link_depends_on_everything_that_it_covers() {
        let ours = chain(1, 1);
        let first = ours.link(&ours.genesis(), "a").unwrap();
        assert_eq!(first.number, 1);
        assert_eq!(ours.link(&ours.genesis(), "a"), Some(first));
        let others = [
            ours.link(&ours.genesis(), "b"),
            ours.link(&first, "a"),
            ours.link(&Head { number: 1, ..ours.genesis() }, "a"),
            chain(2, 1).link(&ours.genesis(), "a"),
            chain(1, 2).link(&chain(1, 2).genesis(), "a"),
        ];
        for other in others {
            assert_ne!(other.unwrap().mac, first.mac);
        }
        assert_eq!(ours.link(&Head { number: i64::MAX, mac: [0; 32] }, "a"), None);
        assert_ne!(ours.seal(&first), first.mac);
        assert_ne!(ours.seal(&first), ours.seal(&Head { number: 2, ..first }));
    }

    #[test]
    fn s_22_a_chain_stays_as_it_is_for_ever() {
        // A log is verified by later versions than the one that wrote it. These were also computed by other means.
        let deployment = "00000000-0000-4000-8000-000000000007".parse().unwrap();
        let ours = Chain::new(&DeploymentKey::new([7; 32]), deployment);
        let first = ours.link(&ours.genesis(), r#"{"kind":"started","at":""}"#).unwrap();
        assert_eq!(to_hex(&first.mac), "34144464523603efd2043a7468cf9745c7c94ae355f5a494e2791ebfd568c7d3");
        assert_eq!(to_hex(&ours.seal(&first)), "834c3a476ccf6239d970d93abd384f4a7166500b57813f934489894586d913b9");
        assert_eq!(ours.digest(&[b"ab", b"c"]), "97e93d4844239440befac5a503c572c8");
    }

    #[test]
    fn a_digest_tells_where_one_part_ends() {
        let ours = chain(1, 1);
        assert_eq!(ours.digest(&[b"ab", b"c"]), ours.digest(&[b"ab", b"c"]));
        assert_ne!(ours.digest(&[b"ab", b"c"]), ours.digest(&[b"a", b"bc"]));
        assert_ne!(ours.digest(&[b"ab"]), chain(2, 1).digest(&[b"ab"]));
        assert_eq!(ours.digest(&[b""]).len(), 32);
    }

    #[test]
    fn a_head_is_read_as_it_is_shown() {
        let head = Head { number: 42, mac: [0xab; 32] };
        assert_eq!(head.to_string(), "42:abababababababab");
        let shown: Shown = " 42:ABABABABABABABAB\n".parse().unwrap();
        assert!(shown.is(&head) && shown.number() == 42 && shown.to_string() == head.to_string());
        assert!(!shown.is(&Head { number: 43, ..head }) && !shown.is(&Head { mac: [0xac; 32], ..head }));
        for text in ["", "42", "42:", "42:ab", "0:abababababababab", "x:abababababababab", "42:abababababababag"] {
            assert_eq!(text.parse::<Shown>(), Err(NotAHead), "{text}");
        }
    }
}
