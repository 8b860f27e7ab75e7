//! Time is an argument: the core never reads a clock.

use alloc::vec::Vec;
use core::fmt;
use core::ops::{Add, Sub};
use core::time::Duration;

use serde::{Deserialize, Serialize};

/// An instant, in milliseconds since 1970-01-01T00:00:00Z.
///
/// The host brings it to every [`Pool::step`](crate::pool::Pool::step). It must come from a clock that does not run backwards;
/// where it does all the same, the pool keeps to the latest instant it has seen.
/// Arithmetic saturates, so no duration however long can wrap a deadline round.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// No pool's time goes on beyond this, or what is to happen later would be due at once, and again, for ever. 146 million years.
    pub(crate) const LATEST: Self = Self(u64::MAX / 4);

    /// The instant `millis` milliseconds after the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// The instant `secs` seconds after the Unix epoch.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// How long before `self` the instant `earlier` was; zero if it was not before.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    /// Seconds with milliseconds, as in `12.250s`; hosts that want a calendar bring their own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1000, self.0 % 1000)
    }
}

/// A duration as people write it: `90s`, `30m`, `1h30m`, `250ms`, `2d`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span(pub Duration);

impl Span {
    /// Reads `1h30m`, `90s`, `250ms`, `2d` or a bare number of seconds.
    ///
    /// Each unit may stand once, largest first is not required. `None` for anything else.
    ///
    /// ```
    /// use kasm_autoscale_core::time::Span;
    /// assert_eq!(Span::parse("1h30m").unwrap().0.as_secs(), 5400);
    /// assert_eq!(Span::parse("45").unwrap().0.as_secs(), 45);
    /// assert!(Span::parse("soon").is_none());
    /// ```
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(secs) = text.parse::<u64>() {
            return Some(Self(Duration::from_secs(secs)));
        }
        let mut millis: u64 = 0;
        let mut rest = text;
        let mut units = Vec::new();
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: u64 = rest.get(..digits)?.parse().ok()?;
            rest = rest.get(digits..)?;
            let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
            let unit: u64 = match rest.get(..letters)? {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return None,
            };
            rest = rest.get(letters..)?;
            if units.contains(&unit) {
                return None;
            }
            units.push(unit);
            millis = millis.checked_add(number.checked_mul(unit)?)?;
        }
        if text.is_empty() { None } else { Some(Self(Duration::from_millis(millis))) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_millis();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, millis) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
            if rest >= millis {
                write!(f, "{}{unit}", rest / millis)?;
                rest %= millis;
            }
        }
        Ok(())
    }
}
