//! How a simulated directory behaves: times, limits and faults.

use alloc::collections::BTreeMap;
use alloc::string::String;
use core::ops::RangeInclusive;
use core::time::Duration;

/// What can go wrong by chance. Each occurrence is counted ([`SimDirectory::hits`](super::SimDirectory::hits)), so that a
/// test can tell a fault survived from a fault that never came.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum DirectoryFault {
    /// An enrolment is refused, certainly without effect.
    EnsureError,
    /// An enrolment fails, and nothing says whether it had an effect; it had one as often as not.
    EnsureUnsure,
    /// An enrolment or removal gets no answer and had no effect.
    LostBeforeEffect,
    /// An enrolment or removal had its effect, and its answer is lost.
    LostAfterEffect,
    /// A removal fails, certainly without effect.
    DeleteError,
    /// A look-up, a look whether a machine has joined, or a list fails.
    ReadError,
    /// A list ends early and says that it is not complete.
    ListPartial,
    /// Something is put below a computer object when its machine joins, as Hyper-V and Azure do.
    Children,
}

impl DirectoryFault {
    /// Every fault, in the order of the enum.
    pub const ALL: [Self; 8] = [
        Self::EnsureError,
        Self::EnsureUnsure,
        Self::LostBeforeEffect,
        Self::LostAfterEffect,
        Self::DeleteError,
        Self::ReadError,
        Self::ListPartial,
        Self::Children,
    ];
}

/// How a simulated directory behaves. Times are drawn anew for each object, both bounds included.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DirectorySettings {
    /// The DNS name of the domain.
    pub domain: String,
    /// How long a new object is missing from look-ups and lists, and how long a removed one is still listed: replication
    /// between domain controllers. The upper bound is what the directory says of itself.
    pub visibility_lag: RangeInclusive<Duration>,
    /// How often to ask whether a machine has joined.
    pub poll_busy: Duration,
    /// How often to list.
    pub poll_idle: Duration,
    /// After what time an unanswered call counts as lost.
    pub call_timeout: Duration,
    /// How many objects of ours there may be; beyond that [`DirectoryErrorKind::Quota`](crate::ports::DirectoryErrorKind).
    pub quota: u32,
    /// Chances per million of the occasions each fault has. What is not there never strikes.
    pub faults: BTreeMap<DirectoryFault, u32>,
}

impl Default for DirectorySettings {
    /// A directory as it should be: one domain controller, no limit that matters, no faults.
    fn default() -> Self {
        Self {
            domain: "corp.example".into(),
            visibility_lag: Duration::ZERO..=Duration::ZERO,
            poll_busy: Duration::from_secs(10),
            poll_idle: Duration::from_secs(600),
            call_timeout: Duration::from_secs(20),
            quota: 100_000,
            faults: BTreeMap::new(),
        }
    }
}

impl DirectorySettings {
    /// The same settings, but for this fault.
    #[must_use]
    pub fn with(mut self, fault: DirectoryFault, per_million: u32) -> Self {
        self.faults.insert(fault, per_million);
        self
    }
}
