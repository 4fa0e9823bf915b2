//! What the store's tests write.

use std::time::Duration;

use super::{
    Batch, Checkpoint, Entry, EntryKind, HardState, Identity, Preparing, Priority, Recovered, Section, Settings, Store,
    WriteError, disk::faulty::FaultyDisk,
};

pub(in crate::raft) fn identity() -> Identity {
    Identity { cluster: "c1".parse().unwrap(), generation: 1, replica: 7 }
}

/// Segments of eight sectors, and a ballast of two segments.
pub(in crate::raft) fn settings() -> Settings {
    Settings {
        segment_bytes: 4096,
        ballast_bytes: 8192,
        entries_behind: 3,
        retry_interval: Duration::from_millis(5),
        preparing: Preparing::WhenNeeded,
    }
}

pub(in crate::raft) fn first() -> Checkpoint {
    Checkpoint::bootstrap(7, vec![Section { name: "node".into(), bytes: b"none".to_vec() }])
}

pub(super) fn checkpoint(index: u64, term: u64) -> Checkpoint {
    let section = Section { name: "node".into(), bytes: vec![u8::try_from(index % 251).unwrap(); 700] };
    Checkpoint { index, term, sections: vec![section], ..first() }
}

/// An entry that takes two sectors.
pub(in crate::raft) fn entry(index: u64, term: u64) -> Entry {
    Entry { index, term, kind: EntryKind::Normal, data: vec![u8::try_from(index % 251).unwrap(); 600] }
}

pub(super) fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term, vote, commit }
}

pub(super) fn created(disk: &FaultyDisk) -> Store<FaultyDisk> {
    Store::create(disk.clone(), identity(), settings(), &first()).unwrap()
}

pub(super) fn opened(disk: &FaultyDisk) -> (Store<FaultyDisk>, Recovered) {
    Store::open(disk.clone(), settings()).unwrap()
}

/// Appends entries of term 1, one a record, and commits each with the next.
pub(super) fn append(store: &mut Store<FaultyDisk>, indexes: impl IntoIterator<Item = u64>) {
    for index in indexes {
        write(store, &[entry(index, 1)], Some(hard_state(1, 0, index - 1))).unwrap();
    }
}

pub(super) fn append_next(store: &mut Store<FaultyDisk>) -> Result<(), WriteError> {
    let next = store.last().index + 1;
    write(store, &[entry(next, 1)], None)
}

pub(super) fn write(
    store: &mut Store<FaultyDisk>,
    entries: &[Entry],
    hard_state: Option<HardState>,
) -> Result<(), WriteError> {
    store.write(&Batch { entries, hard_state, priority: Priority::Ordinary })
}

pub(super) fn indexes(recovered: &Recovered) -> Vec<u64> {
    recovered.entries.iter().map(|entry| entry.index).collect()
}
