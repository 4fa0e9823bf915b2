//! What a log holds, and how it may grow: the same rules when writing and when reading back.

/// A place in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Counts entries from 1; 0 is before the first.
    pub index: u64,
    /// The term of the entry there.
    pub term: u64,
}

impl Position {
    /// Where a log begins that began behind this place, once `entries` replaced some of those before it: behind the last
    /// one of them whose term is known.
    pub(super) fn replaced_by(self, entries: &[Entry]) -> Self {
        let ends = entries.first().zip(entries.last()).filter(|(first, _)| first.index <= self.index);
        let index = ends.map_or(0, |(_, last)| last.index.min(self.index));
        entries.iter().find(|entry| entry.index == index).map_or(self, |entry| Self { index, term: entry.term })
    }
}

/// What Raft must not forget besides entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term this replica has seen.
    pub term: u64,
    /// Whom it voted for in that term; 0 for nobody.
    pub vote: u64,
    /// Up to where entries are known to be committed.
    pub commit: u64,
}

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A command; empty when a leader begins its term.
    Normal,
    /// A change of the group's members.
    Configuration,
}

/// One entry. Its data mean nothing to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub index: u64,
    /// The term in which a leader appended it.
    pub term: u64,
    /// What it is for.
    pub kind: EntryKind,
    /// What it says.
    pub data: Vec<u8>,
}

/// How much a batch matters when the disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Refused as soon as the disk has no room for another segment.
    Ordinary,
    /// Small and needed to get out of the trouble: votes, terms, deletions. Accepted as long as the reserve lasts.
    Essential,
}

/// What becomes durable together, or not at all.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// New entries, without a gap. Where the first is not behind the log's end, the log is cut there before.
    pub entries: &'a [Entry],
    /// The hard state, if it changed.
    pub hard_state: Option<HardState>,
    /// How much it matters.
    pub priority: Priority,
}

/// What no log may hold: a mistake of the caller, or a record that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// Entries do not follow each other.
    #[error("entry {found} comes where entry {expected} should")]
    Gap {
        /// The index that should come.
        expected: u64,
        /// The one that came.
        found: u64,
    },
    /// Terms never fall from one entry to the next.
    #[error("entry {index} is of a lower term than the one before")]
    TermFalls {
        /// The entry's index.
        index: u64,
    },
    /// Committed entries stay.
    #[error("entry {index} is to be replaced, but entries are committed up to {commit}")]
    Committed {
        /// The first entry that would go.
        index: u64,
        /// Up to where they are committed.
        commit: u64,
    },
    /// A hard state only goes forward.
    #[error("the hard state goes back from {from:?} to {to:?}")]
    GoesBack {
        /// What it is.
        from: HardState,
        /// What it should become.
        to: HardState,
    },
    /// What is not there is not committed.
    #[error("commit {commit} is beyond the last entry, {last}")]
    CommitBeyond {
        /// The commit index.
        commit: u64,
        /// The last entry's index.
        last: u64,
    },
    /// A checkpoint of what is not committed, or one that is not newer than what is there.
    #[error("a checkpoint at {index} is not between the last one, {newest}, and commit {commit}")]
    Checkpoint {
        /// The checkpoint's index.
        index: u64,
        /// The newest one's.
        newest: u64,
        /// Up to where entries are committed.
        commit: u64,
    },
}

/// Where a log stands. The next record has to fit on to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// The place just before the first entry.
    pub(super) base: Position,
    /// The last entry's place; `base` where there is none.
    pub(super) last: Position,
    pub(super) hard_state: HardState,
}

impl Tail {
    /// Where the log stands after `entries` and a hard state.
    pub(super) fn after(&self, entries: &[Entry], hard_state: Option<HardState>) -> Result<Self, Contradiction> {
        let mut next = *self;
        for (at, entry) in entries.iter().enumerate() {
            let place = Position { index: entry.index, term: entry.term };
            if at == 0 && self.cuts(entries) {
                self.may_replace(entry.index)?;
            } else if place.index != next.last.index + 1 {
                return Err(Contradiction::Gap { expected: next.last.index + 1, found: place.index });
            } else if place.term < next.last.term {
                return Err(Contradiction::TermFalls { index: place.index });
            }
            next.last = place;
        }
        // Only while reading: the segments before the first one may have been dropped since, as their entries were
        // committed by then, or void.
        next.base = self.base.replaced_by(entries);
        next.advance(hard_state.unwrap_or(self.hard_state))
    }

    /// Where the log stands after a checkpoint took its place.
    pub(super) fn after_reset(&self, checkpoint: Position, hard_state: HardState) -> Result<Self, Contradiction> {
        if checkpoint.index < self.hard_state.commit || hard_state.commit != checkpoint.index {
            let (index, newest, commit) = (checkpoint.index, self.hard_state.commit, hard_state.commit);
            return Err(Contradiction::Checkpoint { index, newest, commit });
        }
        Self { base: checkpoint, last: checkpoint, ..*self }.advance(hard_state)
    }

    /// True where entries replace some that are there.
    pub(super) fn cuts(&self, entries: &[Entry]) -> bool {
        entries.first().is_some_and(|first| first.index <= self.last.index)
    }

    fn may_replace(&self, index: u64) -> Result<(), Contradiction> {
        let commit = self.hard_state.commit;
        if index <= commit { Err(Contradiction::Committed { index, commit }) } else { Ok(()) }
    }

    fn advance(self, to: HardState) -> Result<Self, Contradiction> {
        let from = self.hard_state;
        let second_vote = to.term == from.term && from.vote != 0 && to.vote != from.vote;
        if to.term < from.term || to.commit < from.commit || second_vote {
            return Err(Contradiction::GoesBack { from, to });
        }
        if to.commit > self.last.index {
            return Err(Contradiction::CommitBeyond { commit: to.commit, last: self.last.index });
        }
        Ok(Self { hard_state: to, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: Tail = Tail {
        base: Position { index: 1, term: 1 },
        last: Position { index: 9, term: 3 },
        hard_state: HardState { term: 4, vote: 2, commit: 5 },
    };

    #[test]
    fn entries_follow_or_replace_what_is_not_committed() {
        let last = |from, term| TAIL.after(&entries(from, term), None).map(|tail| tail.last.index);
        assert_eq!(last(10, 3), Ok(11));
        assert_eq!(last(6, 4), Ok(7), "the rest is cut");
        assert_eq!(last(5, 4), Err(Contradiction::Committed { index: 5, commit: 5 }));
        assert_eq!(last(11, 4), Err(Contradiction::Gap { expected: 10, found: 11 }));
        assert_eq!(last(10, 2), Err(Contradiction::TermFalls { index: 10 }));
        let mut torn = entries(10, 3);
        torn[1].index = 12;
        assert_eq!(TAIL.after(&torn, None), Err(Contradiction::Gap { expected: 11, found: 12 }));
    }

    #[test]
    fn a_log_whose_beginning_is_replaced_begins_behind_it() {
        let begun = Tail { base: Position { index: 8, term: 2 }, ..TAIL };
        let begins = |from, term| begun.after(&entries(from, term), None).map(|tail| (tail.base, tail.last.index));
        assert_eq!(begins(8, 4), Ok((Position { index: 8, term: 4 }, 9)));
        assert_eq!(begins(7, 4), Ok((Position { index: 8, term: 4 }, 8)));
        assert_eq!(begins(6, 4), Ok((Position { index: 7, term: 4 }, 7)));
        assert_eq!(begins(10, 4), Ok((begun.base, 11)));
        assert_eq!(begins(5, 4), Err(Contradiction::Committed { index: 5, commit: 5 }));
    }

    #[test]
    fn a_hard_state_never_goes_back() {
        let may = |term, vote, commit| TAIL.after(&[], Some(HardState { term, vote, commit })).is_ok();
        assert!(may(4, 2, 9) && may(5, 0, 5) && may(5, 3, 5));
        assert!(!may(3, 2, 5), "term");
        assert!(!may(4, 2, 4), "commit");
        assert!(!may(4, 3, 5) && !may(4, 0, 5), "a second vote in one term");
        assert!(!may(4, 2, 10), "beyond the log");
    }

    #[test]
    fn a_checkpoint_takes_the_place_of_a_log_that_is_behind_it() {
        let hard_state = HardState { term: 4, vote: 2, commit: 20 };
        let tail = TAIL.after_reset(Position { index: 20, term: 4 }, hard_state).unwrap();
        assert_eq!((tail.base.index, tail.last.index), (20, 20));
        assert!(TAIL.after_reset(Position { index: 4, term: 3 }, HardState { commit: 4, ..hard_state }).is_err());
        assert!(TAIL.after_reset(Position { index: 21, term: 3 }, hard_state).is_err(), "commit is its index");
    }

    fn entries(from: u64, term: u64) -> Vec<Entry> {
        (from..from + 2).map(|index| Entry { index, term, kind: EntryKind::Normal, data: vec![] }).collect()
    }
}
