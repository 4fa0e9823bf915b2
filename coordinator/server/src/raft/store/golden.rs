//! Data directories as version 1 writes them, kept beside the source: every later version has to open them.

use std::{collections::BTreeMap, fs, path::PathBuf};

use super::{
    Batch, Checkpoint, ConfState, Entry, EntryKind, HardState, Priority, Section, Store,
    disk::faulty::FaultyDisk,
    sample::{hard_state, identity, settings},
};

#[test]
fn a_log_of_version_1_opens_and_holds_what_was_written() {
    let disk = golden("replica", &written());
    let (store, recovered) = Store::open(disk, settings()).unwrap();
    assert_eq!(store.identity(), &identity());
    assert_eq!(recovered.checkpoint, checkpoint(8, 3));
    assert_eq!(recovered.hard_state, hard_state(3, 7, 11));
    assert!((1..=5).contains(&recovered.before.index), "{:?}", recovered.before);
    let expected: Vec<_> = entries().into_iter().filter(|entry| entry.index > recovered.before.index).collect();
    assert_eq!(recovered.entries, expected);
    assert_eq!((recovered.cut, recovered.set_aside), (None, vec![]));
}

#[test]
fn a_log_of_version_1_that_began_anew_with_a_checkpoint_opens() {
    let disk = golden("installed", &installed());
    let (store, recovered) = Store::open(disk, settings()).unwrap();
    assert_eq!(store.identity(), &identity());
    assert_eq!(recovered.checkpoint, checkpoint(90, 6));
    assert_eq!(recovered.hard_state, hard_state(7, 2, 91));
    assert_eq!(recovered.entries, [entry(91, 7), entry(92, 7)]);
}

/// Two checkpoints, entries of three terms over several segments, some of them replaced, a change of members.
fn written() -> FaultyDisk {
    let disk = FaultyDisk::new(1);
    let first = Checkpoint::bootstrap(7, checkpoint(1, 1).sections);
    let mut store = Store::create(disk.clone(), identity(), settings(), &first).unwrap();
    write(&mut store, &[entry(2, 2)], Some(hard_state(2, 7, 2)));
    write(&mut store, &[entry(3, 2), entry(4, 2), entry(5, 2)], Some(hard_state(2, 7, 4)));
    write(&mut store, &entries()[3..6], Some(hard_state(3, 7, 6)));
    store.save_checkpoint(&checkpoint(5, 3)).unwrap();
    for entry in &entries()[6..] {
        write(&mut store, std::slice::from_ref(entry), None);
        store.note_commit(entry.index - 1).unwrap();
    }
    store.save_checkpoint(&checkpoint(8, 3)).unwrap();
    write(&mut store, &[], Some(hard_state(3, 7, 11)));
    disk
}

fn installed() -> FaultyDisk {
    let disk = FaultyDisk::new(1);
    let mut store = Store::create(disk.clone(), identity(), settings(), &Checkpoint::default()).unwrap();
    store.install(&checkpoint(90, 6), hard_state(7, 2, 90)).unwrap();
    write(&mut store, &[entry(91, 7), entry(92, 7)], Some(hard_state(7, 2, 91)));
    disk
}

/// As they are in the end: 5 was replaced, 6 changes members, 7 only begins a term.
fn entries() -> Vec<Entry> {
    let mut entries: Vec<_> = (2..=12).map(|index| entry(index, if index < 5 { 2 } else { 3 })).collect();
    entries[4].kind = EntryKind::Configuration;
    entries[5].data.clear();
    entries
}

fn entry(index: u64, term: u64) -> Entry {
    let length = usize::try_from(index * 97 % 700).unwrap() + 1;
    Entry { index, term, kind: EntryKind::Normal, data: vec![u8::try_from(index * 10 + term).unwrap_or(0xff); length] }
}

fn checkpoint(index: u64, term: u64) -> Checkpoint {
    let conf_state = ConfState { voters: vec![7, 9], learners: vec![10], auto_leave: true, ..ConfState::default() };
    let section = |name: &str, byte, length| Section { name: name.to_owned(), bytes: vec![byte; length] };
    let sections = vec![section("node", 1, 700), section("alert", 2, 0), section("user", 3, 5)];
    Checkpoint { index, term, conf_state, sections }
}

fn write(store: &mut Store<FaultyDisk>, entries: &[Entry], hard_state: Option<HardState>) {
    store.write(&Batch { entries, hard_state, priority: Priority::Ordinary }).unwrap();
}

/// The directory as it was recorded, on a disk where it may be changed. While version 1 is what this program writes,
/// it still writes the same bytes.
fn golden(name: &str, written: &FaultyDisk) -> FaultyDisk {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/store-v1").join(name);
    if !folder.exists() {
        fs::create_dir_all(&folder).unwrap();
        for (file, bytes) in written.content() {
            fs::write(folder.join(file), bytes).unwrap();
        }
        panic!("recorded {}: look at it, and keep it with the source", folder.display());
    }
    let disk = FaultyDisk::new(1);
    for file in fs::read_dir(&folder).unwrap() {
        let file = file.unwrap();
        disk.put(file.file_name().to_str().unwrap(), &fs::read(file.path()).unwrap());
    }
    let (recorded, now): (BTreeMap<_, _>, BTreeMap<_, _>) = (disk.content(), written.content());
    assert_eq!(recorded.keys().collect::<Vec<_>>(), now.keys().collect::<Vec<_>>());
    for (file, bytes) in &recorded {
        let differs = bytes.iter().zip(&now[file]).position(|(recorded, now)| recorded != now);
        assert_eq!((differs, bytes.len()), (None, now[file].len()), "{file}");
    }
    disk
}
