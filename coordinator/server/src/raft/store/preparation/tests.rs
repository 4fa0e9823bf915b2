use std::time::{Duration, Instant};

use super::*;
use crate::raft::store::{
    Batch, Store,
    disk::{Folder, faulty::FaultyDisk},
    sample::*,
};

#[test]
fn a_full_disk_refuses_before_anything_is_written_and_goes_on_when_there_is_room() {
    let disk = FaultyDisk::new(1);
    let mut store = created(&disk);
    append(&mut store, 2..=3);
    disk.set_room(Some(disk.used_bytes()));
    let mut last = 3;
    let refused = loop {
        let before = disk.content();
        match write(&mut store, &[entry(last + 1, 1)], None) {
            Ok(()) => last += 1,
            Err(error) => {
                assert_eq!(disk.content(), before);
                break error;
            }
        }
    };
    assert_eq!(refused, WriteError::NoRoom);
    assert!(last < 12, "the reserve is not for ordinary batches");
    drop(store);
    let (mut store, recovered) = opened(&disk);
    assert_eq!(recovered.entries.last().unwrap().index, last);
    disk.set_room(None);
    append(&mut store, last + 1..=last + 40);
}

#[test]
fn the_reserve_is_for_what_is_essential() {
    let disk = FaultyDisk::new(1);
    let mut store = created(&disk);
    append(&mut store, 2..=3);
    disk.set_room(Some(disk.used_bytes()));
    while append_next(&mut store).is_ok() {}
    let full_at = store.last().index;
    let refused = loop {
        if let Err(error) = vote(&mut store, full_at) {
            break error;
        }
        assert_eq!(write(&mut store, &[entry(full_at + 1, 1)], None), Err(WriteError::NoRoom));
    };
    assert_eq!(refused, WriteError::NoRoom);
    let votes = store.tail.hard_state.term - 1;
    // Seven records in the spare and in each of two segments out of the ballast, and what was left of the active one.
    assert!((21..=28).contains(&votes), "{votes} votes");
    assert!(!disk.content().contains_key(BALLAST));
    disk.set_room(None);
    write(&mut store, &[entry(full_at + 1, 1)], None).unwrap();
    assert_eq!(disk.content()[BALLAST], vec![0; 8192], "it is whole again before anything ordinary");
}

#[test]
fn a_checkpoint_gets_the_ballast_and_gives_room_back() {
    let disk = FaultyDisk::new(1);
    let mut store = created(&disk);
    append(&mut store, 2..=60);
    disk.set_room(Some(disk.used_bytes()));
    let ballast = disk.content()[BALLAST].len();
    store.save_checkpoint(&checkpoint(30, 1)).unwrap();
    store.save_checkpoint(&checkpoint(50, 1)).unwrap();
    store.note_commit(60).unwrap();
    write(&mut store, &[entry(61, 1)], None).unwrap();
    assert_eq!(disk.content()[BALLAST].len(), ballast, "what it made superfluous was enough");

    let mut huge = checkpoint(60, 1);
    huge.sections[0].bytes = vec![0; 1 << 20];
    assert_eq!(store.save_checkpoint(&huge), Err(WriteError::NoRoom));
    assert!(!disk.content().keys().any(|name| name.ends_with(".tmp")));
    disk.set_room(None);
    store.save_checkpoint(&huge).unwrap();
}

#[test]
fn a_large_batch_is_never_essential() {
    let disk = FaultyDisk::new(1);
    let settings = Settings { segment_bytes: 256 << 10, ballast_bytes: 0, ..settings() };
    let mut store = Store::create(disk.clone(), identity(), settings, &first()).unwrap();
    disk.set_room(Some(disk.used_bytes()));
    let mut large = entry(2, 1);
    large.data = vec![1; 70 << 10];
    let refused = loop {
        let batch = Batch { entries: std::slice::from_ref(&large), hard_state: None, priority: Priority::Essential };
        if let Err(error) = store.write(&batch) {
            break error;
        }
        large.index += 1;
    };
    assert_eq!(refused, WriteError::NoRoom);
    let last = store.last().index;
    vote(&mut store, last).unwrap();
}

#[test]
fn a_disk_that_fails_while_segments_are_made_ends_the_store() {
    let disk = FaultyDisk::new(1);
    let mut store = created(&disk);
    write(&mut store, &[entry(2, 1)], None).unwrap();
    let name = segment::file(store.preparation.reserve().stock().next_id);
    disk.put(&format!("{name}.tmp"), b"in the way");
    let broken = loop {
        if let Err(error) = append_next(&mut store) {
            break error;
        }
    };
    assert!(matches!(broken, WriteError::Broken(_)), "{broken}");
}

#[test]
fn the_thread_keeps_segments_ready() {
    let parent = tempfile::tempdir().unwrap();
    let folder = Folder::at(parent.path().join("log")).unwrap();
    let settings = Settings { preparing: Preparing::InBackground, ..settings() };
    let mut store = Store::create(folder.clone(), identity(), settings.clone(), &first()).unwrap();
    for index in 2..=200 {
        store.write(&Batch { entries: &[entry(index, 1)], hard_state: None, priority: Priority::Ordinary }).unwrap();
    }
    drop(store);
    let (store, recovered) = Store::open(folder.clone(), settings).unwrap();
    assert_eq!(indexes(&recovered), (2..=200).collect::<Vec<_>>());
    eventually("the reserve is whole", || store.preparation.reserve().stock().is_whole());
}

#[test]
fn the_thread_goes_on_by_itself_when_there_is_room() {
    let disk = FaultyDisk::new(1);
    let settings = Settings { preparing: Preparing::InBackground, ..settings() };
    let mut store = Store::create(disk.clone(), identity(), settings, &first()).unwrap();
    eventually("the reserve is whole", || store.preparation.reserve().stock().is_whole());
    disk.set_room(Some(disk.used_bytes()));
    while append_next(&mut store).is_ok() {}
    assert_eq!(append_next(&mut store), Err(WriteError::NoRoom));
    let at = store.last().index;
    while vote(&mut store, at).is_ok() {}
    assert_eq!(vote(&mut store, at), Err(WriteError::NoRoom));
    disk.set_room(None);
    eventually("ordinary batches are taken again", || write(&mut store, &[entry(at + 1, 1)], None).is_ok());
}

#[test]
fn the_thread_tells_of_a_disk_that_failed() {
    let disk = FaultyDisk::new(1);
    let settings = Settings { preparing: Preparing::InBackground, ..settings() };
    let mut store = Store::create(disk.clone(), identity(), settings, &first()).unwrap();
    eventually("the reserve is whole", || store.preparation.reserve().stock().is_whole());
    disk.put(&format!("{}.tmp", segment::file(4)), b"in the way");
    let broken = loop {
        if let Err(error) = append_next(&mut store) {
            break error;
        }
    };
    assert!(matches!(broken, WriteError::Broken(_)), "{broken}");
}

fn vote(store: &mut Store<FaultyDisk>, commit: u64) -> Result<(), WriteError> {
    let term = store.tail.hard_state.term + 1;
    let commit = commit.min(store.tail.hard_state.commit);
    store.write(&Batch { entries: &[], hard_state: Some(hard_state(term, 7, commit)), priority: Priority::Essential })
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < end, "not within 30 s: {what}");
        thread::yield_now();
    }
}
