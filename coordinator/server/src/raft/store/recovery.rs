//! Reading a log back: everything is checked before anything is changed.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use super::{
    Checkpoint, CreateError, Entry, HardState, Identity, OpenError, Position, Settings, Store, checkpoint,
    disk::{Disk, DiskFile as _, read_whole},
    error::Damage,
    health::Health,
    identity::{self, Kind},
    log::Tail,
    place::{UNFINISHED, fill, place},
    preparation::{BALLAST, Ballast, Preparation, Ready, Spare},
    record::Record,
    sector::SECTOR,
    segment::{self, Before, Scan},
    writing::{Active, Used},
};

/// What a checkpoint that was set aside is called.
const SET_ASIDE: &str = ".damaged";

/// What a log held when it was opened.
#[derive(Debug)]
pub struct Recovered {
    /// The hard state. Its commit index is at least the checkpoint's index.
    pub hard_state: HardState,
    /// The newest checkpoint that is whole.
    pub checkpoint: Checkpoint,
    /// The place just before the first entry.
    pub before: Position,
    /// Every entry that is kept. They reach back to the checkpoint at least, and mostly behind it.
    pub entries: Vec<Entry>,
    /// What was being written when the power went, if anything of it was left.
    pub cut: Option<Cut>,
    /// Newer checkpoints that are damaged. Until the next one is saved they are kept under names ending in `.damaged`.
    pub set_aside: Vec<Damage>,
}

/// The remains of a record that was never acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The segment's file name.
    pub file: String,
    /// Where it began, in bytes.
    pub offset: usize,
    /// How far it reached, in bytes.
    pub bytes: usize,
}

/// Makes a log in an empty folder.
pub(super) fn create<D: Disk>(
    disk: &D,
    identity: &Identity,
    settings: &Settings,
    first: &Checkpoint,
) -> Result<(), CreateError> {
    let (unfinished, whole): (Vec<_>, Vec<_>) = disk
        .list()?
        .into_iter()
        .map(|file| file.name)
        .filter(|name| is_ours(name))
        .partition(|name| name.ends_with(UNFINISHED));
    if let Some(name) = whole.into_iter().next() {
        return Err(CreateError::Exists(name));
    }
    unfinished.iter().try_for_each(|name| disk.remove(name))?;
    place(disk, identity::FILE, |file| file.write_at(0, &identity::head(Kind::Identity, identity, &[])))?;
    place(disk, &checkpoint::file(first.index), |file| first.write::<D>(identity, file))?;
    let hard_state = HardState { term: first.term, vote: 0, commit: first.index };
    let before = Before { crc: 0, last: first.position(), hard_state };
    let head = segment::head(identity, 1, settings.segment_bytes, &before);
    place(disk, &segment::file(1), |file| {
        fill::<D>(file, settings.segment_bytes).and_then(|()| file.write_at(0, &head))
    })?;
    Ok(())
}

fn is_ours(name: &str) -> bool {
    let name = name.strip_suffix(UNFINISHED).unwrap_or(name);
    [identity::FILE, BALLAST].contains(&name)
        || segment::id(name).or(checkpoint::index(name)).or(checkpoint::received_index(name)).is_some()
}

/// Opens a log.
pub(super) fn open<D: Disk>(disk: Arc<D>, settings: Settings) -> Result<(Store<D>, Recovered), OpenError> {
    let files = list(&*disk)?;
    let identity = read_identity(&*disk, &files)?;
    let log = Log::read(&*disk, &identity, &files)?;
    let chosen = Chosen::find(&*disk, &identity, &files, &log)?;

    // From here on it is known what the log holds; what follows changes nothing of that.
    let active = log.mend(&*disk)?;
    let litter = log.litter(&files, &chosen, &settings);
    chosen.settle(&*disk)?;
    for name in litter.iter().rev() {
        // One by one, the last segment first: no gap may be left whenever the power goes.
        disk.remove(name).and_then(|()| disk.sync_dir()).map_err(failed(name))?;
    }
    disk.sync_dir().map_err(failed("."))?;

    let health = Health::default();
    let preparation = log.reserve(&*disk, &files, &settings).and_then(|ready| {
        Preparation::start(Arc::clone(&disk), settings.clone(), health.clone(), ready).map_err(failed("."))
    })?;
    let Log { tail, crc, segments, entries, cut, .. } = log;
    let Chosen { checkpoint, kept, set_aside, .. } = chosen;
    let earlier = files.into_keys().filter(|name| name.ends_with(SET_ASIDE));
    let fresh = set_aside.iter().map(|damage| format!("{}{SET_ASIDE}", damage.file));
    let damaged_files: BTreeSet<String> = earlier.chain(fresh).collect();
    let hard_state = HardState { commit: tail.hard_state.commit.max(checkpoint.index), ..tail.hard_state };
    let store = Store {
        disk,
        identity,
        settings,
        health,
        preparation,
        tail: Tail { hard_state, ..tail },
        durable: tail.hard_state,
        crc,
        segments,
        active,
        checkpoints: kept,
        set_aside: damaged_files.into_iter().collect(),
        buffer: Vec::new(),
    };
    Ok((store, Recovered { hard_state, checkpoint, before: tail.base, entries, cut, set_aside }))
}

/// Lengths by name.
type Files = BTreeMap<String, u64>;

fn list<D: Disk>(disk: &D) -> Result<Files, OpenError> {
    let listed = disk.list().map_err(failed("."))?;
    Ok(listed.into_iter().map(|file| (file.name, file.bytes)).collect())
}

fn read_identity<D: Disk>(disk: &D, files: &Files) -> Result<Identity, OpenError> {
    if !files.contains_key(identity::FILE) {
        return match files.keys().find(|name| is_ours(name) && !name.ends_with(UNFINISHED)) {
            None => Err(OpenError::Empty),
            Some(other) => Err(missing(identity::FILE, format!("{other} is there"))),
        };
    }
    let bytes = read(disk, identity::FILE)?;
    let (identity, _) = identity::read_head(Kind::Identity, identity::FILE, &bytes)?;
    Ok(identity)
}

/// What the segments hold.
struct Log {
    tail: Tail,
    crc: u32,
    segments: VecDeque<Used>,
    entries: Vec<Entry>,
    /// The index of the checkpoint that the last reset names.
    reset: Option<u64>,
    /// The newest segment in use, whole, and what is in it.
    newest: (u64, Vec<u8>, Scan),
    /// Spare segments, in order.
    spares: Vec<u64>,
    /// Segments before a gap: removed, but not all of that was durable.
    leftover: Vec<u64>,
    cut: Option<Cut>,
}

impl Log {
    fn read<D: Disk>(disk: &D, identity: &Identity, files: &Files) -> Result<Self, OpenError> {
        let mut ids: Vec<u64> = files.keys().filter_map(|name| segment::id(name)).collect();
        ids.sort_unstable();
        // Superfluous segments are removed oldest first, but the disk may forget some of that: only what is joined to
        // the newest one counts.
        let gap = (1..ids.len()).rev().find(|at| ids[*at] != ids[at - 1] + 1).unwrap_or(0);
        let run = ids.split_off(gap);
        let leftover = ids;

        let (mut used, mut spares) = (Vec::new(), Vec::new());
        for id in run {
            let bytes = read(disk, &segment::file(id))?;
            match segment::read_head(identity, id, &bytes)? {
                None => spares.push(id),
                Some(_) if !spares.is_empty() => {
                    let file = segment::file(spares[0]);
                    return Err(Damage::new(&file, 0, "the segment is empty, but a later one is in use").into());
                }
                Some(before) => used.push((id, bytes, before)),
            }
        }
        let Some((first, newest)) = used.first().zip(used.last().map(|(id, ..)| *id)) else {
            return match leftover.last().zip(spares.first()) {
                Some((_, next)) => Err(missing(&segment::file(next - 1), "the ones around it are there".into())),
                None => Err(OpenError::HalfMade),
            };
        };
        let Before { crc, last, hard_state } = first.2;
        let mut log = Self {
            tail: Tail { base: last, last, hard_state },
            crc,
            segments: VecDeque::new(),
            entries: Vec::new(),
            reset: None,
            newest: (newest, Vec::new(), Scan::default()),
            spares,
            leftover,
            cut: None,
        };
        for (id, bytes, before) in used {
            log.add(id, bytes, before, id == newest)?;
        }
        Ok(log)
    }

    fn add(&mut self, id: u64, bytes: Vec<u8>, before: Before, newest: bool) -> Result<(), OpenError> {
        let file = segment::file(id);
        let joined = Before { crc: self.crc, last: self.tail.last, hard_state: self.tail.hard_state };
        if before != joined {
            let why = "the segment before it does not end where this one begins: records are gone";
            return Err(Damage::new(&file, 0, why).into());
        }
        self.segments.push_back(Used { id, before: before.last, highest: 0 });
        let mut scan = segment::scan(id, &bytes, newest)?;
        for (offset, record) in std::mem::take(&mut scan.records) {
            self.replay(record).map_err(|why| Damage::new(&file, offset, why))?;
        }
        self.crc = scan.crc.unwrap_or(self.crc);
        if newest {
            self.cut = scan.torn.clone().map(|torn| Cut { file, offset: torn.start, bytes: torn.len() });
            self.newest = (id, bytes, scan);
        }
        Ok(())
    }

    fn replay(&mut self, record: Record) -> Result<(), String> {
        let contradiction = |error| format!("the record does not fit the log: {error}");
        match record {
            Record::Batch { entries, cuts, hard_state } => {
                if cuts != self.tail.cuts(&entries) {
                    return Err("the record replaces other entries than it says".to_owned());
                }
                let tail = self.tail.after(&entries, hard_state).map_err(contradiction)?;
                if let Some(first) = entries.first() {
                    self.entries.truncate(offset(first.index.saturating_sub(1 + self.tail.base.index)));
                }
                self.segments.iter_mut().for_each(|used| used.before = used.before.replaced_by(&entries));
                self.entries.extend(entries.into_iter().filter(|entry| entry.index > tail.base.index));
                self.tail = tail;
            }
            Record::Reset { checkpoint, hard_state } => {
                self.tail = self.tail.after_reset(checkpoint, hard_state).map_err(contradiction)?;
                self.entries.clear();
                self.reset = Some(checkpoint.index);
                self.segments.iter_mut().for_each(|used| (used.before, used.highest) = (checkpoint, 0));
            }
        }
        if let Some(used) = self.segments.back_mut() {
            used.highest = if self.entries.is_empty() { 0 } else { used.highest.max(self.tail.last.index) };
        }
        Ok(())
    }

    /// The term of the entry at `index`, if the log reaches there.
    fn term(&self, index: u64) -> Option<u64> {
        if index == self.tail.base.index {
            return Some(self.tail.base.term);
        }
        let at = index.checked_sub(self.tail.base.index + 1)?;
        self.entries.get(offset(at)).map(|entry| entry.term)
    }

    /// Makes what was read durable, and what is torn zero. A process that ended before its sync returned, or after it
    /// failed, left a record that is seen but may not be on the disk; only writing it again puts it there.
    fn mend<D: Disk>(&self, disk: &D) -> Result<Active<D::File>, OpenError> {
        let (id, bytes, scan) = &self.newest;
        let name = segment::file(*id);
        let last = scan.last.clone().unwrap_or(0..SECTOR);
        let mended = disk.open(&name).and_then(|file| {
            if let Some(torn) = &scan.torn {
                file.write_at(torn.start as u64, &vec![0; torn.len()])?;
            }
            file.write_at(last.start as u64, &bytes[last.clone()])?;
            file.sync()?;
            Ok(Active { id: *id, file, sectors: bytes.len() / SECTOR, next: scan.end })
        });
        mended.map_err(failed(&name))
    }

    /// Files that nobody needs any more.
    fn litter(&self, files: &Files, chosen: &Chosen, settings: &Settings) -> Vec<String> {
        let misfit = |id: &&u64| files.get(&segment::file(**id)) != Some(&settings.segment_bytes);
        let first_misfit = self.spares.iter().find(misfit).copied();
        let superfluous = |name: &str| {
            if let Some(id) = segment::id(name) {
                return self.leftover.contains(&id)
                    || first_misfit.is_some_and(|first| id >= first && self.spares.contains(&id));
            }
            let received = checkpoint::received_index(name);
            let ballast = name == BALLAST && files.get(name) != Some(&settings.ballast_bytes);
            name.ends_with(UNFINISHED) && is_ours(name) || received.is_some() && received != chosen.promoted || ballast
        };
        files.keys().filter(|name| superfluous(name)).cloned().collect()
    }

    fn reserve<D: Disk>(&self, disk: &D, files: &Files, settings: &Settings) -> Result<Ready<D::File>, OpenError> {
        let mut ready = Ready { spares: VecDeque::new(), next_id: self.newest.0 + 1, ballast: Ballast::Unwanted };
        for id in &self.spares {
            let name = segment::file(*id);
            if files.get(&name) != Some(&settings.segment_bytes) {
                break;
            }
            ready.spares.push_back(Spare { id: *id, file: disk.open(&name).map_err(failed(&name))? });
            ready.next_id = id + 1;
        }
        if settings.ballast_bytes > 0 {
            let there = files.get(BALLAST) == Some(&settings.ballast_bytes);
            ready.ballast = if there { Ballast::There } else { Ballast::Missing };
        }
        Ok(ready)
    }
}

/// The checkpoint that counts.
struct Chosen {
    checkpoint: Checkpoint,
    /// It came from elsewhere and does not have its name yet.
    promoted: Option<u64>,
    /// All that count, the oldest first.
    kept: Vec<u64>,
    set_aside: Vec<Damage>,
}

impl Chosen {
    fn find<D: Disk>(disk: &D, identity: &Identity, files: &Files, log: &Log) -> Result<Self, OpenError> {
        let mut indexes: Vec<u64> = files.keys().filter_map(|name| checkpoint::index(name)).collect();
        let received = files.keys().filter_map(|name| checkpoint::received_index(name));
        let promoted = received.filter(|index| log.reset == Some(*index) && !indexes.contains(index)).max();
        indexes.extend(promoted);
        indexes.sort_unstable();
        let mut set_aside = Vec::new();
        while let Some(index) = indexes.last().copied() {
            let name = if promoted == Some(index) { checkpoint::received(index) } else { checkpoint::file(index) };
            match Checkpoint::read(identity, &name, &read(disk, &name)?) {
                Ok(checkpoint) => {
                    meets(&name, index, &checkpoint, log, set_aside.first())?;
                    let promoted = promoted.filter(|promoted| *promoted == index);
                    return Ok(Self { checkpoint, promoted, kept: indexes, set_aside });
                }
                Err(OpenError::Damaged(damage)) => set_aside.push(damage),
                Err(other) => return Err(other),
            }
            indexes.pop();
        }
        let newest = set_aside.into_iter().next();
        Err(newest.map_or_else(|| missing("checkpoint-*", "a log needs one".into()), OpenError::Damaged))
    }

    /// Gives the checkpoint its name, and damaged ones another.
    fn settle<D: Disk>(&self, disk: &D) -> Result<(), OpenError> {
        if let Some(index) = self.promoted {
            let received = checkpoint::received(index);
            disk.rename(&received, &checkpoint::file(index)).map_err(failed(&received))?;
        }
        for Damage { file, .. } in &self.set_aside {
            disk.rename(file, &format!("{file}{SET_ASIDE}")).map_err(failed(file))?;
        }
        Ok(())
    }
}

/// A checkpoint and a log belong together where the log has the checkpoint's last entry, or begins just behind it.
fn meets(name: &str, index: u64, checkpoint: &Checkpoint, log: &Log, newer: Option<&Damage>) -> Result<(), OpenError> {
    let Tail { base, last, .. } = log.tail;
    if checkpoint.index != index {
        return Err(Damage::new(name, 0, "it is another checkpoint than its name says").into());
    }
    match log.term(index) {
        Some(term) if term == checkpoint.term => Ok(()),
        Some(_) => Err(Damage::new(name, 0, "the log has an entry of another term at its index").into()),
        None if index > last.index => {
            let why = format!("the log ends at entry {}, before {name}", last.index);
            Err(missing(&segment::file(log.newest.0 + 1), why))
        }
        None => match newer {
            Some(damage) => {
                let why =
                    format!("{}; the checkpoint before it, {name}, needs older entries than the log has", damage.why);
                Err(Damage::new(&damage.file, damage.offset, why).into())
            }
            None => {
                let oldest = log.segments.front().map_or(log.newest.0, |used| used.id);
                let why = format!("{name} needs entries from {} on, the log begins at {}", index + 1, base.index + 1);
                Err(missing(&segment::file(oldest.saturating_sub(1)), why))
            }
        },
    }
}

fn offset(entries: u64) -> usize {
    usize::try_from(entries).unwrap_or(usize::MAX)
}

fn read<D: Disk>(disk: &D, name: &str) -> Result<Vec<u8>, OpenError> {
    read_whole(disk, name).map_err(failed(name))
}

fn missing(file: &str, why: String) -> OpenError {
    OpenError::Missing { file: file.to_owned(), why }
}

fn failed(file: &str) -> impl FnOnce(std::io::Error) -> OpenError {
    let file = file.to_owned();
    |error| OpenError::Disk { file, error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::store::{disk::faulty::FaultyDisk, sample::*};

    #[test]
    fn nothing_half_made_and_foreign_are_told_apart() {
        let disk = FaultyDisk::new(1);
        disk.put("ca.key", b"not ours");
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
        assert!(
            !disk.content().keys().any(|name| name.ends_with(SET_ASIDE)),
            "it was kept until there was a better one"
        );
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
}
