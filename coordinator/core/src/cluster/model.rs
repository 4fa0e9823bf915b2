//! What a cluster and its replicas are.

use std::fmt;

use mainstay_common::{ClusterId, ReplicaId, Timestamp};
use minicbor::{Decode, Encode};

use crate::KeyFingerprint;

/// What a cluster is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founding {
    /// Its name for ever.
    pub id: ClusterId,
    /// Its name for people.
    pub name: String,
    /// Its first replica.
    pub replica: ReplicaId,
    /// What agents and operators dial there, host:port.
    pub address: String,
}

/// What is said once of the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct About {
    /// Its name for ever: the trust domain of its certificates.
    #[n(0)]
    pub id: ClusterId,
    /// Its name for people.
    #[n(1)]
    pub name: String,
    /// Counts disaster restores, after which terms start again.
    #[n(2)]
    pub generation: u64,
    /// The number of the next replica: numbers are never used twice.
    #[n(3)]
    pub next_replica: u64,
    /// When somebody took a backup last.
    #[n(4)]
    pub backed_up_at: Option<Timestamp>,
}

/// A member of the Raft group.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Replica {
    /// What agents and operators dial, host:port.
    #[n(0)]
    pub address: String,
    /// What other replicas dial, host:port; `None` where an earlier version founded the cluster, and nobody else joined.
    #[n(1)]
    pub peer_address: Option<String>,
    /// The one key that may speak for it; `None` as for the address.
    #[n(2)]
    pub key: Option<KeyFingerprint>,
    /// When it was removed: its id is never used again.
    #[n(3)]
    pub removed_at: Option<Timestamp>,
    /// The version of entries that it says it knows; `None` for one that says nothing of it, which knows version 1.
    #[n(4)]
    pub version: Option<u32>,
    /// Nobody removed it: the disaster restore that began this generation went on without it.
    #[n(5)]
    pub left_out_of: Option<u64>,
}

/// What becomes of somebody who speaks for a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A replica of this cluster.
    Member,
    /// It was removed, or a disaster restore went on without it.
    Removed,
    /// The name is another key's.
    OtherKey,
    /// It joined later than what is known here.
    Later,
    /// Nothing is known of it here.
    Unknown,
}

/// What work carries, so that a leader of the past is refused: first the generation counts, then the term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Fence {
    /// Of the cluster.
    #[n(0)]
    pub generation: u64,
    /// Of the leader.
    #[n(1)]
    pub term: u64,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, self.term)
    }
}

/// Raft's number of a replica: `r7` is 7.
#[must_use]
pub fn number(id: &ReplicaId) -> Option<u64> {
    id.as_str().strip_prefix('r').and_then(|digits| digits.parse().ok())
}

/// The replica of Raft's number.
///
/// # Panics
/// Never: `r` and a number is a name.
#[must_use]
pub fn numbered(number: u64) -> ReplicaId {
    format!("r{number}").parse().expect("r and a number is a name")
}
