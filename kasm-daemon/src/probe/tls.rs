//! The first two messages of a TLS connection, as bytes: how a KasmVNC server is told from a port that merely accepts.
//!
//! KasmVNC is reached over HTTPS: its websocket server looks at the first byte of a connection and starts TLS. So a
//! probe sends a ClientHello and is content with the beginning of a ServerHello; no keys are agreed on. It never goes
//! on to an HTTP request, because KasmVNC takes one without credentials for a failed login and locks the sender's
//! address out after a few. A KasmVNC that was given no certificate, and so serves plain HTTP only, is never found
//! ready.

use super::Verdict;
use super::verdict::unexpected;

/// What this protocol is called in messages.
pub(super) const NAME: &str = "TLS";

/// The record types of RFC 8446 section 5.1.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
/// RFC 8446 section 4: the handshake message by which a server selects what to go on with.
const SERVER_HELLO: u8 = 2;
/// RFC 8446 section 6: something is wrong on the server's own side.
const INTERNAL_ERROR: u8 = 80;
/// RFC 8446 section 5.1 (TLS 1.3) and RFC 5246 section 6.2.3 (TLS 1.2): no record is longer than this.
const RECORD_MAX: u16 = 16_384 + 2_048;

/// A ClientHello for TLS 1.3 and 1.2 (RFC 8446 section 4.1.2), in one record.
///
/// It brings no key share, which a TLS 1.3 server answers with a HelloRetryRequest: that is a ServerHello too
/// (section 4.2.8). The random bytes are fixed, since nothing will ever be encrypted with them.
// One message element a line.
#[rustfmt::skip]
pub const fn request() -> [u8; 123] {
    [
        22, 3, 1, 0, 118, // handshake record of 118 bytes; version 3.1 as all clients write it
        1, 0, 0, 114, 3, 3, // ClientHello of 114 bytes, "TLS 1.2": the real offer is in supported_versions
        // 32 bytes that would be random
        b'k', b'a', b's', b'm', b'-', b'a', b'u', b't', b'o', b's', b'c', b'a', b'l', b'e', b' ', b'r',
        b'e', b'a', b'd', b'i', b'n', b'e', b's', b's', b' ', b'p', b'r', b'o', b'b', b'e', b' ', b'1',
        0, // no session id
        0, 22, // cipher suites: three of TLS 1.3, six ECDHE ones, two of plain RSA for old servers
        0x13, 1, 0x13, 2, 0x13, 3,
        0xC0, 0x2B, 0xC0, 0x2C, 0xC0, 0x2F, 0xC0, 0x30, 0xCC, 0xA8, 0xCC, 0xA9, 0, 0x9C, 0, 0x2F,
        1, 0, // compression: none
        0, 51, // extensions
        0, 10, 0, 8, 0, 6, 0, 29, 0, 23, 0, 24, // supported_groups: x25519, secp256r1, secp384r1
        0, 11, 0, 2, 1, 0, // ec_point_formats: uncompressed
        0, 13, 0, 14, 0, 12, // signature_algorithms:
        4, 3, 5, 3, 8, 4, 8, 5, 4, 1, 8, 7, // ECDSA P-256 and P-384, RSA-PSS SHA-256 and SHA-384, RSA SHA-256, Ed25519
        0, 43, 0, 5, 4, 3, 4, 3, 3, // supported_versions: 1.3, 1.2
        0, 51, 0, 2, 0, 0, // key_share: none yet
    ]
}

/// Judges what a server has sent so far in answer to [`request`]. Total: no input makes it panic.
///
/// Ready is the beginning of a ServerHello, or an alert: a server that wants TLS otherwise than a probe offers it
/// speaks TLS. An alert "internal error" is the exception, for then the server has told that it does not work.
pub fn judge(answer: &[u8]) -> Verdict {
    if answer.starts_with(b"HTTP/") {
        return Verdict::NotReady("answered in plain HTTP, where KasmVNC is expected to speak TLS".into());
    }
    if b"HTTP/".starts_with(answer) {
        return Verdict::More;
    }
    // Both kinds of record must have version 3.x, which is looked at as soon as it is there.
    let plausible = matches!(answer, [ALERT | HANDSHAKE] | [ALERT | HANDSHAKE, 3, ..]);
    if !plausible {
        return unexpected(answer, NAME);
    }
    let [kind, _, _, high, low, body @ ..] = answer else { return Verdict::More };
    let length = u16::from_be_bytes([*high, *low]);
    match (*kind, body) {
        (ALERT, _) if length != 2 => unexpected(answer, NAME),
        (ALERT, [_level, INTERNAL_ERROR, ..]) => Verdict::NotReady("sent the TLS alert \"internal error\"".into()),
        (ALERT, [1 | 2, _description, ..]) => Verdict::Ready,
        (ALERT, [] | [1 | 2]) => Verdict::More,
        (HANDSHAKE, _) if !(4..=RECORD_MAX).contains(&length) => unexpected(answer, NAME),
        (HANDSHAKE, [SERVER_HELLO, ..]) => Verdict::Ready,
        (HANDSHAKE, []) => Verdict::More,
        _ => unexpected(answer, NAME),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(answer: &[u8]) -> bool {
        matches!(judge(answer), Verdict::NotReady(_))
    }

    #[test]
    fn the_lengths_in_the_request_agree() {
        let request = request();
        assert_eq!(usize::from(request[4]), request.len() - 5, "record");
        assert_eq!(usize::from(request[8]), request.len() - 9, "handshake message");
        let suites = usize::from(request[45]);
        let extensions = 46 + suites + 2;
        assert_eq!(usize::from(request[extensions + 1]), request.len() - extensions - 2, "extensions");
        let mut at = extensions + 2;
        while at < request.len() {
            at += 4 + usize::from(request[at + 3]);
        }
        assert_eq!(at, request.len(), "each extension");
    }

    #[test]
    fn a_server_hello_or_an_alert_is_ready() {
        for good in [&[22, 3, 3, 0, 90, 2][..], &[21, 3, 3, 0, 2, 2, 40], &[21, 3, 1, 0, 2, 1, 112]] {
            assert_eq!(judge(good), Verdict::Ready);
            for end in 0..good.len() {
                assert_eq!(judge(&good[..end]), Verdict::More, "{end} of {good:?}");
            }
        }
    }

    #[test]
    fn anything_else_is_not() {
        assert_eq!(judge(&[21, 3, 3, 0, 2, 2, 80]), Verdict::NotReady("sent the TLS alert \"internal error\"".into()));
        assert!(matches!(judge(b"HTTP/1.1 400 Bad Request\r\n"), Verdict::NotReady(why) if why.contains("plain HTTP")));
        for bad in [
            &b"RFB 003.008\n"[..],
            b"HTML",
            &[22, 2],
            &[22, 3, 3, 0xFF, 0xFF],
            &[22, 3, 3, 0, 90, 1],
            &[21, 3, 3, 0, 3],
            &[21, 3, 3, 0, 2, 9],
            &[23, 3, 3, 0, 9, 2],
        ] {
            assert!(refused(bad), "{bad:?}");
        }
        assert!(refused(&request()), "an echo");
    }

    #[test]
    fn no_damage_makes_it_panic() {
        for answer in [vec![22, 3, 3, 0, 90, 2, 0, 0, 86], vec![21, 3, 3, 0, 2, 2, 40]] {
            for at in 0..answer.len() {
                for byte in 0..=u8::MAX {
                    let mut damaged = answer.clone();
                    damaged[at] = byte;
                    for end in 0..=damaged.len() {
                        judge(&damaged[..end]);
                    }
                }
            }
        }
    }
}
