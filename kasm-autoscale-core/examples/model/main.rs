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
//! Servers stand in it in the order of their slots, calls under way and sessions that have a server in none. `--alike` compares what
//! states lead to that are taken for one. A search that has not reached all bounds of its plan in one state fails. `--deep` goes on
//! where the usual run ends; its last model is too large to be exhausted, and is walked through at random.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods, reason = "it is a program for people")]

mod alike;
mod node;
mod plans;
mod promises;
mod reached;
mod rest;
mod truth;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use alike::Alike;
use node::{Act, Node};
use plans::{Plan, Run};
use promises::Broken;
use reached::Reached;
use stateright::{Checker, HasDiscoveries, Model, Property, UniformChooser};

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
    reached: Arc<Reached>,
    alike: Option<Arc<Alike>>,
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
        let next = node.after(&self.plan, act);
        if let Some(alike) = &self.alike {
            alike.compare(&self.plan, &next);
        }
        Some(next)
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
            Property::always("the pool adds up", |model: &Self, node: &Node| {
                // Asked once of each state.
                model.reached.note(&model.plan, node);
                node.pool.check().is_ok()
            }),
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
    deep: bool,
    alike: bool,
    states: Option<usize>,
    minimum: usize,
}

const HELP: &str =
    "model [--threads N] [--only NAME] [--short | --deep] [--alike] [--states MAX] [--at-least TRANSITIONS]";

fn options() -> Result<Options, String> {
    let mut options =
        Options { threads: 2, only: None, short: false, deep: false, alike: false, states: None, minimum: 0 };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value\n{HELP}"));
        let number = |text: String| text.parse().map_err(|_| format!("{word} {text:?}: expected a number\n{HELP}"));
        match word.as_str() {
            "--threads" => options.threads = number(value()?)?,
            "--only" => options.only = Some(value()?),
            "--deep" => options.deep = true,
            "--alike" => options.alike = true,
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
    let plans = plans::all();
    let names: Vec<_> = plans.iter().map(|plan| plan.name).collect();
    if let Some(only) = options.only.as_ref().filter(|only| !names.contains(&only.as_str())) {
        return Err(format!("--only {only:?}: expected one of {}", names.join(", ")));
    }
    for plan in plans {
        let of_this_run = match plan.run {
            Run::Short => !options.deep,
            Run::Usual => !options.deep && !options.short,
            Run::Deep | Run::Walks(_) => options.deep,
        };
        if options.only.as_ref().map_or(of_this_run, |only| only == plan.name) {
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
    let plan = Arc::new(plan);
    let reached = Arc::new(Reached::default());
    let alike = options.alike.then(|| Arc::new(Alike::default()));
    let model = PoolModel {
        plan: Arc::clone(&plan),
        resting: Resting::new(),
        reached: Arc::clone(&reached),
        alike: alike.clone(),
    };
    let builder = model.checker().threads(options.threads).finish_when(HasDiscoveries::AnyFailures);
    let states = options.states.or(if let Run::Walks(states) = plan.run { Some(states) } else { None });
    let builder = match states {
        Some(states) => builder.target_state_count(states),
        None => builder,
    };
    let searched = match plan.run {
        // The first way on which a promise is broken is the shortest one.
        Run::Short | Run::Usual => outcome(&builder.spawn_bfs().join()),
        // In a tenth of the memory.
        Run::Deep => outcome(&builder.spawn_dfs().join()),
        Run::Walks(_) => outcome(&builder.spawn_simulation(1, UniformChooser).join()),
    };
    let Searched { transitions, states: unique, depth, broken } = searched;
    let how = if let Run::Walks(_) = plan.run { "on random ways" } else { "in every order" };
    println!(
        "{:<12} {transitions:>9} transitions, {unique:>8} states, depth {depth:>3}, {:.1} s {how}: {reached}",
        plan.name,
        began.elapsed().as_secs_f64()
    );
    if let Some(alike) = alike {
        println!("{:<12} {}", plan.name, alike.told());
    }
    if let Some(broken) = broken {
        return Err(format!("{}: {broken}", plan.name));
    }
    if states.is_none() && transitions < plan.transitions_min {
        return Err(format!("{}: {transitions} transitions, {} were expected", plan.name, plan.transitions_min));
    }
    match reached.missed(&plan) {
        Some(missed) if options.states.is_none() => Err(format!("{}: {missed}", plan.name)),
        _ => Ok(transitions),
    }
}

/// What has come of a search.
struct Searched {
    transitions: usize,
    states: usize,
    depth: usize,
    /// The promise that was broken, and how it came to that.
    broken: Option<String>,
}

fn outcome(checker: &impl Checker<PoolModel>) -> Searched {
    let broken = checker.discoveries().into_iter().next().map(|(promise, path)| {
        let mut told = format!("{promise}: broken after\n");
        for (node, act) in path.into_vec() {
            told += &format!("  {node:?}\n    {}\n", act.map_or(String::new(), |act| format!("{act:?}")));
        }
        told
    });
    Searched {
        transitions: checker.state_count() - 1,
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        broken,
    }
}
