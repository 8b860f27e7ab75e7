//! Sessions: who asked, who waits, who is where.

use alloc::string::String;
use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{ServerId, SessionId, UserName, ZoneName};
use crate::time::Timestamp;

/// How long a session that has ended can still be asked about, and its idempotency key still answers.
pub const ENDED_RETENTION: Duration = Duration::from_secs(600);

/// What a user asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SessionRequest {
    /// Who it is for. One user has at most one session in a pool: asking again answers with the one there is.
    pub user: UserName,
    /// Where the user is. Servers of that zone are tried first, the others after them.
    pub zone: Option<ZoneName>,
    /// The caller's idempotency key, at most 255 bytes. The same key with the same user and zone answers with the same session
    /// until [`ENDED_RETENTION`] after its end; with another user or zone it is refused.
    pub key: Option<String>,
}

/// A session, from its request until a while after its end.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Session {
    /// Its number in the pool.
    pub id: SessionId,
    /// Whose it is.
    pub user: UserName,
    /// Where the user is.
    pub zone: Option<ZoneName>,
    /// The caller's idempotency key.
    pub key: Option<String>,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// Where it stands.
    pub state: SessionState,
}

/// Where a session stands.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum SessionState {
    /// No session was free; it has the next one.
    Waiting {
        /// When it stops waiting.
        deadline: Timestamp,
    },
    /// Its slot on a server is taken.
    Active {
        /// The server.
        server: ServerId,
        /// Since when.
        since: Timestamp,
        /// When it ends unless it is kept alive.
        expires_at: Timestamp,
    },
    /// Over.
    Ended {
        /// When.
        at: Timestamp,
        /// Why.
        why: EndReason,
    },
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The user or the caller ended it.
    Requested,
    /// No keep-alive came in time.
    KeepaliveExpired,
    /// It waited until its deadline, and no session became free.
    QueueExpired,
    /// Its server's machine broke, stopped or vanished.
    ServerLost,
    /// An operator deleted its server by force.
    ServerDeleted,
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requested => "requested",
            Self::KeepaliveExpired => "no keep-alive came in time",
            Self::QueueExpired => "no session became free in time",
            Self::ServerLost => "the server was lost",
            Self::ServerDeleted => "an operator deleted the server",
        })
    }
}

impl Session {
    /// The server it is on, if it is on one.
    pub const fn server(&self) -> Option<ServerId> {
        match self.state {
            SessionState::Active { server, .. } => Some(server),
            SessionState::Waiting { .. } | SessionState::Ended { .. } => None,
        }
    }

    /// Whether it waits or is active.
    pub const fn is_open(&self) -> bool {
        !matches!(self.state, SessionState::Ended { .. })
    }

    /// When time alone will change it: the end of its wait, of its life, or of the record.
    pub(crate) fn due(&self) -> Timestamp {
        match self.state {
            SessionState::Waiting { deadline } => deadline,
            SessionState::Active { expires_at, .. } => expires_at,
            SessionState::Ended { at, .. } => at + ENDED_RETENTION,
        }
    }
}
