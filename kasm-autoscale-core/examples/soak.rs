//! Lives simulated worlds through, seed after seed, and tells what was seen.
//!
//! ```text
//! cargo run --profile proof -p kasm-autoscale-core --features testing --example soak -- --seeds 1000 --from 0
//! cargo run --profile proof -p kasm-autoscale-core --features testing --example soak -- --seeds 1 --from 17   # one world again
//! cargo run --profile proof -p kasm-autoscale-core --features testing --example soak -- --replay tests/replays/NAME.tape
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods, reason = "it is a program for people")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use kasm_autoscale_core::testing::choices::{Choices, Tape};
use kasm_autoscale_core::testing::world::{Figures, Verdict, explore};

#[derive(Default)]
struct Options {
    seeds: u64,
    from: u64,
    threads: usize,
    seconds: Option<u64>,
    replay: Option<String>,
    record: Option<String>,
    shrink: usize,
    report: Option<String>,
    failures: usize,
    all_seen: bool,
    goals: bool,
    years: u32,
    traces: bool,
}

const HELP: &str =
    "soak [--seeds N] [--from S] [--threads N] [--seconds N] [--failures N] [--all-seen] [--goals] [--years N] [--traces] [--report FILE]
     --all-seen and --goals fail a run that has not seen everything, or has shown less than is demanded of a whole one,
     which is one of so many pool-years, 300 unless told otherwise
     [--record FILE [--shrink TRIES]]   the shortest of the failing worlds, as a tape, made shorter with so many tries
     [--replay FILE]                    a world from a tape";

fn options() -> Result<Options, String> {
    let mut options = Options { seeds: 100, threads: 1, failures: 3, years: 300, ..Options::default() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value\n{HELP}"));
        let number = |text: String| text.parse().map_err(|_| format!("{word} {text:?}: expected a number\n{HELP}"));
        match word.as_str() {
            "--seeds" => options.seeds = number(value()?)?,
            "--from" => options.from = number(value()?)?,
            "--threads" => options.threads = usize::try_from(number(value()?)?).unwrap_or(usize::MAX).clamp(1, 64),
            "--seconds" => options.seconds = Some(number(value()?)?),
            "--failures" => options.failures = usize::try_from(number(value()?)?).unwrap_or(usize::MAX),
            "--shrink" => options.shrink = usize::try_from(number(value()?)?).unwrap_or(usize::MAX),
            "--replay" => options.replay = Some(value()?),
            "--record" => options.record = Some(value()?),
            "--report" => options.report = Some(value()?),
            #[cfg(kasm_mutants)]
            "--mutants" => {
                println!("{}", kasm_autoscale_core::testing::mutants::ALL.join("\n"));
                std::process::exit(0);
            }
            #[cfg(kasm_mutants)]
            "--mutant" => kasm_autoscale_core::testing::mutants::plant(&value()?)?,
            "--all-seen" => options.all_seen = true,
            "--goals" => options.goals = true,
            "--years" => options.years = u32::try_from(number(value()?)?).unwrap_or(u32::MAX),
            "--traces" => options.traces = true,
            _ => return Err(format!("{word:?} is not an option\n{HELP}")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    // A panic in a world is told with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    match options().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    if let Some(path) = &options.replay {
        return replay(path);
    }
    let started = Instant::now();
    let limit = options.seconds.map(Duration::from_secs);
    let mut figures = Figures::default();
    let mut failed = Vec::new();
    let mut shortest = None;
    let mut seed = options.from;
    let end = options.from.saturating_add(options.seeds);
    in_order(options.from..end, options.threads, |lived, verdict| {
        seed = lived + 1;
        if options.traces {
            println!("{lived} {}", verdict.trace);
        }
        figures.add(&verdict.figures);
        if let Some(failure) = &verdict.failure {
            println!("seed {lived} failed\n{failure}");
            failed.push(lived);
            let found = (verdict.figures.steps, lived, failure.invariant.clone());
            shortest = Some(shortest.take().map_or(found.clone(), |known: (u64, u64, String)| known.min(found)));
        }
        Ok(failed.len() < options.failures && limit.is_none_or(|limit| started.elapsed() < limit))
    })?;
    let (took, unseen) = (started.elapsed(), figures.unseen());
    let threads = u32::try_from(options.threads).unwrap_or(1);
    let (seeds, years) = (options.from..seed, options.years);
    let shown = Shown { figures, seeds, years, took, threads, failed: failed.len(), unseen };
    if !options.traces {
        println!("{}", shown.figures);
        println!("steps a second     {:.0} of one core's time", shown.steps_a_second());
        println!("seeds              {} to {}, in {:.0} s", options.from, seed, took.as_secs_f64());
    }
    if let Some(path) = &options.report {
        std::fs::write(path, shown.page()).map_err(|error| format!("{path}: {error}"))?;
    }
    if let (Some(path), Some((_, seed, invariant))) = (&options.record, &shortest) {
        record(*seed, invariant, options.shrink, path)?;
    }
    if !failed.is_empty() {
        return Err(format!("worlds of these seeds failed: {failed:?}"));
    }
    if options.all_seen && !shown.unseen.is_empty() {
        return Err(format!("never seen: {}", shown.unseen.join(", ")));
    }
    let missed = shown.missed();
    if options.goals && !missed.is_empty() {
        return Err(format!("too little was shown: {}", missed.join("; ")));
    }
    Ok(())
}

/// Lives worlds on so many threads, and hands the verdicts over in the order of their seeds, until it is told `false`.
fn in_order(
    seeds: Range<u64>,
    threads: usize,
    mut take: impl FnMut(u64, Verdict) -> Result<bool, String>,
) -> Result<(), String> {
    let next = AtomicU64::new(seeds.start);
    // A bounded channel, so that a world that takes long does not let the others run far ahead of it.
    let (lived, verdicts) = sync_channel(threads);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (lived, next) = (lived.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    // Nobody listens any more when enough has been seen.
                    if seed >= seeds.end || lived.send((seed, explore(Choices::seeded(seed)))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(lived);
        let mut early = BTreeMap::new();
        let mut due = seeds.start;
        for (seed, verdict) in verdicts {
            early.insert(seed, verdict);
            while let Some(verdict) = early.remove(&due) {
                if !take(due, verdict)? {
                    return Ok(());
                }
                due += 1;
            }
        }
        Ok(())
    })
}

/// How much time the cores have spent on this process so far, where the system tells: proc(5), fields 14 and 15 of `stat`, in
/// hundredths of a second.
fn core_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program may hold blanks; it stands in parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis(10 * (ticks()? + ticks()?)))
}

/// What a run has shown, beside what is demanded of it.
struct Shown {
    figures: Figures,
    seeds: Range<u64>,
    /// Pool-years of a whole run.
    years: u32,
    took: Duration,
    threads: u32,
    failed: usize,
    unseen: Vec<String>,
}

impl Shown {
    /// For each second of one core's time, whatever else the machine does.
    fn steps_a_second(&self) -> f64 {
        self.figures.steps as f64 / core_time().unwrap_or(self.took * self.threads).as_secs_f64()
    }

    /// What a run of this size is to show: a name, what it has shown, and at least how much is demanded.
    fn goals(&self) -> [(&'static str, f64, f64); 4] {
        let rarest = |counts: Option<u64>| counts.unwrap_or(0) as f64;
        [
            ("simulated pool-years", self.figures.pool_years(), f64::from(self.years)),
            ("faults that made a difference", self.figures.faults_total() as f64, 5_000_000.0),
            ("hits of the rarest fault", rarest(self.figures.faults.values().min().copied()), 10_000.0),
            ("worlds in which the rarest pair of faults could meet", rarest(self.figures.rarest_pair()), 100.0),
        ]
    }

    fn missed(&self) -> Vec<String> {
        let missed = self.goals().into_iter().filter(|(_, shown, goal)| shown < goal);
        missed.map(|(name, shown, goal)| format!("{name}: {shown:.1} of {goal}")).collect()
    }

    /// The figures as a part of a page: written by the run, never by hand.
    fn page(&self) -> String {
        let figures = &self.figures;
        let mut text = String::from("| | | at least |\n| --- | ---: | ---: |\n");
        let mut row = |name: &str, value: String, goal: &str| text += &format!("| {name} | {value} | {goal} |\n");
        row("worlds, one for each seed", format!("{} to {}", self.seeds.start, self.seeds.end.saturating_sub(1)), "");
        row("worlds in which an invariant was broken", self.failed.to_string(), "");
        row("decisions, reasons, refusals, moves and faults never seen", self.unseen.len().to_string(), "");
        for (name, shown, goal) in self.goals() {
            row(name, format!("{shown:.0}"), &format!("{goal:.0}"));
        }
        row("steps, all recounted and held against the truth", figures.steps.to_string(), "");
        row("steps a second of one core's time", format!("{:.0}", self.steps_a_second()), "200000");
        row("commands carried out", figures.commands.to_string(), "");
        row("sessions placed", figures.placed.to_string(), "");
        row("machines made", figures.machines.to_string(), "");
        row("pools read anew after a crash or a failed save", figures.restores.to_string(), "");
        text += "\n| fault | struck |\n| --- | ---: |\n";
        for (fault, count) in &figures.faults {
            text += &format!("| {fault} | {count} |\n");
        }
        text
    }
}

fn record(seed: u64, invariant: &str, tries: usize, path: &str) -> Result<(), String> {
    let tape = explore(Choices::seeded(seed).recorded()).tape;
    let fails = |tape: &Tape| {
        let failure = explore(Choices::replayed(tape.clone())).failure;
        failure.is_some_and(|failure| failure.invariant == invariant)
    };
    let least = tape.shrunk(tries, fails);
    let text = format!("# {invariant}; found with seed {seed}\n{least}");
    println!("{} choices, {} after shrinking, in {path}", tape.len(), least.len());
    std::fs::write(path, text).map_err(|error| format!("{path}: {error}"))
}

fn replay(path: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let tape: Tape = text.parse().map_err(|error| format!("{path}: {error}"))?;
    let Verdict { figures, trace, failure, .. } = explore(Choices::replayed(tape));
    println!("{figures}trace              {trace}");
    failure.map_or(Ok(()), |failure| Err(format!("{failure}")))
}
