//! A server and its life.
//!
//! ```text
//!  Enrolling ──► Creating ──► Starting ──► Ready ◄──► Draining
//!    │    │         │   │          │          │           │
//!    │    │         │   └──────────┴──────────┴───────────┴──► Deleting
//!    │    │         │                                             │
//!    │    └─────────┴─────────────────────────────────────────────┴──► Unenrolling ──► (gone)
//!    └────────────────────────────────────────────────────────────────────────────────────►
//! ```
//!
//! A server whose machine joins no domain has neither the first nor the last of these phases: its life begins in `Creating`,
//! and it is gone where another one enters `Unenrolling`.
//!
//! Each phase owns its data; a failure leads forward to `Deleting` and `Unenrolling`, never back. The one way back is from
//! `Draining` to `Ready`, while nothing has been deleted. A server leaves `Creating` for good without `Deleting` only when it
//! is certain that no machine was made, and `Enrolling` without `Unenrolling` only when it is certain that no computer object
//! was. A machine that is kept for diagnosis is `Deleting` as well, with the end of its time as its next step.
//! `tests/lifecycle.rs` holds this picture as a table against the code.

use alloc::string::String;
use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{CommandId, ConfigId, ServerId};
use crate::ports::{Address, ComputerRef, DirectoryErrorKind, ErrorKind, MachineRef, OpRef};
use crate::time::Timestamp;

/// A server: the durable record of a machine that is wanted, there, or not yet proved gone.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Server {
    /// Its number in the pool.
    pub id: ServerId,
    /// Its place in the placement index: the lowest that was unused when it was made.
    pub slot: u32,
    /// The config it was made by.
    pub config: ConfigId,
    /// Which edition of that config it was born with, and keeps.
    pub generation: u32,
    /// When it was decided on.
    pub created_at: Timestamp,
    /// What the provider calls its machine, once known.
    pub machine: Option<MachineRef>,
    /// What the directory calls its computer object, once known; always `None` where its config joins no domain.
    #[serde(default)]
    pub computer: Option<ComputerRef>,
    /// Where its machine is reached, once known.
    pub address: Option<Address>,
    /// How many sessions were ever placed on it.
    pub taken: u32,
    /// What the machine last said of itself.
    pub check_in: Option<CheckIn>,
    /// Where it stands in its life.
    pub phase: Phase,
    /// How many sessions are on it now; recounted from the sessions when rows are restored.
    #[serde(skip)]
    pub sessions: u32,
    /// The command that is being carried out for it, in this process.
    #[serde(skip)]
    pub(crate) busy: Option<Busy>,
    /// How many complete listings in a row did not show its machine.
    #[serde(skip)]
    pub(crate) absent: u8,
    /// When this process learnt of its machine, or read its row: the machine may be missing from what the provider shows for a
    /// while after that.
    #[serde(skip)]
    pub(crate) named_at: Timestamp,
    /// The same of its computer object.
    #[serde(skip)]
    pub(crate) enrolled_at: Timestamp,
}

/// A command under way, and when to give up waiting for its outcome.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Busy {
    pub(crate) command: CommandId,
    pub(crate) until: Timestamp,
}

/// What a machine said of itself through its check-in token.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CheckIn {
    /// When.
    pub at: Timestamp,
    /// `running` when it is ready; any other word is shown and not acted on.
    pub status: String,
    /// Free text, at most 500 characters.
    pub message: String,
    /// Percent, 0 to 100.
    pub progress: u8,
}

/// Where a server stands in its life.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Phase {
    /// Its computer object is being asked for. There is no machine yet.
    Enrolling {
        /// The last moment at which a request for the object may have taken effect; `None`: none has, for certain, but for one
        /// that is under way.
        asked: Option<Timestamp>,
        /// Requests so far of which nobody knows what became. The same one is made again: it is answered with the object
        /// that is there.
        tries: u32,
        /// When to ask next.
        ask_at: Timestamp,
        /// When the object must be there at the latest.
        deadline: Timestamp,
    },
    /// Its machine is being asked for.
    Creating {
        /// What is known of the request.
        call: CreateCall,
        /// When it must be ready at the latest.
        deadline: Timestamp,
    },
    /// Its machine is there or coming; it is not ready for users yet.
    Starting {
        /// When it must be ready at the latest.
        deadline: Timestamp,
        /// Whether the provider says the machine runs.
        running: bool,
        /// Whether the connection port has answered.
        answered: bool,
        /// When to probe the connection port next.
        probe_at: Timestamp,
        /// Whether the directory says that the machine has joined.
        #[serde(default)]
        joined: bool,
        /// When to ask the directory next.
        #[serde(default)]
        join_at: Timestamp,
    },
    /// Ready for users.
    Ready {
        /// Since when.
        since: Timestamp,
    },
    /// Takes no new sessions; deleted when the last one has ended.
    Draining {
        /// Since when.
        since: Timestamp,
        /// Why.
        why: DrainReason,
    },
    /// Its machine is being deleted, or looked for in order to be.
    Deleting {
        /// Since when.
        since: Timestamp,
        /// Why.
        why: DeleteReason,
        /// What is known of the deletion.
        call: DeleteCall,
        /// Tries that failed so far.
        tries: u32,
        /// When to act next.
        next_at: Timestamp,
    },
    /// There is no machine, and its computer object is being removed, or looked for in order to be. That is tried for ever.
    Unenrolling {
        /// Since when.
        since: Timestamp,
        /// Why the server goes.
        why: DeleteReason,
        /// What is known of the removal.
        call: UnenrollCall,
        /// Tries that failed so far.
        tries: u32,
        /// When to act next.
        next_at: Timestamp,
        /// How the last try failed.
        failure: Option<UnenrollFailure>,
    },
}

/// What is known of a request for a machine.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum CreateCall {
    /// The row is written; the call leaves after that.
    Intended,
    /// The call may have left, and nobody knows what became of it. It is looked up, never sent again.
    Unsure {
        /// The last moment at which it may have taken effect.
        since: Timestamp,
        /// When to look next.
        find_at: Timestamp,
        /// Look-ups that failed so far.
        tries: u32,
    },
    /// Accepted as an operation that has not named its machine yet.
    Accepted {
        /// The operation.
        op: OpRef,
        /// When to poll it next.
        poll_at: Timestamp,
    },
}

/// What is known of a deletion.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum DeleteCall {
    /// It is not known whether there is a machine. Absence counts from `absent_from` on.
    Locate {
        /// From when on a look-up that finds nothing proves that there is nothing.
        absent_from: Timestamp,
    },
    /// The machine is known; the request to delete it is to be sent.
    Send,
    /// The machine is kept, so that somebody can find out why its server failed. Then it is deleted like any other.
    Kept {
        /// Until when.
        until: Timestamp,
    },
    /// The request was accepted; the machine is watched until it is gone.
    Confirm {
        /// When it was accepted.
        accepted_at: Timestamp,
    },
}

/// What is known of the removal of a computer object.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum UnenrollCall {
    /// It is not known whether there is an object. Absence counts from `absent_from` on.
    Locate {
        /// From when on a look-up that finds nothing proves that there is nothing.
        absent_from: Timestamp,
    },
    /// The object is known; the request to remove it is to be sent.
    Send,
}

/// How a try to remove a computer object failed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct UnenrollFailure {
    /// What kind of failure it was.
    pub kind: DirectoryErrorKind,
    /// The directory's words.
    pub error: String,
}

/// Why a server takes no new sessions.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainReason {
    /// More sessions are free than asked for, and have been for the downscale backoff.
    Surplus,
    /// Its config was disabled.
    Disabled,
    /// Its config was removed.
    Removed,
    /// An operator asked for it.
    Operator,
    /// It is not reusable, and its last session has ended.
    Used,
}

impl DrainReason {
    /// Whether the pool may take the drain back when sessions are short again. An operator's drain is his alone, and a used
    /// server is not clean.
    pub const fn is_undoable(self) -> bool {
        matches!(self, Self::Surplus | Self::Disabled | Self::Removed)
    }
}

impl fmt::Display for DrainReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Surplus => "surplus",
            Self::Disabled => "config disabled",
            Self::Removed => "config removed",
            Self::Operator => "asked by an operator",
            Self::Used => "used and not reusable",
        })
    }
}

/// Why a server is deleted.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeleteReason {
    /// It was drained.
    Drained(DrainReason),
    /// Its config was disabled or removed before it was ready.
    NotWanted,
    /// Its config was frozen before its machine was asked for.
    Frozen,
    /// An operator asked for it.
    Operator,
    /// It was not ready in time.
    BootDeadline {
        /// What it was waiting for.
        missing: Missing,
    },
    /// Making the machine failed, perhaps half-way.
    CreateFailed {
        /// What kind of failure it was.
        kind: ErrorKind,
        /// The system's own code.
        code: String,
    },
    /// A look-up has shown that no machine was made.
    NotMade,
    /// Making its computer object failed.
    EnrollFailed {
        /// What kind of failure it was.
        kind: DirectoryErrorKind,
        /// The directory's own code.
        code: String,
    },
    /// Its computer object vanished before its machine had joined.
    ComputerLost,
    /// Its machine broke while it was made or while it ran.
    MachineFailed,
    /// Its machine was switched off by somebody else.
    MachineStopped,
    /// Its machine is no longer there.
    MachineLost,
}

impl DeleteReason {
    /// Whether somebody asked for it: an operator did, or whoever disabled or removed the config.
    pub const fn is_asked(&self) -> bool {
        let of_drain =
            matches!(self, Self::Drained(DrainReason::Disabled | DrainReason::Removed | DrainReason::Operator));
        of_drain || matches!(self, Self::NotWanted | Self::Operator)
    }
}

impl fmt::Display for DeleteReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drained(why) => write!(f, "drained: {why}"),
            Self::NotWanted => f.write_str("config disabled or removed"),
            Self::Frozen => f.write_str("config frozen"),
            Self::Operator => f.write_str("asked by an operator"),
            Self::BootDeadline { missing } => write!(f, "not ready in time: {missing}"),
            Self::CreateFailed { kind, code } => write!(f, "create failed: {kind} ({code})"),
            Self::NotMade => f.write_str("looked up: no machine was made"),
            Self::EnrollFailed { kind, code } => write!(f, "enroll failed: {kind} ({code})"),
            Self::ComputerLost => f.write_str("computer object is no longer there"),
            Self::MachineFailed => f.write_str("machine failed"),
            Self::MachineStopped => f.write_str("machine was stopped by somebody else"),
            Self::MachineLost => f.write_str("machine is no longer there"),
        }
    }
}

/// What a server that is not ready is waiting for: the first of these that has not happened.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// The directory has not made the computer object.
    Computer,
    /// The provider has not made the machine.
    Machine,
    /// The machine does not run yet.
    Running,
    /// The machine has no address yet.
    Address,
    /// The connection port does not answer in its protocol.
    Answer,
    /// The machine has not joined its domain.
    Joined,
    /// The machine has not checked in.
    CheckIn,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Computer => "no computer object was made",
            Self::Machine => "no machine was made",
            Self::Running => "the machine does not run",
            Self::Address => "the machine has no address",
            Self::Answer => "the connection port does not answer",
            Self::Joined => "the machine has not joined its domain",
            Self::CheckIn => "the machine has not checked in",
        })
    }
}

/// The kind of a [`Phase`], without its data.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseKind {
    /// [`Phase::Enrolling`]
    Enrolling,
    /// [`Phase::Creating`]
    Creating,
    /// [`Phase::Starting`]
    Starting,
    /// [`Phase::Ready`]
    Ready,
    /// [`Phase::Draining`]
    Draining,
    /// [`Phase::Deleting`]
    Deleting,
    /// [`Phase::Unenrolling`]
    Unenrolling,
    /// There is no row any more.
    Gone,
}

impl PhaseKind {
    /// All of them, in the order of a server's life.
    pub const ALL: [Self; 8] = [
        Self::Enrolling,
        Self::Creating,
        Self::Starting,
        Self::Ready,
        Self::Draining,
        Self::Deleting,
        Self::Unenrolling,
        Self::Gone,
    ];

    /// Whether a server in this phase may go to `next` in one move. The table of the module's picture.
    pub const fn may_become(self, next: Self) -> bool {
        use PhaseKind::{Creating, Deleting, Draining, Enrolling, Gone, Ready, Starting, Unenrolling};
        matches!(
            (self, next),
            (Enrolling, Creating | Unenrolling | Gone)
                | (Creating, Starting | Deleting | Unenrolling | Gone)
                | (Starting, Ready | Deleting)
                | (Ready, Draining | Deleting)
                | (Draining, Ready | Deleting)
                | (Deleting, Unenrolling | Gone)
                | (Unenrolling, Gone)
        )
    }

    /// Whether the server is on its way out for good.
    pub const fn is_going(self) -> bool {
        matches!(self, Self::Deleting | Self::Unenrolling)
    }

    /// The word of logs, metrics and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enrolling => "enrolling",
            Self::Creating => "creating",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Deleting => "deleting",
            Self::Unenrolling => "unenrolling",
            Self::Gone => "gone",
        }
    }
}

impl fmt::Display for PhaseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How long a drain that may be undone waits before the machine is deleted, so that users who come at that very moment
/// find the server still there.
pub const DRAIN_SETTLE: Duration = Duration::from_secs(5);

impl Phase {
    /// Its kind.
    pub const fn kind(&self) -> PhaseKind {
        match self {
            Self::Enrolling { .. } => PhaseKind::Enrolling,
            Self::Creating { .. } => PhaseKind::Creating,
            Self::Starting { .. } => PhaseKind::Starting,
            Self::Ready { .. } => PhaseKind::Ready,
            Self::Draining { .. } => PhaseKind::Draining,
            Self::Deleting { .. } => PhaseKind::Deleting,
            Self::Unenrolling { .. } => PhaseKind::Unenrolling,
        }
    }
}

impl Server {
    /// When this server needs a look at the latest, whatever else happens. `None`: only a fact can change anything.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        let act_at = match &self.phase {
            Phase::Enrolling { ask_at, deadline, .. } => return Some(self.unless_busy(*ask_at).min(*deadline)),
            Phase::Creating { call, deadline } => {
                let next = match call {
                    CreateCall::Intended => Timestamp::default(),
                    CreateCall::Unsure { find_at, .. } => *find_at,
                    CreateCall::Accepted { poll_at, .. } => *poll_at,
                };
                return Some(self.unless_busy(next).min(*deadline));
            }
            Phase::Starting { deadline, running, answered, probe_at, joined, join_at } => {
                let probing = *running && !*answered && self.address.is_some();
                let joining = *running && !*joined && self.computer.is_some();
                let next = [probing.then_some(*probe_at), joining.then_some(*join_at)].into_iter().flatten().min();
                return Some(next.map_or(*deadline, |next| self.unless_busy(next)).min(*deadline));
            }
            Phase::Ready { .. } => return None,
            Phase::Draining { since, why } if self.sessions == 0 => return Some(drained_at(*since, *why)),
            Phase::Draining { .. } => return None,
            Phase::Deleting { next_at, .. } | Phase::Unenrolling { next_at, .. } => *next_at,
        };
        Some(self.unless_busy(act_at))
    }

    fn unless_busy(&self, at: Timestamp) -> Timestamp {
        self.busy.map_or(at, |busy| busy.until)
    }

    /// What it is still waiting for before it can be ready; `None` if nothing is missing.
    pub fn missing(&self, require_checkin: bool) -> Option<Missing> {
        match &self.phase {
            Phase::Enrolling { .. } => Some(Missing::Computer),
            Phase::Creating { .. } => Some(Missing::Machine),
            Phase::Starting { running: false, .. } => Some(Missing::Running),
            Phase::Starting { .. } if self.address.is_none() => Some(Missing::Address),
            Phase::Starting { answered: false, .. } if !planted!("probe-not-awaited") => Some(Missing::Answer),
            Phase::Starting { joined: false, .. } if self.computer.is_some() && !planted!("join-not-awaited") => {
                Some(Missing::Joined)
            }
            Phase::Starting { .. } if require_checkin && !self.has_checked_in() && !planted!("checkin-not-awaited") => {
                Some(Missing::CheckIn)
            }
            _ => None,
        }
    }

    /// Whether its machine has said that it is running.
    pub fn has_checked_in(&self) -> bool {
        self.check_in.as_ref().is_some_and(|check_in| check_in.status == CheckIn::RUNNING)
    }

    /// Sets back what is not in its row, so that two of them can be compared.
    #[cfg(feature = "testing")]
    pub(crate) fn forget_unstored(&mut self) {
        (self.sessions, self.busy, self.absent) = (0, None, 0);
        (self.named_at, self.enrolled_at) = (Timestamp::default(), Timestamp::default());
    }

    /// How many of its slots are spoken for: sessions now, or, where each slot is taken once, sessions ever.
    pub(crate) fn used(&self, reusable: bool) -> u32 {
        if reusable { self.sessions } else { self.taken }
    }
}

impl CheckIn {
    /// The status that means ready.
    pub const RUNNING: &'static str = "running";
}

/// When a server without sessions that drains since `since` may be deleted: never in the step that wrote the drain.
pub(crate) fn drained_at(since: Timestamp, why: DrainReason) -> Timestamp {
    since + if why.is_undoable() { DRAIN_SETTLE } else { Duration::from_millis(1) }
}
