//! Checkpoints: those made here, and those that come from elsewhere.

use std::sync::Arc;

use mainstay_common::process::now;

use super::{Job, Runner};
use crate::raft::{
    End, Machine,
    driver::Input,
    start,
    store::{Checkpoint, Disk, Position},
};

impl<D: Disk, M: Machine> Runner<D, M> {
    /// A body that was asked for is here.
    pub(super) fn checkpoint_arrived(&mut self, checkpoint: Checkpoint) {
        let at = checkpoint.position();
        self.bodies.insert(at.index, Arc::new(checkpoint));
        self.driver.feed(Input::CheckpointReceived(at));
    }

    /// A checkpoint from elsewhere is durable: it is the state.
    pub(super) fn install(&mut self, at: Position) -> Result<(), String> {
        let body = self.bodies.remove(&at.index).ok_or("an installed checkpoint is not here")?;
        self.bodies.retain(|index, _| *index > at.index);
        let state = M::from_sections(&body.sections);
        self.state = state.map_err(|why| format!("the checkpoint at {} cannot be read: {why}", at.index))?;
        self.applied = at;
        self.pulse.checkpoint(start::size(&body.sections), Some(now().0));
        start::show_missed(&mut self.observers, at.index);
        tracing::info!(index = at.index, term = at.term, "a checkpoint from another replica is the state now");
        Ok(())
    }

    pub(super) fn fetch(&mut self, from: u64, checkpoint: Position) {
        if self.bodies.get(&checkpoint.index).is_some_and(|body| body.position() == checkpoint) {
            self.driver.feed(Input::CheckpointReceived(checkpoint));
        } else {
            self.peers.fetch(from, checkpoint);
        }
    }

    pub(super) fn checkpoint_done(&mut self) {
        match self.keeping.finish() {
            Ok(Some((saved, at, conf_state))) => {
                self.note_commit();
                self.jobs.send(Job::Adopt(saved, at, conf_state)).unwrap_or(());
            }
            Ok(None) => {}
            Err(error) => self.end = Some(End::Broken(error.to_string())),
        }
    }

    /// `is_wanted`: a peer needs one, however new the last is.
    pub(super) fn make_checkpoint(&mut self, is_full: bool, is_wanted: bool) {
        if !self.keeping.is_due(is_full || self.is_full, is_wanted) || self.end.is_some() {
            return;
        }
        // What is in a checkpoint is not shown to observers again.
        let keeps = self.observers.iter_mut().map(|observer| observer.keep()).collect();
        let conf_state = self.driver.conf_state();
        self.keeping.begin(self.checkpoints.clone(), self.applied, conf_state, self.state.clone(), keeps, is_full);
    }
}
