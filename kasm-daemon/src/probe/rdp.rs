//! The first two messages of an RDP connection, as bytes. No I/O.
//!
//! The client opens with an X.224 Connection Request and the server answers with a Connection Confirm, each in a TPKT
//! ([MS-RDPBCGR] 1.3.1.1, 2.2.1.1 and 2.2.1.2; TPKT is T.123 section 8, the class 0 messages are X.224 sections 13.3
//! and 13.4). A server that confirms has its listener, its protocol stack and its security set up; nothing before shows
//! it.

use super::Verdict;
use super::verdict::{excerpt, unexpected};

/// What this protocol is called in messages.
pub(super) const NAME: &str = "RDP";

/// TPKT header: version 3, a reserved byte, and the length of the whole packet in two bytes, high byte first.
const TPKT_HEADER: usize = 4;
/// A Connection Confirm without negotiation data: TPKT header, then length indicator, code, two references and the
/// class.
const CONFIRM_BARE: usize = 11;
/// A Connection Confirm with negotiation data. There is no third form: [MS-RDPBCGR] 3.3.5.3.2 forbids X.224 parameters.
const CONFIRM_NEGOTIATED: usize = 19;

const CONNECTION_REQUEST: u8 = 0xE0;
const CONNECTION_CONFIRM: u8 = 0xD0;
const DISCONNECT_REQUEST: u8 = 0x80;

const NEG_REQUEST: u8 = 1;
const NEG_RESPONSE: u8 = 2;
const NEG_FAILURE: u8 = 3;

/// `PROTOCOL_SSL | PROTOCOL_HYBRID | PROTOCOL_HYBRID_EX`: TLS, CredSSP, and CredSSP with early user authorization.
const REQUESTED_PROTOCOLS: u8 = 0x01 | 0x02 | 0x08;

/// The Connection Request a probe sends: no cookie, and an `RDP_NEG_REQ` that asks for TLS or CredSSP
/// ([MS-RDPBCGR] 2.2.1.1 and 2.2.1.1.1).
///
/// It asks for what a current client asks for, because a Windows server with network level authentication refuses less.
// One message element a line.
#[rustfmt::skip]
pub const fn request() -> [u8; 19] {
    [
        0x03, 0x00, 0x00, 0x13, // TPKT: version 3, 19 bytes in all
        0x0E, CONNECTION_REQUEST, 0x00, 0x00, 0x00, 0x00, 0x00, // X.224: 14 bytes follow, references 0, class 0
        NEG_REQUEST, 0x00, 0x08, 0x00, // RDP_NEG_REQ: no flags, 8 bytes, low byte first
        REQUESTED_PROTOCOLS, 0x00, 0x00, 0x00,
    ]
}

/// Judges what a server has sent so far in answer to [`request`]. Total: no input makes it panic.
///
/// Ready is a Connection Confirm
/// - with an `RDP_NEG_RSP`, whatever protocol it selects ([MS-RDPBCGR] 2.2.1.2.1);
/// - without negotiation data: a server that knows only standard RDP security (2.2.1.2);
/// - with an `RDP_NEG_FAILURE` that merely asks for another security (2.2.1.2.2): `SSL_REQUIRED_BY_SERVER`,
///   `SSL_NOT_ALLOWED_BY_SERVER`, `HYBRID_REQUIRED_BY_SERVER`, `SSL_WITH_USER_AUTH_REQUIRED_BY_SERVER`. Such a server
///   works; which security users come with is settled between it and their client, and the client tries again with the
///   other one.
///
/// Not ready are the failures that no client gets around: `SSL_CERT_NOT_ON_SERVER` (the certificate may still come),
/// `INCONSISTENT_FLAGS` and unknown ones; and whatever is not such a confirm. Bytes after the first packet are ignored.
pub fn judge(answer: &[u8]) -> Verdict {
    let [version, rest @ ..] = answer else { return Verdict::More };
    if *version != 3 {
        return unexpected(answer, NAME);
    }
    let [_reserved, high, low, ..] = rest else { return Verdict::More };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    // Checked before the rest is waited for: what the length field says is no reason to read 64 KiB.
    if length != CONFIRM_BARE && length != CONFIRM_NEGOTIATED {
        return other_length(answer, length);
    }
    match answer.get(TPKT_HEADER..length) {
        Some(message) => judge_message(message),
        None => Verdict::More,
    }
}

/// A packet that cannot be a Connection Confirm. Its kind is in its sixth byte, if that is there.
fn other_length(answer: &[u8], length: usize) -> Verdict {
    match answer.get(5) {
        None if length > TPKT_HEADER + 1 && length <= 64 => Verdict::More,
        Some(&code) if code != CONNECTION_CONFIRM => wrong_kind(code),
        _ => Verdict::NotReady(format!(
            "sent a malformed RDP answer: a packet of {length} bytes is no connection confirm"
        )),
    }
}

fn wrong_kind(code: u8) -> Verdict {
    Verdict::NotReady(match code {
        DISCONNECT_REQUEST => "refused the RDP connection: it sent an X.224 disconnect request".into(),
        _ => format!("sent X.224 message 0x{code:02x} instead of an RDP connection confirm"),
    })
}

/// Judges an X.224 message, as long as its TPKT says.
fn judge_message(message: &[u8]) -> Verdict {
    let [indicator, code, _, _, _, _, _class, negotiation @ ..] = message else {
        return malformed(message);
    };
    if *code != CONNECTION_CONFIRM {
        return wrong_kind(*code);
    }
    // The indicator does not count itself.
    if usize::from(*indicator) + 1 != message.len() {
        return malformed(message);
    }
    match *negotiation {
        [] => Verdict::Ready,
        [NEG_RESPONSE, _flags, 8, 0, _, _, _, _] => Verdict::Ready,
        [NEG_FAILURE, _flags, 8, 0, a, b, c, d] => judge_failure(u32::from_le_bytes([a, b, c, d])),
        _ => malformed(message),
    }
}

fn malformed(message: &[u8]) -> Verdict {
    Verdict::NotReady(format!("sent a malformed RDP connection confirm: {}", excerpt(message)))
}

/// The failure codes of [MS-RDPBCGR] 2.2.1.2.2.
fn judge_failure(code: u32) -> Verdict {
    let why = match code {
        // 1: TLS, 2: only standard RDP security, 5: CredSSP, 6: TLS with a user certificate.
        1 | 2 | 5 | 6 => return Verdict::Ready,
        3 => "SSL_CERT_NOT_ON_SERVER, the server has no usable certificate (yet)",
        4 => "INCONSISTENT_FLAGS, the server takes the requested security to contradict the security in effect",
        _ => "a code that [MS-RDPBCGR] does not list",
    };
    Verdict::NotReady(format!("refused the RDP connection with failure {code}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A confirm with this negotiation data, as a Windows server frames it.
    fn confirm(negotiation: &[u8]) -> Vec<u8> {
        let length = u8::try_from(CONFIRM_BARE + negotiation.len()).unwrap();
        let mut bytes = vec![3, 0, 0, length, length - 5, 0xD0, 0, 0, 0x12, 0x34, 0];
        bytes.extend_from_slice(negotiation);
        bytes
    }

    fn response(protocol: u8) -> Vec<u8> {
        confirm(&[2, 0x1F, 8, 0, protocol, 0, 0, 0])
    }

    fn failure(code: u32) -> Vec<u8> {
        let [a, b, c, d] = code.to_le_bytes();
        confirm(&[3, 0, 8, 0, a, b, c, d])
    }

    fn reason(answer: &[u8]) -> String {
        match judge(answer) {
            Verdict::NotReady(message) => message,
            other => panic!("{answer:02x?} gave {other:?}"),
        }
    }

    fn valid_answers() -> Vec<Vec<u8>> {
        let mut all = vec![confirm(&[])];
        all.extend([0, 1, 2, 4, 8, 16].map(response));
        all.extend([1, 2, 3, 4, 5, 6, 7].map(failure));
        all
    }

    #[test]
    fn the_request_is_the_one_of_the_specification() {
        let request = request();
        assert_eq!(request, *b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\x0b\0\0\0");
        assert_eq!(usize::from(request[3]), request.len());
        assert_eq!(usize::from(request[4]), request.len() - 5);
    }

    #[test]
    fn a_confirm_is_ready_whatever_security_it_selects() {
        assert_eq!(judge(&confirm(&[])), Verdict::Ready, "standard RDP security");
        for protocol in [0, 1, 2, 4, 8, 16] {
            assert_eq!(judge(&response(protocol)), Verdict::Ready, "protocol {protocol}");
        }
        let mut with_more = response(1);
        with_more.extend_from_slice(b"more");
        assert_eq!(judge(&with_more), Verdict::Ready);
    }

    #[test]
    fn failures_that_ask_for_another_security_are_ready_and_others_are_not() {
        for code in [1, 2, 5, 6] {
            assert_eq!(judge(&failure(code)), Verdict::Ready, "code {code}");
        }
        assert!(reason(&failure(3)).contains("SSL_CERT_NOT_ON_SERVER"));
        assert!(reason(&failure(4)).contains("INCONSISTENT_FLAGS"));
        for code in [0, 7, 0x0100_0000, u32::MAX] {
            assert!(reason(&failure(code)).contains("does not list"), "code {code}");
        }
    }

    #[test]
    fn what_is_no_confirm_says_so() {
        assert_eq!(
            reason(b"HTTP/1.1 400 Bad Request\r\n"),
            "sent \"HTTP/1.1 400 Bad Request\\r\\n\" instead of an RDP answer"
        );
        assert!(reason(b"\x03\0\0\x0b\x06\x80\0\0\0\0\0").contains("disconnect request"));
        assert!(reason(b"\x03\0\0\x0b\x06\xe0\0\0\0\0\0").contains("0xe0"), "an echo of the request");
        assert!(reason(b"\x03\0\0\x07\x02\xf0\x80").contains("0xf0"), "data without a connection");
        assert!(reason(b"\x03\0\0\x04").contains("4 bytes"));
        assert!(reason(b"\x03\0\0\x00").contains("0 bytes"));
        assert!(reason(b"\x03\0\xff\xff").contains("65535 bytes"), "not waited for");
        assert!(reason(b"\x03\0\0\x14\x0f\xd0\0\0\0\0\0").contains("20 bytes"));
        assert!(reason(b"\x03\0\0\x0b\x07\xd0\0\0\x12\x34\0").contains("malformed"), "wrong length indicator");
        assert!(reason(&confirm(&[9, 0, 8, 0, 1, 0, 0, 0])).contains("malformed"), "unknown negotiation type");
        assert!(reason(&confirm(&[2, 0, 9, 0, 1, 0, 0, 0])).contains("malformed"), "wrong negotiation length");
    }

    #[test]
    fn every_proper_beginning_of_an_answer_waits_for_more() {
        for answer in valid_answers() {
            for end in 0..answer.len() {
                assert_eq!(judge(&answer[..end]), Verdict::More, "{end} bytes of {answer:02x?}");
            }
        }
    }

    #[test]
    fn no_damage_makes_it_panic() {
        for answer in valid_answers() {
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
