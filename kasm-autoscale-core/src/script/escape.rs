//! Values: which can stand where, and how.

use alloc::string::String;
use core::ops::Range;

use super::context::{Context, Language};
use super::error::RenderErrorKind;
use super::powershell::{is_double_quote, is_single_quote};

/// Names of the tags by which EC2 finds the parts of user data, wherever they stand in it, strings and comments included.
/// In lower case; only beginnings, since blanks or attributes may follow.
const TAGS: [&str; 4] = ["powershell", "script", "persist", "runaslocalsystem"];

/// Whether a character goes on with a word of bare code, so that a `-` after it does not begin an option.
pub(super) fn is_in_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '/' | '\\' | '@')
}

/// The characters that have no meaning in any place of any language we know.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// Adds a value to `out` so that it reads as itself in its context. `out` needs room for four times its bytes.
pub(super) fn push(
    out: &mut String,
    language: Language,
    context: Context,
    value: &str,
    starts_word: bool,
) -> Result<(), RenderErrorKind> {
    if let Some(character) = value.chars().find(|c| c.is_control()) {
        return Err(RenderErrorKind::Character { character });
    }
    if context.escapes() {
        value.chars().for_each(|c| push_escaped(out, language, context, c));
        return Ok(());
    }
    if value.is_empty() {
        return Err(RenderErrorKind::Empty);
    }
    if value.starts_with('-') && starts_word && context.has_words() {
        return Err(RenderErrorKind::LeadingDash);
    }
    let last = value.chars().count() - 1;
    let cannot_stand =
        |(index, c): &(usize, char)| !is_plain(*c) && (*index == 0 || *index == last || !context.joins(language, *c));
    if let Some((_, character)) = value.chars().enumerate().find(cannot_stand) {
        return Err(RenderErrorKind::Character { character });
    }
    out.push_str(value);
    Ok(())
}

/// Two quotes of a kind are one inside a PowerShell string (Windows PowerShell Language Specification §2.3.5.2, where all
/// characters of the kind count as the quote); in its double-quoted strings, as in a shell's, `$` and the escape
/// character itself can be escaped too. A shell has no escape inside single quotes: the string is closed and opened again
/// (POSIX.1-2017, Shell Command Language §2.2).
fn push_escaped(out: &mut String, language: Language, context: Context, c: char) {
    match (language, context) {
        (Language::Shell, Context::SingleQuoted) if c == '\'' => return out.push_str("'\\''"),
        (Language::Shell, Context::DoubleQuoted) if matches!(c, '"' | '$' | '`' | '\\') => out.push('\\'),
        (Language::PowerShell, Context::SingleQuoted) if is_single_quote(c) => out.push(c),
        (Language::PowerShell, Context::DoubleQuoted) if is_double_quote(c) || matches!(c, '$' | '`') => out.push('`'),
        _ => {}
    }
    out.push(c);
}

/// Looks at a value in its place: it must not take part in a tag, nor become the number of a stream, nor make the line that
/// ends its here-document.
pub(super) fn check_surroundings(
    out: &str,
    value: Range<usize>,
    context: Context,
    delimiter: Option<&str>,
) -> Result<(), RenderErrorKind> {
    if context.has_words() && names_a_stream(out, &value) {
        return Err(RenderErrorKind::Stream);
    }
    let longest = TAGS.iter().map(|tag| tag.len() + "</".len()).max().unwrap_or(0);
    let bytes = out.as_bytes();
    for at in value.start.saturating_sub(longest)..value.end {
        let end = tag_end(bytes, at);
        if end.is_some_and(|end| end > value.start) {
            return Err(RenderErrorKind::Tag);
        }
    }
    let line_start = out[..value.start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = out[value.end..].find('\n').map_or(out.len(), |at| value.end + at);
    let line = out[line_start..line_end].trim_start_matches('\t');
    let ends_document = match delimiter {
        Some(delimiter) => line == delimiter,
        None => matches!(context, Context::Unclear { .. }) && may_end_a_here_document(out, line),
    };
    if ends_document { Err(RenderErrorKind::Delimiter) } else { Ok(()) }
}

/// Whether a line could be the last one of a here-document, where it is not certain which there are: whether it is what
/// any `<<` of the text is followed by, or the beginning of that, quotes left out.
fn may_end_a_here_document(out: &str, line: &str) -> bool {
    let unquoted = |text: &str| text.chars().filter(|c| !matches!(c, '\'' | '"' | '\\')).collect::<String>();
    let line = unquoted(line);
    out.match_indices("<<").any(|(at, sign)| {
        let rest = out[at + sign.len()..].trim_start_matches(['-', ' ', '\t']);
        unquoted(rest.lines().next().unwrap_or_default()).starts_with(&line)
    })
}

/// Whether a value is read together with a redirection that follows it: `7` before `>file` is no word but the stream that
/// goes there (POSIX.1-2017, Shell Command Language §2.7; Windows PowerShell Language Specification §2.3.6), and bash takes
/// a name in braces for a variable that gets the stream's number.
fn names_a_stream(out: &str, value: &Range<usize>) -> bool {
    let (before, text, after) = (&out[..value.start], &out[value.clone()], &out[value.end..]);
    let is_redirected = |rest: &str| rest.starts_with(['<', '>']);
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && is_redirected(after.trim_start_matches(|c: char| c.is_ascii_digit())))
        || (before.ends_with('{') && after.strip_prefix('}').is_some_and(is_redirected))
}

/// Where the beginning of a tag that starts at `at` ends.
fn tag_end(bytes: &[u8], at: usize) -> Option<usize> {
    let after_bracket = bytes[at..].strip_prefix(b"<")?;
    let name = after_bracket.strip_prefix(b"/").unwrap_or(after_bracket);
    let is_tag = |tag: &&&str| name.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag.as_bytes()));
    let tag = TAGS.iter().find(is_tag)?;
    Some(bytes.len() - name.len() + tag.len())
}
