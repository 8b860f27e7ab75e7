//! The settings of a simulated provider.

use std::ops::RangeInclusive;
use std::time::Duration;

use kasm_autoscale_core::fields::{Fields, JsonObject, Problem};
use kasm_autoscale_core::testing::cloud::CloudSettings;

/// The most machines a simulated provider makes. Each has a listener, and each listener is an open file.
pub const MACHINES_MAX: u32 = 2_000;

/// How a simulated provider behaves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SimulatedSettings {
    /// The cloud. Its capacity is cut to [`MACHINES_MAX`].
    pub cloud: CloudSettings,
    /// What all chances follow from.
    pub seed: u64,
    /// How often to list while something is expected to change: 10 ms to 1 hour.
    pub poll_busy: Duration,
    /// How often to list while nothing is: 10 ms to 1 hour.
    pub poll_idle: Duration,
    /// Creates that may be under way at once, per config: 1 to 1,000.
    pub creates_in_flight_max: u32,
    /// After what time an unanswered call counts as lost: 10 ms to 1 hour. No call takes that long; one whose answer is
    /// lost is answered by an error at once.
    pub call_timeout: Duration,
}

impl Default for SimulatedSettings {
    /// A cloud to look at: quick, without lag or faults.
    fn default() -> Self {
        let millis = |from, to| -> RangeInclusive<Duration> { Duration::from_millis(from)..=Duration::from_millis(to) };
        Self {
            cloud: CloudSettings {
                provision_time: millis(500, 1000),
                boot_time: millis(2000, 4000),
                delete_time: millis(500, 1000),
                capacity: MACHINES_MAX,
                ..CloudSettings::default()
            },
            seed: 0,
            poll_busy: Duration::from_millis(250),
            poll_idle: Duration::from_secs(5),
            creates_in_flight_max: 20,
            call_timeout: Duration::from_secs(5),
        }
    }
}

impl SimulatedSettings {
    /// Reads a provider's table, without its `kind`. What is not there is as in [`Default`]; the fields of
    /// [`CloudSettings::from_json`] stand in the same table.
    ///
    /// ```
    /// use kasm_providers::simulated::SimulatedSettings;
    /// let table = serde_json::from_str(r#"{"seed": 7, "boot_time_min": "1s", "poll_idle": "1s"}"#).unwrap();
    /// assert_eq!(SimulatedSettings::from_json(&table).unwrap().seed, 7);
    /// ```
    pub fn from_json(table: &JsonObject) -> Result<Self, Vec<Problem>> {
        let bounds = || Duration::from_millis(10)..=Duration::from_secs(3600);
        let defaults = Self::default();
        let mut fields = Fields::new(table);
        let mut settings = Self {
            cloud: CloudSettings::read(&mut fields, defaults.cloud),
            seed: fields.integer("seed", 0..=u64::MAX).unwrap_or(defaults.seed),
            poll_busy: fields.span("poll_busy", bounds()).unwrap_or(defaults.poll_busy),
            poll_idle: fields.span("poll_idle", bounds()).unwrap_or(defaults.poll_idle),
            creates_in_flight_max: fields
                .integer("creates_in_flight_max", 1..=1000)
                .unwrap_or(defaults.creates_in_flight_max),
            call_timeout: fields.span("call_timeout", bounds()).unwrap_or(defaults.call_timeout),
        };
        if settings.cloud.capacity > MACHINES_MAX {
            let allowed = format!("at most {MACHINES_MAX}: each simulated machine has a listener");
            fields.problem(Problem::new("capacity", settings.cloud.capacity.to_string(), allowed));
            settings.cloud.capacity = MACHINES_MAX;
        }
        let problems = fields.finish();
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }
}
