//! What was decided and why, as typed values with the numbers in them. The status page, the logs, the API and the tests
//! print these and nothing else.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backoff::Backoff;
use crate::config::NamePattern;
use crate::id::{ConfigName, DirectoryName, PoolName, ProviderName, ServerId, SessionId, UserName, ZoneName};
use crate::ports::{ComputerRef, DirectoryErrorKind, ErrorKind, MachineRef};
use crate::row::{Freeze, MassLoss};
use crate::server::PhaseKind;
use crate::session::EndReason;
use crate::time::{Span, Timestamp};

/// The sessions of a config at one moment: what there is against what there is to be.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Supply {
    /// Sessions that are free on servers that are ready.
    pub free: u32,
    /// Sessions that servers which are being made will bring.
    pub coming: u32,
    /// How many are to be free: the config's minimum, its share of the requests that wait, and what it covers for others.
    pub target: u32,
}

impl fmt::Display for Supply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} free + {} coming, target {}", self.free, self.coming, self.target)
    }
}

/// What a config last decided to do, or not to do.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// As many sessions are free or coming as are wanted, and no whole server too many.
    Steady {
        /// The numbers.
        supply: Supply,
    },
    /// Servers are made.
    Create {
        /// How many now.
        servers: u32,
        /// The numbers before.
        supply: Supply,
        /// Why not more, if more are wanted.
        held_back: Option<Waiting>,
    },
    /// Servers that were draining are taken back, which is quicker than making new ones.
    Undrain {
        /// How many now.
        servers: u32,
        /// The numbers before.
        supply: Supply,
    },
    /// Sessions are short, and nothing can be done now.
    Wait {
        /// How many servers are wanted.
        servers: u32,
        /// The numbers.
        supply: Supply,
        /// Why not.
        because: Waiting,
    },
    /// There are servers too many; they are kept until the surplus has lasted.
    SurplusHeld {
        /// How many servers too many.
        servers: u32,
        /// The numbers.
        supply: Supply,
        /// Until when.
        until: Timestamp,
    },
    /// There are servers too many; none is given up while the listings miss so many machines that nobody believes them.
    SurplusFrozen {
        /// How many servers too many.
        servers: u32,
        /// The numbers.
        supply: Supply,
        /// What is missing.
        loss: MassLoss,
    },
    /// There are servers too many; none is given up while the config is frozen.
    SurplusInDoubt {
        /// How many servers too many.
        servers: u32,
        /// The numbers.
        supply: Supply,
        /// The invariant that did not hold.
        invariant: String,
    },
    /// Servers are drained.
    Drain {
        /// How many now.
        servers: u32,
        /// The numbers before.
        supply: Supply,
    },
    /// The config is disabled or removed; its servers are being emptied and deleted.
    Emptying {
        /// How many are left.
        servers: u32,
    },
    /// The config is disabled or removed, and has no server left.
    Empty,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steady { supply } => write!(f, "steady: {supply}"),
            Self::Create { servers, supply, held_back: None } => write!(f, "create {servers} servers: {supply}"),
            Self::Create { servers, supply, held_back: Some(why) } => {
                write!(f, "create {servers} servers: {supply}; not more: {why}")
            }
            Self::Undrain { servers, supply } => write!(f, "take {servers} draining servers back: {supply}"),
            Self::Wait { servers, supply, because } => {
                write!(f, "{servers} servers short: {supply}; waiting: {because}")
            }
            Self::SurplusHeld { servers, supply, until } => {
                write!(f, "{servers} servers too many: {supply}; kept until {until}")
            }
            Self::SurplusFrozen { servers, supply, loss } => {
                write!(f, "{servers} servers too many: {supply}; kept: {loss}")
            }
            Self::SurplusInDoubt { servers, supply, invariant } => {
                write!(f, "{servers} servers too many: {supply}; kept: frozen, because this does not hold: {invariant}")
            }
            Self::Drain { servers, supply } => write!(f, "drain {servers} servers: {supply}"),
            Self::Emptying { servers } => write!(f, "disabled: {servers} servers left"),
            Self::Empty => f.write_str("disabled and empty"),
        }
    }
}

/// Why servers that are wanted are not made now.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "waiting", rename_all = "snake_case")]
pub enum Waiting {
    /// The config's `max_servers` is reached.
    CapReached {
        /// Servers not proved gone.
        live: u32,
        /// The cap.
        max: u32,
    },
    /// Enough creates are under way at once.
    InFlightFull {
        /// How many are.
        creating: u32,
        /// How many may be.
        max: u32,
    },
    /// The last tries failed.
    BackingOff {
        /// Until when.
        until: Timestamp,
        /// How they failed.
        kind: BackoffKind,
        /// How often in a row.
        failures: u32,
    },
    /// Too many of the last servers did not become ready.
    BreakerOpen {
        /// How many failed.
        failed: u32,
        /// Of how many.
        of: u32,
        /// Until when. Then one is tried.
        until: Timestamp,
    },
    /// After failures one server is tried alone.
    Trying {
        /// How the last tries failed.
        kind: BackoffKind,
        /// How often in a row.
        failures: u32,
    },
    /// The config is frozen.
    Frozen {
        /// The invariant that did not hold.
        invariant: String,
    },
    /// The host has no provider of this name.
    ProviderMissing {
        /// The name.
        provider: ProviderName,
    },
    /// The host has no directory of this name.
    DirectoryMissing {
        /// The name.
        directory: DirectoryName,
    },
    /// The next server's number does not fit into the config's `server_name_pattern`.
    NamesUsedUp {
        /// The pattern.
        pattern: NamePattern,
    },
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CapReached { live, max } => write!(f, "max_servers reached ({live} of {max})"),
            Self::InFlightFull { creating, max } => write!(f, "{creating} creates are under way, {max} may be"),
            Self::BackingOff { until, kind, failures } => {
                write!(f, "backing off until {until} after {failures} failures: {kind}")
            }
            Self::BreakerOpen { failed, of, until } => {
                write!(f, "breaker open until {until}: {failed} of the last {of} servers did not become ready")
            }
            Self::Trying { kind, failures } => write!(f, "trying one server after {failures} failures: {kind}"),
            Self::Frozen { invariant } => {
                write!(f, "frozen, because this does not hold: {invariant}; an operator must look")
            }
            Self::ProviderMissing { provider } => write!(f, "there is no provider {provider:?}"),
            Self::DirectoryMissing { directory } => write!(f, "there is no directory {directory:?}"),
            Self::NamesUsedUp { pattern } => {
                write!(
                    f,
                    "server_name_pattern {pattern} has no name left; give it less text around {{number}}, or {{random}}"
                )
            }
        }
    }
}

/// How a config and another one stand in for each other when one cannot make what it promises.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "fallback", rename_all = "snake_case")]
pub enum Fallback {
    /// It keeps sessions free that another config promises and cannot make. Its own target is higher by so many.
    CoveringFor {
        /// The other config.
        config: ConfigName,
        /// How many.
        sessions: u32,
    },
    /// Another config keeps sessions free that this one promises and cannot make.
    CoveredBy {
        /// The other config.
        config: ConfigName,
        /// How many.
        sessions: u32,
    },
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CoveringFor { config, sessions } => write!(f, "{sessions} of them for {config}"),
            Self::CoveredBy { config, sessions } => write!(f, "{config} covers {sessions}"),
        }
    }
}

/// What kind of failure a config backs off from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackoffKind {
    /// The provider refused or failed.
    Provider(ErrorKind),
    /// The directory refused or failed to make a computer object.
    Directory(DirectoryErrorKind),
    /// Servers were made and did not become ready, or broke.
    Boot,
}

impl fmt::Display for BackoffKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Provider(kind) => write!(f, "{kind}"),
            Self::Directory(kind) => write!(f, "directory: {kind}"),
            Self::Boot => f.write_str("servers do not become ready"),
        }
    }
}

/// Something that happened in a pool, for the audit trail.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// A config was set or changed.
    ConfigSet {
        /// Its name.
        config: ConfigName,
        /// The edition it now has.
        generation: u32,
    },
    /// A config is to go.
    ConfigRemoved {
        /// Its name.
        config: ConfigName,
    },
    /// A config and all its servers are gone.
    ConfigGone {
        /// Its name.
        config: ConfigName,
    },
    /// A config decided something else than before.
    Decided {
        /// Its name.
        config: ConfigName,
        /// What, with the numbers.
        #[serde(flatten)]
        decision: Decision,
        /// Who stands in for whom.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        fallback: Vec<Fallback>,
    },
    /// A listing misses so many machines of a config at once that nobody believes it: nothing counts as lost and nothing is
    /// deleted, until they are seen again or an operator says that they are lost.
    MassLoss {
        /// The config.
        config: ConfigName,
        /// What is missing.
        loss: MassLoss,
    },
    /// An operator says that the missing machines are lost.
    LossAcknowledged {
        /// The config.
        config: ConfigName,
    },
    /// Listings show no implausible loss any more.
    MassLossOver {
        /// The config.
        config: ConfigName,
    },
    /// An invariant does not hold: nothing is made for this config and nothing of it is deleted, until an operator lifts it.
    Frozen {
        /// The config.
        config: ConfigName,
        /// What does not hold.
        freeze: Freeze,
    },
    /// An operator has lifted it.
    FreezeLifted {
        /// The config.
        config: ConfigName,
    },
    /// The machine of a server that failed to become ready is kept for diagnosis.
    Kept {
        /// The server.
        server: ServerId,
        /// Its config.
        config: ConfigName,
        /// Until when.
        until: Timestamp,
    },
    /// A server entered a phase of its life.
    Server {
        /// The server.
        server: ServerId,
        /// Its config.
        config: ConfigName,
        /// The phase.
        phase: PhaseKind,
        /// Why, where there is a choice of reasons.
        why: Option<String>,
    },
    /// A call to a provider failed, or its answer was lost.
    CallFailed {
        /// The provider.
        provider: ProviderName,
        /// The verb: `create`, `delete`, `list`, ...
        verb: String,
        /// For which server, if for one.
        server: Option<ServerId>,
        /// The error.
        error: String,
    },
    /// A call to a directory failed, or its answer was lost.
    DirectoryCallFailed {
        /// The directory.
        directory: DirectoryName,
        /// The verb: `enroll`, `unenroll`, `list_computers`, ...
        verb: String,
        /// For which server, if for one.
        server: Option<ServerId>,
        /// The error.
        error: String,
    },
    /// A session was placed on a server.
    SessionPlaced {
        /// The session.
        session: SessionId,
        /// Whose it is.
        user: UserName,
        /// The server.
        server: ServerId,
        /// How long it waited.
        waited: Duration,
    },
    /// A session waits for a free one.
    SessionQueued {
        /// The session.
        session: SessionId,
        /// Whose it is.
        user: UserName,
    },
    /// A session ended.
    SessionOver {
        /// The session.
        session: SessionId,
        /// Why.
        why: EndReason,
    },
    /// A machine bears our mark and no row knows it. It is deleted when a second complete listing shows it.
    OrphanSeen {
        /// The provider.
        provider: ProviderName,
        /// The machine.
        machine: MachineRef,
    },
    /// Such a machine is being deleted.
    OrphanDeleted {
        /// The provider.
        provider: ProviderName,
        /// The machine.
        machine: MachineRef,
    },
    /// A computer object bears our mark and no row knows it. It is removed when a second complete listing shows it.
    OrphanComputerSeen {
        /// The directory.
        directory: DirectoryName,
        /// The object.
        computer: ComputerRef,
        /// The computer's name.
        name: String,
    },
    /// Such a computer object is being removed.
    OrphanComputerRemoved {
        /// The directory.
        directory: DirectoryName,
        /// The object.
        computer: ComputerRef,
    },
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConfigSet { config, generation } => write!(f, "config {config} set, edition {generation}"),
            Self::ConfigRemoved { config } => write!(f, "config {config} removed, its servers go"),
            Self::ConfigGone { config } => write!(f, "config {config} gone"),
            Self::Decided { config, decision, fallback } => {
                write!(f, "{config}: {decision}")?;
                fallback.iter().try_for_each(|fallback| write!(f, "; {fallback}"))
            }
            Self::MassLoss { config, loss } => write!(f, "ALARM: {config}: {loss}"),
            Self::LossAcknowledged { config } => {
                write!(f, "{config}: an operator says that the missing machines are lost")
            }
            Self::MassLossOver { config } => write!(f, "{config}: no implausible loss any more"),
            Self::Frozen { config, freeze } => write!(f, "ALARM: {config}: {freeze}"),
            Self::FreezeLifted { config } => write!(f, "{config}: an operator has lifted the freeze"),
            Self::Kept { server, config, until } => write!(f, "{server} ({config}) kept for diagnosis until {until}"),
            Self::Server { server, config, phase, why: None } => write!(f, "{server} ({config}) {phase}"),
            Self::Server { server, config, phase, why: Some(why) } => write!(f, "{server} ({config}) {phase}: {why}"),
            Self::CallFailed { provider, verb, server: None, error } => write!(f, "{provider}: {verb} failed: {error}"),
            Self::CallFailed { provider, verb, server: Some(server), error } => {
                write!(f, "{provider}: {verb} for {server} failed: {error}")
            }
            Self::DirectoryCallFailed { directory, verb, server: None, error } => {
                write!(f, "{directory}: {verb} failed: {error}")
            }
            Self::DirectoryCallFailed { directory, verb, server: Some(server), error } => {
                write!(f, "{directory}: {verb} for {server} failed: {error}")
            }
            Self::SessionPlaced { session, user, server, waited } if waited.is_zero() => {
                write!(f, "{session} of {user} placed on {server}")
            }
            Self::SessionPlaced { session, user, server, waited } => {
                write!(f, "{session} of {user} placed on {server} after {}", Span(*waited))
            }
            Self::SessionQueued { session, user } => write!(f, "{session} of {user} waits"),
            Self::SessionOver { session, why } => write!(f, "{session} ended: {why}"),
            Self::OrphanSeen { provider, machine } => {
                write!(f, "{provider}: machine {machine} bears our mark and no row knows it")
            }
            Self::OrphanDeleted { provider, machine } => write!(f, "{provider}: deleting unknown machine {machine}"),
            Self::OrphanComputerSeen { directory, computer, name } => {
                write!(f, "{directory}: computer object {name} ({computer}) bears our mark and no row knows it")
            }
            Self::OrphanComputerRemoved { directory, computer } => {
                write!(f, "{directory}: removing unknown computer object {computer}")
            }
        }
    }
}

/// A pool at one moment. Made on request; it costs time in proportion to the number of servers.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Report {
    /// The pool.
    pub pool: PoolName,
    /// Requests that wait.
    pub waiting: u32,
    /// Sessions that are active.
    pub sessions: u32,
    /// Its configs, by name.
    pub configs: Vec<ConfigReport>,
    /// Machines with our mark that no row knows.
    pub orphans: Vec<MachineRef>,
    /// Computer objects with our mark that no row knows.
    pub orphan_computers: Vec<ComputerRef>,
}

/// A config at one moment.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ConfigReport {
    /// Its name.
    pub config: ConfigName,
    /// Whether it is enabled.
    pub enabled: bool,
    /// Whether it is on its way out.
    pub removed: bool,
    /// Its zone.
    pub zone: ZoneName,
    /// Its provider.
    pub provider: ProviderName,
    /// Its edition.
    pub generation: u32,
    /// Its servers by phase.
    pub servers: PhaseCounts,
    /// Active sessions on them.
    pub sessions: u32,
    /// What there is against what there is to be.
    pub supply: Supply,
    /// What it last decided, and since when it has.
    pub decision: Decision,
    /// When it came to that decision.
    pub decided_at: Timestamp,
    /// Who stands in for whom.
    #[serde(default)]
    pub fallback: Vec<Fallback>,
    /// What it backs off from.
    pub backoffs: Vec<BackoffReport>,
    /// Machines that its listings miss, too many at once to be believed: nothing is deleted meanwhile.
    #[serde(default)]
    pub loss: Option<MassLoss>,
    /// An invariant did not hold: nothing is made or deleted meanwhile.
    #[serde(default)]
    pub freeze: Option<Freeze>,
    /// Failed servers whose machines are kept for diagnosis.
    #[serde(default)]
    pub kept: u32,
    /// Servers born with an earlier edition of the config. They stay as they are.
    pub out_of_date: Vec<ServerId>,
    /// Servers whose computer objects could not be removed so far. They count until they are.
    pub cleanups: Vec<CleanupReport>,
}

/// A computer object that could not be removed so far.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CleanupReport {
    /// The server. Its machine is gone.
    pub server: ServerId,
    /// The object; `None`: it is looked for.
    pub computer: Option<ComputerRef>,
    /// How many tries failed.
    pub tries: u32,
    /// When the next one is made.
    pub next_at: Timestamp,
    /// What kind of failure the last one was.
    pub kind: DirectoryErrorKind,
    /// The directory's words.
    pub error: String,
}

impl CleanupReport {
    /// What an operator can do about it, where he must.
    pub const fn remedy(&self) -> Option<&'static str> {
        match self.kind {
            DirectoryErrorKind::HasChildren => {
                Some("set ad_recursive_cleanup to true in the config, or remove what lies below the object")
            }
            DirectoryErrorKind::Protected => {
                Some("take the protection off in the directory, or remove the object there")
            }
            DirectoryErrorKind::Denied => Some("give the directory's account the right to delete it"),
            DirectoryErrorKind::Invalid => Some("mend the directory's settings"),
            _ => None,
        }
    }
}

impl fmt::Display for CleanupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, tries, next_at, error, .. } = self;
        write!(f, "the computer object of {server} could not be removed, {tries} tries, next at {next_at}: {error}")?;
        self.remedy().map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
    }
}

/// How many servers are in each phase.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct PhaseCounts {
    /// Waiting for their computer objects.
    pub enrolling: u32,
    /// Being asked for.
    pub creating: u32,
    /// Booting.
    pub starting: u32,
    /// Ready for users.
    pub ready: u32,
    /// Taking no new sessions.
    pub draining: u32,
    /// Being deleted.
    pub deleting: u32,
    /// Their computer objects are being removed.
    pub unenrolling: u32,
}

impl PhaseCounts {
    /// All of them: every server that is not proved gone.
    pub const fn live(&self) -> u32 {
        self.making() + self.starting + self.ready + self.draining + self.deleting + self.unenrolling
    }

    /// How many are on their way to a machine: creates that are under way or about to be.
    pub const fn making(&self) -> u32 {
        self.enrolling + self.creating
    }
}

/// A failure that a config backs off from.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BackoffReport {
    /// What kind.
    pub kind: BackoffKind,
    /// The state of the back-off.
    #[serde(flatten)]
    pub backoff: Backoff,
}
