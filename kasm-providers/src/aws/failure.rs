//! From the SDK's errors to the core's, in words that hold no secret.

use std::error::Error;
use std::time::Duration;

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::RequestId;
use kasm_autoscale_core::ports::{Certainty, ErrorKind, ProviderError, Scope};

use crate::ec2_errors::{Class, classify};
use crate::words::readable;

/// The code of an answer that makes no sense.
const UNREADABLE: &str = "UnreadableAnswer";

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

/// What an error of the SDK means. No text of `hidden` is left in it.
pub(super) fn failure<E>(error: &SdkError<E>, effect: Effect, hidden: &[&str]) -> ProviderError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let mut failure = match error {
        SdkError::ServiceError(service) => answered(service.err(), service.raw().status().as_u16()),
        SdkError::ResponseError(response) => {
            let status = response.raw().status().as_u16();
            let message = format!("the answer, with HTTP status {status}, could not be read");
            ProviderError::new(ErrorKind::Transient, Certainty::Unknown, UNREADABLE, &message)
        }
        SdkError::TimeoutError(_) => ProviderError::new(
            ErrorKind::Transient,
            Certainty::Unknown,
            "Timeout",
            "no answer in time; the request may have arrived",
        ),
        SdkError::DispatchFailure(dispatch) => match dispatch.as_connector_error() {
            Some(connector) => unsent_or_lost(connector),
            None => lost("the connection failed"),
        },
        SdkError::ConstructionFailure(_) => refused("ConstructionFailure", "the SDK could not build the request"),
        _ => ProviderError::new(
            ErrorKind::Transient,
            Certainty::Unknown,
            "UnknownFailure",
            "the SDK gave an error of a new kind",
        ),
    };
    if let Some(raw) = error.raw_response() {
        failure.retry_after =
            raw.headers().get("retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
        failure.request_id = error.request_id().map(ToOwned::to_owned).or_else(|| request_id(raw.body().bytes()?));
    }
    if effect == Effect::Reads {
        failure.certainty = Certainty::NotApplied;
    }
    failure.code = readable(&failure.code, hidden);
    failure.message = readable(&failure.message, hidden);
    failure
}

fn answered(error: &impl ProvideErrorMetadata, status: u16) -> ProviderError {
    let message = error.message().unwrap_or("the answer says no more");
    let Class { kind, scope, certainty } = classify(error.code(), Some(status), message);
    let code = match error.code() {
        Some(code) => code.to_owned(),
        // The SDK calls it an error of the service when it cannot read an answer of success.
        None if status < 300 => UNREADABLE.to_owned(),
        None => format!("HTTP {status}"),
    };
    ProviderError { scope, ..ProviderError::new(kind, certainty, &code, message) }
}

/// Tells failures before the request left from those after. The SDK does not say which they are, so this goes by the
/// causes it names; anything else counts as sent, which is the safe side.
fn unsent_or_lost(error: &(dyn Error + 'static)) -> ProviderError {
    let mut causes: Vec<String> = Vec::new();
    let mut refused_by_system = false;
    let mut next = Some(error);
    while let Some(cause) = next {
        use std::io::ErrorKind::{
            AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable,
        };
        let unsent = [AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable];
        refused_by_system |= cause.downcast_ref::<std::io::Error>().is_some_and(|io| unsent.contains(&io.kind()));
        causes.push(cause.to_string());
        next = cause.source();
    }
    let says = |part: &str| causes.iter().any(|cause| cause.contains(part));
    let innermost = causes.last().map_or("no cause given", String::as_str);
    if says("credential") || says("identity") {
        // Nothing is signed without credentials, so nothing was sent. The causes may name files, never their contents.
        let message = format!("no credentials: {innermost}");
        return ProviderError::new(ErrorKind::Denied, Certainty::NotApplied, "NoCredentials", &message);
    }
    if refused_by_system || says("(Connect)") || says("HTTP connect timeout") {
        let message = format!("could not connect: {innermost}");
        return ProviderError::new(ErrorKind::Transient, Certainty::NotApplied, "NotConnected", &message);
    }
    lost(&format!("the connection was lost: {innermost}"))
}

fn lost(message: &str) -> ProviderError {
    ProviderError::new(ErrorKind::Transient, Certainty::Unknown, "ConnectionLost", message)
}

/// The id in the body of an answer, `RequestID` in errors and `requestId` elsewhere; proxies drop the header.
fn request_id(body: &[u8]) -> Option<String> {
    let body = str::from_utf8(body).ok()?;
    let (_, rest) = body.split_once("<RequestID>").or_else(|| body.split_once("<requestId>"))?;
    let (id, _) = rest.split_once('<')?;
    (id.len() <= 100).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_id_is_found_in_the_body() {
        let id = request_id(b"<Response><Errors/><RequestID>abc-1</RequestID></Response>");
        assert_eq!(id.as_deref(), Some("abc-1"));
        assert_eq!(request_id(b"<html>"), None);
    }
}
