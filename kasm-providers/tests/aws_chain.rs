//! The SDK's chain of credentials. Each test runs itself again as a child process, since the chain reads the environment,
//! in which everything that could lead off loopback is switched off.
#![cfg(feature = "aws")]

use std::env;
use std::process::Command;

use kasm_autoscale_core::ports::{Certainty, ErrorKind, ProviderError, VmProvider};
use kasm_providers::aws::{AwsCredentials, AwsSettings};

#[path = "support/answers.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod answers;
#[path = "support/aws.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod aws;
#[path = "support/signature.rs"]
mod signature;
#[path = "support/stub.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod stub;

use aws::{key, provider};
use stub::{Answer, Stub};

/// Set in the child, to the endpoint of EC2.
const CHILD: &str = "KASM_TEST_CHAIN_ENDPOINT";

/// Runs a test of this file in a process with nothing of AWS in its environment but `variables`.
fn child(test: &str, endpoint: &str, variables: &[(&str, &str)]) {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args(["--exact", test, "--ignored", "--nocapture"]).env_clear().env(CHILD, endpoint);
    command.env("AWS_CONFIG_FILE", "/nonexistent").env("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent");
    command.envs(variables.iter().copied());
    let output = command.output().expect("this program runs");
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

/// In the child: one list by the chain. Only tests that [`child`] has started have an endpoint.
async fn list() -> Option<Result<(), ProviderError>> {
    let mut settings = AwsSettings::new("us-east-1", AwsCredentials::Chain);
    settings.endpoint_url = Some(env::var(CHILD).ok()?);
    Some(provider(settings).await.list(&key(1, 1).pool).await.map(|_| ()))
}

fn empty_ec2() -> Stub {
    Stub::start(|_| Answer::Http(200, answers::described(&[], None)))
}

#[test]
fn keys_in_the_environment_are_found_and_foreign_endpoints_there_are_not() {
    let (ec2, foreign) = (empty_ec2(), empty_ec2());
    let variables = [
        ("AWS_ACCESS_KEY_ID", "AKIAENV"),
        ("AWS_SECRET_ACCESS_KEY", "environment-secret"),
        ("AWS_ENDPOINT_URL", &foreign.url()),
        ("AWS_ENDPOINT_URL_EC2", &foreign.url()),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    child("answered", &ec2.url(), &variables);
    assert!(signature::is_signed(&ec2.last(), "environment-secret"));
    assert!(foreign.requests().is_empty());
}

#[test]
fn an_instances_own_role_is_found() {
    let metadata = Stub::start(|request| match (request.method.as_str(), request.path.as_str()) {
        ("PUT", "/latest/api/token") => {
            Answer::HttpWith(200, "x-aws-ec2-metadata-token-ttl-seconds: 21600", "token".to_owned())
        }
        ("GET", path)
            if path.ends_with("/security-credentials/") || path.ends_with("/security-credentials-extended/") =>
        {
            Answer::Http(200, "daemon-role".to_owned())
        }
        ("GET", path) if path.ends_with("/daemon-role") => {
            let keys = r#"{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"ASIAROLE","SecretAccessKey":"role-secret","Token":"role-token","Expiration":"2999-01-01T00:00:00Z","LastUpdated":"2026-01-01T00:00:00Z","AccountId":"123456789012"}"#;
            Answer::Http(200, keys.to_owned())
        }
        (method, path) => panic!("nobody needs {method} {path}"),
    });
    let ec2 = empty_ec2();
    child("answered", &ec2.url(), &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.url())]);
    let request = ec2.last();
    assert!(signature::is_signed(&request, "role-secret"));
    assert_eq!(request.headers["x-amz-security-token"], "role-token");
}

#[test]
fn no_credentials_anywhere_is_an_error_of_its_own() {
    let ec2 = empty_ec2();
    child("denied", &ec2.url(), &[("AWS_EC2_METADATA_DISABLED", "true")]);
    assert!(ec2.requests().is_empty());
}

#[tokio::test]
#[ignore = "run by the tests above in a child process"]
async fn answered() {
    if let Some(result) = list().await {
        assert_eq!(result, Ok(()));
    }
}

#[tokio::test]
#[ignore = "run by the tests above in a child process"]
async fn denied() {
    if let Some(result) = list().await {
        let error = result.expect_err("no credentials");
        let told = (error.kind, error.certainty, error.code.as_str());
        assert_eq!(told, (ErrorKind::Denied, Certainty::NotApplied, "NoCredentials"), "{error}");
    }
}

/// With keys in the settings, not even the environment is read: neither its keys nor its metadata address.
#[tokio::test]
#[ignore = "run by the test below in a child process"]
async fn by_settings() {
    if let Ok(endpoint) = env::var(CHILD) {
        provider(aws::settings(&endpoint)).await.list(&key(1, 1).pool).await.expect("an answer");
    }
}

#[test]
fn keys_in_the_settings_keep_everybody_else_out() {
    let (ec2, metadata) = (empty_ec2(), Stub::start(|_| Answer::Http(500, String::new())));
    let variables = [
        ("AWS_ACCESS_KEY_ID", "AKIAENV"),
        ("AWS_SECRET_ACCESS_KEY", "environment-secret"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.url()),
    ];
    child("by_settings", &ec2.url(), &variables);
    assert!(signature::is_signed(&ec2.last(), aws::SECRET_KEY));
    assert!(metadata.requests().is_empty());
}
