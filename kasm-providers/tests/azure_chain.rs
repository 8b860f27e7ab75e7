//! Identities that are found in the environment. Each test runs itself again as a child process with an environment of its
//! own, in which every address leads to loopback.
#![cfg(feature = "azure")]

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use kasm_autoscale_core::ports::{ErrorKind, ProviderError, VmProvider};
use kasm_providers::azure::{AzureCredentials, AzureSettings};
use serde_json::json;

#[path = "support/arm.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod arm;
#[path = "support/azure.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod azure;
#[path = "support/stub.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod stub;
#[path = "support/swagger.rs"]
mod swagger;
#[path = "support/tls.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod tls;

use arm::{Arm, CLIENT, GROUP, REGION, SUBSCRIPTION, TENANT};
use azure::{key, settings, with_settings};
use stub::{Answer, Stub};

/// Set in the child: the stand-in's address, and its certificate.
const ENDPOINT: &str = "KASM_TEST_AZURE_ENDPOINT";
const CA: &str = "KASM_TEST_AZURE_CA";

/// Runs a test of this file in a process with nothing in its environment but `variables`.
fn child(test: &str, arm: &Arm, variables: &[(&str, &str)]) {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args(["--exact", test, "--ignored", "--nocapture"]).env_clear();
    command.env(ENDPOINT, arm.url()).env(CA, arm.ca_file()).envs(variables.iter().copied());
    let output = command.output().expect("this program runs");
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

/// In the child: one look-up with these credentials. Only tests that [`child`] has started have an endpoint.
async fn find(credentials: AzureCredentials) -> Option<Result<(), ProviderError>> {
    let url = env::var(ENDPOINT).ok()?;
    let mut settings = AzureSettings::new(SUBSCRIPTION, GROUP, REGION, credentials);
    settings.authority = Some(url.clone());
    settings.audience = Some(url.clone());
    settings.endpoint_url = Some(url);
    settings.ca_file = env::var_os(CA).map(PathBuf::from);
    Some(with_settings(settings).find(&key(1, 1)).await.map(|_| ()))
}

#[test]
fn the_identity_of_a_service_is_found() {
    let arm = Arm::start();
    arm.give_token();
    let identity = Stub::start(|_| {
        let token =
            json!({ "access_token": "token-1", "expires_on": "4102444800", "token_type": "Bearer", "resource": "r" });
        Answer::Http(200, token.to_string())
    });
    child("managed", &arm, &[("IDENTITY_ENDPOINT", &identity.url()), ("IDENTITY_HEADER", "header-1")]);
    let request = identity.last();
    assert_eq!(request.headers["x-identity-header"], "header-1");
    assert!(request.path.contains(&format!("client_id={CLIENT}")), "{}", request.path);
    assert!(arm.calls().len() > 1);
}

#[tokio::test]
#[ignore = "run by the test above in a child process"]
async fn managed() {
    if let Some(result) = find(AzureCredentials::ManagedIdentity { client_id: Some(CLIENT.into()) }).await {
        assert_eq!(result, Ok(()));
    }
}

#[test]
fn who_is_signed_in_with_the_tools_is_found() {
    let arm = Arm::start();
    arm.give_token();
    let folder = tempfile::tempdir().expect("a folder");
    let tool = folder.path().join("az");
    let token = json!({ "accessToken": "token-1", "expires_on": 4_102_444_800_u64, "tokenType": "Bearer" });
    fs::write(&tool, format!("#!/bin/sh\ncat <<'END'\n{token}\nEND\n")).expect("the folder can be written");
    fs::set_permissions(&tool, Permissions::from_mode(0o700)).expect("it is ours");
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    child("tools", &arm, &[("PATH", &path)]);
    assert!(arm.calls().len() > 1);
    // Nobody is signed in, or has the tools.
    let empty = tempfile::tempdir().expect("a folder");
    child("no_tools", &arm, &[("PATH", &empty.path().display().to_string())]);
}

#[tokio::test]
#[ignore = "run by the test above in a child process"]
async fn tools() {
    if let Some(result) = find(AzureCredentials::DeveloperTools).await {
        assert_eq!(result, Ok(()));
    }
}

#[tokio::test]
#[ignore = "run by the test above in a child process"]
async fn no_tools() {
    if let Some(result) = find(AzureCredentials::DeveloperTools).await {
        let error = result.expect_err("no credentials");
        assert_eq!((error.kind, error.code.as_str()), (ErrorKind::Denied, "NoCredentials"), "{error}");
    }
}

#[tokio::test]
async fn a_token_of_kubernetes_is_taken_from_its_file() {
    let arm = Arm::start();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    fs::write(&file, "federated-token").expect("the folder can be written");
    let mut settings = settings(&arm);
    settings.credentials = AzureCredentials::WorkloadIdentity {
        tenant: Some(TENANT.into()),
        client_id: Some(CLIENT.into()),
        token_file: Some(file),
    };
    assert_eq!(with_settings(settings).find(&key(1, 1)).await, Ok(None));
}
