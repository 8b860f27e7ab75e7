//! What clouds' errors mean: the shape of every cloud's table of its errors, and how an answer is looked up in it.

use kasm_autoscale_core::ports::{Certainty, ErrorKind, Scope};

use Certainty::{NotApplied, Unknown};
use ErrorKind::{Conflict, Denied, Invalid, Protected, Throttled, Transient};
use Scope::{Offering, Provider, Server};

/// What may be done after an error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Class {
    pub(crate) kind: ErrorKind,
    pub(crate) scope: Scope,
    pub(crate) certainty: Certainty,
}

impl Class {
    pub(crate) const fn new(kind: ErrorKind, scope: Scope, certainty: Certainty) -> Self {
        Self { kind, scope, certainty }
    }
}

/// What the errors of one cloud mean. The code decides first, then the text, then the HTTP status.
pub(crate) struct Table {
    /// Codes that mean more than one thing, told apart by a part of the message. The first part that is found counts.
    pub(crate) by_text: &'static [(&'static str, &'static str, Class)],
    /// Every code known by name. A mistake in the settings of one config reaches as far as its offering; one in the credentials,
    /// limits or place of the account reaches all configs of the provider.
    pub(crate) by_code: &'static [(Class, &'static [&'static str])],
    /// Clouds name their codes by families, and add new ones now and then. All of these are refusals.
    pub(crate) by_family: fn(&str) -> Option<(ErrorKind, Scope)>,
}

impl Table {
    /// What an answer with this code, status and message means.
    pub(crate) fn classify(&self, code: Option<&str>, status: Option<u16>, message: &str) -> Class {
        code.and_then(|code| self.named(code, message)).unwrap_or_else(|| by_status(status))
    }

    /// The same for what has no status, if the code means anything here.
    pub(crate) fn named(&self, code: &str, message: &str) -> Option<Class> {
        let family = || (self.by_family)(code).map(|(kind, scope)| Class::new(kind, scope, NotApplied));
        self.of_text(code, message).or_else(|| self.of_code(code)).or_else(family)
    }

    pub(crate) fn of_text(&self, code: &str, message: &str) -> Option<Class> {
        let found = self.by_text.iter().find(|(name, text, _)| *name == code && message.contains(text));
        found.map(|(_, _, class)| *class)
    }

    pub(crate) fn of_code(&self, code: &str) -> Option<Class> {
        self.by_code.iter().find(|(_, codes)| codes.contains(&code)).map(|(class, _)| *class)
    }

    /// Every code that has a meaning of its own.
    pub(crate) fn codes(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.by_code.iter().flat_map(|(_, codes)| codes.iter().copied())
    }
}

/// The last resort. Only an answer in the 400s shows that the service refused the request.
fn by_status(status: Option<u16>) -> Class {
    match status {
        Some(401 | 403) => Class::new(Denied, Provider, NotApplied),
        Some(429) => Class::new(Throttled, Provider, NotApplied),
        Some(408) => Class::new(Transient, Provider, Unknown),
        Some(409) => Class::new(Conflict, Server, NotApplied),
        Some(412) => Class::new(Conflict, Server, Unknown),
        Some(423) => Class::new(Protected, Server, NotApplied),
        Some(400..=499) => Class::new(Invalid, Offering, NotApplied),
        _ => Class::new(Transient, Provider, Unknown),
    }
}
