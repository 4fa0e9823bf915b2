//! What the reserve has, and what it has to make next.

use std::collections::VecDeque;

use super::{Ballast, SPARES, Spare};
use crate::raft::store::log::Priority;

/// The reserve as counted.
#[derive(Debug)]
pub(super) struct Stock<F> {
    pub(super) spares: VecDeque<Spare<F>>,
    pub(super) next_id: u64,
    pub(super) ballast: Ballast,
    /// The last attempt met a full disk, and the reserve was not whole since.
    pub(super) short: bool,
    /// Something essential waits for a segment: the ballast may go.
    pub(super) urgent: bool,
    /// A checkpoint uses the ballast's room: nothing else may take it meanwhile.
    pub(super) lent: bool,
    /// Files were removed: an attempt is worth it now.
    pub(super) worth_it: bool,
    pub(super) stopping: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    MakeSegment(u64),
    MakeBallast,
    DropBallast,
}

impl<F> Stock<F> {
    pub(super) fn next_step(&self) -> Option<Step> {
        if self.lent {
            None
        } else if self.urgent && self.short && self.spares.is_empty() && self.ballast == Ballast::There {
            Some(Step::DropBallast)
        } else if self.spares.len() < SPARES {
            Some(Step::MakeSegment(self.next_id))
        } else if self.ballast == Ballast::Missing {
            Some(Step::MakeBallast)
        } else {
            None
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.spares.len() >= SPARES && self.ballast != Ballast::Missing
    }

    pub(super) fn has_one_for(&self, priority: Priority) -> bool {
        match priority {
            Priority::Ordinary => self.spares.len() >= SPARES && !self.short,
            Priority::Essential => !self.spares.is_empty(),
        }
    }
}
