//! A real folder whose disk is slow, hangs or fails when a test says so.

use std::{
    fs::File,
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use mainstay_coordinator::raft::store::{
    Disk, DiskFile,
    disk::{Folder, Listed},
};

/// How a disk does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Well,
    /// Every sync takes this much longer.
    Slow(Duration),
    /// No sync returns.
    Hung,
    /// No sync of a file whose name begins so returns.
    HungIn(&'static str),
    /// The next sync fails.
    Broken,
}

#[derive(Clone, Debug)]
pub(crate) struct MoodyDisk {
    folder: Folder,
    mood: Arc<(Mutex<Mood>, Condvar)>,
}

#[derive(Debug)]
pub(crate) struct MoodyFile {
    name: String,
    file: File,
    mood: Arc<(Mutex<Mood>, Condvar)>,
}

impl MoodyDisk {
    pub(crate) fn at(path: &Path) -> Self {
        Self { folder: Folder::at(path).unwrap(), mood: Arc::default() }
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.mood.0.lock().unwrap() = mood;
        self.mood.1.notify_all();
    }

    fn opened(&self, name: &str, file: File) -> MoodyFile {
        MoodyFile { name: name.to_owned(), file, mood: Arc::clone(&self.mood) }
    }
}

impl Disk for MoodyDisk {
    type File = MoodyFile;

    fn list(&self) -> io::Result<Vec<Listed>> {
        self.folder.list()
    }

    fn create(&self, name: &str) -> io::Result<MoodyFile> {
        self.folder.create(name).map(|file| self.opened(name, file))
    }

    fn open(&self, name: &str) -> io::Result<MoodyFile> {
        self.folder.open(name).map(|file| self.opened(name, file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.folder.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.folder.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.folder.sync_dir()
    }
}

impl DiskFile for MoodyFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        DiskFile::read_at(&self.file, offset, into)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        DiskFile::write_at(&self.file, offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        let (mood, changed) = &*self.mood;
        let guard = mood.lock().unwrap();
        match *guard {
            Mood::Well => {}
            Mood::Slow(more) => {
                drop(changed.wait_timeout_while(guard, more, |mood| *mood == Mood::Slow(more)).unwrap())
            }
            Mood::Hung => drop(changed.wait_while(guard, |mood| *mood == Mood::Hung).unwrap()),
            Mood::HungIn(begin) if self.name.starts_with(begin) => {
                let hangs = |mood: &mut Mood| matches!(*mood, Mood::HungIn(_) | Mood::Hung);
                drop(changed.wait_while(guard, hangs).unwrap());
            }
            Mood::HungIn(_) => {}
            Mood::Broken => return Err(io::Error::from_raw_os_error(5)),
        }
        DiskFile::sync(&self.file)
    }
}
