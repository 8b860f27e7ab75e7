//! How fast Azure may be asked: what its headers say is kept to until it is over.
//!
//! The core waits as long as an error says, config by config. Here it is kept in mind for all that share the provider, and
//! calls that would only be refused are not made.
//!
//! Source: Azure Resource Manager, "Understand how Azure Resource Manager throttles requests"; Azure Virtual Machines,
//! "Troubleshooting API throttling errors".

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// What a call does, as Azure counts it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Verb {
    Read,
    Write,
    Delete,
}

/// The longest that one answer can keep us waiting: a header with nonsense must not stop a pool for good.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// Below so many calls left the next one waits until the bucket has more: it is filled 10 to 25 times a second.
const FEW: u64 = 5;

/// When to go on.
#[derive(Debug, Default)]
pub(super) struct Pace {
    verbs: BTreeMap<Verb, Instant>,
    /// Operations, by their address.
    operations: BTreeMap<String, Instant>,
}

impl Pace {
    /// How long calls of this kind have to wait yet.
    pub(super) fn wait(&self, verb: Verb, now: Instant) -> Option<Duration> {
        self.verbs.get(&verb).map(|until| until.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    /// No call of this kind for so long.
    pub(super) fn hold(&mut self, verb: Verb, wait: Duration, now: Instant) {
        let until = now + wait.min(WAIT_MAX);
        let entry = self.verbs.entry(verb).or_insert(until);
        *entry = until.max(*entry);
    }

    /// What the headers of an answer say about the next call. `left` are the calls left by
    /// `x-ms-ratelimit-remaining-subscription-*`, `resource` is `x-ms-ratelimit-remaining-resource`.
    pub(super) fn note(&mut self, verb: Verb, left: Option<u64>, resource: Option<&str>, now: Instant) {
        if left.is_some_and(|left| left < FEW) {
            self.hold(verb, Duration::from_secs(1), now);
        }
        // `Microsoft.Compute/PutVM3Min;0,Microsoft.Compute/PutVM30Min;598`: policies over 3 and 30 minutes.
        let used_up = |part: &str| part.rsplit_once(';').is_some_and(|(_, left)| left.trim() == "0");
        if resource.is_some_and(|parts| parts.split(',').any(used_up)) {
            self.hold(verb, Duration::from_secs(10), now);
        }
    }

    /// Whether an operation was asked for too lately: its own answer has said when to come again.
    pub(super) fn is_early(&self, operation: &str, now: Instant) -> bool {
        self.operations.get(operation).is_some_and(|until| *until > now)
    }

    /// The operation wants to be left alone for so long.
    pub(super) fn defer(&mut self, operation: &str, wait: Option<Duration>, now: Instant) {
        self.operations.retain(|_, until| *until > now);
        if let Some(wait) = wait {
            self.operations.insert(operation.to_owned(), now + wait.min(WAIT_MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_last_as_long_as_they_were_asked_for() {
        let (now, mut pace) = (Instant::now(), Pace::default());
        pace.hold(Verb::Write, Duration::from_secs(7), now);
        pace.hold(Verb::Write, Duration::from_secs(3), now);
        assert_eq!(pace.wait(Verb::Write, now), Some(Duration::from_secs(7)));
        assert_eq!(pace.wait(Verb::Write, now + Duration::from_secs(7)), None);
        assert_eq!((pace.wait(Verb::Read, now), pace.wait(Verb::Delete, now)), (None, None));
        pace.hold(Verb::Read, Duration::from_secs(u64::MAX), now);
        assert_eq!(pace.wait(Verb::Read, now), Some(WAIT_MAX));
    }

    #[test]
    fn few_calls_left_slow_the_next_one_down() {
        let rows = [
            (Some(199), None, None),
            (Some(4), None, Some(1)),
            (None, Some("Microsoft.Compute/PutVM3Min;239,Microsoft.Compute/PutVM30Min;1198"), None),
            (None, Some("Microsoft.Compute/PutVM3Min;0,Microsoft.Compute/PutVM30Min;598"), Some(10)),
            (Some(0), Some("odd"), Some(1)),
            (None, None, None),
        ];
        for (left, resource, seconds) in rows {
            let (now, mut pace) = (Instant::now(), Pace::default());
            pace.note(Verb::Read, left, resource, now);
            assert_eq!(pace.wait(Verb::Read, now), seconds.map(Duration::from_secs), "{left:?} {resource:?}");
        }
    }

    #[test]
    fn operations_say_when_to_come_again() {
        let (now, mut pace) = (Instant::now(), Pace::default());
        pace.defer("a", Some(Duration::from_secs(10)), now);
        assert!(pace.is_early("a", now) && !pace.is_early("b", now));
        let later = now + Duration::from_secs(10);
        assert!(!pace.is_early("a", later));
        pace.defer("b", None, later);
        assert!(pace.operations.is_empty());
    }
}
