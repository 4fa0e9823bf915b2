use std::panic;

use super::*;

/// As many as a debug build does in some seconds; `tests/sim` does more.
const SEEDS: u64 = 300;

/// A seed that finds each planted bug, from `tests/sim --mistakes`.
const KILLERS: [(Mistake, u64); 16] = [
    (Mistake::SendBeforePersisted, 13),
    (Mistake::LoseHardState, 1),
    (Mistake::LoseVote, 78),
    (Mistake::RepeatReadContext, 18),
    (Mistake::ReadBeforeApplied, 0),
    (Mistake::ReadWithoutQuorum, 2),
    (Mistake::ApplyBeforeCommit, 0),
    (Mistake::SkipEmptyChange, 682),
    (Mistake::NoAdvanceAfterInstall, 266),
    (Mistake::UnknownAsCommitted, 0),
    (Mistake::UnknownAsRefused, 0),
    (Mistake::CountUnpersisted, 17),
    (Mistake::IgnoreSyncError, 10),
    (Mistake::ReuseId, 185),
    (Mistake::IgnoreFence, 23),
    (Mistake::ForgetMembers, 0),
];

#[test]
fn nothing_that_goes_wrong_breaks_a_promise() {
    panic::set_hook(Box::new(|_| {}));
    let failed = search(0..SEEDS, None, false);
    assert_eq!(failed, [], "`tests/sim --seed K` prints the timeline");
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..20 {
        let (first, again) = (run(seed, None, false), run(seed, None, true));
        assert_eq!((first.hash, first.events), (again.hash, again.events), "seed {seed}");
    }
}

#[test]
fn every_planted_bug_is_found() {
    panic::set_hook(Box::new(|_| {}));
    for (mistake, seed) in KILLERS {
        assert!(run(seed, Some(mistake), false).violation.is_some(), "{mistake:?} survives seed {seed}");
        assert_eq!(run(seed, None, false).violation, None, "seed {seed} fails without {mistake:?}");
    }
    assert_eq!(KILLERS.map(|(mistake, _)| mistake), Mistake::ALL);
}
