//! Every target on the stable toolchain: a slice of what `make fuzz` runs, and the inputs that once broke a promise.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use kasm_fuzz::seeded::{Counts, run};
use kasm_fuzz::targets::ALL;
use kasm_fuzz::{Target, Verdict};

/// How many inputs of the slice a target gets at most; time may end it earlier, but not before the first of these.
const LEAST: u64 = 16;

fn slice(target: &Target) -> Counts {
    let inputs = (target.inputs / 200).max(LEAST);
    let first = run(target, 77, LEAST, None).unwrap_or_else(|broken| panic!("{broken}"));
    let until = Instant::now() + Duration::from_secs(20);
    let mut counts = run(target, 78, inputs, Some(until)).unwrap_or_else(|broken| panic!("{broken}"));
    counts.add(&first);
    counts
}

#[test]
fn every_target_takes_some_inputs_and_refuses_others_and_no_promise_is_broken() {
    let mut idle = vec![];
    for target in &ALL {
        let counts = slice(target);
        if counts.taken == 0 || counts.refused == 0 {
            idle.push((target.name, counts));
        }
    }
    assert!(idle.is_empty(), "these show nothing: {idle:?}");
}

/// Examples are good inputs, or the generator begins with nothing.
#[test]
fn every_target_takes_one_of_its_examples() {
    for target in &ALL {
        let examples = (target.examples)();
        assert!(!examples.is_empty(), "{}", target.name);
        let taken = examples.iter().filter(|example| (target.check)(example) == Verdict::Taken).count();
        assert!(taken > 0, "{}: none of its {} examples is taken", target.name, examples.len());
    }
}

/// Inputs that once broke a promise: `corpus/TARGET/*`.
#[test]
fn what_once_broke_a_promise_breaks_none_any_more() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut read = 0;
    for target in &ALL {
        for entry in std::fs::read_dir(corpus.join(target.name)).into_iter().flatten() {
            let path = entry.expect("a readable folder").path();
            let _ = (target.check)(&std::fs::read(&path).expect("a readable file"));
            read += 1;
        }
    }
    assert!(read > 0, "no inputs in {}", corpus.display());
}

#[test]
fn the_same_seed_gives_the_same_inputs() {
    for target in ALL.iter().filter(|target| target.name != "api") {
        let mut one = kasm_fuzz::generator::Generator::new(target, 5);
        let mut two = kasm_fuzz::generator::Generator::new(target, 5);
        let mut other = kasm_fuzz::generator::Generator::new(target, 6);
        let draw = |generator: &mut kasm_fuzz::generator::Generator| {
            (0..50).map(|_| generator.next_input()).collect::<Vec<_>>()
        };
        let drawn = draw(&mut one);
        assert!(drawn == draw(&mut two) && drawn != draw(&mut other), "{}", target.name);
        assert!(drawn.iter().collect::<BTreeSet<_>>().len() > 20, "{}", target.name);
    }
}

/// libFuzzer's way in and the list of targets say the same.
#[test]
fn every_target_has_its_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz_targets");
    let files: BTreeSet<String> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path().file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    assert_eq!(files, ALL.iter().map(|target| target.name.to_owned()).collect());
    let inputs: u64 = ALL.iter().map(|target| target.inputs).sum();
    assert!(inputs >= 6_000_000, "a whole run has {inputs} inputs");
}
