//! What the fuzz targets reach of the inside: no part of the API.
//!
//! The meaning of EC2's errors needs nothing of the SDK, so it can be fuzzed without building it.

use kasm_autoscale_core::ports::{Certainty, ErrorKind, Scope};

use crate::ec2_errors as ec2;

/// What an answer of EC2 with this code, status and message means.
pub fn ec2_error(code: Option<&str>, status: Option<u16>, message: &str) -> (ErrorKind, Scope, Certainty) {
    let class = ec2::classify(code, status, message);
    (class.kind, class.scope, class.certainty)
}

/// What the reason that a machine of EC2 gives for its state means; `None`: nothing went wrong.
pub fn ec2_reason(code: &str, message: &str) -> Option<(ErrorKind, Scope, Certainty)> {
    ec2::classify_reason(code, message).map(|class| (class.kind, class.scope, class.certainty))
}

/// Every code of EC2 that has a meaning of its own.
pub fn ec2_codes() -> impl Iterator<Item = &'static str> {
    ec2::error_codes()
}
