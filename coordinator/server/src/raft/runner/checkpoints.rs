//! Checkpoints: those made here, and those that come from elsewhere.

use std::collections::BTreeSet;

use mainstay_common::process::now;

use super::{Job, Runner, message::Arrived};
use crate::raft::{
    End, Machine, StateHash,
    agreement::Verdict,
    driver::Input,
    start,
    store::{Disk, Position},
};

impl<D: Disk, M: Machine> Runner<D, M> {
    /// A body that was asked for is here.
    pub(super) fn checkpoint_arrived(&mut self, arrived: Arrived<M>) {
        let at = arrived.received.position();
        if at.index <= self.applied.index {
            // It came too late, and goes.
            return;
        }
        if self.bodies.get(&at.index).is_some_and(|body| body.received.position() == at) {
            arrived.received.keep();
            return self.driver.feed(Input::CheckpointReceived(at));
        }
        self.bodies.insert(at.index, arrived);
        self.driver.feed(Input::CheckpointReceived(at));
    }

    /// A checkpoint from elsewhere is durable: it is the state.
    pub(super) fn install(&mut self, at: Position) -> Result<(), End> {
        let body = self.bodies.remove(&at.index);
        let body = body.ok_or_else(|| End::Broken("an installed checkpoint is not here".into()))?;
        self.bodies.retain(|index, _| *index > at.index);
        (self.applied, self.members) = (at, body.received.conf_state().clone());
        self.pulse.checkpoint(body.bytes, Some(now().0));
        self.state = body.state;
        start::show_missed(&mut self.observers, at.index);
        tracing::info!(index = at.index, term = at.term, "a checkpoint from another replica is the state now");
        Ok(())
    }

    pub(super) fn fetch(&mut self, from: u64, checkpoint: Position) {
        if self.bodies.get(&checkpoint.index).is_some_and(|body| body.received.position() == checkpoint) {
            self.driver.feed(Input::CheckpointReceived(checkpoint));
        } else {
            self.peers.fetch(from, checkpoint);
        }
    }

    pub(super) fn checkpoint_done(&mut self) {
        match self.keeping.finish() {
            Ok(Some((saved, at, conf_state))) => {
                self.note_commit();
                self.has(StateHash { index: at.index, sha256: saved.sha256() });
                self.jobs.send(Job::Adopt(saved, at, conf_state)).unwrap_or(());
            }
            Ok(None) => {}
            Err(error) => self.end = Some(End::Broken(error.to_string())),
        }
    }

    /// `is_wanted`: a peer needs one, however new the last is.
    pub(super) fn make_checkpoint(&mut self, is_full: bool, is_wanted: bool) {
        if self.keeping.is_due(is_full || self.is_full, is_wanted) && self.end.is_none() {
            self.begin_checkpoint(is_full);
        }
    }

    /// Every replica makes one at the same entries, in whatever batches they come.
    pub(super) fn make_common_checkpoint(&mut self) {
        if self.keeping.is_due_at(self.applied.index) {
            self.begin_checkpoint(false);
        }
    }

    fn begin_checkpoint(&mut self, is_full: bool) {
        // What is in a checkpoint is not shown to observers again.
        let keeps = self.observers.iter_mut().map(|observer| observer.keep()).collect();
        let conf_state = self.members.clone();
        self.keeping.begin(self.checkpoints.clone(), self.applied, conf_state, self.state.clone(), keeps, is_full);
    }

    /// This replica has a checkpoint that holds that.
    pub(super) fn has(&mut self, hash: StateHash) {
        self.peers.state_hash(hash);
        self.compare(self.driver.status().id, hash);
    }

    /// A replica, or this one, has that.
    pub(super) fn compare(&mut self, from: u64, hash: StateHash) {
        let own = self.driver.status().id;
        let named = |ids: BTreeSet<u64>| ids.iter().map(|id| format!("r{id}")).collect::<Vec<_>>().join(" and ");
        match self.agreement.heard(from, hash, own, &self.members.all()) {
            None => {}
            Some(Verdict::Differs { index, with }) => {
                tracing::error!(
                    index,
                    others = named(with),
                    "replicas that applied the same entries have different states: one of them has a damaged memory or \
                     disk, or there is a mistake in the program"
                );
            }
            Some(Verdict::Odd { index, against }) => {
                let others = named(against);
                let why = format!("its state at entry {index} is another than that of {others}, which have the same");
                self.end = Some(End::Barred(why));
            }
        }
    }
}
