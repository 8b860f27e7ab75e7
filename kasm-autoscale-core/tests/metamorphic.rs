//! Metamorphic tests: the same history told in other terms is decided in the same way. What a list shows first, what things are
//! called, which week it is, and whether facts come in one batch or in two, is nothing that a decision may hang on.

mod common;

use std::collections::BTreeMap;

use common::history::{History, Terms, Told, lived};
use common::{T0, secs};
use kasm_autoscale_core::command::{Action, Outcome};
use kasm_autoscale_core::id::ServerId;
use kasm_autoscale_core::input::{Fact, Input};
use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::report::{Decision, What};
use kasm_autoscale_core::row::Outputs;

const SEEDS: u64 = 8;
const STEPS: usize = 450;
const WEEK: u64 = 7 * 86_400;

/// What was decided in the histories, so that one in which nothing is decided is noticed.
#[derive(Clone, Debug, Default)]
struct Seen(BTreeMap<&'static str, u32>);

impl Seen {
    fn add(&mut self, what: &'static str, count: u32) {
        *self.0.entry(what).or_default() += count;
    }

    fn note(&mut self, told: &Told, outputs: &Outputs) {
        for event in &outputs.events {
            match &event.what {
                What::SessionPlaced { .. } => self.add("placed", 1),
                What::OrphanDeleted { .. } => self.add("orphans", 1),
                What::Decided { decision, .. } => match decision {
                    Decision::Create { .. } => self.add("create", 1),
                    Decision::Undrain { .. } => self.add("undrain", 1),
                    Decision::Wait { .. } => self.add("wait", 1),
                    Decision::SurplusHeld { .. } => self.add("held", 1),
                    Decision::Drain { .. } => self.add("drain", 1),
                    Decision::Emptying { .. } => self.add("emptying", 1),
                    _ => {}
                },
                _ => {}
            }
        }
        let long = |fact: &&Fact| match fact {
            Fact::Finished(_, Outcome::Listed(Ok(listing))) => listing.machines.len() > 2,
            Fact::Finished(_, Outcome::ComputersListed(Ok(listing))) => listing.computers.len() > 1,
            _ => false,
        };
        self.add("long lists", u32::try_from(told.facts.iter().filter(long).count()).unwrap());
    }

    fn expect_all(&self) {
        self.expect(&["placed", "orphans", "create", "wait", "held", "drain", "emptying", "long lists"]);
    }

    fn expect(&self, all: &[&str]) {
        for what in all {
            assert!(self.0.get(what).is_some_and(|count| *count >= 5), "hardly any {what}: {:?}", self.0);
        }
    }
}

/// All that the pool said in a history, step by step.
fn said(seed: u64, terms: &Terms, seen: &mut Seen) -> Vec<String> {
    let mut all = vec![];
    lived(seed, terms, STEPS, |_, told, writes, outputs| {
        seen.note(told, outputs);
        all.push(format!("{writes:?} {outputs:?}"));
    });
    all
}

/// Both say the same, once the second is put into the terms of the first.
fn expect_same(seed: u64, terms: &Terms, back: impl Fn(String) -> String, seen: &mut Seen) {
    let plain = said(seed, &Terms::default(), seen);
    let other = said(seed, terms, &mut Seen::default());
    for (step, (plain, other)) in plain.iter().zip(other).enumerate() {
        let other = back(other);
        if *plain != other {
            let at = plain.bytes().zip(other.bytes()).take_while(|(one, two)| one == two).count();
            let around = |text: &str| text.chars().skip(at.saturating_sub(200)).take(600).collect::<String>();
            panic!("seed {seed}, step {step}:\n{}\n--- in other terms:\n{}", around(plain), around(&other));
        }
    }
}

#[test]
fn i_36_the_order_of_lists_decides_nothing() {
    let mut seen = Seen::default();
    for seed in 0..SEEDS {
        expect_same(seed, &Terms { shuffled: true, ..Terms::default() }, |text| text, &mut seen);
    }
    seen.expect_all();
}

#[test]
fn i_36_names_decide_nothing() {
    let terms = Terms {
        configs: ["zulu", "mike", "alfa"],
        // Where two are asked at once, and who of those who wait in different zones comes first, goes by name: the order stays.
        providers: ["sky-a", "sky-b"],
        zones: ["zone-1", "zone-2", "zone-3"],
        directory: "realm-x",
        // The last shall be the first.
        user: |number| format!("person-{:02}", 99 - number),
        shuffled: false,
        start: T0,
    };
    let back = |text: String| {
        let plain = Terms::default();
        let mut text = text;
        let words = terms.configs.iter().zip(plain.configs).chain(terms.providers.iter().zip(plain.providers));
        let words = words.chain(terms.zones.iter().zip(plain.zones)).chain([(&terms.directory, plain.directory)]);
        for (new, old) in words {
            text = text.replace(new, old);
        }
        (0..30).fold(text, |text, number| text.replace(&(terms.user)(number), &(plain.user)(number)))
    };
    let mut seen = Seen::default();
    for seed in 0..SEEDS {
        expect_same(seed, &terms, back, &mut seen);
    }
    seen.expect_all();
}

#[test]
fn i_36_the_week_decides_nothing() {
    let mut seen = Seen::default();
    for (seed, weeks) in (0..SEEDS).zip([1, 52, 400].into_iter().cycle()) {
        let terms = Terms { start: T0 + secs(weeks * WEEK), ..Terms::default() };
        expect_same(seed, &terms, |text| shifted_back(&text, weeks * WEEK * 1000), &mut seen);
    }
    seen.expect_all();
}

/// The text with all its instants, which are the only numbers of their size, so many milliseconds earlier.
fn shifted_back(text: &str, millis: u64) -> String {
    let mut shifted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(from) = rest.find(|c: char| c.is_ascii_digit()) {
        let end = rest[from..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |length| from + length);
        shifted.push_str(&rest[..from]);
        match rest[from..end].parse::<u64>() {
            Ok(instant) if end - from == 13 => shifted.push_str(&(instant - millis).to_string()),
            _ => shifted.push_str(&rest[from..end]),
        }
        rest = &rest[end..];
    }
    shifted + rest
}

// --- one batch in two ---

/// What a batch comes to, without the numbers that are given out in the order of its facts: what is to be done for which config,
/// how its servers stand, and where everybody's session is.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sum {
    actions: BTreeMap<String, u32>,
    servers: BTreeMap<String, u32>,
    sessions: BTreeMap<String, u32>,
}

fn name_of(pool: &Pool, server: ServerId) -> String {
    pool.server(server).map_or_else(|| "nobody".into(), |server| server.config.to_string())
}

fn counted(all: impl Iterator<Item = String>) -> BTreeMap<String, u32> {
    all.fold(BTreeMap::new(), |mut counts, one| {
        *counts.entry(one).or_default() += 1;
        counts
    })
}

impl Sum {
    fn of(pool: &Pool, outputs: &[Outputs]) -> Self {
        let about = |action: &Action| match action {
            Action::Create(create) => create.config.to_string(),
            Action::Enroll(enroll) => enroll.config.to_string(),
            Action::Find { server, .. } | Action::FindComputer { server, .. } => name_of(pool, server.server),
            other => format!("{other:?}"),
        };
        let commands = outputs.iter().flat_map(|outputs| &outputs.commands);
        let actions = commands.map(|command| format!("{} {}", command.action.verb(), about(&command.action)));
        let placed = outputs.iter().flat_map(|outputs| &outputs.events).filter_map(|event| match &event.what {
            What::SessionPlaced { user, server, .. } => Some(format!("place {user} on {server}")),
            _ => None,
        });
        let actions = actions.chain(placed);
        let servers =
            pool.servers().map(|server| format!("{} {} {}", server.config, server.phase.kind(), server.sessions));
        let sessions = pool.sessions().map(|session| {
            let at = session.server().map(|server| name_of(pool, server));
            format!("{} open {} at {at:?}", session.user, session.is_open())
        });
        Self { actions: counted(actions), servers: counted(servers), sessions: counted(sessions) }
    }

    /// Who is placed where.
    fn places(&self) -> Vec<&String> {
        self.actions.keys().filter(|action| action.starts_with("place ")).collect()
    }

    /// Whether something is to be done here that is not to be done there.
    fn does_more_than(&self, other: &Self) -> bool {
        self.actions.iter().any(|(action, count)| other.actions.get(action).is_none_or(|there| there < count))
    }
}

/// A pool that was told these steps.
fn told(steps: &[Told]) -> Pool {
    let mut pool = Pool::new(History::spec(), T0);
    for step in steps {
        drop(pool.step(step.now, step.facts.iter().cloned().map(Input::from)).saved());
    }
    pool
}

/// One batch cut in two at the same instant. The first half may do what the whole would not have done, since a later fact of the
/// same instant makes it needless: nobody can know that before. Where it does not, the two halves together come to what the
/// whole comes to, but for two things, both of them rare and counted. One who asks is placed as soon as he is heard, so that he finds
/// the servers that became ready with the first half, but not those that become ready with the whole. And one who waits in another
/// zone takes what the first half's growth has over, where in the whole his own zone grows for him: halves may make less, never more
/// or anything else.
#[test]
fn i_36_a_batch_in_two_halves_comes_to_the_same() {
    let (mut cuts, mut early, mut elsewhere, mut thrifty) = (0, 0, 0, 0);
    let mut seen = Seen::default();
    for seed in 0..SEEDS {
        let (mut steps, mut whole): (Vec<Told>, Vec<Sum>) = (vec![], vec![]);
        lived(seed, &Terms::default(), 200, |pool, told, _, outputs| {
            whole.push(Sum::of(pool, std::slice::from_ref(outputs)));
            steps.push(told.clone());
            if told.facts.len() > 1 {
                seen.note(told, outputs);
            }
        });
        for (index, step) in steps.iter().enumerate().skip(1).filter(|(_, step)| step.facts.len() > 1) {
            let at = 1 + index % (step.facts.len() - 1);
            let mut pool = told(&steps[..index]);
            let first = pool.step(step.now, step.facts[..at].iter().cloned().map(Input::from)).saved();
            let half = Sum::of(&pool, std::slice::from_ref(&first));
            let second = pool.step(step.now, step.facts[at..].iter().cloned().map(Input::from)).saved();
            pool.check().unwrap_or_else(|violations| panic!("seed {seed}, step {index}: {violations:?}"));
            let both = Sum::of(&pool, &[first, second]);
            cuts += 1;
            let whole = &whole[index];
            if half.does_more_than(whole) {
                early += 1;
            } else if both.places() != whole.places() {
                elsewhere += 1;
            } else if both.does_more_than(whole) || (both != *whole && !whole.does_more_than(&both)) {
                let facts = &step.facts;
                panic!(
                    "seed {seed}, step {index}, cut at {at}: {facts:#?}\nin halves {both:#?}\nas a whole {whole:#?}"
                );
            } else if both != *whole {
                thrifty += 1;
            }
        }
    }
    let told = format!("{cuts} cuts, {early} decided early, {elsewhere} placed elsewhere, {thrifty} with less");
    assert!(cuts > 500 && early * 5 < cuts && (elsewhere + thrifty) * 20 < cuts, "{told}");
    seen.expect(&["placed", "create", "wait", "held", "emptying", "long lists"]);
}
