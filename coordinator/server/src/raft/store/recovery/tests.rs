use super::*;
use crate::raft::store::{CreateError, disk::faulty::FaultyDisk, sample::*, sector::SECTOR};

#[test]
fn nothing_half_made_and_foreign_are_told_apart() {
    let disk = FaultyDisk::new(1);
    disk.put("ca-opener.key", b"not ours");
    assert!(matches!(refused(&disk), OpenError::Empty));
    drop(created(&disk));
    let again = Store::create(disk.clone(), identity(), settings(), &first()).unwrap_err();
    assert!(matches!(again, CreateError::Exists(_)), "{again}");

    for name in disk.content().keys().filter(|name| segment::id(name).is_some()) {
        disk.erase(name);
    }
    let error = refused(&disk);
    assert!(matches!(error, OpenError::HalfMade));
    assert!(error.failure("/data/log").try_next.contains("after an interrupted init"));
    disk.erase("identity");
    assert!(matches!(refused(&disk), OpenError::Missing { file, .. } if file == "identity"));
}

#[test]
fn an_interrupted_creation_can_be_told() {
    let mut half_made = 0;
    for step in 0..60 {
        let disk = FaultyDisk::new(step);
        disk.die_after(Some(usize::try_from(step).unwrap()));
        let outcome = Store::create(disk.clone(), identity(), settings(), &first());
        assert_eq!(outcome.is_err(), disk.is_dead());
        disk.power_loss();
        match Store::open(disk.clone(), settings()) {
            Ok((_, recovered)) => assert_eq!(recovered.checkpoint, first()),
            Err(OpenError::Empty) => drop(created(&disk)),
            Err(OpenError::HalfMade) => half_made += 1,
            Err(other) => panic!("step {step}: {other}"),
        }
    }
    assert!(half_made > 5, "{half_made}");
}

#[test]
fn files_of_somebody_else_are_refused() {
    let disk = FaultyDisk::new(1);
    append(&mut created(&disk), 2..=30);
    for other in [
        Identity { cluster: "c2".parse().unwrap(), ..identity() },
        Identity { generation: 2, ..identity() },
        Identity { replica: 8, ..identity() },
    ] {
        let foreign = FaultyDisk::new(1);
        drop(Store::create(foreign.clone(), other.clone(), settings(), &first()).unwrap());
        disk.put(&segment::file(1), &foreign.content()[&segment::file(1)]);
        let error = refused(&disk);
        assert!(matches!(&error, OpenError::Foreign { found, .. } if *found == other), "{error}");
    }
}

#[test]
fn a_newer_version_is_refused_as_such() {
    let disk = FaultyDisk::new(1);
    drop(created(&disk));
    for name in [identity::FILE.to_owned(), segment::file(1), checkpoint::file(1)] {
        let bytes = disk.content()[&name].clone();
        let mut newer = bytes.clone();
        newer[8] = 2;
        let crc = crc32c::crc32c(&newer[..508]).to_le_bytes();
        newer[508..512].copy_from_slice(&crc);
        disk.put(&name, &newer);
        let error = refused(&disk);
        assert!(matches!(&error, OpenError::Newer { file, version: 2, .. } if *file == name), "{error}");
        disk.put(&name, &bytes);
    }
    opened(&disk);
}

#[test]
fn a_flipped_bit_is_refused_with_its_place_and_what_to_do() {
    let disk = FaultyDisk::new(1);
    append(&mut created(&disk), 2..=9);
    let name = segment::file(2);
    let mut bytes = disk.content()[&name].clone();
    bytes[1030] ^= 1;
    disk.put(&name, &bytes);
    let before = disk.content();
    let failure = refused(&disk).failure("/data/log");
    assert_eq!(failure.what, "the log in /data/log cannot be opened");
    assert_eq!(failure.why, "segment-0000000000000002 is damaged at byte 1024: a sector fails its checksum");
    assert!(failure.try_next.contains("`mainstay cluster remove`") && failure.try_next.contains("--from BACKUP"));
    assert_eq!(disk.content(), before);
}

#[test]
fn a_torn_record_is_cut_and_the_log_goes_on_there() {
    let disk = FaultyDisk::new(1);
    append(&mut created(&disk), 2..=3);
    let name = segment::file(1);
    let mut bytes = disk.content()[&name].clone();
    bytes[4 * SECTOR..5 * SECTOR].fill(0);
    disk.put(&name, &bytes);
    let (mut store, recovered) = opened(&disk);
    assert_eq!(indexes(&recovered), [2]);
    assert_eq!(recovered.cut, Some(Cut { file: name, offset: 3 * SECTOR, bytes: 2 * SECTOR }));
    append(&mut store, 3..=9);
    drop(store);
    let (_, recovered) = opened(&disk);
    assert_eq!((indexes(&recovered), recovered.cut), ((2..=9).collect(), None));
}

#[test]
fn a_missing_segment_is_named() {
    let disk = FaultyDisk::new(1);
    append(&mut created(&disk), 2..=12);
    let whole = disk.content();
    for id in [1, 2] {
        disk.erase(&segment::file(id));
        let error = refused(&disk);
        assert!(matches!(&error, OpenError::Missing { file, .. } if *file == segment::file(id)), "{error}");
        disk.put(&segment::file(id), &whole[&segment::file(id)]);
    }
    let mut emptied = whole.clone();
    emptied.insert(segment::file(2), vec![0; 4096]);
    disk.put(&segment::file(2), &emptied[&segment::file(2)]);
    assert!(matches!(refused(&disk), OpenError::Damaged(damage) if damage.file == segment::file(2)));
    disk.put(&segment::file(2), &[]);
    assert!(matches!(refused(&disk), OpenError::Damaged(damage) if damage.file == segment::file(2)));
}

#[test]
fn a_log_that_ends_before_its_checkpoint_is_refused() {
    let disk = FaultyDisk::new(1);
    let mut store = created(&disk);
    append(&mut store, 2..=12);
    store.save_checkpoint(&checkpoint(11, 1)).unwrap();
    drop(store);
    for name in disk.content().keys().filter(|name| segment::id(name).is_some_and(|id| id > 3)) {
        disk.erase(name);
    }
    let error = refused(&disk);
    assert!(matches!(&error, OpenError::Missing { file, .. } if *file == segment::file(4)), "{error}");
}

#[test]
fn a_damaged_checkpoint_falls_back_to_the_one_before() {
    let disk = FaultyDisk::new(1);
    let mut store = created(&disk);
    append(&mut store, 2..=41);
    store.save_checkpoint(&checkpoint(20, 1)).unwrap();
    store.save_checkpoint(&checkpoint(40, 1)).unwrap();
    drop(store);
    damage(&disk, &checkpoint::file(40));
    let (store, recovered) = opened(&disk);
    assert_eq!(recovered.checkpoint, checkpoint(20, 1));
    assert_eq!(recovered.set_aside[0].file, checkpoint::file(40));
    assert!(recovered.before.index <= 20 && recovered.entries.last() == Some(&entry(41, 1)));
    drop(store);
    let (mut store, recovered) = opened(&disk);
    assert_eq!((recovered.checkpoint.index, recovered.set_aside), (20, vec![]));
    assert!(disk.content().contains_key("checkpoint-00000000000000000040.damaged"));
    store.save_checkpoint(&checkpoint(40, 1)).unwrap();
    assert!(!disk.content().keys().any(|name| name.ends_with(SET_ASIDE)), "it was kept until there was a better one");
    drop(store);
    assert_eq!(opened(&disk).1.checkpoint, checkpoint(40, 1));
}

#[test]
fn without_any_whole_checkpoint_the_log_is_refused() {
    let disk = FaultyDisk::new(1);
    let mut store = created(&disk);
    append(&mut store, 2..=5);
    store.install(&checkpoint(90, 3), hard_state(3, 0, 90)).unwrap();
    drop(store);
    let installed = checkpoint::file(90);
    let whole = disk.content()[&installed].clone();
    damage(&disk, &installed);
    assert!(matches!(refused(&disk), OpenError::Damaged(damage) if damage.file == installed));
    let older = FaultyDisk::new(1);
    drop(created(&older));
    disk.put(&checkpoint::file(1), &older.content()[&checkpoint::file(1)]);
    let why = refused(&disk).to_string();
    assert!(why.starts_with(&format!("{installed} is damaged")) && why.ends_with("than the log has"), "{why}");
    disk.put(&installed, &whole);
    assert_eq!(opened(&disk).1.checkpoint, checkpoint(90, 3));
}

#[test]
fn an_installation_counts_from_its_record_on() {
    let (mut before, mut after) = (0, 0);
    for seed in 0..200 {
        let disk = FaultyDisk::new(seed);
        let mut store = created(&disk);
        append(&mut store, 2..=9);
        disk.die_after(Some(usize::try_from(seed).unwrap() % 16));
        let installed = store.install(&checkpoint(90, 3), hard_state(3, 0, 90)).is_ok();
        drop(store);
        disk.power_loss();
        let (_, recovered) = opened(&disk);
        if recovered.checkpoint.index == 90 {
            assert_eq!((recovered.entries, recovered.hard_state), (vec![], hard_state(3, 0, 90)));
            after += 1;
        } else {
            assert_eq!((indexes(&recovered), recovered.hard_state), ((2..=9).collect(), hard_state(1, 0, 8)));
            assert!(!installed);
            before += 1;
        }
        assert!(!disk.content().keys().any(|name| name.starts_with("received-")));
    }
    assert!(before > 20 && after > 20, "{before} {after}");
}

#[test]
fn what_was_seen_after_a_failed_sync_is_made_durable() {
    for seed in 0..100 {
        let disk = FaultyDisk::new(seed);
        let mut store = created(&disk);
        append(&mut store, 2..=2);
        disk.fail_sync_after(Some(0));
        append_next(&mut store).unwrap_err();
        drop(store);
        // The process starts again, the machine does not: the record is in the page cache only.
        assert_eq!(indexes(&opened(&disk).1), [2, 3]);
        disk.power_loss();
        assert_eq!(indexes(&opened(&disk).1), [2, 3], "seed {seed}");
    }
}

#[test]
fn the_first_segment_that_is_left_may_replace_entries_of_those_before() {
    let disk = FaultyDisk::new(1);
    let mut store = created(&disk);
    (2..=4).for_each(|index| write(&mut store, &[entry(index, 1)], None).unwrap());
    write(&mut store, &[entry(3, 2), entry(4, 2)], Some(hard_state(2, 0, 2))).unwrap();
    (5..=12).for_each(|index| write(&mut store, &[entry(index, 2)], Some(hard_state(2, 0, index - 1))).unwrap());
    store.save_checkpoint(&checkpoint(5, 2)).unwrap();
    store.save_checkpoint(&checkpoint(11, 2)).unwrap();
    assert!(!disk.content().contains_key(&segment::file(1)));
    let before = store.before_first();
    drop(store);
    let (store, recovered) = opened(&disk);
    assert_eq!((before, store.before_first()), (Position { index: 4, term: 2 }, before));
    assert_eq!(indexes(&recovered), (5..=12).collect::<Vec<_>>());
}

#[test]
fn other_settings_open_the_same_log() {
    let disk = FaultyDisk::new(1);
    append(&mut created(&disk), 2..=9);
    let larger = Settings { segment_bytes: 16384, ballast_bytes: 0, ..settings() };
    let (mut store, recovered) = Store::open(disk.clone(), larger.clone()).unwrap();
    assert_eq!(indexes(&recovered), (2..=9).collect::<Vec<_>>());
    append(&mut store, 10..=40);
    drop(store);
    assert_eq!(indexes(&Store::open(disk.clone(), larger).unwrap().1), (2..=40).collect::<Vec<_>>());
    assert!(!disk.content().contains_key(BALLAST));
    assert_eq!(indexes(&opened(&disk).1), (2..=40).collect::<Vec<_>>());
}

#[test]
fn a_disk_that_cannot_be_read_is_no_damage() {
    let disk = FaultyDisk::new(1);
    append(&mut created(&disk), 2..=9);
    disk.fail_read_after(Some(3));
    assert!(matches!(refused(&disk), OpenError::Disk { .. }));
    assert_eq!(indexes(&opened(&disk).1), (2..=9).collect::<Vec<_>>());
}

fn refused(disk: &FaultyDisk) -> OpenError {
    Store::open(disk.clone(), settings()).err().unwrap()
}

fn damage(disk: &FaultyDisk, name: &str) {
    let mut bytes = disk.content()[name].clone();
    bytes[700] ^= 1;
    disk.put(name, &bytes);
}
