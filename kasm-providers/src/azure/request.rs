//! The bodies of our requests: one machine with its network interface and address, marked in the call that makes it; and the
//! extension that runs its startup script.
//!
//! Source: Compute API 2024-03-01, VirtualMachine and VirtualMachineExtension.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use kasm_autoscale_core::id::ServerKey;
use kasm_autoscale_core::ports::ServerSpec;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use sha2::Sha256;

use super::machine::{MachineSettings, TAG_PREFIX};
use super::names::VmName;
use super::settings::{AdminPassword, AzureSettings};
use super::user_data::{Os, RunScript, starter_command};

/// Our tags, by the ends of their keys.
pub(super) const TAG_DEPLOYMENT: &str = "deployment";
pub(super) const TAG_POOL: &str = "pool";
pub(super) const TAG_CONFIG: &str = "config";
pub(super) const TAG_SERVER: &str = "server";
pub(super) const TAG_NAME: &str = "name";
/// Says that the startup script is to be run by the extension, so that this is known after any number of restarts of ours.
pub(super) const TAG_SCRIPT: &str = "script";
/// The one value of [`TAG_SCRIPT`].
pub(super) const SCRIPT_BY_EXTENSION: &str = "extension";

/// The name of the extension that runs startup scripts.
pub(super) const EXTENSION: &str = "kasm-startup";

/// The key of one of our tags.
pub(super) fn tag_key(end: &str) -> String {
    format!("{TAG_PREFIX}{end}")
}

/// The id of something in a provider's own resource group.
fn local_id(settings: &AzureSettings, kind: &str, name: &str) -> String {
    format!(
        "/subscriptions/{}/resourceGroups/{}/providers/{kind}/{name}",
        settings.subscription, settings.resource_group
    )
}

/// The body of the request for a machine. `user_data` is as the machine wants it, not yet in base64.
pub(super) fn virtual_machine(
    spec: &ServerSpec,
    machine: &MachineSettings,
    settings: &AzureSettings,
    user_data: Option<&str>,
    password: Option<&SecretString>,
) -> Value {
    let (vm, config) = (VmName::of(&spec.server), spec.marker.config);
    let mut disk = json!({ "name": vm.part(config, "osdisk"), "createOption": "FromImage", "deleteOption": "Delete" });
    disk["managedDisk"] = machine.os_disk_type.map_or_else(|| json!({}), |kind| json!({ "storageAccountType": kind }));
    if let Some(size) = machine.os_disk_size_gib {
        disk["diskSizeGB"] = json!(size);
    }
    let mut properties = json!({
        "hardwareProfile": { "vmSize": machine.vm_size },
        "storageProfile": { "imageReference": machine.image, "osDisk": disk },
        "networkProfile": {
            // The only version there is of this form.
            "networkApiVersion": "2020-11-01",
            "networkInterfaceConfigurations": [interface(&vm, spec, machine, settings)],
        },
    });
    if let Some(profile) = os_profile(spec, machine, user_data, password) {
        properties["osProfile"] = profile;
    }
    if machine.spot {
        properties["priority"] = json!("Spot");
        // A machine that was only switched off would stay, and its disk would be paid for.
        properties["evictionPolicy"] = json!("Delete");
        properties["billingProfile"] = json!({ "maxPrice": -1 });
    }
    if let Some(license) = machine.license_type {
        properties["licenseType"] = json!(license);
    }
    if machine.trusted_launch {
        let firmware = json!({ "secureBootEnabled": true, "vTpmEnabled": true });
        properties["securityProfile"] = json!({ "securityType": "TrustedLaunch", "uefiSettings": firmware });
    }
    let mut body =
        json!({ "location": settings.region, "tags": tags(spec, machine, user_data), "properties": properties });
    if let Some(zone) = machine.zone {
        body["zones"] = json!([zone]);
    }
    if let Some(plan) = &machine.plan {
        body["plan"] = json!(plan);
    }
    machine.overrides.apply(&mut body, &vm, config);
    body
}

fn interface(vm: &VmName, spec: &ServerSpec, machine: &MachineSettings, settings: &AzureSettings) -> Value {
    let config = spec.marker.config;
    let mut address = json!({ "primary": true, "subnet": { "id": machine.subnet }, "privateIPAddressVersion": "IPv4" });
    if machine.public_ip {
        address["publicIPAddressConfiguration"] = json!({
            "name": vm.part(config, "pip"),
            "sku": { "name": "Standard", "tier": "Regional" },
            "properties": { "deleteOption": "Delete", "publicIPAllocationMethod": "Static" },
        });
    }
    let mut properties = json!({
        "primary": true,
        "deleteOption": "Delete",
        "ipConfigurations": [{ "name": "primary", "properties": address }],
    });
    if let Some(group) = &machine.network_security_group {
        let is_id = group.starts_with('/');
        let id =
            if is_id { group.clone() } else { local_id(settings, "Microsoft.Network/networkSecurityGroups", group) };
        properties["networkSecurityGroup"] = json!({ "id": id });
    }
    if let Some(wish) = machine.accelerated_networking {
        properties["enableAcceleratedNetworking"] = json!(wish);
    }
    json!({ "name": vm.part(config, "nic"), "properties": properties })
}

/// `None` for specialized images, which must not have one.
fn os_profile(
    spec: &ServerSpec,
    machine: &MachineSettings,
    user_data: Option<&str>,
    password: Option<&SecretString>,
) -> Option<Value> {
    let user = machine.admin_username.as_deref()?;
    let mut profile = json!({ "computerName": spec.name.as_str(), "adminUsername": user });
    match machine.os {
        Os::Windows => {
            profile["adminPassword"] = json!(password.map(ExposeSecret::expose_secret));
            profile["windowsConfiguration"] = json!({ "provisionVMAgent": true });
        }
        Os::Linux => {
            let path = format!("/home/{user}/.ssh/authorized_keys");
            let keys = json!({ "publicKeys": [{ "path": path, "keyData": machine.ssh_public_key }] });
            profile["linuxConfiguration"] = json!({ "disablePasswordAuthentication": true, "ssh": keys });
        }
    }
    if let Some(text) = user_data {
        profile["customData"] = json!(BASE64_STANDARD.encode(text));
    }
    Some(profile)
}

fn tags(spec: &ServerSpec, machine: &MachineSettings, user_data: Option<&str>) -> Value {
    let marker = &spec.marker;
    let ours = [
        (TAG_DEPLOYMENT, marker.deployment.to_string()),
        (TAG_POOL, marker.pool.to_string()),
        (TAG_CONFIG, marker.config.to_string()),
        (TAG_SERVER, marker.server.clone()),
        (TAG_NAME, spec.name.to_string()),
    ];
    let by_extension = machine.run_script == RunScript::Extension && user_data.is_some();
    let script = by_extension.then(|| (TAG_SCRIPT, SCRIPT_BY_EXTENSION.to_owned()));
    let ours = ours.into_iter().chain(script).map(|(end, value)| (tag_key(end), json!(value)));
    let custom = machine.tags.iter().map(|(key, value)| (key.clone(), json!(value)));
    Value::Object(custom.chain(ours).collect())
}

/// The password of a machine's administrator: the same for every try.
pub(super) fn admin_password(choice: &AdminPassword, server: &ServerKey) -> SecretString {
    match choice {
        AdminPassword::Same(password) => password.clone(),
        AdminPassword::Derived(key) => {
            // HMAC takes keys of every length (RFC 2104 §3), so this cannot fail.
            let Ok(mac) = Hmac::<Sha256>::new_from_slice(key.expose_secret().as_bytes()) else {
                unreachable!("HMAC takes keys of every length")
            };
            let mac = mac.chain_update(b"azure admin password v1/").chain_update(server.uuid()).finalize().into_bytes();
            // The first four characters bring every class that Azure asks for, the others 240 bits.
            format!("Kx9-{}", BASE64_URL_SAFE_NO_PAD.encode(&mac[..30])).into()
        }
    }
}

/// The body of the request for the extension. The command is in the settings that only the machine can read.
pub(super) fn extension(settings: &AzureSettings) -> Value {
    json!({
        "location": settings.region,
        "properties": {
            "publisher": "Microsoft.Compute",
            "type": "CustomScriptExtension",
            "typeHandlerVersion": "1.10",
            "autoUpgradeMinorVersion": true,
            "settings": {},
            "protectedSettings": { "commandToExecute": starter_command() },
        },
    })
}

#[cfg(test)]
mod tests {
    use kasm_autoscale_core::id::{PoolId, ServerId};

    use super::*;

    #[test]
    fn derived_passwords_are_each_servers_own_and_please_azure() {
        let server = |serial| ServerKey { pool: PoolId::from_bytes([1; 16]), server: ServerId::new(serial) };
        let choice = AdminPassword::Derived("0123456789abcdef".into());
        let password = |serial| admin_password(&choice, &server(serial)).expose_secret().to_owned();
        assert_eq!(password(1), password(1));
        assert_ne!(password(1), password(2));
        assert_eq!(password(1).len(), 44);
        let other = AdminPassword::Derived("fedcba9876543210".into());
        assert_ne!(admin_password(&other, &server(1)).expose_secret(), password(1));
        let same = AdminPassword::Same("Same-1234".into());
        assert_eq!(admin_password(&same, &server(1)).expose_secret(), "Same-1234");
    }
}
