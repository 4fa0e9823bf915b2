//! How often a container lost a process for lack of memory, over all its lives that we saw. Pure.
//!
//! The group's own counter is gone together with the group, and a container whose first process is killed loses it at
//! once; the engine's word and its events fill the gap.

use mainstay_common::Timestamp;

/// Counts kills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kills {
    known: bool,
    /// In lives before this one.
    before: u64,
    /// In this life, by three witnesses that see the same kills.
    counted: u64,
    told: u64,
    flagged: bool,
    /// When this life began.
    life: Option<Timestamp>,
}

impl Kills {
    /// The group's counter.
    pub(super) fn counted(&mut self, kills: u64) {
        self.known = true;
        self.counted = self.counted.max(kills);
    }

    /// The engine told of one.
    pub(super) fn told(&mut self) {
        self.known = true;
        self.told += 1;
    }

    /// What an inspection says: when this life began, and whether there was a kill in it.
    pub(super) fn inspected(&mut self, started_at: Option<Timestamp>, out_of_memory: bool) {
        if started_at.is_some() && started_at != self.life {
            if self.life.is_some() {
                (self.before, self.counted, self.told, self.flagged) = (self.total(), 0, 0, false);
            }
            self.life = started_at;
        }
        self.flagged = out_of_memory;
        self.known |= out_of_memory;
    }

    fn total(&self) -> u64 {
        self.before + self.counted.max(self.told).max(u64::from(self.flagged))
    }

    /// All kills; `None` where nobody counted yet.
    pub(super) fn get(&self) -> Option<u64> {
        self.known.then(|| self.total())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_kill_that_three_tell_of_is_one() {
        let mut kills = Kills::default();
        assert_eq!(kills.get(), None);
        kills.inspected(Some(Timestamp(1)), false);
        kills.counted(0);
        assert_eq!(kills.get(), Some(0));
        kills.told();
        kills.counted(1);
        kills.inspected(Some(Timestamp(1)), true);
        assert_eq!(kills.get(), Some(1));
    }

    #[test]
    fn a_new_life_does_not_forget() {
        let mut kills = Kills::default();
        kills.inspected(Some(Timestamp(1)), true);
        kills.inspected(Some(Timestamp(2)), false);
        assert_eq!(kills.get(), Some(1));
        kills.told();
        kills.told();
        kills.inspected(Some(Timestamp(3)), true);
        kills.counted(0);
        assert_eq!(kills.get(), Some(4));
    }
}
