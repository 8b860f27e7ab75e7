//! Judges a provider by its contract: every clause of [`ports`](crate::ports) is one check here.
//!
//! Whoever writes a provider says in a [`Subject`] how to make it and what machine to ask for, and calls [`run`]. That much
//! is ten lines, and checks the clauses that need nothing more. Those about what goes wrong need a system that goes wrong on
//! demand: a simulator or stand-in that the subject can put a [`Trouble`] into, and whose truth it can tell. What it cannot
//! do it says, and then the [`Report`] names the clauses that were **not** checked, and why: nothing passes in silence.
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//! use kasm_autoscale_core::config::JsonObject;
//! use kasm_autoscale_core::ports::VmProvider;
//! use kasm_autoscale_core::testing::conformance::{Subject, run};
//! use kasm_autoscale_core::time::Timestamp;
//!
//! # fn my_provider() -> Arc<dyn VmProvider> { unimplemented!() }
//! struct Mine { start: std::time::Instant }
//!
//! #[async_trait::async_trait]
//! impl Subject for Mine {
//!     async fn provider(&self) -> Arc<dyn VmProvider> { my_provider() }
//!     fn machine(&self) -> JsonObject { serde_json::from_str(r#"{"size": "small"}"#).unwrap() }
//!     fn now(&self) -> Timestamp { Timestamp::default() + self.start.elapsed() }
//!     async fn pass(&self, span: Duration) { std::thread::sleep(span) } // or your runtime's own sleep
//! }
//!
//! # async fn judge() {
//! let report = run(&Mine { start: std::time::Instant::now() }).await;
//! println!("{report}");
//! assert!(report.failed().is_empty());
//! # }
//! ```
//!
//! Against a real cloud this costs a few machines for a few minutes, in pools whose ids follow from [`Subject::salt`]; the
//! kit deletes what it has made, also after a failure.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use async_trait::async_trait;

use crate::config::JsonObject;
use crate::id::DeploymentId;
use crate::ports::{MachineRef, Marker, VmProvider};
use crate::time::Timestamp;

mod bench;
mod clauses;
mod deleting;
mod failing;
mod making;
mod seeing;

pub use bench::CANARY;
pub use clauses::Clause;

use bench::{Bench, Stop};

/// A provider that is judged, and the system behind it. Only the first four methods must be there.
#[async_trait]
pub trait Subject: Send + Sync {
    /// A provider for the system, each time another one on the same system, as after a restart.
    async fn provider(&self) -> Arc<dyn VmProvider>;

    /// The settings of a machine that the system makes when nothing is wrong.
    fn machine(&self) -> JsonObject;

    /// The time in the system: the real one, or one that only [`pass`](Self::pass) moves.
    fn now(&self) -> Timestamp;

    /// Lets this much time pass in the system.
    async fn pass(&self, span: Duration);

    /// The installation that the provider works for.
    fn deployment(&self) -> DeploymentId {
        DeploymentId::from_bytes([0xC0; 16])
    }

    /// How long the kit waits for a machine to run or to be gone.
    fn patience(&self) -> Duration {
        Duration::from_secs(600)
    }

    /// Another number for each run against a system that remembers the runs before.
    fn salt(&self) -> u32 {
        0
    }

    /// Puts a trouble into the system, until [`heal`](Self::heal). False: the subject cannot.
    async fn inject(&self, _trouble: &Trouble) -> bool {
        false
    }

    /// Ends every trouble that lasts.
    async fn heal(&self) {}

    /// Puts a running machine into the system that is not ours, with this mark or none, and this name. `None`: the subject
    /// cannot.
    async fn add_foreign(&self, _marker: Option<&Marker>, _name: &str) -> Option<MachineRef> {
        None
    }

    /// The reference of a machine that never was, if the system has rules for references; else one that is gone is taken.
    fn never(&self) -> Option<String> {
        None
    }

    /// What the system really holds. `None`: the subject cannot tell.
    async fn truth(&self) -> Option<Truth> {
        None
    }

    /// Secrets that the provider was given, beside what is in user data: none may come out.
    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }

    /// What the provider has written where the kit does not see it, in logs above all.
    fn output(&self) -> String {
        String::new()
    }
}

/// What can be made to go wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Trouble {
    /// Creates and deletes get no answer and have no effect.
    ReplyLostBefore,
    /// Creates and deletes have their effect, and get no answer.
    ReplyLostAfter,
    /// Machines made from now on are hidden from reads for the provider's whole visibility lag.
    Hide,
    /// Lists lack something, as when a page, a zone or a node does not answer.
    PartialList,
    /// Reads fail.
    FailReads,
    /// Every call is refused as one too many.
    Throttle,
    /// Creates are refused because the account's limit is reached.
    Quota,
    /// Creates are refused because there is no room.
    NoCapacity,
    /// Deletes are accepted, and take this long.
    SlowDelete(Duration),
    /// Machines made from now on end while they boot.
    DieBooting,
    /// Creates are refused with an error that repeats the request, user data included.
    Echo,
    /// Takes our mark off this machine, for good.
    Strip(MachineRef),
    /// Brings this machine into a state that the provider's author did not know, for good.
    Confuse(MachineRef),
}

/// What a system really holds, whatever it answers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Truth {
    /// Every machine that exists and costs money, foreign ones included.
    pub machines: Vec<MachineRef>,
    /// How many parts (disks, network cards, addresses) exist, whosever they are.
    pub parts: u64,
    /// How many calls the system has had, if it counts them.
    pub calls: Option<u64>,
}

/// What came of one clause.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It does not, and this is how.
    Failed(String),
    /// The subject lacks this, so nobody knows.
    NotChecked(String),
}

/// What came of every clause, in their order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// Each clause with its verdict.
    pub verdicts: Vec<(Clause, Verdict)>,
}

impl Report {
    /// The clauses that do not hold.
    pub fn failed(&self) -> Vec<Clause> {
        self.those(|verdict| matches!(verdict, Verdict::Failed(_)))
    }

    /// The clauses that were not checked.
    pub fn not_checked(&self) -> Vec<Clause> {
        self.those(|verdict| matches!(verdict, Verdict::NotChecked(_)))
    }

    /// What came of one.
    pub fn verdict(&self, clause: Clause) -> Option<&Verdict> {
        self.verdicts.iter().find(|(one, _)| *one == clause).map(|(_, verdict)| verdict)
    }

    /// For tests.
    ///
    /// # Panics
    /// With the whole report, unless every clause passed but for exactly these, which were not checked.
    pub fn assert_passed_but(&self, not_checked: &[Clause]) {
        let sound = self.failed().is_empty() && self.not_checked() == not_checked;
        assert!(sound, "not checked should have been {not_checked:?} alone:\n{self}");
    }

    fn those(&self, is: impl Fn(&Verdict) -> bool) -> Vec<Clause> {
        self.verdicts.iter().filter(|(_, verdict)| is(verdict)).map(|(clause, _)| *clause).collect()
    }
}

impl fmt::Display for Report {
    /// One line for each clause, and one that sums up.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (clause, verdict) in &self.verdicts {
            match verdict {
                Verdict::Passed => writeln!(f, "passed       {clause}")?,
                Verdict::Failed(why) => writeln!(f, "FAILED       {clause}: {why}")?,
                Verdict::NotChecked(why) => writeln!(f, "not checked  {clause}: {why}")?,
            }
        }
        let (failed, open) = (self.failed().len(), self.not_checked().len());
        let passed = self.verdicts.len() - failed - open;
        write!(f, "{passed} passed, {failed} failed, {open} not checked")
    }
}

/// Checks every clause.
pub async fn run(subject: &dyn Subject) -> Report {
    run_only(subject, Clause::ALL).await
}

/// Checks these clauses, in this order. [`Clause::Secrets`] looks at what the others before it have brought out.
pub async fn run_only(subject: &dyn Subject, clauses: &[Clause]) -> Report {
    let mut verdicts = Vec::new();
    let mut said = String::new();
    for clause in clauses {
        let mut bench = Bench::new(subject, *clause, core::mem::take(&mut said)).await;
        let came = check(&mut bench, *clause).await;
        said = bench.tidy().await;
        let verdict = match came {
            Ok(()) => Verdict::Passed,
            Err(Stop::Failed(why)) => Verdict::Failed(why),
            Err(Stop::Absent(what)) => Verdict::NotChecked(format!("the subject cannot {what}")),
        };
        verdicts.push((*clause, verdict));
    }
    Report { verdicts }
}

async fn check(bench: &mut Bench<'_>, clause: Clause) -> Result<(), Stop> {
    match clause {
        Clause::Description => making::description(bench),
        Clause::Check => making::settings(bench),
        Clause::Preflight => making::preflight(bench).await,
        Clause::OneMachine => making::one_machine(bench).await,
        Clause::OtherRequest => making::other_request(bench).await,
        Clause::Mark => making::mark(bench).await,
        Clause::Acceptance => making::acceptance(bench).await,
        Clause::Life => making::life(bench).await,
        Clause::LostBefore => making::lost_before(bench).await,
        Clause::LostAfter => making::lost_after(bench).await,
        Clause::LateVisibility => seeing::late_visibility(bench).await,
        Clause::Absence => seeing::absence(bench).await,
        Clause::FailedRead => seeing::failed_read(bench).await,
        Clause::PartialList => seeing::partial_list(bench).await,
        Clause::WholeList => seeing::whole_list(bench).await,
        Clause::Foreign => seeing::foreign(bench).await,
        Clause::DeleteTwice => deleting::twice(bench).await,
        Clause::SlowDelete => deleting::slow(bench).await,
        Clause::Leftovers => deleting::leftovers(bench).await,
        Clause::Throttle => failing::throttle(bench).await,
        Clause::Quota => failing::quota(bench).await,
        Clause::NoCapacity => failing::no_capacity(bench).await,
        Clause::DiesBooting => failing::dies_booting(bench).await,
        Clause::LostMark => failing::lost_mark(bench).await,
        Clause::UnknownState => failing::unknown_state(bench).await,
        Clause::Secrets => failing::secrets(bench).await,
    }
}
