//! How a simulated cloud behaves: times, limits and faults.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use core::time::Duration;

use serde_json::Value;

use crate::fields::{Fields, JsonObject, Problem, shown};
use crate::ports::ErrorKind;
use crate::testing::entropy::MILLION;
use crate::time::Span;

/// The longest time any setting may have.
const LONGEST: Duration = Duration::from_secs(86_400);

/// What can go wrong by chance. Each has a rate in [`FaultRates`], and each occurrence is counted
/// ([`SimCloud::hits`](super::SimCloud::hits)), so that a test can tell a fault survived from a fault that never came.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Fault {
    /// A create is refused, certainly without effect; the kind of error is drawn by
    /// [`CloudSettings::create_errors`].
    CreateError,
    /// A create or delete gets no answer and had no effect.
    LostBeforeEffect,
    /// A create or delete had its effect, and its answer is lost.
    LostAfterEffect,
    /// A create gets no answer, and has its effect only after [`CloudSettings::late_effect`].
    LateEffect,
    /// A create whose token is known makes another machine all the same, as in systems without idempotency.
    TokenIgnored,
    /// A machine powers off between power-on and the end of its boot.
    DiesBooting,
    /// A machine is broken for good when it should have powered on.
    FailsForGood,
    /// A machine is powered on, and its operating system never answers.
    BootStuck,
    /// A delete fails, and had no effect, though nothing says so.
    DeleteError,
    /// A list ends early and says that it is not complete.
    ListPartial,
    /// A list comes in another order, one machine twice.
    ListUntidy,
    /// A find or list fails.
    ReadError,
    /// A create is refused with an error that repeats the request, start-up data included, as some systems do.
    Echo,
}

impl Fault {
    /// Every fault, in the order of the enum.
    pub const ALL: [Self; 13] = [
        Self::CreateError,
        Self::LostBeforeEffect,
        Self::LostAfterEffect,
        Self::LateEffect,
        Self::TokenIgnored,
        Self::DiesBooting,
        Self::FailsForGood,
        Self::BootStuck,
        Self::DeleteError,
        Self::ListPartial,
        Self::ListUntidy,
        Self::ReadError,
        Self::Echo,
    ];

    /// The fault in the words of settings: `create_error`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CreateError => "create_error",
            Self::LostBeforeEffect => "lost_before_effect",
            Self::LostAfterEffect => "lost_after_effect",
            Self::LateEffect => "late_effect",
            Self::TokenIgnored => "token_ignored",
            Self::DiesBooting => "dies_booting",
            Self::FailsForGood => "fails_for_good",
            Self::BootStuck => "boot_stuck",
            Self::DeleteError => "delete_error",
            Self::ListPartial => "list_partial",
            Self::ListUntidy => "list_untidy",
            Self::ReadError => "read_error",
            Self::Echo => "echo",
        }
    }
}

/// How often each fault strikes, in chances per million of the occasions it has. By default none ever does.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FaultRates {
    rates: BTreeMap<Fault, u32>,
}

impl FaultRates {
    /// Chances per million that this fault strikes.
    pub fn rate(&self, fault: Fault) -> u32 {
        self.rates.get(&fault).copied().unwrap_or(0)
    }

    /// Sets the chances per million; a million and more is every time.
    pub fn set(&mut self, fault: Fault, per_million: u32) {
        self.rates.insert(fault, per_million);
    }

    /// The same rates, but for this fault.
    #[must_use]
    pub fn with(mut self, fault: Fault, per_million: u32) -> Self {
        self.set(fault, per_million);
        self
    }
}

/// How a simulated cloud behaves. Times are drawn anew for each machine, both bounds included, in whole milliseconds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CloudSettings {
    /// From the acceptance of a create to power-on. At most a day.
    pub provision_time: RangeInclusive<Duration>,
    /// From power-on until the operating system answers. At most a day.
    pub boot_time: RangeInclusive<Duration>,
    /// From the acceptance of a delete until the machine is gone. At most a day.
    pub delete_time: RangeInclusive<Duration>,
    /// How long a new machine is missing from find and list, and how long a deleted one is still shown. At most a day.
    pub visibility_lag: RangeInclusive<Duration>,
    /// How much later a create struck by [`Fault::LateEffect`] is carried out. At most a day.
    pub late_effect: RangeInclusive<Duration>,
    /// How many machines there is room for, foreign ones included; beyond that [`ErrorKind::NoCapacity`].
    pub capacity: u32,
    /// How many machines we may have; beyond that [`ErrorKind::Quota`].
    pub quota: u32,
    /// Calls per second of all kinds together; beyond that [`ErrorKind::Throttled`]. 0: no limit.
    pub calls_per_second: u32,
    /// Calls that may come at once after a pause; at least 1.
    pub calls_burst: u32,
    /// Disks, network cards and the like that are made and deleted with each machine.
    pub dependents: u32,
    /// Whether creates and deletes answer with an operation to poll.
    pub operations: bool,
    /// How creates fail when [`Fault::CreateError`] strikes: kinds and their weights. If no weight is greater than 0, with
    /// [`ErrorKind::Transient`].
    pub create_errors: BTreeMap<ErrorKind, u32>,
    /// How often what goes wrong.
    pub faults: FaultRates,
}

impl Default for CloudSettings {
    /// A cloud as it should be: Windows machines in minutes, no limit that matters, no lag, no faults.
    fn default() -> Self {
        let secs = |from, to| Duration::from_secs(from)..=Duration::from_secs(to);
        Self {
            provision_time: secs(5, 20),
            boot_time: secs(60, 180),
            delete_time: secs(10, 40),
            visibility_lag: secs(0, 0),
            late_effect: secs(1, 300),
            capacity: 100_000,
            quota: 100_000,
            calls_per_second: 0,
            calls_burst: 1,
            dependents: 2,
            operations: false,
            create_errors: BTreeMap::from([
                (ErrorKind::NoCapacity, 6),
                (ErrorKind::Quota, 1),
                (ErrorKind::Transient, 3),
            ]),
            faults: FaultRates::default(),
        }
    }
}

impl CloudSettings {
    /// Reads settings from an object; what is not there is as in [`Default`].
    ///
    /// Each time is two fields, `boot_time_min` and `boot_time_max`; if only one is given it is both. `faults` is an object
    /// of chances per million by [`Fault::as_str`], and `create_errors` one of weights by [`ErrorKind::as_str`].
    ///
    /// ```
    /// use kasm_autoscale_core::testing::cloud::{CloudSettings, Fault};
    /// let object = serde_json::from_str(r#"{"boot_time_min": "2s", "faults": {"boot_stuck": 500}}"#).unwrap();
    /// let settings = CloudSettings::from_json(&object).unwrap();
    /// assert_eq!(settings.boot_time.end().as_secs(), 2);
    /// assert_eq!(settings.faults.rate(Fault::BootStuck), 500);
    /// ```
    pub fn from_json(object: &JsonObject) -> Result<Self, Vec<Problem>> {
        let mut fields = Fields::new(object);
        let settings = Self::read(&mut fields, Self::default());
        let problems = fields.finish();
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }

    /// Takes the fields of these settings from a reader whose object may have others too; what is not there is as in
    /// `defaults`.
    pub fn read(fields: &mut Fields<'_>, defaults: Self) -> Self {
        let counts = 1..=100_000;
        Self {
            provision_time: times(fields, "provision_time_min", "provision_time_max", defaults.provision_time),
            boot_time: times(fields, "boot_time_min", "boot_time_max", defaults.boot_time),
            delete_time: times(fields, "delete_time_min", "delete_time_max", defaults.delete_time),
            visibility_lag: times(fields, "visibility_lag_min", "visibility_lag_max", defaults.visibility_lag),
            late_effect: times(fields, "late_effect_min", "late_effect_max", defaults.late_effect),
            capacity: fields.integer("capacity", counts.clone()).unwrap_or(defaults.capacity),
            quota: fields.integer("quota", counts).unwrap_or(defaults.quota),
            calls_per_second: fields.integer("calls_per_second", 0..=100_000).unwrap_or(defaults.calls_per_second),
            calls_burst: fields.integer("calls_burst", 1..=100_000).unwrap_or(defaults.calls_burst),
            dependents: fields.integer("dependents", 0..=16).unwrap_or(defaults.dependents),
            operations: fields.boolean("operations").unwrap_or(defaults.operations),
            create_errors: create_errors(fields).unwrap_or(defaults.create_errors),
            faults: faults(fields).unwrap_or(defaults.faults),
        }
    }
}

fn times(
    fields: &mut Fields<'_>,
    min: &'static str,
    max: &'static str,
    default: RangeInclusive<Duration>,
) -> RangeInclusive<Duration> {
    let least = fields.span(min, Duration::ZERO..=LONGEST);
    let most = fields.span(max, Duration::ZERO..=LONGEST);
    match (least, most) {
        (None, None) => default,
        (Some(both), None) | (None, Some(both)) => both..=both,
        (Some(least), Some(most)) if least <= most => least..=most,
        (Some(least), Some(most)) => {
            let allowed = alloc::format!("a duration not shorter than {min}, which is \"{}\"", Span(least));
            fields.problem(Problem::new(max, alloc::format!("\"{}\"", Span(most)), allowed));
            default
        }
    }
}

fn faults(fields: &mut Fields<'_>) -> Option<FaultRates> {
    let mut inner = Fields::new(fields.object("faults")?);
    let mut rates = FaultRates::default();
    for fault in Fault::ALL {
        if let Some(rate) = inner.integer(fault.as_str(), 0..=MILLION.into()) {
            rates.set(fault, rate);
        }
    }
    inner.finish().into_iter().for_each(|problem| fields.problem(problem.below("faults")));
    Some(rates)
}

/// [`ErrorKind::Protected`] is not among the kinds: it is an answer to deletes only.
fn create_errors(fields: &mut Fields<'_>) -> Option<BTreeMap<ErrorKind, u32>> {
    const KINDS: [ErrorKind; 7] = [
        ErrorKind::NoCapacity,
        ErrorKind::Quota,
        ErrorKind::Throttled,
        ErrorKind::Denied,
        ErrorKind::Invalid,
        ErrorKind::Conflict,
        ErrorKind::Transient,
    ];
    let object = fields.object("create_errors")?;
    let mut inner = Fields::new(object);
    let mut weights = BTreeMap::new();
    for kind in KINDS {
        weights.extend(inner.integer(kind.as_str(), 0..=MILLION.into()).map(|weight: u32| (kind, weight)));
    }
    let problems = inner.finish();
    if problems.is_empty() && weights.values().all(|weight| *weight == 0) {
        let given = shown(&Value::Object(object.clone()));
        fields.problem(Problem::new("create_errors", given, "at least one weight greater than 0"));
    }
    problems.into_iter().for_each(|problem| fields.problem(problem.below("create_errors")));
    Some(weights)
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;

    fn problems(json: &str) -> Vec<String> {
        let object = serde_json::from_str(json).unwrap();
        let problems = CloudSettings::from_json(&object).expect_err("problems");
        problems.iter().map(|problem| problem.path.clone()).collect()
    }

    #[test]
    fn settings_are_read_with_every_mistake_named() {
        let json = r#"{
            "provision_time_min": "500ms", "provision_time_max": "1s", "boot_time_max": 7, "capacity": 10, "quota": 9,
            "calls_per_second": 5, "calls_burst": 2, "dependents": 0, "operations": true,
            "create_errors": {"denied": 2}, "faults": {"lost_after_effect": 1000000}
        }"#;
        let settings = CloudSettings::from_json(&serde_json::from_str(json).unwrap()).unwrap();
        let expected = CloudSettings {
            provision_time: Duration::from_millis(500)..=Duration::from_secs(1),
            boot_time: Duration::from_secs(7)..=Duration::from_secs(7),
            capacity: 10,
            quota: 9,
            calls_per_second: 5,
            calls_burst: 2,
            dependents: 0,
            operations: true,
            create_errors: BTreeMap::from([(ErrorKind::Denied, 2)]),
            faults: FaultRates::default().with(Fault::LostAfterEffect, MILLION),
            ..CloudSettings::default()
        };
        assert_eq!(settings, expected);
        assert_eq!(CloudSettings::from_json(&serde_json::Map::new()), Ok(CloudSettings::default()));

        assert_eq!(problems(r#"{"boot_time_min": "3s", "boot_time_max": "2s"}"#), ["boot_time_max"]);
        assert_eq!(
            problems(r#"{"delete_time_min": "25h", "capacity": 0, "boot_tine_min": 1}"#),
            ["delete_time_min", "capacity", "boot_tine_min"]
        );
        assert_eq!(
            problems(r#"{"faults": {"boot_stuck": 1000001, "gremlins": 1}}"#),
            ["faults.boot_stuck", "faults.gremlins"]
        );
        assert_eq!(problems(r#"{"create_errors": {}}"#), ["create_errors"]);
        assert_eq!(problems(r#"{"create_errors": {"protected": 1}}"#), ["create_errors.protected"]);
    }
}
