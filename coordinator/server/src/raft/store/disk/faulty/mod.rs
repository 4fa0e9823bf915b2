//! A disk in memory that fails as real ones do, by a seed: the simulator's, and the tests'.
//!
//! What was not synced may be lost when the power goes, sector by sector (512 bytes, each whole or not at all) and name
//! by name. A failed sync writes some sectors and counts all of them as written, as Linux does. Reads give any part.

mod dice;
mod platter;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use self::dice::Dice;
use self::platter::{Content, NameChange, Platter, gone};
use super::{Disk, DiskFile, Listed};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// The disk; clones are the same disk.
#[derive(Clone, Debug)]
pub struct FaultyDisk(Arc<Mutex<Platter>>);

/// An open file on it. It stays the same file when its name changes.
#[derive(Debug)]
pub struct FaultyFile {
    disk: FaultyDisk,
    number: u64,
}

impl FaultyDisk {
    /// An empty disk whose faults fall as `seed` says.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Platter {
            dice: Dice::new(seed),
            files: BTreeMap::new(),
            next_number: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            room: None,
            until_death: None,
            until_sync_error: None,
            until_write_error: None,
            until_read_error: None,
            syncs: 0,
            dead: false,
        })))
    }

    /// How many bytes all files together may take; `None` for any number.
    pub fn set_room(&self, bytes: Option<usize>) {
        self.platter().room = bytes;
    }

    /// What all files together take.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.platter().used()
    }

    /// So many more changes work; in the one after them the machine dies. Until [`FaultyDisk::power_loss`] nothing works.
    pub fn die_after(&self, changes: Option<usize>) {
        self.platter().until_death = changes;
    }

    /// So many more syncs of files work, the one after them fails.
    pub fn fail_sync_after(&self, syncs: Option<usize>) {
        self.platter().until_sync_error = syncs;
    }

    /// So many more writes work, the one after them fails midway.
    pub fn fail_write_after(&self, writes: Option<usize>) {
        self.platter().until_write_error = writes;
    }

    /// So many more reads work, the one after them fails.
    pub fn fail_read_after(&self, reads: Option<usize>) {
        self.platter().until_read_error = reads;
    }

    /// How often a file's content was synced, or was to be.
    #[must_use]
    pub fn syncs(&self) -> usize {
        self.platter().syncs
    }

    /// True once the machine died.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.platter().dead
    }

    /// The power goes and comes back: of what was not synced, any part is there.
    pub fn power_loss(&self) {
        let mut guard = self.platter();
        let platter = &mut *guard;
        let (dice, survival) = (&mut platter.dice, [0, 30, 50, 80, 100]);
        let sectors = survival[dice.below(survival.len())];
        for content in platter.files.values_mut() {
            content.flush(|| dice.percent(sectors));
            content.visible = content.durable.clone();
        }
        let (names, in_order) = (survival[dice.below(survival.len())], dice.percent(50));
        for NameChange { gone, there } in std::mem::take(&mut platter.unsynced_names) {
            if !dice.percent(names) {
                if in_order {
                    break;
                }
                continue;
            }
            if let Some(name) = gone {
                platter.durable_names.remove(&name);
            }
            if let Some((name, number)) = there {
                platter.durable_names.insert(name, number);
            }
        }
        platter.names = platter.durable_names.clone();
        platter.files.retain(|number, _| platter.names.values().any(|named| named == number));
        (platter.until_death, platter.until_sync_error, platter.until_write_error) = (None, None, None);
        platter.dead = false;
    }

    /// The process is started again, the machine was not: all that was written is seen, and still not durable.
    pub fn revive(&self) {
        let mut platter = self.platter();
        (platter.until_death, platter.until_sync_error, platter.until_write_error) = (None, None, None);
        platter.dead = false;
    }

    /// Every file as programs see it.
    #[must_use]
    pub fn content(&self) -> BTreeMap<String, Vec<u8>> {
        let platter = self.platter();
        platter.names.iter().map(|(name, number)| (name.clone(), platter.files[number].visible.clone())).collect()
    }

    /// Puts a file there, durably: what somebody else does to the folder.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut platter = self.platter();
        let number = platter.add();
        let content = Content { visible: bytes.to_vec(), durable: bytes.to_vec(), dirty: Vec::new() };
        platter.files.insert(number, content);
        platter.names.insert(name.to_owned(), number);
        platter.durable_names.insert(name.to_owned(), number);
    }

    /// Takes a file away, durably: what somebody else does to the folder.
    pub fn erase(&self, name: &str) {
        let mut platter = self.platter();
        platter.names.remove(name);
        platter.durable_names.remove(name);
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for FaultyDisk {
    type File = FaultyFile;

    fn list(&self) -> io::Result<Vec<Listed>> {
        let platter = self.platter();
        if platter.dead {
            return Err(gone());
        }
        let listed = |(name, number): (&String, &u64)| {
            let bytes = u64::try_from(platter.files[number].visible.len()).unwrap_or(u64::MAX);
            Listed { name: name.clone(), bytes }
        };
        Ok(platter.names.iter().map(listed).collect())
    }

    fn create(&self, name: &str) -> io::Result<FaultyFile> {
        let mut platter = self.platter();
        if platter.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let number = platter.add();
        platter.files.insert(number, Content::default());
        platter.change(NameChange { gone: None, there: Some((name.to_owned(), number)) })?;
        Ok(FaultyFile { disk: self.clone(), number })
    }

    fn open(&self, name: &str) -> io::Result<FaultyFile> {
        let platter = self.platter();
        if platter.dead {
            return Err(gone());
        }
        Ok(FaultyFile { disk: self.clone(), number: platter.number(name)? })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut platter = self.platter();
        let number = platter.number(from)?;
        platter.change(NameChange { gone: Some(from.to_owned()), there: Some((to.to_owned(), number)) })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut platter = self.platter();
        platter.number(name)?;
        platter.change(NameChange { gone: Some(name.to_owned()), there: None })
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut platter = self.platter();
        if platter.dies()? {
            return Err(gone());
        }
        platter.unsynced_names.clear();
        platter.durable_names = platter.names.clone();
        Ok(())
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut guard = self.disk.platter();
        let platter = &mut *guard;
        if platter.dead || Platter::falls(&mut platter.until_read_error) {
            return Err(gone());
        }
        let Some(content) = platter.files.get(&self.number) else { return Err(gone()) };
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.visible.len());
        let most = into.len().min(content.visible.len() - start);
        let read = if most > 1 && platter.dice.percent(10) { 1 + platter.dice.below(most - 1) } else { most };
        into[..read].copy_from_slice(&content.visible[start..start + read]);
        Ok(read)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut guard = self.disk.platter();
        let platter = &mut *guard;
        let dies = platter.dies()?;
        let mut outcome = if dies || Platter::falls(&mut platter.until_write_error) { Err(gone()) } else { Ok(()) };
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let mut end = start + bytes.len();
        let used = platter.used();
        let Some(content) = platter.files.get_mut(&self.number) else { return Err(gone()) };
        let most = platter.room.map(|room| content.visible.len() + room.saturating_sub(used));
        if let Some(most) = most.filter(|most| end > content.visible.len() && end > *most) {
            (end, outcome) = (most.max(start), Err(io::ErrorKind::StorageFull.into()));
        } else if outcome.is_err() && !dies {
            // The kernel copies page by page: a write that stops midway stops at a sector's edge.
            end = ((start + platter.dice.below(bytes.len())) / SECTOR * SECTOR).max(start);
        }
        content.visible.resize(content.visible.len().max(end), 0);
        content.visible[start..end].copy_from_slice(&bytes[..end - start]);
        content.dirty.push(start..end);
        outcome
    }

    fn sync(&self) -> io::Result<()> {
        let mut guard = self.disk.platter();
        let platter = &mut *guard;
        if platter.dies()? {
            return Err(gone());
        }
        platter.syncs += 1;
        let fails = Platter::falls(&mut platter.until_sync_error);
        let Some(content) = platter.files.get_mut(&self.number) else { return Err(gone()) };
        if fails {
            let survival = platter.dice.below(101);
            content.flush(|| platter.dice.percent(survival));
            return Err(gone());
        }
        content.flush(|| true);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::store::disk::read_whole;

    #[test]
    fn only_what_was_synced_outlives_the_power() {
        let mut torn = 0;
        for seed in 0..200 {
            let disk = FaultyDisk::new(seed);
            let file = disk.create("a").unwrap();
            file.write_at(0, &[1; 2048]).unwrap();
            file.sync().unwrap();
            disk.sync_dir().unwrap();
            file.write_at(512, &[2; 1024]).unwrap();
            disk.create("b").unwrap();
            disk.power_loss();
            let a = read_whole(&disk, "a").unwrap();
            assert_eq!((&a[..512], &a[1536..]), (&[1; 512][..], &[1; 512][..]));
            assert!(a.chunks(512).all(|sector| sector == [1; 512] || sector == [2; 512]), "sectors are whole");
            torn += usize::from(a[512] != a[1024]);
        }
        assert!(torn > 10, "writes are torn now and then");
    }

    #[test]
    fn a_failed_sync_is_not_made_good_by_another() {
        let mut lost = 0;
        for seed in 0..50 {
            let disk = FaultyDisk::new(seed);
            let file = disk.create("a").unwrap();
            disk.sync_dir().unwrap();
            file.write_at(0, &[1; 512]).unwrap();
            disk.fail_sync_after(Some(0));
            assert!(file.sync().is_err());
            assert!(file.sync().is_ok());
            assert_eq!(read_whole(&disk, "a").unwrap(), [1; 512], "it is still seen");
            disk.power_loss();
            lost += usize::from(read_whole(&disk, "a").unwrap() != [1; 512]);
        }
        assert!(lost > 5);
    }

    #[test]
    fn a_full_disk_takes_a_part_and_says_so() {
        let disk = FaultyDisk::new(1);
        disk.set_room(Some(700));
        let file = disk.create("a").unwrap();
        assert_eq!(file.write_at(0, &[1; 1024]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(disk.used_bytes(), 700);
        assert!(file.write_at(0, &[2; 700]).is_ok(), "what is there can be written again");
        disk.remove("a").unwrap();
        assert_eq!(disk.used_bytes(), 0);
    }
}
