//! Checkpoints are written beside the log, so that a big one does not keep entries waiting.

use std::{io, sync::Arc};

use super::{
    Checkpoint, ConfState, Identity, Position, PutPiece, checkpoint,
    disk::Disk,
    error::WriteError,
    health::Health,
    place::{PlaceError, place},
    preparation::Reserve,
};
use crate::failpoint;

/// Writes checkpoints, from any thread; [`Store::adopt`](super::Store::adopt) makes them count.
#[derive(Debug)]
pub struct CheckpointWriter<D: Disk> {
    pub(super) disk: Arc<D>,
    pub(super) identity: Identity,
    pub(super) health: Health,
    pub(super) reserve: Arc<Reserve<D>>,
}

impl<D: Disk> Clone for CheckpointWriter<D> {
    fn clone(&self) -> Self {
        Self {
            disk: Arc::clone(&self.disk),
            identity: self.identity.clone(),
            health: self.health.clone(),
            reserve: Arc::clone(&self.reserve),
        }
    }
}

/// A checkpoint that is durable.
#[derive(Debug)]
#[must_use = "Store::adopt drops what it makes superfluous"]
pub struct SavedCheckpoint {
    pub(super) index: u64,
    pub(super) sha256: [u8; 32],
}

impl SavedCheckpoint {
    /// What proves all of it: the same on every replica that has one at that index.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }
}

impl<D: Disk> CheckpointWriter<D> {
    /// Writes a checkpoint of committed entries that this replica applied itself.
    ///
    /// # Errors
    /// [`WriteError::NoRoom`] where it does not fit even into the ballast's room; [`WriteError::Broken`].
    pub fn write(&self, checkpoint: &Checkpoint) -> Result<SavedCheckpoint, WriteError> {
        let body = |put: &mut PutPiece<'_>| checkpoint::each_piece(&checkpoint.sections, put);
        self.write_pieces(checkpoint.position(), &checkpoint.conf_state, body)
    }

    /// The same with a body that comes in pieces; where room is short, twice.
    ///
    /// # Errors
    /// As [`CheckpointWriter::write`].
    pub fn write_pieces(
        &self,
        at: Position,
        conf_state: &ConfState,
        mut body: impl FnMut(&mut PutPiece<'_>) -> io::Result<()>,
    ) -> Result<SavedCheckpoint, WriteError> {
        failpoint::reach("checkpoint-begun");
        let write = |file: &D::File| checkpoint::write::<D>(&self.identity, file, at, conf_state, &mut body);
        let sha256 = self.place_by(&checkpoint::file(at.index), write)?;
        failpoint::reach("checkpoint-renamed");
        Ok(SavedCheckpoint { index: at.index, sha256 })
    }

    pub(super) fn place(&self, name: &str, checkpoint: &Checkpoint) -> Result<[u8; 32], WriteError> {
        self.place_by(name, |file| checkpoint.write::<D>(&self.identity, file))
    }

    fn place_by(
        &self,
        name: &str,
        mut content: impl FnMut(&D::File) -> io::Result<[u8; 32]>,
    ) -> Result<[u8; 32], WriteError> {
        self.health.check()?;
        let mut proof = [0; 32];
        let mut place = || {
            place(&*self.disk, name, |file| {
                proof = content(file)?;
                failpoint::reach("checkpoint-written");
                Ok(())
            })
        };
        let mut placed = place();
        if matches!(placed, Err(PlaceError::NoRoom)) {
            // What it makes superfluous is worth more room than the ballast's.
            if self.reserve.lend_ballast()? {
                placed = place();
            }
            self.reserve.take_back();
        }
        match placed {
            Ok(_) => Ok(proof),
            Err(PlaceError::NoRoom) => Err(WriteError::NoRoom),
            Err(PlaceError::Disk(error)) => Err(self.health.fail(name, &error)),
        }
    }
}
