//! The way to the other replicas, as the log's thread sees it.
//!
//! What a way over the network must do besides: one ordered stream of frames per direction, control before entries; a
//! handshake both ways (cluster, generation, from, to, and the certificate says `from`); never hand on a frame of
//! another sender than the certificate's; say [`Log::unreachable`](super::Log::unreachable) once when a queue
//! overflowed or a stream broke, and [`Log::leader_gone`](super::Log::leader_gone) 5 to 100 ms after the leader's stream
//! broke and its host refused another; send checkpoints over a connection of their own.

use std::fmt;

use super::{Position, StateHash, store::ConfState};

/// Takes what shall go to other replicas. Every call returns at once: the log's thread makes them.
pub trait Peers: Send + Sync + 'static {
    /// Sends a frame, or drops it.
    fn send(&self, to: u64, frame: Vec<u8>);

    /// Brings the checkpoint's body from there, in its own time, and says
    /// [`Log::receive_checkpoint`](super::Log::receive_checkpoint) or
    /// [`Log::checkpoint_missed`](super::Log::checkpoint_missed). May be asked again while it is on its way.
    fn fetch(&self, from: u64, checkpoint: Position);

    /// Tells everybody of the same version what the newest checkpoint here holds, also those who come later.
    fn state_hash(&self, hash: StateHash);

    /// These are the members from now on: others are hung up on.
    fn members(&self, members: &ConfState);
}

/// Nobody else: for a replica that is its whole group.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Peers for Alone {
    fn send(&self, _: u64, _: Vec<u8>) {}

    fn fetch(&self, _: u64, _: Position) {}

    fn state_hash(&self, _: StateHash) {}

    fn members(&self, _: &ConfState) {}
}

impl fmt::Debug for dyn Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Peers")
    }
}
