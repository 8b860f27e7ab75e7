use proptest::prelude::*;

use super::{BerError, DEPTH_MAX, MESSAGE_MAX, length_of, message, page_cookie, page_request};

fn element(identifier: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![identifier];
    bytes.extend(length_of(content.len()));
    bytes.extend_from_slice(content);
    bytes
}

fn nested(levels: usize) -> Vec<u8> {
    (0..levels).fold(Vec::new(), |inner, _| element(0x30, &inner))
}

#[test]
fn a_message_is_passed_on_when_all_of_it_is_there() {
    let whole = element(0x30, &[element(0x02, &[1]), element(0x61, &element(0x0a, &[0]))].concat());
    for end in 0..whole.len() {
        assert_eq!(message(&whole[..end]), Ok(None), "{end}");
    }
    assert_eq!(message(&whole), Ok(Some(whole.len())));
    assert_eq!(message(&[whole.clone(), vec![0x30]].concat()), Ok(Some(whole.len())));
}

#[test]
fn what_would_hurt_the_parser_is_refused() {
    assert_eq!(message(b"HTTP/1.1 400"), Err(BerError::NotLdap));
    assert_eq!(message(&nested(DEPTH_MAX)), Ok(Some(nested(DEPTH_MAX).len())));
    assert_eq!(message(&nested(DEPTH_MAX + 1)), Err(BerError::TooDeep));
    assert_eq!(message(&nested(2_000)), Err(BerError::TooDeep));
    // The length alone is enough: nothing of such a message is waited for.
    assert_eq!(message(&[0x30, 0x84, 0x7f, 0xff, 0xff, 0xff]), Err(BerError::TooLong));
    assert_eq!(message(&[0x30, 0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Err(BerError::TooLong));
    const { assert!(MESSAGE_MAX < 0x7fff_ffff) };
    // An indefinite length, a tag of several bytes, a part longer than the whole.
    assert_eq!(message(&[0x30, 0x80, 0, 0]), Err(BerError::Broken));
    assert_eq!(message(&element(0x30, &[0x1f, 0x81, 0])), Err(BerError::Broken));
    assert_eq!(message(&element(0x30, &[0x04, 9, 0])), Err(BerError::Broken));
    assert_eq!(message(&element(0x30, &[0x04])), Err(BerError::Broken));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), seq in any::<bool>()) {
        let mut bytes = bytes;
        if seq {
            bytes.insert(0, 0x30);
        }
        if let Ok(Some(end)) = message(&bytes) {
            prop_assert!(end <= bytes.len());
        }
        let _ = page_cookie(&bytes);
    }

    #[test]
    fn a_cookie_comes_back(cookie in prop::collection::vec(any::<u8>(), 0..400), size in any::<u16>()) {
        let value = page_request(size, &cookie);
        prop_assert_eq!(message(&value), Ok(Some(value.len())));
        prop_assert_eq!(page_cookie(&value), Some(cookie));
    }
}
