//! Checkpoints as other replicas get them: the file, byte for byte.

use std::{io, sync::Arc};

use super::{Checkpoint, Identity, OpenError, checkpoint, disk::Disk};

/// Reads checkpoints beside the log, from any thread.
#[derive(Debug)]
pub struct CheckpointReader<D: Disk> {
    pub(super) disk: Arc<D>,
    pub(super) identity: Identity,
}

impl<D: Disk> CheckpointReader<D> {
    /// Opens the file of the checkpoint with that index, which is the same on every replica that has it. It can be read
    /// as long as it is open, also when it is superfluous meanwhile.
    ///
    /// # Errors
    /// What the disk says: there is none any more.
    pub fn open(&self, index: u64) -> io::Result<D::File> {
        self.disk.open(&checkpoint::file(index))
    }

    /// The checkpoint of these bytes.
    ///
    /// # Errors
    /// [`OpenError`] where they are not whole, or another cluster's.
    pub fn parse(&self, bytes: &[u8]) -> Result<Checkpoint, OpenError> {
        Checkpoint::read(&self.identity, "the checkpoint that was sent", bytes).map(|(checkpoint, _)| checkpoint)
    }
}
