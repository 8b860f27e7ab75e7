//! Specs and settings that the tests of the Azure provider share.

use kasm_autoscale_core::fields::JsonObject;
use kasm_autoscale_core::id::{ConfigId, DeploymentId, PoolId, ServerId, ServerKey};
use kasm_autoscale_core::ports::{Marker, ServerSpec};
use kasm_providers::azure::{AdminPassword, AzureCredentials, AzureProvider, AzureSettings};
use serde_json::{Value, json};

use crate::arm::{Arm, CLIENT, CLIENT_SECRET, GROUP, REGION, SUBSCRIPTION, TENANT};

/// A script with secrets that nothing may ever show.
pub(crate) const SCRIPT: &str = "$joinPassword = 'canary-join-9f3a'\r\nWrite-Output \"ä <>&\"\n";
pub(crate) const ADMIN_KEY: &str = "canary-admin-key-0123456789";
pub(crate) const SUBNET: &str = "/subscriptions/0b1f6471-1bf0-4dda-aec3-cb9272f09590/resourceGroups/net/providers/Microsoft.Network/virtualNetworks/desktops/subnets/pool";

pub(crate) fn deployment() -> DeploymentId {
    DeploymentId::from_bytes([7; 16])
}

/// Settings for the stand-in: both the tokens' and Azure's own address are on loopback.
pub(crate) fn settings(arm: &Arm) -> AzureSettings {
    let url = arm.url();
    assert!(url.starts_with("https://127.0.0.1:"), "{url} is not on loopback");
    let credentials = AzureCredentials::ClientSecret {
        tenant: TENANT.into(),
        client_id: CLIENT.into(),
        client_secret: CLIENT_SECRET.into(),
    };
    let mut settings = AzureSettings::new(SUBSCRIPTION, GROUP, REGION, credentials);
    settings.authority = Some(url.clone());
    settings.audience = Some(url.clone());
    settings.endpoint_url = Some(url);
    settings.ca_file = Some(arm.ca_file());
    settings.admin_password = Some(AdminPassword::Derived(ADMIN_KEY.into()));
    settings.power_states_age = std::time::Duration::ZERO;
    settings
}

pub(crate) fn provider(arm: &Arm) -> AzureProvider {
    with_settings(settings(arm))
}

pub(crate) fn with_settings(settings: AzureSettings) -> AzureProvider {
    AzureProvider::connect(settings, deployment()).expect("sound settings")
}

pub(crate) fn object(value: &Value) -> JsonObject {
    value.as_object().expect("an object").clone()
}

pub(crate) fn machine() -> Value {
    json!({ "vm_size": "Standard_D4s_v5", "image": "MicrosoftWindowsServer:WindowsServer:2022-datacenter-g2:latest",
        "subnet": SUBNET, "admin_username": "desk" })
}

pub(crate) fn with(mut value: Value, name: &str, member: Value) -> Value {
    value[name] = member;
    value
}

pub(crate) fn key(pool: u8, server: u64) -> ServerKey {
    ServerKey { pool: PoolId::from_bytes([pool; 16]), server: ServerId::new(server) }
}

/// What a server's machine is called.
pub(crate) fn name(server: &ServerKey) -> String {
    format!("kasm-{}", server.uuid())
}

pub(crate) fn spec(server: ServerKey, machine: &Value) -> ServerSpec {
    ServerSpec {
        server,
        marker: Marker { deployment: deployment(), pool: server.pool, config: ConfigId::new(3), server: server.uuid() },
        name: server.machine_name(),
        token: server.uuid(),
        machine: object(machine),
        user_data: Some(SCRIPT.into()),
    }
}
