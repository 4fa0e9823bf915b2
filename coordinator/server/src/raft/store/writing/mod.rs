//! Writing: batches, checkpoints, and what they make superfluous.

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    Batch, Checkpoint, CheckpointReader, CheckpointReceiver, CheckpointWriter, Contradiction, CreateError, HardState,
    Identity, OpenError, Position, Priority, Received, Recovered, Room, SavedCheckpoint, Settings, WriteError,
    checkpoint,
    disk::{Disk, DiskFile as _},
    founding,
    health::Health,
    log::Tail,
    preparation::{Preparation, Spare},
    record::Draft,
    recovery,
    sector::{self, SECTOR},
    segment::{self, Before},
};
use crate::failpoint;

/// The most that an essential batch may take, in bytes, when the disk is full: the reserve is small.
pub(super) const ESSENTIAL_BYTES: usize = 64 << 10;
/// Checkpoints that are kept: the newest may turn out damaged.
const CHECKPOINTS: usize = 2;

/// A log on a disk. One thread writes it.
#[derive(Debug)]
pub struct Store<D: Disk> {
    pub(super) disk: Arc<D>,
    pub(super) identity: Identity,
    pub(super) settings: Settings,
    pub(super) health: Health,
    pub(super) preparation: Preparation<D>,
    /// Its commit index may be ahead of the durable one.
    pub(super) tail: Tail,
    /// As of the last record.
    pub(super) durable: HardState,
    /// The last record's checksum.
    pub(super) crc: u32,
    /// Segments in use, the oldest first; the last one is `active`.
    pub(super) segments: VecDeque<Used>,
    pub(super) active: Active<D::File>,
    /// What it still takes, in bytes: for [`Room`].
    pub(super) left: Arc<AtomicUsize>,
    /// Indexes of the checkpoints that count, the oldest first.
    pub(super) checkpoints: Vec<u64>,
    /// Files to remove together with the next superfluous ones.
    pub(super) set_aside: Vec<String>,
    /// A record's sectors; kept for its capacity.
    pub(super) buffer: Vec<u8>,
}

/// A segment in use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    pub(super) id: u64,
    /// The last entry before it: where the log begins when this is the first segment.
    pub(super) before: Position,
    /// The highest index of any entry in it that a reset did not void.
    pub(super) highest: u64,
}

/// The segment that takes the next record.
#[derive(Debug)]
pub(super) struct Active<F> {
    pub(super) id: u64,
    pub(super) file: F,
    pub(super) sectors: usize,
    /// The first free one.
    pub(super) next: usize,
}

impl<D: Disk> Store<D> {
    /// Makes a log in an empty folder: the identity first, the first segment last. For a cluster's first replica the
    /// checkpoint is [`Checkpoint::bootstrap`]; for one that joins, [`Checkpoint::default`]: nothing, at index 0.
    ///
    /// # Errors
    /// [`CreateError`]; what was made before stays, and the folder has to be emptied.
    pub fn create(disk: D, identity: Identity, settings: Settings, first: &Checkpoint) -> Result<Self, CreateError> {
        founding::found(&disk, &identity, &settings, first)?;
        let (store, _) = Self::open(disk, settings).map_err(|error| CreateError::Disk(io::Error::other(error)))?;
        Ok(store)
    }

    /// Opens a log and reads it whole. What was being written when the power went, and was not acknowledged, is cut.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed then, except where the disk itself failed.
    pub fn open(disk: D, settings: Settings) -> Result<(Self, Recovered), OpenError> {
        recovery::open(Arc::new(disk), settings)
    }

    /// Whose log it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The place just before the first entry that is kept.
    pub fn before_first(&self) -> Position {
        self.tail.base
    }

    /// The last entry's place.
    pub fn last(&self) -> Position {
        self.tail.last
    }

    /// Bytes of the segments in use.
    pub fn log_bytes(&self) -> u64 {
        self.settings.segment_bytes * self.segments.len() as u64
    }

    /// What Raft must not forget, with the commit index that was only noted.
    pub fn hard_state(&self) -> HardState {
        self.tail.hard_state
    }

    /// The most bytes that the entries of one batch may take: their data, and 13 bytes for each.
    pub fn batch_limit_bytes(&self) -> usize {
        // The header and a hard state take 48.
        self.record_limit() - 48
    }

    /// Makes a batch durable.
    ///
    /// # Errors
    /// All but [`WriteError::Broken`] leave everything as it was.
    pub fn write(&mut self, batch: &Batch<'_>) -> Result<(), WriteError> {
        self.health.check()?;
        let tail = self.tail.after(batch.entries, batch.hard_state)?;
        let changed = Some(tail.hard_state).filter(|hard_state| *hard_state != self.durable);
        if batch.entries.is_empty() && (batch.hard_state.is_none() || changed.is_none()) {
            return Ok(());
        }
        let draft = Draft::batch(batch, self.tail.cuts(batch.entries), changed);
        self.append(draft, batch.priority, tail)?;
        self.segments.iter_mut().for_each(|used| used.before = used.before.replaced_by(batch.entries));
        Ok(())
    }

    /// Remembers how far entries are committed, without a sync: it goes with the next record. Raft may forget it.
    ///
    /// # Errors
    /// [`WriteError::Contradiction`] where that is beyond the log, or goes back.
    pub fn note_commit(&mut self, commit: u64) -> Result<(), WriteError> {
        self.health.check()?;
        let hard_state = HardState { commit, ..self.tail.hard_state };
        self.tail = self.tail.after(&[], Some(hard_state))?;
        Ok(())
    }

    /// Something that writes checkpoints in another thread.
    pub fn checkpoint_writer(&self) -> CheckpointWriter<D> {
        CheckpointWriter {
            disk: Arc::clone(&self.disk),
            identity: self.identity.clone(),
            health: self.health.clone(),
            reserve: Arc::clone(self.preparation.reserve()),
        }
    }

    /// Something that reads checkpoints in another thread.
    pub fn checkpoint_reader(&self) -> CheckpointReader<D> {
        CheckpointReader { disk: Arc::clone(&self.disk), identity: self.identity.clone() }
    }

    /// Something that takes checkpoints in, in another thread.
    pub fn checkpoint_receiver(&self) -> CheckpointReceiver<D> {
        CheckpointReceiver {
            disk: Arc::clone(&self.disk),
            identity: self.identity.clone(),
            health: self.health.clone(),
            reserve: Arc::clone(self.preparation.reserve()),
        }
    }

    /// Something that tells another thread whether there is room.
    pub fn room(&self) -> Room<D> {
        Room { reserve: Arc::clone(self.preparation.reserve()), left: Arc::clone(&self.left) }
    }

    /// Tries again to fill up the reserve, after something was refused.
    pub fn look_for_room(&self) {
        self.preparation.reserve().look_for_room();
    }

    /// Saves a checkpoint of what is committed and drops what it makes superfluous.
    ///
    /// # Errors
    /// All but [`WriteError::Broken`] leave everything as it was.
    pub fn save_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), WriteError> {
        self.check_checkpoint(checkpoint.index)?;
        let saved = self.checkpoint_writer().write(checkpoint)?;
        self.adopt(saved)
    }

    /// Lets a checkpoint count. Two are kept, the entries since the older one, and a number of entries behind the newer.
    ///
    /// # Errors
    /// [`WriteError::Contradiction`] where a newer one counts already, or it is of what is not committed.
    pub fn adopt(&mut self, saved: SavedCheckpoint) -> Result<(), WriteError> {
        if let Err(error) = self.check_checkpoint(saved.index) {
            if !self.checkpoints.contains(&saved.index) {
                self.remove(&[checkpoint::file(saved.index)])?;
            }
            return Err(error);
        }
        self.checkpoints.push(saved.index);
        let behind = saved.index.saturating_sub(self.settings.entries_behind);
        let reach = self.checkpoints.iter().rev().nth(1).map_or(0, |older| behind.min(*older));
        self.drop_superfluous(|_, used| used.highest <= reach)
    }

    /// Lets a checkpoint that came from elsewhere take the place of the log, which is behind it. `hard_state` is what
    /// becomes durable in the same moment; its commit index is the checkpoint's index.
    ///
    /// # Errors
    /// All but [`WriteError::Broken`] leave everything as it was.
    pub fn install(&mut self, checkpoint: &Checkpoint, hard_state: HardState) -> Result<(), WriteError> {
        self.after_install(checkpoint.position(), hard_state)?;
        self.checkpoint_writer().place(&checkpoint::received(checkpoint.index), checkpoint)?;
        let received = Received::new(Arc::clone(&self.disk), checkpoint.position(), checkpoint.conf_state.clone());
        self.install_received(&received, hard_state)
    }

    /// The same with one that is on the disk already, and stays there as long as `received` does.
    ///
    /// # Errors
    /// As [`Store::install`].
    pub fn install_received(&mut self, received: &Received, hard_state: HardState) -> Result<(), WriteError> {
        let (position, index) = (received.position(), received.position().index);
        let tail = self.after_install(position, hard_state)?;
        failpoint::reach("install-received");
        // Whatever fails from here on may have made the log rely on it.
        received.counts(true);
        if let Err(error) = self.append(Draft::reset(position, hard_state), Priority::Essential, tail) {
            received.counts(error != WriteError::NoRoom);
            return Err(error);
        }
        failpoint::reach("install-reset");
        let received = checkpoint::received(index);
        self.segments.iter_mut().for_each(|used| used.before = position);
        self.disk.rename(&received, &checkpoint::file(index)).map_err(|error| self.health.fail(&received, &error))?;
        self.sync_dir()?;
        failpoint::reach("install-renamed");
        self.checkpoints.push(index);
        self.set_aside.extend(self.checkpoints.drain(..self.checkpoints.len() - 1).map(checkpoint::file));
        self.drop_superfluous(|active, used| used.id < active)
    }

    fn after_install(&self, at: Position, hard_state: HardState) -> Result<Tail, WriteError> {
        self.health.check()?;
        let tail = self.tail.after_reset(at, hard_state)?;
        if self.newest_checkpoint() >= at.index { Err(self.misplaced(at.index)) } else { Ok(tail) }
    }

    /// Puts a record behind the last one. Up to the first write nothing was changed.
    fn append(&mut self, draft: Draft, priority: Priority, tail: Tail) -> Result<(), WriteError> {
        let (bytes, limit) = (draft.bytes(), self.record_limit());
        if bytes > limit {
            return Err(WriteError::TooLarge { bytes, limit });
        }
        let priority = if bytes > ESSENTIAL_BYTES { Priority::Ordinary } else { priority };
        if self.active.next + sector::count(bytes) <= self.active.sectors {
            self.preparation.reserve().admit(priority)?;
        } else {
            let spare = self.preparation.reserve().take(priority)?;
            self.begin_segment(spare)?;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let crc = draft.frame(self.active.id, self.active.next, &mut buffer);
        self.write_active(&buffer)?;
        (self.crc, self.tail, self.durable, self.buffer) = (crc, tail, tail.hard_state, buffer);
        if let Some(used) = self.segments.back_mut() {
            // After a reset nothing before it counts, and the checkpoint's own entry is in no segment.
            used.highest = if tail.base.index == tail.last.index { 0 } else { used.highest.max(tail.last.index) };
        }
        Ok(())
    }

    fn begin_segment(&mut self, spare: Spare<D::File>) -> Result<(), WriteError> {
        let Spare { id, file } = spare;
        let before = Before { crc: self.crc, last: self.tail.last, hard_state: self.durable };
        let head = segment::head(&self.identity, id, self.settings.segment_bytes, &before);
        let sectors = usize::try_from(self.settings.segment_bytes).unwrap_or(usize::MAX) / SECTOR;
        self.active = Active { id, file, sectors, next: 0 };
        // Durable before any record of it, so that records always have their head.
        self.write_active(&head)?;
        self.segments.push_back(Used { id, before: before.last, highest: 0 });
        Ok(())
    }

    /// Whatever goes wrong here is final: nobody can tell which part of it is on the disk.
    fn write_active(&mut self, sectors: &[u8]) -> Result<(), WriteError> {
        let Active { id, file, next, .. } = &mut self.active;
        let written = file.write_at((*next * SECTOR) as u64, sectors).and_then(|()| {
            failpoint::reach("log-unsynced");
            file.sync()
        });
        written.map_err(|error| self.health.fail(&segment::file(*id), &error))?;
        *next += sectors.len() / SECTOR;
        self.left.store((self.active.sectors - self.active.next) * sector::PAYLOAD, Ordering::Relaxed);
        Ok(())
    }

    fn record_limit(&self) -> usize {
        let sectors = usize::try_from(self.settings.segment_bytes).unwrap_or(usize::MAX) / SECTOR;
        (sectors - 1) * sector::PAYLOAD
    }

    fn newest_checkpoint(&self) -> u64 {
        self.checkpoints.last().copied().unwrap_or(0)
    }

    fn check_checkpoint(&self, index: u64) -> Result<(), WriteError> {
        self.health.check()?;
        let between = index > self.newest_checkpoint() && index <= self.tail.hard_state.commit;
        if between { Ok(()) } else { Err(self.misplaced(index)) }
    }

    fn misplaced(&self, index: u64) -> WriteError {
        let commit = self.tail.hard_state.commit;
        Contradiction::Checkpoint { index, newest: self.newest_checkpoint(), commit }.into()
    }

    /// Removes all but the newest checkpoints, and the oldest segments as long as `is_superfluous`.
    fn drop_superfluous(&mut self, is_superfluous: impl Fn(u64, &Used) -> bool) -> Result<(), WriteError> {
        let mut files = std::mem::take(&mut self.set_aside);
        let older = self.checkpoints.len().saturating_sub(CHECKPOINTS);
        files.extend(self.checkpoints.drain(..older).map(checkpoint::file));
        while let Some(used) =
            self.segments.front().filter(|used| used.id != self.active.id && is_superfluous(self.active.id, used))
        {
            files.push(segment::file(used.id));
            self.segments.pop_front();
        }
        if let Some(oldest) = self.segments.front().filter(|oldest| oldest.before.index > self.tail.base.index) {
            self.tail.base = oldest.before;
        }
        if files.is_empty() { Ok(()) } else { self.remove(&files) }
    }

    fn remove(&self, files: &[String]) -> Result<(), WriteError> {
        for file in files {
            match self.disk.remove(file) {
                // A checkpoint that was written twice, and dropped once.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(|error| self.health.fail(file, &error))?,
            }
        }
        self.sync_dir()?;
        self.preparation.reserve().look_again();
        Ok(())
    }

    fn sync_dir(&self) -> Result<(), WriteError> {
        self.disk.sync_dir().map_err(|error| self.health.fail("the folder", &error))
    }
}
