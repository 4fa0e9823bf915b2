//! Whether replicas that applied the same entries have the same state: they compare what their checkpoints hold.

use std::collections::{BTreeMap, BTreeSet};

/// Checkpoints that are remembered: a replica that is a little late is compared too.
const REMEMBERED: usize = 8;

/// What a checkpoint holds, proven by its trailer: the same on all replicas that have one at that index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateHash {
    /// The last entry that is in it.
    pub index: u64,
    /// SHA-256 of all of it.
    pub sha256: [u8; 32],
}

/// What came of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Most of the members have another state than this replica: it is wrong.
    Odd {
        /// At this entry.
        index: u64,
        /// Those who agree with each other.
        against: BTreeSet<u64>,
    },
    /// Somebody has another state, and nobody can say who is right; or those are few, and will stop.
    Differs {
        /// At this entry.
        index: u64,
        /// Who has another state than this replica.
        with: BTreeSet<u64>,
    },
}

/// What everybody said that they have.
#[derive(Debug, Default)]
pub(super) struct Agreement {
    /// By index, then by replica.
    said: BTreeMap<u64, BTreeMap<u64, [u8; 32]>>,
    /// Whom something was said about already.
    told: BTreeMap<u64, BTreeSet<u64>>,
}

impl Agreement {
    /// `from`, this replica `own` included, has that. `None` where nothing new comes of it.
    pub(super) fn heard(&mut self, from: u64, hash: StateHash, own: u64, members: &BTreeSet<u64>) -> Option<Verdict> {
        let index = hash.index;
        self.said.entry(index).or_default().insert(from, hash.sha256);
        while self.said.len() > REMEMBERED {
            self.said.pop_first();
        }
        let said = self.said.get(&index)?;
        let ours = said.get(&own)?;
        let others = said.iter().filter(|(id, theirs)| members.contains(id) && *theirs != ours);
        let mut parties: BTreeMap<&[u8; 32], BTreeSet<u64>> = BTreeMap::new();
        others.for_each(|(id, theirs)| {
            parties.entry(theirs).or_default().insert(*id);
        });
        if let Some(against) = parties.values().find(|party| party.len() > members.len() / 2) {
            return Some(Verdict::Odd { index, against: against.clone() });
        }
        let with: BTreeSet<u64> = parties.into_values().flatten().collect();
        let told = self.told.entry(index).or_default();
        let is_news = !with.is_subset(told);
        told.extend(&with);
        while self.told.len() > REMEMBERED {
            self.told.pop_first();
        }
        is_news.then_some(Verdict::Differs { index, with })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(agreement: &mut Agreement, from: u64, index: u64, byte: u8) -> Option<Verdict> {
        agreement.heard(from, StateHash { index, sha256: [byte; 32] }, 1, &[1, 2, 3].into())
    }

    #[test]
    fn the_odd_one_out_finds_that_it_is() {
        let mut agreement = Agreement::default();
        assert_eq!(heard(&mut agreement, 2, 50, 7), None, "nothing is known here yet");
        assert_eq!(heard(&mut agreement, 1, 50, 8), Some(Verdict::Differs { index: 50, with: [2].into() }));
        assert_eq!(heard(&mut agreement, 2, 50, 7), None, "it is told once");
        assert_eq!(heard(&mut agreement, 3, 50, 7), Some(Verdict::Odd { index: 50, against: [2, 3].into() }));
    }

    #[test]
    fn most_of_them_go_on() {
        let mut agreement = Agreement::default();
        assert_eq!(heard(&mut agreement, 1, 50, 7), None);
        assert_eq!(heard(&mut agreement, 2, 50, 7), None);
        assert_eq!(heard(&mut agreement, 3, 50, 8), Some(Verdict::Differs { index: 50, with: [3].into() }));
        assert_eq!(heard(&mut agreement, 2, 100, 1), None, "another entry is another state");
    }

    #[test]
    fn three_opinions_are_no_majority_and_strangers_have_none() {
        let mut agreement = Agreement::default();
        heard(&mut agreement, 1, 50, 1);
        heard(&mut agreement, 2, 50, 2);
        assert_eq!(heard(&mut agreement, 3, 50, 3), Some(Verdict::Differs { index: 50, with: [2, 3].into() }));
        for stranger in 4..9 {
            assert_eq!(heard(&mut agreement, stranger, 50, 2), None);
        }
    }
}
