//! Bounds how many refused calls are written: nobody can fill the disk, or drive older entries out, by being refused.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kasm_autoscale_core::time::Timestamp;

/// How many are written at once.
const BURST: u32 = 200;
/// How often one more is written after that.
const EVERY: Duration = Duration::from_secs(10);

/// Lets a burst through, and then one now and then: at most 8,840 in the first day and 8,640 in every other.
#[derive(Debug)]
pub(super) struct Throttle(Mutex<State>);

#[derive(Debug)]
struct State {
    left: u32,
    /// Up to when what comes back has been counted.
    counted: Timestamp,
}

impl Throttle {
    pub(super) fn new(now: Timestamp) -> Self {
        Self(Mutex::new(State { left: BURST, counted: now }))
    }

    /// Whether one more is written now.
    pub(super) fn admits(&self, now: Timestamp) -> bool {
        // A panic while the lock is held leaves two numbers, each of which is as good as any.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let back = now.since(state.counted).as_secs() / EVERY.as_secs();
        let back = u32::try_from(back).unwrap_or(u32::MAX);
        if back >= BURST - state.left {
            (state.left, state.counted) = (BURST, now);
        } else {
            state.left += back;
            state.counted = state.counted + EVERY * back;
        }
        let admits = state.left > 0;
        state.left -= u32::from(admits);
        admits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(throttle: &Throttle, at: u64, count: u32) -> usize {
        (0..count).filter(|_| throttle.admits(Timestamp::from_secs(at))).count()
    }

    #[test]
    fn s_22_a_flood_is_let_through_in_part_and_bounded_for_ever() {
        let throttle = Throttle::new(Timestamp::from_secs(1000));
        assert_eq!(admitted(&throttle, 1000, 10_000), 200);
        assert_eq!(admitted(&throttle, 1009, 10_000), 0);
        assert_eq!(admitted(&throttle, 1010, 10_000), 1);
        assert_eq!(admitted(&throttle, 1039, 10_000), 2);
        assert_eq!(admitted(&throttle, 1040, 10_000), 1, "the seconds between are not lost");
        let day: usize = (1041..1041 + 86_400).map(|at| admitted(&throttle, at, 3)).sum();
        assert_eq!(day, 8640);
        assert_eq!(admitted(&throttle, 10_000_000, 10_000), 200, "never more than a burst");
        assert_eq!(admitted(&throttle, 0, 10_000), 0, "a clock that goes back gives nothing");
    }
}
