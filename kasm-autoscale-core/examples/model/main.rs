//! Goes through every order of events that small pools can meet, with the real `Pool::step` and `Pool::restore`.
//!
//! ```text
//! cargo run --release -p kasm-autoscale-core --features testing --example model -- --threads 2
//! cargo run --release -p kasm-autoscale-core --features testing --example model -- --only joining
//! ```
//!
//! Each model is a pool of one or two configs and up to four servers, with what may happen to it: answers in any order, lost
//! before or after their effect, late or blind to what is new; crashes, after which calls that were on their way may still
//! have their effect; users, operators, machines that vanish. `stateright` visits every state once. In every one the pool
//! recounts itself; on every way to it the promises of [`promises::Broken`] must hold; and from every one the pool must come to
//! rest where its configs want it, once nothing more goes wrong, and then leave everything as it is.
//!
//! States are told apart by [`view`](kasm_autoscale_core::testing::view): distances in time for instants, places for numbers.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods, reason = "it is a program for people")]

mod node;
mod plans;
mod promises;
mod rest;
mod truth;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use node::{Act, Node};
use plans::Plan;
use promises::Broken;
use stateright::{Checker, HasDiscoveries, Model, Property};

/// So many things happen until a pool that is left in peace must be at rest.
const ACTS_UNTIL_REST: usize = 600;

/// States from which the pool is known to come to rest, by part so that threads seldom meet.
struct Resting([Mutex<BTreeSet<u64>>; 64]);

impl Resting {
    fn new() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }

    fn extend(&self, digests: &[u64]) {
        for digest in digests {
            self.part(*digest).insert(*digest);
        }
    }

    fn part(&self, digest: u64) -> std::sync::MutexGuard<'_, BTreeSet<u64>> {
        self.0[(digest >> 58) as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct PoolModel {
    plan: Arc<Plan>,
    resting: Resting,
}

impl PoolModel {
    /// I-16 and I-17: if nothing more goes wrong, the goal is reached, and then nothing is made or deleted any more.
    fn comes_to_rest(&self, node: &Node) -> bool {
        let mut way = Vec::new();
        let mut node = node.clone();
        for _ in 0..ACTS_UNTIL_REST {
            if self.resting.part(node.digest).contains(&node.digest) {
                self.resting.extend(&way);
                return true;
            }
            way.push(node.digest);
            if node.has_reached_its_goal() {
                let stays = self.stays(node);
                if stays {
                    self.resting.extend(&way);
                }
                return stays;
            }
            let Some(act) = node.untroubled() else { return false };
            node.happens(&self.plan, act);
            if node.broken.is_some() {
                return false;
            }
        }
        false
    }

    fn stays(&self, mut node: Node) -> bool {
        for _ in 0..20 {
            let Some(act) = node.untroubled() else { return true };
            node.happens(&self.plan, act);
            if node.changes > 0 || node.broken.is_some() || !node.has_reached_its_goal() {
                return false;
            }
        }
        true
    }
}

macro_rules! holds {
    ($name:literal, $broken:pat) => {
        Property::always($name, |_: &PoolModel, node: &Node| !matches!(node.broken, Some($broken)))
    };
}

impl Model for PoolModel {
    type State = Node;
    type Action = Act;

    fn init_states(&self) -> Vec<Node> {
        vec![Node::first(&self.plan)]
    }

    fn actions(&self, node: &Node, acts: &mut Vec<Act>) {
        node.acts(&self.plan, acts);
    }

    fn next_state(&self, node: &Node, act: Act) -> Option<Node> {
        Some(node.after(&self.plan, act))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            holds!("I-07 a create is sent once", Broken::CreatedTwice),
            holds!("I-09 the cap holds", Broken::Cap),
            holds!("I-10 nothing is made without need", Broken::Needless),
            holds!("I-14 no machine is deleted under a session", Broken::UnderSession),
            holds!("I-20, I-21, I-23 forgotten only when nothing is left", Broken::Forgotten),
            holds!("I-24 what is ready is there", Broken::NotThere),
            holds!("I-31 what was promised is kept", Broken::Promise),
            holds!("the pool's own guard finds nothing", Broken::Frozen),
            Property::always("the pool adds up", |_: &Self, node: &Node| node.pool.check().is_ok()),
            Property::always("I-16, I-17 it comes to rest and stays there", |model: &Self, node: &Node| {
                node.broken.is_some() || model.comes_to_rest(node)
            }),
        ]
    }
}

struct Options {
    threads: usize,
    only: Option<String>,
    short: bool,
    states: Option<usize>,
    minimum: usize,
}

const HELP: &str = "model [--threads N] [--only NAME] [--short] [--states MAX] [--at-least TRANSITIONS]";

fn options() -> Result<Options, String> {
    let mut options = Options { threads: 2, only: None, short: false, states: None, minimum: 0 };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value\n{HELP}"));
        let number = |text: String| text.parse().map_err(|_| format!("{word} {text:?}: expected a number\n{HELP}"));
        match word.as_str() {
            "--threads" => options.threads = number(value()?)?,
            "--only" => options.only = Some(value()?),
            "--short" => options.short = true,
            "--states" => options.states = Some(number(value()?)?),
            "--at-least" => options.minimum = number(value()?)?,
            #[cfg(kasm_mutants)]
            "--mutant" => kasm_autoscale_core::testing::mutants::plant(&value()?)?,
            _ => return Err(format!("{word:?} is not an option\n{HELP}")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let mut total = 0;
    for plan in plans::all() {
        let wanted = options.only.as_ref().is_none_or(|only| only == plan.name);
        if wanted && (!options.short || plan.short) {
            total += check(options, plan)?;
        }
    }
    println!("{total} transitions");
    if total < options.minimum {
        return Err(format!("{total} transitions, {} were expected", options.minimum));
    }
    Ok(())
}

fn check(options: &Options, plan: Plan) -> Result<usize, String> {
    let began = Instant::now();
    let (name, least) = (plan.name, plan.transitions_min);
    let model = PoolModel { plan: Arc::new(plan), resting: Resting::new() };
    let builder = model.checker().threads(options.threads).finish_when(HasDiscoveries::AnyFailures);
    let builder = match options.states {
        Some(states) => builder.target_state_count(states),
        None => builder,
    };
    let checker = builder.spawn_bfs().join();
    let (transitions, states) = (checker.state_count() - 1, checker.unique_state_count());
    println!(
        "{name:<12} {transitions:>9} transitions, {states:>8} states, depth {:>3}, {:.1} s",
        checker.max_depth(),
        began.elapsed().as_secs_f64()
    );
    if let Some((promise, path)) = checker.discoveries().into_iter().next() {
        let mut told = format!("{name}: {promise}: broken after\n");
        for (node, act) in path.into_vec() {
            told += &format!("  {node:?}\n    {}\n", act.map_or(String::new(), |act| format!("{act:?}")));
        }
        return Err(told);
    }
    if options.states.is_none() && transitions < least {
        return Err(format!("{name}: {transitions} transitions, {least} were expected"));
    }
    Ok(transitions)
}
