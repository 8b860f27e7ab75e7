//! What EC2's errors mean: one table for the answers to calls and for the reasons that machines give.
//!
//! Sources: EC2 API Reference, "Error codes for the Amazon EC2 API" (client, server and common errors) and "Ensuring
//! idempotency"; API Reference, StateReason.

use kasm_autoscale_core::ports::{Certainty, ErrorKind, Scope};

pub(crate) use crate::classes::Class;
use crate::classes::Table;

use Certainty::{NotApplied, Unknown};
use ErrorKind::{Conflict, Denied, Invalid, NoCapacity, Protected, Quota, Throttled, Transient};
use Scope::{Offering, Provider, Server};

const TABLE: Table = Table { by_text: BY_TEXT, by_code: BY_CODE, by_family };

/// Codes that mean two things, told apart by a part of the message.
const BY_TEXT: &[(&str, &str, Class)] = &[
    // Some sizes are not offered in every zone, which is as good as no room there.
    ("Unsupported", "Availability Zone", Class::new(NoCapacity, Offering, NotApplied)),
    // A profile made seconds ago is not yet known everywhere: the same call works later.
    ("InvalidParameterValue", "Invalid IAM Instance Profile", Class::new(Conflict, Offering, NotApplied)),
];

const BY_CODE: &[(Class, &[&str])] = &[
    // Although the first four come with status 500, nothing was launched.
    (
        Class::new(NoCapacity, Offering, NotApplied),
        &[
            "InsufficientInstanceCapacity",
            "InsufficientHostCapacity",
            "InsufficientReservedInstanceCapacity",
            "InsufficientCapacity",
            "InsufficientVolumeCapacity",
            "InsufficientFreeAddressesInSubnet",
            "UnfulfillableCapacity",
            "SpotMaxPriceTooLow",
        ],
    ),
    (Class::new(Quota, Offering, NotApplied), &["InstanceLimitExceeded"]),
    (
        Class::new(Quota, Provider, NotApplied),
        &[
            "VcpuLimitExceeded",
            "MaxSpotInstanceCountExceeded",
            "VolumeLimitExceeded",
            "NetworkInterfaceLimitExceeded",
            "AddressLimitExceeded",
            "SnapshotLimitExceeded",
        ],
    ),
    // Refused at the door, whatever the status.
    (
        Class::new(Throttled, Provider, NotApplied),
        &["RequestLimitExceeded", "Throttling", "ThrottlingException", "EC2ThrottledException"],
    ),
    (
        Class::new(Denied, Provider, NotApplied),
        &[
            "AuthFailure",
            "UnauthorizedOperation",
            "Blocked",
            "PendingVerification",
            "InvalidClientTokenId",
            "SignatureDoesNotMatch",
            "MissingAuthenticationToken",
            "IncompleteSignature",
            "RequestExpired",
            "ExpiredToken",
        ],
    ),
    // The account has not subscribed to this image.
    (Class::new(Denied, Offering, NotApplied), &["OptInRequired"]),
    (
        Class::new(Invalid, Offering, NotApplied),
        &[
            "InvalidAMIID.NotFound",
            "InvalidAMIID.Unavailable",
            "InvalidAMIID.Malformed",
            "InvalidSubnetID.NotFound",
            "InvalidGroup.NotFound",
            "InvalidSecurityGroupID.NotFound",
            "InvalidKeyPair.NotFound",
            "InvalidKeyPair.Duplicate",
            "InvalidVolume.NotFound",
            "InvalidNetworkInterfaceID.NotFound",
            "InvalidAllocationID.NotFound",
            "InvalidSnapshot.NotFound",
            "InvalidParameterValue",
            "InvalidParameterCombination",
            "InvalidParameter",
            "MissingParameter",
            "UnsupportedOperation",
            "Unsupported",
            "InvalidBlockDeviceMapping",
            "InvalidUserData.Malformed",
            "TagPolicyViolation",
            "InvalidIAMInstanceProfile",
        ],
    ),
    (Class::new(Invalid, Server, NotApplied), &["InvalidInstanceID.Malformed"]),
    // An earlier call with this token has made a machine, or has been told to. Which one, only a look-up can say; another
    // create would be a second machine.
    (Class::new(Conflict, Server, Unknown), &["IdempotentParameterMismatch", "IdempotentInstanceTerminated"]),
    (
        Class::new(Conflict, Server, NotApplied),
        &[
            // Gone, or so new that not all of EC2 knows it.
            "InvalidInstanceID.NotFound",
            "IncorrectInstanceState",
            "DependencyViolation",
            "VolumeInUse",
            "ResourceCountExceeded",
        ],
    ),
    (Class::new(Protected, Server, NotApplied), &["OperationNotPermitted"]),
    (
        Class::new(Transient, Provider, Unknown),
        &["InternalError", "InternalFailure", "ServerInternal", "Unavailable", "ServiceUnavailable"],
    ),
];

/// Reasons that machines give for their state, which differ from an error of the same code.
const BY_REASON: &[(&str, Option<Class>)] = &[
    // Nearly always a key of KMS that may not be used (User Guide, "Troubleshoot instance launch issues").
    ("Client.InternalError", Some(Class::new(Invalid, Offering, NotApplied))),
    ("Server.InternalError", Some(Class::new(Transient, Server, NotApplied))),
    ("Server.ScheduledStop", Some(Class::new(Transient, Server, NotApplied))),
    ("Server.SpotInstanceTermination", Some(Class::new(NoCapacity, Offering, NotApplied))),
    ("Server.SpotInstanceShutdown", Some(Class::new(NoCapacity, Offering, NotApplied))),
    // The ordinary end: by us, by an operator, or by a user who chose "shut down".
    ("Client.UserInitiatedShutdown", None),
    ("Client.UserInitiatedHibernate", None),
    ("Client.InstanceInitiatedShutdown", None),
    ("Client.InstanceTerminated", None),
];

/// Every error code that has a meaning of its own here, for documentation and tests.
pub fn error_codes() -> impl Iterator<Item = &'static str> {
    TABLE.codes()
}

/// What an answer with this code, status and message means.
pub(crate) fn classify(code: Option<&str>, status: Option<u16>, message: &str) -> Class {
    TABLE.classify(code, status, message)
}

/// What a machine's reason for its state means; `None`: nothing went wrong.
pub(crate) fn classify_reason(code: &str, message: &str) -> Option<Class> {
    if let Some((_, class)) = BY_REASON.iter().find(|(name, _)| *name == code) {
        return *class;
    }
    let bare = code.strip_prefix("Client.").or_else(|| code.strip_prefix("Server."))?;
    let class = TABLE.named(bare, message).unwrap_or(Class::new(Transient, Server, NotApplied));
    // The machine is there or gone, but never in doubt.
    Some(Class { certainty: NotApplied, ..class })
}

fn by_family(code: &str) -> Option<(ErrorKind, Scope)> {
    match code {
        _ if code.starts_with("Insufficient") => Some((NoCapacity, Offering)),
        _ if code.contains("Throttl") => Some((Throttled, Provider)),
        _ if code.ends_with("LimitExceeded") => Some((Quota, Provider)),
        _ if code.starts_with("Invalid") => Some((Invalid, Offering)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_code_stands_twice() {
        let all: Vec<&str> = error_codes().collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }

    #[test]
    fn reasons_of_machines() {
        let rows = [
            ("Server.InsufficientInstanceCapacity", Some((NoCapacity, Offering))),
            ("Server.InternalError", Some((Transient, Server))),
            ("Server.ScheduledStop", Some((Transient, Server))),
            ("Server.SpotInstanceTermination", Some((NoCapacity, Offering))),
            ("Server.SpotInstanceShutdown", Some((NoCapacity, Offering))),
            ("Client.VolumeLimitExceeded", Some((Quota, Provider))),
            ("Client.InternalError", Some((Invalid, Offering))),
            ("Client.InvalidSnapshot.NotFound", Some((Invalid, Offering))),
            ("Client.SomethingNew", Some((Transient, Server))),
            ("Client.UserInitiatedShutdown", None),
            ("Client.UserInitiatedHibernate", None),
            ("Client.InstanceInitiatedShutdown", None),
            ("Client.InstanceTerminated", None),
            ("", None),
            ("pending", None),
        ];
        for (code, expected) in rows {
            let class = classify_reason(code, "");
            assert_eq!(class.map(|class| (class.kind, class.scope)), expected, "{code}");
            assert!(class.is_none_or(|class| class.certainty == NotApplied), "{code}");
        }
    }
}
