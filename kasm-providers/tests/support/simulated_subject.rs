//! The simulated provider as a subject of the conformance kit, in virtual time.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use kasm_autoscale_core::fields::JsonObject;
use kasm_autoscale_core::id::PoolId;
use kasm_autoscale_core::ports::{MachineRef, Marker, VmProvider};
use kasm_autoscale_core::testing::cloud::{CloudSettings, Fault};
use kasm_autoscale_core::testing::conformance::{Subject, Trouble, Truth};
use kasm_autoscale_core::testing::entropy::MILLION;
use kasm_autoscale_core::time::Timestamp;
use kasm_providers::simulated::{SimulatedProvider, SimulatedSettings};

/// What may stand between the kit and the provider.
pub(crate) type Wrap = Box<dyn Fn(Arc<SimulatedProvider>) -> Arc<dyn VmProvider> + Send + Sync>;

pub(crate) struct Simulated {
    pub(crate) provider: Arc<SimulatedProvider>,
    time: Arc<AtomicU64>,
    healthy: CloudSettings,
    /// Whether machines that die while booting are shown as failed, not as stopped.
    pub(crate) fails_for_good: bool,
    wrap: Wrap,
}

fn secs(from: u64, to: u64) -> RangeInclusive<Duration> {
    Duration::from_secs(from)..=Duration::from_secs(to)
}

impl Simulated {
    pub(crate) fn new(operations: bool, wrap: Wrap) -> Self {
        let time = Arc::new(AtomicU64::new(0));
        let read = Arc::clone(&time);
        let clock = Arc::new(move || Timestamp::from_millis(read.load(Ordering::SeqCst)));
        let cloud = CloudSettings {
            provision_time: secs(1, 5),
            boot_time: secs(5, 20),
            delete_time: secs(1, 10),
            visibility_lag: secs(0, 20),
            capacity: 1000,
            operations,
            ..CloudSettings::default()
        };
        let settings = SimulatedSettings { cloud: cloud.clone(), seed: 7, ..SimulatedSettings::default() };
        let provider = Arc::new(SimulatedProvider::with_clock(settings, clock));
        Self { provider, time, healthy: cloud, fails_for_good: false, wrap }
    }

    /// The provider as it is.
    pub(crate) fn plain(operations: bool) -> Self {
        Self::new(operations, Box::new(|provider| provider))
    }

    /// Lets milliseconds pass, for whoever waits where they should not.
    pub(crate) fn hand_of_the_clock(&self) -> Arc<dyn Fn(u64) + Send + Sync> {
        let time = Arc::clone(&self.time);
        Arc::new(move |millis| _ = time.fetch_add(millis, Ordering::SeqCst))
    }

    fn fault(&self, fault: Fault) {
        self.provider.with_cloud(|cloud, _| cloud.settings_mut().faults.set(fault, MILLION));
    }
}

#[async_trait]
impl Subject for Simulated {
    async fn provider(&self) -> Arc<dyn VmProvider> {
        (self.wrap)(Arc::clone(&self.provider))
    }

    fn machine(&self) -> JsonObject {
        serde_json::from_str(r#"{"size": "small"}"#).expect("an object")
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.time.load(Ordering::SeqCst))
    }

    async fn pass(&self, span: Duration) {
        let millis = u64::try_from(span.as_millis()).expect("a short time");
        self.time.fetch_add(millis, Ordering::SeqCst);
    }

    fn never(&self) -> Option<String> {
        Some("sim-00ffffff".to_owned())
    }

    async fn inject(&self, trouble: &Trouble) -> bool {
        let cloud = |act: &mut dyn FnMut(&mut CloudSettings)| {
            self.provider.with_cloud(|cloud, _| act(cloud.settings_mut()));
        };
        match trouble {
            Trouble::ReplyLostBefore => self.fault(Fault::LostBeforeEffect),
            Trouble::ReplyLostAfter => self.fault(Fault::LostAfterEffect),
            Trouble::Hide => cloud(&mut |settings| settings.visibility_lag = secs(20, 20)),
            Trouble::PartialList => self.fault(Fault::ListPartial),
            Trouble::FailReads => self.fault(Fault::ReadError),
            Trouble::Throttle => {
                cloud(&mut |settings| settings.calls_per_second = 1);
                // The first call comes out of the burst.
                drop(self.provider.list(&PoolId::from_bytes([0; 16])).await);
            }
            Trouble::Quota => cloud(&mut |settings| settings.quota = 0),
            Trouble::NoCapacity => cloud(&mut |settings| settings.capacity = 0),
            Trouble::SlowDelete(time) => cloud(&mut |settings| settings.delete_time = *time..=*time),
            Trouble::DieBooting if self.fails_for_good => self.fault(Fault::FailsForGood),
            Trouble::DieBooting => self.fault(Fault::DiesBooting),
            Trouble::Echo => self.fault(Fault::Echo),
            Trouble::Strip(machine) => return self.provider.with_cloud(|cloud, now| cloud.strip_marker(now, machine)),
            Trouble::Confuse(machine) => {
                return self.provider.with_cloud(|cloud, now| cloud.confuse(now, machine, "migrating"));
            }
        }
        true
    }

    async fn heal(&self) {
        self.provider.with_cloud(|cloud, _| *cloud.settings_mut() = self.healthy.clone());
    }

    async fn add_foreign(&self, marker: Option<&Marker>, name: &str) -> Option<MachineRef> {
        Some(self.provider.with_cloud(|cloud, now| cloud.add_foreign(now, marker.cloned(), name)))
    }

    async fn truth(&self) -> Option<Truth> {
        Some(self.provider.with_cloud(|cloud, now| {
            let machines: Vec<_> = cloud.live(now).collect();
            Truth {
                parts: machines.iter().map(|machine| u64::from(machine.dependents)).sum(),
                machines: machines.into_iter().map(|machine| machine.reference.clone()).collect(),
                calls: Some(cloud.calls_total()),
            }
        }))
    }
}
