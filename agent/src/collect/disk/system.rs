//! What the kernel tells of disks without asking them: counters and health, read in one go.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    device::{Below, Health},
    diskstats::{self, Io},
};
use crate::collect::mountinfo::Mounts;

/// Members of a RAID change without any mount changing: what disks stand on is looked up again after so many readings.
const FORGET_AFTER: u32 = 30;

/// Reads with one buffer, and a file that stays open.
pub(super) struct System {
    proc_root: PathBuf,
    sys_root: PathBuf,
    diskstats: Option<File>,
    buffer: Vec<u8>,
    below: BTreeMap<Vec<u8>, Below>,
    readings: u32,
}

/// What was read, by the key of the mount.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) disks: BTreeMap<Vec<u8>, (Option<Io>, Health)>,
    /// What could not be read at all.
    pub(super) error: Option<String>,
}

impl System {
    pub(super) fn new(proc_root: &Path, sys_root: &Path) -> Self {
        Self {
            proc_root: proc_root.to_owned(),
            sys_root: sys_root.to_owned(),
            diskstats: None,
            buffer: Vec::with_capacity(4_096),
            below: BTreeMap::new(),
            readings: 0,
        }
    }

    pub(super) fn read(&mut self, mounts: &Arc<Mounts>) -> Told {
        self.readings = (self.readings + 1) % FORGET_AFTER;
        if self.readings == 0 {
            self.below.clear();
        }
        let mut told = Told::default();
        if let Err(error) = self.fill() {
            // A file of another boot or namespace is opened anew.
            (self.diskstats, told.error) = (None, Some(format!("cannot read diskstats: {error}")));
            self.buffer.clear();
        }
        let mut below = BTreeMap::new();
        for disk in &mounts.disks {
            let key = disk.key();
            let known = self.below.remove(&key).unwrap_or_else(|| Below::of(&self.sys_root, &disk.entry));
            below.insert(key, known);
        }
        self.below = below;
        let wanted = |name: &str| self.below.values().any(|below| below.devices.contains(name));
        let counters = diskstats::parse(&self.buffer, wanted);
        for (key, below) in &self.below {
            let mut io: Option<Io> = None;
            for counted in below.devices.iter().filter_map(|device| counters.get(device.as_str())) {
                *io.get_or_insert_default() += *counted;
            }
            told.disks.insert(key.clone(), (io, below.health(&self.sys_root)));
        }
        told
    }

    fn fill(&mut self) -> io::Result<()> {
        let file = match &mut self.diskstats {
            Some(file) => file,
            slot => slot.insert(File::open(self.proc_root.join("diskstats"))?),
        };
        self.buffer.clear();
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut self.buffer)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_again_from_the_open_file() {
        let place = tempfile::tempdir().unwrap();
        let (proc, sys) = (place.path().join("proc"), place.path().join("sys"));
        std::fs::create_dir_all(sys.join("dev/block")).unwrap();
        std::fs::create_dir_all(&proc).unwrap();
        std::os::unix::fs::symlink("../../devices/vda", sys.join("dev/block/254:0")).unwrap();
        let mounts = Arc::new(Mounts::of(b"27 1 254:0 / / rw - ext4 /dev/vda rw\n", b"/d"));
        let key = mounts.disks[0].key();
        let mut system = System::new(&proc, &sys);
        assert!(system.read(&mounts).error.is_some_and(|error| error.contains("diskstats")));
        for reads in [5, 6] {
            std::fs::write(proc.join("diskstats"), format!("254 0 vda {reads} 0 8 1 2 0 16 3 0 4 7\n")).unwrap();
            let told = system.read(&mounts);
            assert_eq!(told.error, None);
            assert_eq!(told.disks[&key].0.map(|io| (io.reads, io.written_bytes)), Some((reads, 8_192)));
        }
    }
}
