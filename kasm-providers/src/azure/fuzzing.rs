//! What the fuzz targets reach of this module's inside: no part of the API.

use std::time::Duration;

use azure_core::http::headers::{HeaderName, HeaderValue, Headers};
use azure_core::http::{RawResponse, StatusCode, Url};
use kasm_autoscale_core::id::{PoolId, ServerId, ServerKey};
use kasm_autoscale_core::ports::{Certainty, ErrorKind, Machine, OpRef, ProviderError, Scope};
use serde_json::Value;

use super::arm::Answer;
use super::errors::classify;
use super::failure::{Effect, answered, failed_operation};
use super::machines::{Part, hosts, lacks_extension, machine, power, primary_nic};
use super::names::{PartKind, VmName};
use super::operation::{Operation, Purpose, status};

/// Azure Resource Manager of the public cloud.
pub const ARM: &str = "https://management.azure.com";

/// All that is made of an answer, whatever it is an answer to.
#[derive(Debug)]
pub struct Read {
    /// Read as a call that has failed.
    pub error: ProviderError,
    /// Read as an operation that has failed.
    pub failed: ProviderError,
    /// What `Retry-After` says.
    pub retry_after: Option<Duration>,
    /// The operation that it has begun, as a row keeps it, and as it is read from there.
    pub operation: Option<(OpRef, Option<OpRef>)>,
    /// Read as a virtual machine.
    pub machine: Machine,
}

fn vm() -> VmName {
    VmName::of(&ServerKey { pool: PoolId::from_bytes([1; 16]), server: ServerId::new(1) })
}

/// Reads an answer in every way. `None`: the address of Azure Resource Manager does not parse, which it does.
pub fn read(code: u16, headers: &[(&'static str, &str)], body: &[u8], hidden: &[&str]) -> Option<Read> {
    let arm = Url::parse(ARM).ok()?;
    let mut all = Headers::new();
    for (name, value) in headers {
        all.insert(HeaderName::from_static(name), HeaderValue::from((*value).to_owned()));
    }
    let answer = Answer::of(&RawResponse::from_bytes(StatusCode::from(code), all, body.to_vec()));
    let operation = Operation::begun(&answer, Purpose::Create, &vm(), &arm).map(|begun| {
        let reference = begun.reference();
        let again = Operation::read(&reference, &arm).map(|operation| operation.reference());
        (reference, again)
    });
    // Whatever the parts of a list look like, reading them is safe.
    let items = answer.body.get("value").and_then(Value::as_array).cloned().unwrap_or_default();
    for kind in [PartKind::Nic, PartKind::PublicIp, PartKind::Disk] {
        items.iter().for_each(|item| _ = Part::of(kind, item));
    }
    drop((hosts(&items, None), hosts(&items, Some(&items))));
    _ = (lacks_extension(&answer.body), primary_nic(&answer.body), status(&answer));
    Some(Read {
        error: answered(&answer, Effect::Changes, hidden),
        failed: failed_operation(&answer, hidden),
        retry_after: answer.retry_after,
        operation,
        machine: machine(&vm(), &answer.body, power(&answer.body), None),
    })
}

/// What an answer with this code, status and message means.
pub fn error(code: Option<&str>, status: Option<u16>, message: &str) -> (ErrorKind, Scope, Certainty) {
    let class = classify(code, status, message);
    (class.kind, class.scope, class.certainty)
}

/// The name of a machine of ours that this text is.
pub fn vm_name(text: &str) -> Option<String> {
    VmName::read(text).map(|name| name.to_string())
}
