//! From Azure's resources to the core's machines.
//!
//! Source: Compute API 2024-03-01, VirtualMachine and InstanceViewStatus; Network API 2024-01-01, NetworkInterface and
//! PublicIPAddress; Azure Virtual Machines, "States and billing status".

use std::collections::BTreeMap;

use kasm_autoscale_core::id::ConfigId;
use kasm_autoscale_core::ports::{Address, Machine, MachineState, Marker, ProviderError};
use serde_json::Value;

use super::failure::fault;
use super::names::{PartKind, VmName, folded, name_in};
use super::request::{
    EXTENSION, SCRIPT_BY_EXTENSION, TAG_CONFIG, TAG_DEPLOYMENT, TAG_POOL, TAG_SCRIPT, TAG_SERVER, tag_key,
};

/// A text of an object.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

/// Our mark on a resource, if it is whole.
pub(super) fn marker(resource: &Value) -> Option<Marker> {
    Some(Marker {
        deployment: tag(resource, TAG_DEPLOYMENT)?.parse().ok()?,
        pool: tag(resource, TAG_POOL)?.parse().ok()?,
        config: tag(resource, TAG_CONFIG)?.parse().ok()?,
        server: tag(resource, TAG_SERVER)?.to_owned(),
    })
}

/// One of our tags. Azure keeps their keys without regard to case.
fn tag<'a>(resource: &'a Value, end: &str) -> Option<&'a str> {
    let key = tag_key(end);
    let tags = resource.get("tags")?.as_object()?;
    tags.iter().find(|(name, _)| name.eq_ignore_ascii_case(&key)).and_then(|(_, value)| value.as_str())
}

/// Whether this machine is to get the extension that runs its script, and has not got it.
pub(super) fn lacks_extension(vm: &Value) -> bool {
    let wanted = tag(vm, TAG_SCRIPT) == Some(SCRIPT_BY_EXTENSION);
    let children = vm.get("resources").and_then(Value::as_array).into_iter().flatten();
    let named = |child: &Value| {
        let name = text(child, "/name").or_else(|| text(child, "/id")).unwrap_or_default();
        name_in(name).eq_ignore_ascii_case(EXTENSION)
    };
    wanted && !children.into_iter().any(named)
}

/// The provisioning state of a resource, as in `Succeeded`.
pub(super) fn provisioning(resource: &Value) -> &str {
    text(resource, "/properties/provisioningState").unwrap_or_default()
}

/// Whether a machine has been made, so that an extension can be put on it.
pub(super) fn is_made(vm: &Value) -> bool {
    matches!(provisioning(vm), "Succeeded" | "Updating")
}

/// The power state in the statuses of an instance view, as in `running`.
pub(super) fn power(vm: &Value) -> Option<&str> {
    let statuses = vm.pointer("/properties/instanceView/statuses")?.as_array()?;
    statuses.iter().find_map(|status| text(status, "/code")?.strip_prefix("PowerState/"))
}

/// What a machine is doing, and why if that is a failure. `power` is its power state, where it is known.
pub(super) fn state(vm: &Value, power: Option<&str>) -> (MachineState, Option<ProviderError>) {
    let by_power = || match power {
        None | Some("running" | "starting") => MachineState::Running,
        Some("stopping" | "stopped" | "deallocating" | "deallocated" | "hibernating" | "hibernated") => {
            MachineState::Stopped
        }
        Some(other) => MachineState::Unknown(format!("power state {other}")),
    };
    match provisioning(vm) {
        "Creating" => (MachineState::Provisioning, None),
        // Updates are extensions and changes of size or tags: the machine was made before.
        "Succeeded" | "Updating" | "Migrating" => (by_power(), None),
        "Deleting" => (MachineState::Deleting, None),
        "Failed" | "Canceled" => match failed(vm, power) {
            Some(fault) => (MachineState::Failed, Some(fault)),
            None => (by_power(), None),
        },
        other => (MachineState::Unknown(format!("provisioning state {other}")), None),
    }
}

/// Why a machine is broken; `None`: the last thing that was done to it failed, but it runs and its agent answers, as when
/// somebody's extension or change of size did not work. Then users may be on it.
fn failed(vm: &Value, power: Option<&str>) -> Option<ProviderError> {
    let fault = reason(vm);
    let agent = vm.pointer("/properties/instanceView/vmAgent/statuses").and_then(Value::as_array).into_iter().flatten();
    let ready = agent.into_iter().any(|status| text(status, "/displayStatus") == Some("Ready"));
    if power == Some("running") && ready && !fault.code.starts_with("OSProvisioning") && !script_failed(vm) {
        return None;
    }
    Some(fault)
}

/// `ProvisioningState/failed/AllocationFailed` and its message.
fn reason(vm: &Value) -> ProviderError {
    let statuses = vm.pointer("/properties/instanceView/statuses").and_then(Value::as_array).into_iter().flatten();
    let failure = statuses.into_iter().find_map(|status| {
        let code = text(status, "/code")?.strip_prefix("ProvisioningState/failed")?;
        Some((code.trim_start_matches('/'), text(status, "/message").unwrap_or_default()))
    });
    match failure.filter(|(code, _)| !code.is_empty()) {
        Some((code, message)) => fault(code, message),
        None => fault("ProvisioningFailed", "Azure says that making the machine failed, and not why"),
    }
}

fn script_failed(vm: &Value) -> bool {
    let extensions = vm.pointer("/properties/instanceView/extensions").and_then(Value::as_array).into_iter().flatten();
    let ours = extensions
        .into_iter()
        .filter(|one| text(one, "/name").is_some_and(|name| name.eq_ignore_ascii_case(EXTENSION)));
    let failed =
        |status: &Value| text(status, "/code").is_some_and(|code| code.starts_with("ProvisioningState/failed"));
    ours.flat_map(|one| one.get("statuses").and_then(Value::as_array).into_iter().flatten()).any(failed)
}

/// The machine of a virtual machine.
pub(super) fn machine(vm: &VmName, resource: &Value, power: Option<&str>, host: Option<&str>) -> Machine {
    let (state, fault) = state(resource, power);
    Machine {
        reference: vm.reference(),
        marker: marker(resource),
        state,
        address: host.filter(|host| !host.is_empty()).map(|host| Address { host: host.to_owned(), port: None }),
        fault,
    }
}

/// Something that belongs to a machine.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) kind: PartKind,
    pub(super) vm: VmName,
    pub(super) config: ConfigId,
    pub(super) id: String,
    /// What it hangs on, folded: an interface on a machine, an address on an interface, a disk on a machine.
    pub(super) holder: Option<String>,
    /// Whether it is on its way out.
    pub(super) going: bool,
}

impl Part {
    /// The part that a resource is, if it is one of ours.
    pub(super) fn of(kind: PartKind, resource: &Value) -> Option<Self> {
        let (vm, config) = VmName::of_part(text(resource, "/name")?)?;
        let holder = match kind {
            PartKind::Nic => text(resource, "/properties/virtualMachine/id"),
            PartKind::PublicIp => text(resource, "/properties/ipConfiguration/id"),
            PartKind::Disk => text(resource, "/managedBy"),
        };
        let holder = holder.map(folded);
        let going = provisioning(resource) == "Deleting";
        Some(Self { kind, vm, config, id: text(resource, "/id")?.to_owned(), holder, going })
    }
}

/// The addresses of network interfaces, by the machine they are on.
pub(super) fn hosts(nics: &[Value], public_ips: Option<&[Value]>) -> BTreeMap<String, String> {
    let public: Option<BTreeMap<String, &str>> = public_ips.map(|ips| {
        ips.iter().filter_map(|ip| Some((folded(text(ip, "/id")?), text(ip, "/properties/ipAddress")?))).collect()
    });
    let of = |nic: &Value| -> Option<(String, String)> {
        let vm = folded(text(nic, "/properties/virtualMachine/id")?);
        let configuration = primary_address(nic)?;
        let host = match &public {
            None => text(configuration, "/properties/privateIPAddress")?,
            Some(public) => public.get(&folded(text(configuration, "/properties/publicIPAddress/id")?))?,
        };
        Some((vm, host.to_owned()))
    };
    // The primary interface where there are several.
    let (first, rest): (Vec<&Value>, Vec<&Value>) =
        nics.iter().partition(|nic| nic.pointer("/properties/primary").and_then(Value::as_bool) == Some(true));
    let mut hosts: BTreeMap<String, String> = rest.into_iter().filter_map(of).collect();
    hosts.extend(first.into_iter().filter_map(of));
    hosts
}

/// The configuration of an interface's first address.
pub(super) fn primary_address(nic: &Value) -> Option<&Value> {
    let all = nic.pointer("/properties/ipConfigurations")?.as_array()?;
    let is_primary = |one: &&Value| one.pointer("/properties/primary").and_then(Value::as_bool) == Some(true);
    all.iter().find(is_primary).or_else(|| all.first())
}

/// The id of a machine's first interface.
pub(super) fn primary_nic(vm: &Value) -> Option<&str> {
    let all = vm.pointer("/properties/networkProfile/networkInterfaces")?.as_array()?;
    let is_primary = |one: &&Value| one.pointer("/properties/primary").and_then(Value::as_bool) == Some(true);
    all.iter().find(is_primary).or_else(|| all.first()).and_then(|nic| text(nic, "/id"))
}

#[cfg(test)]
mod tests {
    use kasm_autoscale_core::ports::ErrorKind;
    use serde_json::json;

    use super::*;

    fn vm(state: &str, statuses: Value, more: Value) -> Value {
        let mut view = json!({ "statuses": statuses });
        if let (Some(view), Some(more)) = (view.as_object_mut(), more.as_object()) {
            view.extend(more.clone());
        }
        json!({ "properties": { "provisioningState": state, "instanceView": view } })
    }

    #[test]
    fn states_by_provisioning_and_power() {
        let rows = [
            ("Creating", None, MachineState::Provisioning),
            ("Creating", Some("running"), MachineState::Provisioning),
            ("Succeeded", None, MachineState::Running),
            ("Succeeded", Some("running"), MachineState::Running),
            ("Succeeded", Some("starting"), MachineState::Running),
            ("Updating", Some("running"), MachineState::Running),
            ("Succeeded", Some("stopped"), MachineState::Stopped),
            ("Succeeded", Some("deallocated"), MachineState::Stopped),
            ("Deleting", Some("running"), MachineState::Deleting),
            ("Failed", None, MachineState::Failed),
            ("Failed", Some("running"), MachineState::Failed),
            ("Canceled", None, MachineState::Failed),
            ("Succeeded", Some("dreaming"), MachineState::Unknown("power state dreaming".to_owned())),
            ("Odd", Some("running"), MachineState::Unknown("provisioning state Odd".to_owned())),
            ("", None, MachineState::Unknown("provisioning state ".to_owned())),
        ];
        for (provisioning, power, expected) in rows {
            let resource = json!({ "properties": { "provisioningState": provisioning } });
            assert_eq!(state(&resource, power).0, expected, "{provisioning} {power:?}");
        }
    }

    #[test]
    fn failures_have_their_reason_and_what_works_all_the_same_is_left_alone() {
        let running = json!({ "code": "PowerState/running" });
        let agent = json!({ "vmAgent": { "statuses": [{ "displayStatus": "Ready" }] } });
        let ours = json!({ "vmAgent": { "statuses": [{ "displayStatus": "Ready" }] }, "extensions": [
            { "name": "KASM-startup", "statuses": [{ "code": "ProvisioningState/failed/1" }] }] });
        let because =
            |code: &str| json!([{ "code": format!("ProvisioningState/failed/{code}"), "message": "words" }, running]);
        let rows = [
            (because("AllocationFailed"), json!({}), Some(("AllocationFailed", ErrorKind::NoCapacity))),
            (because("OSProvisioningTimedOut"), agent.clone(), Some(("OSProvisioningTimedOut", ErrorKind::Invalid))),
            (because("VMExtensionProvisioningError"), agent.clone(), None),
            (because("VMExtensionProvisioningError"), ours, Some(("VMExtensionProvisioningError", ErrorKind::Invalid))),
            (
                json!([{ "code": "ProvisioningState/failed" }]),
                json!({}),
                Some(("ProvisioningFailed", ErrorKind::Conflict)),
            ),
        ];
        for (statuses, more, expected) in rows {
            let vm = vm("Failed", statuses, more);
            let (state, fault) = state(&vm, power(&vm));
            assert_eq!(fault.as_ref().map(|fault| (fault.code.as_str(), fault.kind)), expected, "{vm}");
            assert_eq!(state, if expected.is_some() { MachineState::Failed } else { MachineState::Running });
        }
    }

    #[test]
    fn only_machines_that_want_the_extension_and_have_none_lack_it() {
        let vm = |tags: Value, resources: Value| json!({ "tags": tags, "resources": resources });
        let wants = json!({ "Kasm-Autoscale:Script": "extension" });
        let id =
            "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/v/extensions/KASM-STARTUP";
        assert!(lacks_extension(&vm(wants.clone(), Value::Null)));
        assert!(lacks_extension(&vm(wants.clone(), json!([{ "name": "antivirus" }]))));
        assert!(!lacks_extension(&vm(wants.clone(), json!([{ "name": "antivirus" }, { "name": "v/kasm-startup" }]))));
        assert!(!lacks_extension(&vm(wants, json!([{ "id": id }]))));
        assert!(!lacks_extension(&vm(json!({}), Value::Null)));
    }

    #[test]
    fn addresses_are_those_of_the_first_interface() {
        let nic = |vm: &str, primary: bool, address: &str| {
            json!({ "properties": { "primary": primary, "virtualMachine": { "id": vm }, "ipConfigurations": [
                { "properties": { "primary": false, "privateIPAddress": "127.0.1.1" } },
                { "properties": { "primary": true, "privateIPAddress": address, "publicIPAddress": { "id": format!("/IP/{address}") } } }] } })
        };
        let nics = [
            nic("/VM/a", true, "127.0.1.2"),
            nic("/vm/A", false, "127.0.1.3"),
            nic("/vm/b", false, "127.0.1.4"),
            json!({}),
        ];
        let private = hosts(&nics, None);
        assert_eq!(
            (private["/vm/a"].as_str(), private["/vm/b"].as_str(), private.len()),
            ("127.0.1.2", "127.0.1.4", 2)
        );
        let ips = [json!({ "id": "/ip/127.0.1.2", "properties": { "ipAddress": "127.0.2.2" } })];
        let public = hosts(&nics, Some(&ips));
        assert_eq!((public.get("/vm/a").map(String::as_str), public.len()), (Some("127.0.2.2"), 1));
    }
}
