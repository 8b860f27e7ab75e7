//! What a host tells a pool, and what the pool answers.

use alloc::boxed::Box;
use alloc::string::String;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::command::Outcome;
use crate::config::{ConfigSpec, PoolSpec};
use crate::id::{CommandId, ConfigName, DirectoryName, ProviderName, ServerId, SessionId, UserName};
use crate::ports::{Capabilities, DirectoryFacts};
use crate::session::SessionRequest;

/// A number by which the host knows the caller whom an [`Answer`] is for. The pool only hands it back.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ticket(pub u64);

/// A fact, and who waits for the answer.
#[derive(Clone, Debug)]
pub struct Input {
    /// Who waits; `None` if nobody does.
    pub ticket: Option<Ticket>,
    /// The fact.
    pub fact: Fact,
}

impl From<Fact> for Input {
    fn from(fact: Fact) -> Self {
        Self { ticket: None, fact }
    }
}

/// Something that has happened or that somebody wishes. A fact only changes the picture; what is done about it is
/// decided from the whole picture.
#[derive(Clone, Debug)]
pub enum Fact {
    /// A provider is set up under this name. Told after every start, and again when its capabilities change.
    ProviderKnown(ProviderName, Capabilities),
    /// A directory is set up under this name. Told after every start, and again when what it says of itself changes.
    DirectoryKnown(DirectoryName, DirectoryFacts),
    /// The pool's own settings are these. Its ids cannot change.
    PoolSet(Box<PoolSpec>),
    /// The config of this name is this, whether it was there before or not.
    ConfigSet(Box<ConfigSpec>),
    /// There is to be no config of this name. Its servers are drained and deleted; it is gone with the last one.
    ConfigRemoved(ConfigName),
    /// A user wants a session.
    SessionRequested(SessionRequest),
    /// A session is over.
    SessionEnded(SessionId),
    /// A session is still in use.
    KeptAlive(SessionId),
    /// A machine spoke, with a check-in token whose signature and age the host has verified.
    CheckedIn {
        /// The server the token was made for.
        server: ServerId,
        /// `running` when it is ready.
        status: String,
        /// Free text.
        message: String,
        /// Percent.
        progress: u8,
    },
    /// An operator wants this server to take no new sessions and to go when it is empty.
    DrainAsked(ServerId),
    /// An operator takes his drain back.
    UndrainAsked(ServerId),
    /// An operator wants this server deleted.
    DeleteAsked {
        /// The server.
        server: ServerId,
        /// Whether its sessions end with it. If not, a server with sessions is not deleted.
        force: bool,
    },
    /// An operator knows that the machines which a config's listings miss are lost indeed, so that they may count as lost.
    LossAcknowledged(ConfigName),
    /// An operator has looked into what froze this config, and wants it to go on.
    FreezeLifted(ConfigName),
    /// The host wants everything recounted in this step. What does not add up freezes its config.
    RecountAsked,
    /// A command has been carried out.
    Finished(CommandId, Outcome),
}

/// The answer to a fact that carried a [`Ticket`]. It is valid once the batch is saved.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// Taken note of.
    Done,
    /// The session: a new one, or the one there is.
    Session(SessionId),
    /// Not done; nothing was changed.
    Refused(Refusal),
}

/// Why a wish was refused.
#[derive(Clone, Debug, Deserialize, Eq, Error, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Refusal {
    /// The pool has no config of this name.
    #[error("there is no autoscale config {name:?} in this pool")]
    UnknownConfig {
        /// The name.
        name: ConfigName,
    },
    /// The pool has no such server, or no longer.
    #[error("there is no server {server} in this pool")]
    UnknownServer {
        /// The id.
        server: ServerId,
    },
    /// The pool has no such session, or no longer.
    #[error("there is no session {session} in this pool")]
    UnknownSession {
        /// The id.
        session: SessionId,
    },
    /// The session has ended.
    #[error("session {session} has ended")]
    SessionEnded {
        /// The id.
        session: SessionId,
    },
    /// Too many requests are waiting.
    #[error("{waiting} session requests are waiting, {max} at most may; try again later")]
    QueueFull {
        /// How many wait.
        waiting: u32,
        /// How many may.
        max: u32,
    },
    /// The pool has no enabled config, so no session will ever become free.
    #[error("the pool has no enabled autoscale config, so it cannot serve a session")]
    NothingToServe,
    /// The idempotency key belongs to another request.
    #[error("this idempotency key was used for another request of user {user:?}; use a new key for a new request")]
    KeyReused {
        /// Whose request that was.
        user: UserName,
    },
    /// The server has sessions.
    #[error("server {server} has {sessions} sessions; drain it, or delete it with force, which ends them")]
    HasSessions {
        /// The server.
        server: ServerId,
        /// How many.
        sessions: u32,
    },
    /// The server is already being deleted.
    #[error("server {server} is already being deleted")]
    AlreadyDeleting {
        /// The server.
        server: ServerId,
    },
    /// The server is not being drained by an operator.
    #[error("server {server} is not being drained by an operator, so there is nothing to take back")]
    NotDraining {
        /// The server.
        server: ServerId,
    },
    /// Nothing is held back for this config.
    #[error("autoscale config {name:?} has lost no implausible number of machines, so there is nothing to acknowledge")]
    NoMassLoss {
        /// The name.
        name: ConfigName,
    },
    /// The config is not frozen.
    #[error("autoscale config {name:?} is not frozen, so there is nothing to lift")]
    NotFrozen {
        /// The name.
        name: ConfigName,
    },
    /// What froze the config, or something else, still does not hold.
    #[error("autoscale config {name:?} stays frozen, because this does not hold: {invariant} ({found})")]
    StillBroken {
        /// The name.
        name: ConfigName,
        /// The invariant.
        invariant: String,
        /// What was found.
        found: String,
    },
    /// A server checked in that is not one of ours any more, or not waiting for it.
    #[error("server {server} is being deleted; its check-in is of no use any more")]
    CheckInTooLate {
        /// The server.
        server: ServerId,
    },
}
