//! The simulated provider keeps the contract; and whoever breaks it is found out, by the clause that was broken.
//!
//! The second half tests the kit itself: a dozen and more providers, each with one mistake of the kind that people make.
#![cfg(feature = "simulated")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use kasm_autoscale_core::fields::{JsonObject, Problem};
use kasm_autoscale_core::id::{PoolId, ServerKey};
use kasm_autoscale_core::ports::{
    Address, Capabilities, Certainty, ErrorKind, Finding, Listing, Machine, MachineRef, MachineState, OpRef, Progress,
    ProviderError, Scope, ServerSpec, VmProvider,
};
use kasm_autoscale_core::testing::conformance::{CANARY, Clause, Subject, Trouble, Verdict, run, run_only};
use kasm_providers::simulated::SimulatedProvider;
use secrecy::ExposeSecret;

#[path = "support/simulated_subject.rs"]
mod simulated_subject;

use simulated_subject::Simulated;

#[tokio::test]
async fn the_simulated_provider_keeps_every_clause() {
    for (operations, fails_for_good) in [(false, false), (true, true)] {
        let mut subject = Simulated::plain(operations);
        subject.fails_for_good = fails_for_good;
        let report = run(&subject).await;
        report.assert_passed_but(&[]);
        assert_eq!(report.verdicts.len(), Clause::ALL.len());
        let left = subject.truth().await.expect("it is told").machines;
        assert_eq!(left.len(), 2, "beside the two foreign machines there is {left:?}");
    }
}

/// A mistake. Everything else is as the simulated provider does it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mistake {
    ChangesItsMind,
    PassesOverUnknownSettings,
    PreflightTries,
    NewTokenForEveryTry,
    ForgetsTheTokenWhenRestarted,
    MarksWithoutTheConfig,
    WaitsInsideCreate,
    NamesNothing,
    NoAddress,
    SaysNotAppliedWhenTheReplyIsLost,
    RepeatsWithAnotherToken,
    FailsWhenItSeesNothing,
    TakesFailureForNothing,
    PartialSaysComplete,
    FirstPageOnly,
    AllPools,
    AdoptsByName,
    DeletesByName,
    SecondDeleteFails,
    AcceptedIsGone,
    HidesWhatIsBeingDeleted,
    SwallowsThrottling,
    ThrottleMayHaveHadEffect,
    QuotaIsNoCapacity,
    NoCapacityIsTransient,
    DeadRuns,
    InventsTheMark,
    UnknownIsStopped,
    ShowsUserDataInErrors,
    ShowsUserDataInBase64,
}

/// What finds which mistake. The clause named must fail; others may too.
const FOUND_BY: [(Mistake, Clause); 30] = [
    (Mistake::ChangesItsMind, Clause::Description),
    (Mistake::PassesOverUnknownSettings, Clause::Check),
    (Mistake::PreflightTries, Clause::Preflight),
    (Mistake::NewTokenForEveryTry, Clause::OneMachine),
    (Mistake::ForgetsTheTokenWhenRestarted, Clause::OneMachine),
    (Mistake::MarksWithoutTheConfig, Clause::Mark),
    (Mistake::WaitsInsideCreate, Clause::Acceptance),
    (Mistake::NamesNothing, Clause::Acceptance),
    (Mistake::NoAddress, Clause::Life),
    (Mistake::SaysNotAppliedWhenTheReplyIsLost, Clause::LostBefore),
    (Mistake::RepeatsWithAnotherToken, Clause::LostAfter),
    (Mistake::FailsWhenItSeesNothing, Clause::LateVisibility),
    (Mistake::TakesFailureForNothing, Clause::FailedRead),
    (Mistake::PartialSaysComplete, Clause::PartialList),
    (Mistake::FirstPageOnly, Clause::WholeList),
    (Mistake::AllPools, Clause::WholeList),
    (Mistake::AdoptsByName, Clause::Foreign),
    (Mistake::DeletesByName, Clause::Foreign),
    (Mistake::SecondDeleteFails, Clause::DeleteTwice),
    (Mistake::AcceptedIsGone, Clause::SlowDelete),
    (Mistake::HidesWhatIsBeingDeleted, Clause::SlowDelete),
    (Mistake::SwallowsThrottling, Clause::Throttle),
    (Mistake::ThrottleMayHaveHadEffect, Clause::Throttle),
    (Mistake::QuotaIsNoCapacity, Clause::Quota),
    (Mistake::NoCapacityIsTransient, Clause::NoCapacity),
    (Mistake::DeadRuns, Clause::DiesBooting),
    (Mistake::InventsTheMark, Clause::LostMark),
    (Mistake::UnknownIsStopped, Clause::UnknownState),
    (Mistake::ShowsUserDataInErrors, Clause::Secrets),
    (Mistake::ShowsUserDataInBase64, Clause::Secrets),
];

/// What a wrapper remembers; it is lost when it is made again, as in a crash.
#[derive(Default)]
struct Memory {
    tries: u64,
    descriptions: u32,
    specs: BTreeMap<MachineRef, (String, kasm_autoscale_core::ports::Marker)>,
}

struct Mistaken {
    inner: Arc<SimulatedProvider>,
    mistake: Mistake,
    memory: Mutex<Memory>,
    /// Lets the time of the cloud pass.
    pass: Arc<dyn Fn(u64) + Send + Sync>,
}

fn again(spec: &ServerSpec, token: String) -> ServerSpec {
    ServerSpec {
        server: spec.server,
        marker: spec.marker.clone(),
        name: spec.name.clone(),
        token,
        machine: spec.machine.clone(),
        user_data: spec.user_data.clone(),
    }
}

impl Mistaken {
    fn is(&self, mistake: Mistake) -> bool {
        self.mistake == mistake
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().expect("nobody panics with it")
    }

    /// The machines of everybody that have this name.
    fn named(&self, name: &str) -> Vec<MachineRef> {
        self.inner.with_cloud(|cloud, now| {
            cloud.live(now).filter(|machine| machine.name == name).map(|machine| machine.reference.clone()).collect()
        })
    }

    fn shown(&self, mut machine: Machine) -> Machine {
        match self.mistake {
            Mistake::MarksWithoutTheConfig => {
                if let Some(marker) = &mut machine.marker {
                    marker.config = kasm_autoscale_core::id::ConfigId::new(0);
                }
            }
            Mistake::NoAddress => machine.address = None,
            Mistake::DeadRuns if matches!(machine.state, MachineState::Stopped | MachineState::Failed) => {
                machine.state = MachineState::Running;
            }
            Mistake::UnknownIsStopped if matches!(machine.state, MachineState::Unknown(_)) => {
                machine.state = MachineState::Stopped;
            }
            _ => (),
        }
        machine
    }

    fn read_error(&self, error: ProviderError) -> ProviderError {
        let unsure = self.is(Mistake::ThrottleMayHaveHadEffect) && error.kind == ErrorKind::Throttled;
        let certainty = if unsure { Certainty::Unknown } else { error.certainty };
        ProviderError { certainty, ..error }
    }

    fn create_error(&self, error: ProviderError, spec: &ServerSpec) -> ProviderError {
        let error = self.read_error(error);
        let data = spec.user_data.as_ref().map(ExposeSecret::expose_secret).unwrap_or_default();
        match self.mistake {
            Mistake::SaysNotAppliedWhenTheReplyIsLost => ProviderError { certainty: Certainty::NotApplied, ..error },
            Mistake::QuotaIsNoCapacity if error.kind == ErrorKind::Quota => {
                ProviderError { kind: ErrorKind::NoCapacity, scope: Scope::Offering, ..error }
            }
            Mistake::NoCapacityIsTransient if error.kind == ErrorKind::NoCapacity => {
                ProviderError { kind: ErrorKind::Transient, ..error }
            }
            Mistake::ShowsUserDataInErrors => ProviderError { message: format!("refused: {data}"), ..error },
            Mistake::ShowsUserDataInBase64 => {
                let data = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, data);
                ProviderError { message: format!("refused: UserData={data}"), ..error }
            }
            _ => error,
        }
    }

    /// A machine as its maker remembers it, whatever its marks say now.
    fn remembered(&self, server: &ServerKey) -> Option<Machine> {
        let memory = self.memory();
        let (reference, (_, marker)) = memory.specs.iter().find(|(_, (_, marker))| marker.server == server.uuid())?;
        let address = Some(Address { host: "127.0.0.1".to_owned(), port: None });
        Some(Machine {
            reference: reference.clone(),
            marker: Some(marker.clone()),
            state: MachineState::Running,
            address,
            fault: None,
        })
    }
}

#[async_trait]
impl VmProvider for Mistaken {
    fn describe(&self) -> Capabilities {
        let mut described = self.inner.describe();
        if self.is(Mistake::ChangesItsMind) {
            let mut memory = self.memory();
            memory.descriptions += 1;
            described.creates_in_flight_max = memory.descriptions;
        }
        described
    }

    fn check(&self, machine: &JsonObject, user_data_bytes: usize) -> Vec<Problem> {
        if self.is(Mistake::PassesOverUnknownSettings) {
            return Vec::new();
        }
        self.inner.check(machine, user_data_bytes)
    }

    async fn preflight(&self, machine: &JsonObject) -> Result<Vec<Finding>, ProviderError> {
        if self.is(Mistake::PreflightTries) {
            let server =
                ServerKey { pool: PoolId::from_bytes([0; 16]), server: kasm_autoscale_core::id::ServerId::new(9) };
            let marker = kasm_autoscale_core::ports::Marker {
                deployment: kasm_autoscale_core::id::DeploymentId::from_bytes([0; 16]),
                pool: server.pool,
                config: kasm_autoscale_core::id::ConfigId::new(0),
                server: server.uuid(),
            };
            let (name, token, machine) = (server.machine_name(), server.uuid(), machine.clone());
            let spec = ServerSpec { server, marker, name, token, machine, user_data: None };
            self.inner.create(&spec).await?;
        }
        self.inner.preflight(machine).await
    }

    async fn create(&self, spec: &ServerSpec) -> Result<Progress, ProviderError> {
        let tries = {
            let mut memory = self.memory();
            memory.tries += 1;
            memory.tries
        };
        if self.is(Mistake::AdoptsByName)
            && let Some(machine) = self.named(spec.name.as_str()).into_iter().next()
        {
            return Ok(Progress::Done { machine: Some(machine) });
        }
        let token = match self.mistake {
            Mistake::NewTokenForEveryTry => format!("{}-{tries}", spec.token),
            // What tells this process from the next one.
            Mistake::ForgetsTheTokenWhenRestarted => format!("{}-{:p}", spec.token, &raw const *self),
            _ => spec.token.clone(),
        };
        let mut answer = self.inner.create(&again(spec, token.clone())).await;
        if self.is(Mistake::RepeatsWithAnotherToken)
            && answer.as_ref().is_err_and(|error| error.certainty == Certainty::Unknown)
        {
            answer = self.inner.create(&again(spec, format!("{token}-again"))).await;
        }
        if self.is(Mistake::SwallowsThrottling) {
            for _ in 0..3 {
                if answer.as_ref().is_err_and(|error| error.kind == ErrorKind::Throttled) {
                    answer = self.inner.create(&again(spec, token.clone())).await;
                }
            }
        }
        if self.is(Mistake::WaitsInsideCreate) {
            (self.pass)(60_000);
        }
        let progress = answer.map_err(|error| self.create_error(error, spec))?;
        if let Progress::Pending { machine: Some(machine), .. } | Progress::Done { machine: Some(machine) } = &progress
        {
            let remembered = (spec.name.as_str().to_owned(), spec.marker.clone());
            self.memory().specs.insert(machine.clone(), remembered);
        }
        match self.is(Mistake::NamesNothing) {
            true => Ok(Progress::Pending { machine: None, op: None }),
            false => Ok(progress),
        }
    }

    async fn poll(&self, op: &OpRef) -> Result<Progress, ProviderError> {
        self.inner.poll(op).await
    }

    async fn find(&self, server: &ServerKey) -> Result<Option<Machine>, ProviderError> {
        let found = self.inner.find(server).await.map_err(|error| self.read_error(error));
        let found = match found {
            Err(_) if self.is(Mistake::TakesFailureForNothing) => None,
            other => other?,
        };
        match found {
            None if self.is(Mistake::FailsWhenItSeesNothing) => {
                let message = "there is no such machine";
                Err(ProviderError::new(ErrorKind::Invalid, Certainty::NotApplied, "NotFound", message))
            }
            None if self.is(Mistake::InventsTheMark) => Ok(self.remembered(server)),
            found => Ok(found.map(|machine| self.shown(machine))),
        }
    }

    async fn list(&self, pool: &PoolId) -> Result<Listing, ProviderError> {
        let mut listing = match self.inner.list(pool).await.map_err(|error| self.read_error(error)) {
            Err(_) if self.is(Mistake::TakesFailureForNothing) => Listing { machines: Vec::new(), complete: true },
            other => other?,
        };
        match self.mistake {
            Mistake::PartialSaysComplete => listing.complete = true,
            Mistake::FirstPageOnly => listing.machines.truncate(5),
            Mistake::HidesWhatIsBeingDeleted => {
                listing.machines.retain(|machine| machine.state != MachineState::Deleting);
            }
            Mistake::AllPools => {
                let pools: Vec<PoolId> = self.inner.with_cloud(|cloud, now| {
                    cloud.live(now).filter_map(|machine| machine.marker.as_ref().map(|marker| marker.pool)).collect()
                });
                for other in pools.into_iter().filter(|other| other != pool) {
                    listing.machines.extend(self.inner.list(&other).await?.machines);
                }
            }
            _ => (),
        }
        listing.machines = listing.machines.into_iter().map(|machine| self.shown(machine)).collect();
        Ok(listing)
    }

    async fn delete(&self, machine: &MachineRef) -> Result<Progress, ProviderError> {
        if self.is(Mistake::DeletesByName) {
            let name = self.inner.with_cloud(|cloud, _| cloud.machine(machine).map(|machine| machine.name.clone()));
            for other in self.named(&name.unwrap_or_default()) {
                drop(self.inner.delete(&other).await);
            }
        }
        let there = self.inner.with_cloud(|cloud, now| cloud.live(now).any(|one| one.reference == *machine));
        if self.is(Mistake::SecondDeleteFails) && !there {
            let message = "there is no such machine";
            return Err(ProviderError::new(ErrorKind::Invalid, Certainty::NotApplied, "NotFound", message));
        }
        let answer = self.inner.delete(machine).await.map_err(|error| self.read_error(error));
        match answer {
            Ok(_) if self.is(Mistake::AcceptedIsGone) => Ok(Progress::Done { machine: Some(machine.clone()) }),
            answer => answer,
        }
    }
}

/// The simulated cloud behind a provider with this mistake.
fn subject_with(mistake: Mistake) -> Simulated {
    let time = Arc::new(Mutex::new(None::<Arc<dyn Fn(u64) + Send + Sync>>));
    let handed = Arc::clone(&time);
    let subject = Simulated::new(
        false,
        Box::new(move |inner| {
            let pass = handed.lock().expect("nobody panics with it").clone().expect("set below");
            Arc::new(Mistaken { inner, mistake, memory: Mutex::default(), pass })
        }),
    );
    *time.lock().expect("nobody panics with it") = Some(subject.hand_of_the_clock());
    subject
}

#[tokio::test]
async fn every_mistake_is_found_by_its_clause() {
    let mut missed = Vec::new();
    for (mistake, clause) in FOUND_BY {
        let report = run(&subject_with(mistake)).await;
        if !report.failed().contains(&clause) {
            missed.push(format!("{mistake:?} is not found by {clause}; failed are {:?}\n{report}", report.failed()));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// Parts that stay are the system's doing as often as the provider's; here the system leaves one with every machine.
#[tokio::test]
async fn parts_that_stay_are_found() {
    struct Leaky(Simulated);
    #[async_trait]
    impl Subject for Leaky {
        async fn provider(&self) -> Arc<dyn VmProvider> {
            self.0.provider().await
        }
        fn machine(&self) -> JsonObject {
            self.0.machine()
        }
        fn now(&self) -> kasm_autoscale_core::time::Timestamp {
            self.0.now()
        }
        async fn pass(&self, span: std::time::Duration) {
            self.0.pass(span).await;
        }
        async fn truth(&self) -> Option<kasm_autoscale_core::testing::conformance::Truth> {
            let mut truth = self.0.truth().await?;
            truth.parts += self.0.provider.with_cloud(|cloud, _| cloud.created_total());
            Some(truth)
        }
    }
    let report = run_only(&Leaky(Simulated::plain(false)), &[Clause::Leftovers]).await;
    let words = "1 parts of sim-00000001 are left behind".to_owned();
    assert_eq!(report.verdict(Clause::Leftovers), Some(&Verdict::Failed(words)));
}

/// A subject that offers the least there is.
struct Bare(Simulated);

#[async_trait]
impl Subject for Bare {
    async fn provider(&self) -> Arc<dyn VmProvider> {
        self.0.provider().await
    }
    fn machine(&self) -> JsonObject {
        self.0.machine()
    }
    fn now(&self) -> kasm_autoscale_core::time::Timestamp {
        self.0.now()
    }
    async fn pass(&self, span: std::time::Duration) {
        self.0.pass(span).await;
    }
}

#[tokio::test]
async fn what_a_subject_lacks_is_said_and_never_passed() {
    let report = run(&Bare(Simulated::plain(false))).await;
    let open = [
        Clause::LostBefore,
        Clause::LostAfter,
        Clause::LateVisibility,
        Clause::FailedRead,
        Clause::PartialList,
        Clause::Foreign,
        Clause::SlowDelete,
        Clause::Leftovers,
        Clause::Throttle,
        Clause::Quota,
        Clause::NoCapacity,
        Clause::DiesBooting,
        Clause::LostMark,
        Clause::UnknownState,
        Clause::Secrets,
    ];
    report.assert_passed_but(&open);
    let text = report.to_string();
    assert!(
        text.contains("not checked  C-20 throttling is reported, not hidden: the subject cannot inject Throttle"),
        "{text}"
    );
    assert!(text.ends_with("11 passed, 0 failed, 15 not checked"), "{text}");
    let panics = std::panic::catch_unwind(|| report.assert_passed_but(&[]));
    assert!(panics.is_err());
}

#[tokio::test]
async fn a_secret_in_the_providers_own_log_is_found() {
    struct Chatty(Simulated);
    #[async_trait]
    impl Subject for Chatty {
        async fn provider(&self) -> Arc<dyn VmProvider> {
            self.0.provider().await
        }
        fn machine(&self) -> JsonObject {
            self.0.machine()
        }
        fn now(&self) -> kasm_autoscale_core::time::Timestamp {
            self.0.now()
        }
        async fn pass(&self, span: std::time::Duration) {
            self.0.pass(span).await;
        }
        async fn inject(&self, trouble: &Trouble) -> bool {
            self.0.inject(trouble).await
        }
        async fn heal(&self) {
            self.0.heal().await;
        }
        fn output(&self) -> String {
            format!("DEBUG sending {CANARY}")
        }
    }
    let report = run_only(&Chatty(Simulated::plain(false)), &[Clause::Secrets]).await;
    let words = "the provider's own output shows a secret".to_owned();
    assert_eq!(report.verdict(Clause::Secrets), Some(&Verdict::Failed(words)));
}
