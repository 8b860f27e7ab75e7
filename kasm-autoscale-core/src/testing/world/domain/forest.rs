//! The computer objects of a domain as they really are, and as each of its controllers sees them.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;

use crate::id::ServerKey;
use crate::ports::{ComputerRef, Marker};
use crate::time::Timestamp;

use super::super::host::DEPLOYMENT;

/// How many controllers a domain may have.
pub(in super::super) const CONTROLLERS_MAX: usize = 3;

/// From when each controller knows of a change.
pub(in super::super) type Spread = [Timestamp; CONTROLLERS_MAX];

/// No controller ever knows.
pub(in super::super) const NEVER: Spread = [Timestamp::from_millis(u64::MAX); CONTROLLERS_MAX];

/// One computer object.
#[derive(Clone, Debug)]
pub(in super::super) struct Object {
    pub(in super::super) reference: ComputerRef,
    pub(in super::super) marker: Option<Marker>,
    pub(in super::super) name: String,
    /// The password with which a machine can join; `None`: somebody else made it.
    pub(in super::super) password: Option<String>,
    pub(in super::super) made: Spread,
    /// When a machine took the password over.
    pub(in super::super) joined_at: Option<Timestamp>,
    pub(in super::super) joined: Spread,
    pub(in super::super) gone_at: Option<Timestamp>,
    pub(in super::super) gone: Spread,
    pub(in super::super) has_children: bool,
    pub(in super::super) is_protected: bool,
    /// Moved to where the account neither sees nor removes anything.
    pub(in super::super) is_elsewhere: bool,
    /// Whether no contract answers for it: made too late or twice, or lied about.
    pub(in super::super) beyond: bool,
    /// Whether it came, or came into sight, after its request had been given up.
    pub(in super::super) late: bool,
}

impl Object {
    pub(in super::super) const fn exists(&self) -> bool {
        self.gone_at.is_none()
    }

    /// Whether a controller knows of it.
    pub(in super::super) fn is_at(&self, controller: usize, now: Timestamp) -> bool {
        self.made[controller] <= now && now < self.gone[controller]
    }

    /// The same where the account searches.
    pub(in super::super) fn is_seen(&self, controller: usize, now: Timestamp) -> bool {
        self.is_at(controller, now) && !self.is_elsewhere
    }

    /// An operator makes it fit to be removed.
    pub(in super::super) fn helped(&mut self, now: Timestamp) {
        (self.has_children, self.is_protected) = (false, false);
        if self.is_elsewhere {
            self.is_elsewhere = false;
            self.made.iter_mut().for_each(|at| *at = (*at).max(now));
        }
    }

    /// Whether we made it.
    pub(in super::super) const fn is_ours(&self) -> bool {
        self.password.is_some()
    }

    /// Whether it bears the mark of this server of ours.
    pub(in super::super) fn is_of(&self, server: &ServerKey, uuid: &str) -> bool {
        let bears =
            |marker: &Marker| (marker.deployment, marker.pool) == (DEPLOYMENT, server.pool) && marker.server == uuid;
        self.marker.as_ref().is_some_and(bears)
    }
}

/// All objects that are there or that some controller still shows.
#[derive(Debug, Default)]
pub(in super::super) struct Forest {
    objects: BTreeMap<u64, Object>,
    made: u64,
    /// Which domain of the world it is, so that references of different domains differ.
    number: usize,
}

impl Forest {
    pub(in super::super) fn new(number: usize) -> Self {
        Self { number, ..Self::default() }
    }

    pub(in super::super) fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.values()
    }

    pub(in super::super) fn objects_mut(&mut self) -> impl Iterator<Item = &mut Object> {
        self.objects.values_mut()
    }

    /// The objects that are there.
    pub(in super::super) fn live(&self) -> impl Iterator<Item = &Object> {
        self.objects().filter(|object| object.exists())
    }

    /// The objects of a server of ours that are there.
    pub(in super::super) fn live_of(&self, server: &ServerKey) -> impl Iterator<Item = &Object> {
        let (server, uuid) = (*server, server.uuid());
        self.live().filter(move |object| object.is_of(&server, &uuid))
    }

    /// The object that is called so.
    pub(in super::super) fn get(&self, reference: &ComputerRef) -> Option<&Object> {
        self.objects.get(&number_of(reference)?).filter(|object| object.reference == *reference)
    }

    pub(in super::super) fn get_mut(&mut self, reference: &ComputerRef) -> Option<&mut Object> {
        self.objects.get_mut(&number_of(reference)?).filter(|object| object.reference == *reference)
    }

    /// Puts an object there, and calls it by a name of its own.
    pub(in super::super) fn insert(&mut self, object: Object) -> ComputerRef {
        self.made += 1;
        let reference = ComputerRef(format!("object-{}-{}", self.made, self.number));
        self.objects.insert(self.made, Object { reference: reference.clone(), ..object });
        reference
    }

    /// Forgets what no controller shows any more.
    pub(in super::super) fn forget_gone(&mut self, now: Timestamp) {
        self.objects.retain(|_, object| object.gone.iter().any(|at| *at > now));
    }
}

fn number_of(reference: &ComputerRef) -> Option<u64> {
    reference.0.strip_prefix("object-")?.split('-').next()?.parse().ok()
}
