//! One connection, as the doorkeeper knows it.

use std::time::Instant;

use mainstay_common::{NodeId, ReplicaId, Timestamp, UserName, identity::Subject};
use mainstay_core::KeyFingerprint;

use super::Block;
use crate::gate::{Refusal, limits::STRANGER_LIFE};

/// A connection. Later ones have greater ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::gate) struct Id(pub(in crate::gate) u64);

/// What a certificate said.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(in crate::gate) subject: Subject,
    pub(in crate::gate) key: KeyFingerprint,
    pub(in crate::gate) not_after: Timestamp,
}

/// Where a connection stands.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// In the lobby, without a whole ClientHello.
    Silent,
    /// In the lobby, until its turn.
    Waiting(Instant),
    /// In its handshake, or after one without a certificate that counts, since.
    Seated(Instant),
    Agent(NodeId),
    Person(UserName),
    Replica(ReplicaId),
    /// Cut; its end is on the way.
    Gone,
}

#[derive(Debug)]
pub(super) struct Guest {
    pub(super) block: Block,
    pub(super) place: Place,
    pub(super) shown: Option<Shown>,
    /// When its last words end.
    pub(super) doomed: Option<Instant>,
}

impl Guest {
    pub(super) fn new(block: Block) -> Self {
        Self { block, place: Place::Silent, shown: None, doomed: None }
    }

    /// Whether its certificate let it in.
    pub(super) fn is_member(&self) -> bool {
        matches!(self.place, Place::Agent(_) | Place::Person(_) | Place::Replica(_))
    }

    /// Why its time is over.
    pub(super) fn over(&self, now: Instant, clock: Timestamp) -> Option<Refusal> {
        if let Place::Seated(since) = self.place {
            return (now.saturating_duration_since(since) > STRANGER_LIFE).then_some(Refusal::Idle);
        }
        let expired = self.is_member() && self.shown.as_ref().is_some_and(|shown| shown.not_after < clock);
        expired.then_some(Refusal::Expired)
    }
}
