//! The one kind of table in state and live view: ordered, and free to copy.

use std::{fmt, ops::Bound};

use imbl::{OrdMap, ordmap::DiffItem};

/// A persistent ordered map: a copy shares everything with the original until one of them changes, so a reader holds a
/// whole table while the writer goes on.
#[derive(Clone, PartialEq, Eq)]
pub struct Table<K: Ord + Clone, V: Clone>(OrdMap<K, V>);

impl<K: Ord + Clone, V: Clone> Table<K, V> {
    /// The row of that key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.0.get(key)
    }

    /// The row of that key, to change it.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.0.get_mut(key)
    }

    /// Puts a row, and returns the one that was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.0.insert(key, value)
    }

    /// Takes a row out.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.0.remove(key)
    }

    /// Puts a row, or takes it out where there is no value.
    pub fn set(&mut self, key: &K, value: Option<&V>) {
        match value {
            Some(value) => drop(self.0.insert(key.clone(), value.clone())),
            None => drop(self.0.remove(key)),
        }
    }

    /// The row of that key, made if it was not there.
    pub fn entry(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        self.0.entry(key).or_insert_with(make)
    }

    /// The rows from that key on, by key.
    pub fn from<'a, Q: Ord + ?Sized>(&'a self, first: &Q) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V, Q>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.0.range::<_, Q>((Bound::Included(first), Bound::<&Q>::Unbounded))
    }

    /// True where both are one and the same: neither changed since one was a copy of the other. False proves nothing.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }

    /// Keys of rows that are not the same in both. Costs what differs, not what is there.
    pub fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a K>
    where
        V: PartialEq,
    {
        self.0.diff(&other.0).map(|difference| match difference {
            DiffItem::Add(key, _) | DiffItem::Remove(key, _) => key,
            DiffItem::Update { new: (key, _), .. } => key,
        })
    }

    /// The first row.
    #[must_use]
    pub fn first(&self) -> Option<(&K, &V)> {
        self.0.get_min().map(|(key, value)| (key, value))
    }

    /// The last row.
    #[must_use]
    pub fn last(&self) -> Option<(&K, &V)> {
        self.0.get_max().map(|(key, value)| (key, value))
    }

    /// Every row, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter()
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True where there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Ord + Clone, V: Clone> Default for Table<K, V> {
    fn default() -> Self {
        Self(OrdMap::new())
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for Table<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(rows: I) -> Self {
        Self(rows.into_iter().collect())
    }
}

impl<K: Ord + Clone + fmt::Debug, V: Clone + fmt::Debug> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_found_from_both_sides() {
        let before: Table<u32, u32> = (0..1_000).map(|key| (key, 0)).collect();
        let mut after = before.clone();
        assert!(after.is_same(&before));
        after.insert(7, 1);
        after.remove(&8);
        after.insert(2_000, 0);
        assert!(!after.is_same(&before));
        assert_eq!(after.differing(&before).copied().collect::<Vec<_>>(), [7, 8, 2_000]);
        assert_eq!(before.differing(&after).copied().collect::<Vec<_>>(), [7, 8, 2_000]);
        assert_eq!(after.from(&999).map(|(key, _)| *key).collect::<Vec<_>>(), [999, 2_000]);
        assert_eq!(after.last(), Some((&2_000, &0)));
    }
}
