//! What can be said of an answer that is still coming in.

/// What the bytes a server has sent so far show.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The server speaks the protocol.
    Ready,
    /// Nothing yet; the bytes may be the beginning of a good answer.
    More,
    /// It does not, or it speaks it only to refuse. The text continues "the server ...".
    NotReady(String),
}

/// The beginning of what was sent, for a message: quoted, printable ASCII, short.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    const SHOWN: usize = 32;
    let shown = bytes.get(..SHOWN).unwrap_or(bytes).escape_ascii();
    let more = if bytes.len() > SHOWN { "..." } else { "" };
    format!("\"{shown}\"{more}")
}

/// The verdict on bytes that no answer of this protocol begins with.
pub(super) fn unexpected(bytes: &[u8], protocol: &str) -> Verdict {
    Verdict::NotReady(format!("sent {} instead of {} answer", excerpt(bytes), with_article(protocol)))
}

/// The protocol's name with its indefinite article: `an RDP`, `a VNC`.
pub(super) fn with_article(protocol: &str) -> String {
    // R and S are spoken with a vowel.
    let article = if protocol.starts_with(['R', 'S']) { "an" } else { "a" };
    format!("{article} {protocol}")
}
