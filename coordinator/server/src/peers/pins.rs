//! Checkpoints that are being sent: they can be read on from where it broke off, also when there are newer ones.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::raft::DiskFile;

/// A file that is superfluous meanwhile takes its room for so long.
pub(super) const PINNED: Duration = Duration::from_secs(600);

/// Open files, by the index of their checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Pins(Mutex<BTreeMap<u64, Pin>>);

#[derive(Debug)]
struct Pin {
    file: Arc<dyn DiskFile>,
    since: Instant,
}

impl Pins {
    /// The file of that checkpoint, opened by `open` where it is not open yet.
    ///
    /// # Errors
    /// As `open` does.
    pub(super) fn file(
        &self,
        index: u64,
        now: Instant,
        open: impl FnOnce() -> io::Result<Box<dyn DiskFile>>,
    ) -> io::Result<Arc<dyn DiskFile>> {
        self.forget(now);
        if let Some(pin) = self.pins().get(&index) {
            return Ok(Arc::clone(&pin.file));
        }
        // It may wait for the disk.
        let file: Arc<dyn DiskFile> = Arc::from(open()?);
        Ok(Arc::clone(&self.pins().entry(index).or_insert(Pin { file, since: now }).file))
    }

    /// Lets go what was pinned for too long.
    pub(super) fn forget(&self, now: Instant) {
        self.pins().retain(|_, pin| now.saturating_duration_since(pin.since) < PINNED);
    }

    fn pins(&self) -> MutexGuard<'_, BTreeMap<u64, Pin>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::store::disk::{Disk as _, faulty::FaultyDisk};

    #[test]
    fn a_file_that_is_gone_can_be_read_on_but_not_for_ever() {
        let (pins, disk, now) = (Pins::default(), FaultyDisk::new(1), Instant::now());
        disk.put("checkpoint", b"all of it");
        let open = || disk.open("checkpoint").map(|file| Box::new(file) as _);
        pins.file(7, now, open).unwrap();
        disk.erase("checkpoint");
        let file = pins.file(7, now + PINNED / 2, open).unwrap();
        let mut rest = [0; 9];
        assert_eq!(file.read_at(4, &mut rest).unwrap(), 5);
        assert_eq!(&rest[..5], b"of it");
        drop(file);
        assert!(pins.file(7, now + PINNED, open).is_err());
    }
}
