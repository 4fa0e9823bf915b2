//! The log in memory, as Raft reads it: no disk is asked, and every term is exact.

use std::{cell::Cell, collections::VecDeque};

use raft::{
    Error, GetEntriesContext, RaftState, Result, Storage, StorageError,
    eraftpb::{self, Snapshot},
};

use super::{Position, convert};
use crate::raft::store::{ConfState, HardState};

/// Everything from the place before the first entry on. It shows what was given to the disk, durable or not.
pub(super) struct Mirror {
    hard_state: HardState,
    /// As of `config.applied` when Raft starts.
    conf_state: ConfState,
    before: Position,
    entries: VecDeque<eraftpb::Entry>,
    /// The newest checkpoint: what a peer gets that is behind the log.
    checkpoint: (Position, ConfState),
    /// The one before it: entries are kept since then.
    older: u64,
    /// How many entries stay behind the newest checkpoint at least.
    keep_behind: u64,
    /// A peer needs a newer checkpoint than there is.
    is_checkpoint_wanted: Cell<bool>,
}

impl Mirror {
    pub(super) fn new(
        hard_state: HardState,
        checkpoint: (Position, ConfState),
        before: Position,
        entries: Vec<eraftpb::Entry>,
        keep_behind: u64,
    ) -> Self {
        let conf_state = checkpoint.1.clone();
        let older = before.index;
        Self {
            hard_state,
            conf_state,
            before,
            entries: entries.into(),
            checkpoint,
            older,
            keep_behind,
            is_checkpoint_wanted: Cell::new(false),
        }
    }

    pub(super) fn last(&self) -> Position {
        self.entries.back().map_or(self.before, |entry| Position { index: entry.index, term: entry.term })
    }

    pub(super) fn before(&self) -> Position {
        self.before
    }

    pub(super) fn checkpoint(&self) -> Position {
        self.checkpoint.0
    }

    /// Whether a peer was found to need a newer checkpoint since this was asked last.
    pub(super) fn take_checkpoint_wanted(&self) -> bool {
        self.is_checkpoint_wanted.take()
    }

    /// Entries take their place; what was there from the first on goes.
    pub(super) fn append(&mut self, entries: &[eraftpb::Entry]) {
        let Some(first) = entries.first() else { return };
        self.entries.truncate(to_usize(first.index.saturating_sub(self.before.index + 1)));
        self.entries.extend(entries.iter().cloned());
    }

    /// A checkpoint from elsewhere takes the place of everything.
    pub(super) fn reset(&mut self, at: Position, conf_state: ConfState) {
        self.entries.clear();
        (self.before, self.older) = (at, at.index);
        self.checkpoint = (at, conf_state);
    }

    /// A checkpoint was made here: entries before it go, as far as the store drops them, and those behind `pinned` stay.
    pub(super) fn compact(&mut self, at: Position, conf_state: ConfState, pinned: Option<u64>) {
        if at.index <= self.checkpoint.0.index {
            return;
        }
        self.older = self.checkpoint.0.index;
        self.checkpoint = (at, conf_state);
        let reach = at.index.saturating_sub(self.keep_behind).min(self.older).min(pinned.unwrap_or(u64::MAX));
        while let Some(first) = self.entries.front().filter(|first| first.index <= reach) {
            self.before = Position { index: first.index, term: first.term };
            self.entries.pop_front();
        }
    }

    pub(super) fn entry(&self, index: u64) -> Option<&eraftpb::Entry> {
        self.entries.get(to_usize(index.checked_sub(self.before.index + 1)?))
    }
}

impl Storage for Mirror {
    fn initial_state(&self) -> Result<RaftState> {
        let hard_state = convert::hard_state_out(self.hard_state);
        Ok(RaftState::new(hard_state, convert::conf_state_out(&self.conf_state)))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> Result<Vec<eraftpb::Entry>> {
        if low <= self.before.index {
            return Err(Error::Store(StorageError::Compacted));
        }
        let limit = max_size.into().unwrap_or(u64::MAX);
        let from = to_usize(low - self.before.index - 1);
        let mut bytes = 0;
        let fits = |entry: &&eraftpb::Entry| {
            // As `limit_size` of the crate has it: the first always goes, the others while they fit.
            let first = bytes == 0;
            bytes += u64::from(protobuf::Message::compute_size(*entry));
            first || bytes <= limit
        };
        Ok(self.entries.iter().skip(from).take(to_usize(high - low)).take_while(fits).cloned().collect())
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.before.index {
            return Ok(self.before.term);
        }
        if index < self.before.index {
            return Err(Error::Store(StorageError::Compacted));
        }
        self.entry(index).map(|entry| entry.term).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.before.index + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last().index)
    }

    fn snapshot(&self, request_index: u64, to: u64) -> Result<Snapshot> {
        let (at, conf_state) = &self.checkpoint;
        // Nobody takes a checkpoint in which it is no member yet.
        if at.index < request_index || !conf_state.all().contains(&to) {
            self.is_checkpoint_wanted.set(true);
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (at.index, at.term);
        metadata.set_conf_state(convert::conf_state_out(conf_state));
        Ok(snapshot)
    }
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
