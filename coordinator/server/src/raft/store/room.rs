//! Whether a full disk would take something, before it is too late to refuse it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{Priority, disk::Disk, preparation::Reserve};

/// Asked by whoever puts something into the log that another thread writes.
#[derive(Debug)]
pub struct Room<D: Disk> {
    pub(super) reserve: Arc<Reserve<D>>,
    /// What the segment in use still takes, in bytes.
    pub(super) left: Arc<AtomicUsize>,
}

impl<D: Disk> Room<D> {
    /// Whether a batch of so many bytes would be written, as far as is known; asks no disk. What is ordinary is refused
    /// while the reserve is not whole, what is essential when there is no reserve either.
    #[must_use]
    pub fn admits(&self, priority: Priority, bytes: usize) -> bool {
        // A hard state and a record's header come with it.
        self.reserve.admits(priority)
            || priority == Priority::Essential && bytes + 64 <= self.left.load(Ordering::Relaxed)
    }
}
