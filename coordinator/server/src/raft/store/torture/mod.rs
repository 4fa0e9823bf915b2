//! The store on a disk that fails: whatever comes, what was acknowledged stays.
//!
//! `MAINSTAY_SEEDS=N` runs so many seeds, `MAINSTAY_SEED=K` runs one and prints what happened in it.

mod episode;
mod mistake;
mod model;
mod tally;

use std::time::Instant;

use self::{
    mistake::{MISTAKES, Mistake},
    tally::Tally,
};

const SEEDS: u64 = 10_000;

#[test]
fn what_was_acknowledged_stays_whatever_the_disk_does() {
    if let Some(seed) = from_environment("MAINSTAY_SEED") {
        let tally = episode::run(seed, None, &mut |line| eprintln!("{line}"));
        eprintln!("{tally:?}");
        tally.unwrap();
        return;
    }
    let (seeds, begin) = (from_environment("MAINSTAY_SEEDS").unwrap_or(SEEDS), Instant::now());
    let mut sum = Tally::default();
    for seed in 0..seeds {
        sum += run(seed);
    }
    eprintln!("seeds {seeds} violations 0 seconds {:.1} {sum:?}", begin.elapsed().as_secs_f64());
    if seeds >= SEEDS {
        let Tally { acknowledged, refused_full, broken, power_losses, cut, unacknowledged_but_there, .. } = sum;
        let Tally { checkpoints, resets, flips_refused, flips_harmless, flips_set_aside, deaths_at_start, .. } = sum;
        let often = [acknowledged, refused_full, broken, power_losses, cut, unacknowledged_but_there, checkpoints];
        let often = [often.as_slice(), &[resets, flips_refused, flips_harmless, flips_set_aside, deaths_at_start]];
        assert!(often.concat().iter().all(|count| *count >= seeds / 50), "not everything was put to the test: {sum:?}");
    }
}

#[test]
fn a_seed_is_the_same_episode_every_time() {
    let trace = |seed| {
        let mut lines = Vec::new();
        episode::run(seed, None, &mut |line| lines.push(line)).unwrap();
        lines
    };
    assert!((0..20).all(|seed| trace(seed) == trace(seed)));
    assert_ne!(trace(1), trace(2));
}

#[test]
fn every_planted_mistake_is_found() {
    for mistake in MISTAKES {
        let found = (0..2_000).find(|seed| episode::run(*seed, Some(mistake), &mut |_| {}).is_err());
        assert!(found.is_some(), "{mistake:?} goes unseen");
        eprintln!("{mistake:?}: seed {}", found.unwrap());
    }
}

/// Runs one seed, and tells its story where it goes wrong, also by a panic.
fn run(seed: u64) -> Tally {
    struct Name(u64);
    impl Drop for Name {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("replay with MAINSTAY_SEED={}", self.0);
            }
        }
    }
    let _name = Name(seed);
    episode::run(seed, None, &mut |_| {}).unwrap_or_else(|why| {
        let mut lines = Vec::new();
        episode::run(seed, None::<Mistake>, &mut |line| lines.push(line)).unwrap_err();
        panic!("seed {seed}: {why}\n{}", lines.join("\n"))
    })
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}: not a number: {value}")))
}
