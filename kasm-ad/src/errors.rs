//! What a failed call to a directory means: every result code with its kind, scope and certainty.

use kasm_autoscale_core::ports::{Certainty, DirectoryError, DirectoryErrorKind as Kind, Scope};

/// What was being done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    Connect,
    Bind,
    Search,
    Add,
    Delete,
}

impl Step {
    fn words(self) -> &'static str {
        match self {
            Self::Connect => "connecting to the directory",
            Self::Bind => "logging in to the directory",
            Self::Search => "searching the directory",
            Self::Add => "making the computer object",
            Self::Delete => "deleting the computer object",
        }
    }

    /// Whether it may leave something behind.
    fn writes(self) -> bool {
        matches!(self, Self::Add | Self::Delete)
    }
}

/// Why a step failed, before it is known what that means for the caller.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// The server answered with this result code (RFC 4511 appendix A.2) and these words.
    Code(u32, String),
    /// No answer in time.
    TimedOut,
    /// There was no connection, or it broke.
    Network(String),
    /// There was no encrypted connection to a server that proved who it is.
    Tls(String),
    /// The server sent what nobody can read.
    Malformed(String),
}

/// One row of the table of result codes.
struct Row(u32, &'static str, Kind, Scope, Certainty, &'static str);

use Certainty::{NotApplied, Unknown};
use Kind::{Denied, HasChildren, Invalid, NameTaken, Quota, Throttled, Transient};
use Scope::{Offering, Provider, Server};

/// Names as in RFC 4511 appendix A.2; what Active Directory means by them from MS-ADTS 3.1.1.5 and the tests against a real
/// domain controller. What is not here is nobody's: it may pass, and nobody knows whether anything was done.
const TABLE: [Row; 38] = [
    Row(1, "operationsError", Transient, Provider, Unknown, "the server could not do it now"),
    Row(2, "protocolError", Invalid, Provider, NotApplied, "the server does not understand the request"),
    Row(3, "timeLimitExceeded", Transient, Provider, Unknown, "it took the server too long"),
    Row(
        4,
        "sizeLimitExceeded",
        Quota,
        Provider,
        NotApplied,
        "the server limits its answers; make the search base narrower",
    ),
    Row(7, "authMethodNotSupported", Invalid, Provider, NotApplied, "allow simple binds over TLS on the server"),
    Row(8, "strongerAuthRequired", Invalid, Provider, NotApplied, "the server wants a stronger login; use ldaps://"),
    Row(
        10,
        "referral",
        Invalid,
        Offering,
        NotApplied,
        "this is for another server: a read-only domain controller or another domain; name a writable domain controller of this domain in `url`",
    ),
    Row(
        11,
        "adminLimitExceeded",
        Quota,
        Provider,
        Unknown,
        "a limit of the directory is used up: the account's object quota, where deleted objects count for months, or what one operation may do",
    ),
    Row(
        12,
        "unavailableCriticalExtension",
        Invalid,
        Provider,
        NotApplied,
        "the server lacks a control that is needed; it is not Active Directory",
    ),
    Row(13, "confidentialityRequired", Invalid, Provider, NotApplied, "the server wants encryption; use ldaps://"),
    Row(
        14,
        "saslBindInProgress",
        Invalid,
        Provider,
        NotApplied,
        "the server expects another kind of login; allow simple binds over TLS",
    ),
    Row(
        16,
        "noSuchAttribute",
        Invalid,
        Offering,
        NotApplied,
        "the directory's schema lacks an attribute; it is not Active Directory",
    ),
    Row(
        17,
        "undefinedAttributeType",
        Invalid,
        Offering,
        NotApplied,
        "the directory's schema lacks an attribute; it is not Active Directory",
    ),
    Row(
        18,
        "inappropriateMatching",
        Invalid,
        Offering,
        NotApplied,
        "a filter compares what cannot be compared; look at `search_filter` and `group_filter`",
    ),
    Row(
        19,
        "constraintViolation",
        Invalid,
        Server,
        NotApplied,
        "a value breaks a rule of the directory: its schema, its password policy or the uniqueness of names",
    ),
    Row(20, "attributeOrValueExists", Invalid, Server, NotApplied, "a value is there already"),
    Row(
        21,
        "invalidAttributeSyntax",
        Invalid,
        Server,
        NotApplied,
        "a value does not have the form its attribute needs",
    ),
    Row(
        32,
        "noSuchObject",
        Invalid,
        Offering,
        NotApplied,
        "there is no such organisational unit or object, or the account may not see it",
    ),
    Row(33, "aliasProblem", Invalid, Offering, NotApplied, "an alias leads nowhere"),
    Row(34, "invalidDNSyntax", Invalid, Offering, NotApplied, "the directory does not take this distinguished name"),
    Row(36, "aliasDereferencingProblem", Invalid, Offering, NotApplied, "an alias leads nowhere"),
    Row(48, "inappropriateAuthentication", Denied, Provider, NotApplied, "this account cannot log in with a password"),
    Row(
        49,
        "invalidCredentials",
        Denied,
        Provider,
        NotApplied,
        "look at `bind_dn` and the bind password, and whether the account is disabled, locked or expired",
    ),
    Row(
        50,
        "insufficientAccessRights",
        Denied,
        Offering,
        NotApplied,
        "the account may not do this here; delegate the rights that the documentation lists",
    ),
    Row(51, "busy", Throttled, Provider, NotApplied, "the server is busy"),
    Row(52, "unavailable", Transient, Provider, NotApplied, "the server is shutting down or not ready"),
    Row(53, "unwillingToPerform", Invalid, Server, NotApplied, "the directory does not take such a value or request"),
    Row(54, "loopDetect", Transient, Provider, NotApplied, "the directory leads in a circle"),
    Row(
        64,
        "namingViolation",
        Invalid,
        Offering,
        NotApplied,
        "computer objects cannot lie there; name an organisational unit",
    ),
    Row(
        65,
        "objectClassViolation",
        Invalid,
        Offering,
        NotApplied,
        "the directory's schema does not take such an object",
    ),
    Row(
        66,
        "notAllowedOnNonLeaf",
        HasChildren,
        Server,
        NotApplied,
        "other objects lie below it, as Hyper-V, Azure or BitLocker put them there; set `ad_recursive_cleanup = true` in the autoscale config to delete them too",
    ),
    Row(67, "notAllowedOnRDN", Invalid, Server, NotApplied, "the name cannot be changed so"),
    Row(
        68,
        "entryAlreadyExists",
        NameTaken,
        Server,
        NotApplied,
        "an object of this name is there, and it is not this server's",
    ),
    Row(69, "objectClassModsProhibited", Invalid, Server, NotApplied, "the object's class cannot be changed"),
    Row(71, "affectsMultipleDSAs", Invalid, Offering, NotApplied, "this reaches into another domain"),
    Row(80, "other", Transient, Provider, Unknown, "the server could not do it and does not say why"),
    Row(
        112,
        "tlsNotSupported",
        Invalid,
        Provider,
        NotApplied,
        "the server offers no StartTLS; use ldaps:// or give the server a certificate",
    ),
    Row(118, "canceled", Transient, Provider, NotApplied, "the operation was given up"),
];

/// The error for the caller: kind, scope and certainty, and a text that says what failed and how to mend it.
pub(crate) fn explained(step: Step, failure: &Failure) -> DirectoryError {
    let words = step.words();
    let unknown_if_written = if step.writes() { Unknown } else { NotApplied };
    let error = |kind, scope, certainty, code: &str, message: String| {
        let mut error = DirectoryError::new(kind, certainty, code, &message);
        error.scope = scope;
        error
    };
    match failure {
        Failure::Code(code, text) => {
            let said = if text.is_empty() { String::new() } else { format!(" (the server says: {text})") };
            match TABLE.iter().find(|row| row.0 == *code) {
                Some(Row(_, name, kind, scope, certainty, remedy)) => {
                    error(*kind, *scope, *certainty, name, format!("{words} failed: {remedy}{said}"))
                }
                None => {
                    let message = format!("{words} failed with result code {code}, which is not one of LDAP's{said}");
                    error(Transient, Provider, Unknown, &format!("resultCode{code}"), message)
                }
            }
        }
        Failure::TimedOut => {
            let message = format!("{words} took too long; raise `timeout` if the directory is slow");
            error(Transient, Provider, unknown_if_written, "timedOut", message)
        }
        Failure::Network(text) => {
            error(Transient, Provider, unknown_if_written, "connection", format!("{words} failed: {text}"))
        }
        Failure::Tls(text) => error(Invalid, Provider, NotApplied, "tls", format!("{words} failed: {text}")),
        Failure::Malformed(text) => {
            error(Transient, Provider, unknown_if_written, "malformedAnswer", format!("{words} failed: {text}"))
        }
    }
}

/// A text from outside as it may stand in a log: on one line, of bounded length, and without a secret that it repeats.
pub(crate) fn clean(text: &str, secret: Option<&str>) -> String {
    let mut text = match secret.filter(|secret| !secret.is_empty()) {
        Some(secret) => text.replace(secret, "[secret]"),
        None => text.to_owned(),
    };
    text.truncate(text.char_indices().nth(240).map_or(text.len(), |(end, _)| end));
    // Not control characters alone: a text direction can be overridden without one (Unicode UAX #9).
    let odd = |c: char| {
        c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || odd(c)).filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

#[cfg(test)]
#[path = "errors_tests.rs"]
mod tests;
