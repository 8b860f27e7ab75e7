//! A simulated directory: a pure, deterministic model of computer objects that holds the truth and answers like a domain
//! controller, faults included.
//!
//! Three kinds of methods, as in the [simulated cloud](super::cloud):
//! - **calls**, as the core's [`Directory`](crate::ports::Directory) makes them: [`ensure_computer`](SimDirectory::ensure_computer),
//!   [`find_computer`](SimDirectory::find_computer), [`joined`](SimDirectory::joined),
//!   [`delete_computer`](SimDirectory::delete_computer), [`list_computers`](SimDirectory::list_computers);
//! - **hand actions**: machines [`join`](SimDirectory::join); operators or fate [`remove`](SimDirectory::remove) objects,
//!   [`add_foreign`](SimDirectory::add_foreign) ones, put others [below](SimDirectory::add_child), or take the directory
//!   [down](SimDirectory::set_down);
//! - **the truth**, for checkers: [`computers`](SimDirectory::computers), [`marked`](SimDirectory::marked),
//!   [`duplicates`](SimDirectory::duplicates), [`joins_refused`](SimDirectory::joins_refused). It is never delayed and never wrong.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::id::{PoolId, ServerKey};
use crate::ports::{
    Certainty, Computer, ComputerListing, ComputerRef, DirectoryError, DirectoryErrorKind, DirectoryFacts,
    JoinPassword, JoinState, Marker, SeenComputer,
};
use crate::testing::cloud::Lost;
use crate::testing::entropy::{Entropy, Seeded};
use crate::time::Timestamp;

mod settings;

pub use settings::{DirectoryFault, DirectorySettings};

/// What comes back from a call that changes something: an answer, good or bad, or none.
pub type Answer<T> = Result<Result<T, DirectoryError>, Lost>;

/// One computer object, as it really is.
#[derive(Clone, Debug)]
pub struct SimComputer {
    /// What the directory calls it.
    pub reference: ComputerRef,
    /// The mark on it; `None` for a foreign object.
    pub marker: Option<Marker>,
    /// The computer's name.
    pub name: String,
    /// The organisational unit it lies in.
    pub ou: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When look-ups and lists begin to show it.
    pub visible_at: Timestamp,
    /// When its machine joined and took the password over.
    pub joined_at: Option<Timestamp>,
    /// How many objects lie below it.
    pub children: u32,
    /// When it was removed.
    pub removed_at: Option<Timestamp>,
    /// When lists cease to show it.
    pub hidden_at: Option<Timestamp>,
    /// The SHA-256 of the password it was made with; `None` for a foreign object.
    password: Option<[u8; 32]>,
}

impl SimComputer {
    /// Whether it is there.
    pub const fn exists(&self) -> bool {
        self.removed_at.is_none()
    }

    fn is_listed(&self, now: Timestamp) -> bool {
        self.visible_at <= now && self.hidden_at.is_none_or(|at| now < at)
    }

    fn is_of(&self, server: &ServerKey) -> bool {
        self.marker.as_ref().is_some_and(|marker| marker.pool == server.pool && marker.server == server.uuid())
    }
}

/// Why a machine could not join.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum JoinRefused {
    /// There is no computer object of this name.
    #[error("there is no computer object of this name")]
    NoComputer,
    /// The password is another one.
    #[error("the password is wrong")]
    WrongPassword,
    /// A machine has joined with it already: it is worth nothing any more.
    #[error("the password has been used")]
    Used,
}

/// The simulated directory. The module's documentation says what it does.
///
/// ```
/// use kasm_autoscale_core::testing::directory::{DirectorySettings, SimDirectory};
/// use kasm_autoscale_core::time::Timestamp;
/// let mut directory = SimDirectory::new(DirectorySettings::default(), 1);
/// let pool = "00000000-0000-0000-0000-000000000001".parse().unwrap();
/// assert!(directory.list_computers(Timestamp::from_secs(0), &pool).unwrap().complete);
/// assert!(directory.marked(&pool).is_empty());
/// ```
#[derive(Clone, Debug)]
pub struct SimDirectory<E = Seeded> {
    settings: DirectorySettings,
    entropy: E,
    computers: BTreeMap<u64, SimComputer>,
    down: Option<DirectoryErrorKind>,
    latest: Timestamp,
    calls: u64,
    joins_refused: BTreeMap<String, u32>,
    hits: BTreeMap<DirectoryFault, u64>,
}

impl SimDirectory {
    /// An empty directory whose chances come from a seed.
    pub fn new(settings: DirectorySettings, seed: u64) -> Self {
        Self::with_entropy(settings, Seeded::stream(seed, "directory"))
    }
}

/// Calls, as the core makes them.
impl<E: Entropy> SimDirectory<E> {
    /// An empty directory whose chances come from this source.
    pub fn with_entropy(settings: DirectorySettings, entropy: E) -> Self {
        Self {
            settings,
            entropy,
            computers: BTreeMap::new(),
            down: None,
            latest: Timestamp::default(),
            calls: 0,
            joins_refused: BTreeMap::new(),
            hits: BTreeMap::new(),
        }
    }

    /// What the directory says of itself.
    pub fn describe(&self) -> DirectoryFacts {
        let settings = &self.settings;
        DirectoryFacts {
            domain: settings.domain.clone(),
            visibility_lag: *settings.visibility_lag.end(),
            poll_busy: settings.poll_busy,
            poll_idle: settings.poll_idle,
            call_timeout: settings.call_timeout,
        }
    }

    /// Makes the computer object of a server, or answers with the one that is there, its password unchanged.
    pub fn ensure_computer(
        &mut self,
        now: Timestamp,
        computer: &Computer,
        password: &JoinPassword,
    ) -> Answer<ComputerRef> {
        let now = self.reach(now);
        if let Err(error) = self.admit() {
            return Ok(Err(error));
        }
        if self.strikes(DirectoryFault::LostBeforeEffect) {
            return Err(Lost);
        }
        if self.strikes(DirectoryFault::EnsureError) {
            return Ok(Err(error(DirectoryErrorKind::Transient, Certainty::NotApplied)));
        }
        if self.strikes(DirectoryFault::EnsureUnsure) {
            if self.entropy.pick(2) == 0 {
                // Nobody hears what came of it.
                drop(self.make(now, computer, password));
            }
            return Ok(Err(error(DirectoryErrorKind::Transient, Certainty::Unknown)));
        }
        let made = self.make(now, computer, password);
        if self.strikes(DirectoryFault::LostAfterEffect) { Err(Lost) } else { Ok(made) }
    }

    /// The computer object of this server, by its mark, if it is visible.
    pub fn find_computer(&mut self, now: Timestamp, server: &ServerKey) -> Result<Option<ComputerRef>, DirectoryError> {
        let now = self.reach(now);
        self.admit_read()?;
        let found = self.live().find(|computer| computer.is_of(server) && computer.visible_at <= now);
        Ok(found.map(|computer| computer.reference.clone()))
    }

    /// Whether the machine has taken its password over.
    pub fn joined(&mut self, now: Timestamp, reference: &ComputerRef) -> Result<JoinState, DirectoryError> {
        let now = self.reach(now);
        self.admit_read()?;
        let computer = self.computer(reference).filter(|computer| computer.exists() && computer.visible_at <= now);
        Ok(match computer.map(|computer| computer.joined_at) {
            None => JoinState::Absent,
            Some(None) => JoinState::Waiting,
            Some(Some(_)) => JoinState::Joined,
        })
    }

    /// Removes a computer object, with `recursive` whatever lies below it too. One that is not there counts as removed.
    pub fn delete_computer(&mut self, now: Timestamp, reference: &ComputerRef, recursive: bool) -> Answer<()> {
        let now = self.reach(now);
        if let Err(error) = self.admit() {
            return Ok(Err(error));
        }
        if self.strikes(DirectoryFault::LostBeforeEffect) {
            return Err(Lost);
        }
        if self.strikes(DirectoryFault::DeleteError) {
            return Ok(Err(error(DirectoryErrorKind::Transient, Certainty::NotApplied)));
        }
        let live = self.computer(reference).filter(|computer| computer.exists());
        if live.is_some_and(|computer| computer.children > 0 && !recursive) {
            return Ok(Err(error(DirectoryErrorKind::HasChildren, Certainty::NotApplied)));
        }
        self.take_away(now, reference);
        if self.strikes(DirectoryFault::LostAfterEffect) { Err(Lost) } else { Ok(Ok(())) }
    }

    /// The computer objects that bear the mark of this pool and are visible, of whatever deployment.
    pub fn list_computers(&mut self, now: Timestamp, pool: &PoolId) -> Result<ComputerListing, DirectoryError> {
        let now = self.reach(now);
        self.admit_read()?;
        let marked = |computer: &&SimComputer| computer.marker.as_ref().is_some_and(|marker| marker.pool == *pool);
        let visible = self.computers.values().filter(marked).filter(|computer| computer.is_listed(now));
        let seen = |computer: &SimComputer| {
            let (reference, name) = (computer.reference.clone(), computer.name.clone());
            Some(SeenComputer { reference, marker: computer.marker.clone()?, name })
        };
        let mut computers: Vec<SeenComputer> = visible.filter_map(seen).collect();
        let complete = !self.strikes(DirectoryFault::ListPartial);
        if !complete && !computers.is_empty() {
            let kept = self.entropy.pick(u64::try_from(computers.len()).unwrap_or(u64::MAX));
            computers.truncate(usize::try_from(kept).unwrap_or(0));
        }
        Ok(ComputerListing { computers, complete })
    }
}

/// Hand actions.
impl<E: Entropy> SimDirectory<E> {
    /// A machine of this name joins with this password, and sets one of its own.
    ///
    /// # Errors
    /// [`JoinRefused`]; it is counted.
    pub fn join(&mut self, now: Timestamp, name: &str, password: &str) -> Result<(), JoinRefused> {
        let now = self.reach(now);
        let hash = hash(password);
        let number = self.number_named(name);
        let computer = number.and_then(|number| self.computers.get_mut(&number));
        let refused = match computer {
            None => JoinRefused::NoComputer,
            Some(computer) if computer.password != Some(hash) => JoinRefused::WrongPassword,
            Some(computer) if computer.joined_at.is_some() => JoinRefused::Used,
            Some(computer) => {
                computer.joined_at = Some(now);
                if self.strikes(DirectoryFault::Children)
                    && let Some(computer) = number.and_then(|number| self.computers.get_mut(&number))
                {
                    computer.children += 1;
                }
                return Ok(());
            }
        };
        *self.joins_refused.entry(name.into()).or_default() += 1;
        Err(refused)
    }

    /// Removes an object by another hand, with what lies below it. Answers whether it was there.
    pub fn remove(&mut self, now: Timestamp, reference: &ComputerRef) -> bool {
        let now = self.reach(now);
        self.take_away(now, reference)
    }

    /// Puts an object below a computer object. Answers whether that is there.
    pub fn add_child(&mut self, reference: &ComputerRef) -> bool {
        let computer = number_of(reference).and_then(|number| self.computers.get_mut(&number));
        computer.filter(|computer| computer.exists()).map(|computer| computer.children += 1).is_some()
    }

    /// Puts an object there that we did not make: with the mark of another installation, or with none.
    pub fn add_foreign(&mut self, now: Timestamp, marker: Option<Marker>, name: &str) -> ComputerRef {
        let now = self.reach(now);
        self.insert(now, now, marker, name, "CN=Computers,DC=corp,DC=example", None)
    }

    /// From now on every call fails in this way, certainly without effect; `None`: the directory is back.
    pub fn set_down(&mut self, down: Option<DirectoryErrorKind>) {
        self.down = down;
    }
}

/// The truth, for checkers.
impl<E> SimDirectory<E> {
    /// How the directory behaves.
    pub fn settings(&self) -> &DirectorySettings {
        &self.settings
    }

    /// How the directory behaves from now on. Objects that are there keep the times they were given.
    pub fn settings_mut(&mut self) -> &mut DirectorySettings {
        &mut self.settings
    }

    /// Every object that ever was, the eldest first; foreign ones included.
    pub fn computers(&self) -> impl Iterator<Item = &SimComputer> {
        self.computers.values()
    }

    /// The objects that are there, foreign ones included, the eldest first.
    pub fn live(&self) -> impl Iterator<Item = &SimComputer> {
        self.computers.values().filter(|computer| computer.exists())
    }

    /// The object of this reference, whatever has become of it.
    pub fn computer(&self, reference: &ComputerRef) -> Option<&SimComputer> {
        self.computers.get(&number_of(reference)?)
    }

    /// The servers, by [`ServerKey::uuid`], whose marked objects are there, of this pool: what must equal the servers that
    /// need one.
    pub fn marked(&self, pool: &PoolId) -> BTreeSet<String> {
        let marks = self.live().filter_map(|computer| computer.marker.as_ref());
        marks.filter(|marker| marker.pool == *pool).map(|marker| marker.server.clone()).collect()
    }

    /// The servers, by [`ServerKey::uuid`], that have more than one object.
    pub fn duplicates(&self) -> Vec<String> {
        let mut counts: BTreeMap<&String, u32> = BTreeMap::new();
        for marker in self.live().filter_map(|computer| computer.marker.as_ref()) {
            *counts.entry(&marker.server).or_default() += 1;
        }
        counts.into_iter().filter(|(_, count)| *count > 1).map(|(server, _)| server.clone()).collect()
    }

    /// How often a machine of this name was refused when it wanted to join.
    pub fn joins_refused(&self, name: &str) -> u32 {
        self.joins_refused.get(name).copied().unwrap_or(0)
    }

    /// How many calls have been made, refused ones included.
    pub fn calls_total(&self) -> u64 {
        self.calls
    }

    /// How often a fault has struck.
    pub fn hits(&self, fault: DirectoryFault) -> u64 {
        self.hits.get(&fault).copied().unwrap_or(0)
    }

    /// Names are the same whatever the case of their letters.
    fn number_named(&self, name: &str) -> Option<u64> {
        let named = |computer: &SimComputer| computer.exists() && computer.name.eq_ignore_ascii_case(name);
        self.computers.iter().find(|(_, computer)| named(computer)).map(|(number, _)| *number)
    }
}

impl<E: Entropy> SimDirectory<E> {
    fn reach(&mut self, now: Timestamp) -> Timestamp {
        self.latest = self.latest.max(now);
        self.latest
    }

    fn strikes(&mut self, fault: DirectoryFault) -> bool {
        let struck = self.entropy.chance(self.settings.faults.get(&fault).copied().unwrap_or(0));
        if struck {
            *self.hits.entry(fault).or_default() += 1;
        }
        struck
    }

    fn admit(&mut self) -> Result<(), DirectoryError> {
        self.calls += 1;
        self.down.map_or(Ok(()), |kind| Err(error(kind, Certainty::NotApplied)))
    }

    fn admit_read(&mut self) -> Result<(), DirectoryError> {
        self.admit()?;
        if self.strikes(DirectoryFault::ReadError) {
            Err(error(DirectoryErrorKind::Transient, Certainty::NotApplied))
        } else {
            Ok(())
        }
    }

    /// The object of this server: the one that is there, or a new one. An enrolment writes where it reads, so it is not
    /// deceived by what is not visible elsewhere.
    fn make(
        &mut self,
        now: Timestamp,
        computer: &Computer,
        password: &JoinPassword,
    ) -> Result<ComputerRef, DirectoryError> {
        if let Some(known) = self.live().find(|known| known.is_of(&computer.server)) {
            return Ok(known.reference.clone());
        }
        if self.number_named(computer.name.as_str()).is_some() {
            return Err(error(DirectoryErrorKind::NameTaken, Certainty::NotApplied));
        }
        let ours = self.live().filter(|known| known.password.is_some()).count();
        if u32::try_from(ours).is_ok_and(|ours| ours >= self.settings.quota) {
            return Err(error(DirectoryErrorKind::Quota, Certainty::NotApplied));
        }
        let visible_at = now + self.entropy.duration(&self.settings.visibility_lag);
        let marker = Some(computer.marker.clone());
        let password = Some(hash(password.expose_secret()));
        Ok(self.insert(now, visible_at, marker, computer.name.as_str(), &computer.ou, password))
    }

    fn insert(
        &mut self,
        created_at: Timestamp,
        visible_at: Timestamp,
        marker: Option<Marker>,
        name: &str,
        ou: &str,
        password: Option<[u8; 32]>,
    ) -> ComputerRef {
        let number = self.computers.last_key_value().map_or(1, |(last, _)| last + 1);
        let computer = SimComputer {
            reference: reference_of(number),
            marker,
            name: name.into(),
            ou: ou.into(),
            created_at,
            visible_at,
            joined_at: None,
            children: 0,
            removed_at: None,
            hidden_at: None,
            password,
        };
        self.computers.insert(number, computer);
        reference_of(number)
    }

    fn take_away(&mut self, now: Timestamp, reference: &ComputerRef) -> bool {
        let hidden_at = now + self.entropy.duration(&self.settings.visibility_lag);
        let computer = number_of(reference).and_then(|number| self.computers.get_mut(&number));
        let Some(computer) = computer.filter(|computer| computer.exists()) else { return false };
        computer.removed_at = Some(now);
        computer.hidden_at = Some(hidden_at);
        true
    }
}

fn hash(password: &str) -> [u8; 32] {
    Sha256::digest(password.as_bytes()).into()
}

fn error(kind: DirectoryErrorKind, certainty: Certainty) -> DirectoryError {
    let (code, message) = match kind {
        DirectoryErrorKind::NameTaken => ("entryAlreadyExists", "the name belongs to an object that is not ours"),
        DirectoryErrorKind::HasChildren => {
            ("notAllowedOnNonLeaf", "there are objects below it; set ad_recursive_cleanup to remove them too")
        }
        DirectoryErrorKind::Protected => ("insufficientAccessRights", "it is protected from deletion"),
        DirectoryErrorKind::Denied => ("insufficientAccessRights", "the account may not do this"),
        DirectoryErrorKind::Invalid => ("invalidDNSyntax", "the request is not valid"),
        DirectoryErrorKind::Quota => ("adminLimitExceeded", "the account's quota of objects is used up"),
        DirectoryErrorKind::Throttled => ("busy", "too many calls"),
        DirectoryErrorKind::Transient => ("unavailable", "the directory does not answer; try again"),
    };
    DirectoryError::new(kind, certainty, code, message)
}

fn reference_of(number: u64) -> ComputerRef {
    ComputerRef(format!("sim-computer-{number}"))
}

fn number_of(reference: &ComputerRef) -> Option<u64> {
    let number = reference.0.strip_prefix("sim-computer-")?.parse().ok()?;
    // Only the one way in which we write a number names an object.
    (reference_of(number) == *reference).then_some(number)
}
