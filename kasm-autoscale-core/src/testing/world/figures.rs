//! What was seen and done in worlds, so that nobody takes for tested what never happened.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Bound;
use core::time::Duration;

use super::super::cloud::Fault;
use super::domain::DomainKind;
use super::weather::{Personality, Trouble};
use crate::server::PhaseKind;

/// Counters over one world or many.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Figures {
    /// Worlds.
    pub worlds: u64,
    /// Time that all pools together lived through, in milliseconds.
    pub pool_millis: u64,
    /// Steps of pools.
    pub steps: u64,
    /// Commands carried out.
    pub commands: u64,
    /// Sessions placed.
    pub placed: u64,
    /// Machines made.
    pub machines: u64,
    /// Crashes of hosts, and pools read anew.
    pub restores: u64,
    /// How often each fault struck so that it made a difference.
    pub faults: BTreeMap<&'static str, u64>,
    /// In how many worlds each pair of faults could occur together.
    pub pairs: BTreeMap<(&'static str, &'static str), u64>,
    /// How often everything else that is worth seeing was seen.
    pub seen: BTreeMap<&'static str, u64>,
    /// How often each move from phase to phase was seen.
    pub moves: BTreeMap<(PhaseKind, PhaseKind), u64>,
}

/// What must have been seen in a run of many worlds, beside every fault, trouble, move and personality.
const WORTH_SEEING: &[&str] = &[
    "decision: steady",
    "decision: create",
    "decision: undrain",
    "decision: wait",
    "decision: surplus held",
    "decision: drain",
    "decision: emptying",
    "decision: empty",
    "waiting: cap reached",
    "waiting: in flight full",
    "waiting: backing off",
    "waiting: trying",
    "waiting: provider missing",
    "drain: surplus",
    "drain: disabled",
    "drain: removed",
    "drain: operator",
    "drain: used",
    "delete: drained",
    "delete: not wanted",
    "delete: operator",
    "delete: boot deadline",
    "delete: create failed",
    "delete: machine failed",
    "delete: machine stopped",
    "delete: machine lost",
    "end: requested",
    "end: keepalive expired",
    "end: queue expired",
    "end: server lost",
    "end: server deleted",
    "refusal: unknown config",
    "refusal: unknown server",
    "refusal: unknown session",
    "refusal: session ended",
    "refusal: queue full",
    "refusal: nothing to serve",
    "refusal: key reused",
    "refusal: has sessions",
    "refusal: already deleting",
    "refusal: not draining",
    "refusal: check-in too late",
    "orphan seen",
    "orphan deleted",
    "queued",
    "command: create",
    "command: poll",
    "command: find",
    "command: list",
    "command: delete",
    "command: probe",
    "command: enroll",
    "command: find computer",
    "command: check join",
    "command: unenroll",
    "command: list computers",
    "waiting: directory missing",
    "delete: not made",
    "delete: enroll failed",
    "delete: computer lost",
    "orphan computer seen",
    "orphan computer removed",
    "foretold: placed",
    "foretold: made",
    "foretold: taken back",
    "foretold: drained",
    "foretold: covered",
    "foretold: backing off",
];

impl Figures {
    pub(super) fn struck(&mut self, what: &'static str) {
        *self.faults.entry(what).or_default() += 1;
    }

    pub(super) fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    pub(super) fn could(&mut self, classes: &BTreeSet<&'static str>) {
        for one in classes {
            for other in classes.range::<&str, _>((Bound::Excluded(*one), Bound::Unbounded)) {
                *self.pairs.entry((one, other)).or_default() += 1;
            }
        }
    }

    /// Adds another world's figures.
    pub fn add(&mut self, other: &Self) {
        self.worlds += other.worlds;
        self.pool_millis += other.pool_millis;
        self.steps += other.steps;
        self.commands += other.commands;
        self.placed += other.placed;
        self.machines += other.machines;
        self.restores += other.restores;
        merge(&mut self.faults, &other.faults);
        merge(&mut self.pairs, &other.pairs);
        merge(&mut self.seen, &other.seen);
        merge(&mut self.moves, &other.moves);
    }

    /// Years that all pools together lived through.
    pub fn pool_years(&self) -> f64 {
        Duration::from_millis(self.pool_millis).as_secs_f64() / (365.25 * 86_400.0)
    }

    /// In how many worlds the pair of faults that is rarest could occur together.
    pub fn rarest_pair(&self) -> Option<u64> {
        self.pairs.values().min().copied()
    }

    /// Faults that struck, of all classes.
    pub fn faults_total(&self) -> u64 {
        self.faults.values().sum()
    }

    /// Everything that should have been seen and was not: every fault and trouble, every personality, every move that the
    /// life of a server allows, and every decision, reason and refusal.
    pub fn unseen(&self) -> Vec<String> {
        let mut unseen: Vec<String> = Vec::new();
        let classes = Fault::ALL.into_iter().map(Fault::as_str).chain(Trouble::ALL.iter().map(|known| known.as_str()));
        // A known token never reaches a cloud twice: that is I-07.
        let classes = classes.chain(super::domain::words());
        let classes = classes.filter(|class| *class != Fault::TokenIgnored.as_str());
        unseen.extend(
            classes.filter(|class| !self.faults.contains_key(class)).map(|class| alloc::format!("fault: {class}")),
        );
        let personalities = Personality::ALL.into_iter().map(Personality::as_str);
        let domains = DomainKind::ALL.into_iter().map(DomainKind::as_str);
        let worth = WORTH_SEEING.iter().copied().chain(personalities).chain(domains);
        unseen.extend(worth.filter(|what| !self.seen.contains_key(what)).map(ToString::to_string));
        for from in PhaseKind::ALL {
            let allowed = PhaseKind::ALL.into_iter().filter(|to| from.may_become(*to));
            let missing = allowed.filter(|to| !self.moves.contains_key(&(from, *to)));
            unseen.extend(missing.map(|to| alloc::format!("move: {from} to {to}")));
        }
        unseen
    }
}

fn merge<K: Clone + Ord>(all: &mut BTreeMap<K, u64>, more: &BTreeMap<K, u64>) {
    for (key, count) in more {
        *all.entry(key.clone()).or_default() += count;
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "worlds             {}", self.worlds)?;
        writeln!(f, "pool-years         {:.1}", self.pool_years())?;
        writeln!(f, "steps              {}", self.steps)?;
        writeln!(f, "commands           {}", self.commands)?;
        writeln!(f, "sessions placed    {}", self.placed)?;
        writeln!(f, "machines made      {}", self.machines)?;
        writeln!(f, "pools read anew    {}", self.restores)?;
        writeln!(f, "faults effective   {}", self.faults_total())?;
        let rarest = self.faults.iter().min_by_key(|(_, count)| **count);
        if let Some((class, count)) = rarest {
            writeln!(f, "rarest fault       {class} ({count})")?;
        }
        let rarest = self.pairs.iter().min_by_key(|(_, count)| **count);
        if let Some(((one, other), count)) = rarest {
            writeln!(f, "rarest pair        {one} with {other} ({count} worlds)")?;
        }
        Ok(())
    }
}
