//! Every error of Azure that we know, as it sends it, through the SDK's pipeline to the core's terms.
#![cfg(feature = "azure")]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use kasm_autoscale_core::ports::Certainty::{self, NotApplied, Unknown};
use kasm_autoscale_core::ports::ErrorKind::{
    self, Conflict, Denied, Invalid, NoCapacity, Protected, Quota, Throttled, Transient,
};
use kasm_autoscale_core::ports::Scope::{self, Offering, Provider, Server};
use kasm_autoscale_core::ports::{MachineRef, OpRef, ProviderError, VmProvider};
use kasm_providers::azure::{AzureCredentials, AzureProvider, error_codes};
use serde_json::json;

#[path = "support/arm.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod arm;
#[path = "support/azure.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod azure;
#[path = "support/swagger.rs"]
mod swagger;
#[path = "support/tls.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod tls;

use arm::{Arm, CLIENT, CLIENT_SECRET, FOREVER, Fault, TENANT, answer, error};
use azure::{key, machine, name, provider, settings, spec, with_settings};
use tls::Reply;

type Row = (u16, &'static str, ErrorKind, Scope, Certainty);

/// Status and code as Azure sends them, and what the core is told about a create that gets this answer.
const ROWS: &[Row] = &[
    (409, "SkuNotAvailable", NoCapacity, Offering, NotApplied),
    (409, "AllocationFailed", NoCapacity, Offering, NotApplied),
    (409, "ZonalAllocationFailed", NoCapacity, Offering, NotApplied),
    (409, "OverconstrainedAllocationRequest", NoCapacity, Offering, NotApplied),
    (409, "OverconstrainedZonalAllocationRequest", NoCapacity, Offering, NotApplied),
    (400, "SubnetIsFull", NoCapacity, Offering, NotApplied),
    (400, "InsufficientSubnetSize", NoCapacity, Offering, NotApplied),
    (409, "QuotaExceeded", Quota, Provider, NotApplied),
    (400, "PublicIPCountLimitReached", Quota, Provider, NotApplied),
    (409, "ResourceGroupQuotaExceeded", Quota, Provider, NotApplied),
    (409, "MaxStorageAccountsCountPerSubscriptionExceeded", Quota, Provider, NotApplied),
    (429, "TooManyRequests", Throttled, Provider, NotApplied),
    (429, "SubscriptionRequestsThrottled", Throttled, Provider, NotApplied),
    (401, "InvalidAuthenticationToken", Denied, Provider, NotApplied),
    (401, "ExpiredAuthenticationToken", Denied, Provider, NotApplied),
    (403, "AuthorizationFailed", Denied, Provider, NotApplied),
    (404, "SubscriptionNotFound", Denied, Provider, NotApplied),
    (400, "InvalidSubscriptionId", Denied, Provider, NotApplied),
    (409, "ReadOnlyDisabledSubscription", Denied, Provider, NotApplied),
    (403, "LinkedAuthorizationFailed", Denied, Offering, NotApplied),
    (403, "RequestDisallowedByPolicy", Denied, Offering, NotApplied),
    (404, "ResourceNotFound", Invalid, Offering, NotApplied),
    (404, "NotFound", Invalid, Offering, NotApplied),
    (404, "ParentResourceNotFound", Invalid, Offering, NotApplied),
    (404, "PlatformImageNotFound", Invalid, Offering, NotApplied),
    (404, "ImageNotFound", Invalid, Offering, NotApplied),
    (404, "GalleryImageNotFound", Invalid, Offering, NotApplied),
    (400, "InvalidParameter", Invalid, Offering, NotApplied),
    (400, "InvalidRequestContent", Invalid, Offering, NotApplied),
    (400, "BadRequest", Invalid, Offering, NotApplied),
    (400, "InvalidResourceReference", Invalid, Offering, NotApplied),
    (400, "InvalidTemplate", Invalid, Offering, NotApplied),
    (400, "VMSizeNotSupported", Invalid, Offering, NotApplied),
    (400, "MarketplacePurchaseEligibilityFailed", Invalid, Offering, NotApplied),
    (404, "ResourceGroupNotFound", Invalid, Provider, NotApplied),
    (409, "ResourceGroupBeingDeleted", Invalid, Provider, NotApplied),
    (409, "MissingSubscriptionRegistration", Invalid, Provider, NotApplied),
    (412, "PreconditionFailed", Conflict, Server, Unknown),
    (409, "ConflictingUserInput", Conflict, Server, Unknown),
    (409, "PropertyChangeNotAllowed", Conflict, Server, Unknown),
    (409, "Conflict", Conflict, Server, NotApplied),
    (409, "AnotherOperationInProgress", Conflict, Server, NotApplied),
    (409, "OperationPreempted", Conflict, Server, NotApplied),
    (429, "RetryableErrorDueToAnotherOperation", Conflict, Server, NotApplied),
    (409, "AttachDiskWhileBeingDetached", Conflict, Server, NotApplied),
    (400, "NicReservedForAnotherVm", Conflict, Server, NotApplied),
    (400, "NicInUse", Conflict, Server, NotApplied),
    (400, "InUseSubnetCannotBeDeleted", Conflict, Server, NotApplied),
    (400, "PublicIPAddressCannotBeDeleted", Conflict, Server, NotApplied),
    (409, "OperationNotAllowed", Conflict, Server, NotApplied),
    (409, "ScopeLocked", Protected, Server, NotApplied),
    (500, "InternalServerError", Transient, Provider, Unknown),
    (500, "InternalExecutionError", Transient, Provider, Unknown),
    (500, "InternalOperationError", Transient, Provider, Unknown),
    (500, "NetworkingInternalOperationError", Transient, Provider, Unknown),
    (503, "ServerTimeout", Transient, Provider, Unknown),
    (503, "ServiceUnavailable", Transient, Provider, Unknown),
    (504, "GatewayTimeout", Transient, Provider, Unknown),
    (500, "VMStartTimedOut", Transient, Provider, Unknown),
    (409, "OSProvisioningTimedOut", Invalid, Server, NotApplied),
    (409, "OSProvisioningClientError", Invalid, Server, NotApplied),
    (409, "VMExtensionProvisioningError", Invalid, Server, NotApplied),
    (409, "VMExtensionHandlerNonTransientError", Invalid, Server, NotApplied),
    (409, "VMAgentStatusCommunicationError", Invalid, Server, NotApplied),
];

/// Codes that nobody has told us about: by family, then by status.
const STRANGERS: &[Row] = &[
    (409, "RegionalAllocationFailed", NoCapacity, Offering, NotApplied),
    (429, "RequestsThrottledBySomething", Throttled, Provider, NotApplied),
    (409, "StandardDSv9QuotaExceeded", Quota, Provider, NotApplied),
    (400, "LoadBalancerCountLimitReached", Quota, Provider, NotApplied),
    (400, "InvalidOdd", Invalid, Offering, NotApplied),
    (409, "VMExtensionOdd", Invalid, Server, NotApplied),
    (409, "OSProvisioningOdd", Invalid, Server, NotApplied),
    (400, "Odd", Invalid, Offering, NotApplied),
    (401, "Odd", Denied, Provider, NotApplied),
    (403, "Odd", Denied, Provider, NotApplied),
    (408, "Odd", Transient, Provider, Unknown),
    (409, "Odd", Conflict, Server, NotApplied),
    (412, "Odd", Conflict, Server, Unknown),
    (423, "Odd", Protected, Server, NotApplied),
    (429, "Odd", Throttled, Provider, NotApplied),
    (500, "Odd", Transient, Provider, Unknown),
    (502, "Odd", Transient, Provider, Unknown),
];

const VM: &str = "Microsoft.Compute/virtualMachines/";

async fn create(provider: &AzureProvider) -> ProviderError {
    provider.create(&spec(key(1, 1), &machine())).await.expect_err("a failure")
}

#[tokio::test]
async fn every_code_means_what_the_table_says() {
    let arm = Arm::start();
    let settings = settings(&arm);
    // There is a machine of this name that is not ours by its mark, so that a look at it settles nothing.
    arm.add_machine(&name(&key(1, 1)), json!({}));
    for (status, code, kind, scope, certainty) in ROWS.iter().chain(STRANGERS).copied() {
        // A provider of its own, since what throttles one call holds the next one back.
        let provider = with_settings(settings.clone());
        arm.next("PUT", VM, Fault::Answer(error(status, code, "Some words of Azure.")));
        if status == 401 {
            // A token that is refused is fetched anew once.
            arm.next("PUT", VM, Fault::Answer(error(status, code, "Some words of Azure.")));
        }
        let before = arm.calls().len();
        let error = create(&provider).await;
        assert_eq!((error.kind, error.scope, error.certainty), (kind, scope, certainty), "{status} {code}");
        assert_eq!((error.code.as_str(), error.message.as_str()), (code, "Some words of Azure."));
        assert_eq!(error.request_id.as_deref(), Some("req-1"));
        let wait = (code == "NicReservedForAnotherVm").then_some(Duration::from_secs(180));
        assert_eq!(error.retry_after, wait, "{code}");
        let puts = arm.calls()[before..].iter().filter(|call| call.starts_with("PUT")).count();
        assert!(puts == 1 || (status == 401 && code.contains("AuthenticationToken") && puts == 2), "{code}: {puts}");
        arm.forget_rules();
    }
}

#[test]
fn every_code_that_is_known_has_its_row() {
    let rows: BTreeSet<&str> = ROWS.iter().map(|row| row.1).collect();
    assert_eq!(rows, error_codes().collect());
    assert_eq!(rows.len(), ROWS.len());
}

/// The same codes when they come from an operation that was accepted before: with HTTP 200, and nothing in doubt.
#[tokio::test]
async fn operations_fail_by_the_same_table() {
    let arm = Arm::start();
    let provider = provider(&arm);
    let op =
        OpRef(format!("create {} {}/subscriptions/s/operations/1?api-version=2024-03-01", name(&key(1, 1)), arm.url()));
    for (_, code, kind, scope, _) in ROWS.iter().copied() {
        let body = json!({ "status": "Failed", "error": { "code": code, "message": "Some words of Azure." } });
        arm.next("GET", "/operations/1", Fault::Answer(answer(200, &body)));
        let error = provider.poll(&op).await.expect_err("a failure");
        assert_eq!((error.kind, error.scope, error.certainty), (kind, scope, NotApplied), "{code}");
        assert_eq!((error.code.as_str(), error.message.as_str()), (code, "Some words of Azure."));
    }
    arm.next("GET", "/operations/1", Fault::Answer(answer(200, &json!({ "status": "Canceled" }))));
    let error = provider.poll(&op).await.expect_err("a failure");
    assert_eq!((error.kind, error.code.as_str()), (Conflict, "Canceled"));
}

/// As recorded from Azure by those who met them, subscription and numbers changed.
#[tokio::test]
async fn limits_are_told_by_words_and_details() {
    let family = "Operation could not be completed as it results in exceeding approved standardDSv5Family Cores quota. Additional details - \
                  Deployment Model: Resource Manager, Location: westeurope, Current Limit: 10, Current Usage: 8, Additional Required: 4, \
                  (Minimum) New Limit Required: 12. Submit a request for Quota increase at https://aka.ms/ProdportalCRP.";
    let regional = family.replace("standardDSv5Family Cores quota", "Total Regional Cores quota");
    let spot = family.replace("standardDSv5Family Cores quota", "LowPriorityCores quota");
    let plain = |message: &str| json!({ "error": { "code": "OperationNotAllowed", "message": message } });
    let detailed = json!({ "error": { "code": "Conflict", "message": "See the details.", "details": [
        { "code": "OperationNotAllowed", "message": family }] } });
    let nested = json!({ "error": { "code": "BadRequest", "message": json!({ "error": { "code": "AllocationFailed", "message": "no room" } }).to_string() } });
    let rows = [
        (409, plain(family), Quota, Offering, "OperationNotAllowed"),
        (409, plain(&regional), Quota, Provider, "OperationNotAllowed"),
        (409, plain(&spot), Quota, Offering, "OperationNotAllowed"),
        (409, detailed, Quota, Offering, "OperationNotAllowed"),
        (400, nested, NoCapacity, Offering, "AllocationFailed"),
        (
            429,
            plain("The server rejected the request because too many requests have been received."),
            Throttled,
            Provider,
            "OperationNotAllowed",
        ),
        (409, plain("Disk is attached to VM"), Conflict, Server, "OperationNotAllowed"),
    ];
    let arm = Arm::start();
    for (status, body, kind, scope, code) in rows {
        arm.next("PUT", VM, Fault::Answer(answer(status, &body)));
        let error = create(&provider(&arm)).await;
        assert_eq!(
            (error.kind, error.scope, error.certainty, error.code.as_str()),
            (kind, scope, NotApplied, code),
            "{body}"
        );
    }
}

#[tokio::test]
async fn answers_that_are_not_azures_are_of_unknown_outcome() {
    let arm = Arm::start();
    let rows = [
        (500, "<html>", "HTTP 500"),
        (502, "", "HTTP 502"),
        (200, "<html>", "UnreadableAnswer"),
        (201, "", "UnreadableAnswer"),
    ];
    for (status, body, code) in rows {
        let reply = Reply::Http { status, headers: Vec::new(), body: body.to_owned() };
        arm.next("PUT", VM, Fault::Answer(reply));
        let error = create(&provider(&arm)).await;
        assert_eq!((error.kind, error.certainty, error.code.as_str()), (Transient, Unknown, code), "{error}");
    }
}

#[tokio::test]
async fn a_wish_to_wait_is_kept_to_by_everybody() {
    let arm = Arm::start();
    let provider = provider(&arm);
    let headers = vec![("Retry-After".to_owned(), "7".to_owned())];
    let body = json!({ "error": { "code": "TooManyRequests", "message": "slower" } }).to_string();
    arm.next("PUT", VM, Fault::Answer(Reply::Http { status: 429, headers, body }));
    let error = create(&provider).await;
    assert_eq!((error.kind, error.retry_after), (Throttled, Some(Duration::from_secs(7))));
    // The next one would only be refused, so it is not sent. Other kinds of calls go on.
    let sent = arm.calls().len();
    let held = provider.create(&spec(key(1, 2), &machine())).await.expect_err("held back");
    assert_eq!((held.kind, held.certainty, held.code.as_str()), (Throttled, NotApplied, "HeldBack"));
    assert!(held.retry_after.is_some_and(|wait| wait <= Duration::from_secs(7) && !wait.is_zero()), "{held:?}");
    assert_eq!(arm.calls().len(), sent);
    provider.find(&key(1, 1)).await.expect("reads go on");
}

#[tokio::test]
async fn few_calls_left_hold_the_next_one_back() {
    for (header, value, seconds) in [
        ("x-ms-ratelimit-remaining-subscription-reads", "2", 1),
        (
            "x-ms-ratelimit-remaining-resource",
            "Microsoft.Compute/HighCostGet3Min;0,Microsoft.Compute/HighCostGet30Min;600",
            10,
        ),
    ] {
        let arm = Arm::start();
        let provider = provider(&arm);
        let headers = vec![(header.to_owned(), value.to_owned())];
        let body = json!({ "error": { "code": "ResourceNotFound", "message": "none" } }).to_string();
        arm.next("GET", VM, Fault::Answer(Reply::Http { status: 404, headers, body }));
        let held = provider.find(&key(1, 1)).await.expect_err("the look for leftovers is held back");
        assert_eq!((held.kind, held.code.as_str()), (Throttled, "HeldBack"));
        assert!(held.retry_after.is_some_and(|wait| wait <= Duration::from_secs(seconds)), "{held:?}");
    }
}

#[tokio::test]
async fn lost_connections_are_of_unknown_outcome_and_refused_ones_had_none() {
    let arm = Arm::start();
    arm.next("PUT", VM, Fault::LostBefore);
    let error = create(&provider(&arm)).await;
    assert_eq!((error.kind, error.certainty, error.code.as_str()), (Transient, Unknown, "ConnectionLost"), "{error}");
    // The token has an address of its own, so only Azure Resource Manager is not there.
    let mut settings = settings(&arm);
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port").local_addr().expect("an address");
    settings.endpoint_url = Some(format!("https://{free}"));
    let error = create(&with_settings(settings)).await;
    assert_eq!((error.kind, error.certainty, error.code.as_str()), (Transient, NotApplied, "NotConnected"), "{error}");
}

#[tokio::test]
async fn a_certificate_of_nobody_is_a_connection_that_was_never_made() {
    let (arm, other) = (Arm::start(), Arm::start());
    let mut settings = settings(&arm);
    settings.ca_file = Some(other.ca_file());
    let error = create(&with_settings(settings)).await;
    assert_eq!((error.kind, error.certainty, error.code.as_str()), (Transient, NotApplied, "NoToken"), "{error}");
    assert!(arm.calls().is_empty());
}

#[tokio::test]
async fn a_silent_service_is_given_up_in_time() {
    let arm = Arm::start();
    let mut settings = settings(&arm);
    settings.connect_timeout = Duration::from_millis(900);
    settings.request_timeout = Duration::from_secs(1);
    let provider = with_settings(settings);
    for method in ["PUT", "GET", "DELETE"] {
        arm.next(method, VM, Fault::Answer(Reply::Silence(FOREVER)));
    }
    let error = create(&provider).await;
    assert_eq!((error.kind, error.certainty, error.code.as_str()), (Transient, Unknown, "Timeout"), "{error}");
    // Looking changes nothing, whatever becomes of the answer.
    let looked = provider.find(&key(1, 1)).await.expect_err("no answer");
    assert_eq!((looked.kind, looked.certainty), (Transient, NotApplied));
    let deleted = provider.delete(&MachineRef(name(&key(1, 1)))).await.expect_err("no answer");
    assert_eq!((deleted.kind, deleted.certainty), (Transient, Unknown));
}

#[tokio::test]
async fn without_a_token_nothing_is_asked() {
    let arm = Arm::start();
    let secret = |tenant: &str, client: &str, secret: &str| AzureCredentials::ClientSecret {
        tenant: tenant.into(),
        client_id: client.into(),
        client_secret: secret.into(),
    };
    let other = "99999999-2222-3333-4444-555555555555";
    let rows = [
        (secret(TENANT, CLIENT, "wrong"), "AADSTS7000215"),
        (secret(TENANT, other, CLIENT_SECRET), "AADSTS700016"),
        (secret(other, CLIENT, CLIENT_SECRET), "AADSTS90002"),
    ];
    for (credentials, code) in rows {
        let mut settings = settings(&arm);
        settings.credentials = credentials;
        let error = create(&with_settings(settings)).await;
        assert_eq!((error.kind, error.certainty, error.code.as_str()), (Denied, NotApplied, code), "{error}");
    }
    for (status, kind) in [(429, Throttled), (503, Transient)] {
        let told = json!({ "error": "temporarily_unavailable", "error_description": "later", "error_codes": [90033] });
        arm.next("POST", "/token", Fault::Answer(answer(status, &told)));
        let error = create(&provider(&arm)).await;
        assert_eq!((error.kind, error.certainty, error.code.as_str()), (kind, NotApplied, "AADSTS90033"), "{error}");
    }
    assert!(arm.calls().is_empty());
}

#[tokio::test]
async fn a_token_that_has_expired_is_fetched_anew_once() {
    let arm = Arm::start();
    let provider = provider(&arm);
    assert_eq!(provider.find(&key(1, 1)).await, Ok(None));
    arm.state().expired_tokens = 1;
    assert_eq!(provider.find(&key(1, 1)).await, Ok(None));
    let tokens = arm.state().requests.iter().filter(|request| request.path.ends_with("/token")).count();
    assert_eq!(tokens, 2);
}
