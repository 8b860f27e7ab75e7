//! I-30: the host dies at every save of every story, in every way there is, and all comes to the same good end.
//!
//! Each story is told undisturbed, and its saves are counted; then once for each of them and each [`Way`], counted again.
//! `KASM_STORY=queue cargo test --test crash_sweep` sweeps one story; a failure says which save and which way.

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::sweep::{Way, Went, swept};

fn stories() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    let read = |path: &Path| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, std::fs::read_to_string(path).unwrap())
    };
    files.iter().map(|path| read(path)).collect()
}

/// Tells a story with these deaths. `None`, and a line in `failures`: a promise was broken.
fn tried(name: &str, text: &str, deaths: &[(usize, Way)], failures: &mut Vec<String>) -> Option<Went> {
    let went = std::panic::catch_unwind(|| swept(text, deaths));
    if went.is_err() {
        failures.push(format!("{name}, {deaths:?}"));
    }
    went.ok()
}

/// Does something for each story, on as many threads as there are processors.
fn each<T: Send>(stories: &[(String, String)], work: impl Fn(&str, &str) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = &work;
    std::thread::scope(|scope| {
        let worker = || {
            let mut done = Vec::new();
            while let Some((name, text)) = stories.get(next.fetch_add(1, Ordering::Relaxed)) {
                done.push(work(name, text));
            }
            done
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker")).collect()
    })
}

/// Sweeps the stories: one save in `every`, beginning with another one in each story, in every way.
#[allow(clippy::print_stdout, reason = "the figures are for people")]
fn sweep(every: usize) {
    let mut stories = stories();
    if let Ok(only) = std::env::var("KASM_STORY") {
        stories.retain(|(name, _)| *name == only);
    } else {
        assert!(stories.len() >= 70, "only {} stories", stories.len());
    }
    let swept = each(&stories, |name, text| {
        let mut failures = Vec::new();
        let Some(undisturbed) = tried(name, text, &[], &mut failures) else { return Swept::failed(failures) };
        let mut swept = Swept { saves: undisturbed.saves, steps: undisturbed.steps, ..Swept::default() };
        let first = 1 + name.len() % every;
        for at in (first..=undisturbed.saves).step_by(every) {
            swept.tried += Way::ALL.len();
            for way in Way::ALL {
                let Some(went) = tried(name, text, &[(at, way)], &mut failures) else { continue };
                swept.deaths += went.died;
                swept.steps += went.steps;
            }
        }
        Swept { failures, ..swept }
    });
    let failures: Vec<&String> = swept.iter().flat_map(|swept| &swept.failures).collect();
    assert!(failures.is_empty(), "{} failures:\n{failures:#?}", failures.len());
    let sum = |of: fn(&Swept) -> usize| swept.iter().map(of).sum::<usize>();
    let (saves, tried, deaths) = (sum(|of| of.saves), sum(|of| of.tried), sum(|of| of.deaths));
    assert_eq!(deaths, tried, "a save at which the host did not die");
    assert!(every > 1 || deaths == saves * Way::ALL.len(), "{deaths} deaths at {saves} saves");
    println!("{} stories, {saves} saves, {deaths} deaths, {} steps", stories.len(), sum(|of| of.steps));
}

/// What a story has come to.
#[derive(Default)]
struct Swept {
    saves: usize,
    tried: usize,
    deaths: usize,
    steps: usize,
    failures: Vec<String>,
}

impl Swept {
    fn failed(failures: Vec<String>) -> Self {
        Self { failures, ..Self::default() }
    }
}

/// All of them, which takes minutes without optimisation: `tests/run.sh` runs it with.
#[test]
#[ignore = "tests/run.sh runs it in release"]
fn i_30_a_death_at_every_save_of_every_story_comes_to_a_good_end() {
    sweep(1);
}

/// A part, for every run of the tests.
#[test]
fn i_30_a_death_at_some_saves_of_every_story_comes_to_a_good_end() {
    sweep(16);
}

/// Two deaths: at every save of a short story, and then at every save after that.
#[test]
#[ignore = "tests/run.sh runs it in release"]
#[allow(clippy::print_stdout, reason = "the figures are for people")]
fn i_30_two_deaths_at_any_two_saves_of_short_stories_come_to_a_good_end() {
    let short = ["lost_create_found", "join_lost_answer", "delete_throttled", "not_reusable"];
    let stories: Vec<_> = stories().into_iter().filter(|(name, _)| short.contains(&name.as_str())).collect();
    assert_eq!(stories.len(), short.len());
    let swept = each(&stories, |name, text| {
        let (mut failures, mut pairs) = (Vec::new(), 0);
        let saves = tried(name, text, &[], &mut failures).map_or(0, |undisturbed| undisturbed.saves);
        for first in (1..=saves).flat_map(|at| Way::ALL.map(|way| (at, way))) {
            // So many saves follow; how many, depends on how it died.
            let Some(after) = tried(name, text, &[first], &mut failures) else { continue };
            for second in (1..=after.saves).flat_map(|at| Way::ALL.map(|way| (at, way))) {
                if let Some(went) = tried(name, text, &[first, second], &mut failures) {
                    assert_eq!(went.died, 2);
                    pairs += 1;
                }
            }
        }
        (pairs, failures)
    });
    let failures: Vec<&String> = swept.iter().flat_map(|(_, failures)| failures).collect();
    assert!(failures.is_empty(), "{} failures:\n{failures:#?}", failures.len());
    let pairs: usize = swept.iter().map(|(pairs, _)| pairs).sum();
    assert!(pairs > 1000, "{pairs} pairs");
    println!("{} stories, {pairs} pairs of deaths", stories.len());
}
