//! Simulated worlds: a slice of them with fixed seeds, those that once failed, and that a world is the same whenever it is
//! lived. `examples/soak.rs` goes through many more.
#![cfg(feature = "testing")]

use std::path::Path;

use kasm_autoscale_core::testing::choices::{Bytes, Choices, Tape, common};
use kasm_autoscale_core::testing::entropy::Seeded;
use kasm_autoscale_core::testing::world::{Figures, explore};

/// Tapes of worlds in which a promise is broken by a core with a mistake planted in it, many of which it once had. `make mutants`
/// proves that they still show it. Those in the folder `alarms` are of worlds whose judge once blamed a core that was right.
#[test]
#[ignore = "minutes without optimisation: `make test` runs it in the profile `proof`"]
fn worlds_that_once_failed_fail_no_more() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/replays");
    let both = [folder.clone(), folder.join("alarms")];
    let entries = both.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "tape"));
    files.sort();
    assert!(!files.is_empty(), "no tapes in {}", folder.display());
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        // The tape itself may be empty: some mistakes show in the calmest of all worlds.
        assert!(text.starts_with("# "), "{}: what was broken is not said", path.display());
        let tape: Tape = text.parse().unwrap();
        let verdict = explore(Choices::replayed(tape));
        if let Some(failure) = verdict.failure {
            panic!("{}: {failure}", path.display());
        }
        assert!(verdict.figures.steps > 100, "{}: {} steps", path.display(), verdict.figures.steps);
    }
}

/// I-01 to I-31 in a few worlds; `make soak` goes through thousands.
#[test]
fn i_01_to_i_31_hold_in_simulated_worlds() {
    let mut figures = Figures::default();
    for seed in 0..40 {
        let verdict = explore(Choices::seeded(seed));
        if let Some(failure) = verdict.failure {
            panic!("seed {seed}: {failure}");
        }
        figures.add(&verdict.figures);
    }
    assert!(figures.faults_total() > 1000 && figures.placed > 500 && figures.restores > 100, "{figures}");
}

/// I-36: equal choices, equal worlds, whether they come from a seed or from the tape of another run.
#[test]
fn i_36_a_world_is_the_same_whenever_it_is_lived() {
    for seed in 0..4 {
        let first = explore(Choices::seeded(seed).recorded());
        let again = explore(Choices::seeded(seed));
        assert_eq!((first.trace, &first.figures), (again.trace, &again.figures), "seed {seed}");
        let text = first.tape.to_string();
        let replayed = explore(Choices::replayed(text.parse().unwrap()));
        assert_eq!((first.trace, &first.figures), (replayed.trace, &replayed.figures), "seed {seed} from its tape");
        assert_ne!(first.trace, explore(Choices::seeded(seed + 1000)).trace, "another seed is another world");
    }
}

/// Whatever bytes a fuzzer comes up with are a world, and a sound one.
#[test]
fn bytes_are_worlds_too() {
    for seed in 0..8 {
        let mut generator = Seeded::new(seed);
        let bytes: Vec<u8> = (0..4000).flat_map(|_| generator.draw().to_le_bytes()).collect();
        let verdict = explore(Choices::shared(common(Bytes::new(bytes))));
        if let Some(failure) = verdict.failure {
            panic!("bytes {seed}: {failure}");
        }
    }
}
