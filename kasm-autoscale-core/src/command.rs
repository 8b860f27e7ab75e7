//! What a pool wants done in the world, and what came of it.

use alloc::string::String;
use alloc::sync::Arc;
use core::time::Duration;

use crate::config::ConfigSpec;
use crate::id::{CommandId, ConfigId, DeploymentId, DirectoryName, MachineName, ProviderName, ServerKey};
use crate::ports::{
    ComputerListing, ComputerRef, DirectoryError, JoinState, Listing, Machine, MachineRef, OpRef, ProbeFailure,
    ProbeTarget, Progress, ProviderError,
};
use crate::time::Timestamp;

/// Something to do. Its [`Outcome`] comes back as [`Fact::Finished`](crate::input::Fact::Finished).
///
/// A host may carry out commands in any order and at once. It need not remember them: one that is lost in a crash is
/// found missing by the restored pool, which looks before it acts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Command {
    /// Its number, unique in the pool for ever.
    pub id: CommandId,
    /// After what time without an answer the host reports [`Outcome::Lost`].
    pub timeout: Duration,
    /// What to do.
    pub action: Action,
}

/// What to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Make a machine. → [`Outcome::Progress`]
    Create(CreateMachine),
    /// Look how far an operation is. → [`Outcome::Progress`]
    Poll {
        /// Whom to ask.
        provider: ProviderName,
        /// The operation.
        op: OpRef,
    },
    /// Look a server's machine up by its mark. → [`Outcome::Found`]
    Find {
        /// Whom to ask.
        provider: ProviderName,
        /// The server.
        server: ServerKey,
    },
    /// List the pool's machines. → [`Outcome::Listed`]
    List {
        /// Whom to ask.
        provider: ProviderName,
    },
    /// Delete a machine. → [`Outcome::Progress`]
    Delete {
        /// Whom to ask.
        provider: ProviderName,
        /// The machine.
        machine: MachineRef,
    },
    /// See whether a server answers on its connection port. → [`Outcome::Probed`]
    Probe {
        /// Where and how.
        target: ProbeTarget,
    },
    /// Make the computer object of a server, or find that it is there. → [`Outcome::Enrolled`]
    Enroll(EnrollComputer),
    /// Look a server's computer object up by its mark. → [`Outcome::ComputerFound`]
    FindComputer {
        /// Whom to ask.
        directory: DirectoryName,
        /// The server.
        server: ServerKey,
    },
    /// See whether a machine has joined. → [`Outcome::JoinChecked`]
    CheckJoin {
        /// Whom to ask.
        directory: DirectoryName,
        /// Its computer object.
        computer: ComputerRef,
    },
    /// Remove a computer object. → [`Outcome::Unenrolled`]
    Unenroll {
        /// Whom to ask.
        directory: DirectoryName,
        /// The object.
        computer: ComputerRef,
        /// Whether whatever lies below it goes too.
        recursive: bool,
    },
    /// List the pool's computer objects. → [`Outcome::ComputersListed`]
    ListComputers {
        /// Whom to ask.
        directory: DirectoryName,
    },
}

impl Action {
    /// The verb, for logs and metrics.
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Poll { .. } => "poll",
            Self::Find { .. } => "find",
            Self::List { .. } => "list",
            Self::Delete { .. } => "delete",
            Self::Probe { .. } => "probe",
            Self::Enroll(_) => "enroll",
            Self::FindComputer { .. } => "find_computer",
            Self::CheckJoin { .. } => "check_join",
            Self::Unenroll { .. } => "unenroll",
            Self::ListComputers { .. } => "list_computers",
        }
    }

    /// The provider that is asked; `None` for a probe and for what a directory is asked.
    pub fn provider(&self) -> Option<&ProviderName> {
        match self {
            Self::Create(create) => Some(&create.spec.provider),
            Self::Poll { provider, .. }
            | Self::Find { provider, .. }
            | Self::List { provider }
            | Self::Delete { provider, .. } => Some(provider),
            Self::Probe { .. }
            | Self::Enroll(_)
            | Self::FindComputer { .. }
            | Self::CheckJoin { .. }
            | Self::Unenroll { .. }
            | Self::ListComputers { .. } => None,
        }
    }

    /// The directory that is asked, if it is one.
    pub fn directory(&self) -> Option<&DirectoryName> {
        match self {
            Self::Enroll(enroll) => Some(&enroll.directory),
            Self::FindComputer { directory, .. }
            | Self::CheckJoin { directory, .. }
            | Self::Unenroll { directory, .. }
            | Self::ListComputers { directory } => Some(directory),
            _ => None,
        }
    }
}

/// Everything from which the request for a machine is made, the same after any number of crashes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CreateMachine {
    /// The installation.
    pub deployment: DeploymentId,
    /// The server.
    pub server: ServerKey,
    /// Its config.
    pub config: ConfigId,
    /// The config as the server was born with it.
    pub spec: Arc<ConfigSpec>,
    /// Until when the machine's check-in token is good.
    pub checkin_expires_at: Timestamp,
}

/// Everything from which the request for a computer object is made, the same after any number of crashes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EnrollComputer {
    /// Whom to ask.
    pub directory: DirectoryName,
    /// The installation.
    pub deployment: DeploymentId,
    /// The server.
    pub server: ServerKey,
    /// Its config.
    pub config: ConfigId,
    /// The computer's name.
    pub name: MachineName,
    /// The organisational unit.
    pub ou: String,
}

/// What came of a [`Command`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Of a create, poll or delete.
    Progress(Result<Progress, ProviderError>),
    /// Of a find.
    Found(Result<Option<Machine>, ProviderError>),
    /// Of a list.
    Listed(Result<Listing, ProviderError>),
    /// Of a probe.
    Probed(Result<(), ProbeFailure>),
    /// Of an enrolment.
    Enrolled(Result<ComputerRef, DirectoryError>),
    /// Of a look-up of a computer object.
    ComputerFound(Result<Option<ComputerRef>, DirectoryError>),
    /// Of a look whether a machine has joined.
    JoinChecked(Result<JoinState, DirectoryError>),
    /// Of the removal of a computer object.
    Unenrolled(Result<(), DirectoryError>),
    /// Of a list of computer objects.
    ComputersListed(Result<ComputerListing, DirectoryError>),
    /// No answer within the command's time. It may or may not have had its effect.
    Lost,
}

impl Outcome {
    /// `ok`, the kind of the error, or `lost`; for logs and metrics.
    pub fn word(&self) -> &'static str {
        let error = match self {
            Self::Progress(result) => result.as_ref().err(),
            Self::Found(result) => result.as_ref().err(),
            Self::Listed(result) => result.as_ref().err(),
            Self::Probed(Ok(())) => None,
            Self::Probed(Err(_)) => return "no_answer",
            Self::Lost => return "lost",
            _ => return self.directory_error().map_or("ok", |error| error.kind.as_str()),
        };
        error.map_or("ok", |error| error.kind.as_str())
    }

    /// The words of the error, if there is one.
    pub fn error(&self) -> Option<String> {
        use alloc::string::ToString;
        match self {
            Self::Progress(Err(error)) | Self::Found(Err(error)) | Self::Listed(Err(error)) => Some(error.to_string()),
            Self::Probed(Err(failure)) => Some(failure.to_string()),
            _ => self.directory_error().map(ToString::to_string),
        }
    }

    /// The error of a call to a directory, if it is one.
    pub fn directory_error(&self) -> Option<&DirectoryError> {
        match self {
            Self::Enrolled(Err(error))
            | Self::ComputerFound(Err(error))
            | Self::JoinChecked(Err(error))
            | Self::Unenrolled(Err(error))
            | Self::ComputersListed(Err(error)) => Some(error),
            _ => None,
        }
    }
}
