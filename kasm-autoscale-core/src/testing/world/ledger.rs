//! The truth about a pool, kept apart from what the pool believes: who sits where, which machines were asked for, and which
//! of them the providers' contract answers for.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::super::cloud::SimMachine;
use super::super::lock::locked;
use super::sky::Sky;
use crate::id::{CommandId, ConfigId, ServerId, ServerKey, SessionId};
use crate::ports::MachineRef;
use crate::server::{DrainReason, PhaseKind};
use crate::time::Timestamp;

/// A create that has left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) config: ConfigId,
    pub(super) cloud: usize,
    /// When the caller has stopped waiting: what takes effect later is beyond the contract.
    pub(super) given_up_at: Timestamp,
}

/// A computer object that was asked for.
#[derive(Clone, Debug)]
pub(super) struct Enrolment {
    /// Which domain of the world.
    pub(super) domain: usize,
    /// With which password.
    pub(super) password: Option<String>,
    /// Whether an object has come to be.
    pub(super) made: bool,
}

/// A machine that was made for a server and has not been seen gone.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) cloud: usize,
    pub(super) reference: MachineRef,
    pub(super) config: ConfigId,
    /// Whether no contract answers for it: it came too late, twice, unmarked, or was lied about.
    pub(super) beyond: bool,
    /// Whether another one was made for the same server: which of them its row comes to know is anybody's guess.
    pub(super) one_of_many: bool,
    /// Whether it came after its request had been given up.
    pub(super) late: bool,
    /// Whether its cloud has said that it is not there, or that it is deleted.
    pub(super) lied_about: bool,
    /// Whether its pool has found that no row knows it. A pool that is read anew has forgotten that until it has listed again.
    pub(super) found_unknown: bool,
}

/// A user on a machine.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) server: ServerId,
    pub(super) machine: Option<(usize, MachineRef)>,
    /// Until when he is certainly there, since he was promised so.
    pub(super) alive_until: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) asked: BTreeMap<ServerId, Asked>,
    pub(super) made: BTreeMap<ServerId, Vec<Made>>,
    pub(super) seats: BTreeMap<SessionId, Seat>,
    pub(super) placed_ever: BTreeMap<ServerId, u32>,
    pub(super) phases: BTreeMap<ServerId, PhaseKind>,
    /// Sessions whose end was asked for.
    pub(super) ends_asked: BTreeSet<SessionId>,
    /// Why servers were drained that are draining.
    pub(super) drains: BTreeMap<ServerId, DrainReason>,
    /// Servers whose drain an operator wanted to take back.
    pub(super) undrains_asked: BTreeSet<ServerId>,
    /// Servers whose deletion with force was asked for.
    pub(super) forced: BTreeSet<ServerId>,
    /// Servers whose machines have said that they run.
    pub(super) spoken: BTreeSet<ServerId>,
    /// When the saved rows of a session that was answered for say that it is over.
    pub(super) over: BTreeMap<SessionId, Timestamp>,
    /// Servers whose computer objects were asked for.
    pub(super) enrolments: BTreeMap<ServerId, Enrolment>,
    /// When the host stops waiting for enrolments that have left.
    pub(super) enrol_until: BTreeMap<CommandId, Timestamp>,
    /// When the last server of this pool left each domain.
    pub(super) left_domain_at: BTreeMap<usize, Timestamp>,
    /// The last command that was let go, by whichever process.
    pub(super) last_command: Option<CommandId>,
    /// Machines that will join a domain, or have.
    pub(super) joining: BTreeSet<(usize, MachineRef)>,
}

impl Ledger {
    /// Takes note of the machines that a create has brought about.
    pub(super) fn note_machines(&mut self, sky: &Sky, key: ServerKey) -> u64 {
        let Some(asked) = self.asked.get(&key.server).copied() else { return 0 };
        let cloud = locked(&sky.clouds[asked.cloud]);
        let made = self.made.entry(key.server).or_default();
        let mut new = 0;
        for machine in cloud.sim.machines_of(&key.uuid()) {
            if !machine.is_ours() || made.iter().any(|known| known.reference == machine.reference) {
                continue;
            }
            new += 1;
            let late = machine.created_at > asked.given_up_at;
            made.push(Made {
                cloud: asked.cloud,
                reference: machine.reference.clone(),
                config: asked.config,
                beyond: late || !made.is_empty(),
                one_of_many: false,
                late,
                lied_about: false,
                found_unknown: false,
            });
        }
        let are_many = made.len() > 1;
        made.iter_mut().for_each(|made| made.one_of_many |= are_many);
        new
    }

    /// No contract answers for this machine any more.
    pub(super) fn put_beyond(&mut self, cloud: usize, reference: &MachineRef) {
        self.made_as(cloud, reference).for_each(|made| made.beyond = true);
    }

    /// Its pool has found that no row knows it.
    pub(super) fn found_unknown(&mut self, cloud: usize, reference: &MachineRef) {
        self.made_as(cloud, reference).for_each(|made| made.found_unknown = true);
    }

    /// Its cloud has said what is not so, and no contract answers for it any more.
    pub(super) fn lied_about(&mut self, cloud: usize, reference: &MachineRef) {
        self.made_as(cloud, reference).for_each(|made| (made.beyond, made.lied_about) = (true, true));
    }

    fn made_as(&mut self, cloud: usize, reference: &MachineRef) -> impl Iterator<Item = &mut Made> {
        let all = self.made.values_mut().flatten();
        all.filter(move |made| made.cloud == cloud && made.reference == *reference)
    }

    /// Forgets the machines that are gone.
    pub(super) fn forget_gone(&mut self, sky: &Sky, now: Timestamp) {
        self.made.retain(|_, all| {
            all.retain(|made| is_to_be_there(sky, made, now));
            !all.is_empty()
        });
    }

    /// The servers of a config that have a machine, or will have one any moment, for which the contract answers, beside the
    /// `unknown` ones.
    pub(super) fn servers_with_machines(
        &self,
        sky: &Sky,
        config: ConfigId,
        now: Timestamp,
        unknown: &BTreeSet<(usize, &MachineRef)>,
    ) -> BTreeSet<ServerId> {
        let is_known = |made: &Made| !unknown.contains(&(made.cloud, &made.reference));
        // A pool that was read anew does not know of one that it had found unknown, until it lists again.
        let answered_for = |made: &Made| !made.beyond && !made.found_unknown && is_known(made);
        let counts = |made: &&Made| made.config == config && answered_for(made) && is_to_be_there(sky, made, now);
        let with_one = self.made.iter().filter(|(_, all)| all.iter().any(|made| counts(&made)));
        with_one.map(|(server, _)| *server).collect()
    }

    /// A machine of this server that is there although its row is not, nor knows anybody of it.
    pub(super) fn left_behind(
        &self,
        sky: &Sky,
        server: ServerId,
        is_known: impl Fn(&Made) -> bool,
        now: Timestamp,
    ) -> Option<String> {
        let made = self.made.get(&server)?;
        let answered_for = |made: &&Made| !made.beyond && !made.one_of_many && !made.found_unknown;
        let left = made.iter().filter(answered_for).find(|made| !is_known(made) && is_to_be_there(sky, made, now))?;
        let cloud = locked(&sky.clouds[left.cloud]);
        Some(format!("{:?}", cloud.sim.machine(&left.reference)?))
    }

    /// How many sit on a server.
    pub(super) fn seated_on(&self, server: ServerId) -> usize {
        self.seats.values().filter(|seat| seat.server == server).count()
    }
}

/// Whether a machine is there, or will be without anybody doing anything.
fn is_to_be_there(sky: &Sky, made: &Made, now: Timestamp) -> bool {
    let cloud = locked(&sky.clouds[made.cloud]);
    cloud.sim.machine(&made.reference).is_some_and(|machine| !is_gone(machine, now))
}

fn is_gone(machine: &SimMachine, now: Timestamp) -> bool {
    machine.deleted_at.is_some_and(|at| at <= now)
}
