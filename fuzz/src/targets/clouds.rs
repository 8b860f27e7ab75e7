//! What clouds answer: bodies, errors, headers.

use kasm_autoscale_core::ports::{Certainty, ErrorKind, MachineState, ProviderError, Scope};
use kasm_providers::azure::fuzzing::{ARM, error, read, vm_name};
use kasm_providers::fuzzing::{ec2_codes, ec2_error, ec2_reason};
use serde_json::json;

use crate::generator::Shape;
use crate::{SEPARATOR, Target, Verdict, joined, texts};

/// What must never be seen again in an error.
const SECRET: &str = "canary pass'word 7f3a";

/// Answers of Azure: a status, headers and a body, read as a failure, an operation and a machine.
///
/// Errors are short, readable and hold no secret. Only an answer that shows it means that nothing was done. An operation's address
/// is Azure's own, and comes back from the row. A machine is said to run only when it says so.
pub const AZURE: Target = Target {
    name: "azure",
    shape: Shape::Bytes,
    examples: azure_examples,
    words: &[
        "Succeeded",
        "Failed",
        "Canceled",
        "Creating",
        "Deleting",
        "Updating",
        "PowerState/running",
        "PowerState/deallocated",
        "ProvisioningState/failed/",
        "AllocationFailed",
        "OperationNotAllowed",
        "quota",
        "Conflict",
        "code",
        "message",
        "details",
        "error",
        "value",
        "tags",
        "properties",
        "instanceView",
        "statuses",
        "https://management.azure.com/x",
        "https://evil.example/",
        "https://u:p@management.azure.com/",
        "120",
        "-5",
        "Fri, 31 Dec 1999 23:59:59 GMT",
        "{\"error\":{\"code\":\"QuotaExceeded\"}}",
        "null",
        "[]",
        "{}",
        SECRET,
        "canary\npass'word 7f3a",
        "\\u0000",
        "nextLink",
        "429",
        "500",
        "409",
        "202",
    ],
    check: check_azure,
    inputs: 250_000,
};

fn azure_examples() -> Vec<Vec<u8>> {
    let vm = json!({
        "id": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/kasm-1", "name": "kasm-1",
        "tags": { "kasm-autoscale-deployment": "01010101-0101-0101-0101-010101010101", "kasm-autoscale-config": "cfg-1" },
        "properties": { "provisioningState": "Succeeded", "networkProfile": { "networkInterfaces": [{ "id": "/a/nic" }] },
            "instanceView": { "statuses": [{ "code": "ProvisioningState/succeeded" }, { "code": "PowerState/running" }],
                "vmAgent": { "statuses": [{ "displayStatus": "Ready" }] } } },
    });
    let failed = json!({
        "properties": { "provisioningState": "Failed", "instanceView": { "statuses": [
            { "code": "ProvisioningState/failed/AllocationFailed", "message": format!("no room, {SECRET}") },
            { "code": "PowerState/running" }] } },
    });
    let error = json!({ "error": { "code": "OperationNotAllowed", "message": format!("quota {SECRET}"), "details": [
        { "code": "QuotaExceeded", "message": "{\"error\":{\"code\":\"SkuNotAvailable\",\"message\":\"inner\"}}" }] } });
    let list = json!({ "value": [
        { "id": "/x/kasm-00000000-0000-0000-0000-000000000001-cfg-3-nic", "name": "kasm-00000000-0000-0000-0000-000000000001-cfg-3-nic",
          "managedBy": "/vm/1", "properties": { "virtualMachine": { "id": "/VM/1" }, "primary": true, "ipAddress": "192.0.2.1",
            "ipConfigurations": [{ "properties": { "primary": true, "privateIPAddress": "10.0.0.4", "publicIPAddress": { "id": "/ip" } } }] } }],
        "nextLink": "https://management.azure.com/next" });
    let operation = json!({ "status": "Failed", "error": { "code": "VMStartTimedOut", "message": "late" } });
    let bodies = [vm, failed, error, list, operation].map(|body| body.to_string());
    let mut all = vec![];
    for (status, retry) in
        [("200", ""), ("202", "17"), ("409", "0"), ("429", "99999999999"), ("500", "soon"), ("404", "")]
    {
        for body in &bodies {
            let address =
                format!("{ARM}/subscriptions/s/providers/Microsoft.Compute/locations/w/operations/1?api-version=2");
            all.push(joined(&[status, retry, &address, body]));
        }
    }
    all
}

fn check_azure(input: &[u8]) -> Verdict {
    let mut parts = input.splitn(4, |byte| *byte == SEPARATOR);
    let [status, retry, address] =
        std::array::from_fn(|_| String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned());
    let body = parts.next().unwrap_or_default();
    let status: u16 = status.parse().ok().filter(|status| (100..=999).contains(status)).unwrap_or(500);
    let headers = [
        ("retry-after", retry.as_str()),
        ("azure-asyncoperation", address.as_str()),
        ("x-ms-request-id", retry.as_str()),
    ];
    let answer = read(status, &headers, body, &[SECRET]).expect("Azure has an address");

    let seconds = retry.trim().parse::<u64>().ok().map(std::time::Duration::from_secs);
    assert_eq!(answer.retry_after, seconds, "Retry-After: {retry}");
    expect_readable(&answer.error);
    expect_readable(&answer.failed);
    assert_eq!(answer.failed.certainty, Certainty::NotApplied, "an operation that has failed is over");
    if let Some((reference, again)) = &answer.operation {
        assert_eq!(again.as_ref(), Some(reference), "an operation is not found again");
        let url = reference.0.rsplit(' ').next().unwrap_or_default();
        assert!(url.starts_with(&format!("{ARM}/")), "a token would be sent to {url}");
    }
    let machine = &answer.machine;
    if let Some(fault) = &machine.fault {
        assert_eq!(machine.state, MachineState::Failed);
        expect_clean(fault);
    }
    let has = |word: &str| body.windows(word.len()).any(|window| window == word.as_bytes());
    let is_plain = !body.contains(&b'\\');
    if is_plain && machine.state == MachineState::Running {
        assert!(
            ["Succeeded", "Updating", "Migrating", "Failed", "Canceled"].iter().any(|word| has(word)),
            "a machine that runs unsaid"
        );
    }
    if is_plain && machine.state == MachineState::Deleting {
        assert!(has("Deleting"), "a machine that goes unsaid");
    }
    assert!(vm_name(machine.reference.0.as_str()).is_some());
    if serde_json::from_slice::<serde_json::Value>(body).is_ok() { Verdict::Taken } else { Verdict::Refused }
}

/// An error that may be logged and shown.
fn expect_readable(error: &ProviderError) {
    expect_clean(error);
    for text in [&error.code, &error.message] {
        assert!(!text.contains(SECRET), "a secret in {text:?}");
    }
}

/// The same where nobody knows the secrets of what is looked at: a machine's own words.
fn expect_clean(error: &ProviderError) {
    for text in [&error.code, &error.message] {
        assert!(!text.chars().any(char::is_control), "{text:?}");
        assert!(text.chars().count() <= 500, "{} characters", text.chars().count());
    }
    assert!(error.request_id.as_ref().is_none_or(|id| id.len() <= 100));
    is_sensible(error.kind, error.scope, error.certainty);
}

/// Errors by code, status and message, of Azure and of EC2: a code with a meaning has it whatever the status, and without one only
/// a status in the 400s says that nothing was done.
pub const ERRORS: Target = Target {
    name: "errors",
    shape: Shape::Bytes,
    examples: || {
        let mut all = vec![];
        let codes = kasm_providers::azure::error_codes().chain(ec2_codes());
        for (index, code) in codes.enumerate() {
            let status = ["400", "403", "409", "412", "429", "500", "503", ""][index % 8];
            let message = ["", "Total Regional", "quota", "Availability Zone", "attached"][index % 5];
            all.push(joined(&[status, code, message]));
            all.push(joined(&[status, &format!("Server.{code}"), message]));
        }
        all.extend(
            ["400", "500", "408", "200", "", "499", "302"].map(|status| joined(&[status, "NeverHeardOf", "words"])),
        );
        all
    },
    words: &[
        "Server.",
        "Client.",
        "Throttl",
        "QuotaExceeded",
        "LimitExceeded",
        "Insufficient",
        "Invalid",
        "AllocationFailed",
        "OperationNotAllowed",
        "Unsupported",
        "Availability Zone",
        "quota",
        "400",
        "404",
        "408",
        "409",
        "412",
        "423",
        "429",
        "500",
        "503",
        "VMExtension",
        "Internal",
    ],
    check: |input| {
        let [status, code, message] = texts::<3>(input);
        let status: Option<u16> = status.parse().ok();
        let code = Some(code.as_str()).filter(|code| !code.is_empty());
        let refused = status.is_some_and(|status| (400..500).contains(&status) && status != 408);
        let mut is_known = false;
        for (kind, scope, certainty) in [error(code, status, &message), ec2_error(code, status, &message)] {
            is_sensible(kind, scope, certainty);
            // Whether a code means something is seen by what it means without any status.
            is_known |= kind != ErrorKind::Transient;
        }
        for classify in [error, ec2_error] {
            let (plain, here) = (classify(code, None, &message), classify(code, status, &message));
            let has_meaning = code.is_some() && (plain.0 != ErrorKind::Transient || plain != classify(None, None, ""));
            let is_throttle = (status, code) == (Some(429), Some("OperationNotAllowed"));
            if has_meaning && !is_throttle {
                assert_eq!(plain, here, "{code:?} means another thing with status {status:?}");
            } else if here.2 == Certainty::NotApplied && !has_meaning {
                assert!(refused, "nothing shows that {code:?} with {status:?} did nothing");
            }
        }
        if let Some((kind, scope, certainty)) = code.and_then(|code| ec2_reason(code, &message)) {
            is_sensible(kind, scope, certainty);
            assert_eq!(certainty, Certainty::NotApplied, "a machine is there or gone");
        }
        if is_known { Verdict::Taken } else { Verdict::Refused }
    },
    inputs: 500_000,
};

/// Combinations that would make the core do harm or nothing at all.
fn is_sensible(kind: ErrorKind, scope: Scope, certainty: Certainty) {
    // A refusal at the door is one; if it were in doubt, every throttled create would be looked up for an hour.
    let at_the_door =
        matches!(kind, ErrorKind::Throttled | ErrorKind::Denied | ErrorKind::NoCapacity | ErrorKind::Quota);
    assert!(!at_the_door || certainty == Certainty::NotApplied, "{kind:?} {scope:?} {certainty:?}");
    // What is one server's own trouble must not stop all others, and what is everybody's must.
    assert!(kind != ErrorKind::Throttled || scope == Scope::Provider, "{kind:?} {scope:?}");
    assert!(kind != ErrorKind::NoCapacity || scope == Scope::Offering, "{kind:?} {scope:?}");
}
