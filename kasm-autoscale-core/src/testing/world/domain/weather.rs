//! What the domains of a world are like, and what goes wrong in them how often.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::super::super::entropy::{Entropy, MILLION};
use super::super::weather::{Profile, strength, troubles};

/// How a domain is set up, and so how far its answers can be trusted.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum DomainKind {
    /// One controller that answers everything.
    Alone,
    /// Requests go to one controller and to another one only while that is down; other looks go to any.
    Pinned,
    /// Any controller answers anything, as behind a domain's own DNS name.
    Scattered,
    /// As [`Scattered`](Self::Scattered), and what it says is not always so: removals that never happen, two objects for one
    /// request, objects that are called otherwise once their machines have joined.
    Careless,
}

impl DomainKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Alone, Self::Pinned, Self::Scattered, Self::Careless];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alone => "domain: alone",
            Self::Pinned => "domain: pinned",
            Self::Scattered => "domain: scattered",
            Self::Careless => "domain: careless",
        }
    }
}

impl fmt::Display for DomainKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

troubles! {
    /// What can go wrong with domains. Each strike is counted where it made a difference to somebody.
    DomainTrouble:
    /// An enrolment or removal gets no answer and had no effect.
    LostBefore = "ad_lost_before_effect" up to 150_000,
    /// An enrolment or removal had its effect, and its answer is lost.
    LostAfter = "ad_lost_after_effect" up to 450_000,
    /// An enrolment or removal fails, and nobody can say whether it had its effect.
    Unclear = "ad_unclear" up to 250_000,
    /// An enrolment is refused, certainly without effect.
    EnrollRefused = "ad_enroll_refused" up to 250_000,
    /// An enrolment hangs, and may have its effect when nobody waits for it any more.
    LateEffect = "ad_late_effect" up to 450_000,
    /// A removal is refused, certainly without effect.
    RemoveRefused = "ad_remove_refused" up to 200_000,
    /// A look fails.
    ReadError = "ad_read_error" up to 200_000,
    /// A list that shows something ends early, and says so.
    ListPartial = "ad_list_partial" up to 200_000,
    /// A change takes much longer from controller to controller than it ever should.
    LagLong = "ad_lag_long" up to 150_000,
    /// Something is put below a computer object when its machine joins.
    Children = "ad_children" up to 600_000,
    /// An object is protected from deletion when its machine joins.
    Protected = "ad_protected" up to 600_000,
    /// A controller is down for a while.
    ControllerDown = "ad_controller_down" up to 500_000,
    /// All controllers are.
    Outage = "ad_outage" up to 400_000,
    /// Every call hangs for a while.
    Hang = "ad_hang" up to 300_000,
    /// The account may change nothing for a while.
    Denied = "ad_denied" up to 300_000,
    /// A limit of the directory is used up for a while.
    Quota = "ad_quota" up to 300_000,
    /// Somebody else's object has the name that the next server will want.
    NameTaken = "ad_name_taken" up to 500_000,
    /// Somebody else's object appears, with a mark much like ours.
    ForeignObject = "ad_foreign_object" up to 500_000,
    /// An object of ours is deleted by another hand.
    ObjectRemoved = "ad_object_removed" up to 600_000,
    /// An object of ours is moved to where the account sees none.
    ObjectMoved = "ad_object_moved" up to 800_000,
    /// An object of ours is renamed before its machine has joined.
    ObjectRenamed = "ad_object_renamed" up to 400_000,
    /// A machine never joins.
    GuestNeverJoins = "ad_guest_never_joins" up to 350_000,
    /// A machine tries to join once more with the password that it has used.
    GuestJoinsTwice = "ad_guest_joins_twice" up to 600_000,
    /// A removal is said to be done and never happens. Of careless domains only.
    RemoveLies = "ad_remove_lies" up to 600_000,
    /// One request makes two objects. Of careless domains only.
    EnrollTwice = "ad_enroll_twice" up to 900_000,
    /// An object is called otherwise once its machine has joined. Of careless domains only.
    ReferenceChanges = "ad_reference_changes" up to 700_000,
}

impl DomainTrouble {
    /// Whether only careless domains are like this.
    pub(in super::super) const fn is_careless(self) -> bool {
        matches!(self, Self::RemoveLies | Self::EnrollTwice | Self::ReferenceChanges)
    }
}

/// What follows from several controllers, without anybody's chance: a look shows what is so no more, or not yet.
pub(in super::super) const STALE_LOOK: &str = "ad_stale_look";
/// A controller that does not know an object yet makes another one of the same server.
pub(in super::super) const SECOND_OBJECT: &str = "ad_second_object";
/// A machine wants to join at a controller that does not know its object yet.
pub(in super::super) const JOIN_TOO_EARLY: &str = "ad_join_too_early";

/// All that is counted as a fault of domains.
pub(in super::super) fn words() -> impl Iterator<Item = &'static str> {
    let drawn = DomainTrouble::ALL.iter().map(|trouble| trouble.as_str());
    drawn.chain([STALE_LOOK, SECOND_OBJECT, JOIN_TOO_EARLY])
}

/// What one domain is like.
#[derive(Clone, Debug)]
pub(in super::super) struct Climate {
    pub(in super::super) kind: DomainKind,
    pub(in super::super) controllers: usize,
    /// How long a change takes from controller to controller, at most, unless something goes wrong.
    pub(in super::super) lag: Duration,
    pub(in super::super) poll_busy: Duration,
    pub(in super::super) poll_idle: Duration,
    pub(in super::super) call_timeout: Duration,
    pub(in super::super) rates: BTreeMap<DomainTrouble, u32>,
}

impl Climate {
    /// The domains of a world, of which most worlds have none, and what share of its configs joins one.
    pub(in super::super) fn drawn(profile: Profile, entropy: &mut impl Entropy) -> (Vec<Self>, u32) {
        // The least choice is a world without domains: so is every world of a tape that is older than they are.
        if !entropy.chance(600_000) {
            return (Vec::new(), 0);
        }
        let domains = (0..entropy.range(1..=2)).map(|_| Self::of_one(profile, entropy));
        let domains = domains.collect();
        (domains, u32::try_from(entropy.range(300_000..=1_000_000)).unwrap_or(MILLION))
    }

    fn of_one(profile: Profile, entropy: &mut impl Entropy) -> Self {
        let secs = Duration::from_secs;
        // What only careless domains do is to be seen often enough.
        let kind = DomainKind::ALL[usize::try_from(entropy.pick(6)).unwrap_or(0).min(3)];
        let controllers =
            if kind == DomainKind::Alone { 1 } else { usize::try_from(entropy.range(2..=3)).unwrap_or(2) };
        let mut rates = BTreeMap::new();
        for trouble in DomainTrouble::ALL {
            let occurs = entropy.chance(profile.share());
            if occurs && (kind == DomainKind::Careless || !trouble.is_careless()) {
                rates.insert(*trouble, strength(profile, trouble.most(), entropy));
            }
        }
        Self {
            kind,
            controllers,
            lag: if controllers == 1 { Duration::ZERO } else { secs(entropy.range(5..=240)) },
            poll_busy: secs(entropy.range(5..=30)),
            poll_idle: secs(entropy.range(5..=30) * 60),
            call_timeout: secs(entropy.range(10..=60)),
            rates,
        }
    }

    pub(in super::super) fn classes(&self) -> impl Iterator<Item = &'static str> {
        let by_nature = [STALE_LOOK, SECOND_OBJECT, JOIN_TOO_EARLY].into_iter().filter(|_| self.controllers > 1);
        self.rates.keys().map(|trouble| trouble.as_str()).chain(by_nature)
    }
}
