//! A provider without a cloud: machines are simulated, their ports are real.
//!
//! It answers as the core's [`SimCloud`] does, with its delays, limits and
//! faults, on the real clock. A machine that is powered on has a listener on the loopback address; once it has booted, that
//! listener answers the first words of RDP, SSH and VNC, so that a real prober finds it ready. Nothing is ever reachable
//! from another host.
//!
//! The machines live in the process: after a restart they are gone, as if an operator had deleted them all. Those that end
//! for any reason are remembered for an hour, then their tokens are forgotten.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use kasm_autoscale_core::fields::{Fields, JsonObject, Problem};
use kasm_autoscale_core::id::{PoolId, ServerKey};
use kasm_autoscale_core::ports::{
    Address, Capabilities, Certainty, ErrorKind, Finding, Listing, Machine, MachineRef, MachineState, OpRef, Progress,
    ProviderError, ServerSpec, VmProvider,
};
use kasm_autoscale_core::testing::cloud::{Answer, SimCloud};
use kasm_autoscale_core::time::Timestamp;
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinSet};

use crate::words::{parts_to_hide, readable};

mod guest;
mod settings;

pub use kasm_autoscale_core::testing::cloud::Booted;
pub use settings::{MACHINES_MAX, SimulatedSettings};

/// Tells the time, from any beginning, never backwards.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How many boots may wait for whoever asked for them.
const BOOTED_WAITING_MAX: usize = 4096;
/// How long ended machines and their tokens are remembered.
const MEMORY: Duration = Duration::from_secs(3600);
/// When to try again to open a listener that could not be opened.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// The simulated provider. The module's documentation says what it does.
///
/// Its calls must be made within a Tokio runtime with time and I/O enabled. All its tasks and listeners end with it.
pub struct SimulatedProvider {
    shared: Arc<Shared>,
}

struct Shared {
    settings: SimulatedSettings,
    clock: Clock,
    world: Mutex<World>,
    /// Wakes the task that carries out what comes with time, when there may be something new to come.
    wake: Notify,
}

struct World {
    cloud: SimCloud,
    guests: BTreeMap<MachineRef, Guest>,
    /// What will be said of machines at their boot.
    starting: BTreeMap<MachineRef, Booted>,
    booted: Option<mpsc::Sender<Booted>>,
    driver: Option<AbortHandle>,
}

/// The operating system of a machine that is powered on.
struct Guest {
    port: u16,
    /// There until it has booted. Clients can connect, and wait for words, as with a real one that is not up yet.
    listener: Option<TcpListener>,
    /// Its one task, from boot on. Dropping the set ends it.
    tasks: JoinSet<()>,
}

impl SimulatedProvider {
    /// A provider without machines. Its time is what has passed since, by the system's monotonic clock.
    pub fn new(settings: SimulatedSettings) -> Self {
        Self::with_clock(settings, stopwatch())
    }

    /// A provider without machines, on this clock. Where the clock does not go as Tokio's does, what comes with time is
    /// carried out at the next call.
    pub fn with_clock(mut settings: SimulatedSettings, clock: Clock) -> Self {
        settings.cloud.capacity = settings.cloud.capacity.min(MACHINES_MAX);
        let world = World {
            cloud: SimCloud::new(settings.cloud.clone(), settings.seed),
            guests: BTreeMap::new(),
            starting: BTreeMap::new(),
            booted: None,
            driver: None,
        };
        Self { shared: Arc::new(Shared { settings, clock, world: Mutex::new(world), wake: Notify::new() }) }
    }

    /// Every boot from now on, for a host that plays the part of the guest and checks its server in. The last one who asked
    /// gets them; while 4,096 wait to be received, further ones are dropped.
    pub fn booted(&self) -> mpsc::Receiver<Booted> {
        let (sender, receiver) = mpsc::channel(BOOTED_WAITING_MAX);
        self.shared.world().booted = Some(sender);
        receiver
    }

    /// Looks into the cloud or lays hands on it, now: [`SimCloud::kill`], [`SimCloud::settings_mut`] and so on. Machines beyond
    /// [`MACHINES_MAX`] get no address.
    pub fn with_cloud<T>(&self, act: impl FnOnce(&mut SimCloud, Timestamp) -> T) -> T {
        self.shared.call(|world, now| act(&mut world.cloud, now))
    }
}

impl Drop for SimulatedProvider {
    fn drop(&mut self) {
        let mut world = self.shared.world();
        if let Some(driver) = world.driver.take() {
            driver.abort();
        }
        world.guests.clear();
    }
}

impl fmt::Debug for SimulatedProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedProvider").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

#[async_trait]
impl VmProvider for SimulatedProvider {
    fn describe(&self) -> Capabilities {
        let settings = &self.shared.settings;
        Capabilities {
            kind: "simulated",
            visibility_lag: *settings.cloud.visibility_lag.end(),
            poll_busy: settings.poll_busy,
            poll_idle: settings.poll_idle,
            creates_in_flight_max: settings.creates_in_flight_max,
            call_timeout: settings.call_timeout,
            offering: &["size"],
        }
    }

    /// The one field is `size`, a text that changes nothing. User data may have any size.
    fn check(&self, machine: &JsonObject, _user_data_bytes: usize) -> Vec<Problem> {
        let mut fields = Fields::new(machine);
        fields.text("size");
        fields.finish()
    }

    /// Any size will do, so only limits and certain refusals are found: see [`SimCloud::preflight`].
    async fn preflight(&self, _machine: &JsonObject) -> Result<Vec<Finding>, ProviderError> {
        let answer = self.shared.call(|world, now| world.cloud.preflight(now));
        tracing::debug!(?answer, "simulated preflight");
        answer
    }

    async fn create(&self, spec: &ServerSpec) -> Result<Progress, ProviderError> {
        let answer = self.shared.call(|world, now| {
            let answer = world.cloud.create(now, spec);
            // What was made, if anything, is asked of the truth: the answer may be lost.
            let made = world.cloud.machines_of(&spec.marker.server).last();
            if let Some(machine) = made.filter(|machine| machine.booted_at.is_some_and(|at| at >= now)) {
                let booted = || Booted::new(machine.reference.clone(), spec);
                world.starting.entry(machine.reference.clone()).or_insert_with(booted);
            }
            answered(answer).map_err(|error| without_user_data(error, spec))
        });
        tracing::debug!(server = %spec.marker.server, ?answer, "simulated create");
        answer
    }

    async fn poll(&self, op: &OpRef) -> Result<Progress, ProviderError> {
        let answer = self.shared.call(|world, now| world.cloud.poll(now, op));
        tracing::debug!(%op, ?answer, "simulated poll");
        answer
    }

    async fn find(&self, server: &ServerKey) -> Result<Option<Machine>, ProviderError> {
        let answer = self.shared.call(|world, now| {
            let machine = world.cloud.find(now, server)?;
            Ok(machine.map(|machine| world.addressed(machine)))
        });
        tracing::debug!(server = %server.uuid(), ?answer, "simulated find");
        answer
    }

    async fn list(&self, pool: &PoolId) -> Result<Listing, ProviderError> {
        let answer = self.shared.call(|world, now| {
            let Listing { machines, complete } = world.cloud.list(now, pool)?;
            Ok(Listing { machines: machines.into_iter().map(|machine| world.addressed(machine)).collect(), complete })
        });
        tracing::debug!(%pool, machines = ?answer.as_ref().map(|listing: &Listing| listing.machines.len()), "simulated list");
        answer
    }

    async fn delete(&self, machine: &MachineRef) -> Result<Progress, ProviderError> {
        let answer = self.shared.call(|world, now| answered(world.cloud.delete(now, machine)));
        tracing::debug!(%machine, ?answer, "simulated delete");
        answer
    }
}

/// The time since now. No instant of the cloud ever leaves the provider, so it needs no calendar, and a clock that cannot be
/// set cannot surprise it. It is Tokio's, so a paused runtime pauses it.
fn stopwatch() -> Clock {
    let start = tokio::time::Instant::now();
    Arc::new(move || Timestamp::default() + start.elapsed())
}

fn answered<T>(answer: Answer<T>) -> Result<T, ProviderError> {
    answer.unwrap_or_else(|lost| {
        Err(ProviderError::new(ErrorKind::Transient, Certainty::Unknown, "ReplyLost", &lost.to_string()))
    })
}

/// Clouds repeat requests in their errors, and start-up data holds secrets.
fn without_user_data(mut error: ProviderError, spec: &ServerSpec) -> ProviderError {
    let data = spec.user_data.as_ref().map(ExposeSecret::expose_secret).unwrap_or_default();
    error.message = readable(&error.message, &parts_to_hide(data));
    error
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        // A panic leaves nothing half done that the next settling does not mend.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the world as it is now, and lets the machines follow. Within a runtime only.
    fn call<T>(self: &Arc<Self>, act: impl FnOnce(&mut World, Timestamp) -> T) -> T {
        let mut world = self.world();
        if world.driver.as_ref().is_none_or(AbortHandle::is_finished) {
            world.driver = Some(tokio::spawn(Arc::clone(self).drive()).abort_handle());
        }
        let now = (self.clock)();
        // Before, so that a machine which has just been powered on is shown with its address.
        world.settle(now);
        let result = act(&mut world, now);
        world.settle(now);
        drop(world);
        self.wake.notify_one();
        result
    }

    /// Carries out what comes with time, until it is aborted.
    async fn drive(self: Arc<Self>) {
        loop {
            let wait = {
                let mut world = self.world();
                let now = (self.clock)();
                world.cloud.forget(now - MEMORY);
                let settled = world.settle(now);
                let next = world.cloud.next_change(now).map(|at| at.since(now));
                if settled { next } else { Some(next.map_or(LISTEN_AGAIN, |wait| wait.min(LISTEN_AGAIN))) }
            };
            match wait {
                Some(wait) => tokio::time::timeout(wait, self.wake.notified()).await.unwrap_or_default(),
                None => self.wake.notified().await,
            }
        }
    }
}

impl World {
    /// Ends the guests of machines that run no more, and begins those of machines that do now. False: a listener could not
    /// be opened, and will be tried again.
    fn settle(&mut self, now: Timestamp) -> bool {
        let Self { cloud, guests, starting, booted, .. } = self;
        let state = |reference: &MachineRef| cloud.machine(reference).map(|machine| machine.state(now));
        guests.retain(|reference, _| state(reference) == Some(MachineState::Running));
        let may_boot = |state| matches!(state, MachineState::Provisioning | MachineState::Running);
        starting.retain(|reference, _| state(reference).is_some_and(may_boot));
        let mut settled = true;
        for machine in cloud.live(now).filter(|machine| machine.state(now) == MachineState::Running) {
            if !guests.contains_key(&machine.reference) {
                match Guest::power_on(guests.len()) {
                    Ok(guest) => drop(guests.insert(machine.reference.clone(), guest)),
                    Err(error) => {
                        // Once is enough: what stops one mostly stops them all.
                        if settled {
                            tracing::warn!(machine = %machine.reference, %error, "a simulated machine has no listener yet");
                        }
                        settled = false;
                    }
                }
            }
            let listener = guests.get_mut(&machine.reference).filter(|_| machine.answers(now));
            if listener.is_some_and(Guest::boot)
                && let Some(start) = starting.remove(&machine.reference)
                && let Some(Err(error)) = booted.as_ref().map(|booted| booted.try_send(start))
            {
                tracing::debug!(%error, "nobody was told of a simulated boot");
            }
        }
        settled
    }

    /// The machine with the address at which it is really reached.
    fn addressed(&self, machine: Machine) -> Machine {
        let guest = self.guests.get(&machine.reference).filter(|_| machine.address.is_some());
        let address = guest.map(|guest| Address { host: Ipv4Addr::LOCALHOST.to_string(), port: Some(guest.port) });
        Machine { address, ..machine }
    }
}

impl Guest {
    /// Opens the port, beside so many others.
    fn power_on(others: usize) -> std::io::Result<Self> {
        if u32::try_from(others).is_ok_and(|others| others >= MACHINES_MAX) {
            return Err(std::io::Error::other(format!("there are {others} listeners already")));
        }
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        Ok(Self { port: listener.local_addr()?.port(), listener: Some(listener), tasks: JoinSet::new() })
    }

    /// Begins to answer, unless it does already; says whether it has begun now.
    fn boot(&mut self) -> bool {
        let listener = self.listener.take();
        listener.map(|listener| self.tasks.spawn(guest::serve(listener))).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use kasm_autoscale_core::id::{ConfigId, DeploymentId, ServerId};
    use kasm_autoscale_core::ports::Marker;

    use super::*;

    /// User data holds secrets: it is kept until the boot it is told at, or until there can be none.
    #[tokio::test]
    async fn user_data_is_kept_no_longer_than_a_boot_may_come() {
        let time = Arc::new(AtomicU64::new(0));
        let moved = Arc::clone(&time);
        let clock: Clock = Arc::new(move || Timestamp::from_millis(moved.load(Ordering::SeqCst)));
        let provider = SimulatedProvider::with_clock(SimulatedSettings::default(), clock);
        let server = |serial| ServerKey { pool: PoolId::from_bytes([1; 16]), server: ServerId::new(serial) };
        for key in [server(1), server(2)] {
            let deployment = DeploymentId::from_bytes([2; 16]);
            let marker = Marker { deployment, pool: key.pool, config: ConfigId::new(1), server: key.uuid() };
            let (name, token, user_data) = (key.machine_name(), key.uuid(), Some("secret".to_owned().into()));
            let spec = ServerSpec { server: key, marker, name, token, machine: JsonObject::new(), user_data };
            provider.create(&spec).await.unwrap();
        }
        let kept = || provider.shared.world().starting.len();
        assert_eq!(kept(), 2);
        let first = provider.find(&server(1)).await.unwrap().unwrap();
        provider.delete(&first.reference).await.unwrap();
        assert_eq!(kept(), 1);
        time.store(60_000, Ordering::SeqCst);
        provider.find(&server(2)).await.unwrap();
        assert_eq!(kept(), 0);
    }
}
