//! The directory port: computer objects of an Active Directory domain, as the core sees them.
//!
//! # The contract of a [`Directory`]
//!
//! - **Ours is what bears our mark.** An object is found again by its [`Marker`], never by its name alone. One of the same
//!   name without our mark is another's: [`DirectoryErrorKind::NameTaken`], and it is not touched.
//! - **One request, one object.** [`ensure_computer`](Directory::ensure_computer) is repeatable: an object of this server that
//!   is there is answered as it is, its password unchanged, since a second password would break a machine that joins.
//! - **Nothing is answered from memory.** Whether a machine has joined, and what is there, is read each time.
//! - **Deleting nothing is success**, and an object is deleted by its own identity, not by its name. Within the visibility lag of
//!   an object a controller that does not know it yet may say that it is gone: whoever asks does so again after that.
//! - **The password goes nowhere but into the object**, over a connection that is encrypted and verified; it stands in no
//!   error, `Debug` or log line.
//! - **Errors say what may be done next**: a kind, a scope and a certainty, as a provider's do.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{Certainty, Finding, Marker, Scope};
use crate::config::Problem;
use crate::id::{DirectoryName, MachineName, PoolId, ServerKey};

/// Makes, watches and removes the computer objects of machines that join a domain. The module's documentation says what
/// every implementation promises.
#[async_trait]
pub trait Directory: Send + Sync {
    /// The domain and the directory's limits. No I/O; the same answer every time.
    fn describe(&self) -> DirectoryFacts;

    /// Every mistake in the organisational unit a config wants its computer objects in. No I/O. Paths are empty: the caller
    /// knows where the text stands.
    fn check(&self, ou: &str) -> Vec<Problem>;

    /// Whether objects can be made and removed in this organisational unit: connects, binds, and proves the rights with an
    /// object of its own that it removes again. Findings are what does not fit; none: all is well.
    async fn preflight(&self, ou: &str) -> Result<Vec<Finding>, DirectoryError>;

    /// Makes the computer object of a server, or finds that it is there.
    async fn ensure_computer(
        &self,
        computer: &Computer,
        password: &JoinPassword,
    ) -> Result<ComputerRef, DirectoryError>;

    /// The computer object of this server, by its mark. `None`: the directory answered, and there is none.
    async fn find_computer(&self, server: &ServerKey) -> Result<Option<ComputerRef>, DirectoryError>;

    /// Whether the machine has taken its password over, as it does when it has joined.
    async fn joined(&self, computer: &ComputerRef) -> Result<JoinState, DirectoryError>;

    /// Removes a computer object. One that is not there counts as removed. With `recursive`, whatever lies below it goes too;
    /// without, an object with others below it is [`DirectoryErrorKind::HasChildren`].
    async fn delete_computer(&self, computer: &ComputerRef, recursive: bool) -> Result<(), DirectoryError>;

    /// All computer objects that bear the mark of this pool.
    async fn list_computers(&self, pool: &PoolId) -> Result<ComputerListing, DirectoryError>;
}

/// What a directory is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DirectoryFacts {
    /// The DNS name of the domain machines join, as in `corp.example`.
    pub domain: String,
    /// How long an object that was made may be missing from what the directory shows, at most: replication between domain
    /// controllers.
    pub visibility_lag: Duration,
    /// How often to ask whether a machine has joined.
    pub poll_busy: Duration,
    /// How often to list the objects of ours.
    pub poll_idle: Duration,
    /// After what time an unanswered call counts as lost.
    pub call_timeout: Duration,
}

/// The computer object a server needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Computer {
    /// Whose it is.
    pub server: ServerKey,
    /// The mark it bears.
    pub marker: Marker,
    /// The computer's name, valid as a NetBIOS name: at most 15 characters.
    pub name: MachineName,
    /// The distinguished name of the organisational unit it lies in, as checked by [`Directory::check`].
    pub ou: String,
}

/// A computer object as its directory names it. Only the directory reads it; it is part of the row. An object keeps its
/// reference for as long as it is there, whatever becomes of it: equal references are the same object.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct ComputerRef(pub String);

impl fmt::Display for ComputerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a machine has joined its domain.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinState {
    /// The object's password is still the one it was made with.
    Waiting,
    /// The machine has set a password of its own, so the one it was made with is worth nothing any more.
    Joined,
    /// There is no such object.
    Absent,
}

/// The computer objects that bear a pool's mark.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ComputerListing {
    /// What was seen, in any order.
    pub computers: Vec<SeenComputer>,
    /// Whether everything was seen. Nothing is concluded from absence when it was not.
    pub complete: bool,
}

/// A computer object with our mark.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SeenComputer {
    /// What the directory calls it.
    pub reference: ComputerRef,
    /// The mark.
    pub marker: Marker,
    /// The computer's name, for people.
    pub name: String,
}

/// The password with which a machine joins, and which it replaces by one of its own when it does. Derived from the
/// deployment key, so it is stored nowhere: see [`join_password`](crate::token::join_password). Not printed, stored or
/// compared by accident.
pub struct JoinPassword(SecretString);

impl JoinPassword {
    pub(crate) fn new(text: SecretString) -> Self {
        Self(text)
    }
}

impl ExposeSecret<str> for JoinPassword {
    fn expose_secret(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for JoinPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinPassword")
    }
}

/// What kind of failure a call to a directory was, and so what may help.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DirectoryErrorKind {
    /// The name belongs to an object that is not ours. Another name may be free.
    NameTaken,
    /// There are objects below the one to be removed, and it is not to be removed recursively.
    HasChildren,
    /// Something below the object must not be deleted: BitLocker recovery keys, or protection against deletion.
    Protected,
    /// Credentials are wrong, expired or not allowed to do this. An operator must act.
    Denied,
    /// The settings or the request are wrong. An operator must act.
    Invalid,
    /// A limit of the directory is used up.
    Quota,
    /// The directory is busy; slower, please.
    Throttled,
    /// A fault in between that will pass: network, time-out, unavailable.
    Transient,
}

impl DirectoryErrorKind {
    /// The kind in the words of logs, metrics and the API: `name_taken`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NameTaken => "name_taken",
            Self::HasChildren => "has_children",
            Self::Protected => "protected",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::Quota => "quota",
            Self::Throttled => "throttled",
            Self::Transient => "transient",
        }
    }
}

impl fmt::Display for DirectoryErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A call to a directory that failed, in terms the core can act on.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
#[error("{kind} ({code}): {message}")]
pub struct DirectoryError {
    /// What kind of failure it was.
    pub kind: DirectoryErrorKind,
    /// How far it reaches: this server, this organisational unit ([`Scope::Offering`]), or the whole directory.
    pub scope: Scope,
    /// Whether it may have had an effect.
    pub certainty: Certainty,
    /// The directory's own code, as in `insufficientAccessRights`.
    pub code: String,
    /// What happened and how to mend it, without secrets, at most 500 characters.
    pub message: String,
}

impl DirectoryError {
    /// An error of this kind and certainty, with the scope the kind usually has.
    pub fn new(kind: DirectoryErrorKind, certainty: Certainty, code: &str, message: &str) -> Self {
        use DirectoryErrorKind::{Denied, HasChildren, Invalid, NameTaken, Protected, Quota, Throttled, Transient};
        let scope = match kind {
            NameTaken | HasChildren | Protected => Scope::Server,
            Invalid => Scope::Offering,
            Denied | Quota | Throttled | Transient => Scope::Provider,
        };
        Self { kind, scope, certainty, code: code.into(), message: message.chars().take(500).collect() }
    }
}

/// The directories a host has set up.
pub trait Directories: Send + Sync {
    /// The directory of this name; `None` if there is none.
    fn directory(&self, name: &DirectoryName) -> Option<Arc<dyn Directory>>;
}

/// A host without directories.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDirectories;

impl Directories for NoDirectories {
    fn directory(&self, _: &DirectoryName) -> Option<Arc<dyn Directory>> {
        None
    }
}
