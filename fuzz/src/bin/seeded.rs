//! Runs all targets on the stable toolchain: `seeded [--seed N] [--threads N] [--percent N] [--at-least N] [TARGET...]`.
//!
//! `--percent` of the inputs of a whole run; fewer than `--at-least` in all, or a target that took or refused none, is a
//! failure. `seeded --replay FILE TARGET` reads one input.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use kasm_fuzz::seeded::{Broken, Counts, run};
use kasm_fuzz::targets::ALL;
use kasm_fuzz::{Target, Verdict};

/// A piece of work: small enough that no thread is left alone with the last one for long.
const PARTS: u64 = 8;

struct Wishes {
    seed: u64,
    threads: u64,
    percent: u64,
    at_least: u64,
    replay: Option<String>,
    targets: Vec<&'static Target>,
}

fn wishes() -> Result<Wishes, String> {
    let mut wishes = Wishes { seed: 1, threads: 2, percent: 100, at_least: 0, replay: None, targets: vec![] };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if !word.starts_with("--") {
            let names = || ALL.map(|target| target.name).join(", ");
            let target = ALL.iter().find(|target| target.name == word);
            wishes.targets.push(target.ok_or_else(|| format!("there is no target {word:?}; there are {}", names()))?);
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        if word == "--replay" {
            wishes.replay = Some(value);
            continue;
        }
        let number = value.parse().map_err(|_| format!("{word} needs a number, not {value:?}"))?;
        match word.as_str() {
            "--seed" => wishes.seed = number,
            "--threads" => wishes.threads = number,
            "--percent" => wishes.percent = number,
            "--at-least" => wishes.at_least = number,
            _ => return Err(format!("there is no option {word}")),
        }
    }
    if wishes.targets.is_empty() {
        wishes.targets = ALL.iter().collect();
    }
    Ok(wishes)
}

fn main() -> ExitCode {
    let wishes = match wishes() {
        Ok(wishes) => wishes,
        Err(mistake) => {
            eprintln!("{mistake}");
            return ExitCode::from(2);
        }
    };
    if let Some(file) = &wishes.replay {
        return replay(file, &wishes.targets);
    }
    match explored(&wishes) {
        Ok(all) if all < wishes.at_least => {
            eprintln!("{all} inputs, {} are demanded", wishes.at_least);
            ExitCode::FAILURE
        }
        Ok(_) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}

fn replay(file: &str, targets: &[&Target]) -> ExitCode {
    let ([target], Ok(input)) = (targets, std::fs::read(file)) else {
        eprintln!("name one target and a file that can be read");
        return ExitCode::from(2);
    };
    match (target.check)(&input) {
        Verdict::Taken => println!("taken"),
        Verdict::Refused => println!("refused"),
    }
    ExitCode::SUCCESS
}

/// All inputs of all targets on all threads, and how many there were.
fn explored(wishes: &Wishes) -> Result<u64, String> {
    let count = wishes.targets.len();
    let work: Vec<(usize, u64)> = (0..PARTS).flat_map(|part| (0..count).map(move |target| (target, part))).collect();
    let next = AtomicUsize::new(0);
    let found: Mutex<(Vec<Counts>, Option<Box<Broken>>)> = Mutex::new((vec![Counts::default(); count], None));
    let locked = || found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    std::thread::scope(|scope| {
        for _ in 0..wishes.threads.max(1) {
            scope.spawn(|| {
                while let Some((index, part)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if locked().1.is_some() {
                        return;
                    }
                    let target = wishes.targets[*index];
                    let inputs = (target.inputs * wishes.percent).div_ceil(100 * PARTS);
                    match run(target, wishes.seed * PARTS + part, inputs, None) {
                        Ok(counts) => locked().0[*index].add(&counts),
                        Err(broken) => _ = locked().1.get_or_insert(broken),
                    }
                }
            });
        }
    });
    let (counts, broken) = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(broken) = broken {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("found");
        let file = folder.join(format!("{}-{}-{}", broken.target, broken.at.0, broken.at.1));
        let saved = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, &broken.input));
        let place = saved.map_or_else(|error| error.to_string(), |()| file.display().to_string());
        return Err(format!("{broken}\nkept as {place}"));
    }
    println!("{:<12} {:>10} {:>10} {:>10} {:>10}", "target", "inputs", "taken", "refused", "a second");
    let mut idle = vec![];
    for (target, counts) in wishes.targets.iter().zip(&counts) {
        let each = counts.all() as f64 / counts.time.as_secs_f64().max(0.001);
        println!("{:<12} {:>10} {:>10} {:>10} {each:>10.0}", target.name, counts.all(), counts.taken, counts.refused);
        if counts.taken == 0 || counts.refused == 0 {
            idle.push(target.name);
        }
    }
    let all = counts.iter().map(Counts::all).sum();
    println!("{:<12} {all:>10}", "all");
    if !idle.is_empty() {
        return Err(format!("took or refused nothing, so they show nothing: {}", idle.join(", ")));
    }
    Ok(all)
}
