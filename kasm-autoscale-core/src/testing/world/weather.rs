//! What a world is like: how large, which clouds, and what goes wrong in it how often. All of it is drawn at the beginning,
//! as a random subset of all that can go wrong, so that every world is another one.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::super::cloud::{CloudSettings, Fault, FaultRates};
use super::super::entropy::{Entropy, MILLION};
use crate::ports::{Capabilities, ErrorKind};

/// How a cloud behaves, after the kind of system it stands for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Personality {
    /// Tokens are honoured, lists lag, calls are limited.
    AwsLike,
    /// Operations that name their machine late, long lag.
    AzureLike,
    /// Operations that name their machine at once, conflicts.
    GcpLike,
    /// No tokens, no lag, little room, parts of it are offline now and then.
    ProxmoxLike,
    /// No tokens, machines that fail for good, deletes that fail.
    VsphereLike,
    /// Says what is not so: lists that call themselves complete, deletions that never happen, two machines for one request.
    Liar,
}

impl Personality {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::AwsLike, Self::AzureLike, Self::GcpLike, Self::ProxmoxLike, Self::VsphereLike, Self::Liar];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AwsLike => "aws-like",
            Self::AzureLike => "azure-like",
            Self::GcpLike => "gcp-like",
            Self::ProxmoxLike => "proxmox-like",
            Self::VsphereLike => "vsphere-like",
            Self::Liar => "liar",
        }
    }

    /// How long a machine may be missing from what is shown, in seconds, at most.
    const fn lag(self) -> u64 {
        match self {
            Self::AwsLike => 120,
            Self::AzureLike => 600,
            Self::GcpLike | Self::Liar => 60,
            Self::ProxmoxLike => 5,
            Self::VsphereLike => 30,
        }
    }

    /// Whether operations answer before their machine has a name.
    pub(super) const fn names_late(self) -> bool {
        matches!(self, Self::AzureLike)
    }

    /// What the provider says of itself.
    pub(super) fn capabilities(self, entropy: &mut impl Entropy) -> Capabilities {
        let secs = Duration::from_secs;
        Capabilities {
            kind: self.as_str(),
            visibility_lag: secs(self.lag()),
            poll_busy: secs(entropy.range(5..=30)),
            poll_idle: secs(entropy.range(10..=60) * 60),
            creates_in_flight_max: u32::try_from(entropy.range(1..=6)).unwrap_or(1),
            call_timeout: secs(entropy.range(10..=60)),
            // Every machine asks for the same.
            offering: &[],
        }
    }

    /// How it behaves when nothing goes wrong.
    pub(super) fn settings(self, entropy: &mut impl Entropy) -> CloudSettings {
        let secs = |from, to| Duration::from_secs(from)..=Duration::from_secs(to);
        let operations = matches!(self, Self::AzureLike | Self::GcpLike | Self::ProxmoxLike);
        let errors: &[(ErrorKind, u32)] = match self {
            Self::AwsLike => &[(ErrorKind::NoCapacity, 4), (ErrorKind::Throttled, 3), (ErrorKind::Transient, 2)],
            Self::AzureLike => &[(ErrorKind::Quota, 2), (ErrorKind::Conflict, 2), (ErrorKind::NoCapacity, 2)],
            Self::GcpLike => &[(ErrorKind::Conflict, 3), (ErrorKind::NoCapacity, 3), (ErrorKind::Denied, 1)],
            Self::ProxmoxLike => &[(ErrorKind::Conflict, 3), (ErrorKind::Transient, 3)],
            Self::VsphereLike => &[(ErrorKind::Invalid, 1), (ErrorKind::Transient, 3)],
            Self::Liar => &[(ErrorKind::Transient, 1)],
        };
        CloudSettings {
            provision_time: secs(2, entropy.range(10..=90)),
            boot_time: secs(20, entropy.range(60..=240)),
            delete_time: secs(2, entropy.range(5..=120)),
            visibility_lag: secs(0, entropy.range(0..=self.lag())),
            late_effect: secs(1, entropy.range(60..=7200)),
            calls_per_second: if entropy.chance(300_000) { 1 } else { 0 },
            calls_burst: 20,
            operations,
            create_errors: errors.iter().copied().collect(),
            faults: FaultRates::default(),
            ..CloudSettings::default()
        }
    }
}

impl fmt::Display for Personality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! troubles {
    ($(#[$of_all:meta])* $kind:ident: $($(#[$doc:meta])* $name:ident = $word:literal up to $most:literal,)*) => {
        $(#[$of_all])*
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum $kind {
            $($(#[$doc])* $name,)*
        }

        impl $kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word for it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// Chances per million of each occasion, at most.
            const fn most(self) -> u32 {
                match self {
                    $(Self::$name => $most,)*
                }
            }
        }
    };
}

pub(super) use troubles;

troubles! {
    /// What can go wrong beside the [faults](Fault) a simulated cloud has by itself.
    Trouble:
    /// The host dies between a step and its save.
    CrashBeforeSave = "crash_before_save" up to 4_000,
    /// The host dies between a save and the commands and answers it lets go.
    CrashAfterSave = "crash_after_save" up to 4_000,
    /// The host dies when commands are under way.
    CrashAfterRelease = "crash_after_release" up to 4_000,
    /// The host stays away for long after it died.
    Downtime = "downtime" up to 500_000,
    /// A save fails; the pool is read anew while the old one's commands go on.
    SaveRefused = "save_refused" up to 4_000,
    /// A save is said to have failed and has not; the pool is read anew while the old one's commands go on.
    SaveUnclear = "save_unclear" up to 4_000,
    /// A call reaches its provider late, but within its time.
    CallSlow = "call_slow" up to 200_000,
    /// An answer takes longer than the host waits.
    AnswerSlow = "answer_slow" up to 100_000,
    /// An outcome is told twice.
    AnswerTwice = "answer_twice" up to 100_000,
    /// The host forgets a command without a word.
    AnswerForgotten = "answer_forgotten" up to 40_000,
    /// A create or delete fails, and nobody can say whether it had its effect.
    Unclear = "unclear_error" up to 100_000,
    /// A provider fails at everything for a while.
    Outage = "outage" up to 300_000,
    /// A provider lets every call hang for a while.
    Hang = "hang" up to 300_000,
    /// A machine is deleted by another hand.
    MachineDies = "machine_dies" up to 600_000,
    /// A machine is powered off by another hand.
    MachineStops = "machine_stops" up to 600_000,
    /// Our mark is taken off a machine.
    MarkStripped = "mark_stripped" up to 600_000,
    /// Somebody else's machine appears, with a mark much like ours.
    ForeignMachine = "foreign_machine" up to 400_000,
    /// A machine says only late that it is ready.
    GuestLate = "guest_late" up to 200_000,
    /// A machine speaks twice, or for a server that is not its own any more.
    GuestRepeats = "guest_repeats" up to 200_000,
    /// A user is never heard of again.
    UserVanishes = "user_vanishes" up to 300_000,
    /// A user does not wait for the answer and asks again.
    UserHasty = "user_hasty" up to 200_000,
    /// Many users come at once.
    UserStorm = "user_storm" up to 600_000,
    /// A config is edited.
    Edit = "edit" up to 500_000,
    /// A config is switched off or on.
    Switch = "switch" up to 400_000,
    /// A config is removed.
    Remove = "remove" up to 300_000,
    /// A server is drained, or taken back.
    Drain = "drain" up to 500_000,
    /// A server is deleted by an operator, some with force.
    Delete = "delete" up to 400_000,
    /// The pool's settings are changed.
    PoolEdit = "pool_edit" up to 300_000,
    /// The host's clock is set back.
    ClockBack = "clock_back" up to 450_000,
    /// A list shows nothing and calls itself complete. Of liars only.
    ListLies = "list_lies" up to 60_000,
    /// A deletion is said to be done and never happens. Of liars only.
    DeleteLies = "delete_lies" up to 500_000,
    /// One request makes two machines. Of liars only.
    CreateTwice = "create_twice" up to 800_000,
}

/// How much goes wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Profile {
    /// Hardly anything.
    Calm,
    /// Some of it, with restraint.
    Rough,
    /// Most of it, with full force.
    Hell,
}

impl Profile {
    /// How likely a class of trouble is to occur in this world at all.
    pub(super) const fn share(self) -> u32 {
        match self {
            Self::Calm => 60_000,
            Self::Rough => 300_000,
            Self::Hell => 700_000,
        }
    }
}

/// What a world is like.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    pub(super) profile: Profile,
    pub(super) clouds: Vec<(Personality, FaultRates)>,
    pub(super) pools: u64,
    pub(super) configs: u64,
    pub(super) users: u64,
    pub(super) faults_for: Duration,
    /// Whether all configs are removed the moment the trouble ends, without coming to rest first.
    pub(super) ends_suddenly: bool,
    rates: BTreeMap<Trouble, u32>,
}

impl Weather {
    pub(super) fn drawn(entropy: &mut impl Entropy) -> Self {
        let profile = match entropy.pick(10) {
            0..2 => Profile::Calm,
            2..7 => Profile::Rough,
            _ => Profile::Hell,
        };
        let clouds = (0..entropy.range(1..=3)).map(|_| {
            let index = usize::try_from(entropy.pick(6)).unwrap_or(0);
            let personality = Personality::ALL[index];
            (personality, fault_rates(profile, personality, entropy))
        });
        let clouds: Vec<_> = clouds.collect();
        let pools = entropy.range(1..=2);
        let mut rates = BTreeMap::new();
        for trouble in Trouble::ALL {
            if entropy.chance(profile.share()) {
                rates.insert(*trouble, strength(profile, trouble.most(), entropy));
            }
        }
        Self {
            profile,
            clouds,
            pools,
            configs: entropy.range(1..=3),
            users: entropy.range(2..=16),
            faults_for: Duration::from_secs(entropy.range(4..=40) * 3600),
            ends_suddenly: entropy.chance(250_000),
            rates,
        }
    }

    pub(super) fn rate(&self, trouble: Trouble) -> u32 {
        self.rates.get(&trouble).copied().unwrap_or(0)
    }

    /// All classes of fault that can occur in this world.
    pub(super) fn classes(&self) -> BTreeSet<&'static str> {
        let of_clouds = self
            .clouds
            .iter()
            .flat_map(|(_, rates)| Fault::ALL.into_iter().filter(|fault| rates.rate(*fault) > 0).map(Fault::as_str));
        self.rates.keys().map(|trouble| trouble.as_str()).chain(of_clouds).collect()
    }
}

pub(super) fn strength(profile: Profile, most: u32, entropy: &mut impl Entropy) -> u32 {
    let most = if profile == Profile::Hell { most } else { most / 2 };
    u32::try_from(entropy.range(u64::from(most / 10 + 1)..=u64::from(most.max(2)))).unwrap_or(most)
}

fn fault_rates(profile: Profile, personality: Personality, entropy: &mut impl Entropy) -> FaultRates {
    let mut rates = FaultRates::default();
    for fault in Fault::ALL {
        let most = match fault {
            Fault::CreateError | Fault::DeleteError | Fault::ReadError | Fault::ListPartial => 250_000,
            Fault::LostBeforeEffect | Fault::LostAfterEffect | Fault::ListUntidy => 200_000,
            Fault::LateEffect => 160_000,
            Fault::DiesBooting | Fault::FailsForGood | Fault::BootStuck => 200_000,
            Fault::TokenIgnored => continue,
            Fault::Echo => 200_000,
        };
        if entropy.chance(profile.share()) {
            rates.set(fault, strength(profile, most, entropy));
        }
    }
    if matches!(personality, Personality::ProxmoxLike | Personality::VsphereLike | Personality::Liar) {
        rates.set(Fault::TokenIgnored, MILLION);
    }
    rates
}
