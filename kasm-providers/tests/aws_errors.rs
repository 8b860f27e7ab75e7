//! Every error of EC2 that we know, as its servers send it, through the official SDK to the core's terms.
#![cfg(feature = "aws")]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use kasm_autoscale_core::ports::Certainty::{self, NotApplied, Unknown};
use kasm_autoscale_core::ports::ErrorKind::{
    self, Conflict, Denied, Invalid, NoCapacity, Protected, Quota, Throttled, Transient,
};
use kasm_autoscale_core::ports::Scope::{self, Offering, Provider, Server};
use kasm_autoscale_core::ports::{MachineRef, ProviderError, VmProvider};
use kasm_providers::aws::{AwsProvider, error_codes};
use serde_json::{Value, json};

#[path = "support/answers.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod answers;
#[path = "support/aws.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod aws;
#[path = "support/stub.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod stub;

use aws::{key, provider, settings, spec};
use stub::{Answer, Stub};

type Row = (u16, &'static str, ErrorKind, Scope, Certainty);

/// Status and code as EC2 sends them, and what the core is told about a create that gets this answer.
const ROWS: &[Row] = &[
    (500, "InsufficientInstanceCapacity", NoCapacity, Offering, NotApplied),
    (500, "InsufficientHostCapacity", NoCapacity, Offering, NotApplied),
    (500, "InsufficientReservedInstanceCapacity", NoCapacity, Offering, NotApplied),
    (500, "InsufficientCapacity", NoCapacity, Offering, NotApplied),
    (500, "InsufficientVolumeCapacity", NoCapacity, Offering, NotApplied),
    (400, "InsufficientFreeAddressesInSubnet", NoCapacity, Offering, NotApplied),
    (400, "UnfulfillableCapacity", NoCapacity, Offering, NotApplied),
    (400, "SpotMaxPriceTooLow", NoCapacity, Offering, NotApplied),
    (400, "InstanceLimitExceeded", Quota, Offering, NotApplied),
    (400, "VcpuLimitExceeded", Quota, Provider, NotApplied),
    (400, "MaxSpotInstanceCountExceeded", Quota, Provider, NotApplied),
    (400, "VolumeLimitExceeded", Quota, Provider, NotApplied),
    (400, "NetworkInterfaceLimitExceeded", Quota, Provider, NotApplied),
    (400, "AddressLimitExceeded", Quota, Provider, NotApplied),
    (400, "SnapshotLimitExceeded", Quota, Provider, NotApplied),
    (503, "RequestLimitExceeded", Throttled, Provider, NotApplied),
    (400, "Throttling", Throttled, Provider, NotApplied),
    (400, "ThrottlingException", Throttled, Provider, NotApplied),
    (503, "EC2ThrottledException", Throttled, Provider, NotApplied),
    (401, "AuthFailure", Denied, Provider, NotApplied),
    (403, "UnauthorizedOperation", Denied, Provider, NotApplied),
    (403, "Blocked", Denied, Provider, NotApplied),
    (400, "PendingVerification", Denied, Provider, NotApplied),
    (400, "InvalidClientTokenId", Denied, Provider, NotApplied),
    (403, "SignatureDoesNotMatch", Denied, Provider, NotApplied),
    (400, "MissingAuthenticationToken", Denied, Provider, NotApplied),
    (400, "IncompleteSignature", Denied, Provider, NotApplied),
    (400, "RequestExpired", Denied, Provider, NotApplied),
    (400, "ExpiredToken", Denied, Provider, NotApplied),
    (401, "OptInRequired", Denied, Offering, NotApplied),
    (400, "InvalidAMIID.NotFound", Invalid, Offering, NotApplied),
    (400, "InvalidAMIID.Unavailable", Invalid, Offering, NotApplied),
    (400, "InvalidAMIID.Malformed", Invalid, Offering, NotApplied),
    (400, "InvalidSubnetID.NotFound", Invalid, Offering, NotApplied),
    (400, "InvalidGroup.NotFound", Invalid, Offering, NotApplied),
    (400, "InvalidSecurityGroupID.NotFound", Invalid, Offering, NotApplied),
    (400, "InvalidKeyPair.NotFound", Invalid, Offering, NotApplied),
    (400, "InvalidKeyPair.Duplicate", Invalid, Offering, NotApplied),
    (400, "InvalidVolume.NotFound", Invalid, Offering, NotApplied),
    (400, "InvalidNetworkInterfaceID.NotFound", Invalid, Offering, NotApplied),
    (400, "InvalidAllocationID.NotFound", Invalid, Offering, NotApplied),
    (400, "InvalidSnapshot.NotFound", Invalid, Offering, NotApplied),
    (400, "InvalidParameterValue", Invalid, Offering, NotApplied),
    (400, "InvalidParameterCombination", Invalid, Offering, NotApplied),
    (400, "InvalidParameter", Invalid, Offering, NotApplied),
    (400, "MissingParameter", Invalid, Offering, NotApplied),
    (400, "UnsupportedOperation", Invalid, Offering, NotApplied),
    (400, "Unsupported", Invalid, Offering, NotApplied),
    (400, "InvalidBlockDeviceMapping", Invalid, Offering, NotApplied),
    (400, "InvalidUserData.Malformed", Invalid, Offering, NotApplied),
    (400, "TagPolicyViolation", Invalid, Offering, NotApplied),
    (400, "InvalidIAMInstanceProfile", Invalid, Offering, NotApplied),
    (400, "InvalidInstanceID.Malformed", Invalid, Server, NotApplied),
    (400, "IdempotentParameterMismatch", Conflict, Server, Unknown),
    (400, "IdempotentInstanceTerminated", Conflict, Server, Unknown),
    (400, "InvalidInstanceID.NotFound", Conflict, Server, NotApplied),
    (400, "IncorrectInstanceState", Conflict, Server, NotApplied),
    (400, "DependencyViolation", Conflict, Server, NotApplied),
    (400, "VolumeInUse", Conflict, Server, NotApplied),
    (400, "ResourceCountExceeded", Conflict, Server, NotApplied),
    (400, "OperationNotPermitted", Protected, Server, NotApplied),
    (500, "InternalError", Transient, Provider, Unknown),
    (500, "InternalFailure", Transient, Provider, Unknown),
    (500, "ServerInternal", Transient, Provider, Unknown),
    (503, "Unavailable", Transient, Provider, Unknown),
    (503, "ServiceUnavailable", Transient, Provider, Unknown),
];

/// Codes that nobody has told us about: by family, then by status.
const STRANGERS: &[Row] = &[
    (500, "InsufficientSomethingCapacity", NoCapacity, Offering, NotApplied),
    (503, "SlowDownThrottled", Throttled, Provider, NotApplied),
    (400, "FleetLimitExceeded", Quota, Provider, NotApplied),
    (400, "InvalidPlacement.Odd", Invalid, Offering, NotApplied),
    (400, "Odd", Invalid, Offering, NotApplied),
    (404, "NoSuchEntity", Invalid, Offering, NotApplied),
    (401, "Odd", Denied, Provider, NotApplied),
    (403, "Odd", Denied, Provider, NotApplied),
    (408, "Odd", Transient, Provider, Unknown),
    (429, "Odd", Throttled, Provider, NotApplied),
    (500, "Odd", Transient, Provider, Unknown),
    (502, "Odd", Transient, Provider, Unknown),
    (504, "Odd", Transient, Provider, Unknown),
];

fn machine() -> Value {
    json!({"ami": "ami-12345678", "instance_type": "m7i.large"})
}

async fn create(provider: &AwsProvider) -> ProviderError {
    provider.create(&spec(key(1, 1), &machine())).await.expect_err("a failure")
}

/// What a create tells after this answer, and that it was tried just once.
async fn created(answer: impl Fn() -> Answer + Send + 'static) -> ProviderError {
    let stub = Stub::start(move |_| answer());
    let error = create(&provider(settings(&stub.url())).await).await;
    assert_eq!(stub.requests().len(), 1, "{error}");
    error
}

#[tokio::test]
async fn every_code_means_what_the_table_says() {
    for (status, code, kind, scope, certainty) in ROWS.iter().chain(STRANGERS).copied() {
        let error = created(move || Answer::Http(status, answers::error(code, "Some words of EC2."))).await;
        assert_eq!((error.kind, error.scope, error.certainty), (kind, scope, certainty), "{status} {code}");
        assert_eq!((error.code.as_str(), error.message.as_str()), (code, "Some words of EC2."));
        assert_eq!((error.request_id.as_deref(), error.retry_after), (Some("req-1"), None));
    }
}

#[test]
fn every_code_that_is_known_has_its_row() {
    let rows: BTreeSet<&str> = ROWS.iter().map(|row| row.1).collect();
    assert_eq!(rows, error_codes().collect());
    assert_eq!(rows.len(), ROWS.len());
}

#[tokio::test]
async fn some_codes_are_told_apart_by_their_text() {
    let zone =
        "Your requested instance type (m7i.large) is not supported in your requested Availability Zone (us-east-1e).";
    let profile = "Value (web) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name";
    for (code, text, kind) in [("Unsupported", zone, NoCapacity), ("InvalidParameterValue", profile, Conflict)] {
        let error = created(move || Answer::Http(400, answers::error(code, text))).await;
        assert_eq!((error.kind, error.scope, error.certainty), (kind, Offering, NotApplied), "{code}");
    }
}

#[tokio::test]
async fn answers_that_are_not_ec2s_are_of_unknown_outcome() {
    let html = "<html><body>Bad gateway</body></html>";
    let rows = [
        (500, html, "HTTP 500"),
        (502, html, "HTTP 502"),
        (503, "", "HTTP 503"),
        (200, html, "UnreadableAnswer"),
        (200, "", "UnreadableAnswer"),
    ];
    for (status, body, code) in rows {
        let error = created(move || Answer::Http(status, body.to_owned())).await;
        assert_eq!((error.kind, error.certainty), (Transient, Unknown), "{status} {body} {error}");
        assert_eq!(error.code, code);
    }
    let empty = answers::launched("i-1").replace("<item><instanceId>i-1</instanceId>", "<item>");
    let error = created(move || Answer::Http(200, empty.clone())).await;
    assert_eq!((error.kind, error.certainty, error.code.as_str()), (Transient, Unknown, "NoInstance"));
}

#[tokio::test]
async fn a_wish_to_wait_is_passed_on() {
    let error =
        created(|| Answer::HttpWith(503, "retry-after: 7", answers::error("RequestLimitExceeded", "slower"))).await;
    assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn a_lost_connection_is_of_unknown_outcome() {
    let error = created(|| Answer::HangUp).await;
    assert_eq!((error.kind, error.certainty, error.code.as_str()), (Transient, Unknown, "ConnectionLost"), "{error}");
}

#[tokio::test]
async fn a_refused_connection_had_no_effect() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port").local_addr().expect("an address");
    let error = create(&provider(settings(&format!("http://{free}"))).await).await;
    assert_eq!((error.kind, error.certainty, error.code.as_str()), (Transient, NotApplied, "NotConnected"), "{error}");
}

#[tokio::test]
async fn a_failed_encryption_is_a_connection_that_was_never_made() {
    let stub = Stub::start(|_| Answer::HangUp);
    let mut settings = settings(&stub.url());
    settings.endpoint_url = Some(stub.url().replace("http://", "https://"));
    let error = create(&provider(settings).await).await;
    assert_eq!((error.kind, error.certainty, error.code.as_str()), (Transient, NotApplied, "NotConnected"), "{error}");
}

#[tokio::test]
async fn a_silent_service_is_given_up_in_time() {
    let stub = Stub::start(|_| Answer::Silence);
    let mut settings = settings(&stub.url());
    settings.call_timeout = Duration::from_millis(1200);
    settings.connect_timeout = Duration::from_secs(1);
    let provider = provider(settings).await;
    // Neither the service nor the SDK would ever end this one.
    let error = create(&provider).await;
    assert_eq!((error.kind, error.certainty, error.code.as_str()), (Transient, Unknown, "Timeout"), "{error}");
    // Looking changes nothing, whatever becomes of the answer.
    let looked = provider.find(&key(1, 1)).await.expect_err("no answer");
    assert_eq!((looked.kind, looked.certainty), (Transient, NotApplied));
    let deleted = provider.delete(&MachineRef("i-1".into())).await.expect_err("no answer");
    assert_eq!((deleted.kind, deleted.certainty), (Transient, Unknown));
    assert_eq!(stub.requests().len(), 3);
}
