//! What a simulated cloud really holds, whatever its answers say.

use alloc::format;
use alloc::string::String;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::id::{MachineName, ServerKey};
use crate::ports::{
    Address, Certainty, ErrorKind, Machine, MachineRef, MachineState, Marker, ProviderError, Scope, ServerSpec,
};
use crate::time::Timestamp;

/// One machine, as it really is.
///
/// Instants may lie in the future: they are what will happen if nothing comes in between. So the state is a function of
/// the time ([`state`](Self::state)), and the cloud needs no clockwork.
#[derive(Clone, Debug)]
pub struct SimMachine {
    /// What the cloud calls it.
    pub reference: MachineRef,
    /// The server it was made for; `None` for a foreign machine.
    pub server: Option<ServerKey>,
    /// The mark on it now.
    pub marker: Option<Marker>,
    /// Its computer name.
    pub name: String,
    /// The token it was made with; `None` for a foreign machine.
    pub token: Option<String>,
    /// The SHA-256 of its user data, by [`user_data_hash`].
    pub user_data_hash: Option<[u8; 32]>,
    /// Where it is reached while it runs.
    pub address: Address,
    /// How many disks, network cards and the like it has; all go with it.
    pub dependents: u32,
    /// When the create takes effect.
    pub created_at: Timestamp,
    /// When it is powered on; `None`: it never is.
    pub running_at: Option<Timestamp>,
    /// When its operating system begins to answer; `None`: it never does.
    pub booted_at: Option<Timestamp>,
    /// When it powers off.
    pub stopped_at: Option<Timestamp>,
    /// When it is broken for good.
    pub failed_at: Option<Timestamp>,
    /// A state that no provider's author knew, in which it is until it is deleted.
    pub strange: Option<String>,
    /// When its deletion was accepted.
    pub delete_requested_at: Option<Timestamp>,
    /// When it is gone, by a delete of ours or by another hand.
    pub deleted_at: Option<Timestamp>,
    /// When find and list begin to show it.
    pub visible_at: Timestamp,
    /// When they cease to show it; never before it is gone.
    pub hidden_at: Option<Timestamp>,
    pub(super) fingerprint: [u8; 32],
}

impl SimMachine {
    /// What it is doing at this time.
    pub fn state(&self, now: Timestamp) -> MachineState {
        let passed = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        if passed(self.deleted_at) {
            MachineState::Deleted
        } else if passed(self.delete_requested_at) {
            MachineState::Deleting
        } else if let Some(word) = &self.strange {
            MachineState::Unknown(word.clone())
        } else if passed(self.failed_at) {
            MachineState::Failed
        } else if passed(self.stopped_at) {
            MachineState::Stopped
        } else if passed(self.running_at) {
            MachineState::Running
        } else {
            MachineState::Provisioning
        }
    }

    /// Whether it is there at all, and so costs money: created and not gone, in whatever state.
    pub fn exists(&self, now: Timestamp) -> bool {
        self.created_at <= now && !self.is_deleted(now)
    }

    /// Whether its operating system answers on the network.
    pub fn answers(&self, now: Timestamp) -> bool {
        self.state(now) == MachineState::Running && self.booted_at.is_some_and(|at| at <= now)
    }

    /// Whether it was made by a create of ours; false for a machine somebody else made.
    pub fn is_ours(&self) -> bool {
        self.token.is_some()
    }

    pub(super) fn is_deleted(&self, now: Timestamp) -> bool {
        self.deleted_at.is_some_and(|at| at <= now)
    }

    pub(super) fn is_hidden(&self, now: Timestamp) -> bool {
        self.hidden_at.is_some_and(|at| at <= now)
    }

    pub(in crate::testing) fn is_visible(&self, now: Timestamp) -> bool {
        self.visible_at <= now && !self.is_hidden(now)
    }

    /// The machine as find and list show it.
    pub(in crate::testing) fn shown(&self, now: Timestamp) -> Machine {
        let state = self.state(now);
        Machine {
            reference: self.reference.clone(),
            marker: self.marker.clone(),
            address: (state == MachineState::Running).then(|| self.address.clone()),
            fault: (state == MachineState::Failed).then(fault),
            state,
        }
    }
}

/// Why a machine is broken for good, as the cloud puts it.
pub(super) fn fault() -> ProviderError {
    let message = "the machine could not be started and will never be";
    let error = ProviderError::new(ErrorKind::Transient, Certainty::Unknown, "MachineFailed", message);
    ProviderError { scope: Scope::Server, ..error }
}

/// Where the machine of this number is reached: an address of 10.0.0.0/8, used again after 16 million machines.
pub(super) fn address(number: u64) -> Address {
    let [.., a, b, c] = number.to_be_bytes();
    Address { host: format!("10.{a}.{b}.{c}"), port: None }
}

/// The SHA-256 of a request's user data; `None` if it has none. The simulated cloud keeps this and not the data, which
/// holds secrets.
pub fn user_data_hash(spec: &ServerSpec) -> Option<[u8; 32]> {
    spec.user_data.as_ref().map(|data| Sha256::digest(data.expose_secret().as_bytes()).into())
}

/// The SHA-256 of everything in a request but its token: equal for equal requests.
pub(super) fn fingerprint(spec: &ServerSpec, user_data_hash: Option<[u8; 32]>) -> [u8; 32] {
    let Marker { deployment, pool, config, server } = &spec.marker;
    let machine = serde_json::Value::Object(spec.machine.clone());
    // `{:?}` of a text is quoted, so no field can run into the next one.
    let all = format!(
        "{:?} {deployment} {pool} {config} {server:?} {:?} {machine} {user_data_hash:?}",
        spec.server, spec.name
    );
    Sha256::digest(all.as_bytes()).into()
}

/// A machine whose operating system has come up, for hosts that play the part of the guest and check it in.
#[derive(Debug)]
pub struct Booted {
    /// The server it was made for.
    pub server: ServerKey,
    /// The machine.
    pub machine: MachineRef,
    /// Its computer name.
    pub name: MachineName,
    /// Its start-up data, as the create carried it.
    pub user_data: Option<SecretString>,
}

impl Booted {
    /// The event for a machine that was made by this request.
    pub fn new(machine: MachineRef, spec: &ServerSpec) -> Self {
        Self { server: spec.server, machine, name: spec.name.clone(), user_data: spec.user_data.clone() }
    }
}
