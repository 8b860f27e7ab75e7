//! Specs, settings and answers that the tests of the EC2 provider share.

use kasm_autoscale_core::fields::JsonObject;
use kasm_autoscale_core::id::{ConfigId, DeploymentId, PoolId, ServerId, ServerKey};
use kasm_autoscale_core::ports::{Marker, ServerSpec};
use kasm_providers::aws::{AwsCredentials, AwsProvider, AwsSettings};
use serde_json::Value;

/// Secrets that nothing may ever show.
pub(crate) const SECRET_KEY: &str = "canarySecretAccessKey0123456789abcdefghi";
pub(crate) const SESSION_TOKEN: &str = "canarySessionToken0123456789";
pub(crate) const SCRIPT: &str = "$joinPassword = 'canary-join-9f3a'\r\nWrite-Output \"ä <>&\"\n";

pub(crate) fn deployment() -> DeploymentId {
    DeploymentId::from_bytes([7; 16])
}

/// Settings for a server on loopback, and on loopback only.
pub(crate) fn settings(url: &str) -> AwsSettings {
    assert!(url.starts_with("http://127.0.0.1:"), "{url} is not on loopback");
    let credentials = AwsCredentials::Static {
        access_key_id: "AKIATEST".into(),
        secret_access_key: SECRET_KEY.into(),
        session_token: Some(SESSION_TOKEN.into()),
    };
    let mut settings = AwsSettings::new("us-east-1", credentials);
    settings.endpoint_url = Some(url.to_owned());
    settings
}

pub(crate) async fn provider(settings: AwsSettings) -> AwsProvider {
    AwsProvider::connect(settings, deployment()).await.expect("sound settings")
}

pub(crate) fn object(value: &Value) -> JsonObject {
    value.as_object().expect("an object").clone()
}

pub(crate) fn key(pool: u8, server: u64) -> ServerKey {
    ServerKey { pool: PoolId::from_bytes([pool; 16]), server: ServerId::new(server) }
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
