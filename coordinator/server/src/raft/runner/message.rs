//! What the log's thread is told, and who waits for its answers.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::disk::Done;
use crate::raft::{
    ChangeError, End, Machine, ProposeError, ReadError, StateHash,
    driver::{Change, ChangeRefused, LogWentBack, Shown, Status},
    store::{ConfState, Position, Received},
};

/// What the thread is told.
pub(in crate::raft) enum Message<M: Machine> {
    /// There are some in the inlet.
    Proposals,
    Read(oneshot::Sender<Result<Arc<M>, ReadError>>),
    Change(Change, oneshot::Sender<Result<(), ChangeError>>),
    /// Whether it would be made.
    Allows(Change, oneshot::Sender<Result<(), ChangeRefused>>),
    Transfer(Option<u64>),
    Status(oneshot::Sender<Status>),
    Shown(oneshot::Sender<Shown>),
    /// A connection to that replica begins, and it shows this.
    Greeted(u64, Shown, oneshot::Sender<Result<(), LogWentBack>>),
    /// What a checkpoint of that replica holds.
    StateHash(u64, StateHash),
    /// Others do not let this replica take part, for this reason.
    Barred(String),
    /// From a peer, whose certificate says so.
    Frame(u64, Vec<u8>),
    Unreachable(u64),
    LeaderGone(u64),
    CheckpointArrived(Box<Arrived<M>>),
    /// It is whole, but this version cannot read it.
    CheckpointUnreadable(End),
    CheckpointMissed(Position),
    CheckpointSending(u64),
    CheckpointNotSent(u64),
    CheckpointDone,
    Disk(Done),
    End,
    /// The end, without another leader first.
    Cut,
}

/// A checkpoint from elsewhere, before the log relies on it.
pub(in crate::raft) struct Arrived<M> {
    pub(in crate::raft) received: Arc<Received>,
    pub(in crate::raft) state: M,
    /// Bytes of the state in it.
    pub(in crate::raft) bytes: u64,
}

/// An entry that somebody waits for.
pub(in crate::raft) struct Proposal<M: Machine> {
    pub(in crate::raft) entry: M::Entry,
    pub(in crate::raft) data: Vec<u8>,
    pub(in crate::raft) is_essential: bool,
    pub(in crate::raft) answer: oneshot::Sender<Result<M::Outcome, ProposeError>>,
    pub(in crate::raft) _place: OwnedSemaphorePermit,
}

/// Who waits for an answer of the driver's.
pub(super) enum Waiting<M: Machine> {
    Proposal(Proposal<M>),
    Read(oneshot::Sender<Result<Arc<M>, ReadError>>),
    Change(oneshot::Sender<Result<(), ChangeError>>),
}

/// Where the thread shows what it did.
pub(in crate::raft) struct Outlets<M: Machine> {
    pub(in crate::raft) state: watch::Sender<Arc<M>>,
    pub(in crate::raft) applied: watch::Sender<Position>,
    pub(in crate::raft) leader: watch::Sender<Option<u64>>,
    pub(in crate::raft) known_leader: watch::Sender<Option<u64>>,
    pub(in crate::raft) members: watch::Sender<ConfState>,
    pub(in crate::raft) standing: watch::Sender<Option<Status>>,
}
