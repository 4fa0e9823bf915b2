//! Where proposals wait for the log's thread: it is woken for the first of them, and takes them all.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Machine, Proposal};

/// What waits; `None` when the log has ended.
type Waiting<M> = Arc<Mutex<Option<Vec<Proposal<M>>>>>;

/// The end where proposals are put in.
pub(in crate::raft) struct Inlet<M: Machine>(Waiting<M>);

/// The end where the log's thread takes them. Dropped, nothing more goes in, and what waits is dropped.
pub(in crate::raft) struct Outlet<M: Machine>(Waiting<M>);

/// The log has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::raft) struct Ended;

/// Whether the log's thread has to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::raft) enum Put {
    /// It is the first.
    First,
    /// The thread was told of one before it, and has not come yet.
    Behind,
}

impl<M: Machine> Inlet<M> {
    /// Both ends.
    pub(in crate::raft) fn new() -> (Self, Outlet<M>) {
        let waiting = Arc::new(Mutex::new(Some(Vec::new())));
        (Self(Arc::clone(&waiting)), Outlet(waiting))
    }

    /// Puts one in.
    ///
    /// # Errors
    /// [`Ended`], and the proposal is gone.
    pub(in crate::raft) fn put(&self, proposal: Proposal<M>) -> Result<Put, Ended> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = waiting.as_mut().ok_or(Ended)?;
        waiting.push(proposal);
        Ok(if waiting.len() == 1 { Put::First } else { Put::Behind })
    }
}

impl<M: Machine> Outlet<M> {
    /// All that wait, in their order.
    pub(super) fn take(&self) -> Vec<Proposal<M>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The same, for the last time.
    pub(super) fn close(&self) -> Vec<Proposal<M>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
    }
}

impl<M: Machine> Drop for Outlet<M> {
    fn drop(&mut self) {
        drop(self.close());
    }
}
