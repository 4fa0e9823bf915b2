//! Our words and the crate's.

use raft::eraftpb::{self, EntryType};

use super::Position;
use crate::raft::store::{ConfState, Entry, EntryKind, HardState};

pub(super) fn entry_out(entry: Entry) -> eraftpb::Entry {
    let entry_type = match entry.kind {
        EntryKind::Normal => EntryType::EntryNormal,
        EntryKind::Configuration => EntryType::EntryConfChangeV2,
    };
    eraftpb::Entry {
        entry_type,
        index: entry.index,
        term: entry.term,
        data: entry.data.into(),
        ..eraftpb::Entry::default()
    }
}

pub(super) fn entry_in(entry: &eraftpb::Entry) -> Entry {
    let kind = match entry.entry_type {
        EntryType::EntryNormal => EntryKind::Normal,
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => EntryKind::Configuration,
    };
    Entry { index: entry.index, term: entry.term, kind, data: entry.data.to_vec() }
}

pub(super) fn hard_state_out(hard_state: HardState) -> eraftpb::HardState {
    let HardState { term, vote, commit } = hard_state;
    eraftpb::HardState { term, vote, commit, ..eraftpb::HardState::default() }
}

pub(super) fn hard_state_in(hard_state: &eraftpb::HardState) -> HardState {
    HardState { term: hard_state.term, vote: hard_state.vote, commit: hard_state.commit }
}

pub(super) fn conf_state_out(conf_state: &ConfState) -> eraftpb::ConfState {
    let ConfState { voters, learners, voters_outgoing, learners_next, auto_leave } = conf_state.clone();
    let mut out = eraftpb::ConfState::default();
    out.set_voters(voters);
    out.set_learners(learners);
    out.set_voters_outgoing(voters_outgoing);
    out.set_learners_next(learners_next);
    out.set_auto_leave(auto_leave);
    out
}

/// Sorted, so that the same members are the same bytes in every checkpoint.
pub(super) fn conf_state_in(conf_state: &eraftpb::ConfState) -> ConfState {
    let sorted = |ids: &[u64]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    ConfState {
        voters: sorted(conf_state.get_voters()),
        learners: sorted(conf_state.get_learners()),
        voters_outgoing: sorted(conf_state.get_voters_outgoing()),
        learners_next: sorted(conf_state.get_learners_next()),
        auto_leave: conf_state.get_auto_leave(),
    }
}

pub(super) fn snapshot_place(snapshot: &eraftpb::Snapshot) -> Position {
    Position { index: snapshot.get_metadata().index, term: snapshot.get_metadata().term }
}
