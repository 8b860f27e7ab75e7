//! A directory for stories and random walks: it keeps to the contract of `ports::Directory`, and answers at once.

use std::collections::{BTreeMap, BTreeSet};

use kasm_autoscale_core::command::{Action, EnrollComputer, Outcome};
use kasm_autoscale_core::id::{ConfigId, ServerId};
use kasm_autoscale_core::ports::{
    Certainty, ComputerListing, ComputerRef, DirectoryError, DirectoryErrorKind, JoinState, Marker, SeenComputer,
};
use kasm_autoscale_core::time::Timestamp;

use super::{DEPLOYMENT, POOL, key};

/// A computer object with our mark.
#[derive(Clone, Debug)]
pub struct Object {
    pub server: ServerId,
    config: ConfigId,
    pub name: String,
    pub joined: bool,
    pub has_children: bool,
    /// From when on look-ups and listings show it.
    pub visible_at: Timestamp,
}

/// The directory `corp`.
#[derive(Debug, Default)]
pub struct Corp {
    pub objects: BTreeMap<ComputerRef, Object>,
    /// Names of objects that are not ours.
    pub foreign: BTreeSet<String>,
    /// While it is there, every call fails with it.
    pub down: Option<DirectoryError>,
    made: u64,
}

impl Corp {
    pub fn of(&self, server: ServerId) -> Option<&ComputerRef> {
        self.objects.iter().find(|(_, object)| object.server == server).map(|(reference, _)| reference)
    }

    pub fn object_of(&mut self, server: ServerId) -> &mut Object {
        self.objects.values_mut().find(|object| object.server == server).expect("an object of this server")
    }

    /// Does what a command asks of a directory; what it makes is to be seen from `visible_at` on.
    pub fn perform(&mut self, now: Timestamp, visible_at: Timestamp, action: &Action) -> Outcome {
        let down = || self.down.clone().map_or(Ok(()), Err);
        match action {
            Action::Enroll(enroll) => Outcome::Enrolled(down().and_then(|()| self.ensure(enroll, visible_at))),
            Action::FindComputer { server, .. } => Outcome::ComputerFound(down().map(|()| {
                let of_server = |object: &Object| key(object.server) == *server && object.visible_at <= now;
                self.objects.iter().find(|(_, object)| of_server(object)).map(|(reference, _)| reference.clone())
            })),
            Action::CheckJoin { computer, .. } => Outcome::JoinChecked(down().map(|()| {
                let object = self.objects.get(computer).filter(|object| object.visible_at <= now);
                object.map_or(JoinState::Absent, |object| match object.joined {
                    true => JoinState::Joined,
                    false => JoinState::Waiting,
                })
            })),
            Action::Unenroll { computer, recursive, .. } => {
                Outcome::Unenrolled(down().and_then(|()| self.delete(computer, *recursive)))
            }
            Action::ListComputers { .. } => Outcome::ComputersListed(down().map(|()| self.list(now))),
            other => unreachable!("{} is nothing for a directory", other.verb()),
        }
    }

    fn ensure(&mut self, enroll: &EnrollComputer, visible_at: Timestamp) -> Result<ComputerRef, DirectoryError> {
        if let Some(reference) = self.of(enroll.server.server) {
            return Ok(reference.clone());
        }
        let name = enroll.name.as_str();
        if self.foreign.contains(name) || self.objects.values().any(|object| object.name == name) {
            let message = format!("{name} is the name of an object that is not ours");
            let kind = DirectoryErrorKind::NameTaken;
            return Err(DirectoryError::new(kind, Certainty::NotApplied, "entryAlreadyExists", &message));
        }
        Ok(self.make(enroll.server.server, enroll.config, name, visible_at))
    }

    pub fn make(&mut self, server: ServerId, config: ConfigId, name: &str, visible_at: Timestamp) -> ComputerRef {
        self.made += 1;
        let reference = ComputerRef(format!("obj-{}", self.made));
        let object = Object { server, config, name: name.into(), joined: false, has_children: false, visible_at };
        self.objects.insert(reference.clone(), object);
        reference
    }

    fn delete(&mut self, computer: &ComputerRef, recursive: bool) -> Result<(), DirectoryError> {
        if self.objects.get(computer).is_some_and(|object| object.has_children && !recursive) {
            let kind = DirectoryErrorKind::HasChildren;
            return Err(DirectoryError::new(kind, Certainty::NotApplied, "notAllowedOnNonLeaf", "it has children"));
        }
        self.objects.remove(computer);
        Ok(())
    }

    pub fn list(&self, now: Timestamp) -> ComputerListing {
        let shown = self.objects.iter().filter(|(_, object)| object.visible_at <= now);
        let seen = |(reference, object): (&ComputerRef, &Object)| SeenComputer {
            reference: reference.clone(),
            marker: Marker {
                deployment: DEPLOYMENT,
                pool: POOL,
                config: object.config,
                server: key(object.server).uuid(),
            },
            name: object.name.clone(),
        };
        ComputerListing { computers: shown.map(seen).collect(), complete: true }
    }
}
