//! From answers, and from their absence, to the core's errors, in words that hold no secret.

use std::time::Duration;

use azure_core::error::ErrorKind as SdkKind;
use kasm_autoscale_core::ports::{Certainty, ErrorKind, ProviderError, Scope};
use serde_json::Value;

use super::arm::Answer;
use super::errors::{Class, classify, is_telling};
use crate::words::readable;

/// The code of an answer that makes no sense.
const UNREADABLE: &str = "UnreadableAnswer";

/// How long Azure keeps a network interface for the machine that failed to get it (Azure, "NicReservedForAnotherVm").
const NIC_RESERVED: Duration = Duration::from_secs(180);

/// How deep errors may stand in one another before we stop looking.
const DEPTH: usize = 4;

/// Whether a call can have changed anything.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Effect {
    /// It only looks.
    Reads,
    /// It makes or deletes something.
    Changes,
}

/// An error of ours, before anything was sent.
pub(super) fn refused(code: &str, message: &str) -> ProviderError {
    let error = ProviderError::new(ErrorKind::Invalid, Certainty::NotApplied, code, message);
    ProviderError { scope: Scope::Offering, ..error }
}

/// An answer of success that could not be read.
pub(super) fn unreadable(answer: &Answer, effect: Effect) -> ProviderError {
    let message = format!("the answer, with HTTP status {}, could not be read", answer.status);
    let error = ProviderError::new(ErrorKind::Transient, Certainty::Unknown, UNREADABLE, &message);
    seen(ProviderError { request_id: answer.request_id.clone(), ..error }, effect)
}

/// No answer came in time.
pub(super) fn timeout(effect: Effect) -> ProviderError {
    let message = "no answer in time; the request may have arrived";
    seen(ProviderError::new(ErrorKind::Transient, Certainty::Unknown, "Timeout", message), effect)
}

/// What an answer that is no success means. No text of `hidden` is left in it.
pub(super) fn answered(answer: &Answer, effect: Effect, hidden: &[&str]) -> ProviderError {
    let status = Some(answer.status);
    let error = match told(&answer.body) {
        Some((code, message)) => classified(&code, &message, status),
        None => classified(&format!("HTTP {}", answer.status), "the answer says no more", status),
    };
    let retry_after = answer.retry_after.or(error.retry_after);
    seen(cleaned(ProviderError { retry_after, request_id: answer.request_id.clone(), ..error }, hidden), effect)
}

/// Why an operation has failed, by the answer of its address. It is over, so nothing is in doubt any more.
pub(super) fn failed_operation(answer: &Answer, hidden: &[&str]) -> ProviderError {
    let error = match told(&answer.body) {
        Some((code, message)) => classified(&code, &message, None),
        None => {
            let status = answer.body.get("status").and_then(Value::as_str).unwrap_or("Failed");
            classified(status, "the operation ended without a reason", Some(409))
        }
    };
    let request_id = answer.request_id.clone();
    cleaned(ProviderError { certainty: Certainty::NotApplied, request_id, ..error }, hidden)
}

/// A code and a message, as the status of a machine has them, in the core's terms.
pub(super) fn fault(code: &str, message: &str) -> ProviderError {
    let error = classified(code, message, Some(409));
    cleaned(ProviderError { certainty: Certainty::NotApplied, ..error }, &[])
}

fn classified(code: &str, message: &str, status: Option<u16>) -> ProviderError {
    let Class { kind, scope, certainty } = classify(Some(code), status, message);
    let retry_after = (code == "NicReservedForAnotherVm").then_some(NIC_RESERVED);
    ProviderError { scope, retry_after, ..ProviderError::new(kind, certainty, code, message) }
}

/// Looking changes nothing, whatever becomes of the answer.
fn seen(error: ProviderError, effect: Effect) -> ProviderError {
    match effect {
        Effect::Reads => ProviderError { certainty: Certainty::NotApplied, ..error },
        Effect::Changes => error,
    }
}

fn cleaned(mut error: ProviderError, hidden: &[&str]) -> ProviderError {
    error.code = readable(&error.code, hidden);
    error.message = readable(&error.message, hidden);
    error
}

/// The code and message of an error's body: `{error: {code, message, details[]}}`, or the inner part alone, or the error of
/// the token endpoint. An inner error counts where it tells more than the outer one, and so does one that stands as JSON text
/// in a message.
pub(super) fn told(body: &Value) -> Option<(String, String)> {
    let error = body.get("error").filter(|error| error.is_object()).unwrap_or(body);
    let mut all = Vec::new();
    collect(error, 0, &mut all);
    let outer = all.first().cloned()?;
    // The innermost of those that are telling.
    let telling = all.iter().rev().find(|(code, message)| is_telling(code, message));
    match telling {
        Some((code, message)) if (code, message) != (&outer.0, &outer.1) => {
            let message = if message.is_empty() { outer.1 } else { message.clone() };
            Some((code.clone(), message))
        }
        _ => Some(outer),
    }
}

fn collect(error: &Value, depth: usize, all: &mut Vec<(String, String)>) {
    let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (code, message) = (text("code"), text("message"));
    if depth > DEPTH {
        return;
    }
    let inner: Option<Value> =
        message.trim_start().starts_with('{').then(|| serde_json::from_str(&message).ok()).flatten();
    if !code.is_empty() {
        all.push((code, message));
    }
    for detail in error.get("details").and_then(Value::as_array).into_iter().flatten() {
        collect(detail, depth + 1, all);
    }
    if let Some(inner) = inner {
        collect(inner.get("error").unwrap_or(&inner), depth + 1, all);
    }
}

/// What an error of the SDK means: no answer came, or no token was had. `{:?}` of it is never used: it can hold a backtrace.
pub(super) fn unanswered(error: &azure_core::Error, effect: Effect, hidden: &[&str]) -> ProviderError {
    let error = match error.kind() {
        SdkKind::Credential => no_token(error),
        SdkKind::Connection => ProviderError::new(
            ErrorKind::Transient,
            Certainty::NotApplied,
            "NotConnected",
            &format!("could not connect: {}", innermost(error)),
        ),
        SdkKind::Io => lost(error),
        // The policy of the SDK refuses before anything is sent.
        SdkKind::Other if error.to_string().contains("non-TLS") => {
            refused("NotEncrypted", "the SDK sends tokens over https alone")
        }
        _ => lost(error),
    };
    seen(cleaned(error, hidden), effect)
}

fn lost(error: &azure_core::Error) -> ProviderError {
    let message = format!("the connection was lost: {}", innermost(error));
    ProviderError::new(ErrorKind::Transient, Certainty::Unknown, "ConnectionLost", &message)
}

/// Without a token nothing was sent to Azure Resource Manager.
fn no_token(error: &azure_core::Error) -> ProviderError {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        match cause.downcast_ref::<azure_core::Error>().map(azure_core::Error::kind) {
            Some(SdkKind::HttpResponse { status, error_code, .. }) => {
                let status = u16::from(*status);
                let code =
                    match error_code.as_deref().filter(|code| code.bytes().all(|b| b.is_ascii_digit() || b == b',')) {
                        Some(code) => format!("AADSTS{code}"),
                        None => format!("HTTP {status}"),
                    };
                let kind = match status {
                    429 => ErrorKind::Throttled,
                    408 | 500.. => ErrorKind::Transient,
                    _ => ErrorKind::Denied,
                };
                let message = format!("no token: {cause}");
                return ProviderError::new(kind, Certainty::NotApplied, &code, &message);
            }
            Some(SdkKind::Connection | SdkKind::Io) => {
                let message = format!("no token: {}", innermost(cause));
                return ProviderError::new(ErrorKind::Transient, Certainty::NotApplied, "NoToken", &message);
            }
            _ => next = cause.source(),
        }
    }
    let message = format!("no credentials: {}", innermost(error));
    ProviderError::new(ErrorKind::Denied, Certainty::NotApplied, "NoCredentials", &message)
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_inner_error_counts_where_it_tells_more() {
        let inner = r#"{"error": {"code": "ZonalAllocationFailed", "message": "no room in zone 1"}}"#;
        let rows = [
            (json!({"error": {"code": "AllocationFailed", "message": "no room"}}), "AllocationFailed", "no room"),
            (json!({"code": "NotFound", "message": "bare"}), "NotFound", "bare"),
            (
                json!({"error": {"code": "OperationNotAllowed", "message": "see details", "details": [
                    {"code": "QuotaExceeded", "message": "12 of 10 cores"}]}}),
                "QuotaExceeded",
                "12 of 10 cores",
            ),
            (
                json!({"error": {"code": "OperationNotAllowed", "message": "exceeds Total Regional Cores quota", "details": [
                    {"code": "Odd", "message": "inner"}]}}),
                "OperationNotAllowed",
                "exceeds Total Regional Cores quota",
            ),
            (json!({"error": {"code": "Conflict", "message": inner}}), "ZonalAllocationFailed", "no room in zone 1"),
            (
                json!({"error": {"code": "DeploymentFailed", "message": "outer", "details": [
                    {"code": "Conflict", "message": "", "details": [{"code": "SkuNotAvailable", "message": ""}]}]}}),
                "SkuNotAvailable",
                "outer",
            ),
        ];
        for (body, code, message) in rows {
            assert_eq!(told(&body), Some((code.to_owned(), message.to_owned())), "{body}");
        }
        for body in [json!({}), json!([]), json!("text"), Value::Null, json!({"error": "invalid_client"})] {
            assert_eq!(told(&body), None, "{body}");
        }
    }

    #[test]
    fn errors_without_end_are_looked_into_only_so_far() {
        let mut body = json!({"code": "AllocationFailed", "message": "deep"});
        for _ in 0..50 {
            body = json!({"code": "Conflict", "message": "outer", "details": [body]});
        }
        assert_eq!(told(&json!({"error": body})), Some(("Conflict".to_owned(), "outer".to_owned())));
    }
}
