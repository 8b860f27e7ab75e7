//! What a host brings: providers of machines, a prober, secrets. Traits only; the core does no I/O.
//!
//! # The contract of a [`VmProvider`]
//!
//! Numbered, so that a failure can be named: feature `testing` has a kit that holds any provider against every clause.
//!
//! *What it is*
//! - **C-01 Description.** [`describe`](VmProvider::describe) does no I/O and gives the same answer every time. Times are
//!   greater than zero where they must be, and at least one create may be under way.
//! - **C-02 Check.** [`check`](VmProvider::check) does no I/O. It finds every mistake at once, each with its path; a setting
//!   that it does not know is a mistake, not a thing to pass over.
//! - **C-03 Preflight.** [`preflight`](VmProvider::preflight) asks the system, and only reads: nothing is made, not even for a
//!   moment. Each finding says how to mend it.
//!
//! *Making*
//! - **C-04 One machine.** [`create`](VmProvider::create) with the same [`ServerSpec`] again, by this process or the one
//!   after a crash, answers for the same machine. Where the system has an idempotency token, [`ServerSpec::token`] is it;
//!   where it has none, the name or the mark has to do.
//! - **C-05 Another request.** The same token with other content makes no second machine. A system that can tell refuses it:
//!   [`ErrorKind::Conflict`].
//! - **C-06 Mark.** The [`Marker`] lands on the machine in the call that makes it, whole. A mark put on by a second call is
//!   lost when we crash in between, and the machine is nobody's.
//! - **C-07 Acceptance.** `create` and `delete` answer when the system has accepted the request, within
//!   [`Capabilities::call_timeout`]. A create's answer has the machine, or an operation that leads to it when it is
//!   [polled](VmProvider::poll), also after a restart. No method sleeps or repeats a call: pacing is the core's.
//! - **C-08 Life.** Whether a machine is ready is for the core to find out. The provider shows what the system says: its
//!   state, and an address once it runs.
//! - **C-09 Reply lost before the effect.** When no answer came, the error is [`Certainty::Unknown`]; the same create later
//!   makes the machine.
//! - **C-10 Reply lost after the effect.** The same error, for the provider cannot know. The machine is found by its mark, the
//!   same create answers for it, and a delete whose reply was lost may be sent again.
//!
//! *Seeing*
//! - **C-11 Late visibility.** A machine that exists is shown by [`find`](VmProvider::find) and [`list`](VmProvider::list) after
//!   [`Capabilities::visibility_lag`] at the latest. Before, both may leave it out, but neither fails for it.
//! - **C-12 Absence.** "There is none" is `Ok`: `None`, or an empty list that is complete. Whether that proves anything is
//!   for the core to conclude.
//! - **C-13 Failed reads.** A read that fails is an error, [`Certainty::NotApplied`], and never an empty answer.
//! - **C-14 Partial lists.** A list of which a page, zone or node is missing is an error, or has [`Listing::complete`] unset.
//! - **C-15 Whole lists.** A complete list has every machine with the pool's mark, in whatever state, over all pages, each with
//!   its whole mark; and none of another pool. Order and duplicates are free.
//! - **C-16 Foreign machines.** A machine with another installation's mark, or with none, is never shown with ours, nor taken
//!   for a server's own because of its name; and nothing that is done to our machines touches it.
//!
//! *Deleting*
//! - **C-17 Delete twice.** [`delete`](VmProvider::delete) goes by the machine's own reference and nothing else. One that is
//!   gone, or never was, counts as deleted.
//! - **C-18 Slow deletes.** `delete` does not wait. While the machine is there it is shown as [`MachineState::Deleting`], and
//!   no answer says [`Progress::Done`].
//! - **C-19 Leftovers.** Disks, network cards and addresses that came with a machine go with it.
//!
//! *Failing*
//! - **C-20 Throttling** is [`ErrorKind::Throttled`] and [`Certainty::NotApplied`], with the system's own waiting time if it
//!   says one. It is not repeated away: a budget of calls is shared, and only the core sees all of it.
//! - **C-21 Quota.** A limit of our own account is [`ErrorKind::Quota`], and nothing was made.
//! - **C-22 No capacity.** A place without room is [`ErrorKind::NoCapacity`] with [`Scope::Offering`], and nothing was made, so
//!   that another place may be tried at once.
//! - **C-23 Death while booting.** A machine that ends after its create was accepted is shown as what it is, with the
//!   [reason](Machine::fault) if it failed; or it is gone from complete lists.
//! - **C-24 Lost marks.** A machine whose mark was taken off is no longer shown with it, breaks no list, and can still be
//!   deleted by its reference.
//! - **C-25 Unknown states** are [`MachineState::Unknown`] in the system's own word. They are kept and reported; a guess could
//!   delete a desktop in use.
//! - **C-26 Secrets.** No credential and nothing of [`ServerSpec::user_data`] comes out: not in an error, even if the system
//!   repeats the request in its own, not by `Debug`, not in a log line.
//!
//! Errors say what may be done next: a kind, a scope and a certainty. Only [`Certainty::NotApplied`] may be answered by a
//! create elsewhere; anything unclear is [`Certainty::Unknown`].

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

mod directory;

use crate::config::{ConnectionType, JsonObject, Problem};
use crate::id::{ConfigId, DeploymentId, MachineName, PoolId, ProviderName, SecretName, ServerKey};
pub use directory::{
    Computer, ComputerListing, ComputerRef, Directories, Directory, DirectoryError, DirectoryErrorKind, DirectoryFacts,
    JoinPassword, JoinState, NoDirectories, SeenComputer,
};

/// Makes, lists and deletes machines. The module's documentation says what every implementation promises.
#[async_trait]
pub trait VmProvider: Send + Sync {
    /// Names, limits, visibility lag. No I/O; the same answer every time.
    fn describe(&self) -> Capabilities;

    /// Every mistake in a config's machine settings, and in its startup script as this provider would carry it. No I/O.
    ///
    /// `user_data_bytes` is the size of the rendered script, in bytes, with values of the greatest length they can have;
    /// 0 when there is none. Paths start at the machine settings; `startup_script` alone stands for the script.
    fn check(&self, machine: &JsonObject, user_data_bytes: usize) -> Vec<Problem>;

    /// Asks the system whether machines with these settings could be made now: image, network, size, quota, rights. It only
    /// reads, and makes nothing. Empty: nothing was found wrong, which promises nothing about a minute later.
    ///
    /// # Errors
    /// When the system could not be asked. What the asking itself shows (a right that is missing, credentials that are not
    /// accepted) is a finding.
    async fn preflight(&self, machine: &JsonObject) -> Result<Vec<Finding>, ProviderError>;

    /// Makes a machine, or finds that this very request has made it before.
    async fn create(&self, spec: &ServerSpec) -> Result<Progress, ProviderError>;

    /// How far an operation is. It never waits for it.
    async fn poll(&self, op: &OpRef) -> Result<Progress, ProviderError>;

    /// The machine of this server, in whatever state, by its mark. `None`: the system answered, and knows of none;
    /// within the visibility lag that does not mean there is none.
    async fn find(&self, server: &ServerKey) -> Result<Option<Machine>, ProviderError>;

    /// All machines that carry the mark of this pool.
    async fn list(&self, pool: &PoolId) -> Result<Listing, ProviderError>;

    /// Deletes a machine with its dependents. One that is not there counts as deleted.
    async fn delete(&self, machine: &MachineRef) -> Result<Progress, ProviderError>;
}

/// What a provider is and can do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Capabilities {
    /// The kind of system, as in `aws`.
    pub kind: &'static str,
    /// How long a machine that exists may be missing from [`VmProvider::find`] and [`VmProvider::list`], at most.
    pub visibility_lag: Duration,
    /// How often to list while something is expected to change.
    pub poll_busy: Duration,
    /// How often to list while nothing is.
    pub poll_idle: Duration,
    /// Creates that may be under way at once, per config.
    pub creates_in_flight_max: u32,
    /// After what time an unanswered call counts as lost.
    pub call_timeout: Duration,
    /// The machine settings that say which size is asked for and where, as in `["instance_type", "subnet_id"]`: machines that
    /// agree in them run out together ([`offering`](Self::offering)). Empty: all settings count.
    pub offering: &'static [&'static str],
}

impl Capabilities {
    /// What these machine settings ask the provider for: its size, in its place. Two configs of one provider with the same
    /// offering share what is known of its shortages. A setting left out differs from any that is there.
    pub fn offering(&self, machine: &JsonObject) -> String {
        let all = || machine.iter().map(|(name, value)| (name.as_str(), value)).collect();
        let named = || self.offering.iter().filter_map(|name| Some((*name, machine.get(*name)?))).collect();
        let asked: Vec<(&str, &serde_json::Value)> = if self.offering.is_empty() { all() } else { named() };
        let texts: Vec<String> = asked.iter().map(|(name, value)| format!("{name}={value}")).collect();
        texts.join(" ")
    }
}

/// The mark that every machine of ours carries, put there by the very call that makes it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Marker {
    /// The installation.
    pub deployment: DeploymentId,
    /// The pool.
    pub pool: PoolId,
    /// The autoscale config.
    pub config: ConfigId,
    /// [`ServerKey::uuid`] of the server.
    pub server: String,
}

/// Everything a provider needs to make one machine. Two calls for the same server are equal, byte for byte.
#[derive(Debug)]
pub struct ServerSpec {
    /// Which server the machine is for.
    pub server: ServerKey,
    /// The mark to put on it.
    pub marker: Marker,
    /// The computer name to give it.
    pub name: MachineName,
    /// The idempotency token: 36 ASCII characters, the same for every try.
    pub token: String,
    /// The provider's own settings, as checked by [`VmProvider::check`].
    pub machine: JsonObject,
    /// The rendered startup script.
    pub user_data: Option<SecretString>,
}

/// How far a create or delete is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Progress {
    /// Accepted and under way.
    Pending {
        /// The machine, as soon as the system has named it.
        machine: Option<MachineRef>,
        /// The operation to poll; `None` where the machine itself shows the progress.
        op: Option<OpRef>,
    },
    /// Done: the machine is made (its reference is there) or deleted.
    Done {
        /// The machine.
        machine: Option<MachineRef>,
    },
}

macro_rules! text_ref {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_ref!(
    /// A machine as its provider names it, as in `i-0123456789abcdef0`. Only the provider reads it.
    MachineRef
);
text_ref!(
    /// A long-running operation as its provider names it. Part of the row, so it survives a restart.
    OpRef
);

/// A machine as its provider last saw it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Machine {
    /// What the provider calls it.
    pub reference: MachineRef,
    /// Our mark on it; `None` when it is gone or damaged.
    pub marker: Option<Marker>,
    /// What it is doing.
    pub state: MachineState,
    /// Where it is reached, once it has an address.
    pub address: Option<Address>,
    /// Why it failed, where the system says so.
    pub fault: Option<ProviderError>,
}

/// What a machine is doing.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum MachineState {
    /// Accepted or being made; no operating system runs yet.
    Provisioning,
    /// Powered on. Whether it is ready is for the core to find out.
    Running,
    /// Powered off, or on its way there.
    Stopped,
    /// Being deleted.
    Deleting,
    /// Deleted; the system still shows it for a while.
    Deleted,
    /// Broken for good.
    Failed,
    /// A state this provider's author did not know. Kept and reported.
    Unknown(String),
}

/// Where a machine is reached.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Address {
    /// IP address or host name.
    pub host: String,
    /// The port at which the connection port is reached, where the provider maps ports; `None`: the config's own port.
    pub port: Option<u16>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

/// The machines that carry a pool's mark.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Listing {
    /// What was seen, in any order, duplicates allowed.
    pub machines: Vec<Machine>,
    /// Whether everything was seen: all pages, all zones. Nothing is concluded from absence when it was not.
    pub complete: bool,
}

/// What kind of failure it was, and so what may help.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The system has no room for this size in this place now. Another place may have.
    NoCapacity,
    /// Our own limit there is used up.
    Quota,
    /// Too many calls; slower, please.
    Throttled,
    /// Credentials are wrong, expired or not allowed to do this. An operator must act.
    Denied,
    /// The settings or the request are wrong. An operator must act.
    Invalid,
    /// The object is busy, locked or not in a state for this; the same call may work later.
    Conflict,
    /// The system refuses to delete the machine until an operator takes its protection off.
    Protected,
    /// A fault in between that will pass: 5xx, network, time-out.
    Transient,
}

impl ErrorKind {
    /// The kind in the words of logs, metrics and the API: `no_capacity`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoCapacity => "no_capacity",
            Self::Quota => "quota",
            Self::Throttled => "throttled",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::Conflict => "conflict",
            Self::Protected => "protected",
            Self::Transient => "transient",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far a failure reaches.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// This one server.
    Server,
    /// This size in this zone.
    Offering,
    /// Everything done through this provider.
    Provider,
}

/// Whether the failed call may have had an effect.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// It had none, for certain.
    NotApplied,
    /// Nobody knows. The server counts against every cap until a look-up has settled it.
    Unknown,
}

/// A call to a provider that failed, in terms the core can act on.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
#[error("{kind} ({code}): {message}")]
pub struct ProviderError {
    /// What kind of failure it was.
    pub kind: ErrorKind,
    /// How far it reaches.
    pub scope: Scope,
    /// Whether it may have had an effect.
    pub certainty: Certainty,
    /// When the system said to try again.
    pub retry_after: Option<Duration>,
    /// The system's own code, as in `InsufficientInstanceCapacity`.
    pub code: String,
    /// The system's own words, without secrets, at most 500 characters.
    pub message: String,
    /// The system's id of the failed request, for its support.
    pub request_id: Option<String>,
}

impl ProviderError {
    /// An error of this kind and certainty, with the scope the kind usually has and nothing else known.
    pub fn new(kind: ErrorKind, certainty: Certainty, code: &str, message: &str) -> Self {
        let scope = match kind {
            ErrorKind::NoCapacity => Scope::Offering,
            ErrorKind::Conflict | ErrorKind::Protected => Scope::Server,
            _ => Scope::Provider,
        };
        let message = message.chars().take(500).collect();
        Self { kind, scope, certainty, retry_after: None, code: code.into(), message, request_id: None }
    }
}

/// Something that a preflight has found wrong or unwise before anything was made.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// What was looked at, as in `image ami-0123` or `right ec2:RunInstances`.
    pub subject: String,
    /// What is wrong with it.
    pub problem: String,
    /// How to mend it.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.subject, self.problem, self.remedy)
    }
}

/// Finds out whether a server answers on its connection port.
#[async_trait]
pub trait Prober: Send + Sync {
    /// Speaks the first words of the protocol and waits for the answer: a port that merely accepts is not ready.
    async fn probe(&self, target: &ProbeTarget) -> Result<(), ProbeFailure>;
}

/// What to probe.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProbeTarget {
    /// IP address or host name.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The protocol that must answer there.
    pub connection: ConnectionType,
}

/// Why a probe did not succeed. For people; the core only tries again.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct ProbeFailure {
    /// As in "connection refused" or "accepted, then sent no RDP answer within 3 s".
    pub message: String,
}

/// Looks secrets up by name when a command is carried out. They are never part of the state.
pub trait Secrets: Send + Sync {
    /// The secret of this name; `None` if there is none.
    fn secret(&self, name: &SecretName) -> Option<SecretString>;
}

/// The providers a host has set up.
pub trait Providers: Send + Sync {
    /// The provider of this name; `None` if there is none.
    fn provider(&self, name: &ProviderName) -> Option<Arc<dyn VmProvider>>;
}
