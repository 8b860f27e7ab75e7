//! How far a search has really gone: a bound that no state has reached bounds nothing.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use kasm_autoscale_core::server::PhaseKind;

use super::node::Node;
use super::plans::{Budget, Plan};

/// What can be counted of a state, by name.
const NAMES: [&str; 7] = ["configs", "servers", "sessions", "crashes", "lost answers", "mishaps", "wishes"];

/// The bounds of a plan, in the order of [`NAMES`].
fn bounds(plan: &Plan) -> [usize; 7] {
    let Budget { crashes, lost, mishaps, wishes } = plan.budget;
    let [crashes, lost, mishaps, wishes] = [crashes, lost, mishaps, wishes].map(usize::from);
    [plan.configs.len(), plan.servers, plan.users, crashes, lost, mishaps, wishes]
}

/// The same of one state: configs that have servers, servers there are, sessions that are open, and what has gone wrong so far.
fn counted(plan: &Plan, node: &Node) -> [usize; 7] {
    let mut configs: Vec<_> = node.pool.servers().map(|server| server.config).collect();
    configs.sort_unstable();
    configs.dedup();
    let alive = node.pool.servers().filter(|server| server.phase.kind() != PhaseKind::Gone).count();
    let (all, left) = (plan.budget, node.budget);
    let gone_wrong =
        [all.crashes - left.crashes, all.lost - left.lost, all.mishaps - left.mishaps, all.wishes - left.wishes];
    let [crashes, lost, mishaps, wishes] = gone_wrong.map(usize::from);
    [configs.len(), alive, node.open().count(), crashes, lost, mishaps, wishes]
}

/// The most of everything, and in how many states all of it was at once.
#[derive(Default)]
pub(crate) struct Reached {
    most: [AtomicUsize; 7],
    at_once: AtomicUsize,
}

impl Reached {
    pub(crate) fn note(&self, plan: &Plan, node: &Node) {
        let (counted, bounds) = (counted(plan, node), bounds(plan));
        for (most, count) in self.most.iter().zip(counted) {
            most.fetch_max(count, Ordering::Relaxed);
        }
        let reaches_all = counted.iter().zip(bounds).all(|(count, bound)| *count >= bound);
        self.at_once.fetch_add(usize::from(reaches_all), Ordering::Relaxed);
    }

    /// What was to be reached and was not, in words; `None` if all was, in one state.
    pub(crate) fn missed(&self, plan: &Plan) -> Option<String> {
        let at_once = self.at_once.load(Ordering::Relaxed);
        (at_once == 0).then(|| format!("never {:?} of {NAMES:?} at once, only {self}", bounds(plan)))
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, most) in NAMES.iter().zip(&self.most) {
            match most.load(Ordering::Relaxed) {
                0 => {}
                most => write!(f, "{most} {name}, ")?,
            }
        }
        write!(f, "all at once in {} states", self.at_once.load(Ordering::Relaxed))
    }
}
