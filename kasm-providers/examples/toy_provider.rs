//! A complete provider, for a cloud that is a map in memory, held against the contract.
//!
//! `cargo run -p kasm-providers --features simulated --example toy_provider` prints the kit's report. The guide in this
//! crate's README goes through it. Three parts, as in every provider: the system (here `Toys`, elsewhere an SDK or HTTP),
//! the provider that speaks to it, and the subject that lets the kit make trouble.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use kasm_autoscale_core::fields::{Fields, JsonObject, Problem};
use kasm_autoscale_core::id::{DeploymentId, PoolId, ServerKey};
use kasm_autoscale_core::ports::{
    Address, Capabilities, Certainty, ErrorKind, Finding, Listing, Machine, MachineRef, MachineState, Marker, OpRef,
    Progress, ProviderError, Scope, ServerSpec, VmProvider,
};
use kasm_autoscale_core::testing::conformance::{Report, Subject, Trouble, Truth, run};
use kasm_autoscale_core::time::Timestamp;

// --- the system: what would be somebody else's cloud ---

/// One toy as its cloud knows it.
#[derive(Clone)]
struct Toy {
    /// The labels that were put on it when it was made.
    labels: Option<Marker>,
    /// The request that made it, to know it again.
    request: String,
    powered_at: u64,
    breaks_at: Option<u64>,
    removed_at: Option<u64>,
    phase: Option<&'static str>,
}

/// The cloud: its names for things are not the core's, nor are its errors.
#[derive(Default)]
struct Toys {
    now: u64,
    calls: u64,
    toys: BTreeMap<String, Toy>,
    trouble: Vec<Trouble>,
}

enum CloudError {
    Busy { seconds: u64 },
    AccountFull,
    SoldOut,
    NameTaken,
    BadRequest(String),
    Gateway,
    ConnectionLost,
}

impl Toys {
    fn on(&self, trouble: &Trouble) -> bool {
        self.trouble.contains(trouble)
    }

    fn call(&mut self, reads: bool) -> Result<(), CloudError> {
        self.calls += 1;
        match () {
            () if self.on(&Trouble::Throttle) => Err(CloudError::Busy { seconds: 2 }),
            () if reads && self.on(&Trouble::FailReads) => Err(CloudError::Gateway),
            () if !reads && self.on(&Trouble::ReplyLostBefore) => Err(CloudError::ConnectionLost),
            () => Ok(()),
        }
    }

    fn make(&mut self, name: &str, labels: &Marker, request: String, script: &str) -> Result<(), CloudError> {
        self.call(false)?;
        if self.on(&Trouble::Quota) {
            return Err(CloudError::AccountFull);
        }
        if self.on(&Trouble::NoCapacity) {
            return Err(CloudError::SoldOut);
        }
        if self.on(&Trouble::Echo) {
            return Err(CloudError::BadRequest(format!("cannot parse {script:?}")));
        }
        match self.toys.get(name) {
            Some(toy) if toy.request == request => (),
            Some(_) => return Err(CloudError::NameTaken),
            None => {
                let breaks_at = self.on(&Trouble::DieBooting).then_some(self.now + 5_000);
                let labels = Some(labels.clone());
                let powered_at = self.now + 3_000;
                let toy = Toy { labels, request, powered_at, breaks_at, removed_at: None, phase: None };
                self.toys.insert(name.to_owned(), toy);
            }
        }
        if self.on(&Trouble::ReplyLostAfter) { Err(CloudError::ConnectionLost) } else { Ok(()) }
    }

    fn show(&mut self) -> Result<(Vec<(String, Toy)>, bool), CloudError> {
        self.call(true)?;
        let mut all: Vec<(String, Toy)> = self.there().map(|(name, toy)| (name.clone(), toy.clone())).collect();
        let whole = !self.on(&Trouble::PartialList);
        if !whole {
            all.pop();
        }
        Ok((all, whole))
    }

    /// Whether there is still something to remove.
    fn remove(&mut self, name: &str) -> Result<bool, CloudError> {
        self.call(false)?;
        let slow = self.trouble.iter().find_map(|trouble| match trouble {
            Trouble::SlowDelete(time) => u64::try_from(time.as_millis()).ok(),
            _ => None,
        });
        let gone_at = self.now + slow.unwrap_or(1_000);
        if let Some(toy) = self.toys.get_mut(name) {
            toy.removed_at.get_or_insert(gone_at);
        }
        let there = self.there().any(|(one, _)| one == name);
        if self.on(&Trouble::ReplyLostAfter) { Err(CloudError::ConnectionLost) } else { Ok(there) }
    }

    fn there(&self) -> impl Iterator<Item = (&String, &Toy)> {
        self.toys.iter().filter(|(_, toy)| toy.removed_at.is_none_or(|at| at > self.now))
    }
}

// --- the provider: the part that you write ---

/// Makes toys.
struct ToyProvider {
    cloud: Arc<Mutex<Toys>>,
    deployment: DeploymentId,
}

impl ToyProvider {
    fn cloud(&self) -> MutexGuard<'_, Toys> {
        self.cloud.lock().expect("nobody panics with it")
    }
}

/// C-04: this cloud has no idempotency tokens, but its names are unique. So the name is the token.
fn name_of(token: &str) -> String {
    format!("toy-{token}")
}

/// C-09, C-20 to C-22: every error gets a kind, a certainty and, where the usual one does not fit, a scope. C-26: the cloud's
/// words are passed on only where they cannot hold what we sent.
fn error_of(error: CloudError, changes: bool) -> ProviderError {
    use Certainty::{NotApplied, Unknown};
    let new = ProviderError::new;
    match error {
        CloudError::Busy { seconds } => ProviderError {
            retry_after: Some(Duration::from_secs(seconds)),
            ..new(ErrorKind::Throttled, NotApplied, "Busy", "too many calls")
        },
        CloudError::AccountFull => {
            new(ErrorKind::Quota, NotApplied, "AccountFull", "the account has all the toys it may have")
        }
        CloudError::SoldOut => new(ErrorKind::NoCapacity, NotApplied, "SoldOut", "there are no toys of this size now"),
        CloudError::NameTaken => new(ErrorKind::Conflict, NotApplied, "NameTaken", "there is another toy of this name"),
        CloudError::BadRequest(words) => {
            let ours = words.split('"').next().unwrap_or_default();
            let message = format!("the cloud does not take the request: {ours}...");
            ProviderError { scope: Scope::Offering, ..new(ErrorKind::Invalid, NotApplied, "BadRequest", &message) }
        }
        // C-13: a read that failed has changed nothing; of a change nobody knows.
        CloudError::Gateway | CloudError::ConnectionLost => {
            new(ErrorKind::Transient, if changes { Unknown } else { NotApplied }, "NoAnswer", "no answer came")
        }
    }
}

fn machine_of(name: String, toy: Toy, now: u64) -> Machine {
    // C-25: what we do not know we do not guess.
    let state = match toy.phase {
        Some(word) => MachineState::Unknown(word.to_owned()),
        None if toy.removed_at.is_some() => MachineState::Deleting,
        None if toy.breaks_at.is_some_and(|at| at <= now) => MachineState::Failed,
        None if toy.powered_at <= now => MachineState::Running,
        None => MachineState::Provisioning,
    };
    // C-23: a failure says why.
    let broken = || ProviderError {
        scope: Scope::Server,
        ..ProviderError::new(ErrorKind::Transient, Certainty::NotApplied, "Broken", "the spring has snapped")
    };
    let runs = state == MachineState::Running;
    Machine {
        fault: (state == MachineState::Failed).then(broken),
        address: runs.then(|| Address { host: format!("{name}.invalid"), port: None }),
        reference: MachineRef(name),
        marker: toy.labels,
        state,
    }
}

#[async_trait]
impl VmProvider for ToyProvider {
    fn describe(&self) -> Capabilities {
        Capabilities {
            kind: "toy",
            visibility_lag: Duration::ZERO,
            poll_busy: Duration::from_secs(1),
            poll_idle: Duration::from_secs(60),
            creates_in_flight_max: 10,
            call_timeout: Duration::from_secs(10),
            offering: &["size"],
        }
    }

    fn check(&self, machine: &JsonObject, _user_data_bytes: usize) -> Vec<Problem> {
        // C-02: `Fields` finds what is missing, wrong or unknown, and names it.
        let mut fields = Fields::new(machine);
        let size = fields.text("size");
        fields.require("size", size, "\"small\" or \"large\"");
        fields.finish()
    }

    async fn preflight(&self, _machine: &JsonObject) -> Result<Vec<Finding>, ProviderError> {
        // C-03: one read shows that the cloud is there and lets us in.
        self.cloud().show().map_err(|error| error_of(error, false))?;
        Ok(Vec::new())
    }

    async fn create(&self, spec: &ServerSpec) -> Result<Progress, ProviderError> {
        use secrecy::ExposeSecret;
        let name = name_of(&spec.token);
        let script = spec.user_data.as_ref().map(ExposeSecret::expose_secret).unwrap_or_default();
        // C-05: all that makes a request another one.
        let request = format!("{:?} {script}", spec.machine);
        // C-06: the labels go with the request that makes it.
        self.cloud().make(&name, &spec.marker, request, script).map_err(|error| error_of(error, true))?;
        // C-07: accepted, not done; the name is known, so the core can look for itself.
        Ok(Progress::Pending { machine: Some(MachineRef(name)), op: None })
    }

    async fn poll(&self, _op: &OpRef) -> Result<Progress, ProviderError> {
        // No answer of ours has an operation; one of an older version is forgotten, and the machine shows the progress.
        Ok(Progress::Pending { machine: None, op: None })
    }

    async fn find(&self, server: &ServerKey) -> Result<Option<Machine>, ProviderError> {
        let mut listing = self.list(&server.pool).await?;
        // C-16: a mark of ours, not a name that looks like it.
        listing.machines.retain(|machine| machine.marker.as_ref().is_some_and(|mark| mark.server == server.uuid()));
        match (listing.machines.pop(), listing.complete) {
            (Some(machine), _) => Ok(Some(machine)),
            (None, true) => Ok(None),
            // C-14: absence is not concluded from a part.
            (None, false) => Err(error_of(CloudError::Gateway, false)),
        }
    }

    async fn list(&self, pool: &PoolId) -> Result<Listing, ProviderError> {
        let mut cloud = self.cloud();
        let (toys, complete) = cloud.show().map_err(|error| error_of(error, false))?;
        let ours = |toy: &Toy| {
            toy.labels.as_ref().is_some_and(|mark| mark.deployment == self.deployment && mark.pool == *pool)
        };
        let machines = toys.into_iter().filter(|(_, toy)| ours(toy));
        Ok(Listing { machines: machines.map(|(name, toy)| machine_of(name, toy, cloud.now)).collect(), complete })
    }

    async fn delete(&self, machine: &MachineRef) -> Result<Progress, ProviderError> {
        // C-17, C-18: by its own name alone; gone is success, accepted is not gone.
        let there = self.cloud().remove(&machine.0).map_err(|error| error_of(error, true))?;
        let machine = Some(machine.clone());
        Ok(if there { Progress::Pending { machine, op: None } } else { Progress::Done { machine } })
    }
}

// --- the subject: what the kit needs to know and to do ---

struct ToySubject(Arc<Mutex<Toys>>);

impl ToySubject {
    fn cloud(&self) -> MutexGuard<'_, Toys> {
        self.0.lock().expect("nobody panics with it")
    }
}

#[async_trait]
impl Subject for ToySubject {
    async fn provider(&self) -> Arc<dyn VmProvider> {
        Arc::new(ToyProvider { cloud: self.0.clone(), deployment: self.deployment() })
    }

    fn machine(&self) -> JsonObject {
        serde_json::from_str(r#"{"size": "small"}"#).expect("an object")
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.cloud().now)
    }

    async fn pass(&self, span: Duration) {
        self.cloud().now += u64::try_from(span.as_millis()).expect("a short time");
    }

    async fn inject(&self, trouble: &Trouble) -> bool {
        let mut cloud = self.cloud();
        match trouble {
            Trouble::Strip(machine) => cloud.toys.get_mut(&machine.0).map(|toy| toy.labels = None).is_some(),
            Trouble::Confuse(machine) => {
                cloud.toys.get_mut(&machine.0).map(|toy| toy.phase = Some("lent out")).is_some()
            }
            // This cloud shows everything at once.
            Trouble::Hide => false,
            other => {
                cloud.trouble.push(other.clone());
                true
            }
        }
    }

    async fn heal(&self) {
        self.cloud().trouble.clear();
    }

    async fn add_foreign(&self, marker: Option<&Marker>, name: &str) -> Option<MachineRef> {
        let mut cloud = self.cloud();
        let name = format!("{name}-{}", cloud.toys.len());
        let (labels, request, powered_at) = (marker.cloned(), String::new(), cloud.now);
        let toy = Toy { labels, request, powered_at, breaks_at: None, removed_at: None, phase: None };
        cloud.toys.insert(name.clone(), toy);
        Some(MachineRef(name))
    }

    async fn truth(&self) -> Option<Truth> {
        let cloud = self.cloud();
        let machines: Vec<MachineRef> = cloud.there().map(|(name, _)| MachineRef(name.clone())).collect();
        // A toy is all of one piece.
        let parts = u64::try_from(machines.len()).ok()?;
        Some(Truth { machines, parts, calls: Some(cloud.calls) })
    }
}

async fn judge() -> Report {
    run(&ToySubject(Arc::default())).await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::process::ExitCode {
    let report = judge().await;
    #[expect(clippy::print_stdout, reason = "it is what the example is for")]
    {
        println!("{report}");
    }
    if report.failed().is_empty() { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn the_toy_keeps_every_clause() {
        super::judge().await.assert_passed_but(&[]);
    }
}
