//! What the fuzz targets reach of this crate's inside: no part of its API.

use kasm_autoscale_core::ports::Marker;

use crate::{ber, mark};

/// The longest message that is taken, in bytes.
pub const MESSAGE_MAX: usize = ber::MESSAGE_MAX;

/// How long the message is that these bytes begin with; `None`: more bytes are needed.
///
/// # Errors
/// Why it is not passed on to the parser.
pub fn message(bytes: &[u8]) -> Result<Option<usize>, String> {
    ber::message(bytes).map_err(|error| error.to_string())
}

/// The children of an element: the identifier and the content of each.
pub fn children(element: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    ber::children(element)
}

/// The value of the paged results control.
pub fn page_request(size: u16, cookie: &[u8]) -> Vec<u8> {
    ber::page_request(size, cookie)
}

/// The cookie in the answer's paged results control.
pub fn page_cookie(value: &[u8]) -> Option<Vec<u8>> {
    ber::page_cookie(value)
}

/// The mark that a text is; `None` if it is none.
pub fn mark(text: &str) -> Option<Marker> {
    mark::read(text)
}

/// The mark as it is written.
pub fn mark_text(marker: &Marker) -> String {
    mark::written(marker)
}
