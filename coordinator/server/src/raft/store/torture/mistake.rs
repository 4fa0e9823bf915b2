//! Mistakes that a store could make, planted between it and its disk: the torture has to find each.

use std::io;

use crate::raft::store::{
    disk::{
        Disk, DiskFile, Listed,
        faulty::{FaultyDisk, FaultyFile},
    },
    sector::{self, SECTOR},
    segment,
};

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mistake {
    /// The folder is never synced, so names may be lost.
    FolderNotSynced,
    /// A record counts before it is durable.
    AcknowledgedBeforeSync,
    /// New files get their name before they are durable.
    NamedBeforeSync,
    /// A failed sync is tried again, and counts when that works.
    SyncTriedAgain,
    /// A failed write counts.
    WriteErrorIgnored,
    /// Whatever fails its checksum counts as torn.
    FlippedTakenForTorn,
    /// What is read at the start is not made durable.
    NotMended,
}

/// All of them.
pub(super) const MISTAKES: [Mistake; 7] = [
    Mistake::FolderNotSynced,
    Mistake::AcknowledgedBeforeSync,
    Mistake::NamedBeforeSync,
    Mistake::SyncTriedAgain,
    Mistake::WriteErrorIgnored,
    Mistake::FlippedTakenForTorn,
    Mistake::NotMended,
];

/// The faulty disk, with a mistake on the way to it.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) disk: FaultyDisk,
    pub(super) mistake: Option<Mistake>,
}

#[derive(Debug)]
pub(super) struct File {
    way: Way,
    name: String,
    file: FaultyFile,
}

impl Way {
    fn file(&self, name: &str, file: FaultyFile) -> File {
        File { way: self.clone(), name: name.to_owned(), file }
    }
}

impl Disk for Way {
    type File = File;

    fn list(&self) -> io::Result<Vec<Listed>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<File> {
        Ok(self.file(name, self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        Ok(self.file(name, self.disk.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        if self.mistake == Some(Mistake::FolderNotSynced) { Ok(()) } else { self.disk.sync_dir() }
    }
}

impl DiskFile for File {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(offset, into)?;
        if self.way.mistake == Some(Mistake::FlippedTakenForTorn)
            && let Some(id) = segment::id(&self.name)
        {
            let whole = self.way.disk.content().remove(&self.name).unwrap_or_default();
            for number in 1..whole.len() / SECTOR {
                if sector::read(id, number, &whole) == sector::Sector::Flipped {
                    let from = usize::try_from(offset).unwrap();
                    for at in (number * SECTOR..(number + 1) * SECTOR).filter(|at| (from..from + read).contains(at)) {
                        into[at - from] = 0;
                    }
                }
            }
        }
        Ok(read)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        let is_there = |whole: Vec<u8>| whole.get(start..start + bytes.len()) == Some(bytes);
        match self.way.mistake {
            Some(Mistake::WriteErrorIgnored) => self.file.write_at(offset, bytes).or(Ok(())),
            Some(Mistake::NotMended) if self.way.disk.content().remove(&self.name).is_some_and(is_there) => Ok(()),
            _ => self.file.write_at(offset, bytes),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let is_new = segment::id(&self.name).is_none();
        match self.way.mistake {
            Some(Mistake::AcknowledgedBeforeSync) if !is_new => Ok(()),
            Some(Mistake::NamedBeforeSync) if is_new => Ok(()),
            Some(Mistake::SyncTriedAgain) => self.file.sync().or_else(|_| self.file.sync()),
            _ => self.file.sync(),
        }
    }
}
