//! How long to wait after which failure.

use alloc::string::String;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{ConfigId, PoolId};
use crate::ports::{DirectoryErrorKind, ErrorKind};
use crate::report::BackoffKind;
use crate::time::Timestamp;

/// Tries that failed in a row, and when to try again.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Backoff {
    /// How many failed. Failures that come in while it lasts are of the same try and not counted again.
    pub failures: u32,
    /// When the last counted one did.
    pub since: Timestamp,
    /// No further try before this.
    pub until: Timestamp,
    /// The last error.
    pub error: String,
}

/// The first wait and the longest one, by kind of failure. The wait doubles from one to the other.
const fn bounds(kind: BackoffKind) -> (Duration, Duration) {
    const fn secs(first: u64, most: u64) -> (Duration, Duration) {
        (Duration::from_secs(first), Duration::from_secs(most))
    }
    match kind {
        // Shortages last minutes to hours; the longest wait bounds the calls of a day at 50 (goal G-19).
        BackoffKind::Provider(ErrorKind::NoCapacity) => secs(60, 1800),
        BackoffKind::Provider(ErrorKind::Quota) => secs(120, 1800),
        // No call is made while we wait, so the bucket fills; providers refill within seconds.
        BackoffKind::Provider(ErrorKind::Throttled) => secs(5, 300),
        // Only an operator can help, and editing the config ends the wait at once.
        BackoffKind::Provider(ErrorKind::Denied | ErrorKind::Invalid | ErrorKind::Protected) => secs(60, 1800),
        BackoffKind::Provider(ErrorKind::Conflict | ErrorKind::Transient) => secs(5, 300),
        // The next name may well be free; only the pool's own numbers are used up by trying.
        BackoffKind::Directory(DirectoryErrorKind::NameTaken) => secs(1, 10),
        BackoffKind::Directory(DirectoryErrorKind::Throttled | DirectoryErrorKind::Transient) => secs(5, 300),
        BackoffKind::Directory(DirectoryErrorKind::Quota) => secs(120, 1800),
        BackoffKind::Directory(
            DirectoryErrorKind::HasChildren
            | DirectoryErrorKind::Protected
            | DirectoryErrorKind::Denied
            | DirectoryErrorKind::Invalid,
        ) => secs(60, 1800),
        // Every try costs a machine for as long as the boot deadline.
        BackoffKind::Boot => secs(30, 1800),
    }
}

impl Backoff {
    /// The back-off after one more failure at `now`.
    ///
    /// `salt` says whose it is, so that many configs that failed together do not all come back together: the wait is varied
    /// by up to a tenth, always the same for the same config and count. A provider's own `retry_after` is never cut short.
    pub(crate) fn after(
        last: Option<&Self>,
        kind: BackoffKind,
        now: Timestamp,
        retry_after: Option<Duration>,
        error: String,
        salt: (PoolId, ConfigId),
    ) -> Self {
        let failures = match last {
            Some(last) if now < last.until => last.failures,
            Some(last) => last.failures.saturating_add(1),
            None => 1,
        };
        let (first, most) = bounds(kind);
        let doubled = first.saturating_mul(1 << (failures - 1).min(16)).min(most);
        let wait = jittered(doubled, failures, salt).max(retry_after.unwrap_or_default());
        let until = (now + wait).max(last.filter(|last| now < last.until).map_or(now, |last| last.until));
        let since = last.filter(|last| now < last.until).map_or(now, |last| last.since);
        Self { failures, since, until, error }
    }
}

/// The wait before a delete, find or list is tried again after `tries` failures in a row.
pub(crate) fn retry_wait(kind: Option<ErrorKind>, tries: u32, retry_after: Option<Duration>) -> Duration {
    let (first, most) = bounds(BackoffKind::Provider(kind.unwrap_or(ErrorKind::Transient)));
    first.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(most).max(retry_after.unwrap_or_default())
}

/// The wait before a directory is asked again after `tries` failures in a row.
pub(crate) fn directory_wait(kind: DirectoryErrorKind, tries: u32) -> Duration {
    let (first, most) = bounds(BackoffKind::Directory(kind));
    first.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(most)
}

/// `wait` plus or minus up to a tenth.
fn jittered(wait: Duration, failures: u32, (pool, config): (PoolId, ConfigId)) -> Duration {
    let mut subject = [0; 8];
    subject[..4].copy_from_slice(&config.serial().to_be_bytes());
    subject[4..].copy_from_slice(&failures.to_be_bytes());
    let digest = pool.digest("backoff", &subject);
    let permille = 900 + u32::from(u16::from_be_bytes([digest[0], digest[1]])) * 200 / u32::from(u16::MAX);
    wait * permille / 1000
}
