//! What a server sends, looked at before anybody parses it: where a message ends, and whether it is small and flat enough.
//!
//! The parser behind this one copies as it goes and calls itself for every level of nesting, so a message of a few kilobytes
//! could end the process. No LDAP answer needs many levels (RFC 4511 §4.1.1: an entry has six), and none of ours is large.

use thiserror::Error;

/// The longest message that is taken, in bytes.
pub(crate) const MESSAGE_MAX: usize = 4 << 20;
/// How deep elements may lie in each other.
const DEPTH_MAX: usize = 12;

/// Why a message is not passed on.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(crate) enum BerError {
    #[error("what the server sends is not LDAP")]
    NotLdap,
    #[error("the server sends a message of more than {MESSAGE_MAX} bytes")]
    TooLong,
    #[error("the server sends a message with more than {DEPTH_MAX} levels")]
    TooDeep,
    #[error("the server sends a message whose parts do not fit into it")]
    Broken,
}

/// Identifier and length of an element: whether it holds others, where its content begins, and how long that is. `None`: more
/// bytes are needed.
fn header(bytes: &[u8]) -> Result<Option<(bool, usize, usize)>, BerError> {
    let (Some(identifier), Some(length)) = (bytes.first(), bytes.get(1)) else { return Ok(None) };
    if identifier & 0x1f == 0x1f {
        // Tags of several bytes do not occur in LDAP.
        return Err(BerError::Broken);
    }
    let constructed = identifier & 0x20 != 0;
    if *length < 0x80 {
        return Ok(Some((constructed, 2, usize::from(*length))));
    }
    let digits = usize::from(length & 0x7f);
    // Lengths are definite (RFC 4511 §5.1); leading zeros are allowed.
    if !(1..=8).contains(&digits) {
        return Err(BerError::Broken);
    }
    let Some(digits) = bytes.get(2..2 + digits) else { return Ok(None) };
    let value = digits.iter().fold(0_u64, |value, digit| (value << 8) | u64::from(*digit));
    let value = usize::try_from(value).map_err(|_| BerError::TooLong)?;
    Ok(Some((constructed, 2 + digits.len(), value)))
}

/// How long the message is that these bytes begin with, once all of it is there and has been found harmless.
pub(crate) fn message(bytes: &[u8]) -> Result<Option<usize>, BerError> {
    if bytes.first().is_some_and(|first| *first != 0x30) {
        return Err(BerError::NotLdap);
    }
    let Some((_, start, length)) = header(bytes)? else { return Ok(None) };
    if length > MESSAGE_MAX {
        return Err(BerError::TooLong);
    }
    let end = start + length;
    let Some(whole) = bytes.get(..end) else { return Ok(None) };
    check(whole)?;
    Ok(Some(end))
}

/// Walks through all elements, without recursion.
fn check(message: &[u8]) -> Result<(), BerError> {
    // Where the elements end that we are in, the innermost last.
    let mut ends = vec![message.len()];
    let mut at = 0;
    while let Some(end) = ends.last().copied() {
        if at == end {
            ends.pop();
            continue;
        }
        let (constructed, start, length) = header(&message[at..end])?.ok_or(BerError::Broken)?;
        let content = at + start;
        let after = content.checked_add(length).filter(|after| *after <= end).ok_or(BerError::Broken)?;
        if constructed {
            if ends.len() > DEPTH_MAX {
                return Err(BerError::TooDeep);
            }
            ends.push(after);
            at = content;
        } else {
            at = after;
        }
    }
    Ok(())
}

/// The children of an element: the identifier and the content of each.
pub(crate) fn children(element: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let (_, start, length) = header(element).ok()??;
    let mut rest = element.get(start..start.checked_add(length)?)?;
    let mut found = Vec::new();
    while let Some(identifier) = rest.first() {
        let (_, start, length) = header(rest).ok()??;
        let end = start.checked_add(length)?;
        found.push((*identifier, rest.get(start..end)?));
        rest = &rest[end..];
    }
    Some(found)
}

/// The value of the paged results control (RFC 2696): how many entries a page has, and where the next page goes on.
pub(crate) fn page_request(size: u16, cookie: &[u8]) -> Vec<u8> {
    let [high, low] = size.to_be_bytes();
    // A leading zero keeps the number positive.
    let mut content = vec![0x02, 3, 0, high, low, 0x04];
    content.extend(length_of(cookie.len()));
    content.extend_from_slice(cookie);
    let mut value = vec![0x30];
    value.extend(length_of(content.len()));
    value.extend(content);
    value
}

fn length_of(length: usize) -> Vec<u8> {
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => vec![short],
        _ => {
            let digits: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|digit| *digit == 0).collect();
            let mut bytes = vec![0x80 | u8::try_from(digits.len()).unwrap_or(8)];
            bytes.extend(digits);
            bytes
        }
    }
}

/// The cookie in the answer's paged results control; empty when there are no more pages.
pub(crate) fn page_cookie(value: &[u8]) -> Option<Vec<u8>> {
    match children(value)?.as_slice() {
        [(0x02, _), (0x04, cookie)] => Some(cookie.to_vec()),
        _ => None,
    }
}

#[cfg(test)]
#[path = "ber_tests.rs"]
mod tests;
