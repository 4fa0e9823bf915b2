//! Connections that share one budget, by whom they are counted for.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::guest::Id;

/// Who is in, by key: an address, a node, a person. Ids grow, so the least one of a key is its oldest.
#[derive(Debug)]
pub(super) struct Crowd<K> {
    of: BTreeMap<K, BTreeSet<Id>>,
    /// Keys by how many they have, then by how long their oldest is there: the last is the most crowded.
    ranks: BTreeSet<(usize, Reverse<Id>, K)>,
    len: usize,
}

impl<K> Default for Crowd<K> {
    fn default() -> Self {
        Self { of: BTreeMap::new(), ranks: BTreeSet::new(), len: 0 }
    }
}

impl<K: Ord + Clone> Crowd<K> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn count(&self, key: &K) -> usize {
        self.of.get(key).map_or(0, BTreeSet::len)
    }

    pub(super) fn join(&mut self, key: K, id: Id) {
        self.change(key, |ids| ids.insert(id));
    }

    pub(super) fn leave(&mut self, key: K, id: Id) {
        self.change(key, |ids| ids.remove(&id));
    }

    fn change(&mut self, key: K, change: impl FnOnce(&mut BTreeSet<Id>) -> bool) {
        let ids = self.of.entry(key.clone()).or_default();
        self.len -= ids.len();
        if let Some(oldest) = ids.first() {
            self.ranks.remove(&(ids.len(), Reverse(*oldest), key.clone()));
        }
        change(ids);
        self.len += ids.len();
        if let Some(oldest) = ids.first() {
            self.ranks.insert((ids.len(), Reverse(*oldest), key));
        } else {
            self.of.remove(&key);
        }
    }

    pub(super) fn oldest(&self, key: &K) -> Option<Id> {
        self.of.get(key).and_then(BTreeSet::first).copied()
    }

    pub(super) fn ids(&self, key: &K) -> impl Iterator<Item = Id> + '_ {
        self.of.get(key).into_iter().flatten().copied()
    }

    /// The key with the most connections, and how many it has; of equals, the one that was there first.
    pub(super) fn most_crowded(&self) -> Option<(&K, usize)> {
        self.ranks.last().map(|(count, _, key)| (key, *count))
    }

    /// Who must go so that `id` may join under `key`, with `cap` connections in all and `each` per key; `id` itself
    /// where nobody takes more than it would.
    pub(super) fn victim(&self, key: &K, id: Id, cap: usize, each: usize) -> Option<Id> {
        let own = self.count(key);
        if own < each && self.len < cap {
            return None;
        }
        let crowded = self.most_crowded().filter(|(_, count)| own < each && *count > own + 1);
        let from = crowded.map_or(key, |(crowded, _)| crowded);
        Some(self.oldest(from).unwrap_or(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_takes_most_makes_room_and_equals_do_not() {
        let mut crowd = Crowd::default();
        for (id, key) in [(1, "greedy"), (2, "greedy"), (3, "greedy"), (4, "modest")] {
            assert_eq!(crowd.victim(&key, Id(id), 4, 10), None);
            crowd.join(key, Id(id));
        }
        assert_eq!(crowd.victim(&"new", Id(5), 4, 10), Some(Id(1)), "the oldest of whoever has three");
        assert_eq!(crowd.victim(&"greedy", Id(5), 4, 10), Some(Id(1)), "its own oldest");
        assert_eq!(crowd.victim(&"modest", Id(5), 9, 1), Some(Id(4)), "its own, at its own limit");
        crowd.leave("greedy", Id(1));
        crowd.leave("greedy", Id(2));
        assert_eq!(crowd.victim(&"new", Id(6), 2, 10), Some(Id(6)), "nobody has more than it would");
        assert_eq!(crowd.most_crowded(), Some((&"greedy", 1)));
        assert_eq!(crowd.len(), 2);
    }
}
