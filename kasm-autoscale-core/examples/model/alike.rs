//! Whether states that are taken for one go on alike: tests the view by which states are told apart.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::node::Node;
use super::plans::Plan;

/// What every state that was met leads to, by what it is taken for.
#[derive(Default)]
pub(crate) struct Alike {
    known: Mutex<BTreeMap<u64, u64>>,
    compared: AtomicUsize,
    differ: AtomicUsize,
}

/// A digest of all that may come of a state in one act.
fn futures(plan: &Plan, node: &Node) -> u64 {
    let mut acts = Vec::new();
    node.acts(plan, &mut acts);
    let mut futures: Vec<u64> = acts.into_iter().map(|act| node.after(plan, act).digest).collect();
    futures.sort_unstable();
    futures.dedup();
    let mut hasher = DefaultHasher::new();
    futures.hash(&mut hasher);
    hasher.finish()
}

impl Alike {
    /// Compares what this state leads to with what the first one that was taken for the same led to.
    pub(crate) fn compare(&self, plan: &Plan, node: &Node) {
        let futures = futures(plan, node);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let first = *known.entry(node.digest).or_insert(futures);
        self.compared.fetch_add(1, Ordering::Relaxed);
        self.differ.fetch_add(usize::from(first != futures), Ordering::Relaxed);
    }

    pub(crate) fn told(&self) -> String {
        let (compared, differ) = (self.compared.load(Ordering::Relaxed), self.differ.load(Ordering::Relaxed));
        format!("{differ} of {compared} ways led to a state that goes on otherwise than the one it is taken for")
    }
}
