//! What a log must hold, told so simply that it can be believed.

use std::collections::BTreeMap;

use crate::raft::store::{Checkpoint, Disk, Entry, HardState, Position, Recovered, Store, sample};

/// A log as whoever was answered knows it.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// The place before the first entry that was ever written, or written since a reset.
    base: Position,
    entries: BTreeMap<u64, Entry>,
    /// With the commit index that was only noted.
    pub(super) hard_state: HardState,
    /// As of the last record.
    durable: HardState,
    /// Index of the newest checkpoint that counts.
    pub(super) newest: u64,
    /// A checkpoint that is durable and counts from the next start on.
    written: Option<u64>,
    /// Terms of all checkpoints by index.
    checkpoints: BTreeMap<u64, u64>,
    /// Entries behind this index have to be there.
    floor: u64,
}

impl Model {
    pub(super) fn founded() -> Self {
        let first = sample::first();
        let hard_state = HardState { term: first.term, vote: 0, commit: first.index };
        Self {
            base: first.position(),
            entries: BTreeMap::new(),
            hard_state,
            durable: hard_state,
            newest: first.index,
            written: None,
            checkpoints: BTreeMap::from([(first.index, first.term)]),
            floor: first.index,
        }
    }

    pub(super) fn last(&self) -> Position {
        self.entries.values().last().map_or(self.base, |entry| Position { index: entry.index, term: entry.term })
    }

    pub(super) fn term(&self, index: u64) -> Option<u64> {
        let at_base = Some(self.base.term).filter(|_| index == self.base.index);
        at_base.or_else(|| self.entries.get(&index).map(|entry| entry.term))
    }

    /// The checkpoint that was, or will be, made at `index`.
    pub(super) fn checkpoint(&self, index: u64) -> Checkpoint {
        let term = self.term(index).or_else(|| self.checkpoints.get(&index).copied());
        if index == 1 { sample::first() } else { sample::checkpoint(index, term.unwrap()) }
    }

    pub(super) fn after_write(&self, entries: &[Entry], hard_state: Option<HardState>) -> Self {
        let mut next = self.clone();
        if let Some(first) = entries.first() {
            next.entries.split_off(&first.index);
        }
        next.entries.extend(entries.iter().map(|entry| (entry.index, entry.clone())));
        next.hard_state = hard_state.unwrap_or(self.hard_state);
        if !entries.is_empty() || hard_state.is_some() {
            next.durable = next.hard_state;
        }
        next
    }

    pub(super) fn after_note(&self, commit: u64) -> Self {
        Self { hard_state: HardState { commit, ..self.hard_state }, ..self.clone() }
    }

    pub(super) fn after_writing_checkpoint(&self, index: u64) -> Self {
        let mut next = self.clone();
        next.checkpoints.insert(index, self.checkpoint(index).term);
        next.written = Some(index.max(self.written.unwrap_or(0)));
        next
    }

    pub(super) fn after_adoption(&self, index: u64) -> Self {
        let mut next = self.clone();
        next.checkpoints.insert(index, self.checkpoint(index).term);
        next.floor = self.floor.max(self.newest.min(index.saturating_sub(sample::settings().entries_behind)));
        next.newest = index;
        next
    }

    pub(super) fn after_reset(&self, checkpoint: &Checkpoint, hard_state: HardState) -> Self {
        let mut next = self.clone();
        next.checkpoints.insert(checkpoint.index, checkpoint.term);
        next.entries.clear();
        (next.base, next.newest, next.floor) = (checkpoint.position(), checkpoint.index, checkpoint.index);
        (next.hard_state, next.durable, next.written) = (hard_state, hard_state, None);
        next
    }

    /// What it is once the log was opened with the checkpoint at `index`.
    pub(super) fn after_start(&self, index: u64) -> Self {
        let hard_state = HardState { commit: self.durable.commit.max(index), ..self.durable };
        Self { hard_state, newest: index, written: None, ..self.clone() }
    }

    /// Why that is not what the log must hold. `damaged` is a file in which a bit was flipped.
    pub(super) fn contradicts<D: Disk>(
        &self,
        store: &Store<D>,
        recovered: &Recovered,
        damaged: Option<&str>,
    ) -> Result<(), String> {
        let index = recovered.checkpoint.index;
        let is_set_aside = damaged.is_some_and(|file| recovered.set_aside.iter().any(|damage| damage.file == file));
        let newest = self.newest.max(self.written.unwrap_or(0));
        let expected = if is_set_aside && index < newest { index } else { newest };
        let HardState { term, vote, commit } = self.durable;
        let hard_state = HardState { term, vote, commit: commit.max(expected) };
        same("newest checkpoint", &index, &expected)?;
        same("checkpoint", &recovered.checkpoint, &self.checkpoint(index))?;
        same("hard state", &recovered.hard_state, &hard_state)?;
        same("last entry", &store.last(), &self.last())?;
        same("checkpoints set aside", &recovered.set_aside.len(), &usize::from(is_set_aside))?;
        let before = recovered.before;
        if before.index > self.floor || before.index > index {
            return Err(format!("entries up to {} are gone, those behind {} must stay", before.index, self.floor));
        }
        if before.index >= self.base.index {
            same("term before the first entry", &Some(before.term), &self.term(before.index))?;
        }
        let of_model: Vec<_> = self.entries.range(before.index + 1..).map(|(_, entry)| entry).collect();
        if recovered.entries.iter().ne(of_model.iter().copied()) {
            let differ = recovered.entries.iter().zip(&of_model).find(|(found, expected)| found != *expected);
            let (found, expected) = (recovered.entries.len(), of_model.len());
            return Err(format!("{found} entries, not {expected}; the first other one: {differ:?}"));
        }
        Ok(())
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?}, not {expected:?}")) }
}
