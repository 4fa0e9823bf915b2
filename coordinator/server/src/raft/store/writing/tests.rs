use super::*;
use crate::raft::store::{disk::faulty::FaultyDisk, sample::*};

#[test]
fn what_was_written_is_there_again() {
    let disk = FaultyDisk::new(1);
    let mut store = created(&disk);
    append(&mut store, 2..=20);
    write(&mut store, &[], Some(hard_state(3, 9, 20))).unwrap();
    let (store, recovered) = {
        drop(store);
        opened(&disk)
    };
    assert_eq!(store.identity(), &identity());
    assert_eq!((store.before_first(), store.last()), (first().position(), Position { index: 20, term: 1 }));
    assert_eq!(recovered.checkpoint, first());
    assert_eq!(recovered.entries, (2..=20).map(|index| entry(index, 1)).collect::<Vec<_>>());
    assert_eq!(recovered.hard_state, hard_state(3, 9, 20));
    assert_eq!((recovered.cut, recovered.set_aside), (None, vec![]));
}

#[test]
fn entries_replace_those_that_were_not_committed() {
    let disk = FaultyDisk::new(1);
    let mut store = created(&disk);
    append(&mut store, 2..=10);
    write(&mut store, &[entry(10, 2), entry(11, 2)], Some(hard_state(2, 0, 9))).unwrap();
    let refused = write(&mut store, &[entry(9, 3)], None).unwrap_err();
    assert_eq!(refused, Contradiction::Committed { index: 9, commit: 9 }.into());
    drop(store);
    let terms: Vec<_> = opened(&disk).1.entries.iter().map(|entry| (entry.index, entry.term)).collect();
    assert_eq!(terms[7..], [(9, 1), (10, 2), (11, 2)]);
}

#[test]
fn a_noted_commit_goes_with_the_next_record() {
    let disk = FaultyDisk::new(1);
    let mut store = created(&disk);
    append(&mut store, 2..=5);
    let before = disk.content();
    store.note_commit(5).unwrap();
    write(&mut store, &[], None).unwrap();
    assert_eq!(disk.content(), before, "nothing is written for it");
    assert!(store.note_commit(6).is_err());
    let refused = write(&mut store, &[entry(5, 2)], None).unwrap_err();
    assert_eq!(refused, Contradiction::Committed { index: 5, commit: 5 }.into());
    write(&mut store, &[entry(6, 1)], None).unwrap();
    drop(store);
    assert_eq!(opened(&disk).1.hard_state, hard_state(1, 0, 5));
}

#[test]
fn a_batch_that_no_segment_takes_is_refused_whole() {
    let disk = FaultyDisk::new(1);
    let mut store = created(&disk);
    let before = disk.content();
    let mut large = entry(2, 1);
    large.data = vec![0; store.batch_limit_bytes() - 13];
    let mut too_large = large.clone();
    too_large.data.push(0);
    let state = Some(hard_state(2, 0, 1));
    assert!(matches!(write(&mut store, &[too_large], state), Err(WriteError::TooLarge { bytes: 3550, limit: 3549 })));
    assert_eq!(disk.content(), before);
    write(&mut store, std::slice::from_ref(&large), state).unwrap();
    drop(store);
    assert_eq!(opened(&disk).1.entries, [large]);
}

#[test]
fn after_an_error_of_the_disk_nothing_is_taken_any_more() {
    for fault in [FaultyDisk::fail_sync_after, FaultyDisk::fail_write_after] {
        let disk = FaultyDisk::new(1);
        let mut store = created(&disk);
        append(&mut store, 2..=2);
        fault(&disk, Some(0));
        let broken = append_next(&mut store).unwrap_err();
        assert!(matches!(&broken, WriteError::Broken(why) if why.starts_with("segment-0000000000000001: ")));
        let before = disk.content();
        assert_eq!(append_next(&mut store).unwrap_err(), broken);
        assert_eq!(store.note_commit(1).unwrap_err(), broken);
        assert_eq!(store.save_checkpoint(&checkpoint(1, 1)).unwrap_err(), broken);
        assert_eq!(store.install(&checkpoint(9, 1), hard_state(1, 0, 9)).unwrap_err(), broken);
        assert_eq!(disk.content(), before, "nothing is tried again");
    }
}

#[test]
fn two_checkpoints_stay_and_the_entries_since_the_older_one() {
    let disk = FaultyDisk::new(1);
    let mut store = created(&disk);
    append(&mut store, 2..=41);
    store.save_checkpoint(&checkpoint(20, 1)).unwrap();
    assert_eq!(store.before_first().index, 1, "the first checkpoint may be needed still");
    store.save_checkpoint(&checkpoint(40, 1)).unwrap();
    let kept = store.before_first().index;
    assert!((16..=20).contains(&kept), "back to {kept}");
    let checkpoints: Vec<_> = disk.content().into_keys().filter_map(|name| checkpoint::index(&name)).collect();
    assert_eq!(checkpoints, [20, 40]);
    drop(store);
    let (_, recovered) = opened(&disk);
    assert_eq!(recovered.checkpoint, checkpoint(40, 1));
    assert_eq!(recovered.before, Position { index: kept, term: 1 });
    assert_eq!(indexes(&recovered), (kept + 1..=41).collect::<Vec<_>>());
}

#[test]
fn so_many_entries_stay_behind_a_checkpoint() {
    let disk = FaultyDisk::new(1);
    let mut settings = settings();
    settings.entries_behind = 15;
    let mut store = Store::create(disk, identity(), settings, &first()).unwrap();
    append(&mut store, 2..=41);
    for index in [38, 39, 40] {
        store.save_checkpoint(&checkpoint(index, 1)).unwrap();
    }
    let kept = store.before_first().index;
    assert!((20..=25).contains(&kept), "back to {kept}");
}

#[test]
fn a_checkpoint_is_of_what_is_committed_and_newer_than_the_last() {
    let disk = FaultyDisk::new(1);
    let mut store = created(&disk);
    append(&mut store, 2..=10);
    let before = disk.content();
    for index in [0, 1, 10] {
        let refused = store.save_checkpoint(&checkpoint(index, 1)).unwrap_err();
        assert_eq!(refused, Contradiction::Checkpoint { index, newest: 1, commit: 9 }.into());
    }
    let late = store.checkpoint_writer().write(&checkpoint(10, 1)).unwrap();
    assert!(store.adopt(late).is_err());
    assert_eq!(disk.content(), before, "it would count at the next start");
    store.note_commit(10).unwrap();
    store.save_checkpoint(&checkpoint(10, 1)).unwrap();
    drop(store);
    assert_eq!(opened(&disk).1.hard_state.commit, 10, "what is in a checkpoint is committed");
}

#[test]
fn an_installed_checkpoint_takes_the_place_of_the_log() {
    let disk = FaultyDisk::new(1);
    let mut store = created(&disk);
    append(&mut store, 2..=30);
    assert!(store.install(&checkpoint(20, 1), hard_state(4, 0, 20)).is_err(), "the log is ahead of it");
    store.install(&checkpoint(90, 3), hard_state(4, 2, 90)).unwrap();
    assert_eq!((store.before_first(), store.last()), (checkpoint(90, 3).position(), checkpoint(90, 3).position()));
    let names: Vec<_> = disk.content().into_keys().collect();
    assert_eq!(names.iter().filter(|name| name.starts_with("checkpoint-")).count(), 1, "{names:?}");
    write(&mut store, &[entry(91, 4)], None).unwrap();
    drop(store);
    let (_, recovered) = opened(&disk);
    assert_eq!(recovered.checkpoint, checkpoint(90, 3));
    assert_eq!((recovered.hard_state, recovered.entries), (hard_state(4, 2, 90), vec![entry(91, 4)]));
}

#[test]
fn a_replica_that_joins_begins_with_nothing() {
    let disk = FaultyDisk::new(1);
    let store = Store::create(disk.clone(), identity(), settings(), &Checkpoint::default()).unwrap();
    drop(store);
    let (mut store, recovered) = opened(&disk);
    assert_eq!((recovered.checkpoint, recovered.hard_state), (Checkpoint::default(), HardState::default()));
    store.install(&checkpoint(9, 2), hard_state(2, 0, 9)).unwrap();
    drop(store);
    assert_eq!(opened(&disk).1.checkpoint, checkpoint(9, 2));
}
