//! The daemon's clock: the only place where time is read.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kasm_autoscale_core::time::Timestamp;

/// Wall-clock time at the start, and monotonic time from there on: it never runs backwards, whatever is done to the
/// system's clock while the daemon runs.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started_at: Timestamp,
    started: Instant,
}

impl Clock {
    /// A clock that starts now.
    #[allow(clippy::disallowed_methods, reason = "the one place where time is read")]
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { started_at: Timestamp::default() + since_epoch, started: Instant::now() }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.started_at + self.started.elapsed()
    }

    /// How long until `at`; zero if that is over.
    pub fn until(&self, at: Timestamp) -> Duration {
        at.since(self.now())
    }
}

/// The instant that RFC 3339 text names, as in `2027-01-31T08:00:00Z`; `None` if it names none, or one before 1970.
pub fn from_rfc3339(text: &str) -> Option<Timestamp> {
    let time = chrono::DateTime::parse_from_rfc3339(text).ok()?;
    u64::try_from(time.timestamp_millis()).ok().map(Timestamp::from_millis)
}

/// An instant as people and other programs read it: RFC 3339 in UTC with milliseconds.
pub fn rfc3339(at: Timestamp) -> String {
    let millis = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
    let time = chrono::DateTime::from_timestamp_millis(millis).unwrap_or(chrono::DateTime::<chrono::Utc>::MAX_UTC);
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}
