//! What is derived from the deployment key: check-in tokens, by which a machine proves that it is the one that was made for
//! a server, and the passwords with which machines join Active Directory.
//!
//! A check-in token is a JSON Web Token (RFC 7519) with HMAC-SHA256 (RFC 7518 §3.2). Its text depends on nothing but the deployment key, the
//! server and the expiry, so that the start-up data of a create is the same, byte for byte, however often it is made.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretBox, SecretString};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use thiserror::Error;

use crate::id::{PoolId, ServerKey};
use crate::ports::JoinPassword;
use crate::time::Timestamp;

/// The one key of an installation, from which every other secret of ours is derived. 32 random bytes, drawn by the host
/// once, kept by it and never part of the state.
pub struct DeploymentKey(SecretBox<[u8; 32]>);

impl core::fmt::Debug for DeploymentKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("DeploymentKey")
    }
}

impl DeploymentKey {
    /// The key with these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(SecretBox::init_with(|| bytes))
    }

    /// A key of the host's own, which serves the named purpose alone: nothing that the core derives comes from it, and none of
    /// the host's other purposes do.
    pub fn derived(&self, purpose: &str) -> SecretBox<[u8; 32]> {
        let key = hmac_of(self.0.expose_secret(), format!("host: {purpose}").as_bytes()).finalize().into_bytes();
        SecretBox::init_with(|| key.into())
    }

    /// HMAC-SHA256 over a text, under a key that serves this purpose alone.
    fn mac(&self, purpose: &str, text: &str) -> Hmac<Sha256> {
        let key = hmac_of(self.0.expose_secret(), purpose.as_bytes()).finalize().into_bytes();
        hmac_of(&key, text.as_bytes())
    }
}

fn hmac_of(key: &[u8], text: &[u8]) -> Hmac<Sha256> {
    // HMAC takes keys of every length (RFC 2104 §3), so this cannot fail; a zero key is never used.
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(key) else { unreachable!("HMAC takes keys of every length") };
    mac.chain_update(text)
}

const JOIN_PURPOSE: &str = "join password v1";
const JOIN_ALPHABET: &[u8; 65] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";
const JOIN_LETTERS_AND_DIGITS: usize = 62;
const JOIN_LENGTH: usize = 40;

/// The password with which the machine of a server joins Active Directory: 40 characters of `A-Z a-z 0-9 - _ .`, the first and
/// the last a letter or digit, with a capital, a small letter and a digit among them, so that it meets every password
/// policy and means nothing to any shell, script or mark-up. About 240 bits. It depends on nothing but the
/// key, the server and `attempt`, so a request that is made again after a crash is the same, byte for byte.
pub fn join_password(key: &DeploymentKey, server: &ServerKey, attempt: u32) -> JoinPassword {
    let mut round = 0_u32;
    loop {
        // A text in which a class is missing is passed over, by the same rule every time: about one in a thousand.
        let text = Zeroizing::new(join_text(key, &format!("{}/{attempt}/{round}", server.uuid())));
        let has = |class: fn(&u8) -> bool| text.bytes().any(|byte| class(&byte));
        if has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit) {
            return JoinPassword::new(SecretString::from(text.as_str()));
        }
        round += 1;
    }
}

fn join_text(key: &DeploymentKey, seed: &str) -> String {
    let mut text = String::with_capacity(JOIN_LENGTH);
    let mut block = 0_u32;
    while text.len() < JOIN_LENGTH {
        let bytes = key.mac(JOIN_PURPOSE, &format!("{seed}/{block}")).finalize().into_bytes();
        block += 1;
        for byte in bytes {
            let at_edge = text.is_empty() || text.len() + 1 == JOIN_LENGTH;
            let letters = if at_edge { JOIN_LETTERS_AND_DIGITS } else { JOIN_ALPHABET.len() };
            // Bytes beyond the last whole run of letters are passed over, or some letters would be likelier than others.
            if usize::from(byte) < 256 / letters * letters && text.len() < JOIN_LENGTH {
                text.push(char::from(JOIN_ALPHABET[usize::from(byte) % letters]));
            }
        }
    }
    text
}

/// `{"alg":"HS256","typ":"JWT"}` in base64url. The only header that is accepted, so there is no algorithm to choose.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
const AUDIENCE: &str = "kasm-autoscale/check-in";
const PURPOSE: &str = "check-in token v1";

/// The longest token that is looked at, in bytes; ours have about 300.
pub const TOKEN_BYTES_MAX: usize = 1024;

/// How far a machine's token may be past its expiry, because clocks differ.
pub const LEEWAY: Duration = Duration::from_secs(60);

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    aud: String,
    /// Seconds since the Unix epoch.
    exp: u64,
    pool: PoolId,
    /// [`ServerKey::uuid`].
    sub: String,
}

/// Why a check-in token is refused.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum TokenError {
    /// It is not a check-in token, or was not signed with this installation's key.
    #[error("this is not a check-in token of this installation")]
    Forged,
    /// It was one.
    #[error("this check-in token has expired")]
    Expired,
}

/// The check-in token of a server, good until `expires_at` and [`LEEWAY`]. ASCII letters, digits, `-`, `_` and `.` only, so it
/// can stand anywhere in a script.
pub fn checkin_token(key: &DeploymentKey, server: &ServerKey, expires_at: Timestamp) -> String {
    let claims = Claims { aud: AUDIENCE.into(), exp: expires_at.as_secs(), pool: server.pool, sub: server.uuid() };
    let payload = serde_json::to_vec(&claims).unwrap_or_default();
    let signed = format!("{HEADER}.{}", URL_SAFE_NO_PAD.encode(payload));
    let signature = key.mac(PURPOSE, &signed).finalize().into_bytes();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The server that a token was made for.
///
/// # Errors
/// [`TokenError::Forged`] for everything that this installation did not make, [`TokenError::Expired`] for what it made and that
/// is over. Nothing of a token is believed before its signature has been verified, in constant time.
pub fn verify_checkin_token(key: &DeploymentKey, token: &str, now: Timestamp) -> Result<ServerKey, TokenError> {
    let forged = TokenError::Forged;
    if token.len() > TOKEN_BYTES_MAX {
        return Err(forged);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(forged)?;
    let (header, payload) = signed.split_once('.').ok_or(forged)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| forged)?;
    key.mac(PURPOSE, signed).verify_slice(&signature).map_err(|_| forged)?;
    if header != HEADER {
        return Err(forged);
    }
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| forged)?;
    let claims: Claims = serde_json::from_slice(&payload).map_err(|_| forged)?;
    if claims.aud != AUDIENCE {
        return Err(forged);
    }
    let server = ServerKey::from_uuid(claims.pool, &claims.sub).ok_or(forged)?;
    if now > Timestamp::from_secs(claims.exp) + LEEWAY { Err(TokenError::Expired) } else { Ok(server) }
}
