//! The token bucket by which a simulated cloud limits calls. Whole numbers only: it counts thousandths of a call.

use core::time::Duration;

use crate::time::Timestamp;

const CALL: u64 = 1000;

/// What is used of a bucket. Rate and size come with every call, so they may change while it is in use.
#[derive(Clone, Debug, Default)]
pub(super) struct Bucket {
    used: u64,
    seen: Timestamp,
}

impl Bucket {
    /// Takes one call out, or says after what time there will be one. A rate of 0 is no limit.
    pub(super) fn take(&mut self, now: Timestamp, calls_per_second: u32, burst: u32) -> Result<(), Duration> {
        if calls_per_second == 0 {
            return Ok(());
        }
        // A call per second is a thousandth of a call per millisecond, so rate times milliseconds is what ran back in.
        let rate = u64::from(calls_per_second);
        let elapsed = now.as_millis().saturating_sub(self.seen.as_millis());
        self.used = self.used.saturating_sub(elapsed.saturating_mul(rate));
        self.seen = self.seen.max(now);
        let over = (self.used + CALL).saturating_sub(u64::from(burst.max(1)) * CALL);
        if over > 0 {
            return Err(Duration::from_millis(over.div_ceil(rate)));
        }
        self.used += CALL;
        Ok(())
    }
}
