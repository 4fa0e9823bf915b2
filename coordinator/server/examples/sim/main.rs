//! Whole clusters in virtual time, from a seed: drivers, core's state, the store on a faulty disk, a network that loses,
//! doubles, delays and parts, clients that check what they are told, agents that check who commands them.
//!
//! `tests/sim --seeds N` runs seeds 0 to N-1, and tells of the first that fails which of its faults it takes; `--seed K`
//! runs one and prints its timeline (`--whole` all of it, `--only 1,5` with those of its faults); `--mistake NAME` plants
//! a bug, which has to be found; `--mistakes` plants one after the other. Ends with `seeds N violations V seconds S`.

mod check;
mod client;
mod fault;
mod ledger;
mod node;
mod shrink;
#[cfg(test)]
mod tests;
mod world;

use std::{
    panic,
    process::ExitCode,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use mainstay_coordinator::raft::driver::Mistake;

use self::{
    shrink::shrink,
    world::{Run, run, run_with},
};

/// The last lines of a timeline that are shown.
const SHOWN: usize = 250;

struct Wanted {
    seeds: u64,
    from: u64,
    seed: Option<u64>,
    mistake: Option<Mistake>,
    all_mistakes: bool,
    whole: bool,
    only: Option<Vec<usize>>,
}

fn main() -> ExitCode {
    let wanted = match wanted(std::env::args().skip(1)) {
        Ok(wanted) => wanted,
        Err(why) => {
            eprintln!(
                "{why}\nusage: sim [--seeds N] [--from K] [--seed K [--whole] [--only 1,5]] [--mistake NAME] [--mistakes]"
            );
            return ExitCode::from(2);
        }
    };
    // A panic of the crate is a violation that is told like the others.
    panic::set_hook(Box::new(|_| {}));
    let begin = Instant::now();
    let (seeds, violations) = if wanted.all_mistakes {
        find_mistakes(wanted.seeds)
    } else if let Some(seed) = wanted.seed {
        (1, replay(seed, wanted.mistake, wanted.whole, wanted.only.as_deref()))
    } else {
        let failed = search(wanted.from..wanted.from + wanted.seeds, wanted.mistake, false);
        if let Some((seed, _)) = failed.first() {
            let count = run(*seed, wanted.mistake, false).faults.len();
            replay(*seed, wanted.mistake, false, Some(&shrink(*seed, wanted.mistake, count)));
        }
        for (seed, why) in &failed {
            println!("seed {seed}: {why}");
        }
        (wanted.seeds, failed.len())
    };
    println!("seeds {seeds} violations {violations} seconds {:.1}", begin.elapsed().as_secs_f64());
    if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn wanted(mut args: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let mut wanted =
        Wanted { seeds: 2_000, from: 0, seed: None, mistake: None, all_mistakes: false, whole: false, only: None };
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|text| text.parse().ok()).ok_or(format!("{arg} wants a number"));
        match arg.as_str() {
            "--seeds" => wanted.seeds = number()?,
            "--from" => wanted.from = number()?,
            "--seed" => wanted.seed = Some(number()?),
            "--whole" => wanted.whole = true,
            "--only" => {
                let numbers = args.next().unwrap_or_default();
                let numbers: Result<_, _> =
                    numbers.split(',').filter(|text| !text.is_empty()).map(str::parse).collect();
                wanted.only = Some(numbers.map_err(|_| "--only wants numbers")?);
            }
            "--mistakes" => wanted.all_mistakes = true,
            "--mistake" => {
                let name = args.next().unwrap_or_default();
                let named = |mistake: &Mistake| format!("{mistake:?}") == name;
                wanted.mistake = Some(Mistake::ALL.into_iter().find(named).ok_or(format!("no mistake {name:?}"))?);
            }
            _ => return Err(format!("{arg} is unknown")),
        }
    }
    Ok(wanted)
}

/// Seeds that fail, in order; with `first`, no more are begun after one did.
fn search(seeds: std::ops::Range<u64>, mistake: Option<Mistake>, first: bool) -> Vec<(u64, String)> {
    let (next, found) = (AtomicU64::new(seeds.start), AtomicUsize::new(0));
    let threads = thread::available_parallelism().map_or(2, usize::from);
    let work = || {
        let mut failed = Vec::new();
        while !first || found.load(Ordering::Relaxed) == 0 {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            if let Some(why) = run(seed, mistake, false).violation {
                found.fetch_add(1, Ordering::Relaxed);
                failed.push((seed, why));
            }
        }
        failed
    };
    let mut failed: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    failed.sort();
    failed
}

fn replay(seed: u64, mistake: Option<Mistake>, whole: bool, only: Option<&[usize]>) -> usize {
    let Run { violation, timeline, events, hash, faults } = run_with(seed, mistake, true, only);
    let numbers = only.map(|only| only.iter().map(usize::to_string).collect::<Vec<_>>().join(","));
    let only_words = numbers.map_or_else(String::new, |numbers| format!(" --only {numbers}"));
    println!("--seed {seed}{only_words}: {events} events, trace {hash:016x}");
    for (number, (at, fault)) in faults.iter().enumerate() {
        if only.is_none_or(|only| only.contains(&number)) {
            println!("fault {number} at {:.3} ms: {fault:?}", *at as f64 / 1_000.0);
        }
    }
    let skipped = if whole { 0 } else { timeline.len().saturating_sub(SHOWN) };
    if skipped > 0 {
        println!("... {skipped} lines before (--whole shows them)");
    }
    timeline.iter().skip(skipped).for_each(|line| println!("{line}"));
    if let Some(why) = &violation {
        println!("VIOLATION {why}");
    }
    usize::from(violation.is_some())
}

/// Every planted bug has to be found.
fn find_mistakes(seeds: u64) -> (u64, usize) {
    let mut missed = 0;
    for mistake in Mistake::ALL {
        match search(0..seeds, Some(mistake), true).first() {
            Some((seed, why)) => println!("{mistake:?}: seed {seed}: {why}"),
            None => {
                missed += 1;
                println!("{mistake:?}: NOT FOUND in {seeds} seeds");
            }
        }
    }
    (seeds, missed)
}
