//! From EC2's instances to the core's machines.
//!
//! Source: EC2 API Reference, Instance, InstanceState and StateReason.

use aws_sdk_ec2::types::{Instance, InstanceState, InstanceStateName};
use kasm_autoscale_core::ports::{Address, Machine, MachineRef, MachineState, Marker, ProviderError};

use super::request::{TAG_CONFIG, TAG_DEPLOYMENT, TAG_POOL, TAG_SERVER, tag_key};
use super::settings::AddressChoice;
use crate::ec2_errors::classify_reason;
use crate::words::readable;

/// The machine; `None` for an instance without an id, which EC2 never sends.
pub(super) fn machine(instance: &Instance, choice: AddressChoice) -> Option<Machine> {
    let state = instance.state().map_or_else(|| MachineState::Unknown("no state".to_owned()), machine_state);
    let address = match choice {
        AddressChoice::Private => instance.private_ip_address(),
        AddressChoice::Public => instance.public_ip_address(),
        AddressChoice::PrivateDns => instance.private_dns_name(),
    };
    let host = address.filter(|host| !host.is_empty());
    Some(Machine {
        reference: MachineRef(instance.instance_id()?.to_owned()),
        marker: marker(instance),
        state,
        address: host.map(|host| Address { host: host.to_owned(), port: None }),
        fault: fault(instance),
    })
}

/// By the code if there is one, for its meaning never changes; only its low byte counts.
pub(super) fn machine_state(state: &InstanceState) -> MachineState {
    match (state.code().map(|code| code & 0xff), state.name()) {
        (Some(0), _) | (None, Some(InstanceStateName::Pending)) => MachineState::Provisioning,
        (Some(16), _) | (None, Some(InstanceStateName::Running)) => MachineState::Running,
        (Some(32), _) | (None, Some(InstanceStateName::ShuttingDown)) => MachineState::Deleting,
        (Some(48), _) | (None, Some(InstanceStateName::Terminated)) => MachineState::Deleted,
        (Some(64 | 80), _) | (None, Some(InstanceStateName::Stopping | InstanceStateName::Stopped)) => {
            MachineState::Stopped
        }
        (_, Some(name)) => MachineState::Unknown(name.as_str().to_owned()),
        (Some(code), None) => MachineState::Unknown(format!("code {code}")),
        (None, None) => MachineState::Unknown("no state".to_owned()),
    }
}

/// Our mark, if it is whole.
fn marker(instance: &Instance) -> Option<Marker> {
    let tag = |end: &str| {
        let key = tag_key(end);
        instance.tags().iter().find(|tag| tag.key() == Some(&key)).and_then(|tag| tag.value())
    };
    Some(Marker {
        deployment: tag(TAG_DEPLOYMENT)?.parse().ok()?,
        pool: tag(TAG_POOL)?.parse().ok()?,
        config: tag(TAG_CONFIG)?.parse().ok()?,
        server: tag(TAG_SERVER)?.to_owned(),
    })
}

/// Why it came to its state, where that is a failure: launches can fail after they were accepted.
fn fault(instance: &Instance) -> Option<ProviderError> {
    let reason = instance.state_reason()?;
    let (code, message) = (reason.code().unwrap_or_default(), reason.message().unwrap_or_default());
    let class = classify_reason(code, message)?;
    let error = ProviderError::new(class.kind, class.certainty, code, &readable(message, &[]));
    Some(ProviderError { scope: class.scope, ..error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_by_code_and_by_name() {
        let rows = [
            (Some(0), None, MachineState::Provisioning),
            (Some(16), None, MachineState::Running),
            (Some(256 + 16), None, MachineState::Running),
            (Some(32), None, MachineState::Deleting),
            (Some(48), Some("terminated"), MachineState::Deleted),
            (Some(64), None, MachineState::Stopped),
            (Some(80), None, MachineState::Stopped),
            (None, Some("pending"), MachineState::Provisioning),
            (None, Some("stopping"), MachineState::Stopped),
            (None, Some("shutting-down"), MachineState::Deleting),
            (Some(96), Some("hibernating"), MachineState::Unknown("hibernating".to_owned())),
            (Some(96), None, MachineState::Unknown("code 96".to_owned())),
            (None, Some("hibernating"), MachineState::Unknown("hibernating".to_owned())),
            (None, None, MachineState::Unknown("no state".to_owned())),
        ];
        for (code, name, expected) in rows {
            let name = name.map(InstanceStateName::from);
            let state = InstanceState::builder().set_code(code).set_name(name).build();
            assert_eq!(machine_state(&state), expected, "{state:?}");
        }
    }
}
