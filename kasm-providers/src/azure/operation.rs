//! Long-running operations: an address that is part of the server's row, and what it answers.
//!
//! Source: Azure Resource Manager, "Track asynchronous Azure operations".

use azure_core::http::Url;
use kasm_autoscale_core::ports::OpRef;
use serde_json::Value;

use super::arm::Answer;
use super::names::VmName;

/// What an operation is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    Create,
    Delete,
}

/// An operation as a row keeps it: `create kasm-UUID https://...`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Operation {
    pub(super) purpose: Purpose,
    pub(super) vm: VmName,
    pub(super) url: Url,
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Status {
    Running,
    Succeeded,
    /// Failed or cancelled; the answer says why.
    Failed,
}

impl Operation {
    /// The operation that an answer has begun; `None` if it names none, or one that is not Azure Resource Manager's: a token
    /// is sent with every question.
    pub(super) fn begun(answer: &Answer, purpose: Purpose, vm: &VmName, arm: &Url) -> Option<Self> {
        let address = answer.operation.as_deref().or(answer.location.as_deref())?;
        let url = trusted(address, arm)?;
        Some(Self { purpose, vm: vm.clone(), url })
    }

    /// Reads what [`reference`](Self::reference) wrote.
    pub(super) fn read(op: &OpRef, arm: &Url) -> Option<Self> {
        let mut words = op.0.split(' ');
        let purpose = match words.next()? {
            "create" => Purpose::Create,
            "delete" => Purpose::Delete,
            _ => return None,
        };
        let (vm, url) = (VmName::read(words.next()?)?, trusted(words.next()?, arm)?);
        words.next().is_none().then_some(Self { purpose, vm, url })
    }

    /// The text for the row.
    pub(super) fn reference(&self) -> OpRef {
        let purpose = match self.purpose {
            Purpose::Create => "create",
            Purpose::Delete => "delete",
        };
        OpRef(format!("{purpose} {} {}", self.vm, self.url))
    }
}

/// An address that Azure gave us, if it is at Azure Resource Manager.
pub(super) fn trusted(address: &str, arm: &Url) -> Option<Url> {
    let url = Url::parse(address).ok()?;
    let same = url.scheme() == arm.scheme()
        && url.host_str() == arm.host_str()
        && url.port_or_known_default() == arm.port_or_known_default();
    (same && url.username().is_empty() && url.password().is_none()).then_some(url)
}

/// How far an operation is by its answer. Only three words end it; every other one is a step on the way.
pub(super) fn status(answer: &Answer) -> Status {
    match answer.body.get("status").and_then(Value::as_str) {
        Some("Succeeded") => Status::Succeeded,
        Some("Failed" | "Canceled") => Status::Failed,
        Some(_) => Status::Running,
        // The address in `Location` answers with 202 until it is over.
        None if answer.status == 202 => Status::Running,
        None => Status::Succeeded,
    }
}

#[cfg(test)]
mod tests {
    use kasm_autoscale_core::id::{PoolId, ServerId, ServerKey};
    use serde_json::json;

    use super::*;

    fn arm() -> Url {
        Url::parse("https://management.azure.com").expect("an address")
    }

    fn answer(status: u16, body: Value) -> Answer {
        Answer { status, body, ..Answer::default() }
    }

    #[test]
    fn operations_are_read_back_and_belong_to_azure() {
        let vm = VmName::of(&ServerKey { pool: PoolId::from_bytes([1; 16]), server: ServerId::new(1) });
        let url = "https://management.azure.com/subscriptions/s/providers/Microsoft.Compute/locations/w/operations/1?api-version=2024-03-01&t=6&c=M%2B";
        let mut begun = answer(201, Value::Null);
        begun.operation = Some(url.to_owned());
        begun.location = Some("https://management.azure.com/other".to_owned());
        let operation = Operation::begun(&begun, Purpose::Create, &vm, &arm()).expect("an operation");
        assert_eq!(operation.url.as_str(), url);
        assert_eq!(Operation::read(&operation.reference(), &arm()), Some(operation));
        for text in [
            format!("create {vm} https://example.com/1"),
            format!("create {vm} http://management.azure.com/1"),
            format!("create {vm} https://management.azure.com:444/1"),
            format!("create {vm} https://management.azure.com@example.com/1"),
            format!("create {vm} https://u:p@management.azure.com/1"),
            format!("start {vm} {url}"),
            format!("create vm {url}"),
            format!("create {vm} {url} more"),
            String::new(),
        ] {
            assert_eq!(Operation::read(&OpRef(text.clone()), &arm()), None, "{text}");
        }
    }

    #[test]
    fn three_words_end_an_operation() {
        let rows = [
            (200, json!({"status": "InProgress"}), Status::Running),
            (200, json!({"status": "Updating"}), Status::Running),
            (200, json!({"status": "Succeeded"}), Status::Succeeded),
            (200, json!({"status": "Failed"}), Status::Failed),
            (200, json!({"status": "Canceled"}), Status::Failed),
            (202, Value::Null, Status::Running),
            (204, Value::Null, Status::Succeeded),
            (200, json!({"name": "vm"}), Status::Succeeded),
        ];
        for (status, body, expected) in rows {
            let answer = answer(status, body);
            assert_eq!(super::status(&answer), expected, "{answer:?}");
        }
    }
}
