//! A simulated cloud: a pure, deterministic model that holds the truth and answers like a real one, faults included.
//!
//! Three kinds of methods:
//! - **calls**, as a provider makes them: [`create`](SimCloud::create), [`poll`](SimCloud::poll), [`find`](SimCloud::find),
//!   [`list`](SimCloud::list), [`delete`](SimCloud::delete). They are throttled, fail and lie by omission as settings say.
//! - **hand actions**, as an operator or fate makes them behind our back: [`kill`](SimCloud::kill),
//!   [`stop`](SimCloud::stop), [`strip_marker`](SimCloud::strip_marker), [`add_foreign`](SimCloud::add_foreign).
//! - **the truth**, for checkers: [`machines`](SimCloud::machines), [`live_count`](SimCloud::live_count),
//!   [`duplicates`](SimCloud::duplicates) and others. It is never delayed and never wrong.
//!
//! Time is an argument. Where it runs backwards, the cloud keeps to the latest instant it has seen in a call or action.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use secrecy::ExposeSecret;
use thiserror::Error;

use crate::id::{PoolId, ServerKey};
use crate::ports::{
    Certainty, ErrorKind, Listing, Machine, MachineRef, MachineState, Marker, OpRef, Progress, ProviderError,
    ServerSpec,
};
use crate::testing::entropy::{Entropy, Seeded};
use crate::time::Timestamp;

mod checks;
mod preflight;
mod settings;
mod throttle;
mod truth;

pub use settings::{CloudSettings, Fault, FaultRates};
pub use truth::{Booted, SimMachine, user_data_hash};

/// No answer came. Whether the call had an effect is not in here, as it would not be in reality; the truth shows it.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("no answer came")]
pub struct Lost;

/// What comes back from a call that changes something: an answer, good or bad, or none.
pub type Answer<T> = Result<Result<T, ProviderError>, Lost>;

/// The simulated cloud. The module's documentation says what it does.
///
/// ```
/// use kasm_autoscale_core::testing::cloud::{CloudSettings, SimCloud};
/// use kasm_autoscale_core::time::Timestamp;
/// let mut cloud = SimCloud::new(CloudSettings::default(), 1);
/// let pool = "00000000-0000-0000-0000-000000000001".parse().unwrap();
/// assert!(cloud.list(Timestamp::from_secs(0), &pool).unwrap().complete);
/// assert_eq!(cloud.live_count(Timestamp::from_secs(0)), 0);
/// ```
#[derive(Clone, Debug)]
pub struct SimCloud<E = Seeded> {
    settings: CloudSettings,
    entropy: E,
    bucket: throttle::Bucket,
    machines: BTreeMap<u64, SimMachine>,
    /// The machines that are still shown or will be. Only these are searched by lists and counts.
    current: BTreeSet<u64>,
    by_token: BTreeMap<String, u64>,
    by_server: BTreeMap<String, BTreeSet<u64>>,
    /// Every instant to come at which a machine changes, or may have been about to before something came in between.
    agenda: BTreeSet<(Timestamp, u64)>,
    latest: Timestamp,
    numbers: u64,
    created: u64,
    calls: u64,
    hits: BTreeMap<Fault, u64>,
}

impl SimCloud {
    /// An empty cloud whose chances come from a seed.
    pub fn new(settings: CloudSettings, seed: u64) -> Self {
        Self::with_entropy(settings, Seeded::stream(seed, "cloud"))
    }
}

/// Calls, as a provider makes them.
impl<E: Entropy> SimCloud<E> {
    /// An empty cloud whose chances come from this source.
    pub fn with_entropy(settings: CloudSettings, entropy: E) -> Self {
        Self {
            settings,
            entropy,
            bucket: throttle::Bucket::default(),
            machines: BTreeMap::new(),
            current: BTreeSet::new(),
            by_token: BTreeMap::new(),
            by_server: BTreeMap::new(),
            agenda: BTreeSet::new(),
            latest: Timestamp::default(),
            numbers: 0,
            created: 0,
            calls: 0,
            hits: BTreeMap::new(),
        }
    }

    /// Makes a machine. The same token with the same request answers for the same machine, whatever has become of it;
    /// with another request it is a [`ErrorKind::Conflict`].
    pub fn create(&mut self, now: Timestamp, spec: &ServerSpec) -> Answer<Progress> {
        let now = self.reach(now);
        if let Err(error) = self.admit(now) {
            return Ok(Err(error));
        }
        if self.strikes(Fault::LostBeforeEffect) {
            return Err(Lost);
        }
        if self.strikes(Fault::Echo) {
            let data = spec.user_data.as_ref().map(ExposeSecret::expose_secret).unwrap_or_default();
            let message = format!("the request is not valid: {:?} {data}", spec.name);
            let error = self.error(ErrorKind::Invalid, Certainty::NotApplied);
            return Ok(Err(ProviderError { message, ..error }));
        }
        let machine = match self.accept(now, spec) {
            Ok(number) => &self.machines[&number],
            Err(error) => return Ok(Err(error)),
        };
        // A request that has still to take effect hangs: every try waits in the same queue.
        if machine.created_at > now {
            return Err(Lost);
        }
        let progress = self.progress_of_create(now, machine);
        if self.strikes(Fault::LostAfterEffect) { Err(Lost) } else { Ok(Ok(progress)) }
    }

    /// How far an operation is. One that is not known has been forgotten: its machine shows the progress.
    pub fn poll(&mut self, now: Timestamp, op: &OpRef) -> Result<Progress, ProviderError> {
        let now = self.reach(now);
        self.admit(now)?;
        let (verb, reference) = op.0.split_once(':').unwrap_or(("", ""));
        let machine = self.machine(&MachineRef(reference.to_owned()));
        Ok(match (verb, machine) {
            ("create", Some(machine)) if machine.state(now) == MachineState::Failed => return Err(truth::fault()),
            ("create", Some(machine)) => self.progress_of_create(now, machine),
            ("delete", Some(machine)) => self.progress_of_delete(now, machine),
            _ => Progress::Pending { machine: None, op: None },
        })
    }

    /// The machine that carries the mark of this server, if it is visible; one that exists before one that is gone, then
    /// the eldest.
    pub fn find(&mut self, now: Timestamp, server: &ServerKey) -> Result<Option<Machine>, ProviderError> {
        let now = self.reach(now);
        self.admit_read(now)?;
        let uuid = server.uuid();
        let marked = self.machines_of(&uuid);
        let ours = marked.filter(|machine| machine.marker.as_ref().is_some_and(|marker| marker.pool == server.pool));
        let visible = ours.filter(|machine| machine.is_visible(now));
        Ok(visible.min_by_key(|machine| machine.is_deleted(now)).map(|machine| machine.shown(now)))
    }

    /// The visible machines that carry the mark of this pool, of whatever deployment.
    pub fn list(&mut self, now: Timestamp, pool: &PoolId) -> Result<Listing, ProviderError> {
        let now = self.reach(now);
        self.admit_read(now)?;
        let current = self.current.iter().map(|number| &self.machines[number]);
        let marked = current.filter(|machine| machine.marker.as_ref().is_some_and(|marker| marker.pool == *pool));
        let visible = marked.filter(|machine| machine.is_visible(now));
        let mut machines: Vec<Machine> = visible.map(|machine| machine.shown(now)).collect();
        if !machines.is_empty() && self.strikes(Fault::ListUntidy) {
            let first = self.pick_index(machines.len());
            machines.rotate_left(first);
            machines.push(machines[0].clone());
        }
        let complete = !self.strikes(Fault::ListPartial);
        if !complete && !machines.is_empty() {
            let kept = self.pick_index(machines.len());
            machines.truncate(kept);
        }
        Ok(Listing { machines, complete })
    }

    /// Deletes a machine with its dependents. One that is gone or never was counts as deleted.
    pub fn delete(&mut self, now: Timestamp, reference: &MachineRef) -> Answer<Progress> {
        let now = self.reach(now);
        if let Err(error) = self.admit(now) {
            return Ok(Err(error));
        }
        if self.strikes(Fault::LostBeforeEffect) {
            return Err(Lost);
        }
        if self.strikes(Fault::DeleteError) {
            // A server error says nothing about what was done before it.
            return Ok(Err(self.error(ErrorKind::Transient, Certainty::Unknown)));
        }
        let Some(number) = number_of(reference) else {
            return Ok(Ok(Progress::Done { machine: Some(reference.clone()) }));
        };
        let fresh = |machine: &SimMachine| machine.delete_requested_at.is_none() && !machine.is_deleted(now);
        if self.machines.get(&number).is_some_and(fresh) {
            let gone_at = now + self.entropy.duration(&self.settings.delete_time);
            self.remove(number, now, gone_at);
        }
        let progress = match self.machines.get(&number) {
            Some(machine) => self.progress_of_delete(now, machine),
            None => Progress::Done { machine: Some(reference.clone()) },
        };
        if self.strikes(Fault::LostAfterEffect) { Err(Lost) } else { Ok(Ok(progress)) }
    }
}

/// Hand actions. Each answers whether there was such a machine, and it was not gone.
impl<E: Entropy> SimCloud<E> {
    /// Ends a machine at once, with its dependents: deleted by another hand, or taken back by the cloud.
    pub fn kill(&mut self, now: Timestamp, reference: &MachineRef) -> bool {
        let now = self.reach(now);
        let number = self.existing(now, reference);
        if let Some(number) = number {
            self.remove(number, now, now);
        }
        number.is_some()
    }

    /// Powers a machine off.
    pub fn stop(&mut self, now: Timestamp, reference: &MachineRef) -> bool {
        let now = self.reach(now);
        let machine = self.existing(now, reference).and_then(|number| self.machines.get_mut(&number));
        machine.map(|machine| machine.stopped_at = Some(machine.stopped_at.map_or(now, |at| at.min(now)))).is_some()
    }

    /// Takes our mark off a machine: from now on find and list do not know it.
    pub fn strip_marker(&mut self, now: Timestamp, reference: &MachineRef) -> bool {
        let now = self.reach(now);
        let number = self.existing(now, reference);
        if let Some(number) = number {
            self.unmark(number);
        }
        number.is_some()
    }

    /// Brings a machine into a state that has this name and no meaning to anybody here.
    pub fn confuse(&mut self, now: Timestamp, reference: &MachineRef, word: &str) -> bool {
        let now = self.reach(now);
        let machine = self.existing(now, reference).and_then(|number| self.machines.get_mut(&number));
        machine.map(|machine| machine.strange = Some(word.to_owned())).is_some()
    }

    /// Puts a machine there that we did not make, running since now: another installation's, with a mark like ours, or
    /// somebody's with none. Limits and lag do not apply.
    pub fn add_foreign(&mut self, now: Timestamp, marker: Option<Marker>, name: &str) -> MachineRef {
        let now = self.reach(now);
        let number = self.number();
        let reference = reference_of(number);
        self.insert(
            number,
            SimMachine {
                reference: reference.clone(),
                server: None,
                marker,
                name: name.to_owned(),
                token: None,
                user_data_hash: None,
                address: truth::address(number),
                dependents: self.settings.dependents,
                created_at: now,
                running_at: Some(now),
                booted_at: Some(now),
                stopped_at: None,
                failed_at: None,
                strange: None,
                delete_requested_at: None,
                deleted_at: None,
                visible_at: now,
                hidden_at: None,
                fingerprint: [0; 32],
            },
        );
        reference
    }
}

impl<E: Entropy> SimCloud<E> {
    /// Lets time come to `now`, and answers what time it is.
    fn reach(&mut self, now: Timestamp) -> Timestamp {
        self.latest = self.latest.max(now);
        while let Some((_, number)) = self.agenda.first().copied().filter(|(at, _)| *at <= self.latest) {
            self.agenda.pop_first();
            if self.machines.get(&number).is_none_or(|machine| machine.is_hidden(self.latest)) {
                self.current.remove(&number);
            }
        }
        self.latest
    }

    fn strikes(&mut self, fault: Fault) -> bool {
        let struck = self.entropy.chance(self.settings.faults.rate(fault));
        if struck {
            *self.hits.entry(fault).or_default() += 1;
        }
        struck
    }

    /// A place among so many, or 0.
    fn pick_index(&mut self, below: usize) -> usize {
        let below = u64::try_from(below).unwrap_or(u64::MAX);
        usize::try_from(self.entropy.pick(below)).unwrap_or(0)
    }

    fn admit(&mut self, now: Timestamp) -> Result<(), ProviderError> {
        self.calls += 1;
        let taken = self.bucket.take(now, self.settings.calls_per_second, self.settings.calls_burst);
        taken.map_err(|wait| {
            let error = self.error(ErrorKind::Throttled, Certainty::NotApplied);
            ProviderError { retry_after: Some(wait), ..error }
        })
    }

    fn admit_read(&mut self, now: Timestamp) -> Result<(), ProviderError> {
        self.admit(now)?;
        // A read that fails has changed nothing.
        if self.strikes(Fault::ReadError) {
            Err(self.error(ErrorKind::Transient, Certainty::NotApplied))
        } else {
            Ok(())
        }
    }

    /// The machine that this request has made or makes now.
    fn accept(&mut self, now: Timestamp, spec: &ServerSpec) -> Result<u64, ProviderError> {
        let user_data_hash = user_data_hash(spec);
        let fingerprint = truth::fingerprint(spec, user_data_hash);
        if let Some(number) = self.by_token.get(&spec.token).copied()
            && !self.strikes(Fault::TokenIgnored)
        {
            let same = self.machines[&number].fingerprint == fingerprint;
            return if same { Ok(number) } else { Err(self.error(ErrorKind::Conflict, Certainty::NotApplied)) };
        }
        if self.strikes(Fault::CreateError) {
            let kind = self.pick_kind();
            let retry_after = (kind == ErrorKind::Throttled).then_some(Duration::from_secs(1));
            return Err(ProviderError { retry_after, ..self.error(kind, Certainty::NotApplied) });
        }
        self.check_room(now)?;
        let late = self.strikes(Fault::LateEffect);
        let start = if late { now + self.entropy.duration(&self.settings.late_effect) } else { now };
        Ok(self.make(start, spec, user_data_hash, fingerprint))
    }

    /// Room is taken at acceptance, also by a request that takes effect later, and given back when a machine is gone.
    fn check_room(&self, now: Timestamp) -> Result<(), ProviderError> {
        let (capacity, quota) = (self.settings.capacity, self.settings.quota);
        // Counting takes as long as the cloud is large; while it is far from its limits there is nothing to count.
        if u32::try_from(self.current.len()).is_ok_and(|most| most < capacity.min(quota)) {
            return Ok(());
        }
        let taken = self.current.iter().map(|number| &self.machines[number]).filter(|machine| !machine.is_deleted(now));
        let (all, ours) = taken.fold((0, 0), |(all, ours), machine| (all + 1, ours + u32::from(machine.is_ours())));
        if ours >= quota {
            Err(self.error(ErrorKind::Quota, Certainty::NotApplied))
        } else if all >= capacity {
            Err(self.error(ErrorKind::NoCapacity, Certainty::NotApplied))
        } else {
            Ok(())
        }
    }

    /// Draws all that will become of a new machine, and puts it there.
    fn make(
        &mut self,
        start: Timestamp,
        spec: &ServerSpec,
        user_data_hash: Option<[u8; 32]>,
        fingerprint: [u8; 32],
    ) -> u64 {
        let boot_time = self.entropy.duration(&self.settings.boot_time);
        let powered = start + self.entropy.duration(&self.settings.provision_time);
        let visible_at = start + self.entropy.duration(&self.settings.visibility_lag);
        let failed_at = self.strikes(Fault::FailsForGood).then_some(powered);
        let dies = failed_at.is_none() && self.strikes(Fault::DiesBooting);
        let stopped_at = dies.then(|| powered + self.entropy.duration(&(Duration::ZERO..=boot_time)));
        let stuck = failed_at.is_none() && !dies && self.strikes(Fault::BootStuck);
        let number = self.number();
        self.created += 1;
        self.by_token.entry(spec.token.clone()).or_insert(number);
        self.insert(
            number,
            SimMachine {
                reference: reference_of(number),
                server: Some(spec.server),
                marker: Some(spec.marker.clone()),
                name: spec.name.as_str().to_owned(),
                token: Some(spec.token.clone()),
                user_data_hash,
                address: truth::address(number),
                dependents: self.settings.dependents,
                created_at: start,
                running_at: failed_at.is_none().then_some(powered),
                booted_at: (failed_at.is_none() && !dies && !stuck).then_some(powered + boot_time),
                stopped_at,
                failed_at,
                strange: None,
                delete_requested_at: None,
                deleted_at: None,
                visible_at,
                hidden_at: None,
                fingerprint,
            },
        );
        number
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn insert(&mut self, number: u64, machine: SimMachine) {
        let sure = [Some(machine.created_at), Some(machine.visible_at)];
        let maybe = [machine.running_at, machine.booted_at, machine.stopped_at, machine.failed_at];
        let to_come = sure.into_iter().chain(maybe).flatten().filter(|at| *at > self.latest);
        self.agenda.extend(to_come.map(|at| (at, number)));
        if let Some(marker) = &machine.marker {
            self.by_server.entry(marker.server.clone()).or_default().insert(number);
        }
        self.current.insert(number);
        self.machines.insert(number, machine);
    }

    /// Has a machine deleted by `gone_at`, and hidden when the lag after that is over.
    fn remove(&mut self, number: u64, now: Timestamp, gone_at: Timestamp) {
        let hidden_at = gone_at + self.entropy.duration(&self.settings.visibility_lag);
        let Some(machine) = self.machines.get_mut(&number) else { return };
        machine.delete_requested_at.get_or_insert(now);
        machine.deleted_at = Some(gone_at);
        machine.hidden_at = Some(hidden_at);
        if hidden_at <= now {
            self.current.remove(&number);
        }
        self.agenda.extend([gone_at, hidden_at].into_iter().filter(|at| *at > now).map(|at| (at, number)));
    }

    fn existing(&self, now: Timestamp, reference: &MachineRef) -> Option<u64> {
        let number = number_of(reference)?;
        self.machines.get(&number)?.exists(now).then_some(number)
    }

    fn progress_of_create(&self, now: Timestamp, machine: &SimMachine) -> Progress {
        let reference = Some(machine.reference.clone());
        match machine.state(now) {
            MachineState::Provisioning => Progress::Pending { op: self.op("create", machine), machine: reference },
            _ => Progress::Done { machine: reference },
        }
    }

    fn progress_of_delete(&self, now: Timestamp, machine: &SimMachine) -> Progress {
        let reference = Some(machine.reference.clone());
        match machine.is_deleted(now) {
            false => Progress::Pending { op: self.op("delete", machine), machine: reference },
            true => Progress::Done { machine: reference },
        }
    }

    fn op(&self, verb: &str, machine: &SimMachine) -> Option<OpRef> {
        self.settings.operations.then(|| OpRef(format!("{verb}:{}", machine.reference)))
    }

    fn pick_kind(&mut self) -> ErrorKind {
        let total = self.settings.create_errors.values().copied().map(u64::from).sum();
        let mut drawn = self.entropy.pick(total);
        for (kind, weight) in &self.settings.create_errors {
            match drawn.checked_sub(u64::from(*weight)) {
                Some(rest) => drawn = rest,
                None => return *kind,
            }
        }
        ErrorKind::Transient
    }

    fn error(&self, kind: ErrorKind, certainty: Certainty) -> ProviderError {
        let (code, message) = match kind {
            ErrorKind::NoCapacity => ("InsufficientCapacity", "there is no room for this size here now"),
            ErrorKind::Quota => ("QuotaExceeded", "the account's limit of machines is reached"),
            ErrorKind::Throttled => ("RequestLimitExceeded", "too many calls"),
            ErrorKind::Denied => ("AccessDenied", "the account may not do this"),
            ErrorKind::Invalid => ("InvalidParameter", "the request is not valid"),
            ErrorKind::Conflict => ("IdempotentParameterMismatch", "the object or token is in use by another request"),
            ErrorKind::Protected => ("DeletionProtected", "the machine is protected from deletion"),
            ErrorKind::Transient => ("InternalError", "something broke; try again"),
        };
        let error = ProviderError::new(kind, certainty, code, message);
        ProviderError { request_id: Some(format!("req-{}", self.calls)), ..error }
    }
}

fn reference_of(number: u64) -> MachineRef {
    MachineRef(format!("sim-{number:08x}"))
}

fn number_of(reference: &MachineRef) -> Option<u64> {
    let number = u64::from_str_radix(reference.0.strip_prefix("sim-")?, 16).ok()?;
    // Only the one way in which we write a number names a machine.
    (reference_of(number) == *reference).then_some(number)
}
