//! A checkpoint that comes from elsewhere: it goes to the disk as it comes, and is read back before it counts.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    Checkpoint, ConfState, Identity, OpenError, Position, WriteError, checkpoint,
    disk::{Disk, DiskFile as _, Reader, is_no_room},
    health::Health,
    place::UNFINISHED,
    preparation::Reserve,
};

/// Why a checkpoint that came is none.
#[derive(Debug, thiserror::Error)]
pub enum NotReceived {
    /// It could not be written.
    #[error(transparent)]
    Unwritten(#[from] WriteError),
    /// It is not whole, or another cluster's.
    #[error(transparent)]
    Unusable(#[from] OpenError),
    /// It is not the one that was to come.
    #[error("the checkpoint at {} came instead of the one at {}", came.index, wanted.index)]
    Other {
        /// What came.
        came: Position,
        /// What was to come.
        wanted: Position,
    },
}

/// Takes checkpoints in, from any thread.
#[derive(Debug)]
pub struct CheckpointReceiver<D: Disk> {
    pub(super) disk: Arc<D>,
    pub(super) identity: Identity,
    pub(super) health: Health,
    pub(super) reserve: Arc<Reserve<D>>,
}

/// A file that grows as the checkpoint comes; it goes where that does not come whole.
#[derive(Debug)]
pub struct Incoming<D: Disk> {
    disk: Arc<D>,
    identity: Identity,
    health: Health,
    reserve: Arc<Reserve<D>>,
    at: Position,
    file: D::File,
    bytes: u64,
    is_whole: bool,
    has_ballast: bool,
}

/// A checkpoint that is here, whole and durable, and does not count yet; its file goes with it where it never does.
pub struct Received {
    at: Position,
    conf_state: ConfState,
    counts: AtomicBool,
    remove: Box<dyn Fn() + Send + Sync>,
}

impl<D: Disk> CheckpointReceiver<D> {
    /// Makes a file for the checkpoint that is to come.
    ///
    /// # Errors
    /// [`WriteError::NoRoom`]; [`WriteError::Broken`].
    pub fn begin(&self, at: Position) -> Result<Incoming<D>, WriteError> {
        self.health.check()?;
        let name = unfinished(at);
        let file = match self.disk.create(&name) {
            // Of an attempt that was given up in the middle.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.remove(&name).and_then(|()| self.disk.create(&name))
            }
            made => made,
        };
        let file = file.map_err(|error| told(&self.health, at, &error))?;
        Ok(Incoming {
            disk: Arc::clone(&self.disk),
            identity: self.identity.clone(),
            health: self.health.clone(),
            reserve: Arc::clone(&self.reserve),
            at,
            file,
            bytes: 0,
            is_whole: false,
            has_ballast: false,
        })
    }
}

impl<D: Disk> Incoming<D> {
    /// Puts this behind what came before.
    ///
    /// # Errors
    /// [`WriteError::NoRoom`] where it does not fit even into the ballast's room; [`WriteError::Broken`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.health.check()?;
        let mut written = self.file.write_at(self.bytes, bytes);
        if !self.has_ballast && written.as_ref().is_err_and(is_no_room) {
            // What it makes superfluous is worth more room than the ballast's.
            self.has_ballast = true;
            if self.reserve.lend_ballast()? {
                written = self.file.write_at(self.bytes, bytes);
            }
        }
        written.map_err(|error| told(&self.health, self.at, &error))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// All of it came: it is made durable, and read back.
    ///
    /// # Errors
    /// [`NotReceived`].
    pub fn finish(mut self) -> Result<(Checkpoint, Received), NotReceived> {
        let (at, name) = (self.at, checkpoint::received(self.at.index));
        self.file.sync().map_err(|error| told(&self.health, at, &error))?;
        let (found, _) = Checkpoint::read(&self.identity, "the checkpoint that was sent", Reader::of(&self.file))?;
        if found.position() != at {
            return Err(NotReceived::Other { came: found.position(), wanted: at });
        }
        let placed = self.disk.rename(&unfinished(at), &name).and_then(|()| self.disk.sync_dir());
        placed.map_err(|error| told(&self.health, at, &error))?;
        self.is_whole = true;
        let received = Received::new(Arc::clone(&self.disk), at, found.conf_state.clone());
        Ok((found, received))
    }
}

impl<D: Disk> Drop for Incoming<D> {
    fn drop(&mut self) {
        if !self.is_whole {
            // What stays is taken away at the next start.
            self.disk.remove(&unfinished(self.at)).unwrap_or(());
        }
        if self.has_ballast {
            self.reserve.take_back();
        }
    }
}

impl Received {
    pub(super) fn new<D: Disk>(disk: Arc<D>, at: Position, conf_state: ConfState) -> Self {
        // As for an unfinished one.
        let remove = move || disk.remove(&checkpoint::received(at.index)).unwrap_or(());
        Self { at, conf_state, counts: AtomicBool::new(false), remove: Box::new(remove) }
    }

    /// Its place in the log.
    #[must_use]
    pub fn position(&self) -> Position {
        self.at
    }

    /// Who decides, as of there.
    #[must_use]
    pub fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    /// Its file stays: another one has it too.
    pub fn keep(&self) {
        self.counts(true);
    }

    /// The log relies on it, or may: its file stays.
    pub(super) fn counts(&self, counts: bool) {
        self.counts.store(counts, Ordering::Relaxed);
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if !self.counts.load(Ordering::Relaxed) {
            (self.remove)();
        }
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received").field("at", &self.at).field("counts", &self.counts).finish_non_exhaustive()
    }
}

fn unfinished(at: Position) -> String {
    format!("{}{UNFINISHED}", checkpoint::received(at.index))
}

fn told(health: &Health, at: Position, error: &io::Error) -> WriteError {
    if is_no_room(error) { WriteError::NoRoom } else { health.fail(&checkpoint::received(at.index), error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::store::{
        HardState, Store,
        disk::{faulty::FaultyDisk, read_whole},
        sample::{first, identity, settings},
    };

    fn sent() -> (Checkpoint, Vec<u8>) {
        let checkpoint = Checkpoint { index: 90, term: 3, ..first() };
        let disk = FaultyDisk::new(2);
        checkpoint.write::<FaultyDisk>(&identity(), &disk.create("f").unwrap()).unwrap();
        (checkpoint, read_whole(&disk, "f").unwrap())
    }

    fn store() -> (FaultyDisk, Store<FaultyDisk>) {
        let disk = FaultyDisk::new(1);
        let store = Store::create(disk.clone(), identity(), settings(), &first()).unwrap();
        (disk, store)
    }

    fn files(disk: &FaultyDisk) -> Vec<String> {
        disk.content().into_keys().filter(|name| name.starts_with("received-")).collect()
    }

    #[test]
    fn it_counts_when_it_came_whole_and_is_installed() {
        let (disk, mut store) = store();
        let (checkpoint, bytes) = sent();
        let mut incoming = store.checkpoint_receiver().begin(checkpoint.position()).unwrap();
        bytes.chunks(100).for_each(|piece| incoming.write(piece).unwrap());
        let (came, received) = incoming.finish().unwrap();
        assert_eq!((&came, received.position()), (&checkpoint, checkpoint.position()));
        store.install_received(&received, HardState { term: 4, vote: 0, commit: 90 }).unwrap();
        drop((received, store));
        assert_eq!(files(&disk), [""; 0]);
        let (_, recovered) = Store::open(disk, settings()).unwrap();
        assert_eq!(recovered.checkpoint, checkpoint);
    }

    #[test]
    fn what_is_not_whole_or_never_counts_leaves_nothing_behind() {
        let (disk, store) = store();
        let (checkpoint, bytes) = sent();
        let begin = || store.checkpoint_receiver().begin(checkpoint.position()).unwrap();
        let mut incoming = begin();
        incoming.write(&bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(files(&disk).len(), 1);
        assert!(matches!(incoming.finish(), Err(NotReceived::Unusable(_))));
        assert_eq!(files(&disk), [""; 0]);
        let mut incoming = begin();
        incoming.write(&bytes).unwrap();
        drop(incoming.finish().unwrap());
        assert_eq!(files(&disk), [""; 0]);
        let mut other = store.checkpoint_receiver().begin(Position { index: 91, term: 3 }).unwrap();
        other.write(&bytes).unwrap();
        assert!(matches!(other.finish(), Err(NotReceived::Other { .. })));
    }

    #[test]
    fn a_full_disk_gives_the_ballast_and_then_refuses() {
        let (disk, store) = store();
        store.look_for_room();
        disk.set_room(Some(disk.used_bytes() + 100));
        let mut incoming = store.checkpoint_receiver().begin(Position { index: 90, term: 3 }).unwrap();
        let written = (0..1_000).map(|_| incoming.write(&[7; 4096])).take_while(Result::is_ok).count();
        assert!(written >= 1, "the ballast's room");
        assert_eq!(incoming.write(&[7; 4096]), Err(WriteError::NoRoom));
        drop(incoming);
        assert_eq!(files(&disk), [""; 0]);
    }
}
