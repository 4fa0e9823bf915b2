use std::panic;

use super::*;

/// As many as a debug build does in some seconds; `tests/sim` does more.
const SEEDS: u64 = 300;

/// A seed that finds each planted bug, from `tests/sim --mistakes`.
const KILLERS: [(Mistake, u64); 16] = [
    (Mistake::SendBeforePersisted, 1),
    (Mistake::LoseHardState, 1),
    (Mistake::LoseVote, 41),
    (Mistake::RepeatReadContext, 31),
    (Mistake::ReadBeforeApplied, 2),
    (Mistake::ReadWithoutQuorum, 0),
    (Mistake::ApplyBeforeCommit, 0),
    (Mistake::SkipEmptyChange, 187),
    (Mistake::NoAdvanceAfterInstall, 23),
    (Mistake::UnknownAsCommitted, 4),
    (Mistake::UnknownAsRefused, 4),
    (Mistake::CountUnpersisted, 17),
    (Mistake::IgnoreSyncError, 1),
    (Mistake::ReuseId, 54),
    (Mistake::IgnoreFence, 5),
    (Mistake::ForgetMembers, 61),
];

#[test]
fn nothing_that_goes_wrong_breaks_a_promise() {
    panic::set_hook(Box::new(|_| {}));
    let failed = search(0..SEEDS, None, false);
    assert_eq!(failed, [], "`tests/sim --seed K` prints the timeline");
}

#[test]
fn what_once_failed_does_not_fail_again() {
    // A leader that was removed ended before the last one knew of it; and led on until a write of its own was durable.
    for seed in [18_210, 6_403] {
        assert_eq!(run(seed, None, false).violation, None);
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..20 {
        let (first, again) = (run(seed, None, false), run(seed, None, true));
        assert_eq!((first.hash, first.events), (again.hash, again.events), "seed {seed}");
    }
}

#[test]
fn a_failing_seed_is_told_with_the_faults_that_it_takes() {
    panic::set_hook(Box::new(|_| {}));
    let (mistake, seed) = (Some(Mistake::LoseVote), 41);
    let all = run(seed, mistake, false).faults.len();
    let kept = shrink(seed, mistake, all);
    assert!(kept.len() < all, "{kept:?} of {all}");
    assert!(run_with(seed, mistake, false, Some(&kept)).violation.is_some());
    for left_out in 0..kept.len() {
        let fewer = [&kept[..left_out], &kept[left_out + 1..]].concat();
        assert_eq!(
            run_with(seed, mistake, false, Some(&fewer)).violation,
            None,
            "{left_out} of {kept:?} is superfluous"
        );
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
