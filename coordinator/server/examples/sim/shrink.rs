//! Which of a failing seed's faults it takes: the others are left out one by one, as long as it fails without them.

use mainstay_coordinator::raft::driver::Mistake;

use crate::world::run_with;

/// The numbers of the faults that are left, in order.
pub(crate) fn shrink(seed: u64, mistake: Option<Mistake>, count: usize) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..count).collect();
    let fails = |kept: &[usize]| run_with(seed, mistake, false, Some(kept)).violation.is_some();
    let mut size = kept.len().div_ceil(2).max(1);
    loop {
        let (mut at, before) = (0, kept.len());
        while at < kept.len() {
            let without = [&kept[..at], &kept[(at + size).min(kept.len())..]].concat();
            if fails(&without) {
                kept = without;
            } else {
                at += size;
            }
        }
        if size == 1 && kept.len() == before {
            return kept;
        }
        size = size.div_ceil(2);
    }
}
