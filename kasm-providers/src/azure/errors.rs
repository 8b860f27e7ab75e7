//! What Azure's errors mean: one table for the answers to calls and for operations that fail after they were accepted.
//!
//! Sources: Azure Resource Manager, "Common deployment errors", "Throttling Resource Manager requests" and "Asynchronous
//! operations"; Azure Virtual Machines, "Allocation failures" and "Common error codes".

use kasm_autoscale_core::ports::{Certainty, ErrorKind, Scope};

pub(super) use crate::classes::Class;
use crate::classes::Table;

use Certainty::{NotApplied, Unknown};
use ErrorKind::{Conflict, Denied, Invalid, NoCapacity, Protected, Quota, Throttled, Transient};
use Scope::{Offering, Provider, Server};

const TABLE: Table = Table { by_text: BY_TEXT, by_code: BY_CODE, by_family };

/// `OperationNotAllowed` says which limit, or what else is in the way, in its text alone.
const BY_TEXT: &[(&str, &str, Class)] = &[
    ("OperationNotAllowed", "Total Regional", Class::new(Quota, Provider, NotApplied)),
    ("OperationNotAllowed", "Family Cores quota", Class::new(Quota, Offering, NotApplied)),
    ("OperationNotAllowed", "LowPriorityCores", Class::new(Quota, Offering, NotApplied)),
    ("OperationNotAllowed", "Quota increase", Class::new(Quota, Provider, NotApplied)),
    ("OperationNotAllowed", "quota", Class::new(Quota, Provider, NotApplied)),
    ("OperationNotAllowed", "attached", Class::new(Conflict, Server, NotApplied)),
];

const BY_CODE: &[(Class, &[&str])] = &[
    (
        Class::new(NoCapacity, Offering, NotApplied),
        &[
            "SkuNotAvailable",
            "AllocationFailed",
            "ZonalAllocationFailed",
            "OverconstrainedAllocationRequest",
            "OverconstrainedZonalAllocationRequest",
            "SubnetIsFull",
            "InsufficientSubnetSize",
        ],
    ),
    (
        Class::new(Quota, Provider, NotApplied),
        &[
            "QuotaExceeded",
            "PublicIPCountLimitReached",
            "ResourceGroupQuotaExceeded",
            "MaxStorageAccountsCountPerSubscriptionExceeded",
        ],
    ),
    (Class::new(Throttled, Provider, NotApplied), &["TooManyRequests", "SubscriptionRequestsThrottled"]),
    (
        Class::new(Denied, Provider, NotApplied),
        &[
            "InvalidAuthenticationToken",
            "ExpiredAuthenticationToken",
            "AuthorizationFailed",
            "SubscriptionNotFound",
            "InvalidSubscriptionId",
            "ReadOnlyDisabledSubscription",
        ],
    ),
    // A right on something else that a config names, such as its subnet; a policy that forbids what it asks for.
    (Class::new(Denied, Offering, NotApplied), &["LinkedAuthorizationFailed", "RequestDisallowedByPolicy"]),
    (
        Class::new(Invalid, Offering, NotApplied),
        &[
            "ResourceNotFound",
            "NotFound",
            "ParentResourceNotFound",
            "PlatformImageNotFound",
            "ImageNotFound",
            "GalleryImageNotFound",
            "InvalidParameter",
            "InvalidRequestContent",
            "BadRequest",
            "InvalidResourceReference",
            "InvalidTemplate",
            "VMSizeNotSupported",
            "MarketplacePurchaseEligibilityFailed",
        ],
    ),
    (
        Class::new(Invalid, Provider, NotApplied),
        &["ResourceGroupNotFound", "ResourceGroupBeingDeleted", "MissingSubscriptionRegistration"],
    ),
    // An earlier call has made this machine, or has been told to. Which one, only a look-up can say.
    (
        Class::new(Conflict, Server, Unknown),
        &["PreconditionFailed", "ConflictingUserInput", "PropertyChangeNotAllowed"],
    ),
    (
        Class::new(Conflict, Server, NotApplied),
        &[
            "Conflict",
            "AnotherOperationInProgress",
            "OperationPreempted",
            "RetryableErrorDueToAnotherOperation",
            "AttachDiskWhileBeingDetached",
            "NicReservedForAnotherVm",
            "NicInUse",
            "InUseSubnetCannotBeDeleted",
            "PublicIPAddressCannotBeDeleted",
            "OperationNotAllowed",
        ],
    ),
    (Class::new(Protected, Server, NotApplied), &["ScopeLocked"]),
    (
        Class::new(Transient, Provider, Unknown),
        &[
            "InternalServerError",
            "InternalExecutionError",
            "InternalOperationError",
            "NetworkingInternalOperationError",
            "ServerTimeout",
            "ServiceUnavailable",
            "GatewayTimeout",
            "VMStartTimedOut",
        ],
    ),
    // The machine was made, and its system did not come up or did not do as it was told: mostly the image's fault.
    (
        Class::new(Invalid, Server, NotApplied),
        &[
            "OSProvisioningTimedOut",
            "OSProvisioningClientError",
            "VMExtensionProvisioningError",
            "VMExtensionHandlerNonTransientError",
            "VMAgentStatusCommunicationError",
        ],
    ),
];

/// Codes that say little: where an inner error says more, it counts.
const VAGUE: &[&str] = &["BadRequest", "Conflict", "OperationNotAllowed", "NotFound", "InternalServerError"];

/// Every error code that has a meaning of its own here, for documentation and tests.
pub fn error_codes() -> impl Iterator<Item = &'static str> {
    TABLE.codes()
}

/// What an answer with this code, status and message means.
pub(super) fn classify(code: Option<&str>, status: Option<u16>, message: &str) -> Class {
    // Too many calls come under several names, and this name means something else with other statuses.
    if (status, code) == (Some(429), Some("OperationNotAllowed")) {
        return Class::new(Throttled, Provider, NotApplied);
    }
    TABLE.classify(code, status, message)
}

/// Whether this code with this text has a meaning that an outer error should not cover.
pub(super) fn is_telling(code: &str, message: &str) -> bool {
    TABLE.of_text(code, message).is_some() || (TABLE.of_code(code).is_some() && !VAGUE.contains(&code))
}

fn by_family(code: &str) -> Option<(ErrorKind, Scope)> {
    match code {
        _ if code.contains("AllocationFailed") || code.contains("AllocationRequest") => Some((NoCapacity, Offering)),
        _ if code.contains("Throttl") => Some((Throttled, Provider)),
        _ if code.contains("QuotaExceeded") || code.ends_with("CountLimitReached") => Some((Quota, Provider)),
        _ if code.starts_with("VMExtension") || code.starts_with("OSProvisioning") => Some((Invalid, Server)),
        _ if code.starts_with("Invalid") || code.starts_with("VMSizeNotSupported") => Some((Invalid, Offering)),
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
    fn vague_codes_tell_nothing_unless_their_text_does() {
        assert!(VAGUE.iter().all(|code| TABLE.of_code(code).is_some() && !is_telling(code, "")));
        assert!(is_telling("OperationNotAllowed", "exceeding approved Total Regional Cores quota"));
        assert!(is_telling("AllocationFailed", "") && !is_telling("NeverHeardOf", ""));
    }
}
