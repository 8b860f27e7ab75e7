//! What every check works with: calls whose answers are written down, waiting, and tidying up.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::{Debug, Write};
use core::time::Duration;

use super::{Clause, Subject, Trouble, Truth};
use crate::id::{ConfigId, PoolId, ServerId, ServerKey};
use crate::ports::{
    Listing, Machine, MachineRef, MachineState, Marker, Progress, ProviderError, ServerSpec, VmProvider,
};

/// A word that stands in the user data of every machine the kit makes, and must stand nowhere else.
pub const CANARY: &str = "canary-4d1f8a2e-in-the-start-up-data";

/// How many steps of polling an operation or a machine may take at most, whatever the subject's patience.
const STEPS_MAX: u32 = 5000;

/// Why a check did not pass.
#[derive(Debug)]
pub(super) enum Stop {
    /// The clause does not hold.
    Failed(String),
    /// The subject cannot do this.
    Absent(String),
}

/// Fails the check unless something holds.
macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err(Stop::Failed(format!($($why)+)));
        }
    };
}
pub(super) use ensure;

pub(super) fn failed<T>(why: String) -> Result<T, Stop> {
    Err(Stop::Failed(why))
}

/// One check at work.
pub(super) struct Bench<'a> {
    pub(super) subject: &'a dyn Subject,
    pub(super) provider: Arc<dyn VmProvider>,
    pub(super) pool: PoolId,
    serial: u64,
    /// Machines that have to be deleted in the end.
    made: Vec<MachineRef>,
    /// All that has come out of the provider, for the last check.
    said: String,
}

impl<'a> Bench<'a> {
    pub(super) async fn new(subject: &'a dyn Subject, clause: Clause, said: String) -> Self {
        let mut bytes = [0xC1; 16];
        bytes[..4].copy_from_slice(&subject.salt().to_be_bytes());
        bytes[4..8].copy_from_slice(&clause.code().as_bytes()[..4]);
        let provider = subject.provider().await;
        Self { subject, provider, pool: PoolId::from_bytes(bytes), serial: 0, made: Vec::new(), said }
    }

    /// Ends all troubles, deletes what was made, and gives back what was said.
    pub(super) async fn tidy(mut self) -> String {
        self.subject.heal().await;
        self.provider = self.subject.provider().await;
        // What was hidden has to be seen to be deleted.
        self.lag().await;
        let deployment = self.subject.deployment();
        if let Ok(listing) = self.list().await {
            let ours = |machine: &Machine| machine.marker.as_ref().is_some_and(|mark| mark.deployment == deployment);
            self.made.extend(listing.machines.into_iter().filter(ours).map(|machine| machine.reference));
        }
        self.made.sort();
        self.made.dedup();
        for machine in self.made.clone() {
            // What does not go is not hidden: the clauses about deleting say so.
            drop(self.delete(&machine).await);
        }
        // The next check counts machines and parts: none of this one's may go while it does.
        for _ in 0..self.steps() {
            let truth = self.subject.truth().await.unwrap_or_default();
            if !self.made.iter().any(|machine| truth.machines.contains(machine)) {
                break;
            }
            self.subject.pass(self.step()).await;
        }
        self.said
    }

    /// As after a crash: another provider on the same system.
    pub(super) async fn restart(&mut self) {
        self.provider = self.subject.provider().await;
    }

    // --- what is asked for ---

    /// A request for the machine of a new server.
    pub(super) fn spec(&mut self) -> ServerSpec {
        self.serial += 1;
        let server = ServerKey { pool: self.pool, server: ServerId::new(self.serial) };
        let marker = Marker {
            deployment: self.subject.deployment(),
            pool: self.pool,
            config: ConfigId::new(7),
            server: server.uuid(),
        };
        ServerSpec {
            server,
            marker,
            name: server.machine_name(),
            token: server.uuid(),
            machine: self.subject.machine(),
            user_data: Some(format!("echo {CANARY}\n").into()),
        }
    }

    // --- calls, written down ---

    fn note(&mut self, said: &impl Debug, words: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.said, "{said:?} {words}");
    }

    fn noted<T: Debug>(&mut self, answer: Result<T, ProviderError>) -> Result<T, ProviderError> {
        let words = answer.as_ref().err().map(|error| format!("{error}")).unwrap_or_default();
        self.note(&answer, &words);
        answer
    }

    pub(super) async fn create(&mut self, spec: &ServerSpec) -> Result<Progress, ProviderError> {
        let answer = self.provider.create(spec).await;
        if let Ok(Progress::Pending { machine: Some(machine), .. } | Progress::Done { machine: Some(machine) }) =
            &answer
        {
            self.made.push(machine.clone());
        }
        self.noted(answer)
    }

    pub(super) async fn find(&mut self, spec: &ServerSpec) -> Result<Option<Machine>, ProviderError> {
        let answer = self.provider.find(&spec.server).await;
        self.noted(answer)
    }

    pub(super) async fn list(&mut self) -> Result<Listing, ProviderError> {
        let answer = self.provider.list(&self.pool).await;
        self.noted(answer)
    }

    pub(super) async fn delete(&mut self, machine: &MachineRef) -> Result<Progress, ProviderError> {
        let answer = self.provider.delete(machine).await;
        self.noted(answer)
    }

    pub(super) async fn preflight(&mut self) -> Result<Vec<crate::ports::Finding>, ProviderError> {
        let answer = self.provider.preflight(&self.subject.machine()).await;
        self.noted(answer)
    }

    pub(super) fn said(&self) -> &str {
        &self.said
    }

    // --- the system ---

    pub(super) async fn inject(&mut self, trouble: Trouble) -> Result<(), Stop> {
        let can = self.subject.inject(&trouble).await;
        if can { Ok(()) } else { Err(Stop::Absent(format!("inject {trouble:?}"))) }
    }

    pub(super) async fn heal(&mut self) {
        self.subject.heal().await;
    }

    pub(super) async fn truth(&self) -> Result<Truth, Stop> {
        self.subject.truth().await.ok_or_else(|| Stop::Absent("tell what the system really holds".to_owned()))
    }

    /// The machines that there are: in truth if the subject tells it, else as a complete list shows them after the lag.
    pub(super) async fn there(&mut self) -> Result<BTreeSet<MachineRef>, Stop> {
        if let Some(truth) = self.subject.truth().await {
            return Ok(truth.machines.into_iter().collect());
        }
        self.lag().await;
        let listing = self.whole_list().await?;
        Ok(listing.into_iter().filter(is_there).map(|machine| machine.reference).collect())
    }

    /// How many machines have come since.
    pub(super) async fn new_since(&mut self, before: &BTreeSet<MachineRef>) -> Result<usize, Stop> {
        Ok(self.there().await?.difference(before).count())
    }

    /// Lets the visibility lag pass.
    pub(super) async fn lag(&self) {
        let lag = self.provider.describe().visibility_lag;
        if lag > Duration::ZERO {
            self.subject.pass(lag).await;
        }
    }

    // --- what checks build on; that it works is a part of every clause ---

    /// Makes a machine, follows its operation, and waits until it is seen.
    pub(super) async fn made(&mut self, spec: &ServerSpec) -> Result<MachineRef, Stop> {
        let reference = match self.create(spec).await {
            Ok(progress) => self.reference(progress).await?,
            Err(error) => return failed(format!("a plain create failed: {error}")),
        };
        self.lag().await;
        match self.find(spec).await {
            Ok(Some(machine)) if machine.reference == reference => Ok(reference),
            Ok(other) => failed(format!("the create answered for {reference}, find after the lag with {other:?}")),
            Err(error) => failed(format!("find failed: {error}")),
        }
    }

    /// The machine that a create's answer leads to.
    pub(super) async fn reference(&mut self, mut progress: Progress) -> Result<MachineRef, Stop> {
        let step = self.step();
        for _ in 0..self.steps() {
            let op = match progress {
                Progress::Pending { machine: Some(machine), .. } | Progress::Done { machine: Some(machine) } => {
                    self.made.push(machine.clone());
                    return Ok(machine);
                }
                Progress::Done { machine: None } => return failed("a create is done but names no machine".to_owned()),
                Progress::Pending { machine: None, op: None } => {
                    return failed("a create is under way but names neither machine nor operation".to_owned());
                }
                Progress::Pending { machine: None, op: Some(op) } => op,
            };
            self.subject.pass(step).await;
            let answer = self.provider.poll(&op).await;
            progress = match self.noted(answer) {
                Ok(progress) => progress,
                Err(error) => return failed(format!("the operation {op} of a create failed: {error}")),
            };
        }
        failed("the operation of a create names no machine for longer than the subject's patience".to_owned())
    }

    pub(super) async fn whole_list(&mut self) -> Result<Vec<Machine>, Stop> {
        match self.list().await {
            Ok(Listing { machines, complete: true }) => Ok(machines),
            Ok(_) => failed("a list is not complete although nothing is wrong".to_owned()),
            Err(error) => failed(format!("a list failed although nothing is wrong: {error}")),
        }
    }

    /// Waits until this server's machine fits; the last answer is in the failure.
    pub(super) async fn until(
        &mut self,
        spec: &ServerSpec,
        what: &str,
        fits: impl Fn(Option<&Machine>) -> bool,
    ) -> Result<Option<Machine>, Stop> {
        let mut last = None;
        for _ in 0..self.steps() {
            last = match self.find(spec).await {
                Ok(machine) => machine,
                Err(error) => return failed(format!("find failed: {error}")),
            };
            if fits(last.as_ref()) {
                return Ok(last);
            }
            self.subject.pass(self.step()).await;
        }
        failed(format!("{what} within {:?}; the last look-up shows {last:?}", self.subject.patience()))
    }

    /// Deletes a machine and waits until it is gone, in truth if the subject tells it.
    pub(super) async fn gone(&mut self, spec: &ServerSpec, machine: &MachineRef) -> Result<(), Stop> {
        if let Err(error) = self.delete(machine).await {
            return failed(format!("a plain delete failed: {error}"));
        }
        for _ in 0..self.steps() {
            let there = match self.subject.truth().await {
                Some(truth) => truth.machines.contains(machine),
                None => self.find(spec).await.is_ok_and(|found| found.as_ref().is_some_and(is_there)),
            };
            if !there {
                return Ok(());
            }
            self.subject.pass(self.step()).await;
        }
        failed(format!("{machine} is still there {:?} after its delete was accepted", self.subject.patience()))
    }

    fn step(&self) -> Duration {
        self.provider.describe().poll_busy.max(Duration::from_millis(10))
    }

    fn steps(&self) -> u32 {
        let steps = self.subject.patience().as_millis() / self.step().as_millis().max(1);
        u32::try_from(steps).unwrap_or(STEPS_MAX).clamp(2, STEPS_MAX)
    }
}

/// Whether a machine, as it is shown, still costs money.
pub(super) fn is_there(machine: &Machine) -> bool {
    machine.state != MachineState::Deleted
}

/// The same request, byte for byte.
pub(super) fn again(spec: &ServerSpec) -> ServerSpec {
    ServerSpec {
        server: spec.server,
        marker: spec.marker.clone(),
        name: spec.name.clone(),
        token: spec.token.clone(),
        machine: spec.machine.clone(),
        user_data: spec.user_data.clone(),
    }
}
